//! The loop of one core: select, apply, maintain.

mod fencing;
mod telling;
mod watching;

use std::sync::Arc;

use base::ids::{ArrayId, DeviceId, ShardId};
use base::metrics::{DeviceOp as CountedOp, Metrics};
use base::time::{Span, Time};
use ports::{DeviceError, DeviceOp, Ports, Program, Turn};

use crate::array::{ArrayPart, ArrayShard, Purpose, Work};
use crate::coordinator::{Coordinator, CoordinatorSetup};
use crate::fence::Fences;
use crate::front::{Front, FrontSetup, VolumeIo};
use crate::io::{IoDone, IoRequest};
use crate::limits::{COMPLETIONS_A_TURN, MAX_ABORTS, MAX_OPERATIONS, MESSAGES_A_TURN};
use crate::map::{VolumeMap, VolumeTables};
use crate::message::{FragmentDone, Message};
use crate::operations::{Ended, Operations};
use crate::router::Router;

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardSetup {
    /// Which shard.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u16,
    /// All volumes.
    pub volumes: VolumeMap,
    /// Its part of each array, by [`ArrayId`].
    pub arrays: Vec<ArrayPart>,
    /// On shard 0 alone: what the coordinator keeps.
    pub coordinator: Option<CoordinatorSetup>,
    /// The hosts' side; none where requests come in by [`Shard::begin`] alone.
    pub front: Option<FrontSetup>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

/// Turns that did something before gauges are set again at the latest.
const TURNS_UNCOUNTED: u32 = 256;

/// How long a shard that cannot do what is due rests before it looks again.
const OVERDUE: Span = Span::from_millis(2);

/// How far a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    /// Requests under way end; everything goes to the members.
    Draining,
    /// The coordinator knows that the lanes rest.
    Told,
    /// The coordinator says that all do.
    Ended,
}

/// All state of one core.
#[derive(Debug)]
pub struct Shard {
    shard: ShardId,
    router: Router,
    fences: Fences,
    /// Aborts of other shards' requests that were carried out here in this turn.
    aborts_tried: Vec<(ShardId, u64)>,
    arrays: Vec<ArrayShard>,
    coordinator: Option<Coordinator>,
    front: Option<Front>,
    operations: Operations<Purpose>,
    metrics: Arc<Metrics>,
    stopping: Stopping,
    prepared: bool,
    /// Turns that did something since gauges were set.
    turns_uncounted: u32,
}

/// What the front sees of the rest.
struct Requests<'a> {
    router: &'a mut Router,
    fences: &'a Fences,
}

impl<P: Ports<Message = Message>> VolumeIo<P> for Requests<'_> {
    fn begin(&mut self, ports: &mut P, request: IoRequest) -> Result<(), IoRequest> {
        self.router.begin(ports, self.fences, request)
    }

    fn abort(&mut self, ports: &mut P, token: u64) {
        self.router.abort(ports, token);
    }
}

impl Shard {
    /// A shard that has not turned yet.
    pub fn new(setup: ShardSetup) -> Self {
        let maps = setup.arrays.iter().map(|part| part.map.clone()).collect();
        let arrays = setup.arrays.into_iter().map(|part| ArrayShard::new(setup.shard, setup.shards, part)).collect();
        let mut new = Self {
            shard: setup.shard,
            router: Router::new(setup.shard, setup.shards, setup.volumes, maps),
            fences: Fences::new(),
            aborts_tried: Vec::with_capacity(usize::from(setup.shards) * MAX_ABORTS),
            arrays,
            coordinator: setup.coordinator.map(Coordinator::new),
            front: setup.front.map(Front::new),
            operations: Operations::new(MAX_OPERATIONS),
            metrics: setup.metrics,
            stopping: Stopping::No,
            prepared: false,
            turns_uncounted: 1,
        };
        // Whoever looks before the first quiet moment sees the state that was assembled, and not zeros.
        new.count();
        new
    }

    /// Takes a request to a volume, or gives it back if there is no room now.
    pub fn begin<P: Ports<Message = Message>>(&mut self, ports: &mut P, request: IoRequest) -> Result<(), IoRequest> {
        self.router.begin(ports, &self.fences, request)
    }

    /// Drops what has not begun of a request, if it is still under way. It ends as aborted if that was anything, else as if
    /// nothing had been said.
    pub fn abort<P: Ports<Message = Message>>(&mut self, ports: &mut P, token: u64) {
        self.router.abort(ports, token);
    }

    /// The next request that has ended; only where there is no front.
    pub fn done(&mut self) -> Option<IoDone> {
        assert!(self.front.is_none(), "the front takes the answers");
        self.router.done()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.router.in_flight()
    }

