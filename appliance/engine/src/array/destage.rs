//! From the log to the members, one stripe at a time.
//!
//! A destage freezes the stripe's durable versions and goes through these steps: the zone is made ready; old content is read
//! where the plan asks for it; parity is computed; parity that cannot be recomputed from the log is logged, with what it
//! covers (rule L5); reads that began before the freeze end; data and parity go to the members; the members are flushed,
//! many stripes at a time; the *destaged* record is logged (rule L4). Only when that is durable are the frozen versions
//! forgotten and their log records no longer needed.
//!
//! When a member fails on the way the destage parks until the coordinator has made its exclusion durable. If old content was
//! being read, it is planned anew; if new content was being written, the present members have or get all of theirs, parity
//! included, and it goes on.

use base::ids::{DeviceBlock, DeviceId, LaneId, Slot};
use base::metrics::StripeWrite;
use base::slab::Key;
use base::time::Time;
use journal::payload_crc;
use ports::{Buffer, BufferId, DeviceOp, Ports};
use raid::plan::{DestageKind, DestagePlan, plan_destage};

use super::lane::Item;
use super::stripes::StripeRef;
use super::{ArrayShard, Purpose, Work};
use crate::limits::{DESTAGE_LOG_BLOCKS, DESTAGES_A_TURN, MAX_DESTAGES};

/// How far a destage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its zone is being made ready.
    Zone,
    /// Old content is being read.
    Reading,
    /// A member failed while old content was being read: to be planned anew with the next map.
    Replan,
    /// Its parity waits for room in the open transaction.
    ToLog,
    /// Its parity is on its way into the log.
    Logging,
    /// It waits for reads that began before the freeze.
    Grace,
    /// New content is on its way to the members.
    Writing,
    /// All members have it; it waits for a flush to begin.
    Written,
    /// The flush is under way.
    Flushing,
    /// The members have it for good; the note waits for room in the open transaction.
    ToRecord,
    /// The note is on its way into the log.
    Recording,
}

/// The place of parity in the list of what was read.
const PARITY: u8 = u8::MAX;

/// One stripe on its way.
#[derive(Debug)]
pub(crate) struct Destage {
    stripe: StripeRef,
    phase: Phase,
    plan: Option<DestagePlan>,
    /// The highest sequence among the frozen versions.
    upto: u64,
    /// What was read, by column.
    old: Vec<(u8, Buffer)>,
    /// The new parity.
    parity: Option<Buffer>,
    unanswered: u32,
    failed: bool,
    /// A point in [`super::grace::Grace`].
    grace: u64,
    /// Log space that is set aside for it.
    reserved: u64,
}

impl Destage {
    pub(crate) fn waits_for_zone(&self) -> bool {
        self.phase == Phase::Zone
    }

    pub(crate) fn stripe(&self) -> StripeRef {
        self.stripe
    }
}

/// Most blocks of a member write that carries several stripes.
const MAX_MERGED_BLOCKS: usize = 64;

/// A block that is due to be written to a member.
#[derive(Clone, Copy, Debug)]
struct DueWrite {
    device: DeviceId,
    at: DeviceBlock,
    slot: Slot,
    buffer: BufferId,
    destage: Key<Destage>,
}

/// Member writes: those that are due, and whose blocks those under way carry.
#[derive(Debug)]
pub(crate) struct Writes {
    due: Vec<DueWrite>,
    batches: Vec<Vec<Key<Destage>>>,
    free: Vec<u32>,
}

impl Writes {
    pub(crate) fn new(members: usize) -> Self {
        let blocks = MAX_DESTAGES * members;
        Self {
            due: Vec::with_capacity(blocks),
            batches: (0..blocks).map(|_| Vec::with_capacity(MAX_MERGED_BLOCKS)).collect(),
            free: (0..blocks as u32).rev().collect(),
        }
    }
}

