//! Counters, gauges and histograms with one writer and any number of readers: relaxed atomics, so that a reader sees each
//! number whole but never slows the writer. Adding is a load and a store, no locked instruction; the price is that a second
//! writer would lose counts, which is why each shard has cells of its own.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Span;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`. Only the cell's one writer calls this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that moves both ways.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`. Only the cell's one writer calls this.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Takes `n` away. Only the cell's one writer calls this.
    ///
    /// # Panics
    /// If less than `n` is there: something was counted out that was never counted in.
    pub fn sub(&self, n: u64) {
        let value = self.get();
        assert!(n <= value, "a gauge at {value} cannot lose {n}");
        self.set(value - n);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many observations were at most `STEP`, 2 × `STEP`, 4 × `STEP`, … (`BOUNDS` bounds), and their sum.
#[derive(Debug)]
pub struct Histogram<const STEP: u64, const BOUNDS: usize> {
    /// Observations by the lowest bound that holds them, not cumulative.
    buckets: [Counter; BOUNDS],
    /// Observations above the last bound.
    above: Counter,
    sum: Counter,
}

/// Spans of time: 1 µs to 8.4 s.
pub type Latency = Histogram<1_000, 24>;

/// Numbers of blocks: 1 to 32768.
pub type Sizes = Histogram<1, 16>;

impl<const STEP: u64, const BOUNDS: usize> Default for Histogram<STEP, BOUNDS> {
    fn default() -> Self {
        const {
            assert!(STEP > 0 && BOUNDS > 0 && BOUNDS < 64);
            assert!(STEP << (BOUNDS - 1) >> (BOUNDS - 1) == STEP, "the last bound fits 64 bits");
        }
        Self {
            buckets: core::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum: Counter::default(),
        }
    }
}

impl Latency {
    /// Counts a span. Only the cell's one writer calls this.
    pub fn observe(&self, latency: Span) {
        self.record(latency.0);
    }
}

impl Sizes {
    /// Counts a size. Only the cell's one writer calls this.
    pub fn observe(&self, size: u64) {
        self.record(size);
    }
}

impl<const STEP: u64, const BOUNDS: usize> Histogram<STEP, BOUNDS> {
    fn record(&self, value: u64) {
        // value <= STEP << i exactly if ceil(value / STEP) <= 1 << i.
        let steps = value.div_ceil(STEP).max(1);
        let index = (u64::BITS - (steps - 1).leading_zeros()) as usize;
        self.buckets.get(index).unwrap_or(&self.above).increment();
        self.sum.add(value);
    }

    /// The upper bounds, inclusive, in the unit of what is observed.
    pub fn bounds() -> impl Iterator<Item = u64> {
        (0..BOUNDS).map(|i| STEP << i)
    }

    /// Adds what was observed to `into`: bucket by bucket, then those above the last bound. Says the sum.
    ///
    /// # Panics
    /// If `into` has not one place more than there are bounds.
    pub fn add_to(&self, into: &mut [u64]) -> u64 {
        assert_eq!(into.len(), BOUNDS + 1);
        for (total, bucket) in into.iter_mut().zip(self.buckets.iter().chain([&self.above])) {
            *total += bucket.get();
        }
        self.sum.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lands_in_the_lowest_bucket_whose_bound_holds_it() {
        let oracle = |value: u64| Latency::bounds().position(|bound| value <= bound).unwrap_or(24);
        let edges = Latency::bounds().flat_map(|bound| [bound - 1, bound, bound + 1]);
        for value in edges.chain([0, 1, u64::MAX]) {
            let histogram = Latency::default();
            histogram.observe(Span(value));
            let mut buckets = [0; 25];
            assert_eq!(histogram.add_to(&mut buckets), value);
            assert_eq!(buckets.iter().position(|n| *n == 1), Some(oracle(value)), "{value} ns");
            assert_eq!(buckets.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn sizes_of_blocks_have_powers_of_two_as_bounds() {
        let sizes = Sizes::default();
        for size in [1, 2, 3, 32768, 32769] {
            sizes.observe(size);
        }
        let mut buckets = [0; 17];
        assert_eq!(sizes.add_to(&mut buckets), 1 + 2 + 3 + 32768 + 32769);
        assert_eq!((buckets[0], buckets[1], buckets[2], buckets[15], buckets[16]), (1, 1, 1, 1, 1));
    }

    #[test]
    fn gauges_move_both_ways_and_counters_up() {
        let (gauge, counter) = (Gauge::default(), Counter::default());
        gauge.add(5);
        gauge.sub(2);
        counter.add(7);
        counter.increment();
        assert_eq!((gauge.get(), counter.get()), (3, 8));
    }

    #[test]
    #[should_panic(expected = "cannot lose")]
    fn a_gauge_never_falls_below_zero() {
        Gauge::default().sub(1);
    }
}
