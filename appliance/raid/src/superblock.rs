//! What each member says of itself and of its array. Two blocks at the device's beginning are written in turns; the valid
//! one with the higher update count holds. Described in `FORMAT.md`.

mod tables;
#[cfg(test)]
pub(crate) mod tests;

use base::Block;
use base::cursor::{Reader, Truncated, Writer};
use base::ids::DeviceBlock;
use base::uuid::Uuid;
use journal::superblock::{LaterRegion, MEMBER_SLOTS, MemberUuids};
use thiserror::Error;

use crate::arrangement::Arrangement;
use crate::away::{AWAY_BYTES, Away};
use crate::geometry::{Geometry, GeometryError};
use crate::growth::{self, GROWTH_BYTES, Growth};
use crate::layout::{LayoutError, MemberLayout, Region, SUPERBLOCK_START};
use crate::level::{Level, MAX_MEMBERS};
use crate::scrub::{FEATURE_SCRUB, SCRUB_BYTES, ScrubRecord};
pub use tables::Tables;

/// What the block begins with.
pub const MAGIC: [u8; 8] = *b"BRINDLEM";

/// The format's version.
pub const VERSION: u16 = 1;

/// An incompatible feature: a member is being rebuilt. Set only as long as one is, so that a program which would take its
/// place for a whole member's, or for nothing, stays away.
pub const FEATURE_REBUILDING: u64 = 1;

/// An incompatible feature: the array is written without a log, and the bits of dirty zones say where a crash may have left
/// what does not match. Set exactly if no log copy is active.
pub const FEATURE_WITHOUT_LOG: u64 = 2;

/// An incompatible feature: checksums of all blocks are kept, so that who writes one has to know. Set exactly if there is a
/// region for them.
pub const FEATURE_CHECKSUMS: u64 = 4;

/// An incompatible feature: the last copy of the log was lost while the array was served, so that bits of dirty zones count
/// beside what a copy says that comes back. See [`LogFate::Lost`].
pub const FEATURE_LOG_LOST: u64 = 8;

/// An incompatible feature: the log was given up, and what copies of it say is old. See [`LogFate::GivenUp`].
pub const FEATURE_LOG_GIVEN_UP: u64 = 16;

/// An incompatible feature: the array gets further members, or got some since it was last stopped in good order, so that not all
/// blocks lie, or lay, by its geometry. See [`Growth`].
pub const FEATURE_GROWTH: u64 = 32;

/// An incompatible feature: since all members were whole, the bits of missed zones say what those that went out lack, so that who
/// writes has to set them. See [`Away`].
pub const FEATURE_AWAY: u64 = 64;

/// Incompatible features that this program knows.
pub const KNOWN_INCOMPATIBLE: u64 = FEATURE_REBUILDING
    | FEATURE_WITHOUT_LOG
    | FEATURE_CHECKSUMS
    | FEATURE_LOG_LOST
    | FEATURE_LOG_GIVEN_UP
    | FEATURE_GROWTH
    | FEATURE_AWAY;

/// Highest epoch and update that are believed: nobody ever counted so far, and there is room to count on.
pub const MAX_EPOCH: u64 = journal::MAX_COUNT;

/// Most copies of the log.
pub const MAX_COPIES: usize = 4;

/// Most bytes of the array's name.
pub const MAX_NAME_BYTES: usize = 32;

const CRC_AT: usize = 8;
const NAME_AT: usize = 128;
const COPIES_AT: usize = 192;
const COPY_BYTES: usize = 32;
const REGIONS_AT: usize = 384;
const REGION_BYTES: usize = 32;
/// Regions of a member that every superblock has.
const KNOWN_REGIONS: usize = 3;
/// Regions that this program knows beside them.
const OPTIONAL_REGIONS: usize = 3;
/// Places of the region table.
const MAX_REGIONS: usize = 16;
const MEMBERS_AT: usize = 1024;
const MEMBER_BYTES: usize = 32;
const SCRUB_AT: usize = 2048;
const GROWTH_AT: usize = 2176;
const AWAY_AT: usize = 2304;

