//! What an oracle has to say when a promise was broken. Broken invariants inside the shards and broken rules of the ports
//! panic instead, where they happen.

use base::ids::{DeviceId, Lba, Slot, StripeId};
use engine::io::IoError;

use crate::stamp::Found;

/// A broken promise.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A block holds what it must not.
    #[error("block {lba} holds {found}; permitted: {permitted}")]
    Content {
        /// The block.
        lba: Lba,
        /// What was read.
        found: Found,
        /// What could have been.
        permitted: String,
    },
    /// A write was acknowledged in write-through and is not on the members.
    #[error("without the log, block {lba} holds {found}; permitted: {permitted}")]
    Exposed {
        /// The block.
        lba: Lba,
        /// What the members give.
        found: Found,
        /// What could have been.
        permitted: String,
    },
    /// Of a write within one atomic unit that a crash ended, a part happened and a part did not.
    #[error("the write of version {version} to blocks {from} to {to} happened in part: block {odd} differs")]
    Atomicity {
        /// The write.
        version: u64,
        /// Its first block.
        from: Lba,
        /// Its last block.
        to: Lba,
        /// A block whose fate is not that of the first.
        odd: Lba,
    },
    /// A read saw a part of a write within one atomic unit, and of another part what was before.
    #[error("a read saw the write of version {version} in part: blocks {from} and {odd} differ")]
    TornRead {
        /// The write.
        version: u64,
        /// A block of it.
        from: Lba,
        /// One that was seen to differ.
        odd: Lba,
    },
    /// Volumes are not as their operator knows them.
    #[error("volumes: {what}")]
    Carving {
        /// How.
        what: String,
    },
    /// A compare said that something else is stored, and nothing else can be.
    #[error("a compare of {blocks} blocks at {lba} failed, though they can hold nothing else")]
    Miscompare {
        /// The first block.
        lba: Lba,
        /// How many.
        blocks: u32,
    },
    /// A request that had to succeed did not.
    #[error("{what} of {blocks} blocks at {lba} was refused: {error:?}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The first block.
        lba: Lba,
        /// How many.
        blocks: u32,
        /// The answer.
        error: IoError,
    },
    /// A parity or a mirror of a stripe does not match its data.
    #[error("stripe {stripe}: member {slot} does not hold what the others say, from byte {byte} on")]
    Parity {
        /// The stripe.
        stripe: StripeId,
        /// The member.
        slot: Slot,
        /// The first byte that differs.
        byte: usize,
    },
    /// After a clean stop a member is not as it should be.
    #[error("the member on device {device} is not in order: {detail}")]
    Member {
        /// The member's device.
        device: DeviceId,
        /// What there is.
        detail: String,
    },
    /// After a clean stop a log copy is not at rest.
    #[error("the log on device {device} is not at rest: {detail}")]
    Log {
        /// The copy's device.
        device: DeviceId,
        /// What there is.
        detail: String,
    },
    /// All shards had confirmed the end of a host's association, and one of its requests was under way.
    #[error(
        "all shards had confirmed that nothing of a killed host is under way, but its request of {blocks} blocks at {lba} was"
    )]
    ConfirmedEarly {
        /// The first block.
        lba: Lba,
        /// How many.
        blocks: u32,
    },
    /// A scrub did not find what there is, or did something else about it than it should.
    #[error("the scrub: {detail}")]
    Scrub {
        /// What.
        detail: String,
    },
    /// Buffers did not come home.
    #[error("{count} buffers did not come home")]
    Buffers {
        /// How many.
        count: usize,
    },
    /// Something did not end within its bound.
    #[error("{what} did not end: {detail}")]
    Stuck {
        /// What was to end.
        what: &'static str,
        /// How far it came.
        detail: String,
    },
    /// The appliance did not start though nothing prevented it.
    #[error("the appliance does not start: {0}")]
    Boot(String),
    /// It failed with more devices lost than it was running with, within its promise.
    #[error("after the loss of devices {devices:?}: {failure}")]
    AfterLoss {
        /// The devices.
        devices: Vec<DeviceId>,
        /// What was broken.
        failure: Box<Failure>,
    },
}

impl Failure {
    /// Whether hosts were told what is not so: the only promises that end where damage verifies and is believed.
    pub fn is_of_content(&self) -> bool {
        match self {
            Self::Content { .. }
            | Self::Exposed { .. }
            | Self::Atomicity { .. }
            | Self::TornRead { .. }
            | Self::Miscompare { .. }
            | Self::Refused { .. } => true,
            Self::Carving { .. }
            | Self::Parity { .. }
            | Self::Member { .. }
            | Self::Log { .. }
            | Self::ConfirmedEarly { .. }
            | Self::Scrub { .. }
            | Self::Buffers { .. }
            | Self::Stuck { .. }
            | Self::Boot(_)
            | Self::AfterLoss { .. } => false,
        }
    }
}
