//! Runs that ask much of blocks: chunks up to the largest, so that atomic units end at the engine's own limit; long reads and
//! writes that meet in a few units, more often than not on a degraded array, where a read is put together over time; discards,
//! long ones too; compares, and compares with writes.

use base::ids::{DeviceId, Lba};
use engine::limits::atomic_blocks;

use super::{Discards, JOIN_BLOCKS, Scenario, Window, ZONE_STRIPES};
use crate::fault::{Fault, PlannedFault};
use crate::random::Random;

/// Seeds with these remainders are such runs. The others keep the runs that they had before.
pub(super) const SEEDS: [u64; 3] = [0, 1, 4];
pub(super) const SEEDS_OF: u64 = 16;

impl Scenario {
    pub(super) fn ask_much_of_blocks(&mut self, random: &mut Random) {
        self.chunk_blocks = random.choose(&[4, 16, 64, 128, 256]);
        self.lane_blocks = random.choose(&[800, 1200]);
        self.destage_age = random.choose(&[base::time::Span::from_micros(100), base::time::Span::from_millis(2)]);
        self.pool_blocks = 4096 + JOIN_BLOCKS + usize::from(self.shards) * 1600;
        self.workload.atomic_blocks = atomic_blocks(self.chunk_blocks);
        self.workload.row_blocks = self.chunk_blocks * self.columns();
        self.workload.depth = random.choose(&[8, 32]);
        self.workload.max_blocks = random.choose(&[16, 64, 128]);
        self.workload.weights = random.choose(&[[5, 5, 0], [4, 5, 1], [8, 4, 1], [2, 5, 4]]);
        self.workload.discards = (!random.once_in(4)).then(|| Discards {
            once_in: random.choose(&[1, 2, 4]),
            long_blocks: random.choose(&[64, 700, 3000]),
            volume_blocks: self.volume_blocks(),
        });
        self.workload.compares_once_in = random.choose(&[0, 2, 5]);
        let unit = self.workload.atomic_blocks;
        let blocks = (3 * unit).clamp(24, 160);
        let zone_blocks = ZONE_STRIPES * u64::from(self.columns());
        let first = random.below(4) * u64::from(unit);
        let mut windows = vec![Window { start: Lba(first), blocks }];
        if self.zones > 1 {
            windows.push(Window { start: Lba(zone_blocks - 16), blocks: 32 });
        }
        self.workload.windows = windows;
        let loses_member = |planned: &PlannedFault| matches!(planned.fault, Fault::Lost { device, .. } if device.0 < u16::from(self.members));
        if !self.faults.iter().any(loses_member) && !random.once_in(3) {
            self.degraded = vec![DeviceId(random.below(self.members.into()) as u16)];
        }
    }
}
