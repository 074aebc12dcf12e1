//! The same load on servers that differ in one thing. What is compared is processor time for each request, user and system, which
//! other work on the machine disturbs far less than rates. All servers are there at once and take turns, each alone while it is
//! measured; what counts is the ratio to the first.

use crate::bench::{FILL, Options, Row, Sample, measure, target};
use crate::process::{self, Failure};
use crate::server::{Server, Setup};
use std::time::Duration;

/// Server of its own name and setup.
pub(crate) type Setting = (&'static str, Setup);

/// Small enough that four servers fit into a machine's memory. Who sleeps when there is nothing to do spends its time on requests.
pub(crate) const fn setup(more: &'static str) -> Setup {
    Setup {
        reactors: "{cores: [0], polling: adaptive, spin: 1us, memory: 128MiB}",
        member: "128MiB",
        log: "256MiB",
        volume: "192MiB",
        more,
        ..Setup::fast()
    }
}

/// Measures every row on every server: a line of the table each, with what the first one takes and the ratios of the others.
/// Before a row is measured `rest` passes, in which what was written goes to the members.
pub(crate) fn table(
    what: &str,
    settings: &[Setting],
    rows: &[Row],
    options: &Options,
    rest: Duration,
) -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let mut servers = Vec::new();
    for (name, setup) in settings {
        let folder = process::root().join("target/lab").join(format!("{what}-{name}"));
        process::fresh_folder(&folder)?;
        let server = Server::create(&folder, *setup)?;
        let others: Vec<&Server> = servers.iter().collect();
        alone(&others, &mut || measure(&target(&FILL, &server, 2.0)))?;
        servers.push(server);
    }
    let mut table = String::new();
    for row in rows {
        std::thread::sleep(rest);
        let mut samples: Vec<Vec<f64>> = settings.iter().map(|_| Vec::new()).collect();
        for round in 0..options.rounds {
            // Whoever is first in one round is not in the next.
            for turn in 0..settings.len() {
                let at = (turn + round) % settings.len();
                let others: Vec<&Server> =
                    servers.iter().enumerate().filter(|&(other, _)| other != at).map(|(_, server)| server).collect();
                samples[at].push(cost(row, &servers[at], &others, options.seconds)?);
            }
        }
        let medians: Vec<f64> = samples.iter_mut().map(|samples| median(samples)).collect();
        let line = table_line(row, &medians);
        println!("{line}");
        table += &line;
        table.push('\n');
    }
    for server in &mut servers {
        server.stop()?;
    }
    Ok(table)
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

pub(crate) fn median(samples: &mut [f64]) -> f64 {
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

fn table_line(row: &Row, medians: &[f64]) -> String {
    let first = medians[0];
    let ratios: Vec<String> = medians[1..].iter().map(|one| format!("{:.2}", one / first)).collect();
    format!("| {} | {first:.1} | {} |", row.name, ratios.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_first_server() {
        let row =
            Row { name: "4 KiB random read QD1", pattern: "randread", direction: "read", block: "4KiB", depth: "1" };
        let line = table_line(&row, &[10.0, 11.0, 10.1, 12.5]);
        assert_eq!(line, "| 4 KiB random read QD1 | 10.0 | 1.10 | 1.01 | 1.25 |");
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }
}
