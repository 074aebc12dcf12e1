//! Admission of writes to a lane, and of updates to their beginning. A fragment is admitted whole, into one transaction, so that it becomes visible in one
//! step (rule L11); it waits, in order, while the lane lacks log space for it *and* for destaging every stripe that it
//! makes dirty (rule L8), or the cache lacks room.

use base::BLOCK;
use base::ids::{ArrayBlock, LaneId, ShardId, StripeId, ZoneId};
use journal::payload_crc;
use ports::{Buffer, BufferList, Ports};

use super::commit::run_of;
use super::exposure::OWED;
use super::lane::{Acknowledgement, Item};
use super::stripes::Content;
use super::{ArrayShard, Work};
use crate::io::IoError;
use crate::map::Service;
use crate::message::{Fragment, FragmentDone, FragmentKind};
use crate::router::Dropped;

/// A write-through fragment whose stripes are on their way to the members.
#[derive(Debug)]
pub(crate) struct Through {
    pub(crate) told: Acknowledgement,
    /// Blocks that are not on the members yet.
    pub(crate) blocks: u16,
}

impl ArrayShard {
    /// Takes a write, or zeros, from a router.
    pub(crate) fn write<P: Ports>(&mut self, work: &mut Work<'_, P>, from: ShardId, fragment: Fragment) {
        let Some(zone) = self.map.zone_of(fragment.kind, fragment.start) else {
            self.refuse_moved(work, from, fragment);
            return;
        };
        let lane = self.map.lane_of(zone);
        if fragment.kind == FragmentKind::Zero && self.is_blank(zone, &fragment) {
            let Fragment { request, since, offset, .. } = fragment;
            let told = Acknowledgement { from, request, since, offset };
            self.answers.push_back((from, told.done()));
        } else if self.lane(lane).waiting.is_empty() && self.may_take(work, lane, &fragment) {
            self.take(work, lane, from, fragment);
        } else if fragment.kind == FragmentKind::Move {
            // Before all others: what was logged of a window stays in the log until all of it was.
            self.lane(lane).waiting.push_front((from, fragment));
        } else {
            work.metrics.admission_waits.increment();
            self.lane(lane).waiting.push_back((from, fragment));
        }
    }

    /// Whether blocks read as zeros and have no log record, so that zeros need none either: a zone that was never written stays
    /// zero until one of its blocks is, also after a crash.
    fn is_blank(&self, zone: ZoneId, fragment: &Fragment) -> bool {
        self.map.service == Service::ReadWrite
            && !self.zones.is_initialised(zone)
            && self.blocks(fragment).all(|(stripe, column)| !self.stripes.holds(stripe, column))
    }

