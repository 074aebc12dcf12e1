//! All reactors of a process: starting them, their control side, their counters, their end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use base::ids::ShardId;
use base::time::Span;
use crossbeam::utils::CachePadded;
use ports::Program;

use crate::cores::{CoreError, check_cores};
use crate::device::{Medium, OpenDevice};
use crate::device_set::DeviceSet;
use crate::listener::{AcceptCounts, Acceptor, Inbox, Listener, StreamOptions};
use crate::mesh::{Control, MAX_SHARDS, Mesh, MeshEnd, Poster};
use crate::pool::Pool;
use crate::queues::DeviceQueues;
use crate::reactor::{Counters, Polling, Reactor, ReactorPorts, ReactorStats};
use crate::signal_sys::SignalStack;
use crate::stream::StreamTable;
use crate::threads::Helpers;
use crate::uring::Uring;

/// How requests reach files and block devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// By io_uring, or where that is forbidden by helper threads, with a note.
    Automatic,
    /// By io_uring or not at all.
    Uring,
    /// By helper threads.
    Threads,
}

/// How a runtime is made.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// The core of each reactor.
    pub cores: Vec<usize>,
    /// How reactors wait for work.
    pub polling: Polling,
    /// How requests reach files and block devices.
    pub backend: Backend,
    /// Messages that may wait between each ordered pair of reactors.
    pub mesh_capacity: usize,
    /// What every connection is set to, and how many there may be.
    pub streams: StreamOptions,
}

impl RuntimeOptions {
    /// Usual options for reactors on these cores.
    pub fn on_cores(cores: Vec<usize>) -> Self {
        Self {
            cores,
            polling: Polling::Adaptive { spin: Span::from_micros(50) },
            backend: Backend::Automatic,
            mesh_capacity: 1024,
            streams: StreamOptions::default(),
        }
    }
}

/// Why reactors did not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The cores cannot be had.
    #[error(transparent)]
    Cores(#[from] CoreError),
    /// More reactors than a mesh connects.
    #[error("{0} reactors are more than {MAX_SHARDS}. Name fewer cores")]
    TooMany(usize),
    /// A reactor could not be bound to its core.
    #[error("the system refuses to pin a reactor to core {0}. Choose another core, or widen the process's cpuset")]
    Pin(usize),
    /// io_uring was asked for and is not to be had.
    #[error(
        "io_uring is not available ({0}): it is forbidden by kernel.io_uring_disabled or by the container's seccomp \
         profile, or its memory exceeds RLIMIT_MEMLOCK. Allow it, or let helper threads do the work"
    )]
    Uring(io::Error),
    /// The system lacks something else.
    #[error("{doing} failed: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |source| RuntimeError::System { doing, source }
}

/// Counts of connections since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptStats {
    /// Given to a reactor.
    pub accepted: u64,
    /// Closed at once, being beyond the bounds.
    pub refused: u64,
    /// Broken before they could be given to a reactor, or not accepted for want of descriptors.
    pub failed: u64,
}

/// Reads the counters of a runtime, from any thread, also after its end.
#[derive(Clone)]
pub struct StatsReader {
    reactors: Arc<[(usize, Arc<CachePadded<Counters>>)]>,
    accepts: Arc<AcceptCounts>,
    pool: Arc<Pool>,
}

impl StatsReader {
    /// Each reactor's counts, in the order of the shards.
    pub fn reactors(&self) -> impl ExactSizeIterator<Item = ReactorStats> {
        self.reactors.iter().map(|(core, counters)| counters.stats(*core))
    }

    /// Counts of connections.
    pub fn accepts(&self) -> AcceptStats {
        AcceptStats {
            accepted: self.accepts.accepted.load(Ordering::Relaxed),
            refused: self.accepts.refused.load(Ordering::Relaxed),
            failed: self.accepts.failed.load(Ordering::Relaxed),
        }
    }

    /// Blocks of the pool that somebody holds, and all its blocks.
    pub fn buffers(&self) -> (usize, usize) {
        (self.pool.outstanding(), self.pool.blocks())
    }
}

