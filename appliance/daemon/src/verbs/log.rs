//! `brindle log ...`

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::drive::{find, role, said};
use super::{consent, log_inspect, socket_of};
use crate::check;
use crate::cli::{Consent, LogCommand, LogMode, Server, Taking};
use crate::control_client::{call, status};
use crate::events::{Alone, Severity, Told};
use crate::log_status::LogDetails;
use crate::serve::discard;
use crate::status::{ArrayStatus, LogStatus, size};

/// Time between two looks at how far it is.
const PERIOD: Duration = Duration::from_millis(200);

/// Does what is asked; what to print.
pub fn run(command: &LogCommand) -> Result<String, Box<dyn Error>> {
    match command {
        LogCommand::Attach { array, drive, taking } => attach(array, drive, None, taking),
        LogCommand::Grow { array, drives, taking } => grow(array, drives, taking),
        LogCommand::Status { array, server } => {
            let details: LogDetails = call(&socket_of(server)?, "log.status", &json!({ "array": array }))?;
            Ok(if server.json { serde_json::to_string_pretty(&details)? + "\n" } else { details.to_string() })
        }
        LogCommand::Inspect { device, json } => log_inspect::run(device, *json),
        LogCommand::Discard { array, config, force, json, consent } => discard(array, config, *force, *json, *consent),
        LogCommand::Detach { array, copy, consent, server } => detach(array, copy, *consent, server),
        LogCommand::Mode { array, mode, force, server } => self::mode(array, *mode, *force, server),
        LogCommand::Replace { array, old, new, taking } => attach(array, new, Some(old), taking),
    }
}

/// Gives up what is lost of a damaged log.
fn discard(array: &str, file: &Path, force: bool, as_json: bool, consent: Consent) -> Result<String, Box<dyn Error>> {
    let config = check::load(file)?;
    let mut found = discard::plan(&config, array, force)?;
    if !found.is_needed() {
        return Err(format!("the log of array {array} is not damaged: nothing was done").into());
    }
    consent::ask(&found.in_words(), consent)?;
    let mut history = Alone::open(&config)?;
    let uid = rustix::process::getuid().as_raw();
    let text = format!("user {uid}: log discard {array}");
    let given = Told::new("command.given", Severity::Notice, text).of_array(array);
    let given = given.with("method", "log.discard").with("uid", uid);
    history.as_mut().map_or(Ok(()), |history| history.tell(given))?;
    found.carry_out()?;
    // It is done, whether that can be kept or not.
    if let Some(Err(error)) = history.as_mut().map(|history| history.tell(found.told())) {
        eprintln!("the log was given up, but {error}");
    }
    Ok(if as_json {
        format!("{}\n", found.in_json())
    } else {
        format!("{}\nThat was given up: array {array} can be served.\n", found.in_words())
    })
}

/// Takes a copy away.
fn detach(array: &str, copy: &str, consent: Consent, server: &Server) -> Result<String, Box<dyn Error>> {
    let socket = socket_of(server)?;
    let log = log_of(&socket, array)?;
    let stay = usize::from(log.copies) - log.missing_copies.len();
    let taken = format!("{copy} is taken from it for good: what it holds goes stale at once, and nobody misses it.");
    let then = match stay {
        ..=1 => {
            "If it is the last one, and the array's on_log_loss allows it, the array goes on without a log: writes are acknowledged \
             once the members have them, and a crash while a member is missing may cost data."
        }
        _ => "Where one copy is left, its loss would lose what the members do not have yet.",
    };
    let plan = format!("The log of array {array} has {stay} copies in use. {taken} {then}");
    consent::ask(&plan, consent)?;
    let result: Value = call(&socket, "log.detach", &json!({ "array": array, "copy": copy }))?;
    Ok(said(server, &result, format!("{copy} is no copy of the log of array {array} any more")))
}

/// Acknowledges writes otherwise.
fn mode(array: &str, mode: LogMode, force: bool, server: &Server) -> Result<String, Box<dyn Error>> {
    let (name, how) = match mode {
        LogMode::WriteBack => ("write-back", "once they are in the log"),
        LogMode::WriteThrough => ("write-through", "once the members have them"),
    };
    let params = json!({ "array": array, "mode": name, "force": force });
    let result: Value = call(&socket_of(server)?, "log.mode", &params)?;
    Ok(said(server, &result, format!("writes to array {array} are acknowledged {how} ({name})")))
}

