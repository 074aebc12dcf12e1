//! The process that serves. It is a child in a process group of its own, so that Ctrl-C reaches only the demo, with its
//! output in a log file. It never outlives the demo: dropping the [`Server`] kills it, and the kernel does when the demo
//! dies without a word.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

use super::{DemoError, POLL, SERVE_LIMIT, STOP_LIMIT, TAIL_BYTES, TAIL_LINES};
use crate::control_client;
use crate::status::Status;

/// Becomes the serving process of the demo `parent`: the kernel is told to kill it with its parent, which only the
/// process itself can ask for and which survives the exec. It returns only an error.
pub(super) fn become_server(parent: u32, configuration: &Path) -> DemoError {
    let failed = |source| DemoError::System { doing: "become the serving process", source };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed(error.into());
    }
    // A parent that was dead before is not noticed by the kernel.
    if getppid().map(|pid| pid.as_raw_pid() as u32) != Some(parent) {
        return failed(io::Error::other("the demo that started it is gone"));
    }
    match std::env::current_exe() {
        Ok(program) => failed(Command::new(program).arg("serve").arg(configuration).exec()),
        Err(error) => failed(error),
    }
}

/// The serving process, or the place for one.
#[derive(Debug)]
pub(super) struct Server {
    control: PathBuf,
    log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Where its lines begin in the log.
    log_start: u64,
    since: Instant,
}

impl Server {
    /// Nothing is started yet.
    pub(super) const fn new(control: PathBuf, log: PathBuf) -> Self {
        Self { control, log, running: None }
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it. To be called on the main thread: for the kernel, the thread that starts a process is its parent.
    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        let program = std::env::current_exe()
            .map_err(|source| DemoError::System { doing: "find the program that runs", source })?;
        let mut command = Command::new(program);
        command.arg("demo").arg("--server-of").arg(std::process::id().to_string());
        self.spawn(command)
    }

    fn spawn(&mut self, mut command: Command) -> Result<(), DemoError> {
        assert!(self.running.is_none(), "one serving process at a time");
        let file = |source| DemoError::File { doing: "write the log", path: self.log.clone(), source };
        // Appended to: another demo may be using the folder, and its log is not ours to empty.
        let log = File::options().create(true).append(true).open(&self.log).map_err(file)?;
        let log_start = log.metadata().map_err(file)?.len();
        let errors = log.try_clone().map_err(file)?;
        let since = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).spawn();
        let child = child.map_err(|source| DemoError::System { doing: "start the serving process", source })?;
        self.running = Some(Running { child, log_start, since });
        Ok(())
    }

    /// Waits until it serves; says how long that took since its start, and what it says of itself.
    pub(super) fn await_serving(&mut self, cancelled: impl Fn() -> bool) -> Result<(Duration, Status), DemoError> {
        loop {
            self.check()?;
            let Running { child, since, .. } = self.running.as_ref().expect("it was started");
            // Somebody else may serve at this socket: only its own answer counts.
            if let Ok(status) = control_client::status(&self.control)
                && status.process == child.id()
                && status.ready
            {
                return Ok((since.elapsed(), status));
            }
            if since.elapsed() > SERVE_LIMIT {
                return Err(DemoError::NotServing { tail: self.tail(), log: self.log.clone() });
            }
            if cancelled() {
                return Err(DemoError::Interrupted);
            }
            thread::sleep(POLL);
        }
    }

    /// Fails if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match running.child.try_wait().map_err(waiting)? {
            None => Ok(()),
            Some(status) => {
                let tail = self.tail();
                self.running = None;
                Err(DemoError::Ended { status, tail, log: self.log.clone() })
            }
        }
    }

    /// Kills it, and sees it dead.
    pub(super) fn kill(&mut self) -> Result<(), DemoError> {
        let mut running = self.running.take().expect("it was started");
        running.child.kill().and_then(|()| running.child.wait()).map_err(waiting)?;
        Ok(())
    }

    /// Asks it to stop and waits; says how long that took. If there is none, there is nothing to stop.
    pub(super) fn stop(&mut self) -> Result<Duration, DemoError> {
        let Some(running) = &mut self.running else { return Ok(Duration::ZERO) };
        let asked = Instant::now();
        // It cannot have been waited for, so its number is still its own.
        kill_process(Pid::from_child(&running.child), Signal::TERM).map_err(|error| waiting(error.into()))?;
        let mut ended = None;
        while ended.is_none() && asked.elapsed() < STOP_LIMIT {
            ended = running.child.try_wait().map_err(waiting)?;
            if ended.is_none() {
                thread::sleep(POLL);
            }
        }
        let tail = self.tail();
        let how = match ended {
            Some(status) if status.success() => {
                self.running = None;
                return Ok(asked.elapsed());
            }
            Some(status) => {
                self.running = None;
                status.to_string()
            }
            None => {
                self.kill()?;
                format!("killed after {} s", STOP_LIMIT.as_secs())
            }
        };
        Err(DemoError::NotClean { how, tail, log: self.log.clone() })
    }

    /// The last lines that it wrote.
    fn tail(&self) -> String {
        let start = self.running.as_ref().map_or(0, |running| running.log_start);
        // The log only explains: without it the error is still told.
        tail(&self.log, start).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Whoever drops a running server is on the way out with an error of more interest.
            let _ = running.child.kill().and_then(|()| running.child.wait());
        }
    }
}

