//! A host as one controller sees it: the admin queue with Connect, properties, Identify, log pages and Keep Alive, and
//! the way to I/O queues. It checks what a Linux host checks, so that a target which that host would refuse is refused
//! here as well. It blocks in admin commands, with a bound; I/O never goes through it.

use core::time::Duration;
use std::net::SocketAddr;
use std::time::Instant;

use base::uuid::Uuid;
use nvme::entry::SubmissionEntry;
use nvme::identify::{
    IDENTIFY_BYTES, IdentifyBytes, IdentifyController, IdentifyControllerNvm, IdentifyNamespace, NamespaceIdentity,
    OPTIONAL_WRITE_ZEROES, namespaces_of,
};
use nvme::register::{Capabilities, Configuration, ControllerStatus};
use nvme::{layout, opcode, register};
use nvmf::pdu::Digests;

use crate::command::{self, ANY_CONTROLLER, CONNECT_DATA_BYTES};
use crate::error::{HostError, Violation};
use crate::io_queue::IoQueue;
use crate::limits::{ANSWER_TIMEOUT, NAMESPACES_MAX, READY_PAUSE, TRANSFER_MAX_BYTES};
use crate::queue::{Queue, QueueOptions};
use crate::request::{Completion, Slot, Wait};

/// Requests of the admin queue: one command, one Keep Alive.
const ADMIN_DEPTH: u16 = 4;
/// Entries asked for with the admin queue: what a Linux host asks for.
const ADMIN_ENTRIES: u16 = 32;
/// Bytes of an admin request's buffer; longer log pages are read in pieces.
pub(crate) const ADMIN_BUFFER_BYTES: u32 = 16 << 10;
/// Data that the admin queue may carry in a capsule (NVMe/TCP Transport 1.0, section 3.3.2: 8 KiB).
const ADMIN_IN_CAPSULE_BYTES: u32 = 8 << 10;
/// The unit of MDTS and WZSL while CAP.MPSMIN is zero.
const PAGE_BYTES: u64 = 4096;

/// Who this host says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// Its qualified name.
    pub nqn: String,
    /// Its identifier: the same for all connections of the same name.
    pub id: Uuid,
}

impl HostIdentity {
    /// The identity of `id`, with the name that the specification gives to a host without one of its own (Base,
    /// section 4.5).
    pub fn from_id(id: Uuid) -> Self {
        Self { nqn: format!("nqn.2014-08.org.nvmexpress:uuid:{id}"), id }
    }
}

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The target.
    pub address: SocketAddr,
    /// The subsystem's qualified name.
    pub subsystem_nqn: String,
    /// Who connects.
    pub identity: HostIdentity,
    /// Digests of all queues.
    pub digests: Digests,
    /// Keep Alive timeout; zero turns it off.
    pub keep_alive: Duration,
    /// I/O queues that will be opened.
    pub queues: u16,
    /// The own end of the admin queue, if the system is not to choose it; I/O queues have the ports that follow.
    pub source: Option<SocketAddr>,
}

impl HostOptions {
    /// The usual options for a subsystem: no digests, Keep Alive of 15 s, one I/O queue.
    pub fn new(address: SocketAddr, subsystem_nqn: &str, identity: HostIdentity) -> Self {
        let subsystem_nqn = subsystem_nqn.to_owned();
        Self {
            address,
            subsystem_nqn,
            identity,
            digests: Digests::default(),
            keep_alive: Duration::from_secs(15),
            queues: 1,
            source: None,
        }
    }
}

/// What the controller says of itself.
#[derive(Clone, Debug)]
pub struct Controller {
    /// CNTLID.
    pub id: u16,
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// The most data of one command, in bytes: MDTS, or what this crate can do.
    pub transfer_bytes_max: u32,
    /// The most data inside an I/O command capsule, in bytes.
    pub in_capsule_bytes_max: u32,
    /// The most entries of an I/O queue.
    pub queue_entries_max: u16,
    /// The most bytes of one Write Zeroes; 0 if the command is not supported.
    pub write_zeroes_bytes_max: u64,
    /// I/O queues granted.
    pub queues: u16,
}

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its identifier.
    pub nsid: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// Its lasting names.
    pub identity: NamespaceIdentity,
}

/// An association with a controller.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
    admin: Queue,
    controller: Controller,
    keep_alive_every: Option<Duration>,
    keep_alive_next: Instant,
    keep_alive_slot: Option<Slot>,
}

