//! What the control side asks of a front: which connections to end, and whether their hosts are to stay away for a while.
//! It goes to every shard. A connection is never ended alone: its association ends, with all its queues on all shards.

use std::net::IpAddr;

use base::ids::ShardId;
use base::time::{Span, Time};
use ports::Address;

use super::cause::Cause;
use super::connection::{Connection, Role};

/// Which connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those with these numbers.
    Connections(Vec<u64>),
    /// Those of a host, by its NQN.
    Host(String),
    /// Those whose host's end has this address, and port if there is one.
    Peer(IpAddr, Option<u16>),
    /// Those whose own end has this address, and port if there is one.
    Local(IpAddr, Option<u16>),
    /// Those to a subsystem, by its NQN.
    Target(String),
    /// Those of associations whose host has asked for nothing for so long, keep alive apart; and connections that have not
    /// said who they are for as long.
    Idle(Span),
    /// All.
    All,
}

/// A kill.
#[derive(Clone, Debug)]
pub struct Kill {
    /// The answer repeats it.
    pub ticket: u64,
    /// Which connections.
    pub selector: Selector,
    /// For how long their hosts are refused.
    pub block: Option<Span>,
    /// On whose behalf.
    pub cause: Cause,
}

/// A shard's part of a kill is done: what it chose is closed, and nothing of it can reach a volume any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed {
    /// The kill's ticket.
    pub ticket: u64,
    /// Which shard.
    pub shard: ShardId,
    /// Connections of this shard that were chosen.
    pub connections: u32,
}

/// A kill whose associations have not all ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Killing {
    pub(super) killed: Killed,
    /// Associations whose end is waited for.
    pub(super) left: u32,
}

fn is_at(address: Address, ip: IpAddr, port: Option<u16>) -> bool {
    address.ip().to_canonical() == ip.to_canonical() && port.is_none_or(|port| port == address.port())
}

impl Selector {
    /// Whether it chooses a connection with this number; `last_work` is when its host last asked for something, if that is
    /// known here.
    pub(super) fn chooses(&self, number: u64, connection: &Connection, last_work: Option<Time>, now: Time) -> bool {
        match self {
            Self::Connections(numbers) => numbers.contains(&number),
            Self::Host(nqn) => connection.host_nqn == *nqn,
            Self::Peer(ip, port) => is_at(connection.peer, *ip, *port),
            Self::Local(ip, port) => is_at(connection.local, *ip, *port),
            Self::Target(nqn) => connection.subsystem_nqn == *nqn && connection.role != Role::None,
            Self::Idle(span) => last_work.is_some_and(|last| now.since(last) >= *span),
            Self::All => true,
        }
    }
}
