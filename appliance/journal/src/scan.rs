//! The walk over a lane, from the record that the anchor names to the end of the log (rules L2, L3, L6, L13). Everything
//! read is taken as hostile; nothing is written, so a scan can be cut anywhere and done again.
//!
//! Each record must continue the chain: this log and lane, the next sequence, its own virtual position, the checksum of
//! the descriptor before, and the current incarnation or an opening that names it. A descriptor is taken from any copy
//! where it verifies, and *each payload* from any copy where that one does: copies are identical, so damage in different
//! blocks of both loses nothing. If copies hold different valid successors, the opening wins: it proves that a later start
//! ended the log here and served nothing of what another copy still shows.
//!
//! The price: one pass over the live records of all copies, checksums of payloads included, and one over the rest of
//! the ring for descriptors that would prove damage. Memory grows with live records, not with payloads.

use base::ids::LaneId;
use base::{Block, ZERO_BLOCK};
use thiserror::Error;

use crate::decision::{Evidence, Verdict, decide};
use crate::reader::{CopyMask, LogReader, Window};
use crate::record::{OpenRecord, RecordFault, RecordHeader, RecordKind, open_record, payload_crc};
use crate::{
    Anchor, AnchorFault, Entry, LogIdentity, LogLayout, MAX_COPIES, MAX_IN_FLIGHT, MAX_RECORD_BLOCKS, READ_BLOCKS,
};

/// More unreadable blocks than this behind a bad record are no tear: nothing else was being written.
pub const MAX_TORN_BLOCKS: u64 = (MAX_IN_FLIGHT * MAX_RECORD_BLOCKS) as u64;

/// A record that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedRecord {
    /// Its header.
    pub header: RecordHeader,
    /// Its entries, in order.
    pub entries: Vec<Entry>,
    /// Its descriptor's checksum.
    pub crc: u32,
    /// The copies on which descriptor and all payloads are good, one bit each. 0 is possible: each part was good
    /// somewhere. Any other than all copies means that recovery has to rewrite the record.
    pub good_copies: CopyMask,
}

/// How the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfLog {
    /// Nothing of a further record was seen.
    Clean,
    /// Something was being written.
    Torn {
        /// Copies whose descriptor of the next record is good (a payload is not).
        descriptors: CopyMask,
        /// Copies where the place of the next descriptor cannot be read.
        unreadable: CopyMask,
        /// Records of the last incarnation beyond the next one, which were in flight too.
        later_records: u64,
    },
}

/// A lane as recovery found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneScan {
    /// The lane.
    pub lane: LaneId,
    /// The anchor that the walk began at.
    pub anchor: Anchor,
    /// The records from tail to end: at least one, sequences without a gap.
    pub records: Vec<ScannedRecord>,
    /// Where the next record goes, or the pad before it.
    pub next_position: u64,
    /// The next record's sequence.
    pub next_sequence: u64,
    /// The checksum that the next record names.
    pub last_crc: u32,
    /// The incarnation that the next opening names.
    pub last_incarnation: u64,
    /// The highest sequence known to have been acknowledged, or durable because the anchor names it.
    pub durable_upto: u64,
    /// How the log ends.
    pub end: EndOfLog,
}

