//! What became of the log: a lost one is believed when it comes back, one that was given up never is, and the highest epoch says
//! which of these it is.

use super::*;
use crate::superblock::LogFate;

/// Members that say so at these epochs, and both copies of the log as they were before.
fn saying(fates: [(u64, LogFate); 3]) -> (Vec<Candidate>, Vec<LogCandidate>) {
    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There; 2]);
    for candidate in &mut candidates {
        let (epoch, fate) = fates[usize::from(candidate.superblock.slot)];
        let mut tables = candidate.superblock.tables();
        tables.log_fate = fate;
        if fate == LogFate::GivenUp {
            tables.exclude(epoch, 0, 0b11);
        }
        if epoch > candidate.superblock.epoch {
            candidate.superblock.renew(epoch, &tables);
        }
    }
    (candidates, logs)
}

#[test]
fn the_highest_epoch_says_whether_the_copies_are_believed() {
    use LogFate::{GivenUp, Kept, Lost};
    for (fates, believed) in [
        ([(7, Kept), (7, Kept), (7, Kept)], true),
        ([(8, Lost), (7, Kept), (7, Kept)], true),
        ([(8, Lost), (8, Lost), (8, Lost)], true),
        ([(9, GivenUp), (8, Lost), (8, Lost)], false),
        ([(8, Lost), (9, GivenUp), (9, GivenUp)], false),
        ([(9, GivenUp), (9, GivenUp), (9, GivenUp)], false),
    ] {
        let (candidates, logs) = saying(fates);
        let assembly = assemble(Wanted::Named("a0"), &candidates, &logs, false);
        let assembly = assembly.unwrap_or_else(|error| panic!("{fates:?}: {error}"));
        assert_eq!(assembly.copies.iter().all(Option::is_some), believed, "{fates:?}");
        assert_eq!(assembly.copies.iter().any(Option::is_some), believed, "{fates:?}");
        let agree = fates.iter().all(|said| *said == fates[0]);
        // A lost log has missed the epoch that says so.
        assert_eq!(assembly.renew, !agree || fates[0].1 == Lost, "{fates:?}");
        let newest = fates.iter().max_by_key(|(epoch, _)| *epoch).expect("three").1;
        assert!(assembly.superblocks().iter().flatten().all(|superblock| superblock.log_fate == newest), "{fates:?}");
        assert_eq!(
            assembly.notes.iter().filter(|note| note.contains("was excluded")).count(),
            if believed { 0 } else { 2 }
        );
    }
}

#[test]
fn without_its_copies_an_array_is_refused_unless_it_gave_them_up() {
    for (fate, is_served) in [(LogFate::Lost, false), (LogFate::GivenUp, true)] {
        let (candidates, _) = saying([(8, fate); 3]);
        let assembly = assemble(Wanted::Named("a0"), &candidates, &[], false);
        assert_eq!(assembly.is_ok(), is_served, "{fate:?}");
        let is_missed = matches!(assembly, Err(AssembleError::NoLog { .. }));
        assert_eq!(is_missed, !is_served);
    }
}

#[test]
fn copies_of_all_copies_excluded_by_interrupted_starts_are_not_given_up() {
    let (mut candidates, logs) = world([Fate::There; 3], [Fate::There; 2]);
    candidates[0].superblock.exclude(8, 0, 0b01);
    candidates[1].superblock.exclude(8, 0, 0b10);
    let refused = assemble(Wanted::Named("a0"), &candidates, &logs, false);
    assert!(matches!(refused, Err(AssembleError::Forked { .. })), "{refused:?}");
}

#[test]
fn a_lost_log_is_no_witness() {
    for (fate, is_decided) in [(LogFate::Kept, true), (LogFate::Lost, false)] {
        let (mut candidates, logs) = saying([(8, fate); 3]);
        for candidate in &mut candidates {
            let superblock = &mut candidate.superblock;
            superblock.geometry = crate::Geometry::new(crate::Level::Raid1, 3, 16, 4096).expect("a geometry");
        }
        // One mirror may have gone on without the others, and both copies would only know of it in the first case.
        candidates.retain(|candidate| candidate.superblock.slot != 2);
        let assembly = assemble(Wanted::Named("a0"), &candidates, &logs, false);
        assert_eq!(assembly.is_ok(), is_decided, "{fate:?}");
        assert!(is_decided || matches!(assembly, Err(AssembleError::Undecided { .. })));
    }
}
