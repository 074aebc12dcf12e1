//! The stripe cache: every block that the log holds and the members do not yet, by stripe.
//!
//! A block's versions pass through three states. *Logging*: in a record that is not durable yet, invisible to reads.
//! *Durable*: the newest that a crash cannot take back; a later one replaces it. *Frozen*: part of the destage under way,
//! unchanged until that destage is recorded, while newer versions may become durable beside it. So a column has at most one
//! durable and one frozen version, and a read takes the durable one before the frozen one.
//!
//! The content of a durable version may leave memory ([`super::residency`]): then the log alone has it.
//!
//! Tables are bounded and allocate when they are made. The price of the small index is a walk along a stripe's versions,
//! which are few.

mod content;
mod lists;

#[allow(
    clippy::disallowed_types,
    reason = "looked up by key alone, never iterated, hashed without a process's secret"
)]
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use base::ids::{LaneId, StripeId};
use base::slab::Key;
use base::time::Time;
use ports::Buffer;

pub(crate) use content::Content;
pub(crate) use lists::{Listed, StripeLists};

use super::destage::Destage;

/// The place of a stripe in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StripeRef(u32);

/// The place of a version in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionRef(u32);

const NONE: u32 = u32::MAX;

/// How far a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionState {
    Logging,
    Durable,
    Frozen,
}

/// One content of one block.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) column: u8,
    pub(crate) state: VersionState,
    pub(crate) content: Content,
    /// The log record that holds it, once that is on its way.
    pub(crate) sequence: u64,
    /// The checksum of the content and its place among the record's blocks, if that has any.
    pub(crate) crc: u32,
    pub(crate) place: u8,
    stripe: u32,
    next: u32,
}

impl Version {
    /// It is on its way into the log with a record, and its content is this block of it.
    pub(crate) fn logged_at(&mut self, sequence: u64, crc: u32, place: usize) {
        (self.sequence, self.crc, self.place) = (sequence, crc, u8::try_from(place).expect("a record is short"));
    }
}

/// A stripe with anything in the log.
#[derive(Debug)]
pub(crate) struct Stripe {
    pub(crate) id: StripeId,
    pub(crate) lane: LaneId,
    /// Columns with a durable version.
    pub(crate) durable: u32,
    /// Columns with a frozen version.
    pub(crate) frozen: u32,
    /// Versions on their way into the log.
    pub(crate) logging: u32,
    /// When the oldest durable version became so.
    pub(crate) since: Time,
    /// The destage under way.
    pub(crate) destage: Option<Key<Destage>>,
    /// Whether log space is set aside for destaging what is not frozen.
    pub(crate) reserved: bool,
    /// Whether recovery found it in the log, and it has not gone to the members since: they may hold parts of it.
    pub(crate) recovered: bool,
    /// Slots whose old content could not be had when it was last to be destaged, as a bit mask; 0 if that could be done.
    pub(crate) lost: u32,
    /// Columns that it was to be destaged with then.
    pub(crate) tried: u32,
    /// Not before then is it tried again for its age.
    pub(crate) retry_at: Time,
    /// Durable and frozen versions whose content the log alone has.
    pub(crate) logged: u32,
    /// Versions that are being logged again, or read back into memory: no destage begins.
    pub(crate) again: u32,
    /// When all its columns had become dirty.
    pub(crate) full_since: Time,
    /// Whether it stands in the queue of full stripes.
    pub(crate) queued_full: bool,
    versions: u32,
    waiters: u32,
    waiters_frozen: u32,
    older: u32,
    younger: u32,
    /// The list that it stands in.
    pub(crate) listed: Option<Listed>,
}

/// A write-through fragment that waits for a stripe to reach the members.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    fragment: u64,
    next: u32,
}

/// A first-in first-out list of stripes, linked through the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirtyList {
    oldest: u32,
    youngest: u32,
}

impl Default for DirtyList {
    fn default() -> Self {
        Self { oldest: NONE, youngest: NONE }
    }
}

