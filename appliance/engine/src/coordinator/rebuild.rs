//! The rebuild of a member, as the coordinator sees it: zones are handed to their owners in ascending order, a few at a
//! time, and come back done. The position is the end of the lowest run of done zones; now and then, and at the end, the
//! member is flushed and then the superblocks say how far it is. Zones that are done beyond it count as current in their
//! owners' memory alone, and are done again after a crash.
//!
//! One member of an array is rebuilt at a time. It goes on from the superblocks' position after a restart, and by itself.

use std::collections::BTreeSet;

use base::BLOCK;
use base::ids::{ArrayId, DeviceBlock, ShardId, Slot, StripeId, ZoneId};
use base::time::{Span, Time};
use ports::{DeviceOp, Ports};

use super::persist::{Target, pack};
use super::proposal::Edit;
use super::{Change, Coordinator};
use crate::array::{Action, Limits, Order, Purpose};
use crate::command::Event;
use crate::limits::ZONES_AT_A_SHARD;
use crate::map::{ArrayMap, Service};
use crate::message::Message;
use crate::operations::Operations;
use crate::status::RebuildStatus;

/// How members are rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildSettings {
    /// How fast, all shards together.
    pub limits: Limits,
    /// After so many zones the position is made durable.
    pub save_zones: u64,
    /// And after so long, if it has moved.
    pub save_period: Span,
}

impl Default for RebuildSettings {
    fn default() -> Self {
        Self {
            limits: Limits { bytes_a_second: 0, latency: Span::from_millis(20) },
            save_zones: 64,
            save_period: Span::from_secs(5),
        }
    }
}

/// A member that is being rebuilt.
#[derive(Debug)]
pub(super) struct Rebuild {
    run: u32,
    slot: Slot,
    /// The first zone that nobody was given.
    next: u64,
    /// Zones below this are done.
    done: u64,
    /// Zones that are done beyond it.
    beyond: BTreeSet<u64>,
    /// What the superblocks say.
    saved: u64,
    saved_at: Time,
    /// Zones that each shard has.
    given: Vec<u8>,
    began: Time,
    began_at: u64,
}

