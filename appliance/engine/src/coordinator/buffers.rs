//! Buffers that the coordinator sets aside, so that nothing it has to write ever waits for hosts.

use journal::MAX_COPIES;
use ports::Ports;

use super::attach::ATTACH_BLOCKS;
use super::join::JOIN_BLOCKS;
use super::persist::take_back;
use super::table::TABLE_BUFFERS;
use super::{Change, Coordinated, Coordinator};
use crate::array::Purpose;
use crate::limits::MEMBERS_TO_COME;
use crate::operations::Operations;

impl Coordinator {
    /// Buffers that it sets aside for arrays of so many members: one for each and for each copy that the log can have, what
    /// preparing one drive and one log device of each takes, and a volume table.
    pub fn set_aside_blocks(members: impl Iterator<Item = usize>) -> usize {
        members.map(|members| members + MEMBERS_TO_COME + MAX_COPIES + JOIN_BLOCKS + ATTACH_BLOCKS).sum::<usize>()
            + TABLE_BUFFERS
    }

    pub(crate) fn prepare<P: Ports>(&mut self, ports: &mut P) {
        let members = |array: &Coordinated| array.array.superblocks.len();
        let wanted = Self::set_aside_blocks(self.arrays.iter().map(members)) - TABLE_BUFFERS;
        while self.spare.len() < wanted {
            self.spare.push(ports.alloc().expect("the pool was sized with what the coordinator sets aside"));
        }
        while self.table_buffers.len() < TABLE_BUFFERS {
            self.table_buffers.push(ports.alloc().expect("the pool was sized with what the coordinator sets aside"));
        }
    }

    /// Gives back what it set aside, after the last turn, but for what a device that was given up may still read.
    pub(crate) fn release<P: Ports>(&mut self, ports: &mut P, operations: &Operations<Purpose>) {
        for array in &mut self.arrays {
            if let Some(attaching) = &mut array.attaching {
                array.buffers.append(attaching.buffers());
            }
            take_back(&mut array.buffers, &mut self.spare, operations);
            if let Change::Joining(joining) = &mut array.change {
                take_back(joining.buffers(), &mut self.spare, operations);
            }
        }
        for buffer in self.spare.drain(..).chain(self.table_buffers.drain(..)) {
            ports.free(buffer);
        }
    }
}
