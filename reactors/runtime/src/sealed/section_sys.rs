//! Statics that are read-only once the program is initialised. They lie in an ELF section of their own; each one fills whole
//! pages, so the section begins and ends at page bounds and nothing else lies on its pages. The linker says where it is.
//!
//! JUSTIFICATION for unsafe: a static that changes during the initialisation needs a cell; its rule is kept by the
//! [`InitToken`], of which there is one, and which is used up when the section is sealed. The section's bounds are symbols of
//! the linker, and its name an attribute that can break the rules of linking.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::snapshot::Plain;

use super::arena_sys::{protect, seal_for_good};
use super::regions::{self, Protection, RegionKind};
use super::{InitToken, SealError, page_bytes};

/// A static that is read-only once the program is initialised, declared by [`sealed_static!`](crate::sealed_static): written
/// with the [`InitToken`] only, read by everybody after it is gone. Only what lies in the value itself is sealed: what it
/// keeps in the heap belongs into a [`Sealed`](super::Sealed).
// Pages have 4 KiB on x86-64 and up to 64 KiB elsewhere.
#[cfg_attr(target_arch = "x86_64", repr(C, align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C, align(65536)))]
pub struct SealedStatic<T> {
    header: Header,
    value: UnsafeCell<T>,
}

/// What begins each static of the section: a fault is told by its name.
#[repr(C)]
struct Header {
    name: &'static str,
    bytes: usize,
}

// SAFETY: it is written to only by the holder of the one token, through `&mut`, and read by others only after the token is
// gone, which they learn by an acquiring load.
unsafe impl<T: Send + Sync> Sync for SealedStatic<T> {}

impl<T: Plain> SealedStatic<T> {
    /// A static of this name. Only [`sealed_static!`](crate::sealed_static) puts it where it is sealed.
    pub const fn new(name: &'static str, value: T) -> Self {
        Self::internal(name, value)
    }

    /// Replaces the value.
    pub fn set(&self, token: &mut InitToken, value: T) {
        self.change(token, |place| *place = value);
    }

    /// Changes the value.
    pub fn change<R>(&self, token: &mut InitToken, change: impl FnOnce(&mut T) -> R) -> R {
        let _ = token;
        assert!(!self.is_sealed(), "the token is gone when statics are sealed");
        // SAFETY: there is one token, it is borrowed for as long as this reference lives, and nobody reads before it is gone.
        change(unsafe { &mut *self.value.get() })
    }

    /// The value.
    ///
    /// # Panics
    /// Before the statics are sealed: whoever reads then comes too early.
    #[inline]
    pub fn get(&self) -> &T {
        assert!(self.is_sealed(), "{} is read before it is sealed", self.header.name);
        // SAFETY: the token is gone: nothing writes to it any more.
        unsafe { &*self.value.get() }
    }

    fn is_sealed(&self) -> bool {
        SETTINGS.value().is_sealed.load(Ordering::Acquire)
    }
}

impl<T> SealedStatic<T> {
    const fn internal(name: &'static str, value: T) -> Self {
        Self { header: Header { name, bytes: size_of::<Self>() }, value: UnsafeCell::new(value) }
    }
}

/// Declares statics that are read-only once the program is initialised.
///
/// ```
/// use runtime::sealed::{self, InitToken, Policy};
///
/// runtime::sealed_static! {
///     /// How many drives a shelf has.
///     pub static SHELF: u32 = 24;
/// }
///
/// let mut token = InitToken::take(Policy::Kill)?;
/// SHELF.set(&mut token, 12);
/// token.seal()?;
/// assert_eq!(*SHELF.get(), 12);
/// # Ok::<(), runtime::sealed::SealError>(())
/// ```
///
/// It is not written to without the token:
///
/// ```compile_fail
/// runtime::sealed_static! { static SHELF: u32 = 24; }
/// *SHELF.get() = 12;
/// ```
///
/// nor with a token that was used up:
///
/// ```compile_fail
/// use runtime::sealed::{InitToken, Policy};
/// runtime::sealed_static! { static SHELF: u32 = 24; }
/// let mut token = InitToken::take(Policy::Kill).unwrap();
/// token.seal().unwrap();
/// SHELF.set(&mut token, 12);
/// ```
///
/// and it has no cell that could be written to in spite of that:
///
/// ```compile_fail
/// use std::sync::atomic::AtomicU32;
/// runtime::sealed_static! { static SHELF: AtomicU32 = AtomicU32::new(24); }
/// ```
#[macro_export]
macro_rules! sealed_static {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $value:expr;)*) => {
        $(
            $(#[$attribute])*
            // SAFETY: the section holds sealed statics only, all of which begin alike.
            #[unsafe(link_section = "brindle_sealed")]
            $visibility static $name: $crate::sealed::SealedStatic<$type> =
                $crate::sealed::SealedStatic::new(stringify!($name), $value);
        )*
    };
}

