//! Going on without a log that is lost, as a shard sees it; `coordinator::exposure` says why in this order.
//!
//! *Draining*: all that the log held is destaged in the way of an array without one, and nothing of it is noted in the log any
//! more. What was on its way into the log stays where it is, unseen by reads: nobody was told that it is there, and it must
//! not reach the members as long as a copy that comes back is believed. Writes that come wait.
//!
//! *Exposed*: what was on its way into the log goes to the members instead, in the order in which it was admitted. Whoever
//! waits for its record is told when all of it is there: that happens once, so nobody counts by whom what was written.

use base::ids::LaneId;
use base::slab::Key;
use ports::Ports;

use super::commit::run_of;
use super::destage::{Destage, Phase};
use super::detained::Home;
use super::lane::{Acknowledgement, Group, Item};
use super::stripes::VersionRef;
use super::{ArrayShard, Work};
use crate::io::IoError;
use crate::map::{ArrayMap, Service};
use crate::message::Message;

/// Stands for a write-through fragment with all blocks that were on their way into the log when it was given up.
pub(super) const OWED: u64 = u64::MAX;

/// How far it is.
#[derive(Debug)]
pub(crate) struct Exposure {
    /// Whether the coordinator was told that nothing is left to drain.
    told: bool,
    /// Blocks that were on their way into the log and are not on the members yet.
    owed_blocks: usize,
    /// Who waits for all of them.
    owed: Vec<Acknowledgement>,
}

impl Exposure {
    /// With room for so many who wait.
    pub(super) fn new(fragments: usize) -> Self {
        Self { told: false, owed_blocks: 0, owed: Vec::with_capacity(fragments) }
    }
}

impl ArrayShard {
    /// The map has changed: perhaps the log is lost, or given up.
    pub(super) fn exposure_changed<P: Ports>(&mut self, work: &mut Work<'_, P>, before: &ArrayMap) {
        if self.map.service == Service::Draining && before.service != Service::Draining {
            self.begin_draining(work);
        }
        if self.map.exposed && !before.exposed {
            self.go_on_without_log(work);
        }
    }

    /// The log is lost: destages that were about to log something, or did so, go on without that.
    fn begin_draining<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        self.exposure.told = false;
        self.leave_again();
        while let Some(key) = self.to_log.pop_front() {
            self.leave_log(work, key);
        }
        self.for_each_in(Phase::Logging, |array, key| array.leave_log(work, key));
        self.for_each_in(Phase::Recording, |array, key| array.leave_log(work, key));
    }

    fn leave_log<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        match self.destages[key].phase {
            // Instead of its parities, that its zone is dirty (rule L10).
            Phase::ToLog | Phase::Logging => {
                self.destages[key].phase = Phase::Noting;
                self.go_on_noted(key);
            }
            // The members have it for good.
            Phase::ToRecord | Phase::Recording => self.end_destage(work, key),
            phase => unreachable!("nothing to be logged in {phase:?}"),
        }
    }

    /// Tells the coordinator, once, that the members have all that the log held, or that they cannot have it.
    pub(super) fn report_drained(&mut self) {
        if self.map.service != Service::Draining || self.exposure.told {
            return;
        }
        let blocked = self.blocked.stripes > 0;
        let is_drained = self.destages.is_empty() && self.log_reads.is_empty() && self.stripes.are_all_logging();
        if blocked || is_drained {
            self.exposure.told = true;
            self.reports.push_back(Message::Drained { array: self.map.id, blocked });
        }
    }

    /// The log is given up: what was on its way into it goes to the members.
    fn go_on_without_log<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        assert!(
            self.destages.is_empty() && self.stripes.are_all_logging(),
            "the log is given up when nothing is dirty"
        );
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes[index].as_mut() else { continue };
            let id = lane.id;
            let (records, open) = lane.give_up_log();
            for record in records {
                assert_eq!(record.unanswered, 0, "operations at a copy end with its exclusion");
                if let Some(descriptor) = record.descriptor {
                    self.send_home(work, descriptor, Home::Scratch);
                }
                if let Some(group) = record.group {
                    self.take_over(work, id, group, record.sequence);
                }
            }
            self.take_over(work, id, open, 0);
            self.wake(id);
        }
    }

    /// A transaction that is not in the log: its blocks are to go to the members.
    fn take_over<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId, mut group: Box<Group>, sequence: u64) {
        for at in 0..group.items.len() {
            match group.items[at] {
                Item::Data { version, through, .. } => self.take_over_block(work, id, version, through),
                Item::Zeros { block, count, through } => {
                    for (stripe, column) in run_of(&self.map.arrangement, block, count) {
                        let stripe = self.stripes.find(stripe).expect("a version keeps its stripe");
                        let version = self.stripes.oldest_logging(stripe, column, sequence);
                        self.take_over_block(work, id, version, through);
                    }
                }
                // It was dropped.
                Item::Moved { .. } => {}
                // Of destages that went on without.
                Item::Parity { .. } | Item::Covers { .. } | Item::Destaged { .. } | Item::Again { .. } => {}
            }
        }
        self.exposure.owed.append(&mut group.acknowledgements);
        self.lane(id).recycle(group);
    }

    fn take_over_block<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId, version: VersionRef, through: u64) {
        let stripe = self.stripes.stripe_of(version);
        self.stripes.version_mut(version).sequence = 0;
        self.stripes.get_mut(stripe).reserved = false;
        let waiter = if through == 0 { OWED } else { through };
        if waiter == OWED {
            self.stripes.promise_waiters(1);
            self.exposure.owed_blocks += 1;
        }
        self.version_durable(work, id, version, waiter);
    }

    /// A block that was on its way into the log is on the members: with the last of them all who wait are told.
    pub(super) fn owed_on_members(&mut self) {
        let exposure = &mut self.exposure;
        exposure.owed_blocks -= 1;
        if exposure.owed_blocks == 0 {
            self.answers.extend(exposure.owed.drain(..).map(|told| (told.from, told.done())));
        }
    }

    /// Nothing is written any more.
    pub(super) fn refuse_owed(&mut self, error: IoError) {
        self.answers.extend(self.exposure.owed.drain(..).map(|told| (told.from, told.failed(error))));
    }
}
