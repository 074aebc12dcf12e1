//! Where blocks lie. A *stripe* is one block of each member at the same place; a *chunk* is a run of blocks on one member
//! before the next member's turn; a *zone* is a run of stripes with one owner, at least 4 MiB of each member.
//!
//! A stripe has *columns* of data and perhaps *parities*: P, the sum of the columns, and Q, their sum weighted by powers of 2
//! (see [`crate::recipe`](mod@crate::recipe)). Each of these *parts* lies on one member, or, mirrored, on several. Linux MD lays
//! the same levels out alike by default, so that its tools can check ours:
//!
//! | level | columns | where |
//! |---|---|---|
//! | RAID-0 | *n* | column *c* on member *c* |
//! | RAID-1 | 1 | on all members |
//! | RAID-4 | *n* - 1 | column *c* on member *c*, P on the last |
//! | RAID-5 | *n* - 1 | left-symmetric: P moves one member down with each chunk row, and data begins behind it |
//! | RAID-6 | *n* - 2 | P as in RAID-5, Q on the member behind it, and data begins behind Q |
//! | RAID-10 | *n* / 2 | column *c* on members 2*c* and 2*c* + 1 |

use base::ids::{ArrayBlock, Slot, StripeId, ZoneId};
use thiserror::Error;

use crate::level::{Level, MAX_MEMBERS};

/// Stripes of a zone, unless a chunk is larger: 4 MiB of member space.
pub const MIN_ZONE_STRIPES: u64 = 1024;

/// Largest chunk: 1 MiB.
pub const MAX_CHUNK_BLOCKS: u32 = 256;

/// Why numbers are no geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// Too few or too many.
    #[error("{level} takes {min} to {MAX_MEMBERS} members, not {members}")]
    Members {
        /// The level.
        level: Level,
        /// Its fewest.
        min: u8,
        /// How many were given.
        members: u8,
    },
    /// One without a partner.
    #[error("{level} takes pairs of members, not {members}")]
    Unpaired {
        /// The level.
        level: Level,
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

/// What a member holds of a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The data block of this column.
    Data(u8),
    /// The parity of this index: 0 is P, 1 is Q.
    Parity(u8),
}

