//! A controller: what an admin queue talks to. Properties, Identify, log pages, features, events, keep alive, and which
//! I/O queues belong to it. It answers commands as they come and starts nothing: time is told to it, data is handed to it,
//! and what must happen elsewhere comes out as an [`Effect`].
//!
//! One controller belongs to one host (the dynamic controller model, Base, section 3.1.2.1.1) and lives as long as its
//! admin connection.

mod events;
mod features;
mod identify;
mod log;

use std::net::SocketAddr;

use base::time::{Span, Time};
use nvme::entry::SubmissionEntry;
use nvme::log_page::SmartLog;
use nvme::opcode;
use nvme::register::{self, Capabilities, Configuration, ControllerStatus};
use nvme::status::Status;

use self::events::Events;
use self::features::Features;
use self::log::ErrorLog;
use crate::command::{DataPath, data_path};
use crate::fabrics::{Connect, ConnectField, Refusal};
use crate::limits::{
    IN_CAPSULE_BYTES, KEEP_ALIVE_GRANULARITY_100MS, MAX_IO_QUEUES, MAX_KEEP_ALIVE_MS, MAX_QUEUE_ENTRIES,
    MIN_QUEUE_ENTRIES, READY_TIMEOUT_500MS,
};
use crate::queue::SlotId;
use crate::subsystem::{Exports, Subsystem};

/// Who a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// HOSTNQN.
    pub nqn: String,
    /// HOSTID.
    pub id: [u8; 16],
}

/// What a controller serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Volumes.
    Io,
    /// The discovery log.
    Discovery,
}

/// What a controller must know of the world to answer.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The time now.
    pub now: Time,
    /// What is exported now.
    pub exports: &'a Exports,
    /// The local address of the admin connection, for the discovery log.
    pub local: SocketAddr,
    /// Health as the caller measured it.
    pub smart: &'a SmartLog,
    /// Controllers of the same subsystem, in rising order, this one among them.
    pub controllers: &'a [u16],
    /// Firmware revision, at most 8 ASCII characters.
    pub firmware: &'a str,
}

/// How an admin command goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ends with this status and result.
    Complete(Status, u64),
    /// It succeeds with this data for the host.
    Data(Vec<u8>),
    /// It waits for an event (Asynchronous Event Request).
    Held,
    /// Abort of a command of any of its queues, which the caller knows. It completes with success and bit 0 of the result 0
    /// if that command was aborted, 1 if not.
    Abort {
        /// The queue.
        queue_id: u16,
        /// The command.
        cid: u16,
    },
}

/// What else must happen because of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// All I/O queues end, and the requests of [`Controller::take_requests`] are completed as aborted: the controller was
    /// reset or shut down. [`Controller::drained`] is to follow once nothing of the queues is under way.
    Reset,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How the command goes on.
    pub outcome: Outcome,
    /// What else must happen.
    pub effect: Effect,
}

impl Answer {
    const fn of(outcome: Outcome) -> Self {
        Self { outcome, effect: Effect::None }
    }

    const fn success(result: u64) -> Self {
        Self::of(Outcome::Complete(Status::SUCCESS, result))
    }
}

impl From<Result<Outcome, Status>> for Answer {
    fn from(result: Result<Outcome, Status>) -> Self {
        Self::of(result.unwrap_or_else(|status| Outcome::Complete(status.do_not_retry(), 0)))
    }
}

/// A controller.
#[derive(Debug)]
pub struct Controller {
    id: u16,
    kind: Kind,
    subsystem_nqn: String,
    host: Host,
    configuration: Configuration,
    ready: bool,
    shut_down: bool,
    /// It was reset or shut down, and what its I/O queues had under way has not come to its end.
    draining: bool,
    keep_alive_ms: u32,
    last_seen: Time,
    features: Features,
    events: Events,
    errors: ErrorLog,
    /// Attached I/O queues: bit n is queue n.
    queues: u128,
}

const _: () = assert!(MAX_IO_QUEUES < 128, "a queue is a bit of the set");

/// How long past its timeout a host is waited for: the granularity of the timer.
const KEEP_ALIVE_GRACE: Span = Span::from_millis(KEEP_ALIVE_GRANULARITY_100MS as u64 * 100);

impl Controller {
    /// A controller for the Connect of an admin queue that was judged by [`judge_admin`].
    pub fn new(id: u16, kind: Kind, subsystem_nqn: String, host: Host, connect: &Connect, now: Time) -> Self {
        Self {
            id,
            kind,
            subsystem_nqn,
            host,
            configuration: Configuration::default(),
            ready: false,
            shut_down: false,
            draining: false,
            keep_alive_ms: granted_keep_alive_ms(connect.keep_alive_ms),
            last_seen: now,
            features: Features::new(now),
            events: Events::default(),
            errors: ErrorLog::default(),
            queues: 0,
        }
    }

