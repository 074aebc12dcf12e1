//! Checksum blocks of the members, as far as they are at hand: a bounded table of those that are needed now or were lately.
//! What an entry means is `raid::checksum`'s affair.
//!
//! Whoever reads from a member takes the checksum blocks of what it reads first and keeps them until it has compared. Whoever
//! writes to a member sets the entries at the moment at which its writes are given out, and waits for the checksum blocks like for
//! the rest; the members' flush covers both. One write of a checksum block is under way at a time: entries that are set meanwhile
//! go with the next.
//!
//! No entry that anybody compares with changes under him: what is read from a member is not changed by a destage until the read
//! has ended, ranges of walks are locked, and mends keep others off their stripe.
//!
//! All that is wanted for a step is taken at once or not at all, and is kept only while device operations are under way, so nobody
//! waits for places with some in his hands. Half of the places are for hosts' reads and half for all else, lest one starve the
//! other; a block that is at hand serves both.
//!
//! What a crash leaves: entries of stripes that are in the log may be old or new, as their blocks may be. Nobody compares these:
//! the log has them, and they are written again with their entries. All other entries are what they were, since a checksum block
//! that was torn passes by sectors.

#[allow(
    clippy::disallowed_types,
    reason = "looked up by key alone, never iterated, hashed without a process's secret"
)]
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use base::ids::{DeviceBlock, DeviceId, Slot, StripeId, ZoneId};
use base::slab::Key;
use base::time::Time;
use ports::{Buffer, BufferId, DeviceError, DeviceOp, Ports};
use raid::checksum::{self, Checksummed, Entry};
use raid::slots;

use super::destage::Destage;
use super::detained::Home;
use super::mend::Mend;
use super::stripes::StripeHasher;
use super::{ArrayShard, Purpose, Work};
use crate::limits::MEMBERS_TO_COME;
use crate::map::ArrayMap;

/// Fewest places that do: several steps of any kind find all that they need at once.
pub(crate) const fn min_places(members: usize) -> usize {
    16 * members + 16
}

/// Writes of checksum blocks under way at a time.
const fn writes(members: usize) -> usize {
    2 * members + 4
}

/// Buffers that each shard's part of an array of so many members sets aside if it keeps checksums and has so many checksum blocks at
/// hand.
pub const fn set_aside_blocks(places: usize, members: usize) -> usize {
    let members = members + MEMBERS_TO_COME;
    let least = min_places(members);
    writes(members) + if places > least { places } else { least }
}

/// Who waits for a checksum block to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    Destage(Key<Destage>),
    Mend(Key<Mend>),
    /// A range of a walk.
    Range(u8),
}

/// For whom a place is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A host's read.
    Read,
    /// All else.
    Other,
}

/// What comparing a block with its entry gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Right,
    Wrong,
    /// Its checksum is lost.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Loading,
    Ready,
}

/// A checksum block at hand.
#[derive(Debug)]
struct Place {
    slot: Slot,
    /// Whose its entries are, and where it lies.
    of: Checksummed,
    location: (DeviceId, DeviceBlock),
    /// Its place in the member's region.
    at: u64,
    state: State,
    buffer: Option<Buffer>,
    /// How many compare with it.
    pins: u32,
    touched: Time,
    /// Its member has gone: it is dropped as soon as nobody uses it.
    orphaned: bool,
    /// Its device has another slot now: what was set here goes to it yet, and nobody reads the block again before.
    retiring: bool,
    /// Entries were set that no write carries yet.
    changed: bool,
    /// Someone needs them durable without a flush.
    durable: bool,
    /// What the write under way carries.
    writing: Option<Buffer>,
    /// Who waits for the next write, and for the one under way.
    next: Vec<Waiter>,
    flying: Vec<Waiter>,
}

