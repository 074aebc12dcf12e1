//! How the appliance is, put together from what each shard says and what was known at the start.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base::BLOCK;
use base::ids::{DeviceId, ShardId};
use base::metrics::{Counter, DeviceMetrics, Metrics};
use base::snapshot::Snapshot;
use engine::boot::RecoveryReport;
use engine::map::ArrayMap;
use engine::status::{JobStatus, ShardStatus};
use runtime::confine::Confinement;
use runtime::{DeviceSet, StatsReader};

use super::drives::{Use, UseKind, uses};
use super::fixed::Placed;
use super::rescan::Drives;
use super::shards::Shards;
use super::volumes;
use super::wipe::Wipes;
use crate::connections::ConnectionStatus;
use crate::device_status::{DeviceErrors, DeviceStatus, DeviceWaits};
use crate::events::Events;
use crate::status::{
    ArrayStatus, AttachStatus, GrowthStatus, ListenerStatus, LogStatus, ReactorStatus, RebuildStatus, ResyncStatus,
    ScrubStatus, Status,
};

/// Seconds for which a device may owe an answer before anybody hears of it.
const WAITS_WORTH_TELLING_S: f64 = 1.0;

/// What does not change while serving.
pub(super) struct Fixed {
    pub(super) name: String,
    pub(super) started: Instant,
    pub(super) devices: Vec<Placed>,
    pub(super) maps: Vec<Snapshot<ArrayMap>>,
    /// What was found and done at the start, by array.
    pub(super) recovered: Vec<RecoveryReport>,
    /// The modes that the configuration gives to their logs.
    pub(super) modes: Vec<Option<config::LogMode>>,
    /// Volumes that the configuration names, as array/volume.
    pub(super) configured: Vec<String>,
    pub(super) listeners: Vec<ListenerStatus>,
}

impl Fixed {
    /// Whether the configuration names a volume: then it is made at each start if it is missing.
    pub(super) fn is_configured(&self, path: &str) -> bool {
        self.configured.iter().any(|configured| configured == path)
    }
}

/// Asks the shards.
pub(super) struct Reporter {
    pub(super) fixed: Fixed,
    pub(super) shards: Shards,
    pub(super) devices: Arc<DeviceSet>,
    pub(super) stats: StatsReader,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Events,
    pub(super) confinement: Option<Confinement>,
    /// Held by who gives drives to arrays, or opens and closes them.
    pub(super) drives: Mutex<Drives>,
    pub(super) wipes: Wipes,
    /// Held by who kills connections on behalf of operators.
    pub(super) killing: Mutex<()>,
}

impl Reporter {
    /// How the appliance is now. Shards that do not answer in time are left out.
    pub(super) fn status(&self) -> Status {
        let shards = self.shards.statuses();
        let fixed = &self.fixed;
        let mut status = Status {
            name: fixed.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            uptime_seconds: fixed.started.elapsed().as_secs_f64(),
            ready: true,
            volumes: volumes::statuses(fixed, &self.shards.tables(), &jobs(&shards)),
            listeners: fixed.listeners.clone(),
            memory: super::sealing::status(),
            sandbox: super::sandbox::status(self.confinement.as_ref()),
            ..Status::default()
        };
        for (shard, stats) in (0u16..).zip(self.stats.reactors()) {
            let said = shards.iter().find(|said| said.shard == ShardId(shard));
            let all = stats.busy_ns + stats.idle_ns;
            status.reactors.push(ReactorStatus {
                reactor: shard,
                core: stats.core as u32,
                busy_ratio: if all == 0 { 0.0 } else { stats.busy_ns as f64 / all as f64 },
                turns: stats.turns,
                sleeps: stats.sleeps,
                connections: said.map_or(0, |said| said.connections.len() as u64),
                requests: said.map_or(0, |said| said.requests),
            });
        }
        status.arrays = (0..fixed.maps.len()).map(|index| self.array(index, &shards)).collect();
        status.devices = self.devices(&shards, &status.arrays);
        for said in &shards {
            let told = |one: &engine::status::ConnectionStatus| self.connection(said.shard, one);
            status.connections.extend(said.connections.iter().map(told));
            status.ended_connections.extend(said.ended.iter().map(told));
        }
        status
    }

    fn connection(&self, shard: ShardId, one: &engine::status::ConnectionStatus) -> ConnectionStatus {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let listener = self.fixed.listeners.get(usize::from(one.listener));
        ConnectionStatus {
            id: one.id,
            reactor: shard.0,
            host: one.host.clone(),
            peer: one.peer.to_string(),
            subsystem: one.subsystem.clone(),
            queue: one.queue,
            in_flight: one.in_flight,
            age_seconds: seconds(one.age_ms),
            protocol: one.protocol.to_owned(),
            local: one.local.to_string(),
            listener: listener.map_or_else(String::new, |listener| listener.name.clone()),
            controller: one.controller,
            tls: one.tls.to_owned(),
            received_bytes: one.received_bytes,
            sent_bytes: one.sent_bytes,
            idle_seconds: seconds(one.idle_ms),
            last_error: one.last_error.clone().unwrap_or_default(),
            ended_seconds: one.ended_ms.map(seconds),
        }
    }

