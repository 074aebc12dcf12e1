//! Blocks times a coefficient: what Q is summed from, and what solving for lost blocks takes. A kernel here is the shuffle
//! that goes with the vectors of the XOR: a table of the sixteen products of each nibble fits a register, and a byte's
//! product is the sum of two of them.
//!
//! One source at a time: blocks are small enough that the sum stays in the first-level cache from one source to the next.

use crate::{Kernel, scalar, simd, xor_into};

/// What is multiplied.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factor<'a> {
    /// This; the product is added to the destination.
    Source(&'a [u8]),
    /// The destination itself; it becomes the product.
    Destination,
}

impl Kernel {
    /// `destination ^= coefficient × source`, with this kernel. For tests and measurements.
    ///
    /// # Panics
    /// If the lengths differ or the processor lacks the kernel.
    pub fn multiply_into(self, destination: &mut [u8], source: &[u8], coefficient: u8) {
        assert_eq!(source.len(), destination.len(), "the source and the destination differ in length");
        self.multiply(destination, Factor::Source(source), coefficient);
    }

    /// `destination = coefficient × destination`, with this kernel. For tests and measurements.
    ///
    /// # Panics
    /// If the processor lacks the kernel.
    pub fn scale(self, destination: &mut [u8], coefficient: u8) {
        self.multiply(destination, Factor::Destination, coefficient);
    }

    fn multiply(self, destination: &mut [u8], factor: Factor<'_>, coefficient: u8) {
        let done = match self {
            Kernel::Scalar => 0,
            _ => simd::multiply(self, destination, factor, coefficient),
        };
        scalar::multiply(destination, factor, coefficient, done);
    }
}

/// Adds a multiple of a source: `destination ^= coefficient × source`. With coefficient 1 it is [`xor_into`].
///
/// # Panics
/// If the lengths differ.
pub fn multiply_into(destination: &mut [u8], source: &[u8], coefficient: u8) {
    match coefficient {
        0 => assert_eq!(source.len(), destination.len(), "the source and the destination differ in length"),
        1 => xor_into(destination, source),
        _ => Kernel::best().multiply_into(destination, source, coefficient),
    }
}

/// Multiplies in place: `destination = coefficient × destination`.
pub fn scale(destination: &mut [u8], coefficient: u8) {
    match coefficient {
        0 => destination.fill(0),
        1 => {}
        _ => Kernel::best().scale(destination, coefficient),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;
    use crate::tests::{SHIFT_MAX, available, bytes};
    use proptest::prelude::*;

    /// One byte at a time, by the field's own product: the oracle of all kernels.
    fn defined(old: &[u8], source: &[u8], coefficient: u8) -> Vec<u8> {
        old.iter().zip(source).map(|(old, byte)| old ^ field::multiply(coefficient, *byte)).collect()
    }

    fn check_case(length: usize, shift: usize, coefficient: u8, seed: u64) {
        let backing = bytes(seed, length + SHIFT_MAX);
        let source = &backing[SHIFT_MAX - 1 - shift..][..length];
        let frame = bytes(seed ^ 0xdead, length + 2 * SHIFT_MAX);
        let (from, to) = (shift, shift + length);
        for kernel in available() {
            let mut added = frame.clone();
            kernel.multiply_into(&mut added[from..to], source, coefficient);
            assert_eq!(added[from..to], defined(&frame[from..to], source, coefficient), "{kernel:?} adds");
            let mut scaled = frame.clone();
            kernel.scale(&mut scaled[from..to], coefficient);
            assert_eq!(scaled[from..to], defined(&vec![0; length], &frame[from..to], coefficient), "{kernel:?} scales");
            for written in [added, scaled] {
                assert_eq!(written[..from], frame[..from], "{kernel:?} wrote before the destination");
                assert_eq!(written[to..], frame[to..], "{kernel:?} wrote behind the destination");
            }
        }
    }

    #[test]
    fn every_coefficient_agrees_with_the_definition() {
        for coefficient in 0..=255 {
            check_case(256 + 77, usize::from(coefficient) % SHIFT_MAX, coefficient, 3);
        }
    }

    #[test]
    fn every_short_length_agrees_with_the_definition() {
        for length in 0..300 {
            check_case(length, length * 5 % SHIFT_MAX, 0x8e, length as u64);
        }
    }

    #[test]
    fn the_public_functions_agree_with_the_definition() {
        let (old, source) = (bytes(1, 5000), bytes(2, 5000));
        for coefficient in [0, 1, 2, 0x1d, 0xff] {
            let mut run = old.clone();
            multiply_into(&mut run, &source, coefficient);
            assert_eq!(run, defined(&old, &source, coefficient));
            scale(&mut run, coefficient);
            assert_eq!(run, defined(&vec![0; 5000], &defined(&old, &source, coefficient), coefficient));
        }
    }

    #[test]
    #[should_panic(expected = "differ in length")]
    fn a_source_of_another_length_is_a_broken_invariant() {
        multiply_into(&mut [0; 8], &[0; 9], 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_shape_agrees_with_the_definition(
            length in 0usize..3000,
            shift in 0usize..SHIFT_MAX,
            coefficient in any::<u8>(),
            seed in any::<u32>(),
        ) {
            check_case(length, shift, coefficient, u64::from(seed));
        }
    }
}
