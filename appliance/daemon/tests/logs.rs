//! What an operator does with the devices of a log while hosts go on.

mod appliance;

use appliance::{Client, Place};

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

/// Three more drives that nobody names; one is too small.
fn with_more_drives() -> String {
    let drives = "  - {name: l0,";
    let added = "  - {name: n0, kind: file, path: data/n0.img, size: 8MiB}\n  - {name: n1, kind: file, path: data/n1.img, size: 8MiB}\n  - {name: n2, kind: file, path: data/n2.img, size: 1MiB}\n  - {name: l0,";
    appliance::with(&[(drives, added)])
}

#[test]
fn drives_become_copies_of_the_log_and_are_found_after_a_death() {
    let place = Place::new("logs-attach");
    let text = with_more_drives();
    std::fs::create_dir_all(place.path("data")).unwrap();
    for (name, mib) in [("n0", 8), ("n1", 8), ("n2", 1)] {
        std::fs::File::create(place.path(&format!("data/{name}.img"))).unwrap().set_len(mib << 20).unwrap();
    }
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..1024).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 + 1);
    }

    // One copy is lost, and a drive comes in its place while what was written still lies in the log.
    run(&place, &["drive", "fail", "l0", "--yes"]).unwrap();
    assert_eq!(place.status().arrays[0].log.as_ref().unwrap().missing_copies, [0]);
    let unasked = run(&place, &["log", "attach", "a0", "n0"]).unwrap_err();
    assert!(unasked.contains("What the drive holds is overwritten") && unasked.contains("--yes"), "{unasked}");
    let small = run(&place, &["log", "attach", "a0", "n2", "--yes"]).unwrap_err();
    assert!(small.contains("smaller than the log's copies"), "{small}");
    let used = run(&place, &["log", "attach", "a0", "d0", "--yes"]).unwrap_err();
    assert!(used.contains("in use, as a0 member 0"), "{used}");
    let said = run(&place, &["log", "attach", "a0", "n0", "--yes", "--json"]).unwrap();
    assert_eq!(said, "{\"array\":\"a0\",\"done\":true,\"drive\":\"n0\"}\n");
    let array = &place.status().arrays[0];
    assert_eq!((array.state.as_str(), array.log.as_ref().unwrap().copies), ("optimal", 2));
    assert_eq!(state_of(&place, "n0"), ("active".into(), "a0 log 0".into()));
    assert_eq!(state_of(&place, "l0").0, "excluded");
    client.write(40, 1, 0xe1);

    // Another takes the stead of the copy that is left of the first ones.
    let stranger = run(&place, &["log", "replace", "a0", "l0", "n1", "--yes"]).unwrap_err();
    assert!(stranger.contains("l0 is no copy"), "{stranger}");
    run(&place, &["log", "replace", "a0", "l1", "n1", "--yes"]).unwrap();
    assert_eq!(state_of(&place, "n1"), ("active".into(), "a0 log 2".into()));
    let array = &place.status().arrays[0];
    assert_eq!((array.state.as_str(), array.log.as_ref().unwrap().copies), ("optimal", 2));
    client.write(41, 1, 0xe2);
    // A former copy is not overwritten unasked.
    let former = run(&place, &["log", "attach", "a0", "l1", "--yes"]).unwrap_err();
    assert!(former.contains("bears a log copy of array") && former.contains("--force"), "{former}");
    server.kill();

    // Both are found, neither of the first ones is read; either suffices.
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert_eq!(state_of(&place, "n1"), ("active".into(), "a0 log 2".into()));
    assert_eq!(place.status().arrays[0].state, "optimal");
    assert!(client.holds(40, 0xe1) && client.holds(41, 0xe2));
    client.write(42, 1, 0xe3);
    server.kill();
    std::fs::remove_file(place.path("data/n0.img")).unwrap();
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..1024).step_by(16).filter(|lba| *lba != 32) {
        assert!(client.holds(lba, (lba / 16) as u8 + 1), "block {lba}");
    }
    assert!(client.holds(40, 0xe1) && client.holds(41, 0xe2) && client.holds(42, 0xe3));
    let events = run(&place, &["events"]).unwrap();
    assert!(events.contains("log.attached") && events.contains("log.detached"), "{events}");
    server.stop();
}

#[test]
fn a_copy_is_taken_away_and_the_mode_is_changed_and_both_last() {
    let place = Place::new("logs-mode");
    let server = place.serve(appliance::CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    let log = || place.status().arrays[0].log.clone().unwrap();
    assert_eq!((log().mode.as_str(), log().copies, log().dirty_bytes), ("write-back", 2, 16 * 4096));

    let unasked = run(&place, &["log", "detach", "a0", "l0"]).unwrap_err();
    assert!(unasked.contains("2 copies in use") && unasked.contains("--yes"), "{unasked}");
    run(&place, &["log", "detach", "a0", "l0", "--yes"]).unwrap();
    assert_eq!((log().copies, log().missing_copies.len()), (1, 0));
    assert_eq!(place.status().arrays[0].state, "optimal", "nobody misses it");
    let last = run(&place, &["log", "detach", "a0", "l1", "--yes"]).unwrap_err();
    assert!(last.contains("the only copy of the log: attach another one first"), "{last}");
    let again = run(&place, &["log", "detach", "a0", "l0", "--yes"]).unwrap_err();
    assert!(again.contains("not in use"), "{again}");

    // From the answer on, writes are on the members once they are acknowledged, and so is soon what was in the log.
    let said = run(&place, &["log", "mode", "a0", "write-through"]).unwrap();
    assert!(said.contains("once the members have them"), "{said}");
    client.write(16, 16, 0x22);
    let begun = std::time::Instant::now();
    while log().dirty_bytes > 0 {
        assert!(begun.elapsed() < appliance::SOON, "{:?}", log());
    }
    server.kill();
    let server = place.serve(appliance::CONFIG, &[]);
    assert_eq!((log().mode.as_str(), log().copies), ("write-through", 1), "the log itself says so");
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0x11) && client.holds(16, 0x22));
    run(&place, &["log", "mode", "a0", "write-back"]).unwrap();
    client.write(16, 16, 0x33);
    assert_eq!((log().mode.as_str(), log().dirty_bytes), ("write-back", 16 * 4096));
    server.stop();

    // What the configuration names is its own.
    let text = appliance::with(&[("lanes: 1}", "lanes: 1, mode: write-through}")]);
    let server = place.serve(&text, &[]);
    assert_eq!(log().mode, "write-through");
    let refused = run(&place, &["log", "mode", "a0", "write-back"]).unwrap_err();
    assert!(refused.contains("the configuration gives") && refused.contains("--force"), "{refused}");
    run(&place, &["log", "mode", "a0", "write-back", "--force"]).unwrap();
    assert_eq!(log().mode, "write-back");
    let events = run(&place, &["events"]).unwrap();
    assert!(events.contains("log.mode") && events.contains("log.detached"), "{events}");
    server.stop();
}
