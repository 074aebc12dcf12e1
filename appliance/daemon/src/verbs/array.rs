//! `brindle array ...`

use std::error::Error;
use std::fmt::Write;

use serde_json::{Value, json};

use super::progress::{self, Look};
use super::{consent, socket_of};
use crate::cli::{ArrayCommand, RebuildAction, RepairChoice, ScrubAction, Server};
use crate::control_client::{call, status};
use crate::status::{ArrayStatus, ScrubStatus, duration, size};

/// Does what is asked; what to print.
pub fn run(command: &ArrayCommand) -> Result<String, Box<dyn Error>> {
    match command {
        ArrayCommand::Rebuild { name, action: RebuildAction::Status, follow: true, server } => {
            progress::follow(|| Ok(look_at_rebuild(&array_of(server, name)?)))?;
            Ok(String::new())
        }
        ArrayCommand::Rebuild { name, action: RebuildAction::Status, server, .. } => {
            let array = array_of(server, name)?;
            let text = look_at_rebuild(&array).words;
            Ok(said(server, &json!({ "array": name, "rebuild": array.rebuild }), text))
        }
        ArrayCommand::Rebuild { follow: true, .. } => Err("--follow goes with status".into()),
        ArrayCommand::Rebuild { name, action, server, .. } => {
            let paused = *action == RebuildAction::Pause;
            let params = json!({ "array": name, "paused": paused });
            let result: Value = call(&socket_of(server)?, "array.rebuild", &params)?;
            let does = if paused { "wait" } else { "go on" };
            Ok(said(server, &result, format!("rebuilds of array {name} {does}")))
        }
        ArrayCommand::Grow { name, drive: Some(drive), force, follow, consent, server } => {
            let array = array_of(server, name)?;
            let plan = format!(
                "Drive {drive} becomes a further member of array {name}, and what it holds is overwritten. All data of the array, {} of \
                 space, moves to where it lies with that member, while hosts go on; after that there is more space. This can not be taken \
                 back: the array is never again served without that place.",
                size(array.capacity_bytes)
            );
            consent::ask(&plan, *consent)?;
            let params = json!({ "name": drive, "array": name, "force": force });
            let result: Value = call(&socket_of(server)?, "array.grow", &params)?;
            if *follow {
                return follow_growth(server, name);
            }
            let text = format!(
                "drive {drive} is a member of array {name}, and data moves to where it lies with it; brindle array grow {name} shows how far it is"
            );
            Ok(said(server, &result, text))
        }
        ArrayCommand::Grow { force: true, .. } => Err("--force goes with a drive".into()),
        ArrayCommand::Grow { name, follow: true, server, .. } => follow_growth(server, name),
        ArrayCommand::Grow { name, server, .. } => {
            let array = array_of(server, name)?;
            let text = look_at_growth(&array).words;
            Ok(said(server, &json!({ "array": name, "growth": array.growth }), text))
        }
        ArrayCommand::Scrub { name, action: ScrubAction::Start, repair, rate, follow, consent, server } => {
            if *repair == Some(RepairChoice::Parity) {
                let plan = format!(
                    "Where the members of array {name} do not agree and nobody can tell which is wrong, data is trusted: parity is \
                     computed from it, and mirrors become what the first of them is. If it is the data that is wrong there, it \
                     can never be put together from the others again."
                );
                consent::ask(&plan, *consent)?;
            }
            let repair = repair.map(|repair| match repair {
                RepairChoice::None => "none",
                RepairChoice::Located => "located",
                RepairChoice::Parity => "parity",
            });
            let params = json!({ "array": name, "repair": repair, "rate": rate.map(config::Size::bytes) });
            let result: Value = call(&socket_of(server)?, "array.scrub.start", &params)?;
            if *follow {
                return follow_scrub(server, name);
            }
            let text = format!("array {name} is being scrubbed; brindle array scrub {name} status shows how far it is");
            Ok(said(server, &result, text))
        }
        ArrayCommand::Scrub { repair: Some(_), .. } | ArrayCommand::Scrub { rate: Some(_), .. } => {
            Err("--repair and --rate go with start".into())
        }
        ArrayCommand::Scrub { name, action: ScrubAction::Status, follow: true, server, .. } => {
            follow_scrub(server, name)
        }
        ArrayCommand::Scrub { follow: true, .. } => Err("--follow goes with start and status".into()),
        ArrayCommand::Scrub { name, action: ScrubAction::Status, server, .. } => {
            let array = array_of(server, name)?;
            let text = array.scrub.as_ref().map_or_else(|| "it was never scrubbed".to_owned(), in_words);
            Ok(said(server, &json!({ "array": name, "scrub": array.scrub }), text))
        }
        ArrayCommand::Scrub { name, action, server, .. } => {
            let (method, does) = match action {
                ScrubAction::Pause => ("array.scrub.pause", "waits"),
                ScrubAction::Resume => ("array.scrub.resume", "goes on"),
                _ => ("array.scrub.stop", "was stopped"),
            };
            let result: Value = call(&socket_of(server)?, method, &json!({ "array": name }))?;
            Ok(said(server, &result, format!("the scrub of array {name} {does}")))
        }
    }
}

