//! What an operator does with drives while hosts go on.

mod appliance;

use appliance::{CONFIG, Client, Place};

#[test]
fn a_drive_is_failed_by_its_name_if_the_array_can_do_without_it() {
    let place = Place::new("drives-fail");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    let fail = |name: &str| place.brindle(&["drive", "fail", name, "--config", "test.yaml", "--yes"]);
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let unasked = place.brindle(&["drive", "fail", "d1", "--config", "test.yaml"]);
    assert!(!unasked.status.success() && said(&unasked).contains("--yes"), "{}", said(&unasked));
    assert_eq!(place.status().arrays[0].state, "optimal");
    let unknown = fail("d9");
    assert!(!unknown.status.success() && said(&unknown).contains("there are d0, d1, d2, l0, l1"), "{}", said(&unknown));

    for name in ["d1", "l0"] {
        let output = fail(name);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("drive {name} is used no longer\n"));
    }
    let array = &place.status().arrays[0];
    assert_eq!((array.state.as_str(), &array.missing_members[..]), ("degraded", &[1][..]));
    assert_eq!(array.log.as_ref().unwrap().missing_copies, [0]);
    client.write(8, 16, 0x22);
    assert!(client.holds(7, 0x11) && client.holds(8, 0x22));

    for (name, why) in [("d2", "cannot do without it"), ("l1", "cannot do without it"), ("d1", "not in use")] {
        let output = fail(name);
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
    }
    server.stop();

    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(7, 0x11) && client.holds(8, 0x22) && client.holds(23, 0x22));
    assert_eq!(place.status().arrays[0].missing_members, [1]);
    server.stop();
}

/// Waits until the array is whole again.
fn healed(place: &Place) {
    let begun = std::time::Instant::now();
    while place.status().arrays[0].state != "optimal" {
        assert!(begun.elapsed() < appliance::SOON, "it does not heal: {:?}", place.status().arrays[0]);
    }
}

fn run(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn state_of(place: &Place, drive: &str) -> (String, String) {
    let devices = place.status().devices;
    let found = devices.into_iter().find(|device| device.name == drive).expect("a declared drive");
    (found.state, found.role)
}

/// Two more drives: one is a spare of the array, the other nobody's.
fn with_spares(more: &[(&str, &str)]) -> String {
    let drives = "  - {name: l0,";
    let added = "  - {name: s0, kind: file, path: data/s0.img, size: 16MiB}\n  - {name: s1, kind: file, path: data/s1.img, size: 16MiB}\n  - {name: l0,";
    appliance::with(
        &[&[(drives, added), ("members: [d0, d1, d2]", "members: [d0, d1, d2]\n    spares: [s0]")], more].concat(),
    )
}

#[test]
fn a_spare_takes_over_by_itself_and_then_the_array_bears_the_next_loss() {
    let place = Place::new("drives-spare");
    let text = with_spares(&[]);
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::fs::File::create(place.path("data/s1.img")).unwrap().set_len(16 << 20).unwrap();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..1024).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 + 1);
    }
    assert_eq!(state_of(&place, "s0"), ("spare".into(), "a0 spare".into()));

    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    client.write(40, 1, 0xee);
    healed(&place);
    assert_eq!(state_of(&place, "s0"), ("active".into(), "a0 member 1".into()));
    assert_eq!(state_of(&place, "d1").0, "excluded");

    // The next one goes, with no spare left: another drive is put in its place by name.
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    assert_eq!(place.status().arrays[0].state, "degraded");
    let foreign = run(&place, &["drive", "replace", "d0", "d1", "--yes"]).unwrap_err();
    assert!(foreign.contains("bears a member of array a0") && foreign.contains("--force"), "{foreign}");
    let unasked = run(&place, &["drive", "replace", "d0", "s1"]).unwrap_err();
    assert!(unasked.contains("can never come back") && unasked.contains("--yes"), "{unasked}");
    let said = run(&place, &["drive", "replace", "d0", "s1", "--yes"]).unwrap();
    assert!(said.contains("drive s1 is member 0 now"), "{said}");
    client.write(41, 1, 0xef);
    healed(&place);

    // One that was out comes back only as a new one.
    run(&place, &["drive", "fail", "d2", "--yes"]).unwrap();
    client.write(42, 1, 0xf0);
    assert!(run(&place, &["drive", "replace", "d2", "d2", "--yes"]).unwrap_err().contains("--force"));
    run(&place, &["drive", "replace", "d2", "d2", "--force", "--yes"]).unwrap();
    healed(&place);
    server.stop();

    // Both newcomers are found at the next start, and hold what the others are lost with.
    let server = place.serve(&text, &[]);
    assert_eq!(state_of(&place, "s1"), ("active".into(), "a0 member 0".into()));
    run(&place, &["drive", "fail", "s0", "--yes"]).unwrap();
    let mut client = Client::connect(&server);
    for lba in (0..1024).step_by(16) {
        assert!(client.holds(lba, (lba / 16) as u8 + 1), "block {lba}");
    }
    assert!(client.holds(40, 0xee) && client.holds(41, 0xef) && client.holds(42, 0xf0));
    server.stop();
}

