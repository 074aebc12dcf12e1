//! Stripes that cannot be destaged: two blocks are lost that their parity is to be made of. That is beyond what an array
//! promises to survive, so random runs do not come there; it is tried here, step by step. What is written stays readable,
//! whatever crashes; other stripes go on; and who writes what is lost has a whole stripe again.

use base::ids::{ArrayBlock, DeviceBlock, DeviceId, StripeId};
use base::time::Span;
use engine::array::{Residency, Usage};
use engine::io::{IoError, IoKind};
use raid::{Geometry, Level};

use crate::ailing::places;
use crate::audit::stripes_match;
use crate::bench::Bench;
use crate::fault::{Fault, PlannedFault};
use crate::machine::Step;
use crate::scenario::Scenario;

/// Members, hence one parity and four columns.
const MEMBERS: u8 = 5;

/// Steps within which what is to come has come.
const SOON: u32 = 400_000;

/// Effects of a short script.
const MAX_EFFECTS: u64 = 400;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    WriteBack,
    /// Nothing of it stays in memory.
    InLogAlone,
    WriteThrough,
    WithoutLog,
}

/// An array whose first stripes are written and on the members.
fn bench(mode: Mode, stripes: u64) -> Bench {
    bench_with(mode, stripes, 16_384)
}

/// The same with a lane of so many blocks.
fn bench_with(mode: Mode, stripes: u64, lane_blocks: u64) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    (scenario.members, scenario.chunk_blocks, scenario.checksums) = (MEMBERS, 1, false);
    (scenario.shards, scenario.lanes, scenario.lane_blocks) = (1, 1, lane_blocks);
    scenario.log_copies = if mode == Mode::WithoutLog { 0 } else { 2 };
    let write_back = matches!(mode, Mode::WriteBack | Mode::InLogAlone);
    (scenario.write_through, scenario.members_are_zero) = (!write_back, true);
    if mode == Mode::InLogAlone {
        scenario.residency = (Residency::Log, 0);
    }
    scenario.destage_age = Span::from_millis(1);
    scenario.max_read_errors = u32::MAX;
    (scenario.hiccups_once_in, scenario.pool_blocks) = (0, 16_384);
    let mut bench = Bench::started(scenario);
    for lba in 0..4 * stripes {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x11), Ok(0x11));
    }
    assert!(until(&mut bench, |usage| usage.dirty_blocks == 0));
    bench
}

fn geometry(bench: &Bench) -> Geometry {
    places(&bench.scenario).0
}

/// The block of a column of a stripe: chunks are of one block.
fn block(stripe: u64, column: u64) -> u64 {
    4 * stripe + column
}

fn usage(bench: &mut Bench) -> Usage {
    crate::production::usage(bench.machine().shards())
}

/// Goes on until something holds; false if the power fails before.
fn until(bench: &mut Bench, holds: impl Fn(&Usage) -> bool) -> bool {
    for _ in 0..SOON {
        if holds(&usage(bench)) {
            return true;
        }
        if bench.machine().step() == Step::Cut {
            return false;
        }
    }
    panic!("it does not come to that: {:?}", usage(bench));
}

/// The old content of columns of a stripe cannot be read any more.
fn lose(bench: &Bench, stripe: u64, columns: &[u8]) {
    let (geometry, layout) = places(&bench.scenario);
    for &column in columns {
        let slot = geometry.member_of(StripeId(stripe), column);
        bench.rack.borrow_mut().spoil(DeviceId(slot.0.into()), DeviceBlock(layout.data.start + stripe));
    }
}

/// Everything is on the members, and every parity matches.
fn is_whole(bench: &mut Bench) {
    assert!(until(bench, |usage| usage.dirty_blocks == 0 && usage.blocked_stripes == 0));
    stripes_match(&bench.scenario, &bench.rack.borrow()).expect("every stripe");
}

#[test]
fn what_cannot_be_destaged_is_kept_and_read_and_others_go_on() {
    what_cannot_be_destaged_is_kept(Mode::WriteBack);
    what_cannot_be_destaged_is_kept(Mode::InLogAlone);
}

