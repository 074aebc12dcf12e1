//! A tiny store for the simulator's own tests: right by itself, and wrong in one way for each mistake that an oracle is to
//! find. One device, one request at a time. Each volume block has three device blocks: a pointer, of which only the first
//! sector counts and which therefore is never torn, and two places for content, written in turn.

use std::collections::VecDeque;

use base::BLOCK;
use base::ids::{DeviceBlock, DeviceId, Lba, ShardId};
use base::sector::LogicalBlock;
use base::time::Time;
use engine::fence::Association;
use engine::io::{IoDone, IoError, IoKind, IoRequest};
use ports::{BufferId, BufferList, Buffers, DeviceError, DeviceOp, DeviceRequest, Devices, Mesh, SyncDevice, Turn};

use crate::boot_device::BootDevice;
use crate::failure::Failure;
use crate::killing::KillOptions;
use crate::oracle::Oracle;
use crate::ports::SimPorts;
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::{Scenario, Window};
use crate::subject::Subject;

/// Volume blocks of the store.
const BLOCKS: usize = 64;

/// What is wrong with a store.
pub(crate) const NOTHING: u8 = 0;
/// The pointer is written before its content is durable.
pub(crate) const NO_FLUSH: u8 = 1;
/// A request is answered before anything is written.
pub(crate) const EARLY_ANSWER: u8 = 2;
/// A buffer is kept for ever.
pub(crate) const LEAK: u8 = 3;
/// A request is never answered.
pub(crate) const SILENCE: u8 = 4;
/// A write also changes the next block.
pub(crate) const STRAY_WRITE: u8 = 5;
/// Content is overwritten in place.
pub(crate) const IN_PLACE: u8 = 6;
/// What a killed host asked for is done after its end was confirmed, and answered as aborted.
pub(crate) const LATE_WRITE: u8 = 20;
/// The end of a host is confirmed while something of it is under way.
pub(crate) const EARLY_CONFIRMATION: u8 = 21;
/// A write that its host wanted no more is answered as aborted, and done later.
pub(crate) const UNDEAD_WRITE: u8 = 22;

/// A read that found nothing is taken for one that did.
pub(crate) const TRUST_UNREADABLE: u8 = 7;
/// A request that ended with an error that passes is taken for one that did not.
pub(crate) const TRUST_HICCUP: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Content,
    Flushing,
    Pointer,
}

struct Current {
    request: IoRequest,
    ids: Vec<BufferId>,
    at: usize,
    stage: Stage,
    pointer: Option<ports::Buffer>,
}

/// The store with a mistake.
pub(crate) struct Toy<const MISTAKE: u8> {
    counters: Vec<u64>,
    waiting: VecDeque<IoRequest>,
    current: Option<Current>,
    done: VecDeque<IoDone>,
    answered: u64,
    epochs: Vec<u32>,
    ending: Vec<Association>,
    stopping: bool,
}

/// A scenario that the store can serve: one shard, small windows, chunks of one block.
pub(crate) fn scenario(seed: u64) -> Scenario {
    let mut scenario = Scenario::draw_at(seed, Some(raid::Level::Raid5));
    scenario.shards = 1;
    scenario.carving = None;
    scenario.degraded.clear();
    scenario.workload.discards = None;
    scenario.workload.compares_once_in = 0;
    scenario.workload.aborts_once_in = 10;
    scenario.workload.logical = LogicalBlock::Block;
    scenario.member_cache = true;
    scenario.members_are_zero = true;
    scenario.probe_losses = false;
    scenario.kills = Some(KillOptions { hosts: 2, once_in: 40, kills: 20, late_once_in: 8, late: 99 });
    scenario.workload.windows = vec![Window { start: Lba(0), blocks: BLOCKS as u32 - 8 }];
    scenario.workload.atomic_blocks = 1;
    scenario.workload.row_blocks = 8;
    scenario.workload.requests = 120;
    scenario.workload.max_blocks = 8;
    scenario.faults.retain(|planned| planned.fault == crate::fault::Fault::PowerCut);
    scenario
}

fn place(lba: u64, counter: u64) -> DeviceBlock {
    DeviceBlock(lba * 3 + 1 + counter % 2)
}

