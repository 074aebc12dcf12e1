//! 128-bit identifiers as the standards store them: sixteen bytes in the order of their text form (RFC 9562, section 4).

use core::fmt;

/// A universally unique identifier. Zero means *none*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// No identifier.
    pub const NIL: Self = Self([0; 16]);

    /// A version-4 identifier made of random bits (RFC 9562, section 5.4).
    pub const fn from_random(random: [u64; 2]) -> Self {
        let mut bytes = ((random[0] as u128) << 64 | random[1] as u128).to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Whether this is *none*.
    pub fn is_nil(self) -> bool {
        self == Self::NIL
    }

    /// Reads the text form, with its four hyphens.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut digits = [0u8; 32];
        let mut n = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
            } else {
                digits[n] = char::from(byte).to_digit(16)? as u8;
                n += 1;
            }
        }
        let mut out = [0; 16];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(out))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_round_trips() {
        let text = "11111111-2222-4333-8444-555555555555";
        assert_eq!(Uuid::parse(text).map(|uuid| uuid.to_string()).as_deref(), Some(text));
        assert_eq!(Uuid::parse("11111111-2222-4333-8444-55555555555g"), None);
        assert_eq!(Uuid::parse("11111111222243338444555555555555"), None);
        assert_eq!(Uuid::from_random([0, 0]).to_string(), "00000000-0000-4000-8000-000000000000");
    }
}
