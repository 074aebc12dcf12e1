//! What members keep beside data: bitmaps of zones and the volume table. All of it is read before anything
//! is written, so that an array that is refused is left as it was.
//!
//! Both formats have two places that are written in turns, and a power cut may leave the newest content on some members
//! only. What is served from then on relies on it; so members that are behind are given it *at its own number, in its own
//! place*, before anything newer is written. A new number instead would be written over the newest that such a member has,
//! and a member that loses the others later must not be left with what was true two writes ago. A member with a block that
//! cannot be read is behind by it, and gets it written again in the same way.

use base::ids::{DeviceBlock, DeviceId, ZoneId};
use base::{Block, ZERO_BLOCK};
use ports::SyncDevice;
use raid::metadata::METADATA_BLOCKS;
use raid::{Assembly, MemberLayout, Metadata, MetadataError, Origin, ZoneBits};

use super::BootError;
use super::create::{CreateVolume, Writer, encode};

/// Blocks that are still to be written to a device.
struct Pending {
    device: DeviceId,
    start: DeviceBlock,
    blocks: Vec<Block>,
}

/// Bitmap and volume table, as they are to be served.
pub(super) struct Regions {
    pub(super) initialised: ZoneBits,
    pub(super) dirty: ZoneBits,
    pub(super) missed: ZoneBits,
    pub(super) metadata: Metadata,
    pub(super) table_update: u64,
    /// What brings members up that are behind.
    behind: Vec<Pending>,
    /// Newest bitmap blocks that lack bits which another member has: written when that other member's are safe.
    beside: Vec<Pending>,
    /// What is new: the next volume table, zones that were missed.
    next: Vec<Pending>,
    /// What the operator should know.
    pub(super) notes: Vec<String>,
}

impl Regions {
    /// Reads both from the members that are used.
    pub(super) fn read<D: SyncDevice>(devices: &mut [Option<D>], assembly: &Assembly) -> Result<Self, BootError> {
        let geometry = &assembly.superblock.geometry;
        let array = assembly.superblock.array;
        let mut regions = Self {
            initialised: ZoneBits::new(array, geometry.zones(), false),
            dirty: ZoneBits::dirty(array, geometry.zones()),
            missed: ZoneBits::missed(array, geometry.zones()),
            metadata: Metadata::default(),
            table_update: 0,
            behind: Vec::new(),
            beside: Vec::new(),
            next: Vec::new(),
            notes: Vec::new(),
        };
        for block in 0..ZoneBits::blocks_for(geometry.zones()) as usize {
            regions.read_bitmap_block(devices, assembly, block)?;
            let Self { dirty, missed, behind, beside, .. } = &mut regions;
            let found = read_slots(devices, assembly, |layout, slot| layout.dirty_block(block, slot))?;
            take_newest(dirty, block, &found, behind, beside);
            let found = read_slots(devices, assembly, |layout, slot| layout.missed_block(block, slot))?;
            take_newest(missed, block, &found, behind, beside);
        }
        if !assembly.superblock.counts_dirty() {
            // What a log protects is not dirty, whatever became of the bits.
            regions.dirty.clear_all();
        }
        regions.read_table(devices, assembly)?;
        Ok(regions)
    }

    fn read_bitmap_block<D: SyncDevice>(
        &mut self,
        devices: &mut [Option<D>],
        assembly: &Assembly,
        block: usize,
    ) -> Result<(), BootError> {
        let found = read_slots(devices, assembly, |layout, slot| Some(layout.bitmap_block(block, slot)))?;
        if !self.initialised.merge(block, found.iter().flat_map(|found| &found.slots)) {
            return Err(BootError::NoMetadata { array: assembly.superblock.name.clone() });
        }
        bring_up(&self.initialised, block, &found, &mut self.behind, &mut self.beside);
        Ok(())
    }

