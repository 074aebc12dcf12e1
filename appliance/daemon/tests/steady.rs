//! Nothing is allocated on a reactor's thread once it is warm, in the whole of the data path: a host reads and writes over
//! a socket, the log and the members are in memory, stripes are destaged all the while, and a counting allocator watches.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::ids::{ArrayId, DeviceId, ShardId, VolumeId};
use base::metrics::{Metrics, Names, VolumeName};
use base::sector::LogicalBlock;
use base::snapshot::Snapshot;
use base::time::Span;
use base::uuid::Uuid;
use engine::array::DestageSettings;
use engine::boot::{AssembleOptions, CreateArray, CreateVolume, assemble, create_array};
use engine::coordinator::CoordinatorSetup;
use engine::drives::DriveSettings;
use engine::front::{FrontLimits, FrontSetup};
use engine::limits::MESH_CAPACITY;
use engine::message::Message;
use engine::{Shard, ShardSetup};
use loadgen::host::{Host, HostIdentity, HostOptions};
use loadgen::request::Wait;
use loadgen::workload::{Limit, Pattern, WorkloadOptions, first_namespace, run};
use nvme::identify::NamespaceIdentity;
use nvmf::subsystem::{Exports, Hosts, Namespace, Subsystem};
use ports::{Program, Turn};
use runtime::{
    DeviceKind, DeviceSet, DeviceSpec, Listener, OpenDevice, Pool, ReactorPorts, Runtime, RuntimeOptions, SyncHandle,
    choose_cores,
};

/// Allocations of watched threads.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

