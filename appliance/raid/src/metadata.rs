//! The table of volumes, kept on every member: what an array must remember that no superblock has room for. One copy is a
//! header block and its content as JSON, so that a newer version's fields pass through an older version unharmed.
//!
//! Each member has two slots of [`METADATA_BLOCKS`]; update *u* is written to slot *u* mod 2, so that a torn write leaves
//! the one before. Who is a current member is decided elsewhere; among the slots of those the highest update counts.
//!
//! It touches no device and draws no random number. Extents are handed out in `allocate`.

mod allocate;
mod change;
mod text;

#[cfg(test)]
mod tests;

use base::cursor::{Reader, Writer};
use base::sector::LogicalBlock;
use base::{BLOCK, Block, ZERO_BLOCK, uuid::Uuid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Geometry;
use crate::zone_bits::{put_crc, verified_crc};

/// The first eight bytes of the header block.
pub const MAGIC: [u8; 8] = *b"BRINDLET";

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u16 = 1;

/// Blocks of a slot: the header and at most 63 blocks of content.
pub const METADATA_BLOCKS: usize = 64;

/// Most bytes of content.
pub const MAX_CONTENT_BYTES: usize = (METADATA_BLOCKS - 1) * BLOCK;

/// Of these, bytes that only deletions may take: who deletes a volume writes a little more of it for a while.
const DELETIONS_BYTES: usize = 4096;

/// Most bytes of a volume's name.
pub const MAX_NAME_BYTES: usize = 32;

/// Most extents of one volume: a bound for lookups.
pub const MAX_EXTENTS: usize = 64;

/// Most places at which the table has hosts find one volume.
pub const MAX_EXPORTS: usize = 8;

/// Fields of a later version, kept as they are.
pub type LaterFields = serde_json::Map<String, serde_json::Value>;

/// Who made an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration file names it.
    Config,
    /// An operator or a program asked for it; the configuration leaves it alone.
    Runtime,
}

/// A run of the array's data blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentRecord {
    /// Its first block: [`base::ids::ArrayBlock`].
    pub start: u64,
    /// Its length in blocks, not zero.
    pub blocks: u64,
}

/// What a volume is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    /// Hosts may use it.
    #[default]
    Ready,
    /// Another volume is being copied into it. What is found so at a start is not whole, and is deleted.
    Copying,
    /// It was deleted, and its space is not free before it is zeros. Only its extents count.
    Cleaning,
}

impl VolumeState {
    fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_block(logical: &LogicalBlock) -> bool {
    *logical == LogicalBlock::Block
}

/// Where hosts find a volume, if the configuration does not say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRecord {
    /// The subsystem's NQN.
    pub subsystem: String,
    /// The namespace identifier in it.
    pub nsid: u32,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its number in the array, from 1; never given to another.
    pub id: u32,
    /// Its name, unique in the array.
    pub name: String,
    /// Its identity.
    #[serde(with = "text::uuid")]
    pub uuid: Uuid,
    /// Namespace Globally Unique Identifier, not zero. Stored, not derived again: hosts know the volume by it.
    #[serde(with = "text::nguid")]
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier, not zero; its most significant byte is the first on the wire.
    #[serde(with = "text::eui64")]
    pub eui64: u64,
    /// Its size in blocks; the extents may hold more.
    pub blocks: u64,
    /// In what units hosts address it. It never changes: what they have stored lies by it.
    #[serde(default, rename = "logical_block_bytes", with = "text::logical", skip_serializing_if = "is_block")]
    pub logical: LogicalBlock,
    /// Where it lies, in the order of its own blocks. Each extent is whole chunks.
    pub extents: Vec<ExtentRecord>,
    /// Who made it.
    pub origin: Origin,
    /// The slot of its key, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_slot: Option<u16>,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "VolumeState::is_ready")]
    pub state: VolumeState,
    /// Where hosts find it beside what the configuration says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<ExportRecord>,
    /// What a later version wrote of it.
    #[serde(flatten)]
    pub later: LaterFields,
}

/// A volume to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its size in blocks.
    pub blocks: u64,
    /// In what units hosts address it.
    pub logical: LogicalBlock,
}

impl<'a> VolumeSpec<'a> {
    /// A volume that hosts address in blocks.
    pub const fn new(name: &'a str, blocks: u64) -> Self {
        Self { name, blocks, logical: LogicalBlock::Block }
    }
}

/// What an array remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The number of the next volume; 0 before there was one.
    #[serde(default)]
    pub next_volume_id: u32,
    /// The volumes in the order of their making.
    #[serde(default)]
    pub volumes: Vec<VolumeRecord>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub later: LaterFields,
}

