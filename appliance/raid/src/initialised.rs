//! Which zones were ever written. A zone whose bit is not set reads as zeros without asking a member; its first write
//! zeroes it on all members, flushes them, and only then sets the bit durably.
//!
//! On a member the bits lie in blocks of 32256 zones, each block in a pair of slots that are written in turn. Bits are only
//! ever set, and only after the zone is zeros on every member: so a bit that *any* valid block of a current member shows is
//! true, and what is read is the union of all of them. A block that is lost can therefore only forget, which is why
//! [`Initialised::merge`] is to be followed by writing the merged block, *at its same update*, to the members that do not
//! have it ([`Initialised::update_in`]): the next [`Initialised::advance`] then never overwrites a member's last good copy.
//!
//! It never clears a bit, and it touches no device.

use base::cursor::{Reader, Writer};
use base::ids::ZoneId;
use base::{BLOCK, Block, uuid::Uuid};

/// The first eight bytes of a bitmap block.
pub const MAGIC: [u8; 8] = *b"BRINDLEI";

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u16 = 1;

/// Zones of one bitmap block.
pub const ZONES_PER_BLOCK: u64 = ((BLOCK - BITS_AT) * 8) as u64;

const BITS_AT: usize = 64;
const WORDS_PER_BLOCK: usize = (BLOCK - BITS_AT) / 8;
const CRC_AT: usize = 8;

/// The bits of an array, and how often each of their blocks was written.
#[derive(Clone, Debug)]
pub struct Initialised {
    array: Uuid,
    zones: u64,
    words: Vec<u64>,
    updates: Vec<u64>,
}

impl Initialised {
    /// The bits of a new array: all set if its members are known to hold zeros, else none.
    ///
    /// # Panics
    /// If there are no zones.
    pub fn new(array: Uuid, zones: u64, all: bool) -> Self {
        assert!(zones > 0, "an array has zones");
        let mut words = vec![if all { u64::MAX } else { 0 }; zones.div_ceil(64) as usize];
        if let Some(last) = words.last_mut() {
            *last &= last_word_mask(zones);
        }
        Self { array, zones, words, updates: vec![0; Self::blocks_for(zones) as usize] }
    }

    /// Records that a zone is written from now on.
    ///
    /// # Panics
    /// If the array has no such zone.
    pub fn set(&mut self, zone: ZoneId) {
        let (word, bit) = self.place(zone);
        self.words[word] |= bit;
    }

    /// Whether a zone was ever written.
    ///
    /// # Panics
    /// If the array has no such zone.
    pub fn is_set(&self, zone: ZoneId) -> bool {
        let (word, bit) = self.place(zone);
        self.words[word] & bit != 0
    }

    /// How many zones there are, written or not.
    pub const fn zones(&self) -> u64 {
        self.zones
    }

    /// One bit a zone: zone `z` is bit `z % 64` of word `z / 64`. Bits beyond the last zone are zero.
    pub fn words(&self) -> Vec<u64> {
        self.words.clone()
    }

    /// The bitmap block that holds a zone's bit.
    pub const fn block_of(zone: ZoneId) -> usize {
        (zone.0 / ZONES_PER_BLOCK) as usize
    }

    /// How many bitmap blocks hold this many zones. On the member there are two slots for each.
    pub const fn blocks_for(zones: u64) -> u64 {
        zones.div_ceil(ZONES_PER_BLOCK)
    }

    /// The update that a bitmap block was last given; 0 for one that was only formatted.
    pub fn update(&self, block: usize) -> u64 {
        self.updates[block]
    }

    /// Raises the update of a bitmap block before it is encoded and written. Returns the slot of its pair, 0 or 1: never
    /// the slot of the update before, which stays valid should this write be torn.
    pub fn advance(&mut self, block: usize) -> usize {
        self.updates[block] += 1;
        self.slot(block)
    }

    /// The slot of the pair, 0 or 1, that a bitmap block's present update belongs to.
    pub fn slot(&self, block: usize) -> usize {
        (self.updates[block] & 1) as usize
    }

    /// Fills `out` with a bitmap block at its present update.
    pub fn encode(&self, block: usize, out: &mut Block) {
        out.fill(0);
        let mut to = Writer::new(out);
        to.bytes(&MAGIC).u32_le(0).u16_le(VERSION).u16_le(0).bytes(&self.array.0);
        to.u64_le(self.updates[block]).u64_le(block as u64).pad_to(BITS_AT);
        for word in &self.words[self.words_of(block)] {
            to.u64_le(*word);
        }
        put_crc(out);
    }

