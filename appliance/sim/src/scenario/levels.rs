//! Runs on other levels than RAID-5: which level and how many members, and losses up to what the level bears, in turn and
//! in the very crash. Who asks for a level gets every seed at that level.

use raid::{Geometry, Level};

use super::{Scenario, ZONE_STRIPES};
use crate::fault::{Fault, PlannedFault};
use crate::random::Random;
use crate::world::further_losses;

/// Seeds with these remainders have another level. The others keep the runs that they had before there were any.
const SEEDS: [u64; 5] = [1, 5, 7, 8, 13];
const SEEDS_OF: u64 = 16;

/// And those with these, which lose members again and again, mostly two at a time.
const DOUBLE: [u64; 2] = [3, 41];
const DOUBLE_OF: u64 = 64;

/// The level and the members of a seed: `members` on RAID-5.
pub(super) fn draw(seed: u64, wanted: Option<Level>, members: u8) -> (Level, u8) {
    let mut random = Random::named(seed, "level");
    let other = random.choose(&[
        Level::Raid6,
        Level::Raid6,
        Level::Raid6,
        Level::Raid10,
        Level::Raid10,
        Level::Raid1,
        Level::Raid4,
        Level::Raid0,
    ]);
    let is_double = DOUBLE.contains(&(seed % DOUBLE_OF));
    let drawn = if is_double || SEEDS.contains(&(seed % SEEDS_OF)) { other } else { Level::Raid5 };
    let level = wanted.unwrap_or(drawn);
    let members = match level {
        Level::Raid0 => random.choose(&[1, 2, 3, 4]),
        Level::Raid1 => random.choose(&[2, 2, 3, 4]),
        Level::Raid4 => random.choose(&[3, 4, 5]),
        Level::Raid5 => members,
        Level::Raid6 => random.choose(&[4, 5, 5, 6, 7]),
        Level::Raid10 => random.choose(&[4, 4, 6]),
    };
    (level, members)
}

/// Data blocks of a stripe.
pub(super) fn columns(level: Level, members: u8) -> u32 {
    let geometry = Geometry::new(level, members, 1, ZONE_STRIPES).expect("scenarios draw such");
    geometry.data_slots().into()
}

impl Scenario {
    /// Data blocks of a stripe.
    pub(crate) fn columns(&self) -> u32 {
        columns(self.level, self.members)
    }

    /// Where blocks lie.
    pub fn geometry(&self) -> Geometry {
        Geometry::new(self.level, self.members, self.chunk_blocks, self.zones * ZONE_STRIPES)
            .expect("scenarios draw such")
    }

    /// Whether members (a bit mask) may be lost together with log copies. Where the lost members would be an array by
    /// themselves, those that stay cannot know whether it went on without them, unless every log copy tells.
    pub(crate) fn is_decided_without_logs(&self, lost: u32) -> bool {
        !self.geometry().bears(!lost)
    }

    /// Loses more members, as far as the level bears it, or fewer.
    pub(super) fn lose_by_level(&mut self, random: &mut Random) {
        let geometry = self.geometry();
        let is_member =
            |fault: &Fault| matches!(fault, Fault::Lost { device, .. } if device.0 < geometry.members().into());
        if geometry.fewest_members() == geometry.members() {
            self.faults.retain(|planned| !is_member(&planned.fault));
            self.degraded.clear();
        }
        let in_crash: Vec<u64> = self
            .faults
            .iter()
            .filter(|planned| planned.fault == Fault::PowerCut)
            .map(|planned| planned.effect)
            .collect();
        loop {
            let lost = self.lost_members();
            let may_be_lost: Vec<_> = self
                .member_devices()
                .filter(|device| lost & 1 << device.0 == 0 && geometry.bears(lost | 1 << device.0))
                .collect();
            if may_be_lost.is_empty() || random.once_in(3) {
                break;
            }
            let fault = Fault::Lost { device: random.choose(&may_be_lost), returns: random.once_in(2) };
            let effect = if in_crash.is_empty() || random.once_in(2) {
                random.between(1, 2000)
            } else {
                random.choose(&in_crash)
            };
            self.faults.push(PlannedFault { effect, fault });
        }
        self.faults.sort_by_key(|planned| (planned.effect, planned.fault == Fault::PowerCut));
    }

    /// Loses no log copy if every one of them is needed to tell who went on.
    pub(super) fn keep_witnesses(&mut self) {
        // Whoever looks after the drives has as many members go as the level bears.
        let lost: Vec<u32> = match self.operated {
            true => further_losses(&self.geometry(), 0).collect(),
            false => vec![self.lost_members()],
        };
        if !lost.into_iter().all(|lost| self.is_decided_without_logs(lost)) {
            let members = u16::from(self.members);
            self.faults.retain(|planned| !matches!(planned.fault, Fault::Lost { device, .. } if device.0 >= members));
        }
    }

    /// The members that are lost over the whole run, as a bit mask.
    pub(crate) fn lost_members(&self) -> u32 {
        let faults = self.faults.iter().filter_map(|planned| match planned.fault {
            Fault::Lost { device, .. } | Fault::Hang { device, .. } => Some(device),
            _ => None,
        });
        let lost = faults.chain(self.degraded.iter().copied()).filter(|device| device.0 < self.members.into());
        lost.fold(0, |mask, device| mask | 1 << device.0)
    }
}
