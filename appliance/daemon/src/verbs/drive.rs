//! `brindle drive ...`

use std::error::Error;

use serde_json::{Value, json};

use super::{consent, socket_of};
use crate::cli::DriveCommand;
use crate::control_client::{call, status};

/// Does what is asked; what to print.
pub fn run(command: &DriveCommand) -> Result<String, Box<dyn Error>> {
    match command {
        DriveCommand::Fail { name, consent, server } => {
            let socket = socket_of(server)?;
            let drives = status(&socket)?.devices;
            let drive = drives.iter().find(|drive| drive.name == *name);
            let drive = drive.ok_or_else(|| {
                let known: Vec<_> = drives.iter().map(|drive| drive.name.as_str()).collect();
                format!("there is no drive of the name {name}; there are {}", known.join(", "))
            })?;
            let plan = format!(
                "Drive {name} ({}) is {} and will be used no longer: what it holds goes stale at once, and it can only come back \
                 by being rebuilt.",
                if drive.role.is_empty() { "of no array" } else { &drive.role },
                drive.state
            );
            consent::ask(&plan, *consent)?;
            let result: Value = call(&socket, "drive.fail", &json!({ "name": name }))?;
            Ok(if server.json { format!("{result}\n") } else { format!("drive {name} is used no longer\n") })
        }
    }
}
