//! What volumes there are and where hosts find them. A change is worked out on a copy of the array's table, and its steps are
//! taken in an order that a crash may cut anywhere:
//!
//! - *Made, grown, renamed*: the table is written to every member, and only then are shards told.
//! - *Deleted*: shards are told first. Each refuses what is new and says when nothing is under way at the volume any more
//!   (*drained*); only then is the table written, in which the volume's space waits for being cleaned. A crash before that
//!   leaves the volume as it was, and nobody has been told otherwise.
//! - *Cleaned*: zeros for all the space are durable in the log; the table is written without it, and it may be handed out.
//!
//! So free space reads as zeros whenever the power fails (rule L7). Clearing the bits of zones that are wholly free would be
//! cheaper and is not possible: what members say of initialised zones is united at a start, so that a bit once set comes back
//! from whoever missed its clearing, and the old content with it. Zones that were never written cost nothing to clean, and
//! everything else goes through the log like any write: destage, rebuild and scrub need not know of it.
//!
//! One change is under way at a time; others wait in order, bounded. A table that a member fails to take is written again, at
//! its same number, to those that stay, once that member is excluded.

use std::collections::VecDeque;
use std::sync::Arc;

use base::ids::{ArrayId, VolumeId};
use base::snapshot::Snapshot;
use nvme::identify::NamespaceIdentity;
use nvmf::subsystem::{Exports, Namespace, Subsystem};
use ports::Ports;
use raid::{ExportRecord, Metadata, Origin, VolumeRecord, VolumeSpec, VolumeState};

use super::{Change, Coordinator};
use crate::array::Purpose;
use crate::command::{Event, Export, Refusal, VolumeVerb, VolumeWhat};
use crate::jobs::{JobEnd, Task};
use crate::limits::{MAX_COMMANDS, MAX_COPIES, MAX_VOLUMES, atomic_blocks};
use crate::map::{ArrayMap, OnLogLoss, Service, Volume, VolumeTables, extents_of};
use crate::message::Message;
use crate::operations::Operations;
use crate::router::Router;

/// A change that is wanted.
#[derive(Debug)]
struct Wanted {
    /// Who waits for it.
    ticket: Option<u64>,
    array: ArrayId,
    verb: Edit,
}

/// What is to be changed.
#[derive(Debug)]
enum Edit {
    /// What an operator wants.
    Asked(VolumeVerb),
    /// The space of a deleted volume is clean.
    Cleaned(u32),
    /// A copy is whole.
    Copied(u32),
    /// A copy will never be whole.
    Discard(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Tell the shards, and wait until all have taken it.
    Publish,
    /// Write the table.
    Persist,
}

/// The change under way.
#[derive(Debug)]
pub(super) struct VolumeChange {
    ticket: Option<u64>,
    array: ArrayId,
    /// What the array's table will be.
    next: Arc<Metadata>,
    /// What shards will go by.
    tables: Arc<VolumeTables>,
    steps: VecDeque<Step>,
    under_way: Option<Step>,
    /// Shards that have not taken what was published.
    untaken: u16,
    what: VolumeWhat,
    volume: u32,
    name: String,
    /// A job that begins with it.
    job: Option<Task>,
    /// Where its volume is exported once it is whole.
    later: Option<Export>,
}

/// Volumes, changes of them, and who waits for that.
#[derive(Debug)]
pub(super) struct Volumes {
    /// What shards go by.
    tables: Arc<VolumeTables>,
    wanted: VecDeque<Wanted>,
    change: Option<VolumeChange>,
    /// Places of copies under way to be exported at, by array and number.
    later_exports: Vec<(ArrayId, u32, Export)>,
}

impl Volumes {
    /// What shards go by.
    pub(super) fn tables(&self) -> &Arc<VolumeTables> {
        &self.tables
    }

    pub(super) fn new(
        volumes: crate::map::VolumeMap,
        exports: Option<Snapshot<Exports>>,
        metadata: Vec<Arc<Metadata>>,
    ) -> Self {
        let tables = Arc::new(VolumeTables { epoch: 0, volumes, exports, metadata });
        Self { tables, wanted: VecDeque::with_capacity(MAX_COMMANDS), change: None, later_exports: Vec::new() }
    }
}

impl Coordinator {
    /// Takes what an operator wants.
    pub(super) fn volume_command(&mut self, array: ArrayId, ticket: u64, verb: VolumeVerb) -> Result<(), Refusal> {
        if self.volumes.wanted.len() >= MAX_COMMANDS {
            return Err(Refusal::Busy);
        }
        self.volumes.wanted.push_back(Wanted { ticket: Some(ticket), array, verb: Edit::Asked(verb) });
        Ok(())
    }

