//! A run from beginning to end: make the array, let hosts work, cut the power as planned, start again, verify; at the end
//! drain, stop cleanly, look at the devices, start once more and verify again. Decides when things happen, all by the seed;
//! what is right is the oracles' to say.

mod exposing;
mod log_keeping;
mod losing;
pub mod mangle;
mod operating;
mod patience;
pub mod scrubbing;
pub mod snapshot;

use std::cell::RefCell;
use std::rc::Rc;

use base::ids::{DeviceId, Slot};
use engine::fence::Association;
use raid::{Geometry, Level, slots};

use crate::audit::describe_log;
use crate::carver::{self, Carver, Wish};
use crate::failure::Failure;
use crate::fault::PlannedFault;
use crate::killing::Hosts;
use crate::log_keeper::{Keeping, LogKeeper};
use crate::machine::{Machine, Started, Step, boot_devices};
use crate::operator::{Health, Operator};
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::Subject;
use crate::trace::Trace;
use crate::workload::Workload;
use patience::{Patience, stuck};

/// Steps that an idle appliance is given to destage in the background.
const IDLE_STEPS: u64 = 2_000;

/// Once in so many starts hosts work on without having read everything first.
const SKIP_VERIFY_ONCE_IN: u64 = 4;

/// Once in so many steps the hosts are asked even if they were just refused.
const ASK_ONCE_IN: u64 = 3;

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The fold of all that happened: the same for the same seed.
    pub trace: u64,
    /// How many events there were.
    pub events: u64,
    /// Effects on devices since the array was made, up to the end of the last power-on.
    pub effects: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Hosts killed.
    pub kills: u64,
    /// Requests that were aborted.
    pub aborted: u64,
    /// Further devices whose loss was tried.
    pub probes: u64,
    /// Members that were rebuilt, or came as further ones.
    pub rebuilds: u64,
}

/// An appliance whose array has been made: where runs of a scenario begin.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    rack: Rc<RefCell<Rack>>,
    workload: Workload,
    /// Who changes volumes, if anybody does.
    carver: Option<Carver>,
    random: Random,
    aloud: bool,
    cuts: u64,
    kills: u64,
    probes: u64,
    rebuilds: u64,
    operator: Option<Operator>,
    /// Whether members hold something else than was written to them, so that a scrub may say anything.
    spoiled: bool,
    log_keeper: Option<LogKeeper>,
    /// Requests that were answered.
    answers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Finished,
    Cut,
}

/// Runs the scenario of a seed.
///
/// # Errors
/// The broken promise.
pub fn run_seed<S: Subject>(seed: u64, aloud: bool) -> Result<Report, Failure> {
    run_seed_at::<S>(seed, None, aloud)
}

/// Runs the scenario of a seed at a level; without one at that of the seed.
///
/// # Errors
/// The broken promise.
pub fn run_seed_at<S: Subject>(seed: u64, level: Option<Level>, aloud: bool) -> Result<Report, Failure> {
    let scenario = Scenario::draw_at(seed, level);
    if aloud {
        eprintln!("{scenario:#?}");
    }
    World::create::<S>(scenario, aloud)?.run::<S>()
}