impl Rebuild {
    fn new(run: u32, slot: Slot, position: u64, shards: u16, now: Time) -> Self {
        Self {
            run,
            slot,
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

    fn is_to_save(&self, zones: u64, settings: &RebuildSettings, now: Time) -> bool {
        self.done == zones
            || self.done - self.saved >= settings.save_zones
            || self.done > self.saved && now >= self.saved_at + settings.save_period
    }

    /// A zone has come back; whether it was of this rebuild.
    fn walked(&mut self, run: u32, zone: ZoneId, from: ShardId) -> bool {
        if run != self.run {
            return false;
        }
        self.given[from.index()] -= 1;
        self.beyond.insert(zone.0);
        while self.beyond.remove(&self.done) {
            self.done += 1;
        }
        true
    }
}

impl Coordinator {
    /// Takes a zone back from its owner.
    pub(super) fn zone_walked(&mut self, id: ArrayId, from: ShardId, run: u32, zone: ZoneId) {
        // What a member had that is gone says nothing of another.
        if let Some(rebuild) = &mut self.arrays[id.index()].rebuild {
            rebuild.walked(run, zone, from);
        }
    }

    /// A zone cannot be done. The rebuild goes on behind it, in memory; its position stays.
    pub(super) fn zone_blocked(&mut self, id: ArrayId, from: ShardId, run: u32, zone: ZoneId) {
        let array = &mut self.arrays[id.index()];
        if let Some(rebuild) = array.rebuild.as_mut().filter(|rebuild| rebuild.run == run) {
            rebuild.given[from.index()] -= 1;
            let stripe = StripeId(zone.0 * array.array.map.geometry.zone_stripes());
            let slot = rebuild.slot;
            self.tell(Event::RebuildBlocked { array: id, slot, stripe });
        }
    }

    /// Begins, goes on with, and ends the rebuild of an array; whether anything was done.
    pub(super) fn rebuild<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
    ) -> bool {
        let now = ports.now();
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        array.rebuild.take_if(|rebuild| !map.is_rebuilding(rebuild.slot));
        if self.stopping || map.service != Service::ReadWrite {
            return false;
        }
        if array.rebuild.is_none() {
            let Some((slot, position)) = next_to_rebuild(map) else { return false };
            self.next_run += 1;
            let zone = map.geometry.zone_of(position).0;
            array.rebuild = Some(Rebuild::new(self.next_run, slot, zone, self.shards, now));
            self.tell(Event::RebuildBegan { array: id, slot, position });
        }
        let given = self.give_zones(id);
        let array = &mut self.arrays[id.index()];
        let rebuild = array.rebuild.as_ref().expect("begun above");
        let zones = array.array.map.geometry.zones();
        let is_to_save = rebuild.is_to_save(zones, &array.array.rebuild, now);
        if is_to_save && array.is_at_rest() && operations.available() > 0 {
            let member = array.array.map.members[rebuild.slot.index()].expect("a member that is being rebuilt");
            let purpose = Purpose::Coordinator { write: pack(id, Target::Member(rebuild.slot.0)) };
            operations.start(ports, (member.device, DeviceBlock(0)), DeviceOp::Flush, None, purpose);
            array.unanswered += 1;
            array.change = Change::Flushing { slot: rebuild.slot, zones: rebuild.done };
            return true;
        }
        given
    }

    /// Hands out zones as far as their owners take them.
    fn give_zones(&mut self, id: ArrayId) -> bool {
        let array = &mut self.arrays[id.index()];
        let (map, rebuild) = (&array.array.map, array.rebuild.as_mut().expect("a rebuild under way"));
        let zones = map.geometry.zones();
        let mut limits = array.array.rebuild.limits;
        limits.bytes_a_second = limits.bytes_a_second.div_ceil(u64::from(self.shards));
        let mut worked = false;
        while !array.paused && rebuild.next < zones {
            let zone = ZoneId(rebuild.next);
            let owner = map.owner_of(map.lane_of(zone));
            if usize::from(rebuild.given[owner.index()]) >= ZONES_AT_A_SHARD {
                break;
            }
            rebuild.given[owner.index()] += 1;
            rebuild.next += 1;
            let order = Order { run: rebuild.run, zone, action: Action::Rebuild(rebuild.slot), limits };
            self.messages.push_back((owner, Message::Walk { array: id, order }));
            worked = true;
        }
        worked
    }

    /// The member has been flushed: what was done before that may be said in the superblocks.
    pub(super) fn save_position(&mut self, id: ArrayId, slot: Slot, zones: u64, now: Time) {
        let array = &mut self.arrays[id.index()];
        if let Some(rebuild) = &mut array.rebuild {
            rebuild.saved = zones;
            rebuild.saved_at = now;
        }
        let geometry = &array.array.map.geometry;
        let position = (zones < geometry.zones()).then_some(StripeId(zones * geometry.zone_stripes()));
        array.pending.edit = Some(Edit::Position { slot, position });
    }

    /// When a position is to be saved.
    pub(super) fn rebuild_deadline(&self) -> Time {
        let due = self.arrays.iter().filter_map(|array| {
            let rebuild = array.rebuild.as_ref().filter(|rebuild| rebuild.done > rebuild.saved && !self.stopping)?;
            Some(rebuild.saved_at + array.array.rebuild.save_period)
        });
        due.min().unwrap_or(Time::NEVER)
    }

    /// How far the rebuild of an array is.
    pub(crate) fn rebuild_status(&self, id: ArrayId, now: Time) -> Option<RebuildStatus> {
        let array = &self.arrays[id.index()];
        let rebuild = array.rebuild.as_ref()?;
        let geometry = &array.array.map.geometry;
        let done = rebuild.done + rebuild.beyond.len() as u64;
        let zone_bytes = geometry.zone_stripes() * BLOCK as u64;
        let elapsed_ns = now.since(rebuild.began).0.max(1);
        let since = u128::from((done - rebuild.began_at) * zone_bytes);
        let bytes_a_second = (since * 1_000_000_000 / u128::from(elapsed_ns)) as u64;
        let left = (geometry.zones() - done) * zone_bytes;
        Some(RebuildStatus {
            slot: rebuild.slot.0,
            done_bytes: done * zone_bytes,
            bytes: geometry.zones() * zone_bytes,
            bytes_a_second,
            seconds_left: left.checked_div(bytes_a_second),
            paused: array.paused,
        })
    }
}

/// The first member that is being rebuilt, and how far it is.
fn next_to_rebuild(map: &ArrayMap) -> Option<(Slot, StripeId)> {
    (0..).map(Slot).zip(&map.members).find_map(|(slot, member)| Some((slot, member.as_ref()?.position?)))
}
