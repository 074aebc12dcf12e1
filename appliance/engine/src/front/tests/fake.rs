//! A world for a front: a pool, streams whose segmentation the test chooses, and a host that speaks the
//! protocol byte by byte.

use std::collections::{BTreeMap, VecDeque};

use base::ids::VolumeId;
use base::sector::LogicalBlock;
use base::snapshot::Snapshot;
use base::time::Span;
use base::uuid::Uuid;
use base::{BLOCK, Block};
use nvme::entry::{CompletionEntry, SubmissionEntry};
use nvme::identify::NamespaceIdentity;
use nvme::layout::null_padded;
use nvme::register;
use nvmf::deframer::{Deframer, Step};
use nvmf::fabrics::{self, Connect, ConnectData};
use nvmf::pdu::{self, Digests, Direction, Header, Transfer};
use nvmf::subsystem::{Hosts, Listener, Namespace, Subsystem};
use ports::{Buffer, BufferId, Buffers, Completion, DeviceRequest, Devices, Mesh, Piece, QueueFull, Segment, Streams};

use super::super::*;
pub(super) use super::entries::{io_entry, pattern};
use super::volumes::FakeIo;
use crate::Message;
use crate::fence::Association;

pub(super) const NQN: &str = "nqn.2024-01.example:v";
pub(super) const HOST: &str = "nqn.2014-08.org.example:host";
pub(super) const BLOCKS: u64 = 4096;

#[derive(Default)]
pub(super) struct FakeStream {
    pub(super) inbound: VecDeque<u8>,
    pub(super) outbound: Vec<u8>,
    pub(super) closed: Option<bool>,
    pub(super) ended: bool,
    /// The peer takes nothing.
    pub(super) stalled: bool,
    unwanted: bool,
    was_short: bool,
}

pub(super) struct FakePorts {
    pub(super) shard: ShardId,
    pub(super) shards: u16,
    pub(super) now: Time,
    pub(super) streams: BTreeMap<StreamId, FakeStream>,
    opened: VecDeque<StreamEvent>,
    seen: usize,
    pub(super) posted: VecDeque<(ShardId, Message)>,
    /// Most bytes of one receive and of one send.
    pub(super) portion: usize,
    blocks: Vec<Block>,
    next: Vec<Option<BufferId>>,
    pub(super) free: Vec<BufferId>,
    /// What comes home is overwritten: whoever still reads it sees that.
    pub(super) poisons: bool,
}

impl FakePorts {
    pub(super) fn new(shard: u16, shards: u16, blocks: usize) -> Self {
        Self {
            shard: ShardId(shard),
            shards,
            now: Time(1_000_000),
            streams: BTreeMap::new(),
            opened: VecDeque::new(),
            seen: 0,
            posted: VecDeque::new(),
            portion: usize::MAX,
            blocks: vec![[0xee; BLOCK]; blocks],
            next: vec![None; blocks],
            free: (0..blocks as u32).map(BufferId).collect(),
            poisons: false,
        }
    }

    pub(super) fn open(&mut self, id: u64) {
        let stream = StreamId(id);
        self.streams.insert(stream, FakeStream::default());
        let peer = "127.0.0.1:50000".parse().expect("an address");
        let local = "127.0.0.1:4420".parse().expect("an address");
        self.opened.push_back(StreamEvent::Opened { stream, listener: 0, peer, local });
    }
}

impl Buffers for FakePorts {
    fn alloc(&mut self) -> Option<Buffer> {
        self.free.pop().map(Buffer::from_id)
    }

    fn free(&mut self, buffer: Buffer) {
        assert!(!self.free.contains(&buffer.id()), "freed twice");
        if self.poisons {
            self.blocks[buffer.id().0 as usize] = [0xdd; BLOCK];
        }
        self.free.push(buffer.id());
    }

    fn available(&self) -> usize {
        self.free.len()
    }

