//! The oracle of write-through: what was acknowledged lies on the members, whatever becomes of the log. After a power cut it
//! reads the members past all shards and without the log, as somebody would who lost every copy of it. It asks nothing of
//! writes that were not acknowledged: those may be there, or not, or torn.

use base::Block;
use base::ids::{ArrayBlock, DeviceBlock, Lba, StripeId};
use raid::{Arrangement, Geometry, ZoneBits, slots};

use crate::audit::{Row, bitmap, members_in_force};
use crate::failure::Failure;
use crate::oracle::Oracle;
use crate::rack::Rack;
use crate::scenario::Scenario;
use crate::stamp::{Found, recognise};

/// Each logical block that was ever written holds on the members what the acknowledged writes permit. `told` has heard of every
/// write and every acknowledgement, and of no read. The volume begins with the array.
///
/// # Errors
/// The first block that does not.
pub fn members_hold_acknowledged(scenario: &Scenario, rack: &Rack, told: &Oracle) -> Result<(), Failure> {
    let members = members_in_force(scenario, rack)?;
    let Some((_, superblock)) = members.first() else { return Ok(()) };
    let arrangement = superblock.arrangement();
    let initialised = bitmap(rack, &members)?;
    let logical = scenario.workload.logical;
    let scale = u64::from(logical.per_block());
    for lba in told.written() {
        let place = arrangement.locate(ArrayBlock(lba.0 / scale));
        let geometry = *arrangement.at(place.stripe);
        // What has moved last is in the log alone for a while.
        let moved = superblock.growth.map(|growth| (growth.boundary.0, u64::from(growth.window_stripes)));
        if moved.is_some_and(|(end, count)| (end.saturating_sub(count)..end).contains(&place.stripe.0)) {
            continue;
        }
        let start = (lba.0 % scale) as usize * logical.bytes() as usize;
        let part = |block: &Block| recognise(&block[start..start + logical.bytes() as usize], lba);
        if scenario.spoils_any(DeviceBlock(superblock.layout.data.start + place.stripe.0)) {
            continue;
        }
        let row = Row { rack, members: &members, geometry, stripe: place.stripe };
        let judge = |found| {
            let torn = matches!(found, Found::Torn { .. }) && told.certain(lba).is_none();
            if torn || told.permits(lba, found) {
                Ok(())
            } else {
                Err(Failure::Exposed { lba, found, permitted: told.permitted(lba) })
            }
        };
        if !is_initialised(&initialised, &geometry, place.stripe) {
            judge(Found::Zeros)?;
            continue;
        }
        let homes = geometry.homes(place.stripe, place.column);
        let mut is_there = false;
        for block in slots(homes).filter_map(|slot| row.of(slot)) {
            is_there = true;
            judge(part(block))?;
        }
        // Its parity may have been on its way, unless nothing was.
        if !is_there
            && is_certain(&arrangement, told, scale, place.stripe)
            && let Some(block) = row.without(geometry.member_of(place.stripe, place.column))
        {
            judge(part(&block))?;
        }
    }
    Ok(())
}

fn is_initialised(initialised: &ZoneBits, geometry: &Geometry, stripe: StripeId) -> bool {
    initialised.is_set(geometry.zone_of(stripe))
}

/// Whether nothing of a stripe can have been on its way to the members.
fn is_certain(arrangement: &Arrangement, told: &Oracle, scale: u64, stripe: StripeId) -> bool {
    (0..arrangement.at(stripe).data_slots()).all(|column| {
        let first = arrangement.array_block(stripe, column).0 * scale;
        (first..first + scale).all(|lba| told.certain(Lba(lba)).is_some())
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use raid::Level;

    use super::*;
    use crate::device::{Run, content_of};
    use crate::machine::boot_devices;
    use crate::production::Production;
    use crate::random::Random;
    use crate::stamp::{Version, fill};
    use crate::subject::Subject;
    use crate::trace::Trace;

    #[test]
    fn an_acknowledged_write_that_is_only_in_the_log_is_found() {
        let mut scenario = Scenario::draw_at(1, Some(Level::Raid5));
        scenario.write_through = true;
        scenario.members_are_zero = true;
        let rack = Rc::new(RefCell::new(Rack::new(1, &scenario.devices(), Trace::default())));
        Production::create(&scenario, &mut boot_devices(&rack), &mut Random::named(1, "world")).expect("an array");
        let judge = |told: &Oracle| members_hold_acknowledged(&scenario, &rack.borrow(), told);
        let mut told = Oracle::default();
        told.begin_write(Lba(0), 1, Version(1), false);
        judge(&told).expect("nobody was told that it is done");
        told.acknowledge(Lba(0), 1, Version(1));
        assert!(matches!(judge(&told), Err(Failure::Exposed { lba: Lba(0), found: Found::Zeros, .. })));

        let members = members_in_force(&scenario, &rack.borrow()).expect("members");
        let place = members[0].1.geometry.locate(ArrayBlock(0));
        let slot = members[0].1.geometry.member_of(place.stripe, place.column);
        let mut block = [0; base::BLOCK];
        fill(&mut block, Lba(0), Version(1));
        let (device, superblock) = &members[slot.index()];
        let start = DeviceBlock(superblock.layout.data.start + place.stripe.0);
        rack.borrow_mut().write_now(*device, Run { start, blocks: vec![content_of(&block)] }).expect("powered");
        judge(&told).expect("it is on its member");

        // Without that member its parity has to know of it.
        rack.borrow_mut().lose(*device, false);
        assert!(matches!(judge(&told), Err(Failure::Exposed { .. })));
        let (device, _) = &members[members[0].1.geometry.parity_member(place.stripe, 0).index()];
        rack.borrow_mut().write_now(*device, Run { start, blocks: vec![content_of(&block)] }).expect("powered");
        judge(&told).expect("what is left gives it back");
    }
}
