//! Immutable snapshots that every shard holds: which devices make up an array at which epoch, and where volumes lie. The
//! coordinator alone makes new ones; a shard swaps its pointer when it is told to.

use std::sync::Arc;

use base::ids::{ArrayBlock, ArrayId, DeviceBlock, DeviceId, LaneId, Lba, ShardId, Slot, StripeId, ZoneId};
use base::snapshot::Snapshot;
use base::uuid::Uuid;
use journal::{LogIdentity, LogLayout};
use nvmf::subsystem::Exports;
use raid::reshape::Window;
use raid::{Arrangement, Away, Geometry, Metadata};

use crate::io::IoError;

/// A member as the data path sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Where its data region begins.
    pub data_start: DeviceBlock,
    /// Where its region of checksums begins, if they are kept.
    pub checksums: Option<DeviceBlock>,
    /// While it is being rebuilt: stripes below this are current on it, the others are not there. None: it is whole.
    pub position: Option<StripeId>,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// After the members' flush: the log only closes the write hole.
    WriteThrough,
    /// Once it is durable in the log.
    WriteBack,
}

/// What becomes of an array when the last copy of its log is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLogLoss {
    /// Reads go on, writes are refused.
    #[default]
    ReadOnly,
    /// Nothing is served.
    Stop,
    /// Writes go on without a log, exposed to the write hole: unless members are missing, in which case they are refused.
    WriteThroughExposed,
}

impl LogMode {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WriteThrough => "write-through",
            Self::WriteBack => "write-back",
        }
    }
}

impl From<journal::LogMode> for LogMode {
    fn from(mode: journal::LogMode) -> Self {
        match mode {
            journal::LogMode::WriteThrough => Self::WriteThrough,
            journal::LogMode::WriteBack => Self::WriteBack,
        }
    }
}

impl From<LogMode> for journal::LogMode {
    fn from(mode: LogMode) -> Self {
        match mode {
            LogMode::WriteThrough => Self::WriteThrough,
            LogMode::WriteBack => Self::WriteBack,
        }
    }
}

/// What an array can do at this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Reads and writes.
    ReadWrite,
    /// No copy of the log is left, and the array is about to go on without: what only memory holds goes to the members first.
    /// Reads go on, writes wait.
    Draining,
    /// No copy of the log is left: reads go on, also of what only memory holds; writes are refused.
    ReadOnly,
    /// No copy of the log is left, and for that case the operator wants nothing to be served.
    Stopped,
    /// More members are lost than the level bears: what needs them cannot be had, and nothing is written.
    Failed,
}

impl Service {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::Draining => "draining",
            Self::ReadOnly => "read-only",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// How a write is refused, if it is.
    pub const fn refuses_writes(self) -> Option<IoError> {
        match self {
            Self::ReadWrite | Self::Draining => None,
            Self::ReadOnly | Self::Failed => Some(IoError::ReadOnly),
            Self::Stopped => Some(IoError::Stopped),
        }
    }
}

/// A device that is about to be a copy of the log. Records and anchors go to it as to the copies, and it counts for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its place among the copies.
    pub copy: u8,
    /// The device.
    pub device: DeviceId,
    /// Counts newcomers.
    pub run: u32,
}

/// A drive that is to take the place of a member which is still in use. What goes to the member goes there too, as far as it is
/// the member's like already; nothing is read from it, and nobody relies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The place.
    pub slot: Slot,
    /// What will be there.
    pub member: Member,
}

/// Blocks that are on their way to where they lie with a further member. Who wants to read or write them waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Numbers such times.
    pub run: u32,
    /// What is moved.
    pub window: Window,
    /// How far it is.
    pub stage: MovingStage,
}

