//! Anonymous memory by the page: what the buffer pool, the RAM devices and the sources of zeros lie in. It knows nothing
//! of files and never gives memory back before it is dropped.
//!
//! JUSTIFICATION for unsafe: memory that devices read and write while several threads hold names of its parts cannot be
//! expressed as a Rust collection. Who may touch which block is settled by ownership of buffers (see `ports::buffers`)
//! and of zones: one block has one owner at any time, so no two threads ever touch the same bytes at once.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

use base::{BLOCK, Block};

/// Bytes of a huge page on x86-64 and on 4 KiB-granule AArch64.
const HUGE_PAGE: usize = 2 << 20;

/// A block in page-aligned memory of its own, as direct I/O wants it.
#[repr(C, align(4096))]
pub(crate) struct AlignedBlock(pub(crate) Block);

/// One anonymous mapping, zero at first.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
    huge: bool,
}

// SAFETY: the mapping is plain memory, reachable from every thread; see the JUSTIFICATION for who touches what.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `length` bytes; with `huge`, from the reserved huge pages if there are enough.
    pub(crate) fn anonymous(length: usize, huge: bool) -> io::Result<Self> {
        assert!(length > 0, "an empty mapping has no address");
        if huge {
            let rounded = length.next_multiple_of(HUGE_PAGE);
            if let Ok(base) = map(rounded, libc::MAP_HUGETLB) {
                return Ok(Self { base, length: rounded, huge: true });
            }
        }
        let rounded = length.next_multiple_of(BLOCK);
        let base = map(rounded, libc::MAP_NORESERVE)?;
        // SAFETY: the range is the mapping just made; the advice changes no content.
        let _ = unsafe { libc::madvise(base.as_ptr().cast(), rounded, libc::MADV_HUGEPAGE) };
        // Page faults belong to the start and not to the first requests. Before Linux 5.14 they come with those all the same.
        // SAFETY: as above.
        let _ = unsafe { libc::madvise(base.as_ptr().cast(), rounded, libc::MADV_POPULATE_WRITE) };
        Ok(Self { base, length: rounded, huge: false })
    }

    /// The first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether it lies in reserved huge pages.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }

    /// The block at this index.
    pub(crate) fn block(&self, index: usize) -> BlockPointer {
        assert!(index < self.length / BLOCK, "block {index} lies beyond the mapping");
        // SAFETY: the offset is inside the mapping, as just asserted.
        let at = unsafe { self.base.add(index * BLOCK) };
        BlockPointer(at.cast())
    }

    /// Zeros whole blocks.
    pub(crate) fn zero_blocks(&self, first: usize, count: usize) {
        assert!(first + count <= self.length / BLOCK, "the blocks lie beyond the mapping");
        // SAFETY: the range is inside the mapping and belongs to the caller by the rule of ownership.
        unsafe { std::ptr::write_bytes(self.base.as_ptr().add(first * BLOCK), 0, count * BLOCK) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us and nothing names it any more.
        let outcome = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
        assert_eq!(outcome, 0, "unmapping what was mapped succeeds");
    }
}

fn map(length: usize, more: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// The address of one block whose holder has it to itself while the pointer is used.
#[derive(Clone, Copy)]
pub(crate) struct BlockPointer(NonNull<Block>);

// SAFETY: the pointer goes with the ownership of its block; the memory outlives it (its holders keep the mapping).
unsafe impl Send for BlockPointer {}

impl BlockPointer {
    /// The address of a block in ordinary memory. It must not be used after the borrow ends: callers keep it in a local
    /// list for the time of one call.
    pub(crate) fn of(block: &mut Block) -> Self {
        Self(NonNull::from(block))
    }

    /// The address of a block that is only read through it.
    pub(crate) fn of_source(block: &Block) -> Self {
        Self(NonNull::from(block))
    }

    /// The address.
    pub(crate) fn address(self) -> *mut u8 {
        self.0.as_ptr().cast()
    }

    /// Copies the block out.
    pub(crate) fn load(self, into: &mut Block) {
        // SAFETY: both are whole blocks; the holder of the pointer owns its block, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(self.address(), into.as_mut_ptr(), BLOCK) };
    }

    /// Fills the block.
    pub(crate) fn store(self, from: &Block) {
        // SAFETY: both are whole blocks; the holder of the pointer owns its block, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.address(), BLOCK) };
    }

    /// Fills the block from another one, elsewhere.
    pub(crate) fn copy_from(self, from: Self) {
        assert!(self.0 != from.0, "a block is not copied onto itself");
        // SAFETY: both are whole blocks, each owned by the caller, and blocks overlap wholly or not at all.
        unsafe { std::ptr::copy_nonoverlapping(from.address(), self.address(), BLOCK) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_zero_aligned_and_keeps_what_is_stored() {
        let mapping = Mapping::anonymous(3 * BLOCK, false).expect("memory");
        assert_eq!(mapping.base().as_ptr() as usize % BLOCK, 0);
        let mut block = [1; BLOCK];
        mapping.block(2).load(&mut block);
        assert_eq!(block, [0; BLOCK]);
        mapping.block(1).store(&[7; BLOCK]);
        mapping.block(2).copy_from(mapping.block(1));
        mapping.block(2).load(&mut block);
        assert_eq!(block, [7; BLOCK]);
        mapping.zero_blocks(2, 1);
        mapping.block(2).load(&mut block);
        assert_eq!(block, [0; BLOCK]);
        mapping.block(1).load(&mut block);
        assert_eq!(block, [7; BLOCK]);
    }

    #[test]
    fn huge_pages_are_used_if_there_are_any_and_otherwise_not_missed() {
        let mapping = Mapping::anonymous(BLOCK, true).expect("memory");
        assert!(mapping.length() == BLOCK || mapping.is_huge() && mapping.length() == HUGE_PAGE);
        mapping.block(0).store(&[1; BLOCK]);
    }
}