    fn array(&self, index: usize, shards: &[ShardStatus]) -> ArrayStatus {
        let map = &self.fixed.maps[index];
        let parts: Vec<_> = shards.iter().filter_map(|said| said.arrays.get(index)).collect();
        let newest = parts.iter().max_by_key(|part| part.epoch);
        let service = newest.map_or("unknown", |part| part.service);
        let slots_of = |slots: fn(&engine::status::ArrayStatus) -> &Vec<u8>| -> Vec<u8> {
            let all: BTreeSet<u8> = parts.iter().flat_map(|part| slots(part).iter().copied()).collect();
            all.into_iter().collect()
        };
        let missing_members = newest.map_or_else(Vec::new, |part| part.missing_members.clone());
        let blocks = |count: fn(&engine::array::Usage) -> u64| {
            parts.iter().map(|part| count(&part.usage)).sum::<u64>() * BLOCK as u64
        };
        let is_rebuilding = newest.is_some_and(|part| !part.rebuilding_members.is_empty());
        let missing_copies = newest.map_or_else(Vec::new, |part| part.missing_copies.clone());
        let copies = newest.map_or(&map.copies, |part| &part.copies).iter();
        let exposed = newest.is_some_and(|part| part.exposed);
        let state = match service {
            "read-write" if exposed && missing_members.is_empty() && !is_rebuilding => "exposed",
            "read-write" if exposed => "degraded, exposed",
            "read-write" if missing_members.is_empty() && missing_copies.is_empty() && !is_rebuilding => {
                if parts.iter().any(|part| part.usage.unsynced_zones > 0) { "resyncing" } else { "optimal" }
            }
            "read-write" => "degraded",
            other => other,
        };
        ArrayStatus {
            name: map.name.clone(),
            uuid: map.uuid.to_string(),
            level: map.arrangement.geometry().level().to_string(),
            state: state.to_owned(),
            epoch: newest.map_or(map.epoch, |part| part.epoch),
            chunk_bytes: u64::from(map.arrangement.chunk_blocks()) * BLOCK as u64,
            capacity_bytes: newest.map_or(map.space(), |part| &part.space).blocks() * BLOCK as u64,
            missing_members,
            growth: parts.iter().find_map(|part| part.growth).map(growth_status),
            rebuild: parts.iter().find_map(|part| part.rebuild).map(|rebuild| RebuildStatus {
                member: rebuild.slot,
                done_bytes: rebuild.done_bytes,
                bytes: rebuild.bytes,
                bytes_per_second: rebuild.bytes_a_second,
                seconds_left: rebuild.seconds_left,
                paused: rebuild.paused,
                successor: parts.iter().find_map(|part| part.successor).filter(|(slot, _)| slot.0 == rebuild.slot).map(
                    |(_, device)| {
                        let placed = self.fixed.devices.iter().find(|placed| placed.id == device);
                        placed.map_or_else(String::new, |placed| placed.described.name.clone())
                    },
                ),
            }),
            scrub: parts.iter().find_map(|part| part.scrub).map(scrub_status),
            resync: parts.iter().find_map(|part| part.resync).map(|resync| ResyncStatus {
                done_bytes: resync.done_bytes,
                bytes: resync.bytes,
                bytes_per_second: resync.bytes_a_second,
                seconds_left: resync.seconds_left,
            }),
            slow_members: slots_of(|part| &part.slow_members),
            late_members: slots_of(|part| &part.late_members),
            blocked_stripes: parts.iter().map(|part| part.usage.blocked_stripes).sum(),
            blocked_bytes: blocks(|usage| usage.blocked_blocks),
            log: newest.map_or(!map.is_bare(), |part| part.has_log() || part.attach.is_some()).then(|| LogStatus {
                mode: newest.map_or(map.mode, |part| part.mode).name().to_owned(),
                copies: copies.flatten().count() as u8 + missing_copies.len() as u8,
                missing_copies,
                attach: parts.iter().find_map(|part| part.attach).map(|attach| self.attach(&attach)),
                lanes: map.log_layout.lanes(),
                used_bytes: blocks(|usage| usage.log_used_blocks),
                capacity_bytes: blocks(|usage| usage.log_blocks),
                dirty_bytes: blocks(|usage| usage.dirty_blocks),
                logged_bytes: blocks(|usage| usage.logged_blocks),
            }),
        }
    }

