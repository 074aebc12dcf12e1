//! Members that do not answer in time. A host's read waits for a member only so long if others can answer: then it is *late*,
//! and begins anew without the member; others do not ask it either, until it has answered everything that was given up. It
//! may still write into the buffers of such a read, so the read goes on with other ones ([`super::detained`]).
//!
//! Everything else (writes, flushes, what a destage, a mend or a walk reads) waits longer, since nobody can do it in the
//! member's stead while it is a member. When that is over too, the coordinator is told, which excludes the member if the
//! array can do without it. With the map that says so all that is under way there is given up.

use base::ids::{Slot, StripeId};
use base::slab::Key;
use ports::{BufferList, Ports};
use raid::{ReadPlan, plan_read, slots};

use super::detained::Home;
use super::read::Read;
use super::{ArrayShard, Purpose, Work};
use crate::drives::DriveSettings;
use crate::message::Message;

impl ArrayShard {
    /// Answers of log copies and members are waited for only so long.
    pub(super) fn watch_devices<P>(&self, work: &mut Work<'_, P>) {
        for (_, device) in self.map.log_devices() {
            work.operations.watch(device, self.log_patience);
        }
        let DriveSettings { read_timeout, timeout, .. } = self.drives;
        for (_, member) in self.map.written() {
            work.operations.watch_closely(member.device, timeout, Some(read_timeout));
        }
    }

    /// A member has not answered something for too long, or has answered all of it after all.
    pub(crate) fn hangs(&mut self, slot: Slot, hangs: bool) {
        self.reports.push_back(Message::MemberHangs { array: self.map.id, slot, hangs });
    }

    /// Whether others can answer what a read asks of a member, or stand in for a member whose checksums are wanted. The member is
    /// late from now on if they can.
    pub(crate) fn goes_on_without<P: Ports>(&mut self, work: &Work<'_, P>, purpose: &Purpose) -> bool {
        let (slot, goes_on) = match *purpose {
            Purpose::Read { read, slot, .. } => (slot, self.reads_without(read, slot)),
            Purpose::ChecksumRead { place, .. } => {
                let slot = self.checksum_member(place);
                (slot, self.map.arrangement.geometry().bears(self.map.missing() | self.late | 1 << slot.0))
            }
            _ => return false,
        };
        if goes_on && let Some(member) = self.map.member(slot) {
            work.devices[member.device.index()].late_reads.increment();
        }
        goes_on
    }

    fn reads_without(&self, read: Key<Read>, slot: Slot) -> bool {
        let fragment = &self.reads[read].fragment;
        let place = self.map.arrangement.locate(fragment.start);
        let last = StripeId(place.stripe.0 + u64::from(fragment.count) - 1);
        let without = self.missing(last) | self.late | 1 << slot.0;
        let is_there =
            plan_read(self.map.arrangement.at(place.stripe), place.stripe, place.column, without) != ReadPlan::Lost;
        is_there && self.dirty.is_trusted(self.map.arrangement.zone_of(place.stripe))
    }

    /// How a host's read of blocks of one column goes: without members that are late, if that can be.
    pub(super) fn plan_urgent(&self, stripe: StripeId, last: StripeId, column: u8) -> ReadPlan {
        let geometry = self.map.arrangement.at(stripe);
        let missing = self.missing(last);
        // Where parities may not match, and mirrors neither, all ask the same member.
        if self.late & !missing != 0 && self.dirty.is_trusted(geometry.zone_of(stripe)) {
            let plan = plan_read(geometry, stripe, column, missing | self.late);
            if plan != ReadPlan::Lost {
                return plan;
            }
        }
        plan_read(geometry, stripe, column, missing)
    }

    /// A member was given up for a read.
    pub(super) fn is_late(&mut self, slot: Slot) {
        self.late |= 1 << slot.0;
    }

    /// Slots whose members are late.
    pub(crate) fn late_members(&self) -> Vec<u8> {
        slots(self.late & !self.map.missing()).map(|slot| slot.0).collect()
    }

    /// Members that have answered everything are late no longer.
    pub(crate) fn forgive_late<P: Ports>(&mut self, work: &Work<'_, P>) {
        for slot in slots(self.late) {
            let owes = self.map.member(slot).is_some_and(|member| work.operations.owes(member.device));
            if !owes {
                self.late &= !(1 << slot.0);
            }
        }
    }

    /// Gives a read other buffers for those that a late member may still write into; false if there are none now.
    pub(super) fn change_buffers<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Read>) -> bool {
        let mut before = core::mem::take(&mut self.reads[key].fragment.buffers);
        let held = before.ids(work.ports).filter(|&id| work.operations.is_held(id)).count();
        let Some(mut others) = BufferList::alloc(work.ports, held) else {
            self.reads[key].fragment.buffers = before;
            return false;
        };
        let mut after = BufferList::EMPTY;
        while let Some(buffer) = before.pop(work.ports) {
            if work.operations.is_held(buffer.id()) {
                let other = others.pop(work.ports).expect("as many as are held");
                after.push(work.ports, other);
                self.send_home(work, buffer, Home::Pool);
            } else {
                after.push(work.ports, buffer);
            }
        }
        let read = &mut self.reads[key];
        (read.fragment.buffers, read.late) = (after, false);
        true
    }
}