    /// Whether the arrays' log is still all there at the end of a stop: everything is on the members.
    pub fn is_clean(&self) -> bool {
        self.arrays.iter().all(ArrayShard::is_clean)
    }

    /// Checks the whole state; for the simulator.
    pub fn self_check(&self) {
        for array in &self.arrays {
            array.self_check();
        }
    }

    fn prepare<P: Ports<Message = Message>>(&mut self, ports: &mut P) {
        for index in 0..self.arrays.len() {
            self.with_array(ports, ArrayId(index as u16), ArrayShard::prepare);
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.prepare(ports);
        }
        self.prepared = true;
    }

    fn with_array<P: Ports<Message = Message>, R>(
        &mut self,
        ports: &mut P,
        array: ArrayId,
        apply: impl FnOnce(&mut ArrayShard, &mut Work<'_, P>) -> R,
    ) -> R {
        let now = ports.now();
        let metrics = self.metrics.shard(self.shard);
        let (metrics, devices) = (&metrics.arrays[array.index()], metrics.devices.as_slice());
        let mut work = Work { ports, operations: &mut self.operations, metrics, devices, now };
        apply(&mut self.arrays[array.index()], &mut work)
    }

    fn messages<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        for count in 0..MESSAGES_A_TURN {
            let Some((from, message)) = ports.message() else { return count > 0 };
            self.message(ports, from, message);
        }
        true
    }

    fn message<P: Ports<Message = Message>>(&mut self, ports: &mut P, from: ShardId, message: Message) {
        match message {
            Message::Fragment(fragment) => self.fragment(ports, from, fragment),
            Message::FragmentDone(done) => self.router.answered(ports, from, done),
            Message::Front(message) => {
                if let Some(front) = &mut self.front {
                    front.message(ports, from, message);
                }
            }
            Message::Raise { association, cause } => self.raise(ports, from, association, cause),
            Message::Raised(association) => {
                let front = self.front.as_mut().expect("only who raised an epoch is told");
                front.raised(ports, from, association);
            }
            Message::Abort { request } => self.abort_waiting(ports, from, request),
            Message::AbortTried { request } => self.router.abort_tried(request),
            Message::MemberFailed { .. }
            | Message::MemberErrors { .. }
            | Message::MemberSlow { .. }
            | Message::MemberHangs { .. }
            | Message::DestageBlocked { .. }
            | Message::LogPinned { .. }
            | Message::DestageUnblocked { .. }
            | Message::CopyFailed { .. }
            | Message::CopyCaughtUp { .. }
            | Message::ModeTaken { .. }
            | Message::ZoneZeroed { .. }
            | Message::ZoneDirty { .. }
            | Message::ZoneMissed { .. }
            | Message::ZonesAtStake { .. }
            | Message::ZoneWalked { .. }
            | Message::ZoneBlocked { .. }
            | Message::Drained { .. }
            | Message::Still { .. }
            | Message::Fenced { .. }
            | Message::WindowDrained { .. }
            | Message::WindowTaken { .. }
            | Message::Command(_)
            | Message::VolumesTaken { .. }
            | Message::LanesClosed => {
                let coordinator = self.coordinator.as_mut().expect("only shard 0 is told what the coordinator decides");
                coordinator.message(from, message);
            }
            Message::ZoneInitialised { array, zone } => {
                self.with_array(ports, array, |array, work| array.zone_initialised(work, zone));
            }
            Message::ZoneNoted { array, zone } => {
                self.with_array(ports, array, |array, _| array.zone_noted(zone));
            }
            Message::ZoneMarked { array, zone } => {
                self.with_array(ports, array, |array, work| array.zone_marked(work, zone));
            }
            Message::Walk { array, order } => {
                self.with_array(ports, array, |array, _| array.order(order));
            }
            Message::Map(map) => {
                let array = map.id;
                let before = self.arrays[array.index()].map().clone();
                let present = map.clone();
                self.router.set_map(map.clone());
                self.with_array(ports, array, |array, work| array.new_map(work, map));
                // From here on nothing relies on what an excluded member or copy still has in hand.
                for gone in before.devices().filter(|device| !present.devices().any(|stays| stays == *device)) {
                    self.give_up(ports, gone);
                    self.operations.unwatch(gone);
                }
            }
            Message::Volumes(tables) => {
                self.router.set_volumes(tables.volumes.clone(), tables.epoch);
                if let (Some(front), Some(exports)) = (&mut self.front, &tables.exports) {
                    front.set_exports(exports.clone());
                }
            }
            Message::Stop => self.stop(ports),
            Message::End => self.stopping = Stopping::Ended,
            Message::AskStatus => {
                let status = Message::Status(Box::new(self.status(ports.now())));
                // The control side asks again if its queue was full.
                let _unsent = ports.post(from, status);
            }
            Message::Status(_) | Message::Answer(_) | Message::Event(_) => {
                unreachable!("these go to the control side")
            }
        }
    }

