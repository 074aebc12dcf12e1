//! An array whose last log copy goes while it is served, and which goes on without: told loudly, killed, started again beside the
//! stale log, and refused where it could be wrong.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;

use appliance::{Client, Place, SOON, Server, with};

const LOG: &str = "    log: {devices: [l0, l1], lanes: 1}\n";

/// Drives that forget what was not flushed when the process is killed.
fn config(policy: &str) -> String {
    let log = format!("{LOG}    on_log_loss: {policy}\n");
    with(&[(LOG, &log)]).replace("size: 16MiB}", "size: 16MiB, volatile_cache: emulated}")
}

fn run(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn becomes(place: &Place, state: &str) {
    let begun = std::time::Instant::now();
    while place.status().arrays[0].state != state {
        assert!(begun.elapsed() < SOON, "it is not {state}: {:?}", place.status().arrays[0]);
    }
}

/// Gauges follow within a moment.
fn becomes_exposed(server: &Server, exposed: bool) {
    let begun = std::time::Instant::now();
    while is_exposed(server) != exposed {
        assert!(begun.elapsed() < SOON, "the metrics do not say exposed: {exposed}");
    }
}

fn is_exposed(server: &Server) -> bool {
    let mut stream = TcpStream::connect(server.metrics()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("brindle_array_exposed{array=\"a0\"} "));
    line.expect("it is there").parse::<u64>().unwrap() == 1
}

#[test]
fn writes_go_on_without_the_log_and_the_log_is_not_believed_again() {
    let place = Place::new("exposed");
    let text = config("write-through-exposed");
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    client.write(32, 16, 0x11);
    run(&place, &["drive", "fail", "l0", "--yes"]).unwrap();
    assert!(!is_exposed(&server));
    let unasked = run(&place, &["drive", "fail", "l1"]).unwrap_err();
    assert!(unasked.contains("the last copy of the log of array a0"), "{unasked}");
    run(&place, &["drive", "fail", "l1", "--yes"]).unwrap();
    becomes(&place, "exposed");
    becomes_exposed(&server, true);
    assert!(place.status().arrays[0].log.is_none());
    client.write(0, 8, 0x22);
    assert!(client.holds(0, 0x22) && client.holds(8, 0x11) && client.holds(40, 0x11));
    for refused in [
        &["log", "replace", "a0", "l1", "l0", "--yes", "--force"][..],
        &["log", "mode", "a0", "write-back"],
        &["log", "status", "a0"],
    ] {
        let said = run(&place, refused).unwrap_err();
        assert!(said.contains("has no log"), "{refused:?}: {said}");
    }
    let events = run(&place, &["events"]).unwrap();
    assert!(events.contains("log.lost") && events.contains("array.exposed"), "{events}");
    server.kill();

    // Both former copies hold what was there before.
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(is_exposed(&server));
    assert!(client.holds(0, 0x22) && client.holds(8, 0x11) && client.holds(40, 0x11));
    client.write(8, 8, 0x33);
    let log = server.kill();
    assert!(log.contains("its log was lost and given up"), "{log}");

    // With a member missing as well the write hole is open.
    std::fs::rename(place.path("data/d1.img"), place.path("data/away.img")).unwrap();
    let _ = std::fs::remove_file(place.path("run/control.sock"));
    let refused = place.refused(&text, &[]);
    assert!(refused.contains("has no log") && refused.contains("--force"), "{refused}");
    std::fs::rename(place.path("data/away.img"), place.path("data/d1.img")).unwrap();
    // Whatever the policy is meanwhile.
    let server = place.serve(&config("stop"), &[]);
    let mut client = Client::connect(&server);
    assert!(is_exposed(&server) && client.holds(0, 0x22) && client.holds(8, 0x33));
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    assert_eq!(place.status().arrays[0].state, "degraded, exposed");
    client.write(8, 8, 0x44);
    assert!(client.holds(0, 0x22) && client.holds(8, 0x44) && client.holds(40, 0x11));
    server.stop();
}

#[test]
fn the_last_copy_stays_where_the_array_could_not_go_on_without() {
    let place = Place::new("exposed-not");
    let server = place.serve(&config("read-only"), &[]);
    run(&place, &["drive", "fail", "l0", "--yes"]).unwrap();
    let refused = run(&place, &["drive", "fail", "l1", "--yes"]).unwrap_err();
    assert!(refused.contains("cannot do without it"), "{refused}");
    server.stop();
    let server = place.serve(&config("write-through-exposed"), &[]);
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    let refused = run(&place, &["drive", "fail", "l1", "--yes"]).unwrap_err();
    assert!(refused.contains("cannot do without it"), "while a member is missing: {refused}");
    assert!(!is_exposed(&server));
    server.stop();
}

#[test]
fn an_exposed_array_gets_a_log_again() {
    let place = Place::new("exposed-again");
    let text = config("write-through-exposed");
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    run(&place, &["drive", "fail", "l0", "--yes"]).unwrap();
    run(&place, &["drive", "fail", "l1", "--yes"]).unwrap();
    becomes(&place, "exposed");
    client.write(0, 8, 0x22);
    let unasked = run(&place, &["log", "attach", "a0", "l0"]).unwrap_err();
    assert!(unasked.contains("becomes its first copy: the array has none"), "{unasked}");
    let borne = run(&place, &["log", "attach", "a0", "l0", "--yes"]).unwrap_err();
    assert!(borne.contains("say --force if that is to be overwritten"), "{borne}");
    let said = run(&place, &["log", "attach", "a0", "l0", "--yes", "--force"]).unwrap();
    assert!(said.contains("drive l0 is a copy of the log of array a0"), "{said}");
    becomes_exposed(&server, false);
    assert_eq!(place.status().arrays[0].state, "degraded", "a second copy is missed still");
    client.write(8, 8, 0x33);
    run(&place, &["log", "mode", "a0", "write-back"]).unwrap();
    run(&place, &["log", "attach", "a0", "l1", "--yes", "--force"]).unwrap();
    becomes(&place, "optimal");
    client.write(16, 8, 0x44);
    server.kill();

    // The log closes the write hole again: a crash, and a member that is gone.
    std::fs::rename(place.path("data/d1.img"), place.path("data/away.img")).unwrap();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0x22) && client.holds(8, 0x33) && client.holds(16, 0x44));
    let status = run(&place, &["log", "status", "a0"]).unwrap();
    assert!(status.contains("write-back"), "{status}");
    run(&place, &["log", "detach", "a0", "l1", "--yes"]).unwrap();
    let refused = run(&place, &["log", "detach", "a0", "l0", "--yes"]).unwrap_err();
    assert!(refused.contains("the only copy of the log"), "while a member is missing: {refused}");
    server.stop();
}

#[test]
fn the_last_copy_is_taken_away_and_nobody_misses_it() {
    let place = Place::new("exposed-taken-away");
    let text = config("write-through-exposed");
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    run(&place, &["log", "detach", "a0", "l1", "--yes"]).unwrap();
    run(&place, &["log", "detach", "a0", "l0", "--yes"]).unwrap();
    assert!(!is_exposed(&server), "nobody misses it");
    let array = place.status().arrays.remove(0);
    assert!(array.state == "optimal" && array.log.is_none(), "{array:?}");
    client.write(8, 8, 0x22);
    server.kill();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0x11) && client.holds(8, 0x22) && place.status().arrays[0].log.is_none());
    server.stop();
}
