//! Golden bytes, round trips and refusals of PDU headers.

use nvme::status::Status;

use super::*;

const BOTH: Digests = Digests { header: true, data: true };
const NONE: Digests = Digests { header: false, data: false };

fn decode(bytes: &[u8], direction: Direction, digests: Digests) -> Result<Header, Fatal> {
    let common = Common::decode(bytes).expect("a common header");
    common.check(direction, digests)?;
    Header::decode(common, bytes, digests)
}

#[test]
fn the_initial_exchange_has_its_golden_bytes() {
    let request = ic_req(BOTH, 0);
    assert_eq!(request[..16], [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
    assert!(request[16..].iter().all(|&byte| byte == 0));
    let response = ic_resp(NONE, 0x10_0000);
    assert_eq!(response[..16], [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
    let Ok(Header::IcReq(again)) = decode(&request, Direction::ToController, NONE) else { panic!("ICReq") };
    assert_eq!(Digests::from_bits(again.digests), BOTH);
    let Ok(Header::IcResp(again)) = decode(&response, Direction::ToHost, NONE) else { panic!("ICResp") };
    assert_eq!((again.max_h2c_data_bytes, again.alignment), (0x10_0000, 0));
}

#[test]
fn heads_have_their_golden_bytes() {
    let mut out = [0; 128];
    let entry = SubmissionEntry { opcode: 1, cid: 0x22, ..SubmissionEntry::default() };
    assert_eq!(command(&mut out, entry, 4096, NONE), 72);
    assert_eq!(out[..12], [4, 0, 72, 72, 0x48, 0x10, 0, 0, 1, 0, 0x22, 0]);
    assert_eq!(command(&mut out, entry, 4096, BOTH), 76);
    assert_eq!(out[..8], [4, 3, 72, 76, 0x50, 0x10, 0, 0]);
    assert_eq!(out[72..76], digest(&out[..72]).to_le_bytes());
    assert_eq!(command(&mut out, entry, 0, NONE), 72);
    assert_eq!(out[..8], [4, 0, 72, 0, 72, 0, 0, 0]);

    assert_eq!(response(&mut out, CompletionEntry::fabrics(5, 6, Status::SUCCESS, 0), NONE), 24);
    assert_eq!(out[..24], [5, 0, 24, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0, 0]);

    let transfer = Transfer { cid: 5, tag: 9, offset: 0x1000, length: 0x2000 };
    assert_eq!(host_data(&mut out, transfer, true, NONE), 24);
    assert_eq!(out[..24], [6, 4, 24, 24, 0x18, 0x20, 0, 0, 5, 0, 9, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]);
    assert_eq!(controller_data(&mut out, transfer, true, true, NONE), 24);
    assert_eq!(out[..4], [7, 0x0c, 24, 24]);
    assert_eq!(ready_to_transfer(&mut out, transfer, BOTH), 28);
    assert_eq!(out[..8], [9, 1, 24, 0, 28, 0, 0, 0]);
    assert_eq!(out[8..20], [5, 0, 9, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0]);
}

#[test]
fn the_digest_is_crc32c_whole_or_in_pieces() {
    // RFC 3720, appendix B.4: 32 bytes of zeros.
    assert_eq!(digest(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    let bytes: Vec<u8> = (0..200).collect();
    for cut in 0..bytes.len() {
        assert_eq!(digest_append(digest_append(0, &bytes[..cut]), &bytes[cut..]), digest(&bytes));
    }
}

#[test]
fn a_termination_request_quotes_the_offending_header() {
    let mut out = [0; 256];
    let bytes = term_req(&mut out, Direction::ToController, Fatal::field(3), &[7; 300]);
    assert_eq!(bytes, 24 + TERM_REQ_DATA_BYTES);
    assert_eq!(out[..14], [3, 0, 24, 0, 152, 0, 0, 0, 1, 0, 3, 0, 0, 0]);
    let Ok(Header::TermReq(again)) = decode(&out, Direction::ToHost, BOTH) else { panic!("C2HTermReq") };
    assert_eq!((again.status, again.information), (1, 3));
    assert_eq!(again.common.body_bytes(BOTH), Body { pad: 0, payload: 128 });
    assert_eq!(term_req(&mut out, Direction::ToHost, Fatal::of(FatalStatus::SequenceError), &[]), 24);
    assert_eq!(out[..10], [2, 0, 24, 0, 24, 0, 0, 0, 2, 0]);
}

#[test]
fn every_type_goes_one_way_only() {
    for kind in 0..=255u8 {
        let header = header_bytes(kind);
        for direction in [Direction::ToController, Direction::ToHost] {
            let data = matches!(kind, kind::H2C_DATA | kind::C2H_DATA);
            let common = Common {
                kind,
                flags: 0,
                header_bytes: header as u8,
                data_offset: if data { header as u8 } else { 0 },
                length: header as u32 + u32::from(data),
            };
            let expected = match kind {
                0 | 2 | 4 | 6 => direction == Direction::ToController,
                1 | 3 | 5 | 7 | 9 => direction == Direction::ToHost,
                _ => false,
            };
            assert_eq!(common.check(direction, NONE).is_ok(), expected, "type {kind} {direction:?}");
            if !expected {
                assert_eq!(common.check(direction, NONE), Err(Fatal::field(0)));
            }
        }
    }
}

#[test]
fn a_wrong_field_is_named_by_its_offset() {
    let mut out = [0; 128];
    let entry = SubmissionEntry::default();
    let refused = |mut bytes: [u8; 128], at: usize, value: u8| {
        bytes[at] = value;
        decode(&bytes, Direction::ToController, BOTH).map(|_| ()).unwrap_err()
    };
    command(&mut out, entry, 4096, BOTH);
    for hlen in (0..=255).filter(|&hlen| hlen != 72) {
        assert_eq!(refused(out, 2, hlen), Fatal::field(2), "HLEN {hlen}");
    }
    for pdo in (0..76).chain((77..=255).filter(|pdo| pdo % 4 != 0)) {
        assert_eq!(refused(out, 3, pdo), Fatal::field(3), "PDO {pdo}");
    }
    assert_eq!(refused(out, 1, FLAG_HEADER_DIGEST), Fatal::field(1));
    assert_eq!(refused(out, 1, FLAG_DATA_DIGEST), Fatal::field(1));
    // PLEN that ends within header, digest or padding.
    for length in (0..76).chain(77..=80) {
        let mut bytes = out;
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        assert_eq!(decode(&bytes, Direction::ToController, BOTH), Err(Fatal::field(4)), "PLEN {length}");
    }
    // A host may pad up to a later PDO that is aligned.
    let mut padded = out;
    padded[3] = 80;
    let Ok(Header::Command(header)) = decode(&padded, Direction::ToController, BOTH) else { panic!("padded") };
    assert_eq!(header.common.body_bytes(BOTH), Body { pad: 4, payload: 4092 });

    host_data(&mut out, Transfer { cid: 0, tag: 0, offset: 0, length: 100 }, true, BOTH);
    assert_eq!(refused(out, 16, 99), Fatal::field(16));
    assert_eq!(refused(out, 16, 101), Fatal::field(16));
    let bad = Common { kind: kind::H2C_TERM_REQ, flags: 0, header_bytes: 24, data_offset: 0, length: 153 };
    assert_eq!(bad.check(Direction::ToController, NONE), Err(Fatal::field(4)));
    assert_eq!(Common { length: 23, ..bad }.check(Direction::ToController, NONE), Err(Fatal::field(4)));
    let bad = Common { kind: kind::IC_REQ, header_bytes: 128, length: 129, ..bad };
    assert_eq!(bad.check(Direction::ToController, NONE), Err(Fatal::field(4)));
}

#[test]
fn what_is_encoded_is_decoded() {
    let mut out = [0; 128];
    for digests in [NONE, BOTH, Digests { header: true, data: false }, Digests { header: false, data: true }] {
        let entry = SubmissionEntry { opcode: 2, cid: 3, nsid: 4, cdw10: 5, cdw15: 6, ..SubmissionEntry::default() };
        let head = command(&mut out, entry, 512, digests);
        let Ok(Header::Command(again)) = decode(&out, Direction::ToController, digests) else { panic!("command") };
        assert_eq!((again.entry, again.common.head_bytes(digests)), (entry, head));
        assert_eq!(again.common.body_bytes(digests), Body { pad: 0, payload: 512 });
        let entry = CompletionEntry::fabrics(1, 2, Status::INTERNAL_ERROR, 9);
        response(&mut out, entry, digests);
        let Ok(Header::Response(again)) = decode(&out, Direction::ToHost, digests) else { panic!("response") };
        assert_eq!(again.entry, entry);
        let transfer = Transfer { cid: 1, tag: 2, offset: 8, length: 16 };
        host_data(&mut out, transfer, false, digests);
        let Ok(Header::HostData(again)) = decode(&out, Direction::ToController, digests) else { panic!("data") };
        assert_eq!(Transfer { cid: again.cid, tag: again.tag, offset: again.offset, length: again.length }, transfer);
        assert_eq!(again.common.flags & FLAG_LAST, 0);
        controller_data(&mut out, transfer, true, false, digests);
        let header = decode(&out, Direction::ToHost, digests).expect("data");
        assert!(matches!(header, Header::ControllerData(data) if data.common.flags & FLAG_SUCCESS == 0));
        assert_eq!(header.common().kind, kind::C2H_DATA);
        ready_to_transfer(&mut out, transfer, digests);
        let Ok(Header::ReadyToTransfer(again)) = decode(&out, Direction::ToHost, digests) else { panic!("R2T") };
        assert_eq!((again.cid, again.tag, again.offset, again.length), (1, 2, 8, 16));
    }
}
