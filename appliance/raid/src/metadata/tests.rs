//! What is written comes back, what is damaged or forged is refused, and space is handed out once.

use super::*;
use crate::Level;
use serde_json::json;

const ARRAY: Uuid = Uuid(*b"array-uuid-bytes");

/// Four members, chunks of 16 blocks: rows of 48 blocks, 3 zones of 3072.
fn geometry() -> Geometry {
    Geometry::new(Level::Raid5, 4, 16, 3 * 1024).expect("a geometry")
}

fn add(metadata: &mut Metadata, name: &str, blocks: u64) -> Result<VolumeRecord, MetadataError> {
    let random = [blocks, name.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))];
    metadata.create_volume(&geometry(), VolumeSpec::new(name, blocks), random, Origin::Config).cloned()
}

fn example() -> Metadata {
    let mut metadata = Metadata::default();
    add(&mut metadata, "alpha", 100).expect("room");
    add(&mut metadata, "beta", 48).expect("room");
    metadata.volumes[1].origin = Origin::Runtime;
    metadata.volumes[1].key_slot = Some(3);
    metadata
}

/// A slot with any content under right checksums.
fn slot_of(content: &[u8]) -> Vec<Block> {
    let mut blocks = Metadata::default().encode(ARRAY, 9).expect("small");
    blocks.truncate(1);
    blocks[0][40..44].copy_from_slice(&(content.len() as u32).to_le_bytes());
    blocks[0][44..48].copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    put_crc(&mut blocks[0]);
    for part in content.chunks(BLOCK) {
        let mut block = ZERO_BLOCK;
        block[..part.len()].copy_from_slice(part);
        blocks.push(block);
    }
    blocks
}

fn value(metadata: &Metadata) -> serde_json::Value {
    serde_json::to_value(metadata).expect("JSON")
}

fn decode(value: &serde_json::Value) -> Result<Metadata, MetadataError> {
    Metadata::decode(ARRAY, &slot_of(value.to_string().as_bytes())).map(|(_, metadata)| metadata)
}

#[test]
fn what_is_encoded_is_decoded_from_a_whole_slot() {
    for metadata in [Metadata::default(), example()] {
        let mut blocks = metadata.encode(ARRAY, 11).expect("small");
        assert_eq!(Metadata::decode(ARRAY, &blocks), Ok((11, metadata.clone())));
        blocks.resize(METADATA_BLOCKS, [0xa5; BLOCK]);
        assert_eq!(Metadata::decode(ARRAY, &blocks), Ok((11, metadata)));
    }
}

#[test]
fn fields_of_a_later_version_survive() {
    let mut later = value(&example());
    later["hosts"] = json!([{"nqn": "nqn.2014-08.org.example:host", "big": u64::MAX}]);
    later["volumes"][0]["qos"] = json!({"iops": 1000, "list": [1, null, true]});
    let metadata = decode(&later).expect("unknown fields are no error");
    assert_eq!(metadata.volumes[0].later["qos"]["iops"], 1000);
    let blocks = metadata.encode(ARRAY, 12).expect("small");
    assert_eq!(value(&Metadata::decode(ARRAY, &blocks).expect("ours").1), later);
}

