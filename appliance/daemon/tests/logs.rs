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
    assert!(small.contains("too small for a copy of the log"), "{small}");
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

#[test]
fn a_log_is_shown_with_what_recovery_did_and_read_offline() {
    let place = Place::new("logs-status");
    let server = place.serve(appliance::CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    client.write(16, 8, 0x22);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = place.brindle(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let of_server = ["log", "status", "a0", "--json", "--config", "test.yaml"];
    let status = json(&of_server);
    assert_eq!((&status["recovery"]["clean"], &status["copies"][1]["drive"]), (&true.into(), &"l1".into()));
    let lane = &status["lanes"][0];
    // Two openings before the two writes: nothing needs those.
    assert_eq!((&lane["records"], &lane["next_sequence"]), (&2.into(), &5.into()));
    server.kill();

    // The same is read from either device, without a server.
    let inspected = ["data/l0.img", "data/l1.img"].map(|path| json(&["log", "inspect", path, "--json"]));
    for said in &inspected {
        assert_eq!(said["generation"], status["generation"]);
        assert_eq!((&said["mode"], &said["joining"]), (&"write-back".into(), &false.into()));
        let read = &said["lanes"][0];
        assert_eq!((&read["head"], &read["next_sequence"]), (&lane["head"], &lane["next_sequence"]));
        assert_eq!((&read["end"], &read["stopped_cleanly"]), (&"whole".into(), &false.into()));
    }
    // One copy loses a record: it is repaired from the other, and that is told.
    let ring = {
        let superblocks = std::fs::read(place.path("data/l0.img")).unwrap();
        let slots = [1, 2].map(|at| base::Block::try_from(&superblocks[at * 4096..(at + 1) * 4096]).unwrap());
        journal::LogSuperblock::newest(&slots[0], &slots[1]).unwrap().0.layout.rings().0
    };
    let file = std::fs::OpenOptions::new().write(true).open(place.path("data/l0.img")).unwrap();
    let tail = lane["tail"].as_u64().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x5a; 4096], (ring + tail) * 4096).unwrap();
    let text = place.brindle(&["log", "inspect", "data/l0.img"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("damaged on this copy: lane 0: record"), "{text}");

    let server = place.serve(appliance::CONFIG, &[]);
    let status = json(&of_server);
    let lane = &status["recovery"]["lanes"][0];
    assert_eq!((&status["recovery"]["clean"], &lane["repaired_records"]), (&false.into(), &1.into()));
    assert_eq!(lane["dirty_blocks"], 24);
    let text = run(&place, &["log", "status", "a0"]).unwrap();
    assert!(text.contains("Recovered at the last start, without loss"), "{text}");
    let events = run(&place, &["events", "--json"]).unwrap();
    assert!(events.contains("\"repaired_records\":1") && events.contains("\"torn_lanes\""), "{events}");
    server.stop();
    let stranger = place.brindle(&["log", "inspect", "data/d0.img"]);
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("there is no log superblock"));
}

/// Spoils blocks of a file.
fn spoil(place: &Place, name: &str, block: u64, count: usize) {
    let file = std::fs::OpenOptions::new().write(true).open(place.path(name)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x5a; count * 4096], block * 4096).unwrap();
}