    fn bytes(&self, buffer: BufferId) -> &Block {
        &self.blocks[buffer.0 as usize]
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut Block {
        &mut self.blocks[buffer.0 as usize]
    }

    fn pair(&mut self, _: BufferId, _: BufferId) -> (&mut Block, &Block) {
        unreachable!("the front changes no two buffers at once")
    }

    fn headroom(&mut self, _: BufferId) -> &mut [u8; ports::buffers::HEADROOM] {
        unreachable!("the front uses no headroom")
    }

    fn next(&self, buffer: BufferId) -> Option<BufferId> {
        self.next[buffer.0 as usize]
    }

    fn set_next(&mut self, buffer: BufferId, next: Option<BufferId>) {
        self.next[buffer.0 as usize] = next;
    }
}

impl Devices for FakePorts {
    fn submit(&mut self, _: DeviceRequest<'_>) -> Result<(), QueueFull> {
        unreachable!("the front has no devices")
    }

    fn completion(&mut self) -> Option<Completion> {
        None
    }
}

impl Streams for FakePorts {
    fn stream_event(&mut self) -> Option<StreamEvent> {
        if let Some(event) = self.opened.pop_front() {
            return Some(event);
        }
        // Each stream is looked at once a turn.
        let (&id, stream) = self.streams.iter_mut().nth(self.seen)?;
        self.seen += 1;
        if stream.closed.is_some() {
            return Some(StreamEvent::Readable(StreamId(u64::MAX)));
        }
        if !stream.stalled && core::mem::take(&mut stream.was_short) {
            return Some(StreamEvent::Writable(id));
        }
        let readable = !stream.unwanted && (!stream.inbound.is_empty() || stream.ended);
        Some(if readable { StreamEvent::Readable(id) } else { StreamEvent::Readable(StreamId(u64::MAX)) })
    }

    fn receive(
        &mut self,
        stream: StreamId,
        segments: &[Segment],
        rest: &mut [u8],
    ) -> Result<usize, ports::StreamError> {
        let stream = self.streams.get_mut(&stream).ok_or(ports::StreamError::Unknown)?;
        if stream.inbound.is_empty() && stream.ended {
            return Err(ports::StreamError::EndOfStream);
        }
        let mut left = self.portion.min(stream.inbound.len());
        let total = left;
        let mut received = 0;
        for segment in segments {
            let length = left.min(usize::from(segment.length));
            let from = usize::from(segment.offset);
            for byte in &mut self.blocks[segment.buffer.0 as usize][from..from + length] {
                *byte = stream.inbound.pop_front().expect("counted");
            }
            left -= length;
            received += length;
        }
        let length = left.min(rest.len());
        for byte in &mut rest[..length] {
            *byte = stream.inbound.pop_front().expect("counted");
        }
        received += length;
        assert!(received <= total);
        Ok(received)
    }

    fn send(&mut self, stream: StreamId, pieces: &[Piece<'_>]) -> Result<usize, ports::StreamError> {
        let stream = self.streams.get_mut(&stream).ok_or(ports::StreamError::Unknown)?;
        assert!(stream.closed.is_none() && pieces.len() <= MAX_STREAM_PIECES);
        let mut bytes = Vec::new();
        for piece in pieces {
            match *piece {
                Piece::Bytes(piece) => bytes.extend_from_slice(piece),
                Piece::Segment(Segment { buffer, offset, length }) => {
                    let from = usize::from(offset);
                    bytes.extend_from_slice(&self.blocks[buffer.0 as usize][from..from + usize::from(length)]);
                }
            }
        }
        let taken = if stream.stalled { 0 } else { bytes.len().min(self.portion) };
        stream.was_short = taken < bytes.len();
        stream.outbound.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn want_readable(&mut self, stream: StreamId, wanted: bool) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.unwanted = !wanted;
        }
    }

    fn close(&mut self, stream: StreamId, in_good_order: bool) {
        let stream = self.streams.get_mut(&stream).expect("only what opened is closed");
        assert_eq!(stream.closed.replace(in_good_order), None, "closed twice");
    }
}

impl Mesh for FakePorts {
    type Message = Message;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn shards(&self) -> u16 {
        self.shards
    }

    fn post(&mut self, to: ShardId, message: Message) -> Result<(), Message> {
        self.posted.push_back((to, message));
        Ok(())
    }

