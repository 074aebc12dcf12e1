//! One shard's part of one array: the lanes and zones that it owns, what they hold in the log, and the work that carries it
//! to the members. It is a state machine: fragments, completions and decisions of the coordinator come in, device
//! operations, answers and reports go out.
//!
//! | file | holds |
//! |---|---|
//! | [`stripes`] | the stripe cache: versions of blocks |
//! | [`lane`] | one lane of the log |
//! | [`write`] | admission of writes to a lane |
//! | [`commit`] | records and anchors on their way to the copies |
//! | [`again`] | data that is logged again, since it cannot go to the members |
//! | [`newcomer`] | a device that becomes a copy of the log |
//! | [`moved`] | blocks on their way to where they lie with a further member |
//! | [`detained`] | buffers that a device still has though nobody waits for it |
//! | [`read`] | reads from cache and members, degraded reads |
//! | [`residency`] | dirty data that the log alone has |
//! | `recovered` | what a start found in the log alone |
//! | [`mend`] | blocks that a member cannot read, or gives back wrong |
//! | [`checksums`] | checksum blocks of the members that are at hand |
//! | [`exposure`] | going on without a log that is lost |
//! | `halt` | nothing is written any more |
//! | [`hold`], [`late`] | writes that wait while a log comes or goes; members that do not answer in time |
//! | [`health`] | what is found out about the members |
//! | [`peers`] | how long members take compared with their peers |
//! | [`destage`] | from the log to the members: plan, parity, notes |
//! | [`verdict`] | what a stripe's blocks say of each other |
//! | [`sum`] | weighted sums of blocks |
//! | [`members`] | the members' writes and flushes |
//! | [`update`] | compare, and compare and write |
//! | [`zones`] | zones that were never written |
//! | [`missed`] | zones that members which are out have missed |
//! | [`dirty`] | zones that a crash could leave dirty, without a log |
//! | [`walk`] | whole zones, range by range, for a rebuild, a scrub or a resync |
//! | [`presence`] | which members hold a stripe |
//! | [`succession`] | a drive that is to take a member's place |
//! | [`pace`] | how fast work in the background goes |
//! | `purpose` | what a device operation was for |
//! | `usage` | how full it is |
//! | [`grace`] | when all reads of an earlier time have ended |
//!
//! Two rules keep readers and writers of members apart without locks. A destage writes to members only after every member
//! read has ended that began before its versions were frozen; later reads find those blocks in the cache. And a read that
//! must reconstruct a block waits while its stripe is under destage; so does one that mends a block.

pub(crate) mod again;
pub(crate) mod checksums;
pub(crate) mod commit;
pub(crate) mod destage;
pub(crate) mod detained;
pub(crate) mod dirty;
pub(crate) mod exposure;
pub(crate) mod grace;
mod halt;
pub(crate) mod health;
pub(crate) mod hold;
pub(crate) mod lane;
pub(crate) mod late;
pub(crate) mod members;
pub(crate) mod mend;
pub(crate) mod missed;
pub(crate) mod moved;
pub(crate) mod newcomer;
pub(crate) mod pace;
pub(crate) mod peers;
pub(crate) mod presence;
mod purpose;
pub(crate) mod read;
mod recovered;
pub(crate) mod residency;
pub(crate) mod stripes;
mod succession;
pub(crate) mod sum;
pub(crate) mod update;
mod usage;
pub mod verdict;
pub(crate) mod walk;
pub(crate) mod write;
mod zone_set;
pub(crate) mod zones;

use std::collections::VecDeque;

use base::ids::{DeviceId, LaneId, ShardId, Slot};
use base::metrics::{ArrayMetrics, DeviceMetrics};
use base::slab::{Key, Slab};
use base::snapshot::Snapshot;
use base::time::{Span, Time};
use ports::{Buffer, DeviceError, Ports};

