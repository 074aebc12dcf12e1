//! How an array gets further members while it is in use. Data is laid out anew, from the first stripe to the last: below the
//! *boundary* stripes are as with all members, from it on as with those from before, and it moves up by a *window* of stripes at a
//! time. A stripe of more columns holds more data, so no block ever lies above its old place: what a window holds anew comes from
//! stripes of the window or above it, and all that was in the window's own stripes lies in the window or below it.
//!
//! So a window is moved thus, by others, with the log: whatever the log has of the window's stripes and of its *sources* goes to
//! the members; nobody writes to the blocks that move; they are read and logged, with zeros for what lies behind the old end; the
//! boundary is persisted. From then on what was logged counts, and goes to the members as full stripes like any write. Before, it
//! does not, and nothing that it was read from has been overwritten.
//!
//! What lies behind the old end becomes space for volumes only when the last window has been moved. Until then nothing is kept
//! there. It is arithmetic only, and knows nothing of who carries it out.

use core::ops::Range;

use base::ids::{ArrayBlock, StripeId};
use thiserror::Error;

use crate::geometry::{Geometry, GeometryError, Place};
use crate::level::Level;

/// Most stripes of a window. Where a chunk has as many, or more, an atomic unit has so many, too.
pub const MAX_WINDOW_STRIPES: u32 = 64;

/// Why numbers are no reshape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReshapeError {
    /// The members from before are no array.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Nothing is to be moved.
    #[error("{level} of {after} members holds no more than of {before}: there is nothing to move")]
    NoMore {
        /// The level.
        level: Level,
        /// Members from before.
        before: u8,
        /// Members in the end.
        after: u8,
    },
    /// Atomic units would be cut, or it is no power of two.
    #[error("a window is a power of two from {least} to {MAX_WINDOW_STRIPES} stripes, not {window}")]
    Window {
        /// What was given.
        window: u32,
        /// The fewest.
        least: u32,
    },
    /// It lies within a window, or behind the array.
    #[error("stripe {boundary} is no boundary between windows of {window} of {stripes} stripes")]
    Boundary {
        /// What was given.
        boundary: u64,
        /// Stripes of a window.
        window: u32,
        /// Those of the array.
        stripes: u64,
    },
}

/// An array that gets further members, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshape {
    before: Geometry,
    after: Geometry,
    boundary: StripeId,
    window: u32,
}

impl Reshape {
    /// The way to a geometry from one of fewer members; stripes below the boundary have come to it.
    pub fn new(
        after: Geometry,
        members_before: u8,
        boundary: StripeId,
        window_stripes: u32,
    ) -> Result<Self, ReshapeError> {
        let before = Geometry::new(after.level(), members_before, after.chunk_blocks(), after.stripes())?;
        if before.data_slots() >= after.data_slots() {
            let (level, before, after) = (after.level(), members_before, after.members());
            return Err(ReshapeError::NoMore { level, before, after });
        }
        let least = Self::least_window(after.chunk_blocks());
        if !window_stripes.is_power_of_two() || !(least..=MAX_WINDOW_STRIPES).contains(&window_stripes) {
            return Err(ReshapeError::Window { window: window_stripes, least });
        }
        if boundary.0 > after.stripes() || !boundary.0.is_multiple_of(window_stripes.into()) {
            let (boundary, stripes) = (boundary.0, after.stripes());
            return Err(ReshapeError::Boundary { boundary, window: window_stripes, stripes });
        }
        Ok(Self { before, after, boundary, window: window_stripes })
    }

    /// The fewest stripes that move at a time: no atomic unit is cut.
    pub const fn least_window(chunk_blocks: u32) -> u32 {
        if chunk_blocks < MAX_WINDOW_STRIPES { chunk_blocks } else { MAX_WINDOW_STRIPES }
    }

    /// How stripes from the boundary on are arranged.
    pub const fn before(&self) -> &Geometry {
        &self.before
    }

    /// How stripes below the boundary are arranged.
    pub const fn after(&self) -> &Geometry {
        &self.after
    }

    /// The first stripe that has not been moved.
    pub const fn boundary(&self) -> StripeId {
        self.boundary
    }

    /// Stripes of a window.
    pub const fn window_stripes(&self) -> u32 {
        self.window
    }

    /// What moves next; none once all has been moved.
    pub fn next(&self) -> Option<Window> {
        (self.boundary.0 < self.after.stripes()).then_some(Window { reshape: *self, windows: 1 })
    }

