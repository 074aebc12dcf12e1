//! What is written comes back, and nothing that is read is trusted.

use super::*;
use base::ZERO_BLOCK;

/// As members were laid out before there were bits of missed zones.
fn earlier_layout(checksums: bool) -> MemberLayout {
    let layout = MemberLayout::for_device(1 << 16, 1024, checksums).expect("256 MiB is enough");
    let start = layout.missed.expect("a new member keeps them").start;
    let checksums = layout.checksums.map(|region| Region { start, ..region });
    MemberLayout { missed: None, checksums, ..layout }
}

pub(crate) fn example() -> Superblock {
    // Nor were there bits of dirty zones.
    let layout = MemberLayout { dirty: None, ..earlier_layout(false) };
    let geometry = Geometry::new(Level::Raid5, 3, 16, layout.data.blocks).expect("three members");
    let member = |at: u8| MemberEntry { uuid: Uuid([at + 1; 16]), state: State::Active };
    let copy = |at: u8| CopyEntry::active(Uuid([at + 11; 16]));
    Superblock {
        compatible: 0,
        array: Uuid([9; 16]),
        name: "a0".to_owned(),
        slot: 1,
        geometry,
        geometry_epoch: 0,
        growth: None,
        epoch: 7,
        update: 12,
        log_generation: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        members: (0..3).map(member).collect(),
        copies: (0..2).map(copy).collect(),
        scrub: None,
        log_fate: LogFate::Kept,
        away: None,
        layout,
        later_regions: Vec::new(),
        controller_ids: (1, 0x7fff),
        fencing_epoch: 3,
    }
}

fn encoded(superblock: &Superblock) -> Block {
    let mut block = ZERO_BLOCK;
    superblock.encode(&mut block);
    block
}

#[test]
fn what_is_encoded_is_decoded_and_every_flipped_byte_is_refused() {
    let mut superblock = example();
    superblock.exclude(8, 0b100, 0b10);
    superblock.later_regions.push(LaterRegion { kind: 900, flags: 3, start: 1 << 16, blocks: 10 });
    let whole = encoded(&superblock);
    assert_eq!(Superblock::decode(&whole), Ok(superblock.clone()));
    assert_eq!(superblock.members[2].state, State::Excluded { since: 8 });
    assert_eq!((superblock.epoch, superblock.update), (8, 13));
    for at in 0..base::BLOCK {
        let mut flipped = whole;
        flipped[at] ^= 0x40;
        assert!(Superblock::decode(&flipped).is_err(), "byte {at}");
    }
}

