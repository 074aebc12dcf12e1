//! Runs in which an operator makes and deletes volumes beside those of the hosts.

use base::ids::Lba;

use super::{Scenario, Window, ZONE_STRIPES};
use crate::carver::CarvingOptions;
use crate::random::Random;

impl Scenario {
    // An operator makes and deletes volumes behind the hosts' own, in so little space that it is used again and again.
    pub(super) fn carve(&mut self, random: &mut Random) {
        let row = u64::from(self.chunk_blocks) * u64::from(self.columns());
        let all = self.volume_blocks();
        let zone = ZONE_STRIPES * u64::from(self.columns());
        let across_zones = if random.once_in(3) && self.zones > 1 { zone } else { 0 };
        let blocks = (random.between(6, 40) * row + across_zones).min(all / 2 / row * row);
        self.carving = Some(CarvingOptions {
            blocks,
            commands: random.between(3, 30),
            max_volume_blocks: random.choose(&[row, 4 * row, 200]).min(blocks / 2).max(1),
        });
        let end = all - blocks;
        self.workload.windows.retain(|window| window.start.0 + u64::from(window.blocks) <= end);
        if self.workload.windows.is_empty() {
            self.workload.windows.push(Window { start: Lba(0), blocks: 32 });
        }
        self.pool_blocks = self.pool_blocks.max(4096 + usize::from(self.shards) * 1300);
    }
}
