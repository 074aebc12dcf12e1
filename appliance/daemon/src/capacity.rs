//! What an array of a configuration will hold, before it is made: by the same layouts that making it goes by. It opens
//! nothing; of a block device it asks the system the size.
//!
//! The dirty capacity is what may be acknowledged and not yet on the members: the lesser of what the log takes and what the
//! caches take, or the index where the log may have it alone. What the log takes depends on how writes lie. A stripe row that waits keeps the log space that destaging it
//! may need, whether one of its blocks is dirty or all; and a record has a descriptor, whether it carries one block or many.
//! So there are two bounds, one for lone blocks scattered over the array and one for whole stripes.

use std::path::Path;

use base::BLOCK;
use config::schema::Checksums;
use config::{Array, Config, Device, Level, Name};
use engine::limits::destage_log_blocks;
use journal::{LogLayout, MAX_PAYLOAD_BLOCKS};
use raid::{Geometry, MemberLayout};

use crate::budget::Budget;

/// Blocks of a lane that hosts never get: room for pads and records that carry little, one block that stays empty, and the
/// record that an anchor names.
const LANE_RESERVE_BLOCKS: u64 = engine::array::SLACK_BLOCKS + 2;

/// What an array holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Space for volumes.
    pub usable_bytes: u64,
    /// Space of the log's lanes, if there is a log.
    pub log_bytes: u64,
    /// Dirty data if each block lies in a stripe row of its own and comes alone.
    pub dirty_scattered_bytes: u64,
    /// Dirty data in whole stripe rows that come many at a time.
    pub dirty_striped_bytes: u64,
    /// What the caches of all shards hold.
    pub cache_bytes: u64,
    /// What the indexes of all shards know of.
    pub index_bytes: u64,
}

impl Capacity {
    /// The capacity of an array, or why it is not known: a device whose size nobody knows, or one that is too small.
    pub fn of(array: &Array, config: &Config, budget: &Budget) -> Result<Self, String> {
        let blocks = |name: &Name| {
            let device = config.devices.iter().find(|device| device.name() == name);
            let bytes = device.and_then(|device| match device {
                Device::Block { path, .. } => block_device_bytes(path),
                other => other.size().map(|size| size.bytes()),
            });
            bytes.map(|bytes| bytes / BLOCK as u64).ok_or_else(|| format!("the size of {name} is not known here"))
        };
        let level = level(array.level);
        let members = u8::try_from(array.members.len()).map_err(|error| error.to_string())?;
        let chunk_blocks = array.chunk.blocks() as u32;
        let geometry =
            |stripes| Geometry::new(level, members, chunk_blocks, stripes).map_err(|error| error.to_string());
        // The zone's size follows from the chunk alone.
        let zone_stripes = geometry(u64::MAX)?.zone_stripes();
        let mut stripes = u64::MAX;
        for name in &array.members {
            let layout = MemberLayout::for_device(blocks(name)?, zone_stripes, array.checksums == Checksums::On)
                .map_err(|error| format!("{name}: {error}"))?;
            stripes = stripes.min(layout.data.blocks);
        }
        let geometry = geometry(stripes)?;
        let [cache, index] =
            [budget.cache_blocks, budget.index_blocks(array)].map(|blocks| blocks as u64 * u64::from(budget.shards));
        let (mut log, mut scattered, mut striped) = (0, 0, 0);
        if let Some(declared) = &array.log {
            let mut smallest = u64::MAX;
            for name in &declared.devices {
                smallest = smallest.min(blocks(name)?);
            }
            let layout = LogLayout::for_device(smallest, declared.lanes).map_err(|error| error.to_string())?;
            log = layout.rings().1;
            let lane = layout.lane_blocks().saturating_sub(LANE_RESERVE_BLOCKS);
            let lanes = u64::from(layout.lanes());
            let destage = destage_log_blocks(geometry.parities());
            scattered = lanes * (lane / (2 + destage));
            let (row, full) = (u64::from(geometry.data_slots()), MAX_PAYLOAD_BLOCKS as u64);
            // A row's payload, what destaging it may need, and its share of descriptors.
            striped = lanes * (lane * full / ((row + destage) * full + row)) * row;
        }
        let bytes = |blocks: u64| blocks * BLOCK as u64;
        Ok(Self {
            usable_bytes: bytes(geometry.blocks()),
            log_bytes: bytes(log),
            dirty_scattered_bytes: bytes(scattered.min(index)),
            dirty_striped_bytes: bytes(striped.min(index)),
            cache_bytes: bytes(cache),
            index_bytes: bytes(index),
        })
    }
}

/// The level, as the array's own parts know it.
pub const fn level(declared: Level) -> raid::Level {
    match declared {
        Level::Raid0 => raid::Level::Raid0,
        Level::Raid1 => raid::Level::Raid1,
        Level::Raid4 => raid::Level::Raid4,
        Level::Raid5 => raid::Level::Raid5,
        Level::Raid6 => raid::Level::Raid6,
        Level::Raid10 => raid::Level::Raid10,
    }
}

/// The size of a block device, as the system knows it.
fn block_device_bytes(path: &Path) -> Option<u64> {
    let node = std::fs::canonicalize(path).ok()?;
    let size = Path::new("/sys/class/block").join(node.file_name()?).join("size");
    // Always in units of 512 bytes, whatever the sectors are (Documentation/ABI/stable/sysfs-block).
    std::fs::read_to_string(size).ok()?.trim().parse::<u64>().ok().map(|sectors| sectors * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(change: impl Fn(String) -> String) -> Capacity {
        let config = config::parse(&change(config::DEMO.to_owned()), "demo.yaml").unwrap().config;
        let budget = Budget::of(&config, config.reactors.count()).unwrap();
        Capacity::of(&config.arrays[0], &config, &budget).unwrap()
    }

    #[test]
    fn the_lesser_of_log_and_caches_bounds_what_is_dirty() {
        let plain = demo(|text| text);
        assert!(plain.usable_bytes > 500 << 20 && plain.usable_bytes < 512 << 20, "{plain:?}");
        assert!(plain.log_bytes > 60 << 20 && plain.log_bytes < 64 << 20, "{plain:?}");
        assert!(plain.dirty_scattered_bytes < plain.dirty_striped_bytes, "{plain:?}");
        assert!(plain.dirty_striped_bytes < plain.log_bytes && plain.dirty_striped_bytes < plain.cache_bytes);
        let beyond_memory = |text: String| {
            text.replace("size: 64MiB", "size: 4GiB").replace("[l0, l1]", "[l0, l1], residency: log, index: 32MiB")
        };
        let beyond = demo(beyond_memory);
        assert!(beyond.index_bytes > 600 << 20 && beyond.cache_bytes < 256 << 20, "{beyond:?}");
        assert_eq!(beyond.dirty_striped_bytes, beyond.index_bytes);
        let long_log = demo(|text| text.replace("size: 64MiB", "size: 4GiB"));
        assert_eq!(
            (long_log.dirty_scattered_bytes, long_log.dirty_striped_bytes),
            (long_log.cache_bytes, long_log.cache_bytes)
        );
    }

    #[test]
    fn a_drive_that_is_elsewhere_is_named() {
        let config = config::parse(config::BARE_METAL, "b.yaml").unwrap().config;
        let budget = Budget::of(&config, config.reactors.count()).unwrap();
        let why = Capacity::of(&config.arrays[0], &config, &budget).unwrap_err();
        assert_eq!(why, "the size of d0 is not known here");
        assert_eq!(block_device_bytes(Path::new("/nonexistent/drive")), None);
    }
}
