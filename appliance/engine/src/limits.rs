//! Every bound of the engine, in one place, with what relates them.

use base::time::Span;

use crate::io::MAX_REQUEST_BLOCKS;

/// Most blocks of a fragment: what one transaction takes in one piece, and so what becomes visible in one step.
pub const MAX_FRAGMENT_BLOCKS: u32 = 64;

/// Blocks of an atomic unit of an array with such chunks: what is written within one, and lies between two of its multiples,
/// becomes visible in one step, and is whole or absent after a crash (rule L11). Chunks and units are powers of two.
pub const fn atomic_blocks(chunk_blocks: u32) -> u32 {
    if chunk_blocks < MAX_FRAGMENT_BLOCKS { chunk_blocks } else { MAX_FRAGMENT_BLOCKS }
}

/// Requests under way on one shard.
pub const MAX_REQUESTS: usize = 4096;

/// Fragments that one shard may have under way at another.
pub const FRAGMENT_CREDITS: usize = 512;

/// Fragments that one shard has under way at itself.
pub const LOCAL_FRAGMENTS: usize = 4096;

/// Fragments of zeros that one shard has under way in all, and those that one request sends before others have their turn.
pub const ZERO_FRAGMENTS: usize = 64;

/// See [`ZERO_FRAGMENTS`].
pub const ZERO_FRAGMENTS_A_TURN: usize = 8;

/// Compares, and compares with writes, under way on one shard and array, and the buffers that they read into.
pub const MAX_UPDATES: usize = 64;

/// See [`MAX_UPDATES`].
pub const UPDATE_BLOCKS: usize = 2 * MAX_FRAGMENT_BLOCKS as usize;

/// Messages that the mesh must hold between two shards: fragments one way, answers to those the other way, and the rest.
pub const MESH_CAPACITY: usize = 2 * FRAGMENT_CREDITS + 1024;

/// Aborts of one shard's requests under way; what hosts want aborted beyond that goes on.
pub const MAX_ABORTS: usize = 128;

/// Device operations under way on one shard.
pub const MAX_OPERATIONS: usize = 4096;

/// Operations that are kept free for the log and for destaging, whatever the reads do.
pub const RESERVED_OPERATIONS: usize = 1024;

/// Members that an array may get while it is served, until it is started again: there is room for so many.
pub const MEMBERS_TO_COME: usize = 1;

/// Messages applied in one turn.
pub const MESSAGES_A_TURN: usize = 256;

/// Completions applied in one turn.
pub const COMPLETIONS_A_TURN: usize = 512;

/// Commands of the control side under way at a time.
pub const MAX_COMMANDS: usize = 64;

/// Volumes of one process, those included that were deleted while it runs.
pub const MAX_VOLUMES: usize = 1 << 16;

/// Volumes that are copied at a time.
pub const MAX_COPIES: usize = 4;

/// Spare drives of an array.
pub const MAX_SPARES: usize = 32;

/// Answers and news that wait for the control side. News beyond that are lost and counted; answers have their places.
pub const MAX_NEWS: usize = 512;

/// Zones that a shard is given at a time to be walked over, of one array.
pub const ZONES_AT_A_SHARD: usize = 2;

/// Blocks of a new log copy that are erased in one step.
pub const ERASE_BLOCKS: u64 = 1024;

/// Runs of stripes that a scrub names of one zone.
pub const FOUND_PLACES: usize = 8;

/// Zones with mistakes of which one scrub tells, each by itself; of the others only the sums are told.
pub const FOUND_ZONES: u32 = 100;

/// Lanes by which the zones of an array without a log are shared out: at least as many as there may be shards.
pub const LANES_WITHOUT_LOG: u16 = 64;

/// How long hosts' writes wait at most for a log to come or go: less than the 30 s after which Linux gives a request up.
pub const MAX_HOLD: Span = Span::from_secs(10);

/// Zones of which a shard has the coordinator note at a time that they are dirty, of one array.
pub const NOTED_AT_A_TIME: usize = 32;

/// Zones whose bits are cleared together once they have rested, on one shard and array.
pub const CLEANED_AT_A_TIME: usize = 64;

/// Stripes under destage on one shard and array.
pub const MAX_DESTAGES: usize = 256;

/// Blocks on their way back from the log, on one shard and array.
pub const MAX_LOG_READS: usize = 512;

/// Blocks that are put together from others because their member cannot read them, on one shard and array at a time.
pub const MAX_MENDS: usize = 8;

/// Stripes whose destage is started in one turn.
pub const DESTAGES_A_TURN: usize = 128;

/// Records of a lane under way to the log copies.
pub const RECORDS_IN_FLIGHT: usize = 4;

/// Payload blocks that make a record worth sending although others are under way.
pub const RECORD_WORTH_BLOCKS: usize = 32;

/// Destaged entries that make a record worth writing although nothing else waits for it.
pub const DESTAGED_WORTH_ENTRIES: usize = 64;

/// Log blocks that destaging a stripe with so many parities may need at most: a destaged record of its own (descriptor), and
/// if there is parity a record of its own for it (descriptor and parities).
pub const fn destage_log_blocks(parities: u8) -> u64 {
    if parities == 0 { 1 } else { 2 + parities as u64 }
}

/// Log blocks that a window of so many columns and stripes takes until it is on the members: its content, a descriptor and a pad for
/// each of its records, and what destaging takes.
pub const fn moved_log_blocks(columns: u8, stripes: u64, parities: u8) -> u64 {
    let (columns, blocks) = (columns as u64, columns as u64 * stripes);
    let records = columns + blocks / MAX_FRAGMENT_BLOCKS as u64 + 1;
    blocks + 2 * records + stripes * destage_log_blocks(parities)
}

const _: () = assert!(MAX_FRAGMENT_BLOCKS.is_power_of_two(), "fragments end at multiples of it");
const _: () = assert!(MAX_FRAGMENT_BLOCKS as usize <= journal::MAX_PAYLOAD_BLOCKS);
const _: () = assert!(MAX_FRAGMENT_BLOCKS as usize <= ports::MAX_DEVICE_BLOCKS);
const _: () = assert!(MAX_REQUEST_BLOCKS <= u16::MAX as u32);
const _: () = assert!(RESERVED_OPERATIONS < MAX_OPERATIONS);
const _: () = assert!(RECORDS_IN_FLIGHT <= journal::MAX_IN_FLIGHT);
const _: () = assert!(MESH_CAPACITY > 2 * FRAGMENT_CREDITS + 2 * MAX_ABORTS, "aborts one way, words the other");
