//! The command line. It says what can be asked for, and nothing of how it is done.

mod array;
mod log;

use std::path::PathBuf;

use base::sector::LogicalBlock;
use clap::{Args, Parser, Subcommand, ValueEnum};
use config::{Size, TimeSpan};

use crate::connections::{End, SortKey};
use crate::events::{self, Severity};
pub use array::{ArrayCommand, RebuildAction, RepairChoice, ScrubAction};
pub use log::{LogCommand, LogMode, Taking};

/// A storage appliance: RAID with a write log, served over NVMe/TCP, from one YAML file.
#[derive(Debug, Parser)]
#[command(name = "brindle", version, max_term_width = 100, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve hosts until asked to stop (SIGTERM, or Ctrl-C).
    Serve(ServeOptions),
    /// Show the main job: serve, write, die in mid-write, come back, verify; then go on serving.
    Demo(DemoOptions),
    /// Check a configuration and list all that is wrong with it.
    Check {
        /// The configuration.
        file: PathBuf,
    },
    /// Print the JSON Schema (draft-07) of configurations, for editors.
    Schema,
    /// Ask a serving process how it is.
    Status(StatusOptions),
    /// Hosts' connections: list them, or end them.
    #[command(args_conflicts_with_subcommands = true)]
    Connections(Box<ConnectionsOptions>),
    /// Watch connections, volumes and reactors.
    Top(TopOptions),
    /// Drives: members of arrays and log copies.
    #[command(subcommand)]
    Drive(DriveCommand),
    /// Logs of arrays: their copies come and go while hosts go on.
    #[command(subcommand)]
    Log(LogCommand),
    /// Arrays.
    #[command(subcommand)]
    Array(ArrayCommand),
    /// Volumes: made, grown, renamed, copied and deleted while hosts go on.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// What happened, and who changed what.
    Events(EventsOptions),
    /// Print the version.
    Version,
}