    /// CNTLID.
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// What it serves.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its subsystem's name.
    pub fn subsystem_nqn(&self) -> &str {
        &self.subsystem_nqn
    }

    /// Its host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Whether I/O commands may come: enabled and not shut down.
    pub const fn is_ready(&self) -> bool {
        self.ready && !self.shut_down && !self.draining
    }

    /// Any command came, on any of its queues: the timer starts again (traffic based keep alive, Base, section 3.9.2).
    pub fn seen(&mut self, now: Time) {
        self.last_seen = self.last_seen.max(now);
    }

    /// When the host is given up unless a command comes; never without a Keep Alive Timeout.
    pub fn expires(&self) -> Time {
        if self.keep_alive_ms == 0 {
            return Time::NEVER;
        }
        self.last_seen + Span::from_millis(u64::from(self.keep_alive_ms)) + KEEP_ALIVE_GRACE
    }

    /// Judges the Connect of an I/O queue and takes the queue in. Only the controller's own host may attach one.
    pub fn attach(&mut self, claim: &Claim<'_>) -> Result<(), Refusal> {
        if claim.subsystem_nqn != self.subsystem_nqn {
            return Err(Refusal::parameter(ConnectField::SUBSYSTEM_NQN));
        }
        if claim.host_nqn != self.host.nqn {
            return Err(Refusal::parameter(ConnectField::HOST_NQN));
        }
        if claim.host_id != self.host.id {
            return Err(Refusal::parameter(ConnectField::HOST_ID));
        }
        if self.kind == Kind::Discovery || claim.queue_id == 0 || claim.queue_id > self.features.queues() {
            return Err(Refusal::parameter(ConnectField::QID));
        }
        // Base, section 6.3: a queue needs an enabled controller, and a queue that exists is not made again.
        let taken = self.queues >> claim.queue_id & 1 != 0;
        if !self.is_ready() || taken {
            return Err(Refusal::of(Status::SEQUENCE_ERROR));
        }
        self.queues |= 1 << claim.queue_id;
        Ok(())
    }

    /// After a reset or a shutdown: nothing of the I/O queues is under way any more. Only now its host is told that it is
    /// complete (Base, sections 3.6 and 3.7.2).
    pub const fn drained(&mut self) {
        self.draining = false;
    }

    /// An I/O queue has ended.
    pub const fn detach(&mut self, queue_id: u16) {
        self.queues &= !(1 << (queue_id & 127));
    }

    /// How many I/O queues are attached.
    pub const fn queues(&self) -> u32 {
        self.queues.count_ones()
    }

    /// Takes all held requests, to be completed as aborted.
    pub fn take_requests(&mut self) -> impl Iterator<Item = SlotId> + use<> {
        self.events.take_requests()
    }

    /// Tells of namespaces that were added, removed or changed.
    pub fn namespaces_changed(&mut self, nsids: impl Iterator<Item = u32>) {
        if self.kind == Kind::Io {
            self.events.namespaces_changed(nsids);
        }
    }

    /// Tells that the discovery log has changed.
    pub fn discovery_changed(&mut self) {
        if self.kind == Kind::Discovery {
            self.events.discovery_changed();
        }
    }

    /// A held request that completes now, with its result: an event is there that the host wants to hear of.
    pub fn poll_event(&mut self) -> Option<(SlotId, u64)> {
        self.events.poll(self.features.async_events())
    }

    /// Carries out an admin or Fabrics command other than Connect. `data` is what the host sent with it, whose way was judged
    /// by [`admin_data`] before it came.
    pub fn command(&mut self, world: &World<'_>, slot: SlotId, entry: &SubmissionEntry, data: &[u8]) -> Answer {
        self.seen(world.now);
        let answer = self.dispatch(world, slot, entry, data);
        if let Outcome::Complete(status, _) = &answer.outcome
            && !status.is_success()
        {
            self.errors.record(entry, *status);
        }
        answer
    }

