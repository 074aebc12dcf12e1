//! What the tests share: programs made of a closure, and folders that go away.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::time::Time;
use ports::{Program, Turn};
use runtime::{DeviceKind, DeviceSpec, ReactorPorts};

/// Messages of the tests.
pub(crate) type Message = u64;

/// The ports of the tests.
pub(crate) type TestPorts = ReactorPorts<Message>;

/// A program that is a function of its ports.
pub(crate) struct Act<F>(pub(crate) F);

impl<F: FnMut(&mut TestPorts) -> Turn> Program<TestPorts> for Act<F> {
    fn turn(&mut self, ports: &mut TestPorts) -> Turn {
        (self.0)(ports)
    }
}

/// A program of any kind.
pub(crate) type AnyAct = Act<Box<dyn FnMut(&mut TestPorts) -> Turn + Send>>;

/// Boxes a program.
pub(crate) fn act(program: impl FnMut(&mut TestPorts) -> Turn + Send + 'static) -> AnyAct {
    Act(Box::new(program))
}

/// A turn without a deadline.
pub(crate) fn turn(worked: bool, ended: bool) -> Turn {
    Turn { worked, deadline: Time::NEVER, ended }
}

/// A folder that goes away.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new folder beside the test binary, so that it lies on a disk's file system and not in memory.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("runtime-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file device.
pub(crate) fn file(path: PathBuf, emulated: bool) -> DeviceSpec {
    DeviceSpec { name: "test".to_owned(), kind: DeviceKind::File(path), emulate_volatile_cache: emulated }
}

/// A memory device.
pub(crate) fn ram(blocks: u64) -> DeviceSpec {
    DeviceSpec { name: "memory".to_owned(), kind: DeviceKind::Ram(blocks), emulate_volatile_cache: false }
}

/// Waits for something that happens on another thread.
pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "{what} happens within half a minute");
        std::thread::yield_now();
    }
}

/// A number of cores, repeating none; on a small machine as many as there are.
pub(crate) fn cores(wanted: usize) -> Vec<usize> {
    let available = runtime::available_cores().expect("a machine has cores");
    runtime::choose_cores(wanted.min(available.len())).expect("no more than there are")
}

/// A shared counter.
pub(crate) fn counter() -> Arc<AtomicU64> {
    Arc::default()
}