/// How far blocks are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovingStage {
    /// Requests that use them end, and no other begins.
    Fencing,
    /// Nobody uses them any more: what the log has of them goes to the members. Then they are logged by their new places.
    Draining,
    /// They are there. Who waits goes on when every shard knows.
    Arrived,
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
    /// The epoch: one more with each change of who takes part.
    pub epoch: u64,
    /// Where blocks lie.
    pub arrangement: Arrangement,
    /// Counts changes of where blocks lie; each record says at which it was logged.
    pub geometry_epoch: u32,
    /// The members by slot; none where one is missing or excluded.
    pub members: Vec<Option<Member>>,
    /// Whether checksums of all blocks are kept.
    pub checksums: bool,
    /// The log's identity. An array without a log has the lanes of [`LogLayout::without_rings`].
    pub log: LogIdentity,
    /// Where things lie in each log copy.
    pub log_layout: LogLayout,
    /// The log copies; none where one is missing or excluded. An array that never had a log has no places for any.
    pub copies: Vec<Option<DeviceId>>,
    /// Places of the log that have no copy and miss none, as a bit mask.
    pub free_copies: u32,
    /// Whether the log was given up when its last copy was lost or taken away: what its copies say is old, and writes go on
    /// without one.
    pub exposed: bool,
    /// A device that is about to be a copy. It comes and goes without an epoch of its own, since nothing relies on it.
    pub newcomer: Option<Newcomer>,
    /// A drive that is to take a member's place. It comes without an epoch of its own, likewise.
    pub successor: Option<Successor>,
    /// What is known of members that are out.
    pub away: Option<Away>,
    /// Hosts' writes wait, since a log is about to come or the last copy of one is about to go. Numbers such times.
    pub hold: Option<u32>,
    /// What moves, while the array gets a further member. It comes and goes without an epoch of its own; that it has come to its new
    /// place has one.
    pub moving: Option<Moving>,
    /// The incarnation of this start.
    pub incarnation: u64,
    /// When writes are acknowledged.
    pub mode: LogMode,
    /// What becomes of it when the last log copy is lost.
    pub on_log_loss: OnLogLoss,
    /// What it can do.
    pub service: Service,
    /// How many shards share its lanes.
    pub shards: u16,
}

impl ArrayMap {
    /// Slots without a whole member, as a bit mask: what is not there as a rule, for planning by the array.
    pub fn missing(&self) -> u32 {
        self.slots(|member| member.is_none_or(|member| member.position.is_some()))
    }

    /// Whether it is written without a log: bits of dirty zones stand in for one.
    pub fn is_bare(&self) -> bool {
        self.copies.is_empty() || self.exposed
    }

    /// Whether its log was lost, and it goes on without: not if nobody misses a copy.
    pub fn is_exposed(&self) -> bool {
        self.exposed && self.missing_copies().next().is_some()
    }

    /// Whether stripes go to the members past the log: there is none, or it is lost.
    pub fn is_unlogged(&self) -> bool {
        self.is_bare() || self.service == Service::Draining
    }

    /// The geometry by which there is space for volumes.
    pub const fn space(&self) -> &Geometry {
        match &self.moving {
            // Not every shard knows that the last of it has arrived.
            Some(moving) => moving.window.space(),
            None => self.arrangement.space(),
        }
    }

    /// Whether anything is kept beside the data that a crash could leave behind: parities or mirrors.
    pub fn has_redundancy(&self) -> bool {
        self.arrangement.geometry().data_slots() < self.arrangement.geometry().members()
    }

    /// Slots without any member, as a bit mask.
    pub fn absent(&self) -> u32 {
        self.slots(|member| member.is_none())
    }

    /// Slots without a member that holds a stripe, as a bit mask. The owner of the stripe may know of more.
    pub fn missing_at(&self, stripe: StripeId) -> u32 {
        self.slots(|member| member.is_none_or(|member| member.position.is_some_and(|position| stripe >= position)))
    }

    fn slots(&self, are: impl Fn(Option<Member>) -> bool) -> u32 {
        let slots = (0u32..).zip(&self.members).filter(|(_, member)| are(**member));
        slots.fold(0, |mask, (slot, _)| mask | 1 << slot)
    }

    /// Whether the member of a slot is being rebuilt, or that of a successor made a member's like.
    pub fn is_rebuilding(&self, slot: Slot) -> bool {
        self.member(slot).is_some_and(|member| member.position.is_some())
    }

    /// The number that a successor goes by where members go by their slots: the one behind theirs.
    pub const fn successor_slot(&self) -> Slot {
        Slot(self.arrangement.geometry().members())
    }

    /// The member of a slot, or the successor.
    pub fn member(&self, slot: Slot) -> Option<Member> {
        match self.members.get(slot.index()) {
            Some(member) => *member,
            None => self.successor.map(|successor| successor.member),
        }
    }

    /// Whose blocks are, or are to be, on the member of a slot or on the successor.
    pub fn place_of(&self, slot: Slot) -> Slot {
        match self.successor {
            Some(successor) if slot == self.successor_slot() => successor.slot,
            _ => slot,
        }
    }

    /// All that is written: the members, and the successor behind them.
    pub fn written(&self) -> impl Iterator<Item = (Slot, Member)> {
        let members = (0u8..).map(Slot).zip(&self.members).filter_map(|(slot, member)| Some((slot, (*member)?)));
        members.chain(self.successor.map(|successor| (self.successor_slot(), successor.member)))
    }

    /// The slot of a device among all that is written.
    pub fn slot_of(&self, device: DeviceId) -> Option<Slot> {
        self.written().find(|(_, member)| member.device == device).map(|(slot, _)| slot)
    }

