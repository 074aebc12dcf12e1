//! Receiving: bytes of a stream into PDUs, payload to its blocks. Many small commands come with one receive; a long
//! payload is received straight into the blocks that it belongs to.

use base::BLOCK;
use nvme::entry::SubmissionEntry;
use nvme::opcode;
use nvme::status::Status;
use nvmf::command::{DataPath, data_path, io_command};
use nvmf::controller::admin_data;
use nvmf::deframer::Step;
use nvmf::limits::{CONNECT_DATA_BYTES, MAX_H2C_DATA_BYTES};
use nvmf::pdu::{self, Direction, Fatal, Header};
use nvmf::queue::Phase;
use ports::{Buffers, MAX_STREAM_PIECES, Ports, Segment, StreamError};

use super::VolumeIo;
use super::cause::Cause;
use super::connection::{Connection, ConnectionKey, Incoming, Life, Out, Role, Sink, Task};
use super::hub::Hub;
use super::limits::{LONG_PAYLOAD_BYTES, RECEIVES_A_TURN, SHORT_STAGING_BYTES};

impl Hub {
    /// Receives what a stream has, within the turn's share, and carries out what it asks for. Says how many bytes came.
    pub(super) fn receive<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
    ) -> Result<usize, StreamError> {
        let mut staging = core::mem::take(&mut self.staging);
        let mut segments = core::mem::take(&mut self.segments);
        let mut result = Ok(());
        let mut total = 0;
        for _ in 0..RECEIVES_A_TURN {
            segments.clear();
            let direct = direct_segments(ports, connection, &mut segments);
            let rest = if direct >= LONG_PAYLOAD_BYTES { SHORT_STAGING_BYTES } else { staging.len() };
            let received = match ports.receive(connection.stream, &segments, &mut staging[..rest]) {
                Ok(received) => received,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            total += received;
            connection.received += received as u64;
            if connection.life == Life::Lingering {
                // What comes after a termination request is thrown away (TCP, section 3.5.1).
                if received < direct + rest {
                    break;
                } else {
                    continue;
                };
            }
            let direct_received = received.min(direct);
            received_directly(ports, connection, &segments, direct_received);
            if let Err(fatal) = self.parse(ports, io, key, connection, &staging[..received - direct_received]) {
                self.fatal(ports, connection, fatal);
            }
            if received < direct + rest || connection.life != Life::Open {
                break;
            }
        }
        self.staging = staging;
        self.segments = segments;
        result.map(|()| total)
    }

    /// Ends a connection whose host broke the protocol: what is queued goes out, then a termination request.
    fn fatal(&mut self, ports: &mut impl Ports, connection: &mut Connection, fatal: Fatal) {
        self.metrics().protocol_errors.increment();
        let mut request = [0; pdu::TERM_REQ_BYTES + nvmf::limits::TERM_REQ_DATA_BYTES];
        let length = pdu::term_req(&mut request, Direction::ToController, fatal, connection.deframer.offending());
        connection.notice.extend_from_slice(&request[..length]);
        connection.push(Out::Terminate, 1);
        connection.finish(ports);
    }

    fn parse<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
        mut bytes: &[u8],
    ) -> Result<(), Fatal> {
        while connection.life == Life::Open {
            let (taken, step) = connection.deframer.step(bytes)?;
            let (used, unused) = bytes.split_at(taken);
            bytes = unused;
            match step {
                Step::More => break,
                Step::Head(header) => {
                    if let Err(fatal) = self.head(ports, key, connection, &header) {
                        connection.deframer.refuse(&header, used);
                        return Err(fatal);
                    }
                    if connection.deframer.expected_payload() == 0 {
                        self.data_came(ports, io, key, connection);
                    }
                }
                Step::Payload(length) => {
                    let (payload, rest) = bytes.split_at(length);
                    match connection.incoming.sink {
                        Sink::Discard => {}
                        Sink::Connect => connection.connect_data.extend_from_slice(payload),
                        Sink::Blocks => {
                            let slot = connection.incoming.slot.expect("blocks belong to a command");
                            Connection::place(ports, &mut connection.commands[slot.index()], payload);
                        }
                    }
                    connection.deframer.payload(payload);
                    bytes = rest;
                }
                Step::End { intact } => {
                    if let Some(slot) = connection.incoming.slot {
                        connection.command(slot).intact &= intact;
                    }
                    self.data_came(ports, io, key, connection);
                }
            }
        }
        Ok(())
    }

    fn data_came<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
    ) {
        let Incoming { slot, complete, .. } = connection.incoming;
        connection.incoming = Incoming { sink: Sink::Discard, slot: None, complete: false };
        if let Some(slot) = slot.filter(|_| complete) {
            self.act(ports, io, key, connection, slot);
        }
    }

    /// Applies a header: says in `connection.incoming` where its payload goes and whose it is.
    fn head(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        header: &Header,
    ) -> Result<(), Fatal> {
        connection.incoming = Incoming { sink: Sink::Discard, slot: None, complete: false };
        match header {
            Header::Command(command) => self.command(ports, connection, command.entry),
            Header::HostData(data) => {
                let incoming = connection.queue.host_data(data)?;
                if !connection.command(incoming.slot).asked {
                    // The R2T is still here: its tag was guessed.
                    return Err(Fatal::field(10));
                }
                let (slot, complete) = (Some(incoming.slot), incoming.complete);
                connection.incoming = Incoming { sink: Sink::Blocks, slot, complete };
                Ok(())
            }
            Header::IcReq(request) => {
                let digests = connection.queue.initial_exchange(request)?;
                connection.initial.extend_from_slice(&pdu::ic_resp(digests, MAX_H2C_DATA_BYTES));
                connection.push(Out::InitialResponse, 1);
                connection.deframer.set_digests(digests);
                Ok(())
            }
            Header::TermReq(_) => {
                self.metrics().protocol_errors.increment();
                self.closing.push_back((key, Cause::Protocol));
                connection.finish(ports);
                Ok(())
            }
            Header::IcResp(_) | Header::Response(_) | Header::ControllerData(_) | Header::ReadyToTransfer(_) => {
                unreachable!("the deframer refuses what travels the other way")
            }
        }
    }

    fn command(
        &mut self,
        ports: &mut impl Ports,
        connection: &mut Connection,
        entry: SubmissionEntry,
    ) -> Result<(), Fatal> {
        let payload = connection.deframer.expected_payload();
        connection.queue.may_command(payload)?;
        let admission = connection.queue.admit(entry.cid)?;
        let slot = admission.slot;
        connection.seen = true;
        if entry.opcode != opcode::KEEP_ALIVE {
            connection.last_work = self.now;
        }
        connection.commands[slot.index()].begin(entry, Task::Admin, self.now);
        let task = if admission.conflict {
            Task::Refuse(Status::CID_CONFLICT.do_not_retry())
        } else {
            self.judge(connection, slot.index(), payload).unwrap_or_else(Task::Refuse)
        };
        let task = connection.pair(slot, task);
        let command = &mut connection.commands[slot.index()];
        command.task = task;
        let sink = match task {
            _ if payload == 0 => Sink::Discard,
            Task::Connect => {
                connection.connect_data.clear();
                Sink::Connect
            }
            Task::Admin | Task::Io if command.path == DataPath::InCapsule => {
                command.buffers = self.space.take_capsule(ports, payload.div_ceil(BLOCK));
                command.of_reserve = true;
                command.cursor = command.buffers.first();
                Sink::Blocks
            }
            Task::Admin | Task::Io | Task::Refuse(_) | Task::Disconnect => Sink::Discard,
        };
        connection.incoming = Incoming { sink, slot: Some(slot), complete: true };
        Ok(())
    }

    /// Judges a command before its data comes: what to do once it is there, or the status that refuses it.
    fn judge(&self, connection: &mut Connection, slot: usize, payload: usize) -> Result<Task, Status> {
        let command = &mut connection.commands[slot];
        let entry = &command.entry;
        let fabrics = (entry.opcode == opcode::FABRICS).then(|| entry.fabrics_type());
        if connection.queue.phase() == Phase::Connect {
            if fabrics != Some(opcode::FABRICS_CONNECT) {
                return Err(Status::SEQUENCE_ERROR.do_not_retry());
            }
            return match data_path(entry, opcode::TRANSFER_TO_CONTROLLER, CONNECT_DATA_BYTES, payload)? {
                DataPath::InCapsule => Ok(Task::Connect),
                _ => Err(Status::SGL_TYPE_INVALID.do_not_retry()),
            };
        }
        match (&connection.role, fabrics) {
            (Role::Admin { .. }, _) => {
                command.path = admin_data(entry, payload)?;
                Ok(Task::Admin)
            }
            (_, Some(opcode::FABRICS_DISCONNECT)) => Ok(Task::Disconnect),
            (_, Some(opcode::FABRICS_CONNECT)) => Err(Status::SEQUENCE_ERROR.do_not_retry()),
            (_, Some(_)) => Err(Status::INVALID_OPCODE.do_not_retry()),
            (_, None) => {
                let subsystem = connection.subsystem.map(|index| &self.exports.subsystems()[index]);
                let subsystem = subsystem.ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
                command.io = io_command(entry, subsystem)?;
                command.path = data_path(entry, opcode::transfer(entry.opcode, 0), command.io.data_bytes, payload)?;
                Ok(Task::Io)
            }
        }
    }
}

