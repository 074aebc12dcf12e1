//! A lane's anchor: where recovery starts. It always names a durable record, so a record that does not verify there
//! means damage and never an empty log. Two slots are written in turn on every copy. It does not move the tail itself.

use base::cursor::{Reader, Truncated, Writer};
use base::ids::LaneId;
use base::{Block, uuid::Uuid};
use thiserror::Error;

use crate::{LogIdentity, MAX_COUNT, put_crc, verified_crc};

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"BRNDLANC";

/// The version that this code writes.
pub const VERSION: u16 = 1;

/// Where recovery of a lane starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The lane.
    pub lane: LaneId,
    /// Raised by one with each write; the highest over slots and copies counts, [`crate::slot_of`] says where it goes.
    pub update: u64,
    /// The tail record's virtual position, in blocks.
    pub tail_position: u64,
    /// The tail record's sequence.
    pub tail_sequence: u64,
    /// The tail record's incarnation.
    pub tail_incarnation: u64,
    /// What the tail record carries as the checksum of the record before it.
    pub tail_previous_crc: u32,
}

/// Why a block is no anchor of this lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnchorFault {
    /// Something else lies there.
    #[error("there is no anchor")]
    NotAnAnchor,
    /// It was torn or has decayed.
    #[error("the anchor's checksum is wrong")]
    BadCrc,
    /// Left over from another log or lane.
    #[error("the anchor belongs to another log")]
    OtherLog,
    /// Written by a newer version.
    #[error("the anchor has format version {0}; this program knows {VERSION}")]
    Version(u16),
    /// Its numbers are out of range.
    #[error("the anchor's numbers are out of range")]
    Malformed,
}

impl From<Truncated> for AnchorFault {
    fn from(_: Truncated) -> Self {
        Self::Malformed
    }
}

impl Anchor {
    /// Fills a block.
    ///
    /// # Panics
    /// If the tail is none that a record could have.
    pub fn encode(&self, identity: &LogIdentity, out: &mut Block) {
        assert!(self.tail_sequence >= 1 && self.tail_sequence <= MAX_COUNT && self.tail_position <= MAX_COUNT);
        out.fill(0);
        let mut to = Writer::new(out);
        to.bytes(&MAGIC).u32_le(0).u16_le(VERSION).u16_le(self.lane.0);
        to.bytes(&identity.array.0).u128_le(identity.generation);
        to.u64_le(self.update).u64_le(self.tail_position).u64_le(self.tail_sequence).u64_le(self.tail_incarnation);
        to.u32_le(self.tail_previous_crc);
        put_crc(out);
    }

    /// Reads a block that should be an anchor of this lane of this log.
    pub fn decode(identity: &LogIdentity, lane: LaneId, block: &Block) -> Result<Self, AnchorFault> {
        if block[..8] != MAGIC {
            return Err(AnchorFault::NotAnAnchor);
        }
        verified_crc(block).ok_or(AnchorFault::BadCrc)?;
        let mut from = Reader::new(&block[12..]);
        let (version, own_lane) = (from.u16_le()?, from.u16_le()?);
        let own = LogIdentity { array: Uuid(from.array()?), generation: from.u128_le()? };
        // Identity before version: a newer program's anchor of an earlier log is of no concern.
        if own != *identity {
            return Err(AnchorFault::OtherLog);
        }
        if version != VERSION {
            return Err(AnchorFault::Version(version));
        }
        if own_lane != lane.0 {
            return Err(AnchorFault::OtherLog);
        }
        let anchor = Self {
            lane,
            update: from.u64_le()?,
            tail_position: from.u64_le()?,
            tail_sequence: from.u64_le()?,
            tail_incarnation: from.u64_le()?,
            tail_previous_crc: from.u32_le()?,
        };
        if anchor.tail_sequence == 0 || anchor.tail_sequence > MAX_COUNT || anchor.tail_position > MAX_COUNT {
            return Err(AnchorFault::Malformed);
        }
        Ok(anchor)
    }

    /// The newer of two blocks that decodes; if neither does, the more telling fault. An anchor of a newer version is
    /// never passed over in favour of an older one.
    pub fn newest(identity: &LogIdentity, lane: LaneId, a: &Block, b: &Block) -> Result<Self, AnchorFault> {
        match (Self::decode(identity, lane, a), Self::decode(identity, lane, b)) {
            (Err(AnchorFault::Version(version)), _) | (_, Err(AnchorFault::Version(version))) => {
                Err(AnchorFault::Version(version))
            }
            (Ok(a), Ok(b)) if b.update > a.update => Ok(b),
            (Ok(anchor), _) | (Err(_), Ok(anchor)) => Ok(anchor),
            (Err(AnchorFault::NotAnAnchor), Err(fault)) | (Err(fault), Err(_)) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ZERO_BLOCK;

    const IDENTITY: LogIdentity = LogIdentity { array: Uuid([3; 16]), generation: 77 };

    fn example(update: u64) -> Anchor {
        Anchor {
            lane: LaneId(4),
            update,
            tail_position: 1000,
            tail_sequence: 50,
            tail_incarnation: 2,
            tail_previous_crc: 0xdead_beef,
        }
    }

    fn encoded(anchor: &Anchor) -> Block {
        let mut block = ZERO_BLOCK;
        anchor.encode(&IDENTITY, &mut block);
        block
    }

    #[test]
    fn what_is_encoded_is_decoded_and_every_flipped_byte_is_refused() {
        let anchor = example(9);
        let whole = encoded(&anchor);
        assert_eq!(Anchor::decode(&IDENTITY, LaneId(4), &whole), Ok(anchor));
        for at in 0..base::BLOCK {
            let mut flipped = whole;
            flipped[at] ^= 1;
            assert!(Anchor::decode(&IDENTITY, LaneId(4), &flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn anchors_of_other_logs_lanes_versions_and_ranges_are_told_apart() {
        let whole = encoded(&example(9));
        let other = LogIdentity { generation: 78, ..IDENTITY };
        assert_eq!(Anchor::decode(&other, LaneId(4), &whole), Err(AnchorFault::OtherLog));
        assert_eq!(Anchor::decode(&IDENTITY, LaneId(5), &whole), Err(AnchorFault::OtherLog));
        let mut later = whole;
        later[12] = 7;
        put_crc(&mut later);
        assert_eq!(Anchor::decode(&IDENTITY, LaneId(4), &later), Err(AnchorFault::Version(7)));
        let mut far = whole;
        far[56..64].fill(0xff);
        put_crc(&mut far);
        assert_eq!(Anchor::decode(&IDENTITY, LaneId(4), &far), Err(AnchorFault::Malformed));
    }

    #[test]
    fn the_newer_anchor_counts_unless_it_is_torn() {
        let (old, new) = (encoded(&example(8)), encoded(&example(9)));
        let newest = |a, b| Anchor::newest(&IDENTITY, LaneId(4), a, b).map(|anchor| anchor.update);
        assert_eq!((newest(&old, &new), newest(&new, &old)), (Ok(9), Ok(9)));
        let mut torn = new;
        torn[3000] = 1;
        assert_eq!((newest(&old, &torn), newest(&torn, &old)), (Ok(8), Ok(8)));
        assert_eq!(newest(&ZERO_BLOCK, &torn), Err(AnchorFault::BadCrc));
        assert_eq!(newest(&ZERO_BLOCK, &ZERO_BLOCK), Err(AnchorFault::NotAnAnchor));
    }
}
