//! A device as `brindle status` shows it: what it is for, what went wrong with it, and what it has not answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::status::duration;

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// `file`, `block` or `ram`.
    pub kind: String,
    /// Where it is; empty for memory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What it is for, such as `a0 member 1`.
    pub role: String,
    /// `active`, `rebuilding`, `spare`, `excluded` (it takes no part), `missing` (nothing is at its path), `wiping` or `unused` (no array
    /// names it).
    pub state: String,
    /// Whether it is much slower than the other members of its array.
    #[serde(default)]
    pub slow: bool,
    /// Whether hosts' reads go on without it where others can answer, as it has kept one waiting.
    #[serde(default)]
    pub late: bool,
    /// Whether it hangs: it has not answered something in time.
    #[serde(default)]
    pub hangs: bool,
    /// What it has not answered yet, if that takes a second or longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<DeviceWaits>,
    /// What went wrong with it since the start of the process.
    #[serde(default)]
    pub errors: DeviceErrors,
}

impl DeviceStatus {
    /// Its state, and what is wrong with it.
    pub(crate) fn state_in_words(&self) -> String {
        let mut words = self.state.clone();
        for (is_so, word) in [(self.slow, "slow"), (self.late, "late"), (self.hangs, "hangs")] {
            if is_so {
                words += ", ";
                words += word;
            }
        }
        if let Some(waits) = &self.waits {
            words += &format!(" ({waits})");
        }
        words
    }
}

/// Requests that a device has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceWaits {
    /// How many.
    pub requests: u64,
    /// Those of them that nobody waits for any more: their buffers stay taken until the device answers.
    pub given_up: u64,
    /// How long it has had the oldest.
    pub oldest_seconds: f64,
}

impl fmt::Display for DeviceWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = if self.requests == 1 { "request" } else { "requests" };
        write!(f, "{} {requests} unanswered for {}", self.requests, duration(self.oldest_seconds))?;
        if self.given_up > 0 { write!(f, ", {} given up", self.given_up) } else { Ok(()) }
    }
}

/// What went wrong with a device since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceErrors {
    /// Requests that were tried again after an error that might pass.
    pub retries: u64,
    /// Blocks that could not be read.
    pub unreadable_blocks: u64,
    /// Blocks that it gave back otherwise than they were written, as their checksums say.
    #[serde(default)]
    pub wrong_blocks: u64,
    /// Such blocks that were put together from the other members, written again and read back.
    pub corrected_blocks: u64,
    /// Such blocks that it did not take back.
    pub uncorrected_blocks: u64,
}

impl fmt::Display for DeviceErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retries, unreadable_blocks, wrong_blocks, corrected_blocks, uncorrected_blocks } = *self;
        let counts = [
            (unreadable_blocks, "unreadable"),
            (wrong_blocks, "wrong"),
            (corrected_blocks, "corrected"),
            (uncorrected_blocks, "not corrected"),
            (retries, "tried again"),
        ];
        let said: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&said.join(", "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A member with all that can be said of one.
    pub(crate) fn example() -> DeviceStatus {
        DeviceStatus {
            name: "d0".into(),
            kind: "file".into(),
            path: "brindle-demo/d0.img".into(),
            bytes: 256 << 20,
            role: "a0 member 0".into(),
            state: "active".into(),
            slow: true,
            errors: DeviceErrors { unreadable_blocks: 3, corrected_blocks: 2, ..Default::default() },
            ..Default::default()
        }
    }

    #[test]
    fn a_member_that_hangs_says_what_it_owes() {
        let waits = Some(DeviceWaits { requests: 3, given_up: 2, oldest_seconds: 8.9 });
        let device = DeviceStatus { slow: false, late: true, hangs: true, waits, ..example() };
        assert_eq!(device.state_in_words(), "active, late, hangs (3 requests unanswered for 8 s, 2 given up)");
        let waits = Some(DeviceWaits { requests: 1, given_up: 0, oldest_seconds: 61.0 });
        let device = DeviceStatus { slow: false, waits, ..example() };
        assert_eq!(device.state_in_words(), "active (1 request unanswered for 1 min 1 s)");
    }

    #[test]
    fn what_earlier_versions_say_is_understood() {
        let text = r#"{"name":"d","kind":"ram","path":"","bytes":1,"role":"","state":"unused"}"#;
        let device: DeviceStatus = serde_json::from_str(text).unwrap();
        assert!(!device.hangs && device.waits.is_none() && device.state_in_words() == "unused");
    }
}
