//! The last way of a destage: its blocks to the members, neighbours in one operation, runs of zeros without any bytes, and
//! the members' flush, many stripes at a time. It knows what is due and what is under way, and nothing of how it came about.

use base::ids::{DeviceBlock, DeviceId, Slot};
use base::slab::Key;
use ports::{Buffer, BufferId, DeviceOp, Ports};
use raid::slots;

use super::checksums::{Need, Waiter};
use super::destage::{Destage, Phase};
use super::detained::Home;
use super::{ArrayShard, Purpose, Work};
use crate::limits::MAX_DESTAGES;

/// Most blocks of a member write that carries several stripes.
const MAX_MERGED_BLOCKS: usize = 64;

/// Zeros for so many neighbouring blocks are asked for as such and not written.
const ZEROES_WORTH_BLOCKS: usize = 8;

/// A block that is due to be written to a member.
#[derive(Clone, Copy, Debug)]
struct DueWrite {
    device: DeviceId,
    at: DeviceBlock,
    slot: Slot,
    /// None is zeros.
    buffer: Option<BufferId>,
    destage: Key<Destage>,
}

/// How many of the first due writes are of neighbouring blocks and of one kind.
fn run_length(due: &[DueWrite], zeros: bool) -> usize {
    let Some(first) = due.first() else { return 0 };
    let follows = |(at, write): &(usize, &DueWrite)| {
        write.device == first.device && write.at.0 == first.at.0 + *at as u64 && (!zeros || write.buffer.is_none())
    };
    due.iter().take(MAX_MERGED_BLOCKS).enumerate().take_while(follows).count()
}

