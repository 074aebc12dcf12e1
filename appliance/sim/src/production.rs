//! Production's shards as the subject of a run: the engine as the `brindle` binary starts it, with one array, one volume
//! that fills it, and no connections.

use std::sync::Arc;

use base::ids::{ArrayId, DeviceId, ShardId, Slot};
use base::metrics::{Metrics, Names, VolumeName};
use base::snapshot::Snapshot;
use base::time::Time;
use base::uuid::Uuid;
use engine::array::DestageSettings;
use engine::boot::{AssembleOptions, CreateArray, CreateVolume, assemble, create_array, probe};
use engine::command::{Answer, Command, Event, Verb};
use engine::coordinator::{CoordinatorSetup, Spare};
use engine::drives::DriveSettings;
use engine::fence::Association;
use engine::front::Cause;
use engine::io::{IoDone, IoRequest};
use engine::limits::MESH_CAPACITY;
use engine::map::VolumeTables;
use engine::{Message, Shard, ShardSetup};
use journal::LogMode;
use ports::{Program, Turn};
use raid::{Superblock, superblock_block};

use crate::ailing::blocks_were_mended;
use crate::audit::{copies_in_force, log_is_clean, members_in_force, no_zone_is_dirty, stripes_match};
use crate::boot_device::BootDevice;
use crate::exposed::members_hold_acknowledged;
use crate::failure::Failure;
use crate::log_keeper::Keeping;
use crate::operator::{Health, Order};
use crate::oracle::Oracle;
use crate::ports::SimPorts;
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::{Subject, draw_uuid};

pub(crate) const ARRAY: &str = "array";
const VOLUME: &str = "volume";

/// Turns between two looks at the whole state of a shard, which cost more than a turn.
const TURNS_A_CHECK: u32 = 16;

/// A shard of production.
pub struct Production {
    shard: Shard,
    turns: u32,
}

fn mode(scenario: &Scenario) -> LogMode {
    if scenario.write_through { LogMode::WriteThrough } else { LogMode::WriteBack }
}

fn settings(scenario: &Scenario) -> DestageSettings {
    DestageSettings {
        age: scenario.destage_age,
        full_stripe_delay: scenario.full_stripe_delay,
        high_watermark_percent: scenario.high_watermark_percent,
        memory_watermark_percent: scenario.memory_watermark_percent,
        resident_percent: scenario.residency.1,
        ..DestageSettings::default()
    }
}

impl Subject for Production {
    type Message = Message;
    const MESH_CAPACITY: usize = MESH_CAPACITY;

    fn create(scenario: &Scenario, devices: &mut [Option<BootDevice>], random: &mut Random) -> Result<(), String> {
        let spec = CreateArray {
            name: ARRAY.into(),
            level: scenario.level,
            members: scenario.member_devices().collect(),
            copies: scenario.log_devices().collect(),
            chunk_blocks: scenario.chunk_blocks,
            lanes: scenario.lanes,
            mode: mode(scenario),
            checksums: scenario.checksums,
            known_zero: scenario.members_are_zero,
            volumes: vec![CreateVolume {
                name: VOLUME.into(),
                blocks: scenario.volume_blocks(),
                logical: scenario.workload.logical,
            }],
        };
        create_array(devices, &spec, &mut || random.bits()).map(|_| ()).map_err(|error| error.to_string())
    }

    fn boot(scenario: &Scenario, devices: &mut [Option<BootDevice>], random: &mut Random) -> Result<Vec<Self>, String> {
        let options = AssembleOptions {
            log_patience: scenario.log_patience,
            id: ArrayId(0),
            name: ARRAY.into(),
            shards: scenario.shards,
            force: false,
            // Where it is changed meanwhile, the log knows.
            mode: (!scenario.log_keeping.is_some_and(Keeping::is_by_chance)).then_some(mode(scenario)),
            on_log_loss: scenario.on_log_loss,
            volumes: Vec::new(),
            residency: scenario.residency.0,
            index_blocks: 0,
            cache_blocks: 0,
            checksum_blocks: 0,
            settings: settings(scenario),
            drives: DriveSettings {
                max_read_errors: scenario.max_read_errors,
                read_timeout: scenario.drive_timeouts.0,
                timeout: scenario.drive_timeouts.1,
                ..DriveSettings::default()
            },
            rebuild: scenario.rebuild,
            scrub: scenario.scrub,
        };
        let mut booted = assemble(devices, &options, &mut || random.bits()).map_err(|error| error.to_string())?;
        for device in scenario.spare_devices() {
            // One that fails is none.
            if devices[device.index()].is_some()
                && let Ok(found) = probe(devices, device)
            {
                let blocks = scenario.member_blocks();
                booted.keep_spare(device, blocks, &found, draw_uuid(random));
            }
        }
        let volumes = Snapshot::new(booted.volumes());
        let names = Names {
            version: String::new(),
            volumes: vec![VolumeName { array: ARRAY.into(), volume: VOLUME.into() }],
            devices: (0..devices.len()).map(|index| index.to_string()).collect(),
            arrays: vec![ARRAY.into()],
        };
        let metrics = Arc::new(Metrics::new(names, scenario.shards));
        let mut coordinator = Some(CoordinatorSetup {
            shards: scenario.shards,
            arrays: vec![booted.coordinated],
            volumes: volumes.clone(),
            exports: None,
        });
        let shards = booted.parts.into_iter().zip(0..).map(|(part, index)| {
            let setup = ShardSetup {
                shard: ShardId(index),
                shards: scenario.shards,
                volumes: volumes.clone(),
                arrays: vec![part],
                coordinator: coordinator.take(),
                front: None,
                metrics: Arc::clone(&metrics),
            };
            Self { shard: Shard::new(setup), turns: 0 }
        });
        let shards = shards.collect();
        for (gauges, map) in
            metrics.shards().iter().flat_map(|shard| &shard.arrays).zip(core::iter::repeat(&booted.map))
        {
            assert_eq!(gauges.exposed.get(), u64::from(map.is_exposed()), "whoever looks at once sees how it is");
        }
        Ok(shards)
    }

