//! A reactor's device queues: each request goes to memory at once, to the ring, or to the helper threads, and its end
//! comes out of one place. The bounds of every queue are kept here.

use std::sync::Arc;

use base::ring::Ring;
use ports::{Completion, DeviceOp, DeviceRequest, MAX_DEVICE_BLOCKS, QueueFull};

use crate::device::{DeviceSet, Medium};
use crate::pool::Pool;
use crate::threads::HelperQueue;
use crate::uring::Uring;

/// Most requests of one reactor at one device.
pub const DEVICE_DEPTH: u32 = 256;

/// A reactor's device queues.
pub(crate) struct DeviceQueues {
    devices: Arc<DeviceSet>,
    pool: Arc<Pool>,
    uring: Option<Uring>,
    helpers: HelperQueue,
    in_flight: Box<[u32]>,
    /// What has ended already: memory, and the emulated cache.
    done: Ring<(u16, Completion)>,
}

impl DeviceQueues {
    /// Queues to all devices of the set. Without a ring, files are left to the helpers.
    pub(crate) fn new(devices: Arc<DeviceSet>, pool: Arc<Pool>, uring: Option<Uring>, helpers: HelperQueue) -> Self {
        let count = devices.len();
        let done = Ring::new(count * DEVICE_DEPTH as usize);
        Self { devices, pool, uring, helpers, in_flight: vec![0; count].into_boxed_slice(), done }
    }

    /// The ring, if there is one.
    pub(crate) fn uring(&self) -> Option<&Uring> {
        self.uring.as_ref()
    }

    /// Gives a request to its device.
    pub(crate) fn submit(&mut self, request: &DeviceRequest<'_>) -> Result<(), QueueFull> {
        let place = request.device.index();
        let device = self.devices.device(request.device);
        check(request, device.blocks());
        if self.in_flight[place] == DEVICE_DEPTH {
            return Err(QueueFull);
        }
        let (start, pool) = (request.start.0, &self.pool);
        let blocks = request.buffers.iter().map(|&buffer| pool.pointer(buffer));
        let at_once = match (device.cache(), device.medium(), request.op) {
            (Some(cache), _, DeviceOp::Write) => cache.write_now(start, blocks).then_some(Ok(())),
            (Some(_), _, _) => None,
            (None, Medium::Ram(ram), DeviceOp::Read) => Some(ram.read(start, blocks)),
            (None, Medium::Ram(ram), DeviceOp::Write | DeviceOp::WriteDurable) => Some(ram.write(start, blocks)),
            (None, Medium::Ram(ram), DeviceOp::WriteZeroes(count)) => Some(ram.zero(start, count.into())),
            (None, Medium::Ram(_), DeviceOp::Flush) => Some(Ok(())),
            (None, Medium::File(..), _) => None,
        };
        match (at_once, &mut self.uring) {
            (Some(result), _) => {
                let kept = self.done.push((request.device.0, Completion { tag: request.tag, result }));
                assert!(kept.is_ok(), "the list of ended requests has a place for all in flight");
            }
            (None, Some(uring)) if device.cache().is_none() => uring.submit(request)?,
            (None, _) => self.helpers.submit(request)?,
        }
        self.in_flight[place] += 1;
        Ok(())
    }

    /// Takes one completion.
    pub(crate) fn completion(&mut self) -> Option<Completion> {
        let (device, completion) = if let Some((device, completion)) = self.done.pop() {
            (usize::from(device), completion)
        } else if let Some((device, completion)) = self.uring.as_mut().and_then(Uring::ended) {
            (device.index(), completion)
        } else {
            let (device, completion) = self.helpers.ended()?;
            (device.index(), completion)
        };
        assert!(self.in_flight[device] > 0, "only what is in flight can end");
        self.in_flight[device] -= 1;
        Some(completion)
    }

    /// The end of a turn.
    pub(crate) fn kick(&mut self) {
        if let Some(uring) = &mut self.uring {
            uring.kick();
        }
    }

    /// Whether no completion waits.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.done.is_empty() && self.helpers.is_quiet() && self.uring.as_mut().is_none_or(Uring::is_quiet)
    }
}

/// A request that breaks the rules of the seam is our own mistake.
fn check(request: &DeviceRequest<'_>, device_blocks: u64) {
    let blocks = match request.op {
        DeviceOp::Flush => return assert!(request.buffers.is_empty(), "a flush has no buffers"),
        DeviceOp::WriteZeroes(count) => {
            assert!(request.buffers.is_empty(), "zeroing has no buffers");
            u64::from(count)
        }
        _ => request.buffers.len() as u64,
    };
    assert!(blocks > 0, "a request has blocks");
    assert!(request.buffers.len() <= MAX_DEVICE_BLOCKS, "a request has at most {MAX_DEVICE_BLOCKS} buffers");
    let fits = blocks <= device_blocks && request.start.0 <= device_blocks - blocks;
    assert!(fits, "{request:?} reaches beyond the {device_blocks} blocks of its device");
}
