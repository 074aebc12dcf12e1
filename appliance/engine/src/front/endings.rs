//! Associations that end, at their home. The epoch of each controller is raised here; what the other shards confirm is
//! gathered here; and whoever must wait for that is told from here: kills, and Connects of the same host on any shard.
//!
//! Before an admin Connect is answered its shard asks every home whether something of that host has not come to its end.
//! A home raises the epoch in the same step in which the host can first see that its connection is gone, so the answer
//! cannot come too early. A Connect that waits longer than [`super::limits::FENCE_LIMIT`] is refused as busy, and its host
//! tries again.

use std::collections::VecDeque;
use std::sync::Arc;

use base::ids::ShardId;
use base::time::Time;
use nvmf::limits::CONTROLLERS_PER_SHARD;

use super::limits::{MAX_ASKERS, MAX_BLOCKED};
use crate::fence::Association;

/// An association whose end not every shard has confirmed.
#[derive(Debug)]
struct Ending {
    association: Association,
    host: String,
    /// Shards that have not confirmed, as a bit mask.
    unconfirmed: u32,
    /// Kills that wait for it: whose, and which.
    kills: Vec<(ShardId, u64)>,
}

/// A Connect that wants to know whether its host may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) shard: ShardId,
    pub(super) connection: u64,
    pub(super) attempt: u32,
}

/// What all shards have confirmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The controller whose earlier epochs have ended.
    pub(super) controller: u16,
    /// No later epoch of it has still to be confirmed.
    pub(super) is_last: bool,
    /// Kills that waited for it.
    pub(super) kills: Vec<(ShardId, u64)>,
}

/// The associations that end, and who waits.
#[derive(Debug)]
pub(super) struct Endings {
    /// By controller of this shard: how often its association has ended.
    epochs: Vec<u32>,
    endings: Vec<Ending>,
    waiting: VecDeque<(Asker, Arc<str>)>,
    blocked: VecDeque<(String, Time)>,
}

impl Endings {
    pub(super) fn new() -> Self {
        Self {
            epochs: vec![0; usize::from(CONTROLLERS_PER_SHARD)],
            endings: Vec::new(),
            waiting: VecDeque::new(),
            blocked: VecDeque::new(),
        }
    }

    /// A controller's association, at the epoch that lives.
    pub(super) fn living(&self, controller: u16) -> Association {
        Association { id: controller, epoch: self.epochs[usize::from(controller % CONTROLLERS_PER_SHARD)] }
    }

    /// Raises the epoch of a controller; each of `shards` shards is to be told and will confirm.
    pub(super) fn begin(&mut self, controller: u16, host: &str, shards: u16) -> Association {
        self.epochs[usize::from(controller % CONTROLLERS_PER_SHARD)] += 1;
        let association = self.living(controller);
        let unconfirmed = (1 << shards) - 1;
        self.endings.push(Ending { association, host: host.to_owned(), unconfirmed, kills: Vec::new() });
        association
    }

    /// Lets a kill wait for the end of a controller's association; false if there is nothing to wait for.
    pub(super) fn wait(&mut self, controller: u16, kill: (ShardId, u64)) -> bool {
        let ending = self.endings.iter_mut().rev().find(|ending| ending.association.id == controller);
        ending.map(|ending| ending.kills.push(kill)).is_some()
    }

    /// A shard has confirmed; what has ended by it.
    pub(super) fn confirmed(&mut self, shard: ShardId, association: Association) -> Option<Ended> {
        let at = self.endings.iter().position(|ending| ending.association == association);
        let at = at.expect("what is confirmed was raised here");
        let ending = &mut self.endings[at];
        assert!(ending.unconfirmed & 1 << shard.0 != 0, "a shard confirms once");
        ending.unconfirmed &= !(1 << shard.0);
        if ending.unconfirmed != 0 {
            return None;
        }
        let Ending { association, kills, .. } = self.endings.remove(at);
        let is_last = self.endings.iter().all(|ending| ending.association.id != association.id);
        Some(Ended { controller: association.id, is_last, kills })
    }

