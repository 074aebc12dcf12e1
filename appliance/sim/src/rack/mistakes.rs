//! What a device gets wrong by itself, and what a read finds that overlaps writes.

use base::ids::{DeviceBlock, DeviceId, ShardId};
use base::time::Span;
use ports::DeviceOp;

use super::Rack;
use crate::device::{Content, mix};

impl Rack {
    // A flush is never tried again, so it must not fail.
    pub(super) fn draw_hiccup(&mut self, shard: ShardId, tag: u64, device: DeviceId, op: DeviceOp) -> bool {
        let once_in = self.devices[device.index()].options.hiccup_once_in;
        if self.had_hiccup.remove(&(shard, tag)) || once_in == 0 || op == DeviceOp::Flush {
            return false;
        }
        let hiccup = self.hiccups.once_in(once_in);
        if hiccup {
            self.had_hiccup.insert((shard, tag));
        }
        hiccup
    }

    /// Reads of a device that begin from now on take so long; none is as long as ever.
    pub fn slow_reads(&mut self, device: DeviceId, span: Option<Span>) {
        self.devices[device.index()].reads_take = span;
    }

    // Never once a log copy was lost: then the other is the only one.
    pub(super) fn draw_rot(&mut self, device: DeviceId, op: DeviceOp) -> bool {
        let once_in = self.devices[device.index()].options.rots_once_in;
        let lost_log = self.devices.iter().any(|device| device.options.holds_log && device.was_lost);
        op == DeviceOp::Read && once_in > 0 && !lost_log && self.rots.once_in(once_in)
    }

    // What a read finds that overlaps writes in flight: of each block the old content, the new, or sectors of both.
    pub(super) fn sight(&mut self, device: DeviceId, start: DeviceBlock, count: usize) -> Vec<Content> {
        let medium = &self.devices[device.index()].medium;
        let mut seen: Vec<Content> =
            (0..count as u64).map(|offset| medium.read(DeviceBlock(start.0 + offset)).clone()).collect();
        for flight in self.flights.values().filter(|flight| flight.device == device && !flight.failed) {
            for (offset, content) in flight.data.iter().enumerate() {
                let at = flight.start.0 + offset as u64;
                if let Some(place) = at.checked_sub(start.0).and_then(|offset| seen.get_mut(offset as usize)) {
                    *place = match self.random.below(3) {
                        0 => continue,
                        1 => content.clone(),
                        _ => mix(place, content, self.random.bits() as u8),
                    };
                }
            }
        }
        seen
    }
}