    /// Refuses what has not begun: the appliance stops.
    pub(super) fn stop_volumes(&mut self) {
        self.jobs.stop();
        for wanted in core::mem::take(&mut self.volumes.wanted) {
            if let Some(ticket) = wanted.ticket {
                self.answer(ticket, Err(Refusal::Stopping));
            }
        }
    }

    /// The shards end: what is not in force by now will not be.
    pub(super) fn end_volumes(&mut self) {
        if let Some(ticket) = self.volumes.change.as_mut().and_then(|change| change.ticket.take()) {
            self.answer(ticket, Err(Refusal::Stopping));
        }
    }

    /// A shard goes by a table now, and nothing is under way at what left with it.
    pub(super) fn volumes_taken(&mut self, epoch: u64) {
        let Some(change) = &mut self.volumes.change else { return };
        if change.under_way == Some(Step::Publish) && change.tables.epoch == epoch {
            change.untaken -= 1;
            if change.untaken == 0 {
                change.under_way = None;
            }
        }
    }

    /// Runs jobs, on behalf of the shard whose router this is.
    pub(crate) fn run_jobs<P: Ports<Message = Message>>(&mut self, ports: &mut P, router: &mut Router) -> bool {
        let mut worked = self.jobs.turn(ports, router);
        worked |= self.go_on_copying(ports, router);
        while let Some(JobEnd { array, volume, result }) = self.jobs.ended() {
            let record = self.arrays[array.index()].array.metadata.by_id(volume);
            let edit = match (record.map(|record| record.state), result) {
                (Some(VolumeState::Cleaning), Ok(())) => Edit::Cleaned(volume),
                (Some(VolumeState::Copying), Ok(())) => Edit::Copied(volume),
                (Some(VolumeState::Copying), Err(_)) => Edit::Discard(volume),
                // It was deleted meanwhile.
                _ => continue,
            };
            self.volumes.wanted.push_back(Wanted { ticket: None, array, verb: edit });
        }
        worked
    }

    /// Takes the change under way further, or begins the next one; whether anything was done.
    pub(super) fn maintain_volumes<P: Ports>(&mut self, ports: &mut P, operations: &mut Operations<Purpose>) -> bool {
        let Some(change) = &mut self.volumes.change else { return self.begin_volume_change() };
        if change.under_way.is_some() {
            return false;
        }
        let id = change.array;
        match change.steps.front() {
            None => self.finish_volume_change(),
            Some(Step::Publish) => {
                change.steps.pop_front();
                change.under_way = Some(Step::Publish);
                change.untaken = self.shards;
                let VolumeTables { volumes, exports, .. } = &*change.tables;
                // Where nobody can write to it, as far as the machine has such a place.
                let sealed = VolumeTables {
                    volumes: ports.seal("volume map", (**volumes).clone()),
                    exports: exports.as_ref().map(|exports| ports.seal("exports", (**exports).clone())),
                    ..(*change.tables).clone()
                };
                let tables = Arc::new(sealed);
                change.tables = Arc::clone(&tables);
                self.tell_all(|| Message::Volumes(Arc::clone(&tables)));
            }
            Some(Step::Persist) => {
                let array = &self.arrays[id.index()];
                if array.array.map.service == Service::Failed {
                    self.give_up_volume_change();
                    return true;
                }
                let members = array.array.superblocks.len();
                let busy = !matches!(array.change, Change::None)
                    || !array.pending.is_empty()
                    || self.table_buffers.iter().any(|buffer| operations.is_held(buffer.id()));
                if busy || operations.available() <= members {
                    return false;
                }
                change.steps.pop_front();
                change.under_way = Some(Step::Persist);
                let next = Arc::clone(&change.next);
                self.write_table(ports, operations, id, &next);
            }
        }
        true
    }

