//! Submission and completion queue entries (Base, sections 3.3.3.1 and 3.3.3.2). Nothing is judged here: an entry from a
//! peer is decoded as it is.

use crate::layout;
use crate::layout::Field;
use crate::sgl::SglDescriptor;
use crate::status::Status;

layout! {
    /// A submission queue entry.
    pub struct SubmissionEntry: 64 {
        /// What to do.
        opcode: u8 = 0,
        /// Fused operation (bits 1:0) and PRP or SGL (bits 7:6).
        flags: u8 = 1,
        /// The command's name among those in flight on its queue.
        cid: u16 = 2,
        /// Namespace; in a Fabrics command its first byte is the command's type.
        nsid: u32 = 4,
        /// Command dword 2.
        cdw2: u32 = 8,
        /// Command dword 3.
        cdw3: u32 = 12,
        /// Metadata pointer.
        metadata: u64 = 16,
        /// Data pointer: over Fabrics always one SGL descriptor.
        data: SglDescriptor = 24,
        /// Command dword 10.
        cdw10: u32 = 40,
        /// Command dword 11.
        cdw11: u32 = 44,
        /// Command dword 12.
        cdw12: u32 = 48,
        /// Command dword 13.
        cdw13: u32 = 52,
        /// Command dword 14.
        cdw14: u32 = 56,
        /// Command dword 15.
        cdw15: u32 = 60,
    }
}

/// PSDT: PRPs (Base, figure 87).
pub const PSDT_PRP: u8 = 0b00;
/// PSDT: an SGL, metadata contiguous. The only form over Fabrics.
pub const PSDT_SGL: u8 = 0b01;
/// PSDT: an SGL, metadata by an SGL.
pub const PSDT_SGL_METADATA: u8 = 0b10;

/// FUSE: the first of a fused pair.
pub const FUSE_FIRST: u8 = 0b01;
/// FUSE: the second.
pub const FUSE_SECOND: u8 = 0b10;

impl SubmissionEntry {
    /// FUSE: 0 none, 1 first of a fused pair, 2 second, 3 reserved.
    #[inline]
    pub const fn fuse(&self) -> u8 {
        self.flags & 0b11
    }

    /// PSDT: PRP or SGL for data transfer.
    #[inline]
    pub const fn psdt(&self) -> u8 {
        self.flags >> 6
    }

    /// The type of a Fabrics command (Base, figure 44: byte 4).
    #[inline]
    pub const fn fabrics_type(&self) -> u8 {
        self.nsid as u8
    }

    /// First logical block of an I/O command (NVM, section 3.2: dwords 10 and 11).
    #[inline]
    pub const fn lba(&self) -> u64 {
        self.cdw10 as u64 | (self.cdw11 as u64) << 32
    }

    /// Sets the first logical block.
    pub const fn set_lba(&mut self, lba: u64) {
        self.cdw10 = lba as u32;
        self.cdw11 = (lba >> 32) as u32;
    }

    /// Logical blocks of an I/O command: the field is zero-based.
    #[inline]
    pub const fn block_count(&self) -> u32 {
        (self.cdw12 & 0xffff) + 1
    }
}

layout! {
    /// A completion queue entry.
    pub struct CompletionEntry: 16 {
        /// Command-specific result: dwords 0 and 1.
        result: u64 = 0,
        /// Submission queue head pointer.
        sq_head: u16 = 8,
        /// Submission queue identifier; reserved over Fabrics.
        sq_id: u16 = 10,
        /// The command that completed.
        cid: u16 = 12,
        /// Phase tag (reserved over Fabrics) in bit 0, status above it.
        status: StatusField = 14,
    }
}

/// The last word of a completion entry: phase tag and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusField {
    /// Phase tag; zero over Fabrics.
    pub phase: bool,
    /// How the command ended.
    pub status: Status,
}

impl Field for StatusField {
    const SIZE: usize = 2;
    const ZERO: Self = Self { phase: false, status: Status::SUCCESS };

    fn get(bytes: &[u8]) -> Self {
        let word = <u16 as Field>::get(bytes);
        Self { phase: word & 1 != 0, status: Status(word >> 1) }
    }

    fn put(self, bytes: &mut [u8]) {
        (self.status.0 << 1 | u16::from(self.phase)).put(bytes);
    }
}

impl CompletionEntry {
    /// A completion as Fabrics sends it: no queue identifier, no phase.
    #[inline]
    pub const fn fabrics(cid: u16, sq_head: u16, status: Status, result: u64) -> Self {
        Self { result, sq_head, sq_id: 0, cid, status: StatusField { phase: false, status } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opcode;

    #[test]
    fn a_write_has_its_golden_bytes() {
        let mut entry = SubmissionEntry {
            opcode: opcode::WRITE,
            flags: PSDT_SGL << 6,
            cid: 0x1234,
            nsid: 1,
            data: SglDescriptor::transport(0x8000),
            cdw12: 7,
            ..SubmissionEntry::default()
        };
        entry.set_lba(0x0102_0304_0506_0708);
        let bytes = entry.encode();
        assert_eq!(bytes[..8], [0x01, 0x40, 0x34, 0x12, 1, 0, 0, 0]);
        assert_eq!(bytes[24..40], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0x5a]);
        assert_eq!(bytes[40..52], [8, 7, 6, 5, 4, 3, 2, 1, 7, 0, 0, 0]);
        let again = SubmissionEntry::decode(&bytes).expect("whole");
        assert_eq!((again, again.lba(), again.block_count()), (entry, 0x0102_0304_0506_0708, 8));
        assert_eq!((again.fuse(), again.psdt()), (0, PSDT_SGL));
        for short in 0..SubmissionEntry::SIZE {
            assert!(SubmissionEntry::decode(&bytes[..short]).is_err());
        }
    }

    #[test]
    fn a_completion_has_its_golden_bytes() {
        let entry = CompletionEntry::fabrics(9, 3, Status::INVALID_FIELD.do_not_retry(), 0x11);
        let bytes = entry.encode();
        assert_eq!(bytes, [0x11, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0x04, 0x80]);
        assert_eq!(CompletionEntry::decode(&bytes), Ok(entry));
        for short in 0..CompletionEntry::SIZE {
            assert!(CompletionEntry::decode(&bytes[..short]).is_err());
        }
    }
}
