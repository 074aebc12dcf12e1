//! The superblock of a log copy: who it is, how its regions lie, and what it last saw. Two slots are written in turn, so
//! that a torn write leaves the older one. It trusts nothing that it decodes, and decides nothing about membership.

use base::cursor::{Reader, Truncated, Writer};
use base::{Block, uuid::Uuid};
use thiserror::Error;

use crate::layout::{LayoutError, LogLayout, REGIONS_START};
use crate::{LogIdentity, MAX_COPIES, put_crc, verified_crc};

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"BRINDLEL";

/// The version that this code writes.
pub const VERSION: u16 = 1;

/// An incompatible feature: the device is about to become a copy and lacks what the others hold. Set only as long as it is so.
pub const FEATURE_JOINING: u64 = 1;

/// Incompatible features that this code knows.
pub const KNOWN_INCOMPATIBLE: u64 = FEATURE_JOINING;

/// Most regions of the table.
pub const MAX_REGIONS: usize = 16;

const REGIONS_AT: usize = 256;
const REGION_BYTES: usize = 32;
const REGION_ANCHORS: u16 = 1;
const REGION_RINGS: u16 = 2;
const MEMBERS_AT: usize = 1024;

/// Slots that members may have.
pub const MEMBER_SLOTS: usize = u32::BITS as usize;

/// The identities of members by slot; nil where there is none, or it was not kept.
pub type MemberUuids = [Uuid; MEMBER_SLOTS];

const _: () = assert!(REGIONS_AT + MAX_REGIONS * REGION_BYTES <= MEMBERS_AT);
const _: () = assert!(MEMBERS_AT + MEMBER_SLOTS * size_of::<Uuid>() <= base::BLOCK);

/// How writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// After the members' flush.
    WriteThrough = 1,
    /// After the log's.
    WriteBack = 2,
}

/// A region of the device whose kind this code does not know: kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaterRegion {
    /// Its kind.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// Its first block.
    pub start: u64,
    /// Its length in blocks.
    pub blocks: u64,
}

/// What a log copy says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSuperblock {
    /// The array and the log's generation.
    pub identity: LogIdentity,
    /// Features that an older version may ignore.
    pub compatible: u64,
    /// This copy.
    pub copy: Uuid,
    /// This copy's place among the copies.
    pub copy_index: u16,
    /// How many copies there are, 1 to [`MAX_COPIES`].
    pub copy_count: u16,
    /// The array epoch that this copy last saw.
    pub epoch: u64,
    /// The members that take part at that epoch, as a bit mask by slot; none where an older version wrote it.
    pub members: u32,
    /// Who they are: a place may have been given to another. All nil where an older version wrote it.
    pub member_uuids: MemberUuids,
    /// The epoch of the array's geometry.
    pub geometry_epoch: u32,
    /// The latest start of the array. Made durable *before* an opening record carries it, so that none is used twice.
    pub incarnation: u64,
    /// How writes are acknowledged.
    pub mode: LogMode,
    /// Whether it is about to become a copy: it lacks what the others hold, and is read only if the members name it, since then
    /// it has become one.
    pub joining: bool,
    /// Raised by one with each write of the superblock; the higher of the two slots counts.
    pub update: u64,
    /// Where lanes and anchors lie.
    pub layout: LogLayout,
    /// Regions of kinds that this code does not know.
    pub later_regions: Vec<LaterRegion>,
}

/// Why a block is no usable superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Something else lies there.
    #[error("there is no log superblock")]
    NotASuperblock,
    /// It was torn or has decayed.
    #[error("the log superblock's checksum is wrong")]
    BadCrc,
    /// Written by a newer version.
    #[error("the log has format version {0}; this program knows {VERSION}")]
    Version(u16),
    /// Written by a newer version that uses what this one does not know.
    #[error("the log uses incompatible features {0:#x} that this program does not know")]
    Incompatible(u64),
    /// Its numbers contradict each other.
    #[error("the log superblock is not consistent: {0}")]
    Malformed(&'static str),
    /// Its regions contradict each other.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl From<Truncated> for SuperblockError {
    fn from(_: Truncated) -> Self {
        Self::Malformed("it ends before its fields do")
    }
}

