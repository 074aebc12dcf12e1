//! Nothing is written any more: too many members are lost, or the log is, and reads alone go on.

use ports::Ports;

use super::{ArrayShard, Work};

impl ArrayShard {
    /// If nothing is written from now on, whoever waits for it is told.
    pub(super) fn halt_if_refused<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        let Some(error) = self.map.service.refuses_writes().filter(|_| !self.halted) else { return };
        self.halted = true;
        self.walker.cancel();
        for lane in self.lanes.iter_mut().flatten() {
            let groups = lane.records.iter_mut().filter_map(|record| record.group.as_mut());
            for group in groups.chain(core::iter::once(&mut lane.open)) {
                for told in group.acknowledgements.drain(..) {
                    self.answers.push_back((told.from, told.failed(error)));
                }
            }
        }
        let waiting: Vec<_> = self.through.iter().map(|(key, _)| key).collect();
        for key in waiting {
            let through = self.through.remove(key).expect("it was there just now");
            self.answers.push_back((through.told.from, through.told.failed(error)));
        }
        self.refuse_owed(error);
        self.admit_waiting(work);
    }
}
