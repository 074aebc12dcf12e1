//! A device becomes a copy of the log while hosts write. What it held is erased first, be it a copy of this very log from an
//! earlier time, and it gets a superblock that says *joining*. Then all shards send it what they log from then on, and say when
//! it has all that their lanes need ([`crate::array`]'s `newcomer`). Last, it is proposed to all as a copy like the others, in a
//! new epoch, perhaps in the stead of another one, which goes in the same step.
//!
//! Until a member's superblock names it nobody reads it, whatever became of it; and whoever is named had everything before that,
//! and gets whatever is logged until an epoch without it is in force. So a crash leaves it either out or complete. Should it
//! fail on the way, it leaves in an epoch of its own, since some may have been told of it already.
//!
//! All of this goes on beside other changes of the array; only being proposed is one.
//!
//! *The first copy*, of an array that never had a log or whose log was given up, brings the log: an empty one, with as many lanes
//! as the array has, and the device's size. Nothing was ever logged that it could lack; instead hosts' writes wait until all that
//! is under way is on the members for good, and no zone is noted as dirty that matches ([`crate::array`]'s `hold`). A crash finds
//! an array without a log, or one whose log is empty, and both are true.
//!
//! *A larger log* ([`renew`]) comes in the same way where there is one: several devices are prepared one after the other, and become
//! its copies in the one step in which all former ones go.

mod renew;

use base::ids::{ArrayId, DeviceBlock, DeviceId, LaneId};
use base::uuid::Uuid;
use journal::{LogIdentity, LogLayout, LogSuperblock, MAX_COPIES, format_lane, slot_of};
use ports::{Buffer, DeviceOp, Ports};

use super::join::Spare;
use super::persist::{Target, pack};
use super::proposal::Edit;
use super::{Change, Coordinated, Coordinator};
use crate::array::{FORMAT_EPOCH, Purpose};
use crate::command::{Event, Refusal};
use crate::limits::ERASE_BLOCKS;
use crate::map::{ArrayMap, Newcomer, Service};
use crate::operations::Operations;
use crate::status::AttachStatus;

/// Buffers that preparing a device takes.
pub(super) const ATTACH_BLOCKS: usize = 2;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Both places of the superblock are to be cleared.
    Clear,
    /// Anchors and rings are to be erased from this block on.
    Erase(u64),
    /// Of a log that begins: so many blocks of its lanes are written.
    Format(u32),
    /// That is to be made durable.
    Flush,
    /// The superblock that says *joining* is to be written.
    Superblock,
    /// The shards are to be told.
    Tell,
    /// So many shards have lanes with more in the log than the device has.
    CatchingUp(u16),
    /// It is proposed as a copy.
    Proposed,
}

/// A device on its way.
#[derive(Debug)]
pub(super) struct Attaching {
    newcomer: Newcomer,
    uuid: Uuid,
    /// Copies, as a bit mask, in whose stead it comes.
    instead: u32,
    ticket: u64,
    superblock: LogSuperblock,
    /// Whether a log begins with it.
    first: bool,
    /// Those of the same log that are prepared, and those that are still to be.
    ready: Vec<Comer>,
    rest: Vec<Spare>,
    step: Step,
    /// Whether an operation of the preparation is under way, and whether one has failed.
    under_way: bool,
    failed: bool,
    /// Taken for the preparation.
    buffers: Vec<Buffer>,
}

/// A device that has been prepared.
#[derive(Clone, Debug)]
pub(super) struct Comer {
    pub(super) newcomer: Newcomer,
    pub(super) uuid: Uuid,
    /// What it will bear.
    pub(super) superblock: LogSuperblock,
}

/// Devices on their way into all superblocks: one, or all of a log that is renewed.
#[derive(Clone, Debug)]
pub(super) struct Attach {
    pub(super) comers: Vec<Comer>,
    pub(super) instead: u32,
    /// Whether a log begins with them.
    pub(super) first: bool,
}

impl Attach {
    /// The places that they come to, as a bit mask.
    pub(super) fn places(&self) -> u32 {
        self.comers.iter().fold(0, |mask, comer| mask | 1 << comer.newcomer.copy)
    }
}

