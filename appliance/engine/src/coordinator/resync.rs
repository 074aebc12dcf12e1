//! The resync of an array without a log that a crash left dirty, as the coordinator sees it: dirty zones are handed to their
//! owners in ascending order, a few at a time, and come back done; their owners have the bits cleared like those of other zones
//! that rest. Nothing is remembered but the bits: after a restart it goes on with those that are left.
//!
//! It goes before a rebuild, which reads what is to match first. A zone with data that cannot be read is left for the next
//! start.

use std::collections::VecDeque;

use base::BLOCK;
use base::ids::{ArrayId, ShardId, StripeId, ZoneId};
use base::time::Time;

use super::round::share;
use super::{Coordinated, Coordinator};
use crate::array::{Action, Order};
use crate::command::Event;
use crate::limits::ZONES_AT_A_SHARD;
use crate::map::Service;
use crate::message::Message;
use crate::status::ResyncStatus;

/// A resync that is due or under way.
#[derive(Debug)]
pub(super) struct Resync {
    /// None before it begins.
    run: Option<u32>,
    /// Zones that nobody was given.
    left: VecDeque<ZoneId>,
    /// Zones that each shard has.
    given: Vec<u8>,
    done: u64,
    blocked: u64,
    all: u64,
    began: Time,
}

impl Resync {
    /// What these zones take, if there are any.
    pub(super) fn of(zones: impl Iterator<Item = ZoneId>, shards: u16) -> Option<Self> {
        let left: VecDeque<ZoneId> = zones.collect();
        let (all, given) = (left.len() as u64, vec![0; usize::from(shards)]);
        (all > 0).then_some(Self { run: None, left, given, done: 0, blocked: 0, all, began: Time(0) })
    }
}

impl Coordinator {
    /// Takes a zone back, done or not; whether it was of a resync.
    pub(super) fn zone_resynced(&mut self, id: ArrayId, from: ShardId, run: u32, zone: ZoneId, done: bool) -> bool {
        let array = &mut self.arrays[id.index()];
        let Some(resync) = array.resync.as_mut().filter(|resync| resync.run == Some(run)) else { return false };
        resync.given[from.index()] -= 1;
        resync.done += u64::from(done);
        resync.blocked += u64::from(!done);
        if !done {
            let stripe = StripeId(zone.0 * array.array.map.arrangement.zone_stripes());
            self.tell(Event::ResyncBlocked { array: id, stripe });
        }
        true
    }

    /// Begins, goes on with, and ends the resync of an array; whether anything was done.
    pub(super) fn resync(&mut self, id: ArrayId, now: Time) -> bool {
        let Coordinated { array, resync: slot, .. } = &mut self.arrays[id.index()];
        let (map, Some(resync)) = (&array.map, slot.as_mut()) else { return false };
        if self.stopping || map.service != Service::ReadWrite {
            return false;
        }
        let Some(run) = resync.run else {
            self.next_run += 1;
            (resync.run, resync.began) = (Some(self.next_run), now);
            let zones = resync.all;
            self.tell(Event::ResyncBegan { array: id, zones });
            return true;
        };
        if resync.done + resync.blocked == resync.all {
            let (zones, blocked) = (resync.done, resync.blocked);
            *slot = None;
            self.tell(Event::Resynced { array: id, zones, blocked });
            return true;
        }
        let limits = share(array.rebuild.limits, self.shards);
        let mut worked = false;
        while let Some(&zone) = resync.left.front() {
            let owner = map.owner_of(map.lane_of(zone));
            if usize::from(resync.given[owner.index()]) >= ZONES_AT_A_SHARD {
                break;
            }
            resync.left.pop_front();
            resync.given[owner.index()] += 1;
            let order = Order { run, zone, action: Action::Resync, limits };
            self.messages.push_back((owner, Message::Walk { array: id, order }));
            worked = true;
        }
        worked
    }

    /// How far the resync of an array is.
    pub(crate) fn resync_status(&self, id: ArrayId, now: Time) -> Option<ResyncStatus> {
        let array = &self.arrays[id.index()];
        let resync = array.resync.as_ref()?;
        let zone_bytes = array.array.map.arrangement.zone_stripes() * BLOCK as u64;
        let elapsed_ns = u128::from(now.since(resync.began).0.max(1));
        let done_bytes = resync.done * zone_bytes;
        let bytes_a_second = (u128::from(done_bytes) * 1_000_000_000 / elapsed_ns) as u64;
        Some(ResyncStatus {
            done_bytes,
            bytes: resync.all * zone_bytes,
            bytes_a_second,
            seconds_left: (resync.all * zone_bytes - done_bytes).checked_div(bytes_a_second),
        })
    }
}