    /// Judges a Connect: whether its host may come in, or none if it is told later.
    pub(super) fn ask(&mut self, asker: Asker, host: &Arc<str>, now: Time) -> Option<bool> {
        self.blocked.retain(|&(_, until)| now < until);
        if self.blocked.iter().any(|(blocked, _)| **blocked == **host) {
            return Some(false);
        }
        if !self.is_ending(host) {
            return Some(true);
        }
        if self.waiting.len() >= MAX_ASKERS {
            return Some(false);
        }
        self.waiting.push_back((asker, Arc::clone(host)));
        None
    }

    /// A Connect that needs to wait no longer.
    pub(super) fn next_clear(&mut self) -> Option<Asker> {
        let at = self.waiting.iter().position(|(_, host)| !self.is_ending(host))?;
        self.waiting.remove(at).map(|(asker, _)| asker)
    }

    /// Refuses a host until then. Of too many the one goes that has been refused longest.
    pub(super) fn block(&mut self, host: &str, until: Time) {
        self.blocked.retain(|(blocked, _)| blocked != host);
        if self.blocked.len() >= MAX_BLOCKED {
            self.blocked.pop_front();
        }
        self.blocked.push_back((host.to_owned(), until));
    }

    /// Whether nothing of this shard's controllers is on its way to its end.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        self.endings.is_empty() && self.waiting.is_empty()
    }

    fn is_ending(&self, host: &str) -> bool {
        self.endings.iter().any(|ending| ending.host == host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1000);

    fn asker(attempt: u32) -> Asker {
        Asker { shard: ShardId(1), connection: 5, attempt }
    }

    #[test]
    fn a_host_comes_in_once_every_shard_has_confirmed_all_its_ends() {
        let mut endings = Endings::new();
        let (host, other): (Arc<str>, Arc<str>) = ("nqn.a".into(), "nqn.b".into());
        assert_eq!(endings.ask(asker(1), &host, NOW), Some(true));
        let first = endings.begin(7, "nqn.a", 2);
        let second = endings.begin(8, "nqn.a", 2);
        assert_eq!(endings.living(7), first);
        assert_eq!(endings.ask(asker(2), &other, NOW), Some(true));
        assert_eq!(endings.ask(asker(3), &host, NOW), None);
        assert!(endings.wait(8, (ShardId(1), 99)) && !endings.wait(9, (ShardId(1), 99)));
        assert_eq!(endings.confirmed(ShardId(0), first), None);
        assert_eq!(endings.confirmed(ShardId(1), first).expect("both").kills, []);
        assert_eq!(endings.next_clear(), None, "its other association is still ending");
        assert_eq!(endings.confirmed(ShardId(1), second), None);
        let ended = endings.confirmed(ShardId(0), second).expect("both");
        assert_eq!((ended.controller, ended.is_last, ended.kills), (8, true, vec![(ShardId(1), 99)]));
        assert_eq!(endings.next_clear(), Some(asker(3)));
        assert_eq!(endings.next_clear(), None);
        assert!(endings.is_quiet());
    }

    #[test]
    fn a_controller_that_ends_twice_has_ended_with_the_later_epoch() {
        let mut endings = Endings::new();
        let (first, second) = (endings.begin(7, "nqn.a", 1), endings.begin(7, "nqn.a", 1));
        assert_eq!((first.epoch, second.epoch), (1, 2));
        assert!(!endings.confirmed(ShardId(0), first).expect("one shard").is_last);
        assert!(endings.confirmed(ShardId(0), second).expect("one shard").is_last);
    }

    #[test]
    fn a_blocked_host_is_refused_until_its_time_is_over() {
        let mut endings = Endings::new();
        let host: Arc<str> = "nqn.a".into();
        endings.block("nqn.a", Time(2000));
        assert_eq!(endings.ask(asker(1), &host, Time(1999)), Some(false));
        assert_eq!(endings.ask(asker(2), &host, Time(2000)), Some(true));
        for other in 0..MAX_BLOCKED {
            endings.block(&format!("nqn.{other}"), Time(9000));
        }
        assert_eq!(endings.blocked.len(), MAX_BLOCKED);
    }
}
