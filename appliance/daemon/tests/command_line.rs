//! The commands that need no server, as a user types them: what they print, where, and how they end.

use std::process::{Command, Output};

fn brindle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_brindle")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn example(name: &str) -> String {
    format!("{}/../../config/examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_examples_are_in_order() {
    for name in ["demo.yaml", "bare-metal.yaml"] {
        let output = brindle(&["check", &example(name)]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("is in order"));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn all_errors_are_listed_and_the_exit_code_is_one() {
    let path = std::env::temp_dir().join(format!("brindle-check-{}.yaml", std::process::id()));
    let demo = std::fs::read_to_string(example("demo.yaml")).unwrap();
    std::fs::write(&path, demo.replace("64KiB", "64KB").replace("a0/v0", "a0/v9").replace("spin:", "spun:")).unwrap();
    let output = brindle(&["check", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stderr);
    for words in ["reactors.spun", "arrays[0].chunk", "64KB", "there is no such volume", ": 3 errors"] {
        assert!(shown.contains(words), "{words} is missing:\n{shown}");
    }
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_missing_file_is_one_clear_line() {
    for command in ["check", "status"] {
        let output = brindle(&[command, "/nonexistent/brindle.yaml"]);
        assert_eq!(output.status.code(), Some(1));
        let shown = text(&output.stderr);
        assert!(shown.lines().count() == 1 && shown.contains("/nonexistent/brindle.yaml"), "{shown}");
    }
}

#[test]
fn nobody_to_ask_is_one_clear_line() {
    let output = brindle(&["status", "--control", "/nonexistent/control.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nobody serves at the control socket /nonexistent/control.sock"));
}

#[test]
fn schema_and_version_are_printed() {
    let published = std::fs::read_to_string(example("../brindle.schema.json")).unwrap();
    assert_eq!(text(&brindle(&["schema"]).stdout), published);
    assert_eq!(text(&brindle(&["version"]).stdout), format!("brindle {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_refused_with_the_usage() {
    let output = brindle(&["fly"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Usage"), "{}", text(&output.stderr));
}
