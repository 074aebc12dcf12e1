//! Log pages (Base, section 5.16.1): identifiers, structures and whole pages made from what the caller knows.

use crate::layout;
use crate::opcode;

/// Supported Log Pages.
pub const SUPPORTED_PAGES: u8 = 0x00;
/// Error Information.
pub const ERROR_INFORMATION: u8 = 0x01;
/// SMART / Health Information.
pub const SMART: u8 = 0x02;
/// Firmware Slot Information.
pub const FIRMWARE_SLOT: u8 = 0x03;
/// Changed Namespace List.
pub const CHANGED_NAMESPACES: u8 = 0x04;
/// Commands Supported and Effects.
pub const EFFECTS: u8 = 0x05;
/// Asymmetric Namespace Access.
pub const ANA: u8 = 0x0c;
/// Discovery.
pub const DISCOVERY: u8 = 0x70;

/// Bytes of the Supported Log Pages page.
pub const SUPPORTED_PAGES_BYTES: usize = 1024;
/// Bytes of the Changed Namespace List: 1024 identifiers.
pub const CHANGED_NAMESPACES_BYTES: usize = 4096;
/// Bytes of the Commands Supported and Effects page.
pub const EFFECTS_BYTES: usize = 4096;

layout! {
    /// SMART / Health Information (Base, figure 207).
    pub struct SmartLog: 512 {
        /// Bit 0 spare low, 1 temperature, 2 reliability degraded, 3 read-only, 4 backup failed.
        critical_warning: u8 = 0,
        /// Composite temperature, kelvin.
        temperature_k: u16 = 1,
        /// Available spare, per cent.
        spare_percent: u8 = 3,
        /// Below this the spare is low, per cent.
        spare_threshold_percent: u8 = 4,
        /// Life used, per cent; may pass 100.
        used_percent: u8 = 5,
        /// Read by hosts, in thousands of 512 bytes, rounded up.
        units_read: u128 = 32,
        /// Written by hosts, in thousands of 512 bytes, rounded up.
        units_written: u128 = 48,
        /// Read commands completed.
        reads: u128 = 64,
        /// Write commands completed.
        writes: u128 = 80,
        /// Time with commands in flight, minutes.
        busy_minutes: u128 = 96,
        /// Power cycles: starts.
        power_cycles: u128 = 112,
        /// Hours since the first start.
        power_on_hours: u128 = 128,
        /// Ends without a shutdown.
        unsafe_shutdowns: u128 = 144,
        /// Data that could not be had, or failed its check.
        media_errors: u128 = 160,
        /// Entries ever made in the error log.
        error_entries: u128 = 176,
    }
}

/// Critical warning: a device of the array has failed (reliability degraded).
pub const WARNING_RELIABILITY: u8 = 1 << 2;
/// Critical warning: the media take no writes.
pub const WARNING_READ_ONLY: u8 = 1 << 3;

/// Bytes as SMART counts them: thousands of 512 bytes, rounded up.
pub const fn data_units(bytes: u128) -> u128 {
    bytes.div_ceil(512_000)
}

layout! {
    /// One entry of the Error Information page (Base, figure 206).
    pub struct ErrorEntry: 64 {
        /// Counts all errors; 0 is no entry.
        count: u64 = 0,
        /// Queue of the command.
        sq_id: u16 = 8,
        /// The command.
        cid: u16 = 10,
        /// Status word as in its completion, phase tag in bit 0.
        status: u16 = 12,
        /// Byte (7:0) and bit (10:8) of the parameter in error; FFFFh when there is none.
        location: u16 = 14,
        /// First block that failed.
        lba: u64 = 16,
        /// Namespace.
        nsid: u32 = 24,
        /// Transport type: 3 is TCP.
        transport: u8 = 29,
    }
}

layout! {
    /// Firmware Slot Information (Base, figure 208) of one slot.
    pub struct FirmwareSlotLog: 512 {
        /// AFI: the active slot in bits 2:0.
        active: u8 = 0,
        /// FRS1, padded with spaces.
        slot_1: [u8; 8] = 8,
    }
}

/// Supported Log Pages (Base, figure 203): four bytes for each identifier, bit 0 says that it is there.
pub fn supported_pages(pages: &[u8]) -> [u8; SUPPORTED_PAGES_BYTES] {
    let mut bytes = [0; SUPPORTED_PAGES_BYTES];
    for &page in pages {
        bytes[usize::from(page) * 4] = 1;
    }
    bytes
}

/// Effects: the command is supported (Base, figure 211).
pub const EFFECT_SUPPORTED: u32 = 1;
/// Effects: it changes the content of logical blocks.
pub const EFFECT_CONTENT_CHANGE: u32 = 1 << 1;

