//! `brindle serve`: from a configuration to an appliance that serves hosts, and back to one that is stopped cleanly.
//!
//! Everything that may be refused is looked at before anything is written: the configuration, the addresses, the sockets,
//! the devices. Then arrays are assembled and recovered, reactors start, and only then are connections accepted.

mod arrays;
mod devices;
mod exports;
mod report;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base::BLOCK;
use base::ids::{DeviceId, ShardId};
use base::metrics::{Metrics, Names, ReactorTimes, VolumeName};
use base::time::Span;
use config::schema::{Config, Hugepages, Polling as ConfiguredPolling};
use engine::boot::{BootError, BootedArray};
use engine::coordinator::{Coordinator, CoordinatorSetup};
use engine::front::{FrontLimits, FrontSetup};
use engine::limits::MESH_CAPACITY;
use engine::message::Message;
use engine::{Shard, ShardSetup};
use nvmf::subsystem::Exports;
use ports::DeviceError;
use runtime::{
    DeviceOpenError, ListenError, Listener, Polling, Pool, PoolError, Runtime, RuntimeError, RuntimeOptions,
    StatsReader,
};
use thiserror::Error;

use crate::check::{self, LoadError};
use crate::cli::ServeOptions;
use crate::control::{ControlError, ControlPlane, ControlSetup};
use crate::logging;
use crate::status::{ListenerStatus, Status, VolumeStatus};
use devices::{Devices, describe};
use exports::{Volumes, exports};
use report::{Fixed, Reporter};

/// How long a clean stop may take before the log is left as it is.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Why the appliance does not serve, or did not stop cleanly. Each says what, where, why, and what to do.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// An address cannot be listened on.
    #[error("listener {name}: {error}")]
    Listen {
        /// Which listener.
        name: String,
        /// Why.
        error: ListenError,
    },
    /// A device cannot be opened.
    #[error(transparent)]
    Open(#[from] DeviceOpenError),
    /// A device does not work.
    #[error("device {name} does not do what it should ({error:?}). Replace it, or leave it out")]
    Device {
        /// Which.
        name: String,
        /// How it fails.
        error: DeviceError,
    },
    /// A folder cannot be made.
    #[error("cannot make the folder {path} for a device file: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A device of a new array is not there.
    #[error("array {array} does not exist yet and cannot be made: its device {device} is missing. Check the path")]
    MissingToCreate {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
    },
    /// Block devices are not written to without a word.
    #[error(
        "array {array} does not exist yet, and {device} is a block device: making the array overwrites it. Start with --create \
         if that is meant"
    )]
    NotAllowedToCreate {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
    },
    /// A device bears something.
    #[error(
        "array {array} does not exist yet, and its device {device} bears {what}. Nothing was written. Take another device, or \
         start with --force to overwrite it"
    )]
    Bears {
        /// Which array.
        array: String,
        /// Which device.
        device: String,
        /// What.
        what: String,
    },
    /// A parity array without a log.
    #[error(
        "array {array} has no log: a crash could leave parity that does not match. Give it `log: {{devices: [...]}}`"
    )]
    NoLog {
        /// Which.
        array: String,
    },
    /// A namespace names a volume that is not there.
    #[error("volume {volume} does not exist")]
    NoVolume {
        /// Which.
        volume: String,
    },
    /// The subsystems contradict each other.
    #[error("{0}")]
    Export(String),
    /// The devices do not make the array.
    #[error("{0}")]
    Refused(String),
    /// Start-up failed otherwise.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Not enough memory is configured.
    #[error("reactors.memory is too small: {have} MiB, and this configuration needs at least {need} MiB")]
    Memory {
        /// As configured.
        have: u64,
        /// As needed.
        need: u64,
    },
    /// The pool cannot be made.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Huge pages are required.
    #[error("hugepages: require: {0}")]
    HugePages(String),
    /// Reactors do not start.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The control side does not start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The stop was not clean.
    #[error("{0}. The log is valid: the next start recovers from it, and nothing that was acknowledged is lost")]
    NotClean(String),
}

/// Random bits from the system.
fn entropy() -> u64 {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Identities must not be guessed from a clock instead.
            Err(error) => panic!("the system gives no random bits: {error}"),
        }
    }
    u64::from_le_bytes(bytes)
}

