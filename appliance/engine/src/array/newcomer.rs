//! A device that becomes a copy of the log. From the moment that a shard hears of it, all records and anchors of its lanes go
//! there too, and wait for its answers. What was written before is not copied: it is destaged, until each lane's anchor names a
//! record that the newcomer has. Then it has all that recovery would read, and the coordinator is told, who alone makes it a
//! copy. Until then nobody relies on it.
//!
//! The price: for as long as that takes, stripes go to the members as soon as they are dirty.

use base::ids::LaneId;
use ports::Ports;

use super::{ArrayShard, Work};
use crate::limits::RECORDS_IN_FLIGHT;
use crate::message::Message;

impl ArrayShard {
    /// The map has changed: perhaps somebody new is there, or gone.
    pub(super) fn newcomer_changed(&mut self) {
        let newcomer = self.map.newcomer;
        if self.newcomer.map(|(known, _)| known) == newcomer {
            return;
        }
        self.newcomer = newcomer.map(|newcomer| (newcomer, false));
        for lane in self.lanes.iter_mut().flatten() {
            lane.catch_up = newcomer.is_some().then_some(lane.next_sequence);
        }
    }

    /// Sends an empty record for an anchor to name, where nothing else comes to a lane that a newcomer waits for.
    pub(super) fn mark_catching_up<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId) {
        let lane = self.lanes[id.index()].as_ref().expect("only the owner's lanes are awake");
        let is_wanted = lane.catch_up == Some(lane.next_sequence) && lane.open.items.is_empty();
        if is_wanted && lane.in_flight < RECORDS_IN_FLIGHT && self.may_send(work) {
            self.send_open(work, id);
        }
    }

    /// Tells the coordinator, once, when the newcomer has what all lanes need.
    pub(super) fn report_newcomer(&mut self) {
        let lanes = &self.lanes;
        let has_all = |told: &mut bool| !*told && lanes.iter().flatten().all(|lane| lane.catch_up.is_none());
        if let Some((newcomer, told)) = &mut self.newcomer
            && has_all(told)
        {
            *told = true;
            self.reports.push_back(Message::CopyCaughtUp { array: self.map.id, run: newcomer.run });
        }
    }
}
