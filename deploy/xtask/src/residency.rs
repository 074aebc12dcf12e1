//! What it brings that dirty data need not fit memory: the same load at the same rate on two servers with little memory that differ in
//! nothing but `arrays[].log.residency`. What is compared is counted, as in [`crate::destage`].

use crate::bench::{Options, machine};
use crate::beside::median;
use crate::destage::{self, Figures, Load, RATE, measured, medians};
use crate::process::{self, Failure};
use crate::server::Setup;

const SETTINGS: [&str; 2] = ["memory", "log"];

/// More than memory holds and less than the log.
const LOADS: [Load; 2] = [
    ("4 KiB anywhere in a hot set of 48 MiB", "randwrite", "12288"),
    ("4 KiB anywhere in 256 MiB", "randwrite", "65536"),
];

/// Seconds that a load runs before it is measured: the age, and some more.
const BEFORE: f64 = 17.0;

/// Measures every load under both settings and writes `deploy/bench/residency.md`.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let mut samples = vec![vec![Vec::<(Figures, f64)>::new(); SETTINGS.len()]; LOADS.len()];
    for round in 0..options.rounds {
        for (load, samples) in LOADS.iter().zip(&mut samples) {
            for turn in 0..SETTINGS.len() {
                let at = (turn + round) % SETTINGS.len();
                let shape = Setup {
                    residency: SETTINGS[at],
                    destage: "{age: 15s}",
                    reactors: "{cores: [0], polling: adaptive, spin: 1us, memory: 64MiB}",
                    ..destage::shape()
                };
                samples[at].push(measured(load, shape, BEFORE, options.seconds)?);
            }
        }
    }
    let mut tables = String::new();
    for ((name, ..), samples) in LOADS.iter().zip(samples) {
        let lines: Vec<String> =
            SETTINGS.iter().zip(samples).map(|(setting, samples)| table_line(setting, &samples)).collect();
        let table = format!("\n## {name}\n\n{HEAD}{}\n", lines.join("\n"));
        println!("{table}");
        tables += &table;
    }
    process::write(&process::root().join("deploy/bench/residency.md"), &document(options, &tables))?;
    Ok("written: deploy/bench/residency.md".to_owned())
}

const HEAD: &str =
    "| residency | member bytes | data | old content | full, % | read from the log | processor, µs | p99, µs |
|---|---:|---:|---:|---:|---:|---:|---:|
";

fn table_line(setting: &str, samples: &[(Figures, f64)]) -> String {
    let (figures, mut read): (Vec<Figures>, Vec<f64>) = samples.iter().copied().unzip();
    let [members, data, old, full, processor, p99] = medians(&figures);
    let read = median(&mut read);
    format!("| {setting} | {members:.2} | {data:.2} | {old:.2} | {full:.0} | {read:.2} | {processor:.0} | {p99:.0} |")
}

fn document(options: &Options, tables: &str) -> String {
    let Options { rounds, seconds } = options;
    format!(
        "# Where data waits for the members

RAID-5 of five members (stripes of four blocks of data and a parity), two log copies, 64 MiB of memory, `age: 15s`, all devices in
memory, write-back, over NVMe/TCP on loopback. Two servers that differ in nothing but `arrays[].log.residency` are asked for {RATE} writes
of 4 KiB a second, for {BEFORE} s before {seconds} s are measured; {rounds} interleaved rounds, medians. *Member bytes* is what went to the
members for each byte that hosts wrote, parity included; *data* is that without parity, less than 1 where overwrites met in the log;
*old content* is what was read of the members for parities, *read from the log* what had left memory and came back. Processor time and
the 99th percentile are times, which other work on the machine disturbs.
{}. Made by `cargo xtask bench residency --rounds {rounds} --seconds {seconds}`.
{tables}",
        machine()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_medians() {
        let line = table_line("log", &[([1.0; 6], 0.1), ([3.0; 6], 0.3), ([2.0; 6], 0.2)]);
        assert_eq!(line, "| log | 2.00 | 2.00 | 2.00 | 2 | 0.20 | 2 | 2 |");
    }
}