impl LaneScan {
    /// The record with a sequence.
    pub fn record(&self, sequence: u64) -> Option<&ScannedRecord> {
        let first = self.records.first()?.header.sequence;
        self.records.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// Whether the lane was stopped in good order: a single empty record and nothing after it.
    pub fn is_clean_stop(&self) -> bool {
        self.end == EndOfLog::Clean && self.records.len() == 1 && self.records[0].entries.is_empty()
    }
}

/// Why a lane cannot be recovered. All of these ask the operator; none is guessed away.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// The devices: every anchor of the lane is gone.
    #[error("lane {lane}: no valid anchor on any log copy ({fault}; {unreadable} of {slots} slots cannot be read)")]
    NoAnchor {
        /// The lane.
        lane: LaneId,
        /// What the last slot that could be read holds.
        fault: AnchorFault,
        /// Slots that cannot be read.
        unreadable: u32,
        /// Slots there are.
        slots: u32,
    },
    /// The devices: durable records are lost.
    #[error(
        "lane {lane}: record {sequence} at position {position} is damaged on every log copy; at least {lost} \
         acknowledged records from it on are lost (up to record {acknowledged_upto} was acknowledged)"
    )]
    Damaged {
        /// The lane.
        lane: LaneId,
        /// The first record that is lost.
        sequence: u64,
        /// Its position in blocks.
        position: u64,
        /// The highest sequence known to have been acknowledged or named by an anchor.
        acknowledged_upto: u64,
        /// How many acknowledged records are lost, at least.
        lost: u64,
        /// Copies where the record's descriptor is good and a payload is not.
        descriptors: CopyMask,
        /// Copies where its descriptor's place cannot be read.
        unreadable: CopyMask,
    },
    /// The devices: the end of the log cannot be found.
    #[error(
        "lane {lane}: no log copy can read {blocks} blocks from record {sequence} at position {position} on; \
         whether acknowledged records lie there cannot be told"
    )]
    Unreadable {
        /// The lane.
        lane: LaneId,
        /// The first record that may be lost.
        sequence: u64,
        /// Its position in blocks.
        position: u64,
        /// Blocks that no copy can read.
        blocks: u64,
    },
    /// The operator: this program is too old.
    #[error("lane {lane}: {fault}, at position {position}")]
    NewerVersion {
        /// The lane.
        lane: LaneId,
        /// Where, in blocks.
        position: u64,
        /// What was found.
        fault: RecordFault,
    },
    /// The operator: this program is too old.
    #[error("lane {lane}: {fault}")]
    NewerAnchor {
        /// The lane.
        lane: LaneId,
        /// What was found.
        fault: AnchorFault,
    },
    /// Us: records that verify contradict each other.
    #[error("lane {lane}: record {sequence} contradicts the log: {what}")]
    Inconsistent {
        /// The lane.
        lane: LaneId,
        /// The record.
        sequence: u64,
        /// In which way.
        what: &'static str,
    },
}

/// What the next record must continue.
struct Chain {
    sequence: u64,
    position: u64,
    previous_crc: u32,
    incarnation: u64,
    at_tail: bool,
    /// The first position that cannot hold a record without overwriting the tail.
    limit: u64,
}

/// What was found where the next record should be.
struct Look {
    record: Option<ScannedRecord>,
    descriptors: CopyMask,
    unreadable: CopyMask,
    /// Some copy holds the beginning of a descriptor that does not verify.
    torn: bool,
}

/// What was found beyond a bad record.
#[derive(Default)]
struct Beyond {
    acknowledged_upto: u64,
    later_records: u64,
    unreadable_blocks: u64,
    blocks: u64,
}

/// Recovers a lane from what the reader's copies hold.
///
/// # Panics
/// If the lane is not one of the layout's or there are too many copies.
pub fn scan_lane(
    reader: &mut impl LogReader,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
) -> Result<LaneScan, RecoveryError> {
    assert!((1..=MAX_COPIES).contains(&reader.copies()), "{} log copies", reader.copies());
    let anchor = newest_anchor(reader, layout, identity, lane)?;
    let mut window = Window::new(reader, layout, lane);
    let mut chain = Chain {
        sequence: anchor.tail_sequence,
        position: anchor.tail_position,
        previous_crc: anchor.tail_previous_crc,
        incarnation: anchor.tail_incarnation,
        at_tail: true,
        limit: anchor.tail_position + layout.lane_blocks(),
    };
    let mut scan = LaneScan {
        lane,
        anchor,
        records: Vec::new(),
        next_position: chain.position,
        next_sequence: chain.sequence,
        last_crc: chain.previous_crc,
        last_incarnation: chain.incarnation,
        // An anchor names only what is durable on every copy.
        durable_upto: anchor.tail_sequence,
        end: EndOfLog::Clean,
    };
    // Bounded: each record moves the position on, and none reaches beyond the limit.
    while chain.position < chain.limit {
        let look = look(&mut window, layout, identity, lane, &chain)?;
        let Some(record) = look.record else {
            scan.end = judge(&mut window, layout, identity, lane, &chain, &look, scan.durable_upto)?;
            break;
        };
        chain.sequence += 1;
        chain.position += u64::from(record.header.length_blocks);
        chain.previous_crc = record.crc;
        chain.incarnation = record.header.incarnation;
        chain.at_tail = false;
        scan.durable_upto = scan.durable_upto.max(record.header.durable_upto);
        scan.records.push(record);
    }
    scan.next_position = chain.position;
    scan.next_sequence = chain.sequence;
    scan.last_crc = chain.previous_crc;
    scan.last_incarnation = chain.incarnation;
    Ok(scan)
}

