//! What may be lost at a moment, and what if it were.

use base::ids::{DeviceId, Slot};
use raid::{Geometry, slots};

use super::{World, further_losses};
use crate::failure::Failure;
use crate::scenario::{Scenario, ZONE_STRIPES};
use crate::subject::Subject;

impl World {
    // The largest sets of members that can be lost beside these (a bit mask), if those that stay can then know that nobody went
    // on without them.
    pub(super) fn losses(&self, lost: u32, device: impl Fn(Slot) -> DeviceId) -> Vec<Vec<DeviceId>> {
        let all_copies = self.scenario.log_devices().all(|copy| !self.rack.borrow().was_lost(copy));
        let is_decided = |more: &u32| all_copies || self.scenario.is_decided_without_logs(lost | more);
        let further = further_losses(&self.scenario.geometry(), lost).filter(is_decided);
        further.map(|more| slots(more).map(&device).collect()).collect()
    }

    // The same of an array that is whole, perhaps with a further member. It may not have noticed yet that it is not.
    pub(super) fn losses_of_whole(&self, members: &[DeviceId]) -> Vec<Vec<DeviceId>> {
        if members.iter().any(|device| self.rack.borrow().was_lost(*device)) {
            return Vec::new();
        }
        if members.len() == usize::from(self.scenario.members) {
            return self.losses(0, |slot| members[slot.index()]);
        }
        let Scenario { level, chunk_blocks, zones, .. } = self.scenario;
        let count = u8::try_from(members.len()).expect("a few");
        let grown = Geometry::new(level, count, chunk_blocks, zones * ZONE_STRIPES).expect("the array has it");
        let all_copies = self.scenario.log_devices().all(|copy| !self.rack.borrow().was_lost(copy));
        let lost = if all_copies { further_losses(&grown, 0).collect() } else { Vec::new() };
        lost.into_iter().map(|more| slots(more).map(|slot| members[slot.index()]).collect()).collect()
    }

    pub(super) fn probe_each<S: Subject>(&mut self, losses: Vec<Vec<DeviceId>>) -> Result<(), Failure> {
        for devices in losses {
            self.probes += 1;
            let verified = self.without(&devices).verify::<S>();
            verified.map_err(|failure| Failure::AfterLoss { devices, failure: Box::new(failure) })?;
        }
        Ok(())
    }
}
