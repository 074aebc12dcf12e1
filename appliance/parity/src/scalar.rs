//! The sums in plain Rust: what a processor without a kernel of its own runs, what finishes the last bytes behind the
//! vectors, and the oracle of the kernels' tests. It never looks at the processor and contains no unsafe code.
//!
//! Its loops have no bounds checks inside and no dependence between bytes, so that the compiler makes vectors of them
//! for targets whose baseline has some (NEON on 64-bit ARM).

use crate::Start;
use crate::field::NIBBLES;
use crate::multiply::Factor;

/// Bytes worked on at a time. All sources pass over one tile before the next begins, so that the tile of the
/// destination stays in the first-level cache.
const TILE: usize = 2048;

/// Combines `sources` into `destination` from byte `from` to the end. Lengths are equal and at least one source is
/// there: the crate's entry points have checked it.
pub(crate) fn combine(destination: &mut [u8], sources: &[&[u8]], start: Start, from: usize) {
    let length = destination.len();
    let mut at = from;
    while at < length {
        let end = length.min(at + TILE);
        let tile = &mut destination[at..end];
        let rest = match start {
            Start::Destination => sources,
            Start::FirstSource => {
                tile.copy_from_slice(&sources[0][at..end]);
                &sources[1..]
            }
        };
        for source in rest {
            add(tile, &source[at..end]);
        }
        at = end;
    }
}

/// `tile ^= source`, byte by byte.
fn add(tile: &mut [u8], source: &[u8]) {
    for (sum, byte) in tile.iter_mut().zip(source) {
        *sum ^= byte;
    }
}

/// Multiplies from byte `from` to the end. A source is as long as the destination: the entry points have checked it.
pub(crate) fn multiply(destination: &mut [u8], factor: Factor<'_>, coefficient: u8, from: usize) {
    let products = &NIBBLES[usize::from(coefficient)];
    let product = |byte: u8| products[usize::from(byte & 15)] ^ products[16 + usize::from(byte >> 4)];
    match factor {
        Factor::Source(source) => {
            for (sum, byte) in destination[from..].iter_mut().zip(&source[from..]) {
                *sum ^= product(*byte);
            }
        }
        Factor::Destination => destination[from..].iter_mut().for_each(|byte| *byte = product(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplication_leaves_alone_what_is_done_already() {
        let mut run = [1, 2, 4];
        multiply(&mut run, Factor::Source(&[0x80, 0x80, 0x80]), 2, 1);
        assert_eq!(run, [1, 2 ^ 0x1d, 4 ^ 0x1d]);
        multiply(&mut run, Factor::Destination, 0, 2);
        assert_eq!(run, [1, 2 ^ 0x1d, 0]);
    }

    #[test]
    fn it_starts_from_either_side() {
        let mut run = [1, 2, 4];
        combine(&mut run, &[&[8, 8, 8], &[16, 0, 16]], Start::FirstSource, 0);
        assert_eq!(run, [24, 8, 24]);
        combine(&mut run, &[&[8, 8, 8]], Start::Destination, 0);
        assert_eq!(run, [16, 0, 16]);
    }

    #[test]
    fn what_is_done_already_stays() {
        let mut run = [1, 2, 4];
        combine(&mut run, &[&[7, 7, 7]], Start::FirstSource, 2);
        assert_eq!(run, [1, 2, 7]);
        combine(&mut run, &[&[7, 7, 7]], Start::FirstSource, 3);
        assert_eq!(run, [1, 2, 7]);
    }

    #[test]
    fn tiles_join_without_a_seam() {
        let ones = vec![1; 3 * TILE + 5];
        let twos = vec![2; 3 * TILE + 5];
        let mut run = vec![0xff; 3 * TILE + 5];
        combine(&mut run, &[&ones, &twos], Start::FirstSource, 0);
        assert!(run.iter().all(|byte| *byte == 3));
    }
}
