//! How full an array's part is: for status and metrics.

use super::ArrayShard;
use crate::status::LaneStatus;

/// How full an array's part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Blocks that the log holds and the members do not.
    pub dirty_blocks: u64,
    /// Those of them whose content the log alone has, and not memory.
    pub logged_blocks: u64,
    /// Stripes with such blocks.
    pub dirty_stripes: u64,
    /// Such blocks that there may be.
    pub cache_blocks: u64,
    /// Stripes whose last destage could not be done, since old content that their parity needs is lost.
    pub blocked_stripes: u64,
    /// Blocks of those that the log holds and the members do not.
    pub blocked_blocks: u64,
    /// Stripes on their way to the members.
    pub destages: u64,
    /// The lanes' size in blocks.
    pub log_blocks: u64,
    /// How much of it is taken.
    pub log_used_blocks: u64,
    /// Without a log: zones that a crash now could leave dirty.
    pub dirty_zones: u64,
    /// Those that an earlier crash did, and that are still to be resynced.
    pub unsynced_zones: u64,
    /// Fragments that wait for room.
    pub waiting_fragments: u64,
}

impl ArrayShard {
    /// How its lanes are.
    pub(crate) fn lane_status(&self) -> Vec<LaneStatus> {
        let status = |lane: &super::lane::Lane| LaneStatus {
            lane: lane.id.0,
            head: lane.space.head(),
            tail: lane.space.tail(),
            durable_tail: lane.space.durable_tail(),
            next_sequence: lane.next_sequence,
            records: lane.records.len() as u64,
        };
        self.lanes.iter().flatten().map(status).collect()
    }

    /// What it holds, for status and metrics.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage {
            dirty_blocks: self.stripes.held() as u64,
            logged_blocks: self.stripes.logged() as u64,
            dirty_stripes: self.stripes.stripes_held() as u64,
            cache_blocks: self.stripes.capacity() as u64,
            destages: self.destages.len() as u64,
            blocked_stripes: self.blocked.stripes,
            ..Usage::default()
        };
        (usage.dirty_zones, usage.unsynced_zones) = self.dirty.counts();
        for lane in self.lanes.iter().flatten() {
            usage.blocked_blocks += self.stripes.durable_blocks(&lane.stripes.blocked);
            usage.log_blocks += self.map.log_layout.lane_blocks();
            usage.log_used_blocks += self.map.log_layout.lane_blocks() - lane.space.free_blocks();
            usage.waiting_fragments += lane.waiting.len() as u64;
        }
        usage
    }
}
