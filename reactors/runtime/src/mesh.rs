//! Messages between reactors: a bounded lock-free queue for each ordered pair, the control side being one more end. It
//! never blocks a reactor and never looks into a message.
//!
//! A reactor that sleeps is woken by its doorbell; who posts rings only if the other sleeps, and once for all that it
//! posted in a turn.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::ids::ShardId;
use base::time::Span;
use crossbeam::queue::ArrayQueue;

use crate::event_sys::{EventFd, wait_readable};
use crate::gate::Gate;

/// Most bytes of a message: one cache line.
pub const MAX_MESSAGE: usize = 64;

/// Most shards: a queue for each pair stays affordable.
pub const MAX_SHARDS: u16 = 256;

/// What wakes one sleeping thread.
#[derive(Debug)]
pub(crate) struct Doorbell {
    gate: Gate,
    event: EventFd,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { gate: Gate::new(), event: EventFd::new()? })
    }

    /// Wakes the sleeper if it sleeps. Comes after the queue has been filled.
    pub(crate) fn ring(&self) {
        Gate::filled();
        self.ring_fenced();
    }

    fn ring_fenced(&self) {
        if self.gate.must_signal() {
            self.event.raise();
        }
    }

    /// The sleeper announces that it will sleep; it looks at its queues once more after this.
    pub(crate) fn close(&self) {
        self.gate.close();
    }

    /// The sleeper is awake again.
    pub(crate) fn open(&self) {
        self.gate.open();
        self.event.clear();
    }

    /// To sleep on.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }
}

/// All queues and doorbells.
pub(crate) struct Mesh<M> {
    /// From `from` to `to` at `from * ends + to`.
    queues: Box<[ArrayQueue<M>]>,
    doorbells: Box<[Arc<Doorbell>]>,
    shards: u16,
}

impl<M> Mesh<M> {
    /// A mesh of `shards` reactors and the control side, each queue with places for `capacity` messages.
    pub(crate) fn new(shards: u16, capacity: usize) -> io::Result<Arc<Self>> {
        const { assert!(size_of::<M>() <= MAX_MESSAGE, "a message fits a cache line") };
        assert!(shards > 0 && shards <= MAX_SHARDS && capacity > 0, "a mesh has shards and room");
        let ends = usize::from(shards) + 1;
        let doorbells = (0..ends).map(|_| Doorbell::new().map(Arc::new)).collect::<io::Result<_>>()?;
        let queues = (0..ends * ends)
            .map(|pair| ArrayQueue::new(if pair / ends == pair % ends { 1 } else { capacity }))
            .collect();
        Ok(Arc::new(Self { queues, doorbells, shards }))
    }

    /// The doorbell of a reactor.
    pub(crate) fn doorbell(&self, shard: ShardId) -> &Arc<Doorbell> {
        &self.doorbells[shard.index()]
    }

    fn ends(&self) -> usize {
        usize::from(self.shards) + 1
    }

    fn queue(&self, from: usize, to: usize) -> &ArrayQueue<M> {
        &self.queues[from * self.ends() + to]
    }

    fn take(&self, at: usize, first: &mut usize) -> Option<(ShardId, M)> {
        let ends = self.ends();
        for step in 0..ends {
            let from = (*first + step) % ends;
            let queue = self.queue(from, at);
            // Looking is cheaper than an empty pop, which fences.
            if from != at && !queue.is_empty() {
                let Some(message) = queue.pop() else { continue };
                *first = (from + 1) % ends;
                return Some((ShardId(from as u16), message));
            }
        }
        None
    }

    fn is_quiet(&self, at: usize) -> bool {
        (0..self.ends()).all(|from| from == at || self.queue(from, at).is_empty())
    }
}

/// A reactor's end.
pub(crate) struct MeshEnd<M> {
    mesh: Arc<Mesh<M>>,
    shard: ShardId,
    first: usize,
    to_ring: Vec<bool>,
    any_to_ring: bool,
}

impl<M> MeshEnd<M> {
    pub(crate) fn new(mesh: Arc<Mesh<M>>, shard: ShardId) -> Self {
        let ends = mesh.ends();
        Self { mesh, shard, first: 0, to_ring: vec![false; ends], any_to_ring: false }
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(crate) fn shards(&self) -> u16 {
        self.mesh.shards
    }

    pub(crate) fn post(&mut self, to: ShardId, message: M) -> Result<(), M> {
        assert!(to != self.shard && to.index() < self.mesh.ends(), "{to:?} is another end of the mesh");
        self.mesh.queue(self.shard.index(), to.index()).push(message)?;
        self.to_ring[to.index()] = true;
        self.any_to_ring = true;
        Ok(())
    }

    pub(crate) fn message(&mut self) -> Option<(ShardId, M)> {
        self.mesh.take(self.shard.index(), &mut self.first)
    }

    /// The end of a turn: wakes whom something was posted to.
    pub(crate) fn ring(&mut self) {
        if !std::mem::take(&mut self.any_to_ring) {
            return;
        }
        Gate::filled();
        for (to, ring) in self.to_ring.iter_mut().enumerate() {
            if std::mem::take(ring) {
                self.mesh.doorbells[to].ring_fenced();
            }
        }
    }

    /// Whether no message waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.mesh.is_quiet(self.shard.index())
    }
}

