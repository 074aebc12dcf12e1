//! A record's descriptor block: a 128-byte header and up to 248 entries under one CRC32C. Payload blocks follow it in the
//! order of the entries and have their checksums there, so all of a record is written at once, in any order, and a torn
//! one is recognised. This module checks a record by itself; whether it is the *expected* one is for [`crate::scan`].

use base::cursor::{Reader, Truncated, Writer};
use base::ids::LaneId;
use base::{Block, uuid::Uuid};
use thiserror::Error;

use crate::entry::{ENTRY_BYTES, Entry, EntryFault};
use crate::{LogIdentity, MAX_COUNT, MAX_ENTRIES, MAX_RECORD_BLOCKS, put_crc, verified_crc};

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"BRNDLREC";

/// The version that this code writes.
pub const VERSION: u16 = 1;

/// Bytes before the first entry.
pub const HEADER_BYTES: usize = 128;

const TRANSACTION: u8 = 1;
const PAD: u8 = 2;
const OPENING: u8 = 3;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Entries that take effect together. None at all is legal.
    Transaction,
    /// Fills the ring up to its end; only the descriptor is written. No entries.
    Pad,
    /// The first record of an incarnation. A change of incarnation is accepted only at a record that names the one
    /// before, with the last sequence and checksum of it (rule L2). It may carry entries.
    Opening {
        /// The incarnation before; 0 at a lane's very first record.
        previous_incarnation: u64,
    },
}

/// The header's fields, without the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record is for.
    pub kind: RecordKind,
    /// The lane.
    pub lane: LaneId,
    /// The start of the array that wrote the record.
    pub incarnation: u64,
    /// The epoch of the geometry that addresses belong to.
    pub geometry_epoch: u32,
    /// The array epoch in which it was written.
    pub array_epoch: u64,
    /// One more than the record's before, pads counted; the first is 1.
    pub sequence: u64,
    /// The descriptor's virtual position in the lane, in blocks.
    pub position: u64,
    /// Blocks of the record, the descriptor included.
    pub length_blocks: u32,
    /// The highest sequence acknowledged when the record was written; below its own.
    pub durable_upto: u64,
    /// The checksum of the descriptor before; 0 at a lane's very first record.
    pub previous_crc: u32,
}

/// A descriptor that verified.
#[derive(Clone, Debug)]
pub struct OpenRecord<'a> {
    /// The header.
    pub header: RecordHeader,
    /// The entries; each of them was checked.
    pub entries: Entries<'a>,
    /// The descriptor's checksum, which the next record carries.
    pub crc: u32,
}

/// Entries of a descriptor that verified.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: core::slice::Iter<'a, [u8; ENTRY_BYTES]>,
    sequence: u64,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let bytes = self.rest.next()?;
        Some(Entry::decode(bytes, self.sequence).expect("entries are checked when the record is opened"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rest.size_hint()
    }
}

impl ExactSizeIterator for Entries<'_> {}

/// Why a block is no record of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// Something else lies there.
    #[error("there is no record")]
    NotARecord,
    /// It was torn or has decayed.
    #[error("the descriptor's checksum is wrong")]
    BadCrc,
    /// Left over from another log.
    #[error("the record belongs to another log")]
    OtherLog,
    /// Written by a newer version.
    #[error("the record has format version {0}; this program knows {VERSION}")]
    Version(u16),
    /// Written by a newer version.
    #[error("record kind {0} is unknown: written by a newer version")]
    UnknownKind(u8),
    /// An entry is unknown or out of range.
    #[error(transparent)]
    Entry(#[from] EntryFault),
    /// Its numbers contradict each other.
    #[error("the record is not consistent: {0}")]
    Malformed(&'static str),
}

impl RecordFault {
    /// Whether a newer version wrote what this one cannot read: not a torn record, and nothing to guess about.
    pub const fn is_newer_version(&self) -> bool {
        matches!(self, Self::Version(_) | Self::UnknownKind(_) | Self::Entry(EntryFault::UnknownKind(_)))
    }
}

impl From<Truncated> for RecordFault {
    fn from(_: Truncated) -> Self {
        Self::Malformed("it ends before its fields do")
    }
}

/// CRC32C of a payload block. The identity goes in first, so a payload of another log does not verify.
pub fn payload_crc(identity: &LogIdentity, payload: &Block) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&identity.array.0), &identity.generation.to_le_bytes());
    crc32c::crc32c_append(seed, payload)
}

