//! Drives that are erased, and what is refused.

mod appliance;

use std::fs;
use std::process::Command;

use appliance::{Client, Place, with};

const BYTES: usize = 16 << 20;

fn run(place: &Place, arguments: &[&str]) -> Result<String, String> {
    let output = place.brindle(&[arguments, &["--config", "test.yaml"]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn events(place: &Place, name: &str) -> usize {
    let text = run(place, &["events", "--json", "--limit", "1000"]).unwrap();
    text.lines().filter(|line| line.contains(&format!("\"{name}\""))).count()
}

/// A file system, as far as anybody can tell, and something everywhere.
fn content() -> Vec<u8> {
    let mut content = vec![0xa5; BYTES];
    content[510..512].fill(0);
    content[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
    content
}

fn with_another(kind: &str) -> String {
    with(&[("  - {name: l0,", &format!("  - {{name: x0, {kind}}}\n  - {{name: l0,"))])
}

#[test]
fn what_a_drive_bears_is_shown_and_erased_if_nothing_uses_it() {
    let place = Place::new("wipe");
    fs::create_dir_all(place.path("data")).unwrap();
    fs::write(place.path("data/x0.img"), content()).unwrap();
    let server = place.serve(&with_another("kind: file, path: data/x0.img, size: 16MiB"), &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    let unasked = run(&place, &["drive", "wipe", "x0"]).unwrap_err();
    assert!(unasked.contains("an ext2, ext3 or ext4 file system") && unasked.contains("--yes"), "{unasked}");
    assert!(fs::read(place.path("data/x0.img")).unwrap() == content(), "nothing was done");
    for (name, role) in [("d0", "a0 member 0"), ("l1", "a0 log 1")] {
        let refused = run(&place, &["drive", "wipe", name, "--yes"]).unwrap_err();
        assert!(refused.contains(role) && refused.contains("needed"), "{refused}");
    }
    let unknown = run(&place, &["drive", "wipe", "x9", "--yes"]).unwrap_err();
    assert!(unknown.contains("no drive of the name x9"), "{unknown}");

    let said = run(&place, &["drive", "wipe", "x0", "--quick", "--yes"]).unwrap();
    assert!(said.contains("drive x0 is wiped") && said.contains("not erased"), "{said}");
    let left = fs::read(place.path("data/x0.img")).unwrap();
    let (head, tail) = (256 << 10, BYTES - (512 << 10));
    assert!(left[..head].iter().chain(&left[tail..]).all(|&byte| byte == 0), "what speaks is gone");
    assert!(left[head..tail].iter().all(|&byte| byte == 0xa5), "the rest is as it was");

    let json = run(&place, &["drive", "wipe", "x0", "--secure", "--yes", "--json"]).unwrap();
    let progress: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&progress["state"], &progress["done_bytes"]), (&"done".into(), &BYTES.into()), "{progress}");
    let text = progress["text"].as_str().unwrap();
    assert!(text.contains("not erased securely: only block devices") && text.contains("reads as zeros"), "{text}");
    assert!(fs::read(place.path("data/x0.img")).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!((events(&place, "drive.wiped"), events(&place, "drive.not_wiped")), (2, 0));

    // A member that is out is one of nothing after that, and may have its place again without more ado.
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    assert!(run(&place, &["drive", "replace", "d1", "d1", "--yes"]).unwrap_err().contains("--force"));
    let said = run(&place, &["drive", "wipe", "d1", "--yes"]).unwrap();
    assert!(said.contains("drive d1 is wiped: it reads as zeros"), "{said}");
    assert!(fs::read(place.path("data/d1.img")).unwrap().iter().all(|&byte| byte == 0));
    run(&place, &["drive", "replace", "d1", "d1", "--yes"]).unwrap();
    let begun = std::time::Instant::now();
    while place.status().arrays[0].state != "optimal" {
        assert!(begun.elapsed() < appliance::SOON, "it does not heal");
    }
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    assert!((0..16).all(|lba| client.holds(lba, 0x11)));
    let dark = run(&place, &["drive", "locate", "x0", "on"]).unwrap_err();
    assert!(dark.contains("only block devices are in an enclosure"), "{dark}");
    server.stop();
}

/// A loop device that goes with the test.
struct Loop(String);

impl Loop {
    fn on(path: &std::path::Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(path).output().ok()?;
        let node = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !node.is_empty()).then_some(Self(node))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_says_what_it_can_and_cannot_erase() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: loop devices take root");
        return;
    }
    let place = Place::new("wipe-block");
    fs::create_dir_all(place.path("data")).unwrap();
    fs::write(place.path("backing"), content()).unwrap();
    let Some(device) = Loop::on(&place.path("backing")) else {
        println!("skipped: there is no loop device to be had");
        return;
    };
    let server = place.serve(&with_another(&format!("kind: block, path: {}", device.0)), &[]);
    let said = run(&place, &["drive", "wipe", "x0", "--secure", "--yes"]).unwrap();
    assert!(said.contains("BLKSECDISCARD") && said.contains("Instead it reads as zeros"), "{said}");
    let dark = run(&place, &["drive", "locate", "x0", "on"]).unwrap_err();
    assert!(dark.contains("no hardware behind it"), "{dark}");
    server.stop();
    assert!(fs::read(place.path("backing")).unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn a_declared_block_device_may_appear_later() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: loop devices take root");
        return;
    }
    let place = Place::new("wipe-late");
    fs::create_dir_all(place.path("data")).unwrap();
    fs::write(place.path("backing"), vec![0; BYTES]).unwrap();
    let Some(device) = Loop::on(&place.path("backing")) else {
        println!("skipped: there is no loop device to be had");
        return;
    };
    // A link, as udev makes them, that is not there yet.
    let link = std::path::PathBuf::from(format!("/dev/brindle-test-{}", std::process::id()));
    let server = place.serve(&with_another(&format!("kind: block, path: {}", link.display())), &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x22);
    std::os::unix::fs::symlink(&device.0, &link).unwrap();
    let seen = run(&place, &["drive", "rescan"]);
    fs::remove_file(&link).unwrap();
    let seen = seen.unwrap();
    assert!(seen.contains("drive x0 is there, and bears nothing"), "{seen}");
    run(&place, &["drive", "fail", "d1", "--yes"]).unwrap();
    run(&place, &["drive", "replace", "d1", "x0", "--yes"]).unwrap();
    let begun = std::time::Instant::now();
    while place.status().arrays[0].state != "optimal" {
        assert!(begun.elapsed() < appliance::SOON, "it does not heal");
    }
    run(&place, &["drive", "fail", "d0", "--yes"]).unwrap();
    assert!((0..16).all(|lba| client.holds(lba, 0x22)));
    server.stop();
}
