//! Crash torture: random writes at depth, SIGKILL at a random moment, restart, and every block that was touched is read
//! back. Acknowledged data must be there; a block in flight may be old or new, never a third value. The load generator
//! writes and judges; this side only kills and restarts.

use crate::metrics;
use crate::process::{self, Failure};
use crate::report::Report;
use crate::server::{NQN, Server, Setup};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Kills in each setting when nothing is said.
const ROUNDS: u32 = 50;

/// The server lives between these under load, in milliseconds.
const LIFE_MS: std::ops::Range<u64> = 50..900;

/// Longest wait for the first answered write of a round.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

/// How long a round writes at most; the kill comes before.
const WRITE_SECONDS: &str = "20";

/// A server to be tortured, and the drives that it loses: one after each of the first kills, or none where there is no name. Whether
/// its array gets a further member meanwhile.
struct Setting {
    name: &'static str,
    setup: Setup,
    lost: &'static [&'static str],
    grows: bool,
}

const WRITE_BACK: Setup = Setup::small("write-back");
const WRITE_THROUGH: Setup = Setup::small("write-through");
/// As few members as RAID-6 takes: with two of them gone no majority is left.
const DUAL: Setup = Setup { level: "raid6", members: 4, checksums: "on", ..WRITE_BACK };
const CHECKSUMS: Setup = Setup { checksums: "on", ..WRITE_THROUGH };
/// So slowly that a member more is on its way for as long as it lasts.
const GROWING: Setup = Setup { spare: true, ..WRITE_BACK };
const DUAL_GROWING: Setup = Setup { spare: true, mode: "write-through", ..DUAL };
/// Of so little memory that what comes leaves it.
const IN_LOG: Setup = Setup {
    residency: "log",
    reactors: "{count: 1, polling: adaptive, memory: 64MiB}",
    destage: "{age: 15s, full_stripe_delay: 5s, memory_watermark: 10%}",
    ..WRITE_BACK
};
/// Killed again in the middle of a resync as often as not.
const WITHOUT_LOG: Setup = Setup { copies: 0, ..WRITE_THROUGH };
const MIRRORS_WITHOUT_LOG: Setup = Setup { level: "raid10", members: 4, ..WITHOUT_LOG };

const SETTINGS: &[Setting] = &[
    Setting { name: "write-back", setup: WRITE_BACK, lost: &[], grows: false },
    Setting { name: "write-through, checksums", setup: CHECKSUMS, lost: &[], grows: false },
    Setting { name: "write-back, degraded", setup: WRITE_BACK, lost: &["d1"], grows: false },
    Setting { name: "write-through, degraded", setup: WRITE_THROUGH, lost: &["d2"], grows: false },
    Setting { name: "RAID-6, write-back, checksums, twice degraded", setup: DUAL, lost: &["d1", "d2"], grows: false },
    Setting { name: "write-back, a log copy lost", setup: WRITE_BACK, lost: &["", "l0"], grows: false },
    Setting { name: "rebuilding", setup: GROWING, lost: &["", "d1"], grows: false },
    Setting { name: "residency: log", setup: IN_LOG, lost: &[], grows: false },
    Setting { name: "residency: log, a log copy lost", setup: IN_LOG, lost: &["", "", "l1"], grows: false },
    Setting { name: "without a log", setup: WITHOUT_LOG, lost: &[], grows: false },
    Setting { name: "RAID-10 without a log", setup: MIRRORS_WITHOUT_LOG, lost: &[], grows: false },
    Setting { name: "growing", setup: GROWING, lost: &[], grows: true },
    Setting {
        name: "RAID-6, write-through, checksums, growing, then degraded",
        setup: DUAL_GROWING,
        lost: &["", "", "", "d1"],
        grows: true,
    },
];

