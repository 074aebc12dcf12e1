//! One lane of the log as its owner writes it: the open transaction, the records under way to the copies, those in the log,
//! and the anchor that says where recovery starts.
//!
//! What comes in is gathered in the *open* transaction and sent as one record when the lane is idle or enough has gathered
//! (group commit). Sequence numbers are given when a record is sent, because a pad before it takes one too. Records become
//! durable in order, however the copies answer. A record keeps its space as long as a version in it is *live*: not yet
//! recorded as destaged and not replaced by a durable newer one. The tail is the oldest record that is live or the last
//! durable one; it frees space only once an anchor that names it is durable on every copy.
//!
//! The lane knows nothing of stripes and devices' answers beyond their slots; [`super::commit`] connects them.

use std::collections::VecDeque;

use base::ids::{ArrayBlock, LaneId, ShardId, StripeId};
use base::slab::Key;
use base::time::Time;
use journal::format::{FIRST_SEQUENCE, first_anchor};
use journal::{Anchor, Entry, LaneSpace, MAX_ENTRIES, MAX_RECORD_BLOCKS, format_lane};
use ports::{Buffer, BufferId};

use super::again::Again;
use super::destage::Destage;
use super::stripes::{StripeLists, VersionRef};
use crate::limits::{DESTAGED_WORTH_ENTRIES, RECORD_WORTH_BLOCKS, RECORDS_IN_FLIGHT};
use crate::map::ArrayMap;
use crate::message::Fragment;

/// Records of a lane that the table has room for from the start. More than that are in a log only after very many that
/// carry next to nothing.
const RECORDS_EXPECTED: usize = 16 * 1024;

/// Log space that is never given to hosts: room for pads and for records that carry little.
pub const SLACK_BLOCKS: u64 = 2 * MAX_RECORD_BLOCKS as u64;

/// The epoch that opening records of a new log bear: the first that any array has.
pub(crate) const FORMAT_EPOCH: u64 = 1;

/// Something to be logged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    /// New content. `through` is the key of a write-through fragment that waits for it, or 0.
    Data {
        version: VersionRef,
        block: ArrayBlock,
        crc: u32,
        buffer: BufferId,
        through: u64,
    },
    /// Zeros for a run of blocks of one chunk, with the same. Each has its version, found by its order.
    Zeros {
        block: ArrayBlock,
        count: u32,
        through: u64,
    },
    /// Content that is in the log already; none is zeros.
    Again {
        version: VersionRef,
        block: ArrayBlock,
        content: Option<(u32, BufferId)>,
    },
    /// Content that moves to where its block lies by the next geometry epoch; none is zeros.
    Moved {
        version: VersionRef,
        block: ArrayBlock,
        content: Option<(u32, BufferId)>,
    },
    Parity {
        destage: Key<Destage>,
        stripe: StripeId,
        /// 0 is P, 1 is Q.
        index: u8,
        crc: u32,
        buffer: BufferId,
    },
    Covers {
        block: ArrayBlock,
        sequence: u64,
    },
    Destaged {
        destage: Key<Destage>,
        stripe: StripeId,
        upto: u64,
    },
}

impl Item {
    /// Whether it brings a block of payload.
    pub(crate) const fn has_payload(&self) -> bool {
        match self {
            Self::Data { .. } | Self::Parity { .. } => true,
            Self::Again { content, .. } | Self::Moved { content, .. } => content.is_some(),
            Self::Zeros { .. } | Self::Covers { .. } | Self::Destaged { .. } => false,
        }
    }
}

/// Who is told when a transaction is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) from: ShardId,
    pub(crate) request: u64,
    pub(crate) since: Time,
    pub(crate) offset: u32,
}

/// What one transaction carries.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) items: Vec<Item>,
    pub(crate) acknowledgements: Vec<Acknowledgement>,
    pub(crate) payload_blocks: usize,
    /// Whether someone waits for it: a host or a parity record.
    pub(crate) urgent: bool,
    /// Whether it is of the next geometry epoch: what moves, and nothing else.
    pub(crate) moves: bool,
    /// When its first item came.
    since: Time,
}

impl Group {
    fn new() -> Self {
        Self {
            items: Vec::with_capacity(MAX_ENTRIES),
            acknowledgements: Vec::with_capacity(MAX_ENTRIES),
            payload_blocks: 0,
            urgent: false,
            moves: false,
            since: Time::NEVER,
        }
    }

    fn clear(&mut self) {
        self.items.clear();
        self.acknowledgements.clear();
        self.payload_blocks = 0;
        self.urgent = false;
        self.moves = false;
        self.since = Time::NEVER;
    }
}

