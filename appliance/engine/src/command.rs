//! What the control side may ask of the arrays, and what it is told. A command goes to the coordinator, which alone changes
//! what all shards share; its answer carries the command's ticket and comes when the change is durable and in force, or
//! when it is refused. News come unasked.

use base::ids::{ArrayId, Slot};
use ports::DeviceError;
use thiserror::Error;

/// A command, with a number that its answer repeats.
#[derive(Debug)]
pub struct Command {
    /// Chosen by whoever asks.
    pub ticket: u64,
    /// What is asked.
    pub verb: Verb,
}

/// What can be asked.
#[derive(Debug)]
pub enum Verb {
    /// Use a member no longer.
    FailMember {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
    },
    /// Use a log copy no longer.
    FailCopy {
        /// Whose.
        array: ArrayId,
        /// Which.
        copy: u8,
    },
}

/// The end of a command.
#[derive(Debug)]
pub struct Answer {
    /// The command's ticket.
    pub ticket: u64,
    /// How it ended.
    pub result: Result<(), Refusal>,
}

/// Why a command was not carried out. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is out already.
    #[error("it is not in use: it was excluded or is missing")]
    NotInUse,
    /// The array would lose data by it.
    #[error("the array cannot do without it: more members or log copies would be missing than it bears")]
    Needed,
    /// The appliance is stopping.
    #[error("the appliance is stopping")]
    Stopping,
    /// Too many commands at once.
    #[error("too many commands are under way: try again")]
    Busy,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Members and log copies were excluded, durably.
    Excluded {
        /// Whose.
        array: ArrayId,
        /// Members, as a bit mask.
        members: u32,
        /// Log copies, as a bit mask.
        copies: u32,
        /// The epoch since which.
        epoch: u64,
    },
    /// A host has a controller now.
    HostConnected(HostNews),
    /// Its controller has ended.
    HostDisconnected(HostNews),
    /// A host wanted to connect and may not.
    HostRefused {
        /// Who.
        who: HostNews,
        /// Why not.
        why: &'static str,
    },
    /// A log copy does not do what it should: it is about to be excluded.
    CopyFailed {
        /// Whose.
        array: ArrayId,
        /// Which.
        copy: u8,
        /// How.
        error: DeviceError,
    },
    /// News were lost, because nobody took them in time.
    Lost {
        /// How many.
        count: u64,
    },
}

/// A host, as it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNews {
    /// Its NQN.
    pub host: String,
    /// What it wants to use.
    pub subsystem: String,
    /// Its end of the admin connection.
    pub peer: String,
}
