//! Log lines: to standard error, for people or as JSON. Standard output stays free for what a command answers.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::LogFormat;

/// The environment variable that chooses what is logged, such as `BRINDLE_LOG=debug`.
const FILTER_VARIABLE: &str = "BRINDLE_LOG";

/// Starts logging. A second call changes nothing.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call finds a subscriber in place and is refused: the first one's lines go on.
    let _ = subscriber(format, filter, io::stderr, io::stderr().is_terminal()).try_init();
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, to: W, colours: bool) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to).with_target(false);
    match format {
        LogFormat::Human => Box::new(lines.with_ansi(colours).compact().finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a line that is wanted and one that is not.
    fn logged(format: LogFormat) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let subscriber = subscriber(format, EnvFilter::new("info"), move || to.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(array = "a0", members = 3, "array is online");
            tracing::debug!("not wanted");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn people_get_a_line_of_plain_text() {
        let text = logged(LogFormat::Human);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("INFO") && text.contains("array is online") && text.contains("array=\"a0\""), "{text}");
    }

    #[test]
    fn machines_get_an_object_a_line() {
        let text = logged(LogFormat::Json);
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"array is online".into()));
        assert_eq!((&line["array"], &line["members"]), (&"a0".into(), &3.into()));
        assert!(line["timestamp"].is_string());
    }
}
