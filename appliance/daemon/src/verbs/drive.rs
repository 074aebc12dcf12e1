//! `brindle drive ...`

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use super::progress::{self, Look};
use super::{consent, socket_of};
use crate::cli::{DriveCommand, Light, Server};
use crate::control_client::{call, status};
use crate::device_status::DeviceStatus;
use crate::serve::rescan::Seen;
use crate::serve::wipe::{Depth, Progress, Shown};
use crate::status::{ArrayStatus, size};

/// Does what is asked; what to print.
pub fn run(command: &DriveCommand) -> Result<String, Box<dyn Error>> {
    match command {
        DriveCommand::Fail { name, consent, server } => {
            let socket = socket_of(server)?;
            let drive = find(&socket, name)?;
            let plan = if is_to_succeed(&drive) {
                format!("Drive {name} ({}) is let go: the member that it was to succeed stays in use.", role(&drive))
            } else {
                let plan = format!(
                    "Drive {name} ({}) is {} and will be used no longer: what it holds goes stale, and it can only come back by \
                     being rebuilt, where something was written meanwhile (brindle drive return) or as a whole.",
                    role(&drive),
                    drive.state
                );
                plan + &last_copy(&socket, &drive)?
            };
            consent::ask(&plan, *consent)?;
            let result: Value = call(&socket, "drive.fail", &json!({ "name": name }))?;
            Ok(said(server, &result, format!("drive {name} is used no longer")))
        }
        DriveCommand::Add { name, array, force, consent, server } => {
            let socket = socket_of(server)?;
            let drive = find(&socket, name)?;
            let plan = format!(
                "Drive {name} ({}, at {}) is {} and will be a spare of array {array}: it takes the place of a member by itself, \
                 and what it holds is overwritten then.",
                role(&drive),
                drive.path,
                drive.state
            );
            consent::ask(&plan, *consent)?;
            let params = json!({ "name": name, "array": array, "force": force });
            let result: Value = call(&socket, "drive.add", &params)?;
            Ok(said(server, &result, format!("drive {name} is a spare of array {array}")))
        }
        DriveCommand::Replace { old, new, force, consent, server } => {
            let socket = socket_of(server)?;
            let (gone, drive) = (find(&socket, old)?, find(&socket, new)?);
            let when = if matches!(gone.state.as_str(), "active") {
                format!(
                    "becomes the like of {old} ({}), which stays in use meanwhile, and takes its place then",
                    role(&gone)
                )
            } else {
                format!("takes the place of {old} ({})", role(&gone))
            };
            let plan = format!(
                "Drive {new} ({}, at {}) is {} and {when}: what it holds is overwritten, and {old} can never come back to its \
                 place.",
                role(&drive),
                drive.path,
                drive.state
            );
            consent::ask(&plan, *consent)?;
            let result: Value = call(&socket, "drive.replace", &json!({ "old": old, "new": new, "force": force }))?;
            let member = &result["member"];
            let text = if result["in_use"] == true {
                format!(
                    "drive {new} is becoming the like of {old}, member {member}, to take its place; brindle status shows how far"
                )
            } else {
                format!("drive {new} is member {member} now and is being rebuilt; brindle status shows how far")
            };
            Ok(said(server, &result, text))
        }
        DriveCommand::Return { name, server } => {
            let result: Value = call(&socket_of(server)?, "drive.return", &json!({ "name": name }))?;
            let member = &result["member"];
            let text = format!(
                "drive {name} is member {member} again, with what it held; what it missed is being rebuilt, and brindle status shows \
                 how far"
            );
            Ok(said(server, &result, text))
        }
        DriveCommand::Wipe { name, quick, secure, no_wait, consent, server } => {
            let socket = socket_of(server)?;
            let depth = match (quick, secure) {
                (true, _) => Depth::Quick,
                (false, true) => Depth::Secure,
                (false, false) => Depth::Zeros,
            };
            let shown: Shown = call(&socket, "drive.show", &json!({ "name": name }))?;
            consent::ask(&wiping(&shown, depth)?, *consent)?;
            let mut progress: Progress = call(&socket, "drive.wipe", &json!({ "name": name, "depth": depth }))?;
            if !no_wait {
                progress = wait(&socket, progress, server.json)?;
            }
            match progress.state.as_str() {
                "failed" => Err(format!("drive {name} could not be wiped: {}", progress.text).into()),
                _ if server.json => Ok(format!("{}\n", json!(progress))),
                "done" => Ok(format!("drive {name} is wiped: {}\n", progress.text)),
                _ => Ok(format!("drive {name} is being wiped\n")),
            }
        }
        DriveCommand::Locate { name, light, server } => {
            let on = *light == Light::On;
            let result: Value = call(&socket_of(server)?, "drive.locate", &json!({ "name": name, "on": on }))?;
            let shines = if on { "shines" } else { "shines no longer" };
            Ok(said(server, &result, format!("the light of drive {name} {shines}")))
        }
        DriveCommand::Rescan { server } => {
            let seen: Seen = call(&socket_of(server)?, "drive.rescan", &json!({}))?;
            Ok(if server.json { format!("{}\n", json!(seen)) } else { in_words(&seen) })
        }
    }
}