impl Place {
    fn new() -> Self {
        Self {
            slot: Slot(0),
            of: Checksummed { array: base::uuid::Uuid::NIL, slot: Slot(0) },
            location: (DeviceId(0), DeviceBlock(0)),
            at: 0,
            state: State::Free,
            buffer: None,
            pins: 0,
            touched: Time(0),
            orphaned: false,
            retiring: false,
            changed: false,
            durable: false,
            writing: None,
            next: Vec::new(),
            flying: Vec::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.state != State::Loading && self.pins == 0 && !self.changed && self.writing.is_none()
    }

    fn key(&self) -> u64 {
        key_of(self.slot, self.at)
    }
}

fn key_of(slot: Slot, at: u64) -> u64 {
    u64::from(slot.0) << 56 | at
}

/// The table.
#[derive(Debug)]
#[allow(clippy::disallowed_types, reason = "as above")]
pub(crate) struct Checksums {
    index: HashMap<u64, u32, BuildHasherDefault<StripeHasher>>,
    places: Vec<Place>,
    /// Places with entries that are to be written.
    to_write: VecDeque<u32>,
    /// Buffers for writes.
    spare: Vec<Buffer>,
    writes: usize,
}

impl Checksums {
    /// A table of so many places; of an array without checksums there is none.
    #[allow(clippy::disallowed_types, reason = "as above")]
    pub(crate) fn new(map: &ArrayMap, places: usize) -> Self {
        let members = map.members.len() + MEMBERS_TO_COME;
        let (places, writes) = if map.checksums { (places.max(min_places(members)), writes(members)) } else { (0, 0) };
        Self {
            index: HashMap::with_capacity_and_hasher(2 * places, BuildHasherDefault::default()),
            places: (0..places).map(|_| Place::new()).collect(),
            to_write: VecDeque::with_capacity(places),
            spare: Vec::with_capacity(writes),
            writes,
        }
    }

    /// Takes its buffers.
    pub(crate) fn prepare<P: Ports>(&mut self, ports: &mut P) {
        for place in &mut self.places {
            place.buffer = Some(ports.alloc().expect("the pool was sized with what every array sets aside"));
        }
        while self.spare.len() < self.writes {
            self.spare.push(ports.alloc().expect("the pool was sized with what every array sets aside"));
        }
    }

    /// Gives them back, but for those that a device which was given up may still write into.
    pub(crate) fn release<P: Ports>(&mut self, ports: &mut P, is_held: impl Fn(&Buffer) -> bool) {
        let places = self.places.iter_mut().flat_map(|place| [place.buffer.take(), place.writing.take()]);
        let buffers = places.flatten().chain(self.spare.drain(..));
        buffers.filter(|buffer| !is_held(buffer)).for_each(|buffer| ports.free(buffer));
    }

    /// Whether nothing is to be written or under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.to_write.is_empty() && self.spare.len() == self.writes
    }

    fn find(&self, slot: Slot, at: u64) -> Option<u32> {
        self.index.get(&key_of(slot, at)).copied()
    }

    /// Whether a device has a checksum block in the making from when it was a successor.
    fn retires(&self, device: DeviceId, at: u64, successor: Slot) -> bool {
        self.find(successor, at).is_some_and(|found| {
            let place = &self.places[found as usize];
            place.retiring && place.location.0 == device
        })
    }

    fn place(&mut self, at: u32) -> &mut Place {
        &mut self.places[at as usize]
    }

    fn free(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        let key = place.key();
        place.state = State::Free;
        (place.orphaned, place.retiring) = (false, false);
        self.index.remove(&key);
    }

    /// A place for another block: a free one, or the one that nobody has needed for longest. Not one that was needed now, nor
    /// one whose buffer a device that was given up may still write into.
    fn make_room(&self, need: Need, now: Time, is_held: impl Fn(BufferId) -> bool) -> Option<u32> {
        let half = self.places.len() / 2;
        let range = if need == Need::Read { 0..half } else { half..self.places.len() };
        let evictable = range.filter(|&at| {
            let place = &self.places[at];
            let buffer = place.buffer.as_ref().expect("it was set aside").id();
            (place.state == State::Free || place.is_idle() && place.touched != now) && !is_held(buffer)
        });
        let oldest = |&at: &usize| {
            let place = &self.places[at];
            (place.state != State::Free, place.touched)
        };
        evictable.min_by_key(oldest).map(|at| at as u32)
    }