    /// Begins a clean stop; told to shard 0, it tells the others.
    pub fn stop<P: Ports<Message = Message>>(&mut self, ports: &mut P) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Draining;
        if let Some(front) = &mut self.front {
            front.stop(ports);
        }
        self.router.stop();
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.stop();
        }
    }

    fn completions<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        for count in 0..COMPLETIONS_A_TURN {
            let Some(completion) = ports.completion() else { return count > 0 };
            let metrics = self.metrics.shard(self.shard);
            let Ended { purpose, device, op, blocks, took, result } = match self.operations.complete(completion) {
                Ok(ended) => ended,
                Err(device) => {
                    metrics.devices[device.index()].retries.increment();
                    continue;
                }
            };
            let counted = match op {
                DeviceOp::Read => CountedOp::Read,
                DeviceOp::Write | DeviceOp::WriteDurable => CountedOp::Write,
                DeviceOp::Flush => CountedOp::Flush,
                DeviceOp::WriteZeroes(_) => CountedOp::Zero,
            };
            let bytes = blocks * base::BLOCK as u64;
            metrics.devices[device.index()].record(counted, bytes, took, result.is_ok());
            // Nobody waits any more for what was given up.
            if let Some(purpose) = purpose {
                self.completed(ports, purpose, (device, took), result);
            }
        }
        true
    }

    fn completed<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        purpose: Purpose,
        answer: (DeviceId, Span),
        result: Result<(), DeviceError>,
    ) {
        match purpose {
            Purpose::Coordinator { write } => {
                let coordinator = self.coordinator.as_mut().expect("the coordinator's own operation");
                coordinator.completed(write, result.is_ok());
            }
            Purpose::Record { array, .. }
            | Purpose::Anchor { array, .. }
            | Purpose::LogRead { array, .. }
            | Purpose::Read { array, .. }
            | Purpose::DestageRead { array, .. }
            | Purpose::Mend { array, .. }
            | Purpose::DestageWrite { array, .. }
            | Purpose::MemberFlush { array, .. }
            | Purpose::ZoneZero { array, .. }
            | Purpose::ZoneFlush { array, .. }
            | Purpose::CleanFlush { array, .. }
            | Purpose::ChecksumRead { array, .. }
            | Purpose::ChecksumWrite { array, .. }
            | Purpose::Walk { array, .. } => {
                self.with_array(ports, array, |array, work| array.completed(work, purpose, answer, result));
            }
        }
    }

    /// Fragments to this shard's arrays, answers to routers, reports to the coordinator.
    fn exchange<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        let mut worked = false;
        while let Some(fragment) = self.router.local() {
            worked = true;
            self.fragment(ports, self.shard, fragment);
        }
        for index in 0..self.arrays.len() {
            while let Some((to, done)) = self.arrays[index].answer(ports.now()) {
                worked = true;
                self.answer(ports, to, done);
            }
            while let Some(report) = self.arrays[index].report() {
                worked = true;
                match &mut self.coordinator {
                    Some(coordinator) => coordinator.message(self.shard, report),
                    None => {
                        let posted = ports.post(ShardId(0), report);
                        assert!(posted.is_ok(), "the mesh keeps room for reports");
                    }
                }
            }
        }
        worked
    }

    fn answer<P: Ports<Message = Message>>(&mut self, ports: &mut P, to: ShardId, done: FragmentDone) {
        if to == self.shard {
            self.router.answered(ports, to, done);
        } else {
            let posted = ports.post(to, Message::FragmentDone(done));
            assert!(posted.is_ok(), "the place of an answer is reserved with the fragment");
        }
    }

    fn deliver<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        let Some(front) = &mut self.front else { return false };
        let mut worked = false;
        while let Some(done) = self.router.done() {
            worked = true;
            front.io_done(ports, done);
        }
        // The answers go out in this turn.
        front.send(ports);
        while let Some(news) = front.news() {
            let control = ports.control();
            if let Err(Message::Event(news)) = ports.post(control, Message::Event(Box::new(news))) {
                front.take_back(*news);
                break;
            }
        }
        worked
    }

    fn coordinate<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        let taken = self.router.taken().map(|epoch| Message::VolumesTaken { epoch });
        let fenced = self.router.fenced().map(|(array, run)| Message::Fenced { array, run });
        for said in taken.into_iter().chain(fenced) {
            match &mut self.coordinator {
                Some(coordinator) => coordinator.message(self.shard, said),
                None => {
                    let posted = ports.post(ShardId(0), said);
                    assert!(posted.is_ok(), "the mesh keeps room for reports");
                }
            }
        }
        let Some(coordinator) = &mut self.coordinator else { return false };
        let mut worked = coordinator.maintain(ports, &mut self.operations);
        worked |= coordinator.run_jobs(ports, &mut self.router);
        coordinator.tell_control(ports);
        while let Some(device) = self.coordinator.as_mut().and_then(Coordinator::device_to_give_up) {
            worked = true;
            self.give_up(ports, device);
        }
        while let Some((to, message)) = self.coordinator.as_mut().and_then(Coordinator::next_message) {
            worked = true;
            if to == self.shard {
                self.message(ports, to, message);
            } else if let Err(message) = ports.post(to, message) {
                self.coordinator.as_mut().expect("it was there just now").take_back(to, message);
                break;
            }
        }
        worked
    }

    /// Once nothing is under way, the arrays are told to stop; once their lanes rest, the coordinator is.
    /// Whether there is a next step to take.
    fn drain<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        if self.stopping != Stopping::Draining || !self.router.is_idle() {
            return false;
        }
        let begun = self.arrays.iter_mut().filter_map(|array| array.stop().then_some(())).count() > 0;
        if self.arrays.iter().all(ArrayShard::is_closed) {
            let told = match &mut self.coordinator {
                Some(coordinator) => {
                    coordinator.message(self.shard, Message::LanesClosed);
                    true
                }
                None => ports.post(ShardId(0), Message::LanesClosed).is_ok(),
            };
            if told {
                self.stopping = Stopping::Told;
            }
            return told;
        }
        begun
    }

    fn deadline(&self) -> Time {
        let front = self.front.as_ref().map_or(Time::NEVER, Front::deadline);
        let answers = self.operations.deadline();
        let jobs = self.coordinator.as_ref().map_or(Time::NEVER, Coordinator::deadline);
        let deadline = front.min(answers).min(jobs);
        self.arrays.iter().map(ArrayShard::deadline).fold(deadline, Time::min)
    }

    /// What volumes there are; on shard 0 alone.
    pub fn tables(&self) -> Option<&Arc<VolumeTables>> {
        self.coordinator.as_ref().map(Coordinator::tables)
    }
}

