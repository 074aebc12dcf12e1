//! Well-behaved hosts against a front; `hostile` has the others.

mod aborts;
mod entries;
mod fake;
mod fused;
mod hostile;
mod killed;
mod reuse;
mod sectors;
mod volumes;

use base::time::Span;
use nvme::dataset::DatasetRange;
use nvme::entry::{PSDT_SGL, SubmissionEntry};
use nvme::identify::IdentifyController;
use nvme::register;
use nvme::sgl::SglDescriptor;
use nvme::status::Status;
use nvme::{feature, opcode};
use nvmf::fabrics::{self, ConnectField};
use nvmf::pdu::{self, Digests};
use nvmf::subsystem::Hosts;

use self::fake::{Got, HOST, Host, Rig, exports, io_entry, pattern};
use super::*;
use crate::Message;
use crate::io::IoError;

const NONE: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };
const BLOCK: usize = base::BLOCK;

fn status(got: &Got) -> Status {
    match got {
        Got::Response(response) => response.status.status,
        other => panic!("{other:?}"),
    }
}

/// Writes by R2T and waits for its completion.
fn write_asked(rig: &mut Rig, host: &mut Host, lba: u64, data: &[u8], portion: usize) -> Status {
    host.command(rig, io_entry(opcode::WRITE, 9, lba, (data.len() / BLOCK) as u32, false), &[]);
    rig.settle();
    let got = host.received(rig);
    let [Got::Ask(ask)] = got[..] else { panic!("{got:?}") };
    assert_eq!((ask.offset, ask.length as usize), (0, data.len()));
    host.host_data(rig, &ask, data, portion);
    rig.settle();
    status(&host.received(rig)[0])
}

fn read(rig: &mut Rig, host: &mut Host, lba: u64, blocks: u32) -> Vec<u8> {
    host.command(rig, io_entry(opcode::READ, 10, lba, blocks, false), &[]);
    rig.settle();
    let mut got = host.received(rig);
    assert_eq!(got.len(), 2);
    assert!(status(&got[1]).is_success());
    let Got::Data(data, bytes) = got.swap_remove(0) else { panic!("data first") };
    assert_eq!(data.common.flags & (pdu::FLAG_LAST | pdu::FLAG_SUCCESS), pdu::FLAG_LAST);
    bytes
}

#[test]
fn what_is_written_is_read_back_at_any_segmentation_and_digest() {
    for digests in [NONE, BOTH, Digests { header: true, data: false }, Digests { header: false, data: true }] {
        for portion in [usize::MAX, 100_000, 4096, 777, 64] {
            let mut rig = Rig::new(2048);
            rig.ports.portion = portion;
            let (_admin, controller) = Host::admin(&mut rig, 1, digests);
            let mut host = Host::queue(&mut rig, 2, 1, controller, digests);
            let small = pattern(1, 2 * BLOCK);
            let written = host.ask(&mut rig, io_entry(opcode::WRITE, 3, 7, 2, true), &small);
            assert!(written.status.status.is_success());
            assert_eq!(read(&mut rig, &mut host, 7, 2), small);
            let large = pattern(2, 256 * BLOCK);
            assert_eq!(write_asked(&mut rig, &mut host, 100, &large, 100_000), Status::SUCCESS);
            assert_eq!(read(&mut rig, &mut host, 100, 256), large);
            let zeroed = host.ask(&mut rig, io_entry(opcode::WRITE_ZEROES, 4, 100, 256, false), &[]);
            assert!(zeroed.status.status.is_success());
            assert_eq!(read(&mut rig, &mut host, 355, 1), vec![0; BLOCK]);
            for nsid in [1, u32::MAX] {
                let flush = SubmissionEntry { nsid, ..io_entry(opcode::FLUSH, 5, 0, 0, false) };
                assert!(host.ask(&mut rig, flush, &[]).status.status.is_success());
            }
            rig.end();
        }
    }
}

