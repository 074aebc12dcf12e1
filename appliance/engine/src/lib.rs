//! The engine: one [`Shard`] owns all state of a core and decides everything that happens there. It sees the world through
//! [`ports::Ports`] alone, so that the simulator runs the very same code.
//!
//! | module | holds |
//! |---|---|
//! | [`io`] | requests to volumes, as front ends ask |
//! | [`map`] | immutable snapshots of arrays and volumes |
//! | [`message`] | what shards say to each other |
//! | [`limits`] | every bound |
//! | [`shard`] | the loop of one core: select, apply, maintain |
//! | [`router`] | requests to fragments and back |
//! | [`array`] | one shard's part of an array: log, cache, members |
//! | [`command`] | what the control side asks of the coordinator, and what it is told |
//! | [`drives`] | what is expected of drives |
//! | [`coordinator`] | what changes for all shards: who takes part, rebuilds, initialised zones, the clean stop |
//! | [`front`] | connections of hosts |
//! | `jobs` | long work on volumes: cleaning, copying |
//! | [`boot`] | making arrays, assembling and recovering them, before any reactor turns |
//! | [`status`] | what there is to tell |
//!
//! A turn takes a bounded batch from each source, applies each event to exactly one state machine, and then lets each do
//! what has become possible. The price of this shape is that every event goes through the shard; the gain is that nothing
//! is ever locked and every state is reached by a sequence of calls that can be replayed.
#![forbid(unsafe_code)]

pub mod array;
pub mod boot;
pub mod command;
pub mod coordinator;
pub mod drives;
pub mod fence;
pub mod front;
pub mod io;
mod jobs;
pub mod limits;
pub mod map;
pub mod message;
mod operations;
mod router;
pub mod shard;
pub mod status;

pub use message::Message;
pub use shard::{Shard, ShardSetup};
