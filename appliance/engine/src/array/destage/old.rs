//! Old content that a destage reads: what members answered, compared with its checksum, and mended if it cannot be had.

use base::ids::Slot;
use base::slab::Key;
use ports::{DeviceError, Ports};

use super::super::checksums::Check;
use super::super::mend::{Mended, Wanting};
use super::super::{ArrayShard, Work};
use super::{Destage, Phase};

impl ArrayShard {
    /// A member has answered a read of old content.
    pub(crate) fn destage_read<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Destage>,
        slot: Slot,
        result: Result<(), DeviceError>,
    ) {
        let stripe = self.stripes.get(self.destages[key].stripe).id;
        match result {
            Ok(()) if self.map.checksums => {
                let read = self.destages[key].old.iter().find(|(of, _)| *of == slot);
                let (_, read) = read.expect("it had been asked for");
                let check = self.check(work.ports, slot, stripe, read.id());
                if check == Check::Wrong {
                    self.found_wrong(work, slot);
                }
                if check != Check::Right {
                    self.destages[key].unreadable |= 1 << slot.0;
                }
            }
            Ok(()) => {}
            Err(DeviceError::Unreadable) => {
                self.destages[key].unreadable |= 1 << slot.0;
                self.found_unreadable(work, slot);
            }
            Err(_) => {
                self.destages[key].failed = true;
                self.member_failed(slot);
            }
        }
        if self.map.checksums {
            self.leave_checksums(stripe, 1 << slot.0);
        }
        self.destage_answered(work, key);
    }

    /// New content has come from the log, or can be had from no copy of it.
    pub(crate) fn destage_from_log<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Destage>,
        column: u8,
        is_there: bool,
    ) {
        if !is_there {
            let stripe = self.stripes.get(self.destages[key].stripe).id;
            let lost = self.homes_of_columns(stripe, 1 << column);
            let destage = &mut self.destages[key];
            (destage.lost, destage.log_lost) = (destage.lost | lost, true);
        }
        self.destage_answered(work, key);
    }

    fn destage_answered<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let destage = &mut self.destages[key];
        destage.unanswered -= 1;
        if destage.unanswered > 0 {
            return;
        }
        if destage.log_lost {
            self.block(work, key);
        } else if destage.failed {
            self.plan_anew(work, key);
        } else if destage.unreadable != 0 {
            destage.phase = Phase::Mending;
            self.to_mend.push_back(key);
        } else {
            self.compute(work, key);
        }
    }

    /// Starts mending old content that could not be read, as far as there is room.
    pub(crate) fn mend_for_destages<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        for _ in 0..self.to_mend.len() {
            let key = self.to_mend.pop_front().expect("as many as there were");
            let destage = &self.destages[key];
            let slot = Slot(destage.unreadable.trailing_zeros() as u8);
            let stripe = self.stripes.get(destage.stripe).id;
            if !self.start_mend(work, stripe, slot, Wanting::Destage(key)) {
                self.to_mend.push_back(key);
            }
        }
    }

    /// Old content was mended, or cannot be.
    pub(crate) fn destage_mended<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Destage>,
        slot: Slot,
        mended: Mended,
    ) {
        let destage = &mut self.destages[key];
        match mended {
            Mended::Content(content) => {
                let place = destage.old.iter().find(|(read, _)| *read == slot);
                let (_, buffer) = place.expect("what was mended had been asked for");
                let (to, from) = work.ports.pair(buffer.id(), content);
                to.copy_from_slice(from);
                destage.unreadable &= !(1 << slot.0);
                if destage.unreadable == 0 {
                    self.compute(work, key);
                } else {
                    self.to_mend.push_back(key);
                }
            }
            Mended::Again => self.plan_anew(work, key),
            Mended::Lost { others } => {
                // Perhaps the parity can be made without it. Each time there is less left to be read.
                destage.lost |= 1 << slot.0 | others;
                self.plan_anew(work, key);
            }
        }
    }
}
