//! The log of an array that had none, or had lost it, and the last copy that is taken away: step by step, with hosts that write
//! all the time.

use base::ids::{DeviceBlock, DeviceId, StripeId};
use base::time::Span;
use engine::command::Refusal;
use engine::io::IoKind;
use engine::map::OnLogLoss;
use raid::Level;

use crate::bench::{Bench, SOON};
use crate::log_keeper::Keeping;
use crate::operator::Order;
use crate::scenario::Scenario;

fn bench(log_copies: u8, policy: OnLogLoss) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    (scenario.log_copies, scenario.write_through) = (log_copies, log_copies == 0);
    (scenario.log_spares, scenario.log_keeping) = (2, Some(Keeping::First));
    (scenario.on_log_loss, scenario.members_are_zero) = (policy, true);
    scenario.destage_age = Span::from_secs(3600);
    Bench::started(scenario)
}

impl Bench {
    fn spare(&self) -> DeviceId {
        self.scenario.log_spare_devices().next().expect("there are some")
    }

    fn attach(&mut self, device: DeviceId, byte: u8) -> Result<(), Refusal> {
        self.command(Order::AttachCopy { device, instead: None });
        self.answer_while_writing(byte)
    }

    pub(crate) fn copies(&mut self) -> Vec<DeviceId> {
        self.machine().health().expect("production knows").copies.into_iter().flatten().collect()
    }

    pub(crate) fn holds(&mut self, byte: u8) {
        assert!((0..40).all(|lba| self.ask(IoKind::Read, lba, 0) == Ok(byte)), "all is {byte:#x}");
    }

    /// With a log a crash that takes a member along is borne.
    pub(crate) fn bears_a_loss_in_the_crash(&mut self) {
        for lba in 0..40 {
            assert_eq!(self.ask(IoKind::Write, lba, 0x77), Ok(0x77));
        }
        self.power_cycle(&[1]);
        self.start().expect("the log closes the write hole");
        self.holds(0x77);
    }
}

#[test]
fn an_array_that_never_had_a_log_gets_one_while_hosts_write() {
    for write_back in [false, true] {
        let mut bench = bench(0, OnLogLoss::ReadOnly);
        let spare = bench.spare();
        assert_eq!(bench.attach(spare, 0x11), Ok(()));
        assert_eq!(bench.copies(), [spare]);
        if write_back {
            bench.command(Order::Mode { write_through: false });
            assert_eq!(bench.answer_while_writing(0x22), Ok(()));
            bench.scenario.write_through = false;
        }
        bench.bears_a_loss_in_the_crash();
        assert_eq!(bench.copies(), [spare]);
    }
}

#[test]
fn a_crash_before_a_command_has_ended_finds_an_array_with_a_log_or_without() {
    let mut found = [0; 2];
    for steps in (0..1200).step_by(29) {
        let mut bench = bench(0, OnLogLoss::ReadOnly);
        for lba in 0..40 {
            assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11));
        }
        let device = bench.spare();
        bench.command(Order::AttachCopy { device, instead: None });
        for _ in 0..steps {
            bench.machine().step();
        }
        bench.power_cycle(&[]);
        bench.start().expect("nothing is missing");
        bench.holds(0x11);
        let copies = bench.copies();
        found[copies.len()] += 1;
        if copies.is_empty() {
            bench.resync();
            assert_eq!(bench.attach(device, 0x22), Ok(()), "it is erased and begun anew");
        }
        bench.bears_a_loss_in_the_crash();
    }
    assert!(found.iter().all(|count| *count > 2), "{found:?} without and with a log");
}

#[test]
fn an_array_whose_log_was_lost_gets_another_and_the_old_one_is_not_believed() {
    let mut bench = bench(1, OnLogLoss::WriteThroughExposed);
    for lba in 0..40 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11));
    }
    let (old, spare) = (bench.copies()[0], bench.spare());
    bench.rack.borrow_mut().lose(old, true);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x22), Ok(0x22));
    assert!(bench.machine().health().expect("production knows").exposed);
    assert_eq!(bench.attach(spare, 0x33), Ok(()));
    assert!(!bench.machine().health().expect("production knows").exposed);
    for lba in 0..40 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x44), Ok(0x44));
    }
    bench.power_cycle(&[]);
    bench.start().expect("the new log is there, and the old one");
    assert_eq!(bench.copies(), [spare]);
    bench.holds(0x44);
    assert_eq!(bench.attach(old, 0x55), Ok(()), "the old one can be a copy of the new log");
    assert_eq!(bench.copies().len(), 2);
    bench.bears_a_loss_in_the_crash();
}

