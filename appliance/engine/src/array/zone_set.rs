//! A set of an array's zones, a bit each: what a shard remembers of those that are initialised or dirty, were missed or rebuilt.

use base::ids::ZoneId;

/// A bit for each zone.
#[derive(Debug)]
pub(super) struct ZoneSet(Vec<u64>);

impl ZoneSet {
    /// None of so many zones.
    pub(super) fn new(zones: u64) -> Self {
        Self(vec![0; zones.div_ceil(64) as usize])
    }

    /// Those whose bits are set: zone `z` is bit `z % 64` of word `z / 64`.
    pub(super) fn of(words: &[u64]) -> Self {
        Self(words.to_vec())
    }

    pub(super) fn has(&self, zone: ZoneId) -> bool {
        self.0.get((zone.0 / 64) as usize).is_some_and(|word| word & 1 << (zone.0 % 64) != 0)
    }

    pub(super) fn set(&mut self, zone: ZoneId) {
        self.0[(zone.0 / 64) as usize] |= 1 << (zone.0 % 64);
    }

    pub(super) fn clear(&mut self, zone: ZoneId) {
        self.0[(zone.0 / 64) as usize] &= !(1 << (zone.0 % 64));
    }

    pub(super) fn clear_all(&mut self) {
        self.0.fill(0);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// In ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = ZoneId> + '_ {
        let in_word = |(at, &word): (u64, &u64)| {
            (0..64).filter(move |bit| word & 1 << bit != 0).map(move |bit| ZoneId(64 * at + bit))
        };
        (0u64..).zip(&self.0).filter(|(_, word)| **word != 0).flat_map(in_word)
    }
}
