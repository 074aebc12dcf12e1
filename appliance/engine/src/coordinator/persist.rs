//! Proposals on their way to the devices: the superblocks of every member and log copy that takes part in what is proposed,
//! at an epoch above all that were ever written. It says when a proposal is durable, and never tells anybody.

use base::ids::{ArrayId, DeviceBlock, DeviceId, Slot};
use base::snapshot::Snapshot;
use journal::{LogLayout, slot_of};
use ports::{Buffer, DeviceOp, Ports};
use raid::Tables;

use super::proposal::{Edit, Proposal};
use super::{Change, Coordinator};
use crate::array::Purpose;
use crate::command::Refusal;
use crate::map::{ArrayMap, Service};
use crate::operations::Operations;

/// Whom a write goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Member(u8),
    Copy(u8),
    /// A drive that no map names yet.
    Drive,
    /// A device that is to become a copy of the log, while it is prepared.
    Newcomer,
}

/// A proposal whose superblocks are being written.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) proposal: Proposal,
    pub(super) tables: Tables,
    pub(super) map: Snapshot<ArrayMap>,
}

impl Coordinator {
    /// Writes what is pending to all who take part in it. A loss that leaves nothing to acknowledge is in force at once and
    /// not recorded: the devices may come back whole. So may the log's copies while the array drains ([`super::exposure`]).
    pub(super) fn propose<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let mut proposal = core::mem::take(&mut array.pending);
        if let Some(refused) = proposal.settle_succession() {
            array.pending = proposal;
            self.not_succeeded(id, *refused);
            return;
        }
        let array = &mut self.arrays[id.index()];
        array.epoch += 1;
        let epoch = array.epoch;
        let mut map = proposal.map(&array.array.map, epoch);
        let has_place = array.array.superblocks.iter().flatten().all(|said| said.layout.missed.is_some());
        let tables = proposal.tables(&array.tables, &map, has_place);
        map.away = tables.away;
        map.geometry_epoch = tables.geometry_epoch;
        map.arrangement = raid::growth::arrangement(&tables.geometry, tables.growth.as_ref());
        let map = ports.seal("array map", map);
        if let Some(refused) = proposal.refuse_lonely_succession(&array.array.map, &map) {
            array.pending = proposal;
            self.succession_is_lonely(id, *refused);
            return;
        }
        if map.service != Service::ReadWrite {
            if core::mem::take(&mut proposal.detached) != 0 {
                array.pending = proposal;
                self.refuse_detaching(id);
                return;
            }
            // What else there was to say can wait for better times.
            match proposal.edit.take() {
                Some(Edit::Join(join)) => {
                    array.pending = proposal;
                    self.give_up(id, join.member.device, join.ticket);
                }
                Some(Edit::Grow { join, .. }) => {
                    array.pending = proposal;
                    self.growth_refused(id);
                    self.give_up(id, join.member.device, join.ticket);
                }
                Some(Edit::Step { .. }) => {
                    array.pending = proposal;
                    self.not_stepped(id);
                }
                Some(Edit::Mode(_)) => {
                    array.pending = proposal;
                    self.mode_refused(id, Refusal::Down);
                }
                Some(Edit::Position { .. } | Edit::Attach(_) | Edit::Expose) => array.pending = proposal,
                Some(Edit::Succeed(join)) => {
                    array.pending = proposal;
                    self.not_succeeded(id, *join);
                }
                edit @ Some(Edit::Halt) => {
                    proposal.edit = edit;
                    self.publish(id, Proposed { proposal, tables, map }, ports.now());
                }
                Some(Edit::Scrub(_)) => {
                    array.pending = proposal;
                    self.scrub_not_saved(id);
                }
                None if map.service == Service::Draining => {
                    self.write_superblocks(ports, operations, id, Proposed { proposal, tables, map })
                }
                None => self.publish(id, Proposed { proposal, tables, map }, ports.now()),
            }
            return;
        }
        if let Some(Edit::Join(join)) = &proposal.edit {
            array.array.superblocks[join.slot.index()] = Some(join.superblock.clone());
        }
        if let Some(Edit::Grow { join, .. }) = &proposal.edit {
            array.array.superblocks.truncate(join.slot.index());
            array.array.superblocks.push(Some(join.superblock.clone()));
        }
        if let Some(Edit::Succeed(join)) = &mut proposal.edit {
            let before = array.array.superblocks[join.slot.index()].replace(join.superblock.clone());
            join.before = join.before.take().or(before);
        }
        if let Some(Edit::Attach(attach)) = &proposal.edit {
            array.array.log_superblocks.resize(map.copies.len(), None);
            for comer in &attach.comers {
                array.array.log_superblocks[usize::from(comer.newcomer.copy)] = Some(comer.superblock.clone());
            }
        }
        self.write_superblocks(ports, operations, id, Proposed { proposal, tables, map });
    }

    /// Writes the superblocks of everybody who takes part.
    fn write_superblocks<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        proposed: Proposed,
    ) {
        let array = &mut self.arrays[id.index()];
        let Proposed { proposal, tables, map } = &proposed;
        let successor = if let Some(Edit::Succeed(join)) = &proposal.edit { Some(join.slot) } else { None };
        for (slot, superblock) in (0u8..).map(Slot).zip(&mut array.array.superblocks) {
            let (Some(member), Some(superblock)) = (map.members[slot.index()], superblock) else { continue };
            superblock.renew(map.epoch, tables);
            let buffer = self.spare.pop().expect("enough were counted");
            superblock.encode(ports.bytes_mut(buffer.id()));
            let place = (member.device, raid::superblock_block(superblock.update));
            // What becomes of the member before it says nothing of a successor.
            let target = if successor == Some(slot) { Target::Drive } else { Target::Member(slot.0) };
            write(ports, operations, id, target, place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
        for (copy, superblock) in (0u8..).zip(&mut array.array.log_superblocks) {
            let (Some(device), Some(superblock)) = (map.copies[usize::from(copy)], superblock) else { continue };
            proposal.log(superblock, map, tables);
            let buffer = self.spare.pop().expect("enough were counted");
            superblock.encode(ports.bytes_mut(buffer.id()));
            let place = (device, LogLayout::superblock_block(slot_of(superblock.update)));
            write(ports, operations, id, Target::Copy(copy), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
        array.change = Change::Proposing(Box::new(proposed));
    }

    /// Whoever failed is excluded in the next step, and what was proposed comes with it: nothing was told yet. But a drive that
    /// failed on its way in is nobody's loss: the others are told again what they were told before.
    pub(super) fn propose_again(&mut self, id: ArrayId, mut proposal: Proposal) {
        let array = &mut self.arrays[id.index()];
        let (members, copies) = (array.pending.members, array.pending.copies);
        let successor_failed = core::mem::take(&mut array.drive_failed);
        let refused = proposal.edit.take_if(|edit| match edit {
            Edit::Join(join) | Edit::Grow { join, .. } => members & 1 << join.slot.0 != 0,
            Edit::Attach(attach) => copies & attach.places() != 0,
            Edit::Succeed(_) => successor_failed,
            Edit::Position { .. } | Edit::Step { .. } | Edit::Scrub(_) | Edit::Mode(_) | Edit::Expose | Edit::Halt => {
                false
            }
        });
        proposal.again |= refused.is_some();
        array.pending.take_up(proposal);
        match refused {
            Some(Edit::Join(join)) => {
                array.pending.members &= !(1 << join.slot.0);
                array.array.superblocks[join.slot.index()] = None;
                self.give_up(id, join.member.device, join.ticket);
            }
            Some(Edit::Grow { join, .. }) => {
                array.pending.members &= !(1 << join.slot.0);
                array.array.superblocks.truncate(join.slot.index());
                self.growth_refused(id);
                self.give_up(id, join.member.device, join.ticket);
            }
            Some(Edit::Succeed(join)) => self.not_succeeded(id, *join),
            // Shards log to it until that is in force: some may have been told that it has everything.
            Some(Edit::Attach(attach)) => {
                for comer in &attach.comers {
                    array.array.log_superblocks[usize::from(comer.newcomer.copy)] = None;
                }
                array.array.log_superblocks.truncate(array.array.map.copies.len());
                array.pending.release |= attach.first;
            }
            Some(
                Edit::Position { .. } | Edit::Step { .. } | Edit::Scrub(_) | Edit::Mode(_) | Edit::Expose | Edit::Halt,
            )
            | None => {}
        }
    }
}

/// Starts a durable write of one block.
pub(super) fn write<P: Ports>(
    ports: &mut P,
    operations: &mut Operations<Purpose>,
    array: ArrayId,
    target: Target,
    place: (DeviceId, DeviceBlock),
    buffer: &Buffer,
) {
    let purpose = Purpose::Coordinator { write: pack(array, target) };
    operations.start(ports, place, DeviceOp::WriteDurable, core::iter::once(buffer.id()), purpose);
}

/// The number of a write.
pub(super) fn pack(array: ArrayId, target: Target) -> u32 {
    let (kind, index) = match target {
        Target::Member(slot) => (0, slot),
        Target::Copy(copy) => (1, copy),
        Target::Drive => (2, 0),
        Target::Newcomer => (3, 0),
    };
    u32::from(array.0) << 16 | kind << 8 | u32::from(index)
}

/// Whose write it was.
pub(super) fn unpack(write: u32) -> (ArrayId, Target) {
    let index = write as u8;
    let target = match write >> 8 & 0xff {
        0 => Target::Member(index),
        1 => Target::Copy(index),
        2 => Target::Drive,
        _ => Target::Newcomer,
    };
    (ArrayId((write >> 16) as u16), target)
}

/// Takes back the buffers of a change that has ended, but for those that a device which was given up may still read.
pub(super) fn take_back(used: &mut Vec<Buffer>, spare: &mut Vec<Buffer>, operations: &Operations<Purpose>) {
    let mut at = 0;
    while at < used.len() {
        if operations.is_held(used[at].id()) {
            at += 1;
        } else {
            spare.push(used.swap_remove(at));
        }
    }
}
