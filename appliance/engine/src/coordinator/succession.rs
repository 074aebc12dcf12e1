//! A drive succeeds a member that is still in use: it becomes the member's like while the member serves, and takes its place in one
//! step. So nothing is ever missing, as it would be if the member were failed first. How shards go about it is told in
//! `array::succession`.
//!
//! | stage | what happens | what others know |
//! |---|---|---|
//! | asked | waits until nothing else is under way; then whatever superblock the drive bears is cleared | nothing |
//! | cleared | waits until the shards can be told | nothing |
//! | copying | a [`super::round`] over all zones makes it the member's like; then it is flushed | shards, in memory |
//! | copied | waits until nothing else is under way | the same |
//! | preparing | it gets what members keep beside data, and is proposed in the member's place | superblocks, once that is in force |
//!
//! Up to the last step nobody relies on it, so a restart begins anew with nothing. If it fails, or somebody wants it so, it is *let
//! go*: an epoch without it, since some superblocks may name it by then. If the member goes out meanwhile, the drive is let go in
//! the same step and kept as a spare, which takes the empty place and is rebuilt from the others, from the beginning.
//!
//! Whoever starts the array has to see that tables with the drive follow those with the member, whichever of them are found on what.
//! That is so if another member takes part by both ([`raid::assemble()`]): so there must be one that is whole, from the beginning to
//! the end; else the drive is let go, and gets the place of one that is out.
//!
//! A member that has to be rebuilt comes first: the copy begins anew behind it. But once a drive is copied no rebuild begins before
//! it has the place, since a shard keeps one drive current at a time.

use base::ids::{ArrayId, DeviceBlock, DeviceId, Slot, StripeId};
use ports::Ports;
use raid::level::MAX_MEMBERS;

use super::health::MemberRecord;
use super::join::{JOIN_BLOCKS, Join, Spare, Way};
use super::proposal::{Edit, Proposal};
use super::{Change, Coordinated, Coordinator};
use crate::array::Purpose;
use crate::command::{Event, Refusal, SuccessionEnd};
use crate::map::{ArrayMap, Member, Service, Successor};
use crate::message::Message;
use crate::operations::Operations;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Whoever asked waits for the answer.
    Asked {
        ticket: u64,
    },
    /// The same, while the drive is being cleared.
    Clearing {
        ticket: u64,
    },
    Cleared {
        ticket: u64,
    },
    Copying,
    Copied,
    Preparing,
}

/// A drive on its way to the place of a member that is in use.
#[derive(Debug)]
pub(super) struct Succession {
    slot: Slot,
    spare: Spare,
    stage: Stage,
    /// Why it will have ended if it is let go.
    end: SuccessionEnd,
}

impl Succession {
    pub(super) const fn device(&self) -> DeviceId {
        self.spare.device
    }
}

impl Proposal {
    /// What is heard of the member that is about to be succeeded does not matter any more; of the drive that was to succeed it, it
    /// does: then the edit is given back.
    pub(super) fn settle_succession(&mut self) -> Option<Box<Join>> {
        let Some(Edit::Succeed(join)) = &self.edit else { return None };
        if !self.unseat {
            self.members &= !(1 << join.slot.0);
            return None;
        }
        self.take_succession()
    }

    /// The same, if nobody else takes part by both maps.
    pub(super) fn refuse_lonely_succession(&mut self, before: &ArrayMap, after: &ArrayMap) -> Option<Box<Join>> {
        let Some(Edit::Succeed(join)) = &self.edit else { return None };
        if has_another(before, after, join.slot) { None } else { self.take_succession() }
    }

    fn take_succession(&mut self) -> Option<Box<Join>> {
        match self.edit.take() {
            Some(Edit::Succeed(join)) => Some(join),
            other => {
                self.edit = other;
                None
            }
        }
    }
}

/// Whether a member beside the one of a slot is whole by both maps.
fn has_another(before: &ArrayMap, after: &ArrayMap, slot: Slot) -> bool {
    let whole = |map: &ArrayMap| map.arrangement.geometry().all_members() & !map.missing();
    whole(before) & whole(after) & !(1 << slot.0) != 0
}

impl Coordinated {
    /// Whether a drive has all that it needs to take a member's place.
    pub(super) fn is_to_succeed(&self) -> bool {
        let stage = self.succession.as_ref().map(|succession| succession.stage);
        matches!(stage, Some(Stage::Copied | Stage::Preparing))
    }

    /// Whether superblocks that name the drive are being written.
    fn is_naming_successor(&self) -> bool {
        matches!(&self.change, Change::Proposing(proposed) if matches!(proposed.proposal.edit, Some(Edit::Succeed(_))))
    }
}

