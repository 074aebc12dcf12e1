//! The hosts: draws requests, remembers those under way, and tells the oracle what began and how it ended. It never decides
//! when something moves; that is the world's.

mod aborted;
mod draw;
mod killed;
mod parts;
mod trust;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::ids::{Lba, VolumeId};
use base::sector::Margins;
use engine::fence::Association;
use engine::io::{IoDone, IoError, IoKind, IoRequest};
use nvme::dataset::DatasetRange;
use ports::{BufferList, Buffers};

use self::aborted::Aborts;
use crate::failure::Failure;
use crate::killing::{Asker, Hosts};
use crate::oracle::{Moment, Oracle};
use crate::pool::SimPool;
use crate::random::Random;
use crate::scenario::{Window, WorkloadOptions};
use crate::stamp::{Found, Version, fill, recognise};

/// Buffers that hosts leave to the appliance: a request is not drawn while fewer would stay.
const SPARE_BUFFERS: usize = 512;

/// Blocks of a verifying read.
const VERIFY_BLOCKS: u32 = 32;

#[derive(Clone, Debug)]
struct Asked {
    association: Association,
    kind: IoKind,
    /// The blocks; several runs of a discard alone, and each with a version of its own: they are not one write.
    runs: Vec<(Lba, u32)>,
    version: Version,
    began: Moment,
    /// Of a compare: with what.
    expected: Vec<Found>,
}

/// A part within one atomic unit of a write that a crash ended.
#[derive(Clone, Copy, Debug)]
struct Part {
    lba: Lba,
    blocks: u32,
    version: Version,
    began: Moment,
}

/// Hosts and what they know.
#[derive(Clone, Debug)]
pub struct Workload {
    options: WorkloadOptions,
    random: Random,
    /// What is known of every logical block: from here on, blocks and their addresses are logical ones.
    oracle: Oracle,
    /// Of write-through: an oracle that hears of no read.
    told: Option<Oracle>,
    /// Since when acknowledgements come from the members, if they do.
    trusted_since: Option<Moment>,
    hosts: Hosts,
    aborts: Aborts,
    under_way: BTreeMap<u64, Asked>,
    /// The runs of the request that [`Workload::next`] gave last.
    drawn: Vec<(Lba, u32)>,
    /// What it compares with.
    guessed: Vec<Found>,
    /// Of killed hosts, whose end is not confirmed: nobody hears how these end.
    killed: BTreeMap<u64, Asked>,
    /// Writes of killed hosts that have ended somehow.
    orphaned: Vec<Asked>,
    /// Of killed hosts, begun after their end was confirmed: each must be aborted.
    late: BTreeSet<u64>,
    /// What a host that came back reads before anything else.
    again: VecDeque<(Lba, u32)>,
    verify: VecDeque<(Lba, u32)>,
    verifying: bool,
    crashed: Vec<Part>,
    next_token: u64,
    next_version: u64,
    left: u64,
}

impl Workload {
    /// Hosts that will ask for what the options say.
    pub fn new(options: WorkloadOptions, random: Random, hosts: Hosts) -> Self {
        let aborts = Aborts::new(options.aborts_once_in, Random::named(random.clone().bits(), "aborts"));
        Self {
            aborts,
            left: options.requests,
            told: options.write_through.then(Oracle::default),
            trusted_since: options.write_through.then(Moment::default),
            options,
            random,
            oracle: Oracle::default(),
            hosts,
            under_way: BTreeMap::new(),
            drawn: Vec::new(),
            guessed: Vec::new(),
            killed: BTreeMap::new(),
            orphaned: Vec::new(),
            late: BTreeSet::new(),
            again: VecDeque::new(),
            verify: VecDeque::new(),
            verifying: false,
            crashed: Vec::new(),
            next_token: 1,
            next_version: 1,
        }
    }