/// Commands Supported and Effects: which commands there are. Reserved bits and all other effects are zero.
pub fn effects(admin: &[u8], io: &[u8]) -> [u8; EFFECTS_BYTES] {
    let mut bytes = [0; EFFECTS_BYTES];
    let mut put = |at: usize, effect: u32| bytes[at..at + 4].copy_from_slice(&effect.to_le_bytes());
    for &code in admin {
        put(usize::from(code) * 4, EFFECT_SUPPORTED);
    }
    for &code in io {
        let changes = matches!(code, opcode::WRITE | opcode::WRITE_ZEROES | opcode::DATASET_MANAGEMENT);
        put(1024 + usize::from(code) * 4, EFFECT_SUPPORTED | if changes { EFFECT_CONTENT_CHANGE } else { 0 });
    }
    bytes
}

layout! {
    /// Header of the Asymmetric Namespace Access page (Base, figure 221).
    pub struct AnaHeader: 16 {
        /// Changes since the subsystem started.
        change_count: u64 = 0,
        /// Group descriptors that follow.
        groups: u16 = 8,
    }
}

layout! {
    /// A group descriptor of that page; its namespace identifiers follow, four bytes each.
    pub struct AnaGroup: 32 {
        /// ANAGRPID.
        group: u32 = 0,
        /// Namespace identifiers that follow.
        namespaces: u32 = 4,
        /// Changes of this group.
        change_count: u64 = 8,
        /// Its state.
        state: u8 = 16,
    }
}

/// ANA state: optimized.
pub const ANA_OPTIMIZED: u8 = 1;
/// ANA state: inaccessible.
pub const ANA_INACCESSIBLE: u8 = 3;

/// The page of one group whose namespaces all have one state; `groups_only` leaves out the identifiers (RGO).
pub fn ana_page(change_count: u64, group: u32, state: u8, nsids: &[u32], groups_only: bool) -> Vec<u8> {
    let listed = if groups_only { &[] } else { nsids };
    let mut bytes = vec![0; AnaHeader::SIZE + AnaGroup::SIZE + listed.len() * 4];
    AnaHeader { change_count, groups: 1 }.encode_into(&mut bytes);
    let count = u32::try_from(listed.len()).expect("fewer than 2^32 namespaces");
    AnaGroup { group, namespaces: count, change_count, state }.encode_into(&mut bytes[AnaHeader::SIZE..]);
    for (place, nsid) in bytes[AnaHeader::SIZE + AnaGroup::SIZE..].chunks_exact_mut(4).zip(listed) {
        place.copy_from_slice(&nsid.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smart_fields_stand_where_the_figure_says() {
        let log = SmartLog { temperature_k: 300, units_read: 5, unsafe_shutdowns: 2, ..SmartLog::default() };
        let bytes = log.encode();
        assert_eq!(bytes[..4], [0, 0x2c, 1, 0]);
        assert_eq!((bytes[32], bytes[144]), (5, 2));
        assert_eq!(SmartLog::decode(&bytes), Ok(log));
        assert_eq!((data_units(0), data_units(1), data_units(512_000), data_units(512_001)), (0, 1, 1, 2));
    }

    #[test]
    fn small_pages_have_their_golden_bytes() {
        let entry = ErrorEntry { count: 1, cid: 2, status: 4, nsid: 3, transport: 3, ..ErrorEntry::default() };
        let bytes = entry.encode();
        assert_eq!((bytes[0], bytes[10], bytes[12], bytes[24], bytes[29]), (1, 2, 4, 3, 3));
        assert_eq!(ErrorEntry::decode(&bytes), Ok(entry));
        let slot = FirmwareSlotLog { active: 1, slot_1: *b"0.1     " }.encode();
        assert_eq!(slot[..12], [1, 0, 0, 0, 0, 0, 0, 0, b'0', b'.', b'1', b' ']);
        let pages = supported_pages(&[SMART, DISCOVERY]);
        assert_eq!((pages[8], pages[0x1c0], pages.iter().map(|&byte| u32::from(byte)).sum::<u32>()), (1, 1, 2));
        let page = effects(&[opcode::IDENTIFY], &[opcode::READ, opcode::WRITE]);
        assert_eq!((page[24], page[1024 + 8], page[1024 + 4]), (1, 1, 3));
    }

    #[test]
    fn the_ana_page_lists_its_group() {
        let page = ana_page(7, 1, ANA_OPTIMIZED, &[1, 4], false);
        assert_eq!(page.len(), 16 + 32 + 8);
        assert_eq!((page[0], page[8], page[16], page[20], page[32], page[48], page[52]), (7, 1, 1, 2, 1, 1, 4));
        assert_eq!(AnaGroup::decode(&page[16..]).map(|group| (group.namespaces, group.state)), Ok((2, 1)));
        assert_eq!(ana_page(7, 1, ANA_OPTIMIZED, &[1, 4], true).len(), 48);
    }
}
