//! Members that go out and come back with what they hold, step by step.

use base::BLOCK;
use base::ids::{DeviceBlock, DeviceId, Slot};
use base::time::Span;
use engine::array::Limits;
use engine::command::Refusal;
use engine::io::IoKind;
use raid::{Level, NoReturn, Superblock, superblock_block};

use crate::audit::stripes_match;
use crate::bench::Bench;
use crate::fault::{Fault, Landmark, PlannedFault};
use crate::machine::Step;
use crate::operator::{Health, Order};
use crate::scenario::{Scenario, ZONE_STRIPES};

/// Steps within which a member is whole again.
const SOON: u32 = 2_000_000;

/// The member that goes out.
const OUT: Slot = Slot(1);
const DRIVE: DeviceId = DeviceId(1);

/// An array of four zones, all of them written to.
fn bench(change: impl FnOnce(&mut Scenario)) -> Bench {
    bench_of(Level::Raid5, change)
}

fn bench_of(level: Level, change: impl FnOnce(&mut Scenario)) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(level));
    (scenario.spares, scenario.zones, scenario.members_are_zero) = (0, 4, false);
    (scenario.write_through, scenario.checksums) = (true, false);
    scenario.rebuild.limits = Limits { bytes_a_second: 0, latency: Span::ZERO };
    change(&mut scenario);
    let mut bench = Bench::started(scenario);
    for zone in 0..4 {
        bench.write(zone, 0x11);
    }
    bench
}

impl Bench {
    fn block_of(&self, zone: u64) -> u64 {
        zone * u64::from(self.scenario.columns()) * ZONE_STRIPES + 5
    }

    fn write(&mut self, zone: u64, byte: u8) {
        let lba = self.block_of(zone);
        assert_eq!(self.ask(IoKind::Write, lba, byte), Ok(byte));
    }

    fn health(&mut self) -> Health {
        self.machine().health().expect("production knows")
    }

    fn member_goes_out(&mut self) {
        self.command(Order::Fail(OUT));
        assert_eq!(self.answer(), Ok(()));
        assert_eq!(self.health().members[OUT.index()], None);
    }

    fn comes_back(&mut self) -> Result<(), Refusal> {
        self.command(Order::Return(OUT, DRIVE));
        self.answer()
    }

    fn becomes_whole(&mut self) {
        for _ in 0..SOON {
            if self.health().is_whole() {
                return;
            }
            self.machine().step();
        }
        panic!("it does not become whole soon");
    }

    /// Every zone holds what was written last, read from this member, too.
    fn check(&mut self, bytes: [u8; 4]) {
        stripes_match(&self.scenario, &self.rack.borrow()).expect("all of it matches");
        self.rack.borrow_mut().lose(DeviceId(0), false);
        for (zone, byte) in (0..).zip(bytes) {
            let lba = self.block_of(zone);
            assert_eq!(self.ask(IoKind::Read, lba, 0), Ok(byte), "zone {zone}");
            assert_eq!(self.ask(IoKind::Read, lba + 1, 0), Ok(0), "zone {zone}");
        }
    }

    /// A block of the drive in this zone, far from what was written.
    fn place_in(&self, zone: u64) -> DeviceBlock {
        let rack = self.rack.borrow();
        let place = |update| rack.peek(DRIVE, superblock_block(update));
        let said = Superblock::newest(place(0), place(1)).expect("it was a member");
        DeviceBlock(said.layout.data.start + zone * ZONE_STRIPES + ZONE_STRIPES / 2)
    }

    /// Whether the drive is written to in these zones between two moments.
    fn is_walked(&mut self, zones: [u64; 4], mut between: impl FnMut(&mut Self)) -> [bool; 4] {
        let places = zones.map(|zone| self.place_in(zone));
        let before = places.map(|place| *self.rack.borrow().peek(DRIVE, place));
        places.iter().for_each(|&place| self.rack.borrow_mut().overwrite(DRIVE, place, &[0xee; BLOCK]));
        between(self);
        let is_kept = places.map(|place| *self.rack.borrow().peek(DRIVE, place) == [0xee; BLOCK]);
        for ((place, block), is_kept) in places.iter().zip(before).zip(is_kept) {
            if is_kept {
                self.rack.borrow_mut().overwrite(DRIVE, *place, &block);
            }
        }
        is_kept.map(|is_kept| !is_kept)
    }
}

const ALL: [u64; 4] = [0, 1, 2, 3];

