//! A drive's volatile cache, emulated: what has been written but not flushed lies in the memory of this process and is
//! lost when the process is killed, so that kill tests see a missing flush. A test aid: it allocates and it locks, and
//! only the non-blocking [`VolatileCache::write_now`] is for reactors.
//!
//! As with a real cache, a write may become durable early (when the cache is full, or by a durable write or a long zero
//! to the same blocks), never late.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{BLOCK, ZERO_BLOCK};
use ports::{DeviceError, MAX_DEVICE_BLOCKS};

use crate::blocking_sys::Direction;
use crate::device::Medium;
use crate::map_sys::{AlignedBlock, BlockPointer};

/// Most blocks that the cache keeps (64 MiB); beyond, it writes back all.
const MAX_CACHED_BLOCKS: usize = 16_384;

/// Longest zeroing that is cached; longer ones go through.
const MAX_CACHED_ZEROES: u64 = MAX_DEVICE_BLOCKS as u64;

type Blocks = BTreeMap<u64, Box<AlignedBlock>>;

/// The blocks that are written but not flushed.
pub(crate) struct VolatileCache {
    blocks: Mutex<Blocks>,
}

impl VolatileCache {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        Self { blocks: Mutex::new(Blocks::new()) }
    }

    /// Keeps a write without waiting, or says that it cannot now.
    pub(crate) fn write_now(&self, start: u64, from: impl ExactSizeIterator<Item = BlockPointer>) -> bool {
        let Ok(mut blocks) = self.blocks.try_lock() else { return false };
        if blocks.len() + from.len() > MAX_CACHED_BLOCKS {
            return false;
        }
        keep(&mut blocks, start, from);
        true
    }

    /// Reads: the cached version where there is one.
    pub(crate) fn read(&self, medium: &Medium, start: u64, into: &[BlockPointer]) -> Result<(), DeviceError> {
        let blocks = self.lock();
        let cached = blocks.range(start..start + into.len() as u64);
        if cached.clone().count() < into.len() {
            medium.transfer(Direction::Read, start, into)?;
        }
        for (at, block) in cached {
            into[(at - start) as usize].store(&block.0);
        }
        Ok(())
    }

    /// Keeps a write; writes all back first if the cache is full.
    pub(crate) fn write(&self, medium: &Medium, start: u64, from: &[BlockPointer]) -> Result<(), DeviceError> {
        let mut blocks = self.lock();
        if blocks.len() + from.len() > MAX_CACHED_BLOCKS {
            write_back(&blocks, medium)?;
            blocks.clear();
        }
        keep(&mut blocks, start, from.iter().copied());
        Ok(())
    }

    /// Writes through and forgets what was cached of these blocks.
    pub(crate) fn write_durable(&self, medium: &Medium, start: u64, from: &[BlockPointer]) -> Result<(), DeviceError> {
        let mut blocks = self.lock();
        medium.transfer(Direction::WriteDurable, start, from)?;
        forget(&mut blocks, start, from.len() as u64);
        Ok(())
    }

    /// Keeps zeros, or sends them through if they are many.
    pub(crate) fn zero(&self, medium: &Medium, start: u64, count: u64) -> Result<(), DeviceError> {
        let mut blocks = self.lock();
        if count > MAX_CACHED_ZEROES || blocks.len() as u64 + count > MAX_CACHED_BLOCKS as u64 {
            medium.zero(start, count)?;
            forget(&mut blocks, start, count);
        } else {
            for at in start..start + count {
                blocks.insert(at, Box::new(AlignedBlock(ZERO_BLOCK)));
            }
        }
        Ok(())
    }

    /// Carries all to the device and makes it durable. What fails stays cached.
    pub(crate) fn flush(&self, medium: &Medium) -> Result<(), DeviceError> {
        let mut blocks = self.lock();
        write_back(&blocks, medium)?;
        medium.sync()?;
        blocks.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        // A thread that panicked with the lock has aborted the process, or is a test's own.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(blocks: &mut Blocks, start: u64, from: impl Iterator<Item = BlockPointer>) {
    for (at, source) in (start..).zip(from) {
        let kept = blocks.entry(at).or_insert_with(|| Box::new(AlignedBlock([0; BLOCK])));
        source.load(&mut kept.0);
    }
}

