//! An array without a log, as an operator sees it: made from a configuration that names none, killed, resynced, and refused
//! where it could be wrong.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;

use appliance::{Client, Place, SOON, Server, with};

/// The configuration without a log.
fn config() -> String {
    with(&[
        ("  - {name: l0, kind: file, path: data/l0.img, size: 8MiB}\n", ""),
        ("  - {name: l1, kind: file, path: data/l1.img, size: 8MiB}\n", ""),
        ("    log: {devices: [l0, l1], lanes: 1}\n", ""),
    ])
}

/// The same with drives that forget what was not flushed when the process is killed.
fn forgetful() -> String {
    config().replace("size: 16MiB}", "size: 16MiB, volatile_cache: emulated}")
}

/// The bytes at which the members' data begins.
const DATA_START: usize = 1 << 20;

/// Waits until the array is in a state.
fn becomes(place: &Place, state: &str) {
    let begun = std::time::Instant::now();
    while place.status().arrays[0].state != state {
        assert!(begun.elapsed() < SOON, "it is not {state}: {:?}", place.status().arrays[0]);
    }
}

/// The metrics of the array's zones: dirty, unsynced, whether a resync goes on, and bytes that it has left.
fn zones(server: &Server) -> [u64; 4] {
    let mut stream = TcpStream::connect(server.metrics()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let sample = |name: &str| {
        let name = format!("brindle_{name}{{array=\"a0\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().unwrap()
    };
    ["array_dirty_zones", "array_unsynced_zones", "resync_active", "resync_left_bytes"].map(sample)
}

/// Waits until they are this.
fn zones_become(server: &Server, expected: [u64; 4]) {
    let begun = std::time::Instant::now();
    while zones(server) != expected {
        assert!(begun.elapsed() < SOON, "they are {:?}, not {expected:?}", zones(server));
    }
}

fn events(place: &Place) -> String {
    let output = place.brindle(&["events", "--config", "test.yaml"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn killed_it_keeps_what_was_acknowledged_and_makes_parities_match_again() {
    let place = Place::new("bare-killed");
    let server = place.serve(&forgetful(), &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    client.write(40, 4, 0x44);
    assert!(client.holds(3, 0x11));
    assert_eq!(client.compare_and_write(40, 1, 0x44, 0x45).1, nvme::status::Status::SUCCESS);
    assert_eq!((place.status().arrays[0].state.as_str(), &place.status().arrays[0].log), ("optimal", &None));
    let log = server.kill();
    assert!(log.contains("no write log"), "the operator is warned: {log}");

    // As a crash in the middle of a write would: parity of the first stripe is on the last member.
    appliance::flip(&place.path("data/d2.img"), DATA_START + 5);
    let server = place.serve(&forgetful(), &[]);
    becomes(&place, "optimal");
    let history = events(&place);
    for name in ["array.started", "resync.began", "resync.ended"] {
        assert!(history.contains(name), "{name}: {history}");
    }
    let failed = place.brindle(&["drive", "fail", "d0", "--config", "test.yaml", "--yes"]);
    assert!(failed.status.success(), "{}", String::from_utf8_lossy(&failed.stderr));
    let mut client = Client::connect(&server);
    assert!((0..16).all(|lba| client.holds(lba, 0x11)), "what was lost is put together from parities that match");
    assert!(client.holds(40, 0x45) && client.holds(43, 0x44) && client.holds(44, 0));
    client.write(2, 1, 0x22);
    server.stop();

    // Degraded and stopped cleanly: there is nothing to fear.
    let server = place.serve(&forgetful(), &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(1, 0x11) && client.holds(2, 0x22));
    assert_eq!(place.status().arrays[0].state, "degraded");
    server.stop();
}

#[test]
fn metrics_tell_of_dirty_zones_and_how_far_the_resync_is() {
    let place = Place::new("bare-metrics");
    let server = place.serve(&config(), &[]);
    assert_eq!(zones(&server), [0; 4]);
    Client::connect(&server).write(0, 16, 0x11);
    zones_become(&server, [1, 0, 0, 0]);
    server.kill();

    // So slow that it does not end meanwhile.
    let slow = config().replace("    destage:", "    rebuild: {rate: 64KiB, latency: 0s}\n    destage:");
    let server = place.serve(&slow, &[]);
    zones_become(&server, [1, 1, 1, 4 << 20]);
    // Its bit stays over a clean stop, and the next start goes on with it.
    server.stop();
    let server = place.serve(&config(), &[]);
    becomes(&place, "optimal");
    zones_become(&server, [0; 4]);
    server.stop();
}

#[test]
fn degraded_and_not_stopped_cleanly_it_is_refused_without_the_operators_word() {
    let place = Place::new("bare-dirty");
    let server = place.serve(&config(), &[]);
    let mut client = Client::connect(&server);
    client.write(0, 32, 0x33);
    client.write(32, 32, 0x33);
    server.kill();

    // Another drive in the place of a member.
    let lost = std::fs::read(place.path("data/d1.img")).unwrap();
    std::fs::write(place.path("data/d1.img"), vec![0; 16 << 20]).unwrap();
    let before = std::fs::read(place.path("data/d0.img")).unwrap();
    let output = place.end_of(&config(), &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["has no log", "was not stopped cleanly", "[1]", "1 zones", "--force"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(std::fs::read(place.path("data/d0.img")).unwrap(), before, "it is left as it was");

    let server = place.serve(&config(), &["--force"]);
    let history = events(&place);
    assert!(history.contains("array.forced"), "{history}");
    let mut client = Client::connect(&server);
    assert!((0..64).all(|lba| client.holds(lba, 0x33)), "nothing was being written");
    server.stop();

    // The member that was left out is known, and out.
    std::fs::write(place.path("data/d1.img"), lost).unwrap();
    let server = place.serve(&config(), &[]);
    assert_eq!(place.status().arrays[0].missing_members, [1]);
    server.stop();
}

#[test]
fn it_gets_a_log_while_it_is_served() {
    let place = Place::new("bare-log");
    // A file that nothing uses is not made.
    std::fs::create_dir_all(place.path("data")).unwrap();
    for (drive, size) in [("l0", 160 << 20), ("l1", 8 << 20)] {
        std::fs::File::create(place.path(&format!("data/{drive}.img"))).unwrap().set_len(size).unwrap();
    }
    let text =
        with(&[("    log: {devices: [l0, l1], lanes: 1}\n", ""), ("l0.img, size: 8MiB", "l0.img, size: 160MiB")]);
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    let run = |arguments: &[&str]| {
        let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let small = place.brindle(&["log", "attach", "a0", "l1", "--yes", "--config", "test.yaml"]);
    let small = String::from_utf8_lossy(&small.stderr).into_owned();
    assert!(small.contains("too small for a copy of the log: at least 136314880 bytes"), "{small}");
    run(&["log", "attach", "a0", "l0", "--yes"]);
    run(&["log", "mode", "a0", "write-back"]);
    client.write(8, 8, 0x22);
    server.kill();
    std::fs::rename(place.path("data/d1.img"), place.path("data/away.img")).unwrap();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0x11) && client.holds(8, 0x22));
    let log = place.status().arrays[0].log.clone().expect("it has one");
    assert_eq!((log.copies, log.lanes, log.mode.as_str()), (1, 64, "write-back"));
    server.stop();
}
