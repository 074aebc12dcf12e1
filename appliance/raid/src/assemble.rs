//! From superblocks found on devices, in whatever order, to an array that may be served, or to a refusal that says what to
//! do. Pure.
//!
//! Who is a member is decided by the superblock of the highest epoch: its tables say who is active. An exclusion that
//! anything relied upon was durable on a majority of members and on every log copy that stayed (rule L6), so the highest
//! epoch among a majority of members and the copies is the one that counts; without a majority the operator must say so. A
//! member that is active there but missed the last update itself is used: an update that excluded it would have said so. A
//! member or copy that is excluded there is never used, whatever it says of itself.

use base::ids::DeviceId;
use base::uuid::Uuid;
use thiserror::Error;

use crate::superblock::{State, Superblock};

/// A device with a member superblock.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The device.
    pub device: DeviceId,
    /// What it says.
    pub superblock: Superblock,
}

/// A device with a log superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCandidate {
    /// The device.
    pub device: DeviceId,
    /// The array that it says it belongs to.
    pub array: Uuid,
    /// The copy's identity.
    pub uuid: Uuid,
    /// The log's generation.
    pub generation: u128,
    /// The epoch that it says.
    pub epoch: u64,
}

/// Which array is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The one of this identity.
    Array(Uuid),
    /// The only one of this name.
    Named(&'a str),
}

/// An array that may be served.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// The superblock that counts; the slot in it is that of some member.
    pub superblock: Superblock,
    /// The superblocks of the members to be used, by slot, with their devices.
    pub members: Vec<Option<Candidate>>,
    /// The log copies to be used, by their place in the superblock.
    pub copies: Vec<Option<DeviceId>>,
    /// Members, as a bit mask, that are active in the superblock and not there: to be excluded durably before serving.
    pub newly_missing: u32,
    /// The same of log copies.
    pub newly_missing_copies: u32,
    /// The highest epoch seen anywhere; the next one is above it.
    pub highest_epoch: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Why there is no array to be served. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AssembleError {
    /// No device bears it.
    #[error(
        "array {wanted}: none of the devices bears its superblock. Check the devices' paths, or create it with --create"
    )]
    NotFound {
        /// Name or identity.
        wanted: String,
    },
    /// Two arrays of one name.
    #[error(
        "array {name}: the devices bear superblocks of two arrays of that name, {first} (device {first_device}) and {second} \
         (device {second_device}). Leave the devices of one of them out"
    )]
    TwoArrays {
        /// The name.
        name: String,
        /// One.
        first: Uuid,
        /// A device of it.
        first_device: DeviceId,
        /// The other.
        second: Uuid,
        /// A device of it.
        second_device: DeviceId,
    },
    /// A copy of a drive beside the drive.
    #[error(
        "array {array}: devices {first} and {second} both say that they are member {slot} ({uuid}): one is a copy of the other. \
         Leave the copy out"
    )]
    Duplicate {
        /// The array's name.
        array: String,
        /// The member's place.
        slot: u8,
        /// The member's identity.
        uuid: Uuid,
        /// One.
        first: DeviceId,
        /// The other.
        second: DeviceId,
    },
    /// Superblocks that contradict each other.
    #[error("array {array}: device {device} disagrees with the others about the array: {what}. Leave it out")]
    Contradiction {
        /// The array's name.
        array: String,
        /// Which.
        device: DeviceId,
        /// In what.
        what: &'static str,
    },
    /// Too few to know the truth.
    #[error(
        "array {array}: {found} of {members} members are there, no majority: the others may know of changes that these do not. \
         Attach more members, or start with --force to take these for the truth"
    )]
    NoMajority {
        /// The array's name.
        array: String,
        /// How many were found.
        found: usize,
        /// How many there are.
        members: usize,
    },
    /// Too few to read.
    #[error(
        "array {array}: members {missing:?} are missing or excluded; the level bears the loss of {tolerated}. Attach one of \
         them that was not excluded"
    )]
    TooManyMissing {
        /// The array's name.
        array: String,
        /// Slots.
        missing: Vec<u8>,
        /// How many may be.
        tolerated: u8,
    },
    /// The log is needed and not there.
    #[error(
        "array {array}: no usable copy of its log is there; it may hold acknowledged data that the members do not. Attach {needed}"
    )]
    NoLog {
        /// The array's name.
        array: String,
        /// Which copies would do, for people.
        needed: String,
    },
}

