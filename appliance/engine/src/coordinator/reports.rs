//! What shards report, and to which part of the coordinator it goes.

use base::ids::ShardId;

use super::Coordinator;
use crate::command::Event;
use crate::map::MovingStage;
use crate::message::Message;

impl Coordinator {
    /// Takes a report or a request of a shard.
    pub(crate) fn message(&mut self, from: ShardId, message: Message) {
        match message {
            Message::MemberFailed { array, device } => {
                let array = &mut self.arrays[array.index()];
                match array.array.map.slot_of(device) {
                    Some(slot) if slot == array.array.map.successor_slot() => array.pending.unseat = true,
                    Some(slot) => array.pending.members |= 1 << slot.0,
                    None => {}
                }
            }
            Message::CopyFailed { array: id, copy, error } => {
                let array = &mut self.arrays[id.index()];
                let map = &array.array.map;
                if map.logs_to(copy) && array.pending.copies & 1 << copy == 0 {
                    array.pending.copies |= 1 << copy;
                    if map.newcomer.is_none_or(|newcomer| newcomer.copy != copy) {
                        self.tell(Event::CopyFailed { array: id, copy, error });
                    }
                }
            }
            Message::CopyCaughtUp { array, run } => self.caught_up(array, run),
            Message::ModeTaken { array } => self.mode_taken(array),
            Message::Drained { array, blocked } => self.drained(array, blocked),
            Message::Still { array, run } => {
                self.caught_up(array, run);
                self.still(array, run);
            }
            Message::MemberErrors { array, slot, errors } => {
                // Of a successor only checksums are read.
                if let Some(member) = self.arrays[array.index()].members.get_mut(slot.index()) {
                    member.hear(errors);
                }
            }
            Message::MemberSlow { array, slot, slow, mean, peers } => {
                self.paced(array, slot, from, slow, (mean, peers))
            }
            Message::MemberHangs { array, slot, hangs } => self.hangs(array, slot, from, hangs),
            Message::DestageBlocked { array, stripe, members } => self.destage_blocked(array, from, stripe, members),
            Message::LogPinned { array } => self.tell(Event::LogPinned { array }),
            Message::DestageUnblocked { array } => self.destage_unblocked(array, from),
            Message::Fenced { array, run } => self.shard_rests(array, run, MovingStage::Fencing),
            Message::WindowDrained { array, run } => self.shard_rests(array, run, MovingStage::Draining),
            Message::WindowTaken { array, run } => self.shard_rests(array, run, MovingStage::Arrived),
            Message::ZoneZeroed { array, zone } => {
                self.arrays[array.index()].pending_zones.push_back((from, zone));
            }
            Message::ZoneDirty { array, zone, dirty } => {
                self.arrays[array.index()].pending_dirty.push_back((from, zone, dirty));
            }
            Message::ZoneMissed { array, zone } => {
                // With nobody out it has been told to whoever waits for it.
                let array = &mut self.arrays[array.index()];
                if array.array.map.away.is_some() {
                    array.pending_missed.push_back((from, zone));
                }
            }
            Message::ZonesAtStake { array, zones } => self.tell(Event::ZonesAtStake { array, zones }),
            Message::ZoneBlocked { array, run, zone } => self.zone_blocked(array, from, run, zone),
            Message::ZoneWalked { array, run, zone, found } => {
                // Of one of them, or of one that is over.
                self.zone_resynced(array, from, run, zone, true);
                self.zone_rebuilt(array, from, run, zone);
                self.zone_scrubbed(array, from, run, zone, found);
            }
            Message::Command(command) => self.command(*command),
            Message::VolumesTaken { epoch } => self.volumes_taken(epoch),
            Message::LanesClosed => {
                self.closed += 1;
                self.end_if_all_is_written();
            }
            other => unreachable!("not for the coordinator: {other:?}"),
        }
    }
}
