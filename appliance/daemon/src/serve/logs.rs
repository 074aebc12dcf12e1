//! What an operator may have done with the devices of a log while hosts go on: one becomes a further copy, or takes the place of
//! another.

use base::ids::ArrayId;
use engine::command::Verb;
use serde::Deserialize;
use serde_json::{Value, json};

use super::drives::{Wanted, array_of, find, free_drive, uses};
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

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    Some(match method {
        "log.attach" => attach(reporter, params),
        _ => return None,
    })
}

/// Makes a drive a copy of the log, and waits for that for a while.
fn attach(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Attach { array, drive, instead, force } = take(params)?;
    let at = array_of(reporter, &array)?;
    let instead = instead.map(|name| copy_of(reporter, at, &name)).transpose()?;
    let device = free_drive(reporter, &drive, at, Wanted::Copy, force)?;
    let verb = Verb::AttachCopy { array: ArrayId(at as u16), device, instead };
    let done = match reporter.shards.command(verb) {
        Ok(()) => true,
        Err(CommandError::Silent) => false,
        Err(error) => return Err(format!("drive {drive}: {error}")),
    };
    Ok(json!({ "array": array, "drive": drive, "done": done }))
}

/// The place of a copy by its drive.
fn copy_of(reporter: &Reporter, array: usize, name: &str) -> Result<u8, String> {
    let placed = find(reporter, name)?;
    let uses = uses(&reporter.fixed, &reporter.shards.statuses());
    let used = placed.id.and_then(|id| uses.get(&id).copied()).filter(|used| used.array == array);
    let copy = used.and_then(|used| used.copy());
    copy.ok_or_else(|| format!("drive {name} is no copy of this array's log: brindle status shows what it is"))
}
