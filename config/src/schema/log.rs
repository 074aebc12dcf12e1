//! The write log of an array, and what becomes of data in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{default_lanes, default_log_timeout};
use crate::limits::DEFAULT_INDEX_BYTES;
use crate::values::{Name, Size, TimeSpan};

/// The write log of an array.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The devices that hold a copy each, by name: fast ones that keep what was written when power fails.
    #[schemars(length(min = 1, max = 4))]
    pub devices: Vec<Name>,
    /// When a write is acknowledged. Left out: as the log itself says, which `brindle log mode` changes; a new log is
    /// `write-back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LogMode>,
    /// How long a log device may take for one write before it counts as failed and the array goes on without it: from 100ms
    /// to 1min. A host waits up to 30 s before it gives a connection up, and two log devices may fail one after the other.
    #[serde(default = "default_log_timeout")]
    pub timeout: TimeSpan,
    /// Independent rings in the log, fixed when it is made: at least the number of reactors.
    #[serde(default = "default_lanes")]
    #[schemars(range(min = 1, max = 256))]
    pub lanes: u16,
    /// Where data is kept that the members do not have yet.
    #[serde(default)]
    pub residency: Residency,
    /// With `residency: log`: memory for knowing what the log has, beside `reactors.memory`, from 1MiB to 64GiB; some 200 bytes for each
    /// 4KiB that may wait for the members. Left out: 64MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Size>,
}

impl Log {
    /// Memory beside the pool for knowing what the log has, in bytes.
    pub fn index_bytes(&self) -> u64 {
        match self.residency {
            Residency::Memory => 0,
            Residency::Log => self.index.map_or(DEFAULT_INDEX_BYTES, |index| index.bytes()),
        }
    }
}

/// Where data is kept that the members do not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Residency {
    /// In the log and in memory: there is as much of it as fits both.
    #[default]
    Memory,
    /// In the log, and in memory as long as that is not scarce (`destage.memory_watermark`): what comes then leaves memory once two
    /// copies of the log have it, and is read back for the members. With one copy everything stays in memory.
    Log,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogMode {
    /// Once every log copy holds it.
    #[default]
    WriteBack,
    /// Once the members hold it, too: slower, but a lost log loses nothing.
    WriteThrough,
}

/// What becomes of an array when the last copy of its log is lost. It is told in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLogLoss {
    /// Reads go on, also of what only memory holds; writes are refused as write protected.
    #[default]
    ReadOnly,
    /// Nothing is served any more: reads and writes are refused as not ready.
    Stop,
    /// Writes go on without a log, exposed to the write hole; while members are missing as `read-only`. Not with checksums.
    WriteThroughExposed,
}
