//! The medium of a simulated device, with its cache: what a read sees now, what a power cut would leave, and what it does
//! leave. It knows nothing of queues and time; those are the rack's.
//!
//! The crash model: a completed write is durable after a flush that was submitted later, or at once if it was a durable
//! write or the device has no volatile cache. At a power cut every other write, completed or not, persists whole, not at all,
//! or torn, independently of the others and in any order. Each block of a torn write persists whole, not at all, or by
//! [`SECTOR`]s, the smallest unit that a device writes atomically.
//!
//! A block may become unreadable. It stays so until it is written again, and becomes so again if that write is lost before it
//! was durable; what it holds is still there for oracles to see.

use std::collections::BTreeSet;
use std::rc::Rc;

use base::ids::DeviceBlock;
use base::sector::SECTOR;
use base::{BLOCK, Block, ZERO_BLOCK};

use crate::random::Random;

/// What fills a used medium.
const LEFT_BEHIND: u8 = 0xa5;

const SECTORS: u64 = (BLOCK / SECTOR) as u64;

/// The content of a block of a medium; `None` is zeros. Shared, so that a copy of a device costs little.
pub type Content = Option<Rc<Block>>;

/// The bytes of a content.
pub fn bytes_of(content: &Content) -> &Block {
    content.as_deref().unwrap_or(&ZERO_BLOCK)
}

/// A block's content, with all zeros in their short form.
pub fn content_of(block: &Block) -> Content {
    (block != &ZERO_BLOCK).then(|| Rc::new(*block))
}

/// Takes the sectors of `mask` from `new` and the others from `old`.
pub fn mix(old: &Content, new: &Content, mask: u8) -> Content {
    let mut mixed = *bytes_of(old);
    for sector in (0..BLOCK / SECTOR).filter(|sector| mask & 1 << sector != 0) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        mixed[range.clone()].copy_from_slice(&bytes_of(new)[range]);
    }
    content_of(&mixed)
}

/// A run of blocks that was, or is being, written.
#[derive(Clone, Debug)]
pub struct Run {
    /// The first block.
    pub start: DeviceBlock,
    /// One content a block.
    pub blocks: Vec<Content>,
}

#[derive(Clone, Debug)]
struct Cached {
    // The place of the write in the order of completions.
    order: u64,
    run: Run,
}

#[derive(Clone, Debug, Default)]
struct Durable {
    order: u64,
    content: Content,
}

/// A medium and its cache.
#[derive(Clone, Debug)]
pub struct Medium {
    volatile_cache: bool,
    visible: Vec<Content>,
    durable: Vec<Durable>,
    cached: Vec<Cached>,
    completed: u64,
    /// Blocks that a read does not find, and those that it would not find after a power cut.
    unreadable: BTreeSet<DeviceBlock>,
    unreadable_durably: BTreeSet<DeviceBlock>,
}

impl Medium {
    /// A medium of zeros or, if it is used, of what others left there.
    pub fn new(blocks: u64, volatile_cache: bool, used: bool) -> Self {
        let content = used.then(|| Rc::new([LEFT_BEHIND; BLOCK]));
        Self {
            volatile_cache,
            visible: vec![content.clone(); blocks as usize],
            durable: vec![Durable { order: 0, content }; blocks as usize],
            cached: Vec::new(),
            completed: 0,
            unreadable: BTreeSet::new(),
            unreadable_durably: BTreeSet::new(),
        }
    }

    /// From now on reads do not find this block, until it is written.
    pub fn spoil(&mut self, block: DeviceBlock) {
        assert!(block.0 < self.blocks(), "{block:?} lies beyond the end");
        self.unreadable.insert(block);
        self.unreadable_durably.insert(block);
    }

    /// Whether a read of so many blocks finds them all.
    pub fn is_readable(&self, start: DeviceBlock, count: u64) -> bool {
        self.unreadable.range(start..DeviceBlock(start.0 + count)).next().is_none()
    }

    /// Every block can be read again.
    pub fn restore(&mut self) {
        self.unreadable.clear();
        self.unreadable_durably.clear();
    }

    /// Blocks it has.
    pub fn blocks(&self) -> u64 {
        self.visible.len() as u64
    }

