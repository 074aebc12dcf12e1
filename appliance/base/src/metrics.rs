//! Every metric family is declared once ([`FAMILIES`]) and nowhere else; exporter, dashboards and documentation read that
//! table. Here are the counters behind it: one [`ShardMetrics`] per reactor, written by that reactor alone and summed when
//! somebody asks. Nothing here knows a clock, an exposition format or a socket.
//!
//! | module | holds |
//! |---|---|
//! | [`families`] | the table: name, help, kind, unit, labels |
//! | [`cells`] | counters, gauges, histograms with one writer and any number of readers |
//! | `samples` | [`Metrics::samples`]: the table filled with values |

pub mod cells;
pub mod families;
mod samples;

pub use cells::{Counter, Gauge, Histogram, Latency, Sizes};
pub use families::{FAMILIES, Family, Kind, Unit};
pub use samples::{HistogramValue, Value};

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::OnceLock;

use crate::snapshot::Snapshot;
use crate::time::Span;

/// What a host asks of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeOp {
    /// Data goes to the host.
    Read,
    /// Data comes from the host.
    Write,
    /// Blocks are to read as zeros.
    WriteZeroes,
    /// What was acknowledged is to be durable.
    Flush,
}

impl VolumeOp {
    /// All of them, in the order of [`VolumeMetrics::ops`].
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::WriteZeroes, Self::Flush];

    /// The value of label `op`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteZeroes => "write_zeroes",
            Self::Flush => "flush",
        }
    }
}

/// What an array asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceOp {
    /// Read blocks.
    Read,
    /// Write blocks, durable or not.
    Write,
    /// Make finished writes durable.
    Flush,
    /// Write zeros.
    Zero,
}

impl DeviceOp {
    /// All of them, in the order of [`DeviceMetrics::ops`].
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Zero];

    /// The value of label `op`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Zero => "zero",
        }
    }
}

/// How parity was made for a stripe row that was destaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripeWrite {
    /// Every data block was in memory: nothing had to be read.
    Full,
    /// The old data and the old parity were read.
    ReadModifyWrite,
    /// The blocks that do not change were read.
    Reconstruct,
    /// The parity member is missing, or there is no parity: only data was written.
    DataOnly,
}

impl StripeWrite {
    /// All of them, in the order of [`ArrayMetrics::stripe_writes`].
    pub const ALL: [Self; 4] = [Self::Full, Self::ReadModifyWrite, Self::Reconstruct, Self::DataOnly];

    /// The value of label `kind`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadModifyWrite => "read_modify_write",
            Self::Reconstruct => "reconstruct",
            Self::DataOnly => "data_only",
        }
    }
}

/// How much an event of the history matters to an operator, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It belongs to an ordinary day.
    Info,
    /// Somebody wanted it so: what an operator asked for, starts and stops.
    Notice,
    /// Something is amiss, and all is still there.
    Warning,
    /// Something does not work, or the next loss would lose data.
    Error,
}

impl Severity {
    /// All of them, in rising order, which is that of [`Metrics::events`].
    pub const ALL: [Self; 4] = [Self::Info, Self::Notice, Self::Warning, Self::Error];

    /// The value of label `severity`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// On whose behalf, or for want of what, a connection was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillCause {
    /// Somebody asked for it.
    Operator,
    /// The address or route that it relied on is gone.
    AddressLoss,
    /// Its socket was destroyed by another process.
    Outside,
    /// No command came within the Keep Alive Timeout.
    KeepAlive,
    /// The peer was silent for too long.
    Silence,
}

impl KillCause {
    /// All of them, in the order of [`ShardMetrics::connections_killed`].
    pub const ALL: [Self; 5] = [Self::Operator, Self::AddressLoss, Self::Outside, Self::KeepAlive, Self::Silence];

    /// The value of label `cause`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::AddressLoss => "address_loss",
            Self::Outside => "outside",
            Self::KeepAlive => "keep_alive",
            Self::Silence => "silence",
        }
    }
}

/// One operation on one volume or device.
#[derive(Debug, Default)]
pub struct OpMetrics {
    /// Requests that ended, well or badly.
    pub requests: Counter,
    /// Bytes of those that ended well.
    pub bytes: Counter,
    /// Requests that ended badly.
    pub errors: Counter,
}

