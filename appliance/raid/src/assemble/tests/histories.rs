//! Worlds as interrupted starts leave them: an array of three members and two log copies is started with some of its
//! devices, and cut between any two writes of superblocks. Whoever was not used while the array was served is stale for
//! ever, and must never be used again, whatever the tables say. All this for a level of which any two members know everything,
//! and for mirrors, where one may have gone on alone.

use super::*;
use crate::{Geometry, Level};

const MEMBERS: u8 = 3;
const COPIES: u8 = 2;

#[derive(Clone)]
struct World {
    members: Vec<Superblock>,
    /// Of the log copies: the epoch, and who takes part at it.
    logs: Vec<(u64, u32)>,
    /// Who missed acknowledged writes.
    stale_members: u8,
    stale_copies: u8,
}

/// What is there at a start, as bit masks, and after how many writes it is cut.
#[derive(Clone, Copy, Debug)]
struct Start {
    members: u8,
    copies: u8,
    cut: usize,
}

impl World {
    fn new(level: Level) -> Self {
        let geometry = example().geometry;
        let geometry = Geometry::new(level, MEMBERS, geometry.chunk_blocks(), geometry.stripes()).expect("a geometry");
        let member = |slot| Superblock { slot, geometry, ..example() };
        Self {
            members: (0..MEMBERS).map(member).collect(),
            logs: vec![(example().epoch, geometry.all_members()); usize::from(COPIES)],
            stale_members: 0,
            stale_copies: 0,
        }
    }

    fn assemble(&self, members: u8, copies: u8, force: bool) -> Result<Assembly, AssembleError> {
        let there = (0..MEMBERS).filter(|slot| members & 1 << slot != 0);
        let candidates: Vec<Candidate> = there
            .map(|slot| Candidate {
                device: DeviceId(slot.into()),
                superblock: self.members[usize::from(slot)].clone(),
            })
            .collect();
        let there = (0..COPIES).filter(|copy| copies & 1 << copy != 0);
        let superblock = &self.members[0];
        let logs: Vec<LogCandidate> = there
            .map(|copy| LogCandidate {
                device: DeviceId(u16::from(10 + copy)),
                array: superblock.array,
                uuid: superblock.copies[usize::from(copy)].uuid,
                generation: superblock.log_generation,
                epoch: self.logs[usize::from(copy)].0,
                members: self.logs[usize::from(copy)].1,
                member_uuids: NOT_KEPT,
                joining: false,
            })
            .collect();
        let assembly = assemble(Wanted::Named("a0"), &candidates, &logs, force)?;
        // Where one member may have gone on alone, the operator's word can make an old one the truth.
        let by_word = force && superblock.geometry.level() != Level::Raid5;
        let used = |mask: u8, at: usize, there: bool| !by_word && there && mask & 1 << at != 0;
        for (slot, member) in assembly.members.iter().enumerate() {
            assert!(!used(self.stale_members, slot, member.is_some()), "member {slot} is stale");
        }
        for (at, copy) in assembly.copies.iter().enumerate() {
            assert!(!used(self.stale_copies, at, copy.is_some()), "log copy {at} is stale");
        }
        assert!(assembly.epoch() >= assembly.highest_epoch);
        Ok(assembly)
    }

    /// Starts, as far as the cut; whether the array was served.
    fn start(&mut self, start: Start, force: bool) -> bool {
        let Ok(assembly) = self.assemble(start.members, start.copies, force) else { return false };
        let mut writes = 0;
        let mut allowed = || {
            writes += 1;
            writes <= start.cut
        };
        for (log, copy) in self.logs.iter_mut().zip(&assembly.copies) {
            if copy.is_some() && allowed() {
                assert!(assembly.epoch() >= log.0, "a log's epoch never goes down");
                *log = (assembly.epoch(), assembly.members_whole());
            }
        }
        for (member, renewed) in self.members.iter_mut().zip(assembly.superblocks()) {
            let Some(renewed) = renewed.filter(|_| assembly.renew) else { continue };
            if allowed() {
                *member = renewed;
            }
        }
        if writes > start.cut {
            return false;
        }
        let mask = |unused: &mut dyn Iterator<Item = bool>| {
            (0..).zip(unused).filter(|(_, unused)| *unused).fold(0, |mask, (at, _): (u8, _)| mask | 1 << at)
        };
        self.stale_members |= mask(&mut assembly.members.iter().map(Option::is_none));
        self.stale_copies |= mask(&mut assembly.copies.iter().map(Option::is_none));
        true
    }

