//! A serving process confines itself: all its threads, before hosts come. That nothing it needs is refused is looked at by
//! every test that stops a server.

mod appliance;

use std::fs;
use std::path::PathBuf;

use appliance::{CONFIG, Client, Place, with};

/// The tables of a process' threads (proc_pid_status(5)).
fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap().path());
    let paths: Vec<PathBuf> = tasks.collect();
    // A thread may have ended meanwhile.
    paths.iter().filter_map(|path| fs::read_to_string(path.join("status")).ok()).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

#[test]
fn every_thread_of_a_serving_process_is_confined() {
    let place = Place::new("sandbox-on");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 1, 0x5a);
    assert!(client.holds(0, 0x5a));
    drop(client);
    let output = place.brindle(&["drive", "fail", "d2", "--yes", "--config", "test.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Client::connect(&server).holds(0, 0x5a), "degraded, and still confined");
    let status = place.status();
    let sandbox = &status.sandbox;
    assert!(sandbox.on && sandbox.refused_calls == 0, "{sandbox:?}");
    assert!(sandbox.capabilities.iter().all(|one| ["net_admin", "ipc_lock", "dac_override"].contains(&one.as_str())));
    let threads = threads(status.process);
    assert!(threads.len() > 4, "reactors, helpers, control");
    for thread in &threads {
        assert_eq!(field(thread, "NoNewPrivs:"), "1", "{thread}");
        let left = u64::from_str_radix(field(thread, "CapPrm:"), 16).unwrap();
        assert_eq!(left.count_ones() as usize, sandbox.capabilities.len(), "{thread}");
        // 2: by a filter.
        assert_eq!(field(thread, "Seccomp:"), if sandbox.call_filter { "2" } else { "0" }, "{thread}");
    }
    let shown = String::from_utf8(place.brindle(&["status", "--memory", "test.yaml"]).stdout).unwrap();
    assert!(shown.contains("\nSandbox: on\n"), "{shown}");
    let log = server.stop();
    let said = |words: &str| log.contains(words);
    assert_eq!(sandbox.file_rules == 0, said("this kernel has no Landlock"), "{log}");
    assert_eq!(!sandbox.call_filter, said("this kernel has no seccomp"), "{log}");
    place.serve(CONFIG, &[]).stop();
}

#[test]
fn without_the_sandbox_it_keeps_what_it_had() {
    let place = Place::new("sandbox-off");
    let server = place.serve(&with(&[("name: test\n", "name: test\nsandbox: off\n")]), &[]);
    let status = place.status();
    assert!(!status.sandbox.on);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for thread in threads(status.process) {
        assert_eq!(field(&thread, "CapPrm:"), field(&own, "CapPrm:"));
        assert_eq!(field(&thread, "Seccomp:"), field(&own, "Seccomp:"));
    }
    assert!(server.stop().contains("the sandbox is off"));
}
