//! `brindle volume ...`: volumes made, grown, renamed, copied and deleted while hosts go on.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{consent, socket_of};
use crate::cli::{Server, VolumeCommand};
use crate::control_client::{call, status};
use crate::serve::Volumes;
use crate::status::{VolumeStatus, row, size, table};

/// How often a copy is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Does what is asked; what to print.
pub fn run(command: &VolumeCommand) -> Result<String, Box<dyn Error>> {
    match command {
        VolumeCommand::List { server } => list(server),
        VolumeCommand::Create { volume, size, logical_block, subsystem, nsid, server } => {
            let params = json!({
                "volume": volume,
                "size_bytes": size.0,
                "logical_block_bytes": logical_block.bytes(),
                "subsystem": subsystem,
                "nsid": nsid,
            });
            made(server, "volume.create", &params, "is there")
        }
        VolumeCommand::Grow { volume, size, server } => {
            made(server, "volume.grow", &json!({ "volume": volume, "size_bytes": size.0 }), "has grown")
        }
        VolumeCommand::Rename { volume, name, force, server } => made(
            server,
            "volume.rename",
            &json!({ "volume": volume, "name": name, "force": force }),
            "has its new name",
        ),
        VolumeCommand::Export { volume, subsystem, nsid, server } => {
            let params = json!({ "volume": volume, "subsystem": subsystem, "nsid": nsid });
            made(server, "volume.export", &params, "is exported")
        }
        VolumeCommand::Delete { volume, force, consent, server } => {
            let socket = socket_of(server)?;
            consent::ask(&deletion(&socket, volume)?, *consent)?;
            let result: Value = call(&socket, "volume.delete", &json!({ "volume": volume, "force": force }))?;
            let text =
                format!("volume {volume} is deleted; its space is free once it is zeroed (brindle volume list)\n");
            Ok(if server.json { format!("{result}\n") } else { text })
        }
        VolumeCommand::Copy { volume, copy, subsystem, nsid, no_wait, server } => {
            let socket = socket_of(server)?;
            let _ = writeln!(
                io::stderr(),
                "Copying {volume} to {copy} while hosts go on. The copy is what {volume} was at one moment only if nobody writes to \
                 it meanwhile. brindle volume delete {copy} cancels."
            );
            let params = json!({ "volume": volume, "copy": copy, "subsystem": subsystem, "nsid": nsid });
            let begun: VolumeStatus = call(&socket, "volume.copy", &params)?;
            let copied = if *no_wait { begun } else { wait(&socket, &begun)? };
            Ok(shown(server, &copied, if *no_wait { "is being copied into" } else { "is whole" }))
        }
    }
}

fn made(server: &Server, method: &str, params: &Value, what: &str) -> Result<String, Box<dyn Error>> {
    let volume: VolumeStatus = call(&socket_of(server)?, method, params)?;
    Ok(shown(server, &volume, what))
}

fn shown(server: &Server, volume: &VolumeStatus, what: &str) -> String {
    if server.json {
        return serde_json::to_string(volume).expect("plain values with text keys") + "\n";
    }
    let place = match volume.subsystem.as_str() {
        "" => "hosts do not see it".to_owned(),
        subsystem => format!("hosts of {subsystem} see it as namespace {}", volume.nsid),
    };
    format!("volume {}/{} {what}: {}; {place}\n", volume.array, volume.name, size(volume.bytes))
}

fn list(server: &Server) -> Result<String, Box<dyn Error>> {
    let Volumes { volumes, arrays } = call(&socket_of(server)?, "volume.list", &Value::Null)?;
    if server.json {
        return Ok(serde_json::to_string_pretty(&Volumes { volumes, arrays })? + "\n");
    }
    let rows = volumes.iter().map(|volume| {
        let (state, nsid) =
            (volume.state_in_words(), if volume.nsid == 0 { String::new() } else { volume.nsid.to_string() });
        let name = format!("{}/{}", volume.array, volume.name);
        row([&name, &size(volume.bytes), &state, &volume.origin, &nsid, &volume.subsystem, &volume.uuid])
    });
    let mut text = table("Volumes", &["name", "size", "state", "origin", "nsid", "subsystem", "uuid"], rows);
    let rows = arrays.iter().map(|space| {
        row([&space.array, &size(space.capacity_bytes), &size(space.free_bytes), &size(space.cleaning_bytes)])
    });
    text += &table("Space", &["array", "capacity", "free", "being zeroed"], rows);
    Ok(text.trim_start().to_owned())
}

/// What deleting a volume does.
fn deletion(socket: &Path, path: &str) -> Result<String, Box<dyn Error>> {
    let status = status(socket)?;
    let is_it = |volume: &&VolumeStatus| format!("{}/{}", volume.array, volume.name) == path;
    let volume = status.volumes.iter().find(is_it);
    let volume = volume.ok_or_else(|| format!("there is no volume {path}: brindle volume list shows all"))?;
    let mut plan =
        format!("Volume {path} ({}, {}) and everything in it will be gone for ever.", size(volume.bytes), volume.uuid);
    if !volume.subsystem.is_empty() {
        let mut hosts: Vec<&str> = status
            .connections
            .iter()
            .filter(|connection| connection.subsystem == volume.subsystem)
            .map(|connection| connection.host.as_str())
            .collect();
        hosts.sort_unstable();
        hosts.dedup();
        let hosts = if hosts.is_empty() {
            "nobody is connected".to_owned()
        } else {
            format!("connected: {}", hosts.join(", "))
        };
        write!(plan, " Hosts see it as namespace {} of {}; {hosts}.", volume.nsid, volume.subsystem)?;
    }
    Ok(plan)
}

/// Waits for the end of a copy, and shows how far it is.
fn wait(socket: &Path, begun: &VolumeStatus) -> Result<VolumeStatus, Box<dyn Error>> {
    let path = format!("{}/{}", begun.array, begun.name);
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent:>3}% {eta}").expect("the template is sound");
    let bar = ProgressBar::new(1000).with_style(style.progress_chars("=> ")).with_message(format!("copying to {path}"));
    let mut told = 0;
    loop {
        let Volumes { volumes, .. } = call(socket, "volume.list", &Value::Null)?;
        let found = volumes.into_iter().find(|volume| volume.uuid == begun.uuid && volume.state != "cleaning");
        let volume =
            found.ok_or_else(|| format!("the copy {path} was given up or deleted: brindle events says why"))?;
        if volume.state == "ready" {
            bar.finish_and_clear();
            return Ok(volume);
        }
        let done = volume.progress.unwrap_or(0.0);
        bar.set_position((done * 1000.0) as u64);
        // Without a terminal: a line now and then.
        let tenths = (done * 10.0) as u64;
        if bar.is_hidden() && tenths > told {
            told = tenths;
            let _ = writeln!(io::stderr(), "copying to {path}: {}%", tenths * 10);
        }
        std::thread::sleep(LOOK);
    }
}
