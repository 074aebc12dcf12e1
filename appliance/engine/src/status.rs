//! What one shard has to tell, for `status` and for people. Plain values, put together when asked.

use base::ids::{ArrayId, ShardId};
use serde::Serialize;

use crate::array::Usage;

/// A shard's answer.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    /// Which shard.
    #[serde(serialize_with = "number")]
    pub shard: ShardId,
    /// Requests under way.
    pub requests: u64,
    /// Its part of each array.
    pub arrays: Vec<ArrayStatus>,
    /// Its connections.
    pub connections: Vec<ConnectionStatus>,
    /// Long work on volumes.
    pub jobs: Vec<JobStatus>,
}

/// Long work on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Whose volume.
    #[serde(skip)]
    pub array: ArrayId,
    /// The volume's number in the array's table.
    pub volume: u32,
    /// `cleaning`: the space of a deleted volume becomes zeros. `copying`: another volume is copied into it.
    pub kind: &'static str,
    /// Blocks that are done.
    pub done_blocks: u64,
    /// All of them.
    pub total_blocks: u64,
}

/// A shard's part of an array.
#[derive(Clone, Debug, Serialize)]
pub struct ArrayStatus {
    /// Its place among the arrays.
    #[serde(skip)]
    pub array: ArrayId,
    /// Its name.
    pub name: String,
    /// The epoch.
    pub epoch: u64,
    /// `read-write`, `read-only` or `failed`.
    pub service: &'static str,
    /// Slots without a member.
    pub missing_members: Vec<u8>,
    /// Slots whose members are much slower than the others.
    pub slow_members: Vec<u8>,
    /// Log copies that take no part.
    pub missing_copies: Vec<u8>,
    /// How full it is.
    pub usage: Usage,
}

/// A connection.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Its number, unique as long as the process lives.
    pub id: u64,
    /// The host's name, once it has said it.
    pub host: String,
    /// What it is connected to.
    pub subsystem: String,
    /// The host's end.
    pub peer: String,
    /// 0 for admin, else the I/O queue's number.
    pub queue: u16,
    /// Commands under way.
    pub in_flight: u32,
    /// How long it has been there.
    pub age_ms: u64,
}

fn number<S: serde::Serializer>(shard: &ShardId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(shard.0)
}
