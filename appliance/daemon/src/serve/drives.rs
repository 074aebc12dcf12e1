//! What drives are used for now, by what the shards say, and what an operator may have done with them: failed, kept as
//! spares, put in the place of others.

use std::collections::BTreeMap;

use base::ids::{ArrayId, DeviceId, Slot};
use base::uuid::Uuid;
use engine::boot::Found;
use engine::command::Verb;
use engine::coordinator::Spare;
use engine::status::ShardStatus;
use raid::Superblock;
use serde::Deserialize;
use serde_json::{Value, json};

use super::devices::look;
use super::entropy;
use super::fixed::{Place, Placed};
use super::methods::take;
use super::report::{Fixed, Reporter};

/// What a drive is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// The array's place in the configuration.
    pub(super) array: usize,
    pub(super) kind: UseKind,
}

/// As what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UseKind {
    Member {
        slot: u8,
        rebuilding: bool,
    },
    /// It is to succeed the member of this slot.
    Successor {
        slot: u8,
    },
    Copy {
        copy: u8,
        joining: bool,
    },
    Spare,
}

impl Use {
    /// In words, with the array's name.
    pub(super) fn role(self, array: &str) -> String {
        match self.kind {
            UseKind::Member { slot, .. } => format!("{array} member {slot}"),
            UseKind::Successor { slot } => format!("{array} member {slot}, next"),
            UseKind::Copy { copy, .. } => format!("{array} log {copy}"),
            UseKind::Spare => format!("{array} spare"),
        }
    }

    /// The place among the log's copies that it has.
    pub(super) fn copy(self) -> Option<u8> {
        match self.kind {
            UseKind::Copy { copy, joining: false } => Some(copy),
            _ => None,
        }
    }
}

