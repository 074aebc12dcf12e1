//! Dirty data that the log alone has. With `residency: log` the content of a block leaves memory as soon as it is durable on two
//! copies of the log, while memory is scarce: then the log bounds what may be dirty, and not memory. Who needs such a content
//! reads it back: a host's read, the destage of its stripe, or what brings it back into memory.
//!
//! What leaves is what has come last. The oldest goes to the members first, and from memory; and when that has made room, what
//! comes then stays.
//!
//! **Rule L9**: content leaves memory only while two healthy copies hold it. When only one is left, what the log alone has is
//! brought back as far as there is room, goes to the members before all else, and writes are acknowledged as in write-through until
//! nothing of it is left.
//!
//! A block is read from one copy and compared with the checksum of its record. What cannot be read there, or is wrong, is read from
//! another copy, and written again where it was missing. The record stays in the log meanwhile: it is *pinned*, whoever may have
//! replaced the block or destaged it.

use base::ids::{DeviceBlock, DeviceId, LaneId, StripeId};
use base::slab::{Key, Slab};
use base::time::{Span, Time};
use journal::payload_crc;
use ports::{Buffer, BufferList, DeviceError, DeviceOp, Ports};
use raid::level::MAX_MEMBERS;

use super::destage::Destage;
use super::detained::Home;
use super::read::Read;
use super::stripes::{Content, Listed, StripeRef, Version, VersionRef};
use super::{ArrayShard, Purpose, Work};
use crate::limits::{MAX_LOG_READS, RESERVED_OPERATIONS};
use crate::map::LogMode;

/// How long it takes until what could be read from no copy is tried again for being logged again.
const RETRY_EVERY: Span = Span::from_secs(10);

/// Where dirty data is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residency {
    /// In memory, and in the log.
    #[default]
    Memory,
    /// In the log, and in memory as long as that is not scarce.
    Log,
}

/// Where the log has a block's content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    lane: LaneId,
    sequence: u64,
    at: DeviceBlock,
    crc: u32,
}

/// Who wants it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// A read, for one of its blocks.
    Read { read: Key<Read>, offset: u8 },
    /// The destage of its stripe.
    Destage { destage: Key<Destage>, column: u8 },
    /// Nobody: it is brought back into memory.
    Memory { stripe: StripeId, column: u8 },
}

/// A block on its way back from the log.
#[derive(Debug)]
pub(crate) struct LogRead {
    wanted: Wanted,
    payload: Payload,
    /// Where it goes to; of what is set aside, or of the pool if it is to stay.
    buffer: Buffer,
    /// Copies that could not give it, as a bit mask.
    without: u32,
    /// Whether it is there, and being written to a copy that could not give it.
    mending: bool,
}

/// What is on its way back from the log.
#[derive(Debug)]
pub(super) struct LogReads {
    reads: Slab<LogRead>,
    /// When something that was to be logged again could not be read.
    retry_at: Time,
}

