//! Fragments that look at their blocks first: compare, compare and write, and writes and zeros that mean a part of a block.
//! An *update* goes through these steps: what is on its way into the log for its blocks becomes durable, so that nothing is
//! compared or kept that a crash could take back; the blocks are read, like any read, at one moment; they are compared, if
//! that is asked; and if they are as the host says, its write is admitted like any other, with what was found in its margins.
//!
//! From its beginning until its write is admitted an update *holds* its blocks: no other write to them is admitted
//! meanwhile, so that comparing and writing is one step to everybody. What is held up waits in its lane's order. The price:
//! updates of one block follow each other no faster than records become durable.
//!
//! Updates have buffers of their own for what they read. They wait for reads and records, and for log space as every write
//! does; nothing that those need ever waits for an update.

use core::ops::Range;

use base::BLOCK;
use base::ids::{ArrayBlock, LaneId, ShardId};
use base::sector::{Margins, SECTOR};
use base::slab::{Key, Slab};
use ports::{Buffer, BufferId, BufferList, Buffers, Ports};

use super::{ArrayShard, Work};
use crate::fence::Association;
use crate::io::IoError;
use crate::limits::{MAX_FRAGMENT_BLOCKS, MAX_UPDATES, UPDATE_BLOCKS};
use crate::message::{Fragment, FragmentDone, FragmentKind};

/// How far an update is.
#[derive(Debug)]
enum Step {
    /// What is on its way into the log for its blocks is waited for.
    Settling,
    /// The blocks are being read.
    Reading,
    /// They have been read, or could not be.
    Read(Result<(), IoError>),
    /// They are as they should be; the write waits for room.
    Ready,
}

/// One update under way.
#[derive(Debug)]
struct Update {
    from: ShardId,
    lane: LaneId,
    fragment: Fragment,
    step: Step,
    /// What the blocks hold, once they have been read; empty while they are being read, and when it is no longer needed.
    space: BufferList,
}

impl Update {
    /// Whether it keeps others from writing these blocks.
    fn holds(&self, start: ArrayBlock, count: u16) -> bool {
        let end = |start: ArrayBlock, count: u16| start.0 + u64::from(count);
        let (own, own_count) = (self.fragment.start, self.fragment.count);
        self.fragment.kind != FragmentKind::Compare && start.0 < end(own, own_count) && own.0 < end(start, count)
    }
}

/// The updates of an array's part.
#[derive(Debug)]
pub(crate) struct Updates {
    table: Slab<Update>,
    /// Buffers for what they read, while none reads.
    space: Vec<Buffer>,
}

impl Updates {
    pub(crate) fn new() -> Self {
        Self { table: Slab::new(MAX_UPDATES), space: Vec::with_capacity(UPDATE_BLOCKS) }
    }

    /// Takes the buffers that are set aside for them.
    pub(crate) fn prepare(&mut self, pool: &mut impl Buffers) {
        while self.space.len() < UPDATE_BLOCKS {
            self.space.push(pool.alloc().expect("the pool was sized with what every array sets aside"));
        }
    }

    /// Gives them up, after the last turn.
    pub(crate) fn drain_space(&mut self) -> impl Iterator<Item = Buffer> + '_ {
        self.space.drain(..)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether an update keeps others from writing these blocks.
    pub(crate) fn hold(&self, start: ArrayBlock, count: u16) -> bool {
        !self.table.is_empty() && self.table.iter().any(|(_, update)| update.holds(start, count))
    }

    /// Whether one of a lane waits for room: whoever came later must not take it.
    pub(crate) fn want_room(&self, lane: LaneId) -> bool {
        let wants = |update: &Update| update.lane == lane && matches!(update.step, Step::Ready);
        !self.table.is_empty() && self.table.iter().any(|(_, update)| wants(update))
    }

    /// Whether one waits for a buffer of the pool, which nobody tells it of.
    pub(crate) fn want_buffer(&self) -> bool {
        // One that has been read and has not gone on can wait for nothing else.
        !self.table.is_empty() && self.table.iter().any(|(_, update)| matches!(update.step, Step::Read(_)))
    }

    /// Whether an update may begin now.
    pub(crate) fn may_begin(&self, fragment: &Fragment) -> bool {
        !self.table.is_full()
            && self.space.len() >= usize::from(fragment.count)
            && !self.hold(fragment.start, fragment.count)
    }

    fn take(&mut self, pool: &mut impl Buffers, count: u16) -> BufferList {
        let mut list = BufferList::EMPTY;
        for _ in 0..count {
            list.push(pool, self.space.pop().expect("enough were counted"));
        }
        list
    }

    fn keep(&mut self, pool: &mut impl Buffers, mut list: BufferList) {
        while let Some(buffer) = list.pop(pool) {
            self.space.push(buffer);
        }
    }
}