/// `cargo xtask torture [ROUNDS]`.
pub(crate) fn run(arguments: &[&str]) -> Result<String, Failure> {
    let rounds = match arguments {
        [] => ROUNDS,
        [number] => number.parse().map_err(|_| Failure::Usage(format!("torture: {number} is no number of rounds")))?,
        _ => return Err(Failure::Usage("torture takes one number of rounds".to_owned())),
    };
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle", "-p", "loadgen"])?;
    let mut report = Report::new();
    steps(&mut report, rounds);
    println!("{}", report.closing());
    if report.is_clean() { Ok(String::new()) } else { Err(Failure::Steps) }
}

/// Adds one step for each setting to a longer report. The release binaries are built.
pub(crate) fn steps(report: &mut Report, rounds: u32) {
    for (number, setting) in SETTINGS.iter().enumerate() {
        report.step(&format!("torture: {}", setting.name), || play(setting, rounds, number as u64 + 1));
    }
}

/// One setting from an empty folder to the clean stop.
fn play(setting: &Setting, rounds: u32, seed: u64) -> Result<String, Failure> {
    let folder = process::root().join("target/lab").join(format!("torture-{seed}"));
    process::fresh_folder(&folder)?;
    let mut server = Server::create(&folder, setting.setup)?;
    let mut load = Load::start(&server, rounds, seed)?;
    let (mut verified, mut from_log) = (0, 0.0);
    for round in 1..=u64::from(rounds) {
        wait_for_load(&mut server)?;
        if setting.grows && round == 1 {
            server.brindle(&["array", "grow", "a0", "s0", "--yes"])?;
        }
        std::thread::sleep(Duration::from_millis(life_ms(seed, round)));
        if setting.setup.residency == "log" {
            from_log += metrics::read_from_log(server.metrics())?;
        }
        server.kill()?;
        if let Some(drive) = setting.lost.get(round as usize - 1).filter(|drive| !drive.is_empty()) {
            server.remove_device(drive)?;
        }
        server.restart()?;
        verified += load.round(round)?;
    }
    load.end()?;
    let moved = match (setting.grows, setting.setup.spare) {
        (true, _) => moved(&server)?,
        (false, true) => rebuilt(&server)?,
        (false, false) => String::new(),
    };
    server.stop()?;
    let read = match setting.setup.residency {
        "log" if from_log == 0.0 => return Err(Failure::found("nothing was read back from the log".to_owned())),
        "log" => format!(", {:.0} MiB read back from the log", from_log / 1048576.0),
        _ => String::new(),
    };
    Ok(format!("{rounds} kills, {verified} blocks verified, no violation{moved}{read}"))
}

/// How far an array has come that gets a further member: some of it has to have moved.
fn moved(server: &Server) -> Result<String, Failure> {
    let growth = server.brindle(&["array", "grow", "a0"])?["growth"].take();
    let number = |name: &str| growth.get(name).and_then(Value::as_u64);
    match (number("done_bytes"), number("bytes")) {
        (Some(0), _) => Err(Failure::found("nothing has moved".to_owned())),
        (Some(done), Some(all)) => Ok(format!(", {}% moved", 100 * done / all.max(1))),
        _ => Ok(", all moved".to_owned()),
    }
}

/// How far the spare has come that takes the place of a member: it has to have taken it.
fn rebuilt(server: &Server) -> Result<String, Failure> {
    let is_member = |status: &Value| {
        let devices = status["devices"].as_array().into_iter().flatten();
        let role = devices.filter(|device| device["name"] == "s0").find_map(|device| device["role"].as_str());
        role.is_some_and(|role| role.contains("member"))
    };
    // The last kill may have come while it was being prepared.
    let status = process::wait_for(LOAD_LIMIT, || match server.status() {
        Ok(status) if !is_member(&status) => None,
        said => Some(said),
    });
    let status = status.unwrap_or_else(|| Err(Failure::found("the spare took no place".to_owned())))?;
    let number = |name: &str| status["arrays"][0]["rebuild"].get(name).and_then(Value::as_u64);
    Ok(match (number("done_bytes"), number("bytes")) {
        (Some(done), Some(all)) => format!(", {}% rebuilt", 100 * done / all.max(1)),
        _ => ", all rebuilt".to_owned(),
    })
}

