//! The load generator's command line: `bench`, `floor`, `torture` and `discover`, for people or as JSON. It measures
//! and judges by the library and only words the outcome.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use base::uuid::Uuid;
use clap::{Args, Parser, Subcommand, ValueEnum};
use loadgen::discovery::discover;
use loadgen::error::HostError;
use loadgen::floor::{self, FloorDirection, FloorOptions};
use loadgen::host::{HostIdentity, HostOptions};
use loadgen::random::mix;
use loadgen::request::Wait;
use loadgen::torture::{End, Torture, TortureOptions, VerifyReport};
use loadgen::workload::{self, Limit, Pattern, Report, WorkloadOptions};
use nvme::layout::text;
use nvmf::pdu::Digests;
use serde_json::{Value, json};

/// Longest sleep of an idle poll.
const IDLE_SLEEP: Duration = Duration::from_millis(100);

/// Verifications tried while the target keeps dying.
const VERIFY_ATTEMPTS_MAX: u32 = 8;

#[derive(Parser)]
#[command(version, about = "NVMe/TCP load, floor and crash torture")]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one load against the first namespace of a subsystem.
    Bench(Bench),
    /// Measure what bare sockets reach on this machine.
    Floor(Floor),
    /// Write stamped blocks until the target dies, then verify every block when it is back.
    Torture(Tortured),
    /// Print a target's discovery log.
    Discover {
        /// The target's address and port.
        #[arg(long)]
        address: SocketAddr,
    },
}

#[derive(Args)]
struct Bench {
    /// The target's address and port.
    #[arg(long)]
    address: SocketAddr,
    /// The subsystem's qualified name.
    #[arg(long)]
    nqn: String,
    /// randread, randwrite, read, write or randrw:PERCENT (of reads).
    #[arg(long, default_value = "randread")]
    pattern: Pattern,
    /// Bytes of a request, as 4096, 4KiB or 1MiB.
    #[arg(long, default_value = "4KiB", value_parser = bytes)]
    block: u32,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// Connections, each with a thread of its own.
    #[arg(long, default_value_t = 1)]
    connections: u16,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How long to run before.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Blocks of the volume that are touched, from the first one on; left out: all.
    #[arg(long)]
    region: Option<u64>,
    /// Requests a second on each connection; left out: as many as it takes.
    #[arg(long)]
    rate: Option<core::num::NonZeroU32>,
    /// Ask for header and data digests.
    #[arg(long)]
    digests: bool,
    /// The core of the first connection's thread; further ones follow.
    #[arg(long)]
    core: Option<usize>,
    /// Sleep when nothing has come, instead of spinning.
    #[arg(long)]
    sleep: bool,
    /// What addresses are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Direction {
    Read,
    Write,
}

#[derive(Args)]
struct Floor {
    /// Which way the data goes.
    #[arg(long, value_enum, default_value = "read")]
    pattern: Direction,
    /// Bytes of a request, as 4096, 4KiB or 1MiB.
    #[arg(long, default_value = "4KiB", value_parser = bytes)]
    block: u32,
    /// Requests in flight.
    #[arg(long, default_value_t = 32)]
    depth: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Args)]
struct Tortured {
    /// The target's address and port.
    #[arg(long)]
    address: SocketAddr,
    /// The subsystem's qualified name.
    #[arg(long)]
    nqn: String,
    /// What addresses, lengths and choices are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests in flight on each queue.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// I/O queues.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// The longest request, in blocks.
    #[arg(long, default_value_t = 16)]
    blocks: u32,
    /// The region, in blocks from the first one.
    #[arg(long, default_value_t = 16_384)]
    region: u64,
    /// How long each round writes, unless the target dies before.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds of writing and verifying.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Ask for header and data digests.
    #[arg(long)]
    digests: bool,
}

fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    let outcome = match command {
        Command::Bench(bench) => run_bench(&bench, json),
        Command::Floor(floor) => run_floor(&floor, json),
        Command::Torture(torture) => run_torture(&torture, json),
        Command::Discover { address } => run_discover(address, json),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            if json {
                println!("{}", json!({ "error": error }));
            } else {
                eprintln!("loadgen: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run_bench(bench: &Bench, json: bool) -> Result<bool, String> {
    let options = WorkloadOptions {
        pattern: bench.pattern,
        request_bytes: bench.block,
        depth: bench.depth,
        limit: Limit::Time(seconds(bench.seconds)?),
        warm_up: seconds(bench.warm_up)?,
        region_blocks: bench.region,
        interval: bench.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.get()),
        seed: bench.seed,
        wait: if bench.sleep { Wait::Sleep(IDLE_SLEEP) } else { Wait::Spin },
    };
    let mut target = HostOptions::new(bench.address, &bench.nqn, identity(bench.seed));
    target.digests = Digests { header: bench.digests, data: bench.digests };
    let reports = std::thread::scope(|scope| {
        let connections: Vec<_> = (0..bench.connections)
            .map(|number| {
                let (target, options) =
                    (&target, WorkloadOptions { seed: mix(options.seed ^ u64::from(number)), ..options });
                scope.spawn(move || {
                    if let Some(core) = bench.core {
                        // Where it cannot be pinned it runs where the scheduler puts it.
                        floor::pin(core + usize::from(number));
                    }
                    workload::bench(target, &options)
                })
            })
            .collect();
        let joined = connections.into_iter().map(|connection| connection.join().expect("a connection ends in order"));
        joined.collect::<Result<Vec<Report>, HostError>>()
    });
    let mut reports = reports.map_err(|error| error.to_string())?.into_iter();
    let mut report = reports.next().ok_or("at least one connection is needed")?;
    reports.for_each(|other| report.merge(&other));
    if json {
        println!("{}", report_json(&report, bench));
    } else {
        print_report(&report, bench);
    }
    Ok(true)
}

fn report_json(report: &Report, bench: &Bench) -> Value {
    let us = |latency: Duration| latency.as_nanos() as f64 / 1e3;
    json!({
        "pattern": bench.pattern.to_string(),
        "block_bytes": bench.block,
        "depth": bench.depth,
        "connections": bench.connections,
        "digests": bench.digests,
        "seconds": report.elapsed.as_secs_f64(),
        "reads": report.reads,
        "writes": report.writes,
        "iops": report.iops(),
        "bytes_per_second": report.bytes_per_second(),
        "latency_us": {
            "mean": us(report.mean_latency()),
            "p50": us(report.latency(0.5)),
            "p99": us(report.latency(0.99)),
            "p99_9": us(report.latency(0.999)),
            "max": us(report.longest_latency()),
        },
    })
}

fn print_report(report: &Report, bench: &Bench) {
    println!(
        "{} of {} bytes at depth {}: {:.0} IOPS, {:.1} MB/s",
        bench.pattern,
        bench.block,
        bench.depth,
        report.iops(),
        report.bytes_per_second() / 1e6
    );
    println!(
        "latency: mean {:.1?}, p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, max {:.1?}",
        report.mean_latency(),
        report.latency(0.5),
        report.latency(0.99),
        report.latency(0.999),
        report.longest_latency()
    );
}

fn run_floor(arguments: &Floor, json: bool) -> Result<bool, String> {
    let options = FloorOptions {
        direction: match arguments.pattern {
            Direction::Read => FloorDirection::Read,
            Direction::Write => FloorDirection::Write,
        },
        block_bytes: arguments.block as usize,
        depth: arguments.depth,
        duration: seconds(arguments.seconds)?,
        cores: Some((0, 1)),
    };
    let report = floor::measure(&options).map_err(|error| format!("the floor cannot be measured: {error}"))?;
    if json {
        let block_bytes = report.block_bytes;
        println!(
            "{}",
            json!({
                "direction": if options.direction == FloorDirection::Read { "read" } else { "write" },
                "block_bytes": block_bytes,
                "depth": options.depth,
                "seconds": report.elapsed.as_secs_f64(),
                "iops": report.iops(),
                "bytes_per_second": report.bytes_per_second(),
                "pinned": report.pinned,
            })
        );
    } else {
        println!("{:.0} requests/s, {:.1} MB/s", report.iops(), report.bytes_per_second() / 1e6);
        if !report.pinned {
            println!("the two threads could not be pinned to cores 0 and 1");
        }
    }
    Ok(true)
}

fn run_torture(arguments: &Tortured, json: bool) -> Result<bool, String> {
    let duration = seconds(arguments.seconds)?;
    let options = TortureOptions {
        queue_depth: arguments.depth,
        queues: arguments.queues,
        max_blocks_per_io: arguments.blocks,
        region_blocks: arguments.region,
        digests: Digests { header: arguments.digests, data: arguments.digests },
        ..TortureOptions::default()
    };
    let worded = |error: HostError| error.to_string();
    let mut torture = Torture::new(arguments.address, &arguments.nqn, arguments.seed, options).map_err(worded)?;
    for round in 1..=arguments.rounds {
        let started = Instant::now();
        let end = torture.run_until(|_| started.elapsed() >= duration).map_err(worded)?;
        let report = verify(&mut torture).map_err(worded)?;
        let progress = *torture.progress();
        if json {
            let violations: Vec<_> = report.kept.iter().map(ToString::to_string).collect();
            println!(
                "{}",
                json!({
                    "round": round,
                    "died": matches!(end, End::Died(_)),
                    "writes_acknowledged": progress.writes_acknowledged,
                    "reads_checked": progress.reads_checked,
                    "refused": progress.refused,
                    "lost_in_flight": progress.lost_in_flight,
                    "reconnected_after_seconds": report.reconnected_after.as_secs_f64(),
                    "blocks": report.blocks,
                    "settled": report.settled,
                    "violations": progress.violations,
                    "first_violations": violations,
                })
            );
        } else {
            let ended = match end {
                End::Stopped => "stopped".to_owned(),
                End::Died(error) => format!("the target died ({error}), back after {:.1?}", report.reconnected_after),
            };
            println!(
                "round {round}: {} writes acknowledged, {ended}; {} blocks verified, {} violations",
                progress.writes_acknowledged, report.blocks, report.violations
            );
            report.kept.iter().for_each(|violation| println!("  {violation}"));
        }
        if progress.violations > 0 {
            return Ok(false);
        }
    }
    torture.disconnect().map_err(worded)?;
    Ok(true)
}

/// Verifies, again if the target dies under it: whoever kills it does not ask.
fn verify(torture: &mut Torture) -> Result<VerifyReport, HostError> {
    let mut attempt = 1;
    loop {
        match torture.verify(|_, _| {}) {
            Err(error) if error.is_loss() && attempt < VERIFY_ATTEMPTS_MAX => attempt += 1,
            verified => return verified,
        }
    }
}

fn run_discover(address: SocketAddr, json: bool) -> Result<bool, String> {
    let entries = discover(address, &identity(0), Digests::default()).map_err(|error| error.to_string())?;
    for entry in &entries {
        let word = |bytes: &[u8]| text(bytes).unwrap_or("?").to_owned();
        let (nqn, address, service) = (word(&entry.subsystem_nqn), word(&entry.address), word(&entry.service));
        if json {
            println!("{}", json!({ "nqn": nqn, "address": address, "service": service, "type": entry.subsystem_type }));
        } else {
            println!("{nqn} at {address} port {service}");
        }
    }
    Ok(true)
}

/// The host of a seed: the same seed is the same host to the target.
fn identity(seed: u64) -> HostIdentity {
    HostIdentity::from_id(Uuid::from_random([mix(seed), mix(!seed)]))
}

fn seconds(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{seconds} is no length of time: {error}"))
}

/// Reads a size with or without a unit.
fn bytes(text: &str) -> Result<u32, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u32 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return Err(format!("{text:?} is no size: expected bytes, KiB or MiB")),
    };
    let size = number.parse().ok().and_then(|number: u32| number.checked_mul(factor)).filter(|&size| size > 0);
    size.ok_or_else(|| format!("{text:?} is no size from 1 byte to 4 GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_sizes_are_read() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        assert_eq!((bytes("4096"), bytes("4KiB"), bytes("1MiB")), (Ok(4096), Ok(4096), Ok(1 << 20)));
        for wrong in ["", "KiB", "0", "4KB", "-1", "5000MiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(seconds(-1.0).is_err() && seconds(f64::NAN).is_err());
    }
}
