//! Where blocks lie. A *stripe* is one block of each member at the same place; a *chunk* is a run of blocks on one member
//! before the next member's turn; a *zone* is a run of stripes with one owner, at least 4 MiB of each member.
//!
//! RAID-5 is laid out left-symmetric, as Linux MD does by default: parity moves one member down with each chunk row, and
//! data begins behind it, so that consecutive chunks visit all members in turn.

use base::ids::{ArrayBlock, Slot, StripeId, ZoneId};
use thiserror::Error;

/// Stripes of a zone, unless a chunk is larger: 4 MiB of member space.
pub const MIN_ZONE_STRIPES: u64 = 1024;

/// Most members of an array.
pub const MAX_MEMBERS: u8 = 32;

/// Largest chunk: 1 MiB.
pub const MAX_CHUNK_BLOCKS: u32 = 256;

/// How redundancy is arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One parity block a stripe, rotating over the members.
    Raid5,
}

impl Level {
    /// Parity blocks of a stripe.
    pub const fn parities(self) -> u8 {
        match self {
            Self::Raid5 => 1,
        }
    }

    /// Fewest members.
    pub const fn min_members(self) -> u8 {
        match self {
            Self::Raid5 => 3,
        }
    }

    /// The number that superblocks store.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raid5 => 5,
        }
    }

    /// The level of a number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            5 => Some(Self::Raid5),
            _ => None,
        }
    }
}

/// Why numbers are no geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// Too few or too many.
    #[error("{level:?} takes {min} to {MAX_MEMBERS} members, not {members}")]
    Members {
        /// The level.
        level: Level,
        /// Its fewest.
        min: u8,
        /// How many were given.
        members: u8,
    },
    /// Not a power of two within bounds.
    #[error("a chunk is a power of two from 4 KiB to 1 MiB, not {0} blocks of 4 KiB")]
    Chunk(u32),
    /// No whole zone.
    #[error("members need at least {need} stripes of 4 KiB for data, not {have}")]
    TooSmall {
        /// What there is.
        have: u64,
        /// One zone.
        need: u64,
    },
}

/// A data block's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stripe.
    pub stripe: StripeId,
    /// Which of the stripe's data blocks, from 0.
    pub column: u8,
}

/// The arrangement of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    level: Level,
    members: u8,
    chunk_blocks: u32,
    stripes: u64,
}

impl Geometry {
    /// An array of this many members with room for `stripes` blocks each; what does not fill a zone is left over.
    pub fn new(level: Level, members: u8, chunk_blocks: u32, stripes: u64) -> Result<Self, GeometryError> {
        let min = level.min_members();
        if members < min || members > MAX_MEMBERS {
            return Err(GeometryError::Members { level, min, members });
        }
        if !chunk_blocks.is_power_of_two() || chunk_blocks > MAX_CHUNK_BLOCKS {
            return Err(GeometryError::Chunk(chunk_blocks));
        }
        let zone = zone_stripes(chunk_blocks);
        let whole = stripes.min(u64::MAX >> 16) / zone * zone;
        if whole == 0 {
            return Err(GeometryError::TooSmall { have: stripes, need: zone });
        }
        Ok(Self { level, members, chunk_blocks, stripes: whole })
    }

    /// The level.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// How many members.
    pub const fn members(&self) -> u8 {
        self.members
    }

    /// Blocks of a chunk.
    pub const fn chunk_blocks(&self) -> u32 {
        self.chunk_blocks
    }

    /// Blocks of each member that hold data or parity: whole zones.
    pub const fn stripes(&self) -> u64 {
        self.stripes
    }

    /// Parity blocks of a stripe, which is how many members may be lost.
    pub const fn parities(&self) -> u8 {
        self.level.parities()
    }

    /// Data blocks of a stripe.
    pub const fn data_slots(&self) -> u8 {
        self.members - self.level.parities()
    }

    /// Data blocks of the array.
    pub const fn blocks(&self) -> u64 {
        self.stripes * self.data_slots() as u64
    }

    /// Stripes of a zone.
    pub const fn zone_stripes(&self) -> u64 {
        zone_stripes(self.chunk_blocks)
    }

    /// How many zones.
    pub const fn zones(&self) -> u64 {
        self.stripes / self.zone_stripes()
    }

    /// The zone of a stripe.
    pub const fn zone_of(&self, stripe: StripeId) -> ZoneId {
        ZoneId(stripe.0 / self.zone_stripes())
    }

    /// Where a data block lies.
    pub fn locate(&self, block: ArrayBlock) -> Place {
        assert!(block.0 < self.blocks(), "{block:?} lies beyond the array's {} blocks", self.blocks());
        let chunk_blocks = u64::from(self.chunk_blocks);
        let (chunk, within) = (block.0 / chunk_blocks, block.0 % chunk_blocks);
        let columns = u64::from(self.data_slots());
        Place { stripe: StripeId(chunk / columns * chunk_blocks + within), column: (chunk % columns) as u8 }
    }

