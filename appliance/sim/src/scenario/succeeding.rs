//! Runs in which members that are in use are succeeded by other drives: now and then by whoever looks after the drives, or one
//! as soon as that can be after each power-on.

use base::time::Span;
use engine::array::Limits;

use super::Scenario;
use crate::random::Random;

/// Seeds with this remainder are such runs, as far as nobody looks after the drives in them and nothing else becomes of the log.
const SEEDS: u64 = 5;
const SEEDS_OF: u64 = 23;

impl Scenario {
    pub(super) fn have_members_succeeded(&mut self, random: &mut Random) {
        if self.operated && random.once_in(3) {
            self.succeeds = true;
        }
        let is_left_alone = !self.operated && self.spares == 0 && self.log_spares == 0 && self.exposure.is_none();
        let is_whole = self.degraded.is_empty() && !self.scrubbed && self.geometry().bears(1);
        if self.seed % SEEDS_OF == SEEDS && is_left_alone && is_whole {
            (self.succeeds, self.spares, self.heals) = (true, 1, true);
        }
        if self.succeeds {
            self.rebuild.limits = Limits { bytes_a_second: 0, latency: Span::ZERO };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_succeeded_on_every_kind_of_array() {
        let scenarios = (0..8000).map(Scenario::draw).filter(|one| one.succeeds && !one.operated);
        let (mut all, mut bare, mut kept) = (0, 0, 0);
        for scenario in scenarios {
            all += 1;
            bare += u32::from(scenario.is_bare());
            kept += u32::from(scenario.checksums);
        }
        assert!(all > 60 && bare > 3 && kept > 3, "{all}, {bare} without a log, {kept} with checksums");
    }
}
