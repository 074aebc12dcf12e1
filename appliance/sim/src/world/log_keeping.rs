//! The part of a run in which somebody looks after the log's devices, and what must still be readable when all copies but one
//! are lost.

use base::ids::DeviceId;

use super::{Patience, Served, World, stuck};
use crate::failure::Failure;
use crate::log_keeper::{Keeping, LogKeeper, Trust};
use crate::machine::{Machine, Step};
use crate::operator::{Deed, Health, Order};
use crate::subject::{Subject, draw_uuid};

impl World {
    /// Lets whoever looks after the log do something.
    pub(super) fn keep_log<S: Subject>(&mut self, machine: &mut Machine<S>) {
        let works = self.log_candidates();
        let Some(keeper) = &mut self.log_keeper else { return };
        if !keeper.looks() {
            return;
        }
        let Some(health) = machine.health() else { return };
        match keeper.decide(&health, &works) {
            None => {}
            Some(Deed::Ask(order)) => {
                let ticket = keeper.ticket();
                self.rack.borrow_mut().trace.note("asked", &[ticket]);
                if matches!(order, Order::Mode { .. }) {
                    self.workload.rely_on_nothing();
                }
                machine.ask(&self.scenario, ticket, order, draw_uuid(&mut self.random));
            }
            Some(Deed::Lose { device, returns }) => self.rack.borrow_mut().lose(device, returns),
            Some(Deed::Hang { device, span }) => self.rack.borrow_mut().hang(device, span),
            Some(Deed::Cut) => self.rack.borrow_mut().cut_power(),
        }
    }

    /// The appliance has been started: the mode is what the log says.
    pub(super) fn mode_is_known<S: Subject>(&mut self, machine: &Machine<S>) {
        if self.scenario.log_keeping.is_some_and(Keeping::is_by_chance)
            && let Some(health) = machine.health()
        {
            self.workload.rely(if health.write_through { Trust::Members } else { Trust::AsBefore });
        }
    }

    /// Waits for what was begun with the log's devices.
    pub(super) fn settle_log<S: Subject>(&mut self, machine: &mut Machine<S>) -> Result<Served, Failure> {
        if let Some(keeper) = &mut self.log_keeper {
            keeper.calm_down();
        }
        let patience = &mut Patience::new(machine);
        loop {
            let works = self.log_candidates();
            while let Some(answer) = machine.answer() {
                self.hear(&answer);
            }
            let Some(keeper) = &mut self.log_keeper else { return Ok(Served::Finished) };
            let Some(health) = machine.health() else { return Ok(Served::Finished) };
            if !health.writable || keeper.is_done(&health, &works) {
                return Ok(Served::Finished);
            }
            self.keep_log(machine);
            match machine.step() {
                Step::Cut => return Ok(Served::Cut),
                Step::Ended => return Err(stuck("the log's new copy", "the shards ended unasked".into())),
                Step::Still => return Err(stuck("the log's new copy", format!("nothing moves any more: {health:?}"))),
                Step::Moved => {}
            }
            patience.wait(machine, "the log's new copy", || format!("{health:?}"))?;
        }
    }

    /// The losses of copies that must be borne now: none while one may be about to go.
    pub(super) fn losses_of_log(&self, health: &Health) -> Vec<Vec<DeviceId>> {
        let works = |copy: &DeviceId| self.rack.borrow().works(*copy);
        let copies: Vec<DeviceId> = health.copies.iter().copied().flatten().filter(works).collect();
        let is_quiet = self.log_keeper.as_ref().is_none_or(LogKeeper::is_quiet);
        if is_quiet { losses_of_copies(&copies) } else { Vec::new() }
    }

    /// Devices that could hold the log, and work.
    fn log_candidates(&self) -> Vec<DeviceId> {
        let all = self.scenario.log_devices().chain(self.scenario.log_spare_devices());
        all.filter(|&device| self.rack.borrow().works(device)).collect()
    }
}

/// All copies of a log but one, in every way.
pub(super) fn losses_of_copies(copies: &[DeviceId]) -> Vec<Vec<DeviceId>> {
    let others = |stays: &DeviceId| copies.iter().copied().filter(|copy| copy != stays).collect();
    if copies.len() < 2 { Vec::new() } else { copies.iter().map(others).collect() }
}
