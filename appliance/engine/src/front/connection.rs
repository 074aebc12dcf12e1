//! A connection: its stream, its queue, its commands and what waits to be sent. All memory of its steady life is taken
//! when it opens.

use std::collections::VecDeque;

use base::BLOCK;
use base::ids::{ShardId, VolumeId};
use base::sector::SECTOR;
use base::slab::Key;
use base::time::{Span, Time};
use nvme::entry::SubmissionEntry;
use nvme::status::Status;
use nvmf::command::{DataPath, IoAction, IoCommand};
use nvmf::deframer::Deframer;
use nvmf::limits::{CONNECT_DATA_BYTES, MAX_QUEUE_ENTRIES, TERM_REQ_DATA_BYTES};
use nvmf::pdu::{self, DIGEST_BYTES, Direction, TERM_REQ_BYTES, Transfer};
use nvmf::queue::{Queue, SlotId};
use ports::{Address, BufferId, BufferList, Buffers, StreamId, Streams};

use super::abort::Aborter;
use super::fused::FirstHalf;
use crate::fence::Association;

/// The key of a connection.
pub(super) type ConnectionKey = Key<Connection>;

/// Whose queue it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Not connected yet.
    None,
    /// The admin queue of a controller of this shard.
    Admin { controller: u16 },
    /// An I/O queue.
    Io { controller: u16, home: ShardId, queue_id: u16 },
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It serves.
    Open,
    /// The shard stops: nothing more is received, but what the volumes have is answered. Then it closes.
    Draining,
    /// What is queued still goes out; nothing more is received or queued. Then it closes, or lingers after a termination
    /// request.
    Ending,
    /// A termination request has gone out: what comes is thrown away until the host closes or the time is over.
    Lingering,
    /// The stream is closed; commands under way are waited for.
    Dead,
}

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No command.
    Free,
    /// Its data comes.
    Receiving,
    /// Its data is there; it waits for its other half.
    Paired,
    /// It waits for buffers to read to, or to ask data for.
    NeedsBuffers,
    /// Its data is there; it waits for a place at the volumes.
    NeedsBegin,
    /// A volume works on it.
    Executing,
    /// Connect is judged by another shard, or an event is awaited.
    Held,
    /// Its reply goes out.
    Replying,
}

/// What happens to a command once its data has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// It is refused.
    Refuse(Status),
    /// Connect.
    Connect,
    /// An admin command.
    Admin,
    /// An I/O command.
    Io,
    /// Disconnect of an I/O queue.
    Disconnect,
}

/// Bytes of the longest head of a reply.
const HEAD_BYTES: usize = pdu::DATA_BYTES + DIGEST_BYTES;
/// Bytes of the longest tail: data digest and response.
const TAIL_BYTES: usize = DIGEST_BYTES + pdu::RESPONSE_BYTES + DIGEST_BYTES;

/// A command of a connection.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) stage: Stage,
    pub(super) task: Task,
    pub(super) entry: SubmissionEntry,
    pub(super) io: IoCommand,
    /// Who wants it aborted.
    pub(super) aborter: Option<Aborter>,
    /// Its other half, if it is one of a pair whose capsules have both come.
    pub(super) partner: Option<SlotId>,
    pub(super) path: DataPath,
    pub(super) arrived: Time,
    /// Its blocks: incoming data, or a read's.
    pub(super) buffers: BufferList,
    /// They are of the reserve for capsules.
    pub(super) of_reserve: bool,
    /// They count in the budget for data.
    pub(super) of_data: usize,
    /// Where the next byte of incoming data goes.
    pub(super) cursor: Option<BufferId>,
    /// Bytes of incoming data that have come.
    pub(super) filled: usize,
    /// They lie where they belong in their blocks.
    pub(super) is_spread: bool,
    /// The R2T has gone out: only now may its data come.
    pub(super) asked: bool,
    /// All data asked for has come and is whole.
    pub(super) intact: bool,
    /// Head of the reply, or the R2T.
    pub(super) head: [u8; HEAD_BYTES],
    pub(super) head_bytes: usize,
    /// Tail of the reply.
    pub(super) tail: [u8; TAIL_BYTES],
    pub(super) tail_bytes: usize,
    /// Data of the reply within `buffers`.
    pub(super) data_bytes: usize,
    /// Data of the reply of an admin command.
    pub(super) page: Vec<u8>,
}

