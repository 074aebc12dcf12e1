//! `brindle serve`: from a configuration to an appliance that serves hosts, and back to one that is stopped cleanly.
//!
//! Everything that may be refused is looked at before anything is written: the configuration, the addresses, the sockets,
//! the devices. Then arrays are assembled and recovered, reactors start, and only then are connections accepted.

mod arrays;
mod audit;
mod auto_replace;
mod devices;
pub(crate) mod discard;
mod drive_news;
mod drives;
mod error;
mod exports;
mod fixed;
mod locate;
mod log_status;
mod logs;
mod memory;
mod methods;
mod new_files;
mod news;
mod report;
pub(crate) mod rescan;
mod sandbox;
mod scrub_news;
mod scrubs;
mod sealing;
mod shards;
mod volumes;
mod ways;
pub(crate) mod wipe;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base::ids::{ShardId, VolumeId};
use base::metrics::{Metrics, Names, ReactorTimes, VolumeName};
use base::snapshot::Snapshot;
use base::time::Span;
use config::schema::{Config, Hugepages, Polling as ConfiguredPolling};
use engine::array::RecoveredContent;
use engine::boot::BootedArray;
use engine::coordinator::{Coordinator, CoordinatorSetup};
use engine::front::FrontSetup;
use engine::limits::MESH_CAPACITY;
use engine::map::{VolumeMap, VolumeTables};
use engine::message::Message;
use engine::{Shard, ShardSetup};
use nvme::log_page::SmartLog;
use nvmf::subsystem::Exports;
use runtime::sealed::seal_or_share;
use runtime::{Listener, Polling, Pool, Runtime, RuntimeError, RuntimeOptions, SignalStack, StatsReader};

use crate::budget::Budget;
use crate::check;
use crate::cli::{LogFormat, ServeOptions};
use crate::control::{ControlPlane, ControlSetup};
use crate::events::store::Found;
use crate::events::{self, Events, Severity, Store, Told};
use crate::logging;
use crate::status::Status;
use devices::Devices;
pub use error::ServeError;
use fixed::fixed;
pub(crate) use methods::Listed;
use new_files::NewFiles;
use report::Reporter;
use sandbox::Others;
use scrubs::Schedules;
use shards::Shards;
pub(crate) use volumes::Listed as Volumes;

/// How long reactors that are told to end at once may take to: a device may hold one of them for ever.
const FORCED_STOP_LIMIT: Duration = Duration::from_secs(5);

