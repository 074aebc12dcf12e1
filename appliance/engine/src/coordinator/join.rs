//! A drive takes the place of a member that is out. What every member keeps beside data is put on it first: the bitmap from
//! memory, the volume table from another member; then a superblock that nobody else knows of; and then it is proposed to all
//! (see [`super::proposal`]). Until that is in force the drive counts for nothing, whatever became of it: start-up leaves it
//! out. It has a new identity, so that whoever had the place before is known to be replaced.
//!
//! A drive that was a member and went out may come back with what it holds: all is the same, but that it keeps its layout, and that
//! only zones are walked over which it missed (`raid::away`). Should the preparation be cut, it bears nothing any more.
//!
//! Should the drive fail on the way it is given up, and with it the command that asked for it. What other members were told
//! of it meanwhile is then said anew without it.
//!
//! A drive that succeeds a member which is still in use ([`super::succession`]) is cleared before anything is copied to it, and
//! prepared in the same way once it is the member's like.

use base::ids::{ArrayId, DeviceBlock, DeviceId, Slot, StripeId};
use base::uuid::Uuid;
use ports::{Buffer, DeviceOp, Ports};
use raid::metadata::METADATA_BLOCKS;
use raid::{MemberEntry, MemberLayout, State, Superblock, Tables, ZoneBits, superblock_block};

use super::growth;
use super::persist::{Target, pack, take_back};
use super::proposal::Edit;
use super::{Change, Coordinated, Coordinator, Growing};
use crate::array::Purpose;
use crate::command::{Event, Refusal};
use crate::map::{Member, Service};
use crate::operations::Operations;

/// Buffers that one step takes.
pub(super) const JOIN_BLOCKS: usize = METADATA_BLOCKS;

/// A drive that may take a member's place. What it holds does not matter to anybody any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// The drive.
    pub device: DeviceId,
    /// How many blocks it has.
    pub blocks: u64,
    /// Random: its identity once it has the place.
    pub uuid: Uuid,
}

/// A drive that was asked for by name.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) slot: Slot,
    pub(super) spare: Spare,
    /// Who waits for the answer.
    pub(super) ticket: u64,
    /// What it says of itself, if it is to come back with what it holds.
    pub(super) said: Option<Box<Superblock>>,
}

/// How far the preparation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Both places of the superblock are cleared.
    Clear,
    /// A block of the bitmap of initialised zones is written.
    Bitmap(usize),
    /// A block of that of dirty zones is.
    Dirty(usize),
    /// A block of that of missed zones is.
    Missed(usize),
    /// A slot of the volume table is read from another member.
    ReadTable(usize),
    /// It is written.
    WriteTable(usize),
    /// The superblock is written.
    Superblock,
}

/// What a drive is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A place that has no member. Who asked for it waits for the answer.
    Join(Option<u64>),
    /// A place behind all others, for an array that then moves so many stripes at a time. Who asked for it waits for the answer.
    Grow { ticket: u64, window_stripes: u32 },
    /// To become a member's like: it is only cleared.
    Copy,
    /// The place of the member whose like it is.
    Succeed,
}

/// A drive that is being prepared.
#[derive(Debug)]
pub(super) struct Joining {
    step: Step,
    spare: Spare,
    slot: Slot,
    superblock: Superblock,
    way: Way,
    /// What it said of itself, if it comes back with what it holds.
    said: Option<Box<Superblock>>,
    /// Taken for as long as it lasts.
    buffers: Vec<Buffer>,
}

impl Joining {
    /// What it holds, for whoever ends it.
    pub(super) fn buffers(&mut self) -> &mut Vec<Buffer> {
        &mut self.buffers
    }

    pub(super) fn device(&self) -> DeviceId {
        self.spare.device
    }

    fn ticket(&self) -> Option<u64> {
        match self.way {
            Way::Join(ticket) => ticket,
            Way::Grow { ticket, .. } => Some(ticket),
            Way::Copy | Way::Succeed => None,
        }
    }
}

