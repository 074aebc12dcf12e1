//! One lane from what its copies hold to a state that can be served from: scan, repair of copies, replay of logged parity,
//! and the opening record of the new incarnation. Everything is done again if it is cut, with the same outcome: until the
//! opening record is durable nothing that recovery reads has been changed but by writing the same content to where it was
//! missing.
//!
//! 1. The records from the tail to the end are found (`journal::scan_lane`); a damaged log stops here.
//! 2. Records that some copy lacks are rewritten to it, so that the end found now is the end for ever (rule L6), and so is
//!    the anchor.
//! 3. Stripes whose parity was logged are written, covered versions and parity, to all present members, and these flushed
//!    (rule L5).
//! 4. The opening record names the incarnation before, and the stripes of step 3 as destaged. It is durable on all copies
//!    before anything is served (rule L2).

use core::ops::RangeInclusive;

use base::ids::{ArrayBlock, DeviceBlock, DeviceId, LaneId, Slot, StripeId};
use base::{Block, ZERO_BLOCK};
use journal::{
    Content, Covered, Entry, LaneScan, LaneSpace, LogIdentity, LogLayout, LogReader, MAX_ENTRIES, PayloadAt, ReadFault,
    RecordHeader, RecordKind, RecoveryError, ReplayPlan, fold, open_record, payload_crc, scan_lane, seal_record,
    slot_of,
};
use ports::{DeviceError, SyncDevice};
use raid::{Arrangement, Checksummed, Growth, checksum, slots};

use super::BootError;
use crate::array::{LaneStart, RecoveredBlock, RecoveredContent, Residency};
use crate::map::ArrayMap;

/// What recovery of a lane did, for the log and for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneReport {
    /// Whether the lane had been stopped in good order.
    pub clean: bool,
    /// Records from tail to end.
    pub records: u64,
    /// Whether something was being written when it stopped.
    pub torn: bool,
    /// Records written again to a copy that lacked them.
    pub repaired_records: u64,
    /// Anchors written again to a copy that lacked them.
    pub repaired_anchors: u64,
    /// Stripes whose logged parity was replayed.
    pub replayed_stripes: u64,
    /// Blocks that wait in the log for being destaged.
    pub dirty_blocks: u64,
}

/// A lane that can be served from.
pub(super) struct RecoveredLane {
    pub(super) start: LaneStart,
    pub(super) blocks: Vec<RecoveredBlock>,
    pub(super) report: LaneReport,
}

/// The usable copies of the log, for reading.
pub(super) struct Copies<'a, D> {
    devices: &'a mut [Option<D>],
    copies: Vec<DeviceId>,
}

impl<'a, D: SyncDevice> Copies<'a, D> {
    /// These devices, which are there.
    pub(super) fn new(devices: &'a mut [Option<D>], copies: &[DeviceId]) -> Self {
        Self { devices, copies: copies.to_vec() }
    }
}

impl<D: SyncDevice> LogReader for Copies<'_, D> {
    fn copies(&self) -> usize {
        self.copies.len()
    }

    fn read(&mut self, copy: usize, start: DeviceBlock, into: &mut [Block]) -> Result<(), ReadFault> {
        let device = self.devices[self.copies[copy].index()].as_mut().ok_or(ReadFault)?;
        device.read(start, into).map_err(|_| ReadFault)
    }
}

impl<D: SyncDevice> Copies<'_, D> {
    fn write(&mut self, copy: usize, start: DeviceBlock, blocks: &[Block]) -> Result<(), BootError> {
        let id = self.copies[copy];
        let device = self.devices[id.index()].as_mut().ok_or(BootError::DeviceLost { device: id })?;
        device.write(start, blocks).map_err(|error| BootError::Device { device: id, error })
    }

    fn flush(&mut self) -> Result<(), BootError> {
        for &id in &self.copies {
            let device = self.devices[id.index()].as_mut().ok_or(BootError::DeviceLost { device: id })?;
            device.flush().map_err(|error| BootError::Device { device: id, error })?;
        }
        Ok(())
    }

    /// A payload block from any copy where it verifies.
    fn payload(&mut self, map: &ArrayMap, lane: LaneId, at: PayloadAt) -> Result<Box<Block>, BootError> {
        let mut block = Box::new(ZERO_BLOCK);
        let start = map.log_layout.ring_block(lane, at.position);
        for copy in 0..self.copies.len() {
            if self.read(copy, start, core::slice::from_mut(&mut block)).is_ok()
                && payload_crc(&map.log, &block) == at.crc
            {
                return Ok(block);
            }
        }
        Err(BootError::LogChanged { array: map.name.clone(), lane })
    }
}

