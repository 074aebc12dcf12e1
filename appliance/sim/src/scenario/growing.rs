//! Runs in which the array gets a further member, as soon as that can be.

use base::time::Span;
use engine::array::Limits;
use raid::Level;

use super::{JOIN_BLOCKS, Scenario};
use crate::random::Random;

/// Seeds with this remainder are such runs, as far as nobody looks after the drives in them, nothing else becomes of the log, and the
/// level has such an array.
const SEEDS: u64 = 7;
const SEEDS_OF: u64 = 19;

impl Scenario {
    pub(super) fn have_it_grown(&mut self, random: &mut Random) {
        let is_left_alone = !self.operated && self.spares == 0 && self.log_spares == 0 && self.exposure.is_none();
        let is_whole = self.degraded.is_empty() && !self.scrubbed && !self.succeeds && self.log_keeping.is_none();
        let can_grow = matches!(self.level, Level::Raid0 | Level::Raid4 | Level::Raid5 | Level::Raid6);
        if self.seed % SEEDS_OF != SEEDS || !is_left_alone || !is_whole || !can_grow || self.is_bare() {
            return;
        }
        (self.grows, self.spares, self.heals) = (true, 1, true);
        self.lane_blocks = self.lane_blocks.max(random.choose(&[600, 1000, 2000]));
        self.rebuild.limits = Limits { bytes_a_second: 0, latency: Span::ZERO };
        // Each window is held as a whole.
        self.pool_blocks = self.pool_blocks.max(4096 + JOIN_BLOCKS + usize::from(self.shards) * 1600);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_every_level_that_can_grow_do() {
        let scenarios: Vec<_> = (0..8000).map(Scenario::draw).filter(|one| one.grows).collect();
        for level in [Level::Raid0, Level::Raid4, Level::Raid5, Level::Raid6] {
            let of_level = scenarios.iter().filter(|one| one.level == level).count();
            assert!(of_level > 3, "{of_level} of {level}");
        }
        let kept = scenarios.iter().filter(|one| one.checksums).count();
        assert!(scenarios.len() > 80 && kept > 3, "{}, {kept} with checksums", scenarios.len());
    }
}