/// Running reactors. When it is dropped they are stopped after their current turn.
pub struct Runtime<M, P> {
    threads: Vec<JoinHandle<Option<P>>>,
    control: Option<Control<M>>,
    poster: Poster<M>,
    mesh: Arc<Mesh<M>>,
    inboxes: Vec<Arc<Inbox>>,
    streams: StreamOptions,
    acceptor: Option<Acceptor>,
    stats: StatsReader,
    stop: Arc<AtomicBool>,
    notes: Vec<String>,
    /// Ends after the reactors.
    helpers: Helpers,
}

impl<M: Send + 'static, P: Program<ReactorPorts<M>> + Send + 'static> Runtime<M, P> {
    /// Starts a reactor for each program, on the core at the same place; returns when all are ready to turn. No connection
    /// is accepted before [`Runtime::accept`].
    ///
    /// # Panics
    /// If there are not as many programs as cores.
    pub fn start(
        options: &RuntimeOptions,
        pool: &Arc<Pool>,
        devices: &Arc<DeviceSet>,
        programs: Vec<P>,
    ) -> Result<Self, RuntimeError> {
        check_cores(&options.cores)?;
        assert_eq!(programs.len(), options.cores.len(), "a program for each core");
        let shards = u16::try_from(programs.len()).ok().filter(|&count| count <= MAX_SHARDS);
        let shards = shards.ok_or(RuntimeError::TooMany(programs.len()))?;
        let mesh = Mesh::<M>::new(shards, options.mesh_capacity).map_err(system("making the mesh"))?;
        let helpers =
            Helpers::start(devices, pool, programs.len()).map_err(system("starting the device helper threads"))?;
        let control = Control::new(Arc::clone(&mesh));
        let counters: Vec<_> = options.cores.iter().map(|&core| (core, Arc::default())).collect();
        let stats = StatsReader { reactors: counters.into(), accepts: Arc::default(), pool: Arc::clone(pool) };
        let mut runtime = Self {
            threads: Vec::with_capacity(programs.len()),
            poster: control.poster(),
            control: Some(control),
            inboxes: (0..shards).map(|shard| Inbox::new(Arc::clone(mesh.doorbell(ShardId(shard))))).collect(),
            mesh,
            streams: options.streams.clone(),
            acceptor: None,
            stats,
            stop: Arc::default(),
            notes: pool.note().map(str::to_owned).into_iter().collect(),
            helpers,
        };
        runtime.notes.extend(devices.iter().flat_map(|device| device.notes().to_vec()));
        let (ready, readiness) = mpsc::sync_channel(programs.len());
        for (shard, program) in (0..shards).zip(programs) {
            runtime.spawn(options, pool, devices, ShardId(shard), program, ready.clone())?;
        }
        drop(ready);
        // Each reactor says once that it is ready or why not; a failure drops the runtime, which stops the others.
        for _ in 0..shards {
            let said = readiness.recv().map_err(|_| system("starting a reactor")(io::ErrorKind::BrokenPipe.into()))?;
            runtime.notes.extend(said?.into_iter().filter(|note| !runtime.notes.contains(note)).collect::<Vec<_>>());
        }
        Ok(runtime)
    }

