//! Images of arrays as earlier versions left them, in text: what lay on each device, and what hosts must find. They are kept
//! for ever beside the code, and a test starts the present engine from each: a format that can no longer be read is found at
//! once, not by a user.
//!
//! ```text
//! # free words
//! array members 3 copies 2 shards 1 chunk 2
//! device 0 blocks 2816
//! 1 4252494e444c454d...            a block by its number: hexadecimal, without the zeros at its end
//! 300 stamp 17 4                   a block that is the stamp of version 4 of logical block 17
//! expect 17 4                      what a host must find: a version, or 0 for zeros
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use base::ids::{DeviceBlock, DeviceId, Lba, VolumeId};
use base::sector::Margins;
use base::{BLOCK, Block, ZERO_BLOCK};
use engine::io::{IoKind, IoRequest};
use engine::map::OnLogLoss;
use ports::{BufferList, Buffers};

use crate::failure::Failure;
use crate::machine::{Machine, Started, Step};
use crate::oracle::Oracle;
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::stamp::{Found, Version, fill, recognise};
use crate::subject::Subject;
use crate::sweep::{cases, script};
use crate::trace::Trace;

/// Steps after which a start or a read counts as stuck.
const MAX_STEPS: u32 = 1_000_000;

/// An array at rest, or as a power cut left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Members, log copies, shards, blocks of a chunk.
    pub shape: [u16; 4],
    /// Of each device: how many blocks it has, and those that are not zeros.
    pub devices: Vec<(u64, BTreeMap<u64, Box<Block>>)>,
    /// What hosts must find; version 0 is zeros.
    pub expected: BTreeMap<u64, u64>,
}

impl Image {
    /// Takes what lies on the devices now, and what the oracle is certain of.
    pub fn take(scenario: &Scenario, rack: &Rack, oracle: &Oracle) -> Self {
        let shape =
            [scenario.members.into(), scenario.log_copies.into(), scenario.shards, scenario.chunk_blocks as u16];
        let device = |device: u16| {
            let blocks = rack.blocks(DeviceId(device));
            let all = (0..blocks).map(|at| (at, rack.peek(DeviceId(device), DeviceBlock(at))));
            (blocks, all.filter(|(_, block)| **block != ZERO_BLOCK).map(|(at, block)| (at, Box::new(*block))).collect())
        };
        let expected = oracle.written().filter_map(|lba| Some((lba.0, oracle.certain(lba)?.0)));
        Self { shape, devices: (0..rack.devices() as u16).map(device).collect(), expected: expected.collect() }
    }

    /// The text.
    pub fn to_text(&self, words: &str) -> String {
        let [members, copies, shards, chunk] = self.shape;
        let mut text = format!("# {words}\narray members {members} copies {copies} shards {shards} chunk {chunk}\n");
        for (number, (blocks, content)) in self.devices.iter().enumerate() {
            let _ = writeln!(text, "device {number} blocks {blocks}");
            for (at, block) in content {
                // Stamps say of which block they are: whose, if any, is read from their second word.
                let lba = Lba(u64::from_le_bytes(block[8..16].try_into().expect("eight bytes")));
                if let Found::Version(version) = recognise(&block[..], lba) {
                    let _ = writeln!(text, "{at} stamp {lba} {}", version.0);
                    continue;
                }
                let end = BLOCK - block.iter().rev().take_while(|&&byte| byte == 0).count();
                let _ = write!(text, "{at} ");
                for byte in &block[..end] {
                    let _ = write!(text, "{byte:02x}");
                }
                text.push('\n');
            }
        }
        for (lba, version) in &self.expected {
            let _ = writeln!(text, "expect {lba} {version}");
        }
        text
    }

