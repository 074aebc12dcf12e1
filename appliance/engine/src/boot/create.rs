//! A new array. Regions and log lanes are written and flushed first and superblocks last, members after the log, so that an
//! array that was made half is none: what it leaves behind bears no superblock that a majority shares.

use base::ids::{DeviceBlock, DeviceId};
use base::sector::LogicalBlock;
use base::uuid::Uuid;
use base::{Block, ZERO_BLOCK};
use journal::{LogIdentity, LogLayout, LogMode, LogSuperblock, format_lane, slot_of};
use ports::{DeviceError, SyncDevice};
use raid::{
    CopyEntry, Geometry, Level, LogFate, MemberEntry, MemberLayout, Metadata, Origin, State, Superblock, VolumeSpec,
    ZoneBits, superblock_block,
};

use super::BootError;
use crate::array::FORMAT_EPOCH;

/// A volume to be carved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateVolume {
    /// Its name, unique in the array.
    pub name: String,
    /// Its size in blocks.
    pub blocks: u64,
    /// In what units hosts address it.
    pub logical: LogicalBlock,
}

impl CreateVolume {
    pub(super) fn spec(&self) -> VolumeSpec<'_> {
        VolumeSpec { name: &self.name, blocks: self.blocks, logical: self.logical }
    }
}

/// An array to be made.
#[derive(Clone, Debug)]
pub struct CreateArray {
    /// Its name.
    pub name: String,
    /// How redundancy is arranged.
    pub level: Level,
    /// The members in slot order.
    pub members: Vec<DeviceId>,
    /// The devices of the log, a copy on each; none of an array without a log.
    pub copies: Vec<DeviceId>,
    /// Blocks of a chunk.
    pub chunk_blocks: u32,
    /// Lanes of the log.
    pub lanes: u16,
    /// When writes are acknowledged.
    pub mode: LogMode,
    /// Whether checksums of all blocks are kept; they need a log.
    pub checksums: bool,
    /// Whether all members are known to hold nothing but zeros: their zones start initialised.
    pub known_zero: bool,
    /// Its volumes.
    pub volumes: Vec<CreateVolume>,
}

/// Everything about a new array that can be refused, worked out before anything is written.
struct Plan {
    geometry: Geometry,
    layouts: Vec<MemberLayout>,
    /// None without a log.
    log_layout: Option<LogLayout>,
    metadata: Metadata,
}

