//! Damage to what an array keeps about itself: superblocks, bitmaps, tables of volumes, anchors and records of the log. A run
//! works until the power fails; then blocks of these regions are damaged, and the appliance is started.
//!
//! Two classes of damage. *Within the promise*: one member, or one of several log copies, has blocks that no longer verify.
//! Everything damaged is elsewhere too, so the appliance must start and everything must be right. *Wild*: any number of
//! devices, also blocks that verify and say nonsense, as only an attacker makes them. The appliance may refuse, and may
//! believe what verifies; it must not panic, must come to an end, and its buffers must come home. Data is damaged in neither.

use base::ids::{DeviceBlock, DeviceId};
use base::{BLOCK, Block, ZERO_BLOCK};
use journal::{LogLayout, LogSuperblock};
use raid::{Superblock, superblock_block};

use super::{Served, World};
use crate::failure::Failure;
use crate::fault::{Fault, PlannedFault};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::Subject;

/// Effects after the array was made within which the power fails.
const CUT_WITHIN: u64 = 600;

/// How a damaged array was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It was served, and everything was right where that was promised.
    Served,
    /// It was refused.
    Refused,
}

/// Where on a device a region of metadata lies.
type Region = core::ops::Range<u64>;

/// Works until the power fails, damages, starts, verifies: all by the seed.
///
/// # Errors
/// The broken promise.
pub fn mangle_seed<S: Subject>(seed: u64, aloud: bool) -> Result<Met, Failure> {
    let mut random = Random::named(seed, "mangle");
    let mut scenario = Scenario::draw(seed);
    let wild = random.once_in(2);
    let cut = PlannedFault { effect: random.between(1, CUT_WITHIN), fault: Fault::PowerCut };
    scenario.faults = vec![cut];
    (scenario.probe_losses, scenario.cut_when_idle) = (false, false);
    scenario.leave_the_log_alone();
    // What is damaged on purpose may be believed: nobody can say what volumes there are then.
    scenario.carving = scenario.carving.filter(|_| !wild);
    if !wild {
        // What is damaged is the one loss that the array bears: nobody takes another member out.
        scenario.degraded.clear();
        (scenario.operated, scenario.succeeds) = (false, false);
        // While it grows a member more takes part, and it bears no more losses for that.
        scenario.grows &= scenario.geometry().bears(1);
        scenario.log_keeping = None;
        // Neither does the other copy of the log give back what it should not.
        scenario.log_rots = false;
    }
    if !wild && scenario.log_copies == 1 {
        scenario.log_copies = 2;
    }
    let mut world = World::create::<S>(scenario, aloud)?;
    if let Some(mut machine) = world.boot::<S>()?
        && world.serve(&mut machine)? == Served::Finished
    {
        world.rack.borrow_mut().cut_power();
    }
    world.power_cycle::<S>()?;
    world.rack.borrow_mut().plan(Vec::new());
    let targets = targets(&world.scenario, wild, &mut random);
    for device in targets {
        world.damage(device, wild, &mut random);
    }
    world.workload.retire();
    if let Some(carver) = &mut world.carver {
        carver.retire();
    }
    match (wild, world.scenario.is_bare()) {
        (true, _) => world.survive::<S>(),
        (false, true) => world.is_right_or_refused::<S>(),
        (false, false) => world.must_be_right::<S>(),
    }
}

/// The devices that are damaged: one member or log copy, or any number of devices.
fn targets(scenario: &Scenario, wild: bool, random: &mut Random) -> Vec<DeviceId> {
    let all: Vec<DeviceId> = scenario.member_devices().chain(scenario.log_devices()).collect();
    if !wild {
        let geometry = scenario.geometry();
        let is_elsewhere = |device: &DeviceId| device.0 >= scenario.members.into() || geometry.bears(1 << device.0);
        let damageable: Vec<DeviceId> = all.into_iter().filter(is_elsewhere).collect();
        // Without redundancy and without a log nothing is elsewhere too.
        return if damageable.is_empty() { Vec::new() } else { vec![random.choose(&damageable)] };
    }
    let mut chosen: Vec<DeviceId> = all.iter().copied().filter(|_| random.once_in(2)).collect();
    if chosen.is_empty() {
        chosen.push(random.choose(&all));
    }
    chosen
}

impl World {
    /// Everything that was damaged is elsewhere too: it must start, and hosts must find what they may expect.
    fn must_be_right<S: Subject>(&mut self) -> Result<Met, Failure> {
        let Some(mut machine) = self.boot::<S>()? else { unreachable!("no fault is left to cut the power") };
        self.workload.verify_all();
        self.serve(&mut machine)?;
        self.stop(&mut machine)?;
        Ok(Met::Served)
    }

    /// The same without a log, whose promise does not go so far: who lacks a member after a crash may be refused.
    fn is_right_or_refused<S: Subject>(&mut self) -> Result<Met, Failure> {
        match self.must_be_right::<S>() {
            Err(Failure::Boot(_)) => Ok(Met::Refused),
            other => other,
        }
    }

    /// Whatever it makes of it, it must come to an end.
    fn survive<S: Subject>(&mut self) -> Result<Met, Failure> {
        // What the record of a scrub says, for one.
        self.spoiled = true;
        let mut machine = match self.boot::<S>() {
            Ok(Some(machine)) => machine,
            Ok(None) => unreachable!("no fault is left to cut the power"),
            Err(Failure::Boot(_)) => return Ok(Met::Refused),
            Err(failure) => return Err(failure),
        };
        self.workload.verify_all();
        match self.serve(&mut machine) {
            // What verified was believed; what hosts then find is nobody's promise.
            Err(failure) if !failure.is_of_content() => Err(failure),
            _ => Ok(Met::Served),
        }
    }

