//! The figures: NVMe/TCP over loopback to an array in memory, one target core, against the machine's own floor (bare
//! sockets that move the same bytes with nothing behind). Absolute figures move from machine to machine and from minute to
//! minute, so target and floor take turns and the ratio of the medians is what counts.

use crate::process::{self, Failure};
use crate::server::{NQN, Server, Setup};
use serde_json::Value;
use std::process::{Command, Stdio};

/// A line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) direction: &'static str,
    pub(crate) block: &'static str,
    pub(crate) depth: &'static str,
}

/// Fills a volume: blocks that were never written cost no drive access, so reads of them say nothing.
pub(crate) const FILL: Row = Row { name: "fill", pattern: "write", direction: "write", block: "128KiB", depth: "32" };

const ROWS: &[Row] = &[
    Row { name: "4 KiB random read QD1", pattern: "randread", direction: "read", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random read QD32", pattern: "randread", direction: "read", block: "4KiB", depth: "32" },
    Row { name: "4 KiB random read QD128", pattern: "randread", direction: "read", block: "4KiB", depth: "128" },
    Row { name: "4 KiB random write QD1", pattern: "randwrite", direction: "write", block: "4KiB", depth: "1" },
    Row { name: "4 KiB random write QD32", pattern: "randwrite", direction: "write", block: "4KiB", depth: "32" },
    Row { name: "4 KiB random write QD128", pattern: "randwrite", direction: "write", block: "4KiB", depth: "128" },
    Row { name: "128 KiB read QD32", pattern: "randread", direction: "read", block: "128KiB", depth: "32" },
    Row { name: "128 KiB write QD32", pattern: "randwrite", direction: "write", block: "128KiB", depth: "32" },
];

/// The load generator's core; the target has core 0.
const CLIENT_CORE: &str = "1";

/// How long the bench takes its time.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

impl Options {
    /// From the words behind `bench`.
    pub(crate) fn parse(words: &[&str]) -> Result<Options, Failure> {
        let usage = || Failure::Usage("bench: known options are --rounds N and --seconds S".to_owned());
        let mut options = Options { rounds: 3, seconds: 2.0 };
        for pair in words.chunks(2) {
            match pair {
                ["--rounds", number] => options.rounds = number.parse().map_err(|_| usage())?,
                ["--seconds", number] => options.seconds = number.parse().map_err(|_| usage())?,
                _ => return Err(usage()),
            }
        }
        if options.rounds == 0 || !(0.1..=600.0).contains(&options.seconds) {
            return Err(usage());
        }
        Ok(options)
    }
}

/// What one measurement gave.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) iops: f64,
    p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Measures every row and writes `deploy/bench/latest.md`.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let folder = process::root().join("target/lab/bench");
    process::fresh_folder(&folder)?;
    let mut server = Server::create(&folder, Setup::fast())?;
    measure(&target(&FILL, &server, 3.0))?;

    let mut table = String::new();
    for row in ROWS {
        let (mut floors, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            // The floor's server has the target's core: a target that polls would take half of it.
            floors.push(server.paused(|| measure(&floor(row, options.seconds)))?);
            targets.push(measure(&target(row, &server, options.seconds))?);
        }
        let line = table_line(row, median(&mut floors), median(&mut targets));
        println!("{line}");
        table += &line;
        table.push('\n');
    }
    server.stop()?;

    let out = process::root().join("deploy/bench");
    std::fs::create_dir_all(&out).map_err(|error| Failure::File(out.clone(), error))?;
    process::write(&out.join("latest.md"), &document(options, &table))?;
    Ok("written: deploy/bench/latest.md".to_owned())
}

/// The load generator's words for a row against the server.
pub(crate) fn target(row: &Row, server: &Server, seconds: f64) -> Vec<String> {
    let address = server.nvme().to_string();
    let words = ["bench", "--address", &address, "--nqn", NQN, "--pattern", row.pattern, "--core", CLIENT_CORE];
    words.into_iter().map(str::to_owned).chain(shape(row, seconds)).collect()
}

/// Its words for the same shape over bare sockets.
fn floor(row: &Row, seconds: f64) -> Vec<String> {
    ["floor", "--pattern", row.direction].into_iter().map(str::to_owned).chain(shape(row, seconds)).collect()
}

