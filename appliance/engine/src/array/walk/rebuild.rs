//! What a walk does for a member that is being rebuilt: the member's blocks of a range are put together from those of the
//! others and written to it. Not before a range is done does anybody else read or write there.

use base::ids::{Slot, StripeId};
use ports::{BufferId, DeviceOp, Ports};
use raid::level::MAX_MEMBERS;
use raid::recipe::{Lost, recipe};
use raid::slots;

use super::super::checksums::{Check, Waiter};
use super::super::sum::carry_out;
use super::super::{ArrayShard, Purpose, Work};
use super::{Action, MAX_RANGE_STRIPES, Order, Step};

impl ArrayShard {
    /// Members of whose blocks in a range one is not what its checksum says, as a bit mask: their rows are not used. One whose
    /// checksum is lost is believed, since it is all that there is.
    fn wrong_members<P: Ports>(&mut self, work: &Work<'_, P>, at: usize) -> u32 {
        let range = &self.walker.ranges[at];
        let is_wrong = |slot: &Slot| {
            let is_wrong = |block: &usize| {
                self.check(work.ports, *slot, range.stripe(*block), range.block(*slot, *block)) == Check::Wrong
            };
            (0..range.count).any(|block| is_wrong(&block))
        };
        let wrong = slots(range.from).filter(is_wrong).fold(0, |mask: u32, slot| mask | 1 << slot.0);
        slots(wrong).for_each(|slot| self.found_wrong(work, slot));
        wrong
    }

    /// Whether a zone that was written has to be walked over: for a member that returns, only if it missed something there.
    pub(super) fn lacks_zone(&self, order: Order) -> bool {
        match order.action {
            Action::Rebuild(slot) if self.map.away.is_some_and(|away| away.returns(slot)) => {
                self.missed.has(order.zone)
            }
            Action::Rebuild(_) | Action::Scrub(_) | Action::Resync => true,
        }
    }

    /// The first stripe of which a member holds nothing: while an array grows, its newest member has only what was moved.
    pub(super) fn end_of(&self, slot: Slot) -> StripeId {
        match self.map.arrangement.reshape() {
            Some(reshape) if slot.0 >= reshape.before().members() => reshape.boundary(),
            _ => StripeId(self.map.arrangement.geometry().stripes()),
        }
    }

    /// A drive may have been a member before, failed, and have come back: then what was being written to it must have ended.
    pub(super) fn settle<P: Ports>(&mut self, work: &Work<'_, P>) {
        if self.walker.settling
            && let Some(order) = self.walker.orders.front()
            && let Action::Rebuild(slot) = order.action
        {
            let member = self.map.member(slot);
            self.walker.settling = member.is_some_and(|member| work.operations.is_writing(member.device));
        }
    }

    /// The members that any stripe of a range is put together from: where parity and data lie changes with each chunk row.
    pub(super) fn members_of_recipes(
        &self,
        start: StripeId,
        count: usize,
        target: Slot,
        missing: u32,
    ) -> Result<u32, Lost> {
        let end = start.0 + count as u64;
        let behind = |stripe: StripeId| StripeId(stripe.0 + self.map.arrangement.alike_from(stripe));
        let rows = core::iter::successors(Some(start), |stripe| Some(behind(*stripe)).filter(|next| next.0 < end));
        rows.into_iter().try_fold(0, |members, stripe| {
            let geometry = self.map.arrangement.at(stripe);
            let recipe = recipe(geometry, stripe, geometry.part_of(stripe, self.map.place_of(target)), missing)?;
            Ok(members | recipe.members())
        })
    }

    /// Puts the member's blocks of a range together from what was read, and writes them.
    pub(super) fn put_range_together<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let order = self.walker.walk.as_ref().expect("a walk under way").order;
        let Action::Rebuild(target) = order.action else { unreachable!("a scrub does this otherwise") };
        let range = &mut self.walker.ranges[at];
        let (start, count) = (range.start, range.count);
        if self.map.checksums {
            let wrong = self.wrong_members(work, at);
            if wrong != 0 {
                self.walker.ranges[at].unreadable |= wrong;
                self.begin_range_again(work, at);
                return;
            }
        }
        let range = &mut self.walker.ranges[at];
        let mut sums = [BufferId(0); MAX_RANGE_STRIPES];
        for (at, sum) in sums[..count].iter_mut().enumerate() {
            let stripe = StripeId(start.0 + at as u64);
            let geometry = self.map.arrangement.at(stripe);
            let wanted = geometry.part_of(stripe, self.map.place_of(target));
            let recipe = recipe(geometry, stripe, wanted, range.missing);
            let recipe = recipe.expect("the range was read by these recipes");
            let mut blocks = [BufferId(0); MAX_MEMBERS as usize];
            for (block, term) in blocks.iter_mut().zip(recipe.terms()) {
                *block = range.block(term.slot, at);
            }
            carry_out(work.ports, &recipe, &blocks[..recipe.len()]);
            *sum = blocks[0];
        }
        // Not before it is told to have been rebuilt does anybody else write there, or read.
        let Some(place) = self.map.place(target, start) else {
            unreachable!("a rebuild is cancelled when its member goes")
        };
        range.step = Step::Writing;
        range.unanswered = 1;
        if self.map.checksums {
            range.unanswered = 2;
            for (stripe, sum) in (start.0..).map(StripeId).zip(&sums[..count]) {
                let is_last = stripe.0 + 1 == start.0 + count as u64;
                let waiter = is_last.then_some(Waiter::Range(at as u8));
                self.set_checksum(work.ports, target, stripe, Some(*sum), waiter);
            }
        }
        let purpose = Purpose::Walk { array: self.map.id, range: at as u8, slot: target, block: None };
        work.operations.start(work.ports, place, DeviceOp::Write, sums[..count].iter().copied(), purpose);
    }
}
