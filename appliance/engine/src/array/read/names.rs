//! The buffers of a fragment by their names: what a read gives its members, in order.

use ports::BufferId;

use crate::limits::MAX_FRAGMENT_BLOCKS;

/// Names of a fragment's buffers, without an allocation.
pub(super) trait CollectBuffers: Iterator<Item = BufferId> + Sized {
    fn collect_buffers(self) -> [BufferId; MAX_FRAGMENT_BLOCKS as usize] {
        let mut ids = [BufferId(0); MAX_FRAGMENT_BLOCKS as usize];
        for (place, id) in ids.iter_mut().zip(self) {
            *place = id;
        }
        ids
    }
}

impl<I: Iterator<Item = BufferId>> CollectBuffers for I {}