#[test]
fn ranges_are_discarded_that_come_in_a_capsule_or_are_asked_for() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    assert_eq!(write_asked(&mut rig, &mut host, 0, &pattern(1, 8 * BLOCK), usize::MAX), Status::SUCCESS);
    let range = |lba, blocks| DatasetRange { attributes: 0, blocks, lba }.encode();
    let entry = |ranges: u32, bytes: u32, inside: bool| SubmissionEntry {
        cdw10: ranges - 1,
        cdw11: nvme::dataset::DEALLOCATE,
        data: if inside { SglDescriptor::in_capsule(0, bytes) } else { SglDescriptor::transport(bytes) },
        ..io_entry(opcode::DATASET_MANAGEMENT, 3, 0, 1, inside)
    };
    let zeros = vec![0; BLOCK];
    let ranges = [range(1, 1), range(3, 2)].concat();
    assert_eq!(host.ask(&mut rig, entry(2, 32, true), &ranges).status.status, Status::SUCCESS);
    for lba in [1, 3, 4] {
        assert_eq!(read(&mut rig, &mut host, lba, 1), zeros);
    }
    assert_ne!(read(&mut rig, &mut host, 2, 1), zeros);
    // Room for more ranges than there are, as Linux sends it.
    let mut whole = range(5, 1).to_vec();
    whole.resize(BLOCK, 0xff);
    host.command(&mut rig, entry(1, BLOCK as u32, false), &[]);
    rig.settle();
    let got = host.received(&mut rig);
    let [Got::Ask(ask)] = got[..] else { panic!("{got:?}") };
    host.host_data(&mut rig, &ask, &whole, usize::MAX);
    rig.settle();
    assert_eq!(status(&host.received(&mut rig)[0]), Status::SUCCESS);
    assert_eq!(read(&mut rig, &mut host, 5, 1), zeros);
    let long = range(0, nvmf::limits::MAX_DATASET_RANGE_BLOCKS + 1);
    let refused = host.ask(&mut rig, entry(1, 16, true), &long).status.status;
    assert_eq!(refused, Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
    rig.end();
}

#[test]
fn many_commands_come_in_one_receive_and_go_in_one_send() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    for cid in 0..32u16 {
        let data = pattern(u64::from(cid), BLOCK);
        host.command(&mut rig, io_entry(opcode::WRITE, cid, u64::from(cid), 1, true), &data);
    }
    rig.turn();
    rig.turn();
    assert_eq!(rig.io.requests.len(), 32);
    rig.end_requests();
    rig.turn();
    let got = host.received(&mut rig);
    assert_eq!(got.len(), 32);
    for cid in 0..32u16 {
        assert!(status(&got[usize::from(cid)]).is_success());
        assert_eq!(read(&mut rig, &mut host, u64::from(cid), 1), pattern(u64::from(cid), BLOCK));
    }
    let volume = &rig.front.hub.metrics().volumes[0];
    assert_eq!(volume.ops[1].bytes.get(), 32 * BLOCK as u64);
    rig.end();
}

#[test]
fn without_flow_control_the_last_data_is_the_answer() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, BOTH);
    let mut host = Host::open(&mut rig, 2, BOTH);
    let connected = host.connect_as(&mut rig, 1, controller, HOST, |entry| entry.cdw11 |= 4 << 16);
    assert!(connected.status.status.is_success());
    host.command(&mut rig, io_entry(opcode::READ, 3, 0, 4, false), &[]);
    rig.settle();
    let got = host.received(&mut rig);
    let [Got::Data(data, bytes)] = &got[..] else { panic!("{got:?}") };
    assert_eq!((data.common.flags & 0xc, bytes.len()), (0xc, 4 * BLOCK));
    rig.end();
}

