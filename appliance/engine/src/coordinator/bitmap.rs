//! Bits of initialised and of dirty zones on their way to the members. A bit is told once every member of the map in force
//! has it.

use base::Block;
use base::ids::{ArrayId, DeviceBlock};
use ports::Ports;
use raid::{MemberLayout, ZoneBits};

use super::persist::{Target, write};
use super::{Change, CoordinatedArray, Coordinator};
use crate::array::Purpose;
use crate::operations::Operations;

impl Coordinator {
    /// Makes bits durable: all that wait for the same block of the bitmap go together.
    pub(super) fn record_zones<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let Some(&(_, first)) = array.pending_zones.front() else { return };
        let block = ZoneBits::block_of(first);
        for _ in 0..array.pending_zones.len() {
            let (shard, zone) = array.pending_zones.pop_front().expect("as many as there were");
            if ZoneBits::block_of(zone) == block {
                array.array.initialised.set(zone);
                array.recording_zones.push((shard, zone));
            } else {
                array.pending_zones.push_back((shard, zone));
            }
        }
        array.change = Change::Recording;
        let slot = array.array.initialised.advance(block);
        self.write_bits(ports, operations, id, |array, layout, out| {
            array.initialised.encode(block, out);
            Some(layout.bitmap_block(block, slot))
        });
    }

    /// Makes durable which zones are dirty, of all that wait for the same block, each in the order in which its owner spoke.
    pub(super) fn note_dirty<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let Some(&(_, first, _)) = array.pending_dirty.front() else { return };
        let block = ZoneBits::block_of(first);
        for _ in 0..array.pending_dirty.len() {
            let (shard, zone, dirty) = array.pending_dirty.pop_front().expect("as many as there were");
            if ZoneBits::block_of(zone) != block {
                array.pending_dirty.push_back((shard, zone, dirty));
            } else if dirty {
                array.array.dirty.set(zone);
                array.noting_zones.push((shard, zone));
            } else {
                array.array.dirty.clear(zone);
            }
        }
        array.change = Change::Noting;
        let slot = array.array.dirty.advance(block);
        self.write_bits(ports, operations, id, |array, layout, out| {
            array.dirty.encode(block, out);
            layout.dirty_block(block, slot)
        });
    }

    /// Writes a block to every member of the map in force.
    fn write_bits<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        encode: impl Fn(&CoordinatedArray, &MemberLayout, &mut Block) -> Option<DeviceBlock>,
    ) {
        let array = &mut self.arrays[id.index()];
        for slot in 0..array.array.map.members.len() {
            let (Some(member), Some(superblock)) = (array.array.map.members[slot], &array.array.superblocks[slot])
            else {
                continue;
            };
            let buffer = self.spare.pop().expect("enough were counted");
            let at = encode(&array.array, &superblock.layout, ports.bytes_mut(buffer.id()));
            let place = (member.device, at.expect("who has no place for the bits needs none"));
            write(ports, operations, id, Target::Member(slot as u8), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
    }
}
