//! Zones that a crash could leave dirty: of an array without a log, or one whose log is lost, those that are being written. Before a stripe of a zone
//! goes to the members the zone is *noted*: its bit is durable on all of them, which the coordinator sees to. The bit is
//! cleared, with many others, when the zone has rested for one to two periods and the members were flushed since; so a zone
//! that is written all the time pays once. A clean stop clears all.
//!
//! Zones whose bits were set at the start are *unsynced* as long as they are not walked over: their parities are not trusted,
//! and no base of new ones; nobody puts a block together from them as long as there is a choice. Their bits stay.
//!
//! Without anything beside the data nothing can be left behind, and nothing is noted.

use base::ids::{DeviceBlock, ShardId, Slot, StripeId, ZoneId};
use base::slab::Key;
use base::time::{Span, Time};
use ports::{DeviceOp, Ports};
use raid::dirty::is_at_stake;

use super::destage::{Destage, Phase};
use super::zone_set::ZoneSet;
use super::{ArrayShard, Purpose, Work};
use crate::limits::{CLEANED_AT_A_TIME, NOTED_AT_A_TIME};
use crate::map::ArrayMap;
use crate::message::Message;

/// How long a zone rests, at least, before it is dirty no longer.
const PERIOD: Span = Span::from_secs(5);

/// This shard's zones, as far as they matter here.
#[derive(Debug)]
pub(crate) struct Dirty {
    /// The bit is durable.
    noted: ZoneSet,
    /// The coordinator was asked to make it so.
    asked: ZoneSet,
    /// Written since the last sweep.
    touched: ZoneSet,
    /// Dirty since the crash.
    unsynced: ZoneSet,
    /// How many are noted, and of how many that was asked.
    count: u64,
    asked_count: usize,
    next_sweep: Time,
    /// Rested, and to be cleared when the flush under way has ended.
    cleaning: Vec<ZoneId>,
    /// Nothing is written any more: all of them are cleared.
    leaving: bool,
    unanswered: u32,
    failed: bool,
}

impl Dirty {
    pub(crate) fn new(shard: ShardId, map: &ArrayMap, dirty: &[u64]) -> Self {
        // Also with a log: it may be lost.
        let zones = map.arrangement.zones();
        let mut own = Self {
            noted: ZoneSet::new(zones),
            asked: ZoneSet::new(zones),
            touched: ZoneSet::new(zones),
            unsynced: ZoneSet::new(zones),
            count: 0,
            asked_count: 0,
            next_sweep: Time(0),
            cleaning: Vec::with_capacity(CLEANED_AT_A_TIME),
            leaving: false,
            unanswered: 0,
            failed: false,
        };
        for zone in ZoneSet::of(dirty).iter().filter(|zone| zone.0 < zones) {
            if map.owner_of(map.lane_of(zone)) == shard {
                own.noted.set(zone);
                own.unsynced.set(zone);
                own.count += 1;
            }
        }
        own
    }

    /// Whether parities of a zone match its data.
    pub(crate) fn is_trusted(&self, zone: ZoneId) -> bool {
        !self.unsynced.has(zone)
    }

    pub(crate) fn is_noted(&self, zone: ZoneId) -> bool {
        self.noted.has(zone)
    }

    /// The zones in which something may be under way, or was left so by a crash.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = ZoneId> + '_ {
        self.noted.iter().chain(self.asked.iter())
    }

    /// When there is something to do, if nothing comes before.
    pub(crate) fn deadline(&self) -> Time {
        if self.count > 0 && self.cleaning.is_empty() { self.next_sweep } else { Time::NEVER }
    }

    /// Zones that are noted, and those that are to be resynced.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.count, self.unsynced.count())
    }
}

impl ArrayShard {
    /// A stripe of a zone is about to be written.
    pub(super) fn note_zone(&mut self, zone: ZoneId) {
        if !self.map.is_unlogged() {
            return;
        }
        let dirty = &mut self.dirty;
        dirty.touched.set(zone);
        if !self.map.has_redundancy() {
            // Nothing can be left behind: as if it were known.
            dirty.noted.set(zone);
        } else if !dirty.noted.has(zone) && !dirty.asked.has(zone) && dirty.asked_count < NOTED_AT_A_TIME {
            dirty.asked.set(zone);
            dirty.asked_count += 1;
            self.reports.push_back(Message::ZoneDirty { array: self.map.id, zone, dirty: true });
        }
    }

    /// That a zone is dirty is durable on all members.
    pub(crate) fn zone_noted(&mut self, zone: ZoneId) {
        let dirty = &mut self.dirty;
        dirty.asked.clear(zone);
        dirty.asked_count -= 1;
        assert!(!dirty.noted.has(zone), "a zone is noted once");
        dirty.noted.set(zone);
        dirty.count += 1;
        self.zones_noted();
    }

