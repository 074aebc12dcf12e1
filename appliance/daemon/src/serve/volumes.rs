//! Volumes over the control socket: what there is, and changes of it, named as people name them.

use base::BLOCK;
use base::ids::{ArrayId, VolumeId};
use base::sector::LogicalBlock;
use base::snapshot::Snapshot;
use engine::command::{Export, Refusal, Verb, VolumeVerb};
use engine::map::{Volume, VolumeTables};
use engine::status::JobStatus;
use raid::{MetadataError, Origin, VolumeRecord, VolumeState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::entropy;
use super::methods::take;
use super::report::{Fixed, Reporter};
use super::shards::CommandError;
use crate::status::{VolumeStatus, size};

/// Volumes, and the space that there is for more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// All volumes, deleted ones that are still being cleaned included.
    pub(crate) volumes: Vec<VolumeStatus>,
    /// Space by array.
    pub(crate) arrays: Vec<Space>,
}

/// An array's space.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Space {
    /// The array.
    pub(crate) array: String,
    /// Space for volumes.
    pub(crate) capacity_bytes: u64,
    /// What of it no volume has.
    pub(crate) free_bytes: u64,
    /// What deleted volumes had, and is being zeroed.
    pub(crate) cleaning_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToMake {
    volume: String,
    size_bytes: u64,
    #[serde(default = "block_bytes")]
    logical_block_bytes: u32,
    subsystem: Option<String>,
    nsid: Option<u32>,
}

