//! The bench's load: one pattern at one depth on one I/O queue, for a time or a count, and what came of it. The data
//! that it writes is drawn once and the data that it reads is not looked at: the torture does that.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::error::HostError;
use crate::host::{Host, HostOptions, Namespace, accepted};
use crate::io_queue::{IoQueue, Operation};
use crate::queue::at_most;
use crate::random::Random;
use crate::request::{Slot, Wait};

/// The longest latency that is told apart, in nanoseconds: a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Between two looks at the admin queue.
const ADMIN_EVERY: Duration = Duration::from_millis(100);

/// Which blocks are touched, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Reads anywhere.
    RandomRead,
    /// Writes anywhere.
    RandomWrite,
    /// Reads one block behind the other.
    SequentialRead,
    /// Writes one block behind the other.
    SequentialWrite,
    /// Both anywhere; so many of a hundred are reads.
    RandomMix {
        /// Reads of a hundred requests.
        read_percent: u8,
    },
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "randread" => Ok(Self::RandomRead),
            "randwrite" => Ok(Self::RandomWrite),
            "read" => Ok(Self::SequentialRead),
            "write" => Ok(Self::SequentialWrite),
            _ => {
                let percent = text.strip_prefix("randrw:").and_then(|percent| percent.parse().ok());
                let read_percent = percent.filter(|&percent| percent <= 100);
                let read_percent = read_percent
                    .ok_or_else(|| format!("{text:?} is none of randread, randwrite, read, write, randrw:PERCENT"))?;
                Ok(Self::RandomMix { read_percent })
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RandomRead => f.write_str("randread"),
            Self::RandomWrite => f.write_str("randwrite"),
            Self::SequentialRead => f.write_str("read"),
            Self::SequentialWrite => f.write_str("write"),
            Self::RandomMix { read_percent } => write!(f, "randrw:{read_percent}"),
        }
    }
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this long.
    Time(Duration),
    /// After this many requests.
    Requests(u64),
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadOptions {
    /// Which blocks are touched, and how.
    pub pattern: Pattern,
    /// Bytes of a request: a multiple of the namespace's block.
    pub request_bytes: u32,
    /// Requests in flight.
    pub depth: u16,
    /// When it ends.
    pub limit: Limit,
    /// How long it runs before it is measured.
    pub warm_up: Duration,
    /// Blocks that it stays within, from the first one on; none: all.
    pub region_blocks: Option<u64>,
    /// From one request to the next, if there is room for it; zero: as soon as there is.
    pub interval: Duration,
    /// What addresses and choices are drawn from.
    pub seed: u64,
    /// Whether an idle poll spins (a core of its own) or sleeps.
    pub wait: Wait,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Report {
    /// Reads answered.
    pub reads: u64,
    /// Writes answered.
    pub writes: u64,
    /// Bytes of a request.
    pub request_bytes: u32,
    /// How long it took.
    pub elapsed: Duration,
    latencies_ns: Histogram<u64>,
}

impl Report {
    fn new(request_bytes: u32) -> Self {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in order");
        Self { reads: 0, writes: 0, request_bytes, elapsed: Duration::ZERO, latencies_ns }
    }

    /// Requests answered.
    pub const fn operations(&self) -> u64 {
        self.reads + self.writes
    }

    /// Requests per second.
    pub fn iops(&self) -> f64 {
        self.operations() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.iops() * f64::from(self.request_bytes)
    }

    /// The latency within which this share (0.0 to 1.0) of the requests was answered.
    pub fn latency(&self, share: f64) -> Duration {
        Duration::from_nanos(self.latencies_ns.value_at_quantile(share))
    }

    /// The mean latency.
    pub fn mean_latency(&self) -> Duration {
        Duration::from_nanos(self.latencies_ns.mean() as u64)
    }

    /// The longest latency.
    pub fn longest_latency(&self) -> Duration {
        Duration::from_nanos(self.latencies_ns.max())
    }

    /// Adds what another queue of the same load did at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies_ns.add(&other.latencies_ns).expect("both have the same bounds");
    }
}

/// Connects, runs a load on the first namespace, and disconnects.
///
/// # Errors
/// What the target answered, or that the load does not fit it.
pub fn bench(target: &HostOptions, options: &WorkloadOptions) -> Result<Report, HostError> {
    let mut host = Host::connect(target)?;
    let namespace = first_namespace(&mut host)?;
    let mut queue = host.open_queue(1, options.depth, options.request_bytes.max(namespace.block_bytes), &namespace)?;
    let report = run(&mut host, &mut queue, &namespace, options)?;
    drop(queue);
    host.disconnect()?;
    Ok(report)
}

/// The first active namespace.
///
/// # Errors
/// There is none, or the connection is lost.
pub fn first_namespace(host: &mut Host) -> Result<Namespace, HostError> {
    match host.namespaces()?.first() {
        Some(&nsid) => host.namespace(nsid),
        None => Err(HostError::Unusable { field: "number of active namespaces", value: 0 }),
    }
}

