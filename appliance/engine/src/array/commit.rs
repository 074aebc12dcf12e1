//! Records and anchors on their way to the log copies, and what their durability brings about.
//!
//! A record is durable when every copy of the present epoch has answered. A copy that fails one is reported; the record
//! waits until the coordinator has made the copy's exclusion durable (rule L6), and only then counts without it. A copy
//! that does not answer at all is treated likewise once its time is over, and as soon as a copy's exclusion is in force
//! nobody waits for what it still has in hand (`Operations::give_up`). Records are applied strictly in order.

use base::ids::{ArrayBlock, LaneId, StripeId};
use base::time::{Span, Time};
use journal::{Anchor, Entry, MAX_ENTRIES, RecordHeader, RecordKind, seal_record, slot_of};
use ports::{BufferList, DeviceError, DeviceOp, Ports};
use raid::Arrangement;

use super::detained::Home;
use super::lane::{Acknowledgement, AnchorWrite, Closing, Group, Item, Lane, Record, entry_of};
use super::stripes::{Listed, VersionRef};
use super::{ArrayShard, Purpose, Work};
use crate::io::IoError;
use crate::limits::{MAX_DESTAGES, MAX_FRAGMENT_BLOCKS, RECORDS_IN_FLIGHT};
use crate::map::{LogMode, Service};
use crate::message::FragmentDone;

/// Operations that a record with its pad takes, or an anchor, with as many copies as there can be and one that becomes one.
const OPERATIONS_A_COMMIT: usize = 2 * (journal::MAX_COPIES + 1);

impl Acknowledgement {
    pub(crate) fn done(self) -> FragmentDone {
        self.ended(Ok(()))
    }

    pub(crate) fn failed(self, error: IoError) -> FragmentDone {
        self.ended(Err(error))
    }

    fn ended(self, result: Result<(), IoError>) -> FragmentDone {
        let Self { request, since, offset, .. } = self;
        FragmentDone { request, since, offset, result, buffers: BufferList::EMPTY }
    }
}

impl ArrayShard {
    /// A lane, to change it: it is awake from then on.
    pub(crate) fn lane(&mut self, id: LaneId) -> &mut Lane {
        self.wake(id);
        self.lanes[id.index()].as_mut().expect("only the owner is asked about a lane")
    }

