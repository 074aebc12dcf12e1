//! Requests on a ring: a slot for each, continued when it comes back short, retried when the kernel asks for it, zeroed in
//! the best way that the device knows. It never waits.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::BLOCK;
use base::ids::DeviceId;
use base::slab::{Key, Slab};
use ports::{Completion, DeviceError, DeviceOp, DeviceRequest, QueueFull};

use crate::blocking_sys::ZeroMode;
use crate::device::{Medium, OpenDevice};
use crate::device_error::device_error;
use crate::device_set::DeviceSet;
use crate::pool::Pool;
use crate::uring_sys::{Ring, Work, ZERO_BYTES};

/// Most requests of one reactor in the kernel at once.
pub(crate) const RING_SLOTS: usize = 1024;

/// Most times that one request is tried again after `EAGAIN` or `EINTR`.
const MAX_RETRIES: u32 = 64;

struct Slot {
    tag: u64,
    device: DeviceId,
    op: DeviceOp,
    /// First byte.
    offset: u64,
    /// Bytes in all.
    total: u64,
    done: u64,
    vectors: Range<usize>,
    /// How zeroing was last tried.
    zero: ZeroMode,
    retries: u32,
}

/// A reactor's requests on its ring.
pub(crate) struct Uring {
    ring: Ring,
    slots: Slab<Slot>,
    /// Requests to go on with, that found no place in the ring.
    backlog: base::ring::Ring<Key<Slot>>,
    /// By place, those that the kernel knows.
    devices: Box<[Option<Arc<OpenDevice>>]>,
}

impl Uring {
    /// A ring, and a note for the operator if not all is as wished.
    pub(crate) fn new(pool: &Arc<Pool>, devices: &Arc<DeviceSet>) -> std::io::Result<(Self, Option<String>)> {
        let (ring, note) = Ring::new(pool, devices, RING_SLOTS)?;
        let (slots, backlog) = (Slab::new(RING_SLOTS), base::ring::Ring::new(RING_SLOTS));
        let devices = devices.ids().map(|id| devices.get(id)).collect();
        Ok((Self { ring, slots, backlog, devices }, note))
    }

    /// Whether it takes requests to the device of a place.
    pub(crate) fn has(&self, device: DeviceId) -> bool {
        self.devices[device.index()].is_some()
    }

    /// Another device, or none, is at a place where nothing is under way. One that the kernel refuses is not taken.
    pub(crate) fn change(&mut self, id: DeviceId, device: Option<Arc<OpenDevice>>) {
        self.devices[id.index()] = match self.ring.change_file(id.0.into(), device.as_deref()) {
            Ok(()) => device,
            Err(_) => None,
        };
    }

    /// What the kernel reports completions on.
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Queues a request.
    pub(crate) fn submit(&mut self, request: &DeviceRequest<'_>) -> Result<(), QueueFull> {
        let blocks = match request.op {
            DeviceOp::WriteZeroes(count) => u64::from(count),
            _ => request.buffers.len() as u64,
        };
        let slot = Slot {
            tag: request.tag,
            device: request.device,
            op: request.op,
            offset: request.start.0 * BLOCK as u64,
            total: blocks * BLOCK as u64,
            done: 0,
            vectors: 0..0,
            zero: ZeroMode::Unmap,
            retries: 0,
        };
        let key = self.slots.insert(slot).map_err(|_| QueueFull)?;
        self.slots[key].vectors = 0..self.ring.load(key.index(), request.buffers);
        if self.push(key) {
            return Ok(());
        }
        self.slots.remove(key);
        Err(QueueFull)
    }

    /// The end of a turn: hands all to the kernel.
    pub(crate) fn kick(&mut self) {
        // Each round of the loop takes one of the backlog; what finds no place goes back and ends it.
        while let Some(&key) = self.backlog.front() {
            if !self.push(key) {
                break;
            }
            self.backlog.pop();
        }
        self.ring.submit();
    }

