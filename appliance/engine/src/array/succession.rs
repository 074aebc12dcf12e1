//! A drive that is to take the place of a member which is still in use. For a shard it is a further member, behind all others in
//! number: a walk makes it the member's like, range by range, as it would fill a member that is being rebuilt, only that mostly the
//! member itself is all that is read. Where it is the member's like, each write to the member goes there too, and flushes go to both.
//! So nothing that was acknowledged, or whose log space was given back, is not on it.
//!
//! Nothing is read from it, and no superblock names it, until all of it is the member's like. Then the superblocks name it in the
//! member's stead, and it is what the member was. Should it fail before, its place goes on as if it had never been there; a shard
//! for which it has failed gives back no log space until that is in force.
//!
//! What the old member still has under way at that moment is given up, and says nothing of the new one: answers are judged by
//! their device ([`super::health`]).

use base::ids::Slot;

use crate::map::ArrayMap;

/// Slots that were failing and still are by a new map: a successor may have its place, and whoever is gone fails no more.
pub(super) fn still_failing(failing: u32, before: &ArrayMap, now: &ArrayMap) -> u32 {
    let is_failing = |slot: Slot| failing.checked_shr(slot.0.into()).is_some_and(|rest| rest & 1 != 0);
    let failing = before.written().filter(|(slot, _)| is_failing(*slot));
    let slots = failing.filter_map(|(_, member)| now.slot_of(member.device));
    slots.fold(0, |mask, slot| mask | 1 << slot.0)
}