/// Makes an array on devices whose content does not matter. `entropy` gives random bits for its identities.
pub fn create_array<D: SyncDevice>(
    devices: &mut [Option<D>],
    spec: &CreateArray,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<Uuid, BootError> {
    let mut uuid = || Uuid::from_random([entropy(), entropy()]);
    let array = uuid();
    let entry = |_| MemberEntry { uuid: uuid(), state: State::Active };
    let members: Vec<MemberEntry> = spec.members.iter().map(entry).collect();
    let copy_uuids: Vec<Uuid> = spec.copies.iter().map(|_| uuid()).collect();
    let generation = u128::from(entropy()) << 64 | u128::from(entropy());
    let plan = plan(devices, spec, entropy)?;
    let identity = LogIdentity { array, generation };

    if let Some(layout) = plan.log_layout {
        write_log(devices, spec, (&members, layout), identity, &copy_uuids)?;
    }

    let mut initialised = ZoneBits::new(array, plan.geometry.zones(), spec.known_zero);
    let bitmap_blocks = ZoneBits::blocks_for(plan.geometry.zones()) as usize;
    let slots: Vec<usize> = (0..bitmap_blocks).map(|block| initialised.advance(block)).collect();
    let mut dirty = ZoneBits::dirty(array, plan.geometry.zones());
    (0..bitmap_blocks).for_each(|block| _ = dirty.advance(block));
    let mut missed = ZoneBits::missed(array, plan.geometry.zones());
    (0..bitmap_blocks).for_each(|block| _ = missed.advance(block));
    for (at, &device) in spec.members.iter().enumerate() {
        let layout = &plan.layouts[at];
        let mut device = Writer::new(devices, device)?;
        device.write(superblock_block(0), &[ZERO_BLOCK])?;
        device.write(superblock_block(1), &[ZERO_BLOCK])?;
        device.flush()?;
        for (block, &slot) in slots.iter().enumerate() {
            let mut bits = ZERO_BLOCK;
            initialised.encode(block, &mut bits);
            device.write(layout.bitmap_block(block, slot), &[bits])?;
            dirty.encode(block, &mut bits);
            let place = layout.dirty_block(block, dirty.slot(block)).expect("a new member keeps them");
            device.write(place, &[bits])?;
            missed.encode(block, &mut bits);
            let place = layout.missed_block(block, missed.slot(block)).expect("a new member keeps them");
            device.write(place, &[bits])?;
        }
        device.write(layout.metadata_block(0), &[ZERO_BLOCK])?;
        device.write(layout.metadata_block(1), &encode(&plan.metadata, array, 1, &spec.name)?)?;
        device.flush()?;
    }
    for (at, &device) in spec.members.iter().enumerate() {
        let superblock = Superblock {
            compatible: 0,
            array,
            name: spec.name.clone(),
            slot: at as u8,
            geometry: plan.geometry,
            geometry_epoch: 0,
            growth: None,
            epoch: 1,
            update: 2,
            log_generation: if spec.copies.is_empty() { 0 } else { generation },
            members: members.clone(),
            copies: copy_uuids.iter().map(|&uuid| CopyEntry::active(uuid)).collect(),
            scrub: None,
            log_fate: LogFate::Kept,
            away: None,
            layout: plan.layouts[at],
            controller_ids: (1, u16::MAX),
            fencing_epoch: 0,
            later_regions: Vec::new(),
        };
        let mut device = Writer::new(devices, device)?;
        for superblock in [Superblock { update: 1, ..superblock.clone() }, superblock] {
            let mut block = ZERO_BLOCK;
            superblock.encode(&mut block);
            device.write(superblock_block(superblock.update), &[block])?;
            device.flush()?;
        }
    }
    Ok(array)
}

/// Writes the copies of a log: lanes first, superblocks last.
fn write_log<D: SyncDevice>(
    devices: &mut [Option<D>],
    spec: &CreateArray,
    (members, layout): (&[MemberEntry], LogLayout),
    identity: LogIdentity,
    copy_uuids: &[Uuid],
) -> Result<(), BootError> {
    for (at, &device) in spec.copies.iter().enumerate() {
        let superblock = LogSuperblock {
            identity,
            compatible: 0,
            copy: copy_uuids[at],
            copy_index: at as u16,
            copy_count: spec.copies.len() as u16,
            epoch: 1,
            members: u32::MAX >> (u32::BITS as usize - members.len()),
            member_uuids: raid::member_uuids(members),
            geometry_epoch: 0,
            incarnation: 1,
            mode: spec.mode,
            joining: false,
            update: 2,
            layout,
            later_regions: Vec::new(),
        };
        let mut device = Writer::new(devices, device)?;
        // The other place may hold a superblock of an earlier log with a higher update.
        device.write(LogLayout::superblock_block(slot_of(0)), &[ZERO_BLOCK])?;
        device.write(LogLayout::superblock_block(slot_of(1)), &[ZERO_BLOCK])?;
        device.flush()?;
        for lane in (0..layout.lanes()).map(base::ids::LaneId) {
            let (blocks, _) = format_lane(&layout, &identity, lane, 1, FORMAT_EPOCH, 0);
            for (place, block) in &blocks {
                device.write(*place, core::slice::from_ref(block))?;
            }
        }
        device.flush()?;
        // In both places: either may become unreadable before it is written again.
        for superblock in [LogSuperblock { update: 1, ..superblock.clone() }, superblock] {
            let mut block = ZERO_BLOCK;
            superblock.encode(&mut block);
            device.write(LogLayout::superblock_block(slot_of(superblock.update)), &[block])?;
            device.flush()?;
        }
    }
    Ok(())
}

/// Works everything out that may be refused.
fn plan<D: SyncDevice>(
    devices: &[Option<D>],
    spec: &CreateArray,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<Plan, BootError> {
    let impossible = |what: String| BootError::Impossible { array: spec.name.clone(), what };
    if spec.copies.len() > raid::superblock::MAX_COPIES {
        return Err(impossible(format!("a log has at most {} devices", raid::superblock::MAX_COPIES)));
    }
    if spec.name.is_empty() || spec.name.len() > raid::superblock::MAX_NAME_BYTES {
        return Err(impossible(format!("a name has 1 to {} bytes", raid::superblock::MAX_NAME_BYTES)));
    }
    if spec.checksums && spec.copies.is_empty() {
        let what = "checksums need a log: without one a crash would leave blocks that do not match theirs";
        return Err(impossible(what.to_owned()));
    }
    let size = |device: DeviceId| {
        devices[device.index()].as_ref().map(SyncDevice::blocks).ok_or(BootError::DeviceLost { device })
    };
    let all = || spec.members.iter().chain(&spec.copies);
    if let Some((_, twice)) = all().enumerate().find(|(at, device)| all().take(*at).any(|before| before == *device)) {
        return Err(impossible(format!(
            "device {twice} is named twice: each member and each copy of the log has its own"
        )));
    }
    let members = u8::try_from(spec.members.len()).map_err(|_| {
        impossible(format!("it has at most {} members, not {}", raid::level::MAX_MEMBERS, spec.members.len()))
    })?;
    // The zone's size follows from the chunk alone.
    let probe = Geometry::new(spec.level, members, spec.chunk_blocks, u64::MAX)
        .map_err(|error| impossible(error.to_string()))?;
    let mut layouts = Vec::new();
    for &device in &spec.members {
        let layout = MemberLayout::for_device(size(device)?, probe.zone_stripes(), spec.checksums)
            .map_err(|error| impossible(format!("device {device}: {error}")))?;
        layouts.push(layout);
    }
    let stripes = layouts.iter().map(|layout| layout.data.blocks).min().unwrap_or(0);
    let geometry = Geometry::new(spec.level, members, spec.chunk_blocks, stripes)
        .map_err(|error| impossible(error.to_string()))?;
    let mut smallest = u64::MAX;
    for &device in &spec.copies {
        smallest = smallest.min(size(device)?);
    }
    let log_layout = if spec.copies.is_empty() {
        None
    } else {
        let layout = LogLayout::for_device(smallest, spec.lanes);
        Some(layout.map_err(|error| impossible(format!("its log: {error}")))?)
    };
    let mut metadata = Metadata::default();
    for volume in &spec.volumes {
        let random = [entropy(), entropy()];
        metadata
            .create_volume(&geometry, volume.spec(), random, Origin::Config)
            .map_err(|error| impossible(format!("volume {}: {error}", volume.name)))?;
    }
    Ok(Plan { geometry, layouts, log_layout, metadata })
}

/// The blocks of a volume table.
pub(super) fn encode(metadata: &Metadata, array: Uuid, update: u64, name: &str) -> Result<Vec<Block>, BootError> {
    metadata
        .encode(array, update)
        .map_err(|error| BootError::Impossible { array: name.to_owned(), what: format!("its volume table: {error}") })
}

/// A device, with errors that name it.
pub(super) struct Writer<'a, D> {
    id: DeviceId,
    device: &'a mut D,
}

impl<'a, D: SyncDevice> Writer<'a, D> {
    pub(super) fn new(devices: &'a mut [Option<D>], id: DeviceId) -> Result<Self, BootError> {
        let device = devices[id.index()].as_mut().ok_or(BootError::DeviceLost { device: id })?;
        Ok(Self { id, device })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.device.blocks()
    }

    /// Reads what other members have, too: a block that cannot be read comes as zeros, which are valid nowhere. How many.
    pub(super) fn read_around(&mut self, start: DeviceBlock, into: &mut [Block]) -> Result<usize, BootError> {
        match self.device.read(start, into) {
            Ok(()) => return Ok(0),
            Err(DeviceError::Unreadable) => {}
            Err(error) => return Err(BootError::Device { device: self.id, error }),
        }
        let mut unreadable = 0;
        for (at, block) in (start.0..).map(DeviceBlock).zip(into) {
            match self.device.read(at, core::slice::from_mut(block)) {
                Ok(()) => {}
                Err(DeviceError::Unreadable) => {
                    *block = ZERO_BLOCK;
                    unreadable += 1;
                }
                Err(error) => return Err(BootError::Device { device: self.id, error }),
            }
        }
        Ok(unreadable)
    }

    pub(super) fn write(&mut self, start: DeviceBlock, blocks: &[Block]) -> Result<(), BootError> {
        self.device.write(start, blocks).map_err(|error| BootError::Device { device: self.id, error })
    }

    pub(super) fn flush(&mut self) -> Result<(), BootError> {
        self.device.flush().map_err(|error| BootError::Device { device: self.id, error })
    }
}
