//! A confined process, seen from inside: what it took from itself is refused, what it needs is not. It cannot be undone, so
//! each case is a process ([`parts`]).
#![allow(unsafe_code, reason = "forbidden system calls have no safe form")]

mod parts;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use parts::{Case, played};
use runtime::confine::{Access, Confinement, Rule, confine, forbids, refused_calls};
use runtime::{Allocation, DeviceKind, DeviceOpenError, DeviceSpec, OpenDevice, Secret, create_file};

const CASES: &[Case] = &[
    ("what_is_not_listed_is_refused_and_told", what_is_not_listed_is_refused_and_told),
    ("what_only_an_intruder_does_ends_the_process", what_only_an_intruder_does_ends_the_process),
];

const PARTS: &[Case] = &[("holds", holds), ("other-program", other_program), ("other-process", other_process)];

fn main() -> ExitCode {
    parts::run(CASES, PARTS)
}

fn confined() -> (PathBuf, Confinement) {
    let folder = parts::folder();
    let rule = |path: PathBuf, access| Rule { path, access };
    let rules = [
        rule(folder.join("inside"), Access::Files),
        rule("/proc".into(), Access::Read),
        rule(folder.join("not there"), Access::Files),
    ];
    let confinement = confine(&rules, false).expect("confined");
    (folder, confinement)
}

fn what_is_not_listed_is_refused_and_told() {
    let (output, said) = played("holds");
    assert!(output.status.success(), "{said}");
    if !said.contains("kernel has no") {
        let number = libc::SYS_acct;
        assert!(said.contains(&format!("WARN the sandbox refuses system call {number} ")), "{said}");
    }
}

fn what_only_an_intruder_does_ends_the_process() {
    for part in ["other-program", "other-process"] {
        let (output, said) = played(part);
        if said.contains("kernel has no seccomp") {
            continue;
        }
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{part}: {said}");
    }
}

fn other_program() {
    let (_, confinement) = confined();
    confinement.notes.iter().for_each(|note| eprintln!("{note}"));
    let error = Command::new("/bin/true").exec();
    eprintln!("it goes on: {error}");
}

fn other_process() {
    let (_, confinement) = confined();
    confinement.notes.iter().for_each(|note| eprintln!("{note}"));
    // SAFETY: tracing of no process at all: the call fails, or ends this process.
    let _ = unsafe { libc::ptrace(libc::PTRACE_ATTACH, 0, 0, 0) };
}

/// Everything that can be seen from inside.
fn holds() {
    let (folder, confinement) = confined();
    confinement.notes.iter().for_each(|note| eprintln!("{note}"));
    privileges(&confinement);
    if confinement.file_rules.is_some() {
        files(&folder);
    }
    if confinement.call_filter {
        calls();
        // Threads that come later are confined, too.
        std::thread::spawn(calls).join().expect("no panic");
        assert_eq!(refused_calls(), 2);
    }
    needed();
}

fn privileges(confinement: &Confinement) {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel's table");
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    let left = u64::from_str_radix(&field("CapPrm:"), 16).expect("a number");
    assert_eq!(left.count_ones() as usize, confinement.capabilities.len());
    // CAP_DAC_OVERRIDE, CAP_NET_ADMIN and CAP_IPC_LOCK (linux/capability.h).
    assert_eq!(left & !(1 << 1 | 1 << 12 | 1 << 14), 0);
    assert_eq!(field("CapEff:"), field("CapPrm:"));
}

fn files(folder: &Path) {
    let (inside, outside) = (folder.join("inside/d0.img"), folder.join("outside/secret"));
    create_file(&inside, 16, Allocation::Reserved).expect("files are made where drives are");
    fs::rename(&inside, folder.join("inside/d1.img")).expect("and renamed");
    let spec =
        |path: PathBuf| DeviceSpec { name: "d9".into(), kind: DeviceKind::File(path), emulate_volatile_cache: false };
    OpenDevice::open(&spec(folder.join("inside/d1.img"))).expect("a drive is opened later");
    assert_eq!(File::open(&outside).expect_err("outside").kind(), ErrorKind::PermissionDenied);
    assert!(fs::write(folder.join("outside/new"), "").is_err() && fs::remove_file(&outside).is_err());
    assert!(forbids(&outside) && !forbids(&folder.join("inside/d1.img")));
    let refused = OpenDevice::open(&spec(outside)).err().expect("outside");
    assert!(matches!(refused, DeviceOpenError::Sandboxed { .. }), "{refused}");
    assert!(refused.to_string().contains("the sandbox") && refused.to_string().contains("drive_folders"), "{refused}");
    // What others have forbidden is no affair of the sandbox.
    assert!(!forbids(Path::new("/proc/1/mem")));
}

fn calls() {
    // SAFETY: accounting to no file is what there is already; the call fails, or changes nothing.
    let outcome = unsafe { libc::syscall(libc::SYS_acct, std::ptr::null::<libc::c_char>()) };
    assert_eq!((outcome, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
    // SAFETY: no kernel has such a call.
    let outcome = unsafe { libc::syscall(100_000) };
    assert_eq!((outcome, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
}

/// What the appliance does all the time.
fn needed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let peer = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(b"hello").expect("sent");
    });
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("received");
    peer.join().expect("no panic");
    assert_eq!(text, "hello");
    assert!(Secret::from_bytes(&mut [1, 2, 3]).expect("memory for keys").is(&[1, 2, 3]));
}
