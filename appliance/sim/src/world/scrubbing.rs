//! Members that hold something else than was written to them: bits that flipped, writes that went to another place or
//! nowhere, and blocks that cannot be read. What a scrub makes of them is compared, block by block, with what an oracle says that
//! knows no syndromes: a block is wrong if all others agree without it.
//!
//! Three kinds of runs. *At rest* hosts have written and gone; everything wrong must be found, nothing else, and of what lies on
//! the members exactly that must change which the repair is for; also when the power fails again and again. *Under load* it is
//! parities that are wrong, which hosts never see: they go on, the power fails, scrubs are begun and disturbed, and in the end
//! all must be right. *After a crash* nothing is wrong but what the power left half written, which the log makes good: nothing
//! may be found, however early the scrub comes.

use std::collections::BTreeMap;

use base::ids::{DeviceBlock, DeviceId, Slot, StripeId};
use base::time::Span;
use base::{BLOCK, Block, ZERO_BLOCK};
use engine::command::ScrubVerb;
use engine::status::ScrubStatus;
use raid::{Geometry, Level, Repair, Superblock, slots};

use super::patience::{Patience, stuck};
use super::{Served, World};
use crate::audit::{Row, bitmap, members_in_force};
use crate::failure::Failure;
use crate::fault::{Fault, PlannedFault};
use crate::machine::{Machine, Step};
use crate::operator::{Operator, Order};
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::{Subject, draw_uuid};

/// What runs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks that were located.
    pub located: u64,
    /// Stripes in which nothing could be.
    pub unlocated: u64,
    /// Blocks that could not be read.
    pub unreadable: u64,
    /// Blocks that were put right.
    pub repaired: u64,
    /// Power cuts.
    pub cuts: u64,
}

impl Scrubbed {
    /// Adds another.
    pub const fn add(&mut self, other: &Self) {
        self.located += other.located;
        self.unlocated += other.unlocated;
        self.unreadable += other.unreadable;
        self.repaired += other.repaired;
        self.cuts += other.cuts;
    }
}

/// Writes, spoils, scrubs, compares: all by the seed.
///
/// # Errors
/// The broken promise.
pub fn scrub_seed<S: Subject>(seed: u64, aloud: bool) -> Result<Scrubbed, Failure> {
    let mut random = Random::named(seed, "spoiling");
    let level = random.choose(&[
        Level::Raid6,
        Level::Raid6,
        Level::Raid6,
        Level::Raid5,
        Level::Raid5,
        Level::Raid4,
        Level::Raid1,
        Level::Raid10,
    ]);
    let mut scenario = Scenario::draw_at(seed, Some(level));
    quieten(&mut scenario, &mut random);
    if random.once_in(4) {
        return scrub_after_crash::<S>(scenario, aloud, &mut random);
    }
    let under_load = scenario.geometry().parities() > 0 && random.once_in(3);
    if aloud {
        eprintln!("{scenario:#?}");
    }
    if under_load {
        scrub_under_load::<S>(scenario, aloud, &mut random)
    } else {
        scrub_at_rest::<S>(scenario, aloud, &mut random)
    }
}

/// Nothing goes wrong but what is meant to.
fn quieten(scenario: &mut Scenario, random: &mut Random) {
    scenario.faults.clear();
    scenario.degraded.clear();
    (scenario.operated, scenario.heals, scenario.spares) = (false, false, 0);
    (scenario.log_spares, scenario.log_keeping) = (0, None);
    scenario.leave_the_log_alone();
    (scenario.succeeds, scenario.grows) = (false, false);
    (scenario.probe_losses, scenario.cut_when_idle) = (false, false);
    (scenario.carving, scenario.kills) = (None, None);
    scenario.max_read_errors = u32::MAX;
    scenario.workload.requests = scenario.workload.requests.min(250);
    scenario.have_scrubbed(random);
    scenario.scrubbed = false;
}

