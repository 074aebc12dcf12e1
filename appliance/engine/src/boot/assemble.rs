//! From devices in any order to an array that can be served: who belongs to it (`raid::assemble`), what must be durable
//! before anything relies on it (rule L6), and what its log holds ([`super::recovery`]).
//!
//! A device that fails on the way is treated as missing and everything is begun again without it, at most once for each
//! device; whatever was written until then is what any start would have written.

use std::sync::Arc;

use base::ids::{ArrayId, DeviceBlock, DeviceId, LaneId, ShardId, StripeId, ZoneId};
use base::snapshot::Snapshot;
use base::time::Span;
use base::uuid::Uuid;
use base::{Block, ZERO_BLOCK};
use journal::{LaneScan, LogIdentity, LogLayout, LogSuperblock, ReplayPlan, slot_of};
use ports::{DeviceError, SyncDevice};
use raid::{
    Assembly, Candidate, DirtyStart, LogCandidate, LogFate, Metadata, Superblock, Wanted, slots, start_of_dirty,
    superblock_block,
};

use super::BootError;
use super::create::{CreateVolume, Writer};
use super::recovery::{LaneReport, plan_lane, recover_lane, scan_lanes};
use super::regions::Regions;
use crate::array::{ArrayPart, DestageSettings, LaneStart, MIN_CACHE_BLOCKS, RecoveredBlock, Residency};
use crate::coordinator::{CoordinatedArray, RoundSettings, ScrubSettings, Spare, service};
use crate::drives::DriveSettings;
use crate::limits::{LANES_WITHOUT_LOG, MAX_SPARES};
use crate::map::{ArrayMap, LogMode, Member, OnLogLoss, Service, Volume};

/// What is found at a device's beginning.
#[derive(Clone, Debug)]
pub enum Found {
    /// A member of an array.
    Member(Box<Superblock>),
    /// A copy of a log.
    Log(Box<LogSuperblock>),
    /// Nothing of ours.
    Nothing,
    /// Something of ours that cannot be used, and why.
    Unusable(String),
}

/// Looks what a device bears. What it says is held against the device's size: nothing that is found to be of ours reaches
/// beyond its end.
///
/// Superblocks are written in turns, so that where one of the two cannot be read the other says what held before the last
/// write or the one before that: a device that is behind is brought up as after a crash.
pub fn probe<D: SyncDevice>(devices: &mut [Option<D>], device: DeviceId) -> Result<Found, BootError> {
    look_at(devices, device).map(|(found, _)| found)
}

/// The same; and whether one of the superblocks cannot be read.
fn look_at<D: SyncDevice>(devices: &mut [Option<D>], device: DeviceId) -> Result<(Found, bool), BootError> {
    let mut blocks = [ZERO_BLOCK; 2];
    let mut reader = Writer::new(devices, device)?;
    let size = reader.blocks();
    if size <= blocks.len() as u64 {
        return Ok((Found::Nothing, false));
    }
    let unreadable = reader.read_around(DeviceBlock(1), &mut blocks)?;
    if unreadable == blocks.len() {
        return Err(BootError::Device { device, error: DeviceError::Unreadable });
    }
    Ok((in_superblocks(&blocks, size), unreadable > 0))
}

/// What two superblocks say of a device with so many blocks.
fn in_superblocks([a, b]: &[Block; 2], size: u64) -> Found {
    let too_small = |need| format!("what it says of itself takes {need} blocks of 4 KiB, and it has {size}");
    match Superblock::newest(a, b) {
        Ok(superblock) if superblock.device_blocks() > size => {
            return Found::Unusable(too_small(superblock.device_blocks()));
        }
        Ok(superblock) => return Found::Member(Box::new(superblock)),
        Err(raid::SuperblockError::NotASuperblock) => {}
        Err(error) => return Found::Unusable(error.to_string()),
    }
    match LogSuperblock::newest(a, b) {
        Ok((log, _)) if log.layout.device_blocks() > size => Found::Unusable(too_small(log.layout.device_blocks())),
        Ok((log, _)) if log.epoch.max(log.incarnation).max(log.update) > journal::MAX_COUNT => {
            Found::Unusable("the log superblock's counts are higher than anybody counts".to_owned())
        }
        Ok((log, _)) => Found::Log(Box::new(log)),
        Err(journal::SuperblockError::NotASuperblock) => Found::Nothing,
        Err(error) => Found::Unusable(error.to_string()),
    }
}