    /// Damages a few blocks of a device's metadata.
    fn damage(&mut self, device: DeviceId, wild: bool, random: &mut Random) {
        let regions = self.regions(device);
        for _ in 0..random.choose(&[1, 1, 2, 8]) {
            let region = &regions[random.below(regions.len() as u64) as usize];
            let rack = &mut *self.rack.borrow_mut();
            let at = somewhere(region, |at| rack.peek(device, DeviceBlock(at)).starts_with(b"BR"), random);
            let other = somewhere(region, |_| true, random);
            let was = *rack.peek(device, DeviceBlock(at));
            let mut block = was;
            mangle(&mut block, rack.peek(device, DeviceBlock(other)), random);
            if wild && random.once_in(2) {
                seal(&mut block);
            } else if verifies(&block) && block != was {
                // A block that verifies at another place is no damage of a drive but of what it is told.
                block[random.below(BLOCK as u64) as usize] ^= 1 << random.below(8);
            }
            rack.trace.note("damage", &[u64::from(device.0), at]);
            rack.overwrite(device, DeviceBlock(at), &block);
        }
    }

    /// Where a device keeps what it knows of the array, by its own superblock; both superblocks come first.
    fn regions(&self, device: DeviceId) -> Vec<Region> {
        let rack = self.rack.borrow();
        let mut regions = vec![Region { start: 1, end: 3 }];
        let slots = [0, 1].map(|slot| rack.peek(device, superblock_block(slot)));
        if let Ok(superblock) = Superblock::newest(slots[0], slots[1]) {
            let layout = &superblock.layout;
            let (bitmap, table) = (layout.bitmap_block(0, 0).0, layout.metadata_block(0).0);
            regions.extend((0..2).filter_map(|slot| layout.dirty_block(0, slot)).map(|at| at.0..at.0 + 1));
            regions.extend((0..2).filter_map(|slot| layout.missed_block(0, slot)).map(|at| at.0..at.0 + 1));
            regions.extend([
                bitmap..bitmap + 2,
                table..table + 1,
                layout.metadata_block(1).0..layout.metadata_block(1).0 + 2,
            ]);
        }
        let slots = [0, 1].map(|slot| rack.peek(device, LogLayout::superblock_block(slot)));
        if let Ok((superblock, _)) = LogSuperblock::newest(slots[0], slots[1]) {
            let layout = &superblock.layout;
            for lane in (0..layout.lanes()).map(base::ids::LaneId) {
                let (anchors, ring) = (layout.anchor_block(lane, 0).0, layout.ring_block(lane, 0).0);
                regions.extend([anchors..anchors + 2, ring..ring + layout.lane_blocks()]);
            }
        }
        regions
    }
}

/// A block of a region, mostly one with a structure of ours in it: their names all begin alike.
fn somewhere(region: &Region, is_ours: impl Fn(u64) -> bool, random: &mut Random) -> u64 {
    let ours: Vec<u64> = region.clone().filter(|&at| is_ours(at)).collect();
    if ours.is_empty() || random.once_in(8) {
        return region.start + random.below(region.end - region.start);
    }
    random.choose(&ours)
}

/// One way of being damaged.
fn mangle(block: &mut Block, other: &Block, random: &mut Random) {
    match random.below(6) {
        0 => *block = ZERO_BLOCK,
        1 => *block = *other,
        2 => block.fill(random.bits() as u8),
        3 => {
            // A field of 1, 2, 4 or 8 bytes takes a value at the edge of something.
            let width = 1usize << random.below(4);
            let at = random.below(((BLOCK.min(1024)) / width) as u64) as usize * width;
            let near = random.choose(&[
                0u64,
                1,
                2,
                32,
                33,
                255,
                256,
                1 << 16,
                1 << 31,
                1 << 32,
                1 << 48,
                1 << 62,
                u64::MAX - 1,
                u64::MAX,
            ]);
            block[at..at + width].copy_from_slice(&near.to_le_bytes()[..width]);
        }
        _ => {
            for _ in 0..random.between(1, 8) {
                let within = random.choose(&[160, 512, BLOCK as u64]);
                block[random.below(within) as usize] ^= 1 << random.below(8);
            }
        }
    }
}

/// The checksum of a block of the formats: CRC32C at byte 8, of the whole block with these four bytes zero.
fn checksum(block: &Block) -> u32 {
    let mut zeroed = *block;
    zeroed[8..12].fill(0);
    crc32c::crc32c(&zeroed)
}

fn seal(block: &mut Block) {
    let crc = checksum(block);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn verifies(block: &Block) -> bool {
    block[8..12] == checksum(block).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::production::Production;

    #[test]
    fn damaged_metadata_is_made_good_or_refused_and_never_a_panic() {
        let (mut served, mut refused) = (0, 0);
        for seed in 0..100 {
            match mangle_seed::<Production>(seed, false).unwrap_or_else(|failure| panic!("seed {seed}: {failure}")) {
                Met::Served => served += 1,
                Met::Refused => refused += 1,
            }
        }
        assert!(served > 60 && refused > 5, "{served} served, {refused} refused");
    }

    #[test]
    fn a_sealed_block_verifies_and_a_damaged_one_does_not() {
        let mut block = [7; BLOCK];
        assert!(!verifies(&block));
        seal(&mut block);
        assert!(verifies(&block));
        block[4095] ^= 1;
        assert!(!verifies(&block));
    }
}