    /// While it is served a log copy fails; its exclusion reaches only some of those that stay. If it reaches all, the array
    /// goes on without it.
    fn lose_copy(&mut self, copy: u8, reached: u8) {
        let stay: Vec<u8> = (0..MEMBERS).filter(|slot| self.stale_members & 1 << slot == 0).collect();
        if self.stale_copies != 0 {
            return;
        }
        let epoch = 1 + stay.iter().map(|slot| self.members[usize::from(*slot)].epoch).max().expect("served");
        let log_reached = reached & 1 << MEMBERS != 0;
        if log_reached {
            let there = u32::from(!self.stale_members) & self.members[0].geometry.all_members();
            self.logs[usize::from(1 - copy)] = (epoch, there);
        }
        let mut all = log_reached;
        for slot in stay {
            if reached & 1 << slot != 0 {
                self.members[usize::from(slot)].exclude(epoch, 0, 1 << copy);
            } else {
                all = false;
            }
        }
        if all {
            self.stale_copies |= 1 << copy;
        }
    }

    /// With everything there the array can be served, perhaps not without the operator's word.
    fn check_alive(&self) {
        match self.assemble(0b111, 0b11, false) {
            Ok(_) => {}
            Err(AssembleError::Forked { .. } | AssembleError::LeftBehind { .. }) => {
                let forced = self.assemble(0b111, 0b11, true);
                assert!(forced.is_ok(), "{forced:?}");
            }
            Err(other) => panic!("all devices are there: {other}"),
        }
    }
}

/// All starts with as many members as the level takes at least.
fn starts(level: Level) -> Vec<Start> {
    let geometry = World::new(level).members[0].geometry;
    let mut starts = Vec::new();
    for members in (1..=0b111u8).rev().filter(|members| geometry.bears(!u32::from(*members))) {
        for copies in [0b11, 0b01, 0b10] {
            for cut in 0..=usize::from(MEMBERS + COPIES) {
                starts.push(Start { members, copies, cut });
            }
        }
    }
    starts
}

#[test]
fn after_two_starts_that_are_cut_anywhere_nobody_stale_is_used() {
    for level in [Level::Raid5, Level::Raid1] {
        let mut served = 0;
        for first in starts(level) {
            let mut world = World::new(level);
            world.start(first, false);
            for second in starts(level) {
                let mut world = world.clone();
                served += u32::from(world.start(second, false));
                for third in starts(level).into_iter().filter(|start| start.cut == usize::from(MEMBERS + COPIES)) {
                    world.clone().start(third, false);
                }
                world.check_alive();
            }
        }
        assert!(served > 1000, "{level}: {served} second starts were served");
    }
}

#[test]
fn after_long_histories_nobody_stale_is_used_and_all_devices_together_serve() {
    long_histories(Level::Raid5);
    long_histories(Level::Raid1);
}

fn long_histories(level: Level) {
    let starts = starts(level);
    let (mut seed, mut served) = (1u64, 0u32);
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..4000 {
        let mut world = World::new(level);
        for _ in 0..8 {
            let start = starts[random(starts.len())];
            if world.start(start, random(4) == 0 && level == Level::Raid5) {
                served += 1;
                if random(3) == 0 {
                    world.lose_copy(random(2) as u8, random(16) as u8);
                }
            }
        }
        world.check_alive();
    }
    assert!(served > 4000, "{level}: {served} starts were served");
}

