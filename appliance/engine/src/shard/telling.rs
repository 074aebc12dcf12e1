//! What a shard tells people: its status, and the gauges of its arrays.

use base::ids::Slot;
use base::time::Time;

use super::Shard;
use crate::coordinator::Coordinator;
use crate::status::{ArrayStatus, OwingStatus, ShardStatus};

impl Shard {
    /// What there is to tell.
    pub fn status(&self, now: Time) -> ShardStatus {
        let arrays = self.arrays.iter().map(|array| {
            let map = array.map();
            let absent = |present: Vec<bool>| (0u8..).zip(present).filter(|&(_, p)| !p).map(|(at, _)| at).collect();
            ArrayStatus {
                array: map.id,
                name: map.name.clone(),
                epoch: map.epoch,
                service: map.service.name(),
                members: map.members.iter().map(|member| member.map(|member| member.device)).collect(),
                copies: map.copies.clone(),
                log: (map.log, map.log_layout, map.incarnation),
                rebuilding_members: (0u8..map.members.len() as u8).filter(|&at| map.is_rebuilding(Slot(at))).collect(),
                successor: self.coordinator.as_ref().and_then(|coordinator| coordinator.successor_status(map.id)),
                rebuild: self.coordinator.as_ref().and_then(|coordinator| coordinator.rebuild_status(map.id, now)),
                space: *map.space(),
                growth: self.coordinator.as_ref().and_then(|coordinator| coordinator.growth_status(map.id, now)),
                attach: self.coordinator.as_ref().and_then(|coordinator| coordinator.attach_status(map.id)),
                scrub: self.coordinator.as_ref().and_then(|coordinator| coordinator.scrub_status(map.id, now)),
                resync: self.coordinator.as_ref().and_then(|coordinator| coordinator.resync_status(map.id, now)),
                spares: self.coordinator.as_ref().map_or_else(Vec::new, |coordinator| coordinator.spares(map.id)),
                joining: self.coordinator.as_ref().map_or_else(Vec::new, |coordinator| coordinator.joining(map.id)),
                missing_members: absent(map.members.iter().map(Option::is_some).collect()),
                slow_members: array.slow_members(),
                late_members: array.late_members(),
                mode: map.mode,
                missing_copies: map.missing_copies().collect(),
                exposed: map.is_exposed(),
                lanes: array.lane_status(),
                usage: array.usage(),
            }
        });
        ShardStatus {
            shard: self.shard,
            requests: self.router.in_flight() as u64,
            arrays: arrays.collect(),
            connections: self.front.as_ref().map_or_else(Vec::new, |front| front.connections(now)),
            jobs: self.coordinator.as_ref().map_or_else(Vec::new, Coordinator::job_status),
            ended: self.front.as_ref().map_or_else(Vec::new, |front| front.ended(now)),
            owing: self.operations.owed(now).map(OwingStatus::from).collect(),
        }
    }

    pub(super) fn count(&mut self) {
        if core::mem::take(&mut self.turns_uncounted) == 0 {
            return;
        }
        let metrics = self.metrics.shard(self.shard);
        for (array, metrics) in self.arrays.iter().zip(&metrics.arrays) {
            let (map, usage) = (array.map(), array.usage());
            metrics.log_used_blocks.set(usage.log_used_blocks);
            metrics.log_capacity_blocks.set(usage.log_blocks);
            metrics.dirty_blocks.set(usage.dirty_blocks);
            metrics.logged_blocks.set(usage.logged_blocks);
            metrics.blocked_stripes.set(usage.blocked_stripes);
            metrics.blocked_blocks.set(usage.blocked_blocks);
            metrics.dirty_zones.set(usage.dirty_zones);
            metrics.unsynced_zones.set(usage.unsynced_zones);
            let missing = u64::from(map.missing().count_ones());
            metrics.members_missing.set(missing);
            if let Some(coordinator) = &self.coordinator {
                let rebuild = coordinator.rebuild_status(map.id, Time(0));
                metrics.rebuilding.set(u64::from(rebuild.is_some()));
                let left = rebuild.map_or(0, |rebuild| rebuild.bytes - rebuild.done_bytes);
                metrics.rebuild_left_blocks.set(left / base::BLOCK as u64);
                let growth = coordinator.growth_status(map.id, Time(0));
                metrics.growing.set(u64::from(growth.is_some()));
                let left = growth.map_or(0, |growth| growth.bytes - growth.done_bytes);
                metrics.growth_left_blocks.set(left / base::BLOCK as u64);
                let resync = coordinator.resync_status(map.id, Time(0));
                metrics.resyncing.set(u64::from(resync.is_some()));
                let left = resync.map_or(0, |resync| resync.bytes - resync.done_bytes);
                metrics.resync_left_blocks.set(left / base::BLOCK as u64);
                let scrub = coordinator.scrub_status(map.id, Time(0)).filter(|scrub| scrub.state == "running");
                metrics.scrubbing.set(u64::from(scrub.is_some()));
                let left = scrub.map_or(0, |scrub| scrub.bytes - scrub.done_bytes);
                metrics.scrub_left_blocks.set(left / base::BLOCK as u64);
            }
            metrics.degraded.set(u64::from(missing > 0));
            metrics.log_copies_missing.set(map.missing_copies().count() as u64);
            metrics.read_only.set(u64::from(map.service.refuses_writes().is_some()));
            metrics.exposed.set(u64::from(map.is_exposed()));
        }
    }
}