    /// The update of a slot's content, if it is a valid copy of this array's bitmap block.
    pub fn update_in(&self, block: usize, slot: &Block) -> Option<u64> {
        verified_crc(slot).then_some(())?;
        let mut from = Reader::new(slot);
        let ours = from.array() == Ok(MAGIC)
            && from.skip(4).is_ok()
            && from.u16_le() == Ok(VERSION)
            && from.skip(2).is_ok()
            && from.array() == Ok(self.array.0);
        let (update, index) = (from.u64_le().ok()?, from.u64_le().ok()?);
        // Nobody counts so far, and one that is believed must have room to be advanced.
        (ours && index == block as u64 && update <= journal::MAX_COUNT).then_some(update)
    }

    /// Takes up what the slots of a bitmap block say, in any order and from all current members: the union of the bits of
    /// those that are valid, and the highest update. Returns whether any was valid; if not, nothing has changed and the
    /// caller must not believe the bits.
    pub fn merge<'a>(&mut self, block: usize, slots: impl IntoIterator<Item = &'a Block>) -> bool {
        let mut any = false;
        for slot in slots {
            let Some(update) = self.update_in(block, slot) else { continue };
            any = true;
            self.updates[block] = self.updates[block].max(update);
            let range = self.words_of(block);
            for (word, bytes) in self.words[range].iter_mut().zip(slot[BITS_AT..].as_chunks().0) {
                *word |= u64::from_le_bytes(*bytes);
            }
        }
        if let Some(last) = self.words.last_mut() {
            *last &= last_word_mask(self.zones);
        }
        any
    }

    fn words_of(&self, block: usize) -> core::ops::Range<usize> {
        assert!(block < self.updates.len(), "the array has {} bitmap blocks, not {block}", self.updates.len());
        let start = block * WORDS_PER_BLOCK;
        start..self.words.len().min(start + WORDS_PER_BLOCK)
    }

    fn place(&self, zone: ZoneId) -> (usize, u64) {
        assert!(zone.0 < self.zones, "the array has {} zones, not {zone}", self.zones);
        ((zone.0 / 64) as usize, 1 << (zone.0 % 64))
    }
}

const fn last_word_mask(zones: u64) -> u64 {
    match zones % 64 {
        0 => u64::MAX,
        rest => (1 << rest) - 1,
    }
}

