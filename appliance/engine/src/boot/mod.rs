//! Before any reactor turns: arrays are made, found on their devices, assembled and recovered. All of it is plain
//! straight-line code over [`ports::SyncDevice`], because nothing else runs yet; every decision is made by the pure parts of
//! `raid` and `journal`.
//!
//! | file | holds |
//! |---|---|
//! | [`create`] | a new array: regions, log lanes, superblocks last |
//! | [`assemble`](mod@assemble) | from devices in any order to arrays that can be served |
//! | [`recovery`] | one lane of the log |
//! | [`discard`](mod@discard) | what is given up of a log that is damaged on all copies |
//! | `regions` | bitmap and volume table, and members that are behind |

pub mod assemble;
pub mod create;
pub mod discard;
pub mod recovery;
mod regions;

use base::ids::{DeviceId, LaneId};
use ports::DeviceError;
use thiserror::Error;

pub use assemble::{AssembleOptions, BootedArray, Found, RecoveryReport, assemble, probe};
pub use create::{CreateArray, CreateVolume, create_array};
pub use discard::{DamagedLane, DiscardPlan, discard, plan_discard};
pub use recovery::LaneReport;

/// Why an array cannot be made or served.
#[derive(Debug, Error)]
pub enum BootError {
    /// A device: it does not do what it should.
    #[error("device {device} failed during start-up ({error:?})")]
    Device {
        /// Which.
        device: DeviceId,
        /// How.
        error: DeviceError,
    },
    /// A device: it was there a moment ago.
    #[error("device {device} was lost during start-up")]
    DeviceLost {
        /// Which.
        device: DeviceId,
    },
    /// The devices, or the operator: what is there does not make the array.
    #[error(transparent)]
    Assemble(#[from] raid::AssembleError),
    /// The devices: the log is damaged.
    #[error(
        "array {array}: the log is damaged: {error}. Nothing was changed. If another copy of the log exists, connect it and start again; if there is none, \
         brindle log discard says what is lost, and gives it up"
    )]
    Log {
        /// Whose.
        array: String,
        /// What was found.
        error: journal::RecoveryError,
    },
    /// The devices: what verified a moment ago does so no longer.
    #[error("array {array}: lane {lane} of the log cannot be read again as it was just now: a log device is failing")]
    LogChanged {
        /// Whose.
        array: String,
        /// Which lane.
        lane: LaneId,
    },
    /// The devices, and the operator: a crash and a loss together, without a log or after its loss.
    #[error(
        "array {array} has no log, or lost it while it was served, was not stopped cleanly, and members {missing:?} are missing or not rebuilt yet. In {zones} zones \
         ({mebibytes} MiB of each member) parities may not match the data, and what those members held there would come from them. \
         Nothing was changed. Attach the members, or start with --force to take what the parities say for the truth"
    )]
    DegradedAndDirty {
        /// Whose.
        array: String,
        /// Slots.
        missing: Vec<u8>,
        /// How many zones are at stake.
        zones: u64,
        /// How much of each member that is.
        mebibytes: u64,
    },
    /// Us: the reserve was not kept.
    #[error("array {array}: lane {lane} of the log has no room for the record of this start")]
    LogFull {
        /// Whose.
        array: String,
        /// Which lane.
        lane: LaneId,
    },
    /// The operator: the configuration asks for something that cannot be made.
    #[error("array {array}: {what}")]
    Impossible {
        /// Which.
        array: String,
        /// What, and what would do.
        what: String,
    },
    /// The devices: the volume table is of a newer version, or contradicts itself or the array.
    #[error("array {array}: its volume table cannot be used: {error}. Nothing was changed")]
    Metadata {
        /// Which.
        array: String,
        /// What was found.
        error: raid::MetadataError,
    },
    /// The devices: no copy of the metadata region is whole.
    #[error("array {array}: no member has a whole copy of the volume table; nothing was changed")]
    NoMetadata {
        /// Which.
        array: String,
    },
}
