//! The configuration's bounds against the formats that they follow from: what `check` admits can be made.

use base::BLOCK;
use config::limits;

const MIB: u64 = 1 << 20;

#[test]
fn a_log_device_of_the_least_size_holds_the_lanes() {
    for lanes in limits::LANES {
        let blocks = limits::min_log_bytes(lanes) / BLOCK as u64;
        let layout = journal::LogLayout::for_device(blocks, lanes);
        assert!(layout.is_ok_and(|layout| layout.lanes() == lanes), "{lanes} lanes in {blocks} blocks");
    }
    assert_eq!(*limits::LOG_COPIES.end(), journal::MAX_COPIES);
    assert!(*limits::LANES.end() <= journal::MAX_LANES);
}

#[test]
fn each_level_takes_as_many_members_as_it_can_be_made_of_and_holds_as_much() {
    use config::Level as Declared;
    let all = [Declared::Raid0, Declared::Raid1, Declared::Raid4, Declared::Raid5, Declared::Raid6, Declared::Raid10];
    for (declared, level) in all.into_iter().zip(raid::Level::ALL) {
        assert_eq!(brindle::capacity::level(declared), level);
        assert_eq!(declared.to_string(), level.to_string());
        for members in 0..=limits::MAX_MEMBERS + 1 {
            let admitted = limits::members(declared).contains(&members)
                && (!limits::in_pairs(declared) || members.is_multiple_of(2));
            match raid::Geometry::new(level, members as u8, 16, 1024) {
                Ok(geometry) => {
                    assert!(admitted, "{level} of {members}");
                    assert_eq!(limits::data_members(declared, members), usize::from(geometry.data_slots()));
                }
                Err(error) => assert!(!admitted, "{error}"),
            }
        }
    }
}

#[test]
fn members_have_the_space_that_the_check_counts_on() {
    let sizes = [limits::MIN_MEMBER_BYTES, 192 * MIB, 256 * MIB, 4096 * MIB, 1 << 41, 1 << 44, 1 << 47];
    let sizes = sizes.into_iter().flat_map(|size| [size, size + MIB, size - BLOCK as u64]);
    for (bytes, checksums) in sizes.flat_map(|size| [(size, false), (size, true)]) {
        let zone_stripes = limits::ZONE_BYTES / BLOCK as u64;
        let layout = raid::MemberLayout::for_device(bytes / BLOCK as u64, zone_stripes, checksums).unwrap();
        let counted_on = (bytes - limits::member_overhead_bytes(bytes, checksums)) / limits::ZONE_BYTES;
        assert!(layout.data.blocks / zone_stripes >= counted_on, "{bytes} bytes");
    }
    assert_eq!(*limits::CHUNK_BYTES.end(), u64::from(raid::geometry::MAX_CHUNK_BLOCKS) * BLOCK as u64);
    assert_eq!(limits::ZONE_BYTES, raid::geometry::MIN_ZONE_STRIPES * BLOCK as u64);
}
