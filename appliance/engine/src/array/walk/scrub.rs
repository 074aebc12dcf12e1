//! What a walk does to compare all that members hold, and to put right what is wrong: reads a range whole, has each stripe
//! judged ([`super::super::verdict`]), writes anew what is to be written, and reads the range once more to see that it helped.
//! Blocks that a member cannot read are found one by one and are put together like others that are wrong, unless nothing is to
//! be written.
//!
//! What the log still holds of a stripe does not matter, since that is not on the members yet, with one exception: what
//! recovery found in the log may have been on its way to the members when the power failed, and there lie parts of it. Such a
//! stripe goes to the members first; destages of the others need not come early, and a stripe that is written again and again
//! is looked at all the same. A stripe whose destage cannot be done, because old content of it cannot be had, is left out.
//!
//! Why writing to a member here, past the log, opens no write hole. What is written are blocks that are wrong already, with what
//! the stripe's other blocks say of them; nothing else changes. A crash in the middle leaves each of them wrong, right, or
//! by sectors one or the other: that is what it was, a wrong block, and the next scrub finds it again. No log record speaks of the
//! stripe meanwhile but of data that is still to be written: no destage of it is under way, so no parity is in the log that counts
//! on what these blocks held, and none begins before the range is done. No block is put together for a host from what is being
//! written either: a mend waits for the range as the range waits for it. Writes are durable one by one; so the position of a
//! scrub needs no flush.
//!
//! With [`raid::Repair::Parity`] what is written may have been right, if nobody can tell: that is what the operator chose.

use base::BLOCK;
use base::ids::{Slot, StripeId};
use ports::{BufferId, DeviceOp, Ports};
use raid::level::MAX_MEMBERS;
use raid::{Repair, ScrubCounts, recipe, slots};

use super::super::checksums::{Check, Waiter, of};
use super::super::stripes::Listed;
use super::super::sum::put_into;
use super::super::verdict::{Row, Verdict, judge, rewritten};
use super::super::{ArrayShard, Purpose, Work};
use super::{Action, MAX_RANGE_STRIPES, Range, Step, Walker};
use crate::limits::{FOUND_PLACES, RESERVED_OPERATIONS};

/// What is wrong with a run of stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// The blocks of these members.
    Wrong,
    /// Those of some of these members, and nobody can tell which.
    Unlocated,
    /// These members could not read theirs.
    Unreadable,
}

/// A run of stripes with the same mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundPlace {
    /// The first of them.
    pub start: StripeId,
    /// How many.
    pub stripes: u32,
    /// What is wrong.
    pub kind: FoundKind,
    /// With whom: slots, as a bit mask.
    pub slots: u32,
    /// Whether it is right since.
    pub repaired: bool,
}

/// What was found in a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How much.
    pub counts: ScrubCounts,
    /// Where; the first [`FOUND_PLACES`] runs.
    pub places: Vec<FoundPlace>,
    /// How many runs there were beside those.
    pub more: u32,
}

impl Found {
    /// What there is to tell, if there is anything.
    pub(super) fn take(&mut self) -> Option<Box<Self>> {
        let found = core::mem::take(self);
        (!found.counts.is_clean()).then(|| Box::new(found))
    }

    /// Adds a stripe to the run that it continues, or as one of its own.
    fn note(&mut self, stripe: StripeId, kind: FoundKind, slots: u32, repaired: bool) {
        let place = FoundPlace { start: stripe, stripes: 1, kind, slots, repaired };
        let continues = |before: &&mut FoundPlace| {
            let end = before.start.0 + u64::from(before.stripes);
            FoundPlace { start: stripe, stripes: 1, ..**before } == place && end == stripe.0
        };
        let has_room = self.places.len() < FOUND_PLACES;
        match self.places.iter_mut().find(continues) {
            Some(before) => before.stripes += 1,
            None if has_room => self.places.push(place),
            None => self.more += 1,
        }
    }
}

/// What is found in a range; by stripe, as far as there are several.
#[derive(Debug, Default)]
pub(super) struct Review {
    /// It was written to, and is read again.
    confirming: bool,
    /// Stripes that are left out, as a bit mask.
    skipped: u32,
    /// Slots whose block turned out to be unreadable when the range was last read.
    probed: [u32; MAX_RANGE_STRIPES],
    /// The same, before anything was written.
    holes: [u32; MAX_RANGE_STRIPES],
    /// What the blocks said then.
    verdicts: [Verdict; MAX_RANGE_STRIPES],
    /// Slots whose block is written anew.
    pub(super) rewritten: [u32; MAX_RANGE_STRIPES],
    /// Those of them whose block was not right afterwards.
    lost: [u32; MAX_RANGE_STRIPES],
    /// Slots whose block was not what its checksum says when the range was last read.
    compared: [u32; MAX_RANGE_STRIPES],
    /// The same, before anything was written.
    bad: [u32; MAX_RANGE_STRIPES],
}