/// Runs a load on a connected queue and waits for its last answer.
///
/// # Errors
/// The connection is lost, a request was refused, or the load does not fit the namespace.
pub fn run(
    host: &mut Host,
    queue: &mut IoQueue,
    namespace: &Namespace,
    options: &WorkloadOptions,
) -> Result<Report, HostError> {
    let blocks = options.request_bytes / namespace.block_bytes;
    if blocks == 0 || !options.request_bytes.is_multiple_of(namespace.block_bytes) {
        return Err(HostError::Senseless("a request is a multiple of the namespace's block"));
    }
    if options.depth == 0 || options.limit == Limit::Requests(0) {
        return Err(HostError::Senseless("a load has at least one request"));
    }
    at_most("blocks of a request", blocks.into(), namespace.blocks)?;
    at_most("blocks of the region", options.region_blocks.unwrap_or(0), namespace.blocks)?;
    at_most("requests in flight", options.depth.into(), queue.depth() as u64)?;
    Load {
        options,
        blocks,
        places: (options.region_blocks.unwrap_or(namespace.blocks) / u64::from(blocks)).max(1),
        idle: Vec::with_capacity(queue.depth()),
        next: Instant::now(),
        next_place: 0,
        random: Random::new(options.seed),
        submitted: vec![None; queue.depth()],
        left: match options.limit {
            Limit::Requests(requests) => requests,
            Limit::Time(_) => u64::MAX,
        },
        report: Report::new(options.request_bytes),
    }
    .run(host, queue)
}

struct Load<'a> {
    options: &'a WorkloadOptions,
    blocks: u32,
    places: u64,
    next_place: u64,
    random: Random,
    /// When each request in flight left, and whether it is a read.
    submitted: Vec<Option<(Instant, bool)>>,
    /// Those that wait for their moment.
    idle: Vec<Slot>,
    /// When the next request is to leave.
    next: Instant,
    /// Requests still to be submitted.
    left: u64,
    report: Report,
}

impl Load<'_> {
    fn run(mut self, host: &mut Host, queue: &mut IoQueue) -> Result<Report, HostError> {
        let started = Instant::now();
        let measured_from = started + self.options.warm_up;
        let ends = match self.options.limit {
            Limit::Time(duration) => Some(measured_from + duration),
            Limit::Requests(_) => None,
        };
        let mut admin_next = started + ADMIN_EVERY;
        for _ in 0..self.options.depth {
            let Some(slot) = queue.hold() else { break };
            self.fill(queue.buffer_mut(slot));
            self.idle.push(slot);
        }
        self.next = started;
        self.submit_due(queue, started)?;
        while queue.in_flight() > 0 || !self.idle.is_empty() {
            if queue.in_flight() > 0 {
                queue.poll(self.options.wait)?;
            } else {
                std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
            }
            // One look at the clock for all that one receive brought: it is part of what a request waits for.
            let now = Instant::now();
            while let Some(completion) = queue.completed() {
                let (since, is_read) = self.submitted[completion.slot.index()].take().expect("it was submitted");
                accepted(if is_read { "Read" } else { "Write" }, &completion)?;
                if now >= measured_from && ends.is_none_or(|ends| now < ends) {
                    self.count(now - since, is_read);
                }
                self.idle.push(completion.slot);
            }
            if self.left > 0 && ends.is_none_or(|ends| now < ends) {
                self.submit_due(queue, now)?;
            } else {
                self.idle.drain(..).for_each(|slot| queue.release(slot));
            }
            if now >= admin_next {
                host.keep_alive()?;
                admin_next = now + ADMIN_EVERY;
            }
        }
        self.report.elapsed = match ends {
            Some(ends) => ends - measured_from,
            None => Instant::now().saturating_duration_since(measured_from),
        };
        Ok(self.report)
    }

    /// Submits what is due: without an interval all that there is room for.
    fn submit_due(&mut self, queue: &mut IoQueue, now: Instant) -> Result<(), HostError> {
        while (self.options.interval.is_zero() || self.next <= now)
            && let Some(slot) = self.idle.pop()
        {
            self.submit(queue, slot, now)?;
            self.next += self.options.interval;
        }
        // What there was no room for is not made up for later.
        if self.idle.is_empty() {
            self.next = self.next.max(now);
        }
        Ok(())
    }

    fn submit(&mut self, queue: &mut IoQueue, slot: Slot, now: Instant) -> Result<(), HostError> {
        if self.left == 0 {
            queue.release(slot);
            return Ok(());
        }
        self.left -= 1;
        let (is_read, random) = match self.options.pattern {
            Pattern::RandomRead => (true, true),
            Pattern::RandomWrite => (false, true),
            Pattern::SequentialRead => (true, false),
            Pattern::SequentialWrite => (false, false),
            Pattern::RandomMix { read_percent } => (self.random.percent(read_percent), true),
        };
        let place = if random { self.random.below(self.places) } else { self.next_place };
        self.next_place = (place + 1) % self.places;
        let (lba, blocks) = (place * u64::from(self.blocks), self.blocks);
        self.submitted[slot.index()] = Some((now, is_read));
        queue.submit(slot, if is_read { Operation::Read { lba, blocks } } else { Operation::Write { lba, blocks } })
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_exact_mut(8) {
            word.copy_from_slice(&self.random.next().to_le_bytes());
        }
    }

    fn count(&mut self, latency: Duration, is_read: bool) {
        *(if is_read { &mut self.report.reads } else { &mut self.report.writes }) += 1;
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.report.latencies_ns.saturating_record(latency_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_they_are_written() {
        for text in ["randread", "randwrite", "read", "write", "randrw:70"] {
            assert_eq!(text.parse::<Pattern>().map(|pattern| pattern.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "randrw", "randrw:101", "trim"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
