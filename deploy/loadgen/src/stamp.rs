//! What the torture writes into each block: a stamp that says which write of which run made it and where it belongs,
//! then a pattern drawn from the stamp, and a checksum over both. A block that is torn, misplaced or stale is therefore
//! told from one that is whole.
//!
//! ```text
//!  0        8        16       24         32     36     40                        4096
//!  ┌────────┬────────┬────────┬──────────┬──────┬──────┬───────── ─ ─ ─ ─────────┐
//!  │ magic  │  run   │  lba   │ sequence │ crc  │ zero │ pattern of the stamp    │
//!  └────────┴────────┴────────┴──────────┴──────┴──────┴───────── ─ ─ ─ ─────────┘
//! ```
//!
//! All numbers are little-endian. `crc` is CRC32C over the whole block with the field itself as zero.

use base::cursor::{Reader, Truncated, Writer};
use base::{BLOCK, ZERO_BLOCK};

use crate::random::mix;

const MAGIC: u64 = u64::from_le_bytes(*b"BrndlStp");
const CRC_AT: usize = 32;
const PATTERN_AT: usize = 40;

/// Names one write of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run: no two runs on a volume share it.
    pub run: u64,
    /// The logical block that was written.
    pub lba: u64,
    /// The write, in the order of submission.
    pub sequence: u64,
}

/// What a block that was read turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// All zeros.
    Zero,
    /// A whole stamped block, of whatever run and place.
    Stamped(Stamp),
    /// It bears a stamp, but its checksum does not match: torn or damaged.
    Damaged(Stamp),
    /// No stamp: somebody else's data, known by its CRC32C.
    Foreign(u32),
}

impl Stamp {
    /// Fills a block with the stamp and its pattern.
    ///
    /// # Panics
    /// If `block` is not one block long.
    pub fn write_to(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK, "a stamp fills one block");
        let mut state = mix(self.run ^ mix(self.lba ^ mix(self.sequence)));
        for word in block[PATTERN_AT..].chunks_exact_mut(8) {
            // An odd step visits every value; neighbours differ in all bytes, which is enough to show a tear.
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.copy_from_slice(&state.to_le_bytes());
        }
        Writer::new(block).u64_le(MAGIC).u64_le(self.run).u64_le(self.lba).u64_le(self.sequence).zeros(8);
        let crc = crc32c::crc32c(block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

impl Content {
    /// Looks at a block that was read.
    ///
    /// # Panics
    /// If `block` is not one block long.
    pub fn of(block: &[u8]) -> Self {
        assert_eq!(block.len(), BLOCK, "content is looked at by block");
        if block == ZERO_BLOCK {
            return Self::Zero;
        }
        match stamp(block) {
            Ok((stamp, crc)) if crc == checksum(block) => Self::Stamped(stamp),
            Ok((stamp, _)) => Self::Damaged(stamp),
            Err(_) => Self::Foreign(crc32c::crc32c(block)),
        }
    }
}

fn stamp(block: &[u8]) -> Result<(Stamp, u32), Truncated> {
    let mut reader = Reader::new(block);
    if reader.u64_le()? != MAGIC {
        return Err(Truncated);
    }
    let stamp = Stamp { run: reader.u64_le()?, lba: reader.u64_le()?, sequence: reader.u64_le()? };
    Ok((stamp, reader.u32_le()?))
}

fn checksum(block: &[u8]) -> u32 {
    let head = crc32c::crc32c(&block[..CRC_AT]);
    let gap = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(gap, &block[CRC_AT + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 7, lba: 42, sequence: 1001 };

    fn stamped(stamp: Stamp) -> Vec<u8> {
        let mut block = vec![0xee; BLOCK];
        stamp.write_to(&mut block);
        block
    }

    #[test]
    fn a_stamp_is_read_back_and_every_changed_byte_is_noticed() {
        let mut block = stamped(STAMP);
        assert_eq!(Content::of(&block), Content::Stamped(STAMP));
        for at in 0..BLOCK {
            block[at] ^= 1;
            let found = Content::of(&block);
            assert!(matches!(found, Content::Damaged(_) | Content::Foreign(_)), "byte {at} changed: {found:?}");
            block[at] ^= 1;
        }
    }

    #[test]
    fn a_torn_block_is_neither_of_its_halves() {
        let newer = stamped(Stamp { sequence: 1002, ..STAMP });
        for cut in [512, 1024, 2048, 4088] {
            let mut torn = stamped(STAMP);
            torn[..cut].copy_from_slice(&newer[..cut]);
            assert!(matches!(Content::of(&torn), Content::Damaged(_)), "cut at {cut}");
        }
    }

    #[test]
    fn the_layout_is_what_the_diagram_says() {
        let block = stamped(STAMP);
        assert_eq!(&block[..8], b"BrndlStp");
        assert_eq!(block[8..32], [7, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 0xe9, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block[36..40], [0; 4]);
        assert_eq!(Content::of(&[0; BLOCK]), Content::Zero);
        assert!(matches!(Content::of(&[1; BLOCK]), Content::Foreign(_)));
    }
}
