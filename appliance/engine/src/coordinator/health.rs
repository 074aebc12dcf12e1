//! Members that make mistakes: how many within an hour, and when they are too many. A drive that cannot read a block now and
//! then gets it written again and stays; one that cannot read many is about to fail, and is better out while the others can
//! do without it. So may be one that has become much slower than the others.

use std::collections::VecDeque;

use base::ids::{ArrayId, DeviceId, ShardId, Slot, StripeId};
use base::time::{Span, Time};

use super::{Change, Coordinated, Coordinator};
use crate::array::MemberErrors;
use crate::command::Event;
use crate::drives::SlowPolicy;
use crate::map::ArrayMap;

/// What counts as lately.
const HOUR: Span = Span::from_secs(3600);

/// What is known of a member.
#[derive(Debug)]
pub(super) struct MemberRecord {
    /// Heard, and not judged yet.
    heard: MemberErrors,
    /// When the latest blocks were that could not be read: no more than it takes to judge.
    recent: VecDeque<Time>,
    /// Whether it was said that there are too many.
    said: bool,
    /// Shards to which it is slow, as a bit mask.
    slow: u64,
    /// Shards that it has not answered for too long, as a bit mask, and whether that was said.
    hanging: u64,
    hanging_said: bool,
}

impl MemberRecord {
    pub(super) fn new() -> Self {
        Self {
            heard: MemberErrors::default(),
            recent: VecDeque::new(),
            said: false,
            slow: 0,
            hanging: 0,
            hanging_said: false,
        }
    }

    /// Takes what was found.
    pub(super) fn hear(&mut self, errors: MemberErrors) {
        self.heard.add(errors);
    }

    /// Counts what was heard; how many blocks could not be read, or were wrong, within the hour, as far as `most` and one more.
    fn count(&mut self, now: Time, most: u32) -> u32 {
        for _ in 0..self.heard.unreadable.saturating_add(self.heard.wrong).min(most.saturating_add(1)) {
            self.recent.push_back(now);
        }
        while self.recent.front().is_some_and(|&at| now.since(at) > HOUR)
            || self.recent.len() as u64 > u64::from(most) + 1
        {
            self.recent.pop_front();
        }
        self.recent.len() as u32
    }
}

impl Coordinated {
    /// Whether a member is out or on its way.
    fn is_leaving(&self, slot: Slot) -> bool {
        let is_out = |map: &ArrayMap| map.members[slot.index()].is_none();
        let is_proposed = matches!(&self.change, Change::Proposing(proposed) if is_out(&proposed.map));
        is_out(&self.array.map) || is_proposed || self.pending.members & 1 << slot.0 != 0
    }
}

impl Coordinator {
    /// A member has become slow to a shard, or is so no longer; with its mean and the median of the others.
    pub(super) fn paced(&mut self, id: ArrayId, slot: Slot, from: ShardId, slow: bool, (mean, peers): (Span, Span)) {
        let array = &mut self.arrays[id.index()];
        // A successor may take its time.
        let Some(record) = array.members.get_mut(slot.index()) else { return };
        let before = record.slow;
        record.slow = if slow { before | 1 << from.0 } else { before & !(1 << from.0) };
        if (before == 0) == (record.slow == 0) || array.is_leaving(slot) {
            return;
        }
        let excluded = slow && array.array.drives.slow == SlowPolicy::Fail && array.can_do_without(1 << slot.0, 0);
        if excluded {
            array.pending.members |= 1 << slot.0;
        }
        self.tell(Event::Slow { array: id, slot, slow, mean, peers, excluded });
    }

    /// A member has not answered a shard for too long, or has after all.
    pub(super) fn hangs(&mut self, id: ArrayId, slot: Slot, from: ShardId, hangs: bool) {
        let array = &mut self.arrays[id.index()];
        let Some(record) = array.members.get_mut(slot.index()) else {
            if hangs && let Some(successor) = array.array.map.successor {
                array.pending.unseat = true;
                self.to_give_up.push(successor.member.device);
            }
            return;
        };
        record.hanging = if hangs { record.hanging | 1 << from.0 } else { record.hanging & !(1 << from.0) };
        if record.hanging == 0 && core::mem::take(&mut record.hanging_said) && !array.is_leaving(slot) {
            self.tell(Event::Hanging { array: id, slot, hangs: false, excluded: false });
        }
    }

