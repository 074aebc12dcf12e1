//! NVMe/TCP protocol data units, both directions (NVMe/TCP Transport Specification 1.0, section 3.6; "TCP" below).
//!
//! ```text
//! 0        1        2        3        4                          8            HLEN        PDO            PLEN
//! | type   | flags  | HLEN   | PDO    | PLEN                     | specific   | HDGST?    | pad | data   | DDGST? |
//! ```
//!
//! [`Header::decode`] judges a header by the rules that need no connection state; whether a PDU may come *now* is the
//! queue's affair. Encoders write headers with their digest; payload and data digest are put behind by the caller.

mod encode;

use nvme::entry::{CompletionEntry, SubmissionEntry};
use nvme::layout;

pub use self::encode::{
    Transfer, command, controller_data, host_data, ic_req, ic_resp, ready_to_transfer, response, term_req,
};

use crate::limits::{MAX_PDU_HEADER_BYTES, TERM_REQ_DATA_BYTES};

/// Bytes of the common header.
pub const COMMON_BYTES: usize = 8;
/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 4;
/// Bytes of ICReq and ICResp.
pub const IC_BYTES: usize = 128;
/// Bytes of a termination request without data.
pub const TERM_REQ_BYTES: usize = 24;
/// Bytes of a command capsule without data.
pub const COMMAND_BYTES: usize = 72;
/// Bytes of a response capsule.
pub const RESPONSE_BYTES: usize = 24;
/// Bytes of the headers of H2CData, C2HData and R2T.
pub const DATA_BYTES: usize = 24;

/// PDU types (TCP, figure 16).
pub mod kind {
    /// Initialize Connection Request.
    pub const IC_REQ: u8 = 0x00;
    /// Initialize Connection Response.
    pub const IC_RESP: u8 = 0x01;
    /// Host to Controller Terminate Connection Request.
    pub const H2C_TERM_REQ: u8 = 0x02;
    /// Controller to Host Terminate Connection Request.
    pub const C2H_TERM_REQ: u8 = 0x03;
    /// Command Capsule.
    pub const COMMAND: u8 = 0x04;
    /// Response Capsule.
    pub const RESPONSE: u8 = 0x05;
    /// Host to Controller Data.
    pub const H2C_DATA: u8 = 0x06;
    /// Controller to Host Data.
    pub const C2H_DATA: u8 = 0x07;
    /// Ready to Transfer.
    pub const R2T: u8 = 0x09;
}

/// FLAGS: a header digest is there.
pub const FLAG_HEADER_DIGEST: u8 = 1;
/// FLAGS: a data digest is there.
pub const FLAG_DATA_DIGEST: u8 = 1 << 1;
/// FLAGS of data PDUs: the last one of this transfer.
pub const FLAG_LAST: u8 = 1 << 2;
/// FLAGS of C2HData: the command succeeded and no response capsule follows.
pub const FLAG_SUCCESS: u8 = 1 << 3;

/// Offsets within headers, as a termination request reports them.
mod at {
    pub(super) const TYPE: u32 = 0;
    pub(super) const FLAGS: u32 = 1;
    pub(super) const HLEN: u32 = 2;
    pub(super) const PDO: u32 = 3;
    pub(super) const PLEN: u32 = 4;
    pub(super) const DATA_LENGTH: u32 = 16;
}

layout! {
    /// The header that all PDUs begin with (TCP, figure 15).
    pub struct Common: 8 {
        /// PDU-Type, one of [`kind`].
        kind: u8 = 0,
        /// FLAGS.
        flags: u8 = 1,
        /// HLEN: bytes of the header, without digest.
        header_bytes: u8 = 2,
        /// PDO: where the data begins; 0 without data.
        data_offset: u8 = 3,
        /// PLEN: bytes of the whole PDU, digests and padding included.
        length: u32 = 4,
    }
}

layout! {
    /// ICReq (TCP, figure 17).
    pub struct IcReq: 128 {
        /// The common header.
        common: Common = 0,
        /// PFV: version of the format, 0.
        version: u16 = 8,
        /// HPDA: alignment of data towards the host, zero-based, in units of 4 bytes.
        alignment: u8 = 10,
        /// DGST: bit 0 header, bit 1 data digest wanted.
        digests: u8 = 11,
        /// MAXR2T: R2Ts outstanding of one command, zero-based.
        max_r2t: u32 = 12,
    }
}