impl DirtyList {
    pub(crate) fn oldest(&self) -> Option<StripeRef> {
        (self.oldest != NONE).then_some(StripeRef(self.oldest))
    }
}

/// Multiplies: stripe numbers are dense and of our own making.
#[derive(Default)]
pub(crate) struct StripeHasher(u64);

impl Hasher for StripeHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// Memory that the tables take for each block that may be held, in bytes, if no two are of one stripe: the versions, the stripes and
/// their index with twice the places, waiters, lists of what is free, and the queue of full stripes.
pub const BYTES_A_BLOCK: usize = size_of::<Option<Version>>()
    + size_of::<Option<Stripe>>()
    + 2 * (size_of::<(u64, u32)>() + 1) * 8 / 7
    + size_of::<Waiter>()
    + 4 * size_of::<u32>();

/// The tables.
#[derive(Debug)]
#[allow(clippy::disallowed_types, reason = "as above")]
pub(crate) struct Stripes {
    index: HashMap<u64, u32, BuildHasherDefault<StripeHasher>>,
    stripes: Vec<Option<Stripe>>,
    free: Vec<u32>,
    versions: Vec<Option<Version>>,
    free_versions: Vec<u32>,
    waiters: Vec<Waiter>,
    free_waiters: Vec<u32>,
    /// Waiters promised to versions that are on their way into the log. A version that is replaced leaves its waiter behind,
    /// so waiters can run out before versions do.
    promised_waiters: usize,
    /// Versions that are frozen.
    frozen: usize,
    /// Contents that may be in memory, those that are, and those that the log alone has.
    memory: usize,
    resident: usize,
    logged: usize,
}

impl Stripes {
    /// Tables for `versions` blocks, hence at most as many stripes, with room for the contents of `memory` of them.
    #[allow(clippy::disallowed_types, reason = "as above")]
    pub(crate) fn new(versions: usize, memory: usize) -> Self {
        let count = u32::try_from(versions).expect("fewer than 2^32 versions");
        Self {
            index: HashMap::with_capacity_and_hasher(2 * versions, BuildHasherDefault::default()),
            stripes: (0..versions).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            versions: (0..versions).map(|_| None).collect(),
            free_versions: (0..count).rev().collect(),
            waiters: vec![Waiter { fragment: 0, next: NONE }; versions],
            free_waiters: (0..count).rev().collect(),
            promised_waiters: 0,
            frozen: 0,
            memory,
            resident: 0,
            logged: 0,
        }
    }

    /// Versions that may still be added; each has room for a stripe and a waiter too.
    pub(crate) fn room(&self) -> usize {
        let versions = self.free_versions.len().min(self.free_waiters.len() - self.promised_waiters);
        versions.min(self.free.len()).min(self.memory.saturating_sub(self.resident))
    }

    /// Versions held.
    pub(crate) fn held(&self) -> usize {
        self.versions.len() - self.free_versions.len()
    }

    /// Versions held that are not on their way to the members.
    pub(crate) fn waiting(&self) -> usize {
        self.held() - self.frozen
    }

    /// Takes all content away, at the very end.
    pub(crate) fn take_buffers(&mut self) -> impl Iterator<Item = Buffer> {
        self.versions.iter_mut().flatten().filter_map(|version| version.content.take_buffer())
    }

    /// Versions that may be held.
    pub(crate) fn capacity(&self) -> usize {
        self.versions.len()
    }

    /// Stripes held.
    pub(crate) fn stripes_held(&self) -> usize {
        self.stripes.len() - self.free.len()
    }

    pub(crate) fn find(&self, id: StripeId) -> Option<StripeRef> {
        self.index.get(&id.0).copied().map(StripeRef)
    }

    pub(crate) fn get(&self, at: StripeRef) -> &Stripe {
        self.stripes[at.0 as usize].as_ref().expect("a reference to a live stripe")
    }