impl LogReads {
    pub(super) fn new() -> Self {
        Self { reads: Slab::new(MAX_LOG_READS), retry_at: Time(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// Pins of a lane's records, for checks.
    pub(super) fn pins(&self, lane: LaneId) -> u64 {
        self.reads.iter().filter(|(_, read)| read.payload.lane == lane).count() as u64
    }
}

impl ArrayShard {
    /// Whether content may leave memory: two healthy copies hold whatever is durable (rule L9).
    pub(super) fn may_leave_memory(&self) -> bool {
        self.residency == Residency::Log
            && self.map.mode == LogMode::WriteBack
            && !self.map.is_unlogged()
            && (self.map.present_copies() & !self.failing_copies).count_ones() >= 2
    }

    /// Whether the log alone has something, and not two copies of it.
    pub(super) fn is_short_of_copies(&self) -> bool {
        self.stripes.logged() > 0 && self.map.present_copies().count_ones() < 2
    }

    /// Whether more is dirty in memory than should be, where it stays there.
    pub(super) fn is_memory_pressed(&self) -> bool {
        let mark = self.stripes.memory() * usize::from(self.settings.memory_watermark_percent);
        !self.may_leave_memory() && self.stripes.resident_waiting() * 100 > mark
    }

    /// The log has a version for good: perhaps its content leaves memory.
    pub(super) fn leave_memory<P: Ports>(&mut self, work: &mut Work<'_, P>, version: VersionRef) {
        let mark = self.stripes.memory() * usize::from(self.settings.resident_percent);
        let is_blocked = || self.stripes.get(self.stripes.stripe_of(version)).lost != 0;
        if !matches!(self.stripes.version(version).content, Content::Held(_))
            || !self.may_leave_memory()
            || self.stripes.resident() * 100 <= mark
            // It would come back to be logged again.
            || is_blocked()
        {
            return;
        }
        let content = self.stripes.put(version, Content::Logged);
        self.give_back(work, content);
    }

    /// A content is needed no longer.
    pub(super) fn give_back<P: Ports>(&mut self, work: &mut Work<'_, P>, content: Content) {
        match content {
            Content::Held(buffer) => self.send_home(work, buffer, Home::Pool),
            Content::Lent(buffer) => self.send_home(work, buffer, Home::Scratch),
            Content::Zeros | Content::Logged => {}
        }
    }

    /// A destage is taken back: what was lent to it goes home.
    pub(super) fn give_back_lent<P: Ports>(&mut self, work: &mut Work<'_, P>, stripe: StripeRef) {
        while let Some(version) = self.stripes.first_lent(stripe) {
            let content = self.stripes.put(version, Content::Logged);
            self.give_back(work, content);
        }
    }

    /// Where the log has a version that is durable there.
    pub(super) fn payload_of(&self, version: &Version, lane: LaneId) -> Payload {
        let records = &self.lanes[lane.index()].as_ref().expect("only the owner has a lane's stripes").records;
        let first = records.front().expect("the log holds a record").sequence;
        let record = &records[(version.sequence - first) as usize];
        assert!(record.sequence == version.sequence && record.durable, "the version's record is in the log");
        let at = self.map.log_layout.ring_block(lane, record.position + u64::from(version.place));
        Payload { lane, sequence: version.sequence, at, crc: version.crc }
    }

    /// Whether hosts may read so many blocks from the log now. They leave half of what that takes to destages: whatever hosts read,
    /// dirty data goes to the members.
    pub(super) fn may_read_log(&self, blocks: usize) -> bool {
        blocks == 0
            || self.scratch.len() >= blocks + self.scratch.capacity() / 2 && self.has_places(blocks + MAX_LOG_READS / 2)
    }

    /// Whether so many blocks more may be on their way back from the log.
    pub(super) fn has_places(&self, blocks: usize) -> bool {
        self.log_reads.reads.len() + blocks <= MAX_LOG_READS
    }

    /// A copy that may have a block, if there is one; all of them in turns.
    fn copy_with(&self, without: u32, payload: &Payload) -> Option<(u8, DeviceId)> {
        let present = self.map.present_copies() & !without;
        // One that is about to be excluded had better not be asked.
        let good = if present & !self.failing_copies != 0 { present & !self.failing_copies } else { present };
        let chosen = (0u8..32)
            .filter(|copy| good & 1 << copy != 0)
            .nth(((payload.sequence + payload.at.0) % u64::from(good.count_ones().max(1))) as usize)?;
        Some((chosen, self.map.copies[usize::from(chosen)]?))
    }

    /// Whether the log can be read at all.
    pub(super) fn has_log_to_read(&self) -> bool {
        self.map.present_copies() != 0
    }

    /// Reads a block from the log. There is a copy, and room.
    pub(super) fn read_log<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        payload: Payload,
        wanted: Wanted,
        buffer: Buffer,
    ) {
        self.lane(payload.lane).record_mut(payload.sequence).live += 1;
        let read = LogRead { wanted, payload, buffer, without: 0, mending: false };
        let Ok(key) = self.log_reads.reads.insert(read) else { unreachable!("room was looked for") };
        assert!(self.ask_copy(work, key), "the caller has seen that there is a copy");
    }

    /// Asks a copy that was not asked yet; false if there is none.
    fn ask_copy<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<LogRead>) -> bool {
        let LogRead { payload, without, .. } = self.log_reads.reads[key];
        let Some((copy, device)) = self.copy_with(without, &payload) else { return false };
        let blocks = core::iter::once(self.log_reads.reads[key].buffer.id());
        let purpose = Purpose::LogRead { array: self.map.id, read: key, copy };
        work.operations.start(work.ports, (device, payload.at), DeviceOp::Read, blocks, purpose);
        work.metrics.log_reads.increment();
        true
    }

    /// A copy has answered.
    pub(crate) fn log_read_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<LogRead>,
        copy: u8,
        result: Result<(), DeviceError>,
    ) {
        let read = &self.log_reads.reads[key];
        if read.mending {
            if let Err(error) = result {
                self.copy_failed(copy, error);
            }
            self.log_reads.reads[key].without &= !(1 << copy);
            self.mend_copies(work, key);
            return;
        }
        let is_right =
            result.is_ok() && payload_crc(&self.map.log, work.ports.bytes(read.buffer.id())) == read.payload.crc;
        if is_right {
            self.mend_copies(work, key);
            return;
        }
        work.metrics.log_read_errors.increment();
        let is_last = self.map.present_copies() & !(1 << copy) == 0;
        match result {
            // What it has elsewhere is still there.
            Ok(()) | Err(DeviceError::Unreadable) => {}
            Err(error) if !is_last => self.copy_failed(copy, error),
            Err(_) => {}
        }
        self.log_reads.reads[key].without |= 1 << copy;
        let may_ask = self.renew_buffer(work, key) && self.ask_copy(work, key);
        if !may_ask {
            self.end_log_read(work, key, false);
        }
    }

