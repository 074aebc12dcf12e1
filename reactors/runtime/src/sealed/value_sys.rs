//! Values in sealed memory. A [`Sealed`] gives out nothing but shared borrows of its value; the pages are read-only before
//! anybody has it. A change is a new value: made, sealed, and put in the old one's place by swapping one pointer.
//!
//! JUSTIFICATION for unsafe: the value lies at an address, not in a variable.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use base::snapshot::{Plain, Snapshot};

use super::arena_sys::Arena;
use super::regions::RegionKind;
use super::{InitToken, Policy, SealError, is_started};

/// A value in pages that nobody can write to, with all that it owns in the heap. A clone is another hold on the same value.
/// Destructors are not run: when the last holder goes, the pages go.
///
/// It cannot be written to:
///
/// ```compile_fail
/// fn change(sealed: &mut runtime::sealed::Sealed<Vec<u32>>) {
///     sealed.push(1);
/// }
/// ```
///
/// and holds nothing that changes through a shared borrow:
///
/// ```compile_fail
/// runtime::sealed::Sealed::snapshot("counter", &std::cell::Cell::new(1u32));
/// ```
pub struct Sealed<T: 'static> {
    value: NonNull<T>,
    arena: Arc<Arena>,
}

// SAFETY: a hold on a value that is only read: it goes to other threads as `Arc` does.
unsafe impl<T: Send + Sync> Send for Sealed<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Sealed<T> {}

impl InitToken {
    /// Copies a value into pages of its own that stay, read-only, as long as the process: where the kernel can, for good.
    pub fn keep<T: Plain>(&mut self, name: &str, value: &T) -> Result<Sealed<T>, SealError> {
        Sealed::made(name, RegionKind::Permanent, value)
    }
}

impl<T: Plain> Sealed<T> {
    /// Copies a value into pages of its own, read-only from here on until the last holder goes.
    pub fn snapshot(name: &str, value: &T) -> Result<Self, SealError> {
        Self::made(name, RegionKind::Snapshot, value)
    }

    fn made(name: &str, kind: RegionKind, value: &T) -> Result<Self, SealError> {
        is_started()?;
        let (arena, value) = Arena::holding(name, kind, value, Policy::current().protection())?;
        Ok(Self { value, arena: Arc::new(arena) })
    }

    /// The value for those who do not know of pages.
    pub fn share(&self) -> Snapshot<T> {
        // SAFETY: the value stays as long as its arena, which the snapshot holds; it lends the value for no longer.
        let value: &'static T = unsafe { self.value.as_ref() };
        Snapshot::kept(value, self.arena.clone())
    }
}

impl<T> Deref for Sealed<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value was written before anybody had the address, and stays as long as the arena.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Clone for Sealed<T> {
    fn clone(&self) -> Self {
        Self { value: self.value, arena: Arc::clone(&self.arena) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A snapshot in sealed memory, or where that is not to be had in ordinary memory: a running appliance does not refuse a
/// change for want of protection. How often that was so is counted ([`super::MemoryReport::unsealed`]).
pub fn seal_or_share<T: Plain>(name: &str, value: T) -> Snapshot<T> {
    match Sealed::snapshot(name, &value) {
        Ok(sealed) => sealed.share(),
        Err(error) => {
            super::went_without(&error);
            Snapshot::new(value)
        }
    }
}
