//! One connection's queue: which PDU may come when, which commands are in flight, which data was asked for. It holds
//! numbers only; buffers, controllers and replies belong to its owner.
//!
//! A command keeps its slot from its capsule until its reply has left for the host. A host that obeys the depth of its
//! queue can therefore never run out of slots, and one that does not is cut off: nothing here grows.

use nvme::entry::CompletionEntry;
use nvme::status::Status;

use crate::limits::{IN_CAPSULE_BYTES, MAX_H2C_DATA_BYTES, MAX_QUEUE_ENTRIES};
use crate::pdu::{DATA_BYTES, Data, Digests, FLAG_LAST, Fatal, FatalStatus, IcReq, Transfer};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// ICReq is awaited.
    InitialExchange,
    /// Connect is awaited.
    Connect,
    /// Connect is being answered: no other command may come (a host waits for the answer).
    Connecting,
    /// Commands flow.
    Live,
}

/// The place of a command on its queue: less than the queue's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId(pub u16);

impl SlotId {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    cid: u16,
    busy: bool,
    /// Registered under its CID: not so for a command refused because of it.
    named: bool,
    /// Counts uses, so that a late H2CData does not meet the next command.
    turn: u8,
    /// Bytes asked for by R2T, and received of them; asked is 0 when nothing is outstanding.
    asked: u32,
    received: u32,
}

/// A command's admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its slot.
    pub slot: SlotId,
    /// Another command in flight has its CID: complete it with Command ID Conflict.
    pub conflict: bool,
}

/// Where data of an H2CData PDU belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The command.
    pub slot: SlotId,
    /// Offset within the command's data.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// With this PDU all data asked for has come.
    pub complete: bool,
}

/// The state of a connection's queue.
#[derive(Debug)]
pub struct Queue {
    phase: Phase,
    id: u16,
    entries: u16,
    flow_control: bool,
    sq_head: u16,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Named commands in flight by the low byte of their CID: an empty bucket spares the search for a duplicate.
    buckets: [u8; 256],
}

impl Queue {
    /// The queue of a fresh connection. All memory it will ever have is taken here.
    pub fn new() -> Self {
        let mut free = Vec::with_capacity(usize::from(MAX_QUEUE_ENTRIES));
        free.push(0);
        Self {
            phase: Phase::InitialExchange,
            id: 0,
            entries: 1,
            flow_control: true,
            sq_head: 0,
            slots: vec![Slot::default(); usize::from(MAX_QUEUE_ENTRIES)],
            free,
            buckets: [0; 256],
        }
    }

    /// How far the connection has come.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The queue's identifier; 0 is the admin queue.
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Its entries.
    pub const fn entries(&self) -> u16 {
        self.entries
    }

    /// Whether the host uses SQ flow control. If not, the last C2HData may stand for the response (TCP, section 3.3.2.1).
    pub const fn flow_control(&self) -> bool {
        self.flow_control
    }

    /// Commands in flight.
    pub fn in_flight(&self) -> usize {
        usize::from(self.entries) - self.free.len()
    }

    /// Judges ICReq and agrees on what it asks for: digests are as asked, since hosts insist.
    pub fn initial_exchange(&mut self, request: &IcReq) -> Result<Digests, Fatal> {
        if self.phase != Phase::InitialExchange {
            return Err(Fatal::of(FatalStatus::SequenceError));
        }
        if request.version != 0 {
            return Err(Fatal::field(8));
        }
        let digests = Digests::from_bits(request.digests);
        // TCP, section 3.6.2.2: C2HData is to begin its data at a multiple of HPDA. We never pad, so only alignments that
        // the head has by itself can be granted.
        let alignment = (usize::from(request.alignment) + 1) * 4;
        if !(DATA_BYTES + digests.header_bytes()).is_multiple_of(alignment) {
            return Err(Fatal::unsupported(10));
        }
        if request.digests & !0b11 != 0 {
            return Err(Fatal::field(11));
        }
        self.phase = Phase::Connect;
        Ok(digests)
    }

    /// Whether a command, or data, may come now, with this much payload in its capsule.
    #[inline]
    pub fn may_command(&self, in_capsule: usize) -> Result<(), Fatal> {
        match self.phase {
            Phase::Connect | Phase::Live if in_capsule <= IN_CAPSULE_BYTES as usize => Ok(()),
            // PLEN beyond what IOCCSZ allows.
            Phase::Connect | Phase::Live => Err(Fatal::field(4)),
            Phase::InitialExchange | Phase::Connecting => Err(Fatal::of(FatalStatus::SequenceError)),
        }
    }

