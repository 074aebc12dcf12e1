//! The space of a lane's ring. Free space is computed from the tail that is *durable* in the anchors of all copies, never
//! from the one in memory (rule L1); the ring is never filled to head = tail. It says where a record goes and how long a
//! pad before it must be; it keeps no list of records and writes nothing.

use crate::{LogLayout, MAX_RECORD_BLOCKS};

/// Head and tails of a lane, as virtual positions in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpace {
    lane_blocks: u64,
    head: u64,
    durable_tail: u64,
    tail: u64,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Position and length in blocks of the pad record that must be written first, if the ring ends too soon.
    pub pad: Option<(u64, u32)>,
    /// The record's position.
    pub position: u64,
    /// The record's length in blocks.
    pub length_blocks: u32,
}

impl Placement {
    /// The position behind the record.
    pub const fn end(&self) -> u64 {
        self.position + self.length_blocks as u64
    }
}

impl LaneSpace {
    /// The space of a lane whose anchor names `tail` and whose next record goes to `head`.
    ///
    /// # Panics
    /// If the tail does not lie before the head within one lap: it always names a record.
    pub fn new(layout: &LogLayout, tail: u64, head: u64) -> Self {
        let space = Self { lane_blocks: layout.lane_blocks(), head, durable_tail: tail, tail };
        space.check();
        space
    }

    /// The space of a lane without a ring: nothing of it is ever free.
    pub const fn none() -> Self {
        Self { lane_blocks: 2, head: 1, durable_tail: 0, tail: 0 }
    }

    /// Where the next record, or the pad before it, goes.
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// The oldest position that is still needed, as far as memory knows.
    pub const fn tail(&self) -> u64 {
        self.tail
    }

    /// The tail that all anchors name.
    pub const fn durable_tail(&self) -> u64 {
        self.durable_tail
    }

    /// Blocks between durable tail and head.
    pub const fn used_blocks(&self) -> u64 {
        self.head - self.durable_tail
    }

    /// Blocks that may still be written.
    pub const fn free_blocks(&self) -> u64 {
        // One block stays empty, so that head = tail means nothing else than an empty ring.
        self.lane_blocks - 1 - self.used_blocks()
    }

    /// Blocks that would become free if the tail in memory were made durable.
    pub const fn reclaimable_blocks(&self) -> u64 {
        self.tail - self.durable_tail
    }

    /// Where a record of so many blocks would go, if that leaves `reserve_blocks` free behind it.
    ///
    /// # Panics
    /// If no record has this length.
    pub fn place(&self, length_blocks: u32, reserve_blocks: u64) -> Option<Placement> {
        assert!(
            length_blocks >= 1 && length_blocks as usize <= MAX_RECORD_BLOCKS,
            "a record of {length_blocks} blocks"
        );
        let to_end = self.lane_blocks - self.head % self.lane_blocks;
        let pad = if u64::from(length_blocks) > to_end { to_end } else { 0 };
        let placement = Placement {
            // Shorter than the record, hence no longer than a record may be.
            pad: (pad > 0).then_some((self.head, pad as u32)),
            position: self.head + pad,
            length_blocks,
        };
        let needed = (placement.end() - self.head).checked_add(reserve_blocks)?;
        (needed <= self.free_blocks()).then_some(placement)
    }

    /// Takes the space that [`Self::place`] found.
    ///
    /// # Panics
    /// If it is not at the head, or not free.
    pub fn take(&mut self, placement: &Placement) {
        assert_eq!(self.place(placement.length_blocks, 0), Some(*placement), "placed elsewhere: {self:?}");
        self.head = placement.end();
        self.check();
    }

    /// Everything before `tail` is no longer needed; it becomes free when the tail is durable.
    ///
    /// # Panics
    /// If the tail would move back or reach the head: an anchor always names a record.
    pub fn release_to(&mut self, tail: u64) {
        assert!(tail >= self.tail, "the tail moved back from {} to {tail}", self.tail);
        self.tail = tail;
        self.check();
    }

    /// The anchors of all copies name this tail, durably.
    ///
    /// # Panics
    /// If it moves back, or was never released.
    pub fn tail_is_durable(&mut self, tail: u64) {
        assert!(tail >= self.durable_tail && tail <= self.tail, "{tail} was not released: {self:?}");
        self.durable_tail = tail;
        self.check();
    }