/// What the open drives are used for now. As long as no shard says anything, as they were at the start.
pub(super) fn uses(fixed: &Fixed, shards: &[ShardStatus]) -> BTreeMap<DeviceId, Use> {
    let mut uses = BTreeMap::new();
    for (array, map) in fixed.maps.iter().enumerate() {
        let parts: Vec<_> = shards.iter().filter_map(|said| said.arrays.get(array)).collect();
        let (members, copies, rebuilding) = match parts.iter().max_by_key(|part| part.epoch) {
            Some(newest) => (newest.members.clone(), newest.copies.clone(), newest.rebuilding_members.clone()),
            None => (
                map.members.iter().map(|member| Some(member.as_ref()?.device)).collect(),
                map.copies.clone(),
                Vec::new(),
            ),
        };
        let spares = parts
            .iter()
            .flat_map(|part| part.spares.iter().chain(&part.joining))
            .map(|&device| (device, UseKind::Spare));
        let members = (0u8..).zip(members).filter_map(|(slot, device)| {
            Some((device?, UseKind::Member { slot, rebuilding: rebuilding.contains(&slot) }))
        });
        let copies =
            (0u8..).zip(copies).filter_map(|(copy, device)| Some((device?, UseKind::Copy { copy, joining: false })));
        let joining = parts.iter().filter_map(|part| part.attach);
        let joining = joining.map(|attach| (attach.device, UseKind::Copy { copy: attach.copy, joining: true }));
        let successor = parts.iter().filter_map(|part| part.successor);
        let successor = successor.map(|(slot, device)| (device, UseKind::Successor { slot: slot.0 }));
        // Whoever is a member meanwhile is a spare no longer.
        let all = spares.chain(joining).chain(copies).chain(successor).chain(members);
        uses.extend(all.map(|(device, kind)| (device, Use { array, kind })));
    }
    uses
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDrive {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    name: String,
    array: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    old: String,
    new: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRebuild {
    array: String,
    paused: bool,
}

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    Some(match method {
        "drive.fail" => fail(reporter, params),
        "drive.add" => give(reporter, params, |array, spare| Verb::AddSpare { array, spare }),
        "array.grow" => give(reporter, params, |array, spare| Verb::Grow { array, spare }),
        "drive.replace" => replace(reporter, params),
        "drive.return" => give_back(reporter, params),
        "drive.show" => super::wipe::show(reporter, params),
        "drive.wipe" => super::wipe::begin(reporter, params),
        "drive.wipe.status" => super::wipe::status(reporter, params),
        "drive.locate" => super::locate::call(reporter, params),
        "drive.rescan" => super::rescan::call(reporter),
        "array.rebuild" => rebuild(reporter, params),
        _ if method.starts_with("array.scrub.") => return super::scrubs::call(reporter, method, params),
        _ => return None,
    })
}

/// Uses a drive no longer.
fn fail(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfDrive { name } = take(params)?;
    let placed = find(reporter, &name)?;
    let used = uses(&reporter.fixed, &reporter.shards.statuses()).get(&placed.id).copied();
    let used = used.ok_or_else(|| format!("drive {name} is not in use"))?;
    let array = ArrayId(used.array as u16);
    let verb = match used.kind {
        UseKind::Member { slot, .. } => Verb::FailMember { array, slot: Slot(slot) },
        // The member stays.
        UseKind::Successor { .. } => Verb::CancelSuccession { array },
        UseKind::Copy { joining: true, .. } => return Err(format!("drive {name} is no copy of the log yet")),
        UseKind::Copy { copy, .. } => Verb::FailCopy { array, copy },
        UseKind::Spare => return Err(format!("drive {name} is a spare and not in use")),
    };
    reporter.shards.command(verb).map_err(|error| format!("drive {name}: {error}"))?;
    Ok(json!({ "drive": name }))
}

/// Gives a free drive to an array, to be what this asks for.
fn give(reporter: &Reporter, params: Value, verb: impl FnOnce(ArrayId, Spare) -> Verb) -> Result<Value, String> {
    let Add { name, array, force } = take(params)?;
    let _drives = reporter.changing()?;
    let at = array_of(reporter, &array)?;
    let spare = free_drive(reporter, &name, at, Wanted::Member, force)?;
    let verb = verb(ArrayId(at as u16), spare);
    reporter.shards.command(verb).map_err(|error| format!("drive {name}: {error}"))?;
    Ok(json!({ "drive": name, "array": array }))
}

/// Puts a drive in the place of one that is out, or of one that is in use once it is its like.
fn replace(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Replace { old, new, force } = take(params)?;
    let _drives = reporter.changing()?;
    let placed = find(reporter, &old)?;
    let shards = reporter.shards.statuses();
    match uses(&reporter.fixed, &shards).get(&placed.id).copied() {
        Some(Use { array: at, kind: UseKind::Member { slot, .. } }) => {
            let spare = free_drive(reporter, &new, at, Wanted::Member, force)?;
            let verb = Verb::Succeed { array: ArrayId(at as u16), slot: Slot(slot), spare };
            reporter.shards.command(verb).map_err(|error| format!("drive {new}: {error}"))?;
            let array = &reporter.fixed.maps[at].name;
            return Ok(json!({ "drive": new, "array": array, "member": slot, "in_use": true }));
        }
        Some(used) => {
            let role = used.role(&reporter.fixed.maps[used.array].name);
            let what = if used.copy().is_some() {
                "brindle log replace is for that"
            } else {
                "it holds no data to be replaced"
            };
            return Err(format!("drive {old} is {role}: {what}"));
        }
        None => {}
    }
    let at = placed.array.or_else(|| bears_witness(reporter, placed));
    let at = at.ok_or_else(|| format!("drive {old} belongs to no array"))?;
    let part = shards.iter().filter_map(|said| said.arrays.get(at)).max_by_key(|part| part.epoch);
    let empty = part.ok_or("the reactors are too busy to say how they are: try again")?.missing_members.clone();
    let slot = match (placed.place, &empty[..]) {
        (Some(Place::Member(slot)), empty) if empty.contains(&slot) => slot,
        (_, &[only]) => only,
        (_, []) => return Err(format!("the array of drive {old} has no place without a member")),
        _ => return Err(format!("the array lacks members {empty:?}, and nobody knows which of them drive {old} was")),
    };
    let spare = free_drive(reporter, &new, at, Wanted::Member, force)?;
    let verb = Verb::Replace { array: ArrayId(at as u16), slot: Slot(slot), spare };
    reporter.shards.command(verb).map_err(|error| format!("drive {new}: {error}"))?;
    Ok(json!({ "drive": new, "array": reporter.fixed.maps[at].name, "member": slot }))
}

/// Gives its place back to a drive that was out, with what it holds.
fn give_back(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfDrive { name } = take(params)?;
    let _drives = reporter.changing()?;
    let (spare, found, what) = unused(reporter, find(reporter, &name)?, |_| false)?;
    let said = match found {
        Found::Member(said) => Some(said),
        Found::Log(_) | Found::Unusable(_) | Found::Nothing => None,
    };
    let at = |said: &Superblock| reporter.fixed.maps.iter().position(|map| map.uuid == said.array);
    let Some((at, said)) = said.and_then(|said| Some((at(&said)?, said))) else {
        let what = what.unwrap_or_else(|| "nothing".to_owned());
        return Err(format!("drive {name} bears {what}, and was no member of an array that is served here"));
    };
    let slot = said.slot;
    let verb = Verb::Return { array: ArrayId(at as u16), spare, said };
    reporter.shards.command(verb).map_err(|error| format!("drive {name}: {error}"))?;
    Ok(json!({ "drive": name, "array": reporter.fixed.maps[at].name, "member": slot }))
}

/// The array of which a drive says that it is, or was, a member: one that joined while serving is named by none.
fn bears_witness(reporter: &Reporter, placed: &Placed) -> Option<usize> {
    match look(reporter.devices.get(placed.id)?) {
        Ok((Found::Member(said), _)) => reporter.fixed.maps.iter().position(|map| map.uuid == said.array),
        _ => None,
    }
}

/// Lets a rebuild wait, or go on.
fn rebuild(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfRebuild { array, paused } = take(params)?;
    let at = array_of(reporter, &array)?;
    let verb = Verb::PauseRebuild { array: ArrayId(at as u16), paused };
    reporter.shards.command(verb).map_err(|error| format!("array {array}: {error}"))?;
    Ok(json!({ "array": array, "paused": paused }))
}

/// What a drive is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The place of a member; a spare may have it.
    Member,
    /// A copy of the log.
    Copy,
}

