//! Drives that lie, and an array that keeps checksums: hosts never see it, whatever the level, and it is put right as it is found.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;

use appliance::member::{Load, Member};
use appliance::{BLOCK, Client, Place, Server, with};
use base::ids::ArrayBlock;

const DESTAGE: (&str, &str) = ("destage: {age: 1h, high_watermark: 90%}", "destage: {age: 1ms}");

fn checksummed() -> String {
    with(&[("    level: raid5", "    checksums: on\n    level: raid5"), DESTAGE])
}

fn metric(server: &Server, name: &str) -> u64 {
    let mut stream = TcpStream::connect(server.metrics()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn run(place: &Place, arguments: &[&str]) -> String {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The content of stripes of a member.
fn content(member: &Member, stripes: core::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (stripes.end - stripes.start) as usize * BLOCK];
    let at = (member.superblock.layout.data.start + stripes.start) * BLOCK as u64;
    member.file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn what_drives_give_back_wrong_is_never_seen_and_is_put_right() {
    let place = Place::new("checksums");
    let server = place.serve(&checksummed(), &[]);
    let mut client = Client::connect(&server);
    let load = Load::write(&mut client);
    server.stop();
    let members: Vec<Member> = (0..3).map(|slot| Member::open(&place, slot)).collect();
    assert!(members.iter().all(|member| member.superblock.layout.checksums.is_some()));
    let right: Vec<Vec<u8>> = members.iter().map(|member| content(member, 0..1024)).collect();

    // Bits that rot, under the serving process; one drive here, another there.
    let server = place.serve(&checksummed(), &[]);
    let mut client = Client::connect(&server);
    for (member, stripe) in members.iter().zip([10, 300, 700]) {
        member.spoil(stripe..stripe + 20);
    }
    assert_eq!(load.wrong(&mut client), [0; 0], "hosts never see it");
    let wrong: u64 = place.status().devices.iter().map(|device| device.errors.wrong_blocks).sum();
    // What is parity nobody has read.
    assert!((20..=60).contains(&wrong), "{wrong}");
    assert_eq!(metric(&server, "brindle_device_checksum_errors_total{"), wrong);
    let events = run(&place, &["events", "--json"]);
    assert!(events.contains("\"event\":\"member.wrong\"") && events.contains("as their checksums say"), "{events}");
    server.stop();

    // Writes that never came there, and such as went elsewhere, behind its back.
    let geometry = members[0].geometry();
    let data = |block: u64| {
        let place = geometry.locate(ArrayBlock(block));
        (geometry.member_of(place.stripe, place.column), place.stripe.0)
    };
    let (lost, (astray, from)) = (data(100), data(900));
    let start = |slot: base::ids::Slot| members[slot.index()].superblock.layout.data.start;
    members[lost.0.index()].file.write_all_at(&[0; BLOCK], (start(lost.0) + lost.1) * BLOCK as u64).unwrap();
    let other = content(&members[astray.index()], from + 16..from + 17);
    members[astray.index()].file.write_all_at(&other, (start(astray) + from) * BLOCK as u64).unwrap();
    let server = place.serve(&checksummed(), &[]);
    let mut client = Client::connect(&server);
    assert_eq!(load.wrong(&mut client), [0; 0]);

    // A scrub finds on RAID-5 which block is wrong, parities among them.
    let scrubbed = run(&place, &["array", "scrub", "a0", "start", "--follow"]);
    assert!(scrubbed.lines().last().unwrap_or_default().starts_with("ended, "), "{scrubbed}");
    let counts = place.status().arrays[0].scrub.clone().unwrap().counts;
    assert_eq!((counts.unlocated_stripes, counts.repaired_blocks), (0, counts.located_blocks), "{counts:?}");
    for (member, right) in members.iter().zip(&right) {
        assert!(content(member, 0..1024) == *right, "everything is as it was");
    }

    // Two wrong blocks of one stripe are one too many, and only they are refused.
    let row = lost.1 / 16 * 16;
    members[0].spoil(row..row + 1);
    members[1].spoil(row..row + 1);
    let hit = |lba: &u64| data(*lba).1 == row && data(*lba).0.0 < 2;
    let expected: Vec<u64> = load.blocks().filter(hit).collect();
    let refused: Vec<u64> = load.blocks().filter(|lba| client.is_refused(*lba)).collect();
    assert!(!expected.is_empty() && refused == expected, "{refused:?}");
    server.stop();
}

#[test]
fn a_block_that_got_lost_with_its_checksum_is_put_right_with_it_while_somebody_knows() {
    let place = Place::new("checksums-dropped");
    let server = place.serve(&checksummed(), &[]);
    Client::connect(&server).write(100, 1, 0x11);
    server.stop();
    let members: Vec<Member> = (0..3).map(|slot| Member::open(&place, slot)).collect();
    let found = members[0].geometry().locate(ArrayBlock(100));
    let member = &members[members[0].geometry().member_of(found.stripe, found.column).index()];
    let layout = member.superblock.layout;
    let data = (layout.data.start + found.stripe.0) * BLOCK as u64;
    let region = layout.checksums.unwrap();
    let checksums = (region.start * BLOCK as u64, region.blocks as usize * BLOCK);
    let read = |at: u64, bytes: usize| {
        let mut content = vec![0; bytes];
        member.file.read_exact_at(&mut content, at).unwrap();
        content
    };
    let before = (read(data, BLOCK), read(checksums.0, checksums.1));

    let server = place.serve(&checksummed(), &[]);
    let mut client = Client::connect(&server);
    client.write(100, 1, 0x22);
    let begun = std::time::Instant::now();
    while read(data, BLOCK) == before.0 || read(checksums.0, checksums.1) == before.1 {
        assert!(begun.elapsed() < appliance::SOON, "it does not go to the members");
    }
    // Once the destage is over, as if nothing of it had ever reached the drive.
    while place.status().arrays[0].log.as_ref().unwrap().dirty_bytes > 0 {
        assert!(begun.elapsed() < appliance::SOON, "it is not forgotten");
    }
    member.file.write_all_at(&before.0, data).unwrap();
    member.file.write_all_at(&before.1, checksums.0).unwrap();
    let wrong = || place.status().devices.iter().map(|device| device.errors.wrong_blocks).sum::<u64>();
    assert!(client.holds(100, 0x22));
    assert_eq!(wrong(), 1);
    server.stop();
    let server = place.serve(&checksummed(), &[]);
    assert!(Client::connect(&server).holds(100, 0x22));
    assert_eq!(wrong(), 0, "nothing is wrong any more");
    server.stop();
}

#[test]
fn checksums_stay_true_when_the_process_is_killed_and_members_come_and_go() {
    let place = Place::new("checksums-killed");
    let spare = "  - {name: d3, kind: file, path: data/d3.img, size: 16MiB}\n  - {name: l0,";
    let text = with(&[("  - {name: l0,", spare), ("    level: raid5", "    checksums: on\n    level: raid5"), DESTAGE]);
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::fs::File::create(place.path("data/d3.img")).unwrap().set_len(16 << 20).unwrap();
    let mut server = place.serve(&text, &[]);
    for round in 0..4 {
        let mut client = Client::connect(&server);
        let load = Load::write(&mut client);
        server.kill();
        server = place.serve(&text, &[]);
        let mut client = Client::connect(&server);
        assert_eq!(load.wrong(&mut client), [0; 0]);
        let (from, to) = if round % 2 == 0 { ("d1", "d3") } else { ("d3", "d1") };
        run(&place, &["drive", "fail", from, "--yes"]);
        assert_eq!(load.wrong(&mut client), [0; 0]);
        let words: &[&str] = if round == 0 { &[] } else { &["--force"] };
        run(&place, &[&["drive", "replace", from, to, "--yes"], words].concat());
        let done = run(&place, &["array", "rebuild", "a0", "status", "--follow"]);
        assert!(place.status().arrays[0].missing_members.is_empty(), "{done}");
        assert_eq!(load.wrong(&mut client), [0; 0]);
    }
    let scrubbed = run(&place, &["array", "scrub", "a0", "start", "--follow"]);
    assert!(scrubbed.lines().last().unwrap_or_default().ends_with("nothing wrong"), "{scrubbed}");
    let wrong: u64 = place.status().devices.iter().map(|device| device.errors.wrong_blocks).sum();
    assert_eq!(wrong, 0, "nothing was ever wrong");
    server.stop();
}

#[test]
fn an_array_keeps_what_it_was_made_with_and_checksums_want_a_log() {
    let place = Place::new("checksums-refused");
    let plain = with(&[DESTAGE]);
    place.serve(&plain, &[]).stop();
    let log = place.serve(&checksummed(), &[]).stop();
    assert!(log.contains("the array keeps the checksums that it was made with"), "{log}");
    let bare = with(&[
        ("    log: {devices: [l0, l1], lanes: 1}\n", ""),
        ("    level: raid5", "    checksums: on\n    level: raid5"),
    ]);
    let refused = place.end_of(&bare, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("checksums need a log"), "{said}");
}
