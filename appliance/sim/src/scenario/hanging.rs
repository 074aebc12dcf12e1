//! Runs in which members hang instead of failing: for a moment that nobody notices, until they have been excluded, or for ever.

use base::time::Span;

use super::Scenario;
use crate::fault::Fault;
use crate::random::Random;

/// Seeds with these remainders are such runs, as far as a member is lost in them. The others keep the runs that they had
/// before any did.
const SEEDS: [u64; 4] = [4, 11, 12, 14];
const SEEDS_OF: u64 = 16;

/// And those with these, where somebody looks after the drives.
const OPERATED: [u64; 2] = [9, 19];
const OPERATED_OF: u64 = 32;

pub(super) fn is_meant(seed: u64) -> bool {
    SEEDS.contains(&(seed % SEEDS_OF)) || OPERATED.contains(&(seed % OPERATED_OF))
}

impl Scenario {
    pub(super) fn let_members_hang(&mut self, random: &mut Random) {
        // Longer than a slow device takes, and longer than it takes to read on.
        let timeout = random.choose(&[Span::from_millis(40), Span::from_millis(400)]);
        self.drive_timeouts = (Span::from_millis(random.choose(&[10, 40])), timeout);
        self.hangs = self.operated;
        let members = u16::from(self.members);
        for planned in &mut self.faults {
            if let Fault::Lost { device, .. } = planned.fault
                && device.0 < members
            {
                let span = how_long(random, timeout);
                planned.fault = Fault::Hang { device, span };
            }
        }
    }
}

fn how_long(random: &mut Random, timeout: Span) -> Span {
    random.choose(&[Span(timeout.0 / 8), Span(timeout.0 * 4), Span(u64::MAX), Span(u64::MAX)])
}

/// Whether a member of a scenario hangs by plan.
#[cfg(test)]
fn hangs(scenario: &Scenario) -> bool {
    let member = |device: base::ids::DeviceId| device.0 < u16::from(scenario.members);
    scenario.faults.iter().any(|planned| matches!(planned.fault, Fault::Hang { device, .. } if member(device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_hang_by_plan_and_by_whoever_looks_after_them() {
        let scenarios: Vec<Scenario> = (0..800).map(Scenario::draw).collect();
        let (planned, operated) = (scenarios.iter().filter(|one| hangs(one)), scenarios.iter().filter(|one| one.hangs));
        let (planned, operated) = (planned.count(), operated.count());
        assert!(planned > 40 && operated > 30, "{planned} by plan, {operated} operated");
    }
}
