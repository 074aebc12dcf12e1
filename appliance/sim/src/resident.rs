//! Dirty data that the log alone has, and what becomes of it when copies of the log are lost: first one, then the other, or both
//! at once, which is beyond what is promised, and so tried step by step.

use base::ids::{DeviceBlock, DeviceId};
use base::time::Span;
use engine::array::{Residency, Usage};
use engine::io::{IoError, IoKind};
use engine::map::OnLogLoss;
use raid::Level;

use crate::bench::{Bench, SOON};
use crate::scenario::Scenario;

/// Blocks that are written.
const BLOCKS: u64 = 60;

/// Blocks of data in a stripe.
const COLUMNS: u64 = 3;

/// An array with two log copies whose memory is scarce from the first block on, and where nothing goes to the members by itself.
fn bench(policy: OnLogLoss) -> Bench {
    let mut bench = blank(|scenario| scenario.on_log_loss = policy);
    for block in 0..BLOCKS {
        assert_eq!(ask(&mut bench, IoKind::Write, block, 0x11), Ok(0x11));
    }
    bench
}

/// The same with nothing written to it.
fn blank(change: impl Fn(&mut Scenario)) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    (scenario.log_copies, scenario.write_through, scenario.checksums) = (2, false, false);
    // One block of each stripe is written: none is whole.
    (scenario.members, scenario.chunk_blocks) = (COLUMNS as u8 + 1, 1);
    (scenario.shards, scenario.lanes, scenario.lane_blocks) = (2, 2, 2000);
    scenario.residency = (Residency::Log, 0);
    scenario.destage_age = Span::from_secs(3600);
    (scenario.high_watermark_percent, scenario.memory_watermark_percent) = (90, 90);
    change(&mut scenario);
    Bench::started(scenario)
}

/// Asks for one of the blocks.
fn ask(bench: &mut Bench, kind: IoKind, block: u64, byte: u8) -> Result<u8, IoError> {
    bench.ask(kind, COLUMNS * block, byte)
}

fn usage(bench: &mut Bench) -> Usage {
    crate::production::usage(bench.machine().shards())
}

fn until(bench: &mut Bench, holds: impl Fn(&Usage) -> bool) {
    for _ in 0..SOON {
        if holds(&usage(bench)) {
            return;
        }
        bench.machine().step();
    }
    panic!("it does not come to that: {:?}", usage(bench));
}

fn lose_copy(bench: &Bench, at: usize) {
    let copy = bench.scenario.log_devices().nth(at).expect("there are two");
    bench.rack.borrow_mut().lose(copy, false);
}

#[test]
fn what_has_left_memory_is_read_from_the_log_also_after_a_crash() {
    let mut bench = bench(OnLogLoss::ReadOnly);
    assert_eq!(usage(&mut bench).logged_blocks, BLOCKS);
    assert_eq!(ask(&mut bench, IoKind::Write, 3, 0x22), Ok(0x22));
    assert_eq!(ask(&mut bench, IoKind::WriteZeroes, 4, 0), Ok(0));
    for _ in 0..2 {
        for (block, byte) in [(3, 0x22), (4, 0), (5, 0x11), (BLOCKS - 1, 0x11)] {
            assert_eq!(ask(&mut bench, IoKind::Read, block, 0xff), Ok(byte), "block {block}");
        }
        assert_eq!(usage(&mut bench).logged_blocks, BLOCKS - 1, "one is zeros");
        bench.power_cycle(&[]);
        bench.start().expect("nothing is lost");
    }
}

#[test]
fn with_one_copy_left_nothing_depends_on_it_soon() {
    for (at, policy) in [(0, OnLogLoss::ReadOnly), (1, OnLogLoss::ReadOnly), (0, OnLogLoss::WriteThroughExposed)] {
        let mut bench = bench(policy);
        lose_copy(&bench, at);
        // Who finds it out is told as soon as the exclusion is durable.
        assert_eq!(ask(&mut bench, IoKind::Write, 3, 0x22), Ok(0x22));
        let begun = bench.rack.borrow().clock.now();
        until(&mut bench, |usage| usage.logged_blocks == 0);
        let took = bench.rack.borrow().clock.now().since(begun);
        assert!(took < Span::from_secs(5), "long before its age: {took:?}");
        assert_eq!(ask(&mut bench, IoKind::Write, 4, 0x33), Ok(0x33));
        assert_eq!(usage(&mut bench).logged_blocks, 0, "with one copy everything stays in memory");
        lose_copy(&bench, 1 - at);
        let written = ask(&mut bench, IoKind::Write, 5, 0x44);
        let goes_on = policy == OnLogLoss::WriteThroughExposed;
        assert_eq!(written, if goes_on { Ok(0x44) } else { Err(IoError::ReadOnly) });
        let fifth = if goes_on { 0x44 } else { 0x11 };
        for (block, byte) in [(3, 0x22), (4, 0x33), (5, fifth), (6, 0x11), (BLOCKS - 1, 0x11)] {
            assert_eq!(ask(&mut bench, IoKind::Read, block, 0), Ok(byte), "block {block}");
        }
    }
}