layout! {
    /// ICResp (TCP, figure 18).
    pub struct IcResp: 128 {
        /// The common header.
        common: Common = 0,
        /// PFV: version of the format, 0.
        version: u16 = 8,
        /// CPDA: alignment of data towards the controller, zero-based, in units of 4 bytes.
        alignment: u8 = 10,
        /// DGST: bit 0 header, bit 1 data digest in use.
        digests: u8 = 11,
        /// MAXH2CDATA: most bytes of data of an H2CData PDU.
        max_h2c_data_bytes: u32 = 12,
    }
}

layout! {
    /// H2CTermReq and C2HTermReq (TCP, figures 19 and 20); part of the offending header follows as data.
    pub struct TermReq: 24 {
        /// The common header.
        common: Common = 0,
        /// FES: the error.
        status: u16 = 8,
        /// FEI: more about it.
        information: u32 = 10,
    }
}

layout! {
    /// CapsuleCmd (TCP, figure 21).
    pub struct Command: 72 {
        /// The common header.
        common: Common = 0,
        /// The command.
        entry: SubmissionEntry = 8,
    }
}

layout! {
    /// CapsuleResp (TCP, figure 22).
    pub struct Response: 24 {
        /// The common header.
        common: Common = 0,
        /// The completion.
        entry: CompletionEntry = 8,
    }
}

layout! {
    /// H2CData (TCP, figure 23) and C2HData (TCP, figure 24), where the tag is reserved.
    pub struct Data: 24 {
        /// The common header.
        common: Common = 0,
        /// CCCID: the command.
        cid: u16 = 8,
        /// TTAG: the tag of the R2T that asked for this.
        tag: u16 = 10,
        /// DATAO: offset within the command's data.
        offset: u32 = 12,
        /// DATAL: bytes of data.
        length: u32 = 16,
    }
}

layout! {
    /// R2T (TCP, figure 25).
    pub struct ReadyToTransfer: 24 {
        /// The common header.
        common: Common = 0,
        /// CCCID: the command.
        cid: u16 = 8,
        /// TTAG: what H2CData is to bring back.
        tag: u16 = 10,
        /// R2TO: offset within the command's data.
        offset: u32 = 12,
        /// R2TL: bytes asked for.
        length: u32 = 16,
    }
}

/// Fatal Error Status (TCP, figure 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FatalStatus {
    /// A field of a header is wrong; the information is its offset in bytes.
    InvalidHeaderField = 1,
    /// A PDU came where it may not.
    SequenceError = 2,
    /// The header digest does not match; the information is the digest received.
    HeaderDigest = 3,
    /// Data outside what was asked for.
    DataOutOfRange = 4,
    /// More R2Ts, or more data in a PDU, than agreed.
    LimitExceeded = 5,
    /// A parameter that is not supported; the information is its offset in bytes.
    UnsupportedParameter = 6,
}

/// A peer's error that ends its connection, as a termination request tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fatal transport error: {status:?}, information {information:#x}")]
pub struct Fatal {
    /// FES.
    pub status: FatalStatus,
    /// FEI.
    pub information: u32,
}

impl Fatal {
    /// A wrong header field at `offset`.
    pub const fn field(offset: u32) -> Self {
        Self { status: FatalStatus::InvalidHeaderField, information: offset }
    }

    /// An unsupported parameter at `offset`.
    pub const fn unsupported(offset: u32) -> Self {
        Self { status: FatalStatus::UnsupportedParameter, information: offset }
    }

    /// Any other error.
    pub const fn of(status: FatalStatus) -> Self {
        Self { status, information: 0 }
    }
}

/// Which digests are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Digests {
    /// CRC32C behind each header.
    pub header: bool,
    /// CRC32C behind each PDU's data.
    pub data: bool,
}

impl Digests {
    /// From the DGST field.
    pub const fn from_bits(bits: u8) -> Self {
        Self { header: bits & 1 != 0, data: bits & 2 != 0 }
    }

