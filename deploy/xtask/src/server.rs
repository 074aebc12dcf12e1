//! A `brindle serve` of our own: its configuration, its start, its violent and its orderly end. One server at a time
//! per folder. It never touches a process that it did not start.

use crate::process::{self, Failure};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest start: creating the array writes its metadata, recovery reads the log.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Longest orderly end: everything dirty is destaged first.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Lines of the server's log shown with a failure.
const LOG_TAIL: usize = 30;

/// Name of the one subsystem that is served.
pub(crate) const NQN: &str = "nqn.2026-01.io.brindle:lab";

/// What the server's devices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Devices {
    /// Files in the server's folder whose unflushed writes are lost on SIGKILL: a missing flush shows.
    Files,
    /// Memory.
    Ram,
}

/// What is served: an array, mostly with a log, and one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Files or memory.
    pub(crate) devices: Devices,
    /// How the array arranges redundancy.
    pub(crate) level: &'static str,
    /// How many members it has.
    pub(crate) members: usize,
    /// Whether there is a drive beside them, `s0`, a spare, for which what is moved or rebuilt goes slowly.
    pub(crate) spare: bool,
    /// `write-back` or `write-through`.
    pub(crate) mode: &'static str,
    /// The reactors, as the configuration has them.
    pub(crate) reactors: &'static str,
    /// Size of a member.
    pub(crate) member: &'static str,
    /// Copies of the log; none of an array without one.
    pub(crate) copies: usize,
    /// Size of a log copy.
    pub(crate) log: &'static str,
    /// Lanes of the log.
    pub(crate) lanes: u16,
    /// Where data waits for the members: `memory` or `log`.
    pub(crate) residency: &'static str,
    /// Size of the volume.
    pub(crate) volume: &'static str,
    /// In what units hosts address it.
    pub(crate) logical_block: &'static str,
    /// Whether checksums of all blocks are kept: `off` or `on`.
    pub(crate) checksums: &'static str,
    /// When what is logged goes to the members, as the configuration has it; empty is the default.
    pub(crate) destage: &'static str,
    /// Further lines of the configuration, each with its end.
    pub(crate) more: &'static str,
}

impl Setup {
    /// Small files on one adaptive reactor: for tests on machines with other work to do.
    pub(crate) const fn small(mode: &'static str) -> Setup {
        Setup {
            devices: Devices::Files,
            level: "raid5",
            members: 3,
            spare: false,
            mode,
            reactors: "{count: 1, polling: adaptive, memory: 256MiB}",
            member: "192MiB",
            copies: 2,
            log: "64MiB",
            lanes: 16,
            residency: "memory",
            volume: "256MiB",
            logical_block: "4KiB",
            checksums: "off",
            destage: "",
            more: "",
        }
    }

    /// Memory on one polling core, large enough that the log does not fill within a moment. Few lanes for the one reactor:
    /// what comes at once then goes into few records.
    pub(crate) const fn fast() -> Setup {
        Setup {
            devices: Devices::Ram,
            level: "raid5",
            members: 3,
            spare: false,
            mode: "write-back",
            reactors: "{cores: [0], polling: busy, memory: 512MiB}",
            member: "512MiB",
            copies: 2,
            log: "512MiB",
            lanes: 4,
            residency: "memory",
            volume: "768MiB",
            logical_block: "4KiB",
            checksums: "off",
            destage: "",
            more: "",
        }
    }
}

/// A running server, and what is needed to start it again. Dropping it kills the process.
pub(crate) struct Server {
    folder: PathBuf,
    nvme: SocketAddr,
    metrics: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Writes a configuration into `folder`, which must exist, and starts a server on it.
    pub(crate) fn create(folder: &Path, setup: Setup) -> Result<Server, Failure> {
        let nvme = free_address()?;
        let metrics = free_address()?;
        process::write(&folder.join("brindle.yaml"), &configuration(setup, nvme, metrics))?;
        let mut server = Server { folder: folder.to_owned(), nvme, metrics, child: None };
        server.start(&["--create"])?;
        Ok(server)
    }

    /// Where hosts connect.
    pub(crate) fn nvme(&self) -> SocketAddr {
        self.nvme
    }