    fn spawn(
        &mut self,
        options: &RuntimeOptions,
        pool: &Arc<Pool>,
        devices: &Arc<DeviceSet>,
        shard: ShardId,
        program: P,
        ready: mpsc::SyncSender<Result<Vec<String>, RuntimeError>>,
    ) -> Result<(), RuntimeError> {
        let core = options.cores[shard.index()];
        let (polling, backend, capacity) = (options.polling, options.backend, options.streams.max_streams);
        let (pool, devices) = (Arc::clone(pool), Arc::clone(devices));
        let doorbell = Arc::clone(self.mesh.doorbell(shard));
        let helpers = self.helpers.queue(Arc::clone(&doorbell));
        let inbox = Arc::clone(&self.inboxes[shard.index()]);
        let mesh = MeshEnd::new(Arc::clone(&self.mesh), shard);
        let counters = Arc::clone(&self.stats.reactors[shard.index()].1);
        let stop = Arc::clone(&self.stop);
        // Everything is made on the reactor's own thread: a ring belongs to the thread that made it (io_uring_setup(2),
        // IORING_SETUP_SINGLE_ISSUER), and memory lies near the core that first touches it.
        let make = move |program| {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
                return Err(RuntimeError::Pin(core));
            }
            let (uring, notes) = make_uring(backend, &pool, &devices)?;
            let queues = DeviceQueues::new(devices, Arc::clone(&pool), uring, helpers);
            let streams =
                StreamTable::new(Arc::clone(&pool), inbox, capacity).map_err(system("making the stream table"))?;
            let ports = ReactorPorts::new(pool.local(), queues, streams, mesh);
            let reactor = Reactor::new(program, ports, polling, doorbell, counters, stop);
            Ok((reactor.map_err(system("making a reactor's wake-up sources"))?, notes))
        };
        let body = move || {
            let _guard = AbortOnPanic;
            let _signals = SignalStack::new();
            match make(program) {
                Ok((reactor, notes)) => {
                    // If the starter has gone, it has also set the stop flag.
                    let _ = ready.send(Ok(notes));
                    Some(reactor.run())
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    None
                }
            }
        };
        let builder = std::thread::Builder::new().name(format!("reactor-{shard}"));
        let thread = builder.spawn(body);
        self.threads.push(thread.map_err(system("starting a reactor's thread"))?);
        Ok(())
    }

    /// Accepts connections from now on; a listener's index is its place here. Earlier listeners close.
    pub fn accept(&mut self, listeners: Vec<Listener>) -> Result<(), RuntimeError> {
        self.stop_accepting();
        let counts = Arc::clone(&self.stats.accepts);
        let acceptor = Acceptor::start(listeners, self.inboxes.clone(), self.streams.clone(), counts);
        self.acceptor = Some(acceptor.map_err(system("starting the acceptor"))?);
        Ok(())
    }

    /// Closes the listeners; open connections stay.
    pub fn stop_accepting(&mut self) {
        self.acceptor = None;
    }

    /// The control side's end of the mesh: can be taken once, by the thread that will receive.
    pub fn take_control(&mut self) -> Option<Control<M>> {
        self.control.take()
    }

    /// Posts as the control side, from any thread.
    pub fn poster(&self) -> Poster<M> {
        self.poster.clone()
    }

    /// Reads the counters.
    pub fn stats(&self) -> StatsReader {
        self.stats.clone()
    }

    /// Words for the operator: what is not as wished, but works.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether any reactor still turns.
    pub fn is_running(&self) -> bool {
        self.threads.iter().any(|thread| !thread.is_finished())
    }

    /// Stops all reactors after their current turn, whatever their programs are at: for an end by force.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for shard in 0..self.poster.shards() {
            self.mesh.doorbell(ShardId(shard)).ring();
        }
    }

    /// Waits until all programs have ended (or were stopped) and gives them back.
    pub fn join(mut self) -> Vec<P> {
        let threads = std::mem::take(&mut self.threads);
        // A reactor that panics aborts the process; one that did not start is joined by the drop of a failed start.
        threads.into_iter().filter_map(|thread| thread.join().expect("a panic of a reactor aborts")).collect()
    }
}

impl<M, P> Drop for Runtime<M, P> {
    fn drop(&mut self) {
        self.acceptor = None;
        self.stop.store(true, Ordering::Relaxed);
        for shard in 0..self.poster.shards() {
            self.mesh.doorbell(ShardId(shard)).ring();
        }
        for thread in self.threads.drain(..) {
            // One that did not start has said why.
            let _ = thread.join();
        }
    }
}

/// A reactor that panics has broken an invariant: nothing it shares can be trusted any more.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn make_uring(
    backend: Backend,
    pool: &Arc<Pool>,
    devices: &Arc<DeviceSet>,
) -> Result<(Option<Uring>, Vec<String>), RuntimeError> {
    let is_file = |device: &OpenDevice| matches!(device.medium(), Medium::File(..)) && device.cache().is_none();
    // What is not there yet may be one.
    let any_file = devices.ids().any(|id| devices.get(id).is_none_or(|device| is_file(&device)));
    if !any_file || backend == Backend::Threads {
        return Ok((None, Vec::new()));
    }
    match Uring::new(pool, devices) {
        Ok((uring, note)) => Ok((Some(uring), note.into_iter().collect())),
        Err(error) if backend == Backend::Uring => Err(RuntimeError::Uring(error)),
        Err(error) => Ok((
            None,
            vec![format!(
                "io_uring is not available ({error}): helper threads do device I/O, which is slower \
                 (see kernel.io_uring_disabled, or the container's seccomp profile)"
            )],
        )),
    }
}
