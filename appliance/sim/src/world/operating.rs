//! Somebody looks after the array while it works: what the operator decides is done here, and what a scrub says it found is
//! believed only where there is something to be found.

use base::ids::{DeviceId, Slot};
use engine::command::Answer;

use super::World;
use crate::failure::Failure;
use crate::machine::Machine;
use crate::operator::{Deed, Health, Order};
use crate::random::Random;
use crate::subject::{Subject, draw_uuid};

impl World {
    pub(super) fn candidates(&self) -> Vec<DeviceId> {
        let all = self.scenario.member_devices().chain(self.scenario.spare_devices());
        all.filter(|&device| self.rack.borrow().works(device) && !self.rack.borrow().hangs(device)).collect()
    }

    pub(super) fn has_unused(&self, health: &Health) -> bool {
        self.scenario.operated && self.candidates().into_iter().any(|device| !health.uses(device))
    }

    // Whoever asked for something is told.
    pub(super) fn hear(&mut self, answer: &Answer) {
        if let Some(operator) = &mut self.operator {
            operator.answered(answer.ticket);
        }
        if let Some(keeper) = &mut self.log_keeper {
            let trust = keeper.answered(answer.ticket, answer.result.is_ok());
            self.workload.rely(trust);
        }
    }

    // Lets whoever looks after the drives do something.
    pub(super) fn operate<S: Subject>(&mut self, machine: &mut Machine<S>) -> Result<(), Failure> {
        self.keep_log(machine);
        self.succeed_one(machine);
        self.grow(machine);
        self.rebuilds += machine.rebuilt();
        while let Some(answer) = machine.answer() {
            self.hear(&answer);
        }
        let Some(operator) = &mut self.operator else { return Ok(()) };
        if !operator.looks() {
            return Ok(());
        }
        let Some(health) = machine.health() else { return Ok(()) };
        self.judge_scrub(&health)?;
        let works = self.candidates();
        let operator = self.operator.as_mut().expect("it was there just now");
        match operator.decide(&health, &works) {
            None => {}
            Some(Deed::Ask(order)) => {
                let ticket = operator.ticket();
                self.rack.borrow_mut().trace.note("asked", &[ticket]);
                machine.ask(&self.scenario, ticket, order, draw_uuid(&mut Random::named(ticket, "uuid")));
            }
            Some(Deed::Lose { device, returns }) => self.rack.borrow_mut().lose(device, returns),
            Some(Deed::Hang { device, span }) => self.rack.borrow_mut().hang(device, span),
            Some(Deed::Cut) => self.rack.borrow_mut().cut_power(),
        }
        Ok(())
    }

    // Has a member succeeded, where nobody looks after the drives.
    fn succeed_one<S: Subject>(&self, machine: &mut Machine<S>) {
        if !self.scenario.succeeds || self.operator.is_some() {
            return;
        }
        let Some(health) = machine.health() else { return };
        let slot = Slot((self.scenario.seed % u64::from(self.scenario.members)) as u8);
        // Else the drive is needed elsewhere, and it may be refused for ever.
        let is_whole = health.members.iter().all(Option::is_some) && health.rebuilding.is_empty();
        if let (true, Some(&spare)) = (health.writable && is_whole, health.spares.first()) {
            let uuid = draw_uuid(&mut Random::named(self.scenario.seed, "successor"));
            machine.ask(&self.scenario, u64::MAX, Order::Succeed(slot, spare), uuid);
        }
    }

    // Has the array get a further member, once.
    fn grow<S: Subject>(&self, machine: &mut Machine<S>) {
        if !self.scenario.grows {
            return;
        }
        let Some(health) = machine.health() else { return };
        let has_grown = health.members.len() > usize::from(self.scenario.members);
        if let (true, false, Some(&spare)) = (health.writable && health.is_whole(), has_grown, health.spares.first()) {
            let uuid = draw_uuid(&mut Random::named(self.scenario.seed, "further"));
            machine.ask(&self.scenario, u64::MAX, Order::Grow(spare), uuid);
        }
    }

    /// Where nothing is wrong, nothing is found: what hosts write meanwhile, and what the power left half written, is no mistake.
    fn judge_scrub(&self, health: &Health) -> Result<(), Failure> {
        match health.scrub {
            Some(scrub)
                if !self.spoiled
                    && (scrub.counts.mismatched_stripes > self.scenario.wrong_blocks()
                        || scrub.counts.unlocated_stripes + scrub.counts.unrepaired_blocks > 0) =>
            {
                Err(Failure::Scrub { detail: format!("nothing is wrong, and it found {scrub:?}") })
            }
            _ => Ok(()),
        }
    }
}
