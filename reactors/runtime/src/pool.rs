//! The buffer pool: every block that a device or a stream fills or empties lies here, in one mapping, so that it is pinned
//! and registered once. It decides nothing about who gets buffers.
//!
//! Each shard has a [`LocalPool`]: a stack of free blocks of its own (last in, first out: the warmest block first). When
//! it runs dry or over, a batch of [`BATCH`] blocks, chained through the links, moves from or to the depot, a lock-free
//! queue of chains that all shards share. The price: each shard may sit on up to two batches that others could use.
//!
//! JUSTIFICATION for unsafe: see `map_sys`; who holds the `Buffer` of a block owns its bytes, its headroom and its link.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use base::{BLOCK, Block};
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use ports::buffers::HEADROOM;
use ports::{Buffer, BufferId, Buffers, Segment};

use crate::map_sys::{BlockPointer, Mapping};

/// Blocks that move between a shard and the depot at once.
pub const BATCH: usize = 64;

/// Most local pools that ever exist at once: reactors, start-up code, tests.
pub const MAX_LOCAL_POOLS: usize = 320;

/// Most blocks of a pool: 4 TiB.
pub const MAX_POOL_BLOCKS: usize = 1 << 30;

/// The end of a chain of links.
const NONE: u32 = u32::MAX;

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The operator asked for a size that cannot be.
    #[error("a buffer pool of {0} blocks is impossible: ask for 1 to {MAX_POOL_BLOCKS}")]
    Size(usize),
    /// The system gave no memory.
    #[error("the system refuses {bytes} bytes for the buffer pool: {source}. Make the pool smaller or free memory")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What it said.
        source: std::io::Error,
    },
}

/// The memory, shared by all reactors.
pub struct Pool {
    blocks: Mapping,
    headrooms: Mapping,
    links: Box<[AtomicU32]>,
    held: Box<[AtomicBool]>,
    depot: ArrayQueue<(u32, u32)>,
    in_depot: CachePadded<AtomicUsize>,
    in_locals: Box<[CachePadded<AtomicUsize>]>,
    local_taken: Box<[AtomicBool]>,
    count: usize,
    note: Option<String>,
}

impl Pool {
    /// A pool of at least `blocks` blocks (rounded up to whole batches), in reserved huge pages if asked and available.
    pub fn new(blocks: usize, huge_pages: bool) -> Result<Arc<Self>, PoolError> {
        if blocks == 0 || blocks > MAX_POOL_BLOCKS {
            return Err(PoolError::Size(blocks));
        }
        let count = blocks.next_multiple_of(BATCH);
        let memory =
            |bytes, huge| Mapping::anonymous(bytes, huge).map_err(|source| PoolError::Memory { bytes, source });
        let mapping = memory(count * BLOCK, huge_pages)?;
        let note = (huge_pages && !mapping.is_huge()).then(|| {
            format!(
                "the {} MiB of the buffer pool do not fit the free huge pages: normal pages are used instead \
                 (raise vm.nr_hugepages)",
                (count * BLOCK) >> 20
            )
        });
        let pool = Self {
            blocks: mapping,
            headrooms: memory(count * HEADROOM, false)?,
            links: (0..count).map(|_| AtomicU32::new(NONE)).collect(),
            held: (0..count).map(|_| AtomicBool::new(false)).collect(),
            depot: ArrayQueue::new(count / BATCH + 2 * MAX_LOCAL_POOLS),
            in_depot: CachePadded::new(AtomicUsize::new(0)),
            in_locals: (0..MAX_LOCAL_POOLS).map(|_| CachePadded::new(AtomicUsize::new(0))).collect(),
            local_taken: (0..MAX_LOCAL_POOLS).map(|_| AtomicBool::new(false)).collect(),
            count,
            note,
        };
        let ids: Vec<u32> = (0..u32::try_from(count).expect("at most 2^30 blocks")).rev().collect();
        for batch in ids.rchunks(BATCH) {
            pool.to_depot(batch);
        }
        Ok(Arc::new(pool))
    }

    /// A word for the operator, if not all was as asked.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Blocks in all.
    pub fn blocks(&self) -> usize {
        self.count
    }

    /// Blocks that somebody holds. Exact while nobody allocates or frees.
    pub fn outstanding(&self) -> usize {
        let local: usize = self.in_locals.iter().map(|count| count.load(Ordering::Acquire)).sum();
        self.count.saturating_sub(local + self.in_depot.load(Ordering::Acquire))
    }