#[test]
fn every_torn_and_every_flipped_slot_is_refused() {
    let mut metadata = example();
    for n in 0..20 {
        add(&mut metadata, &format!("more-{n}"), 1).expect("room");
    }
    let whole = metadata.encode(ARRAY, 11).expect("small");
    assert!(whole.len() > 2, "more than one block of content");
    for count in 0..whole.len() {
        assert!(Metadata::decode(ARRAY, &whole[..count]).is_err(), "{count} blocks");
    }
    let bytes = whole.as_flattened();
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
    for at in (0..BLOCK).chain((BLOCK..used).step_by(37)) {
        let mut blocks = whole.clone();
        blocks.as_flattened_mut()[at] ^= 0x20;
        assert!(Metadata::decode(ARRAY, &blocks).is_err(), "flipped byte {at}");
    }
    for cut in (0..64).chain((64..used).step_by(41)) {
        let mut blocks = whole.clone();
        blocks.as_flattened_mut()[cut..].fill(0);
        assert!(Metadata::decode(ARRAY, &blocks).is_err() || blocks == whole, "torn at {cut}");
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let forged = |at: usize, bytes: &[u8]| {
        let mut blocks = example().encode(ARRAY, 11).expect("small");
        blocks[0][at..at + bytes.len()].copy_from_slice(bytes);
        put_crc(&mut blocks[0]);
        Metadata::decode(ARRAY, &blocks).map(|(update, _)| update)
    };
    assert_eq!(Metadata::decode(ARRAY, &[ZERO_BLOCK]), Err(MetadataError::NotMetadata));
    assert_eq!(forged(12, &[2]), Err(MetadataError::Version(2)));
    assert_eq!(forged(16, &[1; 16]), Err(MetadataError::OtherArray(Uuid([1; 16]))));
    assert!(matches!(forged(32, &[0xff; 8]), Err(MetadataError::Malformed(_))));
    assert!(matches!(forged(40, &[0xff; 4]), Err(MetadataError::Malformed(_))));
    assert!(matches!(forged(40, &[1, 0]), Err(MetadataError::Damaged(_))));
    assert_eq!(forged(100, &[1]), Ok(11), "reserved bytes do not matter");
}

#[test]
fn content_under_a_right_checksum_is_still_not_trusted() {
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut forged = value(&example());
        change(&mut forged);
        matches!(decode(&forged), Err(MetadataError::Malformed(_)))
    };
    let volume = |field: &'static str, to: serde_json::Value| {
        refused(&move |forged: &mut serde_json::Value| forged["volumes"][1][field] = to.clone())
    };
    assert!(!refused(&|_| {}));
    for field in ["id", "name", "uuid", "nguid", "eui64"] {
        let first = value(&example())["volumes"][0][field].clone();
        assert!(volume(field, first), "{field} is another's");
    }
    for (field, to) in [
        ("id", json!(0)),
        ("id", json!(-1)),
        ("name", json!("")),
        ("name", json!("../x")),
        ("uuid", json!("00000000-0000-0000-0000-000000000000")),
        ("uuid", json!("not a uuid")),
        ("nguid", json!("0".repeat(32))),
        ("nguid", json!("+".repeat(32))),
        ("eui64", json!("+000000000000001")),
        ("eui64", json!("0".repeat(16))),
        ("eui64", json!(1)),
        ("blocks", json!(0)),
        ("blocks", json!(49)),
        ("origin", json!("elsewhere")),
        ("key_slot", json!(65_536)),
        ("extents", json!([])),
        ("extents", json!([{"start": 144, "blocks": 48}, {"start": 144, "blocks": 48}])),
        ("extents", json!([{"start": 0, "blocks": 48}])),
        ("extents", json!([{"start": u64::MAX, "blocks": 48}])),
        ("extents", json!([{"start": 144, "blocks": u64::MAX}, {"start": 200, "blocks": u64::MAX}])),
        ("extents", json!([{"start": 144, "blocks": 48}, {"start": 1440, "blocks": 0}])),
        ("extents", json!((0..65).map(|n| json!({"start": 480 * (n + 1), "blocks": 48})).collect::<Vec<_>>())),
    ] {
        assert!(volume(field, to.clone()), "{field} = {to}");
    }
    let nested = format!("{{\"deep\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(Metadata::decode(ARRAY, &slot_of(nested.as_bytes())), Err(MetadataError::Malformed(_))));
    assert!(matches!(Metadata::decode(ARRAY, &slot_of(b"[1")), Err(MetadataError::Malformed(_))));
    assert!(matches!(Metadata::decode(ARRAY, &slot_of(b"\xff\xfe")), Err(MetadataError::Malformed(_))));
}

#[test]
fn the_newest_slot_counts_whichever_member_it_lies_on() {
    let slot = |update| example().encode(ARRAY, update).expect("small");
    let (old, new, none) = (slot(4), slot(5), vec![ZERO_BLOCK; METADATA_BLOCKS]);
    let newest =
        |slots: &[&[Block]]| Metadata::newest(ARRAY, slots.iter().copied()).map(|(at, update, _)| (at, update));
    assert_eq!(newest(&[&old, &new, &none]), Ok((1, 5)));
    assert_eq!(newest(&[&new, &old, &new]), Ok((0, 5)));
    assert_eq!(newest(&[&none, &new[..1], &old]), Ok((2, 4)));
    assert_eq!(newest(&[&none]), Err(MetadataError::NotMetadata));
    assert_eq!(newest(&[]), Err(MetadataError::NotMetadata));
    assert!(matches!(newest(&[&none, &new[..1], &none]), Err(MetadataError::Damaged(_))));
    let mut later = new;
    later[0][12] = 2;
    put_crc(&mut later[0]);
    assert_eq!(newest(&[&old, &later]), Err(MetadataError::Version(2)));
}

