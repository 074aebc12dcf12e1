//! Showing something again and again: on a terminal in place of what was there before, otherwise one text behind the other.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use config::TimeSpan;

/// Goes to the upper left corner and clears everything from there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows what `look` gives, `count` times or until nobody reads it any more or the process is ended.
///
/// # Errors
/// What `look` says, or that the output cannot be written.
pub fn repeat(
    every: TimeSpan,
    count: Option<u64>,
    mut look: impl FnMut() -> Result<String, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    let clear = if out.is_terminal() { CLEAR } else { "" };
    let mut left = count;
    while left != Some(0) {
        let text = look()?;
        match write!(out, "{clear}{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        left = left.map(|left| left - 1);
        if left != Some(0) {
            std::thread::sleep(Duration::from_nanos(every.0.0));
        }
    }
    Ok(())
}
