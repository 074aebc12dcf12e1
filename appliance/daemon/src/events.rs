//! The history: what happened to arrays, drives, logs and hosts, and who changed what. Persistent, bounded, and never in
//! anybody's way: whoever tells an event waits for nothing.
//!
//! | module | holds |
//! |---|---|
//! | [`clock`] | times as people and files have them |
//! | [`store`] | the files: lines of JSON, rotated, whole after a crash |
//! | [`book`] | the queue in front of them, and the thread that writes |
//!
//! An event is told in one place, by one expression: its name, which is a public interface and never changes, its severity,
//! its words, its fields.
//!
//! ```
//! use brindle::events::{Severity, Told};
//! let told = Told::new("member.excluded", Severity::Error, "member 1 is used no longer").of_array("a0").with("member", 1);
//! assert_eq!(told.name, "member.excluded");
//! ```

pub mod alone;
pub mod book;
pub mod clock;
pub mod store;

pub use alone::Alone;
pub use base::metrics::Severity;
pub use book::{Book, Events};
pub use store::{Store, StoreError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most bytes of a line. Of an event that needs more, the words are cut and the fields left out.
pub const MAX_LINE_BYTES: usize = 8192;

/// An event as it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What kind: dotted, stable.
    pub name: &'static str,
    /// How much it matters. What is more than information is made durable at once.
    pub severity: Severity,
    /// One sentence for people.
    pub text: String,
    /// The array that it is about.
    pub array: Option<String>,
    /// The rest, for programs.
    pub fields: Map<String, Value>,
    /// Whether those outside can cause it as often as they like: then it is rationed, lest it wash out everything else.
    pub rationed: bool,
    /// Whether it goes to the log as well.
    pub logged: bool,
}

impl Told {
    /// An event of nothing in particular.
    pub fn new(name: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { name, severity, text, array: None, fields: Map::new(), rationed: false, logged: true }
    }

    /// It is about an array.
    #[must_use]
    pub fn of_array(mut self, array: impl Into<String>) -> Self {
        self.array = Some(array.into());
        self
    }

    /// A field more.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    /// Those outside can cause it as often as they like.
    #[must_use]
    pub fn rationed(mut self) -> Self {
        self.rationed = true;
        self
    }

    /// The log has a line of its own for it.
    #[must_use]
    pub fn unlogged(mut self) -> Self {
        self.logged = false;
        self
    }

    /// Writes it to the log.
    fn log(&self) {
        let (event, array) = (self.name, self.array.as_deref());
        match self.severity {
            Severity::Info | Severity::Notice => tracing::info!(event, array, "{}", self.text),
            Severity::Warning => tracing::warn!(event, array, "{}", self.text),
            Severity::Error => tracing::error!(event, array, "{}", self.text),
        }
    }
}

/// An event as it is kept. The JSON is a public interface: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts events, restarts included.
    pub sequence: u64,
    /// When: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// How much it matters.
    #[serde(with = "severity")]
    pub severity: Severity,
    /// What kind.
    pub event: String,
    /// The array that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// One sentence for people.
    pub text: String,
    /// The rest.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

impl Record {
    /// What was told, with its number and its time.
    fn of(told: Told, sequence: u64, time: String) -> Self {
        let Told { name, severity, text, array, fields, .. } = told;
        Self { sequence, time, severity, event: name.to_owned(), array, text, fields }
    }

    /// Its line, with the end of it.
    fn line(&self) -> String {
        let text = |record: &Self| serde_json::to_string(record).expect("plain values with text keys") + "\n";
        let line = text(self);
        if line.len() <= MAX_LINE_BYTES {
            return line;
        }
        let words = self.text.chars().take(MAX_LINE_BYTES / 16).collect();
        text(&Self { text: words, fields: Map::new(), ..self.clone() })
    }
}

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// From this time on: RFC 3339 in UTC, or the beginning of one from the day on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Behind this sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Of this array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// At least so severe.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "severity::optional")]
    pub severity: Option<Severity>,
    /// At most so many: with `after` the oldest, otherwise the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether an event is wanted, whatever the limit.
    pub fn admits(&self, record: &Record) -> bool {
        // All times have one form, so that their order is that of their texts.
        self.since.as_ref().is_none_or(|since| record.time.as_str() >= since.as_str())
            && self.after.is_none_or(|after| record.sequence > after)
            && self.array.as_ref().is_none_or(|array| record.array.as_ref() == Some(array))
            && self.severity.is_none_or(|severity| record.severity >= severity)
    }
}

/// A severity by its label.
pub fn severity_of(label: &str) -> Option<Severity> {
    Severity::ALL.into_iter().find(|severity| severity.label() == label)
}

/// Severities in JSON are their labels.
mod severity {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Severity, severity_of};

    pub(super) fn serialize<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(severity.label())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Severity, D::Error> {
        let label = String::deserialize(from)?;
        severity_of(&label).ok_or_else(|| D::Error::custom("a severity is info, notice, warning or error"))
    }

    /// One that may be missing.
    pub(super) mod optional {
        use serde::{Deserializer, Serializer};

        use super::Severity;

        pub(in super::super) fn serialize<S: Serializer>(
            severity: &Option<Severity>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match severity {
                Some(severity) => super::serialize(severity, to),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Severity>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(sequence: u64, severity: Severity) -> Record {
        Record {
            sequence,
            time: clock::text(std::time::UNIX_EPOCH + std::time::Duration::from_secs(sequence)),
            severity,
            event: "test.event".into(),
            array: sequence.is_multiple_of(2).then(|| "a0".into()),
            text: format!("event {sequence}"),
            fields: Map::new(),
        }
    }

    #[test]
    fn a_record_is_one_line_that_comes_back_and_is_bounded() {
        let mut one = record(7, Severity::Warning);
        one.fields.insert("words".into(), "two\nlines".into());
        let line = one.line();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), one);
        assert!(
            line.starts_with("{\"sequence\":7,\"time\":\"1970-01-01T00:00:07.000Z\",\"severity\":\"warning\","),
            "{line}"
        );
        one.fields.insert("long".into(), "x".repeat(MAX_LINE_BYTES).into());
        assert!(one.line().len() < MAX_LINE_BYTES);
        one.text = "\u{1}".repeat(2 * MAX_LINE_BYTES);
        assert!(one.line().len() < MAX_LINE_BYTES);
    }

    #[test]
    fn filters_admit_what_they_name() {
        let admits = |filter: &str, record: &Record| serde_json::from_str::<Filter>(filter).unwrap().admits(record);
        let one = record(6, Severity::Warning);
        for (filter, wanted) in [
            ("{}", true),
            (r#"{"array":"a0"}"#, true),
            (r#"{"array":"a1"}"#, false),
            (r#"{"severity":"notice"}"#, true),
            (r#"{"severity":"error"}"#, false),
            (r#"{"since":"1970-01-01"}"#, true),
            (r#"{"since":"1970-01-01T00:00:06.000Z"}"#, true),
            (r#"{"since":"1970-01-01T00:00:06.001Z"}"#, false),
            (r#"{"after":5}"#, true),
            (r#"{"after":6}"#, false),
        ] {
            assert_eq!(admits(filter, &one), wanted, "{filter}");
        }
        assert!(serde_json::from_str::<Filter>(r#"{"severity":"dire"}"#).is_err());
    }
}
