//! Every bound of this crate, in one place.

use core::time::Duration;

/// The most requests that a queue has in flight.
pub const DEPTH_MAX: u16 = 1024;

/// The most I/O queues of one torture.
pub const QUEUES_MAX: u16 = 16;

/// The largest data of one request, in bytes.
pub const TRANSFER_MAX_BYTES: u32 = 1 << 20;

/// Payloads up to this many bytes are copied behind their header, so that many requests leave in one piece; larger
/// ones are sent from where they lie.
pub const COPY_MAX_BYTES: usize = 16 << 10;

/// Staged bytes after which a queue sends without waiting for its next poll.
pub const FLUSH_BYTES: usize = 128 << 10;

/// Bytes of the receive buffer of a queue.
pub const RECEIVE_BYTES: usize = 512 << 10;

/// From this payload size on, data is received straight into the request's buffer.
pub const BULK_BYTES: usize = 32 << 10;

/// Bytes received behind a bulk payload: the next headers, and as little payload as possible that needs a copy.
pub const BULK_TAIL_BYTES: usize = 4 << 10;

/// Pieces of one gathered send.
pub const SEND_PIECES_MAX: usize = 64;

/// Receives of one poll, so that a fast target cannot keep the caller from submitting.
pub const RECEIVES_PER_POLL_MAX: usize = 4;

/// How long a connect, an admin command or a poll of the controller's readiness may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request may be in flight without any progress on its queue.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a target that is starting is waited for.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two attempts to reach a target that is starting.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two looks at CSTS while the controller becomes ready.
pub const READY_PAUSE: Duration = Duration::from_millis(2);

/// Namespaces looked at in the list of a controller (one list page).
pub const NAMESPACES_MAX: usize = 1024;

/// Entries of a discovery log that are read.
pub const DISCOVERY_ENTRIES_MAX: u64 = 256;

/// Times a discovery log is read again because it changed while it was read.
pub const DISCOVERY_RETRIES_MAX: u32 = 8;

/// Violations that a torture keeps word for word; it counts the rest.
pub const VIOLATIONS_KEPT_MAX: usize = 64;

/// Requests moved by one system call of the floor.
pub const FLOOR_BATCH_MAX: usize = 128;

const _: () = assert!(BULK_TAIL_BYTES < RECEIVE_BYTES && BULK_BYTES <= RECEIVE_BYTES);
const _: () = assert!(COPY_MAX_BYTES < FLUSH_BYTES);
const _: () = assert!((TRANSFER_MAX_BYTES as usize).is_multiple_of(base::BLOCK));
const _: () = assert!(RECONNECT_PAUSE.as_millis() < RECONNECT_TIMEOUT.as_millis());
