//! Runs of arrays that keep checksums: members that give back something else than was written to them, while hosts work and the
//! power fails. Damage stays within the promise: at most one wrong block in a stripe, and checksum blocks that are wrong or cannot
//! be read on one member at most. The oracle: whatever lies on the members matches its checksum, but for what was spoiled and not
//! read since; and nothing that hosts read is spoiled after all was read.

use std::collections::BTreeSet;

use base::ids::{DeviceBlock, DeviceId, StripeId};
use raid::{Checksummed, MemberLayout, Superblock, checksum};

use crate::audit::{bitmap, members_in_force};
use crate::failure::Failure;
use crate::fault::{Damage, Fault, PlannedFault};
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::{Scenario, ZONE_STRIPES};

/// Seeds with these remainders keep checksums. The others keep the runs that they had before there were any.
pub(crate) const SEEDS: [u64; 4] = [0, 1, 7, 9];
pub(crate) const SEEDS_OF: u64 = 17;

impl Scenario {
    /// What an ailing member gives back instead of a block of data.
    pub(crate) fn damage(&self, layout: &MemberLayout, at: u64, random: &mut Random) -> Damage {
        let other = layout.data.start + random.below(self.zones * ZONE_STRIPES);
        match random.below(3) {
            0 => Damage::Flipped { bit: random.below(8 * base::BLOCK as u64) as u32 },
            1 => Damage::Zeroed,
            _ if other == at => Damage::Zeroed,
            _ => Damage::CopyOf(DeviceBlock(other)),
        }
    }

    /// Spoils checksum blocks of one member.
    pub(crate) fn spoil_checksums(&mut self, layout: &MemberLayout, within: u64, random: &mut Random) {
        let region = layout.checksums.expect("it keeps checksums");
        let zone_blocks = checksum::zone_blocks(ZONE_STRIPES);
        let device = DeviceId(random.below(u64::from(self.members)) as u16);
        for _ in 0..random.choose(&[1, 3]) {
            let block = DeviceBlock(region.start + random.below(self.zones * zone_blocks));
            let fault = match random.once_in(2) {
                true => Fault::Unreadable { device, block },
                false => Fault::Wrong {
                    device,
                    block,
                    damage: Damage::Flipped { bit: random.below(8 * base::BLOCK as u64) as u32 },
                },
            };
            self.faults.push(PlannedFault { effect: random.between(1, within), fault });
        }
    }

    /// Whether any member's block at this place is planned to be wrong.
    pub(crate) fn spoils_any(&self, at: DeviceBlock) -> bool {
        let is_wrong = |fault| matches!(fault, Fault::Wrong { block, .. } if block == at);
        self.faults.iter().any(|planned| is_wrong(planned.fault))
    }

    /// How many blocks are planned to be wrong.
    pub(crate) fn wrong_blocks(&self) -> u64 {
        self.faults.iter().filter(|planned| matches!(planned.fault, Fault::Wrong { .. })).count() as u64
    }

    fn is_spoiled(&self, device: DeviceId, block: DeviceBlock) -> bool {
        self.faults.iter().any(|planned| match planned.fault {
            Fault::Unreadable { device: of, block: at } | Fault::Wrong { device: of, block: at, .. } => {
                (of, at) == (device, block)
            }
            _ => false,
        })
    }
}

/// Of every initialised stripe each member in force holds what its checksum says. Stripes in which a block was spoiled and is
/// still not what it should be.
///
/// # Errors
/// The first block that differs and was not spoiled, or whose checksum is lost without a reason.
pub fn checksums_match(scenario: &Scenario, rack: &Rack) -> Result<BTreeSet<StripeId>, Failure> {
    let mut spoiled = BTreeSet::new();
    if !scenario.checksums {
        return Ok(spoiled);
    }
    let members = members_in_force(scenario, rack)?;
    let Some((_, first)) = members.first() else { return Ok(spoiled) };
    let (geometry, arrangement, initialised) = (first.geometry, first.arrangement(), bitmap(rack, &members)?);
    for (device, superblock) in &members {
        let mut at_hand = None;
        for stripe in (0..geometry.stripes()).map(StripeId) {
            let holds = superblock.slot < arrangement.at(stripe).members();
            if !initialised.is_set(geometry.zone_of(stripe)) || !holds {
                continue;
            }
            let place = checksum::block_of(stripe, geometry.zone_stripes());
            let block = checksum_block(superblock, place);
            let of = Checksummed { array: superblock.array, slot: base::ids::Slot(superblock.slot) };
            if at_hand.as_ref().is_none_or(|(at, _)| *at != place) {
                let mut entries = *rack.peek(*device, block);
                let lost = of.open(place, &mut entries);
                if lost != 0 && !scenario.is_spoiled(*device, block) {
                    return Err(Failure::Member { device: *device, detail: format!("{block:?} is no checksum block") });
                }
                at_hand = Some((place, entries));
            }
            let (_, entries) = at_hand.as_ref().expect("it was read just now");
            let entry = checksum::entry_of(entries, stripe, geometry.zone_stripes());
            let at = DeviceBlock(superblock.layout.data.start + stripe.0);
            if entry.is_known() && !of.matches(entry, stripe, rack.peek(*device, at)) {
                if !scenario.is_spoiled(*device, at) && !scenario.is_spoiled(*device, block) {
                    let detail = format!("{stripe:?} at {at:?} is not what its checksum says");
                    return Err(Failure::Member { device: *device, detail });
                }
                spoiled.insert(stripe);
            } else if !entry.is_known() {
                if !scenario.is_spoiled(*device, block) {
                    let detail = format!("the checksum of {stripe:?} is lost");
                    return Err(Failure::Member { device: *device, detail });
                }
                // What it held is anybody's guess until it is read.
                if scenario.is_spoiled(*device, at) {
                    spoiled.insert(stripe);
                }
            }
        }
    }
    Ok(spoiled)
}

fn checksum_block(superblock: &Superblock, place: u64) -> DeviceBlock {
    DeviceBlock(superblock.layout.checksums.expect("it keeps checksums").start + place)
}

/// Whether a member holds of a stripe what its checksum says.
pub(crate) fn is_right(superblock: &Superblock, rack: &Rack, device: DeviceId, stripe: StripeId) -> bool {
    let zone_stripes = superblock.geometry.zone_stripes();
    let place = checksum::block_of(stripe, zone_stripes);
    let of = Checksummed { array: superblock.array, slot: base::ids::Slot(superblock.slot) };
    let mut entries = *rack.peek(device, checksum_block(superblock, place));
    of.open(place, &mut entries);
    let held = rack.peek(device, DeviceBlock(superblock.layout.data.start + stripe.0));
    of.matches(checksum::entry_of(&entries, stripe, zone_stripes), stripe, held)
}