fn cuts(random: &mut Random) -> Vec<PlannedFault> {
    let mut effect = 0;
    let mut faults = Vec::new();
    for _ in 0..random.choose(&[0, 0, 1, 2, 4]) {
        let within = random.choose(&[4, 40, 300]);
        effect += random.between(1, within);
        faults.push(PlannedFault { effect, fault: Fault::PowerCut });
    }
    faults
}

fn scrub_at_rest<S: Subject>(mut scenario: Scenario, aloud: bool, random: &mut Random) -> Result<Scrubbed, Failure> {
    // Else an oracle of its own looks at what lies on the members whenever the power fails.
    (scenario.write_through, scenario.workload.write_through) = (false, false);
    let mut world = World::create::<S>(scenario, aloud)?;
    let older = world.rack.borrow().clone();
    world.work_and_stop::<S>()?;
    let right = world.rack.borrow().clone();
    let array = Array::of(&world.scenario, &right)?;
    let windows = world.scenario.workload.windows.iter().map(|window| (window.start, window.blocks));
    let stripes = array.stripes(windows.map(|(lba, blocks)| (lba.0, blocks)), random);
    for &stripe in &stripes {
        array.spoil(&mut world.rack.borrow_mut(), &older, stripe, random);
    }
    let spoiled = world.rack.borrow().clone();
    let repair = random.choose(&Repair::ALL);
    let expected = array.expect(&spoiled, &right, &stripes, repair);

    let faults = cuts(random);
    let uncut = faults.is_empty();
    world.rack.borrow_mut().plan(faults);
    let found = world.scrub_to_the_end::<S>(repair)?;
    array.compare(&world.rack.borrow(), &spoiled, &expected, repair)?;
    let told = Scrubbed {
        located: found.counts.located_blocks,
        unlocated: found.counts.unlocated_stripes,
        unreadable: found.counts.unreadable_blocks,
        repaired: found.counts.repaired_blocks,
        cuts: 0,
    };
    let mut sums = Scrubbed::default();
    expected.values().for_each(|stripe| sums.add(&stripe.counts()));
    // What was seen before a cut and not remembered is seen again, and may have been put right already.
    if uncut && (told != sums || found.counts.unrepaired_blocks > 0 || found.counts.skipped_stripes > 0) {
        return Err(Failure::Scrub { detail: format!("with {repair:?} {sums:?} were to be found: {found:?}") });
    }
    // What could not be put right is put right by hand: all the rest must be as ever.
    world.rack.borrow_mut().restore_blocks();
    for &stripe in &stripes {
        for slot in slots(array.geometry.all_members()) {
            let (device, at) = array.place(slot, stripe);
            world.rack.borrow_mut().overwrite(device, at, right.peek(device, at));
        }
    }
    world.rack.borrow_mut().plan(Vec::new());
    world.workload.retire();
    world.workload.verify_all();
    world.verify_from_rest::<S>()?;
    Ok(Scrubbed { cuts: world.cuts, ..sums })
}

fn scrub_after_crash<S: Subject>(
    mut scenario: Scenario,
    aloud: bool,
    random: &mut Random,
) -> Result<Scrubbed, Failure> {
    scenario.faults = vec![PlannedFault { effect: random.between(20, 900), fault: Fault::PowerCut }];
    let mut world = World::create::<S>(scenario, aloud)?;
    if let Some(mut machine) = world.boot::<S>()?
        && world.serve(&mut machine)? == Served::Finished
    {
        world.rack.borrow_mut().cut_power();
    }
    world.power_cycle::<S>()?;
    world.rack.borrow_mut().plan(Vec::new());
    // What is in the log stays there, if the scrub does not ask for it.
    world.scenario.destage_age = Span::from_secs(5);
    let found = world.scrub_to_the_end::<S>(random.choose(&Repair::ALL))?;
    if found.counts.mismatched_stripes + found.counts.skipped_stripes + found.counts.repaired_blocks > 0 {
        return Err(Failure::Scrub { detail: format!("a crash is no mistake, and it found {found:?}") });
    }
    world.workload.verify_all();
    world.verify_from_rest::<S>()?;
    Ok(Scrubbed { cuts: world.cuts, ..Scrubbed::default() })
}

