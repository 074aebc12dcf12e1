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
//! | `join` | a drive on its way to a place that has no member |
//! | `succession` | a drive on its way to the place of a member that is still in use |
//! | `growth` | a further member, and all data on its way to where it lies with it |
//! | `attach` | a device on its way to be a copy of the log |
//! | `parting` | the last copy of the log on its way out |
//! | `hold` | writes that wait while a log comes or goes |
//! | `mode` | when writes are acknowledged |
//! | `exposure` | an array that goes on when its log is lost |
//! | `buffers` | what it sets aside |
//! | `round` | zones that are handed out, and come back done |
//! | `rebuild` | a round for a drive that has a place |
//! | `scrub` | a round that compares everything |
//! | `resync` | zones that a crash left dirty, handed out likewise |
//! | `reports` | what shards say, and to whom it goes here |
//! | `commands` | what the control side asks, and what it is told |
//! | `health` | members that make too many mistakes |
//! | `stop` | the clean stop |

mod attach;
mod bitmap;
mod buffers;
mod commands;
mod exposure;
mod growth;
mod health;
mod hold;
mod join;
mod mode;
mod parting;
mod persist;
mod proposal;
mod rebuild;
mod reports;
mod resync;
mod round;
mod scrub;
mod stop;
mod succession;
mod table;
pub mod volumes;

use std::collections::VecDeque;
use std::sync::Arc;

use base::ids::{ArrayId, DeviceId, ShardId, Slot, ZoneId};
use base::snapshot::Snapshot;
use base::time::{Span, Time};
use journal::{LogSuperblock, MAX_COPIES};
use nvmf::subsystem::Exports;
use ports::{Buffer, Ports};
use raid::{Metadata, Superblock, Tables, ZoneBits};

use crate::array::Purpose;
use crate::command::Event;
use crate::drives::DriveSettings;
use crate::jobs::Jobs;
use crate::limits::MAX_NEWS;
use crate::map::{ArrayMap, Service, VolumeMap, VolumeTables};
use crate::message::Message;
use crate::operations::Operations;
use crate::status::JobStatus;
use attach::Attaching;
use commands::Waiting;
use growth::Growing;
pub(crate) use growth::TOKENS as GROWTH_TOKENS;
use health::MemberRecord;
pub use join::Spare;
use join::{Asked, Joining};
use mode::Switching;
use parting::Parting;
use persist::{Proposed, Target, take_back, unpack};
pub(crate) use proposal::service;
use proposal::{Edit, Proposal};
use rebuild::Rebuild;
use resync::Resync;
pub use round::RoundSettings;
use scrub::Scrub;
pub use scrub::ScrubSettings;
use succession::Succession;
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
    pub initialised: ZoneBits,
    /// Which zones are dirty: without a log a crash may have left them so that not all of it matches.
    pub dirty: ZoneBits,
    /// Which zones members that are out have missed.
    pub missed: ZoneBits,
    /// The volume table in force.
    pub metadata: Arc<Metadata>,
    /// The number that it was written with.
    pub table_update: u64,
    /// What is expected of its drives.
    pub drives: DriveSettings,
    /// Drives that may take the place of a member, by themselves.
    pub spares: Vec<Spare>,
    /// How members are rebuilt.
    pub rebuild: RoundSettings,
    /// How long a log copy may take to answer.
    pub log_patience: Span,
    /// How it is scrubbed.
    pub scrub: ScrubSettings,
    /// Blocks that each shard's cache may hold.
    pub cache_blocks: usize,
    /// Members that it had when it was started: what is set aside goes by that.
    pub members_at_start: usize,
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
    Proposing(Box<Proposed>),
    /// A block of the bitmap of initialised zones is being written.
    Recording,
    /// A block of that of dirty zones is.
    Noting,
    /// A block of that of missed zones is.
    Marking,
    /// The volume table is being written.
    Tabling,
    /// A drive is being prepared.
    Joining(Box<Joining>),
    /// A member is being flushed that has been rebuilt up to a zone.
    Flushing {
        slot: Slot,
        zones: u64,
    },
}

#[derive(Debug)]
struct Coordinated {
    array: CoordinatedArray,
    /// Shards with stripes that cannot be destaged, as a bit mask.
    blocked: u64,
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
    /// Dirty from now on or no longer, in the order in which their owners said so; and those that the write under way notes.
    pending_dirty: VecDeque<(ShardId, ZoneId, bool)>,
    noting_zones: Vec<(ShardId, ZoneId)>,
    /// Missed from now on: who asked, and whether the write under way carries it; and blocks of zones that nobody misses any more.
    pending_missed: VecDeque<(ShardId, ZoneId)>,
    marking_zones: Vec<(ShardId, ZoneId)>,
    forgiven: Vec<usize>,
    /// Commands that wait for a change.
    waiting: Vec<Waiting>,
    /// What the members did wrong, by slot.
    members: Vec<MemberRecord>,
    /// Drives that were asked for by name.
    asked: VecDeque<Asked>,
    /// The drive that is being prepared has failed.
    drive_failed: bool,
    /// The device that is to become a copy of the log.
    attaching: Option<Attaching>,
    /// The last copy of the log, which is to go.
    parting: Option<Parting>,
    /// When hosts' writes have waited for long enough, if they do.
    hold_until: Time,
    /// A change of the mode.
    switching: Option<Switching>,
    /// Shards that have drained since the log was lost, and whether one cannot.
    drained: (u16, bool),
    rebuild: Option<Rebuild>,
    succession: Option<Succession>,
    growth: Option<Growing>,
    resync: Option<Resync>,
    /// Whether rebuilds are to wait.
    paused: bool,
    scrub: Scrub,
}