const _: () = assert!(MAX_MEMBERS as usize <= MEMBER_SLOTS);
const _: () = assert!(COPIES_AT + MAX_COPIES * COPY_BYTES <= REGIONS_AT);
const _: () = assert!(REGIONS_AT + MAX_REGIONS * REGION_BYTES <= MEMBERS_AT);
const _: () = assert!(MEMBERS_AT + MAX_MEMBERS as usize * MEMBER_BYTES <= SCRUB_AT);
const _: () = assert!(SCRUB_AT + SCRUB_BYTES <= GROWTH_AT && GROWTH_AT + GROWTH_BYTES <= AWAY_AT);
const _: () = assert!(AWAY_AT + AWAY_BYTES <= base::BLOCK);

/// The place is free.
const REGION_NONE: u16 = 0;
const REGION_BITMAP: u16 = 1;
const REGION_METADATA: u16 = 2;
const REGION_DATA: u16 = 3;
const REGION_DIRTY: u16 = 4;
const REGION_CHECKSUMS: u16 = 5;
const REGION_MISSED: u16 = 6;

/// Whether a member or copy takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Active,
    /// It does not, since this epoch: what it holds is old.
    Excluded {
        /// The first epoch without it.
        since: u64,
    },
    /// A member that was given a place and does not hold all that belongs there yet.
    Rebuilding {
        /// Stripes below this are current on it; of the others it holds nothing.
        position: u64,
    },
}

/// What became of an array's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFate {
    /// Nothing: if the array has a log, that alone says what the members lack.
    #[default]
    Kept,
    /// Its last copy was lost while the array was served. What only memory held went to the members without it, and nothing was
    /// acknowledged since: a copy that comes back is believed, but parities match only in zones whose bit is not set.
    Lost,
    /// After that the members had everything, and writes were acknowledged that no copy knows of. None is ever read again.
    GivenUp,
}

/// A member as all superblocks list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    /// Its identity.
    pub uuid: Uuid,
    /// Whether it takes part.
    pub state: State,
}

impl MemberEntry {
    /// Whether it was given its place and does not hold all that belongs there yet.
    pub const fn is_rebuilding(&self) -> bool {
        matches!(self.state, State::Rebuilding { .. })
    }
}

/// The identities of members, as a log copy keeps them.
pub fn member_uuids(members: &[MemberEntry]) -> MemberUuids {
    core::array::from_fn(|slot| members.get(slot).map_or(Uuid::NIL, |member| member.uuid))
}

/// A log copy as all superblocks list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyEntry {
    /// Its identity.
    pub uuid: Uuid,
    /// Whether it takes part.
    pub state: State,
    /// Of one that is excluded: whether it was taken away for good, so that nobody misses it.
    pub free: bool,
}

impl CopyEntry {
    /// A copy that takes part.
    pub const fn active(uuid: Uuid) -> Self {
        Self { uuid, state: State::Active, free: false }
    }
}

/// A member superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Compatible features that this program does not know, kept as they are.
    pub compatible: u64,
    /// The array.
    pub array: Uuid,
    /// Its name, for people; at most [`MAX_NAME_BYTES`] bytes.
    pub name: String,
    /// This member's place; its identity stands in [`Superblock::members`].
    pub slot: u8,
    /// Where blocks lie, or come to lie: see [`Superblock::arrangement`].
    pub geometry: Geometry,
    /// The geometry's epoch: one more with each window that was moved.
    pub geometry_epoch: u32,
    /// How far it is, if the array gets further members, or got some.
    pub growth: Option<Growth>,
    /// The array's epoch: one more with each exclusion.
    pub epoch: u64,
    /// One more with each write of this superblock.
    pub update: u64,
    /// The generation of the log that the array needs.
    pub log_generation: u128,
    /// All members by slot.
    pub members: Vec<MemberEntry>,
    /// All log copies.
    pub copies: Vec<CopyEntry>,
    /// The last scrub, if there was one.
    pub scrub: Option<ScrubRecord>,
    /// What became of the log.
    pub log_fate: LogFate,
    /// What is known of members that are out.
    pub away: Option<Away>,
    /// Where things lie on this member.
    pub layout: MemberLayout,
    /// Regions of kinds that this program does not know, kept as they are.
    pub later_regions: Vec<LaterRegion>,
    /// Controller ids of this node, for two nodes that serve one array in turns.
    pub controller_ids: (u16, u16),
    /// Raised by a node that takes an array over.
    pub fencing_epoch: u64,
}