    fn attach(&self, attach: &engine::status::AttachStatus) -> AttachStatus {
        let placed = self.fixed.devices.iter().find(|placed| placed.id == attach.device);
        AttachStatus {
            copy: attach.copy,
            drive: placed.map_or_else(String::new, |placed| placed.described.name.clone()),
            erased_bytes: attach.erased_blocks * BLOCK as u64,
            bytes: attach.blocks * BLOCK as u64,
            reactors_behind: attach.shards_behind,
        }
    }

    fn devices(&self, shards: &[ShardStatus], arrays: &[ArrayStatus]) -> Vec<DeviceStatus> {
        let uses = uses(&self.fixed, shards);
        let device = |placed: &Placed| {
            let Placed { described, id, array, role, .. } = placed;
            let (open, used) = (self.devices.get(*id), uses.get(id));
            let state = match (used, array) {
                _ if open.is_none() => "missing",
                (None, _) if self.wipes.is_running(*id) => "wiping",
                (Some(Use { kind: UseKind::Member { rebuilding: true, .. }, .. }), _) => "rebuilding",
                (Some(Use { kind: UseKind::Copy { joining: true, .. } | UseKind::Successor { .. }, .. }), _) => {
                    "joining"
                }
                (Some(Use { kind: UseKind::Spare, .. }), _) => "spare",
                (Some(_), _) => "active",
                (None, Some(_)) => "excluded",
                (None, None) => "unused",
            };
            let role = used.map_or_else(|| role.clone(), |used| used.role(&arrays[used.array].name));
            let sum = |counter: fn(&DeviceMetrics) -> &Counter| {
                self.metrics.shards().iter().map(|shard| counter(&shard.devices[id.index()]).get()).sum()
            };
            let is_among = |slots: fn(&ArrayStatus) -> &Vec<u8>| {
                used.is_some_and(|used| match used.kind {
                    UseKind::Member { slot, .. } => slots(&arrays[used.array]).contains(&slot),
                    UseKind::Copy { .. } | UseKind::Spare | UseKind::Successor { .. } => false,
                })
            };
            let (waits, hangs) = owed(*id, shards);
            DeviceStatus {
                errors: DeviceErrors {
                    retries: sum(|device| &device.retries),
                    unreadable_blocks: sum(|device| &device.unreadable_blocks),
                    wrong_blocks: sum(|device| &device.wrong_blocks),
                    corrected_blocks: sum(|device| &device.corrected_blocks),
                    uncorrected_blocks: sum(|device| &device.uncorrected_blocks),
                },
                slow: is_among(|array| &array.slow_members),
                late: is_among(|array| &array.late_members),
                hangs,
                waits,
                name: described.name.clone(),
                kind: described.kind.to_owned(),
                path: described.path.clone(),
                bytes: open.map_or(described.bytes, |open| open.blocks() * BLOCK as u64),
                role,
                state: state.to_owned(),
            }
        };
        self.fixed.devices.iter().map(device).collect()
    }
}

/// What a device owes all shards together, if any of it is worth telling; and whether it hangs.
fn owed(id: DeviceId, shards: &[ShardStatus]) -> (Option<DeviceWaits>, bool) {
    let (mut waits, mut hangs) = (DeviceWaits::default(), false);
    for owing in shards.iter().flat_map(|said| &said.owing).filter(|owing| owing.device == id) {
        waits.requests += u64::from(owing.requests);
        waits.given_up += u64::from(owing.given_up);
        waits.oldest_seconds = waits.oldest_seconds.max(owing.oldest_ms as f64 / 1000.0);
        hangs |= owing.overdue || owing.given_up > 0;
    }
    ((waits.oldest_seconds >= WAITS_WORTH_TELLING_S).then_some(waits), hangs)
}

/// Long work on volumes, by whichever shard does it.
fn jobs(shards: &[ShardStatus]) -> Vec<JobStatus> {
    shards.iter().flat_map(|said| said.jobs.iter().copied()).collect()
}

/// How far an array is that gets a further member.
fn growth_status(growth: engine::status::GrowthStatus) -> GrowthStatus {
    let state = match growth {
        engine::status::GrowthStatus { paused: true, .. } => "paused",
        engine::status::GrowthStatus { waits: true, .. } => "waiting",
        _ => "growing",
    };
    GrowthStatus {
        member: growth.slot,
        state: state.to_owned(),
        done_bytes: growth.done_bytes,
        bytes: growth.bytes,
        bytes_per_second: growth.bytes_a_second,
        seconds_left: growth.seconds_left,
    }
}

fn scrub_status(scrub: engine::status::ScrubStatus) -> ScrubStatus {
    ScrubStatus {
        state: scrub.state.to_owned(),
        repair: scrub.repair.to_owned(),
        began: scrub.began,
        done_bytes: scrub.done_bytes,
        bytes: scrub.bytes,
        bytes_per_second: scrub.bytes_a_second,
        seconds_left: scrub.seconds_left,
        counts: scrub.counts,
    }
}
