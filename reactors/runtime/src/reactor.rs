//! One reactor: a thread that turns a program and gives it the ports. It decides only when to look at the kernel and when
//! to sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::Block;
use base::ids::ShardId;
use base::snapshot::{Plain, Snapshot};
use base::time::{Span, Time};
use crossbeam::utils::CachePadded;
use ports::buffers::HEADROOM;
use ports::{
    Buffer, BufferId, Buffers, Completion, DeviceRequest, Devices, Mesh, Piece, Ports, Program, QueueFull, Segment,
    StreamError, StreamEvent, StreamId, Streams,
};

use crate::event_sys::{Epoll, Watch, random};
use crate::mesh::{Doorbell, MeshEnd};
use crate::pool::LocalPool;
use crate::queues::DeviceQueues;
use crate::sealed::seal_or_share;
use crate::stream::StreamTable;

/// Longest sleep, whatever the program's deadline: a bound on what a mistake in waking could cost.
const MAX_SLEEP: Span = Span::from_secs(1);

/// How a reactor waits for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// It never sleeps: lowest latency, a core at full power.
    Busy,
    /// After so long without work it sleeps in the kernel until there is some.
    Adaptive {
        /// How long it looks for work before it sleeps.
        spin: Span,
    },
}

/// A reactor's counters: one writer, any readers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    turns: AtomicU64,
    idle_turns: AtomicU64,
    sleeps: AtomicU64,
    streams: AtomicU64,
    buffers_available: AtomicU64,
}

/// What a reactor has done since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReactorStats {
    /// The core that it is pinned to.
    pub core: usize,
    /// Nanoseconds in turns that did something.
    pub busy_ns: u64,
    /// Nanoseconds in turns that found nothing to do, or asleep.
    pub idle_ns: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that found nothing to do.
    pub idle_turns: u64,
    /// Sleeps in the kernel.
    pub sleeps: u64,
    /// Streams now open.
    pub streams: u64,
    /// Buffers that it could take from the pool.
    pub buffers_available: u64,
}

impl Counters {
    /// The counts now.
    pub(crate) fn stats(&self, core: usize) -> ReactorStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReactorStats {
            core,
            busy_ns: read(&self.busy_ns),
            idle_ns: read(&self.idle_ns),
            turns: read(&self.turns),
            idle_turns: read(&self.idle_turns),
            sleeps: read(&self.sleeps),
            streams: read(&self.streams),
            buffers_available: read(&self.buffers_available),
        }
    }

    fn add(counter: &AtomicU64, count: u64) {
        // One writer: no locked instruction is needed.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn turn(&self, busy: bool, took: Span) {
        Self::add(&self.turns, 1);
        Self::add(if busy { &self.busy_ns } else { &self.idle_ns }, took.0);
        Self::add(&self.idle_turns, u64::from(!busy));
    }
}

/// Unpredictable bits, drawn from the system in portions.
struct Entropy {
    bits: [u8; 256],
    used: usize,
}

impl Entropy {
    fn new() -> Self {
        Self { bits: [0; 256], used: 256 }
    }

    fn next(&mut self) -> u64 {
        if self.used == self.bits.len() {
            random(&mut self.bits);
            self.used = 0;
        }
        let (portion, _) = self.bits[self.used..].split_first_chunk::<8>().expect("256 is a multiple of 8");
        self.used += 8;
        u64::from_ne_bytes(*portion)
    }
}

/// The ports of production.
pub struct ReactorPorts<M> {
    pool: LocalPool,
    devices: DeviceQueues,
    streams: StreamTable,
    mesh: MeshEnd<M>,
    now: Time,
    entropy: Entropy,
    /// Whether anything but an empty try to receive happened in this turn.
    active: bool,
    empty_tries: u32,
}

impl<M> ReactorPorts<M> {
    pub(crate) fn new(pool: LocalPool, devices: DeviceQueues, streams: StreamTable, mesh: MeshEnd<M>) -> Self {
        let (now, entropy) = (clock(), Entropy::new());
        Self { pool, devices, streams, mesh, now, entropy, active: false, empty_tries: 0 }
    }

    fn begin_turn(&mut self, now: Time) {
        self.now = now;
        self.active = false;
        self.empty_tries = 0;
        self.streams.begin_turn(now);
        self.devices.look();
    }

    fn end_turn(&mut self) {
        self.devices.kick();
        self.mesh.ring();
    }

    /// A turn that only tried hot streams in vain was not work, whatever the program says.
    fn was_busy(&self, worked: bool) -> bool {
        worked && (self.active || self.empty_tries == 0)
    }

    fn is_quiet(&mut self) -> bool {
        self.mesh.is_quiet() && self.streams.is_quiet() && self.devices.is_quiet()
    }
}

impl<M> Buffers for ReactorPorts<M> {
    fn alloc(&mut self) -> Option<Buffer> {
        self.pool.alloc()
    }

    fn free(&mut self, buffer: Buffer) {
        self.pool.free(buffer);
    }

    fn available(&self) -> usize {
        self.pool.available()
    }

    fn bytes(&self, buffer: BufferId) -> &Block {
        self.pool.bytes(buffer)
    }

    fn bytes_mut(&mut self, buffer: BufferId) -> &mut Block {
        self.pool.bytes_mut(buffer)
    }

    fn pair(&mut self, change: BufferId, read: BufferId) -> (&mut Block, &Block) {
        self.pool.pair(change, read)
    }

    fn headroom(&mut self, buffer: BufferId) -> &mut [u8; HEADROOM] {
        self.pool.headroom(buffer)
    }

    fn next(&self, buffer: BufferId) -> Option<BufferId> {
        self.pool.next(buffer)
    }

    fn set_next(&mut self, buffer: BufferId, next: Option<BufferId>) {
        self.pool.set_next(buffer, next);
    }
}

