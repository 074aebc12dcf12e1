//! A drive takes the place of a member that was excluded and is rebuilt: every small world that a power cut may leave behind
//! between the steps, and long histories in which nobody is ever believed to hold what it does not.

use super::*;
use crate::geometry::Geometry;
use crate::superblock::MemberEntry;

const STEP: u64 = 1024;
const NEW: Uuid = Uuid([77; 16]);

/// What a superblock says of the place, later and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Excluded,
    Joined,
    Advanced,
    Whole,
}

const SAYS: [Says; 4] = [Says::Excluded, Says::Joined, Says::Advanced, Says::Whole];

fn saying(says: Says, slot: u8) -> Superblock {
    let mut superblock = Superblock { slot, ..example() };
    superblock.members[2].state = match says {
        Says::Excluded => State::Excluded { since: 6 },
        Says::Joined => State::Rebuilding { position: 0 },
        Says::Advanced => State::Rebuilding { position: STEP },
        Says::Whole => State::Active,
    };
    if says != Says::Excluded {
        superblock.members[2].uuid = NEW;
    }
    superblock.epoch = 7 + says as u64;
    superblock.update = superblock.epoch;
    superblock
}

fn of(members: &[(u16, &Superblock)]) -> Vec<Candidate> {
    let candidate = |&(device, superblock): &(u16, &Superblock)| Candidate {
        device: DeviceId(device),
        superblock: superblock.clone(),
    };
    members.iter().map(candidate).collect()
}

fn logs(epoch: u64) -> Vec<LogCandidate> {
    let superblock = example();
    let log = |at: u16| LogCandidate {
        device: DeviceId(20 + at),
        array: superblock.array,
        uuid: superblock.copies[usize::from(at)].uuid,
        generation: superblock.log_generation,
        epoch,
        members: 0,
        member_uuids: NOT_KEPT,
        joining: false,
    };
    (0..2).map(log).collect()
}

#[test]
fn a_place_is_what_the_newest_whole_member_says_and_the_drive_itself_says_nothing_before_it_is_whole() {
    let all = || SAYS.into_iter().map(Some).chain([None]);
    let mut worlds = 0;
    for first in all() {
        for second in all() {
            for drive in all().filter(|drive| *drive != Some(Says::Excluded)) {
                check(first, second, drive);
                worlds += 1;
            }
        }
    }
    assert_eq!(worlds, 100);
}

fn check(first: Option<Says>, second: Option<Says>, drive: Option<Says>) {
    let there = [(0, first), (1, second), (2, drive)].into_iter().filter_map(|(slot, says)| Some((slot, says?)));
    let superblocks: Vec<(u8, Superblock)> = there.map(|(slot, says)| (slot, saying(says, slot))).collect();
    let candidates: Vec<(u16, &Superblock)> =
        superblocks.iter().map(|(slot, superblock)| (10 + u16::from(*slot), superblock)).collect();
    let result = assemble(Wanted::Named("a0"), &of(&candidates), &logs(7), false);
    let context = format!("{first:?} {second:?}, the drive {drive:?}: {result:?}");
    let is_whole = drive == Some(Says::Whole);
    let truth = first.max(second).max(drive.filter(|_| is_whole));
    let named = truth.is_some_and(|truth| truth > Says::Excluded);
    let whole = [first.is_some(), second.is_some(), drive.is_some() && truth == Some(Says::Whole)];
    if whole.iter().filter(|whole| **whole).count() < 2 {
        assert!(result.is_err(), "{context}");
        return;
    }
    let assembly = result.expect("two whole members and the log are enough");
    assert_eq!(assembly.members[2].is_some(), named && drive.is_some(), "{context}");
    assert_eq!(assembly.newly_missing & 0b100 != 0, named && drive.is_none(), "{context}");
    let state = assembly.superblock.members[2].state;
    assert_eq!(state, saying(truth.expect("two are there"), 0).members[2].state, "{context}");
    let (highest, lowest) =
        (superblocks.iter().map(|(_, said)| said.epoch).max(), superblocks.iter().map(|(_, said)| said.epoch).min());
    assert_eq!(Some(assembly.highest_epoch), highest, "{context}");
    assert!(assembly.renew || highest == lowest, "{context}");
    for superblock in assembly.superblocks().iter().flatten() {
        assert_eq!(superblock.epoch, assembly.epoch(), "{context}");
        let said = superblock.members[2].state;
        if assembly.newly_missing & 0b100 != 0 {
            assert_eq!(said, State::Excluded { since: assembly.epoch() }, "{context}");
        } else {
            assert_eq!(said, state, "{context}");
        }
    }
}

#[test]
fn the_drive_that_was_replaced_is_named_and_left_out() {
    let old = Superblock { slot: 2, epoch: 5, update: 5, ..example() };
    for says in [Says::Joined, Says::Advanced, Says::Whole] {
        let (first, second, drive) = (saying(says, 0), saying(says, 1), saying(says, 2));
        let candidates = of(&[(10, &first), (30, &old), (11, &second), (12, &drive)]);
        let assembly = assemble(Wanted::Named("a0"), &candidates, &logs(7), false).expect("an array");
        assert_eq!(assembly.members[2].as_ref().map(|member| member.device), Some(DeviceId(12)));
        assert!(assembly.notes.iter().any(|note| note.starts_with("device 30: was replaced")), "{:?}", assembly.notes);
    }
}

