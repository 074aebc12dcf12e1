//! Texts with a meaning. Each kind has one parser, one pattern for editors and one sentence that says what is expected;
//! the JSON Schema names the kind in `format`, and the check of a file's shape looks it up there.

use core::fmt;
use std::borrow::Cow;
use std::net::SocketAddr;

use base::time::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{MAX_NAME_BYTES, MAX_NQN_BYTES};
use crate::schedule::Schedule;

/// A text that stands for something.
pub(crate) trait Meaning: Sized {
    /// The kind's name, as `format` in the JSON Schema.
    const FORMAT: &'static str;
    /// A regular expression for editors; it may admit more than [`Meaning::from_text`] does.
    const PATTERN: &'static str;
    /// What is expected, for people.
    const EXPECTED: &'static str;
    /// What the text stands for.
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! meanings {
    ($($name:ident)*) => {
        $(impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::from_text(&text).ok_or_else(|| serde::de::Error::custom(Self::EXPECTED))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": Self::FORMAT, "pattern": Self::PATTERN })
            }
        })*

        /// For a `format` of the schema: what is expected, and whether a text is that. None if the format is not ours.
        pub(crate) fn format(name: &str) -> Option<(&'static str, fn(&str) -> bool)> {
            match name {
                $(<$name as Meaning>::FORMAT => Some(($name::EXPECTED, |text| $name::from_text(text).is_some())),)*
                _ => None,
            }
        }
    };
}

meanings! { Size TimeSpan Percent Name VolumePath Nqn SocketAddress Schedule }

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Size {
    /// A size of whole mebibytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many whole blocks of [`base::BLOCK`] bytes.
    pub const fn blocks(self) -> u64 {
        self.0 / base::BLOCK as u64
    }
}

impl Meaning for Size {
    const FORMAT: &'static str = "size";
    const PATTERN: &'static str = r"^[0-9]{1,18}(B|KiB|MiB|GiB|TiB)$";
    const EXPECTED: &'static str = "a size with a unit: a whole number and B, KiB, MiB, GiB or TiB, such as 256MiB";

    fn from_text(text: &str) -> Option<Self> {
        with_unit(text, &SIZE_UNITS).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(self.0, &SIZE_UNITS, f)
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Span);

const TIME_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Meaning for TimeSpan {
    const FORMAT: &'static str = "time-span";
    const PATTERN: &'static str = r"^[0-9]{1,18}(ns|us|ms|s|min|h)$";
    const EXPECTED: &'static str = "a time with a unit: a whole number and ns, us, ms, s, min or h, such as 50us";

    fn from_text(text: &str) -> Option<Self> {
        with_unit(text, &TIME_UNITS).map(|ns| Self(Span(ns)))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(self.0.0, &TIME_UNITS, f)
    }
}

/// A share of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

impl Meaning for Percent {
    const FORMAT: &'static str = "percent";
    const PATTERN: &'static str = r"^([0-9]{1,2}|100)%$";
    const EXPECTED: &'static str = "a share from 0% to 100%, such as 75%";

