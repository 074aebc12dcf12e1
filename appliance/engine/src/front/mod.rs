//! The hosts' side of a shard: NVMe/TCP connections from their opening to their end. It parses what comes, asks volumes to
//! carry it out ([`VolumeIo`]), and replies; it knows nothing of arrays.
//!
//! | module | holds |
//! |---|---|
//! | `limits` | every bound |
//! | `space` | the front's share of the buffer pool |
//! | `connection` | a connection and its commands |
//! | `cause` | why connections end |
//! | `receive` | bytes to commands |
//! | `execute` | commands to volumes and back |
//! | `fused` | pairs of commands that are carried out as one |
//! | `abort` | commands that their host wants no more |
//! | `hub` | controllers, and what connections share |
//! | `health` | what the SMART log says |
//! | `endings` | associations that end, and who waits for that |
//! | `fencing` | ends, kills and Connects that wait for them |
//! | `kill` | which connections the control side wants to end |
//! | `record` | what people are told of connections |
//! | `send` | replies to bytes |
//! | `message` | what fronts of different shards say to each other |
//!
//! A controller lives on the shard of its admin connection, its home, which its identifier names; an I/O queue lives where
//! its connection came in and asks the home at Connect. A connection that has died keeps its commands until the volumes
//! have ended them, so that no buffer is ever given to two.
//!
//! The order of one connection's commands is that of their capsules; a command that must wait for buffers makes those
//! behind it wait. The price is that one large read may delay a small one; the gain is that none starves.

mod abort;
mod cause;
mod connection;
mod endings;
mod execute;
mod fencing;
mod fused;
mod health;
mod hub;
mod kill;
mod limits;
mod message;
mod receive;
mod record;
mod send;
mod space;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::ids::ShardId;
use base::metrics::Metrics;
use base::slab::{Key, Slab};
use base::snapshot::Snapshot;
use base::time::{Span, Time};
use nvme::log_page::SmartLog;
use nvmf::fabrics::Refusal;
use nvmf::queue::Phase;
use nvmf::subsystem::Exports;
use ports::{Address, MAX_STREAM_PIECES, Ports, StreamEvent, StreamId};

pub use self::cause::Cause;
pub use self::kill::{Kill, Killed, Selector};
pub use self::limits::FrontLimits;
pub use self::message::{Attach, FrontMessage};

use self::connection::{Connection, ConnectionKey, Life, Role, Stage};
use self::endings::{Asker, Endings};
use self::execute::from_token;
use self::hub::Hub;
use self::limits::{CONNECT_TIMEOUT, ENDED_KEPT, EVENTS_A_TURN, HOUSEKEEPING, RETRY, SEND_TIMEOUT, STAGING_BYTES};
use self::record::Record;
use self::space::Space;
use crate::command::Event;
use crate::fence::Association;
use crate::io::{IoDone, IoRequest};
use crate::status::ConnectionStatus;

/// What the front uses of the rest of the shard.
pub trait VolumeIo<P> {
    /// Begins a request, or gives it back if there is no room: it is kept and tried again in a later turn.
    fn begin(&mut self, ports: &mut P, request: IoRequest) -> Result<(), IoRequest>;

    /// Drops what has not begun of the request with this token. It ends, as aborted if that was anything, or
    /// [`Front::goes_on`] is told that nothing could be dropped.
    fn abort(&mut self, ports: &mut P, token: u64);
}

/// What a front is made of.
#[derive(Clone, Debug)]
pub struct FrontSetup {
    /// Which shard.
    pub shard: ShardId,
    /// How many there are: at most 15, so that every controller identifier fits.
    pub shards: u16,
    /// What is exported.
    pub exports: Snapshot<Exports>,
    /// What it may use.
    pub limits: FrontLimits,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// Firmware revision that hosts see, at most 8 characters.
    pub firmware: String,
    /// Health from before this start; what is counted now is added.
    pub health: SmartLog,
    /// By listener: how long a host may take no replies; twice as long it may owe data. Left out: 30 s.
    pub silence: Vec<Span>,
}

