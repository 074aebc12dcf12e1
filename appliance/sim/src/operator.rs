//! What happens to drives while somebody looks after them: members are lost or failed, others are added or take their place,
//! rebuilds are lost, paused and cut; scrubs are begun, paused and stopped. All of it by chance, from streams of its own.
//!
//! Damage stays within what the array promises to survive at that moment: a member goes only while the level bears that beside
//! those that are out or being rebuilt, the drive that is being rebuilt at any time. Nothing is done while the answer to a
//! command is awaited, since it may be a loss.

use base::ids::{DeviceId, Slot};
use base::time::Span;
use engine::command::ScrubVerb;
use engine::status::ScrubStatus;
use raid::{Geometry, Repair};

use crate::random::Random;
use crate::scenario::Scenario;

/// How an array is, as the appliance itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The devices of the members, by slot.
    pub members: Vec<Option<DeviceId>>,
    /// The members that are being rebuilt, or are to be.
    pub rebuilding: Vec<Slot>,
    /// The drive that is to succeed a member, and the member.
    pub successor: Option<(Slot, DeviceId)>,
    /// Drives that are kept.
    pub spares: Vec<DeviceId>,
    /// Drives that were given a place and are prepared for it.
    pub joining: Vec<DeviceId>,
    /// Whether it takes writes.
    pub writable: bool,
    /// The devices of the log copies, by place.
    pub copies: Vec<Option<DeviceId>>,
    /// The device that is becoming a copy.
    pub newcomer: Option<DeviceId>,
    /// Whether its log is lost, and it goes on without one.
    pub exposed: bool,
    /// Whether writes are acknowledged from the members.
    pub write_through: bool,
    /// Whether there are zones whose parities or mirrors may not match since a crash.
    pub resyncing: bool,
    /// Whether there are zones that a crash now would leave so.
    pub dirty: bool,
    /// The last scrub, if there was one.
    pub scrub: Option<ScrubStatus>,
    /// Whether data moves to where it lies with a further member.
    pub growing: bool,
}

impl Health {
    /// Whether all members are there and hold what they should.
    pub fn is_whole(&self) -> bool {
        self.members.iter().all(Option::is_some)
            && self.rebuilding.is_empty()
            && self.successor.is_none()
            && !self.resyncing
            && !self.growing
    }

    /// The members that do not hold all they should, as a bit mask.
    fn out(&self) -> u32 {
        let missing = (0..).zip(&self.members).filter(|(_, member)| member.is_none()).map(|(slot, _)| slot);
        missing.chain(self.rebuilding.iter().map(|slot| slot.0)).fold(0, |mask, slot| mask | 1 << slot)
    }

    /// Whether the log goes to a device.
    pub fn logs_to(&self, device: DeviceId) -> bool {
        self.copies.contains(&Some(device)) || self.newcomer == Some(device)
    }

    /// Whether a device takes part or is kept to.
    pub fn uses(&self, device: DeviceId) -> bool {
        let succeeds = self.successor.is_some_and(|(_, successor)| successor == device);
        self.members.contains(&Some(device))
            || self.spares.contains(&device)
            || self.joining.contains(&device)
            || succeeds
    }
}

/// What is asked of the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Use a member no longer.
    Fail(Slot),
    /// Keep a drive.
    Add(DeviceId),
    /// Give a place to a drive.
    Replace(Slot, DeviceId),
    /// Give its place back to a drive that was a member, with what it holds; else this place, as a drive like any other.
    Return(Slot, DeviceId),
    /// Let a drive succeed a member that is in use.
    Succeed(Slot, DeviceId),
    /// Give the array a further member.
    Grow(DeviceId),
    /// Let the drive go that is to succeed a member.
    Cancel,
    /// Let the rebuild wait, or go on.
    Pause(bool),
    /// Make a device a copy of the log.
    AttachCopy {
        /// Which.
        device: DeviceId,
        /// The copy that it replaces.
        instead: Option<u8>,
    },
    /// Make devices the copies of a larger log; their blocks more than those of log devices.
    GrowLog([Option<DeviceId>; 2]),
    /// Something about scrubs.
    Scrub(ScrubVerb),
    /// Take a copy of the log away.
    DetachCopy(u8),
    /// Acknowledge writes from the members, or from the log.
    Mode {
        /// Whether from the members.
        write_through: bool,
    },
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Something is asked.
    Ask(Order),
    /// A device fails, perhaps only until the next power-on.
    Lose {
        /// Which.
        device: DeviceId,
        /// Whether it comes back.
        returns: bool,
    },
    /// A device answers nothing for a while.
    Hang {
        /// Which.
        device: DeviceId,
        /// For how long.
        span: Span,
    },
    /// The power fails.
    Cut,
}