    /// Reads a text.
    ///
    /// # Errors
    /// The line that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut image = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            let understood = match words[..] {
                ["array", "members", _, "copies", _, "shards", _, "chunk", _] => (|| {
                    image.shape = [number(2)? as u16, number(4)? as u16, number(6)? as u16, number(8)? as u16];
                    Some(())
                })(),
                ["device", _, "blocks", _] => number(3).map(|blocks| image.devices.push((blocks, BTreeMap::new()))),
                ["expect", ..] => number(1).zip(number(2)).map(|(lba, version)| {
                    image.expected.insert(lba, version);
                }),
                [_, "stamp", ..] => (|| {
                    let mut block = Box::new(ZERO_BLOCK);
                    fill(&mut block[..], Lba(number(2)?), Version(number(3)?));
                    image.devices.last_mut()?.1.insert(number(0)?, block);
                    Some(())
                })(),
                [_, hex] => (|| {
                    let block = from_hex(hex)?;
                    image.devices.last_mut()?.1.insert(number(0)?, block);
                    Some(())
                })(),
                _ => None,
            };
            if understood.is_none() {
                return Err(format!("not understood: {}", &line[..line.len().min(60)]));
            }
        }
        Ok(image)
    }

    /// Starts from the image and reads everything that hosts must find; then stops cleanly.
    ///
    /// # Errors
    /// What is not as it was left.
    pub fn open<S: Subject>(&self) -> Result<(), Failure> {
        self.open_with::<S>(OnLogLoss::ReadOnly)
    }

    /// The same by another policy.
    ///
    /// # Errors
    /// As above.
    pub fn open_with<S: Subject>(&self, on_log_loss: OnLogLoss) -> Result<(), Failure> {
        let mut scenario = Scenario { on_log_loss, ..script(0, cases()[0], 0) };
        let [members, copies, shards, chunk] = self.shape;
        (scenario.members, scenario.log_copies, scenario.shards) = (members as u8, copies as u8, shards);
        (scenario.chunk_blocks, scenario.probe_losses) = (u32::from(chunk), false);
        let mut options = scenario.devices();
        for (options, (blocks, _)) in options.iter_mut().zip(&self.devices) {
            (options.blocks, options.holds_log, options.used) = (*blocks, false, false);
        }
        let rack = Rc::new(RefCell::new(Rack::new(1, &options, Trace::default())));
        for (number, (_, content)) in self.devices.iter().enumerate() {
            for (&at, block) in content {
                rack.borrow_mut().overwrite(DeviceId(number as u16), DeviceBlock(at), block);
            }
        }
        let started = Machine::<S>::boot(&scenario, &rack, &mut Random::named(1, "image")).map_err(Failure::Boot)?;
        let Started::Up(mut machine) = started else { unreachable!("nothing fails here") };
        for (&lba, &version) in &self.expected {
            let found = read(&mut machine, Lba(lba))?;
            let wanted = if version == 0 { Found::Zeros } else { Found::Version(Version(version)) };
            // Zeros that a host wrote have a version too.
            if found != wanted && found != Found::Zeros {
                return Err(Failure::Content { lba: Lba(lba), found, permitted: format!("version {version}") });
            }
            if found == Found::Zeros && version != 0 && self.holds_stamp(lba, version) {
                return Err(Failure::Content { lba: Lba(lba), found, permitted: format!("version {version}") });
            }
        }
        machine.stop();
        for _ in 0..MAX_STEPS {
            if machine.step() == Step::Ended {
                return Ok(());
            }
        }
        Err(Failure::Stuck { what: "the stop", detail: String::new() })
    }

    /// Whether any device of the image holds this version of a block: then it was not zeros that were written.
    fn holds_stamp(&self, lba: u64, version: u64) -> bool {
        let mut stamp = ZERO_BLOCK;
        fill(&mut stamp, Lba(lba), Version(version));
        self.devices.iter().any(|(_, content)| content.values().any(|block| **block == stamp))
    }
}

