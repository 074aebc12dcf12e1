//! Tests each of which is a process: what is looked at cannot be undone, or ends the process. A test program runs itself
//! with the name of a part to play and looks from outside at what becomes of it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// The environment variables that say which part to play, and where.
const PART: &str = "BRINDLE_TEST_PART";
const FOLDER: &str = "BRINDLE_TEST_FOLDER";

/// A case, or a part, by its name.
pub(crate) type Case = (&'static str, fn());

/// The `main` of a test program: `cases` are looked at from outside, `parts` are played in processes of their own.
pub(crate) fn run(cases: &[Case], parts: &[Case]) -> ExitCode {
    if let Ok(part) = std::env::var(PART) {
        let (_, play) = parts.iter().find(|(name, _)| *name == part).expect("a known part");
        play();
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, case) in cases {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            // A failure panics, which ends this program with an exit code that cargo takes for one.
            case();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// Has a part played in a folder of its own, which holds `inside` and `outside/secret`; what it said on standard error.
pub(crate) fn played(part: &str) -> (Output, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("part-{}-{part}", std::process::id()));
    fs::create_dir_all(folder.join("inside")).expect("a folder");
    fs::create_dir_all(folder.join("outside")).expect("a folder");
    fs::write(folder.join("outside/secret"), "precious").expect("a file");
    let program = std::env::current_exe().expect("a program knows its file");
    let output = Command::new(program).env(PART, part).env(FOLDER, &folder).output().expect("a process");
    fs::remove_dir_all(&folder).expect("the folder goes");
    let said = String::from_utf8(output.stderr.clone()).expect("text");
    (output, said)
}

/// The folder of the part that is played.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).expect("a folder"))
}

/// How the mapping of an address may be used, such as `r--p`, by the kernel's table.
pub(crate) fn access_at(address: usize) -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("the kernel's table");
    let of_line = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        range.contains(&address).then(|| rest[..4].to_owned())
    };
    maps.lines().find_map(of_line).unwrap_or_else(|| format!("nothing at {address:#x}"))
}
