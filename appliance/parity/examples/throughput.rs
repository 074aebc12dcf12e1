//! Measures the XOR of three 64 KiB sources against a copy of 64 KiB, per kernel. Run it with
//! `cargo run --release -p parity --example throughput`.
//!
//! Absolute figures move from machine to machine, so rounds of copy and XOR alternate and the ratio of the medians is
//! what counts. Bytes are those of the output: an ideal XOR of three sources reads three times what a copy reads.
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
    for _ in 0..ROUNDS {
        copies.push(rate(|| black_box(&mut output[..]).copy_from_slice(black_box(sources[0]))));
        for (kernel, rates) in kernels.iter().zip(&mut xors) {
            rates.push(rate(|| kernel.xor_many(black_box(&mut output), black_box(&sources))));
        }
    }

    let copy = median(&mut copies);
    println!("{SOURCES} sources of 64 KiB, {ROUNDS} interleaved rounds, medians, bytes of output");
    println!("{:<10} {:>8.1} GB/s", "copy", copy);
    for (kernel, rates) in kernels.iter().zip(&mut xors) {
        let xor = median(rates);
        let chosen = if *kernel == Kernel::best() { "  <- chosen here" } else { "" };
        println!("{:<10} {:>8.1} GB/s {:>6.2} of the copy{chosen}", kernel.name(), xor, xor / copy);
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
