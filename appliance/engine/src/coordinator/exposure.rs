//! An array whose last log copy is lost, and which is to go on without (`write-through-exposed`, rule L10). There is always
//! somewhere a truth that a start can find:
//!
//! 1. *Draining.* An epoch that says so is durable on all members: from then on bits of dirty zones count. Shards write to the
//!    members what only memory holds, as an array without a log would, and acknowledge nothing that is not in the log. If the
//!    power fails meanwhile the copies are believed as before, should they come back: they lack nothing that was acknowledged,
//!    and zones whose bit is set are resynced. Without them the array is refused, as any whose log is missing.
//! 2. *Exposed.* Once all shards have drained an epoch is made durable that gives the log up. No copy is read from then on; so
//!    only now shards acknowledge what the log does not have.
//!
//! What can never be drained, because old content is lost that it would be destaged with, ends that: the array is read-only then,
//! like one whose policy that is, and nothing further is recorded.
//!
//! An array that lacks members when its log is lost is read-only instead: what parities say there would hang on no crash
//! coming. A member that is lost later is excluded as of any array without a log.

use base::ids::ArrayId;

use super::Coordinator;
use super::proposal::Edit;
use crate::command::{Event, Refusal};
use crate::map::Service;

impl Coordinator {
    /// The last copy of the log is lost, and all shards are about to hear of it.
    pub(super) fn log_lost(&mut self, id: ArrayId) {
        self.arrays[id.index()].drained = (0, false);
        self.mode_refused(id, Refusal::Down);
    }

    /// A shard has drained, or cannot.
    pub(super) fn drained(&mut self, id: ArrayId, blocked: bool) {
        let (shards, any_blocked) = &mut self.arrays[id.index()].drained;
        *shards += 1;
        *any_blocked |= blocked;
    }

    /// Gives the log up once all shards have drained; whether it was so.
    pub(super) fn go_on_exposing(&mut self, id: ArrayId) -> bool {
        let array = &mut self.arrays[id.index()];
        let (shards, blocked) = array.drained;
        let is_due = array.array.map.service == Service::Draining && (blocked || shards == self.shards);
        if is_due && array.is_at_rest() {
            array.pending.edit = Some(if blocked { Edit::Halt } else { Edit::Expose });
            return true;
        }
        false
    }

    /// The array goes on without a log.
    pub(super) fn exposed(&mut self, id: ArrayId) {
        self.tell(Event::Exposed { array: id });
        self.end_if_all_is_written();
    }
}
