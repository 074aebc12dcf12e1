//! The requests of a queue: their names, their states and how they end. Bookkeeping only: the queue moves them.

use core::time::Duration;

use nvme::status::Status;

/// A request of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub(crate) u16);

impl Slot {
    /// The slot as an index below the queue's depth.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// Its slot: its buffer holds the data of a read until the slot is released.
    pub slot: Slot,
    /// How it ended.
    pub status: Status,
    /// Command-specific result.
    pub result: u64,
}

/// How a poll spends its time when nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It returns at once.
    Spin,
    /// It sleeps in the kernel until something comes, at most this long.
    Sleep(Duration),
}

/// Whose a request is: nobody's, the caller's to fill, the target's, the caller's to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Held,
    InFlight,
    Done,
}

/// What a queue knows of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) state: State,
    /// Whether its data comes from the target.
    pub(crate) to_host: bool,
    /// Bytes of its data.
    pub(crate) length: u32,
    /// Bytes of it that have come or were sent, in order.
    pub(crate) moved: u32,
}

impl Request {
    /// A free request.
    pub(crate) const IDLE: Self = Self { state: State::Free, to_host: false, length: 0, moved: 0 };
}