impl OpMetrics {
    /// Counts the end of a request of `bytes` bytes.
    pub fn record(&self, bytes: u64, succeeded: bool) {
        self.requests.increment();
        if succeeded {
            self.bytes.add(bytes);
        } else {
            self.errors.increment();
        }
    }
}

/// A volume on one shard.
#[derive(Debug, Default)]
pub struct VolumeMetrics {
    /// By [`VolumeOp::ALL`].
    pub ops: [OpMetrics; VolumeOp::ALL.len()],
    /// From the arrival of the command to the submission of its answer, by [`VolumeOp::ALL`].
    pub latency: [Latency; VolumeOp::ALL.len()],
}

impl VolumeMetrics {
    /// Counts the end of a request of `bytes` bytes that took `latency`.
    pub fn record(&self, op: VolumeOp, bytes: u64, latency: Span, succeeded: bool) {
        self.ops[op as usize].record(bytes, succeeded);
        self.latency[op as usize].observe(latency);
    }
}

/// A device on one shard.
#[derive(Debug, Default)]
pub struct DeviceMetrics {
    /// By [`DeviceOp::ALL`].
    pub ops: [OpMetrics; DeviceOp::ALL.len()],
    /// From the start of a request to its end, by [`DeviceOp::ALL`].
    pub latency: [Latency; DeviceOp::ALL.len()],
    /// 1 while it is much slower than its peers, else 0. Of several shards the highest counts.
    pub slow: Gauge,
    /// Requests that were tried again after an error that might pass.
    pub retries: Counter,
    /// Reads that it did not answer in time and others did.
    pub late_reads: Counter,
    /// Blocks that could not be read.
    pub unreadable_blocks: Counter,
    /// Blocks that it gave back otherwise than they were written, as their checksums say.
    pub wrong_blocks: Counter,
    /// Such blocks that were put together from the others, written again and read back.
    pub corrected_blocks: Counter,
    /// Such blocks that the device did not take back.
    pub uncorrected_blocks: Counter,
}

impl DeviceMetrics {
    /// Counts the end of a request of `bytes` bytes that took `latency`.
    pub fn record(&self, op: DeviceOp, bytes: u64, latency: Span, succeeded: bool) {
        self.ops[op as usize].record(bytes, succeeded);
        self.latency[op as usize].observe(latency);
    }
}

/// An array, or the lanes and zones of it that one shard owns.
#[derive(Debug, Default)]
pub struct ArrayMetrics {
    /// Stripe rows destaged, by [`StripeWrite::ALL`].
    pub stripe_writes: [Counter; StripeWrite::ALL.len()],
    /// Transactions made durable in the log.
    pub log_commits: Counter,
    /// Their sizes in blocks, descriptors and pads included.
    pub log_commit_blocks: Sizes,
    /// Log blocks between the durable tails and the heads of this shard's lanes.
    pub log_used_blocks: Gauge,
    /// Log blocks of this shard's lanes.
    pub log_capacity_blocks: Gauge,
    /// Blocks acknowledged and not yet destaged.
    pub dirty_blocks: Gauge,
    /// Those of them whose content the log alone has, and not memory.
    pub logged_blocks: Gauge,
    /// Stripes whose last destage could not be done.
    pub blocked_stripes: Gauge,
    /// Blocks of those that are acknowledged and in the log alone.
    pub blocked_blocks: Gauge,
    /// Without a log: zones that a crash now could leave dirty.
    pub dirty_zones: Gauge,
    /// Those that an earlier crash did, and that are still to be resynced.
    pub unsynced_zones: Gauge,
    /// Blocks that were read back from log copies.
    pub log_reads: Counter,
    /// Such reads that a copy failed, or answered with something else.
    pub log_read_errors: Counter,
    /// Blocks of data that destages wrote to the members, mirrors counted once and parities not.
    pub destaged_blocks: Counter,
    /// Blocks of old content that their parities took.
    pub old_blocks: Counter,
    /// Stripe destages completed: members flushed and the destaged record durable.
    pub destages: Counter,
    /// Writes that had to wait for log space, buffers or dirty capacity.
    pub admission_waits: Counter,
    /// 1 while redundancy is missing, else 0. Of several shards the highest counts.
    pub degraded: Gauge,
    /// Members that take no part. Of several shards the highest counts.
    pub members_missing: Gauge,
    /// 1 while a member is being rebuilt, else 0. Shard 0 knows it.
    pub rebuilding: Gauge,
    /// Blocks written to members that are being rebuilt.
    pub rebuilt_blocks: Counter,
    /// Blocks of the member that is being rebuilt which are not current yet. Shard 0 knows it.
    pub rebuild_left_blocks: Gauge,
    /// 1 while the array gets a further member, else 0. Shard 0 knows it.
    pub growing: Gauge,
    /// Blocks of each member that do not lie yet as they are to lie with it. Shard 0 knows it.
    pub growth_left_blocks: Gauge,
    /// 1 while a resync goes on, else 0. Shard 0 knows it.
    pub resyncing: Gauge,
    /// Blocks of each member that the resync has yet to match. Shard 0 knows it.
    pub resync_left_blocks: Gauge,
    /// What scrubs found.
    pub scrub: ScrubMetrics,
    /// 1 while a scrub goes on, else 0. Shard 0 knows it.
    pub scrubbing: Gauge,
    /// Blocks of each member that a scrub has yet to see. Shard 0 knows it.
    pub scrub_left_blocks: Gauge,
    /// Log copies that take no part. Of several shards the highest counts.
    pub log_copies_missing: Gauge,
    /// 1 while writes are refused, else 0. Of several shards the highest counts.
    pub read_only: Gauge,
    /// 1 while the array goes on without its log, which is lost, else 0. Of several shards the highest counts.
    pub exposed: Gauge,
}

