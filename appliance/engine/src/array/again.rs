//! Data that is logged again. What a blocked stripe ([`super::destage::blocked`]) keeps in the log would hold the tail where it is,
//! and with that all that comes behind, until the ring is full. So once half of a lane is taken, or somebody waits, and
//! everything that the tail's record is needed for is of blocked stripes, the same content is logged again at the head: as if a host
//! had written it again, but for there being no new version. When that record is durable, the version is said to be there, and the
//! old one is needed no longer.
//!
//! Recovery sees two versions of a block with the same content, and takes the later one. That none is overtaken: nothing is logged
//! again while a newer version of its block is on its way into the log, and no destage of its stripe begins meanwhile, so
//! that none calls the stripe destaged without it.
//!
//! It is bounded: in one turn of the ring no more than half of it is written so. If more than that is blocked the lane stays full,
//! and that is told.

use base::ids::LaneId;
use journal::{MAX_PAYLOAD_BLOCKS, payload_crc};
use ports::Ports;

use super::lane::{Item, Lane};
use super::stripes::VersionRef;
use super::{ArrayShard, Work};
use crate::message::Message;

/// What of a lane is logged again.
#[derive(Debug, Default)]
pub(crate) struct Again {
    /// Versions on their way.
    under_way: u32,
    /// Where a turn of the ring began, and blocks that were written so since.
    turn: u64,
    blocks: u64,
}

impl Again {
    /// Whether so many blocks more may be written with the head there.
    fn may_take(&mut self, blocks: u64, head: u64, lane_blocks: u64) -> bool {
        if head >= self.turn + lane_blocks {
            (self.turn, self.blocks) = (head, 0);
        }
        self.blocks + blocks <= lane_blocks / 2
    }
}

impl ArrayShard {
    /// The log is lost: what was on its way to its head for the second time stays where it is.
    pub(super) fn leave_again(&mut self) {
        let stripes = &mut self.stripes;
        for lane in self.lanes.iter_mut().flatten() {
            lane.again.under_way = 0;
            let groups = lane.records.iter_mut().filter_map(|record| record.group.as_mut());
            for group in groups.chain(core::iter::once(&mut lane.open)) {
                group.items.retain(|item| {
                    let Item::Again { version, .. } = item else { return true };
                    let stripe = stripes.stripe_of(*version);
                    stripes.get_mut(stripe).again -= 1;
                    false
                });
            }
        }
    }

    /// Logs again what pins the tails of lanes.
    pub(crate) fn log_again<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if self.blocked.stripes == 0 || self.map.is_unlogged() {
            return;
        }
        for at in 0..self.awake.len() {
            self.log_tail_again(work, self.awake[at]);
        }
    }

    fn log_tail_again<P: Ports>(&mut self, work: &mut Work<'_, P>, id: LaneId) {
        let lane_blocks = self.map.log_layout.lane_blocks();
        let lane = self.lanes[id.index()].as_mut().expect("only the owner's lanes are awake");
        let (sequence, live) = (lane.tail().sequence, lane.tail().live as usize);
        if !is_wanted(lane, lane_blocks) || lane.again.under_way > 0 || live == 0 || live > MAX_PAYLOAD_BLOCKS {
            return;
        }
        let blocks = 1 + live as u64;
        if lane.room() < blocks || !lane.fits(live, live) {
            return;
        }
        let mut found = [VersionRef::default(); MAX_PAYLOAD_BLOCKS];
        if self.stripes.of_record(&lane.stripes.blocked, sequence, &mut found[..live]) != Some(live) {
            // Others will go to the members, or be replaced.
            return;
        }
        if !self.is_at_hand(work, &found[..live]) {
            return;
        }
        let lane = self.lanes[id.index()].as_mut().expect("it was there just now");
        if !lane.again.may_take(blocks, lane.space.head(), lane_blocks) {
            if !lane.waiting.is_empty() && self.blocked.tell_full() {
                self.reports.push_back(Message::LogPinned { array: self.map.id });
            }
            return;
        }
        lane.again.under_way = live as u32;
        lane.again.blocks += blocks;
        for &version in &found[..live] {
            let stripe = self.stripes.stripe_of(version);
            self.stripes.get_mut(stripe).again += 1;
            let Self { stripes, map, .. } = self;
            let held = stripes.version(version);
            let block = map.arrangement.array_block(stripes.get(stripe).id, held.column);
            let buffer = held.content.buffer();
            let content = buffer.map(|buffer| (payload_crc(&map.log, work.ports.bytes(buffer)), buffer));
            self.log(id, Item::Again { version, block, content }, work.now);
        }
    }

    /// A version is in the log by this record as well, and needs the earlier one no longer.
    pub(super) fn logged_again(&mut self, id: LaneId, version: VersionRef, sequence: u64, place: u8) {
        let stripe = self.stripes.stripe_of(version);
        self.stripes.get_mut(stripe).again -= 1;
        let version = self.stripes.version_mut(version);
        version.place = place;
        let before = core::mem::replace(&mut version.sequence, sequence);
        let lane = self.lane(id);
        lane.again.under_way -= 1;
        lane.record_mut(sequence).live += 1;
        lane.forget(before);
    }

    /// Log space that hosts leave to what must be logged again, where there is that much.
    pub(super) fn held_back(&self, lane: &Lane) -> u64 {
        let record = journal::MAX_RECORD_BLOCKS as u64;
        let is_large = self.map.log_layout.lane_blocks() >= 8 * record;
        if is_large && lane.stripes.blocked.oldest().is_some() { record } else { 0 }
    }
}

/// Whether a lane's tail is to move, if it can.
fn is_wanted(lane: &Lane, lane_blocks: u64) -> bool {
    // What an anchor will free needs no more than that.
    let reclaimable = lane.space.reclaimable_blocks();
    let taken = lane_blocks - lane.space.free_blocks() - reclaimable;
    let is_pressed = !lane.waiting.is_empty() && reclaimable == 0
        || 2 * taken > lane_blocks
        || lane.catch_up.is_some_and(|from| lane.tail().sequence < from);
    is_pressed && lane.stripes.blocked.oldest().is_some() && lane.tail().durable
}