#[test]
fn the_admin_queue_answers_as_hosts_expect() {
    let mut rig = Rig::new(1024);
    let (mut admin, controller) = Host::admin(&mut rig, 1, NONE);
    assert_eq!(controller, 1);
    let identify = SubmissionEntry {
        opcode: opcode::IDENTIFY,
        flags: PSDT_SGL << 6,
        cid: 5,
        cdw10: 1,
        data: SglDescriptor::transport(4096),
        ..Default::default()
    };
    admin.command(&mut rig, identify, &[]);
    rig.settle();
    let got = admin.received(&mut rig);
    let Got::Data(_, page) = &got[0] else { panic!("{got:?}") };
    assert_eq!(IdentifyController::decode(page).map(|page| page.controller_id), Ok(controller));
    // Data of an admin command, in the capsule and by R2T.
    let set = SubmissionEntry {
        opcode: opcode::SET_FEATURES,
        cdw10: u32::from(feature::TIMESTAMP),
        data: SglDescriptor::in_capsule(0, 8),
        ..identify
    };
    assert!(admin.ask(&mut rig, set, &[1; 8]).status.status.is_success());
    admin.command(&mut rig, SubmissionEntry { data: SglDescriptor::transport(8), ..set }, &[]);
    rig.settle();
    let got = admin.received(&mut rig);
    let [Got::Ask(ask)] = got[..] else { panic!("{got:?}") };
    admin.host_data(&mut rig, &ask, &[2; 8], 4);
    rig.settle();
    assert!(status(&admin.received(&mut rig)[0]).is_success());
    // An event request is held, then aborted; another is completed by a change of the exports.
    let event = SubmissionEntry { opcode: opcode::ASYNC_EVENT_REQUEST, cid: 0x77, ..Default::default() };
    admin.command(&mut rig, event, &[]);
    rig.settle();
    assert!(admin.received(&mut rig).is_empty());
    admin.command(
        &mut rig,
        SubmissionEntry { opcode: opcode::ABORT, cid: 6, cdw10: 0x77 << 16, ..Default::default() },
        &[],
    );
    rig.settle();
    let got = admin.received(&mut rig);
    assert_eq!((status(&got[0]), status(&got[1])), (Status::ABORT_REQUESTED, Status::SUCCESS));
    let configure = SubmissionEntry {
        opcode: opcode::SET_FEATURES,
        cdw10: u32::from(feature::ASYNC_EVENT_CONFIGURATION),
        cdw11: feature::EVENT_NAMESPACE_CHANGED,
        ..Default::default()
    };
    assert!(admin.ask(&mut rig, configure, &[]).status.status.is_success());
    admin.command(&mut rig, event, &[]);
    rig.settle();
    rig.front.set_exports(exports(Hosts::Any, 2, &[1, 2]));
    rig.settle();
    let got = admin.received(&mut rig);
    assert!(matches!(got[..], [Got::Response(response)] if response.result == 0x0004_0002 && response.cid == 0x77));
    rig.end();
}

#[test]
fn queues_are_admitted_by_the_rules_of_connect() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let refused = |rig: &mut Rig, id: u64, qid: u16, cntlid: u16, host: &str, change: fn(&mut SubmissionEntry)| {
        let mut stranger = Host::open(rig, id, NONE);
        let response = stranger.connect_as(rig, qid, cntlid, host, change);
        rig.stream(id).ended = true;
        rig.settle();
        (response.status.status, response.result as u32)
    };
    let parameter = |field: ConnectField| (Status::CONNECT_INVALID_PARAMETERS.do_not_retry(), field.to_dword());
    assert_eq!(refused(&mut rig, 2, 1, controller, "nqn.other", |_| {}), parameter(ConnectField::HOST_NQN));
    assert_eq!(refused(&mut rig, 3, 1, 999, HOST, |_| {}), parameter(ConnectField::CONTROLLER_ID));
    assert_eq!(refused(&mut rig, 4, 1, 60_000, HOST, |_| {}), parameter(ConnectField::CONTROLLER_ID));
    assert_eq!(refused(&mut rig, 5, 0, 1, HOST, |_| {}), parameter(ConnectField::CONTROLLER_ID));
    assert_eq!(refused(&mut rig, 6, 1, controller, HOST, |entry| entry.cdw11 = 0), parameter(ConnectField::SQSIZE));
    assert_eq!(refused(&mut rig, 7, 0, 0xffff, "iqn.bad", |_| {}), parameter(ConnectField::HOST_NQN));
    let short = |entry: &mut SubmissionEntry| entry.data.length = 0;
    assert_eq!(refused(&mut rig, 8, 1, controller, HOST, short).0, Status::DATA_SGL_LENGTH_INVALID.do_not_retry());
    let format = |entry: &mut SubmissionEntry| entry.cdw10 |= 1;
    assert_eq!(refused(&mut rig, 9, 1, controller, HOST, format).0, Status::CONNECT_INCOMPATIBLE_FORMAT.do_not_retry());
    let other = |entry: &mut SubmissionEntry| entry.opcode = opcode::IDENTIFY;
    assert_eq!(refused(&mut rig, 10, 1, controller, HOST, other).0, Status::SEQUENCE_ERROR.do_not_retry());
    // The queue itself, twice, and again on the same connection after a refusal.
    let _first = Host::queue(&mut rig, 11, 1, controller, NONE);
    let mut second = Host::open(&mut rig, 12, NONE);
    assert_eq!(second.connect(&mut rig, 1, controller).status.status, Status::SEQUENCE_ERROR);
    assert!(second.connect(&mut rig, 2, controller).status.status.is_success());
    rig.front.hub.exports = exports(Hosts::Listed(vec![]), 2, &[1]);
    assert_eq!(refused(&mut rig, 13, 0, 0xffff, HOST, |_| {}).0, Status::CONNECT_INVALID_HOST.do_not_retry());
    rig.end();
}

