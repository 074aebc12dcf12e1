//! Member files that are damaged behind the appliance's back, and what `brindle array scrub` makes of them.

mod appliance;

use appliance::member::{Load, Member};
use appliance::{Client, Place, SOON, with};
use base::ids::{ArrayBlock, Slot};
use brindle::status::ScrubStatus;

/// Stripes of RAID-6 over four drives; what is written goes to the members at once.
fn raid6() -> String {
    let drive = "  - {name: d3, kind: file, path: data/d3.img, size: 16MiB}\n  - {name: l0,";
    with(&[
        ("  - {name: l0,", drive),
        ("level: raid5", "level: raid6"),
        ("[d0, d1, d2]", "[d0, d1, d2, d3]"),
        ("destage: {age: 1h, high_watermark: 90%}", "destage: {age: 1ms}"),
    ])
}

fn raid5() -> String {
    with(&[("destage: {age: 1h, high_watermark: 90%}", "destage: {age: 1ms}")])
}

fn run(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The scrub once it is over.
fn scrubbed(place: &Place, how: &[&str]) -> ScrubStatus {
    let began = run(place, &[&["array", "scrub", "a0", "start"], how].concat()).unwrap();
    assert!(began.contains("is being scrubbed"), "{began}");
    let begun = std::time::Instant::now();
    loop {
        let scrub = place.status().arrays[0].scrub.clone().expect("it was started");
        if scrub.state == "ended" {
            assert_eq!(scrub.done_bytes, scrub.bytes);
            return scrub;
        }
        assert!(begun.elapsed() < SOON, "it does not end: {scrub:?}");
    }
}

#[test]
fn raid6_is_healed_of_what_lies_wrong_on_any_of_its_drives() {
    let place = Place::new("scrub-raid6");
    let server = place.serve(&raid6(), &[]);
    let mut client = Client::connect(&server);
    let load = Load::write(&mut client);
    server.stop();
    let members: Vec<Member> = (0..4).map(|slot| Member::open(&place, slot)).collect();

    let server = place.serve(&raid6(), &[]);
    let mut client = Client::connect(&server);
    assert_eq!(run(&place, &["array", "scrub", "a0", "status"]).unwrap(), "it was never scrubbed\n");
    assert!(run(&place, &["array", "scrub", "a0", "pause"]).unwrap_err().contains("no scrub is under way"));
    // Under the serving process: one drive here, another there.
    for (member, stripe) in members.iter().zip([10, 100, 200, 300]) {
        member.spoil(stripe..stripe + 20);
    }
    assert!(!load.wrong(&mut client).is_empty(), "nobody noticed so far");

    let found = scrubbed(&place, &["--repair", "none"]);
    assert_eq!(
        (found.counts.mismatched_stripes, found.counts.located_blocks, found.counts.repaired_blocks),
        (80, 80, 0),
        "{found:?}"
    );
    let found = scrubbed(&place, &["--repair", "located"]);
    assert_eq!(
        (found.counts.mismatched_stripes, found.counts.located_blocks, found.counts.repaired_blocks),
        (80, 80, 80),
        "{found:?}"
    );
    assert!(load.wrong(&mut client).is_empty(), "every block is right again");
    let found = scrubbed(&place, &[]);
    assert_eq!((found.counts.mismatched_stripes, found.counts.skipped_stripes), (0, 0), "{found:?}");

    let events = run(&place, &["events", "--json"]).unwrap();
    let told = |name: &str| events.lines().filter(|line| line.contains(&format!("\"event\":\"{name}\""))).count();
    assert_eq!((told("scrub.began"), told("scrub.ended")), (3, 3), "{events}");
    assert!(
        told("scrub.mismatch") >= 2 && events.contains("wrong is what member 1 holds; it is put right"),
        "{events}"
    );

    // As good as new: it bears the loss of any two.
    for drive in ["d1", "d3"] {
        run(&place, &["drive", "fail", drive, "--yes"]).unwrap();
    }
    assert!(load.wrong(&mut client).is_empty());
    assert!(run(&place, &["array", "scrub", "a0", "start"]).is_ok());
    let waits = run(&place, &["array", "scrub", "a0", "status"]).unwrap();
    assert!(waits.starts_with("waiting"), "there is nothing to compare with: {waits}");
    server.stop();
}

#[test]
fn raid5_says_what_does_not_agree_and_only_a_word_more_makes_parity_match() {
    let place = Place::new("scrub-raid5");
    let server = place.serve(&raid5(), &[]);
    let mut client = Client::connect(&server);
    let load = Load::write(&mut client);
    server.stop();

    let members: Vec<Member> = (0..3).map(|slot| Member::open(&place, slot)).collect();
    let geometry = members[0].geometry();
    // Parity only: hosts never see it.
    let stripe = geometry.locate(ArrayBlock(500)).stripe;
    let parity = geometry.parity_member(stripe, 0);
    let row = stripe.0 / u64::from(geometry.chunk_blocks()) * u64::from(geometry.chunk_blocks());
    members[parity.index()].spoil(row..row + 5);

    let server = place.serve(&raid5(), &[]);
    let mut client = Client::connect(&server);
    for repair in ["none", "located"] {
        let found = scrubbed(&place, &["--repair", repair]);
        assert_eq!(
            (found.counts.mismatched_stripes, found.counts.unlocated_stripes, found.counts.repaired_blocks),
            (5, 5, 0),
            "{found:?}"
        );
    }
    let events = run(&place, &["events", "--severity", "error"]).unwrap();
    assert!(events.contains("nobody can tell which is wrong") && events.contains("scrub.ended"), "{events}");
    let unasked = run(&place, &["array", "scrub", "a0", "start", "--repair", "parity"]).unwrap_err();
    assert!(unasked.contains("data is trusted") && unasked.contains("--yes"), "{unasked}");
    let found = scrubbed(&place, &["--repair", "parity", "--yes"]);
    assert_eq!(
        (found.counts.unlocated_stripes, found.counts.repaired_blocks, found.counts.unrepaired_blocks),
        (5, 5, 0),
        "{found:?}"
    );
    assert_eq!(scrubbed(&place, &[]).counts.mismatched_stripes, 0);
    let lost = geometry.member_of(stripe, 0);
    run(&place, &["drive", "fail", &format!("d{}", lost.0), "--yes"]).unwrap();
    assert!(load.wrong(&mut client).is_empty(), "and parity is of use again");
    server.stop();
}

#[test]
fn a_scrub_is_paused_and_outlives_the_process_and_is_stopped() {
    let place = Place::new("scrub-resume");
    // Slow enough to be caught in the middle.
    let text = raid5().replace("    volumes:", "    scrub: {rate: 1MiB, latency: 0s, repair: none}\n    volumes:");
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    let load = Load::write(&mut client);
    run(&place, &["array", "scrub", "a0", "start"]).unwrap();
    assert!(run(&place, &["array", "scrub", "a0", "start"]).unwrap_err().contains("is under way: stop it first"));
    assert!(run(&place, &["array", "scrub", "a9", "start"]).unwrap_err().contains("no array of the name a9"));
    assert!(run(&place, &["array", "scrub", "a0", "pause", "--rate", "1MiB"]).unwrap_err().contains("go with start"));
    assert_eq!(run(&place, &["array", "scrub", "a0", "pause"]).unwrap(), "the scrub of array a0 waits\n");
    let scrub = place.status().arrays[0].scrub.clone().unwrap();
    assert_eq!((scrub.state.as_str(), scrub.repair.as_str()), ("paused", "none"));
    assert!(scrub.began > 1_700_000_000 && scrub.done_bytes < scrub.bytes);
    server.kill();

    let server = place.serve(&text, &[]);
    let again = place.status().arrays[0].scrub.clone().unwrap();
    assert_eq!((again.state.as_str(), again.began), ("paused", scrub.began));
    run(&place, &["array", "scrub", "a0", "resume"]).unwrap();
    assert_eq!(place.status().arrays[0].scrub.as_ref().unwrap().state, "running");
    server.kill();

    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert_eq!(place.status().arrays[0].scrub.as_ref().unwrap().state, "running", "it goes on by itself");
    run(&place, &["array", "scrub", "a0", "stop"]).unwrap();
    let json = run(&place, &["array", "scrub", "a0", "status", "--json"]).unwrap();
    assert!(json.contains("\"state\":\"stopped\""), "{json}");
    let rebuild = run(&place, &["array", "rebuild", "a0", "status", "--follow"]).unwrap();
    assert_eq!(rebuild, "no member is being rebuilt\n");
    let followed = run(&place, &["array", "scrub", "a0", "start", "--rate", "1GiB", "--follow"]).unwrap();
    let last = followed.lines().last().unwrap_or_default();
    assert!(last.starts_with("ended, ") && last.ends_with("(100%); repair: none; found: nothing wrong"), "{followed}");
    // Another, at full speed.
    let found = scrubbed(&place, &["--rate", "1GiB"]);
    assert_eq!((found.repair.as_str(), found.counts.mismatched_stripes), ("none", 0));
    assert!(load.wrong(&mut client).is_empty());
    server.stop();
}

#[test]
fn a_drive_that_comes_back_stale_stays_out() {
    let place = Place::new("scrub-stale");
    let server = place.serve(&raid6(), &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    server.stop();
    let away = place.path("data/d2.away");
    std::fs::rename(place.path("data/d2.img"), &away).unwrap();
    // A file of the configuration is made when it is not there: it is not the member, and bears nothing.
    let server = place.serve(&raid6(), &[]);
    let mut client = Client::connect(&server);
    assert_eq!(place.status().arrays[0].missing_members, [2]);
    let load = Load::write(&mut client);
    let found = scrubbed(&place, &[]);
    assert_eq!(
        (found.counts.mismatched_stripes, found.counts.skipped_stripes),
        (0, 0),
        "one parity is left to compare: {found:?}"
    );
    server.stop();

    std::fs::rename(&away, place.path("data/d2.img")).unwrap();
    let server = place.serve(&raid6(), &[]);
    let mut client = Client::connect(&server);
    assert_eq!(place.status().arrays[0].missing_members, [2], "others went on without it");
    assert_eq!(Slot(2), Slot(Member::open(&place, 2).superblock.slot));
    assert!(load.wrong(&mut client).is_empty());
    assert_eq!(scrubbed(&place, &[]).counts.mismatched_stripes, 0);
    server.stop();
}