/// How often the main thread looks around.
const LOOK: Duration = Duration::from_millis(20);

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
    logging::start(options.log_format);
    let config = load(options)?;
    let mut token = sealing::begin(&config, options)?;
    let config = token.keep("configuration", &config)?;
    let _signals = SignalStack::new();
    let started = Instant::now();
    let cores = cores(&config)?;
    let shards = cores.len() as u16;
    let budget = Budget::of(&config, shards)?;
    let pool_blocks = budget.pool_blocks + set_aside(&config);
    memory::check(&config, pool_blocks)?;
    let listeners = bind(&config)?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
    // What is made from here on goes again if the start fails.
    let mut new_files = NewFiles::default();
    let devices = Devices::open(&config, &mut new_files)?;
    for note in &devices.notes {
        tracing::warn!("{note}");
    }
    let names = token.keep("metric names", &names(&config))?;
    let metrics = Arc::new(Metrics::new(names.share(), shards));
    let late = Arc::new(Late::default());
    let socket = options.control.clone().or_else(|| config.control.as_ref().map(|control| control.socket.clone()));
    if let Some(socket) = &socket {
        new_files.make_folder_for(socket, "the control socket")?;
    }
    let store = open_history(&config, socket.as_deref(), &mut new_files)?;
    let events = Events::new(Arc::clone(&metrics));
    if let Some((_, found)) = &store {
        events::book::tell_found(&events, found);
    }
    // Before there are other threads: from here on the program's own tables stay as they are, and it can do what it must.
    token.seal()?;
    let others =
        Others { socket: socket.as_deref(), history: config.events_folder(socket.as_deref()), new_files: &new_files };
    let confinement = sandbox::enter(&config, &others, options.log_format == LogFormat::Json)?;
    let plane = ControlPlane::start(control_setup(&config, &metrics, &late, socket.clone()))?;
    // Before any array is touched: what the machine cannot give is refused while nothing has changed.
    let pool = pool(&config, pool_blocks)?;

    let mut booted = arrays::boot(&config, &devices, options, &budget, &events)?;
    let volumes = seal_or_share("volume map", exports::volumes(&config, &booted)?);
    let exports = seal_or_share("exports", exports::exports(&config, &booted, &volumes, &addresses)?);
    sealing::maps(&mut booted);
    let pool = enlarged(pool, &config, &budget, &booted)?;
    let runtime_options = RuntimeOptions {
        polling: match config.reactors.polling {
            ConfiguredPolling::Busy => Polling::Busy,
            ConfiguredPolling::Adaptive => Polling::Adaptive { spin: config.reactors.spin.0 },
        },
        mesh_capacity: MESH_CAPACITY,
        ..RuntimeOptions::on_cores(cores)
    };
    let fixed = fixed(&config, started, &devices, &booted, &addresses);
    let tables = VolumeTables {
        epoch: 0,
        volumes: volumes.clone(),
        exports: Some(exports.clone()),
        metadata: booted.iter().map(|array| Arc::clone(&array.coordinated.metadata)).collect(),
    };
    let programs = shard_programs(&config, &mut booted, &volumes, &exports, &metrics, &budget, shards);
    let mut runtime = Runtime::start(&runtime_options, &pool, &devices.set, programs)?;
    for note in runtime.notes() {
        tracing::warn!("{note}");
    }
    new_files.keep()?;
    let text =
        format!("brindle {} serves {} as process {}", env!("CARGO_PKG_VERSION"), config.name, std::process::id());
    let told = Told::new("appliance.started", Severity::Notice, text).with("version", env!("CARGO_PKG_VERSION"));
    events.tell(
        told.with("process", std::process::id()).with("configuration", options.file.display().to_string()).unlogged(),
    );
    // Only now: a start that is refused leaves the history as it was.
    let book = events.write(store.map(|(store, _)| store)).map_err(ServeError::Thread)?;
    let stats = runtime.stats();
    let control = runtime.take_control().expect("the control side is taken once");
    let news = news::to_history(&fixed, events.clone());
    let name = volume_names(&metrics);
    name(&tables);
    let shards = Shards::start(control, tables, news, name).map_err(ServeError::Thread)?;
    let reporter = Reporter {
        fixed,
        shards,
        devices: Arc::clone(&devices.set),
        stats: stats.clone(),
        events: events.clone(),
        metrics: Arc::clone(&metrics),
        confinement,
        drives: Mutex::new(rescan::Drives::new(&config)),
        wipes: wipe::Wipes::default(),
        killing: Mutex::new(()),
    };
    if late.0.set(Running { reporter, stats }).is_err() {
        unreachable!("it is set once");
    }
    let _ways = ways::watch(&config, &late);
    let _drives = rescan::watch(&late).map_err(ServeError::Thread)?;
    runtime.accept(listeners)?;
    late.1.ready.store(true, Ordering::Release);
    sealing::note();
    greet(&config, &addresses, plane.metrics_address(), socket.as_deref());

    let mut schedules = Schedules::new(&config);
    let stopped = wait(&mut runtime, &late, &events, &mut schedules, Duration::from_nanos(options.stop_limit.0.0));
    let stopped = match stopped {
        Ok(()) => stop(runtime, plane),
        Err(error) => {
            abandon(runtime);
            Err(error)
        }
    };
    // What is said last is the error, or that all is well.
    let text = "stopped cleanly: everything is on the members, the log is empty";
    events.tell(match &stopped {
        Ok(()) => Told::new("appliance.stopped", Severity::Notice, text),
        Err(error) => Told::new("appliance.stop_failed", Severity::Error, error.to_string()).unlogged(),
    });
    drop(book);
    stopped
}

/// Takes what has ended apart.
fn stop(runtime: Runtime<Message, Shard>, plane: ControlPlane) -> Result<(), ServeError> {
    let clean = runtime.join().iter().all(Shard::is_clean);
    drop(plane);
    if clean {
        return Ok(());
    }
    Err(ServeError::NotClean("an array could not be written to its members before the stop".to_owned()))
}

/// The history of an earlier process, if one is to be kept.
fn open_history(
    config: &Config,
    socket: Option<&Path>,
    new_files: &mut NewFiles,
) -> Result<Option<(Store, Found)>, ServeError> {
    let Some(folder) = config.events_folder(socket) else { return Ok(None) };
    new_files.make_folder_for(&folder.join("events"), "the history of events")?;
    Ok(Some(Store::open(&folder, config.events.max_size.bytes())?))
}

