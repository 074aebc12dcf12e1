//! A log in memory and a writer that keeps the rules, for the tests of recovery. The log takes single blocks on single
//! copies, so that a test can cut, tear and damage as it likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::ids::{ArrayBlock, DeviceBlock, LaneId, StripeId};
use base::{BLOCK, Block, ZERO_BLOCK, uuid::Uuid};
use journal::{
    Anchor, Entry, LaneScan, LaneSpace, LogIdentity, LogLayout, LogReader, MAX_IN_FLIGHT, MIN_LANE_BLOCKS, ReadFault,
    RecordHeader, RecordKind, format_lane, open_record, payload_crc, seal_record, slot_of,
};

pub(crate) const IDENTITY: LogIdentity = LogIdentity { array: Uuid([0xa5; 16]), generation: 0x1234_5678_9abc };
pub(crate) const LANE: LaneId = LaneId(1);

/// The copies of a log. Blocks that were never written are zeros.
#[derive(Clone)]
pub(crate) struct MemoryLog {
    pub(crate) copies: Vec<BTreeMap<u64, Box<Block>>>,
    pub(crate) unreadable: BTreeSet<(usize, u64)>,
}

impl MemoryLog {
    pub(crate) fn get(&self, copy: usize, block: DeviceBlock) -> Block {
        self.copies[copy].get(&block.0).map_or(ZERO_BLOCK, |block| **block)
    }

    /// Writes a block; one that could not be read can be read again.
    pub(crate) fn put(&mut self, copy: usize, block: DeviceBlock, content: &Block) {
        self.unreadable.remove(&(copy, block.0));
        self.copies[copy].insert(block.0, Box::new(*content));
    }

    pub(crate) fn put_all(&mut self, block: DeviceBlock, content: &Block) {
        (0..self.copies.len()).for_each(|copy| self.put(copy, block, content));
    }

    /// A write that a power cut tore: the first bytes are new, the rest is as before.
    pub(crate) fn tear(&mut self, copy: usize, block: DeviceBlock, content: &Block, bytes: usize) {
        let mut torn = self.get(copy, block);
        torn[..bytes].copy_from_slice(&content[..bytes]);
        self.put(copy, block, &torn);
    }

    pub(crate) fn flip(&mut self, copy: usize, block: DeviceBlock, at: usize) {
        let mut content = self.get(copy, block);
        content[at] ^= 0x40;
        self.put(copy, block, &content);
    }
}

impl LogReader for MemoryLog {
    fn copies(&self) -> usize {
        self.copies.len()
    }

    fn read(&mut self, copy: usize, start: DeviceBlock, into: &mut [Block]) -> Result<(), ReadFault> {
        assert!(into.len() <= journal::READ_BLOCKS);
        for (block, into) in (start.0..).zip(into) {
            if self.unreadable.contains(&(copy, block)) {
                return Err(ReadFault);
            }
            *into = self.get(copy, DeviceBlock(block));
        }
        Ok(())
    }
}

/// A record as it was written.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) header: RecordHeader,
    pub(crate) entries: Vec<Entry>,
    pub(crate) crc: u32,
    /// The blocks, descriptor first.
    pub(crate) blocks: Vec<(DeviceBlock, Block)>,
}

/// A writer of one lane, as the engine will be.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) layout: LogLayout,
    pub(crate) space: LaneSpace,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    pub(crate) previous_crc: u32,
    pub(crate) durable_upto: u64,
    pub(crate) anchor: Anchor,
    /// Every record from the anchor's tail on.
    pub(crate) live: VecDeque<Written>,
    /// Headers and checksums of the records that the tail has passed: an older anchor may still lead to them.
    pub(crate) passed: Vec<(RecordHeader, u32)>,
    /// Makes payloads differ.
    pub(crate) salt: u64,
}

pub(crate) fn layout() -> LogLayout {
    LogLayout::for_device(LogLayout::minimum_device_blocks(2) + 14, 2).expect("large enough")
}

/// A payload that is different each time.
pub(crate) fn payload(salt: u64) -> Block {
    let mut block = [salt as u8; BLOCK];
    block[..8].copy_from_slice(&salt.to_le_bytes());
    block
}

