//! A reactor's device queues: each request goes to memory at once, to the ring, or to the helper threads, and its end
//! comes out of one place. The bounds of every queue are kept here.

use std::sync::Arc;

use base::ring::Ring;
use ports::{Completion, DeviceError, DeviceOp, DeviceRequest, MAX_DEVICE_BLOCKS, QueueFull};

use crate::device::{Medium, OpenDevice};
use crate::device_set::DeviceSet;
use crate::pool::Pool;
use crate::threads::HelperQueue;
use crate::uring::Uring;

/// Most requests of one reactor at one device.
pub const DEVICE_DEPTH: u32 = 256;

/// A reactor's device queues.
pub(crate) struct DeviceQueues {
    set: Arc<DeviceSet>,
    /// By place, as of the last look at the set.
    devices: Box<[Option<Arc<OpenDevice>>]>,
    /// The set's number then.
    seen: u64,
    /// A device has left its place, and something is under way at it.
    is_owed: bool,
    pool: Arc<Pool>,
    uring: Option<Uring>,
    helpers: HelperQueue,
    in_flight: Box<[u32]>,
    /// What has ended already: memory, and the emulated cache.
    done: Ring<(u16, Completion)>,
}

impl DeviceQueues {
    /// Queues to all devices of the set. Without a ring, files are left to the helpers.
    pub(crate) fn new(set: Arc<DeviceSet>, pool: Arc<Pool>, uring: Option<Uring>, helpers: HelperQueue) -> Self {
        let count = set.len();
        let done = Ring::new(count * DEVICE_DEPTH as usize);
        let seen = set.changes();
        let devices = set.ids().map(|id| set.get(id)).collect();
        let in_flight = vec![0; count].into_boxed_slice();
        Self { set, devices, seen, is_owed: false, pool, uring, helpers, in_flight, done }
    }

    /// The start of a turn: takes devices that have appeared, and lets go of those that have left.
    pub(crate) fn look(&mut self) {
        if self.set.changes() != self.seen {
            self.take_changes();
        }
    }

    #[cold]
    fn take_changes(&mut self) {
        (self.seen, self.is_owed) = (self.set.changes(), false);
        for id in self.set.ids() {
            let (known, there) = (&mut self.devices[id.index()], self.set.get(id));
            match (&*known, &there) {
                (None, None) => continue,
                (Some(known), Some(there)) if Arc::ptr_eq(known, there) => continue,
                (Some(_), _) if self.in_flight[id.index()] > 0 => {
                    self.is_owed = true;
                    continue;
                }
                _ => {}
            }
            if let Some(uring) = &mut self.uring {
                uring.change(id, there.clone());
            }
            *known = there;
        }
    }

    /// The ring, if there is one.
    pub(crate) fn uring(&self) -> Option<&Uring> {
        self.uring.as_ref()
    }

    /// Gives a request to its device.
    pub(crate) fn submit(&mut self, request: &DeviceRequest<'_>) -> Result<(), QueueFull> {
        let place = request.device.index();
        if self.devices[place].is_none() {
            // It has appeared since this turn began.
            self.take_changes();
        }
        if self.in_flight[place] == DEVICE_DEPTH {
            return Err(QueueFull);
        }
        let Some(device) = &self.devices[place] else {
            // It was taken away while somebody still thought that it is used.
            self.end(request, Err(DeviceError::Gone));
            return Ok(());
        };
        check(request, device.blocks());
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
                self.end(request, result);
                return Ok(());
            }
            (None, Some(uring)) if device.cache().is_none() && uring.has(request.device) => uring.submit(request)?,
            (None, _) => self.helpers.submit(request)?,
        }
        self.in_flight[place] += 1;
        Ok(())
    }

    /// A request has ended at once.
    fn end(&mut self, request: &DeviceRequest<'_>, result: Result<(), DeviceError>) {
        let kept = self.done.push((request.device.0, Completion { tag: request.tag, result }));
        assert!(kept.is_ok(), "the list of ended requests has a place for all in flight");
        self.in_flight[request.device.index()] += 1;
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
        if self.is_owed && self.in_flight[device] == 0 {
            self.take_changes();
        }
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
