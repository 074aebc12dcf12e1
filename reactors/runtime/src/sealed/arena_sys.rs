//! Heap data in pages of its own: an allocator that, while a value is copied, takes from an arena instead of the heap, so
//! that everything the copy owns lies together and can be made read-only. It never gives an address out twice.
//!
//! Arenas lie in one *window* of addresses that is reserved at the start and costs no memory. An arena is as long as what
//! the copy took in a first, measuring run, rounded to pages, with an inaccessible page at either end. Freeing memory of an
//! arena does nothing; when an arena goes, its pages go back to the system and its addresses are used no more: a pointer that
//! should not have survived leads to a fault and never to somebody else's data. The price is an addition and a comparison at
//! each free, and that of 64 GiB of addresses a few KiB are used up with each change of a running appliance.
//!
//! JUSTIFICATION for unsafe: an allocator is an unsafe trait, and its memory comes from the system by raw calls.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::regions::{self, Entry, Protection, RegionKind};
use super::{SealError, page_bytes, section_sys};

/// Addresses for arenas, and what is tried where a limit (RLIMIT_AS) forbids so many.
const WINDOW_BYTES: [usize; 3] = [64 << 30, 4 << 30, 256 << 20];

/// Where the next arena begins.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The window, once it is reserved. Kept apart from the settings of the allocator so that it is made once.
static RESERVED: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// What a thread does that copies a value.
struct Copying {
    /// Bytes taken so far, alignment included.
    taken: usize,
    /// Where the arena begins and how long it is; while measuring there is none.
    arena: Option<(NonNull<u8>, usize)>,
    /// Whether the copy took more than was measured: what did not fit lies in the heap.
    overflowed: bool,
}

impl Copying {
    /// Memory of the arena; none while measuring, and where it does not fit.
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let start = self.taken.next_multiple_of(layout.align());
        let end = start + layout.size();
        let Some((base, bytes)) = self.arena else {
            self.taken = end;
            return None;
        };
        if layout.align() > page_bytes() || end > bytes {
            self.overflowed = true;
            return None;
        }
        self.taken = end;
        // SAFETY: the offset lies within the arena, as just compared.
        Some(unsafe { base.add(start) })
    }
}

thread_local! {
    static COPYING: Cell<*mut Copying> = const { Cell::new(null_mut()) };
}

/// The allocator of a program that seals heap data: the system's, but for what is allocated while a value is copied.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: runtime::sealed::SealingAllocator = runtime::sealed::SealingAllocator;
/// ```
#[derive(Debug)]
pub struct SealingAllocator;

impl SealingAllocator {
    #[cold]
    fn take(copying: *mut Copying, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the pointer leads to the local of `with`, further up this very thread's stack, which uses it only here.
        unsafe { &mut *copying }.take(layout)
    }

    /// Memory for this thread: of the arena while it copies.
    fn place(layout: Layout) -> Option<NonNull<u8>> {
        let copying = COPYING.get();
        if copying.is_null() { None } else { Self::take(copying, layout) }
    }
}

// SAFETY: memory comes from the system's allocator, or from an arena: then it is fresh, aligned, as long as asked for, and
// belongs to nobody else, as an arena only moves forward. What came from the system goes back to it and nothing else does:
// arenas are told by their addresses.
unsafe impl GlobalAlloc for SealingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Self::place(layout) {
            Some(memory) => memory.as_ptr(),
            // SAFETY: the caller's promises are passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Self::place(layout) {
            // Pages of the system are zero, and arenas use each byte once.
            Some(memory) => memory.as_ptr(),
            // SAFETY: the caller's promises are passed on.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !is_in_window(pointer as usize) {
            // SAFETY: the caller's promises are passed on; it came from the system, as it lies in no arena.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if COPYING.get().is_null() && !is_in_window(pointer as usize) {
            // SAFETY: the caller's promises are passed on; it came from the system, as it lies in no arena.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, is a possible one, and not zero.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are at least so long, and the new memory is nobody else's.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, layout.size().min(size)) };
            // SAFETY: the caller's promises are passed on.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

fn is_in_window(address: usize) -> bool {
    let (start, bytes) = section_sys::window();
    address.wrapping_sub(start) < bytes
}

/// Reserves the window, once.
pub(super) fn reserve() -> Result<(usize, usize), SealError> {
    let reserved = RESERVED.get_or_init(|| {
        WINDOW_BYTES.into_iter().find_map(|bytes| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
            let start = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
            (start != libc::MAP_FAILED).then_some((start as usize, bytes))
        })
    });
    let (start, bytes) = reserved.ok_or(SealError::NoAddresses)?;
    let _ = NEXT.compare_exchange(0, start + page_bytes(), Ordering::Relaxed, Ordering::Relaxed);
    Ok((start, bytes))
}

/// Whether this program's allocator is ours.
pub(super) fn is_installed() -> bool {
    let mut copying = Copying { taken: 0, arena: None, overflowed: false };
    with(&mut copying, || drop(std::hint::black_box(Box::new(0u64))));
    copying.taken > 0
}

