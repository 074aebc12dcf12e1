//! From the log to the members, one stripe at a time.
//!
//! A destage freezes the stripe's durable versions and goes through these steps: the zone is made ready; old content is read
//! where the plan asks for it; the parities are computed; parities that cannot be recomputed from the log are logged, with
//! what they cover (rule L5); reads that began before the freeze end; data and parities go to the members; the members are
//! flushed, many stripes at a time; the *destaged* record is logged (rule L4). Only when that is durable are the frozen
//! versions forgotten and their log records no longer needed.
//!
//! New content that the log alone has ([`super::residency`]) is read from there together with the old.
//!
//! A destage takes all its buffers when it is planned, so that none waits for buffers with others in its hands. Old content
//! that its member cannot read is mended first ([`super::mend`]), in buffers that destages leave; if that cannot be done
//! either, it is planned around what is lost, and where there is no way around it the stripe is [`blocked`].
//!
//! Without a log nothing is logged: before the members are written, a bit must be durable on all of them that says that the
//! zone may be left so that not everything matches ([`super::dirty`]); and with the flush the destage has ended. Whoever
//! writes is told then, so that what is acknowledged is as durable as with a log. The price is a flush of the members for each
//! batch of writes, and, where a zone has rested, a write of the bit. So it is with a log that is lost ([`super::exposure`]).
//!
//! While members are out, that they missed something of the zone is durable on the others before a destage is over
//! ([`super::missed`]).
//!
//! When a member fails on the way the destage parks until the coordinator has made its exclusion durable. If old content was
//! being read, it is planned anew; if new content was being written, the present members have or get all of theirs, parity
//! included, and it goes on.

pub(super) mod blocked;
mod old;
pub(super) mod policy;

use base::ids::{LaneId, Slot, StripeId};
use base::metrics::StripeWrite;
use base::slab::Key;
use base::time::Time;
use journal::payload_crc;
use ports::{Buffer, DeviceOp, Ports};
use raid::plan::{DestageKind, DestagePlan, MAX_PARITIES, plan_destage_anew, plan_destage_around};
use raid::{Part, slots, weight};

use super::checksums::Need;
use super::lane::Item;
use super::residency::Wanted;
use super::stripes::StripeRef;
use super::sum::Sum;
use super::{ArrayShard, Purpose, Work};
use crate::limits::RECORDS_IN_FLIGHT;

/// How far a destage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its zone is being made ready.
    Zone,
    /// It waits for buffers and operations, to be planned then.
    Room,
    /// Old content is being read.
    Reading,
    /// Some of it cannot be read and is being mended.
    Mending,
    /// A member failed while old content was being read: to be planned anew with the next map.
    Replan,
    /// Its parities wait for room in the open transaction.
    ToLog,
    /// Its parities are on their way into the log.
    Logging,
    /// Without a log: the bit that its zone is dirty is on its way to the members.
    Noting,
    /// It waits for reads that began before the freeze.
    Grace,
    /// New content is on its way to the members.
    Writing,
    /// All members have it; it waits for a flush to begin.
    Written,
    /// The flush is under way.
    Flushing,
    /// The members have it for good; that another missed it is on its way to them.
    Marking,
    /// The members have it for good; the note waits for room in the open transaction.
    ToRecord,
    /// The note is on its way into the log.
    Recording,
}

/// Operations that destages leave to others.
const OPERATIONS_LEFT: usize = 64;

/// Buffers that destages leave to the log: descriptors of records, and anchors. Beside these they leave what a read takes that
/// must reconstruct, for they may have to wait for one (see [`super::grace`]).
const BUFFERS_LEFT: usize = 4 * RECORDS_IN_FLIGHT;

/// One stripe on its way.
#[derive(Debug)]
pub(crate) struct Destage {
    pub(super) stripe: StripeRef,
    pub(super) phase: Phase,
    plan: Option<DestagePlan>,
    /// The highest sequence among the frozen versions.
    upto: u64,
    /// What is read, by member.
    old: Vec<(Slot, Buffer)>,
    /// The new parities by index; until they are computed, buffers for them.
    pub(super) parities: [Option<Buffer>; MAX_PARITIES],
    /// Parities that are zeros and have no buffer, as a bit mask.
    pub(super) zero_parities: u8,
    pub(super) unanswered: u32,
    pub(super) failed: bool,
    /// Slots whose old content could not be read, as a bit mask.
    unreadable: u32,
    /// Slots whose old content could not be had in any way, as a bit mask; or their new content, from the log.
    lost: u32,
    /// Whether new content could be read from no copy of the log.
    log_lost: bool,
    /// When the oldest of the frozen versions became durable.
    since: Time,
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

impl Destage {
    /// Whether the members hold its stripe as it was before, or as it will be. Where nothing is written any more that stays so:
    /// what has not begun never will, and what has ended is as good as over.
    pub(super) fn is_at_rest(&self) -> bool {
        self.phase != Phase::Writing
    }

