//! The process takes from itself what it does not need: privileges, files, system calls. Whoever gets in by a mistake of ours
//! then finds little to use.
//!
//! | file | holds |
//! |---|---|
//! | `privileges` | capabilities are dropped, none can be gained |
//! | `landlock_sys` | files and folders that may be opened (Landlock, Linux 5.13) |
//! | `calls` | which system calls are allowed |
//! | `seccomp_sys` | the filter that says so to the kernel (seccomp, Linux 3.17) |
//!
//! It holds for the calling thread and all that it starts later, so it comes before other threads do. What is open already
//! stays open. A kernel that lacks a piece is no error: [`Confinement`] says what holds.

mod calls;
mod landlock_sys;
mod privileges;
mod seccomp_sys;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use landlock_sys::Access;

/// A folder (or file) and what may be done below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where; links are followed. What is not there is left out.
    pub path: PathBuf,
    /// What may be done.
    pub access: Access,
}

/// How the process is confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Capabilities that are left.
    pub capabilities: Vec<&'static str>,
    /// The version of Landlock that holds, if the kernel has it.
    pub file_rules: Option<u32>,
    /// Whether system calls are filtered.
    pub call_filter: bool,
    /// What is not as wished, in words.
    pub notes: Vec<String>,
}

/// Why the process is not confined: never because the kernel lacks something.
#[derive(Debug, thiserror::Error)]
#[error("{doing} failed: {source}")]
pub struct ConfineError {
    doing: &'static str,
    source: io::Error,
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> ConfineError {
    move |source| ConfineError { doing, source }
}

/// Where files may be opened, for messages only: the kernel keeps the rules.
static ALLOWED: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Confines this thread and all that it starts. `as_json`: refused system calls are told as JSON objects.
pub fn confine(rules: &[Rule], as_json: bool) -> Result<Confinement, ConfineError> {
    let mut notes = Vec::new();
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        notes.push(format!("{} threads were started before and are not confined", threads - 1));
    }
    let capabilities = privileges::drop_unneeded().map_err(failed("dropping privileges"))?;
    let file_rules = landlock_sys::restrict(rules).map_err(failed("restricting files (landlock)"))?;
    if file_rules.is_some() {
        let allowed = rules.iter().map(|rule| rule.path.canonicalize().unwrap_or_else(|_| rule.path.clone()));
        let _ = ALLOWED.set(allowed.collect());
    } else {
        notes.push("this kernel has no Landlock (or it is not enabled): file access is not restricted".to_owned());
    }
    let call_filter = seccomp_sys::filter(as_json).map_err(failed("filtering system calls (seccomp)"))?;
    if !call_filter {
        notes.push("this kernel has no seccomp filters: system calls are not restricted".to_owned());
    }
    Ok(Confinement { capabilities, file_rules, call_filter, notes })
}

/// Whether it is the sandbox that keeps a path from being opened: no rule of [`confine`] covers it.
pub fn forbids(path: &Path) -> bool {
    let Some(allowed) = ALLOWED.get() else { return false };
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    !allowed.iter().any(|folder| path.starts_with(folder))
}

/// System calls that the filter refused since the start.
pub fn refused_calls() -> u64 {
    seccomp_sys::refused()
}
