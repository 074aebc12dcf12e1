//! Every small world; the worlds that interrupted starts leave behind are in `histories`.

mod copies;
mod fates;
mod growing;
mod histories;
mod places;

use super::*;
use crate::superblock::tests::example;

/// As older versions wrote them.
const NOT_KEPT: MemberUuids = [Uuid::NIL; journal::superblock::MEMBER_SLOTS];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    There,
    Absent,
    /// Excluded by an epoch that the others know and it does not.
    Stale,
}

fn world(fates: [Fate; 3], logs: [Fate; 2]) -> (Vec<Candidate>, Vec<LogCandidate>) {
    let mask = |fates: &[Fate]| {
        (0..).zip(fates).filter(|(_, fate)| **fate == Fate::Stale).fold(0, |mask, (at, _): (u32, _)| mask | 1 << at)
    };
    let mut newest = example();
    let (members, copies) = (mask(&fates), mask(&logs));
    if members | copies != 0 {
        newest.exclude(8, members, copies);
    }
    let mut candidates = Vec::new();
    // In an order that is not that of the slots.
    for slot in [2u8, 0, 1] {
        let mut superblock = match fates[usize::from(slot)] {
            Fate::There => newest.clone(),
            Fate::Stale => example(),
            Fate::Absent => continue,
        };
        superblock.slot = slot;
        candidates.push(Candidate { device: DeviceId(10 + u16::from(slot)), superblock });
    }
    let mut log_candidates = Vec::new();
    for (at, fate) in logs.iter().enumerate() {
        if *fate != Fate::Absent {
            log_candidates.push(LogCandidate {
                device: DeviceId(20 + at as u16),
                array: newest.array,
                uuid: newest.copies[at].uuid,
                generation: newest.log_generation,
                epoch: if *fate == Fate::Stale { 7 } else { newest.epoch },
                members: 0,
                member_uuids: NOT_KEPT,
                joining: false,
            });
        }
    }
    (candidates, log_candidates)
}

#[test]
fn what_members_missed_is_kept_from_the_first_that_is_not_there_and_not_beyond_a_forced_start() {
    let layout = crate::MemberLayout::for_device(1 << 16, 1024, false).expect("256 MiB is enough");
    let (mut candidates, logs) = world([Fate::There, Fate::Absent, Fate::There], [Fate::There; 2]);
    candidates.iter_mut().for_each(|candidate| candidate.superblock.layout = layout);
    let array = example().array;
    let assembled = |candidates: &[Candidate], force| {
        let assembly = assemble(Wanted::Array(array), candidates, &logs, force).expect("two of three");
        let said = assembly.superblocks();
        assert!(assembly.renew);
        (said[0].clone().expect("it is there"), said[2].clone().expect("it is there"))
    };
    let (first, third) = assembled(&candidates, false);
    assert_eq!((first.away, third.away), (Some(crate::Away::default()), first.away));
    for candidate in &mut candidates {
        candidate.superblock = if candidate.superblock.slot == 0 { first.clone() } else { third.clone() };
    }
    assert_eq!(assembled(&candidates, true).0.away, None);
}

#[test]
fn every_small_world_is_served_or_refused_as_the_rules_say() {
    const FATES: [Fate; 3] = [Fate::There, Fate::Absent, Fate::Stale];
    let mut worlds = 0;
    for a in FATES {
        for b in FATES {
            for c in FATES {
                for l in FATES {
                    for m in FATES {
                        check([a, b, c], [l, m]);
                        worlds += 1;
                    }
                }
            }
        }
    }
    assert_eq!(worlds, 243);
}

