//! Starts and stops as a service manager sees them, and what `status` and the metrics say in between.

mod appliance;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use appliance::{CONFIG, Client, Place, SOON, with};
use base::metrics::FAMILIES;
use loadgen::request::Wait;
use loadgen::workload::{Limit, Pattern, WorkloadOptions, run};
use rustix::process::Signal;

#[test]
fn a_clean_stop_leaves_an_empty_log_and_a_death_is_recovered_from() {
    let place = Place::new("stops-clean");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(5, 8, 0x55);
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("asked to stop signal=\"SIGTERM\"") && log.contains("stopped cleanly"), "{log}");
    assert!(!place.path("run/control.sock").exists());

    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(5, 0x55) && client.holds(12, 0x55) && client.holds(13, 0));
    client.write(6, 1, 0x66);
    let log = server.kill();
    assert!(log.contains("the log was left in good order"), "{log}");

    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(5, 0x55) && client.holds(6, 0x66));
    server.signal(Signal::INT);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("recovered from the log: nothing that was acknowledged is lost"), "{log}");
    assert!(log.contains("dirty_blocks=1 "), "{log}");
}

/// Leaves much in the log: what is written lies in stripes of its own.
fn fill(client: &mut Client) {
    let options = WorkloadOptions {
        pattern: Pattern::RandomWrite,
        request_bytes: 4096,
        depth: 32,
        limit: Limit::Requests(2000),
        warm_up: Duration::ZERO,
        region_blocks: None,
        interval: Duration::ZERO,
        seed: 1,
        wait: Wait::Sleep(SOON),
    };
    run(&mut client.host, &mut client.queue, &client.namespace, &options).unwrap();
}

#[test]
fn a_stop_past_its_deadline_or_asked_for_twice_says_that_it_is_not_clean() {
    let place = Place::new("stops-late");
    let text = with(&[("l0.img, size: 8MiB", "l0.img, size: 64MiB"), ("l1.img, size: 8MiB", "l1.img, size: 64MiB")]);
    let server = place.serve(&text, &["--stop-limit", "1us"]);
    let mut client = Client::connect(&server);
    client.write(0, 1, 0x77);
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().next_back().unwrap();
    assert!(
        last.contains("the stop took longer than 1µs") && last.contains("nothing that was acknowledged is lost"),
        "{log}"
    );

    let mut server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0x77), "the log was left valid");
    fill(&mut client);
    client.write(1, 1, 0x78);
    server.signal(Signal::INT);
    while !server.line().contains("asked to stop") {}
    server.signal(Signal::INT);
    let (code, log) = server.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.lines().next_back().unwrap().contains("asked a second time to stop"), "{log}");
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(1, 0x78));
    drop(client);
    assert!(server.stop().contains("recovered from the log"));
}