/// The hosts' side of a shard.
#[derive(Debug)]
pub struct Front {
    hub: Hub,
    connections: Slab<Connection>,
    streams: BTreeMap<StreamId, ConnectionKey>,
    /// Connections with something to send.
    dirty: VecDeque<ConnectionKey>,
    /// Connections with commands that wait for buffers or places.
    waiting: VecDeque<ConnectionKey>,
    next_housekeeping: Time,
    last_number: u64,
    /// Connections that have ended lately, the latest last.
    ended: VecDeque<Record>,
}

impl Front {
    /// A front without connections.
    ///
    /// # Panics
    /// If there are more shards than controller identifiers can name.
    pub fn new(setup: FrontSetup) -> Self {
        assert!(setup.shard.0 < setup.shards && setup.shards <= 15, "controller identifiers end at FFEFh");
        let limits = setup.limits;
        assert!(limits.data_blocks >= nvmf::limits::MAX_TRANSFER_BLOCKS as usize, "the longest command must fit");
        Self {
            hub: Hub {
                shard: setup.shard,
                shards: setup.shards,
                exports: setup.exports,
                metrics: setup.metrics,
                firmware: setup.firmware,
                health: setup.health,
                space: Space::new(&limits),
                controllers: BTreeMap::new(),
                last_controller: 0,
                outbox: VecDeque::new(),
                closing: VecDeque::with_capacity(limits.connections),
                endings: Endings::new(),
                raises: VecDeque::new(),
                aborts: VecDeque::new(),
                aborted: VecDeque::new(),
                killings: Vec::new(),
                control: ShardId(setup.shards),
                last_attempt: 0,
                silence: setup.silence,
                now: Time(0),
                stopping: false,
                news: VecDeque::with_capacity(self::limits::MAX_NEWS),
                lost_news: 0,
                staging: vec![0; STAGING_BYTES],
                segments: Vec::with_capacity(MAX_STREAM_PIECES),
            },
            connections: Slab::new(limits.connections),
            streams: BTreeMap::new(),
            dirty: VecDeque::with_capacity(limits.connections),
            waiting: VecDeque::with_capacity(limits.connections),
            next_housekeeping: Time::NEVER,
            last_number: 0,
            ended: VecDeque::with_capacity(ENDED_KEPT),
        }
    }

