//! The ports of production: pinned reactors, a pool of buffers, files and drives through io_uring, sockets, messages
//! between reactors. It touches the world and decides nothing: what to do with any of it is the program's affair.
//!
//! | module | holds |
//! |---|---|
//! | [`runtime`] | all reactors of a process: start, control side, counters, end |
//! | [`reactor`] | one reactor: the loop, and [`ReactorPorts`], the implementation of `ports` |
//! | [`cores`] | which cores there are and which to take |
//! | [`pool`] | the buffer pool |
//! | [`mesh`] | messages between reactors and the control side |
//! | `gate` | the flag between a sleeper and its wakers |
//! | [`device`] | opening, locking and creating devices |
//! | [`sync_device`] | devices as start-up code sees them |
//! | [`queues`] | a reactor's device queues: memory, ring or helper threads |
//! | `uring`, `uring_sys` | requests on an io_uring |
//! | `threads`, `blocking_sys` | requests on helper threads, calls that wait |
//! | `ram`, `volatile` | a device in memory, an emulated volatile cache |
//! | [`device_error`] | how devices fail, at opening and at a request |
//! | `device_set` | the places of devices, which come and go |
//! | `holder` | who holds a device |
//! | [`sock_diag`] | the kernel's table of connections, and their destruction |
//! | [`routes`] | whether a connection still has its way |
//! | `netlink` | the framing of both |
//! | [`listener`] | listening sockets and the thread that accepts |
//! | `stream`, `socket_sys` | a reactor's streams by readiness |
//! | `event_sys`, `map_sys` | epoll, eventfd, anonymous memory |
//! | [`sealed`] | memory that is read-only once the program is initialised |
//! | `secret_sys` | keys in memory that is never swapped out or dumped |
//! | [`confine`] | privileges, files and system calls that the process takes from itself |
//! | `signal_sys`, `line` | handlers of signals, their stacks, and what they write |
//!
//! Unsafe code is allowed in `pool` and in the files named `*_sys`, and nowhere else.
//!
//! ```
//! use base::time::Time;
//! use ports::{Mesh, Program, Turn};
//! use runtime::{DeviceSet, Pool, ReactorPorts, Runtime, RuntimeOptions};
//!
//! /// Answers one message to the control side and ends.
//! struct Echo;
//!
//! impl Program<ReactorPorts<u64>> for Echo {
//!     fn turn(&mut self, ports: &mut ReactorPorts<u64>) -> Turn {
//!         let message = ports.message();
//!         let ended = message.is_some_and(|(_, number)| ports.post(ports.control(), number + 1).is_ok());
//!         Turn { worked: message.is_some(), deadline: Time::NEVER, ended }
//!     }
//! }
//!
//! let options = RuntimeOptions::on_cores(runtime::choose_cores(1)?);
//! let (pool, devices) = (Pool::new(64, false)?, DeviceSet::new(Vec::new()));
//! let mut running = Runtime::start(&options, &pool, &devices, vec![Echo])?;
//! let mut control = running.take_control().expect("taken for the first time");
//! control.post(base::ids::ShardId(0), 41).expect("an empty queue has room");
//! let answer = control.receive(std::time::Duration::from_secs(10));
//! assert_eq!(answer, Some((base::ids::ShardId(0), 42)));
//! running.join();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocking_sys;
pub mod confine;
pub mod cores;
pub mod device;
pub mod device_error;
mod device_set;
mod event_sys;
mod gate;
mod holder;
mod line;
pub mod listener;
mod map_sys;
pub mod mesh;
mod netlink;
pub mod pool;
pub mod queues;
mod ram;
pub mod reactor;
pub mod routes;
pub mod runtime;
pub mod sealed;
mod secret_sys;
mod signal_sys;
pub mod sock_diag;
mod socket_sys;
mod stream;
pub mod sync_device;
mod threads;
mod uring;
mod uring_sys;
mod volatile;

pub use cores::{CoreError, available_cores, check_cores, choose_cores, default_cores};
pub use device::{Allocation, DeviceKind, DeviceSpec, OpenDevice, create_file};
pub use device_error::DeviceOpenError;
pub use device_set::{DeviceSet, Identity};
pub use listener::{ListenError, Listener, StreamOptions};
pub use mesh::{Control, Poster};
pub use pool::{LocalPool, Pool, PoolError};
pub use reactor::{Polling, ReactorPorts, ReactorStats};
pub use runtime::{AcceptStats, Backend, Runtime, RuntimeError, RuntimeOptions, StatsReader};
pub use secret_sys::{Secret, SecretError, wipe};
pub use signal_sys::SignalStack;
pub use sync_device::{SignatureAreas, SyncHandle};
