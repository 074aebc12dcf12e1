//! The page of traits that a shard sees, over simulated hardware. One value serves all shards of the appliance: it acts for
//! the one that was said to turn.
//!
//! There are no byte streams yet: none ever opens, so that every operation on one finds it unknown. The simulated network
//! joins when connections are simulated.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use base::Block;
use base::ids::{DeviceBlock, DeviceId, ShardId};
use base::time::Time;
use ports::buffers::HEADROOM;
use ports::{
    Buffer, BufferId, Buffers, Completion, DeviceOp, DeviceRequest, Devices, Mesh, Piece, Ports, QueueFull, Segment,
    StreamError, StreamEvent, StreamId, Streams,
};

use crate::device::bytes_of;
use crate::mesh::SimMesh;
use crate::pool::SimPool;
use crate::rack::Rack;
use crate::random::Random;

/// What all shards of a simulated appliance share between power-on and power-off.
#[derive(Debug)]
pub struct SimPorts<M> {
    rack: Rc<RefCell<Rack>>,
    /// The buffers.
    pub pool: SimPool,
    mesh: SimMesh<M>,
    ready: Vec<VecDeque<Completion>>,
    turning: ShardId,
    shards: u16,
    random: Random,
}

/// The sizes of a simulated appliance.
#[derive(Clone, Copy, Debug)]
pub struct PortsOptions {
    /// How many shards turn.
    pub shards: u16,
    /// Blocks of the buffer pool.
    pub pool_blocks: usize,
    /// Messages between each two shards.
    pub mesh_capacity: usize,
}

impl<M> SimPorts<M> {
    /// Memory and mesh of an appliance that has just been switched on, in front of its devices.
    pub fn new(rack: Rc<RefCell<Rack>>, options: PortsOptions, random: Random) -> Self {
        Self {
            rack,
            pool: SimPool::new(options.pool_blocks),
            mesh: SimMesh::new(options.shards, options.mesh_capacity),
            ready: (0..options.shards).map(|_| VecDeque::new()).collect(),
            turning: ShardId(0),
            shards: options.shards,
            random,
        }
    }

    /// From here on these are the ports of this shard.
    pub fn turn_to(&mut self, shard: ShardId) {
        self.turning = shard;
    }

    /// What a device holds, seen past everything.
    pub fn peek(&self, device: DeviceId, block: DeviceBlock) -> Block {
        *self.rack.borrow().peek(device, block)
    }

    /// Takes a message to the control side that has arrived.
    pub fn control_message(&mut self) -> Option<(ShardId, M)> {
        let now = self.now();
        self.mesh.take(ShardId(self.shards), now, &mut self.random)
    }

    /// Sends a message from the control side to a shard, or gives it back.
    pub fn control_post(&mut self, to: ShardId, message: M) -> Result<(), M> {
        let now = self.now();
        self.mesh.post(ShardId(self.shards), to, message, now, &mut self.random)
    }

    /// When the next completion or message is due, if any is.
    pub fn next_due(&self) -> Option<Time> {
        let (device, message) = (self.rack.borrow().clock.next_due(), self.mesh.next_due());
        device.into_iter().chain(message).min()
    }

    /// Moves time on and ends what is due at devices.
    pub fn advance(&mut self, to: Time) {
        let mut rack = self.rack.borrow_mut();
        rack.clock.advance(to);
        while let Some(finished) = rack.finish_due() {
            match finished.op {
                DeviceOp::Read => {
                    for (index, &buffer) in finished.buffers.iter().enumerate() {
                        self.pool.end_fill(buffer, finished.read.get(index).map(bytes_of));
                    }
                }
                _ => finished.buffers.iter().for_each(|&buffer| self.pool.end_write_out(buffer)),
            }
            self.ready[finished.shard.index()].push_back(Completion { tag: finished.tag, result: finished.result });
        }
    }
}

impl<M> Ports for SimPorts<M> {
    fn now(&self) -> Time {
        self.rack.borrow().clock.now()
    }

    fn entropy(&mut self) -> u64 {
        self.random.bits()
    }
}

impl<M> Devices for SimPorts<M> {
    fn submit(&mut self, request: DeviceRequest<'_>) -> Result<(), QueueFull> {
        let mut rack = self.rack.borrow_mut();
        if !rack.powered() {
            // The rest of the turn in which the power failed never happened.
            return Ok(());
        }
        rack.submit(self.turning, &request, |buffer| self.pool.bytes(buffer))?;
        for &buffer in request.buffers {
            match request.op {
                DeviceOp::Read => self.pool.begin_fill(buffer),
                _ => self.pool.begin_write_out(buffer),
            }
        }
        Ok(())
    }