impl<M> Devices for ReactorPorts<M> {
    fn submit(&mut self, request: DeviceRequest<'_>) -> Result<(), QueueFull> {
        self.devices.submit(&request)?;
        self.active = true;
        Ok(())
    }

    fn completion(&mut self) -> Option<Completion> {
        let completion = self.devices.completion()?;
        self.active = true;
        Some(completion)
    }
}

impl<M> Streams for ReactorPorts<M> {
    fn stream_event(&mut self) -> Option<StreamEvent> {
        let event = self.streams.event()?;
        self.active |= !matches!(event, StreamEvent::Readable(_));
        Some(event)
    }

    fn receive(&mut self, stream: StreamId, segments: &[Segment], rest: &mut [u8]) -> Result<usize, StreamError> {
        let received = self.streams.receive(stream, segments, rest);
        match received {
            Ok(0) => self.empty_tries += 1,
            _ => self.active = true,
        }
        received
    }

    fn send(&mut self, stream: StreamId, pieces: &[Piece<'_>]) -> Result<usize, StreamError> {
        let sent = self.streams.send(stream, pieces);
        self.active |= sent != Ok(0);
        sent
    }

    fn want_readable(&mut self, stream: StreamId, wanted: bool) {
        self.streams.want_readable(stream, wanted);
    }

    fn close(&mut self, stream: StreamId, in_good_order: bool) {
        self.active = true;
        self.streams.close(stream, in_good_order);
    }
}

impl<M> Mesh for ReactorPorts<M> {
    type Message = M;

    fn shard(&self) -> ShardId {
        self.mesh.shard()
    }

    fn shards(&self) -> u16 {
        self.mesh.shards()
    }

    fn post(&mut self, to: ShardId, message: M) -> Result<(), M> {
        self.mesh.post(to, message)?;
        self.active = true;
        Ok(())
    }

    fn message(&mut self) -> Option<(ShardId, M)> {
        let found = self.mesh.message()?;
        self.active = true;
        Some(found)
    }
}

impl<M> Ports for ReactorPorts<M> {
    fn now(&self) -> Time {
        self.now
    }

    fn entropy(&mut self) -> u64 {
        self.entropy.next()
    }

    fn seal<T: Plain>(&mut self, name: &'static str, value: T) -> Snapshot<T> {
        seal_or_share(name, value)
    }
}

/// A program, its ports and what the loop around them needs.
pub(crate) struct Reactor<M, P> {
    program: P,
    ports: ReactorPorts<M>,
    polling: Polling,
    doorbell: Arc<Doorbell>,
    /// Everything that can wake a sleeper.
    sources: Epoll,
    counters: Arc<CachePadded<Counters>>,
    stop: Arc<AtomicBool>,
}

impl<M, P: Program<ReactorPorts<M>>> Reactor<M, P> {
    /// A reactor, to be run on its own thread.
    pub(crate) fn new(
        program: P,
        ports: ReactorPorts<M>,
        polling: Polling,
        doorbell: Arc<Doorbell>,
        counters: Arc<CachePadded<Counters>>,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let sources = Epoll::new()?;
        sources.add(doorbell.event().fd(), Watch::ReadLevel, 0)?;
        sources.add(ports.streams.epoll().fd(), Watch::ReadLevel, 1)?;
        if let Some(uring) = ports.devices.uring() {
            sources.add(uring.ring().fd(), Watch::ReadLevel, 2)?;
        }
        Ok(Self { program, ports, polling, doorbell, sources, counters, stop })
    }

    /// Turns the program until it ends, or the runtime is stopped, and gives it back.
    pub(crate) fn run(mut self) -> P {
        let mut start = clock();
        let mut idle_since = start;
        while !self.stop.load(Ordering::Relaxed) {
            self.ports.begin_turn(start);
            let turn = self.program.turn(&mut self.ports);
            self.ports.end_turn();
            let busy = self.ports.was_busy(turn.worked);
            let mut end = clock();
            self.counters.turn(busy, end.since(start));
            if turn.ended {
                break;
            }
            match self.polling {
                _ if busy => idle_since = end,
                Polling::Adaptive { spin } if end.since(idle_since) >= spin => {
                    end = self.sleep(end, turn.deadline);
                    idle_since = end;
                }
                Polling::Adaptive { .. } | Polling::Busy => {}
            }
            self.observe();
            start = end;
        }
        self.program
    }

    /// Sleeps until there is work or the deadline has come, and says what time it is then.
    fn sleep(&mut self, now: Time, deadline: Time) -> Time {
        let until = deadline.min(self.ports.streams.deadline());
        if until <= now {
            return now;
        }
        self.doorbell.close();
        // Looking once more, after the flag is set: see `gate`.
        if self.ports.is_quiet() && !self.stop.load(Ordering::Relaxed) {
            self.sources.wait(Some(until.since(now).min(MAX_SLEEP)));
            Counters::add(&self.counters.sleeps, 1);
        }
        self.doorbell.open();
        self.ports.streams.ask_soon();
        let woken = clock();
        Counters::add(&self.counters.idle_ns, woken.since(now).0);
        woken
    }

    fn observe(&self) {
        self.counters.streams.store(self.ports.streams.len() as u64, Ordering::Relaxed);
        self.counters.buffers_available.store(self.ports.pool.available() as u64, Ordering::Relaxed);
    }
}

/// The monotonic clock of the system.
pub(crate) fn clock() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts at zero when the system boots: neither part is ever negative.
    Time(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_entropy_does_not_repeat() {
        let before = clock();
        let mut entropy = Entropy::new();
        let mut drawn: Vec<u64> = (0..100).map(|_| entropy.next()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 100);
        assert!(clock() >= before && before > Time(0));
    }
}