fn what_cannot_be_destaged_is_kept(mode: Mode) {
    // More than there are places for destages.
    const STRIPES: u64 = 300;
    let mut bench = bench(mode, STRIPES + 10);
    assert_eq!(geometry(&bench).locate(ArrayBlock(block(7, 2))).stripe, StripeId(7));
    (0..STRIPES).for_each(|stripe| lose(&bench, stripe, &[0, 1]));
    for stripe in 0..STRIPES {
        assert_eq!(bench.ask(IoKind::Write, block(stripe, 0), 0x22), Ok(0x22));
    }
    assert!(until(&mut bench, |usage| usage.blocked_stripes == STRIPES));
    assert_eq!(bench.ask(IoKind::Read, block(7, 0), 0), Ok(0x22));
    assert_eq!(bench.ask(IoKind::Read, block(7, 1), 0), Err(IoError::Unreadable));
    assert_eq!(bench.ask(IoKind::Read, block(7, 2), 0), Ok(0x11));

    for stripe in STRIPES..STRIPES + 10 {
        assert_eq!(bench.ask(IoKind::Write, block(stripe, 2), 0x33), Ok(0x33));
    }
    assert!(until(&mut bench, |usage| usage.dirty_blocks == STRIPES && usage.blocked_blocks == STRIPES));

    // It is tried again: the drives may read after all.
    bench.rack.borrow_mut().restore_blocks();
    is_whole(&mut bench);
    assert_eq!(bench.ask(IoKind::Read, block(7, 0), 0), Ok(0x22));
    assert_eq!(bench.ask(IoKind::Read, block(7, 1), 0), Ok(0x11));
}

#[test]
fn who_writes_what_is_lost_has_a_whole_stripe_again() {
    for rest in [&[1][..], &[3, 1], &[2, 1, 3]] {
        let mut bench = bench(Mode::WriteBack, 3);
        lose(&bench, 1, &[0, 1]);
        assert_eq!(bench.ask(IoKind::Write, block(1, 0), 0x22), Ok(0x22));
        assert!(until(&mut bench, |usage| usage.blocked_stripes == 1));
        // Written again, it is no better.
        assert_eq!(bench.ask(IoKind::Write, block(1, 0), 0x33), Ok(0x33));
        assert!(until(&mut bench, |usage| usage.dirty_blocks == 1 && usage.blocked_blocks == 1));
        for &column in rest {
            assert_eq!(bench.ask(IoKind::Write, block(1, column), 0x44), Ok(0x44));
        }
        is_whole(&mut bench);
        let expected = |column| match column {
            0 => 0x33,
            column if rest.contains(&column) => 0x44,
            _ => 0x11,
        };
        for column in 0..4 {
            assert_eq!(bench.ask(IoKind::Read, block(1, column), 0), Ok(expected(column)), "{rest:?}");
        }
    }
}

#[test]
fn a_parity_that_is_lost_with_what_is_written_is_made_of_the_others() {
    let mut bench = bench(Mode::WriteBack, 1);
    lose(&bench, 0, &[0]);
    let (geometry, layout) = places(&bench.scenario);
    let parity = geometry.parity_member(StripeId(0), 0);
    bench.rack.borrow_mut().spoil(DeviceId(parity.0.into()), DeviceBlock(layout.data.start));
    assert_eq!(bench.ask(IoKind::Write, block(0, 0), 0x22), Ok(0x22));
    is_whole(&mut bench);
    assert_eq!(bench.ask(IoKind::Read, block(0, 0), 0), Ok(0x22));
}

#[test]
fn where_the_members_are_waited_for_it_is_refused() {
    for mode in [Mode::WriteThrough, Mode::WithoutLog] {
        let mut bench = bench(mode, 2);
        lose(&bench, 1, &[0, 1]);
        assert_eq!(bench.ask(IoKind::Write, block(1, 0), 0x22), Err(IoError::Unwritable));
        // Refused, it may have happened; without a log it has not.
        let kept = if mode == Mode::WriteThrough { Ok(0x22) } else { Err(IoError::Unreadable) };
        assert_eq!(bench.ask(IoKind::Read, block(1, 0), 0), kept);
        assert_eq!(usage(&mut bench).dirty_blocks, u64::from(mode == Mode::WriteThrough));
        // What is refused stays in the log, if there is one, and goes to the members with what comes later.
        let later = if mode == Mode::WriteThrough { Err(IoError::Unwritable) } else { Ok(0x33) };
        assert_eq!(bench.ask(IoKind::Write, block(1, 2), 0x33), later);
        // All that is lost, at once.
        assert_eq!(bench.ask_blocks(IoKind::Write, block(1, 0), 4, 0x44), Ok(0x44));
        is_whole(&mut bench);
        for column in 0..4 {
            assert_eq!(bench.ask(IoKind::Read, block(1, column), 0), Ok(0x44));
        }
    }
}

