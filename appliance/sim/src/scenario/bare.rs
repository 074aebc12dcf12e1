//! Runs of arrays without a log. What they promise is less: a crash loses nothing that was acknowledged as long as all members
//! are there, and a loss of members loses nothing as long as there is no crash; the two together, and an array that is degraded
//! when the power fails, are the write hole, which is refused and not served. So a run has either cuts or losses. Atomic is one
//! block, if its drive writes it whole.

use raid::Level;

use super::Scenario;
use crate::fault::Fault;
use crate::log_keeper::Keeping;
use crate::random::Random;

/// Seeds with these remainders are such runs. The others keep the runs that they had before.
pub(super) const SEEDS: [u64; 2] = [23, 31];
pub(super) const SEEDS_OF: u64 = 32;

impl Scenario {
    /// Takes the log away, and what goes with it.
    pub(super) fn go_bare(&mut self, random: &mut Random) {
        self.log_copies = 0;
        self.log_spares = 0;
        self.log_keeping = None;
        self.write_through = true;
        self.log_cache = false;
        self.probe_losses = false;
        self.heals = true;
        self.workload.atomic_blocks = 1;
        self.workload.compares_once_in = random.choose(&[0, 2, 5]);
        self.operated = false;
        self.spares = 0;
        self.hiccups_once_in = 0;
        let members = u16::from(self.members);
        let cuts = self.level == Level::Raid0 || random.once_in(4) || !random.once_in(3);
        self.faults.retain(|planned| match planned.fault {
            Fault::PowerCut => cuts,
            Fault::Lost { device, .. } => !cuts && device.0 < members,
            _ => false,
        });
        self.cut_when_idle &= cuts;
        if cuts {
            self.degraded.clear();
        }
        self.may_get_a_log(&mut Random::named(self.seed, "first log"));
    }

    /// In half of the runs without a log, or with one that is lost, a device becomes its first copy while hosts work.
    pub(super) fn may_get_a_log(&mut self, random: &mut Random) {
        if random.once_in(2) {
            (self.log_spares, self.log_keeping) = (random.choose(&[1, 1, 2]), Some(Keeping::First));
        }
    }

    /// Whether the array has no log.
    pub fn is_bare(&self) -> bool {
        self.log_copies == 0
    }
}