fn waiting(source: io::Error) -> DemoError {
    DemoError::System { doing: "signal or wait for the serving process", source }
}

/// The last lines of a file from an offset on, without control characters: they go to a terminal.
fn tail(path: &Path, start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(|line| line.chars().filter(|c| !c.is_control()).collect()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Folder;

    fn is_alive(process: u32) -> bool {
        Path::new(&format!("/proc/{process}")).exists()
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    fn started(folder: &Folder, script: &str) -> (Server, u32) {
        let mut server = Server::new(folder.0.join("none.sock"), folder.0.join("log"));
        server.spawn(shell(script)).unwrap();
        let process = server.running.as_ref().unwrap().child.id();
        (server, process)
    }

    #[test]
    fn a_server_that_ends_is_reported_with_its_own_lines_only() {
        let folder = Folder::new("demo-server-ends");
        std::fs::write(folder.0.join("log"), "an earlier line\n").unwrap();
        let (mut server, _) = started(&folder, "echo the port is in use >&2; exit 3");
        let error = server.await_serving(|| false).unwrap_err();
        let DemoError::Ended { status, tail, .. } = error else { panic!("{error}") };
        assert_eq!((status.code(), tail.as_str()), (Some(3), "the port is in use"));
        assert_eq!(server.stop().unwrap(), Duration::ZERO, "there is nothing left to stop");
    }

    #[test]
    fn a_server_that_is_waited_for_can_be_given_up_and_dies_with_its_owner() {
        let folder = Folder::new("demo-server-given-up");
        let (mut server, process) = started(&folder, "exec sleep 600");
        assert!(matches!(server.await_serving(|| true), Err(DemoError::Interrupted)));
        assert!(server.check().is_ok() && is_alive(process));
        drop(server);
        assert!(!is_alive(process));
    }

    #[test]
    fn a_stop_is_clean_with_exit_code_zero_only() {
        let folder = Folder::new("demo-server-stop");
        // The shell says when it is ready to be told, so that no signal comes before its trap.
        let wait_for = |server: &Server, word: &str| {
            let began = Instant::now();
            while server.tail() != word {
                assert!(began.elapsed() < STOP_LIMIT, "{}", server.tail());
            }
        };
        let (mut server, process) = started(&folder, "trap 'exit 0' TERM; echo set; while :; do sleep 0.01; done");
        wait_for(&server, "set");
        assert!(server.stop().unwrap() < STOP_LIMIT);
        assert!(!is_alive(process));
        let (mut server, _) = started(&folder, "trap 'echo bad; exit 1' TERM; echo set; while :; do sleep 0.01; done");
        wait_for(&server, "set");
        let error = server.stop().unwrap_err();
        assert!(matches!(&error, DemoError::NotClean { tail, .. } if tail == "set\nbad"), "{error}");
    }

    #[test]
    fn a_killed_server_is_dead_at_once_and_can_be_started_again() {
        let folder = Folder::new("demo-server-kill");
        let (mut server, process) = started(&folder, "exec sleep 600");
        server.kill().unwrap();
        assert!(!is_alive(process));
        server.spawn(shell("exec sleep 600")).unwrap();
        assert!(server.check().is_ok());
    }

    #[test]
    fn the_tail_is_the_last_lines_without_control_characters() {
        let folder = Folder::new("demo-tail");
        let path = folder.0.join("log");
        let text: String = (0..10_000).map(|line| format!("\u{1b}line {line}\r\n")).collect();
        std::fs::write(&path, text).unwrap();
        let shown = tail(&path, 0).unwrap();
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert!(shown.ends_with("line 9999") && !shown.contains(|c: char| c.is_control() && c != '\n'), "{shown}");
        assert_eq!(tail(&path, 1 << 30).unwrap(), "", "a start behind the end");
        assert!(tail(&folder.0.join("none"), 0).is_err());
    }
}