    fn dispatch(&mut self, world: &World<'_>, slot: SlotId, entry: &SubmissionEntry, data: &[u8]) -> Answer {
        if entry.fuse() != 0 {
            return Err(Status::INVALID_FIELD).into();
        }
        if entry.opcode == opcode::FABRICS {
            return self.fabrics(entry);
        }
        // Base, section 3.5.3: until CSTS.RDY only Fabrics commands are processed.
        if !self.ready {
            return Answer::of(Outcome::Complete(Status::SEQUENCE_ERROR, 0));
        }
        match entry.opcode {
            opcode::IDENTIFY => self.identify(world, entry).and_then(|page| to_host(entry, page)).into(),
            opcode::GET_LOG_PAGE => self.get_log_page(world, entry).and_then(|page| to_host(entry, page)).into(),
            opcode::GET_FEATURES => match self.get_feature(world.now, entry) {
                Ok((value, data)) if data.is_empty() => Answer::success(u64::from(value)),
                Ok((_, data)) => to_host(entry, data).into(),
                Err(status) => Err(status).into(),
            },
            opcode::SET_FEATURES => {
                self.set_feature(world.now, entry, data).map(|result| Outcome::Complete(Status::SUCCESS, result)).into()
            }
            opcode::ASYNC_EVENT_REQUEST => match self.events.request(slot) {
                Ok(()) => Answer::of(Outcome::Held),
                Err(status) => Err(status).into(),
            },
            opcode::KEEP_ALIVE if self.keep_alive_ms == 0 => Err(Status::KEEP_ALIVE_INVALID).into(),
            opcode::KEEP_ALIVE => Answer::success(0),
            opcode::ABORT => {
                Answer::of(Outcome::Abort { queue_id: entry.cdw10 as u16, cid: (entry.cdw10 >> 16) as u16 })
            }
            _ => Err(Status::INVALID_OPCODE).into(),
        }
    }

    /// Abort of an Asynchronous Event Request; whether it was held.
    pub fn abort(&mut self, slot: SlotId) -> bool {
        self.events.abort(slot)
    }

    fn fabrics(&mut self, entry: &SubmissionEntry) -> Answer {
        match entry.fabrics_type() {
            opcode::FABRICS_PROPERTY_GET => self
                .property(entry.cdw11, entry.cdw10 & 0b111)
                .map(|value| Outcome::Complete(Status::SUCCESS, value))
                .into(),
            opcode::FABRICS_PROPERTY_SET => self.set_property(entry),
            // Base, section 6.3: a queue that exists is not made again.
            opcode::FABRICS_CONNECT => Err(Status::SEQUENCE_ERROR).into(),
            // The admin queue ends with its connection, not by Disconnect (Base, section 6.4).
            opcode::FABRICS_DISCONNECT => Err(Status::INVALID_QUEUE_TYPE).into(),
            _ => Err(Status::INVALID_OPCODE).into(),
        }
    }

    /// Property Get (Base, section 6.4): `size` 0 is four bytes, 1 is eight. The size must be the property's.
    fn property(&self, offset: u32, size: u32) -> Result<u64, Status> {
        match (offset, size) {
            (register::CAP, 1) => Ok(Capabilities::fabrics(MAX_QUEUE_ENTRIES, READY_TIMEOUT_500MS).0),
            (register::VS, 0) => Ok(u64::from(register::VERSION_2_0)),
            (register::CC, 0) => Ok(u64::from(self.configuration.0)),
            (register::CSTS, 0) => Ok(u64::from(self.status().0)),
            // Subsystem reset is not supported (CAP.NSSRS is 0): the property reads as zero.
            (register::NSSR, 0) => Ok(0),
            (register::CRTO, 0) => Ok(u64::from(READY_TIMEOUT_500MS)),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn status(&self) -> ControllerStatus {
        let ready = if self.ready || self.draining { ControllerStatus::READY } else { 0 };
        let shutdown = match (self.shut_down, self.draining) {
            (false, _) => ControllerStatus::SHUTDOWN_NONE,
            (true, true) => ControllerStatus::SHUTDOWN_BUSY,
            (true, false) => ControllerStatus::SHUTDOWN_DONE,
        };
        ControllerStatus(ready | shutdown)
    }

    fn set_property(&mut self, entry: &SubmissionEntry) -> Answer {
        // CC alone can be set, and has four bytes (Base, section 6.5).
        if entry.cdw11 != register::CC || entry.cdw10 & 0b111 != 0 {
            return Err(Status::INVALID_FIELD).into();
        }
        let (old, new) = (self.configuration, Configuration(entry.cdw12));
        if new.is_enabled() && !old.is_enabled() {
            // Base, figure 46: what CAP does not offer cannot be enabled. Entry sizes are fixed over Fabrics; hosts that
            // leave them 0 are borne, as they are checked only when I/O queues are made in memory.
            let sizes_fit =
                matches!(new.submission_entry_size(), 0 | 6) && matches!(new.completion_entry_size(), 0 | 4);
            if new.command_set() != 0 || new.page_size() != 0 || new.arbitration() != 0 || !sizes_fit {
                return Err(Status::INVALID_FIELD).into();
            }
        }
        self.configuration = new;
        let mut effect = Effect::None;
        if new.is_enabled() && !old.is_enabled() {
            self.ready = true;
            self.shut_down = false;
        } else if !new.is_enabled() && old.is_enabled() {
            // Controller reset (Base, section 3.7.2): I/O queues go, features return to their defaults.
            self.ready = false;
            self.shut_down = false;
            self.features = Features::new(self.last_seen);
            self.events.reset();
            self.draining = true;
            effect = Effect::Reset;
        }
        if new.shutdown() != 0 && old.shutdown() == 0 {
            // Acknowledged means durable: a shutdown, normal or abrupt, waits only for what was not.
            self.shut_down = true;
            self.draining = true;
            effect = Effect::Reset;
        }
        Answer { outcome: Outcome::Complete(Status::SUCCESS, 0), effect }
    }

    fn subsystem<'a>(&self, world: &World<'a>) -> Option<&'a Subsystem> {
        world.exports.find(&self.subsystem_nqn).map(|index| &world.exports.subsystems()[index])
    }
}