    fn message(&mut self) -> Option<(ShardId, Message)> {
        None
    }
}

impl Ports for FakePorts {
    fn now(&self) -> Time {
        self.now
    }

    fn entropy(&mut self) -> u64 {
        4
    }
}

/// A front in its world.
pub(super) struct Rig {
    /// Answers for the other shards whatever a front asks them.
    pub(super) alone: bool,
    /// Epochs that were raised here and are not confirmed.
    pub(super) raising: Vec<Association>,
    pub(super) front: Front,
    pub(super) ports: FakePorts,
    pub(super) io: FakeIo,
    pub(super) blocks: usize,
}

pub(super) fn exports(hosts: Hosts, generation: u64, nsids: &[u32]) -> Snapshot<Exports> {
    let namespace = |&nsid: &u32| Namespace {
        nsid,
        volume: VolumeId(nsid - 1),
        blocks: BLOCKS,
        logical: LogicalBlock::Block,
        identity: NamespaceIdentity { eui64: [1; 8], nguid: [2; 16], uuid: Uuid([3; 16]) },
        chunk_blocks: 16,
        atomic_blocks: 16,
        power_fail_blocks: 16,
        stripe_blocks: 48,
    };
    let subsystem = Subsystem {
        nqn: NQN.into(),
        serial: "S".into(),
        model: "M".into(),
        hosts,
        listeners: vec![0],
        namespaces: nsids.iter().map(namespace).collect(),
    };
    exported(generation, subsystem)
}

/// A subsystem and the listener that it is reached by.
pub(super) fn exported(generation: u64, subsystem: Subsystem) -> Snapshot<Exports> {
    let listener = Listener { address: "127.0.0.1:4420".parse().expect("an address"), port_id: 1 };
    Snapshot::new(Exports::new(generation, vec![subsystem], vec![listener]).expect("sound"))
}

impl Rig {
    pub(super) fn new(blocks: usize) -> Self {
        Self::with(0, 1, blocks, FrontLimits { connections: 8, in_capsule_blocks: blocks / 2, data_blocks: 512 })
    }

    pub(super) fn with(shard: u16, shards: u16, blocks: usize, limits: FrontLimits) -> Self {
        let names = base::metrics::Names {
            volumes: vec![base::metrics::VolumeName { array: "a".into(), volume: "v".into() }],
            arrays: vec!["a".into()],
            ..Default::default()
        };
        let setup = FrontSetup {
            shard: ShardId(shard),
            shards,
            exports: exports(Hosts::Any, 1, &[1]),
            limits,
            metrics: Arc::new(Metrics::new(names, shards)),
            firmware: "0.1".into(),
            health: SmartLog::default(),
            silence: Vec::new(),
        };
        let ports = FakePorts::new(shard, shards, blocks);
        let (alone, raising) = (true, Vec::new());
        Self { alone, raising, front: Front::new(setup), ports, io: FakeIo::default(), blocks }
    }

    /// One turn, without ending any request.
    pub(super) fn turn(&mut self) {
        self.ports.seen = 0;
        self.front.turn(&mut self.ports, &mut self.io);
        while let Some((association, cause)) = self.front.next_raise() {
            self.front.fenced(&mut self.ports, association, cause);
            self.raising.push(association);
            for other in (0..self.ports.shards).map(ShardId).filter(|&other| !self.alone && other != self.ports.shard) {
                self.ports.posted.push_back((other, Message::Raise { association, cause }));
            }
        }
        self.confirm();
        if self.alone {
            for _ in 0..self.ports.posted.len() {
                let (to, message) = self.ports.posted.pop_front().expect("as many as there were");
                if let Message::Front(FrontMessage::Ask { connection, attempt, .. }) = message {
                    let clear = FrontMessage::Asked { connection, attempt, clear: true };
                    self.front.message(&mut self.ports, to, clear);
                } else {
                    self.ports.posted.push_back((to, message));
                }
            }
        }
    }

