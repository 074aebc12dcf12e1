//! The table of sealed regions, as a signal handler can read it: a fixed number of places, all atomics, nothing that is
//! allocated or locked. A place is claimed, filled and then shown; whoever reads sees it whole or not at all.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Most regions at once: the statics, what was sealed at the start, and one for each snapshot that somebody holds.
pub(super) const MAX_REGIONS: usize = 512;

/// Longest name that is shown whole.
const NAME_BYTES: usize = 32;

/// Where a place begins while it is being filled: no address of memory.
const CLAIMED: usize = 1;

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// The statics of the program's section.
    Statics,
    /// A value that was sealed for good.
    Permanent,
    /// A value that goes with its last holder.
    Snapshot,
    /// Code, constants or tables of the program's file.
    Program,
}

/// What the system was told of a region, and has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// Nothing: sealing is off.
    None,
    /// It is read-only.
    ReadOnly,
    /// It is read-only, and no call can change that (mseal(2)).
    Final,
}

/// A sealed region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// What lies there.
    pub name: String,
    /// What it is.
    pub kind: RegionKind,
    /// Its first address.
    pub start: usize,
    /// How long it is, in whole pages.
    pub bytes: usize,
    /// How it is protected.
    pub protection: Protection,
    /// Pages that a violation made writable again.
    pub opened_pages: usize,
}

struct Place {
    /// 0: free.
    start: AtomicUsize,
    bytes: AtomicUsize,
    kind: AtomicU8,
    protection: AtomicU8,
    opened_pages: AtomicUsize,
    name: [AtomicU64; NAME_BYTES / 8],
}

static TABLE: [Place; MAX_REGIONS] = [const { Place::empty() }; MAX_REGIONS];

/// Regions that were entered since the start.
static ENTERED: AtomicU64 = AtomicU64::new(0);

/// A place in the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry(usize);

/// What an address hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    place: usize,
    /// The first address of the region.
    pub(super) start: usize,
    /// Whether it is in the page before or behind the region.
    pub(super) is_guard: bool,
    /// What the region is.
    pub(super) kind: RegionKind,
}

impl Place {
    const fn empty() -> Self {
        Self {
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            kind: AtomicU8::new(0),
            protection: AtomicU8::new(0),
            opened_pages: AtomicUsize::new(0),
            name: [const { AtomicU64::new(0) }; NAME_BYTES / 8],
        }
    }

