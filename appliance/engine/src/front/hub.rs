//! What connections share: exports, controllers, buffers, and what is to be said to other shards. It is handed one
//! connection at a time; what concerns another one is put on a list.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::ids::ShardId;
use base::metrics::{Metrics, ShardMetrics};
use base::snapshot::Snapshot;
use base::time::{Span, Time};
use nvme::log_page::SmartLog;
use nvme::opcode;
use nvme::status::Status;
use nvmf::controller::{Claim, Controller, Effect, Host, Kind, Outcome, World, judge_admin, judge_connect};
use nvmf::fabrics::{self, CONNECT_NO_FLOW_CONTROL, Connect, ConnectData, ConnectField, Refusal};
use nvmf::limits::{CONTROLLERS_PER_SHARD, IN_CAPSULE_BLOCKS, MAX_QUEUE_ENTRIES};
use nvmf::queue::SlotId;
use nvmf::subsystem::{Exports, Subsystem};
use ports::{Address, Ports, Segment};

use super::abort::{Aborter, HeldAbort, Target};
use super::cause::Cause;
use super::connection::{Asking, Connection, ConnectionKey, Role, Stage};
use super::endings::{Asker, Endings};
use super::kill::Killing;
use super::limits::{ADMIN_IN_CAPSULE_BLOCKS, FENCE_LIMIT, MAX_NEWS};
use super::message::{Attach, FrontMessage};
use super::space::Space;
use crate::command::{Event, HostNews};
use crate::fence::Association;

/// An I/O queue of a controller of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attached {
    shard: ShardId,
    connection: u64,
    queue_id: u16,
}

/// A controller of this shard.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) controller: Controller,
    /// Its admin connection.
    pub(super) connection: ConnectionKey,
    local: Address,
    queues: Vec<Attached>,
    /// I/O queues were attached since its epoch was last raised: something of them may be at the volumes.
    has_worked: bool,
    /// Aborts whose end is awaited.
    pub(super) aborts: Vec<HeldAbort>,
    /// When its host last asked for something, keep alive apart.
    pub(super) last_work: Time,
}

impl Entry {
    /// Where one of its queues is; `home` is this shard.
    pub(super) fn queue(&self, home: ShardId, queue_id: u16) -> Option<(ShardId, u64)> {
        if queue_id == 0 {
            return Some((home, self.connection.to_bits()));
        }
        let queue = self.queues.iter().find(|queue| queue.queue_id == queue_id);
        queue.map(|queue| (queue.shard, queue.connection))
    }
}

/// All that is not one connection's.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) shard: ShardId,
    pub(super) shards: u16,
    pub(super) exports: Snapshot<Exports>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) firmware: String,
    pub(super) health: SmartLog,
    pub(super) space: Space,
    pub(super) controllers: BTreeMap<u16, Entry>,
    pub(super) last_controller: u16,
    pub(super) outbox: VecDeque<(ShardId, FrontMessage)>,
    /// Connections that are to be closed.
    pub(super) closing: VecDeque<(ConnectionKey, Cause)>,
    /// Associations of this shard's controllers that end.
    pub(super) endings: Endings,
    /// Epochs of which every shard is to be told.
    pub(super) raises: VecDeque<(Association, Cause)>,
    /// Kills that are not done.
    pub(super) killings: Vec<Killing>,
    /// Commands of this shard's queues that are to be aborted, and what became of those of this shard's controllers.
    pub(super) aborts: VecDeque<Target>,
    pub(super) aborted: VecDeque<(Aborter, bool)>,
    /// The control side's address.
    pub(super) control: ShardId,
    pub(super) last_attempt: u32,
    /// By listener.
    pub(super) silence: Vec<Span>,
    pub(super) now: Time,
    pub(super) stopping: bool,
    /// What the control side is told, and how much of that found no place.
    pub(super) news: VecDeque<Event>,
    pub(super) lost_news: u64,
    pub(super) staging: Vec<u8>,
    pub(super) segments: Vec<Segment>,
}