    /// Says which zones members that are out have missed, if that is kept from now on (`away`): what was known, if it was kept
    /// before, and these. Nothing is written yet.
    pub(super) fn settle_missed(&mut self, assembly: &Assembly, away: bool, zones: impl Iterator<Item = ZoneId>) {
        let mut missed = self.missed.clone();
        if !away || assembly.superblock.away.is_none() {
            missed.clear_all();
        }
        zones.filter(|_| away).for_each(|zone| missed.set(zone));
        write_changed(&mut self.next, assembly, &self.missed, &mut missed, MemberLayout::missed_block);
        self.missed = missed;
    }

    /// No zone is dirty after all. Nothing is written yet.
    pub(super) fn settle_dirty(&mut self, assembly: &Assembly) {
        let mut clean = self.dirty.clone();
        clean.clear_all();
        write_changed(&mut self.next, assembly, &self.dirty, &mut clean, MemberLayout::dirty_block);
        self.dirty = clean;
    }

    fn read_table<D: SyncDevice>(&mut self, devices: &mut [Option<D>], assembly: &Assembly) -> Result<(), BootError> {
        let (array, name) = (assembly.superblock.array, &assembly.superblock.name);
        let mut found: Vec<Vec<Block>> = Vec::new();
        for member in assembly.members.iter().flatten() {
            let mut device = Writer::new(devices, member.device)?;
            for slot in 0..2 {
                let mut blocks = vec![ZERO_BLOCK; METADATA_BLOCKS];
                device.read_around(member.superblock.layout.metadata_block(slot), &mut blocks)?;
                found.push(blocks);
            }
        }
        let newest = Metadata::newest(array, found.iter().map(Vec::as_slice)).and_then(|(_, update, metadata)| {
            metadata.check(assembly.superblock.arrangement().space())?;
            Ok((update, metadata))
        });
        let (update, metadata) = newest.map_err(|error| match error {
            MetadataError::NotMetadata => BootError::NoMetadata { array: name.clone() },
            error => BootError::Metadata { array: name.clone(), error },
        })?;
        let slot = slot_of(update);
        let blocks = encode(&metadata, array, update, name)?;
        for (member, slots) in assembly.members.iter().flatten().zip(found.chunks_exact(2)) {
            let has = Metadata::decode(array, &slots[slot]);
            if has.is_ok_and(|(its_update, its_metadata)| its_update == update && its_metadata == metadata) {
                continue;
            }
            let start = member.superblock.layout.metadata_block(slot);
            self.behind.push(Pending { device: member.device, start, blocks: blocks.clone() });
        }
        (self.metadata, self.table_update) = (metadata, update);
        Ok(())
    }

    /// Adds volumes that are declared and missing; nothing is written yet.
    pub(super) fn add_volumes(
        &mut self,
        assembly: &Assembly,
        volumes: &[CreateVolume],
        entropy: &mut dyn FnMut() -> u64,
    ) -> Result<(), BootError> {
        let name = &assembly.superblock.name;
        let mut changed = false;
        for volume in volumes.iter() {
            if self.metadata.find(&volume.name).is_some() {
                continue;
            }
            let random = [entropy(), entropy()];
            let arrangement = assembly.superblock.arrangement();
            match self.metadata.create_volume(arrangement.space(), volume.spec(), random, Origin::Config) {
                Ok(_) => changed = true,
                // Only an appliance that serves can clean.
                Err(error @ MetadataError::NoSpace { cleaning: 1.., .. }) => {
                    self.notes.push(format!("{error}. It is made at a start after that"));
                }
                Err(error) => {
                    let what = format!("volume {}: {error}", volume.name);
                    return Err(BootError::Impossible { array: name.clone(), what });
                }
            }
        }
        if changed {
            self.table_update += 1;
            let blocks = encode(&self.metadata, assembly.superblock.array, self.table_update, name)?;
            for member in assembly.members.iter().flatten() {
                let start = member.superblock.layout.metadata_block(slot_of(self.table_update));
                self.next.push(Pending { device: member.device, start, blocks: blocks.clone() });
            }
        }
        Ok(())
    }