fn scrub_under_load<S: Subject>(mut scenario: Scenario, aloud: bool, random: &mut Random) -> Result<Scrubbed, Failure> {
    let repair = if scenario.geometry().parities() == 2 { Repair::Located } else { Repair::Parity };
    scenario.workload.requests = scenario.workload.requests.max(150);
    let first_cut = PlannedFault { effect: random.between(20, 400), fault: Fault::PowerCut };
    scenario.faults = vec![first_cut];
    let mut world = World::create::<S>(scenario, aloud)?;
    // Some of what hosts have to say, and a log with much in it.
    if let Some(mut machine) = world.boot::<S>()?
        && world.serve(&mut machine)? == Served::Finished
    {
        world.rack.borrow_mut().cut_power();
    }
    world.power_cycle::<S>()?;
    let array = Array::of(&world.scenario, &world.rack.borrow())?;
    let windows = world.scenario.workload.windows.iter().map(|window| (window.start, window.blocks));
    let stripes = array.stripes(windows.map(|(lba, blocks)| (lba.0, blocks)), random);
    for &stripe in &stripes {
        let index = random.below(u64::from(array.geometry.parities())) as u8;
        let (device, at) = array.place(array.geometry.parity_member(stripe, index), stripe);
        let mut block = *world.rack.borrow().peek(device, at);
        flip(&mut block, random);
        world.rack.borrow_mut().overwrite(device, at, &block);
    }
    world.spoiled = true;
    world.rack.borrow_mut().plan(cuts(random));
    let operator = Operator::new(Random::named(world.scenario.seed, "operator"), world.scenario.geometry());
    let scrubs = Random::named(world.scenario.seed, "scrubs");
    world.operator = Some(operator.with_scrubs(scrubs, Some(repair)).leaving_drives_alone());
    loop {
        let Some(mut machine) = world.boot::<S>()? else { continue };
        if world.serve(&mut machine)? == Served::Cut || world.stop(&mut machine)? == Served::Cut {
            world.power_cycle::<S>()?;
            continue;
        }
        break;
    }
    world.operator = None;
    world.rack.borrow_mut().plan(Vec::new());
    world.scrub_to_the_end::<S>(repair)?;
    S::audit(&world.scenario, &world.rack.borrow())?;
    world.workload.verify_all();
    world.verify_from_rest::<S>()?;
    Ok(Scrubbed { cuts: world.cuts, ..Scrubbed::default() })
}

impl World {
    fn work_and_stop<S: Subject>(&mut self) -> Result<(), Failure> {
        let Some(mut machine) = self.boot::<S>()? else { unreachable!("no fault is planned") };
        self.serve(&mut machine)?;
        self.stop(&mut machine)?;
        S::audit(&self.scenario, &self.rack.borrow())
    }

    /// Begins a scrub and waits for its end, through power cuts, if need be with another; then stops.
    fn scrub_to_the_end<S: Subject>(&mut self, repair: Repair) -> Result<ScrubStatus, Failure> {
        let mut ticket = 1 << 32;
        let mut is_begun = false;
        loop {
            self.workload.retire();
            let Some(mut machine) = self.boot::<S>()? else { continue };
            // Hosts do not read now: what they would find is wrong.
            match self.scrub_on(&mut machine, repair, &mut ticket, &mut is_begun)? {
                Some(found) if self.stop(&mut machine)? == Served::Finished => return Ok(found),
                _ => self.power_cycle::<S>()?,
            }
        }
    }

