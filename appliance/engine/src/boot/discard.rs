//! A log that is damaged on all its copies keeps its array from being served. If no copy can be had that is whole, the operator
//! may give up what is lost: first it is worked out and said what that is, then, and only if it is wanted, each damaged lane is
//! cut off where the damage begins. Records before that are kept, and recovered by the next start; if not even the first can be
//! read, the lane begins anew.
//!
//! What was acknowledged and lay in lost records alone is lost. And members may hold stripes that were being written then: their
//! parities or mirrors need not match, and nobody knows which. A scrub finds them.

use std::collections::BTreeSet;

use base::ids::{ArrayBlock, DeviceId, LaneId};
use base::{Block, ZERO_BLOCK};
use journal::{Anchor, Entry, LogIdentity, LogLayout, LogReader, RecoveryError, format_lane, open_record, scan_lane};
use ports::SyncDevice;
use raid::Wanted;

use super::BootError;
use super::assemble::{check_logs, log_candidates, look};
use super::create::Writer;
use super::recovery::Copies;

/// Runs of blocks that a plan names for a lane at most.
const MAX_RUNS: usize = 256;

/// Blocks that are erased in one piece.
const ERASE_BLOCKS: u64 = 128;

/// What would be given up.
#[derive(Clone, Debug)]
pub struct DiscardPlan {
    copies: Vec<DeviceId>,
    identity: LogIdentity,
    layout: LogLayout,
    epoch: u64,
    incarnation: u64,
    /// The lanes that are damaged.
    pub lanes: Vec<DamagedLane>,
    /// How many are not.
    pub whole: usize,
}

/// A lane that is damaged.
#[derive(Clone, Debug)]
pub struct DamagedLane {
    /// Which.
    pub lane: LaneId,
    /// In which way.
    pub error: RecoveryError,
    /// The positions, in blocks, from which on and up to which nothing is kept; none is all of the lane.
    cut: Option<(u64, u64)>,
    /// The sequence of the first record that is lost; 0 if not even that is known.
    pub first_lost: u64,
    /// The highest sequence that is known to have been acknowledged; 0 if that is not known.
    pub acknowledged_upto: u64,
    /// Array blocks that lost records name which can still be read: some of what is lost. Runs of first block and count.
    pub known_blocks: Vec<(ArrayBlock, u32)>,
}

impl DamagedLane {
    /// Whether the lane begins anew, since nothing of it can be kept.
    pub const fn is_anew(&self) -> bool {
        self.cut.is_none()
    }
}

/// Works out what would be given up of an array's log. Nothing is written.
pub fn plan_discard<D: SyncDevice>(
    devices: &mut [Option<D>],
    array: &str,
    force: bool,
) -> Result<DiscardPlan, BootError> {
    let looked = look(devices)?;
    let assembly = raid::assemble(Wanted::Named(array), &looked.candidates, &log_candidates(&looked.logs), force)?;
    let of = |device: &Option<DeviceId>| {
        let found = looked.logs.iter().find(|(id, _)| Some(*id) == *device);
        found.map(|(_, log)| log.clone())
    };
    let logs: Vec<_> = assembly.copies.iter().map(of).collect();
    check_logs(&assembly, &logs)?;
    let impossible = || BootError::Impossible { array: array.to_owned(), what: "it has no log".to_owned() };
    let log = logs.iter().flatten().max_by_key(|log| (log.epoch, log.update)).ok_or_else(impossible)?;
    let copies: Vec<DeviceId> = assembly.copies.iter().flatten().copied().collect();
    let incarnation = logs.iter().flatten().map(|log| log.incarnation).max().unwrap_or(1);
    let (identity, layout) = (log.identity, log.layout);
    let mut plan = DiscardPlan { copies, identity, layout, epoch: log.epoch, incarnation, lanes: Vec::new(), whole: 0 };
    for lane in (0..layout.lanes()).map(LaneId) {
        let mut reader = Copies::new(devices, &plan.copies);
        match scan_lane(&mut reader, &layout, &identity, lane) {
            Ok(_) => plan.whole += 1,
            Err(error) => plan.lanes.push(damaged(&mut reader, &layout, &identity, lane, error, array)?),
        }
    }
    Ok(plan)
}

/// What is lost of a lane.
fn damaged(
    reader: &mut impl LogReader,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    error: RecoveryError,
    array: &str,
) -> Result<DamagedLane, BootError> {
    let anchor = newest_anchor(reader, layout, identity, lane);
    let (first_lost, position, acknowledged_upto) = match error {
        RecoveryError::Damaged { sequence, position, acknowledged_upto, .. } => (sequence, position, acknowledged_upto),
        RecoveryError::Unreadable { sequence, position, .. } => (sequence, position, 0),
        RecoveryError::NoAnchor { .. } => (0, 0, 0),
        // Not damage, but more than this program knows, or a mistake: neither is given up by it.
        RecoveryError::NewerVersion { .. } | RecoveryError::NewerAnchor { .. } | RecoveryError::Inconsistent { .. } => {
            return Err(BootError::Log { array: array.to_owned(), error });
        }
    };
    let tail = anchor.map(|anchor| anchor.tail_position);
    let end = tail.map_or(layout.lane_blocks(), |tail| tail + layout.lane_blocks());
    let known_blocks = readable(reader, layout, identity, lane, (position, end), first_lost);
    // An anchor needs the record that it names.
    let cut = tail.filter(|tail| *tail < position).map(|_| (position, end));
    Ok(DamagedLane { lane, error, cut, first_lost, acknowledged_upto, known_blocks })
}

