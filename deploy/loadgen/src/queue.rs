//! One NVMe/TCP queue as a host drives it, admin or I/O: a socket, a table of requests with a buffer each, and the
//! PDUs between them. Many capsules leave by one send, many answers are taken out of one receive, and nothing is
//! allocated after [`Queue::open`]. It knows no command: what a submission entry means is its caller's affair.
//!
//! A request goes through four states: *free*, *held* (the caller fills its buffer), *in flight*, *done* (the caller
//! reads its buffer) and free again. A slot's number is its command identifier, so an answer finds its request by
//! index, and an answer to anything not in flight is the target's fault.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use nvme::entry::{CompletionEntry, PSDT_SGL, SubmissionEntry};
use nvme::opcode;
use nvme::sgl::SglDescriptor;
use nvme::status::Status;
use nvmf::pdu::{COMMAND_BYTES, DATA_BYTES, DIGEST_BYTES, Digests, IC_BYTES, Transfer, digest, host_data, ic_req};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::arrival::{Arrival, check_initialized};
use crate::command::CONNECT_DATA_BYTES;
use crate::error::{HostError, Violation};
use crate::limits::{
    ANSWER_TIMEOUT, BULK_BYTES, COPY_MAX_BYTES, DEPTH_MAX, FLUSH_BYTES, RECEIVES_PER_POLL_MAX, STALL_TIMEOUT,
    TRANSFER_MAX_BYTES,
};
use crate::receiver::{Received, Receiver};
use crate::request::{Completion, Request, Slot, State, Wait};
use crate::sender::{Sender, prepare};

/// Empty polls between two looks at the clock.
const POLLS_PER_LOOK: u32 = 4096;

/// What a queue is made of.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Requests in flight at most.
    pub depth: u16,
    /// Bytes of each request's buffer.
    pub buffer_bytes: u32,
    /// The largest data that may travel inside a command capsule; larger writes wait for the target's R2T.
    pub in_capsule_bytes: u32,
    /// Digests to ask for.
    pub digests: Digests,
    /// The own end, if the system is not to choose it: the same one can be had again at once after a reset.
    pub source: Option<SocketAddr>,
}

/// Connects from an address and port of the caller's choice.
fn connect_from(source: SocketAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &source)?;
    set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIMEOUT))?;
    connect(&socket, &address)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

/// Data of a C2HData PDU that is still coming.
#[derive(Clone, Copy, Debug)]
struct Payload {
    cid: u16,
    start: usize,
    next: usize,
    end: usize,
    success: bool,
}

/// A connected queue.
#[derive(Debug)]
pub struct Queue {
    stream: TcpStream,
    sender: Sender,
    receiver: Receiver,
    requests: Vec<Request>,
    free: Vec<u16>,
    done: VecDeque<Completion>,
    arena: Vec<u8>,
    buffer_bytes: usize,
    in_capsule_bytes: usize,
    digests: Digests,
    data_pdu_bytes_max: u32,
    payload: Option<Payload>,
    bulk: bool,
    in_flight: u16,
    empty_polls: u32,
    quiet_since: Option<Instant>,
}

impl Queue {
    /// Connects to a target and exchanges ICReq and ICResp.
    ///
    /// # Errors
    /// Nobody answers, the answer is none that a host may accept, or the options are beyond the limits of this crate.
    pub fn open(address: SocketAddr, options: &QueueOptions) -> Result<Self, HostError> {
        if options.depth == 0 || options.buffer_bytes == 0 {
            return Err(HostError::Senseless("a queue has at least one request and one byte for it"));
        }
        at_most("requests in flight", options.depth.into(), DEPTH_MAX.into())?;
        at_most("bytes of a request", options.buffer_bytes.into(), TRANSFER_MAX_BYTES.into())?;
        let unreachable = |source| HostError::Unreachable { address, source };
        let stream = match options.source {
            None => TcpStream::connect_timeout(&address, ANSWER_TIMEOUT),
            Some(source) => connect_from(source, address),
        };
        let stream = stream.map_err(unreachable)?;
        prepare(&stream).map_err(HostError::Lost)?;
        let mut queue = Self::unconnected(stream, options);
        queue.initialize(options)?;
        Ok(queue)
    }

