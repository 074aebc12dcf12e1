//! Runs about what may become of the log's devices: they hang for a while, or for ever.

use base::ids::DeviceId;
use base::time::Span;

use super::Scenario;
use crate::fault::{Fault, PlannedFault};
use crate::random::Random;

/// Seeds with this remainder are such runs. The others keep the runs that they had before.
pub(super) const SEEDS: u64 = 8;
pub(super) const SEEDS_OF: u64 = 16;

impl Scenario {
    pub(super) fn live_with_the_log(&mut self, random: &mut Random) {
        self.log_patience = Span::from_millis(random.choose(&[10, 40]));
        let loses_copy = self.log_devices().any(|copy| {
            let is_lost =
                |planned: &PlannedFault| matches!(planned.fault, Fault::Lost { device, .. } if device == copy);
            self.faults.iter().any(is_lost)
        });
        if self.log_copies > 1 && !loses_copy && !random.once_in(4) {
            let copies: Vec<DeviceId> = self.log_devices().collect();
            // Too short to be noticed, longer than is waited, and for ever.
            let span = random.choose(&[Span::from_millis(5), Span::from_millis(200), Span(u64::MAX)]);
            let fault = Fault::Hang { device: random.choose(&copies), span };
            self.faults.push(PlannedFault { effect: random.between(1, 1500), fault });
            self.faults.sort_by_key(|planned| (planned.effect, planned.fault == Fault::PowerCut));
        }
    }
}
