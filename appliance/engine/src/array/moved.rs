//! Blocks that move to where they lie with a further member, as the owners of their old and new places see it. The coordinator's
//! `growth` says in which order; no host uses them meanwhile.
//!
//! *Draining*: what the log has of the blocks goes to the members, where they are; and the stripes that they move to come to rest. All
//! that lives in these stripes moves, so nobody uses them either.
//!
//! In write-through the window before has to be on the members, too: so the log alone has one window at most.
//!
//! *Moving*: the blocks are logged as of the next geometry epoch, and kept at their new places as versions that are on their way into
//! the log: unseen by reads, and by destages. Log space for destaging them is set aside.
//!
//! When the map says that they have moved, and only then, they are dirty like any others; all columns of their stripes are, so no old
//! content counts. Should it not come to that they are dropped: recovery takes no notice of their records.

use core::ops::Range;

use base::ids::{ArrayBlock, LaneId, ShardId, StripeId};
use journal::payload_crc;
use ports::{BufferList, Ports};
use raid::Place;
use raid::reshape::Window;

use super::lane::{Acknowledgement, Item};
use super::stripes::{Content, Listed, VersionRef};
use super::{ArrayShard, Work};
use crate::io::IoError;
use crate::limits::{RECORDS_IN_FLIGHT, moved_log_blocks};
use crate::map::{ArrayMap, Moving, MovingStage, Service};
use crate::message::{Fragment, FragmentDone, Message};

/// Scratch buffers that a record with a pad before it takes, twice.
const RECORD_BUFFERS: usize = 4;

/// What this shard has logged of blocks that move.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    versions: Vec<VersionRef>,
    /// Log space that is set aside for what else moves, and the lane. What was logged stays in the log until all of it was: so all of
    /// the space has to be there before the first of it is.
    set_aside: Option<(LaneId, u64)>,
    /// The time of which the coordinator was told that it is drained.
    told: Option<u32>,
}

impl ArrayShard {
    /// The map has changed: perhaps what moved has come to its new place, or does not come there.
    pub(super) fn moving_changed<P: Ports>(&mut self, work: &mut Work<'_, P>, before: &ArrayMap) {
        if self.map.members.len() != before.members.len() {
            self.zone_has_members_to_come();
        }
        if self.map.moving.is_some() && before.moving.is_none() {
            // The coordinator has taken back what it had ordered.
            self.walker.cancel();
        }
        let run =
            |map: &ArrayMap| map.moving.filter(|moving| moving.stage != MovingStage::Arrived).map(|moving| moving.run);
        let goes_on = run(&self.map) == run(before)
            && (self.map.service == Service::ReadWrite || self.map.service.refuses_writes().is_some());
        if !goes_on && let Some((lane, blocks)) = self.moved.set_aside.take() {
            self.lane(lane).release(blocks);
        }
        let has_arrived =
            self.map.moving.filter(|moving| moving.stage == MovingStage::Arrived && before.moving != Some(*moving));
        if let Some(Moving { run, .. }) = has_arrived {
            self.reports.push_back(Message::WindowTaken { array: self.map.id, run });
        }
        if self.map.geometry_epoch != before.geometry_epoch {
            for version in core::mem::take(&mut self.moved.versions) {
                let lane = self.stripes.get(self.stripes.stripe_of(version)).lane;
                self.version_durable(work, lane, version, 0);
            }
        } else if !goes_on {
            self.drop_moved(work);
        }
    }