/// What a wipe does, in words; an error if it would hit a drive that is in use.
fn wiping(shown: &Shown, depth: Depth) -> Result<String, String> {
    let Shown { drive, path, bytes, used, bears } = shown;
    if !used.is_empty() {
        return Err(format!("drive {drive} is in use, as {used}: what it holds is needed"));
    }
    let bears = bears.as_deref().unwrap_or("nothing that is known");
    let what = match depth {
        Depth::Quick => "what says so is erased, and nobody finds again what lies behind it",
        Depth::Zeros => "all of it is erased, and nobody can bring it back",
        Depth::Secure => {
            "all of it is erased, securely if the drive can do that, and nobody can bring it back; if it cannot, zeros are written, \
             and that is said"
        }
    };
    Ok(format!("Drive {drive} (at {path}, {}) bears {bears}: {what}.", size(*bytes)))
}

/// Follows a wipe to its end.
fn wait(socket: &Path, begun: Progress, quietly: bool) -> Result<Progress, Box<dyn Error>> {
    let mut last = begun;
    let params = json!({ "name": last.drive });
    let mut look = || -> Result<Look, Box<dyn Error>> {
        last = call(socket, "drive.wipe.status", &params)?;
        let Progress { state, done_bytes, bytes, .. } = last.clone();
        let words = format!("{state}: {} of {}", size(done_bytes), size(bytes));
        Ok(Look { is_over: state != "running", state, words, done: done_bytes, all: bytes })
    };
    if quietly {
        while !look()?.is_over {
            std::thread::sleep(progress::EVERY);
        }
    } else {
        progress::follow(look)?;
    }
    Ok(last)
}

/// What a look has found, a line each.
fn in_words(seen: &Seen) -> String {
    let appeared = seen.appeared.iter().map(|one| format!("{}\n", one.text));
    let gone = seen.gone.iter().map(|drive| format!("drive {drive} is gone\n"));
    let refused = seen.refused.iter().map(|one| format!("drive {} cannot be opened: {}\n", one.drive, one.why));
    let text: String = appeared.chain(gone).chain(refused).collect();
    if text.is_empty() { "nothing has appeared, and nothing is gone\n".to_owned() } else { text }
}

fn is_to_succeed(drive: &DeviceStatus) -> bool {
    drive.state == "joining" && drive.role.ends_with(", next")
}

pub(super) fn find(socket: &Path, name: &str) -> Result<DeviceStatus, Box<dyn Error>> {
    let drives = status(socket)?.devices;
    let known: Vec<_> = drives.iter().map(|drive| drive.name.clone()).collect();
    let found = drives.into_iter().find(|drive| drive.name == name);
    Ok(found.ok_or_else(|| format!("there is no drive of the name {name}; there are {}", known.join(", ")))?)
}

/// What is to be said of a drive that is the last copy of a log.
fn last_copy(socket: &Path, drive: &DeviceStatus) -> Result<String, Box<dyn Error>> {
    let arrays = status(socket)?.arrays;
    let is_its =
        |array: &&ArrayStatus| drive.role.strip_prefix(&array.name).is_some_and(|role| role.starts_with(" log "));
    let stay = arrays.iter().find(is_its).and_then(|array| array.log.as_ref().map(|log| (array, log)));
    let last = stay.filter(|(_, log)| usize::from(log.copies) == log.missing_copies.len() + 1);
    Ok(last.map_or_else(String::new, |(array, _)| {
        format!(
            " It is the last copy of the log of array {}, which would go on without one if its on_log_loss allows that, exposed \
             to the write hole until it gets a log again (brindle log attach).",
            array.name
        )
    }))
}

pub(super) fn role(drive: &DeviceStatus) -> &str {
    if drive.role.is_empty() { "of no array" } else { &drive.role }
}

pub(super) fn said(server: &Server, result: &Value, text: String) -> String {
    if server.json { format!("{result}\n") } else { text + "\n" }
}