    /// The devices that records and anchors go to, with their places: the copies, and who is about to be one.
    pub fn log_devices(&self) -> impl Iterator<Item = (u8, DeviceId)> {
        let copies = (0u8..).zip(&self.copies).filter_map(|(copy, device)| Some((copy, (*device)?)));
        copies.chain(self.newcomer.iter().map(|newcomer| (newcomer.copy, newcomer.device)))
    }

    /// All devices that anything goes to: the members, and those of the log.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.written().map(|(_, member)| member.device).chain(self.log_devices().map(|(_, device)| device))
    }

    /// Whether records and anchors go to a place of the log.
    pub fn logs_to(&self, copy: u8) -> bool {
        self.log_devices().any(|(at, _)| at == copy)
    }

    /// Places of the log that have a copy, as a bit mask.
    pub fn present_copies(&self) -> u32 {
        let present = (0u32..).zip(&self.copies).filter(|(_, device)| device.is_some());
        present.fold(0, |mask, (copy, _)| mask | 1 << copy)
    }

    /// Places of the log whose copy is missed.
    pub fn missing_copies(&self) -> impl Iterator<Item = u8> {
        let missed = |&(copy, device): &(u8, &Option<DeviceId>)| device.is_none() && self.free_copies & 1 << copy == 0;
        (0u8..).zip(&self.copies).filter(missed).map(|(copy, _)| copy)
    }

    /// Log blocks that destaging a stripe may need at most.
    pub const fn destage_log_blocks(&self) -> u64 {
        crate::limits::destage_log_blocks(self.arrangement.parities())
    }

    /// The lane that logs a zone.
    pub fn lane_of(&self, zone: ZoneId) -> LaneId {
        LaneId((zone.0 % u64::from(self.log_layout.lanes())) as u16)
    }

    /// The shard that owns a lane, and with it the lane's zones.
    pub fn owner_of(&self, lane: LaneId) -> ShardId {
        ShardId(lane.0 % self.shards)
    }

    /// The member of a slot and the device block of a stripe on it, if it holds the stripe.
    pub fn on_member(&self, slot: Slot, stripe: StripeId) -> Option<(DeviceId, DeviceBlock)> {
        let holds = self.missing_at(stripe) & 1 << slot.0 == 0 && slot.0 < self.arrangement.geometry().members();
        if holds { self.place(slot, stripe) } else { None }
    }

    /// The member of a slot, or the successor, and the device block that is the stripe's on it, whether it holds it or not.
    pub fn place(&self, slot: Slot, stripe: StripeId) -> Option<(DeviceId, DeviceBlock)> {
        let member = self.member(slot)?;
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
    /// Its number in the array's table.
    pub record: u32,
    /// Whether it was deleted: what is under way ends, and nothing more begins. Its place is never given to another.
    pub leaving: bool,
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
        resolve(&self.extents, lba, count)
    }

    /// A volume as the array's table has it.
    pub fn of(map: &ArrayMap, record: &raid::VolumeRecord) -> Self {
        Self {
            array: map.id,
            record: record.id,
            leaving: record.state == raid::VolumeState::Cleaning,
            name: format!("{}/{}", map.name, record.name),
            extents: extents_of(record),
            blocks: record.blocks,
        }
    }
}

/// The extents of a volume in the array's table.
pub fn extents_of(record: &raid::VolumeRecord) -> Vec<Extent> {
    let extent = |extent: &raid::ExtentRecord| Extent { start: ArrayBlock(extent.start), blocks: extent.blocks };
    record.extents.iter().map(extent).collect()
}

/// The array blocks behind `count` logical blocks from `lba`: the longest run at its front that lies together.
pub(crate) fn resolve(extents: &[Extent], lba: Lba, count: u32) -> Option<(ArrayBlock, u32)> {
    let mut offset = lba.0;
    for extent in extents {
        if offset < extent.blocks {
            let run = (extent.blocks - offset).min(u64::from(count));
            return Some((ArrayBlock(extent.start.0 + offset), run as u32));
        }
        offset -= extent.blocks;
    }
    None
}

/// What volumes there are and where hosts find them, at one moment.
#[derive(Clone, Debug)]
pub struct VolumeTables {
    /// Counts tables.
    pub epoch: u64,
    /// All volumes. A place is given once.
    pub volumes: VolumeMap,
    /// Where hosts find them; none where there are no hosts.
    pub exports: Option<Snapshot<Exports>>,
    /// Each array's own table, by [`ArrayId`].
    pub metadata: Vec<Arc<Metadata>>,
}

/// All volumes, by [`base::ids::VolumeId`].
pub type VolumeMap = Snapshot<Vec<Volume>>;
