//! The log: its format on the device, the arithmetic of its rings, and recovery as a pure function from what was read to
//! a replay plan. It opens no device, keeps no time and writes nothing: callers carry the blocks. The format is drawn in
//! `FORMAT.md` beside this crate.
//!
//! | module | holds |
//! |---|---|
//! | [`layout`] | where superblocks, anchors and rings lie on a device |
//! | [`superblock`] | what a log copy says about itself |
//! | [`anchor`] | where recovery of a lane starts |
//! | [`entry`] | what a record can say, 16 bytes each |
//! | [`record`] | sealing and opening a record's descriptor block |
//! | [`space`] | head, tails and pads of a lane's ring |
//! | [`format`](mod@format) | the first blocks of a new lane |
//! | [`reader`] | what recovery reads from, and its read-ahead |
//! | [`decision`] | whether a record that does not verify ends the log or damages it |
//! | [`scan`] | the walk from the anchor to the end of a lane |
//! | [`fold`](mod@fold) | what of the records is still to be written to the members |
//!
//! ```
//! use base::{BLOCK, ZERO_BLOCK, ids::{ArrayBlock, LaneId}, uuid::Uuid};
//! use journal::{Entry, LogIdentity, RecordHeader, RecordKind, open_record, payload_crc, seal_record};
//!
//! let identity = LogIdentity { array: Uuid::from_random([1, 2]), generation: 3 };
//! let payload = [7; BLOCK];
//! let entries = [Entry::Data { block: ArrayBlock(10), crc: payload_crc(&identity, &payload) }];
//! let header = RecordHeader {
//!     kind: RecordKind::Transaction, lane: LaneId(0), incarnation: 1, geometry_epoch: 0, array_epoch: 0,
//!     sequence: 2, position: 1, length_blocks: 2, durable_upto: 1, previous_crc: 0,
//! };
//! let mut descriptor = ZERO_BLOCK;
//! let crc = seal_record(&identity, &header, &entries, &mut descriptor);
//! let record = open_record(&identity, &descriptor).expect("what was sealed opens");
//! assert_eq!((record.header, record.crc), (header, crc));
//! assert!(record.entries.eq(entries));
//! ```
#![forbid(unsafe_code)]

pub mod anchor;
pub mod decision;
pub mod entry;
pub mod fold;
pub mod format;
pub mod layout;
pub mod reader;
pub mod record;
pub mod scan;
pub mod space;
pub mod superblock;

pub use anchor::{Anchor, AnchorFault};
pub use entry::{Entry, EntryFault};
pub use fold::{Content, Covered, PayloadAt, ReplayPlan, StripeReplay, Version, fold};
pub use format::format_lane;
pub use layout::{LayoutError, LogLayout};
pub use reader::{LogReader, ReadFault};
pub use record::{Entries, OpenRecord, RecordFault, RecordHeader, RecordKind, open_record, payload_crc, seal_record};
pub use scan::{EndOfLog, LaneScan, RecoveryError, ScannedRecord, scan_lane};
pub use space::{LaneSpace, Placement};
pub use superblock::{LogMode, LogSuperblock, SuperblockError};

use base::uuid::Uuid;

/// What every block of one log carries, so that blocks of another never verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The array that the log belongs to.
    pub array: Uuid,
    /// Random, drawn when the log is formatted; the same on all copies.
    pub generation: u128,
}

/// Most entries of a record: what a descriptor block holds behind its header.
pub const MAX_ENTRIES: usize = (base::BLOCK - record::HEADER_BYTES) / entry::ENTRY_BYTES;

/// Most payload blocks of a record.
pub const MAX_PAYLOAD_BLOCKS: usize = 128;

/// Most blocks of a record, the descriptor included. Pads keep to it too: a pad is shorter than the record it makes way for.
pub const MAX_RECORD_BLOCKS: usize = 1 + MAX_PAYLOAD_BLOCKS;

/// Most records of a lane, pads included, that are written and not yet acknowledged.
pub const MAX_IN_FLIGHT: usize = 8;

/// Most blocks of a [`Entry::Zeros`]: the largest chunk, since a command's part lies within one chunk.
pub const MAX_ZEROS_BLOCKS: u32 = 256;

/// Most copies of a log.
pub const MAX_COPIES: usize = 4;

/// Most lanes of a log.
pub const MAX_LANES: u16 = 1024;

/// Fewest blocks of a lane's ring: the longest pad, the longest record behind it, and as much again that is still live.
pub const MIN_LANE_BLOCKS: u64 = 4 * MAX_RECORD_BLOCKS as u64;

/// Positions and sequences above this are refused, so that sums of them never overflow. At a million blocks a second it
/// is reached after a hundred thousand years.
pub const MAX_COUNT: u64 = 1 << 62;

/// Blocks that one read of recovery asks for at most.
pub const READ_BLOCKS: usize = 256;

const _: () = assert!(MAX_ENTRIES == 248 && MAX_ENTRIES > MAX_PAYLOAD_BLOCKS);
const _: () = assert!(READ_BLOCKS >= MAX_RECORD_BLOCKS, "a record fits the read-ahead");
const _: () = assert!(MIN_LANE_BLOCKS > 2 * MAX_RECORD_BLOCKS as u64, "an empty lane has room for pad and record");

/// CRC32C of a block with the four bytes at `at` taken as zero: where the checksum itself is stored.
fn crc_without(block: &base::Block, at: usize) -> u32 {
    let head = crc32c::crc32c(&block[..at]);
    crc32c::crc32c_append(crc32c::crc32c_append(head, &[0; 4]), &block[at + 4..])
}

/// The checksum's place in every block of this format, behind the magic number.
const CRC_AT: usize = 8;

/// Stores the checksum of a finished block and returns it.
fn put_crc(block: &mut base::Block) -> u32 {
    let crc = crc_without(block, CRC_AT);
    block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The checksum of a block, if it is the one that the block carries.
fn verified_crc(block: &base::Block) -> Option<u32> {
    let crc = crc_without(block, CRC_AT);
    (block[CRC_AT..CRC_AT + 4] == crc.to_le_bytes()).then_some(crc)
}

/// The slot of the pair that an update is written to: the next update never touches the slot of the newest one.
pub const fn slot_of(update: u64) -> usize {
    (update & 1) as usize
}
