//! What the tables of several members say together. Pure.
//!
//! Whoever wrote a table meant every member that takes part in it to have it before anything relied on it (rule L6), and no
//! identity is ever taken back: a drive that comes again is rebuilt under a new one. So an exclusion that was relied upon is
//! known to every member that may still be used, and what *nobody* who may be used excludes has every acknowledged write. An
//! interrupted start, however, leaves its exclusions on some members only, and the next one, without these, excludes them in
//! turn: then each side excludes the other, perhaps at the same epoch. Hence:
//!
//! 1. A member that more than half of all members exclude is out, and its own table says nothing any more.
//! 2. What any other member excludes is excluded: too much rather than too little, since a superblock that has decayed shows
//!    the one before it, which may lack an exclusion that counts.
//! 3. Should that leave too few although every member is there, exclusions that never took effect are among them. Then the
//!    operator may have the ones disregarded that fewer members know than can have been relied upon; where one member's word may
//!    be enough, as with mirrors, that of the highest epoch is taken.
//!
//! A place whose member was excluded may be given to another, which is *rebuilding* until it holds what it should. Who has a
//! place, and how far it has been rebuilt, is what the table of the highest epoch says: a drive is named in tables only when
//! its own superblock is durable, and a position only when all below it is, so that either is true wherever it is found. But
//! a member that is being rebuilt by its own word says nothing of these: it may have been the only one to hear of it, and
//! nobody has missed it since.
//!
//! What became of the log is likewise what the highest epoch says. That it was given up is only proposed when the members have
//! everything that was acknowledged, and nothing is acknowledged without it before all of them say so; so it is true wherever
//! it is found, as long as nobody went on with the log since, who then has a higher epoch. So is how far an array has come that
//! gets further members: what a step moves is in the log before any member says so, and nothing goes to where it was before all
//! do. The drive that comes bears a superblock by then, which nobody else knows of before; one that nobody names is a stranger.

use super::{AssembleError, Candidate};
use crate::superblock::{LogFate, MemberEntry, State, Superblock};

/// What counts.
pub(super) struct Truth<'a> {
    /// The superblock of the highest epoch among those that are believed, with everything excluded that is.
    pub(super) superblock: Superblock,
    /// Members that it names, excluded ones too, each at most once.
    pub(super) peers: Vec<&'a Candidate>,
    /// Members that claim to be of the array and that it does not name, or that describe another.
    pub(super) strangers: Vec<&'a Candidate>,
}

