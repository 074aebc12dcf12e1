//! Walks over zones, a range of stripes at a time, for work in the background that wants whole stripes and wants them to
//! hold still. What is done with a range is the walk's [`Action`]; the walk itself is the same for all.
//!
//! | file | holds |
//! |---|---|
//! | `walk/range` | the stripes that are locked and at hand |
//! | `walk/rebuild` | what a member that is being rebuilt gets |
//! | `walk/scrub` | what is compared, and put right |
//! | `walk/resync` | what a crash left behind, without a log, and is made to match |
//!
//! A range is *locked* first: no destage of its stripes begins from then on, and the walk waits for those under way until
//! the log no longer needs them. Then the members that hold the stripes are read, the action works on what was read, and
//! what it makes is written to the members that it is for. Ranges may overtake each other, and end in order. Two are under
//! way, so that one is read while the other is written; buffers for both are set aside, and the shard's share of operations
//! that reads leave alone is left alone here, too. What a destage may need is never held while waiting for one, so that
//! neither can wait for the other for ever. The price of the lock is that a destage whose stripe is the oldest of its lane
//! waits for a range, which is a few operations long.
//!
//! When a member fails, its range is begun again with the map that knows of it. Members that cannot read some of a range are done
//! without for all of it, if that can be; else the range is gone through stripe by stripe, and stays locked as a whole.

mod again;
mod range;
mod rebuild;
mod resync;
pub(crate) mod scrub;

use std::collections::VecDeque;

use base::ids::{Slot, StripeId, ZoneId};
use base::{BLOCK, Block};
use ports::{Buffer, DeviceError, DeviceOp, Ports};
use raid::Repair;
use raid::geometry::slots;

use super::checksums::Need;
use super::pace::{Limits, Pace};
use super::{ArrayShard, Purpose, Work};
use crate::limits::{RESERVED_OPERATIONS, ZONES_AT_A_SHARD};
use crate::message::Message;
use range::{Range, Step};
use scrub::{Found, Review};

/// Ranges under way at a time.
const RANGES: usize = 2;

/// Stripes of a range at most.
const MAX_RANGE_STRIPES: usize = 32;

/// Stripes of a range: few enough that putting them together does not hold up a turn.
const fn range_stripes(members: usize) -> usize {
    if members > 8 { MAX_RANGE_STRIPES / 2 } else { MAX_RANGE_STRIPES }
}

/// Buffers that the walks of each shard's part of an array of so many members set aside.
pub(crate) const fn set_aside_blocks(members: usize) -> usize {
    RANGES * range_stripes(members) * members
}

/// What is done with the stripes of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The blocks of a member that is being rebuilt are put together from the others and written to it.
    Rebuild(Slot),
    /// All blocks are read and compared, and those that are wrong are put right as far as this says.
    Scrub(Repair),
    /// Parities and mirrors that a crash may have left behind, without a log, are made to match.
    Resync,
}

/// A zone to be walked over.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Comes back with the report. Each rebuild, scrub and resync has a number of its own.
    pub run: u32,
    /// The zone.
    pub zone: ZoneId,
    /// What is to be done.
    pub action: Action,
    /// How fast.
    pub limits: Limits,
}

#[derive(Debug)]
struct Walk {
    order: Order,
    /// The first stripe that no range has had.
    next: StripeId,
    /// The first stripe that is not done.
    done: StripeId,
    end: StripeId,
    /// Nothing more is begun; what is under way ends.
    cancelled: bool,
}

/// The walks of an array's part, one at a time.
#[derive(Debug)]
pub(crate) struct Walker {
    orders: VecDeque<Order>,
    run: u32,
    /// A run has just begun: what an earlier life of its drive still has under way must not come after it.
    settling: bool,
    walk: Option<Walk>,
    ranges: [Range; RANGES],
    buffers: Vec<Buffer>,
    /// Checksum blocks that ranges had at hand and need no longer.
    left: Vec<(StripeId, u32)>,
    range_stripes: usize,
    /// What a scrub has found in the zone at hand, and where it computes.
    found: Found,
    scratch: Box<[Block; 2]>,
    pub(super) pace: Pace,
}

