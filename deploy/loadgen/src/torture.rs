//! The crash torture: stamped writes, zeroes and checked reads at depth on a region of a volume, whatever happens to the
//! target; after its death it connects again and judges every block by the [`Model`]. It never looks behind the
//! target's interface and never retries a request: what was in flight at a death stays old or new.

use core::time::Duration;
use std::net::SocketAddr;
use std::time::Instant;

use base::BLOCK;
use base::uuid::Uuid;
use nvmf::pdu::Digests;

use crate::error::HostError;
use crate::host::{Host, HostIdentity, HostOptions, Namespace};
use crate::io_queue::{IoQueue, Operation};
use crate::limits::{QUEUES_MAX, VIOLATIONS_KEPT_MAX};
use crate::model::{Event, Model, Violation};
use crate::patience::patiently;
use crate::queue::at_most;
use crate::random::{Random, mix};
use crate::request::{Completion, Wait};
use crate::stamp::Content;
use crate::workload::first_namespace;

/// The longest sleep of a turn, so that the caller is asked again whether to stop.
const TURN: Duration = Duration::from_millis(20);
/// The longest sleep on one of several queues.
const SHORT_TURN: Duration = Duration::from_micros(200);

/// What the torture does.
#[derive(Clone, Copy, Debug)]
pub struct TortureOptions {
    /// Requests in flight on each queue.
    pub queue_depth: u16,
    /// I/O queues.
    pub queues: u16,
    /// The longest request, in blocks.
    pub max_blocks_per_io: u32,
    /// The region, from the volume's first block, in blocks; a smaller volume is used whole.
    pub region_blocks: u64,
    /// Reads of a hundred requests.
    pub read_percent: u8,
    /// Write Zeroes of a hundred requests.
    pub zeroes_percent: u8,
    /// Digests of all queues.
    pub digests: Digests,
}

impl Default for TortureOptions {
    fn default() -> Self {
        Self {
            queue_depth: 32,
            queues: 1,
            max_blocks_per_io: 16,
            region_blocks: 16_384,
            read_percent: 10,
            zeroes_percent: 3,
            digests: Digests::default(),
        }
    }
}

/// How far a torture has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Writes and Write Zeroes acknowledged.
    pub writes_acknowledged: u64,
    /// Reads answered and judged.
    pub reads_checked: u64,
    /// Requests that the target answered with an error.
    pub refused: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Requests that were in flight when a connection died.
    pub lost_in_flight: u64,
    /// Connections lost.
    pub deaths: u64,
    /// Violations found.
    pub violations: u64,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// The caller stopped it, and everything in flight was answered.
    Stopped,
    /// The target or its connection died.
    Died(HostError),
}

/// What a verification found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// Blocks read.
    pub blocks: u64,
    /// Blocks that could have been one of several values and are now settled.
    pub settled: u64,
    /// Violations found by this verification.
    pub violations: u64,
    /// All violations of the torture so far, the first ones word for word.
    pub kept: Vec<Violation>,
    /// How long it took until the target answered again.
    pub reconnected_after: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Write { zeros: bool },
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    event: Event,
    lba: u64,
    blocks: u32,
    kind: Kind,
}

#[derive(Debug)]
struct Connection {
    host: Host,
    queues: Vec<IoQueue>,
    keep_alive_next: Instant,
}

/// A torture of one volume.
#[derive(Debug)]
pub struct Torture {
    target: HostOptions,
    options: TortureOptions,
    namespace: Namespace,
    write_zeroes_blocks_max: u32,
    connection: Option<Connection>,
    /// What is in flight, by queue and slot.
    flights: Vec<Vec<Option<Flight>>>,
    model: Model,
    random: Random,
    progress: Progress,
    kept: Vec<Violation>,
}