impl<P: Ports<Message = Message>> Program<P> for Shard {
    fn turn(&mut self, ports: &mut P) -> Turn {
        if !self.prepared {
            self.prepare(ports);
        }
        let began = ports.now();
        self.operations.set_time(began);
        let mut worked = self.messages(ports);
        worked |= self.completions(ports);
        worked |= self.watch(ports);
        if let Some(front) = &mut self.front {
            let (router, fences) = (&mut self.router, &self.fences);
            worked |= front.turn(ports, &mut Requests { router, fences });
        }
        worked |= self.raise_everywhere(ports);
        worked |= self.abort_everywhere(ports);
        self.router.maintain(ports);
        worked |= self.exchange(ports);
        for index in 0..self.arrays.len() {
            self.with_array(ports, ArrayId(index as u16), ArrayShard::maintain);
        }
        self.operations.retry(ports);
        worked |= self.exchange(ports);
        worked |= self.deliver(ports);
        worked |= self.confirm(ports);
        worked |= self.coordinate(ports);
        worked |= self.drain(ports);
        // Gauges are for people: they follow when there is time, or now and then.
        self.turns_uncounted += u32::from(worked);
        if !worked || self.turns_uncounted >= TURNS_UNCOUNTED {
            self.count();
        }
        // Devices may still work on buffers, for an exclusion or for an array that takes no writes any more.
        let ended = self.stopping == Stopping::Ended && self.operations.is_idle();
        if ended {
            for array in &mut self.arrays {
                array.release(ports, &self.operations);
            }
            if let Some(coordinator) = &mut self.coordinator {
                coordinator.release(ports, &self.operations);
            }
        }
        let busy = self.router.has_work() || self.arrays.iter().any(ArrayShard::has_work);
        let worked = worked || busy;
        // Who has worked is turned again at once. What was due before and was not done waits for something else, maybe for a
        // device that hangs: mostly that wakes the shard.
        let deadline = if worked { Time(0) } else { self.deadline() };
        let deadline = if worked || deadline > began { deadline } else { ports.now() + OVERDUE };
        Turn { worked, deadline, ended }
    }
}
