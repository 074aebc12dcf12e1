//! Devices that do not answer in time: who is told, and what is given up.

use base::ids::DeviceId;
use base::metrics::DeviceOp as CountedOp;
use base::time::Span;
use ports::{DeviceError, Ports};

use super::Shard;
use crate::array::Purpose;
use crate::message::Message;

impl Shard {
    /// Looks after devices that have not answered in time. Log devices are given up. Members are given up by whoever can do
    /// without them: a read that others can answer at once, everything else once they are excluded.
    pub(super) fn watch<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> bool {
        let mut worked = false;
        while let Some((index, device, purpose)) = self.operations.late() {
            worked = true;
            let purpose = *purpose;
            let (Purpose::Read { array, .. } | Purpose::ChecksumRead { array, .. }) = purpose else {
                unreachable!("only reads of hosts and of checksums are urgent")
            };
            if self.with_array(ports, array, |array, work| array.goes_on_without(work, &purpose)) {
                let purpose = self.operations.give_up_one(index);
                self.completed(ports, purpose, (device, Span::ZERO), Err(DeviceError::Late));
            } else {
                self.operations.let_wait(index);
            }
        }
        while let Some(device) = self.operations.overdue() {
            worked = true;
            self.operations.overdue_is_told(device);
            if !self.report_hanging(device, true) {
                self.give_up(ports, device);
            }
        }
        while let Some(device) = self.operations.answers_again() {
            worked = true;
            self.report_hanging(device, false);
        }
        worked
    }

    /// Tells the coordinator of a member that hangs, or does so no longer; false if it is none.
    fn report_hanging(&mut self, device: DeviceId, hangs: bool) -> bool {
        let Some((array, slot)) =
            self.arrays.iter_mut().find_map(|array| array.map().slot_of(device).map(|slot| (array, slot)))
        else {
            return false;
        };
        array.hangs(slot, hangs);
        true
    }

    /// Nobody waits any longer for a device's answers: whatever is under way there has failed.
    pub(super) fn give_up<P: Ports<Message = Message>>(&mut self, ports: &mut P, device: DeviceId) {
        while let Some(purpose) = self.operations.give_up(device) {
            // Its latency is not known yet.
            self.metrics.shard(self.shard).devices[device.index()].ops[CountedOp::Write as usize].record(0, false);
            self.completed(ports, purpose, (device, Span::ZERO), Err(DeviceError::Late));
        }
    }
}
