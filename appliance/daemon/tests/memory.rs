//! Sealed memory of a serving process, seen from outside: what it lists is what the kernel's table of its mappings says.

mod appliance;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use appliance::{CONFIG, Client, Place, Server, with};
use brindle::status::Status;

/// How each page of a range may be used, by the kernel's table.
fn access(process: u32, start: u64, bytes: u64) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let of_page = |page: u64| {
        let mut lines = maps.lines().filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let range = u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?;
            range.contains(&page).then(|| rest[..4].to_owned())
        });
        lines.next().unwrap_or_default()
    };
    (start..start + bytes).step_by(4096).map(of_page).collect()
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn names(status: &Status) -> Vec<&str> {
    let mut names: Vec<_> = status.memory.regions.iter().map(|region| region.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// Starts, and does some I/O.
fn served(place: &Place, text: &str, options: &[&str]) -> Server {
    let server = place.serve(text, options);
    let mut client = Client::connect(&server);
    client.write(0, 1, 0x5a);
    assert!(client.holds(0, 0x5a));
    server
}

#[test]
fn every_sealed_region_is_read_only_while_serving() {
    let place = Place::new("memory-kill");
    let server = served(&place, CONFIG, &[]);
    let status = place.status();
    assert_eq!((status.memory.policy.as_str(), status.memory.unsealed, status.memory.violations), ("kill", 0, 0));
    let of_program = ["program code", "program constants", "program tables"];
    let (mine, own): (Vec<_>, Vec<_>) = names(&status).into_iter().partition(|name| of_program.contains(name));
    assert_eq!(own, ["array map", "configuration", "exports", "metric names", "statics", "volume map"]);
    assert!(of_program.iter().all(|name| mine.contains(name)), "{mine:?}");
    for region in &status.memory.regions {
        assert!(["read-only", "final"].contains(&region.protection.as_str()), "{region:?}");
        let expected = if region.name == "program code" { "r-xp" } else { "r--p" };
        assert!(access(status.process, region.start, region.bytes).iter().all(|page| page == expected), "{region:?}");
    }
    let text = String::from_utf8(place.brindle(&["status", "--memory", "test.yaml"]).stdout).unwrap();
    assert!(text.starts_with("Sealed memory: kill") && text.contains("volume map"), "{text}");
    let told = place.brindle(&["status", "--memory", "--json", "test.yaml"]).stdout;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["memory"], serde_json::to_value(&status.memory).unwrap());
    let metrics = scrape(server.metrics());
    let bytes = format!("\nbrindle_sealed_memory_bytes {}\n", status.memory.sealed_bytes);
    let regions = format!("\nbrindle_sealed_regions {}\n", status.memory.regions.len());
    for line in [bytes.as_str(), regions.as_str(), "\nbrindle_sealed_violations_total 0\n"] {
        assert!(metrics.contains(line), "{line:?} is missing: {metrics}");
    }
    server.stop();
}

#[test]
fn a_new_map_of_an_array_is_sealed_and_the_old_one_goes() {
    let place = Place::new("memory-swap");
    let server = served(&place, CONFIG, &[]);
    let before = place.status();
    let output = place.brindle(&["drive", "fail", "l1", "--yes", "--config", "test.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Client::connect(&server).holds(0, 0x5a));
    let after = place.status();
    let map = |status: &Status| {
        let mut maps = status.memory.regions.iter().filter(|region| region.name == "array map");
        (maps.next_back().cloned().unwrap(), maps.count())
    };
    let (new, others) = map(&after);
    assert!(after.memory.seals > before.memory.seals && new.start != map(&before).0.start);
    assert!(access(after.process, new.start, new.bytes).iter().all(|page| page == "r--p"));
    // The status itself holds the map that it was made with.
    assert!(others <= 1, "{after:?}");
    server.stop();
}

#[test]
fn the_policy_is_configured_and_the_command_line_has_the_last_word() {
    let place = Place::new("memory-policy");
    let warn = with(&[("name: test\n", "name: test\nsealed: warn\n")]);
    let log = {
        let server = served(&place, &warn, &[]);
        let status = place.status();
        assert_eq!(status.memory.policy, "warn");
        assert!(status.memory.regions.iter().all(|region| region.protection == "read-only"), "no mseal under warn");
        server.stop()
    };
    assert!(log.contains("stray writes are only told"), "{log}");
    let server = served(&place, &warn, &["--sealed", "off"]);
    let status = place.status();
    assert_eq!((status.memory.policy.as_str(), status.memory.sealed_bytes), ("off", 0));
    for region in &status.memory.regions {
        assert!(access(status.process, region.start, region.bytes).iter().all(|page| page == "rw-p"), "{region:?}");
    }
    assert!(server.stop().contains("sealed memory is off"));
}