impl Hub {
    /// What this shard counts.
    pub(super) fn metrics(&self) -> &ShardMetrics {
        self.metrics.shard(self.shard)
    }

    /// Has news told to the control side, unless too many wait.
    fn tell(&mut self, event: Event) {
        if self.news.len() < MAX_NEWS {
            self.news.push_back(event);
        } else {
            self.lost_news += 1;
        }
    }

    /// Judges a Connect whose data is there, and answers it or asks the controller's home.
    pub(super) fn connect(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        slot: SlotId,
    ) {
        connection.queue.connecting();
        let entry = connection.command(slot).entry;
        let connect = Connect::from_entry(&entry);
        match self.judge_connect(ports, key, connection, &connect) {
            Ok(Some(association)) => self.connected(connection, slot, connect.queue_id, association),
            Ok(None) => connection.command(slot).stage = Stage::Held,
            Err(refusal) => self.refused(ports, connection, slot, refusal),
        }
    }

    /// The association that a Connect makes or joins, or none yet when other shards are asked.
    fn judge_connect(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        connect: &Connect,
    ) -> Result<Option<Association>, Refusal> {
        let busy = Refusal::of(Status::CONNECT_CONTROLLER_BUSY);
        let data = ConnectData::decode(&connection.connect_data).expect("its length was checked");
        let parameter = |field| Refusal::parameter(field);
        let subsystem_nqn = fabrics::nqn(&data.subsystem_nqn).ok_or(parameter(ConnectField::SUBSYSTEM_NQN))?;
        let host_nqn = fabrics::nqn(&data.host_nqn).ok_or(parameter(ConnectField::HOST_NQN))?;
        let entries = judge_connect(connect, MAX_QUEUE_ENTRIES)?;
        let host = Host { nqn: host_nqn.into(), id: data.host_id };
        if self.stopping {
            return Err(busy);
        }
        let blocks = match connect.queue_id {
            0 => ADMIN_IN_CAPSULE_BLOCKS,
            _ => usize::from(entries) * IN_CAPSULE_BLOCKS as usize,
        };
        connection.asked_entries = entries;
        connection.asked_flow_control = connect.attributes & CONNECT_NO_FLOW_CONTROL == 0;
        connection.host_nqn = host_nqn.into();
        connection.subsystem_nqn = subsystem_nqn.into();
        connection.subsystem = self.exports.find_at(subsystem_nqn, connection.listener);
        let id = data.controller_id;
        if connect.queue_id == 0 {
            judge_admin(&self.exports, connection.listener, subsystem_nqn, host_nqn, id)?;
            return self.ask_homes(ports, key, connection, connect, host_nqn);
        }
        // Only controllers of subsystems have I/O queues, and those only where the subsystem is.
        connection.subsystem.ok_or(parameter(ConnectField::SUBSYSTEM_NQN))?;
        let home = ShardId(id / CONTROLLERS_PER_SHARD);
        if home.0 >= self.shards || id.is_multiple_of(CONTROLLERS_PER_SHARD) {
            return Err(parameter(ConnectField::CONTROLLER_ID));
        }
        self.set_aside(ports, connection, blocks)?;
        let queue_id = connect.queue_id;
        let attach =
            Attach { connection: key.to_bits(), controller: id, queue_id, subsystem_nqn: subsystem_nqn.into(), host };
        if home == self.shard {
            let association = self.attach(home, &attach)?;
            connection.role = Role::Io { controller: id, home, queue_id };
            return Ok(Some(association));
        }
        connection.role = Role::Io { controller: id, home, queue_id };
        self.outbox.push_back((home, FrontMessage::Attach(Box::new(attach))));
        Ok(None)
    }