#[test]
fn hostile_fields_under_a_good_checksum_are_errors() {
    let whole = encoded(&example());
    for at in 12..MEMBERS_AT + 3 * MEMBER_BYTES {
        for value in [0, 1, 0x7f, 0xff] {
            let mut hostile = whole;
            hostile[at] = value;
            let crc = crc_of(&hostile);
            hostile[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(superblock) = Superblock::decode(&hostile) {
                assert!(superblock.layout.check(superblock.geometry.stripes(), superblock.geometry.zones()).is_ok());
            }
        }
    }
}

/// The example with other bytes under a good checksum.
fn forged(changes: &[(usize, &[u8])]) -> Result<Superblock, SuperblockError> {
    let mut block = encoded(&example());
    for (at, bytes) in changes {
        block[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    let crc = crc_of(&block);
    block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    Superblock::decode(&block)
}

#[test]
fn epochs_and_updates_that_cannot_be_counted_on_are_refused() {
    const EPOCH_AT: usize = 64;
    const UPDATE_AT: usize = 72;
    for at in [EPOCH_AT, UPDATE_AT] {
        assert!(forged(&[(at, &MAX_EPOCH.to_le_bytes())]).is_ok(), "byte {at}");
        for number in [MAX_EPOCH + 1, u64::MAX] {
            let refused = forged(&[(at, &number.to_le_bytes())]);
            assert!(matches!(refused, Err(SuperblockError::Malformed(_))), "{number} at byte {at}");
        }
    }
    let mut last = forged(&[(EPOCH_AT, &MAX_EPOCH.to_le_bytes()), (UPDATE_AT, &MAX_EPOCH.to_le_bytes())])
        .expect("the highest that is believed");
    last.exclude(MAX_EPOCH + 1, 0b1, 0);
    assert_eq!((last.epoch, last.update), (MAX_EPOCH + 1, MAX_EPOCH + 1));
}

#[test]
fn regions_of_a_later_version_are_kept_and_none_is_named_twice_or_over_another() {
    let place = |at: usize, kind: u16, start: u64, blocks: u64| {
        let mut bytes = [0; REGION_BYTES];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&start.to_le_bytes());
        bytes[16..24].copy_from_slice(&blocks.to_le_bytes());
        (REGIONS_AT + at * REGION_BYTES, bytes)
    };
    let with = |(at, bytes): (usize, [u8; REGION_BYTES])| forged(&[(at, &bytes)]);
    // A free place before it does not end the table.
    let kept = with(place(9, 77, 1 << 16, 5)).expect("a later region");
    assert_eq!(kept.later_regions, [LaterRegion { kind: 77, flags: 0, start: 1 << 16, blocks: 5 }]);
    assert_eq!(Superblock::decode(&encoded(&kept)), Ok(kept));
    let data = example().layout.data;
    for known in [REGION_BITMAP, REGION_METADATA, REGION_DATA] {
        let twice = with(place(3, known, 1 << 16, data.blocks));
        assert_eq!(twice, Err(SuperblockError::Malformed("a region is named twice")), "kind {known}");
    }
    for (start, blocks) in [(0, 4), (data.start, 1), (1 << 16, u64::MAX)] {
        let wrong = with(place(3, 77, start, blocks));
        assert!(matches!(wrong, Err(SuperblockError::Layout(_))), "{blocks} blocks at {start}");
    }
}

#[test]
fn what_the_array_needs_of_the_device_is_known() {
    let superblock = example();
    assert_eq!(superblock.device_blocks(), superblock.layout.data.start + superblock.geometry.stripes());
    let mut elsewhere = superblock;
    elsewhere.layout.bitmap.start = 1 << 20;
    assert_eq!(elsewhere.device_blocks(), (1 << 20) + elsewhere.layout.bitmap.blocks);
}

#[test]
fn the_newer_place_holds_and_a_newer_version_is_not_overlooked() {
    let (mut old, mut new) = (example(), example());
    old.update = 4;
    new.update = 5;
    let (a, b) = (encoded(&old), encoded(&new));
    assert_eq!(Superblock::newest(&a, &b).map(|newest| newest.update), Ok(5));
    assert_eq!(Superblock::newest(&b, &a).map(|newest| newest.update), Ok(5));
    assert_eq!(Superblock::newest(&a, &ZERO_BLOCK).map(|newest| newest.update), Ok(4));
    assert_eq!(Superblock::newest(&ZERO_BLOCK, &ZERO_BLOCK), Err(SuperblockError::NotASuperblock));
    let mut later = b;
    later[12] = 2;
    let crc = crc_of(&later);
    later[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Superblock::newest(&a, &later), Err(SuperblockError::Version(2)));
    assert_ne!(superblock_block(4), superblock_block(5));
}

fn rebuilding() -> Superblock {
    let mut superblock = example();
    superblock.members[2] = MemberEntry { uuid: Uuid([77; 16]), state: State::Rebuilding { position: 2048 } };
    superblock
}

#[test]
fn a_rebuild_is_announced_to_programs_that_would_not_understand_it_and_only_then() {
    const INCOMPATIBLE_AT: usize = 24;
    let whole = encoded(&rebuilding());
    assert_eq!(Superblock::decode(&whole), Ok(rebuilding()));
    assert_eq!(whole[INCOMPATIBLE_AT], 1);
    assert_eq!(encoded(&example())[INCOMPATIBLE_AT], 0);
    let forge = |block: &Block, at: usize, byte: u8| {
        let mut block = *block;
        block[at] = byte;
        let crc = crc_of(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Superblock::decode(&block)
    };
    assert!(matches!(forge(&whole, INCOMPATIBLE_AT, 0), Err(SuperblockError::Malformed(_))));
    assert!(matches!(forge(&encoded(&example()), INCOMPATIBLE_AT, 1), Err(SuperblockError::Malformed(_))));
    assert_eq!(forge(&whole, INCOMPATIBLE_AT, 129), Err(SuperblockError::Incompatible(128)));
    let position_at = MEMBERS_AT + 2 * MEMBER_BYTES + 24;
    assert!(matches!(forge(&whole, position_at, 1), Err(SuperblockError::Malformed(_))), "no whole zone");
    assert!(matches!(forge(&whole, position_at + 5, 1), Err(SuperblockError::Malformed(_))), "beyond the end");
    assert!(matches!(forge(&whole, COPIES_AT + 16, 3), Err(SuperblockError::Malformed(_))), "a log copy");
    let mut excluded = rebuilding();
    excluded.exclude(8, 0b100, 0);
    assert_eq!(excluded.members[2].state, State::Excluded { since: 8 });
}

fn without_log() -> Superblock {
    Superblock { log_generation: 0, copies: Vec::new(), layout: earlier_layout(false), ..example() }
}

#[test]
fn that_there_is_no_log_is_announced_and_goes_with_bits_of_dirty_zones() {
    const INCOMPATIBLE_AT: usize = 24;
    let whole = encoded(&without_log());
    assert_eq!((Superblock::decode(&whole), whole[INCOMPATIBLE_AT]), (Ok(without_log()), 2));
    let mut lost = Superblock { layout: without_log().layout, ..example() };
    assert_eq!(encoded(&lost)[INCOMPATIBLE_AT], 0);
    lost.exclude(8, 0, 0b11);
    assert_eq!((Superblock::decode(&encoded(&lost)), encoded(&lost)[INCOMPATIBLE_AT]), (Ok(lost.clone()), 2));
    lost.layout.dirty = None;
    assert!(matches!(Superblock::decode(&encoded(&lost)), Err(SuperblockError::Malformed(_))));
    let dirty = lost.layout.metadata;
    lost.layout.dirty = Some(dirty);
    assert!(matches!(Superblock::decode(&encoded(&lost)), Err(SuperblockError::Layout(_))), "over another region");
}

fn log_lost() -> Superblock {
    Superblock { layout: without_log().layout, log_fate: LogFate::Lost, ..example() }
}

fn log_given_up() -> Superblock {
    let mut superblock = log_lost();
    let mut tables = superblock.tables();
    tables.log_fate = LogFate::GivenUp;
    tables.exclude(8, 0, 0b11);
    superblock.renew(8, &tables);
    superblock
}

#[test]
fn what_became_of_the_log_is_announced_and_goes_with_the_copies() {
    const INCOMPATIBLE_AT: usize = 24;
    for (superblock, features) in [(log_lost(), 8), (log_given_up(), 2 | 16)] {
        let whole = encoded(&superblock);
        assert_eq!((whole[INCOMPATIBLE_AT], superblock.counts_dirty()), (features, true));
        assert_eq!(Superblock::decode(&whole), Ok(superblock.clone()));
        assert_eq!(superblock.tables().log_fate, superblock.log_fate);
        // None of these is what the copies say.
        for other in [8 | 16, 2 | 8 | 16, if features == 8 { 16 } else { 2 | 8 | 16 }] {
            let mut forged = whole;
            forged[INCOMPATIBLE_AT] = other;
            let crc = crc_of(&forged);
            forged[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(Superblock::decode(&forged), Err(SuperblockError::Malformed(_))), "{other}");
        }
        let older = Superblock { layout: example().layout, ..superblock };
        assert!(matches!(Superblock::decode(&encoded(&older)), Err(SuperblockError::Malformed(_))), "no bits");
    }
    let never_had_one = Superblock { log_fate: LogFate::GivenUp, ..without_log() };
    assert!(matches!(Superblock::decode(&encoded(&never_had_one)), Err(SuperblockError::Malformed(_))));
    let in_use = Superblock { log_fate: LogFate::GivenUp, ..log_lost() };
    assert!(matches!(Superblock::decode(&encoded(&in_use)), Err(SuperblockError::Malformed(_))));
}

fn with_checksums() -> Superblock {
    Superblock { layout: earlier_layout(true), ..example() }
}

#[test]
fn that_checksums_are_kept_is_announced_and_goes_with_a_region_for_them() {
    const INCOMPATIBLE_AT: usize = 24;
    let whole = encoded(&with_checksums());
    assert_eq!((Superblock::decode(&whole), whole[INCOMPATIBLE_AT]), (Ok(with_checksums()), 4));
    for (block, feature) in [(whole, 0), (encoded(&example()), 4)] {
        let mut block = block;
        block[INCOMPATIBLE_AT] = feature;
        let crc = crc_of(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Superblock::decode(&block), Err(SuperblockError::Malformed(_))));
    }
}

fn scrubbed() -> Superblock {
    Superblock { scrub: Some(crate::scrub::tests::example()), ..example() }
}

#[test]
fn a_scrub_is_remembered_and_who_does_not_know_of_it_loses_nothing_else() {
    let whole = encoded(&scrubbed());
    assert_eq!(Superblock::decode(&whole), Ok(scrubbed()));
    let written = |changes: &[(usize, &[u8])]| {
        let mut block = whole;
        changes.iter().for_each(|(at, bytes)| block[*at..at + bytes.len()].copy_from_slice(bytes));
        let crc = crc_of(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Superblock::decode(&block)
    };
    assert_eq!(written(&[(SCRUB_AT, &[0; SCRUB_BYTES])]), Ok(example()), "the number was kept, the record was not");
    assert_eq!(written(&[(16, &[0])]), Ok(example()));
    assert_eq!(written(&[(16, &[0b11])]), Ok(Superblock { compatible: 0b10, ..scrubbed() }));
    let mut renewed = example();
    renewed.renew(8, &scrubbed().tables());
    assert_eq!(renewed.scrub, scrubbed().scrub);
}

/// Slot 2 is out, and slot 0 on its way back.
fn with_members_away() -> Superblock {
    let layout = MemberLayout::for_device(1 << 16, 1024, true).expect("256 MiB is enough");
    let mut superblock = Superblock { layout, away: Some(Away { returning: 1 }), ..example() };
    superblock.members[0].state = State::Rebuilding { position: 1024 };
    superblock.members[2].state = State::Excluded { since: 6 };
    superblock
}

/// Slot 3 has come, and two windows have been moved.
fn growing() -> Superblock {
    let mut superblock = example();
    let mut tables = superblock.tables();
    tables.grow(MemberEntry { uuid: Uuid([4; 16]), state: State::Active }, 32).expect("one more than three");
    tables.advance(2);
    superblock.renew(8, &tables);
    superblock
}

#[test]
fn a_growth_that_cannot_be_is_refused() {
    let whole = encoded(&growing());
    let decoded = Superblock::decode(&whole).expect("what was encoded");
    assert_eq!(decoded, growing());
    let reshape = *decoded.arrangement().reshape().expect("it is under way");
    assert_eq!((reshape.before().members(), reshape.after().members(), reshape.steps()), (3, 4, 2));
    let forged = |at: usize, bytes: &[u8]| {
        let mut block = whole;
        block[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = crc_of(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Superblock::decode(&block)
    };
    // From no fewer members, by a window that is none, to a boundary within one or beyond the end, without the feature.
    let stripes = decoded.geometry.stripes();
    // Or nobody could count the windows that are left.
    const GEOMETRY_EPOCH_AT: usize = 80;
    let impossible: [(usize, &[u8]); 8] = [
        (GEOMETRY_EPOCH_AT, &u32::MAX.to_le_bytes()),
        (GROWTH_AT, &[4]),
        (GROWTH_AT, &[0]),
        (GROWTH_AT + 4, &[33, 0, 0, 0]),
        (GROWTH_AT + 4, &[8, 0, 0, 0]),
        (GROWTH_AT + 8, &[65]),
        (GROWTH_AT + 8, &(stripes + 32).to_le_bytes()),
        (GROWTH_AT + 8, &96_u64.to_le_bytes()),
    ];
    for (at, bytes) in impossible {
        assert!(matches!(forged(at, bytes), Err(SuperblockError::Malformed(_))), "{bytes:?} at {at}");
    }
    // What it was before is told by the geometry epoch and the boundary together.
    assert!(forged(GROWTH_AT + 8, &32_u64.to_le_bytes()).is_ok());
    let mut over = growing();
    let windows = (stripes - 64) / 32;
    let mut tables = over.tables();
    tables.advance(windows);
    over.renew(9, &tables);
    let over = Superblock::decode(&encoded(&over)).expect("all has been moved");
    assert_eq!(over.arrangement(), crate::Arrangement::of(over.geometry));
}

#[test]
fn the_bytes_are_golden() {
    let goldens = [
        include_str!("../../golden/superblock.hex"),
        include_str!("../../golden/superblock-rebuilding.hex"),
        include_str!("../../golden/superblock-without-log.hex"),
        include_str!("../../golden/superblock-scrubbed.hex"),
        include_str!("../../golden/superblock-checksums.hex"),
        include_str!("../../golden/superblock-log-lost.hex"),
        include_str!("../../golden/superblock-log-given-up.hex"),
        include_str!("../../golden/superblock-members-away.hex"),
        include_str!("../../golden/superblock-growing.hex"),
    ];
    let superblocks = [
        example(),
        rebuilding(),
        without_log(),
        scrubbed(),
        with_checksums(),
        log_lost(),
        log_given_up(),
        with_members_away(),
        growing(),
    ];
    for (superblock, golden) in superblocks.iter().zip(goldens) {
        let hex: String = encoded(superblock)
            .chunks(32)
            .enumerate()
            .filter(|(_, line)| line.iter().any(|&byte| byte != 0))
            .map(|(at, line)| {
                let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{:04x} {digits}\n", at * 32)
            })
            .collect();
        assert_eq!(hex, golden, "the format of version 1 never changes:\n{hex}");
    }
}
