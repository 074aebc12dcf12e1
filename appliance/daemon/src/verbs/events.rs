//! `brindle events`: the history, as far as it is asked for, and as it goes on.

use std::error::Error;
use std::io;

use serde_json::json;

use super::socket_of;
use crate::cli::EventsOptions;
use crate::control_client::call;
use crate::events::{Filter, Record};
use crate::serve::Listed;
use crate::status::printable;

/// Shows the events that are asked for, and with `follow` goes on until nobody reads or nobody serves any more.
pub fn run(options: &EventsOptions, say: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<(), Box<dyn Error>> {
    let socket = socket_of(&options.server)?;
    let mut filter = Filter {
        since: options.since.clone(),
        after: None,
        array: options.array.clone(),
        severity: options.severity,
        limit: Some(options.limit as usize),
    };
    let mut wait = false;
    loop {
        let mut params = serde_json::to_value(&filter)?;
        params["wait"] = json!(wait);
        let Listed { events, last } = call(&socket, "events.list", &params)?;
        let lines: String =
            events.iter().map(|event| if options.server.json { as_json(event) } else { line(event) }).collect();
        say(&lines)?;
        if !options.follow {
            return Ok(());
        }
        (filter.after, filter.limit, wait) = (Some(last), None, true);
    }
}

fn as_json(event: &Record) -> String {
    serde_json::to_string(event).expect("plain values with text keys") + "\n"
}

/// An event for people. What hosts sent may be in it.
fn line(event: &Record) -> String {
    let array = event.array.as_ref().map_or_else(String::new, |array| format!("{array}: "));
    let severity = event.severity.label();
    printable(&format!("{} {severity:<7} {:<22} {array}{}", event.time, event.event, event.text)) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Severity;
    use crate::events::tests::record;

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        let mut event = record(4, Severity::Warning);
        event.text = "host \u{1b}[2J\nleft".into();
        assert_eq!(line(&event), "1970-01-01T00:00:04.000Z warning test.event             a0: host ?[2J?left\n");
        assert_eq!(as_json(&event).matches('\n').count(), 1);
    }
}
