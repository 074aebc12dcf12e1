//! Start-up over devices in memory: members that are behind are brought up before anything relies on what they lack, what
//! cannot be used is left out or refused, and what is refused is left as it was.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use base::ids::{ArrayBlock, ArrayId, DeviceBlock, DeviceId, LaneId, StripeId, ZoneId};
use base::sector::LogicalBlock;
use base::{BLOCK, Block, ZERO_BLOCK};
use engine::array::{DestageSettings, Residency};
use engine::boot::{AssembleOptions, BootError, BootedArray, CreateArray, CreateVolume, assemble, create_array};
use engine::coordinator::RoundSettings;
use engine::drives::DriveSettings;
use journal::{
    Entry, LogLayout, LogMode, LogSuperblock, RecordHeader, RecordKind, format_lane, payload_crc, seal_record,
};
use ports::{DeviceError, SyncDevice};
use raid::{Geometry, Level, Metadata, MetadataError, Origin, Superblock, VolumeSpec, ZoneBits, superblock_block};

const MEMBERS: usize = 3;
const COPIES: usize = 2;
const MEMBER_BLOCKS: u64 = 8192;
const LOG_BLOCKS: u64 = 4096;

/// A device whose writes are durable at once, until the power is cut in one of them: then half of its block is new.
struct Memory {
    size: u64,
    blocks: Rc<RefCell<BTreeMap<u64, Block>>>,
    writes_left: Rc<Cell<usize>>,
}

impl Memory {
    /// Another handle on the same device: start-up lets go of one that fails.
    fn share(&self) -> Self {
        Self { blocks: Rc::clone(&self.blocks), writes_left: Rc::clone(&self.writes_left), ..*self }
    }
}

impl Clone for Memory {
    /// A device of its own with the same content.
    fn clone(&self) -> Self {
        Self { blocks: Rc::new(RefCell::new(self.blocks.borrow().clone())), ..self.share() }
    }
}

impl SyncDevice for Memory {
    fn blocks(&self) -> u64 {
        self.size
    }

    fn read(&mut self, start: DeviceBlock, into: &mut [Block]) -> Result<(), DeviceError> {
        assert!(start.0 + into.len() as u64 <= self.size, "a read beyond the end");
        for (at, block) in (start.0..).zip(into) {
            *block = self.blocks.borrow().get(&at).copied().unwrap_or(ZERO_BLOCK);
        }
        if self.writes_left.get() == 0 { Err(DeviceError::Gone) } else { Ok(()) }
    }

    fn write(&mut self, start: DeviceBlock, from: &[Block]) -> Result<(), DeviceError> {
        assert!(start.0 + from.len() as u64 <= self.size, "a write beyond the end");
        for (at, block) in (start.0..).zip(from) {
            match self.writes_left.get() {
                0 => return Err(DeviceError::Gone),
                1 => {
                    let mut blocks = self.blocks.borrow_mut();
                    blocks.entry(at).or_insert(ZERO_BLOCK)[..BLOCK / 2].copy_from_slice(&block[..BLOCK / 2]);
                }
                _ => {
                    self.blocks.borrow_mut().insert(at, *block);
                }
            }
            self.writes_left.set(self.writes_left.get() - 1);
        }
        if self.writes_left.get() == 0 { Err(DeviceError::Gone) } else { Ok(()) }
    }

    fn write_zeroes(&mut self, start: DeviceBlock, count: u64) -> Result<(), DeviceError> {
        (start.0..start.0 + count).try_for_each(|at| self.write(DeviceBlock(at), &[ZERO_BLOCK]))
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        if self.writes_left.get() == 0 { Err(DeviceError::Gone) } else { Ok(()) }
    }
}

type Devices = Vec<Option<Memory>>;

fn entropy() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    }
}

fn spec(volumes: &[&str]) -> CreateArray {
    spec_at(Level::Raid5, MEMBERS, volumes)
}

fn spec_at(level: Level, members: usize, volumes: &[&str]) -> CreateArray {
    CreateArray {
        name: "a0".to_owned(),
        level,
        members: (0..members as u16).map(DeviceId).collect(),
        copies: (members as u16..(members + COPIES) as u16).map(DeviceId).collect(),
        chunk_blocks: 16,
        lanes: 2,
        mode: LogMode::WriteBack,
        checksums: false,
        known_zero: false,
        volumes: volumes
            .iter()
            .map(|name| CreateVolume { name: (*name).to_owned(), blocks: 64, logical: LogicalBlock::Block })
            .collect(),
    }
}