    /// The table was written, or must be written again.
    pub(super) fn table_written(&mut self, id: ArrayId, failed: bool) {
        let change = self.volumes.change.as_mut().expect("a table is written for a change");
        change.under_way = None;
        if failed {
            change.steps.push_front(Step::Persist);
            return;
        }
        let array = &mut self.arrays[id.index()].array;
        array.metadata = Arc::clone(&change.next);
        array.table_update += 1;
    }

    fn finish_volume_change(&mut self) {
        let change = self.volumes.change.take().expect("the caller has seen it");
        let VolumeChange { ticket, array, tables, what, volume, name, job, later, .. } = change;
        self.volumes.tables = Arc::clone(&tables);
        self.news.push_back(Message::Volumes(tables));
        if matches!(what, VolumeWhat::Deleted | VolumeWhat::Copied) {
            self.volumes.later_exports.retain(|(of, number, _)| (*of, *number) != (array, volume));
        }
        self.tell(Event::Volume { array, volume: name, what });
        if let Some(ticket) = ticket {
            self.answer(ticket, Ok(()));
        }
        if let Some(task) = job {
            self.volumes.later_exports.extend(later.map(|export| (array, volume, export)));
            self.jobs.start(array, volume, task);
        }
    }

    /// The array takes no table any more. What was published and not written is taken back.
    fn give_up_volume_change(&mut self) {
        let change = self.volumes.change.take().expect("the caller has seen it");
        let mut before = (*self.volumes.tables).clone();
        before.epoch = change.tables.epoch + 1;
        let before = Arc::new(before);
        self.volumes.tables = Arc::clone(&before);
        self.tell_all(|| Message::Volumes(Arc::clone(&before)));
        if let Some(ticket) = change.ticket {
            self.answer(ticket, Err(Refusal::Down));
        }
    }

    fn begin_volume_change(&mut self) -> bool {
        if self.stopping {
            return false;
        }
        let Some(Wanted { ticket, array, verb }) = self.volumes.wanted.pop_front() else { return self.begin_duty() };
        match self.plan_volume_change(array, verb) {
            Ok(change) => self.volumes.change = Some(VolumeChange { ticket, ..change }),
            Err(refusal) => {
                if let Some(ticket) = ticket {
                    self.answer(ticket, Err(refusal));
                }
            }
        }
        true
    }

    /// What a table asks for by itself: deleted volumes are cleaned, one at a time in each array, and copies that nobody
    /// works on are discarded.
    fn begin_duty(&mut self) -> bool {
        for index in 0..self.arrays.len() {
            let (id, array) = (ArrayId(index as u16), &self.arrays[index].array);
            if array.map.service != Service::ReadWrite {
                continue;
            }
            let records = &array.metadata.volumes;
            let is_idle = |record: &&VolumeRecord, state| record.state == state && !self.jobs.has(id, record.id);
            if let Some(half) = records.iter().find(|record| is_idle(record, VolumeState::Copying)) {
                let verb = Edit::Discard(half.id);
                self.volumes.wanted.push_back(Wanted { ticket: None, array: id, verb });
                return true;
            }
            let deleted = records.iter().find(|record| record.state == VolumeState::Cleaning);
            if let Some(deleted) = deleted.filter(|deleted| !self.jobs.has(id, deleted.id)) {
                self.jobs.start(id, deleted.id, Task::Clean { extents: extents_of(deleted) });
                return true;
            }
        }
        false
    }