/// How an array is to be assembled.
#[derive(Clone, Debug)]
pub struct AssembleOptions {
    /// Its place among the arrays of this process.
    pub id: ArrayId,
    /// Its name.
    pub name: String,
    /// How many shards share it.
    pub shards: u16,
    /// Whether a minority of members is the truth.
    pub force: bool,
    /// When writes are acknowledged; none keeps what the log says.
    pub mode: Option<journal::LogMode>,
    /// What becomes of it when the last log copy is lost.
    pub on_log_loss: OnLogLoss,
    /// Volumes that are made if they are missing.
    pub volumes: Vec<CreateVolume>,
    /// Where dirty data is kept.
    pub residency: Residency,
    /// Dirty blocks that there may be on each shard, if not all of them are in its cache.
    pub index_blocks: usize,
    /// Blocks that each shard's cache may hold.
    pub cache_blocks: usize,
    /// Checksum blocks that each shard may have at hand, if there are checksums.
    pub checksum_blocks: usize,
    /// When they go to the members.
    pub settings: DestageSettings,
    /// How long a log copy may take to answer before it counts as failed.
    pub log_patience: Span,
    /// What is expected of its drives.
    pub drives: DriveSettings,
    /// How members are rebuilt.
    pub rebuild: RoundSettings,
    /// How it is scrubbed.
    pub scrub: ScrubSettings,
}

/// What start-up found and did.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Sums over all lanes; clean if every lane was.
    pub lanes: LaneReport,
    /// The same of each lane.
    pub by_lane: Vec<LaneReport>,
    /// Zones that are to be resynced: of an array without a log that was not stopped cleanly.
    pub dirty_zones: u64,
    /// Those of them for which what parities say is taken for the truth, as the operator wants it.
    pub forced_zones: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// An array that can be served.
#[derive(Debug)]
pub struct BootedArray {
    /// The map in force.
    pub map: Snapshot<ArrayMap>,
    /// The part of each shard.
    pub parts: Vec<ArrayPart>,
    /// What the coordinator keeps.
    pub coordinated: CoordinatedArray,
    /// What was found and done.
    pub report: RecoveryReport,
}

impl BootedArray {
    /// Has all who hold the map hold this one: the same, perhaps somewhere else.
    pub fn set_map(&mut self, map: &Snapshot<ArrayMap>) {
        for part in &mut self.parts {
            part.map = map.clone();
        }
        self.coordinated.map = map.clone();
        self.map = map.clone();
    }

    /// Keeps a drive for the place of a member that is or goes out, if it holds nothing that anybody could want: nothing of
    /// ours, or the beginning of a rebuild for this very array that went on without it. Whether it was so. What else may be
    /// on the drive the caller has looked for.
    pub fn keep_spare(&mut self, device: DeviceId, blocks: u64, found: &Found, uuid: Uuid) -> bool {
        let map = &self.map;
        let is_used = map.members.iter().flatten().any(|member| member.device == device)
            || map.copies.contains(&Some(device))
            || self.coordinated.spares.iter().any(|spare| spare.device == device);
        let is_free = match found {
            Found::Nothing => true,
            Found::Member(said) => {
                said.array == map.uuid && matches!(said.entry().state, raid::State::Rebuilding { .. })
            }
            Found::Log(_) | Found::Unusable(_) => false,
        };
        let is_kept = is_free && !is_used && self.coordinated.spares.len() < MAX_SPARES;
        if is_kept {
            self.coordinated.spares.push(Spare { device, blocks, uuid });
        }
        is_kept
    }

    /// Where the volumes lie, in the order of the table.
    pub fn volumes(&self) -> Vec<Volume> {
        self.ready().map(|record| Volume::of(&self.map, record)).collect()
    }

    /// The volumes that hosts may use.
    pub fn ready(&self) -> impl Iterator<Item = &raid::VolumeRecord> {
        self.metadata().volumes.iter().filter(|record| record.state == raid::VolumeState::Ready)
    }

    /// The volume table.
    pub fn metadata(&self) -> &Metadata {
        &self.coordinated.metadata
    }
}

