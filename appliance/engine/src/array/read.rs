//! Reads. Blocks that the cache holds are copied at once; the rest is read from the members straight into the host's
//! buffers, in as few operations as there are runs. Where the member is missing, each block is put together from the
//! others.
//!
//! A fragment lies in one chunk, so all its blocks are on one member at consecutive places. A read that cannot begin (no
//! operations free, its stripe under destage while it must reconstruct, a member failing) is stalled, and begins anew from
//! the start when it is tried again; its buffers have no other content to lose.

use base::ids::{ShardId, Slot, StripeId};
use base::slab::Key;
use ports::{Buffer, BufferId, BufferList, DeviceOp, Ports};
use raid::{ReadPlan, plan_read};

use super::stripes::Version;
use super::{ArrayShard, Purpose, Work};
use crate::io::IoError;
use crate::limits::{MAX_FRAGMENT_BLOCKS, RESERVED_OPERATIONS};
use crate::message::{Fragment, FragmentDone};

/// Blocks that are reconstructed at a time: bounds the buffers that a degraded read takes from what is set aside.
const RECONSTRUCT_BLOCKS: u32 = 8;

/// A read under way or stalled.
#[derive(Debug)]
pub(crate) struct Read {
    from: ShardId,
    fragment: Fragment,
    /// Operations that have not ended.
    unanswered: u32,
    /// Whether one of them failed.
    failed: bool,
    /// What [`super::grace::Grace`] counts it under while operations are under way.
    generation: Option<u64>,
    /// Blocks at the front that are done, if blocks are being reconstructed.
    reconstructed: u32,
    /// How many blocks are being reconstructed now.
    reconstructing: u32,
    /// Content of other members, in rows of `reconstructing` blocks.
    others: BufferList,
}

impl ArrayShard {
    /// Takes a read from a router.
    pub(crate) fn read<P: Ports>(&mut self, work: &mut Work<'_, P>, from: ShardId, fragment: Fragment) {
        if self.reads.is_full() {
            self.unread.push_back((from, fragment));
            return;
        }
        let read = Read {
            from,
            fragment,
            unanswered: 0,
            failed: false,
            generation: None,
            reconstructed: 0,
            reconstructing: 0,
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

    /// Starts a read, or what is left of it; false if it must wait.
    fn begin_read<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        let fragment = &self.reads[key].fragment;
        let (start, count) = (fragment.start, u32::from(fragment.count));
        let first = fragment.buffers.first().expect("a read brings buffers");
        let place = self.map.geometry.locate(start);
        let slot = self.map.geometry.member_of(place.stripe, place.column);
        let available = work.operations.available().saturating_sub(RESERVED_OPERATIONS);
        if available < count as usize {
            return false;
        }
        match plan_read(&self.map.geometry, place.stripe, place.column, self.map.missing()) {
            ReadPlan::Direct(_) => {}
            ReadPlan::Reconstruct => return self.reconstruct(work, key, slot),
            // Only what the cache holds can be had.
            ReadPlan::Lost => return self.read_held_only(work, key),
        }
        let (device, at) = self.map.on_member(slot, place.stripe).expect("the plan reads present members");
        if self.failing_members & 1 << slot.0 != 0 {
            return false;
        }
        let zone_is_blank = !self.zones.is_initialised(self.map.geometry.zone_of(place.stripe));
        let mut run = [BufferId(0); MAX_FRAGMENT_BLOCKS as usize];
        let mut run_length = 0;
        let mut buffer = Some(first);
        let mut operations = 0;
        let read_purpose = Purpose::Read { array: self.map.id, read: key, slot };
        for offset in 0..=count {
            let held = offset < count && {
                let id = buffer.expect("one buffer for each block");
                buffer = work.ports.next(id);
                let stripe = StripeId(place.stripe.0 + u64::from(offset));
                let held = self.copy_held(work.ports, stripe, place.column, id, zone_is_blank);
                if !held {
                    run[run_length] = id;
                    run_length += 1;
                }
                held
            };
            if run_length > 0 && (held || offset == count) {
                let at = base::ids::DeviceBlock(at.0 + u64::from(offset) - run_length as u64);
                let blocks = run[..run_length].iter().copied();
                work.operations.start(work.ports, (device, at), DeviceOp::Read, blocks, read_purpose);
                operations += 1;
                run_length = 0;
            }
        }
        if operations == 0 {
            self.finish_read(key, Ok(()));
        } else {
            let generation = self.grace.begin();
            let read = &mut self.reads[key];
            read.unanswered = operations;
            read.failed = false;
            read.generation = Some(generation);
        }
        true
    }

    /// Copies a block that needs no member: held by the cache, or in a zone that was never written.
    fn copy_held<P: Ports>(&self, ports: &mut P, stripe: StripeId, column: u8, into: BufferId, blank: bool) -> bool {
        let held = self.stripes.find(stripe).and_then(|stripe| self.stripes.readable(stripe, column));
        match held {
            Some(Version { buffer: Some(buffer), .. }) => {
                let (to, from) = ports.pair(into, buffer.id());
                to.copy_from_slice(from);
            }
            Some(Version { buffer: None, .. }) => ports.bytes_mut(into).fill(0),
            None if blank => ports.bytes_mut(into).fill(0),
            None => return false,
        }
        true
    }

    /// Goes on with a read whose member is missing: skips what the cache holds, then reads a few blocks of all others.
    fn reconstruct<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>, slot: Slot) -> bool {
        if self.failing_members != 0 {
            return false;
        }
        let read = &self.reads[key];
        let place = self.map.geometry.locate(read.fragment.start);
        let count = u32::from(read.fragment.count);
        let zone_is_blank = !self.zones.is_initialised(self.map.geometry.zone_of(place.stripe));
        let mut done = read.reconstructed;
        let mut ids = read.fragment.buffers.ids(work.ports).collect_buffers();
        let into = &mut ids[..count as usize];
        let stripe_at = |at: u32| StripeId(place.stripe.0 + u64::from(at));
        while done < count
            && self.copy_held(work.ports, stripe_at(done), place.column, into[done as usize], zone_is_blank)
        {
            done += 1;
        }
        self.reads[key].reconstructed = done;
        if done == count {
            self.finish_read(key, Ok(()));
            return true;
        }
        // The run that can be reconstructed together: not held, and no destage changes the stripes meanwhile.
        let mut length = 0;
        while done + length < count && length < RECONSTRUCT_BLOCKS {
            let entry = self.stripes.find(stripe_at(done + length));
            if let Some(stripe) = entry {
                if self.stripes.readable(stripe, place.column).is_some() {
                    break;
                }
                if self.stripes.get(stripe).destage.is_some() {
                    if length == 0 {
                        return false;
                    }
                    break;
                }
            }
            length += 1;
        }
        let members = self.map.members.len();
        let buffers_needed = (members - 2) * length as usize;
        let available = work.operations.available().saturating_sub(RESERVED_OPERATIONS);
        if self.scratch.len() <= buffers_needed + members || available < members {
            return false;
        }
        let mut others = BufferList::EMPTY;
        let mut operations = 0;
        for other in (0..members as u8).map(Slot).filter(|&other| other != slot) {
            let (device, at) =
                self.map.on_member(other, stripe_at(done)).expect("all others of a degraded array are there");
            let purpose = Purpose::Read { array: self.map.id, read: key, slot: other };
            if operations == 0 {
                let blocks = into[done as usize..(done + length) as usize].iter().copied();
                work.operations.start(work.ports, (device, at), DeviceOp::Read, blocks, purpose);
            } else {
                let mut row = [BufferId(0); RECONSTRUCT_BLOCKS as usize];
                for place in &mut row[..length as usize] {
                    let buffer = self.scratch.pop().expect("enough were counted");
                    *place = buffer.id();
                    others.push(work.ports, buffer);
                }
                let blocks = row[..length as usize].iter().copied();
                work.operations.start(work.ports, (device, at), DeviceOp::Read, blocks, purpose);
            }
            operations += 1;
        }
        let generation = self.grace.begin();
        let read = &mut self.reads[key];
        read.unanswered = operations;
        read.failed = false;
        read.generation = Some(generation);
        read.reconstructing = length;
        read.others = others;
        true
    }