#[test]
fn with_both_copies_lost_at_once_what_they_alone_had_is_refused_and_not_made_up() {
    for policy in [OnLogLoss::ReadOnly, OnLogLoss::WriteThroughExposed] {
        let mut bench = bench(policy);
        lose_copy(&bench, 0);
        lose_copy(&bench, 1);
        // What it would go on without is not whole.
        assert_eq!(ask(&mut bench, IoKind::Write, 3, 0x22), Err(IoError::ReadOnly), "{policy:?}");
        for block in [0, 3, BLOCKS - 1] {
            assert_eq!(ask(&mut bench, IoKind::Read, block, 0), Err(IoError::Unreadable), "block {block}");
        }
        assert_eq!(ask(&mut bench, IoKind::Read, BLOCKS, 0xff), Ok(0), "never written");
    }
}

#[test]
fn a_start_with_one_copy_of_the_two_serves_and_drains() {
    let mut bench = bench(OnLogLoss::ReadOnly);
    let lost = bench.scenario.log_devices().next().expect("there are two");
    bench.power_cycle(&[lost.0]);
    bench.start().expect("one copy is enough");
    assert_eq!(ask(&mut bench, IoKind::Read, 7, 0), Ok(0x11));
    assert_eq!(ask(&mut bench, IoKind::Write, 7, 0x22), Ok(0x22));
    until(&mut bench, |usage| usage.logged_blocks == 0);
    for (block, byte) in [(6, 0x11), (7, 0x22)] {
        assert_eq!(ask(&mut bench, IoKind::Read, block, 0), Ok(byte));
    }
}

#[test]
fn what_is_being_read_from_the_log_stays_there_though_the_ring_goes_round() {
    let mut bench = blank(|scenario| {
        (scenario.shards, scenario.lanes, scenario.lane_blocks) = (1, 1, 1000);
        scenario.log_patience = Span::from_secs(3600);
    });
    let copies: Vec<_> = bench.scenario.log_devices().collect();
    let slow = |bench: &Bench, span| copies.iter().for_each(|&copy| bench.rack.borrow_mut().slow_reads(copy, span));
    assert_eq!(ask(&mut bench, IoKind::Write, 0, 0x11), Ok(0x11));
    slow(&bench, Some(Span::from_secs(2000)));
    let token = bench.begin_read(0);
    bench.machine().step();
    slow(&bench, None);
    // Each takes the place of the one before, so that no destage is needed, which would wait for the read.
    let (mut writes, mut read) = (0u64, None);
    while read.is_none() {
        writes += 1;
        assert!(bench.begin_write(0, 0x22), "there is room");
        loop {
            let done = bench.await_answer().expect("the power stays");
            if done.token != token {
                bench.ended(done, 0).expect("a write ends");
                break;
            }
            read = Some(bench.ended(done, 0));
        }
    }
    assert_eq!(read, Some(Ok(0x11)), "after {writes} writes");
    assert!(writes > 200, "{writes} writes: the ring was not full");
    assert_eq!(ask(&mut bench, IoKind::Read, 0, 0), Ok(0x22));
}

#[test]
fn what_a_copy_cannot_give_is_written_there_again() {
    for wrong in [false, true] {
        let mut bench = bench(OnLogLoss::ReadOnly);
        let copies: Vec<_> = bench.scenario.log_devices().collect();
        let (mut spoiled, blocks) = (0, bench.rack.borrow().blocks(copies[0]));
        // Payload alone: descriptors are not read before the next start.
        for at in (0..blocks).map(DeviceBlock).filter(|at| is_full_of(&bench, copies[0], *at, 0x11)) {
            spoiled += 1;
            if wrong {
                bench.rack.borrow_mut().overwrite(copies[0], at, &[0x99; base::BLOCK]);
            } else {
                bench.rack.borrow_mut().spoil(copies[0], at);
            }
        }
        assert!(spoiled >= BLOCKS, "{spoiled} of {BLOCKS}");
        // Half of them are asked of the other copy: all of them, once it is the only one.
        for block in 0..BLOCKS {
            assert_eq!(ask(&mut bench, IoKind::Read, block, 0), Ok(0x11), "block {block}, wrong: {wrong}");
        }
        let is_there = |at: &DeviceBlock| is_full_of(&bench, copies[0], *at, 0x11);
        let mended = (0..blocks).map(DeviceBlock).filter(is_there).count() as u64;
        assert!(mended > 0 && mended < BLOCKS, "{mended} of {BLOCKS}: those that were asked, wrong: {wrong}");
        lose_copy(&bench, 0);
        until(&mut bench, |usage| usage.logged_blocks == 0);
        for block in 0..BLOCKS {
            assert_eq!(ask(&mut bench, IoKind::Read, block, 0), Ok(0x11), "block {block}, wrong: {wrong}");
        }
    }
}

fn is_full_of(bench: &Bench, device: DeviceId, at: DeviceBlock, byte: u8) -> bool {
    let rack = bench.rack.borrow();
    rack.is_readable(device, at, 1) && *rack.peek(device, at) == [byte; base::BLOCK]
}
