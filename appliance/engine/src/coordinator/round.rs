//! A round over all zones of an array: they are handed to their owners in ascending order, a few at a time, and come back
//! done. The position is the end of the lowest run of done zones; now and then, and at the end, it is made durable. Zones that
//! are done beyond it are done again after a crash.

use std::collections::BTreeSet;

use base::BLOCK;
use base::ids::{ShardId, ZoneId};
use base::time::{Span, Time};
use raid::Geometry;

use crate::array::Limits;
use crate::limits::ZONES_AT_A_SHARD;
use crate::map::ArrayMap;

/// How a round goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundSettings {
    /// How fast, all shards together.
    pub limits: Limits,
    /// After so many zones the position is made durable.
    pub save_zones: u64,
    /// And after so long, if it has moved.
    pub save_period: Span,
}

impl Default for RoundSettings {
    fn default() -> Self {
        Self {
            limits: Limits { bytes_a_second: 0, latency: Span::from_millis(20) },
            save_zones: 64,
            save_period: Span::from_secs(5),
        }
    }
}

/// A round.
#[derive(Debug)]
pub(super) struct Round {
    /// What the owners' reports repeat.
    pub(super) run: u32,
    /// The first zone that nobody was given.
    next: u64,
    /// Zones below this are done.
    done: u64,
    /// Zones that are done beyond it.
    beyond: BTreeSet<u64>,
    saved: u64,
    saved_at: Time,
    /// Zones that each shard has.
    given: Vec<u8>,
    began: Time,
    began_at: u64,
}

/// How far a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) done_bytes: u64,
    pub(super) bytes: u64,
    pub(super) bytes_a_second: u64,
    pub(super) seconds_left: Option<u64>,
}

impl Round {
    /// A round from a zone on.
    pub(super) fn new(run: u32, position: u64, shards: u16, now: Time) -> Self {
        Self {
            run,
            next: position,
            done: position,
            beyond: BTreeSet::new(),
            saved: position,
            saved_at: now,
            given: vec![0; usize::from(shards)],
            began: now,
            began_at: position,
        }
    }

    /// Zones below this are done.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// The next zone, and its owner, if there is one and the owner takes it.
    pub(super) fn give(&mut self, map: &ArrayMap) -> Option<(ShardId, ZoneId)> {
        let zone = ZoneId(self.next);
        if self.next >= map.arrangement.zones() {
            return None;
        }
        let owner = map.owner_of(map.lane_of(zone));
        let given = &mut self.given[owner.index()];
        if usize::from(*given) >= ZONES_AT_A_SHARD {
            return None;
        }
        *given += 1;
        self.next += 1;
        Some((owner, zone))
    }

    /// A zone has come back without being done: the round goes on behind it, its position does not.
    pub(super) fn missed(&mut self, from: ShardId) {
        self.given[from.index()] -= 1;
    }

    /// A zone has come back done.
    pub(super) fn walked(&mut self, zone: ZoneId, from: ShardId) {
        self.given[from.index()] -= 1;
        self.beyond.insert(zone.0);
        while self.beyond.remove(&self.done) {
            self.done += 1;
        }
    }

    /// Whether the position is to be made durable now.
    pub(super) fn is_to_save(&self, zones: u64, settings: &RoundSettings, now: Time) -> bool {
        self.done == zones
            || self.done - self.saved >= settings.save_zones
            || self.done > self.saved && now >= self.saved_at + settings.save_period
    }

    /// When the position is to be made durable, if it has moved.
    pub(super) fn save_due(&self, settings: &RoundSettings) -> Option<Time> {
        (self.done > self.saved).then(|| self.saved_at + settings.save_period)
    }

    /// The position is on its way.
    pub(super) fn saves(&mut self, zones: u64, now: Time) {
        self.saved = zones;
        self.saved_at = now;
    }

    /// How far it is, and how fast it went since it began or the process was started.
    pub(super) fn progress(&self, geometry: &Geometry, now: Time) -> Progress {
        let done = self.done + self.beyond.len() as u64;
        let zone_bytes = geometry.zone_stripes() * BLOCK as u64;
        let bytes_a_second = a_second((done - self.began_at) * zone_bytes, self.began, now);
        let left = (geometry.zones() - done) * zone_bytes;
        Progress {
            done_bytes: done * zone_bytes,
            bytes: geometry.zones() * zone_bytes,
            bytes_a_second,
            seconds_left: left.checked_div(bytes_a_second),
        }
    }
}

/// How many a second so many are since a moment.
pub(super) fn a_second(bytes: u64, since: Time, now: Time) -> u64 {
    let elapsed_ns = now.since(since).0.max(1);
    (u128::from(bytes) * 1_000_000_000 / u128::from(elapsed_ns)) as u64
}

/// Each shard's share of a rate.
pub(super) fn share(limits: Limits, shards: u16) -> Limits {
    Limits { bytes_a_second: limits.bytes_a_second.div_ceil(u64::from(shards)), ..limits }
}
