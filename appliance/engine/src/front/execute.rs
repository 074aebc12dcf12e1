//! Carrying out: from a command whose data is there to its reply. I/O waits in order for buffers and for a place at the
//! volumes; everything else is answered at once.

use base::BLOCK;
use base::metrics::VolumeOp;
use base::slab::Key;
use nvme::status::Status;
use nvmf::command::{DataPath, Fuse, IoAction};
use nvmf::dataset::ranges_to_blocks;
use nvmf::pdu;
use nvmf::queue::SlotId;
use ports::{BufferList, Buffers, Ports};

use super::VolumeIo;
use super::cause::Cause;
use super::connection::{Connection, ConnectionKey, Life, Out, Stage, Task};
use super::hub::Hub;
use crate::io::{IoDone, IoError, IoKind, IoRequest};

/// Bits of a token that name the slot; the connection's place stands above them.
const SLOT_BITS: u32 = 8;

/// The token of a command at the volumes: generation and place of its connection, and its slot.
pub(super) fn token(key: ConnectionKey, slot: SlotId) -> u64 {
    let bits = key.to_bits();
    bits & 0xffff_ffff_0000_0000 | (bits & 0x00ff_ffff) << SLOT_BITS | u64::from(slot.0)
}

/// What [`token`] put together.
pub(super) fn from_token(token: u64) -> (ConnectionKey, SlotId) {
    let place = (token & 0xffff_ffff) >> SLOT_BITS;
    (Key::from_bits(token & 0xffff_ffff_0000_0000 | place), SlotId((token & 0xff) as u16))
}

/// The status of a request that failed.
pub(super) const fn status_of(error: IoError) -> Status {
    match error {
        IoError::OutOfRange => Status::LBA_OUT_OF_RANGE.do_not_retry(),
        IoError::NoVolume => Status::INVALID_NAMESPACE.do_not_retry(),
        // Until an operator acts, so that a retry on this path is in vain.
        IoError::ReadOnly => Status::WRITE_PROTECTED.do_not_retry(),
        IoError::Stopped => Status::NAMESPACE_NOT_READY.do_not_retry(),
        IoError::Unwritable => Status::WRITE_FAULT.do_not_retry(),
        IoError::Unreadable => Status::UNRECOVERED_READ_ERROR.do_not_retry(),
        IoError::Miscompare => Status::COMPARE_FAILURE.do_not_retry(),
        IoError::NotOneUnit => Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry(),
        IoError::Stopping => Status::INTERRUPTED,
        IoError::Aborted => Status::ABORT_REQUESTED,
    }
}

const fn counted(action: IoAction) -> VolumeOp {
    match action {
        IoAction::Read | IoAction::Compare => VolumeOp::Read,
        IoAction::Write => VolumeOp::Write,
        IoAction::WriteZeroes | IoAction::Deallocate => VolumeOp::WriteZeroes,
        IoAction::Flush | IoAction::FlushAll => VolumeOp::Flush,
    }
}

/// What a command alone is to the volumes.
const fn kind_of(action: IoAction) -> IoKind {
    match action {
        IoAction::Read => IoKind::Read,
        IoAction::Write => IoKind::Write,
        IoAction::WriteZeroes => IoKind::WriteZeroes,
        IoAction::Deallocate => IoKind::Deallocate,
        IoAction::Compare => IoKind::Compare,
        IoAction::Flush | IoAction::FlushAll => IoKind::Flush,
    }
}

impl Hub {
    /// Judges the ranges of a discard, which have come.
    fn judge_ranges(&self, pool: &mut impl Buffers, connection: &Connection, slot: SlotId) -> Result<(), Status> {
        let command = &connection.commands[slot.index()];
        let subsystem = connection.subsystem.map(|index| &self.exports.subsystems()[index]);
        let namespace = subsystem.and_then(|subsystem| subsystem.namespace(command.entry.nsid));
        let namespace = namespace.ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
        let Some(buffer) = command.buffers.first() else { return Ok(()) };
        ranges_to_blocks(pool.bytes_mut(buffer), command.io.blocks, namespace)
    }