    /// Without a log: a destage goes on once its zone is known to be dirty (rule L10).
    pub(super) fn go_on_noted(&mut self, key: Key<Destage>) {
        let zone = self.map.arrangement.zone_of(self.stripes.get(self.destages[key].stripe).id);
        if !self.dirty.is_noted(zone) {
            // Too much had been asked before, or nobody asked as long as there was a log. Without redundancy it is known at once.
            self.note_zone(zone);
        }
        if self.dirty.is_noted(zone) {
            self.destages[key].phase = Phase::Grace;
            self.in_grace.push_back(key);
        }
    }

    /// Zones are known to be dirty: destages that waited for that go on.
    fn zones_noted(&mut self) {
        self.for_each_in(Phase::Noting, Self::go_on_noted);
    }

    /// A zone was walked over: what is kept beside its data matches.
    pub(super) fn zone_synced(&mut self, zone: ZoneId) {
        self.dirty.unsynced.clear(zone);
    }

    /// Now and then: has zones cleared that have rested.
    pub(crate) fn sweep<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        if self.dirty.count == 0 || work.now < self.dirty.next_sweep || self.stopping {
            return;
        }
        if !self.clean(work) {
            return;
        }
        // With more to be cleared than goes at a time, the others are next.
        if self.dirty.cleaning.len() < CLEANED_AT_A_TIME {
            self.dirty.next_sweep = work.now + PERIOD;
            self.dirty.touched.clear_all();
        }
    }

    /// Flushes the members for zones that have rested, or for all; false if that must wait.
    fn clean<P: Ports>(&mut self, work: &mut Work<'_, P>) -> bool {
        let members = self.map.members.len() + 1;
        if self.dirty.unanswered > 0 || self.failing_members != 0 || work.operations.available() <= members {
            return false;
        }
        let Dirty { noted, touched, unsynced, cleaning, leaving, .. } = &mut self.dirty;
        let arrangement = &self.map.arrangement;
        let is_under_way = |zone: ZoneId| {
            self.destages.iter().any(|(_, destage)| arrangement.zone_of(self.stripes.get(destage.stripe()).id) == zone)
        };
        let rests = |zone: &ZoneId| !unsynced.has(*zone) && (*leaving || !touched.has(*zone) && !is_under_way(*zone));
        cleaning.extend(noted.iter().filter(rests).take(CLEANED_AT_A_TIME));
        if cleaning.is_empty() {
            return true;
        }
        self.dirty.failed = false;
        for (slot, member) in self.map.written() {
            self.dirty.unanswered += 1;
            let purpose = Purpose::CleanFlush { array: self.map.id, slot };
            work.operations.start(work.ports, (member.device, DeviceBlock(0)), DeviceOp::Flush, None, purpose);
        }
        true
    }

    /// A member has been flushed; with the last of them zones are clean that were not written meanwhile.
    pub(crate) fn clean_flushed(&mut self, slot: Slot, succeeded: bool) {
        if !succeeded {
            self.member_failed(slot);
        }
        let dirty = &mut self.dirty;
        dirty.failed |= !succeeded;
        dirty.unanswered -= 1;
        if dirty.unanswered > 0 {
            return;
        }
        for zone in dirty.cleaning.drain(..) {
            if !dirty.failed && (dirty.leaving || !dirty.touched.has(zone)) {
                dirty.noted.clear(zone);
                dirty.count -= 1;
                self.reports.push_back(Message::ZoneDirty { array: self.map.id, zone, dirty: false });
            }
        }
    }

    /// Zones that are written stay noted for a while again.
    pub(super) fn stay_dirty(&mut self) {
        self.dirty.leaving = false;
    }

    /// With nothing under way any more, for a clean stop or a log that is about to come: clears all zones but those that were
    /// not resynced; whether that is done.
    pub(super) fn leave_clean<P: Ports>(&mut self, work: &mut Work<'_, P>) -> bool {
        let (noted, unsynced) = self.dirty.counts();
        if self.dirty.unanswered > 0 {
            return false;
        }
        if noted == unsynced {
            return true;
        }
        self.dirty.leaving = true;
        self.clean(work);
        false
    }

    /// Members are lost: says of how many zones parities are to stand for data although they may not match it.
    pub(super) fn tell_what_is_at_stake(&mut self, before: &ArrayMap) {
        let geometry = self.map.arrangement.geometry();
        let is_new = |zone: &ZoneId| {
            let first = StripeId(zone.0 * geometry.zone_stripes());
            is_at_stake(geometry, *zone, self.map.missing_at(first))
                && !is_at_stake(geometry, *zone, before.missing_at(first))
        };
        let zones = self.dirty.unsynced.iter().filter(is_new).count() as u64;
        if zones > 0 {
            self.reports.push_back(Message::ZonesAtStake { array: self.map.id, zones });
        }
    }
}
