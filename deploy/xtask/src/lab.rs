//! Scenarios with a real Linux kernel as the host: a guest is booted, its kernel's NVMe/TCP initiator connects to a
//! server of ours on this machine, and a script in the guest says what must hold. The script also says when the server
//! is to be killed; everything else about the server happens here.
//!
//! A script speaks to this side by lines on its output:
//!
//! | line | what happens |
//! |---|---|
//! | `@kill` | SIGKILL, a pause that the host notices, start again |
//! | `@kill NAME` | the same, with the file of drive NAME taken away before the start |

use crate::process::{self, Failure};
use crate::report::Report;
use crate::server::{NQN, Server, Setup};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// One scenario: a script of `deploy/lab`, and where the server is that it runs against.
struct Scenario {
    name: &'static str,
    script: &'static str,
    server: Place,
}

/// Where the server is.
enum Place {
    /// On this machine.
    Here(Setup),
    /// In the guest, where the script starts it, with further files of `deploy/lab` beside the script.
    Guest(&'static [&'static str]),
}

const WRITE_BACK: Place = Place::Here(Setup::small("write-back"));
const WRITE_THROUGH: Place = Place::Here(Setup::small("write-through"));
const SECTORS: Place = Place::Here(Setup { logical_block: "512B", ..Setup::small("write-back") });

/// All scenarios, in the order in which they are run.
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "files", script: "files.sh", server: WRITE_BACK },
    Scenario { name: "killed", script: "killed.sh", server: WRITE_BACK },
    Scenario { name: "killed-write-through", script: "killed.sh", server: WRITE_THROUGH },
    Scenario { name: "degraded", script: "degraded.sh", server: WRITE_BACK },
    Scenario { name: "sectors", script: "sectors.sh", server: SECTORS },
    Scenario { name: "sealed", script: "sealed.sh", server: Place::Guest(&[]) },
    Scenario { name: "flaky", script: "flaky.sh", server: Place::Guest(&["stamped.py"]) },
    Scenario { name: "dropped", script: "dropped.sh", server: Place::Guest(&["powercut.py", "stamped.py"]) },
];

/// How long a killed server stays away: the host's queues must see the connection gone and begin to retry.
const AWAY: Duration = Duration::from_secs(2);

/// How often the server is looked at while the guest is silent.
const WATCH: Duration = Duration::from_millis(500);

/// Guest time limit of one scenario, in seconds.
const GUEST_LIMIT: &str = "400";

/// Memory of a guest that has the server in it.
const GUEST_MEMORY_MIB: &str = "2048";

/// Lines of guest output that may wait to be handled.
const LINES_MAX: usize = 1024;

/// `cargo xtask lab [--kernel PACKAGE] [NAME...]`: builds what is needed and runs the named scenarios, or all.
pub(crate) fn run(words: &[&str]) -> Result<String, Failure> {
    let (guest_image, names) = match words {
        ["--kernel", kernel, names @ ..] => (GuestImage::with_kernel(kernel), names),
        names => (GuestImage::standard(), names),
    };
    let chosen: Vec<&Scenario> = if names.is_empty() {
        SCENARIOS.iter().collect()
    } else {
        names.iter().map(|name| find(name)).collect::<Result<_, _>>()?
    };
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle"])?;
    let mut report = Report::new();
    steps(&mut report, &guest_image, &chosen);
    println!("{}", report.closing());
    if report.is_clean() { Ok(String::new()) } else { Err(Failure::Steps) }
}

/// Adds the guest's making and all scenarios to a longer report. The release binary is built.
pub(crate) fn all_steps(report: &mut Report) {
    steps(report, &GuestImage::standard(), &SCENARIOS.iter().collect::<Vec<_>>());
}

fn steps(report: &mut Report, image: &GuestImage, scenarios: &[&Scenario]) {
    if report.step("lab: guest", || image.make()) {
        for scenario in scenarios {
            report.step(&format!("lab: {}", scenario.name), || play(scenario, image));
        }
    }
}

fn find(name: &str) -> Result<&'static Scenario, Failure> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        Failure::Usage(format!("lab: no scenario {name}; known: {}", known.join(" ")))
    })
}

/// What the guest is built of and where it is kept: its making takes half a minute and 145 MB of downloads.
pub(crate) struct GuestImage {
    kernel: Option<String>,
    cache: PathBuf,
}

impl GuestImage {
    /// The kernel of Debian's stable release.
    pub(crate) fn standard() -> GuestImage {
        let cache = std::env::var_os("GUEST_CACHE").map_or_else(|| target_folder("guest"), PathBuf::from);
        GuestImage { kernel: None, cache }
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.cache
    }

    /// Another kernel, as `PACKAGE/SUITE`, kept beside the standard one.
    fn with_kernel(kernel: &str) -> GuestImage {
        GuestImage {
            kernel: Some(kernel.to_owned()),
            cache: target_folder(&format!("guest-{}", kernel.replace('/', "-"))),
        }
    }