impl Counting {
    fn count() {
        if WATCHED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A shard whose allocations are counted while the flag is set.
struct Watched {
    shard: Shard,
    watch: Arc<AtomicBool>,
}

impl Program<ReactorPorts<Message>> for Watched {
    fn turn(&mut self, ports: &mut ReactorPorts<Message>) -> Turn {
        WATCHED.set(self.watch.load(Ordering::Acquire));
        let turn = self.shard.turn(ports);
        WATCHED.set(false);
        turn
    }
}

const NQN: &str = "nqn.2026-01.io.brindle:steady";
const BLOCKS: u64 = 4096;

/// An appliance on memory, with one reactor. The first `missing` members are away.
fn appliance(
    level: raid::Level,
    members: u16,
    missing: usize,
    watch: &Arc<AtomicBool>,
) -> (Runtime<Message, Watched>, SocketAddr) {
    let device_names = || (0..members).map(|at| format!("d{at}")).chain(["l0", "l1"].map(String::from));
    let device = |name: &str| {
        let kind = DeviceKind::Ram(8192);
        OpenDevice::open(&DeviceSpec { name: name.into(), kind, emulate_volatile_cache: false }).expect("memory")
    };
    let set = DeviceSet::new(device_names().map(|name| device(&name)).collect());
    let mut handles: Vec<_> = (0..members + 2).map(|id| Some(SyncHandle::new(&set, DeviceId(id)))).collect();
    let mut random = 1;
    let mut entropy = || {
        random += 1;
        random
    };
    let spec = CreateArray {
        name: "a0".into(),
        level,
        members: (0..members).map(DeviceId).collect(),
        copies: vec![DeviceId(members), DeviceId(members + 1)],
        chunk_blocks: 16,
        lanes: 4,
        mode: journal::LogMode::WriteBack,
        checksums: false,
        known_zero: true,
        volumes: vec![CreateVolume { name: "v0".into(), blocks: BLOCKS, logical: LogicalBlock::Block }],
    };
    create_array(&mut handles, &spec, &mut entropy).expect("an array");
    let options = AssembleOptions {
        log_patience: Span::from_secs(10),
        id: ArrayId(0),
        name: "a0".into(),
        shards: 1,
        force: false,
        mode: None,
        on_log_loss: engine::map::OnLogLoss::default(),
        volumes: Vec::new(),
        residency: engine::array::Residency::Memory,
        index_blocks: 0,
        cache_blocks: 2048,
        checksum_blocks: 0,
        settings: DestageSettings { age: Span::from_millis(50), ..DestageSettings::default() },
        drives: DriveSettings::default(),
        rebuild: engine::coordinator::RoundSettings::default(),
        scrub: engine::coordinator::ScrubSettings::default(),
    };
    handles[..missing].fill_with(|| None);
    let mut booted = assemble(&mut handles, &options, &mut entropy).expect("an array");
    let names = Names {
        version: "1".into(),
        volumes: vec![VolumeName { array: "a0".into(), volume: "v0".into() }],
        devices: device_names().collect(),
        arrays: vec!["a0".into()],
    };
    let metrics = Arc::new(Metrics::new(names, 1));
    let record = &booted.metadata().volumes[0];
    let namespace = Namespace {
        nsid: 1,
        volume: VolumeId(0),
        blocks: BLOCKS,
        logical: LogicalBlock::Block,
        identity: NamespaceIdentity { eui64: record.eui64.to_be_bytes(), nguid: record.nguid, uuid: record.uuid },
        chunk_blocks: 16,
        atomic_blocks: 16,
        power_fail_blocks: 16,
        stripe_blocks: 16 * u32::from(booted.map.arrangement.geometry().data_slots()),
    };
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback");
    let address = listener.address();
    let subsystem = Subsystem {
        nqn: NQN.into(),
        serial: "1".into(),
        model: "Brindle".into(),
        hosts: Hosts::Any,
        listeners: vec![0],
        namespaces: vec![namespace],
    };
    let listeners = vec![nvmf::subsystem::Listener { address, port_id: 1 }];
    let exports = Snapshot::new(Exports::new(1, vec![subsystem], listeners).expect("exports"));
    let pool = Pool::new(16 * 1024, false).expect("64 MiB");
    let volumes = Snapshot::new(booted.volumes());
    let shard = Shard::new(ShardSetup {
        shard: ShardId(0),
        shards: 1,
        volumes: volumes.clone(),
        arrays: booted.parts.drain(..).collect(),
        coordinator: Some(CoordinatorSetup {
            shards: 1,
            arrays: vec![booted.coordinated],
            volumes,
            exports: Some(exports.clone()),
        }),
        front: Some(FrontSetup {
            shard: ShardId(0),
            shards: 1,
            exports,
            limits: FrontLimits::of_pool(pool.blocks()),
            metrics: Arc::clone(&metrics),
            firmware: "1".into(),
            health: nvme::log_page::SmartLog::default(),
            silence: Vec::new(),
        }),
        metrics,
    });
    let runtime_options =
        RuntimeOptions { mesh_capacity: MESH_CAPACITY, ..RuntimeOptions::on_cores(choose_cores(1).expect("a core")) };
    let program = Watched { shard, watch: Arc::clone(watch) };
    let mut runtime = Runtime::start(&runtime_options, &pool, &set, vec![program]).expect("a reactor");
    runtime.accept(vec![listener]).expect("an acceptor");
    (runtime, address)
}

#[test]
fn nothing_is_allocated_in_the_steady_data_path() {
    for (level, members, missing) in
        [(raid::Level::Raid5, 3, 0), (raid::Level::Raid6, 5, 2), (raid::Level::Raid10, 4, 0)]
    {
        let watch = Arc::new(AtomicBool::new(false));
        let (runtime, address) = appliance(level, members, missing, &watch);
        check_steady(&watch, address);
        runtime.stop();
    }
}

fn check_steady(watch: &AtomicBool, address: SocketAddr) {
    let identity = HostIdentity::from_id(Uuid([7; 16]));
    let mut host = Host::connect(&HostOptions::new(address, NQN, identity)).expect("a connection");
    let namespace = first_namespace(&mut host).expect("a namespace");
    let mut queue = host.open_queue(1, 32, 128 * 1024, &namespace).expect("a queue");
    let mut load = |pattern, request_bytes, requests, seed| {
        let options = WorkloadOptions {
            pattern,
            request_bytes,
            depth: 32,
            limit: Limit::Requests(requests),
            warm_up: Duration::ZERO,
            region_blocks: None,
            interval: Duration::ZERO,
            seed,
            wait: Wait::Spin,
        };
        run(&mut host, &mut queue, &namespace, &options).expect("a load").operations()
    };
    let mut all = |requests, seed| {
        load(Pattern::RandomMix { read_percent: 50 }, 4096, requests, seed)
            + load(Pattern::SequentialWrite, 128 * 1024, requests / 20, seed)
            + load(Pattern::RandomMix { read_percent: 50 }, 64 * 1024, requests / 20, seed)
    };
    // Long enough for every lane's ring to have wrapped and every queue to have been as long as it gets.
    all(40_000, 1);
    // What an earlier appliance took for its end, perhaps in a turn that had begun before, does not count.
    let before = ALLOCATIONS.load(Ordering::Acquire);
    watch.store(true, Ordering::Release);
    let operations = all(20_000, 2);
    watch.store(false, Ordering::Release);
    assert!(operations >= 20_000, "{operations} requests were carried out");
    assert_eq!(ALLOCATIONS.load(Ordering::Acquire), before, "allocations in {operations} requests");
}
