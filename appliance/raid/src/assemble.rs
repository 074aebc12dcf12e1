//! From superblocks found on devices, in whatever order, to an array that may be served, or to a refusal that says what to
//! do. Pure.
//!
//! Who is a member is decided by the tables of all superblocks together, in `truth`: what any member excludes that is
//! not itself excluded by most is out, because an exclusion that anything relied upon was durable on every member and log
//! copy that stayed (rule L6). A member that is active and missed the last update itself is used: an update that excluded it
//! would have said so. A member or copy that is excluded is never used, whatever it says of itself. One that is being rebuilt
//! is used and counts as missing.
//!
//! All that rests on somebody being there who would know. Where the level bears the loss of all members that are there, the
//! others may have gone on without them, and *none* of these would have been told. Then the copies of the log are witnesses:
//! each says which members take part at its epoch, by place and identity, and all that stay are told of every exclusion. If one says that others went
//! on alone, or those who may have gone on could have taken all log copies that know of it with them, the operator must say so.
//!
//! Whenever what is used does not agree to the byte about epoch and tables, all of it is to be written anew at an epoch above
//! all that were seen anywhere, so that no epoch ever has two meanings.

mod truth;

#[cfg(test)]
mod tests;

use base::ids::{DeviceId, Slot};
use base::uuid::Uuid;
use journal::superblock::MemberUuids;
use thiserror::Error;

