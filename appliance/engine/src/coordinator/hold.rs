//! For how long hosts' writes may wait while a log comes or goes: until nothing is under way any more, but not if that does not
//! come about. A drive may hang, and what cannot be destaged is healed by writes alone.

use base::ids::ArrayId;
use base::time::Time;
use ports::Ports;

use super::{Coordinated, Coordinator};
use crate::command::Refusal;
use crate::limits::MAX_HOLD;
use crate::map::ArrayMap;
use crate::message::Message;

impl Coordinated {
    /// Why writes may not wait, or not any longer, if that is so.
    pub(super) fn refuses_hold(&self, stopping: bool, now: Time) -> Option<Refusal> {
        if stopping {
            return Some(Refusal::Stopping);
        }
        let is_over = self.array.map.hold.is_some() && now >= self.hold_until;
        (is_over || self.blocked != 0).then_some(Refusal::Unsettled)
    }
}

impl Coordinator {
    /// Has hosts' writes wait, under a number, or lets them go on. It has no epoch of its own, since nothing relies on it.
    pub(super) fn hold<P: Ports>(&mut self, ports: &mut P, id: ArrayId, hold: Option<u32>) {
        let array = &mut self.arrays[id.index()];
        array.hold_until = ports.now() + MAX_HOLD;
        let map = ArrayMap { hold, ..ArrayMap::clone(&array.array.map) };
        self.tell_map(ports, id, map);
    }

    /// Tells all shards what changes without an epoch.
    pub(super) fn tell_map<P: Ports>(&mut self, ports: &mut P, id: ArrayId, map: ArrayMap) {
        let map = ports.seal("array map", map);
        self.arrays[id.index()].array.map = map.clone();
        self.tell_all(|| Message::Map(map.clone()));
    }

    /// When writes have waited for long enough, if any do.
    pub(super) fn hold_deadline(&self) -> Time {
        let held = self.arrays.iter().filter(|array| array.array.map.hold.is_some());
        held.map(|array| array.hold_until).min().unwrap_or(Time::NEVER)
    }
}
