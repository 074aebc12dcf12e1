//! What recovery reads from, and its read-ahead: a window of up to 256 blocks of one lane on every copy. Blocks that
//! cannot be read are told apart from blocks that are wrong. It interprets nothing.

use base::ids::{DeviceBlock, LaneId};
use base::{Block, ZERO_BLOCK};

use crate::{LogLayout, MAX_COPIES, READ_BLOCKS};

/// Some of the blocks asked for cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFault;

/// The copies of a log that membership allows to be read (rule L6). Implemented over devices, and over memory in tests.
pub trait LogReader {
    /// How many copies, 1 to [`MAX_COPIES`].
    fn copies(&self) -> usize;

    /// Fills `into`, at most [`READ_BLOCKS`] blocks, from consecutive blocks of one copy. After a fault its content does
    /// not count.
    fn read(&mut self, copy: usize, start: DeviceBlock, into: &mut [Block]) -> Result<(), ReadFault>;
}

/// A set of copies, one bit each.
pub type CopyMask = u32;

const _: () = assert!(MAX_COPIES <= CopyMask::BITS as usize);

/// The same blocks of a lane on all copies.
pub(crate) struct Window<'a, R> {
    reader: &'a mut R,
    layout: &'a LogLayout,
    lane: LaneId,
    copies: Vec<Side>,
    start: u64,
    length: usize,
}

struct Side {
    blocks: Vec<Block>,
    readable: Vec<bool>,
}

impl<'a, R: LogReader> Window<'a, R> {
    /// An empty window.
    pub(crate) fn new(reader: &'a mut R, layout: &'a LogLayout, lane: LaneId) -> Self {
        let side = || Side { blocks: vec![ZERO_BLOCK; READ_BLOCKS], readable: vec![false; READ_BLOCKS] };
        let copies = (0..reader.copies()).map(|_| side()).collect();
        Self { reader, layout, lane, copies, start: 0, length: 0 }
    }

    pub(crate) fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Sees to it that the window holds these positions, which do not cross the ring's end.
    pub(crate) fn load(&mut self, position: u64, length: usize) {
        assert!(length as u64 <= self.layout.blocks_to_ring_end(position) && length <= READ_BLOCKS);
        if position >= self.start && position + length as u64 <= self.start + self.length as u64 {
            return;
        }
        self.start = position;
        self.length = READ_BLOCKS.min(usize::try_from(self.layout.blocks_to_ring_end(position)).unwrap_or(READ_BLOCKS));
        let first = self.layout.ring_block(self.lane, position);
        for (copy, side) in self.copies.iter_mut().enumerate() {
            if self.reader.read(copy, first, &mut side.blocks[..self.length]).is_ok() {
                side.readable[..self.length].fill(true);
                continue;
            }
            // Some block of these cannot be read: find out which.
            for (at, block) in side.blocks[..self.length].iter_mut().enumerate() {
                let place = DeviceBlock(first.0 + at as u64);
                side.readable[at] = self.reader.read(copy, place, core::slice::from_mut(block)).is_ok();
            }
        }
    }

    /// A block that was loaded, unless this copy cannot read it.
    pub(crate) fn block(&self, copy: usize, position: u64) -> Option<&Block> {
        assert!(position >= self.start && position < self.start + self.length as u64, "{position} is not loaded");
        let at = (position - self.start) as usize;
        let side = &self.copies[copy];
        side.readable[at].then(|| &side.blocks[at])
    }
}
