//! The rebuild of a member, as the coordinator sees it: a [`super::round`] over the zones of the array. Whenever its position is
//! to be made durable, the member is flushed first, and then the superblocks say how far it is. Zones that are done beyond it
//! count as current in their owners' memory alone.
//!
//! One member of an array is rebuilt at a time. It goes on from the superblocks' position after a restart, and by itself.

use base::ids::{ArrayId, DeviceBlock, ShardId, Slot, StripeId, ZoneId};
use base::time::Time;
use ports::{DeviceOp, Ports};

use super::persist::{Target, pack};
use super::proposal::Edit;
use super::round::{Round, share};
use super::{Change, Coordinator};
use crate::array::{Action, Order, Purpose};
use crate::command::Event;
use crate::map::{ArrayMap, Service};
use crate::message::Message;
use crate::operations::Operations;
use crate::status::RebuildStatus;

/// A member that is being rebuilt.
#[derive(Debug)]
pub(super) struct Rebuild {
    slot: Slot,
    round: Round,
}

impl Coordinator {
    /// Takes a zone back from its owner.
    pub(super) fn zone_rebuilt(&mut self, id: ArrayId, from: ShardId, run: u32, zone: ZoneId) {
        // What a member had that is gone says nothing of another.
        if let Some(rebuild) = self.arrays[id.index()].rebuild.as_mut().filter(|rebuild| rebuild.round.run == run) {
            rebuild.round.walked(zone, from);
        }
    }

    /// A zone cannot be done. The rebuild goes on behind it, in memory; its position stays.
    pub(super) fn zone_blocked(&mut self, id: ArrayId, from: ShardId, run: u32, zone: ZoneId) {
        if self.zone_resynced(id, from, run, zone, false) {
            return;
        }
        let array = &mut self.arrays[id.index()];
        if let Some(rebuild) = array.rebuild.as_mut().filter(|rebuild| rebuild.round.run == run) {
            rebuild.round.missed(from);
            let stripe = StripeId(zone.0 * array.array.map.arrangement.zone_stripes());
            let slot = rebuild.slot;
            if slot == array.array.map.successor_slot() {
                self.succession_blocked(id, stripe);
            } else {
                self.tell(Event::RebuildBlocked { array: id, slot, stripe });
            }
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
        if self.stopping || map.service != Service::ReadWrite || array.resync.is_some() || array.is_to_succeed() {
            return false;
        }
        // A window that moves has come to its place first, or stays.
        if map.moving.is_some() {
            return false;
        }
        // A member that has to be rebuilt comes before a drive that is to succeed one.
        let successor = map.successor_slot();
        let wanted = next_to_rebuild(map).map(|(slot, _)| slot);
        array.rebuild.take_if(|rebuild| rebuild.slot == successor && wanted != Some(successor));
        if array.rebuild.is_none() {
            let Some((slot, position)) = next_to_rebuild(map) else { return false };
            self.next_run += 1;
            let zone = map.arrangement.zone_of(position).0;
            let round = Round::new(self.next_run, zone, self.shards, now);
            array.rebuild = Some(Rebuild { slot, round });
            if slot != successor {
                self.tell(Event::RebuildBegan { array: id, slot, position });
            }
        }
        let given = self.give_to_rebuild(id);
        let array = &mut self.arrays[id.index()];
        let rebuild = array.rebuild.as_ref().expect("begun above");
        let zones = array.array.map.arrangement.zones();
        // Nothing that a successor has counts before it has all.
        let is_to_save = if rebuild.slot == successor {
            rebuild.round.done() == zones
        } else {
            rebuild.round.is_to_save(zones, &array.array.rebuild, now)
        };
        if is_to_save && array.is_at_rest() && operations.available() > 0 {
            let member = array.array.map.member(rebuild.slot).expect("a member that is being rebuilt");
            let target = if rebuild.slot == successor { Target::Drive } else { Target::Member(rebuild.slot.0) };
            let purpose = Purpose::Coordinator { write: pack(id, target) };
            operations.start(ports, (member.device, DeviceBlock(0)), DeviceOp::Flush, None, purpose);
            array.unanswered += 1;
            array.change = Change::Flushing { slot: rebuild.slot, zones: rebuild.round.done() };
            return true;
        }
        given
    }

    /// Hands out zones as far as their owners take them.
    fn give_to_rebuild(&mut self, id: ArrayId) -> bool {
        let array = &mut self.arrays[id.index()];
        let (map, rebuild) = (&array.array.map, array.rebuild.as_mut().expect("a rebuild under way"));
        let limits = share(array.array.rebuild.limits, self.shards);
        let mut worked = false;
        while !array.paused
            && let Some((owner, zone)) = rebuild.round.give(map)
        {
            let order = Order { run: rebuild.round.run, zone, action: Action::Rebuild(rebuild.slot), limits };
            self.messages.push_back((owner, Message::Walk { array: id, order }));
            worked = true;
        }
        worked
    }

    /// The member has been flushed: what was done before that may be said in the superblocks.
    pub(super) fn save_position(&mut self, id: ArrayId, slot: Slot, zones: u64, now: Time) {
        let array = &mut self.arrays[id.index()];
        if let Some(rebuild) = &mut array.rebuild {
            rebuild.round.saves(zones, now);
        }
        let arrangement = &array.array.map.arrangement;
        let position = (zones < arrangement.zones()).then_some(StripeId(zones * arrangement.zone_stripes()));
        array.pending.edit = Some(Edit::Position { slot, position });
    }

    /// When a position is to be saved.
    pub(super) fn rebuild_deadline(&self) -> Time {
        let due = self.arrays.iter().filter(|_| !self.stopping).filter_map(|array| {
            let rebuild = array.rebuild.as_ref().filter(|rebuild| rebuild.slot != array.array.map.successor_slot())?;
            rebuild.round.save_due(&array.array.rebuild)
        });
        due.min().unwrap_or(Time::NEVER)
    }

    /// How far the rebuild of an array is.
    pub(crate) fn rebuild_status(&self, id: ArrayId, now: Time) -> Option<RebuildStatus> {
        let array = &self.arrays[id.index()];
        let rebuild = array.rebuild.as_ref()?;
        let progress = rebuild.round.progress(array.array.map.arrangement.geometry(), now);
        Some(RebuildStatus {
            slot: array.array.map.place_of(rebuild.slot).0,
            done_bytes: progress.done_bytes,
            bytes: progress.bytes,
            bytes_a_second: progress.bytes_a_second,
            seconds_left: progress.seconds_left,
            paused: array.paused,
        })
    }
}

/// The first member that is being rebuilt, or the successor behind them all, and how far it is.
fn next_to_rebuild(map: &ArrayMap) -> Option<(Slot, StripeId)> {
    map.written().find_map(|(slot, member)| Some((slot, member.position?)))
}
