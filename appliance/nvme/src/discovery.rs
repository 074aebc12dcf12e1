//! The discovery log page (Base, section 5.16.1.23): a header and one entry for each way to reach a subsystem.

use crate::layout;

/// The well-known name of discovery subsystems (Base, section 4.5).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

layout! {
    /// The header; entries follow at byte 1024.
    pub struct DiscoveryHeader: 1024 {
        /// GENCTR: changes of the page.
        generation: u64 = 0,
        /// NUMREC: entries.
        records: u64 = 8,
        /// RECFMT: 0.
        format: u16 = 16,
    }
}

layout! {
    /// One entry (Base, figure 293).
    pub struct DiscoveryEntry: 1024 {
        /// TRTYPE.
        transport: u8 = 0,
        /// ADRFAM.
        address_family: u8 = 1,
        /// SUBTYPE.
        subsystem_type: u8 = 2,
        /// TREQ: bits 1:0 whether a secure channel is required, bit 2 SQ flow control may be disabled.
        requirements: u8 = 3,
        /// PORTID.
        port_id: u16 = 4,
        /// CNTLID: FFFFh is the dynamic controller model.
        controller_id: u16 = 6,
        /// ASQSZ: largest admin submission queue.
        admin_queue_entries: u16 = 8,
        /// EFLAGS: bit 0 the same information comes from other entries' ports, bit 1 explicit persistent connections.
        flags: u16 = 10,
        /// TRSVCID: the port in decimal, padded with spaces.
        service: [u8; 32] = 32,
        /// SUBNQN, padded with NUL.
        subsystem_nqn: [u8; 256] = 256,
        /// TRADDR: the address as text, padded with spaces.
        address: [u8; 256] = 512,
        /// TSAS: for TCP, SECTYPE in its first byte (0 none, 2 TLS 1.3).
        transport_specific: [u8; 256] = 768,
    }
}

/// TRTYPE: TCP.
pub const TRANSPORT_TCP: u8 = 3;
/// ADRFAM: IPv4.
pub const FAMILY_IPV4: u8 = 1;
/// ADRFAM: IPv6.
pub const FAMILY_IPV6: u8 = 2;
/// SUBTYPE: a referral to another discovery subsystem.
pub const SUBSYSTEM_REFERRAL: u8 = 1;
/// SUBTYPE: an NVM subsystem.
pub const SUBSYSTEM_NVM: u8 = 2;
/// SUBTYPE: the discovery subsystem that answers (TP 8013).
pub const SUBSYSTEM_CURRENT_DISCOVERY: u8 = 3;
/// TREQ: a secure channel is not required.
pub const SECURE_NOT_REQUIRED: u8 = 2;
/// TREQ bit 2: a host may disable SQ flow control.
pub const FLOW_CONTROL_OPTIONAL: u8 = 1 << 2;
/// EFLAGS bit 1: explicit persistent connections (TP 8013).
pub const FLAG_PERSISTENT: u16 = 1 << 1;
/// CNTLID: controllers are made when hosts connect.
pub const DYNAMIC_CONTROLLER: u16 = 0xffff;

/// The whole page.
pub fn page(generation: u64, entries: &[DiscoveryEntry]) -> Vec<u8> {
    let mut bytes = vec![0; DiscoveryHeader::SIZE + entries.len() * DiscoveryEntry::SIZE];
    DiscoveryHeader { generation, records: entries.len() as u64, format: 0 }.encode_into(&mut bytes);
    for (place, entry) in bytes[DiscoveryHeader::SIZE..].chunks_exact_mut(DiscoveryEntry::SIZE).zip(entries) {
        entry.encode_into(place);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{null_padded, padded, text};

    #[test]
    fn a_page_has_its_golden_bytes_and_reads_back() {
        let entry = DiscoveryEntry {
            transport: TRANSPORT_TCP,
            address_family: FAMILY_IPV4,
            subsystem_type: SUBSYSTEM_NVM,
            requirements: SECURE_NOT_REQUIRED | FLOW_CONTROL_OPTIONAL,
            port_id: 1,
            controller_id: DYNAMIC_CONTROLLER,
            admin_queue_entries: 32,
            service: padded("4420"),
            subsystem_nqn: null_padded("nqn.2014-08.org.example:v"),
            address: padded("127.0.0.1"),
            ..DiscoveryEntry::default()
        };
        let page = page(3, &[entry, entry]);
        assert_eq!(page.len(), 3 * 1024);
        assert_eq!((page[0], page[8], page[16]), (3, 2, 0));
        assert_eq!(page[1024..1034], [3, 1, 2, 6, 1, 0, 0xff, 0xff, 32, 0]);
        assert_eq!(&page[1024 + 32..1024 + 37], b"4420 ");
        assert_eq!(&page[1024 + 512..1024 + 522], b"127.0.0.1 ");
        let again = DiscoveryEntry::decode(&page[2048..]).expect("whole");
        assert_eq!(again, entry);
        assert_eq!(text(&again.service), Some("4420"));
        assert_eq!(text(&again.subsystem_nqn), Some("nqn.2014-08.org.example:v"));
        assert_eq!(DiscoveryHeader::decode(&page).map(|header| header.records), Ok(2));
    }
}