    /// What a read of a block finds.
    ///
    /// # Panics
    /// If the block lies beyond the end, as all that takes an address here: the rack checks requests first.
    pub fn read(&self, block: DeviceBlock) -> &Content {
        &self.visible[block.index()]
    }

    /// What is durable of a block: what a power cut would leave if nothing were in the cache or in flight.
    pub fn durable(&self, block: DeviceBlock) -> &Content {
        &self.durable[block.index()].content
    }

    /// Changes what a block holds, durably and unasked: damage.
    pub fn overwrite(&mut self, block: DeviceBlock, content: Content) {
        self.visible[block.index()].clone_from(&content);
        self.durable[block.index()].content = content;
    }

    /// A write has completed.
    pub fn write(&mut self, run: Run, durable: bool) {
        self.completed += 1;
        let order = self.completed;
        let durable = durable || !self.volatile_cache;
        for (offset, content) in run.blocks.iter().enumerate() {
            let at = run.start.index() + offset;
            self.visible[at].clone_from(content);
            self.unreadable.remove(&DeviceBlock(at as u64));
            if durable {
                self.unreadable_durably.remove(&DeviceBlock(at as u64));
                self.durable[at] = Durable { order, content: content.clone() };
            }
        }
        if !durable {
            self.cached.push(Cached { order, run });
        }
    }

    /// A write has ended with an error: of each block all, nothing or some sectors have happened.
    pub fn write_in_part(&mut self, run: Run, random: &mut Random) {
        let blocks = (run.start.0..).map(DeviceBlock).zip(run.blocks);
        for (at, content) in blocks {
            match random.below(3) {
                0 => {}
                1 => self.write(Run { start: at, blocks: vec![content] }, false),
                _ if self.unreadable.contains(&at) => {}
                _ => {
                    let mixed = mix(self.read(at), &content, random.bits() as u8);
                    self.write(Run { start: at, blocks: vec![mixed] }, false);
                }
            }
        }
    }

    /// What a flush that is submitted now will make durable.
    pub const fn flush_mark(&self) -> u64 {
        self.completed
    }

    /// A flush has completed; `mark` is from its submission.
    pub fn flush(&mut self, mark: u64) {
        // Completions are numbered in the order of this list, so what is covered is its front.
        let covered = self.cached.partition_point(|cached| cached.order <= mark);
        for Cached { order, run } in self.cached.drain(..covered) {
            for (offset, content) in run.blocks.into_iter().enumerate() {
                let place = &mut self.durable[run.start.index() + offset];
                // A durable write may have overtaken the cached one.
                if place.order < order {
                    *place = Durable { order, content };
                    self.unreadable_durably.remove(&DeviceBlock((run.start.index() + offset) as u64));
                }
            }
        }
    }

    /// The power fails while these writes are in flight. A device that writes `whole` blocks tears none.
    pub fn cut(&mut self, in_flight: Vec<Run>, whole: bool, random: &mut Random) {
        let before: Vec<u64> = self.durable.iter().map(|place| place.order).collect();
        let mut pieces: Vec<(u64, DeviceBlock, Content, u8)> = Vec::new();
        let cached = self.cached.drain(..).map(|cached| (cached.order, cached.run));
        for (order, run) in cached.chain(in_flight.into_iter().map(|run| (u64::MAX, run))) {
            let fate = random.below(3);
            for (offset, content) in run.blocks.into_iter().enumerate() {
                let mask = match fate {
                    0 => 0,
                    1 => u8::MAX,
                    _ => match random.below(4) {
                        0 => 0,
                        1 => u8::MAX,
                        other if whole => {
                            if other == 2 {
                                0
                            } else {
                                u8::MAX
                            }
                        }
                        // A prefix, as a single head writes, or any sectors, as chips in parallel do.
                        2 => ((1u16 << random.below(SECTORS)) - 1) as u8,
                        _ => random.bits() as u8,
                    },
                };
                if mask != 0 {
                    pieces.push((order, DeviceBlock(run.start.0 + offset as u64), content, mask));
                }
            }
        }
        random.shuffle(&mut pieces);
        for (order, at, content, mask) in pieces {
            if order > before[at.index()] {
                let place = &mut self.durable[at.index()];
                place.content = if mask == u8::MAX { content } else { mix(&place.content, &content, mask) };
                if mask == u8::MAX {
                    self.unreadable_durably.remove(&at);
                }
            }
        }
        self.completed = 0;
        for (visible, durable) in self.visible.iter_mut().zip(&mut self.durable) {
            durable.order = 0;
            visible.clone_from(&durable.content);
        }
        self.unreadable.clone_from(&self.unreadable_durably);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, fill: &[u8]) -> Run {
        Run { start: DeviceBlock(start), blocks: fill.iter().map(|&byte| content_of(&[byte; BLOCK])).collect() }
    }