/// What the allocator and the fault handler go by. Written before there is anything to read it for, then sealed with the
/// rest: atomics only because other threads may allocate meanwhile.
pub(super) struct Settings {
    is_sealed: AtomicBool,
    window_start: AtomicUsize,
    window_bytes: AtomicUsize,
    /// The bits of the policy, see [`super::Policy`].
    pub(super) policy: AtomicUsize,
    /// Whether log lines are for machines.
    pub(super) as_json: AtomicBool,
    /// The earlier handler of faults, and whether it takes the details.
    pub(super) earlier: AtomicUsize,
    pub(super) earlier_flags: AtomicUsize,
}

// SAFETY: the section holds sealed statics only, all of which begin alike.
#[unsafe(link_section = "brindle_sealed")]
static SETTINGS: SealedStatic<Settings> = SealedStatic::internal(
    "SETTINGS",
    Settings {
        is_sealed: AtomicBool::new(false),
        window_start: AtomicUsize::new(0),
        window_bytes: AtomicUsize::new(0),
        policy: AtomicUsize::new(0),
        as_json: AtomicBool::new(false),
        earlier: AtomicUsize::new(0),
        earlier_flags: AtomicUsize::new(0),
    },
);

impl SealedStatic<Settings> {
    fn value(&self) -> &Settings {
        // SAFETY: nobody ever makes a unique reference to the settings; they change through their atomics.
        unsafe { &*self.value.get() }
    }
}

/// The settings.
pub(super) fn settings() -> &'static Settings {
    SETTINGS.value()
}

/// Where arenas lie: start and length, both zero before there are any.
#[inline]
pub(super) fn window() -> (usize, usize) {
    let settings = SETTINGS.value();
    (settings.window_start.load(Ordering::Relaxed), settings.window_bytes.load(Ordering::Relaxed))
}

/// Tells the allocator where arenas lie.
pub(super) fn set_window((start, bytes): (usize, usize)) {
    let settings = SETTINGS.value();
    settings.window_start.store(start, Ordering::Relaxed);
    settings.window_bytes.store(bytes, Ordering::Relaxed);
}

unsafe extern "C" {
    #[link_name = "__start_brindle_sealed"]
    static START: u8;
    #[link_name = "__stop_brindle_sealed"]
    static STOP: u8;
}

/// Where the section begins and ends.
pub(super) fn bounds() -> (usize, usize) {
    (&raw const START as usize, &raw const STOP as usize)
}

/// Seals the section; from here on statics are read.
pub(super) fn seal(wanted: Protection) -> Result<(), SealError> {
    let (start, stop) = bounds();
    let page = page_bytes();
    assert!(start.is_multiple_of(page) && stop.is_multiple_of(page), "sealed statics fill whole pages");
    // The settings are in there, too: this is the last that is written.
    SETTINGS.value().is_sealed.store(true, Ordering::Release);
    let mut granted = Protection::None;
    if wanted != Protection::None {
        protect(start, stop - start, libc::PROT_READ).map_err(SealError::Protect)?;
        granted = if wanted == Protection::Final { seal_for_good(start, stop - start) } else { Protection::ReadOnly };
    }
    regions::enter("statics", RegionKind::Statics, start, stop - start, granted).ok_or(SealError::TooMany)?;
    Ok(())
}

/// The static that an address of the section lies in: its name, and where it begins.
pub(super) fn static_at(address: usize) -> Option<(&'static str, usize)> {
    let (start, stop) = bounds();
    let mut at = start;
    while at < stop {
        // SAFETY: the section is a row of sealed statics, each as long as its header says; this is the next one's beginning.
        let header = unsafe { &*(at as *const Header) };
        // The section may be damaged where writing to it was allowed again: nothing is believed that leads astray.
        if header.bytes == 0 || header.bytes > stop - at || !header.bytes.is_multiple_of(align_of::<SealedStatic<()>>())
        {
            return None;
        }
        if address < at + header.bytes {
            return Some((header.name, at));
        }
        at += header.bytes;
    }
    None
}