    /// As many windows as there are ahead up to a number, as one: whole chunk rows, or one window.
    pub fn ahead(&self, windows: u64) -> Option<Window> {
        let next = self.next()?;
        let window = u64::from(self.window);
        let of_row = (u64::from(self.after.chunk_blocks()) / window).max(1);
        let is_whole = self.steps().is_multiple_of(of_row);
        let left = (self.after.stripes() - self.boundary.0) / window;
        let windows = windows.min(left) / of_row * of_row;
        Some(if is_whole && windows > 0 { Window { windows, ..next } } else { next })
    }

    /// The same once so many further windows have been moved.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn advanced(self, windows: u64) -> Self {
        let boundary = self.boundary.0 + windows * u64::from(self.window);
        assert!(boundary <= self.after.stripes(), "no more is moved than there is");
        Self { boundary: StripeId(boundary), ..self }
    }

    /// The same as it was so many windows ago, or when it began.
    #[must_use]
    pub fn steps_ago(self, steps: u64) -> Self {
        let moved = steps.saturating_mul(self.window.into());
        Self { boundary: StripeId(self.boundary.0.saturating_sub(moved)), ..self }
    }

    /// How many windows have been moved.
    pub const fn steps(&self) -> u64 {
        self.boundary.0 / self.window as u64
    }

    /// How a stripe is arranged.
    pub fn at(&self, stripe: StripeId) -> &Geometry {
        if stripe < self.boundary { &self.after } else { &self.before }
    }

    /// Where a data block lies; none if it lies behind the old end, and nothing is kept there yet.
    pub fn locate(&self, block: ArrayBlock) -> Option<Place> {
        if block.0 >= self.after.blocks() {
            return None;
        }
        let place = self.after.locate(block);
        if place.stripe < self.boundary {
            return Some(place);
        }
        (block.0 < self.before.blocks()).then(|| self.before.locate(block))
    }

    /// Whether the data block that a stripe has in a column lies there, and has not been moved.
    pub fn is_current(&self, stripe: StripeId, column: u8) -> bool {
        let block = self.at(stripe).array_block(stripe, column);
        self.locate(block) == Some(Place { stripe, column })
    }
}

/// What moves at a time: a run of stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// As it is before the window is moved.
    reshape: Reshape,
    /// How many it is in one.
    windows: u64,
}

/// A block that is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The block.
    pub block: ArrayBlock,
    /// Where it will lie.
    pub to: Place,
    /// Where it lies. None: it lies behind the old end, and is zeros.
    pub from: Option<Place>,
}

impl Window {
    /// The stripes that are arranged anew.
    pub const fn stripes(&self) -> Range<u64> {
        let start = self.reshape.boundary.0;
        start..start + self.windows * self.reshape.window as u64
    }

    /// The geometry by which there is space for volumes before it has moved.
    pub const fn space(&self) -> &Geometry {
        &self.reshape.before
    }

    /// The stripes of the window before it.
    pub const fn stripes_before(&self) -> Range<u64> {
        let start = self.reshape.boundary.0;
        start.saturating_sub(self.reshape.window as u64)..start
    }

    /// How many it is in one.
    pub const fn windows(&self) -> u64 {
        self.windows
    }

    /// The first of them alone.
    #[must_use]
    pub const fn first(self) -> Self {
        Self { windows: 1, ..self }
    }

    /// Whether a block is moved.
    pub fn moves_block(&self, block: ArrayBlock) -> bool {
        block.0 < self.reshape.after.blocks() && self.stripes().contains(&self.place_of(block).stripe.0)
    }

    /// Where a block will lie.
    pub fn place_of(&self, block: ArrayBlock) -> Place {
        self.reshape.after.locate(block)
    }

    /// Whether a run of blocks comes near what is moved: others of the same chunk rows count, too.
    pub fn is_near(&self, start: ArrayBlock, count: u64) -> bool {
        let (chunk, columns) =
            (u64::from(self.reshape.after.chunk_blocks()), u64::from(self.reshape.after.data_slots()));
        let rows = self.stripes().start / chunk..self.stripes().end.div_ceil(chunk);
        start.0 < rows.end * chunk * columns && rows.start * chunk * columns < start.0 + count
    }

