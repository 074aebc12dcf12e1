//! Identifiers as text within the JSON: exact in every reader, where numbers above 2^53 would not be.

/// With hyphens.
pub(super) mod uuid {
    use base::uuid::Uuid;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(uuid: &Uuid, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(uuid)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(from)?;
        Uuid::parse(&text).ok_or_else(|| D::Error::custom("a UUID is 32 hexadecimal digits and four hyphens"))
    }
}

/// Its length in bytes.
pub(super) mod logical {
    use base::sector::LogicalBlock;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub(in super::super) fn serialize<S: Serializer>(logical: &LogicalBlock, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(logical.bytes())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LogicalBlock, D::Error> {
        let bytes = u32::deserialize(from)?;
        LogicalBlock::of_bytes(bytes).ok_or_else(|| D::Error::custom("a logical block has 512 or 4096 bytes"))
    }
}

/// 32 hexadecimal digits.
pub(super) mod nguid {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(nguid: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:032x}", u128::from_be_bytes(*nguid)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(from)?;
        let digits = super::digits(&text, 32).ok_or_else(|| D::Error::custom("an NGUID is 32 hexadecimal digits"))?;
        Ok(digits.to_be_bytes())
    }
}

/// 16 hexadecimal digits.
pub(super) mod eui64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(eui64: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{eui64:016x}"))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let digits = super::digits(&text, 16).ok_or_else(|| D::Error::custom("an EUI-64 is 16 hexadecimal digits"))?;
        Ok(digits as u64)
    }
}

/// The number of exactly `count` hexadecimal digits; `from_str_radix` alone would take a sign.
fn digits(text: &str, count: usize) -> Option<u128> {
    let whole = text.len() == count && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if whole { u128::from_str_radix(text, 16).ok() } else { None }
}

/// A number of blocks as people say it.
pub(super) fn amount(blocks: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (blocks as f64 * 4.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    // Never more than there is.
    let tenths = (value * 10.0).floor() / 10.0;
    format!("{tenths} {}", UNITS[unit])
}

/// What will be free later.
pub(super) fn cleaning(blocks: u64) -> String {
    if blocks == 0 {
        String::new()
    } else {
        format!("; {} of deleted volumes are being zeroed and will be", amount(blocks))
    }
}
