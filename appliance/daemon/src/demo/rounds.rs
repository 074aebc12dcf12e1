//! The script: write, die in mid-write, come back, verify. It judges what its scene tells, and carries out nothing.

use core::fmt;
use std::time::Duration;

use super::DemoError;
use crate::status::Status;

/// Who carries the script out.
pub(super) trait Scene {
    /// Writes at depth for a while, then kills the serving process with requests in flight.
    fn write_and_kill(&mut self) -> Result<Written, DemoError>;
    /// Starts the serving process again and waits until it serves.
    fn serve_again(&mut self) -> Result<Served, DemoError>;
    /// Reads every block and judges it.
    fn verify(&mut self) -> Result<Verified, DemoError>;
}

/// What happened until the process was killed, since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Writes acknowledged.
    pub(super) acknowledged: u64,
    /// Requests that were never answered.
    pub(super) in_flight: u64,
    /// Requests answered with an error.
    pub(super) refused: u64,
}

/// A process that serves again.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// From its start until it served.
    pub(super) after: Duration,
    /// What it says of itself.
    pub(super) status: Status,
}

/// What the blocks turned out to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Verified {
    /// Blocks read.
    pub(super) blocks: u64,
    /// Blocks that were being written at the kill, or by two requests at the same time before: either value is right, and
    /// from now on only the one that was read.
    pub(super) settled: u64,
    /// Requests answered with an error, since the last time.
    pub(super) refused: u64,
    /// Blocks that do not hold what they must.
    pub(super) violations: u64,
    /// The first of them.
    pub(super) kept: Vec<String>,
}

/// All rounds together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    rounds: u32,
    acknowledged: u64,
    in_flight: u64,
    blocks: u64,
}

/// Plays `rounds` rounds, each told in a few lines, and ends with the first thing that is not as it must be.
pub(super) fn play(scene: &mut impl Scene, rounds: u32, tell: &mut dyn FnMut(&str)) -> Result<Summary, DemoError> {
    let mut summary = Summary::default();
    for round in 1..=rounds {
        let head = format!("round {round} of {rounds}: ");
        let indent = " ".repeat(head.len());
        let written = scene.write_and_kill()?;
        if written.refused > 0 {
            return Err(DemoError::Refused(written.refused));
        }
        if written.acknowledged == 0 {
            return Err(DemoError::Idle);
        }
        let Written { acknowledged, in_flight, .. } = written;
        tell(&format!("{head}{acknowledged} writes acknowledged, then kill -9 with {in_flight} requests in flight"));

        let Served { after, status } = scene.serve_again()?;
        tell(&format!("{indent}started again, serving after {:.2} s; status: {}", after.as_secs_f64(), brief(&status)));

        let Verified { blocks, settled, refused, violations, kept } = scene.verify()?;
        if violations > 0 {
            return Err(DemoError::Violated { violations, kept });
        }
        if refused > 0 {
            return Err(DemoError::Refused(refused));
        }
        tell(&format!(
            "{indent}{blocks} blocks verified: all that was acknowledged is there, {settled} blocks in flight or written twice \
             at once hold either value, violations 0"
        ));
        summary.rounds += 1;
        summary.acknowledged += acknowledged;
        summary.in_flight += in_flight;
        summary.blocks += blocks;
    }
    Ok(summary)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, acknowledged, in_flight, blocks } = self;
        write!(
            f,
            "killed {rounds} times with {in_flight} requests in flight in all; of {acknowledged} acknowledged writes none is \
             lost: {blocks} blocks verified, 0 violations"
        )
    }
}

