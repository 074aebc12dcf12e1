//! The README's first command as a test: `brindle demo` in an empty folder writes, dies, comes back and verifies; then it
//! serves until Ctrl-C, and ends with 0.

use crate::process::{self, Failure};
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest way to the point where the demo goes on serving.
const DEMO_LIMIT: Duration = Duration::from_secs(120);

/// Longest clean stop after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What the demo prints once all is verified and it only serves.
const SERVING: &str = "nvme connect";

/// `cargo xtask demo`. The release binary is built if it is not.
pub(crate) fn run() -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle"])?;
    let folder = process::root().join("target/lab/demo");
    process::fresh_folder(&folder)?;
    let output = folder.join("output");
    let create = || File::options().create(true).append(true).open(&output);
    let file = |error| Failure::File(output.clone(), error);
    let mut child = Command::new(process::root().join("target/release/brindle"))
        .arg("demo")
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(create().map_err(file)?)
        .stderr(create().map_err(file)?)
        .spawn()
        .map_err(|error| Failure::Start("brindle demo".to_owned(), error))?;

    let printed = || process::read(&output).unwrap_or_default();
    let outcome = process::wait_for(DEMO_LIMIT, || {
        if printed().contains(SERVING) {
            return Some(Ok(()));
        }
        let ended = child.try_wait().ok().flatten()?;
        Some(Err(Failure::Ended("brindle demo".to_owned(), ended)))
    });
    let outcome = outcome
        .unwrap_or_else(|| Err(Failure::found(format!("the demo did not get to serving within {DEMO_LIMIT:?}"))))
        .and_then(|()| process::signal(&child, "INT"))
        .and_then(|()| {
            process::wait_limited(&mut child, STOP_LIMIT).map_err(|error| Failure::Start("wait".to_owned(), error))
        })
        .and_then(|ended| match ended {
            Some(status) if status.success() => Ok(printed()),
            Some(status) => Err(Failure::Ended("brindle demo after Ctrl-C".to_owned(), status)),
            None => Err(Failure::found(format!("the demo did not stop within {STOP_LIMIT:?} of Ctrl-C"))),
        });
    if outcome.is_err() {
        // Whatever went wrong, no process of ours stays; one that has ended already is fine too.
        let _ = child.kill().and_then(|()| child.wait());
        println!("{}", printed());
    }
    outcome
}