    /// The next request, filled and ready to be begun, unless hosts have enough under way or nothing left to ask.
    pub fn next(&mut self, pool: &mut SimPool) -> Option<(Asker, IoRequest)> {
        let depth = self.under_way.len() + self.killed.len() + self.late.len();
        if depth >= self.options.depth || pool.available() < SPARE_BUFFERS {
            return None;
        }
        let wanted = self.verify.front().or(self.again.front()).copied();
        if wanted.is_none() && (self.left == 0 || self.verifying) {
            return None;
        }
        let asker = self.hosts.draw()?;
        let (kind, lba, blocks) = match wanted {
            Some((lba, blocks)) if matches!(asker, Asker::Living(_)) => (IoKind::Read, lba, blocks),
            Some(_) if self.left == 0 || self.verifying => return None,
            _ => self.draw(),
        };
        let logical = self.options.logical;
        let mut buffers = BufferList::EMPTY;
        if matches!(kind, IoKind::Read | IoKind::Write) {
            buffers = BufferList::alloc(pool, logical.blocks_around(lba.0, blocks).1 as usize)?;
        }
        if kind == IoKind::Write {
            let version = Version(self.next_version);
            parts::fill_run(pool, &buffers, logical, lba, blocks, |part, lba| fill(part, lba, version));
        }
        self.guessed.clear();
        let compares = wanted.is_none() && matches!(kind, IoKind::Read | IoKind::Write);
        if compares && self.options.compares_once_in > 0 && self.random.once_in(self.options.compares_once_in) {
            buffers.free(pool);
            let request = self.next_compare(pool, asker.association(), kind == IoKind::Write, lba, blocks)?;
            return Some((asker, request));
        }
        self.drawn = vec![(lba, blocks)];
        let discards = self.options.discards.filter(|_| kind == IoKind::WriteZeroes);
        let (kind, blocks) = match discards {
            Some(discards) if self.random.once_in(discards.once_in) => {
                self.draw_ranges(discards);
                buffers = BufferList::alloc(pool, 1)?;
                let list = pool.bytes_mut(buffers.first().expect("there is one"));
                for (place, (lba, blocks)) in list.chunks_exact_mut(DatasetRange::SIZE).zip(&mut self.drawn) {
                    // A target takes what lies wholly within, and nothing else is discarded.
                    let (first, whole) = logical.blocks_within(lba.0, *blocks);
                    DatasetRange { attributes: 0, blocks: whole, lba: first.0 }.encode_into(place);
                    (*lba, *blocks) = (Lba(first.0 * u64::from(logical.per_block())), whole * logical.per_block());
                }
                let ranges = self.drawn.len() as u32;
                return Some((asker, self.request(asker.association(), IoKind::Deallocate, (lba, ranges), buffers)));
            }
            _ => (kind, blocks),
        };
        let request = self.request(asker.association(), kind, (lba, blocks), buffers);
        Some((asker, request))
    }

    /// What the appliance is asked: in blocks, with what of them is not meant.
    fn request(
        &self,
        association: Association,
        kind: IoKind,
        (lba, count): (Lba, u32),
        buffers: BufferList,
    ) -> IoRequest {
        let (lba, blocks, margins) = match kind {
            IoKind::Deallocate => (Lba(0), count, Margins::NONE),
            IoKind::Flush => (lba, count, Margins::NONE),
            _ => self.options.logical.blocks_around(lba.0, count),
        };
        let margins = if kind == IoKind::Read { Margins::NONE } else { margins };
        IoRequest { token: self.next_token, association, volume: VolumeId(0), kind, lba, blocks, margins, buffers }
    }

    // A compare, or one with a write, which must lie within one atomic unit.
    fn next_compare(
        &mut self,
        pool: &mut SimPool,
        association: Association,
        writes: bool,
        lba: Lba,
        blocks: u32,
    ) -> Option<IoRequest> {
        let (logical, unit) = (self.options.logical, u64::from(self.atomic_unit()));
        let count = if writes { blocks.min((unit - lba.0 % unit) as u32) } else { blocks };
        let half = logical.blocks_around(lba.0, count).1 as usize;
        let mut told = BufferList::alloc(pool, half)?;
        let wrong = self.random.once_in(4).then(|| Lba(lba.0 + self.random.below(count.into())));
        let (oracle, guessed, next_version) = (&self.oracle, &mut self.guessed, self.next_version);
        parts::fill_run(pool, &told, logical, lba, count, |part, here| {
            match oracle.guess(here) {
                Found::Version(version) => fill(part, here, version),
                _ => part.fill(0),
            }
            if wrong == Some(here) {
                // What a later write will have.
                fill(part, here, Version(next_version + 1));
            }
            guessed.push(recognise(part, here));
        });
        if writes {
            let Some(new) = BufferList::alloc(pool, half) else {
                told.free(pool);
                return None;
            };
            parts::fill_run(pool, &new, logical, lba, count, |part, here| fill(part, here, Version(next_version)));
            told.append(pool, new);
        }
        self.drawn = vec![(lba, count)];
        let kind = if writes { IoKind::CompareAndWrite } else { IoKind::Compare };
        Some(self.request(association, kind, (lba, count), told))
    }

