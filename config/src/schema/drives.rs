//! What is expected of an array's members.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SlowPolicy;
use super::defaults::{default_drive_read_timeout, default_drive_timeout, default_max_read_errors};
use crate::values::TimeSpan;

/// What is expected of an array's members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drives {
    /// Blocks of 4KiB that a member may be unable to read within an hour: each is put together from the others and written
    /// to it again. With one more the member is used no longer, if the array can do without it.
    #[serde(default = "default_max_read_errors")]
    #[schemars(range(max = 10_000))]
    pub max_read_errors: u32,
    /// What happens to a member that takes eight times as long as the others for some seconds.
    #[serde(default)]
    pub slow: SlowPolicy,
    /// How long a host's read waits for a member before it is answered from the others, if they can: from 10ms to 1min.
    #[serde(default = "default_drive_read_timeout")]
    pub read_timeout: TimeSpan,
    /// How long a member may take to answer anything before it is used no longer, if the array can do without it; else that
    /// is told, and what needs the member waits: from 100ms to 10min. Linux tries to bring a drive back after 30 s.
    #[serde(default = "default_drive_timeout")]
    pub timeout: TimeSpan,
    /// What becomes of a drive that appears at the path of a member that is out.
    #[serde(default)]
    pub auto_replace: AutoReplace,
}

/// What becomes of a drive that appears at the path of a member that is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AutoReplace {
    /// It is told, and left alone.
    #[default]
    Off,
    /// It takes a place without a member by itself and is rebuilt, if it bears nothing or was a member of this very array that
    /// went on without it: then, if that can be, only where something was written meanwhile. What bears anything else is left alone.
    SameSlot,
}
