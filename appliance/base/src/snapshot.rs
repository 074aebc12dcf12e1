//! Immutable values that several shards hold at once. A change never touches one: a new value is made and each holder's
//! pointer is swapped; the old one goes with its last holder. Where the value lies is the maker's affair: in ordinary
//! memory, or in pages that nobody can write to (`runtime::sealed`). Nothing here knows of pages.

use core::any::Any;
use core::fmt;
use core::ops::Deref;
use core::panic::RefUnwindSafe;
use std::sync::Arc;

/// What may lie in memory that nobody can write to: a value that is copied whole and has no cell, lock or counter within.
/// `Clone` keeps out atomics and locks, `RefUnwindSafe` cells. A shared pointer within (`Arc`) is copied as a pointer: what
/// it leads to stays where it is.
///
/// ```compile_fail
/// fn plain<T: base::snapshot::Plain>() {}
/// plain::<std::cell::Cell<u32>>();
/// ```
///
/// ```compile_fail
/// fn plain<T: base::snapshot::Plain>() {}
/// plain::<std::sync::atomic::AtomicU64>();
/// ```
///
/// ```compile_fail
/// fn plain<T: base::snapshot::Plain>() {}
/// plain::<Vec<std::sync::Mutex<u32>>>();
/// ```
///
/// ```
/// fn plain<T: base::snapshot::Plain>() {}
/// plain::<Vec<(String, u64)>>();
/// ```
pub trait Plain: Clone + Send + Sync + RefUnwindSafe + 'static {}

impl<T: Clone + Send + Sync + RefUnwindSafe + 'static> Plain for T {}

/// A shared immutable value. A clone is another hold on the same value.
///
/// ```
/// use base::snapshot::Snapshot;
/// let first = Snapshot::new(vec![1, 2]);
/// let second = first.clone();
/// drop(first);
/// assert_eq!(*second, [1, 2]);
/// ```
///
/// Nobody gets to write to it:
///
/// ```compile_fail
/// let mut snapshot = base::snapshot::Snapshot::new(vec![1, 2]);
/// snapshot.push(3);
/// ```
pub struct Snapshot<T: 'static>(Hold<T>);

enum Hold<T: 'static> {
    Shared(Arc<T>),
    Kept {
        /// Valid only while the keeper is: it never leaves this file but as a borrow of the snapshot.
        value: &'static T,
        keeper: Arc<dyn Any + Send + Sync>,
    },
}

impl<T: 'static> Snapshot<T> {
    /// A snapshot in ordinary memory.
    pub fn new(value: T) -> Self {
        Self(Hold::Shared(Arc::new(value)))
    }

    /// A snapshot of what lies elsewhere. The value must stay as long as any clone of `keeper`; the snapshot lends it for no
    /// longer than that.
    pub fn kept(value: &'static T, keeper: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Hold::Kept { value, keeper })
    }

    /// Whether it lies where its keeper put it.
    pub fn is_kept(&self) -> bool {
        matches!(self.0, Hold::Kept { .. })
    }
}

impl<T: 'static> Deref for Snapshot<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Hold::Shared(value) => value,
            Hold::Kept { value, .. } => value,
        }
    }
}

impl<T: 'static> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Hold::Shared(value) => Hold::Shared(Arc::clone(value)),
            Hold::Kept { value, keeper } => Hold::Kept { value, keeper: Arc::clone(keeper) },
        })
    }
}

impl<T: 'static> From<Arc<T>> for Snapshot<T> {
    fn from(value: Arc<T>) -> Self {
        Self(Hold::Shared(value))
    }
}

impl<T: 'static> From<T> for Snapshot<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_goes_with_the_last_holder() {
        static VALUE: [u32; 2] = [1, 2];
        let keeper = Arc::new(());
        let first = Snapshot::kept(&VALUE, keeper.clone());
        let second = first.clone();
        assert!(first.is_kept() && first[0] == second[0]);
        drop(first);
        assert_eq!(Arc::strong_count(&keeper), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&keeper), 1);
    }

    #[test]
    fn an_ordinary_one_is_shared_too() {
        let value = Arc::new(7);
        let snapshot = Snapshot::<i32>::from(Arc::clone(&value));
        assert!(!snapshot.is_kept() && *snapshot == 7);
        drop(snapshot);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
