//! What the control side may ask of the arrays, and what it is told. A command goes to the coordinator, which alone changes
//! what all shards share; its answer carries the command's ticket and comes when the change is durable and in force, or
//! when it is refused. News come unasked.

mod refusal;

use base::ids::{ArrayId, DeviceId, Slot, StripeId, VolumeId};
use base::sector::LogicalBlock;
use base::time::Span;
use ports::DeviceError;
use raid::{Repair, ScrubRecord, Superblock};

use crate::array::{Found, MemberErrors};
use crate::coordinator::Spare;
use crate::map::LogMode;
use crate::map::Service;
pub use refusal::Refusal;

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
    /// Keep a drive that holds nothing of use for the place of a member that goes out.
    AddSpare {
        /// Whose.
        array: ArrayId,
        /// The drive.
        spare: Spare,
    },
    /// Let a drive that holds nothing of use become the like of a member that is in use, and take its place then. Answered once
    /// that has begun.
    Succeed {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive.
        spare: Spare,
    },
    /// Give the array a further member, a drive that holds nothing of use, and move all data to where it lies with it. Answered once
    /// that has begun.
    Grow {
        /// Whose.
        array: ArrayId,
        /// The drive.
        spare: Spare,
    },
    /// Give the place of a member that is out to a drive that holds nothing of use.
    Replace {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive.
        spare: Spare,
    },
    /// Give its place back to a drive that was a member and went out, with what it holds: it is rebuilt only where something was
    /// written since. Refused if that cannot be.
    Return {
        /// Whose.
        array: ArrayId,
        /// The drive.
        spare: Spare,
        /// What it says of itself.
        said: Box<Superblock>,
    },
    /// Keep a drive as a spare no longer, and say whether any array uses it: one that none does may be closed.
    Release {
        /// The drive.
        device: DeviceId,
    },
    /// Let the drive go that is to succeed a member: the member stays.
    CancelSuccession {
        /// Whose.
        array: ArrayId,
    },
    /// Let the rebuild of a member wait, or go on.
    PauseRebuild {
        /// Whose.
        array: ArrayId,
        /// Whether it is to wait.
        paused: bool,
    },
    /// Make a device that holds nothing of use a copy of the log.
    AttachCopy {
        /// Whose.
        array: ArrayId,
        /// The device, with an identity for the copy.
        device: Spare,
        /// The copy that it replaces, if any: that one goes in the same step.
        instead: Option<u8>,
    },
    /// Make devices that hold nothing of use the copies of a log that is larger than the one there is, in the stead of its copies.
    RenewLog {
        /// Whose.
        array: ArrayId,
        /// The devices, with identities for the copies.
        devices: Vec<Spare>,
    },
    /// Read and compare everything.
    Scrub {
        /// Whose.
        array: ArrayId,
        /// What is asked.
        verb: ScrubVerb,
    },
    /// Take a log copy away for good, or no longer miss one that is lost.
    DetachCopy {
        /// Whose.
        array: ArrayId,
        /// Which.
        copy: u8,
    },
    /// Acknowledge writes otherwise from now on, and after every start that is not told how.
    SetMode {
        /// Whose.
        array: ArrayId,
        /// How.
        mode: LogMode,
    },
    /// Use a log copy no longer.
    FailCopy {
        /// Whose.
        array: ArrayId,
        /// Which.
        copy: u8,
    },
    /// Other volumes.
    Volume {
        /// Whose.
        array: ArrayId,
        /// What is asked.
        verb: VolumeVerb,
    },
}

/// What can be asked of scrubs. There is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubVerb {
    /// Begin one, from the beginning.
    Start {
        /// What is done about blocks that are wrong; none is what the array's settings say.
        repair: Option<Repair>,
        /// Bytes of each member a second at most; none is what the array's settings say.
        rate: Option<u64>,
        /// What time it is, in seconds since 1970.
        at: u64,
    },
    /// Let it wait.
    Pause,
    /// Let it go on.
    Resume,
    /// End it where it is.
    Stop,
}

/// Where hosts are to find a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The subsystem, by its NQN.
    pub subsystem: String,
    /// The namespace identifier; none is the lowest that is free.
    pub nsid: Option<u32>,
}

