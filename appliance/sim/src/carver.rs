//! An operator beside the hosts: makes, grows, renames, copies and deletes volumes while hosts work and the power fails, and
//! writes to them. It knows what each may hold, and what volumes there may be: a new one reads as zeros, whatever its space
//! held before; a command that was answered is in force for ever; one that a power cut ended has happened or has not.
//!
//! Each volume has an oracle of its own, new with the volume. It never decides when something moves; that is the world's.

use std::collections::BTreeMap;

use base::ids::{ArrayId, Lba, VolumeId};
use base::sector::{LogicalBlock, Margins};
use engine::command::{Answer, Command, Refusal, Verb, VolumeVerb};
use engine::io::{IoDone, IoError, IoKind, IoRequest};
use engine::map::VolumeTables;
use ports::{BufferList, Buffers};
use raid::{MetadataError, VolumeRecord, VolumeState};

use crate::failure::Failure;
use crate::oracle::{Moment, Oracle};
use crate::pool::SimPool;
use crate::random::Random;
use crate::stamp::{Version, fill, recognise};

/// Tokens from here on are the operator's.
pub const TOKENS: u64 = 1 << 40;

/// Requests under way at most.
const DEPTH: usize = 8;

/// Volumes at a time at most.
const MAX_VOLUMES: usize = 6;

/// Blocks of a request at most.
const MAX_BLOCKS: u32 = 24;

/// Buffers that the operator leaves to the others.
const SPARE_BUFFERS: usize = 700;

/// What the operator does in a run.
#[derive(Clone, Copy, Debug)]
pub struct CarvingOptions {
    /// Blocks of the array that the hosts' own volume does not have.
    pub blocks: u64,
    /// Commands of the run.
    pub commands: u64,
    /// Blocks of a volume at most.
    pub max_volume_blocks: u64,
}

/// A volume that there is, or may be.
#[derive(Clone, Debug)]
struct Side {
    name: String,
    /// Its number in the table, once the table was seen.
    record: Option<u32>,
    blocks: u64,
    oracle: Oracle,
    /// It is being copied into: what it holds is not looked at before its end, as its source is written meanwhile.
    copy: bool,
    /// Blocks that are still to be read once.
    unread: u64,
}

#[derive(Clone, Debug)]
enum Asked {
    Create(Side),
    Grow(usize, u64),
    Rename(usize, String),
    Delete(usize),
}

#[derive(Clone, Copy, Debug)]
struct Io {
    record: u32,
    kind: IoKind,
    lba: Lba,
    blocks: u32,
    version: Version,
    began: Moment,
}

/// What the operator wants next.
#[derive(Debug)]
pub enum Wish {
    /// A command.
    Command(Command),
    /// A request to one of the volumes.
    Io(IoRequest),
}

/// The operator.
#[derive(Clone, Debug)]
pub struct Carver {
    options: CarvingOptions,
    random: Random,
    sides: Vec<Side>,
    command: Option<(u64, Asked)>,
    io: BTreeMap<u64, Io>,
    next_token: u64,
    next_version: u64,
    next_name: u64,
    left: u64,
    /// The number of the hosts' own volume in the table.
    own: u32,
}

impl Carver {
    /// An operator who does what the options say.
    pub fn new(options: CarvingOptions, random: Random) -> Self {
        Self {
            left: options.commands,
            options,
            random,
            sides: Vec::new(),
            command: None,
            io: BTreeMap::new(),
            next_token: TOKENS,
            next_version: TOKENS,
            next_name: 1,
            own: 1,
        }
    }

    /// Whether nothing is under way, everything was read and, unless it was retired, nothing is being cleaned or copied.
    pub fn is_finished(&self, tables: &VolumeTables) -> bool {
        let rests = |record: &VolumeRecord| record.state == VolumeState::Ready;
        let settled = tables.metadata.iter().all(|metadata| metadata.volumes.iter().all(rests));
        self.command.is_none()
            && self.io.is_empty()
            && self.left == 0
            && settled
            && self.sides.iter().all(|side| side.copy || side.unread == 0)
    }

    /// Wants no more commands.
    pub fn retire(&mut self) {
        self.left = 0;
    }