impl Coordinated {
    /// The drives that were given a place and are not told as members yet: they wait, are prepared or proposed.
    pub(super) fn joining(&self) -> impl Iterator<Item = DeviceId> {
        let asked = self.asked.iter().map(|asked| asked.spare.device);
        let (prepared, proposed) = match &self.change {
            Change::Joining(joining) => (Some(joining.device()), None),
            Change::Proposing(proposed) => (None, Some(&proposed.map.members)),
            _ => (None, None),
        };
        let pending = match &self.pending.edit {
            Some(Edit::Join(join) | Edit::Grow { join, .. }) => Some(join.member.device),
            _ => None,
        };
        let proposed = proposed.into_iter().flatten().flatten().map(|member| member.device);
        let is_new = |device: &DeviceId| self.array.map.slot_of(*device).is_none();
        let is_successor = |device: DeviceId| self.succession.as_ref().is_some_and(|one| one.device() == device);
        let asked = asked.chain(self.growth.as_ref().and_then(Growing::asked));
        let all = asked.chain(prepared).chain(pending).chain(proposed.filter(is_new));
        all.filter(move |&device| !is_successor(device))
    }
}

impl Coordinator {
    /// Looks whether a drive can take a place.
    pub(super) fn may_join(&self, id: ArrayId, slot: Slot, spare: &Spare) -> Result<(), Refusal> {
        let array = &self.arrays[id.index()];
        let map = &array.array.map;
        if map.members.get(slot.index()).is_none_or(Option::is_some) {
            return Err(Refusal::Taken);
        }
        if map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        self.fits(id, spare)
    }

    /// Looks whether a drive that says this of itself lacks nothing beside missed zones; for which slot.
    pub(super) fn may_return(&self, id: ArrayId, said: &Superblock) -> Result<Slot, Refusal> {
        let array = &self.arrays[id.index()];
        let here = array.array.superblocks.iter().flatten().next().ok_or(Refusal::Down)?;
        raid::may_return(said, here, &array.tables).map_err(Refusal::NoReturn)
    }

    /// Refuses a drive that is too small.
    pub(super) fn fits(&self, id: ArrayId, spare: &Spare) -> Result<(), Refusal> {
        if self.layout_on(id, spare).is_some() { Ok(()) } else { Err(Refusal::TooSmall) }
    }

    pub(super) fn layout_on(&self, id: ArrayId, spare: &Spare) -> Option<MemberLayout> {
        let map = &self.arrays[id.index()].array.map;
        let geometry = map.arrangement.geometry();
        let layout = MemberLayout::for_device(spare.blocks, geometry.zone_stripes(), map.checksums).ok()?;
        (layout.data.blocks >= geometry.stripes()).then_some(layout)
    }

