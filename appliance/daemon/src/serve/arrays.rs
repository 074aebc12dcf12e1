//! Arrays of the configuration: found and assembled, or made where that is allowed.

use base::ids::{ArrayId, DeviceId};
use base::sector::LogicalBlock;
use base::time::Span;
use config::schema::{self, Config};
use engine::array::{DestageSettings, Limits, Residency};
use engine::boot::{
    AssembleOptions, BootError, BootedArray, CreateArray, CreateVolume, Found, assemble, create_array, probe,
};
use engine::coordinator::{RoundSettings, ScrubSettings};
use engine::drives::{DriveSettings, SlowPolicy};
use engine::map::OnLogLoss;
use journal::LogMode;
use raid::Repair;

use super::devices::{Devices, look, may_have_joined, parts};
use super::{ServeError, entropy};
use crate::budget::Budget;
use crate::capacity::level;
use crate::cli::ServeOptions;
use crate::events::{Events, Severity, Told};

/// Assembles every array of the configuration, makes those that are declared and not there.
pub(super) fn boot(
    config: &Config,
    devices: &Devices,
    options: &ServeOptions,
    budget: &Budget,
    events: &Events,
) -> Result<Vec<BootedArray>, ServeError> {
    let mut booted = Vec::new();
    for (index, array) in config.arrays.iter().enumerate() {
        if !is_there(array, config, devices, options.force)? {
            create(array, config, devices, options, events)?;
        }
        let assemble_options = AssembleOptions {
            log_patience: log_patience(array),
            id: ArrayId(index as u16),
            name: array.name.to_string(),
            shards: budget.shards,
            force: options.force,
            mode: array.log.as_ref().and_then(|log| log.mode).map(mode),
            on_log_loss: match array.on_log_loss {
                schema::OnLogLoss::ReadOnly => OnLogLoss::ReadOnly,
                schema::OnLogLoss::Stop => OnLogLoss::Stop,
                schema::OnLogLoss::WriteThroughExposed => OnLogLoss::WriteThroughExposed,
            },
            volumes: volumes(array),
            residency: match array.log.as_ref().map(|log| log.residency) {
                Some(schema::Residency::Log) => Residency::Log,
                Some(schema::Residency::Memory) | None => Residency::Memory,
            },
            index_blocks: budget.index_blocks(array),
            cache_blocks: budget.cache_blocks,
            checksum_blocks: budget.checksum_blocks,
            settings: DestageSettings {
                age: array.destage.age.0,
                full_stripe_delay: array.destage.full_stripe_delay.0,
                high_watermark_percent: array.destage.high_watermark.0,
                memory_watermark_percent: array.destage.memory_watermark.0,
                resident_percent: array.destage.memory_watermark.0,
                ..DestageSettings::default()
            },
            drives: DriveSettings {
                max_read_errors: array.drives.max_read_errors,
                slow: match array.drives.slow {
                    schema::SlowPolicy::Warn => SlowPolicy::Warn,
                    schema::SlowPolicy::Fail => SlowPolicy::Fail,
                },
                read_timeout: array.drives.read_timeout.0,
                timeout: array.drives.timeout.0,
            },
            rebuild: RoundSettings {
                limits: Limits {
                    bytes_a_second: array.rebuild.rate.map_or(0, |rate| rate.bytes()),
                    latency: array.rebuild.latency.0,
                },
                ..RoundSettings::default()
            },
            scrub: scrub(&array.scrub),
        };
        let mut handles = of_array(array, config, devices);
        let mut found =
            assemble(&mut handles, &assemble_options, &mut entropy).map_err(|error| name(error, array, devices))?;
        keep_spares(array, &mut found, devices)?;
        report(array, &found, devices, events);
        booted.push(found);
    }
    Ok(booted)
}

