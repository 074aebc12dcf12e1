//! What arrives at a host: the head of the next PDU out of the bytes received so far, judged by itself. Whether it may
//! come now, and where its data belongs, is the queue's affair.

use nvme::entry::CompletionEntry;
use nvmf::pdu::{
    COMMON_BYTES, Common, DIGEST_BYTES, Digests, Direction, FLAG_LAST, FLAG_SUCCESS, Header, IcResp, digest,
};

use crate::error::Violation;

/// The smallest MAXH2CDATA of a target (NVMe/TCP Transport 1.0, section 3.6.2.2).
const DATA_PDU_BYTES_MIN: u32 = 4096;

/// The head of a PDU from the target. Data follows where one says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// ICResp.
    Initialized(IcResp),
    /// A response capsule.
    Response(CompletionEntry),
    /// `length` bytes of data follow, and their digest.
    Data { cid: u16, offset: u32, length: u32, last: bool, success: bool },
    /// The target is ready for data.
    Ready { cid: u16, tag: u16, offset: u32, length: u32 },
    /// The target ends the connection.
    Terminated { status: u16, information: u32 },
}

impl Arrival {
    /// The next arrival and the bytes of its head (with digest and padding), or `None` if not all of it has come.
    pub(crate) fn next(staged: &[u8], digests: Digests) -> Result<Option<(Self, usize)>, Violation> {
        if staged.len() < COMMON_BYTES {
            return Ok(None);
        }
        let common = Common::decode(staged).expect("eight bytes are there");
        let judged = |fatal| Violation::Header { kind: common.kind, fatal };
        common.check(Direction::ToHost, digests).map_err(judged)?;
        let head_bytes = common.head_bytes(digests);
        let pad_bytes = common.body_bytes(digests).pad;
        if staged.len() < head_bytes + pad_bytes {
            return Ok(None);
        }
        if common.digests_in_use(digests).header {
            check_header_digest(&staged[..head_bytes])?;
        }
        let arrival = match Header::decode(common, &staged[..head_bytes], digests).map_err(judged)? {
            Header::IcResp(answer) => Self::Initialized(answer),
            Header::Response(response) => Self::Response(response.entry),
            Header::ControllerData(data) => Self::Data {
                cid: data.cid,
                offset: data.offset,
                length: data.length,
                last: common.flags & FLAG_LAST != 0,
                success: common.flags & FLAG_SUCCESS != 0,
            },
            Header::ReadyToTransfer(ready) => {
                Self::Ready { cid: ready.cid, tag: ready.tag, offset: ready.offset, length: ready.length }
            }
            Header::TermReq(term) => Self::Terminated { status: term.status, information: term.information },
            Header::IcReq(_) | Header::Command(_) | Header::HostData(_) => {
                return Err(Violation::Unexpected(common.kind));
            }
        };
        Ok(Some((arrival, head_bytes + pad_bytes)))
    }
}

fn check_header_digest(head: &[u8]) -> Result<(), Violation> {
    let (header, found) = head.split_last_chunk::<DIGEST_BYTES>().expect("a head with a digest is longer than one");
    let (found, computed) = (u32::from_le_bytes(*found), digest(header));
    if found == computed { Ok(()) } else { Err(Violation::HeaderDigest { found, computed }) }
}

/// Judges ICResp as a Linux host does; returns the most data of one H2CData PDU, in bytes.
pub(crate) fn check_initialized(answer: &IcResp, asked: Digests) -> Result<u32, Violation> {
    let most = answer.max_h2c_data_bytes;
    let requirements = [
        ("PFV", u64::from(answer.version), answer.version == 0),
        ("CPDA", answer.alignment.into(), answer.alignment == 0),
        ("DGST", answer.digests.into(), answer.digests == asked.to_bits()),
        ("MAXH2CDATA", most.into(), most >= DATA_PDU_BYTES_MIN && most.is_multiple_of(4)),
    ];
    match requirements.into_iter().find(|&(.., met)| !met) {
        Some((field, value, _)) => Err(Violation::InitializeResponse { field, value }),
        None => Ok(most),
    }
}