impl Host {
    /// Connects the admin queue, enables the controller, reads what it says of itself and asks for I/O queues.
    ///
    /// # Errors
    /// Nobody answers, a command is refused, or the controller is none that a host can work with.
    pub fn connect(options: &HostOptions) -> Result<Self, HostError> {
        let mut host = Self::enabled(options)?;
        host.controller = host.identify_controller()?;
        if options.queues > 0 {
            let granted =
                host.execute("Set Features (Number of Queues)", command::set_queue_count(options.queues), 0)?;
            // Zero-based, submission queues in the low half (Base, section 5.27.1.5).
            let granted = (granted.0 as u16).min((granted.0 >> 16) as u16).saturating_add(1);
            host.controller.queues = granted.min(options.queues);
        }
        Ok(host)
    }

    /// Connects the admin queue and enables the controller, and looks no further: enough for a discovery controller.
    pub(crate) fn enabled(options: &HostOptions) -> Result<Self, HostError> {
        let digests = options.digests;
        let admin = QueueOptions {
            depth: ADMIN_DEPTH,
            buffer_bytes: ADMIN_BUFFER_BYTES,
            in_capsule_bytes: ADMIN_IN_CAPSULE_BYTES,
            digests,
            source: options.source,
        };
        let keep_alive_ms = u32::try_from(options.keep_alive.as_millis()).unwrap_or(u32::MAX);
        let mut admin = Queue::open(options.address, &admin)?;
        let id = connect_queue(&mut admin, options, 0, ADMIN_ENTRIES, keep_alive_ms, ANY_CONTROLLER)?;
        let controller = Controller {
            id,
            serial: String::new(),
            model: String::new(),
            transfer_bytes_max: ADMIN_BUFFER_BYTES,
            in_capsule_bytes_max: 0,
            queue_entries_max: 0,
            write_zeroes_bytes_max: 0,
            queues: 0,
        };
        let every = (keep_alive_ms > 0).then(|| options.keep_alive / 2);
        let mut host = Self {
            options: options.clone(),
            admin,
            controller,
            keep_alive_every: every,
            keep_alive_next: Instant::now() + every.unwrap_or_default(),
            keep_alive_slot: None,
        };
        host.enable()?;
        Ok(host)
    }

    /// What the controller says of itself.
    pub const fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Reads a property of four bytes, or of eight.
    ///
    /// # Errors
    /// The command is refused or the connection lost.
    pub fn property_get(&mut self, offset: u32, eight_bytes: bool) -> Result<u64, HostError> {
        let (value, _) = self.execute("Property Get", command::property_get(offset, eight_bytes), 0)?;
        Ok(if eight_bytes { value } else { value & u64::from(u32::MAX) })
    }

    /// Writes a property of four bytes.
    ///
    /// # Errors
    /// The command is refused or the connection lost.
    pub fn property_set(&mut self, offset: u32, value: u32) -> Result<(), HostError> {
        self.execute("Property Set", command::property_set(offset, value), 0).map(|_| ())
    }

    /// The active namespaces.
    ///
    /// # Errors
    /// The command is refused or the connection lost.
    pub fn namespaces(&mut self) -> Result<Vec<u32>, HostError> {
        let list = self.identify(opcode::CNS_ACTIVE_NAMESPACES, 0)?;
        Ok(namespaces_of(&list).take(NAMESPACES_MAX).collect())
    }

    /// What a namespace is.
    ///
    /// # Errors
    /// It does not exist, is of no use, or the connection is lost.
    pub fn namespace(&mut self, nsid: u32) -> Result<Namespace, HostError> {
        let identify = self.identify(opcode::CNS_NAMESPACE, nsid)?;
        let identify = IdentifyNamespace::decode(&identify).map_err(|_| missing("Identify Namespace"))?;
        if identify.size_blocks == 0 {
            return Err(HostError::Unusable { field: "NSZE of the namespace", value: 0 });
        }
        // FLBAS chooses among formats; only the first is read here, as Brindle offers one.
        if identify.format & 0xf != 0 {
            return Err(HostError::Unusable { field: "FLBAS of the namespace", value: identify.format.into() });
        }
        let (metadata_bytes, exponent) = (identify.format_0 & 0xffff, identify.format_0 >> 16 & 0xff);
        if !(9..=16).contains(&exponent) || metadata_bytes != 0 {
            return Err(HostError::Unusable { field: "LBAF0 of the namespace", value: identify.format_0.into() });
        }
        let descriptors = self.identify(opcode::CNS_NAMESPACE_DESCRIPTORS, nsid)?;
        let identity = NamespaceIdentity::from_descriptors(&descriptors).map_err(|bad| HostError::Unusable {
            field: "length of a namespace descriptor",
            value: bad.length.into(),
        })?;
        Ok(Namespace { nsid, blocks: identify.size_blocks, block_bytes: 1 << exponent, identity })
    }

