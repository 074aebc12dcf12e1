//! Steps of a long command, counted and timed, with the closing line that says how it went. It runs what it is given
//! and knows nothing of it.

use crate::process::Failure;
use std::time::{Duration, Instant};

/// What has run so far.
pub(crate) struct Report {
    begun: Instant,
    steps: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    passed: bool,
}

impl Report {
    /// An empty report; its clock starts.
    pub(crate) fn new() -> Report {
        Report { begun: Instant::now(), steps: Vec::new() }
    }

    /// Runs one step. A failure is printed and counted, and the next steps still run: one run shows all there is.
    /// Returns whether it passed.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<String, Failure>) -> bool {
        println!("\n== {name}");
        let begun = Instant::now();
        let outcome = work();
        let took = begun.elapsed();
        let passed = outcome.is_ok();
        match outcome {
            Ok(note) if note.is_empty() => {}
            Ok(note) => println!("{note}"),
            Err(failure) => println!("{failure}"),
        }
        println!("== {name}: {} in {:.1} s", word(passed), took.as_secs_f64());
        self.steps.push(Step { name: name.to_owned(), took, passed });
        passed
    }

    /// The table of all steps and, alone on the last line, how many passed and failed.
    pub(crate) fn closing(&self) -> String {
        let mut text = String::from("\n");
        for step in &self.steps {
            text += &format!("{:<7} {:>7.1} s  {}\n", word(step.passed), step.took.as_secs_f64(), step.name);
        }
        text += &format!("{:>15.1} s  in all\n", self.begun.elapsed().as_secs_f64());
        let failed = self.steps.iter().filter(|step| !step.passed).count();
        text += &format!("{} passed, {failed} failed", self.steps.len() - failed);
        text
    }

    /// Whether every step passed.
    pub(crate) fn is_clean(&self) -> bool {
        self.steps.iter().all(|step| step.passed)
    }
}

fn word(passed: bool) -> &'static str {
    if passed { "passed" } else { "FAILED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts_and_stands_alone() {
        let mut report = Report::new();
        assert!(report.step("one", || Ok(String::new())));
        assert!(report.is_clean());
        assert!(!report.step("two", || Err(Failure::found("broken"))));
        assert!(report.step("three", || Ok("fine".to_owned())));
        assert!(!report.is_clean());
        let closing = report.closing();
        assert_eq!(closing.lines().last(), Some("2 passed, 1 failed"));
        assert!(closing.lines().any(|line| line.starts_with("FAILED") && line.ends_with("two")), "{closing}");
    }
}
