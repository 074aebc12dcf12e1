//! Fabrics commands (Base, section 6): Connect, Property Get and Property Set, to and from submission entries. What they
//! cause is the queue's and the controller's affair.

use nvme::entry::SubmissionEntry;
use nvme::layout;
use nvme::opcode;
use nvme::sgl::SglDescriptor;
use nvme::status::Status;

use crate::limits::{CONNECT_DATA_BYTES, MAX_NQN_BYTES};

layout! {
    /// The data of Connect (Base, figure 546).
    pub struct ConnectData: 1024 {
        /// HOSTID.
        host_id: [u8; 16] = 0,
        /// CNTLID: FFFFh asks for any controller.
        controller_id: u16 = 16,
        /// SUBNQN, ended by NUL.
        subsystem_nqn: [u8; 256] = 256,
        /// HOSTNQN, ended by NUL.
        host_nqn: [u8; 256] = 512,
    }
}

const _: () = assert!(ConnectData::SIZE == CONNECT_DATA_BYTES as usize);

/// CNTLID of Connect: any controller, the dynamic model.
pub const ANY_CONTROLLER: u16 = 0xffff;
/// CATTR bit 2: the host does without SQ flow control.
pub const CONNECT_NO_FLOW_CONTROL: u8 = 1 << 2;

/// Where a Connect parameter stands, for Invalid Parameters (Base, figure 548).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectField {
    /// In the command: RECFMT at 40, QID at 42, SQSIZE at 44.
    Command(u16),
    /// In the data.
    Data(u16),
}

impl ConnectField {
    /// QID.
    pub const QID: Self = Self::Command(42);
    /// SQSIZE.
    pub const SQSIZE: Self = Self::Command(44);
    /// HOSTID.
    pub const HOST_ID: Self = Self::Data(0);
    /// CNTLID.
    pub const CONTROLLER_ID: Self = Self::Data(16);
    /// SUBNQN.
    pub const SUBSYSTEM_NQN: Self = Self::Data(256);
    /// HOSTNQN.
    pub const HOST_NQN: Self = Self::Data(512);

    /// Dword 0 of the completion: IPO in bits 15:0, IATTR in bit 16.
    pub const fn to_dword(self) -> u32 {
        match self {
            Self::Command(offset) => offset as u32,
            Self::Data(offset) => offset as u32 | 1 << 16,
        }
    }
}

/// A Connect that is refused: status and, for Invalid Parameters, the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: Status,
    /// Dword 0 of the completion.
    pub result: u32,
}

impl Refusal {
    /// A parameter that will be as wrong next time.
    pub const fn parameter(field: ConnectField) -> Self {
        Self { status: Status::CONNECT_INVALID_PARAMETERS.do_not_retry(), result: field.to_dword() }
    }

    /// Any other status.
    pub const fn of(status: Status) -> Self {
        Self { status, result: 0 }
    }
}

/// The fields of a Connect command (Base, figure 545).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// RECFMT: 0.
    pub format: u16,
    /// QID: 0 is the admin queue.
    pub queue_id: u16,
    /// SQSIZE: entries, zero-based.
    pub last_entry: u16,
    /// CATTR.
    pub attributes: u8,
    /// KATO, milliseconds; 0 is off.
    pub keep_alive_ms: u32,
}

impl Connect {
    /// From a submission entry.
    pub const fn from_entry(entry: &SubmissionEntry) -> Self {
        Self {
            format: entry.cdw10 as u16,
            queue_id: (entry.cdw10 >> 16) as u16,
            last_entry: entry.cdw11 as u16,
            attributes: (entry.cdw11 >> 16) as u8,
            keep_alive_ms: entry.cdw12,
        }
    }

    /// As a submission entry whose data follows in the capsule.
    pub fn to_entry(self, cid: u16) -> SubmissionEntry {
        SubmissionEntry {
            cdw10: u32::from(self.format) | u32::from(self.queue_id) << 16,
            cdw11: u32::from(self.last_entry) | u32::from(self.attributes) << 16,
            cdw12: self.keep_alive_ms,
            data: SglDescriptor::in_capsule(0, CONNECT_DATA_BYTES),
            ..entry(opcode::FABRICS_CONNECT, cid)
        }
    }
}