    fn plan_volume_change(&mut self, id: ArrayId, edit: Edit) -> Result<VolumeChange, Refusal> {
        let array = &self.arrays[id.index()].array;
        if array.map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        let (map, mut next) = (array.map.clone(), (*array.metadata).clone());
        let table = |error: raid::MetadataError| Refusal::Table(Box::new(error));
        let name_of =
            |next: &Metadata, volume| next.by_id(volume).map_or_else(String::new, |record| record.name.clone());
        let mut steps = VecDeque::from([Step::Persist, Step::Publish]);
        let (mut export, mut later) = (None, None);
        let mut job = None;
        let (volume, name, what) = match edit {
            Edit::Asked(VolumeVerb::Create { name, blocks, logical, random, export: to, copy_of }) => {
                let spec = VolumeSpec { name: &name, blocks, logical };
                let made = next.create_volume(map.space(), spec, random, Origin::Runtime).map_err(table)?;
                let made = made.id;
                let copied = copy_of.map(|from| self.copy_source(from)).transpose()?;
                if let Some((from, blocks)) = copied {
                    if self.jobs.copies() >= MAX_COPIES {
                        return Err(Refusal::Busy);
                    }
                    next.set_copying(made, true).map_err(table)?;
                    // Its place in the table is the next one.
                    let to = VolumeId(self.volumes.tables.volumes.len() as u32);
                    job = Some(Task::Copy { from, to, blocks });
                }
                match (to, copied) {
                    (Some(to), None) => export = Some(to),
                    (Some(to), Some(_)) => {
                        // Refused now, not after hours.
                        self.place_for(&to)?;
                        later = Some(to);
                    }
                    (None, _) => {}
                }
                (made, name, VolumeWhat::Created { blocks, copied: copied.is_some() })
            }
            Edit::Asked(VolumeVerb::Grow { volume, blocks }) => {
                next.grow_volume(map.space(), volume, blocks).map_err(table)?;
                (volume, name_of(&next, volume), VolumeWhat::Grown { blocks })
            }
            Edit::Asked(VolumeVerb::Rename { volume, name }) => {
                let from = name_of(&next, volume);
                next.rename_volume(volume, &name).map_err(table)?;
                (volume, name, VolumeWhat::Renamed { from })
            }
            Edit::Asked(VolumeVerb::Export { volume, export: to }) => {
                next.ready(volume).map_err(table)?;
                export = Some(to);
                (volume, name_of(&next, volume), VolumeWhat::Exported)
            }
            Edit::Asked(VolumeVerb::Delete { volume }) | Edit::Discard(volume) => {
                let name = name_of(&next, volume);
                next.delete_volume(volume).map_err(table)?;
                self.jobs.cancel(id, volume);
                steps = VecDeque::from([Step::Publish, Step::Persist]);
                (volume, name, VolumeWhat::Deleted)
            }
            Edit::Cleaned(volume) => {
                let name = name_of(&next, volume);
                next.cleaned(volume).map_err(table)?;
                steps = VecDeque::from([Step::Persist]);
                (volume, name, VolumeWhat::Cleaned)
            }
            Edit::Copied(volume) => {
                next.set_copying(volume, false).map_err(table)?;
                let place = self.volumes.later_exports.iter().find(|(of, number, _)| (*of, *number) == (id, volume));
                // Somebody may have taken its place meanwhile: then it is there, and not exported.
                export = place.map(|(.., export)| export.clone()).filter(|export| self.place_for(export).is_ok());
                (volume, name_of(&next, volume), VolumeWhat::Copied)
            }
        };
        let export = match export {
            Some(export) => {
                let nsid = self.place_for(&export)?;
                let record = ExportRecord { subsystem: export.subsystem, nsid };
                next.export_volume(volume, record.clone()).map_err(table)?;
                Some(record)
            }
            None => None,
        };
        let tables = self.next_tables(id, &map, &next, export.as_ref())?;
        Ok(VolumeChange {
            ticket: None,
            array: id,
            next: Arc::new(next),
            tables: Arc::new(tables),
            steps,
            under_way: None,
            untaken: 0,
            what,
            volume,
            name,
            job,
            later,
        })
    }

    /// The volume that is to be copied, and its size.
    fn copy_source(&self, from: VolumeId) -> Result<(VolumeId, u64), Refusal> {
        let volume = self.volumes.tables.volumes.get(from.index()).filter(|volume| !volume.leaving);
        let volume = volume.ok_or(Refusal::Table(Box::new(raid::MetadataError::NoVolume)))?;
        self.arrays[volume.array.index()]
            .array
            .metadata
            .ready(volume.record)
            .map_err(|error| Refusal::Table(Box::new(error)))?;
        Ok((from, volume.blocks))
    }

    /// The namespace identifier that an export gets: what was asked for, or the lowest that is free.
    fn place_for(&self, export: &Export) -> Result<u32, Refusal> {
        let exports = self.volumes.tables.exports.as_ref();
        let found = exports.and_then(|exports| exports.find(&export.subsystem).map(|at| &exports.subsystems()[at]));
        let Some(subsystem) = found else { return Err(Refusal::NoSubsystem) };
        let is_free = |nsid: &u32| subsystem.namespace(*nsid).is_none();
        match export.nsid {
            Some(nsid) if !(1..=nvmf::limits::MAX_NAMESPACES).contains(&nsid) => Err(Refusal::NoNsid),
            Some(nsid) if is_free(&nsid) => Ok(nsid),
            Some(_) => Err(Refusal::NsidTaken),
            None => (1..=nvmf::limits::MAX_NAMESPACES).find(is_free).ok_or(Refusal::NoNsid),
        }
    }