    fn from_text(text: &str) -> Option<Self> {
        let number = digits(text.strip_suffix('%')?)?;
        (number <= 100).then_some(Self(number as u8))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// What a device, array, volume or listener is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Meaning for Name {
    const FORMAT: &'static str = "name";
    const PATTERN: &'static str = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$";
    const EXPECTED: &'static str =
        "a name of 1 to 32 letters, digits, '-', '_' or '.', the first of them a letter or a digit";

    fn from_text(text: &str) -> Option<Self> {
        let mut letters = text.bytes();
        let first = letters.next()?;
        let valid = text.len() <= MAX_NAME_BYTES
            && first.is_ascii_alphanumeric()
            && letters.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        valid.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A volume: the names of its array and of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumePath {
    /// The array.
    pub array: Name,
    /// The volume in it.
    pub volume: Name,
}

impl Meaning for VolumePath {
    const FORMAT: &'static str = "volume-path";
    const PATTERN: &'static str = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}/[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$";
    const EXPECTED: &'static str = "the names of an array and of a volume in it, such as a0/v0";

    fn from_text(text: &str) -> Option<Self> {
        let (array, volume) = text.split_once('/')?;
        Some(Self { array: Name::from_text(array)?, volume: Name::from_text(volume)? })
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.array, self.volume)
    }
}

/// An NVMe Qualified Name (NVM Express Base Specification, section "NVMe Qualified Names").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nqn(String);

impl Nqn {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Meaning for Nqn {
    const FORMAT: &'static str = "nqn";
    const PATTERN: &'static str = r"^nqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9][A-Za-z0-9.-]*(:.+)?$";
    const EXPECTED: &'static str = "an NVMe qualified name of at most 223 bytes: nqn.<year>-<month>.<reversed domain>, and \
                                    perhaps :<text>, such as nqn.2026-01.com.example:storage";

    fn from_text(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("nqn.")?;
        let (date, rest) = rest.split_once('.')?;
        let (year, month) = date.split_once('-')?;
        let (domain, suffix) = rest.split_once(':').map_or((rest, None), |(domain, suffix)| (domain, Some(suffix)));
        let label = |label: &str| {
            label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let valid = text.len() <= MAX_NQN_BYTES
            && year.len() == 4
            && digits(year).is_some()
            && month.len() == 2
            && digits(month).is_some_and(|month| (1..=12).contains(&month))
            && domain.split('.').all(label)
            && suffix.is_none_or(|suffix| !suffix.is_empty() && !suffix.contains(char::is_control));
        valid.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAddress(pub SocketAddr);

impl Meaning for SocketAddress {
    const FORMAT: &'static str = "socket-address";
    const PATTERN: &'static str = r"^([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}$";
    const EXPECTED: &'static str = "an IP address and a port, such as 127.0.0.1:4420 or [::1]:4420";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A whole number without sign.
fn digits(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if all_digits { text.parse().ok() } else { None }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits(number)?.checked_mul(*factor)
}

fn write_with_unit(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let largest = units.iter().rev().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
    let (unit, factor) = largest.unwrap_or(&units[0]);
    write!(f, "{}{unit}", value / factor)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Good texts come back as they were; bad ones are refused; the pattern admits every good one.
    pub(crate) fn examples<T: Meaning + fmt::Display>(good: &[&str], bad: &[&str]) {
        let schema = serde_json::json!({ "pattern": T::PATTERN });
        let pattern = jsonschema::draft7::new(&schema).unwrap();
        for text in good {
            let value = T::from_text(text).unwrap_or_else(|| panic!("{text} is {}", T::EXPECTED));
            assert_eq!(value.to_string(), *text);
            assert!(pattern.is_valid(&serde_json::json!(text)), "{text} matches {}", T::PATTERN);
        }
        for text in bad {
            assert!(T::from_text(text).is_none(), "{text} is not {}", T::EXPECTED);
        }
        assert!(format(T::FORMAT).is_some_and(|(expected, _)| expected == T::EXPECTED));
    }

    #[test]
    fn texts_mean_what_they_say() {
        examples::<Size>(
            &["0B", "1B", "4KiB", "256MiB", "3TiB", "1025KiB"],
            &["", "1", "MiB", "1MB", "1 MiB", "-1B", "+1B", "1.5GiB", "99999999TiB", "1mib", "١B"],
        );
        examples::<TimeSpan>(&["0ns", "50us", "5s", "90s", "2min", "1h"], &["5", "5sec", "s", "99999999999h", "1µs"]);
        examples::<Percent>(&["0%", "75%", "100%"], &["75", "101%", "%", "-1%", "7.5%"]);
        examples::<Name>(&["d0", "0", "a.b_c-d"], &["", "-a", "a b", "a/b", "é", &"a".repeat(33)]);
        examples::<VolumePath>(&["a0/v0"], &["a0", "a0/", "/v0", "a/b/c"]);
        examples::<SocketAddress>(
            &["127.0.0.1:4420", "[::1]:4420", "0.0.0.0:0"],
            &["4420", "localhost:4420", ":1", "1.2.3.4:65536"],
        );
        examples::<Nqn>(
            &[
                "nqn.2026-01.io.brindle:demo",
                "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
                "nqn.2014-08.org.nvmexpress.discovery",
            ],
            &[
                "",
                "nqn.",
                "nqn.2026-13.io.brindle",
                "nqn.2026-1.io.brindle",
                "iqn.2026-01.io.brindle:x",
                "nqn.2026-01.io..x",
                "nqn.2026-01.io.x:",
            ],
        );
        let longest = format!("nqn.2026-01.io.x:{}", "y".repeat(MAX_NQN_BYTES - 17));
        assert!(Nqn::from_text(&longest).is_some());
        assert!(Nqn::from_text(&(longest + "y")).is_none());
    }

    #[test]
    fn a_size_is_shown_in_its_largest_whole_unit() {
        assert_eq!(Size::from_text("1024KiB").unwrap().to_string(), "1MiB");
        assert_eq!(TimeSpan::from_text("60s").unwrap().to_string(), "1min");
    }
}
