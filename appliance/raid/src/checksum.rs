//! Checksums of a member's blocks, kept in a region of the same member. Described in `FORMAT.md`.
//!
//! A checksum says that a block is what was last written *there*: it counts the array, the slot and the stripe in, so that a
//! block which belongs elsewhere, or which the drive lost and has an older one in its stead, does not pass. Data and checksum are
//! written apart, so that a drive which loses one write is found out.
//!
//! A *checksum block* holds the entries of [`BLOCK_ENTRIES`] stripes that follow each other, all of one zone. It is written as a
//! whole and certified by sectors of 512 bytes: a write that power cuts leaves each sector old or new, and both pass. So no crash
//! costs an entry of a stripe that was not being written.
//!
//! A sector of zeros says that its blocks are zeros: a zone that is made ready needs nothing but zeros, and so does a new file.

use base::ids::{Slot, StripeId};
use base::uuid::Uuid;
use base::{BLOCK, Block};

/// Bytes that certify themselves: what drives write whole.
pub const SECTOR_BYTES: usize = 512;

/// Stripes that a sector speaks of.
pub const SECTOR_ENTRIES: usize = 64;

/// Sectors of a checksum block.
pub const SECTORS: usize = BLOCK / SECTOR_BYTES;

/// Stripes that a checksum block speaks of.
pub const BLOCK_ENTRIES: u64 = (SECTORS * SECTOR_ENTRIES) as u64;

const MAGIC: [u8; 4] = *b"BRCS";
const CRC_AT: usize = 4;
const ENTRIES_AT: usize = 16;

const _: () = assert!(ENTRIES_AT + SECTOR_ENTRIES * 4 <= SECTOR_BYTES);

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u32);

impl Entry {
    /// It holds zeros.
    pub const ZEROS: Self = Self(0);

    /// Its checksum is lost. It is put together from the others, and has one from then on.
    pub const UNKNOWN: Self = Self(1);

    /// Whether anything is known.
    pub const fn is_known(self) -> bool {
        self.0 != Self::UNKNOWN.0
    }
}

/// Whose blocks are meant: part of each checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksummed {
    /// The array.
    pub array: Uuid,
    /// The member's place in it.
    pub slot: Slot,
}

impl Checksummed {
    /// What there is to know of a block of a stripe.
    pub fn entry(&self, stripe: StripeId, block: &Block) -> Entry {
        if *block == base::ZERO_BLOCK {
            return Entry::ZEROS;
        }
        match crc32c::crc32c_append(self.seed(stripe.0), block) {
            // Two numbers have a meaning of their own.
            crc @ (0 | 1) => Entry(crc + 2),
            crc => Entry(crc),
        }
    }

    /// Whether a block is what an entry says; of one that says nothing it is not known.
    pub fn matches(&self, entry: Entry, stripe: StripeId, block: &Block) -> bool {
        self.entry(stripe, block) == entry
    }

    fn seed(&self, place: u64) -> u32 {
        let mut bytes = [0; 25];
        bytes[..16].copy_from_slice(&self.array.0);
        bytes[16] = self.slot.0;
        bytes[17..].copy_from_slice(&place.to_le_bytes());
        crc32c::crc32c(&bytes)
    }

