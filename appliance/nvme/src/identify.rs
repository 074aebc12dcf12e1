//! Identify data structures (Base, section 5.17.2; NVM, section 4.1.5): controller, namespace, lists and descriptors. Each
//! is 4096 bytes. Only fields that a Fabrics target fills or a host reads are named; the rest are zero.

use base::uuid::Uuid;

use crate::layout;

/// Bytes of every Identify data structure.
pub const IDENTIFY_BYTES: usize = 4096;

/// An Identify data structure as bytes.
pub type IdentifyBytes = [u8; IDENTIFY_BYTES];

/// Entries of a namespace list.
pub const NAMESPACE_LIST_ENTRIES: usize = IDENTIFY_BYTES / 4;

/// Most entries of a controller list (Base, section 4.4.1): two bytes each, after the count.
pub const CONTROLLER_LIST_ENTRIES: usize = 2047;

/// CNTRLTYPE of an I/O controller.
pub const CONTROLLER_TYPE_IO: u8 = 1;
/// CNTRLTYPE of a discovery controller.
pub const CONTROLLER_TYPE_DISCOVERY: u8 = 2;

layout! {
    /// Identify Controller (Base, figure 275).
    pub struct IdentifyController: 4096 {
        /// VID: PCI vendor.
        vendor: u16 = 0,
        /// SSVID: PCI subsystem vendor.
        subsystem_vendor: u16 = 2,
        /// SN: serial number, padded with spaces.
        serial: [u8; 20] = 4,
        /// MN: model number, padded with spaces.
        model: [u8; 40] = 24,
        /// FR: firmware revision, padded with spaces.
        firmware: [u8; 8] = 64,
        /// RAB: recommended arbitration burst, 2^n commands.
        arbitration_burst: u8 = 72,
        /// IEEE OUI.
        oui: [u8; 3] = 73,
        /// CMIC: bit 0 several ports, bit 1 several controllers, bit 3 asymmetric namespace access reporting.
        multipath: u8 = 76,
        /// MDTS: most data of a command, 2^n pages; 0 is no limit.
        max_data_transfer: u8 = 77,
        /// CNTLID.
        controller_id: u16 = 78,
        /// VER.
        version: u32 = 80,
        /// OAES: asynchronous events supported.
        async_events: u32 = 92,
        /// CTRATT: attributes; bit 0 128-bit host identifiers, bit 6 traffic based keep alive.
        attributes: u32 = 96,
        /// CNTRLTYPE.
        controller_type: u8 = 111,
        /// FGUID.
        fru_guid: [u8; 16] = 112,
        /// CRDT1 to CRDT3: command retry delays in units of 100 ms.
        retry_delay_100ms: RetryDelays = 128,
        /// OACS: optional admin commands.
        optional_admin_commands: u16 = 256,
        /// ACL: Abort commands at a time, zero-based.
        abort_limit: u8 = 258,
        /// AERL: Asynchronous Event Requests at a time, zero-based.
        async_event_limit: u8 = 259,
        /// FRMW: firmware slots.
        firmware_updates: u8 = 260,
        /// LPA: log page attributes.
        log_page_attributes: u8 = 261,
        /// ELPE: entries of the error log, zero-based.
        error_log_entries: u8 = 262,
        /// WCTEMP, kelvin.
        warning_temperature_k: u16 = 266,
        /// CCTEMP, kelvin.
        critical_temperature_k: u16 = 268,
        /// TNVMCAP, bytes.
        total_capacity_bytes: u128 = 280,
        /// UNVMCAP, bytes.
        unallocated_capacity_bytes: u128 = 296,
        /// KAS: granularity of the Keep Alive Timer in units of 100 ms.
        keep_alive_100ms: u16 = 320,
        /// SANICAP: sanitize operations.
        sanitize: u32 = 328,
        /// ANATT, seconds.
        ana_transition_s: u8 = 342,
        /// ANACAP.
        ana_capabilities: u8 = 343,
        /// ANAGRPMAX.
        ana_group_max: u32 = 344,
        /// NANAGRPID.
        ana_groups: u32 = 348,
        /// SQES: required (low) and largest (high) size of a submission entry, 2^n bytes.
        submission_entry_size: u8 = 512,
        /// CQES: the same for completion entries.
        completion_entry_size: u8 = 513,
        /// MAXCMD: most commands in flight on a queue.
        max_commands: u16 = 514,
        /// NN: the largest namespace identifier.
        namespaces: u32 = 516,
        /// ONCS: optional NVM commands.
        optional_commands: u16 = 520,
        /// FUSES: fused operations.
        fused_operations: u16 = 522,
        /// FNA.
        format_attributes: u8 = 524,
        /// VWC: bit 0 a volatile write cache is present, bits 2:1 Flush with all namespaces.
        volatile_write_cache: u8 = 525,
        /// AWUN: blocks written atomically, zero-based.
        atomic_write: u16 = 526,
        /// AWUPF: the same across power loss.
        atomic_write_power_fail: u16 = 528,
        /// ACWU: the same for compare and write.
        atomic_compare_and_write: u16 = 532,
        /// SGLS: bits 1:0 SGLs without alignment, bit 20 offsets in capsules.
        sgl_support: u32 = 536,
        /// MNAN: most namespaces.
        max_namespaces: u32 = 540,
        /// SUBNQN, padded with NUL.
        subsystem_nqn: [u8; 256] = 768,
        /// IOCCSZ: I/O command capsule in units of 16 bytes.
        command_capsule_16b: u32 = 1792,
        /// IORCSZ: I/O response capsule in units of 16 bytes.
        response_capsule_16b: u32 = 1796,
        /// ICDOFF: offset of in-capsule data in units of 16 bytes.
        in_capsule_offset_16b: u16 = 1800,
        /// FCATT: bit 0 is 1 for static controllers.
        fabrics_attributes: u8 = 1802,
        /// MSDBD: SGL descriptors in a capsule.
        capsule_descriptors: u8 = 1803,
        /// OFCS: bit 0 Disconnect.
        optional_fabrics_commands: u16 = 1804,
    }
}

