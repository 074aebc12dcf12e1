//! What is asked: draws by the options.

use base::ids::Lba;
use base::sector::LogicalBlock;
use engine::io::IoKind;

use super::Workload;
use crate::scenario::Discards;

impl Workload {
    // Ranges that do not overlap, around the one that was drawn: now and then an empty one, now and then one that is long.
    pub(super) fn draw_ranges(&mut self, discards: Discards) {
        for _ in 0..self.random.below(4) {
            let (_, lba, blocks) = self.draw();
            let blocks = match self.random.below(6) {
                0 => 0,
                1 => {
                    let scale = self.options.logical.per_block();
                    let left = discards.volume_blocks * u64::from(scale) - lba.0;
                    (discards.long_blocks * scale).min(left as u32)
                }
                _ => blocks,
            };
            let apart = |&(other, length): &(Lba, u32)| {
                lba.0 + u64::from(blocks) <= other.0 || other.0 + u64::from(length) <= lba.0
            };
            if self.drawn.iter().all(apart) {
                self.drawn.push((lba, blocks));
            }
        }
    }

    // A request of hosts, in logical blocks.
    pub(super) fn draw(&mut self) -> (IoKind, Lba, u32) {
        let [reads, writes, zeroes] = self.options.weights;
        let draw = self.random.below(reads + writes + zeroes);
        let kind = if draw < reads {
            IoKind::Read
        } else if draw < reads + writes {
            if self.random.once_in(30) { IoKind::Flush } else { IoKind::Write }
        } else {
            IoKind::WriteZeroes
        };
        if kind == IoKind::Flush {
            return (kind, Lba(0), 0);
        }
        let stays = self.options.stray_once_in > 1 && !self.random.once_in(self.options.stray_once_in);
        let window = if stays { self.options.windows[0] } else { self.random.choose(&self.options.windows) };
        let row = self.options.row_blocks;
        let (at, blocks) = match self.random.below(4) {
            // The hot spot, where writes overlap.
            0 => (self.random.below(4) as u32, 1 + self.random.below(4.min(self.options.max_blocks.into())) as u32),
            // Whole stripes, where the window has one.
            1 if self.options.max_blocks > 1 && row <= window.blocks => {
                let first = (window.start.0.next_multiple_of(row.into()) - window.start.0) as u32;
                let rows = (window.blocks - first.min(window.blocks)) / row;
                if rows == 0 { (0, 1) } else { (first + row * self.random.below(rows.into()) as u32, row) }
            }
            _ => {
                let blocks = 1 + self.random.below(self.options.max_blocks.min(window.blocks).into()) as u32;
                (self.random.below(u64::from(window.blocks)) as u32, blocks)
            }
        };
        let at = at.min(window.blocks - 1);
        let (lba, blocks) = (window.start.0 + u64::from(at), blocks.min(window.blocks - at));
        let (first, count) = match self.options.logical {
            LogicalBlock::Block => (lba, blocks),
            LogicalBlock::Sector => self.draw_within(lba, blocks),
        };
        (kind, Lba(first), count)
    }

    // Sectors of a run of blocks: all of them now and then, else a part that begins and ends anywhere in its outer blocks.
    fn draw_within(&mut self, lba: u64, blocks: u32) -> (u64, u32) {
        let scale = LogicalBlock::Sector.per_block();
        if self.random.once_in(4) {
            return (lba * u64::from(scale), blocks * scale);
        }
        let lead = self.random.below(scale.into()) as u32;
        let most = scale - if blocks == 1 { lead } else { 0 };
        let trail = self.random.below(most.into()) as u32;
        (lba * u64::from(scale) + u64::from(lead), blocks * scale - lead - trail)
    }
}
