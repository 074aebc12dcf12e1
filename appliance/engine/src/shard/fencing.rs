//! Associations that end, and single requests that are aborted: what a shard drops, and how it comes to confirm that.

use base::ids::ShardId;
use ports::Ports;

use super::Shard;
use crate::fence::Association;
use crate::front::{Cause, Front};
use crate::message::{Fragment, Message};
use crate::router::Dropped;

impl Shard {
    /// Gives a fragment to its array, unless its association has ended.
    pub(super) fn fragment<P: Ports<Message = Message>>(&mut self, ports: &mut P, from: ShardId, fragment: Fragment) {
        if self.fences.is_stale(fragment.association) {
            let aborted = fragment.aborted(ports);
            self.answer(ports, from, aborted);
        } else {
            let array = fragment.array;
            self.with_array(ports, array, |array, work| array.fragment(work, from, fragment));
        }
    }

    /// An association has ended: drops what is of an older epoch, and confirms once none of it is under way here.
    pub(super) fn raise<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        asker: ShardId,
        association: Association,
        cause: Cause,
    ) {
        if let Some(front) = &mut self.front {
            front.fenced(ports, association, cause);
        }
        self.count_fenced();
        for array in &mut self.arrays {
            array.drop_waiting(ports, Dropped::Before(association));
        }
        let left = self.router.fence(ports, association);
        self.fences.raise(asker, association, left);
    }

    fn count_fenced(&mut self) {
        while let Some(association) = self.router.fenced_ended() {
            self.fences.ended(association);
        }
    }

    /// Tells every shard, this one too, of associations that have ended at their home here.
    pub(super) fn raise_everywhere<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        let mut worked = false;
        while let Some((association, cause)) = self.front.as_mut().and_then(Front::next_raise) {
            worked = true;
            for shard in (0..ports.shards()).map(ShardId).filter(|&shard| shard != self.shard) {
                let posted = ports.post(shard, Message::Raise { association, cause });
                assert!(posted.is_ok(), "the mesh keeps room for what is rare");
            }
            self.raise(ports, self.shard, association, cause);
        }
        worked
    }

    /// A request of `from` is to be aborted: what waits of it here is dropped.
    pub(super) fn abort_waiting<P: Ports<Message = Message>>(&mut self, ports: &mut P, from: ShardId, request: u64) {
        for array in &mut self.arrays {
            array.drop_waiting(ports, Dropped::Of(from, request));
        }
        if from != self.shard {
            self.aborts_tried.push((from, request));
        }
    }

    /// Has every owner, this shard too, drop what waits of requests that are to be aborted.
    pub(super) fn abort_everywhere<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        let mut worked = false;
        while let Some(request) = self.router.next_abort(ports) {
            worked = true;
            self.abort_waiting(ports, self.shard, request);
        }
        worked
    }

    /// Tells those who wait for it that nothing of an older epoch is under way any more, or that an abort has done here what
    /// it could: behind all answers of this turn.
    pub(super) fn confirm<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        self.count_fenced();
        let mut worked = false;
        for (asker, request) in self.aborts_tried.drain(..) {
            let posted = ports.post(asker, Message::AbortTried { request });
            assert!(posted.is_ok(), "the mesh keeps room for aborts");
            worked = true;
        }
        while let Some(token) = self.router.goes_on() {
            if let Some(front) = &mut self.front {
                front.goes_on(token);
            }
        }
        while let Some((asker, association)) = self.fences.confirmed() {
            worked = true;
            if asker == self.shard {
                let front = self.front.as_mut().expect("a front raised it");
                front.raised(ports, asker, association);
            } else if ports.post(asker, Message::Raised(association)).is_err() {
                self.fences.take_back(asker, association);
                break;
            }
        }
        worked
    }
}
