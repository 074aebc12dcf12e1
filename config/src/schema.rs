//! What a configuration may say. The JSON Schema, the reference documentation and the check of a file's shape are all made
//! from these structures: the comments here are what operators read.

mod defaults;
mod drives;
mod log;
mod scrub;

use core::fmt;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use defaults::*;
pub use drives::{AutoReplace, Drives};
pub use log::{Log, LogMode, OnLogLoss, Residency};
pub use scrub::{Repair, Scrub};

use crate::values::{Name, Nqn, Percent, Size, SocketAddress, TimeSpan, VolumePath};

/// An appliance: devices, arrays built of them, and who may use the volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this format.
    pub version: Version,
    /// The appliance's name, for logs and for hosts.
    pub name: Name,
    /// The threads that do the work.
    #[serde(default)]
    pub reactors: Reactors,
    /// Drives, files and memory that arrays and logs are made of. Each belongs to one array or log.
    #[schemars(length(min = 1))]
    pub devices: Vec<Device>,
    /// Arrays with their logs and volumes.
    #[schemars(length(min = 1))]
    pub arrays: Vec<Array>,
    /// Where hosts connect.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// What hosts find there.
    #[schemars(length(min = 1))]
    pub subsystems: Vec<Subsystem>,
    /// The metrics endpoint. Left out: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// The control socket. Left out: there is none, and `brindle status` has nobody to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// The history of what happened and of who changed what.
    #[serde(default)]
    pub events: Events,
    /// What a stray write leads to: a write to memory that is read-only once the appliance serves.
    #[serde(default)]
    pub sealed: SealedMemory,
    /// Whether the process takes from itself what it does not need once its devices are open: privileges, files, system calls.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// Further folders whose files and devices may be opened while serving, for drives that are added later. Those of the
    /// configured devices may always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drive_folders: Vec<PathBuf>,
}

/// Whether the process confines itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// It does, as far as the kernel can.
    #[default]
    On,
    /// It keeps all that it was started with.
    Off,
}

/// What a stray write leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SealedMemory {
    /// It is reported, and the process aborts. Nothing that was acknowledged is lost.
    #[default]
    Kill,
    /// It is reported and counted, and that page becomes writable: for developers.
    Warn,
    /// Nothing: no memory is made read-only.
    Off,
}

/// Version 1, the only one there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version;

impl Version {
    const NUMBER: u64 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::NUMBER)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::NUMBER => Ok(Self),
            other => Err(serde::de::Error::custom(format!("version {other} is not known"))),
        }
    }
}

impl JsonSchema for Version {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": Self::NUMBER })
    }
}

/// The threads that do the work, one pinned to each core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reactors {
    /// The cores to use, one reactor on each. Either this or `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub cores: Option<Vec<u16>>,
    /// How many reactors, on cores of the system's choice. Left out, and no `cores` either: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<u16>,
    /// What a reactor does when there is nothing to do.
    #[serde(default)]
    pub polling: Polling,
    /// With adaptive polling: how long a reactor looks for work before it sleeps.
    #[serde(default = "default_spin")]
    pub spin: TimeSpan,
    /// Memory for data buffers, of all reactors together.
    #[serde(default = "default_memory")]
    pub memory: Size,
    /// Whether that memory is of huge pages.
    #[serde(default)]
    pub hugepages: Hugepages,
}

/// What a reactor does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Polling {
    /// Look for work all the time: lowest latency, a whole core.
    Busy,
    /// Look for a while (`spin`), then sleep until something happens.
    #[default]
    Adaptive,
}

/// Whether buffers are of huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hugepages {
    /// Ordinary pages.
    #[default]
    Off,
    /// Huge pages if there are enough, else ordinary ones.
    Try,
    /// Huge pages, or do not start.
    Require,
}

/// Something that stores blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Device {
    /// A file in a file system. Made when it is missing.
    File {
        /// What the configuration calls it.
        name: Name,
        /// The file, relative to the working directory.
        path: PathBuf,
        /// How large the file is made.
        size: Size,
        /// Whether a write cache that forgets is put in front, to test what depends on flushes.
        #[serde(default)]
        volatile_cache: VolatileCache,
    },
    /// A block device. Written to for the first time only with `--create`, and only when it bears nothing.
    Block {
        /// What the configuration calls it.
        name: Name,
        /// The device's node, better by a name that stays: `/dev/disk/by-id/...`.
        path: PathBuf,
    },
    /// Memory: everything on it is gone when the process ends. For tests and measurements.
    Ram {
        /// What the configuration calls it.
        name: Name,
        /// How much memory.
        size: Size,
        /// Whether a write cache that forgets is put in front, to test what depends on flushes.
        #[serde(default)]
        volatile_cache: VolatileCache,
    },
}