impl Command {
    fn new() -> Self {
        Self {
            stage: Stage::Free,
            task: Task::Admin,
            entry: SubmissionEntry::default(),
            io: IoCommand::flush(IoAction::Flush, VolumeId(0)),
            aborter: None,
            partner: None,
            path: DataPath::None,
            arrived: Time(0),
            buffers: BufferList::EMPTY,
            of_reserve: false,
            of_data: 0,
            cursor: None,
            filled: 0,
            is_spread: false,
            asked: false,
            intact: true,
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            tail: [0; TAIL_BYTES],
            tail_bytes: 0,
            data_bytes: 0,
            page: Vec::new(),
        }
    }

    /// Makes the place ready for a new command.
    pub(super) fn begin(&mut self, entry: SubmissionEntry, task: Task, arrived: Time) {
        assert_eq!(self.stage, Stage::Free, "a slot holds one command");
        self.stage = Stage::Receiving;
        self.task = task;
        self.entry = entry;
        self.io = IoCommand::flush(IoAction::Flush, VolumeId(0));
        assert_eq!(self.aborter, None, "who waits was told");
        self.partner = None;
        self.path = DataPath::None;
        self.arrived = arrived;
        self.cursor = None;
        self.filled = 0;
        self.is_spread = false;
        self.asked = false;
        self.intact = true;
        self.head_bytes = 0;
        self.tail_bytes = 0;
        self.data_bytes = 0;
    }
}

impl Command {
    /// Moves the cursor over data that has come, within one block.
    #[inline]
    pub(super) fn advance(&mut self, pool: &impl Buffers, bytes: usize) {
        self.filled += bytes;
        if self.filled.is_multiple_of(BLOCK) {
            self.cursor = self.cursor.and_then(|id| pool.next(id));
        }
    }

    /// Moves data that has come to its place in its blocks, if it does not begin with one; false if that takes a block more
    /// than there is now. Data that lies well is not touched.
    pub(super) fn spread(&mut self, pool: &mut impl Buffers) -> bool {
        let lead = usize::from(self.io.margins.lead) * SECTOR;
        let blocks = self.io.blocks as usize;
        if lead == 0 || self.filled == 0 || self.is_spread {
            return true;
        }
        if self.buffers.len() < blocks {
            let Some(buffer) = pool.alloc() else { return false };
            self.buffers.push(pool, buffer);
        }
        let (mut carried, mut next) = ([0; BLOCK], [0; BLOCK]);
        let mut at = self.buffers.first();
        while let Some(buffer) = at {
            let block = pool.bytes_mut(buffer);
            next[..lead].copy_from_slice(&block[BLOCK - lead..]);
            block.copy_within(..BLOCK - lead, lead);
            block[..lead].copy_from_slice(&carried[..lead]);
            carried[..lead].copy_from_slice(&next[..lead]);
            at = pool.next(buffer);
        }
        self.is_spread = true;
        true
    }
}

/// Where the payload of the PDU at hand goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// Nowhere: a refused command's data, or none is expected.
    Discard,
    /// To the data of Connect.
    Connect,
    /// To a command's blocks.
    Blocks,
}

/// What the payload at hand belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) sink: Sink,
    /// The command; none for a termination request.
    pub(super) slot: Option<SlotId>,
    /// With the end of this payload all of the command's data is there.
    pub(super) complete: bool,
}

