//! How the appliance is: what `brindle status` shows. Plain values that whoever serves fills in; here they become JSON or
//! tables. The JSON is a public interface: fields are added, never renamed.

use std::fmt::{self, Write as _};

use raid::ScrubCounts;
use serde::{Deserialize, Serialize};

use crate::connections::{self, ConnectionStatus};
use crate::device_status::DeviceStatus;
use crate::memory_status::{MemoryStatus, SandboxStatus};

/// The whole appliance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The appliance's name.
    pub name: String,
    /// The release.
    pub version: String,
    /// The serving process.
    pub process: u32,
    /// Seconds since it was started.
    pub uptime_seconds: f64,
    /// Whether it serves hosts.
    pub ready: bool,
    /// Reactors in order.
    pub reactors: Vec<ReactorStatus>,
    /// Devices in the order of the configuration.
    pub devices: Vec<DeviceStatus>,
    /// Arrays in the order of the configuration.
    pub arrays: Vec<ArrayStatus>,
    /// Volumes of all arrays.
    pub volumes: Vec<VolumeStatus>,
    /// Where hosts connect.
    pub listeners: Vec<ListenerStatus>,
    /// Hosts' connections.
    pub connections: Vec<ConnectionStatus>,
    /// Memory that is read-only while serving.
    #[serde(default)]
    pub memory: MemoryStatus,
    /// How the process is confined.
    #[serde(default)]
    pub sandbox: SandboxStatus,
    /// Those that have ended lately.
    #[serde(default)]
    pub ended_connections: Vec<ConnectionStatus>,
}

/// A reactor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReactorStatus {
    /// Its number.
    pub reactor: u16,
    /// The core that it is pinned to.
    pub core: u32,
    /// The share of its time, since the start, in turns that did something: 0 to 1.
    pub busy_ratio: f64,
    /// Turns of its loop.
    pub turns: u64,
    /// How often it slept in the kernel.
    pub sleeps: u64,
    /// Connections that live on it.
    pub connections: u64,
    /// Requests under way.
    pub requests: u64,
}

/// An array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArrayStatus {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// `raid0`, `raid1`, `raid4`, `raid5`, `raid6` or `raid10`.
    pub level: String,
    /// `optimal`; `degraded` while a member or log copy takes no part or a member is being rebuilt; `exposed`, perhaps degraded
    /// too, without a log that was lost; `draining` on the way to that; `read-only` or `failed`.
    pub state: String,
    /// How often something was excluded, and more.
    pub epoch: u64,
    /// Bytes to one member before the next one's turn.
    pub chunk_bytes: u64,
    /// Space for volumes.
    pub capacity_bytes: u64,
    /// Slots whose member takes no part.
    pub missing_members: Vec<u8>,
    /// The member that is being rebuilt, if one is.
    #[serde(default)]
    pub rebuild: Option<RebuildStatus>,
    /// How far the array is, if it gets a further member.
    #[serde(default)]
    pub growth: Option<GrowthStatus>,
    /// The last scrub, if there was one.
    #[serde(default)]
    pub scrub: Option<ScrubStatus>,
    /// The resync after a crash, if one is due or under way: of an array without a log.
    #[serde(default)]
    pub resync: Option<ResyncStatus>,
    /// Slots whose members are much slower than the others.
    #[serde(default)]
    pub slow_members: Vec<u8>,
    /// Slots whose members have kept a host's read waiting: others are asked until they have answered everything.
    #[serde(default)]
    pub late_members: Vec<u8>,
    /// Stripes that cannot be destaged, because old content that their parity needs cannot be had.
    #[serde(default)]
    pub blocked_stripes: u64,
    /// Data of such stripes that stays in the log.
    #[serde(default)]
    pub blocked_bytes: u64,
    /// Its log, if it has one.
    pub log: Option<LogStatus>,
}

/// A member that is being rebuilt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RebuildStatus {
    /// Its slot.
    pub member: u8,
    /// How much of it is current.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it goes, on average since it began or the process was started.
    pub bytes_per_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
    /// Whether it was told to wait.
    pub paused: bool,
    /// The drive that becomes the like of the member, which is in use, to take its place; none if the member itself is filled.
    #[serde(default)]
    pub successor: Option<String>,
}