    /// What is wanted next, if anything is.
    pub fn wish(&mut self, pool: &mut SimPool, tables: &VolumeTables) -> Option<Wish> {
        if self.command.is_none() && self.left > 0 && self.random.once_in(6) {
            return self.next_command(tables).map(Wish::Command);
        }
        if self.io.len() >= DEPTH || pool.available() < SPARE_BUFFERS || self.sides.is_empty() {
            return None;
        }
        let at = self.random.below(self.sides.len() as u64) as usize;
        // At a volume that is being deleted hosts may go on as well.
        let side = &self.sides[at];
        let record = side.record?;
        let place = place_of(tables, record)?;
        if side.copy || tables.metadata[0].by_id(record)?.state != VolumeState::Ready {
            return None;
        }
        let (kind, lba, blocks) = if side.unread > 0 {
            let blocks = side.unread.min(u64::from(MAX_BLOCKS)) as u32;
            (IoKind::Read, Lba(side.unread - u64::from(blocks)), blocks)
        } else if self.left == 0 {
            return None;
        } else {
            let kind =
                self.random.choose(&[IoKind::Write, IoKind::Write, IoKind::Write, IoKind::Read, IoKind::WriteZeroes]);
            let lba = self.random.below(side.blocks);
            (kind, Lba(lba), self.random.between(1, u64::from(MAX_BLOCKS).min(side.blocks - lba)) as u32)
        };
        let mut buffers = BufferList::EMPTY;
        if kind != IoKind::WriteZeroes {
            buffers = BufferList::alloc(pool, blocks as usize)?;
        }
        if kind == IoKind::Write {
            let ids: Vec<_> = buffers.ids(pool).collect();
            for (offset, id) in (0..).zip(ids) {
                fill(pool.bytes_mut(id), Lba(lba.0 + offset), Version(self.next_version));
            }
        }
        let side = &mut self.sides[at];
        let version = Version(self.next_version);
        self.next_version += 1;
        let began = match kind {
            IoKind::Read => {
                side.unread -= side.unread.min(u64::from(blocks));
                side.oracle.begin_read()
            }
            _ => side.oracle.begin_write(lba, blocks, version, kind == IoKind::WriteZeroes),
        };
        self.next_token += 1;
        self.io.insert(self.next_token, Io { record, kind, lba, blocks, version, began });
        let association = engine::fence::Association::NONE;
        Some(Wish::Io(IoRequest {
            token: self.next_token,
            association,
            volume: place,
            kind,
            lba,
            blocks,
            margins: Margins::NONE,
            buffers,
        }))
    }

    /// There was no room for a request: it has not begun.
    pub fn not_begun(&mut self, token: u64) {
        let io = self.io.remove(&token).expect("it was wanted");
        let Some(side) = self.side(io.record) else { return };
        match io.kind {
            IoKind::Read => {
                side.oracle.abandon_read(io.began);
                side.unread = side.unread.max(io.lba.0 + u64::from(io.blocks));
            }
            _ => side.oracle.refuse(io.lba, io.blocks, io.version),
        }
    }

    /// A request has ended.
    ///
    /// # Errors
    /// What a volume holds and must not, or a request that had to succeed.
    pub fn done(&mut self, pool: &mut SimPool, done: IoDone) -> Result<(), Failure> {
        let Io { record, kind, lba, blocks, version, began } =
            self.io.remove(&done.token).expect("an answer comes once");
        let deleting = match &self.command {
            Some((_, Asked::Delete(at))) => self.sides[*at].record == Some(record),
            _ => false,
        };
        // It may have been deleted, and its side forgotten, while the answer was on its way to the operator.
        let Some(side) = self.side(record) else {
            done.buffers.free(pool);
            return Ok(());
        };
        match (done.result, kind) {
            (Ok(()), IoKind::Read) => {
                let ids = done.buffers.ids(pool);
                let found: Vec<_> =
                    (0..).zip(ids).map(|(offset, id)| recognise(pool.bytes(id), Lba(lba.0 + offset))).collect();
                done.buffers.free(pool);
                side.oracle.end_read(began, lba, &found)?;
            }
            (Ok(()), _) => side.oracle.acknowledge(lba, blocks, version),
            (Err(IoError::NoVolume), _) if deleting => match kind {
                IoKind::Read => side.oracle.abandon_read(began),
                _ => side.oracle.refuse(lba, blocks, version),
            },
            (Err(error), _) => {
                return Err(Failure::Refused { what: "a request to a carved volume", lba, blocks, error });
            }
        }
        Ok(())
    }

    /// A command was answered, and these are the tables in force.
    ///
    /// # Errors
    /// A refusal without a reason.
    pub fn answered(&mut self, answer: &Answer, tables: &VolumeTables) -> Result<(), Failure> {
        let Some((_, asked)) = self.command.take_if(|(ticket, _)| *ticket == answer.ticket) else { return Ok(()) };
        match (&answer.result, asked) {
            (Ok(()), asked) => self.happened(asked),
            // Too full, or an operation on a copy that is not ready.
            (Err(Refusal::Table(error)), _) if is_fair(error) => {}
            // The copy's source went first.
            (Err(refusal), _) => {
                return Err(Failure::Carving { what: format!("a command was refused: {refusal}") });
            }
        }
        self.agree(tables)
    }

    fn happened(&mut self, asked: Asked) {
        match asked {
            Asked::Create(side) => self.sides.push(side),
            Asked::Grow(at, blocks) => {
                let side = &mut self.sides[at];
                side.unread = blocks;
                side.blocks = blocks;
            }
            Asked::Rename(at, name) => self.sides[at].name = name,
            Asked::Delete(at) => drop(self.sides.remove(at)),
        }
    }

    /// The power failed: what was under way has happened or has not.
    pub fn power_cut(&mut self) {
        self.io.clear();
        for side in &mut self.sides {
            side.oracle.power_cut();
        }
    }