/// Reads all lanes of a log from these copies, before anything is written: a damaged log is left as it was.
pub(super) fn scan_lanes<D: SyncDevice>(
    devices: &mut [Option<D>],
    copies: &[Option<DeviceId>],
    layout: &LogLayout,
    identity: &LogIdentity,
) -> Result<Vec<LaneScan>, RecoveryError> {
    let mut copies = Copies { devices, copies: copies.iter().flatten().copied().collect() };
    (0..layout.lanes()).map(LaneId).map(|lane| scan_lane(&mut copies, layout, identity, lane)).collect()
}

/// What the records of a lane come to, for an array whose blocks lie so; nothing is written.
pub(super) fn plan_lane(
    scan: &LaneScan,
    arrangement: &Arrangement,
    growth: Option<&Growth>,
    geometry_epoch: u32,
) -> Result<ReplayPlan, RecoveryError> {
    let lane = scan.lane;
    let epochs = epochs_of(arrangement, growth, geometry_epoch);
    if let Some(record) = scan.records.iter().find(|record| !epochs.contains(&record.header.geometry_epoch)) {
        let what = "it was logged when the array's blocks lay elsewhere than the members say";
        return Err(RecoveryError::Inconsistent { lane, sequence: record.header.sequence, what });
    }
    let reshape = growth.map(|growth| growth.reshape(arrangement.geometry()).expect("what was decoded can be"));
    let stripe_of = |epoch, block: ArrayBlock| {
        let then = match &reshape {
            Some(reshape) => Arrangement::reshaping(reshape.steps_ago(u64::from(geometry_epoch - epoch))),
            None => *arrangement,
        };
        then.find(block).map(|place| place.stripe)
    };
    let plan = fold(scan, geometry_epoch, stripe_of)?;
    for covered in plan.stripes.values().filter_map(|replay| replay.covered.as_ref()) {
        if covered.parity.iter().any(|(index, _)| *index >= arrangement.parities()) {
            let what = "it logs a parity that the array's level does not have";
            return Err(RecoveryError::Inconsistent { lane, sequence: covered.sequence, what });
        }
    }
    Ok(plan)
}

/// The geometry epochs that records may say: the one in force; while the array grows the next one, since a window may have been
/// about to move; and as long as it is known where blocks lay before, earlier ones.
fn epochs_of(arrangement: &Arrangement, growth: Option<&Growth>, in_force: u32) -> RangeInclusive<u32> {
    let first = if growth.is_some() { 0 } else { in_force };
    let last = if arrangement.reshape().is_some() { in_force + 1 } else { in_force };
    first..=last
}

/// Recovers one lane of an array whose map is already that of this start.
pub(super) fn recover_lane<D: SyncDevice>(
    devices: &mut [Option<D>],
    map: &ArrayMap,
    scan: &LaneScan,
    plan: &ReplayPlan,
    residency: Residency,
) -> Result<RecoveredLane, BootError> {
    let lane = scan.lane;
    let mut copies = Copies { devices, copies: map.copies.iter().flatten().copied().collect() };
    let mut report = LaneReport {
        clean: scan.is_clean_stop(),
        records: scan.records.len() as u64,
        torn: scan.end != journal::EndOfLog::Clean,
        repaired_records: repair(&mut copies, map, scan)?,
        ..LaneReport::default()
    };

    report.repaired_anchors = u64::from(repair_anchor(&mut copies, map, scan)?);

    let mut destaged = Vec::new();
    for (&stripe, replay) in &plan.stripes {
        // Replayed even where the log holds every column: no later destage of the stripe has begun, since that waits for the
        // note of this one, so the members hold a mixture of old and covered blocks and nothing else. With the note in the
        // opening record the covered versions may leave the log.
        if let Some(covered) = &replay.covered {
            replay_stripe(&mut copies, map, lane, stripe, covered)?;
            destaged.push((stripe, covered.upto));
            report.replayed_stripes += 1;
        }
    }
    if !destaged.is_empty() {
        flush_members(&mut copies, map)?;
    }
    let start = open(&mut copies, map, scan, &destaged)?;

    let position = |sequence| {
        let at = scan.records.binary_search_by_key(&sequence, |record| record.header.sequence);
        scan.records[at.expect("what is dirty stands in a record")].header.position
    };
    let mut blocks = Vec::new();
    for replay in plan.stripes.values() {
        let replayed = replay.covered.as_ref().map_or(0, |covered| covered.upto);
        for (&block, version) in replay.dirty.iter().filter(|(_, version)| version.sequence > replayed) {
            let sequence = version.sequence;
            let (crc, place, content) = match version.content {
                Content::Zeros => (0, 0, RecoveredContent::Zeros),
                Content::Payload(at) => {
                    let place = u8::try_from(at.position - position(sequence)).expect("a record is short");
                    let content = match residency {
                        Residency::Memory => RecoveredContent::Held(copies.payload(map, lane, at)?),
                        // It was read when the log was scanned, and may be more than fits memory.
                        Residency::Log => RecoveredContent::Logged,
                    };
                    (at.crc, place, content)
                }
            };
            blocks.push(RecoveredBlock { block, sequence, crc, place, content });
        }
    }
    report.dirty_blocks = blocks.len() as u64;
    Ok(RecoveredLane { start, blocks, report })
}

