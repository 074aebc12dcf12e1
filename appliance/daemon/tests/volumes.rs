//! What an operator does with volumes while hosts go on.

mod appliance;

use std::fs;
use std::process::Output;

use appliance::{CONFIG, Client, NQN, Place, SOON, Server, with};
use brindle::status::VolumeStatus;
use loadgen::io_queue::{IoQueue, Operation};
use loadgen::request::Wait;
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// What is dirty goes to the members soon: deleted space is zeroed through the log.
const SOON_DESTAGED: (&str, &str) = ("age: 1h", "age: 10ms");

/// `brindle volume` with these words.
fn volume(place: &Place, words: &[&str]) -> Output {
    place.brindle(&[&["volume"], words, &["--config", "test.yaml"]].concat())
}

fn done(place: &Place, words: &[&str]) -> String {
    let output = volume(place, words);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(place: &Place, words: &[&str]) -> String {
    let output = volume(place, words);
    assert!(!output.status.success(), "{words:?}");
    said(&output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn list(place: &Place) -> (Vec<VolumeStatus>, Value) {
    let text = done(place, &["list", "--json"]);
    let all: Value = serde_json::from_str(&text).unwrap();
    (serde_json::from_value(all["volumes"].clone()).unwrap(), all["arrays"][0].clone())
}

/// Waits until no volume is in a state.
fn await_none(place: &Place, state: &str) {
    let begun = std::time::Instant::now();
    while list(place).0.iter().any(|volume| volume.state == state) {
        assert!(begun.elapsed() < SOON, "still {state}: {:?}", list(place));
    }
}

/// Namespaces that the host is told have changed since it last asked (log page 04h).
fn changed(client: &mut Client) -> Vec<u32> {
    let page = client.host.log_page(4, 0, 64).unwrap();
    page.chunks(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).take_while(|&nsid| nsid != 0).collect()
}

fn queue(client: &mut Client, nsid: u32, id: u16) -> IoQueue {
    let namespace = client.host.namespace(nsid).unwrap();
    client.host.open_queue(id, 8, 128 * 1024, &namespace).unwrap()
}

fn complete(queue: &mut IoQueue) -> bool {
    loop {
        queue.poll(Wait::Sleep(SOON)).unwrap();
        if let Some(completion) = queue.completed() {
            queue.release(completion.slot);
            return completion.status.is_success();
        }
    }
}

fn write(queue: &mut IoQueue, lba: u64, blocks: u32, byte: u8) -> bool {
    let slot = queue.hold().unwrap();
    queue.buffer_mut(slot)[..blocks as usize * 4096].fill(byte);
    queue.submit(slot, Operation::Write { lba, blocks }).unwrap();
    complete(queue)
}

/// The byte that a whole run of blocks is full of.
fn full_of(queue: &mut IoQueue, lba: u64, blocks: u32) -> Option<u8> {
    let slot = queue.hold().unwrap();
    queue.submit(slot, Operation::Read { lba, blocks }).unwrap();
    loop {
        queue.poll(Wait::Sleep(SOON)).unwrap();
        if let Some(completion) = queue.completed() {
            assert!(completion.status.is_success());
            let bytes = &queue.buffer(completion.slot)[..blocks as usize * 4096];
            let same = bytes.iter().all(|&byte| byte == bytes[0]).then_some(bytes[0]);
            queue.release(completion.slot);
            return same;
        }
    }
}

#[test]
fn a_connected_host_sees_volumes_come_grow_and_go_and_restarts_change_nothing() {
    let place = Place::new("volumes-live");
    let text = with(&[SOON_DESTAGED]);
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(changed(&mut client).is_empty());

    let made = done(&place, &["create", "a0/v1", "--size", "4MiB", "--subsystem", NQN]);
    assert!(made.starts_with("volume a0/v1 is there: 4 MiB; hosts of ") && made.contains("as namespace 2"), "{made}");
    assert_eq!((changed(&mut client), client.host.namespaces().unwrap()), (vec![2], vec![1, 2]));
    let mut second = queue(&mut client, 2, 2);
    assert_eq!(full_of(&mut second, 0, 32), Some(0));
    assert!(write(&mut second, 1000, 24, 0x22));

    done(&place, &["grow", "a0/v1", "--size", "6MiB"]);
    assert_eq!((changed(&mut client), client.host.namespace(2).unwrap().blocks), (vec![2], 6 * MIB / 4096));
    let mut second = queue(&mut client, 2, 3);
    assert!(write(&mut second, 1100, 8, 0x33));
    assert_eq!(full_of(&mut second, 1024, 32), Some(0), "what it grew by");
    let uuid = list(&place).0[1].uuid.clone();
    done(&place, &["rename", "a0/v1", "scratch"]);
    assert!(changed(&mut client).is_empty(), "hosts know it by its identities");

    let (volumes, space) = list(&place);
    let volume = &volumes[1];
    assert_eq!((volume.name.as_str(), volume.bytes, volume.nsid, &volume.uuid), ("scratch", 6 * MIB, 2, &uuid));
    assert_eq!((volume.origin.as_str(), volume.state.as_str(), volume.subsystem.as_str()), ("runtime", "ready", NQN));
    assert_eq!(space["free_bytes"].as_u64().unwrap(), space["capacity_bytes"].as_u64().unwrap() - 14 * MIB);
    assert_eq!(place.status().volumes, volumes);
    drop((second, client));
    server.kill();
    after_a_death(&place, &text);
}

/// Everything is as it was; what is deleted then goes at once, and its space comes back as zeros.
fn after_a_death(place: &Place, text: &str) {
    let server = place.serve(text, &[]);
    let mut client = Client::connect(&server);
    assert_eq!(client.host.namespaces().unwrap(), [1, 2]);
    let mut second = queue(&mut client, 2, 2);
    assert_eq!((full_of(&mut second, 1000, 24), full_of(&mut second, 1100, 8)), (Some(0x22), Some(0x33)));

    let why = refused(place, &["delete", "a0/scratch", "--yes"]);
    assert!(why.contains("namespace 2 of") && why.contains("are connected") && why.contains("--force"), "{why}");
    let why = refused(place, &["delete", "a0/v0", "--yes"]);
    assert!(why.contains("the configuration names a0/v0"), "{why}");
    let plan = refused(place, &["delete", "a0/scratch", "--force"]);
    assert!(plan.contains("gone for ever") && plan.contains("connected: nqn.") && plan.contains("say --yes"), "{plan}");

    done(place, &["delete", "a0/scratch", "--force", "--yes"]);
    assert_eq!((changed(&mut client), client.host.namespaces().unwrap()), (vec![2], vec![1]));
    assert!(!write(&mut second, 0, 1, 0x44), "the namespace is gone");
    assert!(client.holds(0, 0), "the other one is not");
    await_none(place, "cleaning");
    let (volumes, space) = list(place);
    assert_eq!((volumes.len(), space["cleaning_bytes"].as_u64()), (1, Some(0)));

    // Its space again, and a name of its own: zeros, whatever was there.
    let made = done(place, &["create", "a0/fresh", "--size", "6MiB", "--subsystem", NQN, "--nsid", "9", "--json"]);
    let made: VolumeStatus = serde_json::from_str(&made).unwrap();
    assert_eq!((made.nsid, made.bytes), (9, 6 * MIB));
    let mut fresh = queue(&mut client, 9, 3);
    assert!((0..6 * MIB / 4096).step_by(32).all(|lba| full_of(&mut fresh, lba, 32) == Some(0)));
    server.stop();

    // The configuration says nothing of it, and leaves it alone.
    let server = place.serve(text, &[]);
    assert_eq!(Client::connect(&server).host.namespaces().unwrap(), [1, 9]);
    let events = place.brindle(&["events", "--json", "--array", "a0", "--config", "test.yaml"]);
    let events = String::from_utf8(events.stdout).unwrap();
    for name in ["created", "grown", "renamed", "deleted", "cleaned"] {
        assert!(events.contains(&format!("\"event\":\"volume.{name}\"")), "{name} is missing:\n{events}");
    }
    server.stop();
}

#[test]
fn a_deleted_volume_that_a_crash_left_dirty_is_zeros_for_the_next() {
    let place = Place::new("volumes-dirty");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    done(&place, &["create", "a0/secret", "--size", "2MiB", "--subsystem", NQN]);
    let mut secret = queue(&mut client, 2, 2);
    assert!((0..512).step_by(32).all(|lba| write(&mut secret, lba, 32, 0x5e)));
    // Nothing is destaged for an hour, so that all of it is in the log alone. Killed at once, it is cleaned after the start.
    done(&place, &["delete", "a0/secret", "--force", "--yes"]);
    server.kill();
    let server = place.serve(CONFIG, &[]);
    await_none(&place, "cleaning");
    let (_, space) = list(&place);
    let free = space["free_bytes"].as_u64().unwrap();
    let made = done(&place, &["create", "a0/all", "--size", &format!("{free}B"), "--subsystem", NQN]);
    assert!(made.contains("as namespace 2"), "{made}");
    let mut client = Client::connect(&server);
    let mut all = queue(&mut client, 2, 2);
    assert!((0..free / 4096).step_by(32).all(|lba| full_of(&mut all, lba, 32) == Some(0)));
    let why = refused(&place, &["create", "a0/more", "--size", "1MiB"]);
    assert!(why.contains("needs 1 MiB more in whole chunks, but the array has 0 KiB free"), "{why}");
    let why = refused(&place, &["create", "a1/more", "--size", "1MiB"]);
    assert!(why.contains("there is no array of the name a1; there are a0"), "{why}");
    let why = refused(&place, &["create", "a0/odd", "--size", "5000B"]);
    assert!(why.contains("whole blocks of 4KiB"), "{why}");
    server.stop();
}

#[test]
fn a_volume_of_sectors_stays_one_and_so_does_its_copy() {
    let place = Place::new("volumes-sectors");
    let server = place.serve(CONFIG, &[]);
    let create = ["create", "a0/small", "--size", "1MiB", "--logical-block", "512B", "--subsystem", NQN];
    done(&place, &create);
    let why = refused(&place, &["create", "a0/odd", "--size", "1MiB", "--logical-block", "1KiB"]);
    assert!(why.contains("512B or 4KiB"), "{why}");
    done(&place, &["copy", "a0/small", "a0/twin", "--subsystem", NQN]);
    server.kill();
    let server = place.serve(CONFIG, &[]);
    let logical = |name: &str| list(&place).0.iter().find(|one| one.name == name).map(|one| one.logical_block_bytes);
    assert_eq!([logical("v0"), logical("small"), logical("twin")], [Some(4096), Some(512), Some(512)]);
    let mut client = Client::connect(&server);
    for nsid in [2, 3] {
        let seen = client.host.namespace(nsid).unwrap();
        assert_eq!((seen.block_bytes, seen.blocks), (512, 2048), "namespace {nsid}");
    }
    server.stop();
}

#[test]
fn a_copy_is_whole_and_one_that_a_crash_cut_is_gone() {
    let place = Place::new("volumes-copy");
    let text = with(&[SOON_DESTAGED]);
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    client.write(3, 20, 0x31);
    client.write(2000, 20, 0x32);
    let output = volume(&place, &["copy", "a0/v0", "a0/twin", "--subsystem", NQN]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("only if nobody writes to it meanwhile"), "{}", said(&output));
    let mut twin = queue(&mut client, 2, 2);
    assert_eq!((full_of(&mut twin, 3, 20), full_of(&mut twin, 2000, 20)), (Some(0x31), Some(0x32)));
    assert_eq!((full_of(&mut twin, 23, 8), full_of(&mut twin, 0, 3)), (Some(0), Some(0)));
    let why = refused(&place, &["copy", "a0/v0", "a0/twin"]);
    assert!(why.contains("already a volume"), "{why}");
    done(&place, &["delete", "a0/twin", "--force", "--yes"]);
    await_none(&place, "cleaning");
    done(&place, &["copy", "a0/v0", "a0/half", "--no-wait"]);
    server.kill();
    let server = place.serve(&text, &[]);
    await_none(&place, "copying");
    await_none(&place, "cleaning");
    // Whole by the time of the crash, or gone; never half.
    let (volumes, _) = list(&place);
    assert!(volumes.iter().all(|volume| volume.state == "ready"), "{volumes:?}");
    server.stop();
}

#[test]
fn what_the_configuration_names_comes_back_empty_if_it_is_deleted() {
    let place = Place::new("volumes-configured");
    let text = with(&[SOON_DESTAGED]);
    let server: Server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x77);
    drop(client);
    assert!(refused(&place, &["rename", "a0/v0", "other"]).contains("the configuration names a0/v0"));
    done(&place, &["delete", "a0/v0", "--force", "--yes"]);
    server.kill();
    assert!(fs::exists(place.path("data/d0.img")).unwrap());
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(0, 0) && client.holds(15, 0));
    server.stop();
}