fn newest_anchor(
    reader: &mut impl LogReader,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
) -> Result<Anchor, RecoveryError> {
    let mut newest: Option<Anchor> = None;
    let (mut last_fault, mut unreadable, mut slots) = (AnchorFault::NotAnAnchor, 0, 0);
    for copy in 0..reader.copies() {
        for slot in 0..2 {
            slots += 1;
            let mut block = [ZERO_BLOCK];
            if reader.read(copy, layout.anchor_block(lane, slot), &mut block).is_err() {
                unreadable += 1;
                continue;
            }
            match Anchor::decode(identity, lane, &block[0]) {
                Ok(anchor) if newest.is_none_or(|newest| anchor.update > newest.update) => newest = Some(anchor),
                Ok(_) => {}
                Err(fault @ AnchorFault::Version(_)) => return Err(RecoveryError::NewerAnchor { lane, fault }),
                Err(fault) => last_fault = fault,
            }
        }
    }
    newest.ok_or(RecoveryError::NoAnchor { lane, fault: last_fault, unreadable, slots })
}

/// Looks at the place of the next record on all copies.
fn look<R: LogReader>(
    window: &mut Window<'_, R>,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    chain: &Chain,
) -> Result<Look, RecoveryError> {
    window.load(chain.position, 1);
    let mut look = Look { record: None, descriptors: 0, unreadable: 0, torn: false };
    let mut best: Option<(RecordHeader, Vec<Entry>, u32)> = None;
    for copy in 0..window.copies() {
        let Some(block) = window.block(copy, chain.position) else {
            look.unreadable |= 1 << copy;
            continue;
        };
        match open_record(identity, block) {
            Ok(OpenRecord { header, entries, crc }) if continues(layout, lane, chain, &header) => match &best {
                Some((_, _, best_crc)) if *best_crc == crc => look.descriptors |= 1 << copy,
                Some((best_header, _, _)) if best_header.incarnation >= header.incarnation => {}
                _ => {
                    look.descriptors = 1 << copy;
                    best = Some((header, entries.collect(), crc));
                }
            },
            Ok(_) => {}
            Err(fault) if fault.is_newer_version() => {
                return Err(RecoveryError::NewerVersion { lane, position: chain.position, fault });
            }
            Err(fault) => look.torn |= fault == RecordFault::BadCrc,
        }
    }
    if let Some((header, entries, crc)) = best {
        let good = good_payloads(window, identity, &header, &entries);
        look.record = good.map(|copies| ScannedRecord { header, entries, crc, good_copies: look.descriptors & copies });
    }
    Ok(look)
}

/// Whether a record that verifies by itself is the one expected.
fn continues(layout: &LogLayout, lane: LaneId, chain: &Chain, header: &RecordHeader) -> bool {
    let length = u64::from(header.length_blocks);
    let incarnation_fits = match header.kind {
        // A tail may be an opening; what it names lies before the tail and was verified when it was written.
        _ if chain.at_tail => header.incarnation == chain.incarnation,
        RecordKind::Opening { previous_incarnation } => previous_incarnation == chain.incarnation,
        RecordKind::Transaction | RecordKind::Pad => header.incarnation == chain.incarnation,
    };
    let to_end = layout.blocks_to_ring_end(chain.position);
    let length_fits = if header.kind == RecordKind::Pad { length == to_end } else { length <= to_end };
    header.lane == lane
        && header.sequence == chain.sequence
        && header.position == chain.position
        && header.previous_crc == chain.previous_crc
        && incarnation_fits
        && length_fits
        && chain.position + length <= chain.limit
}