/// What can be asked of an array's volumes. They go by their numbers in the array's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeVerb {
    /// Make one. It reads as zeros.
    Create {
        /// Its name.
        name: String,
        /// Its size.
        blocks: u64,
        /// In what units hosts address it: those of the volume that is copied, if there is one.
        logical: LogicalBlock,
        /// What its identity is made of.
        random: [u64; 2],
        /// Where hosts find it, at once or when it is whole.
        export: Option<Export>,
        /// A volume to be copied into it, also of another array.
        copy_of: Option<VolumeId>,
    },
    /// Make one larger.
    Grow {
        /// Which.
        volume: u32,
        /// Its new size.
        blocks: u64,
    },
    /// Give one another name.
    Rename {
        /// Which.
        volume: u32,
        /// Its new name.
        name: String,
    },
    /// Have hosts find one at a further place.
    Export {
        /// Which.
        volume: u32,
        /// Where.
        export: Export,
    },
    /// Delete one, whoever uses it.
    Delete {
        /// Which.
        volume: u32,
    },
}

/// What became of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeWhat {
    /// It is there.
    Created {
        /// Its size.
        blocks: u64,
        /// Another is being copied into it.
        copied: bool,
    },
    /// It is larger.
    Grown {
        /// Its size.
        blocks: u64,
    },
    /// It has another name.
    Renamed {
        /// The one that it had.
        from: String,
    },
    /// Hosts find it at a further place.
    Exported,
    /// What was copied into it is whole.
    Copied,
    /// It is gone.
    Deleted,
    /// The space that it had is zeros, and free.
    Cleaned,
}

/// The end of a command.
#[derive(Debug)]
pub struct Answer {
    /// The command's ticket.
    pub ticket: u64,
    /// How it ended.
    pub result: Result<(), Refusal>,
}