/// Writes the anchor that counts to the copies that lack it, in its own place and at its own update: space is free only from
/// the tail that is durable on *every* copy (rule L1), and a copy that held an older anchor alone would lead a later
/// recovery to records that were overwritten. Whether some copy lacked it.
fn repair_anchor<D: SyncDevice>(
    copies: &mut Copies<'_, D>,
    map: &ArrayMap,
    scan: &LaneScan,
) -> Result<bool, BootError> {
    let mut block = ZERO_BLOCK;
    scan.anchor.encode(&map.log, &mut block);
    let place = map.log_layout.anchor_block(scan.lane, slot_of(scan.anchor.update));
    let mut repaired = false;
    for copy in 0..copies.copies.len() {
        let mut there = ZERO_BLOCK;
        if copies.read(copy, place, core::slice::from_mut(&mut there)).is_err() || there != block {
            copies.write(copy, place, core::slice::from_ref(&block))?;
            repaired = true;
        }
    }
    if repaired {
        copies.flush()?;
    }
    Ok(repaired)
}

/// Writes every record that some copy lacks to the copies that lack it; how many.
fn repair<D: SyncDevice>(copies: &mut Copies<'_, D>, map: &ArrayMap, scan: &LaneScan) -> Result<u64, BootError> {
    let all = (1 << copies.copies.len()) - 1;
    let mut repaired = 0;
    for record in scan.records.iter().filter(|record| record.good_copies != all) {
        let header = &record.header;
        let start = map.log_layout.ring_block(scan.lane, header.position);
        let mut blocks = vec![descriptor(copies, map, scan.lane, record.crc, start)?];
        let payloads = record.entries.iter().filter_map(Entry::payload_crc);
        for (position, crc) in (header.position + 1..).zip(payloads) {
            blocks.push(*copies.payload(map, scan.lane, PayloadAt { position, crc })?);
        }
        for copy in (0..copies.copies.len()).filter(|copy| record.good_copies & 1 << copy == 0) {
            copies.write(copy, start, &blocks)?;
        }
        repaired += 1;
    }
    if repaired > 0 {
        copies.flush()?;
    }
    Ok(repaired)
}

fn descriptor<D: SyncDevice>(
    copies: &mut Copies<'_, D>,
    map: &ArrayMap,
    lane: LaneId,
    crc: u32,
    start: DeviceBlock,
) -> Result<Block, BootError> {
    let mut block = ZERO_BLOCK;
    for copy in 0..copies.copies.len() {
        let read = copies.read(copy, start, core::slice::from_mut(&mut block));
        if read.is_ok() && open_record(&map.log, &block).is_ok_and(|record| record.crc == crc) {
            return Ok(block);
        }
    }
    Err(BootError::LogChanged { array: map.name.clone(), lane })
}

/// Writes what logged parity covers, and the parity, to the members that are there.
fn replay_stripe<D: SyncDevice>(
    copies: &mut Copies<'_, D>,
    map: &ArrayMap,
    lane: LaneId,
    stripe: StripeId,
    covered: &Covered,
) -> Result<(), BootError> {
    for (block, version) in &covered.versions {
        let content = match version.content {
            Content::Zeros => Box::new(ZERO_BLOCK),
            Content::Payload(at) => copies.payload(map, lane, at)?,
        };
        let place = map.arrangement.locate(*block);
        for home in slots(map.arrangement.at(place.stripe).homes(place.stripe, place.column)) {
            write_member(copies, map, home, stripe, &content)?;
        }
    }
    for &(index, at) in &covered.parity {
        let content = copies.payload(map, lane, at)?;
        write_member(copies, map, map.arrangement.at(stripe).parity_member(stripe, index), stripe, &content)?;
    }
    Ok(())
}

