//! Hosts with logical blocks of 512 bytes: what they mean begins and ends within blocks of ours, and what lies beside it
//! stays as it is.

use base::sector::{LogicalBlock, SECTOR};
use nvme::dataset::DatasetRange;
use nvme::entry::{FUSE_FIRST, FUSE_SECOND, PSDT_SGL, SubmissionEntry};
use nvme::opcode;
use nvme::sgl::SglDescriptor;
use nvme::status::Status;
use nvmf::pdu::Digests;
use nvmf::subsystem::Hosts;

use super::fake::{Got, Host, Rig, exported, exports, io_entry, pattern};
use super::{BLOCK, BOTH, NONE, status};

/// A front whose namespace is of sectors, and the queues of a host.
fn begin(digests: Digests) -> (Rig, [Host; 2]) {
    let mut rig = Rig::new(2048);
    let mut subsystem = exports(Hosts::Any, 2, &[1]).subsystems()[0].clone();
    subsystem.namespaces[0].logical = LogicalBlock::Sector;
    rig.front.set_exports(exported(2, subsystem));
    let (admin, controller) = Host::admin(&mut rig, 1, digests);
    let host = Host::queue(&mut rig, 2, 1, controller, digests);
    (rig, [admin, host])
}

fn entry(opcode: u8, cid: u16, sector: u64, sectors: usize, inside: bool) -> SubmissionEntry {
    let bytes = (sectors * SECTOR) as u32;
    let data = if inside { SglDescriptor::in_capsule(0, bytes) } else { SglDescriptor::transport(bytes) };
    SubmissionEntry { data, cdw12: sectors as u32 - 1, ..io_entry(opcode, cid, sector, 1, inside) }
}

fn write(rig: &mut Rig, host: &mut Host, sector: u64, data: &[u8], portion: usize) {
    let sectors = data.len() / SECTOR;
    if data.len() <= 2 * BLOCK && portion > data.len() {
        let written = host.ask(rig, entry(opcode::WRITE, 3, sector, sectors, true), data);
        assert_eq!(written.status.status, Status::SUCCESS);
        return;
    }
    host.command(rig, entry(opcode::WRITE, 3, sector, sectors, false), &[]);
    rig.settle();
    let got = host.received(rig);
    let [Got::Ask(ask)] = got[..] else { panic!("{got:?}") };
    assert_eq!(ask.length as usize, data.len(), "no more is asked for than there is");
    host.host_data(rig, &ask, data, portion);
    rig.settle();
    assert_eq!(status(&host.received(rig)[0]), Status::SUCCESS);
}

fn read(rig: &mut Rig, host: &mut Host, sector: u64, sectors: usize) -> Vec<u8> {
    host.command(rig, entry(opcode::READ, 4, sector, sectors, false), &[]);
    rig.settle();
    let mut got = host.received(rig);
    assert!(status(&got[1]).is_success());
    let Got::Data(data, bytes) = got.swap_remove(0) else { panic!("data first") };
    assert_eq!((data.length as usize, bytes.len()), (sectors * SECTOR, sectors * SECTOR));
    bytes
}

const RUNS: [(u64, usize); 9] = [(0, 1), (7, 1), (3, 2), (7, 2), (16, 8), (17, 8), (17, 16), (12, 61), (1005, 2048)];

#[test]
fn runs_of_sectors_are_written_and_read_and_their_neighbours_stay() {
    for digests in [NONE, BOTH] {
        for portion in [usize::MAX, 100_000, 777] {
            let (mut rig, [_admin, mut host]) = begin(digests);
            rig.ports.portion = portion;
            let mut model = vec![0; 4000 * SECTOR];
            for (step, (sector, sectors)) in (1u64..).zip(RUNS) {
                let data = pattern(step, sectors * SECTOR);
                write(&mut rig, &mut host, sector, &data, portion);
                let start = sector as usize * SECTOR;
                model[start..start + data.len()].copy_from_slice(&data);
                assert_eq!(read(&mut rig, &mut host, sector, sectors), data, "{sectors} sectors at {sector}");
            }
            for (sector, sectors) in RUNS {
                let start = sector as usize * SECTOR;
                let expected = &model[start..start + sectors * SECTOR];
                assert_eq!(read(&mut rig, &mut host, sector, sectors), expected, "{sectors} sectors at {sector}");
            }
            assert_eq!(read(&mut rig, &mut host, 0, 80), model[..80 * SECTOR]);
            rig.end();
        }
    }
}

