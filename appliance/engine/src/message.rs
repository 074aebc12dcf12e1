//! What shards, the coordinator and the control side say to each other. A message is at most 64 bytes; buffers travel with
//! it by ownership.

use std::sync::Arc;

use base::ids::{ArrayBlock, ArrayId, DeviceId, Slot, StripeId, ZoneId};
use base::sector::Margins;
use base::snapshot::Snapshot;
use base::time::{Span, Time};
use ports::{BufferList, DeviceError};

use crate::array::{Found, MemberErrors, Order};
use crate::command::{Answer, Command, Event};
use crate::fence::Association;
use crate::front::{Cause, FrontMessage};
use crate::io::IoError;
use crate::map::{ArrayMap, VolumeTables};
use crate::status::ShardStatus;

/// A part of a request that lies within one chunk, hence in one zone and one lane.
#[derive(Debug)]
pub struct Fragment {
    /// The request it belongs to, on the shard that it came from.
    pub request: u64,
    /// When it was sent, for measuring how long hosts wait.
    pub since: Time,
    /// Whose it is.
    pub association: Association,
    /// Blocks of the request before this part.
    pub offset: u32,
    /// How many blocks, at most [`crate::limits::MAX_FRAGMENT_BLOCKS`].
    pub count: u16,
    /// The array.
    pub array: ArrayId,
    /// What to do.
    pub kind: FragmentKind,
    /// What of the first and the last block is not meant.
    pub margins: Margins,
    /// The first block.
    pub start: ArrayBlock,
    /// One buffer per block; two of a compare and write; none of zeros.
    pub buffers: BufferList,
}

/// What a fragment wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentKind {
    /// Fill the buffers.
    Read,
    /// Store the buffers.
    Write,
    /// Store zeros.
    Zero,
    /// Compare the buffers with what is stored.
    Compare,
    /// Log the buffers where the blocks are to lie by the window that moves. Nobody reads them there before the map says so.
    Move,
    /// Compare the first half of the buffers with what is stored, and if it is the same store the second, in one step.
    CompareAndWrite,
}

/// The end of a fragment.
#[derive(Debug)]
pub struct FragmentDone {
    /// The request.
    pub request: u64,
    /// When it was sent.
    pub since: Time,
    /// Blocks of the request before this part.
    pub offset: u32,
    /// How it ended.
    pub result: Result<(), IoError>,
    /// A read's buffers, whether it succeeded or not.
    pub buffers: BufferList,
}

