//! Reading a configuration for a command, and showing what is wrong with it: each problem with its line marked. Whether the
//! configuration can be carried out on this machine is found out by serving.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write as _};
use std::path::{Path, PathBuf};

use config::limits::MAX_FILE_BYTES;
use config::schema::Checksums;
use config::{Array, Config, Device, Hosts, Loaded, LogMode, OnLogLoss, Problem, Protocol, Severity};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource};
use thiserror::Error;

use crate::budget::{Budget, BudgetError};
use crate::capacity::{Capacity, level};
use crate::status;

/// Why there is no configuration to go on with.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no text.
    #[error("cannot read the configuration {}: byte {offset} is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
    /// There are errors in it; the text shows all of them.
    #[error("{shown}")]
    Invalid {
        /// All problems and a last line that counts them.
        shown: String,
    },
    /// The memory cannot be shared out.
    #[error("{}: {error}", path.display())]
    Budget {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: BudgetError,
    },
}

/// Reads a configuration. Warnings are shown on standard error.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let (config, warnings) = load_quietly(path)?;
    // Whether anybody reads the warnings changes nothing.
    let _ = io::stderr().write_all(warnings.as_bytes());
    Ok(config)
}

/// Reads a configuration: it, and the warnings as they are to be shown.
pub fn load_quietly(path: &Path) -> Result<(Config, String), LoadError> {
    let text = read(path)?;
    let file = path.display().to_string();
    let theme = theme();
    match config::parse(&text, &file) {
        Ok(Loaded { config, warnings }) => Ok((config, render(&warnings, &text, &theme))),
        Err(problems) => {
            let shown = format!("{}{}", render(&problems, &text, &theme), verdict(&problems, &file));
            Err(LoadError::Invalid { shown })
        }
    }
}

/// `brindle check`: the problems, or a few lines that say what is described.
pub fn run(path: &Path) -> Result<String, LoadError> {
    let config = load(path)?;
    let budget = Budget::of(&config, config.reactors.count())
        .map_err(|error| LoadError::Budget { path: path.to_owned(), error })?;
    Ok(summary(&config, &budget, &path.display().to_string()))
}

fn read(path: &Path) -> Result<String, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to see that there are too many, whatever the file is.
    let limit = MAX_FILE_BYTES as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    String::from_utf8(bytes)
        .map_err(|error| LoadError::NotText { path: path.to_owned(), offset: error.utf8_error().valid_up_to() })
}

fn theme() -> GraphicalTheme {
    match (io::stderr().is_terminal(), std::env::var_os("NO_COLOR")) {
        (true, None) => GraphicalTheme::unicode(),
        _ => GraphicalTheme::unicode_nocolor(),
    }
}

/// Each problem with its line of the text and a mark under it.
fn render(problems: &[Problem], text: &str, theme: &GraphicalTheme) -> String {
    let handler = GraphicalReportHandler::new_themed(theme.clone()).with_context_lines(1).with_width(110);
    let mut out = String::new();
    for problem in problems {
        let place = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
        let severity = match problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let mark = LabeledSpan::at(problem.offset..problem.offset + problem.length, "here");
        let shown = MietteDiagnostic::new(format!("{place}{}", problem.message))
            .with_severity(severity)
            .with_help(format!("expected {}", problem.expected))
            .with_label(mark);
        let report = miette::Report::new(shown).with_source_code(NamedSource::new(&problem.file, text.to_owned()));
        // The place stands first, where editors and scripts look for it.
        let _ = writeln!(out, "{}:{}:{}: {}", problem.file, problem.line, problem.column, problem.severity);
        if handler.render_report(&mut out, report.as_ref()).is_err() {
            let _ = writeln!(out, "{problem}");
        }
    }
    out
}

fn verdict(problems: &[Problem], file: &str) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    format!("{file}: {errors} error{plural}")
}

/// What a configuration describes, in a few lines.
fn summary(config: &Config, budget: &Budget, file: &str) -> String {
    let mut out = format!("{file} is in order: appliance {}\n", config.name);
    let reactors = &config.reactors;
    let place = match &reactors.cores {
        Some(cores) => format!("on cores {}", list(cores)),
        None => "on cores of the system's choice".to_owned(),
    };
    let _ = writeln!(out, "  {} reactor(s) {place}, {} of buffers", reactors.count(), reactors.memory);
    for array in &config.arrays {
        out += &array_summary(array, config, budget);
    }
    for listener in &config.listeners {
        let protocol = match listener.protocol {
            Protocol::NvmeTcp => "NVMe/TCP",
        };
        let _ = writeln!(out, "  listener {} at {}, {protocol}", listener.name, listener.address);
        for subsystem in config.subsystems.iter().filter(|subsystem| subsystem.listeners.contains(&listener.name)) {
            let hosts = match &subsystem.hosts {
                Hosts::Any(_) => "any host".to_owned(),
                Hosts::Listed(hosts) => list(hosts),
            };
            let namespaces: Vec<_> = subsystem
                .namespaces
                .iter()
                .map(|namespace| format!("{} = {}", namespace.nsid, namespace.volume))
                .collect();
            let _ = writeln!(out, "    {}: namespace {}, for {hosts}", subsystem.nqn, list(&namespaces));
        }
    }
    out
}