    fn scrub_on<S: Subject>(
        &mut self,
        machine: &mut Machine<S>,
        repair: Repair,
        ticket: &mut u64,
        is_begun: &mut bool,
    ) -> Result<Option<ScrubStatus>, Failure> {
        let patience = &mut Patience::new(machine);
        let mut asked = None;
        loop {
            let scrub = machine.health().expect("production says how it is").scrub;
            match (scrub, asked) {
                (Some(scrub), None) if *is_begun && scrub.state == "ended" => return Ok(Some(scrub)),
                // Another one's.
                (Some(ScrubStatus { state: "running" | "paused" | "waiting", .. }), None) if !*is_begun => {
                    *ticket += 1;
                    asked = Some((*ticket, false));
                    self.ask_scrub(machine, *ticket, ScrubVerb::Stop);
                }
                (_, None) if !*is_begun => {
                    *ticket += 1;
                    asked = Some((*ticket, true));
                    self.ask_scrub(machine, *ticket, ScrubVerb::Start { repair: Some(repair), rate: None, at: 1 });
                }
                _ => {}
            }
            let step = machine.step();
            while let Some(answer) = machine.answer() {
                if let Some((_, starts)) = asked.take_if(|(ticket, _)| *ticket == answer.ticket) {
                    if answer.result.is_err() && starts {
                        return Err(Failure::Scrub { detail: format!("it does not begin: {:?}", answer.result) });
                    }
                    *is_begun |= starts;
                }
            }
            match step {
                Step::Cut => return Ok(None),
                Step::Ended => return Err(stuck("the scrub", "the shards ended unasked".into())),
                Step::Still => return Err(stuck("the scrub", format!("nothing moves any more: {scrub:?}"))),
                Step::Moved => {}
            }
            patience.wait(machine, "the scrub", || format!("{scrub:?}"))?;
        }
    }

    fn ask_scrub<S: Subject>(&self, machine: &mut Machine<S>, ticket: u64, verb: ScrubVerb) {
        let uuid = draw_uuid(&mut Random::named(ticket, "uuid"));
        machine.ask(&self.scenario, ticket, Order::Scrub(verb), uuid);
    }
}

/// What is to be found of a stripe, and what is to become of it.
struct Expected {
    wrong: u32,
    doubtful: u32,
    holes: u32,
    /// Slots whose blocks change, with what they hold then.
    changed: BTreeMap<u8, Block>,
}

impl Expected {
    fn counts(&self) -> Scrubbed {
        Scrubbed {
            located: u64::from(self.wrong.count_ones()),
            unlocated: u64::from(self.doubtful != 0),
            unreadable: u64::from(self.holes.count_ones()),
            repaired: self.changed.len() as u64,
            cuts: 0,
        }
    }
}

/// An array whose members are all there, as it lies on them.
struct Array {
    geometry: Geometry,
    members: Vec<(DeviceId, Superblock)>,
    initialised: Vec<bool>,
    checksums: bool,
}

impl Array {
    fn of(scenario: &Scenario, rack: &Rack) -> Result<Self, Failure> {
        let members = members_in_force(scenario, rack)?;
        let geometry = members[0].1.geometry;
        let bits = bitmap(rack, &members)?;
        let initialised = (0..geometry.zones()).map(|zone| bits.is_set(base::ids::ZoneId(zone))).collect();
        Ok(Self { geometry, members, initialised, checksums: scenario.checksums })
    }

    fn place(&self, slot: Slot, stripe: StripeId) -> (DeviceId, DeviceBlock) {
        let (device, superblock) = &self.members[slot.index()];
        (*device, DeviceBlock(superblock.layout.data.start + stripe.0))
    }

