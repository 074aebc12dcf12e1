//! What every crate shares: identifiers that must not be mixed, the block, time values, byte cursors, the metric
//! declarations. It knows no device, no protocol and no clock.
//!
//! | module | holds |
//! |---|---|
//! | [`ids`] | newtypes of devices, shards, lanes, zones, stripes, members, volumes; addresses in blocks |
//! | [`time`] | [`time::Time`] and [`time::Span`], in nanoseconds |
//! | [`uuid`] | 128-bit identifiers and their text form |
//! | [`cursor`] | bounded little- and big-endian readers and writers |
//! | [`slab`] | a bounded table with generational keys |
//! | [`ring`] | a bounded first-in first-out queue |
//! | [`sector`] | parts of blocks, for hosts whose logical blocks are smaller than ours |
//! | [`snapshot`] | immutable values that several shards hold at once |
//! | [`metrics`] | every metric family, declared once, and the counters behind them |
//!
//! ```
//! use base::cursor::Reader;
//! let mut reader = Reader::new(&[0x34, 0x12]);
//! assert_eq!(reader.u16_le(), Ok(0x1234));
//! assert!(reader.u8().is_err());
//! ```
#![forbid(unsafe_code)]

pub mod cursor;
pub mod ids;
pub mod metrics;
pub mod ring;
pub mod sector;
pub mod slab;
pub mod snapshot;
pub mod time;
pub mod uuid;

/// Bytes of a block: the unit of logs, stripes, caches and buffers, whatever a device's own sector size.
pub const BLOCK: usize = 4096;

/// The content of one block.
pub type Block = [u8; BLOCK];

/// A block of zeros.
pub static ZERO_BLOCK: Block = [0; BLOCK];
