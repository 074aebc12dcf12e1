//! What a run is about: the appliance, its devices, its workload and what goes wrong, all drawn from one seed. Damage stays
//! within what the array promises to survive: as many members at a time as its level bears, and all log copies but one over the
//! whole run. Without drives to take their places, no more members than that are lost over the whole run.

mod bare;
mod blocks;
mod carving;
mod devices;
mod exposure;
mod growing;
mod hanging;
mod levels;
mod log_life;
mod residency;
mod scrubbing;
mod succeeding;

use base::ids::{DeviceId, Lba};
use base::sector::LogicalBlock;
use base::time::Span;
use engine::array::{Limits, Residency, checksum_set_aside_blocks};
use engine::coordinator::{RoundSettings, ScrubSettings};
use engine::limits::{LANES_WITHOUT_LOG, atomic_blocks};
use engine::map::OnLogLoss;
use journal::LogLayout;
use raid::{Level, Repair};

use crate::carver::CarvingOptions;
use crate::checks;
use crate::fault::{Fault, Landmark, PlannedFault};
use crate::killing::KillOptions;
use crate::log_keeper::Keeping;
use crate::random::Random;
pub use exposure::Exposure;

/// A run of logical blocks that the workload uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first block.
    pub start: Lba,
    /// How many.
    pub blocks: u32,
}

/// What hosts ask for.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Where; windows do not overlap.
    pub windows: Vec<Window>,
    /// Requests of the run.
    pub requests: u64,
    /// Requests under way at most.
    pub depth: usize,
    /// Blocks of a request at most.
    pub max_blocks: u32,
    /// Of so many requests on average: reads, writes, zeroes.
    pub weights: [u64; 3],
    /// Blocks of an atomic unit: what is written within one becomes visible in one step.
    pub atomic_blocks: u32,
    /// Data blocks of a chunk row: a write of all of them fills its stripes.
    pub row_blocks: u32,
    /// One request in so many may leave the first window; with 1 no window is special.
    pub stray_once_in: u64,
    /// Whether an acknowledgement says that the members have it.
    pub write_through: bool,
    /// Discards among the zeroes; none for none.
    pub discards: Option<Discards>,
    /// One write in so many compares first, and as many reads are compares; 0 is none.
    pub compares_once_in: u64,
    /// One step in so many brings the abort of a request; 0 is none.
    pub aborts_once_in: u64,
    /// In what units hosts address the volume.
    pub logical: LogicalBlock,
}

