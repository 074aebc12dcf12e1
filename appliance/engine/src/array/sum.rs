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