/// Makes a drive a copy, perhaps in the stead of another.
fn attach(array: &str, name: &str, instead: Option<&str>, taking: &Taking) -> Result<String, Box<dyn Error>> {
    let socket = socket_of(&taking.server)?;
    let log = array_of(&socket, array)?.log;
    let meanwhile = "Meanwhile stripes go to the members as soon as they are dirty.";
    let (what, then) = match (instead, log) {
        (Some(_), None) => return Err(format!("array {array} has no log").into()),
        (Some(old), Some(_)) => {
            (format!("takes the stead of {old}, which is used no longer once it has all that the log holds"), meanwhile)
        }
        (None, Some(_)) => ("becomes a copy of it".to_owned(), meanwhile),
        (None, None) => (
            "becomes its first copy: the array has none".to_owned(),
            "Hosts' writes wait for a moment, until what is under way is on the members. They are acknowledged in write-through; \
             brindle log mode changes that.",
        ),
    };
    let drive = described(&socket, name)?;
    let plan =
        format!("The log of array {array}: drive {drive} and {what}. What the drive holds is overwritten. {then}");
    consent::ask(&plan, taking.consent)?;
    let params = json!({ "array": array, "drive": name, "instead": instead, "force": taking.force });
    let result = take(&socket, "log.attach", &params, (array, name), taking)?;
    let text = if result["done"] == true {
        format!("drive {name} is a copy of the log of array {array}")
    } else {
        format!("drive {name} is becoming a copy of the log of array {array}; brindle status shows how far it is")
    };
    Ok(said(&taking.server, &result, text))
}

/// Moves a log to larger drives.
fn grow(array: &str, drives: &[String], taking: &Taking) -> Result<String, Box<dyn Error>> {
    let socket = socket_of(&taking.server)?;
    let log = log_of(&socket, array)?;
    let places: Vec<String> = drives.iter().map(|name| described(&socket, name)).collect::<Result<_, _>>()?;
    let plan = format!(
        "The log of array {array}, {} in {} copies, moves to {}: {}. What these drives hold is overwritten; its length is what the \
         smallest of them allows. Hosts' writes wait for a moment, until what is under way is on the members. Its former copies are \
         free then.",
        size(log.capacity_bytes),
        usize::from(log.copies) - log.missing_copies.len(),
        drives.join(", "),
        places.join("; ")
    );
    consent::ask(&plan, taking.consent)?;
    let params = json!({ "array": array, "drives": drives, "force": taking.force });
    let last = drives.last().expect("one is required");
    let mut result = take(&socket, "log.grow", &params, (array, last), taking)?;
    let text = if result["done"] == true {
        let capacity = log_of(&socket, array)?.capacity_bytes;
        result["capacity_bytes"] = capacity.into();
        format!("the log of array {array} is {}, on {}", size(capacity), drives.join(", "))
    } else {
        format!("the log of array {array} is moving to {}; brindle status shows how far it is", drives.join(", "))
    };
    Ok(said(&taking.server, &result, text))
}

/// A drive, in words for a plan.
fn described(socket: &Path, name: &str) -> Result<String, Box<dyn Error>> {
    let drive = find(socket, name)?;
    Ok(format!("{name} ({}, at {}) is {}", role(&drive), drive.path, drive.state))
}

/// Has a method carried out that makes drives copies of a log, and waits for its end, if that is wanted: until the last of them is one.
fn take(
    socket: &Path,
    method: &str,
    params: &Value,
    (array, last): (&str, &str),
    taking: &Taking,
) -> Result<Value, Box<dyn Error>> {
    let mut result: Value = call(socket, method, params)?;
    if result["done"] == false && !taking.no_wait {
        wait(socket, array, last)?;
        result["done"] = true.into();
    }
    Ok(result)
}

/// Waits until a drive is a copy of an array's log, saying how far it is.
fn wait(socket: &Path, array: &str, drive: &str) -> Result<(), Box<dyn Error>> {
    let mut told = String::new();
    while let Some(attach) = array_of(socket, array)?.log.and_then(|log| log.attach) {
        let words = format!("{}: {}", attach.drive, attach.in_words());
        if words != told {
            eprintln!("{words}");
            told = words;
        }
        std::thread::sleep(PERIOD);
    }
    if find(socket, drive)?.state == "active" {
        return Ok(());
    }
    Err(format!("drive {drive} did not become a copy: brindle events says why").into())
}

/// The log of an array, as it is now.
fn log_of(socket: &Path, name: &str) -> Result<LogStatus, Box<dyn Error>> {
    Ok(array_of(socket, name)?.log.ok_or_else(|| format!("array {name} has no log"))?)
}

/// An array, as it is now.
fn array_of(socket: &Path, name: &str) -> Result<ArrayStatus, Box<dyn Error>> {
    let arrays = status(socket)?.arrays;
    let known: Vec<_> = arrays.iter().map(|array| array.name.clone()).collect();
    let found = arrays.into_iter().find(|array| array.name == name);
    Ok(found.ok_or_else(|| format!("there is no array of the name {name}; there are {}", known.join(", ")))?)
}