    /// What shards go by once an array's table is `next`.
    fn next_tables(
        &self,
        id: ArrayId,
        map: &ArrayMap,
        next: &Metadata,
        export: Option<&ExportRecord>,
    ) -> Result<VolumeTables, Refusal> {
        let before = &self.volumes.tables;
        let mut volumes: Vec<Volume> = (*before.volumes).clone();
        for volume in volumes.iter_mut().filter(|volume| volume.array == id && !volume.leaving) {
            match next.by_id(volume.record).filter(|record| record.state != VolumeState::Cleaning) {
                Some(record) => *volume = Volume::of(map, record),
                // What is under way still finds its blocks.
                None => volume.leaving = true,
            }
        }
        let is_known =
            |record: &VolumeRecord| before.volumes.iter().any(|one| one.array == id && one.record == record.id);
        for record in next.volumes.iter().filter(|record| record.state != VolumeState::Cleaning && !is_known(record)) {
            if volumes.len() >= MAX_VOLUMES {
                return Err(Refusal::TooManyVolumes);
            }
            volumes.push(Volume::of(map, record));
        }
        let exports = before.exports.as_ref().map(|exports| {
            let added = export.and_then(|export| {
                let at = volumes.iter().position(|volume| {
                    volume.array == id && !volume.leaving && {
                        next.by_id(volume.record).is_some_and(|record| record.exports.contains(export))
                    }
                })?;
                let record = next.by_id(volumes[at].record)?;
                Some((export.subsystem.as_str(), namespace(map, record, VolumeId(at as u32), export.nsid)))
            });
            exports.with(|subsystems| change_exports(subsystems, &volumes, added))
        });
        let exports = exports.transpose().map_err(|_| Refusal::NoNsid)?.map(Snapshot::new);
        let mut metadata = before.metadata.clone();
        metadata[id.index()] = Arc::new(next.clone());
        Ok(VolumeTables { epoch: before.epoch + 1, volumes: Snapshot::new(volumes), exports, metadata })
    }
}

/// Takes namespaces out whose volumes leave, has the others say their volumes' sizes, and adds one.
fn change_exports(subsystems: &mut [Subsystem], volumes: &[Volume], added: Option<(&str, Namespace)>) {
    for subsystem in &mut *subsystems {
        subsystem.namespaces.retain(|namespace| !volumes[namespace.volume.index()].leaving);
        for namespace in &mut subsystem.namespaces {
            namespace.blocks = volumes[namespace.volume.index()].blocks;
        }
    }
    let Some((nqn, namespace)) = added else { return };
    if let Some(subsystem) = subsystems.iter_mut().find(|subsystem| subsystem.nqn == nqn) {
        let at = subsystem.namespaces.partition_point(|other| other.nsid < namespace.nsid);
        subsystem.namespaces.insert(at, namespace);
    }
}

/// A volume as hosts see it.
pub fn namespace(map: &ArrayMap, record: &VolumeRecord, volume: VolumeId, nsid: u32) -> Namespace {
    let identity = NamespaceIdentity { eui64: record.eui64.to_be_bytes(), nguid: record.nguid, uuid: record.uuid };
    let chunk_blocks = map.arrangement.chunk_blocks();
    let stripe_blocks = chunk_blocks * u32::from(map.space().data_slots());
    let atomic_blocks = atomic_blocks(chunk_blocks);
    // Without a log a write of several blocks may be cut in two, and hosts do not hear of it when the log is lost.
    let may_be_bare = map.is_bare() || map.on_log_loss == OnLogLoss::WriteThroughExposed;
    let power_fail_blocks = if may_be_bare { 1 } else { atomic_blocks };
    Namespace {
        nsid,
        volume,
        blocks: record.blocks,
        logical: record.logical,
        identity,
        chunk_blocks,
        stripe_blocks,
        atomic_blocks,
        power_fail_blocks,
    }
}
