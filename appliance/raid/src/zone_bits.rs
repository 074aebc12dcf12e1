//! One bit a zone, kept on every member, in three bitmaps. *Initialised*: the zone was ever written; without the bit it reads as
//! zeros without asking a member, and its first write zeroes it on all members, flushes them, and only then sets the bit
//! durably. *Dirty*: writes to the zone may be under way without a log, so that after a crash its parities or mirrors may not
//! match; the bit is durable before the first of them, and cleared some time after they were flushed. *Missed*: something in the
//! zone may have changed since a member went out; the bit is durable before anything forgets that it did, and cleared when all
//! members are whole.
//!
//! On a member the bits lie in blocks of 32256 zones, each block in a pair of slots that are written in turn.
//!
//! Bits of initialised zones are only ever set, and only after the zone is zeros on every member: so a bit that *any* valid
//! block of a current member shows is true, and what is read is the union of all of them. Bits of dirty and of missed zones are
//! cleared as well: of a member only the newest valid slot counts ([`ZoneBits::newest`]), and what is read is the union of these. A
//! bit too many costs a resync, or a rebuild, of a zone that needs none. In either way a block that is lost can only forget, which is why
//! [`ZoneBits::merge`] is to be followed by writing the merged block, *at its same update*, to the members that do not have it
//! ([`ZoneBits::update_in`]): the next [`ZoneBits::advance`] then never overwrites a member's last good copy.
//!
//! It touches no device.

use base::cursor::{Reader, Writer};
use base::ids::ZoneId;
use base::{BLOCK, Block, uuid::Uuid};

/// The first eight bytes of a block of initialised zones.
pub const MAGIC: [u8; 8] = *b"BRINDLEI";

/// The first eight bytes of a block of dirty zones.
pub const DIRTY_MAGIC: [u8; 8] = *b"BRINDLED";

/// The first eight bytes of a block of missed zones.
pub const MISSED_MAGIC: [u8; 8] = *b"BRINDLEO";

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u16 = 1;

/// Zones of one bitmap block.
pub const ZONES_PER_BLOCK: u64 = ((BLOCK - BITS_AT) * 8) as u64;

const BITS_AT: usize = 64;
const WORDS_PER_BLOCK: usize = (BLOCK - BITS_AT) / 8;
const CRC_AT: usize = 8;

/// The bits of an array, and how often each of their blocks was written.
#[derive(Clone, Debug)]
pub struct ZoneBits {
    magic: [u8; 8],
    array: Uuid,
    zones: u64,
    words: Vec<u64>,
    updates: Vec<u64>,
}

impl ZoneBits {
    /// Initialised zones of a new array: all if its members are known to hold zeros, else none.
    ///
    /// # Panics
    /// If there are no zones.
    pub fn new(array: Uuid, zones: u64, all: bool) -> Self {
        assert!(zones > 0, "an array has zones");
        let mut words = vec![if all { u64::MAX } else { 0 }; zones.div_ceil(64) as usize];
        if let Some(last) = words.last_mut() {
            *last &= last_word_mask(zones);
        }
        Self { magic: MAGIC, array, zones, words, updates: vec![0; Self::blocks_for(zones) as usize] }
    }

    /// Dirty zones of a new array: none.
    ///
    /// # Panics
    /// If there are no zones.
    pub fn dirty(array: Uuid, zones: u64) -> Self {
        Self { magic: DIRTY_MAGIC, ..Self::new(array, zones, false) }
    }

    /// Missed zones of a new array: none.
    ///
    /// # Panics
    /// If there are no zones.
    pub fn missed(array: Uuid, zones: u64) -> Self {
        Self { magic: MISSED_MAGIC, ..Self::new(array, zones, false) }
    }

    /// Sets a zone's bit.
    ///
    /// # Panics
    /// If the array has no such zone.
    pub fn set(&mut self, zone: ZoneId) {
        let (word, bit) = self.place(zone);
        self.words[word] |= bit;
    }

    /// Clears a zone's bit, which only dirty zones have done to them.
    ///
    /// # Panics
    /// If the array has no such zone, or these are initialised ones: what was written stays so.
    pub fn clear(&mut self, zone: ZoneId) {
        assert_eq!(self.magic, DIRTY_MAGIC, "a zone is initialised for ever");
        let (word, bit) = self.place(zone);
        self.words[word] &= !bit;
    }

    /// Sets the bits of all zones of a block: nobody knows better.
    pub fn set_all(&mut self, block: usize) {
        let range = self.words_of(block);
        self.words[range].fill(u64::MAX);
        if let Some(last) = self.words.last_mut() {
            *last &= last_word_mask(self.zones);
        }
    }

    /// Clears the bits of all dirty or missed zones: what they say does not count.
    pub fn clear_all(&mut self) {
        assert_ne!(self.magic, MAGIC, "a zone is initialised for ever");
        self.words.fill(0);
    }