    pub(crate) fn get_mut(&mut self, at: StripeRef) -> &mut Stripe {
        self.stripes[at.0 as usize].as_mut().expect("a reference to a live stripe")
    }

    pub(crate) fn version(&self, at: VersionRef) -> &Version {
        self.versions[at.0 as usize].as_ref().expect("a reference to a live version")
    }

    pub(crate) fn version_mut(&mut self, at: VersionRef) -> &mut Version {
        self.versions[at.0 as usize].as_mut().expect("a reference to a live version")
    }

    pub(crate) fn stripe_of(&self, at: VersionRef) -> StripeRef {
        StripeRef(self.version(at).stripe)
    }

    /// The stripe's entry, made if there is none.
    pub(crate) fn find_or_add(&mut self, id: StripeId, lane: LaneId) -> StripeRef {
        if let Some(at) = self.find(id) {
            return at;
        }
        let at = self.free.pop().expect("room was looked for");
        self.index.insert(id.0, at);
        self.stripes[at as usize] = Some(Stripe {
            id,
            lane,
            durable: 0,
            frozen: 0,
            logging: 0,
            since: Time::NEVER,
            destage: None,
            reserved: false,
            recovered: false,
            lost: 0,
            tried: 0,
            retry_at: Time(0),
            logged: 0,
            again: 0,
            full_since: Time::NEVER,
            queued_full: false,
            versions: NONE,
            waiters: NONE,
            waiters_frozen: NONE,
            older: NONE,
            younger: NONE,
            listed: None,
        });
        StripeRef(at)
    }

    /// Adds a version on its way into the log.
    pub(crate) fn add(&mut self, stripe: StripeRef, column: u8, content: Content) -> VersionRef {
        self.count(stripe, &content, true);
        let at = self.free_versions.pop().expect("room was looked for");
        let entry = self.get_mut(stripe);
        entry.logging += 1;
        let next = core::mem::replace(&mut entry.versions, at);
        let state = VersionState::Logging;
        let (sequence, crc, place, stripe) = (0, 0, 0, stripe.0);
        self.versions[at as usize] = Some(Version { column, state, content, sequence, crc, place, stripe, next });
        VersionRef(at)
    }

    /// A version has become durable. The one that it replaces is handed back, with its record's sequence.
    pub(crate) fn became_durable(&mut self, at: VersionRef, now: Time) -> Option<(u64, Content)> {
        let (stripe, column) = {
            let version = self.version_mut(at);
            assert_eq!(version.state, VersionState::Logging, "a version becomes durable once");
            (StripeRef(version.stripe), version.column)
        };
        let replaced = self.with_state(stripe, column, VersionState::Durable);
        let removed = replaced.map(|old| {
            let version = self.unlink(old);
            (version.sequence, version.content)
        });
        self.version_mut(at).state = VersionState::Durable;
        let entry = self.get_mut(stripe);
        entry.logging -= 1;
        if entry.durable == 0 {
            entry.since = now;
        }
        entry.durable |= 1 << column;
        removed
    }

    /// A version on its way into the log does not count after all: its record's sequence and its content.
    pub(crate) fn drop_logging(&mut self, at: VersionRef) -> (u64, Content) {
        let stripe = self.stripe_of(at);
        let version = self.unlink(at);
        assert_eq!(version.state, VersionState::Logging, "nobody has seen it");
        self.get_mut(stripe).logging -= 1;
        (version.sequence, version.content)
    }

    /// Whether nothing is held of a stripe, and none of it is on its way to the members.
    pub(crate) fn is_empty(&self, id: StripeId) -> bool {
        self.find(id).is_none_or(|at| self.get(at).versions == NONE && self.get(at).destage.is_none())
    }

    /// The oldest version of a column that is on its way into the log by the record of this sequence; with 0, by one that has
    /// not been sent.
    pub(crate) fn oldest_logging(&self, stripe: StripeRef, column: u8, sequence: u64) -> VersionRef {
        let is_meant = |&at: &VersionRef| {
            let version = self.version(at);
            version.column == column && version.state == VersionState::Logging && version.sequence == sequence
        };
        self.versions_of(stripe).filter(is_meant).last().expect("what is logged of a block has its version")
    }

