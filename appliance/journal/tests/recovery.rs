//! Recovery against everything a power cut or a bad device can leave: what was acknowledged is found, what was not
//! written never is, and damage is said to be damage.

mod harness;

use harness::{IDENTITY, LANE, MemoryLog, Writer, layout, memory};
use journal::{EndOfLog, LaneScan, MAX_IN_FLIGHT, RecordKind, RecoveryError, scan_lane, slot_of};
use proptest::prelude::*;

fn scan(log: &MemoryLog) -> Result<LaneScan, RecoveryError> {
    scan_lane(&mut log.clone(), &layout(), &IDENTITY, LANE)
}

/// What becomes of a block that was being written when the power went.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Written,
    Lost,
    Torn(usize),
    /// Drives may leave a block that they were writing unreadable.
    Unreadable,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Written),
        3 => Just(Fate::Lost),
        2 => (1usize..8).prop_map(|sectors| Fate::Torn(512 * sectors)),
        1 => Just(Fate::Unreadable),
    ]
}

/// Writes the records in flight as far as fate lets them.
fn cut(writer: &Writer, log: &mut MemoryLog, fates: &[Fate]) {
    let mut fates = fates.iter().copied().cycle();
    let in_flight = writer.live.iter().filter(|written| written.header.sequence > writer.durable_upto);
    for written in in_flight {
        for (block, content) in &written.blocks {
            for copy in 0..log.copies.len() {
                match fates.next().expect("fates repeat") {
                    Fate::Written => log.put(copy, *block, content),
                    Fate::Lost => {}
                    Fate::Torn(bytes) => log.tear(copy, *block, content, bytes),
                    Fate::Unreadable => drop(log.unreadable.insert((copy, block.0))),
                }
            }
        }
    }
}

/// What recovery writes: the surviving records to all copies, then the opening of a new incarnation. The opening stays in
/// flight, so that the next cut may take it.
fn recover(found: &LaneScan, log: &mut MemoryLog, incarnation: u64, salt: u64) -> Writer {
    let mut writer = Writer::resume(found, log, incarnation, salt);
    for written in &writer.live {
        for (block, content) in &written.blocks {
            log.put_all(*block, content);
        }
    }
    let previous_incarnation = found.last_incarnation;
    if writer.append(&[], &[], RecordKind::Opening { previous_incarnation }).is_none() {
        writer.move_tail(log, writer.durable_upto, usize::MAX);
        writer.append(&[], &[], RecordKind::Opening { previous_incarnation }).expect("room for one block");
    }
    writer
}

type Step = (usize, usize, bool);

