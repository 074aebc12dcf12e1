//! A device becomes a copy of the log, at a place of its own, at one that missed its copy, or in the stead of another: every
//! small world that a power cut may leave behind, also when it failed on its way in.

use super::*;
use crate::superblock::CopyEntry;

const NEW: Uuid = Uuid([88; 16]);

/// What a superblock says of the log's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    /// As it was.
    Before,
    /// The device is a copy.
    Attached,
    /// It failed, and is none.
    Dropped,
}

/// Where the device comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Further,
    Missing,
    Instead,
}

const PLACES: [Place; 3] = [Place::Further, Place::Missing, Place::Instead];

impl Place {
    const fn copy(self) -> u8 {
        match self {
            Self::Further | Self::Instead => 2,
            Self::Missing => 1,
        }
    }
}

fn saying(says: Says, place: Place, slot: u8) -> Superblock {
    let mut superblock = Superblock { slot, ..example() };
    superblock.members[2].state = State::Active;
    superblock.copies.iter_mut().for_each(|copy| copy.state = State::Active);
    let mut tables = superblock.tables();
    if place == Place::Missing {
        tables.exclude(6, 0, 0b10);
    }
    if says == Says::Attached {
        tables.add_copy(place.copy(), NEW);
        if place == Place::Instead {
            tables.free(8, 0b1);
        }
    }
    superblock.epoch = 6;
    superblock.renew(7 + says as u64, &tables);
    superblock
}

fn logs(joining: bool) -> Vec<LogCandidate> {
    let superblock = example();
    let log = |device: u16, uuid, joining| LogCandidate {
        device: DeviceId(device),
        array: superblock.array,
        uuid,
        generation: superblock.log_generation,
        epoch: 7,
        members: 0,
        member_uuids: NOT_KEPT,
        joining,
    };
    vec![log(20, superblock.copies[0].uuid, false), log(21, superblock.copies[1].uuid, false), log(22, NEW, joining)]
}

#[test]
fn the_device_is_a_copy_if_the_newest_says_so_and_is_not_read_otherwise_whatever_it_says_itself() {
    let mut worlds = 0;
    for place in PLACES {
        for (first, second, third) in [
            (Says::Before, Says::Before, Says::Before),
            (Says::Before, Says::Attached, Says::Before),
            (Says::Attached, Says::Attached, Says::Before),
            (Says::Attached, Says::Attached, Says::Attached),
            (Says::Attached, Says::Before, Says::Dropped),
            (Says::Dropped, Says::Attached, Says::Attached),
            (Says::Dropped, Says::Before, Says::Dropped),
        ] {
            for joining in [false, true] {
                let all = [first, second, third];
                let members = (0u8..).zip(all).map(|(slot, says)| saying(says, place, slot));
                let candidates: Vec<Candidate> = members
                    .map(|superblock| Candidate { device: DeviceId(superblock.slot.into()), superblock })
                    .collect();
                let assembly = assemble(Wanted::Named("a0"), &candidates, &logs(joining), false);
                let assembly = assembly.unwrap_or_else(|error| panic!("{place:?} {all:?}: {error}"));
                let is_copy = all.into_iter().max() == Some(Says::Attached);
                assert_eq!(assembly.members.iter().flatten().count(), 3, "{place:?} {all:?}");
                assert_eq!(assembly.copies.contains(&Some(DeviceId(22))), is_copy, "{place:?} {all:?}");
                let gone = if is_copy && place == Place::Instead { DeviceId(20) } else { DeviceId(99) };
                assert!(!assembly.copies.contains(&Some(gone)) && assembly.newly_missing_copies == 0);
                let is_noted = assembly.notes.iter().any(|note| note.contains("Attach it again"));
                assert_eq!(is_noted, joining && !is_copy, "{place:?} {all:?}: {:?}", assembly.notes);
                let agree = all.iter().all(|says| *says == first);
                assert!(assembly.renew || agree, "{place:?} {all:?}");
                worlds += 1;
            }
        }
    }
    assert_eq!(worlds, 42);
}

#[test]
fn a_place_that_was_freed_misses_nobody_and_what_was_there_is_not_used() {
    let mut superblock = example();
    let mut tables = superblock.tables();
    tables.free(9, 0b10);
    superblock.renew(9, &tables);
    let mut block = base::ZERO_BLOCK;
    superblock.encode(&mut block);
    assert_eq!(Superblock::decode(&block), Ok(superblock.clone()));
    let CopyEntry { state, free, .. } = superblock.copies[1];
    assert_eq!((state, free), (State::Excluded { since: 9 }, true));
    tables.add_copy(1, NEW);
    assert_eq!(tables.copies[1], CopyEntry::active(NEW));
    tables.add_copy(2, NEW);
    assert_eq!(tables.copies.len(), 3);
}
