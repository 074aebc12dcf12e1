//! The oracles of what lies on the devices after a clean stop: parity that matches its data in every stripe, and a log in
//! which each lane's anchor leads to an empty record with nothing after it. They read the media past all shards, and believe
//! the format alone.

use base::Block;
use base::ids::{DeviceBlock, DeviceId, LaneId};
use journal::{LogLayout, LogReader, LogSuperblock, ReadFault, scan_lane};

use crate::failure::Failure;
use crate::rack::Rack;
use crate::scenario::Scenario;

/// One log copy, seen past everything.
struct RawCopy<'a> {
    rack: &'a Rack,
    device: DeviceId,
}

impl LogReader for RawCopy<'_> {
    fn copies(&self) -> usize {
        1
    }

    fn read(&mut self, _: usize, start: DeviceBlock, into: &mut [Block]) -> Result<(), ReadFault> {
        for (offset, block) in (0..).zip(into) {
            *block = *self.rack.peek(self.device, DeviceBlock(start.0 + offset));
        }
        Ok(())
    }
}

/// Every log copy that is in force stands by itself for a clean stop.
///
/// # Errors
/// The copy and the lane that do not.
pub fn log_is_clean(scenario: &Scenario, rack: &Rack) -> Result<(), Failure> {
    let mut copies = Vec::new();
    for device in scenario.log_devices().filter(|&device| rack.works(device)) {
        let slot = |slot| rack.peek(device, LogLayout::superblock_block(slot));
        let (superblock, _) = LogSuperblock::newest(slot(0), slot(1))
            .map_err(|fault| Failure::Log { device, detail: format!("no superblock: {fault}") })?;
        copies.push((device, superblock));
    }
    // A copy that was excluded keeps the epoch that it last saw.
    let newest = copies.iter().map(|(_, superblock)| superblock.epoch).max().unwrap_or(0);
    for (device, superblock) in copies.into_iter().filter(|(_, superblock)| superblock.epoch == newest) {
        let layout = superblock.layout;
        for lane in (0..layout.lanes()).map(LaneId) {
            let scan = scan_lane(&mut RawCopy { rack, device }, &layout, &superblock.identity, lane)
                .map_err(|error| Failure::Log { device, detail: error.to_string() })?;
            if !scan.is_clean_stop() {
                let (records, end) = (scan.records.len(), scan.end);
                return Err(Failure::Log { device, detail: format!("lane {lane} holds {records} records, {end:?}") });
            }
        }
    }
    Ok(())
}
