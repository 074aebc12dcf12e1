//! `brindle demo`: the main job in one command. The embedded configuration is served from a folder of its own by a child
//! process; a built-in NVMe/TCP host writes to it; the child is killed in mid-write, started again, and every block is
//! verified, a few times over. It kills nothing but its own child, and writes over nobody's data.
//!
//! | module | holds |
//! |---|---|
//! | `folder` | the demo's folder, and whose configuration is in it |
//! | `plan` | what of a configuration the demo uses |
//! | `server` | the child that serves: started, awaited, killed, stopped, never left behind |
//! | `rounds` | the script, and the judgement over what happened |
//! | `scene` | the script's steps, carried out on the child with the built-in host |
//! | `screen` | lines and progress bars |
//! | `interrupt` | Ctrl-C |

mod folder;
mod interrupt;
mod plan;
mod rounds;
mod scene;
mod screen;
mod server;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use loadgen::error::HostError;
use thiserror::Error;

use crate::check::{self, LoadError};
use crate::cli::DemoOptions;
use interrupt::Interrupt;
use plan::Plan;
use scene::Stage;
use screen::Screen;
use server::Server;

/// The demo's folder in the working directory. The embedded configuration names the same one.
const FOLDER: &str = "brindle-demo";

/// How often the serving process dies.
const ROUNDS: u32 = 3;

/// How long is written before each death.
const WRITE_TIME: Duration = Duration::from_millis(1500);

/// How long the serving process may take until it serves.
const SERVE_LIMIT: Duration = Duration::from_secs(60);

/// How long the serving process may take to stop. It has a deadline of its own, which is shorter and after which it says
/// more.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);

/// Looks at a process whose connections are gone, until it is taken to live on.
const ENDING_POLLS_MAX: u32 = 50;

/// Lines of the log that are shown when the serving process fails.
const TAIL_LINES: usize = 20;

/// Bytes of the log that are looked at for that.
const TAIL_BYTES: u64 = 16 << 10;

/// Why the demo did not come to a good end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// A file or folder of the demo cannot be made, read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The configuration has errors.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The configuration is in order, but not one for the demo.
    #[error("{}: no demo with this configuration: {reason} (without the file, the demo makes its own again)", path.display())]
    Unsuited {
        /// The configuration.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// The system refused something that the demo needs.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The serving process ended by itself.
    #[error("the serving process ended by itself ({status}){}", said(.tail, .log))]
    Ended {
        /// How.
        status: ExitStatus,
        /// The end of what it said.
        tail: String,
        /// Where all of it is.
        log: PathBuf,
    },
    /// The serving process runs and does not serve.
    #[error("the serving process does not serve after {} s{}", SERVE_LIMIT.as_secs(), said(.tail, .log))]
    NotServing {
        /// The end of what it said.
        tail: String,
        /// Where all of it is.
        log: PathBuf,
    },
    /// The serving process did not stop in order.
    #[error("the serving process did not stop cleanly ({how}){}", said(.tail, .log))]
    NotClean {
        /// Its exit status, or that it had to be killed.
        how: String,
        /// The end of what it said.
        tail: String,
        /// Where all of it is.
        log: PathBuf,
    },
    /// The volume holds data that no demo wrote.
    #[error(
        "volume {volume} holds data that is not the demo's (block {block}), and the demo would write over it. \
         To use the data: brindle serve {FOLDER}/{}. To start afresh: remove the folder {FOLDER}",
        folder::CONFIG
    )]
    SomebodysData {
        /// The volume.
        volume: String,
        /// The first block of it.
        block: u64,
    },
    /// The built-in host cannot go on.
    #[error("the built-in host: {0}")]
    Host(#[from] HostError),
    /// Nothing was acknowledged, so that nothing was shown.
    #[error("not one write was acknowledged in {:.1} s", WRITE_TIME.as_secs_f64())]
    Idle,
    /// Requests were answered with errors.
    #[error("{0} requests were answered with an error")]
    Refused(u64),
    /// Data is lost or wrong.
    #[error("{violations} VIOLATIONS: blocks that do not hold what they must{}", listed(.kept))]
    Violated {
        /// How many.
        violations: u64,
        /// The first of them.
        kept: Vec<String>,
    },
    /// The user stopped it before it had shown anything.
    #[error("stopped before the end; the serving process was stopped too")]
    Interrupted,
}

