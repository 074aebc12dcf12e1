//! Why the appliance does not serve, in words for the operator.

use std::io;
use std::path::PathBuf;

use config::Size;
use engine::boot::BootError;
use ports::DeviceError;
use runtime::device::MAX_DEVICES;
use runtime::{DeviceOpenError, ListenError, PoolError, RuntimeError};
use thiserror::Error;

use crate::budget::BudgetError;
use crate::check::LoadError;
use crate::control::ControlError;
use crate::events::StoreError;

/// Why the appliance does not serve, or did not stop cleanly. Each says what, where, why, and what to do.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// An address cannot be listened on.
    #[error("listener {name}: {error}")]
    Listen {
        /// Which listener.
        name: String,
        /// Why.
        error: ListenError,
    },
    /// Memory cannot be made read-only.
    #[error("sealed memory: {0}. Or do without, by --sealed off")]
    Sealed(#[from] runtime::sealed::SealError),
    /// The process cannot confine itself.
    #[error("sandbox: {0}. Or do without, by `sandbox: off`")]
    Confine(#[from] runtime::confine::ConfineError),
    /// The system gives no thread.
    #[error("cannot start a thread of the control side: {0}")]
    Thread(#[source] io::Error),
    /// A device cannot be opened.
    #[error(transparent)]
    Open(#[from] DeviceOpenError),
    /// One device has two names.
    #[error(
        "devices {first} and {second} are one and the same: {path}. Each member and log copy needs a device of its own"
    )]
    SameDevice {
        /// A name.
        first: String,
        /// Another.
        second: String,
        /// Where the second one is.
        path: PathBuf,
    },
    /// More than the runtime serves.
    #[error(
        "{declared} devices are declared; at most {MAX_DEVICES} can be served. Serve some arrays from another process"
    )]
    TooManyDevices {
        /// How many.
        declared: usize,
    },
    /// A device does not work.
    #[error("device {name} does not do what it should ({error:?}). Replace it, or leave it out")]
    Device {
        /// Which.
        name: String,
        /// How it fails.
        error: DeviceError,
    },
    /// A device cannot be opened, and the system's word for it does not name it.
    #[error("device {name}: {error}. Check the path and what lies there")]
    OpenNamed {
        /// Which.
        name: String,
        /// Why.
        error: DeviceOpenError,
    },
    /// A device file cannot be made.
    #[error("device {name}: the file {path} cannot be made with {size}: {source}. {help}. Nothing was left behind")]
    CreateFile {
        /// Which device.
        name: String,
        /// Where.
        path: PathBuf,
        /// How large it was to be.
        size: Size,
        /// Why not.
        source: io::Error,
        /// What to do.
        help: &'static str,
    },
    /// A new file cannot be given its name, or an unfinished one removed.
    #[error("the file {path} cannot be put in place: {source}. Look what is there, and start again")]
    Rename {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder cannot be made.
    #[error(
        "the folder {path} of {what} cannot be made: {source}. Correct the path or who may write there, or make the folder"
    )]
    Folder {
        /// What was to lie in it.
        what: String,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A device named as part of an array is another's.
    #[error(
        "array {array}: its configuration names the device {device}, which bears {what}. Nothing was written. Correct the \
         configuration, or start with --force to do without that device"
    )]
    Stranger {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
        /// What it bears.
        what: String,
    },
    /// A device of a new array is not there.
    #[error("array {array} does not exist yet and cannot be made: its device {device} is missing. Check the path")]
    MissingToCreate {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
    },
    /// Block devices are not written to without a word.
    #[error(
        "array {array} does not exist yet, and {device} is a block device: making the array overwrites it. Start with --create \
         if that is meant"
    )]
    NotAllowedToCreate {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
    },
    /// A device bears something.
    #[error(
        "array {array} is on none of its members that are there, and the device {device} bears {what}. Nothing was written. If \
         the array exists, correct its members' paths; else take another device, or start with --force to overwrite it"
    )]
    Bears {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
        /// What.
        what: String,
    },
    /// A namespace names a volume that is not there.
    #[error("volume {volume} does not exist")]
    NoVolume {
        /// Which.
        volume: String,
    },
    /// The subsystems contradict each other.
    #[error("{0}")]
    Export(String),
    /// The devices do not make the array.
    #[error("{0}")]
    Refused(String),
    /// Start-up failed otherwise.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Not enough memory is configured.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The machine has not that much memory.
    #[error(
        "reactors.memory and memory devices take {asked} MiB, and this machine has {available} MiB available. Ask for less"
    )]
    TooMuchMemory {
        /// In mebibytes.
        asked: u64,
        /// In mebibytes.
        available: u64,
    },
    /// The pool cannot be made.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Huge pages are required.
    #[error("reactors.hugepages is `require`, and {0}. Or set it to `try`")]
    HugePages(String),
    /// The history cannot be kept.
    #[error(transparent)]
    Events(#[from] StoreError),
    /// Reactors do not start.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The control side does not start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The stop was not clean.
    #[error("{0}. The log is valid: the next start recovers from it, and nothing that was acknowledged is lost")]
    NotClean(String),
}
