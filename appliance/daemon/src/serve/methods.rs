//! What can be asked for over the control socket beside the status: each method names things as the configuration does;
//! here they become commands of the engine.

use std::time::Duration;

use engine::command::Verb;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fixed::{Place, Placed};
use super::report::Reporter;
use crate::events::{Filter, Record, book};

/// A device by its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDevice {
    name: String,
}

/// Events.
#[derive(Deserialize)]
struct OfEvents {
    #[serde(flatten)]
    filter: Filter,
    /// Whether to wait for one.
    #[serde(default)]
    wait: bool,
}

/// Events of the history.
#[derive(Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Oldest first.
    pub(crate) events: Vec<Record>,
    /// The number behind which there may be more.
    pub(crate) last: u64,
}

/// Whether a method changes nothing. Such ones end alike; the others are events of the history.
pub(super) fn only_asks(method: &str) -> bool {
    [".list", ".show", ".status"].iter().any(|end| method.ends_with(end))
}

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    Some(match method {
        "drive.fail" => fail_drive(reporter, params),
        "events.list" => list_events(reporter, params),
        _ => return super::volumes::call(reporter, method, params),
    })
}

pub(super) fn take<T: DeserializeOwned>(params: Value) -> Result<T, String> {
    serde_json::from_value(params).map_err(|error| format!("these parameters do not fit: {error}"))
}

/// The history, as far as it is asked for.
fn list_events(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfEvents { filter, wait } = take(params)?;
    let wait = if wait { book::MAX_WAIT } else { Duration::ZERO };
    let (events, last) = reporter.events.list(&filter, wait)?;
    Ok(json!(Listed { events, last }))
}

/// Uses a drive no longer.
fn fail_drive(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfDevice { name } = take(params)?;
    let placed = find(reporter, &name)?;
    let array = engine_array(placed)?;
    let verb = match placed.place {
        Some(Place::Member(slot)) => Verb::FailMember { array, slot: base::ids::Slot(slot) },
        Some(Place::Copy(copy)) => Verb::FailCopy { array, copy },
        None => return Err(format!("drive {name} is not in use")),
    };
    reporter.shards.command(verb).map_err(|error| format!("drive {name}: {error}"))?;
    Ok(json!({ "drive": name }))
}

fn find<'a>(reporter: &'a Reporter, name: &str) -> Result<&'a Placed, String> {
    let found = reporter.fixed.devices.iter().find(|placed| placed.described.name == name);
    found.ok_or_else(|| format!("there is no drive of the name {name}: brindle status lists them"))
}

fn engine_array(placed: &Placed) -> Result<base::ids::ArrayId, String> {
    let array = placed.array.ok_or_else(|| format!("drive {} belongs to no array", placed.described.name))?;
    Ok(base::ids::ArrayId(array as u16))
}
