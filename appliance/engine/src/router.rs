//! Splits requests to volumes into fragments at the borders of atomic units, sends each to the owner of its zone, and puts the answers
//! together. It knows where blocks lie and who owns them, never what is in them.
//!
//! A request whose fragments cannot all be sent at once (no credit at the owner) waits in order with its cursor; an answer
//! always has room, because its credit was taken with the fragment. Requests for zeros have a way of their own: [`zeros`]. Hosts may
//! change their mind: [`abort`]. Blocks that move are nobody's for a while: [`moving`].

mod abort;
mod moving;
mod zeros;

use std::collections::VecDeque;

use base::ids::{ArrayBlock, ArrayId, Lba, ShardId};
use base::sector::Margins;
use base::slab::{Key, Slab};
use base::snapshot::Snapshot;
use nvme::dataset::MAX_RANGES;
use ports::{BufferId, BufferList, Buffers, Ports};

use self::abort::Abort;
pub(crate) use self::abort::Dropped;
use crate::fence::{ASSOCIATIONS, Association, Fences};
use crate::io::{IoDone, IoError, IoKind, IoRequest, MAX_REQUEST_BLOCKS};
use crate::limits::{FRAGMENT_CREDITS, LOCAL_FRAGMENTS, MAX_ABORTS, MAX_REQUESTS, ZERO_FRAGMENTS, atomic_blocks};
use crate::map::{ArrayMap, Volume, VolumeMap};
use crate::message::{Fragment, FragmentDone, FragmentKind, Message};

/// Whose blocks a request counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// A volume's, by its place.
    Volume(usize),
    /// The array's own: what no volume has any more.
    Array(ArrayId),
}

/// A request of a job.
#[derive(Debug)]
pub(crate) struct JobRequest {
    pub(crate) token: u64,
    pub(crate) target: Target,
    pub(crate) lba: Lba,
    pub(crate) kind: FragmentKind,
    pub(crate) blocks: u32,
    pub(crate) margins: Margins,
    pub(crate) buffers: BufferList,
}

#[derive(Debug)]
struct Request {
    token: u64,
    association: Association,
    /// Its association has ended, and its end is waited for.
    fenced: bool,
    target: Target,
    /// Whether a job waits for it, and not a host.
    for_job: bool,
    kind: FragmentKind,
    lba: Lba,
    blocks: u32,
    margins: Margins,
    /// Blocks whose fragments have been sent.
    sent: u32,
    /// Fragments sent and not yet answered.
    unanswered: u32,
    result: Result<(), IoError>,
    /// Buffers of the fragments still to be sent, or that of a list of ranges.
    buffers: BufferList,
    /// Ranges of that list, and those of which `lba`, `blocks` and `sent` have spoken.
    ranges: u32,
    range: u32,
    /// The place in [`Router::ids`] where a read's buffers stand in order, for putting them together again.
    ids: usize,
}

/// The requests of one shard.
#[derive(Debug)]
pub(crate) struct Router {
    shard: ShardId,
    volumes: VolumeMap,
    arrays: Vec<Snapshot<ArrayMap>>,
    requests: Slab<Request>,
    /// Requests with fragments still to be sent, oldest first.
    sending: VecDeque<Key<Request>>,
    /// The same of requests for zeros, in turns.
    zeroing: VecDeque<Key<Request>>,
    /// Requests that wait for blocks to have moved.
    held: VecDeque<Key<Request>>,
    /// The coordinator waits until no request uses blocks that are to move.
    fencing: Vec<(ArrayId, u32)>,
    credits: Vec<usize>,
    zero_credits: usize,
    local: VecDeque<Fragment>,
    done: VecDeque<IoDone>,
    jobs_done: VecDeque<IoDone>,
    /// The coordinator waits until nothing is under way at volumes that leave with this table.
    draining: Option<u64>,
    /// Buffer names of reads in more than one fragment, one row a request.
    ids: Vec<[BufferId; MAX_REQUEST_BLOCKS as usize]>,
    free_ids: Vec<usize>,
    /// Requests under way, by the identifier of their association.
    under_way: Vec<u16>,
    /// Fenced requests that have ended since the shard last looked.
    fenced_ended: Vec<Association>,
    /// Aborts under way, and the tokens of requests whose abort came to nothing.
    aborts: Vec<Abort>,
    go_on: VecDeque<u64>,
    stopping: bool,
}