/// Writes one column of a stripe of which two are lost, and when that is blocked the other; what was acknowledged, and whether
/// the power stayed.
fn script(bench: &mut Bench) -> (u64, bool) {
    for column in 0..2 {
        if bench.try_ask(IoKind::Write, block(1, column), 0x22).is_none() {
            return (column, false);
        }
        let goes_on = until(bench, |usage| {
            let blocked = usage.blocked_stripes == 1 && usage.destages == 0;
            blocked && column == 0 || usage.dirty_blocks == 0 && column == 1
        });
        if !goes_on {
            return (column + 1, false);
        }
    }
    (2, true)
}

#[test]
fn the_power_fails_at_any_effect_while_a_stripe_is_blocked_and_goes_on() {
    let (mut cuts, mut blocked) = (0, 0);
    for effect in 1..=MAX_EFFECTS {
        let mut bench = bench(Mode::WriteBack, 2);
        lose(&bench, 1, &[0, 1]);
        bench.rack.borrow_mut().plan(vec![PlannedFault { effect, fault: Fault::PowerCut }]);
        let (acknowledged, ended) = script(&mut bench);
        bench.rack.borrow_mut().plan(Vec::new());
        if !ended {
            cuts += 1;
            bench.power_cycle(&[]);
            bench.start().expect("what is lost keeps nobody from starting");
        }
        let happened = [0, 1].map(|column| {
            let found = bench.ask(IoKind::Read, block(1, column), 0);
            let may_be_old = column >= acknowledged && found == Err(IoError::Unreadable);
            assert!(found == Ok(0x22) || may_be_old, "cut at {effect}, column {column}: {found:?}");
            found.is_ok()
        });
        for column in 2..4 {
            assert_eq!(bench.ask(IoKind::Read, block(1, column), 0), Ok(0x11));
        }
        if happened == [true, false] {
            assert!(until(&mut bench, |usage| usage.blocked_stripes == 1), "by what recovery found");
            blocked += 1;
        }
        for column in 0..2 {
            assert_eq!(bench.ask(IoKind::Write, block(1, column), 0x33), Ok(0x33));
        }
        is_whole(&mut bench);
        let expected = [0x33, 0x33, 0x11, 0x11];
        assert!((0..).zip(expected).all(|(at, byte)| bench.ask(IoKind::Read, block(1, at), 0) == Ok(byte)));
        if ended {
            break;
        }
    }
    assert!((10..MAX_EFFECTS).contains(&cuts) && blocked > 0, "{cuts} cuts, blocked after {blocked}");
}

/// Of a lane that some hundreds of writes fill: a stripe is blocked, and of another many blocks.
fn nearly_full(mode: Mode) -> Bench {
    let mut bench = bench_with(mode, 80, 1100);
    lose(&bench, 1, &[0, 1, 2]);
    assert_eq!(bench.ask(IoKind::WriteZeroes, block(1, 2), 0), Ok(0));
    assert_eq!(bench.ask(IoKind::Write, block(1, 0), 0x22), Ok(0x22));
    assert!(until(&mut bench, |usage| usage.blocked_blocks == 2));
    bench
}

/// Writes other stripes many times, and now and then what is blocked: what that holds, or may hold if the power fails, and whether
/// the power stayed.
fn go_round(bench: &mut Bench, writes: u64) -> ([u8; 2], bool) {
    let mut newest = 0x22;
    for at in 0..writes {
        let (lba, byte) = if at % 97 == 96 { (block(1, 0), at as u8) } else { (block(2 + at % 70, at % 4), 0x33) };
        if bench.try_ask(IoKind::Write, lba, byte).is_none() {
            return ([newest, if lba == block(1, 0) { byte } else { newest }], false);
        }
        if lba == block(1, 0) {
            newest = byte;
        }
    }
    ([newest; 2], true)
}