    /// Writes what is pending, each kind durably before the next.
    pub(super) fn make_durable<D: SyncDevice>(&mut self, devices: &mut [Option<D>]) -> Result<(), BootError> {
        for pending in [&mut self.behind, &mut self.beside, &mut self.next] {
            for Pending { device, start, blocks } in pending.iter() {
                Writer::new(devices, *device)?.write(*start, blocks)?;
            }
            let mut written: Vec<DeviceId> = pending.drain(..).map(|pending| pending.device).collect();
            written.sort_unstable();
            written.dedup();
            for device in written {
                Writer::new(devices, device)?.flush()?;
            }
        }
        Ok(())
    }
}

/// Has blocks of bits written, at their next number, that say otherwise than before.
fn write_changed(
    next: &mut Vec<Pending>,
    assembly: &Assembly,
    before: &ZoneBits,
    bits: &mut ZoneBits,
    place: impl Fn(&MemberLayout, usize, usize) -> Option<DeviceBlock>,
) {
    for block in 0..ZoneBits::blocks_for(bits.zones()) as usize {
        if bits.says_as(before, block) {
            continue;
        }
        let slot = bits.advance(block);
        let mut encoded = ZERO_BLOCK;
        bits.encode(block, &mut encoded);
        for member in assembly.members.iter().flatten() {
            let Some(start) = place(&member.superblock.layout, block, slot) else { continue };
            next.push(Pending { device: member.device, start, blocks: vec![encoded] });
        }
    }
}

/// Both slots of a block of bits, as a member has them.
struct FoundSlots {
    device: DeviceId,
    places: [DeviceBlock; 2],
    slots: [Block; 2],
}

/// Reads both slots of a block from the members that have them.
fn read_slots<D: SyncDevice>(
    devices: &mut [Option<D>],
    assembly: &Assembly,
    place: impl Fn(&MemberLayout, usize) -> Option<DeviceBlock>,
) -> Result<Vec<FoundSlots>, BootError> {
    let mut all = Vec::new();
    for member in assembly.members.iter().flatten() {
        let layout = &member.superblock.layout;
        let (Some(first), Some(second)) = (place(layout, 0), place(layout, 1)) else { continue };
        let mut found = FoundSlots { device: member.device, places: [first, second], slots: [ZERO_BLOCK; 2] };
        let mut device = Writer::new(devices, member.device)?;
        for (place, slot) in found.places.into_iter().zip(&mut found.slots) {
            device.read_around(place, core::slice::from_mut(slot))?;
        }
        all.push(found);
    }
    Ok(all)
}

/// Takes up a block of bits that are set and cleared, where members keep them. What nobody can say counts as set. Where the bits do
/// not count they are read for the number of the next write alone.
fn take_newest(
    bits: &mut ZoneBits,
    block: usize,
    found: &[FoundSlots],
    behind: &mut Vec<Pending>,
    beside: &mut Vec<Pending>,
) {
    let newest: Vec<&Block> = found.iter().filter_map(|found| bits.newest(block, &found.slots)).collect();
    if !found.is_empty() && !bits.clone().merge(block, newest.iter().copied()) {
        bits.set_all(block);
    } else {
        bits.merge(block, newest);
    }
    bring_up(bits, block, found, behind, beside);
}

/// Has the united bits written, at their own number, to the members that do not have them.
fn bring_up(bits: &ZoneBits, block: usize, found: &[FoundSlots], behind: &mut Vec<Pending>, beside: &mut Vec<Pending>) {
    let (update, slot) = (bits.update(block), bits.slot(block));
    let mut united = ZERO_BLOCK;
    bits.encode(block, &mut united);
    for FoundSlots { device, places, slots } in found.iter().filter(|found| found.slots[slot] != united) {
        let pending = Pending { device: *device, start: places[slot], blocks: vec![united] };
        let is_beside = bits.update_in(block, &slots[slot]) == Some(update);
        if is_beside { beside.push(pending) } else { behind.push(pending) }
    }
}

/// The slot of a volume table's update.
const fn slot_of(update: u64) -> usize {
    (update & 1) as usize
}