    /// Certifies all sectors of a checksum block, by its place in the region.
    pub fn seal(&self, place: u64, block: &mut Block) {
        for (at, sector) in (0u64..).zip(block.chunks_exact_mut(SECTOR_BYTES)) {
            let (header, rest) = sector.split_at_mut(ENTRIES_AT);
            header.fill(0);
            if rest.iter().any(|byte| *byte != 0) {
                header[..4].copy_from_slice(&MAGIC);
                let crc = self.sector_crc(place, at, rest);
                header[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }

    /// Reads a checksum block, trusting nothing: entries of sectors that do not pass are unknown. Which those are, as a bit mask.
    pub fn open(&self, place: u64, block: &mut Block) -> u8 {
        let mut lost = 0;
        for (at, sector) in (0u8..).zip(block.chunks_exact_mut(SECTOR_BYTES)) {
            let (header, rest) = sector.split_at(ENTRIES_AT);
            let crc = self.sector_crc(place, u64::from(at), rest).to_le_bytes();
            let passes = header[..4] == MAGIC && header[CRC_AT..CRC_AT + 4] == crc && header[8..] == [0; 8];
            if !passes && sector.iter().any(|byte| *byte != 0) {
                lost |= 1 << at;
                forget(sector);
            }
        }
        lost
    }

    fn sector_crc(&self, place: u64, sector: u64, rest: &[u8]) -> u32 {
        crc32c::crc32c_append(self.seed(!(place * SECTORS as u64 + sector)), rest)
    }
}

/// Makes all entries of a sector unknown.
fn forget(sector: &mut [u8]) {
    sector.fill(0);
    let entries = &mut sector[ENTRIES_AT..ENTRIES_AT + 4 * SECTOR_ENTRIES];
    entries.chunks_exact_mut(4).for_each(|entry| entry.copy_from_slice(&Entry::UNKNOWN.0.to_le_bytes()));
}

/// Makes all entries of a checksum block unknown: it cannot be read.
pub fn forget_all(block: &mut Block) {
    block.chunks_exact_mut(SECTOR_BYTES).for_each(forget);
}

/// Checksum blocks of a zone of so many stripes.
pub const fn zone_blocks(zone_stripes: u64) -> u64 {
    zone_stripes.div_ceil(BLOCK_ENTRIES)
}

/// Where the entry of a stripe lies: the block of the region.
pub const fn block_of(stripe: StripeId, zone_stripes: u64) -> u64 {
    stripe.0 / zone_stripes * zone_blocks(zone_stripes) + stripe.0 % zone_stripes / BLOCK_ENTRIES
}

/// Where it lies in that block.
const fn offset_of(stripe: StripeId, zone_stripes: u64) -> usize {
    let entry = (stripe.0 % zone_stripes % BLOCK_ENTRIES) as usize;
    entry / SECTOR_ENTRIES * SECTOR_BYTES + ENTRIES_AT + 4 * (entry % SECTOR_ENTRIES)
}

/// The entry of a stripe in its checksum block.
pub fn entry_of(block: &Block, stripe: StripeId, zone_stripes: u64) -> Entry {
    let at = offset_of(stripe, zone_stripes);
    Entry(u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes")))
}

/// Sets the entry of a stripe.
pub fn set_entry(block: &mut Block, stripe: StripeId, zone_stripes: u64, entry: Entry) {
    let at = offset_of(stripe, zone_stripes);
    block[at..at + 4].copy_from_slice(&entry.0.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ZERO_BLOCK;

    const OF: Checksummed = Checksummed { array: Uuid(*b"0123456789abcdef"), slot: Slot(3) };
    const ZONE: u64 = 1024;

    #[test]
    fn the_golden_bytes_of_a_sector_and_an_entry() {
        let mut data = ZERO_BLOCK;
        data[0] = 1;
        let mut block = ZERO_BLOCK;
        set_entry(&mut block, StripeId(1024 + 65), ZONE, OF.entry(StripeId(1024 + 65), &data));
        OF.seal(2, &mut block);
        assert_eq!(block[..512], [0; 512]);
        let expected: [u8; 24] = GOLDEN;
        assert_eq!(block[512..536], expected);
        assert!(block[536..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_block_passes_in_its_own_place_alone() {
        let mut data = ZERO_BLOCK;
        data[100] = 7;
        let entry = OF.entry(StripeId(9), &data);
        assert!(OF.matches(entry, StripeId(9), &data) && entry.is_known());
        assert!(!OF.matches(entry, StripeId(10), &data));
        assert!(!Checksummed { slot: Slot(2), ..OF }.matches(entry, StripeId(9), &data));
        assert!(!Checksummed { array: Uuid([1; 16]), ..OF }.matches(entry, StripeId(9), &data));
        assert!(!OF.matches(entry, StripeId(9), &ZERO_BLOCK) && !OF.matches(Entry::ZEROS, StripeId(9), &data));
        assert!(OF.matches(Entry::ZEROS, StripeId(9), &ZERO_BLOCK));
        assert!(
            !OF.matches(Entry::UNKNOWN, StripeId(9), &data) && !OF.matches(Entry::UNKNOWN, StripeId(9), &ZERO_BLOCK)
        );
        for bit in 0..8 * BLOCK {
            let mut wrong = data;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!OF.matches(entry, StripeId(9), &wrong), "bit {bit}");
        }
    }

    #[test]
    fn each_stripe_has_a_place_of_its_own_and_no_block_covers_two_zones() {
        for zone_stripes in [1024, 1536, 100, 512] {
            let mut seen = std::collections::BTreeSet::new();
            for stripe in (0..3 * zone_stripes).map(StripeId) {
                let block = block_of(stripe, zone_stripes);
                assert_eq!(block / zone_blocks(zone_stripes), stripe.0 / zone_stripes);
                assert!(offset_of(stripe, zone_stripes) + 4 <= BLOCK);
                assert!(seen.insert((block, offset_of(stripe, zone_stripes))));
            }
        }
    }

    #[test]
    fn sectors_pass_one_by_one_and_what_does_not_pass_is_unknown() {
        let mut data = ZERO_BLOCK;
        data[5] = 5;
        let mut old = ZERO_BLOCK;
        for stripe in (512..1024).map(StripeId) {
            set_entry(&mut old, stripe, ZONE, OF.entry(stripe, &data));
        }
        let mut new = old;
        set_entry(&mut new, StripeId(512), ZONE, Entry::ZEROS);
        set_entry(&mut new, StripeId(1023), ZONE, Entry::ZEROS);
        OF.seal(1, &mut old);
        OF.seal(1, &mut new);
        // A write that was cut, at each sector.
        for cut in 0..=SECTORS {
            let mut torn = old;
            torn[..cut * SECTOR_BYTES].copy_from_slice(&new[..cut * SECTOR_BYTES]);
            assert_eq!(OF.open(1, &mut torn), 0);
            assert_eq!(entry_of(&torn, StripeId(513), ZONE), OF.entry(StripeId(513), &data));
        }
        for at in 0..BLOCK {
            let mut wrong = new;
            wrong[at] ^= 0x40;
            assert_eq!(OF.open(1, &mut wrong), 1 << (at / SECTOR_BYTES), "byte {at}");
            for stripe in (512..1024).map(StripeId) {
                let is_known = entry_of(&wrong, stripe, ZONE).is_known();
                assert_eq!(is_known, (stripe.0 - 512) as usize / SECTOR_ENTRIES != at / SECTOR_BYTES);
            }
        }
        // One that belongs elsewhere.
        assert_eq!(OF.open(2, &mut new.clone()), 0xff);
        assert_eq!(Checksummed { slot: Slot(1), ..OF }.open(1, &mut new.clone()), 0xff);
        let mut blank = ZERO_BLOCK;
        assert_eq!(OF.open(1, &mut blank), 0);
        assert_eq!(entry_of(&blank, StripeId(600), ZONE), Entry::ZEROS);
        forget_all(&mut blank);
        assert!((512..1024).all(|stripe| !entry_of(&blank, StripeId(stripe), ZONE).is_known()));
    }

    const GOLDEN: [u8; 24] = [66, 82, 67, 83, 188, 89, 44, 180, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 246, 2, 141, 242];
}
