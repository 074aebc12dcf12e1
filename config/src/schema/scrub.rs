//! Scrubs: when, how fast, and what is done about what is wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default_scrub_latency;
use crate::schedule::Schedule;
use crate::values::{Size, TimeSpan};

/// How all that the members hold is read and compared, by `brindle array scrub` and by schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    /// When it begins by itself, in UTC: `daily 02:00`, `weekly sunday 02:00` or `monthly 1 02:00`. What was missed while
    /// nothing was served is made up for. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Most that is read of each member in a second. Left out: as much as there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Size>,
    /// How long hosts' requests may take on average before the scrub waits between its steps, up to 200ms each; with 0s it
    /// never does.
    #[serde(default = "default_scrub_latency")]
    pub latency: TimeSpan,
    /// What is done about blocks that are wrong.
    #[serde(default)]
    pub repair: Repair,
}

/// What a scrub does about blocks that are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Nothing is written: they are told.
    None,
    /// Blocks that cannot be read, or are known to be the wrong ones (with RAID-6, or three or more mirrors), are put together
    /// from the others. Where nobody can tell which is wrong, that is told and left as it is.
    #[default]
    Located,
    /// And where nobody can tell, data is trusted: parity is computed from it, mirrors become what the first of them is. If it
    /// was the data that was wrong, it stays so.
    Parity,
}
