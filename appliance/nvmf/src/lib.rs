//! NVMe over TCP: what a target must decide, and the wire format that hosts share. Pure state machines: bytes and times go
//! in, decisions come out; no socket, no clock, no buffer pool.
//!
//! References: "TCP" is the NVMe/TCP Transport Specification 1.0, "Base" the NVMe Base Specification 2.0.
//!
//! | module | holds |
//! |---|---|
//! | [`limits`] | every bound, and how they hang together |
//! | [`pdu`] | protocol data units, digests, fatal errors |
//! | [`deframer`] | bytes into PDUs, at any segmentation |
//! | [`fabrics`] | Connect and properties, to and from entries |
//! | [`queue`] | one connection: phases, commands in flight, data asked for |
//! | [`command`] | I/O commands and data pointers judged |
//! | [`dataset`] | discards judged |
//! | [`controller`] | properties, Identify, logs, features, events, keep alive |
//! | [`subsystem`] | what is exported, and the discovery log of it |
//!
//! ```
//! use nvmf::pdu::{self, Common, Digests, Direction};
//! let request = pdu::ic_req(Digests::default(), 0);
//! let common = Common::decode(&request).unwrap();
//! assert_eq!(common.check(Direction::ToController, Digests::default()), Ok(()));
//! ```
#![forbid(unsafe_code)]

pub mod command;
pub mod controller;
pub mod dataset;
pub mod deframer;
pub mod fabrics;
pub mod limits;
pub mod pdu;
pub mod queue;
pub mod subsystem;
