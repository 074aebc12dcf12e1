//! Reads. Blocks that the cache holds are copied at once; the rest is read from the members straight into the host's
//! buffers, in as few operations as there are runs. Where no member that holds them is there, each block is put together
//! from the others, as a recipe of `raid` says.
//!
//! A fragment lies in one chunk, so all its blocks are on one member at consecutive places. A read that cannot begin (no
//! operations free, a member failing) is stalled, and begins anew from the start when it is tried again; its buffers have no
//! other content to lose.
//!
//! A read sees all its blocks at one moment, so that it never sees a part of a write (rule L11): what the cache holds at that
//! moment is copied, and of the rest no member changes before the read has ended, since every destage that is frozen later
//! waits for it. A read that must reconstruct goes in steps, and between them waits only for destages that were frozen
//! before it: those never wait for it.
//!
//! Without a log the cache answers no read: what it holds is not durable anywhere. A read waits until none of its blocks is
//! being written, and later writes to them wait for it.
//!
//! A member that cannot read says so of a run of blocks. Then the read goes on *carefully*, in steps as well, block by block,
//! and those that cannot be read by themselves are mended ([`super::mend`]). It fails only if one of its blocks cannot be had
//! at all.

mod cache;
mod compare;
mod names;

use base::ids::{ArrayBlock, ShardId, Slot, StripeId};
use base::slab::Key;
use ports::{Buffer, BufferId, BufferList, DeviceError, Ports};
use raid::level::MAX_MEMBERS;
use raid::{ReadPlan, Recipe};

use cache::Held;
use names::CollectBuffers;

use super::commit::run_of;
use super::destage::Destage;
use super::detained::Home;
use super::mend::{Mended, Wanting};
use super::sum::carry_out;
use super::{ArrayShard, Purpose, Work};
use crate::io::IoError;
use crate::limits::{MAX_FRAGMENT_BLOCKS, RESERVED_OPERATIONS};
use crate::map::Service;
use crate::message::{Fragment, FragmentDone};
use crate::router::Dropped;

/// Blocks that are reconstructed at a time: bounds the buffers that a degraded read takes from what is set aside.
const RECONSTRUCT_BLOCKS: u32 = 8;

/// A read under way or stalled.
#[derive(Debug)]
pub(crate) struct Read {
    from: ShardId,
    /// The update that it is for, if it is not a host's.
    update: Option<u64>,
    pub(super) fragment: Fragment,
    /// Operations that have not ended, and blocks that have not come from the log.
    unanswered: u32,
    /// Whether one of them failed.
    failed: bool,
    /// Whether one was not answered in time, so that its member may still write into the buffers.
    pub(super) late: bool,
    /// Whether a block that the log alone has can be had from no copy of it.
    log_lost: bool,
    /// Whether it has seen the cache, and waits for what of that comes from the log.
    seeing: bool,
    /// The member that it asks, if it asks one alone.
    slot: Slot,
    /// The member that met blocks which it cannot read; of a careful read: which cannot read the next block.
    unreadable: Option<Slot>,
    /// Whether it goes block by block.
    careful: bool,
    /// What [`super::grace::Grace`] counts it under from the moment at which it saw the cache.
    generation: Option<u64>,
    /// Blocks that a member was asked for, as a bit mask, if the read goes in one step.
    asked: u64,
    /// Slots whose checksum block is kept at hand for it, as a bit mask.
    kept: u32,
    /// Blocks that are done, as a bit mask, if the read goes in steps.
    done: u64,
    /// The blocks of the present step: the first, and how many; none if the read goes in one.
    step: (u32, u32),
    /// How they are put together.
    recipe: Recipe,
    /// Content of the recipe's members behind the first, whose content goes to the host's buffers: rows of as
    /// many blocks.
    others: BufferList,
}

impl ArrayShard {
    /// Takes a read from a router.
    pub(crate) fn read<P: Ports>(&mut self, work: &mut Work<'_, P>, from: ShardId, fragment: Fragment) {
        if self.reads.is_full() {
            self.unread.push_back((from, fragment));
        } else {
            self.read_for(work, from, fragment, None);
        }
    }

