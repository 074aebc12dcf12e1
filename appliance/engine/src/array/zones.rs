//! Zones that were never written. They read as zeros without any member I/O; before the first stripe of a zone goes to the
//! members, the zone is zeroed on all of them, flushed, and its bit made durable by the coordinator; while members are out, not before
//! it is known that they missed the zone, which the destage that waits for it has asked for.

use base::ids::{DeviceBlock, Slot, StripeId, ZoneId};
use ports::{DeviceOp, Ports};
use raid::checksum;

use super::zone_set::ZoneSet;
use super::{ArrayShard, Purpose, Work};
use crate::message::Message;

/// Zones made ready at a time.
const MAX_JOBS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Zeroing,
    Flushing,
    /// That another member missed it is on its way to those that are there.
    Marking,
    /// A member failed: to be done again with the next map.
    Parked,
    /// The coordinator has been asked to make the bit durable.
    Recording,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    zone: ZoneId,
    step: Step,
    unanswered: u32,
    failed: bool,
}

/// Which zones are initialised, and those on their way to it.
#[derive(Debug)]
pub(crate) struct Zones {
    initialised: ZoneSet,
    jobs: [Option<Job>; MAX_JOBS],
}

impl Zones {
    pub(crate) fn new(bits: &[u64], zones: u64) -> Self {
        assert!(bits.len() as u64 * 64 >= zones, "a bit for each zone");
        Self { initialised: ZoneSet::of(bits), jobs: [None; MAX_JOBS] }
    }

    /// Whether a zone is on its way to being initialised.
    pub(crate) fn is_being_zeroed(&self, zone: ZoneId) -> bool {
        self.jobs.iter().flatten().any(|job| job.zone == zone)
    }

    pub(crate) fn is_initialised(&self, zone: ZoneId) -> bool {
        self.initialised.has(zone)
    }
}

impl ArrayShard {
    /// Makes a zone ready for its first stripe, unless that is under way; with all places taken, a later call does it.
    pub(crate) fn prepare_zone<P: Ports>(&mut self, work: &mut Work<'_, P>, zone: ZoneId) {
        if self.zones.is_being_zeroed(zone) {
            return;
        }
        let jobs = &mut self.zones.jobs;
        let Some(place) = jobs.iter().position(Option::is_none) else { return };
        jobs[place] = Some(Job { zone, step: Step::Parked, unanswered: 0, failed: false });
        self.zero_zone(work, place);
    }

    fn zero_zone<P: Ports>(&mut self, work: &mut Work<'_, P>, place: usize) {
        let zone_stripes = self.map.arrangement.zone_stripes();
        let job = self.zones.jobs[place].as_mut().expect("a job under way");
        if self.failing_members != 0 || self.halted {
            job.step = Step::Parked;
            return;
        }
        *job = Job { step: Step::Zeroing, unanswered: 0, failed: false, ..*job };
        let first = StripeId(job.zone.0 * zone_stripes);
        for (slot, member) in self.map.written() {
            let Some((device, at)) = self.presence.on_member(&self.map, slot, first) else { continue };
            job.unanswered += 1;
            let purpose = Purpose::ZoneZero { array: self.map.id, job: place as u8, slot };
            let op = DeviceOp::WriteZeroes(zone_stripes as u32);
            work.operations.start(work.ports, (device, at), op, None, purpose);
            // Zeros there say that the zone is zeros.
            if let Some(start) = member.checksums {
                let blocks = checksum::zone_blocks(zone_stripes);
                let at = DeviceBlock(start.0 + job.zone.0 * blocks);
                job.unanswered += 1;
                let op = DeviceOp::WriteZeroes(blocks as u32);
                work.operations.start(work.ports, (device, at), op, None, purpose);
            }
        }
        let zone = job.zone;
        self.zero_checksums(work.ports, zone);
    }

    fn zone_answered(&mut self, place: u8, slot: Slot, succeeded: bool) -> bool {
        if !succeeded {
            self.member_failed(slot);
        }
        let job = self.zones.jobs[usize::from(place)].as_mut().expect("a job under way");
        job.failed |= !succeeded;
        job.unanswered -= 1;
        if job.unanswered == 0 && job.failed {
            job.step = Step::Parked;
        }
        job.unanswered == 0 && !job.failed
    }

    /// A member has zeroed a zone.
    pub(crate) fn zone_zeroed<P: Ports>(&mut self, work: &mut Work<'_, P>, place: u8, slot: Slot, succeeded: bool) {
        if self.zone_answered(place, slot, succeeded) {
            let job = self.zones.jobs[usize::from(place)].as_mut().expect("a job under way");
            job.step = Step::Flushing;
            for (slot, member) in self.map.written() {
                job.unanswered += 1;
                let purpose = Purpose::ZoneFlush { array: self.map.id, job: place, slot };
                work.operations.start(work.ports, (member.device, DeviceBlock(0)), DeviceOp::Flush, None, purpose);
            }
        } else {
            self.zone_members_changed(work);
        }
    }

    /// A member has flushed those zeros.
    pub(crate) fn zone_flushed(&mut self, place: u8, slot: Slot, succeeded: bool) {
        if self.zone_answered(place, slot, succeeded) {
            let job = self.zones.jobs[usize::from(place)].as_mut().expect("a job under way");
            job.step = Step::Marking;
            self.zones_marked();
        }
    }

    /// Zones that are zeros go on to have their bits made durable, once it is known who missed them.
    pub(super) fn zones_marked(&mut self) {
        for place in 0..MAX_JOBS {
            let marking = self.zones.jobs[place].filter(|job| job.step == Step::Marking);
            let Some(zone) = marking.map(|job| job.zone).filter(|zone| self.is_marked(*zone)) else { continue };
            if let Some(job) = &mut self.zones.jobs[place] {
                job.step = Step::Recording;
            }
            self.reports.push_back(Message::ZoneZeroed { array: self.map.id, zone });
        }
    }

    /// The zone's bit is durable: its stripes may go to the members.
    pub(crate) fn zone_initialised<P: Ports>(&mut self, work: &mut Work<'_, P>, zone: ZoneId) {
        self.zones.initialised.set(zone);
        for job in &mut self.zones.jobs {
            job.take_if(|job| job.zone == zone);
        }
        self.zones_ready(work);
        // Others found all places taken.
        for place in 0..self.destages.capacity() {
            if let Some((_, destage)) = self.destages.at(place)
                && destage.waits_for_zone()
            {
                let zone = self.map.arrangement.zone_of(self.stripes.get(destage.stripe()).id);
                self.prepare_zone(work, zone);
            }
        }
    }

    /// The array has a further member: what is being zeroed is to be zeros there, too.
    pub(super) fn zone_has_members_to_come(&mut self) {
        for job in self.zones.jobs.iter_mut().flatten() {
            job.failed |= matches!(job.step, Step::Zeroing | Step::Flushing);
        }
    }

    /// The map has changed: zones that a member failed are zeroed again on the others.
    pub(crate) fn zone_members_changed<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if self.failing_members != 0 || self.halted {
            return;
        }
        for place in 0..MAX_JOBS {
            if self.zones.jobs[place].is_some_and(|job| job.step == Step::Parked && job.unanswered == 0) {
                self.zero_zone(work, place);
            }
        }
    }
}