/// Posts as the control side, from any thread.
pub struct Poster<M> {
    mesh: Arc<Mesh<M>>,
}

impl<M> Clone for Poster<M> {
    fn clone(&self) -> Self {
        Self { mesh: Arc::clone(&self.mesh) }
    }
}

impl<M> Poster<M> {
    /// Sends a message to a shard, or gives it back if the queue is full.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn post(&self, to: ShardId, message: M) -> Result<(), M> {
        assert!(to.0 < self.mesh.shards, "there is no shard {to}");
        self.mesh.queue(usize::from(self.mesh.shards), to.index()).push(message)?;
        self.mesh.doorbells[to.index()].ring();
        Ok(())
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.mesh.shards
    }
}

/// The control side's end: one thread receives.
pub struct Control<M> {
    poster: Poster<M>,
    first: usize,
}

impl<M> Control<M> {
    pub(crate) fn new(mesh: Arc<Mesh<M>>) -> Self {
        Self { poster: Poster { mesh }, first: 0 }
    }

    /// Posts from other threads.
    pub fn poster(&self) -> Poster<M> {
        self.poster.clone()
    }

    /// Sends a message to a shard, or gives it back if the queue is full.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn post(&self, to: ShardId, message: M) -> Result<(), M> {
        self.poster.post(to, message)
    }

    /// Takes one message, with its sender, if there is one.
    pub fn try_receive(&mut self) -> Option<(ShardId, M)> {
        let mesh = &self.poster.mesh;
        mesh.take(usize::from(mesh.shards), &mut self.first)
    }

    /// Takes one message, with its sender, waiting at most this long.
    pub fn receive(&mut self, at_most: Duration) -> Option<(ShardId, M)> {
        let until = Instant::now() + at_most;
        loop {
            if let Some(found) = self.try_receive() {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let mesh = &self.poster.mesh;
            let me = usize::from(mesh.shards);
            let doorbell = &mesh.doorbells[me];
            doorbell.close();
            if mesh.is_quiet(me) {
                let left = Span(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
                wait_readable(&[doorbell.event().fd()], Some(left));
            }
            doorbell.open();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_message_back_and_pairs_do_not_mix() {
        let mesh = Mesh::<u64>::new(2, 2).expect("descriptors");
        let mut zero = MeshEnd::new(Arc::clone(&mesh), ShardId(0));
        let mut one = MeshEnd::new(Arc::clone(&mesh), ShardId(1));
        let mut control = Control::new(Arc::clone(&mesh));
        assert_eq!(zero.post(ShardId(1), 10), Ok(()));
        assert_eq!(zero.post(ShardId(1), 11), Ok(()));
        assert_eq!(zero.post(ShardId(1), 12), Err(12));
        assert_eq!(control.post(ShardId(1), 20), Ok(()));
        assert_eq!(zero.post(ShardId(2), 30), Ok(()));
        zero.ring();
        assert!(zero.is_quiet() && !one.is_quiet());
        let mut found = Vec::new();
        while let Some((from, message)) = one.message() {
            found.push((from.0, message));
        }
        assert_eq!(found, [(0, 10), (2, 20), (0, 11)]);
        assert_eq!(control.try_receive(), Some((ShardId(0), 30)));
        assert_eq!(control.try_receive(), None);
        assert_eq!(control.receive(Duration::from_millis(1)), None);
    }

    #[test]
    fn a_sleeping_control_side_is_woken() {
        let mesh = Mesh::<u64>::new(1, 4).expect("descriptors");
        let mut control = Control::new(Arc::clone(&mesh));
        let thread = std::thread::spawn(move || {
            let mut end = MeshEnd::new(mesh, ShardId(0));
            for message in 0..10_000u64 {
                while end.post(ShardId(1), message).is_err() {
                    end.ring();
                    std::thread::yield_now();
                }
                end.ring();
            }
        });
        for message in 0..10_000 {
            assert_eq!(control.receive(Duration::from_secs(60)), Some((ShardId(0), message)));
        }
        thread.join().expect("no panic");
    }
}
