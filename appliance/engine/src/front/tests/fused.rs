//! Compares, and pairs of a compare and a write.

use nvme::entry::{FUSE_FIRST, FUSE_SECOND, PSDT_SGL, SubmissionEntry};
use nvme::opcode;
use nvme::status::Status;

use super::fake::{Got, Host, Rig, io_entry, pattern};
use super::{BLOCK, BOTH, NONE, read, write_asked};
use crate::io::IoError;

const COMPARE_CID: u16 = 3;
const WRITE_CID: u16 = 4;

fn half(opcode: u8, cid: u16, fuse: u8, lba: u64, blocks: u32, inside: bool) -> SubmissionEntry {
    SubmissionEntry { flags: PSDT_SGL << 6 | fuse, ..io_entry(opcode, cid, lba, blocks, inside) }
}

fn compare(lba: u64, blocks: u32, inside: bool) -> SubmissionEntry {
    half(opcode::COMPARE, COMPARE_CID, FUSE_FIRST, lba, blocks, inside)
}

fn write(lba: u64, blocks: u32, inside: bool) -> SubmissionEntry {
    half(opcode::WRITE, WRITE_CID, FUSE_SECOND, lba, blocks, inside)
}

/// The completions that come, by command.
fn completions(host: &mut Host, rig: &mut Rig) -> Vec<(u16, Status)> {
    let got = host.received(rig);
    let one = |got| match got {
        Got::Response(response) => (response.cid, response.status.status),
        other => panic!("{other:?}"),
    };
    got.into_iter().map(one).collect()
}

fn begin() -> (Rig, Host, Host) {
    let mut rig = Rig::new(1024);
    let (admin, controller) = Host::admin(&mut rig, 1, NONE);
    let host = Host::queue(&mut rig, 2, 1, controller, NONE);
    (rig, admin, host)
}

#[test]
fn a_compare_says_whether_it_is_the_same() {
    let (mut rig, _admin, mut host) = begin();
    let stored = pattern(1, 2 * BLOCK);
    assert_eq!(write_asked(&mut rig, &mut host, 8, &stored, usize::MAX), Status::SUCCESS);
    let entry = io_entry(opcode::COMPARE, 5, 8, 2, true);
    assert_eq!(host.ask(&mut rig, entry, &stored).status.status, Status::SUCCESS);
    let mut other = stored.clone();
    other[BLOCK + 7] ^= 1;
    assert_eq!(host.ask(&mut rig, entry, &other).status.status, Status::COMPARE_FAILURE.do_not_retry());
    rig.end();
}

#[test]
fn a_pair_writes_only_what_compares_equal_and_each_half_is_answered() {
    for digests in [NONE, BOTH] {
        let mut rig = Rig::new(1024);
        let (_admin, controller) = Host::admin(&mut rig, 1, digests);
        let mut host = Host::queue(&mut rig, 2, 1, controller, digests);
        let (old, new) = (pattern(1, BLOCK), pattern(2, BLOCK));
        assert_eq!(write_asked(&mut rig, &mut host, 8, &old, usize::MAX), Status::SUCCESS);
        host.command(&mut rig, compare(8, 1, true), &old);
        rig.settle();
        assert_eq!(completions(&mut host, &mut rig), [], "it waits for its other half");
        host.command(&mut rig, write(8, 1, true), &new);
        rig.settle();
        let both = [(COMPARE_CID, Status::SUCCESS), (WRITE_CID, Status::SUCCESS)];
        assert_eq!(completions(&mut host, &mut rig), both);
        assert_eq!(read(&mut rig, &mut host, 8, 1), new);
        host.command(&mut rig, compare(8, 1, true), &old);
        host.command(&mut rig, write(8, 1, true), &old);
        rig.settle();
        let failed = [(COMPARE_CID, Status::COMPARE_FAILURE.do_not_retry()), (WRITE_CID, Status::ABORTED_FAILED_FUSED)];
        assert_eq!(completions(&mut host, &mut rig), failed);
        assert_eq!(read(&mut rig, &mut host, 8, 1), new);
        rig.end();
    }
}

