//! What protection costs in the data path: servers that differ in nothing but `sandbox` and `sealed`.

use crate::bench::{Options, Row, machine};
use crate::beside::{self, setup};
use crate::process::{self, Failure};
use std::time::Duration;

/// How the servers differ; the first has no protection, the last is what users get.
const SETTINGS: [(&str, &str); 4] =
    [("none", "sandbox: off\nsealed: off\n"), ("sandbox", "sealed: off\n"), ("sealed", "sandbox: off\n"), ("both", "")];

const ROWS: [Row; 4] = [
    Row { name: "4 KiB random read QD1", pattern: "randread", direction: "read", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random read QD32", pattern: "randread", direction: "read", block: "4KiB", depth: "32" },
    Row { name: "4 KiB random write QD1", pattern: "randwrite", direction: "write", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random write QD32", pattern: "randwrite", direction: "write", block: "4KiB", depth: "32" },
];

/// Measures every row and writes `deploy/bench/guards.md`.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    let settings = SETTINGS.map(|(name, more)| (name, setup(more)));
    let table = beside::table("guards", &settings, &ROWS, options, Duration::ZERO)?;
    process::write(&process::root().join("deploy/bench/guards.md"), &document(options, &table))?;
    Ok("written: deploy/bench/guards.md".to_owned())
}

fn document(options: &Options, table: &str) -> String {
    let Options { rounds, seconds } = options;
    format!(
        "# What sealed memory and the sandbox cost

RAID-5 of three members with two log copies, all in memory, write-back, over NVMe/TCP on loopback; the target on core 0, the load
generator on core 1. Four servers that differ in nothing but `sandbox` and `sealed` take turns: {rounds} interleaved rounds of
{seconds} s, medians. What is compared is the server's processor time for each request; columns are ratios to the server without
protection, and 1.00 is the same. {}. Made by `cargo xtask bench guards --rounds {rounds} --seconds {seconds}`.

| workload | none, µs | sandbox: on | sealed: kill | both, the default |
|---|---:|---:|---:|---:|
{table}",
        machine()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_is_what_users_get() {
        assert_eq!(SETTINGS[SETTINGS.len() - 1].1, "");
        assert!(SETTINGS[0].1.contains("sandbox: off") && SETTINGS[0].1.contains("sealed: off"));
    }
}
