//! What the records of a lane leave to be done: per stripe the newest versions that the members do not have for sure, and
//! the parity with exactly the versions that it covers (rules L4, L5). A pure function, so recovery can be cut anywhere and
//! done again; it reads no payload.
//!
//! Replay of a stripe, as its writer must carry it out:
//! - If `dirty` holds every data block of the stripe, write them all with parity computed from them, whatever is covered. A
//!   full destage logs no parity, so the members may hold any mixture, and nothing but a full write is right.
//! - Else, if something is *covered*, write those versions and that parity to all present members and flush; only then do
//!   the other versions count as dirty. Until then the members may hold any mixture of old and covered blocks.
//! - Else no member write of these versions has begun: they are dirty like any others.

use std::collections::BTreeMap;

use base::ids::{ArrayBlock, StripeId};

use crate::scan::{LaneScan, RecoveryError, ScannedRecord};
use crate::{Entry, MAX_RECORD_BLOCKS};

/// A payload block in the log: read it through [`crate::LogLayout::ring_block`] from any copy, and check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadAt {
    /// Its virtual position in the lane, in blocks.
    pub position: u64,
    /// Its [`crate::payload_crc`].
    pub crc: u32,
}

/// What a version of a block consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros.
    Zeros,
    /// A payload block.
    Payload(PayloadAt),
}

/// A version of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The sequence of the record that logged it.
    pub sequence: u64,
    /// What it consists of.
    pub content: Content,
}

/// Parity that was logged, and what it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Index (0 is P, 1 is Q) and place of each parity block, in the order logged.
    pub parity: Vec<(u8, PayloadAt)>,
    /// The versions that the parity counts; of the stripe's other blocks it counts what the members hold.
    pub versions: Vec<(ArrayBlock, Version)>,
    /// The highest sequence covered.
    pub upto: u64,
    /// The sequence of the record that logged the parity.
    pub sequence: u64,
}

/// What is left to be done for a stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StripeReplay {
    /// To be written first.
    pub covered: Option<Covered>,
    /// The newest version of each block above the last destaged sequence, covered ones included when they are the newest.
    pub dirty: BTreeMap<ArrayBlock, Version>,
}

/// What is left to be done for the stripes of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPlan {
    /// The stripes that the members do not have for sure.
    pub stripes: BTreeMap<StripeId, StripeReplay>,
}

impl ReplayPlan {
    /// The sequence of the oldest record that the plan needs: the tail must not pass it. Nothing if none is needed.
    pub fn oldest_sequence(&self) -> Option<u64> {
        let needed = |replay: &StripeReplay| {
            let covered = replay.covered.iter().flat_map(|covered| {
                covered.versions.iter().map(|(_, version)| version.sequence).chain([covered.sequence])
            });
            covered.chain(replay.dirty.values().map(|version| version.sequence)).min()
        };
        self.stripes.values().filter_map(needed).min()
    }
}

/// A stripe while records are walked.
#[derive(Default)]
struct Stripe {
    /// Every version above the last destaged sequence: a parity may cover one that is not the newest.
    versions: BTreeMap<ArrayBlock, BTreeMap<u64, Content>>,
    covered: Option<Cover>,
}

/// Logged parity while records are walked.
#[derive(Default)]
struct Cover {
    parity: Vec<(u8, PayloadAt)>,
    versions: Vec<(ArrayBlock, u64)>,
    sequence: u64,
}

impl Cover {
    fn upto(&self) -> u64 {
        self.versions.iter().map(|(_, sequence)| *sequence).max().unwrap_or(0)
    }
}

