//! Weighted sums of blocks in buffers: what `raid` decided, carried out. It never chooses what is added up, and moves no
//! buffer.

use ports::{Buffer, BufferId, Buffers};
use raid::Recipe;

/// Puts together the part of a stripe that a recipe gives. `blocks` name the buffers that hold what was read, in the order
/// of the recipe's terms; the first of them becomes the part.
///
/// # Panics
/// If there is not one buffer for each term.
pub(crate) fn carry_out(buffers: &mut impl Buffers, recipe: &Recipe, blocks: &[BufferId]) {
    assert_eq!(blocks.len(), recipe.len(), "a block for each term");
    let Some(&sum) = blocks.first() else { return };
    for (term, &block) in recipe.terms().zip(blocks) {
        if block == sum {
            parity::scale(buffers.bytes_mut(sum), term.coefficient);
        } else {
            add(buffers, sum, term.coefficient, block);
        }
    }
}

/// Puts together the part of a stripe that a recipe gives in a buffer of its own, and leaves those that it is made of alone.
/// `block` names the buffer that holds a member's block.
pub(crate) fn put_into(
    buffers: &mut impl Buffers,
    recipe: &Recipe,
    into: BufferId,
    block: impl Fn(base::ids::Slot) -> BufferId,
) {
    buffers.bytes_mut(into).fill(0);
    recipe.terms().for_each(|term| add(buffers, into, term.coefficient, block(term.slot)));
}

fn add(buffers: &mut impl Buffers, sum: BufferId, coefficient: u8, block: BufferId) {
    let (sum, block) = buffers.pair(sum, block);
    parity::multiply_into(sum, block, coefficient);
}

/// A sum that grows in a buffer.
#[derive(Debug)]
pub(crate) struct Sum {
    buffer: Buffer,
    is_empty: bool,
}

impl Sum {
    /// The sum of nothing, in a buffer whose content does not matter.
    pub(crate) const fn of_nothing(buffer: Buffer) -> Self {
        Self { buffer, is_empty: true }
    }

    /// A sum that begins with what its buffer holds.
    pub(crate) fn of(buffers: &mut impl Buffers, coefficient: u8, buffer: Buffer) -> Self {
        parity::scale(buffers.bytes_mut(buffer.id()), coefficient);
        Self { buffer, is_empty: false }
    }

    /// Adds a block.
    pub(crate) fn add(&mut self, buffers: &mut impl Buffers, coefficient: u8, block: BufferId) {
        if coefficient == 0 {
            return;
        }
        if core::mem::take(&mut self.is_empty) {
            let (sum, block) = buffers.pair(self.buffer.id(), block);
            sum.copy_from_slice(block);
            parity::scale(sum, coefficient);
        } else {
            add(buffers, self.buffer.id(), coefficient, block);
        }
    }

    /// The buffer with the sum in it.
    pub(crate) fn end(self, buffers: &mut impl Buffers) -> Buffer {
        if self.is_empty {
            buffers.bytes_mut(self.buffer.id()).fill(0);
        }
        self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Block;
    use base::ids::{Slot, StripeId};
    use ports::buffers::HEADROOM;
    use raid::{Geometry, Level, Part, recipe, weight};

    /// Buffers without links, headroom or ownership.
    struct Blocks(Vec<Block>);

    impl Buffers for Blocks {
        fn alloc(&mut self) -> Option<Buffer> {
            unreachable!("sums take no buffers")
        }
        fn free(&mut self, _: Buffer) {
            unreachable!("sums give no buffers back")
        }
        fn available(&self) -> usize {
            0
        }
        fn bytes(&self, buffer: BufferId) -> &Block {
            &self.0[buffer.0 as usize]
        }
        fn bytes_mut(&mut self, buffer: BufferId) -> &mut Block {
            &mut self.0[buffer.0 as usize]
        }
        fn pair(&mut self, change: BufferId, read: BufferId) -> (&mut Block, &Block) {
            let [change, read] =
                self.0.get_disjoint_mut([change.0 as usize, read.0 as usize]).expect("two different buffers");
            (change, read)
        }
        fn headroom(&mut self, _: BufferId) -> &mut [u8; HEADROOM] {
            unreachable!("sums send nothing")
        }
        fn next(&self, _: BufferId) -> Option<BufferId> {
            None
        }
        fn set_next(&mut self, _: BufferId, _: Option<BufferId>) {}
    }

    /// A full stripe of an array, by members, its parities made by growing sums.
    fn stripe(geometry: &Geometry, stripe: StripeId) -> Vec<Block> {
        let columns = geometry.data_slots();
        let content = |column: u8| core::array::from_fn(|at| (at as u8).wrapping_mul(31) ^ column.wrapping_mul(113));
        let mut blocks = Blocks((0..columns).map(content).chain([[0xee; base::BLOCK]]).collect());
        let mut part = |part| match part {
            Part::Data(column) => blocks.0[usize::from(column)],
            Part::Parity(index) => {
                let mut sum = Sum::of_nothing(Buffer::from_id(BufferId(columns.into())));
                for column in 0..columns {
                    sum.add(&mut blocks, weight(index, column), BufferId(column.into()));
                }
                let buffer = sum.end(&mut blocks);
                *blocks.bytes(buffer.id())
            }
        };
        (0..geometry.members()).map(|slot| part(geometry.part_of(stripe, Slot(slot)))).collect()
    }

    #[test]
    fn every_recipe_gives_back_what_was_lost() {
        for (level, members) in
            [(Level::Raid1, 3), (Level::Raid4, 4), (Level::Raid5, 5), (Level::Raid6, 7), (Level::Raid10, 6)]
        {
            let geometry = Geometry::new(level, members, 1, 1024).expect("a geometry");
            let at = StripeId(2);
            let all = stripe(&geometry, at);
            for missing in (1..=geometry.all_members()).filter(|&missing| geometry.bears(missing)) {
                for slot in raid::slots(missing) {
                    let recipe = recipe(&geometry, at, geometry.part_of(at, slot), missing).expect("it bears that");
                    let mut read = Blocks(recipe.terms().map(|term| all[term.slot.index()]).collect());
                    let names: Vec<BufferId> = (0..recipe.len() as u32).map(BufferId).collect();
                    carry_out(&mut read, &recipe, &names);
                    assert!(read.0[0] == all[slot.index()], "{level}: {slot:?} without {missing:#b}");
                    let mut read = Blocks(all.clone());
                    put_into(&mut read, &recipe, BufferId(slot.0.into()), |slot| BufferId(slot.0.into()));
                    assert!(read.0 == all, "{level}: {slot:?} without {missing:#b}, and no other");
                }
            }
        }
    }

    #[test]
    fn a_sum_may_begin_with_a_block_and_one_of_nothing_is_zeros() {
        let mut blocks = Blocks(vec![[3; base::BLOCK], [5; base::BLOCK]]);
        let mut sum = Sum::of(&mut blocks, 2, Buffer::from_id(BufferId(0)));
        sum.add(&mut blocks, 0, BufferId(1));
        sum.add(&mut blocks, 1, BufferId(1));
        let buffer = sum.end(&mut blocks);
        assert_eq!(blocks.bytes(buffer.id()), &[6 ^ 5; base::BLOCK]);
        let buffer = Sum::of_nothing(buffer).end(&mut blocks);
        assert_eq!(blocks.bytes(buffer.id()), &base::ZERO_BLOCK);
    }
}