impl LogSuperblock {
    /// Fills a block.
    ///
    /// # Panics
    /// If there are more regions than the table holds, or the copy is not one of the copies.
    pub fn encode(&self, out: &mut Block) {
        assert!(self.later_regions.len() + 2 <= MAX_REGIONS, "the region table has {MAX_REGIONS} places");
        assert!(self.copy_index < self.copy_count && usize::from(self.copy_count) <= MAX_COPIES);
        out.fill(0);
        let mut to = Writer::new(out);
        to.bytes(&MAGIC).u32_le(0).u16_le(VERSION).u16_le(0);
        to.u64_le(self.compatible).u64_le(if self.joining { FEATURE_JOINING } else { 0 });
        to.bytes(&self.identity.array.0).u128_le(self.identity.generation).bytes(&self.copy.0);
        to.u16_le(self.copy_index).u16_le(self.copy_count).u32_le(self.geometry_epoch);
        to.u64_le(self.epoch).u64_le(self.incarnation).u64_le(self.update);
        to.u16_le(self.layout.lanes()).u8(self.mode as u8).u8(0);
        to.u16_le(self.later_regions.len() as u16 + 2).u16_le(0).u64_le(self.layout.lane_blocks());
        to.u32_le(self.members);
        to.pad_to(REGIONS_AT);
        let (anchors, rings) = (self.layout.anchors(), self.layout.rings());
        let known = [(REGION_ANCHORS, 0, anchors.0, anchors.1), (REGION_RINGS, 0, rings.0, rings.1)];
        let later = self.later_regions.iter().map(|region| (region.kind, region.flags, region.start, region.blocks));
        for (kind, flags, start, blocks) in known.into_iter().chain(later) {
            to.u16_le(kind).u16_le(flags).u32_le(0).u64_le(start).u64_le(blocks).u64_le(0);
        }
        to.pad_to(MEMBERS_AT);
        self.member_uuids.iter().for_each(|uuid| _ = to.bytes(&uuid.0));
        put_crc(out);
    }

    /// Reads a block.
    pub fn decode(block: &Block) -> Result<Self, SuperblockError> {
        if block[..8] != MAGIC {
            return Err(SuperblockError::NotASuperblock);
        }
        verified_crc(block).ok_or(SuperblockError::BadCrc)?;
        let mut from = Reader::new(&block[12..]);
        let version = from.u16_le()?;
        if version != VERSION {
            return Err(SuperblockError::Version(version));
        }
        from.skip(2)?;
        let (compatible, incompatible) = (from.u64_le()?, from.u64_le()?);
        if incompatible & !KNOWN_INCOMPATIBLE != 0 {
            return Err(SuperblockError::Incompatible(incompatible & !KNOWN_INCOMPATIBLE));
        }
        let identity = LogIdentity { array: Uuid(from.array()?), generation: from.u128_le()? };
        let copy = Uuid(from.array()?);
        let (copy_index, copy_count, geometry_epoch) = (from.u16_le()?, from.u16_le()?, from.u32_le()?);
        if copy_index >= copy_count || usize::from(copy_count) > MAX_COPIES {
            return Err(SuperblockError::Malformed("the copy is not one of its copies"));
        }
        let (epoch, incarnation, update) = (from.u64_le()?, from.u64_le()?, from.u64_le()?);
        let lanes = from.u16_le()?;
        let mode = match from.u8()? {
            1 => LogMode::WriteThrough,
            2 => LogMode::WriteBack,
            _ => return Err(SuperblockError::Malformed("an unknown mode")),
        };
        // Once said whether the log had been stopped in good order, which nobody relied on.
        from.skip(1)?;
        let regions = usize::from(from.u16_le()?);
        from.skip(2)?;
        let (layout, later_regions) = regions_from(block, regions, lanes, from.u64_le()?)?;
        let members = from.u32_le()?;
        let mut from = Reader::new(&block[MEMBERS_AT..]);
        let mut member_uuids = [Uuid::NIL; MEMBER_SLOTS];
        for uuid in &mut member_uuids {
            *uuid = Uuid(from.array()?);
        }
        Ok(Self {
            identity,
            compatible,
            copy,
            copy_index,
            copy_count,
            epoch,
            members,
            member_uuids,
            geometry_epoch,
            incarnation,
            mode,
            joining: incompatible & FEATURE_JOINING != 0,
            update,
            layout,
            later_regions,
        })
    }