#[cfg(test)]
mod tests {
    use nvme::status::Status;
    use nvmf::pdu::{self, Transfer};

    use super::*;

    const ALL: [Digests; 4] = [
        Digests { header: false, data: false },
        Digests { header: true, data: false },
        Digests { header: false, data: true },
        Digests { header: true, data: true },
    ];

    /// One PDU head of each type that a target sends.
    fn heads(digests: Digests) -> Vec<(Vec<u8>, Arrival)> {
        let entry = CompletionEntry::fabrics(3, 1, Status::SUCCESS, 9);
        let transfer = Transfer { cid: 3, tag: 0, offset: 4096, length: 512 };
        let mut heads = Vec::new();
        let mut put = |length: usize, bytes: &[u8], arrival| heads.push((bytes[..length].to_vec(), arrival));
        let mut out = [0; 256];
        let length = pdu::response(&mut out, entry, digests);
        put(length, &out, Arrival::Response(entry));
        let length = pdu::controller_data(&mut out, transfer, true, true, digests);
        let data = Arrival::Data { cid: 3, offset: 4096, length: 512, last: true, success: true };
        put(length, &out, data);
        let length = pdu::ready_to_transfer(&mut out, Transfer { tag: 7, ..transfer }, digests);
        put(length, &out, Arrival::Ready { cid: 3, tag: 7, offset: 4096, length: 512 });
        let length = pdu::term_req(&mut out, Direction::ToController, pdu::Fatal::field(4), &[]);
        put(length, &out, Arrival::Terminated { status: 1, information: 4 });
        heads
    }

    #[test]
    fn every_head_is_understood_once_it_is_whole() {
        for digests in ALL {
            for (bytes, arrival) in heads(digests) {
                for short in 0..bytes.len() {
                    assert_eq!(Arrival::next(&bytes[..short], digests), Ok(None), "{arrival:?} cut at {short}");
                }
                assert_eq!(Arrival::next(&bytes, digests), Ok(Some((arrival, bytes.len()))));
            }
        }
    }

    #[test]
    fn a_changed_byte_under_a_header_digest_is_an_error() {
        let digests = ALL[1];
        for (bytes, arrival) in heads(digests) {
            if matches!(arrival, Arrival::Terminated { .. }) {
                continue;
            }
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 0x10;
                // A longer PLEN of data is judged by its digest, which is there: never understood, never waited for.
                assert!(Arrival::next(&changed, digests).is_err(), "{arrival:?} changed at {at}");
            }
        }
    }

    #[test]
    fn what_only_hosts_send_is_refused() {
        let bytes = pdu::ic_req(Digests::default(), 0);
        assert!(matches!(Arrival::next(&bytes, Digests::default()), Err(Violation::Header { kind: 0, .. })));
    }

    #[test]
    fn an_initialize_response_is_judged_as_a_linux_host_does() {
        let asked = Digests { header: true, data: false };
        let good = IcResp::decode(&pdu::ic_resp(asked, 8192)).expect("whole");
        assert_eq!(check_initialized(&good, asked), Ok(8192));
        for (bad, field) in [
            (IcResp { version: 1, ..good }, "PFV"),
            (IcResp { alignment: 1, ..good }, "CPDA"),
            (IcResp { digests: 3, ..good }, "DGST"),
            (IcResp { max_h2c_data_bytes: 4095, ..good }, "MAXH2CDATA"),
            (IcResp { max_h2c_data_bytes: 4098, ..good }, "MAXH2CDATA"),
        ] {
            let judged = check_initialized(&bad, asked);
            assert!(matches!(judged, Err(Violation::InitializeResponse { field: found, .. }) if found == field));
        }
    }
}
