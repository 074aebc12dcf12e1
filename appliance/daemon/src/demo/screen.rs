//! What the demo shows: lines on standard output, and progress bars on a terminal. It never fails: that nobody looks is no
//! reason to stop.

use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// How a bar looks.
const BAR: &str = "{msg:>10} [{bar:40}] {percent:>3}%";

/// The user's terminal, file or pipe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen;

impl Screen {
    /// Shows a line.
    pub(super) fn say(self, line: &str) {
        let mut out = io::stdout().lock();
        // See above: whoever closed the pipe has seen enough.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Begins a bar for `length` steps. It goes when it is dropped or finished, and is invisible without a terminal.
    pub(super) fn bar(self, doing: &'static str, length: u64) -> Bar {
        let bar = ProgressBar::new(length).with_style(style()).with_message(doing);
        Bar(bar)
    }
}

/// A progress bar that wipes itself away.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// So many steps are done.
    pub(super) fn at(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(BAR).expect("the template is sound").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_takes_any_position() {
        let bar = Screen.bar("verifying", 10);
        for done in [0, 10, u64::MAX] {
            bar.at(done);
            assert_eq!(bar.0.position(), done);
        }
    }
}
