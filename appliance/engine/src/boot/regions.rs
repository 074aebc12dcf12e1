//! What members keep beside data: the bitmap of initialised zones and the volume table. All of it is read before anything
//! is written, so that an array that is refused is left as it was.
//!
//! Both formats have two places that are written in turns, and a power cut may leave the newest content on some members
//! only. What is served from then on relies on it; so members that are behind are given it *at its own number, in its own
//! place*, before anything newer is written. A new number instead would be written over the newest that such a member has,
//! and a member that loses the others later must not be left with what was true two writes ago. A member with a block that
//! cannot be read is behind by it, and gets it written again in the same way.

use base::ids::{DeviceBlock, DeviceId};
use base::{Block, ZERO_BLOCK};
use ports::SyncDevice;
use raid::metadata::METADATA_BLOCKS;
use raid::{Assembly, Initialised, Metadata, MetadataError, Origin};

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
    pub(super) initialised: Initialised,
    pub(super) metadata: Metadata,
    pub(super) table_update: u64,
    /// What brings members up that are behind.
    behind: Vec<Pending>,
    /// Newest bitmap blocks that lack bits which another member has: written when that other member's are safe.
    beside: Vec<Pending>,
    /// The next volume table.
    next: Vec<Pending>,
    /// What the operator should know.
    pub(super) notes: Vec<String>,
}

impl Regions {
    /// Reads both from the members that are used.
    pub(super) fn read<D: SyncDevice>(devices: &mut [Option<D>], assembly: &Assembly) -> Result<Self, BootError> {
        let geometry = &assembly.superblock.geometry;
        let initialised = Initialised::new(assembly.superblock.array, geometry.zones(), false);
        let mut regions = Self {
            initialised,
            metadata: Metadata::default(),
            table_update: 0,
            behind: Vec::new(),
            beside: Vec::new(),
            next: Vec::new(),
            notes: Vec::new(),
        };
        for block in 0..Initialised::blocks_for(geometry.zones()) as usize {
            regions.read_bitmap_block(devices, assembly, block)?;
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
        let mut found: Vec<[Block; 2]> = Vec::new();
        for member in assembly.members.iter().flatten() {
            let mut device = Writer::new(devices, member.device)?;
            let mut slots = [ZERO_BLOCK; 2];
            for (at, slot) in slots.iter_mut().enumerate() {
                let place = member.superblock.layout.bitmap_block(block, at);
                device.read_around(place, core::slice::from_mut(slot))?;
            }
            found.push(slots);
        }
        if !self.initialised.merge(block, found.iter().flatten()) {
            return Err(BootError::NoMetadata { array: assembly.superblock.name.clone() });
        }
        let (update, slot) = (self.initialised.update(block), self.initialised.slot(block));
        let mut united = ZERO_BLOCK;
        self.initialised.encode(block, &mut united);
        for (member, slots) in assembly.members.iter().flatten().zip(&found) {
            if slots[slot] == united {
                continue;
            }
            let start = member.superblock.layout.bitmap_block(block, slot);
            let pending = Pending { device: member.device, start, blocks: vec![united] };
            if self.initialised.update_in(block, &slots[slot]) == Some(update) {
                self.beside.push(pending);
            } else {
                self.behind.push(pending);
            }
        }
        Ok(())
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
            metadata.check(&assembly.superblock.geometry)?;
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
            let geometry = &assembly.superblock.geometry;
            match self.metadata.create_volume(geometry, &volume.name, volume.blocks, random, Origin::Config) {
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

/// The slot of a volume table's update.
const fn slot_of(update: u64) -> usize {
    (update & 1) as usize
}
