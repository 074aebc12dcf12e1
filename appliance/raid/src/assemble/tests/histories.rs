//! Worlds as interrupted starts leave them: an array of three members and two log copies is started with some of its
//! devices, and cut between any two writes of superblocks. Whoever was not used while the array was served is stale for
//! ever, and must never be used again, whatever the tables say.

use super::*;

const MEMBERS: u8 = 3;
const COPIES: u8 = 2;

#[derive(Clone)]
struct World {
    members: Vec<Superblock>,
    /// Epochs of the log copies.
    logs: Vec<u64>,
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
    fn new() -> Self {
        let member = |slot| Superblock { slot, ..example() };
        Self {
            members: (0..MEMBERS).map(member).collect(),
            logs: vec![example().epoch; usize::from(COPIES)],
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
                epoch: self.logs[usize::from(copy)],
            })
            .collect();
        let assembly = assemble(Wanted::Named("a0"), &candidates, &logs, force)?;
        let used = |mask: u8, at: usize, there: bool| there && mask & 1 << at != 0;
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
                assert!(assembly.epoch() >= *log, "a log's epoch never goes down");
                *log = assembly.epoch();
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
            self.logs[usize::from(1 - copy)] = epoch;
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
            Err(AssembleError::Forked { .. }) => {
                let forced = self.assemble(0b111, 0b11, true);
                assert!(forced.is_ok(), "{forced:?}");
            }
            Err(other) => panic!("all devices are there: {other}"),
        }
    }
}

fn starts() -> Vec<Start> {
    let mut starts = Vec::new();
    for members in [0b111, 0b110, 0b101, 0b011] {
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
    let mut served = 0;
    for first in starts() {
        let mut world = World::new();
        world.start(first, false);
        for second in starts() {
            let mut world = world.clone();
            served += u32::from(world.start(second, false));
            for third in starts().into_iter().filter(|start| start.cut == usize::from(MEMBERS + COPIES)) {
                world.clone().start(third, false);
            }
            world.check_alive();
        }
    }
    assert!(served > 1000, "{served} second starts were served");
}

#[test]
fn after_long_histories_nobody_stale_is_used_and_all_devices_together_serve() {
    let starts = starts();
    let (mut seed, mut served) = (1u64, 0u32);
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..4000 {
        let mut world = World::new();
        for _ in 0..8 {
            let start = starts[random(starts.len())];
            if world.start(start, random(4) == 0) {
                served += 1;
                if random(3) == 0 {
                    world.lose_copy(random(2) as u8, random(16) as u8);
                }
            }
        }
        world.check_alive();
    }
    assert!(served > 4000, "{served} starts were served");
}

#[test]
fn a_member_with_an_exclusion_of_its_own_at_the_same_epoch_is_out_wherever_it_is_found() {
    let all = usize::from(MEMBERS + COPIES);
    // Log copy 1 is missing, and only member 0 hears of it; then member 0 is missing, and log copy 0 forgets nothing since
    // it is missing too.
    let mut world = World::new();
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
    let mut world = World::new();
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
