//! What a read finds in the cache: in memory, or in the log alone, from where it is read into buffers of what is set aside, compared,
//! and copied. All of it is of the moment at which the read saw the cache: the log keeps what was replaced since until it is read.

use base::ids::StripeId;
use base::slab::Key;
use ports::{BufferId, Ports};

use super::super::residency::{Payload, Wanted};
use super::super::stripes::{Content, Version};
use super::super::{ArrayShard, Work};
use super::Read;
use super::names::CollectBuffers;
use crate::io::IoError;

/// Where a block of a read was found.
pub(super) enum Held {
    /// It is copied.
    Copied,
    /// The log alone has it.
    InLog(Payload),
    /// Not in the cache.
    Not,
}

impl ArrayShard {
    /// Copies a block that needs no member: held by the cache, or in a zone that was never written.
    pub(super) fn copy_held<P: Ports>(
        &self,
        ports: &mut P,
        stripe: StripeId,
        column: u8,
        into: BufferId,
        blank: bool,
    ) -> Held {
        let at = self.stripes.find(stripe);
        let held = at.and_then(|stripe| self.stripes.readable(stripe, column).map(|version| (stripe, version)));
        match held {
            Some((_, Version { content: Content::Held(buffer) | Content::Lent(buffer), .. })) => {
                let (to, from) = ports.pair(into, buffer.id());
                to.copy_from_slice(from);
            }
            Some((_, Version { content: Content::Zeros, .. })) => ports.bytes_mut(into).fill(0),
            Some((stripe, version)) => return Held::InLog(self.payload_of(version, self.stripes.get(stripe).lane)),
            None if blank => ports.bytes_mut(into).fill(0),
            None => return Held::Not,
        }
        Held::Copied
    }

    /// Whether there is room for reading from the log what of a read the log alone has.
    pub(super) fn may_see_cache(&self, key: Key<Read>) -> bool {
        if self.stripes.logged() == 0 {
            return true;
        }
        let fragment = &self.reads[key].fragment;
        let is_in_log = |(stripe, column)| {
            let readable = self.stripes.find(stripe).and_then(|stripe| self.stripes.readable(stripe, column));
            readable.is_some_and(|version| matches!(version.content, Content::Logged))
        };
        self.may_read_log(self.blocks(fragment).filter(|&block| is_in_log(block)).count())
    }

    /// Begins to read a block from the log for a read; how many it is to wait for, none if no copy is left.
    pub(super) fn read_from_log_for<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Read>,
        offset: u8,
        payload: Payload,
    ) -> u32 {
        if !self.has_log_to_read() {
            self.reads[key].log_lost = true;
            return 0;
        }
        let buffer = self.scratch.pop().expect("enough were counted");
        self.read_log(work, payload, Wanted::Read { read: key, offset }, buffer);
        1
    }

    /// Copies a block that has come from the log.
    pub(crate) fn take_from_log<P: Ports>(&self, ports: &mut P, key: Key<Read>, offset: u8, from: BufferId) {
        let into = self.reads[key].fragment.buffers.ids(ports).nth(usize::from(offset));
        let (to, from) = ports.pair(into.expect("a block of the read"), from);
        to.copy_from_slice(from);
    }

    /// A block has come from the log, or can be had from no copy of it.
    pub(crate) fn read_from_log<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>, is_there: bool) {
        self.reads[key].log_lost |= !is_there;
        self.read_step_answered(work, key);
    }

    /// The moment of a read that goes in steps: what the cache holds is copied, unless that was done. Whether that was all,
    /// and the read has ended, or waits for what comes from the log.
    pub(super) fn see_cache<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        if self.reads[key].generation.is_some() {
            return false;
        }
        let (done, from_log) = self.copy_all_held(work, key);
        if from_log == 0 && (self.is_all(key, done) || self.reads[key].log_lost) {
            self.finish_read(key, if self.reads[key].log_lost { Err(IoError::Unreadable) } else { Ok(()) });
            return true;
        }
        let generation = self.grace.begin();
        let read = &mut self.reads[key];
        (read.done, read.generation) = (done, Some(generation));
        (read.unanswered, read.seeing) = (from_log, from_log > 0);
        from_log > 0
    }

    /// Copies all of a read that is in memory: blocks that are there or come from the log, as a bit mask, and how many the read is to
    /// wait for.
    fn copy_all_held<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> (u64, u32) {
        self.reads[key].log_lost = false;
        let read = &self.reads[key];
        let (place, count) = (self.map.arrangement.locate(read.fragment.start), read.fragment.count);
        let into = read.fragment.buffers.ids(work.ports).collect_buffers();
        let blank = !self.zones.is_initialised(self.map.arrangement.zone_of(place.stripe));
        let (mut done, mut from_log) = (0, 0);
        for (at, &id) in (0u8..).zip(&into[..usize::from(count)]) {
            let stripe = StripeId(place.stripe.0 + u64::from(at));
            match self.copy_held(work.ports, stripe, place.column, id, blank) {
                Held::Copied => {}
                Held::InLog(payload) => from_log += self.read_from_log_for(work, key, at, payload),
                Held::Not => continue,
            }
            done |= 1 << at;
        }
        (done, from_log)
    }

    fn is_all(&self, key: Key<Read>, done: u64) -> bool {
        done.count_ones() == u32::from(self.reads[key].fragment.count)
    }

    /// If a read waited for what of the cache came from the log, it goes on or ends; whether it was so.
    pub(super) fn has_seen_cache(&mut self, key: Key<Read>) -> bool {
        if !core::mem::take(&mut self.reads[key].seeing) {
            return false;
        }
        if self.reads[key].log_lost {
            self.forget_moment(key);
            self.finish_read(key, Err(IoError::Unreadable));
        } else if self.is_all(key, self.reads[key].done) {
            self.forget_moment(key);
            self.finish_read(key, Ok(()));
        } else {
            self.stalled.push_back(key);
        }
        true
    }

    /// With more members missing than the level bears, the cache is all there is.
    pub(super) fn read_held_only<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        let (done, from_log) = self.copy_all_held(work, key);
        self.reads[key].log_lost |= !self.is_all(key, done);
        if from_log == 0 {
            self.finish_read(key, if self.reads[key].log_lost { Err(IoError::Unreadable) } else { Ok(()) });
            return true;
        }
        let generation = self.grace.begin();
        let read = &mut self.reads[key];
        (read.done, read.generation) = (done, Some(generation));
        (read.unanswered, read.seeing) = (from_log, true);
        true
    }
}