    /// Where Prometheus scrapes.
    pub(crate) fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Time that all threads of the process have spent on processors.
    pub(crate) fn processor_time(&self) -> Result<Duration, Failure> {
        let child = self.child.as_ref().ok_or_else(|| Failure::found("the server is not running"))?;
        let folder = PathBuf::from(format!("/proc/{}/task", child.id()));
        let tasks = std::fs::read_dir(&folder).map_err(|error| Failure::File(folder.clone(), error))?;
        // The first number is of nanoseconds (Documentation/scheduler/sched-stats.rst).
        let of_task = |path: PathBuf| -> Option<u64> {
            let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Ok(Duration::from_nanos(tasks.flatten().filter_map(|task| of_task(task.path())).sum()))
    }

    /// Has the server do something, by the command line; what that says, as JSON.
    pub(crate) fn brindle(&self, words: &[&str]) -> Result<Value, Failure> {
        self.ask(&[words, &["--json", "--config", "brindle.yaml"]].concat())
    }

    /// What `brindle status` says of it.
    pub(crate) fn status(&self) -> Result<Value, Failure> {
        self.ask(&["status", "--json", "brindle.yaml"])
    }

    fn ask(&self, words: &[&str]) -> Result<Value, Failure> {
        let output = Command::new(process::root().join("target/release/brindle"))
            .args(words)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::Start("brindle".to_owned(), error))?;
        let said =
            || Failure::found(format!("brindle {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr)));
        if output.status.success() { serde_json::from_slice(&output.stdout).map_err(|_| said()) } else { Err(said()) }
    }

    /// Starts the process again, on what its drives hold.
    pub(crate) fn restart(&mut self) -> Result<(), Failure> {
        self.start(&[])
    }

    /// SIGKILL: the crash of the process, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        let mut child = self.child.take().ok_or_else(|| Failure::found("the server is not running"))?;
        if let Ok(Some(status)) = child.try_wait() {
            return Err(self.failed(&format!("the server had ended by itself: {status}")));
        }
        child.kill().and_then(|()| child.wait()).map(|_| ()).map_err(|error| Failure::Start("kill".to_owned(), error))
    }

    /// SIGTERM: everything is destaged and the process ends with 0, within its time.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        let mut child = self.child.take().ok_or_else(|| Failure::found("the server is not running"))?;
        let outcome = process::signal(&child, "TERM").and_then(|()| {
            process::wait_limited(&mut child, STOP_LIMIT).map_err(|error| Failure::Start("wait".to_owned(), error))
        });
        match outcome {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("the server's clean stop: {status}"))),
            Ok(None) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(self.failed(&format!("the server did not stop within {STOP_LIMIT:?}")))
            }
            Err(failure) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(failure)
            }
        }
    }

    /// Does `work` while the process stands still and leaves its core to others.
    pub(crate) fn paused<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let child = self.child.as_ref().ok_or_else(|| Failure::found("the server is not running"))?;
        process::signal(child, "STOP")?;
        let outcome = work();
        process::signal(child, "CONT")?;
        outcome
    }

    /// Takes a member's file away, as if the drive had been pulled. The server must not be running.
    pub(crate) fn remove_device(&self, name: &str) -> Result<(), Failure> {
        assert!(self.child.is_none(), "a drive is pulled between stop and start");
        let path = self.folder.join(format!("{name}.img"));
        std::fs::rename(&path, path.with_extension("gone")).map_err(|error| Failure::File(path, error))
    }

    /// An error if the process has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<(), Failure> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                self.child = None;
                Err(self.failed(&format!("the server ended by itself: {status}")))
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, options: &[&str]) -> Result<(), Failure> {
        assert!(self.child.is_none(), "one server per folder");
        let log_path = self.folder.join("server.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|error| Failure::File(log_path.clone(), error))?;
        let errors = log.try_clone().map_err(|error| Failure::File(log_path, error))?;
        let binary = process::root().join("target/release/brindle");
        let child = Command::new(&binary)
            .args(["serve", "brindle.yaml"])
            .args(options)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| Failure::Start(binary.display().to_string(), error))?;
        self.child = Some(child);
        let metrics = self.metrics;
        let answered = process::wait_for(START_LIMIT, || match self.check_alive() {
            Err(failure) => Some(Err(failure)),
            Ok(()) => is_ready(metrics).then_some(Ok(())),
        });
        answered.unwrap_or_else(|| Err(self.failed(&format!("the server was not ready within {START_LIMIT:?}"))))
    }

    fn failed(&self, what: &str) -> Failure {
        let log = process::tail(self.folder.join("server.log"), LOG_TAIL);
        Failure::found(format!("{what}\n-- the end of {}/server.log:\n{log}", self.folder.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may have ended already; either way nothing of it stays.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An address on the loopback whose port was free a moment ago.
fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::Start("a listener on 127.0.0.1".to_owned(), error))
}

/// Whether hosts are served. That the port can be connected to says less: it is bound before the arrays are recovered.
fn is_ready(metrics: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(metrics)?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.contains(" 200")))
}

