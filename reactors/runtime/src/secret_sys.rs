//! Keys in memory. A [`Secret`] lies in pages of its own that are never swapped out and never dumped, cannot be written to once it is
//! there, and are overwritten before they go back. It is shown nowhere.
//!
//! JUSTIFICATION for unsafe: pages with these properties come from the system by raw calls.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::sealed::page_bytes;

/// Why a secret cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system gives no memory, or not of that kind.
    #[error("the system refuses memory for a key: {0}")]
    Memory(#[source] io::Error),
    /// Too much is locked already.
    #[error(
        "the system refuses to lock the memory of a key: {0}. Raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the service); a key that \
         could be swapped out is not kept"
    )]
    Lock(#[source] io::Error),
}

/// A secret of some bytes. It cannot be copied, and its `Debug` form tells its length only:
///
/// ```
/// let mut typed = *b"correct horse";
/// let secret = runtime::Secret::from_bytes(&mut typed)?;
/// assert_eq!(typed, [0; 13], "the place that it came from is overwritten");
/// assert_eq!(secret.bytes(), b"correct horse");
/// assert_eq!(format!("{secret:?}"), "Secret(13 bytes)");
/// # Ok::<(), runtime::SecretError>(())
/// ```
///
/// ```compile_fail
/// fn twice(secret: &runtime::Secret) -> (runtime::Secret, runtime::Secret) {
///     (secret.clone(), secret.clone())
/// }
/// ```
///
/// ```compile_fail
/// fn shown(secret: &runtime::Secret) -> String {
///     secret.to_string()
/// }
/// ```
pub struct Secret {
    /// The first of the pages between two that nobody may touch.
    pages: NonNull<u8>,
    page_bytes: usize,
    length: usize,
}

// SAFETY: the pages are plain memory, written to only before anybody else knows of them and when nobody does any more.
unsafe impl Send for Secret {}
// SAFETY: as above.
unsafe impl Sync for Secret {}

impl Secret {
    /// Moves a secret into pages of its own: `bytes` are zeros afterwards, also if that fails.
    pub fn from_bytes(bytes: &mut [u8]) -> Result<Self, SecretError> {
        let secret = Self::made(bytes.len(), |place| place.copy_from_slice(bytes));
        wipe(bytes);
        secret
    }

    /// Makes a secret where it is to lie.
    pub fn made(length: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self, SecretError> {
        let page = page_bytes();
        let bytes = length.max(1).next_multiple_of(page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes + 2 * page, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(SecretError::Memory(io::Error::last_os_error()));
        }
        let pages = NonNull::new(start.wrapping_byte_add(page).cast()).expect("a mapping is not at address zero");
        let mut secret = Self { pages, page_bytes: bytes, length };
        secret.protect(libc::PROT_READ | libc::PROT_WRITE).map_err(SecretError::Memory)?;
        // SAFETY: the pages are the mapping's own.
        if unsafe { libc::mlock(secret.address(), bytes) } != 0 {
            return Err(SecretError::Lock(io::Error::last_os_error()));
        }
        for advice in [libc::MADV_DONTDUMP, libc::MADV_WIPEONFORK] {
            // SAFETY: as above; the advice changes no content.
            if unsafe { libc::madvise(secret.address(), bytes, advice) } != 0 {
                return Err(SecretError::Memory(io::Error::last_os_error()));
            }
        }
        fill(secret.place());
        secret.protect(libc::PROT_READ).map_err(SecretError::Memory)?;
        Ok(secret)
    }

    /// The secret. What is done with it must leave no copy.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the pages are mapped, initialised and as long, and written to by nobody while the secret is borrowed.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr(), self.length) }
    }

    /// Whether the secret is these bytes; how long that takes tells only whether the lengths agree.
    pub fn is(&self, other: &[u8]) -> bool {
        let differs = |(one, other): (&u8, &u8)| one ^ other;
        self.length == other.len() && self.bytes().iter().zip(other).map(differs).fold(0, |all, one| all | one) == 0
    }

    fn place(&mut self) -> &mut [u8] {
        // SAFETY: the pages are mapped, zero at first, as long, and writable: this is called before and after they are not.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_ptr(), self.length) }
    }

    fn address(&self) -> *mut libc::c_void {
        self.pages.as_ptr().cast()
    }

    fn protect(&self, access: libc::c_int) -> io::Result<()> {
        // SAFETY: the pages are the mapping's own, and no borrow of them is alive that the access would contradict.
        let outcome = unsafe { libc::mprotect(self.address(), self.page_bytes, access) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // Without memory for the kernel's own table the pages stay read-only; they are zeroed by the kernel when they go.
        if self.protect(libc::PROT_READ | libc::PROT_WRITE).is_ok() {
            wipe(self.place());
        }
        let page = page_bytes();
        let start = self.address().wrapping_byte_sub(page);
        // SAFETY: the mapping is our own with both its guard pages, and nothing leads into it any more.
        let _ = unsafe { libc::munmap(start, self.page_bytes + 2 * page) };
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.length)
    }
}

/// Overwrites bytes in a way that is done even if nobody reads them again.
pub fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: the byte is borrowed for writing.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
    compiler_fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags of the mapping at an address (proc_pid_smaps(5)), and its access.
    fn mapping(address: usize) -> (String, String) {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("the kernel's table");
        let (mut access, mut inside) = (String::new(), false);
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range = range.and_then(|(start, end)| {
                Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
            });
            if let Some(range) = range {
                inside = range.contains(&address);
                access = line.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return (access, format!("{flags} "));
            }
        }
        panic!("nothing at {address:#x}")
    }

    #[test]
    fn a_secret_lies_in_locked_pages_that_are_not_dumped_and_cannot_be_written_to() {
        let secret = Secret::from_bytes(&mut [7; 5000]).expect("memory");
        let address = secret.bytes().as_ptr() as usize;
        let (access, flags) = mapping(address);
        assert_eq!(access, "r--p");
        for flag in [" lo ", " dd ", " wf "] {
            assert!(flags.contains(flag), "{flag}: {flags}");
        }
        assert_eq!(mapping(address - 1).0, "---p");
        assert_eq!(mapping(address + 8192).0, "---p");
        assert!(secret.is(&[7; 5000]) && !secret.is(&[7; 4999]) && !secret.is(&[8; 5000]));
    }

    #[test]
    fn it_is_overwritten_before_it_goes() {
        let mut secret = Secret::made(32, |place| place.fill(9)).expect("memory");
        assert_eq!(secret.bytes(), [9; 32]);
        // What the drop does, with the pages still there to be looked at.
        secret.protect(libc::PROT_READ | libc::PROT_WRITE).expect("our own pages");
        wipe(secret.place());
        assert_eq!(secret.bytes(), [0; 32]);
        assert!(Secret::from_bytes(&mut []).expect("memory").bytes().is_empty());
    }
}
