//! What changes for all shards at once, on shard 0 alone: members and log copies are excluded, zones become initialised,
//! the appliance stops. A change is made durable first and told afterwards, so that nothing is ever acknowledged that relies
//! on an exclusion a crash could take back (rule L6).
//!
//! An array has at most one change under way. An exclusion is written to every member and copy that stays, with the epoch
//! raised by one; whoever fails that write is excluded too, in a further epoch. Losing the last log copy, or more members
//! than the level bears, is not recorded: nothing will be acknowledged that relies on it, and the devices may come back
//! whole.

mod commands;

use std::collections::VecDeque;
use std::sync::Arc;

use base::ids::{ArrayId, DeviceBlock, DeviceId, ShardId, Slot, ZoneId};
use journal::{LogLayout, LogSuperblock, slot_of};
use ports::{Buffer, DeviceOp, Ports};
use raid::{Initialised, Superblock};

use crate::array::Purpose;
use crate::command::Event;
use crate::limits::MAX_NEWS;
use crate::map::{ArrayMap, Service};
use crate::message::Message;
use crate::operations::Operations;
use commands::Waiting;

/// What the coordinator keeps of an array beside its map.
#[derive(Clone, Debug)]
pub struct CoordinatedArray {
    /// The map in force.
    pub map: Arc<ArrayMap>,
    /// The member superblocks by slot; none where the member is missing.
    pub superblocks: Vec<Option<Superblock>>,
    /// The log copies' superblocks.
    pub log_superblocks: Vec<Option<LogSuperblock>>,
    /// Which zones are initialised.
    pub initialised: Initialised,
}

/// What the coordinator is made of.
#[derive(Debug)]
pub struct CoordinatorSetup {
    /// How many shards there are.
    pub shards: u16,
    /// All arrays, by [`ArrayId`].
    pub arrays: Vec<CoordinatedArray>,
}

/// Whom a write goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Member(u8),
    Copy(u8),
}

/// The change under way.
#[derive(Debug)]
enum Change {
    None,
    /// Superblocks without these members and copies are being written.
    Excluding {
        members: u32,
        copies: u32,
    },
    /// A block of the bitmap is being written.
    Recording,
}

#[derive(Debug)]
struct Coordinated {
    array: CoordinatedArray,
    /// The highest epoch that was written anywhere: none is ever written with two contents.
    epoch: u64,
    change: Change,
    unanswered: u32,
    failed: bool,
    buffers: Vec<Buffer>,
    /// Reported, and not excluded yet.
    pending_members: u32,
    pending_copies: u32,
    /// Zeroed, with the bit still to be made durable: who asked, and whether the write under way carries it.
    pending_zones: VecDeque<(ShardId, ZoneId)>,
    recording_zones: Vec<(ShardId, ZoneId)>,
    /// Commands that wait for an exclusion.
    waiting: Vec<Waiting>,
}

/// The coordinator.
#[derive(Debug)]
pub struct Coordinator {
    shards: u16,
    arrays: Vec<Coordinated>,
    messages: VecDeque<(ShardId, Message)>,
    /// Answers and news for the control side.
    news: VecDeque<Message>,
    /// News that found no place.
    lost_news: u64,
    stopping: bool,
    closed: u16,
    spare: Vec<Buffer>,
}

impl Coordinator {
    /// A coordinator of arrays as start-up left them.
    pub fn new(setup: CoordinatorSetup) -> Self {
        let arrays = setup.arrays.into_iter().map(|array| Coordinated {
            epoch: array.map.epoch,
            array,
            change: Change::None,
            unanswered: 0,
            failed: false,
            buffers: Vec::with_capacity(64),
            pending_members: 0,
            pending_copies: 0,
            pending_zones: VecDeque::with_capacity(64),
            recording_zones: Vec::with_capacity(64),
            waiting: Vec::new(),
        });
        Self {
            shards: setup.shards,
            arrays: arrays.collect(),
            messages: VecDeque::with_capacity(64),
            news: VecDeque::with_capacity(MAX_NEWS),
            lost_news: 0,
            stopping: false,
            closed: 0,
            spare: Vec::new(),
        }
    }

    /// Buffers that it sets aside: one for each member and copy of each array.
    pub fn set_aside_blocks(maps: &[Arc<ArrayMap>]) -> usize {
        maps.iter().map(|map| map.members.len() + map.copies.len()).sum()
    }

    pub(crate) fn prepare<P: Ports>(&mut self, ports: &mut P) {
        let places = |array: &Coordinated| array.array.superblocks.len() + array.array.log_superblocks.len();
        let wanted: usize = self.arrays.iter().map(places).sum();
        while self.spare.len() < wanted {
            self.spare.push(ports.alloc().expect("the pool was sized with what the coordinator sets aside"));
        }
    }

