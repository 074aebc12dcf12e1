//! What a record can say, sixteen bytes each. Entries of a record apply in their order. This module knows bytes and
//! ranges; what entries mean together is for [`crate::fold`](mod@crate::fold).

use base::ids::{ArrayBlock, StripeId};
use thiserror::Error;

use crate::{MAX_COUNT, MAX_ZEROS_BLOCKS};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 16;

const DATA: u8 = 1;
const ZEROS: u8 = 2;
const PARITY: u8 = 3;
const COVERS: u8 = 4;
const DESTAGED: u8 = 5;

/// Parities that a stripe can have: P and Q.
const PARITIES: u8 = 2;

/// One statement of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// New content of a block: one payload block.
    Data {
        /// The block.
        block: ArrayBlock,
        /// [`crate::payload_crc`] of the content.
        crc: u32,
    },
    /// Blocks that read as zeros from now on (rule L7): no payload.
    Zeros {
        /// The first block.
        block: ArrayBlock,
        /// How many, 1 to [`MAX_ZEROS_BLOCKS`].
        count: u32,
    },
    /// Parity of a stripe for exactly the versions that the record's [`Entry::Covers`] of this stripe name (rule L5): one
    /// payload block.
    Parity {
        /// The stripe.
        stripe: StripeId,
        /// Which: 0 is P, 1 is Q.
        index: u8,
        /// [`crate::payload_crc`] of the parity.
        crc: u32,
    },
    /// The parity of this record and stripe counts the version of the block that was logged `lag` sequences ago.
    Covers {
        /// The block.
        block: ArrayBlock,
        /// Own sequence less the version's; 0 is this record.
        lag: u32,
    },
    /// All that was logged of the stripe up to `lag` sequences ago is durable on the members (rule L4).
    Destaged {
        /// The stripe.
        stripe: StripeId,
        /// Own sequence less the highest sequence included; at least 1, for that was durable before.
        lag: u32,
    },
}

/// Why sixteen bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryFault {
    /// Written by a newer version.
    #[error("entry kind {0} is unknown: written by a newer version")]
    UnknownKind(u8),
    /// A field is out of range.
    #[error("an entry's {0} is out of range")]
    OutOfRange(&'static str),
}

impl Entry {
    /// Whether a payload block belongs to the entry.
    pub const fn has_payload(&self) -> bool {
        matches!(self, Self::Data { .. } | Self::Parity { .. })
    }

    /// The checksum that the entry's payload must have.
    pub const fn payload_crc(&self) -> Option<u32> {
        match *self {
            Self::Data { crc, .. } | Self::Parity { crc, .. } => Some(crc),
            Self::Zeros { .. } | Self::Covers { .. } | Self::Destaged { .. } => None,
        }
    }

    /// The entry's bytes: kind, index, two zeros, auxiliary number, address.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let (kind, index, auxiliary, address) = match *self {
            Self::Data { block, crc } => (DATA, 0, crc, block.0),
            Self::Zeros { block, count } => (ZEROS, 0, count, block.0),
            Self::Parity { stripe, index, crc } => (PARITY, index, crc, stripe.0),
            Self::Covers { block, lag } => (COVERS, 0, lag, block.0),
            Self::Destaged { stripe, lag } => (DESTAGED, 0, lag, stripe.0),
        };
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0] = kind;
        bytes[1] = index;
        bytes[4..8].copy_from_slice(&auxiliary.to_le_bytes());
        bytes[8..].copy_from_slice(&address.to_le_bytes());
        bytes
    }

    /// Reads the entry of a record with this sequence; every field is checked.
    pub fn decode(bytes: &[u8; ENTRY_BYTES], sequence: u64) -> Result<Self, EntryFault> {
        let [kind, index, zero_a, zero_b, a0, a1, a2, a3, address @ ..] = *bytes;
        let (auxiliary, address) = (u32::from_le_bytes([a0, a1, a2, a3]), u64::from_le_bytes(address));
        let entry = match kind {
            DATA => Self::Data { block: ArrayBlock(address), crc: auxiliary },
            ZEROS => Self::Zeros { block: ArrayBlock(address), count: auxiliary },
            PARITY => Self::Parity { stripe: StripeId(address), index, crc: auxiliary },
            COVERS => Self::Covers { block: ArrayBlock(address), lag: auxiliary },
            DESTAGED => Self::Destaged { stripe: StripeId(address), lag: auxiliary },
            _ => return Err(EntryFault::UnknownKind(kind)),
        };
        if zero_a != 0 || zero_b != 0 || (kind != PARITY && index != 0) {
            return Err(EntryFault::OutOfRange("reserved field"));
        }
        entry.check(sequence)?;
        Ok(entry)
    }

    /// Whether a record with this sequence may say so.
    pub fn check(&self, sequence: u64) -> Result<(), EntryFault> {
        let (Self::Data { block: ArrayBlock(address), .. }
        | Self::Zeros { block: ArrayBlock(address), .. }
        | Self::Covers { block: ArrayBlock(address), .. }
        | Self::Parity { stripe: StripeId(address), .. }
        | Self::Destaged { stripe: StripeId(address), .. }) = *self;
        if address > MAX_COUNT {
            return Err(EntryFault::OutOfRange("address"));
        }
        match *self {
            Self::Zeros { count, .. } if count == 0 || count > MAX_ZEROS_BLOCKS => Err(EntryFault::OutOfRange("count")),
            Self::Parity { index, .. } if index >= PARITIES => Err(EntryFault::OutOfRange("parity index")),
            Self::Covers { lag, .. } if u64::from(lag) >= sequence => Err(EntryFault::OutOfRange("lag")),
            Self::Destaged { lag, .. } if lag == 0 || u64::from(lag) >= sequence => Err(EntryFault::OutOfRange("lag")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_has_its_bytes() {
        let entry = Entry::Parity { stripe: StripeId(0x0102), index: 1, crc: 0xa1b2_c3d4 };
        assert_eq!(entry.encode(), [3, 1, 0, 0, 0xd4, 0xc3, 0xb2, 0xa1, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Entry::Destaged { stripe: StripeId(1), lag: 5 }.encode()[0], 5);
        assert_eq!(Entry::decode(&[9; ENTRY_BYTES], 10), Err(EntryFault::UnknownKind(9)));
    }

    #[test]
    fn fields_out_of_range_are_refused() {
        let block = ArrayBlock(0);
        for entry in [
            Entry::Zeros { block, count: 0 },
            Entry::Zeros { block, count: MAX_ZEROS_BLOCKS + 1 },
            Entry::Parity { stripe: StripeId(0), index: 2, crc: 0 },
            Entry::Covers { block, lag: 10 },
            Entry::Destaged { stripe: StripeId(0), lag: 10 },
            Entry::Destaged { stripe: StripeId(0), lag: 0 },
            Entry::Data { block: ArrayBlock(u64::MAX), crc: 0 },
        ] {
            assert!(matches!(Entry::decode(&entry.encode(), 10), Err(EntryFault::OutOfRange(_))), "{entry:?}");
        }
        let mut bytes = Entry::Data { block, crc: 0 }.encode();
        bytes[1] = 1;
        assert!(Entry::decode(&bytes, 10).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_what_encodes_to_them(bytes in any::<[u8; ENTRY_BYTES]>(), kind in 0u8..7) {
            let mut bytes = bytes;
            (bytes[0], bytes[2], bytes[3]) = (kind, 0, 0);
            if let Ok(entry) = Entry::decode(&bytes, 1 << 40) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