/// The copies on which every payload is good; nothing if some payload is good on no copy.
fn good_payloads<R: LogReader>(
    window: &mut Window<'_, R>,
    identity: &LogIdentity,
    header: &RecordHeader,
    entries: &[Entry],
) -> Option<CopyMask> {
    let mut all = (1 << window.copies()) - 1;
    let crcs = entries.iter().filter_map(Entry::payload_crc);
    if header.kind == RecordKind::Pad || header.length_blocks == 1 {
        return Some(all);
    }
    window.load(header.position, header.length_blocks as usize);
    for (at, crc) in (1..).zip(crcs) {
        let mut good = 0;
        for copy in 0..window.copies() {
            let block = window.block(copy, header.position + at);
            good |= CopyMask::from(block.is_some_and(|block| payload_crc(identity, block) == crc)) << copy;
        }
        if good == 0 {
            return None;
        }
        all &= good;
    }
    Some(all)
}

/// Tells a torn tail from damage.
fn judge<R: LogReader>(
    window: &mut Window<'_, R>,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    chain: &Chain,
    look: &Look,
    durable_upto: u64,
) -> Result<EndOfLog, RecoveryError> {
    let beyond = search(window, layout, identity, lane, chain)?;
    let Chain { sequence, position, at_tail, .. } = *chain;
    let acknowledged_upto = durable_upto.max(beyond.acknowledged_upto);
    let evidence = Evidence {
        verified: false,
        at_tail,
        contradicted: acknowledged_upto >= sequence,
        blind: beyond.unreadable_blocks > MAX_TORN_BLOCKS || beyond.unreadable_blocks == beyond.blocks,
    };
    match decide(evidence) {
        Verdict::Damaged => Err(RecoveryError::Damaged {
            lane,
            sequence,
            position,
            acknowledged_upto,
            lost: acknowledged_upto - sequence + 1,
            descriptors: look.descriptors,
            unreadable: look.unreadable,
        }),
        Verdict::CannotTell => {
            Err(RecoveryError::Unreadable { lane, sequence, position, blocks: beyond.unreadable_blocks })
        }
        Verdict::EndsHere if !look.torn && look.descriptors | look.unreadable == 0 && beyond.later_records == 0 => {
            Ok(EndOfLog::Clean)
        }
        Verdict::EndsHere => Ok(EndOfLog::Torn {
            descriptors: look.descriptors,
            unreadable: look.unreadable,
            later_records: beyond.later_records,
        }),
        Verdict::Continue => unreachable!("a record that does not verify is never taken"),
    }
}

/// Looks through all of the ring that no live record takes for descriptors beyond the bad one. Leftovers of earlier laps
/// and incarnations prove nothing: all they say was acknowledged lies before the sequence at which they were given up.
fn search<R: LogReader>(
    window: &mut Window<'_, R>,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    chain: &Chain,
) -> Result<Beyond, RecoveryError> {
    let mut beyond = Beyond::default();
    let mut position = chain.position;
    while position < chain.limit {
        let length = (chain.limit - position).min(layout.blocks_to_ring_end(position)).min(READ_BLOCKS as u64);
        window.load(position, length as usize);
        for at in position..position + length {
            let (mut readable, mut later) = (false, false);
            for copy in 0..window.copies() {
                let Some(block) = window.block(copy, at) else { continue };
                readable = true;
                let Some(header) = descriptor_at(layout, identity, lane, block, at)? else { continue };
                if header.sequence > chain.sequence {
                    beyond.acknowledged_upto = beyond.acknowledged_upto.max(header.durable_upto);
                    later |= header.incarnation == chain.incarnation;
                }
            }
            beyond.blocks += 1;
            beyond.unreadable_blocks += u64::from(!readable);
            beyond.later_records += u64::from(later);
        }
        position += length;
    }
    Ok(beyond)
}

/// The header of a record of this lane that lies where it says it does, whatever its lap.
fn descriptor_at(
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    block: &Block,
    at: u64,
) -> Result<Option<RecordHeader>, RecoveryError> {
    match open_record(identity, block) {
        Ok(record) if record.header.lane == lane => Ok((layout.ring_block(lane, record.header.position)
            == layout.ring_block(lane, at))
        .then_some(record.header)),
        Err(fault) if fault.is_newer_version() => Err(RecoveryError::NewerVersion { lane, position: at, fault }),
        Ok(_) | Err(_) => Ok(None),
    }
}
