//! Devices that appear and go while an appliance serves, confined as always.

mod appliance;

use std::fs;
use std::time::Instant;

use appliance::{CONFIG, Client, Place, SOON};

const MIB: u64 = 1 << 20;

fn run(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn rescan(place: &Place) -> serde_json::Value {
    serde_json::from_str(&run(place, &["drive", "rescan", "--json"]).unwrap()).unwrap()
}

fn state_of(place: &Place, drive: &str) -> String {
    let found = place.status().devices.into_iter().find(|device| device.name == drive);
    found.expect("a declared drive").state
}

/// The events of a name, as JSON.
fn events(place: &Place, name: &str) -> Vec<serde_json::Value> {
    let text = run(place, &["events", "--json", "--limit", "1000"]).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    all.filter(|event| event["event"] == name).collect()
}

fn soon(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
    }
}

fn blank(place: &Place, name: &str, bytes: u64) {
    fs::File::create(place.path(name)).unwrap().set_len(bytes).unwrap();
}

fn fill(client: &mut Client) {
    for lba in (0..1024).step_by(16) {
        client.write(lba, 16, (lba / 16) as u8 + 1);
    }
}

fn check(client: &mut Client) {
    assert!((0..1024).all(|lba| client.holds(lba, (lba / 16) as u8 + 1)));
}

#[test]
fn what_was_missing_at_the_start_is_opened_when_it_appears_and_takes_its_place() {
    let place = Place::new("rescan-missing");
    let server = place.serve(CONFIG, &[]);
    fill(&mut Client::connect(&server));
    server.stop();
    for name in ["d1", "l1"] {
        fs::rename(place.path(&format!("data/{name}.img")), place.path(&format!("{name}.old"))).unwrap();
    }
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(1500, 1, 0xaa);
    assert_eq!((state_of(&place, "d1"), state_of(&place, "l1")), ("missing".into(), "missing".into()));
    assert!(run(&place, &["drive", "replace", "d1", "d1", "--yes"]).unwrap_err().contains("brindle drive rescan"));

    // Nobody asks for it: it is seen.
    blank(&place, "data/d1.img", 16 * MIB);
    soon("it is seen", || state_of(&place, "d1") != "missing");
    let seen = events(&place, "drive.appeared");
    assert_eq!(
        (seen.len(), &seen[0]["fields"]["drive"], &seen[0]["fields"]["bears"]),
        (1, &"d1".into(), &"nothing".into())
    );
    assert_eq!((state_of(&place, "d1"), place.status().arrays[0].state.as_str()), ("excluded".into(), "degraded"));

    // The old copy of the log comes back, and is known for what it is.
    fs::rename(place.path("l1.old"), place.path("data/l1.img")).unwrap();
    soon("it is seen", || state_of(&place, "l1") != "missing");
    soon("it is told", || events(&place, "drive.appeared").len() == 2);
    assert_eq!(events(&place, "drive.appeared")[1]["fields"]["bears"], "old_log");
    assert_eq!(rescan(&place), serde_json::json!({"appeared": [], "gone": [], "refused": []}));

    run(&place, &["drive", "replace", "d1", "d1", "--yes"]).unwrap();
    let bears = run(&place, &["log", "attach", "a0", "l1", "--yes"]).unwrap_err();
    assert!(bears.contains("--force"), "{bears}");
    run(&place, &["log", "attach", "a0", "l1", "--force", "--yes"]).unwrap();
    soon("it heals", || place.status().arrays[0].state == "optimal");
    check(&mut client);
    server.stop();

    // Both are of use from then on.
    fs::remove_file(place.path("data/d0.img")).unwrap();
    fs::remove_file(place.path("data/l0.img")).unwrap();
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    check(&mut client);
    assert!(client.holds(1500, 0xaa));
    server.stop();
}