#[test]
fn a_queue_without_room_for_its_capsules_is_refused_and_may_come_again() {
    // Each queue of 32 entries takes 64 blocks, the admin queue 2.
    let limits = FrontLimits { connections: 8, in_capsule_blocks: 70, data_blocks: 256 };
    let mut rig = Rig::with(0, 1, 1024, limits);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let _queue = Host::queue(&mut rig, 2, 1, controller, NONE);
    let mut third = Host::open(&mut rig, 3, NONE);
    assert_eq!(third.connect(&mut rig, 2, controller).status.status, Status::CONNECT_CONTROLLER_BUSY);
    rig.stream(2).ended = true;
    rig.settle();
    assert!(third.connect(&mut rig, 2, controller).status.status.is_success());
    rig.end();
}

#[test]
fn commands_are_refused_with_the_right_status() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    let data = pattern(1, BLOCK);
    let write = io_entry(opcode::WRITE, 3, 0, 1, true);
    for (entry, data, expected) in [
        (SubmissionEntry { nsid: 2, ..write }, &data[..], Status::INVALID_NAMESPACE),
        (io_entry(opcode::WRITE, 3, fake::BLOCKS, 1, true), &data[..], Status::LBA_OUT_OF_RANGE),
        (SubmissionEntry { flags: PSDT_SGL << 6 | 3, ..write }, &data[..], Status::INVALID_FIELD),
        (SubmissionEntry { cdw12: 1, ..write }, &data[..], Status::DATA_SGL_LENGTH_INVALID),
        (SubmissionEntry { opcode: opcode::VERIFY, ..write }, &data[..4], Status::INVALID_OPCODE),
        (io_entry(opcode::READ, 3, 0, 257, false), &[][..], Status::INVALID_FIELD),
        (io_entry(opcode::WRITE_ZEROES, 3, 0, 1, false), &data[..4], Status::DATA_SGL_LENGTH_INVALID),
        (fabrics::property_get(3, register::CAP, true), &[][..], Status::INVALID_OPCODE),
    ] {
        let response = host.ask(&mut rig, entry, data);
        assert_eq!((response.status.status, response.cid), (expected.do_not_retry(), 3), "{entry:?}");
    }
    for (error, expected) in [
        (IoError::ReadOnly, Status::WRITE_PROTECTED.do_not_retry()),
        (IoError::Stopped, Status::NAMESPACE_NOT_READY.do_not_retry()),
        (IoError::Unwritable, Status::WRITE_FAULT.do_not_retry()),
        (IoError::Unreadable, Status::UNRECOVERED_READ_ERROR.do_not_retry()),
        (IoError::NoVolume, Status::INVALID_NAMESPACE.do_not_retry()),
        (IoError::OutOfRange, Status::LBA_OUT_OF_RANGE.do_not_retry()),
    ] {
        rig.io.fails = Some(error);
        assert_eq!(host.ask(&mut rig, io_entry(opcode::READ, 3, 0, 1, false), &[]).status.status, expected);
        assert_eq!(host.ask(&mut rig, write, &data).status.status, expected);
    }
    // A stop is not answered: the host comes back and tries again.
    rig.io.fails = Some(IoError::Stopping);
    host.command(&mut rig, write, &data);
    rig.settle();
    assert!(rig.is_closed(2) && host.received(&mut rig).is_empty());
    rig.end();
}

