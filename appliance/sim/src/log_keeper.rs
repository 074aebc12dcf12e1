//! What happens to the log's devices while somebody looks after them: devices become copies, in the stead of others or beside
//! them, copies are taken away or lost, and the power fails in the middle of it. All of it by chance, from a stream of its own.
//!
//! Damage stays within what the log promises to survive at that moment: of the copies in force that work, and that nothing
//! under way takes away, one stays.

use base::ids::DeviceId;

use crate::operator::{Deed, Health, Order};
use crate::random::Random;

/// How it goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// By chance.
    ByChance,
    /// By chance, and the log moves to larger devices.
    Growing,
    /// At each start a device becomes a copy as soon as possible, if there are fewer than two.
    OneMore,
    /// A device becomes the first copy as soon as possible, where there is none and writes go on.
    First,
}

impl Keeping {
    /// Whether it does as the stream says.
    pub const fn is_by_chance(self) -> bool {
        matches!(self, Self::ByChance | Self::Growing)
    }
}

/// Whoever looks after the log.
#[derive(Clone, Debug)]
pub struct LogKeeper {
    keeping: Keeping,
    /// Devices that are larger than the log's first ones.
    larger: Vec<DeviceId>,
    random: Random,
    orders: u32,
    losses: u32,
    cuts: u32,
    tickets: u64,
    /// The command whose answer is awaited, and the copies that it may take away.
    awaited: Option<(u64, Vec<DeviceId>)>,
    /// The mode that is awaited.
    wanted_mode: Option<bool>,
    /// A device that was lost, which the appliance may not have noticed.
    lost: Option<DeviceId>,
}

/// What the answer to a command says of the acknowledgements from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// They come from the members.
    Members,
    /// Nothing new.
    AsBefore,
}

/// Once in so many steps somebody looks.
const LOOK_ONCE_IN: u64 = 30;

/// Its tickets begin here: beyond those of others.
const TICKETS: u64 = 1 << 32;

impl LogKeeper {
    /// One who does as the stream says.
    pub fn new(keeping: Keeping, larger: Vec<DeviceId>, mut random: Random) -> Self {
        let (orders, losses, cuts) =
            (random.between(2, 10) as u32, random.between(1, 5) as u32, random.below(5) as u32);
        let (losses, cuts) = if keeping.is_by_chance() { (losses, cuts) } else { (0, 0) };
        Self {
            keeping,
            larger,
            random,
            orders,
            losses,
            cuts,
            tickets: TICKETS,
            awaited: None,
            wanted_mode: None,
            lost: None,
        }
    }

    /// Whether it is time to look.
    pub fn looks(&mut self) -> bool {
        !self.keeping.is_by_chance() || self.random.once_in(LOOK_ONCE_IN)
    }

    /// Nothing more goes wrong from now on, and nothing more is asked for.
    pub fn calm_down(&mut self) {
        (self.losses, self.cuts) = (0, 0);
        if self.keeping.is_by_chance() {
            self.orders = 0;
        }
    }

    /// The power has failed: nobody answers what was asked.
    pub fn power_cut(&mut self) {
        self.awaited = None;
        self.wanted_mode = None;
        self.lost = None;
        self.orders = self.orders.max(1);
    }

    /// A command has been answered, and well or not.
    pub fn answered(&mut self, ticket: u64, succeeded: bool) -> Trust {
        if self.awaited.take_if(|(awaited, _)| *awaited == ticket).is_none() {
            return Trust::AsBefore;
        }
        match self.wanted_mode.take() {
            Some(true) if succeeded => Trust::Members,
            _ => Trust::AsBefore,
        }
    }

    /// Whether no command is under way that may take a copy away.
    pub fn is_quiet(&self) -> bool {
        self.awaited.is_none()
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self, health: &Health, works: &[DeviceId]) -> bool {
        let can_come = works.iter().any(|device| !health.logs_to(*device));
        let wanted = match self.keeping {
            Keeping::ByChance | Keeping::Growing => 0,
            Keeping::OneMore => 2,
            Keeping::First => 1,
        };
        self.is_quiet() && !(health.copies.iter().flatten().count() < wanted && can_come)
    }

    /// The ticket of the next command.
    pub fn ticket(&self) -> u64 {
        self.tickets
    }

    /// What to do about a log. `works` tells which devices could hold it, and work.
    pub fn decide(&mut self, health: &Health, works: &[DeviceId]) -> Option<Deed> {
        self.lost.take_if(|device| !health.logs_to(*device));
        if !health.writable || self.lost.is_some() {
            return None;
        }
        if self.cuts > 0 && self.random.once_in(12) {
            self.cuts -= 1;
            return Some(Deed::Cut);
        }
        if self.losses > 0 && self.random.once_in(6) {
            return self.lose(health, works);
        }
        if self.orders == 0 || self.awaited.is_some() {
            return None;
        }
        let (order, taken) = self.order(health, works)?;
        self.orders -= u32::from(self.keeping.is_by_chance());
        self.tickets += 1;
        self.awaited = Some((self.tickets, taken));
        if let Order::Mode { write_through } = order {
            self.wanted_mode = Some(write_through);
        }
        Some(Deed::Ask(order))
    }