/// An array that gets a further member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GrowthStatus {
    /// Its slot.
    pub member: u8,
    /// `growing`, `paused`, or `waiting` for the array to be whole and to have a log, or for what keeps data from moving
    /// (`growth.blocked`).
    pub state: String,
    /// How much of each member lies as it is to lie.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it goes, on average since it began or the process was started.
    pub bytes_per_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
}

/// The last scrub of an array, be it under way or over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// `running`, `waiting` (for a rebuild, or for members to compare with), `paused`, `ended` or `stopped`.
    pub state: String,
    /// What is done about blocks that are wrong: `none`, `located` or `parity`.
    pub repair: String,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How much of each member was seen.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it goes, on average since it began or the process was started.
    pub bytes_per_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
    /// What was found, and done about it.
    #[serde(flatten)]
    pub counts: ScrubCounts,
}

impl ScrubStatus {
    /// How far it is, for people.
    pub(crate) fn done(&self) -> String {
        let percent = 100 * u128::from(self.done_bytes) / u128::from(self.bytes.max(1));
        format!("{} of {} ({percent}%)", size(self.done_bytes), size(self.bytes))
    }

    /// What it found, for people.
    pub(crate) fn found(&self) -> String {
        let counts = &self.counts;
        let counts = [
            (counts.mismatched_stripes, "stripes that do not agree"),
            (counts.located_blocks, "blocks located"),
            (counts.unlocated_stripes, "stripes not located"),
            (counts.unreadable_blocks, "blocks unreadable"),
            (counts.repaired_blocks, "blocks repaired"),
            (counts.unrepaired_blocks, "blocks repaired in vain"),
            (counts.skipped_stripes, "stripes not looked at"),
        ];
        let said: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if said.is_empty() { "nothing wrong".to_owned() } else { said.join(", ") }
    }
}

/// A resync after a crash, of an array without a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResyncStatus {
    /// How much of each member matches again.
    pub done_bytes: u64,
    /// How much it is in all.
    pub bytes: u64,
    /// How fast it goes, on average.
    pub bytes_per_second: u64,
    /// How long it will take at that rate, if it has one.
    pub seconds_left: Option<u64>,
}

/// The log of an array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogStatus {
    /// `write-back` or `write-through`.
    pub mode: String,
    /// Copies that there are or should be.
    pub copies: u8,
    /// Copies that take no part.
    pub missing_copies: Vec<u8>,
    /// Independent rings.
    pub lanes: u16,
    /// Space between tails and heads.
    pub used_bytes: u64,
    /// Space of all lanes.
    pub capacity_bytes: u64,
    /// Acknowledged and not yet on the members.
    pub dirty_bytes: u64,
    /// Of that: what has left memory, and the copies of the log alone have.
    #[serde(default)]
    pub logged_bytes: u64,
    /// The drive that is becoming a copy, if one is.
    #[serde(default)]
    pub attach: Option<AttachStatus>,
}

/// A drive on its way to be a copy of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AttachStatus {
    /// Its place among the copies.
    pub copy: u8,
    /// The drive.
    pub drive: String,
    /// How much of it was erased, of so much.
    pub erased_bytes: u64,
    /// See `erased_bytes`.
    pub bytes: u64,
    /// Reactors that hold more in the log than the drive has yet.
    pub reactors_behind: u16,
}

impl AttachStatus {
    /// How far it is, in words.
    pub fn in_words(&self) -> String {
        if self.erased_bytes < self.bytes {
            return format!("{} of {} erased", size(self.erased_bytes), size(self.bytes));
        }
        format!("in step with the others; {} reactors hold what was logged before", self.reactors_behind)
    }
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its array.
    pub array: String,
    /// Its name in it.
    pub name: String,
    /// Its identity, as hosts see it.
    pub uuid: String,
    /// Its size.
    pub bytes: u64,
    /// The unit in which hosts address it.
    #[serde(default)]
    pub logical_block_bytes: u32,
    /// The subsystem that has it as a namespace, or empty.
    pub subsystem: String,
    /// The namespace identifier there, or 0.
    pub nsid: u32,
    /// `ready`; `copying` while another is copied into it; `cleaning` while the space that it had, deleted, is zeroed.
    #[serde(default)]
    pub state: String,
    /// How far that is: 0 to 1, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Who made it: `config` or `runtime`.
    #[serde(default)]
    pub origin: String,
}