/// Something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// ICResp.
    InitialResponse,
    /// An R2T of a command.
    Ask(SlotId),
    /// The reply of a command.
    Reply(SlotId),
    /// The termination request.
    Terminate,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: StreamId,
    /// The listener at which it came in.
    pub(super) listener: u16,
    pub(super) peer: Address,
    pub(super) local: Address,
    pub(super) opened: Time,
    /// Closed if it is not further by then: Connect, or the end of lingering.
    pub(super) deadline: Time,
    pub(super) life: Life,
    pub(super) role: Role,
    /// Of an I/O queue: what its requests are fenced off by.
    pub(super) association: Association,
    pub(super) host_nqn: String,
    pub(super) subsystem_nqn: String,
    /// The subsystem's place in the exports, while it is there.
    pub(super) subsystem: Option<usize>,
    pub(super) deframer: Deframer,
    pub(super) queue: Queue,
    pub(super) commands: Vec<Command>,
    pub(super) incoming: Incoming,
    /// The capsule before, if it was the first half of a pair.
    pub(super) first_half: FirstHalf,
    pub(super) connect_data: Vec<u8>,
    /// The entries and flow control that a Connect under way asked for.
    pub(super) asked_entries: u16,
    pub(super) asked_flow_control: bool,
    pub(super) out: VecDeque<Out>,
    /// Pieces of what is queued, for the size of the table.
    pub(super) out_pieces: usize,
    /// Bytes of the first in `out` that have gone.
    pub(super) out_sent: usize,
    /// ICResp.
    pub(super) initial: Vec<u8>,
    /// The termination request.
    pub(super) notice: Vec<u8>,
    /// A short send: wait until the stream is writable, since then.
    pub(super) blocked_since: Option<Time>,
    /// Stands in the list of those that have something to send.
    pub(super) is_dirty: bool,
    /// Commands that wait for buffers or a place, oldest first.
    pub(super) waiting: VecDeque<SlotId>,
    /// What became of commands that were to be aborted.
    pub(super) aborts_ended: Vec<(Aborter, bool)>,
    /// Stands in the list of those with waiting commands.
    pub(super) is_waiting: bool,
    /// Commands at the volumes.
    pub(super) executing: usize,
    /// Blocks set aside for its capsules.
    pub(super) reserved: usize,
    /// Blocks of the data budget that it holds.
    pub(super) data_blocks: usize,
    /// A command came since the controller was last told.
    pub(super) seen: bool,
    /// Its number, for people.
    pub(super) number: u64,
    /// The Connect that waits for its host to be let in.
    pub(super) asking: Option<Asking>,
    /// Bytes received and sent.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// When the last command came, Keep Alive apart.
    pub(super) last_work: Time,
    /// The last status that was not success.
    pub(super) last_error: Option<Status>,
}

/// A Connect that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    pub(super) attempt: u32,
    /// Homes that have not answered.
    pub(super) unanswered: u16,
    /// When the wait is over.
    pub(super) until: Time,
}

impl Connection {
    pub(super) fn new(
        stream: StreamId,
        listener: u16,
        (peer, local): (Address, Address),
        now: Time,
        deadline: Time,
    ) -> Self {
        let slots = usize::from(MAX_QUEUE_ENTRIES);
        Self {
            stream,
            listener,
            peer,
            local,
            opened: now,
            deadline,
            life: Life::Open,
            role: Role::None,
            association: Association::NONE,
            host_nqn: String::new(),
            subsystem_nqn: String::new(),
            subsystem: None,
            deframer: Deframer::new(Direction::ToController),
            queue: Queue::new(),
            commands: core::iter::repeat_with(Command::new).take(slots).collect(),
            incoming: Incoming { sink: Sink::Discard, slot: None, complete: false },
            first_half: FirstHalf::None,
            connect_data: Vec::with_capacity(CONNECT_DATA_BYTES as usize),
            asked_entries: 0,
            asked_flow_control: true,
            // Each slot has at most one thing to send at a time; beside them there are ICResp and a termination request.
            out: VecDeque::with_capacity(slots + 2),
            out_pieces: 0,
            out_sent: 0,
            initial: Vec::with_capacity(pdu::IC_BYTES),
            notice: Vec::with_capacity(TERM_REQ_BYTES + TERM_REQ_DATA_BYTES),
            blocked_since: None,
            is_dirty: false,
            waiting: VecDeque::with_capacity(slots),
            aborts_ended: Vec::new(),
            is_waiting: false,
            executing: 0,
            reserved: 0,
            data_blocks: 0,
            seen: false,
            number: 0,
            asking: None,
            received: 0,
            sent: 0,
            last_work: now,
            last_error: None,
        }
    }