/// Fills in where the next bytes of the stream may be received directly; says how many bytes that is.
fn direct_segments(pool: &impl Buffers, connection: &Connection, segments: &mut Vec<Segment>) -> usize {
    let Incoming { sink: Sink::Blocks, slot: Some(slot), .. } = connection.incoming else { return 0 };
    let command = &connection.commands[slot.index()];
    let (mut at, mut filled, mut left) = (command.cursor, command.filled, connection.deframer.direct_payload());
    let mut total = 0;
    while left > 0 && segments.len() < MAX_STREAM_PIECES {
        let buffer = at.expect("blocks for all data that was announced");
        let offset = filled % BLOCK;
        let length = left.min(BLOCK - offset);
        segments.push(Segment { buffer, offset: offset as u16, length: length as u16 });
        filled += length;
        left -= length;
        total += length;
        at = pool.next(buffer);
    }
    total
}

/// Takes note of bytes that came directly.
fn received_directly(pool: &impl Buffers, connection: &mut Connection, segments: &[Segment], mut received: usize) {
    let Some(slot) = connection.incoming.slot else { return };
    for segment in segments {
        if received == 0 {
            return;
        }
        let length = received.min(usize::from(segment.length));
        let offset = usize::from(segment.offset);
        connection.deframer.payload(&pool.bytes(segment.buffer)[offset..offset + length]);
        connection.commands[slot.index()].advance(pool, length);
        received -= length;
    }
}