    /// Admits what waited, as far as there is room now.
    pub(crate) fn admit_waiting<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for at in 0..self.awake.len() {
            let id = self.awake[at];
            while let Some(lane) = &self.lanes[id.index()]
                && let Some((_, fragment)) = lane.waiting.front()
                && self.may_take(work, id, fragment)
            {
                let (from, fragment) = self.lane(id).waiting.pop_front().expect("it was there just now");
                self.take(work, id, from, fragment);
            }
        }
    }

    /// Drops what waits for room and nobody wants any more: it is answered as aborted.
    pub(crate) fn drop_writes<P: Ports>(&mut self, ports: &mut P, dropped: Dropped) {
        for lane in self.lanes.iter_mut().flatten() {
            for _ in 0..lane.waiting.len() {
                let (from, fragment) = lane.waiting.pop_front().expect("as many as there were");
                if dropped.includes(from, fragment.association, fragment.request) {
                    self.answers.push_back((from, fragment.aborted(ports)));
                } else {
                    lane.waiting.push_back((from, fragment));
                }
            }
        }
    }

    /// Whether the next of a lane may be admitted, or begin as an update.
    fn may_take<P: Ports>(&self, work: &Work<'_, P>, id: LaneId, fragment: &Fragment) -> bool {
        if fragment.kind == FragmentKind::Move {
            return self.may_move(work, id, fragment);
        }
        if fragment.kind != FragmentKind::Compare && self.map.service.refuses_writes().is_some() {
            return true;
        }
        if self.map.hold.is_some() {
            return false;
        }
        if fragment.is_update() {
            return self.updates.may_begin(fragment);
        }
        !self.updates.hold(fragment.start, fragment.count)
            && !self.is_awaited(fragment)
            && !self.updates.want_room(id)
            && self.may_admit(id, fragment)
    }

    fn take<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId, from: ShardId, fragment: Fragment) {
        if fragment.kind == FragmentKind::Move {
            self.log_moved(work, id, from, fragment);
            return;
        }
        let refused = fragment.kind != FragmentKind::Compare && self.map.service.refuses_writes().is_some();
        if fragment.is_update() && !refused {
            self.begin_update(work, id, from, fragment);
        } else {
            self.admit(work, id, from, fragment);
        }
    }

    pub(super) fn may_admit(&self, id: LaneId, fragment: &Fragment) -> bool {
        if self.map.service != Service::ReadWrite {
            return self.map.service.refuses_writes().is_some();
        }
        let lane = self.lanes[id.index()].as_ref().expect("the owner asks");
        let count = usize::from(fragment.count);
        if self.map.is_bare() {
            return self.stripes.room() >= count && !self.through.is_full();
        }
        let (entries, payload) = if fragment.kind == FragmentKind::Zero { (1, 0) } else { (count, count) };
        if !lane.fits(entries, payload) || self.stripes.room() < count || self.through.is_full() {
            return false;
        }
        // Blocks of one chunk lie in as many stripes.
        let stripes = self
            .blocks(fragment)
            .filter(|&(stripe, _)| self.stripes.find(stripe).is_none_or(|stripe| !self.stripes.get(stripe).reserved));
        let descriptor = u64::from(lane.open.items.is_empty());
        lane.room().saturating_sub(self.held_back(lane))
            >= descriptor + payload as u64 + self.map.destage_log_blocks() * stripes.count() as u64
    }

    /// Whether a read waits, without a log, until none of these blocks is being written: whoever comes later must not put that
    /// off for ever.
    fn is_awaited(&self, fragment: &Fragment) -> bool {
        self.map.is_bare() && self.stalled.iter().any(|&key| self.reads_any_of(key, fragment.start, fragment.count))
    }

    /// The stripes and columns of a fragment's blocks.
    pub(super) fn blocks(&self, fragment: &Fragment) -> impl Iterator<Item = (StripeId, u8)> + use<> {
        run_of(&self.map.arrangement, fragment.start, u32::from(fragment.count))
    }

    pub(super) fn admit<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        id: LaneId,
        from: ShardId,
        mut fragment: Fragment,
    ) {
        let Fragment { request, since, offset, .. } = fragment;
        let told = Acknowledgement { from, request, since, offset };
        if let Some(error) = self.map.service.refuses_writes() {
            core::mem::take(&mut fragment.buffers).free(work.ports);
            self.answers.push_back((from, told.failed(error)));
            return;
        }
        let through = if self.acknowledges_from_log() {
            0
        } else {
            let through = Through { told, blocks: fragment.count };
            let Ok(key) = self.through.insert(through) else { unreachable!("admission looked for room") };
            self.stripes.promise_waiters(usize::from(fragment.count));
            key.to_bits()
        };
        let bare = self.map.is_bare();
        self.wake(id);
        for (at, (stripe, column)) in self.blocks(&fragment).enumerate() {
            let stripe = self.stripes.find_or_add(stripe, id);
            if !bare && !self.stripes.get(stripe).reserved {
                assert!(self.lane(id).reserve(), "admission looked for log space");
                self.stripes.get_mut(stripe).reserved = true;
            }
            let content: Option<Buffer> =
                if fragment.kind == FragmentKind::Zero { None } else { fragment.buffers.pop(work.ports) };
            let name = content.as_ref().map(Buffer::id);
            let version = self.stripes.add(stripe, column, Content::of(content));
            if bare {
                // There is nothing to wait for before it goes to the members.
                self.version_durable(work, id, version, through);
            } else if let Some(buffer) = name {
                let block = ArrayBlock(fragment.start.0 + at as u64);
                let crc = payload_crc(&self.map.log, work.ports.bytes(buffer));
                self.log(id, Item::Data { version, block, crc, buffer, through }, work.now);
            }
        }
        if fragment.kind == FragmentKind::Zero && !bare {
            let (block, count) = (fragment.start, u32::from(fragment.count));
            self.log(id, Item::Zeros { block, count, through }, work.now);
        }
        assert!(fragment.buffers.is_empty(), "a write brings a buffer of {BLOCK} bytes for each block and no more");
        if through == 0 {
            self.lane(id).open.acknowledgements.push(told);
        }
    }

    /// A block of a write-through fragment is on the members, or cannot be: it is acknowledged with the last of them, and
    /// refused with the first that cannot.
    pub(crate) fn through_ends(&mut self, through: u64, result: Result<(), IoError>) {
        if through == OWED {
            if let Err(error) = result {
                // Nobody knows by whom it was written: all who wait are told.
                self.refuse_owed(error);
            }
            self.owed_on_members();
            return;
        }
        let key = base::slab::Key::from_bits(through);
        // A halted array has told everyone already, and so has whoever refused another block of it.
        let Some(entry) = self.through.get_mut(key) else { return };
        entry.blocks -= 1;
        if entry.blocks > 0 && result.is_ok() {
            return;
        }
        let Through { told, .. } = self.through.remove(key).expect("it was there just now");
        let answer = result.map_or_else(|error| told.failed(error), |()| told.done());
        self.answers.push_back((told.from, answer));
    }
}

impl Fragment {
    /// Whether it looks at its blocks before it writes, or compares alone.
    fn is_update(&self) -> bool {
        matches!(self.kind, FragmentKind::Compare | FragmentKind::CompareAndWrite) || !self.margins.is_none()
    }

    /// The answer to a fragment that is dropped: only a read's buffers go back.
    pub(crate) fn aborted(mut self, ports: &mut impl Ports) -> FragmentDone {
        let mut buffers = core::mem::take(&mut self.buffers);
        if self.kind != FragmentKind::Read {
            core::mem::take(&mut buffers).free(ports);
        }
        FragmentDone::of(&self, Err(IoError::Aborted), buffers)
    }
}

impl FragmentDone {
    /// The answer to a fragment that is given back with its buffers.
    pub(crate) fn of(fragment: &Fragment, result: Result<(), IoError>, buffers: BufferList) -> Self {
        Self { request: fragment.request, since: fragment.since, offset: fragment.offset, result, buffers }
    }
}
