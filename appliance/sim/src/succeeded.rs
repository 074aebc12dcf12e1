//! Members that are succeeded, step by step: what random runs meet too rarely.

use base::ids::{DeviceId, Slot};
use base::time::Span;
use engine::array::Limits;
use engine::io::IoKind;
use raid::Level;

use crate::audit::stripes_match;
use crate::bench::Bench;
use crate::operator::Order;
use crate::scenario::{Scenario, ZONE_STRIPES};

/// Steps within which a drive has become a member.
const SOON: u32 = 2_000_000;

/// An array of two zones with a drive that holds something else, which fills up slowly.
fn bench() -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    (scenario.spares, scenario.zones, scenario.members_are_zero) = (1, 2, false);
    (scenario.write_through, scenario.checksums) = (true, false);
    scenario.rebuild.limits = Limits { bytes_a_second: 1 << 16, latency: Span::ZERO };
    Bench::started(scenario)
}

impl Bench {
    fn is_succeeding(&mut self) -> bool {
        self.machine().health().expect("production knows").successor.is_some()
    }

    fn steps_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..SOON {
            if done(self) {
                return;
            }
            self.machine().step();
        }
        panic!("{what}: not soon");
    }
}

#[test]
fn a_zone_that_is_first_written_behind_the_walk_is_zeroed_on_the_drive_that_comes_too() {
    let mut bench = bench();
    let drive = bench.scenario.spare_devices().next().expect("there is one");
    let in_second_zone = u64::from(bench.scenario.columns()) * ZONE_STRIPES + 5;
    assert_eq!(bench.ask(IoKind::Write, in_second_zone, 0x22), Ok(0x22));
    bench.command(Order::Succeed(Slot(0), drive));
    bench.steps_until("it begins", Bench::is_succeeding);
    (0..30).for_each(|_| _ = bench.machine().step());
    // Nothing of this zone had been written when the walk passed it.
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    assert!(bench.is_succeeding(), "it came while the other zone was gone through");
    bench.steps_until("it ends", |bench| !bench.is_succeeding());
    assert_eq!(bench.machine().health().expect("production knows").members[0], Some(drive));
    stripes_match(&bench.scenario, &bench.rack.borrow()).expect("all of both zones matches");
    bench.rack.borrow_mut().lose(DeviceId(1), false);
    for (lba, byte) in [(3, 0x11), (4, 0), (in_second_zone, 0x22), (in_second_zone + 1, 0)] {
        assert_eq!(bench.ask(IoKind::Read, lba, 0), Ok(byte), "block {lba}");
    }
}