#[test]
fn a_member_that_comes_back_is_rebuilt_in_zones_that_it_missed_and_in_no_others() {
    let mut bench = bench(|_| {});
    bench.member_goes_out();
    bench.write(2, 0x22);
    let walked = bench.is_walked(ALL, |bench| {
        assert_eq!(bench.comes_back(), Ok(()));
        bench.becomes_whole();
    });
    assert_eq!(walked, [false, false, true, false]);
    assert_eq!(bench.health().members[OUT.index()], Some(DRIVE));
    bench.check([0x11, 0x11, 0x22, 0x11]);
}

#[test]
fn what_was_missed_is_remembered_over_starts_and_forgotten_when_all_are_whole() {
    let mut bench = bench(|_| {});
    bench.member_goes_out();
    bench.write(2, 0x22);
    bench.power_cycle(&[]);
    bench.start().expect("it starts without the member");
    assert_eq!(bench.health().members[OUT.index()], None);
    bench.write(3, 0x33);
    let walked = bench.is_walked(ALL, |bench| {
        assert_eq!(bench.comes_back(), Ok(()));
        bench.becomes_whole();
    });
    assert_eq!(walked, [false, false, true, true]);
    // Once more: what it missed before counts no more, after a start, too.
    bench.power_cycle(&[]);
    bench.start().expect("it starts");
    bench.member_goes_out();
    bench.write(0, 0x44);
    let walked = bench.is_walked(ALL, |bench| {
        assert_eq!(bench.comes_back(), Ok(()));
        bench.becomes_whole();
    });
    assert_eq!(walked, [true, false, false, false]);
    bench.check([0x44, 0x11, 0x22, 0x33]);
}

#[test]
fn a_member_that_is_not_there_at_a_start_misses_what_is_replayed_and_written_then() {
    // What was acknowledged is in the log, and goes to the members at the start that finds one missing.
    let mut bench = bench(|scenario| (scenario.write_through, scenario.degraded) = (false, Vec::new()));
    bench.write(1, 0x22);
    bench.power_cycle(&[]);
    bench.rack.borrow_mut().lose(DRIVE, true);
    bench.start().expect("it starts without the member");
    bench.write(2, 0x33);
    bench.rack.borrow_mut().restore_power();
    let walked = bench.is_walked(ALL, |bench| {
        assert_eq!(bench.comes_back(), Ok(()));
        bench.becomes_whole();
    });
    assert!(walked[1] && walked[2], "{walked:?}");
    bench.check([0x11, 0x22, 0x33, 0x11]);
}

#[test]
fn a_member_that_goes_out_again_on_its_way_back_still_comes_back_so() {
    let mut bench = bench(|scenario| {
        scenario.rebuild.limits = Limits { bytes_a_second: 1 << 16, latency: Span::ZERO };
    });
    bench.member_goes_out();
    bench.write(3, 0x22);
    assert_eq!(bench.comes_back(), Ok(()));
    assert_eq!(bench.health().rebuilding, [OUT]);
    bench.member_goes_out();
    assert_eq!(bench.comes_back(), Ok(()));
    // And a start goes on with it.
    bench.power_cycle(&[]);
    bench.scenario.rebuild.limits = Limits { bytes_a_second: 0, latency: Span::ZERO };
    let walked = bench.is_walked(ALL, |bench| {
        bench.start().expect("it starts");
        bench.becomes_whole();
    });
    assert_eq!(walked, [false, false, false, true]);
    bench.check([0x11, 0x11, 0x11, 0x22]);
}

#[test]
fn one_whose_place_another_has_taken_does_not_come_back() {
    // The spare comes by itself.
    let mut bench = bench(|scenario| scenario.spares = 1);
    bench.command(Order::Fail(OUT));
    assert_eq!(bench.answer(), Ok(()));
    while bench.health().rebuilding != [OUT] {
        bench.machine().step();
    }
    assert_eq!(bench.comes_back(), Err(Refusal::NoReturn(NoReturn::Replaced)));
    bench.becomes_whole();
    assert_eq!(bench.comes_back(), Err(Refusal::NoReturn(NoReturn::Unknown)));
    bench.check([0x11; 4]);
}

/// How an array is written.
#[derive(Clone, Copy, Debug)]
enum Log {
    WriteBack,
    WriteThrough,
    None,
}

