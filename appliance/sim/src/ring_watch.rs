//! Watches every write into a ring of the log: none may lie where the durable anchors of its copy still count a record
//! (rule L1). It asks the medium what is durable there and believes no shard; it judges where a record goes, never what it
//! says.
//!
//! The watch is stricter than any crash: an engine that reuses space too early is found at the write itself, whether or not
//! the power fails before the anchor is durable.

use base::Block;
use base::ids::{DeviceBlock, DeviceId, LaneId};
use journal::{Anchor, LogLayout, LogSuperblock, open_record};

use crate::device::{Content, Medium, bytes_of};

/// Looks at a write that a log device is about to take.
///
/// # Panics
/// If it goes into a ring and is no record, or a record that does not belong there now.
pub fn check(medium: &Medium, device: DeviceId, start: DeviceBlock, data: &[Content]) {
    let durable = |at: DeviceBlock| -> &Block { bytes_of(medium.durable(at)) };
    let slot = |slot| durable(LogLayout::superblock_block(slot));
    // Before the superblock is there, the log is being made.
    let Ok((log, _)) = LogSuperblock::newest(slot(0), slot(1)) else { return };
    let (first, blocks) = log.layout.rings();
    if !(first..first + blocks).contains(&start.0) || data.is_empty() {
        return;
    }
    // What a copy could not give back is written there again as it is.
    if data.len() == 1 && bytes_of(&data[0]) == durable(start) {
        return;
    }
    let lane = LaneId(((start.0 - first) / log.layout.lane_blocks()) as u16);
    let slot = |slot| durable(log.layout.anchor_block(lane, slot));
    let anchor = Anchor::newest(&log.identity, lane, slot(0), slot(1));
    // What is about to become a copy has no anchor before it has what one names.
    if log.joining && anchor.is_err() {
        return;
    }
    let anchor =
        anchor.unwrap_or_else(|fault| panic!("device {device}, lane {lane}: a record is written, but {fault}"));
    let record = open_record(&log.identity, bytes_of(&data[0]))
        .unwrap_or_else(|fault| panic!("device {device}, lane {lane}: into the ring goes what is no record: {fault}"));
    let header = record.header;
    assert!(
        header.lane == lane && log.layout.ring_block(lane, header.position) == start,
        "device {device}: a record of lane {} and position {} goes to block {start:?}",
        header.lane,
        header.position
    );
    let end = header.position + u64::from(header.length_blocks);
    let tail = anchor.tail_position;
    assert!(
        header.position >= tail,
        "device {device}, lane {lane}: a record at {} before tail {tail}",
        header.position
    );
    assert!(
        end - tail < log.layout.lane_blocks(),
        "device {device}, lane {lane}: the record from {} to {end} lies over the durable tail at {tail} (rule L1)",
        header.position
    );
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use base::{BLOCK, ZERO_BLOCK};
    use journal::{RecordHeader, RecordKind, seal_record};

    use super::*;
    use crate::device::{Run, content_of};
    use crate::machine::boot_devices;
    use crate::production::Production;
    use crate::rack::Rack;
    use crate::random::Random;
    use crate::scenario::Scenario;
    use crate::subject::Subject;
    use crate::trace::Trace;

    /// Writes a record of one block at `beyond` blocks behind the tail of a new log's last lane.
    fn write(beyond: impl Fn(u64) -> u64) {
        let mut scenario = Scenario::draw_at(1, Some(raid::Level::Raid5));
        scenario.lanes = 2;
        let rack = Rack::new(1, &scenario.devices(), Trace::default());
        let rack = Rc::new(RefCell::new(rack));
        Production::create(&scenario, &mut boot_devices(&rack), &mut Random::named(1, "world")).expect("an array");
        let device = scenario.log_devices().next().expect("a log");
        let (lane, position, run) = {
            let rack = rack.borrow();
            let slot = |slot| rack.peek(device, LogLayout::superblock_block(slot));
            let (log, _) = LogSuperblock::newest(slot(0), slot(1)).expect("it was just made");
            let lane = LaneId(1);
            let slot = |slot| rack.peek(device, log.layout.anchor_block(lane, slot));
            let anchor = Anchor::newest(&log.identity, lane, slot(0), slot(1)).expect("it was just made");
            let position = anchor.tail_position + beyond(log.layout.lane_blocks());
            let header = RecordHeader {
                kind: RecordKind::Transaction,
                lane,
                incarnation: 1,
                geometry_epoch: 0,
                array_epoch: 1,
                sequence: 2,
                position,
                length_blocks: 1,
                durable_upto: 1,
                previous_crc: 0,
            };
            let mut block = ZERO_BLOCK;
            seal_record(&log.identity, &header, &[], &mut block);
            (lane, position, Run { start: log.layout.ring_block(lane, position), blocks: vec![content_of(&block)] })
        };
        assert_eq!(rack.borrow_mut().write_now(device, run), Ok(()), "{lane:?} {position}");
    }

    #[test]
    fn a_record_may_fill_the_ring_up_to_the_last_block_but_one() {
        write(|_| 1);
        write(|lane_blocks| lane_blocks - 2);
    }

    #[test]
    #[should_panic(expected = "lies over the durable tail")]
    fn a_record_over_the_durable_tail_is_found() {
        write(|lane_blocks| lane_blocks);
    }

    #[test]
    #[should_panic(expected = "lies over the durable tail")]
    fn a_ring_filled_to_head_and_tail_in_one_is_found() {
        write(|lane_blocks| lane_blocks - 1);
    }

    #[test]
    fn what_lies_elsewhere_is_of_no_concern() {
        check(&Medium::new(64, true, false), DeviceId(0), DeviceBlock(40), &[content_of(&[1; BLOCK])]);
    }
}
