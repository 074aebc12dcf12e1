//! `brindle demo` as a user runs it, in a folder of its own. What fails is told in clear words with exit code 1, nothing
//! of the user's is changed, and no process stays behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadgen::host::{Host, HostIdentity, HostOptions};
use loadgen::io_queue::Operation;
use loadgen::request::Wait;
use loadgen::workload::first_namespace;
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for something that is about to happen.
const SOON: Duration = Duration::from_secs(60);

/// A working directory that goes when the test does.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("brindle-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn configured(name: &str, text: &str) -> Self {
        let place = Self::new(name);
        fs::create_dir(place.0.join("brindle-demo")).unwrap();
        fs::write(place.configuration(), text).unwrap();
        place
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("brindle-demo/demo.yaml")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn demo(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brindle"));
    command.arg("demo").args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_file_where_the_folder_belongs_is_left_alone() {
    let place = Place::new("demo-file");
    fs::write(place.0.join("brindle-demo"), "mine").unwrap();
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cannot make the folder brindle-demo: "), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert_eq!(fs::read_to_string(place.0.join("brindle-demo")).unwrap(), "mine");
}

#[test]
fn a_changed_configuration_is_kept_and_its_errors_are_shown() {
    let broken = config::DEMO.replace("64KiB", "64KB");
    let place = Place::configured("demo-broken", &broken);
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("was changed and is kept"));
    assert!(text(&output.stderr).contains("brindle-demo/demo.yaml: 1 error"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(place.configuration()).unwrap(), broken);
    assert_eq!(fs::read_dir(place.0.join("brindle-demo")).unwrap().count(), 1, "nothing was created");
}

#[test]
fn a_configuration_that_cannot_survive_is_refused_before_anything_starts() {
    let memory = "{name: l0, kind: ram, size: 64MiB}";
    let ram = config::DEMO.replace("{name: l0, kind: file, path: brindle-demo/l0.img, size: 64MiB}", memory);
    let place = Place::configured("demo-ram", &ram);
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("device l0 is memory"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(place.0.join("brindle-demo")).unwrap().count(), 1, "nothing was created");
}

#[test]
fn only_the_demos_own_child_becomes_its_server() {
    let place = Place::new("demo-stranger");
    // Process 1 did not start it.
    let output = demo(&place.0, &["--server-of", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the demo that started it is gone"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

/// The embedded configuration on ports that are free, with small devices.
fn free() -> (String, [u16; 2]) {
    // Held at the same time, so that they differ.
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = held.map(|listener| listener.local_addr().unwrap().port());
    let text = config::DEMO.replace(":4420", &format!(":{}", ports[0])).replace(":9420", &format!(":{}", ports[1]));
    (text, ports)
}

/// A process that goes when the test does.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Starts brindle and reads on until a line begins so; the line.
fn started(place: &Place, arguments: &[&str], begins: &str) -> (Started, BufReader<ChildStdout>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brindle"));
    command.args(arguments).current_dir(&place.0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Started(command.spawn().unwrap());
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "it ended before {begins:?}");
        if line.starts_with(begins) {
            return (child, output, line);
        }
    }
}

/// Whether a process is there and not only waits to be buried.
fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The process that a line of the demo names.
fn serving_process(line: &str) -> u32 {
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn all_rounds_are_played_the_volume_is_verified_and_a_second_demo_goes_on_with_it() {
    let (text_of, _) = free();
    let place = Place::configured("demo-once", &text_of);
    for _ in 0..2 {
        let output = demo(&place.0, &["--once"]);
        let (shown, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{shown}{errors}");
        for expected in ["round 1 of 3", "round 3 of 3", "kill -9 with", "a0 optimal", ", violations 0", "none is lost"]
        {
            assert!(shown.contains(expected), "{expected} is missing:\n{shown}");
        }
        assert!(shown.trim_end().lines().next_back().unwrap().starts_with("stopped cleanly"), "{shown}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (text_of, ports) = free();
    let place = Place::configured("demo-port", &text_of);
    let taken = TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("ended by itself") && errors.contains(&format!("127.0.0.1:{}", ports[0])), "{errors}");
    drop(taken);
}

#[test]
fn a_demo_that_is_asked_to_stop_stops_its_server_and_a_demo_that_is_killed_takes_it_along() {
    let (text_of, _) = free();
    let place = Place::configured("demo-stop", &text_of);
    let (mut child, mut rest, line) = started(&place, &["demo"], "process ");
    let server = serving_process(&line);
    assert!(is_alive(server));
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    let mut shown = String::new();
    while rest.read_line(&mut shown).unwrap() > 0 {}
    assert_eq!(child.0.wait().unwrap().code(), Some(1), "nothing was shown yet: {shown}");
    assert!(!is_alive(server));

    let (mut child, _rest, line) = started(&place, &["demo"], "process ");
    let server = serving_process(&line);
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let killed = Instant::now();
    while is_alive(server) {
        assert!(killed.elapsed() < SOON, "process {server} outlives its demo");
        std::thread::yield_now();
    }
}

#[test]
fn data_that_no_demo_wrote_is_not_written_over() {
    let (text_of, ports) = free();
    let place = Place::configured("demo-data", &text_of);
    let (mut child, _rest, _) = started(&place, &["serve", "brindle-demo/demo.yaml"], "demo serves");
    let identity = HostIdentity::from_id(base::uuid::Uuid::from_random([1, 2]));
    let address = ([127, 0, 0, 1], ports[0]).into();
    let mut host = Host::connect(&HostOptions::new(address, "nqn.2026-01.io.brindle:demo", identity)).unwrap();
    let namespace = first_namespace(&mut host).unwrap();
    let mut queue = host.open_queue(1, 1, namespace.block_bytes, &namespace).unwrap();
    let slot = queue.hold().unwrap();
    queue.buffer_mut(slot).fill(0x5a);
    queue.submit(slot, Operation::Write { lba: 9, blocks: 1 }).unwrap();
    let completion = loop {
        queue.poll(Wait::Sleep(SOON)).unwrap();
        if let Some(completion) = queue.completed() {
            break completion;
        }
    };
    assert!(completion.status.is_success());
    queue.release(completion.slot);
    drop(queue);
    host.disconnect().unwrap();
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert!(child.0.wait().unwrap().success());

    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.starts_with("volume a0/v0 holds data that is not the demo's (block 9)"), "{errors}");
    assert!(!text(&output.stdout).contains("round"));
}