fn created() -> Devices {
    created_at(Level::Raid5, MEMBERS)
}

fn created_at(level: Level, members: usize) -> Devices {
    let power = Rc::new(Cell::new(usize::MAX));
    let device = |size| Some(Memory { size, blocks: Rc::default(), writes_left: Rc::clone(&power) });
    let mut devices: Devices = (0..members).map(|_| device(MEMBER_BLOCKS)).collect();
    devices.extend((0..COPIES).map(|_| device(LOG_BLOCKS)));
    create_array(&mut devices, &spec_at(level, members, &["one"]), &mut entropy()).expect("an array");
    devices
}

/// The devices as they are, with power for this many writes.
fn powered(devices: &Devices, writes: usize) -> Devices {
    let power = Rc::new(Cell::new(writes));
    let again = |device: &Memory| Memory { writes_left: Rc::clone(&power), ..device.clone() };
    devices.iter().map(|device| device.as_ref().map(again)).collect()
}

fn content(devices: &Devices) -> Vec<Option<BTreeMap<u64, Block>>> {
    devices.iter().map(|device| device.as_ref().map(|device| device.blocks.borrow().clone())).collect()
}

/// A start whose power is cut in this write; whether it ended before, and the devices as they are when the power is back.
fn cut_start(devices: &Devices, writes: usize) -> (bool, Devices) {
    let mut used = powered(devices, writes);
    let left: Devices = used.iter().map(|device| device.as_ref().map(Memory::share)).collect();
    let ended = start(&mut used, &[]).is_ok();
    (ended, powered(&left, usize::MAX))
}

fn start(devices: &mut Devices, volumes: &[&str]) -> Result<BootedArray, BootError> {
    let options = AssembleOptions {
        log_patience: base::time::Span::from_secs(10),
        id: ArrayId(0),
        name: "a0".to_owned(),
        shards: 1,
        force: false,
        mode: None,
        on_log_loss: engine::map::OnLogLoss::default(),
        volumes: spec(volumes).volumes,
        residency: Residency::Memory,
        index_blocks: 0,
        cache_blocks: 64,
        checksum_blocks: 0,
        settings: DestageSettings::default(),
        drives: DriveSettings::default(),
        rebuild: RoundSettings::default(),
        scrub: engine::coordinator::ScrubSettings::default(),
    };
    assemble(devices, &options, &mut entropy())
}

fn block(devices: &Devices, device: usize, at: DeviceBlock) -> Block {
    devices[device].as_ref().expect("there").blocks.borrow().get(&at.0).copied().unwrap_or(ZERO_BLOCK)
}

fn put(devices: &Devices, device: usize, at: DeviceBlock, blocks: &[Block]) {
    devices[device].as_ref().expect("there").blocks.borrow_mut().extend((at.0..).zip(blocks.iter().copied()));
}

fn superblock(devices: &Devices, device: usize) -> Superblock {
    Superblock::newest(&block(devices, device, DeviceBlock(1)), &block(devices, device, DeviceBlock(2)))
        .expect("a member")
}

fn put_superblock(devices: &Devices, device: usize, superblock: &Superblock) {
    let mut encoded = ZERO_BLOCK;
    superblock.encode(&mut encoded);
    put(devices, device, superblock_block(superblock.update), &[encoded]);
}

fn log(devices: &Devices, device: usize) -> LogSuperblock {
    LogSuperblock::newest(&block(devices, device, DeviceBlock(1)), &block(devices, device, DeviceBlock(2)))
        .expect("a log")
        .0
}

/// What one member alone says of the zones.
fn bits_of(devices: &Devices, device: usize) -> Option<ZoneBits> {
    let superblock = superblock(devices, device);
    let mut bits = ZoneBits::new(superblock.array, superblock.geometry.zones(), false);
    let slots = [0, 1].map(|slot| block(devices, device, superblock.layout.bitmap_block(0, slot)));
    bits.merge(0, &slots).then_some(bits)
}

/// A zone's bit in the next update of one member, as a power cut leaves it.
fn set_bit(devices: &Devices, device: usize, zone: ZoneId) {
    let mut bits = bits_of(devices, device).expect("a bitmap");
    bits.set(zone);
    let slot = bits.advance(0);
    let mut encoded = ZERO_BLOCK;
    bits.encode(0, &mut encoded);
    let place = superblock(devices, device).layout.bitmap_block(0, slot);
    put(devices, device, place, &[encoded]);
}