    /// Confirms what has no request of an older epoch at the volumes.
    fn confirm(&mut self) {
        for association in core::mem::take(&mut self.raising) {
            if self.io.requests.iter().any(|request| request.association.is_before(association)) {
                self.raising.push(association);
                continue;
            }
            let (here, alone) = (self.ports.shard, self.alone);
            for shard in (0..self.ports.shards).map(ShardId).filter(|&shard| alone || shard == here) {
                self.front.raised(&mut self.ports, shard, association);
            }
        }
    }

    /// Ends all requests at the volumes.
    pub(super) fn end_requests(&mut self) {
        while let Some(done) = self.io.end_one(&mut self.ports) {
            self.front.io_done(&mut self.ports, done);
        }
    }

    /// Turns until nothing moves.
    pub(super) fn settle(&mut self) {
        let mut before = usize::MAX;
        let mut quiet = 0;
        for _ in 0..100_000 {
            self.turn();
            self.end_requests();
            let moved: usize = self.ports.streams.values().map(|stream| stream.inbound.len()).sum::<usize>()
                + self.ports.streams.values().map(|stream| stream.outbound.len() << 1).sum::<usize>();
            quiet = if moved == before { quiet + 1 } else { 0 };
            before = moved;
            if quiet > 4 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    pub(super) fn pass(&mut self, span: Span) {
        self.ports.now = self.ports.now + span;
        self.turn();
    }

    pub(super) fn stream(&mut self, id: u64) -> &mut FakeStream {
        self.ports.streams.get_mut(&StreamId(id)).expect("opened")
    }

    pub(super) fn is_closed(&mut self, id: u64) -> bool {
        self.stream(id).closed.is_some()
    }

    /// All connections end; then everything must be home.
    pub(super) fn end(mut self) {
        self.alone = true;
        for stream in self.ports.streams.values_mut() {
            stream.ended = true;
            stream.inbound.clear();
        }
        self.settle();
        self.pass(Span::from_secs(100));
        self.settle();
        assert!(self.front.connections.is_empty(), "no connection stays");
        assert!(self.front.hub.space.is_home(), "no block stays");
        assert!(self.front.hub.controllers.is_empty(), "no controller stays");
        assert!(self.front.hub.endings.is_quiet(), "all ends have come to their end");
        assert_eq!(self.ports.free.len(), self.blocks, "every buffer comes home");
    }
}

/// What a host received.
#[derive(Debug, PartialEq)]
pub(super) enum Got {
    Response(CompletionEntry),
    Data(pdu::Data, Vec<u8>),
    Ask(pdu::ReadyToTransfer),
    Terminated(u16, u32),
    Initial(pdu::IcResp),
}

/// A host on one stream.
pub(super) struct Host {
    pub(super) id: u64,
    pub(super) digests: Digests,
    deframer: Deframer,
    read: usize,
    /// Data that has not come whole.
    coming: Option<(pdu::Data, Vec<u8>)>,
}

impl Host {
    pub(super) fn open(rig: &mut Rig, id: u64, digests: Digests) -> Self {
        rig.ports.open(id);
        let mut host = Self { id, digests, deframer: Deframer::new(Direction::ToHost), read: 0, coming: None };
        host.push(rig, &pdu::ic_req(digests, 0));
        rig.settle();
        let got = host.received(rig);
        assert!(matches!(got[..], [Got::Initial(response)] if response.max_h2c_data_bytes >= 4096));
        host.deframer.set_digests(digests);
        host
    }

    pub(super) fn push(&self, rig: &mut Rig, bytes: &[u8]) {
        rig.stream(self.id).inbound.extend(bytes);
    }

    pub(super) fn command(&self, rig: &mut Rig, entry: SubmissionEntry, data: &[u8]) {
        let mut out = [0; 128];
        let head = pdu::command(&mut out, entry, data.len(), self.digests);
        self.push(rig, &out[..head]);
        self.push_data(rig, data);
    }

    pub(super) fn push_data(&self, rig: &mut Rig, data: &[u8]) {
        self.push(rig, data);
        if self.digests.data && !data.is_empty() {
            self.push(rig, &pdu::digest(data).to_le_bytes());
        }
    }

    pub(super) fn host_data(&self, rig: &mut Rig, ask: &pdu::ReadyToTransfer, data: &[u8], portion: usize) {
        let mut offset = 0;
        for part in data.chunks(portion) {
            let mut out = [0; 128];
            let transfer =
                Transfer { cid: ask.cid, tag: ask.tag, offset: ask.offset + offset, length: part.len() as u32 };
            offset += part.len() as u32;
            let head = pdu::host_data(&mut out, transfer, offset as usize == data.len(), self.digests);
            self.push(rig, &out[..head]);
            self.push_data(rig, part);
        }
    }

    /// Everything that has come since the last call.
    pub(super) fn received(&mut self, rig: &mut Rig) -> Vec<Got> {
        let outbound = rig.stream(self.id).outbound[self.read..].to_vec();
        self.read += outbound.len();
        let mut bytes = &outbound[..];
        let mut got = Vec::new();
        loop {
            let (taken, step) = self.deframer.step(bytes).expect("we send what is right");
            bytes = &bytes[taken..];
            match step {
                Step::More => return got,
                Step::Head(Header::IcResp(response)) => got.push(Got::Initial(response)),
                Step::Head(Header::Response(response)) => got.push(Got::Response(response.entry)),
                Step::Head(Header::ControllerData(data)) => self.coming = Some((data, Vec::new())),
                Step::Head(Header::ReadyToTransfer(ask)) => got.push(Got::Ask(ask)),
                Step::Head(Header::TermReq(term)) => got.push(Got::Terminated(term.status, term.information)),
                Step::Head(other) => panic!("{other:?}"),
                Step::Payload(length) => {
                    self.deframer.payload(&bytes[..length]);
                    if let Some((_, data)) = &mut self.coming {
                        data.extend_from_slice(&bytes[..length]);
                    }
                    bytes = &bytes[length..];
                }
                Step::End { intact } => {
                    assert!(intact, "our digests match");
                    got.extend(self.coming.take().map(|(data, bytes)| Got::Data(data, bytes)));
                }
            }
        }
    }

    /// Sends a command and takes its only completion.
    pub(super) fn ask(&mut self, rig: &mut Rig, entry: SubmissionEntry, data: &[u8]) -> CompletionEntry {
        self.command(rig, entry, data);
        rig.settle();
        match self.received(rig)[..] {
            [.., Got::Response(response)] => response,
            ref other => panic!("{other:?}"),
        }
    }

    pub(super) fn connect(&mut self, rig: &mut Rig, queue_id: u16, controller_id: u16) -> CompletionEntry {
        self.connect_as(rig, queue_id, controller_id, HOST, |_| {})
    }

    pub(super) fn connect_as(
        &mut self,
        rig: &mut Rig,
        queue_id: u16,
        controller_id: u16,
        host: &str,
        change: impl FnOnce(&mut SubmissionEntry),
    ) -> CompletionEntry {
        let connect = Connect { format: 0, queue_id, last_entry: 31, attributes: 0, keep_alive_ms: 5000 };
        let data = ConnectData {
            host_id: [7; 16],
            controller_id,
            subsystem_nqn: null_padded(NQN),
            host_nqn: null_padded(host),
        };
        let mut entry = connect.to_entry(1);
        change(&mut entry);
        self.ask(rig, entry, &data.encode())
    }

    /// A host with an enabled controller; says its identifier.
    pub(super) fn admin(rig: &mut Rig, id: u64, digests: Digests) -> (Self, u16) {
        let mut host = Self::open(rig, id, digests);
        let connected = host.connect(rig, 0, 0xffff);
        assert!(connected.status.status.is_success(), "{connected:?}");
        let enable = fabrics::property_set(2, register::CC, register::Configuration::ENABLE.0);
        assert!(host.ask(rig, enable, &[]).status.status.is_success());
        (host, connected.result as u16)
    }

    /// An I/O queue of a controller.
    pub(super) fn queue(rig: &mut Rig, id: u64, queue_id: u16, controller: u16, digests: Digests) -> Self {
        let mut host = Self::open(rig, id, digests);
        let connected = host.connect(rig, queue_id, controller);
        assert!(connected.status.status.is_success(), "{connected:?}");
        host
    }
}
