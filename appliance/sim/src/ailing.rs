//! Scenarios in which drives ail without being lost: blocks that cannot be read until they are written again, errors that
//! pass. Damage stays within the promise of an array that is whole: at most one such block in a stripe, in what each member
//! keeps of the array itself (superblocks, bitmap, volume table) on one member at most, and in the log on one copy of several
//! at most.

use std::collections::BTreeSet;

use base::ids::{ArrayBlock, DeviceBlock, DeviceId, Slot, StripeId};
use raid::{Geometry, MemberLayout, ReadPlan, plan_read};

use crate::checks::{checksums_match, is_right};
use crate::failure::Failure;
use crate::fault::{Fault, PlannedFault};
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::{LOG_OVERHEAD_BLOCKS, MEMBER_OVERHEAD_BLOCKS, Scenario, ZONE_STRIPES};

/// Effects within which blocks become unreadable.
const WITHIN_EFFECTS: u64 = 1500;

/// Where things lie on the members of a scenario's array.
pub(crate) fn places(scenario: &Scenario) -> (Geometry, MemberLayout) {
    let stripes = scenario.zones * ZONE_STRIPES;
    let layout = MemberLayout::for_device(MEMBER_OVERHEAD_BLOCKS + stripes, ZONE_STRIPES, scenario.checksums);
    (scenario.geometry(), layout.expect("a scenario's members have room"))
}

impl Scenario {
    /// Lets drives ail instead of being lost.
    pub(crate) fn ail(&mut self, random: &mut Random) {
        self.faults.retain(|planned| matches!(planned.fault, Fault::PowerCut | Fault::PowerCutBehind { .. }));
        // What if one more were lost: more than the array bears.
        self.degraded.clear();
        self.probe_losses = false;
        self.hiccups_once_in = random.choose(&[0, 0, 100, 8]);
        let only = random.once_in(3).then(|| DeviceId(random.below(u64::from(self.members)) as u16));
        if only.is_some() && random.once_in(2) {
            self.max_read_errors = random.below(4) as u32;
        }
        let spoil = |device, block, effect| {
            let fault = Fault::Unreadable { device, block: DeviceBlock(block) };
            PlannedFault { effect, fault }
        };
        let (geometry, layout) = places(self);
        let mut faults = Vec::new();
        let mut spoiled = BTreeSet::new();
        for _ in 0..random.choose(&[1, 8, 60]) {
            let window = random.choose(&self.workload.windows);
            let block = ArrayBlock(window.start.0 + random.below(u64::from(window.blocks)));
            let StripeId(stripe) = geometry.locate(block).stripe;
            let device = only.unwrap_or(DeviceId(random.below(u64::from(self.members)) as u16));
            let within = random.choose(&[10, WITHIN_EFFECTS]);
            if spoiled.insert(stripe) {
                let (at, effect) = (layout.data.start + stripe, random.between(1, within));
                if self.checksums && !random.once_in(3) {
                    let damage = self.damage(&layout, at, random);
                    faults
                        .push(PlannedFault { effect, fault: Fault::Wrong { device, block: DeviceBlock(at), damage } });
                } else {
                    faults.push(spoil(device, at, effect));
                }
            }
        }
        if self.checksums && random.once_in(2) {
            self.spoil_checksums(&layout, WITHIN_EFFECTS, random);
        }
        if random.once_in(2) {
            let device = only.unwrap_or(DeviceId(random.below(u64::from(self.members)) as u16));
            let bitmap = layout.bitmap.start + random.below(layout.bitmap.blocks);
            let metadata = layout.metadata.start + random.below(layout.metadata.blocks);
            for block in [random.between(1, 2), bitmap, metadata] {
                faults.push(spoil(device, block, random.between(1, WITHIN_EFFECTS)));
            }
        }
        if self.log_copies > 1 && random.once_in(2) {
            let devices: Vec<DeviceId> = self.log_devices().collect();
            let device = random.choose(&devices);
            let blocks = LOG_OVERHEAD_BLOCKS / 2 + u64::from(self.lanes) * self.lane_blocks;
            faults.push(spoil(device, random.between(1, 2), random.between(1, WITHIN_EFFECTS)));
            for _ in 0..random.choose(&[1, 20, 200]) {
                faults.push(spoil(device, random.between(3, blocks - 1), random.between(1, WITHIN_EFFECTS)));
            }
        }
        self.faults.extend(faults);
        self.faults.sort_by_key(|planned| (planned.effect, planned.fault == Fault::PowerCut));
    }