/// Discards: lists of ranges.
#[derive(Clone, Copy, Debug)]
pub struct Discards {
    /// One request for zeroes in so many.
    pub once_in: u64,
    /// Blocks of a long range at most.
    pub long_blocks: u32,
    /// Blocks of the volume.
    pub volume_blocks: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What everything was drawn from.
    pub seed: u64,
    /// Shards of the appliance.
    pub shards: u16,
    /// How the array arranges redundancy.
    pub level: Level,
    /// Members of the array, parity included.
    pub members: u8,
    /// Copies of its log.
    pub log_copies: u8,
    /// Blocks of a chunk.
    pub chunk_blocks: u32,
    /// Zones of the array.
    pub zones: u64,
    /// Lanes of the log.
    pub lanes: u16,
    /// Blocks of each lane.
    pub lane_blocks: u64,
    /// Acknowledge only what is durable on the members.
    pub write_through: bool,
    /// How long a stripe may wait for more of itself.
    pub destage_age: Span,
    /// How long a full one waits to be overwritten.
    pub full_stripe_delay: Span,
    /// Above this share of the log, stripes do not wait; in percent.
    pub high_watermark_percent: u8,
    /// Above this share of the cache, they do not either; in percent.
    pub memory_watermark_percent: u8,
    /// Where dirty data is kept, and above what share of the cache it leaves memory, in percent.
    pub residency: (Residency, u8),
    /// Whether a log copy may not give back what was written to it.
    pub log_rots: bool,
    /// Whether the members lose what was not flushed.
    pub member_cache: bool,
    /// Whether the log's devices do.
    pub log_cache: bool,
    /// How long a log copy may take to answer.
    pub log_patience: Span,
    /// What is expected of members: how long they may take for a host's read, and for anything.
    pub drive_timeouts: (Span, Span),
    /// Whether the drives that whoever looks after them loses may hang instead.
    pub hangs: bool,
    /// Whether members that are in use are succeeded by others: now and then by whoever looks after the drives, else one of them as
    /// soon as it can be.
    pub succeeds: bool,
    /// Whether the array gets a further member as soon as it can.
    pub grows: bool,
    /// What becomes of the array when the last log copy is lost.
    pub on_log_loss: OnLogLoss,
    /// What of the log is lost, and when, if all of it is.
    pub exposure: Option<Exposure>,
    /// Whether checksums of all blocks are kept.
    pub checksums: bool,
    /// Whether the members are known to hold zeros when the array is made.
    pub members_are_zero: bool,
    /// Drives beside the members, which may take their places.
    pub spares: u8,
    /// Devices beside the log copies, which may become such.
    pub log_spares: u8,
    /// By how many blocks these are larger.
    pub larger_log_spares: u64,
    /// Whether somebody looks after the log's devices, and how.
    pub log_keeping: Option<Keeping>,
    /// How members are rebuilt.
    pub rebuild: RoundSettings,
    /// How it is scrubbed, if it is.
    pub scrub: ScrubSettings,
    /// Whether somebody has the array scrubbed while hosts work.
    pub scrubbed: bool,
    /// What those scrubs do about blocks that are wrong, if always the same.
    pub repair_always: Option<Repair>,
    /// Whether somebody looks after the drives, for good and ill.
    pub operated: bool,
    /// At the end, wait until the array is whole if it can be.
    pub heals: bool,
    /// Members that are lost before the first request.
    pub degraded: Vec<DeviceId>,
    /// What goes wrong, by effects after the array was made.
    pub faults: Vec<PlannedFault>,
    /// After each recovery, ask what would be if all were lost that the level still bears.
    pub probe_losses: bool,
    /// At the end, cut the power of the idle appliance once before it stops.
    pub cut_when_idle: bool,
    /// What hosts ask for.
    pub workload: WorkloadOptions,
    /// What an operator does with volumes beside theirs.
    pub carving: Option<CarvingOptions>,
    /// Whether hosts are killed, and how often.
    pub kills: Option<KillOptions>,
    /// Requests that a device takes from each shard at a time.
    pub queue_depth: usize,
    /// A member is slow once in so many requests.
    pub slow_members_once_in: u64,
    /// A log copy is slow once in so many requests.
    pub slow_log_once_in: u64,
    /// Blocks of the buffer pool.
    pub pool_blocks: usize,
    /// Once in so many reads and writes a device fails with an error that passes; 0 is never.
    pub hiccups_once_in: u64,
    /// Blocks that a member may be unable to read within an hour.
    pub max_read_errors: u32,
}

/// Once in so many requests a device is slow, unless a scenario is about that.
pub const SLOW_ONCE_IN: u64 = 40;

/// Seeds with these remainders press on the log. The others keep the runs that they had before there was pressure.
const PRESSING: core::ops::Range<u64> = 5..8;
const PRESSING_OF: u64 = 8;

/// Seeds with these remainders have an operator who changes volumes, half of them under pressure. The others keep the runs
/// that they had before there was one.
const CARVING: [u64; 6] = [5, 7, 13, 18, 25, 26];
const CARVING_OF: u64 = 32;

/// Seeds with this remainder have drives that ail.
const AILING: u64 = 0;
const AILING_OF: u64 = 8;
/// Seeds with these remainders lose members again and again, and have drives to take their places.
const HEALING: [u64; 2] = [3, 9];
const HEALING_OF: u64 = 16;

/// Buffers that preparing a drive takes.
const JOIN_BLOCKS: usize = 64;
/// Seeds with these remainders have hosts that address sectors.
const SECTORS: [u64; 2] = [1, 7];
const SECTORS_OF: u64 = 16;

/// Seeds with these remainders kill hosts. The others keep the runs that they had before anybody was killed.
const KILLING: [u64; 5] = [1, 3, 5, 8, 10];
const KILLING_OF: u64 = 12;

