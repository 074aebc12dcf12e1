//! Pairs: a compare and the write behind it, carried out as one (Base, section 3.4.2). The write must be the next capsule of
//! the queue. Each half gets its data as any command does; whichever has it last takes both to the volumes. A half that
//! cannot be carried out takes the other with it, and each gets its own completion.

use nvme::entry::{FUSE_FIRST, FUSE_SECOND};
use nvme::status::Status;
use nvmf::command::{Fuse, IoCommand};
use nvmf::queue::SlotId;
use ports::Ports;

use super::VolumeIo;
use super::cause::Cause;
use super::connection::{Connection, ConnectionKey, Life, Role, Stage, Task};
use super::execute::{status_of, token};
use super::hub::Hub;
use crate::io::{IoError, IoKind, IoRequest};

/// What came in the capsule before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstHalf {
    /// No first half.
    None,
    /// One that waits for its second.
    Waiting(SlotId),
    /// One that was refused: so will be its second.
    Refused,
}

impl Connection {
    /// Brings the halves of pairs together as their capsules come; says what is to be done with this one.
    pub(super) fn pair(&mut self, slot: SlotId, task: Task) -> Task {
        if !matches!(self.role, Role::Io { .. }) {
            return task;
        }
        let fuse = self.command(slot).entry.fuse();
        let first = core::mem::replace(&mut self.first_half, FirstHalf::None);
        let task = match (first, fuse == FUSE_SECOND) {
            (FirstHalf::None, true) if task == Task::Io => Task::Refuse(Status::ABORTED_MISSING_FUSED.do_not_retry()),
            (FirstHalf::Refused, true) if task == Task::Io => Task::Refuse(Status::ABORTED_FAILED_FUSED),
            (FirstHalf::None | FirstHalf::Refused, _) => task,
            (FirstHalf::Waiting(first), false) => {
                self.refuse(first, Status::ABORTED_MISSING_FUSED.do_not_retry());
                task
            }
            (FirstHalf::Waiting(first), true) => self.join(first, slot, task),
        };
        if fuse == FUSE_FIRST {
            let refused = matches!(task, Task::Refuse(_));
            self.first_half = if refused { FirstHalf::Refused } else { FirstHalf::Waiting(slot) };
        }
        task
    }

    fn join(&mut self, first: SlotId, second: SlotId, task: Task) -> Task {
        let (one, other) = (self.command(first).io, self.command(second).io);
        let run = |io: IoCommand| (io.volume, io.lba, io.blocks, io.margins);
        let same_blocks = run(one) == run(other);
        match task {
            Task::Io if same_blocks => {
                self.command(first).partner = Some(second);
                self.command(second).partner = Some(first);
                task
            }
            Task::Io => {
                let different = Status::INVALID_FIELD.do_not_retry();
                self.refuse(first, different);
                Task::Refuse(different)
            }
            _ => {
                self.refuse(first, Status::ABORTED_FAILED_FUSED);
                task
            }
        }
    }

    /// A half that has been taken in is not carried out: it is answered now, or once its data has come.
    fn refuse(&mut self, slot: SlotId, status: Status) {
        let command = self.command(slot);
        command.partner = None;
        command.task = Task::Refuse(status);
        if command.stage == Stage::Paired {
            self.reply(slot, status, 0);
        }
    }

    /// A command fails by itself: if it is one half, so does the other.
    pub(super) fn part(&mut self, slot: SlotId) {
        if let Some(partner) = self.command(slot).partner.take() {
            self.refuse(partner, Status::ABORTED_FAILED_FUSED);
        } else if self.first_half == FirstHalf::Waiting(slot) {
            self.first_half = FirstHalf::Refused;
        }
    }
}

impl Hub {
    /// Takes a pair to the volumes if both halves have their data; false if it must wait for room.
    pub(super) fn advance_pair<P: Ports>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
        key: ConnectionKey,
        connection: &mut Connection,
        slot: SlotId,
    ) -> bool {
        let partner = connection.command(slot).partner;
        let Some(partner) = partner.filter(|&partner| connection.command(partner).stage == Stage::Paired) else {
            connection.command(slot).stage = Stage::Paired;
            return true;
        };
        let is_first = connection.command(slot).io.fuse == Fuse::First;
        let [first, second] = if is_first { [slot, partner] } else { [partner, slot] };
        for half in [first, second] {
            let command = connection.command(half);
            if command.of_reserve && !self.space.replace(ports, command.buffers.len()) {
                return false;
            }
            command.of_reserve = false;
            if !command.spread(ports) {
                return false;
            }
        }
        let mut buffers = core::mem::take(&mut connection.command(first).buffers);
        buffers.append(ports, core::mem::take(&mut connection.command(second).buffers));
        let command = connection.command(first).io;
        let request = IoRequest {
            token: token(key, first),
            association: connection.association,
            volume: command.volume,
            kind: IoKind::CompareAndWrite,
            lba: command.lba,
            blocks: command.blocks,
            margins: command.margins,
            buffers,
        };
        if let Err(request) = io.begin(ports, request) {
            let mut buffers = request.buffers;
            connection.command(first).buffers = buffers.split_front(ports, command.blocks as usize);
            connection.command(second).buffers = buffers;
            return false;
        }
        connection.executing += 1;
        for half in [first, second] {
            connection.command(half).stage = Stage::Executing;
            self.leave_budget(connection, half);
        }
        true
    }

    /// A pair has ended at the volumes.
    pub(super) fn pair_done(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        first: SlotId,
        result: Result<(), IoError>,
    ) {
        let second = connection.command(first).partner.take().expect("a pair goes to the volumes whole");
        connection.command(second).partner = None;
        for half in [first, second] {
            connection.command(half).stage = Stage::NeedsBegin;
        }
        let (of_first, of_second) = match result {
            _ if !matches!(connection.life, Life::Open | Life::Draining) => {
                self.release(ports, connection, first);
                self.release(ports, connection, second);
                return;
            }
            Err(IoError::Stopping) => {
                self.release(ports, connection, first);
                self.release(ports, connection, second);
                self.closing.push_back((key, Cause::Stopping));
                return;
            }
            Ok(()) => (Status::SUCCESS, Status::SUCCESS),
            // The half that was to be aborted says so; if it was one alone, its other has failed with it.
            Err(IoError::Aborted) if connection.command(second).aborter.is_some() => {
                let both = connection.command(first).aborter.is_some();
                (if both { Status::ABORT_REQUESTED } else { Status::ABORTED_FAILED_FUSED }, Status::ABORT_REQUESTED)
            }
            // The compare may well have been in order.
            Err(error @ (IoError::ReadOnly | IoError::Stopped)) => (Status::ABORTED_FAILED_FUSED, status_of(error)),
            Err(error) => (status_of(error), Status::ABORTED_FAILED_FUSED),
        };
        connection.reply(first, of_first, 0);
        connection.reply(second, of_second, 0);
    }
}