use crate::drives::DriveSettings;
use crate::limits::{FRAGMENT_CREDITS, LOCAL_FRAGMENTS, MAX_DESTAGES, MAX_MENDS, MEMBERS_TO_COME, UPDATE_BLOCKS};
use crate::map::{ArrayMap, LogMode, Newcomer};
use crate::message::{Fragment, FragmentDone, FragmentKind, Message};
use crate::operations::Operations;
use crate::router::Dropped;
use checksums::Checksums;
pub use checksums::set_aside_blocks as checksum_set_aside_blocks;
use destage::Destage;
use destage::blocked::Blocked;
pub use destage::policy::DestageSettings;
use detained::Detained;
use dirty::Dirty;
use exposure::Exposure;
use grace::Grace;
use health::Health;
pub use health::MemberErrors;
pub(crate) use lane::FORMAT_EPOCH;
use lane::{Closing, Lane};
pub use lane::{LaneStart, SLACK_BLOCKS};
use members::{Flushing, Writes};
use mend::Mend;
use missed::Missed;
use moved::Moved;
pub use pace::Limits;
use peers::Peers;
use presence::Presence;
pub(crate) use purpose::Purpose;
use read::Read;
pub use recovered::{RecoveredBlock, RecoveredContent};
use residency::LogReads;
pub use residency::Residency;
pub use stripes::BYTES_A_BLOCK as INDEX_BYTES_A_BLOCK;
use stripes::{StripeRef, Stripes};
use update::Updates;
pub use usage::Usage;
use walk::Walker;
pub use walk::scrub::{Found, FoundKind, FoundPlace};
pub use walk::{Action, Order};
use write::Through;
use zones::Zones;

/// Blocks that the cache takes beside what recovery found.
pub const MIN_CACHE_BLOCKS: usize = 1024;

/// Buffers that each shard's part of an array of so many members sets aside: for destaging, degraded reads, updates and walks.
pub const fn set_aside_blocks(members: usize) -> usize {
    let members = members + MEMBERS_TO_COME;
    scratch_blocks(members) + UPDATE_BLOCKS + walk::set_aside_blocks(members)
}

/// Those of them that are for destaging and degraded reads.
const fn scratch_blocks(members: usize) -> usize {
    let wanted = 32 * (members + 1);
    if wanted > 512 { wanted } else { 512 }
}

/// What an array's step may use.
pub(crate) struct Work<'a, P> {
    pub(crate) ports: &'a mut P,
    pub(crate) operations: &'a mut Operations<Purpose>,
    pub(crate) metrics: &'a ArrayMetrics,
    /// By [`base::ids::DeviceId`].
    pub(crate) devices: &'a [DeviceMetrics],
    pub(crate) now: Time,
}

/// The part of an array.
#[derive(Debug)]
pub(crate) struct ArrayShard {
    map: Snapshot<ArrayMap>,
    /// By lane; none where another shard owns it.
    lanes: Vec<Option<Lane>>,
    /// Lanes that have something to do or to wait for: the others cost a turn nothing.
    awake: Vec<LaneId>,
    stripes: Stripes,
    /// Stripes all of whose columns are durable.
    full: VecDeque<StripeRef>,
    destages: Slab<Destage>,
    /// Empty lists for what destages read.
    old_lists: Vec<Vec<(Slot, Buffer)>>,
    /// Destages that wait for buffers and operations to be planned.
    to_plan: VecDeque<Key<Destage>>,
    /// Destages whose parity or note found no room in the open transaction.
    to_log: VecDeque<Key<Destage>>,
    /// Destages that wait for reads which began before their freeze.
    in_grace: VecDeque<Key<Destage>>,
    /// Destages with old content that cannot be read and is not being mended yet.
    to_mend: VecDeque<Key<Destage>>,
    mends: Slab<Mend>,
    blocked: Blocked,
    health: Health,
    peers: Peers,
    checksums: Checksums,
    writes: Writes,
    flushing: Flushing,
    reads: Slab<Read>,
    /// Reads that wait for a destage, a new map, or room, oldest first.
    stalled: VecDeque<Key<Read>>,
    /// Fragments for which there was no place among the reads.
    unread: VecDeque<(ShardId, Fragment)>,
    grace: Grace,
    zones: Zones,
    dirty: Dirty,
    missed: Missed,
    moved: Moved,
    exposure: Exposure,
    residency: Residency,
    log_reads: LogReads,
    walker: Walker,
    presence: Presence,
    through: Slab<Through>,
    updates: Updates,
    /// Buffers for old content and parity, set aside so that destaging never waits for hosts.
    scratch: Vec<Buffer>,
    /// A block of zeros.
    zero: Option<Buffer>,
    detained: Detained,
    /// How long a log copy may take to answer.
    log_patience: Span,
    drives: DriveSettings,
    /// Members that have not answered a read in time, as a bit mask: nobody who can do without asks them meanwhile.
    late: u32,
    /// The newcomer to which the log goes, and whether it was said that it has all that the lanes need.
    newcomer: Option<(Newcomer, bool)>,
    /// Whether it was said that nothing is under way while writes wait.
    told_still: bool,
    /// Members and copies that were reported and are not excluded yet; a successor behind the members.
    failing_members: u32,
    failing_copies: u32,
    /// The device whose answer is being taken.
    answering: Option<DeviceId>,
    answers: VecDeque<(ShardId, FragmentDone)>,
    reports: VecDeque<Message>,
    settings: DestageSettings,
    /// What recovery found, until the first turn.
    recovered: Vec<RecoveredBlock>,
    stopping: bool,
    halted: bool,
}

