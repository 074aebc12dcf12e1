//! Ends, kills and Connects that wait for them, as a front carries them out: what [`super::endings`] decides is done to
//! connections here.

use base::ids::ShardId;
use base::slab::Key;
use nvme::status::Status;
use nvmf::fabrics::{Connect, Refusal};
use nvmf::limits::CONTROLLERS_PER_SHARD;
use nvmf::queue::Phase;
use ports::Ports;

use super::Front;
use super::cause::Cause;
use super::connection::{Connection, ConnectionKey, Life, Role};
use super::endings::Asker;
use super::kill::{Kill, Killed, Killing, Selector};
use super::message::FrontMessage;
use crate::fence::Association;

impl Front {
    /// An epoch of which every shard is to be told, and why it was raised.
    pub(crate) fn next_raise(&mut self) -> Option<(Association, Cause)> {
        self.hub.raises.pop_front()
    }

    /// An association has ended: its queues on this shard close.
    pub(crate) fn fenced(&mut self, ports: &mut impl Ports, association: Association, cause: Cause) {
        self.hub.now = ports.now();
        let is_of_it = |connection: &Connection| match connection.role {
            // One whose Connect is still judged has no epoch yet: what it would attach to has ended.
            Role::Io { controller, .. } => {
                controller == association.id && connection.association.epoch < association.epoch
            }
            Role::None | Role::Admin { .. } => false,
        };
        let of_it = self.connections.iter().filter(|(_, connection)| is_of_it(connection)).map(|(key, _)| key);
        for key in of_it.collect::<Vec<_>>() {
            self.close(ports, key, cause);
        }
    }

    /// A shard has nothing of an older epoch under way.
    pub(crate) fn raised(&mut self, ports: &mut impl Ports, from: ShardId, association: Association) {
        self.hub.now = ports.now();
        self.hub.raised(from, association);
        while let Some(Asker { shard, connection, attempt }) = self.hub.endings.next_clear() {
            if shard == self.hub.shard {
                self.asked(ports, connection, attempt, true);
            } else {
                self.hub.outbox.push_back((shard, FrontMessage::Asked { connection, attempt, clear: true }));
            }
        }
    }

    /// A home has answered whether the host of a Connect may come in.
    pub(super) fn asked(&mut self, ports: &mut impl Ports, connection: u64, attempt: u32, clear: bool) {
        let key = Key::from_bits(connection);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(asking) = connection.asking.as_mut().filter(|asking| asking.attempt == attempt) else { return };
        asking.unanswered -= 1;
        if clear && asking.unanswered > 0 {
            return;
        }
        self.answer_connect(ports, key, clear);
    }

    /// Answers the Connect of an admin queue that waited.
    pub(super) fn answer_connect(&mut self, ports: &mut impl Ports, key: ConnectionKey, clear: bool) {
        let connection = &mut self.connections[key];
        connection.asking = None;
        if connection.life != Life::Open || connection.queue.phase() != Phase::Connecting {
            return;
        }
        let slot = connection.held_connect();
        let connect = Connect::from_entry(&connection.command(slot).entry);
        let busy = Refusal::of(Status::CONNECT_CONTROLLER_BUSY);
        let judged = if clear { self.hub.let_in(ports, key, connection, &connect) } else { Err(busy) };
        match judged {
            Ok(association) => self.hub.connected(connection, slot, 0, association),
            Err(refusal) => self.hub.refused(ports, connection, slot, refusal),
        }
        self.note(key);
    }

    /// Ends what the control side chose. Of an I/O queue whose controller lives elsewhere nothing is closed before its home
    /// has raised the epoch: its host must not see the end of the one before the other.
    pub(super) fn kill(&mut self, kill: &Kill) {
        let Kill { ticket, ref selector, block, cause } = *kill;
        let now = self.hub.now;
        if let (Some(span), Selector::Host(host)) = (block, selector) {
            self.hub.endings.block(host, now + span);
        }
        let mut killing = Killing { killed: Killed { ticket, shard: self.hub.shard, connections: 0 }, left: 1 };
        let mut associations: Vec<Association> = Vec::new();
        for (key, connection) in self.connections.iter().filter(|(_, connection)| connection.life != Life::Dead) {
            let last_work = match connection.role {
                Role::Admin { controller } => self.hub.controllers.get(&controller).map(|entry| entry.last_work),
                Role::Io { .. } => None,
                Role::None => Some(connection.last_work),
            };
            if !selector.chooses(connection.number, connection, last_work, now) {
                continue;
            }
            killing.killed.connections += 1;
            if let Some(span) = block.filter(|_| !connection.host_nqn.is_empty()) {
                self.hub.endings.block(&connection.host_nqn, now + span);
            }
            let association = match connection.role {
                Role::None => {
                    self.hub.closing.push_back((key, cause));
                    continue;
                }
                // A reset has raised its epoch since its Connect.
                Role::Admin { controller } => self.hub.endings.living(controller),
                Role::Io { .. } => connection.association,
            };
            if !associations.contains(&association) {
                associations.push(association);
            }
        }
        killing.left += associations.len() as u32;
        self.hub.killings.push(killing);
        for association in associations {
            let home = ShardId(association.id / CONTROLLERS_PER_SHARD);
            if home == self.hub.shard {
                self.hub.end(association, cause, Some((home, ticket)));
            } else {
                self.hub.outbox.push_back((home, FrontMessage::End { association, cause, kill: Some(ticket) }));
            }
        }
        // The one that kept it from ending while it was put together.
        self.hub.one_ended(ticket);
    }
}