/// Does something while this thread's allocations are counted, or taken from an arena.
fn with<R>(copying: &mut Copying, act: impl FnOnce() -> R) -> R {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            COPYING.set(null_mut());
        }
    }
    assert!(COPYING.get().is_null(), "a value is not sealed while another is copied");
    COPYING.set(copying);
    let _end = End;
    act()
}

/// The pages that a sealed value lies in. They go back to the system when it is dropped, unless they were sealed for good.
#[derive(Debug)]
pub(super) struct Arena {
    start: NonNull<u8>,
    bytes: usize,
    entry: Option<Entry>,
    stays: bool,
}

// SAFETY: an arena is only addresses; what may be done with the value in it is settled by its type.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Copies a value into pages of its own and protects them; says where the copy is.
    pub(super) fn holding<T: Clone>(
        name: &str,
        kind: RegionKind,
        value: &T,
        wanted: Protection,
    ) -> Result<(Self, NonNull<T>), SealError> {
        let (window, window_bytes) = reserve()?;
        let page = page_bytes();
        let mut measure = Copying { taken: size_of::<T>().max(1), arena: None, overflowed: false };
        // The copy of the first run is dropped at once, while it is counted: only its size is of interest.
        with(&mut measure, || drop(value.clone()));
        let bytes = measure.taken.next_multiple_of(page);
        let start = NEXT.fetch_add(bytes + page, Ordering::Relaxed);
        if start + bytes + page > window + window_bytes || align_of::<T>() > page {
            return Err(SealError::NoAddresses);
        }
        let at = NonNull::new(start as *mut u8).expect("the window is not at address zero");
        let mut arena = Self { start: at, bytes, entry: None, stays: false };
        arena.protect(libc::PROT_READ | libc::PROT_WRITE)?;
        let mut copying = Copying { taken: size_of::<T>().max(1), arena: Some((at, bytes)), overflowed: false };
        let copy = with(&mut copying, || value.clone());
        let place = at.cast::<T>();
        // SAFETY: the arena begins with a page boundary, is longer than the value, and everything allocated lies behind it.
        unsafe { place.write(copy) };
        if copying.overflowed {
            // The copy is given up as it is: parts of it lie in the heap and stay there.
            return Err(SealError::Unsteady { name: name.to_owned() });
        }
        let granted = arena.seal(kind, wanted)?;
        arena.stays = granted == Protection::Final;
        arena.entry = Some(regions::enter(name, kind, start, bytes, granted).ok_or(SealError::TooMany)?);
        arena.stays = kind == RegionKind::Permanent;
        Ok((arena, place))
    }

    fn seal(&self, kind: RegionKind, wanted: Protection) -> Result<Protection, SealError> {
        if wanted == Protection::None {
            return Ok(Protection::None);
        }
        self.protect(libc::PROT_READ)?;
        // What is sealed for good can never be given back, so only what stays is.
        if wanted == Protection::Final && kind == RegionKind::Permanent {
            let page = page_bytes();
            return Ok(seal_for_good(self.start.as_ptr() as usize - page, self.bytes + 2 * page));
        }
        Ok(Protection::ReadOnly)
    }

    fn protect(&self, protection: libc::c_int) -> Result<(), SealError> {
        protect(self.start.as_ptr() as usize, self.bytes, protection).map_err(SealError::Protect)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Some(entry) = self.entry.take() {
            regions::leave(entry);
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the range is this arena's, and nothing leads into it any more; it becomes what it was in the window.
        let outcome = unsafe { libc::mmap(self.start.as_ptr().cast(), self.bytes, libc::PROT_NONE, flags, -1, 0) };
        // Without memory for the kernel's own table (ENOMEM) the pages stay, read-only and unused.
        debug_assert!(outcome != libc::MAP_FAILED, "the pages of an arena are given back");
    }
}

/// Sets what may be done with whole pages.
pub(super) fn protect(start: usize, bytes: usize, protection: libc::c_int) -> io::Result<()> {
    // SAFETY: callers name pages that they own: an arena, or the section of sealed statics.
    let outcome = unsafe { libc::mprotect(start as *mut libc::c_void, bytes, protection) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Forbids every later change to a mapping, where the kernel can (Linux 6.10): its answer tells.
pub(super) fn seal_for_good(start: usize, bytes: usize) -> Protection {
    // SAFETY: the call changes no content; it only forbids later changes to these pages' mapping.
    let outcome = unsafe { libc::syscall(libc::SYS_mseal, start, bytes, 0usize) };
    granted(&if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
}

/// What the kernel's answer to mseal(2) comes to.
fn granted(answer: &io::Result<()>) -> Protection {
    match answer {
        Ok(()) => Protection::Final,
        // ENOSYS: older than 6.10, or without; EPERM: not in processes of this kind; ENOMEM: no room in its table. What is
        // read-only stays so, and the list of regions says which is which.
        Err(_) => Protection::ReadOnly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_cannot_seal_for_good_leaves_what_is_read_only() {
        assert_eq!(granted(&Ok(())), Protection::Final);
        for number in [libc::ENOSYS, libc::EPERM, libc::ENOMEM] {
            assert_eq!(granted(&Err(io::Error::from_raw_os_error(number))), Protection::ReadOnly);
        }
    }
}