    /// Compares a block of a member with its entry, which is at hand.
    pub(crate) fn check<P: Ports>(
        &self,
        ports: &P,
        map: &ArrayMap,
        (slot, stripe): (Slot, StripeId),
        block: BufferId,
    ) -> Check {
        let zone_stripes = map.arrangement.zone_stripes();
        let found = self.find(slot, checksum::block_of(stripe, zone_stripes)).expect("it is at hand");
        let place = &self.places[found as usize];
        assert_eq!(place.state, State::Ready, "it is at hand");
        let entries = ports.bytes(place.buffer.as_ref().expect("it was set aside").id());
        let entry = checksum::entry_of(entries, stripe, zone_stripes);
        if !entry.is_known() {
            Check::Unknown
        } else if of(map, slot).matches(entry, stripe, ports.bytes(block)) {
            Check::Right
        } else {
            Check::Wrong
        }
    }

    fn changed(&mut self, at: u32, waiter: Option<Waiter>) {
        let place = &mut self.places[at as usize];
        place.next.extend(waiter);
        place.durable |= !matches!(waiter, Some(Waiter::Destage(_)));
        if !core::mem::replace(&mut place.changed, true) && place.writing.is_none() {
            self.to_write.push_back(at);
        }
    }
}

/// Whose blocks those of a slot are.
pub(crate) fn of(map: &ArrayMap, slot: Slot) -> Checksummed {
    Checksummed { array: map.uuid, slot: map.place_of(slot) }
}

impl ArrayShard {
    fn checksum_block(&self, stripe: StripeId) -> u64 {
        checksum::block_of(stripe, self.map.arrangement.zone_stripes())
    }