impl Coordinator {
    /// Begins to let a drive succeed a member, which is in use.
    pub(super) fn succeed(&mut self, id: ArrayId, slot: Slot, spare: Spare, ticket: u64) -> Result<(), Refusal> {
        let array = &self.arrays[id.index()];
        let map = &array.array.map;
        if map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        match map.members.get(slot.index()) {
            Some(Some(member)) if member.position.is_none() => {}
            Some(Some(_)) => return Err(Refusal::Taken),
            Some(None) | None => return Err(Refusal::NotInUse),
        }
        if array.succession.is_some() {
            return Err(Refusal::SuccessionUnderWay);
        }
        if array.growth.is_some() {
            return Err(Refusal::GrowthUnderWay);
        }
        if !has_another(map, map, slot) {
            return Err(Refusal::Alone);
        }
        if map.arrangement.geometry().members() >= MAX_MEMBERS {
            return Err(Refusal::NoPlaceBeside);
        }
        self.fits(id, &spare)?;
        self.take_unused(id, spare.device)?;
        let stage = Stage::Asked { ticket };
        self.arrays[id.index()].succession = Some(Succession { slot, spare, stage, end: SuccessionEnd::Failed });
        Ok(())
    }

    /// Lets the drive go, as somebody wants.
    pub(super) fn cancel_succession(&mut self, id: ArrayId, ticket: u64) -> Result<(), Refusal> {
        let array = &mut self.arrays[id.index()];
        let is_too_late = array.is_naming_successor();
        let succession = array.succession.as_mut().ok_or(Refusal::NoSuccession)?;
        if is_too_late {
            return Err(Refusal::Busy);
        }
        succession.end = SuccessionEnd::Cancelled;
        if array.array.map.successor.is_some() {
            array.pending.unseat = true;
        }
        self.answer(ticket, Ok(()));
        Ok(())
    }

