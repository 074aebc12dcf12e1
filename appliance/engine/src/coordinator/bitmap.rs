//! Bits of initialised, of dirty and of missed zones on their way to the members. A bit is told once every member of the map in
//! force has it.

use std::collections::VecDeque;

use base::Block;
use base::ids::{ArrayId, DeviceBlock, ShardId, ZoneId};
use ports::Ports;
use raid::{MemberLayout, ZoneBits};

use super::persist::{Target, write};
use super::{Change, Coordinated, CoordinatedArray, Coordinator};
use crate::array::Purpose;
use crate::message::Message;
use crate::operations::Operations;

impl Coordinated {
    /// How many zones members that are out have missed.
    pub(super) fn missed_zones(&self) -> u64 {
        let is_new = |(_, zone): &&(ShardId, ZoneId)| !self.array.missed.is_set(*zone);
        self.array.missed.count() + self.pending_missed.iter().filter(is_new).count() as u64
    }
}

impl Coordinator {
    /// Makes bits durable: all that wait for the same block of the bitmap go together.
    pub(super) fn record_zones<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let Some(&(_, first)) = array.pending_zones.front() else { return };
        let block = ZoneBits::block_of(first);
        for (shard, zone) in take_of_block(&mut array.pending_zones, block, |(_, zone)| *zone) {
            array.array.initialised.set(zone);
            array.recording_zones.push((shard, zone));
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
        for (shard, zone, dirty) in take_of_block(&mut array.pending_dirty, block, |(_, zone, _)| *zone) {
            if dirty {
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

    /// Makes durable which zones members that are out have missed, of all that wait for the same block; or a block of which
    /// nobody is out any more to have missed anything.
    pub(super) fn note_missed<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let first = array.pending_missed.front().map(|(_, zone)| ZoneBits::block_of(*zone));
        let Some(block) = first.or_else(|| array.forgiven.pop()) else { return };
        for (shard, zone) in take_of_block(&mut array.pending_missed, block, |(_, zone)| *zone) {
            array.array.missed.set(zone);
            array.marking_zones.push((shard, zone));
        }
        array.change = Change::Marking;
        let slot = array.array.missed.advance(block);
        self.write_bits(ports, operations, id, |array, layout, out| {
            array.missed.encode(block, out);
            layout.missed_block(block, slot)
        });
    }

    /// A block of missed zones has been written, or not.
    pub(super) fn zones_marked(&mut self, id: ArrayId, failed: bool) {
        let array = &mut self.arrays[id.index()];
        for (shard, zone) in array.marking_zones.drain(..) {
            if failed {
                array.pending_missed.push_back((shard, zone));
            } else {
                self.messages.push_back((shard, Message::ZoneMarked { array: id, zone }));
            }
        }
    }

    /// A map is in force: if nobody is out, nothing was missed.
    pub(super) fn away_published(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        if array.array.map.away.is_some() {
            return;
        }
        array.pending_missed.clear();
        let missed = &mut array.array.missed;
        array.forgiven.extend(missed.blocks_in_use());
        missed.clear_all();
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
            let Some(at) = at else {
                // Who has no place for the bits needs none.
                self.spare.push(buffer);
                continue;
            };
            let place = (member.device, at);
            write(ports, operations, id, Target::Member(slot as u8), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
    }
}

/// Takes what waits for a block of the bitmap, in its order; what waits for others stays.
fn take_of_block<T>(queue: &mut VecDeque<T>, block: usize, zone_of: impl Fn(&T) -> ZoneId) -> impl Iterator<Item = T> {
    // Each is looked at once: whoever stays goes behind again, and so the order stays.
    (0..queue.len()).filter_map(move |_| {
        let one = queue.pop_front()?;
        if ZoneBits::block_of(zone_of(&one)) == block {
            return Some(one);
        }
        queue.push_back(one);
        None
    })
}