/// Runs the demo until it has been shown, or until the user stops it.
///
/// # Errors
/// Whatever keeps data from being shown safe, a violation first of all.
pub fn run(options: &DemoOptions) -> Result<(), DemoError> {
    if let Some(parent) = options.server_of {
        return Err(server::become_server(parent, &configuration()));
    }
    let interrupt = Interrupt::listen()?;
    let screen = Screen;
    screen.say(&folder::prepare(Path::new(FOLDER))?.to_string());
    let file = configuration();
    let plan = Plan::of(&check::load(&file)?).map_err(|reason| DemoError::Unsuited { path: file, reason })?;
    let mut server = Server::new(plan.control.clone(), Path::new(FOLDER).join("serve.log"));
    match show(&plan, &mut server, screen, &interrupt) {
        Ok(()) if options.once => {}
        Ok(()) => {
            screen.say(&plan.invitation(server.log()));
            serve_on(&mut server, &interrupt)?;
            screen.say("stopping");
        }
        Err(DemoError::Interrupted) => {
            server.stop()?;
            return Err(DemoError::Interrupted);
        }
        // The server takes its process along when it is dropped.
        Err(error) => return Err(error),
    }
    let took = server.stop()?;
    screen.say(&format!("stopped cleanly in {:.1} s", took.as_secs_f64()));
    Ok(())
}

fn configuration() -> PathBuf {
    Path::new(FOLDER).join(folder::CONFIG)
}

/// Starts serving and plays all rounds; serves at the end.
fn show(plan: &Plan, server: &mut Server, screen: Screen, interrupt: &Interrupt) -> Result<(), DemoError> {
    let mut stage = Stage::open(plan, server, screen, interrupt)?;
    let summary = rounds::play(&mut stage, ROUNDS, &mut |line| screen.say(line))?;
    screen.say(&summary.to_string());
    stage.close()
}

fn serve_on(server: &mut Server, interrupt: &Interrupt) -> Result<(), DemoError> {
    while !interrupt.wait(POLL) {
        server.check()?;
    }
    Ok(())
}

/// The end of a log behind a message.
fn said(tail: &str, log: &Path) -> String {
    let mut out = format!("; its log is {}", log.display());
    if !tail.is_empty() {
        out.push_str(", which ends:");
    }
    for line in tail.lines() {
        let _ = write!(out, "\n  {line}");
    }
    out
}

fn listed(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_the_embedded_configuration_is_in_the_demos_folder() {
        let config = config::parse(config::DEMO, "demo.yaml").unwrap().config;
        let devices = config.devices.iter().map(|device| device.path().expect("all are files"));
        let control = config.control.as_ref().map(|control| control.socket.as_path());
        let paths: Vec<_> = devices.chain(control).collect();
        assert_eq!(paths.len(), 6);
        assert!(paths.iter().all(|path| path.parent() == Some(Path::new(FOLDER))), "{paths:?}");
    }

    #[test]
    fn failures_of_the_serving_process_show_the_end_of_its_log() {
        let error = DemoError::NotServing { tail: "one\ntwo\n".into(), log: "brindle-demo/serve.log".into() };
        let text = error.to_string();
        assert!(text.ends_with("its log is brindle-demo/serve.log, which ends:\n  one\n  two"), "{text}");
        let silent = DemoError::NotServing { tail: String::new(), log: "x".into() };
        assert!(silent.to_string().ends_with("its log is x"));
        let violated = DemoError::Violated { violations: 2, kept: vec!["block 7".into()] };
        assert!(violated.to_string().ends_with("\n  block 7"));
    }
}
