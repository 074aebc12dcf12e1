//! The part of a run in which somebody looks after the log's devices, and what must still be readable when all copies but one
//! are lost.

use base::ids::DeviceId;

use super::{Patience, Served, World, stuck};
use crate::failure::Failure;
use crate::machine::{Machine, Step};
use crate::operator::Deed;
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
                machine.ask(&self.scenario, ticket, order, draw_uuid(&mut self.random));
            }
            Some(Deed::Lose { device, returns }) => self.rack.borrow_mut().lose(device, returns),
            Some(Deed::Cut) => self.rack.borrow_mut().cut_power(),
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
            let Some(keeper) = &mut self.log_keeper else { return Ok(Served::Finished) };
            while let Some(answer) = machine.answer() {
                keeper.answered(answer.ticket);
            }
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