impl Writer {
    /// Formats the lane on all copies; its opening record counts as acknowledged.
    pub(crate) fn format(log: &mut MemoryLog) -> Self {
        let layout = layout();
        assert_eq!(layout.lane_blocks(), MIN_LANE_BLOCKS + 7);
        let (blocks, crc) = format_lane(&layout, &IDENTITY, LANE, 1, 0, 0);
        for (block, content) in &blocks {
            log.put_all(*block, content);
        }
        let header = open_record(&IDENTITY, &blocks[0].1).expect("a record").header;
        let opening = Written { header, entries: vec![], crc, blocks: vec![blocks[0]] };
        Self {
            space: LaneSpace::new(&layout, 0, 1),
            layout,
            incarnation: 1,
            sequence: 2,
            previous_crc: crc,
            durable_upto: 1,
            anchor: Anchor::decode(&IDENTITY, LANE, &blocks[1].1).expect("an anchor"),
            live: VecDeque::from([opening]),
            passed: vec![],
            salt: 1,
        }
    }

    /// The writer that goes on after a scan.
    pub(crate) fn resume(scan: &LaneScan, log: &MemoryLog, incarnation: u64, salt: u64) -> Self {
        let layout = layout();
        let live = scan.records.iter().map(|record| {
            let written = if record.header.kind == RecordKind::Pad { 1 } else { record.header.length_blocks };
            let blocks = (0..u64::from(written)).map(|at| {
                let place = layout.ring_block(LANE, record.header.position + at);
                let crc = at.checked_sub(1).map(|at| {
                    record.entries.iter().filter_map(Entry::payload_crc).nth(at as usize).expect("a payload")
                });
                let good = |block: &Block| match crc {
                    Some(crc) => payload_crc(&IDENTITY, block) == crc,
                    None => open_record(&IDENTITY, block).is_ok_and(|open| open.crc == record.crc),
                };
                let content = (0..log.copies.len()).map(|copy| log.get(copy, place)).find(good);
                (place, content.expect("good on some copy"))
            });
            let (header, entries) = (record.header, record.entries.clone());
            Written { header, entries, crc: record.crc, blocks: blocks.collect() }
        });
        Self {
            space: LaneSpace::new(&layout, scan.anchor.tail_position, scan.next_position),
            live: live.collect(),
            passed: vec![],
            layout,
            incarnation,
            sequence: scan.next_sequence,
            previous_crc: scan.last_crc,
            durable_upto: scan.next_sequence - 1,
            anchor: scan.anchor,
            salt,
        }
    }

    /// Appends a transaction (behind a pad if need be) to the live records, without writing it.
    pub(crate) fn append(&mut self, entries: &[Entry], payloads: &[Block], kind: RecordKind) -> Option<()> {
        let placement = self.space.place(1 + payloads.len() as u32, 0)?;
        self.space.take(&placement);
        if let Some((position, length)) = placement.pad {
            self.seal(RecordKind::Pad, position, length, &[], &[]);
        }
        self.seal(kind, placement.position, placement.length_blocks, entries, payloads);
        Some(())
    }

    fn seal(&mut self, kind: RecordKind, position: u64, length_blocks: u32, entries: &[Entry], payloads: &[Block]) {
        let header = RecordHeader {
            kind,
            lane: LANE,
            incarnation: self.incarnation,
            geometry_epoch: 0,
            array_epoch: 3,
            sequence: self.sequence,
            position,
            length_blocks,
            durable_upto: self.durable_upto,
            previous_crc: self.previous_crc,
        };
        let mut descriptor = ZERO_BLOCK;
        let crc = seal_record(&IDENTITY, &header, entries, &mut descriptor);
        let mut blocks = vec![(self.layout.ring_block(LANE, position), descriptor)];
        for (at, payload) in (1..).zip(payloads) {
            blocks.push((self.layout.ring_block(LANE, position + at), *payload));
        }
        self.live.push_back(Written { header, entries: entries.to_vec(), crc, blocks });
        self.previous_crc = crc;
        self.sequence += 1;
    }

