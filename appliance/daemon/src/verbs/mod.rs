//! What the command line asks of a serving process: each verb shows what it is about to do, asks where that cannot be undone,
//! has the method carried out over the control socket, and says how it ended.

pub mod array;
pub mod connections;
pub mod consent;
pub mod drive;
pub mod events;
pub mod log;
pub mod log_inspect;
pub mod progress;
pub mod screen;
mod sockets;
pub mod top;
pub mod volume;

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::check;
use crate::cli::Server;

/// The control socket that is meant.
pub fn socket(control: Option<&Path>, file: Option<&Path>) -> Result<PathBuf, Box<dyn Error>> {
    match (control, file) {
        (Some(socket), _) => Ok(socket.to_owned()),
        (None, Some(file)) => configured_socket(file),
        (None, None) => demo_socket(),
    }
}

/// The control socket that a verb's options name.
pub fn socket_of(server: &Server) -> Result<PathBuf, Box<dyn Error>> {
    socket(server.control.as_deref(), server.config.as_deref())
}

fn configured_socket(file: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let control = check::load(file)?.control;
    let none = || format!("{}: there is no control socket in this configuration: nobody can be asked", file.display());
    Ok(control.ok_or_else(none)?.socket)
}

/// The demo's socket, where one serves who has nothing configured.
fn demo_socket() -> Result<PathBuf, Box<dyn Error>> {
    let demo = config::parse(config::DEMO, "demo.yaml").map_err(|_| "the embedded configuration has errors")?;
    Ok(demo.config.control.ok_or("the embedded configuration has no control socket")?.socket)
}