/// Why there is no metadata, or why it cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// The device: something else lies there.
    #[error("there is no metadata")]
    NotMetadata,
    /// The device: torn, decayed, or too few blocks were read.
    #[error("the metadata is damaged: {0}")]
    Damaged(&'static str),
    /// The device: written by a newer version.
    #[error("the metadata has format version {0}; this program knows {VERSION}")]
    Version(u16),
    /// The device: it belongs to another array.
    #[error("the metadata belongs to array {0}")]
    OtherArray(Uuid),
    /// The device: its content contradicts itself or the array, under a right checksum.
    #[error("the metadata is not consistent: {0}")]
    Malformed(String),
    /// The operator: no such name can be given.
    #[error(
        "\"{0}\" is no volume name: take 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.', \
         the first of them a letter or a digit"
    )]
    Name(String),
    /// The operator: the name is taken.
    #[error("there is already a volume \"{0}\"")]
    NameTaken(String),
    /// The operator: a volume of nothing.
    #[error("volume \"{0}\" needs at least one block of 4096 bytes")]
    Empty(String),
    /// The operator: the array is too full.
    #[error(
        "volume \"{name}\" needs {} more in whole chunks, but the array has {} free{}",
        text::amount(*want), text::amount(*free), text::cleaning(*cleaning)
    )]
    NoSpace {
        /// The volume.
        name: String,
        /// The blocks that it needs, rounded up to whole chunks.
        want: u64,
        /// Those that there are.
        free: u64,
        /// Those of deleted volumes, which will be free once they are zeros.
        cleaning: u64,
    },
    /// The operator: volumes only grow.
    #[error("volume \"{name}\" has {} already: a volume grows, and never shrinks", text::amount(*has))]
    NotLarger {
        /// The volume.
        name: String,
        /// Its blocks.
        has: u64,
    },
    /// The operator: there is no such volume, or no longer.
    #[error("there is no such volume any more")]
    NoVolume,
    /// The operator: it is being copied into.
    #[error("volume \"{0}\" is being copied into: wait for the end of that, or delete it")]
    NotReady(String),
    /// The operator: a volume has a few places at most.
    #[error("volume \"{0}\" is exported in {MAX_EXPORTS} places already")]
    TooManyExports(String),
    /// The operator: there is room, but in too many pieces.
    #[error("volume \"{0}\" would lie in more than {MAX_EXTENTS} pieces: the array's free space is too scattered")]
    Scattered(String),
    /// The operator: the table is full.
    #[error("the table of volumes would take {bytes} bytes; the metadata region holds {MAX_CONTENT_BYTES}")]
    TooLarge {
        /// What it would take.
        bytes: usize,
    },
    /// The caller: the random bits gave an identity that another volume has.
    #[error("the identity drawn for volume \"{0}\" is taken: draw another")]
    IdentityTaken(String),
}

impl Metadata {
    /// The blocks of a slot, header first: write the content and the header in any order, then flush. They belong into
    /// slot `update` mod 2.
    pub fn encode(&self, array: Uuid, update: u64) -> Result<Vec<Block>, MetadataError> {
        let content = self.content();
        if content.len() > MAX_CONTENT_BYTES {
            return Err(MetadataError::TooLarge { bytes: content.len() });
        }
        let mut blocks = vec![ZERO_BLOCK; 1 + content.len().div_ceil(BLOCK)];
        let mut to = Writer::new(&mut blocks[0]);
        to.bytes(&MAGIC).u32_le(0).u16_le(VERSION).u16_le(0).bytes(&array.0);
        to.u64_le(update).u32_le(content.len() as u32).u32_le(crc32c::crc32c(&content));
        put_crc(&mut blocks[0]);
        for (block, part) in blocks[1..].iter_mut().zip(content.chunks(BLOCK)) {
            block[..part.len()].copy_from_slice(part);
        }
        Ok(blocks)
    }