    /// Does what a command asks for: its capsule has come, and all data that was asked for.
    pub(super) fn act<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
        slot: SlotId,
    ) {
        let command = &mut connection.commands[slot.index()];
        if !command.intact && !matches!(command.task, Task::Refuse(_)) {
            // TCP, section 3.3.1.1: a data digest error ends the command, not the connection; it may be tried again.
            self.free_blocks(ports, connection, slot);
            connection.part(slot);
            connection.reply(slot, Status::TRANSIENT_TRANSPORT_ERROR, 0);
            return;
        }
        let unasked = command.path == DataPath::Asked && command.filled == 0;
        match command.task {
            Task::Refuse(status) => connection.reply(slot, status, 0),
            Task::Connect => self.connect(ports, key, connection, slot),
            Task::Disconnect => {
                connection.reply(slot, Status::SUCCESS, 0);
                connection.finish(ports);
            }
            Task::Admin if !unasked => self.admin(ports, connection, slot),
            // What is acknowledged is durable, so that nothing is left to flush.
            Task::Io if command.io.action == IoAction::FlushAll => connection.reply(slot, Status::SUCCESS, 0),
            Task::Admin | Task::Io => {
                let (action, is_io) = (command.io.action, command.task == Task::Io);
                if is_io
                    && action == IoAction::Deallocate
                    && !unasked
                    && let Err(status) = self.judge_ranges(ports, connection, slot)
                {
                    self.free_blocks(ports, connection, slot);
                    connection.reply(slot, status, 0);
                    return;
                }
                let command = &mut connection.commands[slot.index()];
                let read = action == IoAction::Read && is_io;
                command.stage = if unasked || read { Stage::NeedsBuffers } else { Stage::NeedsBegin };
                if !connection.waiting.is_empty() || !self.advance(ports, io, key, connection, slot) {
                    connection.waiting.push_back(slot);
                }
            }
        }
    }

    /// Takes waiting commands further, in their order, as far as buffers and places go.
    pub(super) fn retry<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
    ) -> bool {
        let mut worked = false;
        while let Some(&slot) = connection.waiting.front() {
            if connection.life != Life::Open || !self.advance(ports, io, key, connection, slot) {
                break;
            }
            connection.waiting.pop_front();
            worked = true;
        }
        worked
    }

    /// Takes a command to the volumes, or to its R2T; false if it must wait.
    fn advance<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
        slot: SlotId,
    ) -> bool {
        let command = &mut connection.commands[slot.index()];
        if let Task::Refuse(status) = command.task {
            // The other half of a pair has failed meanwhile.
            connection.reply(slot, status, 0);
            return true;
        }
        if command.stage == Stage::NeedsBuffers {
            let bytes = if command.task == Task::Io { command.io.data_bytes } else { command.entry.data.length };
            let blocks = match command.path {
                DataPath::Asked => (bytes as usize).div_ceil(BLOCK),
                _ => command.io.blocks as usize,
            };
            let Some(list) = self.space.take_data(ports, blocks, connection.data_blocks) else { return false };
            command.cursor = list.first();
            command.buffers = list;
            command.of_data = blocks;
            connection.data_blocks += blocks;
            if command.path == DataPath::Asked {
                let transfer = connection.queue.ask(slot, bytes);
                command.head_bytes = pdu::ready_to_transfer(&mut command.head, transfer, connection.deframer.digests());
                command.stage = Stage::Receiving;
                connection.push(Out::Ask(slot), 1);
                return true;
            }
            command.stage = Stage::NeedsBegin;
        }
        assert_eq!(command.stage, Stage::NeedsBegin, "what waits has not begun");
        if command.io.fuse != Fuse::None {
            return self.advance_pair(ports, io, key, connection, slot);
        }
        if command.of_reserve {
            if !self.space.replace(ports, command.buffers.len()) {
                return false;
            }
            command.of_reserve = false;
        }
        if !command.spread(ports) {
            return false;
        }
        let kind = kind_of(command.io.action);
        let request = IoRequest {
            token: token(key, slot),
            association: connection.association,
            volume: command.io.volume,
            kind,
            lba: command.io.lba,
            blocks: command.io.blocks,
            margins: command.io.margins,
            buffers: core::mem::take(&mut command.buffers),
        };
        if let Err(request) = io.begin(ports, request) {
            command.buffers = request.buffers;
            return false;
        }
        command.stage = Stage::Executing;
        connection.executing += 1;
        if matches!(kind, IoKind::Write | IoKind::Deallocate | IoKind::Compare) {
            self.leave_budget(connection, slot);
        }
        true
    }

    /// Takes the end of a request and queues its reply, if there is still somebody to reply to.
    pub(super) fn done(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        done: IoDone,
    ) {
        let (_, slot) = from_token(done.token);
        connection.executing -= 1;
        let command = &mut connection.commands[slot.index()];
        assert_eq!(command.stage, Stage::Executing, "a request ends once");
        command.stage = Stage::NeedsBegin;
        command.buffers = done.buffers;
        let op = counted(command.io.action);
        let bytes = match command.io.action {
            // What it says is a number of ranges.
            IoAction::Deallocate => 0,
            _ => command.io.bytes(),
        };
        if let Some(volume) = self.metrics().volumes.get(command.io.volume.index()) {
            volume.record(op, bytes, self.now.since(command.arrived), done.result.is_ok());
        }
        if command.io.fuse != Fuse::None {
            self.pair_done(ports, key, connection, slot, done.result);
            return;
        }
        match done.result {
            _ if !matches!(connection.life, Life::Open | Life::Draining) => self.release(ports, connection, slot),
            Err(IoError::Stopping) => {
                // Unanswered, the host tries again once it has reconnected; any status might reach its application.
                self.release(ports, connection, slot);
                self.closing.push_back((key, Cause::Stopping));
            }
            Err(error) => {
                let buffers = core::mem::replace(&mut command.buffers, BufferList::EMPTY);
                buffers.free(ports);
                connection.reply(slot, status_of(error), 0);
            }
            Ok(()) if command.io.action == IoAction::Read => {
                let length = command.io.data_bytes as usize;
                assert_eq!(command.buffers.len(), command.io.blocks as usize, "a read brings all its blocks");
                connection.reply_data(ports, slot, length);
            }
            Ok(()) => connection.reply(slot, Status::SUCCESS, 0),
        }
    }
}