impl VolumeStatus {
    /// Its state, and how far.
    pub(crate) fn state_in_words(&self) -> String {
        match self.progress {
            Some(progress) => format!("{} {:.0}%", self.state, progress * 100.0),
            None => self.state.clone(),
        }
    }
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// What is spoken.
    pub protocol: String,
    /// Where.
    pub address: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.ready { "serving" } else { "not serving yet" };
        let up = duration(self.uptime_seconds);
        writeln!(f, "{}: {ready}, brindle {}, process {}, up {up}", self.name, self.version, self.process)?;
        f.write_str(&self.reactors())?;
        f.write_str(&self.devices())?;
        f.write_str(&self.arrays())?;
        f.write_str(&self.volumes())?;
        f.write_str(&self.listeners())?;
        f.write_str(&self.connections())
    }
}

impl Status {
    fn reactors(&self) -> String {
        let rows = self.reactors.iter().map(|r| {
            let busy = format!("{:.0}%", r.busy_ratio * 100.0);
            row([&r.reactor, &r.core, &busy, &r.turns, &r.sleeps, &r.connections, &r.requests])
        });
        table("Reactors", &["#", "core", "busy", "turns", "sleeps", "connections", "requests"], rows)
    }

    fn devices(&self) -> String {
        let rows = self
            .devices
            .iter()
            .map(|d| row([&d.name, &d.kind, &size(d.bytes), &d.role, &d.state_in_words(), &d.errors, &d.path]));
        table("Devices", &["name", "kind", "size", "role", "state", "errors", "path"], rows)
    }

    fn arrays(&self) -> String {
        let rows = self.arrays.iter().map(|a| {
            let missing = list(&a.missing_members);
            row([
                &a.name,
                &a.level,
                &a.state,
                &size(a.capacity_bytes),
                &size(a.chunk_bytes),
                &a.epoch,
                &missing,
                &a.uuid,
            ])
        });
        let heads = ["name", "level", "state", "capacity", "chunk", "epoch", "missing members", "uuid"];
        let mut out = table("Arrays", &heads, rows);
        let rebuilds = self.arrays.iter().filter_map(|a| a.rebuild.as_ref().map(|rebuild| (a, rebuild)));
        let rebuilds = rebuilds.map(|(a, rebuild)| {
            let percent = 100 * u128::from(rebuild.done_bytes) / u128::from(rebuild.bytes.max(1));
            let done = format!("{} of {} ({percent}%)", size(rebuild.done_bytes), size(rebuild.bytes));
            let left = match rebuild.seconds_left {
                _ if rebuild.paused => "paused".to_owned(),
                Some(seconds) => duration(seconds as f64),
                None => "-".to_owned(),
            };
            let member = match &rebuild.successor {
                Some(drive) => format!("{} ({drive} to succeed)", rebuild.member),
                None => rebuild.member.to_string(),
            };
            row([&a.name, &member, &done, &format!("{}/s", size(rebuild.bytes_per_second)), &left])
        });
        out += &table("Rebuilds", &["array", "member", "done", "rate", "left"], rebuilds);
        let growths = self.arrays.iter().filter_map(|a| a.growth.as_ref().map(|growth| (a, growth)));
        let growths = growths.map(|(a, growth)| {
            let percent = 100 * u128::from(growth.done_bytes) / u128::from(growth.bytes.max(1));
            let done = format!("{} of {} ({percent}%)", size(growth.done_bytes), size(growth.bytes));
            let left = growth.seconds_left.filter(|_| growth.state == "growing");
            let left = left.map_or_else(|| growth.state.clone(), |seconds| duration(seconds as f64));
            row([&a.name, &growth.member, &done, &format!("{}/s", size(growth.bytes_per_second)), &left])
        });
        out += &table("Further members", &["array", "member", "moved", "rate", "left"], growths);
        let scrubs = self.arrays.iter().filter_map(|a| a.scrub.as_ref().map(|scrub| (a, scrub)));
        let scrubs = scrubs.map(|(a, scrub)| {
            let left = scrub.seconds_left.map_or_else(|| "-".to_owned(), |seconds| duration(seconds as f64));
            row([&a.name, &scrub.state, &scrub.repair, &scrub.done(), &left, &scrub.found()])
        });
        out += &table("Scrubs", &["array", "state", "repair", "done", "left", "found"], scrubs);
        let resyncs = self.arrays.iter().filter_map(|a| a.resync.as_ref().map(|resync| (a, resync)));
        let resyncs = resyncs.map(|(a, resync)| {
            let percent = 100 * u128::from(resync.done_bytes) / u128::from(resync.bytes.max(1));
            let done = format!("{} of {} ({percent}%)", size(resync.done_bytes), size(resync.bytes));
            let left = resync.seconds_left.map_or_else(|| "-".to_owned(), |seconds| duration(seconds as f64));
            row([&a.name, &done, &format!("{}/s", size(resync.bytes_per_second)), &left])
        });
        out += &table("Resyncs", &["array", "done", "rate", "left"], resyncs);
        let logs = self.arrays.iter().filter_map(|a| a.log.as_ref().map(|log| (a, log))).map(|(a, log)| {
            let percent = 100 * u128::from(log.used_bytes) / u128::from(log.capacity_bytes.max(1));
            let used = format!("{} of {} ({percent}%)", size(log.used_bytes), size(log.capacity_bytes));
            let missing = list(&log.missing_copies);
            row([
                &a.name,
                &log.mode,
                &log.copies,
                &missing,
                &log.lanes,
                &used,
                &size(log.dirty_bytes),
                &size(log.logged_bytes),
            ])
        });
        out += &table(
            "Logs",
            &["array", "mode", "copies", "missing copies", "lanes", "used", "dirty", "in the log alone"],
            logs,
        );
        let blocked = self.arrays.iter().filter(|a| a.blocked_stripes > 0);
        let mut blocked = blocked.map(|a| row([&a.name, &a.blocked_stripes, &size(a.blocked_bytes)])).peekable();
        if blocked.peek().is_some() {
            out += &table("Stripes that cannot be destaged", &["array", "stripes", "in the log"], blocked);
        }
        let joining = self.arrays.iter().filter_map(|a| Some((a, a.log.as_ref()?.attach.as_ref()?)));
        let mut joining =
            joining.map(|(a, attach)| row([&a.name, &attach.drive, &attach.copy, &attach.in_words()])).peekable();
        if joining.peek().is_some() {
            out += &table("New log copies", &["array", "drive", "copy", "how far"], joining);
        }
        out
    }

