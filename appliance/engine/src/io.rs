//! Volume input and output as the front ends, and the simulator's workload, ask for it: one request names a volume, a run
//! of logical blocks and, for reads and writes, one buffer per block. Requests of one caller may end in any order.

use base::ids::{Lba, VolumeId};
use base::sector::Margins;
use ports::BufferList;

use crate::fence::Association;

/// Most blocks of one request: those around 1 MiB, wherever in a block that begins. The transfer size that targets advertise
/// must not exceed it.
pub const MAX_REQUEST_BLOCKS: u32 = 257;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Fill the buffers. The caller brings them, and gets them back filled.
    Read,
    /// Store the buffers. They are given away and do not come back.
    Write,
    /// Make the blocks, any number of them, read as zeros. No buffers.
    WriteZeroes,
    /// Make ranges of blocks read as zeros. `blocks` is the number of ranges, which lie in one buffer as
    /// [`nvme::dataset::DatasetRange`]s; the buffer is given away. All ranges are checked before any is touched.
    Deallocate,
    /// Compare the buffers with what is stored. They are given away.
    Compare,
    /// Compare the first half of the buffers with what is stored, and if it is the same store the second half, in one step to
    /// everybody. The blocks lie within one atomic unit. They are given away.
    CompareAndWrite,
    /// Make every acknowledged write durable: at once with a log, which acknowledges nothing earlier. No buffers, no blocks.
    Flush,
}

/// A request to a volume.
#[derive(Debug)]
pub struct IoRequest {
    /// Comes back with the answer.
    pub token: u64,
    /// Whose it is.
    pub association: Association,
    /// The volume.
    pub volume: VolumeId,
    /// What to do.
    pub kind: IoKind,
    /// The first logical block (of [`base::BLOCK`] bytes).
    pub lba: Lba,
    /// How many, at most [`MAX_REQUEST_BLOCKS`] of a read or write.
    pub blocks: u32,
    /// What of the first and the last block is not meant, of all kinds but reads, lists of ranges and flushes.
    pub margins: Margins,
    /// One buffer for each block of a read, write or compare, two of a compare and write, one for a list of ranges, else empty.
    pub buffers: BufferList,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The blocks reach beyond the volume's end.
    OutOfRange,
    /// There is no such volume.
    NoVolume,
    /// The array takes no writes (its log or too many members are lost).
    ReadOnly,
    /// The array serves nothing (its log is lost, and its operator wants it so).
    Stopped,
    /// The data cannot be had: more members are lost than the level bears.
    Unreadable,
    /// What was to be written cannot go to the members: old content that its stripe's parity needs is lost. With a log it is
    /// kept there and read from there all the same.
    Unwritable,
    /// What is stored is not what it was compared with.
    Miscompare,
    /// The blocks do not lie within one atomic unit.
    NotOneUnit,
    /// The appliance is stopping.
    Stopping,
    /// Its association has ended, or somebody asked for its end: it has or has not happened, in whole or in part.
    Aborted,
}

/// The end of a request.
#[derive(Debug)]
pub struct IoDone {
    /// The request's token.
    pub token: u64,
    /// How it ended.
    pub result: Result<(), IoError>,
    /// A read's buffers, filled if it succeeded, in order. Otherwise empty.
    pub buffers: BufferList,
}