/// A write cache in front of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolatileCache {
    /// What the device itself has.
    #[default]
    None,
    /// What is not flushed is kept in this process only, and lost with it.
    Emulated,
}

/// Devices bound together, with the log in front and the volumes on top.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Array {
    /// The array's name.
    pub name: Name,
    /// How it stores redundancy.
    pub level: Level,
    /// The devices that hold data and parity, by name. Their order matters only when the array is made.
    #[schemars(length(min = 1, max = 32))]
    pub members: Vec<Name>,
    /// Devices that take the place of a member by themselves when one goes out, by name. What they hold is overwritten then;
    /// one that bears something is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub spares: Vec<Name>,
    /// How much goes to one member before the next one's turn: a power of two from 4KiB to 1MiB.
    #[serde(default = "default_chunk")]
    pub chunk: Size,
    /// The write log. Left out: there is none. Then each write waits for a flush of all members, parities or mirrors are
    /// resynced after a crash, and a crash while a member is missing keeps the array from being served without `--force`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// Whether checksums of all blocks are kept beside them, fixed when the array is made. They need a log.
    #[serde(default)]
    pub checksums: Checksums,
    /// What becomes of the array when the last copy of its log is lost.
    #[serde(default)]
    pub on_log_loss: OnLogLoss,
    /// When logged data goes to the members.
    #[serde(default)]
    pub destage: Destage,
    /// What is expected of the members.
    #[serde(default)]
    pub drives: Drives,
    /// How a member that takes the place of another is filled, and how fast dirty zones are resynced without a log.
    #[serde(default)]
    pub rebuild: Rebuild,
    /// How all that the members hold is read and compared now and then.
    #[serde(default)]
    pub scrub: Scrub,
    /// What hosts see, carved from the array.
    #[schemars(length(min = 1))]
    pub volumes: Vec<Volume>,
}

/// How an array stores redundancy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// None, over 1 to 32 members: if one fails, the array has failed.
    Raid0,
    /// Everything on each of 2 to 32 members: all but one may fail.
    Raid1,
    /// One parity block for each row, on the last of 3 to 32 members: any one may fail.
    Raid4,
    /// One parity block for each row, in turns on 3 to 32 members: any one may fail.
    Raid5,
    /// Two parity blocks for each row, in turns on 4 to 32 members: any two may fail.
    Raid6,
    /// Everything on both members of a pair, over 4 to 32 members: one of each pair may fail. Neighbours in the list are pairs.
    Raid10,
}

/// Whether checksums of all blocks are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Checksums {
    /// What a drive gives back is believed.
    #[default]
    Off,
    /// Each block that is read from a drive is compared with what was written there, and put right from the others if it differs.
    On,
}

/// When logged data goes to the members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destage {
    /// How old the oldest data of a stripe may grow before it is written, all of its data or not.
    #[serde(default = "default_age")]
    pub age: TimeSpan,
    /// How long a stripe whose data is all there waits to be overwritten before it is written: at most the age. 0s is not at all.
    #[serde(default = "default_full_stripe_delay")]
    pub full_stripe_delay: TimeSpan,
    /// How full the log may grow before age and delay no longer matter: from 10% to 90%.
    #[serde(default = "default_high_watermark")]
    pub high_watermark: Percent,
    /// The same of the memory for data that is not written yet: from 10% to 90%.
    #[serde(default = "default_memory_watermark")]
    pub memory_watermark: Percent,
}

/// How a member that takes the place of another is filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rebuild {
    /// Most that is written to it in a second. Left out: as much as there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Size>,
    /// How long hosts' requests may take on average before the rebuild waits between its steps, up to 200ms each; with 0s it
    /// never does.
    #[serde(default = "default_rebuild_latency")]
    pub latency: TimeSpan,
}

/// What happens to a member that is much slower than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlowPolicy {
    /// It is told: events, metrics, status.
    #[default]
    Warn,
    /// It is used no longer, if the array can do without it.
    Fail,
}

/// What hosts see as a drive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The volume's name, unique in its array.
    pub name: Name,
    /// How large it is: whole blocks of 4KiB.
    pub size: Size,
    /// In what units hosts address it; it never changes. Writes of parts of 4KiB are slower: what lies beside them is read.
    #[serde(default)]
    pub logical_block: LogicalBlock,
}

