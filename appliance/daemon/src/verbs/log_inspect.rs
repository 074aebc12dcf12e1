//! `brindle log inspect`: what a device that bears a copy of a log says of itself, and what can be read of its lanes. It is read
//! past every server, and nothing is written: of a log that is being served this is a picture that was never quite true.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use base::ids::{DeviceBlock, LaneId};
use base::{BLOCK, Block, ZERO_BLOCK};
use journal::{EndOfLog, LaneScan, LogLayout, LogReader, LogSuperblock, ReadFault, RecoveryError, scan_lane};
use serde_json::{Value, json};

use crate::status::{row, size, table};

/// A file or device as the only copy.
struct Copy(File);

impl LogReader for Copy {
    fn copies(&self) -> usize {
        1
    }

    fn read(&mut self, _: usize, start: DeviceBlock, into: &mut [Block]) -> Result<(), ReadFault> {
        for (at, block) in (start.0..).zip(into) {
            self.0.read_exact_at(block, at * BLOCK as u64).map_err(|_| ReadFault)?;
        }
        Ok(())
    }
}

/// Reads the log on a device; what to print.
pub fn run(path: &Path, as_json: bool) -> Result<String, Box<dyn Error>> {
    let name = path.display();
    let mut copy = Copy(File::open(path).map_err(|error| format!("{name}: {error}"))?);
    let mut slots = [ZERO_BLOCK; 2];
    copy.read(0, LogLayout::superblock_block(0), &mut slots)
        .map_err(|_| format!("{name}: its first blocks cannot be read, or it has fewer"))?;
    let (log, _) = LogSuperblock::newest(&slots[0], &slots[1]).map_err(|error| format!("{name}: {error}"))?;
    let scans = (0..log.layout.lanes()).map(LaneId);
    let scans: Vec<_> = scans.map(|lane| (lane, scan_lane(&mut copy, &log.layout, &log.identity, lane))).collect();
    Ok(if as_json { format!("{}\n", in_json(&log, &scans)) } else { in_words(&name.to_string(), &log, &scans) })
}

type Scans = [(LaneId, Result<LaneScan, RecoveryError>)];

const fn mode(log: &LogSuperblock) -> &'static str {
    match log.mode {
        journal::LogMode::WriteThrough => "write-through",
        journal::LogMode::WriteBack => "write-back",
    }
}

fn blocks_of(scan: &LaneScan) -> u64 {
    scan.next_position - scan.anchor.tail_position
}

const fn end(scan: &LaneScan) -> &'static str {
    match scan.end {
        EndOfLog::Clean => "whole",
        EndOfLog::Torn { .. } => "torn",
    }
}

fn in_json(log: &LogSuperblock, scans: &Scans) -> Value {
    let lanes = scans.iter().map(|(lane, scan)| match scan {
        Ok(scan) => json!({
            "lane": lane.0,
            "stopped_cleanly": scan.is_clean_stop(),
            "tail": scan.anchor.tail_position,
            "head": scan.next_position,
            "records": scan.records.len(),
            "first_sequence": scan.anchor.tail_sequence,
            "next_sequence": scan.next_sequence,
            "acknowledged_upto": scan.durable_upto,
            "used_bytes": blocks_of(scan) * BLOCK as u64,
            "end": end(scan),
        }),
        Err(error) => json!({ "lane": lane.0, "error": error.to_string() }),
    });
    json!({
        "array": log.identity.array.to_string(),
        "generation": format!("{:032x}", log.identity.generation),
        "copy": log.copy.to_string(),
        "place": log.copy_index,
        "places": log.copy_count,
        "joining": log.joining,
        "epoch": log.epoch,
        "members": log.members,
        "incarnation": log.incarnation,
        "mode": mode(log),
        "update": log.update,
        "lane_bytes": log.layout.lane_blocks() * BLOCK as u64,
        "lanes": lanes.collect::<Vec<_>>(),
    })
}

fn in_words(name: &str, log: &LogSuperblock, scans: &Scans) -> String {
    let mut out = format!(
        "{name}: copy {} of {} of the log of array {}\n  identity {}, generation {:032x}\n  epoch {}, start {}, update {}, {}, \
         {} lanes of {}\n",
        log.copy_index,
        log.copy_count,
        log.identity.array,
        log.copy,
        log.identity.generation,
        log.epoch,
        log.incarnation,
        log.update,
        mode(log),
        log.layout.lanes(),
        size(log.layout.lane_blocks() * BLOCK as u64),
    );
    if log.joining {
        out += "  It was to become a copy of the log: unless the members name it, nothing reads it.\n";
    }
    let good = scans.iter().filter_map(|(lane, scan)| Some((lane, scan.as_ref().ok()?)));
    let good = good.map(|(lane, scan)| {
        let used = size(blocks_of(scan) * BLOCK as u64);
        let records = scan.records.len();
        row([
            lane,
            &scan.anchor.tail_position,
            &scan.next_position,
            &records,
            &scan.next_sequence,
            &scan.durable_upto,
            &used,
            &end(scan),
        ])
    });
    let heads = ["lane", "tail", "head", "records", "next record", "acknowledged up to", "used", "end"];
    out += &table("Lanes", &heads, good);
    for (_, error) in scans.iter().filter_map(|(lane, scan)| Some((lane, scan.as_ref().err()?))) {
        out += &format!("\ndamaged on this copy: {error}\n");
    }
    out
}
