//! What front ends of different shards say to each other about a controller, which lives on the shard of its admin queue,
//! and its I/O queues, which may live on any. All of it is rare.

use nvmf::controller::Host;
use nvmf::fabrics::Refusal;

/// A message.
#[derive(Clone, Debug)]
pub enum FrontMessage {
    /// To a controller's home: an I/O queue asks to be attached.
    Attach(Box<Attach>),
    /// Back from there.
    Attached {
        /// The connection that asked.
        connection: u64,
        /// Whether it may.
        result: Result<(), Refusal>,
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
    /// From a controller's home: it has ended or was reset, so this connection ends.
    Close {
        /// The connection.
        connection: u64,
    },
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