fn check(fates: [Fate; 3], logs: [Fate; 2]) {
    let (candidates, log_candidates) = world(fates, logs);
    let result = assemble(Wanted::Named("a0"), &candidates, &log_candidates, false);
    let there = fates.iter().filter(|fate| **fate == Fate::There).count();
    let with_superblock = fates.iter().filter(|fate| **fate != Fate::Absent).count();
    let context = format!("{fates:?} {logs:?}: {result:?}");
    if with_superblock == 0 {
        assert!(matches!(result, Err(AssembleError::NotFound { .. })), "{context}");
    } else if with_superblock < 2 {
        assert!(matches!(result, Err(AssembleError::NoMajority { .. })), "{context}");
    } else if there == 0 {
        check_unknowing(fates, logs, &candidates, &log_candidates);
    } else if with_superblock == 3 && there == 1 {
        // More are excluded than the level bears, which only interrupted starts leave behind.
        assert!(matches!(result, Err(AssembleError::Forked { .. })), "{context}");
    } else if there < 2 {
        assert!(matches!(result, Err(AssembleError::TooManyMissing { .. })), "{context}");
    } else if !logs.contains(&Fate::There) {
        assert!(matches!(result, Err(AssembleError::NoLog { .. })), "{context}");
    } else {
        let assembly = result.expect("two members and a log copy are enough");
        for (slot, fate) in fates.iter().enumerate() {
            assert_eq!(assembly.members[slot].is_some(), *fate == Fate::There, "{context}");
            assert_eq!(assembly.newly_missing & 1 << slot != 0, *fate == Fate::Absent, "{context}");
        }
        for (at, fate) in logs.iter().enumerate() {
            assert_eq!(assembly.copies[at].is_some(), *fate == Fate::There, "{context}");
            assert_eq!(assembly.newly_missing_copies & 1 << at != 0, *fate == Fate::Absent, "{context}");
        }
        let all = || fates.iter().chain(&logs);
        let absent = all().any(|fate| *fate == Fate::Absent);
        let stale = all().filter(|fate| **fate == Fate::Stale).count();
        let epoch = if stale > 0 { 8 } else { 7 };
        assert_eq!((assembly.highest_epoch, assembly.renew), (epoch, absent), "{context}");
        assert_eq!(assembly.epoch(), epoch + u64::from(absent), "{context}");
        assert_eq!(assembly.notes.len(), stale, "everything that is left out is named: {context}");
    }
}

/// None of the members knows of the exclusion: as far as they can tell nothing was ever excluded.
fn check_unknowing(fates: [Fate; 3], logs: [Fate; 2], candidates: &[Candidate], log_candidates: &[LogCandidate]) {
    let result = assemble(Wanted::Named("a0"), candidates, log_candidates, false);
    let context = format!("{fates:?} {logs:?}: {result:?}");
    if logs == [Fate::Absent; 2] {
        assert!(matches!(result, Err(AssembleError::NoLog { .. })), "{context}");
        return;
    }
    let assembly = result.expect("two members and a log copy are enough");
    for (slot, fate) in fates.iter().enumerate() {
        assert_eq!(assembly.members[slot].is_some(), *fate == Fate::Stale, "{context}");
        assert_eq!(assembly.newly_missing & 1 << slot != 0, *fate == Fate::Absent, "{context}");
    }
    for (at, fate) in logs.iter().enumerate() {
        assert_eq!(assembly.copies[at].is_some(), *fate != Fate::Absent, "{context}");
        assert_eq!(assembly.newly_missing_copies & 1 << at != 0, *fate == Fate::Absent, "{context}");
    }
    // A log copy may know that there was a later epoch: then no member may use that one again.
    let epoch = if logs.contains(&Fate::There) { 8 } else { 7 };
    let absent = fates.iter().chain(&logs).any(|fate| *fate == Fate::Absent);
    assert_eq!((assembly.superblock.epoch, assembly.highest_epoch), (7, epoch), "{context}");
    assert_eq!(assembly.renew, absent || epoch == 8, "{context}");
    assert_eq!(assembly.notes, Vec::<String>::new(), "{context}");
}

#[test]
fn copies_of_a_drive_foreign_drives_and_swapped_drives_are_named() {
    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There; 2]);
    let mut copy = candidates[0].clone();
    copy.device = DeviceId(30);
    candidates.push(copy);
    let duplicate = assemble(Wanted::Named("a0"), &candidates, &logs, false);
    assert!(matches!(
        duplicate,
        Err(AssembleError::Duplicate { first: DeviceId(12), second: DeviceId(30), slot: 2, .. })
    ));

    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There; 2]);
    candidates[1].superblock.array = Uuid([77; 16]);
    let foreign = assemble(Wanted::Named("a0"), &candidates, &logs, false);
    assert!(matches!(foreign, Err(AssembleError::TwoArrays { second_device: DeviceId(10), .. })));

    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There; 2]);
    candidates[1].superblock.members.swap(0, 1);
    let swapped = assemble(Wanted::Named("a0"), &candidates, &logs, false);
    assert!(matches!(swapped, Err(AssembleError::Contradiction { .. } | AssembleError::Duplicate { .. })));

    let (candidates, logs) = world([Fate::There, Fate::Absent, Fate::Absent], [Fate::There; 2]);
    let forced = assemble(Wanted::Named("a0"), &candidates, &logs, true);
    assert!(matches!(forced, Err(AssembleError::TooManyMissing { .. })), "force is no parity");
}