fn read<S: Subject>(machine: &mut Machine<S>, lba: Lba) -> Result<Found, Failure> {
    let buffers = BufferList::alloc(&mut machine.ports.pool, 1).expect("the pool is ample");
    let association = engine::fence::Association::NONE;
    let request = IoRequest {
        token: lba.0,
        association,
        volume: VolumeId(0),
        kind: IoKind::Read,
        lba,
        blocks: 1,
        margins: Margins::NONE,
        buffers,
    };
    if machine.begin(request).is_err() {
        return Err(Failure::Stuck { what: "a read", detail: format!("of {lba} was not taken") });
    }
    for _ in 0..MAX_STEPS {
        machine.step();
        let Some(done) = machine.done() else { continue };
        if let Err(error) = done.result {
            return Err(Failure::Refused { what: "a read", lba, blocks: 1, error });
        }
        let first = done.buffers.first().expect("a read brings its buffers back");
        let found = recognise(machine.ports.pool.bytes(first), lba);
        done.buffers.free(&mut machine.ports.pool);
        return Ok(found);
    }
    Err(Failure::Stuck { what: "a read", detail: format!("of {lba}") })
}

fn from_hex(text: &str) -> Option<Box<Block>> {
    let mut block = Box::new(ZERO_BLOCK);
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.len() > 2 * BLOCK {
        return None;
    }
    for (at, byte) in block.iter_mut().take(text.len() / 2).enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::production::Production;

    /// Every image that is kept, with its name.
    const GOLDEN: [(&str, &str); 8] = [
        ("a clean stop", include_str!("../golden/v1-raid5-clean-stop.txt")),
        ("a power cut", include_str!("../golden/v1-raid5-power-cut.txt")),
        ("a power cut, one log copy", include_str!("../golden/v1-raid5-one-log-copy-power-cut.txt")),
        ("a power cut, with checksums", include_str!("../golden/v1-raid5-checksums-power-cut.txt")),
        ("a power cut, without a log", include_str!("../golden/v1-raid5-without-log-power-cut.txt")),
        ("a power cut, its log lost", include_str!("../golden/v1-raid5-log-lost-power-cut.txt")),
        ("a power cut, a member away", include_str!("../golden/v1-raid5-member-away-power-cut.txt")),
        ("a power cut, exposed", include_str!("../golden/v1-raid5-exposed-power-cut.txt")),
    ];

    fn golden() -> impl Iterator<Item = (&'static str, Image)> {
        GOLDEN.into_iter().map(|(name, text)| (name, Image::parse(text).unwrap_or_else(|why| panic!("{name}: {why}"))))
    }

    #[test]
    fn arrays_that_earlier_versions_left_are_opened_with_all_that_was_acknowledged() {
        for (name, image) in golden() {
            assert!(image.expected.len() >= 10, "{name}");
            image.open::<Production>().unwrap_or_else(|failure| panic!("{name}: {failure}"));
        }
    }

    #[test]
    fn a_policy_that_an_array_of_an_earlier_version_cannot_keep_is_refused() {
        for (name, image) in golden() {
            let opened = image.open_with::<Production>(OnLogLoss::WriteThroughExposed);
            let refused = opened.err().map(|failure| failure.to_string());
            let why = match name {
                "a power cut, with checksums" => Some("its checksums need the log"),
                "a power cut, without a log"
                | "a power cut, its log lost"
                | "a power cut, exposed"
                | "a power cut, a member away" => None,
                _ => Some("made by an earlier version have no place"),
            };
            match (why, &refused) {
                (Some(why), Some(refused)) => assert!(refused.contains(why), "{name}: {refused}"),
                (why, refused) => assert_eq!((why, refused.as_deref()), (None, None), "{name}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_in_an_image_is_found() {
        let (_, mut image) = golden().next().unwrap();
        let (lba, version) = image.expected.iter().find(|&(&lba, &v)| image.holds_stamp(lba, v)).unwrap();
        let lba = *lba;
        let wrong = version + 1000;
        image.expected.insert(lba, wrong);
        assert!(matches!(image.open::<Production>(), Err(Failure::Content { .. })));
    }

    #[test]
    fn a_text_is_read_back_as_it_was() {
        let (_, image) = golden().next().unwrap();
        assert_eq!(Image::parse(&image.to_text("again")), Ok(image));
        for wrong in ["7 xyz", "device x", "expect 1", "1 stamp 2 3"] {
            assert!(Image::parse(wrong).is_err(), "{wrong}");
        }
    }
}
