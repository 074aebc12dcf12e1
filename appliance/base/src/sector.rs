//! Sectors: parts of blocks. Some hosts have logical blocks of 512 bytes, so that what they mean may begin and end within a
//! block of ours. Everything below the targets works on whole blocks and is told what of the outer ones is not meant.

use core::ops::Range;

use crate::BLOCK;
use crate::ids::Lba;

/// Bytes of a sector: the smallest part of a block that a host may name.
pub const SECTOR: usize = 512;

/// Sectors of a block.
pub const BLOCK_SECTORS: u8 = (BLOCK / SECTOR) as u8;

/// In what units hosts address a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogicalBlock {
    /// Sectors of 512 bytes.
    Sector,
    /// Blocks of 4096 bytes.
    #[default]
    Block,
}

impl LogicalBlock {
    /// The unit of so many bytes, if there is one.
    pub const fn of_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(Self::Sector),
            4096 => Some(Self::Block),
            _ => None,
        }
    }

    /// Its length in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Sector => SECTOR as u32,
            Self::Block => BLOCK as u32,
        }
    }

    /// How many of them a block has.
    pub const fn per_block(self) -> u32 {
        BLOCK as u32 / self.bytes()
    }

    /// The blocks around a run of them.
    pub const fn blocks_around(self, start: u64, count: u32) -> (Lba, u32, Margins) {
        match self {
            Self::Sector => Margins::around(start, count),
            Self::Block => (Lba(start), count, Margins::NONE),
        }
    }

    /// The blocks that lie wholly within a run of them, which may be none.
    pub const fn blocks_within(self, start: u64, count: u32) -> (Lba, u32) {
        let size = self.per_block() as u64;
        let (first, end) = (start.div_ceil(size), (start + count as u64) / size);
        (Lba(first), end.saturating_sub(first) as u32)
    }
}

/// What of the first and the last block of a request is not meant by it, in sectors: some hosts have logical blocks that are
/// smaller than ours. What lies in the margins is neither stored nor compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margins {
    /// Sectors of the first block, fewer than a block has.
    pub lead: u8,
    /// Sectors of the last block, fewer than a block has.
    pub trail: u8,
}

impl Margins {
    /// Whole blocks are meant.
    pub const NONE: Self = Self { lead: 0, trail: 0 };

    /// The blocks that hold a run of sectors, their first and their number, and what of them is not meant.
    pub const fn around(sector: u64, sectors: u32) -> (Lba, u32, Self) {
        let size = BLOCK_SECTORS as u64;
        let (first, end) = (sector / size, sector + sectors as u64);
        let margins = Self { lead: (sector % size) as u8, trail: (end.next_multiple_of(size) - end) as u8 };
        (Lba(first), (end.div_ceil(size) - first) as u32, margins)
    }

    /// Whether whole blocks are meant.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.lead == 0 && self.trail == 0
    }

    /// The bytes of block `at` of `count` that are meant.
    pub const fn within(self, at: usize, count: usize) -> Range<usize> {
        let lead = if at == 0 { self.lead as usize } else { 0 };
        let trail = if at + 1 == count { self.trail as usize } else { 0 };
        lead * SECTOR..BLOCK - trail * SECTOR
    }

    /// The margins of `count` blocks from block `at` on, of `all`.
    pub const fn of_part(self, at: u32, count: u32, all: u32) -> Self {
        let lead = if at == 0 { self.lead } else { 0 };
        let trail = if at + count == all { self.trail } else { 0 };
        Self { lead, trail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_around_a_run_of_sectors() {
        let around = |sector, sectors| {
            let (lba, blocks, Margins { lead, trail }) = Margins::around(sector, sectors);
            (lba.0, blocks, lead, trail)
        };
        assert_eq!(around(16, 8), (2, 1, 0, 0));
        assert_eq!(around(17, 1), (2, 1, 1, 6));
        assert_eq!(around(23, 1), (2, 1, 7, 0));
        assert_eq!(around(23, 2), (2, 2, 7, 7));
        assert_eq!(around(20, 16), (2, 3, 4, 4));
        assert_eq!(around(20, 0), (2, 1, 4, 4), "nothing lies within its block");
    }

    #[test]
    fn blocks_within_a_run_of_sectors() {
        let within = |start, count| LogicalBlock::Sector.blocks_within(start, count);
        assert_eq!(within(16, 8), (Lba(2), 1));
        assert_eq!(within(17, 15), (Lba(3), 1));
        assert_eq!(within(17, 7).1, 0);
        assert_eq!(within(17, 2).1, 0, "it begins and ends in one block");
        assert_eq!(LogicalBlock::Block.blocks_within(17, 2), (Lba(17), 2));
    }

    #[test]
    fn what_is_meant_of_each_block() {
        let margins = Margins { lead: 3, trail: 2 };
        assert_eq!(margins.within(0, 1), 3 * SECTOR..6 * SECTOR);
        assert_eq!(margins.within(0, 3), 3 * SECTOR..BLOCK);
        assert_eq!(margins.within(1, 3), 0..BLOCK);
        assert_eq!(margins.within(2, 3), 0..6 * SECTOR);
        assert_eq!(margins.of_part(0, 2, 4), Margins { lead: 3, trail: 0 });
        assert_eq!(margins.of_part(1, 2, 4), Margins::NONE);
        assert_eq!(margins.of_part(2, 2, 4), Margins { lead: 0, trail: 2 });
    }
}
