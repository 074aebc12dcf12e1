//! What becomes of an array when the last copy of its log is lost, by the operator's policy, and of one without a log when a
//! crash and a loss come together. Random runs stay within what the array promises to survive, and this is beyond it; so it
//! is tried here, step by step.

use base::ids::DeviceId;
use engine::io::{IoError, IoKind};
use engine::map::OnLogLoss;
use raid::Level;

use crate::bench::{Bench, SOON};
use crate::scenario::Scenario;

fn with_one_copy(policy: OnLogLoss) -> Bench {
    with_one_copy_in(policy, false)
}

fn with_one_copy_in(policy: OnLogLoss, write_through: bool) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    scenario.log_copies = 1;
    scenario.write_through = write_through;
    scenario.destage_age = base::time::Span::from_secs(3600);
    scenario.on_log_loss = policy;
    Bench::started(scenario)
}

fn lose_the_log(bench: &mut Bench) {
    let copy = bench.scenario.log_devices().next().expect("there is one");
    bench.rack.borrow_mut().lose(copy, false);
}

#[test]
fn with_the_log_lost_reads_go_on_also_of_what_only_memory_holds_and_writes_are_refused() {
    let mut bench = with_one_copy(OnLogLoss::ReadOnly);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    lose_the_log(&mut bench);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x22), Err(IoError::ReadOnly), "the one that finds it out");
    assert_eq!(bench.ask(IoKind::Write, 4, 0x22), Err(IoError::ReadOnly));
    assert_eq!(bench.ask(IoKind::Read, 3, 0), Ok(0x11));
    assert_eq!(bench.ask(IoKind::Read, 4, 0), Ok(0));
}

#[test]
fn with_the_log_lost_nothing_is_served_where_the_operator_wants_it_so() {
    let mut bench = with_one_copy(OnLogLoss::Stop);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    lose_the_log(&mut bench);
    for kind in [IoKind::Write, IoKind::WriteZeroes, IoKind::Read] {
        assert_eq!(bench.ask(kind, 3, 0x22), Err(IoError::Stopped), "{kind:?}");
    }
}

/// The only copy fails, and is there again after the next power cut.
fn lose_the_log_for_now(bench: &mut Bench) {
    let copy = bench.scenario.log_devices().next().expect("there is one");
    bench.rack.borrow_mut().lose(copy, true);
}

fn is_exposed(bench: &mut Bench) -> bool {
    bench.machine().health().expect("production knows").exposed
}

#[test]
fn with_the_log_lost_writes_go_on_where_the_operator_wants_it_so_and_the_log_is_not_believed_later() {
    for returns in [false, true] {
        let mut bench = with_one_copy(OnLogLoss::WriteThroughExposed);
        assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
        assert_eq!(bench.ask(IoKind::Write, 5, 0x11), Ok(0x11));
        if returns {
            lose_the_log_for_now(&mut bench)
        } else {
            lose_the_log(&mut bench)
        }
        assert_eq!(bench.ask(IoKind::Write, 3, 0x22), Ok(0x22), "the one that finds it out");
        assert!(is_exposed(&mut bench));
        assert_eq!(bench.ask(IoKind::Write, 4, 0x22), Ok(0x22));
        bench.power_cycle(&[]);
        bench.start().expect("all members are there");
        assert!(is_exposed(&mut bench));
        for (lba, byte) in [(3, 0x22), (4, 0x22), (5, 0x11), (6, 0)] {
            assert_eq!(bench.ask(IoKind::Read, lba, 0), Ok(byte), "block {lba}, the log returns: {returns}");
        }
        bench.resync();
        assert_eq!(bench.ask(IoKind::Write, 3, 0x33), Ok(0x33));
        // As of any array without a log: one loss after the resync is borne, one in the crash is the write hole.
        bench.rack.borrow_mut().lose(DeviceId(0), false);
        assert_eq!(bench.ask(IoKind::Write, 4, 0x33), Ok(0x33));
        assert_eq!((bench.ask(IoKind::Read, 3, 0), bench.ask(IoKind::Read, 5, 0)), (Ok(0x33), Ok(0x11)));
        bench.power_cycle(&[]);
        let refused = bench.start().unwrap_err();
        assert!(refused.contains("has no log") && refused.contains("[0]"), "{refused}");
    }
}

#[test]
fn a_log_that_returns_before_it_was_given_up_has_all_that_was_acknowledged() {
    let mut bench = with_one_copy(OnLogLoss::WriteThroughExposed);
    for lba in 0..40 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11));
    }
    lose_the_log_for_now(&mut bench);
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
    assert!(!is_exposed(&mut bench) && bench.machine().done().is_none(), "it drains, and answers nothing");
    bench.power_cycle(&[]);
    bench.start().expect("the log is there again");
    assert!(!is_exposed(&mut bench));
    bench.resync();
    assert!(matches!(bench.ask(IoKind::Read, 3, 0), Ok(0x11 | 0x22)), "it was not acknowledged");
    for lba in (0..40).filter(|lba| *lba != 3) {
        assert_eq!(bench.ask(IoKind::Read, lba, 0), Ok(0x11), "block {lba}");
    }
    assert_eq!(bench.ask(IoKind::Write, 4, 0x33), Ok(0x33));
}