    /// A shard's own view.
    ///
    /// # Panics
    /// If there are already [`MAX_LOCAL_POOLS`].
    pub fn local(self: &Arc<Self>) -> LocalPool {
        let place = (0..MAX_LOCAL_POOLS)
            .find(|&place| !self.local_taken[place].swap(true, Ordering::AcqRel))
            .expect("no more local pools than reactors and start-up code need");
        LocalPool { pool: Arc::clone(self), free: Vec::with_capacity(2 * BATCH), place }
    }

    /// The mapping of all blocks, for registration.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.blocks
    }

    /// The block of a buffer that the caller holds, or that its holder has lent to a device.
    pub(crate) fn pointer(&self, buffer: BufferId) -> BlockPointer {
        assert!((buffer.0 as usize) < self.count, "{buffer:?} is not of this pool");
        self.blocks.block(buffer.0 as usize)
    }

    /// Address and bytes of a part of a buffer.
    pub(crate) fn segment(&self, segment: Segment) -> (*mut u8, usize) {
        let (offset, length) = (usize::from(segment.offset), usize::from(segment.length));
        assert!(offset + length <= BLOCK, "{segment:?} reaches beyond its buffer");
        // SAFETY: the offset is within the block, as just asserted.
        (unsafe { self.pointer(segment.buffer).address().add(offset) }, length)
    }

    /// Chains a stack of ids, the last on top, and puts the chain into the depot.
    fn to_depot(&self, stack: &[u32]) {
        let mut next = NONE;
        for &id in stack {
            self.links[id as usize].store(next, Ordering::Relaxed);
            next = id;
        }
        // The queue's own release makes the links visible to who takes the chain.
        self.in_depot.fetch_add(stack.len(), Ordering::AcqRel);
        let pushed = self.depot.push((next, u32::try_from(stack.len()).expect("a batch is small")));
        assert!(pushed.is_ok(), "the depot has a place for every batch and every remainder");
    }
}

/// A shard's view of the pool.
pub struct LocalPool {
    pool: Arc<Pool>,
    free: Vec<u32>,
    place: usize,
}

impl LocalPool {
    /// The pool behind it.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn counted(&self) {
        self.pool.in_locals[self.place].store(self.free.len(), Ordering::Release);
    }

    fn refill(&mut self) -> bool {
        let Some((mut at, count)) = self.pool.depot.pop() else { return false };
        self.pool.in_depot.fetch_sub(count as usize, Ordering::AcqRel);
        let start = self.free.len();
        for _ in 0..count {
            self.free.push(at);
            at = self.pool.links[at as usize].load(Ordering::Relaxed);
        }
        assert_eq!(at, NONE, "a chain is as long as it says");
        self.free[start..].reverse();
        true
    }
}

impl Buffers for LocalPool {
    fn alloc(&mut self) -> Option<Buffer> {
        if self.free.is_empty() && !self.refill() {
            return None;
        }
        let id = self.free.pop()?;
        self.counted();
        let was = self.pool.held[id as usize].load(Ordering::Relaxed);
        assert!(!was, "a free block is held by nobody");
        self.pool.held[id as usize].store(true, Ordering::Relaxed);
        Some(Buffer::from_id(BufferId(id)))
    }

    fn free(&mut self, buffer: Buffer) {
        let id = buffer.id().0;
        let was = self.pool.held[id as usize].load(Ordering::Relaxed);
        assert!(was, "block {id} is freed twice");
        self.pool.held[id as usize].store(false, Ordering::Relaxed);
        if self.free.len() == 2 * BATCH {
            // The coldest half goes: what was freed first.
            self.pool.to_depot(&self.free[..BATCH]);
            self.free.drain(..BATCH);
        }
        self.free.push(id);
        self.counted();
    }

    fn available(&self) -> usize {
        self.free.len() + self.pool.in_depot.load(Ordering::Relaxed)
    }

