//! Devices of the configuration: opened and locked, and told apart into those that are there, those that are missing, and
//! those that may be made. Nothing is written here but new files of zeros.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::ids::DeviceId;
use config::schema::{Config, Device, VolatileCache};
use engine::boot::{Found, probe};
use runtime::{Allocation, DeviceKind, DeviceOpenError, DeviceSet, DeviceSpec, OpenDevice, SyncHandle, create_file};

use super::ServeError;

/// The opened devices, and the configuration's names for them.
pub(super) struct Devices {
    pub(super) set: Arc<DeviceSet>,
    /// By name; none where the device is missing.
    pub(super) by_name: BTreeMap<String, Option<DeviceId>>,
    /// Files that this start made: they are known to hold zeros.
    pub(super) made: Vec<DeviceId>,
    /// Why devices are missing, for people.
    pub(super) notes: Vec<String>,
    undo: Undo,
}

/// What is told of a device in `status`.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) path: String,
    pub(super) bytes: u64,
}

/// Kind, path and size as configured.
pub(super) fn describe(device: &Device) -> Described {
    let (kind, path) = match device {
        Device::File { path, .. } => ("file", path.display().to_string()),
        Device::Block { path, .. } => ("block", path.display().to_string()),
        Device::Ram { .. } => ("ram", String::new()),
    };
    let bytes = device.size().map_or(0, |size| size.bytes());
    Described { name: device.name().to_string(), kind, path, bytes }
}

fn spec(device: &Device) -> DeviceSpec {
    let emulated = |cache: &VolatileCache| *cache == VolatileCache::Emulated;
    let (kind, emulate_volatile_cache) = match device {
        Device::File { path, volatile_cache, .. } => (DeviceKind::File(path.clone()), emulated(volatile_cache)),
        Device::Block { path, .. } => (DeviceKind::Block(path.clone()), false),
        Device::Ram { size, volatile_cache, .. } => (DeviceKind::Ram(size.blocks()), emulated(volatile_cache)),
    };
    DeviceSpec { name: device.name().to_string(), kind, emulate_volatile_cache }
}

impl Devices {
    /// Opens what is there. Files of an array none of whose devices is there are made; a file that is missing from an array
    /// that others bear is a missing member, and stays missing.
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        let fresh = fresh_arrays(config);
        let (mut opened, mut by_name, mut made, mut notes) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        let mut undo = Undo(Vec::new());
        for device in &config.devices {
            let name = device.name().to_string();
            let id = DeviceId(opened.len() as u16);
            if let Device::File { path, size, .. } = device
                && !path.exists()
                && fresh.iter().any(|array| array == &name)
            {
                make_folder(path)?;
                create_file(path, size.blocks(), Allocation::Reserved)?;
                undo.0.push(path.clone());
                made.push(id);
            }
            match OpenDevice::open(&spec(device)) {
                Ok(open) => {
                    if matches!(device, Device::Ram { .. }) {
                        made.push(id);
                    }
                    opened.push(open);
                    by_name.insert(name, Some(id));
                }
                Err(error @ DeviceOpenError::Missing { .. }) => {
                    notes.push(error.to_string());
                    by_name.insert(name, None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { set: DeviceSet::new(opened), by_name, made, notes, undo })
    }

    /// The start has come so far that the files it made are worth keeping.
    pub(super) fn keep_files(&mut self) {
        self.undo.0.clear();
    }

    /// All devices as start-up code takes them.
    pub(super) fn handles(&self) -> Vec<Option<SyncHandle>> {
        (0..self.set.len() as u16).map(|id| Some(SyncHandle::new(&self.set, DeviceId(id)))).collect()
    }

    /// The configured name of a device.
    pub(super) fn name_of(&self, id: DeviceId) -> &str {
        self.set.device(id).name()
    }

    /// Looks whether a device that is about to be overwritten bears something.
    pub(super) fn bears(&self, id: DeviceId) -> Result<Option<String>, ServeError> {
        let mut handle = SyncHandle::new(&self.set, id);
        let failed = |error| ServeError::Device { name: self.name_of(id).to_owned(), error };
        let areas = handle.signature_areas().map_err(failed)?;
        if let Some(signature) = raid::foreign_signature(&areas.head, &areas.tail) {
            return Ok(Some(signature.to_string()));
        }
        Ok(match probe(&mut [Some(handle)], DeviceId(0))? {
            Found::Member(superblock) => Some(format!("a member of array {} ({})", superblock.name, superblock.array)),
            Found::Log(log) => Some(format!("a log copy of array {}", log.identity.array)),
            Found::Unusable(why) => Some(format!("something of Brindle's that cannot be used ({why})")),
            Found::Nothing => None,
        })
    }
}

/// Names of devices whose array is not there at all: no device of it that could bear it exists.
fn fresh_arrays(config: &Config) -> Vec<String> {
    let exists = |name: &str| {
        let device = config.devices.iter().find(|device| device.name().to_string() == name);
        device.and_then(Device::path).is_some_and(Path::exists)
    };
    let mut fresh = Vec::new();
    for array in &config.arrays {
        let members: Vec<String> = array.members.iter().map(ToString::to_string).collect();
        let logs: Vec<String> = array.log.iter().flat_map(|log| &log.devices).map(ToString::to_string).collect();
        if !members.iter().any(|name| exists(name)) {
            fresh.extend(members);
            fresh.extend(logs);
        }
    }
    fresh
}

fn make_folder(path: &Path) -> Result<(), ServeError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|source| ServeError::Folder { path: folder.to_owned(), source })
}

/// Removes files that were made for a start that then failed.
struct Undo(Vec<PathBuf>);

impl Drop for Undo {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a file that was made for this start stays behind");
            }
        }
    }
}
