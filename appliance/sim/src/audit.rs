//! The oracles of what lies on the devices after a clean stop: parities and mirrors that match in every stripe, and a log in
//! which each lane's anchor leads to an empty record with nothing after it. They read the media past all shards, and believe
//! the format alone.

use base::ids::{DeviceBlock, DeviceId, LaneId, Slot, StripeId};
use base::{Block, ZERO_BLOCK};
use journal::{
    EndOfLog, LaneScan, LogLayout, LogReader, LogSuperblock, ReadFault, SuperblockError as LogError, scan_lane,
};
use raid::{Geometry, LogFate, State, Superblock, SuperblockError, ZoneBits, recipe, superblock_block};

use crate::checks::checksums_match;
use crate::failure::Failure;
use crate::rack::Rack;
use crate::scenario::Scenario;

/// What every member in force holds of every initialised stripe is what the others say it is: parities are the sums of their
/// data, and mirrors are the same. With members missing there may be nothing left to compare with: what is rebuilt from the
/// others is what hosts read.
///
/// # Errors
/// The first stripe where it is not.
pub fn stripes_match(scenario: &Scenario, rack: &Rack) -> Result<(), Failure> {
    // These cannot match, until they are read.
    let spoiled = checksums_match(scenario, rack)?;
    let members = members_in_force(scenario, rack)?;
    let Some((_, superblock)) = members.first() else { return Ok(()) };
    let arrangement = superblock.arrangement();
    let initialised = bitmap(rack, &members)?;
    for stripe in (0..superblock.geometry.stripes()).map(StripeId) {
        let geometry = *arrangement.at(stripe);
        if !initialised.is_set(geometry.zone_of(stripe)) || spoiled.contains(&stripe) {
            continue;
        }
        let row = Row { rack, members: &members, geometry, stripe };
        // One that has come lately holds nothing of a stripe that has not moved.
        let slots = members.iter().map(|(_, superblock)| Slot(superblock.slot));
        for slot in slots.filter(|slot| slot.0 < geometry.members()) {
            // What data lies on one member only is compared with nothing but parities, which are compared themselves.
            let is_single = geometry.homes_of(stripe, geometry.part_of(stripe, slot)).is_power_of_two();
            if is_single && geometry.column_of(stripe, slot).is_some() {
                continue;
            }
            let Some(expected) = row.without(slot) else { continue };
            let found = row.of(slot).expect("a member in force");
            if let Some(byte) = expected.iter().zip(found).position(|(expected, found)| expected != found) {
                return Err(Failure::Parity { stripe, slot, byte });
            }
        }
    }
    Ok(())
}

/// A stripe as it lies on the members in force.
pub(crate) struct Row<'a> {
    pub(crate) rack: &'a Rack,
    pub(crate) members: &'a [(DeviceId, Superblock)],
    pub(crate) geometry: Geometry,
    pub(crate) stripe: StripeId,
}

impl<'a> Row<'a> {
    /// What a member holds; nothing if it is not in force.
    pub(crate) fn of(&self, slot: Slot) -> Option<&'a Block> {
        let (device, superblock) = self.members.iter().find(|(_, superblock)| superblock.slot == slot.0)?;
        Some(self.rack.peek(*device, DeviceBlock(superblock.layout.data.start + self.stripe.0)))
    }

    /// What a member ought to hold, by what the others do; nothing if they cannot tell.
    pub(crate) fn without(&self, slot: Slot) -> Option<Block> {
        let missing = (0..self.geometry.members()).map(Slot).filter(|&slot| self.of(slot).is_none());
        let missing = missing.fold(1 << slot.0, |mask: u32, slot| mask | 1 << slot.0);
        let recipe = recipe(&self.geometry, self.stripe, self.geometry.part_of(self.stripe, slot), missing).ok()?;
        let mut sum = ZERO_BLOCK;
        for term in recipe.terms() {
            parity::multiply_into(&mut sum, self.of(term.slot).expect("a recipe names who is there"), term.coefficient);
        }
        Some(sum)
    }
}