impl Attaching {
    /// Devices that come to the places from `copy` on, as copies of a log whose superblocks are like this one; with `first` it begins
    /// with them.
    fn new(
        (run, copy): (u32, u8),
        mut devices: Vec<Spare>,
        instead: u32,
        ticket: u64,
        like: &LogSuperblock,
        first: bool,
    ) -> Self {
        let copy_count = like.copy_count.max(u16::from(copy) + devices.len() as u16);
        let device = devices.remove(0);
        Self {
            newcomer: Newcomer { copy, device: device.device, run },
            uuid: device.uuid,
            instead,
            ticket,
            superblock: LogSuperblock {
                copy: device.uuid,
                copy_index: u16::from(copy),
                copy_count,
                joining: true,
                update: 1,
                later_regions: Vec::new(),
                ..*like
            },
            first,
            ready: Vec::new(),
            rest: devices,
            step: Step::Clear,
            under_way: false,
            failed: false,
            buffers: Vec::with_capacity(ATTACH_BLOCKS),
        }
    }

    /// Whether a device is one of them.
    pub(super) fn uses(&self, device: DeviceId) -> bool {
        let ready = self.ready.iter().map(|comer| comer.newcomer.device);
        ready.chain(self.rest.iter().map(|spare| spare.device)).chain([self.newcomer.device]).any(|one| one == device)
    }

    /// Whether a log begins with them.
    pub(super) const fn begins_log(&self) -> bool {
        self.first
    }

    /// What it holds, for whoever ends it.
    pub(super) const fn buffers(&mut self) -> &mut Vec<Buffer> {
        &mut self.buffers
    }

    /// An operation of the preparation has ended.
    pub(super) const fn answered(&mut self, succeeded: bool) {
        self.under_way = false;
        self.failed |= !succeeded;
    }

    /// Whether shards log to it already.
    const fn is_told(&self) -> bool {
        matches!(self.step, Step::CatchingUp(_) | Step::Proposed)
    }
}

/// The place for a new copy of the log: one that misses its copy, one that is free, or a further one.
fn place_in(map: &ArrayMap) -> Option<u8> {
    let empty = (0u8..).zip(&map.copies).filter(|(_, copy)| copy.is_none()).map(|(at, _)| at);
    let further = (map.copies.len() < MAX_COPIES).then_some(map.copies.len() as u8);
    map.missing_copies().chain(empty).chain(further).next()
}

impl Coordinated {
    /// Refuses devices for the log at a bad time; with `first` for one that begins.
    fn may_attach(&self, first: bool) -> Result<(), Refusal> {
        if self.array.map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        if self.attaching.is_some() || self.parting.is_some() {
            return Err(Refusal::Busy);
        }
        // A log that begins stands for all zones.
        if first && self.resync.is_some() {
            return Err(Refusal::Unsynced);
        }
        Ok(())
    }

    /// The log as its copies have it, for a further one on a device of so many blocks.
    fn log_as_it_is(&self, blocks: u64) -> Result<LogSuperblock, Refusal> {
        let need = self.array.map.log_layout.device_blocks();
        if blocks < need {
            return Err(Refusal::LogTooSmall { need });
        }
        self.array.log_superblocks.iter().flatten().next().cloned().ok_or(Refusal::NoLog)
    }

    /// A log that begins, on a device of so many blocks: with the lanes that the array has.
    fn new_log(&self, blocks: u64) -> Result<LogSuperblock, Refusal> {
        let map = &self.array.map;
        let lanes = map.log_layout.lanes();
        let too_small = |_| Refusal::LogTooSmall { need: LogLayout::minimum_device_blocks(lanes) };
        let layout = LogLayout::for_device(blocks, lanes).map_err(too_small)?;
        let member = self.array.superblocks.iter().flatten().next().ok_or(Refusal::Down)?;
        Ok(LogSuperblock {
            identity: LogIdentity { array: map.uuid, generation: member.log_generation },
            compatible: 0,
            copy: Uuid::NIL,
            copy_index: 0,
            copy_count: map.copies.len() as u16,
            epoch: map.epoch,
            members: map.arrangement.geometry().all_members() & !map.missing(),
            member_uuids: raid::member_uuids(&self.tables.members),
            geometry_epoch: map.geometry_epoch,
            incarnation: map.incarnation + 1,
            mode: map.mode.into(),
            joining: true,
            update: 1,
            layout,
            later_regions: Vec::new(),
        })
    }
}

