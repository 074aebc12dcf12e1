//! Where things lie on a log device. Positions of a lane are *virtual*: they count blocks ever since the lane was
//! formatted and never wrap; this is the one place that turns them into blocks of the device. It reads and writes nothing.

use base::ids::{DeviceBlock, LaneId};
use thiserror::Error;

use crate::{MAX_COUNT, MAX_LANES, MIN_LANE_BLOCKS};

/// The block of superblock slot A; slot B follows. Block 0 is left to boot sectors.
pub const SUPERBLOCK_START: u64 = 1;

/// The first block that a region may take.
pub const REGIONS_START: u64 = 16;

/// Rings start at a multiple of this many blocks: 1 MiB.
pub const RING_ALIGNMENT_BLOCKS: u64 = 256;

/// The places of a log's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLayout {
    lanes: u16,
    lane_blocks: u64,
    anchors_start: u64,
    rings_start: u64,
}

/// Why a log cannot lie so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// The operator asked for no lane or too many.
    #[error("a log has 1 to {MAX_LANES} lanes, not {0}")]
    Lanes(u16),
    /// The operator's device is too small.
    #[error("the log device has {have} blocks of 4 KiB; {lanes} lanes need at least {need}")]
    TooSmall {
        /// Blocks there are.
        have: u64,
        /// Blocks needed.
        need: u64,
        /// Lanes asked for.
        lanes: u16,
    },
    /// A superblock's regions do not add up.
    #[error("the log's regions are not consistent: {0}")]
    Regions(&'static str),
}

impl LogLayout {
    /// The layout of a new log that fills a device of `blocks` blocks.
    pub fn for_device(blocks: u64, lanes: u16) -> Result<Self, LayoutError> {
        if lanes == 0 || lanes > MAX_LANES {
            return Err(LayoutError::Lanes(lanes));
        }
        let need = Self::minimum_device_blocks(lanes);
        let rings_start = rings_start(lanes);
        if blocks < need {
            return Err(LayoutError::TooSmall { have: blocks, need, lanes });
        }
        let lane_blocks = ((blocks - rings_start) / u64::from(lanes)).min(MAX_COUNT / u64::from(lanes));
        Self::from_regions(lanes, lane_blocks, REGIONS_START, rings_start)
    }

    /// The lanes of an array that has no log: they share out its zones, and have no rings. Nothing lies anywhere.
    ///
    /// # Panics
    /// If there are none or too many.
    pub fn without_rings(lanes: u16) -> Self {
        assert!(lanes > 0 && lanes <= MAX_LANES, "{lanes} lanes");
        Self { lanes, lane_blocks: 0, anchors_start: 0, rings_start: 0 }
    }

    /// The fewest blocks of a device for a log of so many lanes.
    pub fn minimum_device_blocks(lanes: u16) -> u64 {
        rings_start(lanes) + u64::from(lanes) * MIN_LANE_BLOCKS
    }

    /// The layout that a superblock describes; every number is checked.
    pub fn from_regions(
        lanes: u16,
        lane_blocks: u64,
        anchors_start: u64,
        rings_start: u64,
    ) -> Result<Self, LayoutError> {
        if lanes == 0 || lanes > MAX_LANES {
            return Err(LayoutError::Lanes(lanes));
        }
        if lane_blocks < MIN_LANE_BLOCKS {
            return Err(LayoutError::Regions("a ring is shorter than the minimum"));
        }
        let rings_blocks =
            lane_blocks.checked_mul(u64::from(lanes)).ok_or(LayoutError::Regions("the rings are too long"))?;
        if rings_blocks > MAX_COUNT || rings_start > MAX_COUNT || anchors_start > MAX_COUNT {
            return Err(LayoutError::Regions("a region lies beyond any device"));
        }
        if anchors_start < REGIONS_START || rings_start < REGIONS_START {
            return Err(LayoutError::Regions("a region covers the superblocks"));
        }
        let layout = Self { lanes, lane_blocks, anchors_start, rings_start };
        let (anchors, rings) = (layout.anchors(), layout.rings());
        if anchors.0 < rings.0 + rings.1 && rings.0 < anchors.0 + anchors.1 {
            return Err(LayoutError::Regions("anchors and rings overlap"));
        }
        Ok(layout)
    }

    /// How many lanes the log has.
    pub const fn lanes(&self) -> u16 {
        self.lanes
    }

    /// Blocks of each lane's ring.
    pub const fn lane_blocks(&self) -> u64 {
        self.lane_blocks
    }

