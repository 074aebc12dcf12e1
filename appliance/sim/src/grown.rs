//! Arrays that get a further member, step by step: what random runs do not look at.

use base::ids::{ArrayBlock, DeviceBlock, DeviceId, Slot};
use base::time::Span;
use engine::array::Limits;
use engine::command::Refusal;
use engine::io::{IoError, IoKind};
use raid::{Level, Superblock, superblock_block};

use crate::audit::{members_in_force, stripes_match};
use crate::bench::Bench;
use crate::machine::Step;
use crate::operator::{Health, Order};
use crate::scenario::{Scenario, ZONE_STRIPES};

/// Steps within which an array has grown.
const SOON: u32 = 4_000_000;

/// An array of three zones, two of them written to, and a drive that holds something else.
fn bench_of(level: Level, change: impl FnOnce(&mut Scenario)) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(level));
    (scenario.spares, scenario.zones, scenario.members_are_zero) = (1, 3, false);
    (scenario.write_through, scenario.checksums) = (false, false);
    (scenario.chunk_blocks, scenario.lane_blocks, scenario.log_copies) = (16, 2000, 1);
    scenario.pool_blocks = 16 * 1024;
    scenario.rebuild.limits = Limits { bytes_a_second: 0, latency: Span::ZERO };
    change(&mut scenario);
    let mut bench = Bench::started(scenario);
    for at in 0..COUNT {
        bench.write_apart(at);
    }
    bench
}

/// An array that has begun to grow by the first of these drives; the other one is kept.
fn growing_beside_a_spare() -> (Bench, Vec<DeviceId>) {
    let mut bench = bench_of(Level::Raid5, |scenario| scenario.spares = 2);
    let drives: Vec<DeviceId> = bench.scenario.spare_devices().collect();
    bench.command(Order::Grow(drives[0]));
    assert_eq!(bench.answer(), Ok(()));
    (bench, drives)
}

/// Blocks that are written: so far apart that most windows move one.
const COUNT: u64 = 60;

impl Bench {
    fn apart(&self, at: u64) -> u64 {
        let written = 2 * u64::from(self.scenario.columns()) * ZONE_STRIPES;
        at * (written / COUNT) + at % 7
    }

    fn write_apart(&mut self, at: u64) {
        let lba = self.apart(at);
        assert_eq!(self.ask(IoKind::Write, lba, at as u8 + 1), Ok(at as u8 + 1));
    }

    fn holds_all(&mut self, what: &str) {
        for at in 0..COUNT {
            let lba = self.apart(at);
            assert_eq!(self.ask(IoKind::Read, lba, 0), Ok(at as u8 + 1), "{what}: block {lba}");
        }
        let unwritten = self.scenario.volume_blocks() - 3;
        assert_eq!(self.ask(IoKind::Read, unwritten, 0), Ok(0), "{what}: nothing was written there");
    }

    fn state(&mut self) -> Health {
        self.machine().health().expect("production knows")
    }

    fn further(&self) -> DeviceId {
        self.scenario.spare_devices().next().expect("there is one")
    }

    fn grows(&mut self) -> Result<(), Refusal> {
        let drive = self.further();
        self.command(Order::Grow(drive));
        self.answer()
    }

    fn steps_while_growing(&mut self, most: u32) -> bool {
        for _ in 0..most {
            if !self.state().growing {
                return true;
            }
            self.machine().step();
        }
        false
    }

    fn said(&self, device: DeviceId) -> Superblock {
        let rack = self.rack.borrow();
        let place = |update| rack.peek(device, superblock_block(update));
        Superblock::newest(place(0), place(1)).expect("it is a member")
    }

    fn stops(&mut self) {
        self.machine().stop();
        for _ in 0..SOON {
            if self.machine().step() == Step::Ended {
                self.rack.borrow_mut().forget_flights();
                return;
            }
        }
        panic!("the stop does not end");
    }
}

#[test]
fn an_array_of_each_level_gets_a_member_and_has_what_it_had() {
    for level in [Level::Raid0, Level::Raid4, Level::Raid5, Level::Raid6] {
        let mut bench = bench_of(level, |scenario| scenario.checksums = level == Level::Raid6);
        let before = bench.state().members.len();
        assert_eq!(bench.grows(), Ok(()), "{level}");
        assert!(bench.state().growing && bench.state().members.len() == before + 1);
        // Hosts go on meanwhile.
        for at in 0..COUNT {
            (0..40).for_each(|_| _ = bench.machine().step());
            bench.write_apart(at);
        }
        assert!(bench.steps_while_growing(SOON), "{level} does not end");
        bench.holds_all("grown");
        let drive = bench.further();
        let said = bench.said(drive);
        let growth = said.growth.expect("it is kept until the next start");
        assert_eq!((said.geometry.members(), growth.boundary.0), (before as u8 + 1, 3 * ZONE_STRIPES));
        bench.stops();
        let members = members_in_force(&bench.scenario, &bench.rack.borrow()).expect("all in order");
        assert_eq!(members.len(), before + 1, "{level}");
        stripes_match(&bench.scenario, &bench.rack.borrow()).expect("all of it matches");
        // As many may be lost as the level bears, the newest among them.
        let lost = [drive.0];
        bench.power_cycle(if level == Level::Raid0 { &[] } else { &lost });
        bench.start().expect("it starts");
        bench.holds_all("without the drive that came");
    }
}