layout! {
    /// Three command retry delays in units of 100 ms.
    pub struct RetryDelays: 6 {
        /// CRDT1.
        first: u16 = 0,
        /// CRDT2.
        second: u16 = 2,
        /// CRDT3.
        third: u16 = 4,
    }
}

/// CTRATT bit 0: 128-bit host identifiers.
pub const ATTRIBUTE_HOST_ID_128: u32 = 1;
/// CTRATT bit 6: any command keeps the connection alive (traffic based keep alive).
pub const ATTRIBUTE_TRAFFIC_KEEP_ALIVE: u32 = 1 << 6;
/// ONCS bit 0: Compare.
pub const OPTIONAL_COMPARE: u16 = 1;
/// FUSES bit 0: compare and write.
pub const FUSED_COMPARE_AND_WRITE: u16 = 1;
/// ONCS bit 2: Dataset Management.
pub const OPTIONAL_DATASET_MANAGEMENT: u16 = 1 << 2;
/// ONCS bit 3: Write Zeroes.
pub const OPTIONAL_WRITE_ZEROES: u16 = 1 << 3;
/// ONCS bit 6: the Timestamp feature.
pub const OPTIONAL_TIMESTAMP: u16 = 1 << 6;
/// LPA bit 0: SMART per namespace.
pub const LOG_SMART_PER_NAMESPACE: u8 = 1;
/// LPA bit 1: the Commands Supported and Effects log page.
pub const LOG_EFFECTS: u8 = 1 << 1;
/// LPA bit 2: extended data for Get Log Page (32-bit length, offset).
pub const LOG_EXTENDED: u8 = 1 << 2;
/// LPA bit 5: the Supported Log Pages log page and log identifiers' scope.
pub const LOG_SUPPORTED_PAGES: u8 = 1 << 5;
/// CMIC bit 0: the subsystem may have several ports.
pub const MULTIPATH_PORTS: u8 = 1;
/// CMIC bit 1: the subsystem may have several controllers.
pub const MULTIPATH_CONTROLLERS: u8 = 1 << 1;
/// CMIC bit 3: asymmetric namespace access reporting.
pub const MULTIPATH_ANA: u8 = 1 << 3;
/// SGLS: SGLs without alignment (bits 1:0 = 1), offsets in capsules (bit 20).
pub const SGL_ANY_ALIGNMENT: u32 = 1;
/// SGLS bit 20: the address of a Data Block descriptor may be an offset.
pub const SGL_OFFSETS: u32 = 1 << 20;
/// SGLS bit 21: Transport SGL Data Block descriptors.
pub const SGL_TRANSPORT: u32 = 1 << 21;
/// OFCS bit 0: Disconnect.
pub const FABRICS_DISCONNECT_SUPPORTED: u16 = 1;

