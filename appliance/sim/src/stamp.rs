//! What the workload writes: each logical block, of one sector or eight, says of itself, in each of its sectors, which it is
//! and which version.
//! So a block that comes back is recognised, and one that is torn, misplaced or mixed with another cannot pass for whole.

use core::fmt;

use base::ids::Lba;
use base::sector::SECTOR;

use crate::random::scramble;

const MAGIC: u64 = u64::from_le_bytes(*b"BRNDLSIM");

/// Names a write: unique in a run, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What a block turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros throughout.
    Zeros,
    /// This version of the block that was asked for, whole.
    Version(Version),
    /// A whole stamp of another block: it was read from or written to a wrong place.
    Elsewhere(Lba, Version),
    /// Sectors of different origin; the first two that differ, by their place in the block.
    Torn {
        /// A sector.
        first: u8,
        /// One that does not belong to it.
        second: u8,
    },
    /// Bytes that were never written by the workload; the first of them.
    Garbage(u8),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("zeros"),
            Self::Version(version) => write!(f, "version {}", version.0),
            Self::Elsewhere(lba, version) => write!(f, "version {} of block {lba}", version.0),
            Self::Torn { first, second } => write!(f, "a torn block (sectors {first} and {second} differ)"),
            Self::Garbage(byte) => write!(f, "bytes that were never written (the first is {byte:#04x})"),
        }
    }
}

/// Fills a block with the stamp of a version of a logical block.
pub fn fill(block: &mut [u8], lba: Lba, version: Version) {
    for (index, sector) in block.chunks_exact_mut(SECTOR).enumerate() {
        for (word, bytes) in sector.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word_of(lba, version, index, word).to_le_bytes());
        }
    }
}

/// Says what a block holds that was read as this logical block.
pub fn recognise(block: &[u8], lba: Lba) -> Found {
    if block.iter().all(|&byte| byte == 0) {
        return Found::Zeros;
    }
    let first = sector_stamp(block, 0);
    for index in 1..block.len() / SECTOR {
        if sector_stamp(block, index) != first {
            return Found::Torn { first: 0, second: index as u8 };
        }
    }
    match first {
        Some((found, version)) if found == lba => Found::Version(version),
        Some((found, version)) => Found::Elsewhere(found, version),
        None => Found::Garbage(block[0]),
    }
}

fn sector_stamp(block: &[u8], index: usize) -> Option<(Lba, Version)> {
    let sector = &block[index * SECTOR..(index + 1) * SECTOR];
    let at = |word: usize| u64::from_le_bytes(sector[word * 8..word * 8 + 8].try_into().expect("eight bytes"));
    let (lba, version) = (Lba(at(1)), Version(at(2)));
    (0..SECTOR / 8).all(|word| at(word) == word_of(lba, version, index, word)).then_some((lba, version))
}

fn word_of(lba: Lba, version: Version, sector: usize, word: usize) -> u64 {
    match word {
        0 => MAGIC,
        1 => lba.0,
        2 => version.0,
        3 => sector as u64,
        _ => scramble(lba.0 << 40 ^ version.0 << 10 ^ (sector as u64) << 6 ^ word as u64),
    }
}

#[cfg(test)]
mod tests {
    use base::BLOCK;

    use super::*;

    #[test]
    fn whole_torn_misplaced_and_foreign_blocks_are_told_apart() {
        let mut block = [0; BLOCK];
        assert_eq!(recognise(&block, Lba(5)), Found::Zeros);
        fill(&mut block, Lba(5), Version(9));
        assert_eq!(recognise(&block, Lba(5)), Found::Version(Version(9)));
        assert_eq!(recognise(&block, Lba(6)), Found::Elsewhere(Lba(5), Version(9)));

        let mut newer = [0; BLOCK];
        fill(&mut newer, Lba(5), Version(10));
        let mut torn = block;
        torn[3 * SECTOR..4 * SECTOR].copy_from_slice(&newer[3 * SECTOR..4 * SECTOR]);
        assert_eq!(recognise(&torn, Lba(5)), Found::Torn { first: 0, second: 3 });
        let mut half_zero = block;
        half_zero[7 * SECTOR..].fill(0);
        assert_eq!(recognise(&half_zero, Lba(5)), Found::Torn { first: 0, second: 7 });

        assert_eq!(recognise(&[0xdd; BLOCK], Lba(5)), Found::Garbage(0xdd));
        for flipped in [0, 8, 511, 512, 4095] {
            let mut damaged = block;
            damaged[flipped] ^= 1;
            assert!(matches!(recognise(&damaged, Lba(5)), Found::Torn { .. }), "byte {flipped}");
        }
    }
}