#[test]
fn a_member_that_missed_the_last_update_is_used() {
    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There, Fate::Stale]);
    // It crashed between the writes of the superblocks that excluded a log copy.
    let slot = candidates[0].superblock.slot;
    candidates[0].superblock = example();
    candidates[0].superblock.slot = slot;
    let assembly = assemble(Wanted::Array(Uuid([9; 16])), &candidates, &logs, false).expect("an array");
    assert!(assembly.members.iter().all(Option::is_some));
    assert_eq!((assembly.superblock.epoch, assembly.renew, assembly.epoch()), (8, true, 9));
    for superblock in assembly.superblocks().iter().flatten() {
        assert_eq!((superblock.epoch, &superblock.copies), (9, &assembly.superblock.copies));
        assert_eq!(superblock.members, assembly.superblock.members);
    }
    assert_eq!(assembly.copies, [Some(DeviceId(20)), None]);
}

#[test]
fn a_stale_member_of_another_shape_is_left_out_and_an_active_one_refuses_the_array() {
    type Change = fn(&mut Superblock);
    let changes: [Change; 4] = [
        |superblock| superblock.geometry = crate::Geometry::new(crate::Level::Raid5, 3, 32, 4096).expect("a geometry"),
        |superblock| superblock.log_generation += 1,
        |superblock| superblock.copies[1].uuid = Uuid([99; 16]),
        |superblock| superblock.members[0].uuid = Uuid([99; 16]),
    ];
    for (at, change) in changes.iter().enumerate() {
        for fate in [Fate::Stale, Fate::There] {
            let (mut candidates, logs) = world([Fate::There, Fate::There, fate], [Fate::There; 2]);
            change(&mut candidates[0].superblock);
            let result = assemble(Wanted::Named("a0"), &candidates, &logs, false);
            if fate == Fate::There {
                let refused = matches!(result, Err(AssembleError::Contradiction { device: DeviceId(12), .. }));
                assert!(refused, "change {at}: {result:?}");
            } else {
                let assembly = result.expect("the others are enough");
                assert!(assembly.members[2].is_none() && assembly.newly_missing == 0, "change {at}");
                assert!(assembly.notes.len() == 1 && assembly.notes[0].starts_with("device 12:"), "change {at}");
            }
        }
    }
    // Its place was given to another since.
    let (mut candidates, logs) = world([Fate::There; 3], [Fate::Stale, Fate::There]);
    let mut replaced = candidates[0].clone();
    (replaced.device, replaced.superblock.epoch, replaced.superblock.members[2].uuid) =
        (DeviceId(30), 3, Uuid([99; 16]));
    candidates.insert(0, replaced);
    let assembly = assemble(Wanted::Named("a0"), &candidates, &logs, false).expect("an array");
    assert!(assembly.members.iter().all(Option::is_some) && !assembly.renew);
    assert!(assembly.notes.iter().any(|note| note.starts_with("device 30: was replaced")), "{:?}", assembly.notes);
}

#[test]
fn log_devices_that_are_not_used_are_named() {
    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There; 2]);
    let mut other = candidates[0].clone();
    (other.device, other.superblock.array, other.superblock.name) = (DeviceId(40), Uuid([50; 16]), "a1".to_owned());
    candidates.push(other);
    let like = |change: fn(&mut LogCandidate)| {
        let mut log = LogCandidate { device: DeviceId(30), ..logs[0] };
        change(&mut log);
        let all = [logs[0], log, logs[1]];
        let assembly = assemble(Wanted::Named("a0"), &candidates, &all, false).expect("an array");
        assert_eq!(assembly.copies, [Some(DeviceId(20)), Some(DeviceId(21))]);
        assert!(assembly.notes.iter().all(|note| note.starts_with("device 30:")), "{:?}", assembly.notes);
        (assembly.notes.len(), assembly.renew, assembly.highest_epoch)
    };
    assert_eq!(like(|log| log.array = Uuid([51; 16])), (1, false, 7), "of an array that is not there");
    assert_eq!(like(|log| log.array = Uuid([50; 16])), (0, false, 7), "of the other array");
    let earlier = |log: &mut LogCandidate| (log.generation, log.epoch) = (1, 6);
    assert_eq!(like(earlier), (1, false, 7), "of an earlier log");
    assert_eq!(like(|log| log.uuid = Uuid([52; 16])), (1, true, 7), "of the same epoch, which must not stay so");
    let ahead = |log: &mut LogCandidate| (log.uuid, log.epoch) = (Uuid([52; 16]), 20);
    assert_eq!(like(ahead), (1, true, 20), "what is left out counts for the epoch");
    assert_eq!(like(|log| log.epoch = MAX_EPOCH + 1), (1, false, 7), "an epoch that cannot be");
    assert_eq!(like(|log| log.epoch = u64::MAX), (1, false, 7), "nor this one");
}