impl Walker {
    pub(crate) fn new(members: usize) -> Self {
        let stripes = range_stripes(members);
        let range = || Range {
            step: Step::Idle,
            locked: (StripeId(0), 0),
            start: StripeId(0),
            count: 0,
            unanswered: 0,
            failed: false,
            unreadable: 0,
            missing: 0,
            from: 0,
            kept: 0,
            rows: Vec::with_capacity(stripes * members),
            review: Review::default(),
        };
        Self {
            orders: VecDeque::with_capacity(ZONES_AT_A_SHARD),
            run: 0,
            settling: false,
            walk: None,
            ranges: [range(), range()],
            buffers: Vec::with_capacity(set_aside_blocks(members)),
            left: Vec::with_capacity(2 * RANGES),
            range_stripes: stripes,
            found: Found::default(),
            scratch: Box::new([[0; BLOCK]; 2]),
            pace: Pace::default(),
        }
    }

    /// Takes what it sets aside.
    pub(crate) fn prepare<P: Ports>(&mut self, ports: &mut P) {
        while self.buffers.len() < self.buffers.capacity() {
            self.buffers.push(ports.alloc().expect("the pool was sized with what every array sets aside"));
        }
    }

    /// Gives back what it set aside, after the last turn.
    pub(crate) fn release<P: Ports>(&mut self, ports: &mut P) {
        let held = self.ranges.iter_mut().flat_map(|range| range.rows.drain(..));
        for buffer in held.chain(self.buffers.drain(..)) {
            ports.free(buffer);
        }
    }

    /// A buffer of what it has set aside comes back.
    pub(crate) fn take_back(&mut self, buffer: Buffer) {
        self.buffers.push(buffer);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.walk.is_none() && self.orders.is_empty()
    }

    /// Whether no range is under way.
    pub(crate) fn is_still(&self) -> bool {
        self.ranges.iter().all(|range| matches!(range.step, Step::Idle | Step::Done))
    }

    /// Whether a destage of a stripe may not begin now.
    pub(crate) fn locks(&self, stripe: StripeId) -> bool {
        self.walk.is_some() && self.ranges.iter().any(|range| range.holds(stripe))
    }

    /// Whether it waits for destages to end.
    pub(crate) fn waits_for_destages(&self) -> bool {
        self.ranges.iter().any(|range| range.step == Step::Waiting)
    }

    /// When there is something to do, if nothing comes before.
    pub(crate) fn deadline(&self) -> base::time::Time {
        let is_to_begin = self.walk.as_ref().is_some_and(|walk| !walk.cancelled && walk.next < walk.end);
        let has_place = self.ranges.iter().any(|range| range.step == Step::Idle);
        if is_to_begin && has_place { self.pace.next() } else { base::time::Time::NEVER }
    }

    /// Ends everything without a report, as soon as what is under way has ended.
    pub(crate) fn cancel(&mut self) {
        self.orders.clear();
        let Some(walk) = &mut self.walk else { return };
        walk.cancelled = true;
        for at in 0..RANGES {
            if self.ranges[at].unanswered == 0 {
                self.give_back(at);
                self.ranges[at].step = Step::Idle;
            }
        }
        self.end_cancelled();
    }

    /// A range needs nothing more of what it has in its hands.
    fn give_back(&mut self, at: usize) {
        let range = &mut self.ranges[at];
        self.buffers.append(&mut range.rows);
        let kept = core::mem::take(&mut range.kept);
        if kept != 0 {
            self.left.push((range.start, kept));
        }
    }

    fn end_cancelled(&mut self) {
        if self.ranges.iter().all(|range| range.step == Step::Idle) {
            self.walk.take_if(|walk| walk.cancelled);
        }
    }
}