#[test]
fn a_bit_that_one_member_has_is_on_all_members_before_anything_is_served() {
    let mut devices = created();
    set_bit(&devices, 0, ZoneId(2));
    let booted = start(&mut devices, &[]).expect("an array");
    assert!(booted.coordinated.initialised.is_set(ZoneId(2)), "the zone is served as initialised");
    for member in 0..MEMBERS {
        let bits = bits_of(&devices, member).expect("a bitmap");
        assert!(bits.is_set(ZoneId(2)) && bits.update(0) == 2, "member {member} has it at the same update");
    }
    devices[0] = None;
    let booted = start(&mut devices, &[]).expect("two members");
    assert!(booted.coordinated.initialised.is_set(ZoneId(2)), "the member that had it first is lost");
    assert!(!booted.coordinated.initialised.is_set(ZoneId(1)));
}

#[test]
fn a_newest_bitmap_block_without_a_bit_of_another_gets_it_when_that_is_safe() {
    let devices = created();
    set_bit(&devices, 0, ZoneId(0));
    set_bit(&devices, 1, ZoneId(1));
    let mut ends = 0;
    for writes in 1..60 {
        let (ended, after) = cut_start(&devices, writes);
        let bits: Vec<ZoneBits> = (0..MEMBERS).map(|at| bits_of(&after, at).expect("a bitmap")).collect();
        for zone in [ZoneId(0), ZoneId(1)] {
            let have = bits.iter().filter(|bits| bits.is_set(zone)).count();
            assert!(have >= if ended { MEMBERS } else { 1 }, "{zone} is on {have} members after {writes} writes");
        }
        ends += u32::from(ended);
    }
    assert!(ends > 5, "{ends} starts ended");
}

#[test]
fn a_cut_while_members_are_brought_up_costs_none_of_them_its_last_good_block() {
    let mut devices = created();
    set_bit(&devices, 0, ZoneId(0));
    start(&mut devices, &[]).expect("an array");
    set_bit(&devices, 0, ZoneId(2));
    let mut cuts = 0;
    for writes in 1..60 {
        let (ended, mut after) = cut_start(&devices, writes);
        for member in 0..MEMBERS {
            let bits = bits_of(&after, member).expect("one of the two is whole");
            assert!(bits.is_set(ZoneId(0)), "member {member} after {writes} writes");
        }
        let booted = start(&mut after, &[]).expect("the power is back");
        assert!(booted.coordinated.initialised.is_set(ZoneId(2)));
        cuts += u32::from(!ended);
    }
    assert!(cuts > 5, "{cuts} cuts");
}

/// The newest table of a member with its update.
fn table(devices: &Devices, device: usize) -> (u64, Metadata) {
    let superblock = superblock(devices, device);
    let slots: Vec<Vec<Block>> = [0, 1]
        .iter()
        .map(|slot| {
            let start = superblock.layout.metadata_block(*slot).0;
            (start..start + raid::metadata::METADATA_BLOCKS as u64)
                .map(|at| block(devices, device, DeviceBlock(at)))
                .collect()
        })
        .collect();
    let newest = Metadata::newest(superblock.array, slots.iter().map(Vec::as_slice)).expect("a table");
    (newest.1, newest.2)
}

fn put_table(devices: &Devices, device: usize, update: u64, metadata: &Metadata) {
    let superblock = superblock(devices, device);
    let blocks = metadata.encode(superblock.array, update).expect("small");
    put(devices, device, superblock.layout.metadata_block((update & 1) as usize), &blocks);
}

#[test]
fn a_table_that_one_member_has_is_on_all_members_before_a_newer_one_is_written() {
    let before = created();
    let (update, mut newer) = table(&before, 0);
    let geometry = superblock(&before, 0).geometry;
    newer.create_volume(&geometry, VolumeSpec::new("two", 64), [7, 8], Origin::Runtime).expect("room");
    for volumes in [&["one"][..], &["one", "three"][..]] {
        let mut devices = before.clone();
        put_table(&devices, 0, update + 1, &newer);
        let booted = start(&mut devices, volumes).expect("an array");
        assert!(booted.metadata().find("two").is_some());
        let added = u64::from(volumes.len() == 2);
        for member in 0..MEMBERS {
            assert_eq!(table(&devices, member), (update + 1 + added, booted.metadata().clone()), "member {member}");
        }
        if added == 1 {
            // The newer one is torn off again: what lies beside it is not older than what was served.
            for member in 0..MEMBERS {
                let place = superblock(&devices, member).layout.metadata_block(((update + 2) & 1) as usize);
                put(&devices, member, place, &[[0x5a; BLOCK]]);
                assert_eq!(table(&devices, member), (update + 1, newer.clone()), "member {member}");
            }
        }
        devices[0] = None;
        let booted = start(&mut devices, volumes).expect("two members");
        assert!(booted.metadata().find("two").is_some(), "the member that had it first is lost");
    }
}