/// Two members that stay, a place that drives take in turns, and what is true of the drive that has it.
#[derive(Clone)]
struct World {
    members: Vec<Superblock>,
    /// Drives that were named once; the last one may have the place.
    drives: Vec<Superblock>,
    /// By drive: stripes below this are current on it.
    current: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            members: (0..2).map(|slot| Superblock { slot, ..example() }).collect(),
            drives: vec![Superblock { slot: 2, ..example() }],
            current: vec![u64::MAX],
        };
        for member in &mut world.members {
            member.exclude(8, 0b100, 0);
        }
        world.current[0] = 0;
        world
    }

    fn assemble(&self, drives: u64) -> Assembly {
        let mut there: Vec<(u16, &Superblock)> = (10..).zip(&self.members).collect();
        there.extend((30..).zip(&self.drives).filter(|(at, _)| drives & 1 << (at - 30) != 0));
        let newest = self.members.iter().map(|said| said.epoch).max().expect("two members");
        let assembly = assemble(Wanted::Named("a0"), &of(&there), &logs(newest), false);
        let assembly = assembly.unwrap_or_else(|error| panic!("both other members are there: {error}"));
        if let Some(used) = &assembly.members[2] {
            let truth = self.current[used.device.index() - 30];
            match assembly.superblock.members[2].state {
                State::Active => assert_eq!(truth, u64::MAX, "{used:?} is not whole"),
                State::Rebuilding { position } => assert!(position <= truth, "{used:?} is current up to {truth}"),
                State::Excluded { .. } => unreachable!("an excluded member is not used"),
            }
        }
        assembly
    }

    /// A start with some of the drives, cut after so many writes. Whoever is not used misses what is written then; of who is
    /// being rebuilt, so are the stripes from its position on.
    fn start(&mut self, drives: u64, cut: usize) {
        let assembly = self.assemble(drives);
        let used = assembly.members[2].as_ref().map(|member| member.device.index() - 30);
        let renewed = assembly.superblocks();
        let mut written = 0;
        for (slot, superblock) in renewed.iter().enumerate().filter(|_| assembly.renew) {
            let Some(superblock) = superblock else { continue };
            if written == cut {
                return;
            }
            written += 1;
            match (slot, used) {
                (2, Some(drive)) => self.drives[drive] = superblock.clone(),
                _ => self.members[slot] = superblock.clone(),
            }
        }
        let position = match assembly.superblock.members[2].state {
            State::Rebuilding { position } => position,
            State::Active | State::Excluded { .. } => u64::MAX,
        };
        for (drive, current) in self.current.iter_mut().enumerate() {
            *current = if Some(drive) == used { (*current).min(position) } else { 0 };
        }
    }

    /// While the array is served with the drive that has the place, if any, the superblocks are to say something else of it.
    /// The writes reach some of those who take part; if they reach all, it is in force.
    fn propose(&mut self, change: u64, reached: u64) {
        let in_force = self.assemble(u64::MAX);
        if in_force.renew {
            self.start(u64::MAX, usize::MAX);
            return;
        }
        let mut tables = in_force.superblock.tables();
        let epoch = in_force.epoch() + 1;
        let used = in_force.members[2].as_ref().map(|member| member.device.index() - 30);
        let drive = match (tables.members[2].state, used) {
            (State::Excluded { .. }, _) => {
                let drive = self.drives.len();
                tables.members[2] =
                    MemberEntry { uuid: Uuid([100 + drive as u8; 16]), state: State::Rebuilding { position: 0 } };
                let mut superblock = Superblock { slot: 2, ..in_force.superblock };
                superblock.renew(epoch, &tables);
                self.drives.push(superblock);
                self.current.push(0);
                drive
            }
            (_, Some(_)) if change == 0 => {
                tables.exclude(epoch, 0b100, 0);
                usize::MAX
            }
            (State::Rebuilding { position }, Some(drive)) => {
                let position = if change <= 2 { u64::MAX } else { position + STEP };
                self.current[drive] = position;
                tables.members[2].state =
                    if position > 3 * STEP { State::Active } else { State::Rebuilding { position } };
                if position > 3 * STEP {
                    self.current[drive] = u64::MAX;
                }
                drive
            }
            _ => return,
        };
        let mut everyone: Vec<&mut Superblock> = self.members.iter_mut().collect();
        everyone.extend(self.drives.get_mut(drive).filter(|said| said.epoch < epoch));
        let all = everyone.len();
        let mut count = 0;
        for (at, superblock) in everyone.into_iter().enumerate() {
            if reached & 1 << at != 0 {
                superblock.renew(epoch, &tables);
                count += 1;
            }
        }
        if count == all && drive == usize::MAX {
            // The array goes on without it.
            self.current.fill(0);
        }
    }
}