/// Serves until asked to stop.
pub fn run(options: &ServeOptions) -> Result<(), ServeError> {
    let config = check::load(&options.file)?;
    logging::start(options.log_format);
    let started = Instant::now();
    let listeners = bind(&config)?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
    let cores = cores(&config)?;
    let shards = cores.len() as u16;

    let mut devices = Devices::open(&config)?;
    for note in &devices.notes {
        tracing::warn!("{note}");
    }
    let names = names(&config, &devices);
    let metrics = Arc::new(Metrics::new(names, shards));
    let late = Arc::new(Late::default());
    let socket = options.control.clone().or_else(|| config.control.as_ref().map(|control| control.socket.clone()));
    if let Some(folder) =
        socket.as_ref().and_then(|socket| socket.parent()).filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(|source| ServeError::Folder { path: folder.to_owned(), source })?;
    }
    let plane = ControlPlane::start(control_setup(&config, &metrics, &late, socket.clone()))?;

    let budget = Budget::of(&config, shards)?;
    let mut booted = arrays::boot(&config, &devices, options, shards, budget.cache_blocks)?;
    devices.keep_files();
    let volumes = Volumes::of(&config, &booted)?;
    let exports = Arc::new(exports(&config, &booted, &volumes, &addresses)?);
    let pool = pool(&config, &budget, &booted)?;
    let runtime_options = RuntimeOptions {
        polling: match config.reactors.polling {
            ConfiguredPolling::Busy => Polling::Busy,
            ConfiguredPolling::Adaptive => Polling::Adaptive { spin: config.reactors.spin.0 },
        },
        mesh_capacity: MESH_CAPACITY,
        ..RuntimeOptions::on_cores(cores)
    };
    let fixed = fixed(&config, started, &devices, &booted, &volumes, &addresses);
    let programs = shard_programs(&mut booted, &volumes, &exports, &metrics, &budget, shards);
    let mut runtime = Runtime::start(&runtime_options, &pool, &devices.set, programs)?;
    for note in runtime.notes() {
        tracing::warn!("{note}");
    }
    let stats = runtime.stats();
    let control = runtime.take_control().expect("the control side is taken once");
    let reporter = Reporter { fixed, control: Mutex::new(control), stats: stats.clone(), shards };
    if late.0.set(Running { reporter, stats }).is_err() {
        unreachable!("it is set once");
    }
    runtime.accept(listeners)?;
    late.1.ready.store(true, Ordering::Release);
    greet(&config, &addresses, plane.metrics_address(), socket.as_deref());

    let result = wait(&mut runtime, &late);
    let clean = match result {
        Ok(()) => runtime.join().iter().all(Shard::is_clean),
        Err(error) => {
            runtime.stop();
            return Err(error);
        }
    };
    drop(plane);
    if !clean {
        return Err(ServeError::NotClean("an array could not be written to its members before the stop".to_owned()));
    }
    tracing::info!("stopped cleanly: everything is on the members, the log is empty");
    Ok(())
}

/// What exists only once reactors run, and what signals set.
#[derive(Default)]
struct Late(OnceLock<Running>, Flags);

#[derive(Default)]
struct Flags {
    ready: AtomicBool,
    /// How often a stop was asked for.
    stops: AtomicUsize,
}

struct Running {
    reporter: Reporter,
    stats: StatsReader,
}

fn control_setup(config: &Config, metrics: &Arc<Metrics>, late: &Arc<Late>, socket: Option<PathBuf>) -> ControlSetup {
    let (times, status, ready, stop) = (Arc::clone(late), Arc::clone(late), Arc::clone(late), Arc::clone(late));
    let name = config.name.to_string();
    ControlSetup {
        metrics: Arc::clone(metrics),
        reactor_times: Box::new(move || {
            let Some(running) = times.0.get() else { return Vec::new() };
            let times = running.stats.reactors().map(|reactor| ReactorTimes {
                busy: Span(reactor.busy_ns),
                idle: Span(reactor.idle_ns),
                turns: reactor.turns,
                sleeps: reactor.sleeps,
            });
            times.collect()
        }),
        status: Box::new(move || match status.0.get() {
            Some(running) => running.reporter.status(),
            None => Status {
                name: name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                process: std::process::id(),
                ..Status::default()
            },
        }),
        ready: Box::new(move || ready.1.ready.load(Ordering::Acquire)),
        stop: Box::new(move || {
            stop.1.stops.fetch_add(1, Ordering::Release);
        }),
        metrics_address: config.metrics.as_ref().map(|metrics| metrics.address.0),
        socket,
    }
}

fn bind(config: &Config) -> Result<Vec<Listener>, ServeError> {
    let bind = |listener: &config::schema::Listener| {
        let name = listener.name.to_string();
        Listener::bind(listener.address.0).map_err(|error| ServeError::Listen { name, error })
    };
    config.listeners.iter().map(bind).collect()
}