    /// Builds it, if it is not there.
    pub(crate) fn make(&self) -> Result<String, Failure> {
        let mut command = Command::new(lab_file("mkguest"));
        if let Some(kernel) = &self.kernel {
            command.args(["-k", kernel]);
        }
        process::run(command.arg(&self.cache), "deploy/lab/mkguest")?;
        Ok(String::new())
    }
}

fn target_folder(name: &str) -> PathBuf {
    process::root().join("target/lab").join(name)
}

fn lab_file(name: &str) -> PathBuf {
    process::root().join("deploy/lab").join(name)
}

/// One scenario from an empty folder to the server's clean stop. The folder stays for whoever looks at a failure.
fn play(scenario: &Scenario, image: &GuestImage) -> Result<String, Failure> {
    let folder = target_folder(scenario.name);
    process::fresh_folder(&folder)?;
    let mut server = match scenario.server {
        Place::Here(setup) => Some(Server::create(&folder, setup)?),
        Place::Guest(_) => None,
    };
    let port = server.as_ref().map(|server| server.nvme().port());
    let mut guest = Guest::boot(scenario, image, &folder, port)?;
    loop {
        match guest.lines.recv_timeout(WATCH) {
            Ok(line) => {
                println!("   {line}");
                if let (Some(order), Some(server)) = (line.strip_prefix("@kill"), &mut server) {
                    crash(server, order.trim())?;
                }
            }
            Err(RecvTimeoutError::Timeout) => server.as_mut().map_or(Ok(()), Server::check_alive)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    guest.end(scenario)?;
    // What the guest has read came from a server that may have held it in memory: it must also stop in order.
    server.as_mut().map_or(Ok(()), Server::stop)?;
    Ok(String::new())
}

fn crash(server: &mut Server, device: &str) -> Result<(), Failure> {
    server.kill()?;
    if !device.is_empty() {
        server.remove_device(device)?;
    }
    std::thread::sleep(AWAY);
    server.restart()
}

/// The emulated machine with the script in it. Dropping it ends the machine.
struct Guest {
    child: Child,
    lines: Receiver<String>,
    console: PathBuf,
}

impl Guest {
    fn boot(scenario: &Scenario, image: &GuestImage, folder: &Path, port: Option<u16>) -> Result<Guest, Failure> {
        let console = folder.join("console.log");
        let mut command = Command::new(lab_file("guest-run"));
        if let Some(port) = port {
            command.args(["--env", &format!("PORT={port}"), "--env", &format!("NQN={NQN}")]);
        }
        if let Place::Guest(files) = scenario.server {
            // Drives of a server in the guest are files in its memory.
            command.args(["--mem", GUEST_MEMORY_MIB, "--put"]).arg(process::root().join("target/release/brindle"));
            for file in files {
                command.arg("--put").arg(lab_file(file));
            }
        }
        let mut child = command
            .arg("--cache")
            .arg(&image.cache)
            .args(["--timeout", GUEST_LIMIT, "--console"])
            .arg(&console)
            .arg("--get")
            .arg(folder.join("out"))
            .arg("--put")
            .arg(lab_file("scenario.sh"))
            .arg(lab_file(scenario.script))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Start("deploy/lab/guest-run".to_owned(), error))?;
        let output = child.stdout.take().expect("the output is piped");
        let (sender, lines) = sync_channel(LINES_MAX);
        // A thread of its own, since a silent guest must not keep us from watching the server.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Guest { child, lines, console })
    }

    /// The script's verdict, once its output has ended.
    fn end(&mut self, scenario: &Scenario) -> Result<(), Failure> {
        let status = self.child.wait().map_err(|error| Failure::Start("wait".to_owned(), error))?;
        if status.success() {
            return Ok(());
        }
        let kernel = process::tail(&self.console, 20);
        Err(Failure::found(format!(
            "{}: {status}\n-- the end of the guest's kernel messages:\n{kernel}",
            scenario.script
        )))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SIGTERM, so that the script's own trap ends the emulator and removes its folder.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = process::signal(&self.child, "TERM");
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_has_its_script_and_a_name_of_its_own() {
        for (n, scenario) in SCENARIOS.iter().enumerate() {
            let text = process::read(&lab_file(scenario.script)).unwrap();
            assert!(text.contains("/run/in/scenario.sh"), "{} does not use the common part", scenario.script);
            if let Place::Guest(files) = scenario.server {
                for file in files {
                    assert!(text.contains(&format!("/run/in/{file}")), "{} does not use {file}", scenario.script);
                    assert!(lab_file(file).exists(), "{file}");
                }
            }
            assert!(SCENARIOS[n + 1..].iter().all(|other| other.name != scenario.name));
        }
    }

    #[test]
    fn an_unknown_scenario_is_refused_with_the_known_names() {
        let failure = find("nothing").err().unwrap();
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains("files killed"), "{failure}");
    }
}