/// What an array's part is made of.
#[derive(Debug)]
pub struct ArrayPart {
    /// The array.
    pub map: Snapshot<ArrayMap>,
    /// The lanes of this shard.
    pub lanes: Vec<LaneStart>,
    /// What they hold that the members do not.
    pub recovered: Vec<RecoveredBlock>,
    /// Zones that have been initialised, a bit each.
    pub initialised: Vec<u64>,
    /// Zones that are dirty, a bit each: without a log a crash may have left them so that not everything matches.
    pub dirty: Vec<u64>,
    /// Zones that members which are out have missed, a bit each.
    pub missed: Vec<u64>,
    /// Where dirty data is kept.
    pub residency: Residency,
    /// Dirty blocks that there may be: of what only the log has, too.
    pub index_blocks: usize,
    /// Blocks that the cache may hold.
    pub cache_blocks: usize,
    /// Checksum blocks that may be at hand, if there are checksums; there are never too few.
    pub checksum_blocks: usize,
    /// When they go to the members.
    pub settings: DestageSettings,
    /// How long a log copy may take to answer before it counts as failed.
    pub log_patience: Span,
    /// What is expected of the members.
    pub drives: DriveSettings,
}

impl ArrayShard {
    pub(crate) fn new(shard: ShardId, shards: u16, part: ArrayPart) -> Self {
        let map = part.map;
        let fragments = LOCAL_FRAGMENTS + usize::from(shards - 1) * FRAGMENT_CREDITS;
        let mut live = std::collections::BTreeMap::new();
        for recovered in &part.recovered {
            let lane = map.lane_of(map.arrangement.zone_of_block(recovered.block));
            *live.entry((lane, recovered.sequence)).or_insert(0) += 1;
        }
        let mut lanes: Vec<Option<Lane>> = (0..map.log_layout.lanes()).map(|_| None).collect();
        for start in part.lanes {
            let id = start.lane;
            assert_eq!(map.owner_of(id), shard, "a lane goes to its owner");
            let live = |sequence| live.get(&(id, sequence)).copied().unwrap_or(0);
            lanes[id.index()] = Some(Lane::new(start, live, map.destage_log_blocks(), fragments));
        }
        let members = map.members.len() + MEMBERS_TO_COME;
        let in_memory = part.recovered.iter().filter(|found| matches!(found.content, RecoveredContent::Held(_)));
        let cache_blocks = part.cache_blocks.max(in_memory.count() + MIN_CACHE_BLOCKS);
        let dirty_blocks = part.index_blocks.max(part.recovered.len() + MIN_CACHE_BLOCKS).max(cache_blocks);
        let mut awake = Vec::with_capacity(lanes.len());
        awake.extend(lanes.iter().flatten().map(|lane| lane.id));
        Self {
            lanes,
            awake,
            stripes: Stripes::new(dirty_blocks, cache_blocks),
            full: VecDeque::with_capacity(dirty_blocks),
            destages: Slab::new(MAX_DESTAGES),
            old_lists: (0..MAX_DESTAGES).map(|_| Vec::with_capacity(members)).collect(),
            to_plan: VecDeque::with_capacity(MAX_DESTAGES),
            to_log: VecDeque::with_capacity(2 * MAX_DESTAGES),
            in_grace: VecDeque::with_capacity(MAX_DESTAGES),
            to_mend: VecDeque::with_capacity(MAX_DESTAGES),
            mends: Slab::new(MAX_MENDS),
            blocked: Blocked::new(),
            health: Health::new(members + 1),
            peers: Peers::new(members + 1),
            checksums: Checksums::new(&map, part.checksum_blocks),
            writes: Writes::new(members + 1),
            flushing: Flushing::new(),
            reads: Slab::new(LOCAL_FRAGMENTS / 2),
            stalled: VecDeque::with_capacity(LOCAL_FRAGMENTS / 2),
            unread: VecDeque::with_capacity(fragments),
            grace: Grace::new(LOCAL_FRAGMENTS),
            zones: Zones::new(&part.initialised, map.arrangement.zones()),
            dirty: Dirty::new(shard, &map, &part.dirty),
            missed: Missed::new(&part.missed),
            moved: Moved::default(),
            exposure: Exposure::new(fragments),
            residency: part.residency,
            log_reads: LogReads::new(),
            walker: Walker::new(members),
            presence: Presence::new(map.arrangement.zones()),
            through: Slab::new(fragments),
            updates: Updates::new(),
            scratch: Vec::with_capacity(scratch_blocks(members)),
            zero: None,
            detained: Detained::default(),
            log_patience: part.log_patience,
            drives: part.drives,
            late: 0,
            newcomer: None,
            told_still: false,
            failing_members: 0,
            failing_copies: 0,
            answering: None,
            answers: VecDeque::with_capacity(2 * fragments),
            reports: VecDeque::with_capacity(256),
            settings: part.settings,
            stopping: false,
            halted: map.service.refuses_writes().is_some(),
            recovered: part.recovered,
            map,
        }
    }

