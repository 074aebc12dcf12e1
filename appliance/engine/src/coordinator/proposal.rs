//! What is to be said otherwise of an array, before it is: an edit of who takes part, as it would stand in the superblocks
//! and in the map. Pure: [`super::persist`] makes it durable, and only then is it in force.
//!
//! A proposal is worked out anew, from what is in force, each time that it is tried: one that failed half way has left its
//! epoch on some devices, and the next one has a higher epoch and says everything again. So nothing of a proposal that is
//! dropped stays behind.
//!
//! A further kind of change is a further part of [`Proposal`], with its lines in [`Proposal::tables`] (what members say),
//! [`Proposal::log`] (what a log copy says) and [`Proposal::map`] (what shards go by).

use journal::LogSuperblock;
use raid::Tables;

use super::service;
use crate::map::ArrayMap;

/// A change of who takes part.
#[derive(Clone, Debug, Default)]
pub(super) struct Proposal {
    /// Members to be left out, as a bit mask.
    pub(super) members: u32,
    /// Log copies to be left out, as a bit mask.
    pub(super) copies: u32,
}

impl Proposal {
    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.members == 0 && self.copies == 0
    }

    /// Takes another one up into this one.
    pub(super) fn join(&mut self, other: &Self) {
        self.members |= other.members;
        self.copies |= other.copies;
    }

    /// What all member superblocks are to say of members and copies.
    pub(super) fn tables(&self, in_force: &Tables, epoch: u64) -> Tables {
        let mut tables = in_force.clone();
        tables.exclude(epoch, self.members, self.copies);
        tables
    }

    /// What a log copy is to say of an array whose map will be this; its next update is due.
    pub(super) fn log(&self, superblock: &mut LogSuperblock, map: &ArrayMap) {
        superblock.epoch = map.epoch;
        superblock.members = map.geometry.all_members() & !map.missing();
        superblock.update += 1;
    }

    /// What the shards are to go by.
    pub(super) fn map(&self, in_force: &ArrayMap, epoch: u64) -> ArrayMap {
        let mut map = in_force.clone();
        map.epoch = epoch;
        for (_, member) in map.members.iter_mut().enumerate().filter(|(slot, _)| self.members & 1 << slot != 0) {
            *member = None;
        }
        for (_, device) in map.copies.iter_mut().enumerate().filter(|(copy, _)| self.copies & 1 << copy != 0) {
            *device = None;
        }
        map.service = service(&map);
        map
    }
}