    pub(crate) fn release<P: Ports>(&mut self, ports: &mut P) {
        let used = self.arrays.iter_mut().flat_map(|array| array.buffers.drain(..));
        for buffer in used.chain(self.spare.drain(..)) {
            ports.free(buffer);
        }
    }

    /// Takes a report or a request of a shard.
    pub(crate) fn message(&mut self, from: ShardId, message: Message) {
        match message {
            Message::MemberFailed { array, slot } => {
                let array = &mut self.arrays[array.index()];
                if array.array.map.members[slot.index()].is_some() {
                    array.pending_members |= 1 << slot.0;
                }
            }
            Message::CopyFailed { array, copy } => {
                let array = &mut self.arrays[array.index()];
                if array.array.map.copies[usize::from(copy)].is_some() {
                    array.pending_copies |= 1 << copy;
                }
            }
            Message::ZoneZeroed { array, zone } => {
                self.arrays[array.index()].pending_zones.push_back((from, zone));
            }
            Message::Command(command) => self.command(&command),
            Message::LanesClosed => {
                self.closed += 1;
                if self.closed == self.shards {
                    self.tell_all(|| Message::End);
                }
            }
            other => unreachable!("not for the coordinator: {other:?}"),
        }
    }

    /// Tells the other shards to stop.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        for shard in (1..self.shards).map(ShardId) {
            self.messages.push_back((shard, Message::Stop));
        }
    }

    fn tell_all(&mut self, message: impl Fn() -> Message) {
        for shard in (0..self.shards).map(ShardId) {
            self.messages.push_back((shard, message()));
        }
    }

    /// The next message to a shard, also to its own.
    pub(crate) fn next_message(&mut self) -> Option<(ShardId, Message)> {
        self.messages.pop_front()
    }

    /// A message found no room: it is the next one again.
    pub(crate) fn take_back(&mut self, to: ShardId, message: Message) {
        self.messages.push_front((to, message));
    }

    /// Takes the end of one of its writes.
    pub(crate) fn completed(&mut self, write: u32, succeeded: bool) {
        let (array, target) = unpack(write);
        let array = &mut self.arrays[array.index()];
        array.unanswered -= 1;
        if !succeeded {
            array.failed = true;
            match target {
                Target::Member(slot) => array.pending_members |= 1 << slot,
                Target::Copy(copy) => array.pending_copies |= 1 << copy,
            }
        }
    }

    /// Ends and begins changes; whether anything was done.
    pub(crate) fn maintain<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>) -> bool {
        let mut worked = false;
        for index in 0..self.arrays.len() {
            let id = ArrayId(index as u16);
            let array = &mut self.arrays[index];
            if array.unanswered == 0 && !matches!(array.change, Change::None) {
                worked = true;
                self.spare.append(&mut array.buffers);
                let change = core::mem::replace(&mut array.change, Change::None);
                let failed = core::mem::take(&mut array.failed);
                self.end(id, &change, failed);
            }
            let array = &mut self.arrays[index];
            if matches!(array.change, Change::None) {
                let places = array.array.superblocks.len() + array.array.log_superblocks.len();
                if array.pending_members != 0 || array.pending_copies != 0 {
                    if operations.available() > places && self.spare.len() >= places {
                        self.exclude(ports, operations, id);
                        worked = true;
                    }
                } else if !array.pending_zones.is_empty()
                    && operations.available() > places
                    && self.spare.len() >= places
                {
                    self.record_zones(ports, operations, id);
                    worked = true;
                }
            }
        }
        worked
    }

    fn end(&mut self, id: ArrayId, change: &Change, failed: bool) {
        let array = &mut self.arrays[id.index()];
        match *change {
            Change::None => {}
            // Whoever failed is excluded in the next step, and these with it: nothing was told yet.
            Change::Excluding { members, copies } if failed => {
                array.pending_members |= members;
                array.pending_copies |= copies;
            }
            Change::Excluding { members, copies } => self.publish(id, members, copies),
            Change::Recording if failed => array.pending_zones.extend(array.recording_zones.drain(..)),
            Change::Recording => {
                for (shard, zone) in array.recording_zones.drain(..) {
                    self.messages.push_back((shard, Message::ZoneInitialised { array: id, zone }));
                }
            }
        }
    }

    /// Tells all shards of a new epoch without these members and copies.
    fn publish(&mut self, id: ArrayId, members: u32, copies: u32) {
        let array = &mut self.arrays[id.index()];
        let mut map = (*array.array.map).clone();
        array.epoch = array.epoch.max(map.epoch + 1);
        map.epoch = array.epoch;
        for slot in (0..map.members.len()).filter(|slot| members & 1 << slot != 0) {
            map.members[slot] = None;
            array.array.superblocks[slot] = None;
        }
        for copy in (0..map.copies.len()).filter(|copy| copies & 1 << copy != 0) {
            map.copies[copy] = None;
            array.array.log_superblocks[copy] = None;
        }
        map.service = service(&map);
        let map = Arc::new(map);
        array.array.map = Arc::clone(&map);
        self.tell_all(|| Message::Map(Arc::clone(&map)));
        self.tell(Event::Excluded { array: id, members, copies, epoch: map.epoch });
        self.excluded(id);
    }

    /// Writes superblocks without the pending members and copies to all that stay.
    fn exclude<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let members = core::mem::take(&mut array.pending_members);
        let copies = core::mem::take(&mut array.pending_copies);
        let map = Arc::clone(&array.array.map);
        let stays = |mask: u32, at: usize, there: bool| there && mask & 1 << at == 0;
        let members_stay = (0..map.members.len()).filter(|&at| stays(members, at, map.members[at].is_some())).count();
        let copies_stay = (0..map.copies.len()).filter(|&at| stays(copies, at, map.copies[at].is_some())).count();
        let enough = members_stay + usize::from(map.geometry.parities()) >= map.members.len();
        if !enough || copies_stay == 0 {
            self.publish(id, members, copies);
            return;
        }
        array.epoch += 1;
        let epoch = array.epoch;
        array.change = Change::Excluding { members, copies };
        for slot in 0..map.members.len() {
            let (Some(member), Some(superblock)) = (map.members[slot], array.array.superblocks[slot].as_mut()) else {
                continue;
            };
            if !stays(members, slot, true) {
                continue;
            }
            superblock.exclude(epoch, members, copies);
            let update = superblock.update;
            let buffer = self.spare.pop().expect("enough were counted");
            superblock.encode(ports.bytes_mut(buffer.id()));
            let place = (member.device, raid::superblock_block(update));
            write(ports, operations, id, Target::Member(slot as u8), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
        for copy in 0..map.copies.len() {
            let (Some(device), Some(superblock)) = (map.copies[copy], array.array.log_superblocks[copy].as_mut())
            else {
                continue;
            };
            if !stays(copies, copy, true) {
                continue;
            }
            superblock.epoch = epoch;
            superblock.update += 1;
            let buffer = self.spare.pop().expect("enough were counted");
            superblock.encode(ports.bytes_mut(buffer.id()));
            let place = (device, LogLayout::superblock_block(slot_of(superblock.update)));
            write(ports, operations, id, Target::Copy(copy as u8), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
    }

    /// Makes bits durable: all that wait for the same block of the bitmap go together.
    fn record_zones<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let Some(&(_, first)) = array.pending_zones.front() else { return };
        let block = Initialised::block_of(first);
        for _ in 0..array.pending_zones.len() {
            let (shard, zone) = array.pending_zones.pop_front().expect("as many as there were");
            if Initialised::block_of(zone) == block {
                array.array.initialised.set(zone);
                array.recording_zones.push((shard, zone));
            } else {
                array.pending_zones.push_back((shard, zone));
            }
        }
        array.change = Change::Recording;
        let slot_in_pair = array.array.initialised.advance(block);
        for slot in 0..array.array.map.members.len() {
            let (Some(member), Some(superblock)) = (array.array.map.members[slot], &array.array.superblocks[slot])
            else {
                continue;
            };
            let place = (member.device, superblock.layout.bitmap_block(block, slot_in_pair));
            let buffer = self.spare.pop().expect("enough were counted");
            array.array.initialised.encode(block, ports.bytes_mut(buffer.id()));
            write(ports, operations, id, Target::Member(slot as u8), place, &buffer);
            array.unanswered += 1;
            array.buffers.push(buffer);
        }
    }
}

fn write<P: Ports>(
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

/// What an array with such a map can do.
pub(crate) fn service(map: &ArrayMap) -> Service {
    if map.missing().count_ones() > u32::from(map.geometry.parities()) {
        Service::Failed
    } else if map.copies.iter().all(Option::is_none) {
        Service::ReadOnly
    } else {
        Service::ReadWrite
    }
}

fn pack(array: ArrayId, target: Target) -> u32 {
    let (kind, index) = match target {
        Target::Member(slot) => (0, slot),
        Target::Copy(copy) => (1, copy),
    };
    u32::from(array.0) << 16 | kind << 8 | u32::from(index)
}

fn unpack(write: u32) -> (ArrayId, Target) {
    let index = write as u8;
    let target = if write & 0x100 == 0 { Target::Member(Slot(index).0) } else { Target::Copy(index) };
    (ArrayId((write >> 16) as u16), target)
}