const fn block_bytes() -> u32 {
    LogicalBlock::Block.bytes()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToGrow {
    volume: String,
    size_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRename {
    volume: String,
    name: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToDelete {
    volume: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToCopy {
    volume: String,
    copy: String,
    subsystem: Option<String>,
    nsid: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToExport {
    volume: String,
    subsystem: String,
    nsid: Option<u32>,
}

/// Carries out a method of volumes; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    Some(match method {
        "volume.list" => Ok(json!(list(reporter))),
        "volume.create" => create(reporter, params),
        "volume.grow" => grow(reporter, params),
        "volume.rename" => rename(reporter, params),
        "volume.delete" => delete(reporter, params),
        "volume.copy" => copy(reporter, params),
        "volume.export" => export(reporter, params),
        _ => return None,
    })
}

fn list(reporter: &Reporter) -> Listed {
    let tables = reporter.shards.tables();
    let jobs = reporter.shards.statuses().into_iter().flat_map(|status| status.jobs).collect::<Vec<_>>();
    Listed { volumes: statuses(&reporter.fixed, &tables, &jobs), arrays: spaces(reporter, &tables) }
}

/// All volumes as people see them.
pub(super) fn statuses(fixed: &Fixed, tables: &VolumeTables, jobs: &[JobStatus]) -> Vec<VolumeStatus> {
    let arrays = (0u16..).map(ArrayId).zip(&fixed.maps).zip(&tables.metadata);
    let each = arrays.flat_map(|((id, map), metadata)| metadata.volumes.iter().map(move |record| (id, map, record)));
    let status = |(id, map, record): (ArrayId, &Snapshot<engine::map::ArrayMap>, &VolumeRecord)| {
        let (subsystem, nsid) = exported(tables, id, record).unwrap_or_default();
        let job = jobs.iter().find(|job| job.array == id && job.volume == record.id);
        VolumeStatus {
            array: map.name.clone(),
            name: record.name.clone(),
            uuid: record.uuid.to_string(),
            bytes: record.blocks * BLOCK as u64,
            logical_block_bytes: record.logical.bytes(),
            subsystem,
            nsid,
            state: match record.state {
                VolumeState::Ready => "ready",
                VolumeState::Copying => "copying",
                VolumeState::Cleaning => "cleaning",
            }
            .to_owned(),
            progress: job.map(|job| job.done_blocks as f64 / job.total_blocks.max(1) as f64),
            origin: match record.origin {
                Origin::Config => "config",
                Origin::Runtime => "runtime",
            }
            .to_owned(),
        }
    };
    each.map(status).collect()
}

/// The first place at which hosts find a volume.
fn exported(tables: &VolumeTables, array: ArrayId, record: &VolumeRecord) -> Option<(String, u32)> {
    let at = place(tables, array, record.id)?;
    let subsystems = tables.exports.iter().flat_map(|exports| exports.subsystems());
    let namespaces = subsystems.flat_map(|one| one.namespaces.iter().map(|namespace| (one.nqn.clone(), namespace)));
    let mut found = namespaces.filter(|(_, namespace)| namespace.volume == at);
    found.next().map(|(nqn, namespace)| (nqn, namespace.nsid))
}

/// A volume's number while it is served.
fn place(tables: &VolumeTables, array: ArrayId, record: u32) -> Option<VolumeId> {
    let is_it = |volume: &Volume| volume.array == array && volume.record == record && !volume.leaving;
    tables.volumes.iter().position(is_it).map(|at| VolumeId(at as u32))
}

fn spaces(reporter: &Reporter, tables: &VolumeTables) -> Vec<Space> {
    let shards = reporter.shards.statuses();
    let space = |(at, map): (usize, &Snapshot<engine::map::ArrayMap>)| {
        let parts = shards.iter().filter_map(|said| said.arrays.get(at));
        // It becomes more when an array has got a further member.
        let geometry = parts.max_by_key(|part| part.epoch).map_or(*map.space(), |part| part.space);
        let metadata = &tables.metadata[at];
        Space {
            array: map.name.clone(),
            capacity_bytes: geometry.blocks() * BLOCK as u64,
            free_bytes: metadata.free_blocks(&geometry) * BLOCK as u64,
            cleaning_bytes: metadata.cleaning_blocks() * BLOCK as u64,
        }
    };
    reporter.fixed.maps.iter().enumerate().map(space).collect()
}

fn create(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let ToMake { volume, size_bytes, logical_block_bytes, subsystem, nsid } = take(params)?;
    let (array, name) = new_path(reporter, &volume)?;
    let export = to_export(subsystem, nsid)?;
    let (random, blocks) = ([entropy(), entropy()], blocks(size_bytes)?);
    let logical = LogicalBlock::of_bytes(logical_block_bytes)
        .ok_or_else(|| format!("logical blocks have 512 or 4096 bytes, not {logical_block_bytes}"))?;
    let verb = VolumeVerb::Create { name: name.to_owned(), blocks, logical, random, export, copy_of: None };
    command(reporter, array, &volume, verb)?;
    show(reporter, array, name)
}

fn grow(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let ToGrow { volume, size_bytes } = take(params)?;
    let (array, record) = find(reporter, &volume)?;
    command(reporter, array, &volume, VolumeVerb::Grow { volume: record.id, blocks: blocks(size_bytes)? })?;
    show(reporter, array, &record.name)
}

fn rename(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let ToRename { volume, name, force } = take(params)?;
    let (array, record) = find(reporter, &volume)?;
    if reporter.fixed.is_configured(&volume) && !force {
        return Err(format!(
            "the configuration names {volume}: under another name it would be made again, empty, at the next start. Change the \
             configuration too, and say --force"
        ));
    }
    command(reporter, array, &volume, VolumeVerb::Rename { volume: record.id, name: name.clone() })?;
    show(reporter, array, &name)
}

fn delete(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let ToDelete { volume, force } = take(params)?;
    let (array, record) = find(reporter, &volume)?;
    if !force {
        if reporter.fixed.is_configured(&volume) {
            return Err(format!(
                "the configuration names {volume}: at the next start it would be made again, empty. Take it out of the \
                 configuration, or say --force"
            ));
        }
        let tables = reporter.shards.tables();
        if let Some((subsystem, nsid)) = exported(&tables, array, &record) {
            let mut hosts: Vec<String> = reporter
                .shards
                .statuses()
                .into_iter()
                .flat_map(|status| status.connections)
                .filter(|connection| connection.subsystem == subsystem)
                .map(|connection| connection.host)
                .collect();
            hosts.sort_unstable();
            hosts.dedup();
            if !hosts.is_empty() {
                let hosts = hosts.join(", ");
                return Err(format!(
                    "{volume} is namespace {nsid} of {subsystem}, to which {hosts} are connected. Disconnect them, or say --force"
                ));
            }
        }
    }
    command(reporter, array, &volume, VolumeVerb::Delete { volume: record.id })?;
    Ok(json!({ "volume": volume }))
}

fn copy(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let ToCopy { volume, copy, subsystem, nsid } = take(params)?;
    let (from, source) = find(reporter, &volume)?;
    let (array, name) = new_path(reporter, &copy)?;
    let tables = reporter.shards.tables();
    let source_place = place(&tables, from, source.id).ok_or_else(|| format!("volume {volume} is not ready"))?;
    let verb = VolumeVerb::Create {
        name: name.to_owned(),
        blocks: source.blocks,
        logical: source.logical,
        random: [entropy(), entropy()],
        export: to_export(subsystem, nsid)?,
        copy_of: Some(source_place),
    };
    command(reporter, array, &copy, verb)?;
    show(reporter, array, name)
}

fn export(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let ToExport { volume, subsystem, nsid } = take(params)?;
    let (array, record) = find(reporter, &volume)?;
    let verb = VolumeVerb::Export { volume: record.id, export: Export { subsystem, nsid } };
    command(reporter, array, &volume, verb)?;
    show(reporter, array, &record.name)
}

fn to_export(subsystem: Option<String>, nsid: Option<u32>) -> Result<Option<Export>, String> {
    match (subsystem, nsid) {
        (None, Some(_)) => Err("a namespace identifier needs a subsystem: name it as well".to_owned()),
        (subsystem, nsid) => Ok(subsystem.map(|subsystem| Export { subsystem, nsid })),
    }
}

fn command(reporter: &Reporter, array: ArrayId, volume: &str, verb: VolumeVerb) -> Result<(), String> {
    reporter.shards.command(Verb::Volume { array, verb }).map_err(|error| {
        let elsewhere = match &error {
            CommandError::Refused(Refusal::Table(why)) if matches!(**why, MetadataError::NoSpace { .. }) => {
                free_elsewhere(reporter, array)
            }
            _ => String::new(),
        };
        format!("{volume}: {error}{elsewhere}")
    })
}

/// Where else there is room, for who has too little.
fn free_elsewhere(reporter: &Reporter, array: ArrayId) -> String {
    let all = spaces(reporter, &reporter.shards.tables());
    let others = all.iter().enumerate().filter(|(at, space)| *at != array.index() && space.free_bytes > 0);
    let words: Vec<String> =
        others.map(|(_, space)| format!("array {} has {}", space.array, size(space.free_bytes))).collect();
    if words.is_empty() { String::new() } else { format!(". Free elsewhere: {}", words.join(", ")) }
}

/// A volume as it is now.
fn show(reporter: &Reporter, array: ArrayId, name: &str) -> Result<Value, String> {
    let tables = reporter.shards.tables();
    let of = &reporter.fixed.maps[array.index()].name;
    let all = statuses(&reporter.fixed, &tables, &[]);
    let found = all.into_iter().find(|volume| volume.array == *of && volume.name == name);
    found.map(|volume| json!(volume)).ok_or_else(|| format!("volume {of}/{name} was there, and is not any more"))
}

fn split<'a>(reporter: &Reporter, path: &'a str) -> Result<(ArrayId, &'a str), String> {
    let (array, name) =
        path.split_once('/').ok_or_else(|| format!("{path} is no volume: write array/volume, such as a0/v0"))?;
    let known = || reporter.fixed.maps.iter().map(|map| map.name.as_str()).collect::<Vec<_>>().join(", ");
    let at = reporter.fixed.maps.iter().position(|map| map.name == array);
    let at = at.ok_or_else(|| format!("there is no array of the name {array}; there are {}", known()))?;
    Ok((ArrayId(at as u16), name))
}

fn new_path<'a>(reporter: &Reporter, path: &'a str) -> Result<(ArrayId, &'a str), String> {
    split(reporter, path)
}

fn find(reporter: &Reporter, path: &str) -> Result<(ArrayId, VolumeRecord), String> {
    let (array, name) = split(reporter, path)?;
    let tables = reporter.shards.tables();
    let record = tables.metadata[array.index()].find(name).cloned();
    Ok((array, record.ok_or_else(|| format!("there is no volume {path}: brindle volume list shows all"))?))
}

fn blocks(bytes: u64) -> Result<u64, String> {
    if !bytes.is_multiple_of(BLOCK as u64) {
        return Err(format!("{bytes} bytes are no size of a volume: whole blocks of 4KiB"));
    }
    Ok(bytes / BLOCK as u64)
}