/// What scrubs did and found.
#[derive(Debug, Default)]
pub struct ScrubMetrics {
    /// Blocks read, of all members.
    pub read_blocks: Counter,
    /// Stripes whose blocks did not agree.
    pub mismatched_stripes: Counter,
    /// Blocks of those that were found to be wrong.
    pub located_blocks: Counter,
    /// Those of which nobody can tell what is wrong.
    pub unlocated_stripes: Counter,
    /// Blocks that could not be read.
    pub unreadable_blocks: Counter,
    /// Blocks that were written anew and are right since.
    pub repaired_blocks: Counter,
    /// Blocks that were written anew in vain.
    pub unrepaired_blocks: Counter,
}

impl ArrayMetrics {
    /// Counts a destaged stripe row: how its parity was made, its blocks of data, and those of old content that this took.
    pub fn stripe_write(&self, kind: StripeWrite, data_blocks: u32, old_blocks: u32) {
        self.stripe_writes[kind as usize].increment();
        self.destaged_blocks.add(data_blocks.into());
        self.old_blocks.add(old_blocks.into());
    }

    /// Counts a transaction of `blocks` log blocks.
    pub fn log_commit(&self, blocks: u64) {
        self.log_commits.increment();
        self.log_commit_blocks.observe(blocks);
    }
}

/// What one reactor counts. It is the only writer.
#[derive(Debug)]
pub struct ShardMetrics {
    /// By place in the volume map ([`crate::ids::VolumeId`]).
    pub volumes: Vec<VolumeMetrics>,
    /// By place in the table of devices ([`crate::ids::DeviceId`]).
    pub devices: Vec<DeviceMetrics>,
    /// By place in the table of arrays ([`crate::ids::ArrayId`]).
    pub arrays: Vec<ArrayMetrics>,
    /// Connections open now.
    pub connections: Gauge,
    /// Connections accepted since start.
    pub connections_accepted: Counter,
    /// Connections ended since start, by either side.
    pub connections_closed: Counter,
    /// Connections that were killed since start, by [`KillCause::ALL`].
    pub connections_killed: [Counter; KillCause::ALL.len()],
    /// Connections turned away since start (bounds reached, host not admitted).
    pub connections_refused: Counter,
    /// Connections ended because the peer broke the protocol.
    pub protocol_errors: Counter,
    /// Requests handed to the shard that owns their zone.
    pub requests_forwarded: Counter,
    /// Buffers of the pool that nobody owns.
    pub buffers_free: Gauge,
    /// Buffers of the pool.
    pub buffers: Gauge,
}

impl ShardMetrics {
    fn new(names: &Names) -> Self {
        fn table<T: Default>(length: usize) -> Vec<T> {
            core::iter::repeat_with(T::default).take(length).collect()
        }
        Self {
            volumes: table(names.volumes.len() + LATER_VOLUMES),
            devices: table(names.devices.len()),
            arrays: table(names.arrays.len()),
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_closed: Counter::default(),
            connections_killed: Default::default(),
            connections_refused: Counter::default(),
            protocol_errors: Counter::default(),
            requests_forwarded: Counter::default(),
            buffers_free: Gauge::default(),
            buffers: Gauge::default(),
        }
    }
}

