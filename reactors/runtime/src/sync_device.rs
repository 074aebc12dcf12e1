//! A device as start-up code sees it: every call waits. It sees what reactors see, the emulated cache included.

use std::sync::Arc;

use base::ids::{DeviceBlock, DeviceId};
use base::{BLOCK, Block};
use ports::{DeviceError, DeviceOp, MAX_DEVICE_BLOCKS, SyncDevice};

use crate::device::{DeviceSet, OpenDevice};
use crate::map_sys::{BlockPointer, Mapping};

/// Bytes at each end of a device in which file systems, partition tables and other arrays leave their signatures.
pub const SIGNATURE_BYTES: usize = 64 << 10;

/// The two ends of a device; for a small device they overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureAreas {
    /// The first [`SIGNATURE_BYTES`], or the whole device.
    pub head: Vec<u8>,
    /// The last [`SIGNATURE_BYTES`], or the whole device.
    pub tail: Vec<u8>,
}

/// One device of a set.
pub struct SyncHandle {
    set: Arc<DeviceSet>,
    id: DeviceId,
    /// Direct I/O wants aligned memory, which the caller's blocks need not be.
    bounce: Mapping,
}

impl SyncHandle {
    /// A handle on a device.
    ///
    /// # Panics
    /// If there is no such device, or no memory for a megabyte of aligned blocks.
    pub fn new(set: &Arc<DeviceSet>, id: DeviceId) -> Self {
        assert!(id.index() < set.len(), "there is no device {id}");
        let bounce = Mapping::anonymous(MAX_DEVICE_BLOCKS * BLOCK, false).expect("a megabyte of memory");
        Self { set: Arc::clone(set), id, bounce }
    }

    /// Reads the places where signatures of other software lie.
    pub fn signature_areas(&mut self) -> Result<SignatureAreas, DeviceError> {
        let blocks = self.blocks().min((SIGNATURE_BYTES / BLOCK) as u64);
        let mut area = vec![[0; BLOCK]; blocks as usize];
        self.read(DeviceBlock(0), &mut area)?;
        let head = area.concat();
        self.read(DeviceBlock(self.blocks() - blocks), &mut area)?;
        Ok(SignatureAreas { head, tail: area.concat() })
    }

    fn device(&self) -> &OpenDevice {
        self.set.device(self.id)
    }

    fn check(&self, start: DeviceBlock, count: u64) {
        let blocks = self.device().blocks();
        assert!(count <= blocks && start.0 <= blocks - count, "{count} blocks at {start:?} reach beyond {blocks}");
    }

    fn bounced(&self, count: usize) -> Vec<BlockPointer> {
        (0..count).map(|at| self.bounce.block(at)).collect()
    }
}

impl SyncDevice for SyncHandle {
    fn blocks(&self) -> u64 {
        self.device().blocks()
    }

    fn read(&mut self, start: DeviceBlock, into: &mut [Block]) -> Result<(), DeviceError> {
        self.check(start, into.len() as u64);
        let mut at = start.0;
        for part in into.chunks_mut(MAX_DEVICE_BLOCKS) {
            let bounced = self.bounced(part.len());
            self.device().perform(DeviceOp::Read, at, &bounced)?;
            for (block, source) in part.iter_mut().zip(bounced) {
                source.load(block);
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, start: DeviceBlock, from: &[Block]) -> Result<(), DeviceError> {
        self.check(start, from.len() as u64);
        let mut at = start.0;
        for part in from.chunks(MAX_DEVICE_BLOCKS) {
            let bounced = self.bounced(part.len());
            for (block, target) in part.iter().zip(&bounced) {
                target.store(block);
            }
            self.device().perform(DeviceOp::Write, at, &bounced)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_zeroes(&mut self, start: DeviceBlock, count: u64) -> Result<(), DeviceError> {
        self.check(start, count);
        let end = start.0 + count;
        let mut at = start.0;
        while at < end {
            let part = u32::try_from(end - at).unwrap_or(u32::MAX);
            self.device().perform(DeviceOp::WriteZeroes(part), at, &[])?;
            at += u64::from(part);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        self.device().perform(DeviceOp::Flush, 0, &[])
    }
}
