//! What each block of the tortured region may hold. It decides only: it sends nothing, reads no clock and prints
//! nothing, so that its judgement can be tested by itself.
//!
//! Every block has a list of *candidates*: values that a read may return. Events carry a number that only grows.
//! A write becomes a candidate when it is submitted. It *ends* when it is answered, or when the connection dies under
//! it; after its end it cannot take effect any more. A candidate *dies* for later readers when something newer is known
//! to have taken effect:
//!
//! - a write is acknowledged: every candidate that had ended before that write was submitted is dead from then on;
//! - a read returns a value: every other candidate that had ended before that read was submitted is dead from then on.
//!
//! The second rule is "what was once read back is never taken back". A read may return any candidate that was not dead
//! when the read was submitted; anything else is a violation. Overlapping writes in flight need no special case: none
//! of them ended before the other began, so both stay possible until one is read.

use core::fmt;

use crate::stamp::{Content, Stamp};

/// The number of an event: submissions, answers and deaths in the order in which this host saw them.
pub type Event = u64;

/// A value that a block may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// All zeros.
    Zero,
    /// The write of this run with this sequence.
    Written(u64),
    /// What was there when the run began, by its CRC32C.
    Before(u32),
}

/// A block that holds what it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The logical block.
    pub lba: u64,
    /// What was read, or `None` if it could not be read.
    pub found: Option<Content>,
    /// What would have been right.
    pub expected: Vec<Value>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}: ", self.lba)?;
        match self.found {
            None => f.write_str("cannot be read")?,
            Some(Content::Zero) => f.write_str("zeros")?,
            Some(Content::Stamped(stamp)) if stamp.lba != self.lba => {
                write!(f, "the data of block {} (write {})", stamp.lba, stamp.sequence)?;
            }
            Some(Content::Stamped(stamp)) => write!(f, "write {} of run {:016x}", stamp.sequence, stamp.run)?,
            Some(Content::Damaged(stamp)) => write!(f, "a torn or damaged block of write {}", stamp.sequence)?,
            Some(Content::Foreign(crc)) => write!(f, "foreign data with CRC {crc:08x}")?,
        }
        f.write_str("; expected ")?;
        for (at, value) in self.expected.iter().enumerate() {
            let or = if at == 0 { "" } else { " or " };
            match value {
                Value::Zero => write!(f, "{or}zeros")?,
                Value::Written(sequence) => write!(f, "{or}write {sequence}")?,
                Value::Before(crc) => write!(f, "{or}the data from before the run (CRC {crc:08x})")?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Candidate {
    value: Value,
    submitted: Event,
    /// When it was answered or its connection died; `Event::MAX` while it is in flight.
    ended: Event,
    /// Reads submitted after this must not return it; `Event::MAX` while it is alive.
    dead_from: Event,
}

/// The permitted contents of blocks `0..blocks` of a volume.
#[derive(Debug)]
pub struct Model {
    run: u64,
    blocks: Vec<Vec<Candidate>>,
    now: Event,
}

impl Model {
    /// A region of `blocks` blocks about which nothing is known yet: [`Model::learn`] each before using it.
    pub fn new(run: u64, blocks: u64) -> Self {
        Self { run, blocks: vec![Vec::new(); blocks as usize], now: 0 }
    }

    /// How many blocks the region has.
    pub fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// The number of the next event: the `submitted` of a read or write about to be sent.
    pub const fn event(&mut self) -> Event {
        self.now += 1;
        self.now
    }

    /// Takes a block's present content as right: what was there before the run.
    ///
    /// # Panics
    /// If the block is known already.
    pub fn learn(&mut self, lba: u64, content: Content) {
        let value = match content {
            Content::Zero => Value::Zero,
            Content::Foreign(crc) => Value::Before(crc),
            Content::Stamped(stamp) | Content::Damaged(stamp) => Value::Before(fingerprint(stamp)),
        };
        let candidates = &mut self.blocks[lba as usize];
        assert!(candidates.is_empty(), "block {lba} is known already");
        candidates.push(Candidate { value, submitted: 0, ended: 0, dead_from: Event::MAX });
    }

    /// The stamp of block `lba` of the write submitted at `event`.
    pub const fn stamp(&self, lba: u64, event: Event) -> Stamp {
        Stamp { run: self.run, lba, sequence: event }
    }

    /// A write of `blocks` blocks from `lba` is about to be sent. Zeros are [`Value::Zero`], stamped blocks are
    /// [`Value::Written`] with `event` as the sequence.
    pub fn write_submitted(&mut self, event: Event, lba: u64, blocks: u32, zeros: bool) {
        let value = if zeros { Value::Zero } else { Value::Written(event) };
        for candidates in self.range(lba, blocks) {
            candidates.push(Candidate { value, submitted: event, ended: Event::MAX, dead_from: Event::MAX });
        }
    }

    /// The write submitted at `event` was acknowledged. `oldest_read` is when the oldest read still in flight was
    /// submitted ([`Event::MAX`] if there is none): candidates that no read can return any more are forgotten.
    pub fn write_acknowledged(&mut self, event: Event, lba: u64, blocks: u32, oldest_read: Event) {
        let now = self.event();
        for candidates in self.range(lba, blocks) {
            for candidate in candidates.iter_mut() {
                if candidate.submitted == event {
                    candidate.ended = now;
                } else if candidate.ended < event {
                    candidate.dead_from = candidate.dead_from.min(now);
                }
            }
            forget(candidates, oldest_read);
        }
    }

    /// The write submitted at `event` was answered with an error or lost with its connection: it may have taken effect
    /// or not, but it will not any more.
    pub fn write_abandoned(&mut self, event: Event, lba: u64, blocks: u32) {
        let now = self.event();
        for candidates in self.range(lba, blocks) {
            for candidate in candidates.iter_mut().filter(|candidate| candidate.submitted == event) {
                candidate.ended = now;
            }
        }
    }

    /// A read submitted at `event` returned `content` for one block.
    ///
    /// # Errors
    /// The violation, if the block may not hold that.
    pub fn read_returned(
        &mut self,
        event: Event,
        lba: u64,
        content: Content,
        oldest_read: Event,
    ) -> Result<(), Violation> {
        let now = self.event();
        let run = self.run;
        let candidates = &mut self.blocks[lba as usize];
        let permitted = |candidate: &Candidate| candidate.dead_from > event;
        let found = value_of(run, lba, content);
        if !candidates.iter().any(|candidate| found == Some(candidate.value) && permitted(candidate)) {
            let expected = candidates.iter().filter(|&candidate| permitted(candidate));
            return Err(Violation {
                lba,
                found: Some(content),
                expected: expected.map(|candidate| candidate.value).collect(),
            });
        }
        for candidate in candidates.iter_mut() {
            if found != Some(candidate.value) && candidate.ended < event {
                candidate.dead_from = candidate.dead_from.min(now);
            }
        }
        forget(candidates, oldest_read);
        Ok(())
    }

    /// The violation of a block that could not be read at all.
    pub fn unreadable(&self, lba: u64) -> Violation {
        let alive = self.blocks[lba as usize].iter().filter(|candidate| candidate.dead_from == Event::MAX);
        Violation { lba, found: None, expected: alive.map(|candidate| candidate.value).collect() }
    }

    /// Whether a block may hold more than one value, and so cannot be judged before it is read.
    pub fn is_uncertain(&self, lba: u64) -> bool {
        self.blocks[lba as usize].iter().filter(|candidate| candidate.dead_from == Event::MAX).count() > 1
    }

    fn range(&mut self, lba: u64, blocks: u32) -> impl Iterator<Item = &mut Vec<Candidate>> {
        self.blocks[lba as usize..][..blocks as usize].iter_mut()
    }
}

fn forget(candidates: &mut Vec<Candidate>, oldest_read: Event) {
    candidates.retain(|candidate| candidate.dead_from > oldest_read || candidate.dead_from == Event::MAX);
    // With no read in flight the oldest is `MAX`, and whatever has died is past being read.
}

fn value_of(run: u64, lba: u64, content: Content) -> Option<Value> {
    match content {
        Content::Zero => Some(Value::Zero),
        Content::Foreign(crc) => Some(Value::Before(crc)),
        Content::Stamped(stamp) if stamp.run == run && stamp.lba == lba => Some(Value::Written(stamp.sequence)),
        // A block of this run in another's place, or torn, matches nothing that was written here.
        Content::Stamped(stamp) | Content::Damaged(stamp) if stamp.run == run => None,
        Content::Stamped(stamp) | Content::Damaged(stamp) => Some(Value::Before(fingerprint(stamp))),
    }
}

/// A number for a stamp of an earlier run, which stands for the block's checksum.
fn fingerprint(stamp: Stamp) -> u32 {
    let mut bytes = [0; 24];
    base::cursor::Writer::new(&mut bytes).u64_le(stamp.run).u64_le(stamp.lba).u64_le(stamp.sequence);
    crc32c::crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const NO_READ: Event = Event::MAX;

    fn model() -> Model {
        let mut model = Model::new(9, 4);
        (0..4).for_each(|lba| model.learn(lba, Content::Zero));
        model
    }

    fn write(model: &mut Model, lba: u64) -> Event {
        let event = model.event();
        model.write_submitted(event, lba, 1, false);
        event
    }

    fn read(model: &mut Model, lba: u64, content: Content) -> Result<(), Violation> {
        let event = model.event();
        model.read_returned(event, lba, content, NO_READ)
    }

    fn written(lba: u64, sequence: u64) -> Content {
        Content::Stamped(Stamp { run: 9, lba, sequence })
    }

    #[test]
    fn an_acknowledged_write_is_the_only_content() {
        let mut model = model();
        let first = write(&mut model, 1);
        model.write_acknowledged(first, 1, 1, NO_READ);
        assert_eq!(read(&mut model, 1, written(1, first)), Ok(()));
        let lost = read(&mut model, 1, Content::Zero).expect_err("the old content is gone");
        assert_eq!(lost.expected, [Value::Written(first)]);
        assert_eq!(read(&mut model, 0, Content::Zero), Ok(()));
        assert!(read(&mut model, 0, written(1, first)).is_err(), "data of another block");
        assert!(read(&mut model, 0, Content::Foreign(3)).is_err(), "a third value");
    }

    #[test]
    fn a_write_lost_with_its_connection_is_old_or_new_until_it_is_read() {
        for sees_new in [false, true] {
            let mut model = model();
            let first = write(&mut model, 2);
            model.write_acknowledged(first, 2, 1, NO_READ);
            let second = write(&mut model, 2);
            model.write_abandoned(second, 2, 1);
            assert!(model.is_uncertain(2));
            let (seen, other) = if sees_new { (second, first) } else { (first, second) };
            assert_eq!(read(&mut model, 2, written(2, seen)), Ok(()));
            assert!(!model.is_uncertain(2));
            assert!(read(&mut model, 2, written(2, other)).is_err(), "what was read back was taken back");
            assert_eq!(read(&mut model, 2, written(2, seen)), Ok(()));
        }
    }

    #[test]
    fn an_old_command_may_not_reach_the_volume_after_a_later_acknowledgement() {
        let mut model = model();
        let lost = write(&mut model, 0);
        model.write_abandoned(lost, 0, 1);
        let later = write(&mut model, 0);
        model.write_acknowledged(later, 0, 1, NO_READ);
        assert_eq!(read(&mut model, 0, written(0, later)), Ok(()));
        assert!(read(&mut model, 0, written(0, lost)).is_err());
    }

    #[test]
    fn overlapping_writes_may_land_in_either_order_and_a_read_settles_them() {
        let mut model = model();
        let a = write(&mut model, 3);
        let b = write(&mut model, 3);
        model.write_acknowledged(b, 3, 1, NO_READ);
        model.write_acknowledged(a, 3, 1, NO_READ);
        assert_eq!(read(&mut model, 3, written(3, a)), Ok(()));
        assert!(read(&mut model, 3, written(3, b)).is_err());
        assert!(read(&mut model, 3, Content::Zero).is_err());
    }

    #[test]
    fn a_read_in_flight_across_an_acknowledgement_may_see_either_side() {
        for sees_new in [false, true] {
            let mut model = model();
            let in_flight = model.event();
            let first = write(&mut model, 1);
            model.write_acknowledged(first, 1, 1, in_flight);
            let seen = if sees_new { written(1, first) } else { Content::Zero };
            assert_eq!(model.read_returned(in_flight, 1, seen, NO_READ), Ok(()));
            assert!(read(&mut model, 1, Content::Zero).is_err(), "acknowledged before this read began");
        }
    }

    #[test]
    fn zeros_and_the_content_from_before_the_run_are_known() {
        let mut model = Model::new(9, 2);
        let earlier = Content::Stamped(Stamp { run: 8, lba: 0, sequence: 5 });
        model.learn(0, earlier);
        model.learn(1, Content::Foreign(77));
        assert_eq!(read(&mut model, 0, earlier), Ok(()));
        assert_eq!(read(&mut model, 1, Content::Foreign(77)), Ok(()));
        let event = model.event();
        model.write_submitted(event, 0, 2, true);
        model.write_acknowledged(event, 0, 2, NO_READ);
        assert_eq!(read(&mut model, 0, Content::Zero), Ok(()));
        let stale = read(&mut model, 1, Content::Foreign(77)).expect_err("it was overwritten");
        assert_eq!(stale.to_string(), "block 1: foreign data with CRC 0000004d; expected zeros");
    }

    #[test]
    fn a_torn_block_is_a_violation_even_while_its_write_is_in_flight() {
        let mut model = model();
        let event = write(&mut model, 0);
        assert!(read(&mut model, 0, Content::Damaged(Stamp { run: 9, lba: 0, sequence: event })).is_err());
        assert_eq!(model.unreadable(0).expected, [Value::Zero, Value::Written(event)]);
    }

    /// One block of a sound target: each write takes effect once, at any moment between its submission and its answer or
    /// the crash; each read returns what is there at one moment between its submission and its answer.
    #[derive(Default)]
    struct Sound {
        holds: u64,
        writes: Vec<(Event, bool)>,
        reads: Vec<(Event, Option<u64>)>,
    }

    impl Sound {
        fn apply(&mut self, index: usize) {
            let (event, applied) = &mut self.writes[index];
            if !*applied {
                (self.holds, *applied) = (*event, true);
            }
        }

        fn content(value: u64) -> Content {
            if value == 0 { Content::Zero } else { written(0, value) }
        }

        fn oldest_read(&self) -> Event {
            self.reads.iter().map(|&(event, _)| event).min().unwrap_or(Event::MAX)
        }

        fn step(&mut self, random: &mut Random, model: &mut Model) -> Result<(), Violation> {
            match random.below(100) {
                0..25 if self.writes.len() < 4 => self.writes.push((write(model, 0), false)),
                25..45 if self.reads.len() < 4 => self.reads.push((model.event(), None)),
                45..60 if !self.writes.is_empty() => self.apply(random.below(self.writes.len() as u64) as usize),
                60..75 if !self.reads.is_empty() => {
                    let index = random.below(self.reads.len() as u64) as usize;
                    self.reads[index].1.get_or_insert(self.holds);
                }
                75..85 if !self.writes.is_empty() => {
                    let index = random.below(self.writes.len() as u64) as usize;
                    self.apply(index);
                    let (event, _) = self.writes.swap_remove(index);
                    model.write_acknowledged(event, 0, 1, self.oldest_read());
                }
                85..97 if !self.reads.is_empty() => {
                    let (event, seen) = self.reads.swap_remove(random.below(self.reads.len() as u64) as usize);
                    let content = Self::content(seen.unwrap_or(self.holds));
                    model.read_returned(event, 0, content, self.oldest_read())?;
                }
                97..100 => {
                    while !self.writes.is_empty() {
                        let index = random.below(self.writes.len() as u64) as usize;
                        if random.percent(50) {
                            self.apply(index);
                        }
                        model.write_abandoned(self.writes.swap_remove(index).0, 0, 1);
                    }
                    self.reads.clear();
                }
                _ => {}
            }
            Ok(())
        }
    }

    #[test]
    fn a_sound_target_is_never_accused_and_a_stale_read_always_is() {
        for seed in 0..300 {
            let (mut random, mut model, mut sound) = (Random::new(seed), model(), Sound::default());
            for _ in 0..400 {
                sound.step(&mut random, &mut model).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            }
            // A write that is acknowledged with nothing else in flight leaves one content.
            sound.writes.drain(..).for_each(|(event, _)| model.write_abandoned(event, 0, 1));
            let stale = Sound::content(sound.holds);
            let last = write(&mut model, 0);
            model.write_acknowledged(last, 0, 1, NO_READ);
            assert!(!model.is_uncertain(0));
            assert!(read(&mut model, 0, stale).is_err(), "seed {seed}");
            assert_eq!(read(&mut model, 0, written(0, last)), Ok(()), "seed {seed}");
        }
    }
}
