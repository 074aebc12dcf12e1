//! What one shard has to tell, for `status` and for people. Plain values, put together when asked.

use base::ids::{ArrayId, DeviceId, ShardId, Slot};
use journal::{LogIdentity, LogLayout};
use ports::Address;
use raid::Geometry;
use raid::ScrubCounts;
use serde::Serialize;

use crate::array::Usage;
use crate::map::LogMode;
use crate::operations::Owed;

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
    /// Those that have ended lately.
    pub ended: Vec<ConnectionStatus>,
    /// Long work on volumes.
    pub jobs: Vec<JobStatus>,
    /// Devices that owe it answers.
    pub owing: Vec<OwingStatus>,
}

/// A device that owes a shard answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OwingStatus {
    /// The device.
    #[serde(skip)]
    pub device: DeviceId,
    /// Requests that it has not answered.
    pub requests: u32,
    /// Those of them that nobody waits for any more.
    pub given_up: u32,
    /// How long it has had the oldest.
    pub oldest_ms: u64,
    /// Whether that is longer than it may take.
    pub overdue: bool,
}

impl From<(DeviceId, Owed)> for OwingStatus {
    fn from((device, owed): (DeviceId, Owed)) -> Self {
        let Owed { operations: requests, given_up, oldest, is_overdue: overdue } = owed;
        Self { device, requests, given_up, oldest_ms: oldest.0 / 1_000_000, overdue }
    }
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
    /// `read-write`, `draining`, `read-only`, `stopped` or `failed`.
    pub service: &'static str,
    /// The devices of the members by slot; none where one takes no part.
    #[serde(skip)]
    pub members: Vec<Option<DeviceId>>,
    /// The devices of the log copies; none where one takes no part.
    #[serde(skip)]
    pub copies: Vec<Option<DeviceId>>,
    /// The log's identity, where things lie in its copies, and the incarnation: of no meaning where there is none.
    #[serde(skip)]
    pub log: (LogIdentity, LogLayout, u64),
    /// Slots whose member is being rebuilt, or is to be.
    pub rebuilding_members: Vec<u8>,
    /// Drives that may take the place of a member. Shard 0 knows them.
    #[serde(skip)]
    pub spares: Vec<DeviceId>,
    /// Drives that were given a place and are prepared for it. Shard 0 knows them.
    #[serde(skip)]
    pub joining: Vec<DeviceId>,
    /// The drive that is to succeed a member, and the member's slot. Shard 0 knows it.
    #[serde(skip)]
    pub successor: Option<(Slot, DeviceId)>,
    /// The member that is being rebuilt, if one is. Shard 0 knows it.
    pub rebuild: Option<RebuildStatus>,
    /// How far the array is, if it gets a further member. Shard 0 knows it.
    pub growth: Option<GrowthStatus>,
    /// The geometry by which there is space for volumes.
    #[serde(skip)]
    pub space: Geometry,
    /// The device that is becoming a copy of the log, if one is. Shard 0 knows it.
    pub attach: Option<AttachStatus>,
    /// The last scrub, if there was one. Shard 0 knows it.
    pub scrub: Option<ScrubStatus>,
    /// The resync after a crash, without a log, if one is due or under way. Shard 0 knows it.
    pub resync: Option<ResyncStatus>,
    /// Slots without a member.
    pub missing_members: Vec<u8>,
    /// Slots whose members are much slower than the others.
    pub slow_members: Vec<u8>,
    /// Slots whose members have not answered a host's read in time: others are asked until they have answered everything.
    pub late_members: Vec<u8>,
    /// When writes are acknowledged.
    #[serde(skip)]
    pub mode: LogMode,
    /// Log copies that take no part.
    pub missing_copies: Vec<u8>,
    /// Whether its log is lost, and it goes on without one.
    pub exposed: bool,
    /// The shard's lanes of the log.
    pub lanes: Vec<LaneStatus>,
    /// How full it is.
    pub usage: Usage,
}

impl ArrayStatus {
    /// Whether it has a log, be all its copies lost: not if that was given up or taken away.
    pub fn has_log(&self) -> bool {
        !self.exposed && (self.copies.iter().any(Option::is_some) || !self.missing_copies.is_empty())
    }
}

/// A rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RebuildStatus {
    /// The member's place.
    pub slot: u8,
    /// How much of it is current.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it went, on average, since it began or the process was started.
    pub bytes_a_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
    /// Whether it was told to wait.
    pub paused: bool,
}

/// An array that gets a further member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GrowthStatus {
    /// The member's place.
    pub slot: u8,
    /// How much of each member lies as it is to lie.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it went, on average, since it began or the process was started.
    pub bytes_a_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
    /// Whether it was told to wait.
    pub paused: bool,
    /// Whether it waits for the array to be whole, and to have a log.
    pub waits: bool,
}

/// A device on its way to be a copy of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AttachStatus {
    /// Its place among the copies.
    pub copy: u8,
    /// The device.
    #[serde(skip)]
    pub device: DeviceId,
    /// Blocks that were erased, of so many.
    pub erased_blocks: u64,
    /// See `erased_blocks`.
    pub blocks: u64,
    /// Shards with lanes that need more of the log than it has.
    pub shards_behind: u16,
}

/// The last scrub, be it under way or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ScrubStatus {
    /// `running`, `waiting` (for a rebuild, or for members to compare with), `paused`, `ended` or `stopped`.
    pub state: &'static str,
    /// What is done about blocks that are wrong: `none`, `located` or `parity`.
    pub repair: &'static str,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How much of each member was seen.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it went, on average, since it began or the process was started.
    pub bytes_a_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
    /// What was found, and done about it.
    pub counts: ScrubCounts,
}

/// A resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResyncStatus {
    /// How much of each member matches again.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it went, on average.
    pub bytes_a_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
}

/// A lane of a log. Positions count blocks ever since it was formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Which.
    pub lane: u16,
    /// Where the next record goes.
    pub head: u64,
    /// The oldest record that is needed.
    pub tail: u64,
    /// The same, as it is durable on all copies.
    pub durable_tail: u64,
    /// The sequence of the next record.
    pub next_sequence: u64,
    /// Records from the tail on.
    pub records: u64,
}

/// A connection.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionStatus {
    /// Its number, unique as long as the process lives.
    pub id: u64,
    /// What is spoken.
    pub protocol: &'static str,
    /// The host's name, once it has said it.
    pub host: String,
    /// What it is connected to.
    pub subsystem: String,
    /// The host's end.
    pub peer: Address,
    /// Our end.
    pub local: Address,
    /// The listener that it came in by, by its place in the configuration.
    pub listener: u16,
    /// Its controller; 0 before Connect.
    pub controller: u16,
    /// 0 for admin, else the I/O queue's number.
    pub queue: u16,
    /// How it is encrypted.
    pub tls: &'static str,
    /// Commands under way.
    pub in_flight: u32,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// How long it has been there.
    pub age_ms: u64,
    /// How long no command has come, keep alive apart.
    pub idle_ms: u64,
    /// The last status that was not success; of one that has ended, why.
    pub last_error: Option<String>,
    /// How long ago it ended, if it did.
    pub ended_ms: Option<u64>,
}

fn number<S: serde::Serializer>(shard: &ShardId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(shard.0)
}