impl<const MISTAKE: u8> Toy<MISTAKE> {
    fn submit(&mut self, ports: &mut SimPorts<Association>) {
        let current = self.current.as_mut().expect("a request under way");
        let lba = current.request.lba.0 + current.at as u64;
        let counter = self.counters[lba as usize];
        let next = if MISTAKE == IN_PLACE { counter } else { counter + 1 };
        let (op, start, buffers) = match (current.stage, current.request.kind) {
            (Stage::Content, IoKind::Read) => (DeviceOp::Read, place(lba, counter), vec![current.ids[current.at]]),
            (Stage::Content, IoKind::Write) => (DeviceOp::Write, place(lba, next), vec![current.ids[current.at]]),
            (Stage::Content, _) => (DeviceOp::WriteZeroes(1), place(lba, next), Vec::new()),
            (Stage::Flushing, _) => (DeviceOp::Flush, DeviceBlock(0), Vec::new()),
            (Stage::Pointer, _) => {
                let pointer = current.pointer.get_or_insert_with(|| ports.alloc().expect("hosts leave some"));
                let bytes = ports.bytes_mut(pointer.id());
                bytes.fill(0);
                bytes[..8].copy_from_slice(&next.to_le_bytes());
                (DeviceOp::WriteDurable, DeviceBlock(lba * 3), vec![pointer.id()])
            }
        };
        let request = DeviceRequest { tag: 1, device: DeviceId(0), op, start, buffers: &buffers };
        ports.submit(request).expect("one request at a time finds room");
    }

    fn advance(&mut self, ports: &mut SimPorts<Association>) {
        let current = self.current.as_mut().expect("a request under way");
        let lba = (current.request.lba.0 + current.at as u64) as usize;
        current.stage = match (current.stage, current.request.kind) {
            (Stage::Content, IoKind::Read) => {
                current.at += 1;
                Stage::Content
            }
            (Stage::Content, _) if MISTAKE == NO_FLUSH => Stage::Pointer,
            (Stage::Content, _) => Stage::Flushing,
            (Stage::Flushing, _) => Stage::Pointer,
            (Stage::Pointer, _) => {
                if MISTAKE != IN_PLACE {
                    self.counters[lba] += 1;
                }
                if MISTAKE == STRAY_WRITE && self.answered % 20 == 19 {
                    self.counters[lba + 1] += 1;
                }
                current.at += 1;
                Stage::Content
            }
        };
        if current.at < current.request.blocks as usize {
            return self.submit(ports);
        }
        let Current { request, pointer, .. } = self.current.take().expect("it was there just now");
        if let Some(pointer) = pointer {
            ports.free(pointer);
        }
        let mut buffers = request.buffers;
        if request.kind == IoKind::Write {
            core::mem::take(&mut buffers).free(ports);
        }
        if MISTAKE != EARLY_ANSWER || request.kind == IoKind::Read {
            self.answer(ports, request.token, buffers);
        }
    }

    fn drop_one(&mut self, ports: &mut SimPorts<Association>, request: IoRequest) {
        self.done.push_back(IoDone { token: request.token, result: Err(IoError::Aborted), buffers: BufferList::EMPTY });
        if matches!(MISTAKE, LATE_WRITE | UNDEAD_WRITE) && request.kind == IoKind::Write {
            let forgotten = Association { id: request.association.id, epoch: u32::MAX };
            return self.waiting.push_back(IoRequest { association: forgotten, token: u64::MAX, ..request });
        }
        request.buffers.free(ports);
    }

    fn end_association(&mut self, ports: &mut SimPorts<Association>, association: Association) {
        self.epochs[usize::from(association.id)] = association.epoch;
        for _ in 0..self.waiting.len() {
            let request = self.waiting.pop_front().expect("as many as there were");
            if request.association.is_before(association) {
                self.drop_one(ports, request);
            } else {
                self.waiting.push_back(request);
            }
        }
        self.ending.push(association);
    }

    fn confirm(&mut self, ports: &mut SimPorts<Association>) {
        let current = self.current.as_ref().map(|current| current.request.association);
        for _ in 0..self.ending.len() {
            let association = self.ending.remove(0);
            let under_way = current.is_some_and(|current| current.is_before(association));
            if under_way && MISTAKE != EARLY_CONFIRMATION {
                self.ending.push(association);
            } else {
                ports.post(ports.control(), association).expect("room");
            }
        }
    }