fn shape(row: &Row, seconds: f64) -> [String; 6] {
    let seconds = seconds.to_string();
    ["--block", row.block, "--depth", row.depth, "--seconds", &seconds].map(str::to_owned)
}

pub(crate) fn measure(words: &[String]) -> Result<Sample, Failure> {
    let output = Command::new(process::root().join("target/release/loadgen"))
        .arg("--json")
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::Start("loadgen".to_owned(), error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(Failure::found(format!("loadgen {}: {} {text}", words.join(" "), output.status)));
    }
    sample(&text).ok_or_else(|| Failure::found(format!("loadgen {}: no figures in {text}", words.join(" "))))
}

/// Reads the load generator's report. The floor has no latencies: they stay 0.
fn sample(text: &str) -> Option<Sample> {
    let report: Value = serde_json::from_str(text).ok()?;
    let latency = |name: &str| report.get("latency_us").and_then(|all| all.get(name)).and_then(Value::as_f64);
    Some(Sample {
        iops: report.get("iops")?.as_f64()?,
        p50_us: latency("p50").unwrap_or_default(),
        p99_us: latency("p99").unwrap_or_default(),
    })
}

/// The sample in the middle by its rate; the latencies are those of the same run.
fn median(samples: &mut [Sample]) -> Sample {
    samples.sort_by(|a, b| a.iops.total_cmp(&b.iops));
    samples[samples.len() / 2]
}

fn table_line(row: &Row, floor: Sample, target: Sample) -> String {
    let Sample { iops, p50_us, p99_us } = target;
    let ratio = iops / floor.iops;
    format!("| {} | {:.0} | {iops:.0} | {ratio:.2} | {p50_us:.0} | {p99_us:.0} |", row.name, floor.iops)
}

/// The processor, the kernel and how busy both were, for a document.
pub(crate) fn machine() -> String {
    let line = |path: &str, key: &str| {
        let text = process::read(path.as_ref()).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        found.split(':').next_back().unwrap_or_default().trim().to_owned()
    };
    let processor = line("/proc/cpuinfo", "model name");
    let kernel = line("/proc/sys/kernel/osrelease", "");
    let load = line("/proc/loadavg", "");
    let load = load.split(' ').next().unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{processor}, {processors} processors, Linux {kernel}, load average {load}")
}

fn document(options: &Options, table: &str) -> String {
    let machine = machine();
    let Options { rounds, seconds } = options;
    format!(
        "# Figures of the last `cargo xtask bench`

One RAID-5 array of three members with two log copies, all in memory, write-back; one volume over NVMe/TCP on loopback; the
target on core 0, the load generator on core 1; {rounds} interleaved rounds of {seconds} s, medians. The floor is bare sockets
that move the same bytes with nothing behind. {machine}.

| workload | floor, IOPS | Brindle, IOPS | ratio | p50, µs | p99, µs |
|---|---:|---:|---:|---:|---:|
{table}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_bounded() {
        assert_eq!(Options::parse(&[]).unwrap(), Options { rounds: 3, seconds: 2.0 });
        assert_eq!(
            Options::parse(&["--rounds", "5", "--seconds", "0.5"]).unwrap(),
            Options { rounds: 5, seconds: 0.5 }
        );
        for wrong in [&["--rounds"][..], &["--rounds", "0"], &["--seconds", "nan"], &["--fast", "1"]] {
            assert_eq!(Options::parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn reports_are_read() {
        let target = sample(r#"{"iops": 1000.5, "latency_us": {"p50": 7.0, "p99": 9.5}}"#).unwrap();
        assert_eq!((target.iops, target.p50_us, target.p99_us), (1000.5, 7.0, 9.5));
        assert_eq!(sample(r#"{"iops": 2.0}"#).unwrap().p50_us, 0.0);
        assert!(sample(r#"{"error": "x"}"#).is_none());
        assert!(sample("not JSON").is_none());
    }

    #[test]
    fn the_middle_run_counts_and_the_ratio_is_to_the_floor() {
        let of = |iops| Sample { iops, p50_us: iops / 10.0, p99_us: iops };
        let middle = median(&mut [of(30.0), of(10.0), of(20.0)]);
        assert_eq!((middle.iops, middle.p50_us), (20.0, 2.0));
        assert_eq!(table_line(&ROWS[0], of(40.0), of(20.0)), "| 4 KiB random read QD1 | 40 | 20 | 0.50 | 2 | 20 |");
    }
}