#[test]
fn after_long_histories_nobody_is_believed_to_hold_what_it_does_not() {
    let mut seed = 3u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let (mut whole, mut rebuilding) = (0, 0);
    for _ in 0..4000 {
        let mut world = World::new();
        for _ in 0..12 {
            if random(6) == 0 {
                world.start(random(u64::MAX), random(4) as usize);
            } else {
                world.propose(random(8), if random(2) == 0 { u64::MAX } else { random(8) });
            }
            match world.assemble(u64::MAX).superblock.members[2].state {
                State::Active => whole += 1,
                State::Rebuilding { .. } => rebuilding += 1,
                State::Excluded { .. } => {}
            }
            for drives in [0, random(u64::MAX)] {
                world.assemble(drives);
            }
        }
    }
    assert!(whole > 1000 && rebuilding > 1000, "{whole} worlds with a whole drive, {rebuilding} with one on its way");
}

#[test]
fn a_drive_that_some_were_told_of_before_it_failed_is_left_out() {
    // The first heard of it; the second of the epoch after it, which says again what was before.
    let (told, mut again) = (saying(Says::Joined, 0), saying(Says::Excluded, 1));
    again.epoch = told.epoch + 1;
    let candidates = of(&[(10, &told), (11, &again)]);
    let assembly = assemble(Wanted::Named("a0"), &candidates, &logs(7), false).expect("both are whole members");
    assert_eq!(assembly.members.iter().flatten().count(), 2);
    assert_eq!(assembly.superblock.members[2].state, State::Excluded { since: 6 });
    assert!(assembly.renew);
}

#[test]
fn who_left_long_ago_does_not_outvote_the_one_that_is_left() {
    let mut mirror = example();
    let geometry = mirror.geometry;
    mirror.geometry = Geometry::new(Level::Raid1, 3, geometry.chunk_blocks(), geometry.stripes()).expect("sound");
    let first = Superblock { slot: 0, ..mirror.clone() };
    let mut second = Superblock { slot: 2, epoch: 8, ..mirror.clone() };
    second.members[0].state = State::Excluded { since: 8 };
    // Both places were given to others since, and of all that take part now one is there.
    let mut last = Superblock { slot: 2, epoch: 20, ..mirror };
    (last.members[0].uuid, last.members[2].uuid) = (NEW, Uuid([78; 16]));
    let found = of(&[(10, &first), (12, &second), (15, &last)]);
    let assembly = assemble(Wanted::Named("a0"), &found, &logs(20), false).expect("a mirror bears the loss of two");
    let used: Vec<_> = assembly.members.iter().map(|member| member.as_ref().map(|member| member.device.0)).collect();
    assert_eq!((used, assembly.newly_missing), (vec![None, None, Some(15)], 0b011));
    assert_eq!(assembly.notes.len(), 2, "who is left out is named: {:?}", assembly.notes);
    // Without a member in common each may have gone on without the others: nobody is taken for the truth.
    last.members[1].uuid = Uuid([79; 16]);
    let found = of(&[(10, &first), (12, &second), (15, &last)]);
    let refused = assemble(Wanted::Named("a0"), &found, &logs(20), false);
    assert!(matches!(refused, Err(AssembleError::Contradiction { .. })), "{refused:?}");
}

/// A mirror whose first place was given to another, which was filled: then only who was replaced is there, with the log.
#[test]
fn a_mirror_that_was_replaced_is_left_behind_though_its_place_takes_part() {
    let geometry = Geometry::new(crate::Level::Raid1, 2, 1, 1024).expect("a pair");
    let mut replaced = Superblock { slot: 0, geometry, ..example() };
    replaced.members.truncate(2);
    let mut members = replaced.members.clone();
    members[0].uuid = NEW;
    let log = |member_uuids| LogCandidate { members: 0b11, member_uuids, ..logs(12)[0] };
    let all = |member_uuids| [log(member_uuids), LogCandidate { uuid: replaced.copies[1].uuid, ..log(member_uuids) }];
    let start = |superblock: &Superblock, member_uuids| {
        assemble(Wanted::Named("a0"), &of(&[(10, superblock)]), &all(member_uuids), false)
    };
    let left_behind = start(&replaced, crate::member_uuids(&members));
    assert!(
        matches!(left_behind, Err(AssembleError::LeftBehind { ref alone, .. }) if alone == &[0, 1]),
        "{left_behind:?}"
    );
    // Who is named has all that there is, and says so itself.
    let drive = Superblock { members: members.clone(), epoch: 12, ..replaced.clone() };
    assert_eq!(start(&drive, crate::member_uuids(&members)).expect("it is one of them").members_whole(), 1);
    // The other mirror takes part under its own name: whoever has its neighbour's place is nothing to it.
    let other = Superblock { slot: 1, ..drive };
    assert_eq!(start(&other, crate::member_uuids(&members)).expect("it is one of them").members_whole(), 2);
}
