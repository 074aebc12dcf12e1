//! The configuration: one YAML file says which devices there are, what is built of them and who may use it.
//! This crate reads and checks; it opens no device, no socket and no file.
//!
//! | module | holds |
//! |---|---|
//! | [`schema`] | what a configuration may say: plain structures, from which the JSON Schema is made |
//! | [`schedule`] | when something is done by itself |
//! | [`values`] | texts with a meaning: sizes, times, names, addresses, NQNs |
//! | [`limits`] | every bound that the checks use |
//! | [`problem`] | what is wrong, where, and what was expected |
//! | `tree` | YAML as a tree in which each value knows its place in the file |
//! | `shape` | the tree against the JSON Schema: unknown, missing and ill-typed fields |
//! | `check` | what no schema can say: references, uniqueness, what fits where |
//! | [`export`] | the JSON Schema and the reference documentation |
//!
//! All problems of a file are reported together, those of form and those of meaning:
//!
//! ```
//! let problems = config::parse("version: 1\nname: demo\ncolour: red\n", "my.yaml").unwrap_err();
//! assert_eq!(problems.len(), 5, "four keys are missing, and one is not known");
//! assert!(problems[4].to_string().starts_with("my.yaml:3:1: error: colour: there is no such key"));
//!
//! let demo = config::parse(config::DEMO, "demo.yaml").unwrap();
//! assert_eq!(demo.config.arrays[0].members.len(), 3);
//! ```
#![forbid(unsafe_code)]

mod check;
pub mod export;
pub mod limits;
pub mod problem;
pub mod schedule;
pub mod schema;
mod shape;
mod tree;
pub mod values;

pub use export::{json_schema, reference};
pub use problem::{Problem, Severity};
pub use schedule::Schedule;
pub use schema::*;
pub use values::{Name, Nqn, Percent, Size, SocketAddress, TimeSpan, VolumePath};

/// The configuration of `brindle demo`: also a good start for one's own.
pub const DEMO: &str = include_str!("../examples/demo.yaml");

/// A configuration for a machine with drives of its own.
pub const BARE_METAL: &str = include_str!("../examples/bare-metal.yaml");

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it says, defaults filled in.
    pub config: Config,
    /// What is allowed but perhaps not meant.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration. `file` is only the name to report problems under.
///
/// # Errors
/// Everything that is wrong, warnings included, in the order of the file.
pub fn parse(text: &str, file: &str) -> Result<Loaded, Vec<Problem>> {
    let mut problems = problem::Problems::new(text, file);
    let Some(root) = tree::parse(text, &mut problems) else {
        return Err(problems.sorted());
    };
    shape::check(&root, &mut problems);
    check::check(&root, &mut problems);
    if problems.has_errors() {
        return Err(problems.sorted());
    }
    match serde_json::from_value(root.to_json()) {
        Ok(config) => Ok(Loaded { config, warnings: problems.sorted() }),
        Err(error) => {
            // The schema admits something that the structures refuse: still the file's words, so still not a panic.
            problems.error(&root, "", format!("this cannot be used: {error}"), "a configuration as the schema has it");
            Err(problems.sorted())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_free_of_problems_and_match_the_published_schema() {
        let validator = jsonschema::draft7::new(json_schema()).unwrap();
        for (text, file) in [(DEMO, "demo.yaml"), (BARE_METAL, "bare-metal.yaml")] {
            let loaded = parse(text, file).unwrap_or_else(|problems| panic!("{problems:#?}"));
            assert_eq!(loaded.warnings, [], "{file}");
            let mut problems = problem::Problems::new(text, file);
            let json = tree::parse(text, &mut problems).unwrap().to_json();
            let faults: Vec<_> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{file}: {faults:?}");
        }
    }

    #[test]
    fn a_configuration_survives_being_written_and_read() {
        for text in [DEMO, BARE_METAL] {
            let config = parse(text, "first.yaml").unwrap().config;
            let written = serde_json::to_string_pretty(&config).unwrap();
            assert_eq!(parse(&written, "second.yaml").unwrap().config, config);
        }
    }

    #[test]
    fn cutting_or_breaking_an_example_anywhere_gives_problems_and_never_a_panic() {
        for end in (0..DEMO.len()).filter(|end| DEMO.is_char_boundary(*end)) {
            if let Err(problems) = parse(&DEMO[..end], "cut.yaml") {
                assert!(!problems.is_empty());
                for problem in problems {
                    assert!(problem.offset + problem.length <= end, "{problem:?}");
                }
            }
        }
        let junk = ["\"", "{", "\t", ":", "- ", "é", "&a ", "*a"];
        for (at, junk) in DEMO.char_indices().map(|(at, _)| at).zip(junk.into_iter().cycle()) {
            let broken = format!("{}{junk}{}", &DEMO[..at], &DEMO[at..]);
            if let Err(problems) = parse(&broken, "broken.yaml") {
                assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            }
        }
    }
}