/// Whoever looks after the drives.
#[derive(Clone, Debug)]
pub struct Operator {
    random: Random,
    geometry: Geometry,
    /// When scrubs are begun and disturbed, if they are.
    scrubs: Option<Random>,
    /// What they do about blocks that are wrong; none is anything.
    repair: Option<Repair>,
    /// What is to be lost may hang instead, for so long.
    hangs: Option<(Random, [Span; 2])>,
    /// When members that are in use are succeeded, if they are, and how often they still may be.
    successions: Option<(Random, u32)>,
    /// Which of the drives that take a place come back with what they hold.
    returns: Random,
    /// Whether drives are left alone.
    scrubs_only: bool,
    /// Drives that may still be lost or failed.
    losses: u32,
    /// Cuts that may still come.
    cuts: u32,
    /// The ticket of the command whose answer is awaited.
    awaited: Option<u64>,
    tickets: u64,
    paused: bool,
    /// A drive that was lost, which the appliance may not have noticed.
    lost: Option<DeviceId>,
}

/// Once in so many steps somebody looks.
const LOOK_ONCE_IN: u64 = 20;

impl Operator {
    /// One who does as the stream says.
    pub fn new(mut random: Random, geometry: Geometry) -> Self {
        let (losses, cuts) = (random.between(1, 4) as u32, random.below(4) as u32);
        let returns = Random::named(losses.into(), "returns");
        Self {
            random,
            geometry,
            scrubs: None,
            repair: None,
            hangs: None,
            successions: None,
            returns,
            scrubs_only: false,
            losses,
            cuts,
            awaited: None,
            tickets: 0,
            paused: false,
            lost: None,
        }
    }

    /// Whoever looks after the array of a scenario, if anybody does.
    pub fn of(scenario: &Scenario) -> Option<Self> {
        if !scenario.operated && !scenario.scrubbed {
            return None;
        }
        let mut operator = Self::new(Random::named(scenario.seed, "operator"), scenario.geometry());
        operator.returns = Random::named(scenario.seed, "returns");
        if scenario.scrubbed {
            operator = operator.with_scrubs(Random::named(scenario.seed, "scrubs"), scenario.repair_always);
        }
        if scenario.hangs {
            // Until it has been given up, and for ever.
            let spans = [Span(4 * scenario.drive_timeouts.1.0), Span(u64::MAX)];
            operator.hangs = Some((Random::named(scenario.seed, "operator's hangs"), spans));
        }
        if scenario.succeeds {
            operator.successions = Some((Random::named(scenario.seed, "successions"), 2));
        }
        Some(if scenario.operated { operator } else { operator.leaving_drives_alone() })
    }

    /// One who also has the array scrubbed.
    #[must_use]
    pub fn with_scrubs(mut self, random: Random, repair: Option<Repair>) -> Self {
        (self.scrubs, self.repair) = (Some(random), repair);
        self
    }

    /// One who leaves drives alone.
    #[must_use]
    pub fn leaving_drives_alone(mut self) -> Self {
        self.scrubs_only = true;
        self
    }

    /// Whether nothing is on its way that may be a loss.
    pub fn is_quiet(&self) -> bool {
        self.awaited.is_none() && self.lost.is_none()
    }

    /// Whether it is time to look.
    pub fn looks(&mut self) -> bool {
        self.random.once_in(LOOK_ONCE_IN) && self.awaited.is_none()
    }

    /// Nothing more goes wrong from now on.
    pub fn calm_down(&mut self) {
        (self.losses, self.cuts) = (0, 0);
        self.successions.take();
    }

    /// The power has failed: nobody answers what was asked.
    pub fn power_cut(&mut self) {
        self.awaited = None;
        self.paused = false;
        self.lost = None;
    }