/// A record in the log or on its way there.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) position: u64,
    pub(crate) incarnation: u64,
    /// CRC of the record before, which an anchor at this record repeats.
    pub(crate) previous_crc: u32,
    /// Versions that need it.
    pub(crate) live: u32,
    /// Copies that have not answered, as a bit mask.
    pub(crate) unanswered: u32,
    /// Copies that failed it and are not excluded yet.
    pub(crate) failed: u32,
    /// Whether it has been applied: durable on every copy, and all before it.
    pub(crate) durable: bool,
    /// Its descriptor, while under way.
    pub(crate) descriptor: Option<Buffer>,
    /// What it carries, while under way; none for a pad.
    pub(crate) group: Option<Box<Group>>,
}

impl Record {
    /// One that the log holds: sequence, position, incarnation, CRC of the record before.
    fn durable((sequence, position, incarnation, previous_crc): (u64, u64, u64, u32), live: u32) -> Self {
        Self {
            sequence,
            position,
            incarnation,
            previous_crc,
            live,
            unanswered: 0,
            failed: 0,
            durable: true,
            descriptor: None,
            group: None,
        }
    }
}

/// An anchor on its way to the copies.
#[derive(Debug)]
pub(crate) struct AnchorWrite {
    pub(crate) anchor: Anchor,
    pub(crate) unanswered: u32,
    pub(crate) failed: u32,
    pub(crate) buffer: Buffer,
}

/// Where recovery, or formatting, left a lane.
#[derive(Clone, Debug)]
pub struct LaneStart {
    /// Which lane.
    pub lane: LaneId,
    /// Space as recovery found it.
    pub space: LaneSpace,
    /// Records in the log, oldest first: sequence, position, incarnation, CRC of the record before. The last is the opening
    /// record of this incarnation.
    pub records: Vec<(u64, u64, u64, u32)>,
    /// CRC of the last record.
    pub last_crc: u32,
    /// The anchor that is in force.
    pub anchor: Anchor,
}

impl LaneStart {
    /// A lane of a log that was just formatted for this incarnation.
    pub(crate) fn formatted(map: &ArrayMap, lane: LaneId) -> Self {
        let (layout, incarnation) = (&map.log_layout, map.incarnation);
        let (_, last_crc) = format_lane(layout, &map.log, lane, incarnation, FORMAT_EPOCH, map.geometry_epoch);
        let records = vec![(FIRST_SEQUENCE, 0, incarnation, 0)];
        Self { lane, space: LaneSpace::new(layout, 0, 1), records, last_crc, anchor: first_anchor(lane, incarnation) }
    }

    /// A lane of an array without a log.
    pub fn without_log(lane: LaneId) -> Self {
        let (update, tail_position, tail_sequence, tail_incarnation, tail_previous_crc) = (0, 0, 0, 0, 0);
        let anchor = Anchor { lane, update, tail_position, tail_sequence, tail_incarnation, tail_previous_crc };
        Self { lane, space: LaneSpace::none(), records: Vec::new(), last_crc: 0, anchor }
    }
}

/// A lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) space: LaneSpace,
    pub(crate) records: VecDeque<Record>,
    pub(crate) open: Box<Group>,
    // Boxed, since a group moves from here to a record and back.
    #[allow(clippy::vec_box)]
    spare_groups: Vec<Box<Group>>,
    pub(crate) in_flight: usize,
    pub(crate) next_sequence: u64,
    pub(crate) last_crc: u32,
    /// Highest sequence that is durable: what the next record says as `durable_upto`.
    pub(crate) durable_upto: u64,
    pub(crate) anchor: Anchor,
    pub(crate) anchor_write: Option<AnchorWrite>,
    /// Log space set aside for destaging.
    pub(crate) reserve: u64,
    /// Log space that is set aside for a stripe.
    destage_blocks: u64,
    /// Fragments that found no room, oldest first.
    pub(crate) waiting: VecDeque<(ShardId, Fragment)>,
    pub(crate) stripes: StripeLists,
    pub(crate) again: Again,
    /// How far a clean stop has come.
    pub(crate) closing: Closing,
    /// Whether it stands among those that have something to do.
    pub(crate) awake: bool,
    /// Whether its anchor should move and could not yet.
    pub(crate) anchor_wanted: bool,
    /// The first record that a newcomer among the copies has, until an anchor that names it or a later one is durable: then the
    /// newcomer has all that the lane needs.
    pub(crate) catch_up: Option<u64>,
}

/// The steps of a clean stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    No,
    /// An empty transaction with this sequence is on its way.
    Marking(u64),
    /// The anchor that names it is on its way.
    Anchoring,
    Closed,
}