    /// Whether blocks of its drives are or become unreadable or wrong.
    pub(crate) fn ails(&self) -> bool {
        let spoils = |fault| matches!(fault, Fault::Unreadable { .. } | Fault::Wrong { .. });
        self.faults.iter().any(|planned| spoils(planned.fault))
    }
}

/// After all has been read from the members nothing that hosts read is unreadable any more: each such block was written to
/// its place again.
///
/// # Errors
/// The first block that was not.
pub fn blocks_were_mended(scenario: &Scenario, rack: &Rack) -> Result<(), Failure> {
    if !scenario.ails() {
        return Ok(());
    }
    let wrong = checksums_match(scenario, rack)?;
    let members = crate::audit::members_in_force(scenario, rack)?;
    let Some((_, superblock)) = members.first() else { return Ok(()) };
    let arrangement = superblock.arrangement();
    let there = members.iter().fold(0, |mask: u32, (_, superblock)| mask | 1 << superblock.slot);
    for (device, superblock) in members {
        for window in &scenario.workload.windows {
            for block in (0..u64::from(window.blocks)).map(|offset| ArrayBlock(window.start.0 + offset)) {
                let place = arrangement.locate(block);
                let asked = plan_read(arrangement.at(place.stripe), place.stripe, place.column, !there);
                let holds = asked == ReadPlan::Direct(Slot(superblock.slot));
                let at = DeviceBlock(superblock.layout.data.start + place.stripe.0);
                if holds && !rack.is_readable(device, at, 1) {
                    return Err(Failure::Member { device, detail: format!("{at:?} was read and is still unreadable") });
                }
                if holds && wrong.contains(&place.stripe) && !is_right(&superblock, rack, device, place.stripe) {
                    return Err(Failure::Member { device, detail: format!("{at:?} was read and is still wrong") });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_stays_within_the_promise() {
        let mut kinds = [0; 4];
        for seed in (0..800).step_by(8) {
            let scenario = Scenario::draw(seed);
            if !scenario.geometry().bears(1) {
                continue;
            }
            let (_, layout) = places(&scenario);
            let mut stripes = BTreeSet::new();
            let mut describing = BTreeSet::new();
            let mut logs = BTreeSet::new();
            let mut checksums = BTreeSet::new();
            for planned in &scenario.faults {
                let (Fault::Unreadable { device, block } | Fault::Wrong { device, block, .. }) = planned.fault else {
                    assert!(!matches!(planned.fault, Fault::Lost { .. }), "nothing is lost beside");
                    continue;
                };
                assert!(block.0 < scenario.devices()[device.index()].blocks);
                if device.0 >= u16::from(scenario.members) {
                    logs.insert(device);
                } else if layout
                    .checksums
                    .is_some_and(|region| block.0 >= region.start && block.0 < region.start + region.blocks)
                {
                    checksums.insert(device);
                } else if block.0 >= layout.data.start {
                    assert!(stripes.insert(block), "one block of a stripe");
                } else {
                    describing.insert(device);
                }
            }
            assert!(logs.len() < usize::from(scenario.log_copies) && describing.len() <= 1);
            assert!(checksums.len() <= 1);
            kinds[3] += checksums.len();
            kinds[0] += stripes.len();
            kinds[1] += describing.len();
            kinds[2] += logs.len();
        }
        assert!(kinds[..3].iter().all(|&count| count > 20) && kinds[3] > 3, "{kinds:?}");
    }
}
