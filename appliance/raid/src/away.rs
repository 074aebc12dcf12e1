//! Members that went out and may come back. From the moment that the first one is out, whoever writes to a zone of the others
//! notes that in the bits of *missed* zones ([`crate::ZoneBits::missed`]), durably before the log forgets what was written. So
//! a drive that comes back holds what it should, but for these zones: it is given its place like any other drive, under a new
//! identity, and rebuilt, but no other zone is walked over.
//!
//! The bits are a set for all members that are out, beginning when all were whole: for each of them too many rather than too few.
//!
//! Which drive that is true of, [`may_return`] decides from what it says of itself. It has to be the very one that was left out,
//! as it was then: neither replaced since, nor served by anybody who went on without the others.

use base::cursor::{Reader, Writer};
use base::ids::Slot;
use thiserror::Error;

use crate::superblock::{MemberEntry, State, Superblock, SuperblockError, Tables};

/// What is known of members that are out: which zones they miss at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away {
    /// Slots, as a bit mask, whose members are being rebuilt and lack nothing beside missed zones.
    pub returning: u32,
}

/// Bytes of it in the superblock.
pub(crate) const AWAY_BYTES: usize = 8;

impl Away {
    pub(crate) fn encode(self, to: &mut Writer<'_>) {
        to.u32_le(self.returning).u32_le(0);
    }

    pub(crate) fn decode(bytes: &[u8], members: &[MemberEntry]) -> Result<Self, SuperblockError> {
        let returning = Reader::new(bytes).u32_le()?;
        let is_rebuilding = |slot: usize| members.get(slot).is_some_and(MemberEntry::is_rebuilding);
        if (0..32).any(|slot| returning & 1 << slot != 0 && !is_rebuilding(slot)) {
            return Err(SuperblockError::Malformed("a member returns that is not being rebuilt"));
        }
        Ok(Self { returning })
    }

    /// Whether the member of a slot lacks nothing beside missed zones.
    pub const fn returns(&self, slot: Slot) -> bool {
        self.returning & 1 << slot.0 != 0
    }
}

/// Why a drive has to be rebuilt as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoReturn {
    /// It is of another array, or of this one at another time.
    #[error("it describes another array")]
    Stranger,
    /// Where it has its blocks they do not lie any more.
    #[error("data has moved to where it lies with a further member since it went out")]
    Moved,
    /// Nobody kept what it missed.
    #[error(
        "nothing says what it missed: nobody is out any more, the array was started with --force, or an earlier version made its members \
         or served it when the first of them went out"
    )]
    Unknown,
    /// Another has had its place since, or it has it.
    #[error("it is not the one that was left out of its place")]
    Replaced,
    /// It was being rebuilt itself.
    #[error("it had not been rebuilt when it went out")]
    Unfinished,
    /// It was served after it was left out.
    #[error("it was served without the others since it went out")]
    WentOn,
}