/// How far a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// All that was to be.
    All,
    /// Its owner has as much as it takes.
    NoCredit,
    /// The next of its blocks are about to move.
    Fenced,
}

const NO_IDS: usize = usize::MAX;

/// Reads in more than one fragment at a time on one shard: each may hold up to a megabyte of buffers anyway.
const SPLIT_READS: usize = 512;

impl Router {
    pub(crate) fn new(shard: ShardId, shards: u16, volumes: VolumeMap, arrays: Vec<Snapshot<ArrayMap>>) -> Self {
        let credits = (0..shards).map(|to| if to == shard.0 { LOCAL_FRAGMENTS } else { FRAGMENT_CREDITS }).collect();
        Self {
            shard,
            volumes,
            arrays,
            requests: Slab::new(MAX_REQUESTS),
            sending: VecDeque::with_capacity(MAX_REQUESTS),
            zeroing: VecDeque::with_capacity(MAX_REQUESTS),
            held: VecDeque::with_capacity(MAX_REQUESTS),
            fencing: Vec::new(),
            credits,
            zero_credits: ZERO_FRAGMENTS,
            local: VecDeque::with_capacity(LOCAL_FRAGMENTS),
            done: VecDeque::with_capacity(2 * MAX_REQUESTS),
            jobs_done: VecDeque::with_capacity(64),
            draining: None,
            ids: vec![[BufferId(0); MAX_REQUEST_BLOCKS as usize]; SPLIT_READS],
            free_ids: (0..SPLIT_READS).rev().collect(),
            under_way: vec![0; ASSOCIATIONS],
            fenced_ended: Vec::with_capacity(MAX_REQUESTS),
            aborts: Vec::with_capacity(MAX_ABORTS),
            go_on: VecDeque::with_capacity(MAX_ABORTS),
            stopping: false,
        }
    }