fn scrub(configured: &schema::Scrub) -> ScrubSettings {
    let mut settings = ScrubSettings { repair: repair(configured.repair), ..ScrubSettings::default() };
    settings.round.limits =
        Limits { bytes_a_second: configured.rate.map_or(0, |rate| rate.bytes()), latency: configured.latency.0 };
    settings
}

/// What a configuration means by a word.
pub(super) const fn repair(configured: schema::Repair) -> Repair {
    match configured {
        schema::Repair::None => Repair::None,
        schema::Repair::Located => Repair::Located,
        schema::Repair::Parity => Repair::Parity,
    }
}

/// This array's own devices, and those that may have taken the place of one of them: what another array's devices hold is
/// none of its business.
pub(super) fn of_array(array: &schema::Array, config: &Config, devices: &Devices) -> Vec<Option<runtime::SyncHandle>> {
    let joined = config.devices.iter().filter(|device| may_have_joined(device, array, config));
    let names = parts(array).into_iter().chain(joined.map(|device| device.name().to_string()));
    let own: Vec<DeviceId> = names.filter_map(|name| devices.by_name.get(&name).copied().flatten()).collect();
    let handles = devices.handles().into_iter().enumerate();
    handles.map(|(at, handle)| handle.filter(|_| own.contains(&DeviceId(at as u16)))).collect()
}