/// Assembles an array. `force` takes a minority of members for the truth.
pub fn assemble(
    wanted: Wanted<'_>,
    candidates: &[Candidate],
    log_candidates: &[LogCandidate],
    force: bool,
) -> Result<Assembly, AssembleError> {
    let own = select(wanted, candidates)?;
    let array = own[0].superblock.name.clone();
    let newest = own
        .iter()
        .max_by_key(|candidate| (candidate.superblock.epoch, candidate.superblock.update))
        .expect("at least one was selected");
    let superblock = newest.superblock.clone();
    let count = superblock.members.len();
    let mut notes = Vec::new();
    let mut members: Vec<Option<Candidate>> = vec![None; count];
    let mut found = 0;
    for candidate in &own {
        let said = &candidate.superblock;
        let contradiction =
            |what| AssembleError::Contradiction { array: array.clone(), device: candidate.device, what };
        if said.geometry != superblock.geometry {
            return Err(contradiction("its geometry is another"));
        }
        if said.log_generation != superblock.log_generation {
            return Err(contradiction("it belongs to another log"));
        }
        let slot = usize::from(said.slot);
        if superblock.members[slot].uuid != said.uuid() {
            if said.epoch >= superblock.epoch {
                return Err(contradiction("it claims a place that another member has"));
            }
            notes.push(format!("device {}: was replaced as member {slot} and is left out", candidate.device));
            continue;
        }
        if let Some(other) = &members[slot] {
            return Err(AssembleError::Duplicate {
                array,
                slot: said.slot,
                uuid: said.uuid(),
                first: other.device,
                second: candidate.device,
            });
        }
        found += 1;
        members[slot] = Some((*candidate).clone());
    }
    if 2 * found <= count && !force {
        return Err(AssembleError::NoMajority { array, found, members: count });
    }
    let mut newly_missing = 0;
    for (slot, entry) in superblock.members.iter().enumerate() {
        match (entry.state, &members[slot]) {
            (State::Excluded { since }, Some(stale)) => {
                let device = stale.device;
                notes.push(format!("device {device}: member {slot} was excluded at epoch {since} and is left out"));
                members[slot] = None;
            }
            (State::Active, None) => newly_missing |= 1 << slot,
            (State::Excluded { .. }, None) | (State::Active, Some(_)) => {}
        }
    }
    let missing: Vec<u8> = (0u8..).zip(&members).filter(|(_, there)| there.is_none()).map(|(slot, _)| slot).collect();
    let tolerated = superblock.geometry.parities();
    if missing.len() > usize::from(tolerated) {
        return Err(AssembleError::TooManyMissing { array, missing, tolerated });
    }
    let (copies, newly_missing_copies) = copies(&superblock, log_candidates, &mut notes)?;
    let log_epochs = log_candidates.iter().filter(|log| log.array == superblock.array).map(|log| log.epoch);
    let highest_epoch = log_epochs.fold(superblock.epoch, u64::max);
    Ok(Assembly { superblock, members, copies, newly_missing, newly_missing_copies, highest_epoch, notes })
}

/// The candidates of the wanted array.
fn select<'a>(wanted: Wanted<'_>, candidates: &'a [Candidate]) -> Result<Vec<&'a Candidate>, AssembleError> {
    let is_wanted = |candidate: &&Candidate| match wanted {
        Wanted::Array(uuid) => candidate.superblock.array == uuid,
        Wanted::Named(name) => candidate.superblock.name == name,
    };
    let own: Vec<_> = candidates.iter().filter(is_wanted).collect();
    let Some(first) = own.first() else {
        let wanted = match wanted {
            Wanted::Array(uuid) => uuid.to_string(),
            Wanted::Named(name) => name.to_owned(),
        };
        return Err(AssembleError::NotFound { wanted });
    };
    if let Some(second) = own.iter().find(|other| other.superblock.array != first.superblock.array) {
        return Err(AssembleError::TwoArrays {
            name: first.superblock.name.clone(),
            first: first.superblock.array,
            first_device: first.device,
            second: second.superblock.array,
            second_device: second.device,
        });
    }
    Ok(own)
}

/// The log copies that may be used, and the active ones that are not there.
fn copies(
    superblock: &Superblock,
    candidates: &[LogCandidate],
    notes: &mut Vec<String>,
) -> Result<(Vec<Option<DeviceId>>, u32), AssembleError> {
    let mut copies = Vec::new();
    let mut newly_missing = 0;
    for (at, entry) in superblock.copies.iter().enumerate() {
        let is_this = |log: &&LogCandidate| {
            log.array == superblock.array && log.generation == superblock.log_generation && log.uuid == entry.uuid
        };
        let mut found = candidates.iter().filter(is_this);
        let (first, second) = (found.next(), found.next());
        if let (Some(first), Some(second)) = (first, second) {
            return Err(AssembleError::Duplicate {
                array: superblock.name.clone(),
                slot: at as u8,
                uuid: entry.uuid,
                first: first.device,
                second: second.device,
            });
        }
        let usable = match (entry.state, first) {
            (State::Excluded { since }, Some(log)) => {
                notes.push(format!(
                    "device {}: log copy {at} was excluded at epoch {since} and is left out",
                    log.device
                ));
                None
            }
            (State::Active, None) => {
                newly_missing |= 1 << at;
                None
            }
            (State::Active, Some(log)) => Some(log.device),
            (State::Excluded { .. }, None) => None,
        };
        copies.push(usable);
    }
    if copies.iter().all(Option::is_none) {
        let active = superblock.copies.iter().enumerate().filter(|(_, copy)| copy.state == State::Active);
        let needed: Vec<String> = active.map(|(at, copy)| format!("log copy {at} ({})", copy.uuid)).collect();
        return Err(AssembleError::NoLog { array: superblock.name.clone(), needed: needed.join(" or ") });
    }
    Ok((copies, newly_missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::tests::example;

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
                });
            }
        }
        (candidates, log_candidates)
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
            // Nobody who knows of the exclusion is there: an exclusion of all but one is never recorded, so this world
            // stands for one in which nothing was excluded.
            assert!(
                result.is_ok()
                    || matches!(result, Err(AssembleError::NoLog { .. } | AssembleError::TooManyMissing { .. })),
                "{context}"
            );
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
            let stale = fates.iter().chain(&logs).filter(|fate| **fate == Fate::Stale).count();
            assert_eq!(assembly.notes.len(), stale, "everything that is left out is named: {context}");
        }
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
        assert_eq!(assembly.superblock.epoch, 8);
        assert_eq!(assembly.copies, [Some(DeviceId(20)), None]);
    }
}
