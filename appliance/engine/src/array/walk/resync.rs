//! What a walk does with a zone that a crash left dirty, without a log: all that is there is read, parities are made anew from
//! the data, and mirrors from the one that reads are answered from. Only what differs is written, durably; some time later the
//! zone counts as clean ([`super::super::dirty`]).
//!
//! With a member missing (the operator wanted it served so, or it was lost meanwhile) the first parity that is there stands for
//! what the member held, and the other is made to agree with it. A zone with a block that its member cannot read is left as it
//! is, and stays dirty: whatever came from its parities might be wrong.

use base::ids::{Slot, StripeId};
use base::{Block, ZERO_BLOCK};
use ports::Ports;
use raid::level::MAX_MEMBERS;
use raid::{Part, ReadPlan, Recipe, plan_read, recipe, slots};

use super::super::{ArrayShard, Work};
use super::scrub::Review;
use super::{MAX_RANGE_STRIPES, Step};

impl ArrayShard {
    /// Works out what is to be written of a range that has been read, and writes it.
    pub(super) fn match_range<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        let count = self.walker.ranges[at].count;
        self.walker.ranges[at].review = Review::default();
        for offset in 0..count {
            let stripe = StripeId(self.walker.ranges[at].start.0 + offset as u64);
            let recipes = self.resync_recipes(stripe, self.walker.ranges[at].missing);
            let range = &mut self.walker.ranges[at];
            for (slot, recipe) in recipes.iter().enumerate().filter(|(_, recipe)| !recipe.is_empty()) {
                let slot = Slot(slot as u8);
                let mut sum: Block = ZERO_BLOCK;
                for term in recipe.terms() {
                    let content = work.ports.bytes(range.block(term.slot, offset));
                    parity::multiply_into(&mut sum, content, term.coefficient);
                }
                let own = range.block(slot, offset);
                if work.ports.bytes(own) != &sum {
                    work.ports.bytes_mut(own).copy_from_slice(&sum);
                    range.review.rewritten[offset] |= 1 << slot.0;
                }
            }
        }
        if self.walker.ranges[at].review.rewritten == [0; MAX_RANGE_STRIPES] {
            self.range_done(at);
        } else {
            self.walker.ranges[at].step = Step::ToWrite;
            self.write_range(work, at);
        }
    }

    /// What each member ought to hold of a stripe, by slot; empty for those whose word is taken.
    fn resync_recipes(&self, stripe: StripeId, missing: u32) -> [Recipe; MAX_MEMBERS as usize] {
        let geometry = self.map.arrangement.at(stripe);
        let mut recipes = [Recipe::EMPTY; MAX_MEMBERS as usize];
        let mut all_data = true;
        for column in 0..geometry.data_slots() {
            let ReadPlan::Direct(source) = plan_read(geometry, stripe, column, missing) else {
                all_data = false;
                continue;
            };
            for mirror in slots(geometry.homes(stripe, column) & !missing & !(1 << source.0)) {
                let others = missing | geometry.homes(stripe, column) & !(1 << source.0);
                recipes[mirror.index()] = recipe(geometry, stripe, Part::Data(column), others).unwrap_or(Recipe::EMPTY);
            }
        }
        let parities = (0..geometry.parities()).map(|index| geometry.parity_member(stripe, index));
        let there = parities.filter(|slot| missing & 1 << slot.0 == 0);
        // Where data is missing, the first parity stands for it.
        let derived = there.skip(usize::from(!all_data)).fold(0, |mask: u32, slot| mask | 1 << slot.0);
        for slot in slots(derived) {
            // With more missing than the level bears nothing is to be had.
            let part = geometry.part_of(stripe, slot);
            recipes[slot.index()] = recipe(geometry, stripe, part, missing | derived).unwrap_or(Recipe::EMPTY);
        }
        recipes
    }
}
