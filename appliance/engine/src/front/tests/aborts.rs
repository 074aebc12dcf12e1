//! Aborts: what has not begun is taken out, whatever stage it is in, and the Abort says whether it was.

use nvme::entry::{FUSE_FIRST, FUSE_SECOND, PSDT_SGL, SubmissionEntry};
use nvme::status::Status;
use nvme::{opcode, register};
use nvmf::fabrics;
use nvmf::limits::MAX_ABORTS;

use super::fake::{Got, Host, Rig, io_entry, pattern};
use super::*;

const VICTIM: u16 = 0x31;

fn abort(cid: u16, queue_id: u16, victim: u16) -> SubmissionEntry {
    let cdw10 = u32::from(queue_id) | u32::from(victim) << 16;
    SubmissionEntry { opcode: opcode::ABORT, cid, cdw10, ..Default::default() }
}

fn turns(rig: &mut Rig) {
    for _ in 0..4 {
        rig.turn();
    }
}

/// The completions that have come: by CID the status and the result.
fn completions(rig: &mut Rig, host: &mut Host) -> Vec<(u16, Status, u64)> {
    turns(rig);
    let responses = host.received(rig).into_iter().filter_map(|got| match got {
        Got::Response(response) => Some((response.cid, response.status.status, response.result)),
        _ => None,
    });
    responses.collect()
}

fn begin() -> (Rig, Host, Host) {
    let mut rig = Rig::new(1024);
    let (admin, controller) = Host::admin(&mut rig, 1, NONE);
    let host = Host::queue(&mut rig, 2, 1, controller, NONE);
    (rig, admin, host)
}

fn write(rig: &mut Rig, host: &Host, inside: bool) {
    let data = pattern(1, 2 * BLOCK);
    host.command(rig, io_entry(opcode::WRITE, VICTIM, 0, 2, inside), if inside { &data } else { &[] });
    turns(rig);
}

const ABORTED: (u16, Status, u64) = (VICTIM, Status::ABORT_REQUESTED, 0);
const DONE: (u16, Status, u64) = (VICTIM, Status::SUCCESS, 0);
const SAYS_ABORTED: [(u16, Status, u64); 1] = [(7, Status::SUCCESS, 0)];
const SAYS_NOT: [(u16, Status, u64); 1] = [(7, Status::SUCCESS, 1)];

#[test]
fn a_command_at_the_volumes_is_aborted_if_they_can_and_else_goes_on() {
    for stopped in [true, false] {
        let (mut rig, mut admin, mut host) = begin();
        write(&mut rig, &host, true);
        admin.command(&mut rig, abort(7, 1, VICTIM), &[]);
        // A second one for the same command is too many.
        admin.command(&mut rig, abort(8, 1, VICTIM), &[]);
        assert_eq!(completions(&mut rig, &mut admin), [(8, Status::SUCCESS, 1)]);
        let [token] = rig.io.aborts[..] else { panic!("{:?}", rig.io.aborts) };
        assert_eq!(token, rig.io.requests[0].token);
        if stopped {
            rig.io.fails = Some(IoError::Aborted);
            rig.end_requests();
            assert_eq!(completions(&mut rig, &mut host), [ABORTED]);
            assert_eq!(completions(&mut rig, &mut admin), SAYS_ABORTED);
        } else {
            rig.front.goes_on(token);
            assert_eq!(completions(&mut rig, &mut admin), SAYS_NOT);
            assert_eq!(completions(&mut rig, &mut host), []);
            rig.end_requests();
            assert_eq!(completions(&mut rig, &mut host), [DONE]);
        }
        rig.end();
    }
}

#[test]
fn one_that_ends_in_spite_of_it_was_not_aborted() {
    let (mut rig, mut admin, mut host) = begin();
    host.command(&mut rig, io_entry(opcode::READ, VICTIM, 0, 2, false), &[]);
    turns(&mut rig);
    admin.command(&mut rig, abort(7, 1, VICTIM), &[]);
    assert_eq!(completions(&mut rig, &mut admin), []);
    rig.end_requests();
    assert_eq!(completions(&mut rig, &mut admin), SAYS_NOT);
    assert_eq!(completions(&mut rig, &mut host), [DONE]);
    rig.end();
}

#[test]
fn what_waits_for_room_is_taken_out_at_once_and_those_behind_it_go_on() {
    let (mut rig, mut admin, mut host) = begin();
    rig.io.refuses = true;
    write(&mut rig, &host, true);
    host.command(&mut rig, io_entry(opcode::READ, 0x32, 0, 1, false), &[]);
    turns(&mut rig);
    admin.command(&mut rig, abort(7, 1, VICTIM), &[]);
    assert_eq!(completions(&mut rig, &mut admin), SAYS_ABORTED);
    assert_eq!(completions(&mut rig, &mut host), [ABORTED]);
    rig.io.refuses = false;
    turns(&mut rig);
    assert_eq!((rig.io.requests.len(), rig.io.requests[0].kind), (1, crate::io::IoKind::Read));
    rig.end_requests();
    assert_eq!(completions(&mut rig, &mut host), [(0x32, Status::SUCCESS, 0)]);
    rig.end();
}