    fn bytes(&self, buffer: BufferId) -> &Block {
        // SAFETY: the caller holds the buffer, so nobody changes the block while it is borrowed.
        unsafe { &*self.pool.pointer(buffer).address().cast::<Block>() }
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut Block {
        // SAFETY: the caller holds the buffer, and the borrow of `self` keeps this shard from borrowing it twice.
        unsafe { &mut *self.pool.pointer(buffer).address().cast::<Block>() }
    }

    fn pair(&mut self, change: BufferId, read: BufferId) -> (&mut Block, &Block) {
        assert_ne!(change, read, "a pair is of two different buffers");
        // SAFETY: the caller holds both buffers; they are different, so the borrows do not overlap.
        let changed = unsafe { &mut *self.pool.pointer(change).address().cast::<Block>() };
        // SAFETY: as above.
        let source = unsafe { &*self.pool.pointer(read).address().cast::<Block>() };
        (changed, source)
    }

    fn headroom(&mut self, buffer: BufferId) -> &mut [u8; HEADROOM] {
        assert!((buffer.0 as usize) < self.pool.count, "{buffer:?} is not of this pool");
        // SAFETY: the mapping has HEADROOM bytes for each block; the holder of the buffer owns its headroom.
        unsafe { &mut *self.pool.headrooms.base().as_ptr().add(buffer.0 as usize * HEADROOM).cast() }
    }

    fn next(&self, buffer: BufferId) -> Option<BufferId> {
        // Relaxed: the link belongs to the buffer's holder; handing the buffer on orders it.
        let next = self.pool.links[buffer.0 as usize].load(Ordering::Relaxed);
        (next != NONE).then_some(BufferId(next))
    }

    fn set_next(&mut self, buffer: BufferId, next: Option<BufferId>) {
        self.pool.links[buffer.0 as usize].store(next.map_or(NONE, |id| id.0), Ordering::Relaxed);
    }
}

impl Drop for LocalPool {
    fn drop(&mut self) {
        for batch in self.free.chunks(BATCH) {
            self.pool.to_depot(batch);
        }
        self.free.clear();
        self.counted();
        self.pool.local_taken[self.place].store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ports::BufferList;

    #[test]
    fn all_blocks_can_be_taken_once_and_come_home() {
        let pool = Pool::new(3 * BATCH - 5, false).expect("memory");
        assert_eq!(pool.blocks(), 3 * BATCH);
        let mut local = pool.local();
        assert_eq!(local.available(), 3 * BATCH);
        let mut taken = Vec::new();
        while let Some(buffer) = local.alloc() {
            taken.push(buffer);
        }
        assert_eq!((taken.len(), local.available(), pool.outstanding()), (3 * BATCH, 0, 3 * BATCH));
        let mut ids: Vec<u32> = taken.iter().map(|buffer| buffer.id().0).collect();
        assert!(ids[..BATCH].windows(2).all(|two| two[1] == two[0] + 1), "fresh buffers are adjacent");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3 * BATCH);
        // Freed on another shard.
        let mut other = pool.local();
        for buffer in taken {
            other.free(buffer);
        }
        assert_eq!(pool.outstanding(), 0);
        drop(other);
        assert_eq!((local.available(), pool.outstanding()), (3 * BATCH, 0));
    }

    #[test]
    fn lists_links_headroom_and_content_stay_apart() {
        let pool = Pool::new(BATCH, false).expect("memory");
        let mut local = pool.local();
        let list = BufferList::alloc(&mut local, 10).expect("enough");
        let ids: Vec<BufferId> = list.ids(&local).collect();
        for (n, &id) in (0u8..).zip(&ids) {
            local.bytes_mut(id).fill(n);
            local.headroom(id).fill(100 + n);
        }
        for (n, &id) in (0u8..).zip(&ids) {
            assert!(local.bytes(id).iter().all(|&byte| byte == n));
            assert!(local.headroom(id).iter().all(|&byte| byte == 100 + n));
        }
        let (change, read) = local.pair(ids[0], ids[1]);
        change.copy_from_slice(read);
        assert_eq!(local.bytes(ids[0])[0], 1);
        assert!(BufferList::alloc(&mut local, BATCH - 9).is_none(), "all or none");
        list.free(&mut local);
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_block_freed_twice_is_found_at_once() {
        let pool = Pool::new(BATCH, false).expect("memory");
        let mut local = pool.local();
        let buffer = local.alloc().expect("a block");
        let again = Buffer::from_id(buffer.id());
        local.free(buffer);
        local.free(again);
    }

    #[test]
    fn threads_exchange_blocks_and_none_is_lost_or_doubled() {
        let pool = Pool::new(16 * BATCH, false).expect("memory");
        let (give, take) = std::sync::mpsc::sync_channel::<Buffer>(4 * BATCH);
        std::thread::scope(|scope| {
            let producer = Arc::clone(&pool);
            scope.spawn(move || {
                let mut local = producer.local();
                let mut sent = 0;
                while sent < 20_000 {
                    if let Some(buffer) = local.alloc() {
                        give.send(buffer).expect("the consumer waits");
                        sent += 1;
                    }
                }
            });
            let mut local = pool.local();
            while let Ok(buffer) = take.recv() {
                local.free(buffer);
            }
        });
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn impossible_sizes_are_refused_with_a_word() {
        assert!(matches!(Pool::new(0, false), Err(PoolError::Size(0))));
        assert!(Pool::new(MAX_POOL_BLOCKS + 1, false).is_err_and(|error| error.to_string().contains("impossible")));
    }
}