    /// Asks every home whether the host may come in: not while an earlier association of it is on its way to its end.
    fn ask_homes(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        connect: &Connect,
        host_nqn: &str,
    ) -> Result<Option<Association>, Refusal> {
        self.last_attempt = self.last_attempt.wrapping_add(1);
        let (attempt, host) = (self.last_attempt, Arc::<str>::from(host_nqn));
        let mut unanswered = self.shards;
        for home in (0..self.shards).map(ShardId).filter(|&home| home != self.shard) {
            let host = Arc::clone(&host);
            self.outbox.push_back((home, FrontMessage::Ask { connection: key.to_bits(), attempt, host }));
        }
        let asker = Asker { shard: self.shard, connection: key.to_bits(), attempt };
        match self.endings.ask(asker, &host, self.now) {
            Some(false) => return Err(Refusal::of(Status::CONNECT_CONTROLLER_BUSY)),
            Some(true) => unanswered -= 1,
            None => {}
        }
        if unanswered == 0 {
            return self.let_in(ports, key, connection, connect).map(Some);
        }
        connection.asking = Some(Asking { attempt, unanswered, until: self.now + FENCE_LIMIT });
        Ok(None)
    }

    /// Makes the controller of a host that may come in.
    pub(super) fn let_in(
        &mut self,
        ports: &mut impl Ports,
        key: ConnectionKey,
        connection: &mut Connection,
        connect: &Connect,
    ) -> Result<Association, Refusal> {
        let busy = Refusal::of(Status::CONNECT_CONTROLLER_BUSY);
        if self.stopping {
            return Err(busy);
        }
        let data = ConnectData::decode(&connection.connect_data).expect("its length was checked");
        let (subsystem, host) = (connection.subsystem_nqn.clone(), connection.host_nqn.clone());
        // What is exported may have changed since the Connect came.
        let kind = judge_admin(&self.exports, connection.listener, &subsystem, &host, data.controller_id)?;
        // Out of room is transient: the host may try again (Do Not Retry stays clear).
        let id = self.free_controller().ok_or(busy)?;
        self.set_aside(ports, connection, ADMIN_IN_CAPSULE_BLOCKS)?;
        let host = Host { nqn: host, id: data.host_id };
        let controller = Controller::new(id, kind, subsystem, host, connect, self.now);
        let (local, last_work) = (connection.local, self.now);
        let entry = Entry {
            controller,
            connection: key,
            local,
            queues: Vec::new(),
            has_worked: false,
            aborts: Vec::new(),
            last_work,
        };
        self.controllers.insert(id, entry);
        connection.role = Role::Admin { controller: id };
        if kind == Kind::Io {
            self.tell(Event::HostConnected(who(connection)));
        }
        Ok(self.endings.living(id))
    }

    fn set_aside(&mut self, ports: &mut impl Ports, connection: &mut Connection, blocks: usize) -> Result<(), Refusal> {
        if !self.space.reserve(ports, blocks) {
            return Err(Refusal::of(Status::CONNECT_CONTROLLER_BUSY));
        }
        connection.reserved += blocks;
        Ok(())
    }

