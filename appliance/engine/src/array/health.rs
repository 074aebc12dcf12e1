//! What is found out about the members: blocks that they cannot read, and what became of them. Counts go to the metrics at
//! once and to the coordinator now and then, which decides whether a member has made too many mistakes.

use base::ids::Slot;
use base::time::{Span, Time};
use ports::{DeviceError, Ports};
use raid::slots;

use super::peers::PeerChange;
use super::{ArrayShard, Work};
use crate::message::Message;

/// The coordinator hears at most so often: a drive may fail faster than anybody wants to know.
const REPORT_EVERY: Span = Span::from_millis(100);

/// What was found on a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberErrors {
    /// Blocks that it could not read.
    pub unreadable: u32,
    /// Blocks that it gave back otherwise than they were written, as their checksums say.
    pub wrong: u32,
    /// Such blocks that were put together from the others, written to it again and read back.
    pub corrected: u32,
    /// Such blocks that it did not take back.
    pub uncorrected: u32,
}

impl MemberErrors {
    /// Adds what was found later.
    pub fn add(&mut self, later: Self) {
        self.unreadable = self.unreadable.saturating_add(later.unreadable);
        self.wrong = self.wrong.saturating_add(later.wrong);
        self.corrected = self.corrected.saturating_add(later.corrected);
        self.uncorrected = self.uncorrected.saturating_add(later.uncorrected);
    }
}

/// What the coordinator has not heard yet.
#[derive(Debug)]
pub(crate) struct Health {
    /// By slot.
    untold: Vec<MemberErrors>,
    /// Slots with anything untold, as a bit mask.
    waiting: u32,
    next_report: Time,
}

impl Health {
    pub(crate) fn new(members: usize) -> Self {
        Self { untold: vec![MemberErrors::default(); members], waiting: 0, next_report: Time(0) }
    }

    /// When there is something to tell, if there is.
    pub(crate) fn deadline(&self) -> Time {
        if self.waiting == 0 { Time::NEVER } else { self.next_report }
    }
}

impl ArrayShard {
    /// A member did not do what it should: no more is asked of it, and the coordinator is told once. What a device does that has
    /// no place any more, or another one by now, says nothing of who has its place.
    pub(super) fn member_failed(&mut self, slot: Slot) {
        let place = self.answering.map_or(Some(slot), |device| self.map.slot_of(device));
        if let Some(slot) = place
            && let Some(member) = self.map.member(slot)
            && self.failing_members & 1 << slot.0 == 0
        {
            self.failing_members |= 1 << slot.0;
            self.reports.push_back(Message::MemberFailed { array: self.map.id, device: member.device });
        }
    }

    /// A log copy did not do what it should.
    pub(super) fn copy_failed(&mut self, copy: u8, error: DeviceError) {
        if self.failing_copies & 1 << copy == 0 && self.map.logs_to(copy) {
            self.failing_copies |= 1 << copy;
            self.reports.push_back(Message::CopyFailed { array: self.map.id, copy, error });
        }
    }

    fn found(&mut self, slot: Slot, what: MemberErrors) {
        self.health.untold[slot.index()].add(what);
        self.health.waiting |= 1 << slot.0;
    }

    /// A member could not read a block.
    pub(crate) fn found_unreadable<P: Ports>(&mut self, work: &Work<'_, P>, slot: Slot) {
        if let Some(member) = self.map.member(slot) {
            work.devices[member.device.index()].unreadable_blocks.increment();
            self.found(slot, MemberErrors { unreadable: 1, ..MemberErrors::default() });
        }
    }

    /// A member gave back a block that is not what was written there.
    pub(crate) fn found_wrong<P: Ports>(&mut self, work: &Work<'_, P>, slot: Slot) {
        if let Some(member) = self.map.member(slot) {
            work.devices[member.device.index()].wrong_blocks.increment();
            self.found(slot, MemberErrors { wrong: 1, ..MemberErrors::default() });
        }
    }

    /// A block that could not be read, or was wrong, was written again: whether the member gave it back then.
    pub(crate) fn found_rewritten<P: Ports>(&mut self, work: &Work<'_, P>, slot: Slot, succeeded: bool) {
        let Some(member) = self.map.member(slot) else { return };
        let metrics = &work.devices[member.device.index()];
        let counter = if succeeded { &metrics.corrected_blocks } else { &metrics.uncorrected_blocks };
        counter.increment();
        let (corrected, uncorrected) = (u32::from(succeeded), u32::from(!succeeded));
        self.found(slot, MemberErrors { corrected, uncorrected, ..MemberErrors::default() });
    }

    /// Tells the coordinator which members have become slow, or are so no longer.
    pub(crate) fn report_slow<P: Ports>(&mut self, work: &Work<'_, P>) {
        let Self { peers, reports, map, .. } = self;
        peers.look(work.now, |PeerChange { slot, slow, mean, peers }| {
            if let Some(member) = map.member(slot) {
                work.devices[member.device.index()].slow.set(u64::from(slow));
                reports.push_back(Message::MemberSlow { array: map.id, slot, slow, mean, peers });
            }
        });
    }

    /// Slots whose members are much slower than the others.
    pub(crate) fn slow_members(&self) -> Vec<u8> {
        let slow = self.peers.slow() & !self.map.missing() & self.map.arrangement.geometry().all_members();
        slots(slow).map(|slot| slot.0).collect()
    }

    /// Tells the coordinator what was found, if it has not heard for a while.
    pub(crate) fn report_health(&mut self, now: Time) {
        if self.health.waiting == 0 || now < self.health.next_report {
            return;
        }
        self.health.next_report = now + REPORT_EVERY;
        for slot in (0..self.health.untold.len() as u8).map(Slot) {
            if self.health.waiting & 1 << slot.0 != 0 {
                let errors = core::mem::take(&mut self.health.untold[slot.index()]);
                self.reports.push_back(Message::MemberErrors { array: self.map.id, slot, errors });
            }
        }
        self.health.waiting = 0;
    }
}
