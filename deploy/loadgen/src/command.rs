//! The submission entries that this host sends, one function a command. Command identifier and data pointer are the
//! queue's to fill in. Section numbers are those of the NVM Express Base Specification 2.0 ("Base") and of the NVM
//! Command Set Specification 1.0 ("NVM").

use base::uuid::Uuid;
use nvme::entry::SubmissionEntry;
use nvme::{feature, opcode};

/// Bytes of the Connect command's data (Base, section 6.3).
pub(crate) const CONNECT_DATA_BYTES: u32 = 1024;
/// The controller identifier with which a host asks for any controller (dynamic model).
pub(crate) const ANY_CONTROLLER: u16 = 0xffff;
/// CATTR bit 2: the host asks to leave SQ flow control out.
const NO_FLOW_CONTROL: u32 = 1 << 2;

const fn fabrics(kind: u8) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::FABRICS;
    entry.nsid = kind as u32;
    entry
}

const fn empty() -> SubmissionEntry {
    <SubmissionEntry as nvme::layout::Field>::ZERO
}

/// Connect of queue `queue_id` with `entries` entries (Base, section 6.3). A queue of this host never has more requests
/// in flight than entries, so it does not need the submission queue's head.
pub(crate) const fn connect(queue_id: u16, entries: u16, keep_alive_ms: u32) -> SubmissionEntry {
    let mut entry = fabrics(opcode::FABRICS_CONNECT);
    entry.cdw10 = (queue_id as u32) << 16;
    // SQSIZE is zero-based.
    entry.cdw11 = (entries - 1) as u32 | NO_FLOW_CONTROL << 16;
    entry.cdw12 = keep_alive_ms;
    entry
}

/// Fills the data of a Connect (Base, figure 546).
///
/// # Panics
/// If `bytes` is shorter than that.
pub(crate) fn put_connect_data(bytes: &mut [u8], host: Uuid, controller: u16, subsystem_nqn: &str, host_nqn: &str) {
    base::cursor::Writer::new(&mut bytes[..CONNECT_DATA_BYTES as usize])
        .bytes(&host.0)
        .u16_le(controller)
        .pad_to(256)
        .bytes(&nvme::layout::null_padded::<256>(subsystem_nqn))
        .bytes(&nvme::layout::null_padded::<256>(host_nqn))
        .pad_to(CONNECT_DATA_BYTES as usize);
}

/// Property Get of four or eight bytes (Base, section 6.4).
pub(crate) const fn property_get(offset: u32, eight_bytes: bool) -> SubmissionEntry {
    let mut entry = fabrics(opcode::FABRICS_PROPERTY_GET);
    entry.cdw10 = eight_bytes as u32;
    entry.cdw11 = offset;
    entry
}

/// Property Set of four bytes (Base, section 6.5).
pub(crate) const fn property_set(offset: u32, value: u32) -> SubmissionEntry {
    let mut entry = fabrics(opcode::FABRICS_PROPERTY_SET);
    entry.cdw11 = offset;
    entry.cdw12 = value;
    entry
}

/// Identify (Base, section 5.17).
pub(crate) const fn identify(cns: u8, nsid: u32) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::IDENTIFY;
    entry.nsid = nsid;
    entry.cdw10 = cns as u32;
    entry
}

/// Get Log Page of `length` bytes at `offset` (Base, section 5.16); both are multiples of four.
pub(crate) const fn get_log(page: u8, offset: u64, length: u32) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::GET_LOG_PAGE;
    // NUMD is zero-based and counts dwords: its low half is in dword 10, its high half in dword 11.
    let dwords = length / 4 - 1;
    entry.cdw10 = page as u32 | dwords << 16;
    entry.cdw11 = dwords >> 16;
    entry.cdw12 = offset as u32;
    entry.cdw13 = (offset >> 32) as u32;
    entry
}

/// Set Features: Number of Queues, the same number of submission and completion queues (Base, section 5.27.1.5).
pub(crate) const fn set_queue_count(queues: u16) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::SET_FEATURES;
    entry.cdw10 = feature::NUMBER_OF_QUEUES as u32;
    let zero_based = queues as u32 - 1;
    entry.cdw11 = zero_based | zero_based << 16;
    entry
}

/// Keep Alive (Base, section 5.18).
pub(crate) const fn keep_alive() -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::KEEP_ALIVE;
    entry
}

/// Abort of a command of a queue (Base, section 5.1).
pub(crate) const fn abort(queue_id: u16, cid: u16) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::ABORT;
    entry.cdw10 = queue_id as u32 | (cid as u32) << 16;
    entry
}

/// An I/O command on `blocks` logical blocks from `lba` (NVM, section 3.2).
pub(crate) const fn block_command(opcode: u8, nsid: u32, lba: u64, blocks: u32) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode;
    entry.nsid = nsid;
    entry.set_lba(lba);
    // NLB is zero-based.
    entry.cdw12 = blocks - 1;
    entry
}

/// Dataset Management, Deallocate (NVM, section 3.2.3).
pub(crate) const fn deallocate(nsid: u32, ranges: u32) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::DATASET_MANAGEMENT;
    entry.nsid = nsid;
    // NR is zero-based.
    entry.cdw10 = ranges - 1;
    entry.cdw11 = nvme::dataset::DEALLOCATE;
    entry
}

/// Flush (Base, section 7.1).
pub(crate) const fn flush(nsid: u32) -> SubmissionEntry {
    let mut entry = empty();
    entry.opcode = opcode::FLUSH;
    entry.nsid = nsid;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_has_its_golden_bytes() {
        let bytes = connect(3, 128, 5000).encode();
        assert_eq!((bytes[0], bytes[4]), (0x7f, 0x01));
        assert_eq!(bytes[40..52], [0, 0, 3, 0, 127, 0, 4, 0, 0x88, 0x13, 0, 0]);
        let mut data = [0xee; 1024];
        put_connect_data(&mut data, Uuid([7; 16]), ANY_CONTROLLER, "nqn.s", "nqn.h");
        assert_eq!((&data[..16], &data[16..19]), (&[7; 16][..], &[0xff, 0xff, 0][..]));
        assert_eq!((&data[256..262], &data[512..518]), (&b"nqn.s\0"[..], &b"nqn.h\0"[..]));
        assert!(data[768..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn properties_logs_and_blocks_have_their_golden_bytes() {
        let bytes = property_get(0x14, true).encode();
        assert_eq!((bytes[4], &bytes[40..48]), (4, &[1, 0, 0, 0, 0x14, 0, 0, 0][..]));
        let bytes = property_set(0x14, 0x0046_0001).encode();
        assert_eq!((bytes[4], &bytes[44..52]), (0, &[0x14, 0, 0, 0, 1, 0, 0x46, 0][..]));
        let bytes = get_log(0x70, 1024, 0x4_0000).encode();
        assert_eq!(bytes[40..56], [0x70, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0]);
        let bytes = abort(2, 0x31).encode();
        assert_eq!((bytes[0], &bytes[40..44]), (opcode::ABORT, &[2, 0, 0x31, 0][..]));
        let bytes = block_command(opcode::WRITE, 1, 0x1_0000_0002, 256).encode();
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0]);
        assert_eq!(set_queue_count(4).encode()[40..48], [7, 0, 0, 0, 3, 0, 3, 0]);
    }
}