impl Coordinated {
    /// Whether nothing is under way and nothing more urgent waits.
    fn is_at_rest(&self) -> bool {
        matches!(self.change, Change::None) && self.pending.is_empty()
    }
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
    /// Devices that are on their way out because they do not answer.
    to_give_up: Vec<DeviceId>,
    volumes: Volumes,
    jobs: Jobs,
    /// For a volume table under way.
    table_buffers: Vec<Buffer>,
    next_run: u32,
}

impl Coordinator {
    /// A coordinator of arrays as start-up left them.
    pub fn new(setup: CoordinatorSetup) -> Self {
        let metadata = setup.arrays.iter().map(|array| Arc::clone(&array.metadata)).collect();
        let volumes = Volumes::new(setup.volumes, setup.exports, metadata);
        let tables = |array: &CoordinatedArray| {
            array.superblocks.iter().flatten().next().expect("an array has members").tables()
        };
        let arrays = setup.arrays.into_iter().map(|array| Coordinated {
            epoch: array.map.epoch,
            scrub: Scrub::new(tables(&array).scrub),
            tables: tables(&array),
            members: array.map.members.iter().map(|_| MemberRecord::new()).collect(),
            resync: Resync::of(array.dirty.iter(), setup.shards),
            growth: Growing::of(&array.map),
            array,
            blocked: 0,
            change: Change::None,
            unanswered: 0,
            failed: false,
            buffers: Vec::with_capacity(64),
            pending: Proposal::default(),
            pending_zones: VecDeque::with_capacity(64),
            recording_zones: Vec::with_capacity(64),
            pending_dirty: VecDeque::with_capacity(64),
            noting_zones: Vec::with_capacity(64),
            pending_missed: VecDeque::with_capacity(64),
            marking_zones: Vec::with_capacity(64),
            forgiven: Vec::new(),
            waiting: Vec::new(),
            asked: VecDeque::new(),
            drive_failed: false,
            attaching: None,
            parting: None,
            hold_until: Time::NEVER,
            switching: None,
            drained: (0, false),
            rebuild: None,
            succession: None,
            paused: false,
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
            to_give_up: Vec::new(),
            volumes,
            jobs: Jobs::default(),
            next_run: 0,
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
        self.jobs
            .deadline()
            .min(self.rebuild_deadline())
            .min(self.scrub_deadline())
            .min(self.hold_deadline())
            .min(self.growth_deadline())
    }

    /// The drives of an array that may take the place of a member.
    pub(crate) fn spares(&self, id: ArrayId) -> Vec<DeviceId> {
        self.arrays[id.index()].array.spares.iter().map(|spare| spare.device).collect()
    }

    /// The drives that were given a place in an array and are not its members yet.
    pub(crate) fn joining(&self, id: ArrayId) -> Vec<DeviceId> {
        self.arrays[id.index()].joining().collect()
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
        if target == Target::Newcomer {
            array.attaching.as_mut().expect("it waits for its operations").answered(succeeded);
            return;
        }
        array.unanswered -= 1;
        if !succeeded {
            array.failed = true;
            match target {
                Target::Member(slot) => array.pending.members |= 1 << slot,
                Target::Copy(copy) => array.pending.copies |= 1 << copy,
                Target::Drive => array.drive_failed = true,
                Target::Newcomer => unreachable!("it is none of the array's changes"),
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
                let change = core::mem::replace(&mut array.change, Change::None);
                let failed = core::mem::take(&mut array.failed);
                if let Change::Joining(joining) = change {
                    self.go_on_joining(ports, operations, id, *joining, failed);
                } else {
                    take_back(&mut array.buffers, &mut self.spare, operations);
                    self.end(id, change, failed, ports.now());
                }
            }
            let array = &mut self.arrays[index];
            if matches!(array.change, Change::None) {
                take_back(&mut array.buffers, &mut self.spare, operations);
                let places = array.array.superblocks.len() + MAX_COPIES;
                if !array.pending.is_empty() {
                    if operations.available() > places && self.spare.len() >= places {
                        self.propose(ports, operations, id);
                        worked = true;
                    }
                } else if !(array.pending_missed.is_empty() && array.forgiven.is_empty())
                    && matches!(array.array.map.service, Service::ReadWrite | Service::Draining)
                    && operations.available() > places
                    && self.spare.len() >= places
                {
                    self.note_missed(ports, operations, id);
                    worked = true;
                } else if !array.pending_zones.is_empty()
                    && operations.available() > places
                    && self.spare.len() >= places
                {
                    self.record_zones(ports, operations, id);
                    worked = true;
                } else if !array.pending_dirty.is_empty()
                    && matches!(array.array.map.service, Service::ReadWrite | Service::Draining)
                    && operations.available() > places
                    && self.spare.len() >= places
                {
                    self.note_dirty(ports, operations, id);
                    worked = true;
                } else {
                    worked |= self.take_spare(ports, operations, id);
                }
            }
            worked |= self.go_on_attaching(ports, operations, id);
            worked |= self.go_on_parting(ports, id);
            worked |= self.go_on_switching(id);
            worked |= self.go_on_exposing(id);
            worked |= self.go_on_succeeding(ports, operations, id);
            worked |= self.go_on_growing(ports, operations, id);
            worked |= self.resync(id, ports.now());
            worked |= self.rebuild(ports, operations, id);
            worked |= self.scrub(ports, id);
        }
        worked | self.maintain_volumes(ports, operations)
    }

    fn end(&mut self, id: ArrayId, change: Change, failed: bool, now: Time) {
        let array = &mut self.arrays[id.index()];
        match change {
            Change::None => {}
            Change::Joining(_) => unreachable!("its steps go on elsewhere"),
            Change::Flushing { slot, .. } if slot == array.array.map.successor_slot() => {
                self.successor_flushed(id, failed)
            }
            Change::Flushing { slot, zones } if !failed => self.save_position(id, slot, zones, now),
            Change::Flushing { .. } => {}
            Change::Proposing(proposed) if failed => self.propose_again(id, proposed.proposal),
            Change::Proposing(proposed) => self.publish(id, *proposed, now),
            Change::Tabling => self.table_written(id, failed),
            Change::Noting => {
                for (shard, zone) in array.noting_zones.drain(..) {
                    if failed {
                        array.pending_dirty.push_back((shard, zone, true));
                    } else {
                        self.messages.push_back((shard, Message::ZoneNoted { array: id, zone }));
                    }
                }
                self.end_if_all_is_written();
            }
            Change::Marking => self.zones_marked(id, failed),
            Change::Recording if failed => array.pending_zones.extend(array.recording_zones.drain(..)),
            Change::Recording => {
                for (shard, zone) in array.recording_zones.drain(..) {
                    self.messages.push_back((shard, Message::ZoneInitialised { array: id, zone }));
                }
            }
        }
    }

    /// Puts what was proposed in force and tells everybody.
    fn publish(&mut self, id: ArrayId, proposed: Proposed, now: Time) {
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
        let scrub_before = array.tables.scrub;
        array.tables = tables;
        let is_last = |map: &ArrayMap| !map.is_bare() && map.copies.iter().all(Option::is_none);
        let before = core::mem::replace(&mut array.array.map, map.clone());
        let log_is_lost = is_last(&map) && !is_last(&before);
        self.tell_all(|| Message::Map(map.clone()));
        let leaving = proposal.leaving();
        let Proposal { members, mut copies, edit, .. } = proposal;
        // A newcomer that failed was no copy.
        copies &= before.present_copies();
        if leaving != 0 {
            self.tell(Event::Detached { array: id, copies: leaving, epoch: map.epoch });
        }
        if members | copies != 0 {
            self.tell(Event::Excluded { array: id, members, copies, epoch: map.epoch });
        }
        if log_is_lost {
            self.tell(Event::LogLost { array: id, service: map.service });
            self.log_lost(id);
        }
        match edit {
            Some(Edit::Join(join)) => {
                let missed = join.returns.then(|| self.arrays[id.index()].missed_zones());
                self.tell(Event::Joined { array: id, slot: join.slot, device: join.member.device, missed });
                if let Some(ticket) = join.ticket {
                    self.answer(ticket, Ok(()));
                }
            }
            Some(Edit::Position { slot, position: None }) if members & 1 << slot.0 == 0 => {
                self.tell(Event::Rebuilt { array: id, slot });
            }
            Some(Edit::Succeed(join)) => self.succeeded(id, &join, &before),
            Some(Edit::Grow { join, .. }) => {
                let (slot, device) = (join.slot, join.member.device);
                self.arrays[id.index()].members.push(MemberRecord::new());
                self.growth_began(id, now);
                self.tell(Event::GrowthBegan { array: id, slot, device });
                if let Some(ticket) = join.ticket {
                    self.answer(ticket, Ok(()));
                }
            }
            Some(Edit::Step { windows, passed_over }) => self.stepped(id, windows, passed_over, now),
            Some(Edit::Scrub(record)) => self.scrub_saved(id, scrub_before, record),
            Some(Edit::Mode(mode)) => self.mode_published(id, mode),
            // Who took it away knows.
            Some(Edit::Expose) if leaving != 0 => {}
            Some(Edit::Expose) => self.exposed(id),
            Some(Edit::Halt) => self.tell(Event::LogLost { array: id, service: map.service }),
            Some(Edit::Position { .. } | Edit::Attach(_)) | None => {}
        }
        self.away_published(id);
        self.newcomer_published(id);
        self.parting_published(id);
        self.succession_published(id, &before);
        self.excluded(id);
    }
}