/// Reads the configuration. Its warnings go where the log goes, in the log's form if that is for machines.
fn load(options: &ServeOptions) -> Result<Config, ServeError> {
    if options.log_format == LogFormat::Human {
        return Ok(check::load(&options.file)?);
    }
    let (config, warnings) = check::load_quietly(&options.file)?;
    if !warnings.is_empty() {
        tracing::warn!("{warnings}");
    }
    Ok(config)
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
    let asked = Arc::clone(late);
    let (name, pool_of) = (config.name.to_string(), Arc::clone(metrics));
    ControlSetup {
        metrics: Arc::clone(metrics),
        reactor_times: Box::new(move || {
            let Some(running) = times.0.get() else { return Vec::new() };
            count_buffers(&pool_of, &running.stats);
            sealing::count(&pool_of);
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
        call: Box::new(move |caller, method, params| match asked.0.get() {
            Some(running) => audit::call(&running.reporter, caller, method, params),
            None => Some(Err("the appliance is still starting: try again".to_owned())),
        }),
        ready: Box::new(move || ready.1.ready.load(Ordering::Acquire)),
        stop: Box::new(move || {
            stop.1.stops.fetch_add(1, Ordering::Release);
        }),
        metrics_address: config.metrics.as_ref().map(|metrics| metrics.address.0),
        socket,
    }
}

/// Puts the state of the buffer pool into the metrics. All reactors share one pool: each is shown an equal part.
fn count_buffers(metrics: &Metrics, stats: &StatsReader) {
    let (held, all) = stats.buffers();
    let shards = metrics.shards();
    let part = |blocks: usize, at: usize| ((blocks + at) / shards.len()) as u64;
    for (at, shard) in shards.iter().enumerate() {
        shard.buffers.set(part(all, at));
        shard.buffers_free.set(part(all - held, at));
    }
}

fn bind(config: &Config) -> Result<Vec<Listener>, ServeError> {
    let bind = |listener: &config::schema::Listener| {
        let name = listener.name.to_string();
        let silence = Duration::from_nanos(listener.silence.0.0);
        let bound = Listener::bind(listener.address.0).map(|bound| bound.with_silence(silence));
        bound.map_err(|error| ServeError::Listen { name, error })
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

fn names(config: &Config) -> Names {
    let mut volumes = Vec::new();
    for array in &config.arrays {
        for volume in &array.volumes {
            volumes.push(VolumeName { array: array.name.to_string(), volume: volume.name.to_string() });
        }
    }
    Names {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        volumes,
        devices: config.devices.iter().map(|device| device.name().to_string()).collect(),
        arrays: config.arrays.iter().map(|array| array.name.to_string()).collect(),
    }
}

/// Blocks that the coordinator sets aside for the arrays as they are configured.
fn set_aside(config: &Config) -> usize {
    Coordinator::set_aside_blocks(config.arrays.iter().map(|array| array.members.len()))
}

fn pool(config: &Config, blocks: usize) -> Result<Arc<Pool>, ServeError> {
    let pool = Pool::new(blocks, config.reactors.hugepages != Hugepages::Off)?;
    match (config.reactors.hugepages, pool.note()) {
        (Hugepages::Require, Some(note)) => Err(ServeError::HugePages(note.to_owned())),
        _ => Ok(pool),
    }
}

/// What recovery found dirty comes on top of what the configuration gives the cache: the pool, or a larger one if it is too
/// small for that.
fn enlarged(
    pool: Arc<Pool>,
    config: &Config,
    budget: &Budget,
    booted: &[BootedArray],
) -> Result<Arc<Pool>, ServeError> {
    let recovered = booted.iter().flat_map(|array| &array.parts).flat_map(|part| &part.recovered);
    let recovered = recovered.filter(|found| matches!(found.content, RecoveredContent::Held(_))).count();
    let members = booted.iter().map(|array| array.map.members.len());
    let further = |(array, declared): (&BootedArray, &_)| {
        array.parts.len() * budget.further_blocks(declared, array.map.members.len())
    };
    let further: usize = booted.iter().zip(&config.arrays).map(further).sum();
    let blocks = budget.pool_blocks + recovered + further + Coordinator::set_aside_blocks(members);
    if blocks <= pool.blocks() {
        return Ok(pool);
    }
    drop(pool);
    self::pool(config, blocks)
}

/// What is said of health where nothing is counted. No spare is used up, as there is none. The composite temperature has no
/// word for "not known" (Base, figure 207), and a made-up one could hide or cause an alarm: it stays 0 K, as with other
/// targets in software, while WCTEMP and CCTEMP of 0 say that there is no threshold and the warning stays clear. The front
/// adds the warnings of degraded and read-only arrays.
fn health() -> SmartLog {
    SmartLog { spare_percent: 100, ..SmartLog::default() }
}

/// One program for each reactor. Takes the arrays' parts.
fn shard_programs(
    config: &Config,
    booted: &mut [BootedArray],
    volumes: &VolumeMap,
    exports: &Snapshot<Exports>,
    metrics: &Arc<Metrics>,
    budget: &Budget,
    shards: u16,
) -> Vec<Shard> {
    let silence: Vec<Span> = config.listeners.iter().map(|listener| listener.silence.0).collect();
    let mut parts: Vec<_> = booted.iter_mut().map(|array| core::mem::take(&mut array.parts).into_iter()).collect();
    let mut coordinated = Some(booted.iter().map(|array| array.coordinated.clone()).collect());
    let shard = |shard: u16| {
        Shard::new(ShardSetup {
            shard: ShardId(shard),
            shards,
            volumes: volumes.clone(),
            arrays: parts.iter_mut().map(|parts| parts.next().expect("a part for each shard")).collect(),
            coordinator: coordinated.take().map(|arrays| CoordinatorSetup {
                shards,
                arrays,
                volumes: volumes.clone(),
                exports: Some(exports.clone()),
            }),
            front: Some(FrontSetup {
                shard: ShardId(shard),
                shards,
                exports: exports.clone(),
                limits: budget.front,
                metrics: Arc::clone(metrics),
                firmware: env!("CARGO_PKG_VERSION").to_owned(),
                health: health(),
                silence: silence.clone(),
            }),
            metrics: Arc::clone(metrics),
        })
    };
    (0..shards).map(shard).collect()
}

/// Gives the metrics names for volumes, and takes them from those that are gone.
fn volume_names(metrics: &Arc<Metrics>) -> impl Fn(&VolumeTables) + Send + 'static {
    let metrics = Arc::clone(metrics);
    move |tables| {
        for (at, volume) in (0..).map(VolumeId).zip(tables.volumes.iter()) {
            if volume.leaving {
                metrics.forget_volume(at);
            } else if let Some((array, name)) = volume.name.split_once('/') {
                metrics.name_volume(at, VolumeName { array: array.to_owned(), volume: name.to_owned() });
            }
        }
    }
}

/// Says what to type on the host.
fn greet(config: &Config, addresses: &[SocketAddr], metrics: Option<SocketAddr>, socket: Option<&Path>) {
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

/// Waits for a stop to be asked for, then for it to be done within the limit.
fn wait(
    runtime: &mut Runtime<Message, Shard>,
    late: &Late,
    events: &Events,
    schedules: &mut Schedules,
    limit: Duration,
) -> Result<(), ServeError> {
    let stops = || late.1.stops.load(Ordering::Acquire);
    while stops() == 0 && runtime.is_running() {
        late.0.get().into_iter().for_each(|running| schedules.look(&running.reporter));
        std::thread::sleep(LOOK);
    }
    late.1.ready.store(false, Ordering::Release);
    events.tell(Told::new("appliance.stopping", Severity::Notice, "a stop was asked for").unlogged());
    runtime.stop_accepting();
    let begun = Instant::now();
    let mut told = false;
    while runtime.is_running() {
        if !told {
            told = runtime.poster().post(ShardId(0), Message::Stop).is_ok();
        }
        if begun.elapsed() >= limit {
            return Err(ServeError::NotClean(format!("the stop took longer than {limit:?}")));
        }
        if stops() > 1 {
            return Err(ServeError::NotClean("asked a second time to stop".to_owned()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Ends reactors by force. One that a device holds is left to the end of the process.
fn abandon(runtime: Runtime<Message, Shard>) {
    runtime.stop();
    let begun = Instant::now();
    while runtime.is_running() {
        if begun.elapsed() > FORCED_STOP_LIMIT {
            core::mem::forget(runtime);
            return;
        }
        std::thread::sleep(LOOK);
    }
}