use crate::geometry::slots;
use crate::level::Level;
use crate::superblock::{LogFate, MAX_EPOCH, State, Superblock};
use truth::{Truth, truth};

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
    /// The members that take part at that epoch, as a bit mask; none if it does not say.
    pub members: u32,
    /// Who they are, by slot; nil where it does not say.
    pub member_uuids: MemberUuids,
    /// Whether it was only about to become a copy, by its own word.
    pub joining: bool,
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
    /// The superblock that counts, with everything excluded that is; the slot in it is that of some member.
    pub superblock: Superblock,
    /// The superblocks of the members to be used, by slot, with their devices.
    pub members: Vec<Option<Candidate>>,
    /// The log copies to be used, by their place in the superblock.
    pub copies: Vec<Option<DeviceId>>,
    /// Members, as a bit mask, that take part by the superblock and are not there: to be excluded durably before serving.
    pub newly_missing: u32,
    /// The same of log copies.
    pub newly_missing_copies: u32,
    /// The highest epoch seen anywhere, also on what is left out.
    pub highest_epoch: u64,
    /// Whether superblocks must be written anew before serving, at the epoch after the highest: something is newly missing,
    /// or what was found does not agree.
    pub renew: bool,
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
    /// Interrupted starts.
    #[error(
        "array {array}: its members exclude each other, which starts leave behind that were interrupted with different \
         devices missing. If none of its devices was replaced or written to by anything else, start with --force to \
         disregard exclusions that never took effect"
    )]
    Forked {
        /// The array's name.
        array: String,
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
    /// Left behind.
    #[error(
        "array {array}: device {device}, a copy of its log, says that members {alone:?} went on without the others, and none of \
         them can be used here: the rest is old. Attach one of them, or start with --force to take the rest for the truth"
    )]
    LeftBehind {
        /// The array's name.
        array: String,
        /// The log copy.
        device: DeviceId,
        /// Who went on.
        alone: Vec<u8>,
    },
    /// Perhaps left behind.
    #[error(
        "array {array}: members {members:?}{} are missing and may have gone on without those that are here, who would not know. \
         Attach one of them, or start with --force to take what is here for the truth",
        if copies.is_empty() { String::new() } else { format!(" and log copies {copies:?}") }
    )]
    Undecided {
        /// The array's name.
        array: String,
        /// Active members that are not there.
        members: Vec<u8>,
        /// Active log copies that are not there.
        copies: Vec<u8>,
    },
    /// Too few to read.
    #[error(
        "array {array}: members {missing:?} are missing, excluded or not rebuilt yet; {} bears the loss of {}. Attach one of \
         them that was not excluded",
        level,
        level.bears_in_words()
    )]
    TooManyMissing {
        /// The array's name.
        array: String,
        /// Slots.
        missing: Vec<u8>,
        /// The array's.
        level: Level,
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

impl Assembly {
    /// The members to be used that are whole, as a bit mask.
    pub fn members_whole(&self) -> u32 {
        whole(&self.superblock, &self.members)
    }

    /// The epoch at which the array is served.
    pub const fn epoch(&self) -> u64 {
        if self.renew { self.highest_epoch + 1 } else { self.superblock.epoch }
    }

    /// The superblocks, by slot, that the members to be used have to bear durably before the array is served. They are
    /// those that were found unless [`Assembly::renew`] says that they must be written; log copies then come first, with
    /// the same epoch.
    pub fn superblocks(&self) -> Vec<Option<Superblock>> {
        let mut truth = self.superblock.clone();
        if self.renew {
            let mut tables = truth.tables();
            let before = tables.are_whole();
            tables.exclude(self.epoch(), self.newly_missing, self.newly_missing_copies);
            let has_place = |member: &Candidate| member.superblock.layout.missed.is_some();
            tables.settle_away(before, self.members.iter().flatten().all(has_place));
            truth.renew(self.epoch(), &tables);
        }
        let tables = truth.tables();
        let renewed = |candidate: &Candidate| {
            let mut superblock = candidate.superblock.clone();
            if self.renew {
                superblock.renew(truth.epoch, &tables);
            }
            superblock
        };
        self.members.iter().map(|member| member.as_ref().map(renewed)).collect()
    }
}

/// Assembles an array. `force` takes a minority of members for the truth, and disregards exclusions that cannot have taken
/// effect if the array has too few members or log copies otherwise.
pub fn assemble(
    wanted: Wanted<'_>,
    candidates: &[Candidate],
    log_candidates: &[LogCandidate],
    force: bool,
) -> Result<Assembly, AssembleError> {
    let own = select(wanted, candidates)?;
    let Truth { mut superblock, peers, strangers } = truth(&own, force)?;
    if force {
        // Who is taken for the truth may not have heard of all that was missed.
        superblock.away = None;
    }
    let array = superblock.name.clone();
    let count = superblock.members.len();
    let mut notes = Vec::new();
    for stranger in &strangers {
        notes.push(why_left_out(&superblock, stranger)?);
    }
    let mut members: Vec<Option<Candidate>> = vec![None; count];
    for peer in &peers {
        members[usize::from(peer.superblock.slot)] = Some((*peer).clone());
    }
    let mut newly_missing = 0;
    for (slot, entry) in superblock.members.iter().enumerate() {
        match (entry.state, &members[slot]) {
            (State::Excluded { since }, Some(stale)) => {
                let device = stale.device;
                notes.push(format!("device {device}: member {slot} was excluded at epoch {since} and is left out"));
                members[slot] = None;
            }
            (State::Active | State::Rebuilding { .. }, None) => newly_missing |= 1 << slot,
            (State::Excluded { .. }, None) | (State::Active | State::Rebuilding { .. }, Some(_)) => {}
        }
    }
    // What is being rebuilt is no help yet.
    let missing = superblock.geometry.all_members() & !whole(&superblock, &members);
    if !superblock.geometry.bears(missing) {
        if 2 * peers.len() <= count && !force {
            return Err(AssembleError::NoMajority { array, found: peers.len(), members: count });
        }
        let missing = slots(missing).map(|slot| slot.0).collect();
        return Err(AssembleError::TooManyMissing { array, missing, level: superblock.geometry.level() });
    }
    let log_candidates = known_logs(&superblock, candidates, log_candidates, &mut notes);
    let (copies, newly_missing_copies) = copies(&superblock, &log_candidates, &mut notes)?;
    if !force {
        let active = (0u32..).zip(&superblock.members).filter(|(_, member)| member.state == State::Active);
        let active = active.fold(0, |mask, (slot, _)| mask | 1 << slot);
        refuse_left_behind(&superblock, !missing, &log_candidates, newly_missing & active, newly_missing_copies)?;
    }
    let member_epochs = own.iter().map(|candidate| candidate.superblock.epoch);
    let log_epochs = log_candidates.iter().map(|log| log.epoch);
    let highest_epoch = member_epochs.chain(log_epochs).fold(superblock.epoch, u64::max);
    let mut assembly = Assembly {
        superblock,
        members,
        copies,
        newly_missing,
        newly_missing_copies,
        highest_epoch,
        renew: false,
        notes,
    };
    assembly.renew = newly_missing != 0 || newly_missing_copies != 0 || differs(&assembly, &own, &log_candidates);
    Ok(assembly)
}

/// The places of members that are there and not being rebuilt, as a bit mask.
fn whole(superblock: &Superblock, members: &[Option<Candidate>]) -> u32 {
    let all = (0u32..).zip(members).zip(&superblock.members);
    let whole = all.filter(|((_, there), entry)| there.is_some() && entry.state == State::Active);
    whole.fold(0, |mask, ((slot, _), _)| mask | 1 << slot)
}

/// Refuses members (`there`, a bit mask) of whom all may have been left behind by others, unless someone is there who would
/// know. An exclusion that was relied upon is known to every member and every log copy that stayed. So it is unknown here only
/// if it left out all members that are here; a log copy that stayed then names none of them. And if every active log copy is
/// here, one that stayed is among them, whoever else was left out before: that was durable before it was relied upon, too.
fn refuse_left_behind(
    superblock: &Superblock,
    there: u32,
    logs: &[LogCandidate],
    newly_missing: u32,
    newly_missing_copies: u32,
) -> Result<(), AssembleError> {
    let geometry = &superblock.geometry;
    let there = there & geometry.all_members();
    if !geometry.bears(there) {
        return Ok(());
    }
    // A place may have been given to another.
    let names = |log: &LogCandidate, slot: Slot| {
        let said = log.member_uuids[slot.index()];
        said.is_nil() || said == superblock.members[slot.index()].uuid
    };
    let went_on = |log: &&LogCandidate| {
        let is_of_this = log.array == superblock.array && log.generation == superblock.log_generation;
        let names_one = slots(log.members & there).any(|slot| names(log, slot));
        is_of_this && log.epoch >= superblock.epoch && log.members != 0 && !names_one
    };
    if let Some(log) = logs.iter().find(went_on) {
        let alone = slots(log.members & geometry.all_members()).map(|slot| slot.0).collect();
        return Err(AssembleError::LeftBehind { array: superblock.name.clone(), device: log.device, alone });
    }
    // An array that has no log has no other witnesses than its members; and a log that was lost was told nothing since.
    let has_witnesses = !superblock.copies.is_empty() && superblock.log_fate == LogFate::Kept;
    let nobody_would_know = newly_missing_copies != 0 || !has_witnesses;
    if nobody_would_know && geometry.bears(!newly_missing) {
        let numbers = |mask| slots(mask).map(|slot| slot.0).collect();
        return Err(AssembleError::Undecided {
            array: superblock.name.clone(),
            members: numbers(newly_missing),
            copies: numbers(newly_missing_copies),
        });
    }
    Ok(())
}

/// Whether anything that is used says otherwise than the superblock that counts, or anything that is left out could be taken
/// for it because it does not bear a lower epoch.
fn differs(assembly: &Assembly, own: &[&Candidate], logs: &[LogCandidate]) -> bool {
    let truth = &assembly.superblock;
    let is_used = |device| assembly.members.iter().flatten().any(|member| member.device == device);
    let member_differs = |candidate: &&Candidate| {
        let said = &candidate.superblock;
        if is_used(candidate.device) {
            said.epoch != truth.epoch || said.tables() != truth.tables()
        } else {
            said.epoch >= truth.epoch
        }
    };
    let log_differs = |log: &LogCandidate| {
        if assembly.copies.contains(&Some(log.device)) { log.epoch != truth.epoch } else { log.epoch >= truth.epoch }
    };
    own.iter().any(member_differs) || logs.iter().any(log_differs)
}

/// Why a member that describes another array than the others do, or that they do not name, may be overlooked. It may if it
/// is excluded, was replaced, or was only about to take somebody's place.
fn why_left_out(superblock: &Superblock, stranger: &Candidate) -> Result<String, AssembleError> {
    let (said, device) = (&stranger.superblock, stranger.device);
    let entry = superblock.members.iter().enumerate().find(|(_, member)| member.uuid == said.uuid());
    match entry.map(|(slot, member)| (slot, member.state)) {
        Some((slot, State::Excluded { since })) => {
            return Ok(format!(
                "device {device}: member {slot} was excluded at epoch {since}, describes another array than the others \
                 and is left out"
            ));
        }
        None if matches!(said.entry().state, State::Rebuilding { .. }) => {
            return Ok(format!(
                "device {device}: was to be rebuilt as member {} and the others do not know of it; it is left out",
                said.slot
            ));
        }
        None if said.epoch < superblock.epoch => {
            return Ok(format!("device {device}: was replaced as member {} and is left out", said.slot));
        }
        _ => {}
    }
    let what = if said.geometry != superblock.geometry {
        "its geometry is another"
    } else if said.log_generation != superblock.log_generation {
        "it belongs to another log"
    } else {
        "its list of members and log copies is another"
    };
    Err(AssembleError::Contradiction { array: superblock.name.clone(), device, what })
}

/// The log devices of this array; what else there is and nobody will miss is named. Devices of other arrays that are there
/// too go without saying.
fn known_logs(
    superblock: &Superblock,
    candidates: &[Candidate],
    logs: &[LogCandidate],
    notes: &mut Vec<String>,
) -> Vec<LogCandidate> {
    let mut known = Vec::new();
    for log in logs {
        let device = log.device;
        if log.array != superblock.array {
            if !candidates.iter().any(|candidate| candidate.superblock.array == log.array) {
                notes.push(format!(
                    "device {device}: it bears a log of array {}, no member of which is there, and is left out",
                    log.array
                ));
            }
            continue;
        }
        if log.epoch > MAX_EPOCH {
            notes.push(format!("device {device}: the log's epoch {} cannot be, and it is left out", log.epoch));
            continue;
        }
        if log.generation != superblock.log_generation {
            notes.push(format!("device {device}: it bears an earlier log of this array and is left out"));
        } else if superblock.copies.iter().any(|copy| copy.uuid == log.uuid) {
            // Named, so it became one, whatever it says of itself: it had everything before anybody named it.
        } else if log.joining {
            notes.push(format!(
                "device {device}: it was to become a copy of the log and did not come so far; it is left out. Attach it again"
            ));
        } else {
            notes.push(format!(
                "device {device}: it bears a copy of the log that the members do not know and is left out"
            ));
        }
        known.push(*log);
    }
    known
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
            (State::Active | State::Rebuilding { .. }, None) => {
                newly_missing |= 1 << at;
                None
            }
            (State::Active | State::Rebuilding { .. }, Some(log)) => Some(log.device),
            (State::Excluded { .. }, None) => None,
        };
        copies.push(usable);
    }
    let needs_log = !superblock.copies.is_empty() && superblock.log_fate != LogFate::GivenUp;
    if needs_log && copies.iter().all(Option::is_none) {
        let active = superblock.copies.iter().enumerate().filter(|(_, copy)| copy.state == State::Active);
        let needed: Vec<String> = active.map(|(at, copy)| format!("log copy {at} ({})", copy.uuid)).collect();
        let needed = if needed.is_empty() { "one that was not excluded".to_owned() } else { needed.join(" or ") };
        return Err(AssembleError::NoLog { array: superblock.name.clone(), needed });
    }
    Ok((copies, newly_missing))
}