impl Lane {
    /// A lane as start-up left it; destaging a stripe takes up to `destage_blocks` of it, and so many fragments may wait.
    pub(crate) fn new(start: LaneStart, live: impl Fn(u64) -> u32, destage_blocks: u64, waiting: usize) -> Self {
        let mut records = VecDeque::with_capacity(RECORDS_EXPECTED);
        records.extend(start.records.into_iter().map(|record| Record::durable(record, live(record.0))));
        // Without a log there is none; with one, at least its opening record.
        let last = records.back().map_or(0, |record| record.sequence);
        let mut lane = Self {
            id: start.lane,
            space: start.space,
            records,
            open: Box::new(Group::new()),
            spare_groups: (0..2 * RECORDS_IN_FLIGHT + 2).map(|_| Box::new(Group::new())).collect(),
            in_flight: 0,
            next_sequence: last + 1,
            last_crc: start.last_crc,
            durable_upto: last,
            anchor: start.anchor,
            anchor_write: None,
            reserve: 0,
            destage_blocks,
            waiting: VecDeque::with_capacity(waiting),
            stripes: StripeLists::default(),
            again: Again::default(),
            closing: Closing::No,
            awake: true,
            anchor_wanted: false,
            catch_up: None,
        };
        lane.trim();
        if let Some(tail) = lane.records.front() {
            lane.space.release_to(tail.position);
        }
        lane
    }

    /// Blocks that host data may still take, descriptors included.
    pub(crate) fn room(&self) -> u64 {
        self.space.free_blocks().saturating_sub(self.open_blocks() + self.reserve + SLACK_BLOCKS)
    }

    fn open_blocks(&self) -> u64 {
        if self.open.items.is_empty() { 0 } else { 1 + self.open.payload_blocks as u64 }
    }

    /// Whether the open transaction can take so many more entries and payload blocks.
    pub(crate) fn fits(&self, entries: usize, payload: usize) -> bool {
        self.open.items.len() + entries <= MAX_ENTRIES && self.open.payload_blocks + payload < MAX_RECORD_BLOCKS
    }

    /// Sets log space aside for destaging a stripe, if host data leaves that much.
    pub(crate) fn reserve(&mut self) -> bool {
        if self.room() < self.destage_blocks {
            return false;
        }
        self.reserve += self.destage_blocks;
        true
    }

    /// Sets log space aside for destaging a stripe that recovery found dirty: it was set aside before the crash, too.
    pub(crate) fn reserve_again(&mut self) {
        self.reserve += self.destage_blocks;
    }

    /// Sets log space aside for what is to come; the caller has seen that there is room.
    pub(crate) fn set_aside(&mut self, blocks: u64) {
        self.reserve += blocks;
    }

    /// Gives back log space that was set aside.
    pub(crate) fn release(&mut self, blocks: u64) {
        self.reserve = self.reserve.checked_sub(blocks).expect("what is released was reserved");
    }

    /// Adds to the open transaction; the caller has seen that it fits.
    pub(crate) fn push(&mut self, item: Item, now: Time) {
        self.open.payload_blocks += usize::from(item.has_payload());
        if !matches!(item, Item::Destaged { .. }) {
            self.open.urgent = true;
        }
        if self.open.items.is_empty() {
            self.open.since = now;
        }
        self.open.items.push(item);
        assert!(self.open.items.len() <= MAX_ENTRIES, "the caller has seen that the item fits");
    }

    /// Whether the open transaction should be sent now. `patience` is how long destaged entries alone may wait.
    pub(crate) fn is_due(&self, now: Time, patience: base::time::Span) -> bool {
        if self.open.items.is_empty() || self.in_flight >= RECORDS_IN_FLIGHT {
            return false;
        }
        if self.open.urgent {
            return self.in_flight == 0 || self.open.payload_blocks >= RECORD_WORTH_BLOCKS || !self.fits(64, 64);
        }
        self.open.items.len() >= DESTAGED_WORTH_ENTRIES || !self.waiting.is_empty() || now >= self.open.since + patience
    }

    /// When the open transaction will be due, if nothing else comes.
    pub(crate) fn due_at(&self, patience: base::time::Span) -> Time {
        if self.open.items.is_empty() || self.open.urgent { Time::NEVER } else { self.open.since + patience }
    }

    /// Takes the open transaction out and opens another.
    pub(crate) fn take_open(&mut self) -> Box<Group> {
        let next = self.spare_groups.pop().unwrap_or_else(|| Box::new(Group::new()));
        core::mem::replace(&mut self.open, next)
    }