layout! {
    /// Identify Namespace of the NVM command set (NVM, figure 97), with its first LBA format.
    pub struct IdentifyNamespace: 4096 {
        /// NSZE: logical blocks.
        size_blocks: u64 = 0,
        /// NCAP: logical blocks that may be allocated.
        capacity_blocks: u64 = 8,
        /// NUSE: logical blocks allocated.
        used_blocks: u64 = 16,
        /// NSFEAT: bit 1 own atomicity fields, bit 4 NPWG to NOWS are given.
        features: u8 = 24,
        /// NLBAF: LBA formats, zero-based.
        formats: u8 = 25,
        /// FLBAS: the format in use.
        format: u8 = 26,
        /// NMIC: bit 0 the namespace may be attached to several controllers.
        shared: u8 = 30,
        /// DLFEAT: bits 2:0 what deallocated blocks read as (1 zeros), bit 3 Write Zeroes may deallocate.
        deallocate_features: u8 = 33,
        /// NAWUN, zero-based.
        atomic_write: u16 = 34,
        /// NAWUPF, zero-based.
        atomic_write_power_fail: u16 = 36,
        /// NACWU, zero-based.
        atomic_compare_and_write: u16 = 38,
        /// NABSN: atomic boundary, zero-based; 0 is none.
        atomic_boundary: u16 = 40,
        /// NABO.
        atomic_boundary_offset: u16 = 42,
        /// NABSPF.
        atomic_boundary_power_fail: u16 = 44,
        /// NOIOB: optimal boundary, logical blocks.
        optimal_boundary_blocks: u16 = 46,
        /// NVMCAP, bytes.
        capacity_bytes: u128 = 48,
        /// NPWG: preferred write granularity, zero-based.
        write_granularity: u16 = 64,
        /// NPWA: preferred write alignment, zero-based.
        write_alignment: u16 = 66,
        /// NPDG: preferred deallocate granularity, zero-based.
        deallocate_granularity: u16 = 68,
        /// NPDA: preferred deallocate alignment, zero-based.
        deallocate_alignment: u16 = 70,
        /// NOWS: optimal write size, zero-based.
        optimal_write: u16 = 72,
        /// ANAGRPID.
        ana_group: u32 = 92,
        /// NSATTR: bit 0 write protected.
        attributes: u8 = 99,
        /// NGUID, big-endian.
        nguid: [u8; 16] = 104,
        /// EUI64, big-endian.
        eui64: [u8; 8] = 120,
        /// LBAF0: metadata bytes (15:0), 2^n data bytes (23:16), relative performance (25:24).
        format_0: u32 = 128,
    }
}

/// NSFEAT bit 1: NAWUN, NAWUPF and NACWU are given, and count instead of the controller's.
pub const NAMESPACE_ATOMICITY: u8 = 1 << 1;
/// NSFEAT bit 4: NPWG, NPWA, NPDG, NPDA and NOWS are given.
pub const NAMESPACE_OPTIMAL_IO: u8 = 1 << 4;

layout! {
    /// Identify Namespace, independent of the command set (Base, figure 280).
    pub struct IdentifyNamespaceIndependent: 4096 {
        /// NSFEAT.
        features: u8 = 0,
        /// NMIC: bit 0 the namespace may be attached to several controllers.
        shared: u8 = 1,
        /// ANAGRPID.
        ana_group: u32 = 4,
        /// NSATTR: bit 0 write protected.
        attributes: u8 = 8,
        /// NSTAT: bit 0 ready.
        status: u8 = 14,
    }
}

layout! {
    /// Identify Controller of the NVM command set (NVM, figure 103): limits beside MDTS, 2^n pages, 0 is none.
    pub struct IdentifyControllerNvm: 4096 {
        /// VSL: Verify.
        verify_limit: u8 = 0,
        /// WZSL: Write Zeroes.
        write_zeroes_limit: u8 = 1,
        /// WUSL: Write Uncorrectable.
        write_uncorrectable_limit: u8 = 2,
        /// DMRL: ranges of Dataset Management.
        dataset_ranges: u8 = 3,
        /// DMRSL: blocks of one such range.
        dataset_range_blocks: u32 = 4,
        /// DMSL: blocks of one such command.
        dataset_blocks: u64 = 8,
    }
}

/// A namespace list (Base, section 4.4.2): identifiers in rising order, those above `after`, as many as fit.
pub fn namespace_list(rising: impl Iterator<Item = u32>, after: u32) -> IdentifyBytes {
    let mut bytes = [0; IDENTIFY_BYTES];
    for (place, nsid) in bytes.chunks_exact_mut(4).zip(rising.filter(|&nsid| nsid > after)) {
        place.copy_from_slice(&nsid.to_le_bytes());
    }
    bytes
}

/// The identifiers of a namespace list, up to the first zero.
pub fn namespaces_of(list: &IdentifyBytes) -> impl Iterator<Item = u32> {
    list.chunks_exact(4)
        .map(|entry| u32::from_le_bytes(entry.try_into().expect("four bytes")))
        .take_while(|&nsid| nsid != 0)
}