/// Why a block is no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Something else is there.
    #[error("there is no member superblock")]
    NotASuperblock,
    /// It was one.
    #[error("the member superblock's checksum is wrong")]
    BadCrc,
    /// From the future.
    #[error("the member superblock has format version {0}; this program knows {VERSION}")]
    Version(u16),
    /// From the future.
    #[error("the array uses incompatible features {0:#x} that this program does not know")]
    Incompatible(u64),
    /// Nonsense under a good checksum.
    #[error("the member superblock is not consistent: {0}")]
    Malformed(&'static str),
    /// Nonsense under a good checksum.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Nonsense under a good checksum.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl From<Truncated> for SuperblockError {
    fn from(_: Truncated) -> Self {
        Self::Malformed("it ends before its fields do")
    }
}

/// Where an update of the superblock is written: never over the newest one.
pub const fn superblock_block(update: u64) -> DeviceBlock {
    DeviceBlock(SUPERBLOCK_START + (update & 1))
}

impl Superblock {
    /// This member's identity.
    pub fn uuid(&self) -> Uuid {
        self.entry().uuid
    }

    /// What this member says of itself.
    pub fn entry(&self) -> &MemberEntry {
        &self.members[usize::from(self.slot)]
    }

    fn incompatible(&self) -> u64 {
        let rebuilding = if self.members.iter().any(MemberEntry::is_rebuilding) { FEATURE_REBUILDING } else { 0 };
        let without_log = if self.is_without_log() { FEATURE_WITHOUT_LOG } else { 0 };
        let checksums = if self.layout.checksums.is_some() { FEATURE_CHECKSUMS } else { 0 };
        let fate = match self.log_fate {
            LogFate::Kept => 0,
            LogFate::Lost => FEATURE_LOG_LOST,
            LogFate::GivenUp => FEATURE_LOG_GIVEN_UP,
        };
        let growth = if self.growth.is_some() { FEATURE_GROWTH } else { 0 };
        let away = if self.away.is_some() { FEATURE_AWAY } else { 0 };
        rebuilding | without_log | checksums | fate | growth | away
    }

    /// Where blocks lie.
    pub fn arrangement(&self) -> Arrangement {
        growth::arrangement(&self.geometry, self.growth.as_ref())
    }

    /// Whether bits of dirty zones count: an array with a log does without them, unless that was lost meanwhile.
    pub fn counts_dirty(&self) -> bool {
        self.is_without_log() || self.log_fate == LogFate::Lost
    }

    /// Whether the array is written without a log: no copy of one is active.
    pub fn is_without_log(&self) -> bool {
        self.copies.iter().all(|copy| copy.state != State::Active)
    }

    /// Who takes part, as this superblock says.
    pub fn tables(&self) -> Tables {
        Tables {
            geometry: self.geometry,
            geometry_epoch: self.geometry_epoch,
            growth: self.growth,
            members: self.members.clone(),
            copies: self.copies.clone(),
            scrub: self.scrub,
            log_fate: self.log_fate,
            away: self.away,
        }
    }

    /// Raises the epoch and says from then on what the tables say; the next update is due.
    pub fn renew(&mut self, epoch: u64, tables: &Tables) {
        assert!(epoch > self.epoch, "epochs only grow");
        self.geometry = tables.geometry;
        self.geometry_epoch = tables.geometry_epoch;
        self.growth = tables.growth;
        self.members.clone_from(&tables.members);
        self.copies.clone_from(&tables.copies);
        self.scrub = tables.scrub;
        self.log_fate = tables.log_fate;
        self.away = tables.away;
        self.epoch = epoch;
        self.update += 1;
    }

    /// Raises the epoch and leaves members and copies (bit masks) out from then on; the next update is due.
    pub fn exclude(&mut self, epoch: u64, members: u32, copies: u32) {
        let mut tables = self.tables();
        tables.exclude(epoch, members, copies);
        self.renew(epoch, &tables);
    }

