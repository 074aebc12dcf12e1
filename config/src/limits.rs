//! Every bound of the configuration, in one place. Those that follow from a disk format are estimates on the safe side: the
//! format itself has the last word when something is created.

use base::BLOCK;
use base::time::Span;

use crate::schema::Level;

const MIB: u64 = 1 << 20;

/// Bytes of the longest file that is read.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Problems reported of one file; what follows is counted only.
pub const MAX_PROBLEMS: usize = 100;

/// Most reactors.
pub const MAX_REACTORS: u16 = 64;

/// Least memory for buffers.
pub const MIN_MEMORY_BYTES: u64 = 64 * MIB;

/// Least and most members of an array of a level.
pub const fn members(level: Level) -> core::ops::RangeInclusive<usize> {
    let least = match level {
        Level::Raid0 => 1,
        Level::Raid1 => 2,
        Level::Raid4 | Level::Raid5 => 3,
        Level::Raid6 | Level::Raid10 => 4,
    };
    least..=MAX_MEMBERS
}

/// Most members of an array.
pub const MAX_MEMBERS: usize = 32;

/// Whether members come in pairs.
pub const fn in_pairs(level: Level) -> bool {
    matches!(level, Level::Raid10)
}

/// How many of so many members' worth of space is for data.
pub const fn data_members(level: Level, members: usize) -> usize {
    match level {
        Level::Raid0 => members,
        Level::Raid1 => 1,
        Level::Raid4 | Level::Raid5 => members - 1,
        Level::Raid6 => members - 2,
        Level::Raid10 => members / 2,
    }
}

/// Least and most copies of a log.
pub const LOG_COPIES: core::ops::RangeInclusive<usize> = 1..=4;

/// Shortest and longest time that a log device may be given for one write.
pub const LOG_TIMEOUT: core::ops::RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(60);

/// How long a host's read may wait for a member that others can stand in for.
pub const DRIVE_READ_TIMEOUT: core::ops::RangeInclusive<Span> = Span::from_millis(10)..=Span::from_secs(60);

/// How long a member may take to answer anything.
pub const DRIVE_TIMEOUT: core::ops::RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(600);

/// Least and most memory for the index of what a log has.
pub const INDEX_BYTES: core::ops::RangeInclusive<u64> = MIB..=64 << 30;

/// As much as it has if nothing is said.
pub const DEFAULT_INDEX_BYTES: u64 = 64 * MIB;

/// Least and most lanes of a log.
pub const LANES: core::ops::RangeInclusive<u16> = 1..=256;

/// Smallest and largest chunk in bytes, powers of two.
pub const CHUNK_BYTES: core::ops::RangeInclusive<u64> = 4096..=MIB;

/// The unit in which member space is owned and zeroed: at least so much of each member.
pub const ZONE_BYTES: u64 = 4 * MIB;

/// What superblocks, volume table and bitmaps take of a member: 1 MiB, and as much again for each 4 TiB. With checksums, two
/// blocks for each zone come to that.
pub const fn member_overhead_bytes(member_bytes: u64, checksums: bool) -> u64 {
    let checksums = if checksums { (member_bytes / ZONE_BYTES * 2 * BLOCK as u64).next_multiple_of(MIB) } else { 0 };
    MIB + (member_bytes >> 42) * MIB + checksums
}

/// The smallest member: overhead and a few zones.
pub const MIN_MEMBER_BYTES: u64 = 16 * MIB;

/// The shortest ring of a lane: four of the longest records (a descriptor and 128 blocks).
pub const MIN_LANE_BYTES: u64 = 4 * 129 * BLOCK as u64;

/// What a log takes beside its lanes: superblocks, and two anchor blocks for each lane, in whole mebibytes.
pub const fn log_overhead_bytes(lanes: u16) -> u64 {
    (MIB + 2 * lanes as u64 * BLOCK as u64).next_multiple_of(MIB)
}

/// The smallest log device.
pub const fn min_log_bytes(lanes: u16) -> u64 {
    log_overhead_bytes(lanes) + lanes as u64 * MIN_LANE_BYTES
}

/// Longest name of a device, array, volume or listener, in bytes.
pub const MAX_NAME_BYTES: usize = 32;

/// Longest NQN in bytes (NVM Express Base Specification, NVMe Qualified Names).
pub const MAX_NQN_BYTES: usize = 223;

/// Longest path of a unix socket: `sockaddr_un` has 108 bytes, the last of them zero.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Least space of the history of events: some hundred events.
pub const MIN_EVENTS_BYTES: u64 = 64 << 10;

/// Highest namespace identifier: FFFFFFFFh means all namespaces, and hosts number them densely.
pub const MAX_NSID: u32 = 1024;

/// Least and most time that a host may give no sign of life: TCP counts in seconds and asks three times.
pub const SILENCE: core::ops::RangeInclusive<Span> = Span::from_secs(3)..=Span::from_secs(3600);

/// Most time that a connection's address or route may be gone before it is destroyed.
pub const MAX_ADDRESS_GRACE: Span = Span::from_secs(60);

/// Least and most fill of the log at which destaging no longer waits for age, in percent.
pub const WATERMARK_PERCENT: core::ops::RangeInclusive<u8> = 10..=90;

const _: () = assert!(MIN_MEMBER_BYTES >= member_overhead_bytes(MIN_MEMBER_BYTES, true) + ZONE_BYTES);
const _: () = assert!(*CHUNK_BYTES.end() <= ZONE_BYTES);
