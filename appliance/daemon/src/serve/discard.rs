//! Giving up what is lost of a damaged log, while nobody serves the array: what it is, and then doing it.

use base::BLOCK;
use engine::boot::{DamagedLane, DiscardPlan, plan_discard};
use runtime::SyncHandle;
use serde_json::{Value, json};

use super::ServeError;
use super::arrays::{name, of_array};
use super::devices::Devices;
use super::new_files::NewFiles;
use crate::events::{Severity, Told};

/// A log that is about to be cut, with its devices in hand.
pub(crate) struct Discard {
    array: String,
    handles: Vec<Option<SyncHandle>>,
    plan: DiscardPlan,
    // Open, and locked, as long as it lasts.
    _devices: Devices,
}

/// Looks at the log of an array of a configuration. Nothing is written.
pub(crate) fn plan(config: &config::Config, array: &str, force: bool) -> Result<Discard, ServeError> {
    let found = config.arrays.iter().find(|declared| declared.name.to_string() == array);
    let declared = found
        .ok_or_else(|| ServeError::Refused(format!("there is no array of the name {array} in the configuration")))?;
    // What a server would make goes again.
    let devices = Devices::open(config, &mut NewFiles::default())?;
    let mut handles = of_array(declared, config, &devices);
    let plan = plan_discard(&mut handles, array, force).map_err(|error| name(error, declared, &devices))?;
    Ok(Discard { array: array.to_owned(), handles, plan, _devices: devices })
}

impl Discard {
    /// Whether there is anything to give up.
    pub(crate) fn is_needed(&self) -> bool {
        !self.plan.lanes.is_empty()
    }

    /// What would be lost, in words.
    pub(crate) fn in_words(&self) -> String {
        let mut out = format!("The log of array {}: {} lanes are whole.\n", self.array, self.plan.whole);
        for damaged in &self.plan.lanes {
            out += &format!("  {}\n", damaged.error);
            out += &match damaged.is_anew() {
                false => {
                    format!("    records before {} are kept; that one and all after it are lost\n", damaged.first_lost)
                }
                true => "    nothing of this lane is kept\n".to_owned(),
            };
            let runs = damaged.known_blocks.iter();
            let runs: Vec<String> =
                runs.map(|(start, count)| format!("{} to {}", start.0, start.0 + u64::from(*count) - 1)).collect();
            out += &if runs.is_empty() {
                "    which blocks they wrote cannot be read any more\n".to_owned()
            } else {
                format!("    some of them can be read and wrote these blocks of the array: {}\n", runs.join(", "))
            };
        }
        out + "Writes that were acknowledged and are in these records alone are lost: their blocks show older content. Parities of \
               stripes that were being written then may not match: run brindle array scrub after the next start, and before a \
               drive is replaced."
    }

    /// The same for programs.
    pub(crate) fn in_json(&self) -> Value {
        let lane = |damaged: &DamagedLane| {
            let blocks = damaged.known_blocks.iter();
            let blocks = blocks.map(|(start, count)| json!({ "start": start.0, "blocks": count }));
            json!({
                "lane": damaged.lane.0,
                "error": damaged.error.to_string(),
                "first_lost": damaged.first_lost,
                "acknowledged_upto": damaged.acknowledged_upto,
                "keeps_records": !damaged.is_anew(),
                "known_blocks": blocks.collect::<Vec<_>>(),
                "block_bytes": BLOCK,
            })
        };
        let lanes: Vec<Value> = self.plan.lanes.iter().map(lane).collect();
        json!({ "array": self.array, "whole_lanes": self.plan.whole, "damaged_lanes": lanes })
    }

    /// The same as an event, once it is done.
    pub(crate) fn told(&self) -> Told {
        let lanes: Vec<String> = self.plan.lanes.iter().map(|damaged| damaged.lane.0.to_string()).collect();
        let text = format!(
            "what was damaged of the log was given up, in lanes {}: writes that were acknowledged may be lost, and parities of stripes \
             that were being written may not match until the next scrub",
            lanes.join(", ")
        );
        let told = Told::new("log.discarded", Severity::Error, text).of_array(&self.array);
        told.with("damaged_lanes", self.in_json()["damaged_lanes"].clone())
    }

    /// Gives it up.
    pub(crate) fn carry_out(&mut self) -> Result<(), ServeError> {
        Ok(engine::boot::discard(&mut self.handles, &self.plan)?)
    }
}
