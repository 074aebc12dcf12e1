//! What recovery found in the log and not on the members for sure: it begins in the cache, as if it had just been logged.

use base::ids::ArrayBlock;
use ports::Ports;

use super::ArrayShard;
use super::stripes::Content;

/// What recovery found of a block.
#[derive(Debug)]
pub enum RecoveredContent {
    /// Zeros.
    Zeros,
    /// This.
    Held(Box<base::Block>),
    /// Something that was read, and is left where it is: in the log.
    Logged,
}

/// A block that recovery found dirty: in the log, and not on the members for sure.
#[derive(Debug)]
pub struct RecoveredBlock {
    /// The block.
    pub block: ArrayBlock,
    /// The record that holds it.
    pub sequence: u64,
    /// The checksum of its content, and the place of that among the record's blocks; nothing if it is zeros.
    pub crc: u32,
    /// See `crc`.
    pub place: u8,
    /// Its content.
    pub content: RecoveredContent,
}

impl ArrayShard {
    /// Puts a block that recovery found dirty into the cache.
    pub(super) fn recover<P: Ports>(&mut self, ports: &mut P, found: RecoveredBlock) {
        let RecoveredBlock { block, sequence, crc, place: at, content } = found;
        let content = match content {
            RecoveredContent::Zeros => Content::Zeros,
            RecoveredContent::Logged => Content::Logged,
            RecoveredContent::Held(content) => {
                let buffer = ports.alloc().expect("the pool was sized with what recovery found");
                ports.bytes_mut(buffer.id()).copy_from_slice(&*content);
                Content::Held(buffer)
            }
        };
        let place = self.map.arrangement.locate(block);
        let lane = self.map.lane_of(self.map.arrangement.zone_of(place.stripe));
        let stripe = self.stripes.find_or_add(place.stripe, lane);
        if !core::mem::replace(&mut self.stripes.get_mut(stripe).reserved, true) {
            self.lane(lane).reserve_again();
        }
        self.stripes.get_mut(stripe).recovered = true;
        let version = self.stripes.add(stripe, place.column, content);
        self.stripes.version_mut(version).logged_at(sequence, crc, usize::from(at));
        let replaced = self.stripes.became_durable(version, ports.now());
        assert!(replaced.is_none(), "recovery hands over one version of a block");
        self.stripe_is_dirty(stripe, ports.now());
    }
}
