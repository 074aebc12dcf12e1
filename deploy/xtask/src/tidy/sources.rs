//! What every source file keeps to: a front comment, a length that can be read in one sitting, no unsafe code but where
//! it is announced, nothing unfinished, no test that sleeps or is skipped. Plain text search: it parses no Rust.

use super::layers::Layers;
use super::tree::Files;

/// A file holds one idea; beyond this many lines it holds two.
const LINES_MAX: usize = 600;

/// Files that are longer for a reason, with the length that they may not outgrow. Only ever made shorter.
const LONG_FILES: &[(&str, usize)] = &[];

/// Marks of unfinished work. Put together here, so that this file does not find itself.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];

/// How unsafe code begins, likewise.
const UNSAFE_FORMS: &[&str] = &[
    concat!("uns", "afe {"),
    concat!("uns", "afe fn"),
    concat!("uns", "afe impl"),
    concat!("uns", "afe trait"),
    concat!("uns", "afe extern"),
    concat!("uns", "afe("),
];

/// The kernel of `parity` is vectors: its front page denies instead of forbidding, and allows the one file.
const DENIES: &[&str] = &["appliance/parity"];

/// Checks all Rust sources, and unfinished marks in every text.
pub(super) fn check(files: &Files, layers: &Layers, unsafe_files: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    for one in layers.crates() {
        findings.extend(check_front_page(files, &one.folder));
    }
    for (path, text) in files.texts() {
        findings.extend(check_unfinished(path, text));
        if path.ends_with(".rs") {
            findings.extend(check_front_comment(path, text));
            findings.extend(check_length(path, text));
            findings.extend(check_tests(path, text));
            if !unsafe_files.iter().any(|allowed| allowed == path) {
                findings.extend(check_unsafe(path, text));
            }
        }
    }
    for path in unsafe_files {
        match files.text(path) {
            None => findings.push(format!("ARCHITECTURE.md: {path} may hold unsafe code but is not there")),
            Some(text) if check_unsafe(path, text).is_none() => {
                findings.push(format!("ARCHITECTURE.md: {path} may hold unsafe code but has none"));
            }
            Some(_) => {}
        }
    }
    findings
}

/// A crate has a front page, and one that decides forbids unsafe code there.
fn check_front_page(files: &Files, folder: &str) -> Option<String> {
    let pages = ["lib.rs", "main.rs"].map(|name| format!("{folder}/src/{name}"));
    let Some((page, text)) = pages.iter().find_map(|page| Some((page, files.text(page)?))) else {
        return Some(format!("{folder}: neither src/lib.rs nor src/main.rs"));
    };
    let decides = folder.starts_with("appliance/") && folder != "appliance/daemon";
    let wanted = if DENIES.contains(&folder) {
        concat!("#![deny(uns", "afe_code)]")
    } else {
        concat!("#![forbid(uns", "afe_code)]")
    };
    (decides && !text.contains(wanted)).then(|| format!("{page}: decides, and lacks {wanted}"))
}

fn check_front_comment(path: &str, text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let says_something = first.starts_with("//! ") && first.len() > 20 && !first.contains("Placeholder");
    (!says_something).then(|| format!("{path}:1: no front comment that says what the file is"))
}

fn check_length(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let limit = LONG_FILES.iter().find(|(long, _)| *long == path).map_or(LINES_MAX, |(_, limit)| *limit);
    (lines > limit).then(|| format!("{path}: {lines} lines, more than {limit}: is it one idea?"))
}

fn check_unfinished(path: &str, text: &str) -> Vec<String> {
    numbered(text)
        .filter_map(|(number, line)| {
            let mark = UNFINISHED.iter().find(|mark| line.contains(**mark))?;
            Some(format!("{path}:{number}: {}", mark.trim_end_matches("!(")))
        })
        .collect()
}