    /// Connects I/O queue `queue_id` (from 1) for `depth` requests of at most `buffer_bytes` each on a namespace.
    ///
    /// # Errors
    /// More is asked for than the controller has, it refuses, or the connection is lost.
    pub fn open_queue(
        &mut self,
        queue_id: u16,
        depth: u16,
        buffer_bytes: u32,
        namespace: &Namespace,
    ) -> Result<IoQueue, HostError> {
        use crate::queue::at_most;
        at_most("I/O queues", queue_id.into(), self.controller.queues.into())?;
        at_most("requests in flight", depth.into(), self.controller.queue_entries_max.into())?;
        at_most("bytes of a request", buffer_bytes.into(), self.controller.transfer_bytes_max.into())?;
        if queue_id == 0 {
            return Err(HostError::Senseless("queue 0 is the admin queue"));
        }
        let in_capsule_bytes = self.controller.in_capsule_bytes_max;
        let follows = |source: SocketAddr| SocketAddr::new(source.ip(), source.port().wrapping_add(queue_id));
        let source = self.options.source.map(follows);
        let options = QueueOptions { depth, buffer_bytes, in_capsule_bytes, digests: self.options.digests, source };
        let mut queue = Queue::open(self.options.address, &options)?;
        // A Linux host has as many requests in flight as the queue has entries; one is no queue (Base, 6.3).
        let entries = depth.max(2);
        let id = connect_queue(&mut queue, &self.options, queue_id, entries, 0, self.controller.id)?;
        if id != self.controller.id {
            let (first, then) = (self.controller.id.into(), id.into());
            return Err(Violation::Contradiction { what: "CNTLID in Connect", first, then }.into());
        }
        Ok(IoQueue::new(queue, namespace))
    }

    /// Sends a Keep Alive when one is due and takes its answer. To be called now and then while I/O goes on.
    ///
    /// # Errors
    /// The admin connection is lost, or the Keep Alive is refused.
    pub fn keep_alive(&mut self) -> Result<(), HostError> {
        let Some(every) = self.keep_alive_every else { return Ok(()) };
        self.admin.poll(Wait::Spin)?;
        self.take_keep_alive()?;
        let now = Instant::now();
        if now >= self.keep_alive_next && self.keep_alive_slot.is_none() {
            let slot = self.admin.hold().expect("the admin queue has a slot for Keep Alive");
            self.admin.submit(slot, command::keep_alive(), 0)?;
            self.keep_alive_slot = Some(slot);
            self.keep_alive_next = now + every;
            self.admin.poll(Wait::Spin)?;
        }
        Ok(())
    }

    fn take_keep_alive(&mut self) -> Result<(), HostError> {
        while let Some(completion) = self.admin.completed() {
            self.background(completion)?;
        }
        Ok(())
    }

    /// Takes the answer of a command that nobody waits for.
    fn background(&mut self, completion: Completion) -> Result<(), HostError> {
        self.admin.release(completion.slot);
        if self.keep_alive_slot == Some(completion.slot) {
            self.keep_alive_slot = None;
        }
        accepted("Keep Alive", &completion)
    }

    /// Wants a request of an I/O queue aborted, and does not wait: a target may need data of that queue before it answers.
    ///
    /// # Errors
    /// The admin connection is lost.
    ///
    /// # Panics
    /// With more than two at a time.
    pub fn begin_abort(&mut self, queue_id: u16, request: Slot) -> Result<Slot, HostError> {
        let slot = self.admin.hold().expect("the admin queue has slots for Abort");
        self.admin.submit(slot, command::abort(queue_id, request.0), 0)?;
        self.admin.poll(Wait::Spin)?;
        Ok(slot)
    }

    /// Whether the request was aborted that [`Host::begin_abort`] was about; waits until that is known.
    ///
    /// # Errors
    /// The Abort is refused, or the admin connection is lost.
    pub fn end_abort(&mut self, abort: Slot) -> Result<bool, HostError> {
        let (result, _) = self.answer("Abort", abort, 0)?;
        Ok(result & 1 == 0)
    }

