//! An array gets a further member while hosts go on, by the command line.

mod appliance;

use std::time::Instant;

use appliance::{Client, Place, SOON};

const BLOCKS: u64 = 2048;

/// A drive that nothing uses.
fn with_drive() -> String {
    let drives = "  - {name: l0,";
    appliance::with(&[(drives, "  - {name: d3, kind: file, path: data/d3.img, size: 16MiB}\n  - {name: l0,")])
}

/// A place that has the drive: nobody makes one that nothing uses.
fn place_with_drive(name: &str) -> Place {
    let place = Place::new(name);
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::fs::File::create(place.path("data/d3.img")).unwrap().set_len(16 << 20).unwrap();
    place
}

fn run(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn fill(client: &mut Client) {
    for lba in (0..BLOCKS).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 + 1);
    }
}

fn holds(client: &mut Client) {
    for lba in (0..BLOCKS).step_by(16) {
        assert!(client.holds(lba + 5, (lba / 16) as u8 + 1), "block {lba}");
    }
}

fn grown(place: &Place) {
    let begun = Instant::now();
    while let Some(growth) = &place.status().arrays[0].growth {
        assert!(begun.elapsed() < SOON, "it does not end: {growth:?}");
    }
}

fn capacity(place: &Place) -> u64 {
    place.status().arrays[0].capacity_bytes
}

#[test]
fn an_array_gets_a_member_and_space_and_keeps_both() {
    let place = place_with_drive("growth");
    let text = with_drive();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    fill(&mut client);
    let before = capacity(&place);
    assert_eq!(run(&place, &["array", "grow", "a0"]).unwrap(), "the array is not getting a further member\n");

    let unasked = run(&place, &["array", "grow", "a0", "d3"]).unwrap_err();
    assert!(unasked.contains("can not be taken back") && unasked.contains("--yes"), "{unasked}");
    let used = run(&place, &["array", "grow", "a0", "d1", "--yes"]).unwrap_err();
    assert!(used.contains("drive d1 is in use, as a0 member 1"), "{used}");
    assert!(run(&place, &["array", "grow", "a0", "d9", "--yes"]).unwrap_err().contains("d9"));
    let said = run(&place, &["array", "grow", "a0", "d3", "--yes"]).unwrap();
    assert!(said.contains("drive d3 is a member of array a0, and data moves"), "{said}");
    client.write(3, 1, 0xee);
    grown(&place);
    client.write(3, 1, 1);
    holds(&mut client);

    // Three columns now.
    let status = place.status();
    assert_eq!((status.arrays[0].state.as_str(), capacity(&place)), ("optimal", before / 2 * 3));
    let d3 = status.devices.iter().find(|device| device.name == "d3").expect("it is declared");
    assert_eq!((d3.state.as_str(), d3.role.as_str()), ("active", "a0 member 3"));
    // More than was free before.
    run(&place, &["volume", "create", "a0/v1", "--size", "24MiB"]).unwrap();
    let history = run(&place, &["events", "--json"]).unwrap();
    assert!(history.contains("growth.began") && history.contains("growth.ended"), "{history}");
    let again = run(&place, &["array", "grow", "a0", "d3", "--yes"]).unwrap_err();
    assert!(again.contains("in use"), "{again}");
    server.stop();

    // The configuration does not name it among the members yet.
    let server = place.serve(&text, &[]);
    assert_eq!((place.status().arrays[0].state.as_str(), capacity(&place)), ("optimal", before / 2 * 3));
    let mut client = Client::connect(&server);
    holds(&mut client);
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    holds(&mut client);
    server.stop();
    let named = text.replace("members: [d0, d1, d2]", "members: [d0, d1, d2, d3]");
    let server = place.serve(&named, &[]);
    holds(&mut Client::connect(&server));
    server.stop();
}

#[test]
fn a_server_that_is_killed_goes_on_growing_and_an_array_that_cannot_grow_says_so() {
    let place = place_with_drive("growth-killed");
    // So slowly that it is seen.
    let text = with_drive().replace("    volumes:\n", "    rebuild: {rate: 2MiB}\n    volumes:\n");
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    fill(&mut client);
    run(&place, &["array", "grow", "a0", "d3", "--yes"]).unwrap();
    let moved = |place: &Place| place.status().arrays[0].growth.as_ref().map(|growth| growth.done_bytes);
    let begun = Instant::now();
    while moved(&place).is_some_and(|bytes| bytes < 1 << 20) {
        assert!(begun.elapsed() < SOON, "nothing moves");
    }
    let said = run(&place, &["array", "grow", "a0"]).unwrap();
    assert!(said.starts_with("member 3: growing, "), "{said}");
    let status = place.brindle(&["status", "test.yaml"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("Further members"), "{status:?}");
    run(&place, &["array", "rebuild", "a0", "pause"]).unwrap();
    assert!(run(&place, &["array", "grow", "a0"]).unwrap().starts_with("member 3: paused, "));
    server.kill();

    let server = place.serve(&text, &[]);
    let now = moved(&place).expect("it goes on");
    assert!((1 << 20..16 << 20).contains(&now), "{now} bytes were moved");
    let mut client = Client::connect(&server);
    holds(&mut client);
    server.stop();
    let server = place.serve(&text.replace("rate: 2MiB", "rate: 1GiB"), &[]);
    grown(&place);
    holds(&mut Client::connect(&server));
    server.stop();

    let place = place_with_drive("growth-bare");
    let bare = with_drive()
        .replace("    log: {devices: [l0, l1], lanes: 1}\n", "")
        .replace("    destage: {age: 1h, high_watermark: 90%}\n", "");
    let server = place.serve(&bare, &[]);
    let refused = run(&place, &["array", "grow", "a0", "d3", "--yes"]).unwrap_err();
    assert!(refused.contains("the array has no log"), "{refused}");
    server.stop();
}
