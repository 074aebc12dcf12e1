//! What a read does with checksums: it has those of what it reads at hand, and compares before anybody gets anything.

use base::ids::{Slot, StripeId};
use base::slab::Key;
use ports::{BufferId, Ports};
use raid::Recipe;

use super::super::checksums::{Check, Need};
use super::super::commit::run_of;
use super::super::{ArrayShard, Work};
use super::Read;
use crate::message::Fragment;

impl ArrayShard {
    /// Whether no block of a read needs a member.
    pub(super) fn is_all_held(&self, key: Key<Read>, blank: bool) -> bool {
        let Fragment { start, count, .. } = self.reads[key].fragment;
        let is_held = |(stripe, column)| {
            blank || self.stripes.find(stripe).is_some_and(|stripe| self.stripes.readable(stripe, column).is_some())
        };
        run_of(&self.map.arrangement, start, u32::from(count)).all(is_held)
    }

    /// Has the checksum blocks of slots (a bit mask) at hand until what is asked of them has been compared, or says that the read
    /// must wait for them. A read lies in one chunk, so there is one of each.
    pub(super) fn keep_checksums<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>, of: u32) -> bool {
        let stripe = self.map.arrangement.locate(self.reads[key].fragment.start).stripe;
        let taken = self.take_checksums(work, Need::Read, stripe, of);
        if taken {
            assert_eq!(self.reads[key].kept, 0, "what was asked before has been compared");
            self.reads[key].kept = of;
        }
        taken
    }

    pub(super) fn drop_checksums(&mut self, key: Key<Read>) {
        let read = &mut self.reads[key];
        let (start, kept) = (read.fragment.start, core::mem::take(&mut read.kept));
        if kept != 0 {
            let stripe = self.map.arrangement.locate(start).stripe;
            self.leave_checksums(stripe, kept);
        }
    }

    /// Compares what was read from one member with its checksums: the slot, if a block is not what it should be, and whether it is
    /// known to be wrong.
    pub(super) fn compare_read<P: Ports>(
        &self,
        ports: &P,
        key: Key<Read>,
        slot: Slot,
        blocks: u64,
    ) -> Option<(Slot, bool)> {
        let read = &self.reads[key];
        let first = self.map.arrangement.locate(read.fragment.start).stripe;
        let ids = (0u64..).zip(read.fragment.buffers.ids(ports)).filter(|(at, _)| blocks & 1 << at != 0);
        let mut checks = ids.map(|(at, id)| self.check(ports, slot, StripeId(first.0 + at), id));
        checks.find(|check| *check != Check::Right).map(|check| (slot, check == Check::Wrong))
    }

    /// The same with what a recipe takes.
    pub(super) fn compare_row<P: Ports>(
        &self,
        ports: &P,
        recipe: &Recipe,
        stripe: StripeId,
        row: &[BufferId],
    ) -> Option<Slot> {
        let mut terms = recipe.terms().zip(row);
        terms
            .find(|(term, block)| self.check(ports, term.slot, stripe, **block) != Check::Right)
            .map(|(term, _)| term.slot)
    }
}
