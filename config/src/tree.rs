//! YAML as a tree in which each value knows its place in the file, so that every problem can be reported and not only the
//! first. Syntax errors end the reading: behind one nothing can be trusted. Nothing here knows what a configuration is.

use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Spanned};

use crate::limits::MAX_FILE_BYTES;
use crate::problem::{Problems, Severity};
use crate::values::Meaning;

/// Where a value stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
    /// In bytes.
    pub(crate) offset: usize,
    /// In bytes.
    pub(crate) length: usize,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// A value of YAML's core schema.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys and values in the order of the file; a key may come twice.
    Map(Vec<(Node, Node)>),
}

/// Reads a text. None after a problem that leaves nothing to check.
pub(crate) fn parse(text: &str, problems: &mut Problems<'_>) -> Option<Node> {
    let start = Place { line: 1, column: 1, offset: 0, length: 0 };
    let mut refuse = |place, message: String, expected: &str| {
        problems.add(Severity::Error, place, "", message, expected.to_owned());
        None
    };
    if text.len() > MAX_FILE_BYTES {
        return refuse(start, format!("the file has {} bytes", text.len()), "at most 1 MiB");
    }
    let options = serde_saphyr::options! {
        // A key that comes twice is reported with all other problems, not instead of them.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        // YAML 1.2: `off` is a word, only true and false are truth values.
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(root) => Some(root),
        Err(error) => {
            let error = error.without_snippet();
            let place = error.location().map_or(start, Place::from);
            let words = error.to_string();
            // The place is told apart from the words.
            let message = words.lines().next().unwrap_or("");
            let message = message.split(" at line ").next().unwrap_or("").trim().to_owned();
            refuse(place, message, "a YAML document")
        }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
        let span = location.span();
        let bytes = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Self {
            line: number(location.line()),
            column: number(location.column()),
            offset: bytes(span.byte_offset()),
            length: bytes(span.byte_len()),
        }
    }
}

impl Node {
    /// What stands under a key. Nothing (`log: ~`) is as if the key were not there. Of a key that comes twice, the first.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value);
        found.filter(|value| !matches!(value.value, Value::Null))
    }

    /// The keys and values, of a map; else none.
    pub(crate) fn entries(&self) -> &[(Self, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The values under a key, if a list is there; else none.
    pub(crate) fn list(&self, key: &str) -> &[Self] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    /// The text, of a text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text under a key, if one is there.
    pub(crate) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text)
    }

    /// What the text under a key means, if it means that.
    pub(crate) fn meaning_of<T: Meaning>(&self, key: &str) -> Option<T> {
        self.text_of(key).and_then(T::from_text)
    }

    /// The number under a key, if it fits.
    pub(crate) fn number_of<T: TryFrom<i128>>(&self, key: &str) -> Option<T> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Integer(number)) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The same without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            // A number that JSON cannot hold becomes null, which no field takes.
            Value::Integer(value) => {
                let unsigned = u64::try_from(*value).map(serde_json::Value::from);
                unsigned.or_else(|_| i64::try_from(*value).map(serde_json::Value::from)).unwrap_or_default()
            }
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                let pairs = entries.iter().map(|(key, value)| (key.text().unwrap_or("").to_owned(), value.to_json()));
                serde_json::Value::Object(pairs.collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, place: spanned.referenced.into() })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let mut problems = Problems::new(text, "t.yaml");
        parse(text, &mut problems).unwrap_or_else(|| panic!("{problems:?}"))
    }

    #[test]
    fn every_value_and_key_knows_its_place() {
        let text = "a: 1\nlist:\n  - {é: off, size: 4KiB}\n  - ~\n";
        let root = tree(text);
        let here = |node: &Node| &text[node.place.offset..node.place.offset + node.place.length];
        let item = &root.list("list")[0];
        let (key, value) = &item.entries()[1];
        assert_eq!((here(key), here(value)), ("size", "4KiB"));
        assert_eq!((value.place.line, value.place.column), (3, 20));
        assert_eq!(item.text_of("é"), Some("off"), "YAML 1.2 has no truth value called off");
        assert!(matches!(root.list("list")[1].value, Value::Null));
        assert_eq!(root.number_of::<u16>("a"), Some(1));
        assert_eq!(root.to_json(), serde_json::json!({"a": 1, "list": [{"é": "off", "size": "4KiB"}, null]}));
    }

    #[test]
    fn a_key_that_comes_twice_is_kept_twice() {
        assert_eq!(tree("a: 1\na: 2\n").entries().len(), 2);
    }

    #[test]
    fn syntax_errors_and_oversize_are_problems_with_a_place() {
        for (text, line) in [("a: [1, 2\nb: 3\n", 2), ("a: 1\n  b: 2\n", 2), ("a: *b\n", 1)] {
            let mut problems = Problems::new(text, "t.yaml");
            assert!(parse(text, &mut problems).is_none(), "{text:?}");
            let found = problems.sorted();
            assert_eq!(found.len(), 1);
            assert!(found[0].line.abs_diff(line) <= 1, "{found:?}");
            assert!(!found[0].message.is_empty());
        }
        let long = " ".repeat(MAX_FILE_BYTES + 1);
        assert!(parse(&long, &mut Problems::new(&long, "t.yaml")).is_none());
    }

    #[test]
    fn nesting_and_aliases_are_bounded() {
        let deep = "[".repeat(100_000);
        assert!(parse(&deep, &mut Problems::new(&deep, "t.yaml")).is_none());
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (this, last) in ('b'..='z').zip('a'..) {
            bomb += &format!("{this}: &{this} [{}]\n", format!("*{last},").repeat(9));
        }
        assert!(parse(&bomb, &mut Problems::new(&bomb, "t.yaml")).is_none());
    }
}
