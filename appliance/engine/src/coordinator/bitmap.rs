//! Bits of the bitmap of initialised zones on their way to the members. A bit is told once every member of the map in force
//! has it.

use base::ids::ArrayId;
use ports::Ports;
use raid::ZoneBits;

use super::persist::{Target, write};
use super::{Change, Coordinator};
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
        let slot_in_pair = array.array.initialised.advance(block);
        for slot in 0..array.array.map.members.len() {
            let (Some(member), Some(superblock)) = (array.array.map.members[slot], &array.array.superblocks[slot])
            else {
                continue;
            };
            let place = (member.device, superblock.layout.bitmap_block(block, slot_in_pair));
            let buffer = self.spare.pop().expect("enough were counted");
            array.array.initialised.encode(block, ports.bytes_mut(buffer.id()));
            write(ports, operations, id, Target::Member(slot as u8), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
    }
}
