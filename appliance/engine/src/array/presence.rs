//! Which members hold a stripe. The map says it for what is durable in the superblocks; the owner of a zone knows more of the
//! member that is being rebuilt: zones, and the front of the zone at hand, that are current on it although no superblock
//! says so yet. What is current is read from it and written to it like from and to any other member.

use base::ids::{DeviceBlock, DeviceId, Slot, StripeId, ZoneId};

use super::ArrayShard;
use super::zone_set::ZoneSet;
use crate::map::ArrayMap;

/// What this shard has rebuilt of its zones.
#[derive(Debug)]
pub(crate) struct Presence {
    /// The member that is being rebuilt, once a zone of it has been.
    slot: Option<Slot>,
    /// Zones that are current on it.
    zones: ZoneSet,
    /// The zone at hand, and the first stripe of it that is not current.
    front: Option<(ZoneId, StripeId)>,
}

impl Presence {
    pub(crate) fn new(zones: u64) -> Self {
        Self { slot: None, zones: ZoneSet::new(zones), front: None }
    }

    /// A member is being rebuilt from now on, of which this shard has rebuilt nothing.
    pub(crate) fn begin(&mut self, slot: Slot) {
        self.slot = Some(slot);
        self.zones.clear_all();
        self.front = None;
    }

    /// Nothing is being rebuilt, or nothing of what was may be believed.
    pub(crate) fn end(&mut self) {
        self.slot = None;
        self.front = None;
    }

    pub(crate) fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// A zone is current as far as this stripe.
    pub(crate) fn advance(&mut self, zone: ZoneId, stripe: StripeId) {
        self.front = Some((zone, stripe));
    }

    /// The zone at hand is given up: what was done of it goes for nothing.
    pub(crate) fn retreat(&mut self) {
        self.front = None;
    }

    /// A zone is current.
    pub(crate) fn finish(&mut self, zone: ZoneId) {
        self.zones.set(zone);
        self.front = None;
    }

    /// The member that holds a stripe by what this shard has rebuilt.
    fn rebuilt(&self, map: &ArrayMap, stripe: StripeId) -> Option<Slot> {
        let slot = self.slot?;
        let zone = map.arrangement.zone_of(stripe);
        let is_behind = self.front.is_some_and(|(at, front)| at == zone && stripe < front);
        (self.zones.has(zone) || is_behind).then_some(slot)
    }

    /// Slots that hold nothing of a stripe, as a bit mask.
    pub(crate) fn missing(&self, map: &ArrayMap, stripe: StripeId) -> u32 {
        let rebuilt = self.rebuilt(map, stripe).map_or(0, |slot| 1 << slot.0);
        map.missing_at(stripe) & !rebuilt
    }

    /// The place of a stripe on the drive that is to succeed the member of a slot, if it is the member's like there.
    pub(crate) fn on_successor(&self, map: &ArrayMap, slot: Slot, stripe: StripeId) -> Option<(DeviceId, DeviceBlock)> {
        map.successor.filter(|successor| successor.slot == slot)?;
        let successor = map.successor_slot();
        if self.rebuilt(map, stripe) == Some(successor) { map.place(successor, stripe) } else { None }
    }

    /// The member of a slot and the device block of a stripe on it, if it holds it.
    pub(crate) fn on_member(&self, map: &ArrayMap, slot: Slot, stripe: StripeId) -> Option<(DeviceId, DeviceBlock)> {
        if self.rebuilt(map, stripe) == Some(slot) { map.place(slot, stripe) } else { map.on_member(slot, stripe) }
    }
}

impl ArrayShard {
    /// Slots that hold nothing of a stripe, as a bit mask.
    pub(crate) fn missing(&self, stripe: StripeId) -> u32 {
        self.presence.missing(&self.map, stripe)
    }

    /// The member of a slot and the device block of a stripe on it, if it holds it.
    pub(crate) fn on_member(&self, slot: Slot, stripe: StripeId) -> Option<(DeviceId, DeviceBlock)> {
        self.presence.on_member(&self.map, slot, stripe)
    }
}