/// Finds what counts among members of one array.
pub(super) fn truth<'a>(own: &[&'a Candidate], force: bool) -> Result<Truth<'a>, AssembleError> {
    let described = |candidate: &Candidate| own.iter().filter(|other| same_array(other, candidate)).count();
    let reference = own
        .iter()
        .max_by_key(|candidate| (described(candidate), candidate.superblock.epoch, candidate.superblock.update))
        .expect("at least one was selected");
    let (peers, mut strangers): (Vec<_>, Vec<_>) = own.iter().partition(|candidate| same_array(candidate, reference));
    refuse_duplicates(&peers)?;

    let is_whole = |candidate: &&&Candidate| candidate.superblock.entry().state == State::Active;
    let age = |candidate: &&&Candidate| (candidate.superblock.epoch, candidate.superblock.update);
    // Who is about to come to an array that grows counts one more than all others.
    let count = peers.iter().filter(is_whole).max_by_key(age).unwrap_or(reference).superblock.members.len();
    let is_out = |entry: &MemberEntry, slot: usize| 2 * knowing(&peers, |table| excludes(table, slot, entry)) > count;
    let is_own_out = |peer: &Candidate| is_out(peer.superblock.entry(), usize::from(peer.superblock.slot));
    let mut believed: Vec<&Candidate> = peers.iter().copied().filter(|peer| !is_own_out(peer)).collect();
    if believed.is_empty() {
        // Everyone excludes everyone, which nobody ever wrote: it ends in a refusal.
        believed.clone_from(&peers);
    }
    let newest = believed.iter().filter(is_whole).max_by_key(age).unwrap_or(reference);
    let mut superblock = newest.superblock.clone();
    // Whose place was given to another says nothing of the array any more, and who is not known says nothing yet.
    let named = |peer: &&Candidate| {
        place(&superblock, usize::from(peer.superblock.slot)).is_some_and(|entry| entry.uuid == peer.superblock.uuid())
    };
    let (peers, unnamed): (Vec<&Candidate>, Vec<_>) = peers.iter().copied().partition(named);
    strangers.extend(unnamed);
    believed.retain(named);
    for table in believed.iter().map(|candidate| &candidate.superblock) {
        for (ours, theirs) in superblock.members.iter_mut().zip(&table.members).filter(|(a, b)| a.uuid == b.uuid) {
            unite(&mut ours.state, theirs.state);
        }
        for (ours, theirs) in superblock.copies.iter_mut().zip(&table.copies).filter(|(a, b)| a.uuid == b.uuid) {
            unite(&mut ours.state, theirs.state);
        }
    }
    // Whoever is out is excluded here too, even if none of those that are believed should say so.
    let is_out = |entry: &MemberEntry, slot: usize| 2 * knowing(&peers, |table| excludes(table, slot, entry)) > count;
    // Perhaps fewer than the reference names, who was only about to come.
    for slot in 0..superblock.members.len() {
        let entry = superblock.members[slot];
        if is_out(&entry, slot) {
            for theirs in peers.iter().filter_map(|peer| place(&peer.superblock, slot)).filter(|b| b.uuid == entry.uuid)
            {
                unite(&mut superblock.members[slot].state, theirs.state);
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

/// Whether two superblocks describe the same array; who of it is excluded aside, and who has the place of one that was.
fn same_array(a: &Candidate, b: &Candidate) -> bool {
    let (earlier, later) = if a.superblock.epoch <= b.superblock.epoch { (a, b) } else { (b, a) };
    let (earlier, later) = (&earlier.superblock, &later.superblock);
    // At one epoch either may be the later one.
    let follows = |before: &Superblock, after: &Superblock| {
        let mut members = before.members.iter().zip(&after.members);
        // Who was named is not named any more if it failed on its way in: then nobody has the place.
        let mut copies = before.copies.iter().zip(&after.copies);
        let failed = |a: &MemberEntry, b: &MemberEntry| a.state != State::Active && is_excluded(b.state);
        members.all(|(a, b)| a.uuid == b.uuid || is_excluded(a.state) || failed(a, b))
            && copies.all(|(a, b)| a.uuid == b.uuid || is_excluded(a.state) || is_excluded(b.state))
    };
    are_of_one_shape(earlier, later)
        && earlier.log_generation == later.log_generation
        && (follows(earlier, later)
            || earlier.epoch == later.epoch && follows(later, earlier)
            || earlier.epoch < later.epoch && share_a_member(earlier, later))
}

/// Whether two superblocks are of the same geometry, or one of an array that has got further members.
fn are_of_one_shape(a: &Superblock, b: &Superblock) -> bool {
    let shape = |superblock: &Superblock| {
        let geometry = &superblock.geometry;
        (geometry.level(), geometry.chunk_blocks(), geometry.stripes())
    };
    let (fewer, more) = if a.geometry.members() <= b.geometry.members() { (a, b) } else { (b, a) };
    shape(a) == shape(b) && (fewer.geometry == more.geometry || more.geometry_epoch > 0 || more.growth.is_some())
}

/// What a table says of a place.
fn place(table: &Superblock, slot: usize) -> Option<MemberEntry> {
    table.members.get(slot).copied()
}

/// Whether a member takes part by both. Then neither went on without it, and what was relied upon at the earlier epoch is known
/// to those of the later one, however many places were given to others meanwhile: whoever left long ago never heard of them.
fn share_a_member(earlier: &Superblock, later: &Superblock) -> bool {
    let mut places = earlier.members.iter().zip(&later.members);
    places.any(|(a, b)| a.uuid == b.uuid && a.state == State::Active && b.state == State::Active)
}

fn refuse_duplicates(peers: &[&Candidate]) -> Result<(), AssembleError> {
    for (at, first) in peers.iter().enumerate() {
        let said = &first.superblock;
        if let Some(second) = peers[at + 1..].iter().find(|other| other.superblock.uuid() == said.uuid()) {
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

/// Whether a table excludes the one of an entry.
fn excludes(table: &Superblock, slot: usize, entry: &MemberEntry) -> bool {
    place(table, slot).is_some_and(|said| said.uuid == entry.uuid && is_excluded(said.state))
}

const fn is_excluded(state: State) -> bool {
    matches!(state, State::Excluded { .. })
}

fn knowing(peers: &[&Candidate], knows: impl Fn(&Superblock) -> bool) -> usize {
    peers.iter().filter(|peer| knows(&peer.superblock)).count()
}

/// Excludes what another table does. The earliest epoch stays.
fn unite(ours: &mut State, theirs: State) {
    match (*ours, theirs) {
        (State::Active | State::Rebuilding { .. }, State::Excluded { .. }) => *ours = theirs,
        (State::Excluded { since }, State::Excluded { since: other }) if other < since => *ours = theirs,
        _ => {}
    }
}

/// Whether too few are active: a copy of the log and all members but what the level bears.
fn is_too_few(superblock: &Superblock) -> bool {
    let missing = (0..32).zip(&superblock.members).filter(|(_, member)| member.state != State::Active);
    let missing = missing.fold(0, |mask, (slot, _): (u32, _)| mask | 1 << slot);
    let needs_log = !superblock.copies.is_empty() && superblock.log_fate != LogFate::GivenUp;
    let lacks_log = needs_log && superblock.is_without_log();
    !superblock.geometry.bears(missing) || lacks_log
}

/// Takes back what fewer members exclude than stay when as many are lost as the level bears: all who stay had to know of
/// it before it took effect. A member that was being rebuilt is so again, as far as the most cautious of the tables says.
fn disregard(superblock: &mut Superblock, peers: &[&Candidate]) {
    let least = usize::from(superblock.geometry.fewest_members());
    for (slot, member) in superblock.members.iter_mut().enumerate().filter(|(_, member)| is_excluded(member.state)) {
        if knowing(peers, |table| excludes(table, slot, member)) < least {
            let said = peers.iter().filter_map(|peer| place(&peer.superblock, slot));
            let said = said.filter(|said| said.uuid == member.uuid);
            let lowest =
                said.map(|said| said.state).filter(|state| !is_excluded(*state)).min_by_key(|state| match state {
                    State::Rebuilding { position } => *position,
                    State::Active | State::Excluded { .. } => u64::MAX,
                });
            member.state = lowest.unwrap_or(member.state);
        }
    }
    for (at, copy) in superblock.copies.iter_mut().enumerate().filter(|(_, copy)| is_excluded(copy.state)) {
        let excludes = |table: &Superblock| table.copies.get(at).is_some_and(|said| is_excluded(said.state));
        if !copy.free && knowing(peers, excludes) < least {
            copy.state = State::Active;
        }
    }
}