#[test]
fn a_start_goes_on_where_the_last_step_left_it() {
    let mut bench = bench_of(Level::Raid5, |_| {});
    assert_eq!(bench.grows(), Ok(()));
    let (drive, mut boundary, mut cuts) = (bench.further(), 0, 0);
    while !bench.steps_while_growing(250) {
        bench.power_cycle(&[]);
        bench.start().expect("it starts");
        let now = bench.said(drive).growth.expect("it has begun").boundary.0;
        assert!(now >= boundary, "{now} after {boundary}");
        (boundary, cuts) = (now, cuts + 1);
        // Reading takes its time, in which it goes on.
        let lba = bench.apart(cuts % COUNT);
        assert_eq!(bench.ask(IoKind::Read, lba, 0), Ok((cuts % COUNT) as u8 + 1), "cut {cuts}");
        assert!(cuts < 2000, "it never ends");
    }
    assert!(cuts > 5, "{cuts} cuts");
    bench.holds_all("grown");
}

#[test]
fn an_array_that_lacks_a_member_neither_begins_nor_goes_on() {
    let (mut bench, drives) = growing_beside_a_spare();
    // The other one comes for it at once.
    (0..600).for_each(|_| _ = bench.machine().step());
    bench.command(Order::Fail(Slot(1)));
    assert_eq!(bench.answer(), Ok(()));
    assert!(bench.steps_while_growing(SOON));
    let state = bench.state();
    assert!(state.is_whole() && state.members[1] == Some(drives[1]), "{state:?}");
    bench.holds_all("grown");
    bench.rack.borrow_mut().lose(DeviceId(0), false);
    bench.holds_all("without another");
    bench.command(Order::Grow(DeviceId(1)));
    assert_eq!(bench.answer(), Err(Refusal::NotWhole));
}

#[test]
fn the_newest_member_goes_and_comes_while_the_array_grows() {
    let (mut bench, drives) = growing_beside_a_spare();
    while bench.said(drives[0]).growth.is_some_and(|growth| growth.boundary.0 < ZONE_STRIPES / 2) {
        bench.machine().step();
    }
    let newest = Slot(bench.state().members.len() as u8 - 1);
    bench.command(Order::Fail(newest));
    assert_eq!(bench.answer(), Ok(()));
    bench.holds_all("without it");
    assert!(bench.steps_while_growing(SOON));
    assert_eq!(bench.state().members[newest.index()], Some(drives[1]));
    bench.holds_all("grown");
    bench.stops();
    stripes_match(&bench.scenario, &bench.rack.borrow()).expect("all of it matches");
}

#[test]
fn a_second_one_comes_after_a_clean_stop() {
    let (mut bench, drives) = growing_beside_a_spare();
    bench.command(Order::Grow(drives[1]));
    assert_eq!(bench.answer(), Err(Refusal::GrowthUnderWay));
    assert!(bench.steps_while_growing(SOON));
    bench.command(Order::Grow(drives[1]));
    assert_eq!(bench.answer(), Err(Refusal::GrownAlready));
    // The log may still say where blocks lay before.
    bench.power_cycle(&[]);
    bench.start().expect("it starts");
    bench.command(Order::Grow(drives[1]));
    assert_eq!(bench.answer(), Err(Refusal::GrownAlready));
    bench.stops();
    bench.start().expect("it starts");
    assert_eq!(bench.said(drives[0]).growth, None);
    bench.command(Order::Grow(drives[1]));
    assert_eq!(bench.answer(), Ok(()));
    assert!(bench.steps_while_growing(SOON));
    bench.holds_all("grown twice");
    bench.stops();
    stripes_match(&bench.scenario, &bench.rack.borrow()).expect("all of it matches");
}

#[test]
fn what_cannot_grow_is_told_so() {
    let mut mirror = bench_of(Level::Raid1, |_| {});
    assert_eq!(mirror.grows(), Err(Refusal::NoGrowth));
    let mut narrow = bench_of(Level::Raid5, |scenario| (scenario.lane_blocks, scenario.chunk_blocks) = (520, 64));
    assert!(matches!(narrow.grows(), Err(Refusal::GrowthTooLarge { .. })));
    let mut bench = bench_of(Level::Raid5, |_| {});
    bench.command(Order::Grow(DeviceId(0)));
    assert_eq!(bench.answer(), Err(Refusal::InUse));
}

#[test]
fn what_cannot_be_read_does_not_move_and_hosts_do_not_wait_for_it() {
    let mut bench = bench_of(Level::Raid5, |scenario| scenario.write_through = true);
    // Two blocks of a stripe, some windows on: one of them is data.
    let layout = bench.said(DeviceId(0)).layout;
    let geometry = bench.said(DeviceId(0)).geometry;
    let lost = bench.apart(COUNT / 4);
    let place = geometry.locate(ArrayBlock(lost));
    let data = geometry.member_of(place.stripe, place.column);
    for slot in [data, geometry.parity_member(place.stripe, 0)] {
        let at = DeviceBlock(layout.data.start + place.stripe.0);
        bench.rack.borrow_mut().spoil(DeviceId(slot.0.into()), at);
    }
    assert_eq!(bench.ask(IoKind::Read, lost, 0), Err(IoError::Unreadable));
    assert_eq!(bench.grows(), Ok(()));
    assert!(!bench.steps_while_growing(60_000), "it has moved what nobody can read");
    // Neighbours can be read, and all can be written: that heals it.
    assert_eq!(bench.ask(IoKind::Read, lost + 1, 0), Ok(0));
    bench.write_apart(COUNT / 4);
    assert!(bench.steps_while_growing(SOON));
    bench.holds_all("grown");
}
