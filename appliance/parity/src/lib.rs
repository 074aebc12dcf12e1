//! Parity arithmetic: sums of equally long byte runs, plain and weighted, as fast as the processor allows.
//!
//! P of a stripe row is the XOR of its data blocks; Q is their sum with weights, in a field of 256 elements. A lost block is a
//! weighted sum of what is left. This crate combines bytes and knows nothing of stripes: which buffers belong together, and
//! with which coefficients, is decided above it.
//!
//! | module | holds |
//! |---|---|
//! | [`field`] | the field: products and quotients of single elements |
//! | `multiply` | a run times a coefficient |
//! | `scalar` | the plain loops: the oracle of the tests and the kernel of processors without a faster one |
//! | `simd` | the same loops in 16, 32 and 64 byte vectors; the only file of the crate with unsafe code |
//!
//! The kernel is chosen at run time, once: a binary built for the oldest x86-64 uses AVX-512 where it finds it.
//!
//! ```
//! let (a, b, c) = ([0x0f; 4096], [0xf0; 4096], [0x55; 4096]);
//! let mut parity = [0; 4096];
//! parity::xor_many(&mut parity, &[&a, &b, &c]);
//! assert_eq!(parity, [0xaa; 4096]);
//!
//! // A lost block is what the parity and the remaining blocks make together.
//! parity::xor_many_into(&mut parity, &[&a, &c]);
//! assert_eq!(parity, b);
//!
//! // Q of two blocks, and the first one back from it and the second.
//! let mut q = a;
//! parity::multiply_into(&mut q, &b, 2);
//! parity::multiply_into(&mut q, &b, 2);
//! assert_eq!(q, a);
//! ```
#![deny(unsafe_code)]

pub mod field;
mod multiply;
mod scalar;
// JUSTIFICATION: vector loads and stores take raw pointers, and only the vector unit brings XOR near the speed of a
// copy. The module checks all lengths before the first pointer is made.
#[allow(unsafe_code)]
mod simd;

pub use multiply::{multiply_into, scale};

/// Most sources that one call combines: a stripe is at most 32 members wide.
pub const SOURCES_MAX: usize = 32;

/// A way to carry out the sums. All give the same bytes; they differ in the vector they work in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain loops, vectorised as far as the compiler sees fit for the build's target.
    Scalar,
    /// 16 byte vectors: every x86-64 has them.
    Sse2,
    /// 32 byte vectors.
    Avx2,
    /// 64 byte vectors.
    Avx512,
}

impl Kernel {
    /// Every kernel, slowest first.
    pub const ALL: [Kernel; 4] = [Kernel::Scalar, Kernel::Sse2, Kernel::Avx2, Kernel::Avx512];

    /// The fastest kernel of this processor. The answer is looked up once and kept by the standard library.
    pub fn best() -> Kernel {
        let mut best = Kernel::Scalar;
        for kernel in Kernel::ALL {
            if kernel.is_available() {
                best = kernel;
            }
        }
        best
    }

    /// Whether this processor can run the kernel.
    pub fn is_available(self) -> bool {
        match self {
            Kernel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Sse2 => std::is_x86_feature_detected!("sse2"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => std::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => std::is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Sse2 | Kernel::Avx2 | Kernel::Avx512 => false,
        }
    }

    /// The name for logs and reports, in the spelling of `/proc/cpuinfo`.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Scalar => "scalar",
            Kernel::Sse2 => "sse2",
            Kernel::Avx2 => "avx2",
            Kernel::Avx512 => "avx512f",
        }
    }

    /// `destination = XOR of sources`, with this kernel. For tests and measurements; the data path calls [`xor_many`].
    ///
    /// # Panics
    /// As [`xor_many`], and if the processor lacks the kernel.
    pub fn xor_many(self, destination: &mut [u8], sources: &[&[u8]]) {
        check(destination, sources);
        self.combine(destination, sources, Start::FirstSource);
    }

    /// `destination ^= XOR of sources`, with this kernel. For tests and measurements.
    ///
    /// # Panics
    /// As [`xor_many`], and if the processor lacks the kernel.
    pub fn xor_many_into(self, destination: &mut [u8], sources: &[&[u8]]) {
        check(destination, sources);
        self.combine(destination, sources, Start::Destination);
    }

    fn combine(self, destination: &mut [u8], sources: &[&[u8]], start: Start) {
        // What the vectors leave over at the end, less than one vector, is the plain loop's.
        let done = match self {
            Kernel::Scalar => 0,
            _ => simd::combine(self, destination, sources, start),
        };
        scalar::combine(destination, sources, start, done);
    }
}

/// What the accumulation begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The first source: the destination's old content is overwritten unread.
    FirstSource,
    /// The destination's old content.
    Destination,
}

/// Adds one source: `destination ^= source`.
///
/// # Panics
/// If the lengths differ.
pub fn xor_into(destination: &mut [u8], source: &[u8]) {
    xor_many_into(destination, &[source]);
}

/// Combines sources in one pass over memory: `destination = XOR of sources`. What the destination held does not matter
/// and is not read. With one source it is a copy.
///
/// # Panics
/// If there is no source, more than [`SOURCES_MAX`], or one whose length differs from the destination's.
pub fn xor_many(destination: &mut [u8], sources: &[&[u8]]) {
    check(destination, sources);
    Kernel::best().combine(destination, sources, Start::FirstSource);
}

/// Adds sources in one pass over memory: `destination ^= XOR of sources`. A read-modify-write takes the old data out
/// of the parity and the new data in by one call with both.
///
/// # Panics
/// If there is no source, more than [`SOURCES_MAX`], or one whose length differs from the destination's.
pub fn xor_many_into(destination: &mut [u8], sources: &[&[u8]]) {
    check(destination, sources);
    Kernel::best().combine(destination, sources, Start::Destination);
}

