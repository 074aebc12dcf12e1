//! How fast work in the background goes: no faster than a rate, and slower while hosts wait longer than they should. The
//! wait is measured on the parts of requests that this shard serves. While their recent average is above the target, each
//! step of the work waits twice as long as the one before; while it is not, half as long. So the work never stops, and is at
//! its full rate again soon after hosts are.

use base::time::{Span, Time};

/// Longest wait before a step, however long hosts wait.
pub(crate) const MAX_DELAY: Span = Span::from_millis(200);

/// The first wait.
const MIN_DELAY: Span = Span::from_micros(500);

/// The part of the average that a new sample makes up.
const SHARE: u64 = 8;

/// Samples older than this say nothing of now.
const STALE: Span = Span::from_millis(250);

/// What the work is to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second at most; 0 is as many as there may be.
    pub bytes_a_second: u64,
    /// How long hosts may wait on average before the work slows down; zero is for ever.
    pub latency: Span,
}

/// When the next step may be taken.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Time,
    delay: Span,
    average_ns: u64,
    observed: Time,
}

impl Pace {
    /// Hosts waited so long.
    pub(crate) fn observe(&mut self, latency: Span, now: Time) {
        let is_stale = now.since(self.observed) > STALE;
        self.average_ns =
            if is_stale { latency.0 } else { self.average_ns - self.average_ns / SHARE + latency.0 / SHARE };
        self.observed = now;
    }

    /// When the next step may be taken.
    pub(crate) fn next(&self) -> Time {
        self.next
    }

    /// Takes a step of so many bytes.
    pub(crate) fn step(&mut self, limits: Limits, bytes: u64, now: Time) {
        let is_slow =
            limits.latency > Span::ZERO && self.average_ns > limits.latency.0 && now.since(self.observed) <= STALE;
        self.delay = if is_slow {
            Span((2 * self.delay.0).clamp(MIN_DELAY.0, MAX_DELAY.0))
        } else if self.delay > MIN_DELAY {
            Span(self.delay.0 / 2)
        } else {
            Span::ZERO
        };
        let takes = (bytes * 1_000_000_000).checked_div(limits.bytes_a_second).unwrap_or(0);
        self.next = now + Span(takes.max(self.delay.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: u64 = 128 << 10;

    #[test]
    fn the_rate_is_kept_and_without_one_nothing_waits() {
        let mut pace = Pace::default();
        let mut now = Time(0);
        let limits = Limits { bytes_a_second: 1 << 20, latency: Span::ZERO };
        for _ in 0..8 {
            pace.step(limits, RANGE, now);
            now = pace.next();
        }
        assert_eq!(now, Time(0) + Span::from_secs(1), "a mebibyte in eight steps");
        pace.step(Limits { bytes_a_second: 0, ..limits }, RANGE, now);
        assert_eq!(pace.next(), now);
    }

    #[test]
    fn hosts_that_wait_slow_it_down_to_a_bound_and_it_comes_back() {
        let mut pace = Pace::default();
        let limits = Limits { bytes_a_second: 0, latency: Span::from_millis(5) };
        let mut now = Time(0) + Span::from_secs(1);
        let mut waits = Vec::new();
        for _ in 0..16 {
            pace.observe(Span::from_millis(50), now);
            pace.step(limits, RANGE, now);
            waits.push(pace.next().since(now));
            now = pace.next();
        }
        assert!(waits.is_sorted() && waits[0] == MIN_DELAY && waits[15] == MAX_DELAY, "{waits:?}");
        for _ in 0..32 {
            pace.observe(Span::from_millis(1), now);
            pace.step(limits, RANGE, now);
            now = pace.next();
        }
        pace.step(limits, RANGE, now);
        assert_eq!(pace.next(), now, "hosts are well again");
    }

    #[test]
    fn what_hosts_waited_long_ago_does_not_count() {
        let mut pace = Pace::default();
        let limits = Limits { bytes_a_second: 0, latency: Span::from_millis(5) };
        let now = Time(0) + Span::from_secs(1);
        pace.observe(Span::from_secs(1), now);
        let later = now + Span::from_secs(1);
        pace.step(limits, RANGE, later);
        assert_eq!(pace.next(), later, "nobody is there");
        pace.observe(Span::from_millis(1), later);
        pace.step(limits, RANGE, later);
        assert_eq!(pace.next(), later);
    }
}
