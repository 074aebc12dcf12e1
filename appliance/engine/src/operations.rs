//! Device operations under way: what each was for, and those that found the device's queue full and wait to be given to it.
//! A place keeps its list of buffers for the next operation, so that nothing is allocated.

use std::collections::VecDeque;

use base::ids::{DeviceBlock, DeviceId};
use journal::MAX_RECORD_BLOCKS;
use ports::{BufferId, Completion, DeviceError, DeviceOp, DeviceRequest, Devices, MAX_DEVICE_BLOCKS};

#[derive(Debug)]
struct Operation<T> {
    device: DeviceId,
    op: DeviceOp,
    start: DeviceBlock,
    buffers: Vec<BufferId>,
    /// What to tell when it has ended; none while the place is free.
    purpose: Option<T>,
}

/// The table of one shard.
#[derive(Debug)]
pub(crate) struct Operations<T> {
    places: Vec<Operation<T>>,
    free: Vec<u32>,
    waiting: VecDeque<u32>,
}

impl<T> Operations<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let count = u32::try_from(capacity).expect("a table has fewer than 2^32 places");
        Self {
            places: (0..capacity)
                .map(|_| Operation {
                    device: DeviceId(0),
                    op: DeviceOp::Flush,
                    start: DeviceBlock(0),
                    buffers: Vec::with_capacity(MAX_RECORD_BLOCKS),
                    purpose: None,
                })
                .collect(),
            free: (0..count).rev().collect(),
            waiting: VecDeque::with_capacity(capacity),
        }
    }

    /// Operations that may be started now.
    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Starts an operation. The caller has seen that one is available.
    pub(crate) fn start(
        &mut self,
        devices: &mut impl Devices,
        (device, start): (DeviceId, DeviceBlock),
        op: DeviceOp,
        buffers: impl IntoIterator<Item = BufferId>,
        purpose: T,
    ) {
        let index = self.free.pop().expect("the caller has seen that an operation is available");
        let place = &mut self.places[index as usize];
        place.device = device;
        place.op = op;
        place.start = start;
        place.buffers.clear();
        place.buffers.extend(buffers);
        place.purpose = Some(purpose);
        assert!(place.buffers.len() <= MAX_DEVICE_BLOCKS, "an operation has at most {MAX_DEVICE_BLOCKS} blocks");
        if !self.waiting.is_empty() || !self.submit(devices, index) {
            self.waiting.push_back(index);
        }
    }

    fn submit(&self, devices: &mut impl Devices, index: u32) -> bool {
        let place = &self.places[index as usize];
        devices
            .submit(DeviceRequest {
                tag: u64::from(index),
                device: place.device,
                op: place.op,
                start: place.start,
                buffers: &place.buffers,
            })
            .is_ok()
    }

    /// Offers what waits to its devices again.
    pub(crate) fn retry(&mut self, devices: &mut impl Devices) {
        while let Some(&index) = self.waiting.front() {
            if !self.submit(devices, index) {
                break;
            }
            self.waiting.pop_front();
        }
    }

    /// Takes a completion apart into what the operation was for and how it ended.
    pub(crate) fn complete(&mut self, completion: Completion) -> (T, DeviceId, DeviceOp, u64, Result<(), DeviceError>) {
        let index = completion.tag as u32;
        let place = &mut self.places[index as usize];
        let purpose = place.purpose.take().expect("a completion answers an operation under way");
        self.free.push(index);
        let blocks = match place.op {
            DeviceOp::WriteZeroes(count) => u64::from(count),
            DeviceOp::Read | DeviceOp::Write | DeviceOp::WriteDurable | DeviceOp::Flush => place.buffers.len() as u64,
        };
        (purpose, place.device, place.op, blocks, completion.result)
    }
}
