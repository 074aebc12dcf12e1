//! Commands and contents for hosts of the tests.

use base::BLOCK;
use nvme::entry::{PSDT_SGL, SubmissionEntry};
use nvme::opcode;
use nvme::sgl::SglDescriptor;

pub(super) fn io_entry(opcode: u8, cid: u16, lba: u64, blocks: u32, in_capsule: bool) -> SubmissionEntry {
    let length = if opcode == opcode::FLUSH || opcode == opcode::WRITE_ZEROES { 0 } else { blocks * BLOCK as u32 };
    let data = if in_capsule { SglDescriptor::in_capsule(0, length) } else { SglDescriptor::transport(length) };
    let mut entry = SubmissionEntry {
        opcode,
        flags: PSDT_SGL << 6,
        cid,
        nsid: 1,
        data,
        cdw12: blocks.saturating_sub(1),
        ..SubmissionEntry::default()
    };
    entry.set_lba(lba);
    entry
}

pub(super) fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}
