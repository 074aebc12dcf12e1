//! Blocks that move to where they lie with a further member. From the moment that the map says so no request is sent for them any
//! more, and when those have ended that were under way, the coordinator is told; it goes on when all shards have said so. Whoever
//! waits for such a block goes on with the map that says that it has moved, or stays; others do not wait for him.

use base::ids::{ArrayBlock, ArrayId, Lba, ZoneId};
use base::snapshot::Snapshot;

use super::{Request, Router, Target};
use crate::map::{ArrayMap, resolve};
use crate::message::FragmentKind;

impl ArrayMap {
    /// The zone that a fragment is for; none if its block was to move, and moves no more.
    pub(crate) fn zone_of(&self, kind: FragmentKind, start: ArrayBlock) -> Option<ZoneId> {
        match kind {
            FragmentKind::Move => Some(self.arrangement.zone_of(self.moving?.window.place_of(start).stripe)),
            _ => Some(self.arrangement.zone_of_block(start)),
        }
    }
}

impl Request {
    /// Whether it belongs to those who move the blocks.
    const fn is_mover(&self) -> bool {
        self.for_job
            && matches!(self.target, Target::Array(_))
            && matches!(self.kind, FragmentKind::Read | FragmentKind::Move)
    }
}

impl Router {
    /// Takes a new map of an array.
    pub(crate) fn set_map(&mut self, map: Snapshot<ArrayMap>) {
        let id = map.id;
        let before = core::mem::replace(&mut self.arrays[id.index()], map);
        let run = |map: &ArrayMap| map.moving.map(|moving| moving.run);
        let now = run(&self.arrays[id.index()]);
        if now == run(&before) {
            return;
        }
        self.fencing.retain(|(array, _)| *array != id);
        self.fencing.extend(now.map(|run| (id, run)));
        for _ in 0..self.held.len() {
            let key = self.held.pop_front().expect("as many as there were");
            let waits =
                if self.requests[key].kind == FragmentKind::Zero { &mut self.zeroing } else { &mut self.sending };
            waits.push_back(key);
        }
    }

    /// Whether a fragment of a request has to wait. The blocks of one stay together.
    pub(super) fn is_fenced(&self, request: &Request, array: ArrayId, start: ArrayBlock) -> bool {
        let moving = self.arrays[array.index()].moving.as_ref();
        moving.is_some_and(|moving| !request.is_mover() && moving.window.moves_block(start))
    }

    /// An array whose blocks are to move, and the time that it is, once no request of this shard uses any of them.
    pub(crate) fn fenced(&mut self) -> Option<(ArrayId, u32)> {
        let uses = |request: &Request, array| request.unanswered > 0 && self.comes_near(request, array);
        let is_free = |(array, _): &(ArrayId, u32)| !self.requests.iter().any(|(_, request)| uses(request, *array));
        let at = self.fencing.iter().position(is_free)?;
        Some(self.fencing.swap_remove(at))
    }

    /// Whether what was sent of a request may be of what is to move.
    fn comes_near(&self, request: &Request, array: ArrayId) -> bool {
        let Some(moving) = &self.arrays[array.index()].moving else { return false };
        let (start, end) = (request.lba.0, request.lba.0 + u64::from(request.sent));
        match request.target {
            Target::Array(of) => {
                of == array && !request.is_mover() && moving.window.is_near(ArrayBlock(start), end - start)
            }
            Target::Volume(at) => {
                let volume = &self.volumes[at];
                if volume.array != array {
                    return false;
                }
                // Of a list it is not kept where the ranges before lay.
                if request.range > 1 {
                    return true;
                }
                let mut at = start;
                while at < end {
                    let left = u32::try_from(end - at).expect("as many as a request has");
                    let (first, run) =
                        resolve(&volume.extents, Lba(at), left).expect("what was sent lies in the volume");
                    if moving.window.is_near(first, u64::from(run)) {
                        return true;
                    }
                    at += u64::from(run);
                }
                false
            }
        }
    }
}
