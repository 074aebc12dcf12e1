//! Devices of the configuration: opened and locked, and told apart into those that are there, those that are missing, and
//! those that are made. Nothing is written here but new files of zeros.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use base::ids::DeviceId;
use base::{BLOCK, Block, ZERO_BLOCK};
use config::schema::{Array, Config, Device, VolatileCache};
use engine::boot::{BootError, Found, probe};
use raid::{Superblock, SuperblockError};
use runtime::device::MAX_DEVICES;
use runtime::{DeviceKind, DeviceOpenError, DeviceSet, DeviceSpec, Identity, OpenDevice, SyncHandle};

use super::ServeError;
use super::new_files::NewFiles;

/// The opened devices, and the configuration's names for them.
pub(super) struct Devices {
    pub(super) set: Arc<DeviceSet>,
    /// By name; none where the device is missing.
    pub(super) by_name: BTreeMap<String, Option<DeviceId>>,
    /// Files that this start made: they are known to hold zeros.
    pub(super) made: Vec<DeviceId>,
    /// What is not as the configuration says, for people.
    pub(super) notes: Vec<String>,
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

pub(super) fn spec(device: &Device) -> DeviceSpec {
    let emulated = |cache: &VolatileCache| *cache == VolatileCache::Emulated;
    let (kind, emulate_volatile_cache) = match device {
        Device::File { path, volatile_cache, .. } => (DeviceKind::File(path.clone()), emulated(volatile_cache)),
        Device::Block { path, .. } => (DeviceKind::Block(path.clone()), false),
        Device::Ram { size, volatile_cache, .. } => (DeviceKind::Ram(size.blocks()), emulated(volatile_cache)),
    };
    DeviceSpec { name: device.name().to_string(), kind, emulate_volatile_cache }
}

impl Devices {
    /// Opens what is there. Files of an array that no member bears which is there are made; a file that is missing from an
    /// array that others bear is a missing member, and stays missing.
    pub(super) fn open(config: &Config, new_files: &mut NewFiles) -> Result<Self, ServeError> {
        check_names(config)?;
        let to_make: Vec<String> =
            config.arrays.iter().filter(|array| !may_be_borne(array, config)).flat_map(parts).collect();
        // A spare holds nothing that could be missing.
        let spares = config.arrays.iter().flat_map(|array| &array.spares).map(ToString::to_string);
        let to_make: Vec<String> = to_make.into_iter().chain(spares).collect();
        let (mut places, mut by_name, mut made, mut notes) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        for (id, device) in (0..).map(DeviceId).zip(&config.devices) {
            let name = device.name().to_string();
            let mut spec = spec(device);
            if let Device::File { path, size, .. } = device
                && !path.exists()
                && to_make.contains(&name)
            {
                spec.kind = DeviceKind::File(new_files.make(&name, path, *size)?);
                made.push(id);
            }
            match OpenDevice::open(&spec) {
                Ok(open) => {
                    if matches!(device, Device::Ram { .. }) {
                        made.push(id);
                    }
                    if let Some(declared) = device.size()
                        && declared.blocks() != open.blocks()
                    {
                        let is = open.blocks() * BLOCK as u64;
                        notes.push(format!(
                            "device {name}: it has {is} bytes, not the declared {declared}, and stays so"
                        ));
                    }
                    places.push((name.clone(), Some(open)));
                    by_name.insert(name, Some(id));
                }
                Err(error @ DeviceOpenError::Missing { .. }) => {
                    notes.push(error.to_string());
                    places.push((name.clone(), None));
                    by_name.insert(name, None);
                }
                Err(error) => return Err(named(&name, error)),
            }
        }
        Ok(Self { set: DeviceSet::with_places(places), by_name, made, notes })
    }

    /// All devices as start-up code takes them.
    pub(super) fn handles(&self) -> Vec<Option<SyncHandle>> {
        self.set.ids().map(|id| self.set.get(id).map(SyncHandle::of)).collect()
    }

    /// The configured name of a device.
    pub(super) fn name_of(&self, id: DeviceId) -> &str {
        self.set.name(id)
    }