    /// The blocks that any bit is set in.
    pub fn blocks_in_use(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.updates.len()).filter(|block| self.words[self.words_of(*block)].iter().any(|word| *word != 0))
    }

    /// Whether others have the same bits set in a block.
    pub fn says_as(&self, other: &Self, block: usize) -> bool {
        self.words[self.words_of(block)] == other.words[other.words_of(block)]
    }

    /// How many bits are set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The zones whose bits are set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ZoneId> + '_ {
        let in_word = |(at, &word): (u64, &u64)| {
            (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| ZoneId(64 * at + bit))
        };
        (0u64..).zip(&self.words).flat_map(in_word)
    }

    /// Whether a zone's bit is set.
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
        to.bytes(&self.magic).u32_le(0).u16_le(VERSION).u16_le(0).bytes(&self.array.0);
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
        let ours = from.array() == Ok(self.magic)
            && from.skip(4).is_ok()
            && from.u16_le() == Ok(VERSION)
            && from.skip(2).is_ok()
            && from.array() == Ok(self.array.0);
        let (update, index) = (from.u64_le().ok()?, from.u64_le().ok()?);
        // Nobody counts so far, and one that is believed must have room to be advanced.
        (ours && index == block as u64 && update <= journal::MAX_COUNT).then_some(update)
    }

    /// The newer of a member's two slots, if one is valid.
    pub fn newest<'a>(&self, block: usize, slots: &'a [Block; 2]) -> Option<&'a Block> {
        slots.iter().filter(|slot| self.update_in(block, slot).is_some()).max_by_key(|slot| self.update_in(block, slot))
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

    fn encoded(bits: &ZoneBits, block: usize) -> Block {
        let mut out = ZERO_BLOCK;
        bits.encode(block, &mut out);
        out
    }

    fn with(zones: &[u64], updates: u64) -> ZoneBits {
        let mut bits = ZoneBits::new(ARRAY, ZONES, false);
        zones.iter().for_each(|&zone| bits.set(ZoneId(zone)));
        (0..3).for_each(|block| (0..updates).for_each(|_| assert!(bits.advance(block) < 2)));
        bits
    }

    #[test]
    fn what_is_encoded_is_merged_back_block_by_block() {
        let edges = [0, 63, 64, ZONES_PER_BLOCK - 1, ZONES_PER_BLOCK, 2 * ZONES_PER_BLOCK, ZONES - 1];
        let bits = with(&edges, 3);
        let mut back = ZoneBits::new(ARRAY, ZONES, false);
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
        assert_eq!((ZoneBits::blocks_for(1), ZoneBits::blocks_for(ZONES_PER_BLOCK)), (1, 1));
        assert_eq!((ZoneBits::blocks_for(ZONES_PER_BLOCK + 1), ZoneBits::blocks_for(ZONES)), (2, 3));
        assert_eq!(ZoneBits::block_of(ZoneId(ZONES_PER_BLOCK - 1)), 0);
        assert_eq!(ZoneBits::block_of(ZoneId(ZONES - 1)), 2);
    }

    #[test]
    fn a_new_array_of_zeros_has_every_bit_and_none_beyond() {
        for zones in [1, 63, 64, 65, ZONES] {
            let bits = ZoneBits::new(ARRAY, zones, true);
            assert!((0..zones).all(|zone| bits.is_set(ZoneId(zone))));
            let count: u64 = bits.words().iter().map(|word| u64::from(word.count_ones())).sum();
            assert_eq!((count, bits.zones()), (zones, zones));
            assert!(ZoneBits::new(ARRAY, zones, false).words().iter().all(|&word| word == 0));
        }
    }

    #[test]
    fn dirty_zones_come_and_go_and_of_a_member_the_newest_slot_counts() {
        let mut bits = ZoneBits::dirty(ARRAY, ZONES);
        [1, 64, ZONES - 1].into_iter().for_each(|zone| bits.set(ZoneId(zone)));
        assert_eq!(bits.advance(0), 1);
        let older = encoded(&bits, 0);
        bits.clear(ZoneId(64));
        assert_eq!(bits.advance(0), 0);
        let slots = [encoded(&bits, 0), older];
        assert_eq!(bits.iter().map(|zone| zone.0).collect::<Vec<_>>(), [1, ZONES - 1]);
        let mut back = ZoneBits::dirty(ARRAY, ZONES);
        let newest = back.newest(0, &slots).expect("both are valid");
        assert_eq!(newest, &slots[0]);
        assert!(back.merge(0, [newest]));
        assert_eq!((back.count(), back.update(0), back.is_set(ZoneId(1))), (1, 2, true));
        assert_eq!(back.newest(0, &[ZERO_BLOCK, older]), Some(&older), "of what is left");
        assert_eq!(
            back.newest(0, &[ZERO_BLOCK, encoded(&with(&[1], 1), 0)]),
            None,
            "initialised zones are no dirty ones"
        );
        back.set_all(2);
        assert_eq!(back.count(), 1 + 5);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn what_was_written_stays_so() {
        with(&[1], 1).clear(ZoneId(1));
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
        let mut other = ZoneBits::new(Uuid::from_random([1, 2]), ZONES, true);
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