/// Which zones are initialised, by what these members say.
pub(crate) fn bitmap(rack: &Rack, members: &[(DeviceId, Superblock)]) -> Result<ZoneBits, Failure> {
    let (device, superblock) = &members[0];
    let zones = superblock.geometry.zones();
    let mut initialised = ZoneBits::new(superblock.array, zones, false);
    for block in 0..ZoneBits::blocks_for(zones) as usize {
        let slots = members.iter().flat_map(|(device, superblock)| {
            [0, 1].map(|slot| rack.peek(*device, superblock.layout.bitmap_block(block, slot)))
        });
        if !initialised.merge(block, slots) {
            return Err(Failure::Member { device: *device, detail: format!("no valid bitmap block {block}") });
        }
    }
    Ok(initialised)
}

/// Without a log: no zone is said to be dirty by any member in force.
///
/// # Errors
/// The member that says so.
pub fn no_zone_is_dirty(scenario: &Scenario, rack: &Rack) -> Result<(), Failure> {
    for (device, superblock) in members_in_force(scenario, rack)? {
        let mut dirty = ZoneBits::dirty(superblock.array, superblock.geometry.zones());
        for block in 0..ZoneBits::blocks_for(superblock.geometry.zones()) as usize {
            let place = |slot| superblock.layout.dirty_block(block, slot).map(|at| *rack.peek(device, at));
            let (Some(first), Some(second)) = (place(0), place(1)) else { continue };
            let slots = [first, second];
            if !dirty.newest(block, &slots).is_some_and(|newest| dirty.clone().merge(block, [newest])) {
                return Err(Failure::Member { device, detail: format!("no valid block {block} of dirty zones") });
            }
            let newest = *dirty.newest(block, &slots).expect("looked at just now");
            dirty.merge(block, [&newest]);
        }
        if dirty.count() > 0 {
            let zones: Vec<u64> = dirty.iter().map(|zone| zone.0).collect();
            return Err(Failure::Member { device, detail: format!("zones {zones:?} are dirty after a clean stop") });
        }
    }
    Ok(())
}

/// The members that the newest superblock counts in, in slot order.
pub(crate) fn members_in_force(scenario: &Scenario, rack: &Rack) -> Result<Vec<(DeviceId, Superblock)>, Failure> {
    let mut found = Vec::new();
    let devices = scenario.member_devices().chain(scenario.spare_devices());
    for device in devices.filter(|&device| rack.works(device)) {
        let slot = |update| rack.peek(device, superblock_block(update));
        match Superblock::newest(slot(0), slot(1)) {
            // What is no member yet, or was one and is being prepared to be one again.
            Err(SuperblockError::NotASuperblock | SuperblockError::BadCrc) if scenario.spares > 0 => {}
            Err(fault) => return Err(Failure::Member { device, detail: fault.to_string() }),
            Ok(superblock) => found.push((device, superblock)),
        }
    }
    let whole = found.iter().map(|(_, said)| said).filter(|said| said.entry().state == State::Active);
    let Some(newest) = whole.max_by_key(|said| said.epoch).cloned() else { return Ok(Vec::new()) };
    found.retain(|(_, said)| {
        let named = newest.members.get(usize::from(said.slot));
        named.is_some_and(|named| named.state == State::Active && named.uuid == said.uuid())
    });
    found.sort_by_key(|(_, superblock)| superblock.slot);
    Ok(found)
}

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
    if is_given_up(scenario, rack)? {
        return Ok(());
    }
    let mut copies = Vec::new();
    for device in log_devices(scenario).filter(|&device| rack.works(device)) {
        let slot = |slot| rack.peek(device, LogLayout::superblock_block(slot));
        match LogSuperblock::newest(slot(0), slot(1)) {
            // What is no copy yet, or was one and is being prepared to be one again.
            Ok((superblock, _)) if superblock.joining => {}
            Err(LogError::NotASuperblock | LogError::BadCrc) if scenario.log_spares > 0 => {}
            Ok((superblock, _)) => copies.push((device, superblock)),
            Err(fault) => return Err(Failure::Log { device, detail: format!("no superblock: {fault}") }),
        }
    }
    // A copy that was excluded keeps the epoch that it last saw.
    let newest = copies.iter().map(|(_, superblock)| superblock.epoch).max().unwrap_or(0);
    for (device, superblock) in copies.into_iter().filter(|(_, superblock)| superblock.epoch == newest) {
        let layout = superblock.layout;
        for lane in (0..layout.lanes()).map(LaneId) {
            let scan = scan_lane(&mut RawCopy { rack, device }, &layout, &superblock.identity, lane)
                .map_err(|error| Failure::Log { device, detail: error.to_string() })?;
            if !scan.is_clean_stop() && !has_old_debris(&scan) {
                let (records, end) = (scan.records.len(), scan.end);
                return Err(Failure::Log { device, detail: format!("lane {lane} holds {records} records, {end:?}") });
            }
        }
    }
    Ok(())
}

