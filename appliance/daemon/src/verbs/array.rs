//! `brindle array ...`

use std::error::Error;

use serde_json::{Value, json};

use super::socket_of;
use crate::cli::{ArrayCommand, RebuildAction};
use crate::control_client::call;

/// Does what is asked; what to print.
pub fn run(command: &ArrayCommand) -> Result<String, Box<dyn Error>> {
    let ArrayCommand::Rebuild { name, action, server } = command;
    let paused = *action == RebuildAction::Pause;
    let result: Value = call(&socket_of(server)?, "array.rebuild", &json!({ "array": name, "paused": paused }))?;
    let does = if paused { "wait" } else { "go on" };
    Ok(if server.json { format!("{result}\n") } else { format!("rebuilds of array {name} {does}\n") })
}
