//! Runs about what may become of the log's devices: they hang for a while, or for ever; others become copies, and copies go.

use base::ids::DeviceId;
use base::time::Span;

use super::Scenario;
use crate::fault::{Fault, PlannedFault};
use crate::log_keeper::Keeping;
use crate::random::Random;

/// Seeds with this remainder are such runs. The others keep the runs that they had before.
pub(super) const SEEDS: u64 = 8;
pub(super) const SEEDS_OF: u64 = 16;

/// Seeds with these remainders have somebody who looks after the log, half of them under pressure. The others keep the runs
/// that they had before there was one.
pub(super) const KEEPING: [u64; 2] = [14, 27];
pub(super) const KEEPING_OF: u64 = 32;

/// Seeds with these remainders have a log that moves to larger devices. The others keep the runs that they had before any did.
pub(super) const GROWING: [u64; 4] = [4, 9, 14, 18];
pub(super) const GROWING_OF: u64 = 31;

impl Scenario {
    /// As [`Self::keep_the_log`], and the log becomes larger.
    pub(super) fn grow_the_log(&mut self, random: &mut Random) {
        self.keep_the_log(random);
        self.log_keeping = Some(Keeping::Growing);
        (self.log_spares, self.larger_log_spares) = (random.choose(&[1, 2, 2]), random.choose(&[300, 1000, 5000]));
    }

    /// Devices come to the log and go from it while hosts work. They are lost by whoever looks after them, who knows when one
    /// may be; no member is.
    pub(super) fn keep_the_log(&mut self, random: &mut Random) {
        self.log_keeping = Some(Keeping::ByChance);
        self.heals = random.once_in(2);
        self.log_spares = random.choose(&[1, 2, 2, 3]);
        self.workload.requests = random.between(200, 1200);
        self.faults.retain(|planned| matches!(planned.fault, Fault::PowerCut | Fault::PowerCutBehind { .. }));
    }

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