#[test]
fn a_member_with_an_exclusion_of_its_own_at_the_same_epoch_is_out_wherever_it_is_found() {
    let all = usize::from(MEMBERS + COPIES);
    // Log copy 1 is missing, and only member 0 hears of it; then member 0 is missing, and log copy 0 forgets nothing since
    // it is missing too.
    let mut world = World::new(Level::Raid5);
    assert!(!world.start(Start { members: 0b111, copies: 0b01, cut: 2 }, false));
    assert!(world.start(Start { members: 0b110, copies: 0b10, cut: all }, false));
    let epochs: Vec<u64> = world.members.iter().map(|member| member.epoch).collect();
    assert_eq!(epochs, [8, 8, 8], "three members of one epoch with two tables");
    let assembly = world.assemble(0b111, 0b11, false).expect("two current members");
    let used: Vec<bool> = assembly.members.iter().map(Option::is_some).collect();
    assert_eq!((used, &assembly.copies[..]), (vec![false, true, true], &[None, Some(DeviceId(11))][..]));
    assert_eq!((assembly.renew, assembly.epoch()), (true, 9), "the epoch of two tables is not used on");
}

#[test]
fn members_that_exclude_each_other_wait_for_the_operator() {
    let mut world = World::new(Level::Raid5);
    assert!(!world.start(Start { members: 0b011, copies: 0b11, cut: 3 }, false));
    assert!(!world.start(Start { members: 0b110, copies: 0b11, cut: 3 }, false));
    let refused = world.assemble(0b111, 0b11, false);
    assert!(matches!(refused, Err(AssembleError::Forked { .. })), "{refused:?}");
    assert!(
        matches!(world.assemble(0b011, 0b11, true), Err(AssembleError::TooManyMissing { .. })),
        "not all are there"
    );
    let forced = world.assemble(0b111, 0b11, true).expect("nothing was ever relied upon");
    assert!(forced.members.iter().all(Option::is_some) && forced.renew);
    assert_eq!(forced.epoch(), 10);
}

#[test]
fn a_mirror_that_was_left_behind_says_so_and_so_does_one_that_cannot_know() {
    let all = usize::from(MEMBERS + COPIES);
    let mut world = World::new(Level::Raid1);
    // Members 0 and 1 are left behind, and know nothing of it.
    assert!(world.start(Start { members: 0b100, copies: 0b11, cut: all }, false));
    let left_behind = world.assemble(0b011, 0b10, false);
    assert!(
        matches!(&left_behind, Err(AssembleError::LeftBehind { device: DeviceId(11), alone, .. }) if alone == &[2]),
        "{left_behind:?}"
    );
    assert!(world.assemble(0b111, 0b11, false).is_ok_and(|assembly| assembly.members_whole() == 0b100));
    assert!(world.assemble(0b011, 0b11, true).is_ok(), "the operator's word");

    // With a log copy away nobody could tell, though two of three members are there.
    let world = World::new(Level::Raid1);
    let undecided = world.assemble(0b011, 0b01, false);
    assert!(
        matches!(&undecided, Err(AssembleError::Undecided { members, copies, .. }) if members == &[2] && copies == &[1]),
        "{undecided:?}"
    );
    assert!(world.assemble(0b001, 0b11, false).is_ok(), "both log copies would know");
    assert!(world.assemble(0b111, 0b01, false).is_ok(), "nobody went on without these");
}

#[test]
fn mirrors_that_exclude_each_other_wait_for_the_operator_who_takes_the_newest() {
    let all = usize::from(MEMBERS + COPIES);
    let mut world = World::new(Level::Raid1);
    // Member 0 alone is told that it is alone, and no log copy; then the others go on without it.
    world.members[0].exclude(8, 0b110, 0);
    assert!(world.start(Start { members: 0b010, copies: 0b11, cut: all }, false));
    world.members[2].exclude(8, 0b011, 0);
    let refused = world.assemble(0b111, 0b11, false);
    assert!(matches!(refused, Err(AssembleError::Forked { .. })), "{refused:?}");
    let forced = world.assemble(0b111, 0b11, true).expect("the operator's word");
    assert!(forced.members_whole().is_power_of_two() && forced.renew && forced.epoch() > 8);
}
