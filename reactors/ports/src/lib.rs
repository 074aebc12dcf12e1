//! The seam between what decides and what touches. A shard sees the world through [`Ports`] and nothing else: production
//! implements it with io_uring, sockets and threads, the simulator with a seeded model of them.
//!
//! Rules for who implements and who calls:
//! - Nothing here blocks. A full queue gives the request back; the caller keeps it and tries again in a later turn.
//! - Completions and events come out only when asked for, never from within a submission.
//! - A buffer has one owner, who holds its [`Buffer`]. While a device or a stream works on it (from submission to
//!   completion) the owner neither changes nor frees it.
//! - The same calls with the same answers give the same run: there is no other clock and no other source of chance.
#![forbid(unsafe_code)]

pub mod buffers;

pub use buffers::{Buffer, BufferId, BufferList, Buffers};

use base::Block;
use base::ids::{DeviceBlock, DeviceId, ShardId};
use base::snapshot::{Plain, Snapshot};
use base::time::Time;

/// Everything a shard may use.
pub trait Ports: Buffers + Devices + Streams + Mesh {
    /// The monotonic clock. It stands still within a turn or moves on, never back.
    fn now(&self) -> Time;

    /// Unpredictable bits (production) or bits drawn from the seed (simulator).
    fn entropy(&mut self) -> u64;

    /// Makes a value that all shards are to hold; production puts it where nobody can write to it. For what changes
    /// rarely: it allocates and may take some microseconds.
    fn seal<T: Plain>(&mut self, name: &'static str, value: T) -> Snapshot<T> {
        let _ = name;
        Snapshot::new(value)
    }
}

/// What a reactor turns.
pub trait Program<P> {
    /// Does a bounded amount of work: select, apply, maintain.
    fn turn(&mut self, ports: &mut P) -> Turn;
}

/// What a turn says to the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whether anything was done: an idle reactor may sleep.
    pub worked: bool,
    /// The latest time of the next turn, or [`Time::NEVER`].
    pub deadline: Time,
    /// The program has ended and is not to be turned again.
    pub ended: bool,
}

/// What a device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceOp {
    /// Fill the buffers.
    Read,
    /// Write the buffers; durable only after a later flush.
    Write,
    /// Write the buffers; durable at completion (NVMe: Force Unit Access; Linux: `RWF_DSYNC`).
    WriteDurable,
    /// Make all writes durable that completed before this was submitted.
    Flush,
    /// Write zeros to this many blocks; durable only after a later flush.
    WriteZeroes(u32),
}

/// Most blocks of one read or write.
pub const MAX_DEVICE_BLOCKS: usize = 256;

/// A request to a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRequest<'a> {
    /// Comes back with the completion.
    pub tag: u64,
    /// The device.
    pub device: DeviceId,
    /// What to do.
    pub op: DeviceOp,
    /// The first block.
    pub start: DeviceBlock,
    /// One buffer for each block of a read or write, at most [`MAX_DEVICE_BLOCKS`]. A write may name a buffer twice.
    pub buffers: &'a [BufferId],
}

/// Why a device did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// The device is gone or broken: nothing will succeed.
    Gone,
    /// These blocks cannot be read.
    Unreadable,
    /// It has not answered in time; it may still do what it was asked.
    Late,
    /// The device has no room (a file system that is full).
    NoSpace,
    /// Anything else, by the number of the system's error.
    Other(i32),
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's tag.
    pub tag: u64,
    /// How it ended. After an error any part of a write may have happened.
    pub result: Result<(), DeviceError>,
}

/// The queue had no place; try in a later turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Devices, by queues.
pub trait Devices {
    /// Gives a request to its device.
    fn submit(&mut self, request: DeviceRequest<'_>) -> Result<(), QueueFull>;

    /// Takes one completion, in any order.
    fn completion(&mut self) -> Option<Completion>;
}

/// A connected byte stream; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// An end of a connection, for people and access rules.
pub type Address = std::net::SocketAddr;

/// News of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A host connected to a listener (by its place in the configuration).
    Opened {
        /// The new stream.
        stream: StreamId,
        /// The listener's index.
        listener: u16,
        /// The host's end.
        peer: Address,
        /// Our end.
        local: Address,
    },
    /// There are bytes, or an end, to receive.
    Readable(StreamId),
    /// After a short send there is room again.
    Writable(StreamId),
}

/// A part of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte.
    pub offset: u16,
    /// Bytes, at most [`base::BLOCK`] less the offset.
    pub length: u16,
}

/// A piece of a gathered send.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Bytes of the caller.
    Bytes(&'a [u8]),
    /// A part of a buffer.
    Segment(Segment),
}

/// Most pieces of one send and most segments of one receive.
pub const MAX_STREAM_PIECES: usize = 512;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The peer closed its end in good order.
    EndOfStream,
    /// The connection broke.
    Reset,
    /// It was destroyed on this machine, from outside.
    Aborted,
    /// The system had no sign of life from the peer for too long.
    TimedOut,
    /// It was closed by us, or never was.
    Unknown,
}

/// Byte streams, by readiness. Streams belong to the shard that was told that they opened.
pub trait Streams {
    /// Takes one event. [`StreamEvent::Readable`] is repeated in later turns until a receive has come back short;
    /// [`StreamEvent::Writable`] comes once after each short send.
    fn stream_event(&mut self) -> Option<StreamEvent>;

    /// Receives into the segments first, then into `rest`; says how many bytes in all. Less than asked for means that no
    /// more is there now.
    fn receive(&mut self, stream: StreamId, segments: &[Segment], rest: &mut [u8]) -> Result<usize, StreamError>;

    /// Sends the pieces in order; says how many bytes were taken. Fewer than offered means that a
    /// [`StreamEvent::Writable`] will follow.
    fn send(&mut self, stream: StreamId, pieces: &[Piece<'_>]) -> Result<usize, StreamError>;

    /// Whether [`StreamEvent::Readable`] is wanted. Streams open wanting it.
    fn want_readable(&mut self, stream: StreamId, wanted: bool);

    /// Ends a stream: in good order, what was sent still goes out; otherwise by a reset. No event follows.
    fn close(&mut self, stream: StreamId, in_good_order: bool);
}

/// Messages between shards. The control side takes part as [`Mesh::control`].
pub trait Mesh {
    /// What travels: at most 64 bytes.
    type Message;

    /// The shard of this reactor.
    fn shard(&self) -> ShardId;

    /// How many shards there are.
    fn shards(&self) -> u16;

    /// The address of the control side.
    fn control(&self) -> ShardId {
        ShardId(self.shards())
    }

    /// Sends a message to another shard or the control side, or gives it back if the queue is full.
    fn post(&mut self, to: ShardId, message: Self::Message) -> Result<(), Self::Message>;

    /// Takes one message, with its sender.
    fn message(&mut self) -> Option<(ShardId, Self::Message)>;
}

/// A device as start-up code sees it, before any reactor turns: every call waits for its end.
pub trait SyncDevice {
    /// Blocks it has.
    fn blocks(&self) -> u64;

    /// Reads consecutive blocks.
    fn read(&mut self, start: DeviceBlock, into: &mut [Block]) -> Result<(), DeviceError>;

    /// Writes consecutive blocks; durable only after a flush.
    fn write(&mut self, start: DeviceBlock, from: &[Block]) -> Result<(), DeviceError>;

    /// Writes zeros to consecutive blocks; durable only after a flush.
    fn write_zeroes(&mut self, start: DeviceBlock, count: u64) -> Result<(), DeviceError>;

    /// Makes all earlier writes durable.
    fn flush(&mut self) -> Result<(), DeviceError>;
}
