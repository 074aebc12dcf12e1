//! Makes an image of an array for the golden ones: a short script, then a clean stop or a power cut with much in the log.

use super::{Served, World};
use crate::failure::Failure;
use crate::fault::{Fault, PlannedFault};
use crate::image::Image;
use crate::subject::Subject;
use crate::sweep::{cases, script};

/// Requests of the script: enough for stripes of every kind.
const REQUESTS: u64 = 24;

/// Runs the script of a sweep's case. With `cut`, the power fails at that effect; else it is stopped cleanly.
///
/// # Errors
/// If the script itself fails.
pub fn snapshot<S: Subject>(case: usize, cut: Option<u64>) -> Result<Image, Failure> {
    let mut world = World::create::<S>(script(case, cases()[case], REQUESTS), false)?;
    let fault = |effect| PlannedFault { effect, fault: Fault::PowerCut };
    world.rack.borrow_mut().plan(cut.map(fault).into_iter().collect());
    let Some(mut machine) = world.boot::<S>()? else { return world.image() };
    if world.serve(&mut machine)? == Served::Cut || world.stop(&mut machine)? == Served::Cut {
        world.workload.power_cut();
    }
    world.image()
}

impl World {
    fn image(&self) -> Result<Image, Failure> {
        Ok(Image::take(&self.scenario, &self.rack.borrow(), self.workload.oracle()))
    }
}