/// Waits until the server has answered a write since it started: a kill before that would prove nothing.
fn wait_for_load(server: &mut Server) -> Result<(), Failure> {
    let loaded = process::wait_for(LOAD_LIMIT, || match server.check_alive() {
        Err(failure) => Some(Err(failure)),
        Ok(()) => metrics::writes_answered(server.metrics()).is_ok_and(|writes| writes > 0.0).then_some(Ok(())),
    });
    loaded.unwrap_or_else(|| Err(Failure::found(format!("no write was answered within {LOAD_LIMIT:?}"))))
}

/// How long the server lives in a round, in milliseconds: drawn from the seed, so that a run can be repeated roughly.
fn life_ms(seed: u64, round: u64) -> u64 {
    // The finaliser of splitmix64: neighbouring inputs give unrelated outputs.
    let mut mixed = (seed << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    LIFE_MS.start + (mixed ^ (mixed >> 31)) % (LIFE_MS.end - LIFE_MS.start)
}

/// The load generator in its torture. Dropping it ends the process.
struct Load {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Load {
    fn start(server: &Server, rounds: u32, seed: u64) -> Result<Load, Failure> {
        let mut child = Command::new(process::root().join("target/release/loadgen"))
            .args(["--json", "torture", "--address", &server.nvme().to_string(), "--nqn", NQN])
            .args(["--rounds", &rounds.to_string(), "--seconds", WRITE_SECONDS, "--seed", &seed.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Start("loadgen".to_owned(), error))?;
        let lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        Ok(Load { child, lines })
    }

    /// Waits for the verdict of one round, which the load generator bounds by its own limits. The number of blocks
    /// verified.
    fn round(&mut self, round: u64) -> Result<u64, Failure> {
        let line = match self.lines.next() {
            Some(Ok(line)) => line,
            _ => return Err(Failure::found(format!("round {round}: the load generator ended"))),
        };
        blocks_verified(&line, round)
    }

    fn end(mut self) -> Result<(), Failure> {
        let status = self.child.wait().map_err(|error| Failure::Start("wait".to_owned(), error))?;
        if status.success() { Ok(()) } else { Err(Failure::Ended("loadgen".to_owned(), status)) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already; either way it does not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the load generator's line about a round: any violation is a failure, and so is a round without a death.
fn blocks_verified(line: &str, round: u64) -> Result<u64, Failure> {
    let verdict: Value = serde_json::from_str(line).map_err(|error| Failure::found(format!("{error}: {line}")))?;
    let number = |name: &str| verdict.get(name).and_then(Value::as_u64);
    match (number("round"), number("violations"), number("blocks"), verdict.get("died")) {
        (Some(got), Some(0), Some(blocks), Some(Value::Bool(true))) if got == round => Ok(blocks),
        _ => Err(Failure::found(format!("round {round}: {line}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_differ_and_stay_in_range() {
        let lives: Vec<u64> = (1..100).map(|round| life_ms(1, round)).collect();
        assert!(lives.iter().all(|life| LIFE_MS.contains(life)));
        assert!(lives.iter().any(|life| *life < 300) && lives.iter().any(|life| *life > 600));
        assert_ne!(life_ms(1, 1), life_ms(2, 1));
    }

    #[test]
    fn a_violation_is_a_failure_that_shows_it() {
        let good = r#"{"round":3,"died":true,"blocks":512,"violations":0}"#;
        assert_eq!(blocks_verified(good, 3).unwrap(), 512);
        assert!(blocks_verified(good, 4).is_err(), "another round");
        let bad = good.replace("\"violations\":0", "\"violations\":1");
        assert!(blocks_verified(&bad, 3).unwrap_err().to_string().contains("\"violations\":1"));
        assert!(blocks_verified(&good.replace("true", "false"), 3).is_err(), "the kill came too late");
        assert!(blocks_verified(r#"{"error":"refused"}"#, 3).is_err());
    }
}
