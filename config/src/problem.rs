//! What is wrong with a configuration: each problem names file, line, column, the offending text and what was expected.
//! Rendering for terminals is the caller's; [`Problem`] gives the place in bytes for that.

use core::fmt;

use crate::limits::MAX_PROBLEMS;
use crate::tree::{Node, Place};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but perhaps means something else.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// Where in the text it begins, in bytes.
    pub offset: usize,
    /// How many bytes of the text it concerns, perhaps none.
    pub length: usize,
    /// Where in the structure, such as `devices[2].size`; empty for the whole.
    pub path: String,
    /// The offending text, its first line.
    pub text: String,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What was expected, without a full stop.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: ", self.file, self.line, self.column, self.severity)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.text.is_empty() {
            write!(f, " (here: {})", self.text)?;
        }
        write!(f, "; expected {}", self.expected)
    }
}

/// The problems of one file while they are gathered.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    text: &'a str,
    file: &'a str,
    found: Vec<Problem>,
    beyond: usize,
}

/// Longest part of the offending text that is shown, in characters.
const MAX_SHOWN: usize = 60;

impl<'a> Problems<'a> {
    pub(crate) fn new(text: &'a str, file: &'a str) -> Self {
        Self { text, file, found: Vec::new(), beyond: 0 }
    }

    pub(crate) fn error(&mut self, node: &Node, path: &str, message: impl Into<String>, expected: impl Into<String>) {
        self.add(Severity::Error, node.place, path, message.into(), expected.into());
    }

    pub(crate) fn warning(&mut self, node: &Node, path: &str, message: impl Into<String>, expected: impl Into<String>) {
        self.add(Severity::Warning, node.place, path, message.into(), expected.into());
    }

    pub(crate) fn add(&mut self, severity: Severity, place: Place, path: &str, message: String, expected: String) {
        if self.found.len() == MAX_PROBLEMS {
            self.beyond += 1;
            return;
        }
        // A place comes from the parser of YAML: it is cut to the text rather than trusted.
        let offset = if place.length == 0 { self.offset_of(place.line, place.column) } else { place.offset };
        let start = floor_boundary(self.text, offset);
        let end = floor_boundary(self.text, start.saturating_add(place.length));
        let line = self.text[start..end].lines().next().unwrap_or("").trim_end();
        // Of a list or mapping only the beginning has a place: the rest of its line is shown, too.
        let rest_of_line = self.text[start..].lines().next().unwrap_or("").trim_end();
        let shown = if matches!(line, "" | "{" | "[") { rest_of_line } else { line };
        self.found.push(Problem {
            severity,
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            offset: start,
            length: line.len(),
            path: path.to_owned(),
            text: shortened(shown),
            message,
            expected,
        });
    }

    /// The byte where a line and column lie: syntax errors come without one.
    fn offset_of(&self, line: u32, column: u32) -> usize {
        let mut lines = self.text.split_inclusive('\n');
        let before: usize = lines.by_ref().take(line.max(1) as usize - 1).map(str::len).sum();
        let line = lines.next().unwrap_or("").trim_end();
        let within = line.char_indices().nth(column.max(1) as usize - 1).map_or(line.len(), |(at, _)| at);
        before + within
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.beyond > 0 || self.found.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// All problems in the order of the file.
    pub(crate) fn sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.offset, problem.severity));
        if self.beyond > 0
            && let Some(last) = self.found.last()
        {
            let message = format!("{} more problems are not shown", self.beyond);
            let expected = "those above to be mended first".to_owned();
            let rest =
                Problem { path: String::new(), text: String::new(), length: 0, message, expected, ..last.clone() };
            self.found.push(Problem { severity: Severity::Error, ..rest });
        }
        self.found
    }
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_the_text_are_cut_to_it() {
        let text = "é: x\n";
        let mut problems = Problems::new(text, "f");
        for (offset, length) in [(0, 1), (1, 1), (0, 99), (99, 1), (usize::MAX, usize::MAX)] {
            let place = Place { line: 1, column: 1, offset, length };
            problems.add(Severity::Error, place, "", "wrong".into(), "right".into());
        }
        let problems = problems.sorted();
        assert_eq!(problems.len(), 5);
        assert!(problems.iter().all(|problem| text.get(problem.offset..problem.offset + problem.length).is_some()));
    }

    #[test]
    fn problems_beyond_the_bound_are_counted() {
        let mut problems = Problems::new("x", "f");
        for _ in 0..MAX_PROBLEMS + 7 {
            let place = Place { line: 1, column: 1, offset: 0, length: 1 };
            problems.add(Severity::Warning, place, "", "odd".into(), "even".into());
        }
        assert!(problems.has_errors(), "what is not shown may be an error");
        let problems = problems.sorted();
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        assert!(problems[MAX_PROBLEMS].message.starts_with("7 more"));
    }
}
