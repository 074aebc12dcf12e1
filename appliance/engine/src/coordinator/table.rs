//! An array's volume table on its way to the members. It says when all members of the map in force have it; what is written
//! there and why is [`super::volumes`]' business.

use base::BLOCK;
use base::ids::{ArrayId, DeviceBlock, Slot};
use journal::slot_of;
use ports::{DeviceOp, Ports};
use raid::Metadata;
use raid::metadata::METADATA_BLOCKS;

use super::persist::{Target, pack};
use super::{Change, Coordinator};
use crate::array::Purpose;
use crate::operations::Operations;

/// Buffers that are set aside for it: one table is written at a time, and all members are written from the same.
pub const TABLE_BUFFERS: usize = METADATA_BLOCKS;

const _: () = assert!(TABLE_BUFFERS <= ports::MAX_DEVICE_BLOCKS, "a table is written in one piece");

impl Coordinator {
    /// Writes what an array's table is to be, at the number behind that of the one in force. A table that was not in force
    /// is written again at the same number: it then says the same.
    pub(super) fn write_table<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        next: &Metadata,
    ) {
        let array = &mut self.arrays[id.index()];
        let update = array.array.table_update + 1;
        let blocks = next.encode(array.array.map.uuid, update).expect("the change looked for room");
        for (buffer, block) in self.table_buffers.iter().zip(&blocks) {
            let bytes: &mut [u8; BLOCK] = ports.bytes_mut(buffer.id());
            bytes.copy_from_slice(block);
        }
        array.change = Change::Tabling;
        for (slot, superblock) in (0u8..).map(Slot).zip(&array.array.superblocks) {
            let (Some(member), Some(superblock)) = (array.array.map.members[slot.index()], superblock) else {
                continue;
            };
            let start: DeviceBlock = superblock.layout.metadata_block(slot_of(update));
            let purpose = Purpose::Coordinator { write: pack(id, Target::Member(slot.0)) };
            let buffers = self.table_buffers[..blocks.len()].iter().map(ports::Buffer::id);
            operations.start(ports, (member.device, start), DeviceOp::WriteDurable, buffers, purpose);
            array.unanswered += 1;
        }
    }
}