impl ArrayShard {
    /// Takes a zone to be walked over from the coordinator.
    pub(crate) fn order(&mut self, order: Order) {
        if self.halted || self.stopping {
            return;
        }
        if order.run != self.walker.run {
            // What an earlier run left under way is for a member that is gone.
            self.walker.cancel();
            self.walker.run = order.run;
            self.walker.settling = false;
            if let Action::Rebuild(slot) = order.action {
                self.walker.settling = true;
                self.presence.begin(slot);
            }
        }
        self.walker.orders.push_back(order);
    }

    /// Goes on with the walk.
    pub(crate) fn walk<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        self.leave_ranges();
        self.settle(work);
        if !self.walker.settling {
            self.begin_walk();
        }
        if self.walker.walk.is_none() || self.failing_members != 0 {
            return;
        }
        for at in 0..RANGES {
            if self.walker.walk.is_none() {
                // It was given up for what the range before found.
                break;
            }
            if self.walker.ranges[at].step == Step::Idle && self.map.hold.is_none() {
                self.lock_range(work, at);
            }
            match self.walker.ranges[at].step {
                Step::Waiting => self.read_range(work, at),
                Step::ToProbe => self.probe_range(work, at),
                Step::ToWrite => self.write_range(work, at),
                Step::Idle | Step::Reading | Step::Probing | Step::Writing | Step::Done => {}
            }
        }
    }

    /// Takes the next order up; zones that were never written need no walk.
    fn begin_walk(&mut self) {
        while self.walker.walk.is_none()
            && let Some(&order) = self.walker.orders.front()
        {
            let zone = order.zone;
            self.walker.found = Found::default();
            if matches!(order.action, Action::Scrub(_)) && !self.dirty.is_trusted(zone) {
                // What does not match there is nobody's mistake.
                self.walker.found.counts.skipped_stripes = self.map.arrangement.zone_stripes();
                self.walked(order);
            } else if self.zones.is_initialised(zone) && self.lacks_zone(order) {
                let start = StripeId(zone.0 * self.map.arrangement.zone_stripes());
                let mut end = StripeId(start.0 + self.map.arrangement.zone_stripes());
                if let Action::Rebuild(slot) = order.action {
                    self.presence.advance(zone, start);
                    end = end.min(self.end_of(slot)).max(start);
                }
                if start == end {
                    self.walked(order);
                    self.walker.orders.pop_front();
                    continue;
                }
                self.walker.walk = Some(Walk { order, next: start, done: start, end, cancelled: false });
            } else if matches!(order.action, Action::Rebuild(_)) && self.zones.is_being_zeroed(zone) {
                // Without the member that is being rebuilt: then it will be walked over.
                return;
            } else {
                self.walked(order);
            }
            self.walker.orders.pop_front();
        }
    }

    /// A zone is done.
    fn walked(&mut self, order: Order) {
        let found = match order.action {
            Action::Rebuild(_) => {
                self.presence.finish(order.zone);
                None
            }
            Action::Scrub(_) => self.walker.found.take(),
            Action::Resync => {
                self.zone_synced(order.zone);
                None
            }
        };
        self.reports.push_back(Message::ZoneWalked { array: self.map.id, run: order.run, zone: order.zone, found });
    }

    fn lock_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let members = self.map.members.len();
        let walker = &mut self.walker;
        let walk = walker.walk.as_mut().expect("a walk under way");
        if walk.cancelled
            || walk.next == walk.end
            || work.now < walker.pace.next()
            || work.operations.available() <= RESERVED_OPERATIONS + RANGES * members
        {
            return;
        }
        let count = walker.range_stripes.min((walk.end.0 - walk.next.0) as usize);
        let range = &mut walker.ranges[at];
        *range = Range {
            step: Step::Waiting,
            locked: (walk.next, count),
            start: walk.next,
            count,
            unanswered: 0,
            failed: false,
            unreadable: 0,
            missing: 0,
            from: 0,
            kept: 0,
            rows: core::mem::take(&mut range.rows),
            review: Review::default(),
        };
        walk.next.0 += count as u64;
        walker.pace.step(walk.order.limits, (count * BLOCK) as u64, work.now);
    }

    /// Reads a range from the members that hold it, once nobody changes it.
    fn read_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        if !self.holds_still(work, at) {
            return;
        }
        let order = self.walker.walk.as_ref().expect("a walk under way").order;
        let (start, count) = (self.walker.ranges[at].start, self.walker.ranges[at].count);
        let mut missing = self.missing(start);
        let from = match order.action {
            Action::Rebuild(target) => {
                missing |= 1 << target.0 | self.walker.ranges[at].unreadable;
                let Ok(from) = self.members_of_recipes(start, count, target, missing) else {
                    if count == 1 {
                        self.block_walk(order);
                    } else {
                        // Perhaps not all of them in the same stripe.
                        self.walker.ranges[at].narrow();
                        self.read_range(work, at);
                    }
                    return;
                };
                from
            }
            Action::Resync if self.walker.ranges[at].unreadable != 0 => {
                self.block_walk(order);
                return;
            }
            Action::Scrub(_) | Action::Resync => {
                self.walker.ranges[at].unreadable = 0;
                self.map.arrangement.geometry().all_members() & !missing
            }
        };
        if self.walker.buffers.len() < from.count_ones() as usize * count {
            // A device that was given up still has some.
            return;
        }
        let target = match order.action {
            Action::Rebuild(target) => 1 << target.0,
            Action::Scrub(_) | Action::Resync => 0,
        };
        if self.map.checksums {
            if !self.take_checksums(work, Need::Other, start, from | target) {
                return;
            }
            self.walker.ranges[at].kept = from | target;
        }
        for slot in slots(from) {
            let place = self.on_member(slot, start).expect("only members that are there are read");
            let Walker { ranges, buffers, .. } = &mut self.walker;
            let range = &mut ranges[at];
            let first = range.rows.len();
            range.rows.extend((0..count).map(|_| buffers.pop().expect("buffers for every range are set aside")));
            range.unanswered += 1;
            let purpose = Purpose::Walk { array: self.map.id, range: at as u8, slot, block: None };
            let row = range.rows[first..].iter().map(Buffer::id);
            work.operations.start(work.ports, place, DeviceOp::Read, row, purpose);
        }
        let range = &mut self.walker.ranges[at];
        range.failed = false;
        range.step = Step::Reading;
        (range.missing, range.from) = (missing, from);
    }

    /// Whether a locked range holds still: no destage of its stripes is under way, and whoever scrubs it has nothing else to
    /// wait for.
    fn holds_still<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) -> bool {
        let range = &self.walker.ranges[at];
        let (start, count) = (range.start, range.count);
        let action = self.walker.walk.as_ref().expect("a walk under way").order.action;
        // What recovery left half written differs from its checksum.
        if self.map.checksums && matches!(action, Action::Rebuild(_)) && !self.settle_range(work, at) {
            return false;
        }
        match action {
            Action::Rebuild(_) | Action::Resync => !(0..count as u64).any(|offset| {
                let stripe = self.stripes.find(StripeId(start.0 + offset));
                stripe.is_some_and(|stripe| self.stripes.get(stripe).destage.is_some())
            }),
            Action::Scrub(_) => self.settle_range(work, at),
        }
    }

    /// Some block of a range cannot be had: its zone cannot be done, and others can.
    fn block_walk(&mut self, order: Order) {
        let waiting = core::mem::take(&mut self.walker.orders);
        self.walker.cancel();
        self.walker.orders = waiting;
        self.presence.retreat();
        self.reports.push_back(Message::ZoneBlocked { array: self.map.id, run: order.run, zone: order.zone });
    }

    /// A member has answered.
    pub(crate) fn walk_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        at: u8,
        (slot, block): (Slot, Option<u8>),
        result: Result<(), DeviceError>,
    ) {
        let at = usize::from(at);
        let walk = self.walker.walk.as_ref().expect("a walk waits for its operations");
        let (is_cancelled, action) = (walk.cancelled, walk.order.action);
        let step = self.walker.ranges[at].step;
        let has_failed = match (action, step, result) {
            (_, _, Ok(())) => false,
            // It may still be had from others; the member is no worse for it.
            (Action::Rebuild(_) | Action::Resync, Step::Reading, Err(DeviceError::Unreadable)) => {
                self.found_unreadable(work, slot);
                self.walker.ranges[at].unreadable |= 1 << slot.0;
                true
            }
            (Action::Scrub(_), Step::Reading | Step::Probing, Err(DeviceError::Unreadable)) => {
                self.walker.ranges[at].note_unreadable(slot, block);
                false
            }
            // The drive does not take the block: it is no worse than it was, and that is seen when it is read again.
            (
                Action::Scrub(_),
                Step::Writing,
                Err(DeviceError::Unreadable | DeviceError::NoSpace | DeviceError::Other(_)),
            ) => false,
            (_, _, Err(_)) => {
                self.member_failed(slot);
                true
            }
        };
        let range = &mut self.walker.ranges[at];
        range.failed |= has_failed;
        range.unanswered -= 1;
        if range.unanswered > 0 {
            return;
        }
        if is_cancelled {
            range.step = Step::Idle;
            self.send_rows_home(work, at);
            self.walker.end_cancelled();
            self.leave_ranges();
        } else if range.failed {
            self.begin_range_again(work, at);
        } else {
            match action {
                Action::Rebuild(_) if step == Step::Reading => self.put_range_together(work, at),
                Action::Rebuild(_) => {
                    work.metrics.rebuilt_blocks.add(range.count as u64);
                    self.range_done(at);
                }
                Action::Scrub(_) => self.review_goes_on(work, at),
                Action::Resync if step == Step::Reading => self.match_range(work, at),
                Action::Resync => self.range_done(at),
            }
        }
    }

    fn range_done(&mut self, at: usize) {
        self.walker.give_back(at);
        let range = &mut self.walker.ranges[at];
        range.step = if range.advance() { Step::Waiting } else { Step::Done };
        self.leave_ranges();
        self.end_ranges();
    }

    /// Ranges at the front that are done are unlocked, in order; with the last one the zone is.
    fn end_ranges(&mut self) {
        let Walker { walk, ranges, .. } = &mut self.walker;
        let walk_now = walk.as_mut().expect("a walk under way");
        while let Some(range) =
            ranges.iter_mut().find(|range| range.step == Step::Done && range.locked.0 == walk_now.done)
        {
            walk_now.done.0 += range.locked.1 as u64;
            range.step = Step::Idle;
        }
        let order = walk_now.order;
        if walk_now.done == walk_now.end {
            *walk = None;
            self.walked(order);
        } else {
            match order.action {
                Action::Rebuild(_) => self.presence.advance(order.zone, walk_now.done),
                Action::Scrub(_) | Action::Resync => {}
            }
        }
    }

    /// Ends a rebuild whose member is gone, or whole. What others had in mind to write is thought over.
    pub(crate) fn walk_members_changed<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for at in 0..RANGES {
            if matches!(self.walker.ranges[at].step, Step::ToProbe | Step::ToWrite) {
                self.begin_range_again(work, at);
            }
        }
        if self.presence.slot().is_some_and(|slot| !self.map.is_rebuilding(slot)) {
            self.walker.cancel();
            self.presence.end();
        }
    }
}

const _: () = assert!(range_stripes(2) <= ports::MAX_DEVICE_BLOCKS);
const _: () = assert!(
    raid::checksum::BLOCK_ENTRIES.is_multiple_of(MAX_RANGE_STRIPES as u64),
    "one checksum block of a member has all entries of a range"
);
