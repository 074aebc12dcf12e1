//! What can be asked for about logs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Consent, Server};

/// When writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogMode {
    /// Once they are in the log, on every copy.
    WriteBack,
    /// Once the members have them.
    WriteThrough,
}

/// How drives become copies of a log.
#[derive(Clone, Debug, Args)]
pub struct Taking {
    /// Also if a drive bears something, which is lost.
    #[arg(long)]
    pub force: bool,
    /// Do not wait for its end.
    #[arg(long)]
    pub no_wait: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
}

/// What can be done with logs.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show an array's log: its copies, its lanes, and what recovery did at the last start.
    Status {
        /// The array.
        array: String,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Read the copy of a log on a device, whether it is served or not, and say what is there. Nothing is written.
    Inspect {
        /// The path of the device or file.
        device: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a declared drive that nothing uses a copy of an array's log, also in the place of one that was lost.
    Attach {
        /// The array.
        array: String,
        /// The drive, as the configuration calls it.
        drive: String,
        /// How.
        #[command(flatten)]
        taking: Taking,
    },
    /// Move an array's log to larger declared drives that nothing uses, while it is served: it is as long there as the smallest of them
    /// allows, and its former copies are free.
    Grow {
        /// The array.
        array: String,
        /// The drives, as the configuration calls them: one for each copy that there is to be.
        #[arg(required = true)]
        drives: Vec<String>,
        /// How.
        #[command(flatten)]
        taking: Taking,
    },
    /// Give up what is lost of a log that is damaged on all its copies, so that its array can be served again. Nobody may be
    /// serving it. Without --yes it is said what would be lost, and asked.
    Discard {
        /// The array.
        array: String,
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also without a majority of the members.
        #[arg(long)]
        force: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
    /// Take a copy of an array's log away for good, or no longer miss one that is lost. The last one stays.
    Detach {
        /// The array.
        array: String,
        /// The copy, by its drive, or by its number if nobody knows its drive.
        copy: String,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Acknowledge an array's writes otherwise, from now on and after each start that the configuration does not tell otherwise.
    Mode {
        /// The array.
        array: String,
        /// How.
        #[arg(value_enum)]
        mode: LogMode,
        /// Also if the configuration names another mode, which holds again from the next start on.
        #[arg(long)]
        force: bool,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Put a declared drive that nothing uses in the stead of a copy that is in use: in one step, so that there are never fewer.
    Replace {
        /// The array.
        array: String,
        /// The copy's drive.
        old: String,
        /// The drive that becomes a copy.
        new: String,
        /// How.
        #[command(flatten)]
        taking: Taking,
    },
}
