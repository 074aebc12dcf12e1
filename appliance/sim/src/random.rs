//! All chance of a run comes from one seed. Each use draws from a stream of its own, by name, so that a new draw in one
//! place does not change what every other place draws. Never asks the machine for anything.

/// A stream of drawn numbers (xoshiro256**, Blackman and Vigna 2018; seeded by splitmix64, as its authors advise).
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of this name under this seed.
    pub fn named(seed: u64, name: &str) -> Self {
        let mut mixed = seed;
        for &byte in name.as_bytes() {
            mixed = scramble(mixed ^ u64::from(byte));
        }
        let mut state = [0; 4];
        for word in &mut state {
            mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *word = scramble(mixed);
        }
        // All zeros is the one state that never leaves itself.
        state[0] |= 1;
        Self { state }
    }

    /// Sixty-four bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `high` is below `low` or the range is that of all numbers.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a range from {low} to {high}");
        low + self.below(high - low + 1)
    }

    /// True once in `many`, on average.
    pub fn once_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Puts them into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// A bijection of 64-bit numbers that looks like chance (the finisher of splitmix64).
pub const fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_name_give_the_same_numbers_and_another_name_gives_others() {
        let draw = |seed, name| {
            let mut random = Random::named(seed, name);
            [random.bits(), random.bits(), random.bits()]
        };
        assert_eq!(draw(7, "device"), draw(7, "device"));
        assert_ne!(draw(7, "device"), draw(7, "mesh"));
        assert_ne!(draw(7, "device"), draw(8, "device"));
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_both_ends() {
        let mut random = Random::named(1, "range");
        let mut seen = [0u32; 4];
        for _ in 0..1000 {
            seen[(random.between(3, 6) - 3) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 150), "{seen:?}");
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        random.shuffle(&mut items);
        items.sort_unstable();
        assert_eq!(items, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