    /// A number for a command.
    pub fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.awaited = Some(self.tickets);
        self.tickets
    }

    /// A command has been answered.
    pub fn answered(&mut self, ticket: u64) {
        self.awaited.take_if(|awaited| *awaited == ticket);
    }

    /// What to do about an array. `works` tells which devices could be members, and work.
    pub fn decide(&mut self, health: &Health, works: &[DeviceId]) -> Option<Deed> {
        self.lost.take_if(|device| {
            !health.members.contains(&Some(*device))
                && health.successor.is_none_or(|(_, successor)| successor != *device)
        });
        if !health.writable || self.lost.is_some() {
            return None;
        }
        if let Some(verb) = self.scrub(health) {
            return Some(Deed::Ask(Order::Scrub(verb)));
        }
        if self.scrubs_only {
            return None;
        }
        let mut deed = self.deed(health, works);
        if let Some(Deed::Lose { device, .. }) = deed {
            self.lost = Some(device);
            if let Some((random, spans)) = &mut self.hangs
                && random.once_in(2)
            {
                deed = Some(Deed::Hang { device, span: random.choose(spans) });
            }
        }
        deed
    }

    // Something about scrubs, now and then.
    fn scrub(&mut self, health: &Health) -> Option<ScrubVerb> {
        let random = self.scrubs.as_mut()?;
        let state = health.scrub.map_or("ended", |scrub| scrub.state);
        match (state, random.below(8)) {
            ("ended" | "stopped", 0..4) => {
                let any = Repair::ALL.map(Some).into_iter().chain([None]).collect::<Vec<_>>();
                let repair = self.repair.map_or_else(|| random.choose(&any), Some);
                let rate = random.once_in(4).then(|| random.choose(&[4 << 20, 100 << 20, 4 << 30]));
                Some(ScrubVerb::Start { repair, rate, at: 1 })
            }
            ("paused", 0..2) => Some(ScrubVerb::Resume),
            ("paused", 2) => Some(ScrubVerb::Stop),
            ("running" | "waiting", 0) => Some(ScrubVerb::Pause),
            ("running" | "waiting", 1) => random.once_in(4).then_some(ScrubVerb::Stop),
            // What is refused changes nothing.
            (_, 7) => random.once_in(8).then_some(ScrubVerb::Resume),
            _ => None,
        }
    }

    fn deed(&mut self, health: &Health, works: &[DeviceId]) -> Option<Deed> {
        if health.successor.is_some() && self.paused {
            return self.random.once_in(2).then(|| self.pause(false));
        }
        if let Some(deed) = self.succession(health, works) {
            return Some(deed);
        }
        let empty = health.members.iter().position(Option::is_none).map(|slot| Slot(slot as u8));
        let others = self.may_go(health);
        if self.losses > 0 && !others.is_empty() && !health.is_whole() && self.random.once_in(20) {
            return self.harm(health, &others);
        }
        match (&health.rebuilding[..], empty) {
            ([_, ..], Some(slot)) if self.random.once_in(2) => self.mend(slot, health, works),
            (&[slot], _) => self.disturb(slot, health.members[slot.index()]?),
            (several @ [_, ..], _) => {
                let slot = self.random.choose(several);
                self.disturb(slot, health.members[slot.index()]?)
            }
            ([], Some(slot)) => self.mend(slot, health, works),
            ([], None) => self.harm(health, &others),
        }
    }

    // A member in use is succeeded, or that is disturbed: the drive that comes, or the member, is lost or failed.
    fn succession(&mut self, health: &Health, works: &[DeviceId]) -> Option<Deed> {
        let may_go = self.may_go(health);
        let (random, left) = self.successions.as_mut()?;
        let Some((slot, device)) = health.successor else {
            let used: Vec<_> = (0..).map(Slot).zip(&health.members).filter(|(_, member)| member.is_some()).collect();
            let unused: Vec<_> = works.iter().copied().filter(|&device| !health.uses(device)).collect();
            if *left == 0 || used.is_empty() || unused.is_empty() || !random.once_in(4) {
                return None;
            }
            *left -= 1;
            let (slot, _) = random.choose(&used);
            return Some(Deed::Ask(Order::Succeed(slot, random.choose(&unused))));
        };
        match random.below(400) {
            0 => Some(Deed::Ask(Order::Cancel)),
            1 if self.losses > 0 => {
                self.losses -= 1;
                Some(Deed::Lose { device, returns: random.once_in(2) })
            }
            2 if self.losses > 0 && may_go.contains(&slot) => {
                self.losses -= 1;
                Some(Deed::Ask(Order::Fail(slot)))
            }
            3 if self.losses > 0 && may_go.contains(&slot) => {
                self.losses -= 1;
                let device = health.members[slot.index()].expect("it may go");
                Some(Deed::Lose { device, returns: random.once_in(2) })
            }
            4 if self.cuts > 0 => {
                self.cuts -= 1;
                Some(Deed::Cut)
            }
            _ => None,
        }
    }

    // A rebuild is under way.
    fn disturb(&mut self, slot: Slot, device: DeviceId) -> Option<Deed> {
        if self.paused {
            return self.random.once_in(2).then(|| self.pause(false));
        }
        match self.random.below(20) {
            0 if self.losses > 0 => {
                self.losses -= 1;
                Some(Deed::Lose { device, returns: self.random.once_in(2) })
            }
            1 if self.losses > 0 => {
                self.losses -= 1;
                Some(Deed::Ask(Order::Fail(slot)))
            }
            2 if self.cuts > 0 => {
                self.cuts -= 1;
                Some(Deed::Cut)
            }
            3 if self.losses > 0 => Some(self.pause(true)),
            _ => None,
        }
    }

    fn pause(&mut self, paused: bool) -> Deed {
        self.paused = paused;
        Deed::Ask(Order::Pause(paused))
    }

    // A member is out.
    fn mend(&mut self, slot: Slot, health: &Health, works: &[DeviceId]) -> Option<Deed> {
        let unused: Vec<DeviceId> = works.iter().copied().filter(|&device| !health.uses(device)).collect();
        // What is kept comes by itself.
        if unused.is_empty() || !health.spares.is_empty() {
            return None;
        }
        let device = self.random.choose(&unused);
        if self.returns.once_in(2) {
            return Some(Deed::Ask(Order::Return(slot, device)));
        }
        Some(Deed::Ask(if self.random.once_in(2) { Order::Add(device) } else { Order::Replace(slot, device) }))
    }

    // The members that hold what they should, and may be lost.
    fn may_go(&self, health: &Health) -> Vec<Slot> {
        let out = health.out();
        if health.resyncing {
            return Vec::new();
        }
        let whole = (0..self.geometry.members()).filter(|slot| out & 1 << slot == 0);
        whole.filter(|slot| self.geometry.bears(out | 1 << slot)).map(Slot).collect()
    }

    // One more may go.
    fn harm(&mut self, health: &Health, may_go: &[Slot]) -> Option<Deed> {
        if may_go.is_empty() || self.losses == 0 || !self.random.once_in(2) {
            return None;
        }
        self.losses -= 1;
        let slot = self.random.choose(may_go);
        let device = health.members[slot.index()].expect("it is not out");
        Some(match self.random.below(3) {
            0 => Deed::Ask(Order::Fail(slot)),
            kind => Deed::Lose { device, returns: kind == 1 },
        })
    }
}

