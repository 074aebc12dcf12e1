//! `cargo xtask`: the one entry for developers. It runs what CI runs, checks the habits of the house, and drives the
//! simulator, the lab and the bench. It never changes the tree, except where a command says so.
//!
//! | module | holds |
//! |---|---|
//! | [`ci`] | the steps of the test command, and its closing line |
//! | [`residency`] | what it brings that dirty data need not fit memory |
//! | [`report`] | steps counted and timed |
//! | [`needs`] | what the tests need of the machine, and how to get it |
//! | [`process`] | commands run to their end, and servers that end with their guard |
//! | [`tidy`] | the habits held by a check, in `tidy/` |
//! | [`lab`] | scenarios with a real Linux kernel as the host |
//! | [`server`] | a `brindle serve` of our own: configuration, start, kill, clean stop |
//! | [`torture`] | the server killed again and again under load, every block verified |
//! | [`demo`] | the README's first command, as a test |
//! | [`bench`] | the figures, against the machine's own floor |
//! | [`beside`] | servers that differ in one thing, under the same load |
//! | [`checksums`] | what checksums of all blocks cost |
//! | [`destage`] | what the rules of destaging bring |
//! | [`guards`] | what sealed memory and the sandbox cost |
//! | [`kills`] | how long a kill of connections takes |
//! | [`compare`] | the figures, beside other people's RAID |
//! | [`metrics`] | the metrics endpoint, read by promtool |
//! | [`reference`] | the README's configuration reference, generated |
#![forbid(unsafe_code)]

mod bench;
mod beside;
mod checksums;
mod ci;
mod compare;
mod demo;
mod destage;
mod guards;
mod kills;
mod lab;
mod metrics;
mod needs;
mod process;
mod reference;
mod report;
mod residency;
mod server;
mod tidy;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci [--quick] [--install]   the test command: format, clippy, tidy, unit tests, simulator, release build, demo,
                             torture, metrics, lab
                             --quick    without what needs the simulator or the release build
                             --install  first installs what is missing with apt-get (as root)
  tidy                       layers, unsafe code, file lengths, dependencies, front comments
  reference                  writes the configuration reference into README.md
  sim ARGUMENT...            the simulator: a SEED again, `run --seconds 600`, `sweep`, `seeds`
  lab [--kernel PACKAGE/SUITE] [NAME...]
                             scenarios with a Linux guest as the host: files, killed, killed-write-through, degraded,
                             sectors, and with the server in it: sealed
                             (default: all)
  torture [ROUNDS]           kill -9 under load, restart, verify each block: ROUNDS times in each of four settings (50)
  demo                       `brindle demo` from an empty folder to Ctrl-C
  bench [--rounds N] [--seconds S]
                             figures against the machine's own floor; writes deploy/bench/latest.md
  bench checksums [--rounds N] [--seconds S]
                             what checksums of all blocks cost; writes deploy/bench/checksums.md
  bench destage [--rounds N] [--seconds S]
                             what the rules of destaging bring; writes deploy/bench/destage.md
  bench residency [--rounds N] [--seconds S]
                             what it brings that dirty data need not fit memory; writes deploy/bench/residency.md
  bench guards [--rounds N] [--seconds S]
                             what sealed memory and the sandbox cost; writes deploy/bench/guards.md
  bench kills [ROUNDS]       how long a kill of connections takes with writes in flight; writes deploy/bench/kills.md
  compare md [SECONDS [ROUNDS]]
                             figures beside the kernel's RAID-5 with a journal, in a guest; writes deploy/bench/md.md
  metrics                    `promtool check metrics` on a running server";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["ci", options @ ..] => ci::Options::parse(options).and_then(|options| ci::run(&options)),
        ["tidy"] => tidy::run(&process::root()),
        ["reference"] => reference::write(&process::root()),
        ["sim", rest @ ..] => sim(rest),
        ["lab", names @ ..] => lab::run(names),
        ["torture", rounds @ ..] => torture::run(rounds),
        ["demo"] => demo::run(),
        ["bench", "checksums", options @ ..] => {
            bench::Options::parse(options).and_then(|options| checksums::run(&options))
        }
        ["bench", "residency", options @ ..] => {
            bench::Options::parse(options).and_then(|options| residency::run(&options))
        }
        ["bench", "destage", options @ ..] => bench::Options::parse(options).and_then(|options| destage::run(&options)),
        ["bench", "guards", options @ ..] => bench::Options::parse(options).and_then(|options| guards::run(&options)),
        ["bench", "kills", rounds @ ..] => kills::run(rounds),
        ["bench", options @ ..] => bench::Options::parse(options).and_then(|options| bench::run(&options)),
        ["compare", words @ ..] => compare::run(words),
        ["metrics"] => metrics::run(),
        ["--help" | "-h" | "help"] => Ok(USAGE.to_owned()),
        _ => Err(process::Failure::Usage(USAGE.to_owned())),
    };
    match outcome {
        Ok(note) => {
            if !note.is_empty() {
                println!("{note}");
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The simulator has a command line of its own; it is only built and started here.
fn sim(arguments: &[&str]) -> Result<String, process::Failure> {
    let mut all = vec!["run", "--release", "--quiet", "-p", "sim", "--"];
    all.extend(arguments);
    process::cargo(&all).map(|()| String::new())
}