    /// Drops what was logged and does not count.
    fn drop_moved<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for version in core::mem::take(&mut self.moved.versions) {
            let stripe = self.stripes.stripe_of(version);
            let id = self.stripes.get(stripe).lane;
            let (sequence, content) = self.stripes.drop_logging(version);
            self.lane(id).forget(sequence);
            if core::mem::replace(&mut self.stripes.get_mut(stripe).reserved, false) {
                let blocks = self.map.destage_log_blocks();
                self.lane(id).release(blocks);
            }
            self.stripes.forget_if_empty(stripe);
            self.give_back(work, content);
        }
    }

    /// Whether what moves is nobody's any more, and the coordinator was not told that it is drained.
    pub(super) fn is_draining_window(&self) -> bool {
        let moving = self.map.moving.as_ref();
        moving.is_some_and(|moving| moving.stage == MovingStage::Draining && self.moved.told != Some(moving.run))
    }

    /// What moves, while that is so.
    fn draining(&self) -> Option<Moving> {
        if self.is_draining_window() { self.map.moving } else { None }
    }

    /// Sends to the members what the log has of blocks that move, and of the stripes that they move to.
    pub(super) fn drain_window<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let Some(Moving { window, .. }) = self.draining() else { return };
        let before = self.window_before(&window);
        for stripe in before.chain(window.stripes()).chain(window.sources().flatten()).map(StripeId) {
            let Some(at) = self.stripes.find(stripe) else { continue };
            let entry = self.stripes.get(at);
            let is_to_go = entry.durable != 0
                && entry.destage.is_none()
                && entry.listed != Some(Listed::Blocked)
                && !self.walker.locks(stripe);
            if is_to_go && self.may_start(work) {
                self.start_destage(work, at);
            }
        }
    }

    /// The stripes that moved last, if they have to be on the members before others move.
    fn window_before(&self, window: &Window) -> Range<u64> {
        if self.acknowledges_from_log() { 0..0 } else { window.stripes_before() }
    }

    /// Tells the coordinator, once, that the log has nothing more of the blocks that move and that their new stripes rest.
    pub(super) fn report_window_drained(&mut self) {
        let Some(Moving { run, window, .. }) = self.draining() else { return };
        let is_of_window = |stripe: StripeId| window.stripes().contains(&stripe.0);
        let rests = |stripe: StripeId| self.stripes.is_empty(stripe);
        let is_drained = |stripe: StripeId| {
            let columns = 0..self.map.arrangement.at(stripe).data_slots();
            columns.into_iter().all(|column| !window.moves_from(stripe, column) || !self.stripes.holds(stripe, column))
        };
        if self.walker.is_idle()
            && window.stripes().map(StripeId).all(rests)
            && !self.mends_any_of(window.stripes())
            && self.window_before(&window).map(StripeId).all(rests)
            && window.sources().flatten().map(StripeId).all(|stripe| is_of_window(stripe) || is_drained(stripe))
        {
            self.moved.told = Some(run);
            self.reports.push_back(Message::WindowDrained { array: self.map.id, run });
        }
    }

    /// Whether blocks that move may be logged now, or are refused.
    pub(super) fn may_move<P: Ports>(&self, work: &Work<'_, P>, id: LaneId, fragment: &Fragment) -> bool {
        let Some(moving) = self.map.moving.as_ref().filter(|_| self.map.service == Service::ReadWrite) else {
            return true;
        };
        let lane = self.lanes[id.index()].as_ref().expect("the owner asks");
        // What is read of the window itself may be put right there behind the answer: before it arrives. All reads have their turn
        // before the last of it is logged.
        let is_mended = self.mends_any_of(moving.window.stripes());
        // What is open goes first, in a record of its own.
        !is_mended
            && lane.in_flight + 1 < RECORDS_IN_FLIGHT
            && self.scratch.len() >= RECORD_BUFFERS
            && self.may_send(work)
            && self.stripes.room() >= usize::from(fragment.count)
            && (self.moved.set_aside.is_some() || lane.room() >= self.log_blocks_of_window())
    }

    /// Log space that all of the window takes.
    fn log_blocks_of_window(&self) -> u64 {
        let window = self.map.moving.expect("blocks move").window.first();
        let stripes = window.stripes().end - window.stripes().start;
        moved_log_blocks(self.map.arrangement.geometry().data_slots(), stripes, self.map.arrangement.parities())
    }

    /// Takes from the log space that is set aside.
    fn use_set_aside(&mut self, id: LaneId, blocks: u64) {
        let (_, left) = self.moved.set_aside.as_mut().expect("set aside with the first of it");
        *left = left.checked_sub(blocks).expect("as much was set aside as it takes");
        self.lane(id).release(blocks);
    }

    /// Nothing moves any more.
    pub(super) fn refuse_moved<P: Ports>(&mut self, work: &mut Work<'_, P>, from: ShardId, mut fragment: Fragment) {
        core::mem::take(&mut fragment.buffers).free(work.ports);
        let refused = FragmentDone::of(&fragment, Err(IoError::ReadOnly), BufferList::EMPTY);
        self.answers.push_back((from, refused));
    }

    /// Logs blocks that move, in a record of their own.
    pub(super) fn log_moved<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        id: LaneId,
        from: ShardId,
        mut fragment: Fragment,
    ) {
        let Some(moving) = self.map.moving.filter(|_| self.map.service == Service::ReadWrite) else {
            self.refuse_moved(work, from, fragment);
            return;
        };
        let Fragment { request, since, offset, .. } = fragment;
        let told = Acknowledgement { from, request, since, offset };
        if !self.lane(id).open.items.is_empty() {
            self.send_open(work, id);
        }
        if self.moved.set_aside.is_none() {
            let blocks = self.log_blocks_of_window();
            self.moved.set_aside = Some((id, blocks));
            self.lane(id).set_aside(blocks);
        }
        // Its descriptor, and a pad before it.
        self.use_set_aside(id, 2 + u64::from(fragment.count));
        for (at, place) in (0..).zip(places(&moving.window, &fragment)) {
            let stripe = self.stripes.find_or_add(place.stripe, id);
            if !core::mem::replace(&mut self.stripes.get_mut(stripe).reserved, true) {
                self.use_set_aside(id, self.map.destage_log_blocks());
                self.lane(id).reserve_again();
            }
            let buffer = fragment.buffers.pop(work.ports).expect("a buffer for each block");
            let is_zero = *work.ports.bytes(buffer.id()) == base::ZERO_BLOCK;
            let content = (!is_zero).then(|| (payload_crc(&self.map.log, work.ports.bytes(buffer.id())), buffer.id()));
            let kept = if is_zero {
                work.ports.free(buffer);
                Content::Zeros
            } else {
                Content::Held(buffer)
            };
            let version = self.stripes.add(stripe, place.column, kept);
            self.moved.versions.push(version);
            let block = ArrayBlock(fragment.start.0 + at);
            self.log(id, Item::Moved { version, block, content }, work.now);
        }
        let open = &mut self.lane(id).open;
        open.moves = true;
        open.acknowledgements.push(told);
        self.send_open(work, id);
        assert!(self.lane(id).open.items.is_empty(), "nothing else comes into a record of what moves");
    }
}

/// Where the blocks of a fragment will lie: all in one zone.
fn places(window: &Window, fragment: &Fragment) -> impl Iterator<Item = Place> + use<> {
    let (window, start) = (*window, fragment.start.0);
    (start..start + u64::from(fragment.count)).map(move |block| window.place_of(ArrayBlock(block)))
}