    /// Reads a slot, of which there may be more blocks than it uses. Returns its update and what it says.
    pub fn decode(array: Uuid, blocks: &[Block]) -> Result<(u64, Self), MetadataError> {
        let cut = MetadataError::Damaged("it ends before its content does");
        let (header, content) = blocks.split_first().ok_or(cut.clone())?;
        if header[..8] != MAGIC {
            return Err(MetadataError::NotMetadata);
        }
        if !verified_crc(header) {
            return Err(MetadataError::Damaged("the header's checksum is wrong"));
        }
        let mut from = Reader::new(&header[12..48]);
        let mut fields = || {
            let (version, _) = (from.u16_le()?, from.u16_le()?);
            Ok((version, Uuid(from.array()?), from.u64_le()?, from.u32_le()? as usize, from.u32_le()?))
        };
        let (version, of, update, length, crc) = fields()
            .map_err(|base::cursor::Truncated| MetadataError::Damaged("the header ends before its fields do"))?;
        if version != VERSION {
            return Err(MetadataError::Version(version));
        }
        if of != array {
            return Err(MetadataError::OtherArray(of));
        }
        if length > MAX_CONTENT_BYTES {
            return Err(MetadataError::Malformed(format!("{length} bytes of content are more than the region holds")));
        }
        // Nobody counts so far, and the next update must have room.
        if update > journal::MAX_COUNT {
            return Err(MetadataError::Malformed("its update is higher than anybody counts".into()));
        }
        let bytes = content.as_flattened().get(..length).ok_or(cut)?;
        if crc32c::crc32c(bytes) != crc {
            return Err(MetadataError::Damaged("the content's checksum is wrong"));
        }
        let metadata: Self =
            serde_json::from_slice(bytes).map_err(|error| MetadataError::Malformed(error.to_string()))?;
        metadata.check_records()?;
        Ok((update, metadata))
    }