#[test]
fn a_cid_in_flight_is_a_conflict_and_disconnect_ends_the_queue() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    host.command(&mut rig, io_entry(opcode::READ, 3, 0, 1, false), &[]);
    host.command(&mut rig, io_entry(opcode::READ, 3, 0, 1, false), &[]);
    rig.turn();
    assert_eq!(status(&host.received(&mut rig)[0]), Status::CID_CONFLICT.do_not_retry());
    rig.settle();
    assert_eq!(host.received(&mut rig).len(), 2);
    let disconnect = SubmissionEntry {
        opcode: opcode::FABRICS,
        nsid: u32::from(opcode::FABRICS_DISCONNECT),
        cid: 4,
        ..Default::default()
    };
    assert!(host.ask(&mut rig, disconnect, &[]).status.status.is_success());
    assert!(rig.is_closed(2));
    let again = Host::queue(&mut rig, 3, 1, controller, NONE);
    assert_eq!(again.id, 3);
    rig.end();
}

#[test]
fn a_reset_of_the_controller_ends_its_queues_and_keeps_the_admin_queue() {
    let mut rig = Rig::new(1024);
    let (mut admin, controller) = Host::admin(&mut rig, 1, NONE);
    let _host = Host::queue(&mut rig, 2, 1, controller, NONE);
    let event = SubmissionEntry { opcode: opcode::ASYNC_EVENT_REQUEST, cid: 0x77, ..Default::default() };
    admin.command(&mut rig, event, &[]);
    admin.command(&mut rig, fabrics::property_set(3, register::CC, 0), &[]);
    rig.settle();
    let got = admin.received(&mut rig);
    assert_eq!((status(&got[0]), status(&got[1])), (Status::SUCCESS, Status::ABORTED_SQ_DELETION));
    assert!(rig.is_closed(2) && !rig.is_closed(1));
    let enable = fabrics::property_set(3, register::CC, register::Configuration::ENABLE.0);
    assert!(admin.ask(&mut rig, enable, &[]).status.status.is_success());
    let _again = Host::queue(&mut rig, 3, 1, controller, NONE);
    rig.end();
}

#[test]
fn short_of_buffers_commands_wait_and_capsules_still_find_their_place() {
    // After the queues' capsules (66) 34 blocks are free.
    let limits = FrontLimits { connections: 8, in_capsule_blocks: 66, data_blocks: 256 };
    let mut rig = Rig::with(0, 1, 100, limits);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    for cid in 0..4 {
        host.command(&mut rig, io_entry(opcode::READ, cid, 0, 16, false), &[]);
    }
    for cid in 4..30 {
        host.command(&mut rig, io_entry(opcode::WRITE, cid, 100 + u64::from(cid), 2, true), &pattern(5, 2 * BLOCK));
    }
    rig.turn();
    rig.turn();
    rig.turn();
    assert_eq!(rig.io.requests.len(), 2, "two reads fit, the third makes all behind it wait");
    rig.io.refuses = true;
    rig.end_requests();
    rig.turn();
    assert_eq!(rig.io.requests.len(), 0, "the volumes have no room");
    rig.io.refuses = false;
    rig.settle();
    let got = host.received(&mut rig);
    assert_eq!(got.iter().filter(|got| matches!(got, Got::Response(_))).count(), 30);
    assert!(got.iter().all(|got| matches!(got, Got::Data(..)) || status(got).is_success()));
    rig.end();
}

/// Moves messages between two shards until none is left.
fn exchange(rigs: &mut [Rig; 2]) {
    for _ in 0..8 {
        for from in 0..2 {
            rigs[from].alone = false;
            rigs[from].settle();
            while let Some((to, message)) = rigs[from].ports.posted.pop_front() {
                if to.index() == rigs.len() {
                    continue; // For the control side.
                }
                let here = ShardId(from as u16);
                let rig = &mut rigs[to.index()];
                match message {
                    Message::Front(message) => rig.front.message(&mut rig.ports, here, message),
                    Message::Raise { association, cause } => {
                        rig.front.fenced(&mut rig.ports, association, cause);
                        rig.settle();
                        let home = &mut rigs[from];
                        home.front.raised(&mut home.ports, to, association);
                    }
                    other => panic!("fronts do not say {other:?}"),
                }
            }
        }
    }
}