fn write_member<D: SyncDevice>(
    copies: &mut Copies<'_, D>,
    map: &ArrayMap,
    slot: Slot,
    stripe: StripeId,
    content: &Block,
) -> Result<(), BootError> {
    let Some((id, at)) = map.on_member(slot, stripe) else { return Ok(()) };
    let device = copies.devices[id.index()].as_mut().ok_or(BootError::DeviceLost { device: id })?;
    device.write(at, core::slice::from_ref(content)).map_err(|error| BootError::Device { device: id, error })?;
    match map.members[slot.index()].and_then(|member| member.checksums) {
        Some(start) => {
            enter(device, map, (slot, start), stripe, content).map_err(|error| BootError::Device { device: id, error })
        }
        None => Ok(()),
    }
}

/// Sets the checksum of a block.
fn enter<D: SyncDevice>(
    device: &mut D,
    map: &ArrayMap,
    (slot, start): (Slot, DeviceBlock),
    stripe: StripeId,
    content: &Block,
) -> Result<(), DeviceError> {
    let zone_stripes = map.arrangement.zone_stripes();
    let of = Checksummed { array: map.uuid, slot };
    let place = checksum::block_of(stripe, zone_stripes);
    let at = DeviceBlock(start.0 + place);
    let mut block = ZERO_BLOCK;
    match device.read(at, core::slice::from_mut(&mut block)) {
        Ok(()) => _ = of.open(place, &mut block),
        Err(DeviceError::Unreadable) => checksum::forget_all(&mut block),
        Err(error) => return Err(error),
    }
    checksum::set_entry(&mut block, stripe, zone_stripes, of.entry(stripe, content));
    of.seal(place, &mut block);
    device.write(at, core::slice::from_ref(&block))
}

fn flush_members<D: SyncDevice>(copies: &mut Copies<'_, D>, map: &ArrayMap) -> Result<(), BootError> {
    for member in map.members.iter().flatten() {
        let id = member.device;
        let device = copies.devices[id.index()].as_mut().ok_or(BootError::DeviceLost { device: id })?;
        device.flush().map_err(|error| BootError::Device { device: id, error })?;
    }
    Ok(())
}

/// Writes the opening record of this incarnation, with what was replayed as destaged; more records if one does not hold it.
fn open<D: SyncDevice>(
    copies: &mut Copies<'_, D>,
    map: &ArrayMap,
    scan: &LaneScan,
    destaged: &[(StripeId, u64)],
) -> Result<LaneStart, BootError> {
    let lane = scan.lane;
    let mut space = LaneSpace::new(&map.log_layout, scan.anchor.tail_position, scan.next_position);
    let mut records: Vec<_> = scan
        .records
        .iter()
        .map(|record| {
            (record.header.sequence, record.header.position, record.header.incarnation, record.header.previous_crc)
        })
        .collect();
    let (mut sequence, mut last_crc) = (scan.next_sequence, scan.last_crc);
    let mut kind = RecordKind::Opening { previous_incarnation: scan.last_incarnation };
    let mut rest = destaged;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_ENTRIES));
        let placement = space.place(1, 0).ok_or_else(|| BootError::LogFull { array: map.name.clone(), lane })?;
        space.take(&placement);
        let header = RecordHeader {
            kind,
            lane,
            incarnation: map.incarnation,
            geometry_epoch: map.geometry_epoch,
            array_epoch: map.epoch,
            sequence,
            position: placement.position,
            length_blocks: 1,
            // Recovery has made everything before it durable on every copy.
            durable_upto: sequence - 1,
            previous_crc: last_crc,
        };
        let entry = |&(stripe, upto): &(StripeId, u64)| Entry::Destaged { stripe, lag: (sequence - upto) as u32 };
        let entries: Vec<Entry> = now.iter().map(entry).collect();
        let mut block = ZERO_BLOCK;
        records.push((sequence, placement.position, map.incarnation, last_crc));
        last_crc = seal_record(&map.log, &header, &entries, &mut block);
        let start = map.log_layout.ring_block(lane, placement.position);
        for copy in 0..copies.copies.len() {
            copies.write(copy, start, core::slice::from_ref(&block))?;
        }
        // The next one claims that this one is durable.
        copies.flush()?;
        sequence += 1;
        kind = RecordKind::Transaction;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    Ok(LaneStart { lane, space, records, last_crc, anchor: scan.anchor })
}
