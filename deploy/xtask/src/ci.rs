//! The test command: what CI runs and what the README tells a newcomer to type. Each step is a command that can also be
//! typed alone. It never stops at the first failure, and ends with one line that counts.

use crate::process::{self, Failure, cargo};
use crate::report::Report;
use crate::{demo, lab, metrics, needs, tidy, torture};
use std::process::Command;

/// Fresh seeds of the simulator: about a minute of them; the kept seeds and the sweep come on top.
const FRESH_SEEDS: &str = "900";

/// Arrays with damaged metadata: some seconds of them.
const DAMAGED: &str = "2000";

/// Arrays of which members hold something else than was written to them.
const SPOILED: &str = "1000";

/// Kills in each setting of the torture: half a minute in all.
const TORTURE_ROUNDS: u32 = 8;

/// How the test command was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Leave out what takes minutes.
    quick: bool,
    /// Install what is missing.
    install: bool,
}

impl Options {
    /// From the words behind `ci`.
    pub(crate) fn parse(words: &[&str]) -> Result<Options, Failure> {
        let mut options = Options::default();
        for word in words {
            match *word {
                "--quick" => options.quick = true,
                "--install" => options.install = true,
                _ => return Err(Failure::Usage(format!("ci: unknown option {word}; known: --quick --install"))),
            }
        }
        Ok(options)
    }
}

/// Runs all steps; the closing line is the last thing printed.
pub(crate) fn run(options: &Options) -> Result<String, Failure> {
    let mut report = Report::new();
    // Before anything takes minutes: a machine that cannot pass is told so at once.
    if !options.quick && !report.step("needs", || needs::check(options.install)) {
        println!("{}", report.closing());
        return Err(Failure::Steps);
    }
    let quiet = |arguments: &[&str]| cargo(arguments).map(|()| String::new());

    report.step("fmt", || quiet(&["fmt", "--all", "--check"]));
    report.step("tidy", || tidy::run(&process::root()));
    report.step("clippy", || quiet(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]));
    report.step("unit tests", || quiet(&["test", "--workspace", "--quiet"]));
    if process::find_program("cargo-deny").is_some() {
        report.step("deny", || quiet(&["deny", "check"]));
    }
    if !options.quick {
        report.step("sim: kept seeds", || crate::sim(&["seeds"]));
        report.step("sim: a cut at each effect", || crate::sim(&["sweep", "--stride", "2"]));
        report.step("sim: damaged metadata", || crate::sim(&["mangle", "--seed", &fresh_seed(), "--count", DAMAGED]));
        report.step("sim: spoiled members", || crate::sim(&["scrub", "--seed", &fresh_seed(), "--count", SPOILED]));
        report.step("sim: fresh seeds", || crate::sim(&["run", "--seed", &fresh_seed(), "--count", FRESH_SEEDS]));
        if report.step("release build", || quiet(&["build", "--release", "-p", "brindle", "-p", "loadgen"])) {
            report.step("metrics", metrics::run);
            report.step("demo", demo::run);
            torture::steps(&mut report, TORTURE_ROUNDS);
            lab::all_steps(&mut report);
        }
    }

    println!("{}", report.closing());
    if report.is_clean() { Ok(String::new()) } else { Err(Failure::Steps) }
}

/// Where this commit's seeds begin: other ones for each commit, the same ones whenever it is tested again.
fn fresh_seed() -> String {
    let commit = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(process::root()).output();
    // Without git, as in an unpacked archive, they begin at 0.
    let text = commit.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    u64::from_str_radix(text.get(..12).unwrap_or("0"), 16).unwrap_or(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
        assert_eq!(Options::parse(&["--install", "--quick"]).unwrap(), Options { quick: true, install: true });
        assert_eq!(Options::parse(&["--fast"]).unwrap_err().exit_code(), 2);
    }
}