impl ArrayShard {
    /// Begins an update; the caller has seen that it may.
    pub(crate) fn begin_update<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        lane: LaneId,
        from: ShardId,
        fragment: Fragment,
    ) {
        let space = self.updates.take(work.ports, fragment.count);
        let update = Update { from, lane, fragment, step: Step::Settling, space };
        let Ok(key) = self.updates.table.insert(update) else { unreachable!("there was a place") };
        self.advance_update(work, key);
    }

    /// Takes every update as far as it goes now.
    pub(crate) fn advance_updates<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if self.updates.is_empty() {
            return;
        }
        for place in 0..self.updates.table.capacity() {
            if let Some((key, _)) = self.updates.table.at(place) {
                self.advance_update(work, key);
            }
        }
    }

    fn advance_update<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Update>) {
        let update = &self.updates.table[key];
        if matches!(update.step, Step::Settling) && (self.is_settled(&update.fragment) || self.halted) {
            if self.reads.is_full() {
                return;
            }
            self.read_for_update(work, key);
        }
        if let Step::Read(result) = self.updates.table[key].step {
            self.look(work, key, result);
        }
        let Some(update) = self.updates.table.get(key) else { return };
        if matches!(update.step, Step::Ready) && self.may_admit(update.lane, &update.fragment) {
            let update = self.updates.table.remove(key).expect("it was there just now");
            self.admit(work, update.lane, update.from, update.fragment);
        }
    }

    /// Whether nothing is on its way into the log for these blocks.
    fn is_settled(&self, fragment: &Fragment) -> bool {
        self.blocks(fragment).all(|(stripe, column)| !self.stripes.is_logging(stripe, column))
    }

    fn read_for_update<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Update>) {
        let update = &mut self.updates.table[key];
        update.step = Step::Reading;
        let buffers = core::mem::take(&mut update.space);
        let Fragment { request, since, offset, count, array, start, .. } = update.fragment;
        let (kind, margins) = (FragmentKind::Read, Margins::NONE);
        // Its host's end does not end it in the middle: the update comes to its own end.
        let association = Association::NONE;
        let fragment = Fragment { request, association, since, offset, count, array, kind, margins, start, buffers };
        let from = update.from;
        self.read_for(work, from, fragment, Some(key.to_bits()));
    }

    /// The read of an update has ended.
    pub(crate) fn update_read(&mut self, update: u64, result: Result<(), IoError>, buffers: BufferList) {
        let update = self.updates.table.get_mut(Key::from_bits(update)).expect("an update waits for its read");
        assert!(matches!(update.step, Step::Reading), "an update reads once");
        update.step = Step::Read(result);
        update.space = buffers;
    }

    /// Looks at what was read: ends the update, or makes a write of it that waits for room.
    fn look<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Update>, mut result: Result<(), IoError>) {
        let ports = &mut *work.ports;
        let update = &mut self.updates.table[key];
        if result.is_ok() && update.fragment.kind == FragmentKind::Zero && update.fragment.buffers.is_empty() {
            // Zeros of a part bring no buffers, and the pool may have none now.
            let Some(buffers) = BufferList::alloc(ports, usize::from(update.fragment.count)) else { return };
            update.fragment.buffers = buffers;
            fill_with_zeros(ports, &update.fragment.buffers);
        }
        let found = core::mem::take(&mut update.space);
        let compares = matches!(update.fragment.kind, FragmentKind::Compare | FragmentKind::CompareAndWrite);
        if result.is_ok() && compares && !is_same(ports, &found, &update.fragment) {
            result = Err(IoError::Miscompare);
        }
        if result.is_ok() && update.fragment.kind != FragmentKind::Compare {
            if compares {
                update.fragment.buffers.split_front(ports, usize::from(update.fragment.count)).free(ports);
            }
            keep_margins(ports, &found, &update.fragment);
            (update.fragment.kind, update.fragment.margins) = (FragmentKind::Write, Margins::NONE);
            update.step = Step::Ready;
        } else {
            let update = self.updates.table.remove(key).expect("it was there just now");
            self.answers.push_back((update.from, FragmentDone::of(&update.fragment, result, BufferList::EMPTY)));
            update.fragment.buffers.free(ports);
        }
        self.updates.keep(ports, found);
    }
}

/// Whether what was found is what a host compares with: the first of its buffers, margins aside.
fn is_same(pool: &impl Buffers, found: &BufferList, fragment: &Fragment) -> bool {
    let count = usize::from(fragment.count);
    found.ids(pool).zip(fragment.buffers.ids(pool)).enumerate().all(|(at, (found, told))| {
        let meant = fragment.margins.within(at, count);
        pool.bytes(found)[meant.clone()] == pool.bytes(told)[meant]
    })
}

fn fill_with_zeros(pool: &mut impl Buffers, list: &BufferList) {
    let mut at = list.first();
    while let Some(buffer) = at {
        pool.bytes_mut(buffer).fill(0);
        at = pool.next(buffer);
    }
}

/// Puts what was found into the margins of a write.
fn keep_margins(pool: &mut impl Buffers, found: &BufferList, fragment: &Fragment) {
    let Margins { lead, trail } = fragment.margins;
    let mut keep = |from: Option<BufferId>, to: Option<BufferId>, range: Range<usize>| {
        let (from, to) = (from.expect("a block was found"), to.expect("a block is written"));
        let (to, from) = pool.pair(to, from);
        to[range.clone()].copy_from_slice(&from[range]);
    };
    if lead > 0 {
        keep(found.first(), fragment.buffers.first(), 0..usize::from(lead) * SECTOR);
    }
    if trail > 0 {
        keep(found.last(), fragment.buffers.last(), BLOCK - usize::from(trail) * SECTOR..BLOCK);
    }
}

const _: () = assert!(UPDATE_BLOCKS >= MAX_FRAGMENT_BLOCKS as usize, "the largest update has its space");
