//! Byte cursors for wire and disk formats: every read is bounded, running out of bytes is an error and never a panic.
//! A [`Writer`] fills a slice that its caller sized; running out there is our own mistake and panics.

/// The bytes ended before the field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

impl core::fmt::Display for Truncated {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the bytes end before the field does")
    }
}

impl core::error::Error for Truncated {}

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! reads {
    ($($name:ident $type:ty, $from:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub fn $name(&mut self) -> Result<$type, Truncated> {
            self.array().map(<$type>::$from)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything not yet read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// Steps over `n` bytes.
    pub fn skip(&mut self, n: usize) -> Result<(), Truncated> {
        self.bytes(n).map(|_| ())
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    reads! {
        u8 u8, from_le_bytes, "One byte.";
        u16_le u16, from_le_bytes, "A little-endian 16-bit number.";
        u32_le u32, from_le_bytes, "A little-endian 32-bit number.";
        u64_le u64, from_le_bytes, "A little-endian 64-bit number.";
        u128_le u128, from_le_bytes, "A little-endian 128-bit number.";
        u16_be u16, from_be_bytes, "A big-endian 16-bit number.";
        u32_be u32, from_be_bytes, "A big-endian 32-bit number.";
        u64_be u64, from_be_bytes, "A big-endian 64-bit number.";
    }
}

/// Writes fields to the front of a slice that is large enough.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

macro_rules! writes {
    ($($name:ident $type:ty, $to:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub fn $name(&mut self, value: $type) -> &mut Self {
            self.bytes(&value.$to())
        }
    )*};
}

impl<'a> Writer<'a> {
    /// A writer that fills `bytes` from their start.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes written so far.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Copies `source`.
    ///
    /// # Panics
    /// If the slice ends first.
    pub fn bytes(&mut self, source: &[u8]) -> &mut Self {
        self.bytes[self.at..self.at + source.len()].copy_from_slice(source);
        self.at += source.len();
        self
    }

    /// Writes `n` zero bytes.
    ///
    /// # Panics
    /// If the slice ends first.
    pub fn zeros(&mut self, n: usize) -> &mut Self {
        self.bytes[self.at..self.at + n].fill(0);
        self.at += n;
        self
    }

    /// Zeros up to offset `at`, where the next field begins.
    ///
    /// # Panics
    /// If `at` has been passed or lies beyond the end.
    pub fn pad_to(&mut self, at: usize) -> &mut Self {
        assert!(at >= self.at, "offset {at} has been passed: already at {}", self.at);
        self.zeros(at - self.at)
    }

    writes! {
        u8 u8, to_le_bytes, "One byte.";
        u16_le u16, to_le_bytes, "A little-endian 16-bit number.";
        u32_le u32, to_le_bytes, "A little-endian 32-bit number.";
        u64_le u64, to_le_bytes, "A little-endian 64-bit number.";
        u128_le u128, to_le_bytes, "A little-endian 128-bit number.";
        u16_be u16, to_be_bytes, "A big-endian 16-bit number.";
        u32_be u32, to_be_bytes, "A big-endian 32-bit number.";
        u64_be u64, to_be_bytes, "A big-endian 64-bit number.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_every_truncation_is_an_error() {
        let mut bytes = [0; 32];
        let mut writer = Writer::new(&mut bytes);
        writer.u8(1).u16_le(2).u32_be(3).u64_le(4).pad_to(20).bytes(b"abc");
        let length = writer.position();
        let read = |bytes: &[u8]| -> Result<(u8, u16, u32, u64, [u8; 3]), Truncated> {
            let mut reader = Reader::new(bytes);
            let fields = (reader.u8()?, reader.u16_le()?, reader.u32_be()?, reader.u64_le()?);
            reader.skip(5)?;
            Ok((fields.0, fields.1, fields.2, fields.3, reader.array()?))
        };
        assert_eq!(read(&bytes[..length]), Ok((1, 2, 3, 4, *b"abc")));
        for short in 0..length {
            assert_eq!(read(&bytes[..short]), Err(Truncated));
        }
    }
}