fn cores(config: &Config) -> Result<Vec<usize>, ServeError> {
    let cores = match &config.reactors.cores {
        Some(cores) => cores.iter().map(|&core| usize::from(core)).collect(),
        None => runtime::choose_cores(usize::from(config.reactors.count())).map_err(RuntimeError::from)?,
    };
    runtime::check_cores(&cores).map_err(RuntimeError::from)?;
    Ok(cores)
}

fn names(config: &Config, devices: &Devices) -> Names {
    let mut volumes = Vec::new();
    for array in &config.arrays {
        for volume in &array.volumes {
            volumes.push(VolumeName { array: array.name.to_string(), volume: volume.name.to_string() });
        }
    }
    Names {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        volumes,
        devices: devices.set.iter().map(|device| device.name().to_owned()).collect(),
        arrays: config.arrays.iter().map(|array| array.name.to_string()).collect(),
    }
}

/// How the buffer pool is shared out, in blocks.
struct Budget {
    /// The whole pool, as configured.
    pool_blocks: usize,
    /// Each shard's share for hosts' data under way.
    front: FrontLimits,
    /// Each shard's cache, of each array.
    cache_blocks: usize,
}

/// Fewest cache blocks of a shard and array worth having.
const MIN_CACHE_BLOCKS: usize = 1024;

impl Budget {
    fn of(config: &Config, shards: u16) -> Result<Self, ServeError> {
        let pool_blocks = config.reactors.memory.blocks() as usize;
        let share = pool_blocks / usize::from(shards);
        let front = FrontLimits::of_pool(share);
        let set_aside = |members: usize| (32 * (members + 1)).max(256) + members + 8;
        let aside: usize = config.arrays.iter().map(|array| set_aside(array.members.len())).sum();
        let used = front.in_capsule_blocks + front.data_blocks + aside;
        let arrays = config.arrays.len().max(1);
        let cache_blocks = share.saturating_sub(used) / arrays;
        if cache_blocks < MIN_CACHE_BLOCKS {
            let missing = (MIN_CACHE_BLOCKS - cache_blocks) * arrays + used.saturating_sub(share);
            let need = (pool_blocks + 2 * missing * usize::from(shards)) * BLOCK;
            return Err(ServeError::Memory {
                have: config.reactors.memory.bytes() >> 20,
                need: (need as u64).div_ceil(1 << 20),
            });
        }
        Ok(Self { pool_blocks, front, cache_blocks })
    }
}

fn pool(config: &Config, budget: &Budget, booted: &[BootedArray]) -> Result<Arc<Pool>, ServeError> {
    // What recovery found dirty comes on top of what the configuration gives the cache.
    let recovered: usize = booted.iter().flat_map(|array| &array.parts).map(|part| part.recovered.len()).sum();
    let maps: Vec<_> = booted.iter().map(|array| Arc::clone(&array.map)).collect();
    let blocks = budget.pool_blocks + recovered + Coordinator::set_aside_blocks(&maps);
    let pool = Pool::new(blocks, config.reactors.hugepages != Hugepages::Off)?;
    match (config.reactors.hugepages, pool.note()) {
        (Hugepages::Require, Some(note)) => Err(ServeError::HugePages(note.to_owned())),
        _ => Ok(pool),
    }
}

/// One program for each reactor. Takes the arrays' parts.
fn shard_programs(
    booted: &mut [BootedArray],
    volumes: &Volumes,
    exports: &Arc<Exports>,
    metrics: &Arc<Metrics>,
    budget: &Budget,
    shards: u16,
) -> Vec<Shard> {
    let table = Arc::new(volumes.table.clone());
    let mut parts: Vec<_> = booted.iter_mut().map(|array| core::mem::take(&mut array.parts).into_iter()).collect();
    let mut coordinated = Some(booted.iter().map(|array| array.coordinated.clone()).collect());
    let shard = |shard: u16| {
        Shard::new(ShardSetup {
            shard: ShardId(shard),
            shards,
            volumes: Arc::clone(&table),
            arrays: parts.iter_mut().map(|parts| parts.next().expect("a part for each shard")).collect(),
            coordinator: coordinated.take().map(|arrays| CoordinatorSetup { shards, arrays }),
            front: Some(FrontSetup {
                shard: ShardId(shard),
                shards,
                exports: Arc::clone(exports),
                limits: budget.front,
                metrics: Arc::clone(metrics),
                firmware: env!("CARGO_PKG_VERSION").to_owned(),
                health: nvme::log_page::SmartLog::default(),
            }),
            metrics: Arc::clone(metrics),
        })
    };
    (0..shards).map(shard).collect()
}

