//! Ranges of a walk that are given back: what was read of them counts for nothing, and what they had at hand goes home.

use ports::Ports;

use super::super::detained::Home;
use super::super::{ArrayShard, Work};
use super::Step;

impl ArrayShard {
    /// What was read of a range counts for nothing.
    pub(super) fn begin_range_again<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        self.walker.ranges[at].step = Step::Waiting;
        self.send_rows_home(work, at);
        self.leave_ranges();
    }

    pub(super) fn send_rows_home<P: Ports>(&mut self, work: &mut Work<'_, P>, at: usize) {
        while let Some(buffer) = self.walker.ranges[at].rows.pop() {
            self.send_home(work, buffer, Home::Walks);
        }
        self.walker.give_back(at);
    }

    /// Checksum blocks that ranges had at hand may go.
    pub(super) fn leave_ranges(&mut self) {
        while let Some((start, kept)) = self.walker.left.pop() {
            self.leave_checksums(start, kept);
        }
    }
}
