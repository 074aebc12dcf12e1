//! Scatter gather list descriptors (Base, section 4.1.2). Fabrics uses one descriptor per command: data in the capsule by
//! an offset, or data that the transport moves.

use crate::layout;

layout! {
    /// One descriptor.
    pub struct SglDescriptor: 16 {
        /// A memory address, or an offset from the start of the capsule's data.
        address: u64 = 0,
        /// Bytes described.
        length: u32 = 8,
        /// Type in the high, subtype in the low four bits.
        identifier: u8 = 15,
    }
}

/// Data Block descriptor, subtype Address (Base, figure 89).
pub const DATA_BLOCK_ADDRESS: u8 = 0x00;
/// Data Block descriptor, subtype Offset: data within the capsule.
pub const DATA_BLOCK_OFFSET: u8 = 0x01;
/// Last Segment descriptor, subtype Offset.
pub const LAST_SEGMENT_OFFSET: u8 = 0x31;
/// Transport SGL Data Block descriptor, subtype 0Ah: the transport moves the data (NVMe/TCP 1.0, section 3.2.1).
pub const TRANSPORT_DATA_BLOCK: u8 = 0x5a;

impl SglDescriptor {
    /// Data within the capsule, `offset` bytes from the start of its data.
    pub const fn in_capsule(offset: u64, length: u32) -> Self {
        Self { address: offset, length, identifier: DATA_BLOCK_OFFSET }
    }

    /// Data that the transport moves.
    pub const fn transport(length: u32) -> Self {
        Self { address: 0, length, identifier: TRANSPORT_DATA_BLOCK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let bytes = SglDescriptor::in_capsule(0x10, 0x2000).encode();
        assert_eq!(bytes, [0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x01]);
        assert_eq!(SglDescriptor::decode(&bytes), Ok(SglDescriptor::in_capsule(0x10, 0x2000)));
        assert_eq!(SglDescriptor::transport(1).encode()[15], 0x5a);
    }
}
