//! How long members take compared with their peers. A drive that is about to fail often grows slow first, and one slow
//! member makes the whole array slow. What counts is the mean of a second of load, reads and writes apart, against the median
//! of the other members: whatever is slow for all (a busy controller, large requests) makes nobody stand out.
//!
//! It judges nobody who had little to do, and knows nothing of who is missing: who is gone has no requests.

use base::ids::Slot;
use base::time::{Span, Time};

/// How often the members are compared.
const LOOK_EVERY: Span = Span::from_secs(1);

/// Requests that a member must have ended for its mean to say anything. A slow one ends few.
const ENOUGH: u64 = 4;

/// Peers that must have ended as many.
const ENOUGH_PEERS: usize = 2;

/// So many times the median of its peers is slow.
const TIMES: u64 = 8;

/// Below this nobody is slow, whatever the others do.
const NEVER_SLOW: Span = Span::from_millis(2);

/// Looks in a row after which a member is called slow, or slow no longer.
const LOOKS: u8 = 5;

/// Reads and writes.
const KINDS: usize = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    ns: u64,
}

impl Sum {
    fn mean(self) -> Option<u64> {
        (self.count >= ENOUGH).then(|| self.ns / self.count)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct MemberTimes {
    sums: [Sum; KINDS],
    /// Looks in a row that say otherwise than what was told.
    looks: u8,
    slow: bool,
}

/// What has changed: a member has become slow or is slow no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerChange {
    pub(crate) slot: Slot,
    pub(crate) slow: bool,
    /// Its mean, and the median of its peers.
    pub(crate) mean: Span,
    pub(crate) peers: Span,
}

/// What the members took since the last look.
#[derive(Debug)]
pub(crate) struct Peers {
    /// By slot.
    members: Vec<MemberTimes>,
    next_look: Time,
}

impl Peers {
    pub(crate) fn new(members: usize) -> Self {
        Self { members: vec![MemberTimes::default(); members], next_look: Time(0) }
    }

    /// A member has ended a request.
    pub(crate) fn note(&mut self, slot: Slot, is_write: bool, took: Span) {
        let sum = &mut self.members[slot.index()].sums[usize::from(is_write)];
        sum.count += 1;
        sum.ns = sum.ns.saturating_add(took.0);
    }

    /// Members that are called slow, as a bit mask.
    pub(crate) fn slow(&self) -> u32 {
        (0..).zip(&self.members).fold(0, |mask, (slot, member)| mask | u32::from(member.slow) << slot)
    }

    /// Forgets what was said of a member: another may have come to its place.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.members[slot.index()] = MemberTimes::default();
    }

    /// Compares the members, if it is time; calls `tell` for each that has changed.
    pub(crate) fn look(&mut self, now: Time, mut tell: impl FnMut(PeerChange)) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        for slot in 0..self.members.len() {
            let Some((is_slow, mean, peers)) = self.judge(slot) else { continue };
            let member = &mut self.members[slot];
            member.looks = if is_slow == member.slow { 0 } else { member.looks + 1 };
            if member.looks >= LOOKS {
                (member.looks, member.slow) = (0, is_slow);
                tell(PeerChange { slot: Slot(slot as u8), slow: is_slow, mean, peers });
            }
        }
        for member in &mut self.members {
            member.sums = [Sum::default(); KINDS];
        }
    }

    /// Whether a member was slow, by the kind that speaks most against it; none if nothing can be said.
    fn judge(&self, slot: usize) -> Option<(bool, Span, Span)> {
        let kinds = (0..KINDS).filter_map(|kind| {
            let mean = self.members[slot].sums[kind].mean()?;
            let median = self.median_of_others(slot, kind)?;
            let is_slow = mean > NEVER_SLOW.0 && mean / TIMES >= median;
            Some((is_slow, Span(mean), Span(median)))
        });
        kinds.max_by_key(|&(is_slow, mean, _)| (is_slow, mean))
    }

    fn median_of_others(&self, slot: usize, kind: usize) -> Option<u64> {
        let mut means = [0; raid::level::MAX_MEMBERS as usize];
        let mut count = 0;
        for (_, member) in self.members.iter().enumerate().filter(|&(other, _)| other != slot) {
            if let Some(mean) = member.sums[kind].mean() {
                means[count] = mean;
                count += 1;
            }
        }
        let means = &mut means[..count];
        means.sort_unstable();
        (count >= ENOUGH_PEERS).then(|| means[(count - 1) / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets members of these latencies (in microseconds) work for some seconds; what was told.
    fn work(
        peers: &mut Peers,
        from: u64,
        seconds: u64,
        micros: &[u64],
        requests: u64,
        is_write: bool,
    ) -> Vec<(u8, bool)> {
        let mut told = Vec::new();
        for second in from..from + seconds {
            for (slot, &us) in (0..).zip(micros) {
                for _ in 0..requests {
                    peers.note(Slot(slot), is_write, Span::from_micros(us));
                }
            }
            peers.look(Time(0) + Span::from_secs(second), |change| told.push((change.slot.0, change.slow)));
        }
        told
    }

    #[test]
    fn who_is_much_slower_than_its_peers_for_some_seconds_is_told_and_so_is_its_end() {
        let mut peers = Peers::new(4);
        let slow = [500, 600, 9_000, 550];
        assert_eq!(work(&mut peers, 1, 4, &slow, 10, false), [], "not yet");
        assert_eq!(work(&mut peers, 5, 3, &slow, 10, false), [(2, true)], "once");
        assert_eq!(peers.slow(), 0b100);
        assert_eq!(work(&mut peers, 8, 4, &[500; 4], 10, false), []);
        assert_eq!(work(&mut peers, 12, 4, &[500; 4], 10, false), [(2, false)]);
        assert_eq!(peers.slow(), 0);
    }

    #[test]
    fn nobody_stands_out_who_is_like_the_others_fast_enough_idle_or_was_slow_for_a_moment() {
        for (micros, requests) in
            [([90_000, 80_000, 90_000, 70_000], 10), ([50, 50, 1_900, 50], 10), ([500, 500, 90_000, 500], 3)]
        {
            assert_eq!(work(&mut Peers::new(4), 1, 20, &micros, requests, true), []);
        }
        let mut peers = Peers::new(4);
        for round in 0..5 {
            let from = 1 + 6 * round;
            assert_eq!(work(&mut peers, from, 4, &[500, 500, 90_000, 500], 10, false), []);
            assert_eq!(work(&mut peers, from + 4, 2, &[500; 4], 10, false), []);
        }
    }

    #[test]
    fn writes_are_not_held_against_reads() {
        let mut peers = Peers::new(3);
        for second in 1..20 {
            for _ in 0..10 {
                peers.note(Slot(0), false, Span::from_millis(8));
                peers.note(Slot(1), true, Span::from_micros(50));
                peers.note(Slot(2), true, Span::from_micros(50));
            }
            peers.look(Time(0) + Span::from_secs(second), |change| panic!("{change:?}"));
        }
    }
}