/// Seeds with these remainders have hosts that change their mind. The others keep the runs that they had before any did.
const ABORTING: [u64; 4] = [2, 7, 9, 13];
const ABORTING_OF: u64 = 14;

/// Stripes of a zone.
pub const ZONE_STRIPES: u64 = 1024;

/// Blocks of a member before its data, generously; less than a zone.
pub(crate) const MEMBER_OVERHEAD_BLOCKS: u64 = 768;

/// Blocks of a log device before its lanes, generously.
pub(crate) const LOG_OVERHEAD_BLOCKS: u64 = 512;

impl Scenario {
    /// The run of a seed.
    pub fn draw(seed: u64) -> Self {
        Self::draw_at(seed, None)
    }

    /// The run of a seed at a level; without one at that of the seed.
    pub fn draw_at(seed: u64, level: Option<Level>) -> Self {
        let mut random = Random::named(seed, "scenario");
        let shards = random.choose(&[1, 1, 2, 3, 4]);
        let (level, members) = levels::draw(seed, level, random.choose(&[3, 3, 4, 5]));
        let log_copies = random.choose(&[1, 2, 2]);
        let chunk_blocks = random.choose(&[1, 2, 4, 16]);
        let zones = random.between(1, 4);
        let columns = levels::columns(level, members);
        let row_blocks = chunk_blocks * columns;
        let member_cache = random.once_in(2);
        let mut scenario = Self {
            seed,
            shards,
            level,
            members,
            log_copies,
            chunk_blocks,
            zones,
            lanes: shards.max(random.between(1, 4) as u16),
            lane_blocks: random.choose(&[520, 600, 1000]),
            write_through: random.once_in(3),
            destage_age: random.choose(&[Span::from_micros(100), Span::from_millis(10), Span::from_secs(5)]),
            full_stripe_delay: Span::ZERO,
            high_watermark_percent: random.choose(&[10, 50, 90]),
            memory_watermark_percent: 50,
            residency: (Residency::Memory, 50),
            log_rots: false,
            member_cache,
            log_cache: member_cache && random.once_in(2),
            log_patience: Span::from_secs(10),
            drive_timeouts: (Span::from_secs(3), Span::from_secs(45)),
            hangs: false,
            succeeds: false,
            grows: false,
            on_log_loss: OnLogLoss::ReadOnly,
            exposure: None,
            checksums: false,
            members_are_zero: random.once_in(2),
            spares: 0,
            log_spares: 0,
            larger_log_spares: 0,
            log_keeping: None,
            rebuild: RoundSettings::default(),
            scrub: ScrubSettings::default(),
            scrubbed: false,
            repair_always: None,
            operated: false,
            heals: false,
            degraded: Vec::new(),
            faults: Vec::new(),
            probe_losses: random.once_in(3),
            cut_when_idle: random.once_in(2),
            workload: WorkloadOptions {
                windows: windows(&mut random, zones * ZONE_STRIPES * u64::from(columns), row_blocks),
                requests: random.between(50, 600),
                depth: random.choose(&[1, 4, 16, 64]),
                max_blocks: random.choose(&[1, 4, 16, 64]),
                weights: random.choose(&[[2, 5, 1], [1, 8, 0], [5, 5, 0], [1, 4, 4]]),
                atomic_blocks: atomic_blocks(chunk_blocks),
                row_blocks,
                stray_once_in: 1,
                write_through: false,
                discards: None,
                compares_once_in: 0,
                aborts_once_in: 0,
                logical: LogicalBlock::Block,
            },
            carving: None,
            kills: None,
            queue_depth: random.choose(&[2, 8, 64]),
            slow_members_once_in: SLOW_ONCE_IN,
            slow_log_once_in: SLOW_ONCE_IN,
            pool_blocks: 2048 + JOIN_BLOCKS + usize::from(shards) * 1600,
            hiccups_once_in: 0,
            max_read_errors: u32::MAX,
        };
        scenario.faults = scenario.draw_faults(&mut random);
        if PRESSING.contains(&(seed % PRESSING_OF)) {
            scenario.press(&mut Random::named(seed, "pressure"));
        }
        let mut waiting = Random::named(seed, "waiting");
        let delays = [Span::ZERO, Span::ZERO, Span::from_micros(300), Span::from_millis(20)];
        scenario.full_stripe_delay = waiting.choose(&delays).min(scenario.destage_age);
        scenario.memory_watermark_percent = waiting.choose(&[10, 50, 90]);
        if residency::SEEDS.contains(&(seed % residency::SEEDS_OF)) {
            scenario.leave_memory(&mut Random::named(seed, "residency"));
        }
        if HEALING.contains(&(seed % HEALING_OF)) && scenario.geometry().bears(1) {
            scenario.look_after(&mut Random::named(seed, "healing"));
        }
        if blocks::SEEDS.contains(&(seed % blocks::SEEDS_OF)) {
            scenario.ask_much_of_blocks(&mut Random::named(seed, "blocks"));
        }
        if seed % log_life::SEEDS_OF == log_life::SEEDS {
            scenario.live_with_the_log(&mut Random::named(seed, "log life"));
        }
        if log_life::KEEPING.contains(&(seed % log_life::KEEPING_OF)) {
            scenario.keep_the_log(&mut Random::named(seed, "log keeping"));
        }
        // Drives that ail may be log copies, of which another one is lost then.
        if log_life::GROWING.contains(&(seed % log_life::GROWING_OF)) && seed % AILING_OF != AILING {
            scenario.grow_the_log(&mut Random::named(seed, "log growth"));
        }
        if CARVING.contains(&(seed % CARVING_OF)) {
            scenario.carve(&mut Random::named(seed, "carving"));
        }
        if checks::SEEDS.contains(&(seed % checks::SEEDS_OF)) && !bare::SEEDS.contains(&(seed % bare::SEEDS_OF)) {
            scenario.checksums = true;
            // What checksum blocks take of it.
            scenario.pool_blocks +=
                usize::from(scenario.shards) * checksum_set_aside_blocks(0, scenario.members.into());
        }
        // Drives ail instead of being lost, where the array bears either.
        if seed % AILING_OF == AILING && scenario.geometry().bears(1) {
            scenario.ail(&mut Random::named(seed, "ailing"));
        } else if level != Level::Raid5 && !scenario.operated {
            scenario.lose_by_level(&mut Random::named(seed, "losses"));
        }
        if SECTORS.contains(&(seed % SECTORS_OF)) {
            scenario.workload.logical = LogicalBlock::Sector;
        }
        if scrubbing::is_meant(seed) {
            scenario.have_scrubbed(&mut Random::named(seed, "scrubbing"));
        }
        if KILLING.contains(&(seed % KILLING_OF)) {
            scenario.kills = Some(KillOptions::draw(&mut Random::named(seed, "kills")));
        }
        if ABORTING.contains(&(seed % ABORTING_OF)) {
            scenario.workload.aborts_once_in = Random::named(seed, "aborts").choose(&[2, 10, 50]);
        }
        if bare::SEEDS.contains(&(seed % bare::SEEDS_OF)) {
            scenario.go_bare(&mut Random::named(seed, "bare"));
        }
        if exposure::is_meant(seed) && !scenario.is_bare() {
            scenario.lose_the_log(&mut Random::named(seed, "exposure"));
        }
        scenario.keep_witnesses();
        if hanging::is_meant(seed) && scenario.exposure.is_none() {
            scenario.let_members_hang(&mut Random::named(seed, "hanging"));
        }
        scenario.keep_logs_from_rotting();
        scenario.have_members_succeeded(&mut Random::named(seed, "succeeds"));
        scenario.have_it_grown(&mut Random::named(seed, "grows"));
        scenario.workload.write_through = scenario.write_through;
        scenario
    }