/// The configuration file of a setup.
fn configuration(setup: Setup, nvme: SocketAddr, metrics: SocketAddr) -> String {
    let device = |name: &str, size: &str| match setup.devices {
        Devices::Files => {
            format!("  - {{name: {name}, kind: file, path: {name}.img, size: {size}, volatile_cache: emulated}}\n")
        }
        Devices::Ram => format!("  - {{name: {name}, kind: ram, size: {size}}}\n"),
    };
    let names: Vec<String> = (0..setup.members).map(|at| format!("d{at}")).collect();
    let members: String = names.iter().map(|name| device(name, setup.member)).collect();
    let (beside, spares) = match setup.spare {
        true => (device("s0", setup.member), "    spares: [s0]\n    rebuild: {rate: 8MiB}\n"),
        false => (String::new(), ""),
    };
    let names = names.join(", ");
    let copies: Vec<String> = (0..setup.copies).map(|at| format!("l{at}")).collect();
    let logs: String = copies.iter().map(|name| device(name, setup.log)).collect();
    let Setup { level, mode, reactors, lanes, residency, volume, logical_block, checksums, destage, more, .. } = setup;
    let log = match copies.as_slice() {
        [] => String::new(),
        copies => format!(
            "    log: {{devices: [{}], mode: {mode}, lanes: {lanes}, residency: {residency}}}\n",
            copies.join(", ")
        ),
    };
    let destage = if destage.is_empty() { String::new() } else { format!("    destage: {destage}\n") };
    format!(
        "version: 1
name: lab
reactors: {reactors}
devices:
{members}{beside}{logs}arrays:
  - name: a0
    level: {level}
    members: [{names}]
    chunk: 64KiB
    checksums: {checksums}
{spares}{log}{destage}    volumes: [{{name: v0, size: {volume}, logical_block: {logical_block}}}]
listeners:
  - {{name: main, protocol: nvme-tcp, address: \"{nvme}\"}}
subsystems:
  - {{nqn: \"{NQN}\", listeners: [main], hosts: any, namespaces: [{{nsid: 1, volume: a0/v0}}]}}
metrics: {{address: \"{metrics}\"}}
control: {{socket: control.sock}}
{more}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_pass_the_products_own_check() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let dual = Setup { level: "raid6", members: 4, ..Setup::small("write-back") };
        let open = Setup { more: "sandbox: off\nsealed: off\n", ..Setup::fast() };
        let bare = Setup { copies: 0, ..Setup::small("write-through") };
        let keen = Setup { destage: "{age: 30s, memory_watermark: 10%}", ..Setup::fast() };
        let spare = Setup { spare: true, ..Setup::small("write-back") };
        let in_log = Setup { residency: "log", ..Setup::fast() };
        for setup in [
            keen,
            spare,
            in_log,
            Setup::small("write-back"),
            Setup::small("write-through"),
            dual,
            bare,
            Setup::fast(),
            open,
        ] {
            let text = configuration(setup, address(4420), address(9420));
            if let Err(problems) = config::parse(&text, "lab.yaml") {
                panic!("{problems:?}\n{text}");
            }
        }
    }
}