    fn answer(&mut self, ports: &mut SimPorts<Association>, token: u64, buffers: BufferList) {
        if token == u64::MAX {
            return buffers.free(ports);
        }
        self.answered += 1;
        if MISTAKE == SILENCE && self.answered == 40 {
            return buffers.free(ports);
        }
        if MISTAKE == LEAK && self.answered == 40 {
            let _ = ports.alloc();
        }
        self.done.push_back(IoDone { token, result: Ok(()), buffers });
    }
}

impl<const MISTAKE: u8> Subject for Toy<MISTAKE> {
    type Message = Association;
    const MESH_CAPACITY: usize = 8;

    fn create(_: &Scenario, _: &mut [Option<BootDevice>], _: &mut Random) -> Result<(), String> {
        Ok(())
    }

    fn boot(_: &Scenario, devices: &mut [Option<BootDevice>], _: &mut Random) -> Result<Vec<Self>, String> {
        let mut pointers = vec![[0; BLOCK]; BLOCKS];
        let device = devices[0].as_mut().ok_or("no device")?;
        for (lba, pointer) in (0..).zip(&mut pointers) {
            let read = device.read(DeviceBlock(3 * lba), core::slice::from_mut(pointer));
            read.map_err(|error| format!("{error:?}"))?;
        }
        let counter = |pointer: &[u8; BLOCK]| u64::from_le_bytes(*pointer.first_chunk().expect("eight bytes"));
        Ok(vec![Self {
            counters: pointers.iter().map(counter).collect(),
            waiting: VecDeque::new(),
            current: None,
            done: VecDeque::new(),
            answered: 0,
            epochs: vec![0; 8],
            ending: Vec::new(),
            stopping: false,
        }])
    }

    fn begin(&mut self, ports: &mut SimPorts<Association>, request: IoRequest) -> Result<(), IoRequest> {
        if self.waiting.len() == 4 {
            return Err(request);
        }
        if MISTAKE == EARLY_ANSWER && request.kind != IoKind::Read {
            self.answer(ports, request.token, BufferList::EMPTY);
        }
        if request.association.epoch < self.epochs[usize::from(request.association.id)] {
            self.drop_one(ports, request);
            return Ok(());
        }
        self.waiting.push_back(request);
        Ok(())
    }

    fn abort(&mut self, ports: &mut SimPorts<Association>, token: u64) {
        let at = self.waiting.iter().position(|request| request.token == token);
        if let Some(request) = at.and_then(|at| self.waiting.remove(at)) {
            self.drop_one(ports, request);
        }
    }

    fn turn(&mut self, ports: &mut SimPorts<Association>) -> Turn {
        let mut worked = false;
        while let Some((_, association)) = ports.message() {
            worked = true;
            self.end_association(ports, association);
        }
        while let Some(completion) = ports.completion() {
            worked = true;
            match completion.result {
                Ok(()) => self.advance(ports),
                Err(DeviceError::Unreadable) if MISTAKE == TRUST_UNREADABLE => self.advance(ports),
                Err(DeviceError::Other(_)) if MISTAKE == TRUST_HICCUP => self.advance(ports),
                Err(DeviceError::Other(_)) => self.submit(ports),
                Err(error) => panic!("{error:?}"),
            }
        }
        if self.current.is_none()
            && let Some(request) = self.waiting.pop_front()
        {
            worked = true;
            if request.kind == IoKind::Flush {
                if MISTAKE != EARLY_ANSWER {
                    self.answer(ports, request.token, BufferList::EMPTY);
                }
            } else {
                let ids = request.buffers.ids(ports).collect();
                self.current = Some(Current { request, ids, at: 0, stage: Stage::Content, pointer: None });
                self.submit(ports);
            }
        }
        self.confirm(ports);
        let ended = self.stopping && self.current.is_none() && self.waiting.is_empty();
        Turn { worked, deadline: Time::NEVER, ended }
    }

    fn done(&mut self) -> Option<IoDone> {
        self.done.pop_front()
    }

    fn stop(shards: &mut [Self], _: &mut SimPorts<Association>) {
        shards[0].stopping = true;
    }

