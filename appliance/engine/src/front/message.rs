//! What front ends of different shards say to each other about a controller, which lives on the shard of its admin queue,
//! and its I/O queues, which may live on any. All of it is rare.

use std::sync::Arc;

use nvmf::controller::Host;
use nvmf::fabrics::Refusal;

use super::cause::Cause;
use super::kill::{Kill, Killed};
use crate::fence::Association;

/// A message.
#[derive(Clone, Debug)]
pub enum FrontMessage {
    /// To a controller's home: an I/O queue asks to be attached.
    Attach(Box<Attach>),
    /// Back from there.
    Attached {
        /// The connection that asked.
        connection: u64,
        /// Whether it may: the association that it is of.
        result: Result<Association, Refusal>,
    },
    /// To a controller's home: an I/O queue has ended.
    Detached {
        /// CNTLID.
        controller: u16,
        /// Its connection.
        connection: u64,
    },
    /// To a controller's home: commands came on an I/O queue, so its host lives.
    Seen {
        /// CNTLID.
        controller: u16,
    },
    /// To a controller's home: its association is to end.
    End {
        /// The association, as its queue knew it.
        association: Association,
        /// Why.
        cause: Cause,
        /// The kill that waits for it, if one does.
        kill: Option<u64>,
    },
    /// Back from there: it has ended on all shards.
    Ended {
        /// The kill that waited.
        kill: u64,
    },
    /// To every home: may this host come in?
    Ask {
        /// The connection with its Connect.
        connection: u64,
        /// Which of its Connects.
        attempt: u32,
        /// HOSTNQN.
        host: Arc<str>,
    },
    /// Back from there.
    Asked {
        /// The connection.
        connection: u64,
        /// Which of its Connects.
        attempt: u32,
        /// Whether it may.
        clear: bool,
    },
    /// From a controller's home: a command of a queue is to be aborted.
    Abort {
        /// The queue's connection.
        connection: u64,
        /// The command.
        cid: u16,
        /// CNTLID.
        controller: u16,
        /// Which of its Aborts.
        number: u32,
    },
    /// Back from there: what became of it.
    Aborted {
        /// CNTLID.
        controller: u16,
        /// Which of its Aborts.
        number: u32,
        /// Whether it was aborted.
        aborted: bool,
    },
    /// From the control side: end connections.
    Kill(Box<Kill>),
    /// To the control side: they have ended.
    Killed(Box<Killed>),
}

/// The Connect of an I/O queue.
#[derive(Clone, Debug)]
pub struct Attach {
    /// The connection that asks.
    pub connection: u64,
    /// CNTLID.
    pub controller: u16,
    /// QID.
    pub queue_id: u16,
    /// SUBNQN.
    pub subsystem_nqn: String,
    /// Who says it is.
    pub host: Host,
}

const _: () = assert!(size_of::<FrontMessage>() <= 48);
