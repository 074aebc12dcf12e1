//! `brindle array ...`: what can be asked of arrays.

use clap::{Subcommand, ValueEnum};
use config::Size;

use super::{Consent, Server, size};

/// What can be done with arrays.
#[derive(Debug, Subcommand)]
pub enum ArrayCommand {
    /// Let the rebuild of a member wait, or go on.
    Rebuild {
        /// The array.
        name: String,
        /// What to do.
        #[arg(value_enum)]
        action: RebuildAction,
        /// With status: show how far it is until it has ended.
        #[arg(long)]
        follow: bool,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Give an array one member more while hosts go on: all data moves to where it lies with it, and then there is more space. It can
    /// not be taken back.
    Grow {
        /// The array.
        name: String,
        /// A declared drive that nothing uses, or a spare of the array. Left out: say how far it is.
        drive: Option<String>,
        /// Overwrite whatever the drive bears.
        #[arg(long)]
        force: bool,
        /// Show how far it is until it has ended.
        #[arg(long)]
        follow: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
    /// Read and compare all that the members hold, and put right what is wrong.
    Scrub {
        /// The array.
        name: String,
        /// What to do.
        #[arg(value_enum)]
        action: ScrubAction,
        /// What a scrub that is started does about blocks that are wrong. Left out: as the configuration says.
        #[arg(long, value_enum)]
        repair: Option<RepairChoice>,
        /// Most that a scrub that is started reads of each member in a second, such as 50MiB. Left out: as the configuration
        /// says.
        #[arg(long, value_parser = size)]
        rate: Option<Size>,
        /// With start and status: show how far it is until it has ended.
        #[arg(long)]
        follow: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// Whom to ask.
        #[command(flatten)]
        server: Server,
    },
}

/// What a scrub may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScrubAction {
    /// Begin, from the beginning.
    Start,
    /// Wait.
    Pause,
    /// Go on.
    Resume,
    /// End where it is.
    Stop,
    /// Say how far it is, and what it found.
    Status,
}

/// What a scrub does about blocks that are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RepairChoice {
    /// Write nothing: tell them.
    None,
    /// Put together what cannot be read or is known to be wrong; tell the rest.
    Located,
    /// And where nobody can tell what is wrong, trust data: make parity and mirrors match it.
    Parity,
}

/// What a rebuild may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RebuildAction {
    /// Wait.
    Pause,
    /// Go on.
    Resume,
    /// Say how far it is.
    Status,
}
