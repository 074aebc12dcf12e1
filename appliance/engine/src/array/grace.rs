//! Tells when all member reads have ended that began before a point in time. Reads are counted by generation; a destage
//! closes the present generation and waits until it, and all before it, are empty.

use std::collections::VecDeque;

/// Reads under way, by generation.
#[derive(Debug)]
pub(crate) struct Grace {
    /// The generation of the front entry.
    oldest: u64,
    counts: VecDeque<u32>,
}

impl Grace {
    pub(crate) fn new(reads: usize) -> Self {
        let mut counts = VecDeque::with_capacity(reads + 2);
        counts.push_back(0);
        Self { oldest: 0, counts }
    }

    /// A read begins; the generation that it must bring back.
    pub(crate) fn begin(&mut self) -> u64 {
        *self.counts.back_mut().expect("there is always a present generation") += 1;
        self.present()
    }

    fn present(&self) -> u64 {
        self.oldest + self.counts.len() as u64 - 1
    }

    /// A read has ended.
    pub(crate) fn end(&mut self, generation: u64) {
        let count = &mut self.counts[(generation - self.oldest) as usize];
        *count = count.checked_sub(1).expect("a read ends once");
        while self.counts.len() > 1 && self.counts[0] == 0 {
            self.counts.pop_front();
            self.oldest += 1;
        }
    }

    /// A point in time: over once [`Grace::is_over`] says so.
    pub(crate) fn point(&mut self) -> u64 {
        if *self.counts.back().expect("there is always a present generation") > 0 {
            self.counts.push_back(0);
        }
        self.present()
    }

    /// Whether all reads have ended that began before the point.
    pub(crate) fn is_over(&self, point: u64) -> bool {
        self.oldest >= point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_over_when_all_reads_before_it_have_ended() {
        let mut grace = Grace::new(8);
        let idle = grace.point();
        assert!(grace.is_over(idle));
        let (first, second) = (grace.begin(), grace.begin());
        let point = grace.point();
        let later = grace.begin();
        assert!(!grace.is_over(point));
        grace.end(second);
        assert!(!grace.is_over(point));
        let newer = grace.point();
        grace.end(first);
        assert!(grace.is_over(point), "a later read does not count");
        assert!(!grace.is_over(newer));
        grace.end(later);
        assert!(grace.is_over(newer));
    }
}
