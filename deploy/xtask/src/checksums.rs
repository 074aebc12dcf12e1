//! What checksums of all blocks cost in the data path: servers that differ in nothing but `arrays[].checksums`.

use crate::bench::{Options, Row, machine};
use crate::beside::{self, setup};
use crate::process::{self, Failure};
use crate::server::Setup;
use std::time::Duration;

const ROWS: [Row; 5] = [
    Row { name: "4 KiB random read QD32", pattern: "randread", direction: "read", block: "4KiB", depth: "32" },
    Row { name: "128 KiB random read QD32", pattern: "randread", direction: "read", block: "128KiB", depth: "32" },
    Row { name: "4 KiB random write QD1", pattern: "randwrite", direction: "write", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random write QD32", pattern: "randwrite", direction: "write", block: "4KiB", depth: "32" },
    Row { name: "128 KiB sequential write QD32", pattern: "write", direction: "write", block: "128KiB", depth: "32" },
];

/// So that reads are of the members, and not of what waits in memory.
const REST: Duration = Duration::from_secs(10);

/// Measures every row and writes `deploy/bench/checksums.md`.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    let settings = ["off", "on"].map(|checksums| (checksums, Setup { checksums, ..setup("") }));
    let table = beside::table("checksums", &settings, &ROWS, options, REST)?;
    process::write(&process::root().join("deploy/bench/checksums.md"), &document(options, &table))?;
    Ok("written: deploy/bench/checksums.md".to_owned())
}

fn document(options: &Options, table: &str) -> String {
    let Options { rounds, seconds } = options;
    format!(
        "# What checksums cost

RAID-5 of three members with two log copies, all in memory, write-back, over NVMe/TCP on loopback; the target on core 0, the load
generator on core 1. Two servers that differ in nothing but `checksums` take turns: {rounds} interleaved rounds of {seconds} s, medians.
What is compared is the server's processor time for each request, with what it does in the background; 1.00 is the same. The
members are small: all checksum blocks are at hand. Where they are not, a read costs one more, of 4 KiB. {}. Made by
`cargo xtask bench checksums --rounds {rounds} --seconds {seconds}`.

| workload | off, µs | on |
|---|---:|---:|
{table}",
        machine()
    )
}