    // Many overwrites of a small hot window through a small log, while stripes of another window pin its tail: the rings
    // wrap often, and much becomes free at once. Slow durable writes keep anchors under way, and cuts come close.
    fn press(&mut self, random: &mut Random) {
        self.shards = random.choose(&[1, 1, 2]);
        self.lanes = self.shards;
        self.lane_blocks = random.choose(&[520, 800, 1000]);
        self.chunk_blocks = random.choose(&[1, 4, 16]);
        self.destage_age = random.choose(&[Span::from_micros(100), Span::from_secs(5), Span::from_secs(5)]);
        self.high_watermark_percent = random.choose(&[50, 99, 99]);
        self.member_cache = !random.once_in(4);
        self.log_cache = self.member_cache && !random.once_in(3);
        self.members_are_zero = random.once_in(4);
        self.slow_members_once_in = random.choose(&[3, SLOW_ONCE_IN]);
        self.slow_log_once_in = random.choose(&[3, SLOW_ONCE_IN]);
        self.pool_blocks = 4096 + JOIN_BLOCKS + usize::from(self.shards) * 1600;
        let row_blocks = self.chunk_blocks * self.columns();
        let hot = Window { start: Lba(random.below(64) * 8), blocks: random.choose(&[8, 16, 48]) };
        let last_zone = (self.zones - 1) * ZONE_STRIPES * u64::from(self.columns());
        let within = (ZONE_STRIPES * u64::from(self.columns()) - 64).min(1024);
        let cold = Window { start: Lba(last_zone + within), blocks: 64 };
        self.workload = WorkloadOptions {
            windows: vec![hot, cold],
            requests: random.between(200, 900),
            depth: random.choose(&[16, 64, 64]),
            max_blocks: random.choose(&[16, 64]),
            weights: random.choose(&[[1, 12, 0], [2, 6, 1], [5, 5, 0]]),
            atomic_blocks: atomic_blocks(self.chunk_blocks),
            row_blocks,
            stray_once_in: random.choose(&[4, 32, 64]),
            write_through: self.write_through,
            discards: None,
            compares_once_in: 0,
            aborts_once_in: 0,
            logical: LogicalBlock::Block,
        };
        self.press_faults(random);
    }