#[test]
fn a_table_of_a_newer_version_or_of_another_shape_is_refused_and_nothing_is_changed() {
    let refused = |devices: &Devices, volumes: &[&str]| {
        let mut after = devices.clone();
        let error = start(&mut after, volumes).expect_err("refused");
        assert_eq!(content(&after), content(devices), "{error}");
        error
    };
    let devices = created();
    // The slot beside the newest: a newer version's table counts wherever it lies.
    let place = superblock(&devices, 1).layout.metadata_block(0);
    let mut header = Metadata::default().encode(superblock(&devices, 1).array, 0).expect("small")[0];
    header[12] = 2;
    header[8..12].fill(0);
    let crc = crc32c::crc32c(&header);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
    put(&devices, 1, place, &[header]);
    let error = refused(&devices, &["one", "more"]);
    assert!(matches!(error, BootError::Metadata { error: MetadataError::Version(2), .. }), "{error}");

    let devices = created();
    let (update, mut table) = table(&devices, 2);
    table.volumes[0].extents[0].start += 1;
    put_table(&devices, 2, update + 1, &table);
    let error = refused(&devices, &["one"]);
    assert!(matches!(error, BootError::Metadata { error: MetadataError::Malformed(_), .. }), "{error}");

    let error = refused(&created(), &["one", "not a name"]);
    assert!(matches!(error, BootError::Impossible { .. }), "{error}");
}

#[test]
fn members_that_do_not_agree_are_written_anew_once() {
    let mut devices = created();
    // An exclusion of log copy 1 that reached member 0 only.
    let mut ahead = superblock(&devices, 0);
    ahead.exclude(2, 0, 0b10);
    put_superblock(&devices, 0, &ahead);
    let booted = start(&mut devices, &[]).expect("an array");
    assert_eq!((booted.map.epoch, &booted.map.copies[..]), (3, &[Some(DeviceId(3)), None][..]));
    for member in 0..MEMBERS {
        let written = superblock(&devices, member);
        assert_eq!((written.epoch, &written.copies, &written.members), (3, &ahead.copies, &ahead.members));
    }
    assert_eq!((log(&devices, 3).epoch, log(&devices, 4).epoch), (3, 1));
    let updates: Vec<u64> = (0..MEMBERS).map(|member| superblock(&devices, member).update).collect();
    assert_eq!(start(&mut devices, &[]).expect("an array").map.epoch, 3);
    let again: Vec<u64> = (0..MEMBERS).map(|member| superblock(&devices, member).update).collect();
    assert_eq!(again, updates, "nothing differs any more");
}

#[test]
fn a_log_that_knows_a_later_epoch_never_goes_back() {
    let mut devices = created();
    let mut ahead = log(&devices, 3);
    (ahead.epoch, ahead.update) = (9, ahead.update + 1);
    let mut encoded = ZERO_BLOCK;
    ahead.encode(&mut encoded);
    put(&devices, 3, LogLayout::superblock_block(journal::slot_of(ahead.update)), &[encoded]);
    let booted = start(&mut devices, &[]).expect("an array");
    assert_eq!(booted.map.epoch, 10);
    assert_eq!((log(&devices, 3).epoch, log(&devices, 4).epoch), (10, 10));
    assert!((0..MEMBERS).all(|member| superblock(&devices, member).epoch == 10));
}

