//! The front's share of the buffer pool: blocks set aside for data in capsules, which comes unasked, and a budget for data
//! that is asked for. Nothing that comes unasked may ever find no place, or the streams behind it would deadlock.

use ports::{BufferList, Buffers};

use super::limits::FrontLimits;

/// The share.
#[derive(Debug)]
pub(super) struct Space {
    reserve: BufferList,
    /// Blocks granted to connections; those lent to commands are not in the list.
    reserved: usize,
    reserve_limit: usize,
    data_used: usize,
    data_limit: usize,
}

impl Space {
    pub(super) const fn new(limits: &FrontLimits) -> Self {
        Self {
            reserve: BufferList::EMPTY,
            reserved: 0,
            reserve_limit: limits.in_capsule_blocks,
            data_used: 0,
            data_limit: limits.data_blocks,
        }
    }

    /// Sets blocks aside for a queue, all or none.
    pub(super) fn reserve(&mut self, pool: &mut impl Buffers, blocks: usize) -> bool {
        if self.reserved + blocks > self.reserve_limit {
            return false;
        }
        let Some(list) = BufferList::alloc(pool, blocks) else { return false };
        self.reserve.append(pool, list);
        self.reserved += blocks;
        true
    }

    /// Returns what [`Space::reserve`] set aside. All of its commands must have returned what they took.
    pub(super) fn unreserve(&mut self, pool: &mut impl Buffers, blocks: usize) {
        assert!(blocks <= self.reserve.len(), "set-aside blocks come home before their queue goes");
        self.reserve.split_front(pool, blocks).free(pool);
        self.reserved -= blocks;
    }

    /// Blocks of the reserve for data in a capsule: each command of a queue has its own set aside.
    #[inline]
    pub(super) fn take_capsule(&mut self, pool: &mut impl Buffers, blocks: usize) -> BufferList {
        let list = self.reserve.split_front(pool, blocks);
        assert_eq!(list.len(), blocks, "each command of a queue has its blocks set aside");
        list
    }

    /// Replaces blocks of the reserve that are about to be given away; false if the pool is short. So the commands that
    /// wait never hold more than was set aside, and what keeps the volumes going stays in the pool.
    pub(super) fn replace(&mut self, pool: &mut impl Buffers, blocks: usize) -> bool {
        let Some(list) = BufferList::alloc(pool, blocks) else { return false };
        self.reserve.append(pool, list);
        true
    }

    /// Takes blocks back, to the reserve if they are of it.
    pub(super) fn give_back(&mut self, pool: &mut impl Buffers, list: BufferList, of_reserve: bool) {
        if of_reserve { self.reserve.append(pool, list) } else { list.free(pool) }
    }

    /// Blocks for data that is asked for or read, for a connection that holds `held` already. No connection may hold more
    /// than half of the budget, unless it holds nothing else.
    #[inline]
    pub(super) fn take_data(&mut self, pool: &mut impl Buffers, blocks: usize, held: usize) -> Option<BufferList> {
        let share = self.data_limit / 2;
        if self.data_used + blocks > self.data_limit || (held > 0 && held + blocks > share) {
            return None;
        }
        let list = BufferList::alloc(pool, blocks)?;
        self.data_used += blocks;
        Some(list)
    }

    /// Blocks of the budget are no longer used: given away or freed.
    #[inline]
    pub(super) fn data_done(&mut self, blocks: usize) {
        assert!(blocks <= self.data_used, "a block leaves the budget once");
        self.data_used -= blocks;
    }

    /// Whether everything has come home.
    #[cfg(test)]
    pub(super) fn is_home(&self) -> bool {
        self.reserved == 0 && self.reserve.is_empty() && self.data_used == 0
    }
}
