//! The sums in vectors: SSE2, AVX2 and AVX-512F kernels of one shape, and multiplication by table look-up in the shuffles of
//! SSSE3 and AVX2. It never touches the bytes behind the last whole vector (the caller finishes those in plain code) and never
//! chooses a kernel by itself.
//!
//! A kernel walks over the buffers in tiles of eight vectors. Eight sums stay in registers while every source is
//! loaded once and added, then the tile is stored once: memory traffic is one read of each source and one write of the
//! destination, whatever the number of sources. Loads and stores are the unaligned forms, which cost nothing extra on
//! aligned addresses of any processor that has AVX2.
//!
//! The price is a loop over the sources inside each tile. Versions unrolled for two, three, four sources would save its
//! branch; beyond the first-level cache the loads hide it.

use crate::multiply::Factor;
use crate::{Kernel, Start};

/// Vectors in a tile: half of the sixteen registers of SSE2 and AVX2, which leaves room for loads in flight.
#[cfg(target_arch = "x86_64")]
const TILE_VECTORS: usize = 8;

/// Combines as many whole vectors as fit and returns how many bytes that was. The lengths of all sources equal the
/// destination's and there is at least one source; that is asserted here again because memory safety rests on it.
///
/// # Panics
/// If the processor lacks `kernel`, or a length differs.
#[cfg(target_arch = "x86_64")]
pub(crate) fn combine(kernel: Kernel, destination: &mut [u8], sources: &[&[u8]], start: Start) -> usize {
    assert!(kernel.is_available(), "this processor lacks {}", kernel.name());
    assert!(!sources.is_empty() && sources.iter().all(|source| source.len() == destination.len()));
    match kernel {
        Kernel::Scalar => 0,
        // SAFETY: the processor has SSE2 and all lengths are equal, both asserted above.
        Kernel::Sse2 => unsafe { sse2(destination, sources, start) },
        // SAFETY: the processor has AVX2 and all lengths are equal, both asserted above.
        Kernel::Avx2 => unsafe { avx2(destination, sources, start) },
        // SAFETY: the processor has AVX-512F and all lengths are equal, both asserted above.
        Kernel::Avx512 => unsafe { avx512(destination, sources, start) },
    }
}

/// On other processors the plain loops do everything; the compiler vectorises them for the target's baseline.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn combine(kernel: Kernel, _destination: &mut [u8], _sources: &[&[u8]], _start: Start) -> usize {
    assert_eq!(kernel, Kernel::Scalar, "this processor lacks {}", kernel.name());
    0
}