fn forget(blocks: &mut Blocks, start: u64, count: u64) {
    let mut tail = blocks.split_off(&start);
    let mut behind = tail.split_off(&(start + count));
    blocks.append(&mut behind);
}

fn write_back(blocks: &Blocks, medium: &Medium) -> Result<(), DeviceError> {
    let mut run: Vec<BlockPointer> = Vec::with_capacity(MAX_DEVICE_BLOCKS);
    let mut run_start = 0;
    for (&at, block) in blocks {
        let ends = run.len() == MAX_DEVICE_BLOCKS || run_start + run.len() as u64 != at;
        if ends && !run.is_empty() {
            medium.transfer(Direction::Write, run_start, &run)?;
            run.clear();
        }
        if run.is_empty() {
            run_start = at;
        }
        run.push(BlockPointer::of_source(&block.0));
    }
    if run.is_empty() { Ok(()) } else { medium.transfer(Direction::Write, run_start, &run) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::RamDisk;

    fn read(cache: Option<&VolatileCache>, medium: &Medium, at: u64) -> u8 {
        let mut block = [0xff; BLOCK];
        let into = [BlockPointer::of(&mut block)];
        match cache {
            Some(cache) => cache.read(medium, at, &into),
            None => medium.transfer(Direction::Read, at, &into),
        }
        .expect("read");
        assert!(block.iter().all(|&byte| byte == block[0]));
        block[0]
    }

    #[test]
    fn only_what_is_flushed_or_written_through_reaches_the_medium() {
        let medium = Medium::Ram(RamDisk::new(1024).expect("memory"));
        let cache = VolatileCache::new();
        let blocks: Vec<_> = (1..=3u8).map(|n| [n; BLOCK]).collect();
        let from: Vec<_> = blocks.iter().map(BlockPointer::of_source).collect();
        assert!(cache.write_now(10, from.iter().copied()));
        cache.write(&medium, 20, &from).expect("written");
        assert_eq!((read(None, &medium, 11), read(Some(&cache), &medium, 11)), (0, 2));
        cache.write_durable(&medium, 10, &from[2..]).expect("written");
        assert_eq!((read(None, &medium, 10), read(Some(&cache), &medium, 10)), (3, 3));
        assert_eq!(read(None, &medium, 12), 0);
        cache.zero(&medium, 11, 1).expect("zeroed");
        assert_eq!(read(Some(&cache), &medium, 11), 0);
        cache.flush(&medium).expect("flushed");
        assert_eq!([10, 11, 12, 20, 21, 22].map(|at| read(None, &medium, at)), [3, 0, 3, 1, 2, 3]);
        // A long zero goes through and supersedes.
        assert!(cache.write_now(500, from.iter().copied()));
        cache.zero(&medium, 0, 501).expect("zeroed");
        assert_eq!((read(None, &medium, 10), read(Some(&cache), &medium, 500)), (0, 0));
        assert_eq!((read(None, &medium, 501), read(Some(&cache), &medium, 501)), (0, 2));
    }

    #[test]
    fn a_full_cache_writes_back_and_refuses_to_do_so_in_a_reactor() {
        let medium = Medium::Ram(RamDisk::new(MAX_CACHED_BLOCKS as u64 + 10).expect("memory"));
        let cache = VolatileCache::new();
        let block = [5; BLOCK];
        let from = [BlockPointer::of_source(&block); MAX_DEVICE_BLOCKS];
        for start in (0..MAX_CACHED_BLOCKS).step_by(MAX_DEVICE_BLOCKS) {
            assert!(cache.write_now(start as u64, from.iter().copied()));
        }
        let beyond = MAX_CACHED_BLOCKS as u64;
        assert!(!cache.write_now(beyond, from[..1].iter().copied()));
        cache.write(&medium, beyond, &from[..1]).expect("written");
        assert_eq!((read(None, &medium, beyond - 1), read(None, &medium, beyond)), (5, 0));
        assert_eq!(read(Some(&cache), &medium, beyond), 5);
    }
}
