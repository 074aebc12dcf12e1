//! Every bound of the front, and how they hang together.

use base::time::Span;
use nvmf::limits::{IN_CAPSULE_BLOCKS, MAX_QUEUE_ENTRIES, MAX_TRANSFER_BLOCKS};

use crate::io::MAX_REQUEST_BLOCKS;

/// Stream events applied in one turn.
pub(super) const EVENTS_A_TURN: usize = 64;
/// Receives from one stream in one turn.
pub(super) const RECEIVES_A_TURN: usize = 4;
/// Sends to one stream in one turn.
pub(super) const SENDS_A_TURN: usize = 8;
/// Bytes of the place that receives what is not known to be payload.
pub(super) const STAGING_BYTES: usize = 64 * 1024;
/// The same behind a long payload: enough for the next header, little to copy.
pub(super) const SHORT_STAGING_BYTES: usize = 512;
/// A payload with this much to come is long.
pub(super) const LONG_PAYLOAD_BYTES: usize = 16 * 1024;
/// Bytes offered in one send.
pub(super) const SEND_BYTES: usize = 2 * 1024 * 1024;
/// Pieces of a send that is built the short way: most are, and a longer table takes longer to clear.
pub(super) const SHORT_PIECES: usize = 96;

/// From opening to the end of Connect.
pub(super) const CONNECT_TIMEOUT: Span = Span::from_secs(10);
/// After a termination request has been sent, until we close (NVMe/TCP 1.0, section 3.5.1: at most 30 s).
pub(super) const LINGER: Span = Span::from_secs(5);
/// A peer that takes nothing for this long is given up, as its replies hold buffers, unless its listener says otherwise; one
/// that was asked for data and does not send it has twice as long.
pub(super) const SEND_TIMEOUT: Span = Span::from_secs(30);
/// How long a Connect waits for the end of its host's earlier associations: then it is refused as busy, and the host tries
/// again. Together with [`HOUSEKEEPING`] it bounds the time of any answer to Connect.
pub(super) const FENCE_LIMIT: Span = Span::from_secs(2);
/// Connects of all shards that may wait at one home; further ones are refused as busy.
pub(super) const MAX_ASKERS: usize = 4096;
/// Hosts that a shard refuses for a while.
pub(super) const MAX_BLOCKED: usize = 64;
/// Connections that have ended and are still told of.
pub(super) const ENDED_KEPT: usize = 32;
/// How often waiting commands look for buffers: those of another shard come home without a sign.
pub(super) const RETRY: Span = Span::from_millis(1);
/// How often timeouts are looked at, and how late they may fire.
pub(super) const HOUSEKEEPING: Span = Span::from_millis(250);

/// What the host's side of a shard may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontLimits {
    /// Connections at a time, those that have only opened included.
    pub connections: usize,
    /// Blocks of the pool set aside for data in capsules. A full I/O queue of 128 entries takes 256.
    pub in_capsule_blocks: usize,
    /// Blocks of the pool under R2T, reads and replies at a time; at least those of the longest command.
    pub data_blocks: usize,
}

impl FrontLimits {
    /// Limits for a shard whose share of the pool is `blocks`: a quarter for capsules, a quarter for data.
    pub fn of_pool(blocks: usize) -> Self {
        Self {
            connections: 1024,
            in_capsule_blocks: blocks / 4,
            data_blocks: (blocks / 4).max(MAX_TRANSFER_BLOCKS as usize),
        }
    }
}

/// In-capsule blocks set aside for an admin queue: its commands are carried out as they come.
pub(super) const ADMIN_IN_CAPSULE_BLOCKS: usize = IN_CAPSULE_BLOCKS as usize;

/// News that wait for the control side; what comes beyond is counted.
pub(super) const MAX_NEWS: usize = 64;

const _: () = {
    assert!(MAX_TRANSFER_BLOCKS <= MAX_REQUEST_BLOCKS, "what hosts may ask for must fit a request");
    // A read of the longest transfer: head, blocks, digest and response.
    assert!(MAX_TRANSFER_BLOCKS as usize + 2 <= ports::MAX_STREAM_PIECES);
    assert!(SHORT_PIECES <= ports::MAX_STREAM_PIECES);
    assert!(MAX_QUEUE_ENTRIES <= 256, "a slot has eight bits in a token");
    assert!(HOUSEKEEPING.0 * 4 <= CONNECT_TIMEOUT.0);
};