    /// Sends what is due of every lane, and moves anchors.
    pub(crate) fn commit<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        // Once it was said that nothing is under way while writes wait, that stays so: the log is about to go.
        if self.map.is_unlogged() || self.map.hold.is_some() && self.told_still {
            return;
        }
        // A note that waits for company keeps its destage's place: not while others want one.
        let wanted = self.stopping
            || self.map.hold.is_some()
            || self.is_draining_window()
            || self.full_is_due(work.now)
            || 2 * self.destages.len() > MAX_DESTAGES
            || self.walker.waits_for_destages();
        let patience = if wanted { Span::ZERO } else { self.settings.note_patience };
        for at in 0..self.awake.len() {
            let id = self.awake[at];
            let lane = self.lanes[id.index()].as_ref().expect("only the owner's lanes are awake");
            if lane.is_due(work.now, patience) && self.may_send(work) {
                self.send_open(work, id);
            }
            self.mark_catching_up(work, id);
            self.move_anchor(work, id);
        }
    }

    /// Whether there are operations for a record with its pad, or an anchor, to every copy.
    pub(super) fn may_send<P: Ports>(&self, work: &Work<'_, P>) -> bool {
        work.operations.available() > OPERATIONS_A_COMMIT
    }

    /// Sends the open transaction as a record, behind a pad where it would cross the ring's end.
    pub(super) fn send_open<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId) {
        let lane = self.lanes[id.index()].as_mut().expect("the caller owns the lane");
        let length = 1 + lane.open.payload_blocks as u32;
        let placement = lane.space.place(length, 0).expect("admission and reserve leave room for every record");
        let pads = usize::from(placement.pad.is_some());
        if self.scratch.len() <= pads {
            return;
        }
        if let Some((position, blocks)) = placement.pad {
            self.send_record(work, id, RecordKind::Pad, position, blocks, None);
        }
        let lane = self.lane(id);
        let group = lane.take_open();
        lane.space.take(&placement);
        work.metrics.log_commit(u64::from(length));
        self.send_record(work, id, RecordKind::Transaction, placement.position, length, Some(group));
    }

    fn send_record<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        id: LaneId,
        kind: RecordKind,
        position: u64,
        length_blocks: u32,
        group: Option<Box<Group>>,
    ) {
        let descriptor = self.scratch.pop().expect("the caller has seen that there is one");
        let lane = self.lanes[id.index()].as_mut().expect("the caller owns the lane");
        let sequence = lane.next_sequence;
        let header = RecordHeader {
            kind,
            lane: id,
            incarnation: self.map.incarnation,
            geometry_epoch: self.map.geometry_epoch + u32::from(group.as_ref().is_some_and(|group| group.moves)),
            array_epoch: self.map.epoch,
            sequence,
            position,
            length_blocks,
            durable_upto: lane.durable_upto,
            previous_crc: lane.last_crc,
        };
        let mut entries = [Entry::Zeros { block: base::ids::ArrayBlock(0), count: 1 }; MAX_ENTRIES];
        let mut payload = [ports::BufferId(0); journal::MAX_RECORD_BLOCKS];
        payload[0] = descriptor.id();
        let (mut entry_count, mut payload_count, mut live) = (0, 1, 0);
        for item in group.iter().flat_map(|group| &group.items) {
            entries[entry_count] = entry_of(item, sequence);
            entry_count += 1;
            match *item {
                Item::Data { version, crc, buffer, .. } => {
                    self.stripes.version_mut(version).logged_at(sequence, crc, payload_count);
                    payload[payload_count] = buffer;
                    payload_count += 1;
                    live += 1;
                }
                Item::Zeros { block, count, .. } => {
                    for (stripe, column) in run_of(&self.map.arrangement, block, count) {
                        let stripe = self.stripes.find(stripe).expect("a version keeps its stripe");
                        let version = self.stripes.oldest_logging(stripe, column, 0);
                        self.stripes.version_mut(version).sequence = sequence;
                    }
                    live += count;
                }
                Item::Moved { version, content, .. } => {
                    let crc = content.map_or(0, |(crc, _)| crc);
                    self.stripes.version_mut(version).logged_at(sequence, crc, payload_count);
                    if let Some((_, buffer)) = content {
                        payload[payload_count] = buffer;
                        payload_count += 1;
                    }
                    live += 1;
                }
                Item::Parity { buffer, .. } => {
                    payload[payload_count] = buffer;
                    payload_count += 1;
                }
                // Until it is durable the version needs the record that holds it now.
                Item::Again { content: Some((_, buffer)), .. } => {
                    payload[payload_count] = buffer;
                    payload_count += 1;
                }
                Item::Again { content: None, .. } | Item::Covers { .. } | Item::Destaged { .. } => {}
            }
        }
        let crc = seal_record(&self.map.log, &header, &entries[..entry_count], work.ports.bytes_mut(descriptor.id()));
        let previous_crc = core::mem::replace(&mut lane.last_crc, crc);
        lane.next_sequence += 1;
        lane.in_flight += 1;
        let mut record = Record {
            sequence,
            position,
            incarnation: self.map.incarnation,
            previous_crc,
            live,
            unanswered: 0,
            failed: 0,
            durable: false,
            descriptor: Some(descriptor),
            group,
        };
        let start = self.map.log_layout.ring_block(id, position);
        for (copy, device) in self.map.log_devices() {
            record.unanswered |= 1 << copy;
            let purpose = Purpose::Record { array: self.map.id, lane: id, sequence, copy };
            let blocks = payload[..payload_count].iter().copied();
            work.operations.start(work.ports, (device, start), DeviceOp::WriteDurable, blocks, purpose);
        }
        lane.records.push_back(record);
    }

    /// A copy has answered a record.
    pub(crate) fn record_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        id: LaneId,
        sequence: u64,
        copy: u8,
        result: Result<(), DeviceError>,
    ) {
        let excluded = !self.map.logs_to(copy);
        let record = self.lane(id).record_mut(sequence);
        record.unanswered &= !(1 << copy);
        if let Err(error) = result
            && !excluded
        {
            record.failed |= 1 << copy;
            self.copy_failed(copy, error);
        }
        self.apply_durable(work, id);
    }

    /// Applies records that have become durable, oldest first.
    fn apply_durable<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId) {
        if self.map.copies.iter().all(Option::is_none) {
            return;
        }
        loop {
            let lane = self.lane(id);
            let Some(first) = lane.records.len().checked_sub(lane.in_flight).filter(|_| lane.in_flight > 0) else {
                break;
            };
            let record = &mut lane.records[first];
            if record.unanswered != 0 || record.failed != 0 {
                break;
            }
            assert!(!record.durable, "a record is applied once");
            record.durable = true;
            let sequence = record.sequence;
            let (descriptor, group) = (record.descriptor.take(), record.group.take());
            lane.in_flight -= 1;
            assert_eq!(sequence, lane.durable_upto + 1, "records are applied in order");
            lane.durable_upto = sequence;
            self.send_home(work, descriptor.expect("a record under way has its descriptor"), Home::Scratch);
            if let Some(group) = group {
                self.apply(work, id, &group, sequence);
                self.lane(id).recycle(group);
            }
        }
        self.tail_may_move(id);
    }

    /// Records at the tail may be needed no longer.
    pub(super) fn tail_may_move(&mut self, id: LaneId) {
        let lane = self.lane(id);
        lane.trim();
        let tail = lane.tail().position;
        if tail > lane.space.tail() {
            lane.space.release_to(tail);
        }
    }

    /// What a durable transaction brings about.
    fn apply<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId, group: &Group, sequence: u64) {
        let mut place = 0;
        for item in &group.items {
            place += u8::from(item.has_payload());
            match *item {
                Item::Data { version, through, .. } => self.version_durable(work, id, version, through),
                Item::Zeros { block, count, through } => {
                    for (stripe, column) in run_of(&self.map.arrangement, block, count) {
                        let stripe = self.stripes.find(stripe).expect("a version keeps its stripe");
                        let version = self.stripes.oldest_logging(stripe, column, sequence);
                        self.version_durable(work, id, version, through);
                    }
                }
                Item::Again { version, .. } => self.logged_again(id, version, sequence, place),
                // It counts when the map says so.
                Item::Moved { .. } => {}
                Item::Parity { destage, index, .. } => self.parity_logged(destage, index),
                Item::Covers { .. } => {}
                Item::Destaged { destage, .. } => self.destage_recorded(work, destage),
            }
        }
        for told in &group.acknowledgements {
            self.answers.push_back((told.from, told.done()));
        }
    }

    /// The log holds a version for good; without a log: it is to go to the members.
    pub(super) fn version_durable<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        id: LaneId,
        version: VersionRef,
        through: u64,
    ) {
        let stripe = self.stripes.stripe_of(version);
        if through != 0 {
            self.stripes.wait(stripe, through);
        }
        if let Some((sequence, content)) = self.stripes.became_durable(version, work.now) {
            if !self.map.is_bare() {
                self.lane(id).forget(sequence);
            }
            self.give_back(work, content);
        }
        if through == 0 {
            self.leave_memory(work, version);
        }
        self.stripe_is_dirty(stripe, work.now);
    }

    /// Lists a stripe with durable versions for destaging, unless one is under way.
    pub(crate) fn stripe_is_dirty(&mut self, stripe: super::stripes::StripeRef, now: Time) {
        let entry = self.stripes.get_mut(stripe);
        let columns = self.map.arrangement.at(entry.id).data_slots();
        if entry.durable.count_ones() == u32::from(columns) && !entry.queued_full {
            (entry.queued_full, entry.full_since) = (true, now);
            self.full.push_back(stripe);
        }
        if entry.destage.is_none() {
            let lane = self.lanes[entry.lane.index()].as_mut().expect("only the owner has its stripes");
            let is_blocked = entry.lost != 0 && entry.durable & !entry.tried == 0;
            let list = match entry.logged {
                _ if is_blocked => Listed::Blocked,
                0 if entry.listed != Some(Listed::Logged) => Listed::Dirty,
                _ => Listed::Logged,
            };
            self.stripes.list(&mut lane.stripes, list, stripe);
        }
    }

    /// Writes an anchor at the tail if enough can be freed by it, or if someone waits for what it frees.
    fn move_anchor<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId) {
        let lane_blocks = self.map.log_layout.lane_blocks();
        let may_send = self.may_send(work);
        let lane = self.lanes[id.index()].as_mut().expect("the caller owns the lane");
        lane.anchor_wanted = false;
        if lane.anchor_write.is_some() || lane.tail().sequence == lane.anchor.tail_sequence {
            return;
        }
        let reclaimable = lane.space.reclaimable_blocks();
        let wanted = !lane.waiting.is_empty()
            || lane.closing == Closing::Anchoring
            || lane.catch_up.is_some_and(|from| lane.tail().sequence >= from)
            || reclaimable >= lane_blocks / 8 && lane.space.free_blocks() < lane_blocks / 2
            || reclaimable >= lane_blocks / 4;
        if !wanted {
            return;
        }
        if self.scratch.len() < 2 || !may_send {
            lane.anchor_wanted = true;
            return;
        }
        let tail = lane.tail();
        let anchor = Anchor {
            lane: id,
            update: lane.anchor.update + 1,
            tail_position: tail.position,
            tail_sequence: tail.sequence,
            tail_incarnation: tail.incarnation,
            tail_previous_crc: tail.previous_crc,
        };
        let buffer = self.scratch.pop().expect("there are two");
        anchor.encode(&self.map.log, work.ports.bytes_mut(buffer.id()));
        let start = self.map.log_layout.anchor_block(id, slot_of(anchor.update));
        let mut unanswered = 0;
        for (copy, device) in self.map.log_devices() {
            unanswered |= 1 << copy;
            let purpose = Purpose::Anchor { array: self.map.id, lane: id, copy };
            let blocks = core::iter::once(buffer.id());
            work.operations.start(work.ports, (device, start), DeviceOp::WriteDurable, blocks, purpose);
        }
        lane.anchor_write = Some(AnchorWrite { anchor, unanswered, failed: 0, buffer });
    }

    /// A copy has answered an anchor.
    pub(crate) fn anchor_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        id: LaneId,
        copy: u8,
        result: Result<(), DeviceError>,
    ) {
        let excluded = !self.map.logs_to(copy);
        let write = self.lane(id).anchor_write.as_mut().expect("an answer to the anchor under way");
        write.unanswered &= !(1 << copy);
        if let Err(error) = result
            && !excluded
        {
            write.failed |= 1 << copy;
            self.copy_failed(copy, error);
        }
        self.anchor_durable(work, id);
    }

    /// Once the anchor is on every copy, what lies before it is free (rule L1).
    fn anchor_durable<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId) {
        let lost = self.map.copies.iter().all(Option::is_none);
        let lane = self.lanes[id.index()].as_mut().expect("the caller owns the lane");
        let Some(write) = lane.anchor_write.take_if(|write| write.unanswered == 0 && (write.failed == 0 || lost))
        else {
            return;
        };
        if !lost {
            lane.anchor = write.anchor;
            lane.space.tail_is_durable(write.anchor.tail_position);
            lane.catch_up.take_if(|from| write.anchor.tail_sequence >= *from);
            if lane.closing == Closing::Anchoring && write.anchor.tail_sequence == lane.durable_upto {
                lane.closing = Closing::Closed;
            }
        }
        self.send_home(work, write.buffer, Home::Scratch);
    }

    /// The map has changed: what a copy failed that is now excluded counts without it.
    pub(crate) fn copies_changed<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let present = self.map.log_devices().fold(0, |mask: u32, (copy, _)| mask | 1 << copy);
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes[index].as_mut() else { continue };
            let id = lane.id;
            for record in &mut lane.records {
                record.failed &= present;
            }
            if let Some(write) = &mut lane.anchor_write {
                write.failed &= present;
            }
            self.apply_durable(work, id);
            self.anchor_durable(work, id);
        }
    }

    /// A clean stop, lane by lane: once nothing is dirty, an empty transaction, and the anchor moved to it.
    pub(crate) fn close<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if !self.stopping || self.stripes.held() > 0 || !self.destages.is_empty() || !self.log_reads.is_empty() {
            return;
        }
        if !self.reads.is_empty() || !self.updates.is_empty() || !self.walker.is_idle() {
            return;
        }
        if self.map.service == Service::Draining {
            return;
        }
        // With a log, too: that may have come back.
        if !self.leave_clean(work) {
            return;
        }
        if self.map.is_bare() {
            self.lanes.iter_mut().flatten().for_each(|lane| lane.closing = Closing::Closed);
            return;
        }
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes[index].as_mut() else { continue };
            let id = lane.id;
            match lane.closing {
                Closing::No => {
                    let quiet = lane.is_quiet() && self.scratch.len() > 2;
                    if quiet && self.may_send(work) {
                        self.send_open(work, id);
                        let sequence = self.lane(id).next_sequence - 1;
                        self.lane(id).closing = Closing::Marking(sequence);
                    }
                }
                Closing::Marking(sequence) => {
                    if lane.durable_upto >= sequence {
                        lane.closing = Closing::Anchoring;
                    }
                }
                Closing::Anchoring | Closing::Closed => {}
            }
        }
    }

    /// Whether a lane could take a parity record or a note now.
    pub(crate) fn lane_fits(&self, id: LaneId, entries: usize, payload: usize) -> bool {
        self.lanes[id.index()].as_ref().is_some_and(|lane| lane.fits(entries, payload))
    }

    /// Adds to a lane's open transaction.
    pub(crate) fn log(&mut self, id: LaneId, item: Item, now: Time) {
        self.lane(id).push(item, now);
    }

    /// Who is told, by fragment, in the mode of this array: at once for write-back, if the log bears it.
    pub(crate) fn acknowledges_from_log(&self) -> bool {
        self.map.mode == LogMode::WriteBack && !self.is_short_of_copies()
    }
}

/// The stripes and columns of a run of blocks in one chunk: one column of consecutive stripes.
pub(crate) fn run_of(
    arrangement: &Arrangement,
    start: ArrayBlock,
    count: u32,
) -> impl Iterator<Item = (StripeId, u8)> + use<> {
    let place = arrangement.locate(start);
    (0..u64::from(count)).map(move |at| (StripeId(place.stripe.0 + at), place.column))
}

const _: () = assert!(MAX_FRAGMENT_BLOCKS as usize <= MAX_ENTRIES);
const _: () = assert!(MAX_FRAGMENT_BLOCKS <= journal::MAX_ZEROS_BLOCKS, "the zeros of a fragment are one entry");
// A pad and its record go together, so one more than the limit may be under way.
const _: () = assert!(RECORDS_IN_FLIGHT < journal::MAX_IN_FLIGHT);
