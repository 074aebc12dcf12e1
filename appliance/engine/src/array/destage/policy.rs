//! When a dirty stripe goes to the members. What waits may be overwritten, and then goes once instead of twice; and more of its
//! stripe may come, so that its parity needs no old content. What waits also takes log space and memory.
//!
//! | a stripe goes | when |
//! |---|---|
//! | of which all columns are dirty | `full_stripe_delay` after they became so |
//! | any | `age` after the oldest of it became dirty |
//! | the oldest of its lane | as soon as more than `high_watermark` of the lane is taken, or writes wait for it |
//! | the oldest of each lane | as soon as more than `memory_watermark` of the cache is dirty, or of the index: what the log alone has takes no memory |
//! | any | at once, while somebody waits for the members: write-through, no log, a stop, a log copy that comes, the last one that goes |
//!
//! What is on its way to the members already does not count as dirty memory: otherwise each turn would send more.

use base::time::{Span, Time};
use ports::Ports;

use super::super::stripes::StripeRef;
use super::super::{ArrayShard, Work};
use crate::limits::DESTAGES_A_TURN;

/// When dirty stripes go to the members.
#[derive(Clone, Copy, Debug)]
pub struct DestageSettings {
    /// How long the oldest data of a stripe may wait.
    pub age: Span,
    /// How long a stripe waits to be overwritten of which all columns are dirty.
    pub full_stripe_delay: Span,
    /// Above this share of a lane's space its oldest stripes go at once; in percent.
    pub high_watermark_percent: u8,
    /// Above this share of the cache that is dirty the oldest stripes go at once; in percent.
    pub memory_watermark_percent: u8,
    /// Above this share of the cache that is taken, what comes leaves memory as soon as the log alone may have it; in percent.
    pub resident_percent: u8,
    /// How long a note that stripes were destaged may wait for company in the log.
    pub note_patience: Span,
}

impl Default for DestageSettings {
    fn default() -> Self {
        Self {
            age: Span::from_secs(5),
            full_stripe_delay: Span::from_millis(200),
            high_watermark_percent: 50,
            memory_watermark_percent: 50,
            resident_percent: 50,
            note_patience: Span::from_millis(20),
        }
    }
}

impl ArrayShard {
    /// Starts destages as far as the settings ask for and room allows: blocked ones whose time has come, full stripes, then by
    /// age and pressure.
    pub(crate) fn start_destages<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let mut budget = DESTAGES_A_TURN - self.retry_blocked(work, DESTAGES_A_TURN);
        let is_pressed = self.is_pressed();
        while budget > 0
            && self.may_start(work)
            && let Some(&stripe) = self.full.front()
        {
            if self.is_full(stripe) {
                let id = self.stripes.get(stripe).id;
                if !is_pressed && !self.full_is_due(work.now) || self.walker.locks(id) {
                    break;
                }
                if !self.start_destage(work, stripe) {
                    break;
                }
                budget -= 1;
            }
            self.full.pop_front();
            self.stripes.get_mut(stripe).queued_full = false;
            // Destaged meanwhile for another reason; if nothing is left of it, this was the last mention.
            self.stripes.forget_if_empty(stripe);
        }
        for at in 0..self.awake.len() {
            let index = self.awake[at].index();
            while budget > 0
                && self.may_start(work)
                && let Some(stripe) = self.pressing(index, work.now, is_pressed)
            {
                if !self.start_destage(work, stripe) {
                    break;
                }
                budget -= 1;
            }
        }
    }

    /// Whether all columns of a stripe are dirty, and none is on its way.
    fn is_full(&self, stripe: StripeRef) -> bool {
        let entry = self.stripes.get(stripe);
        entry.destage.is_none()
            && entry.durable.count_ones() == u32::from(self.map.arrangement.at(entry.id).data_slots())
    }

    /// When the oldest full stripe goes, if nothing else comes.
    pub(crate) fn full_due_at(&self) -> Time {
        let oldest = self.full.front();
        oldest.map_or(Time::NEVER, |&oldest| self.stripes.get(oldest).full_since + self.settings.full_stripe_delay)
    }

    /// Whether a full stripe should not wait any longer.
    pub(crate) fn full_is_due(&self, now: Time) -> bool {
        now >= self.full_due_at()
    }

    /// Whether nothing that is dirty should wait any longer, in whatever lane.
    fn is_pressed(&self) -> bool {
        // The index is full likewise.
        let mark = self.stripes.capacity() * usize::from(self.settings.memory_watermark_percent);
        self.stopping
            || self.map.is_unlogged()
            || self.map.hold.is_some()
            || !self.acknowledges_from_log()
            // What was promised in write-through is kept after a change of the mode.
            || !self.through.is_empty()
            || self.is_memory_pressed()
            || self.stripes.waiting() * 100 > mark
            // Stripes of which nothing is left may still stand among the full ones.
            || self.full.len() * 100 > mark
    }

    /// The oldest dirty stripe of a lane, if it should not wait any longer.
    fn pressing(&self, index: usize, now: Time, is_pressed: bool) -> Option<StripeRef> {
        let lane = self.lanes[index].as_ref()?;
        let (dirty, logged) = (lane.stripes.dirty.oldest(), lane.stripes.logged.oldest());
        let is_older = |of: StripeRef| move |than: StripeRef| self.stripes.get(of).since < self.stripes.get(than).since;
        let oldest = match (dirty, logged) {
            // What only one copy has goes first.
            (Some(dirty), Some(logged)) if is_older(dirty)(logged) && !self.is_short_of_copies() => dirty,
            (dirty, logged) => logged.or(dirty)?,
        };
        let size = self.map.log_layout.lane_blocks();
        let taken = size - lane.room().min(size);
        let goes = is_pressed
            || !lane.waiting.is_empty()
            || lane.catch_up.is_some_and(|from| lane.tail().sequence < from)
            || taken * 100 > size * u64::from(self.settings.high_watermark_percent)
            || now >= self.stripes.get(oldest).since + self.settings.age;
        let is_free = !self.walker.locks(self.stripes.get(oldest).id);
        (goes && is_free).then_some(oldest)
    }
}