#[test]
fn volumes_are_whole_chunk_rows_side_by_side() {
    let mut metadata = example();
    let [alpha, beta] = &metadata.volumes[..] else { panic!("two volumes") };
    assert_eq!((alpha.id, alpha.blocks, &alpha.extents[..]), (1, 100, &[ExtentRecord { start: 0, blocks: 144 }][..]));
    assert_eq!((beta.id, beta.blocks, &beta.extents[..]), (2, 48, &[ExtentRecord { start: 144, blocks: 48 }][..]));
    assert_eq!(metadata.free_blocks(&geometry()), 9216 - 192);
    assert_eq!(metadata.check(&geometry()), Ok(()));
    assert_eq!(metadata.find("beta").map(|volume| volume.id), Some(2));
    assert_eq!(metadata.find("gamma"), None);
    let rest = add(&mut metadata, "rest", 9216 - 192).expect("exactly the rest");
    assert_eq!((rest.id, metadata.free_blocks(&geometry())), (3, 0));
    let full = MetadataError::NoSpace { name: "one".into(), want: 16, free: 0, cleaning: 0 };
    assert_eq!(add(&mut metadata, "one", 1), Err(full));
    let huge = MetadataError::NoSpace { name: "huge".into(), want: u64::MAX, free: 0, cleaning: 0 };
    assert_eq!(add(&mut metadata, "huge", u64::MAX), Err(huge));
}

#[test]
fn the_first_gap_that_holds_all_is_taken_else_pieces_and_numbers_never_return() {
    let mut metadata = Metadata::default();
    for n in 0..192 {
        add(&mut metadata, &format!("v{n}"), 48).expect("room for 192 rows");
    }
    let mut fewer = metadata.clone();
    fewer.volumes.retain(|volume| ![3, 10, 11, 192].contains(&volume.id));
    let extents = |volume: VolumeRecord| -> Vec<_> { volume.extents.iter().map(|e| (e.start, e.blocks)).collect() };
    assert_eq!(add(&mut fewer, "two", 96).map(extents), Ok(vec![(9 * 48, 96)]));
    assert_eq!(add(&mut fewer, "pieces", 50).map(extents), Ok(vec![(2 * 48, 48), (191 * 48, 48)]));
    assert_eq!(fewer.find("two").map(|volume| volume.id), Some(193), "192 was in use once");
    let blocks = fewer.encode(ARRAY, 1).expect("small");
    assert_eq!(Metadata::decode(ARRAY, &blocks).expect("ours").1, fewer);
    assert_eq!(fewer.check(&geometry()), Ok(()));
    metadata.volumes.retain(|volume| volume.id % 2 == 0);
    assert_eq!(add(&mut metadata, "most", 64 * 48).map(|volume| volume.extents.len()), Ok(MAX_EXTENTS));
    metadata.volumes.pop();
    assert_eq!(add(&mut metadata, "over", 64 * 48 + 1), Err(MetadataError::Scattered("over".into())));
}

#[test]
fn no_block_is_handed_out_twice() {
    // A slow map of every chunk row beside the allocator; volumes come and go by a fixed rule.
    let (mut metadata, mut taken, geometry) = (Metadata::default(), vec![None; 192], geometry());
    let mut seed = 1u64;
    for step in 0..400u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (dice, size) = (seed >> 60, (seed >> 40) % 700 + 1);
        if dice < 6 && !metadata.volumes.is_empty() {
            let at = (seed >> 33) as usize % metadata.volumes.len();
            let gone = metadata.volumes.remove(at);
            taken.iter_mut().filter(|owner| **owner == Some(gone.id)).for_each(|owner| *owner = None);
        } else {
            let free = taken.iter().filter(|owner| owner.is_none()).count() as u64 * 48;
            let made = metadata.create_volume(
                &geometry,
                VolumeSpec::new(&format!("v{step}"), size),
                [seed, step],
                Origin::Runtime,
            );
            assert_eq!(made.is_ok(), size.next_multiple_of(48) <= free, "step {step}");
            let Ok(volume) = made else { continue };
            let rows = volume.extents.iter().flat_map(|extent| extent.start / 48..(extent.start + extent.blocks) / 48);
            for row in rows {
                assert_eq!(taken[row as usize].replace(volume.id), None, "row {row} at step {step}");
            }
        }
        assert_eq!(metadata.free_blocks(&geometry), taken.iter().filter(|owner| owner.is_none()).count() as u64 * 48);
        assert_eq!((metadata.check(&geometry), metadata.check_records()), (Ok(()), Ok(())));
    }
}