/// A controller list (Base, section 4.4.1): identifiers in rising order, those from `from` on, as many as fit.
pub fn controller_list(rising: impl Iterator<Item = u16>, from: u16) -> IdentifyBytes {
    let mut bytes = [0; IDENTIFY_BYTES];
    let mut count = 0u16;
    for id in rising.filter(|&id| id >= from).take(CONTROLLER_LIST_ENTRIES) {
        count += 1;
        let at = usize::from(count) * 2;
        bytes[at..at + 2].copy_from_slice(&id.to_le_bytes());
    }
    bytes[..2].copy_from_slice(&count.to_le_bytes());
    bytes
}

/// The identifiers of a controller list.
pub fn controllers_of(list: &IdentifyBytes) -> impl Iterator<Item = u16> {
    let words = || list.chunks_exact(2).map(|entry| u16::from_le_bytes(entry.try_into().expect("two bytes")));
    let count = words().next().unwrap_or(0);
    words().skip(1).take(usize::from(count))
}

/// NIDT: an EUI64 of 8 bytes (Base, figure 277).
pub const DESCRIPTOR_EUI64: u8 = 1;
/// NIDT: an NGUID of 16 bytes.
pub const DESCRIPTOR_NGUID: u8 = 2;
/// NIDT: a UUID of 16 bytes.
pub const DESCRIPTOR_UUID: u8 = 3;
/// NIDT: a command set identifier of 1 byte.
pub const DESCRIPTOR_COMMAND_SET: u8 = 4;

/// What names a namespace for ever. Zero values are left out of the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NamespaceIdentity {
    /// EUI64, big-endian.
    pub eui64: [u8; 8],
    /// NGUID, big-endian.
    pub nguid: [u8; 16],
    /// UUID.
    pub uuid: Uuid,
}

impl NamespaceIdentity {
    /// The Namespace Identification Descriptor list (Base, section 5.17.2.3). The command set is NVM.
    pub fn descriptors(&self) -> IdentifyBytes {
        let mut bytes = [0; IDENTIFY_BYTES];
        let mut at = 0;
        let mut put = |kind: u8, value: &[u8], present: bool| {
            if present {
                bytes[at] = kind;
                bytes[at + 1] = value.len() as u8;
                bytes[at + 4..at + 4 + value.len()].copy_from_slice(value);
                at += 4 + value.len();
            }
        };
        put(DESCRIPTOR_EUI64, &self.eui64, self.eui64 != [0; 8]);
        put(DESCRIPTOR_NGUID, &self.nguid, self.nguid != [0; 16]);
        put(DESCRIPTOR_UUID, &self.uuid.0, !self.uuid.is_nil());
        // The CSI descriptor is mandatory once a controller supports command sets (Base, figure 277).
        put(DESCRIPTOR_COMMAND_SET, &[0], true);
        bytes
    }

    /// Reads a descriptor list. Descriptors of unknown types are passed over; a length that its type does not have, or
    /// that leaves the list, is an error.
    pub fn from_descriptors(list: &[u8]) -> Result<Self, BadDescriptor> {
        let mut identity = Self::default();
        let mut rest = list;
        while let [kind, length, _, _, tail @ ..] = rest {
            if *length == 0 {
                break;
            }
            let bad = BadDescriptor { kind: *kind, length: *length };
            let (value, next) = tail.split_at_checked(usize::from(*length)).ok_or(bad)?;
            match *kind {
                DESCRIPTOR_EUI64 => identity.eui64 = value.try_into().map_err(|_| bad)?,
                DESCRIPTOR_NGUID => identity.nguid = value.try_into().map_err(|_| bad)?,
                DESCRIPTOR_UUID => identity.uuid = Uuid(value.try_into().map_err(|_| bad)?),
                DESCRIPTOR_COMMAND_SET if value.len() != 1 => return Err(bad),
                _ => {}
            }
            rest = next;
        }
        Ok(identity)
    }
}

/// A namespace identification descriptor whose length is not that of its type, or that leaves the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDescriptor {
    /// NIDT.
    pub kind: u8,
    /// NIDL.
    pub length: u8,
}

impl core::fmt::Display for BadDescriptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "namespace descriptor of type {} has length {}", self.kind, self.length)
    }
}

impl core::error::Error for BadDescriptor {}

