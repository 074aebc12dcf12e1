//! A member that hangs: what hosts and operators see of it. The member has an emulated cache, so that helper threads do its
//! reads and flushes and nobody else's; as long as ptrace(2) holds these threads, the member does not answer.
#![allow(unsafe_code, reason = "ptrace(2) has no safe signature; these requests pass no memory")]

mod appliance;

use std::time::Instant;

use appliance::{Client, Place, SOON, Server, with};
use brindle::device_status::DeviceStatus;
use loadgen::io_queue::Operation;

/// Threads that stand still until this is dropped. All calls come from the thread that made it.
struct Stopped(Vec<libc::pid_t>);

impl Stopped {
    fn helpers_of(server: &Server) -> Self {
        let mut stopped = Self(Vec::new());
        for task in std::fs::read_dir(format!("/proc/{}/task", server.process())).unwrap().map(Result::unwrap) {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap();
            if !name.starts_with("device-") {
                continue;
            }
            let thread = task.file_name().to_str().unwrap().parse().unwrap();
            stopped.ask(libc::PTRACE_SEIZE, thread);
            stopped.0.push(thread);
            stopped.ask(libc::PTRACE_INTERRUPT, thread);
            // SAFETY: a null pointer asks for no status.
            let waited = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
            assert_eq!(waited, thread, "it stands still");
        }
        assert!(!stopped.0.is_empty(), "there are helpers");
        stopped
    }

    fn ask(&self, request: libc::c_uint, thread: libc::pid_t) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests take numbers only.
        let answer = unsafe { libc::ptrace(request, thread, none, none) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &thread in &self.0 {
            self.ask(libc::PTRACE_DETACH, thread);
        }
    }
}

/// d1 does nothing without a helper; what hosts write goes to the members at once.
fn config(drives: &str) -> String {
    with(&[
        ("d1.img, size: 16MiB}", "d1.img, size: 16MiB, volatile_cache: emulated}"),
        ("destage: {age: 1h, high_watermark: 90%}", &format!("destage: {{age: 1ms}}\n    drives: {{{drives}}}")),
    ])
}

fn d1(place: &Place) -> DeviceStatus {
    place.status().devices.into_iter().find(|device| device.name == "d1").unwrap()
}

/// Waits until it is so.
fn soon(place: &Place, what: &str, is_so: impl Fn(&DeviceStatus) -> bool) -> DeviceStatus {
    let begun = Instant::now();
    loop {
        let device = d1(place);
        if is_so(&device) {
            return device;
        }
        assert!(begun.elapsed() < SOON, "{what}: {device:?}");
    }
}

/// 48 blocks on all three members, and nothing of them in the log.
fn filled(place: &Place, server: &Server) -> Client {
    let mut client = Client::connect(server);
    for lba in (0..48).step_by(16) {
        client.write(lba, 16, 0x40 + lba as u8);
    }
    let begun = Instant::now();
    while place.status().arrays[0].log.as_ref().unwrap().dirty_bytes > 0 {
        assert!(begun.elapsed() < SOON, "it is not destaged");
    }
    client
}

fn events(place: &Place, name: &str) -> usize {
    let output = place.brindle(&["events", "--json", "--config", "test.yaml", "--limit", "1000"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains(&format!("\"{name}\""))).count()
}

#[test]
fn reads_go_on_without_a_member_that_is_late_and_status_says_so_until_it_answers() {
    let place = Place::new("hangs-late");
    let server = place.serve(&config("read_timeout: 20ms, timeout: 1min"), &[]);
    let mut client = filled(&place, &server);
    let stopped = Stopped::helpers_of(&server);
    for lba in 0..48 {
        assert!(client.holds(lba, 0x40 + (lba / 16 * 16) as u8), "block {lba}");
    }
    let late = soon(&place, "it is late", |device| device.late && device.waits.is_some());
    let waits = late.waits.unwrap();
    assert!(waits.requests >= 1 && waits.given_up >= 1 && late.state == "active", "{late:?}");
    assert_eq!(place.status().arrays[0].late_members, [1]);
    let shown = String::from_utf8(place.brindle(&["status", "test.yaml"]).stdout).unwrap();
    let row = shown.lines().find(|line| line.trim_start().starts_with("d1 ")).unwrap();
    assert!(row.contains("active, late") && row.contains("unanswered for"), "{row}");
    drop(stopped);
    let well = soon(&place, "it answers", |device| !device.late && device.waits.is_none());
    assert_eq!((well.hangs, events(&place, "member.hangs")), (false, 0));
    server.stop();
}

#[test]
fn a_member_that_hangs_is_excluded_and_status_says_what_it_still_owes() {
    let place = Place::new("hangs-out");
    let server = place.serve(&config("read_timeout: 20ms, timeout: 500ms"), &[]);
    let mut client = filled(&place, &server);
    let stopped = Stopped::helpers_of(&server);
    for lba in 0..48 {
        assert!(client.holds(lba, 0x40 + (lba / 16 * 16) as u8), "block {lba}");
    }
    let out = soon(&place, "it is excluded", |device| device.state == "excluded" && device.waits.is_some());
    assert!(out.hangs && out.waits.unwrap().given_up >= 1, "{out:?}");
    assert_eq!((place.status().arrays[0].state.as_str(), events(&place, "member.hangs")), ("degraded", 1));
    client.write(0, 1, 0x77);
    assert!(client.holds(0, 0x77));
    drop(stopped);
    soon(&place, "it owes nothing", |device| !device.hangs && device.waits.is_none());
    server.stop();
}

#[test]
fn a_member_that_cannot_be_missed_is_waited_for_and_status_says_that_it_hangs() {
    let place = Place::new("hangs-needed");
    let server = place.serve(&config("read_timeout: 20ms, timeout: 500ms"), &[]);
    let mut client = filled(&place, &server);
    let failed = place.brindle(&["drive", "fail", "d2", "--config", "test.yaml", "--yes"]);
    assert!(failed.status.success(), "{failed:?}");
    let stopped = Stopped::helpers_of(&server);
    // All columns of a stripe row: one of them lies on d1, or is put together from it.
    let slots: Vec<_> = (0..48).step_by(16).map(|lba| (client.queue.hold().unwrap(), lba)).collect();
    for (slot, lba) in slots {
        client.queue.submit(slot, Operation::Read { lba, blocks: 16 }).unwrap();
    }
    client.queue.poll(loadgen::request::Wait::Spin).unwrap();
    let hanging = soon(&place, "it hangs", |device| device.hangs && device.waits.is_some());
    let waits = hanging.waits.unwrap();
    assert!(hanging.state == "active" && waits.requests >= 1 && waits.given_up == 0, "{hanging:?}");
    assert_eq!((events(&place, "member.hangs"), events(&place, "member.answers_again")), (1, 0));
    drop(stopped);
    for _ in 0..3 {
        assert!(client.ended().is_success());
    }
    soon(&place, "it answers", |device| !device.hangs && device.waits.is_none());
    assert_eq!(events(&place, "member.answers_again"), 1);
    assert!((0..48).all(|lba| client.holds(lba, 0x40 + (lba / 16 * 16) as u8)));
    server.stop();
}