/// Whether any device bears the array. A device that is named for it and bears another array's superblock is a mistake in the
/// configuration, not a missing member: to go on without it would exclude the one that belongs there.
fn is_there(array: &schema::Array, config: &Config, devices: &Devices, force: bool) -> Result<bool, ServeError> {
    let mut handles = of_array(array, config, devices);
    let mut bears = Vec::new();
    for id in (0..handles.len() as u16).map(DeviceId) {
        if handles[id.index()].is_none() {
            continue;
        }
        match probe(&mut handles, id) {
            Ok(found) => bears.push((id, found)),
            Err(BootError::Device { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let name = array.name.to_string();
    let mut own = Vec::new();
    for (_, found) in &bears {
        if let Found::Member(superblock) = found
            && superblock.name == name
        {
            own.push(superblock.array);
        }
    }
    if own.is_empty() || force {
        return Ok(!own.is_empty());
    }
    let named: Vec<DeviceId> =
        parts(array).iter().filter_map(|name| devices.by_name.get(name).copied().flatten()).collect();
    for (id, found) in bears.iter().filter(|(id, _)| named.contains(id)) {
        let what = match found {
            Found::Member(other) if other.name != name => format!("a member of array {} ({})", other.name, other.array),
            Found::Log(log) if !own.contains(&log.identity.array) => {
                format!("a log copy of another array ({})", log.identity.array)
            }
            _ => continue,
        };
        return Err(ServeError::Stranger { array: name, device: devices.name_of(*id).to_owned(), what });
    }
    Ok(true)
}

/// Keeps those of the configured spares that hold nothing and take no part already.
fn keep_spares(array: &schema::Array, booted: &mut BootedArray, devices: &Devices) -> Result<(), ServeError> {
    let name = array.name.to_string();
    for spare in &array.spares {
        let spare = spare.to_string();
        let Some(&Some(id)) = devices.by_name.get(&spare) else { continue };
        if booted.map.members.iter().flatten().any(|member| member.device == id) {
            continue;
        }
        let (found, what) = look(devices.set.device(id))?;
        let is_foreign = matches!(found, Found::Nothing) && what.is_some();
        let uuid = base::uuid::Uuid::from_random([entropy(), entropy()]);
        let blocks = devices.set.device(id).blocks();
        if is_foreign || !booted.keep_spare(id, blocks, &found, uuid) {
            let what = what.unwrap_or_default();
            tracing::warn!(
                array = name,
                spare,
                "the spare bears {what} and is not used; brindle drive add --force takes it"
            );
        }
    }
    Ok(())
}

/// Makes an array, after everything has been looked at that might speak against it.
fn create(
    array: &schema::Array,
    config: &Config,
    devices: &Devices,
    options: &ServeOptions,
    events: &Events,
) -> Result<(), ServeError> {
    let mut ids = Vec::new();
    for name in parts(array) {
        let Some(&Some(id)) = devices.by_name.get(&name) else {
            return Err(ServeError::MissingToCreate { array: array.name.to_string(), device: name });
        };
        let declared = config.devices.iter().find(|device| device.name().to_string() == name);
        if matches!(declared, Some(schema::Device::Block { .. })) && !options.create {
            return Err(ServeError::NotAllowedToCreate { array: array.name.to_string(), device: name });
        }
        if !devices.made.contains(&id)
            && let Some(what) = devices.bears(id)?
        {
            if !options.force {
                return Err(ServeError::Bears { array: array.name.to_string(), device: name, what });
            }
            tracing::warn!(device = name, "overwriting {what}, as --force asks");
        }
        ids.push(id);
    }
    let (members, copies) = ids.split_at(array.members.len());
    let known_zero = members.iter().all(|id| devices.made.contains(id));
    let spec = CreateArray {
        name: array.name.to_string(),
        level: level(array.level),
        members: members.to_vec(),
        copies: copies.to_vec(),
        chunk_blocks: array.chunk.blocks() as u32,
        lanes: array.log.as_ref().map_or(1, |log| log.lanes),
        mode: array.log.as_ref().and_then(|log| log.mode).map_or(LogMode::WriteBack, mode),
        checksums: array.checksums == schema::Checksums::On,
        known_zero,
        volumes: volumes(array),
    };
    let uuid =
        create_array(&mut devices.handles(), &spec, &mut entropy).map_err(|error| name(error, array, devices))?;
    tracing::info!(array = spec.name, %uuid, members = members.len(), log_copies = copies.len(), "array created");
    let told =
        Told::new("array.created", Severity::Notice, format!("{} members, {} log copies", members.len(), copies.len()));
    events.tell(told.of_array(&spec.name).with("uuid", uuid.to_string()).unlogged());
    Ok(())
}

fn volumes(array: &schema::Array) -> Vec<CreateVolume> {
    let volume = |volume: &schema::Volume| CreateVolume {
        name: volume.name.to_string(),
        blocks: volume.size.blocks(),
        logical: logical(volume.logical_block),
    };
    array.volumes.iter().map(volume).collect()
}

/// In what units hosts address a volume.
const fn logical(declared: schema::LogicalBlock) -> LogicalBlock {
    match declared {
        schema::LogicalBlock::Sector => LogicalBlock::Sector,
        schema::LogicalBlock::Block => LogicalBlock::Block,
    }
}

/// How long a log copy may take.
fn log_patience(array: &schema::Array) -> Span {
    array.log.as_ref().map_or(Span::from_secs(10), |log| log.timeout.0)
}

const fn mode(mode: schema::LogMode) -> LogMode {
    match mode {
        schema::LogMode::WriteBack => LogMode::WriteBack,
        schema::LogMode::WriteThrough => LogMode::WriteThrough,
    }
}

/// Says what start-up found and did.
fn report(array: &schema::Array, booted: &BootedArray, devices: &Devices, events: &Events) {
    let name = array.name.to_string();
    for told in found(booted, devices) {
        events.tell(told.of_array(&name).unlogged());
    }
    for note in &booted.report.notes {
        tracing::warn!(array = name, "{}", names_in(note, devices));
    }
    for device in array.log.iter().flat_map(|log| &log.devices) {
        let id = devices.by_name.get(&device.to_string()).copied().flatten();
        if id.is_some_and(|id| !booted.map.copies.contains(&Some(id))) && !booted.map.is_exposed() {
            let device = device.to_string();
            tracing::warn!(array = name, "the log's device {device} takes no part: brindle log attach {name} {device}");
        }
    }
    if booted.map.members.len() > array.members.len() {
        let further = booted.map.members[array.members.len()..].iter().flatten();
        let names: Vec<&str> = further.map(|member| devices.name_of(member.device)).collect();
        let names = names.join(", ");
        tracing::warn!(
            array = name,
            "the array has got further members: add {names} to its members in the configuration"
        );
    }
    for (what, is, declared) in made_otherwise(array, booted) {
        tracing::warn!(array = name, is, declared, "the array keeps the {what} that it was made with");
    }
    let (lanes, report) = (&booted.report.lanes, &booted.report);
    if booted.map.is_exposed() {
        tracing::warn!(
            array = name,
            dirty_zones = report.dirty_zones,
            forced_zones = report.forced_zones,
            "exposed: its log was lost and given up, and it is written without one"
        );
    } else if booted.map.is_bare() {
        let (zones, forced) = (report.dirty_zones, report.forced_zones);
        tracing::info!(array = name, dirty_zones = zones, forced_zones = forced, "started without a log");
    } else if lanes.clean {
        tracing::info!(array = name, "the log was left in good order");
    } else {
        tracing::info!(
            array = name,
            records = lanes.records,
            dirty_blocks = lanes.dirty_blocks,
            replayed_stripes = lanes.replayed_stripes,
            repaired_records = lanes.repaired_records,
            "recovered from the log: nothing that was acknowledged is lost"
        );
    }
    for volume in &array.volumes {
        let (declared, record) = (logical(volume.logical_block), booted.metadata().find(&volume.name.to_string()));
        if let Some(record) = record.filter(|record| record.logical != declared) {
            let (volume, is, declared) = (&record.name, record.logical.bytes(), declared.bytes());
            tracing::warn!(
                array = name,
                volume,
                is,
                declared,
                "the volume keeps the logical blocks that it was made with"
            );
        }
    }
    let missing = booted.map.missing();
    if missing != 0 {
        let slots: Vec<u32> = (0..32).filter(|slot| missing & 1 << slot != 0).collect();
        let geometry = booted.map.arrangement.geometry();
        let all = geometry.all_members();
        let fatal: Vec<u8> = raid::slots(all & !missing)
            .filter(|slot| !geometry.bears(missing | 1 << slot.0))
            .map(|slot| slot.0)
            .collect();
        let next = match fatal.len() {
            0 => "another loss is borne".to_owned(),
            count if count == all.count_ones() as usize - slots.len() => "another loss would lose data".to_owned(),
            _ => format!("the loss of one of {fatal:?} would lose data"),
        };
        tracing::warn!(array = name, "degraded: members {slots:?} take no part; {next}");
    }
    for at in booted.map.missing_copies().filter(|_| !booted.map.is_exposed()) {
        tracing::warn!(array = name, "log copy {at} takes no part; the loss of the last copy would lose data");
    }
}

/// The same as events.
fn found(booted: &BootedArray, devices: &Devices) -> Vec<Told> {
    let (lanes, report) = (&booted.report.lanes, &booted.report);
    let mut all = vec![if report.forced_zones > 0 {
        let text = format!(
            "it has no log, was not stopped cleanly and lacks members, and was started with --force: in {} zones what parities say \
             is taken for the truth, which may be wrong",
            report.forced_zones
        );
        Told::new("array.forced", Severity::Error, text).with("zones", report.forced_zones)
    } else if booted.map.is_exposed() {
        let text = format!(
            "exposed: its log was lost and given up, and it is written without one; {} zones are to be resynced",
            report.dirty_zones
        );
        Told::new("array.exposed", Severity::Error, text).with("dirty_zones", report.dirty_zones)
    } else if report.dirty_zones > 0 {
        let text = format!("not stopped cleanly: {} zones are to be resynced", report.dirty_zones);
        Told::new("array.started", Severity::Notice, text).with("dirty_zones", report.dirty_zones)
    } else if booted.map.is_bare() {
        Told::new("array.started", Severity::Info, "it was left clean; it has no log")
    } else if lanes.clean {
        Told::new("array.started", Severity::Info, "the log was left in good order")
    } else {
        let text = format!(
            "recovered from the log: {} records, {} dirty blocks, {} stripes replayed, {} records repaired",
            lanes.records, lanes.dirty_blocks, lanes.replayed_stripes, lanes.repaired_records
        );
        Told::new("array.recovered", Severity::Notice, text)
            .with("records", lanes.records)
            .with("dirty_blocks", lanes.dirty_blocks)
            .with("replayed_stripes", lanes.replayed_stripes)
            .with("repaired_records", lanes.repaired_records)
            .with("repaired_anchors", lanes.repaired_anchors)
            .with("torn_lanes", booted.report.by_lane.iter().filter(|lane| lane.torn).count())
    }];
    let note = |note: &String| Told::new("array.noted", Severity::Warning, names_in(note, devices));
    all.extend(booted.report.notes.iter().map(note));
    for slot in (0..32u32).filter(|slot| booted.map.missing() & 1 << slot != 0) {
        all.push(
            Told::new("member.missing", Severity::Error, format!("member {slot} takes no part")).with("member", slot),
        );
    }
    for copy in booted.map.missing_copies() {
        all.push(
            Told::new("log.missing", Severity::Error, format!("log copy {copy} takes no part")).with("copy", copy),
        );
    }
    all
}

/// What of an array is fixed when it is made, and declared otherwise: what it is, and what is declared.
fn made_otherwise(array: &schema::Array, booted: &BootedArray) -> Vec<(&'static str, u64, u64)> {
    let (map, log) = (&booted.map, array.log.as_ref());
    let chunk_bytes = u64::from(map.arrangement.chunk_blocks()) * base::BLOCK as u64;
    let code = |level: raid::Level| u64::from(level.code());
    let mut all = vec![
        ("RAID level", code(map.arrangement.geometry().level()), code(level(array.level))),
        ("number of members", map.members.len() as u64, array.members.len() as u64),
        ("chunk in bytes", chunk_bytes, array.chunk.bytes()),
        ("checksums", map.checksums.into(), (array.checksums == schema::Checksums::On).into()),
    ];
    if let Some(log) = log.filter(|_| !map.is_bare()) {
        all.push(("number of lanes", u64::from(map.log_layout.lanes()), u64::from(log.lanes)));
    }
    // It may have got further members.
    all.retain(|(what, is, declared)| is != declared && (*what != "number of members" || is < declared));
    all
}

/// Start-up code knows devices by number, people by name: "device 3" and "devices 3 and 4" get their names.
pub(super) fn names_in(text: &str, devices: &Devices) -> String {
    let known = |number: &str| number.parse().ok().filter(|&id| usize::from(id) < devices.set.len()).map(DeviceId);
    let mut is_next = false;
    let mut words = Vec::new();
    for word in text.split(' ') {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let id = known(&word[..digits]).filter(|_| is_next);
        // After a name, "and" may lead to another.
        is_next = word.ends_with("device") || word.ends_with("devices") || word == "and" && is_next || id.is_some();
        words.push(id.map_or_else(|| word.to_owned(), |id| format!("{}{}", devices.name_of(id), &word[digits..])));
    }
    words.join(" ")
}

pub(super) fn name(error: BootError, array: &schema::Array, devices: &Devices) -> ServeError {
    match error {
        BootError::Device { device, error } => ServeError::Device { name: devices.name_of(device).to_owned(), error },
        BootError::DeviceLost { .. } | BootError::Impossible { .. } => {
            ServeError::Refused(names_in(&error.to_string(), devices))
        }
        BootError::Assemble(error) => {
            let mut text = names_in(&error.to_string(), devices);
            let missing: Vec<String> =
                parts(array).into_iter().filter(|name| devices.by_name.get(name).is_none_or(Option::is_none)).collect();
            if !missing.is_empty() {
                text += &format!(". Nothing is there at the paths of: {}", missing.join(", "));
            }
            ServeError::Refused(text)
        }
        other => ServeError::Boot(other),
    }
}