    /// Takes a request, or gives it back if there is no room now.
    pub(crate) fn begin<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        fences: &Fences,
        request: IoRequest,
    ) -> Result<(), IoRequest> {
        if self.done.len() >= MAX_REQUESTS || self.requests.is_full() {
            return Err(request);
        }
        let is_stale = fences.is_stale(request.association);
        let refusal = if is_stale { Some(IoError::Aborted) } else { self.refusal(ports, &request) };
        if refusal.is_some() || request.kind == IoKind::Flush || request.blocks == 0 {
            // A flush has nothing to wait for: what was acknowledged is durable in the log or on the members.
            request.buffers.free(ports);
            let result = refusal.map_or(Ok(()), Err);
            self.done.push_back(IoDone { token: request.token, result, buffers: BufferList::EMPTY });
            return Ok(());
        }
        let kind = match request.kind {
            IoKind::Read => FragmentKind::Read,
            IoKind::Write => FragmentKind::Write,
            IoKind::Compare => FragmentKind::Compare,
            IoKind::CompareAndWrite => FragmentKind::CompareAndWrite,
            IoKind::WriteZeroes | IoKind::Deallocate | IoKind::Flush => FragmentKind::Zero,
        };
        let ranges = if request.kind == IoKind::Deallocate { request.blocks } else { 0 };
        let IoRequest { token, lba, blocks, margins, .. } = request;
        let target = Target::Volume(request.volume.index());
        let own = JobRequest { token, target, lba, kind, blocks, margins, buffers: request.buffers };
        let started = self.start(ports, own, ranges, Some(request.association));
        started.map_err(|refused| IoRequest { buffers: refused.buffers, ..request })
    }

    /// Takes a request of a job, or gives it back if there is no room now.
    pub(crate) fn begin_job<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        request: JobRequest,
    ) -> Result<(), JobRequest> {
        if self.requests.is_full() {
            return Err(request);
        }
        let refusal = match request.target {
            _ if self.stopping => Some(IoError::Stopping),
            Target::Volume(volume) if self.volume(volume).is_none() => Some(IoError::NoVolume),
            Target::Volume(_) | Target::Array(_) => None,
        };
        if let Some(error) = refusal {
            request.buffers.free(ports);
            let done = IoDone { token: request.token, result: Err(error), buffers: BufferList::EMPTY };
            self.jobs_done.push_back(done);
            return Ok(());
        }
        self.start(ports, request, 0, None)
    }

    fn start<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        request: JobRequest,
        ranges: u32,
        host: Option<Association>,
    ) -> Result<(), JobRequest> {
        // Nobody's association ends while a job needs it.
        let (association, for_job) = (host.unwrap_or(Association::NONE), host.is_none());
        let JobRequest { token, target, lba, kind, blocks, margins, .. } = request;
        let expected = match kind {
            FragmentKind::Zero => usize::from(ranges > 0),
            FragmentKind::CompareAndWrite => 2 * blocks as usize,
            FragmentKind::Read | FragmentKind::Write | FragmentKind::Move | FragmentKind::Compare => blocks as usize,
        };
        assert_eq!(request.buffers.len(), expected, "a read or write brings one buffer for each block");
        let mut ids = NO_IDS;
        if kind == FragmentKind::Read && self.next_fragment(target, lba, blocks).2 < blocks {
            let Some(row) = self.free_ids.pop() else { return Err(request) };
            for (place, id) in self.ids[row].iter_mut().zip(request.buffers.ids(ports)) {
                *place = id;
            }
            ids = row;
        }
        let entry = Request {
            token,
            association,
            fenced: false,
            target,
            for_job,
            kind,
            lba,
            blocks,
            margins,
            sent: 0,
            unanswered: 0,
            result: Ok(()),
            buffers: request.buffers,
            ranges,
            range: 0,
            ids,
        };
        self.under_way[usize::from(entry.association.id)] += 1;
        let Ok(key) = self.requests.insert(entry) else { unreachable!("there was room above") };
        if kind == FragmentKind::Zero {
            self.begin_zeros(ports, key);
        } else if self.sending.is_empty() {
            match self.send(ports, key) {
                Sent::All => {}
                Sent::NoCredit => self.sending.push_back(key),
                Sent::Fenced => self.held.push_back(key),
            }
        } else {
            self.sending.push_back(key);
        }
        Ok(())
    }

    fn refusal(&self, pool: &impl Buffers, request: &IoRequest) -> Option<IoError> {
        if self.stopping {
            return Some(IoError::Stopping);
        }
        let Some(volume) = self.volume(request.volume.index()) else { return Some(IoError::NoVolume) };
        let most = match request.kind {
            IoKind::Read | IoKind::Write | IoKind::Compare | IoKind::CompareAndWrite | IoKind::Flush => {
                MAX_REQUEST_BLOCKS
            }
            IoKind::WriteZeroes => u32::MAX,
            IoKind::Deallocate => MAX_RANGES,
        };
        let fits = request.blocks <= most && Self::lies_within(pool, request, volume.blocks);
        if !fits {
            Some(IoError::OutOfRange)
        } else if request.kind == IoKind::CompareAndWrite && !self.is_one_fragment(request) {
            Some(IoError::NotOneUnit)
        } else {
            None
        }
    }

    /// Whether a request lies within one atomic unit. It lies within its volume.
    fn is_one_fragment(&self, request: &IoRequest) -> bool {
        let target = Target::Volume(request.volume.index());
        request.blocks == 0 || self.next_fragment(target, request.lba, request.blocks).2 == request.blocks
    }

    /// A volume that takes requests.
    fn volume(&self, at: usize) -> Option<&Volume> {
        self.volumes.get(at).filter(|volume| !volume.leaving)
    }

    /// Takes a new table of volumes. Requests under way at volumes that leave go on, with no others behind them.
    pub(crate) fn set_volumes(&mut self, volumes: VolumeMap, epoch: u64) {
        self.volumes = volumes;
        self.draining = Some(epoch);
    }

    /// The table that is in force here since the last call: nothing is under way at volumes that leave with it.
    pub(crate) fn taken(&mut self) -> Option<u64> {
        self.draining?;
        let leaves = |request: &Request| match request.target {
            Target::Volume(volume) => self.volumes[volume].leaving,
            Target::Array(_) => false,
        };
        if self.requests.iter().any(|(_, request)| leaves(request)) {
            return None;
        }
        self.draining.take()
    }

    /// The longest run from `lba` that one fragment may cover: no fragment crosses a border of atomic units, and the part of a
    /// request within one is one fragment.
    fn next_fragment(&self, target: Target, lba: Lba, blocks: u32) -> (ArrayId, ArrayBlock, u32) {
        let (array, start, run) = match target {
            Target::Volume(volume) => {
                let volume = &self.volumes[volume];
                let (start, run) = volume.resolve(lba, blocks).expect("the range was checked against the volume's end");
                (volume.array, start, run)
            }
            Target::Array(array) => (array, ArrayBlock(lba.0), blocks),
        };
        let unit = atomic_blocks(self.arrays[array.index()].arrangement.chunk_blocks());
        let in_unit = unit - (start.0 % u64::from(unit)) as u32;
        (array, start, run.min(in_unit))
    }

    /// Sends what is left of a request as far as it goes.
    fn send<P: Ports<Message = Message>>(&mut self, ports: &mut P, key: Key<Request>) -> Sent {
        while self.requests[key].sent < self.requests[key].blocks {
            match self.send_fragment(ports, key) {
                Sent::All => {}
                waits => return waits,
            }
        }
        Sent::All
    }

    /// Sends the next fragment of a request that has one left, if there is a credit for it and its blocks stay where they are.
    fn send_fragment<P: Ports<Message = Message>>(&mut self, ports: &mut P, key: Key<Request>) -> Sent {
        let request = &self.requests[key];
        let left = request.blocks - request.sent;
        let lba = Lba(request.lba.0 + u64::from(request.sent));
        let (array, start, mut count) = self.next_fragment(request.target, lba, left);
        if request.kind == FragmentKind::Move {
            // All of it lies in one zone then.
            count = left;
        }
        if self.is_fenced(request, array, start) {
            return Sent::Fenced;
        }
        let map = &self.arrays[array.index()];
        let zone = map.zone_of(request.kind, start).expect("what moves is fenced until all of it was answered");
        let owner = map.owner_of(map.lane_of(zone));
        if self.credits[owner.index()] == 0 {
            return Sent::NoCredit;
        }
        let request = &mut self.requests[key];
        let whole = request.sent == 0 && count == request.blocks;
        let buffers = if request.kind == FragmentKind::Zero {
            BufferList::EMPTY
        } else if whole {
            core::mem::take(&mut request.buffers)
        } else {
            request.buffers.split_front(ports, count as usize)
        };
        let fragment = Fragment {
            request: key.to_bits(),
            since: ports.now(),
            association: request.association,
            offset: request.sent,
            count: count as u16,
            array,
            kind: request.kind,
            margins: request.margins.of_part(request.sent, count, request.blocks),
            start,
            buffers,
        };
        request.sent += count;
        request.unanswered += 1;
        self.credits[owner.index()] -= 1;
        if owner == self.shard {
            self.local.push_back(fragment);
        } else {
            let posted = ports.post(owner, Message::Fragment(fragment));
            assert!(posted.is_ok(), "the mesh has room for every fragment that has a credit");
        }
        Sent::All
    }

    /// Sends what waited for credits.
    pub(crate) fn maintain<P: Ports<Message = Message>>(&mut self, ports: &mut P) {
        while let Some(&key) = self.sending.front() {
            match self.send(ports, key) {
                Sent::All => {}
                Sent::NoCredit => break,
                Sent::Fenced => self.held.push_back(key),
            }
            self.sending.pop_front();
        }
        self.maintain_zeros(ports);
    }

    /// The next fragment for this shard's own arrays.
    pub(crate) fn local(&mut self) -> Option<Fragment> {
        self.local.pop_front()
    }

    /// Takes the answer to a fragment that `owner` had.
    pub(crate) fn answered<P: Ports>(&mut self, ports: &mut P, owner: ShardId, answer: FragmentDone) {
        self.credits[owner.index()] += 1;
        let key = Key::from_bits(answer.request);
        let request = self.requests.get_mut(key).expect("an answer finds its request");
        request.unanswered -= 1;
        self.zero_credits += usize::from(request.kind == FragmentKind::Zero);
        if let (Ok(()), Err(error)) = (request.result, answer.result) {
            request.result = Err(error);
        }
        if request.ids != NO_IDS {
            // Other buffers may have come back than went.
            let places = &mut self.ids[request.ids][answer.offset as usize..];
            for (place, id) in places.iter_mut().zip(answer.buffers.ids(ports)) {
                *place = id;
            }
        }
        if request.sent < request.blocks || request.range < request.ranges || request.unanswered > 0 {
            // The buffers of a read in several fragments come together by name at its end.
            return;
        }
        self.end(ports, key, answer.buffers);
    }

    /// Ends a request whose fragments have all been answered; `buffers` are a read's that was one fragment.
    fn end<P: Ports>(&mut self, ports: &mut P, key: Key<Request>, mut buffers: BufferList) {
        let request = self.requests.remove(key).expect("it was there just now");
        self.under_way[usize::from(request.association.id)] -= 1;
        if request.fenced {
            self.fenced_ended.push(request.association);
        }
        // A list of ranges.
        request.buffers.free(ports);
        if request.ids != NO_IDS {
            buffers = BufferList::EMPTY;
            for &id in &self.ids[request.ids][..request.blocks as usize] {
                buffers.push(ports, ports::Buffer::from_id(id));
            }
            self.free_ids.push(request.ids);
        }
        if request.result.is_err() {
            core::mem::take(&mut buffers).free(ports);
        }
        self.ended(request.for_job, IoDone { token: request.token, result: request.result, buffers });
    }

    fn ended(&mut self, for_job: bool, done: IoDone) {
        if for_job { self.jobs_done.push_back(done) } else { self.done.push_back(done) }
    }

    /// The next request of a job that has ended.
    pub(crate) fn job_done(&mut self) -> Option<IoDone> {
        self.jobs_done.pop_front()
    }

    /// Drops what was not sent of requests of older epochs, and says how many of them are still under way.
    pub(crate) fn fence<P: Ports>(&mut self, ports: &mut P, association: Association) -> usize {
        if self.under_way[usize::from(association.id)] == 0 {
            return 0;
        }
        let older = |request: &Request| request.association.is_before(association);
        let older = self.requests.iter().filter(|(_, request)| older(request)).map(|(key, _)| key);
        let (mut waiting, mut ended) = (0, Vec::new());
        for key in older.collect::<Vec<_>>() {
            self.cut_short(ports, key, IoError::Aborted);
            let request = &mut self.requests[key];
            if request.unanswered > 0 {
                request.fenced = true;
                waiting += 1;
            } else {
                ended.push(key);
            }
        }
        let requests = &self.requests;
        self.sending.retain(|&key| requests[key].sent < requests[key].blocks);
        self.zeroing.retain(|&key| requests[key].sent < requests[key].blocks);
        self.held.retain(|&key| requests[key].sent < requests[key].blocks);
        for key in ended {
            self.end(ports, key, BufferList::EMPTY);
        }
        waiting
    }

    /// A fenced request that has ended.
    pub(crate) fn fenced_ended(&mut self) -> Option<Association> {
        self.fenced_ended.pop()
    }

    /// The next request that has ended.
    pub(crate) fn done(&mut self) -> Option<IoDone> {
        self.done.pop_front()
    }

    /// Refuses all further requests.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.done.is_empty() && self.jobs_done.is_empty()
    }

    /// Whether something waits that the next turn can do.
    pub(crate) fn has_work(&self) -> bool {
        !self.local.is_empty() || !self.done.is_empty() || !self.jobs_done.is_empty()
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.requests.len()
    }
}