    /// Takes one request that has ended.
    pub(crate) fn ended(&mut self) -> Option<(DeviceId, Completion)> {
        self.ring.poke();
        // Bounded by the completions there are: a request that goes on gives none.
        while let Some((number, result)) = self.ring.reap() {
            let key = Key::from_bits(number);
            if let Some(result) = self.step(key, result) {
                let slot = self.slots.remove(key).expect("a slot lives until its request has ended");
                return Some((slot.device, Completion { tag: slot.tag, result }));
            }
        }
        None
    }

    /// Whether there is nothing to do without a system call.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.backlog.is_empty() && self.ring.is_quiet()
    }

    fn push(&mut self, key: Key<Slot>) -> bool {
        if matches!(self.slots[key].op, DeviceOp::WriteZeroes(_)) {
            self.slots[key].zero = self.zero_mode(self.slots[key].device);
        }
        let slot = &self.slots[key];
        let (offset, left) = (slot.offset + slot.done, slot.total - slot.done);
        let transfer = |write, durable| Work::Transfer { write, durable, vectors: slot.vectors.clone(), offset };
        let work = match slot.op {
            DeviceOp::Read => transfer(false, false),
            DeviceOp::Write => transfer(true, false),
            DeviceOp::WriteDurable => transfer(true, true),
            DeviceOp::Flush => Work::Sync,
            DeviceOp::WriteZeroes(_) => match slot.zero {
                ZeroMode::Write => Work::WriteZeros { offset, length: left.min(ZERO_BYTES as u64) as usize },
                mode => Work::Zero { mode, offset, length: left },
            },
        };
        self.ring.push(key.index(), u32::from(slot.device.0), &work, key.to_bits())
    }

    fn device(&self, id: DeviceId) -> &OpenDevice {
        self.devices[id.index()].as_ref().expect("requests come for devices that the kernel knows")
    }

    fn zero_mode(&self, device: DeviceId) -> ZeroMode {
        match self.device(device).medium() {
            Medium::File(_, mode) => ZeroMode::from_number(mode.load(Ordering::Relaxed)),
            Medium::Ram(_) => unreachable!("memory is zeroed at submission"),
        }
    }

    /// Takes the kernel's answer; says how the request ended, if it did.
    fn step(&mut self, key: Key<Slot>, result: i32) -> Option<Result<(), DeviceError>> {
        let slot = &mut self.slots[key];
        let reading = slot.op == DeviceOp::Read;
        let zeroing = matches!(slot.op, DeviceOp::WriteZeroes(_));
        match u32::try_from(result) {
            Err(_) if matches!(-result, libc::EAGAIN | libc::EINTR) && slot.retries < MAX_RETRIES => slot.retries += 1,
            Err(_) if zeroing && slot.zero != ZeroMode::Write && ZeroMode::is_refusal(-result) => {
                let device = self.devices[slot.device.index()].as_ref();
                let Some(Medium::File(_, mode)) = device.map(|device| device.medium()) else {
                    unreachable!("memory has nothing in the kernel")
                };
                // Another request may have learned the same meanwhile: a mode is left behind only once.
                let (refused, next) = (slot.zero as u8, slot.zero.next() as u8);
                let _ = mode.compare_exchange(refused, next, Ordering::Relaxed, Ordering::Relaxed);
            }
            Err(_) => return Some(Err(device_error(-result, reading))),
            Ok(0) if slot.op == DeviceOp::Flush || zeroing => return Some(Ok(())),
            // The file ends before the device does: somebody cut it.
            Ok(0) if reading => return Some(Err(DeviceError::Unreadable)),
            Ok(0) => return Some(Err(DeviceError::Other(libc::EIO))),
            Ok(bytes) => {
                slot.done += u64::from(bytes);
                assert!(slot.done <= slot.total, "the kernel does no more than it is asked for");
                if slot.done == slot.total {
                    return Some(Ok(()));
                }
                if !zeroing {
                    let vectors = slot.vectors.clone();
                    slot.vectors = self.ring.advance(key.index(), vectors, bytes as usize);
                }
            }
        }
        if !self.push(key) {
            let kept = self.backlog.push(key);
            assert!(kept.is_ok(), "the backlog has a place for every slot");
        }
        None
    }
}