    fn begin(&mut self, ports: &mut SimPorts<Message>, request: IoRequest) -> Result<(), IoRequest> {
        self.shard.begin(ports, request)
    }

    fn abort(&mut self, ports: &mut SimPorts<Message>, token: u64) {
        self.shard.abort(ports, token);
    }

    fn turn(&mut self, ports: &mut SimPorts<Message>) -> Turn {
        let turn = self.shard.turn(ports);
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(TURNS_A_CHECK) && !turn.ended {
            self.shard.self_check();
        }
        turn
    }

    fn done(&mut self) -> Option<IoDone> {
        self.shard.done()
    }

    fn tables(shards: &[Self]) -> Option<Arc<VolumeTables>> {
        shards[0].shard.tables().cloned()
    }

    fn command(command: Command) -> Option<Message> {
        Some(Message::Command(Box::new(command)))
    }

    fn answer(message: Message) -> Option<Answer> {
        match message {
            Message::Answer(answer) => Some(*answer),
            _ => None,
        }
    }

    fn stop(_: &mut [Self], ports: &mut SimPorts<Message>) {
        let posted = ports.control_post(ShardId(0), Message::Stop);
        assert!(posted.is_ok(), "the control side has said nothing before");
    }

    fn health(shards: &[Self]) -> Option<Health> {
        let status = shards[0].shard.status(Time(0));
        let array = &status.arrays[0];
        Some(Health {
            members: array.members.clone(),
            rebuilding: array.rebuilding_members.iter().copied().map(Slot).collect(),
            spares: array.spares.clone(),
            joining: array.joining.clone(),
            successor: array.successor,
            writable: array.service == "read-write",
            copies: array.copies.clone(),
            newcomer: array.attach.map(|attach| attach.device),
            exposed: array.exposed,
            write_through: array.mode == engine::map::LogMode::WriteThrough,
            resyncing: shards.iter().any(|shard| shard.shard.status(Time(0)).arrays[0].usage.unsynced_zones > 0),
            dirty: shards.iter().any(|shard| shard.shard.status(Time(0)).arrays[0].usage.dirty_zones > 0),
            scrub: array.scrub,
            growing: array.growth.is_some(),
        })
    }

    fn ask(ports: &mut SimPorts<Message>, scenario: &Scenario, ticket: u64, order: Order, uuid: Uuid) {
        let array = ArrayId(0);
        let spare = |device| Spare { device, blocks: scenario.member_blocks(), uuid };
        let verb = match order {
            Order::Fail(slot) => Verb::FailMember { array, slot },
            Order::Add(device) => Verb::AddSpare { array, spare: spare(device) },
            Order::Replace(slot, device) => Verb::Replace { array, slot, spare: spare(device) },
            Order::Return(slot, device) => {
                let place = |update| ports.peek(device, superblock_block(update));
                match Superblock::newest(&place(0), &place(1)) {
                    Ok(said) => Verb::Return { array, spare: spare(device), said: Box::new(said) },
                    Err(_) => Verb::Replace { array, slot, spare: spare(device) },
                }
            }
            Order::Succeed(slot, device) => Verb::Succeed { array, slot, spare: spare(device) },
            Order::Grow(device) => Verb::Grow { array, spare: spare(device) },
            Order::Cancel => Verb::CancelSuccession { array },
            Order::Scrub(verb) => Verb::Scrub { array, verb },
            Order::Pause(paused) => Verb::PauseRebuild { array, paused },
            Order::AttachCopy { device, instead } => {
                let device = Spare { device, blocks: scenario.log_blocks(), uuid };
                Verb::AttachCopy { array, device, instead }
            }
            Order::GrowLog(devices) => {
                let blocks = scenario.log_blocks() + scenario.larger_log_spares;
                // No two of them are the same.
                let uuid = |at: u8| Uuid(core::array::from_fn(|byte| uuid.0[byte] ^ if byte == 0 { at } else { 0 }));
                let devices = (1u8..).zip(devices.into_iter().flatten());
                Verb::RenewLog {
                    array,
                    devices: devices.map(|(at, device)| Spare { device, blocks, uuid: uuid(at) }).collect(),
                }
            }
            Order::DetachCopy(copy) => Verb::DetachCopy { array, copy },
            Order::Mode { write_through: true } => Verb::SetMode { array, mode: LogMode::WriteThrough.into() },
            Order::Mode { write_through: false } => Verb::SetMode { array, mode: LogMode::WriteBack.into() },
        };
        let posted = ports.control_post(ShardId(0), Message::Command(Box::new(Command { ticket, verb })));
        assert!(posted.is_ok(), "one command at a time finds room");
    }