/// One kernel: its name, the processor feature, the vector type, and the four operations on it.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($name:ident, $feature:literal, $vector:ident, $load:ident, $store:ident, $xor:ident) => {
        /// Combines whole vectors, returns the bytes done.
        ///
        /// # Safety
        /// The processor has the feature, there is a source, and every source is as long as the destination.
        #[target_feature(enable = $feature)]
        unsafe fn $name(destination: &mut [u8], sources: &[&[u8]], start: Start) -> usize {
            use std::arch::x86_64::{$load, $store, $vector, $xor};
            const WIDTH: usize = size_of::<$vector>();
            const TILE: usize = TILE_VECTORS * WIDTH;

            let length = destination.len();
            let output = destination.as_mut_ptr();
            let (initial, rest) = match start {
                Start::Destination => (output.cast_const(), sources),
                Start::FirstSource => (sources[0].as_ptr(), &sources[1..]),
            };
            // Reads the vector at byte `at` of a run.
            let load = |run: *const u8, at: usize| -> $vector {
                // SAFETY: callers keep at + WIDTH <= length, and every run is `length` bytes long.
                unsafe { $load(run.add(at).cast()) }
            };

            let mut at = 0;
            while at + TILE <= length {
                let mut sums: [$vector; TILE_VECTORS] = std::array::from_fn(|n| load(initial, at + n * WIDTH));
                for source in rest {
                    let run = source.as_ptr();
                    for n in 0..TILE_VECTORS {
                        sums[n] = $xor(sums[n], load(run, at + n * WIDTH));
                    }
                }
                for n in 0..TILE_VECTORS {
                    // SAFETY: at + TILE <= length, so the vector lies within the destination, which is ours alone.
                    unsafe { $store(output.add(at + n * WIDTH).cast(), sums[n]) };
                }
                at += TILE;
            }
            while at + WIDTH <= length {
                let mut sum = load(initial, at);
                for source in rest {
                    sum = $xor(sum, load(source.as_ptr(), at));
                }
                // SAFETY: at + WIDTH <= length, so the vector lies within the destination, which is ours alone.
                unsafe { $store(output.add(at).cast(), sum) };
                at += WIDTH;
            }
            at
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(sse2, "sse2", __m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_xor_si128);
#[cfg(target_arch = "x86_64")]
kernel!(avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_xor_si256);
#[cfg(target_arch = "x86_64")]
kernel!(avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_xor_si512);

/// Multiplies as many whole vectors as fit and returns how many bytes that was: none where the processor has the vectors of
/// the kernel and no shuffle for them. With 64 byte vectors the shuffle is a feature of its own; those of AVX2 do as well.
///
/// # Panics
/// If the processor lacks `kernel`, or the source's length differs from the destination's.
#[cfg(target_arch = "x86_64")]
pub(crate) fn multiply(kernel: Kernel, destination: &mut [u8], factor: Factor<'_>, coefficient: u8) -> usize {
    assert!(kernel.is_available(), "this processor lacks {}", kernel.name());
    if let Factor::Source(source) = factor {
        assert!(source.len() == destination.len());
    }
    let products = &crate::field::NIBBLES[usize::from(coefficient)];
    match kernel {
        Kernel::Avx2 | Kernel::Avx512 if std::is_x86_feature_detected!("avx2") => {
            // SAFETY: the processor has AVX2 and the lengths are equal, both looked at above.
            unsafe { multiply_avx2(destination, factor, products) }
        }
        Kernel::Sse2 if std::is_x86_feature_detected!("ssse3") => {
            // SAFETY: the processor has SSSE3 and the lengths are equal, both looked at above.
            unsafe { multiply_ssse3(destination, factor, products) }
        }
        _ => 0,
    }
}

/// On other processors the plain loops do everything.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn multiply(kernel: Kernel, _destination: &mut [u8], _factor: Factor<'_>, _coefficient: u8) -> usize {
    assert_eq!(kernel, Kernel::Scalar, "this processor lacks {}", kernel.name());
    0
}

/// One kernel of multiplication: its name, the processor feature, the vector type, how a table of sixteen products is loaded
/// into each half of a vector, and the operations on vectors.
#[cfg(target_arch = "x86_64")]
macro_rules! multiplier {
    ($name:ident, $feature:literal, $vector:ident, $table:expr, $load:ident, $store:ident, $fill:ident, $and:ident,
     $shift:ident, $shuffle:ident, $xor:ident) => {
        /// Multiplies whole vectors, returns the bytes done.
        ///
        /// # Safety
        /// The processor has the feature, and a source is as long as the destination.
        #[target_feature(enable = $feature)]
        unsafe fn $name(destination: &mut [u8], factor: Factor<'_>, products: &[u8; 32]) -> usize {
            use std::arch::x86_64::{$and, $fill, $load, $shift, $shuffle, $store, $vector, $xor};
            const WIDTH: usize = size_of::<$vector>();

            let length = destination.len();
            let output = destination.as_mut_ptr();
            let (input, adds) = match factor {
                Factor::Source(source) => (source.as_ptr(), true),
                Factor::Destination => (output.cast_const(), false),
            };
            // SAFETY: both halves of the products are sixteen bytes long.
            let (low, high) = unsafe { ($table(products.as_ptr()), $table(products.as_ptr().add(16))) };
            let nibble = $fill(15);
            let mut at = 0;
            while at + WIDTH <= length {
                // SAFETY: at + WIDTH <= length, and the input is `length` bytes long.
                let factors: $vector = unsafe { $load(input.add(at).cast()) };
                let from_low = $shuffle(low, $and(factors, nibble));
                let from_high = $shuffle(high, $and($shift::<4>(factors), nibble));
                let mut product = $xor(from_low, from_high);
                if adds {
                    // SAFETY: at + WIDTH <= length, which is the destination's.
                    product = $xor(product, unsafe { $load(output.add(at).cast_const().cast()) });
                }
                // SAFETY: at + WIDTH <= length, so the vector lies within the destination, which is ours alone.
                unsafe { $store(output.add(at).cast(), product) };
                at += WIDTH;
            }
            at
        }
    };
}

