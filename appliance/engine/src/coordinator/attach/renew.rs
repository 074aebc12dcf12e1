//! The log moves to other devices, all at once, and is as long there as the smallest of them allows: so it becomes larger on an array
//! that hosts write to. Its records do not move. Writes wait, as for a log that begins, until the members have all that the old one
//! holds; then the new one begins, empty, in the epoch in which the old one ends. Both are true at that moment, so a crash may find
//! either.

use base::ids::ArrayId;
use journal::MAX_COPIES;

use super::super::join::Spare;
use super::super::{Coordinated, Coordinator};
use super::{Attaching, Comer, Step};
use crate::array::Purpose;
use crate::command::Refusal;
use crate::map::{ArrayMap, Newcomer};
use crate::operations::Operations;

impl Attaching {
    /// All that have been prepared, as they are to be copies.
    pub(super) fn comers(&self) -> Vec<Comer> {
        let Self { newcomer, uuid, superblock, ready, .. } = self;
        let last = Comer { newcomer: *newcomer, uuid: *uuid, superblock: superblock.clone() };
        let mut all: Vec<Comer> = ready.iter().cloned().chain([last]).collect();
        all.iter_mut().for_each(|comer| comer.superblock.joining = false);
        all
    }

    /// The next one is to be prepared.
    pub(super) fn prepare_next(&mut self) {
        let (spare, before) = (self.rest.remove(0), self.newcomer);
        self.ready.push(Comer { newcomer: before, uuid: self.uuid, superblock: self.superblock.clone() });
        self.newcomer = Newcomer { copy: before.copy + 1, device: spare.device, run: before.run };
        self.uuid = spare.uuid;
        (self.superblock.copy, self.superblock.copy_index) = (spare.uuid, u16::from(self.newcomer.copy));
        self.step = Step::Clear;
    }

    /// Nobody waits for them any more.
    pub(super) fn unwatch(&self, operations: &mut Operations<Purpose>) {
        let ready = self.ready.iter().map(|comer| comer.newcomer.device);
        ready.chain([self.newcomer.device]).for_each(|device| operations.unwatch(device));
    }
}

/// The places that copies of a log have, or miss, as a bit mask.
fn taken(map: &ArrayMap) -> u32 {
    ((1 << map.copies.len()) - 1) & !map.free_copies
}

impl Coordinated {
    /// The first of so many places in a row that no copy has or misses.
    fn places_for(&self, count: usize) -> Option<u8> {
        let taken = taken(&self.array.map);
        let are_free = |first: &usize| (*first..first + count).all(|place| taken & 1 << place == 0);
        (0..=MAX_COPIES.checked_sub(count)?).find(are_free).map(|first| first as u8)
    }
}

impl Coordinator {
    /// Begins to move the log to these devices.
    pub(in super::super) fn renew_log(&mut self, id: ArrayId, devices: Vec<Spare>, ticket: u64) -> Result<(), Refusal> {
        for (at, one) in devices.iter().enumerate() {
            self.is_unused(one.device)?;
            if devices[..at].iter().any(|other| other.device == one.device) {
                return Err(Refusal::InUse);
            }
        }
        self.next_run += 1;
        let run = self.next_run;
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        array.may_attach(true)?;
        if map.is_bare() {
            return Err(Refusal::NoLog);
        }
        if array.switching.is_some() {
            return Err(Refusal::Busy);
        }
        if map.arrangement.reshape().is_some() {
            return Err(Refusal::GrowthUnderWay);
        }
        let smallest = devices.iter().map(|device| device.blocks).min().ok_or(Refusal::NotInUse)?;
        let copy = array.places_for(devices.len()).ok_or(Refusal::TooManyCopies)?;
        let like = array.new_log(smallest)?;
        let before = map.log_layout.lane_blocks();
        if like.layout.lane_blocks() <= before {
            let lanes = u64::from(map.log_layout.lanes());
            return Err(Refusal::LogNotLarger { need: map.log_layout.rings().0 + lanes * (before + 1) });
        }
        let instead = taken(map);
        array.attaching = Some(Attaching::new((run, copy), devices, instead, ticket, &like, true));
        Ok(())
    }
}

const _: () = assert!(MAX_COPIES < 32, "places are bits of a mask");
