//! Hosts of our own: an NVMe/TCP host that is light enough to see how fast a target is, strict enough to refuse what a
//! Linux host would refuse, and suspicious enough to tell whether a target that was killed kept its word. Nothing of
//! the appliance is used but its wire formats.
//!
//! | module | holds |
//! |---|---|
//! | [`limits`] | every bound |
//! | [`error`] | what a target can do wrong or refuse |
//! | `sender`, `receiver`, `arrival` | outgoing bytes, incoming bytes, the heads of incoming PDUs |
//! | [`request`] | the requests of a queue and how they end |
//! | [`queue`] | one NVMe/TCP queue: requests, buffers, PDUs |
//! | `command` | submission entries |
//! | [`host`] | an association with a controller: Connect, properties, Identify, Keep Alive |
//! | [`discovery`] | the discovery log |
//! | [`io_queue`] | Read, Write, Write Zeroes and Flush on a namespace |
//! | [`patience`] | waiting for a target that is starting |
//! | [`random`] | the seeded generator |
//! | [`workload`] | the bench's load and its report |
//! | [`stamp`] | what the torture writes into a block |
//! | [`model`] | what a block may hold |
//! | [`torture`] | writes, deaths, reconnects and the verdict |
//! | [`floor`] | what bare sockets reach on this machine |
//!
//! ```no_run
//! use loadgen::torture::{Torture, TortureOptions};
//! let address = "127.0.0.1:4420".parse().unwrap();
//! let mut torture = Torture::new(address, "nqn.2014-08.org.example:v", 1, TortureOptions::default())?;
//! torture.run_until(|progress| progress.writes_acknowledged >= 10_000)?;
//! let report = torture.verify(|_, _| {})?;
//! assert_eq!(report.violations, 0);
//! # Ok::<(), loadgen::error::HostError>(())
//! ```
#![forbid(unsafe_code)]

mod arrival;
mod command;
pub mod discovery;
pub mod error;
#[cfg(test)]
mod fake;
pub mod floor;
pub mod host;
pub mod io_queue;
pub mod limits;
pub mod model;
pub mod patience;
pub mod queue;
pub mod random;
mod receiver;
pub mod request;
mod sender;
pub mod stamp;
#[cfg(test)]
mod tests;
pub mod torture;
pub mod workload;