fn run(writer: &mut Writer, log: &mut MemoryLog, steps: &[Step]) {
    for (mark, (payloads, acknowledged, moves)) in (0..).zip(steps) {
        writer.write(log, *payloads, mark);
        writer.acknowledge(log, *acknowledged);
        if *moves && writer.durable_upto > 0 {
            let oldest = writer.live[0].header.sequence;
            writer.move_tail(log, oldest + (writer.durable_upto - oldest) / 2, usize::MAX);
        }
    }
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0usize..40, 0usize..4, prop::bool::weighted(0.1)), 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_any_number_of_crashes_the_acknowledged_is_there_and_nothing_unwritten_is(
        copies in 1usize..3,
        rounds in proptest::collection::vec((steps(60), proptest::collection::vec(fate(), 1..80)), 1..6),
    ) {
        let mut log = memory(copies);
        let mut writer = Writer::format(&mut log);
        for (incarnation, (steps, fates)) in (2..).zip(rounds) {
            run(&mut writer, &mut log, &steps);
            cut(&writer, &mut log, &fates);
            let found = scan(&log).expect("a cut is no damage");
            writer.check(&found);
            // Cut again while the new incarnation opens, at once, before anything else is written.
            let before_salt = writer.salt;
            writer = recover(&found, &mut log, incarnation * 2, before_salt);
            cut(&writer, &mut log, &fates[fates.len() / 2..]);
            let found = scan(&log).expect("a cut is no damage");
            writer.check(&found);
            writer = recover(&found, &mut log, incarnation * 2 + 1, before_salt);
        }
    }

    #[test]
    fn damage_to_what_was_acknowledged_is_said_or_healed_by_the_other_copy(
        copies in 1usize..3,
        steps in steps(40),
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        at in 0usize..4096,
        unreadable in any::<bool>(),
    ) {
        let mut log = memory(copies);
        let mut writer = Writer::format(&mut log);
        run(&mut writer, &mut log, &steps);
        writer.acknowledge(&mut log, MAX_IN_FLIGHT);
        // A record behind the acknowledged ones that says so.
        writer.write(&mut log, 1, 0);
        writer.acknowledge(&mut log, MAX_IN_FLIGHT);
        let whole = scan(&log).expect("intact");
        writer.check(&whole);
        let victims = writer.live.len() - 1;
        prop_assume!(victims > 0);
        let victim = &writer.live[which.index(victims)];
        let (block, _) = victim.blocks[place.index(victim.blocks.len())];
        if unreadable {
            log.unreadable.insert((0, block.0));
        } else {
            log.flip(0, block, at);
        }
        match scan(&log) {
            Ok(found) => {
                prop_assert_eq!(copies, 2);
                let hurt = found.records.iter().filter(|record| record.good_copies != 3).collect::<Vec<_>>();
                prop_assert_eq!(hurt.len(), 1);
                prop_assert_eq!((hurt[0].header, hurt[0].good_copies), (victim.header, 2));
                writer.check(&found);
            }
            Err(RecoveryError::Damaged { sequence, position, acknowledged_upto, lost, .. }) => {
                prop_assert_eq!(copies, 1);
                prop_assert_eq!((sequence, position), (victim.header.sequence, victim.header.position));
                prop_assert!(acknowledged_upto >= sequence && lost == acknowledged_upto - sequence + 1);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_ring_of_noise_is_an_error_and_never_a_panic(
        copies in 1usize..3,
        steps in steps(20),
        noise in proptest::collection::vec((0usize..2, any::<prop::sample::Index>(), 0usize..4096), 1..40),
    ) {
        let mut log = memory(copies);
        let mut writer = Writer::format(&mut log);
        run(&mut writer, &mut log, &steps);
        for (copy, which, at) in noise {
            let block = base::ids::DeviceBlock(which.index(layout().device_blocks() as usize) as u64);
            log.flip(copy % copies, block, at);
        }
        if let Ok(found) = scan(&log) {
            // Whatever is found was written, as it was written; where the newest anchor is noise, it begins further back.
            let live = writer.live.iter().map(|written| (written.header, written.crc));
            let written: Vec<_> = writer.passed.iter().copied().chain(live).collect();
            for record in &found.records {
                prop_assert!(written.contains(&(record.header, record.crc)), "{:?} was never written", record.header);
            }
        }
    }
}

#[test]
fn a_cut_at_every_single_block_write_keeps_what_was_acknowledged() {
    for copies in 1..=2 {
        let mut log = memory(copies);
        let mut writer = Writer::format(&mut log);
        for mark in 0..12 {
            writer.write(&mut log, mark as usize % 4, mark);
            // Every block of the record in flight, copy by copy: cut before it, and with it torn.
            let written = writer.find(writer.sequence - 1).clone();
            let mut partial = log.clone();
            for (block, content) in &written.blocks {
                for copy in 0..copies {
                    let mut torn = partial.clone();
                    torn.tear(copy, *block, content, 1024);
                    for log in [&partial, &torn] {
                        let found = scan(log).expect("a cut is no damage");
                        writer.check(&found);
                    }
                    partial.put(copy, *block, content);
                }
            }
            let complete = scan(&partial).expect("complete");
            writer.check(&complete);
            assert_eq!((complete.next_sequence, complete.end), (writer.sequence, EndOfLog::Clean));
            writer.acknowledge(&mut log, 1);
            if mark % 5 == 4 {
                // The anchor reaches one copy and not the other: either is a right place to start.
                let mut first_only = log.clone();
                let mut ahead = writer.clone();
                ahead.move_tail(&mut first_only, writer.durable_upto, 1);
                ahead.check(&scan(&first_only).expect("the newer anchor"));
                writer.move_tail(&mut log, writer.durable_upto, usize::MAX);
            }
        }
    }
}

#[test]
fn different_blocks_of_a_record_may_be_damaged_on_different_copies() {
    let mut log = memory(2);
    let mut writer = Writer::format(&mut log);
    writer.write(&mut log, 3, 0);
    writer.acknowledge(&mut log, 1);
    writer.write(&mut log, 1, 0);
    writer.acknowledge(&mut log, 1);
    let blocks = writer.find(2).blocks.clone();
    log.flip(0, blocks[0].0, 200);
    log.flip(1, blocks[2].0, 0);
    let found = scan(&log).expect("each part is good somewhere");
    assert_eq!(found.record(2).map(|record| record.good_copies), Some(0));
    writer.check(&found);
    log.flip(0, blocks[2].0, 9);
    assert!(matches!(
        scan(&log),
        Err(RecoveryError::Damaged { sequence: 2, lost: 1, descriptors: 2, unreadable: 0, .. })
    ));
}

#[test]
fn a_bad_record_at_the_tail_is_never_an_empty_log() {
    let mut log = memory(1);
    let writer = Writer::format(&mut log);
    log.flip(0, writer.live[0].blocks[0].0, 77);
    let error = scan(&log).expect_err("damaged");
    assert!(matches!(error, RecoveryError::Damaged { sequence: 1, position: 0, lost: 1, .. }), "{error}");
    log.put_all(writer.live[0].blocks[0].0, &base::ZERO_BLOCK);
    assert!(matches!(scan(&log), Err(RecoveryError::Damaged { .. })));
}

#[test]
fn without_an_anchor_nothing_is_guessed_and_an_older_one_will_do_while_its_record_is_there() {
    let mut log = memory(1);
    let mut writer = Writer::format(&mut log);
    writer.write(&mut log, 2, 0);
    writer.acknowledge(&mut log, 1);
    writer.move_tail(&mut log, 2, usize::MAX);
    let newest = layout().anchor_block(LANE, slot_of(writer.anchor.update));
    let older = layout().anchor_block(LANE, slot_of(writer.anchor.update + 1));
    log.flip(0, newest, 30);
    let found = scan(&log).expect("the older anchor still names a record");
    assert_eq!((found.anchor.tail_sequence, found.next_sequence), (1, 3));
    log.unreadable.insert((0, older.0));
    let error = scan(&log).expect_err("no anchor");
    assert!(matches!(error, RecoveryError::NoAnchor { unreadable: 1, slots: 2, .. }), "{error}");
}

#[test]
fn a_lane_that_cannot_be_read_behind_its_last_good_record_is_not_called_empty() {
    let mut log = memory(2);
    let mut writer = Writer::format(&mut log);
    writer.write(&mut log, 2, 0);
    writer.acknowledge(&mut log, 1);
    for position in 4..layout().lane_blocks() {
        log.unreadable.insert((0, layout().ring_block(LANE, position).0));
    }
    writer.check(&scan(&log).expect("the other copy can be read"));
    for position in 4..layout().lane_blocks() {
        log.unreadable.insert((1, layout().ring_block(LANE, position).0));
    }
    let error = scan(&log).expect_err("blind");
    assert!(matches!(error, RecoveryError::Unreadable { sequence: 3, position: 4, .. }), "{error}");
}

#[test]
fn what_a_newer_version_wrote_is_not_taken_for_a_tear() {
    let mut log = memory(1);
    let mut writer = Writer::format(&mut log);
    writer.write(&mut log, 1, 0);
    writer.acknowledge(&mut log, 1);
    let (place, mut descriptor) = writer.find(2).blocks[0];
    descriptor[128] = 200;
    descriptor[8..12].fill(0);
    let crc = crc32c::crc32c(&descriptor);
    descriptor[8..12].copy_from_slice(&crc.to_le_bytes());
    log.put_all(place, &descriptor);
    let error = scan(&log).expect_err("unknown entry kind");
    assert!(matches!(error, RecoveryError::NewerVersion { position: 1, .. }), "{error}");
    assert!(error.to_string().contains("200"), "{error}");
}

#[test]
fn after_a_clean_stop_the_anchor_leads_to_an_empty_record_and_nothing_follows() {
    let mut log = memory(2);
    let mut writer = Writer::format(&mut log);
    assert!(scan(&log).expect("new").is_clean_stop());
    writer.write(&mut log, 5, 0);
    writer.acknowledge(&mut log, 1);
    assert!(!scan(&log).expect("busy").is_clean_stop());
    writer.append(&[], &[], RecordKind::Transaction).expect("room");
    writer.acknowledge(&mut log, 1);
    writer.move_tail(&mut log, writer.durable_upto, usize::MAX);
    assert!(scan(&log).expect("stopped").is_clean_stop());
}

#[test]
fn records_in_flight_behind_a_lost_one_are_reported_and_not_taken() {
    let mut log = memory(1);
    let mut writer = Writer::format(&mut log);
    for mark in 0..3 {
        writer.write(&mut log, 1, mark);
    }
    for sequence in [3, 4] {
        for (block, content) in writer.find(sequence).blocks.clone() {
            log.put_all(block, &content);
        }
    }
    let found = scan(&log).expect("torn");
    assert_eq!(found.next_sequence, 2);
    assert_eq!(found.end, EndOfLog::Torn { descriptors: 0, unreadable: 0, later_records: 2 });
    // The new incarnation opens exactly where the lost record was; what lies behind it is stale.
    let mut writer = recover(&found, &mut log, 2, 100);
    writer.acknowledge(&mut log, 1);
    let found = scan(&log).expect("opened");
    assert_eq!((found.next_sequence, found.end), (3, EndOfLog::Clean));
    writer.check(&found);
}
