//! How long a run waits for something to end before it says that nothing does.

use base::time::{Span, Time};
use ports::Ports;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::subject::Subject;

/// Steps without the end of any request after which a run counts as stuck, if time went on as well.
const MAX_STEPS_WITHOUT_END: u64 = 400_000;

/// So long at least: a device that hangs may take it, while hosts that abort again and again keep everybody busy.
const MIN_SILENCE: Span = Span::from_secs(1);

/// Steps after which a run is stuck in any case.
const MOST_STEPS_WITHOUT_END: u64 = 40_000_000;

/// Virtual time without the end of any request after which a run counts as stuck.
const MAX_SILENCE: Span = Span::from_secs(60);

/// The same while only deleted space is cleaned, which answers nobody: in write-through some blocks for each age of a destage.
const MAX_CLEANING: Span = Span::from_secs(600);

/// Something did not end.
pub(super) fn stuck(what: &'static str, detail: String) -> Failure {
    Failure::Stuck { what, detail }
}

/// How long nothing may end.
pub(super) struct Patience {
    steps: u64,
    since: Time,
    most: Span,
}

impl Patience {
    pub(super) fn new<S: Subject>(machine: &Machine<S>) -> Self {
        Self { steps: 0, since: machine.ports.now(), most: MAX_SILENCE }
    }

    /// Only deleted space is cleaned from now on.
    pub(super) fn for_cleaning(&mut self) {
        self.most = MAX_CLEANING;
    }

    pub(super) fn wait<S: Subject>(
        &mut self,
        machine: &Machine<S>,
        what: &'static str,
        detail: impl Fn() -> String,
    ) -> Result<(), Failure> {
        self.steps += 1;
        let silence = machine.ports.now().since(self.since);
        let too_many = self.steps > MAX_STEPS_WITHOUT_END && silence > MIN_SILENCE;
        if too_many || self.steps > MOST_STEPS_WITHOUT_END || silence > self.most {
            let silence_ms = silence.0 / 1_000_000;
            return Err(stuck(what, format!("{} after {} steps and {silence_ms} ms", detail(), self.steps)));
        }
        Ok(())
    }
}