    // Cuts that fall where others must wait for a write that is not durable yet, and some that fall anywhere.
    fn press_faults(&mut self, random: &mut Random) {
        let mut faults = Vec::new();
        let mut effect = 0;
        for _ in 0..random.below(7) {
            let within = random.choose(&[20, 200, 900]);
            effect += random.between(1, within);
            // Enough to reach the tail of a full log, or just a little.
            let (few, many) = (random.between(1, 100), random.between(260, 400));
            let blocks = random.choose(&[few, many, many]);
            let behind = Fault::PowerCutBehind { landmark: Landmark::Anchor, blocks };
            let fault = if random.once_in(2) { behind } else { Fault::PowerCut };
            faults.push(PlannedFault { effect, fault });
        }
        let mut behind = |landmark, effect, random: &mut Random| {
            let fault = Fault::PowerCutBehind { landmark, blocks: random.between(1, 24) };
            faults.push(PlannedFault { effect, fault });
        };
        let (members, copies) = (u16::from(self.members), u16::from(self.log_copies));
        let mut lost = Vec::new();
        for (devices, may_be_lost) in [(0..members, true), (members..members + copies, copies > 1)] {
            if may_be_lost && random.once_in(2) {
                let device = DeviceId(devices.start + random.below(devices.len() as u64) as u16);
                let effect = random.between(1, effect.max(300));
                lost.push(PlannedFault { effect, fault: Fault::Lost { device, returns: !random.once_in(3) } });
                if random.once_in(2) {
                    behind(Landmark::Superblock, effect, random);
                }
            }
        }
        if !self.members_are_zero && random.once_in(2) {
            behind(Landmark::Bitmap, 1, random);
        }
        faults.extend(lost);
        faults.sort_by_key(|planned| (planned.effect, planned.fault == Fault::PowerCut));
        self.faults = faults;
    }

    // Drives come and go while hosts work, and the power fails now and then. Members are lost by whoever looks after them,
    // who knows when one may be; log copies by plan.
    fn look_after(&mut self, random: &mut Random) {
        self.operated = true;
        self.heals = !random.once_in(3);
        self.spares = random.choose(&[1, 1, 2, 3]);
        self.zones = random.between(1, 6);
        self.rebuild = RoundSettings {
            limits: Limits {
                bytes_a_second: random.choose(&[0, 0, 200 << 20, 2 << 30]),
                latency: random.choose(&[Span::ZERO, Span::from_micros(50), Span::from_millis(5)]),
            },
            save_zones: random.choose(&[1, 1, 2, 64]),
            save_period: random.choose(&[Span::from_millis(1), Span::from_secs(5)]),
        };
        let row_blocks = self.chunk_blocks * self.columns();
        self.workload.windows = windows(random, self.volume_blocks(), row_blocks);
        self.workload.requests = random.between(200, 1200);
        let members = u16::from(self.members);
        let loses_member = |fault| matches!(fault, Fault::Lost { device, .. } if device.0 < members);
        self.faults.retain(|planned| !loses_member(planned.fault));
    }