#[test]
fn zeros_and_discards_touch_no_sector_beside_them() {
    let (mut rig, [_admin, mut host]) = begin(NONE);
    let mut model = pattern(1, 64 * SECTOR);
    write(&mut rig, &mut host, 0, &model, usize::MAX);
    let zeroes = entry(opcode::WRITE_ZEROES, 5, 5, 10, false);
    assert_eq!(host.ask(&mut rig, zeroes, &[]).status.status, Status::SUCCESS);
    model[5 * SECTOR..15 * SECTOR].fill(0);
    assert_eq!(read(&mut rig, &mut host, 0, 64), model);
    // Of the first range only one block lies wholly within, of the second none.
    let range = |lba, blocks| DatasetRange { attributes: 0, blocks, lba }.encode();
    let ranges = [range(20, 15), range(41, 6)].concat();
    let discard = |ranges: u32| SubmissionEntry {
        cdw10: ranges - 1,
        cdw11: nvme::dataset::DEALLOCATE,
        cdw12: 0,
        data: SglDescriptor::in_capsule(0, 16 * ranges),
        ..io_entry(opcode::DATASET_MANAGEMENT, 6, 0, 1, true)
    };
    assert_eq!(host.ask(&mut rig, discard(2), &ranges).status.status, Status::SUCCESS);
    model[24 * SECTOR..32 * SECTOR].fill(0);
    assert_eq!(read(&mut rig, &mut host, 0, 64), model);
    let end = super::fake::BLOCKS * 8;
    let beyond = host.ask(&mut rig, discard(1), &range(end - 3, 4)).status.status;
    assert_eq!(beyond, Status::LBA_OUT_OF_RANGE.do_not_retry());
    rig.end();
}

#[test]
fn a_compare_looks_at_its_sectors_alone_and_a_pair_writes_no_others() {
    let (mut rig, [_admin, mut host]) = begin(BOTH);
    let mut model = pattern(1, 16 * SECTOR);
    write(&mut rig, &mut host, 0, &model, usize::MAX);
    let part = model[6 * SECTOR..9 * SECTOR].to_vec();
    let compare = entry(opcode::COMPARE, 5, 6, 3, true);
    assert_eq!(host.ask(&mut rig, compare, &part).status.status, Status::SUCCESS);
    let mut other = part.clone();
    other[3 * SECTOR - 1] ^= 1;
    assert_eq!(host.ask(&mut rig, compare, &other).status.status, Status::COMPARE_FAILURE.do_not_retry());
    let half = |opcode, cid, fuse, sector, sectors| SubmissionEntry {
        flags: PSDT_SGL << 6 | fuse,
        ..entry(opcode, cid, sector, sectors, true)
    };
    // As ESXi locks: one sector.
    let new = pattern(2, SECTOR);
    host.command(&mut rig, half(opcode::COMPARE, 7, FUSE_FIRST, 6, 1), &part[..SECTOR]);
    host.command(&mut rig, half(opcode::WRITE, 8, FUSE_SECOND, 6, 1), &new);
    rig.settle();
    let answers: Vec<Status> = host.received(&mut rig).iter().map(status).collect();
    assert_eq!(answers, [Status::SUCCESS; 2]);
    model[6 * SECTOR..7 * SECTOR].copy_from_slice(&new);
    assert_eq!(read(&mut rig, &mut host, 0, 16), model);
    // The same block, but not the same sectors.
    host.command(&mut rig, half(opcode::COMPARE, 7, FUSE_FIRST, 6, 1), &new);
    host.command(&mut rig, half(opcode::WRITE, 8, FUSE_SECOND, 5, 1), &new);
    rig.settle();
    let answers: Vec<Status> = host.received(&mut rig).iter().map(status).collect();
    assert_eq!(answers, [Status::INVALID_FIELD.do_not_retry(); 2]);
    assert_eq!(read(&mut rig, &mut host, 0, 16), model);
    rig.end();
}