    /// The data block at a place.
    pub fn array_block(&self, stripe: StripeId, column: u8) -> ArrayBlock {
        let chunk_blocks = u64::from(self.chunk_blocks);
        let (row, within) = (stripe.0 / chunk_blocks, stripe.0 % chunk_blocks);
        ArrayBlock((row * u64::from(self.data_slots()) + u64::from(column)) * chunk_blocks + within)
    }

    /// The block behind the last one of the chunk that holds this one.
    pub const fn chunk_end(&self, block: ArrayBlock) -> ArrayBlock {
        let chunk_blocks = self.chunk_blocks as u64;
        ArrayBlock((block.0 / chunk_blocks + 1) * chunk_blocks)
    }

    /// The member that holds a stripe's parity; `index` 0 is P.
    pub fn parity_member(&self, stripe: StripeId, index: u8) -> Slot {
        assert!(index < self.parities(), "the level has {} parities", self.parities());
        let members = u64::from(self.members);
        let row = stripe.0 / u64::from(self.chunk_blocks);
        Slot((members - 1 - row % members) as u8)
    }

    /// The member that holds a column of a stripe.
    pub fn member_of(&self, stripe: StripeId, column: u8) -> Slot {
        assert!(column < self.data_slots(), "a stripe has {} data blocks", self.data_slots());
        let parity = self.parity_member(stripe, 0);
        Slot((parity.0 + 1 + column) % self.members)
    }

    /// The column that a member holds of a stripe; none if that is parity.
    pub fn column_of(&self, stripe: StripeId, slot: Slot) -> Option<u8> {
        let parity = self.parity_member(stripe, 0);
        let behind = (slot.0 + self.members - parity.0) % self.members;
        behind.checked_sub(1)
    }
}

const fn zone_stripes(chunk_blocks: u32) -> u64 {
    if chunk_blocks as u64 > MIN_ZONE_STRIPES { chunk_blocks as u64 } else { MIN_ZONE_STRIPES }
}

const _: () = assert!(MIN_ZONE_STRIPES.is_multiple_of(MAX_CHUNK_BLOCKS as u64), "a zone is whole chunk rows");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_block_has_a_place_of_its_own_and_every_place_a_block_or_parity() {
        for members in 3..=6 {
            for chunk_blocks in [1, 2, 16, 256] {
                let geometry = Geometry::new(Level::Raid5, members, chunk_blocks, 2048 + 7).expect("a geometry");
                assert_eq!(geometry.stripes(), 2048);
                let mut taken = BTreeSet::new();
                for block in (0..geometry.blocks()).map(ArrayBlock) {
                    let place = geometry.locate(block);
                    let slot = geometry.member_of(place.stripe, place.column);
                    assert!(taken.insert((place.stripe, slot)), "{block:?} shares its place");
                    assert_eq!(geometry.array_block(place.stripe, place.column), block);
                    assert_eq!(geometry.column_of(place.stripe, slot), Some(place.column));
                    assert_eq!(geometry.locate(ArrayBlock(geometry.chunk_end(block).0 - 1)).column, place.column);
                }
                for stripe in (0..geometry.stripes()).map(StripeId) {
                    let slot = geometry.parity_member(stripe, 0);
                    assert!(taken.insert((stripe, slot)), "parity of {stripe:?} shares its place");
                    assert_eq!(geometry.column_of(stripe, slot), None);
                }
                assert_eq!(taken.len() as u64, 2048 * u64::from(members));
            }
        }
    }

    #[test]
    fn the_layout_is_left_symmetric() {
        // Four members, chunks of one block, as md(4) draws it: D0 D1 D2 P / D4 D5 P D3 / D8 P D6 D7 / P D9 D10 D11.
        let geometry = Geometry::new(Level::Raid5, 4, 1, 1024).expect("a geometry");
        let slots: Vec<u8> = (0..12)
            .map(|block| {
                let place = geometry.locate(ArrayBlock(block));
                geometry.member_of(place.stripe, place.column).0
            })
            .collect();
        assert_eq!(slots, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn what_is_no_geometry_is_refused() {
        assert!(matches!(Geometry::new(Level::Raid5, 2, 16, 4096), Err(GeometryError::Members { .. })));
        assert!(matches!(Geometry::new(Level::Raid5, 33, 16, 4096), Err(GeometryError::Members { .. })));
        assert!(matches!(Geometry::new(Level::Raid5, 3, 12, 4096), Err(GeometryError::Chunk(12))));
        assert!(matches!(Geometry::new(Level::Raid5, 3, 512, 4096), Err(GeometryError::Chunk(512))));
        assert!(matches!(Geometry::new(Level::Raid5, 3, 16, 1023), Err(GeometryError::TooSmall { .. })));
        assert!(Geometry::new(Level::Raid5, 3, 16, u64::MAX).is_ok());
    }
}