/// An array by its name.
fn array_of(server: &Server, name: &str) -> Result<ArrayStatus, Box<dyn Error>> {
    let arrays = status(&socket_of(server)?)?.arrays;
    let array = arrays.into_iter().find(|array| array.name == *name);
    Ok(array.ok_or_else(|| format!("there is no array of the name {name}: brindle status lists them"))?)
}

fn follow_scrub(server: &Server, name: &str) -> Result<String, Box<dyn Error>> {
    progress::follow(|| Ok(look_at_scrub(&array_of(server, name)?)))?;
    Ok(String::new())
}

fn follow_growth(server: &Server, name: &str) -> Result<String, Box<dyn Error>> {
    progress::follow(|| Ok(look_at_growth(&array_of(server, name)?)))?;
    Ok(String::new())
}

fn look_at_growth(array: &ArrayStatus) -> Look {
    let Some(growth) = &array.growth else { return nothing("the array is not getting a further member") };
    let (done, all) = (growth.done_bytes, growth.bytes);
    let mut words =
        format!("member {}: {}, {} of {} of each member", growth.member, growth.state, size(done), size(all));
    let _ = write!(words, ", {}/s", size(growth.bytes_per_second));
    if let Some(seconds) = growth.seconds_left.filter(|_| growth.state == "growing") {
        let _ = write!(words, ", {} left", duration(seconds as f64));
    }
    Look { state: growth.state.clone(), words, done, all, is_over: false }
}

fn look_at_scrub(array: &ArrayStatus) -> Look {
    match &array.scrub {
        None => nothing("it was never scrubbed"),
        Some(scrub) => Look {
            state: scrub.state.clone(),
            words: in_words(scrub),
            done: scrub.done_bytes,
            all: scrub.bytes,
            is_over: ["ended", "stopped"].contains(&scrub.state.as_str()),
        },
    }
}

fn look_at_rebuild(array: &ArrayStatus) -> Look {
    let Some(rebuild) = &array.rebuild else { return nothing("no member is being rebuilt") };
    let state = if rebuild.paused { "paused" } else { "rebuilding" };
    let (done, all) = (rebuild.done_bytes, rebuild.bytes);
    let mut words = format!("member {}: {state}, {} of {}", rebuild.member, size(done), size(all));
    let _ = write!(words, ", {}/s", size(rebuild.bytes_per_second));
    if let Some(seconds) = rebuild.seconds_left.filter(|_| !rebuild.paused) {
        let _ = write!(words, ", {} left", duration(seconds as f64));
    }
    Look { state: state.to_owned(), words, done, all, is_over: false }
}

/// There is nothing to follow, or no longer.
fn nothing(words: &str) -> Look {
    Look { state: String::new(), words: words.to_owned(), done: 1, all: 1, is_over: true }
}

/// How a scrub stands.
fn in_words(scrub: &ScrubStatus) -> String {
    let mut text = format!("{}, {}", scrub.state, scrub.done());
    if scrub.state == "running" {
        let _ = write!(text, ", {}/s", size(scrub.bytes_per_second));
    }
    if let Some(seconds) = scrub.seconds_left {
        let _ = write!(text, ", {} left", duration(seconds as f64));
    }
    let _ = write!(text, "; repair: {}; found: {}", scrub.repair, scrub.found());
    text
}

fn said(server: &Server, result: &Value, text: String) -> String {
    if server.json { format!("{result}\n") } else { text + "\n" }
}

#[cfg(test)]
mod tests {
    use raid::ScrubCounts;

    use super::*;

    #[test]
    fn a_scrub_is_told_in_one_line() {
        let mut scrub = ScrubStatus {
            state: "running".into(),
            repair: "located".into(),
            done_bytes: 3 << 20,
            bytes: 12 << 20,
            bytes_per_second: 1 << 20,
            seconds_left: Some(9),
            ..Default::default()
        };
        let text = in_words(&scrub);
        assert_eq!(text, "running, 3 MiB of 12 MiB (25%), 1 MiB/s, 9 s left; repair: located; found: nothing wrong");
        let counts = ScrubCounts { unlocated_stripes: 2, ..Default::default() };
        scrub = ScrubStatus { state: "ended".into(), seconds_left: None, counts, ..scrub };
        assert!(in_words(&scrub).ends_with("; repair: located; found: 2 stripes not located"));
    }
}
