//! The first blocks of a new lane: an opening record at position 0 and the anchor that names it. The superblock goes
//! last, so a log that was formatted half is none. Nothing is zeroed: what lay there before has another generation.

use base::ids::{DeviceBlock, LaneId};
use base::{Block, ZERO_BLOCK};

use crate::record::{RecordHeader, RecordKind, seal_record};
use crate::{Anchor, LogIdentity, LogLayout, slot_of};

/// The sequence of a lane's very first record.
pub const FIRST_SEQUENCE: u64 = 1;

/// The update of a lane's very first anchor.
pub const FIRST_UPDATE: u64 = 1;

/// The blocks to write to every copy, durably, before the superblock, and the checksum that the lane's second record
/// carries as its predecessor's.
///
/// # Panics
/// If the incarnation is 0, which means *none before*.
pub fn format_lane(
    layout: &LogLayout,
    identity: &LogIdentity,
    lane: LaneId,
    incarnation: u64,
    array_epoch: u64,
    geometry_epoch: u32,
) -> ([(DeviceBlock, Block); 2], u32) {
    assert!(incarnation > 0, "incarnation 0 means none");
    let header = RecordHeader {
        kind: RecordKind::Opening { previous_incarnation: 0 },
        lane,
        incarnation,
        geometry_epoch,
        array_epoch,
        sequence: FIRST_SEQUENCE,
        position: 0,
        length_blocks: 1,
        durable_upto: 0,
        previous_crc: 0,
    };
    let anchor = first_anchor(lane, incarnation);
    let (mut opening_block, mut anchor_block) = (ZERO_BLOCK, ZERO_BLOCK);
    let crc = seal_record(identity, &header, &[], &mut opening_block);
    anchor.encode(identity, &mut anchor_block);
    let blocks =
        [(layout.ring_block(lane, 0), opening_block), (layout.anchor_block(lane, slot_of(FIRST_UPDATE)), anchor_block)];
    (blocks, crc)
}

/// The anchor of a new lane.
pub const fn first_anchor(lane: LaneId, incarnation: u64) -> Anchor {
    Anchor {
        lane,
        update: FIRST_UPDATE,
        tail_position: 0,
        tail_sequence: FIRST_SEQUENCE,
        tail_incarnation: incarnation,
        tail_previous_crc: 0,
    }
}