#[test]
fn an_io_queue_on_another_shard_asks_its_controllers_home() {
    let limits = FrontLimits { connections: 8, in_capsule_blocks: 512, data_blocks: 512 };
    let mut rigs = [Rig::with(0, 2, 1024, limits), Rig::with(1, 2, 1024, limits)];
    let (_admin, controller) = Host::admin(&mut rigs[1], 1, NONE);
    assert_eq!(controller, 4097);
    let connect = |rigs: &mut [Rig; 2], id: u64, host: &str| {
        let mut queue = Host::open(&mut rigs[0], id, NONE);
        let data = fabrics::ConnectData {
            host_id: [7; 16],
            controller_id: controller,
            subsystem_nqn: nvme::layout::null_padded(fake::NQN),
            host_nqn: nvme::layout::null_padded(host),
        };
        let connect = fabrics::Connect { format: 0, queue_id: 1, last_entry: 31, attributes: 0, keep_alive_ms: 0 };
        queue.command(&mut rigs[0], connect.to_entry(1), &data.encode());
        exchange(rigs);
        let got = queue.received(&mut rigs[0]);
        (queue, status(&got[0]))
    };
    let (_, refused) = connect(&mut rigs, 2, "nqn.other");
    assert_eq!(refused, Status::CONNECT_INVALID_PARAMETERS.do_not_retry());
    let (mut queue, accepted) = connect(&mut rigs, 3, HOST);
    assert_eq!(accepted, Status::SUCCESS);
    let (_, twice) = connect(&mut rigs, 4, HOST);
    assert_eq!(twice, Status::SEQUENCE_ERROR);
    // Traffic there keeps the controller here.
    for _ in 0..5 {
        for rig in &mut rigs {
            rig.pass(Span::from_secs(3));
        }
        assert_eq!(read(&mut rigs[0], &mut queue, 0, 1).len(), BLOCK);
        rigs[0].pass(Span::from_millis(300));
        exchange(&mut rigs);
    }
    assert!(!rigs[1].is_closed(1) && !rigs[0].is_closed(3));
    // Its end frees its number; the controller's end closes it.
    rigs[0].stream(3).ended = true;
    exchange(&mut rigs);
    let (_queue, accepted) = connect(&mut rigs, 5, HOST);
    assert_eq!(accepted, Status::SUCCESS);
    rigs[1].stream(1).ended = true;
    exchange(&mut rigs);
    assert!(rigs[0].is_closed(5));
    for rig in rigs {
        rig.end();
    }
}

#[test]
fn a_stop_answers_what_is_under_way_and_closes() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    host.command(&mut rig, io_entry(opcode::READ, 1, 0, 8, false), &[]);
    rig.turn();
    rig.turn();
    rig.front.stop(&mut rig.ports);
    rig.turn();
    assert!(!rig.is_closed(2), "a read is under way");
    assert!(!rig.is_closed(1), "its end would end the I/O queue");
    rig.settle();
    assert_eq!(host.received(&mut rig).len(), 2, "what was under way is answered");
    assert!(rig.is_closed(1) && rig.is_closed(2));
    rig.ports.open(7);
    rig.turn();
    assert!(rig.is_closed(7));
    rig.end();
}

#[test]
fn the_discovery_subsystem_answers_without_an_export() {
    let mut rig = Rig::new(1024);
    let mut host = Host::open(&mut rig, 1, NONE);
    let data = fabrics::ConnectData {
        host_id: [7; 16],
        controller_id: 0xffff,
        subsystem_nqn: nvme::layout::null_padded(nvme::discovery::DISCOVERY_NQN),
        host_nqn: nvme::layout::null_padded(HOST),
    };
    let connect = fabrics::Connect { format: 0, queue_id: 0, last_entry: 31, attributes: 0, keep_alive_ms: 0 };
    assert!(host.ask(&mut rig, connect.to_entry(1), &data.encode()).status.status.is_success());
    let enable = fabrics::property_set(2, register::CC, register::Configuration::ENABLE.0);
    assert!(host.ask(&mut rig, enable, &[]).status.status.is_success());
    let log = SubmissionEntry {
        opcode: opcode::GET_LOG_PAGE,
        flags: PSDT_SGL << 6,
        cid: 3,
        cdw10: 0x70 | 0x3ff << 16,
        data: SglDescriptor::transport(4096),
        ..Default::default()
    };
    host.command(&mut rig, log, &[]);
    rig.settle();
    let got = host.received(&mut rig);
    let Got::Data(_, page) = &got[0] else { panic!("{got:?}") };
    assert_eq!((page.len(), page[0], page[8]), (4096, 1, 2));
    rig.end();
}