    /// Blocks of the device that the array needs, counted from the device's beginning.
    pub const fn device_blocks(&self) -> u64 {
        self.layout.device_blocks(self.geometry.stripes())
    }

    /// Fills a block.
    ///
    /// # Panics
    /// If the tables do not fit the geometry, or there are more regions than the table holds.
    pub fn encode(&self, out: &mut Block) {
        assert!(self.members.len() == usize::from(self.geometry.members()) && self.copies.len() <= MAX_COPIES);
        assert!(self.name.len() <= MAX_NAME_BYTES && usize::from(self.slot) < self.members.len());
        assert!(
            self.later_regions.len() + KNOWN_REGIONS + OPTIONAL_REGIONS <= MAX_REGIONS,
            "the region table has {MAX_REGIONS} places"
        );
        out.fill(0);
        let mut to = Writer::new(out);
        to.bytes(&MAGIC).u32_le(0).u16_le(VERSION).u16_le(0);
        let compatible = self.compatible & !FEATURE_SCRUB | if self.scrub.is_some() { FEATURE_SCRUB } else { 0 };
        to.u64_le(compatible).u64_le(self.incompatible()).bytes(&self.array.0);
        to.u8(self.slot).u8(self.geometry.level().code()).u8(self.geometry.members()).u8(self.copies.len() as u8);
        to.u32_le(self.geometry.chunk_blocks()).u64_le(self.geometry.stripes());
        to.u64_le(self.epoch).u64_le(self.update).u32_le(self.geometry_epoch).u32_le(0);
        to.u128_le(self.log_generation).u64_le(self.fencing_epoch);
        to.u16_le(self.controller_ids.0).u16_le(self.controller_ids.1);
        to.pad_to(NAME_AT).u8(self.name.len() as u8).bytes(self.name.as_bytes()).pad_to(COPIES_AT);
        for copy in &self.copies {
            entry(&mut to, copy.uuid, copy.state, copy.free);
        }
        to.pad_to(REGIONS_AT);
        let layout = &self.layout;
        let known: [(u16, Region); KNOWN_REGIONS] =
            [(REGION_BITMAP, layout.bitmap), (REGION_METADATA, layout.metadata), (REGION_DATA, layout.data)];
        let known = known.into_iter().chain(layout.dirty.map(|dirty| (REGION_DIRTY, dirty)));
        let known = known.chain(layout.missed.map(|missed| (REGION_MISSED, missed)));
        let known = known.chain(layout.checksums.map(|checksums| (REGION_CHECKSUMS, checksums)));
        let known = known.map(|(kind, region)| (kind, 0, region.start, region.blocks));
        let later = self.later_regions.iter().map(|region| (region.kind, region.flags, region.start, region.blocks));
        for (kind, flags, start, blocks) in known.chain(later) {
            to.u16_le(kind).u16_le(flags).u32_le(0).u64_le(start).u64_le(blocks).u64_le(0);
        }
        to.pad_to(MEMBERS_AT);
        for member in &self.members {
            entry(&mut to, member.uuid, member.state, false);
        }
        if let Some(scrub) = &self.scrub {
            scrub.encode(to.pad_to(SCRUB_AT));
        }
        if let Some(growth) = &self.growth {
            growth.encode(to.pad_to(GROWTH_AT));
        }
        if let Some(away) = &self.away {
            away.encode(to.pad_to(AWAY_AT));
        }
        let crc = crc_of(out);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a block, trusting nothing.
    pub fn decode(block: &Block) -> Result<Self, SuperblockError> {
        if block[..8] != MAGIC {
            return Err(SuperblockError::NotASuperblock);
        }
        if block[CRC_AT..CRC_AT + 4] != crc_of(block).to_le_bytes() {
            return Err(SuperblockError::BadCrc);
        }
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
        let array = Uuid(from.array()?);
        let (slot, level, member_count, copy_count) = (from.u8()?, from.u8()?, from.u8()?, from.u8()?);
        let (chunk_blocks, stripes) = (from.u32_le()?, from.u64_le()?);
        let (epoch, update, geometry_epoch) = (from.u64_le()?, from.u64_le()?, from.u32_le()?);
        from.skip(4)?;
        let (log_generation, fencing_epoch) = (from.u128_le()?, from.u64_le()?);
        let controller_ids = (from.u16_le()?, from.u16_le()?);
        if epoch > MAX_EPOCH || update > MAX_EPOCH {
            return Err(SuperblockError::Malformed("its epoch or its update is higher than anybody counts"));
        }
        let level = Level::from_code(level).ok_or(SuperblockError::Malformed("its level is unknown"))?;
        let geometry = Geometry::new(level, member_count, chunk_blocks, stripes)?;
        if geometry.stripes() != stripes {
            return Err(SuperblockError::Malformed("its stripes are not whole zones"));
        }
        if slot >= member_count || usize::from(copy_count) > MAX_COPIES || array.is_nil() {
            return Err(SuperblockError::Malformed("slot, copy count or array are out of range"));
        }
        let mut from = Reader::new(&block[NAME_AT..]);
        let name_bytes = usize::from(from.u8()?);
        if name_bytes > MAX_NAME_BYTES {
            return Err(SuperblockError::Malformed("its name is too long"));
        }
        let name = core::str::from_utf8(from.bytes(name_bytes)?)
            .map_err(|_| SuperblockError::Malformed("its name is not UTF-8"))?
            .to_owned();
        let mut from = Reader::new(&block[COPIES_AT..]);
        let mut copies = Vec::new();
        for _ in 0..copy_count {
            let (uuid, state, free) = read_entry(&mut from)?;
            if matches!(state, State::Rebuilding { .. }) {
                return Err(SuperblockError::Malformed("a log copy is never being rebuilt"));
            }
            copies.push(CopyEntry { uuid, state, free });
        }
        let (layout, later_regions) = read_regions(&block[REGIONS_AT..MEMBERS_AT])?;
        layout.check(geometry.stripes(), geometry.zones())?;
        later_regions.iter().try_for_each(|later| layout.check_beside(later.start, later.blocks))?;
        let mut from = Reader::new(&block[MEMBERS_AT..]);
        let mut members = Vec::new();
        for _ in 0..member_count {
            let (uuid, state, _) = read_entry(&mut from)?;
            if let State::Rebuilding { position } = state
                && (position > stripes || position % geometry.zone_stripes() != 0)
            {
                return Err(SuperblockError::Malformed("a member is rebuilt up to no whole zone of the array"));
            }
            members.push(MemberEntry { uuid, state });
        }
        // Who wrote it last may have kept the feature's number and not have known the record.
        let scrub = match compatible & FEATURE_SCRUB {
            0 => None,
            _ => ScrubRecord::decode(&block[SCRUB_AT..SCRUB_AT + SCRUB_BYTES], stripes, geometry.zone_stripes())?,
        };
        let log_fate = match incompatible & (FEATURE_LOG_LOST | FEATURE_LOG_GIVEN_UP) {
            0 => LogFate::Kept,
            FEATURE_LOG_LOST => LogFate::Lost,
            FEATURE_LOG_GIVEN_UP => LogFate::GivenUp,
            _ => return Err(SuperblockError::Malformed("its log was both lost and given up")),
        };
        let growth = match incompatible & FEATURE_GROWTH {
            0 => None,
            _ => Some(Growth::decode(&block[GROWTH_AT..GROWTH_AT + GROWTH_BYTES], &geometry, geometry_epoch)?),
        };
        let away = match incompatible & FEATURE_AWAY {
            0 => None,
            _ => Some(Away::decode(&block[AWAY_AT..AWAY_AT + AWAY_BYTES], &members)?),
        };
        let superblock = Self {
            compatible: compatible & !FEATURE_SCRUB,
            array,
            name,
            slot,
            geometry,
            geometry_epoch,
            growth,
            epoch,
            update,
            log_generation,
            members,
            copies,
            scrub,
            log_fate,
            away,
            layout,
            later_regions,
            controller_ids,
            fencing_epoch,
        };
        if superblock.incompatible() != incompatible {
            return Err(SuperblockError::Malformed(
                "it does not announce a rebuild, checksums, or that it has no log, as it should",
            ));
        }
        if superblock.away.is_some() && superblock.layout.missed.is_none() {
            return Err(SuperblockError::Malformed("it has no place for the bits of missed zones"));
        }
        if superblock.counts_dirty() && superblock.layout.dirty.is_none() {
            return Err(SuperblockError::Malformed("it has no log and no bits of dirty zones"));
        }
        let is_given_up = superblock.log_fate == LogFate::GivenUp;
        if is_given_up && (superblock.copies.is_empty() || !superblock.is_without_log()) {
            return Err(SuperblockError::Malformed("the log that it gave up is not there, or in use"));
        }
        Ok(superblock)
    }

    /// The newer of the two places. A version that is not known wins over an older one that is: it must not be overlooked.
    pub fn newest(a: &Block, b: &Block) -> Result<Self, SuperblockError> {
        use SuperblockError::{Incompatible, NotASuperblock, Version};
        match (Self::decode(a), Self::decode(b)) {
            (Err(error @ (Version(_) | Incompatible(_))), _) | (_, Err(error @ (Version(_) | Incompatible(_)))) => {
                Err(error)
            }
            (Ok(a), Ok(b)) => Ok(if b.update > a.update { b } else { a }),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(NotASuperblock), Err(error)) | (Err(error), Err(_)) => Err(error),
        }
    }
}