    /// With more members missing than the level bears, the cache is all there is.
    fn read_held_only<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        let fragment = &self.reads[key].fragment;
        let place = self.map.geometry.locate(fragment.start);
        let count = usize::from(fragment.count);
        let ids = fragment.buffers.ids(work.ports).collect_buffers();
        let blank = !self.zones.is_initialised(self.map.geometry.zone_of(place.stripe));
        let all = (0u64..)
            .zip(&ids[..count])
            .all(|(at, &id)| self.copy_held(work.ports, StripeId(place.stripe.0 + at), place.column, id, blank));
        self.finish_read(key, if all { Ok(()) } else { Err(IoError::Unreadable) });
        true
    }

    /// A member has answered a read.
    pub(crate) fn read_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Read>,
        slot: Slot,
        succeeded: bool,
    ) {
        if !succeeded {
            self.member_failed(slot);
        }
        let read = self.reads.get_mut(key).expect("a read waits for its operations");
        read.failed |= !succeeded;
        read.unanswered -= 1;
        if read.unanswered > 0 {
            return;
        }
        let generation = read.generation.take().expect("a read under way is counted");
        let length = core::mem::take(&mut read.reconstructing);
        let mut others = core::mem::take(&mut read.others);
        let failed = read.failed;
        self.grace.end(generation);
        if length > 0 {
            let read = &self.reads[key];
            let done = read.reconstructed;
            let ids = read.fragment.buffers.ids(work.ports).collect_buffers();
            let mut at = 0;
            while let Some(buffer) = others.pop(work.ports) {
                if !failed {
                    let (to, from) = work.ports.pair(ids[(done + at) as usize], buffer.id());
                    parity::xor_into(to, from);
                }
                at = (at + 1) % length;
                self.scratch.push(buffer);
            }
            if !failed {
                self.reads[key].reconstructed += length;
            }
        } else if !failed {
            self.finish_read(key, Ok(()));
            return;
        }
        if failed {
            self.reads[key].reconstructed = 0;
        }
        self.stalled.push_back(key);
    }

    fn finish_read(&mut self, key: Key<Read>, result: Result<(), IoError>) {
        let mut read = self.reads.remove(key).expect("a read ends once");
        let buffers = core::mem::take(&mut read.fragment.buffers);
        self.answers.push_back((read.from, FragmentDone::of(&read.fragment, result, buffers)));
    }

    /// A buffer of what is set aside goes back.
    pub(crate) fn keep(&mut self, buffer: Buffer) {
        self.scratch.push(buffer);
    }
}

/// Names of a fragment's buffers, without an allocation.
trait CollectBuffers: Iterator<Item = BufferId> + Sized {
    fn collect_buffers(self) -> [BufferId; MAX_FRAGMENT_BLOCKS as usize] {
        let mut ids = [BufferId(0); MAX_FRAGMENT_BLOCKS as usize];
        for (place, id) in ids.iter_mut().zip(self) {
            *place = id;
        }
        ids
    }
}

impl<I: Iterator<Item = BufferId>> CollectBuffers for I {}