    /// Excludes members that hang, as soon as the array can do without them.
    fn judge_hanging(&mut self, id: ArrayId) {
        for slot in (0..self.arrays[id.index()].members.len() as u8).map(Slot) {
            let array = &mut self.arrays[id.index()];
            if array.members[slot.index()].hanging == 0 {
                continue;
            }
            let Some(member) = array.array.map.members[slot.index()] else {
                // Whoever has the place next has not been asked anything yet.
                (array.members[slot.index()].hanging, array.members[slot.index()].hanging_said) = (0, false);
                continue;
            };
            if array.is_leaving(slot) {
                continue;
            }
            let excluded = array.can_do_without(1 << slot.0, 0);
            let first_said = !core::mem::replace(&mut array.members[slot.index()].hanging_said, true);
            if excluded {
                array.pending.members |= 1 << slot.0;
                // What is being written to all members must not wait for this one.
                self.to_give_up.push(member.device);
            }
            if excluded || first_said {
                self.tell(Event::Hanging { array: id, slot, hangs: true, excluded });
            }
        }
    }

    /// A stripe of a shard cannot be destaged: told for the first shard.
    pub(super) fn destage_blocked(&mut self, id: ArrayId, from: ShardId, stripe: StripeId, members: u32) {
        let blocked = &mut self.arrays[id.index()].blocked;
        if core::mem::replace(blocked, *blocked | 1 << from.0) == 0 {
            self.tell(Event::DestageBlocked { array: id, stripe, members });
        }
    }

    /// A shard has had none for a while: told for the last of them.
    pub(super) fn destage_unblocked(&mut self, id: ArrayId, from: ShardId) {
        let blocked = &mut self.arrays[id.index()].blocked;
        let before = core::mem::replace(blocked, *blocked & !(1 << from.0));
        if before != 0 && self.arrays[id.index()].blocked == 0 {
            self.tell(Event::DestageUnblocked { array: id });
        }
    }

    /// The next device whose answers nobody waits for any more: what is under way there is to be given up.
    pub(crate) fn device_to_give_up(&mut self) -> Option<DeviceId> {
        self.to_give_up.pop()
    }

    /// Judges members of which something was heard.
    pub(super) fn judge(&mut self, id: ArrayId, now: Time) {
        self.judge_hanging(id);
        for slot in (0..self.arrays[id.index()].members.len() as u8).map(Slot) {
            let array = &mut self.arrays[id.index()];
            let record = &mut array.members[slot.index()];
            let errors = record.heard;
            if errors == MemberErrors::default() {
                continue;
            }
            let most = array.array.drives.max_read_errors;
            let in_the_hour = record.count(now, most);
            record.heard = MemberErrors::default();
            let too_many = in_the_hour > most;
            let first_said = too_many && !core::mem::replace(&mut record.said, too_many);
            self.tell(Event::ReadErrors { array: id, slot, errors, in_the_hour });
            let array = &mut self.arrays[id.index()];
            if !too_many || array.is_leaving(slot) {
                continue;
            }
            let excluded = array.can_do_without(1 << slot.0, 0);
            if excluded {
                array.pending.members |= 1 << slot.0;
            }
            if excluded || first_said {
                self.tell(Event::TooManyErrors { array: id, slot, excluded });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Time {
        Time(0) + Span::from_secs(60 * count)
    }

    #[test]
    fn only_what_happened_within_the_hour_counts() {
        let mut record = MemberRecord::new();
        let mut count = |at, unreadable| {
            record.heard = MemberErrors { unreadable, ..MemberErrors::default() };
            record.count(at, 5)
        };
        assert_eq!(count(minutes(0), 3), 3);
        assert_eq!(count(minutes(30), 2), 5);
        assert_eq!(count(minutes(61), 0), 2, "three are older than an hour");
        assert_eq!(count(minutes(61), u32::MAX), 6, "no more are counted than it takes to judge");
        assert_eq!(count(minutes(200), 0), 0);
    }

    #[test]
    fn without_a_limit_nothing_is_too_much_and_little_is_kept() {
        let mut record = MemberRecord::new();
        record.heard.unreadable = 100;
        assert_eq!(record.count(minutes(1), 0), 1);
        assert_eq!(record.recent.len(), 1);
    }
}
