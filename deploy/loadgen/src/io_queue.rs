//! An I/O queue on one namespace: the commands of the NVM command set, of requests whose buffers it keeps. The caller
//! holds a request, fills its buffer, submits it, polls, takes the completion and releases the request.

use nvme::dataset::DatasetRange;
use nvme::entry::{FUSE_FIRST, FUSE_SECOND};
use nvme::opcode;

use crate::command;
use crate::error::HostError;
use crate::host::Namespace;
use crate::queue::Queue;
use crate::request::{Completion, Slot, Wait};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads blocks into the request's buffer.
    Read {
        /// The first block.
        lba: u64,
        /// How many.
        blocks: u32,
    },
    /// Writes blocks from the request's buffer.
    Write {
        /// The first block.
        lba: u64,
        /// How many.
        blocks: u32,
    },
    /// Makes blocks read as zeros.
    WriteZeroes {
        /// The first block.
        lba: u64,
        /// How many.
        blocks: u32,
    },
    /// Compares blocks with the request's buffer.
    Compare {
        /// The first block.
        lba: u64,
        /// How many.
        blocks: u32,
    },
    /// Makes ranges of blocks read as zeros: as many as said, in the request's buffer as [`nvme::dataset::DatasetRange`]s.
    Deallocate {
        /// How many ranges, 1 to 256.
        ranges: u32,
    },
    /// Makes durable what was acknowledged.
    Flush,
}

/// A connected I/O queue.
#[derive(Debug)]
pub struct IoQueue {
    queue: Queue,
    nsid: u32,
    block_bytes: u32,
}

impl IoQueue {
    pub(crate) const fn new(queue: Queue, namespace: &Namespace) -> Self {
        Self { queue, nsid: namespace.nsid, block_bytes: namespace.block_bytes }
    }

    /// Requests in flight.
    pub const fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    /// The most requests in flight.
    pub const fn depth(&self) -> usize {
        self.queue.depth()
    }

    /// Takes a free request, if there is one.
    pub fn hold(&mut self) -> Option<Slot> {
        self.queue.hold()
    }

    /// The buffer of a request that is held or done.
    ///
    /// # Panics
    /// If the request is free or in flight.
    pub fn buffer(&self, slot: Slot) -> &[u8] {
        self.queue.buffer(slot)
    }

    /// The buffer of a request that is held or done, to fill it.
    ///
    /// # Panics
    /// If the request is free or in flight.
    pub fn buffer_mut(&mut self, slot: Slot) -> &mut [u8] {
        self.queue.buffer_mut(slot)
    }

    /// Gives a request that is held or done back.
    ///
    /// # Panics
    /// If the request is free or in flight.
    pub fn release(&mut self, slot: Slot) {
        self.queue.release(slot);
    }

    /// Submits a request that is held or done; it leaves with the next poll at the latest.
    ///
    /// # Errors
    /// The connection is lost.
    ///
    /// # Panics
    /// If the request is free or in flight, or the blocks are none, more than 65536 or more than its buffer holds.
    pub fn submit(&mut self, slot: Slot, operation: Operation) -> Result<(), HostError> {
        let (opcode, lba, blocks, length) = match operation {
            Operation::Read { lba, blocks } => (opcode::READ, lba, blocks, self.bytes(blocks)),
            Operation::Write { lba, blocks } => (opcode::WRITE, lba, blocks, self.bytes(blocks)),
            Operation::Compare { lba, blocks } => (opcode::COMPARE, lba, blocks, self.bytes(blocks)),
            Operation::WriteZeroes { lba, blocks } => (opcode::WRITE_ZEROES, lba, blocks, 0),
            Operation::Deallocate { ranges } => {
                let length = ranges * DatasetRange::SIZE as u32;
                return self.queue.submit(slot, command::deallocate(self.nsid, ranges), length);
            }
            Operation::Flush => return self.queue.submit(slot, command::flush(self.nsid), 0),
        };
        assert!((1..=1 << 16).contains(&blocks), "NLB is a zero-based 16-bit number");
        self.queue.submit(slot, command::block_command(opcode, self.nsid, lba, blocks), length)
    }

    /// Submits two requests that are held or done as one compare and write: `compare` has what the blocks must hold, `write`
    /// what they are to hold then. Each is answered.
    ///
    /// # Errors
    /// The connection is lost.
    ///
    /// # Panics
    /// As [`IoQueue::submit`].
    pub fn submit_pair(&mut self, compare: Slot, write: Slot, lba: u64, blocks: u32) -> Result<(), HostError> {
        assert!((1..=1 << 16).contains(&blocks), "NLB is a zero-based 16-bit number");
        for (slot, opcode, fuse) in [(compare, opcode::COMPARE, FUSE_FIRST), (write, opcode::WRITE, FUSE_SECOND)] {
            let mut entry = command::block_command(opcode, self.nsid, lba, blocks);
            entry.flags = fuse;
            self.queue.submit(slot, entry, self.bytes(blocks))?;
        }
        Ok(())
    }

    const fn bytes(&self, blocks: u32) -> u32 {
        blocks.saturating_mul(self.block_bytes)
    }

    /// Sends what waits and takes what has come.
    ///
    /// # Errors
    /// The connection is lost, the target broke the protocol, or nothing has moved for a long time.
    pub fn poll(&mut self, wait: Wait) -> Result<(), HostError> {
        self.queue.poll(wait)
    }

    /// The next answered request; it stays the caller's until it is released.
    pub fn completed(&mut self) -> Option<Completion> {
        self.queue.completed()
    }
}