    /// Whether the checksum blocks of a stripe are at hand, of all these slots; what is not is on its way then, as far as there are
    /// places.
    pub(crate) fn have_checksums<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        need: Need,
        stripe: StripeId,
        of: u32,
    ) -> bool {
        let at = self.checksum_block(stripe);
        // All are asked for, whatever the first says.
        slots(of).filter(|slot| !self.have_checksum(work, need, *slot, at)).count() == 0
    }

    /// The same, and keeps them until [`Self::leave_checksums`].
    pub(crate) fn take_checksums<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        need: Need,
        stripe: StripeId,
        of: u32,
    ) -> bool {
        if !self.have_checksums(work, need, stripe, of) {
            return false;
        }
        let at = self.checksum_block(stripe);
        for slot in slots(of) {
            let place = self.checksums.find(slot, at).expect("it is at hand");
            self.checksums.place(place).pins += 1;
        }
        true
    }

    /// Nobody compares with these any more.
    pub(crate) fn leave_checksums(&mut self, stripe: StripeId, of: u32) {
        let at = self.checksum_block(stripe);
        for slot in slots(of) {
            let found = self.checksums.find(slot, at).expect("what was taken stays at hand");
            let place = self.checksums.place(found);
            place.pins -= 1;
            if place.orphaned && place.is_idle() {
                self.checksums.free(found);
            }
        }
    }

    fn have_checksum<P: Ports>(&mut self, work: &mut Work<'_, P>, need: Need, slot: Slot, at: u64) -> bool {
        if let Some(found) = self.checksums.find(slot, at) {
            let place = self.checksums.place(found);
            place.touched = work.now;
            return place.state == State::Ready && !place.orphaned && !place.retiring;
        }
        let Some(member) = self.map.member(slot) else { return false };
        if self.checksums.retires(member.device, at, self.map.successor_slot()) {
            return false;
        }
        // Only a read that nobody else can answer asks a member that is late.
        let must_wait = self.failing_members & 1 << slot.0 != 0 || need == Need::Other && self.late & 1 << slot.0 != 0;
        if must_wait || work.operations.available() <= crate::limits::RESERVED_OPERATIONS {
            return false;
        }
        let is_held = |buffer| work.operations.is_held(buffer);
        let Some(found) = self.checksums.make_room(need, work.now, is_held) else { return false };
        if self.checksums.places[found as usize].state != State::Free {
            self.checksums.free(found);
        }
        let start = member.checksums.expect("an array with checksums has a region for them on each member");
        let location = (member.device, DeviceBlock(start.0 + at));
        let of = of(&self.map, slot);
        let place = self.checksums.place(found);
        (place.slot, place.at, place.state, place.touched) = (slot, at, State::Loading, work.now);
        (place.of, place.location) = (of, location);
        let buffer = place.buffer.as_ref().map(Buffer::id);
        self.checksums.index.insert(key_of(slot, at), found);
        let purpose = Purpose::ChecksumRead { array: self.map.id, place: found };
        // Whoever it is for: a host's read may soon wait for it.
        work.operations.start_urgent(work.ports, location, buffer, purpose);
        false
    }

    /// A checksum block was read.
    pub(crate) fn checksum_read<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        found: u32,
        result: Result<(), DeviceError>,
    ) {
        let place = self.checksums.place(found);
        let (slot, at, of, orphaned) = (place.slot, place.at, place.of, place.orphaned);
        let buffer = place.buffer.as_ref().expect("it was set aside").id();
        place.state = State::Ready;
        match result {
            Ok(()) => _ = of.open(at, work.ports.bytes_mut(buffer)),
            Err(DeviceError::Unreadable) => {
                checksum::forget_all(work.ports.bytes_mut(buffer));
                self.found_unreadable(work, slot);
            }
            Err(error) => {
                match error {
                    DeviceError::Late => self.is_late(slot),
                    _ => self.member_failed(slot),
                }
                self.change_checksum_buffer(work, found);
                self.checksums.free(found);
                return;
            }
        }
        if orphaned {
            self.checksums.free(found);
        }
    }

    /// Whose checksum block is being read into a place.
    pub(super) fn checksum_member(&self, found: u32) -> Slot {
        self.checksums.places[found as usize].slot
    }

    /// Compares a block of a member with its entry, which is at hand.
    pub(crate) fn check<P: Ports>(&self, ports: &P, slot: Slot, stripe: StripeId, block: BufferId) -> Check {
        self.checksums.check(ports, &self.map, (slot, stripe), block)
    }

    /// Sets the entry of a block that is written to a member now (none: zeros). Whoever waits is told once it is on the member: of a
    /// destage with the flush, else for good.
    pub(crate) fn set_checksum<P: Ports>(
        &mut self,
        ports: &mut P,
        slot: Slot,
        stripe: StripeId,
        block: Option<BufferId>,
        waiter: Option<Waiter>,
    ) {
        let entry = block.map_or(Entry::ZEROS, |block| of(&self.map, slot).entry(stripe, ports.bytes(block)));
        let found = self.checksums.find(slot, self.checksum_block(stripe)).expect("it is at hand");
        let place = self.checksums.place(found);
        assert!(place.state == State::Ready && !place.orphaned && !place.retiring, "it is at hand");
        let buffer = place.buffer.as_ref().expect("it was set aside").id();
        checksum::set_entry(ports.bytes_mut(buffer), stripe, self.map.arrangement.zone_stripes(), entry);
        self.checksums.changed(found, waiter);
    }

    /// Writes checksum blocks whose entries were set.
    pub(crate) fn write_checksums<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        while let Some(&found) = self.checksums.to_write.front()
            && !self.checksums.spare.is_empty()
            && work.operations.available() > self.map.members.len()
        {
            self.checksums.to_write.pop_front();
            let place = &mut self.checksums.places[found as usize];
            if place.orphaned {
                continue;
            }
            let buffer = self.checksums.spare.pop().expect("there was one");
            let master = place.buffer.as_ref().expect("it was set aside").id();
            let (to, from) = work.ports.pair(buffer.id(), master);
            to.copy_from_slice(from);
            place.of.seal(place.at, to);
            let op = if place.durable { DeviceOp::WriteDurable } else { DeviceOp::Write };
            (place.changed, place.durable) = (false, false);
            core::mem::swap(&mut place.next, &mut place.flying);
            let purpose = Purpose::ChecksumWrite { array: self.map.id, place: found };
            work.operations.start(work.ports, place.location, op, Some(buffer.id()), purpose);
            self.checksums.places[found as usize].writing = Some(buffer);
        }
    }

    /// A member that was given up may still write into a place's buffer: it gets another, if there is one. If not, nobody
    /// takes the place before the member has answered.
    fn change_checksum_buffer<P: Ports>(&mut self, work: &mut Work<'_, P>, found: u32) {
        let held = |buffer: &mut Buffer| work.operations.is_held(buffer.id());
        let Some(before) = self.checksums.place(found).buffer.take_if(held) else { return };
        match work.ports.alloc() {
            Some(other) => {
                self.checksums.place(found).buffer = Some(other);
                self.send_home(work, before, Home::Pool);
            }
            None => self.checksums.place(found).buffer = Some(before),
        }
    }

    /// A buffer for writes comes back.
    pub(super) fn take_back_checksum_buffer(&mut self, buffer: Buffer) {
        self.checksums.spare.push(buffer);
    }

    /// A checksum block was written, or could not be.
    pub(crate) fn checksum_written<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        found: u32,
        result: Result<(), DeviceError>,
    ) {
        let place = self.checksums.place(found);
        let (slot, orphaned, retiring) = (place.slot, place.orphaned, place.retiring);
        let buffer = place.writing.take().expect("a write was under way");
        if place.changed && !orphaned {
            self.checksums.to_write.push_back(found);
        }
        self.send_home(work, buffer, Home::Checksums);
        if result.is_err() {
            self.member_failed(slot);
        }
        self.tell_checksum_waiters(work, found, false, result.is_ok());
        if orphaned {
            self.drop_orphan(work, found);
        } else if retiring && self.checksums.place(found).is_idle() {
            self.checksums.free(found);
        }
    }

    /// Tells those who wait for a write, or for the next one.
    fn tell_checksum_waiters<P: Ports>(&mut self, work: &mut Work<'_, P>, found: u32, next: bool, succeeded: bool) {
        let place = self.checksums.place(found);
        let slot = place.slot;
        let mut waiters = core::mem::take(if next { &mut place.next } else { &mut place.flying });
        for waiter in waiters.drain(..) {
            match waiter {
                Waiter::Destage(key) => self.destage_entered(work, key),
                Waiter::Mend(key) => self.mend_entered(work, key),
                Waiter::Range(at) => {
                    let result = if succeeded { Ok(()) } else { Err(DeviceError::Gone) };
                    self.walk_answered(work, at, (slot, None), result);
                }
            }
        }
        let place = self.checksums.place(found);
        let list = if next { &mut place.next } else { &mut place.flying };
        if list.is_empty() {
            *list = waiters;
        }
    }

    /// Drops what is known of members that are gone or others now.
    pub(crate) fn checksum_members_changed<P: Ports>(&mut self, work: &mut Work<'_, P>, before: &ArrayMap) {
        let device = |map: &ArrayMap, slot: Slot| map.member(slot).map(|member| member.device);
        if (0..=before.arrangement.geometry().members())
            .map(Slot)
            .all(|slot| device(before, slot) == device(&self.map, slot))
        {
            return;
        }
        for found in 0..self.checksums.places.len() as u32 {
            let place = &mut self.checksums.places[found as usize];
            let at = place.location.0;
            if place.state == State::Free || place.retiring || device(&self.map, place.slot) == Some(at) {
                continue;
            }
            if self.map.slot_of(at).is_some() && place.state == State::Ready {
                place.retiring = true;
                if place.is_idle() {
                    self.checksums.free(found);
                }
            } else {
                place.orphaned = true;
                if place.writing.is_none() {
                    self.drop_orphan(work, found);
                }
            }
        }
    }

    /// What was to be written to a member that is gone is not.
    fn drop_orphan<P: Ports>(&mut self, work: &mut Work<'_, P>, found: u32) {
        self.checksums.place(found).changed = false;
        self.checksums.to_write.retain(|at| *at != found);
        self.tell_checksum_waiters(work, found, true, false);
        if self.checksums.place(found).is_idle() {
            self.checksums.free(found);
        }
    }

    /// A zone is being zeroed with its checksum blocks: what is at hand of them is zeros, too.
    pub(crate) fn zero_checksums<P: Ports>(&mut self, ports: &mut P, zone: ZoneId) {
        let zone_blocks = checksum::zone_blocks(self.map.arrangement.zone_stripes());
        for place in &mut self.checksums.places {
            if place.state != State::Free && place.at / zone_blocks == zone.0 {
                match place.state {
                    State::Loading => place.orphaned = true,
                    _ => ports.bytes_mut(place.buffer.as_ref().expect("it was set aside").id()).fill(0),
                }
            }
        }
    }
}