#[test]
fn a_log_that_is_damaged_everywhere_is_given_up_only_when_it_was_said_what_is_lost() {
    let place = Place::new("logs-discard");
    let server = place.serve(appliance::CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    client.write(32, 16, 0x22);
    client.write(64, 16, 0x33);
    let busy = run(&place, &["log", "discard", "a0", "--yes"]).unwrap_err();
    assert!(busy.contains("in use") || busy.contains("lock"), "{busy}");
    server.kill();
    let whole = run(&place, &["log", "discard", "a0", "--yes"]).unwrap_err();
    assert!(whole.contains("is not damaged: nothing was done"), "{whole}");

    // The second write is lost on both copies: the third says that it was acknowledged.
    let layout = {
        let bytes = std::fs::read(place.path("data/l0.img")).unwrap();
        let slots = [1, 2].map(|at| base::Block::try_from(&bytes[at * 4096..(at + 1) * 4096]).unwrap());
        journal::LogSuperblock::newest(&slots[0], &slots[1]).unwrap().0.layout
    };
    let second = layout.rings().0 + 2 + 17;
    spoil(&place, "data/l0.img", second, 1);
    spoil(&place, "data/l1.img", second, 1);
    // Left over from the death.
    std::fs::remove_file(place.path("run/control.sock")).unwrap();
    let refused = place.refused(appliance::CONFIG, &[]);
    assert!(refused.contains("brindle log discard says what is lost"), "{refused}");
    let before = std::fs::read(place.path("data/l0.img")).unwrap();
    let plan = run(&place, &["log", "discard", "a0"]).unwrap_err();
    for words in ["record 4", "records before 4 are kept", "64 to 79", "brindle array scrub", "--yes"] {
        assert!(plan.contains(words), "{words:?} is missing: {plan}");
    }
    assert!(std::fs::read(place.path("data/l0.img")).unwrap() == before, "nothing was written");
    run(&place, &["log", "discard", "a0", "--yes"]).unwrap();
    let server = place.serve(appliance::CONFIG, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0x11), "what lay before the damage is there");
    let events = run(&place, &["events", "--json", "--limit", "1000"]).unwrap();
    let said = |words: &str| events.lines().filter(|line| line.contains(words)).count();
    assert_eq!((said("\"log.discarded\""), said("log discard a0")), (1, 1), "{events}");
    assert!(client.holds(32, 0) && client.holds(64, 0), "the rest is what it was before");
    client.write(32, 16, 0x44);
    server.kill();

    // Without any anchor the lane begins anew.
    for name in ["data/l0.img", "data/l1.img"] {
        spoil(&place, name, layout.anchors().0, 2);
    }
    let plan = run(&place, &["log", "discard", "a0"]).unwrap_err();
    assert!(plan.contains("nothing of this lane is kept") && plan.contains("32 to 47"), "{plan}");
    run(&place, &["log", "discard", "a0", "--yes"]).unwrap();
    let server = place.serve(appliance::CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x55);
    server.kill();
    let server = place.serve(appliance::CONFIG, &[]);
    assert!(Client::connect(&server).holds(0, 0x55));
    server.stop();
}

#[test]
fn a_log_moves_to_larger_drives_while_hosts_write_and_is_found_there_after_a_death() {
    let place = Place::new("logs-grow");
    let text = with_more_drives()
        .replace("n1.img, size: 8MiB", "n1.img, size: 24MiB")
        .replace("n0.img, size: 8MiB", "n0.img, size: 32MiB");
    std::fs::create_dir_all(place.path("data")).unwrap();
    for (name, mib) in [("n0", 32), ("n1", 24), ("n2", 1)] {
        std::fs::File::create(place.path(&format!("data/{name}.img"))).unwrap().set_len(mib << 20).unwrap();
    }
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    for lba in (0..1024).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 + 1);
    }
    let before = place.status().arrays[0].log.as_ref().unwrap().capacity_bytes;
    let small = run(&place, &["log", "grow", "a0", "n2", "--yes"]).unwrap_err();
    assert!(small.contains("too small for a copy of the log"), "{small}");
    let unasked = run(&place, &["log", "grow", "a0", "n0", "n1"]).unwrap_err();
    assert!(unasked.contains("in 2 copies, moves to n0, n1") && unasked.contains("--yes"), "{unasked}");
    let said = run(&place, &["log", "grow", "a0", "n0", "n1", "--yes", "--json"]).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["done"], &said["drives"]), (&true.into(), &serde_json::json!(["n0", "n1"])));
    client.write(40, 1, 0xe1);
    let array = place.status().arrays.remove(0);
    let log = array.log.unwrap();
    assert!(array.state == "optimal" && log.copies == 2 && log.mode == "write-back", "{}", array.state);
    assert!(log.capacity_bytes > 2 * before && said["capacity_bytes"] == log.capacity_bytes, "{before} {said}");
    assert_eq!((state_of(&place, "n0").0.as_str(), state_of(&place, "n1").0.as_str()), ("active", "active"));
    assert_ne!(state_of(&place, "l0").0, "active");
    let again = run(&place, &["log", "grow", "a0", "l0", "--yes", "--force"]).unwrap_err();
    assert!(again.contains("the log would not become larger"), "{again}");
    server.kill();

    // What was a copy is not believed, though the configuration names it.
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(40, 0xe1) && client.holds(41, 3));
    let log = place.status().arrays.remove(0).log.unwrap();
    assert_eq!((log.copies, log.missing_copies.len()), (2, 0));
    assert!(log.capacity_bytes > 2 * before);
    let events = run(&place, &["events"]).unwrap();
    assert!(events.contains("log.attached") && events.contains("log.detached"), "{events}");
    server.stop();
}