#[test]
fn a_log_of_json_is_json_in_every_line_and_so_is_a_refusal() {
    let place = Place::new("stops-json");
    let log = place.serve(CONFIG, &["--log-format", "json"]).stop();
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string() && line["timestamp"].is_string(), "{line}");
    }
    // What the configuration warns of, and what an array was made with otherwise.
    let other = with(&[
        ("count: 1", "count: 1, spin: 1us"),
        ("lanes: 1", "lanes: 2"),
        ("d2.img, size: 16", "d2.img, size: 17"),
    ]);
    let log = place.serve(&other, &["--log-format", "json"]).stop();
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    assert!(
        log.contains("the array keeps the number of lanes that it was made with")
            && log.contains("members of one size"),
        "{log}"
    );
    let output = place.end_of(&with(&[("count: 1", "cores: [4095]")]), &["--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), line["level"].as_str()), (Some(1), Some("ERROR")));
    assert!(line["message"].as_str().unwrap().contains("core 4095"));
}

#[test]
fn status_tells_what_is_missing_and_what_is_excluded() {
    let place = Place::new("stops-status");
    let output = place.brindle(&["status", "--control", "run/control.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("nobody serves at the control socket"));
    let states = |place: &Place| -> Vec<(String, String)> {
        place.status().devices.into_iter().map(|device| (device.role, device.state)).collect()
    };
    let pair = |role: &str, state: &str| (role.to_owned(), state.to_owned());

    let server = place.serve(CONFIG, &[]);
    let active = ["a0 member 0", "a0 member 1", "a0 member 2", "a0 log 0", "a0 log 1"].map(|role| pair(role, "active"));
    assert_eq!(states(&place), active);
    let mut client = Client::connect(&server);
    client.write(0, 4, 1);
    let status = place.status();
    assert!(status.ready && status.connections.len() == 2 && status.reactors[0].connections == 2, "{status:?}");
    let (array, log) = (&status.arrays[0], status.arrays[0].log.as_ref().unwrap());
    assert_eq!((array.state.as_str(), array.epoch, log.dirty_bytes, log.copies), ("optimal", 1, 4 * 4096, 2));
    assert!(log.used_bytes >= 5 * 4096 && log.used_bytes < log.capacity_bytes, "{log:?}");
    server.stop();

    // One of each goes, and comes back as something that is excluded.
    for name in ["d1.img", "l1.img"] {
        fs::rename(place.path("data").join(name), place.path(name)).unwrap();
    }
    let server = place.serve(CONFIG, &[]);
    let mut gone = active.clone();
    gone[1] = pair("a0 member", "missing");
    gone[4] = pair("a0 log", "missing");
    assert_eq!(states(&place), gone);
    let array = &place.status().arrays[0];
    let log = array.log.as_ref().unwrap();
    assert_eq!((array.state.as_str(), &array.missing_members, &log.missing_copies), ("degraded", &vec![1], &vec![1]));
    // Critical warning of the SMART log (02h): reliability is degraded, and nothing is said of temperature and spare.
    let smart = Client::connect(&server).host.log_page(2, 0, 512).unwrap();
    assert_eq!((smart[0], smart[3]), (1 << 2, 100));
    server.stop();
    for name in ["d1.img", "l1.img"] {
        fs::rename(place.path(name), place.path("data").join(name)).unwrap();
    }
    let server = place.serve(CONFIG, &[]);
    let mut back = active;
    back[1] = pair("a0 member", "excluded");
    back[4] = pair("a0 log", "excluded");
    assert_eq!(states(&place), back);
    server.stop();
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    body.to_owned()
}

/// The value of a sample.
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().unwrap()
}

#[test]
fn metrics_are_all_there_from_the_start_and_move_with_the_traffic() {
    let place = Place::new("stops-metrics");
    let server = place.serve(&with(&[("age: 1h", "age: 10ms")]), &[]);
    let text = get(server.metrics(), "/metrics");
    for family in FAMILIES {
        let kind = format!("{:?}", family.kind).to_lowercase();
        assert!(
            text.contains(&format!("# TYPE {} {kind}\n{}", family.name, family.name)),
            "{} is missing",
            family.name
        );
    }
    assert_eq!(sample(&text, "brindle_volume_requests_total{array=\"a0\",volume=\"v0\",op=\"write\"}"), 0.0);
    assert!(get(server.metrics(), "/readyz").contains("ready"));

    let mut client = Client::connect(&server);
    client.write(0, 32, 1);
    client.write(100, 1, 2);
    assert!(client.holds(0, 1));
    // Destaging is done once the counter says so.
    let text = loop {
        let text = get(server.metrics(), "/metrics");
        if sample(&text, "brindle_array_dirty_bytes{array=\"a0\"}") == 0.0
            && sample(&text, "brindle_array_destages_total{array=\"a0\"}") >= 17.0
        {
            break text;
        }
    };
    let volume = |family: &str, op: &str| {
        sample(&text, &format!("brindle_volume_{family}{{array=\"a0\",volume=\"v0\",op=\"{op}\"}}"))
    };
    assert_eq!((volume("requests_total", "write"), volume("requests_total", "read")), (2.0, 1.0));
    assert_eq!((volume("bytes_total", "write"), volume("bytes_total", "read")), (33.0 * 4096.0, 4096.0));
    assert_eq!(volume("request_duration_seconds_count", "write"), 2.0);
    assert_eq!(volume("errors_total", "write"), 0.0);
    for device in ["d0", "d1", "d2", "l0", "l1"] {
        let bytes = format!("brindle_device_bytes_total{{device=\"{device}\",op=\"write\"}}");
        assert!(sample(&text, &bytes) >= 16.0 * 4096.0, "{device}");
    }
    let array = |family: &str, more: &str| sample(&text, &format!("brindle_array_{family}{{array=\"a0\"{more}}}"));
    assert!(array("log_commits_total", "") >= 2.0 && array("log_commit_size_bytes_count", "") >= 2.0);
    assert!(array("stripe_writes_total", ",kind=\"full\"") >= 16.0, "{text}");
    assert!(array("log_used_bytes", "") < array("log_capacity_bytes", ""));
    assert_eq!((array("degraded", ""), array("read_only", ""), array("log_copies_missing", "")), (0.0, 0.0, 0.0));
    assert_eq!(sample(&text, "brindle_connections{reactor=\"0\"}"), 2.0);
    assert!(sample(&text, "brindle_connections_accepted_total{reactor=\"0\"}") >= 2.0);
    assert!(sample(&text, "brindle_reactor_turns_total{reactor=\"0\"}") > 0.0);
    let free = sample(&text, "brindle_buffer_pool_free_bytes{reactor=\"0\"}");
    assert!(free > 0.0 && free < sample(&text, "brindle_buffer_pool_bytes{reactor=\"0\"}"), "{text}");
    server.stop();
}
