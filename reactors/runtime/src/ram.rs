//! A device in memory, shared by all reactors: for tests, demonstrations and for measuring everything but drives. What is
//! written is as durable as the process.

use base::BLOCK;
use ports::DeviceError;

use crate::map_sys::{BlockPointer, Mapping};

/// Memory that plays a drive.
pub(crate) struct RamDisk {
    memory: Mapping,
}

impl RamDisk {
    /// A drive of zeros.
    pub(crate) fn new(blocks: u64) -> std::io::Result<Self> {
        let bytes = usize::try_from(blocks)
            .ok()
            .and_then(|blocks| blocks.checked_mul(BLOCK))
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        Ok(Self { memory: Mapping::anonymous(bytes, false)? })
    }

    /// Copies blocks out.
    pub(crate) fn read(&self, start: u64, into: impl Iterator<Item = BlockPointer>) -> Result<(), DeviceError> {
        for (at, block) in (start as usize..).zip(into) {
            block.copy_from(self.memory.block(at));
        }
        Ok(())
    }

    /// Copies blocks in.
    pub(crate) fn write(&self, start: u64, from: impl Iterator<Item = BlockPointer>) -> Result<(), DeviceError> {
        for (at, block) in (start as usize..).zip(from) {
            self.memory.block(at).copy_from(block);
        }
        Ok(())
    }

    /// Makes blocks zero.
    pub(crate) fn zero(&self, start: u64, count: u64) -> Result<(), DeviceError> {
        self.memory.zero_blocks(start as usize, count as usize);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_what_is_written_to_them() {
        let disk = RamDisk::new(4).expect("memory");
        let (one, two, mut out) = ([1; BLOCK], [2; BLOCK], [9; BLOCK]);
        let from = [BlockPointer::of_source(&one), BlockPointer::of_source(&two)];
        disk.write(2, from.into_iter()).expect("written");
        disk.read(3, [BlockPointer::of(&mut out)].into_iter()).expect("read");
        assert_eq!(out, two);
        disk.zero(3, 1).expect("zeroed");
        disk.read(3, [BlockPointer::of(&mut out)].into_iter()).expect("read");
        assert_eq!(out, [0; BLOCK]);
        disk.read(2, [BlockPointer::of(&mut out)].into_iter()).expect("read");
        assert_eq!(out, one);
    }
}