#[test]
fn devices_that_are_smaller_than_they_say_are_left_out_with_a_note() {
    let notes_of = |devices: &mut Devices, device: u16| {
        let booted = start(devices, &[]).expect("the others are enough");
        assert!(booted.map.members.iter().flatten().all(|member| member.device != DeviceId(device)));
        assert!(!booted.map.copies.contains(&Some(DeviceId(device))));
        let prefix = format!("device {device}:");
        assert!(booted.report.notes.iter().any(|note| note.starts_with(&prefix)), "{:?}", booted.report.notes);
    };
    let mut devices = created();
    let needed = superblock(&devices, 1).device_blocks();
    devices[1].as_mut().expect("there").size = needed;
    assert_eq!(start(&mut devices, &[]).expect("just enough").map.missing(), 0);
    devices[1].as_mut().expect("there").size = needed - 1;
    notes_of(&mut devices, 1);

    let mut devices = created();
    let needed = log(&devices, 4).layout.device_blocks();
    devices[4].as_mut().expect("there").size = needed - 1;
    notes_of(&mut devices, 4);

    // Geometry and regions for 2^48 stripes under a good checksum: its bitmap would take 32 GiB of memory.
    let mut devices = created();
    let mut forged = superblock(&devices, 2);
    forged.geometry = Geometry::new(Level::Raid5, 3, 16, u64::MAX).expect("the largest there is");
    (forged.layout.bitmap.start, forged.layout.bitmap.blocks) = (1 << 50, 1 << 40);
    (forged.layout.data.start, forged.layout.data.blocks) = (1 << 52, 1 << 50);
    (forged.layout.dirty, forged.layout.missed) = (None, None);
    forged.update += 1;
    put_superblock(&devices, 2, &forged);
    notes_of(&mut devices, 2);

    for size in 0..4 {
        let mut devices = created();
        devices[0].as_mut().expect("there").size = size;
        assert_eq!(start(&mut devices, &[]).expect("the others are enough").map.missing(), 0b001, "{size} blocks");
    }
}

#[test]
fn logs_that_cannot_be_are_left_out_or_refused() {
    let with = |change: fn(&mut LogSuperblock)| {
        let mut devices = created();
        let mut forged = log(&devices, 4);
        change(&mut forged);
        let mut encoded = ZERO_BLOCK;
        forged.encode(&mut encoded);
        put(&devices, 4, DeviceBlock(1), &[encoded]);
        put(&devices, 4, DeviceBlock(2), &[encoded]);
        start(&mut devices, &[])
    };
    let counts: [fn(&mut LogSuperblock); 3] =
        [|log| log.update = u64::MAX, |log| log.incarnation = u64::MAX, |log| log.epoch = u64::MAX];
    for change in counts {
        let booted = with(change).expect("one copy is enough");
        assert_eq!(booted.map.copies, [Some(DeviceId(3)), None]);
        assert_eq!(booted.map.epoch, 2);
        assert!(booted.report.notes.iter().any(|note| note.starts_with("device 4:")), "{:?}", booted.report.notes);
    }
    let elsewhere = with(|log| log.layout = LogLayout::for_device(LOG_BLOCKS / 2, 2).expect("large enough"));
    assert!(matches!(elsewhere, Err(BootError::Impossible { .. })));
}

#[test]
fn an_array_of_too_many_members_or_of_one_device_twice_is_not_made() {
    let mut devices = created();
    let before = devices.clone();
    let mut many = spec(&[]);
    // 258 is 2 to a byte.
    many.members = vec![DeviceId(0); 258];
    let mut distinct: Devices = (0..260).map(|_| devices[0].clone()).collect();
    many.members = (0..258).map(DeviceId).collect();
    many.copies = vec![DeviceId(259)];
    let mut twice = spec(&[]);
    twice.members[1] = DeviceId(0);
    let mut shared = spec(&[]);
    shared.copies[0] = DeviceId(2);
    assert!(matches!(create_array(&mut distinct, &many, &mut entropy()), Err(BootError::Impossible { .. })));
    for wrong in [twice, shared] {
        let refused = create_array(&mut devices, &wrong, &mut entropy());
        assert!(matches!(refused, Err(BootError::Impossible { .. })), "{refused:?}");
        assert_eq!(content(&devices), content(&before));
    }
}

/// These members of an array whose others, and perhaps log copies, are away.
fn only(devices: &Devices, there: &[usize]) -> Devices {
    let handle = |at: usize| devices[at].as_ref().filter(|_| there.contains(&at)).map(Memory::share);
    (0..devices.len()).map(handle).collect()
}

