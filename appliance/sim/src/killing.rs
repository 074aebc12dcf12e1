//! Hosts whose associations are killed: which epoch each host is at, which of its requests nobody waits for any more, and
//! which shards have not confirmed yet. A killed host asks nothing of its new epoch before all have. Until then its old
//! connections may still bring requests, and even later ones may turn up: those must come to nothing.

use std::collections::BTreeMap;

use base::ids::ShardId;
use engine::fence::Association;

use crate::random::Random;

/// What is killed, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillOptions {
    /// How many hosts there are.
    pub hosts: u16,
    /// Once in so many steps one of them is killed.
    pub once_in: u64,
    /// Kills of the whole run.
    pub kills: u64,
    /// Once in so many requests a killed host's old connection brings one more.
    pub late_once_in: u64,
    /// Such requests of the whole run.
    pub late: u64,
}

impl KillOptions {
    /// Options of a run.
    pub fn draw(random: &mut Random) -> Self {
        Self {
            hosts: random.between(1, 4) as u16,
            once_in: random.choose(&[40, 200, 1000]),
            kills: random.between(1, 12),
            late_once_in: random.choose(&[4, 16]),
            late: random.between(1, 60),
        }
    }
}

/// Whom the next request is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A host at its epoch.
    Living(Association),
    /// The old connection of a host whose end is not confirmed: what it asks may still happen.
    Ending(Association),
    /// One that turns up after all shards have confirmed: nothing of it may happen.
    Late(Association),
}

impl Asker {
    /// What the request says of itself.
    pub const fn association(self) -> Association {
        match self {
            Self::Living(association) | Self::Ending(association) | Self::Late(association) => association,
        }
    }
}

/// The hosts.
#[derive(Clone, Debug)]
pub struct Hosts {
    options: Option<KillOptions>,
    random: Random,
    epochs: Vec<u32>,
    /// Shards that have not confirmed, by host.
    ending: BTreeMap<u16, Vec<ShardId>>,
    kills_left: u64,
    late_left: u64,
}

impl Hosts {
    /// Hosts that are killed as the options say; without options there is one, and it lives for ever.
    pub fn new(options: Option<KillOptions>, random: Random) -> Self {
        let hosts = options.map_or(1, |options| options.hosts);
        let (kills_left, late_left) = options.map_or((0, 0), |options| (options.kills, options.late));
        let epochs = vec![0; usize::from(hosts)];
        Self { options, random, epochs, ending: BTreeMap::new(), kills_left, late_left }
    }

    fn at(&self, host: u16) -> Association {
        Association { id: host + 1, epoch: self.epochs[usize::from(host)] }
    }

    /// Draws whom the next request is of; none if that host must wait.
    pub fn draw(&mut self) -> Option<Asker> {
        let Some(options) = self.options else { return Some(Asker::Living(self.at(0))) };
        let host = self.random.below(u64::from(options.hosts)) as u16;
        let now = self.at(host);
        let late = now.epoch > 0 && self.random.once_in(options.late_once_in) && self.late_left > 0;
        self.late_left -= u64::from(late);
        let old = Association { epoch: now.epoch.wrapping_sub(1), ..now };
        match (self.ending.contains_key(&host), late) {
            (true, true) => Some(Asker::Ending(old)),
            (true, false) => None,
            (false, true) => Some(Asker::Late(old)),
            (false, false) => Some(Asker::Living(now)),
        }
    }

    /// Kills a host now and then: the association that every one of `shards` shards is told of.
    pub fn kill(&mut self, shards: u16) -> Option<Association> {
        let options = self.options?;
        if !self.random.once_in(options.once_in) {
            return None;
        }
        let host = self.random.below(u64::from(options.hosts)) as u16;
        if self.ending.contains_key(&host) || self.kills_left == 0 {
            return None;
        }
        self.kills_left -= 1;
        self.epochs[usize::from(host)] += 1;
        self.ending.insert(host, (0..shards).map(ShardId).collect());
        Some(self.at(host))
    }

    /// A shard has confirmed; whether all have.
    ///
    /// # Panics
    /// If it was not asked, or has confirmed before.
    pub fn confirmed(&mut self, shard: ShardId, association: Association) -> bool {
        let host = association.id - 1;
        assert_eq!(self.at(host), association, "what is confirmed is what was raised");
        let left = self.ending.get_mut(&host).expect("a shard confirms what was raised");
        let at = left.iter().position(|&other| other == shard).expect("a shard confirms once");
        left.swap_remove(at);
        let all = left.is_empty();
        if all {
            self.ending.remove(&host);
        }
        all
    }

    /// Whether some shard has not confirmed.
    pub fn is_any_ending(&self) -> bool {
        !self.ending.is_empty()
    }

    /// The power failed: the appliance forgets all epochs, and all connections end.
    pub fn power_cut(&mut self) {
        self.epochs.fill(0);
        self.ending.clear();
    }

    /// Nobody is killed any more.
    pub fn retire(&mut self) {
        self.options = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_host_waits_for_every_shard_and_its_old_connection_is_told_apart() {
        let options = KillOptions { hosts: 1, once_in: 1, kills: 9, late_once_in: 2, late: 99 };
        let mut hosts = Hosts::new(Some(options), Random::named(1, "hosts"));
        assert_eq!(hosts.draw(), Some(Asker::Living(Association { id: 1, epoch: 0 })));
        let killed = hosts.kill(2).expect("at once");
        assert_eq!(killed, Association { id: 1, epoch: 1 });
        assert_eq!(hosts.kill(2), None, "it is ending");
        let old = Association { id: 1, epoch: 0 };
        let drawn: Vec<_> = (0..40).map(|_| hosts.draw()).collect();
        assert!(drawn.iter().all(|asker| matches!(asker, None | Some(Asker::Ending(_)))));
        assert!(drawn.contains(&None) && drawn.contains(&Some(Asker::Ending(old))));
        assert!(!hosts.confirmed(ShardId(1), killed) && hosts.is_any_ending());
        assert!(hosts.confirmed(ShardId(0), killed) && !hosts.is_any_ending());
        let drawn: Vec<_> = (0..40).map(|_| hosts.draw()).collect();
        assert!(drawn.contains(&Some(Asker::Living(killed))) && drawn.contains(&Some(Asker::Late(old))));
    }
}