    /// Takes what it sets aside and fills the cache with what recovery found, before the first turn.
    pub(crate) fn prepare<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if self.zero.is_some() {
            return;
        }
        self.watch_devices(work);
        let ports = &mut *work.ports;
        while self.scratch.len() < self.scratch.capacity() {
            self.scratch.push(ports.alloc().expect("the pool was sized with what every array sets aside"));
        }
        self.updates.prepare(ports);
        self.walker.prepare(ports);
        self.checksums.prepare(ports);
        let zero = self.scratch.pop().expect("there are many");
        ports.bytes_mut(zero.id()).fill(0);
        self.zero = Some(zero);
        for found in core::mem::take(&mut self.recovered) {
            self.recover(ports, found);
        }
    }

    /// Gives back what it set aside, after the last turn, and what a halted array still held; but not the zeros that a device
    /// which was given up may still read.
    pub(crate) fn release<P: Ports>(&mut self, ports: &mut P, operations: &Operations<Purpose>) {
        let zero = self.zero.take().filter(|zero| !operations.is_held(zero.id()));
        for buffer in self.scratch.drain(..).chain(zero).chain(self.updates.drain_space()) {
            ports.free(buffer);
        }
        if self.halted {
            let lanes = self.lanes.iter_mut().flatten().flat_map(Lane::take_buffers);
            let destages = self.destages.iter_mut().flat_map(|(_, destage)| destage.take_buffers());
            let all = self.stripes.take_buffers().chain(lanes).chain(destages);
            all.filter(|buffer| !operations.is_held(buffer.id())).for_each(|buffer| ports.free(buffer));
        }
        self.walker.release(ports);
        self.checksums.release(ports, |buffer| operations.is_held(buffer.id()));
    }

    pub(crate) fn map(&self) -> &Snapshot<ArrayMap> {
        &self.map
    }

    /// Takes a fragment from a router.
    pub(crate) fn fragment<P: Ports>(&mut self, work: &mut Work<'_, P>, from: ShardId, fragment: Fragment) {
        match fragment.kind {
            FragmentKind::Read => self.read(work, from, fragment),
            FragmentKind::Write
            | FragmentKind::Zero
            | FragmentKind::Move
            | FragmentKind::Compare
            | FragmentKind::CompareAndWrite => self.write(work, from, fragment),
        }
    }

    /// Drops what waits and nobody wants any more. What a lane has admitted is ordered before all that comes later, and
    /// completes.
    pub(crate) fn drop_waiting<P: Ports>(&mut self, ports: &mut P, dropped: Dropped) {
        self.drop_writes(ports, dropped);
        self.drop_reads(ports, dropped);
    }

    /// Takes the end of a device operation.
    pub(crate) fn completed<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        purpose: Purpose,
        (device, took): (DeviceId, Span),
        result: Result<(), DeviceError>,
    ) {
        self.answering = Some(device);
        match purpose {
            Purpose::Read { slot, .. } | Purpose::DestageRead { slot, .. } => self.peers.note(slot, false, took),
            Purpose::DestageWrite { slot, .. } => self.peers.note(slot, true, took),
            _ => {}
        }
        match purpose {
            Purpose::Record { lane, sequence, copy, .. } => {
                self.record_answered(work, lane, sequence, copy, result);
            }
            Purpose::Anchor { lane, copy, .. } => self.anchor_answered(work, lane, copy, result),
            Purpose::LogRead { read, copy, .. } => self.log_read_answered(work, read, copy, result),
            Purpose::Read { read, slot, .. } => self.read_answered(work, read, slot, result),
            Purpose::DestageRead { destage, slot, .. } => self.destage_read(work, destage, slot, result),
            Purpose::Mend { mend, slot, .. } => self.mend_answered(work, mend, slot, result),
            Purpose::DestageWrite { batch, slot, .. } => self.destage_written(work, batch, slot, result.is_ok()),
            Purpose::MemberFlush { slot, .. } => self.flushed(work, slot, result.is_ok()),
            Purpose::ZoneZero { job, slot, .. } => self.zone_zeroed(work, job, slot, result.is_ok()),
            Purpose::ZoneFlush { job, slot, .. } => self.zone_flushed(job, slot, result.is_ok()),
            Purpose::CleanFlush { slot, .. } => self.clean_flushed(slot, result.is_ok()),
            Purpose::Walk { range, slot, block, .. } => self.walk_answered(work, range, (slot, block), result),
            Purpose::ChecksumRead { place, .. } => self.checksum_read(work, place, result),
            Purpose::ChecksumWrite { place, .. } => self.checksum_written(work, place, result),
            Purpose::Coordinator { .. } => unreachable!("the shard gives the coordinator its own"),
        }
        self.answering = None;
    }

    /// Does what has become possible: sends records, starts destages, moves tails, retries what waited.
    pub(crate) fn maintain<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        self.release_detained(work);
        self.forgive_late(work);
        self.retry_reads(work);
        self.advance_updates(work);
        if !self.halted {
            self.bring_back(work);
            self.log_again(work);
        }
        self.admit_waiting(work);
        self.report_health(work.now);
        self.report_slow(work);
        if !self.halted {
            self.plan_waiting(work);
            self.mend_for_destages(work);
            self.report_blocked(work.now);
            self.drain_window(work);
            self.start_destages(work);
            self.log_destages(work);
            self.start_writes(work);
            self.start_flush(work);
            self.zone_members_changed(work);
            self.sweep(work);
            self.walk(work);
            // Before the commit, which moves the anchor that a close asks for: there may be no later turn.
            if self.stopping {
                self.close(work);
            }
            self.commit(work);
            self.report_newcomer();
            self.report_drained();
            self.report_still(work);
            self.report_window_drained();
            self.rest();
        }
        self.write_checksums(work);
    }

    /// When the next turn has something to do, if nothing comes before.
    pub(crate) fn deadline(&self) -> Time {
        let mut deadline = self.health.deadline();
        if self.halted {
            return deadline;
        }
        deadline = deadline.min(self.full_due_at());
        deadline = deadline.min(self.blocked.deadline()).min(self.walker.deadline()).min(self.dirty.deadline());
        for lane in self.awake.iter().filter_map(|id| self.lanes[id.index()].as_ref()) {
            deadline = deadline.min(lane.due_at(self.settings.note_patience));
            let blocked = lane.stripes.blocked.oldest().map(|stripe| self.stripes.get(stripe).retry_at);
            deadline = deadline.min(blocked.unwrap_or(Time::NEVER));
            let oldest = [lane.stripes.dirty.oldest(), lane.stripes.logged.oldest()];
            for stripe in oldest.into_iter().flatten().filter(|_| self.map.mode == LogMode::WriteBack) {
                deadline = deadline.min(self.stripes.get(stripe).since + self.settings.age);
            }
        }
        deadline
    }

    /// Takes a new epoch. What waited for an exclusion goes on without what was excluded.
    pub(crate) fn new_map<P: Ports>(&mut self, work: &mut Work<'_, P>, map: Snapshot<ArrayMap>) {
        assert!(map.epoch >= self.map.epoch, "epochs only grow");
        for slot in (0..=map.arrangement.geometry().members()).map(Slot) {
            if self.map.member(slot).map(|member| member.device) != map.member(slot).map(|member| member.device) {
                self.peers.forget(slot);
            }
        }
        self.failing_members = succession::still_failing(self.failing_members, &self.map, &map);
        if self.map.mode != map.mode {
            self.reports.push_back(Message::ModeTaken { array: map.id });
        }
        let before = core::mem::replace(&mut self.map, map);
        self.hold_changed(&before);
        self.moving_changed(work, &before);
        self.tell_what_is_at_stake(&before);
        self.checksum_members_changed(work, &before);
        self.watch_devices(work);
        self.wake_all();
        self.failing_copies &= self.map.log_devices().fold(0, |mask, (copy, _)| mask | 1 << copy);
        self.newcomer_changed();
        self.halt_if_refused(work);
        self.walk_members_changed(work);
        self.copies_changed(work);
        self.away_changed(work, &before);
        self.members_changed(work);
        self.exposure_changed(work, &before);
    }

    /// The next answer to a fragment, and whom it is for.
    pub(crate) fn answer(&mut self, now: Time) -> Option<(ShardId, FragmentDone)> {
        let (to, done) = self.answers.pop_front()?;
        self.walker.pace.observe(now.since(done.since), now);
        Some((to, done))
    }

    /// The next message for the coordinator.
    pub(crate) fn report(&mut self) -> Option<Message> {
        self.reports.pop_front()
    }

    /// Asks for a clean stop: everything to the members, then an empty transaction at each lane's anchor.
    /// Whether it was asked for the first time.
    pub(crate) fn stop(&mut self) -> bool {
        let begins = !core::mem::replace(&mut self.stopping, true);
        if begins {
            self.walker.cancel();
            self.wake_all();
        }
        begins
    }

    /// A lane has something to do.
    pub(crate) fn wake(&mut self, id: LaneId) {
        let lane = self.lanes[id.index()].as_mut().expect("only the owner has a lane's work");
        if !core::mem::replace(&mut lane.awake, true) {
            self.awake.push(id);
        }
    }

    fn wake_all(&mut self) {
        for index in 0..self.lanes.len() {
            if let Some(lane) = &self.lanes[index] {
                self.wake(lane.id);
            }
        }
    }

    /// Lets lanes rest that have nothing to do and nothing to wait for.
    fn rest(&mut self) {
        let (lanes, stopping) = (&mut self.lanes, self.stopping);
        self.awake.retain(|id| {
            let lane = lanes[id.index()].as_mut().expect("only the owner's lanes are awake");
            lane.awake = !lane.is_at_rest() || stopping && lane.closing != Closing::Closed;
            lane.awake
        });
    }

    /// Whether every lane rests at its empty transaction, or nothing can be written any more.
    pub(crate) fn is_closed(&self) -> bool {
        let is_closed = |lane: &Lane| lane.closing == Closing::Closed;
        self.halted || self.lanes.iter().flatten().all(is_closed) && self.checksums.is_quiet()
    }

    /// Whether the stop is clean so far.
    pub(crate) fn is_clean(&self) -> bool {
        !self.halted
    }

    /// Whether a turn would find something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.answers.is_empty() || !self.reports.is_empty() || self.updates.want_buffer()
    }

    /// Checks what must hold whatever happens; too slow for every turn of production.
    pub(crate) fn self_check(&self) {
        for lane in self.lanes.iter().flatten() {
            let live: u64 = lane.records.iter().map(|record| u64::from(record.live)).sum();
            let held = self.stripes.in_log(lane.id) + self.log_reads.pins(lane.id);
            if !self.halted {
                assert_eq!(live, held, "records are live for exactly the versions in {:?}", lane.id);
            }
            let tail = lane.records.front().map_or(0, |record| record.sequence);
            assert!(lane.anchor.tail_sequence <= tail, "an anchor never runs ahead of the tail");
        }
    }
}
