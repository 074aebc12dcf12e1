//! Immutable snapshots that every shard holds: which devices make up an array at which epoch, and where volumes lie. The
//! coordinator alone makes new ones; a shard swaps its pointer when it is told to.

use base::ids::{ArrayBlock, ArrayId, DeviceBlock, DeviceId, LaneId, Lba, ShardId, Slot, StripeId, ZoneId};
use base::snapshot::Snapshot;
use base::uuid::Uuid;
use journal::{LogIdentity, LogLayout};
use raid::Geometry;

/// A member as the data path sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Where its data region begins.
    pub data_start: DeviceBlock,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// After the members' flush: the log only closes the write hole.
    WriteThrough,
    /// Once it is durable in the log.
    WriteBack,
}

/// What an array can do at this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Reads and writes.
    ReadWrite,
    /// No copy of the log is left: reads go on, also of what only memory holds; writes are refused.
    ReadOnly,
    /// More members are lost than the level bears: what needs them cannot be had, and nothing is written.
    Failed,
}

/// One array at one epoch.
#[derive(Clone, Debug)]
pub struct ArrayMap {
    /// Its place among the arrays of this process.
    pub id: ArrayId,
    /// Its name, for people.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// The epoch: one more with each exclusion.
    pub epoch: u64,
    /// Where blocks lie.
    pub geometry: Geometry,
    /// The members by slot; none where one is missing or excluded.
    pub members: Vec<Option<Member>>,
    /// The log's identity.
    pub log: LogIdentity,
    /// Where things lie in each log copy.
    pub log_layout: LogLayout,
    /// The log copies; none where one is missing or excluded.
    pub copies: Vec<Option<DeviceId>>,
    /// The incarnation of this start.
    pub incarnation: u64,
    /// When writes are acknowledged.
    pub mode: LogMode,
    /// What it can do.
    pub service: Service,
    /// How many shards share its lanes.
    pub shards: u16,
}

impl ArrayMap {
    /// Slots without a member, as a bit mask.
    pub fn missing(&self) -> u32 {
        (0..)
            .zip(&self.members)
            .filter(|(_, member)| member.is_none())
            .fold(0, |mask, (slot, _): (u32, _)| mask | 1 << slot)
    }

    /// Log blocks that destaging a stripe may need at most.
    pub const fn destage_log_blocks(&self) -> u64 {
        crate::limits::destage_log_blocks(self.geometry.parities())
    }

    /// The lane that logs a zone.
    pub fn lane_of(&self, zone: ZoneId) -> LaneId {
        LaneId((zone.0 % u64::from(self.log_layout.lanes())) as u16)
    }

    /// The shard that owns a lane, and with it the lane's zones.
    pub fn owner_of(&self, lane: LaneId) -> ShardId {
        ShardId(lane.0 % self.shards)
    }

    /// The member of a slot and the device block of a stripe on it.
    pub fn on_member(&self, slot: Slot, stripe: StripeId) -> Option<(DeviceId, DeviceBlock)> {
        let member = self.members[slot.index()]?;
        Some((member.device, DeviceBlock(member.data_start.0 + stripe.0)))
    }
}

/// A run of array blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub start: ArrayBlock,
    /// How many.
    pub blocks: u64,
}

/// Where one volume lies.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its array.
    pub array: ArrayId,
    /// Its name, for people: array and volume.
    pub name: String,
    /// Its blocks in order.
    pub extents: Vec<Extent>,
    /// How many blocks in all.
    pub blocks: u64,
}

impl Volume {
    /// The array blocks behind `count` logical blocks from `lba`: the longest run at its front that lies together.
    pub fn resolve(&self, lba: Lba, count: u32) -> Option<(ArrayBlock, u32)> {
        let mut offset = lba.0;
        for extent in &self.extents {
            if offset < extent.blocks {
                let run = (extent.blocks - offset).min(u64::from(count));
                return Some((ArrayBlock(extent.start.0 + offset), run as u32));
            }
            offset -= extent.blocks;
        }
        None
    }
}

/// All volumes, by [`base::ids::VolumeId`].
pub type VolumeMap = Snapshot<Vec<Volume>>;