    /// Shuts the controller down in good order and closes the admin queue; I/O queues should be closed before.
    ///
    /// # Errors
    /// The controller does not shut down, or the connection is lost before.
    pub fn disconnect(mut self) -> Result<(), HostError> {
        let configuration = Configuration::ENABLE.with_shutdown(1);
        self.property_set(register::CC, configuration.0)?;
        self.await_status("shutdown", ControllerStatus::is_shut_down)
    }

    fn enable(&mut self) -> Result<(), HostError> {
        // Read before CC is set, as every host does; the answers must be there.
        let capabilities = Capabilities(self.property_get(register::CAP, true)?);
        self.controller.queue_entries_max = u16::try_from(capabilities.max_queue_entries()).unwrap_or(u16::MAX);
        self.property_get(register::VS, false)?;
        self.property_set(register::CC, Configuration::ENABLE.0)?;
        self.await_status("enable", ControllerStatus::is_ready)
    }

    fn await_status(&mut self, what: &'static str, reached: fn(ControllerStatus) -> bool) -> Result<(), HostError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let status = ControllerStatus(self.property_get(register::CSTS, false)? as u32);
            if status.is_fatal() {
                return Err(HostError::Unusable { field: "CSTS", value: status.0.into() });
            }
            if reached(status) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(HostError::Timeout { to: what, seconds: ANSWER_TIMEOUT.as_secs() });
            }
            std::thread::sleep(READY_PAUSE);
        }
    }

    fn identify_controller(&mut self) -> Result<Controller, HostError> {
        let identify = self.identify(opcode::CNS_CONTROLLER, 0)?;
        let identify = IdentifyController::decode(&identify).map_err(|_| missing("Identify Controller"))?;
        self.check(&identify)?;
        let text = |bytes: &[u8]| layout::text(bytes).unwrap_or_default().to_owned();
        let transfer_bytes_max = match identify.max_data_transfer {
            0 => TRANSFER_MAX_BYTES,
            pages => pages_to_bytes(pages).min(TRANSFER_MAX_BYTES.into()) as u32,
        };
        let in_capsule = (u64::from(identify.command_capsule_16b) * 16).saturating_sub(64);
        let write_zeroes_bytes_max = if identify.optional_commands & OPTIONAL_WRITE_ZEROES == 0 {
            0
        } else {
            self.write_zeroes_limit(transfer_bytes_max)?
        };
        Ok(Controller {
            id: self.controller.id,
            serial: text(&identify.serial),
            model: text(&identify.model),
            transfer_bytes_max,
            in_capsule_bytes_max: in_capsule.min(TRANSFER_MAX_BYTES.into()) as u32,
            queue_entries_max: self.controller.queue_entries_max.min(identify.max_commands),
            write_zeroes_bytes_max,
            queues: 0,
        })
    }

    /// What a Linux host insists on in Identify Controller of an I/O controller.
    fn check(&self, identify: &IdentifyController) -> Result<(), HostError> {
        if identify.controller_id != self.controller.id {
            let (first, then) = (self.controller.id.into(), identify.controller_id.into());
            return Err(Violation::Contradiction { what: "CNTLID in Connect and Identify", first, then }.into());
        }
        let requirements = [
            ("KAS", u64::from(identify.keep_alive_100ms), identify.keep_alive_100ms != 0),
            ("IOCCSZ", identify.command_capsule_16b.into(), identify.command_capsule_16b >= 4),
            ("IORCSZ", identify.response_capsule_16b.into(), identify.response_capsule_16b >= 1),
            ("ICDOFF", identify.in_capsule_offset_16b.into(), identify.in_capsule_offset_16b == 0),
            ("SGLS", identify.sgl_support.into(), identify.sgl_support & 1 != 0),
            ("MAXCMD", identify.max_commands.into(), identify.max_commands != 0),
        ];
        match requirements.into_iter().find(|&(.., met)| !met) {
            Some((field, value, _)) => Err(HostError::Unusable { field, value }),
            None => Ok(()),
        }
    }

    /// WZSL (NVM, figure 103); a controller that does not know the structure has MDTS as its limit.
    fn write_zeroes_limit(&mut self, transfer_bytes_max: u32) -> Result<u64, HostError> {
        match self.identify(opcode::CNS_CONTROLLER_OF_COMMAND_SET, 0) {
            Ok(identify) => {
                let limits = IdentifyControllerNvm::decode(&identify).map_err(|_| missing("I/O command set limits"))?;
                let limit = limits.write_zeroes_limit;
                Ok(if limit == 0 { transfer_bytes_max.into() } else { pages_to_bytes(limit) })
            }
            Err(HostError::Refused { .. }) => Ok(transfer_bytes_max.into()),
            Err(error) => Err(error),
        }
    }

    fn identify(&mut self, cns: u8, nsid: u32) -> Result<IdentifyBytes, HostError> {
        let (_, data) = self.execute("Identify", command::identify(cns, nsid), IDENTIFY_BYTES as u32)?;
        data.try_into().map_err(|_| missing("Identify"))
    }

    /// Reads part of a log page: `length` bytes, at most 16 KiB.
    ///
    /// # Errors
    /// The command is refused or the connection lost.
    pub fn log_page(&mut self, page: u8, offset: u64, length: u32) -> Result<Vec<u8>, HostError> {
        crate::queue::at_most("bytes of a log page at a time", length.into(), ADMIN_BUFFER_BYTES.into())?;
        if length == 0 || !length.is_multiple_of(4) || !offset.is_multiple_of(4) {
            return Err(HostError::Senseless("log pages are read in dwords"));
        }
        self.execute("Get Log Page", command::get_log(page, offset, length), length).map(|(_, data)| data)
    }

    /// Runs an admin command that returns `length` bytes; its result and data.
    fn execute(
        &mut self,
        command: &'static str,
        entry: SubmissionEntry,
        length: u32,
    ) -> Result<(u64, Vec<u8>), HostError> {
        let slot = self.admin.hold().expect("the admin queue has a slot for a command");
        self.admin.submit(slot, entry, length)?;
        self.answer(command, slot, length)
    }

    /// Waits for the answer to an admin command: its result and `length` bytes of data.
    fn answer(&mut self, command: &'static str, slot: Slot, length: u32) -> Result<(u64, Vec<u8>), HostError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let completion = await_any(&mut self.admin, command, deadline)?;
            if completion.slot != slot {
                self.background(completion)?;
                continue;
            }
            let data = self.admin.buffer(slot)[..length as usize].to_vec();
            self.admin.release(slot);
            accepted(command, &completion)?;
            return Ok((completion.result, data));
        }
    }
}