impl World {
    /// Makes the array of a scenario on new devices.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create<S: Subject>(scenario: Scenario, aloud: bool) -> Result<Self, Failure> {
        let rack = Rack::new(scenario.seed, &scenario.devices(), Trace::new(aloud));
        let rack = Rc::new(RefCell::new(rack));
        let mut random = Random::named(scenario.seed, "world");
        S::create(&scenario, &mut boot_devices(&rack), &mut random).map_err(Failure::Boot)?;
        rack.borrow_mut().plan(scenario.faults.clone());
        for &device in &scenario.degraded {
            rack.borrow_mut().lose(device, false);
        }
        let hosts = Hosts::new(scenario.kills, Random::named(scenario.seed, "hosts"));
        let mut workload = Workload::new(scenario.workload.clone(), Random::named(scenario.seed, "workload"), hosts);
        if scenario.log_keeping.is_some_and(Keeping::is_by_chance) {
            workload.expect_modes();
        }
        let carver = scenario.carving.map(|carving| Carver::new(carving, Random::named(scenario.seed, "carver")));
        let operator = Operator::of(&scenario);
        let larger =
            || if scenario.larger_log_spares > 0 { scenario.log_spare_devices().collect() } else { Vec::new() };
        let keeper = |keeping| LogKeeper::new(keeping, larger(), Random::named(scenario.seed, "log keeper"));
        let log_keeper = scenario.log_keeping.map(keeper);
        Ok(Self {
            scenario,
            rack,
            workload,
            carver,
            random,
            aloud,
            cuts: 0,
            kills: 0,
            probes: 0,
            rebuilds: 0,
            operator,
            spoiled: false,
            log_keeper,
            answers: 0,
        })
    }

    /// What it was made from.
    pub const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The same world, apart from this one, with other faults before it.
    pub fn with_faults(&self, faults: Vec<PlannedFault>) -> Self {
        let mut rack = self.rack.borrow().clone();
        rack.plan(faults.clone());
        let scenario = Scenario { faults, ..self.scenario.clone() };
        Self {
            scenario,
            rack: Rc::new(RefCell::new(rack)),
            workload: self.workload.clone(),
            carver: self.carver.clone(),
            random: self.random.clone(),
            aloud: self.aloud,
            cuts: self.cuts,
            kills: self.kills,
            probes: self.probes,
            rebuilds: self.rebuilds,
            operator: None,
            spoiled: self.spoiled,
            log_keeper: self.log_keeper.clone(),
            answers: self.answers,
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The broken promise.
    pub fn run<S: Subject>(mut self) -> Result<Report, Failure> {
        let mut cut_when_idle = self.scenario.cut_when_idle;
        loop {
            let Some(mut machine) = self.boot::<S>()? else { continue };
            if self.serve(&mut machine)? == Served::Cut {
                self.power_cycle::<S>()?;
                continue;
            }
            if cut_when_idle {
                cut_when_idle = false;
                if self.idle(&mut machine)? == Served::Finished {
                    self.rack.borrow_mut().cut_power();
                }
                self.power_cycle::<S>()?;
                continue;
            }
            if self.scenario.heals && self.heal(&mut machine)? == Served::Cut {
                self.power_cycle::<S>()?;
                continue;
            }
            if self.scenario.heals && self.settle_log(&mut machine)? == Served::Cut {
                self.power_cycle::<S>()?;
                continue;
            }
            // Faults may still strike while it stops.
            if self.stop(&mut machine)? == Served::Cut {
                self.power_cycle::<S>()?;
                continue;
            }
            break;
        }
        let effects = self.rack.borrow().effects();
        self.rack.borrow_mut().plan(Vec::new());
        self.operator = None;
        self.log_keeper = None;
        S::audit(&self.scenario, &self.rack.borrow())?;
        self.verify_from_rest::<S>()?;
        self.probe_at_rest::<S>()?;
        let rack = self.rack.borrow();
        Ok(Report {
            trace: rack.trace.hash(),
            events: rack.trace.events(),
            effects,
            cuts: self.cuts,
            kills: self.kills,
            aborted: self.workload.aborted(),
            probes: self.probes,
            rebuilds: self.rebuilds,
        })
    }

    // After a clean stop: nothing is left in the log, and all is as it was.
    fn verify_from_rest<S: Subject>(&mut self) -> Result<(), Failure> {
        let Some(mut machine) = self.boot::<S>()? else { unreachable!("no fault is left to cut the power") };
        self.serve(&mut machine)?;
        self.stop(&mut machine)?;
        S::audit(&self.scenario, &self.rack.borrow())?;
        S::audit_read(&self.scenario, &self.rack.borrow())
    }

    // Whoever has come to be a member is as good as those of the beginning: as many may be lost.
    fn probe_at_rest<S: Subject>(&mut self) -> Result<(), Failure> {
        if self.scenario.log_spares > 0 {
            let copies = S::log_copies(&self.scenario, &self.rack.borrow())?;
            self.probe_each::<S>(log_keeping::losses_of_copies(&copies))?;
        }
        // Where drives ail, what nobody has read yet may still be unreadable: that is all the array bears.
        if self.scenario.spares == 0 || self.scenario.ails() {
            return Ok(());
        }
        let members = S::whole_members(&self.scenario, &self.rack.borrow())?;
        let losses = if members.is_empty() { Vec::new() } else { self.losses_of_whole(&members) };
        self.probe_each::<S>(losses)
    }

    // Waits until the array is whole, if there is a drive for it.
    fn heal<S: Subject>(&mut self, machine: &mut Machine<S>) -> Result<Served, Failure> {
        if let Some(operator) = &mut self.operator {
            operator.calm_down();
        }
        let patience = &mut Patience::new(machine);
        loop {
            let Some(health) = machine.health() else { return Ok(Served::Finished) };
            let can_come = health.resyncing
                || !health.rebuilding.is_empty()
                || health.successor.is_some()
                || health.growing && health.members.iter().all(Option::is_some)
                || !health.spares.is_empty()
                || !health.joining.is_empty()
                || self.has_unused(&health);
            if health.is_whole() || !health.writable || !can_come {
                return Ok(Served::Finished);
            }
            self.operate(machine)?;
            let step = machine.step();
            self.rebuilds += machine.rebuilt();
            match step {
                Step::Cut => return Ok(Served::Cut),
                Step::Ended => return Err(stuck("the rebuild", "the shards ended unasked".into())),
                Step::Moved => {}
                Step::Still if self.scenario.operated => {}
                Step::Still => return Err(stuck("the rebuild", format!("nothing moves any more: {health:?}"))),
            }
            patience.wait(machine, "the rebuild", || format!("{health:?}"))?;
        }
    }

    fn boot<S: Subject>(&mut self) -> Result<Option<Machine<S>>, Failure> {
        let machine = loop {
            let started = Machine::boot(&self.scenario, &self.rack, &mut self.random);
            if started.is_err() && self.aloud {
                for line in describe_log(&self.scenario, &self.rack.borrow()) {
                    eprintln!("{line}");
                }
            }
            match started.map_err(Failure::Boot)? {
                Started::Up(machine) => break machine,
                Started::DeviceLost => {}
                Started::Cut => {
                    self.power_cycle::<S>()?;
                    return Ok(None);
                }
            }
        };
        self.rack.borrow_mut().trace.note("started", &[self.cuts]);
        self.mode_is_known(&machine);
        if let (Some(carver), Some(tables)) = (&mut self.carver, machine.tables()) {
            carver.started(&tables)?;
        }
        // Now and then hosts go on at once, and find out later.
        if self.scenario.probe_losses || !self.random.once_in(SKIP_VERIFY_ONCE_IN) || self.workload.is_finished() {
            self.workload.verify_all();
        }
        Ok(Some(machine))
    }

    fn power_cycle<S: Subject>(&mut self) -> Result<(), Failure> {
        self.cuts += 1;
        self.workload.power_cut();
        if let Some(carver) = &mut self.carver {
            carver.power_cut();
        }
        if let Some(operator) = &mut self.operator {
            operator.power_cut();
        }
        if let Some(keeper) = &mut self.log_keeper {
            keeper.power_cut();
        }
        self.rack.borrow_mut().restore_power();
        match self.workload.told() {
            Some(told) => S::audit_without_log(&self.scenario, &self.rack.borrow(), told),
            None => Ok(()),
        }
    }

    // Lets hosts work until they have nothing left to ask, or the power fails.
    fn serve<S: Subject>(&mut self, machine: &mut Machine<S>) -> Result<Served, Failure> {
        let mut patience = Patience::new(machine);
        loop {
            if self.workload.has_verified() {
                self.workload.end_verification()?;
                self.probe::<S>(machine)?;
            }
            if self.workload.is_finished() && self.has_carved(machine) {
                return Ok(Served::Finished);
            }
            self.operate(machine)?;
            self.lose_the_log(machine);
            if !self.rack.borrow().powered() {
                return Ok(Served::Cut);
            }
            if self.random.once_in(ASK_ONCE_IN) {
                self.ask(machine);
                if let Some(token) = self.workload.abort() {
                    machine.abort(token);
                }
                if let Some(association) = self.workload.kill(self.scenario.shards) {
                    let Association { id, epoch } = association;
                    self.rack.borrow_mut().trace.note("kill", &[u64::from(id), u64::from(epoch)]);
                    self.kills += 1;
                    machine.raise(association);
                }
                if !self.rack.borrow().powered() {
                    return Ok(Served::Cut);
                }
            }
            match machine.step() {
                Step::Cut => return Ok(Served::Cut),
                Step::Ended => return Err(stuck("the requests", "the shards ended before them".into())),
                Step::Moved | Step::Still => {}
            }
            while let Some(done) = machine.done() {
                self.rack.borrow_mut().trace.note("answer", &[done.token, u64::from(done.result.is_ok())]);
                self.answers += 1;
                match &mut self.carver {
                    Some(carver) if done.token >= carver::TOKENS => carver.done(&mut machine.ports.pool, done)?,
                    _ => self.workload.done(&mut machine.ports.pool, done)?,
                }
                patience = Patience::new(machine);
            }
            while let Some(answer) = machine.answer() {
                self.rack.borrow_mut().trace.note("command", &[answer.ticket, u64::from(answer.result.is_ok())]);
                if let (Some(carver), Some(tables)) = (&mut self.carver, machine.tables()) {
                    carver.answered(&answer, &tables)?;
                    patience = Patience::new(machine);
                }
                self.hear(&answer);
            }
            while let Some((shard, association)) = machine.raised() {
                self.rack.borrow_mut().trace.note("confirmed", &[u64::from(association.id), u64::from(shard.0)]);
                self.workload.confirmed(shard, association)?;
                patience = Patience::new(machine);
            }
            if self.workload.is_finished() {
                patience.for_cleaning();
            }
            patience.wait(machine, "the requests", || self.workload.under_way())?;
        }
    }

    // Whether the operator has nothing left to do either, and what was begun on volumes has ended.
    fn has_carved<S: Subject>(&self, machine: &Machine<S>) -> bool {
        let Some(carver) = &self.carver else { return true };
        machine.tables().is_none_or(|tables| carver.is_finished(&tables))
    }

    fn carve<S: Subject>(&mut self, machine: &mut Machine<S>) {
        let (Some(carver), Some(tables)) = (&mut self.carver, machine.tables()) else { return };
        match carver.wish(&mut machine.ports.pool, &tables) {
            None => {}
            Some(Wish::Command(command)) => {
                self.rack.borrow_mut().trace.note("wish", &[command.ticket]);
                if !machine.command(command) {
                    carver.not_given();
                }
            }
            Some(Wish::Io(request)) => {
                let (token, kind, lba, blocks) = (request.token, request.kind, request.lba, request.blocks);
                match machine.begin(request) {
                    Ok(()) => {
                        let numbers = [token, kind as u64, lba.0, u64::from(blocks)];
                        self.rack.borrow_mut().trace.note("request", &numbers);
                    }
                    Err(request) => {
                        request.buffers.free(&mut machine.ports.pool);
                        carver.not_begun(token);
                    }
                }
            }
        }
    }

    fn ask<S: Subject>(&mut self, machine: &mut Machine<S>) {
        self.carve(machine);
        if !self.rack.borrow().powered() {
            return;
        }
        let Some((asker, request)) = self.workload.next(&mut machine.ports.pool) else { return };
        let (kind, lba, blocks) = (request.kind, request.lba, request.blocks);
        let numbers = [request.token, kind as u64, lba.0, u64::from(blocks)];
        match machine.begin(request) {
            Ok(()) => {
                self.rack.borrow_mut().trace.note("request", &numbers);
                self.workload.begun(asker, kind);
            }
            Err(request) => request.buffers.free(&mut machine.ports.pool),
        }
    }

    fn idle<S: Subject>(&mut self, machine: &mut Machine<S>) -> Result<Served, Failure> {
        for _ in 0..self.random.below(IDLE_STEPS) {
            match machine.step() {
                Step::Cut => return Ok(Served::Cut),
                Step::Ended => return Err(stuck("idling", "the shards ended unasked".into())),
                Step::Moved => {}
                Step::Still => break,
            }
        }
        Ok(Served::Finished)
    }

    fn stop<S: Subject>(&mut self, machine: &mut Machine<S>) -> Result<Served, Failure> {
        machine.stop();
        let patience = &mut Patience::new(machine);
        loop {
            match machine.step() {
                Step::Cut => return Ok(Served::Cut),
                Step::Ended => break,
                Step::Still => return Err(stuck("the stop", "nothing moves any more".into())),
                Step::Moved => {}
            }
            patience.wait(machine, "the stop", String::new)?;
        }
        self.rebuilds += machine.rebuilt();
        self.rack.borrow_mut().trace.note("stopped", &[]);
        // What a device still works on that hangs does not come home, and nothing else stays away.
        let (outstanding, left) = (machine.ports.pool.outstanding(), machine.left_at_devices());
        if outstanding != left {
            return Err(Failure::Buffers { count: outstanding.abs_diff(left) });
        }
        self.rack.borrow_mut().forget_flights();
        Ok(Served::Finished)
    }

    // What if, after this recovery, the power failed once more and as many members more were lost as the level still bears, or
    // one log copy more? All must still be readable.
    fn probe<S: Subject>(&mut self, machine: &Machine<S>) -> Result<(), Failure> {
        if self.scenario.log_keeping == Some(Keeping::First)
            && let Some(health) = machine.health()
        {
            // With a log a crash and a loss may come together; but not before zones are clean that were left dirty while it was lost.
            let has_log =
                health.writable && !health.dirty && health.is_whole() && health.copies.iter().any(Option::is_some);
            let member = |slot: Slot| health.members[slot.index()].expect("the array is whole");
            return self.probe_each::<S>(if has_log { self.losses(0, member) } else { Vec::new() });
        }
        if !self.scenario.probe_losses || self.cuts == 0 {
            return Ok(());
        }
        if self.scenario.spares > 0
            && let Some(health) = machine.health()
        {
            let is_quiet = self.operator.as_ref().is_none_or(Operator::is_quiet);
            let is_whole = Health { growing: false, ..health.clone() }.is_whole();
            if !is_whole || !is_quiet {
                return Ok(());
            }
            let members: Vec<DeviceId> = health.members.iter().flatten().copied().collect();
            return self.probe_each::<S>(self.losses_of_whole(&members));
        }
        if self.scenario.log_spares > 0
            && let Some(health) = machine.health()
        {
            return self.probe_each::<S>(self.losses_of_log(&health));
        }
        let was_lost = |device: &DeviceId| self.rack.borrow().was_lost(*device);
        let lost = self.scenario.member_devices().filter(was_lost).fold(0, |mask, device| mask | 1 << device.0);
        let copies: Vec<DeviceId> = self.scenario.log_devices().filter(|device| !was_lost(device)).collect();
        let mut tried = self.losses(lost, |slot| DeviceId(slot.0.into()));
        if copies.len() > 1 && self.scenario.is_decided_without_logs(lost) {
            tried.extend(copies.into_iter().map(|copy| vec![copy]));
        }
        self.probe_each::<S>(tried)
    }

    fn without(&self, devices: &[DeviceId]) -> Self {
        let mut twin = self.with_faults(Vec::new());
        {
            let mut rack = twin.rack.borrow_mut();
            rack.trace = rack.trace.silenced();
            rack.cut_power();
            devices.iter().for_each(|&device| rack.lose(device, false));
        }
        twin.scenario.probe_losses = false;
        twin.log_keeper = None;
        twin.workload.retire();
        if let Some(carver) = &mut twin.carver {
            carver.retire();
            carver.power_cut();
        }
        twin.workload.power_cut();
        twin.rack.borrow_mut().restore_power();
        twin.cuts += 1;
        twin
    }

    fn verify<S: Subject>(&mut self) -> Result<(), Failure> {
        let Some(mut machine) = self.boot::<S>()? else { unreachable!("no fault is left to cut the power") };
        self.serve(&mut machine)?;
        self.stop(&mut machine)?;
        Ok(())
    }
}

/// The largest sets of members, as bit masks, that can be lost beside these.
pub(crate) fn further_losses(geometry: &Geometry, lost: u32) -> impl Iterator<Item = u32> + use<> {
    let geometry = *geometry;
    let bears = move |more: u32| geometry.bears(lost | more);
    let is_largest = move |more: &u32| {
        let others = slots(geometry.all_members() & !(lost | more));
        bears(*more) && others.map(|slot| more | 1 << slot.0).all(|larger| !bears(larger))
    };
    (1..=geometry.all_members()).filter(move |more| more & lost == 0).filter(is_largest)
}