/// Fills a descriptor block and returns its checksum, which the next record of the lane carries.
///
/// # Panics
/// If header and entries do not make a record.
pub fn seal_record(identity: &LogIdentity, header: &RecordHeader, entries: &[Entry], out: &mut Block) -> u32 {
    assert!(entries.len() <= MAX_ENTRIES, "{} entries are more than {MAX_ENTRIES}", entries.len());
    let payloads = entries.iter().filter(|entry| entry.has_payload()).count();
    if let Err(fault) = check(header, entries.len(), payloads) {
        panic!("{fault}: {header:?}");
    }
    let (kind, previous_incarnation) = match header.kind {
        RecordKind::Transaction => (TRANSACTION, 0),
        RecordKind::Pad => (PAD, 0),
        RecordKind::Opening { previous_incarnation } => (OPENING, previous_incarnation),
    };
    out.fill(0);
    let mut to = Writer::new(out);
    to.bytes(&MAGIC).u32_le(0).u16_le(VERSION).u8(kind).u8(0);
    to.bytes(&identity.array.0).u128_le(identity.generation);
    to.u64_le(header.incarnation).u64_le(header.sequence).u64_le(header.position).u64_le(header.durable_upto);
    to.u64_le(header.array_epoch).u64_le(previous_incarnation);
    to.u32_le(header.geometry_epoch).u32_le(header.previous_crc).u32_le(header.length_blocks);
    to.u16_le(entries.len() as u16).u16_le(header.lane.0).pad_to(HEADER_BYTES);
    for entry in entries {
        assert_eq!(entry.check(header.sequence), Ok(()), "{entry:?} of sequence {}", header.sequence);
        to.bytes(&entry.encode());
    }
    put_crc(out)
}

/// Reads a descriptor block of this log and checks all that can be checked about it alone.
pub fn open_record<'a>(identity: &LogIdentity, block: &'a Block) -> Result<OpenRecord<'a>, RecordFault> {
    if block[..8] != MAGIC {
        return Err(RecordFault::NotARecord);
    }
    let crc = verified_crc(block).ok_or(RecordFault::BadCrc)?;
    let mut from = Reader::new(&block[12..HEADER_BYTES]);
    let (version, kind, reserved) = (from.u16_le()?, from.u8()?, from.u8()?);
    let own = LogIdentity { array: Uuid(from.array()?), generation: from.u128_le()? };
    // Identity before version: a newer program's records of an earlier log are of no concern.
    if own != *identity {
        return Err(RecordFault::OtherLog);
    }
    if version != VERSION {
        return Err(RecordFault::Version(version));
    }
    let (incarnation, sequence, position) = (from.u64_le()?, from.u64_le()?, from.u64_le()?);
    let (durable_upto, array_epoch, previous_incarnation) = (from.u64_le()?, from.u64_le()?, from.u64_le()?);
    let (geometry_epoch, previous_crc, length_blocks) = (from.u32_le()?, from.u32_le()?, from.u32_le()?);
    let (count, lane) = (usize::from(from.u16_le()?), LaneId(from.u16_le()?));
    let kind = match kind {
        TRANSACTION => RecordKind::Transaction,
        PAD => RecordKind::Pad,
        OPENING => RecordKind::Opening { previous_incarnation },
        _ => return Err(RecordFault::UnknownKind(kind)),
    };
    let opening = matches!(kind, RecordKind::Opening { .. });
    if reserved != 0 || from.rest().iter().any(|&byte| byte != 0) || (!opening && previous_incarnation != 0) {
        return Err(RecordFault::Malformed("a reserved field is not zero"));
    }
    let header = RecordHeader {
        kind,
        lane,
        incarnation,
        geometry_epoch,
        array_epoch,
        sequence,
        position,
        length_blocks,
        durable_upto,
        previous_crc,
    };
    if count > MAX_ENTRIES {
        return Err(RecordFault::Malformed("more entries than a descriptor holds"));
    }
    let (bytes, _) = block[HEADER_BYTES..HEADER_BYTES + count * ENTRY_BYTES].as_chunks::<ENTRY_BYTES>();
    let mut payloads = 0;
    for bytes in bytes {
        payloads += usize::from(Entry::decode(bytes, sequence)?.has_payload());
    }
    check(&header, count, payloads)?;
    Ok(OpenRecord { header, entries: Entries { rest: bytes.iter(), sequence }, crc })
}

