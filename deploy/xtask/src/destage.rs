//! What the rules of destaging bring: the same load at the same rate on servers that differ in nothing but `arrays[].destage`.
//! What is compared is counted and not timed: what goes to the members for each byte that hosts write, and what is read of them
//! for that. Each measurement has a fresh server and a load that runs long enough before for as much to leave the log as comes in.

use crate::bench::{Options, Row, machine, measure, target};
use crate::beside::{median, setup};
use crate::metrics::{fetch, read_from_log, sum};
use crate::process::{self, Failure};
use crate::server::{Server, Setup};

/// By name, what the configuration says, and the age by it in seconds. The first is the default.
const SETTINGS: [(&str, &str, f64); 10] = [
    ("default", "{}", 5.0),
    ("age: 500ms", "{age: 500ms, full_stripe_delay: 0s}", 0.5),
    ("age: 2s", "{age: 2s}", 2.0),
    ("age: 15s", "{age: 15s}", 15.0),
    ("full_stripe_delay: 0s", "{full_stripe_delay: 0s}", 5.0),
    ("full_stripe_delay: 200ms", "{full_stripe_delay: 200ms}", 5.0),
    ("full_stripe_delay: 1s", "{full_stripe_delay: 1s}", 5.0),
    ("full_stripe_delay: 5s", "{full_stripe_delay: 5s}", 5.0),
    ("high_watermark: 30%", "{age: 15s, high_watermark: 30%}", 15.0),
    ("memory_watermark: 10%", "{age: 15s, memory_watermark: 10%}", 15.0),
];

/// A load: its name, pattern, and blocks that it stays within.
pub(crate) type Load = (&'static str, &'static str, &'static str);

const LOADS: [Load; 3] = [
    ("4 KiB one behind the other", "write", "65536"),
    ("4 KiB anywhere in a hot set of 4 MiB", "randwrite", "1024"),
    ("4 KiB anywhere in 256 MiB", "randwrite", "65536"),
];

/// Requests a second: what any machine keeps up with, so that all servers are asked for the same.
pub(crate) const RATE: &str = "4000";

/// Seconds beyond the age that a load runs before it is measured.
const BEFORE: f64 = 2.0;

/// What a server has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    host_bytes: f64,
    member_bytes: f64,
    destaged_bytes: f64,
    old_bytes: f64,
    full: f64,
    stripes: f64,
}

impl Counts {
    fn of(server: &Server) -> Result<Self, Failure> {
        let text = fetch(server.metrics(), "/metrics").map_err(|error| Failure::Start("a scrape".to_owned(), error))?;
        Ok(Self::read(&text))
    }

    fn read(text: &str) -> Self {
        // Of the devices, only the members: the log is written once for each write whatever the rules are.
        let members = text.lines().filter(|line| line.contains("device=\"d")).collect::<Vec<_>>().join("\n");
        Self {
            host_bytes: sum(text, "brindle_volume_bytes_total", "op=\"write\""),
            member_bytes: sum(&members, "brindle_device_bytes_total", "op=\"write\""),
            destaged_bytes: sum(text, "brindle_array_destaged_bytes_total", "array=\"a0\""),
            old_bytes: sum(text, "brindle_array_old_bytes_total", "array=\"a0\""),
            full: sum(text, "brindle_array_stripe_writes_total", "kind=\"full\""),
            stripes: sum(text, "brindle_array_stripe_writes_total", "array=\"a0\""),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            host_bytes: self.host_bytes - before.host_bytes,
            member_bytes: self.member_bytes - before.member_bytes,
            destaged_bytes: self.destaged_bytes - before.destaged_bytes,
            old_bytes: self.old_bytes - before.old_bytes,
            full: self.full - before.full,
            stripes: self.stripes - before.stripes,
        }
    }
}

/// What one measurement gave, as it stands in the table: bytes to the members, those of them that are data, and old content
/// read, each for a byte of hosts; full stripes of a hundred; microseconds of processor time for a request, and the 99th
/// percentile of how long one took.
pub(crate) type Figures = [f64; 6];

fn figures(counts: Counts, processor_us: f64, p99_us: f64) -> Figures {
    let Counts { host_bytes, member_bytes, destaged_bytes, old_bytes, full, stripes } = counts;
    let a_byte = |bytes: f64| bytes / host_bytes.max(1.0);
    let full = 100.0 * full / stripes.max(1.0);
    [a_byte(member_bytes), a_byte(destaged_bytes), a_byte(old_bytes), full, processor_us, p99_us]
}

/// Measures every load under every setting and writes `deploy/bench/destage.md`.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let mut samples = vec![vec![Vec::new(); SETTINGS.len()]; LOADS.len()];
    for round in 0..options.rounds {
        for (load, samples) in LOADS.iter().zip(&mut samples) {
            // Whoever is first in one round is not in the next.
            for turn in 0..SETTINGS.len() {
                let at = (turn + round) % SETTINGS.len();
                let (_, destage, age) = SETTINGS[at];
                let shape = Setup { copies: 1, destage, reactors: REACTORS, ..shape() };
                samples[at].push(measured(load, shape, age + BEFORE, options.seconds)?.0);
            }
        }
    }
    let mut tables = String::new();
    for ((name, ..), samples) in LOADS.iter().zip(samples) {
        let lines: Vec<String> = SETTINGS
            .iter()
            .zip(samples)
            .map(|((setting, ..), samples)| table_line(setting, &medians(&samples)))
            .collect();
        let table = format!("\n## {name}\n\n{HEAD}{}\n", lines.join("\n"));
        println!("{table}");
        tables += &table;
    }
    process::write(&process::root().join("deploy/bench/destage.md"), &document(options, &tables))?;
    Ok("written: deploy/bench/destage.md".to_owned())
}