#[test]
fn one_whose_data_was_asked_for_is_refused_when_it_has_come_or_ends_with_its_connection() {
    for comes in [true, false] {
        let (mut rig, mut admin, mut host) = begin();
        write(&mut rig, &host, false);
        let got = host.received(&mut rig);
        let [Got::Ask(ask)] = got[..] else { panic!("{got:?}") };
        admin.command(&mut rig, abort(7, 1, VICTIM), &[]);
        assert_eq!(completions(&mut rig, &mut admin), []);
        if comes {
            host.host_data(&mut rig, &ask, &pattern(1, 2 * BLOCK), 1000);
            assert_eq!(completions(&mut rig, &mut host), [ABORTED]);
            assert_eq!(completions(&mut rig, &mut admin), SAYS_ABORTED);
        } else {
            rig.stream(2).ended = true;
            assert_eq!(completions(&mut rig, &mut admin), SAYS_NOT);
        }
        assert!(rig.io.requests.is_empty() && rig.io.content.is_empty(), "nothing reaches the volumes");
        rig.end();
    }
}

#[test]
fn of_a_pair_the_aborted_half_says_so_and_takes_the_other_with_it() {
    let half = |opcode, cid, fuse| SubmissionEntry { flags: PSDT_SGL << 6 | fuse, ..io_entry(opcode, cid, 0, 1, true) };
    let failed = Status::ABORTED_FAILED_FUSED;
    for (victim, of_compare, of_write) in [(3, Status::ABORT_REQUESTED, failed), (4, failed, Status::ABORT_REQUESTED)] {
        for whole in [true, false] {
            let (mut rig, mut admin, mut host) = begin();
            rig.io.refuses = !whole;
            for (opcode, cid, fuse) in [(opcode::COMPARE, 3, FUSE_FIRST), (opcode::WRITE, 4, FUSE_SECOND)] {
                host.command(&mut rig, half(opcode, cid, fuse), &pattern(1, BLOCK));
            }
            turns(&mut rig);
            admin.command(&mut rig, abort(7, 1, victim), &[]);
            turns(&mut rig);
            if whole {
                assert_eq!(rig.io.aborts, [rig.io.requests[0].token]);
                rig.io.fails = Some(IoError::Aborted);
                rig.end_requests();
            }
            let mut both = completions(&mut rig, &mut host);
            both.sort_unstable_by_key(|&(cid, ..)| cid);
            assert_eq!(both, [(3, of_compare, 0), (4, of_write, 0)]);
            assert_eq!(completions(&mut rig, &mut admin), SAYS_ABORTED);
            rig.end();
        }
    }
}

#[test]
fn nobody_has_more_aborts_than_identify_says_and_what_is_unknown_was_not_aborted() {
    let (mut rig, mut admin, host) = begin();
    for nothing in [abort(7, 1, 0x99), abort(7, 2, VICTIM), abort(7, 0, 7), abort(7, 0, 0x99)] {
        admin.command(&mut rig, nothing, &[]);
        assert_eq!(completions(&mut rig, &mut admin), SAYS_NOT, "{nothing:?}");
    }
    for cid in 0..u16::from(MAX_ABORTS) + 1 {
        host.command(&mut rig, io_entry(opcode::READ, VICTIM + cid, 0, 1, false), &[]);
        turns(&mut rig);
        admin.command(&mut rig, abort(0x50 + cid, 1, VICTIM + cid), &[]);
    }
    let too_many = (0x50 + u16::from(MAX_ABORTS), Status::ABORT_LIMIT_EXCEEDED, 0);
    assert_eq!(completions(&mut rig, &mut admin), [too_many]);
    // A reset takes the Aborts with it, and its queues.
    admin.command(&mut rig, fabrics::property_set(2, register::CC, 0), &[]);
    let ended = completions(&mut rig, &mut admin);
    assert_eq!(ended.len(), usize::from(MAX_ABORTS) + 1);
    assert!(ended.iter().all(|&(cid, status, _)| cid == 2 || status == Status::ABORTED_SQ_DELETION), "{ended:?}");
    rig.end();
}

#[test]
fn a_queue_on_another_shard_is_asked_there() {
    let limits = FrontLimits { connections: 8, in_capsule_blocks: 512, data_blocks: 512 };
    let mut rigs = [Rig::with(0, 2, 1024, limits), Rig::with(1, 2, 1024, limits)];
    let (mut admin, controller) = Host::admin(&mut rigs[1], 1, NONE);
    let mut host = Host::open(&mut rigs[0], 3, NONE);
    let data = fabrics::ConnectData {
        host_id: [7; 16],
        controller_id: controller,
        subsystem_nqn: nvme::layout::null_padded(fake::NQN),
        host_nqn: nvme::layout::null_padded(HOST),
    };
    let connect = fabrics::Connect { format: 0, queue_id: 1, last_entry: 31, attributes: 0, keep_alive_ms: 0 };
    host.command(&mut rigs[0], connect.to_entry(1), &data.encode());
    exchange(&mut rigs);
    assert_eq!(completions(&mut rigs[0], &mut host).len(), 1);
    rigs[0].io.refuses = true;
    write(&mut rigs[0], &host, true);
    admin.command(&mut rigs[1], abort(7, 1, VICTIM), &[]);
    exchange(&mut rigs);
    assert_eq!(completions(&mut rigs[0], &mut host), [ABORTED]);
    assert_eq!(completions(&mut rigs[1], &mut admin), SAYS_ABORTED);
    for rig in rigs {
        rig.end();
    }
}
