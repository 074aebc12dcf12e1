//! Virtual time: it moves only when the world says so, to the next thing that is due. Never looks at a real clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use base::time::{Span, Time};

/// The time, and numbered things that become due.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    now: Time,
    // Ties are broken by number, so that the order is that of the run and not of the heap.
    due: BinaryHeap<Reverse<(Time, u64)>>,
}

impl Clock {
    /// The time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Makes a thing due after a span.
    pub fn after(&mut self, span: Span, thing: u64) {
        self.due.push(Reverse((self.now + span, thing)));
    }

    /// When the next thing is due, if any is.
    pub fn next_due(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes a thing that is due by now.
    pub fn take_due(&mut self) -> Option<u64> {
        if self.next_due()? > self.now {
            return None;
        }
        self.due.pop().map(|Reverse((_, thing))| thing)
    }

    /// Moves on to a time; the past is ignored.
    pub fn advance(&mut self, to: Time) {
        self.now = self.now.max(to);
    }

    /// Forgets everything that was to come: the power is gone.
    pub fn forget(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_due_in_order_of_time_and_then_of_number() {
        let mut clock = Clock::default();
        clock.after(Span(5), 1);
        clock.after(Span(3), 3);
        clock.after(Span(3), 2);
        assert_eq!(clock.take_due(), None);
        assert_eq!(clock.next_due(), Some(Time(3)));
        clock.advance(Time(4));
        assert_eq!((clock.take_due(), clock.take_due(), clock.take_due()), (Some(2), Some(3), None));
        clock.advance(Time(1));
        assert_eq!(clock.now(), Time(4));
        clock.forget();
        assert_eq!(clock.next_due(), None);
    }
}
