//! Measures the XOR of three 64 KiB sources, and the sum of one with a weight, against a copy of 64 KiB, per kernel. Run it
//! with `cargo run --release -p parity --example throughput`.
//!
//! Absolute figures move from machine to machine, so rounds of copy and sums alternate and the ratio of the medians is
//! what counts. Bytes are those of the output: an ideal XOR of three sources reads three times what a copy reads, and a
//! weighted sum twice.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement reads the clock")]

use parity::Kernel;
use std::hint::black_box;
use std::time::Instant;

const LENGTH: usize = 64 * 1024;
const SOURCES: usize = 3;
const ROUNDS: usize = 41;
const PASSES: usize = 400;

fn main() {
    let sources: Vec<Vec<u8>> = (0..SOURCES).map(|n| vec![n as u8 + 1; LENGTH]).collect();
    let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
    let mut output = vec![0; LENGTH];
    let kernels: Vec<Kernel> = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()).collect();

    let mut copies = Vec::new();
    let mut xors = vec![Vec::new(); kernels.len()];
    let mut products = xors.clone();
    for _ in 0..ROUNDS {
        copies.push(rate(|| black_box(&mut output[..]).copy_from_slice(black_box(sources[0]))));
        for (kernel, rates) in kernels.iter().zip(&mut xors) {
            rates.push(rate(|| kernel.xor_many(black_box(&mut output), black_box(&sources))));
        }
        for (kernel, rates) in kernels.iter().zip(&mut products) {
            rates.push(rate(|| kernel.multiply_into(black_box(&mut output), black_box(sources[0]), 0x1d)));
        }
    }

    let copy = median(&mut copies);
    println!("{SOURCES} sources of 64 KiB, {ROUNDS} interleaved rounds, medians, bytes of output");
    println!("{:<17} {:>8.1} GB/s", "copy", copy);
    for (name, measured) in [("XOR", &mut xors), ("weighted", &mut products)] {
        for (kernel, rates) in kernels.iter().zip(measured) {
            let sum = median(rates);
            let chosen = if *kernel == Kernel::best() { "  <- chosen here" } else { "" };
            println!("{name:<8} {:<8} {sum:>8.1} GB/s {:>6.2} of the copy{chosen}", kernel.name(), sum / copy);
        }
    }
}

/// Output bytes per nanosecond of `work`, run many times.
fn rate(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..PASSES {
        work();
    }
    (LENGTH * PASSES) as f64 / begun.elapsed().as_nanos() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
