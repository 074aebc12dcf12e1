//! The regions of a member, in blocks from its beginning. A table of them stands in the superblock, so that later regions
//! fit without a new layout.

use base::ids::DeviceBlock;
use thiserror::Error;

use crate::checksum;
use crate::metadata::METADATA_BLOCKS;
use crate::zone_bits::ZoneBits;

/// The two places of the superblock.
pub const SUPERBLOCK_START: u64 = 1;

/// Where regions may begin: block 0 is left to boot sectors, 1 and 2 are superblocks, the rest is kept.
pub const REGIONS_START: u64 = 16;

/// What the data region's start is a multiple of: 1 MiB.
pub const DATA_ALIGNMENT_BLOCKS: u64 = 256;

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Region {
    /// The first block.
    pub start: u64,
    /// How many.
    pub blocks: u64,
}

/// Where things lie on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberLayout {
    /// Bitmap of initialised zones: a pair of blocks for each block of bits.
    pub bitmap: Region,
    /// Two slots of the volume table.
    pub metadata: Region,
    /// Bitmap of dirty zones, likewise; members of arrays that are older than it have none.
    pub dirty: Option<Region>,
    /// Bitmap of missed zones, likewise.
    pub missed: Option<Region>,
    /// Checksums of the blocks of data and parity, if they are kept.
    pub checksums: Option<Region>,
    /// Data and parity.
    pub data: Region,
}

/// Why regions are no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Too small for anything.
    #[error("the device has {have} blocks of 4 KiB; a member needs at least {need}")]
    TooSmall {
        /// What there is.
        have: u64,
        /// What it takes.
        need: u64,
    },
    /// Read from a disk, and impossible.
    #[error("the region table is not consistent: {0}")]
    Inconsistent(&'static str),
}

impl MemberLayout {
    /// The layout of a device of this size with zones of this many stripes, with checksums or without.
    pub fn for_device(blocks: u64, zone_stripes: u64, checksums: bool) -> Result<Self, LayoutError> {
        // As if all of it were data: the bitmap is at most a little larger than it must be.
        let bitmap = Region { start: REGIONS_START, blocks: 2 * ZoneBits::blocks_for(blocks / zone_stripes) };
        let metadata = Region { start: bitmap.start + bitmap.blocks, blocks: 2 * METADATA_BLOCKS as u64 };
        let dirty = Region { start: metadata.start + metadata.blocks, blocks: bitmap.blocks };
        let missed = Region { start: dirty.start + dirty.blocks, blocks: bitmap.blocks };
        let end = missed.start + missed.blocks;
        // As if all of it were data, here too.
        let checksums =
            checksums.then(|| Region { start: end, blocks: checksum_blocks(blocks / zone_stripes, zone_stripes) });
        let end = checksums.map_or(end, |checksums| checksums.start + checksums.blocks);
        let start = end.next_multiple_of(DATA_ALIGNMENT_BLOCKS);
        let need = start + zone_stripes;
        if blocks < need {
            return Err(LayoutError::TooSmall { have: blocks, need });
        }
        let (dirty, missed) = (Some(dirty), Some(missed));
        Ok(Self { bitmap, metadata, dirty, missed, checksums, data: Region { start, blocks: blocks - start } })
    }

    /// Checks what was read from a disk: regions in place, apart, and large enough for this many stripes and zones.
    pub fn check(&self, stripes: u64, zones: u64) -> Result<(), LayoutError> {
        // One that is not there lies nowhere and is over nothing.
        let nowhere = Region { start: u64::MAX, blocks: 0 };
        let [dirty, missed, checksums] =
            [self.dirty, self.missed, self.checksums].map(|region| region.unwrap_or(nowhere));
        let regions = [self.bitmap, self.metadata, dirty, missed, checksums, self.data];
        for (at, region) in regions.iter().enumerate() {
            let end =
                region.start.checked_add(region.blocks).ok_or(LayoutError::Inconsistent("a region has no end"))?;
            if region.start < REGIONS_START {
                return Err(LayoutError::Inconsistent("a region lies over the superblocks"));
            }
            for other in &regions[at + 1..] {
                let other_end = other.start.saturating_add(other.blocks);
                if region.start < other_end && other.start < end {
                    return Err(LayoutError::Inconsistent("two regions overlap"));
                }
            }
        }
        if self.bitmap.blocks < 2 * ZoneBits::blocks_for(zones) {
            return Err(LayoutError::Inconsistent("the bitmap is too small for the zones"));
        }
        if self.dirty.is_some_and(|dirty| dirty.blocks < 2 * ZoneBits::blocks_for(zones)) {
            return Err(LayoutError::Inconsistent("the bitmap of dirty zones is too small for the zones"));
        }
        if self.missed.is_some_and(|missed| missed.blocks < 2 * ZoneBits::blocks_for(zones)) {
            return Err(LayoutError::Inconsistent("the bitmap of missed zones is too small for the zones"));
        }
        let zone_stripes = stripes.checked_div(zones).unwrap_or(0);
        if self.checksums.is_some_and(|region| zones > 0 && region.blocks < checksum_blocks(zones, zone_stripes)) {
            return Err(LayoutError::Inconsistent("the region of checksums is too small for the zones"));
        }
        if self.metadata.blocks < 2 * METADATA_BLOCKS as u64 {
            return Err(LayoutError::Inconsistent("the metadata region is too small"));
        }
        if self.data.blocks < stripes {
            return Err(LayoutError::Inconsistent("the data region is too small for the stripes"));
        }
        Ok(())
    }