/// What must hold between the fields of any record.
fn check(header: &RecordHeader, entries: usize, payloads: usize) -> Result<(), RecordFault> {
    let length = header.length_blocks as usize;
    if header.incarnation > MAX_COUNT {
        return Err(RecordFault::Malformed("its incarnation is out of range"));
    }
    if header.sequence == 0 || header.sequence > MAX_COUNT || header.position > MAX_COUNT {
        return Err(RecordFault::Malformed("sequence or position is out of range"));
    }
    // A record is written before it is acknowledged, so it cannot say that it was.
    if header.durable_upto >= header.sequence {
        return Err(RecordFault::Malformed("it claims to have been acknowledged before it was written"));
    }
    if length == 0 || length > MAX_RECORD_BLOCKS {
        return Err(RecordFault::Malformed("its length is out of range"));
    }
    match header.kind {
        RecordKind::Pad if entries != 0 => Err(RecordFault::Malformed("a pad has entries")),
        RecordKind::Transaction | RecordKind::Opening { .. } if payloads + 1 != length => {
            Err(RecordFault::Malformed("its length does not fit its entries"))
        }
        RecordKind::Opening { previous_incarnation } if previous_incarnation >= header.incarnation => {
            Err(RecordFault::Malformed("its incarnation does not follow the one before"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ids::{ArrayBlock, StripeId};
    use base::{BLOCK, ZERO_BLOCK};
    use proptest::prelude::*;

    const IDENTITY: LogIdentity = LogIdentity { array: Uuid([3; 16]), generation: 77 };

    fn header(kind: RecordKind, length_blocks: u32) -> RecordHeader {
        RecordHeader {
            kind,
            lane: LaneId(4),
            incarnation: 6,
            geometry_epoch: 1,
            array_epoch: 9,
            sequence: 300,
            position: 5000,
            length_blocks,
            durable_upto: 296,
            previous_crc: 0x1234_5678,
        }
    }

    fn entries() -> Vec<Entry> {
        vec![
            Entry::Data { block: ArrayBlock(5), crc: 1 },
            Entry::Zeros { block: ArrayBlock(100), count: 16 },
            Entry::Parity { stripe: StripeId(2), index: 0, crc: 2 },
            Entry::Covers { block: ArrayBlock(5), lag: 0 },
            Entry::Destaged { stripe: StripeId(1), lag: 7 },
        ]
    }

    fn sealed(kind: RecordKind, length: u32, entries: &[Entry]) -> Block {
        let mut block = ZERO_BLOCK;
        seal_record(&IDENTITY, &header(kind, length), entries, &mut block);
        block
    }

    #[test]
    fn what_is_sealed_opens() {
        for (kind, length, entries) in [
            (RecordKind::Transaction, 3, entries()),
            (RecordKind::Transaction, 1, vec![]),
            (RecordKind::Pad, 77, vec![]),
            (RecordKind::Opening { previous_incarnation: 5 }, 1, vec![]),
            (RecordKind::Transaction, 1, vec![Entry::Zeros { block: ArrayBlock(1), count: 1 }; MAX_ENTRIES]),
            (RecordKind::Transaction, 129, vec![Entry::Data { block: ArrayBlock(1), crc: 1 }; 128]),
        ] {
            let block = sealed(kind, length, &entries);
            let record = open_record(&IDENTITY, &block).expect("what was sealed opens");
            assert_eq!(record.header, header(kind, length));
            assert_eq!(record.entries.len(), entries.len());
            assert!(record.entries.eq(entries));
        }
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_a_fault() {
        let whole = sealed(RecordKind::Transaction, 3, &entries());
        for at in 0..BLOCK {
            let mut flipped = whole;
            flipped[at] ^= 0x80;
            let expected = if at < 8 { RecordFault::NotARecord } else { RecordFault::BadCrc };
            assert_eq!(open_record(&IDENTITY, &flipped).err(), Some(expected), "byte {at}");
        }
        let used = HEADER_BYTES + entries().len() * ENTRY_BYTES;
        for cut in 0..used {
            let mut torn = [0xee; BLOCK];
            torn[..cut].copy_from_slice(&whole[..cut]);
            assert!(open_record(&IDENTITY, &torn).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let whole = sealed(RecordKind::Transaction, 3, &entries());
        let fault = |change: &dyn Fn(&mut Block)| {
            let mut block = whole;
            change(&mut block);
            put_crc(&mut block);
            open_record(&IDENTITY, &block).map(|record| record.crc).expect_err("a fault")
        };
        assert_eq!(fault(&|block| block[12] = 2), RecordFault::Version(2));
        assert_eq!(fault(&|block| block[14] = 9), RecordFault::UnknownKind(9));
        assert_eq!(fault(&|block| block[16] ^= 1), RecordFault::OtherLog);
        assert_eq!(fault(&|block| (block[12], block[32]) = (2, 1)), RecordFault::OtherLog);
        assert_eq!(fault(&|block| block[128] = 9), RecordFault::Entry(EntryFault::UnknownKind(9)));
        assert!(fault(&|block| block[128] = 9).is_newer_version());
        for at in [15, 88, 112, 127] {
            assert_eq!(fault(&|block| block[at] = 1), RecordFault::Malformed("a reserved field is not zero"));
        }
        for change in [
            &|block: &mut Block| block[104] = 4 as _,
            &|block: &mut Block| block[104] = 0,
            &|block: &mut Block| block[108] = 255,
            &|block: &mut Block| block[72..80].copy_from_slice(&300u64.to_le_bytes()),
            &|block: &mut Block| block[56..72].fill(0xff),
        ] as [&dyn Fn(&mut Block); 5]
        {
            assert!(matches!(fault(change), RecordFault::Malformed(_) | RecordFault::Entry(_)));
        }
    }

    #[test]
    fn a_payload_checksum_knows_its_log() {
        let other = LogIdentity { generation: 78, ..IDENTITY };
        assert_ne!(payload_crc(&IDENTITY, &ZERO_BLOCK), payload_crc(&other, &ZERO_BLOCK));
        assert_ne!(payload_crc(&IDENTITY, &ZERO_BLOCK), crc32c::crc32c(&ZERO_BLOCK));
    }

    proptest! {
        #[test]
        fn no_header_under_a_right_checksum_panics(changes in proptest::collection::vec((12usize..400, any::<u8>()), 1..8)) {
            let mut block = sealed(RecordKind::Transaction, 3, &entries());
            for (at, value) in changes {
                block[at] = value;
            }
            put_crc(&mut block);
            if let Ok(record) = open_record(&IDENTITY, &block) {
                let entries: Vec<Entry> = record.entries.clone().collect();
                let mut again = ZERO_BLOCK;
                seal_record(&IDENTITY, &record.header, &entries, &mut again);
                let used = HEADER_BYTES + entries.len() * ENTRY_BYTES;
                prop_assert_eq!(&again[12..used], &block[12..used]);
            }
        }
    }
}
