//! How long a kill of connections takes, from the command to the moment at which every reactor has confirmed that nothing of the
//! association can reach a volume any more, while a host has writes in flight.

use crate::bench::machine;
use crate::process::{self, Failure};
use crate::server::{NQN, Server, Setup};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Kills on each kind of drive, if nobody says how many.
const ROUNDS: usize = 100;

/// How long a host may take to have writes in flight.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two reactors, so that epochs are raised across them.
const REACTORS: &str = "{count: 2, polling: adaptive, memory: 256MiB}";

/// Kills, and writes `deploy/bench/kills.md`.
pub(crate) fn run(words: &[&str]) -> Result<String, Failure> {
    let rounds = match words {
        [] => Some(ROUNDS),
        [rounds] => rounds.parse().ok().filter(|rounds| (1..=10_000).contains(rounds)),
        _ => None,
    };
    let rounds =
        rounds.ok_or_else(|| Failure::Usage("bench kills: known is a number of kills, 1 to 10000".to_owned()))?;
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let memory = Setup { reactors: REACTORS, member: "256MiB", log: "256MiB", volume: "384MiB", ..Setup::fast() };
    let files = Setup { reactors: REACTORS, ..Setup::small("write-back") };
    // How busy the machine was before: latencies are others' as well.
    let machine = machine();
    let mut table = String::new();
    for (name, setup) in [("memory", memory), ("files, flushed", files)] {
        let folder = process::root().join("target/lab/kills");
        process::fresh_folder(&folder)?;
        let mut server = Server::create(&folder, setup)?;
        let mut kills = (0..rounds).map(|_| kill_one(&server)).collect::<Result<Vec<_>, _>>()?;
        server.stop()?;
        let line = table_line(name, &mut kills);
        println!("{line}");
        table += &line;
        table.push('\n');
    }
    process::write(&process::root().join("deploy/bench/kills.md"), &document(rounds, &machine, &table))?;
    Ok("written: deploy/bench/kills.md".to_owned())
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kill {
    /// From the command's arrival to the last confirmation.
    gone_ms: f64,
    /// The same with the operator's command itself: its start, the plan, the answer.
    typed_ms: f64,
    in_flight: u64,
}

/// Lets a host write, and kills its connections.
fn kill_one(server: &Server) -> Result<Kill, Failure> {
    let mut host = Host(host(server)?);
    let begun = Instant::now();
    let in_flight = loop {
        let all = server.brindle(&["connections"])?;
        let of_queues = all.as_array().into_iter().flatten().filter(|one| one["queue"] != 0);
        let in_flight: u64 = of_queues.filter_map(|one| one["in_flight"].as_u64()).sum();
        if in_flight > 0 {
            break in_flight;
        }
        if begun.elapsed() > PATIENCE {
            return Err(Failure::found(format!("bench kills: no write is in flight after {PATIENCE:?}: {all}")));
        }
    };
    let typed = Instant::now();
    let killed = server.brindle(&["connections", "kill", "--all", "--yes"])?;
    let typed_ms = typed.elapsed().as_secs_f64() * 1000.0;
    host.0.wait().map_err(|error| Failure::Start("loadgen".to_owned(), error))?;
    match (killed["complete"].as_bool(), killed["seconds"].as_f64()) {
        (Some(true), Some(seconds)) => Ok(Kill { gone_ms: seconds * 1000.0, typed_ms, in_flight }),
        _ => Err(Failure::found(format!("bench kills: a kill was not complete: {killed}"))),
    }
}

/// A host that writes; it ends with its connections, or with this.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn host(server: &Server) -> Result<Child, Failure> {
    let address = server.nvme().to_string();
    Command::new(process::root().join("target/release/loadgen"))
        .args(["bench", "--address", &address, "--nqn", NQN, "--pattern", "randwrite", "--block", "64KiB"])
        .args(["--depth", "32", "--seconds", "60"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Failure::Start("loadgen".to_owned(), error))
}

fn table_line(name: &str, kills: &mut [Kill]) -> String {
    let mut of = |figure: fn(&Kill) -> f64| {
        kills.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
        let at = |share: f64| figure(&kills[((kills.len() - 1) as f64 * share).round() as usize]);
        [at(0.0), at(0.5), at(0.99), at(1.0)]
    };
    let [least, median, high, most] = of(|kill| kill.gone_ms);
    let [_, typed, ..] = of(|kill| kill.typed_ms);
    let [_, in_flight, ..] = of(|kill| kill.in_flight as f64);
    format!("| {name} | {in_flight:.0} | {least:.2} | {median:.2} | {high:.2} | {most:.2} | {typed:.1} |")
}

fn document(rounds: usize, machine: &str, table: &str) -> String {
    format!(
        "# How long a kill takes

RAID-5 of three members with two log copies, write-back, two reactors; a host writes 64 KiB at random at depth 32 over NVMe/TCP on
loopback, and `brindle connections kill --all` ends it: {rounds} kills on each kind of drive. *Gone* is from the command's arrival at
the server to the last reactor's word that nothing of the association is under way: commands that are in the log by then have
completed; where others work on the processors, their turns are in it as well. {machine}. Made by `cargo xtask bench kills {rounds}`.

| drives | writes in flight, median | gone, ms: least | median | p99 | max | with the command itself, median |
|---|---:|---:|---:|---:|---:|---:|
{table}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_middle_and_the_worst() {
        let kill = |gone_ms, in_flight| Kill { gone_ms, typed_ms: 10.0 * gone_ms, in_flight };
        let line = table_line("memory", &mut [kill(3.0, 9), kill(1.0, 7), kill(2.0, 8)]);
        assert_eq!(line, "| memory | 8 | 1.00 | 2.00 | 3.00 | 3.00 | 20.0 |");
    }

    #[test]
    fn what_is_no_number_of_kills_is_refused() {
        for wrong in [&["0"][..], &["x"], &["1", "2"]] {
            assert_eq!(run(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