#[test]
fn what_an_operator_may_not_ask_for_changes_nothing() {
    let mut metadata = example();
    let before = metadata.clone();
    for name in ["", "-a", "a b", "ä", "a/b", "a\n", &"x".repeat(33)] {
        assert_eq!(add(&mut metadata, name, 1), Err(MetadataError::Name(name.into())));
    }
    assert_eq!(add(&mut metadata, "alpha", 1), Err(MetadataError::NameTaken("alpha".into())));
    assert_eq!(add(&mut metadata, "none", 0), Err(MetadataError::Empty("none".into())));
    assert_eq!(metadata, before);
    let twice = [1, 2];
    assert!(metadata.create_volume(&geometry(), VolumeSpec::new("a", 1), twice, Origin::Config).is_ok());
    let taken =
        metadata.create_volume(&geometry(), VolumeSpec::new("b", 1), twice, Origin::Config).map(|volume| volume.id);
    assert_eq!(taken, Err(MetadataError::IdentityTaken("b".into())));
}

#[test]
fn a_full_table_refuses_and_still_fits_its_slot() {
    let geometry = Geometry::new(Level::Raid5, 3, 1, 1 << 20).expect("a geometry");
    let mut metadata = Metadata::default();
    metadata.later.insert("hosts".into(), "x".repeat(200_000).into());
    let refusal = (0..1_000u64).find_map(|n| {
        let made =
            metadata.create_volume(&geometry, VolumeSpec::new(&format!("volume-{n}"), 1), [n, n << 32], Origin::Config);
        made.err()
    });
    assert!(matches!(refusal, Some(MetadataError::TooLarge { bytes }) if bytes > MAX_CONTENT_BYTES - DELETIONS_BYTES));
    assert!(metadata.volumes.len() > 200, "{} volumes", metadata.volumes.len());
    let blocks = metadata.encode(ARRAY, 1).expect("what was accepted fits");
    assert!(blocks.len() <= METADATA_BLOCKS);
    assert_eq!(Metadata::decode(ARRAY, &blocks), Ok((1, metadata.clone())));
    assert_eq!(metadata.delete_volume(9), Ok(()), "a full table still lets go");
    metadata.later.insert("large".into(), "x".repeat(5000).into());
    assert!(matches!(metadata.encode(ARRAY, 2), Err(MetadataError::TooLarge { .. })));
}

#[test]
fn identities_come_of_the_uuid_and_are_never_zero() {
    for random in [[0, 0], [u64::MAX, u64::MAX], [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]] {
        let uuid = Uuid::from_random(random);
        let (nguid, eui64) = (nguid_of(uuid), eui64_of(uuid));
        assert_eq!(nguid[..8], uuid.0[..8]);
        assert_eq!(nguid[8..], eui64.to_be_bytes());
        assert_eq!(nguid[8] & 0x03, 0x02, "locally administered, not a group");
    }
}

#[test]
fn extents_that_do_not_fit_the_array_are_noticed() {
    for (start, blocks) in [(1, 48), (8, 48), (0, 49), (9216, 48), (9216 - 48, 96), (u64::MAX - 15, 48)] {
        let mut metadata = example();
        metadata.volumes.truncate(1);
        metadata.volumes[0].extents = vec![ExtentRecord { start, blocks }];
        assert!(matches!(metadata.check(&geometry()), Err(MetadataError::Malformed(_))), "{blocks} at {start}");
        assert!(metadata.free_blocks(&geometry()) <= geometry().blocks());
    }
}
