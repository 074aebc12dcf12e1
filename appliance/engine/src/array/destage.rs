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

use base::ids::{LaneId, Slot};
use base::metrics::StripeWrite;
use base::slab::Key;
use base::time::Time;
use journal::payload_crc;
use ports::{Buffer, DeviceOp, Ports};
use raid::plan::{DestageKind, DestagePlan, plan_destage};

use super::lane::Item;
use super::stripes::StripeRef;
use super::{ArrayShard, Purpose, Work};
use crate::limits::{DESTAGE_LOG_BLOCKS, DESTAGES_A_TURN};

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
    pub(super) stripe: StripeRef,
    pub(super) phase: Phase,
    plan: Option<DestagePlan>,
    /// The highest sequence among the frozen versions.
    upto: u64,
    /// What was read, by column.
    old: Vec<(u8, Buffer)>,
    /// The new parity.
    pub(super) parity: Option<Buffer>,
    pub(super) unanswered: u32,
    pub(super) failed: bool,
    /// A point in [`super::grace::Grace`].
    pub(super) grace: u64,
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

    pub(super) fn log_note<P: Ports>(&mut self, work: &Work<'_, P>, key: Key<Destage>) -> bool {
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