/// Folds the records of a lane, oldest first. `stripe_of` gives the stripe that a block lay in at a geometry epoch, or nothing if
/// the array had no such block then. Records of a geometry epoch above the one in force are *void*: they say where blocks were
/// about to be moved, and before the epoch came into force nothing relied on them, nor did they say anything else.
pub fn fold(
    scan: &LaneScan,
    in_force: u32,
    stripe_of: impl Fn(u32, ArrayBlock) -> Option<StripeId>,
) -> Result<ReplayPlan, RecoveryError> {
    let mut stripes: BTreeMap<StripeId, Stripe> = BTreeMap::new();
    let mut plan = ReplayPlan::default();
    let fail = |sequence, what| RecoveryError::Inconsistent { lane: scan.lane, sequence, what };
    for record in scan.records.iter().filter(|record| record.header.geometry_epoch <= in_force) {
        apply(&mut stripes, record, &stripe_of).map_err(|what| fail(record.header.sequence, what))?;
    }
    for (id, stripe) in stripes {
        let covered = match stripe.covered {
            None => None,
            Some(cover) => {
                let sequence = cover.sequence;
                Some(resolve(&stripe.versions, cover).map_err(|what| fail(sequence, what))?)
            }
        };
        let newest = |versions: BTreeMap<u64, Content>| {
            versions.into_iter().next_back().map(|(sequence, content)| Version { sequence, content })
        };
        let dirty: BTreeMap<ArrayBlock, Version> =
            stripe.versions.into_iter().filter_map(|(block, versions)| Some((block, newest(versions)?))).collect();
        if covered.is_some() || !dirty.is_empty() {
            plan.stripes.insert(id, StripeReplay { covered, dirty });
        }
    }
    Ok(plan)
}

/// Applies the entries of a record in order; parity and what it covers come together at the record's end.
fn apply(
    stripes: &mut BTreeMap<StripeId, Stripe>,
    record: &ScannedRecord,
    stripe_of: &impl Fn(u32, ArrayBlock) -> Option<StripeId>,
) -> Result<(), &'static str> {
    let sequence = record.header.sequence;
    let stripe_of = |block| stripe_of(record.header.geometry_epoch, block);
    let outside = "it names a block that the array does not have";
    let mut covers: BTreeMap<StripeId, Cover> = BTreeMap::new();
    // At most MAX_RECORD_BLOCKS payloads, so the position stays within the record.
    let mut payload = record.header.position;
    for entry in &record.entries {
        payload += u64::from(entry.has_payload());
        assert!(payload - record.header.position < MAX_RECORD_BLOCKS as u64);
        match *entry {
            Entry::Data { block, crc } => {
                let stripe = stripes.entry(stripe_of(block).ok_or(outside)?).or_default();
                let content = Content::Payload(PayloadAt { position: payload, crc });
                stripe.versions.entry(block).or_default().insert(sequence, content);
            }
            Entry::Zeros { block, count } => {
                for block in (block.0..block.0 + u64::from(count)).map(ArrayBlock) {
                    let stripe = stripes.entry(stripe_of(block).ok_or(outside)?).or_default();
                    stripe.versions.entry(block).or_default().insert(sequence, Content::Zeros);
                }
            }
            Entry::Parity { stripe, index, crc } => {
                let cover = covers.entry(stripe).or_default();
                if cover.parity.iter().any(|(other, _)| *other == index) {
                    return Err("it logs the same parity of a stripe twice");
                }
                cover.parity.push((index, PayloadAt { position: payload, crc }));
            }
            Entry::Covers { block, lag } => {
                let cover = covers.entry(stripe_of(block).ok_or(outside)?).or_default();
                if cover.versions.iter().any(|(other, _)| *other == block) {
                    return Err("its parity covers a block twice");
                }
                cover.versions.push((block, sequence - u64::from(lag)));
            }
            Entry::Destaged { stripe, lag } => forget(stripes, stripe, sequence - u64::from(lag))?,
        }
    }
    for (id, mut cover) in covers {
        if cover.parity.is_empty() || cover.versions.is_empty() {
            return Err("parity without the versions that it covers, or versions without parity");
        }
        cover.sequence = sequence;
        let stripe = stripes.entry(id).or_default();
        if let Some(before) = &stripe.covered
            && !supersedes(&cover, before)
        {
            return Err("its parity leaves out what parity before it covers and what was not destaged");
        }
        stripe.covered = Some(cover);
    }
    Ok(())
}