/// An appliance in half a line.
fn brief(status: &Status) -> String {
    let arrays = status.arrays.iter().map(|array| {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let log = array.log.as_ref().map_or_else(String::new, |log| {
            format!(", log {:.1} of {:.1} MiB in use", mib(log.used_bytes), mib(log.capacity_bytes))
        });
        format!("{} {}{log}", array.name, array.state)
    });
    arrays.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ArrayStatus, LogStatus};

    /// A scene that tells what it is told to, and notes what is asked of it.
    #[derive(Default)]
    struct Told {
        written: Written,
        verified: Verified,
        serves: bool,
        asked: Vec<&'static str>,
    }

    impl Scene for Told {
        fn write_and_kill(&mut self) -> Result<Written, DemoError> {
            self.asked.push("write");
            Ok(self.written)
        }

        fn serve_again(&mut self) -> Result<Served, DemoError> {
            self.asked.push("serve");
            if !self.serves {
                return Err(DemoError::NotServing { tail: "no".into(), log: "log".into() });
            }
            let log = LogStatus { used_bytes: 3 << 20, capacity_bytes: 60 << 20, ..Default::default() };
            let array =
                ArrayStatus { name: "a0".into(), state: "optimal".into(), log: Some(log), ..Default::default() };
            let status = Status { arrays: vec![array], ..Default::default() };
            Ok(Served { after: Duration::from_millis(250), status })
        }

        fn verify(&mut self) -> Result<Verified, DemoError> {
            self.asked.push("verify");
            Ok(self.verified.clone())
        }
    }

    fn good() -> Told {
        Told {
            written: Written { acknowledged: 1000, in_flight: 32, refused: 0 },
            verified: Verified { blocks: 16_384, settled: 40, ..Default::default() },
            serves: true,
            asked: Vec::new(),
        }
    }

    fn played(scene: &mut Told) -> (Result<Summary, DemoError>, String) {
        let mut lines = String::new();
        let result = play(scene, 3, &mut |line| lines += &format!("{line}\n"));
        (result, lines)
    }

    #[test]
    fn each_round_writes_dies_comes_back_and_verifies_in_this_order() {
        let mut scene = good();
        let (summary, lines) = played(&mut scene);
        assert_eq!(summary.unwrap(), Summary { rounds: 3, acknowledged: 3000, in_flight: 96, blocks: 3 * 16_384 });
        assert_eq!(scene.asked, ["write", "serve", "verify"].repeat(3));
        assert_eq!(lines.lines().count(), 9);
        for expected in [
            "round 1 of 3: 1000 writes acknowledged, then kill -9 with 32 requests in flight",
            "serving after 0.25 s; status: a0 optimal, log 3.0 of 60.0 MiB in use",
            "16384 blocks verified",
            "violations 0",
            "round 3 of 3",
        ] {
            assert!(lines.contains(expected), "{expected} is missing:\n{lines}");
        }
    }

    #[test]
    fn a_violation_ends_the_demo_at_once_whatever_else_is_well() {
        let mut scene = good();
        scene.verified.violations = 2;
        scene.verified.kept = vec!["block 7 holds an older value".into()];
        let (result, lines) = played(&mut scene);
        assert!(matches!(&result, Err(DemoError::Violated { violations: 2, kept }) if kept.len() == 1), "{result:?}");
        assert_eq!(scene.asked, ["write", "serve", "verify"]);
        assert!(!lines.contains("verified"));
    }

    #[test]
    fn errors_to_the_host_silence_and_a_server_that_stays_away_are_failures() {
        let mut refusing = good();
        refusing.written.refused = 1;
        assert!(matches!(played(&mut refusing).0, Err(DemoError::Refused(1))));
        assert_eq!(refusing.asked, ["write"]);

        let mut refusing_reads = good();
        refusing_reads.verified.refused = 4;
        assert!(matches!(played(&mut refusing_reads).0, Err(DemoError::Refused(4))));

        let mut idle = good();
        idle.written.acknowledged = 0;
        assert!(matches!(played(&mut idle).0, Err(DemoError::Idle)));

        let mut away = good();
        away.serves = false;
        assert!(matches!(played(&mut away).0, Err(DemoError::NotServing { .. })));
        assert_eq!(away.asked, ["write", "serve"]);
    }
}