/// What label values stand for: the place in a list is the place in the tables of [`ShardMetrics`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The release.
    pub version: String,
    /// Volumes.
    pub volumes: Vec<VolumeName>,
    /// Devices.
    pub devices: Vec<String>,
    /// Arrays.
    pub arrays: Vec<String>,
}

/// A volume's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeName {
    /// The array it is carved from.
    pub array: String,
    /// Its own, unique in the array.
    pub volume: String,
}

/// What the loop around a shard knows of itself. It comes from outside, since only the loop has a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorTimes {
    /// Time in turns that did something.
    pub busy: Span,
    /// Time in turns that did nothing, and asleep.
    pub idle: Span,
    /// Turns.
    pub turns: u64,
    /// How often it slept in the kernel.
    pub sleeps: u64,
}

/// What is counted of the process as a whole. The control side is the only writer, before it tells.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    /// Bytes of memory that are read-only while serving.
    pub sealed_bytes: Gauge,
    /// Regions of it.
    pub sealed_regions: Gauge,
    /// Regions since the start, those that are gone included.
    pub seals: Gauge,
    /// Writes to them.
    pub sealed_violations: Gauge,
    /// System calls that the sandbox refused.
    pub sandbox_refusals: Gauge,
}

/// Volumes that are made while serving and counted; what is made beyond is served as well.
pub const LATER_VOLUMES: usize = 256;

/// A place for a volume that is made while serving.
#[derive(Debug, Default)]
struct LaterVolume {
    name: OnceLock<VolumeName>,
    gone: AtomicBool,
}

/// All metrics of an appliance, to be shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    names: Snapshot<Names>,
    /// Behind the volumes of `names`.
    later: Vec<LaterVolume>,
    shards: Vec<ShardMetrics>,
    events: [Counter; Severity::ALL.len()],
    process: ProcessMetrics,
}

impl Metrics {
    /// Counters at zero for `shards` reactors. The names may lie where nobody can write to them.
    pub fn new(names: impl Into<Snapshot<Names>>, shards: u16) -> Self {
        let names = names.into();
        let shards = (0..shards).map(|_| ShardMetrics::new(&names)).collect();
        let later = core::iter::repeat_with(LaterVolume::default).take(LATER_VOLUMES).collect();
        Self { names, later, shards, events: Default::default(), process: ProcessMetrics::default() }
    }

    /// A volume has this place. The first name of a place stays, as counters go by it.
    pub fn name_volume(&self, volume: crate::ids::VolumeId, name: VolumeName) {
        let at = volume.index().checked_sub(self.names.volumes.len());
        if let Some(place) = at.and_then(|at| self.later.get(at)) {
            place.name.get_or_init(|| name);
        }
    }

    /// The volume of a place is gone: it is told of no more.
    pub fn forget_volume(&self, volume: crate::ids::VolumeId) {
        let at = volume.index().checked_sub(self.names.volumes.len());
        if let Some(place) = at.and_then(|at| self.later.get(at)) {
            place.gone.store(true, Relaxed);
        }
    }

    /// The volumes that are told of, by their places.
    pub fn volumes(&self) -> impl Iterator<Item = (usize, &VolumeName)> {
        let later = self.later.iter().map(|place| place.name.get().filter(|_| !place.gone.load(Relaxed)));
        let all = self.names.volumes.iter().map(Some).chain(later).enumerate();
        all.filter_map(|(at, name)| name.map(|name| (at, name)))
    }

    /// What one reactor writes to.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn shard(&self, shard: crate::ids::ShardId) -> &ShardMetrics {
        &self.shards[shard.index()]
    }

    /// All shards in order.
    pub fn shards(&self) -> &[ShardMetrics] {
        &self.shards
    }

    /// Events of the history by severity, in the order of [`Severity::ALL`]. Whoever writes the history is the one writer.
    pub const fn events(&self) -> &[Counter; Severity::ALL.len()] {
        &self.events
    }

    /// What is counted of the process as a whole.
    pub const fn process(&self) -> &ProcessMetrics {
        &self.process
    }

    /// The label values.
    pub fn names(&self) -> &Names {
        &self.names
    }
}