/// The slots of a bit mask, lowest first.
pub fn slots(mask: u32) -> impl Iterator<Item = Slot> {
    (0..MAX_MEMBERS).filter(move |slot| mask & 1 << slot != 0).map(Slot)
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
        if !members.is_multiple_of(level.members_step()) {
            return Err(GeometryError::Unpaired { level, members });
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

    /// Parity blocks of a stripe.
    pub const fn parities(&self) -> u8 {
        self.level.parities()
    }

    /// Data blocks of a stripe: its columns.
    pub const fn data_slots(&self) -> u8 {
        match self.level {
            Level::Raid0 | Level::Raid4 | Level::Raid5 | Level::Raid6 => self.members - self.level.parities(),
            Level::Raid1 => 1,
            Level::Raid10 => self.members / 2,
        }
    }

    /// Whether every block can still be had with these members (a bit mask) gone. Whoever asks whether a loss is too much
    /// asks here.
    pub const fn bears(&self, missing: u32) -> bool {
        let missing = missing & self.all_members();
        match self.level {
            Level::Raid0 | Level::Raid4 | Level::Raid5 | Level::Raid6 => {
                missing.count_ones() <= self.level.parities() as u32
            }
            Level::Raid1 => missing != self.all_members(),
            // The lower member of each pair is at an even place.
            Level::Raid10 => missing & missing >> 1 & 0x5555_5555 == 0,
        }
    }

    /// Whether anything can be compared with anything while these members (a bit mask) are gone.
    pub const fn compares(&self, missing: u32) -> bool {
        let there = self.all_members() & !missing;
        match self.level {
            Level::Raid0 => false,
            Level::Raid4 | Level::Raid5 | Level::Raid6 => there.count_ones() > self.fewest_members() as u32,
            Level::Raid1 => there.count_ones() > 1,
            Level::Raid10 => there & there >> 1 & 0x5555_5555 != 0,
        }
    }

    /// The fewest members that can hold everything there is: more are never lost within what the level bears.
    pub const fn fewest_members(&self) -> u8 {
        match self.level {
            Level::Raid0 | Level::Raid4 | Level::Raid5 | Level::Raid6 => self.members - self.level.parities(),
            Level::Raid1 => 1,
            Level::Raid10 => self.members / 2,
        }
    }

    /// All members, as a bit mask.
    pub const fn all_members(&self) -> u32 {
        u32::MAX >> (32 - self.members)
    }

    /// All columns of a stripe, as a bit mask.
    pub const fn all_columns(&self) -> u32 {
        u32::MAX >> (32 - self.data_slots())
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

    /// The member that holds a stripe's parity; `index` 0 is P, 1 is Q.
    pub fn parity_member(&self, stripe: StripeId, index: u8) -> Slot {
        assert!(index < self.parities(), "the level has {} parities", self.parities());
        Slot((self.first_parity(stripe) + index) % self.members)
    }

    /// Where P lies, on levels that have it.
    const fn first_parity(&self, stripe: StripeId) -> u8 {
        let members = self.members as u64;
        let row = stripe.0 / self.chunk_blocks as u64;
        match self.level {
            Level::Raid5 | Level::Raid6 => (members - 1 - row % members) as u8,
            Level::Raid0 | Level::Raid1 | Level::Raid4 | Level::Raid10 => self.members - 1,
        }
    }

    /// The member that holds a column of a stripe; of a mirrored one the first.
    pub fn member_of(&self, stripe: StripeId, column: u8) -> Slot {
        assert!(column < self.data_slots(), "a stripe has {} data blocks", self.data_slots());
        Slot(match self.level {
            Level::Raid0 => column,
            Level::Raid1 => 0,
            Level::Raid10 => 2 * column,
            Level::Raid4 | Level::Raid5 | Level::Raid6 => {
                (self.first_parity(stripe) + self.parities() + column) % self.members
            }
        })
    }

    /// All members that hold a column of a stripe, as a bit mask.
    pub fn homes(&self, stripe: StripeId, column: u8) -> u32 {
        let first = 1 << self.member_of(stripe, column).0;
        match self.level {
            Level::Raid0 | Level::Raid4 | Level::Raid5 | Level::Raid6 => first,
            Level::Raid1 => self.all_members(),
            Level::Raid10 => first | first << 1,
        }
    }

    /// All members that hold a part of a stripe, as a bit mask.
    pub fn homes_of(&self, stripe: StripeId, part: Part) -> u32 {
        match part {
            Part::Data(column) => self.homes(stripe, column),
            Part::Parity(index) => 1 << self.parity_member(stripe, index).0,
        }
    }

    /// What a member holds of a stripe.
    pub fn part_of(&self, stripe: StripeId, slot: Slot) -> Part {
        assert!(slot.0 < self.members, "there are {} members", self.members);
        match self.level {
            Level::Raid0 => Part::Data(slot.0),
            Level::Raid1 => Part::Data(0),
            Level::Raid10 => Part::Data(slot.0 / 2),
            Level::Raid4 | Level::Raid5 | Level::Raid6 => {
                let behind = (slot.0 + self.members - self.first_parity(stripe)) % self.members;
                match behind.checked_sub(self.parities()) {
                    Some(column) => Part::Data(column),
                    None => Part::Parity(behind),
                }
            }
        }
    }

    /// The column that a member holds of a stripe; none if that is parity.
    pub fn column_of(&self, stripe: StripeId, slot: Slot) -> Option<u8> {
        match self.part_of(stripe, slot) {
            Part::Data(column) => Some(column),
            Part::Parity(_) => None,
        }
    }
}

const fn zone_stripes(chunk_blocks: u32) -> u64 {
    if chunk_blocks as u64 > MIN_ZONE_STRIPES { chunk_blocks as u64 } else { MIN_ZONE_STRIPES }
}

const _: () = assert!(MIN_ZONE_STRIPES.is_multiple_of(MAX_CHUNK_BLOCKS as u64), "a zone is whole chunk rows");

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Every level with every number of members up to this.
    pub(crate) fn geometries(chunk_blocks: u32, most_members: u8, stripes: u64) -> impl Iterator<Item = Geometry> {
        let all = Level::ALL.into_iter().flat_map(move |level| (1..=most_members).map(move |members| (level, members)));
        all.filter_map(move |(level, members)| Geometry::new(level, members, chunk_blocks, stripes).ok())
    }

    #[test]
    fn every_block_has_places_of_its_own_and_every_place_a_block_or_parity() {
        for chunk_blocks in [1, 2, 16, 256] {
            let mut tried = 0;
            for geometry in geometries(chunk_blocks, 6, 2048 + 7) {
                tried += 1;
                assert_eq!(geometry.stripes(), 2048);
                let mut taken = BTreeMap::new();
                let mut take = |stripe, part| {
                    for slot in slots(geometry.homes_of(stripe, part)) {
                        assert_eq!(taken.insert((stripe, slot), part), None, "{geometry:?} {stripe:?} {slot:?}");
                        assert_eq!(geometry.part_of(stripe, slot), part, "{geometry:?} {stripe:?} {slot:?}");
                    }
                };
                for block in (0..geometry.blocks()).map(ArrayBlock) {
                    let place = geometry.locate(block);
                    assert_eq!(geometry.array_block(place.stripe, place.column), block);
                    assert_eq!(geometry.locate(ArrayBlock(geometry.chunk_end(block).0 - 1)).column, place.column);
                    let slot = geometry.member_of(place.stripe, place.column);
                    assert_eq!(slots(geometry.homes(place.stripe, place.column)).next(), Some(slot));
                    assert_eq!(geometry.column_of(place.stripe, slot), Some(place.column));
                    take(place.stripe, Part::Data(place.column));
                }
                for stripe in (0..geometry.stripes()).map(StripeId) {
                    for index in 0..geometry.parities() {
                        assert_eq!(geometry.column_of(stripe, geometry.parity_member(stripe, index)), None);
                        take(stripe, Part::Parity(index));
                    }
                }
                assert_eq!(taken.len() as u64, 2048 * u64::from(geometry.members()), "{geometry:?}");
            }
            assert_eq!(tried, 6 + 5 + 4 + 4 + 3 + 2);
        }
    }

    /// The members that hold the first blocks of an array with chunks of one block, up to the end of a stripe.
    fn first_slots(level: Level, members: u8, blocks: u64) -> Vec<u8> {
        let geometry = Geometry::new(level, members, 1, 1024).expect("a geometry");
        let place = |block| geometry.locate(ArrayBlock(block));
        (0..blocks).map(|block| geometry.member_of(place(block).stripe, place(block).column).0).collect()
    }

    #[test]
    fn the_layouts_are_those_of_linux_md() {
        // Four members, as md(4) draws left-symmetric: D0 D1 D2 P / D4 D5 P D3 / D8 P D6 D7 / P D9 D10 D11.
        assert_eq!(first_slots(Level::Raid5, 4, 12), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
        // D0 D1 D2 P.
        assert_eq!(first_slots(Level::Raid4, 4, 6), [0, 1, 2, 0, 1, 2]);
        // Five members, raid5_compute_sector with ALGORITHM_LEFT_SYMMETRIC: Q D0 D1 D2 P / D4 D5 D3' ... :
        // stripe 0 has P on 4, Q on 0, data from 1; stripe 1 has P on 3, Q on 4, data from 0; stripe 2 P on 2, Q on 3.
        assert_eq!(first_slots(Level::Raid6, 5, 9), [1, 2, 3, 0, 1, 2, 4, 0, 1]);
        let six = Geometry::new(Level::Raid6, 5, 1, 1024).expect("a geometry");
        let parities = |stripe| [0, 1].map(|index| six.parity_member(StripeId(stripe), index).0);
        assert_eq!([0, 1, 2, 3, 4, 5].map(parities), [[4, 0], [3, 4], [2, 3], [1, 2], [0, 1], [4, 0]]);
        // Near layout with two copies: D0 D0 D1 D1 / D2 D2 D3 D3.
        assert_eq!(first_slots(Level::Raid10, 4, 4), [0, 2, 0, 2]);
        assert_eq!(first_slots(Level::Raid0, 3, 4), [0, 1, 2, 0]);
    }

    #[test]
    fn a_loss_is_borne_if_every_part_has_a_home_left_or_can_be_solved_for() {
        for geometry in geometries(1, 8, 1024) {
            let mut fewest = geometry.members();
            for missing in 0..=geometry.all_members() {
                let stripe = StripeId(3);
                let is_gone = |part| geometry.homes_of(stripe, part) & !missing == 0;
                let columns = (0..geometry.data_slots()).filter(|&column| is_gone(Part::Data(column))).count();
                let parities = (0..geometry.parities()).filter(|&index| is_gone(Part::Parity(index))).count();
                let borne = columns + parities <= usize::from(geometry.parities());
                assert_eq!(geometry.bears(missing), borne, "{geometry:?} without {missing:#b}");
                assert_eq!(geometry.bears(missing | 1 << 31), borne, "what does not exist is not missed");
                if borne {
                    fewest = fewest.min(geometry.members() - missing.count_ones() as u8);
                }
            }
            assert_eq!(geometry.fewest_members(), fewest, "{geometry:?}");
        }
    }

    #[test]
    fn what_is_no_geometry_is_refused() {
        for level in Level::ALL {
            let (few, many) = (level.min_members() - 1, MAX_MEMBERS + 1);
            assert!(matches!(Geometry::new(level, few, 16, 4096), Err(GeometryError::Members { .. })));
            assert!(matches!(Geometry::new(level, many, 16, 4096), Err(GeometryError::Members { .. })));
            assert!(Geometry::new(level, MAX_MEMBERS, 16, 4096).is_ok_and(|all| all.all_members() == u32::MAX));
        }
        assert!(matches!(Geometry::new(Level::Raid10, 5, 16, 4096), Err(GeometryError::Unpaired { .. })));
        assert!(matches!(Geometry::new(Level::Raid5, 3, 12, 4096), Err(GeometryError::Chunk(12))));
        assert!(matches!(Geometry::new(Level::Raid5, 3, 512, 4096), Err(GeometryError::Chunk(512))));
        assert!(matches!(Geometry::new(Level::Raid5, 3, 16, 1023), Err(GeometryError::TooSmall { .. })));
        assert!(Geometry::new(Level::Raid5, 3, 16, u64::MAX).is_ok());
    }
}