    /// Connect was seen and is being judged.
    ///
    /// # Panics
    /// Unless Connect was awaited.
    pub fn connecting(&mut self) {
        assert_eq!(self.phase, Phase::Connect, "Connect comes once");
        self.phase = Phase::Connecting;
    }

    /// Connect was refused: the host may try another on the same connection.
    ///
    /// # Panics
    /// Unless Connect was being judged.
    pub fn refused(&mut self) {
        assert_eq!(self.phase, Phase::Connecting, "a refusal answers a Connect");
        self.phase = Phase::Connect;
    }

    /// Connect succeeded: commands may come. `entries` counts them (SQSIZE + 1).
    ///
    /// # Panics
    /// Unless Connect was being judged, or if `entries` is beyond the limit or less than 2.
    pub fn connected(&mut self, id: u16, entries: u16, flow_control: bool) {
        assert_eq!(self.phase, Phase::Connecting, "a success answers a Connect");
        assert!((2..=MAX_QUEUE_ENTRIES).contains(&entries), "{entries} entries");
        self.phase = Phase::Live;
        self.id = id;
        self.flow_control = flow_control;
        // The Connect command itself holds slot 0 until its response has left.
        self.free.extend((1..entries).rev());
        self.entries = entries;
    }

    /// Gives a command a slot. More commands than the queue has entries are fatal (Base, section 3.3.1.4: the host does
    /// not fill a queue beyond its size).
    #[inline]
    pub fn admit(&mut self, cid: u16) -> Result<Admission, Fatal> {
        let index = self.free.pop().ok_or(Fatal::of(FatalStatus::LimitExceeded))?;
        let bucket = usize::from(cid as u8);
        let conflict = self.buckets[bucket] > 0
            && self.slots[..usize::from(self.entries)].iter().any(|slot| slot.named && slot.cid == cid);
        let slot = &mut self.slots[usize::from(index)];
        assert!(!slot.busy, "a free slot is not in use");
        *slot = Slot { cid, busy: true, named: !conflict, turn: slot.turn.wrapping_add(1), asked: 0, received: 0 };
        if !conflict {
            self.buckets[bucket] += 1;
        }
        Ok(Admission { slot: SlotId(index), conflict })
    }

    /// Asks for all data of a command with one R2T. Hosts differ in what they bear (MAXR2T); one is always right.
    ///
    /// # Panics
    /// If data is outstanding already, or nothing is asked for.
    pub fn ask(&mut self, slot: SlotId, length: u32) -> Transfer {
        let place = &mut self.slots[slot.index()];
        assert!(place.busy && place.asked == 0 && length > 0, "one R2T at a time");
        place.asked = length;
        place.received = 0;
        Transfer { cid: place.cid, tag: Self::tag(slot, place.turn), offset: 0, length }
    }

    const fn tag(slot: SlotId, turn: u8) -> u16 {
        slot.0 | (turn as u16) << 8
    }

    /// Judges H2CData: it must answer an R2T that is outstanding, in order and within bounds (TCP, section 3.3.1).
    pub fn host_data(&mut self, data: &Data) -> Result<Incoming, Fatal> {
        if self.phase != Phase::Live {
            return Err(Fatal::of(FatalStatus::SequenceError));
        }
        let slot = SlotId(data.tag & 0xff);
        let entries = self.entries;
        let place = self.slots.get_mut(slot.index()).filter(|_| slot.0 < entries).ok_or(Fatal::field(10))?;
        if !place.busy || place.asked == 0 || Self::tag(slot, place.turn) != data.tag {
            return Err(Fatal::field(10));
        }
        if place.cid != data.cid {
            return Err(Fatal::field(8));
        }
        if data.length > MAX_H2C_DATA_BYTES {
            return Err(Fatal::of(FatalStatus::LimitExceeded));
        }
        // H2CData PDUs of one R2T come in order (TCP, section 3.3.1).
        if data.offset != place.received || data.length > place.asked - place.received {
            return Err(Fatal::of(FatalStatus::DataOutOfRange));
        }
        place.received += data.length;
        let complete = place.received == place.asked;
        if complete != (data.common.flags & FLAG_LAST != 0) {
            return Err(Fatal::field(1));
        }
        if complete {
            place.asked = 0;
        }
        Ok(Incoming { slot, offset: data.offset, length: data.length, complete })
    }

    /// The completion of a command. The head moves on: the host may send one more.
    ///
    /// # Panics
    /// If the slot is free.
    #[inline]
    pub fn complete(&mut self, slot: SlotId, status: Status, result: u64) -> CompletionEntry {
        let place = &self.slots[slot.index()];
        assert!(place.busy, "a command completes once");
        // Base, section 3.3.3.2: SQHD is reserved when SQ flow control is off.
        self.sq_head = if self.sq_head + 1 >= self.entries { 0 } else { self.sq_head + 1 };
        let head = if self.flow_control { self.sq_head } else { 0 };
        CompletionEntry::fabrics(place.cid, head, status, result)
    }