    /// As the DGST field.
    pub const fn to_bits(self) -> u8 {
        self.header as u8 | (self.data as u8) << 1
    }

    /// Bytes of a header digest.
    #[inline]
    pub const fn header_bytes(self) -> usize {
        if self.header { DIGEST_BYTES } else { 0 }
    }

    /// Bytes of a data digest.
    #[inline]
    pub const fn data_bytes(self) -> usize {
        if self.data { DIGEST_BYTES } else { 0 }
    }
}

/// Which way PDUs travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From host to controller: what a target receives.
    ToController,
    /// From controller to host: what a host receives.
    ToHost,
}

/// A header of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "lives for one call; a box would allocate on the data path")]
pub enum Header {
    /// ICReq.
    IcReq(IcReq),
    /// ICResp.
    IcResp(IcResp),
    /// A termination request of either direction.
    TermReq(TermReq),
    /// CapsuleCmd.
    Command(Command),
    /// CapsuleResp.
    Response(Response),
    /// H2CData.
    HostData(Data),
    /// C2HData.
    ControllerData(Data),
    /// R2T.
    ReadyToTransfer(ReadyToTransfer),
}

impl Common {
    /// Judges a common header: the type must travel this way, HLEN must be its type's, and PLEN, PDO and FLAGS must fit
    /// each other and the digests in use. The digests of the initial exchange are always off.
    #[inline]
    pub fn check(&self, direction: Direction, digests: Digests) -> Result<(), Fatal> {
        let to_controller = matches!(self.kind, kind::IC_REQ | kind::H2C_TERM_REQ | kind::COMMAND | kind::H2C_DATA);
        let to_host =
            matches!(self.kind, kind::IC_RESP | kind::C2H_TERM_REQ | kind::RESPONSE | kind::C2H_DATA | kind::R2T);
        if !match direction {
            Direction::ToController => to_controller,
            Direction::ToHost => to_host,
        } {
            return Err(Fatal::field(at::TYPE));
        }
        if usize::from(self.header_bytes) != header_bytes(self.kind) {
            return Err(Fatal::field(at::HLEN));
        }
        let in_use = self.digests_in_use(digests);
        // TCP, section 3.6.1: a flag must tell whether the digest is there. Without data there is no data digest, and
        // hosts differ in whether they then set its flag: it is judged only together with data.
        if (self.flags & FLAG_HEADER_DIGEST != 0) != in_use.header {
            return Err(Fatal::field(at::FLAGS));
        }
        let bare = u32::from(self.header_bytes) + in_use.header_bytes() as u32;
        match self.kind {
            kind::IC_REQ | kind::IC_RESP | kind::RESPONSE | kind::R2T if self.length != bare => {
                Err(Fatal::field(at::PLEN))
            }
            kind::H2C_TERM_REQ | kind::C2H_TERM_REQ
                if self.length < bare || self.length > bare + TERM_REQ_DATA_BYTES as u32 =>
            {
                Err(Fatal::field(at::PLEN))
            }
            kind::COMMAND if self.length == bare => Ok(()),
            kind::COMMAND | kind::H2C_DATA | kind::C2H_DATA => {
                if in_use.data != (self.flags & FLAG_DATA_DIGEST != 0) {
                    return Err(Fatal::field(at::FLAGS));
                }
                // TCP, section 3.6.1: PDO is a multiple of the alignment agreed; ours is always four bytes.
                if u32::from(self.data_offset) < bare || !self.data_offset.is_multiple_of(4) {
                    return Err(Fatal::field(at::PDO));
                }
                if self.length <= u32::from(self.data_offset) + in_use.data_bytes() as u32 {
                    return Err(Fatal::field(at::PLEN));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The digests that this PDU bears when `digests` are agreed: none for the initial exchange and terminations.
    #[inline]
    pub const fn digests_in_use(&self, digests: Digests) -> Digests {
        match self.kind {
            kind::IC_REQ | kind::IC_RESP | kind::H2C_TERM_REQ | kind::C2H_TERM_REQ => {
                Digests { header: false, data: false }
            }
            _ => digests,
        }
    }

    /// Bytes from the PDU's start to the end of header and header digest.
    #[inline]
    pub const fn head_bytes(&self, digests: Digests) -> usize {
        self.header_bytes as usize + self.digests_in_use(digests).header_bytes()
    }

    /// Padding and payload behind the head, without data digest, of a header that was checked.
    #[inline]
    pub const fn body_bytes(&self, digests: Digests) -> Body {
        let head = self.head_bytes(digests);
        let length = self.length as usize;
        if length == head {
            return Body { pad: 0, payload: 0 };
        }
        if matches!(self.kind, kind::H2C_TERM_REQ | kind::C2H_TERM_REQ) {
            return Body { pad: 0, payload: length - head };
        }
        let offset = self.data_offset as usize;
        Body { pad: offset - head, payload: length - offset - self.digests_in_use(digests).data_bytes() }
    }
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Bytes of padding.
    pub pad: usize,
    /// Bytes of payload.
    pub payload: usize,
}

/// HLEN of a type; 0 for unknown types.
#[inline]
pub const fn header_bytes(kind: u8) -> usize {
    match kind {
        kind::IC_REQ | kind::IC_RESP => IC_BYTES,
        kind::H2C_TERM_REQ | kind::C2H_TERM_REQ => TERM_REQ_BYTES,
        kind::COMMAND => COMMAND_BYTES,
        kind::RESPONSE => RESPONSE_BYTES,
        kind::H2C_DATA | kind::C2H_DATA | kind::R2T => DATA_BYTES,
        _ => 0,
    }
}

impl Header {
    /// Decodes a complete header whose common part has been checked; judges what the rest must obey by itself.
    ///
    /// # Panics
    /// If `bytes` are fewer than HLEN: our own mistake.
    #[inline]
    pub fn decode(common: Common, bytes: &[u8], digests: Digests) -> Result<Self, Fatal> {
        const WHOLE: &str = "the caller waits for the whole header";
        Ok(match common.kind {
            kind::IC_REQ => Self::IcReq(IcReq::decode(bytes).expect(WHOLE)),
            kind::IC_RESP => Self::IcResp(IcResp::decode(bytes).expect(WHOLE)),
            kind::H2C_TERM_REQ | kind::C2H_TERM_REQ => Self::TermReq(TermReq::decode(bytes).expect(WHOLE)),
            kind::COMMAND => Self::Command(Command::decode(bytes).expect(WHOLE)),
            kind::RESPONSE => Self::Response(Response::decode(bytes).expect(WHOLE)),
            kind::H2C_DATA | kind::C2H_DATA => {
                let data = Data::decode(bytes).expect(WHOLE);
                // TCP, section 3.6.2.6: DATAL is what lies between PDO and the data digest.
                if data.length as usize != common.body_bytes(digests).payload {
                    return Err(Fatal::field(at::DATA_LENGTH));
                }
                if common.kind == kind::H2C_DATA { Self::HostData(data) } else { Self::ControllerData(data) }
            }
            kind::R2T => Self::ReadyToTransfer(ReadyToTransfer::decode(bytes).expect(WHOLE)),
            _ => return Err(Fatal::field(at::TYPE)),
        })
    }

    /// The common part.
    pub const fn common(&self) -> &Common {
        match self {
            Self::IcReq(header) => &header.common,
            Self::IcResp(header) => &header.common,
            Self::TermReq(header) => &header.common,
            Self::Command(header) => &header.common,
            Self::Response(header) => &header.common,
            Self::HostData(header) | Self::ControllerData(header) => &header.common,
            Self::ReadyToTransfer(header) => &header.common,
        }
    }
}

/// The digest of a header or of data that lies in one piece.
#[inline]
pub fn digest(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// A digest over data in pieces: give the digest so far, begin with 0.
#[inline]
pub fn digest_append(so_far: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(so_far, bytes)
}

const _: () = assert!(MAX_PDU_HEADER_BYTES >= IC_BYTES && MAX_PDU_HEADER_BYTES >= COMMAND_BYTES + DIGEST_BYTES);

#[cfg(test)]
mod tests;