    /// Whether a version of a column is on its way into the log.
    pub(crate) fn is_logging(&self, id: StripeId, column: u8) -> bool {
        self.any_version(id, column, |version| version.state == VersionState::Logging)
    }

    /// Whether any version of a column is held, in whatever state.
    pub(crate) fn holds(&self, id: StripeId, column: u8) -> bool {
        self.any_version(id, column, |_| true)
    }

    fn any_version(&self, id: StripeId, column: u8, is: impl Fn(&Version) -> bool) -> bool {
        let is_meant = |at| self.version(at).column == column && is(self.version(at));
        self.find(id).is_some_and(|stripe| self.versions_of(stripe).any(is_meant))
    }

    fn with_state(&self, stripe: StripeRef, column: u8, state: VersionState) -> Option<VersionRef> {
        self.versions_of(stripe).find(|&at| self.version(at).column == column && self.version(at).state == state)
    }

    /// Whether all that is held is on its way into the log, and nothing there yet.
    pub(crate) fn are_all_logging(&self) -> bool {
        self.versions.iter().flatten().all(|version| version.state == VersionState::Logging)
    }

    /// What a read of a column gets: the durable version, else the frozen one.
    pub(crate) fn readable(&self, stripe: StripeRef, column: u8) -> Option<&Version> {
        let entry = self.get(stripe);
        let state = if entry.durable & 1 << column != 0 {
            VersionState::Durable
        } else if entry.frozen & 1 << column != 0 {
            VersionState::Frozen
        } else {
            return None;
        };
        let found = self.with_state(stripe, column, state).map(|at| self.version(at));
        assert!(found.is_some(), "the masks tell the truth");
        found
    }

    /// The frozen version of a column.
    pub(crate) fn frozen(&self, stripe: StripeRef, column: u8) -> Option<&Version> {
        self.with_state(stripe, column, VersionState::Frozen).map(|at| self.version(at))
    }

    /// Whether all frozen versions are zeros.
    pub(crate) fn frozen_is_zero(&self, stripe: StripeRef) -> bool {
        let mut versions = self.versions_of(stripe).map(|at| self.version(at));
        versions.all(|version| version.state != VersionState::Frozen || version.content.is_zero())
    }

    /// Freezes all durable versions; the highest sequence among them.
    pub(crate) fn freeze(&mut self, stripe: StripeRef) -> u64 {
        let mut highest = 0;
        let mut at = self.get(stripe).versions;
        while at != NONE {
            let version = self.version_mut(VersionRef(at));
            if version.state == VersionState::Durable {
                version.state = VersionState::Frozen;
                highest = highest.max(version.sequence);
            }
            at = version.next;
        }
        self.frozen += self.get(stripe).durable.count_ones() as usize;
        let entry = self.get_mut(stripe);
        assert!(entry.frozen == 0 && entry.waiters_frozen == NONE, "one destage at a time");
        entry.frozen = core::mem::take(&mut entry.durable);
        entry.since = Time::NEVER;
        entry.waiters_frozen = core::mem::replace(&mut entry.waiters, NONE);
        highest
    }

    /// Takes a freeze back. A frozen version beside which there is a newer one is taken out: its record's sequence and its
    /// content. When there is none, the others are durable again, the oldest of them since then.
    pub(crate) fn thaw(&mut self, stripe: StripeRef, since: Time) -> Option<(u64, Content)> {
        let mut at = self.get(stripe).versions;
        while at != NONE {
            let durable = self.get(stripe).durable;
            let version = self.version(VersionRef(at));
            let (column, next) = (version.column, version.next);
            if version.state == VersionState::Frozen {
                self.frozen -= 1;
                if durable & 1 << column != 0 {
                    self.get_mut(stripe).frozen &= !(1 << column);
                    let version = self.unlink(VersionRef(at));
                    return Some((version.sequence, version.content));
                }
                self.version_mut(VersionRef(at)).state = VersionState::Durable;
                let entry = self.get_mut(stripe);
                (entry.frozen, entry.durable) = (entry.frozen & !(1 << column), entry.durable | 1 << column);
            }
            at = next;
        }
        let entry = self.get_mut(stripe);
        assert!(entry.frozen == 0 && entry.durable != 0, "all of it is dirty again");
        entry.since = entry.since.min(since);
        None
    }