    fn check(&self) {
        assert!(self.durable_tail <= self.tail && self.tail < self.head, "tails before head: {self:?}");
        assert!(self.head - self.durable_tail < self.lane_blocks, "never full to the last block: {self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MIN_LANE_BLOCKS;
    use proptest::prelude::*;

    /// The slow twin: which record owns each block of the ring, and the records in order.
    struct Oracle {
        owner: Vec<Option<u64>>,
        records: Vec<(u64, u64)>,
        next: usize,
        released: usize,
        durable: usize,
    }

    impl Oracle {
        /// Takes the next `length` blocks in a row, padding up to the ring's end; says where, or changes nothing.
        fn append(&mut self, length: usize) -> Option<usize> {
            let ring = self.owner.len();
            let start = if self.next % ring + length > ring { self.next.next_multiple_of(ring) } else { self.next };
            let free = self.owner.iter().filter(|owner| owner.is_none()).count();
            if start + length - self.next >= free {
                return None;
            }
            for (at, end) in [(self.next, start), (start, start + length)] {
                if at < end {
                    for block in at..end {
                        assert_eq!(self.owner[block % ring].replace(at as u64), None, "overwrites a live block");
                    }
                    self.records.push((at as u64, (end - at) as u64));
                }
            }
            self.next = start + length;
            Some(start)
        }

        fn make_durable(&mut self) {
            for &(start, length) in &self.records[self.durable..self.released] {
                let ring = self.owner.len() as u64;
                (start..start + length).for_each(|block| self.owner[(block % ring) as usize] = None);
            }
            self.durable = self.released;
        }
    }

    proptest! {
        #[test]
        fn space_agrees_with_a_map_of_every_block(
            extra in 0u64..40,
            steps in proptest::collection::vec((0u8..8, 1u32..=MAX_RECORD_BLOCKS as u32, 0usize..6), 1..300),
        ) {
            let ring = MIN_LANE_BLOCKS + extra;
            let layout = LogLayout::from_regions(1, ring, 16, 256).expect("a layout");
            let mut space = LaneSpace::new(&layout, 0, 1);
            let mut oracle =
                Oracle { owner: vec![None; ring as usize], records: vec![], next: 0, released: 0, durable: 0 };
            oracle.append(1);
            for (step, length, count) in steps {
                match step {
                    0 => {
                        oracle.released = (oracle.released + count).min(oracle.records.len() - 1);
                        space.release_to(oracle.records[oracle.released].0);
                    }
                    1 => {
                        oracle.make_durable();
                        space.tail_is_durable(space.tail());
                    }
                    _ => {
                        let placement = space.place(length, 0);
                        prop_assert_eq!(
                            placement.map(|placement| placement.position as usize),
                            oracle.append(length as usize)
                        );
                        if let Some(placement) = placement {
                            space.take(&placement);
                            if let Some((position, blocks)) = placement.pad {
                                prop_assert_eq!((position + u64::from(blocks)) % ring, 0);
                            }
                        }
                    }
                }
                let free = oracle.owner.iter().filter(|owner| owner.is_none()).count() as u64;
                prop_assert_eq!(space.free_blocks() + 1, free);
                prop_assert!(space.reclaimable_blocks() <= space.used_blocks());
                prop_assert_eq!(space.place(1, space.free_blocks()), None);
            }
        }
    }

    #[test]
    fn an_almost_empty_lane_takes_any_record_wherever_its_head_is() {
        let layout = LogLayout::from_regions(1, MIN_LANE_BLOCKS, 16, 256).expect("a layout");
        for tail in 0..2 * MIN_LANE_BLOCKS {
            let space = LaneSpace::new(&layout, tail, tail + MAX_RECORD_BLOCKS as u64);
            assert!(space.place(MAX_RECORD_BLOCKS as u32, 0).is_some(), "tail at {tail}");
        }
    }

    #[test]
    fn a_reserve_is_kept() {
        let layout = LogLayout::from_regions(1, MIN_LANE_BLOCKS, 16, 256).expect("a layout");
        let space = LaneSpace::new(&layout, 0, 1);
        assert!(space.place(10, MIN_LANE_BLOCKS - 12).is_some());
        assert_eq!(space.place(10, MIN_LANE_BLOCKS - 11), None);
        assert_eq!(space.place(10, u64::MAX), None);
    }
}
