//! Other programs: commands that run to their end, and what can go wrong with them. It decides nothing about the order
//! of steps and prints nothing of its own but the command's output.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);

/// Why a command of ours did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line makes no sense; the text says what would.
    Usage(String),
    /// The machine lacks something; the text says what to type.
    Missing(String),
    /// A program could not be started.
    Start(String, std::io::Error),
    /// A program ended with an error, or with a signal.
    Ended(String, ExitStatus),
    /// A check found something: one line for each finding.
    Found(Vec<String>),
    /// A file could not be read or written.
    File(PathBuf, std::io::Error),
    /// Steps of the test command failed; each has said why, and the closing line stays the last one.
    Steps,
}

impl Failure {
    /// What the process ends with: 2 for a wrong command line, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Failure::Usage(_)) { 2 } else { 1 }
    }

    /// One finding.
    pub(crate) fn found(text: impl Into<String>) -> Failure {
        Failure::Found(vec![text.into()])
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Missing(text) => out.write_str(text),
            Failure::Start(program, error) => write!(out, "cannot start {program}: {error}"),
            Failure::Ended(program, status) => write!(out, "{program}: {status}"),
            Failure::Found(lines) => out.write_str(&lines.join("\n")),
            Failure::File(path, error) => write!(out, "{}: {error}", path.display()),
            Failure::Steps => Ok(()),
        }
    }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("deploy/xtask lies two folders below the root").to_owned()
}

/// Runs cargo in the workspace's folder, its output going to ours.
pub(crate) fn cargo(arguments: &[&str]) -> Result<(), Failure> {
    // The cargo that runs us, so that the toolchain is the same.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    run(&mut command, &format!("cargo {}", arguments.join(" ")))
}

/// Runs a command to its end; `name` stands for it in errors.
pub(crate) fn run(command: &mut Command, name: &str) -> Result<(), Failure> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| Failure::Start(name.to_owned(), error))?;
    if status.success() { Ok(()) } else { Err(Failure::Ended(name.to_owned(), status)) }
}

/// Whether a program can be found. `/usr/sbin` counts too: Debian keeps mke2fs there, off a user's path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Waits until the child ends, but not longer than `limit`. `None`: it still runs.
pub(crate) fn wait_limited(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Repeats `attempt` until it gives something, but not longer than `limit`.
pub(crate) fn wait_for<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Sends a signal by name to one process that we started. The standard library sends only SIGKILL.
pub(crate) fn signal(child: &Child, name: &str) -> Result<(), Failure> {
    run(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()), "kill")
}

/// Reads a text file, naming it in the error.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::File(path.to_owned(), error))
}

/// Writes a text file, naming it in the error.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::File(path.to_owned(), error))
}

/// An empty folder at `path`: what an earlier run left there goes.
pub(crate) fn fresh_folder(path: &Path) -> Result<(), Failure> {
    let fail = |error| Failure::File(path.to_owned(), error);
    if path.exists() {
        std::fs::remove_dir_all(path).map_err(fail)?;
    }
    std::fs::create_dir_all(path).map_err(fail)
}

/// The last `count` lines of a file, for reports of failures.
pub(crate) fn tail(path: impl AsRef<OsStr>, count: usize) -> String {
    let text = std::fs::read(Path::new(path.as_ref())).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_the_workspace_manifest() {
        assert!(read(&root().join("Cargo.toml")).unwrap().contains("[workspace]"));
    }

    #[test]
    fn an_exit_code_becomes_an_error_that_names_the_program() {
        let failure = run(&mut Command::new("false"), "false").unwrap_err();
        assert!(failure.to_string().starts_with("false: "), "{failure}");
        assert_eq!(failure.exit_code(), 1);
        assert!(run(&mut Command::new("true"), "true").is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_is_said_so() {
        assert!(find_program("no-such-program-at-all").is_none());
        assert!(find_program("sh").is_some());
        let failure = run(&mut Command::new("no-such-program-at-all"), "it").unwrap_err();
        assert!(failure.to_string().starts_with("cannot start it"), "{failure}");
    }

    #[test]
    fn a_wait_ends() {
        let mut tries = 0;
        assert_eq!(
            wait_for(Duration::from_secs(5), || {
                tries += 1;
                (tries == 3).then_some(tries)
            }),
            Some(3)
        );
        assert_eq!(wait_for(Duration::ZERO, || None::<()>), None);
    }
}
