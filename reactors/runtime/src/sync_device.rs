//! A device as start-up code sees it: every call waits. It sees what reactors see, the emulated cache included.

use std::sync::Arc;

use base::ids::{DeviceBlock, DeviceId};
use base::{BLOCK, Block};
use ports::{DeviceError, DeviceOp, MAX_DEVICE_BLOCKS, SyncDevice};

use crate::device::OpenDevice;
use crate::device_set::DeviceSet;
use crate::map_sys::{BlockPointer, Mapping};

/// Bytes of a device's front in which file systems, partition tables and other arrays leave their signatures: Btrfs lies at
/// 64 KiB, the second header of LUKS2 up to 128 KiB, and ZFS has its first label up to 256 KiB.
pub const HEAD_BYTES: usize = 256 << 10;

/// The same of its end: MD 0.90 lies up to 128 KiB before it, and ZFS has its last label up to 512 KiB before it.
pub const TAIL_BYTES: usize = 512 << 10;

/// The two ends of a device; for a small device they overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureAreas {
    /// The first [`HEAD_BYTES`], or the whole device.
    pub head: Vec<u8>,
    /// The last [`TAIL_BYTES`], or the whole device.
    pub tail: Vec<u8>,
}

/// One device of a set.
pub struct SyncHandle {
    /// Open for as long as somebody has a handle on it.
    device: Arc<OpenDevice>,
    /// Direct I/O wants aligned memory, which the caller's blocks need not be.
    bounce: Mapping,
}

impl SyncHandle {
    /// A handle on a device.
    ///
    /// # Panics
    /// If no device is open at that place, or there is no memory for a megabyte of aligned blocks.
    pub fn new(set: &Arc<DeviceSet>, id: DeviceId) -> Self {
        Self::of(set.device(id))
    }

    /// A handle on an open device, whether it has a place or not.
    ///
    /// # Panics
    /// If there is no memory for a megabyte of aligned blocks.
    pub fn of(device: Arc<OpenDevice>) -> Self {
        let bounce = Mapping::anonymous(MAX_DEVICE_BLOCKS * BLOCK, false).expect("a megabyte of memory");
        Self { device, bounce }
    }

    /// Reads the places where signatures of other software lie.
    pub fn signature_areas(&mut self) -> Result<SignatureAreas, DeviceError> {
        let mut area = |bytes: usize, at_end: bool| {
            let blocks = self.blocks().min((bytes / BLOCK) as u64);
            let mut area = vec![[0; BLOCK]; blocks as usize];
            let start = if at_end { self.blocks() - blocks } else { 0 };
            self.read(DeviceBlock(start), &mut area).map(|()| area.concat())
        };
        Ok(SignatureAreas { head: area(HEAD_BYTES, false)?, tail: area(TAIL_BYTES, true)? })
    }

    fn check(&self, start: DeviceBlock, count: u64) {
        let blocks = self.device.blocks();
        assert!(count <= blocks && start.0 <= blocks - count, "{count} blocks at {start:?} reach beyond {blocks}");
    }

    fn bounced(&self, count: usize) -> Vec<BlockPointer> {
        (0..count).map(|at| self.bounce.block(at)).collect()
    }
}

impl SyncDevice for SyncHandle {
    fn blocks(&self) -> u64 {
        self.device.blocks()
    }

    fn read(&mut self, start: DeviceBlock, into: &mut [Block]) -> Result<(), DeviceError> {
        self.check(start, into.len() as u64);
        let mut at = start.0;
        for part in into.chunks_mut(MAX_DEVICE_BLOCKS) {
            let bounced = self.bounced(part.len());
            self.device.perform(DeviceOp::Read, at, &bounced)?;
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
            self.device.perform(DeviceOp::Write, at, &bounced)?;
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
            self.device.perform(DeviceOp::WriteZeroes(part), at, &[])?;
            at += u64::from(part);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        self.device.perform(DeviceOp::Flush, 0, &[])
    }
}