/// Why a drive does not succeed a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuccessionEnd {
    /// It does not do what it should.
    Failed,
    /// The member went out before: the drive has its place, and is rebuilt from the others.
    MemberGone,
    /// No other member is whole any more: the drive gets the place of one that is out, and is rebuilt.
    Alone,
    /// Neither the member nor the others have what is in the zone of this stripe.
    Blocked {
        /// Its first stripe.
        stripe: StripeId,
    },
    /// Somebody wanted it so.
    Cancelled,
    /// The array takes no writes any more.
    Down,
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
    /// Volumes have changed, durably.
    Volume {
        /// Whose.
        array: ArrayId,
        /// Which, by its name.
        volume: String,
        /// How.
        what: VolumeWhat,
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
    /// The last copy of a log is lost.
    LogLost {
        /// Whose.
        array: ArrayId,
        /// What the array can do from now on.
        service: Service,
    },
    /// An array whose log is lost goes on without one.
    Exposed {
        /// Whose.
        array: ArrayId,
    },
    /// Without a log: so many zones, which a crash left dirty, are made to match from here on.
    ResyncBegan {
        /// Whose.
        array: ArrayId,
        /// How many.
        zones: u64,
    },
    /// A zone has a block that cannot be read: it stays dirty until the next start.
    ResyncBlocked {
        /// Whose.
        array: ArrayId,
        /// The first stripe of the zone.
        stripe: StripeId,
    },
    /// The resync has ended.
    Resynced {
        /// Whose.
        array: ArrayId,
        /// How many zones match now.
        zones: u64,
        /// How many stay dirty.
        blocked: u64,
    },
    /// Without a log: a member was lost, and of so many zones its data is to be had only from parities that may not match,
    /// since these were not resynced yet after a crash.
    ZonesAtStake {
        /// Whose.
        array: ArrayId,
        /// How many.
        zones: u64,
    },
    /// A member could not read blocks.
    ReadErrors {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// What was found since the last such event.
        errors: MemberErrors,
        /// How many blocks in the last hour, as far as that matters.
        in_the_hour: u32,
    },
    /// A member could not read more blocks within an hour than it may.
    TooManyErrors {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// Whether it is excluded for that; if not, the array cannot do without it.
        excluded: bool,
    },
    /// A member has become much slower than the others, or is so no longer.
    Slow {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// Whether it is slow.
        slow: bool,
        /// The mean of its requests in the last second of load.
        mean: Span,
        /// The median of the others'.
        peers: Span,
        /// Whether it is excluded for that.
        excluded: bool,
    },
    /// A member has not answered for too long, or has after all.
    Hanging {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// Whether it still has not.
        hangs: bool,
        /// Whether it is excluded for that; if not, the array cannot do without it and waits.
        excluded: bool,
    },
    /// A stripe cannot be destaged, since old content that its parity needs is lost: the first in a while.
    DestageBlocked {
        /// Whose.
        array: ArrayId,
        /// Which.
        stripe: StripeId,
        /// Slots whose blocks of it cannot be had, as a bit mask.
        members: u32,
    },
    /// So much cannot be destaged that a lane of the log is full: writes wait.
    LogPinned {
        /// Whose.
        array: ArrayId,
    },
    /// There has been none for a while that cannot be destaged.
    DestageUnblocked {
        /// Whose.
        array: ArrayId,
    },
    /// A drive is becoming the like of a member, to take its place.
    SuccessionBegan {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive that comes.
        device: DeviceId,
    },
    /// A drive is a further member of an array, and data begins to move to where it lies with it.
    GrowthBegan {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive.
        device: DeviceId,
    },
    /// Data cannot move for now: requests that use it do not end, or some of it cannot be read or destaged. It is tried again.
    GrowthBlocked {
        /// Whose.
        array: ArrayId,
        /// The first stripe that has not moved.
        stripe: StripeId,
    },
    /// All has moved, and there is more space.
    Grown {
        /// Whose.
        array: ArrayId,
        /// Data blocks that it has now.
        blocks: u64,
    },
    /// It has taken the place.
    Succeeded {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive that came.
        device: DeviceId,
        /// The drive that was there.
        before: DeviceId,
    },
    /// It does not take the place.
    SuccessionEnded {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive that was to come.
        device: DeviceId,
        /// Why.
        why: SuccessionEnd,
    },
    /// A drive has the place of a member, and is to be rebuilt.
    Joined {
        /// Whose.
        array: ArrayId,
        /// The place.
        slot: Slot,
        /// The drive.
        device: DeviceId,
        /// Of one that was a member before and comes back with what it holds: how many zones it missed.
        missed: Option<u64>,
    },
    /// A device is a copy of the log, and has all that the others have.
    Attached {
        /// Whose.
        array: ArrayId,
        /// Its place among the copies.
        copy: u8,
        /// The device.
        device: DeviceId,
    },
    /// Writes are acknowledged otherwise, durably.
    Mode {
        /// Whose.
        array: ArrayId,
        /// How.
        mode: LogMode,
    },
    /// Log copies are gone for good, durably, as an operator wanted.
    Detached {
        /// Whose.
        array: ArrayId,
        /// Which, as a bit mask.
        copies: u32,
        /// The epoch since which.
        epoch: u64,
    },
    /// A drive failed before it had the place.
    DriveRefused {
        /// Whose.
        array: ArrayId,
        /// The drive.
        device: DeviceId,
    },
    /// A member is being rebuilt from here on.
    RebuildBegan {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// Stripes below this are current on it already.
        position: StripeId,
    },
    /// Blocks of a zone cannot be had while a member is rebuilt: it stays behind there until the next start.
    RebuildBlocked {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// The first stripe of the zone.
        stripe: StripeId,
    },
    /// A member is whole again.
    Rebuilt {
        /// Whose.
        array: ArrayId,
        /// Which.
        slot: Slot,
    },
    /// All that an array's members hold is read and compared from here on.
    ScrubBegan {
        /// Whose.
        array: ArrayId,
        /// What is done about blocks that are wrong.
        repair: Repair,
        /// Stripes below this were seen already.
        position: StripeId,
    },
    /// Blocks of a zone do not agree, or cannot be read.
    ScrubFound {
        /// Whose.
        array: ArrayId,
        /// What was found.
        found: Box<Found>,
        /// Whether that is the last zone of which it is told, since there were too many.
        last: bool,
    },
    /// Everything was seen, or it was told to stop.
    ScrubEnded {
        /// Whose.
        array: ArrayId,
        /// How it ended.
        record: ScrubRecord,
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