    /// Begins a read for which there is a place.
    pub(crate) fn read_for<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        from: ShardId,
        fragment: Fragment,
        update: Option<u64>,
    ) {
        let read = Read {
            from,
            update,
            fragment,
            unanswered: 0,
            failed: false,
            late: false,
            log_lost: false,
            seeing: false,
            slot: Slot(0),
            unreadable: None,
            careful: false,
            generation: None,
            asked: 0,
            kept: 0,
            done: 0,
            step: (0, 0),
            recipe: Recipe::EMPTY,
            others: BufferList::EMPTY,
        };
        let Ok(key) = self.reads.insert(read) else { unreachable!("there was a place") };
        if !self.stalled.is_empty() || !self.begin_read(work, key) {
            self.stalled.push_back(key);
        }
    }

    /// Tries stalled reads again, each once.
    pub(crate) fn retry_reads<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for _ in 0..self.stalled.len() {
            let key = self.stalled.pop_front().expect("as many as there were");
            if !self.begin_read(work, key) {
                self.stalled.push_back(key);
            }
        }
        while !self.reads.is_full()
            && let Some((from, fragment)) = self.unread.pop_front()
        {
            self.read(work, from, fragment);
        }
    }

    /// Drops reads that wait and nobody wants any more; those at the members end by themselves.
    pub(crate) fn drop_reads<P: Ports>(&mut self, ports: &mut P, dropped: Dropped) {
        for _ in 0..self.unread.len() {
            let (from, fragment) = self.unread.pop_front().expect("as many as there were");
            if dropped.includes(from, fragment.association, fragment.request) {
                self.answers.push_back((from, fragment.aborted(ports)));
            } else {
                self.unread.push_back((from, fragment));
            }
        }
        for _ in 0..self.stalled.len() {
            let key = self.stalled.pop_front().expect("as many as there were");
            let read = &self.reads[key];
            // What an update reads is not its host's.
            // Nor can one end whose buffers are not its own: it begins anew soon.
            let fragment = (read.update.is_none() && !read.late).then_some(&read.fragment);
            if fragment.is_some_and(|one| dropped.includes(read.from, one.association, one.request)) {
                // Destages wait for its moment.
                self.forget_moment(key);
                self.finish_read(key, Err(IoError::Aborted));
            } else {
                self.stalled.push_back(key);
            }
        }
    }

    /// Starts a read, or what is left of it; false if it must wait.
    fn begin_read<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        if self.reads[key].late && !self.change_buffers(work, key) {
            return false;
        }
        let fragment = &self.reads[key].fragment;
        let (start, count) = (fragment.start, u32::from(fragment.count));
        let first = fragment.buffers.first().expect("a read brings buffers");
        let place = self.map.arrangement.locate(start);
        let available = work.operations.available().saturating_sub(RESERVED_OPERATIONS);
        if available < count as usize {
            return false;
        }
        // One that has seen the cache needs nothing more of it, unless it begins anew.
        let may_see_cache = self.may_see_cache(key);
        if !may_see_cache && self.reads[key].generation.is_none() {
            return false;
        }
        if self.map.service == Service::Stopped {
            self.forget_moment(key);
            self.finish_read(key, Err(IoError::Stopped));
            return true;
        }
        if self.map.is_bare() && self.reads[key].generation.is_none() && self.is_being_written(key) {
            return false;
        }
        if self.reads[key].careful {
            return self.read_carefully(work, key);
        }
        // A member that is being rebuilt may hold the first of these stripes and not the last: then it holds none for this.
        let last = StripeId(place.stripe.0 + u64::from(count) - 1);
        let plan = self.plan_urgent(place.stripe, last, place.column);
        let slot = match plan {
            ReadPlan::Reconstruct(recipe) => return self.reconstruct(work, key, &recipe),
            ReadPlan::Direct(slot) => slot,
            // Only what the cache holds can be had.
            ReadPlan::Lost => {
                self.forget_moment(key);
                return may_see_cache && self.read_held_only(work, key);
            }
        };
        self.forget_moment(key);
        if !may_see_cache {
            return false;
        }
        let (device, at) = self.on_member(slot, place.stripe).expect("the plan reads present members");
        if self.failing_members & 1 << slot.0 != 0 {
            return false;
        }
        let zone_is_blank = !self.zones.is_initialised(self.map.arrangement.zone_of(place.stripe));
        if self.map.checksums && !self.is_all_held(key, zone_is_blank) && !self.keep_checksums(work, key, 1 << slot.0) {
            return false;
        }
        let mut run = [BufferId(0); MAX_FRAGMENT_BLOCKS as usize];
        let mut run_length = 0;
        let mut buffer = Some(first);
        let mut operations = 0;
        let mut asked = 0;
        let mut from_log = 0;
        (self.reads[key].log_lost, self.reads[key].failed) = (false, false);
        let read_purpose = Purpose::Read { array: self.map.id, read: key, slot };
        for offset in 0..=count {
            let held = offset < count && {
                let id = buffer.expect("one buffer for each block");
                buffer = work.ports.next(id);
                let stripe = StripeId(place.stripe.0 + u64::from(offset));
                let held = self.copy_held(work.ports, stripe, place.column, id, zone_is_blank);
                match held {
                    Held::Copied => {}
                    Held::InLog(payload) => from_log += self.read_from_log_for(work, key, offset as u8, payload),
                    Held::Not => {
                        asked |= 1 << offset;
                        run[run_length] = id;
                        run_length += 1;
                    }
                }
                !matches!(held, Held::Not)
            };
            if run_length > 0 && (held || offset == count) {
                let at = base::ids::DeviceBlock(at.0 + u64::from(offset) - run_length as u64);
                let blocks = run[..run_length].iter().copied();
                work.operations.start_urgent(work.ports, (device, at), blocks, read_purpose);
                operations += 1;
                run_length = 0;
            }
        }
        if operations + from_log == 0 {
            self.finish_read(key, if self.reads[key].log_lost { Err(IoError::Unreadable) } else { Ok(()) });
        } else {
            let generation = self.grace.begin();
            let read = &mut self.reads[key];
            read.unanswered = operations + from_log;
            (read.slot, read.asked) = (slot, asked);
            read.generation = Some(generation);
        }
        true
    }

    /// Whether a block of a read is on its way to the members. Without a log nothing of it may be seen before it is durable
    /// there, since a crash could take it back.
    fn is_being_written(&self, key: Key<Read>) -> bool {
        let Fragment { start, count, .. } = self.reads[key].fragment;
        run_of(&self.map.arrangement, start, u32::from(count))
            .any(|(stripe, column)| self.stripes.holds(stripe, column))
    }

    /// Whether a read is of any of these blocks.
    pub(super) fn reads_any_of(&self, key: Key<Read>, start: ArrayBlock, count: u16) -> bool {
        let fragment = &self.reads[key].fragment;
        start.0 < fragment.start.0 + u64::from(fragment.count) && fragment.start.0 < start.0 + u64::from(count)
    }

    /// Goes on with a read that no member can answer alone: once copies what the cache holds, then reads a few blocks at a
    /// time of each member of the recipe. All blocks of a fragment lie in one chunk, so the recipe is that of each of them.
    fn reconstruct<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>, recipe: &Recipe) -> bool {
        if self.failing_members != 0 {
            return false;
        }
        if self.see_cache(work, key) {
            return true;
        }
        let read = &self.reads[key];
        let place = self.map.arrangement.locate(read.fragment.start);
        let into = read.fragment.buffers.ids(work.ports).collect_buffers();
        let stripe_at = |at: u32| StripeId(place.stripe.0 + u64::from(at));
        // Never more buffers than destages leave: some of those may be waiting for this read.
        let members = self.map.members.len();
        let room = self.scratch.len().saturating_sub(members) / (recipe.len() - 1);
        let available = work.operations.available().saturating_sub(RESERVED_OPERATIONS);
        let (first, length) = self.next_run(key, room);
        if length == 0 || available < members {
            return false;
        }
        if self.map.checksums && !self.keep_checksums(work, key, recipe.members()) {
            return false;
        }
        let mut others = BufferList::EMPTY;
        let mut operations = 0;
        for slot in recipe.terms().map(|term| term.slot) {
            let (device, at) = self.on_member(slot, stripe_at(first)).expect("a recipe names members that are there");
            let purpose = Purpose::Read { array: self.map.id, read: key, slot };
            if operations == 0 {
                let blocks = into[first as usize..(first + length) as usize].iter().copied();
                work.operations.start_urgent(work.ports, (device, at), blocks, purpose);
            } else {
                let mut row = [BufferId(0); RECONSTRUCT_BLOCKS as usize];
                for place in &mut row[..length as usize] {
                    let buffer = self.scratch.pop().expect("enough were counted");
                    *place = buffer.id();
                    others.push(work.ports, buffer);
                }
                let blocks = row[..length as usize].iter().copied();
                work.operations.start_urgent(work.ports, (device, at), blocks, purpose);
            }
            operations += 1;
        }
        let read = &mut self.reads[key];
        read.unanswered = operations;
        read.failed = false;
        read.step = (first, length);
        read.recipe = *recipe;
        read.others = others;
        true
    }

    /// Goes on with a read that met blocks which cannot be read: one block at a time, from a member or, if that was in vain
    /// or none has it, mended.
    fn read_carefully<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        if self.see_cache(work, key) {
            return true;
        }
        let read = &self.reads[key];
        let place = self.map.arrangement.locate(read.fragment.start);
        let at = (!read.done).trailing_zeros();
        let stripe = StripeId(place.stripe.0 + u64::from(at));
        let mend = match (read.unreadable, self.plan_urgent(stripe, stripe, place.column)) {
            (Some(slot), _) => slot,
            (None, ReadPlan::Direct(slot)) if self.failing_members & 1 << slot.0 != 0 => return false,
            (None, ReadPlan::Direct(slot)) => {
                if self.map.checksums && !self.keep_checksums(work, key, 1 << slot.0) {
                    return false;
                }
                let read = &self.reads[key];
                let into = read.fragment.buffers.ids(work.ports).nth(at as usize);
                let on_member = self.on_member(slot, stripe).expect("the plan reads present members");
                let purpose = Purpose::Read { array: self.map.id, read: key, slot };
                work.operations.start_urgent(work.ports, on_member, into, purpose);
                let read = &mut self.reads[key];
                (read.unanswered, read.failed, read.step, read.others) = (1, false, (at, 1), BufferList::EMPTY);
                read.slot = slot;
                return true;
            }
            (None, ReadPlan::Reconstruct(_) | ReadPlan::Lost) => {
                self.map.arrangement.at(stripe).member_of(stripe, place.column)
            }
        };
        self.start_mend(work, stripe, mend, Wanting::Read(key))
    }

    /// The next block of a careful read was mended, or cannot be.
    pub(crate) fn read_mended<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>, mended: Mended) {
        match mended {
            Mended::Content(content) => {
                let read = &mut self.reads[key];
                let at = (!read.done).trailing_zeros();
                let into = read.fragment.buffers.ids(work.ports).nth(at as usize);
                let (to, from) = work.ports.pair(into.expect("a block of the read is not done"), content);
                to.copy_from_slice(from);
                read.unreadable = None;
                self.step_done(key, at, 1);
            }
            Mended::Again => self.begin_anew(key),
            Mended::Lost { .. } => {
                self.forget_moment(key);
                self.finish_read(key, Err(IoError::Unreadable));
            }
        }
    }

    /// When a read saw the cache, if it has: destages that were frozen later wait for it.
    pub(super) fn moment_of(&self, key: Key<Read>) -> Option<u64> {
        self.reads[key].generation
    }

    /// A step of a read is done; the read ends with the last.
    fn step_done(&mut self, key: Key<Read>, first: u32, length: u32) {
        let read = &mut self.reads[key];
        read.done |= ((1 << length) - 1) << first;
        if read.done.count_ones() == u32::from(read.fragment.count) {
            self.forget_moment(key);
            self.finish_read(key, Ok(()));
        } else {
            self.stalled.push_back(key);
        }
    }

    /// A read begins from the start, with the next map.
    fn begin_anew(&mut self, key: Key<Read>) {
        self.forget_moment(key);
        let read = &mut self.reads[key];
        (read.unreadable, read.careful) = (None, false);
        self.stalled.push_back(key);
    }

    /// Blocks of a read that can be reconstructed together now, at most `room`: not done, and no destage changes their
    /// stripes that does not wait for this read, or will never go on.
    fn next_run(&self, key: Key<Read>, room: usize) -> (u32, u32) {
        let read = &self.reads[key];
        let place = self.map.arrangement.locate(read.fragment.start);
        let moment = read.generation.expect("a read that reconstructs has its moment");
        let first = (!read.done).trailing_zeros();
        let is_ready = |at: &u32| {
            let stripe = self.stripes.find(StripeId(place.stripe.0 + u64::from(*at)));
            let destage = stripe.and_then(|stripe| self.stripes.get(stripe).destage);
            let stays = |destage: &Destage| destage.grace > moment || self.halted && destage.is_at_rest();
            read.done & 1 << at == 0 && destage.is_none_or(|destage| stays(&self.destages[destage]))
        };
        let most = RECONSTRUCT_BLOCKS.min(room as u32).min(u32::from(read.fragment.count) - first);
        (first, (first..first + most).take_while(is_ready).count() as u32)
    }

    /// A read begins anew, if it had begun: what it saw means nothing any more.
    fn forget_moment(&mut self, key: Key<Read>) {
        self.reads[key].done = 0;
        if let Some(generation) = self.reads[key].generation.take() {
            self.grace.end(generation);
        }
    }

    /// A member has answered a read.
    pub(crate) fn read_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Read>,
        slot: Slot,
        result: Result<(), DeviceError>,
    ) {
        let read = self.reads.get_mut(key).expect("a read waits for its operations");
        match result {
            Ok(()) => {}
            Err(DeviceError::Unreadable) => read.unreadable = Some(slot),
            Err(DeviceError::Late) => {
                read.late = true;
                self.is_late(slot);
            }
            Err(_) => {
                read.failed = true;
                self.member_failed(slot);
            }
        }
        self.read_step_answered(work, key);
    }

    /// Something that a read waited for has come, or not: with the last of it the read goes on.
    fn read_step_answered<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) {
        let read = &mut self.reads[key];
        read.unanswered -= 1;
        if read.unanswered > 0 {
            return;
        }
        if self.has_seen_cache(key) {
            return;
        }
        let read = &mut self.reads[key];
        let slot = read.slot;
        let (first, length) = core::mem::take(&mut read.step);
        let (failed, careful) = (read.failed || read.late, read.careful);
        let mut found = read.unreadable.map(|slot| (slot, false));
        let is_answered = !failed && found.is_none();
        if length > 0 && !careful {
            let wrong = self.put_together(work, key, first as usize, length as usize, !is_answered);
            found = found.or(wrong.map(|slot| (slot, true)));
        } else if self.map.checksums && is_answered {
            let asked = if careful { 1 << first } else { self.reads[key].asked };
            found = self.compare_read(work.ports, key, slot, asked);
            if careful && let Some((slot, true)) = found {
                self.found_wrong(work, slot);
            }
        }
        self.drop_checksums(key);
        let (unreadable, is_told) = (found.map(|(slot, _)| slot), is_answered);
        self.reads[key].unreadable = unreadable;
        if self.reads[key].log_lost {
            self.forget_moment(key);
            self.finish_read(key, Err(IoError::Unreadable));
        } else if failed {
            self.begin_anew(key);
        } else if let Some(slot) = unreadable {
            if careful && !is_told {
                // It is to be mended.
                self.found_unreadable(work, slot);
            } else if careful {
                // So is one that is wrong, which was told.
            } else if length == 0 {
                // What it copied is written down nowhere.
                self.forget_moment(key);
            }
            let read = &mut self.reads[key];
            read.unreadable = read.unreadable.filter(|_| careful);
            read.careful = true;
            self.stalled.push_back(key);
        } else if length == 0 {
            self.forget_moment(key);
            self.finish_read(key, Ok(()));
        } else {
            self.step_done(key, first, length);
        }
    }

    /// All members of the recipe have answered: puts the blocks together in the host's buffers, unless one failed or a block is not
    /// what its checksum says: whose, then.
    fn put_together<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Read>,
        first: usize,
        length: usize,
        failed: bool,
    ) -> Option<Slot> {
        let read = &mut self.reads[key];
        let start = self.map.arrangement.locate(read.fragment.start).stripe;
        let mut others = core::mem::take(&mut read.others);
        let ids = read.fragment.buffers.ids(work.ports).collect_buffers();
        let mut rows = [[BufferId(0); MAX_MEMBERS as usize]; RECONSTRUCT_BLOCKS as usize];
        for (row, &into) in rows.iter_mut().zip(&ids[first..first + length]) {
            row[0] = into;
        }
        let mut at = length;
        let recipe = read.recipe;
        // They are free again at once: nobody takes one before their content has been used.
        while let Some(buffer) = others.pop(work.ports) {
            rows[at % length][at / length] = buffer.id();
            at += 1;
            self.send_home(work, buffer, Home::Scratch);
        }
        if failed {
            return None;
        }
        if self.map.checksums {
            let stripes = (start.0 + first as u64..).map(StripeId);
            let mut wrong = stripes.zip(&rows[..length]);
            let wrong = wrong.find_map(|(stripe, row)| self.compare_row(work.ports, &recipe, stripe, row));
            if wrong.is_some() {
                return wrong;
            }
        }
        for row in &rows[..length] {
            carry_out(work.ports, &recipe, &row[..recipe.len()]);
        }
        None
    }

    fn finish_read(&mut self, key: Key<Read>, result: Result<(), IoError>) {
        self.drop_checksums(key);
        let mut read = self.reads.remove(key).expect("a read ends once");
        let buffers = core::mem::take(&mut read.fragment.buffers);
        match read.update {
            Some(update) => self.update_read(update, result, buffers),
            None => self.answers.push_back((read.from, FragmentDone::of(&read.fragment, result, buffers))),
        }
    }

    /// A buffer of what is set aside goes back.
    pub(crate) fn keep<P: Ports>(&mut self, work: &mut Work<'_, P>, buffer: Buffer) {
        self.send_home(work, buffer, Home::Scratch);
    }
}

const _: () = assert!(MAX_FRAGMENT_BLOCKS <= u64::BITS, "a read's blocks are bits of a mask");