    /// Frees a slot: its reply has left, or its connection has ended.
    ///
    /// # Panics
    /// If it is free.
    #[inline]
    pub fn release(&mut self, slot: SlotId) {
        let place = &mut self.slots[slot.index()];
        assert!(place.busy, "a slot is released once");
        place.busy = false;
        place.asked = 0;
        if core::mem::take(&mut place.named) {
            self.buckets[usize::from(place.cid as u8)] -= 1;
        }
        self.free.push(slot.0);
    }

    /// The command in flight with this CID.
    pub fn find(&self, cid: u16) -> Option<SlotId> {
        let index = self.slots.iter().position(|slot| slot.busy && slot.named && slot.cid == cid)?;
        Some(SlotId(index as u16))
    }

    /// The CID of a command in flight.
    pub fn cid(&self, slot: SlotId) -> u16 {
        self.slots[slot.index()].cid
    }

    /// Whether an R2T of this command is outstanding.
    pub fn is_asked(&self, slot: SlotId) -> bool {
        self.slots[slot.index()].asked > 0
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(MAX_QUEUE_ENTRIES <= 256, "a slot fits the low byte of a tag");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu::{self, Common};

    fn ic_req(change: impl FnOnce(&mut IcReq)) -> IcReq {
        let mut request = IcReq::decode(&pdu::ic_req(Digests::default(), 0)).expect("whole");
        change(&mut request);
        request
    }

    fn live(entries: u16) -> Queue {
        let mut queue = Queue::new();
        queue.initial_exchange(&ic_req(|_| {})).expect("plain");
        let connect = queue.admit(0).expect("the first command");
        queue.connecting();
        queue.connected(1, entries, true);
        queue.complete(connect.slot, Status::SUCCESS, 0);
        queue.release(connect.slot);
        queue
    }

    fn data(transfer: Transfer, offset: u32, length: u32, last: bool) -> Data {
        let flags = if last { FLAG_LAST } else { 0 };
        Data { common: Common { flags, ..Common::default() }, cid: transfer.cid, tag: transfer.tag, offset, length }
    }

    #[test]
    fn the_initial_exchange_is_judged_field_by_field() {
        let judge = |change: fn(&mut IcReq)| Queue::new().initial_exchange(&ic_req(change));
        assert_eq!(judge(|_| {}), Ok(Digests::default()));
        assert_eq!(judge(|request| request.digests = 3), Ok(Digests { header: true, data: true }));
        assert_eq!(judge(|request| request.version = 1), Err(Fatal::field(8)));
        assert_eq!(judge(|request| request.digests = 4), Err(Fatal::field(11)));
        assert_eq!(judge(|request| request.alignment = 1), Ok(Digests::default()));
        assert_eq!(judge(|request| request.alignment = 31), Err(Fatal::unsupported(10)));
        assert_eq!(judge(|request| request.max_r2t = 15), Ok(Digests::default()));
    }

    #[test]
    fn each_phase_admits_its_pdus_only() {
        let mut queue = Queue::new();
        let sequence = Err(Fatal::of(FatalStatus::SequenceError));
        assert_eq!(queue.may_command(0), sequence);
        assert!(queue.host_data(&Data::default()).is_err());
        queue.initial_exchange(&ic_req(|_| {})).expect("plain");
        assert_eq!(queue.phase(), Phase::Connect);
        assert_eq!(queue.initial_exchange(&ic_req(|_| {})).map(|_| ()), sequence);
        assert_eq!(queue.may_command(8192), Ok(()));
        assert_eq!(queue.may_command(8193), Err(Fatal::field(4)));
        assert_eq!(queue.host_data(&Data::default()).map(|_| ()), sequence);
        queue.admit(1).expect("room for Connect");
        queue.connecting();
        assert_eq!(queue.may_command(0), sequence);
        queue.refused();
        queue.connecting();
        queue.connected(3, 16, false);
        assert_eq!((queue.phase(), queue.id(), queue.entries(), queue.flow_control()), (Phase::Live, 3, 16, false));
        assert_eq!(queue.may_command(0), Ok(()));
        assert_eq!(queue.initial_exchange(&ic_req(|_| {})).map(|_| ()), sequence);
    }

    #[test]
    fn before_connect_one_command_at_a_time() {
        let mut queue = Queue::new();
        queue.initial_exchange(&ic_req(|_| {})).expect("plain");
        let first = queue.admit(1).expect("one");
        assert!(queue.admit(2).is_err());
        queue.release(first.slot);
        assert!(queue.admit(2).is_ok());
    }

    #[test]
    fn more_commands_than_entries_are_fatal_and_slots_come_home() {
        for entries in [2, 3, 128] {
            let mut queue = live(entries);
            let slots: Vec<_> = (0..entries).map(|cid| queue.admit(cid).expect("room").slot).collect();
            assert_eq!(queue.admit(999), Err(Fatal::of(FatalStatus::LimitExceeded)));
            assert_eq!(queue.in_flight(), usize::from(entries));
            for &slot in &slots {
                queue.complete(slot, Status::SUCCESS, 0);
                queue.release(slot);
            }
            assert_eq!(queue.in_flight(), 0);
        }
    }

    #[test]
    fn a_cid_in_flight_is_a_conflict_until_released() {
        let mut queue = live(8);
        let first = queue.admit(0x105).expect("room");
        assert!(!queue.admit(0x205).expect("room").conflict, "the same low byte is another command");
        let second = queue.admit(0x105).expect("room");
        assert!(!first.conflict && second.conflict);
        assert_eq!(queue.find(0x105), Some(first.slot));
        queue.release(first.slot);
        assert_eq!(queue.find(0x105), None, "the refused command is not known by its CID");
        assert!(!queue.admit(0x105).expect("room").conflict);
        queue.release(second.slot);
        assert!(queue.admit(0x105).expect("room").conflict);
    }

    #[test]
    fn the_head_wraps_at_the_queue_size() {
        let mut queue = live(3);
        let heads: Vec<u16> = (0..5)
            .map(|cid| {
                let slot = queue.admit(cid).expect("room").slot;
                let head = queue.complete(slot, Status::SUCCESS, 0).sq_head;
                queue.release(slot);
                head
            })
            .collect();
        assert_eq!(heads, [2, 0, 1, 2, 0]);
    }

    #[test]
    fn data_must_answer_its_r2t_in_order() {
        let mut queue = live(4);
        let slot = queue.admit(7).expect("room").slot;
        let transfer = queue.ask(slot, 10_000);
        assert!(queue.is_asked(slot));
        let of = |status| Err(Fatal::of(status));
        assert_eq!(
            queue.host_data(&Data { tag: transfer.tag ^ 1, ..data(transfer, 0, 10, false) }),
            Err(Fatal::field(10))
        );
        assert_eq!(
            queue.host_data(&Data { tag: transfer.tag ^ 0x100, ..data(transfer, 0, 10, false) }),
            Err(Fatal::field(10))
        );
        assert_eq!(queue.host_data(&Data { tag: 0xff, ..data(transfer, 0, 10, false) }), Err(Fatal::field(10)));
        assert_eq!(queue.host_data(&Data { cid: 8, ..data(transfer, 0, 10, false) }), Err(Fatal::field(8)));
        assert_eq!(queue.host_data(&data(transfer, 4, 10, false)), of(FatalStatus::DataOutOfRange));
        assert_eq!(queue.host_data(&data(transfer, 0, 10_001, true)), of(FatalStatus::DataOutOfRange));
        assert_eq!(queue.host_data(&data(transfer, 0, MAX_H2C_DATA_BYTES + 4, true)), of(FatalStatus::LimitExceeded));
        let first = queue.host_data(&data(transfer, 0, 4000, false));
        assert_eq!(first, Ok(Incoming { slot, offset: 0, length: 4000, complete: false }));
        let second = queue.host_data(&data(transfer, 4000, 6000, true));
        assert_eq!(second, Ok(Incoming { slot, offset: 4000, length: 6000, complete: true }));
        assert_eq!(queue.host_data(&data(transfer, 10_000, 1, true)), Err(Fatal::field(10)));
        assert!(!queue.is_asked(slot));
    }

    #[test]
    fn the_last_flag_must_tell_the_truth() {
        for (length, last) in [(10, true), (100, false)] {
            let mut queue = live(4);
            let slot = queue.admit(7).expect("room").slot;
            let transfer = queue.ask(slot, 100);
            assert_eq!(queue.host_data(&data(transfer, 0, length, last)), Err(Fatal::field(1)));
        }
    }

    #[test]
    fn late_data_does_not_meet_the_next_command() {
        let mut queue = live(2);
        let slot = queue.admit(7).expect("room").slot;
        let old = queue.ask(slot, 100);
        queue.release(slot);
        let again = queue.admit(7).expect("room").slot;
        assert_eq!(again, slot);
        queue.ask(again, 100);
        assert_eq!(queue.host_data(&data(old, 0, 100, true)), Err(Fatal::field(10)));
    }
}
