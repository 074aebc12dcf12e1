//! An appliance of files in a folder of its own, served by the built binary: what a user would see of it.

// Each test program uses a part.
#![allow(dead_code)]

pub(crate) mod member;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base::uuid::Uuid;
use loadgen::host::{Host, HostIdentity, HostOptions, Namespace};
use loadgen::io_queue::{IoQueue, Operation};
use loadgen::request::Wait;
use loadgen::workload::first_namespace;
use nvme::dataset::DatasetRange;
use nvme::status::Status;
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for something that is about to happen.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const NQN: &str = "nqn.2026-01.io.brindle:test";
pub(crate) const BLOCK: usize = 4096;

/// Three small members and two log copies of one lane; the system chooses the ports; what is dirty stays in the log.
pub(crate) const CONFIG: &str = "
version: 1
name: test
reactors: {count: 1, memory: 64MiB}
devices:
  - {name: d0, kind: file, path: data/d0.img, size: 16MiB}
  - {name: d1, kind: file, path: data/d1.img, size: 16MiB}
  - {name: d2, kind: file, path: data/d2.img, size: 16MiB}
  - {name: l0, kind: file, path: data/l0.img, size: 8MiB}
  - {name: l1, kind: file, path: data/l1.img, size: 8MiB}
arrays:
  - name: a0
    level: raid5
    members: [d0, d1, d2]
    log: {devices: [l0, l1], lanes: 1}
    destage: {age: 1h, high_watermark: 90%}
    volumes:
      - {name: v0, size: 8MiB}
listeners:
  - {name: main, protocol: nvme-tcp, address: 127.0.0.1:0}
subsystems:
  - nqn: nqn.2026-01.io.brindle:test
    listeners: [main]
    hosts: any
    namespaces:
      - {nsid: 1, volume: a0/v0}
metrics: {address: 127.0.0.1:0}
control: {socket: run/control.sock}
";

/// The configuration with texts replaced, each of which is there.
pub(crate) fn with(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(CONFIG.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the configuration");
        text.replace(from, to)
    })
}

/// One log copy.
pub(crate) const ONE_COPY: [(&str, &str); 2] =
    [("  - {name: l1, kind: file, path: data/l1.img, size: 8MiB}\n", ""), ("[l0, l1]", "[l0]")];

