//! The bytes of each structure, as committed under `golden/`: a change of these is a change of the format.

use base::ids::{ArrayBlock, DeviceBlock, LaneId, StripeId};
use base::{Block, ZERO_BLOCK, uuid::Uuid};
use journal::superblock::LaterRegion;
use journal::{
    Anchor, Entry, LogIdentity, LogLayout, LogMode, LogSuperblock, RecordHeader, RecordKind, format_lane, open_record,
    payload_crc, seal_record,
};

const IDENTITY: LogIdentity =
    LogIdentity { array: Uuid(*b"array-uuid-bytes"), generation: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100 };

const HEADER: RecordHeader = RecordHeader {
    kind: RecordKind::Transaction,
    lane: LaneId(3),
    incarnation: 0x21,
    geometry_epoch: 0x31,
    array_epoch: 0x41,
    sequence: 0x51,
    position: 0x61,
    length_blocks: 3,
    durable_upto: 0x4f,
    previous_crc: 0x7172_7374,
};

/// Sixteen bytes a line; lines of zeros are left out.
fn hex(block: &Block) -> String {
    let mut text = String::new();
    for (at, line) in block.chunks_exact(16).enumerate().filter(|(_, line)| line.iter().any(|&byte| byte != 0)) {
        text += &format!("{:04x}:", at * 16);
        line.iter().for_each(|byte| text += &format!(" {byte:02x}"));
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Block {
    let mut block = ZERO_BLOCK;
    for line in text.lines() {
        let (at, bytes) = line.split_once(':').expect("an offset");
        let at = usize::from_str_radix(at, 16).expect("an offset");
        for (byte, digits) in block[at..].iter_mut().zip(bytes.split_whitespace()) {
            *byte = u8::from_str_radix(digits, 16).expect("a byte");
        }
    }
    block
}

#[track_caller]
fn same(block: &Block, golden: &str) {
    assert_eq!(hex(block), golden, "the format has changed:\n{}", hex(block));
    assert_eq!(*block, unhex(golden));
}

fn sealed(header: &RecordHeader, entries: &[Entry]) -> Block {
    let mut block = ZERO_BLOCK;
    seal_record(&IDENTITY, header, entries, &mut block);
    block
}

#[test]
fn superblock() {
    same_superblock([Uuid::NIL; 32], include_str!("../golden/superblock.hex"));
    let mut members = [Uuid::NIL; 32];
    members[0] = Uuid(*b"first-of-members");
    members[31] = Uuid(*b"last--of-members");
    same_superblock(members, include_str!("../golden/superblock-with-members.hex"));
}

#[track_caller]
fn same_superblock(member_uuids: [Uuid; 32], golden: &str) {
    let superblock = LogSuperblock {
        identity: IDENTITY,
        compatible: 0,
        copy: Uuid(*b"copy--uuid-bytes"),
        copy_index: 1,
        copy_count: 2,
        epoch: 0x11,
        members: 0x0a0b_0c0d,
        member_uuids,
        geometry_epoch: 0x31,
        incarnation: 0x21,
        mode: LogMode::WriteBack,
        joining: true,
        update: 0x81,
        layout: LogLayout::for_device(16_384, 16).expect("large enough"),
        later_regions: vec![LaterRegion { kind: 0x77, flags: 1, start: 16_384, blocks: 64 }],
    };
    let mut block = ZERO_BLOCK;
    superblock.encode(&mut block);
    same(&block, golden);
    assert_eq!(LogSuperblock::decode(&unhex(golden)), Ok(superblock));
}

#[test]
fn anchor() {
    let anchor = Anchor {
        lane: LaneId(3),
        update: 0x91,
        tail_position: 0x61,
        tail_sequence: 0x51,
        tail_incarnation: 0x21,
        tail_previous_crc: 0x7172_7374,
    };
    let mut block = ZERO_BLOCK;
    anchor.encode(&IDENTITY, &mut block);
    same(&block, include_str!("../golden/anchor.hex"));
    assert_eq!(Anchor::decode(&IDENTITY, LaneId(3), &unhex(include_str!("../golden/anchor.hex"))), Ok(anchor));
}

#[test]
fn transaction() {
    let entries = [
        Entry::Data { block: ArrayBlock(0x1000), crc: payload_crc(&IDENTITY, &[0xab; base::BLOCK]) },
        Entry::Zeros { block: ArrayBlock(0x2000), count: 16 },
        Entry::Parity { stripe: StripeId(0x400), index: 0, crc: payload_crc(&IDENTITY, &ZERO_BLOCK) },
        Entry::Covers { block: ArrayBlock(0x1000), lag: 0 },
        Entry::Destaged { stripe: StripeId(0x3ff), lag: 9 },
    ];
    same(&sealed(&HEADER, &entries), include_str!("../golden/transaction.hex"));
    let block = unhex(include_str!("../golden/transaction.hex"));
    let record = open_record(&IDENTITY, &block).expect("opens");
    assert_eq!(record.header, HEADER);
    assert!(record.entries.eq(entries));
}

#[test]
fn pad_and_opening() {
    let pad = RecordHeader { kind: RecordKind::Pad, length_blocks: 99, ..HEADER };
    same(&sealed(&pad, &[]), include_str!("../golden/pad.hex"));
    let kind = RecordKind::Opening { previous_incarnation: 0x20 };
    let opening = RecordHeader { kind, length_blocks: 1, ..HEADER };
    same(&sealed(&opening, &[]), include_str!("../golden/opening.hex"));
}

#[test]
fn a_new_lane() {
    let layout = LogLayout::for_device(16_384, 16).expect("large enough");
    let (blocks, crc) = format_lane(&layout, &IDENTITY, LaneId(2), 7, 5, 1);
    assert_eq!(blocks[0].0, layout.ring_block(LaneId(2), 0));
    assert_eq!(blocks[1].0, DeviceBlock(16 + 2 * 2 + 1));
    same(&blocks[0].1, include_str!("../golden/first-opening.hex"));
    same(&blocks[1].1, include_str!("../golden/first-anchor.hex"));
    assert_eq!(open_record(&IDENTITY, &blocks[0].1).expect("opens").crc, crc);
}