    fn raise(ports: &mut SimPorts<Association>, _: u16, association: Association) {
        ports.control_post(ShardId(0), association).expect("room");
    }

    fn raised(message: &Association) -> Option<Association> {
        Some(*message)
    }

    fn audit(_: &Scenario, _: &Rack) -> Result<(), Failure> {
        Ok(())
    }

    fn audit_read(_: &Scenario, _: &Rack) -> Result<(), Failure> {
        Ok(())
    }

    fn audit_without_log(_: &Scenario, _: &Rack, _: &Oracle) -> Result<(), Failure> {
        Ok(())
    }
}

mod tests {
    use super::*;
    use crate::fault::{Fault, PlannedFault};
    use crate::world::{Report, World};

    fn run<const MISTAKE: u8>(seed: u64) -> Result<Report, Failure> {
        let mut scenario = scenario(seed);
        if !matches!(MISTAKE, NOTHING | LATE_WRITE | EARLY_CONFIRMATION) {
            scenario.kills = None;
        }
        if !matches!(MISTAKE, NOTHING | UNDEAD_WRITE) {
            scenario.workload.aborts_once_in = 0;
        }
        World::create::<Toy<MISTAKE>>(scenario, false)?.run::<Toy<MISTAKE>>()
    }

    fn findings<const MISTAKE: u8>() -> Vec<Failure> {
        (0..30).filter_map(|seed| run::<MISTAKE>(seed).err()).collect()
    }

    #[test]
    fn a_store_without_a_mistake_passes_and_the_same_seed_gives_the_same_trace() {
        let mut cuts = 0;
        let mut traces = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let first = run::<NOTHING>(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            assert_eq!(run::<NOTHING>(seed).expect("it passed just now"), first);
            cuts += first.cuts;
            traces.insert(first.trace);
        }
        assert_eq!(traces.len(), 40);
        assert!(cuts > 40, "{cuts}");
    }

    fn ailing<const MISTAKE: u8>(hiccups_once_in: u64, unreadable: bool) -> Vec<Failure> {
        let run = |seed| {
            let mut scenario = scenario(seed);
            scenario.hiccups_once_in = hiccups_once_in;
            if unreadable {
                let spoil = |at| {
                    let fault = Fault::Unreadable { device: DeviceId(0), block: place(at % 8, at) };
                    PlannedFault { effect: 40 + 20 * at, fault }
                };
                scenario.faults.extend((0..8).map(spoil));
            }
            World::create::<Toy<MISTAKE>>(scenario, false)?.run::<Toy<MISTAKE>>()
        };
        (0..30).filter_map(|seed| run(seed).err()).collect()
    }

    #[test]
    fn who_ignores_what_a_drive_says_is_found() {
        let tried_again = ailing::<NOTHING>(5, false);
        assert!(tried_again.is_empty(), "{tried_again:?}");
        for found in [ailing::<TRUST_HICCUP>(5, false), ailing::<TRUST_UNREADABLE>(0, true)] {
            let content = |failure: &Failure| matches!(failure, Failure::Content { .. });
            assert!(!found.is_empty() && found.iter().all(content), "{found:?}");
        }
    }

    #[test]
    fn each_mistake_is_found_by_the_oracle_it_belongs_to() {
        let content = |failure: &Failure| matches!(failure, Failure::Content { .. });
        for found in
            [findings::<NO_FLUSH>(), findings::<EARLY_ANSWER>(), findings::<STRAY_WRITE>(), findings::<IN_PLACE>()]
        {
            assert!(!found.is_empty() && found.iter().all(content), "{found:?}");
        }
        for late in [findings::<LATE_WRITE>(), findings::<UNDEAD_WRITE>()] {
            assert!(!late.is_empty() && late.iter().all(content), "{late:?}");
        }
        let early = findings::<EARLY_CONFIRMATION>();
        assert!(!early.is_empty() && early.iter().all(|failure| matches!(failure, Failure::ConfirmedEarly { .. })));
        let leaks = findings::<LEAK>();
        assert!(!leaks.is_empty() && leaks.iter().all(|failure| matches!(failure, Failure::Buffers { count: 1.. })));
        let silence = findings::<SILENCE>();
        assert!(!silence.is_empty() && silence.iter().all(|failure| matches!(failure, Failure::Stuck { .. })));
    }
}