/// Assembles and recovers an array.
pub fn assemble<D: SyncDevice>(
    devices: &mut [Option<D>],
    options: &AssembleOptions,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<BootedArray, BootError> {
    let (mut notes, mut log_changed) = (Vec::new(), false);
    for _ in 0..=devices.len() {
        match attempt(devices, options, entropy) {
            Err(BootError::Device { device, error }) if devices[device.index()].is_some() => {
                notes.push(format!("device {device} failed during start-up ({error:?}) and is left out"));
                devices[device.index()] = None;
            }
            // A block of the log could be read a moment ago, and no more: what the log holds without it is found out anew.
            Err(error @ BootError::LogChanged { .. }) if !log_changed => {
                notes.push(format!("{error}; it was read anew"));
                log_changed = true;
            }
            Ok(mut booted) => {
                booted.report.notes.splice(0..0, notes);
                return Ok(booted);
            }
            Err(error) => return Err(error),
        }
    }
    attempt(devices, options, entropy)
}

fn attempt<D: SyncDevice>(
    devices: &mut [Option<D>],
    options: &AssembleOptions,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<BootedArray, BootError> {
    let Looked { candidates, logs, worn, mut notes } = look(devices)?;
    let mut assembly =
        raid::assemble(Wanted::Named(&options.name), &candidates, &log_candidates(&logs), options.force)?;
    notes.extend(assembly.notes.iter().cloned());
    // Written again, a superblock can be read again. The log's are written at each start anyway.
    assembly.renew |= assembly.members.iter().flatten().any(|member| worn.contains(&member.device));
    let mut regions = Regions::read(devices, &assembly)?;
    regions.add_volumes(&assembly, &options.volumes, entropy)?;
    notes.append(&mut regions.notes);
    let log_of = |device: DeviceId| logs.iter().find(|(id, _)| *id == device).map(|(_, log)| log.clone());
    let mut log_superblocks: Vec<Option<LogSuperblock>> =
        assembly.copies.iter().map(|device| device.and_then(log_of)).collect();
    check_logs(&assembly, &log_superblocks)?;
    let forced_zones = look_at_dirty(&mut regions, &assembly, options)?;
    check_policy(&assembly, options)?;
    if assembly.superblock.log_fate == LogFate::Lost && regions.dirty.count() == 0 {
        // The log came back, and all that went to the members without it matches.
        (assembly.superblock.log_fate, assembly.renew) = (LogFate::Kept, true);
    }
    let scans = match log_superblocks.iter().flatten().next() {
        Some(log) => scan_lanes(devices, &assembly.copies, &log.layout, &log.identity)
            .map_err(|error| BootError::Log { array: options.name.clone(), error })?,
        None => Vec::new(),
    };
    let (arrangement, geometry_epoch) = (assembly.superblock.arrangement(), assembly.superblock.geometry_epoch);
    let growth = assembly.superblock.growth;
    let plans: Vec<ReplayPlan> = scans
        .iter()
        .map(|scan| plan_lane(scan, &arrangement, growth.as_ref(), geometry_epoch))
        .collect::<Result<_, _>>()
        .map_err(|error| BootError::Log { array: options.name.clone(), error })?;
    forget_growth(&mut assembly, &scans);
    let away = assembly.superblocks().into_iter().flatten().find_map(|superblock| superblock.away);
    // What is replayed is forgotten with that, and of dirty zones nobody knows who has what.
    let replayed = plans.iter().flat_map(|plan| &plan.stripes).filter(|(_, replay)| replay.covered.is_some());
    let replayed = replayed.map(|(stripe, _)| arrangement.zone_of(*stripe));
    let unsettled: Vec<ZoneId> = replayed.chain(regions.dirty.iter()).collect();
    regions.settle_missed(&assembly, away.is_some(), unsettled.into_iter());
    // Up to here nothing was written: an array whose members or log are refused is left as it was.
    // A superblock that was damaged may have given way to an older one: records know better which incarnations there were.
    let last_incarnation = scans.iter().map(|scan| scan.last_incarnation).max().unwrap_or(0);
    let superblocks = make_durable(devices, &assembly, &mut log_superblocks, last_incarnation, options)?;
    regions.make_durable(devices)?;
    let Regions { initialised, dirty, missed, metadata, table_update, .. } = regions;
    let LogFacts { identity, layout, incarnation, mode } = facts(&assembly, &log_superblocks);

    let map = ArrayMap {
        id: options.id,
        name: options.name.clone(),
        uuid: assembly.superblock.array,
        epoch: assembly.epoch(),
        arrangement,
        geometry_epoch,
        members: superblocks
            .iter()
            .zip(&assembly.members)
            .map(|(superblock, member)| {
                let (superblock, member) = (superblock.as_ref()?, member.as_ref()?);
                let position = match superblock.entry().state {
                    raid::State::Rebuilding { position } => Some(StripeId(position)),
                    raid::State::Active | raid::State::Excluded { .. } => None,
                };
                let data_start = DeviceBlock(superblock.layout.data.start);
                let checksums = superblock.layout.checksums.map(|region| DeviceBlock(region.start));
                Some(Member { device: member.device, data_start, checksums, position })
            })
            .collect(),
        checksums: assembly.superblock.layout.checksums.is_some(),
        log: identity,
        log_layout: layout,
        copies: assembly.copies.clone(),
        free_copies: free_copies(&assembly.superblock),
        exposed: assembly.superblock.log_fate == LogFate::GivenUp,
        newcomer: None,
        successor: None,
        away,
        hold: None,
        moving: None,
        incarnation,
        mode,
        on_log_loss: options.on_log_loss,
        service: Service::ReadWrite,
        shards: options.shards,
    };
    let map = ArrayMap { service: service(&map), ..map };

    let lanes = LaneReport { clean: true, ..LaneReport::default() };
    let mut report = RecoveryReport { lanes, by_lane: Vec::new(), dirty_zones: dirty.count(), forced_zones, notes };
    let mut parts: Vec<ArrayPart> = Vec::new();
    let map = Snapshot::new(map);
    for _ in 0..options.shards {
        parts.push(ArrayPart {
            map: map.clone(),
            lanes: Vec::new(),
            recovered: Vec::new(),
            initialised: initialised.words(),
            dirty: dirty.words(),
            missed: missed.words(),
            residency: options.residency,
            index_blocks: options.index_blocks,
            cache_blocks: options.cache_blocks,
            checksum_blocks: options.checksum_blocks,
            settings: options.settings,
            log_patience: options.log_patience,
            drives: options.drives,
        });
    }
    for (scan, plan) in scans.iter().zip(&plans) {
        let lane = scan.lane;
        let recovered = recover_lane(devices, &map, scan, plan, options.residency)?;
        add(&mut report.lanes, &recovered.report);
        report.by_lane.push(recovered.report);
        let ShardId(owner) = map.owner_of(lane);
        let part = &mut parts[usize::from(owner)];
        part.lanes.push(recovered.start);
        let blocks: Vec<RecoveredBlock> = recovered.blocks;
        part.recovered.extend(blocks);
    }
    if map.is_bare() {
        for lane in (0..map.log_layout.lanes()).map(LaneId) {
            let ShardId(owner) = map.owner_of(lane);
            parts[usize::from(owner)].lanes.push(LaneStart::without_log(lane));
        }
    }
    let coordinated = CoordinatedArray {
        map: map.clone(),
        superblocks,
        log_superblocks,
        initialised,
        dirty,
        missed,
        metadata: Arc::new(metadata),
        table_update,
        drives: options.drives,
        spares: Vec::new(),
        rebuild: options.rebuild,
        log_patience: options.log_patience,
        scrub: options.scrub,
        cache_blocks: options.cache_blocks.max(MIN_CACHE_BLOCKS),
        members_at_start: map.members.len(),
    };
    Ok(BootedArray { map, parts, coordinated, report })
}

/// Forgets how an array grew once nothing is left of earlier geometry epochs: after a clean stop no copy of the log, whatever its
/// anchor, leads to any of them.
fn forget_growth(assembly: &mut Assembly, scans: &[LaneScan]) {
    let Superblock { geometry, geometry_epoch, growth, .. } = &mut assembly.superblock;
    let is_of_now = |scan: &LaneScan| scan.records.iter().all(|record| record.header.geometry_epoch == *geometry_epoch);
    let nothing_earlier = !scans.is_empty() && scans.iter().all(|scan| scan.is_clean_stop() && is_of_now(scan));
    if growth.is_some_and(|growth| growth.is_over(geometry)) && nothing_earlier {
        (*growth, assembly.renew) = (None, true);
    }
}

/// Places of the log that miss no copy, as a bit mask.
fn free_copies(superblock: &Superblock) -> u32 {
    let free = (0u32..).zip(&superblock.copies).filter(|(_, copy)| copy.free);
    free.fold(0, |mask, (at, _)| mask | 1 << at)
}

/// What start-up needs to know of a log, also where there is none.
struct LogFacts {
    identity: LogIdentity,
    layout: LogLayout,
    incarnation: u64,
    mode: LogMode,
}

fn facts(assembly: &Assembly, logs: &[Option<LogSuperblock>]) -> LogFacts {
    let Some(log) = logs.iter().flatten().next() else {
        return LogFacts {
            identity: LogIdentity { array: assembly.superblock.array, generation: 0 },
            layout: LogLayout::without_rings(LANES_WITHOUT_LOG),
            incarnation: 0,
            mode: LogMode::WriteThrough,
        };
    };
    let mode = log.mode.into();
    LogFacts { identity: log.identity, layout: log.layout, incarnation: log.incarnation, mode }
}

/// Refuses an array without a log that was not stopped cleanly and lacks members whose data would come from parities that may
/// not match, unless the operator wants it served; then, of how many zones that is so.
fn look_at_dirty(regions: &mut Regions, assembly: &Assembly, options: &AssembleOptions) -> Result<u64, BootError> {
    let Regions { dirty, initialised, .. } = regions;
    let geometry = &assembly.superblock.geometry;
    let states = assembly.superblocks();
    let missing_at = |stripe: StripeId| {
        let holds = |superblock: &Superblock| match superblock.entry().state {
            raid::State::Active => true,
            raid::State::Rebuilding { position } => stripe.0 < position,
            raid::State::Excluded { .. } => false,
        };
        let slots = (0u32..).zip(&states).filter(|(_, member)| !member.as_ref().is_some_and(holds));
        slots.fold(0, |mask, (slot, _)| mask | 1 << slot)
    };
    // Nothing was ever written to one that was not made ready: it is zeros, whatever its members hold.
    let written = dirty.iter().filter(|zone| initialised.is_set(*zone));
    match start_of_dirty(geometry, written, missing_at, options.force) {
        DirtyStart::Clean => {
            regions.settle_dirty(assembly);
            Ok(0)
        }
        DirtyStart::Resync => Ok(0),
        DirtyStart::Forced { zones } => Ok(zones),
        DirtyStart::Refused { zones } => Err(BootError::DegradedAndDirty {
            array: options.name.clone(),
            missing: slots(geometry.all_members() & !assembly.members_whole()).map(|slot| slot.0).collect(),
            zones,
            mebibytes: (zones * geometry.zone_stripes() * base::BLOCK as u64) >> 20,
        }),
    }
}

/// Refuses a policy that the array cannot follow.
fn check_policy(assembly: &Assembly, options: &AssembleOptions) -> Result<(), BootError> {
    if options.on_log_loss != OnLogLoss::WriteThroughExposed {
        return Ok(());
    }
    let mut layouts = assembly.members.iter().flatten().map(|member| &member.superblock.layout);
    let why = if assembly.superblock.layout.checksums.is_some() {
        "its checksums need the log"
    } else if layouts.any(|layout| layout.dirty.is_none()) {
        "members that were made by an earlier version have no place to say which zones are dirty"
    } else {
        return Ok(());
    };
    let what = format!(
        "on_log_loss: write-through-exposed cannot be kept: {why}. Set read-only or stop, or make the array anew"
    );
    Err(BootError::Impossible { array: options.name.clone(), what })
}

fn add(sum: &mut LaneReport, lane: &LaneReport) {
    sum.clean &= lane.clean;
    sum.torn |= lane.torn;
    sum.records += lane.records;
    sum.repaired_records += lane.repaired_records;
    sum.repaired_anchors += lane.repaired_anchors;
    sum.replayed_stripes += lane.replayed_stripes;
    sum.dirty_blocks += lane.dirty_blocks;
}

/// The copies of logs that were found, as assembly takes them.
pub(super) fn log_candidates(logs: &[(DeviceId, LogSuperblock)]) -> Vec<LogCandidate> {
    let candidate = |(device, log): &(DeviceId, LogSuperblock)| LogCandidate {
        device: *device,
        array: log.identity.array,
        uuid: log.copy,
        generation: log.identity.generation,
        epoch: log.epoch,
        members: log.members,
        member_uuids: log.member_uuids,
        joining: log.joining,
    };
    logs.iter().map(candidate).collect()
}

/// What all devices bear.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) candidates: Vec<Candidate>,
    pub(super) logs: Vec<(DeviceId, LogSuperblock)>,
    /// Devices with a superblock that cannot be read.
    worn: Vec<DeviceId>,
    notes: Vec<String>,
}

/// Reads the superblocks of all devices.
pub(super) fn look<D: SyncDevice>(devices: &mut [Option<D>]) -> Result<Looked, BootError> {
    let mut looked = Looked::default();
    for index in 0..devices.len() {
        let device = DeviceId(index as u16);
        if devices[index].is_none() {
            continue;
        }
        let (found, is_worn) = look_at(devices, device)?;
        if is_worn {
            looked.worn.push(device);
        }
        match found {
            Found::Member(superblock) => looked.candidates.push(Candidate { device, superblock: *superblock }),
            Found::Log(superblock) => looked.logs.push((device, *superblock)),
            Found::Unusable(why) => looked.notes.push(format!("device {device}: {why}; it is left out")),
            Found::Nothing => {}
        }
    }
    Ok(looked)
}

/// The copies of a log are a mirror: what one says of its regions must hold for all, and none may be read where it has
/// nothing.
pub(super) fn check_logs(assembly: &Assembly, logs: &[Option<LogSuperblock>]) -> Result<(), BootError> {
    let mut layouts = logs.iter().flatten().map(|log| log.layout);
    let first = layouts.next();
    if layouts.all(|other| Some(other) == first) {
        return Ok(());
    }
    let devices: Vec<String> = assembly.copies.iter().flatten().map(ToString::to_string).collect();
    Err(BootError::Impossible {
        array: assembly.superblock.name.clone(),
        what: format!(
            "the copies of its log, on devices {}, contradict each other about where things lie. Leave one of them out",
            devices.join(" and ")
        ),
    })
}

/// Writes what must be durable before anything relies on it: this start's incarnation on every log copy, and the exclusion
/// of what is missing on every copy and member that is there. Returns the members' superblocks.
fn make_durable<D: SyncDevice>(
    devices: &mut [Option<D>],
    assembly: &Assembly,
    logs: &mut [Option<LogSuperblock>],
    last_incarnation: u64,
    options: &AssembleOptions,
) -> Result<Vec<Option<Superblock>>, BootError> {
    let incarnation = 1 + logs.iter().flatten().map(|log| log.incarnation).fold(last_incarnation, u64::max);
    // A change of the mode that was cut is on some of them.
    let newest = logs.iter().flatten().max_by_key(|log| (log.epoch, log.update)).map(|log| log.mode);
    let mode = options.mode.or(newest);
    for (log, device) in logs.iter_mut().zip(&assembly.copies) {
        let (Some(log), &Some(device)) = (log, device) else { continue };
        assert!(log.epoch <= assembly.epoch(), "a log's epoch never goes down");
        log.epoch = assembly.epoch();
        log.members = assembly.members_whole();
        log.member_uuids = raid::member_uuids(&assembly.superblock.members);
        log.incarnation = incarnation;
        log.joining = false;
        log.copy_count = assembly.copies.len() as u16;
        log.mode = mode.unwrap_or(log.mode);
        log.update += 1;
        let mut block = ZERO_BLOCK;
        log.encode(&mut block);
        let mut device = Writer::new(devices, device)?;
        device.write(LogLayout::superblock_block(slot_of(log.update)), &[block])?;
        device.flush()?;
    }
    let superblocks = assembly.superblocks();
    if assembly.renew {
        for (superblock, member) in superblocks.iter().zip(&assembly.members) {
            let (Some(superblock), Some(member)) = (superblock, member) else { continue };
            let mut block = ZERO_BLOCK;
            superblock.encode(&mut block);
            let mut device = Writer::new(devices, member.device)?;
            device.write(superblock_block(superblock.update), &[block])?;
            device.flush()?;
        }
    }
    Ok(superblocks)
}