#[test]
fn a_drive_that_is_pulled_out_and_another_at_its_path_are_told_apart() {
    let place = Place::new("rescan-other");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    fill(&mut client);
    // While it is used it is told, and stays open: a file can be used without a name.
    fs::rename(place.path("data/d1.img"), place.path("d1.old")).unwrap();
    assert_eq!(rescan(&place)["gone"], serde_json::json!(["d1"]));
    assert_eq!((state_of(&place, "d1"), rescan(&place)["gone"].clone()), ("active".into(), serde_json::json!([])));
    blank(&place, "data/d1.img", 16 * MIB);
    assert_eq!(rescan(&place)["appeared"], serde_json::json!([]), "its place is taken");
    assert_eq!(events(&place, "drive.gone").len(), 1);

    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    client.write(1501, 1, 0xbb);
    soon("the new one has the place", || {
        rescan(&place);
        events(&place, "drive.appeared").len() == 1
    });
    // The old one is closed: it can be opened by others.
    let old = fs::File::open(place.path("d1.old")).unwrap();
    soon("its lock is gone", || rustix::fs::flock(&old, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok());
    drop(old);
    run(&place, &["drive", "replace", "d1", "d1", "--yes"]).unwrap();
    soon("it heals", || place.status().arrays[0].state == "optimal");
    let before = fs::read(place.path("d1.old")).unwrap();

    // The old one in the stead of the new one: it was a member, and is not taken for one.
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    fs::rename(place.path("d1.old"), place.path("data/d1.img")).unwrap();
    soon("the old one is back", || {
        rescan(&place);
        events(&place, "drive.appeared").len() == 2
    });
    let back = &events(&place, "drive.appeared")[1];
    assert!(back["fields"]["bears"] == "old_member" && back["text"].as_str().unwrap().contains("without it"), "{back}");
    assert!(
        run(&place, &["drive", "replace", "d1", "d1", "--yes"]).unwrap_err().contains("bears a member of array a0")
    );
    client.write(1502, 1, 0xcc);
    check(&mut client);
    assert!(fs::read(place.path("data/d1.img")).unwrap() == before, "nothing was written to it");
    run(&place, &["drive", "replace", "d1", "d1", "--force", "--yes"]).unwrap();
    soon("it heals", || place.status().arrays[0].state == "optimal");
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    check(&mut client);
    assert!(client.holds(1501, 0xbb) && client.holds(1502, 0xcc));
    server.stop();
}

#[test]
fn what_cannot_be_opened_is_told_once_with_the_reason_and_opened_when_it_can_be() {
    let place = Place::new("rescan-refused");
    let text = appliance::with(&[(
        "  - {name: l0,",
        "  - {name: x0, kind: file, path: data/x0.img, size: 16MiB}\n  - {name: x1, kind: file, path: data/x1.img, size: 16MiB}\n  - {name: l0,",
    )]);
    let server = place.serve(&text, &[]);
    blank(&place, "data/x0.img", MIB);
    let refused = rescan(&place)["refused"].clone();
    assert!(refused[0]["drive"] == "x0" && refused[0]["why"].as_str().unwrap().contains("being copied"), "{refused}");
    rescan(&place);
    assert_eq!(events(&place, "drive.not_opened").len(), 1, "it is told once");
    foreign(&place, "data/x0.img");
    fs::hard_link(place.path("data/x0.img"), place.path("data/x1.img")).unwrap();
    let seen = rescan(&place);
    assert_eq!(
        (&seen["appeared"][0]["bears"], &seen["appeared"][0]["drive"]),
        (&"foreign".into(), &"x0".into()),
        "{seen}"
    );
    assert!(seen["refused"][0]["why"].as_str().unwrap().contains("the same as drive x0"), "{seen}");
    assert_eq!((state_of(&place, "x0"), state_of(&place, "x1")), ("unused".into(), "missing".into()));
    let words = run(&place, &["drive", "rescan"]).unwrap();
    assert!(words.contains("drive x1 cannot be opened"), "{words}");
    server.stop();
}

/// The array takes what comes to the path of a member that is out.
fn with_auto_replace() -> String {
    appliance::with(&[("    level: raid5", "    drives: {auto_replace: same-slot}\n    level: raid5")])
}

fn is_optimal(place: &Place) -> bool {
    place.status().arrays[0].state == "optimal"
}

/// A file system, as far as anybody can tell.
fn foreign(place: &Place, name: &str) -> Vec<u8> {
    let mut content = vec![0; 16 << 20];
    content[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
    fs::write(place.path(name), &content).unwrap();
    content
}

#[test]
fn where_it_is_allowed_a_new_drive_takes_the_place_of_one_that_is_out_by_itself() {
    let place = Place::new("rescan-auto");
    let server = place.serve(&with_auto_replace(), &[]);
    let mut client = Client::connect(&server);
    fill(&mut client);
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    rescan(&place);
    assert_eq!(events(&place, "drive.takes_place").len(), 0, "it was taken out and did not come");

    // What bears something else is not touched.
    fs::rename(place.path("data/d1.img"), place.path("d1.old")).unwrap();
    let content = foreign(&place, "data/d1.img");
    soon("it is left alone", || {
        rescan(&place);
        events(&place, "drive.left_alone").len() == 1
    });
    client.write(1501, 1, 0xbb);
    assert!(place.status().arrays[0].state == "degraded" && fs::read(place.path("data/d1.img")).unwrap() == content);

    // What bears nothing takes the place, and is told before.
    fs::remove_file(place.path("data/d1.img")).unwrap();
    blank(&place, "data/d1.img", 16 * MIB);
    soon("it heals", || {
        rescan(&place);
        is_optimal(&place)
    });
    let taken = events(&place, "drive.takes_place");
    assert_eq!((taken.len(), &taken[0]["fields"]["drive"], &taken[0]["array"]), (1, &"d1".into(), &"a0".into()));
    assert!(
        events(&place, "member.joined")
            .iter()
            .all(|joined| joined["sequence"].as_u64() > taken[0]["sequence"].as_u64())
    );
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    check(&mut client);
    assert!(client.holds(1501, 0xbb));

    // One that comes and goes does so once.
    fs::rename(place.path("data/d0.img"), place.path("d0.old")).unwrap();
    for round in 0..2 {
        fs::write(place.path("data/d0.img"), vec![0; 16 << 20]).unwrap();
        if round == 0 {
            soon("it heals", || {
                rescan(&place);
                is_optimal(&place)
            });
            run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
            fs::remove_file(place.path("data/d0.img")).unwrap();
        } else {
            soon("it is left alone", || {
                rescan(&place);
                events(&place, "drive.left_alone").len() == 2
            });
        }
    }
    check(&mut client);
    assert_eq!(place.status().arrays[0].state, "degraded");
    server.stop();
}

#[test]
fn an_old_member_that_comes_back_is_rebuilt_by_itself_and_so_is_what_was_put_in_before_the_start() {
    let place = Place::new("rescan-auto-old");
    let server = place.serve(&with_auto_replace(), &[]);
    fill(&mut Client::connect(&server));
    server.stop();
    fs::rename(place.path("data/d1.img"), place.path("d1.old")).unwrap();
    let server = place.serve(&with_auto_replace(), &[]);
    let mut client = Client::connect(&server);
    client.write(3, 1, 0xd1);
    fs::rename(place.path("d1.old"), place.path("data/d1.img")).unwrap();
    soon("it heals", || is_optimal(&place));
    let joined = events(&place, "member.joined");
    // What was written may still be in the log alone.
    let missed = joined.last().unwrap()["fields"]["missed_zones"].as_u64();
    assert!(missed.is_some_and(|zones| zones <= 1), "it had the rest: {joined:?}");
    assert_eq!(events(&place, "drive.comes_back").len(), 1);
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    assert!(client.holds(3, 0xd1) && client.holds(4, 1), "nothing old is read");
    server.stop();

    fs::write(place.path("data/d0.img"), vec![0; 16 << 20]).unwrap();
    let server = place.serve(&with_auto_replace(), &[]);
    let mut client = Client::connect(&server);
    soon("it heals", || is_optimal(&place));
    run(&place, &["drive", "fail", "d2", "--yes"]).unwrap();
    assert!(client.holds(3, 0xd1) && client.holds(4, 1));
    server.stop();
}

#[test]
fn a_spare_that_appears_is_kept_and_used() {
    let place = Place::new("rescan-spare");
    let text = appliance::with(&[
        ("  - {name: l0,", "  - {name: s0, kind: file, path: data/s0.img, size: 16MiB}\n  - {name: l0,"),
        ("members: [d0, d1, d2]", "members: [d0, d1, d2]\n    spares: [s0]"),
    ]);
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    fill(&mut client);
    fs::remove_file(place.path("data/s0.img")).unwrap();
    assert_eq!(rescan(&place)["gone"], serde_json::json!(["s0"]));
    assert_eq!(state_of(&place, "s0"), "missing", "a spare that is gone is none");
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    assert_eq!(place.status().arrays[0].state, "degraded");
    blank(&place, "data/s0.img", 16 * MIB);
    soon("it heals", || is_optimal(&place));
    assert_eq!((events(&place, "drive.kept").len(), state_of(&place, "s0")), (1, "active".into()));
    check(&mut client);
    server.stop();
}