fn entry(to: &mut Writer<'_>, uuid: Uuid, state: State, free: bool) {
    let (code, number) = match state {
        State::Active => (1, 0),
        State::Excluded { since } => (2, since),
        State::Rebuilding { position } => (3, position),
    };
    to.bytes(&uuid.0).u8(code).u8(u8::from(free)).zeros(6).u64_le(number);
}

fn read_entry(from: &mut Reader<'_>) -> Result<(Uuid, State, bool), SuperblockError> {
    let uuid = Uuid(from.array()?);
    let (code, flags) = (from.u8()?, from.u8()?);
    from.skip(6)?;
    let number = from.u64_le()?;
    let state = match code {
        1 => State::Active,
        2 => State::Excluded { since: number },
        3 => State::Rebuilding { position: number },
        _ => return Err(SuperblockError::Malformed("a member's state is unknown")),
    };
    if uuid.is_nil() {
        return Err(SuperblockError::Malformed("a member has no identity"));
    }
    Ok((uuid, state, flags & 1 != 0 && matches!(state, State::Excluded { .. })))
}

fn read_regions(table: &[u8]) -> Result<(MemberLayout, Vec<LaterRegion>), SuperblockError> {
    let (mut bitmap, mut metadata, mut data) = (None, None, None);
    let (mut dirty, mut missed, mut checksums) = (None, None, None);
    let mut later = Vec::new();
    for bytes in table.chunks_exact(REGION_BYTES).take(MAX_REGIONS) {
        let mut from = Reader::new(bytes);
        let (kind, flags) = (from.u16_le()?, from.u16_le()?);
        from.skip(4)?;
        let (start, blocks) = (from.u64_le()?, from.u64_le()?);
        let region = Region { start, blocks };
        let before = match kind {
            REGION_NONE => None,
            REGION_BITMAP => bitmap.replace(region),
            REGION_METADATA => metadata.replace(region),
            REGION_DATA => data.replace(region),
            REGION_DIRTY => dirty.replace(region),
            REGION_CHECKSUMS => checksums.replace(region),
            REGION_MISSED => missed.replace(region),
            // Had it mattered to this program, an incompatible feature would have announced it. The next superblock still
            // names it.
            _ => {
                later.push(LaterRegion { kind, flags, start, blocks });
                None
            }
        };
        if before.is_some() {
            return Err(SuperblockError::Malformed("a region is named twice"));
        }
    }
    match (bitmap, metadata, data) {
        (Some(bitmap), Some(metadata), Some(data)) => {
            Ok((MemberLayout { bitmap, metadata, dirty, missed, checksums, data }, later))
        }
        _ => Err(SuperblockError::Malformed("a region is missing")),
    }
}

fn crc_of(block: &Block) -> u32 {
    let head = crc32c::crc32c(&block[..CRC_AT]);
    crc32c::crc32c_append(crc32c::crc32c_append(head, &[0; 4]), &block[CRC_AT + 4..])
}
