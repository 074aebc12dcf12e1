//! Log lines: to standard error, for people or as JSON. Standard output stays free for what a command answers.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// The environment variable that chooses what is logged, such as `BRINDLE_LOG=debug`.
const FILTER_VARIABLE: &str = "BRINDLE_LOG";

/// Starts logging. A second call changes nothing.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call finds a subscriber in place and is refused: the first one's lines go on.
    let _ = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).compact().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