    /// The newest of several slots, with its place among them and its update; if none is good, the most telling error. A
    /// slot of a newer format is never passed over in favour of an older one.
    pub fn newest<'a>(
        array: Uuid,
        slots: impl IntoIterator<Item = &'a [Block]>,
    ) -> Result<(usize, u64, Self), MetadataError> {
        let mut best: Result<(usize, u64, Self), _> = Err(MetadataError::NotMetadata);
        for (place, slot) in slots.into_iter().enumerate() {
            match (Self::decode(array, slot), &best) {
                (Err(error @ MetadataError::Version(_)), _) => return Err(error),
                (Ok((update, _)), Ok((_, newest, _))) if update <= *newest => {}
                (Ok((update, metadata)), _) => best = Ok((place, update, metadata)),
                (Err(error), Err(MetadataError::NotMetadata)) => best = Err(error),
                (Err(_), _) => {}
            }
        }
        best
    }

    /// Whether the volumes lie within the array in whole chunks: to be asked once the geometry is known.
    pub fn check(&self, geometry: &Geometry) -> Result<(), MetadataError> {
        let chunk = u64::from(geometry.chunk_blocks());
        for volume in &self.volumes {
            for extent in &volume.extents {
                let whole = extent.start.is_multiple_of(chunk) && extent.blocks.is_multiple_of(chunk);
                if !whole || extent.start.saturating_add(extent.blocks) > geometry.blocks() {
                    let name = &volume.name;
                    return Err(MetadataError::Malformed(format!(
                        "{} blocks of volume \"{name}\" at block {} are no whole chunks of the array",
                        extent.blocks, extent.start
                    )));
                }
            }
        }
        Ok(())
    }

    /// The volume of a name, deleted ones aside.
    pub fn find(&self, name: &str) -> Option<&VolumeRecord> {
        self.volumes.iter().find(|volume| volume.name == name && volume.state != VolumeState::Cleaning)
    }

    /// The volume of a number, deleted or not.
    pub fn by_id(&self, id: u32) -> Option<&VolumeRecord> {
        self.volumes.iter().find(|volume| volume.id == id)
    }

    /// Blocks that belong to no volume, deleted ones included.
    pub fn free_blocks(&self, geometry: &Geometry) -> u64 {
        allocate::gaps(self.extents(), geometry).iter().map(|gap| gap.blocks).sum()
    }

    /// Blocks of deleted volumes that are not free yet.
    pub fn cleaning_blocks(&self) -> u64 {
        let deleted = self.volumes.iter().filter(|volume| volume.state == VolumeState::Cleaning);
        deleted.flat_map(|volume| &volume.extents).map(|extent| extent.blocks).sum()
    }

    /// Makes a volume with all its space, in whole chunks so that no two volumes share one, and in whole chunk rows if there are.
    /// `random` becomes its identity. The change counts once it is durable; on an error nothing has changed.
    pub fn create_volume(
        &mut self,
        geometry: &Geometry,
        VolumeSpec { name, blocks, logical }: VolumeSpec<'_>,
        random: [u64; 2],
        origin: Origin,
    ) -> Result<&VolumeRecord, MetadataError> {
        if !is_name(name) {
            return Err(MetadataError::Name(name.into()));
        }
        if self.volumes.iter().any(|volume| volume.name == name) {
            return Err(MetadataError::NameTaken(name.into()));
        }
        if blocks == 0 {
            return Err(MetadataError::Empty(name.into()));
        }
        let uuid = Uuid::from_random(random);
        let eui64 = eui64_of(uuid);
        if self.volumes.iter().any(|volume| volume.uuid == uuid || volume.eui64 == eui64) {
            return Err(MetadataError::IdentityTaken(name.into()));
        }
        let extents = self.allocate(geometry, name, blocks)?;
        let id =
            self.volumes.iter().map(|volume| volume.id.saturating_add(1)).fold(self.next_volume_id.max(1), u32::max);
        if id == u32::MAX {
            return Err(MetadataError::Malformed("there is no volume number left".into()));
        }
        let (nguid, name, later) = (nguid_of(uuid), name.to_owned(), LaterFields::new());
        self.volumes.push(VolumeRecord {
            id,
            name,
            uuid,
            nguid,
            eui64,
            blocks,
            logical,
            extents,
            origin,
            key_slot: None,
            state: VolumeState::Ready,
            exports: Vec::new(),
            later,
        });
        let before = core::mem::replace(&mut self.next_volume_id, id + 1);
        let bytes = self.content().len();
        if bytes > MAX_CONTENT_BYTES - DELETIONS_BYTES {
            self.volumes.pop();
            self.next_volume_id = before;
            return Err(MetadataError::TooLarge { bytes });
        }
        Ok(&self.volumes[self.volumes.len() - 1])
    }

    fn content(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the keys are text, and writing to memory does not fail")
    }

    fn extents(&self) -> impl Iterator<Item = ExtentRecord> {
        self.volumes.iter().flat_map(|volume| volume.extents.iter().copied())
    }

    /// What must hold whatever the geometry: a right checksum proves who wrote it last, not that it was right.
    fn check_records(&self) -> Result<(), MetadataError> {
        for (at, volume) in self.volumes.iter().enumerate() {
            let wrong = |what: &str| Err(MetadataError::Malformed(format!("volume {}: {what}", volume.id)));
            if !is_name(&volume.name) {
                return wrong("its name is no name");
            }
            if volume.id == 0 || volume.uuid.is_nil() || volume.eui64 == 0 || volume.nguid == [0; 16] {
                return wrong("an identity is zero");
            }
            let same = |other: &VolumeRecord| {
                other.id == volume.id
                    || other.uuid == volume.uuid
                    || other.eui64 == volume.eui64
                    || other.nguid == volume.nguid
                    || other.name == volume.name
            };
            if self.volumes[..at].iter().any(same) {
                return wrong("another volume has its name or identity");
            }
            if volume.extents.len() > MAX_EXTENTS {
                return wrong("it lies in too many pieces");
            }
            let held = volume.extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.blocks));
            if volume.blocks == 0 || held.is_none_or(|held| held < volume.blocks) {
                return wrong("its extents do not hold its blocks");
            }
        }
        let mut extents: Vec<ExtentRecord> = self.extents().collect();
        extents.sort_unstable_by_key(|extent| extent.start);
        let mut end = 0;
        for extent in extents {
            if extent.blocks == 0 || extent.start < end {
                return Err(MetadataError::Malformed(format!(
                    "the extent at block {} overlaps or is empty",
                    extent.start
                )));
            }
            end = extent
                .start
                .checked_add(extent.blocks)
                .ok_or(MetadataError::Malformed("an extent has no end".into()))?;
        }
        Ok(())
    }
}

/// The rule of the configuration's names.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= MAX_NAME_BYTES
        && text.bytes().all(inner)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// An EUI-64 made of a random UUID: its halves added without carry, so that the fixed bits of one meet random bits of the
/// other. No registered organisation is claimed: in the first byte the bit for *locally administered* is set and the one
/// for *group* is clear (IEEE 802c, clause 8.2), which also keeps it from being zero.
fn eui64_of(uuid: Uuid) -> u64 {
    let (high, low) = halves(uuid);
    (high ^ low) & !(0x03 << 56) | 0x02 << 56
}

/// NGUID: eight bytes of vendor extension, then an EUI-64 (NVM Command Set Specification, Identify Namespace, NGUID).
fn nguid_of(uuid: Uuid) -> [u8; 16] {
    (u128::from(halves(uuid).0) << 64 | u128::from(eui64_of(uuid))).to_be_bytes()
}

fn halves(uuid: Uuid) -> (u64, u64) {
    let bits = u128::from_be_bytes(uuid.0);
    ((bits >> 64) as u64, bits as u64)
}