/// What can be done with drives.
#[derive(Debug, Subcommand)]
pub enum DriveCommand {
    /// Keep a declared drive that nothing uses as a spare of an array: it takes the place of a member that goes out.
    Add {
        /// The drive, as the configuration calls it.
        name: String,
        /// The array.
        #[arg(long, value_name = "ARRAY")]
        array: String,
        /// Also if the drive bears something, which is lost.
        #[arg(long)]
        force: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Put a declared drive that nothing uses in the place of another: of one that is out, and is rebuilt from the others; or of one
    /// that is in use, which stays so until the new drive is its like, so that nothing is ever missing.
    Replace {
        /// The drive that is out, or is to go.
        old: String,
        /// The drive that takes its place.
        new: String,
        /// Also if that drive bears something, which is lost.
        #[arg(long)]
        force: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Give its place back to a drive that was out, with what it holds: only what was written since it went out is rebuilt. Refused,
    /// with the reason, if nobody knows what that is: then `drive replace NAME NAME` has all of it rebuilt.
    Return {
        /// The drive, as the configuration calls it.
        name: String,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Erase what a declared drive bears that nothing uses: all of it reads as zeros then. Drives that are in use are refused.
    Wipe {
        /// The drive, as the configuration calls it.
        name: String,
        /// Only what says that the drive bears something: its superblocks, signatures and partition tables.
        #[arg(long, conflicts_with = "secure")]
        quick: bool,
        /// Ask a block device to erase also what it keeps in cells that cannot be addressed (BLKSECDISCARD). Few can; if it
        /// cannot, zeros are all there is, and that is said.
        #[arg(long)]
        secure: bool,
        /// Do not wait for its end.
        #[arg(long)]
        no_wait: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Switch the light of a drive's slot in its enclosure, so that it is found.
    Locate {
        /// The drive, as the configuration calls it.
        name: String,
        /// Whether it is to shine.
        #[arg(value_enum)]
        light: Light,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Look now for declared drives that have appeared, or are gone; else that is done every two seconds.
    Rescan {
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Use a drive no longer: its array goes on without it, degraded. A drive that was to succeed another is let go.
    Fail {
        /// The drive, as the configuration calls it.
        name: String,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
}

/// A light.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Light {
    /// It shines.
    On,
    /// It does not.
    Off,
}

/// What can be done with volumes. A volume is named as array/volume, such as a0/v0.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Show all volumes, and the space for more.
    List {
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Make a volume. It reads as zeros, and outlives restarts.
    Create {
        /// The new volume.
        volume: String,
        /// How large it is: whole blocks of 4KiB, such as 10GiB.
        #[arg(long, value_parser = size)]
        size: Size,
        /// In what units hosts address it; it never changes.
        #[arg(long, value_name = "512B|4KiB", default_value = "4KiB", value_parser = logical_block)]
        logical_block: LogicalBlock,
        /// The subsystem in which hosts find it, by its NQN. They need not reconnect.
        #[arg(long, value_name = "NQN")]
        subsystem: Option<String>,
        /// The namespace identifier there. Left out: the lowest that is free.
        #[arg(long, requires = "subsystem")]
        nsid: Option<u32>,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Make a volume larger. Hosts see it at once.
    Grow {
        /// The volume.
        volume: String,
        /// Its new size.
        #[arg(long, value_parser = size)]
        size: Size,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Give a volume another name. Hosts know it by its identities, which stay.
    Rename {
        /// The volume.
        volume: String,
        /// Its new name, without the array.
        name: String,
        /// Also one that the configuration names: change it there too.
        #[arg(long)]
        force: bool,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Have hosts find a volume in a subsystem.
    Export {
        /// The volume.
        volume: String,
        /// The subsystem, by its NQN.
        #[arg(long, value_name = "NQN")]
        subsystem: String,
        /// The namespace identifier there. Left out: the lowest that is free.
        #[arg(long)]
        nsid: Option<u32>,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Delete a volume and all that is in it.
    Delete {
        /// The volume.
        volume: String,
        /// Also one that connected hosts see, or that the configuration names and the next start makes again, empty.
        #[arg(long)]
        force: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Copy a volume to a new one. Whoever writes to it meanwhile spoils the copy.
    Copy {
        /// The volume.
        volume: String,
        /// The new one, also of another array.
        copy: String,
        /// The subsystem in which hosts find the copy once it is whole, by its NQN.
        #[arg(long, value_name = "NQN")]
        subsystem: Option<String>,
        /// The namespace identifier there. Left out: the lowest that is free.
        #[arg(long, requires = "subsystem")]
        nsid: Option<u32>,
        /// Do not wait for its end.
        #[arg(long)]
        no_wait: bool,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
}

/// A size as configurations have it.
fn size(text: &str) -> Result<Size, String> {
    serde_json::from_value(text.into()).map_err(|error: serde_json::Error| error.to_string())
}

/// The unit in which hosts address a volume, as configurations have it.
fn logical_block(text: &str) -> Result<LogicalBlock, String> {
    match text {
        "512B" => Ok(LogicalBlock::Sector),
        "4KiB" => Ok(LogicalBlock::Block),
        _ => Err("logical blocks have 512B or 4KiB".to_owned()),
    }
}

/// Which events to show, and how.
#[derive(Clone, Debug, Args)]
pub struct EventsOptions {
    /// Go on showing events as they happen.
    #[arg(long, short)]
    pub follow: bool,
    /// From then on: how long ago, such as 2h, or a time in UTC, such as 2026-01-31 or 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<String>,
    /// Only of this array.
    #[arg(long, value_name = "ARRAY")]
    pub array: Option<String>,
    /// At least so severe: info, notice, warning or error.
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    pub severity: Option<Severity>,
    /// The newest so many.
    #[arg(long, value_name = "COUNT", default_value_t = crate::events::book::LISTED as u32,
          value_parser = clap::value_parser!(u32).range(1..=crate::events::book::MAX_LISTED as i64))]
    pub limit: u32,
    /// Whom to ask. With --json each event is an object on a line of its own.
    #[command(flatten)]
    pub server: Server,
}

/// Which connections to show and how, or what to do with them.
#[derive(Debug, Args)]
pub struct ConnectionsOptions {
    /// What to do with them.
    #[command(subcommand)]
    pub action: Option<ConnectionsAction>,
    /// Only those of this host.
    #[arg(long, value_name = "NQN")]
    pub host: Option<String>,
    /// Only those whose host's end is this.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub peer: Option<End>,
    /// Only those whose own end is this.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub local: Option<End>,
    /// Only those to this subsystem.
    #[arg(long, value_name = "NQN")]
    pub target: Option<String>,
    /// What they are sorted by.
    #[arg(long, value_enum, default_value_t, value_name = "KEY")]
    pub sort: SortKey,
    /// Those that have ended lately, and why.
    #[arg(long)]
    pub ended: bool,
    /// Show them again and again, at this interval.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", value_parser = time_span)]
    pub watch: Option<TimeSpan>,
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}

/// A time ago or a time, as events have it.
fn since(text: &str) -> Result<String, String> {
    if events::clock::is_time(text) {
        return Ok(text.to_owned());
    }
    let ago = time_span(text)
        .map_err(|_| "neither a time in UTC, such as 2026-01-31T12:00:00Z, nor a time ago, such as 2h")?;
    let ago = std::time::Duration::from_nanos(ago.0.0);
    Ok(events::clock::text(std::time::SystemTime::now().checked_sub(ago).unwrap_or(std::time::UNIX_EPOCH)))
}

fn severity(text: &str) -> Result<Severity, String> {
    events::severity_of(text).ok_or_else(|| "one of info, notice, warning and error".to_owned())
}

/// What can be done with connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionsAction {
    /// End connections at once, with the associations that they are part of: their hosts get a reset, commands that are not
    /// in the log are dropped, and the hosts may come back when nothing of that can happen any more.
    Kill(Box<KillOptions>),
}

/// Which connections to end.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub struct KillOptions {
    /// The one of this number.
    #[arg(group = "which", conflicts_with_all = ["host", "peer", "local", "target", "idle", "all", "pid", "port"])]
    pub id: Option<u64>,
    /// Those of this host.
    #[arg(long, group = "which", value_name = "NQN", conflicts_with_all = ["peer", "local", "target", "idle", "all", "pid", "port"])]
    pub host: Option<String>,
    /// Those whose host's end is this.
    #[arg(long, group = "which", value_name = "ADDRESS[:PORT]", conflicts_with_all = ["local", "target", "idle", "all", "pid", "port"])]
    pub peer: Option<End>,
    /// Those whose own end is this.
    #[arg(long, group = "which", value_name = "ADDRESS[:PORT]", conflicts_with_all = ["target", "idle", "all", "pid", "port"])]
    pub local: Option<End>,
    /// Those to this subsystem.
    #[arg(long, group = "which", value_name = "NQN", conflicts_with_all = ["idle", "all", "pid", "port"])]
    pub target: Option<String>,
    /// Those of hosts that have asked for nothing for so long, keep alive apart.
    #[arg(long, group = "which", value_name = "TIME", value_parser = time_span, conflicts_with_all = ["all", "pid", "port"])]
    pub idle: Option<TimeSpan>,
    /// All.
    #[arg(long, group = "which", conflicts_with_all = ["pid", "port"])]
    pub all: bool,
    /// TCP connections of any process of this machine, through the kernel: those of this one.
    #[arg(long, group = "which", value_name = "PROCESS")]
    pub pid: Option<u32>,
    /// The same by local port, of any process or of the one that is named.
    #[arg(long, group = "which", value_name = "PORT")]
    pub port: Option<u16>,
    /// Refuse their hosts for so long, in a way that lets them try again.
    #[arg(long, value_name = "TIME", value_parser = time_span, conflicts_with_all = ["pid", "port"])]
    pub block: Option<TimeSpan>,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}

/// What to watch and how often.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time_span)]
    pub every: TimeSpan,
    /// How often to look; left out: until Ctrl-C.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// What connections are sorted by.
    #[arg(long, value_enum, default_value = "in-flight", value_name = "KEY")]
    pub sort: SortKey,
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}

/// The serving process that is meant.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The configuration that is served: its control socket is asked. Left out: the demo's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The control socket to ask.
    #[arg(long, value_name = "SOCKET", conflicts_with = "config")]
    pub control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Whether what cannot be undone may be done unasked.
#[derive(Clone, Copy, Debug, Args)]
pub struct Consent {
    /// Do it without asking. Needed where there is no terminal to ask at.
    #[arg(long, short)]
    pub yes: bool,
}

/// How to serve.
#[derive(Clone, Debug, Args)]
pub struct ServeOptions {
    /// The configuration.
    pub file: PathBuf,
    /// Make arrays that are declared and missing, also on block devices. Files and memory are always made.
    #[arg(long)]
    pub create: bool,
    /// Go on where data may be lost: write to devices that bear something else, assemble without a majority.
    #[arg(long)]
    pub force: bool,
    /// The control socket, instead of the configuration's.
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// How long a stop may take until everything is on the members. Past it the log is left as it is, which loses nothing.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time_span)]
    pub stop_limit: TimeSpan,
    /// What a stray write to memory leads to that is read-only while serving, instead of what the configuration says.
    #[arg(long, value_enum, value_name = "POLICY")]
    pub sealed: Option<SealedPolicy>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// What a stray write leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SealedPolicy {
    /// It is reported, and the process aborts.
    Kill,
    /// It is reported and counted, and that page becomes writable. Cannot go with mseal(2), which is left out.
    Warn,
    /// Nothing: no memory is made read-only.
    Off,
}

/// A time as configurations have it.
fn time_span(text: &str) -> Result<TimeSpan, String> {
    serde_json::from_value(text.into()).map_err(|error: serde_json::Error| error.to_string())
}

/// Whom to ask, and how to show the answer.
#[derive(Debug, Args)]
pub struct StatusOptions {
    /// The configuration that is served: its control socket is asked. Left out: the demo's.
    pub file: Option<PathBuf>,
    /// The control socket to ask.
    #[arg(long, value_name = "SOCKET", conflicts_with = "file")]
    pub control: Option<PathBuf>,
    /// Show which memory is read-only, and how the process is confined.
    #[arg(long)]
    pub memory: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How to show the main job.
#[derive(Clone, Debug, Args)]
pub struct DemoOptions {
    /// Stop after verifying instead of going on serving.
    #[arg(long)]
    pub once: bool,
    /// Be the serving process of the demo with this process number.
    #[arg(long, hide = true, value_name = "PROCESS")]
    pub server_of: Option<u32>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn events_are_asked_for_by_time_and_severity() {
        let parse = |words: &[&str]| CommandLine::try_parse_from(["brindle", "events"].iter().chain(words));
        let Ok(CommandLine { command: Command::Events(options) }) = parse(&["--since", "2h", "--severity", "warning"])
        else {
            panic!("it is understood");
        };
        assert_eq!(options.severity, Some(Severity::Warning));
        assert!(events::clock::is_time(&options.since.unwrap()));
        assert!(parse(&["--since", "2026-01-31T12:00Z", "--limit", "10000", "-f"]).is_ok());
        for wrong in [["--since", "yesterday"], ["--severity", "dire"], ["--limit", "0"], ["--limit", "10001"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn serve_takes_its_options_and_has_defaults() {
        #[derive(Parser)]
        struct Serve {
            #[command(flatten)]
            options: ServeOptions,
        }
        let parse = |words: &[&str]| Serve::try_parse_from(["serve"].iter().chain(words)).map(|serve| serve.options);
        let plain = parse(&["a.yaml"]).unwrap();
        assert!(!plain.create && !plain.force && plain.control.is_none());
        assert_eq!(plain.log_format, LogFormat::Human);
        assert_eq!(plain.stop_limit.0, base::time::Span::from_secs(60));
        let all =
            ["a.yaml", "--create", "--force", "--log-format", "json", "--control", "x.sock", "--stop-limit", "5ms"];
        let all = parse(&all).unwrap();
        assert_eq!(all.stop_limit.0, base::time::Span::from_millis(5));
        assert!(parse(&["a.yaml", "--stop-limit", "5"]).is_err(), "a time has a unit");
        assert!(all.create && all.force && all.control == Some("x.sock".into()));
        assert_eq!(plain.sealed, None, "as configured");
        assert_eq!(parse(&["a.yaml", "--sealed", "warn"]).unwrap().sealed, Some(SealedPolicy::Warn));
        assert!(parse(&["a.yaml", "--sealed", "maybe"]).is_err());
        assert_eq!(all.log_format, LogFormat::Json);
        assert!(parse(&[]).is_err(), "a file is needed");
        assert!(parse(&["a.yaml", "--log-format", "xml"]).is_err());
    }
}