    /// Checks a region of another kind: it has an end and lies over none of these.
    pub fn check_beside(&self, start: u64, blocks: u64) -> Result<(), LayoutError> {
        let end = start.checked_add(blocks).ok_or(LayoutError::Inconsistent("a region has no end"))?;
        let over = |region: &Region| start < region.start.saturating_add(region.blocks) && region.start < end;
        let known = [self.bitmap, self.metadata, self.data];
        if start < REGIONS_START || known.iter().chain(&self.dirty).chain(&self.missed).chain(&self.checksums).any(over)
        {
            return Err(LayoutError::Inconsistent("a later region lies over another"));
        }
        Ok(())
    }

    /// Blocks of the device that an array of this many stripes needs, counted from the device's beginning. What the data
    /// region has beyond the stripes is not needed: a device may have been replaced by one that is a little smaller.
    pub const fn device_blocks(&self, stripes: u64) -> u64 {
        let bitmap = self.bitmap.start.saturating_add(self.bitmap.blocks);
        let metadata = self.metadata.start.saturating_add(self.metadata.blocks);
        let data = self.data.start.saturating_add(stripes);
        let dirty = match self.dirty {
            Some(dirty) => dirty.start.saturating_add(dirty.blocks),
            None => 0,
        };
        let regions = if bitmap > metadata { bitmap } else { metadata };
        let regions = if dirty > regions { dirty } else { regions };
        let missed = match self.missed {
            Some(missed) => missed.start.saturating_add(missed.blocks),
            None => 0,
        };
        let regions = if missed > regions { missed } else { regions };
        let checksums = match self.checksums {
            Some(checksums) => checksums.start.saturating_add(checksums.blocks),
            None => 0,
        };
        let regions = if checksums > regions { checksums } else { regions };
        if data > regions { data } else { regions }
    }

    /// One of the two places of a bitmap block.
    pub fn bitmap_block(&self, block: usize, slot: usize) -> DeviceBlock {
        let at = 2 * block as u64 + slot as u64;
        assert!(slot < 2 && at < self.bitmap.blocks, "bitmap block {block}.{slot} lies in the region");
        DeviceBlock(self.bitmap.start + at)
    }

    /// One of the two places of a block of dirty zones, if they are kept.
    pub fn dirty_block(&self, block: usize, slot: usize) -> Option<DeviceBlock> {
        let dirty = self.dirty?;
        let at = 2 * block as u64 + slot as u64;
        assert!(slot < 2 && at < dirty.blocks, "block {block}.{slot} of dirty zones lies in the region");
        Some(DeviceBlock(dirty.start + at))
    }

    /// One of the two places of a block of missed zones, if they are kept.
    pub fn missed_block(&self, block: usize, slot: usize) -> Option<DeviceBlock> {
        let missed = self.missed?;
        let at = 2 * block as u64 + slot as u64;
        assert!(slot < 2 && at < missed.blocks, "block {block}.{slot} of missed zones lies in the region");
        Some(DeviceBlock(missed.start + at))
    }

    /// The first block of one of the two slots of the volume table.
    pub fn metadata_block(&self, slot: usize) -> DeviceBlock {
        assert!(slot < 2, "there are two slots");
        DeviceBlock(self.metadata.start + (slot * METADATA_BLOCKS) as u64)
    }
}

/// Checksum blocks of so many zones.
fn checksum_blocks(zones: u64, zone_stripes: u64) -> u64 {
    zones.saturating_mul(checksum::zone_blocks(zone_stripes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_passes_its_own_check_and_overlaps_do_not() {
        let layout = MemberLayout::for_device(1 << 20, 1024, true).expect("4 GiB is enough");
        assert_eq!(layout.data.start % DATA_ALIGNMENT_BLOCKS, 0);
        assert_eq!(layout.check(layout.data.blocks / 1024 * 1024, layout.data.blocks / 1024), Ok(()));
        let mut wrong = layout;
        wrong.metadata.start -= 1;
        assert!(wrong.check(1024, 1).is_err());
        wrong = layout;
        wrong.data.blocks = u64::MAX;
        assert!(wrong.check(1024, 1).is_err());
        assert!(layout.check(layout.data.blocks + 1, 1).is_err());
        wrong = layout;
        wrong.checksums = wrong.checksums.map(|region| Region { blocks: region.blocks / 2, ..region });
        assert!(wrong.check(layout.data.blocks / 1024 * 1024, layout.data.blocks / 1024).is_err());
        wrong.checksums = Some(Region { start: layout.data.start, ..layout.bitmap });
        assert!(wrong.check(1024, 1).is_err());
        assert!(matches!(MemberLayout::for_device(1024, 1024, false), Err(LayoutError::TooSmall { .. })));
    }
}