#[cfg(test)]
mod tests {
    use raid::{Level, ScrubCounts};

    use super::*;

    fn geometry(level: Level, members: u8) -> Geometry {
        Geometry::new(level, members, 4, crate::scenario::ZONE_STRIPES).expect("sound")
    }

    #[test]
    fn only_a_whole_array_of_one_parity_loses_a_member() {
        let health = |missing: bool, rebuilding: bool| Health {
            members: vec![Some(DeviceId(0)), (!missing).then_some(DeviceId(1)), Some(DeviceId(2))],
            rebuilding: rebuilding.then_some(Slot(2)).into_iter().collect(),
            spares: Vec::new(),
            joining: Vec::new(),
            successor: None,
            writable: true,
            copies: Vec::new(),
            newcomer: None,
            exposed: false,
            write_through: false,
            resyncing: false,
            dirty: false,
            scrub: None,
            growing: false,
        };
        let works = [DeviceId(0), DeviceId(1), DeviceId(2), DeviceId(5)];
        let (mut lost, mut mended, mut disturbed) = (0, 0, 0);
        for seed in 0..300 {
            let mut operator = Operator::new(Random::named(seed, "operator"), geometry(Level::Raid5, 3));
            for _ in 0..40 {
                // The appliance is started anew each time.
                operator.power_cut();
                lost += u32::from(operator.decide(&health(false, false), &works).is_some());
                operator.power_cut();
                match operator.decide(&health(true, false), &works) {
                    Some(Deed::Ask(
                        Order::Add(device) | Order::Replace(Slot(1), device) | Order::Return(Slot(1), device),
                    )) => {
                        assert!([DeviceId(1), DeviceId(5)].contains(&device), "{device} is in use");
                        mended += 1;
                    }
                    other => panic!("{other:?} does not mend anything"),
                }
                match operator.decide(&health(false, true), &works) {
                    Some(Deed::Lose { device, .. }) => assert_eq!(device, DeviceId(2)),
                    Some(Deed::Ask(order)) => {
                        assert!(matches!(order, Order::Fail(Slot(2)) | Order::Pause(_)));
                        disturbed += 1;
                    }
                    Some(Deed::Cut) | None => {}
                    Some(Deed::Hang { .. }) => panic!("nobody wants that"),
                }
            }
            operator.power_cut();
            operator.calm_down();
            assert_eq!(operator.decide(&health(false, false), &works), None);
        }
        assert!(lost > 100 && mended > 100 && disturbed > 50, "{lost} {mended} {disturbed}");
    }

