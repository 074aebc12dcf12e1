//! The log is lost while hosts work, by plan; and a member once the array goes on without the log.

use super::World;
use crate::machine::Machine;
use crate::subject::Subject;

impl World {
    // Loses what is due.
    pub(super) fn lose_the_log<S: Subject>(&mut self, machine: &Machine<S>) {
        let Some(exposure) = &mut self.scenario.exposure else { return };
        let mut rack = self.rack.borrow_mut();
        let due = exposure.copies.iter().take_while(|(answers, _)| *answers <= self.answers).count();
        for (_, copy) in exposure.copies.drain(..due) {
            rack.lose(copy, true);
        }
        if exposure.member.is_some()
            && machine.health().is_some_and(|health| health.exposed)
            && let Some(member) = exposure.member.take()
        {
            rack.lose(member, false);
        }
    }
}