fn check_unsafe(path: &str, text: &str) -> Option<String> {
    let lines: Vec<usize> = numbered(text)
        .filter(|(_, line)| !line.trim_start().starts_with("//") && holds_unsafe(line))
        .map(|(number, _)| number)
        .collect();
    let first = lines.first()?;
    Some(format!("{path}:{first}: unsafe code outside the files of ARCHITECTURE.md, {} lines in all", lines.len()))
}

/// Whether unsafe code begins in the line, and not merely a name that ends alike.
fn holds_unsafe(line: &str) -> bool {
    UNSAFE_FORMS.iter().any(|form| {
        line.match_indices(form).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
        })
    })
}

/// Tests are run, all of them, and wait for nothing but what they wait for.
fn check_tests(path: &str, text: &str) -> Vec<String> {
    let skipped = concat!("#[ign", "ore");
    let sleeps = concat!("::sl", "eep(");
    let mut in_tests = path.contains("/tests/") || path.ends_with("/tests.rs");
    let mut findings = Vec::new();
    for (number, line) in numbered(text) {
        in_tests |= line.trim() == "#[cfg(test)]";
        if line.trim_start().starts_with(skipped) {
            findings.push(format!("{path}:{number}: a test that is skipped"));
        }
        if in_tests && line.contains(sleeps) && !line.trim_start().starts_with("//") {
            findings.push(format!("{path}:{number}: a test that sleeps"));
        }
    }
    findings
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_front_comment_is_found() {
        assert!(check_front_comment("a.rs", "//! What this file is and never does.\n").is_none());
        assert!(check_front_comment("a.rs", "use std::fmt;\n").is_some());
        assert!(check_front_comment("a.rs", "//! Placeholder front page.\n").is_some());
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(check_length("a.rs", &"x\n".repeat(LINES_MAX)).is_none());
        assert!(check_length("a.rs", &"x\n".repeat(LINES_MAX + 1)).is_some());
    }

    #[test]
    fn unsafe_code_is_found_outside_comments() {
        let begins = UNSAFE_FORMS[0];
        let found = check_unsafe("a.rs", &format!("fn f() {{\n    {begins} x() }}\n")).unwrap();
        assert!(found.starts_with("a.rs:2: ") && found.ends_with("1 lines in all"), "{found}");
        assert!(check_unsafe("a.rs", &format!("    // no {begins} here\n")).is_none());
        assert!(check_unsafe("a.rs", &format!("check_{}x);\n", UNSAFE_FORMS[5])).is_none(), "a name that ends alike");
    }

    #[test]
    fn unfinished_marks_are_found_everywhere() {
        assert_eq!(
            check_unfinished("a.sh", &format!("x\n# {}: later\n", UNFINISHED[0])),
            [format!("a.sh:2: {}", UNFINISHED[0])]
        );
        assert!(check_unfinished("a.sh", "all done\n").is_empty());
    }

    #[test]
    fn tests_that_sleep_or_are_skipped_are_found() {
        let sleep = concat!("thread::sl", "eep(d);");
        assert_eq!(check_tests("a.rs", &format!("{sleep}\n#[cfg(test)]\nmod tests {{\n{sleep}\n}}")).len(), 1);
        assert_eq!(check_tests("a/tests/b.rs", sleep).len(), 1);
        assert_eq!(check_tests("a.rs", concat!("    #[ign", "ore]\n")).len(), 1);
    }

    #[test]
    fn a_crate_that_decides_must_forbid_unsafe_code() {
        let forbids = concat!("//! x\n#![forbid(uns", "afe_code)]\n");
        let files = Files::of(&[
            ("appliance/good/src/lib.rs", forbids),
            ("appliance/bad/src/lib.rs", "//! x\n"),
            ("reactors/runtime/src/lib.rs", "//! x\n"),
        ]);
        assert!(check_front_page(&files, "appliance/good").is_none());
        assert_eq!(check_front_page(&files, "appliance/bad").iter().count(), 1);
        assert!(check_front_page(&files, "reactors/runtime").is_none());
        assert_eq!(check_front_page(&files, "appliance/absent").iter().count(), 1);
    }
}
