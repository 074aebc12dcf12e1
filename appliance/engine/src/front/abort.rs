//! Abort (Base, section 5.1): a host's change of mind about one command of any of its queues. The controller's home takes it
//! and asks the shard of the queue. There a command that has not begun is taken out; of one at the volumes what has not begun
//! is dropped; one whose data is on its way is refused when that has come, as its host owes it. What was aborted is answered
//! with Command Abort Requested before the Abort is; what can no longer be stopped goes on, and its Abort says so.

use base::ids::ShardId;
use base::slab::Key;
use nvme::status::Status;
use nvmf::command::Fuse;
use nvmf::limits::{CONTROLLERS_PER_SHARD, MAX_ABORTS};
use nvmf::queue::SlotId;
use ports::Ports;

use super::connection::{Connection, ConnectionKey, Life, Role, Stage, Task};
use super::execute::{from_token, token};
use super::hub::Hub;
use super::message::FrontMessage;
use super::{Front, VolumeIo};

/// An Abort under way at its controller's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldAbort {
    number: u32,
    pub(super) slot: SlotId,
}

/// Who waits to hear what became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aborter {
    controller: u16,
    number: u32,
}

/// A command that is to be aborted, on the shard of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    connection: u64,
    cid: u16,
    aborter: Aborter,
}

impl Hub {
    /// Takes an Abort of one of a controller's commands.
    pub(super) fn take_abort(
        &mut self,
        connection: &mut Connection,
        slot: SlotId,
        controller: u16,
        (queue_id, cid): (u16, u16),
    ) {
        let entry = self.controllers.get_mut(&controller).expect("a controller lives as long as its admin connection");
        if entry.aborts.len() >= usize::from(MAX_ABORTS) {
            connection.reply(slot, Status::ABORT_LIMIT_EXCEEDED, 0);
            return;
        }
        let Some((shard, at)) = entry.queue(self.shard, queue_id) else {
            connection.reply(slot, Status::SUCCESS, u64::from(true));
            return;
        };
        self.last_attempt = self.last_attempt.wrapping_add(1);
        let number = self.last_attempt;
        entry.aborts.push(HeldAbort { number, slot });
        connection.command(slot).stage = Stage::Held;
        if shard == self.shard {
            self.aborts.push_back(Target { connection: at, cid, aborter: Aborter { controller, number } });
        } else {
            self.outbox.push_back((shard, FrontMessage::Abort { connection: at, cid, controller, number }));
        }
    }

    /// Says to the home of a controller what became of a command.
    fn tell_abort(&mut self, Aborter { controller, number }: Aborter, aborted: bool) {
        let home = ShardId(controller / CONTROLLERS_PER_SHARD);
        if home == self.shard {
            self.aborted.push_back((Aborter { controller, number }, aborted));
        } else {
            self.outbox.push_back((home, FrontMessage::Aborted { controller, number, aborted }));
        }
    }
}

impl Connection {
    /// Ends the wait of whoever wants a command aborted that has ended.
    pub(super) fn abort_ended(&mut self, slot: SlotId, aborted: bool) {
        if let Some(aborter) = self.command(slot).aborter.take() {
            self.aborts_ended.push((aborter, aborted));
        }
    }
}

impl Front {
    /// From a controller's home: a command of a queue on this shard is to be aborted.
    pub(super) fn abort(&mut self, connection: u64, cid: u16, (controller, number): (u16, u32)) {
        self.hub.aborts.push_back(Target { connection, cid, aborter: Aborter { controller, number } });
    }

    /// Carries out what Aborts there are, and answers those of this shard's controllers. Whether there were any.
    pub(super) fn carry_out_aborts<P: Ports>(&mut self, ports: &mut P, io: &mut impl VolumeIo<P>) -> bool {
        let mut worked = false;
        while let Some(target) = self.hub.aborts.pop_front() {
            worked = true;
            self.abort_one(ports, io, target);
        }
        while let Some((Aborter { controller, number }, aborted)) = self.hub.aborted.pop_front() {
            worked = true;
            self.answer_abort(controller, number, aborted);
        }
        worked
    }

    fn abort_one<P: Ports>(&mut self, ports: &mut P, io: &mut impl VolumeIo<P>, target: Target) {
        let Target { connection, cid, aborter } = target;
        let key = Key::from_bits(connection);
        let found = self.connections.get_mut(key).filter(|found| matches!(found.life, Life::Open | Life::Draining));
        let slot = found.as_ref().and_then(|found| found.queue.find(cid));
        let (Some(connection), Some(slot)) = (found, slot) else {
            self.hub.tell_abort(aborter, false);
            return;
        };
        let command = connection.command(slot);
        let is_wanted = command.aborter.is_none() && !matches!(command.task, Task::Refuse(_));
        match command.stage {
            Stage::Paired | Stage::NeedsBuffers | Stage::NeedsBegin if is_wanted => {
                command.aborter = Some(aborter);
                connection.waiting.retain(|&other| other != slot);
                connection.part(slot);
                connection.reply(slot, Status::ABORT_REQUESTED, 0);
            }
            Stage::Receiving if is_wanted => {
                command.aborter = Some(aborter);
                command.task = Task::Refuse(Status::ABORT_REQUESTED);
                connection.part(slot);
            }
            Stage::Executing if is_wanted => {
                command.aborter = Some(aborter);
                let first = if command.io.fuse == Fuse::Second { command.partner } else { None };
                io.abort(ports, token(key, first.unwrap_or(slot)));
            }
            Stage::Held => {
                let aborted = match connection.role {
                    Role::Admin { controller } => self.hub.abort_event_request(controller, slot),
                    Role::None | Role::Io { .. } => false,
                };
                if aborted {
                    connection.reply(slot, Status::ABORT_REQUESTED, 0);
                }
                self.hub.tell_abort(aborter, aborted);
            }
            _ => self.hub.tell_abort(aborter, false),
        }
        self.note(key);
    }

    /// A request that was to be aborted can no longer be stopped, and goes on.
    pub(crate) fn goes_on(&mut self, of: u64) {
        let (key, slot) = from_token(of);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let partner = connection.command(slot).partner;
        for half in core::iter::once(slot).chain(partner) {
            connection.abort_ended(half, false);
        }
        self.note(key);
    }

    /// Completes an Abort, unless its controller has ended or was reset meanwhile.
    pub(super) fn answer_abort(&mut self, controller: u16, number: u32, aborted: bool) {
        let Some(entry) = self.hub.controllers.get_mut(&controller) else { return };
        let Some(at) = entry.aborts.iter().position(|held| held.number == number) else { return };
        let HeldAbort { slot, .. } = entry.aborts.swap_remove(at);
        let key = entry.connection;
        if let Some(connection) = self.connections.get_mut(key)
            && matches!(connection.life, Life::Open | Life::Draining)
        {
            connection.reply(slot, Status::SUCCESS, u64::from(!aborted));
        }
        self.note(key);
    }

    /// Passes on what became of commands of a connection that were to be aborted.
    pub(super) fn tell_aborts(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        for (aborter, aborted) in connection.aborts_ended.drain(..) {
            self.hub.tell_abort(aborter, aborted);
        }
    }
}