    /// The newer of the two slots that decodes, with its slot; if neither does, the more telling of the two errors.
    /// A slot of a newer format is never passed over in favour of an older one.
    pub fn newest(a: &Block, b: &Block) -> Result<(Self, usize), SuperblockError> {
        let newer =
            |error: &SuperblockError| matches!(error, SuperblockError::Version(_) | SuperblockError::Incompatible(_));
        match (Self::decode(a), Self::decode(b)) {
            (Err(error), _) | (_, Err(error)) if newer(&error) => Err(error),
            (Ok(a), Ok(b)) if b.update > a.update => Ok((b, 1)),
            (Ok(a), _) => Ok((a, 0)),
            (Err(_), Ok(b)) => Ok((b, 1)),
            (Err(SuperblockError::NotASuperblock), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }
}

fn regions_from(
    block: &Block,
    count: usize,
    lanes: u16,
    lane_blocks: u64,
) -> Result<(LogLayout, Vec<LaterRegion>), SuperblockError> {
    if count > MAX_REGIONS {
        return Err(SuperblockError::Malformed("more regions than the table holds"));
    }
    let mut from = Reader::new(&block[REGIONS_AT..REGIONS_AT + count * REGION_BYTES]);
    let (mut anchors, mut rings, mut later) = (None, None, Vec::new());
    for _ in 0..count {
        let (kind, flags) = (from.u16_le()?, from.u16_le()?);
        from.skip(4)?;
        let (start, blocks) = (from.u64_le()?, from.u64_le()?);
        from.skip(8)?;
        let twice = match kind {
            REGION_ANCHORS => anchors.replace((start, blocks)).is_some(),
            REGION_RINGS => rings.replace((start, blocks)).is_some(),
            _ => {
                later.push(LaterRegion { kind, flags, start, blocks });
                false
            }
        };
        if twice {
            return Err(SuperblockError::Malformed("a region is named twice"));
        }
    }
    let (Some(anchors), Some(rings)) = (anchors, rings) else {
        return Err(SuperblockError::Malformed("a region is missing"));
    };
    let layout = LogLayout::from_regions(lanes, lane_blocks, anchors.0, rings.0)?;
    if layout.anchors() != anchors || layout.rings() != rings {
        return Err(SuperblockError::Malformed("a region's length does not fit the lanes"));
    }
    for region in &later {
        let end = region.start.checked_add(region.blocks).ok_or(SuperblockError::Malformed("a region has no end"))?;
        let overlaps = [anchors, rings].iter().any(|known| region.start < known.0 + known.1 && known.0 < end);
        if overlaps || region.start < REGIONS_START {
            return Err(SuperblockError::Malformed("regions overlap"));
        }
    }
    Ok((layout, later))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ZERO_BLOCK;

    fn example(update: u64) -> LogSuperblock {
        LogSuperblock {
            identity: LogIdentity { array: Uuid::from_random([1, 2]), generation: 3 << 64 | 4 },
            compatible: 0x80,
            copy: Uuid::from_random([5, 6]),
            copy_index: 1,
            copy_count: 2,
            epoch: 7,
            members: 0b1011,
            member_uuids: core::array::from_fn(|slot| Uuid([slot as u8; 16])),
            geometry_epoch: 8,
            incarnation: 9,
            mode: LogMode::WriteBack,
            joining: true,
            update,
            layout: LogLayout::for_device(20_000, 16).expect("large enough"),
            later_regions: vec![LaterRegion { kind: 900, flags: 1, start: 20_000, blocks: 10 }],
        }
    }

    fn encoded(superblock: &LogSuperblock) -> Block {
        let mut block = ZERO_BLOCK;
        superblock.encode(&mut block);
        block
    }

    #[test]
    fn what_is_encoded_is_decoded_with_regions_of_later_versions() {
        let superblock = example(11);
        assert_eq!(LogSuperblock::decode(&encoded(&superblock)), Ok(superblock));
    }

    #[test]
    fn every_flipped_byte_and_every_torn_write_is_refused() {
        let whole = encoded(&example(11));
        for at in 0..base::BLOCK {
            let mut flipped = whole;
            flipped[at] ^= 0x10;
            assert!(LogSuperblock::decode(&flipped).is_err(), "byte {at}");
        }
        let used = whole.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
        for cut in 0..used {
            let mut torn = ZERO_BLOCK;
            torn[..cut].copy_from_slice(&whole[..cut]);
            assert!(LogSuperblock::decode(&torn).is_err() || torn == whole, "cut at {cut}");
        }
    }

    #[test]
    fn numbers_under_a_right_checksum_are_still_not_trusted() {
        let mut changed_bytes = 0;
        for at in 12..REGIONS_AT + 3 * REGION_BYTES {
            for value in [0, 1, 0x7f, 0xff] {
                let mut block = encoded(&example(11));
                changed_bytes += usize::from(block[at] != value);
                block[at] = value;
                put_crc(&mut block);
                if let Ok(superblock) = LogSuperblock::decode(&block) {
                    assert_eq!(LogSuperblock::decode(&encoded(&superblock)), Ok(superblock));
                }
            }
        }
        assert!(changed_bytes > 500);
        let mut block = encoded(&example(11));
        block[12] = 2;
        put_crc(&mut block);
        assert_eq!(LogSuperblock::decode(&block), Err(SuperblockError::Version(2)));
        let mut block = encoded(&example(11));
        block[24] = 4;
        put_crc(&mut block);
        assert_eq!(LogSuperblock::decode(&block), Err(SuperblockError::Incompatible(4)));
    }

    #[test]
    fn the_newer_slot_counts_and_a_torn_one_does_not() {
        let (old, new, none) = (encoded(&example(4)), encoded(&example(5)), ZERO_BLOCK);
        let update = |a, b| LogSuperblock::newest(a, b).map(|(superblock, slot)| (superblock.update, slot));
        assert_eq!(update(&old, &new), Ok((5, 1)));
        assert_eq!(update(&new, &old), Ok((5, 0)));
        let mut torn = new;
        torn[600] ^= 1;
        assert_eq!(update(&old, &torn), Ok((4, 0)));
        assert_eq!(update(&torn, &old), Ok((4, 1)));
        assert_eq!(update(&torn, &none), Err(SuperblockError::BadCrc));
        assert_eq!(update(&none, &torn), Err(SuperblockError::BadCrc));
        assert_eq!(update(&none, &none), Err(SuperblockError::NotASuperblock));
        let mut later = new;
        later[12] = 9;
        put_crc(&mut later);
        assert_eq!(update(&old, &later), Err(SuperblockError::Version(9)));
    }
}
