//! The write hole: a model of one stripe, cut at any point of its destage, with or without a member lost in that very
//! crash, replayed from the fold's plan. Contents are versions, parity is the list of versions that it counts.

use std::collections::BTreeMap;

use base::ids::{ArrayBlock, LaneId, StripeId};
use journal::{
    Anchor, Content, EndOfLog, Entry, LaneScan, RecordHeader, RecordKind, ScannedRecord, StripeReplay, fold,
};
use proptest::prelude::*;

const COLUMNS: usize = 3;
const STRIPE: StripeId = StripeId(7);

type Versions = [u64; COLUMNS];

/// Members hold this of the stripe; version 0 is what was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Members {
    data: Versions,
    parity: Versions,
}

/// A destage under way: what it writes, and what of it was written.
#[derive(Clone, Copy, Debug)]
struct Destage {
    frozen: [Option<u64>; COLUMNS],
    parity: Versions,
    written: [bool; COLUMNS + 1],
}

#[derive(Default)]
struct Model {
    records: Vec<Vec<Entry>>,
    /// What the parity payload of a record counts.
    parities: BTreeMap<u64, Versions>,
    newest: Versions,
    destaged_upto: u64,
    members: Members,
    destage: Option<Destage>,
}

impl Model {
    fn log(&mut self, entries: Vec<Entry>) -> u64 {
        self.records.push(entries);
        self.records.len() as u64
    }

    fn write(&mut self, column: usize) {
        let data = Entry::Data { block: ArrayBlock(column as u64), crc: 0 };
        self.newest[column] = self.log(vec![data]);
    }

    /// Freezes all that is dirty. A destage that was begun is given up and planned anew, as when a member is lost.
    fn begin(&mut self) {
        let frozen = self.newest.map(|version| (version > self.destaged_upto).then_some(version));
        if frozen == [None; COLUMNS] {
            return;
        }
        let mut parity = self.members.data;
        (0..COLUMNS).for_each(|column| parity[column] = frozen[column].unwrap_or(parity[column]));
        if frozen.iter().any(Option::is_none) {
            let own = self.records.len() as u64 + 1;
            let covers = (0..).zip(&frozen).filter_map(|(column, version)| {
                Some(Entry::Covers { block: ArrayBlock(column), lag: u32::try_from(own - (*version)?).expect("small") })
            });
            let payload = Entry::Parity { stripe: STRIPE, index: 0, crc: 0 };
            let sequence = self.log(covers.chain([payload]).collect());
            self.parities.insert(sequence, parity);
        }
        self.destage = Some(Destage { frozen, parity, written: [false; COLUMNS + 1] });
    }

    /// One member write of the destage, in any order; the last one is followed by flush and destaged record.
    fn step(&mut self, member: usize) {
        let Some(destage) = &mut self.destage else { return };
        destage.written[member] = true;
        match destage.frozen.get(member) {
            Some(version) => self.members.data[member] = version.unwrap_or(self.members.data[member]),
            None => self.members.parity = destage.parity,
        }
        let Destage { frozen, written, .. } = *destage;
        if (0..COLUMNS).all(|column| written[column] || frozen[column].is_none()) && written[COLUMNS] {
            let upto = frozen.into_iter().flatten().max().expect("something is frozen");
            let lag = u32::try_from(self.records.len() as u64 + 1 - upto).expect("small");
            self.log(vec![Entry::Destaged { stripe: STRIPE, lag }]);
            self.destaged_upto = upto;
            self.destage = None;
        }
    }

    /// What recovery would find, if everything up to now is in the log.
    fn scan(&self) -> LaneScan {
        let record = |(sequence, entries): (u64, &Vec<Entry>)| {
            let length_blocks = 1 + entries.iter().filter(|entry| entry.has_payload()).count() as u32;
            let header = RecordHeader {
                kind: RecordKind::Transaction,
                lane: LaneId(0),
                incarnation: 1,
                geometry_epoch: 0,
                array_epoch: 0,
                sequence,
                position: 10 * sequence,
                length_blocks,
                durable_upto: sequence - 1,
                previous_crc: 0,
            };
            ScannedRecord { header, entries: entries.clone(), crc: 0, good_copies: 1 }
        };
        let next_sequence = self.records.len() as u64 + 1;
        LaneScan {
            lane: LaneId(0),
            anchor: Anchor {
                lane: LaneId(0),
                update: 1,
                tail_position: 10,
                tail_sequence: 1,
                tail_incarnation: 1,
                tail_previous_crc: 0,
            },
            records: (1..).zip(&self.records).map(record).collect(),
            next_position: 10 * next_sequence,
            next_sequence,
            last_crc: 0,
            last_incarnation: 1,
            durable_upto: next_sequence - 1,
            end: EndOfLog::Clean,
        }
    }
}

/// Replays a stripe by the rules of `journal::fold`.
fn replay(members: &mut Members, parities: &BTreeMap<u64, Versions>, replay: &StripeReplay) {
    if replay.dirty.len() == COLUMNS {
        replay.dirty.iter().for_each(|(block, version)| members.data[block.index()] = version.sequence);
        members.parity = members.data;
    } else if let Some(covered) = &replay.covered {
        for (block, version) in &covered.versions {
            assert!(matches!(version.content, Content::Payload(at) if at.position == 10 * version.sequence + 1));
            members.data[block.index()] = version.sequence;
        }
        assert_eq!(covered.parity[0].1.position, 10 * covered.sequence + 1);
        members.parity = parities[&covered.sequence];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn after_any_cut_each_block_and_the_parity_are_right_even_if_a_member_is_lost(
        steps in proptest::collection::vec((0u8..10, 0usize..=COLUMNS), 0..60),
        lost in proptest::option::of(0usize..COLUMNS),
    ) {
        let mut model = Model::default();
        for (step, member) in steps {
            match step {
                0..3 => model.write(member % COLUMNS),
                3 => model.begin(),
                4 if model.destage.is_none() => model.begin(),
                _ => model.step(member),
            }
        }
        let plan = fold(&model.scan(), 0, |_, block| (block.0 < COLUMNS as u64).then_some(STRIPE)).expect("consistent");
        let stripe = plan.stripes.get(&STRIPE).cloned().unwrap_or_default();
        for column in 0..COLUMNS {
            let dirty = stripe.dirty.get(&ArrayBlock(column as u64)).map(|version| version.sequence);
            let expected = model.newest[column];
            prop_assert_eq!(dirty, (expected > model.destaged_upto).then_some(expected));
        }
        let mut members = model.members;
        replay(&mut members, &model.parities, &stripe);
        for column in 0..COLUMNS {
            // A lost block is what the parity counts, and all others must agree with it.
            let data = if lost == Some(column) { members.parity[column] } else { members.data[column] };
            prop_assert_eq!(members.parity[column], data, "parity does not match the members: {:?}", members);
            let newest = stripe.dirty.get(&ArrayBlock(column as u64)).map_or(data, |version| version.sequence);
            prop_assert_eq!(newest, model.newest[column]);
        }
        // Recovery that is cut and done again comes to the same.
        let mut again = members;
        replay(&mut again, &model.parities, &stripe);
        prop_assert_eq!(again, members);
    }
}
