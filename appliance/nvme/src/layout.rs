//! A macro that declares a structure as the specifications do: each field with its offset in bytes. From it follow the
//! struct, its zero value, `encode` and `decode`; fields that overlap, stand out of order or do not fit fail to compile.
//! Bytes between the fields are reserved: written as zero, ignored when read.

/// What can stand in a structure: a little-endian number, bytes, or a structure of fixed size.
pub trait Field: Sized + Copy {
    /// Bytes that it takes.
    const SIZE: usize;

    /// The value of all zero bytes.
    const ZERO: Self;

    /// Reads it from exactly [`Field::SIZE`] bytes.
    fn get(bytes: &[u8]) -> Self;

    /// Writes it to exactly [`Field::SIZE`] bytes.
    fn put(self, bytes: &mut [u8]);
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const SIZE: usize = size_of::<$type>();
            const ZERO: Self = 0;

            #[inline]
            fn get(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("a field is read from its own bytes"))
            }

            #[inline]
            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, u128);

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;
    const ZERO: Self = [0; N];

    #[inline]
    fn get(bytes: &[u8]) -> Self {
        bytes.try_into().expect("a field is read from its own bytes")
    }

    #[inline]
    fn put(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self);
    }
}

/// Declares a structure by its offsets. `pub struct Name: SIZE { field: type = offset, … }`, every item documented.
#[macro_export]
macro_rules! layout {
    ($(#[$doc:meta])* pub struct $name:ident : $size:literal {
        $($(#[$field_doc:meta])* $field:ident : $type:ty = $offset:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = {
            let mut end = 0;
            $(
                assert!($offset >= end, "a field begins before the one above it ends");
                end = $offset + <$type as $crate::layout::Field>::SIZE;
            )*
            assert!(end <= $size, "a field reaches beyond the structure");
        };

        impl $name {
            /// Bytes of the structure.
            pub const SIZE: usize = $size;

            /// Writes it into the first [`Self::SIZE`] bytes; reserved bytes become zero.
            ///
            /// # Panics
            /// If there are fewer.
            #[inline]
            pub fn encode_into(&self, bytes: &mut [u8]) {
                let bytes: &mut [u8; $size] = bytes.first_chunk_mut().expect("room for the structure");
                bytes.fill(0);
                $(
                    $crate::layout::Field::put(
                        self.$field,
                        &mut bytes[$offset..$offset + <$type as $crate::layout::Field>::SIZE],
                    );
                )*
            }

            /// The structure as bytes.
            #[inline]
            pub fn encode(&self) -> [u8; $size] {
                let mut bytes = [0; $size];
                self.encode_into(&mut bytes);
                bytes
            }

            /// Reads it from the first [`Self::SIZE`] bytes; reserved bytes are ignored.
            #[inline]
            pub fn decode(bytes: &[u8]) -> Result<Self, base::cursor::Truncated> {
                let bytes: &[u8; $size] = bytes.first_chunk().ok_or(base::cursor::Truncated)?;
                Ok(Self {
                    $($field: <$type as $crate::layout::Field>::get(
                        &bytes[$offset..$offset + <$type as $crate::layout::Field>::SIZE],
                    ),)*
                })
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: <$type as $crate::layout::Field>::ZERO,)* }
            }
        }

        impl $crate::layout::Field for $name {
            const SIZE: usize = $size;
            const ZERO: Self = Self { $($field: <$type as $crate::layout::Field>::ZERO,)* };

            #[inline]
            fn get(bytes: &[u8]) -> Self {
                Self::decode(bytes).expect("a field is read from its own bytes")
            }

            #[inline]
            fn put(self, bytes: &mut [u8]) {
                self.encode_into(bytes);
            }
        }
    };
}

/// ASCII text in a fixed field, padded with spaces (Base, section 1.4.2); what is too long is cut.
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
        *place = if byte.is_ascii() && !byte.is_ascii_control() { byte } else { b'?' };
    }
    bytes
}

/// UTF-8 text in a fixed field, padded with NUL bytes; what is too long is cut.
pub fn null_padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    bytes
}

/// The text before the first NUL byte without spaces around it, or nothing if it is not UTF-8.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    core::str::from_utf8(&bytes[..end]).ok().map(str::trim)
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro makes public structures")]
mod tests {
    use super::*;

    layout! {
        /// A structure with a gap.
        pub struct Sample: 12 {
            /// First.
            first: u16 = 1,
            /// Second.
            second: u32 = 4,
            /// Third.
            third: [u8; 3] = 8,
        }
    }

    #[test]
    fn fields_stand_at_their_offsets_and_gaps_are_zero() {
        let sample = Sample { first: 0x0201, second: 0x0605_0403, third: *b"abc" };
        let bytes = sample.encode();
        assert_eq!(bytes, [0, 1, 2, 0, 3, 4, 5, 6, b'a', b'b', b'c', 0]);
        assert_eq!(Sample::decode(&bytes), Ok(sample));
        for short in 0..Sample::SIZE {
            assert!(Sample::decode(&bytes[..short]).is_err());
        }
    }

    #[test]
    fn text_is_padded_cut_and_read_back() {
        assert_eq!(&padded::<5>("ab"), b"ab   ");
        assert_eq!(&padded::<2>("abc"), b"ab");
        assert_eq!(&padded::<3>("a\né"), b"a??");
        assert_eq!(text(&padded::<5>("ab")), Some("ab"));
        assert_eq!(text(&null_padded::<5>("nqn")), Some("nqn"));
        assert_eq!(text(&[0xff, 0]), None);
    }
}