    /// Looks whether a device that is about to be overwritten bears something.
    pub(super) fn bears(&self, id: DeviceId) -> Result<Option<String>, ServeError> {
        Ok(look(self.set.device(id))?.1)
    }
}

/// What a device bears, and in words if it is anything.
pub(super) fn look(device: Arc<OpenDevice>) -> Result<(Found, Option<String>), ServeError> {
    let name = device.name().to_owned();
    let mut handle = SyncHandle::of(device);
    let failed = |error| ServeError::Device { name: name.clone(), error };
    let areas = handle.signature_areas().map_err(failed)?;
    // Ours first: it says which array.
    let found = match probe(&mut [Some(handle)], DeviceId(0)) {
        // It is the only one that it knows.
        Err(BootError::Device { error, .. }) => return Err(failed(error)),
        other => other?,
    };
    let what = match &found {
        Found::Member(superblock) => Some(format!("a member of array {} ({})", superblock.name, superblock.array)),
        Found::Log(log) => Some(format!("a log copy of array {}", log.identity.array)),
        Found::Unusable(why) => Some(format!("something of Brindle's that cannot be used ({why})")),
        Found::Nothing => raid::foreign_signature(&areas.head, &areas.tail).map(|signature| signature.to_string()),
    };
    Ok((found, what))
}

/// Refuses a device that is named twice, by links perhaps: the lock would only say that we ourselves hold it.
fn check_names(config: &Config) -> Result<(), ServeError> {
    if config.devices.len() > MAX_DEVICES {
        return Err(ServeError::TooManyDevices { declared: config.devices.len() });
    }
    let mut known: BTreeMap<Identity, String> = BTreeMap::new();
    for device in &config.devices {
        let Some((path, identity)) = device.path().and_then(|path| Some((path, Identity::at(path).ok()?))) else {
            continue;
        };
        if let Some(first) = known.insert(identity, device.name().to_string()) {
            let (second, path) = (device.name().to_string(), path.to_owned());
            return Err(ServeError::SameDevice { first, second, path });
        }
    }
    Ok(())
}

/// The error with the device's name in it.
pub(super) fn named(name: &str, error: DeviceOpenError) -> ServeError {
    match error {
        error @ DeviceOpenError::System { .. } => ServeError::OpenNamed { name: name.to_owned(), error },
        other => ServeError::Open(other),
    }
}

/// The devices that an array is made of, by name.
pub(super) fn parts(array: &Array) -> Vec<String> {
    let logs = array.log.iter().flat_map(|log| &log.devices);
    array.members.iter().chain(logs).map(ToString::to_string).collect()
}

/// Whether a device may have become an array's while it was served: it is a spare of it, or no array names it.
pub(super) fn may_have_joined(device: &Device, array: &Array, config: &Config) -> bool {
    let name = device.name();
    let names = |array: &Array| array.spares.contains(name) || parts(array).contains(&name.to_string());
    array.spares.contains(name) || !config.arrays.iter().any(names)
}

/// Whether any member that is there says that it is of the array, or says nothing that can be understood. Where all of them
/// say otherwise, or nothing, the array does not exist: perhaps a start was cut while it made the first files.
fn may_be_borne(array: &Array, config: &Config) -> bool {
    let is_named = |name: &config::Name| array.members.contains(name) || array.spares.contains(name);
    let mut members = config.devices.iter().filter(|device| is_named(device.name()));
    members.any(|device| {
        let Some(path) = device.path().filter(|path| path.exists()) else { return false };
        match superblocks(path) {
            Err(_) => true,
            Ok([a, b]) => match Superblock::newest(&a, &b) {
                Ok(superblock) => superblock.name == array.name.to_string(),
                Err(error) => error != SuperblockError::NotASuperblock,
            },
        }
    })
}

/// Both places of a member's superblock; zeros where the device ends before.
fn superblocks(path: &Path) -> std::io::Result<[Block; 2]> {
    let file = File::open(path)?;
    let mut blocks = [ZERO_BLOCK; 2];
    for (slot, block) in (0..).zip(&mut blocks) {
        let start = raid::superblock_block(slot).0 * BLOCK as u64;
        match file.read_exact_at(block, start) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            result => result?,
        }
    }
    Ok(blocks)
}
