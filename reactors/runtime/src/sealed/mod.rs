//! Memory that is read-only once the program is initialised, so that a stray write to what never changes is impossible, or at
//! least told: statics in a section of their own, values of the heap in pages of their own.
//!
//! | file | holds |
//! |---|---|
//! | `section_sys` | [`sealed_static!`](crate::sealed_static): statics, written only with the [`InitToken`] |
//! | `arena_sys` | [`SealingAllocator`]: everything that a value owns, copied into pages of its own |
//! | `value_sys` | [`Sealed`]: values there, and snapshots of them that can be replaced |
//! | `fault_sys` | what a write to them leads to, and how it is told |
//! | `program` | the program's own code, constants and tables |
//! | `regions` | the table of what is sealed |
//!
//! A program takes the [`InitToken`] with a [`Policy`], fills its statics, keeps its values, and uses the token up by
//! [`InitToken::seal`]. Values are read-only from the moment they are made; statics from `seal` on. Under [`Policy::Kill`]
//! statics and kept values are also sealed for good (mseal(2), Linux 6.10) where the kernel knows how: no call of this
//! process can then make them writable, move or unmap them. Snapshots, which are to go one day, are not; neither is
//! anything under [`Policy::Warn`], which has to make pages writable.
//!
//! Sealed pages stay in core dumps: they hold tables, not secrets, and a dump after a violation is of no use without
//! them. The kernel itself respects the protection, too: a system call that is to write there fails with EFAULT.

mod arena_sys;
mod fault_sys;
mod program;
mod regions;
mod section_sys;
mod value_sys;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use arena_sys::SealingAllocator;
pub use regions::{Protection, Region, RegionKind};
pub use section_sys::SealedStatic;
use section_sys::settings;
pub use value_sys::{Sealed, seal_or_share};

/// What a write to sealed memory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is told, and the process aborts.
    Kill,
    /// It is told and counted, and that page becomes writable: for developers.
    Warn,
    /// Nothing is protected.
    Off,
}

impl Policy {
    fn current() -> Self {
        match settings().policy.load(Ordering::Relaxed) {
            1 => Self::Kill,
            2 => Self::Warn,
            _ => Self::Off,
        }
    }

    const fn bits(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Kill => 1,
            Self::Warn => 2,
        }
    }

    const fn protection(self) -> Protection {
        match self {
            Self::Off => Protection::None,
            Self::Warn => Protection::ReadOnly,
            Self::Kill => Protection::Final,
        }
    }
}

/// Why memory is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The token is taken once in a process.
    #[error("the initialisation of sealed memory was begun already")]
    Begun,
    /// It was not begun.
    #[error("sealed memory was not begun in this process")]
    NotBegun,
    /// The program has another allocator.
    #[error("this program has another allocator than the one that seals")]
    NoAllocator,
    /// The system refuses addresses, or they are used up.
    #[error("no addresses are left for sealed memory: raise the limit of address space (RLIMIT_AS), or seal nothing")]
    NoAddresses,
    /// The table of regions is full.
    #[error("too many sealed values are held at once")]
    TooMany,
    /// A copy of a value took more memory than another copy.
    #[error("{name} is larger each time it is copied and cannot be sealed")]
    Unsteady {
        /// Which value.
        name: String,
    },
    /// The system refuses to protect pages.
    #[error("the system refuses to protect memory: {0}")]
    Protect(#[source] io::Error),
    /// The handler of violations cannot be installed.
    #[error("the system refuses a handler for violations of sealed memory: {0}")]
    Handler(#[source] io::Error),
}

/// The right to write to sealed statics while the program is initialised. There is one in a process, and [`InitToken::seal`]
/// uses it up.
#[derive(Debug)]
pub struct InitToken(());

static TAKEN: AtomicBool = AtomicBool::new(false);
static UNSEALED: AtomicU64 = AtomicU64::new(0);

impl InitToken {
    /// Takes the token, and with it decides what violations lead to.
    pub fn take(policy: Policy) -> Result<Self, SealError> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(SealError::Begun);
        }
        settings().policy.store(policy.bits(), Ordering::Relaxed);
        if arena_sys::is_installed() {
            section_sys::set_window(arena_sys::reserve()?);
        }
        if policy != Policy::Off {
            fault_sys::install().map_err(SealError::Handler)?;
        }
        Ok(Self(()))
    }

    /// Has violations told as JSON objects, one a line.
    pub fn tell_as_json(&mut self) {
        settings().as_json.store(true, Ordering::Relaxed);
    }

    /// Ends the initialisation: statics are read-only from here on, and under [`Policy::Kill`] the program's own read-only
    /// pages are sealed with them.
    pub fn seal(self) -> Result<(), SealError> {
        // Under `warn` a page that was hit becomes writable: that must never be code.
        if Policy::current() == Policy::Kill {
            program::seal()?;
        }
        section_sys::seal(Policy::current().protection())
    }
}

/// Whether values can be sealed.
fn is_started() -> Result<(), SealError> {
    match section_sys::window() {
        _ if !TAKEN.load(Ordering::Acquire) => Err(SealError::NotBegun),
        (_, 0) => Err(SealError::NoAllocator),
        _ => Ok(()),
    }
}

/// Counts a value that went without protection. In programs that seal nothing that is no news.
fn went_without(error: &SealError) {
    if !matches!(error, SealError::NotBegun | SealError::NoAllocator) {
        UNSEALED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// What a violation leads to.
    pub policy: Policy,
    /// The regions, by address.
    pub regions: Vec<Region>,
    /// Regions that were sealed since the start.
    pub seals: u64,
    /// Values that had to go without.
    pub unsealed: u64,
    /// Writes to sealed memory.
    pub violations: u64,
}

/// What is sealed now.
pub fn report() -> MemoryReport {
    MemoryReport {
        policy: Policy::current(),
        regions: regions::list(),
        seals: regions::entered(),
        unsealed: UNSEALED.load(Ordering::Relaxed),
        violations: fault_sys::violations(),
    }
}

/// Bytes of a page.
pub(crate) fn page_bytes() -> usize {
    rustix::param::page_size()
}