/// In what units hosts address a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LogicalBlock {
    /// Sectors of 512 bytes, for hosts that know no others.
    #[serde(rename = "512B")]
    Sector,
    /// Blocks of 4096 bytes.
    #[default]
    #[serde(rename = "4KiB")]
    Block,
}

/// Where hosts connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The listener's name.
    pub name: Name,
    /// What is spoken.
    pub protocol: Protocol,
    /// The address and port. NVMe over TCP has port 4420 by custom.
    pub address: SocketAddress,
    /// How long a host's system may give no sign of life: from 3s to 1h. TCP asks after half of it and gives up at its end,
    /// also on what it could not send; a host that takes no replies has as long, one that owes data twice. The Keep Alive
    /// Timeout that a host asks for holds beside it, as asked: whichever is over first ends the association. A host that asks
    /// for none may say nothing for as long as its system answers.
    #[serde(default = "default_silence")]
    pub silence: TimeSpan,
    /// What becomes of connections whose local address, link or route is gone.
    #[serde(default)]
    pub on_address_loss: OnAddressLoss,
    /// How long it may be gone before that: at most 1min.
    #[serde(default = "default_address_grace")]
    pub address_grace: TimeSpan,
}

/// What becomes of connections whose local address, link or route is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnAddressLoss {
    /// They are destroyed, so that hosts move to another path at once.
    #[default]
    Destroy,
    /// They stay until they fall silent.
    Keep,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// NVM Express over TCP, discovery included.
    NvmeTcp,
}

/// A set of volumes under one NVMe name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subsystem {
    /// The name that hosts connect to.
    pub nqn: Nqn,
    /// The listeners that it is reached by, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// Who may connect.
    pub hosts: Hosts,
    /// The volumes in it.
    #[schemars(length(min = 1))]
    pub namespaces: Vec<Namespace>,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Hosts {
    /// Every host that reaches the listener.
    Any(AnyHost),
    /// The hosts of these names.
    Listed(#[schemars(length(min = 1))] Vec<Nqn>),
}

/// The word for every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnyHost {
    /// Every host that reaches the listener.
    Any,
}

/// A volume in a subsystem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// The namespace identifier, unique in the subsystem.
    #[schemars(range(min = 1, max = 1024))]
    pub nsid: u32,
    /// The volume, as array/volume.
    pub volume: VolumePath,
}

/// The metrics endpoint: `/metrics` for Prometheus, `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The address and port. It has no access control: keep it on loopback or a management network.
    pub address: SocketAddress,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The unix socket, relative to the working directory; only its owner may use it.
    pub socket: PathBuf,
}

/// The history of what happened to arrays, drives, logs and hosts, and of who changed what: `brindle events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The folder that keeps it, relative to the working directory; better one that outlives a restart of the machine. Left
    /// out: beside the control socket, under its name with the ending `.events`; without a control socket none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How much is kept at most, from 64KiB on. At least the newer half of it is always there.
    #[serde(default = "default_events_size")]
    pub max_size: Size,
}

impl Config {
    /// The folder of the history, if there is one. `socket` is the control socket.
    pub fn events_folder(&self, socket: Option<&Path>) -> Option<PathBuf> {
        self.events.path.clone().or_else(|| socket.map(|socket| socket.with_extension("events")))
    }
}

impl Level {
    /// The level of a name.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let name: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
        Self::deserialize(name).ok()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Reactors {
    /// How many reactors.
    pub fn count(&self) -> u16 {
        match &self.cores {
            Some(cores) => cores.len() as u16,
            None => self.count.unwrap_or(1),
        }
    }
}

impl Device {
    /// What the configuration calls it.
    pub const fn name(&self) -> &Name {
        match self {
            Self::File { name, .. } | Self::Block { name, .. } | Self::Ram { name, .. } => name,
        }
    }

    /// Where it is in the file system; memory is nowhere.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Block { path, .. } => Some(path),
            Self::Ram { .. } => None,
        }
    }

    /// The size it is given; a block device has its own.
    pub const fn size(&self) -> Option<Size> {
        match self {
            Self::File { size, .. } | Self::Ram { size, .. } => Some(*size),
            Self::Block { .. } => None,
        }
    }
}

impl Hosts {
    /// Whether a host of this name may connect.
    pub fn admits(&self, host: &str) -> bool {
        match self {
            Self::Any(_) => true,
            Self::Listed(hosts) => hosts.iter().any(|nqn| nqn.as_str() == host),
        }
    }
}
