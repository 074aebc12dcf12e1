//! The moment at which an array's log comes or goes while hosts go on. Their writes wait, not longer than it takes until what is
//! under way has ended: nothing is in the cache then, the members have everything for good, and no zone is noted as dirty that
//! matches. Whichever way it is written afterwards, nothing of the way before is left. The coordinator decides what comes
//! ([`crate::coordinator`]'s `attach` and `parting`), and its next map lets the writes go on.

use ports::Ports;

use super::lane::LaneStart;
use super::{ArrayShard, Work};
use crate::map::ArrayMap;
use crate::message::Message;

impl ArrayShard {
    /// The map has changed: perhaps writes wait from now on, or no longer, and there may be a log that was none before.
    pub(super) fn hold_changed(&mut self, before: &ArrayMap) {
        if self.map.hold != before.hold {
            self.told_still = false;
            self.stay_dirty();
        }
        // A log that is there has the incarnation of this start until it is renewed.
        if !self.map.is_bare() && (before.is_bare() || self.map.incarnation != before.incarnation) {
            self.begin_log();
        }
    }

    /// All lanes have a ring from now on.
    fn begin_log(&mut self) {
        assert!(self.stripes.held() == 0 && self.destages.is_empty(), "a log begins when nothing is dirty");
        assert!(self.log_reads.is_empty(), "nor being read");
        let map = &self.map;
        for lane in self.lanes.iter_mut().flatten() {
            lane.end_log();
            lane.take_log(&LaneStart::formatted(map, lane.id));
        }
    }

    /// Tells the coordinator, once, that nothing is under way any more while writes wait.
    pub(super) fn report_still<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let Some(run) = self.map.hold.filter(|_| !self.told_still) else { return };
        let is_clean = self.stripes.held() == 0
            && self.destages.is_empty()
            && self.log_reads.is_empty()
            && self.through.is_empty();
        let is_still = self.lanes.iter().flatten().all(|lane| lane.is_still());
        if is_clean && is_still && self.updates.is_empty() && self.walker.is_still() && self.leave_clean(work) {
            self.told_still = true;
            self.reports.push_back(Message::Still { array: self.map.id, run });
        }
    }
}