    fn first(medium: &Medium, block: u64) -> u8 {
        bytes_of(medium.read(DeviceBlock(block)))[0]
    }

    #[test]
    fn what_was_flushed_or_written_durably_survives_and_the_rest_is_old_or_new_by_sector() {
        let mut fates = [0u32; 3];
        for seed in 0..200 {
            let mut random = Random::named(seed, "cut");
            let mut medium = Medium::new(8, true, false);
            medium.write(run(0, &[1, 1]), false);
            let mark = medium.flush_mark();
            medium.write(run(1, &[2, 2]), false);
            medium.flush(mark);
            medium.write(run(4, &[3]), true);
            assert_eq!((first(&medium, 0), first(&medium, 1), first(&medium, 4)), (1, 2, 3));
            medium.cut(vec![run(6, &[4])], false, &mut random);
            assert_eq!((first(&medium, 0), first(&medium, 4)), (1, 3));
            let sectors = bytes_of(medium.read(DeviceBlock(1))).chunks_exact(SECTOR);
            let mut new = 0;
            for sector in sectors {
                assert!(sector == [1; SECTOR] || sector == [2; SECTOR]);
                new += u32::from(sector[0] == 2);
            }
            fates[match new {
                0 => 0,
                8 => 1,
                _ => 2,
            }] += 1;
        }
        assert!(fates.iter().all(|&count| count > 20), "every fate happens: {fates:?}");
    }

    #[test]
    fn a_cached_write_never_overtakes_a_later_durable_one() {
        for seed in 0..50 {
            let mut medium = Medium::new(2, true, false);
            medium.write(run(0, &[1]), false);
            medium.write(run(0, &[2]), true);
            if seed % 2 == 0 {
                medium.flush(medium.flush_mark());
            }
            medium.cut(Vec::new(), false, &mut Random::named(seed, "cut"));
            assert_eq!(first(&medium, 0), 2);
        }
    }

    #[test]
    fn an_unreadable_block_is_readable_once_written_and_for_good_once_flushed() {
        let mut medium = Medium::new(4, true, false);
        let readable = |medium: &Medium| medium.is_readable(DeviceBlock(0), 4);
        medium.spoil(DeviceBlock(1));
        assert!(!readable(&medium) && medium.is_readable(DeviceBlock(2), 2) && medium.is_readable(DeviceBlock(0), 1));
        medium.write(run(0, &[1, 2]), false);
        assert!(readable(&medium));
        let mut flushed = medium.clone();
        flushed.flush(flushed.flush_mark());
        flushed.cut(Vec::new(), false, &mut Random::named(1, "cut"));
        assert!(readable(&flushed) && first(&flushed, 1) == 2);
        let mut lost = 0;
        for seed in 0..100 {
            let mut medium = medium.clone();
            medium.cut(Vec::new(), false, &mut Random::named(seed, "cut"));
            let has_new = bytes_of(medium.read(DeviceBlock(1))) == &[2; BLOCK];
            assert_eq!(readable(&medium), has_new, "a write that was lost or torn leaves it as it was");
            lost += u32::from(!has_new);
        }
        assert!((20..80).contains(&lost), "{lost}");
    }

    #[test]
    fn without_a_volatile_cache_a_completed_write_stays() {
        let mut medium = Medium::new(2, false, false);
        medium.write(run(0, &[1, 2]), false);
        medium.cut(Vec::new(), false, &mut Random::named(1, "cut"));
        assert_eq!((first(&medium, 0), first(&medium, 1)), (1, 2));
    }
}
