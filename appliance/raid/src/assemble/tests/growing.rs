//! An array gets a further member: every small world that a power cut may leave behind between the steps.

use super::*;
use crate::superblock::MemberEntry;
use base::ids::StripeId;

const NEW: Uuid = Uuid([77; 16]);

/// What a superblock says, later and later. Each is written to all members before the next one is to any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Before,
    /// By nobody but the drive that comes.
    Prepared,
    Begun,
    Moved,
    Over,
}

fn saying(says: Says, slot: u8) -> Superblock {
    let mut superblock = Superblock { slot, ..example() };
    let mut tables = superblock.tables();
    if says > Says::Before {
        let state = if says == Says::Prepared { State::Rebuilding { position: 0 } } else { State::Active };
        tables.grow(MemberEntry { uuid: NEW, state }, 64).expect("one more than three");
    }
    let windows = superblock.geometry.stripes() / 64;
    match says {
        Says::Before | Says::Prepared | Says::Begun => {}
        Says::Moved => tables.advance(1),
        Says::Over => tables.advance(windows),
    }
    superblock.renew(8 + says as u64, &tables);
    superblock
}

#[test]
fn the_boundary_is_what_the_highest_epoch_says_and_a_drive_that_nobody_names_is_left_out() {
    let array = example().array;
    let worlds = [
        (Says::Before, Says::Prepared, Says::Before),
        (Says::Before, Says::Prepared, Says::Begun),
        (Says::Begun, Says::Begun, Says::Moved),
        (Says::Moved, Says::Moved, Says::Over),
    ];
    let mut seen = 0;
    for (earlier, drive, later) in worlds {
        // Who of the three members, and whether the drive, was reached by the later one; and who is not there.
        for (reached, away) in (0..16_u32).flat_map(|reached| (0..=4_u32).map(move |away| (reached, away))) {
            let is_later = |at: u32| reached & 1 << at != 0;
            if drive == Says::Prepared && is_later(3) && later == Says::Before {
                continue;
            }
            let there = (0..4_u32).filter(|at| *at != away);
            let candidates: Vec<Candidate> = there
                .clone()
                .map(|at| {
                    let says = if is_later(at) {
                        later
                    } else if at == 3 {
                        drive
                    } else {
                        earlier
                    };
                    Candidate { device: DeviceId(10 + at as u16), superblock: saying(says, at as u8) }
                })
                .collect();
            let known = there.filter(|at| *at < 3 || later != Says::Begun || is_later(3));
            let counts = known.map(|at| if is_later(at) { later } else { earlier }).max().expect("three members");
            let counts = if counts == Says::Before { Says::Before } else { counts };
            let logs = Vec::new();
            let said = saying(counts, 0);
            let without_log = |mut candidate: Candidate| {
                candidate.superblock.copies.clear();
                candidate.superblock.layout = crate::MemberLayout::for_device(1 << 16, 1024, false).expect("enough");
                candidate
            };
            let candidates: Vec<Candidate> = candidates.into_iter().map(without_log).collect();
            let assembly = assemble(Wanted::Array(array), &candidates, &logs, false).unwrap_or_else(|error| {
                panic!("{earlier:?} {drive:?} {later:?} {reached:04b} without {away}: {error}")
            });
            let truth = &assembly.superblock;
            let world = format!("{earlier:?} {drive:?} {later:?} {reached:04b} without {away}");
            assert_eq!((truth.geometry, truth.growth), (said.geometry, said.growth), "{world}");
            assert_eq!(truth.geometry_epoch, said.geometry_epoch, "{world}");
            let is_named = counts != Says::Before;
            assert_eq!(assembly.members.len(), if is_named { 4 } else { 3 }, "{world}");
            assert_eq!(
                assembly.members.iter().flatten().count(),
                candidates.len() - usize::from(!is_named && away != 3)
            );
            assert_eq!(assembly.newly_missing.count_ones(), u32::from(away < 3 || is_named && away == 3), "{world}");
            // Written anew, all say the same.
            let superblocks = assembly.superblocks();
            let mut tables = superblocks.iter().flatten().map(Superblock::tables);
            let first = tables.next().expect("somebody is there");
            assert!(tables.all(|tables| tables == first), "{world}");
            seen += 1;
        }
    }
    assert_eq!(seen, 4 * 16 * 5 - 8 * 5);
}

#[test]
fn who_was_left_out_before_the_array_grew_is_left_out_and_no_contradiction() {
    let array = example().array;
    let mut grown: Vec<Superblock> = (0..4).map(|slot| saying(Says::Over, slot)).collect();
    let mut tables = grown[0].tables();
    tables.members[1].state = State::Excluded { since: 8 };
    grown.iter_mut().for_each(|superblock| superblock.renew(30, &tables));
    grown[1] = Superblock { slot: 1, ..example() };
    assert_eq!(grown[2].growth.map(|growth| growth.boundary), Some(StripeId(grown[2].geometry.stripes())));
    let candidates: Vec<Candidate> =
        (10..).zip(grown).map(|(device, superblock)| Candidate { device: DeviceId(device), superblock }).collect();
    let log = |at: u16| LogCandidate {
        device: DeviceId(20 + at),
        array,
        uuid: example().copies[usize::from(at)].uuid,
        generation: example().log_generation,
        epoch: 30,
        members: 0b1101,
        member_uuids: NOT_KEPT,
        joining: false,
    };
    let assembly = assemble(Wanted::Array(array), &candidates, &[log(0), log(1)], false).expect("three of four");
    assert_eq!(assembly.members.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(assembly.notes.len(), 1, "{:?}", assembly.notes);
}