    /// What is moved, in runs of blocks that follow each other, of so many at most: their first block, how many they are, and
    /// whether they lie behind the old end and are zeros.
    pub fn runs(&self, most: u32) -> impl Iterator<Item = (ArrayBlock, u32, bool)> + use<> {
        let Reshape { before, after, .. } = self.reshape;
        let (chunk, columns) = (u64::from(after.chunk_blocks()), u64::from(after.data_slots()));
        let stripes = self.stripes();
        let length = stripes.end - stripes.start;
        // Whole chunk rows are one run, and what lies in one row is one in each column.
        let is_whole = length >= chunk;
        let (count, all) = if is_whole { (1, length * columns) } else { (after.data_slots(), length) };
        let of_columns = (0..count).map(move |column| {
            let start = after.array_block(StripeId(stripes.start), column).0;
            start..start + all
        });
        // Nothing is read behind the old end.
        let split = move |run: Range<u64>| {
            let middle = before.blocks().clamp(run.start, run.end);
            [(run.start..middle, false), (middle..run.end, true)]
        };
        of_columns.flat_map(split).flat_map(move |(run, is_zero)| {
            let end = run.end;
            run.step_by(most as usize).map(move |at| (ArrayBlock(at), (end - at).min(most.into()) as u32, is_zero))
        })
    }

    /// The block that a column of a stripe has until now, if it is moved.
    pub fn moves_from(&self, stripe: StripeId, column: u8) -> bool {
        let before = &self.reshape.before;
        column < before.data_slots() && self.moves_block(before.array_block(stripe, column))
    }

    /// All blocks of the window's stripes, in the order of their new places.
    pub fn moves(&self) -> impl Iterator<Item = Move> + use<> {
        let Reshape { before, after, .. } = self.reshape;
        let columns = 0..after.data_slots();
        let places = columns.flat_map({
            let stripes = self.stripes();
            move |column| stripes.clone().map(move |stripe| Place { stripe: StripeId(stripe), column })
        });
        places.map(move |to| {
            let block = after.array_block(to.stripe, to.column);
            Move { block, to, from: (block.0 < before.blocks()).then(|| before.locate(block)) }
        })
    }

