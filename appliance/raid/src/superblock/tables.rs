//! What all superblocks of an array say alike.

use base::ids::StripeId;
use base::uuid::Uuid;

use super::{CopyEntry, LogFate, MAX_COPIES, MemberEntry, State};
use crate::away::Away;
use crate::geometry::Geometry;
use crate::growth::Growth;
use crate::reshape::ReshapeError;
use crate::scrub::ScrubRecord;

/// What all superblocks of an array have alike: who takes part, and what else they remember together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Where blocks lie, or come to lie.
    pub geometry: Geometry,
    /// Counts changes of that.
    pub geometry_epoch: u32,
    /// How far it is, if it gets further members, or got some.
    pub growth: Option<Growth>,
    /// All members by slot.
    pub members: Vec<MemberEntry>,
    /// All log copies.
    pub copies: Vec<CopyEntry>,
    /// The last scrub, if there was one.
    pub scrub: Option<ScrubRecord>,
    /// What became of the log.
    pub log_fate: LogFate,
    /// What is known of members that are out.
    pub away: Option<Away>,
}

impl Tables {
    /// Leaves members and copies (bit masks) out from an epoch on. What is out already stays out since then.
    pub fn exclude(&mut self, epoch: u64, members: u32, copies: u32) {
        let excluded = State::Excluded { since: epoch };
        for (at, member) in self.members.iter_mut().enumerate() {
            if members & 1 << at != 0 && !matches!(member.state, State::Excluded { .. }) {
                member.state = excluded;
            }
        }
        for (at, copy) in self.copies.iter_mut().enumerate() {
            if copies & 1 << at != 0 && copy.state == State::Active {
                copy.state = excluded;
            }
        }
    }

    /// Frees the places of log copies (a bit mask) from an epoch on.
    pub fn free(&mut self, epoch: u64, copies: u32) {
        self.exclude(epoch, 0, copies);
        for (_, copy) in self.copies.iter_mut().enumerate().filter(|(at, _)| copies & 1 << at != 0) {
            copy.free = true;
        }
    }

    /// Gives a place to a new log copy, behind the last one if there was none before.
    ///
    /// # Panics
    /// If a copy has the place, or places before it would be left out.
    pub fn add_copy(&mut self, place: u8, uuid: Uuid) {
        let copy = CopyEntry::active(uuid);
        match self.copies.get_mut(usize::from(place)) {
            Some(before) => {
                assert_ne!(before.state, State::Active, "a copy takes a place that has none");
                *before = copy;
            }
            None => {
                assert!(self.copies.len() == usize::from(place) && self.copies.len() < MAX_COPIES);
                self.copies.push(copy);
            }
        }
    }

    /// Gives the array a further member, which holds nothing yet that belongs there: all is to be moved, from the first stripe on.
    pub fn grow(&mut self, member: MemberEntry, window_stripes: u32) -> Result<(), ReshapeError> {
        let before = self.geometry;
        let (level, chunk_blocks, stripes) = (before.level(), before.chunk_blocks(), before.stripes());
        let after = Geometry::new(level, before.members() + 1, chunk_blocks, stripes)?;
        let growth = Growth { members_before: before.members(), window_stripes, boundary: StripeId(0) };
        growth.reshape(&after)?;
        (self.geometry, self.growth) = (after, Some(growth));
        self.members.push(member);
        Ok(())
    }

    /// So many further windows have been moved.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn advance(&mut self, windows: u64) {
        let growth = self.growth.as_mut().expect("an array that grows");
        let reshape = growth.reshape(&self.geometry).expect("what is in force can be");
        growth.boundary = reshape.advanced(windows).boundary();
        self.geometry_epoch += u32::try_from(windows).expect("it was looked at before it began");
    }

    /// Whether every member is there and holds what it should.
    pub fn are_whole(&self) -> bool {
        self.members.iter().all(|member| member.state == State::Active)
    }

    /// Says what is known from now on of members that are out, once all else has been changed. It is kept from the moment that
    /// the first of them goes out, if `before` all were whole and whoever is there has a place for it (`has_place`), until all
    /// are whole again.
    pub fn settle_away(&mut self, before: bool, has_place: bool) {
        let rebuilding = (0u32..).zip(&self.members).filter(|(_, member)| member.is_rebuilding());
        let rebuilding = rebuilding.fold(0, |mask, (slot, _)| mask | 1 << slot);
        self.away = match self.away {
            _ if self.are_whole() => None,
            Some(Away { returning }) => Some(Away { returning: returning & rebuilding }),
            None => (before && has_place).then(Away::default),
        };
    }
}
