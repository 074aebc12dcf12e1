//! The deterministic simulator: production's shards over devices, memory, mesh and time that one seed decides. It cuts the
//! power at any effect, loses devices, reorders whatever production may reorder, and lets oracles judge what hosts then see.
//! Same seed, same trace.
//!
//! | module | holds |
//! |---|---|
//! | [`random`] | the streams of drawn numbers |
//! | [`trace`] | the fold of all that happened |
//! | [`clock`] | virtual time |
//! | [`pool`] | buffers, and the watch over who touches them |
//! | [`device`] | a medium with its cache: the crash model |
//! | [`fault`] | what may go wrong |
//! | [`rack`] | devices behind queues, effects, faults, power |
//! | [`boot_device`] | the same devices for start-up code |
//! | [`mesh`] | messages between shards |
//! | [`ports`] | the seam, over all of these |
//! | [`stamp`] | contents that say what they are |
//! | [`oracle`] | which contents a block may have |
//! | [`killing`] | hosts that are killed |
//! | [`workload`] | hosts: what they ask and what they may expect |
//! | [`scenario`] | what a run is about, drawn from its seed |
//! | [`ailing`] | scenarios whose drives ail |
//! | [`subject`] | what is put to the test |
//! | [`production`] | the engine's shards as that |
//! | [`image`] | arrays as earlier versions left them |
//! | [`operator`] | what happens to drives under somebody's eyes |
//! | [`machine`] | one appliance between power-on and power-off |
//! | [`world`] | a run from beginning to end |
//! | [`audit`] | what must lie on the devices after a clean stop |
//! | [`exposed`] | what must lie on the members in write-through, whatever becomes of the log |
//! | [`log_keeper`] | whoever has devices come to the log and go from it |
//! | [`ring_watch`] | where a record may go |
//! | [`sweep`] | a short script, cut at each of its effects |
//! | [`failure`] | broken promises |
//! | [`kept`] | the seeds that once failed |
//!
//! ```
//! use sim::random::Random;
//! assert_eq!(Random::named(7, "disks").bits(), Random::named(7, "disks").bits());
//! ```
#![forbid(unsafe_code)]

pub mod ailing;
pub mod audit;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod blocked;
pub mod boot_device;
pub mod carver;
pub mod checks;
pub mod clock;
pub mod device;
pub mod exposed;
pub mod failure;
pub mod fault;
#[cfg(test)]
mod first_log;
#[cfg(test)]
mod grown;
#[cfg(test)]
mod grown_log;
pub mod image;
pub mod kept;
pub mod killing;
#[cfg(test)]
mod log_discard;
pub mod log_keeper;
#[cfg(test)]
mod log_loss;
pub mod machine;
pub mod mesh;
pub mod operator;
pub mod oracle;
pub mod pool;
pub mod ports;
pub mod production;
pub mod rack;
pub mod random;
#[cfg(test)]
mod resident;
#[cfg(test)]
mod returned;
pub mod ring_watch;
pub mod scenario;
pub mod stamp;
pub mod subject;
#[cfg(test)]
mod succeeded;
pub mod sweep;
#[cfg(test)]
mod toy;
pub mod trace;
pub mod workload;
pub mod world;
