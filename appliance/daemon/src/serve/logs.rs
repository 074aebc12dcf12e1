//! What an operator may have done with a log while hosts go on: a drive becomes a further copy, or takes the place of another;
//! one is taken away; writes are acknowledged otherwise.

use base::ids::ArrayId;
use engine::command::Verb;
use engine::map::LogMode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::drives::{Wanted, array_of, find, free_drive, uses};
use super::fixed::Place;
use super::methods::take;
use super::report::Reporter;
use super::shards::CommandError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attach {
    array: String,
    drive: String,
    /// The copy in whose stead it comes.
    instead: Option<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grow {
    array: String,
    drives: Vec<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Detach {
    array: String,
    /// The copy's drive, or its number.
    copy: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mode {
    array: String,
    mode: config::LogMode,
    #[serde(default)]
    force: bool,
}

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    Some(match method {
        "log.attach" => attach(reporter, params),
        "log.grow" => grow(reporter, params),
        "log.detach" => detach(reporter, params),
        "log.mode" => mode(reporter, params),
        "log.status" => super::log_status::call(reporter, params),
        _ => return None,
    })
}

/// Makes a drive a copy of the log, and waits for that for a while.
fn attach(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Attach { array, drive, instead, force } = take(params)?;
    let _drives = reporter.changing()?;
    let at = array_of(reporter, &array)?;
    let instead = instead.map(|name| copy_of(reporter, at, &name)).transpose()?;
    let device = free_drive(reporter, &drive, at, Wanted::Copy, force)?;
    let verb = Verb::AttachCopy { array: ArrayId(at as u16), device, instead };
    let done = is_done(reporter, verb).map_err(|error| format!("drive {drive}: {error}"))?;
    Ok(json!({ "array": array, "drive": drive, "done": done }))
}

/// Has a command carried out: whether it is already.
fn is_done(reporter: &Reporter, verb: Verb) -> Result<bool, CommandError> {
    match reporter.shards.command(verb) {
        Ok(()) => Ok(true),
        Err(CommandError::Silent) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes drives the copies of a larger log, and waits for that for a while.
fn grow(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Grow { array, drives, force } = take(params)?;
    let _drives = reporter.changing()?;
    let at = array_of(reporter, &array)?;
    if drives.is_empty() {
        return Err("no drive is named that the log could move to".to_owned());
    }
    let devices = drives.iter().map(|drive| free_drive(reporter, drive, at, Wanted::Copy, force));
    let verb = Verb::RenewLog { array: ArrayId(at as u16), devices: devices.collect::<Result<_, _>>()? };
    let done = is_done(reporter, verb).map_err(|error| format!("the log of array {array}: {error}"))?;
    Ok(json!({ "array": array, "drives": drives, "done": done }))
}

/// Takes a copy away for good, or no longer misses one that is lost.
fn detach(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Detach { array, copy: name } = take(params)?;
    let at = array_of(reporter, &array)?;
    let copy = match name.parse() {
        Ok(number) => number,
        Err(_) => copy_of(reporter, at, &name).or_else(|error| lost_copy(reporter, at, &name).ok_or(error))?,
    };
    let verb = Verb::DetachCopy { array: ArrayId(at as u16), copy };
    reporter.shards.command(verb).map_err(|error| format!("log copy {name}: {error}"))?;
    Ok(json!({ "array": array, "copy": copy }))
}

/// The place that a drive had among the copies at the start.
fn lost_copy(reporter: &Reporter, array: usize, name: &str) -> Option<u8> {
    let placed = find(reporter, name).ok().filter(|placed| placed.array == Some(array))?;
    if let Some(Place::Copy(copy)) = placed.place { Some(copy) } else { None }
}

/// Acknowledges writes otherwise.
fn mode(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Mode { array, mode, force } = take(params)?;
    let at = array_of(reporter, &array)?;
    let declared = reporter.fixed.modes[at];
    if declared.is_some_and(|declared| declared != mode) && !force {
        return Err(format!(
            "the configuration gives the log of array {array} another mode, which holds again from the next start on: change \
             it there, or say --force"
        ));
    }
    let to = match mode {
        config::LogMode::WriteBack => LogMode::WriteBack,
        config::LogMode::WriteThrough => LogMode::WriteThrough,
    };
    let verb = Verb::SetMode { array: ArrayId(at as u16), mode: to };
    reporter.shards.command(verb).map_err(|error| format!("array {array}: {error}"))?;
    Ok(json!({ "array": array, "mode": to.name() }))
}

/// The place of a copy by its drive.
fn copy_of(reporter: &Reporter, array: usize, name: &str) -> Result<u8, String> {
    let placed = find(reporter, name)?;
    let uses = uses(&reporter.fixed, &reporter.shards.statuses());
    let used = uses.get(&placed.id).copied().filter(|used| used.array == array);
    let copy = used.and_then(|used| used.copy());
    copy.ok_or_else(|| format!("drive {name} is no copy of this array's log: brindle status shows what it is"))
}
