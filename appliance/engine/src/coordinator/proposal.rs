//! What is to be said otherwise of an array, before it is: an edit of who takes part, as it would stand in the superblocks
//! and in the map. Pure: [`super::persist`] makes it durable, and only then is it in force.
//!
//! A proposal is worked out anew, from what is in force, each time that it is tried: one that failed half way has left its
//! epoch on some devices, and the next one has a higher epoch and says everything again. So nothing of a proposal that is
//! dropped stays behind.
//!
//! A further kind of change is a further part of [`Proposal`], with its lines in [`Proposal::tables`] (what members say),
//! [`Proposal::log`] (what a log copy says) and [`Proposal::map`] (what shards go by).

use base::ids::{Slot, StripeId};
use journal::LogSuperblock;
use raid::{LogFate, MemberEntry, ScrubRecord, State, Tables};

use super::attach::Attach;
use super::growth;
use super::join::{Join, seat};
use crate::map::{ArrayMap, LogMode, Moving, MovingStage, OnLogLoss, Service};

/// Something that is to be said otherwise, beside who is left out.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// A drive takes a place that has no member, and is to be rebuilt.
    Join(Box<Join>),
    /// A drive that has become the like of a member takes its place, and is whole.
    Succeed(Box<Join>),
    /// A drive has the place behind all others, and data moves so many stripes at a time to where it lies with it.
    Grow { join: Box<Join>, window_stripes: u32 },
    /// So many further windows have been moved, or passed over.
    Step { windows: u64, passed_over: bool },
    /// A member has been rebuilt this far; none is all of it.
    Position { slot: Slot, position: Option<StripeId> },
    /// A device is a copy of the log, perhaps in the stead of another.
    Attach(Box<Attach>),
    /// The last scrub stands so.
    Scrub(Option<ScrubRecord>),
    /// Writes are acknowledged otherwise.
    Mode(LogMode),
    /// The log, of which no copy is left or the last one goes, is given up.
    Expose,
    /// It is not, since what it held cannot go to the members: nothing is written any more.
    Halt,
}

/// A change of what an array's superblocks say.
#[derive(Clone, Debug, Default)]
pub(super) struct Proposal {
    /// Members to be left out, as a bit mask.
    pub(super) members: u32,
    /// Log copies to be left out, as a bit mask; a newcomer that failed is among them.
    pub(super) copies: u32,
    /// Log copies that are to go for good, as a bit mask: nobody will miss them.
    pub(super) detached: u32,
    /// Whether the drive that is to succeed a member is to be let go.
    pub(super) unseat: bool,
    /// Whether hosts' writes need not wait any longer: no log comes.
    pub(super) release: bool,
    /// What else, one thing at a time.
    pub(super) edit: Option<Edit>,
    /// Something was said to some that did not come into force: what is in force is to be said again.
    pub(super) again: bool,
}