    fn completion(&mut self) -> Option<Completion> {
        self.ready[self.turning.index()].pop_front()
    }
}

impl<M> Mesh for SimPorts<M> {
    type Message = M;

    fn shard(&self) -> ShardId {
        self.turning
    }

    fn shards(&self) -> u16 {
        self.shards
    }

    fn post(&mut self, to: ShardId, message: M) -> Result<(), M> {
        let now = self.now();
        self.rack.borrow_mut().trace.note("message", &[u64::from(self.turning.0), u64::from(to.0)]);
        self.mesh.post(self.turning, to, message, now, &mut self.random)
    }

    fn message(&mut self) -> Option<(ShardId, M)> {
        let now = self.now();
        self.mesh.take(self.turning, now, &mut self.random)
    }
}

impl<M> Streams for SimPorts<M> {
    fn stream_event(&mut self) -> Option<StreamEvent> {
        None
    }

    fn receive(&mut self, _: StreamId, _: &[Segment], _: &mut [u8]) -> Result<usize, StreamError> {
        Err(StreamError::Unknown)
    }

    fn send(&mut self, _: StreamId, _: &[Piece<'_>]) -> Result<usize, StreamError> {
        Err(StreamError::Unknown)
    }

    fn want_readable(&mut self, _: StreamId, _: bool) {}

    fn close(&mut self, _: StreamId, _: bool) {}
}

impl<M> Buffers for SimPorts<M> {
    fn alloc(&mut self) -> Option<Buffer> {
        self.pool.alloc()
    }

    fn free(&mut self, buffer: Buffer) {
        // After a power cut the rest of the turn means nothing, and the devices have forgotten what they worked on.
        if self.rack.borrow().powered() {
            self.pool.free(buffer);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rack::DeviceOptions;
    use crate::trace::Trace;
    use base::BLOCK;
    use base::ids::{DeviceBlock, DeviceId};

    fn ports() -> SimPorts<u32> {
        let options = DeviceOptions {
            blocks: 8,
            volatile_cache: true,
            queue_depth: 8,
            slow_once_in: 40,
            used: false,
            hiccup_once_in: 0,
            rots_once_in: 0,
            whole_blocks: false,
            holds_log: false,
        };
        let rack = Rc::new(RefCell::new(Rack::new(1, &[options], Trace::default())));
        let options = PortsOptions { shards: 2, pool_blocks: 8, mesh_capacity: 4 };
        SimPorts::new(rack, options, Random::named(1, "ports"))
    }

    fn request(tag: u64, op: DeviceOp, buffers: &[BufferId]) -> DeviceRequest<'_> {
        DeviceRequest { tag, device: DeviceId(0), op, start: DeviceBlock(2), buffers }
    }

    fn settle(ports: &mut SimPorts<u32>) {
        while let Some(due) = ports.next_due() {
            ports.advance(due);
            ports.turn_to(ShardId(1));
            while ports.message().is_some() {}
        }
    }

    #[test]
    fn what_one_shard_writes_another_reads_and_each_gets_its_own_completion() {
        let mut ports = ports();
        let (written, read) = (ports.alloc().expect("free"), ports.alloc().expect("free"));
        ports.bytes_mut(written.id()).fill(9);
        ports.turn_to(ShardId(0));
        ports.submit(request(1, DeviceOp::Write, &[written.id()])).expect("room");
        settle(&mut ports);
        assert_eq!(ports.completion(), None, "the other shard's");
        ports.submit(request(2, DeviceOp::Read, &[read.id()])).expect("room");
        settle(&mut ports);
        assert_eq!(ports.completion(), Some(Completion { tag: 2, result: Ok(()) }));
        ports.turn_to(ShardId(0));
        assert_eq!(ports.completion(), Some(Completion { tag: 1, result: Ok(()) }));
        assert_eq!(ports.bytes(read.id()), &[9; BLOCK]);
        ports.free(written);
        ports.free(read);
        assert_eq!(ports.pool.outstanding(), 0);
    }

    #[test]
    #[should_panic(expected = "read while a device fills it")]
    fn looking_into_a_buffer_before_the_read_has_ended_is_found() {
        let mut ports = ports();
        let read = ports.alloc().expect("free");
        ports.submit(request(2, DeviceOp::Read, &[read.id()])).expect("room");
        let _ = ports.bytes(read.id());
    }
}