#[test]
fn mirrors_that_were_left_behind_are_refused_and_left_as_they_were() {
    let devices = created_at(Level::Raid1, MEMBERS);
    assert!(
        start(&mut only(&devices, &[2, 3, 4]), &[]).is_ok(),
        "one of three is enough where all log copies are there"
    );
    let before = content(&devices);
    for there in [&[0, 1, 3][..], &[0, 1, 4], &[0, 3, 4]] {
        let refused = start(&mut only(&devices, there), &[]).map(|_| ()).expect_err("they are old");
        assert!(
            matches!(&refused, BootError::Assemble(raid::AssembleError::LeftBehind { alone, .. }) if alone == &[2])
        );
    }
    assert_eq!(content(&devices), before);
    let booted = start(&mut only(&devices, &[0, 1, 2, 3, 4]), &[]).expect("the one that went on is there");
    assert_eq!(booted.map.missing(), 0b011);

    let devices = created_at(Level::Raid1, MEMBERS);
    let before = content(&devices);
    let refused = start(&mut only(&devices, &[0, 1, 4]), &[]).map(|_| ()).expect_err("nobody would know");
    assert!(matches!(&refused, BootError::Assemble(raid::AssembleError::Undecided { copies, .. }) if copies == &[0]));
    assert_eq!(content(&devices), before);
}

/// Puts a record into lane 0 of all log copies: new content of block 0, and parities of its stripe that cover it.
fn put_parity_record(devices: &Devices, copies: core::ops::Range<usize>, content: &[Block], parities: &[u8]) {
    for device in copies {
        let LogSuperblock { identity, layout, .. } = log(devices, device);
        let (_, previous_crc) = format_lane(&layout, &identity, LaneId(0), 1, 1, 0);
        let crc = |at: usize| payload_crc(&identity, &content[at]);
        let mut entries =
            vec![Entry::Data { block: ArrayBlock(0), crc: crc(0) }, Entry::Covers { block: ArrayBlock(0), lag: 0 }];
        let logged = (1..).zip(parities);
        entries.extend(logged.map(|(at, &index)| Entry::Parity { stripe: StripeId(0), index, crc: crc(at) }));
        let header = RecordHeader {
            kind: RecordKind::Transaction,
            lane: LaneId(0),
            incarnation: 1,
            geometry_epoch: 0,
            array_epoch: 1,
            sequence: 2,
            position: 1,
            length_blocks: 1 + content.len() as u32,
            durable_upto: 1,
            previous_crc,
        };
        let mut record = vec![ZERO_BLOCK];
        seal_record(&identity, &header, &entries, &mut record[0]);
        record.extend_from_slice(content);
        put(devices, device, layout.ring_block(LaneId(0), 1), &record);
    }
}

#[test]
fn both_logged_parities_are_replayed_to_their_members_with_what_they_cover() {
    let devices = created_at(Level::Raid6, 4);
    let content = [[7; BLOCK], [8; BLOCK], [9; BLOCK]];
    put_parity_record(&devices, 4..6, &content, &[0, 1]);
    let mut there = only(&devices, &[0, 1, 3, 4, 5]);
    let booted = start(&mut there, &[]).expect("two members may be missing");
    assert_eq!((booted.report.lanes.replayed_stripes, booted.map.missing()), (1, 0b0100));
    let geometry = booted.map.arrangement.geometry();
    let homes = [
        geometry.member_of(StripeId(0), 0),
        geometry.parity_member(StripeId(0), 0),
        geometry.parity_member(StripeId(0), 1),
    ];
    for (slot, expected) in homes.into_iter().zip(content).filter(|(slot, _)| slot.0 != 2) {
        let start = superblock(&devices, slot.index()).layout.data.start;
        assert!(block(&devices, slot.index(), DeviceBlock(start)) == expected, "member {slot}");
    }
}

#[test]
fn a_parity_that_the_level_does_not_have_is_refused_and_nothing_is_changed_but_the_start() {
    for (level, parities) in [(Level::Raid5, &[1][..]), (Level::Raid5, &[0, 1]), (Level::Raid1, &[0])] {
        let devices = created_at(level, MEMBERS);
        let content = [[7; BLOCK], [8; BLOCK], [9; BLOCK]];
        put_parity_record(&devices, MEMBERS..MEMBERS + COPIES, &content[..=parities.len()], parities);
        let data = superblock(&devices, 0).layout.data.start;
        let refused = start(&mut only(&devices, &[0, 1, 2, 3, 4]), &[]).map(|_| ()).expect_err("nobody wrote that");
        assert!(
            matches!(refused, BootError::Log { error: journal::RecoveryError::Inconsistent { .. }, .. }),
            "{level}"
        );
        assert!((0..MEMBERS).all(|member| block(&devices, member, DeviceBlock(data)) == ZERO_BLOCK));
    }
}