/// A Fabrics command with nothing but its type.
fn entry(fabrics_type: u8, cid: u16) -> SubmissionEntry {
    SubmissionEntry {
        opcode: opcode::FABRICS,
        flags: nvme::entry::PSDT_SGL << 6,
        cid,
        nsid: u32::from(fabrics_type),
        ..SubmissionEntry::default()
    }
}

/// Property Get of four or eight bytes (Base, section 6.4).
pub fn property_get(cid: u16, offset: u32, eight_bytes: bool) -> SubmissionEntry {
    SubmissionEntry { cdw10: u32::from(eight_bytes), cdw11: offset, ..entry(opcode::FABRICS_PROPERTY_GET, cid) }
}

/// Property Set of four bytes (Base, section 6.5).
pub fn property_set(cid: u16, offset: u32, value: u32) -> SubmissionEntry {
    SubmissionEntry { cdw11: offset, cdw12: value, ..entry(opcode::FABRICS_PROPERTY_SET, cid) }
}

/// An NQN from a field of 256 bytes, as the standard demands it: ended by NUL, 1 to 223 bytes of UTF-8 (Base, section
/// 4.5). A name that does not begin with "nqn." is refused too.
pub fn nqn(field: &[u8; 256]) -> Option<&str> {
    let end = field.iter().position(|&byte| byte == 0)?;
    let text = core::str::from_utf8(&field[..end]).ok()?;
    is_nqn(text).then_some(text)
}

/// Whether a text is an NQN.
pub fn is_nqn(text: &str) -> bool {
    text.len() <= MAX_NQN_BYTES && text.starts_with("nqn.") && text.bytes().all(|byte| !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use nvme::layout::null_padded;

    use super::*;

    #[test]
    fn connect_has_its_golden_bytes() {
        let connect = Connect {
            format: 0,
            queue_id: 2,
            last_entry: 127,
            attributes: CONNECT_NO_FLOW_CONTROL,
            keep_alive_ms: 5000,
        };
        let entry = connect.to_entry(9);
        let bytes = entry.encode();
        assert_eq!(bytes[..5], [0x7f, 0x40, 9, 0, 1]);
        assert_eq!(bytes[32..40], [0, 4, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[40..52], [0, 0, 2, 0, 127, 0, 4, 0, 0x88, 0x13, 0, 0]);
        assert_eq!(Connect::from_entry(&entry), connect);
        let data = ConnectData {
            host_id: [1; 16],
            controller_id: 0xffff,
            subsystem_nqn: null_padded("nqn.a"),
            host_nqn: null_padded("nqn.b"),
        };
        let bytes = data.encode();
        assert_eq!(
            (bytes[16], bytes[17], &bytes[256..261], &bytes[512..517]),
            (255, 255, &b"nqn.a"[..], &b"nqn.b"[..])
        );
        assert_eq!(ConnectData::decode(&bytes), Ok(data));
        assert!(ConnectData::decode(&bytes[..1023]).is_err());
    }

    #[test]
    fn properties_have_their_golden_bytes() {
        let bytes = property_get(1, 0x1c, false).encode();
        assert_eq!((bytes[4], bytes[40], bytes[44]), (4, 0, 0x1c));
        assert_eq!(property_get(1, 0, true).encode()[40], 1);
        let bytes = property_set(1, 0x14, 0x46_0001).encode();
        assert_eq!((bytes[4], bytes[44], &bytes[48..52]), (0, 0x14, &[1, 0, 0x46, 0][..]));
    }

    #[test]
    fn refusals_point_at_the_parameter() {
        assert_eq!(Refusal::parameter(ConnectField::SUBSYSTEM_NQN).result, 0x0001_0100);
        assert_eq!(Refusal::parameter(ConnectField::SQSIZE).result, 44);
        assert!(Refusal::parameter(ConnectField::QID).status.is_final());
        assert!(!Refusal::of(Status::CONNECT_CONTROLLER_BUSY).status.is_final());
    }

    #[test]
    fn names_are_judged() {
        assert_eq!(nqn(&null_padded("nqn.2014-08.org.example")), Some("nqn.2014-08.org.example"));
        assert_eq!(nqn(&[b'n'; 256]), None);
        assert_eq!(nqn(&[0; 256]), None);
        assert_eq!(nqn(&null_padded("iqn.x")), None);
        assert_eq!(nqn(&null_padded(&format!("nqn.{}", "x".repeat(220)))), None);
        assert_eq!(nqn(&null_padded(&format!("nqn.{}", "x".repeat(219)))).map(str::len), Some(223));
    }
}