/// A folder that goes when the test does.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("brindle-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Starts `brindle serve` on a configuration of this text, and waits until it serves.
    pub(crate) fn serve(&self, text: &str, options: &[&str]) -> Server {
        Self::started(self.command(text, options))
    }

    /// The same in a network namespace, by its name.
    pub(crate) fn serve_in(&self, namespace: &str, text: &str) -> Server {
        self.write(text);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_brindle"), "serve", "test.yaml"]);
        command.current_dir(&self.0).stdin(Stdio::null());
        Self::started(command)
    }

    fn started(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut shown = BufReader::new(child.stdout.take().unwrap());
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, log, address: None, metrics: None };
        loop {
            let mut line = String::new();
            if shown.read_line(&mut line).unwrap() == 0 {
                let mut log = String::new();
                server.log.read_to_string(&mut log).unwrap();
                panic!("it does not serve: {log}");
            }
            if let Some(port) = line.split("--trsvcid=").nth(1).and_then(|rest| rest.split(' ').next()) {
                server.address = Some(([127, 0, 0, 1], port.parse::<u16>().unwrap()).into());
            }
            if let Some(metrics) = line.strip_prefix("Metrics: http://").and_then(|rest| rest.split('/').next()) {
                server.metrics = Some(metrics.parse().unwrap());
            }
            // The last line of the greeting.
            if line.starts_with("Status: ") {
                return server;
            }
        }
    }

    /// Starts `brindle serve`, which must refuse within the time, and leave everything as it was. What it said.
    pub(crate) fn refused(&self, text: &str, options: &[&str]) -> String {
        self.write(text);
        let before = self.content();
        let output = self.end_of(text, options);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{said}");
        let after = self.content();
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "after: {said}");
        for (path, content) in &before {
            assert!(after[path] == *content, "{} was changed: {said}", path.display());
        }
        // Warnings are lines of the log; the refusal is one line.
        let refusals: Vec<&str> =
            said.lines().filter(|line| !line.contains(" WARN ") && !line.contains(" INFO ")).collect();
        assert_eq!(refusals.len(), 1, "{said}");
        refusals[0].to_owned()
    }

    /// Runs it to its end, by force if that does not come soon.
    pub(crate) fn end_of(&self, text: &str, options: &[&str]) -> Output {
        let mut command = self.command(text, options);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (ended, end) = std::sync::mpsc::sync_channel::<()>(0);
        let watch = std::thread::spawn(move || {
            if end.recv_timeout(SOON) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        watch.join().unwrap();
        output
    }

    pub(crate) fn command(&self, text: &str, options: &[&str]) -> Command {
        self.write(text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_brindle"));
        command.arg("serve").arg("test.yaml").args(options).current_dir(&self.0).stdin(Stdio::null());
        command
    }

    fn write(&self, text: &str) {
        fs::write(self.0.join("test.yaml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Everything below the folder: files with their content, folders, sockets.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let kind = entry.file_type().unwrap();
                let content = if kind.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
                if kind.is_dir() {
                    folders.push(entry.path());
                }
                all.insert(entry.path(), content);
            }
        }
        all
    }

    /// `brindle` with these arguments in the folder: what it prints.
    pub(crate) fn brindle(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_brindle")).args(arguments).current_dir(&self.0).output().unwrap()
    }

    /// What `brindle status --json` says.
    pub(crate) fn status(&self) -> brindle::status::Status {
        let output = self.brindle(&["status", "--json", "test.yaml"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A serving process; it is killed when the test fails.
pub(crate) struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    address: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    pub(crate) fn metrics(&self) -> SocketAddr {
        self.metrics.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its log.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        line
    }

    /// Waits for its end: exit code, and what of the log was not read.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(begun.elapsed() < SOON, "it does not end");
            std::thread::yield_now();
        };
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (code, log)
    }

    /// Stops it cleanly; its log.
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::TERM);
        let (code, log) = self.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("the sandbox refuses"), "all it needs is allowed: {log}");
        log
    }

    /// Kills it as a power cut would; its log.
    pub(crate) fn kill(self) -> String {
        self.signal(Signal::KILL);
        self.end().1
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A host with a queue of its own on the namespace.
pub(crate) struct Client {
    pub(crate) host: Host,
    pub(crate) namespace: Namespace,
    pub(crate) queue: IoQueue,
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        let identity = HostIdentity::from_id(Uuid::from_random([7, 7]));
        let mut options = HostOptions::new(server.address(), NQN, identity);
        options.queues = 4;
        let mut host = Host::connect(&options).unwrap();
        let namespace = first_namespace(&mut host).unwrap();
        let queue = host.open_queue(1, 32, 128 * 1024, &namespace).unwrap();
        Self { host, namespace, queue }
    }

    /// Writes blocks full of a byte.
    pub(crate) fn write(&mut self, lba: u64, blocks: u32, byte: u8) {
        let slot = self.queue.hold().unwrap();
        self.queue.buffer_mut(slot)[..blocks as usize * BLOCK].fill(byte);
        self.queue.submit(slot, Operation::Write { lba, blocks }).unwrap();
        self.complete();
    }

    /// Whether a block is full of a byte.
    pub(crate) fn holds(&mut self, lba: u64, byte: u8) -> bool {
        let slot = self.queue.hold().unwrap();
        self.queue.submit(slot, Operation::Read { lba, blocks: 1 }).unwrap();
        loop {
            self.queue.poll(Wait::Sleep(SOON)).unwrap();
            if let Some(completion) = self.queue.completed() {
                assert!(completion.status.is_success());
                let holds = self.queue.buffer(completion.slot)[..BLOCK].iter().all(|&found| found == byte);
                self.queue.release(completion.slot);
                return holds;
            }
        }
    }

    /// Whether a read of a block is refused.
    pub(crate) fn is_refused(&mut self, lba: u64) -> bool {
        let slot = self.queue.hold().unwrap();
        self.queue.submit(slot, Operation::Read { lba, blocks: 1 }).unwrap();
        !self.ended().is_success()
    }

    /// Discards ranges: first block, and how many. How that ended.
    pub(crate) fn discard(&mut self, ranges: &[(u64, u32)]) -> Status {
        let slot = self.queue.hold().unwrap();
        let list = self.queue.buffer_mut(slot).chunks_exact_mut(DatasetRange::SIZE);
        for (place, &(lba, blocks)) in list.zip(ranges) {
            DatasetRange { attributes: 0, blocks, lba }.encode_into(place);
        }
        self.queue.submit(slot, Operation::Deallocate { ranges: ranges.len() as u32 }).unwrap();
        self.ended()
    }

    /// Writes blocks full of a byte if they are full of another now: how compare and write ended.
    pub(crate) fn compare_and_write(&mut self, lba: u64, blocks: u32, old: u8, new: u8) -> (Status, Status) {
        let (compare, write) = (self.queue.hold().unwrap(), self.queue.hold().unwrap());
        self.queue.buffer_mut(compare)[..blocks as usize * BLOCK].fill(old);
        self.queue.buffer_mut(write)[..blocks as usize * BLOCK].fill(new);
        self.queue.submit_pair(compare, write, lba, blocks).unwrap();
        (self.ended(), self.ended())
    }

    fn complete(&mut self) {
        assert!(self.ended().is_success());
    }

    /// Waits for the next request that ends: how it did.
    pub(crate) fn ended(&mut self) -> Status {
        loop {
            self.queue.poll(Wait::Sleep(SOON)).unwrap();
            if let Some(completion) = self.queue.completed() {
                self.queue.release(completion.slot);
                return completion.status;
            }
        }
    }
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}