    // Loses a copy, or a device on its way to be one, if a copy stays.
    fn lose(&mut self, health: &Health, works: &[DeviceId]) -> Option<Deed> {
        let taken = |device: &DeviceId| self.awaited.iter().any(|(_, taken)| taken.contains(device));
        let copies: Vec<DeviceId> = health.copies.iter().copied().flatten().collect();
        let stays = |lost: DeviceId| copies.iter().any(|&copy| copy != lost && works.contains(&copy) && !taken(&copy));
        let mut may_go: Vec<DeviceId> = copies.iter().copied().chain(health.newcomer).collect();
        may_go.retain(|&device| works.contains(&device) && stays(device));
        if may_go.is_empty() {
            return None;
        }
        self.losses -= 1;
        let device = self.random.choose(&may_go);
        self.lost = Some(device);
        Some(Deed::Lose { device, returns: self.random.once_in(2) })
    }

    // What to ask for, and the copies that it may take away.
    fn order(&mut self, health: &Health, works: &[DeviceId]) -> Option<(Order, Vec<DeviceId>)> {
        let unused: Vec<DeviceId> = works.iter().copied().filter(|&device| !health.logs_to(device)).collect();
        let copies = (0u8..).zip(&health.copies).filter_map(|(copy, device)| Some((copy, (*device)?)));
        let copies: Vec<(u8, DeviceId)> = copies.collect();
        let attach = |device, instead| Order::AttachCopy { device, instead };
        if self.keeping == Keeping::First {
            let device = if unused.is_empty() { return None } else { self.random.choose(&unused) };
            return copies.is_empty().then_some((attach(device, None), Vec::new()));
        }
        if self.keeping == Keeping::OneMore {
            let device = *unused.first()?;
            return (copies.len() < 2).then_some((attach(device, None), Vec::new()));
        }
        if self.keeping == Keeping::Growing && !copies.is_empty() && self.random.once_in(2) {
            let larger = |device: &DeviceId| self.larger.contains(device) && !health.logs_to(*device);
            let mut to = works.iter().copied().filter(larger);
            let devices = [to.next(), to.next().filter(|_| self.random.once_in(2))];
            if devices[0].is_some() {
                return Some((Order::GrowLog(devices), copies.iter().map(|&(_, device)| device).collect()));
            }
        }
        if self.random.once_in(3) {
            return Some((Order::Mode { write_through: !health.write_through }, Vec::new()));
        }
        let is_spare =
            |&(_, device): &(u8, DeviceId)| copies.iter().any(|&(_, other)| other != device && works.contains(&other));
        let spare: Vec<(u8, DeviceId)> = copies.iter().copied().filter(is_spare).collect();
        if !spare.is_empty() && self.random.once_in(3) {
            let (copy, device) = self.random.choose(&spare);
            return Some((Order::DetachCopy(copy), vec![device]));
        }
        if unused.is_empty() || copies.is_empty() {
            return None;
        }
        let device = self.random.choose(&unused);
        if self.random.once_in(2) {
            return Some((attach(device, None), Vec::new()));
        }
        let (copy, old) = self.random.choose(&copies);
        Some((attach(device, Some(copy)), vec![old]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_whatever_is_lost_and_what_is_in_use_is_not_given_away() {
        let devices = [3, 4, 5].map(DeviceId);
        let health = |copies: &[DeviceId]| Health {
            members: Vec::new(),
            rebuilding: Vec::new(),
            spares: Vec::new(),
            joining: Vec::new(),
            successor: None,
            writable: true,
            resyncing: false,
            dirty: false,
            scrub: None,
            growing: false,
            copies: copies.iter().copied().map(Some).collect(),
            newcomer: None,
            exposed: false,
            write_through: false,
        };
        let (mut lost, mut asked) = (0, 0);
        for seed in 0..300 {
            let mut keeper = LogKeeper::new(Keeping::ByChance, Vec::new(), Random::named(seed, "keeper"));
            for round in 0..40 {
                let copies = &devices[..1 + round % 2];
                match keeper.decide(&health(copies), &devices) {
                    Some(Deed::Lose { device, .. }) => {
                        assert!(copies.len() == 2 && copies.contains(&device));
                        lost += 1;
                    }
                    Some(Deed::Ask(Order::AttachCopy { device, instead })) => {
                        assert!(
                            !copies.contains(&device) && instead.is_none_or(|copy| usize::from(copy) < copies.len())
                        );
                        asked += 1;
                    }
                    Some(Deed::Ask(Order::DetachCopy(copy))) => assert!(copies.len() == 2 && copy < 2),
                    Some(Deed::Ask(Order::Mode { write_through })) => assert!(write_through),
                    Some(Deed::Cut) | None => {}
                    other => panic!("{other:?} is none of its business"),
                }
                keeper.power_cut();
            }
            keeper.calm_down();
            assert_eq!(keeper.decide(&health(&devices[..2]), &devices), None);
        }
        assert!(lost > 100 && asked > 300, "{lost} {asked}");
    }

    #[test]
    fn the_copy_that_may_be_replaced_does_not_count() {
        let mut keeper = LogKeeper::new(Keeping::ByChance, Vec::new(), Random::named(1, "keeper"));
        keeper.losses = 1;
        keeper.awaited = Some((1, vec![DeviceId(3)]));
        let health = Health {
            members: Vec::new(),
            rebuilding: Vec::new(),
            spares: Vec::new(),
            joining: Vec::new(),
            successor: None,
            writable: true,
            resyncing: false,
            dirty: false,
            scrub: None,
            growing: false,
            copies: vec![Some(DeviceId(3))],
            newcomer: Some(DeviceId(4)),
            exposed: false,
            write_through: false,
        };
        assert_eq!(keeper.lose(&health, &[DeviceId(3), DeviceId(4)]), None);
        keeper.awaited = Some((1, Vec::new()));
        assert!(keeper.lose(&health, &[DeviceId(3), DeviceId(4)]).is_some(), "the newcomer may go");
    }
}
