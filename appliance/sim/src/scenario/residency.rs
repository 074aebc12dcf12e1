//! Runs in which dirty data leaves memory once two copies of the log hold it. In some of them a copy now and then gives back something
//! else than was written to it, or nothing: where no other is lost.

use base::ids::DeviceId;
use engine::array::Residency;

use super::Scenario;
use crate::fault::{Fault, PlannedFault};
use crate::random::Random;

/// Seeds with these remainders are such runs. The others keep the runs that they had before there were any.
pub(super) const SEEDS: [u64; 6] = [3, 8, 13, 17, 21, 27];
pub(super) const SEEDS_OF: u64 = 31;

impl Scenario {
    /// Where dirty data is kept, with so much of it in memory.
    pub(super) fn leave_memory(&mut self, random: &mut Random) {
        self.residency = (Residency::Log, random.choose(&[0, 0, 1, 5]));
        self.log_rots = self.log_copies == 2 && random.once_in(2);
    }

    /// How often a log copy gives back something else: one of the two at most.
    pub(super) fn rots_once_in(&self, copy: DeviceId) -> u64 {
        let rots = self.log_rots && self.log_devices().nth((self.seed % 2) as usize) == Some(copy);
        if rots { 5 } else { 0 }
    }

    /// What a log copy gives back is not to be relied upon only where the other copy stays.
    pub(super) fn keep_logs_from_rotting(&mut self) {
        let is_of_a_copy = |planned: &PlannedFault| {
            let of = match planned.fault {
                Fault::Lost { device, .. }
                | Fault::Hang { device, .. }
                | Fault::Unreadable { device, .. }
                | Fault::Wrong { device, .. } => Some(device),
                _ => None,
            };
            self.log_devices().any(|copy| Some(copy) == of)
        };
        self.log_rots &= self.log_keeping.is_none() && !self.faults.iter().any(is_of_a_copy);
        // Beyond what is promised: what the log alone had is lost with all of it.
        if self.exposure.is_some() {
            (self.residency, self.log_rots) = ((Residency::Memory, 50), false);
        }
    }
}