    /// Appends a transaction of so many data blocks and some entries without payload; makes room if there is none.
    pub(crate) fn write(&mut self, log: &mut MemoryLog, payloads: usize, mark: u64) {
        // A pad may come before the record, so two places must be free.
        while self.in_flight() + 2 > MAX_IN_FLIGHT {
            self.acknowledge(log, 1);
        }
        let contents: Vec<Block> = (0..payloads as u64).map(|at| payload(self.salt + at)).collect();
        let mut entries: Vec<Entry> = (0..)
            .zip(&contents)
            .map(|(at, block)| Entry::Data { block: ArrayBlock(at), crc: payload_crc(&IDENTITY, block) })
            .collect();
        entries.push(Entry::Zeros { block: ArrayBlock(mark), count: 1 });
        entries.push(Entry::Destaged { stripe: StripeId(mark), lag: 1 });
        self.salt += payloads as u64;
        if self.append(&entries, &contents, RecordKind::Transaction).is_none() {
            self.acknowledge(log, MAX_IN_FLIGHT);
            self.move_tail(log, self.durable_upto, usize::MAX);
            self.append(&entries, &contents, RecordKind::Transaction).expect("an almost empty lane has room");
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        (self.sequence - 1 - self.durable_upto) as usize
    }

    /// Makes the oldest records in flight durable on all copies and acknowledges them.
    pub(crate) fn acknowledge(&mut self, log: &mut MemoryLog, count: usize) {
        for _ in 0..count.min(self.in_flight()) {
            let written = self.find(self.durable_upto + 1).clone();
            for (block, content) in &written.blocks {
                log.put_all(*block, content);
            }
            self.durable_upto += 1;
        }
    }

    /// Releases everything before a durable record and writes the anchor, to the first copies only if fewer are named.
    pub(crate) fn move_tail(&mut self, log: &mut MemoryLog, sequence: u64, copies: usize) {
        assert!(sequence <= self.durable_upto);
        let header = self.find(sequence).header;
        self.anchor = Anchor {
            update: self.anchor.update + 1,
            tail_position: header.position,
            tail_sequence: sequence,
            tail_incarnation: header.incarnation,
            tail_previous_crc: header.previous_crc,
            ..self.anchor
        };
        let mut block = ZERO_BLOCK;
        self.anchor.encode(&IDENTITY, &mut block);
        for copy in 0..log.copies.len().min(copies) {
            log.put(copy, self.layout.anchor_block(LANE, slot_of(self.anchor.update)), &block);
        }
        self.space.release_to(header.position);
        if copies >= log.copies.len() {
            self.space.tail_is_durable(header.position);
        }
        while self.live[0].header.sequence < sequence {
            self.passed.extend(self.live.pop_front().map(|written| (written.header, written.crc)));
        }
    }

    /// A live record.
    pub(crate) fn find(&self, sequence: u64) -> &Written {
        &self.live[(sequence - self.live[0].header.sequence) as usize]
    }

    /// Asserts that a scan holds every acknowledged record and nothing that was not written.
    pub(crate) fn check(&self, scan: &LaneScan) {
        assert!(scan.next_sequence > self.durable_upto, "{} is lost", self.durable_upto);
        assert!(scan.next_sequence <= self.sequence);
        assert_eq!(scan.anchor, self.anchor);
        assert_eq!(scan.records[0].header.sequence, self.live[0].header.sequence);
        assert_eq!(scan.records.len() as u64, scan.next_sequence - scan.anchor.tail_sequence);
        for (found, written) in scan.records.iter().zip(&self.live) {
            assert_eq!(found.header, written.header);
            assert_eq!((&found.entries, found.crc), (&written.entries, written.crc));
        }
        let last = scan.records.last().expect("at least one");
        assert_eq!((scan.last_crc, scan.last_incarnation), (last.crc, last.header.incarnation));
        assert_eq!(scan.next_position, last.header.position + u64::from(last.header.length_blocks));
    }
}

pub(crate) fn memory(copies: usize) -> MemoryLog {
    MemoryLog { copies: vec![BTreeMap::new(); copies], unreadable: BTreeSet::new() }
}