/// How many of the first due writes go in one operation, and whether as zeros.
fn next_operation(due: &[DueWrite]) -> (usize, bool) {
    let zeros = run_length(due, true);
    if zeros >= ZEROES_WORTH_BLOCKS {
        return (zeros, true);
    }
    // Written zeros among others, but for those that are worth an operation of their own.
    let length = run_length(due, false);
    let begins = |at: &usize| due[*at].buffer.is_none() && run_length(&due[*at..length], true) >= ZEROES_WORTH_BLOCKS;
    ((1..length).find(begins).unwrap_or(length), false)
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
    /// Starts member writes of destages for which all earlier reads have ended.
    pub(crate) fn start_writes<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for _ in 0..self.in_grace.len() {
            let key = self.in_grace.pop_front().expect("as many as there were");
            let operations = self.writes.due.len() + self.map.members.len() + 1;
            if self.grace.is_over(self.destages[key].grace)
                && work.operations.available() > operations
                && (!self.map.checksums || self.have_checksums_of(work, key))
            {
                self.write_members(work, key);
            } else {
                self.in_grace.push_back(key);
            }
        }
        self.submit_writes(work);
    }

    /// Whether the checksum blocks of all that a destage writes are at hand.
    fn have_checksums_of<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) -> bool {
        let destage = &self.destages[key];
        let entry = self.stripes.get(destage.stripe);
        let (id, frozen, geometry) = (entry.id, entry.frozen, self.map.arrangement.at(entry.id));
        let columns = (0..geometry.data_slots()).filter(|column| frozen & 1 << column != 0);
        let homes = columns.fold(0, |mask, column| mask | geometry.homes(id, column));
        let is_written =
            |index: &u8| destage.parities[usize::from(*index)].is_some() || destage.zero_parities & 1 << index != 0;
        let parities = (0..geometry.parities()).filter(is_written);
        let all = parities.fold(homes, |mask, index| mask | 1 << geometry.parity_member(id, index).0);
        let present = all & !self.missing(id);
        let succeeded = |slot: &Slot| self.presence.on_successor(&self.map, *slot, id).is_some();
        let successor = slots(present).find(succeeded).map_or(0, |_| 1 << self.map.successor_slot().0);
        self.have_checksums(work, Need::Other, id, present | successor)
    }

    /// Gives what is due to the members, neighbours in one operation: stripes that were written together mostly go together.
    fn submit_writes<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let Writes { due, batches, free } = &mut self.writes;
        due.sort_unstable_by_key(|write| (write.device, write.at));
        let mut rest = due.as_slice();
        let zero = self.zero.as_ref().expect("it was set aside").id();
        while let Some(first) = rest.first() {
            let (length, zeros) = next_operation(rest);
            let (run, later) = rest.split_at(length);
            let batch = free.pop().expect("a batch for each block under way");
            batches[batch as usize].extend(run.iter().map(|write| write.destage));
            let purpose = Purpose::DestageWrite { array: self.map.id, batch, slot: first.slot };
            let place = (first.device, first.at);
            if zeros {
                work.operations.start(work.ports, place, DeviceOp::WriteZeroes(length as u32), None, purpose);
            } else {
                let blocks = run.iter().map(|write| write.buffer.unwrap_or(zero));
                work.operations.start(work.ports, place, DeviceOp::Write, blocks, purpose);
            }
            rest = later;
        }
        due.clear();
    }

    /// Puts what a destage writes among what is due.
    fn write_members<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let destage = &self.destages[key];
        let stripe = destage.stripe;
        let entry = self.stripes.get(stripe);
        let (id, frozen) = (entry.id, entry.frozen);
        let before = self.writes.due.len();
        // A member that has gone since the plan was made is skipped; parities or mirrors, if there are any, stand in for it.
        let (map, presence) = (&self.map, &self.presence);
        let geometry = map.arrangement.at(id);
        let due = &mut self.writes.due;
        let mut write = |slot: Slot, buffer: Option<BufferId>| {
            if let Some((device, at)) = presence.on_member(map, slot, id) {
                due.push(DueWrite { device, at, slot, buffer, destage: key });
            }
            if let Some((device, at)) = presence.on_successor(map, slot, id) {
                due.push(DueWrite { device, at, slot: map.successor_slot(), buffer, destage: key });
            }
        };
        for column in (0..geometry.data_slots()).filter(|column| frozen & 1 << column != 0) {
            let version = self.stripes.frozen(stripe, column).expect("the mask tells the truth");
            let buffer = version.content.buffer();
            slots(geometry.homes(id, column)).for_each(|home| write(home, buffer));
        }
        for (index, parity) in (0u8..).zip(&destage.parities) {
            if parity.is_some() || destage.zero_parities & 1 << index != 0 {
                write(geometry.parity_member(id, index), parity.as_ref().map(Buffer::id));
            }
        }
        let mut unanswered = (self.writes.due.len() - before) as u32;
        if self.map.checksums {
            for at in before..self.writes.due.len() {
                let DueWrite { slot, buffer, .. } = self.writes.due[at];
                self.set_checksum(work.ports, slot, id, buffer, Some(Waiter::Destage(key)));
            }
            unanswered *= 2;
        }
        let destage = &mut self.destages[key];
        destage.unanswered = unanswered;
        destage.phase = Phase::Writing;
        destage.failed = false;
        if unanswered == 0 {
            self.written(work, key);
        }
    }

    /// A member has answered a write.
    pub(crate) fn destage_written<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        batch: u32,
        slot: Slot,
        succeeded: bool,
    ) {
        if !succeeded {
            self.member_failed(slot);
        }
        let mut batch_of = core::mem::take(&mut self.writes.batches[batch as usize]);
        for key in batch_of.drain(..) {
            let destage = self.destages.get_mut(key).expect("a destage waits for its operations");
            destage.unanswered -= 1;
            if destage.unanswered == 0 {
                self.written(work, key);
            }
        }
        self.writes.batches[batch as usize] = batch_of;
        self.writes.free.push(batch);
    }

    /// A member has the checksum of a block that a destage wrote, or is on its way out.
    pub(crate) fn destage_entered<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let destage = self.destages.get_mut(key).expect("a destage waits for its operations");
        destage.unanswered -= 1;
        if destage.unanswered == 0 {
            self.written(work, key);
        }
    }

    fn written<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let destage = &mut self.destages[key];
        destage.phase = Phase::Written;
        let parities = core::mem::take(&mut destage.parities);
        self.flushing.next.push(key);
        for parity in parities.into_iter().flatten() {
            self.send_home(work, parity, Home::Scratch);
        }
    }

    /// Flushes the members for all that was written since the last flush began. While a member is failing nothing is
    /// flushed: the note that would follow must not rely on an exclusion that is not durable.
    pub(crate) fn start_flush<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let flushing = &mut self.flushing;
        if !flushing.batch.is_empty()
            || flushing.next.is_empty()
            || self.failing_members != 0
            || work.operations.available() <= self.map.members.len() + 1
        {
            return;
        }
        core::mem::swap(&mut flushing.batch, &mut flushing.next);
        flushing.failed = false;
        flushing.unanswered = 0;
        for (slot, member) in self.map.written() {
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
            let stripe = self.destages[key].stripe;
            while let Some(through) = self.stripes.take_waiter(stripe) {
                self.through_ends(through, Ok(()));
            }
            self.go_on_marked(work, key);
        }
        self.flushing.batch = batch;
    }
}