#[test]
fn a_ring_goes_round_many_times_although_a_stripe_is_blocked() {
    a_ring_goes_round(Mode::WriteBack);
    a_ring_goes_round(Mode::InLogAlone);
}

fn a_ring_goes_round(mode: Mode) {
    let mut bench = nearly_full(mode);
    // Each takes two blocks and more.
    let ([newest, _], ended) = go_round(&mut bench, 5000);
    assert!(ended && usage(&mut bench).blocked_stripes == 1);
    assert_eq!(bench.ask(IoKind::Read, block(1, 0), 0), Ok(newest));
    bench.power_cycle(&[]);
    bench.start().expect("what is logged again is there");
    assert_eq!(bench.ask(IoKind::Read, block(1, 0), 0), Ok(newest));
    assert_eq!(bench.ask(IoKind::Read, block(1, 2), 0xff), Ok(0));
    assert_eq!(bench.ask(IoKind::Read, block(1, 1), 0), Err(IoError::Unreadable));
    assert_eq!(bench.ask(IoKind::Write, block(1, 1), 0x44), Ok(0x44));
    is_whole(&mut bench);
    assert_eq!(bench.ask(IoKind::Read, block(1, 0), 0), Ok(newest));
}

#[test]
fn the_power_fails_while_data_is_logged_again() {
    let mut cuts = 0;
    for effect in (1..4000).step_by(61) {
        let mut bench = nearly_full(if effect % 2 == 0 { Mode::WriteBack } else { Mode::InLogAlone });
        bench.rack.borrow_mut().plan(vec![PlannedFault { effect, fault: Fault::PowerCut }]);
        let (allowed, ended) = go_round(&mut bench, 1500);
        bench.rack.borrow_mut().plan(Vec::new());
        if ended {
            break;
        }
        cuts += 1;
        bench.power_cycle(&[]);
        bench.start().expect("what is logged again is there");
        let found = bench.ask(IoKind::Read, block(1, 0), 0);
        assert!(found.is_ok_and(|byte| allowed.contains(&byte)), "cut at {effect}: {found:?}, not {allowed:?}");
        assert_eq!(bench.ask(IoKind::Read, block(1, 2), 0xff), Ok(0), "cut at {effect}");
        assert_eq!(bench.ask(IoKind::Write, block(1, 1), 0x44), Ok(0x44));
        is_whole(&mut bench);
        assert_eq!(bench.ask(IoKind::Read, block(1, 0), 0), found);
    }
    assert!(cuts > 20, "{cuts} cuts");
}

#[test]
fn with_too_much_blocked_the_lane_is_full_and_others_are_not_lost() {
    let mut bench = bench_with(Mode::WriteBack, 400, 1100);
    (0..300).for_each(|stripe| lose(&bench, stripe, &[0, 1]));
    let mut acknowledged = 0;
    // Nobody waits for the last of them: it may never end.
    while usage(&mut bench).waiting_fragments == 0 && acknowledged < 300 {
        if bench.ask_for_a_while(IoKind::Write, block(acknowledged, 0), 0x22).is_none() {
            break;
        }
        acknowledged += 1;
    }
    assert!((30..300).contains(&acknowledged), "{acknowledged}");
    assert!(usage(&mut bench).blocked_stripes > 0);
    bench.power_cycle(&[]);
    bench.start().expect("a full log is none that is damaged");
    for stripe in 0..acknowledged {
        assert_eq!(bench.ask(IoKind::Read, block(stripe, 0), 0), Ok(0x22));
    }
    // The drives read again, and all goes on.
    bench.rack.borrow_mut().restore_blocks();
    assert!(until(&mut bench, |usage| usage.dirty_blocks == 0));
    assert_eq!(bench.ask(IoKind::Write, block(399, 0), 0x33), Ok(0x33));
    is_whole(&mut bench);
}