fn fixed(
    config: &Config,
    started: Instant,
    devices: &Devices,
    booted: &[BootedArray],
    volumes: &Volumes,
    addresses: &[SocketAddr],
) -> Fixed {
    let role = |id: Option<DeviceId>| {
        let Some(id) = id else { return String::new() };
        for array in booted {
            let member = array.map.members.iter().position(|member| member.is_some_and(|member| member.device == id));
            if let Some(slot) = member {
                return format!("{} member {slot}", array.map.name);
            }
            if let Some(copy) = array.map.copies.iter().position(|copy| *copy == Some(id)) {
                return format!("{} log {copy}", array.map.name);
            }
        }
        String::new()
    };
    let volume = |(array, record): &(usize, raid::VolumeRecord)| {
        let path = (booted[*array].map.name.as_str(), record.name.as_str());
        let mut exported = config
            .subsystems
            .iter()
            .flat_map(|subsystem| subsystem.namespaces.iter().map(|namespace| (subsystem.nqn.to_string(), namespace)));
        let exported = exported.find(|(_, namespace)| {
            (namespace.volume.array.to_string(), namespace.volume.volume.to_string()) == (path.0.into(), path.1.into())
        });
        VolumeStatus {
            array: path.0.to_owned(),
            name: path.1.to_owned(),
            uuid: record.uuid.to_string(),
            bytes: record.blocks * BLOCK as u64,
            nsid: exported.as_ref().map_or(0, |(_, namespace)| namespace.nsid),
            subsystem: exported.map_or_else(String::new, |(nqn, _)| nqn),
        }
    };
    Fixed {
        name: config.name.to_string(),
        started,
        devices: config
            .devices
            .iter()
            .map(|device| {
                let mut described = describe(device);
                let id = devices.by_name.get(&described.name).copied().flatten();
                if let Some(id) = id {
                    described.bytes = devices.set.device(id).blocks() * BLOCK as u64;
                }
                (described, role(id))
            })
            .collect(),
        maps: booted.iter().map(|array| Arc::clone(&array.map)).collect(),
        volumes: volumes.named.iter().map(volume).collect(),
        listeners: config
            .listeners
            .iter()
            .zip(addresses)
            .map(|(listener, address)| ListenerStatus {
                name: listener.name.to_string(),
                protocol: "nvme-tcp".to_owned(),
                address: address.to_string(),
            })
            .collect(),
    }
}

/// Says what to type on the host.
fn greet(config: &Config, addresses: &[SocketAddr], metrics: Option<SocketAddr>, socket: Option<&std::path::Path>) {
    let mut text = format!("{} serves. On a host with nvme-cli, as root:\n", config.name);
    for subsystem in &config.subsystems {
        for listener in &subsystem.listeners {
            let at = config.listeners.iter().position(|declared| declared.name == *listener);
            let Some(address) = at.map(|at| addresses[at]) else { continue };
            let (ip, port) = (address.ip(), address.port());
            text += &format!("  nvme connect --transport=tcp --traddr={ip} --trsvcid={port} --nqn={}\n", subsystem.nqn);
        }
    }
    if let Some(metrics) = metrics {
        text += &format!("Metrics: http://{metrics}/metrics\n");
    }
    if let Some(socket) = socket {
        text += &format!("Status: brindle status --control {}\n", socket.display());
    }
    // Whether anybody reads it is their affair.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}

/// Waits for a stop to be asked for, then for it to be done.
fn wait(runtime: &mut Runtime<Message, Shard>, late: &Late) -> Result<(), ServeError> {
    const LOOK: Duration = Duration::from_millis(20);
    let stops = || late.1.stops.load(Ordering::Acquire);
    while stops() == 0 && runtime.is_running() {
        std::thread::sleep(LOOK);
    }
    late.1.ready.store(false, Ordering::Release);
    runtime.stop_accepting();
    let begun = Instant::now();
    let mut told = false;
    while runtime.is_running() {
        if !told {
            told = runtime.poster().post(ShardId(0), Message::Stop).is_ok();
        }
        if begun.elapsed() > STOP_LIMIT {
            return Err(ServeError::NotClean(format!("the stop took longer than {} s", STOP_LIMIT.as_secs())));
        }
        if stops() > 1 {
            return Err(ServeError::NotClean("asked a second time to stop".to_owned()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