    fn draw_faults(&self, random: &mut Random) -> Vec<PlannedFault> {
        let mut faults = Vec::new();
        let mut effect = 0;
        for _ in 0..random.below(5) {
            // Close cuts fall into the recovery from the one before.
            effect += random.choose(&[5, 50, 400, 1500]).min(1 + random.below(1500));
            faults.push(PlannedFault { effect, fault: Fault::PowerCut });
        }
        let mut lose = |devices: Vec<DeviceId>, random: &mut Random| {
            let fault = Fault::Lost { device: random.choose(&devices), returns: random.once_in(2) };
            // Half of them in the very crash, if there is one.
            let effect = match faults.first() {
                Some(&PlannedFault { effect, fault: Fault::PowerCut }) if random.once_in(2) => effect,
                _ => random.between(1, 2000),
            };
            faults.push(PlannedFault { effect, fault });
        };
        if random.once_in(2) {
            lose(self.member_devices().collect(), random);
        }
        if self.log_copies > 1 && random.once_in(3) {
            lose(self.log_devices().collect(), random);
        }
        // A device that fails in the instant of a power cut fails first: afterwards nothing moves.
        faults.sort_by_key(|planned| (planned.effect, planned.fault == Fault::PowerCut));
        faults
    }

    /// Data blocks of the hosts' own volume: all of the array, but for what an operator carves.
    pub fn volume_blocks(&self) -> u64 {
        let all = self.zones * ZONE_STRIPES * u64::from(self.columns());
        all - self.carving.map_or(0, |carving| carving.blocks)
    }

    /// The members' devices.
    pub fn member_devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0..u16::from(self.members)).map(DeviceId)
    }

    /// The devices of the log copies.
    pub fn log_devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        let first = u16::from(self.members);
        (first..first + u16::from(self.log_copies)).map(DeviceId)
    }

    /// The drives that may take the place of a member.
    pub fn spare_devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        let first = u16::from(self.members) + u16::from(self.log_copies);
        (first..first + u16::from(self.spares)).map(DeviceId)
    }

    /// The devices that may become copies of the log.
    pub fn log_spare_devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        let first = u16::from(self.members) + u16::from(self.log_copies) + u16::from(self.spares);
        (first..first + u16::from(self.log_spares)).map(DeviceId)
    }

    /// Blocks of a log copy's device.
    pub fn log_blocks(&self) -> u64 {
        let blocks = LOG_OVERHEAD_BLOCKS + u64::from(self.lanes) * self.lane_blocks;
        // A log that begins has the lanes that an array without one has.
        let begins = self.log_keeping == Some(Keeping::First);
        if begins { blocks.max(LogLayout::minimum_device_blocks(LANES_WITHOUT_LOG)) } else { blocks }
    }

    /// Blocks of a member's device, and of a spare one.
    pub fn member_blocks(&self) -> u64 {
        MEMBER_OVERHEAD_BLOCKS + self.zones * ZONE_STRIPES
    }
}

/// A few windows, small so that requests meet, one of them across the border of the first two zones if there are two.
fn windows(random: &mut Random, blocks: u64, row_blocks: u32) -> Vec<Window> {
    let length = (4 * row_blocks).clamp(32, 192);
    let places = blocks / u64::from(length);
    let mut chosen: Vec<u64> = (0..random.between(1, 3)).map(|_| random.below(places)).collect();
    let per_zone = ZONE_STRIPES * u64::from(row_blocks) / u64::from(length);
    if per_zone < places {
        chosen.extend([per_zone - 1, per_zone]);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|place| Window { start: Lba(place * u64::from(length)), blocks: length }).collect()
}

#[cfg(test)]
mod tests;