#[test]
fn an_array_that_lacks_a_member_when_its_log_is_lost_is_not_exposed() {
    let mut bench = with_one_copy(OnLogLoss::WriteThroughExposed);
    bench.rack.borrow_mut().lose(DeviceId(1), false);
    // Whoever notices has it excluded.
    bench.scenario.destage_age = base::time::Span::ZERO;
    for lba in 0..600 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11));
    }
    let is_degraded = |bench: &mut Bench| bench.machine().health().expect("known").members[1].is_none();
    assert!(is_degraded(&mut bench), "so much does not fit into the log");
    lose_the_log(&mut bench);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x22), Err(IoError::ReadOnly));
    assert!(!is_exposed(&mut bench));
    assert!((0..600).all(|lba| bench.ask(IoKind::Read, lba, 0) == Ok(0x11)));
}

#[test]
fn what_cannot_be_destaged_keeps_its_array_from_being_exposed() {
    let mut scenario = with_one_copy(OnLogLoss::WriteThroughExposed).scenario;
    (scenario.members, scenario.chunk_blocks, scenario.shards, scenario.lanes) = (5, 1, 1, 1);
    (scenario.destage_age, scenario.members_are_zero) = (base::time::Span::from_millis(1), true);
    let mut bench = Bench::started(scenario);
    for lba in 0..4 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11));
    }
    (0..SOON).for_each(|_| _ = bench.machine().step());
    let (geometry, layout) = crate::ailing::places(&bench.scenario);
    for column in [0, 1] {
        let slot = geometry.member_of(base::ids::StripeId(0), column);
        let block = base::ids::DeviceBlock(layout.data.start);
        bench.rack.borrow_mut().spoil(DeviceId(slot.0.into()), block);
    }
    assert_eq!(bench.ask(IoKind::Write, 0, 0x22), Ok(0x22), "it is in the log");
    lose_the_log_for_now(&mut bench);
    assert_eq!(bench.ask(IoKind::Write, 40, 0x33), Err(IoError::ReadOnly));
    assert!(!is_exposed(&mut bench));
    assert_eq!((bench.ask(IoKind::Read, 0, 0), bench.ask(IoKind::Read, 3, 0)), (Ok(0x22), Ok(0x11)));
    bench.power_cycle(&[]);
    bench.start().expect("the log is there again");
    assert_eq!((bench.ask(IoKind::Read, 0, 0), bench.ask(IoKind::Write, 40, 0x33)), (Ok(0x22), Ok(0x33)));
}

#[test]
fn what_was_on_its_way_into_the_log_is_acknowledged_once_the_members_have_it() {
    for write_through in [false, true] {
        let mut bench = with_one_copy_in(OnLogLoss::WriteThroughExposed, write_through);
        lose_the_log_for_now(&mut bench);
        let begun = (0..30).filter(|lba| bench.begin_write(*lba % 12, 0x40 + *lba as u8)).count();
        assert_eq!(begun, 30);
        for _ in 0..begun {
            assert_eq!(bench.await_answer().expect("the power stays").result, Ok(()), "write-through: {write_through}");
        }
        assert!(is_exposed(&mut bench));
        bench.power_cycle(&[]);
        bench.start().expect("all members are there");
        for lba in 0..12 {
            let last = 0x40 + if lba < 6 { 24 + lba } else { 12 + lba };
            assert_eq!(bench.ask(IoKind::Read, lba, 0), Ok(last as u8), "block {lba}");
        }
    }
}

fn without_log(level: Level) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(level));
    (scenario.log_copies, scenario.write_through, scenario.members_are_zero) = (0, true, true);
    Bench::started(scenario)
}

#[test]
fn without_a_log_a_loss_in_the_crash_is_refused_and_one_before_it_or_after_the_resync_is_borne() {
    for level in [Level::Raid5, Level::Raid6] {
        let mut bench = without_log(level);
        assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
        bench.power_cycle(&[1]);
        let refused = bench.start().unwrap_err();
        assert!(refused.contains("has no log") && refused.contains("[1]"), "{refused}");
    }
    let mut bench = without_log(Level::Raid5);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    bench.power_cycle(&[]);
    bench.start().expect("all are there");
    bench.resync();
    bench.rack.borrow_mut().lose(DeviceId(0), false);
    assert_eq!(bench.ask(IoKind::Write, 4, 0x22), Ok(0x22));
    assert_eq!((bench.ask(IoKind::Read, 3, 0), bench.ask(IoKind::Read, 4, 0)), (Ok(0x11), Ok(0x22)));
}

#[test]
fn mirrors_without_a_log_bear_a_crash_while_one_is_missing() {
    let mut bench = without_log(Level::Raid10);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    bench.rack.borrow_mut().lose(DeviceId(1), false);
    // Whoever notices has it excluded; then a crash is no news to anybody.
    for lba in 0..64 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x22), Ok(0x22));
    }
    bench.power_cycle(&[]);
    bench.start().expect("what is left is what counts");
    assert!((0..64).all(|lba| bench.ask(IoKind::Read, lba, 0) == Ok(0x22)));
    bench.resync();
}