    /// First block and length of the anchors' region, in blocks.
    pub const fn anchors(&self) -> (u64, u64) {
        (self.anchors_start, 2 * self.lanes as u64)
    }

    /// First block and length of the rings' region, in blocks.
    pub const fn rings(&self) -> (u64, u64) {
        (self.rings_start, self.lanes as u64 * self.lane_blocks)
    }

    /// Blocks of a device that the log needs, counted from the device's beginning.
    pub fn device_blocks(&self) -> u64 {
        let (anchors, rings) = (self.anchors(), self.rings());
        (anchors.0 + anchors.1).max(rings.0 + rings.1)
    }

    /// The block of a superblock slot (0 or 1). Known before anything was read.
    pub const fn superblock_block(slot: usize) -> DeviceBlock {
        assert!(slot < 2);
        DeviceBlock(SUPERBLOCK_START + slot as u64)
    }

    /// The block of a lane's anchor slot (0 or 1).
    pub fn anchor_block(&self, lane: LaneId, slot: usize) -> DeviceBlock {
        assert!(slot < 2 && lane.0 < self.lanes, "{lane:?} slot {slot} of {} lanes", self.lanes);
        DeviceBlock(self.anchors_start + 2 * u64::from(lane.0) + slot as u64)
    }

    /// The block that holds a virtual position of a lane.
    pub fn ring_block(&self, lane: LaneId, position: u64) -> DeviceBlock {
        assert!(lane.0 < self.lanes, "{lane:?} of {} lanes", self.lanes);
        DeviceBlock(self.rings_start + u64::from(lane.0) * self.lane_blocks + position % self.lane_blocks)
    }

    /// Blocks from a position to the end of the ring, at least one: what a record there may take at most.
    pub const fn blocks_to_ring_end(&self, position: u64) -> u64 {
        self.lane_blocks - position % self.lane_blocks
    }
}

fn rings_start(lanes: u16) -> u64 {
    (REGIONS_START + 2 * u64::from(lanes)).next_multiple_of(RING_ALIGNMENT_BLOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_things_share_a_block_and_nothing_lies_outside() {
        for (blocks, lanes) in [(LogLayout::minimum_device_blocks(3), 3), (5000, 5), (4096, 1)] {
            let layout = LogLayout::for_device(blocks, lanes).expect("large enough");
            let mut taken = BTreeSet::from([0, 1, 2]);
            for lane in (0..lanes).map(LaneId) {
                for slot in 0..2 {
                    assert!(taken.insert(layout.anchor_block(lane, slot).0));
                }
                for position in 0..layout.lane_blocks() {
                    assert!(taken.insert(layout.ring_block(lane, position).0));
                    assert_eq!(
                        layout.ring_block(lane, position),
                        layout.ring_block(lane, position + 7 * layout.lane_blocks())
                    );
                }
            }
            assert!(taken.last() < Some(&blocks));
            assert_eq!(taken.last(), Some(&(layout.device_blocks() - 1)));
        }
    }

    #[test]
    fn what_is_too_small_says_what_would_do() {
        let need = LogLayout::minimum_device_blocks(16);
        assert_eq!(LogLayout::for_device(need - 1, 16), Err(LayoutError::TooSmall { have: need - 1, need, lanes: 16 }));
        assert_eq!(LogLayout::for_device(need, 16).map(|layout| layout.lane_blocks()), Ok(MIN_LANE_BLOCKS));
        assert_eq!(LogLayout::for_device(1 << 30, 0), Err(LayoutError::Lanes(0)));
        assert_eq!(LogLayout::for_device(1 << 30, MAX_LANES + 1), Err(LayoutError::Lanes(MAX_LANES + 1)));
        assert!(LogLayout::for_device(u64::MAX, 16).is_ok());
    }

    #[test]
    fn regions_that_a_hostile_superblock_could_name_are_refused() {
        for (lanes, lane_blocks, anchors, rings) in [
            (1, MIN_LANE_BLOCKS - 1, 16, 256),
            (2, u64::MAX / 2 + 1, 16, 256),
            (1, MIN_LANE_BLOCKS, u64::MAX, 256),
            (1, MIN_LANE_BLOCKS, 16, u64::MAX),
            (1, MIN_LANE_BLOCKS, 2, 256),
            (1, MIN_LANE_BLOCKS, 16, 1),
            (1, MIN_LANE_BLOCKS, 300, 256),
            (4, MIN_LANE_BLOCKS, 250, 256),
        ] {
            let refused = LogLayout::from_regions(lanes, lane_blocks, anchors, rings);
            assert!(matches!(refused, Err(LayoutError::Regions(_))), "{refused:?}");
        }
    }
}