/// A message of the mesh.
#[derive(Debug)]
pub enum Message {
    /// To the owner of a zone: a part of a request.
    Fragment(Fragment),
    /// Back from the owner.
    FragmentDone(FragmentDone),
    /// Between front ends.
    Front(FrontMessage),
    /// From an association's home, to every shard: requests of an older epoch are dropped from now on.
    Raise {
        /// Its next epoch.
        association: Association,
        /// Why.
        cause: Cause,
    },
    /// Back from there: none of them is under way any more.
    Raised(Association),
    /// To every owner: what waits of a request is to be dropped.
    Abort {
        /// The request, on the shard that this comes from.
        request: u64,
    },
    /// Back from there, behind the answers to what was dropped.
    AbortTried {
        /// The request.
        request: u64,
    },
    /// To the coordinator: a member, or a successor, does not answer as it should.
    MemberFailed {
        /// Whose member.
        array: ArrayId,
        /// Its device: the place may have another by now.
        device: DeviceId,
    },
    /// To the coordinator: what was found on a member since it last heard.
    MemberErrors {
        /// Whose member.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// What.
        errors: MemberErrors,
    },
    /// To the coordinator: a member has become much slower than the others, or is so no longer.
    MemberSlow {
        /// Whose member.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// Whether it is slow.
        slow: bool,
        /// The mean of its requests.
        mean: Span,
        /// The median of the others'.
        peers: Span,
    },
    /// To the coordinator: a member has not answered for too long, or has after all.
    MemberHangs {
        /// Whose member.
        array: ArrayId,
        /// Which.
        slot: Slot,
        /// Whether it still has not.
        hangs: bool,
    },
    /// To the coordinator: a stripe cannot be destaged, for the first time in a while.
    DestageBlocked {
        /// Whose stripe.
        array: ArrayId,
        /// Which.
        stripe: StripeId,
        /// Slots whose old content cannot be had, as a bit mask.
        members: u32,
    },
    /// To the coordinator: so much cannot be destaged that a lane of the log is full, and writes wait.
    LogPinned {
        /// Whose log.
        array: ArrayId,
    },
    /// To the coordinator: there has been none for a while that cannot be destaged.
    DestageUnblocked {
        /// Whose.
        array: ArrayId,
    },
    /// To the coordinator: a log copy does not answer as it should.
    CopyFailed {
        /// Whose log.
        array: ArrayId,
        /// Which copy.
        copy: u8,
        /// How.
        error: DeviceError,
    },
    /// To the coordinator: a newcomer among the log's copies has all that this shard's lanes need.
    CopyCaughtUp {
        /// Whose log.
        array: ArrayId,
        /// The newcomer's number.
        run: u32,
    },
    /// To the coordinator: writes are acknowledged here in the mode of the map that came last.
    ModeTaken {
        /// Whose.
        array: ArrayId,
    },
    /// To the coordinator, with the log lost: the members have everything of this shard's that was acknowledged.
    Drained {
        /// Whose.
        array: ArrayId,
        /// They do not, and cannot: it must be destaged with old content that cannot be had.
        blocked: bool,
    },
    /// To the coordinator, while hosts' writes wait: nothing of this shard's is under way any more.
    Still {
        /// Whose.
        array: ArrayId,
        /// Which time of waiting.
        run: u32,
    },
    /// To the coordinator, while blocks move: none of this shard's requests uses them any more.
    Fenced {
        /// Whose.
        array: ArrayId,
        /// Which time.
        run: u32,
    },
    /// To the coordinator, behind that: the log has nothing more of them here, and nobody works on the stripes that they move to.
    WindowDrained {
        /// Whose.
        array: ArrayId,
        /// Which time.
        run: u32,
    },
    /// To the coordinator: this shard knows that they have come to their new places.
    WindowTaken {
        /// Whose.
        array: ArrayId,
        /// Which time.
        run: u32,
    },
    /// To the coordinator: a zone has been zeroed and flushed on all members.
    ZoneZeroed {
        /// Whose zone.
        array: ArrayId,
        /// Which.
        zone: ZoneId,
    },
    /// From the coordinator: the zone's bit is durable.
    ZoneInitialised {
        /// Whose zone.
        array: ArrayId,
        /// Which.
        zone: ZoneId,
    },
    /// To the coordinator, without a log: a zone is about to be written, or has rested since its writes were flushed.
    ZoneDirty {
        /// Whose zone.
        array: ArrayId,
        /// Which.
        zone: ZoneId,
        /// Whether it is dirty from now on.
        dirty: bool,
    },
    /// From the coordinator: that the zone is dirty is durable on all members.
    ZoneNoted {
        /// Whose zone.
        array: ArrayId,
        /// Which.
        zone: ZoneId,
    },
    /// To the coordinator, while a member is out: something in a zone is about to change.
    ZoneMissed {
        /// Whose zone.
        array: ArrayId,
        /// Which.
        zone: ZoneId,
    },
    /// From the coordinator: that the zone was missed is durable on all members.
    ZoneMarked {
        /// Whose zone.
        array: ArrayId,
        /// Which.
        zone: ZoneId,
    },
    /// To the coordinator: a member was lost whose data parities are to stand for that were not resynced yet.
    ZonesAtStake {
        /// Whose zones.
        array: ArrayId,
        /// How many.
        zones: u64,
    },
    /// From the coordinator to the owner of a zone: walk over it.
    Walk {
        /// Whose zone.
        array: ArrayId,
        /// Which, and what for.
        order: Order,
    },
    /// To the coordinator: some block of the zone cannot be had, and it is not done.
    ZoneBlocked {
        /// Whose zone.
        array: ArrayId,
        /// The number that came with the order.
        run: u32,
        /// Which.
        zone: ZoneId,
    },
    /// To the coordinator: that was done.
    ZoneWalked {
        /// Whose zone.
        array: ArrayId,
        /// The number that came with the order.
        run: u32,
        /// Which.
        zone: ZoneId,
        /// What a scrub found there, if anything.
        found: Option<Box<Found>>,
    },
    /// From the coordinator: an array's new epoch, durable.
    Map(Snapshot<ArrayMap>),
    /// From the coordinator: other volumes, or other places at which hosts find them. Also to the control side.
    Volumes(Arc<VolumeTables>),
    /// To the coordinator: this table is in force here, and nothing is under way at volumes that leave with it.
    VolumesTaken {
        /// Which table.
        epoch: u64,
    },
    /// From the control side: stop cleanly; passed on by the coordinator.
    Stop,
    /// To the coordinator: all lanes of this shard rest at an empty transaction.
    LanesClosed,
    /// From the coordinator: every shard's lanes rest; end.
    End,
    /// From the control side to the coordinator.
    Command(Box<Command>),
    /// From the coordinator to the control side: how a command ended.
    Answer(Box<Answer>),
    /// From the coordinator to the control side: what happened.
    Event(Box<Event>),
    /// From the control side: say how you are.
    AskStatus,
    /// To the control side.
    Status(Box<ShardStatus>),
}

impl From<FrontMessage> for Message {
    fn from(message: FrontMessage) -> Self {
        Self::Front(message)
    }
}

const _: () = assert!(size_of::<Message>() <= 64);