    #[test]
    fn scrubs_are_begun_and_disturbed_and_drives_left_alone_if_that_is_wanted() {
        let scrub = |state| ScrubStatus {
            state,
            repair: "none",
            began: 1,
            done_bytes: 0,
            bytes: 1,
            bytes_a_second: 0,
            seconds_left: None,
            counts: ScrubCounts::default(),
        };
        let health = |state| Health {
            members: vec![Some(DeviceId(0)), Some(DeviceId(1)), Some(DeviceId(2))],
            rebuilding: Vec::new(),
            spares: Vec::new(),
            joining: Vec::new(),
            successor: None,
            writable: true,
            copies: Vec::new(),
            newcomer: None,
            exposed: false,
            write_through: false,
            resyncing: false,
            dirty: false,
            scrub: Some(scrub(state)),
            growing: false,
        };
        let mut operator = Operator::new(Random::named(1, "operator"), geometry(Level::Raid5, 3))
            .with_scrubs(Random::named(1, "scrubs"), Some(Repair::Parity))
            .leaving_drives_alone();
        let (mut begun, mut disturbed) = (0, 0);
        for _ in 0..200 {
            match operator.decide(&health("ended"), &[DeviceId(5)]) {
                Some(Deed::Ask(Order::Scrub(ScrubVerb::Start { repair, .. }))) => {
                    assert_eq!(repair, Some(Repair::Parity));
                    begun += 1;
                }
                Some(Deed::Ask(Order::Scrub(ScrubVerb::Resume))) | None => {}
                other => panic!("{other:?}"),
            }
            match operator.decide(&health("running"), &[DeviceId(5)]) {
                Some(Deed::Ask(Order::Scrub(_))) => disturbed += 1,
                other => assert_eq!(other, None),
            }
        }
        assert!(begun > 50 && disturbed > 10, "{begun} {disturbed}");
    }

    #[test]
    fn an_array_of_two_parities_loses_another_while_one_is_out_and_never_a_third() {
        let mut second = 0;
        for seed in 0..300 {
            let mut operator = Operator::new(Random::named(seed, "operator"), geometry(Level::Raid6, 5));
            for step in 0..60 {
                operator.power_cut();
                let two = step % 2 == 1;
                let health = Health {
                    members: (0..5).map(|slot| (slot != 1 && !(two && slot == 4)).then_some(DeviceId(slot))).collect(),
                    rebuilding: Vec::new(),
                    spares: Vec::new(),
                    joining: Vec::new(),
                    successor: None,
                    writable: true,
                    copies: Vec::new(),
                    newcomer: None,
                    exposed: false,
                    write_through: false,
                    resyncing: false,
                    dirty: false,
                    scrub: None,
                    growing: false,
                };
                let harm = match operator.decide(&health, &[DeviceId(9)]) {
                    Some(Deed::Lose { device, .. }) => Some(Slot(device.0 as u8)),
                    Some(Deed::Ask(Order::Fail(slot))) => Some(slot),
                    _ => None,
                };
                assert!(harm.is_none() || !two && harm != Some(Slot(1)), "{harm:?}");
                second += u32::from(harm.is_some());
            }
        }
        assert!(second > 50, "{second}");
    }
}