#[test]
fn the_data_of_either_half_may_be_asked_for_and_come_last() {
    for write_first in [false, true] {
        let (mut rig, _admin, mut host) = begin();
        let (old, new) = (pattern(1, 4 * BLOCK), pattern(2, 4 * BLOCK));
        assert_eq!(write_asked(&mut rig, &mut host, 8, &old, usize::MAX), Status::SUCCESS);
        host.command(&mut rig, compare(8, 4, false), &[]);
        host.command(&mut rig, write(8, 4, false), &[]);
        rig.settle();
        let got = host.received(&mut rig);
        let [Got::Ask(of_compare), Got::Ask(of_write)] = got[..] else { panic!("{got:?}") };
        let mut halves = [(of_compare, &old), (of_write, &new)];
        if write_first {
            halves.reverse();
        }
        for (ask, data) in halves {
            assert_eq!(completions(&mut host, &mut rig), []);
            host.host_data(&mut rig, &ask, data, usize::MAX);
            rig.settle();
        }
        let both = [(COMPARE_CID, Status::SUCCESS), (WRITE_CID, Status::SUCCESS)];
        assert_eq!(completions(&mut host, &mut rig), both);
        assert_eq!(read(&mut rig, &mut host, 8, 4), new);
        rig.end();
    }
}

#[test]
fn a_half_without_the_other_is_aborted() {
    let (mut rig, _admin, mut host) = begin();
    let data = pattern(1, BLOCK);
    let missing = Status::ABORTED_MISSING_FUSED.do_not_retry();
    let ask = |rig: &mut Rig, host: &mut Host, commands: &[SubmissionEntry]| {
        for &entry in commands {
            host.command(rig, entry, &data);
        }
        rig.settle();
        completions(host, rig)
    };
    assert_eq!(ask(&mut rig, &mut host, &[write(0, 1, true)]), [(WRITE_CID, missing)]);
    let plain = io_entry(opcode::WRITE, 7, 0, 1, true);
    let answers = ask(&mut rig, &mut host, &[compare(0, 1, true), plain]);
    assert_eq!(answers, [(COMPARE_CID, missing), (7, Status::SUCCESS)]);
    let again = SubmissionEntry { cid: 9, ..compare(0, 1, true) };
    let answers = ask(&mut rig, &mut host, &[compare(0, 1, true), again, write(0, 1, true)]);
    assert_eq!(answers, [(COMPARE_CID, missing), (9, Status::SUCCESS), (WRITE_CID, Status::SUCCESS)]);
    // Of different blocks.
    let different = Status::INVALID_FIELD.do_not_retry();
    let answers = ask(&mut rig, &mut host, &[compare(0, 1, true), write(1, 1, true)]);
    assert_eq!(answers, [(COMPARE_CID, different), (WRITE_CID, different)]);
    // One half is refused before its other is known, and after.
    let failed = Status::ABORTED_FAILED_FUSED;
    let beyond = Status::LBA_OUT_OF_RANGE.do_not_retry();
    let answers = ask(&mut rig, &mut host, &[compare(super::fake::BLOCKS, 1, true), write(0, 1, true)]);
    assert_eq!(answers, [(COMPARE_CID, beyond), (WRITE_CID, failed)]);
    let answers = ask(&mut rig, &mut host, &[compare(0, 1, true), write(super::fake::BLOCKS, 1, true)]);
    assert_eq!(answers, [(COMPARE_CID, failed), (WRITE_CID, beyond)]);
    for (error, first, second) in [
        (IoError::ReadOnly, failed, Status::WRITE_PROTECTED.do_not_retry()),
        (IoError::Unreadable, Status::UNRECOVERED_READ_ERROR.do_not_retry(), failed),
    ] {
        rig.io.fails = Some(error);
        let answers = ask(&mut rig, &mut host, &[compare(0, 1, true), write(0, 1, true)]);
        assert_eq!(answers, [(COMPARE_CID, first), (WRITE_CID, second)]);
    }
    // One that waits for ever ends with its connection.
    host.command(&mut rig, compare(0, 1, true), &data);
    rig.settle();
    rig.end();
}
