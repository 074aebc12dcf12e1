//! What protection costs in the data path: the same load on servers that differ in nothing but `sandbox` and `sealed`. What is
//! compared is processor time for each request, user and system, which other work on the machine disturbs far less than rates.
//! All servers are there at once and take turns, each alone while it is measured; what counts is the ratio to the one without
//! protection.

use crate::bench::{FILL, Options, Row, Sample, machine, measure, target};
use crate::process::{self, Failure};
use crate::server::{Server, Setup};

/// How the servers differ; the first has no protection, the last is what users get.
const SETTINGS: [(&str, &str); 4] =
    [("none", "sandbox: off\nsealed: off\n"), ("sandbox", "sealed: off\n"), ("sealed", "sandbox: off\n"), ("both", "")];

const ROWS: [Row; 4] = [
    Row { name: "4 KiB random read QD1", pattern: "randread", direction: "read", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random read QD32", pattern: "randread", direction: "read", block: "4KiB", depth: "32" },
    Row { name: "4 KiB random write QD1", pattern: "randwrite", direction: "write", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random write QD32", pattern: "randwrite", direction: "write", block: "4KiB", depth: "32" },
];

/// Small enough that four of them fit into a machine's memory. Who sleeps when there is nothing to do spends its time on requests.
const fn setup(more: &'static str) -> Setup {
    Setup {
        reactors: "{cores: [0], polling: adaptive, spin: 1us, memory: 128MiB}",
        member: "128MiB",
        log: "256MiB",
        volume: "192MiB",
        more,
        ..Setup::fast()
    }
}

/// Measures every row and writes `deploy/bench/guards.md`.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let mut servers = Vec::new();
    for (name, more) in SETTINGS {
        let folder = process::root().join("target/lab").join(format!("guards-{name}"));
        process::fresh_folder(&folder)?;
        let server = Server::create(&folder, setup(more))?;
        let others: Vec<&Server> = servers.iter().collect();
        alone(&others, &mut || measure(&target(&FILL, &server, 2.0)))?;
        servers.push(server);
    }
    let mut table = String::new();
    for row in &ROWS {
        let mut samples = SETTINGS.map(|_| Vec::new());
        for round in 0..options.rounds {
            // Whoever is first in one round is not in the next.
            for turn in 0..SETTINGS.len() {
                let at = (turn + round) % SETTINGS.len();
                let others: Vec<&Server> =
                    servers.iter().enumerate().filter(|&(other, _)| other != at).map(|(_, server)| server).collect();
                samples[at].push(cost(row, &servers[at], &others, options.seconds)?);
            }
        }
        let line = table_line(row, &samples.map(|mut samples| median(&mut samples)));
        println!("{line}");
        table += &line;
        table.push('\n');
    }
    for server in &mut servers {
        server.stop()?;
    }
    process::write(&process::root().join("deploy/bench/guards.md"), &document(options, &table))?;
    Ok("written: deploy/bench/guards.md".to_owned())
}

/// Microseconds of processor time that a request costs the server.
fn cost(row: &Row, server: &Server, others: &[&Server], seconds: f64) -> Result<f64, Failure> {
    let mut words = target(row, server, seconds);
    // All requests count, so that they are those of the time that is taken.
    words.extend(["--warm-up", "0"].map(str::to_owned));
    let before = server.processor_time()?;
    let Sample { iops, .. } = alone(others, &mut || measure(&words))?;
    let spent = server.processor_time()? - before;
    Ok(spent.as_secs_f64() * 1e6 / (iops * seconds).max(1.0))
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Works while the others stand still.
fn alone(others: &[&Server], work: &mut dyn FnMut() -> Result<Sample, Failure>) -> Result<Sample, Failure> {
    match others.split_first() {
        Some((first, rest)) => first.paused(|| alone(rest, work)),
        None => work(),
    }
}

fn table_line(row: &Row, medians: &[f64; SETTINGS.len()]) -> String {
    let none = medians[0];
    let ratios: Vec<String> = medians[1..].iter().map(|one| format!("{:.2}", one / none)).collect();
    format!("| {} | {none:.1} | {} |", row.name, ratios.join(" | "))
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
    fn ratios_are_to_the_server_without_protection() {
        let line = table_line(&ROWS[0], &[10.0, 11.0, 10.1, 12.5]);
        assert_eq!(line, "| 4 KiB random read QD1 | 10.0 | 1.10 | 1.01 | 1.25 |");
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn the_last_setting_is_what_users_get() {
        assert_eq!(SETTINGS[SETTINGS.len() - 1].1, "");
        assert!(SETTINGS[0].1.contains("sandbox: off") && SETTINGS[0].1.contains("sealed: off"));
    }
}
