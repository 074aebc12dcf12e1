//! A stripe that cannot be destaged, as an operator sees it: it is told, shown and counted, costs nobody else anything, and a host
//! that writes what it could not read makes it whole.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use appliance::member::Member;
use appliance::{Client, Place, SOON, Server, with};
use base::ids::ArrayBlock;

/// Blocks of a chunk, and of a row of them: the members are three.
const CHUNK: u64 = 16;

fn metric(server: &Server, name: &str) -> u64 {
    let mut stream = TcpStream::connect(server.metrics()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let name = format!("{name}{{array=\"a0\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{name}\n{text}")).parse().unwrap()
}

/// Waits until so many stripes are blocked, with so many bytes in the log alone, theirs or not.
fn becomes(place: &Place, blocked: u64, dirty_bytes: u64) {
    let begun = Instant::now();
    loop {
        let array = place.status().arrays.remove(0);
        if (array.blocked_stripes, array.log.as_ref().unwrap().dirty_bytes) == (blocked, dirty_bytes) {
            return;
        }
        assert!(begun.elapsed() < SOON, "{array:?}");
    }
}

fn events(place: &Place) -> String {
    let output = place.brindle(&["events", "--json", "--config", "test.yaml"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_stripe_that_cannot_be_destaged_is_told_and_a_host_makes_it_whole() {
    let place = Place::new("blocked");
    let config = with(&[
        ("    level: raid5", "    checksums: on\n    level: raid5"),
        ("destage: {age: 1h, high_watermark: 90%}", "destage: {age: 1ms}"),
    ]);
    let server = place.serve(&config, &[]);
    let mut client = Client::connect(&server);
    client.write(0, CHUNK as u32, 0x11);
    client.write(CHUNK, CHUNK as u32, 0x11);
    becomes(&place, 0, 0);
    // Both columns of the third stripe.
    let members: Vec<Member> = (0..3).map(|slot| Member::open(&place, slot)).collect();
    let geometry = members[0].geometry();
    for block in [2, CHUNK + 2] {
        let at = geometry.locate(ArrayBlock(block));
        assert_eq!(at.stripe.0, 2);
        members[geometry.member_of(at.stripe, at.column).index()].spoil(2..3);
    }
    client.write(2, 1, 0x22);
    becomes(&place, 1, 4096);
    assert_eq!(metric(&server, "brindle_array_blocked_stripes"), 1);
    assert_eq!(metric(&server, "brindle_array_blocked_bytes"), 4096);
    let shown = String::from_utf8(place.brindle(&["status", "test.yaml"]).stdout).unwrap();
    assert!(shown.contains("Stripes that cannot be destaged"), "{shown}");
    assert!(client.holds(2, 0x22) && client.is_refused(CHUNK + 2) && client.holds(3, 0x11));
    client.write(5, 3, 0x33);
    becomes(&place, 1, 4096);
    server.kill();

    let server = place.serve(&config, &[]);
    let mut client = Client::connect(&server);
    becomes(&place, 1, 4096);
    assert!(client.holds(2, 0x22) && client.is_refused(CHUNK + 2) && client.holds(5, 0x33));
    let told = events(&place);
    let blocked: Vec<&str> = told.lines().filter(|line| line.contains("\"event\":\"destage.blocked\"")).collect();
    assert!(blocked.len() == 2 && blocked.iter().all(|line| line.contains("\"stripe\":2")), "one a start: {told}");

    client.write(CHUNK + 2, 1, 0x44);
    becomes(&place, 0, 0);
    let begun = Instant::now();
    while !events(&place).contains("\"event\":\"destage.unblocked\"") {
        assert!(begun.elapsed() < SOON, "{}", events(&place));
    }
    server.stop();
    let server = place.serve(&config, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(2, 0x22) && client.holds(CHUNK + 2, 0x44) && client.holds(CHUNK + 3, 0x11));
    server.stop();
}