impl Proposal {
    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.members | self.copies | self.detached == 0
            && self.edit.is_none()
            && !self.again
            && !self.unseat
            && !self.release
    }

    /// Takes an earlier one up into this one, which is to be proposed in its stead.
    pub(super) fn take_up(&mut self, earlier: Self) {
        assert!(self.edit.is_none(), "an edit waits for the one before it");
        self.members |= earlier.members;
        self.copies |= earlier.copies;
        self.detached |= earlier.detached;
        self.edit = earlier.edit;
        self.again |= earlier.again;
        self.unseat |= earlier.unseat;
        self.release |= earlier.release;
    }

    /// What all member superblocks are to say of members and copies, for an array whose map will be this.
    /// `has_place`: whether all members have a place for the bits of missed zones.
    pub(super) fn tables(&self, in_force: &Tables, map: &ArrayMap, has_place: bool) -> Tables {
        let (mut tables, epoch) = (in_force.clone(), map.epoch);
        match &self.edit {
            Some(Edit::Join(join)) => seat(&mut tables, join.slot, join.uuid, join.returns),
            Some(Edit::Succeed(join)) => {
                tables.members[join.slot.index()] = MemberEntry { uuid: join.uuid, state: State::Active };
            }
            Some(Edit::Grow { join, window_stripes }) => {
                growth::seat(&mut tables, MemberEntry { uuid: join.uuid, state: State::Active }, *window_stripes);
            }
            Some(Edit::Step { windows, .. }) => tables.advance(*windows),
            Some(Edit::Position { slot, position }) => {
                let rebuilding = |position: StripeId| State::Rebuilding { position: position.0 };
                tables.members[slot.index()].state = position.map_or(State::Active, rebuilding);
            }
            Some(Edit::Attach(attach)) => {
                attach.comers.iter().for_each(|comer| tables.add_copy(comer.newcomer.copy, comer.uuid));
                if attach.first {
                    tables.log_fate = LogFate::Kept;
                }
            }
            Some(Edit::Scrub(record)) => tables.scrub = *record,
            Some(Edit::Expose) => {
                tables.log_fate = LogFate::GivenUp;
                tables.exclude(epoch, 0, u32::MAX);
            }
            Some(Edit::Mode(_) | Edit::Halt) | None => {}
        }
        tables.free(epoch, self.leaving());
        // As long as it drains a copy that comes back is believed.
        let draining = map.service == Service::Draining;
        tables.log_fate = if draining { LogFate::Lost } else { tables.log_fate };
        tables.exclude(epoch, self.members, if draining { 0 } else { self.copies });
        tables.settle_away(in_force.are_whole(), has_place);
        tables
    }

    /// Log copies that go for good, as a bit mask.
    pub(super) fn leaving(&self) -> u32 {
        let replaced = if let Some(Edit::Attach(attach)) = &self.edit { attach.instead } else { 0 };
        self.detached | replaced
    }

    /// What a log copy is to say of an array whose map will be this; its next update is due.
    pub(super) fn log(&self, superblock: &mut LogSuperblock, map: &ArrayMap, tables: &Tables) {
        superblock.epoch = map.epoch;
        superblock.geometry_epoch = map.geometry_epoch;
        superblock.copy_count = map.copies.len() as u16;
        superblock.mode = map.mode.into();
        superblock.members = tables.geometry.all_members() & !map.missing();
        superblock.member_uuids = raid::member_uuids(&tables.members);
        superblock.update += 1;
    }

    /// What the shards are to go by.
    pub(super) fn map(&self, in_force: &ArrayMap, epoch: u64) -> ArrayMap {
        let mut map = in_force.clone();
        map.epoch = epoch;
        match &self.edit {
            Some(Edit::Join(join)) => map.members[join.slot.index()] = Some(join.member),
            Some(Edit::Succeed(join)) => {
                map.members[join.slot.index()] = Some(join.member);
                map.successor = None;
            }
            Some(Edit::Grow { join, .. }) => map.members.push(Some(join.member)),
            Some(Edit::Step { .. }) => {
                map.moving = map.moving.map(|moving| Moving { stage: MovingStage::Arrived, ..moving });
            }
            Some(Edit::Position { slot, position }) => {
                let member = map.members[slot.index()].as_mut().expect("an edit goes with its member");
                member.position = *position;
            }
            Some(Edit::Attach(attach)) => {
                for comer in &attach.comers {
                    let place = usize::from(comer.newcomer.copy);
                    map.copies.resize(map.copies.len().max(place + 1), None);
                    map.copies[place] = Some(comer.newcomer.device);
                    map.free_copies &= !(1 << place);
                }
                map.newcomer = None;
                if attach.first {
                    let LogSuperblock { identity, layout, incarnation, .. } = attach.comers[0].superblock;
                    (map.log, map.log_layout, map.incarnation) = (identity, layout, incarnation);
                    (map.exposed, map.hold) = (false, None);
                }
            }
            Some(Edit::Mode(mode)) => map.mode = *mode,
            Some(Edit::Expose) => (map.exposed, map.mode, map.hold) = (true, LogMode::WriteThrough, None),
            Some(Edit::Halt) => map.on_log_loss = OnLogLoss::ReadOnly,
            Some(Edit::Scrub(_)) | None => {}
        }
        map.free_copies |= self.leaving();
        let gone = self.copies | self.leaving();
        for (_, member) in map.members.iter_mut().enumerate().filter(|(slot, _)| self.members & 1 << slot != 0) {
            *member = None;
        }
        for (_, device) in map.copies.iter_mut().enumerate().filter(|(copy, _)| gone & 1 << copy != 0) {
            *device = None;
        }
        map.newcomer.take_if(|newcomer| gone & 1 << newcomer.copy != 0);
        // Whoever was to succeed a member that has gone has to be rebuilt in its place.
        map.successor.take_if(|successor| self.unseat || self.members & 1 << successor.slot.0 != 0);
        map.service = service(&map);
        map.newcomer.take_if(|_| map.service != Service::ReadWrite);
        map.hold.take_if(|_| self.release || map.service != Service::ReadWrite);
        map.successor.take_if(|_| map.service != Service::ReadWrite);
        map
    }
}

/// What an array with such a map can do.
pub(crate) fn service(map: &ArrayMap) -> Service {
    if !map.arrangement.geometry().bears(map.missing()) {
        Service::Failed
    } else if !map.is_bare() && map.copies.iter().all(Option::is_none) {
        match map.on_log_loss {
            OnLogLoss::ReadOnly => Service::ReadOnly,
            OnLogLoss::Stop => Service::Stopped,
            // Who began to drain goes on with that, whatever else is lost.
            OnLogLoss::WriteThroughExposed if map.missing() == 0 || map.service == Service::Draining => {
                Service::Draining
            }
            OnLogLoss::WriteThroughExposed => Service::ReadOnly,
        }
    } else {
        Service::ReadWrite
    }
}