/// Loses the member with writes under way in zones that are written for the first time or again, then the power after so many
/// steps, or once so many blocks are written `behind` the bits of missed zones while these are on their way; what the member missed
/// is in the log, or marked. Whether it had gone out by then.
fn lost_and_cut(log: Log, is_out_before: bool, steps: u32, behind: Option<u64>) -> bool {
    // Of mirrors nothing is refused where a member goes out in the crash and there is no log.
    let level = if matches!(log, Log::None) { Level::Raid10 } else { Level::Raid5 };
    let mut bench = bench_of(level, |scenario| {
        (scenario.write_through, scenario.destage_age) = (!matches!(log, Log::WriteBack), Span::from_millis(1));
        if matches!(log, Log::None) {
            scenario.log_copies = 0;
        } else {
            scenario.checksums = steps.is_multiple_of(2);
        }
        (scenario.zones, scenario.shards) = (5, 1);
    });
    if is_out_before {
        bench.member_goes_out();
    }
    if let Some(blocks) = behind {
        let fault = Fault::PowerCutBehind { landmark: Landmark::Missed, blocks };
        let mut rack = bench.rack.borrow_mut();
        let effect = rack.effects() + 1;
        rack.plan(vec![PlannedFault { effect, fault }]);
    }
    let blocks: Vec<u64> =
        [1, 3, 4].into_iter().flat_map(|zone| bench.block_of(zone)..bench.block_of(zone) + 4).collect();
    assert!(blocks.iter().all(|lba| bench.begin_write(*lba, 0x22)), "there is room");
    if !is_out_before {
        (0..steps / 2).for_each(|_| _ = bench.machine().step());
        if steps.is_multiple_of(2) {
            bench.command(Order::Fail(OUT));
        } else {
            bench.rack.borrow_mut().lose(DRIVE, true);
        }
    }
    let steps_to_cut = if behind.is_some() { SOON / 1000 } else { steps };
    for _ in 0..steps_to_cut {
        if bench.machine().step() == Step::Cut {
            break;
        }
    }
    bench.power_cycle(&[]);
    bench.start().expect("nothing is missing");
    let is_out = bench.health().members[OUT.index()].is_none();
    if is_out {
        assert_eq!(bench.comes_back(), Ok(()), "{log:?}, {steps} steps");
    }
    bench.becomes_whole();
    // What was in the log goes to the members.
    (0..SOON / 1000).for_each(|_| _ = bench.machine().step());
    stripes_match(&bench.scenario, &bench.rack.borrow())
        .unwrap_or_else(|fault| panic!("{log:?}, {steps} steps: {fault}"));
    bench.rack.borrow_mut().lose(DeviceId(0), false);
    for lba in blocks {
        let found = bench.ask(IoKind::Read, lba, 0).expect("one may be missing");
        assert!([0, 0x11, 0x22].contains(&found), "block {lba}: {found:#x}; {log:?}, {steps} steps");
    }
    is_out
}

#[test]
fn wherever_the_power_fails_what_a_member_missed_is_known() {
    for log in [Log::WriteBack, Log::WriteThrough, Log::None] {
        for is_out_before in [false, true] {
            let out = (0..600).step_by(25).filter(|steps| lost_and_cut(log, is_out_before, *steps, None)).count();
            assert!(out > 4, "{log:?}: {out}");
        }
    }
}

#[test]
fn nothing_is_forgotten_before_it_is_durable_who_missed_it() {
    for log in [Log::WriteBack, Log::WriteThrough] {
        for blocks in [1, 2, 5, 12] {
            let out = (60..260).step_by(8).filter(|steps| lost_and_cut(log, false, *steps, Some(blocks))).count();
            assert!(out > 4, "{log:?}: {out}");
        }
    }
}

#[test]
fn a_member_that_goes_out_before_zones_are_resynced_has_missed_them() {
    let mut resyncing = 0;
    for steps in (0..200).step_by(10) {
        let mut bench = bench_of(Level::Raid10, |scenario| {
            (scenario.log_copies, scenario.shards) = (0, 1);
            scenario.rebuild.limits = Limits { bytes_a_second: 1 << 22, latency: Span::ZERO };
        });
        let first = bench.block_of(2);
        assert!((first..first + 8).all(|lba| bench.begin_write(lba, 0x22)), "there is room");
        (0..steps).for_each(|_| _ = bench.machine().step());
        bench.power_cycle(&[]);
        bench.start().expect("nothing is missing");
        bench.member_goes_out();
        resyncing += u32::from(bench.health().resyncing);
        assert_eq!(bench.comes_back(), Ok(()));
        bench.becomes_whole();
        stripes_match(&bench.scenario, &bench.rack.borrow()).unwrap_or_else(|fault| panic!("{steps} steps: {fault}"));
    }
    assert!(resyncing > 5, "{resyncing}");
}