    /// The command in a slot.
    #[inline]
    pub(super) fn command(&mut self, slot: SlotId) -> &mut Command {
        &mut self.commands[slot.index()]
    }

    /// The slot of the Connect that is being judged.
    pub(super) fn held_connect(&self) -> SlotId {
        let held = self.commands.iter().position(|command| command.stage == Stage::Held);
        SlotId(held.expect("Connect is held while it is judged") as u16)
    }

    /// Queues something to send.
    pub(super) fn push(&mut self, out: Out, pieces: usize) {
        self.out.push_back(out);
        self.out_pieces += pieces;
    }

    /// Queues the completion of a command without data.
    pub(super) fn reply(&mut self, slot: SlotId, status: Status, result: u64) {
        if !status.is_success() {
            self.last_error = Some(status);
        }
        self.abort_ended(slot, status == Status::ABORT_REQUESTED);
        let digests = self.deframer.digests();
        let entry = self.queue.complete(slot, status, result);
        let command = self.command(slot);
        command.stage = Stage::Replying;
        command.head_bytes = 0;
        command.data_bytes = 0;
        command.tail_bytes = pdu::response(&mut command.tail, entry, digests);
        self.push(Out::Reply(slot), 1);
    }

    /// Queues the completion of a command with `length` bytes of data for the host, which lie in its page or its blocks.
    pub(super) fn reply_data(&mut self, pool: &impl Buffers, slot: SlotId, length: usize) {
        self.abort_ended(slot, false);
        let digests = self.deframer.digests();
        let entry = self.queue.complete(slot, Status::SUCCESS, 0);
        // The last data may stand for the response only where the host needs no SQ head (TCP, section 3.3.2.1).
        let success = !self.queue.flow_control();
        let command = &mut self.commands[slot.index()];
        command.stage = Stage::Replying;
        let total = u32::try_from(length).expect("data is bounded by MDTS");
        let transfer = Transfer { cid: entry.cid, tag: 0, offset: 0, length: total };
        command.head_bytes = pdu::controller_data(&mut command.head, transfer, true, success, digests);
        command.tail_bytes = 0;
        if digests.data {
            let sum = if command.page.is_empty() {
                let (margins, count) = (command.io.margins, command.buffers.len());
                let blocks = command.buffers.ids(pool).enumerate();
                blocks.fold(0, |sum, (at, id)| pdu::digest_append(sum, &pool.bytes(id)[margins.within(at, count)]))
            } else {
                pdu::digest(&command.page)
            };
            command.tail[..DIGEST_BYTES].copy_from_slice(&sum.to_le_bytes());
            command.tail_bytes = DIGEST_BYTES;
        }
        if !success {
            command.tail_bytes += pdu::response(&mut command.tail[command.tail_bytes..], entry, digests);
        }
        command.data_bytes = length;
        let pieces = 2 + command.buffers.len().max(1);
        self.push(Out::Reply(slot), pieces);
    }

    /// Whether data that was asked for is overdue.
    pub(super) fn owes_data(&self, now: Time, patience: Span) -> bool {
        self.commands
            .iter()
            .any(|command| command.asked && command.stage == Stage::Receiving && now.since(command.arrived) > patience)
    }

    /// Stops receiving; what is queued still goes out, then the stream closes.
    pub(super) fn finish(&mut self, ports: &mut impl Streams) {
        if matches!(self.life, Life::Open | Life::Draining) {
            self.life = Life::Ending;
            ports.want_readable(self.stream, false);
        }
    }

    /// Stops receiving; what the volumes have is still answered.
    pub(super) fn drain(&mut self, ports: &mut impl Streams) {
        if self.life == Life::Open {
            self.life = Life::Draining;
            ports.want_readable(self.stream, false);
        }
    }

    /// Puts incoming data where it belongs.
    pub(super) fn place(pool: &mut impl Buffers, command: &mut Command, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let id = command.cursor.expect("blocks for all data that was announced");
            let offset = command.filled % BLOCK;
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - offset));
            pool.bytes_mut(id)[offset..offset + part.len()].copy_from_slice(part);
            command.advance(pool, part.len());
            bytes = rest;
        }
    }
}