/// Whether a drive that says this of itself lacks nothing beside missed zones of an array of which `here` is a member's superblock
/// and `tables` what is in force; for the slot that it had.
pub fn may_return(said: &Superblock, here: &Superblock, tables: &Tables) -> Result<Slot, NoReturn> {
    let is_same = said.array == here.array
        && said.geometry.level() == here.geometry.level()
        && said.geometry.chunk_blocks() == here.geometry.chunk_blocks()
        && said.geometry.stripes() == here.geometry.stripes()
        && said.log_generation == here.log_generation
        && said.layout.checksums.is_some() == here.layout.checksums.is_some();
    if !is_same {
        return Err(NoReturn::Stranger);
    }
    if said.geometry != here.geometry || said.geometry_epoch != here.geometry_epoch {
        return Err(NoReturn::Moved);
    }
    if tables.away.is_none() || said.layout.missed.is_none() {
        return Err(NoReturn::Unknown);
    }
    let slot = Slot(said.slot);
    let since = match tables.members[slot.index()] {
        MemberEntry { uuid, state: State::Excluded { since } } if uuid == said.uuid() => since,
        _ => return Err(NoReturn::Replaced),
    };
    let was_whole = match said.entry().state {
        State::Active => true,
        State::Rebuilding { .. } => said.away.is_some_and(|away| away.returns(slot)),
        State::Excluded { .. } => false,
    };
    if !was_whole {
        return Err(NoReturn::Unfinished);
    }
    // Whoever goes on without others leaves them out.
    let is_out = |entry: &MemberEntry| matches!(entry.state, State::Excluded { .. });
    let mut both = said.members.iter().zip(&tables.members);
    let left_out = both.any(|(said, here)| said.uuid == here.uuid && is_out(said) && !is_out(here));
    if said.epoch >= since || left_out {
        return Err(NoReturn::WentOn);
    }
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::tests::example;
    use base::uuid::Uuid;

    /// A member as it was when it went out, and what is in force then: it is left out from epoch 9 on.
    fn away() -> (Superblock, Superblock, Tables) {
        let mut here = Superblock { epoch: 8, ..example() };
        here.layout = crate::MemberLayout::for_device(1 << 16, 1024, false).expect("256 MiB is enough");
        here.members.iter_mut().for_each(|member| member.state = State::Active);
        let said = Superblock { slot: 1, ..here.clone() };
        let mut tables = here.tables();
        tables.exclude(9, 1 << 1, 0);
        tables.settle_away(true, true);
        (said, here, tables)
    }

    #[test]
    fn a_member_that_was_whole_when_it_went_out_lacks_missed_zones_only() {
        let (said, here, tables) = away();
        assert_eq!(tables.away, Some(Away::default()));
        assert_eq!(may_return(&said, &here, &tables), Ok(Slot(1)));
    }

    #[test]
    fn who_went_on_or_was_replaced_or_was_never_whole_does_not_return() {
        let (said, here, tables) = away();
        let refused = |said: &Superblock, tables: &Tables| may_return(said, &here, tables).expect_err("it is refused");
        let other = Superblock { log_generation: said.log_generation + 1, ..said.clone() };
        assert_eq!(refused(&other, &tables), NoReturn::Stranger);
        let moved = Superblock { geometry_epoch: said.geometry_epoch + 1, ..here.clone() };
        assert_eq!(may_return(&said, &moved, &tables), Err(NoReturn::Moved));
        let unknown = Tables { away: None, ..tables.clone() };
        assert_eq!(refused(&said, &unknown), NoReturn::Unknown);
        let mut placeless = said.clone();
        placeless.layout.missed = None;
        assert_eq!(refused(&placeless, &tables), NoReturn::Unknown);
        let mut replaced = tables.clone();
        replaced.members[1].uuid = Uuid(*b"a-younger-member");
        assert_eq!(refused(&said, &replaced), NoReturn::Replaced);
        let mut back = tables.clone();
        back.members[1].state = State::Active;
        assert_eq!(refused(&said, &back), NoReturn::Replaced);
        // It was served alone, at an epoch that is as high, or lower.
        let later = Superblock { epoch: 9, ..said.clone() };
        assert_eq!(refused(&later, &tables), NoReturn::WentOn);
        let mut alone = said.clone();
        alone.members[0].state = State::Excluded { since: 8 };
        assert_eq!(refused(&alone, &tables), NoReturn::WentOn);
        // Whoever is out here, too, was left out by both.
        let mut both = tables;
        both.exclude(10, 1, 0);
        assert_eq!(may_return(&alone, &here, &both), Ok(Slot(1)));
        let mut unfinished = said;
        unfinished.members[1].state = State::Rebuilding { position: 0 };
        assert_eq!(refused(&unfinished, &both), NoReturn::Unfinished);
        unfinished.away = Some(Away { returning: 1 << 1 });
        assert_eq!(may_return(&unfinished, &here, &both), Ok(Slot(1)), "it was on its way back");
    }

    #[test]
    fn what_is_missed_is_kept_from_the_first_member_that_goes_out_until_all_are_whole() {
        let (_, here, mut tables) = away();
        let mut without_place = here.tables();
        without_place.exclude(9, 1, 0);
        without_place.settle_away(true, false);
        assert_eq!(without_place.away, None);
        without_place.settle_away(false, true);
        assert_eq!(without_place.away, None, "one was out already");
        tables.away = Some(Away { returning: 0b11 });
        tables.members[1].state = State::Rebuilding { position: 0 };
        tables.settle_away(false, true);
        assert_eq!(tables.away, Some(Away { returning: 0b10 }), "who is whole returns no more");
        tables.members[1].state = State::Active;
        tables.settle_away(false, true);
        assert_eq!(tables.away, None);
    }

    #[test]
    fn a_superblock_says_it_again_and_nonsense_is_refused() {
        let (_, here, mut tables) = away();
        tables.members[1].state = State::Rebuilding { position: 0 };
        tables.away = Some(Away { returning: 1 << 1 });
        let mut said = here;
        said.renew(9, &tables);
        let mut block = base::ZERO_BLOCK;
        said.encode(&mut block);
        assert_eq!(Superblock::decode(&block).as_ref(), Ok(&said));
        said.away = Some(Away { returning: 1 << 0 });
        said.encode(&mut block);
        let malformed = SuperblockError::Malformed("a member returns that is not being rebuilt");
        assert_eq!(Superblock::decode(&block), Err(malformed));
        (said.away, said.layout.missed) = (Some(Away::default()), None);
        said.encode(&mut block);
        assert!(matches!(Superblock::decode(&block), Err(SuperblockError::Malformed(_))));
    }
}