    fn name(&self) -> [u8; NAME_BYTES] {
        let mut bytes = [0; NAME_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(&self.name) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        bytes
    }

    fn kind(&self) -> RegionKind {
        match self.kind.load(Ordering::Relaxed) {
            0 => RegionKind::Statics,
            1 => RegionKind::Permanent,
            2 => RegionKind::Snapshot,
            _ => RegionKind::Program,
        }
    }

    fn protection(&self) -> Protection {
        match self.protection.load(Ordering::Relaxed) {
            0 => Protection::None,
            1 => Protection::ReadOnly,
            _ => Protection::Final,
        }
    }

    fn region(&self) -> Option<Region> {
        let start = self.start.load(Ordering::Acquire);
        let name = self.name();
        let region = Region {
            name: String::from_utf8_lossy(text(&name)).into_owned(),
            kind: self.kind(),
            start,
            bytes: self.bytes.load(Ordering::Relaxed),
            protection: self.protection(),
            opened_pages: self.opened_pages.load(Ordering::Relaxed),
        };
        // One that goes meanwhile is left out: addresses are never used again, so the same start is the same region.
        (start > CLAIMED && self.start.load(Ordering::Acquire) == start).then_some(region)
    }
}

/// Enters a region; none if the table is full.
pub(super) fn enter(name: &str, kind: RegionKind, start: usize, bytes: usize, protection: Protection) -> Option<Entry> {
    assert!(start > CLAIMED && bytes > 0, "a region has an address and a length");
    let claimed =
        |place: &Place| place.start.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok();
    let index = TABLE.iter().position(claimed)?;
    let place = &TABLE[index];
    place.bytes.store(bytes, Ordering::Relaxed);
    place.kind.store(kind as u8, Ordering::Relaxed);
    place.protection.store(protection as u8, Ordering::Relaxed);
    place.opened_pages.store(0, Ordering::Relaxed);
    let mut bytes = [0; NAME_BYTES];
    let length = (0..=name.len().min(NAME_BYTES)).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    for (word, chunk) in place.name.iter().zip(bytes.as_chunks::<8>().0) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    place.start.store(start, Ordering::Release);
    ENTERED.fetch_add(1, Ordering::Relaxed);
    Some(Entry(index))
}

/// Frees a place.
#[expect(clippy::needless_pass_by_value, reason = "the entry ends here")]
pub(super) fn leave(entry: Entry) {
    TABLE[entry.0].start.store(0, Ordering::Release);
}

/// The region that an address belongs to, its guard pages included.
pub(super) fn find(address: usize, page: usize) -> Option<Hit> {
    TABLE.iter().enumerate().find_map(|(index, place)| {
        let start = place.start.load(Ordering::Acquire);
        if start <= CLAIMED {
            return None;
        }
        let kind = place.kind();
        let bytes = place.bytes.load(Ordering::Relaxed);
        // What lies beside the parts of the program's file is not ours.
        let guard = if matches!(kind, RegionKind::Statics | RegionKind::Program) { 0 } else { page };
        let is_guard = !(start..start + bytes).contains(&address);
        let found = (start - guard..start + bytes + guard).contains(&address);
        found.then_some(Hit { place: index, start, is_guard, kind })
    })
}

/// Notes that one page of a region is writable again.
pub(super) fn opened(hit: Hit) {
    TABLE[hit.place].opened_pages.fetch_add(1, Ordering::Relaxed);
}

/// The name of a region that was hit, into `bytes`.
pub(super) fn name(hit: Hit, bytes: &mut [u8; NAME_BYTES]) -> &[u8] {
    *bytes = TABLE[hit.place].name();
    text(bytes)
}

fn text(bytes: &[u8; NAME_BYTES]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
    &bytes[..end]
}

/// All regions, by address.
pub(super) fn list() -> Vec<Region> {
    let mut regions: Vec<Region> = TABLE.iter().filter_map(Place::region).collect();
    regions.sort_by_key(|region| region.start);
    regions
}

/// Regions that were entered since the start.
pub(super) fn entered() -> u64 {
    ENTERED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// Addresses that no other test uses.
    const BASE: usize = 1 << 60;

    #[test]
    fn what_was_entered_is_found_with_its_guard_pages_until_it_leaves() {
        let entry = enter("exports", RegionKind::Snapshot, BASE, 2 * PAGE, Protection::ReadOnly).unwrap();
        let hit = find(BASE + PAGE + 5, PAGE).unwrap();
        assert!(!hit.is_guard && hit.start == BASE);
        assert_eq!(name(hit, &mut [0; NAME_BYTES]), b"exports");
        assert!(find(BASE - 1, PAGE).unwrap().is_guard && find(BASE + 2 * PAGE, PAGE).unwrap().is_guard);
        assert_eq!(find(BASE - PAGE - 1, PAGE), None);
        assert_eq!(find(BASE + 3 * PAGE, PAGE), None);
        opened(hit);
        let region = list().into_iter().find(|region| region.start == BASE).unwrap();
        assert_eq!((region.name.as_str(), region.bytes, region.opened_pages), ("exports", 2 * PAGE, 1));
        assert_eq!((region.kind, region.protection), (RegionKind::Snapshot, Protection::ReadOnly));
        leave(entry);
        assert_eq!(find(BASE + 5, PAGE), None);
    }

    #[test]
    fn a_full_table_says_so_and_long_names_are_cut() {
        let at = |index: usize| 2 * BASE + 4 * index * PAGE;
        let long = "é".repeat(NAME_BYTES);
        let entries: Vec<Entry> = (0..MAX_REGIONS)
            .map_while(|index| enter(&long, RegionKind::Permanent, at(index), PAGE, Protection::Final))
            .collect();
        assert!(entries.len() > MAX_REGIONS / 2, "other tests hold a few");
        assert!(enter("one more", RegionKind::Permanent, at(MAX_REGIONS), PAGE, Protection::Final).is_none());
        let hit = find(at(0), PAGE).unwrap();
        assert_eq!(name(hit, &mut [0; NAME_BYTES]), "é".repeat(NAME_BYTES / 2).as_bytes());
        for entry in entries {
            leave(entry);
        }
        assert_eq!(find(at(0), PAGE), None);
    }
}