    /// Takes a spare for a place that has no member, if there are both; whether it was so.
    pub(super) fn take_spare<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
    ) -> bool {
        let array = &self.arrays[id.index()];
        let map = &array.array.map;
        if self.stopping || map.service != Service::ReadWrite || !array.is_at_rest() {
            return false;
        }
        if operations.available() <= JOIN_BLOCKS || self.spare.len() < JOIN_BLOCKS {
            return false;
        }
        // What was given up at a drive must not come behind what is written to it now.
        let is_settled = |spare: &Spare| !operations.is_writing(spare.device);
        // Who was asked for by name comes first.
        let (slot, spare, ticket, said) = if let Some(asked) = array.asked.front() {
            if !is_settled(&asked.spare) {
                return false;
            }
            let asked = self.arrays[id.index()].asked.pop_front();
            let Asked { slot, spare, ticket, said } = asked.expect("it was there just now");
            let may_return = said.as_ref().map_or(Ok(slot), |said| self.may_return(id, said));
            if let Err(refusal) = may_return.and_then(|slot| self.may_join(id, slot, &spare)) {
                self.answer(ticket, Err(refusal));
                return true;
            }
            (slot, spare, Some(ticket), said)
        } else {
            let Some(slot) = map.members.iter().position(Option::is_none) else { return false };
            let slot = Slot(slot as u8);
            let spares = &array.array.spares;
            let fits = |spare: &Spare| self.layout_on(id, spare).is_some() && is_settled(spare);
            let Some(at) = spares.iter().position(fits) else { return false };
            (slot, self.arrays[id.index()].array.spares.remove(at), None, None)
        };
        self.begin_to_prepare(ports, operations, id, (slot, spare, Way::Join(ticket)), said);
        true
    }

    /// Begins to prepare a drive that fits. The caller has seen that there are buffers and operations.
    pub(super) fn begin_to_prepare<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        (slot, spare, way): (Slot, Spare, Way),
        said: Option<Box<Superblock>>,
    ) {
        // What it holds stays where it is.
        let layout = said.as_ref().map(|said| said.layout).or_else(|| self.layout_on(id, &spare));
        let layout = layout.expect("it was looked at before");
        let array = &self.arrays[id.index()];
        let any = array.array.superblocks.iter().flatten().next().expect("an array that is served has members");
        let superblock = Superblock { slot: slot.0, layout, update: 0, later_regions: Vec::new(), ..any.clone() };
        let joining = Joining {
            step: Step::Clear,
            spare,
            slot,
            superblock,
            way,
            said,
            buffers: self.spare.split_off(self.spare.len() - JOIN_BLOCKS),
        };
        self.prepare_drive(ports, operations, id, joining);
    }

    /// Takes the next step after the one that has ended.
    pub(super) fn go_on_joining<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        mut joining: Joining,
        failed: bool,
    ) {
        let array = &mut self.arrays[id.index()];
        let has_ended = joining.step == Step::Superblock || joining.way == Way::Copy;
        if has_ended || failed || self.stopping {
            // The drive may still read some, if it was given up.
            array.buffers.append(&mut joining.buffers);
            take_back(&mut array.buffers, &mut self.spare, operations);
        }
        if self.stopping {
            if let Some(ticket) = joining.ticket() {
                self.answer(ticket, Err(Refusal::Stopping));
            }
            return;
        }
        if core::mem::take(&mut array.drive_failed) {
            match joining.way {
                Way::Join(ticket) => self.give_up(id, joining.spare.device, ticket),
                Way::Grow { ticket, .. } => {
                    self.growth_refused(id);
                    self.give_up(id, joining.spare.device, Some(ticket));
                }
                Way::Copy | Way::Succeed => self.successor_failed(id),
            }
            return;
        }
        if failed {
            // Another member, which is on its way out: then from the beginning.
            match joining.way {
                Way::Join(Some(ticket)) => {
                    let Joining { slot, spare, said, .. } = joining;
                    array.asked.push_front(Asked { slot, spare, ticket, said });
                }
                Way::Join(None) => array.array.spares.insert(0, joining.spare),
                Way::Grow { ticket, .. } => self.prepare_to_grow_again(id, joining.spare, ticket),
                Way::Copy | Way::Succeed => self.prepare_successor_again(id),
            }
            return;
        }
        if joining.way == Way::Copy {
            self.successor_cleared(id);
            return;
        }
        let bitmap_blocks = ZoneBits::blocks_for(array.array.map.arrangement.zones()) as usize;
        joining.step = match joining.step {
            Step::Clear => Step::Bitmap(0),
            Step::Bitmap(block) => Step::Dirty(block),
            Step::Dirty(block) => Step::Missed(block),
            Step::Missed(block) if block + 1 < bitmap_blocks => Step::Bitmap(block + 1),
            Step::Missed(_) => Step::ReadTable(0),
            Step::ReadTable(slot) => Step::WriteTable(slot),
            Step::WriteTable(0) => Step::ReadTable(1),
            Step::WriteTable(_) => Step::Superblock,
            Step::Superblock => {
                let ticket = joining.ticket();
                let Joining { spare, slot, superblock, way, said, .. } = joining;
                let data_start = DeviceBlock(superblock.layout.data.start);
                let checksums = superblock.layout.checksums.map(|region| DeviceBlock(region.start));
                let position = if matches!(way, Way::Join(_)) { Some(StripeId(0)) } else { None };
                let member = Member { device: spare.device, data_start, checksums, position };
                let (uuid, returns) = (spare.uuid, said.is_some());
                let join = Box::new(Join { slot, uuid, member, superblock, ticket, returns, before: None });
                let edit = match way {
                    Way::Succeed => Edit::Succeed(join),
                    Way::Grow { window_stripes, .. } => Edit::Grow { join, window_stripes },
                    Way::Join(_) | Way::Copy => Edit::Join(join),
                };
                array.pending.edit = Some(edit);
                return;
            }
        };
        self.prepare_drive(ports, operations, id, joining);
    }

    /// Carries out a step of the preparation.
    fn prepare_drive<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        mut joining: Joining,
    ) {
        let array = &mut self.arrays[id.index()];
        let (device, layout) = (joining.spare.device, joining.superblock.layout);
        let count = match joining.step {
            Step::Clear => 2,
            Step::Bitmap(_) | Step::Dirty(_) | Step::Missed(_) | Step::Superblock => 1,
            Step::ReadTable(_) | Step::WriteTable(_) => METADATA_BLOCKS,
        };
        operations.watch(device, array.array.drives.timeout);
        let buffers = &joining.buffers[..count];
        let mut target = Target::Drive;
        let mut op = DeviceOp::WriteDurable;
        let place = match joining.step {
            Step::Clear => {
                buffers.iter().for_each(|buffer| ports.bytes_mut(buffer.id()).fill(0));
                (device, superblock_block(0))
            }
            Step::Bitmap(block) => {
                let initialised = &array.array.initialised;
                initialised.encode(block, ports.bytes_mut(buffers[0].id()));
                (device, layout.bitmap_block(block, initialised.slot(block)))
            }
            Step::Dirty(block) => {
                let dirty = &array.array.dirty;
                dirty.encode(block, ports.bytes_mut(buffers[0].id()));
                (device, layout.dirty_block(block, dirty.slot(block)).expect("a new member keeps them"))
            }
            Step::Missed(block) => {
                let missed = &array.array.missed;
                missed.encode(block, ports.bytes_mut(buffers[0].id()));
                (device, layout.missed_block(block, missed.slot(block)).expect("a new member keeps them"))
            }
            Step::ReadTable(slot) => {
                let whole = (0u8..).zip(&array.array.map.members).zip(&array.array.superblocks);
                let mut whole = whole.filter_map(|((at, member), superblock)| {
                    let member = member.as_ref().filter(|member| member.position.is_none())?;
                    Some((at, member.device, superblock.as_ref()?.layout))
                });
                let (at, source, layout) = whole.next().expect("an array that is written has whole members");
                (target, op) = (Target::Member(at), DeviceOp::Read);
                (source, layout.metadata_block(slot))
            }
            Step::WriteTable(slot) => (device, layout.metadata_block(slot)),
            Step::Superblock => {
                array.epoch += 1;
                let mut tables = array.tables.clone();
                if let Way::Grow { window_stripes, .. } = joining.way {
                    // By its own word it is nobody yet.
                    let (uuid, state) = (joining.spare.uuid, State::Rebuilding { position: 0 });
                    growth::seat(&mut tables, MemberEntry { uuid, state }, window_stripes);
                } else {
                    seat(&mut tables, joining.slot, joining.spare.uuid, joining.said.is_some());
                }
                joining.superblock.renew(array.epoch, &tables);
                joining.superblock.encode(ports.bytes_mut(buffers[0].id()));
                (device, superblock_block(joining.superblock.update))
            }
        };
        let purpose = Purpose::Coordinator { write: pack(id, target) };
        operations.start(ports, place, op, buffers.iter().map(Buffer::id), purpose);
        array.unanswered += 1;
        array.change = Change::Joining(Box::new(joining));
    }

    /// A drive did not do what it should while it was prepared: nobody needs it.
    pub(super) fn give_up(&mut self, id: ArrayId, device: DeviceId, ticket: Option<u64>) {
        self.tell(Event::DriveRefused { array: id, device });
        if let Some(ticket) = ticket {
            self.answer(ticket, Err(Refusal::DriveFailed));
        }
    }
}

/// A drive on its way into all superblocks.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub(super) slot: Slot,
    pub(super) uuid: Uuid,
    pub(super) member: Member,
    /// What it bears.
    pub(super) superblock: Superblock,
    pub(super) ticket: Option<u64>,
    /// Whether it was a member before and lacks nothing beside missed zones.
    pub(super) returns: bool,
    /// What the member bore whose place it takes, for as long as it may have to be said again.
    pub(super) before: Option<Superblock>,
}

/// Gives a place to a drive that has just come. `returns`: it lacks nothing beside missed zones.
pub(super) fn seat(tables: &mut Tables, slot: Slot, uuid: Uuid, returns: bool) {
    tables.members[slot.index()] = MemberEntry { uuid, state: State::Rebuilding { position: 0 } };
    if returns && let Some(away) = &mut tables.away {
        away.returning |= 1 << slot.0;
    }
}

const _: () = assert!(JOIN_BLOCKS <= ports::MAX_DEVICE_BLOCKS);
