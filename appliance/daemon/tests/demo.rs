//! `brindle demo` as a user runs it, in a folder of its own: the way to the point where a server is needed. What fails is
//! told in clear words with exit code 1, and nothing of the user's is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A working directory that goes when the test does.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("brindle-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn configured(name: &str, text: &str) -> Self {
        let place = Self::new(name);
        fs::create_dir(place.0.join("brindle-demo")).unwrap();
        fs::write(place.configuration(), text).unwrap();
        place
    }

    fn configuration(&self) -> PathBuf {
        self.0.join("brindle-demo/demo.yaml")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn demo(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brindle"));
    command.arg("demo").args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_file_where_the_folder_belongs_is_left_alone() {
    let place = Place::new("demo-file");
    fs::write(place.0.join("brindle-demo"), "mine").unwrap();
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cannot make the folder brindle-demo: "), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert_eq!(fs::read_to_string(place.0.join("brindle-demo")).unwrap(), "mine");
}

#[test]
fn a_changed_configuration_is_kept_and_its_errors_are_shown() {
    let broken = config::DEMO.replace("64KiB", "64KB");
    let place = Place::configured("demo-broken", &broken);
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("was changed and is kept"));
    assert!(text(&output.stderr).contains("brindle-demo/demo.yaml: 1 error"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(place.configuration()).unwrap(), broken);
    assert_eq!(fs::read_dir(place.0.join("brindle-demo")).unwrap().count(), 1, "nothing was created");
}

#[test]
fn a_configuration_that_cannot_survive_is_refused_before_anything_starts() {
    let memory = "{name: l0, kind: ram, size: 64MiB}";
    let ram = config::DEMO.replace("{name: l0, kind: file, path: brindle-demo/l0.img, size: 64MiB}", memory);
    let place = Place::configured("demo-ram", &ram);
    let output = demo(&place.0, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("device l0 is memory"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(place.0.join("brindle-demo")).unwrap().count(), 1, "nothing was created");
}

#[test]
fn only_the_demos_own_child_becomes_its_server() {
    let place = Place::new("demo-stranger");
    // Process 1 did not start it.
    let output = demo(&place.0, &["--server-of", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the demo that started it is gone"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}