    /// Logical blocks of an atomic unit.
    fn atomic_unit(&self) -> u32 {
        self.options.atomic_blocks * self.options.logical.per_block()
    }

    /// The request that [`Workload::next`] gave has been taken.
    pub fn begun(&mut self, asker: Asker, kind: IoKind) {
        let version = Version(self.next_version);
        let runs = core::mem::take(&mut self.drawn);
        let token = self.next_token;
        self.next_token += 1;
        if matches!(asker, Asker::Late(_)) {
            // The oracle never hears of its versions: wherever they turned up, they would be wrong.
            self.next_version += runs.len() as u64;
            self.late.insert(token);
            return;
        }
        let began = match kind {
            IoKind::Read | IoKind::Compare => self.oracle.begin_read(),
            IoKind::Write | IoKind::WriteZeroes | IoKind::Deallocate | IoKind::CompareAndWrite => {
                let compares = kind == IoKind::CompareAndWrite;
                let zeros = !compares && kind != IoKind::Write;
                let mut began = if compares { self.oracle.begin_read() } else { self.oracle.moment() };
                for &(lba, blocks) in &runs {
                    let version = Version(self.next_version);
                    self.next_version += 1;
                    if let Some(told) = &mut self.told {
                        told.begin_write(lba, blocks, version, zeros);
                    }
                    let written = self.oracle.begin_write(lba, blocks, version, zeros);
                    began = if compares { began } else { written };
                }
                began
            }
            IoKind::Flush => self.oracle.moment(),
        };
        let expected = core::mem::take(&mut self.guessed);
        let association = asker.association();
        let asked = Asked { association, kind, runs, version, began, expected };
        if matches!(asker, Asker::Ending(_)) {
            self.killed.insert(token, asked);
            return;
        }
        if self.verify.pop_front().is_none() && self.again.pop_front().is_none() {
            self.left -= 1;
        }
        self.under_way.insert(token, asked);
    }

    /// A request has ended.
    ///
    /// # Panics
    /// If there is no such request: then it was answered twice.
    pub fn done(&mut self, pool: &mut SimPool, done: IoDone) -> Result<(), Failure> {
        if self.late.remove(&done.token) {
            assert_eq!(done.result, Err(IoError::Aborted), "what comes after the end was confirmed is aborted");
            return Ok(());
        }
        if let Some(asked) = self.killed.remove(&done.token) {
            match asked.kind {
                IoKind::Read | IoKind::Compare => self.oracle.abandon_read(asked.began),
                IoKind::CompareAndWrite => {
                    self.oracle.abandon_read(asked.began);
                    self.orphaned.push(asked);
                }
                IoKind::Write | IoKind::WriteZeroes | IoKind::Deallocate => self.orphaned.push(asked),
                IoKind::Flush => {}
            }
            done.buffers.free(pool);
            return Ok(());
        }
        let asked = self.under_way.remove(&done.token).expect("an answer to a request under way, once");
        let unwanted = self.aborts.ended(done.token);
        if let Err(error) = done.result {
            assert!(done.buffers.is_empty(), "a failed request gives no buffers back");
            if unwanted && error == IoError::Aborted {
                self.was_aborted(asked);
                return Ok(());
            }
            let compares = matches!(asked.kind, IoKind::Compare | IoKind::CompareAndWrite);
            if compares && error == IoError::Miscompare {
                return self.miscompared(&asked);
            }
            return Err(self.refused(asked, error));
        }
        let Asked { kind, runs, version, began, expected, .. } = asked;
        let (lba, blocks) = runs[0];
        if matches!(kind, IoKind::Compare | IoKind::CompareAndWrite) {
            // As good as read.
            self.oracle.whole(began, lba, &expected, self.atomic_unit())?;
            self.oracle.end_read(began, lba, &expected)?;
        }
        match kind {
            IoKind::Compare => {}
            IoKind::Write | IoKind::WriteZeroes | IoKind::Deallocate | IoKind::CompareAndWrite => {
                for (at, &(lba, blocks)) in (0..).zip(&runs) {
                    let version = Version(version.0 + at);
                    self.oracle.acknowledge(lba, blocks, version);
                    self.tell(began, lba, blocks, version);
                }
            }
            IoKind::Flush => {}
            IoKind::Read => {
                let logical = self.options.logical;
                let expected = logical.blocks_around(lba.0, blocks).1 as usize;
                assert_eq!(done.buffers.len(), expected, "a read gives its buffers back");
                let mut found = Vec::with_capacity(blocks as usize);
                parts::each(pool, &done.buffers, logical, lba, blocks, |part, lba| found.push(recognise(part, lba)));
                done.buffers.free(pool);
                self.oracle.whole(began, lba, &found, self.atomic_unit())?;
                self.oracle.end_read(began, lba, &found)?;
            }
        }
        Ok(())
    }

