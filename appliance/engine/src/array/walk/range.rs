//! A range of a walk: the stripes that it has locked, and what it has at hand of them.

use base::ids::{Slot, StripeId};
use ports::{Buffer, BufferId};

use super::scrub::Review;

/// How far a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is none.
    Idle,
    /// Locked; destages of it are under way, or a member failed.
    Waiting,
    Reading,
    /// Members met blocks that they cannot read: their blocks are to be read one by one.
    ToProbe,
    Probing,
    /// Blocks are to be written as soon as there is room.
    ToWrite,
    Writing,
    /// The one before it is still under way.
    Done,
}

#[derive(Debug)]
pub(super) struct Range {
    pub(super) step: Step,
    /// What is locked: the first stripe, and how many.
    pub(super) locked: (StripeId, usize),
    /// What is at hand of it: all of it, or one stripe after the other.
    pub(super) start: StripeId,
    pub(super) count: usize,
    pub(super) unanswered: u32,
    pub(super) failed: bool,
    /// Members with blocks that they cannot read, as a bit mask.
    pub(super) unreadable: u32,
    /// Members that were not asked, and those that were, as bit masks.
    pub(super) missing: u32,
    pub(super) from: u32,
    /// Slots whose checksum blocks are kept at hand, as a bit mask.
    pub(super) kept: u32,
    /// What was read, a row of `count` blocks of each member in the order of the slots.
    pub(super) rows: Vec<Buffer>,
    /// What a scrub finds in it.
    pub(super) review: Review,
}

impl Range {
    /// The buffer with a member's block of one of the stripes.
    pub(super) fn block(&self, slot: Slot, stripe: usize) -> BufferId {
        let row = (self.from & ((1 << slot.0) - 1)).count_ones() as usize;
        self.rows[row * self.count + stripe].id()
    }

    pub(super) fn stripe(&self, at: usize) -> StripeId {
        StripeId(self.start.0 + at as u64)
    }

    pub(super) fn holds(&self, stripe: StripeId) -> bool {
        let (first, count) = self.locked;
        self.step != Step::Idle && (first.0..first.0 + count as u64).contains(&stripe.0)
    }

    /// Goes through the rest of it stripe by stripe from here on.
    pub(super) fn narrow(&mut self) {
        (self.count, self.unreadable) = (1, 0);
    }

    /// The next stripe that is locked and not done, if there is one; whether there was.
    pub(super) fn advance(&mut self) -> bool {
        let (first, count) = self.locked;
        let next = self.start.0 + self.count as u64;
        let is_more = next < first.0 + count as u64;
        if is_more {
            self.start = StripeId(next);
            self.narrow();
        }
        is_more
    }
}