impl Coordinator {
    /// Begins to make a device a copy of the log, in the stead of another if one is named.
    pub(super) fn attach(
        &mut self,
        id: ArrayId,
        device: Spare,
        instead: Option<u8>,
        ticket: u64,
    ) -> Result<(), Refusal> {
        self.is_unused(device.device)?;
        self.next_run += 1;
        let run = self.next_run;
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        let first = map.is_bare();
        array.may_attach(first)?;
        if instead.is_some_and(|copy| map.copies.get(usize::from(copy)).is_none_or(Option::is_none)) {
            return Err(Refusal::NotInUse);
        }
        let copy = place_in(map).ok_or(Refusal::TooManyCopies)?;
        let like = if first { array.new_log(device.blocks)? } else { array.log_as_it_is(device.blocks)? };
        let instead = instead.map_or(0, |copy| 1 << copy);
        array.attaching = Some(Attaching::new((run, copy), vec![device], instead, ticket, &like, first));
        Ok(())
    }

    /// Takes the next step with the device that is to become a copy, if it can be taken now; whether it was.
    pub(super) fn go_on_attaching<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
    ) -> bool {
        let array = &mut self.arrays[id.index()];
        let (is_at_rest, is_proposing) = (array.is_at_rest(), matches!(array.change, Change::Proposing(_)));
        let refuses_hold = array.refuses_hold(self.stopping, ports.now());
        let Some(attaching) = array.attaching.as_mut().filter(|attaching| !attaching.under_way) else { return false };
        if !attaching.is_told() && (self.stopping || attaching.failed || array.array.map.service != Service::ReadWrite)
        {
            attaching.unwatch(operations);
            self.end_attaching(id, if self.stopping { Refusal::Stopping } else { Refusal::DriveFailed });
            return true;
        }
        // It may have been a copy before: what was given up at it must not come behind what is written to it now.
        if attaching.step == Step::Clear && operations.is_writing(attaching.newcomer.device) {
            return false;
        }
        match attaching.step {
            Step::Clear | Step::Erase(_) | Step::Format(_) | Step::Flush | Step::Superblock => {
                self.prepare_newcomer(ports, operations, id)
            }
            Step::Tell if !attaching.rest.is_empty() => {
                attaching.prepare_next();
                true
            }
            Step::Tell if !is_proposing => {
                attaching.step = Step::CatchingUp(self.shards);
                let newcomer = attaching.newcomer;
                if attaching.first {
                    self.hold(ports, id, Some(newcomer.run));
                } else {
                    let map = ArrayMap { newcomer: Some(newcomer), ..ArrayMap::clone(&array.array.map) };
                    self.tell_map(ports, id, map);
                }
                true
            }
            Step::CatchingUp(_) if !is_proposing && let Some(refusal) = refuses_hold.filter(|_| attaching.first) => {
                attaching.unwatch(operations);
                self.hold(ports, id, None);
                self.end_attaching(id, refusal);
                true
            }
            // With what the shards said of their zones before.
            Step::CatchingUp(0) if is_at_rest && array.pending_dirty.is_empty() && !self.stopping => {
                attaching.step = Step::Proposed;
                let (instead, first) = (attaching.instead, attaching.first);
                let attach = Attach { comers: attaching.comers(), instead, first };
                array.pending.edit = Some(Edit::Attach(Box::new(attach)));
                true
            }
            Step::Tell | Step::CatchingUp(_) | Step::Proposed => false,
        }
    }

    /// Starts an operation of the preparation.
    fn prepare_newcomer<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) -> bool {
        let array = &mut self.arrays[id.index()];
        let attaching = array.attaching.as_mut().expect("the caller has seen it");
        if operations.available() == 0 || self.spare.len() + attaching.buffers.len() < ATTACH_BLOCKS {
            return false;
        }
        while attaching.buffers.len() < ATTACH_BLOCKS {
            attaching.buffers.push(self.spare.pop().expect("enough were counted"));
        }
        let layout = attaching.superblock.layout;
        let end = layout.device_blocks();
        let (op, start, count) = match attaching.step {
            Step::Erase(from) => {
                let blocks = (end - from).min(ERASE_BLOCKS);
                attaching.step = match (from + blocks < end, attaching.first) {
                    (true, _) => Step::Erase(from + blocks),
                    (false, true) => Step::Format(0),
                    (false, false) => Step::Flush,
                };
                (DeviceOp::WriteZeroes(blocks as u32), DeviceBlock(from), 0)
            }
            Step::Format(written) => {
                let lane = LaneId(written as u16 / 2);
                let LogSuperblock { identity, incarnation, geometry_epoch, .. } = &attaching.superblock;
                let (blocks, _) = format_lane(&layout, identity, lane, *incarnation, FORMAT_EPOCH, *geometry_epoch);
                let (place, block) = &blocks[written as usize % 2];
                ports.bytes_mut(attaching.buffers[0].id()).copy_from_slice(block);
                let is_last = written + 1 == 2 * u32::from(layout.lanes());
                attaching.step = if is_last { Step::Flush } else { Step::Format(written + 1) };
                (DeviceOp::WriteDurable, *place, 1)
            }
            Step::Flush => {
                attaching.step = Step::Superblock;
                (DeviceOp::Flush, DeviceBlock(0), 0)
            }
            Step::Superblock => {
                attaching.step = Step::Tell;
                let superblock = &attaching.superblock;
                superblock.encode(ports.bytes_mut(attaching.buffers[0].id()));
                (DeviceOp::WriteDurable, LogLayout::superblock_block(slot_of(superblock.update)), 1)
            }
            _ => {
                operations.watch(attaching.newcomer.device, array.array.log_patience);
                attaching.step = Step::Erase(layout.anchors().0.min(layout.rings().0));
                attaching.buffers.iter().for_each(|buffer| ports.bytes_mut(buffer.id()).fill(0));
                (DeviceOp::WriteDurable, LogLayout::superblock_block(0), ATTACH_BLOCKS)
            }
        };
        attaching.under_way = true;
        let purpose = Purpose::Coordinator { write: pack(id, Target::Newcomer) };
        let buffers = attaching.buffers[..count].iter().map(Buffer::id);
        operations.start(ports, (attaching.newcomer.device, start), op, buffers, purpose);
        true
    }

    /// A shard's lanes need nothing any more that the newcomer of this number lacks.
    pub(super) fn caught_up(&mut self, id: ArrayId, run: u32) {
        let attaching = self.arrays[id.index()].attaching.as_mut();
        if let Some(attaching) = attaching.filter(|attaching| attaching.newcomer.run == run)
            && let Step::CatchingUp(shards) = &mut attaching.step
        {
            *shards -= 1;
        }
    }

    /// A map is in force: perhaps the newcomer is a copy by it, or no shard logs to it any more.
    pub(super) fn newcomer_published(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        let Some(attaching) = array.attaching.as_ref().filter(|attaching| attaching.is_told()) else { return };
        let Newcomer { copy, device, .. } = attaching.newcomer;
        if map.copies.get(usize::from(copy)) == Some(&Some(device)) {
            let mut attaching = array.attaching.take().expect("it was there just now");
            array.buffers.append(attaching.buffers());
            for Comer { newcomer: Newcomer { copy, device, .. }, .. } in attaching.comers() {
                self.tell(Event::Attached { array: id, copy, device });
            }
            self.answer(attaching.ticket, Ok(()));
        } else if map.newcomer.is_none() && map.hold.is_none() {
            let down = map.service != Service::ReadWrite;
            self.end_attaching(id, if down { Refusal::Down } else { Refusal::DriveFailed });
        }
    }

    /// It does not become a copy.
    fn end_attaching(&mut self, id: ArrayId, refusal: Refusal) {
        let array = &mut self.arrays[id.index()];
        let mut attaching = array.attaching.take().expect("the caller has seen it");
        // A device that was given up may still read them.
        array.buffers.append(attaching.buffers());
        if refusal == Refusal::DriveFailed {
            self.tell(Event::DriveRefused { array: id, device: attaching.newcomer.device });
        }
        self.answer(attaching.ticket, Err(refusal));
    }

    /// How far the device is that is to become a copy of an array's log.
    pub(crate) fn attach_status(&self, id: ArrayId) -> Option<AttachStatus> {
        let attaching = self.arrays[id.index()].attaching.as_ref()?;
        let blocks = attaching.superblock.layout.device_blocks();
        let (erased_blocks, shards_behind) = match attaching.step {
            Step::Clear => (0, self.shards),
            Step::Erase(from) => (from, self.shards),
            Step::Format(_) => (blocks, self.shards),
            Step::CatchingUp(shards) => (blocks, shards),
            Step::Flush | Step::Superblock | Step::Tell => (blocks, self.shards),
            Step::Proposed => (blocks, 0),
        };
        let Newcomer { copy, device, .. } = attaching.newcomer;
        Some(AttachStatus { copy, device, erased_blocks, blocks, shards_behind })
    }
}

const _: () = assert!(ATTACH_BLOCKS == 2, "one for each place of the superblock");