    /// The runs of stripes that the window's blocks lie in until now, in their order; none of them lies below the window.
    pub fn sources(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let Reshape { before, after, .. } = self.reshape;
        let (stripes, chunk) = (self.stripes(), u64::from(after.chunk_blocks()));
        // Chunks of the array: those of the rows that the window touches.
        let of_row = u64::from(after.data_slots());
        let first = stripes.start / chunk * of_row;
        let last = ((stripes.end - 1) / chunk + 1) * of_row - 1;
        let old = u64::from(before.data_slots());
        let rows = (first / old..=last / old).take_while(move |row| row * chunk < before.stripes());
        // A window is whole chunk rows, or lies in one.
        let within = if stripes.end - stripes.start >= chunk {
            0..chunk
        } else {
            stripes.start % chunk..stripes.start % chunk + (stripes.end - stripes.start)
        };
        rows.map(move |row| row * chunk + within.start..row * chunk + within.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrangement::Arrangement;
    use crate::geometry::{Part, slots, tests::geometries};
    use base::ids::Slot;
    use std::collections::{BTreeMap, BTreeSet};

    /// Every way to more members that there is, with the largest and the smallest window.
    fn reshapes(chunk_blocks: u32, most_members: u8, stripes: u64) -> Vec<Reshape> {
        let befores = geometries(chunk_blocks, most_members, stripes);
        let both = befores.flat_map(|before| {
            let afters = geometries(before.chunk_blocks(), before.members() + 3, before.stripes());
            afters.filter(move |after| after.level() == before.level()).map(move |after| (before, after))
        });
        let windows = [Reshape::least_window(chunk_blocks), MAX_WINDOW_STRIPES];
        let of = |(before, after): (Geometry, Geometry)| {
            windows.map(|window| Reshape::new(after, before.members(), StripeId(0), window).ok())
        };
        both.flat_map(of).flatten().collect()
    }

    /// What members hold, and the log: of each place the number of the data block. Parity is not looked at.
    struct Model {
        members: Vec<Vec<u64>>,
        log: BTreeMap<u64, u64>,
    }

    impl Model {
        fn write(&mut self, geometry: &Geometry, stripe: StripeId, contents: impl Fn(u8) -> u64) {
            for slot in slots(geometry.all_members()) {
                let content = match geometry.part_of(stripe, slot) {
                    Part::Data(column) => contents(column),
                    // As long as it is nothing else, what was there is gone.
                    Part::Parity(_) => u64::MAX,
                };
                self.members[slot.index()][stripe.0 as usize] = content;
            }
        }

        /// The block at a place, taken from each of its homes.
        fn read(&self, geometry: &Geometry, place: Place) -> u64 {
            let content = |slot: Slot| self.members[slot.index()][place.stripe.0 as usize];
            let first = content(geometry.member_of(place.stripe, place.column));
            assert!(slots(geometry.homes(place.stripe, place.column)).all(|slot| content(slot) == first));
            first
        }
    }

    /// Every block that hosts can see is where the arrangement says, and holds what it held.
    fn check(model: &Model, reshape: Reshape) {
        let arrangement = Arrangement::reshaping(reshape);
        assert_eq!(arrangement.blocks(), reshape.before().blocks(), "no growth before the end");
        for block in (0..arrangement.blocks()).map(ArrayBlock) {
            let place = arrangement.locate(block);
            let geometry = arrangement.at(place.stripe);
            assert_eq!(arrangement.array_block(place.stripe, place.column), block);
            assert!(reshape.is_current(place.stripe, place.column));
            let content = model.log.get(&block.0).copied().unwrap_or_else(|| model.read(geometry, place));
            assert_eq!(content, block.0 + 1, "{reshape:?}");
        }
    }

    /// Runs, places and near blocks are what the moves say.
    fn check_runs(window: &Window, reshape: &Reshape) {
        let mut of_runs = BTreeMap::new();
        for (start, count, is_zero) in window.runs(48) {
            assert!((1..=48).contains(&count));
            for block in start.0..start.0 + u64::from(count) {
                assert_eq!(of_runs.insert(block, is_zero), None);
            }
            assert!(window.is_near(start, u64::from(count)));
        }
        let moves: BTreeMap<u64, bool> = window.moves().map(|one| (one.block.0, one.from.is_none())).collect();
        assert_eq!(of_runs, moves);
        for block in (0..reshape.after().blocks()).map(ArrayBlock) {
            assert_eq!(window.moves_block(block), moves.contains_key(&block.0));
            assert!(window.is_near(block, 1) || !window.moves_block(block));
        }
        for source in window.sources().flatten().map(StripeId) {
            for column in 0..reshape.before().data_slots() {
                let block = reshape.before().array_block(source, column);
                assert_eq!(window.moves_from(source, column), moves.contains_key(&block.0));
            }
        }
    }

    #[test]
    fn several_windows_in_one_are_whole_chunk_rows_and_what_they_move_one_by_one() {
        for reshape in [1, 16, 64, 256].into_iter().flat_map(|chunk| reshapes(chunk, 4, 1024)) {
            let of_row = u64::from((reshape.after().chunk_blocks() / reshape.window_stripes()).max(1));
            for (begin, asked) in [(0, 5), (0, 1), (1, 7), (of_row, u64::MAX)] {
                let reshape = reshape.advanced(begin);
                let Some(window) = reshape.ahead(asked) else { continue };
                assert!(window.windows() == 1 || window.windows() <= asked && window.windows() % of_row == 0);
                let mut alone: Vec<_> = (0..window.windows())
                    .flat_map(|at| reshape.advanced(at).next().expect("it is ahead").moves())
                    .map(|one| (one.block, one.to, one.from))
                    .collect();
                let mut together: Vec<_> = window.moves().map(|one| (one.block, one.to, one.from)).collect();
                alone.sort_unstable_by_key(|one| one.0);
                together.sort_unstable_by_key(|one| one.0);
                assert_eq!(alone, together);
                let sources: BTreeSet<u64> = window.sources().flatten().collect();
                assert!(together.iter().all(|(_, _, from)| from.is_none_or(|from| sources.contains(&from.stripe.0))));
                check_runs(&window, &reshape);
            }
        }
    }

    #[test]
    fn every_block_can_be_read_at_every_moment_and_no_source_is_overwritten_before_it_is_logged() {
        for (chunk_blocks, stripes) in [(1, 1024), (16, 1024), (64, 1024), (256, 1024)] {
            let (mut tried, all) = (0, reshapes(chunk_blocks, 4, stripes));
            for start in all {
                tried += 1;
                let members = vec![vec![0; stripes as usize]; usize::from(start.after().members())];
                let mut model = Model { members, log: BTreeMap::new() };
                for stripe in (0..stripes).map(StripeId) {
                    model.write(start.before(), stripe, |column| start.before().array_block(stripe, column).0 + 1);
                }
                let mut reshape = start;
                while let Some(window) = reshape.next() {
                    // A look at each block takes long: at the first windows, where all lies close, and at some later.
                    let at = window.stripes().start;
                    let looks = at < 3 * u64::from(reshape.window_stripes()) || at % 448 == 0;
                    let sources: Vec<Range<u64>> = window.sources().collect();
                    if looks {
                        check_runs(&window, &reshape);
                    }
                    assert!(sources.iter().all(|source| source.start >= window.stripes().start), "{reshape:?}");
                    let mut read = BTreeSet::new();
                    for Move { block, to, from } in window.moves() {
                        assert!(window.stripes().contains(&to.stripe.0));
                        let content = from.map_or(0, |from| {
                            assert!(from.stripe >= to.stripe && reshape.is_current(from.stripe, from.column));
                            assert!(sources.iter().any(|source| source.contains(&from.stripe.0)), "{reshape:?}");
                            read.insert(from.stripe.0);
                            model.read(reshape.before(), from)
                        });
                        assert_eq!(content, if from.is_some() { block.0 + 1 } else { 0 }, "{reshape:?}");
                        assert_eq!(model.log.insert(block.0, content), None, "it moves once");
                    }
                    assert!(sources.iter().flat_map(|source| source.clone()).eq(read), "no more than it takes");
                    if looks {
                        check(&model, reshape);
                    }
                    reshape = reshape.advanced(1);
                    // Until all is written, what members hold of the window may be anything.
                    for stripe in window.stripes().map(StripeId) {
                        model.write(reshape.after(), stripe, |_| u64::MAX);
                    }
                    if looks {
                        check(&model, reshape);
                    }
                    for stripe in window.stripes().map(StripeId) {
                        let after = *reshape.after();
                        let log = &model.log;
                        let contents: Vec<u64> =
                            (0..after.data_slots()).map(|column| log[&after.array_block(stripe, column).0]).collect();
                        model.write(&after, stripe, |column| contents[usize::from(column)]);
                    }
                    model.log.clear();
                }
                assert_eq!(reshape.boundary(), StripeId(stripes));
                check(&model, reshape);
                for block in (reshape.before().blocks()..reshape.after().blocks()).map(ArrayBlock) {
                    assert_eq!(model.read(reshape.after(), reshape.after().locate(block)), 0, "new space is zeros");
                }
            }
            assert!(tried >= 40, "{tried}");
        }
    }

    #[test]
    fn a_window_lies_in_one_zone_and_cuts_no_atomic_unit() {
        for chunk_blocks in [1, 4, 16, 64, 128, 256] {
            for reshape in reshapes(chunk_blocks, 3, 4096) {
                let unit = u64::from(chunk_blocks.min(MAX_WINDOW_STRIPES));
                let (mut now, mut stripes) = (reshape, 0);
                while let Some(window) = now.next() {
                    let Range { start, end } = window.stripes();
                    assert_eq!((start, start % unit, (end - start) % unit), (stripes, 0, 0));
                    let zone = |stripe| now.after().zone_of(StripeId(stripe));
                    assert_eq!(zone(start), zone(end - 1));
                    for first in window.moves().map(|moved| moved.block).filter(|block| block.0 % unit == 0) {
                        let places = (0..unit).map(|at| now.locate(ArrayBlock(first.0 + at)).map(|place| place.stripe));
                        let first = now.locate(first).map(|place| place.stripe.0);
                        assert!(places.eq((0..unit).map(|at| first.map(|first| StripeId(first + at)))), "{now:?}");
                    }
                    stripes = end;
                    now = now.advanced(1);
                    assert_eq!(now.steps_ago(now.boundary().0 / u64::from(now.window_stripes())), reshape);
                }
                assert_eq!((stripes, now.steps_ago(u64::MAX)), (4096, reshape));
            }
        }
    }

    #[test]
    fn what_is_no_reshape_is_refused() {
        let geometry = |level, members| Geometry::new(level, members, 16, 4096).expect("a geometry");
        let after = geometry(Level::Raid5, 4);
        let of = |before, boundary, window| Reshape::new(after, before, StripeId(boundary), window);
        assert!(matches!(of(2, 0, 64), Err(ReshapeError::Geometry(_))));
        for before in [4, 5] {
            let none = ReshapeError::NoMore { level: Level::Raid5, before, after: 4 };
            assert_eq!(of(before, 0, 64), Err(none));
        }
        assert!(matches!(
            Reshape::new(geometry(Level::Raid1, 3), 2, StripeId(0), 64),
            Err(ReshapeError::NoMore { level: Level::Raid1, .. })
        ));
        for window in [0, 8, 48, 128, u32::MAX] {
            assert_eq!(of(3, 0, window), Err(ReshapeError::Window { window, least: 16 }));
        }
        for boundary in [1, 32, 4097, 4160, u64::MAX] {
            assert_eq!(of(3, boundary, 64), Err(ReshapeError::Boundary { boundary, window: 64, stripes: 4096 }));
        }
        assert!(of(3, 32, 32).is_ok() && of(3, 4096, 64).is_ok_and(|done| done.next().is_none()));
    }
}
