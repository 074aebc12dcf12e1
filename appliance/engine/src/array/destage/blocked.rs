//! Stripes that cannot be destaged: old content that their parity needs can neither be read nor put together, and neither way to
//! make the parity goes without it.
//!
//! Nothing of such a stripe has been written to a member, and nothing logged beside its data. So the destage is taken back: what it
//! froze is dirty again, is read from the log, and waits apart from the other dirty stripes of its lane, which go on. It is tried
//! again now and then, since a drive may read the block after all; when members come or go; and at once when more of its columns
//! have been written: a host that writes what it could not read takes the place of what is lost, and the stripe is whole again.
//!
//! Whoever waits until the members have it is told that this cannot be. With a log its data stays there all the same; without one
//! it is dropped, as if it had never been written.
//!
//! An *episode* lasts from the first such stripe until there has been none for a while.

use base::slab::Key;
use base::time::{Span, Time};
use ports::Ports;

use super::super::stripes::StripeRef;
use super::super::{ArrayShard, Work};
use super::Destage;
use crate::io::IoError;
use crate::message::Message;

/// How long it takes until a blocked stripe is tried again.
const RETRY_EVERY: Span = Span::from_secs(10);

/// How long there must be none before that is told.
const CALM: Span = Span::from_secs(10);

/// What there is of them.
#[derive(Debug)]
pub(crate) struct Blocked {
    /// Stripes whose last destage could not be done.
    pub(crate) stripes: u64,
    /// Whether an episode was told.
    told: bool,
    /// Whether it was told that so much is blocked that a lane is full.
    full_told: bool,
    /// Since when there are none.
    calm_since: Time,
}

impl Blocked {
    pub(crate) fn new() -> Self {
        Self { stripes: 0, told: false, full_told: false, calm_since: Time::NEVER }
    }

    /// So much is blocked that a lane is full: whether that is to be told.
    pub(crate) fn tell_full(&mut self) -> bool {
        !core::mem::replace(&mut self.full_told, true)
    }

    /// When the episode is over, if nothing else happens.
    pub(crate) fn deadline(&self) -> Time {
        if self.told && self.stripes == 0 { self.calm_since + CALM } else { Time::NEVER }
    }
}

impl ArrayShard {
    /// Neither way to make a stripe's parity is open.
    pub(super) fn block<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        self.keep_old(work, key);
        let mut destage = self.destages.remove(key).expect("a destage ends once");
        self.old_lists.push(core::mem::take(&mut destage.old));
        for buffer in core::mem::take(&mut destage.parities).into_iter().flatten() {
            self.keep(work, buffer);
        }
        let stripe = destage.stripe;
        while let Some(through) = self.stripes.take_waiter(stripe) {
            self.through_ends(through, Err(IoError::Unwritable));
        }
        let entry = self.stripes.get_mut(stripe);
        (entry.destage, entry.tried) = (None, entry.frozen);
        let id = entry.id;
        if core::mem::replace(&mut entry.lost, destage.lost) == 0 {
            self.blocked.stripes += 1;
        }
        if !core::mem::replace(&mut self.blocked.told, true) {
            let (array, members) = (self.map.id, destage.lost);
            self.reports.push_back(Message::DestageBlocked { array, stripe: id, members });
        }
        if self.map.is_bare() {
            self.drop_frozen(work, stripe);
        } else {
            self.thaw(work, stripe, &destage);
        }
    }

    /// Without a log: what could not be written is as if nobody had.
    fn drop_frozen<P: Ports>(&mut self, work: &mut Work<'_, P>, stripe: StripeRef) {
        while let Some((_, content)) = self.stripes.take_frozen(stripe) {
            self.give_back(work, content);
        }
        self.unblock(stripe);
        if !self.stripes.forget_if_empty(stripe) && self.stripes.get(stripe).durable != 0 {
            self.stripe_is_dirty(stripe, work.now);
        }
    }

    /// With a log: what was frozen is dirty again, but for what is newer by now.
    fn thaw<P: Ports>(&mut self, work: &mut Work<'_, P>, stripe: StripeRef, destage: &Destage) {
        let whole = destage.reserved == self.map.destage_log_blocks();
        assert!(whole || self.map.is_unlogged(), "nothing of it was logged");
        let lane = self.stripes.get(stripe).lane;
        if core::mem::replace(&mut self.stripes.get_mut(stripe).reserved, true) {
            // What came meanwhile had its own set aside.
            self.lane(lane).release(destage.reserved);
        }
        self.give_back_lent(work, stripe);
        while let Some((sequence, content)) = self.stripes.thaw(stripe, destage.since) {
            self.lane(lane).forget(sequence);
            self.give_back(work, content);
        }
        let entry = self.stripes.get_mut(stripe);
        entry.retry_at = work.now + RETRY_EVERY;
        self.stripe_is_dirty(stripe, work.now);
    }

    /// A stripe's last destage could be done, or it is dropped.
    pub(super) fn unblock(&mut self, stripe: StripeRef) {
        let entry = self.stripes.get_mut(stripe);
        if core::mem::take(&mut entry.lost) != 0 {
            entry.tried = 0;
            self.blocked.stripes -= 1;
        }
    }

    /// Tries blocked stripes again whose time has come; how many.
    pub(super) fn retry_blocked<P: Ports>(&mut self, work: &mut Work<'_, P>, budget: usize) -> usize {
        let mut started = 0;
        if self.blocked.stripes == 0 {
            return started;
        }
        for at in 0..self.awake.len() {
            let index = self.awake[at].index();
            while started < budget
                && self.may_start(work)
                && let Some(lane) = &self.lanes[index]
                && let Some(stripe) = lane.stripes.blocked.oldest()
                && self.stripes.get(stripe).retry_at <= work.now
                && !self.walker.locks(self.stripes.get(stripe).id)
                && self.start_destage(work, stripe)
            {
                started += 1;
            }
        }
        started
    }

    /// Other members may know more.
    pub(super) fn retry_all_blocked(&mut self) {
        if self.blocked.stripes == 0 {
            return;
        }
        for lane in self.lanes.iter().flatten() {
            self.stripes.for_each_in(&lane.stripes.blocked, |stripe| stripe.retry_at = Time(0));
        }
    }

    /// Tells the coordinator when an episode is over.
    pub(crate) fn report_blocked(&mut self, now: Time) {
        if !self.blocked.told {
            return;
        }
        if self.blocked.stripes > 0 {
            self.blocked.calm_since = Time::NEVER;
        } else if self.blocked.calm_since == Time::NEVER {
            self.blocked.calm_since = now;
        } else if now >= self.blocked.calm_since + CALM {
            self.blocked = Blocked::new();
            self.reports.push_back(Message::DestageUnblocked { array: self.map.id });
        }
    }
}
