//! Following long work to its end: on a terminal one line that is drawn again and again, with a bar; otherwise, for files and
//! programs, a line of its own whenever another percent is done or something else has changed.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// From one look to the next.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// Cells of the bar.
const CELLS: u64 = 24;

/// To the beginning of the line, which is cleared.
const CLEAR: &str = "\r\x1b[K";

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What it does, in a word.
    pub state: String,
    /// All of it in one line.
    pub words: String,
    /// How much is done.
    pub done: u64,
    /// How much it is in all.
    pub all: u64,
    /// Whether there is no more to come.
    pub is_over: bool,
}

impl Look {
    fn percent(&self) -> u64 {
        share(self.done, self.all, 100)
    }

    /// A bar, as far as it is done.
    fn bar(&self) -> String {
        let full = share(self.done, self.all, CELLS);
        format!("[{}{}]", "#".repeat(full as usize), "-".repeat((CELLS - full) as usize))
    }

    /// Whether somebody who has seen another look has yet to see this one.
    fn is_news_after(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| {
            (before.percent(), &before.state, before.is_over) != (self.percent(), &self.state, self.is_over)
        })
    }
}

/// So many parts of a whole of `parts`; nothing of nothing is all of it.
fn share(done: u64, all: u64, parts: u64) -> u64 {
    let share = u128::from(done.min(all)) * u128::from(parts);
    share.checked_div(u128::from(all)).map_or(parts, |share| share as u64)
}

/// Shows what `look` gives until it is over, or nobody reads it any more.
///
/// # Errors
/// What `look` says, or that the output cannot be written.
pub fn follow(mut look: impl FnMut() -> Result<Look, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    let is_terminal = out.is_terminal();
    let mut before = None;
    loop {
        let now = look()?;
        let text = match (is_terminal, now.is_over) {
            (true, false) => format!("{CLEAR}{} {}", now.bar(), now.words),
            (true, true) => format!("{CLEAR}{} {}\n", now.bar(), now.words),
            (false, _) if now.is_news_after(before.as_ref()) => format!("{}\n", now.words),
            (false, _) => String::new(),
        };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        if now.is_over {
            return Ok(());
        }
        before = Some(now);
        std::thread::sleep(EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(done: u64, state: &str) -> Look {
        Look { state: state.into(), words: String::new(), done, all: 1000, is_over: false }
    }

    #[test]
    fn the_bar_grows_and_never_beyond_its_end() {
        assert_eq!(look(0, "running").bar(), format!("[{}]", "-".repeat(24)));
        assert_eq!(look(500, "running").bar(), format!("[{}{}]", "#".repeat(12), "-".repeat(12)));
        assert_eq!(look(5000, "running").bar(), format!("[{}]", "#".repeat(24)));
        assert_eq!(Look { all: 0, ..look(0, "ended") }.percent(), 100);
        assert_eq!(Look { all: u64::MAX, done: u64::MAX - 1, ..look(0, "running") }.percent(), 99);
    }

    #[test]
    fn only_what_is_new_gets_a_line() {
        let before = look(500, "running");
        assert!(before.is_news_after(None) && !look(509, "running").is_news_after(Some(&before)));
        assert!(look(510, "running").is_news_after(Some(&before)) && look(500, "paused").is_news_after(Some(&before)));
        assert!(Look { is_over: true, ..before.clone() }.is_news_after(Some(&before)));
    }
}
