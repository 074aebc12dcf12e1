//! Zones that members which are out have missed. As long as any is out, and all were whole before, whoever is about to change
//! something in a zone has it *marked*: its bit is durable on all members that are there, which the coordinator sees to, before
//! a destage of the zone is over, or the zone counts as initialised. Until then the log, or the bit that the zone is dirty, still
//! says what was under way. When a member goes out, all zones are marked in which anything is under way at that moment.
//!
//! What a mend or a scrub's repair writes is what the others say was there: nothing that anybody could miss.
//!
//! A member that comes back is rebuilt in marked zones, and in no others (`raid::away`).

use base::ids::ZoneId;
use base::slab::Key;
use ports::Ports;

use super::destage::{Destage, Phase};
use super::zone_set::ZoneSet;
use super::{ArrayShard, Work};
use crate::map::ArrayMap;
use crate::message::Message;

/// This shard's zones that were changed while a member was out; of zones of others it may know some, too.
#[derive(Debug)]
pub(crate) struct Missed {
    /// The bit is durable.
    marked: ZoneSet,
    /// The coordinator was asked to make it so.
    asked: ZoneSet,
}

impl Missed {
    /// Those of a start.
    pub(crate) fn new(missed: &[u64]) -> Self {
        let mut asked = ZoneSet::of(missed);
        asked.clear_all();
        Self { marked: ZoneSet::of(missed), asked }
    }

    /// Whether a member that was out may lack something of a zone.
    pub(crate) fn has(&self, zone: ZoneId) -> bool {
        self.marked.has(zone) || self.asked.has(zone)
    }
}

impl ArrayShard {
    /// Something in a zone is about to change.
    pub(super) fn mark_zone(&mut self, zone: ZoneId) {
        if self.map.away.is_some() && !self.missed.has(zone) {
            self.missed.asked.set(zone);
            self.reports.push_back(Message::ZoneMissed { array: self.map.id, zone });
        }
    }

    /// Whether what was changed in a zone may be forgotten: nobody is out, or that he missed it is durable.
    pub(super) fn is_marked(&self, zone: ZoneId) -> bool {
        self.map.away.is_none() || self.missed.marked.has(zone)
    }

    /// That a zone was missed is durable on all members: what waited for it goes on.
    pub(crate) fn zone_marked<P: Ports>(&mut self, work: &mut Work<'_, P>, zone: ZoneId) {
        self.missed.asked.clear(zone);
        self.missed.marked.set(zone);
        self.marks_changed(work);
    }

    /// The map has changed.
    pub(super) fn away_changed<P: Ports>(&mut self, work: &mut Work<'_, P>, before: &ArrayMap) {
        match (before.away.is_some(), self.map.away.is_some()) {
            (false, true) => self.mark_what_is_under_way(),
            (true, false) => {
                self.missed.marked.clear_all();
                self.missed.asked.clear_all();
                self.marks_changed(work);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Destages, with the zones that they have made ready, and zones that a crash left dirty: who went out may have what is new of
    /// them, or what was there before.
    fn mark_what_is_under_way(&mut self) {
        for place in 0..self.destages.capacity() {
            // Of those that only wait for their note everybody had flushed everything.
            if let Some((_, destage)) = self.destages.at(place)
                && !matches!(destage.phase, Phase::ToRecord | Phase::Recording)
            {
                let zone = self.map.arrangement.zone_of(self.stripes.get(destage.stripe()).id);
                self.mark_zone(zone);
            }
        }
        let unsettled: Vec<ZoneId> = self.dirty.unsettled().collect();
        unsettled.into_iter().for_each(|zone| self.mark_zone(zone));
    }

    fn marks_changed<P: Ports>(&mut self, work: &mut Work<'_, P>) {
        self.for_each_in(Phase::Marking, |array, key| array.go_on_marked(work, key));
        self.zones_marked();
    }

    /// The members have all of a destage, and it ends once its zone is marked.
    pub(super) fn go_on_marked<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Destage>) {
        let zone = self.map.arrangement.zone_of(self.stripes.get(self.destages[key].stripe).id);
        if !self.is_marked(zone) {
            self.destages[key].phase = Phase::Marking;
            return;
        }
        self.destages[key].phase = Phase::ToRecord;
        if self.map.is_unlogged() {
            self.end_destage(work, key);
        } else if !self.log_note(work, key) {
            self.to_log.push_back(key);
        }
    }
}