/// An array of five members, all in memory.
pub(crate) fn shape() -> Setup {
    Setup { members: 5, volume: "256MiB", ..setup("") }
}

/// What a load gives on a server of this shape, after so many seconds of it, in so many; and the bytes that are read back from the
/// log for each that hosts write.
pub(crate) fn measured(
    load: &Load,
    shape: Setup,
    seconds_before: f64,
    seconds: f64,
) -> Result<(Figures, f64), Failure> {
    let (name, pattern, region) = *load;
    let folder = process::root().join("target/lab/destage");
    process::fresh_folder(&folder)?;
    let mut server = Server::create(&folder, shape)?;
    let row = Row { name, pattern, direction: "write", block: "4KiB", depth: "32" };
    let words = |seconds| {
        let mut words = target(&row, &server, seconds);
        words.extend(["--warm-up", "0", "--region", region, "--rate", RATE, "--sleep"].map(str::to_owned));
        words
    };
    measure(&words(seconds_before))?;
    let (before, began) = (Counts::of(&server)?, server.processor_time()?);
    let read_before = read_from_log(server.metrics())?;
    let sample = measure(&words(seconds))?;
    let spent = server.processor_time()? - began;
    let counts = Counts::of(&server)?.since(before);
    let read = (read_from_log(server.metrics())? - read_before) / counts.host_bytes.max(1.0);
    server.stop()?;
    let requests = (counts.host_bytes / 4096.0).max(1.0);
    Ok((figures(counts, spent.as_secs_f64() * 1e6 / requests, sample.p99_us), read))
}

pub(crate) fn medians(samples: &[Figures]) -> Figures {
    core::array::from_fn(|at| median(&mut samples.iter().map(|figures| figures[at]).collect::<Vec<_>>()))
}

/// A reactor that rests when there is nothing to do, so that processor time is of what it does.
const REACTORS: &str = "{cores: [0], polling: adaptive, spin: 1us, memory: 256MiB}";

const HEAD: &str = "| | member bytes | data | old content | full, % | processor, µs | p99, µs |
|---|---:|---:|---:|---:|---:|---:|
";

fn table_line(setting: &str, figures: &Figures) -> String {
    let [members, data, old, full, processor, p99] = figures;
    format!("| {setting} | {members:.2} | {data:.2} | {old:.2} | {full:.0} | {processor:.0} | {p99:.0} |")
}

fn document(options: &Options, tables: &str) -> String {
    let Options { rounds, seconds } = options;
    format!(
        "# When stripes go to the members

RAID-5 of five members (stripes of four blocks of data and a parity), one log copy of 256 MiB, 256 MiB of memory, all devices in
memory, write-back, over NVMe/TCP on loopback. Servers that differ in nothing but `arrays[].destage` are asked for {RATE} writes of
4 KiB a second, for as long as their age and {BEFORE} s more before {seconds} s are measured; {rounds} interleaved rounds, medians.
*Member bytes* is what went to the members for each byte that hosts wrote, parity included; *data* is that without parity, less
than 1 where overwrites met in the log; *old content* is what was read of them for parities; *full* is the share of stripes that
needed none. These are counts. The server's processor time for a request, with what it does in the background, and the 99th
percentile of writes are times, which other work on the machine disturbs. What a setting's line does not name is the default.
{}. Made by `cargo xtask bench destage --rounds {rounds} --seconds {seconds}`.
{tables}",
        machine()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_members_and_of_the_time_between() {
        let text = "brindle_volume_bytes_total{array=\"a0\",volume=\"v0\",op=\"write\"} 8192\n\
                    brindle_volume_bytes_total{array=\"a0\",volume=\"v0\",op=\"read\"} 4096\n\
                    brindle_device_bytes_total{device=\"d0\",op=\"write\"} 4096\n\
                    brindle_device_bytes_total{device=\"d1\",op=\"write\"} 12288\n\
                    brindle_device_bytes_total{device=\"l0\",op=\"write\"} 65536\n\
                    brindle_array_destaged_bytes_total{array=\"a0\"} 4096\n\
                    brindle_array_old_bytes_total{array=\"a0\"} 2048\n\
                    brindle_array_stripe_writes_total{array=\"a0\",kind=\"full\"} 1\n\
                    brindle_array_stripe_writes_total{array=\"a0\",kind=\"reconstruct\"} 3\n";
        let counts = Counts::read(text);
        assert_eq!(figures(counts, 5.0, 7.0), [2.0, 0.5, 0.25, 25.0, 5.0, 7.0]);
        assert_eq!(counts.since(counts), Counts::default());
        let line = table_line("default", &medians(&[[1.0; 6], [3.0; 6], [2.0; 6]]));
        assert_eq!(line, "| default | 2.00 | 2.00 | 2.00 | 2 | 2 | 2 |");
    }

    #[test]
    fn the_first_setting_is_the_default() {
        assert_eq!(SETTINGS[0].1, "{}");
        assert!(SETTINGS[1..].iter().all(|(name, text, _)| text.contains(name)), "each says what its name says");
    }
}