/// The I/O Command Set data structure (Base, figure 287): one combination, the NVM command set alone.
pub fn command_sets() -> IdentifyBytes {
    let mut bytes = [0; IDENTIFY_BYTES];
    bytes[0] = 1;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{null_padded, padded};

    #[test]
    fn controller_fields_stand_where_the_figure_says() {
        let identify = IdentifyController {
            serial: padded("S1"),
            model: padded("M1"),
            controller_id: 0x1234,
            version: crate::register::VERSION_2_0,
            keep_alive_100ms: 10,
            max_commands: 128,
            namespaces: 3,
            sgl_support: SGL_ANY_ALIGNMENT | SGL_OFFSETS,
            subsystem_nqn: null_padded("nqn.2014-08.org.example"),
            command_capsule_16b: 516,
            response_capsule_16b: 1,
            ..IdentifyController::default()
        };
        let bytes = identify.encode();
        assert_eq!(&bytes[4..8], b"S1  ");
        assert_eq!(&bytes[24..28], b"M1  ");
        assert_eq!(bytes[78..84], [0x34, 0x12, 0, 0, 2, 0]);
        assert_eq!(bytes[320..322], [10, 0]);
        assert_eq!(bytes[514..520], [128, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[536..540], [1, 0, 0x10, 0]);
        assert_eq!(&bytes[768..772], b"nqn.");
        assert_eq!(bytes[1792..1800], [4, 2, 0, 0, 1, 0, 0, 0]);
        assert_eq!(IdentifyController::decode(&bytes), Ok(identify));
        assert!(IdentifyController::decode(&bytes[..4095]).is_err());
    }

    #[test]
    fn namespace_fields_stand_where_the_figure_says() {
        let identify = IdentifyNamespace {
            size_blocks: 0x100,
            shared: 1,
            optimal_boundary_blocks: 16,
            optimal_write: 47,
            nguid: [7; 16],
            eui64: [8; 8],
            format_0: 12 << 16,
            ..IdentifyNamespace::default()
        };
        let bytes = identify.encode();
        assert_eq!(bytes[..8], [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!((bytes[30], bytes[46], bytes[72], bytes[104], bytes[120], bytes[130]), (1, 16, 47, 7, 8, 12));
        assert_eq!(IdentifyNamespace::decode(&bytes), Ok(identify));
        let independent =
            IdentifyNamespaceIndependent { shared: 1, status: 1, ..IdentifyNamespaceIndependent::default() };
        assert_eq!((independent.encode()[1], independent.encode()[14]), (1, 1));
        let limits = IdentifyControllerNvm { write_zeroes_limit: 8, ..IdentifyControllerNvm::default() };
        assert_eq!(limits.encode()[..4], [0, 8, 0, 0]);
    }

    #[test]
    fn lists_round_trip_and_start_where_asked() {
        let list = namespace_list([1, 2, 5, 9].into_iter(), 2);
        assert_eq!(list[..12], [5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(namespaces_of(&list).collect::<Vec<_>>(), [5, 9]);
        assert_eq!(namespaces_of(&namespace_list(1..5000, 0)).count(), NAMESPACE_LIST_ENTRIES);
        let list = controller_list([1, 2, 4097].into_iter(), 2);
        assert_eq!(list[..8], [2, 0, 2, 0, 1, 16, 0, 0]);
        assert_eq!(controllers_of(&list).collect::<Vec<_>>(), [2, 4097]);
        assert_eq!(controllers_of(&controller_list(0..5000, 0)).count(), CONTROLLER_LIST_ENTRIES);
        assert_eq!(controllers_of(&[0xff; IDENTIFY_BYTES]).count(), CONTROLLER_LIST_ENTRIES);
    }

    #[test]
    fn descriptors_round_trip_and_wrong_lengths_are_refused() {
        let identity = NamespaceIdentity { eui64: [1; 8], nguid: [2; 16], uuid: Uuid([3; 16]) };
        let bytes = identity.descriptors();
        assert_eq!(bytes[..5], [1, 8, 0, 0, 1]);
        assert_eq!(bytes[12..17], [2, 16, 0, 0, 2]);
        assert_eq!(bytes[32..37], [3, 16, 0, 0, 3]);
        assert_eq!(bytes[52..58], [4, 1, 0, 0, 0, 0]);
        assert_eq!(NamespaceIdentity::from_descriptors(&bytes), Ok(identity));
        for at in [1, 13, 33, 53] {
            let mut bad = bytes;
            bad[at] += 1;
            assert!(NamespaceIdentity::from_descriptors(&bad).is_err(), "length at {at}");
        }
        assert!(NamespaceIdentity::from_descriptors(&bytes[..20]).is_err());
        assert_eq!(NamespaceIdentity::from_descriptors(&[0x77, 1, 0, 0, 9]), Ok(NamespaceIdentity::default()));
    }

    #[test]
    fn one_combination_of_command_sets() {
        assert_eq!(command_sets()[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
