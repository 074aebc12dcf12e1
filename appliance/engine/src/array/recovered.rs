//! What recovery found in the log and not on the members for sure: it begins in the cache, as if it had just been logged.

use base::ids::ArrayBlock;
use ports::Ports;

use super::ArrayShard;

/// A block that recovery found dirty: in the log, and not on the members for sure.
#[derive(Debug)]
pub struct RecoveredBlock {
    /// The block.
    pub block: ArrayBlock,
    /// The record that holds it.
    pub sequence: u64,
    /// Its content; none means zeros.
    pub content: Option<Box<base::Block>>,
}

impl ArrayShard {
    /// Puts a block that recovery found dirty into the cache.
    pub(super) fn recover<P: Ports>(&mut self, ports: &mut P, found: RecoveredBlock) {
        let RecoveredBlock { block, sequence, content } = found;
        let buffer = content.map(|content| {
            let buffer = ports.alloc().expect("the pool was sized with what recovery found");
            ports.bytes_mut(buffer.id()).copy_from_slice(&*content);
            buffer
        });
        let place = self.map.arrangement.locate(block);
        let lane = self.map.lane_of(self.map.arrangement.zone_of(place.stripe));
        let stripe = self.stripes.find_or_add(place.stripe, lane);
        if !core::mem::replace(&mut self.stripes.get_mut(stripe).reserved, true) {
            self.lane(lane).reserve_again();
        }
        self.stripes.get_mut(stripe).recovered = true;
        let version = self.stripes.add(stripe, place.column, buffer);
        self.stripes.version_mut(version).sequence = sequence;
        let replaced = self.stripes.became_durable(version, ports.now());
        assert!(replaced.is_none(), "recovery hands over one version of a block");
        self.stripe_is_dirty(stripe, ports.now());
    }
}