    /// Applies a bounded batch of stream events, begins I/O, sends replies. Whether anything was done.
    pub fn turn<P: Ports<Message = M>, M: From<FrontMessage>>(
        &mut self,
        ports: &mut P,
        io: &mut impl VolumeIo<P>,
    ) -> bool {
        self.hub.now = ports.now();
        let mut worked = false;
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = ports.stream_event() else { break };
            // A stream may be offered as readable on suspicion: only bytes are work.
            worked |= match event {
                StreamEvent::Opened { stream, listener, peer, local } => {
                    self.opened(ports, stream, listener, (peer, local));
                    true
                }
                StreamEvent::Readable(stream) => self.readable(ports, io, stream),
                StreamEvent::Writable(stream) => {
                    if let Some(&key) = self.streams.get(&stream) {
                        self.connections[key].blocked_since = None;
                        self.note(key);
                    }
                    true
                }
            }
        }
        worked |= self.retry(ports, io);
        worked |= self.carry_out_aborts(ports, io);
        if self.hub.now >= self.next_housekeeping {
            self.keep_house(ports);
        }
        worked |= self.send(ports);
        worked |= self.close_all(ports);
        self.post(ports);
        worked
    }

    /// Sends what is queued. The turn does so by itself; called behind the delivery of answers as well, it spares them a
    /// turn.
    pub fn send<P: Ports>(&mut self, ports: &mut P) -> bool {
        let mut worked = false;
        for _ in 0..self.dirty.len() {
            let Some(key) = self.dirty.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.is_dirty = false;
            worked = true;
            let result = self.hub.send(ports, connection);
            if let Err(error) = result {
                self.hub.closing.push_back((key, Cause::of_stream(error)));
            } else if connection.life == Life::Ending && connection.out.is_empty() {
                self.hub.closing.push_back((key, Cause::Closed));
            }
            self.note(key);
        }
        worked
    }

    /// Takes the end of a request.
    pub fn io_done(&mut self, ports: &mut impl Ports, done: IoDone) {
        let (key, _) = from_token(done.token);
        self.hub.now = ports.now();
        let connection = self.connections.get_mut(key).expect("a connection stays until its requests have ended");
        self.hub.done(ports, key, connection, done);
        if connection.life == Life::Dead && connection.executing == 0 {
            self.remove(ports, key);
        } else {
            self.note(key);
        }
    }

    /// Takes a message of another shard's front.
    pub fn message(&mut self, ports: &mut impl Ports, from: ShardId, message: FrontMessage) {
        self.hub.now = ports.now();
        match message {
            FrontMessage::Attach(attach) => {
                let result = self.hub.attach(from, &attach);
                let answer = FrontMessage::Attached { connection: attach.connection, result };
                self.hub.outbox.push_back((from, answer));
            }
            FrontMessage::Attached { connection, result } => self.attached(ports, Key::from_bits(connection), result),
            FrontMessage::Detached { controller, connection } => self.hub.detach(controller, from, connection),
            FrontMessage::Seen { controller } => self.hub.seen(controller),
            FrontMessage::End { association, cause, kill } => {
                self.hub.end(association, cause, kill.map(|ticket| (from, ticket)));
            }
            FrontMessage::Ended { kill } => self.hub.one_ended(kill),
            FrontMessage::Ask { connection, attempt, host } => {
                let asker = Asker { shard: from, connection, attempt };
                if let Some(clear) = self.hub.endings.ask(asker, &host, self.hub.now) {
                    self.hub.outbox.push_back((from, FrontMessage::Asked { connection, attempt, clear }));
                }
            }
            FrontMessage::Asked { connection, attempt, clear } => self.asked(ports, connection, attempt, clear),
            FrontMessage::Abort { connection, cid, controller, number } => {
                self.abort(connection, cid, (controller, number));
            }
            FrontMessage::Aborted { controller, number, aborted } => self.answer_abort(controller, number, aborted),
            FrontMessage::Kill(kill) => self.kill(&kill),
            FrontMessage::Killed(_) => unreachable!("this goes to the control side"),
        }
    }

    /// What the control side is to be told next.
    pub fn news(&mut self) -> Option<Event> {
        let lost = core::mem::take(&mut self.hub.lost_news);
        if lost > 0 {
            return Some(Event::Lost { count: lost });
        }
        self.hub.news.pop_front()
    }

    /// The control side takes no more now: this is the next one again.
    pub fn take_back(&mut self, news: Event) {
        self.hub.news.push_front(news);
    }

    /// The latest time of the next turn.
    pub fn deadline(&self) -> Time {
        let hub = &self.hub;
        let aborts = !hub.aborts.is_empty() || !hub.aborted.is_empty();
        let ends = !hub.closing.is_empty() || !hub.raises.is_empty();
        if !hub.outbox.is_empty() || ends || aborts || !self.dirty.is_empty() {
            return self.hub.now;
        }
        let retry = if self.waiting.is_empty() { Time::NEVER } else { self.hub.now + RETRY };
        self.next_housekeeping.min(retry)
    }

    /// Accepts nothing more; connections end in good order once what they have at the volumes is answered.
    pub fn stop(&mut self, ports: &mut impl Ports) {
        self.hub.stopping = true;
        for (_, connection) in self.connections.iter_mut() {
            connection.drain(ports);
        }
        self.next_housekeeping = Time(0);
    }

    /// Takes new exports: controllers tell their hosts of namespaces and subsystems that changed. Queues whose subsystem
    /// is gone are closed.
    pub fn set_exports(&mut self, exports: Snapshot<Exports>) {
        self.hub.set_exports(exports);
        let keys: Vec<ConnectionKey> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            let connection = &mut self.connections[key];
            let had = connection.subsystem.is_some();
            connection.subsystem = self.hub.exports.find_at(&connection.subsystem_nqn, connection.listener);
            if had && connection.subsystem.is_none() {
                self.hub.closing.push_back((key, Cause::NotExported));
            } else if let Role::Admin { controller } = connection.role {
                self.hub.tell_events(connection, controller);
            }
            self.note(key);
        }
    }

    /// All connections, for people.
    pub fn connections(&self, now: Time) -> Vec<ConnectionStatus> {
        let living = self.connections.iter().filter(|(_, connection)| connection.life != Life::Dead);
        living.map(|(_, connection)| Record::of(connection, None, now).status(now)).collect()
    }

    /// Connections that have ended lately, for people.
    pub fn ended(&self, now: Time) -> Vec<ConnectionStatus> {
        self.ended.iter().map(|record| record.status(now)).collect()
    }

    fn opened(&mut self, ports: &mut impl Ports, stream: StreamId, listener: u16, (peer, local): (Address, Address)) {
        let now = self.hub.now;
        let mut connection = Connection::new(stream, listener, (peer, local), now, now + CONNECT_TIMEOUT);
        // Numbers of different shards differ.
        self.last_number += 1;
        connection.number = self.last_number * 16 + u64::from(self.hub.shard.0);
        let refused = self.hub.stopping || self.connections.is_full();
        let Some(key) = (!refused).then(|| self.connections.insert(connection).ok()).flatten() else {
            self.hub.metrics().connections_refused.increment();
            ports.close(stream, true);
            return;
        };
        self.streams.insert(stream, key);
        self.hub.metrics().connections_accepted.increment();
        self.hub.metrics().connections.add(1);
        self.next_housekeeping = self.next_housekeeping.min(now + HOUSEKEEPING);
    }

    /// Receives; whether anything came.
    fn readable<P: Ports>(&mut self, ports: &mut P, io: &mut impl VolumeIo<P>, stream: StreamId) -> bool {
        let Some(&key) = self.streams.get(&stream) else { return false };
        let connection = &mut self.connections[key];
        if !matches!(connection.life, Life::Open | Life::Lingering) {
            return false;
        }
        let received = self.hub.receive(ports, io, key, connection);
        if let Err(error) = received {
            self.hub.closing.push_back((key, Cause::of_stream(error)));
        }
        self.note(key);
        received != Ok(0)
    }

    fn attached(&mut self, ports: &mut impl Ports, key: ConnectionKey, result: Result<Association, Refusal>) {
        // If the connection has gone, its Detached is on the way already.
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (Role::Io { queue_id, .. }, Phase::Connecting, Life::Open) =
            (connection.role.clone(), connection.queue.phase(), connection.life)
        else {
            return;
        };
        let slot = connection.held_connect();
        match result {
            Ok(association) => self.hub.connected(connection, slot, queue_id, association),
            Err(refusal) => self.hub.refused(ports, connection, slot, refusal),
        }
        self.note(key);
    }

    /// Puts a connection on the lists that it belongs to.
    fn note(&mut self, key: ConnectionKey) {
        self.tell_aborts(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let ended = connection.life == Life::Ending && connection.out.is_empty();
        let sends = !connection.out.is_empty() && connection.blocked_since.is_none();
        if (sends || ended) && connection.life != Life::Dead && !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push_back(key);
        }
        if !connection.waiting.is_empty() && !connection.is_waiting {
            connection.is_waiting = true;
            self.waiting.push_back(key);
        }
    }

    fn retry<P: Ports>(&mut self, ports: &mut P, io: &mut impl VolumeIo<P>) -> bool {
        let mut worked = false;
        for _ in 0..self.waiting.len() {
            let Some(key) = self.waiting.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.is_waiting = false;
            worked |= self.hub.retry(ports, io, key, connection);
            self.note(key);
        }
        worked
    }

    /// Looks after timeouts and keep alive.
    fn keep_house(&mut self, ports: &mut impl Ports) {
        let now = self.hub.now;
        let overdue = |connection: &Connection| connection.asking.is_some_and(|asking| now >= asking.until);
        let overdue = self.connections.iter().filter(|(_, connection)| overdue(connection)).map(|(key, _)| key);
        for key in overdue.collect::<Vec<_>>() {
            self.answer_connect(ports, key, false);
        }
        for (key, connection) in self.connections.iter_mut() {
            if core::mem::take(&mut connection.seen) {
                self.hub.alive(connection);
            }
            let silence = self.hub.silence.get(usize::from(connection.listener)).copied().unwrap_or(SEND_TIMEOUT);
            let stalled = connection.blocked_since.is_some_and(|since| now.since(since) > silence);
            let owes_data = connection.data_blocks > 0 && connection.owes_data(now, Span(2 * silence.0));
            if connection.life != Life::Dead && (now >= connection.deadline || stalled || owes_data) {
                self.hub.closing.push_back((key, Cause::Silent));
            }
        }
        let expired = self.hub.controllers.values().filter(|entry| now >= entry.controller.expires());
        let expired: Vec<_> = expired.map(|entry| (entry.connection, Cause::KeepAlive)).collect();
        self.hub.closing.extend(expired);
        self.next_housekeeping = if self.connections.is_empty() { Time::NEVER } else { now + HOUSEKEEPING };
    }

    fn close_all(&mut self, ports: &mut impl Ports) -> bool {
        if self.hub.stopping {
            // With its admin connection a controller ends, and with it its I/O queues: those go first.
            let idle = |connection: &Connection| {
                let has_queues = match connection.role {
                    Role::Admin { controller } => self.hub.has_queues(controller),
                    Role::None | Role::Io { .. } => false,
                };
                connection.executing == 0 && connection.out.is_empty() && !has_queues
            };
            let ended = self.connections.iter().filter(|(_, connection)| idle(connection)).map(|(key, _)| key);
            let ended: Vec<_> = ended.map(|key| (key, Cause::Stopping)).collect();
            self.hub.closing.extend(ended);
        }
        let worked = !self.hub.closing.is_empty();
        while let Some((key, cause)) = self.hub.closing.pop_front() {
            self.close(ports, key, cause);
        }
        worked
    }

    /// Closes a connection's stream. Commands at the volumes keep it until they have ended.
    fn close(&mut self, ports: &mut impl Ports, key: ConnectionKey, cause: Cause) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.life == Life::Dead {
            return;
        }
        // What it lingered for is why it ends.
        let cause = if connection.life == Life::Lingering { Cause::Protocol } else { cause };
        let record = Record::of(connection, Some(cause), self.hub.now);
        connection.life = Life::Dead;
        ports.close(connection.stream, !cause.is_abrupt());
        self.streams.remove(&connection.stream);
        self.hub.metrics().connections_closed.increment();
        self.hub.metrics().connections.sub(1);
        if let Some(killed) = cause.killed() {
            self.hub.metrics().connections_killed[killed as usize].increment();
        }
        self.hub.leave(key, connection, cause);
        if self.ended.len() == ENDED_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(record);
        let connection = &mut self.connections[key];
        connection.out.clear();
        connection.out_pieces = 0;
        connection.waiting.clear();
        for index in 0..connection.commands.len() {
            if !matches!(connection.commands[index].stage, Stage::Free | Stage::Executing) {
                self.hub.release(ports, connection, nvmf::queue::SlotId(index as u16));
            }
        }
        if connection.executing == 0 {
            self.remove(ports, key);
        }
    }

    fn remove(&mut self, ports: &mut impl Ports, key: ConnectionKey) {
        self.tell_aborts(key);
        let connection = self.connections.remove(key).expect("it is removed once");
        self.hub.space.unreserve(ports, connection.reserved);
        assert_eq!((connection.data_blocks, connection.queue.in_flight()), (0, 0), "everything has come home");
    }

    fn post<P: Ports<Message = M>, M: From<FrontMessage>>(&mut self, ports: &mut P) {
        while let Some((to, message)) = self.hub.outbox.pop_front() {
            if ports.post(to, M::from(message.clone())).is_err() {
                self.hub.outbox.push_front((to, message));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