    /// The appliance has started with these tables: what they say has happened.
    ///
    /// # Errors
    /// A volume that is there and must not be, or the other way round.
    pub fn started(&mut self, tables: &VolumeTables) -> Result<(), Failure> {
        let metadata = &tables.metadata[0];
        if let Some((_, asked)) = self.command.take() {
            let is_so = |name: &str, blocks: Option<u64>| {
                metadata.find(name).is_some_and(|record| blocks.is_none_or(|blocks| record.blocks == blocks))
            };
            let happened = match &asked {
                Asked::Create(side) => is_so(&side.name, None),
                Asked::Grow(at, blocks) => is_so(&self.sides[*at].name, Some(*blocks)),
                Asked::Rename(_, name) => is_so(name, None),
                Asked::Delete(at) => !is_so(&self.sides[*at].name, None),
            };
            if happened {
                self.happened(asked);
            }
        }
        self.agree(tables)?;
        for side in &mut self.sides {
            side.unread = side.blocks;
        }
        Ok(())
    }

    /// The tables say what the operator knows.
    fn agree(&mut self, tables: &VolumeTables) -> Result<(), Failure> {
        let fail = |what: String| Err(Failure::Carving { what });
        let metadata = &tables.metadata[0];
        // Half a copy is discarded at a start, and after its source has gone.
        self.sides.retain(|side| !side.copy || metadata.find(&side.name).is_some());
        for side in &mut self.sides {
            let Some(record) = metadata.find(&side.name) else {
                return fail(format!("volume {} is not there", side.name));
            };
            if side.record.is_some_and(|number| number != record.id) || record.blocks != side.blocks {
                return fail(format!("volume {} is another: {record:?}", side.name));
            }
            side.record = Some(record.id);
        }
        let known = |record: &&VolumeRecord| {
            record.id == self.own
                || record.state == VolumeState::Cleaning
                || self.sides.iter().any(|side| side.record == Some(record.id))
        };
        match metadata.volumes.iter().find(|record| !known(record)) {
            Some(stranger) => fail(format!("nobody asked for {stranger:?}")),
            None => Ok(()),
        }
    }

    fn next_command(&mut self, tables: &VolumeTables) -> Option<Command> {
        let free: u64 = self.options.max_volume_blocks;
        let number = self.next_name;
        let any = self.sides.len() as u64;
        let (verb, asked) = match self.random.below(10) {
            0..5 if self.sides.len() < MAX_VOLUMES => {
                let name = format!("side-{number}");
                let source = (any > 0 && self.random.once_in(4)).then(|| self.random.below(any) as usize);
                let source = source
                    .map(|at| &self.sides[at])
                    .filter(|side| !side.copy)
                    .and_then(|side| Some((side.blocks, place_of(tables, side.record?)?)));
                let blocks = source.map_or_else(|| self.random.between(1, free), |(blocks, _)| blocks);
                let (oracle, copy) = (Oracle::default(), source.is_some());
                let side = Side { name: name.clone(), record: None, blocks, oracle, copy, unread: blocks };
                let random = [self.random.bits(), self.random.bits()];
                let copy_of = source.map(|(_, place)| place);
                (
                    VolumeVerb::Create { name, blocks, logical: LogicalBlock::Block, random, export: None, copy_of },
                    Asked::Create(side),
                )
            }
            5..7 if any > 0 => {
                let at = self.random.below(any) as usize;
                let blocks = self.sides[at].blocks + self.random.between(1, free);
                (VolumeVerb::Grow { volume: self.sides[at].record?, blocks }, Asked::Grow(at, blocks))
            }
            7 if any > 0 => {
                let at = self.random.below(any) as usize;
                let name = format!("named-{number}");
                (VolumeVerb::Rename { volume: self.sides[at].record?, name: name.clone() }, Asked::Rename(at, name))
            }
            _ if any > 0 => {
                let at = self.random.below(any) as usize;
                (VolumeVerb::Delete { volume: self.sides[at].record? }, Asked::Delete(at))
            }
            _ => return None,
        };
        self.next_name += 1;
        self.left -= 1;
        self.next_token += 1;
        self.command = Some((self.next_token, asked));
        Some(Command { ticket: self.next_token, verb: Verb::Volume { array: ArrayId(0), verb } })
    }

    /// The command found no room: it was not given.
    pub fn not_given(&mut self) {
        self.command = None;
        self.left += 1;
    }

    fn side(&mut self, record: u32) -> Option<&mut Side> {
        self.sides.iter_mut().find(|side| side.record == Some(record))
    }
}

fn is_fair(error: &MetadataError) -> bool {
    matches!(
        error,
        MetadataError::NoSpace { .. }
            | MetadataError::Scattered(_)
            | MetadataError::NotReady(_)
            | MetadataError::NoVolume
            | MetadataError::IdentityTaken(_)
    )
}

fn place_of(tables: &VolumeTables, record: u32) -> Option<VolumeId> {
    let is_it = |volume: &engine::map::Volume| volume.record == record && !volume.leaving;
    tables.volumes.iter().position(is_it).map(|at| VolumeId(at as u32))
}