    /// Another buffer for one that a device which was given up may still write into; false if there is none.
    fn renew_buffer<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<LogRead>) -> bool {
        let LogRead { wanted, buffer, .. } = &self.log_reads.reads[key];
        if !work.operations.is_held(buffer.id()) {
            return true;
        }
        let (other, home) = match wanted {
            Wanted::Memory { .. } => (work.ports.alloc(), Home::Pool),
            Wanted::Read { .. } | Wanted::Destage { .. } => (self.scratch.pop(), Home::Scratch),
        };
        let Some(other) = other else { return false };
        let before = core::mem::replace(&mut self.log_reads.reads[key].buffer, other);
        self.send_home(work, before, home);
        true
    }

    /// The block is there: it is written again where it could not be read, one copy after the other, and then given to who wants it.
    fn mend_copies<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<LogRead>) {
        let read = &mut self.log_reads.reads[key];
        read.without &= self.map.present_copies() & !self.failing_copies;
        let copy = read.without.trailing_zeros() as u8;
        let Some(device) = self.map.copies.get(usize::from(copy)).copied().flatten() else {
            self.end_log_read(work, key, true);
            return;
        };
        read.mending = true;
        let (at, blocks) = (read.payload.at, core::iter::once(read.buffer.id()));
        let purpose = Purpose::LogRead { array: self.map.id, read: key, copy };
        work.operations.start(work.ports, (device, at), DeviceOp::WriteDurable, blocks, purpose);
    }

    fn end_log_read<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<LogRead>, is_there: bool) {
        let LogRead { wanted, payload, buffer, .. } = self.log_reads.reads.remove(key).expect("it ends once");
        let Payload { lane, sequence, .. } = payload;
        match wanted {
            Wanted::Read { read, offset } => {
                if is_there {
                    self.take_from_log(work.ports, read, offset, buffer.id());
                }
                self.send_home(work, buffer, Home::Scratch);
                self.read_from_log(work, read, is_there);
            }
            Wanted::Destage { destage, column } => {
                if is_there {
                    let stripe = self.destages[destage].stripe;
                    let version = self.stripes.logged_of(stripe, column, sequence);
                    let version = version.expect("what is frozen stays until its destage has ended");
                    self.stripes.put(version, Content::Lent(buffer));
                } else {
                    self.send_home(work, buffer, Home::Scratch);
                }
                self.destage_from_log(work, destage, column, is_there);
            }
            Wanted::Memory { stripe, column } => {
                let stripe = self.stripes.find(stripe).expect("a stripe stays while something of it is read back");
                self.stripes.get_mut(stripe).again -= 1;
                match self.stripes.logged_of(stripe, column, sequence) {
                    Some(version) if is_there => _ = self.stripes.put(version, Content::Held(buffer)),
                    _ => self.send_home(work, buffer, Home::Pool),
                }
                if !is_there {
                    self.log_reads.retry_at = work.now + RETRY_EVERY;
                }
            }
        }
        // Who has replaced or destaged it since has left the record to this.
        if !self.lanes[lane.index()].as_ref().is_none_or(|lane| lane.records.is_empty()) {
            self.lane(lane).forget(sequence);
            self.tail_may_move(lane);
        }
    }

    /// Brings back into memory what only one copy holds, as far as there is room.
    pub(super) fn bring_back<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if !self.is_short_of_copies() || !self.has_log_to_read() {
            return;
        }
        for at in 0..self.awake.len() {
            let index = self.awake[at].index();
            while let Some(stripe) = self.lanes[index].as_ref().and_then(|lane| lane.stripes.logged.oldest())
                && self.bring_back_stripe(work, stripe)
            {
                let lane = self.lanes[index].as_mut().expect("it was there just now");
                self.stripes.list(&mut lane.stripes, Listed::Dirty, stripe);
            }
        }
    }

    /// Brings the durable versions of a stripe back into memory that the log alone has; false if there is no room for all of them.
    fn bring_back_stripe<P: Ports>(&mut self, work: &mut Work<'_, P>, stripe: StripeRef) -> bool {
        let entry = self.stripes.get(stripe);
        let (id, lane) = (entry.id, entry.lane);
        if entry.again > 0 || entry.destage.is_some() {
            return false;
        }
        let mut found = [VersionRef::default(); MAX_MEMBERS as usize];
        // Without a destage there is one version of a column that is durable.
        let count = self.stripes.logged_versions(stripe, &mut found);
        if self.stripes.room() < count || !self.has_places(count) || work.operations.available() <= RESERVED_OPERATIONS
        {
            return false;
        }
        let Some(mut buffers) = BufferList::alloc(work.ports, count) else { return false };
        for &version in &found[..count] {
            let buffer = buffers.pop(work.ports).expect("one for each");
            let version = self.stripes.version(version);
            let (column, payload) = (version.column, self.payload_of(version, lane));
            self.stripes.get_mut(stripe).again += 1;
            self.read_log(work, payload, Wanted::Memory { stripe: id, column }, buffer);
        }
        true
    }

    /// What is to be logged again and the log alone has is brought back into memory first; whether all of it is there.
    pub(super) fn is_at_hand<P: Ports>(&mut self, work: &mut Work<'_, P>, versions: &[VersionRef]) -> bool {
        let mut all = true;
        for &version in versions {
            let stripe = self.stripes.stripe_of(version);
            if matches!(self.stripes.version(version).content, Content::Logged) {
                all = false;
                let may_try = self.log_reads.retry_at <= work.now && self.has_log_to_read();
                if !may_try || !self.bring_back_stripe(work, stripe) {
                    break;
                }
            }
            all &= self.stripes.get(stripe).again == 0;
        }
        all
    }
}