    fn unconnected(stream: TcpStream, options: &QueueOptions) -> Self {
        let depth = usize::from(options.depth);
        let buffer_bytes = options.buffer_bytes as usize;
        let in_capsule_bytes = options.in_capsule_bytes as usize;
        Self {
            stream,
            sender: Sender::new(IC_BYTES, 1),
            receiver: Receiver::new(),
            requests: vec![Request::IDLE; depth],
            free: (0..options.depth).rev().collect(),
            done: VecDeque::with_capacity(depth),
            arena: vec![0; depth * buffer_bytes],
            buffer_bytes,
            in_capsule_bytes,
            digests: Digests::default(),
            data_pdu_bytes_max: 0,
            payload: None,
            bulk: false,
            in_flight: 0,
            empty_polls: 0,
            quiet_since: None,
        }
    }

    fn initialize(&mut self, options: &QueueOptions) -> Result<(), HostError> {
        self.sender.stage(IC_BYTES).copy_from_slice(&ic_req(options.digests, 0));
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            self.flush()?;
            if let Some((arrival, bytes)) = Arrival::next(self.receiver.staged(), Digests::default())? {
                let Arrival::Initialized(answer) = arrival else { return self.arrived(&arrival) };
                self.receiver.take(bytes);
                self.data_pdu_bytes_max = check_initialized(&answer, options.digests)?;
                self.digests = options.digests;
                self.sender = self.sized_sender(usize::from(options.depth));
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(HostError::Timeout { to: "ICReq", seconds: ANSWER_TIMEOUT.as_secs() });
            }
            self.sleep(ANSWER_TIMEOUT)?;
            self.receive_once()?;
        }
    }

    /// A sender with room for what all requests together can have waiting: their capsules and their data PDUs.
    fn sized_sender(&self, depth: usize) -> Sender {
        let copied = self.in_capsule_bytes.min(COPY_MAX_BYTES).min(self.buffer_bytes).max(CONNECT_DATA_BYTES as usize);
        let data_pdus = self.buffer_bytes.div_ceil(self.data_pdu_bytes_max as usize);
        let digest_bytes = self.digests.header_bytes() + self.digests.data_bytes();
        let bytes = COMMAND_BYTES + copied + digest_bytes + data_pdus * (DATA_BYTES + digest_bytes);
        Sender::new(depth * bytes, depth * (3 + 2 * data_pdus) + 3)
    }

    /// Bytes of each request's buffer.
    pub const fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Requests in flight.
    pub const fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// The most requests in flight.
    pub const fn depth(&self) -> usize {
        self.requests.len()
    }

    /// Takes a free request, if there is one.
    pub fn hold(&mut self) -> Option<Slot> {
        let index = self.free.pop()?;
        self.requests[usize::from(index)] = Request { state: State::Held, ..Request::IDLE };
        Some(Slot(index))
    }

    /// The buffer of a request that is held or done.
    ///
    /// # Panics
    /// If the request is free or in flight.
    pub fn buffer(&self, slot: Slot) -> &[u8] {
        assert!(matches!(self.requests[slot.index()].state, State::Held | State::Done), "the buffer is the caller's");
        &self.arena[slot.index() * self.buffer_bytes..][..self.buffer_bytes]
    }

    /// The buffer of a request that is held or done, to fill it.
    ///
    /// # Panics
    /// If the request is free or in flight.
    pub fn buffer_mut(&mut self, slot: Slot) -> &mut [u8] {
        assert!(matches!(self.requests[slot.index()].state, State::Held | State::Done), "the buffer is the caller's");
        &mut self.arena[slot.index() * self.buffer_bytes..][..self.buffer_bytes]
    }

    /// Gives a request that is held or done back.
    ///
    /// # Panics
    /// If the request is free or in flight.
    pub fn release(&mut self, slot: Slot) {
        let request = &mut self.requests[slot.index()];
        assert!(matches!(request.state, State::Held | State::Done), "only what is the caller's can be released");
        request.state = State::Free;
        self.free.push(slot.0);
    }

    /// Submits a request that is held or done and whose opcode says which way `length` bytes of its buffer go. Command identifier, SGL and
    /// PSDT of `entry` are filled in here. Small capsules leave with the next poll.
    ///
    /// # Errors
    /// The connection is lost, or the target answers requests that it cannot have received.
    ///
    /// # Panics
    /// If the request is free or in flight, or `length` exceeds its buffer.
    pub fn submit(&mut self, slot: Slot, entry: SubmissionEntry, length: u32) -> Result<(), HostError> {
        let to_target = opcode::transfer(entry.opcode, entry.fabrics_type()) == opcode::TRANSFER_TO_CONTROLLER;
        let inside = to_target && length > 0 && length as usize <= self.in_capsule_bytes;
        self.put(slot, entry, length, inside)
    }

    /// Submits a held request whose data travels in the capsule whatever the controller's limit: Connect (NVMe/TCP
    /// Transport 1.0, section 3.3.2).
    pub(crate) fn submit_inside(&mut self, slot: Slot, entry: SubmissionEntry, length: u32) -> Result<(), HostError> {
        self.put(slot, entry, length, true)
    }

    fn put(&mut self, slot: Slot, mut entry: SubmissionEntry, length: u32, inside: bool) -> Result<(), HostError> {
        let request = &mut self.requests[slot.index()];
        assert!(matches!(request.state, State::Held | State::Done), "only what is the caller's can be submitted");
        assert!(length as usize <= self.buffer_bytes, "the data lies in the request's buffer");
        let to_host = opcode::transfer(entry.opcode, entry.fabrics_type()) == opcode::TRANSFER_TO_HOST;
        *request = Request { state: State::InFlight, to_host, length, moved: if inside { length } else { 0 } };
        entry.cid = slot.0;
        // Over Fabrics every command uses an SGL, also one without data (Base, figure 87).
        entry.flags = entry.flags & 0b11 | PSDT_SGL << 6;
        entry.data = if inside { SglDescriptor::in_capsule(0, length) } else { SglDescriptor::transport(length) };
        self.in_flight += 1;
        let payload_bytes = if inside { length as usize } else { 0 };
        let start = slot.index() * self.buffer_bytes;
        let data = start..start + payload_bytes;
        let copied = if payload_bytes <= COPY_MAX_BYTES { payload_bytes } else { 0 };
        let header_bytes = COMMAND_BYTES + self.digests.header_bytes();
        if !self.sender.has_room(header_bytes + copied + DIGEST_BYTES, 3) {
            return Err(Violation::EarlyAnswers.into());
        }
        nvmf::pdu::command(self.sender.stage(header_bytes), entry, payload_bytes, self.digests);
        if copied > 0 {
            self.sender.stage(copied).copy_from_slice(&self.arena[data.clone()]);
        } else if inside {
            self.sender.stage_arena(start, payload_bytes);
        }
        if inside && self.digests.data {
            let value = digest(&self.arena[data]);
            self.sender.stage(DIGEST_BYTES).copy_from_slice(&value.to_le_bytes());
        }
        if self.sender.staged_bytes() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends what waits and takes what has come; completions are then had from [`Queue::completed`].
    ///
    /// # Errors
    /// The connection is lost, the target broke the protocol, or nothing has moved for a long time. The queue is of no
    /// use afterwards.
    pub fn poll(&mut self, wait: Wait) -> Result<(), HostError> {
        self.flush()?;
        let mut moved = self.receive_some()?;
        if let (false, Wait::Sleep(most), true) = (moved, wait, self.done.is_empty()) {
            self.sleep(most)?;
            moved = self.receive_some()?;
            self.empty_polls |= POLLS_PER_LOOK - 1;
        }
        if moved || self.in_flight == 0 {
            (self.empty_polls, self.quiet_since) = (0, None);
        } else {
            self.empty_polls = self.empty_polls.wrapping_add(1);
            if self.empty_polls.is_multiple_of(POLLS_PER_LOOK) {
                self.look_at_clock()?;
            }
        }
        self.flush()
    }

    /// The next answered request; it stays the caller's until it is released.
    pub fn completed(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn look_at_clock(&mut self) -> Result<(), HostError> {
        let now = Instant::now();
        let since = *self.quiet_since.get_or_insert(now);
        if now - since >= STALL_TIMEOUT {
            return Err(HostError::Timeout { to: "the requests in flight", seconds: STALL_TIMEOUT.as_secs() });
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), HostError> {
        self.sender.flush(&mut self.stream, &self.arena).map(|_| ()).map_err(HostError::Lost)
    }

    fn sleep(&self, most: Duration) -> Result<(), HostError> {
        let writable = if self.sender.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut polled = [PollFd::new(&self.stream, PollFlags::IN | writable)];
        let timeout = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(HostError::Lost(error.into())),
        }
    }

    fn receive_some(&mut self) -> Result<bool, HostError> {
        let mut moved = false;
        for _ in 0..RECEIVES_PER_POLL_MAX {
            if !self.receive_once()? {
                break;
            }
            moved = true;
            self.take_arrivals()?;
            // Whoever has completions to handle should do so before more is received.
            if !self.done.is_empty() {
                break;
            }
        }
        Ok(moved)
    }

    fn receive_once(&mut self) -> Result<bool, HostError> {
        let direct = match &self.payload {
            Some(payload) if self.receiver.staged().is_empty() => &mut self.arena[payload.next..payload.end],
            _ => &mut [],
        };
        match self.receiver.receive(&mut self.stream, direct, self.bulk) {
            Ok(Received::Nothing) => Ok(false),
            Ok(Received::Some { direct_bytes }) => {
                if let Some(payload) = &mut self.payload {
                    payload.next += direct_bytes;
                }
                Ok(true)
            }
            Ok(Received::End) => Err(HostError::closed()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(HostError::Lost(error)),
        }
    }

    fn take_arrivals(&mut self) -> Result<(), HostError> {
        loop {
            if self.payload.is_some() {
                if !self.take_payload()? {
                    return Ok(());
                }
            } else {
                let Some((arrival, bytes)) = Arrival::next(self.receiver.staged(), self.digests)? else {
                    return Ok(());
                };
                self.receiver.take(bytes);
                self.arrived(&arrival)?;
            }
        }
    }

    /// Moves staged payload to its buffer; true once all of it and its digest have come.
    fn take_payload(&mut self) -> Result<bool, HostError> {
        let payload = self.payload.as_mut().expect("called for a payload");
        let staged = self.receiver.staged();
        let bytes = staged.len().min(payload.end - payload.next);
        self.arena[payload.next..payload.next + bytes].copy_from_slice(&staged[..bytes]);
        payload.next += bytes;
        self.receiver.take(bytes);
        if payload.next < payload.end {
            return Ok(false);
        }
        if self.digests.data {
            let Some(found) = self.receiver.staged().first_chunk::<DIGEST_BYTES>() else { return Ok(false) };
            let found = u32::from_le_bytes(*found);
            let computed = digest(&self.arena[payload.start..payload.end]);
            if found != computed {
                return Err(Violation::DataDigest { found, computed }.into());
            }
            self.receiver.take(DIGEST_BYTES);
        }
        let Payload { cid, success, .. } = *payload;
        self.payload = None;
        if success {
            // The target leaves the response out (NVMe/TCP 1.0, section 3.6.2.10, SUCCESS).
            self.complete(&CompletionEntry::fabrics(cid, 0, Status::SUCCESS, 0))?;
        }
        Ok(true)
    }

    fn arrived(&mut self, arrival: &Arrival) -> Result<(), HostError> {
        match *arrival {
            Arrival::Initialized(answer) => Err(Violation::Unexpected(answer.common.kind).into()),
            Arrival::Response(entry) => self.complete(&entry),
            Arrival::Data { cid, offset, length, last, success } => {
                self.data_arrives(cid, offset, length, last, success)
            }
            Arrival::Ready { cid, tag, offset, length } => self.send_data(cid, tag, offset, length),
            Arrival::Terminated { status, information } => Err(HostError::Terminated { status, information }),
        }
    }

    fn in_flight_request(&mut self, cid: u16) -> Result<&mut Request, HostError> {
        let found = self.requests.get_mut(usize::from(cid)).filter(|request| request.state == State::InFlight);
        found.ok_or(HostError::Protocol(Violation::UnknownCommand(cid)))
    }

    fn data_arrives(&mut self, cid: u16, offset: u32, length: u32, last: bool, success: bool) -> Result<(), HostError> {
        let request = self.in_flight_request(cid)?;
        let (expected, total) = (request.moved, if request.to_host { request.length } else { 0 });
        // Data comes in order and only what was asked for (section 3.6.2.10).
        if offset != expected || length > total.saturating_sub(expected) || length == 0 {
            return Err(Violation::DataRange { cid, offset, length, expected, total }.into());
        }
        request.moved += length;
        if success && !last {
            return Err(Violation::SuccessBeforeLast(cid).into());
        }
        let start = usize::from(cid) * self.buffer_bytes + offset as usize;
        self.bulk = length as usize >= BULK_BYTES;
        self.payload = Some(Payload { cid, start, next: start, end: start + length as usize, success });
        Ok(())
    }

    /// Answers an R2T with as many data PDUs as MAXH2CDATA makes of it (section 3.6.2.8).
    fn send_data(&mut self, cid: u16, tag: u16, offset: u32, length: u32) -> Result<(), HostError> {
        let most = self.data_pdu_bytes_max;
        let request = self.in_flight_request(cid)?;
        let (expected, total) = (request.moved, if request.to_host { 0 } else { request.length });
        if offset != expected || length > total.saturating_sub(expected) || length == 0 {
            return Err(Violation::ReadyRange { cid, offset, length, expected, total }.into());
        }
        request.moved += length;
        let header_bytes = DATA_BYTES + self.digests.header_bytes();
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let bytes = most.min(end - at);
            if !self.sender.has_room(header_bytes + DIGEST_BYTES, 3) {
                return Err(Violation::EarlyAnswers.into());
            }
            let transfer = Transfer { cid, tag, offset: at, length: bytes };
            host_data(self.sender.stage(header_bytes), transfer, at + bytes == end, self.digests);
            let start = usize::from(cid) * self.buffer_bytes + at as usize;
            self.sender.stage_arena(start, bytes as usize);
            if self.digests.data {
                let value = digest(&self.arena[start..start + bytes as usize]);
                self.sender.stage(DIGEST_BYTES).copy_from_slice(&value.to_le_bytes());
            }
            at += bytes;
        }
        Ok(())
    }

    fn complete(&mut self, entry: &CompletionEntry) -> Result<(), HostError> {
        let request = self.in_flight_request(entry.cid)?;
        let status = entry.status.status;
        if status.is_success() && request.moved != request.length {
            let (cid, moved, total) = (entry.cid, request.moved, request.length);
            return Err(Violation::ShortTransfer { cid, moved, total }.into());
        }
        request.state = State::Done;
        self.in_flight -= 1;
        self.done.push_back(Completion { slot: Slot(entry.cid), status, result: entry.result });
        Ok(())
    }
}

/// Refuses what is beyond a bound.
pub(crate) const fn at_most(what: &'static str, asked: u64, most: u64) -> Result<(), HostError> {
    if asked > most { Err(HostError::Excessive { what, asked, most }) } else { Ok(()) }
}