impl Torture {
    /// Connects to the first namespace of a subsystem, waiting a while for a target that is starting, and reads the
    /// region: what is there now is what must stay until it is overwritten.
    ///
    /// # Errors
    /// What the target answered, or that the options do not fit it.
    pub fn new(
        address: SocketAddr,
        subsystem_nqn: &str,
        seed: u64,
        options: TortureOptions,
    ) -> Result<Self, HostError> {
        if options.queue_depth == 0
            || options.queues == 0
            || options.max_blocks_per_io == 0
            || options.region_blocks == 0
        {
            return Err(HostError::Senseless("depth, queues, blocks per request and region must not be zero"));
        }
        at_most("I/O queues", options.queues.into(), QUEUES_MAX.into())?;
        at_most(
            "reads and zeroes of a hundred",
            u64::from(options.read_percent) + u64::from(options.zeroes_percent),
            100,
        )?;
        // The same seed is the same host, so that the target sees one host coming back.
        let identity = HostIdentity::from_id(Uuid::from_random([mix(seed), mix(!seed)]));
        let mut target = HostOptions::new(address, subsystem_nqn, identity);
        target.digests = options.digests;
        target.queues = options.queues;
        let ((host, namespace), _) = patiently(|| {
            let mut host = Host::connect(&target)?;
            let namespace = first_namespace(&mut host)?;
            Ok((host, namespace))
        })?;
        if namespace.block_bytes as usize != BLOCK {
            return Err(HostError::Unusable { field: "bytes of a block", value: namespace.block_bytes.into() });
        }
        let most = host.controller().transfer_bytes_max / BLOCK as u32;
        at_most("blocks of a request", options.max_blocks_per_io.into(), most.into())?;
        let region_blocks = options.region_blocks.min(namespace.blocks);
        at_most("blocks of a request", options.max_blocks_per_io.into(), region_blocks)?;
        let write_zeroes_blocks_max = (host.controller().write_zeroes_bytes_max / BLOCK as u64).min(1 << 16) as u32;
        let mut torture = Self {
            target,
            options: TortureOptions { region_blocks, ..options },
            namespace,
            write_zeroes_blocks_max,
            connection: None,
            flights: vec![vec![None; options.queue_depth.into()]; options.queues.into()],
            model: Model::new(run_number(seed), region_blocks),
            random: Random::new(seed),
            progress: Progress::default(),
            kept: Vec::new(),
        };
        torture.connection = Some(torture.open(host)?);
        torture.learn()?;
        Ok(torture)
    }

    /// How far it has come.
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The violations found so far, at most [`VIOLATIONS_KEPT_MAX`] of them.
    pub fn violations(&self) -> &[Violation] {
        &self.kept
    }

    /// Blocks of the region.
    pub const fn region_blocks(&self) -> u64 {
        self.options.region_blocks
    }

    /// Reads, writes and zeroes at depth until the caller says stop, which also waits for what is in flight, or until
    /// the connection dies, which keeps the model.
    ///
    /// # Errors
    /// The target broke the protocol, or it cannot be reached at the start.
    pub fn run_until(&mut self, mut stop: impl FnMut(&Progress) -> bool) -> Result<End, HostError> {
        self.ensure_connected()?;
        let mut stopping = false;
        loop {
            stopping = stopping || stop(&self.progress);
            match self.turn(stopping) {
                Ok(()) if stopping && self.progress.in_flight == 0 => return Ok(End::Stopped),
                Ok(()) => {}
                Err(error) => {
                    self.die();
                    return if error.is_loss() { Ok(End::Died(error)) } else { Err(error) };
                }
            }
        }
    }

