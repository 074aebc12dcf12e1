//! Ranges of Dataset Management (NVM, section 3.2.3): what a host says of runs of logical blocks.

use crate::layout;

/// Most ranges of one command: NR is a zero-based byte.
pub const MAX_RANGES: u32 = 256;

/// Dword 11, AD: the host no longer needs what the ranges hold.
pub const DEALLOCATE: u32 = 1 << 2;

layout! {
    /// One range (NVM, figure 44).
    pub struct DatasetRange: 16 {
        /// Context attributes: hints.
        attributes: u32 = 0,
        /// Logical blocks; none is legal.
        blocks: u32 = 4,
        /// The first.
        lba: u64 = 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_golden_bytes() {
        let range = DatasetRange { attributes: 0x0102, blocks: 8, lba: 0x1_0000_0002 };
        let bytes = range.encode();
        assert_eq!(bytes, [2, 1, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(DatasetRange::decode(&bytes), Ok(range));
        assert!(DatasetRange::decode(&bytes[..15]).is_err());
    }
}
