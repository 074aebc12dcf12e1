//! Runs in which all copies of the log are lost while hosts work, and which go on without one (`write-through-exposed`). With the
//! next power-on the copies are back: what they say counts if the array had not given them up, and is old if it had. From then on
//! the promise is that of an array without a log ([`super::bare`]): so a run has either cuts, or the loss of a member once the
//! array goes on without its log.

use base::ids::DeviceId;
use engine::map::OnLogLoss;

use super::Scenario;
use crate::fault::Fault;
use crate::random::Random;

/// Seeds with these remainders are such runs. The others keep the runs that they had before.
const SEEDS: [u64; 3] = [12, 21, 28];
const SEEDS_OF: u64 = 32;

/// What is lost, and when.
#[derive(Clone, Debug, Default)]
pub struct Exposure {
    /// Copies of the log, each lost until the next power-on as soon as so many requests were answered.
    pub copies: Vec<(u64, DeviceId)>,
    /// A member that is lost for good once the array goes on without a log.
    pub member: Option<DeviceId>,
}

pub(super) fn is_meant(seed: u64) -> bool {
    SEEDS.contains(&(seed % SEEDS_OF))
}

impl Scenario {
    /// The log stays.
    pub(crate) fn leave_the_log_alone(&mut self) {
        (self.exposure, self.on_log_loss) = (None, OnLogLoss::ReadOnly);
    }

    /// Has all copies of the log lost, and takes away what does not go with that.
    pub(super) fn lose_the_log(&mut self, random: &mut Random) {
        self.on_log_loss = OnLogLoss::WriteThroughExposed;
        (self.checksums, self.carving, self.scrubbed, self.repair_always) = (false, None, false, None);
        (self.log_spares, self.log_keeping) = (0, None);
        (self.operated, self.spares, self.hiccups_once_in, self.max_read_errors) = (false, 0, 0, u32::MAX);
        (self.probe_losses, self.heals) = (false, true);
        self.workload.atomic_blocks = 1;
        self.degraded.clear();
        let mut exposure = Exposure::default();
        let mut answers = 0;
        // Again, should the power fail before the log was given up.
        for _ in 0..random.between(1, 3) {
            answers += random.below(self.workload.requests / 2 + 1);
            let apart = random.choose(&[0, 0, 3]);
            exposure.copies.extend((0..).zip(self.log_devices()).map(|(at, copy)| (answers + at * apart, copy)));
        }
        exposure.copies.sort_unstable();
        let cuts = !random.once_in(4);
        let is_cut = |fault| matches!(fault, Fault::PowerCut | Fault::PowerCutBehind { .. });
        self.faults.retain(|planned| cuts && is_cut(planned.fault));
        self.cut_when_idle &= cuts;
        let member = DeviceId(random.below(self.members.into()) as u16);
        let is_borne = self.geometry().bears(1 << member.0) && self.is_decided_without_logs(1 << member.0);
        exposure.member = (!cuts && is_borne).then_some(member);
        self.exposure = Some(exposure);
        self.may_get_a_log(random);
    }
}
