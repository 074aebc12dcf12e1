//! The structures of NVMe as numbers and bytes: what target, host and driver share. Every structure can be encoded and
//! decoded; unknown values stay numbers. It holds no state, judges no command and moves no data.
//!
//! References are to the NVM Express Base Specification 2.0 ("Base"), the NVM Command Set Specification 1.0 ("NVM") and,
//! for Fabrics, the sections of Base that took the place of NVMe over Fabrics 1.1.
//!
//! | module | holds |
//! |---|---|
//! | [`layout`] | the macro that declares a structure by the offsets of its specification |
//! | [`entry`] | submission and completion queue entries |
//! | [`sgl`] | scatter gather list descriptors |
//! | [`opcode`] | opcodes, Identify CNS values |
//! | [`status`] | status codes |
//! | [`identify`] | Identify data structures and lists |
//! | [`log_page`] | log pages |
//! | [`dataset`] | ranges of Dataset Management |
//! | [`discovery`] | the discovery log page |
//! | [`feature`] | features and asynchronous events |
//! | [`register`] | controller properties |
//!
//! ```
//! use nvme::entry::SubmissionEntry;
//! use nvme::opcode;
//! let read = SubmissionEntry { opcode: opcode::READ, cid: 7, nsid: 1, cdw12: 7, ..SubmissionEntry::default() };
//! assert_eq!(SubmissionEntry::decode(&read.encode()), Ok(read));
//! ```
#![forbid(unsafe_code)]

pub mod dataset;
pub mod discovery;
pub mod entry;
pub mod feature;
pub mod identify;
pub mod layout;
pub mod log_page;
pub mod opcode;
pub mod register;
pub mod sgl;
pub mod status;