    /// Keeps a transaction's lists for a later one.
    pub(crate) fn recycle(&mut self, mut group: Box<Group>) {
        group.clear();
        self.spare_groups.push(group);
    }

    /// The log is given up: takes out the records that are not durable, with what they carry, and the open transaction.
    pub(crate) fn give_up_log(&mut self) -> (Vec<Record>, Box<Group>) {
        let LaneStart { space, anchor, .. } = LaneStart::without_log(self.id);
        assert!(self.anchor_write.is_none(), "operations at a copy end with its exclusion");
        let records = self.records.drain(..).filter(|record| !record.durable).collect();
        (self.space, self.anchor) = (space, anchor);
        (self.in_flight, self.reserve, self.catch_up, self.anchor_wanted) = (0, 0, None, false);
        if self.closing != Closing::Closed {
            self.closing = Closing::No;
        }
        (records, self.take_open())
    }

    /// The log that there is ends, if there is one: nothing of it is needed any more.
    pub(crate) fn end_log(&mut self) {
        let (records, open) = self.give_up_log();
        assert!(records.is_empty() && open.items.is_empty(), "a log ends when nothing is under way");
        self.recycle(open);
        self.again = Again::default();
    }

    /// A log begins: this lane of it as it was formatted, with nothing in it but its opening record.
    pub(crate) fn take_log(&mut self, start: &LaneStart) {
        assert!(self.is_still() && self.records.is_empty(), "a log begins when nothing is under way");
        self.records.extend(start.records.iter().map(|&record| Record::durable(record, 0)));
        let last = self.records.back().expect("a new lane has its opening record").sequence;
        (self.space, self.anchor, self.last_crc) = (start.space, start.anchor, start.last_crc);
        (self.next_sequence, self.durable_upto, self.reserve) = (last + 1, last, 0);
    }

    /// Takes away what was on its way to copies that are lost, at the very end.
    pub(crate) fn take_buffers(&mut self) -> impl Iterator<Item = Buffer> {
        let descriptors = self.records.iter_mut().filter_map(|record| record.descriptor.take());
        descriptors.chain(self.anchor_write.take().map(|write| write.buffer))
    }

    /// The record of a sequence.
    pub(crate) fn record_mut(&mut self, sequence: u64) -> &mut Record {
        let first = self.records.front().expect("the log holds a record").sequence;
        let record = &mut self.records[(sequence - first) as usize];
        assert_eq!(record.sequence, sequence, "records are numbered without a gap");
        record
    }

    /// A version in this record is needed no longer.
    pub(crate) fn forget(&mut self, sequence: u64) {
        let record = self.record_mut(sequence);
        record.live = record.live.checked_sub(1).expect("a record's live count covers its versions");
    }

    /// Drops records that nothing needs from the front, but for the last durable one; the tail is the front then.
    pub(crate) fn trim(&mut self) {
        while self.records.len() > 1 && self.records[0].live == 0 && self.records[0].durable && self.records[1].durable
        {
            self.records.pop_front();
        }
    }

    /// The tail in memory.
    pub(crate) fn tail(&self) -> &Record {
        self.records.front().expect("the log holds a record")
    }

    /// Whether it has nothing to do and nothing to wait for but what wakes it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_quiet() && self.stripes.are_empty() && !self.anchor_wanted && self.catch_up.is_none()
    }

    /// Whether nothing is open or under way, and nothing waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_still() && self.waiting.is_empty()
    }

    /// Whether nothing is open or under way.
    pub(crate) fn is_still(&self) -> bool {
        self.open.items.is_empty() && self.in_flight == 0 && self.anchor_write.is_none()
    }
}

/// The entry that describes an item in a record of this sequence.
pub(crate) fn entry_of(item: &Item, sequence: u64) -> Entry {
    let lag = |earlier: u64| u32::try_from(sequence - earlier).expect("a lane holds fewer than 2^32 records");
    match *item {
        Item::Data { block, crc, .. } => Entry::Data { block, crc },
        Item::Zeros { block, count, .. } => Entry::Zeros { block, count },
        Item::Again { block, content, .. } | Item::Moved { block, content, .. } => match content {
            Some((crc, _)) => Entry::Data { block, crc },
            None => Entry::Zeros { block, count: 1 },
        },
        Item::Parity { stripe, index, crc, .. } => Entry::Parity { stripe, index, crc },
        Item::Covers { block, sequence: covered } => Entry::Covers { block, lag: lag(covered) },
        Item::Destaged { stripe, upto, .. } => Entry::Destaged { stripe, lag: lag(upto) },
    }
}