/// Writes the checksum of a block into it: CRC32C of all its bytes with the checksum's own four taken as zero.
pub(crate) fn put_crc(block: &mut Block) {
    let crc = crc(block);
    block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a block carries its right checksum.
pub(crate) fn verified_crc(block: &Block) -> bool {
    block[CRC_AT..CRC_AT + 4] == crc(block).to_le_bytes()
}

fn crc(block: &Block) -> u32 {
    let head = crc32c::crc32c(&block[..CRC_AT]);
    crc32c::crc32c_append(crc32c::crc32c_append(head, &[0; 4]), &block[CRC_AT + 4..])
}

const _: () = assert!(ZONES_PER_BLOCK == WORDS_PER_BLOCK as u64 * 64, "a bitmap block is whole words");

#[cfg(test)]
mod tests {
    use super::*;
    use base::ZERO_BLOCK;

    const ARRAY: Uuid = Uuid(*b"array-uuid-bytes");
    /// Two whole bitmap blocks and a third with five zones.
    const ZONES: u64 = 2 * ZONES_PER_BLOCK + 5;

    fn encoded(bits: &Initialised, block: usize) -> Block {
        let mut out = ZERO_BLOCK;
        bits.encode(block, &mut out);
        out
    }

    fn with(zones: &[u64], updates: u64) -> Initialised {
        let mut bits = Initialised::new(ARRAY, ZONES, false);
        zones.iter().for_each(|&zone| bits.set(ZoneId(zone)));
        (0..3).for_each(|block| (0..updates).for_each(|_| assert!(bits.advance(block) < 2)));
        bits
    }

    #[test]
    fn what_is_encoded_is_merged_back_block_by_block() {
        let edges = [0, 63, 64, ZONES_PER_BLOCK - 1, ZONES_PER_BLOCK, 2 * ZONES_PER_BLOCK, ZONES - 1];
        let bits = with(&edges, 3);
        let mut back = Initialised::new(ARRAY, ZONES, false);
        for block in 0..3 {
            assert!(back.merge(block, [&encoded(&bits, block)]));
            assert_eq!(back.update(block), 3);
            assert_eq!(encoded(&back, block), encoded(&bits, block));
        }
        for zone in 0..ZONES {
            assert_eq!(back.is_set(ZoneId(zone)), edges.contains(&zone), "zone {zone}");
        }
        assert_eq!(back.words(), bits.words());
        assert_eq!(back.words().len() as u64, ZONES.div_ceil(64));
    }

    #[test]
    fn blocks_are_counted_and_zones_find_theirs() {
        assert_eq!((Initialised::blocks_for(1), Initialised::blocks_for(ZONES_PER_BLOCK)), (1, 1));
        assert_eq!((Initialised::blocks_for(ZONES_PER_BLOCK + 1), Initialised::blocks_for(ZONES)), (2, 3));
        assert_eq!(Initialised::block_of(ZoneId(ZONES_PER_BLOCK - 1)), 0);
        assert_eq!(Initialised::block_of(ZoneId(ZONES - 1)), 2);
    }

    #[test]
    fn a_new_array_of_zeros_has_every_bit_and_none_beyond() {
        for zones in [1, 63, 64, 65, ZONES] {
            let bits = Initialised::new(ARRAY, zones, true);
            assert!((0..zones).all(|zone| bits.is_set(ZoneId(zone))));
            let count: u64 = bits.words().iter().map(|word| u64::from(word.count_ones())).sum();
            assert_eq!((count, bits.zones()), (zones, zones));
            assert!(Initialised::new(ARRAY, zones, false).words().iter().all(|&word| word == 0));
        }
    }

    #[test]
    fn slots_are_written_in_turn() {
        let mut bits = with(&[], 0);
        assert_eq!((bits.update(1), bits.slot(1)), (0, 0));
        assert_eq!([bits.advance(1), bits.advance(1), bits.advance(1)], [1, 0, 1]);
        assert_eq!((bits.update(0), bits.update(1), bits.slot(1)), (0, 3, 1));
    }

    #[test]
    fn members_that_differ_are_united_in_any_order() {
        let slots = [with(&[1], 1), with(&[1, 2], 2), with(&[1, 2, 70], 3)].map(|bits| encoded(&bits, 0));
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut bits = with(&[], 0);
            assert!(bits.merge(0, order.map(|at| &slots[at])));
            assert_eq!(bits.update(0), 3);
            assert_eq!(bits.words()[..2], [0b110, 1 << 6]);
        }
    }

    #[test]
    fn what_is_torn_or_of_another_is_not_believed() {
        let good = encoded(&with(&[1], 1), 0);
        let mut bits = with(&[], 0);
        assert!(!bits.merge(0, [&ZERO_BLOCK, &encoded(&with(&[1], 1), 1)]));
        assert!(!bits.merge(0, []));
        let mut other = Initialised::new(Uuid::from_random([1, 2]), ZONES, true);
        other.advance(0);
        assert!(!bits.merge(0, [&encoded(&other, 0)]));
        for at in 0..BLOCK {
            let mut flipped = good;
            flipped[at] ^= 0x04;
            assert!(!bits.merge(0, [&flipped]), "byte {at}");
        }
        let used = good.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
        for cut in 0..used {
            let mut torn = ZERO_BLOCK;
            torn[..cut].copy_from_slice(&good[..cut]);
            assert!(!bits.merge(0, [&torn]), "cut at {cut}");
        }
        assert!(bits.words().iter().all(|&word| word == 0) && bits.update(0) == 0);
        assert!(bits.merge(0, [&ZERO_BLOCK, &good]) && bits.is_set(ZoneId(1)));
    }

    #[test]
    fn numbers_under_a_right_checksum_are_still_not_trusted() {
        let forged = |at: usize, bytes: &[u8]| {
            let mut block = encoded(&with(&[], 1), 2);
            block[at..at + bytes.len()].copy_from_slice(bytes);
            put_crc(&mut block);
            block
        };
        let mut bits = with(&[], 0);
        assert!(!bits.merge(2, [&forged(12, &[2])]), "a later version");
        assert!(!bits.merge(2, [&forged(32, &[0xff; 8])]), "an update without a next one");
        assert!(bits.merge(2, [&forged(BITS_AT, &[0xff; 64])]), "bits beyond the last zone");
        let words = bits.words();
        assert_eq!(words[words.len() - 1], last_word_mask(ZONES));
        assert_eq!(words.len() as u64, ZONES.div_ceil(64));
    }
}
