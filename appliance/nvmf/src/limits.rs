//! Every bound of the target in one place, and how they hang together.

use base::BLOCK;

/// Longest PDU header: ICReq and ICResp; with room for a digest.
pub const MAX_PDU_HEADER_BYTES: usize = 132;
/// Most of an offending PDU that a termination request quotes (NVMe/TCP 1.0, figure 19: PLEN is at most 152).
pub const TERM_REQ_DATA_BYTES: usize = 128;

/// Most data of one command, in blocks: 1 MiB.
pub const MAX_TRANSFER_BLOCKS: u32 = 256;
/// The same in bytes.
pub const MAX_TRANSFER_BYTES: u32 = MAX_TRANSFER_BLOCKS * BLOCK as u32;
/// MDTS: the same as a power of two of 4 KiB pages.
pub const MAX_TRANSFER_EXPONENT: u8 = 8;
/// WZSL: zeros for as many blocks as a command can name, 65536, as a power of two of 4 KiB pages.
pub const WRITE_ZEROES_EXPONENT: u8 = 16;
/// DMRL: most ranges of one Dataset Management.
pub const MAX_DATASET_RANGES: u8 = 32;
/// DMRSL: most blocks of one range; with the ranges a bound on how long a discard takes, so that no host gives it up.
pub const MAX_DATASET_RANGE_BLOCKS: u32 = 1 << 18;

/// MAXH2CDATA: one H2CData PDU may bring all data of a command.
pub const MAX_H2C_DATA_BYTES: u32 = MAX_TRANSFER_BYTES;

/// Most in-capsule data of a command on any queue. Linux hosts use 8 KiB on the admin queue whatever is advertised.
pub const IN_CAPSULE_BYTES: u32 = 8192;
/// The same in blocks.
pub const IN_CAPSULE_BLOCKS: u32 = IN_CAPSULE_BYTES / BLOCK as u32;
/// IOCCSZ: entry and in-capsule data in units of 16 bytes.
pub const COMMAND_CAPSULE_16B: u32 = (64 + IN_CAPSULE_BYTES) / 16;
/// IORCSZ: a completion entry in units of 16 bytes.
pub const RESPONSE_CAPSULE_16B: u32 = 1;

/// CAP.MQES + 1 and MAXCMD: most entries of an I/O queue.
pub const MAX_QUEUE_ENTRIES: u16 = 128;
/// Most entries of an admin queue (ASQSZ). Linux asks for 32.
pub const MAX_ADMIN_QUEUE_ENTRIES: u16 = 128;
/// Fewest entries of any queue: SQSIZE 0 is invalid (Base, section 6.3).
pub const MIN_QUEUE_ENTRIES: u16 = 2;
/// Most I/O queues of a controller.
pub const MAX_IO_QUEUES: u16 = 64;

/// Asynchronous Event Requests in flight (AERL + 1).
pub const MAX_ASYNC_EVENT_REQUESTS: usize = 4;
/// Abort commands in flight (ACL + 1).
pub const MAX_ABORTS: u8 = 4;
/// Entries of the error log (ELPE + 1).
pub const ERROR_LOG_ENTRIES: usize = 16;
/// Changed namespaces kept before the log says "many" (Base, section 5.16.1.5 bounds the page at 1024).
pub const MAX_CHANGED_NAMESPACES: usize = 64;

/// Namespaces of a subsystem (NN, MNAN and ANAGRPMAX stay small so that an ANA log fits MDTS).
pub const MAX_NAMESPACES: u32 = 256;
/// Longest NQN with its terminating NUL (Base, section 4.5: 223 bytes).
pub const MAX_NQN_BYTES: usize = 223;

/// KAS: granularity of the Keep Alive Timer, in units of 100 ms.
pub const KEEP_ALIVE_GRANULARITY_100MS: u16 = 10;
/// Longest Keep Alive Timeout that is honoured as asked, in milliseconds: a day.
pub const MAX_KEEP_ALIVE_MS: u32 = 86_400_000;
/// CAP.TO in units of 500 ms.
pub const READY_TIMEOUT_500MS: u8 = 20;

/// Bytes of the data of Connect (Base, figure 546).
pub const CONNECT_DATA_BYTES: u32 = 1024;

/// Controller identifiers of one shard: shard × this + 1 …
pub const CONTROLLERS_PER_SHARD: u16 = 4096;

const _: () = {
    assert!(MAX_TRANSFER_BLOCKS == 1 << MAX_TRANSFER_EXPONENT);
    assert!(MAX_DATASET_RANGES as u32 <= nvme::dataset::MAX_RANGES);
    // Linux hosts drop a connection below 4096 or at a value that is no multiple of 4.
    assert!(MAX_H2C_DATA_BYTES >= 4096 && MAX_H2C_DATA_BYTES.is_multiple_of(4));
    assert!(IN_CAPSULE_BYTES.is_multiple_of(BLOCK as u32) && IN_CAPSULE_BYTES <= MAX_TRANSFER_BYTES);
    assert!(COMMAND_CAPSULE_16B >= 4, "hosts refuse IOCCSZ below 4");
    assert!(CONNECT_DATA_BYTES <= IN_CAPSULE_BYTES, "Connect's data travels in the capsule");
    assert!(MAX_ASYNC_EVENT_REQUESTS < MAX_ADMIN_QUEUE_ENTRIES as usize);
    // Worst ANA log: one group with all namespaces.
    assert!(16 + 32 + 4 * MAX_NAMESPACES <= MAX_TRANSFER_BYTES);
    assert!(MIN_QUEUE_ENTRIES <= MAX_QUEUE_ENTRIES && MAX_QUEUE_ENTRIES.is_power_of_two());
};