    // Nothing was written, and something else was there.
    fn miscompared(&mut self, asked: &Asked) -> Result<(), Failure> {
        let &Asked { began, version, .. } = asked;
        let (lba, blocks) = asked.runs[0];
        self.oracle.abandon_read(began);
        let own = (asked.kind == IoKind::CompareAndWrite).then_some(version);
        if !self.oracle.may_differ(began, lba, &asked.expected, own) {
            return Err(Failure::Miscompare { lba, blocks });
        }
        if own.is_some() {
            self.oracle.withdraw(lba, blocks, version);
            if let Some(told) = &mut self.told {
                told.withdraw(lba, blocks, version);
            }
        }
        Ok(())
    }

    fn refused(&mut self, asked: Asked, error: IoError) -> Failure {
        let Asked { kind, runs, version, began, .. } = asked;
        let (lba, blocks) = runs[0];
        let what = match kind {
            IoKind::Read => {
                self.oracle.abandon_read(began);
                "a read"
            }
            IoKind::Write => "a write",
            IoKind::Compare => "a compare",
            IoKind::CompareAndWrite => "a compare and write",
            IoKind::WriteZeroes => "a write of zeros",
            IoKind::Deallocate => "a discard",
            IoKind::Flush => "a flush",
        };
        if !matches!(kind, IoKind::Read | IoKind::Compare | IoKind::Flush) {
            for (at, (lba, blocks)) in (0..).zip(runs) {
                self.oracle.refuse(lba, blocks, Version(version.0 + at));
            }
        }
        Failure::Refused { what, lba, blocks, error }
    }

    /// The power failed: nothing that was under way will be answered.
    pub fn power_cut(&mut self) {
        self.oracle.power_cut();
        if let Some(told) = &mut self.told {
            told.power_cut();
        }
        self.verify.clear();
        self.again.clear();
        self.late.clear();
        self.orphaned.clear();
        self.hosts.power_cut();
        self.verifying = false;
        self.crashed.clear();
        let unit = u64::from(self.atomic_unit());
        let killed = core::mem::take(&mut self.killed);
        for asked in core::mem::take(&mut self.under_way).into_values().chain(killed.into_values()) {
            if !matches!(asked.kind, IoKind::Write | IoKind::CompareAndWrite) {
                continue;
            }
            let (lba, blocks) = asked.runs[0];
            let end = lba.0 + u64::from(blocks);
            let mut at = lba.0;
            while at < end {
                let next = end.min((at / unit + 1) * unit);
                let (version, began) = (asked.version, asked.began);
                self.crashed.push(Part { lba: Lba(at), blocks: (next - at) as u32, version, began });
                at = next;
            }
        }
    }

    /// From now on first read all windows, and ask nothing else before that has ended.
    pub fn verify_all(&mut self) {
        self.verifying = true;
        let scale = self.options.logical.per_block();
        for &Window { start, blocks } in &self.options.windows {
            let mut at = 0;
            while at < blocks {
                let count = VERIFY_BLOCKS.min(blocks - at);
                let first = (start.0 + u64::from(at)) * u64::from(scale);
                self.verify.push_back((Lba(first), count * scale));
                at += count;
            }
        }
        self.random.shuffle(self.verify.make_contiguous());
    }

    /// Whether [`Workload::verify_all`] was asked for and all has been read since.
    pub fn has_verified(&self) -> bool {
        self.verifying && self.verify.is_empty() && self.under_way.is_empty()
    }