    fn tells_of_rebuild(message: &Message) -> bool {
        matches!(message, Message::Event(event) if matches!(**event, Event::Rebuilt { .. } | Event::Succeeded { .. } | Event::Grown { .. }))
    }

    fn raise(ports: &mut SimPorts<Message>, shards: u16, association: Association) {
        for shard in (0..shards).map(ShardId) {
            let posted = ports.control_post(shard, Message::Raise { association, cause: Cause::Operator });
            assert!(posted.is_ok(), "the control side has little to say");
        }
    }

    fn raised(message: &Message) -> Option<Association> {
        match message {
            Message::Raised(association) => Some(*association),
            _ => None,
        }
    }

    fn audit(scenario: &Scenario, rack: &Rack) -> Result<(), Failure> {
        stripes_match(scenario, rack)?;
        no_zone_is_dirty(scenario, rack)?;
        log_is_clean(scenario, rack)
    }

    fn audit_read(scenario: &Scenario, rack: &Rack) -> Result<(), Failure> {
        blocks_were_mended(scenario, rack)
    }

    fn whole_members(scenario: &Scenario, rack: &Rack) -> Result<Vec<DeviceId>, Failure> {
        let members = members_in_force(scenario, rack)?;
        let is_whole = members.first().is_some_and(|(_, said)| members.len() == said.members.len());
        Ok(members.into_iter().map(|(device, _)| device).filter(|_| is_whole).collect())
    }

    fn log_copies(scenario: &Scenario, rack: &Rack) -> Result<Vec<DeviceId>, Failure> {
        copies_in_force(scenario, rack)
    }

    fn audit_without_log(scenario: &Scenario, rack: &Rack, told: &Oracle) -> Result<(), Failure> {
        members_hold_acknowledged(scenario, rack, told)
    }
}

/// How full the array is, all shards together.
#[cfg(test)]
pub(crate) fn usage(shards: &[Production]) -> engine::array::Usage {
    let mut all = engine::array::Usage::default();
    for shard in shards {
        let usage = shard.shard.status(Time(0)).arrays[0].usage;
        all.dirty_blocks += usage.dirty_blocks;
        all.logged_blocks += usage.logged_blocks;
        all.log_blocks += usage.log_blocks;
        all.blocked_stripes += usage.blocked_stripes;
        all.blocked_blocks += usage.blocked_blocks;
        all.destages += usage.destages;
        all.waiting_fragments += usage.waiting_fragments;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::{Kept, kept};
    use crate::sweep::{SweepOptions, cases, sweep_case};
    use crate::world::mangle::mangle_seed;
    use crate::world::scrubbing::scrub_seed;
    use crate::world::{run_seed, run_seed_at};

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
        let traces = [3, 4].map(|seed| {
            let first = run_seed::<Production>(seed, false).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            assert_eq!(run_seed::<Production>(seed, false).expect("it passed just now"), first);
            first.trace
        });
        assert_ne!(traces[0], traces[1]);
    }

    #[test]
    fn fixed_seeds_pass() {
        let (mut cuts, mut probes, mut aborted) = (0, 0, 0);
        for seed in 100..120 {
            let report = run_seed::<Production>(seed, false).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            cuts += report.cuts;
            probes += report.probes;
            aborted += report.aborted;
        }
        assert!(cuts > 15 && probes > 10, "{cuts} power cuts, {probes} losses tried");
        assert!(aborted > 15, "{aborted} requests aborted");
    }

    #[test]
    fn seeds_that_once_failed_pass() {
        for run in kept() {
            let failed = match run {
                Kept::Run(seed, level) => run_seed_at::<Production>(seed, level, false).err(),
                Kept::Mangle(seed) => mangle_seed::<Production>(seed, false).err(),
                Kept::Scrub(seed) => scrub_seed::<Production>(seed, false).err(),
            };
            if let Some(failure) = failed {
                panic!("{run:?}: {failure}");
            }
        }
    }

    #[test]
    fn a_short_script_cut_now_and_then_in_every_case_passes() {
        let options = SweepOptions { requests: 6, stride: 19, second_every: 3 };
        for case in 0..cases().len() {
            let swept = sweep_case::<Production>(case, options, |_| {});
            let runs = swept.unwrap_or_else(|(cut, failure)| panic!("{cut:?}: {failure}"));
            assert!(runs > 2, "case {case}: {runs} runs");
        }
    }
}
