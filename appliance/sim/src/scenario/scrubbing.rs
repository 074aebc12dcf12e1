//! Runs in which the array is scrubbed again and again while hosts work. Nothing is wrong but what cannot be read; what lies on
//! the members and is not what was written is for `world/scrubbing`.

use base::time::Span;
use engine::array::Limits;
use engine::coordinator::RoundSettings;
use raid::Repair;

use super::Scenario;
use crate::random::Random;

/// Seeds with these remainders. The others keep the runs that they had before there were scrubs.
const SEEDS: [u64; 8] = [1, 9, 14, 17, 19, 23, 24, 27];
const SEEDS_OF: u64 = 32;

/// Whether a seed is one of these.
pub(super) fn is_meant(seed: u64) -> bool {
    SEEDS.contains(&(seed % SEEDS_OF))
}

impl Scenario {
    /// Lets somebody have the array scrubbed.
    pub(crate) fn have_scrubbed(&mut self, random: &mut Random) {
        self.scrubbed = true;
        self.scrub.round = RoundSettings {
            limits: Limits {
                bytes_a_second: random.choose(&[0, 0, 0, 200 << 20, 2 << 30]),
                latency: random.choose(&[Span::ZERO, Span::from_micros(50), Span::from_millis(5)]),
            },
            save_zones: random.choose(&[1, 2, 64]),
            save_period: random.choose(&[Span::from_millis(1), Span::from_secs(5)]),
        };
        self.scrub.repair = random.choose(&Repair::ALL);
    }
}
