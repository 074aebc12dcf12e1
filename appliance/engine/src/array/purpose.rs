//! What a device operation was for: how its end finds whoever waits for it.

use base::ids::{ArrayId, LaneId, Slot};
use base::slab::Key;

use super::destage::Destage;
use super::mend::Mend;
use super::read::Read;
use super::residency::LogRead;

/// What a device operation was for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A record to a log copy.
    Record { array: ArrayId, lane: LaneId, sequence: u64, copy: u8 },
    /// An anchor to a log copy.
    Anchor { array: ArrayId, lane: LaneId, copy: u8 },
    /// A block of a record, from a log copy or to one that could not give it.
    LogRead { array: ArrayId, read: Key<LogRead>, copy: u8 },
    /// A host's read.
    Read { array: ArrayId, read: Key<Read>, slot: Slot },
    /// Old content for a destage.
    DestageRead { array: ArrayId, destage: Key<Destage>, slot: Slot },
    /// The other blocks of a stripe, for one that cannot be read; or that one, written again and read back.
    Mend { array: ArrayId, mend: Key<Mend>, slot: Slot },
    /// New content of destages.
    DestageWrite { array: ArrayId, batch: u32, slot: Slot },
    /// The members' flush.
    MemberFlush { array: ArrayId, slot: Slot },
    /// Zeros for a zone.
    ZoneZero { array: ArrayId, job: u8, slot: Slot },
    /// The flush of those zeros.
    ZoneFlush { array: ArrayId, job: u8, slot: Slot },
    /// The flush after which zones are dirty no longer.
    CleanFlush { array: ArrayId, slot: Slot },
    /// A checksum block, to have it at hand.
    ChecksumRead { array: ArrayId, place: u32 },
    /// A checksum block with new entries.
    ChecksumWrite { array: ArrayId, place: u32 },
    /// A range of a walk, or one block of it.
    Walk { array: ArrayId, range: u8, slot: Slot, block: Option<u8> },
    /// The coordinator's own.
    Coordinator { write: u32 },
}