    /// Some stripes of zones that were written: near what hosts wrote, and anywhere.
    fn stripes(&self, windows: impl Iterator<Item = (u64, u32)>, random: &mut Random) -> Vec<StripeId> {
        let windows: Vec<(u64, u32)> = windows.collect();
        let mut chosen = Vec::new();
        for _ in 0..random.choose(&[1, 6, 40]) {
            let (start, blocks) = random.choose(&windows);
            let within = base::ids::ArrayBlock(start + random.below(u64::from(blocks)));
            let anywhere = StripeId(random.below(self.geometry.stripes()));
            chosen.push(if random.once_in(4) { anywhere } else { self.geometry.locate(within).stripe });
        }
        chosen.retain(|stripe| self.initialised[self.geometry.zone_of(*stripe).index()]);
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    /// Makes one block of a stripe wrong or unreadable, sometimes two.
    fn spoil(&self, rack: &mut Rack, older: &Rack, stripe: StripeId, random: &mut Random) {
        for _ in 0..random.choose(&[1, 1, 1, 1, 2]) {
            let slot = Slot(random.below(u64::from(self.geometry.members())) as u8);
            let (device, at) = self.place(slot, stripe);
            let mut block = *rack.peek(device, at);
            match random.below(5) {
                0 | 1 => flip(&mut block, random),
                // A write that never came there, though the drive said so.
                2 => block = *older.peek(device, at),
                // One that was meant for another place.
                3 => {
                    let other = StripeId(random.below(self.geometry.stripes()));
                    block = *rack.peek(device, self.place(slot, other).1);
                }
                _ => {
                    rack.spoil(device, at);
                    continue;
                }
            }
            rack.overwrite(device, at, &block);
        }
    }

    /// Whether all blocks of a stripe agree but for those of some slots (a bit mask), which nobody looks at.
    fn agrees_without(&self, rack: &Rack, stripe: StripeId, without: u32) -> bool {
        let members: Vec<_> = self.members.iter().filter(|(_, said)| without & 1 << said.slot == 0).cloned().collect();
        let row = Row { rack, members: &members, geometry: self.geometry, stripe };
        let told = |said: &Superblock| Some((row.of(Slot(said.slot))?, row.without(Slot(said.slot))?));
        members.iter().filter_map(|(_, said)| told(said)).all(|(found, expected)| *found == expected)
    }

    /// What a scrub is to find and to do, stripe by stripe.
    fn expect(
        &self,
        spoiled: &Rack,
        right: &Rack,
        stripes: &[StripeId],
        repair: Repair,
    ) -> BTreeMap<StripeId, Expected> {
        let expect = |&stripe: &StripeId| (stripe, self.expect_of(spoiled, right, stripe, repair));
        stripes.iter().map(expect).collect()
    }

    fn expect_of(&self, spoiled: &Rack, right: &Rack, stripe: StripeId, repair: Repair) -> Expected {
        let geometry = &self.geometry;
        let all = geometry.all_members();
        let is_hole = |slot: &Slot| {
            let (device, at) = self.place(*slot, stripe);
            !spoiled.is_readable(device, at, 1)
        };
        let unreadable = slots(all).filter(is_hole).fold(0, |mask: u32, slot| mask | 1 << slot.0);
        // With checksums each block is known by itself.
        let bad = if self.checksums { self.damaged(spoiled, right, stripe) & !unreadable } else { 0 };
        let holes = unreadable | bad;
        // Each group is judged by itself: all of a stripe, or the homes of a column.
        let groups: Vec<u32> = match geometry.parities() {
            0 => (0..geometry.data_slots()).map(|column| geometry.homes(stripe, column)).collect(),
            _ => vec![all],
        };
        let (mut wrong, mut doubtful, mut written) = (0, 0, 0);
        for group in groups {
            let there = group & !holes;
            let (blamed, unclear) = self.judge(spoiled, stripe, group, there);
            wrong |= blamed;
            let trusts = repair == Repair::Parity && (geometry.parities() == 0 || holes & self.columns(stripe) == 0);
            if unclear && trusts {
                written |= if geometry.parities() > 0 { there & !self.columns(stripe) } else { there & (there - 1) };
            }
            doubtful |= if unclear { there } else { 0 };
            if repair != Repair::None {
                written |= blamed;
                let missing = holes & group | written & group;
                if (!unclear || trusts) && geometry.bears(missing) {
                    written |= holes & group;
                }
            }
        }
        let mut changed = BTreeMap::new();
        for slot in slots(written) {
            let members: Vec<_> =
                self.members.iter().filter(|(_, said)| (written | holes) & 1 << said.slot == 0).cloned().collect();
            let row = Row { rack: spoiled, members: &members, geometry: *geometry, stripe };
            if let Some(block) = row.without(slot) {
                changed.insert(slot.0, block);
            }
        }
        // Where one block is wrong and it is known which, only one thing is right.
        if wrong.count_ones() <= 1 && doubtful == 0 && self.damaged(spoiled, right, stripe) & !holes & !wrong == 0 {
            for (&slot, block) in &changed {
                let (device, at) = self.place(Slot(slot), stripe);
                assert!(block == right.peek(device, at), "the oracle puts wrong what was right");
            }
        }
        Expected { wrong: wrong | bad, doubtful, holes: unreadable, changed }
    }

    /// The slots that hold the columns of a stripe.
    fn columns(&self, stripe: StripeId) -> u32 {
        (0..self.geometry.data_slots()).fold(0, |mask, column| mask | self.geometry.homes(stripe, column))
    }

    fn damaged(&self, spoiled: &Rack, right: &Rack, stripe: StripeId) -> u32 {
        slots(self.geometry.all_members()).fold(0, |mask: u32, slot| {
            let (device, at) = self.place(slot, stripe);
            if spoiled.peek(device, at) == right.peek(device, at) { mask } else { mask | 1 << slot.0 }
        })
    }

    /// Who of a group is wrong, and whether somebody is and nobody knows who.
    fn judge(&self, rack: &Rack, stripe: StripeId, group: u32, there: u32) -> (u32, bool) {
        let outside = self.geometry.all_members() & !there;
        if self.geometry.parities() > 0 {
            let gone = outside & group;
            if self.agrees_without(rack, stripe, gone) {
                return (0, false);
            }
            let alone: Vec<Slot> =
                slots(there).filter(|slot| self.agrees_without(rack, stripe, gone | 1 << slot.0)).collect();
            return match alone[..] {
                [slot] if self.geometry.parities() == 2 && gone == 0 => (1 << slot.0, false),
                _ => (0, true),
            };
        }
        let block = |slot: Slot| {
            let (device, at) = self.place(slot, stripe);
            rack.peek(device, at)
        };
        let like = |one: Slot| {
            slots(there).filter(|&other| block(one) == block(other)).fold(0, |mask: u32, slot| mask | 1 << slot.0)
        };
        let count = there.count_ones();
        match slots(there).map(like).max_by_key(|alike| alike.count_ones()) {
            Some(alike) if 2 * alike.count_ones() > count => (there & !alike, false),
            Some(_) => (0, true),
            None => (0, false),
        }
    }

    /// Every block of the members is as it was, or as it was to become.
    fn compare(
        &self,
        after: &Rack,
        before: &Rack,
        expected: &BTreeMap<StripeId, Expected>,
        repair: Repair,
    ) -> Result<(), Failure> {
        for stripe in (0..self.geometry.stripes()).map(StripeId) {
            for slot in slots(self.geometry.all_members()) {
                let (device, at) = self.place(slot, stripe);
                let change = expected.get(&stripe).and_then(|stripe| stripe.changed.get(&slot.0));
                let wanted = change.unwrap_or_else(|| before.peek(device, at));
                let readable = change.is_some() || before.is_readable(device, at, 1);
                if after.peek(device, at) != wanted || after.is_readable(device, at, 1) != readable {
                    let what = if change.is_some() { "was not put right" } else { "was changed" };
                    let detail = format!("with {repair:?} stripe {stripe} of member {slot} {what}");
                    return Err(Failure::Scrub { detail });
                }
            }
        }
        Ok(())
    }
}

/// Flips one bit or some.
fn flip(block: &mut Block, random: &mut Random) {
    let before = *block;
    while *block == before {
        for _ in 0..random.choose(&[1, 1, 2, 64]) {
            block[random.below(BLOCK as u64) as usize] ^= 1 << random.below(8);
        }
    }
    if before == ZERO_BLOCK && random.once_in(8) {
        block.fill(random.between(1, 255) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::production::Production;

    #[test]
    fn what_lies_wrong_on_members_is_found_and_nothing_else_is_touched() {
        let mut sums = Scrubbed::default();
        for seed in 0..60 {
            let scrubbed =
                scrub_seed::<Production>(seed, false).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            sums.add(&scrubbed);
        }
        let Scrubbed { located, unlocated, unreadable, repaired, cuts } = sums;
        assert!(located > 50 && unlocated > 20 && unreadable > 30, "{sums:?}");
        assert!(repaired > 50 && cuts > 20, "{sums:?}");
    }
}