/// Whether the array goes on without its log.
fn is_given_up(scenario: &Scenario, rack: &Rack) -> Result<bool, Failure> {
    let members = members_in_force(scenario, rack)?;
    let newest = members.iter().max_by_key(|(_, superblock)| superblock.epoch);
    Ok(newest.is_some_and(|(_, superblock)| superblock.log_fate == LogFate::GivenUp))
}

/// Whether a lane rests at an empty record, and what lies behind it is only what an earlier crash tore: it verifies nowhere, and
/// nothing behind it says that it was acknowledged. A record that came after the stop would verify, as nothing cut it.
fn has_old_debris(scan: &LaneScan) -> bool {
    let debris = EndOfLog::Torn { descriptors: 0, unreadable: 0, later_records: 0 };
    scan.end == debris && scan.records.len() == 1 && scan.records[0].entries.is_empty()
}

/// All devices that may hold the log.
fn log_devices(scenario: &Scenario) -> impl Iterator<Item = DeviceId> + use<> {
    scenario.log_devices().chain(scenario.log_spare_devices())
}

/// The log copies that the newest member superblock counts in.
///
/// # Errors
/// A member that is not in order.
pub fn copies_in_force(scenario: &Scenario, rack: &Rack) -> Result<Vec<DeviceId>, Failure> {
    let members = members_in_force(scenario, rack)?;
    let Some((_, newest)) = members.iter().max_by_key(|(_, superblock)| superblock.epoch) else {
        return Ok(Vec::new());
    };
    let is_named = |device: &DeviceId| {
        let slot = |slot| rack.peek(*device, LogLayout::superblock_block(slot));
        LogSuperblock::newest(slot(0), slot(1))
            .is_ok_and(|(log, _)| newest.copies.iter().any(|copy| copy.uuid == log.copy && copy.state == State::Active))
    };
    Ok(log_devices(scenario).filter(|&device| rack.works(device)).filter(is_named).collect())
}

/// What the log copies hold, record by record: for who looks into a failing seed.
pub fn describe_log(scenario: &Scenario, rack: &Rack) -> Vec<String> {
    let mut lines = Vec::new();
    for device in log_devices(scenario).filter(|&device| rack.works(device)) {
        let slot = |slot| rack.peek(device, LogLayout::superblock_block(slot));
        let Ok((superblock, _)) = LogSuperblock::newest(slot(0), slot(1)) else {
            lines.push(format!("device {device}: no superblock"));
            continue;
        };
        lines.push(format!("device {device}: epoch {}, incarnation {}", superblock.epoch, superblock.incarnation));
        for lane in (0..superblock.layout.lanes()).map(LaneId) {
            match scan_lane(&mut RawCopy { rack, device }, &superblock.layout, &superblock.identity, lane) {
                Err(error) => lines.push(format!("  lane {lane}: {error}")),
                Ok(scan) => {
                    lines.push(format!("  lane {lane}: {:?}, {:?}", scan.anchor, scan.end));
                    lines.extend(
                        scan.records.iter().map(|record| format!("    {:?} {:?}", record.header, record.entries)),
                    );
                }
            }
        }
    }
    lines
}