fn newest_anchor(
    reader: &mut impl LogReader,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
) -> Option<Anchor> {
    let mut newest: Option<Anchor> = None;
    for copy in 0..reader.copies() {
        for slot in 0..2 {
            let mut block = [ZERO_BLOCK];
            if reader.read(copy, layout.anchor_block(lane, slot), &mut block).is_ok()
                && let Ok(anchor) = Anchor::decode(identity, lane, &block[0])
            {
                newest = newest.filter(|known| known.update >= anchor.update).or(Some(anchor));
            }
        }
    }
    newest
}

/// The array blocks of records that can still be read at these positions and are not older than the first that is lost.
fn readable(
    reader: &mut impl LogReader,
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    (from, to): (u64, u64),
    first_lost: u64,
) -> Vec<(ArrayBlock, u32)> {
    let mut runs = BTreeSet::new();
    for position in from..to {
        let place = layout.ring_block(lane, position);
        for copy in 0..reader.copies() {
            let mut block: [Block; 1] = [ZERO_BLOCK];
            let Ok(()) = reader.read(copy, place, &mut block) else { continue };
            let Ok(record) = open_record(identity, &block[0]) else { continue };
            let header = record.header;
            let is_here = header.lane == lane && layout.ring_block(lane, header.position) == place;
            if !is_here || header.sequence < first_lost {
                continue;
            }
            runs.extend(record.entries.filter_map(|entry| match entry {
                Entry::Data { block, .. } => Some((block.0, 1)),
                Entry::Zeros { block, count } => Some((block.0, count)),
                Entry::Parity { .. } | Entry::Covers { .. } | Entry::Destaged { .. } => None,
            }));
        }
    }
    joined(runs)
}

/// Runs that touch become one.
fn joined(runs: BTreeSet<(u64, u32)>) -> Vec<(ArrayBlock, u32)> {
    let mut all: Vec<(ArrayBlock, u32)> = Vec::new();
    for (block, count) in runs {
        match all.last_mut() {
            Some((start, length)) if start.0 + u64::from(*length) >= block => {
                let end = (block + u64::from(count)).max(start.0 + u64::from(*length));
                *length = u32::try_from(end - start.0).unwrap_or(u32::MAX);
                continue;
            }
            _ => {}
        }
        if all.len() == MAX_RUNS {
            break;
        }
        all.push((ArrayBlock(block), count));
    }
    all
}

/// Gives it up. If it is cut, it is begun again by another plan.
pub fn discard<D: SyncDevice>(devices: &mut [Option<D>], plan: &DiscardPlan) -> Result<(), BootError> {
    for damaged in &plan.lanes {
        for &copy in &plan.copies {
            let mut device = Writer::new(devices, copy)?;
            match damaged.cut {
                Some(cut) => erase(&mut device, &plan.layout, damaged.lane, cut)?,
                None => begin_anew(&mut device, plan, damaged.lane)?,
            }
            device.flush()?;
        }
    }
    Ok(())
}

/// Writes zeros to positions of a lane.
fn erase<D: SyncDevice>(
    device: &mut Writer<'_, D>,
    layout: &LogLayout,
    lane: LaneId,
    (from, to): (u64, u64),
) -> Result<(), BootError> {
    let zeros = vec![ZERO_BLOCK; ERASE_BLOCKS as usize];
    let mut at = from;
    while at < to {
        let count = (to - at).min(ERASE_BLOCKS).min(layout.blocks_to_ring_end(at));
        device.write(layout.ring_block(lane, at), &zeros[..count as usize])?;
        at += count;
    }
    Ok(())
}

/// A lane as formatting leaves it.
fn begin_anew<D: SyncDevice>(device: &mut Writer<'_, D>, plan: &DiscardPlan, lane: LaneId) -> Result<(), BootError> {
    let DiscardPlan { identity, layout, epoch, incarnation, .. } = plan;
    for slot in 0..2 {
        device.write(layout.anchor_block(lane, slot), &[ZERO_BLOCK])?;
    }
    erase(device, layout, lane, (0, layout.lane_blocks()))?;
    device.flush()?;
    let (blocks, _) = format_lane(layout, identity, lane, *incarnation, *epoch, 0);
    for (place, block) in blocks {
        device.write(place, &[block])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_touch_are_one_and_no_more_are_named_than_people_read() {
        let runs = |list: &[(u64, u32)]| joined(list.iter().copied().collect());
        let block = ArrayBlock;
        assert_eq!(runs(&[(0, 1), (1, 1), (2, 4), (3, 1), (9, 2)]), [(block(0), 6), (block(9), 2)]);
        assert_eq!(runs(&[]), []);
        let many: Vec<(u64, u32)> = (0..1000).map(|at| (2 * at, 1)).collect();
        assert_eq!(runs(&many).len(), MAX_RUNS);
    }
}
