//! What changes for all shards at once, on shard 0 alone: who takes part in an array, which zones are initialised, the stop.
//! A change is made durable first and told afterwards, so that nothing is ever acknowledged that relies on what a crash could
//! take back (rule L6).
//!
//! An array has at most one change under way. A change of who takes part is a *proposal*: what the superblocks are to say is
//! written to every member and log copy that takes part in it, with the epoch raised by one; once all have it, it is in
//! force, and shards, the control side and whoever asked for it are told. Whoever fails that write is excluded, and the
//! proposal is made again together with that exclusion, in a further epoch. Losing the last log copy, or more members than
//! the level bears, is not recorded: nothing will be acknowledged that relies on it, and the devices may come back whole.
//!
//! | file | holds |
//! |---|---|
//! | `proposal` | what is to be said otherwise |
//! | `persist` | its way to the devices |
//! | `bitmap` | bits of initialised zones on theirs |
//! | `volumes` | what volumes there are, and where hosts find them |
//! | `table` | an array's volume table on its way to the members |
//! | `commands` | what the control side asks, and what it is told |
//! | `health` | members that make too many mistakes |

mod bitmap;
mod commands;
mod health;
mod persist;
mod proposal;
mod table;
pub mod volumes;

use std::collections::VecDeque;
use std::sync::Arc;

use base::ids::{ArrayId, ShardId, ZoneId};
use base::snapshot::Snapshot;
use base::time::Time;
use journal::LogSuperblock;
use nvmf::subsystem::Exports;
use ports::{Buffer, Ports};
use raid::{Initialised, Metadata, Superblock, Tables};

use crate::array::Purpose;
use crate::command::Event;
use crate::drives::DriveSettings;
use crate::jobs::Jobs;
use crate::limits::MAX_NEWS;
use crate::map::{ArrayMap, Service, VolumeMap, VolumeTables};
use crate::message::Message;
use crate::operations::Operations;
use crate::status::JobStatus;
use commands::Waiting;
use health::MemberRecord;
use persist::{Proposed, Target, unpack};
use proposal::Proposal;
pub use table::TABLE_BUFFERS;
use volumes::Volumes;

/// What the coordinator keeps of an array beside its map.
#[derive(Clone, Debug)]
pub struct CoordinatedArray {
    /// The map in force.
    pub map: Snapshot<ArrayMap>,
    /// The member superblocks by slot; none where the member is missing.
    pub superblocks: Vec<Option<Superblock>>,
    /// The log copies' superblocks.
    pub log_superblocks: Vec<Option<LogSuperblock>>,
    /// Which zones are initialised.
    pub initialised: Initialised,
    /// The volume table in force.
    pub metadata: Arc<Metadata>,
    /// The number that it was written with.
    pub table_update: u64,
    /// What is expected of its drives.
    pub drives: DriveSettings,
}

/// What the coordinator is made of.
#[derive(Debug)]
pub struct CoordinatorSetup {
    /// How many shards there are.
    pub shards: u16,
    /// All arrays, by [`ArrayId`].
    pub arrays: Vec<CoordinatedArray>,
    /// All volumes.
    pub volumes: VolumeMap,
    /// Where hosts find them; none where there are no hosts.
    pub exports: Option<Snapshot<Exports>>,
}

/// The change under way.
#[derive(Debug)]
enum Change {
    None,
    /// Superblocks that say otherwise are being written.
    Proposing(Proposed),
    /// A block of the bitmap is being written.
    Recording,
    /// The volume table is being written.
    Tabling,
}

#[derive(Debug)]
struct Coordinated {
    array: CoordinatedArray,
    /// What is in force, as all member superblocks say it.
    tables: Tables,
    /// The highest epoch that was written anywhere: none is ever written with two contents.
    epoch: u64,
    change: Change,
    unanswered: u32,
    failed: bool,
    buffers: Vec<Buffer>,
    /// Wanted, and not proposed yet.
    pending: Proposal,
    /// Zeroed, with the bit still to be made durable: who asked, and whether the write under way carries it.
    pending_zones: VecDeque<(ShardId, ZoneId)>,
    recording_zones: Vec<(ShardId, ZoneId)>,
    /// Commands that wait for a change.
    waiting: Vec<Waiting>,
    /// What the members did wrong, by slot.
    members: Vec<MemberRecord>,
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
    volumes: Volumes,
    jobs: Jobs,
    /// For a volume table under way.
    table_buffers: Vec<Buffer>,
}