    /// Takes away what was read or worked out for it, at the very end.
    pub(super) fn take_buffers(&mut self) -> impl Iterator<Item = Buffer> {
        self.old.drain(..).map(|(_, buffer)| buffer).chain(self.parities.iter_mut().filter_map(Option::take))
    }
}

impl ArrayShard {
    /// Whether buffers and operations allow one more, with what the log needs kept free.
    pub(super) fn may_start<P: Ports>(&self, work: &Work<'_, P>) -> bool {
        let members = self.map.members.len();
        !self.destages.is_full()
            && self.scratch.len() > 3 * (members + 1) + BUFFERS_LEFT
            && work.operations.available() > 4 * members + OPERATIONS_LEFT
    }

    pub(super) fn start_destage<P: Ports>(&mut self, work: &mut Work<'_, P>, stripe: StripeRef) -> bool {
        let entry = self.stripes.get(stripe);
        if entry.again > 0 {
            return false;
        }
        let lane = self.lanes[entry.lane.index()].as_mut().expect("only the owner has its stripes");
        let (bare, unlogged) = (self.map.is_bare(), self.map.is_unlogged());
        assert!((entry.reserved || bare) && entry.destage.is_none(), "a dirty stripe has log space set aside");
        // What comes into the log behind the freeze needs space of its own for being destaged later. Nothing comes any more if
        // it is lost: then the destage leaves its own behind.
        let more_comes = entry.logging > 0;
        if more_comes && !unlogged && !lane.reserve() {
            return false;
        }
        let since = entry.since;
        self.stripes.unlist(&mut lane.stripes, stripe);
        let upto = self.stripes.freeze(stripe);
        self.stripes.get_mut(stripe).reserved = more_comes;
        let destage = Destage {
            stripe,
            phase: Phase::Zone,
            plan: None,
            upto,
            old: self.old_lists.pop().unwrap_or_default(),
            parities: [const { None }; MAX_PARITIES],
            zero_parities: 0,
            unanswered: 0,
            failed: false,
            unreadable: 0,
            lost: 0,
            log_lost: false,
            since,
            grace: self.grace.point(),
            reserved: if bare || unlogged && more_comes { 0 } else { self.map.destage_log_blocks() },
        };
        let Ok(key) = self.destages.insert(destage) else { unreachable!("room was looked for") };
        self.stripes.get_mut(stripe).destage = Some(key);
        let zone = self.map.arrangement.zone_of(self.stripes.get(stripe).id);
        self.note_zone(zone);
        self.mark_zone(zone);
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
            let zone = array.map.arrangement.zone_of(array.stripes.get(stripe).id);
            if array.zones.is_initialised(zone) {
                array.plan(work, key);
            }
        });
    }

    /// Calls a function for every destage in a phase, in the order of the table.
    pub(super) fn for_each_in(&mut self, phase: Phase, mut then: impl FnMut(&mut Self, Key<Destage>)) {
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
        let missing = self.missing(id);
        let geometry = self.map.arrangement.at(id);
        let plan = if self.dirty.is_trusted(self.map.arrangement.zone_of(id)) {
            plan_destage_around(geometry, id, frozen, missing, self.destages[key].lost)
        } else {
            plan_destage_anew(geometry, id, frozen, missing)
        };
        let Ok(plan) = plan else {
            // More members are missing than the level bears: the array has failed and writes nothing.
            self.destages[key].phase = Phase::Replan;
            return;
        };
        let reads = plan.reads();
        if reads & self.destages[key].lost != 0 {
            self.block(work, key);
            return;
        }
        if reads & self.failing_members != 0 {
            self.destages[key].phase = Phase::Replan;
            return;
        }
        let in_log = self.stripes.frozen_in_log(stripe);
        if in_log != 0 && !self.has_log_to_read() {
            self.destages[key].lost |= self.homes_of_columns(id, in_log);
            self.block(work, key);
            return;
        }
        let (count, parities, from_log) = (reads.count_ones(), plan.parities.count_ones(), in_log.count_ones());
        // One parity comes about in a buffer that was read into.
        let buffers = if count == 0 { parities } else { count + parities - 1 } as usize;
        if self.scratch.len() < buffers + from_log as usize + 2 * self.map.members.len() + BUFFERS_LEFT
            || work.operations.available() < (count + from_log) as usize + OPERATIONS_LEFT
            || !self.has_places(from_log as usize)
        {
            self.destages[key].phase = Phase::Room;
            self.to_plan.push_back(key);
            return;
        }
        if self.map.checksums && !self.take_checksums(work, Need::Other, id, reads) {
            self.destages[key].phase = Phase::Room;
            self.to_plan.push_back(key);
            return;
        }
        let destage = &mut self.destages[key];
        destage.plan = Some(plan);
        destage.phase = Phase::Reading;
        destage.failed = false;
        destage.unreadable = 0;
        destage.log_lost = false;
        destage.unanswered = count + from_log;
        let last = plan.parity_indices().last().filter(|_| count > 0);
        for index in plan.parity_indices().filter(|index| Some(*index) != last) {
            destage.parities[usize::from(index)] = self.scratch.pop();
        }
        let geometry = *self.map.arrangement.at(id);
        let columns = (0..geometry.data_slots()).map(Part::Data);
        for part in columns.chain((0..geometry.parities()).map(Part::Parity)) {
            for slot in slots(geometry.homes_of(id, part) & reads) {
                let buffer = self.scratch.pop().expect("enough were counted");
                let (device, at) = self.on_member(slot, id).expect("the plan reads present members");
                let purpose = Purpose::DestageRead { array: self.map.id, destage: key, slot };
                work.operations.start(work.ports, (device, at), DeviceOp::Read, core::iter::once(buffer.id()), purpose);
                self.destages[key].old.push((slot, buffer));
            }
        }
        for column in (0..geometry.data_slots()).filter(|column| in_log & 1 << column != 0) {
            let version = self.stripes.frozen(stripe, column).expect("the mask tells the truth");
            let payload = self.payload_of(version, self.stripes.get(stripe).lane);
            let buffer = self.scratch.pop().expect("enough were counted");
            self.read_log(work, payload, Wanted::Destage { destage: key, column }, buffer);
        }
        if count + from_log == 0 {
            self.compute(work, key);
        }
    }

    /// Slots of the members that hold these columns of a stripe, as a bit mask.
    pub(super) fn homes_of_columns(&self, stripe: StripeId, columns: u32) -> u32 {
        let geometry = self.map.arrangement.at(stripe);
        let columns = (0..geometry.data_slots()).filter(|column| columns & 1 << column != 0);
        columns.fold(0, |mask, column| mask | geometry.homes(stripe, column))
    }

    /// Plans destages that waited for room, each once.
    pub(crate) fn plan_waiting<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for _ in 0..self.to_plan.len() {
            let key = self.to_plan.pop_front().expect("as many as there were");
            self.plan(work, key);
        }
    }

    /// Gives back what was read, to plan with the next map; at once if that has come while answers were outstanding.
    fn plan_anew<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        self.destages[key].phase = Phase::Replan;
        self.keep_old(work, key);
        for buffer in core::mem::take(&mut self.destages[key].parities).into_iter().flatten() {
            self.keep(work, buffer);
        }
        if self.failing_members == 0 {
            self.plan(work, key);
        }
    }

    /// Computes the new parities, as the plan says.
    fn compute<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let plan = self.destages[key].plan.expect("a planned destage");
        let stripe = self.destages[key].stripe;
        let kind = match plan.kind {
            DestageKind::Full => StripeWrite::Full,
            DestageKind::ReadModifyWrite => StripeWrite::ReadModifyWrite,
            DestageKind::ReconstructWrite => StripeWrite::Reconstruct,
            DestageKind::DataOnly => StripeWrite::DataOnly,
        };
        let data = self.stripes.get(stripe).frozen.count_ones();
        work.metrics.stripe_write(kind, data, plan.reads().count_ones());
        // The parities of zeros are zeros.
        let zeros = plan.kind == DestageKind::Full && self.stripes.frozen_is_zero(stripe);
        self.destages[key].zero_parities = if zeros { plan.parities } else { 0 };
        if zeros {
            for buffer in core::mem::take(&mut self.destages[key].parities).into_iter().flatten() {
                self.keep(work, buffer);
            }
        }
        for index in plan.parity_indices().filter(|_| !zeros) {
            let mut sum = self.begin_sum(work, key, &plan, index);
            for (slot, old) in &self.destages[key].old {
                sum.add(work.ports, plan.old(index, *slot), old.id());
            }
            for column in 0..self.map.arrangement.at(self.stripes.get(stripe).id).data_slots() {
                if let Some(buffer) = self.stripes.frozen(stripe, column).and_then(|version| version.content.buffer()) {
                    sum.add(work.ports, weight(index, column), buffer);
                }
            }
            self.destages[key].parities[usize::from(index)] = Some(sum.end(work.ports));
        }
        self.keep_old(work, key);
        if self.map.is_unlogged() {
            self.destages[key].phase = Phase::Noting;
            self.go_on_noted(key);
        } else if plan.log_parity {
            self.destages[key].phase = Phase::ToLog;
            self.to_log.push_back(key);
        } else {
            self.destages[key].phase = Phase::Grace;
            self.in_grace.push_back(key);
        }
    }

    /// What the sum of a parity begins with: nothing, in a buffer that was kept for it; that of the last parity any of the
    /// blocks that were read and go into it, since nobody needs them afterwards.
    fn begin_sum<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>, plan: &DestagePlan, index: u8) -> Sum {
        if let Some(buffer) = self.destages[key].parities[usize::from(index)].take() {
            return Sum::of_nothing(buffer);
        }
        loop {
            let (slot, buffer) = self.destages[key].old.pop().expect("a parity without a buffer has old content");
            match plan.old(index, slot) {
                0 if self.destages[key].old.is_empty() => return Sum::of_nothing(buffer),
                0 => self.keep(work, buffer),
                coefficient => return Sum::of(work.ports, coefficient, buffer),
            }
        }
    }

    fn keep_old<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        while let Some((_, buffer)) = self.destages[key].old.pop() {
            self.keep(work, buffer);
        }
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
        let plan = destage.plan.expect("a planned destage");
        let parities = plan.parities.count_ones() as usize;
        if !self.lane_fits(lane, parities + frozen.count_ones() as usize, parities) {
            return false;
        }
        self.spend(lane, key, 1 + parities as u64);
        for index in plan.parity_indices() {
            let parity = self.destages[key].parities[usize::from(index)].as_ref();
            let buffer = parity.expect("parity was computed").id();
            let crc = payload_crc(&self.map.log, work.ports.bytes(buffer));
            self.log(lane, Item::Parity { destage: key, stripe: id, index, crc, buffer }, work.now);
        }
        for column in (0..self.map.arrangement.at(id).data_slots()).filter(|column| frozen & 1 << column != 0) {
            let sequence = self.stripes.frozen(stripe, column).expect("the mask tells the truth").sequence;
            let block = self.map.arrangement.array_block(id, column);
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

    /// A parity is durable in the log, on every copy; with the last one all of them are.
    pub(crate) fn parity_logged(&mut self, key: Key<Destage>, index: u8) {
        let destage = &mut self.destages[key];
        if destage.plan.is_some_and(|plan| plan.parity_indices().last() != Some(index)) {
            return;
        }
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
        assert_eq!(self.destages[key].phase, Phase::Recording, "a note is logged at the end");
        self.end_destage(work, key);
    }

    /// Forgets the frozen versions: the members have them for good, and the log, if there is one, knows.
    pub(super) fn end_destage<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let destage = self.destages.remove(key).expect("a destage ends once");
        let stripe = destage.stripe;
        let lane = self.stripes.get(stripe).lane;
        self.lane(lane).release(destage.reserved);
        while let Some((sequence, content)) = self.stripes.take_frozen(stripe) {
            if !self.map.is_bare() {
                self.lane(lane).forget(sequence);
            }
            self.give_back(work, content);
        }
        work.metrics.destages.increment();
        self.old_lists.push(destage.old);
        self.stripes.get_mut(stripe).destage = None;
        self.stripes.get_mut(stripe).recovered = false;
        self.unblock(stripe);
        if !self.stripes.forget_if_empty(stripe) && self.stripes.get(stripe).durable != 0 {
            self.stripe_is_dirty(stripe, work.now);
        }
    }

    /// The map has changed: what parked for it goes on.
    pub(crate) fn members_changed<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if !self.halted && self.failing_members == 0 {
            self.for_each_in(Phase::Replan, |array, key| {
                array.destages[key].lost = 0;
                array.plan(work, key);
            });
            self.retry_all_blocked();
        }
        self.zone_members_changed(work);
    }
}