    /// Reads every block of the region and judges it; connects first if the connection died, waiting a while for a
    /// target that is starting. `progress` is told how many blocks of how many have been read.
    ///
    /// # Errors
    /// The target does not come back, breaks the protocol, or dies again.
    pub fn verify(&mut self, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport, HostError> {
        let reconnected_after = self.ensure_connected()?;
        let uncertain = |model: &Model| (0..model.blocks()).filter(|&lba| model.is_uncertain(lba)).count() as u64;
        let (settled, before) = (uncertain(&self.model), self.progress.violations);
        let read = self.read_region(|torture, flight, completion, blocks, done| {
            torture.judge(flight, completion.status.is_success().then_some(blocks));
            progress(done, torture.options.region_blocks);
        });
        if let Err(error) = read {
            self.die();
            return Err(error);
        }
        Ok(VerifyReport {
            blocks: self.options.region_blocks,
            settled,
            violations: self.progress.violations - before,
            kept: self.kept.clone(),
            reconnected_after,
        })
    }

    /// Ends the association in good order.
    ///
    /// # Errors
    /// The target refuses or the connection is lost.
    pub fn disconnect(mut self) -> Result<(), HostError> {
        match self.connection.take() {
            Some(Connection { host, queues, .. }) => {
                drop(queues);
                host.disconnect()
            }
            None => Ok(()),
        }
    }

    fn open(&self, mut host: Host) -> Result<Connection, HostError> {
        let namespace = first_namespace(&mut host)?;
        if namespace != self.namespace {
            return Err(HostError::Senseless("the namespace has another size or other identifiers than before"));
        }
        let buffer_bytes = self.options.max_blocks_per_io * BLOCK as u32;
        let mut queues = Vec::with_capacity(self.options.queues.into());
        for queue_id in 1..=self.options.queues {
            queues.push(host.open_queue(queue_id, self.options.queue_depth, buffer_bytes, &self.namespace)?);
        }
        Ok(Connection { host, queues, keep_alive_next: Instant::now() })
    }

    fn ensure_connected(&mut self) -> Result<Duration, HostError> {
        if self.connection.is_some() {
            return Ok(Duration::ZERO);
        }
        // A target that is starting, or killed again meanwhile, may drop any of the connections.
        let (connection, after) = patiently(|| self.open(Host::connect(&self.target)?))?;
        self.connection = Some(connection);
        Ok(after)
    }

    fn die(&mut self) {
        self.connection = None;
        self.progress.deaths += 1;
        self.progress.lost_in_flight += self.progress.in_flight;
        self.progress.in_flight = 0;
        for flight in self.flights.iter_mut().flatten().filter_map(Option::take) {
            if matches!(flight.kind, Kind::Write { .. }) {
                self.model.write_abandoned(flight.event, flight.lba, flight.blocks);
            }
        }
    }

    /// Submits what the depth allows and takes what was answered.
    fn turn(&mut self, stopping: bool) -> Result<(), HostError> {
        let mut connection = self.connection.take().expect("connected");
        let turned = self.turn_on(&mut connection, stopping);
        self.connection = Some(connection);
        turned
    }

    fn turn_on(&mut self, connection: &mut Connection, stopping: bool) -> Result<(), HostError> {
        // Only one queue can be slept on; with several, none may wait long for another.
        let wait = Wait::Sleep(if connection.queues.len() == 1 { TURN } else { SHORT_TURN });
        for (number, queue) in connection.queues.iter_mut().enumerate() {
            if !stopping {
                self.fill(number, queue)?;
            }
            queue.poll(wait)?;
            while let Some(completion) = queue.completed() {
                let flight = self.flights[number][completion.slot.index()].take().expect("it was in flight");
                self.progress.in_flight -= 1;
                self.answered(&flight, &completion, queue.buffer(completion.slot));
                queue.release(completion.slot);
            }
        }
        keep_alive(connection)
    }

    /// Submits until the depth is reached.
    fn fill(&mut self, number: usize, queue: &mut IoQueue) -> Result<(), HostError> {
        while let Some(slot) = queue.hold() {
            let flight = self.draw();
            let Flight { event, lba, blocks, kind } = flight;
            let operation = match kind {
                Kind::Read => Operation::Read { lba, blocks },
                Kind::Write { zeros: true } => Operation::WriteZeroes { lba, blocks },
                Kind::Write { zeros: false } => {
                    self.stamp(queue.buffer_mut(slot), &flight);
                    Operation::Write { lba, blocks }
                }
            };
            if let Kind::Write { zeros } = kind {
                self.model.write_submitted(event, lba, blocks, zeros);
            }
            self.flights[number][slot.index()] = Some(flight);
            self.progress.in_flight += 1;
            queue.submit(slot, operation)?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Flight {
        let choice = self.random.below(100) as u8;
        let kind = if choice < self.options.read_percent {
            Kind::Read
        } else {
            let zeros = choice - self.options.read_percent < self.options.zeroes_percent;
            Kind::Write { zeros: zeros && self.write_zeroes_blocks_max > 0 }
        };
        let most = match kind {
            Kind::Write { zeros: true } => self.options.max_blocks_per_io.min(self.write_zeroes_blocks_max),
            _ => self.options.max_blocks_per_io,
        };
        // Half of the requests are single blocks: those collide and split most.
        let blocks = if self.random.percent(50) { 1 } else { 1 + self.random.below(most.into()) as u32 };
        let lba = self.random.below(self.options.region_blocks - u64::from(blocks) + 1);
        Flight { event: self.model.event(), lba, blocks, kind }
    }

    fn stamp(&self, buffer: &mut [u8], flight: &Flight) {
        for (lba, block) in (flight.lba..).zip(buffer.chunks_exact_mut(BLOCK).take(flight.blocks as usize)) {
            self.model.stamp(lba, flight.event).write_to(block);
        }
    }

    fn answered(&mut self, flight: &Flight, completion: &Completion, buffer: &[u8]) {
        let well = completion.status.is_success();
        self.progress.refused += u64::from(!well);
        let Flight { event, lba, blocks, kind } = *flight;
        match (kind, well) {
            (Kind::Write { .. }, true) => {
                self.progress.writes_acknowledged += 1;
                self.model.write_acknowledged(event, lba, blocks, self.oldest_read());
            }
            (Kind::Write { .. }, false) => self.model.write_abandoned(event, lba, blocks),
            (Kind::Read, true) => self.judge(flight, Some(buffer)),
            // A target may refuse a read under way; the verification insists.
            (Kind::Read, false) => {}
        }
    }

    /// Judges what a read returned, or that it returned nothing.
    fn judge(&mut self, flight: &Flight, buffer: Option<&[u8]>) {
        self.progress.reads_checked += 1;
        let oldest_read = self.oldest_read();
        for at in 0..flight.blocks as usize {
            let lba = flight.lba + at as u64;
            let judged = match buffer {
                Some(buffer) => {
                    let content = Content::of(&buffer[at * BLOCK..][..BLOCK]);
                    self.model.read_returned(flight.event, lba, content, oldest_read)
                }
                None => Err(self.model.unreadable(lba)),
            };
            if let Err(violation) = judged {
                self.progress.violations += 1;
                if self.kept.len() < VIOLATIONS_KEPT_MAX {
                    self.kept.push(violation);
                }
            }
        }
    }

    fn oldest_read(&self) -> Event {
        let reads = self.flights.iter().flatten().flatten().filter(|flight| matches!(flight.kind, Kind::Read));
        reads.map(|flight| flight.event).min().unwrap_or(Event::MAX)
    }

    fn learn(&mut self) -> Result<(), HostError> {
        let mut refused = None;
        self.read_region(|torture, flight, completion, buffer, _| {
            if !completion.status.is_success() {
                refused = Some(completion.status);
                return;
            }
            for (lba, block) in (flight.lba..).zip(buffer.chunks_exact(BLOCK).take(flight.blocks as usize)) {
                torture.model.learn(lba, Content::of(block));
            }
        })?;
        match refused {
            Some(status) => Err(HostError::Refused { command: "Read", status }),
            None => Ok(()),
        }
    }

    /// Reads the whole region at depth on the first queue and gives each answer to `take`, with the blocks done.
    fn read_region(
        &mut self,
        mut take: impl FnMut(&mut Self, &Flight, &Completion, &[u8], u64),
    ) -> Result<(), HostError> {
        let mut connection = self.connection.take().expect("connected");
        let (mut next, mut done) = (0, 0);
        while done < self.options.region_blocks {
            let queue = &mut connection.queues[0];
            while next < self.options.region_blocks {
                let Some(slot) = queue.hold() else { break };
                let blocks = (self.options.region_blocks - next).min(self.options.max_blocks_per_io.into()) as u32;
                let flight = Flight { event: self.model.event(), lba: next, blocks, kind: Kind::Read };
                self.flights[0][slot.index()] = Some(flight);
                self.progress.in_flight += 1;
                queue.submit(slot, Operation::Read { lba: next, blocks })?;
                next += u64::from(blocks);
            }
            queue.poll(Wait::Sleep(TURN))?;
            while let Some(completion) = queue.completed() {
                let flight = self.flights[0][completion.slot.index()].take().expect("it was in flight");
                self.progress.in_flight -= 1;
                done += u64::from(flight.blocks);
                take(self, &flight, &completion, queue.buffer(completion.slot), done);
                queue.release(completion.slot);
            }
            keep_alive(&mut connection)?;
        }
        self.connection = Some(connection);
        Ok(())
    }
}

fn keep_alive(connection: &mut Connection) -> Result<(), HostError> {
    let now = Instant::now();
    if now < connection.keep_alive_next {
        return Ok(());
    }
    connection.keep_alive_next = now + TURN;
    connection.host.keep_alive()
}

/// A number that no other run on this volume has: the seed alone would let a run mistake an earlier one's blocks for its
/// own.
fn run_number(seed: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    mix(seed ^ mix(now.as_nanos() as u64)) ^ u64::from(std::process::id())
}
