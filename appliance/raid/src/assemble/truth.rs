//! What the tables of several members say together. Pure.
//!
//! Whoever wrote a table meant every member that is active in it to have it before anything relied on it (rule L6), and no
//! member is ever taken back. So an exclusion that was relied upon is known to every member that may still be used, and what
//! *nobody* who may be used excludes has every acknowledged write. An interrupted start, however, leaves its exclusions on
//! some members only, and the next one, without these, excludes them in turn: then each side excludes the other, perhaps
//! at the same epoch. Hence:
//!
//! 1. A member that more than half of all members exclude is out, and its own table says nothing any more.
//! 2. What any other member excludes is excluded: too much rather than too little, since a superblock that has decayed shows
//!    the one before it, which may lack an exclusion that counts.
//! 3. Should that leave too few although every member is there, exclusions that never took effect are among them. Then the
//!    operator may have the ones disregarded that fewer members know than can have been relied upon; where one member's word may
//!    be enough, as with mirrors, that of the highest epoch is taken.

use super::{AssembleError, Candidate};
use crate::superblock::{State, Superblock};

/// What counts.
pub(super) struct Truth<'a> {
    /// The superblock of the highest epoch among those that are believed, with everything excluded that is.
    pub(super) superblock: Superblock,
    /// Members that share its view of the array, excluded ones too, each slot at most once.
    pub(super) peers: Vec<&'a Candidate>,
    /// Members that claim to be of the array and describe another.
    pub(super) strangers: Vec<&'a Candidate>,
}

/// Finds what counts among members of one array.
pub(super) fn truth<'a>(own: &[&'a Candidate], force: bool) -> Result<Truth<'a>, AssembleError> {
    let described = |candidate: &Candidate| own.iter().filter(|other| same_array(other, candidate)).count();
    let reference = own
        .iter()
        .max_by_key(|candidate| (described(candidate), candidate.superblock.epoch, candidate.superblock.update))
        .expect("at least one was selected");
    let (peers, strangers): (Vec<_>, Vec<_>) = own.iter().partition(|candidate| same_array(candidate, reference));
    refuse_duplicates(&peers)?;

    let count = reference.superblock.members.len();
    let is_out = |slot: u8| 2 * knowing(&peers, |table| is_excluded(table, slot)) > count;
    let mut believed: Vec<&Candidate> = peers.iter().copied().filter(|peer| !is_out(peer.superblock.slot)).collect();
    if believed.is_empty() {
        // Everyone excludes everyone, which nobody ever wrote: it ends in a refusal.
        believed.clone_from(&peers);
    }
    let mut superblock = believed
        .iter()
        .max_by_key(|candidate| (candidate.superblock.epoch, candidate.superblock.update))
        .expect("not empty")
        .superblock
        .clone();
    for table in believed.iter().map(|candidate| &candidate.superblock) {
        for (ours, theirs) in superblock.members.iter_mut().zip(&table.members) {
            unite(&mut ours.state, theirs.state);
        }
        for (ours, theirs) in superblock.copies.iter_mut().zip(&table.copies) {
            unite(&mut ours.state, theirs.state);
        }
    }
    // Whoever is out is excluded here too, even if none of those that are believed should say so.
    for table in peers.iter().map(|candidate| &candidate.superblock) {
        for (slot, (ours, theirs)) in (0u8..).zip(superblock.members.iter_mut().zip(&table.members)) {
            if is_out(slot) {
                unite(&mut ours.state, theirs.state);
            }
        }
    }
    if peers.len() == count && is_too_few(&superblock) {
        let mut fewer = superblock.clone();
        disregard(&mut fewer, &peers);
        if is_too_few(&fewer) {
            let highest = peers.iter().max_by_key(|peer| (peer.superblock.epoch, peer.superblock.update));
            fewer = highest.expect("all are there").superblock.clone();
        }
        if !is_too_few(&fewer) {
            if !force {
                return Err(AssembleError::Forked { array: superblock.name });
            }
            superblock = fewer;
        }
    }
    Ok(Truth { superblock, peers, strangers })
}

/// Whether two superblocks describe the same array; who of it is excluded aside.
fn same_array(a: &Candidate, b: &Candidate) -> bool {
    let (a, b) = (&a.superblock, &b.superblock);
    a.geometry == b.geometry
        && a.log_generation == b.log_generation
        && a.members.iter().map(|member| member.uuid).eq(b.members.iter().map(|member| member.uuid))
        && a.copies.iter().map(|copy| copy.uuid).eq(b.copies.iter().map(|copy| copy.uuid))
}

fn refuse_duplicates(peers: &[&Candidate]) -> Result<(), AssembleError> {
    for (at, first) in peers.iter().enumerate() {
        let said = &first.superblock;
        if let Some(second) = peers[at + 1..].iter().find(|other| other.superblock.slot == said.slot) {
            return Err(AssembleError::Duplicate {
                array: said.name.clone(),
                slot: said.slot,
                uuid: said.uuid(),
                first: first.device,
                second: second.device,
            });
        }
    }
    Ok(())
}

fn is_excluded(table: &Superblock, slot: u8) -> bool {
    table.members[usize::from(slot)].state != State::Active
}

fn knowing(peers: &[&Candidate], knows: impl Fn(&Superblock) -> bool) -> usize {
    peers.iter().filter(|peer| knows(&peer.superblock)).count()
}

/// Excludes what another table does. The earliest epoch stays.
fn unite(ours: &mut State, theirs: State) {
    match (*ours, theirs) {
        (State::Active, State::Excluded { .. }) => *ours = theirs,
        (State::Excluded { since }, State::Excluded { since: other }) if other < since => *ours = theirs,
        _ => {}
    }
}

/// Whether too few are active: a copy of the log and all members but what the level bears.
fn is_too_few(superblock: &Superblock) -> bool {
    let excluded = (0..32).zip(&superblock.members).filter(|(_, member)| member.state != State::Active);
    let excluded = excluded.fold(0, |mask, (slot, _): (u32, _)| mask | 1 << slot);
    !superblock.geometry.bears(excluded) || superblock.copies.iter().all(|copy| copy.state != State::Active)
}

/// Takes back what fewer members exclude than stay when as many are lost as the level bears: all who stay had to know of
/// it before it took effect.
fn disregard(superblock: &mut Superblock, peers: &[&Candidate]) {
    let least = usize::from(superblock.geometry.fewest_members());
    for (at, member) in superblock.members.iter_mut().enumerate() {
        if knowing(peers, |table| table.members[at].state != State::Active) < least {
            member.state = State::Active;
        }
    }
    for (at, copy) in superblock.copies.iter_mut().enumerate() {
        if knowing(peers, |table| table.copies[at].state != State::Active) < least {
            copy.state = State::Active;
        }
    }
}