    /// A controller identifier that is not in use; those used lately come last.
    fn free_controller(&mut self) -> Option<u16> {
        let base = self.shard.0 * CONTROLLERS_PER_SHARD;
        for _ in 1..CONTROLLERS_PER_SHARD {
            self.last_controller = self.last_controller % (CONTROLLERS_PER_SHARD - 1) + 1;
            let id = base + self.last_controller;
            if !self.controllers.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }

    /// Lets an I/O queue of any shard attach to a controller of this one.
    pub(super) fn attach(&mut self, from: ShardId, attach: &Attach) -> Result<Association, Refusal> {
        let association = self.endings.living(attach.controller);
        let Some(entry) = self.controllers.get_mut(&attach.controller) else {
            // One that has ended a moment ago is no mistake of the host: it will find that out, and may come back.
            let ended = Refusal::of(Status::CONNECT_CONTROLLER_BUSY);
            let unknown = Refusal::parameter(ConnectField::CONTROLLER_ID);
            return Err(if association.epoch > 0 { ended } else { unknown });
        };
        entry.controller.attach(&Claim {
            queue_id: attach.queue_id,
            subsystem_nqn: &attach.subsystem_nqn,
            host_nqn: &attach.host.nqn,
            host_id: attach.host.id,
        })?;
        entry.controller.seen(self.now);
        entry.last_work = self.now;
        entry.has_worked = true;
        entry.queues.push(Attached { shard: from, connection: attach.connection, queue_id: attach.queue_id });
        Ok(association)
    }

    /// Whether a controller of this shard has I/O queues.
    pub(super) fn has_queues(&self, controller: u16) -> bool {
        self.controllers.get(&controller).is_some_and(|entry| !entry.queues.is_empty())
    }

    /// An I/O queue of a controller of this shard has ended.
    pub(super) fn detach(&mut self, controller: u16, shard: ShardId, connection: u64) {
        let Some(entry) = self.controllers.get_mut(&controller) else { return };
        let found = entry.queues.iter().position(|queue| queue.shard == shard && queue.connection == connection);
        if let Some(index) = found {
            let queue = entry.queues.swap_remove(index);
            entry.controller.detach(queue.queue_id);
        }
    }

    /// Connect succeeds.
    pub(super) fn connected(
        &mut self,
        connection: &mut Connection,
        slot: SlotId,
        queue_id: u16,
        association: Association,
    ) {
        connection.association = association;
        connection.queue.connected(queue_id, connection.asked_entries, connection.asked_flow_control);
        connection.deadline = Time::NEVER;
        connection.reply(slot, Status::SUCCESS, u64::from(association.id));
    }

    /// Connect is refused.
    pub(super) fn refused(
        &mut self,
        ports: &mut impl Ports,
        connection: &mut Connection,
        slot: SlotId,
        refusal: Refusal,
    ) {
        self.metrics().connections_refused.increment();
        self.tell(Event::HostRefused { who: who(connection), why: why(refusal.status) });
        connection.role = Role::None;
        connection.asking = None;
        self.space.unreserve(ports, core::mem::take(&mut connection.reserved));
        connection.queue.refused();
        connection.reply(slot, refusal.status, u64::from(refusal.result));
    }

    /// Carries out an admin command whose data is there.
    pub(super) fn admin(&mut self, ports: &mut impl Ports, connection: &mut Connection, slot: SlotId) {
        let Role::Admin { controller: id } = connection.role else {
            unreachable!("admin commands come on admin queues")
        };
        let command = &connection.commands[slot.index()];
        let entry = command.entry;
        let mut data = Vec::new();
        for block in command.buffers.ids(ports) {
            let left = command.filled - data.len();
            data.extend_from_slice(&ports.bytes(block)[..left.min(base::BLOCK)]);
        }
        self.free_blocks(ports, connection, slot);
        let smart = match entry.opcode {
            opcode::GET_LOG_PAGE => self.smart(connection.subsystem),
            _ => SmartLog::default(),
        };
        let controllers: Vec<u16> = match entry.opcode {
            opcode::IDENTIFY => self.controllers_of(&connection.subsystem_nqn).collect(),
            _ => Vec::new(),
        };
        let exports = self.exports.clone();
        let place = self.controllers.get_mut(&id).expect("a controller lives as long as its admin connection");
        let world = World {
            now: self.now,
            exports: &exports,
            local: place.local,
            smart: &smart,
            controllers: &controllers,
            firmware: &self.firmware,
        };
        if entry.opcode != opcode::KEEP_ALIVE {
            place.last_work = self.now;
        }
        let answer = place.controller.command(&world, slot, &entry, &data);
        match answer.outcome {
            Outcome::Complete(status, result) => connection.reply(slot, status, result),
            Outcome::Data(page) => {
                let length = page.len();
                connection.command(slot).page = page;
                connection.reply_data(ports, slot, length);
            }
            Outcome::Held => connection.command(slot).stage = Stage::Held,
            Outcome::Abort { queue_id, cid } => self.take_abort(connection, slot, id, (queue_id, cid)),
        }
        match answer.effect {
            Effect::None => {}
            Effect::Reset => {
                let place = self.controllers.get_mut(&id).expect("it has just answered");
                for held in place.aborts.drain(..) {
                    connection.reply(held.slot, Status::ABORTED_SQ_DELETION, 0);
                }
                for held in place.controller.take_requests() {
                    connection.reply(held, Status::ABORTED_SQ_DELETION, 0);
                }
                for queue in core::mem::take(&mut place.queues) {
                    place.controller.detach(queue.queue_id);
                }
                if core::mem::take(&mut place.has_worked) {
                    let host = place.controller.host().nqn.clone();
                    self.fence(id, &host, Cause::ControllerReset);
                } else {
                    place.controller.drained();
                }
            }
        }
        self.tell_events(connection, id);
    }

    /// Takes an Asynchronous Event Request back from a controller; whether it was held.
    pub(super) fn abort_event_request(&mut self, controller: u16, slot: SlotId) -> bool {
        self.controllers.get_mut(&controller).is_some_and(|entry| entry.controller.abort(slot))
    }

    /// Completes held requests with the events that are there.
    pub(super) fn tell_events(&mut self, connection: &mut Connection, controller: u16) {
        let Some(entry) = self.controllers.get_mut(&controller) else { return };
        while let Some((slot, result)) = entry.controller.poll_event() {
            connection.reply(slot, Status::SUCCESS, result);
        }
    }

    /// Raises the epoch of a controller of this shard: its I/O queues close, and what they have at the volumes and not in the
    /// log is dropped, on all shards.
    fn fence(&mut self, controller: u16, host: &str, cause: Cause) {
        let association = self.endings.begin(controller, host, self.shards);
        self.raises.push_back((association, cause));
    }

    /// Ends the association of a controller of this shard. A kill waits for it; with nothing to wait for it is told at once.
    pub(super) fn end(&mut self, association: Association, cause: Cause, kill: Option<(ShardId, u64)>) {
        let controller = association.id;
        if association == self.endings.living(controller)
            && let Some(entry) = self.controllers.remove(&controller)
        {
            self.closing.push_back((entry.connection, cause));
            if entry.has_worked {
                self.fence(controller, &entry.controller.host().nqn, cause);
            }
        }
        if let Some(kill) = kill
            && !self.endings.wait(controller, kill)
        {
            self.tell_ended(kill);
        }
    }

    /// An association has ended on all shards: the kill that waited for it goes on.
    fn tell_ended(&mut self, (shard, ticket): (ShardId, u64)) {
        if shard == self.shard {
            self.one_ended(ticket);
        } else {
            self.outbox.push_back((shard, FrontMessage::Ended { kill: ticket }));
        }
    }

    /// Of a kill of this shard one association more has ended; with the last the control side is told.
    pub(super) fn one_ended(&mut self, ticket: u64) {
        let at = self.killings.iter().position(|killing| killing.killed.ticket == ticket);
        let at = at.expect("a kill waits until all its associations have ended");
        self.killings[at].left -= 1;
        if self.killings[at].left == 0 {
            let killed = self.killings.swap_remove(at).killed;
            self.outbox.push_back((self.control, FrontMessage::Killed(Box::new(killed))));
        }
    }

    /// A shard has nothing of an older epoch under way. With the last shard the end is complete: who waited goes on.
    pub(super) fn raised(&mut self, from: ShardId, association: Association) {
        let Some(ended) = self.endings.confirmed(from, association) else { return };
        if ended.is_last
            && let Some(entry) = self.controllers.get_mut(&ended.controller)
        {
            entry.controller.drained();
        }
        for kill in ended.kills {
            self.tell_ended(kill);
        }
    }

    /// Takes a connection that ends out of its controller; with an admin connection the controller ends.
    /// An I/O queue that breaks with commands under way takes its association with it (Base, section 3.3.2.2): nothing else
    /// could tell its host when they have come to their end.
    pub(super) fn leave(&mut self, key: ConnectionKey, connection: &mut Connection, cause: Cause) {
        let association = connection.association;
        match core::mem::replace(&mut connection.role, Role::None) {
            Role::None => {}
            Role::Admin { controller } => {
                // Discovery is no use of volumes.
                if connection.subsystem.is_some() {
                    self.tell(Event::HostDisconnected(who(connection)));
                }
                // If it is another's or none, the association has ended before its connection.
                if self.controllers.get(&controller).is_some_and(|entry| entry.connection == key) {
                    self.end(self.endings.living(controller), cause, None);
                }
            }
            Role::Io { home, .. } if connection.executing > 0 && home == self.shard => {
                self.end(association, cause, None);
            }
            Role::Io { home, .. } if connection.executing > 0 => {
                self.outbox.push_back((home, FrontMessage::End { association, cause, kill: None }));
            }
            Role::Io { controller, home, .. } if home == self.shard => {
                self.detach(controller, home, key.to_bits());
            }
            Role::Io { controller, home, .. } => {
                let message = FrontMessage::Detached { controller, connection: key.to_bits() };
                self.outbox.push_back((home, message));
            }
        }
    }

    /// Commands came on a connection: its controller's host lives.
    pub(super) fn alive(&mut self, connection: &Connection) {
        let Role::Io { controller, home, .. } = connection.role else { return };
        if home == self.shard {
            self.seen(controller);
        } else {
            self.outbox.push_back((home, FrontMessage::Seen { controller }));
        }
    }

    /// The host of a controller of this shard lives.
    pub(super) fn seen(&mut self, controller: u16) {
        if let Some(entry) = self.controllers.get_mut(&controller) {
            entry.controller.seen(self.now);
            entry.last_work = self.now;
        }
    }

    /// Takes new exports and tells the controllers what changed for them.
    pub(super) fn set_exports(&mut self, exports: Snapshot<Exports>) {
        let old = core::mem::replace(&mut self.exports, exports);
        let new = &self.exports;
        for entry in self.controllers.values_mut() {
            let nqn = entry.controller.subsystem_nqn();
            let of = |exports: &Snapshot<Exports>| exports.find(nqn).map(|index| exports.subsystems()[index].clone());
            let changed = changed_namespaces(of(&old).as_ref(), of(new).as_ref());
            match entry.controller.kind() {
                Kind::Io => entry.controller.namespaces_changed(changed.into_iter()),
                Kind::Discovery if old.generation() != new.generation() => entry.controller.discovery_changed(),
                Kind::Discovery => {}
            }
        }
    }

    fn controllers_of(&self, subsystem_nqn: &str) -> impl Iterator<Item = u16> {
        self.controllers
            .iter()
            .filter(move |(_, entry)| entry.controller.subsystem_nqn() == subsystem_nqn)
            .map(|(&id, _)| id)
    }
}

/// A connection's host, for news.
fn who(connection: &Connection) -> HostNews {
    HostNews {
        host: connection.host_nqn.clone(),
        subsystem: connection.subsystem_nqn.clone(),
        peer: connection.peer.to_string(),
    }
}

/// Why a Connect is refused, for people.
fn why(status: Status) -> &'static str {
    match Status(status.code()) {
        Status::CONNECT_INVALID_HOST => "the subsystem does not admit it",
        Status::CONNECT_CONTROLLER_BUSY => "there is no room for more, or the appliance is stopping",
        _ => "it asks for something that is not there at this listener",
    }
}

/// Namespaces that were added, removed or altered between two states of a subsystem, in rising order.
fn changed_namespaces(old: Option<&Subsystem>, new: Option<&Subsystem>) -> Vec<u32> {
    let of = |subsystem: Option<&Subsystem>, nsid| subsystem.and_then(|found| found.namespace(nsid).cloned());
    let ids = |subsystem: Option<&Subsystem>| -> Vec<u32> {
        subsystem.map_or_else(Vec::new, |found| found.namespaces.iter().map(|namespace| namespace.nsid).collect())
    };
    let mut all = ids(old);
    all.extend(ids(new));
    all.sort_unstable();
    all.dedup();
    all.retain(|&nsid| of(old, nsid) != of(new, nsid));
    all
}