    /// Takes the next step, if it can be taken now; whether it was.
    pub(super) fn go_on_succeeding<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
    ) -> bool {
        let array = &self.arrays[id.index()];
        let Some(succession) = &array.succession else { return false };
        let map = &array.array.map;
        let (slot, spare, stage) = (succession.slot, succession.spare, succession.stage);
        let has_room = operations.available() > JOIN_BLOCKS && self.spare.len() >= JOIN_BLOCKS;
        match stage {
            Stage::Asked { ticket } | Stage::Cleared { ticket } => {
                let is_whole = map.members[slot.index()].is_some_and(|member| member.position.is_none());
                let refusal = match map.service {
                    _ if self.stopping => Some(Refusal::Stopping),
                    _ if succession.end == SuccessionEnd::Cancelled => Some(Refusal::NoSuccession),
                    Service::ReadWrite => None,
                    Service::Draining | Service::ReadOnly | Service::Stopped | Service::Failed => Some(Refusal::Down),
                };
                if let Some(refusal) = refusal {
                    self.arrays[id.index()].succession = None;
                    self.answer(ticket, Err(refusal));
                    return true;
                }
                if !is_whole {
                    // It went out before anything was done.
                    self.end_succession(id, SuccessionEnd::MemberGone);
                    self.answer(ticket, Ok(()));
                    return true;
                }
                if !array.is_at_rest() {
                    return false;
                }
                if let Stage::Cleared { .. } = stage {
                    self.seat_successor(ports, id);
                    self.answer(ticket, Ok(()));
                    return true;
                }
                // What was given up at the drive must not come behind what is written to it now.
                if !has_room || operations.is_writing(spare.device) {
                    return false;
                }
                self.set_stage(id, Stage::Clearing { ticket });
                self.begin_to_prepare(ports, operations, id, (slot, spare, Way::Copy), None);
                true
            }
            Stage::Copied if !self.stopping && array.is_at_rest() && has_room && map.service == Service::ReadWrite => {
                self.set_stage(id, Stage::Preparing);
                self.begin_to_prepare(ports, operations, id, (slot, spare, Way::Succeed), None);
                true
            }
            Stage::Clearing { .. } | Stage::Copying | Stage::Copied | Stage::Preparing => false,
        }
    }

    fn set_stage(&mut self, id: ArrayId, stage: Stage) {
        let succession = self.arrays[id.index()].succession.as_mut();
        succession.expect("a succession is under way").stage = stage;
    }

    /// Tells the shards of the drive: from now on they write to it.
    fn seat_successor<P: Ports>(&mut self, ports: &mut P, id: ArrayId) {
        let succession = self.arrays[id.index()].succession.as_ref().expect("a succession is under way");
        let (slot, spare) = (succession.slot, succession.spare);
        let layout = self.layout_on(id, &spare).expect("it was looked at before");
        let member = Member {
            device: spare.device,
            data_start: DeviceBlock(layout.data.start),
            checksums: layout.checksums.map(|region| DeviceBlock(region.start)),
            position: Some(StripeId(0)),
        };
        let array = &mut self.arrays[id.index()];
        let map = ArrayMap { successor: Some(Successor { slot, member }), ..ArrayMap::clone(&array.array.map) };
        let map = ports.seal("array map", map);
        array.array.map = map.clone();
        self.tell_all(|| Message::Map(map.clone()));
        self.set_stage(id, Stage::Copying);
        self.tell(Event::SuccessionBegan { array: id, slot, device: spare.device });
    }

    /// The drive bears no superblock any more.
    pub(super) fn successor_cleared(&mut self, id: ArrayId) {
        if let Some(Succession { stage: Stage::Clearing { ticket }, .. }) = self.arrays[id.index()].succession {
            self.set_stage(id, Stage::Cleared { ticket });
        }
    }

    /// Another member failed while the drive was prepared: that is done again.
    pub(super) fn prepare_successor_again(&mut self, id: ArrayId) {
        match self.arrays[id.index()].succession.as_ref().map(|succession| succession.stage) {
            Some(Stage::Clearing { ticket }) => self.set_stage(id, Stage::Asked { ticket }),
            Some(_) => self.set_stage(id, Stage::Copied),
            None => {}
        }
    }

    /// The drive failed while it was prepared.
    pub(super) fn successor_failed(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        match array.succession.as_ref().map(|succession| succession.stage) {
            Some(Stage::Clearing { ticket }) => {
                let device = array.succession.take().expect("seen just now").spare.device;
                self.give_up(id, device, Some(ticket));
            }
            _ => array.pending.unseat = array.array.map.successor.is_some(),
        }
    }

    /// The drive was flushed, with all that the member has.
    pub(super) fn successor_flushed(&mut self, id: ArrayId, failed: bool) {
        let array = &mut self.arrays[id.index()];
        array.drive_failed = false;
        if failed {
            array.pending.unseat = true;
        } else {
            self.set_stage(id, Stage::Copied);
        }
    }

    /// Superblocks that name the drive did not come into force: the member's says again what it said.
    pub(super) fn not_succeeded(&mut self, id: ArrayId, join: Join) {
        let array = &mut self.arrays[id.index()];
        if let Some(before) = join.before {
            array.array.superblocks[join.slot.index()] = Some(before);
        }
        array.pending.unseat = array.array.map.successor.is_some();
    }

    /// Something of the member cannot be had: the drive could never become its like.
    pub(super) fn succession_blocked(&mut self, id: ArrayId, stripe: StripeId) {
        let array = &mut self.arrays[id.index()];
        if let Some(succession) = &mut array.succession {
            succession.end = SuccessionEnd::Blocked { stripe };
            array.pending.unseat = true;
        }
    }

    /// Nobody else is whole who could tell of it.
    pub(super) fn succession_is_lonely(&mut self, id: ArrayId, join: Join) {
        if let Some(succession) = &mut self.arrays[id.index()].succession {
            succession.end = SuccessionEnd::Alone;
        }
        self.not_succeeded(id, join);
    }

    /// The drive has the place.
    pub(super) fn succeeded(&mut self, id: ArrayId, join: &Join, before: &ArrayMap) {
        let array = &mut self.arrays[id.index()];
        let slot = join.slot;
        array.succession = None;
        array.members[slot.index()] = MemberRecord::new();
        // What was heard meanwhile of the member before goes with it; what was heard of the drive is the member's now.
        array.pending.members &= !(1 << slot.0);
        if core::mem::take(&mut array.pending.unseat) {
            array.pending.members |= 1 << slot.0;
        }
        array.waiting.iter_mut().for_each(|one| one.members &= !(1 << slot.0));
        let before = before.members[slot.index()].expect("it was in use to the end").device;
        self.tell(Event::Succeeded { array: id, slot, device: join.member.device, before });
    }

    /// A map is in force: perhaps shards write to the drive no more.
    pub(super) fn succession_published(&mut self, id: ArrayId, before: &ArrayMap) {
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        if before.successor.is_none() || map.successor.is_some() {
            return;
        }
        array.pending.unseat = false;
        let Some(succession) = &array.succession else { return };
        let why = if map.service != Service::ReadWrite {
            SuccessionEnd::Down
        } else if map.members[succession.slot.index()].is_none() {
            SuccessionEnd::MemberGone
        } else {
            succession.end
        };
        self.end_succession(id, why);
    }

    /// The drive does not take the place so.
    fn end_succession(&mut self, id: ArrayId, why: SuccessionEnd) {
        let array = &mut self.arrays[id.index()];
        let Succession { slot, spare, .. } = array.succession.take().expect("a succession is under way");
        if matches!(why, SuccessionEnd::MemberGone | SuccessionEnd::Alone) {
            array.array.spares.insert(0, spare);
        }
        self.tell(Event::SuccessionEnded { array: id, slot, device: spare.device, why });
    }

    /// The drive that is to succeed a member, as far as shards know of it.
    pub(crate) fn successor_status(&self, id: ArrayId) -> Option<(Slot, DeviceId)> {
        let succession = self.arrays[id.index()].succession.as_ref()?;
        Some((succession.slot, succession.spare.device))
    }
}