    /// Ends the verification: each part within one atomic unit of a crashed write has happened whole or not at all.
    pub fn end_verification(&mut self) -> Result<(), Failure> {
        self.verifying = false;
        for part in core::mem::take(&mut self.crashed) {
            let lbas = (0..u64::from(part.blocks)).map(|offset| Lba(part.lba.0 + offset));
            // A block that another concurrent write covers may say nothing.
            let fates = lbas.filter_map(|lba| Some((lba, self.oracle.happened(lba, part.version, part.began)?)));
            let mut first = None;
            for (odd, fate) in fates {
                if *first.get_or_insert(fate) != fate {
                    let to = Lba(part.lba.0 + u64::from(part.blocks) - 1);
                    return Err(Failure::Atomicity { version: part.version.0, from: part.lba, to, odd });
                }
            }
        }
        Ok(())
    }

    /// Of write-through: what was acknowledged, by an oracle that never heard of a read.
    pub fn told(&self) -> Option<&Oracle> {
        self.told.as_ref()
    }

    /// What is known of every block.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// Whether nothing is under way and nothing is left to ask.
    pub fn is_finished(&self) -> bool {
        let all_ended = self.under_way.is_empty() && self.killed.is_empty() && self.late.is_empty();
        let all_read = self.again.is_empty() && !self.verifying;
        all_ended && all_read && self.left == 0 && !self.hosts.is_any_ending()
    }

    /// What is under way, for people.
    pub fn under_way(&self) -> String {
        let (living, killed, late) = (self.under_way.len(), self.killed.len(), self.late.len());
        let ending = if self.hosts.is_any_ending() { ", and the end of a host is not confirmed" } else { "" };
        format!("{living} are under way, {killed} of killed hosts, {late} late ones{ending}")
    }

    /// Asks nothing more of its own.
    pub fn retire(&mut self) {
        self.left = 0;
        self.hosts.retire();
    }
}

#[cfg(test)]
mod tests {
    use base::sector::LogicalBlock;

    use super::*;

    fn workload() -> Workload {
        let options = WorkloadOptions {
            windows: vec![Window { start: Lba(8), blocks: 40 }],
            requests: 200,
            depth: 8,
            max_blocks: 8,
            weights: [1, 4, 1],
            atomic_blocks: 4,
            row_blocks: 8,
            stray_once_in: 1,
            write_through: false,
            discards: None,
            compares_once_in: 0,
            aborts_once_in: 0,
            logical: LogicalBlock::Block,
        };
        Workload::new(options, Random::named(1, "workload"), Hosts::new(None, Random::named(1, "hosts")))
    }

    #[test]
    fn requests_stay_in_the_windows_and_within_the_depth() {
        let (mut workload, mut pool) = (workload(), SimPool::new(1024));
        let mut rows = 0;
        for _ in 0..200 {
            let (asker, request) = workload.next(&mut pool).expect("something is left to ask");
            let (kind, lba, blocks) = (request.kind, request.lba, request.blocks);
            if kind != IoKind::Flush {
                assert!(lba.0 >= 8 && lba.0 + u64::from(blocks) <= 48 && blocks > 0, "{lba:?} {blocks}");
                rows += u32::from(lba.0 % 8 == 0 && blocks == 8);
            }
            workload.begun(asker, kind);
            request.buffers.free(&mut pool);
            if workload.under_way.len() == 8 {
                assert!(workload.next(&mut pool).is_none());
                workload.power_cut();
                workload.crashed.clear();
            }
        }
        assert!(rows > 10);
        assert_eq!(pool.outstanding(), 0);
        workload.power_cut();
        workload.end_verification().expect("nothing has been read");
        assert!(workload.is_finished());
    }

    #[test]
    fn a_crashed_write_that_happened_in_part_is_found_within_a_unit_and_not_across() {
        for (happened, broken) in [
            ([true; 4], false),
            ([false; 4], false),
            ([true, true, false, false], false),
            ([true, false, true, true], true),
        ] {
            let mut workload = workload();
            // Blocks 10 to 13: two in the unit from 8, two in the one from 12.
            workload.drawn = vec![(Lba(10), 4)];
            workload.begun(Asker::Living(Association { id: 1, epoch: 0 }), IoKind::Write);
            workload.power_cut();
            for (lba, happened) in (10..).map(Lba).zip(happened) {
                let began = workload.oracle.begin_read();
                let found =
                    if happened { crate::stamp::Found::Version(Version(1)) } else { crate::stamp::Found::Zeros };
                workload.oracle.end_read(began, lba, &[found]).expect("old or new");
            }
            assert_eq!(workload.end_verification().is_err(), broken, "{happened:?}");
        }
    }
}
