//! A log that is damaged on all copies, and given up by the operator while the power fails: wherever that is, the array is
//! then refused as before or served without what was lost, never with a part of it that lay behind the damage; and giving it
//! up can be begun again, by a new plan, until it is done.

use base::BLOCK;
use base::ids::{DeviceId, LaneId};
use base::time::Span;
use engine::boot::{discard, plan_discard};
use engine::io::IoKind;
use journal::{Entry, LogLayout, LogSuperblock, OpenRecord, open_record};
use raid::Level;

use crate::bench::Bench;
use crate::fault::{Fault, PlannedFault};
use crate::machine::boot_devices;
use crate::production::ARRAY;
use crate::scenario::Scenario;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    /// The second of three records.
    Record,
    /// All anchors of the lane.
    Anchors,
}

/// The blocks that are written, by a record each.
const WRITTEN: [(u64, u8); 3] = [(3, 0x11), (9, 0x22), (15, 0x33)];

/// Effects within which a log is given up, whatever is damaged.
const MAX_EFFECTS: u64 = 200;

/// An array whose only lane is damaged on both copies, with three writes that no member has.
fn damaged(damage: Damage) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    (scenario.shards, scenario.lanes, scenario.log_copies) = (1, 1, 2);
    (scenario.write_through, scenario.log_cache, scenario.members_are_zero) = (false, true, true);
    scenario.destage_age = Span::from_secs(3600);
    let mut bench = Bench::started(scenario);
    for (lba, byte) in WRITTEN {
        assert_eq!(bench.ask(IoKind::Write, lba, byte), Ok(byte));
    }
    bench.power_cycle(&[]);
    let copies: Vec<DeviceId> = bench.scenario.log_devices().collect();
    for copy in copies {
        let rack = &mut *bench.rack.borrow_mut();
        let slot = |slot| rack.peek(copy, LogLayout::superblock_block(slot));
        let log = LogSuperblock::newest(slot(0), slot(1)).expect("it is a log").0;
        let places: Vec<_> = match damage {
            Damage::Anchors => [0, 1].map(|slot| log.layout.anchor_block(LaneId(0), slot)).into(),
            Damage::Record => {
                let places = (0..log.layout.lane_blocks()).map(|at| log.layout.ring_block(LaneId(0), at));
                let has_data =
                    |record: &OpenRecord<'_>| record.entries.clone().any(|entry| matches!(entry, Entry::Data { .. }));
                let records = places.filter(|&place| {
                    open_record(&log.identity, rack.peek(copy, place)).is_ok_and(|record| has_data(&record))
                });
                records.skip(1).take(1).collect()
            }
        };
        assert!(!places.is_empty(), "there is something to damage");
        places.into_iter().for_each(|place| rack.overwrite(copy, place, &[0xee; BLOCK]));
    }
    bench
}

/// Looks at what is there and gives it up, if anything is; whether the power stayed.
fn give_up(bench: &Bench) -> bool {
    let mut devices = boot_devices(&bench.rack);
    let plan = plan_discard(&mut devices, ARRAY, false);
    let given_up = plan.and_then(|plan| discard(&mut devices, &plan));
    let powered = bench.rack.borrow().powered();
    assert!(!powered || given_up.is_ok(), "it can be begun again: {given_up:?}");
    powered
}

/// The array is served with what lies before the damage, and goes on so over another crash.
fn is_served(bench: &mut Bench, damage: Damage) {
    let kept = if damage == Damage::Record { 1 } else { 0 };
    for (number, (lba, byte)) in WRITTEN.into_iter().enumerate() {
        let expected = if number < kept { byte } else { 0 };
        assert_eq!(bench.ask(IoKind::Read, lba, 0), Ok(expected), "block {lba}");
    }
    assert_eq!(bench.ask(IoKind::Write, 9, 0x44), Ok(0x44));
    bench.power_cycle(&[]);
    bench.start().expect("a crash is no damage");
    assert_eq!((bench.ask(IoKind::Read, 9, 0), bench.ask(IoKind::Read, 15, 0)), (Ok(0x44), Ok(0)));
}

#[test]
fn a_log_is_given_up_although_the_power_fails_at_any_effect() {
    for damage in [Damage::Record, Damage::Anchors] {
        let mut bench = damaged(damage);
        assert!(bench.start().is_err(), "{damage:?}: it is refused");
        let (mut cuts, mut served) = (0, 0);
        for effect in 1..=MAX_EFFECTS {
            let mut bench = damaged(damage);
            bench.rack.borrow_mut().plan(vec![PlannedFault { effect, fault: Fault::PowerCut }]);
            if give_up(&bench) {
                bench.rack.borrow_mut().plan(Vec::new());
                bench.start().expect("it was given up");
                is_served(&mut bench, damage);
                break;
            }
            cuts += 1;
            bench.rack.borrow_mut().restore_power();
            // Every other time nobody begins again, if the array can be served as it is.
            if effect % 2 == 0 && bench.start().is_ok() {
                served += 1;
            } else {
                assert!(give_up(&bench), "nothing is in the way");
                bench.start().expect("it was given up");
            }
            is_served(&mut bench, damage);
        }
        assert!((1..MAX_EFFECTS).contains(&cuts), "{damage:?}: {cuts} cuts, served at once after {served}");
    }
}