/// A table for both halves of a 32 byte vector, each of which shuffles for itself.
///
/// # Safety
/// The processor has AVX2, and sixteen bytes can be read there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn twice(table: *const u8) -> std::arch::x86_64::__m256i {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_broadcastsi128_si256};
    // SAFETY: the caller promises sixteen bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.cast()) })
}

/// A table for a 16 byte vector.
///
/// # Safety
/// Sixteen bytes can be read there.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "ssse3")]
unsafe fn once(table: *const u8) -> std::arch::x86_64::__m128i {
    // SAFETY: the caller promises sixteen bytes.
    unsafe { std::arch::x86_64::_mm_loadu_si128(table.cast()) }
}

#[cfg(target_arch = "x86_64")]
multiplier!(
    multiply_ssse3,
    "ssse3",
    __m128i,
    once,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_set1_epi8,
    _mm_and_si128,
    _mm_srli_epi64,
    _mm_shuffle_epi8,
    _mm_xor_si128
);
#[cfg(target_arch = "x86_64")]
multiplier!(
    multiply_avx2,
    "avx2",
    __m256i,
    twice,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_set1_epi8,
    _mm256_and_si256,
    _mm256_srli_epi64,
    _mm256_shuffle_epi8,
    _mm256_xor_si256
);

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn whole_vectors_are_multiplied_and_no_byte_behind_them() {
        for (kernel, width) in [(Kernel::Sse2, 16), (Kernel::Avx2, 32), (Kernel::Avx512, 32)] {
            if !kernel.is_available() {
                continue;
            }
            for length in 0..=3 * width {
                let source = vec![0x80; length];
                let mut destination = vec![0; length];
                let done = multiply(kernel, &mut destination, Factor::Source(&source), 2);
                assert!(
                    done == length / width * width || kernel == Kernel::Sse2 && done == 0,
                    "{kernel:?} at {length}"
                );
                assert!(destination[..done].iter().all(|byte| *byte == 0x1d));
                assert!(destination[done..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn whole_vectors_are_done_and_no_byte_behind_them() {
        for (kernel, width) in [(Kernel::Sse2, 16), (Kernel::Avx2, 32), (Kernel::Avx512, 64)] {
            if !kernel.is_available() {
                continue;
            }
            for length in 0..=3 * width * TILE_VECTORS {
                let source = vec![0x5a; length];
                let mut destination = vec![0; length];
                let done = combine(kernel, &mut destination, &[&source], Start::FirstSource);
                assert_eq!(done, length / width * width, "{kernel:?} at {length}");
                assert!(destination[..done].iter().all(|byte| *byte == 0x5a));
                assert!(destination[done..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_factor_of_another_length_never_reaches_a_pointer() {
        multiply(Kernel::Sse2, &mut [0; 32], Factor::Source(&[0; 16]), 2);
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn unequal_lengths_never_reach_a_pointer() {
        combine(Kernel::Sse2, &mut [0; 32], &[&[0; 16]], Start::FirstSource);
    }
}