impl Coordinator {
    /// A coordinator of arrays as start-up left them.
    pub fn new(setup: CoordinatorSetup) -> Self {
        let metadata = setup.arrays.iter().map(|array| Arc::clone(&array.metadata)).collect();
        let volumes = Volumes::new(setup.volumes, setup.exports, metadata);
        let arrays = setup.arrays.into_iter().map(|array| Coordinated {
            epoch: array.map.epoch,
            tables: array.superblocks.iter().flatten().next().expect("an array has members").tables(),
            members: array.map.members.iter().map(|_| MemberRecord::new()).collect(),
            array,
            change: Change::None,
            unanswered: 0,
            failed: false,
            buffers: Vec::with_capacity(64),
            pending: Proposal::default(),
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
            volumes,
            jobs: Jobs::default(),
            table_buffers: Vec::with_capacity(TABLE_BUFFERS),
        }
    }

    /// What volumes there are now.
    pub fn tables(&self) -> &Arc<VolumeTables> {
        self.volumes.tables()
    }

    /// Long work on volumes.
    pub(crate) fn job_status(&self) -> Vec<JobStatus> {
        self.jobs.status()
    }

    /// When there is something to do, if nothing comes before.
    pub(crate) fn deadline(&self) -> Time {
        self.jobs.deadline()
    }

    /// Buffers that it sets aside: one for each member and copy of each array.
    pub fn set_aside_blocks(maps: &[Snapshot<ArrayMap>]) -> usize {
        maps.iter().map(|map| map.members.len() + map.copies.len()).sum::<usize>() + TABLE_BUFFERS
    }

    pub(crate) fn prepare<P: Ports>(&mut self, ports: &mut P) {
        let places = |array: &Coordinated| array.array.superblocks.len() + array.array.log_superblocks.len();
        let wanted: usize = self.arrays.iter().map(places).sum();
        while self.spare.len() < wanted {
            self.spare.push(ports.alloc().expect("the pool was sized with what the coordinator sets aside"));
        }
        while self.table_buffers.len() < TABLE_BUFFERS {
            self.table_buffers.push(ports.alloc().expect("the pool was sized with what the coordinator sets aside"));
        }
    }

    /// Gives back what it set aside, after the last turn, but for what a device that was given up may still read.
    pub(crate) fn release<P: Ports>(&mut self, ports: &mut P, operations: &Operations<Purpose>) {
        for array in &mut self.arrays {
            take_back(&mut array.buffers, &mut self.spare, operations);
        }
        for buffer in self.spare.drain(..).chain(self.table_buffers.drain(..)) {
            ports.free(buffer);
        }
    }

    /// Takes a report or a request of a shard.
    pub(crate) fn message(&mut self, from: ShardId, message: Message) {
        match message {
            Message::MemberFailed { array, slot } => {
                let array = &mut self.arrays[array.index()];
                if array.array.map.members[slot.index()].is_some() {
                    array.pending.members |= 1 << slot.0;
                }
            }
            Message::CopyFailed { array: id, copy, error } => {
                let array = &mut self.arrays[id.index()];
                if array.array.map.copies[usize::from(copy)].is_some() && array.pending.copies & 1 << copy == 0 {
                    array.pending.copies |= 1 << copy;
                    self.tell(Event::CopyFailed { array: id, copy, error });
                }
            }
            Message::MemberErrors { array, slot, errors } => {
                self.arrays[array.index()].members[slot.index()].hear(errors);
            }
            Message::MemberSlow { array, slot, slow, mean, peers } => {
                self.paced(array, slot, from, slow, (mean, peers))
            }
            Message::ZoneZeroed { array, zone } => {
                self.arrays[array.index()].pending_zones.push_back((from, zone));
            }
            Message::Command(command) => self.command(*command),
            Message::VolumesTaken { epoch } => self.volumes_taken(epoch),
            Message::LanesClosed => {
                self.closed += 1;
                if self.closed == self.shards {
                    self.end_volumes();
                    self.tell_all(|| Message::End);
                }
            }
            other => unreachable!("not for the coordinator: {other:?}"),
        }
    }

    /// Tells the other shards to stop.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.stop_volumes();
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
                Target::Member(slot) => array.pending.members |= 1 << slot,
                Target::Copy(copy) => array.pending.copies |= 1 << copy,
            }
        }
    }

    /// Ends and begins changes; whether anything was done.
    pub(crate) fn maintain<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>) -> bool {
        let mut worked = false;
        for index in 0..self.arrays.len() {
            let id = ArrayId(index as u16);
            self.judge(id, ports.now());
            let array = &mut self.arrays[index];
            if array.unanswered == 0 && !matches!(array.change, Change::None) {
                worked = true;
                take_back(&mut array.buffers, &mut self.spare, operations);
                let change = core::mem::replace(&mut array.change, Change::None);
                let failed = core::mem::take(&mut array.failed);
                self.end(id, change, failed);
            }
            let array = &mut self.arrays[index];
            if matches!(array.change, Change::None) {
                take_back(&mut array.buffers, &mut self.spare, operations);
                let places = array.array.superblocks.len() + array.array.log_superblocks.len();
                if !array.pending.is_empty() {
                    if operations.available() > places && self.spare.len() >= places {
                        self.propose(ports, operations, id);
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
        worked | self.maintain_volumes(ports, operations)
    }

    fn end(&mut self, id: ArrayId, change: Change, failed: bool) {
        let array = &mut self.arrays[id.index()];
        match change {
            Change::None => {}
            // Whoever failed is excluded in the next step, and this comes with it: nothing was told yet.
            Change::Proposing(proposed) if failed => array.pending.join(&proposed.proposal),
            Change::Proposing(proposed) => self.publish(id, proposed),
            Change::Tabling => self.table_written(id, failed),
            Change::Recording if failed => array.pending_zones.extend(array.recording_zones.drain(..)),
            Change::Recording => {
                for (shard, zone) in array.recording_zones.drain(..) {
                    self.messages.push_back((shard, Message::ZoneInitialised { array: id, zone }));
                }
            }
        }
    }

    /// Puts what was proposed in force and tells everybody.
    fn publish(&mut self, id: ArrayId, proposed: Proposed) {
        let array = &mut self.arrays[id.index()];
        let Proposed { proposal, tables, map } = proposed;
        for (superblock, _) in array.array.superblocks.iter_mut().zip(&map.members).filter(|(_, there)| there.is_none())
        {
            *superblock = None;
        }
        for (superblock, _) in
            array.array.log_superblocks.iter_mut().zip(&map.copies).filter(|(_, there)| there.is_none())
        {
            *superblock = None;
        }
        array.tables = tables;
        array.array.map = map.clone();
        self.tell_all(|| Message::Map(map.clone()));
        let Proposal { members, copies } = proposal;
        if members | copies != 0 {
            self.tell(Event::Excluded { array: id, members, copies, epoch: map.epoch });
        }
        self.excluded(id);
    }
}

/// Takes back the buffers of a change that has ended, but for those that a device which was given up may still read.
fn take_back(used: &mut Vec<Buffer>, spare: &mut Vec<Buffer>, operations: &Operations<Purpose>) {
    let mut at = 0;
    while at < used.len() {
        if operations.is_held(used[at].id()) {
            at += 1;
        } else {
            spare.push(used.swap_remove(at));
        }
    }
}

/// What an array with such a map can do.
pub(crate) fn service(map: &ArrayMap) -> Service {
    if !map.geometry.bears(map.missing()) {
        Service::Failed
    } else if map.copies.iter().all(Option::is_none) {
        Service::ReadOnly
    } else {
        Service::ReadWrite
    }
}
