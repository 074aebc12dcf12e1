//! The appliance as a program: it marries the engine with the runtime and shows both to people.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`serve`] | from a configuration to a served appliance, and back |
//! | [`logging`] | log lines |
//! | [`check`] | reading a configuration and showing what is wrong with it |
//! | [`budget`], [`capacity`] | how memory is shared out, and what arrays hold |
//! | [`status`], [`memory_status`] | how the appliance is, as JSON and as tables |
//! | [`connections`] | connections as people see them |
//! | [`control`] | the control thread: what it tells, and signals |
//! | [`control_socket`], [`control_client`] | both ends of the control socket |
//! | [`events`] | the history of what happened, and of who changed what |
//! | [`log_status`] | a log in detail |
//! | [`verbs`] | what the command line asks of a serving process |
//! | [`demo`] | the main job in one command, with a host of its own |
//! | [`metrics_http`], [`exposition`] | the metrics endpoint and its text |
//!
//! ```
//! let status = brindle::status::Status { name: "demo".into(), ..Default::default() };
//! assert!(status.to_string().starts_with("demo: not serving yet"));
//! ```
#![forbid(unsafe_code)]

pub mod budget;
pub mod capacity;
pub mod check;
pub mod cli;
pub mod connections;
pub mod control;
pub mod control_client;
pub mod control_socket;
pub mod demo;
pub mod device_status;
pub mod events;
pub mod exposition;
pub mod log_status;
pub mod logging;
pub mod memory_status;
pub mod metrics_http;
pub mod serve;
pub mod status;
pub mod verbs;
