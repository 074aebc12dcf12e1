//! The bytes of the bitmaps of zones and of the metadata, as committed under `golden/`: a change of these is a
//! change of the format.

use base::ids::ZoneId;
use base::{Block, ZERO_BLOCK, uuid::Uuid};
use raid::{Geometry, Level, Metadata, Origin, VolumeSpec, ZoneBits};

const ARRAY: Uuid = Uuid(*b"array-uuid-bytes");

/// Thirty-two bytes a line; lines of zeros are left out.
fn hex(block: &Block) -> String {
    let mut text = String::new();
    for (at, line) in block.chunks_exact(32).enumerate().filter(|(_, line)| line.iter().any(|&byte| byte != 0)) {
        text += &format!("{:04x} ", at * 32);
        line.iter().for_each(|byte| text += &format!("{byte:02x}"));
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Block {
    let mut block = ZERO_BLOCK;
    for line in text.lines() {
        let (at, digits) = line.split_once(' ').expect("an offset");
        let at = usize::from_str_radix(at, 16).expect("an offset");
        for (byte, pair) in block[at..].iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).expect("digits");
            *byte = u8::from_str_radix(pair, 16).expect("a byte");
        }
    }
    block
}

#[track_caller]
fn same(block: &Block, golden: &str) {
    assert_eq!(hex(block), golden, "the format has changed:\n{}", hex(block));
}

#[test]
fn initialised() {
    let golden = include_str!("../golden/initialised.hex");
    let mut bits = ZoneBits::new(ARRAY, 40_000, false);
    [32_256, 32_257, 32_330, 39_999].into_iter().for_each(|zone| bits.set(ZoneId(zone)));
    (0..5).for_each(|_| assert!(bits.advance(1) < 2));
    let mut block = ZERO_BLOCK;
    bits.encode(1, &mut block);
    same(&block, golden);
    let mut back = ZoneBits::new(ARRAY, 40_000, false);
    assert!(back.merge(1, [&unhex(golden)]));
    assert_eq!((back.words(), back.update(1)), (bits.words(), 5));
}

#[test]
fn dirty() {
    let golden = include_str!("../golden/dirty.hex");
    let mut bits = ZoneBits::dirty(ARRAY, 40_000);
    [0, 5, 32_255].into_iter().for_each(|zone| bits.set(ZoneId(zone)));
    bits.clear(ZoneId(5));
    (0..2).for_each(|_| assert!(bits.advance(0) < 2));
    let mut block = ZERO_BLOCK;
    bits.encode(0, &mut block);
    same(&block, golden);
    let mut back = ZoneBits::dirty(ARRAY, 40_000);
    assert!(back.merge(0, [&unhex(golden)]));
    assert_eq!((back.words(), back.update(0)), (bits.words(), 2));
}

#[test]
fn metadata() {
    let (header, content) = (include_str!("../golden/metadata-header.hex"), include_str!("../golden/metadata.json"));
    let geometry = Geometry::new(Level::Raid5, 4, 16, 3072).expect("a geometry");
    let mut metadata = Metadata::default();
    let random = [0x0001_0203_0405_0607, 0x1011_1213_1415_1617];
    metadata.create_volume(&geometry, VolumeSpec::new("alpha", 100), random, Origin::Config).expect("room");
    metadata.create_volume(&geometry, VolumeSpec::new("beta", 48), [1, 2], Origin::Runtime).expect("room");
    metadata.volumes[1].key_slot = Some(3);
    let blocks = metadata.encode(ARRAY, 0x81).expect("small");
    same(&blocks[0], header);
    let content = content.trim_end().as_bytes();
    assert_eq!(
        String::from_utf8_lossy(&blocks[1][..content.len()]),
        String::from_utf8_lossy(content),
        "the format has changed"
    );
    let mut slot = [unhex(header), ZERO_BLOCK];
    slot[1][..content.len()].copy_from_slice(content);
    assert_eq!(Metadata::decode(ARRAY, &slot), Ok((0x81, metadata)));
}