#[test]
fn whatever_the_tables_say_nobody_is_used_whom_another_that_is_used_excludes() {
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let (mut served, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let (mut candidates, mut logs) = world([Fate::There; 3], [Fate::There; 2]);
        for candidate in &mut candidates {
            let superblock = &mut candidate.superblock;
            let (epoch, members, copies) = (7 + random(3), random(8) & random(8), random(4) & random(4));
            if epoch > 7 {
                superblock.exclude(epoch, members as u32, copies as u32);
            }
        }
        logs.iter_mut().for_each(|log| log.epoch = 6 + random(4));
        candidates.truncate(2 + random(2) as usize);
        let force = random(2) == 0;
        let Ok(assembly) = assemble(Wanted::Named("a0"), &candidates, &logs, force) else {
            refused += 1;
            continue;
        };
        served += 1;
        let used: Vec<&Candidate> = assembly.members.iter().flatten().collect();
        assert!(used.len() >= 2 && assembly.copies.iter().any(Option::is_some));
        let highest =
            candidates.iter().map(|candidate| candidate.superblock.epoch).chain(logs.iter().map(|log| log.epoch));
        assert_eq!(Some(assembly.highest_epoch), highest.max());
        for superblock in assembly.superblocks().iter().flatten() {
            assert_eq!(superblock.epoch, assembly.epoch());
            let active = superblock.members.iter().map(|member| member.state == State::Active);
            assert!(active.eq(assembly.members.iter().map(Option::is_some)), "who is active is who is used");
        }
        if force {
            continue;
        }
        for said in used.iter().map(|candidate| &candidate.superblock) {
            for (slot, member) in assembly.members.iter().enumerate() {
                assert!(member.is_none() || said.members[slot].state == State::Active, "{said:?} excludes {slot}");
            }
            for (at, copy) in assembly.copies.iter().enumerate() {
                assert!(copy.is_none() || said.copies[at].state == State::Active, "{said:?} excludes log copy {at}");
            }
        }
    }
    assert!(served > 1000 && refused > 1000, "{served} were served, {refused} refused");
}

/// Members of an array that never had a log, by slot; absent ones are not there.
fn without_log(level: Level, there: u32, exclude: u32) -> Result<Assembly, AssembleError> {
    let like = example();
    let layout = crate::MemberLayout::for_device(1 << 16, 1024, false).expect("256 MiB is enough");
    let geometry =
        crate::Geometry::new(level, 3, like.geometry.chunk_blocks(), layout.data.blocks).expect("a geometry");
    let mut all = Superblock { geometry, layout, copies: Vec::new(), log_generation: 0, ..like };
    if exclude != 0 {
        all.exclude(8, exclude, 0);
    }
    let candidate = |slot: u8| {
        let superblock = Superblock { slot, ..all.clone() };
        Candidate { device: DeviceId(10 + u16::from(slot)), superblock }
    };
    let candidates: Vec<_> = (0..3).filter(|slot| there & 1 << slot != 0).map(candidate).collect();
    assemble(Wanted::Named("a0"), &candidates, &[], false)
}

#[test]
fn an_array_without_a_log_is_served_if_nobody_can_have_gone_on_without_those_that_are_there() {
    for level in [Level::Raid1, Level::Raid5] {
        let whole = without_log(level, 0b111, 0).expect("all are there");
        assert!(whole.copies.is_empty() && !whole.renew && whole.members_whole() == 0b111);
        let known = without_log(level, 0b011, 0b100).expect("the third was excluded before");
        assert!(!known.renew && known.newly_missing == 0);
    }
    let degraded = without_log(Level::Raid5, 0b011, 0).expect("one alone is no array");
    assert_eq!((degraded.newly_missing, degraded.renew), (0b100, true));
    // The third mirror may have been told that the others are out, and no log copy is there to say so.
    let mirrors = without_log(Level::Raid1, 0b011, 0).unwrap_err();
    assert_eq!(
        mirrors.to_string(),
        "array a0: members [2] are missing and may have gone on without those that are here, who would not know. Attach one of \
         them, or start with --force to take what is here for the truth"
    );
}