/// The Keep Alive Timeout that is honoured: as asked, rounded up to the granularity; 0 stays off.
fn granted_keep_alive_ms(asked_ms: u32) -> u32 {
    let granularity = u32::from(KEEP_ALIVE_GRANULARITY_100MS) * 100;
    asked_ms.min(MAX_KEEP_ALIVE_MS).next_multiple_of(granularity)
}

/// Data for the host, if the command's data pointer takes it.
fn to_host(entry: &SubmissionEntry, data: Vec<u8>) -> Result<Outcome, Status> {
    let length = u32::try_from(data.len()).expect("pages are bounded by MDTS");
    match data_path(entry, opcode::transfer(entry.opcode, entry.fabrics_type()), length, 0)? {
        DataPath::ToHost => Ok(Outcome::Data(data)),
        _ => Err(Status::INVALID_FIELD),
    }
}

/// How the data of an admin command comes: judged by its own descriptor, before the command is carried out. Data towards
/// the controller is at most what a capsule takes.
pub fn admin_data(entry: &SubmissionEntry, in_capsule: usize) -> Result<DataPath, Status> {
    let transfer = opcode::transfer(entry.opcode, entry.fabrics_type());
    if transfer != opcode::TRANSFER_TO_CONTROLLER || !takes_data(entry) {
        return if in_capsule == 0 { Ok(DataPath::None) } else { Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry()) };
    }
    if entry.data.length > IN_CAPSULE_BYTES {
        return Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry());
    }
    data_path(entry, transfer, entry.data.length, in_capsule)
}

/// Whether a command towards the controller has data: of Set Features only some features do.
fn takes_data(entry: &SubmissionEntry) -> bool {
    match entry.opcode {
        opcode::SET_FEATURES => features::takes_data(entry.cdw10 as u8),
        opcode::FABRICS => {
            matches!(entry.fabrics_type(), opcode::FABRICS_CONNECT | opcode::FABRICS_AUTHENTICATION_SEND)
        }
        // Other commands of this direction are not supported; their data is not asked for.
        _ => false,
    }
}

/// Judges what every Connect must obey (Base, section 6.3): format, queue size. Returns the entries asked for.
pub fn judge_connect(connect: &Connect, max_entries: u16) -> Result<u16, Refusal> {
    if connect.format != 0 {
        return Err(Refusal::of(Status::CONNECT_INCOMPATIBLE_FORMAT.do_not_retry()));
    }
    let entries = connect.last_entry.saturating_add(1);
    if !(MIN_QUEUE_ENTRIES..=max_entries).contains(&entries) {
        return Err(Refusal::parameter(ConnectField::SQSIZE));
    }
    Ok(entries)
}

/// Judges which controller an admin Connect may have: any of the subsystem, if that is reached by the listener at which
/// the host came in, and admits it.
pub fn judge_admin(
    exports: &Exports,
    listener: u16,
    subsystem_nqn: &str,
    host_nqn: &str,
    controller_id: u16,
) -> Result<Kind, Refusal> {
    if controller_id != crate::fabrics::ANY_CONTROLLER {
        return Err(Refusal::parameter(ConnectField::CONTROLLER_ID));
    }
    if subsystem_nqn == nvme::discovery::DISCOVERY_NQN {
        return Ok(Kind::Discovery);
    }
    let index = exports.find_at(subsystem_nqn, listener).ok_or(Refusal::parameter(ConnectField::SUBSYSTEM_NQN))?;
    if !exports.subsystems()[index].admits(host_nqn) {
        return Err(Refusal::of(Status::CONNECT_INVALID_HOST.do_not_retry()));
    }
    Ok(Kind::Io)
}

/// What the Connect of an I/O queue claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// QID.
    pub queue_id: u16,
    /// SUBNQN.
    pub subsystem_nqn: &'a str,
    /// HOSTNQN.
    pub host_nqn: &'a str,
    /// HOSTID.
    pub host_id: [u8; 16],
}

#[cfg(test)]
mod tests;
