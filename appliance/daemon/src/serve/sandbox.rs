//! What the appliance may still do once its devices are open: which folders are opened while it serves, from the configuration.
//! How that is kept is the runtime's affair ([`runtime::confine`]).

use std::path::{Path, PathBuf};

use config::schema::{Config, Device, Sandbox};
use runtime::confine::{self, Access, Confinement, Rule};

use super::new_files::NewFiles;
use super::{ServeError, locate};
use crate::memory_status::SandboxStatus;

/// Where the kernel tells what there is: looked at when a device is opened.
const KERNEL: [&str; 2] = ["/proc", "/sys"];

/// Folders beside those of devices.
pub(super) struct Others<'a> {
    /// The control socket.
    pub(super) socket: Option<&'a Path>,
    /// The folder of the history.
    pub(super) history: Option<PathBuf>,
    /// What a start that fails has to remove again.
    pub(super) new_files: &'a NewFiles,
}

/// Confines this thread and all that come after it, if that is wanted.
pub(super) fn enter(config: &Config, others: &Others<'_>, as_json: bool) -> Result<Option<Confinement>, ServeError> {
    if config.sandbox == Sandbox::Off {
        tracing::warn!("the sandbox is off: the process keeps all privileges, files and system calls");
        return Ok(None);
    }
    let confinement = confine::confine(&rules(config, others), as_json)?;
    for note in &confinement.notes {
        tracing::warn!("sandbox: {note}");
    }
    Ok(Some(confinement))
}

/// The rules for files that follow from a configuration.
fn rules(config: &Config, others: &Others<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> =
        KERNEL.into_iter().map(|path| Rule { path: path.into(), access: Access::Read }).collect();
    let mut allow = |path: PathBuf, access| {
        let rule = Rule { path, access };
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    };
    // A panic names its lines only if the program can read itself.
    if let Ok(program) = std::env::current_exe() {
        allow(program, Access::Read);
    }
    for device in &config.devices {
        let (path, access) = match device {
            Device::File { path, .. } => (path, Access::Files),
            Device::Block { path, .. } => (path, Access::Devices),
            Device::Ram { .. } => continue,
        };
        allow(folder_of(path), access);
        // Nodes are mostly named by links; what they lead to changes when a drive is plugged in again.
        if let Ok(node) = path.canonicalize() {
            allow(folder_of(&node), access);
        } else if access == Access::Devices && path.starts_with("/dev") {
            allow("/dev".into(), access);
        }
    }
    // The lights of slots, which are files of sysfs.
    for enclosure in locate::enclosures(Path::new(locate::SYSFS)) {
        allow(enclosure, Access::Attributes);
    }
    for folder in &config.drive_folders {
        allow(folder.clone(), Access::Files);
    }
    if let Some(socket) = others.socket {
        allow(folder_of(socket), Access::Sockets);
    }
    if let Some(history) = &others.history {
        allow(history.clone(), Access::Files);
    }
    for folder in others.new_files.folders() {
        allow(folder_of(folder), Access::RemoveFolders);
    }
    rules
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// What is told of it.
pub(super) fn status(confinement: Option<&Confinement>) -> SandboxStatus {
    let Some(confinement) = confinement else { return SandboxStatus::default() };
    SandboxStatus {
        on: true,
        capabilities: confinement.capabilities.iter().map(ToString::to_string).collect(),
        file_rules: confinement.file_rules.unwrap_or(0),
        call_filter: confinement.call_filter,
        refused_calls: confine::refused_calls(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_devices_and_what_lies_beside_them_are_allowed() {
        let text = config::DEMO
            .replace("name: demo\n", "name: demo\ndrive_folders: [/srv/spare]\n")
            .replace("kind: file, path: brindle-demo/d0.img, size: 256MiB", "kind: block, path: /dev/disk/by-id/none");
        let config = config::parse(&text, "test.yaml").unwrap().config;
        let others = Others {
            socket: Some(Path::new("control.sock")),
            history: Some("run/control.events".into()),
            new_files: &NewFiles::default(),
        };
        let rules = rules(&config, &others);
        let has = |path: &str, access| rules.contains(&Rule { path: path.into(), access });
        assert!(has("brindle-demo", Access::Files) && has("/srv/spare", Access::Files));
        assert!(has("/dev/disk/by-id", Access::Devices) && has("/dev", Access::Devices), "{rules:?}");
        assert!(has(".", Access::Sockets) && has("run/control.events", Access::Files));
        assert!(has("/proc", Access::Read) && !has(".", Access::Files));
    }
}
