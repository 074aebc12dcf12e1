//! Everything that `brindle serve` refuses: one clear line that says what, where, why and what to do, exit code 1, nothing
//! created half, nothing changed, and a correct start afterwards works.

mod appliance;

use std::fs;
use std::net::TcpListener;

use appliance::{BLOCK, CONFIG, Client, ONE_COPY, Place, flip, with};

/// All words are in the line.
fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {line}");
    }
}

/// A start after the refusal.
fn works(place: &Place) {
    place.serve(CONFIG, &[]).stop();
}

#[test]
fn a_configuration_with_errors_is_shown_with_all_of_them() {
    let place = Place::new("refuse-yaml");
    let text = with(&[("lanes: 1", "lanes: 1, kind: mirror"), ("a0/v0", "a0/v9"), ("hosts: any", "hosts: many")]);
    let output = place.end_of(&text, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    says(&said, &["test.yaml:15:", "kind", "a0/v9", "there is no such volume", "many", "test.yaml: 3 errors"]);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "nothing but the configuration");
    let output = place.brindle(&["serve", "nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    says(&String::from_utf8(output.stderr).unwrap(), &["cannot read the configuration nowhere.yaml"]);
    works(&place);
}

#[test]
fn a_place_where_no_file_can_be_made_is_named() {
    let place = Place::new("refuse-place");
    // Nobody can make anything there, root neither.
    let said = place.refused(&with(&[("data/d1", "/sys/kernel/d1")]), &[]);
    says(&said, &["device d1", "/sys/kernel/d1.img", "16MiB", "Permission denied", "Change the owner or mode"]);
    let said = place.refused(&with(&[("data/l0", "/proc/there/l0")]), &[]);
    says(&said, &["device l0", "folder /proc/there", "Correct the path"]);
    let said = place.refused(&with(&[("data/d2.img", "/proc/version")]), &[]);
    says(&said, &["device d2", "/proc/version"]);
    let said = place.refused(&with(&[("data/d2.img", "/proc")]), &[]);
    says(&said, &["device d2", "/proc is a folder, not a file"]);
    let said = place.refused(&with(&[("run/control.sock", "/proc/there/control.sock")]), &[]);
    says(&said, &["control socket", "/proc/there"]);
    works(&place);
}

#[test]
fn a_full_file_system_is_named() {
    let place = Place::new("refuse-full");
    let said = place.refused(&with(&[("size: 16MiB", "size: 1024TiB")]), &[]);
    says(&said, &["device d0", "data/d0.img", "1024TiB", "smaller", "Nothing was left behind"]);
    works(&place);
}

#[test]
fn addresses_and_sockets_in_use_are_named() {
    let place = Place::new("refuse-ports");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = place.refused(
        &with(&[(
            "main, protocol: nvme-tcp, address: 127.0.0.1:0",
            &format!("main, protocol: nvme-tcp, address: {address}"),
        )]),
        &[],
    );
    says(&said, &["listener main", &address, "in use", "choose another port"]);
    let said =
        place.refused(&with(&[("metrics: {address: 127.0.0.1:0", &format!("metrics: {{address: {address}"))]), &[]);
    says(&said, &["metrics", &address, "in use"]);
    let said = place.refused(
        &with(&[
            ("nvme-tcp, address: 127.0.0.1:0", "nvme-tcp, address: 192.0.2.1:4420"),
            ("hosts: any", "hosts: [nqn.2026-01.io.brindle:host]"),
        ]),
        &[],
    );
    says(&said, &["listener main", "192.0.2.1:4420", "not an address of this machine"]);
    drop(taken);
    let socket = std::os::unix::net::UnixListener::bind(place.path("here.sock")).unwrap();
    let said = place.refused(&with(&[("run/control.sock", "here.sock")]), &[]);
    says(&said, &["control socket here.sock", "in use", "another brindle"]);
    drop(socket);
    fs::write(place.path("file"), "mine").unwrap();
    let said = place.refused(&with(&[("run/control.sock", "file")]), &[]);
    says(&said, &["control socket file", "something else of this name"]);
    works(&place);
}

#[test]
fn drives_that_are_served_are_not_served_twice() {
    let place = Place::new("refuse-twice");
    let server = place.serve(CONFIG, &[]);
    let output = place.end_of(&with(&[("run/control.sock", "run/other.sock")]), &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    says(&said, &["device d0", "data/d0.img", "locked by process", "(brindle)", "Stop that process first"]);
    let output = place.end_of(CONFIG, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(Client::connect(&server).holds(0, 0), "the first goes on");
    server.stop();
    works(&place);
}

#[test]
fn what_the_machine_does_not_have_is_refused_before_anything_is_made() {
    let place = Place::new("refuse-machine");
    let said = place.refused(&with(&[("count: 1", "cores: [4095]")]), &[]);
    says(&said, &["core 4095", "Choose from these"]);
    let said = place.refused(
        &with(&[
            ("count: 1", "count: 64"),
            ("lanes: 1", "lanes: 64"),
            ("l0.img, size: 8MiB", "l0.img, size: 256MiB"),
            ("l1.img, size: 8MiB", "l1.img, size: 256MiB"),
        ]),
        &[],
    );
    says(&said, &["64 reactors", "Ask for fewer"]);
    // More than any machine has.
    let huge = with(&[("memory: 64MiB", "memory: 512TiB")]);
    says(&place.refused(&huge, &[]), &["reactors.memory", "536870912 MiB", "available", "Ask for less"]);
    let pages = with(&[("memory: 64MiB", "memory: 512TiB, hugepages: require")]);
    says(&place.refused(&pages, &[]), &["reactors.hugepages", "`require`", "Raise vm.nr_hugepages"]);
    works(&place);
    // An array that is there is left as it is, too.
    place.serve(CONFIG, &[]).kill();
    place.refused(&huge, &[]);
    works(&place);
}

#[test]
fn too_little_memory_is_told_with_what_would_do() {
    let place = Place::new("refuse-memory");
    let mut text = CONFIG.to_owned();
    for array in 1..8 {
        for device in ["d0", "d1", "d2"] {
            let line = format!("  - {{name: e{array}{device}, kind: ram, size: 16MiB}}\narrays:");
            text = text.replacen("arrays:", &line, 1);
        }
        let log = format!("  - {{name: e{array}l, kind: ram, size: 8MiB}}\narrays:");
        text = text.replacen("arrays:", &log, 1);
        let declared = format!(
            "  - name: e{array}\n    level: raid5\n    members: [e{array}d0, e{array}d1, e{array}d2]\n    \
             log: {{devices: [e{array}l], lanes: 1}}\n    volumes:\n      - {{name: v0, size: 8MiB}}\nlisteners:"
        );
        text = text.replacen("listeners:", &declared, 1);
    }
    let said = place.refused(&text, &[]);
    says(&said, &["reactors.memory", "64 MiB", "8 array(s)", "need at least"]);
    let output = place.brindle(&["check", "test.yaml"]);
    assert_eq!(output.status.code(), Some(1), "check knows it, too");
    let need = said.split("need at least ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    place.serve(&text.replace("64MiB", &format!("{need}MiB")), &[]).stop();
}

#[test]
fn a_log_device_that_is_too_small_is_refused() {
    let place = Place::new("refuse-log");
    let output = place.end_of(&with(&[("l1.img, size: 8MiB", "l1.img, size: 2MiB")]), &[]);
    assert_eq!(output.status.code(), Some(1));
    says(
        &String::from_utf8(output.stderr).unwrap(),
        &["log.devices[1]", "only 2MiB", "expected a log device of at least"],
    );
    // A file that is there and smaller than the configuration says.
    fs::write(place.path("small.img"), vec![0; 1 << 20]).unwrap();
    let said = place.refused(&with(&[("data/l1.img", "small.img")]), &[]);
    says(&said, &["array a0", "log device has 256 blocks", "at least"]);
    fs::write(place.path("small.img"), vec![0; 1 << 20]).unwrap();
    let said = place.refused(&with(&[("data/d1.img", "small.img")]), &[]);
    says(&said, &["array a0", "device d1"]);
    works(&place);
}

#[test]
fn a_device_that_bears_something_is_not_written_to() {
    let place = Place::new("refuse-bears");
    // The superblock of ext4 lies at 1024, its magic number 56 bytes on.
    let mut image = vec![0; 16 << 20];
    image[1024 + 56..1024 + 58].copy_from_slice(&0xef53_u16.to_le_bytes());
    fs::write(place.path("ext4.img"), &image).unwrap();
    let text = with(&[("data/d1.img", "ext4.img")]);
    let said = place.refused(&text, &[]);
    says(&said, &["array a0", "device d1", "ext", "Nothing was written", "--force"]);
    place.serve(&text, &["--force"]).stop();
    assert_ne!(fs::read(place.path("ext4.img")).unwrap(), image, "as asked");
}

#[test]
fn a_member_of_another_array_is_not_taken() {
    let place = Place::new("refuse-foreign");
    works(&place);
    let other = |text: String| text.replace("a0", "b0");
    // A new array over a member of an old one.
    let text = other(with(&[("data/d0", "new/d0"), ("data/d2", "new/d2"), ("data/l", "new/l")]));
    says(&place.refused(&text, &[]), &["array b0", "device d1", "a member of array a0", "--force"]);
    // A new array over a log of an old one.
    let text = other(with(&[("data/d", "new/d"), ("data/l0", "new/l0")]));
    says(&place.refused(&text, &[]), &["array b0", "device l1", "log copy of array"]);
    // An array that exists, with a member of another instead of its own.
    let second = other(with(&[("data/", "second/")]));
    place.serve(&second, &[]).stop();
    let text = with(&[("data/d2", "second/d2")]);
    says(&place.refused(&text, &[]), &["array a0", "device d2", "a member of array b0", "Correct the configuration"]);
    let text = with(&[("data/l0", "second/l0")]);
    says(&place.refused(&text, &[]), &["array a0", "device l0", "log copy of another array"]);
    // Two arrays of one name.
    let third = with(&[("data/", "third/")]);
    place.serve(&third, &[]).stop();
    says(&place.refused(&with(&[("data/d2", "third/d2")]), &[]), &["two arrays of that name", "device d2"]);
    works(&place);
    place.serve(&second, &[]).stop();
}

#[test]
fn one_device_under_two_names_is_refused() {
    let place = Place::new("refuse-same");
    works(&place);
    std::os::unix::fs::symlink("d0.img", place.path("data/link.img")).unwrap();
    let said = place.refused(&with(&[("data/d2", "data/link")]), &[]);
    says(&said, &["devices d0 and d2", "one and the same", "data/link.img"]);
    works(&place);
}

#[test]
fn an_array_that_lacks_too_much_says_what_to_attach() {
    let place = Place::new("refuse-missing");
    works(&place);
    let away = |name: &str| fs::rename(place.path("data").join(name), place.path(name)).unwrap();
    let back = |name: &str| fs::rename(place.path(name), place.path("data").join(name)).unwrap();
    away("l0.img");
    away("l1.img");
    let said = place.refused(CONFIG, &[]);
    says(&said, &["array a0", "no usable copy of its log", "Attach log copy 0", "or log copy 1", "l0, l1"]);
    back("l0.img");
    back("l1.img");
    away("d0.img");
    away("d1.img");
    says(&place.refused(CONFIG, &[]), &["array a0", "1 of 3 members", "Attach more members", "d0, d1"]);
    away("d2.img");
    says(&place.refused(CONFIG, &[]), &["array a0", "device l0", "a log copy", "correct its members' paths"]);
    for name in ["d0.img", "d1.img", "d2.img"] {
        back(name);
    }
    works(&place);
}

/// Serves, writes 64 blocks one by one, dies. Where the first of them lies in a log copy.
fn die_with_a_log(place: &Place, text: &str) -> usize {
    let server = place.serve(text, &[]);
    let mut client = Client::connect(&server);
    for lba in 0..64 {
        client.write(lba, 1, 0x60 + lba as u8);
    }
    server.kill();
    let log = fs::read(place.path("data/l0.img")).unwrap();
    let block = log.chunks(BLOCK).position(|block| block.iter().all(|&byte| byte == 0x60));
    block.expect("the log holds what was written") * BLOCK
}

#[test]
fn a_damaged_log_is_refused_with_what_is_lost() {
    let place = Place::new("refuse-damage");
    let text = with(&ONE_COPY);
    let at = die_with_a_log(&place, &text);
    flip(&place.path("data/l0.img"), at + 100);
    let members =
        || ["d0", "d1", "d2"].map(|name| fs::read(place.path("data").join(name).with_extension("img")).unwrap());
    let before = members();
    let output = place.end_of(&text, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    says(&said, &["array a0", "the log is damaged", "lane 0", "acknowledged records", "are lost"]);
    assert!(before == members(), "no member was written to");
    // The byte was right once.
    flip(&place.path("data/l0.img"), at + 100);
    let server = place.serve(&text, &[]);
    let mut client = Client::connect(&server);
    assert!((0..64).all(|lba| client.holds(lba, 0x60 + lba as u8)));
    server.stop();
}

#[test]
fn damage_to_one_of_two_log_copies_is_healed() {
    let place = Place::new("refuse-heal");
    let at = die_with_a_log(&place, CONFIG);
    flip(&place.path("data/l0.img"), at + 100);
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    assert!((0..64).all(|lba| client.holds(lba, 0x60 + lba as u8)));
    drop(client);
    let log = server.stop();
    says(&log, &["recovered from the log", "repaired_records=1"]);
    let copies = ["l0", "l1"].map(|name| fs::read(place.path("data").join(name).with_extension("img")).unwrap());
    assert!(copies[0][at..at + BLOCK] == copies[1][at..at + BLOCK], "the copy was healed");
}

#[test]
fn a_first_start_that_was_cut_is_begun_again() {
    let place = Place::new("refuse-cut");
    fs::create_dir(place.path("data")).unwrap();
    // Some files are there and blank, one was being made.
    fs::write(place.path("data/d0.img"), vec![0; 16 << 20]).unwrap();
    fs::write(place.path("data/d1.img.unfinished"), "").unwrap();
    place.serve(CONFIG, &[]).stop();
    assert!(!place.path("data/d1.img.unfinished").exists());
    // A member that goes later is not made anew.
    fs::remove_file(place.path("data/d2.img")).unwrap();
    place.serve(CONFIG, &[]).stop();
    assert!(!place.path("data/d2.img").exists());
}