/// The members' flush, shared by many destages.
#[derive(Debug)]
pub(crate) struct Flushing {
    /// Those that the flush under way covers.
    batch: Vec<Key<Destage>>,
    /// Those that the next one will cover.
    next: Vec<Key<Destage>>,
    unanswered: u32,
    failed: bool,
}

impl Flushing {
    pub(crate) fn new() -> Self {
        let room = 2 * MAX_DESTAGES;
        Self { batch: Vec::with_capacity(room), next: Vec::with_capacity(room), unanswered: 0, failed: false }
    }
}

impl ArrayShard {
    /// Starts destages as far as the settings ask for and room allows: full stripes first, then by age and pressure.
    pub(crate) fn start_destages<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let mut budget = DESTAGES_A_TURN;
        while budget > 0
            && self.may_start(work)
            && let Some(stripe) = self.full.pop_front()
        {
            let entry = self.stripes.get_mut(stripe);
            entry.queued_full = false;
            let columns = u32::from(self.map.geometry.data_slots());
            if entry.destage.is_some() || entry.durable.count_ones() < columns {
                // Destaged meanwhile for another reason; if nothing is left of it, this was the last mention.
                self.stripes.forget_if_empty(stripe);
                continue;
            }
            if !self.start_destage(work, stripe) {
                self.stripes.get_mut(stripe).queued_full = true;
                self.full.push_front(stripe);
                break;
            }
            budget -= 1;
        }
        let held = self.stripes.held() * 100;
        let cache_is_full = held > self.stripes.capacity() * usize::from(self.settings.high_watermark_percent);
        for at in 0..self.awake.len() {
            let index = self.awake[at].index();
            while budget > 0
                && self.may_start(work)
                && let Some(stripe) = self.pressing(index, work.now, cache_is_full)
            {
                if !self.start_destage(work, stripe) {
                    break;
                }
                budget -= 1;
            }
        }
    }

    /// The oldest dirty stripe of a lane, if it should not wait any longer.
    fn pressing(&self, index: usize, now: Time, cache_is_full: bool) -> Option<StripeRef> {
        let lane = self.lanes[index].as_ref()?;
        let oldest = lane.dirty.oldest()?;
        let size = self.map.log_layout.lane_blocks();
        let taken = size - lane.room().min(size);
        let pressed = self.stopping
            || !self.acknowledges_from_log()
            || cache_is_full
            || !lane.waiting.is_empty()
            || taken * 100 > size * u64::from(self.settings.high_watermark_percent)
            || now >= self.stripes.get(oldest).since + self.settings.age;
        pressed.then_some(oldest)
    }

    /// Whether buffers and operations allow one more, with what the log needs kept free.
    fn may_start<P: Ports>(&self, work: &Work<'_, P>) -> bool {
        let members = self.map.members.len();
        !self.destages.is_full()
            && self.scratch.len() > 2 * (members + 1) + 4 * crate::limits::RECORDS_IN_FLIGHT
            && work.operations.available() > 4 * members + 64
    }

    fn start_destage<P: Ports>(&mut self, work: &mut Work<'_, P>, stripe: StripeRef) -> bool {
        let entry = self.stripes.get(stripe);
        let lane = self.lanes[entry.lane.index()].as_mut().expect("only the owner has its stripes");
        assert!(entry.reserved && entry.destage.is_none(), "a dirty stripe has log space set aside");
        // What comes into the log behind the freeze needs space of its own for being destaged later.
        let more_comes = entry.logging > 0;
        if more_comes && !lane.reserve() {
            return false;
        }
        self.stripes.unlist(&mut lane.dirty, stripe);
        let upto = self.stripes.freeze(stripe);
        self.stripes.get_mut(stripe).reserved = more_comes;
        let destage = Destage {
            stripe,
            phase: Phase::Zone,
            plan: None,
            upto,
            old: self.old_lists.pop().unwrap_or_default(),
            parity: None,
            unanswered: 0,
            failed: false,
            grace: self.grace.point(),
            reserved: DESTAGE_LOG_BLOCKS,
        };
        let Ok(key) = self.destages.insert(destage) else { unreachable!("room was looked for") };
        self.stripes.get_mut(stripe).destage = Some(key);
        let zone = self.map.geometry.zone_of(self.stripes.get(stripe).id);
        if self.zones.is_initialised(zone) {
            self.plan(work, key);
        } else {
            self.prepare_zone(work, zone);
        }
        true
    }

    /// Zones have become ready: destages that waited for them go on.
    pub(crate) fn zones_ready<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        self.for_each_in(Phase::Zone, |array, key| {
            let stripe = array.destages[key].stripe;
            let zone = array.map.geometry.zone_of(array.stripes.get(stripe).id);
            if array.zones.is_initialised(zone) {
                array.plan(work, key);
            }
        });
    }

    /// Calls a function for every destage in a phase, in the order of the table.
    fn for_each_in(&mut self, phase: Phase, mut then: impl FnMut(&mut Self, Key<Destage>)) {
        for place in 0..self.destages.capacity() {
            if let Some((key, destage)) = self.destages.at(place)
                && destage.phase == phase
            {
                then(self, key);
            }
        }
    }

    /// Plans the stripe write for the members that are there and starts reading what it needs.
    fn plan<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let stripe = self.destages[key].stripe;
        let entry = self.stripes.get(stripe);
        let (id, frozen) = (entry.id, entry.frozen);
        let missing = self.map.missing() | self.failing_members;
        let Ok(plan) = plan_destage(&self.map.geometry, id, frozen, self.map.missing()) else {
            // More members are missing than the level bears: the array has failed and writes nothing.
            self.destages[key].phase = Phase::Replan;
            return;
        };
        self.destages[key].plan = Some(plan);
        let parity_slot = self.map.geometry.parity_member(id, 0);
        let mut reads = [(0u8, Slot(0)); 33];
        let mut count = 0;
        for column in (0..self.map.geometry.data_slots()).filter(|column| plan.read_columns & 1 << column != 0) {
            reads[count] = (column, self.map.geometry.member_of(id, column));
            count += 1;
        }
        if plan.read_parity {
            reads[count] = (PARITY, parity_slot);
            count += 1;
        }
        let reads = &reads[..count];
        if reads.iter().any(|&(_, slot)| missing & 1 << slot.0 != 0) {
            self.destages[key].phase = Phase::Replan;
            return;
        }
        let destage = &mut self.destages[key];
        destage.phase = Phase::Reading;
        destage.failed = false;
        destage.unanswered = count as u32;
        for &(column, slot) in reads {
            let buffer = self.scratch.pop().expect("no destage starts without its buffers");
            let (device, at) = self.map.on_member(slot, id).expect("the plan reads present members");
            let purpose = Purpose::DestageRead { array: self.map.id, destage: key, slot };
            work.operations.start(work.ports, (device, at), DeviceOp::Read, core::iter::once(buffer.id()), purpose);
            self.destages[key].old.push((column, buffer));
        }
        if count == 0 {
            self.compute(work, key);
        }
    }

    /// A member has answered a read of old content.
    pub(crate) fn destage_read<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Destage>,
        slot: Slot,
        succeeded: bool,
    ) {
        if !succeeded {
            self.member_failed(slot);
        }
        let destage = self.destages.get_mut(key).expect("a destage waits for its operations");
        destage.failed |= !succeeded;
        destage.unanswered -= 1;
        if destage.unanswered > 0 {
            return;
        }
        if destage.failed {
            destage.phase = Phase::Replan;
            while let Some((_, buffer)) = self.destages[key].old.pop() {
                self.keep(buffer);
            }
            // The exclusion may have come while the last answers were outstanding.
            if self.failing_members == 0 {
                self.plan(work, key);
            }
        } else {
            self.compute(work, key);
        }
    }

    /// Computes the new parity, as the plan says.
    fn compute<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let stripe = self.destages[key].stripe;
        let plan = self.destages[key].plan.expect("a planned destage");
        work.metrics.stripe_write(match plan.kind {
            DestageKind::Full => StripeWrite::Full,
            DestageKind::ReadModifyWrite => StripeWrite::ReadModifyWrite,
            DestageKind::ReconstructWrite => StripeWrite::Reconstruct,
            DestageKind::DataOnly => StripeWrite::DataOnly,
        });
        if plan.kind != DestageKind::DataOnly {
            let mut sum_is_empty = false;
            let parity = self.take_sum(key).unwrap_or_else(|| {
                sum_is_empty = true;
                self.scratch.pop().expect("no destage starts without its buffers")
            });
            // Old parity with old and new data out of and into it, or all columns together: always one sum.
            for (_, old) in &self.destages[key].old {
                let (sum, old) = work.ports.pair(parity.id(), old.id());
                parity::xor_into(sum, old);
            }
            for column in 0..self.map.geometry.data_slots() {
                if let Some(buffer) = self.stripes.frozen(stripe, column).and_then(|version| version.buffer.as_ref()) {
                    let (sum, new) = work.ports.pair(parity.id(), buffer.id());
                    if core::mem::take(&mut sum_is_empty) {
                        sum.copy_from_slice(new);
                    } else {
                        parity::xor_into(sum, new);
                    }
                }
            }
            if sum_is_empty {
                work.ports.bytes_mut(parity.id()).fill(0);
            }
            self.destages[key].parity = Some(parity);
        }
        while let Some((_, buffer)) = self.destages[key].old.pop() {
            self.keep(buffer);
        }
        if plan.log_parity {
            self.destages[key].phase = Phase::ToLog;
            self.to_log.push_back(key);
        } else {
            self.destages[key].phase = Phase::Grace;
            self.in_grace.push_back(key);
        }
    }

    /// What the sum begins with: any of the blocks that were read, since all of them go into it.
    fn take_sum(&mut self, key: Key<Destage>) -> Option<Buffer> {
        self.destages[key].old.pop().map(|(_, buffer)| buffer)
    }

    /// Puts parity records and notes into open transactions, as far as they fit.
    pub(crate) fn log_destages<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for _ in 0..self.to_log.len() {
            let key = self.to_log.pop_front().expect("as many as there were");
            let logged = match self.destages[key].phase {
                Phase::ToLog => self.log_parity(work, key),
                Phase::ToRecord => self.log_note(work, key),
                phase => unreachable!("nothing to be logged in {phase:?}"),
            };
            if !logged {
                self.to_log.push_back(key);
            }
        }
    }

    fn log_parity<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) -> bool {
        let destage = &self.destages[key];
        let entry = self.stripes.get(destage.stripe);
        let (id, lane, stripe, frozen) = (entry.id, entry.lane, destage.stripe, entry.frozen);
        if !self.lane_fits(lane, 1 + frozen.count_ones() as usize, 1) {
            return false;
        }
        let buffer = destage.parity.as_ref().expect("parity was computed").id();
        let crc = payload_crc(&self.map.log, work.ports.bytes(buffer));
        self.spend(lane, key, 2);
        self.log(lane, Item::Parity { destage: key, stripe: id, crc, buffer }, work.now);
        for column in (0..self.map.geometry.data_slots()).filter(|column| frozen & 1 << column != 0) {
            let sequence = self.stripes.frozen(stripe, column).expect("the mask tells the truth").sequence;
            let block = self.map.geometry.array_block(id, column);
            self.log(lane, Item::Covers { block, sequence }, work.now);
        }
        self.destages[key].phase = Phase::Logging;
        true
    }

    /// Gives back set-aside log space that what is logged now takes.
    fn spend(&mut self, lane: LaneId, key: Key<Destage>, blocks: u64) {
        let destage = &mut self.destages[key];
        destage.reserved = destage.reserved.checked_sub(blocks).expect("a destage logs no more than was set aside");
        self.lane(lane).release(blocks);
    }

    /// The parity record is durable on every copy.
    pub(crate) fn parity_logged(&mut self, key: Key<Destage>) {
        let destage = &mut self.destages[key];
        assert_eq!(destage.phase, Phase::Logging, "parity is logged once");
        destage.phase = Phase::Grace;
        self.in_grace.push_back(key);
    }

    /// Starts member writes of destages for which all earlier reads have ended.
    pub(crate) fn start_writes<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for _ in 0..self.in_grace.len() {
            let key = self.in_grace.pop_front().expect("as many as there were");
            let operations = self.writes.due.len() + self.map.members.len();
            if self.grace.is_over(self.destages[key].grace) && work.operations.available() > operations {
                self.write_members(key);
            } else {
                self.in_grace.push_back(key);
            }
        }
        self.submit_writes(work);
    }

    /// Gives what is due to the members, neighbours in one operation: stripes that were written together mostly go together.
    fn submit_writes<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let Writes { due, batches, free } = &mut self.writes;
        due.sort_unstable_by_key(|write| (write.device, write.at));
        let mut rest = due.as_slice();
        while let Some(first) = rest.first() {
            let follows = |(at, write): (usize, &DueWrite)| {
                write.device == first.device && write.at.0 == first.at.0 + at as u64 && at < MAX_MERGED_BLOCKS
            };
            let length = rest.iter().enumerate().take_while(|&pair| follows(pair)).count();
            let (run, later) = rest.split_at(length);
            let batch = free.pop().expect("a batch for each block under way");
            batches[batch as usize].extend(run.iter().map(|write| write.destage));
            let purpose = Purpose::DestageWrite { array: self.map.id, batch, slot: first.slot };
            let blocks = run.iter().map(|write| write.buffer);
            work.operations.start(work.ports, (first.device, first.at), DeviceOp::Write, blocks, purpose);
            rest = later;
        }
        due.clear();
    }

    /// Puts what a destage writes among what is due.
    fn write_members(&mut self, key: Key<Destage>) {
        let destage = &self.destages[key];
        let stripe = destage.stripe;
        let entry = self.stripes.get(stripe);
        let (id, frozen) = (entry.id, entry.frozen);
        let zero = self.zero.as_ref().expect("it was set aside").id();
        let before = self.writes.due.len();
        // A member that has gone since the plan was made is skipped; the parity, if there is one, stands in for it.
        let map = &self.map;
        let due = &mut self.writes.due;
        let mut write = |slot: Slot, buffer: BufferId| {
            if let Some((device, at)) = map.on_member(slot, id) {
                due.push(DueWrite { device, at, slot, buffer, destage: key });
            }
        };
        for column in (0..map.geometry.data_slots()).filter(|column| frozen & 1 << column != 0) {
            let version = self.stripes.frozen(stripe, column).expect("the mask tells the truth");
            write(map.geometry.member_of(id, column), version.buffer.as_ref().map_or(zero, Buffer::id));
        }
        if let Some(parity) = &destage.parity {
            write(map.geometry.parity_member(id, 0), parity.id());
        }
        let unanswered = (self.writes.due.len() - before) as u32;
        let destage = &mut self.destages[key];
        destage.unanswered = unanswered;
        destage.phase = Phase::Writing;
        destage.failed = false;
        if unanswered == 0 {
            self.written(key);
        }
    }

    /// A member has answered a write.
    pub(crate) fn destage_written(&mut self, batch: u32, slot: Slot, succeeded: bool) {
        if !succeeded {
            self.member_failed(slot);
        }
        let mut batch_of = core::mem::take(&mut self.writes.batches[batch as usize]);
        for key in batch_of.drain(..) {
            let destage = self.destages.get_mut(key).expect("a destage waits for its operations");
            destage.unanswered -= 1;
            if destage.unanswered == 0 {
                self.written(key);
            }
        }
        self.writes.batches[batch as usize] = batch_of;
        self.writes.free.push(batch);
    }

    fn written(&mut self, key: Key<Destage>) {
        let destage = &mut self.destages[key];
        destage.phase = Phase::Written;
        let parity = destage.parity.take();
        self.flushing.next.push(key);
        if let Some(parity) = parity {
            self.keep(parity);
        }
    }

    /// Flushes the members for all that was written since the last flush began. While a member is failing nothing is
    /// flushed: the note that would follow must not rely on an exclusion that is not durable.
    pub(crate) fn start_flush<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let flushing = &mut self.flushing;
        if !flushing.batch.is_empty()
            || flushing.next.is_empty()
            || self.failing_members != 0
            || work.operations.available() <= self.map.members.len()
        {
            return;
        }
        core::mem::swap(&mut flushing.batch, &mut flushing.next);
        flushing.failed = false;
        flushing.unanswered = 0;
        for (slot, member) in (0u8..).map(Slot).zip(&self.map.members) {
            let Some(member) = member else { continue };
            flushing.unanswered += 1;
            let purpose = Purpose::MemberFlush { array: self.map.id, slot };
            work.operations.start(work.ports, (member.device, DeviceBlock(0)), DeviceOp::Flush, None, purpose);
        }
        for index in 0..self.flushing.batch.len() {
            let key = self.flushing.batch[index];
            self.destages[key].phase = Phase::Flushing;
        }
    }

    /// A member has answered a flush.
    pub(crate) fn flushed<P: Ports>(&mut self, work: &mut Work<'_, P>, slot: Slot, succeeded: bool) {
        if !succeeded {
            self.member_failed(slot);
        }
        self.flushing.failed |= !succeeded;
        self.flushing.unanswered -= 1;
        if self.flushing.unanswered > 0 {
            return;
        }
        let mut batch = core::mem::take(&mut self.flushing.batch);
        for key in batch.drain(..) {
            if self.flushing.failed {
                // Once the member is excluded the others are flushed again.
                self.destages[key].phase = Phase::Written;
                self.flushing.next.push(key);
                continue;
            }
            self.destages[key].phase = Phase::ToRecord;
            let stripe = self.destages[key].stripe;
            while let Some(through) = self.stripes.take_waiter(stripe) {
                self.on_members(through);
            }
            if !self.log_note(work, key) {
                self.to_log.push_back(key);
            }
        }
        self.flushing.batch = batch;
    }

    fn log_note<P: Ports>(&mut self, work: &Work<'_, P>, key: Key<Destage>) -> bool {
        let destage = &self.destages[key];
        let entry = self.stripes.get(destage.stripe);
        let (id, lane, upto) = (entry.id, entry.lane, destage.upto);
        if !self.lane_fits(lane, 1, 0) {
            return false;
        }
        self.spend(lane, key, 1);
        self.log(lane, Item::Destaged { destage: key, stripe: id, upto }, work.now);
        self.destages[key].phase = Phase::Recording;
        true
    }

    /// The note is durable on every copy: the log no longer needs the frozen versions.
    pub(crate) fn destage_recorded<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let destage = self.destages.remove(key).expect("a destage is recorded once");
        assert_eq!(destage.phase, Phase::Recording, "a note is logged at the end");
        let stripe = destage.stripe;
        let lane = self.stripes.get(stripe).lane;
        self.lane(lane).release(destage.reserved);
        while let Some((sequence, buffer)) = self.stripes.take_frozen(stripe) {
            self.lane(lane).forget(sequence);
            if let Some(buffer) = buffer {
                work.ports.free(buffer);
            }
        }
        work.metrics.destages.increment();
        self.old_lists.push(destage.old);
        self.stripes.get_mut(stripe).destage = None;
        if !self.stripes.forget_if_empty(stripe) && self.stripes.get(stripe).durable != 0 {
            self.stripe_is_dirty(stripe);
        }
    }

    /// The map has changed: what parked for it goes on.
    pub(crate) fn members_changed<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if !self.halted && self.failing_members == 0 {
            self.for_each_in(Phase::Replan, |array, key| array.plan(work, key));
        }
        self.zone_members_changed(work);
    }
}
