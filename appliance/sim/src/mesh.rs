//! Messages between the shards of a simulated appliance: bounded queues, in order between two shards, with a delay of their
//! own for each, so that messages of different pairs overtake each other. Nothing is lost short of a power cut.

use std::collections::VecDeque;

use base::ids::ShardId;
use base::time::{Span, Time};

use crate::random::Random;

/// Longest delay of a message.
const DELAY: Span = Span::from_micros(20);

/// The queues between all pairs of shards and the control side.
#[derive(Debug)]
pub struct SimMesh<M> {
    ends: usize,
    capacity: usize,
    // By receiver, then by sender.
    queues: Vec<VecDeque<(Time, M)>>,
}

impl<M> SimMesh<M> {
    /// Empty queues of at most `capacity` messages between `shards` shards and the control side.
    pub fn new(shards: u16, capacity: usize) -> Self {
        let ends = usize::from(shards) + 1;
        Self { ends, capacity, queues: (0..ends * ends).map(|_| VecDeque::with_capacity(capacity)).collect() }
    }

    /// Sends a message, or gives it back if the pair's queue is full.
    ///
    /// # Panics
    /// If the sender sends to itself or to nobody.
    pub fn post(&mut self, from: ShardId, to: ShardId, message: M, now: Time, random: &mut Random) -> Result<(), M> {
        assert!(from != to && to.index() < self.ends, "a message from {from:?} to {to:?}");
        let queue = &mut self.queues[to.index() * self.ends + from.index()];
        if queue.len() == self.capacity {
            return Err(message);
        }
        let arrival = now + Span(random.below(DELAY.0));
        let arrival = queue.back().map_or(arrival, |&(before, _)| arrival.max(before));
        queue.push_back((arrival, message));
        Ok(())
    }

    /// Takes a message that has arrived, from any sender.
    pub fn take(&mut self, to: ShardId, now: Time, random: &mut Random) -> Option<(ShardId, M)> {
        let first = random.below(self.ends as u64) as usize;
        (0..self.ends).map(|step| (first + step) % self.ends).find_map(|from| {
            let queue = &mut self.queues[to.index() * self.ends + from];
            if queue.front()?.0 > now {
                return None;
            }
            queue.pop_front().map(|(_, message)| (ShardId(from as u16), message))
        })
    }

    /// When the next message arrives that has not been taken, if there is one.
    pub fn next_due(&self) -> Option<Time> {
        self.queues.iter().filter_map(|queue| queue.front().map(|&(time, _)| time)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_keeps_its_order_while_pairs_overtake_each_other() {
        let mut overtaken = 0;
        for seed in 0..50 {
            let mut random = Random::named(seed, "mesh");
            let mut mesh = SimMesh::new(3, 4);
            for number in 0..4 {
                mesh.post(ShardId(0), ShardId(2), number, Time(0), &mut random).expect("room");
            }
            assert_eq!(mesh.post(ShardId(0), ShardId(2), 9, Time(0), &mut random), Err(9));
            mesh.post(ShardId(1), ShardId(2), 100, Time(0), &mut random).expect("room");
            let mut taken = Vec::new();
            let mut now = Time(0);
            while let Some(due) = mesh.next_due() {
                now = now.max(due);
                taken.extend(mesh.take(ShardId(2), now, &mut random).map(|(_, message)| message));
            }
            overtaken += u32::from(taken[4] != 100);
            taken.retain(|&message| message != 100);
            assert_eq!(taken, [0, 1, 2, 3]);
            assert!(mesh.take(ShardId(2), now, &mut random).is_none());
        }
        assert!(overtaken > 0);
    }
}