    fn volumes(&self) -> String {
        let rows = self.volumes.iter().map(|v| {
            let (nsid, name) =
                (if v.nsid == 0 { "-".to_owned() } else { v.nsid.to_string() }, format!("{}/{}", v.array, v.name));
            row([&name, &size(v.bytes), &v.state_in_words(), &nsid, &v.subsystem, &v.uuid])
        });
        table("Volumes", &["name", "size", "state", "nsid", "subsystem", "uuid"], rows)
    }

    fn listeners(&self) -> String {
        let rows = self.listeners.iter().map(|l| row([&l.name, &l.protocol, &l.address]));
        table("Listeners", &["name", "protocol", "address"], rows)
    }

    fn connections(&self) -> String {
        connections::show("Connections", &self.connections)
    }
}

pub(crate) fn row<const N: usize>(cells: [&dyn fmt::Display; N]) -> Vec<String> {
    // An empty cell would look like a shifted row.
    cells
        .iter()
        .map(ToString::to_string)
        .map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(&cell) })
        .collect()
}

/// What hosts sent is shown on terminals: control characters are replaced.
pub(crate) fn printable(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A title and aligned columns.
pub(crate) fn table(title: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.collect();
    let mut out = format!("\n{title}\n");
    if rows.is_empty() {
        out.push_str("  none\n");
        return out;
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(heads[column].chars().count())
    };
    let heads: Vec<_> = heads.iter().map(ToString::to_string).collect();
    for row in [&heads].into_iter().chain(&rows) {
        let mut line = String::from("  ");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<width$}  ", width = width(column));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn list(items: &[u8]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A size with three digits or so.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value.fract() != 0.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

pub(crate) fn duration(seconds: f64) -> String {
    // As a cast from float to integer saturates, no number from elsewhere can do harm.
    let seconds = seconds as u64;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