#[test]
fn a_member_in_use_is_succeeded_without_ever_being_missing() {
    let place = Place::new("drives-succeeded");
    let text = with_spares(&[("    spares: [s0]", "    rebuild: {rate: 1MiB, latency: 0s}")]);
    std::fs::create_dir_all(place.path("data")).unwrap();
    for file in ["data/s0.img", "data/s1.img"] {
        std::fs::File::create(place.path(file)).unwrap().set_len(16 << 20).unwrap();
    }
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..2048).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 + 1);
    }
    let unasked = run(&place, &["drive", "replace", "d1", "s0"]).unwrap_err();
    assert!(unasked.contains("becomes the like of d1") && unasked.contains("stays in use meanwhile"), "{unasked}");
    let copy = run(&place, &["drive", "replace", "l0", "s0", "--yes"]).unwrap_err();
    assert!(copy.contains("brindle log replace"), "{copy}");

    // Let go again: the member stays, and the drive is nobody's.
    let said = run(&place, &["drive", "replace", "d1", "s0", "--yes"]).unwrap();
    assert!(said.contains("is becoming the like of d1, member 1"), "{said}");
    assert_eq!(state_of(&place, "s0"), ("joining".into(), "a0 member 1, next".into()));
    let second = run(&place, &["drive", "replace", "d2", "s1", "--yes"]).unwrap_err();
    assert!(second.contains("another drive of the array is being replaced"), "{second}");
    let status = place.status();
    let rebuild = status.arrays[0].rebuild.as_ref().expect("it is being copied");
    assert_eq!((rebuild.member, rebuild.successor.as_deref()), (1, Some("s0")));
    assert_eq!(status.arrays[0].state, "optimal", "nothing is missing meanwhile");
    run(&place, &["drive", "fail", "s0", "--yes"]).unwrap();
    become_of(&place, "s0", "unused");
    assert_eq!(state_of(&place, "d1"), ("active".into(), "a0 member 1".into()));

    // And now to the end, while the host goes on.
    run(&place, &["drive", "replace", "d1", "s0", "--yes"]).unwrap();
    for lba in 100..140 {
        client.write(lba, 1, 0xa5);
    }
    become_of(&place, "s0", "active");
    assert_eq!(state_of(&place, "s0").1, "a0 member 1");
    assert_eq!(state_of(&place, "d1").0, "excluded");
    let told = run(&place, &["events"]).unwrap();
    for event in ["succession.began", "succession.given_up", "succession.ended"] {
        assert!(told.contains(event), "{event}: {told}");
    }
    server.stop();

    // The next start knows whose place it is, and what is there is what was written.
    let server = place.serve(&text, &[]);
    assert_eq!(state_of(&place, "s0"), ("active".into(), "a0 member 1".into()));
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    let mut client = Client::connect(&server);
    for lba in (0..2048).step_by(16).filter(|lba| !(96..144).contains(lba)) {
        assert!(client.holds(lba, (lba / 16) as u8 + 1), "block {lba}");
    }
    assert!((100..140).all(|lba| client.holds(lba, 0xa5)));
    server.stop();
}

/// Waits until a drive is in a state.
fn become_of(place: &Place, drive: &str, state: &str) {
    let begun = std::time::Instant::now();
    while state_of(place, drive).0 != state {
        assert!(begun.elapsed() < appliance::SOON, "{drive} is {:?}", state_of(place, drive));
    }
}

#[test]
fn a_rebuild_goes_on_where_it_was_after_a_death_and_can_be_told_to_wait() {
    let place = Place::new("drives-resume");
    // Slow enough to be caught in the middle.
    let text = with_spares(&[("    destage:", "    rebuild: {rate: 2MiB, latency: 0s}\n    destage:")]);
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::fs::File::create(place.path("data/s1.img")).unwrap().set_len(16 << 20).unwrap();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..2048).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 ^ 0x5a);
    }
    run(&place, &["drive", "fail", "d2", "--yes"]).unwrap();
    let rebuild = || place.status().arrays[0].rebuild.clone();
    let begun = std::time::Instant::now();
    while rebuild().is_none() {
        assert!(begun.elapsed() < appliance::SOON, "no rebuild begins");
    }
    assert_eq!(place.status().arrays[0].state, "degraded", "until it is whole");
    assert!(run(&place, &["array", "rebuild", "a0", "pause"]).unwrap().contains("wait"));
    assert!(rebuild().is_some_and(|rebuild| rebuild.paused && rebuild.bytes > 0));
    server.kill();

    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(17, 1 ^ 0x5a));
    client.write(18, 1, 0xdd);
    healed(&place);
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    for lba in (0..2048).step_by(16) {
        assert!(client.holds(lba, (lba / 16) as u8 ^ 0x5a), "block {lba}");
    }
    assert!(client.holds(18, 0xdd));
    server.stop();
}

#[test]
fn a_drive_that_was_away_gets_its_place_back_with_what_it_holds_also_over_deaths() {
    let place = Place::new("drives-return");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..2048).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 ^ 0x5a);
    }
    let back = |name: &str| run(&place, &["drive", "return", name]);
    assert!(back("d1").unwrap_err().contains("in use, as a0 member 1"));
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    client.write(17, 1, 0xdd);
    server.kill();

    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(18, 1, 0xee);
    assert!(back("d1").unwrap().contains("member 1 again"));
    healed(&place);
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    for lba in (0..2048).step_by(16) {
        assert!(client.holds(lba, (lba / 16) as u8 ^ 0x5a), "block {lba}");
    }
    assert!(client.holds(17, 0xdd) && client.holds(18, 0xee));
    // What was a member and is none any more: its place is another's.
    run(&place, &["drive", "replace", "d0", "d0", "--force", "--yes"]).unwrap();
    healed(&place);
    run(&place, &["drive", "fail", "d2", "--yes"]).unwrap();
    run(&place, &["drive", "wipe", "d2", "--quick", "--yes"]).unwrap();
    let refused = back("d2").unwrap_err();
    assert!(refused.contains("bears nothing"), "{refused}");
    server.stop();
}