/// The callers' part of the bargain. A parity over runs of different lengths would be a lie about the longer ones.
fn check(destination: &[u8], sources: &[&[u8]]) {
    assert!(!sources.is_empty() && sources.len() <= SOURCES_MAX, "1 to {SOURCES_MAX} sources, not {}", sources.len());
    for source in sources {
        assert_eq!(source.len(), destination.len(), "a source and the destination differ in length");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Room before a run, so that it starts at any alignment within the widest vector.
    pub(crate) const SHIFT_MAX: usize = 64;

    pub(crate) fn available() -> impl Iterator<Item = Kernel> {
        Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
    }

    /// Bytes that look random but are named by a seed.
    pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    /// The definition, one byte at a time and unlike any kernel: the oracle of all of them.
    fn defined(old: &[u8], sources: &[&[u8]]) -> Vec<u8> {
        (0..old.len()).map(|at| sources.iter().fold(old[at], |sum, source| sum ^ source[at])).collect()
    }

    fn check_case(length: usize, count: usize, shift: usize, seed: u64) {
        // Each source at an alignment of its own, and the destination between guards that must stay.
        let backing: Vec<Vec<u8>> = (0..count).map(|n| bytes(seed + n as u64, length + SHIFT_MAX)).collect();
        let sources: Vec<&[u8]> = backing
            .iter()
            .enumerate()
            .map(|(n, run)| {
                let from = (shift + n * 7) % SHIFT_MAX;
                &run[from..from + length]
            })
            .collect();
        let frame = bytes(seed ^ 0xdead, length + 2 * SHIFT_MAX);
        let (from, to) = (shift, shift + length);
        for kernel in available() {
            let mut written = frame.clone();
            kernel.xor_many(&mut written[from..to], &sources);
            assert_eq!(written[from..to], defined(&vec![0; length], &sources), "{kernel:?} sets");
            assert_eq!(written[..from], frame[..from], "{kernel:?} wrote before the destination");
            assert_eq!(written[to..], frame[to..], "{kernel:?} wrote behind the destination");

            let mut added = frame.clone();
            kernel.xor_many_into(&mut added[from..to], &sources);
            assert_eq!(added[from..to], defined(&frame[from..to], &sources), "{kernel:?} adds");
            assert_eq!(added[..from], frame[..from], "{kernel:?} added before the destination");
            assert_eq!(added[to..], frame[to..], "{kernel:?} added behind the destination");
        }
    }

    #[test]
    fn every_short_length_agrees_with_the_definition() {
        for length in 0..300 {
            for count in [1, 2, 3, 5] {
                check_case(length, count, (length * 3) % SHIFT_MAX, length as u64);
            }
        }
    }

    #[test]
    fn every_source_count_agrees_with_the_definition() {
        for count in 1..=SOURCES_MAX {
            check_case(4096 + 321, count, count, 77);
        }
    }

    #[test]
    fn every_alignment_agrees_with_the_definition() {
        for shift in 0..SHIFT_MAX {
            check_case(1300, 4, shift, 5);
        }
    }

    #[test]
    fn the_public_functions_agree_with_the_definition() {
        let (old, a, b) = (bytes(1, 5000), bytes(2, 5000), bytes(3, 5000));
        let mut run = old.clone();
        xor_many(&mut run, &[&a, &b]);
        assert_eq!(run, defined(&vec![0; 5000], &[&a, &b]));
        xor_into(&mut run, &old);
        assert_eq!(run, defined(&old, &[&a, &b]));
        xor_many_into(&mut run, &[&a, &b]);
        assert_eq!(run, old);
    }

    #[test]
    fn the_best_kernel_is_available() {
        assert!(Kernel::best().is_available());
        assert!(Kernel::Scalar.is_available());
        #[cfg(target_arch = "x86_64")]
        assert_ne!(Kernel::best(), Kernel::Scalar, "every x86-64 has SSE2");
    }

    #[test]
    #[should_panic(expected = "differ in length")]
    fn a_short_source_is_a_broken_invariant() {
        xor_into(&mut [0; 8], &[0; 7]);
    }

    #[test]
    #[should_panic(expected = "1 to 32 sources")]
    fn no_source_is_a_broken_invariant() {
        xor_many(&mut [0; 8], &[]);
    }

    #[test]
    #[should_panic(expected = "1 to 32 sources")]
    fn too_many_sources_are_a_broken_invariant() {
        let source: &[u8] = &[0; 8];
        xor_many(&mut [0; 8], &[source; SOURCES_MAX + 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_shape_agrees_with_the_definition(
            length in 0usize..3000,
            count in 1usize..=SOURCES_MAX,
            shift in 0usize..SHIFT_MAX,
            seed in any::<u32>(),
        ) {
            check_case(length, count, shift, u64::from(seed));
        }

        #[test]
        fn a_lost_block_is_the_sum_of_the_others(count in 2usize..=SOURCES_MAX, lost in 0usize..32, seed in any::<u32>()) {
            let lost = lost % count;
            let blocks: Vec<Vec<u8>> = (0..count).map(|n| bytes(u64::from(seed) + n as u64, 4096)).collect();
            let all: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            let mut parity = vec![0; 4096];
            xor_many(&mut parity, &all);
            let others: Vec<&[u8]> = all.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, block)| *block).collect();
            if !others.is_empty() {
                xor_many_into(&mut parity, &others);
            }
            prop_assert_eq!(&parity, &blocks[lost]);
        }
    }
}