/// An array: of what it is made, what it holds, and its volumes.
fn array_summary(array: &Array, config: &Config, budget: &Budget) -> String {
    let size = |name: &config::Name| {
        let device = config.devices.iter().find(|device| device.name() == name);
        device.and_then(Device::size).map_or_else(|| name.to_string(), |size| format!("{name} {size}"))
    };
    let members: Vec<_> = array.members.iter().map(size).collect();
    let mut out = format!("  array {}: {} of {}, chunk {}\n", array.name, array.level, list(&members), array.chunk);
    let _ = writeln!(out, "    bears the loss of {}", level(array.level).bears_in_words());
    let capacity = Capacity::of(array, config, budget);
    let _ = match &capacity {
        Ok(capacity) => {
            let taken: u64 = array.volumes.iter().map(|volume| volume.size.bytes()).sum();
            let (usable, taken) = (status::size(capacity.usable_bytes), status::size(taken));
            writeln!(out, "    usable capacity {usable}, of which volumes take {taken}")
        }
        Err(why) => writeln!(out, "    capacity: {why}"),
    };
    if array.checksums == Checksums::On {
        let _ = writeln!(out, "    checksums of all blocks are kept: what drives give back is compared, and put right");
    }
    if let Some(log) = &array.log {
        let copies: Vec<_> = log.devices.iter().map(size).collect();
        let mode = match log.mode {
            Some(LogMode::WriteBack) => "write-back",
            Some(LogMode::WriteThrough) => "write-through",
            None => "in the mode it has (a new one: write-back)",
        };
        let loss = match array.on_log_loss {
            OnLogLoss::ReadOnly => "reads go on and writes are refused",
            OnLogLoss::Stop => "nothing is served any more",
            OnLogLoss::WriteThroughExposed => "writes go on without one, unless members are missing",
        };
        let _ =
            writeln!(out, "    log: {mode} on {}, {} lanes; once all of it is lost, {loss}", list(&copies), log.lanes);
        if let Ok(capacity) = capacity {
            let [log, least, most, cache, index] = [
                capacity.log_bytes,
                capacity.dirty_scattered_bytes,
                capacity.dirty_striped_bytes,
                capacity.cache_bytes,
                capacity.index_bytes,
            ]
            .map(status::size);
            let _ = writeln!(out, "    log capacity {log}, index budget {index}, of which memory holds {cache}");
            let _ = writeln!(out, "    dirty capacity {least} in scattered blocks, {most} in whole stripes");
        }
    } else {
        out += "    no log: a write is acknowledged once the members are flushed; after a crash dirty zones are resynced\n";
    }
    for volume in &array.volumes {
        let _ = writeln!(out, "    volume {}/{}: {}", array.name, volume.name, volume.size);
    }
    out
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_shown_with_place_text_and_expectation() {
        let text = config::DEMO.replace("128MiB", "128MB").replace("[main]", "[side]");
        let problems = config::parse(&text, "demo.yaml").unwrap_err();
        let shown = render(&problems, &text, &GraphicalTheme::unicode_nocolor());
        for expected in [
            "demo.yaml:23:26: error",
            "arrays[0].volumes[0].size: this cannot be understood",
            "128MB",
            "expected a size with a unit",
            "demo.yaml:28:17: error",
            "there is no such listener",
            "expected one of main",
        ] {
            assert!(shown.contains(expected), "{expected} is missing:\n{shown}");
        }
        assert_eq!(verdict(&problems, "demo.yaml"), "demo.yaml: 2 errors");
    }

    #[test]
    fn a_problem_at_the_very_end_of_an_empty_text_is_shown() {
        for text in ["", "\n", "a: [", "a: \"é"] {
            let problems = config::parse(text, "f.yaml").unwrap_err();
            assert!(render(&problems, text, &GraphicalTheme::unicode_nocolor()).contains("f.yaml:"));
        }
    }

    #[test]
    fn the_summary_names_what_is_described() {
        let config = config::parse(config::DEMO, "demo.yaml").unwrap().config;
        let budget = Budget::of(&config, 1).unwrap();
        let text = summary(&config, &budget, "demo.yaml");
        for expected in [
            "raid5 of d0 256MiB, d1 256MiB",
            "bears the loss of one member",
            "usable capacity 504 MiB, of which volumes take 128 MiB",
            "write-back on l0 64MiB",
            "log capacity ",
            "dirty capacity ",
            "a0/v0: 128MiB",
            "listener main at 127.0.0.1:4420, NVMe/TCP",
            "nqn.2026-01.io.brindle:demo: namespace 1 = a0/v0, for any host",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let missing = load(Path::new("/nonexistent/x.yaml")).unwrap_err();
        assert!(matches!(missing, LoadError::Unreadable { .. }));
        assert!(missing.to_string().contains("/nonexistent/x.yaml"));
        let binary = load(&std::env::current_exe().unwrap()).unwrap_err();
        assert!(matches!(binary, LoadError::NotText { .. }));
    }
}
