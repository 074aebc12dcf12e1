//! A log that becomes larger while hosts write: step by step, with the power cut and devices lost on the way.

use base::ids::DeviceId;
use base::time::Span;
use engine::command::Refusal;
use engine::io::IoKind;
use engine::map::OnLogLoss;
use raid::Level;

use crate::bench::{Bench, SOON};
use crate::operator::Order;
use crate::scenario::Scenario;

/// Blocks by which the devices are larger to which the log moves.
const MORE: u64 = 1200;

fn bench(log_copies: u8) -> Bench {
    bench_with(log_copies, OnLogLoss::ReadOnly)
}

fn bench_with(log_copies: u8, policy: OnLogLoss) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    (scenario.log_copies, scenario.write_through, scenario.lanes) = (log_copies, false, 3);
    (scenario.log_spares, scenario.larger_log_spares) = (2, MORE);
    (scenario.on_log_loss, scenario.members_are_zero) = (policy, true);
    scenario.destage_age = Span::from_secs(3600);
    Bench::started(scenario)
}

fn larger(bench: &Bench) -> Vec<DeviceId> {
    bench.scenario.log_spare_devices().collect()
}

/// A log with something in it has begun to move so many steps ago.
fn begun(steps: u64) -> (Bench, Vec<DeviceId>) {
    let mut bench = bench(2);
    let devices = larger(&bench);
    fill(&mut bench, 0x11);
    begin(&mut bench, &devices);
    for _ in 0..steps {
        bench.machine().step();
    }
    (bench, devices)
}

fn begin(bench: &mut Bench, devices: &[DeviceId]) {
    bench.command(Order::GrowLog([devices.first().copied(), devices.get(1).copied()]));
}

fn log_blocks(bench: &mut Bench) -> u64 {
    crate::production::usage(bench.machine().shards()).log_blocks
}

fn fill(bench: &mut Bench, byte: u8) {
    for lba in 0..40 {
        assert_eq!(bench.ask(IoKind::Write, lba, byte), Ok(byte));
    }
}

#[test]
fn a_log_becomes_larger_while_hosts_write_and_its_former_devices_are_free() {
    let mut bench = bench(2);
    let (before, devices, former) = (log_blocks(&mut bench), larger(&bench), bench.copies());
    fill(&mut bench, 0x11);
    begin(&mut bench, &devices);
    assert_eq!(bench.answer_while_writing(0x22), Ok(()));
    assert_eq!(bench.copies(), devices);
    assert_eq!(log_blocks(&mut bench), before + MORE / 3 * 3);
    fill(&mut bench, 0x33);
    bench.power_cycle(&[]);
    bench.start().expect("the larger log is there");
    bench.holds(0x33);
    assert_eq!((bench.copies(), log_blocks(&mut bench)), (devices.clone(), before + MORE / 3 * 3));
    // They are too small for it.
    bench.command(Order::AttachCopy { device: former[0], instead: None });
    assert!(matches!(bench.answer(), Err(Refusal::LogTooSmall { .. })));
    begin(&mut bench, &former);
    assert!(matches!(bench.answer(), Err(Refusal::LogNotLarger { .. })));
    bench.bears_a_loss_in_the_crash();
}

#[test]
fn a_crash_while_a_log_becomes_larger_finds_one_or_the_other() {
    let mut found = [0; 2];
    for steps in (0u64..).step_by(13) {
        let (mut bench, devices) = begun(steps);
        if bench.machine().answer().is_some() {
            break;
        }
        bench.power_cycle(&[]);
        bench.start().expect("nothing is missing");
        bench.holds(0x11);
        let has_moved = bench.copies() == devices;
        found[usize::from(has_moved)] += 1;
        if !has_moved {
            begin(&mut bench, &devices);
            assert_eq!(bench.answer_while_writing(0x22), Ok(()), "they are erased and begun anew");
        }
        bench.bears_a_loss_in_the_crash();
    }
    assert!(found.iter().all(|count| *count > 2), "{found:?} before and after");
}

#[test]
fn a_device_that_fails_on_its_way_leaves_the_log_as_it_was() {
    for (lost, after) in (0..1500).step_by(60).flat_map(|after| [(0, after), (1, after)]) {
        let (mut bench, devices) = begun(after);
        let former: Vec<DeviceId> = bench.scenario.log_devices().collect();
        if bench.machine().answer().is_some() {
            break;
        }
        bench.rack.borrow_mut().lose(devices[lost], false);
        let result = bench.answer_while_writing(0x22);
        if result != Ok(()) {
            assert_eq!((result, bench.copies()), (Err(Refusal::DriveFailed), former));
        }
        bench.bears_a_loss_in_the_crash();
    }
}

#[test]
fn a_copy_that_fails_meanwhile_is_not_missed_afterwards() {
    for after in (0..1500).step_by(100) {
        let (mut bench, devices) = begun(after);
        let former = bench.scenario.log_devices().next().expect("there are two");
        bench.rack.borrow_mut().lose(former, true);
        let answer = bench.machine().answer();
        let result = answer.map_or_else(|| bench.answer_while_writing(0x22), |answer| answer.result);
        assert_eq!((result, bench.copies()), (Ok(()), devices), "after {after} steps");
        bench.bears_a_loss_in_the_crash();
    }
}

#[test]
fn a_log_that_was_lost_for_a_while_stays_until_what_was_written_past_it_matches() {
    let mut bench = bench_with(1, OnLogLoss::WriteThroughExposed);
    let devices = larger(&bench);
    fill(&mut bench, 0x11);
    let copy = bench.copies()[0];
    bench.rack.borrow_mut().lose(copy, true);
    assert!(bench.begin_write(3, 0x22), "there is room");
    for _ in 0..SOON {
        if !bench.machine().health().expect("production knows").writable {
            break;
        }
        bench.machine().step();
    }
    for _ in 0..40 {
        bench.machine().step();
    }
    bench.power_cycle(&[]);
    bench.start().expect("the log is there again");
    begin(&mut bench, &devices);
    assert_eq!(bench.answer(), Err(Refusal::Unsynced));
    bench.resync();
    begin(&mut bench, &devices);
    assert_eq!(bench.answer_while_writing(0x33), Ok(()));
    bench.bears_a_loss_in_the_crash();
}
