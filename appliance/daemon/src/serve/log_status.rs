//! A log in detail, from what the shards say of its lanes and what was kept of the start.

use base::BLOCK;
use base::ids::DeviceId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::drives::array_of;
use super::methods::take;
use super::report::Reporter;
use crate::log_status::{CopyDetails, LaneDetails, LaneRecovery, LogDetails, RecoveryDetails};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    array: String,
}

/// The log of an array.
pub(super) fn call(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Of { array } = take(params)?;
    let at = array_of(reporter, &array)?;
    let shards = reporter.shards.statuses();
    let fixed = &reporter.fixed;
    let parts: Vec<_> = shards.iter().filter_map(|said| Some((said.shard, said.arrays.get(at)?))).collect();
    let newest = parts.iter().map(|(_, part)| part).max_by_key(|part| part.epoch);
    let newest = newest.ok_or("the reactors are too busy to say how they are: try again")?;
    let (log, layout, incarnation) = newest.log;
    if !newest.has_log() {
        return Err(format!("array {array} has no log"));
    }
    let drive = |id: DeviceId| {
        let placed = fixed.devices.iter().find(|placed| placed.id == id);
        placed.map_or_else(String::new, |placed| placed.described.name.clone())
    };
    let details = |copy, state: &str, drive| CopyDetails { copy, state: state.to_owned(), drive };
    let active = (0u8..).zip(&newest.copies);
    let active = active.filter_map(|(copy, device)| Some(details(copy, "active", drive((*device)?))));
    let missing = newest.missing_copies.iter().map(|&copy| details(copy, "missing", String::new()));
    let attach = parts.iter().find_map(|(_, part)| part.attach);
    let joining = attach.map(|attach| details(attach.copy, "joining", drive(attach.device)));
    let mut copies: Vec<CopyDetails> = active.chain(missing).chain(joining).collect();
    copies.sort_by_key(|copy| copy.copy);
    let lane_bytes = layout.lane_blocks() * BLOCK as u64;
    let mut lanes: Vec<LaneDetails> = Vec::new();
    for (shard, part) in &parts {
        lanes.extend(part.lanes.iter().map(|lane| LaneDetails {
            lane: lane.lane,
            reactor: shard.0,
            head: lane.head,
            tail: lane.tail,
            durable_tail: lane.durable_tail,
            next_sequence: lane.next_sequence,
            records: lane.records,
            used_bytes: (lane.head - lane.durable_tail) * BLOCK as u64,
            bytes: lane_bytes,
        }));
    }
    lanes.sort_by_key(|lane| lane.lane);
    Ok(json!(LogDetails {
        array,
        mode: newest.mode.name().to_owned(),
        epoch: newest.epoch,
        generation: format!("{:032x}", log.generation),
        incarnation,
        copies,
        lanes,
        recovery: recovery(reporter, at),
    }))
}

fn recovery(reporter: &Reporter, array: usize) -> RecoveryDetails {
    let report = &reporter.fixed.recovered[array];
    let lane = |(lane, report): (u16, &engine::boot::LaneReport)| LaneRecovery {
        lane,
        clean: report.clean,
        torn: report.torn,
        records: report.records,
        repaired_records: report.repaired_records,
        repaired_anchor: report.repaired_anchors > 0,
        replayed_stripes: report.replayed_stripes,
        dirty_blocks: report.dirty_blocks,
    };
    let lanes = (0u16..).zip(&report.by_lane).map(lane).collect();
    RecoveryDetails { clean: report.lanes.clean, lanes, notes: report.notes.clone() }
}