    /// Takes out one frozen version, if there is one left: its record's sequence and its content.
    pub(crate) fn take_frozen(&mut self, stripe: StripeRef) -> Option<(u64, Content)> {
        let mut at = self.get(stripe).versions;
        while at != NONE {
            let version = self.version(VersionRef(at));
            if version.state == VersionState::Frozen {
                let version = self.unlink(VersionRef(at));
                self.frozen -= 1;
                self.get_mut(stripe).frozen &= !(1 << version.column);
                return Some((version.sequence, version.content));
            }
            at = version.next;
        }
        None
    }

    fn unlink(&mut self, at: VersionRef) -> Version {
        let version = self.versions[at.0 as usize].take().expect("a reference to a live version");
        self.free_versions.push(at.0);
        let stripe = StripeRef(version.stripe);
        self.count(stripe, &version.content, false);
        if self.get(stripe).versions == at.0 {
            self.get_mut(stripe).versions = version.next;
        } else {
            let mut before = self.get(stripe).versions;
            loop {
                let next = self.version(VersionRef(before)).next;
                if next == at.0 {
                    break;
                }
                before = next;
            }
            self.version_mut(VersionRef(before)).next = version.next;
        }
        version
    }

    /// Forgets a stripe of which nothing is left; whether it was so.
    pub(crate) fn forget_if_empty(&mut self, stripe: StripeRef) -> bool {
        let entry = self.get(stripe);
        if entry.versions != NONE || entry.destage.is_some() || entry.queued_full || entry.again > 0 {
            return false;
        }
        assert!(entry.listed.is_none() && !entry.reserved, "an empty stripe stands in no list and keeps no log space");
        assert!(entry.waiters == NONE && entry.waiters_frozen == NONE, "nobody waits for an empty stripe");
        let id = entry.id.0;
        self.index.remove(&id);
        self.stripes[stripe.0 as usize] = None;
        self.free.push(stripe.0);
        true
    }

    /// Versions of a lane that stand in a record which has been sent, for checks.
    pub(crate) fn in_log(&self, lane: LaneId) -> u64 {
        let sent = self.versions.iter().flatten().filter(|version| version.sequence > 0);
        sent.filter(|version| self.get(StripeRef(version.stripe)).lane == lane).count() as u64
    }

    /// Keeps waiters for the blocks of a write-through fragment that is being admitted.
    pub(crate) fn promise_waiters(&mut self, blocks: usize) {
        self.promised_waiters += blocks;
        assert!(self.promised_waiters <= self.free_waiters.len(), "room was looked for");
    }

    /// Lets a write-through fragment wait for the stripe's next destage.
    pub(crate) fn wait(&mut self, stripe: StripeRef, fragment: u64) {
        self.promised_waiters -= 1;
        let at = self.free_waiters.pop().expect("a waiter for each version");
        let next = core::mem::replace(&mut self.get_mut(stripe).waiters, at);
        self.waiters[at as usize] = Waiter { fragment, next };
    }

    /// Takes one of those who waited for the destage under way.
    pub(crate) fn take_waiter(&mut self, stripe: StripeRef) -> Option<u64> {
        let at = self.get(stripe).waiters_frozen;
        if at == NONE {
            return None;
        }
        let Waiter { fragment, next } = self.waiters[at as usize];
        self.get_mut(stripe).waiters_frozen = next;
        self.free_waiters.push(at);
        Some(fragment)
    }
}
