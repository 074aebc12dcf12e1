//! Encoders of PDU headers with their digest. Payload, and the digest behind it, are the caller's to put there.

use nvme::entry::{CompletionEntry, SubmissionEntry};

use super::{
    COMMAND_BYTES, Command, Common, DATA_BYTES, DIGEST_BYTES, Data, Digests, Direction, FLAG_DATA_DIGEST,
    FLAG_HEADER_DIGEST, FLAG_LAST, FLAG_SUCCESS, Fatal, IC_BYTES, IcReq, IcResp, RESPONSE_BYTES, ReadyToTransfer,
    Response, TERM_REQ_BYTES, TermReq, digest, header_bytes, kind,
};
use crate::limits::TERM_REQ_DATA_BYTES;

/// A common header for `payload` bytes of data behind a header of type `kind`.
#[inline]
fn common(kind: u8, flags: u8, payload: usize, digests: Digests) -> Common {
    let header = header_bytes(kind);
    let head = header + digests.header_bytes();
    let mut flags = flags | if digests.header { FLAG_HEADER_DIGEST } else { 0 };
    let mut length = head;
    let mut offset = 0;
    if payload > 0 {
        offset = head;
        length += payload + digests.data_bytes();
        flags |= if digests.data { FLAG_DATA_DIGEST } else { 0 };
    }
    Common {
        kind,
        flags,
        header_bytes: header as u8,
        data_offset: offset as u8,
        length: u32::try_from(length).expect("a PDU is shorter than 4 GiB"),
    }
}

/// Puts the header digest behind a header and says where the head ends.
#[inline]
fn seal(out: &mut [u8], header: usize, digests: Digests) -> usize {
    if digests.header {
        let value = digest(&out[..header]);
        out[header..header + DIGEST_BYTES].copy_from_slice(&value.to_le_bytes());
    }
    header + digests.header_bytes()
}

/// Encodes ICReq.
pub fn ic_req(digests: Digests, max_r2t: u32) -> [u8; IC_BYTES] {
    let common = common(kind::IC_REQ, 0, 0, Digests::default());
    IcReq { common, version: 0, alignment: 0, digests: digests.to_bits(), max_r2t }.encode()
}

/// Encodes ICResp. CPDA is 0: Linux hosts refuse any other alignment.
pub fn ic_resp(digests: Digests, max_h2c_data_bytes: u32) -> [u8; IC_BYTES] {
    let common = common(kind::IC_RESP, 0, 0, Digests::default());
    IcResp { common, version: 0, alignment: 0, digests: digests.to_bits(), max_h2c_data_bytes }.encode()
}

/// Encodes a termination request with the start of the offending PDU, into `out`; returns its bytes. It travels against
/// `received`, the direction of the offending PDU.
///
/// # Panics
/// If `out` has fewer than [`TERM_REQ_BYTES`] + [`TERM_REQ_DATA_BYTES`].
pub fn term_req(out: &mut [u8], received: Direction, fatal: Fatal, offending: &[u8]) -> usize {
    let kind = match received {
        Direction::ToController => kind::C2H_TERM_REQ,
        Direction::ToHost => kind::H2C_TERM_REQ,
    };
    let data = &offending[..offending.len().min(TERM_REQ_DATA_BYTES)];
    let length = TERM_REQ_BYTES + data.len();
    // TCP, section 3.6.2.3: PDO is reserved, the data follows the header.
    let common = Common { kind, flags: 0, header_bytes: TERM_REQ_BYTES as u8, data_offset: 0, length: length as u32 };
    TermReq { common, status: fatal.status as u16, information: fatal.information }.encode_into(out);
    out[TERM_REQ_BYTES..length].copy_from_slice(data);
    length
}

/// Encodes a command capsule with `payload` bytes of in-capsule data to follow; returns the bytes written.
///
/// # Panics
/// If `out` has fewer than [`COMMAND_BYTES`] and a digest.
#[inline]
pub fn command(out: &mut [u8], entry: SubmissionEntry, payload: usize, digests: Digests) -> usize {
    Command { common: common(kind::COMMAND, 0, payload, digests), entry }.encode_into(out);
    seal(out, COMMAND_BYTES, digests)
}

/// Encodes a response capsule; returns the bytes written.
///
/// # Panics
/// If `out` has fewer than [`RESPONSE_BYTES`] and a digest.
#[inline]
pub fn response(out: &mut [u8], entry: CompletionEntry, digests: Digests) -> usize {
    Response { common: common(kind::RESPONSE, 0, 0, digests), entry }.encode_into(out);
    seal(out, RESPONSE_BYTES, digests)
}

/// What a data PDU carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The command.
    pub cid: u16,
    /// The tag of the R2T; 0 towards the host.
    pub tag: u16,
    /// Offset within the command's data.
    pub offset: u32,
    /// Bytes, at least one.
    pub length: u32,
}

/// Encodes the head of H2CData; returns the bytes written.
///
/// # Panics
/// If `out` has fewer than [`DATA_BYTES`] and a digest.
#[inline]
pub fn host_data(out: &mut [u8], transfer: Transfer, last: bool, digests: Digests) -> usize {
    data(out, kind::H2C_DATA, transfer, if last { FLAG_LAST } else { 0 }, digests)
}

/// Encodes the head of C2HData; returns the bytes written. `success` spares the response capsule and needs `last`: hosts
/// drop a connection that sends the one without the other (TCP, section 3.3.2.1).
///
/// # Panics
/// If `out` has fewer than [`DATA_BYTES`] and a digest, or for `success` without `last`.
#[inline]
pub fn controller_data(out: &mut [u8], transfer: Transfer, last: bool, success: bool, digests: Digests) -> usize {
    assert!(last || !success, "success is told with the last data only");
    let flags = if last { FLAG_LAST } else { 0 } | if success { FLAG_SUCCESS } else { 0 };
    data(out, kind::C2H_DATA, transfer, flags, digests)
}

#[inline]
fn data(out: &mut [u8], kind: u8, transfer: Transfer, flags: u8, digests: Digests) -> usize {
    let Transfer { cid, tag, offset, length } = transfer;
    assert!(length > 0, "a data PDU has data");
    Data { common: common(kind, flags, length as usize, digests), cid, tag, offset, length }.encode_into(out);
    seal(out, DATA_BYTES, digests)
}

/// Encodes R2T; returns the bytes written.
///
/// # Panics
/// If `out` has fewer than [`DATA_BYTES`] and a digest.
#[inline]
pub fn ready_to_transfer(out: &mut [u8], transfer: Transfer, digests: Digests) -> usize {
    let Transfer { cid, tag, offset, length } = transfer;
    ReadyToTransfer { common: common(kind::R2T, 0, 0, digests), cid, tag, offset, length }.encode_into(out);
    seal(out, DATA_BYTES, digests)
}