impl Range {
    /// A member could not read its row, or one block.
    pub(super) fn note_unreadable(&mut self, slot: Slot, block: Option<u8>) {
        match block {
            None => self.unreadable |= 1 << slot.0,
            Some(stripe) => self.review.probed[usize::from(stripe)] |= 1 << slot.0,
        }
    }
}

impl Walker {
    /// Whether a stripe is being compared, or written anew.
    pub(crate) fn reviews(&self, stripe: StripeId) -> bool {
        let is_scrub = |walk: &super::Walk| matches!(walk.order.action, Action::Scrub(_));
        self.walk.as_ref().is_some_and(is_scrub)
            && self.ranges.iter().any(|range| range.holds(stripe) && !matches!(range.step, Step::Waiting | Step::Done))
    }
}

impl ArrayShard {
    /// Whether a range may be read. What recovery left of its stripes is sent to the members.
    pub(super) fn settle_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) -> bool {
        let range = &self.walker.ranges[at];
        let (start, count) = (range.start, range.count);
        let mut is_still = !(0..count as u64).any(|offset| self.is_mending(StripeId(start.0 + offset)));
        for offset in 0..count {
            let Some(stripe) = self.stripes.find(StripeId(start.0 + offset as u64)) else { continue };
            let entry = self.stripes.get(stripe);
            if entry.listed == Some(Listed::Blocked) {
                self.walker.ranges[at].review.skipped |= 1 << offset;
            } else if entry.destage.is_some() {
                is_still = false;
            } else if entry.recovered {
                is_still = false;
                if self.may_start(work) {
                    self.start_destage(work, stripe);
                }
            }
        }
        is_still
    }

    /// Takes the next step with a range after all that it waited for was answered.
    pub(super) fn review_goes_on<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let (start, from) = (self.walker.ranges[at].start, self.walker.ranges[at].from);
        let range = &mut self.walker.ranges[at];
        if range.step != Step::Writing && from & self.presence.missing(&self.map, start) != 0 {
            // One was excluded although it answers: nothing is written to it any more.
            self.begin_range_again(work, at);
            return;
        }
        match range.step {
            Step::Reading => {
                range.review.probed.fill(0);
                if range.unreadable == 0 {
                    self.review(work, at);
                } else {
                    range.step = Step::ToProbe;
                    self.probe_range(work, at);
                }
            }
            Step::Probing => self.review(work, at),
            Step::Writing => {
                range.review.confirming = true;
                self.begin_range_again(work, at);
            }
            step => unreachable!("nothing is awaited in {step:?}"),
        }
    }

    /// Reads the rows of members that could not read them block by block.
    pub(super) fn probe_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let range = &self.walker.ranges[at];
        let (count, unreadable) = (range.count, range.unreadable);
        if work.operations.available() <= RESERVED_OPERATIONS + count * unreadable.count_ones() as usize {
            return;
        }
        self.walker.ranges[at].step = Step::Probing;
        for slot in slots(unreadable) {
            for block in 0..count {
                let range = &mut self.walker.ranges[at];
                let (stripe, buffer) = (range.stripe(block), range.block(slot, block));
                range.unanswered += 1;
                let place = self.on_member(slot, stripe).expect("a member that goes has its range begun again");
                let purpose = Purpose::Walk { array: self.map.id, range: at as u8, slot, block: Some(block as u8) };
                work.operations.start(work.ports, place, DeviceOp::Read, Some(buffer), purpose);
            }
        }
    }

    /// Looks at what was read of a range: what is to be written, or whether what was written is right.
    fn review<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let Action::Scrub(repair) = self.walker.walk.as_ref().expect("a walk under way").order.action else {
            unreachable!("only a scrub reviews")
        };
        if self.map.checksums {
            self.compare_range(work, at, repair);
        }
        let Walker { ranges, scratch, .. } = &mut self.walker;
        let range = &mut ranges[at];
        let mut is_to_write = false;
        let skipped = range.review.skipped;
        for block in (0..range.count).filter(|block| skipped & 1 << block == 0) {
            let stripe = range.stripe(block);
            let geometry = self.map.arrangement.at(stripe);
            let (unreadable, bad) = (range.review.probed[block], range.review.compared[block]);
            let holes = unreadable | bad;
            let mut row: Row<'_> = [None; MAX_MEMBERS as usize];
            for slot in slots(range.from & !holes) {
                row[slot.index()] = Some(work.ports.bytes(range.block(slot, block)));
            }
            let mut verdict = judge(geometry, stripe, &row, scratch);
            verdict.compared |= bad != 0;
            let review = &mut range.review;
            if review.confirming {
                review.rewritten[block] &= range.from;
                review.lost[block] = review.rewritten[block] & (holes | verdict.wrong | verdict.doubtful);
                continue;
            }
            let mut mask = rewritten(geometry, stripe, &verdict, range.missing, holes, repair);
            verdict.wrong |= bad;
            let gone = range.missing | holes | mask;
            for slot in slots(mask) {
                let recipe = recipe(geometry, stripe, geometry.part_of(stripe, slot), gone);
                let recipe = recipe.expect("what is written anew can be had");
                let content = range.block(slot, block);
                let entry = |ports: &P| of(&self.map, slot).entry(stripe, ports.bytes(content));
                let there = (bad & 1 << slot.0 != 0).then(|| entry(work.ports));
                put_into(work.ports, &recipe, content, |slot| range.block(slot, block));
                // Neither what is there nor what the others say is what the checksum says: nobody can tell.
                let is_right = || self.checksums.check(work.ports, &self.map, (slot, stripe), content) == Check::Right;
                if repair != Repair::Parity && there.is_some_and(|there| there != entry(work.ports) && !is_right()) {
                    mask &= !(1 << slot.0);
                    verdict.wrong &= !(1 << slot.0);
                    verdict.doubtful |= 1 << slot.0;
                }
            }
            is_to_write |= mask != 0;
            let review = &mut range.review;
            (review.holes[block], review.bad[block]) = (unreadable, bad);
            (review.verdicts[block], review.rewritten[block]) = (verdict, mask);
        }
        if is_to_write {
            self.walker.ranges[at].step = Step::ToWrite;
            self.write_range(work, at);
        } else {
            self.note_found(work, at);
            self.range_done(at);
        }
    }

    /// Compares what was read of a range with its checksums, where it was read. Where a checksum is lost and nothing else is wrong
    /// with the stripe, the block says it anew, unless nothing is to be written.
    fn compare_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize, repair: Repair) {
        self.walker.ranges[at].review.compared.fill(0);
        for block in 0..self.walker.ranges[at].count {
            let range = &self.walker.ranges[at];
            let (stripe, compared) = (range.stripe(block), range.from & !range.review.probed[block]);
            let check = |slot: Slot| self.check(work.ports, slot, stripe, range.block(slot, block));
            let are = |what: Check| {
                slots(compared).filter(|slot| check(*slot) == what).fold(0, |mask: u32, slot| mask | 1 << slot.0)
            };
            let (bad, unknown) = (are(Check::Wrong), are(Check::Unknown));
            let is_whole = bad == 0 && range.review.probed[block] == 0 && range.review.skipped & 1 << block == 0;
            if unknown != 0 && is_whole && repair != Repair::None && self.agrees(work, at, block) {
                for slot in slots(unknown) {
                    let content = self.walker.ranges[at].block(slot, block);
                    self.set_checksum(work.ports, slot, stripe, Some(content), None);
                }
            }
            self.walker.ranges[at].review.compared[block] = bad;
        }
    }

    /// Whether the blocks of a stripe agree.
    fn agrees<P: Ports>(&mut self, work: &Work<'_, P>, at: usize, block: usize) -> bool {
        let Walker { ranges, scratch, .. } = &mut self.walker;
        let range = &ranges[at];
        let mut row: Row<'_> = [None; MAX_MEMBERS as usize];
        for slot in slots(range.from) {
            row[slot.index()] = Some(work.ports.bytes(range.block(slot, block)));
        }
        let stripe = range.stripe(block);
        judge(self.map.arrangement.at(stripe), stripe, &row, scratch).agrees()
    }

    /// Writes what is to be written of a range, neighbours in one operation.
    pub(super) fn write_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let range = &self.walker.ranges[at];
        let count = range.count;
        if work.operations.available() <= RESERVED_OPERATIONS + count * self.map.members.len()
            || self.failing_members != 0
        {
            return;
        }
        self.walker.ranges[at].step = Step::Writing;
        for slot in slots(self.walker.ranges[at].from) {
            let mut block = 0;
            while block < count {
                let range = &mut self.walker.ranges[at];
                let is_meant = |block: &usize| range.review.rewritten[*block] & 1 << slot.0 != 0;
                let length = (block..count).take_while(is_meant).count();
                if length > 0 {
                    let mut run = [BufferId(0); MAX_RANGE_STRIPES];
                    for (offset, buffer) in run[..length].iter_mut().enumerate() {
                        *buffer = range.block(slot, block + offset);
                    }
                    let stripe = range.stripe(block);
                    range.unanswered += 1;
                    if self.map.checksums {
                        range.unanswered += 1;
                        for (offset, buffer) in run[..length].iter().enumerate() {
                            let waiter = (offset == 0).then_some(Waiter::Range(at as u8));
                            let stripe = StripeId(stripe.0 + offset as u64);
                            self.set_checksum(work.ports, slot, stripe, Some(*buffer), waiter);
                        }
                    }
                    let place = self.on_member(slot, stripe).expect("a member that goes has its range begun again");
                    let purpose = Purpose::Walk { array: self.map.id, range: at as u8, slot, block: None };
                    let blocks = run[..length].iter().copied();
                    work.operations.start(work.ports, place, DeviceOp::WriteDurable, blocks, purpose);
                }
                block += length + 1;
            }
        }
    }

    /// Counts what was found in a range that is done.
    fn note_found<P: Ports>(&mut self, work: &Work<'_, P>, at: usize) {
        let review = core::mem::take(&mut self.walker.ranges[at].review);
        let (start, count) = (self.walker.ranges[at].start, self.walker.ranges[at].count);
        let read = self.walker.ranges[at].from.count_ones() as usize * count;
        let mut counts = ScrubCounts::default();
        for block in 0..count {
            let stripe = StripeId(start.0 + block as u64);
            let (verdict, holes) = (review.verdicts[block], review.holes[block]);
            let (written, lost) = (review.rewritten[block], review.lost[block]);
            counts.skipped_stripes += u64::from(!verdict.compared && holes == 0);
            counts.mismatched_stripes += u64::from(!verdict.agrees());
            counts.located_blocks += u64::from(verdict.wrong.count_ones());
            counts.unlocated_stripes += u64::from(verdict.doubtful != 0);
            counts.unreadable_blocks += u64::from(holes.count_ones());
            counts.repaired_blocks += u64::from((written & !lost).count_ones());
            counts.unrepaired_blocks += u64::from(lost.count_ones());
            // Of doubtful blocks those are written that are not trusted.
            let repaired =
                |mask: u32, all: bool| written & mask != 0 && lost & mask == 0 && (!all || mask & !written == 0);
            let all = [
                (FoundKind::Wrong, verdict.wrong, true),
                (FoundKind::Unlocated, verdict.doubtful, false),
                (FoundKind::Unreadable, holes, true),
            ];
            for (kind, mask, all) in all.into_iter().filter(|(_, mask, _)| *mask != 0) {
                self.walker.found.note(stripe, kind, mask, repaired(mask, all));
            }
            for slot in slots(review.bad[block] & !holes) {
                self.found_wrong(work, slot);
            }
            for slot in slots(holes) {
                self.found_unreadable(work, slot);
            }
            for slot in slots(holes | review.bad[block]) {
                if written & 1 << slot.0 != 0 {
                    self.found_rewritten(work, slot, lost & 1 << slot.0 == 0);
                }
            }
        }
        let metrics = &work.metrics.scrub;
        metrics.read_blocks.add(read as u64);
        metrics.mismatched_stripes.add(counts.mismatched_stripes);
        metrics.located_blocks.add(counts.located_blocks);
        metrics.unlocated_stripes.add(counts.unlocated_stripes);
        metrics.unreadable_blocks.add(counts.unreadable_blocks);
        metrics.repaired_blocks.add(counts.repaired_blocks);
        metrics.unrepaired_blocks.add(counts.unrepaired_blocks);
        self.walker.found.counts.add(&counts);
    }
}

const _: () = assert!(MAX_RANGE_STRIPES <= u32::BITS as usize, "stripes of a range are bits of a mask");
const _: () = assert!(MAX_RANGE_STRIPES * BLOCK <= 1 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_the_same_mistake_are_one_place_and_places_are_bounded() {
        let mut found = Found::default();
        assert_eq!(found.take(), None);
        for stripe in [5, 6, 7, 40, 8] {
            found.note(StripeId(stripe), FoundKind::Wrong, 0b10, true);
        }
        found.note(StripeId(9), FoundKind::Wrong, 0b10, false);
        found.note(StripeId(10), FoundKind::Wrong, 0b100, false);
        let places: Vec<_> = found.places.iter().map(|place| (place.start.0, place.stripes)).collect();
        assert_eq!(places, [(5, 4), (40, 1), (9, 1), (10, 1)]);
        for stripe in 0..2 * FOUND_PLACES as u64 {
            found.note(StripeId(1000 + 2 * stripe), FoundKind::Unlocated, 0b111, false);
        }
        assert_eq!((found.places.len(), found.more), (FOUND_PLACES, FOUND_PLACES as u32 + 4));
        found.counts.mismatched_stripes = 1;
        assert!(found.take().is_some() && found == Found::default());
    }
}