#[test]
fn the_last_copy_is_taken_away_where_the_array_may_go_on_without_and_comes_again() {
    let mut with_other_policy = bench(1, OnLogLoss::ReadOnly);
    with_other_policy.command(Order::DetachCopy(0));
    assert_eq!(with_other_policy.answer_while_writing(0x11), Err(Refusal::LastCopy));

    let mut bench = bench(1, OnLogLoss::WriteThroughExposed);
    let copy = bench.copies()[0];
    bench.command(Order::DetachCopy(0));
    assert_eq!(bench.answer_while_writing(0x11), Ok(()));
    assert_eq!(bench.copies(), []);
    assert!(!bench.machine().health().expect("production knows").exposed, "nobody misses it");
    for lba in 0..40 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x22), Ok(0x22));
    }
    bench.power_cycle(&[]);
    bench.start().expect("without a log");
    bench.holds(0x22);
    assert_eq!(bench.attach(copy, 0x33), Err(Refusal::Unsynced));
    bench.resync();
    assert_eq!(bench.attach(copy, 0x33), Ok(()));
    bench.bears_a_loss_in_the_crash();
}

#[test]
fn a_device_that_fails_on_its_way_leaves_the_array_as_it_was() {
    for after in [0, 20, 60, 100, 150, 200, 300, 400, 500, 600, 700] {
        let mut bench = bench(0, OnLogLoss::ReadOnly);
        let device = bench.spare();
        bench.command(Order::AttachCopy { device, instead: None });
        for _ in 0..after {
            bench.machine().step();
        }
        if bench.machine().answer().is_some() {
            break;
        }
        bench.rack.borrow_mut().lose(device, false);
        let result = bench.answer_while_writing(0x11);
        if result == Ok(()) {
            continue;
        }
        assert_eq!(result, Err(Refusal::DriveFailed));
        assert_eq!(bench.copies(), []);
        let other = bench.scenario.log_spare_devices().nth(1).expect("two");
        assert_eq!(bench.attach(other, 0x22), Ok(()));
        bench.bears_a_loss_in_the_crash();
    }
}

#[test]
fn writes_do_not_wait_for_ever_for_a_log() {
    // A member hangs for longer than hosts may wait, with a write under way.
    let mut bench = bench(0, OnLogLoss::ReadOnly);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    bench.rack.borrow_mut().hang(DeviceId(1), Span::from_secs(30));
    assert!((0..8).all(|lba| bench.begin_write(lba, 0x22)), "there is room");
    let device = bench.spare();
    bench.command(Order::AttachCopy { device, instead: None });
    assert_eq!(bench.answer(), Err(Refusal::Unsettled));
    (0..8).for_each(|_| assert_eq!(bench.await_answer().expect("the power stays").result, Ok(())));
    assert_eq!(bench.attach(device, 0x33), Ok(()));
    bench.bears_a_loss_in_the_crash();
}

#[test]
fn a_log_that_holds_what_cannot_be_destaged_is_not_taken_away() {
    let mut scenario = bench(1, OnLogLoss::WriteThroughExposed).scenario;
    (scenario.members, scenario.chunk_blocks, scenario.shards, scenario.lanes) = (5, 1, 1, 1);
    (scenario.destage_age, scenario.max_read_errors) = (Span::from_millis(1), u32::MAX);
    let mut bench = Bench::started(scenario);
    (0..4).for_each(|lba| assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11)));
    (0..SOON).for_each(|_| _ = bench.machine().step());
    let (geometry, layout) = crate::ailing::places(&bench.scenario);
    for column in [0, 1] {
        let slot = geometry.member_of(StripeId(0), column);
        bench.rack.borrow_mut().spoil(DeviceId(slot.0.into()), DeviceBlock(layout.data.start));
    }
    assert_eq!(bench.ask(IoKind::Write, 0, 0x22), Ok(0x22), "it is in the log");
    let copies = bench.copies();
    bench.command(Order::DetachCopy(0));
    assert_eq!(bench.answer(), Err(Refusal::Unsettled));
    assert_eq!((bench.copies(), bench.ask(IoKind::Write, 40, 0x33)), (copies, Ok(0x33)));
    assert_eq!(bench.ask(IoKind::Read, 0, 0), Ok(0x22));
}

#[test]
fn the_mode_is_not_changed_of_a_log_that_is_on_its_way_out() {
    let mut bench = bench(1, OnLogLoss::WriteThroughExposed);
    assert!((0..8).all(|lba| bench.begin_write(lba, 0x22)), "there is room");
    bench.command(Order::DetachCopy(0));
    bench.command(Order::Mode { write_through: true });
    assert_eq!(bench.answer(), Err(Refusal::Busy));
    assert_eq!(bench.answer(), Ok(()));
    assert_eq!(bench.copies(), []);
}
