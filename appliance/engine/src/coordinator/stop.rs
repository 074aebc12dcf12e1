//! The clean stop: every shard brings its lanes to rest, and when all of them have, and what they said last is durable, all end.

use base::ids::ShardId;

use super::{Change, Coordinated, Coordinator};
use crate::map::Service;
use crate::message::Message;

impl Coordinator {
    /// Tells the other shards to stop.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.stop_volumes();
        for shard in (1..self.shards).map(ShardId) {
            self.messages.push_back((shard, Message::Stop));
        }
    }

    /// Once all shards have come to rest, and what they said last is durable, all end.
    pub(super) fn end_if_all_is_written(&mut self) {
        let is_noted = |array: &Coordinated| array.pending_dirty.is_empty() && !matches!(array.change, Change::Noting);
        let is_written = |array: &Coordinated| match array.array.map.service {
            Service::ReadWrite => is_noted(array),
            Service::Draining => false,
            Service::ReadOnly | Service::Stopped | Service::Failed => true,
        };
        if self.closed == self.shards && self.arrays.iter().all(is_written) {
            self.closed = 0;
            self.end_volumes();
            self.tell_all(|| Message::End);
        }
    }
}