/// Whether writing the newer parity with its versions also settles what the older one began: member writes of the older
/// may have happened in part, so each block it covers must be written again.
fn supersedes(newer: &Cover, older: &Cover) -> bool {
    older.versions.iter().all(|(block, sequence)| {
        newer.versions.iter().any(|(other, newer_sequence)| other == block && newer_sequence >= sequence)
    })
}

/// Everything of the stripe at or below `upto` is durable on the members (rule L4).
fn forget(stripes: &mut BTreeMap<StripeId, Stripe>, id: StripeId, upto: u64) -> Result<(), &'static str> {
    // What it names may lie before the tail: its space was free to go once this record was durable.
    let Some(stripe) = stripes.get_mut(&id) else { return Ok(()) };
    for versions in stripe.versions.values_mut() {
        *versions = versions.split_off(&(upto + 1));
    }
    stripe.versions.retain(|_, versions| !versions.is_empty());
    if let Some(cover) = &stripe.covered {
        if cover.upto() > upto {
            return Err("it calls a stripe destaged up to less than the parity before it covers");
        }
        stripe.covered = None;
    }
    if stripe.versions.is_empty() {
        stripes.remove(&id);
    }
    Ok(())
}

/// Finds the versions that a parity covers. A version keeps its space until the destaged record is durable, so one that is
/// missing while no such record follows has been lost: replaying the rest would make a parity that matches nothing.
fn resolve(versions: &BTreeMap<ArrayBlock, BTreeMap<u64, Content>>, cover: Cover) -> Result<Covered, &'static str> {
    let upto = cover.upto();
    let mut found = Vec::with_capacity(cover.versions.len());
    for (block, sequence) in cover.versions {
        let content = versions.get(&block).and_then(|versions| versions.get(&sequence));
        let content = *content.ok_or("its parity covers a version that is neither in the log nor destaged")?;
        found.push((block, Version { sequence, content }));
    }
    Ok(Covered { parity: cover.parity, versions: found, upto, sequence: cover.sequence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordHeader, RecordKind};
    use crate::{Anchor, EndOfLog};
    use base::ids::LaneId;

    /// Stripes of four blocks; the array has a thousand blocks. From epoch 1 on blocks below 20 lie in stripes of five.
    fn stripe_of(geometry_epoch: u32, block: ArrayBlock) -> Option<StripeId> {
        let columns = if geometry_epoch > 0 && block.0 < 20 { 5 } else { 4 };
        (block.0 < 1000).then_some(StripeId(block.0 / columns))
    }

    /// A lane whose records, from sequence 10 on, say this.
    fn scan(records: &[&[Entry]]) -> LaneScan {
        let records: Vec<(u32, &[Entry])> = records.iter().map(|entries| (0, *entries)).collect();
        scan_of(&records)
    }

    /// The same with the geometry epoch of each record.
    fn scan_of(records: &[(u32, &[Entry])]) -> LaneScan {
        let mut position = 100;
        let mut scanned = Vec::new();
        for (sequence, (geometry_epoch, entries)) in (10..).zip(records) {
            let length_blocks = 1 + entries.iter().filter(|entry| entry.has_payload()).count() as u32;
            let header = RecordHeader {
                kind: RecordKind::Transaction,
                lane: LaneId(0),
                incarnation: 1,
                geometry_epoch: *geometry_epoch,
                array_epoch: 0,
                sequence,
                position,
                length_blocks,
                durable_upto: sequence - 1,
                previous_crc: 0,
            };
            position += u64::from(length_blocks);
            scanned.push(ScannedRecord { header, entries: entries.to_vec(), crc: 0, good_copies: 1 });
        }
        LaneScan {
            lane: LaneId(0),
            anchor: Anchor {
                lane: LaneId(0),
                update: 1,
                tail_position: 100,
                tail_sequence: 10,
                tail_incarnation: 1,
                tail_previous_crc: 0,
            },
            next_sequence: 10 + records.len() as u64,
            records: scanned,
            next_position: position,
            last_crc: 0,
            last_incarnation: 1,
            durable_upto: 0,
            end: EndOfLog::Clean,
        }
    }

    const fn data(block: u64) -> Entry {
        Entry::Data { block: ArrayBlock(block), crc: block as u32 }
    }

    const fn covers(block: u64, lag: u32) -> Entry {
        Entry::Covers { block: ArrayBlock(block), lag }
    }

    const fn parity(stripe: u64) -> Entry {
        Entry::Parity { stripe: StripeId(stripe), index: 0, crc: 99 }
    }

    const fn destaged(stripe: u64, lag: u32) -> Entry {
        Entry::Destaged { stripe: StripeId(stripe), lag }
    }

    const fn version(sequence: u64, position: u64, crc: u32) -> Version {
        Version { sequence, content: Content::Payload(PayloadAt { position, crc }) }
    }

    fn refused(records: &[&[Entry]]) -> bool {
        matches!(fold(&scan(records), 0, stripe_of), Err(RecoveryError::Inconsistent { .. }))
    }

    #[test]
    fn the_newest_version_is_dirty_and_zeros_are_versions() {
        let zeros = Entry::Zeros { block: ArrayBlock(3), count: 2 };
        let plan = fold(&scan(&[&[data(3), data(8)], &[], &[zeros, data(4)]]), 0, stripe_of).expect("consistent");
        assert_eq!(plan.stripes.len(), 3);
        let zero = Version { sequence: 12, content: Content::Zeros };
        assert_eq!(plan.stripes[&StripeId(0)].dirty, BTreeMap::from([(ArrayBlock(3), zero)]));
        assert_eq!(plan.stripes[&StripeId(1)].dirty, BTreeMap::from([(ArrayBlock(4), version(12, 105, 4))]));
        assert_eq!(plan.stripes[&StripeId(2)].dirty, BTreeMap::from([(ArrayBlock(8), version(10, 102, 8))]));
        assert_eq!(plan.oldest_sequence(), Some(10));
    }

    #[test]
    fn parity_brings_exactly_the_versions_it_covers() {
        let plan = fold(&scan(&[&[data(0)], &[data(0)], &[covers(0, 2), parity(0), data(1)]]), 0, stripe_of);
        let stripe = &plan.expect("consistent").stripes[&StripeId(0)];
        let covered = stripe.covered.as_ref().expect("covered");
        assert_eq!(covered.versions, [(ArrayBlock(0), version(10, 101, 0))]);
        assert_eq!(covered.parity, [(0, PayloadAt { position: 105, crc: 99 })]);
        assert_eq!((covered.upto, covered.sequence), (10, 12));
        let dirty = BTreeMap::from([(ArrayBlock(0), version(11, 103, 0)), (ArrayBlock(1), version(12, 106, 1))]);
        assert_eq!(stripe.dirty, dirty);
    }

    #[test]
    fn parity_may_cover_data_of_its_own_record() {
        let plan = fold(&scan(&[&[data(0), parity(0), covers(0, 0)]]), 0, stripe_of).expect("consistent");
        let stripe = &plan.stripes[&StripeId(0)];
        assert_eq!(stripe.covered.as_ref().expect("covered").versions, [(ArrayBlock(0), version(10, 101, 0))]);
    }

    #[test]
    fn destaged_forgets_what_is_at_or_below_and_nothing_newer() {
        let plan =
            fold(&scan(&[&[data(0)], &[data(1)], &[data(0)], &[destaged(0, 2)]]), 0, stripe_of).expect("consistent");
        let dirty = BTreeMap::from([(ArrayBlock(0), version(12, 105, 0))]);
        assert_eq!(plan.stripes[&StripeId(0)], StripeReplay { covered: None, dirty });
        let plan = fold(&scan(&[&[data(0)], &[covers(0, 1), parity(0)], &[destaged(0, 2)]]), 0, stripe_of);
        assert_eq!(plan, Ok(ReplayPlan::default()));
        assert_eq!(ReplayPlan::default().oldest_sequence(), None);
    }

    #[test]
    fn what_is_covered_but_released_needs_a_destaged_record_to_follow() {
        assert!(refused(&[&[covers(0, 5), parity(0)]]));
        let plan = fold(&scan(&[&[covers(0, 5), parity(0)], &[destaged(0, 6)]]), 0, stripe_of);
        assert_eq!(plan, Ok(ReplayPlan::default()));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(refused(&[&[data(1000)]]), "outside the array");
        assert!(refused(&[&[data(0), parity(0)]]), "parity that covers nothing");
        assert!(refused(&[&[data(0)], &[covers(0, 1)]]), "covers without parity");
        assert!(refused(&[&[data(0)], &[covers(0, 1), parity(1)]]), "parity of another stripe");
        assert!(refused(&[&[data(0)], &[covers(0, 1), covers(0, 1), parity(0)]]), "a block twice");
        assert!(refused(&[&[data(0)], &[covers(0, 1), parity(0), parity(0)]]), "a parity twice");
        let (first, again) = ([covers(0, 1), parity(0)], [covers(1, 1), parity(0)]);
        assert!(refused(&[&[data(0)], &first, &[data(1)], &again]), "leaves out what was begun");
        assert!(refused(&[&[data(0)], &[data(0)], &first, &[destaged(0, 3)]]), "destaged less than covered");
    }

    #[test]
    fn newer_parity_may_take_over_what_older_parity_began() {
        let again = [covers(1, 1), covers(0, 3), parity(0)];
        let plan = fold(&scan(&[&[data(0)], &[covers(0, 1), parity(0)], &[data(1)], &again]), 0, stripe_of);
        let stripes = plan.expect("consistent").stripes;
        assert_eq!(stripes[&StripeId(0)].covered.as_ref().map(|covered| covered.versions.len()), Some(2));
    }

    #[test]
    fn blocks_lie_where_they_lay_when_they_were_logged_and_what_was_about_to_be_moved_does_not_count() {
        // Blocks 4 and 8 of stripes 1 and 2 are destaged where they lie, and move to stripes 0 and 1.
        let records: [(u32, &[Entry]); 6] = [
            (0, &[data(4), data(9)]),
            (0, &[data(8), data(40)]),
            (0, &[destaged(1, 2), destaged(2, 1)]),
            (1, &[data(4), data(8), Entry::Zeros { block: ArrayBlock(9), count: 1 }]),
            (0, &[data(41)]),
            (1, &[destaged(0, 2)]),
        ];
        let dirty = |records: &[(u32, &[Entry])], in_force| {
            let plan = fold(&scan_of(records), in_force, stripe_of).expect("consistent");
            let of = |(id, replay): (&StripeId, &StripeReplay)| {
                (id.0, replay.dirty.iter().map(|(block, version)| (block.0, version.sequence)).collect::<Vec<_>>())
            };
            plan.stripes.iter().map(of).collect::<Vec<_>>()
        };
        let elsewhere = (10, vec![(40, 11), (41, 14)]);
        assert_eq!(dirty(&records[..5], 0), core::slice::from_ref(&elsewhere));
        let moved = (1, vec![(8, 13), (9, 13)]);
        assert_eq!(dirty(&records[..5], 1), [(0, vec![(4, 13)]), moved.clone(), elsewhere.clone()]);
        assert_eq!(dirty(&records, 1), [moved, elsewhere]);
    }
}