/// A drive that may be overwritten: nothing uses it, and it bears nothing, or the operator insists.
pub(super) fn free_drive(
    reporter: &Reporter,
    name: &str,
    array: usize,
    wanted: Wanted,
    force: bool,
) -> Result<Spare, String> {
    let placed = find(reporter, name)?;
    if placed.array.is_some_and(|other| other != array) {
        return Err(format!("drive {name} belongs to another array ({})", placed.role));
    }
    let is_its_spare = |used: &Use| used.kind == UseKind::Spare && used.array == array;
    let (spare, found, what) = unused(reporter, placed, |used| wanted == Wanted::Member && is_its_spare(used))?;
    let own = reporter.fixed.maps[array].uuid;
    let was_never_whole = match &found {
        Found::Member(said) => said.array == own && matches!(said.entry().state, raid::State::Rebuilding { .. }),
        Found::Log(said) => said.identity.array == own && said.joining,
        Found::Nothing | Found::Unusable(_) => false,
    };
    if let Some(what) = what
        && !force
        && !was_never_whole
    {
        return Err(format!("drive {name} bears {what}: say --force if that is to be overwritten"));
    }
    Ok(spare)
}

/// A drive that nothing uses, but for what it may be used for, and what it bears, in words if it is anything.
fn unused(
    reporter: &Reporter,
    placed: &Placed,
    may_be_used: impl Fn(&Use) -> bool,
) -> Result<(Spare, Found, Option<String>), String> {
    let name = &placed.described.name;
    let open = reporter.devices.get(placed.id);
    let open =
        open.ok_or_else(|| format!("nothing is open at the path of drive {name}: brindle drive rescan looks again"))?;
    let used = uses(&reporter.fixed, &reporter.shards.statuses()).remove(&placed.id);
    if let Some(used) = used.filter(|used| !may_be_used(used)) {
        let role = used.role(&reporter.fixed.maps[used.array].name);
        return Err(format!("drive {name} is in use, as {role}"));
    }
    if reporter.wipes.is_running(placed.id) {
        return Err(format!("drive {name} is being wiped"));
    }
    let blocks = open.blocks();
    let (found, what) = look(open).map_err(|error| error.to_string())?;
    Ok((spare(placed.id, blocks), found, what))
}

/// A drive as arrays take it, with an identity for what it becomes.
pub(super) fn spare(device: DeviceId, blocks: u64) -> Spare {
    Spare { device, blocks, uuid: Uuid::from_random([entropy(), entropy()]) }
}

pub(super) fn find<'a>(reporter: &'a Reporter, name: &str) -> Result<&'a Placed, String> {
    let found = reporter.fixed.devices.iter().find(|placed| placed.described.name == name);
    found.ok_or_else(|| format!("there is no drive of the name {name}: brindle status lists them"))
}

pub(super) fn array_of(reporter: &Reporter, name: &str) -> Result<usize, String> {
    let found = reporter.fixed.maps.iter().position(|map| map.name == name);
    found.ok_or_else(|| format!("there is no array of the name {name}: brindle status lists them"))
}