/// Connects a queue; returns the controller's identifier.
fn connect_queue(
    queue: &mut Queue,
    options: &HostOptions,
    queue_id: u16,
    entries: u16,
    keep_alive_ms: u32,
    controller: u16,
) -> Result<u16, HostError> {
    let HostIdentity { nqn, id } = &options.identity;
    // 223 bytes and a NUL (Base, section 4.5).
    if nqn.len() > 223 || options.subsystem_nqn.len() > 223 {
        return Err(HostError::Senseless("a qualified name has at most 223 bytes"));
    }
    let slot = queue.hold().expect("a new queue has a free slot");
    let connect = command::connect(queue_id, entries, keep_alive_ms);
    if queue.buffer_bytes() < CONNECT_DATA_BYTES as usize {
        return Err(HostError::Senseless("a request's buffer holds the data of Connect: at least 1024 bytes"));
    }
    command::put_connect_data(queue.buffer_mut(slot), *id, controller, &options.subsystem_nqn, nqn);
    queue.submit_inside(slot, connect, CONNECT_DATA_BYTES)?;
    let completion = await_any(queue, "Connect", Instant::now() + ANSWER_TIMEOUT)?;
    queue.release(completion.slot);
    accepted("Connect", &completion)?;
    // AUTHREQ: this host has no secret to show (Base, section 6.3, figure 548).
    if completion.result >> 16 & 0b11 != 0 {
        return Err(HostError::Unusable { field: "AUTHREQ of Connect", value: completion.result >> 16 & 0xffff });
    }
    Ok(completion.result as u16)
}

fn await_any(queue: &mut Queue, command: &'static str, deadline: Instant) -> Result<Completion, HostError> {
    loop {
        if let Some(completion) = queue.completed() {
            return Ok(completion);
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return Err(HostError::Timeout { to: command, seconds: ANSWER_TIMEOUT.as_secs() });
        };
        queue.poll(Wait::Sleep(left))?;
    }
}

/// A refusal, unless the command succeeded.
pub(crate) const fn accepted(command: &'static str, completion: &Completion) -> Result<(), HostError> {
    if completion.status.is_success() { Ok(()) } else { Err(HostError::Refused { command, status: completion.status }) }
}

const fn missing(field: &'static str) -> HostError {
    HostError::Unusable { field, value: 0 }
}

/// 2^n pages in bytes, as far as that can be said.
const fn pages_to_bytes(exponent: u8) -> u64 {
    if exponent < 40 { PAGE_BYTES << exponent } else { u64::MAX }
}
