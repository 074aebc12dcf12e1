//! The devices of a simulated appliance behind their queues, the power that feeds them and the faults that wait for them.
//! Everything that changes a device is an *effect* and is counted; a fault strikes at the effect it was planned for, while
//! that effect is in flight. Reads are no effects: a power cut at a read leaves what a cut at the next effect can leave.

mod mistakes;

use std::collections::{BTreeMap, BTreeSet};

use base::Block;
use base::ids::{DeviceBlock, DeviceId, ShardId};
use base::time::{Span, Time};
use ports::{BufferId, DeviceError, DeviceOp, DeviceRequest, MAX_DEVICE_BLOCKS, QueueFull};

use crate::clock::Clock;
use crate::device::{Content, Medium, Run, bytes_of, content_of};
use crate::fault::{Damage, Fault, Landmark, PlannedFault};
use crate::random::Random;
use crate::ring_watch;
use crate::trace::{Trace, fingerprint};

/// Longest time that a device takes for a request, but for its slow ones.
const LATENCY: Span = Span::from_micros(200);

/// The error that passes: EINTR, as some system might say.
const HICCUP: i32 = 4;

/// A device that is slow takes so many times longer.
const SLOWNESS: u64 = 20;

/// What a device is like.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOptions {
    /// Blocks it has.
    pub blocks: u64,
    /// Whether a completed write can be lost until it is flushed.
    pub volatile_cache: bool,
    /// Requests that each shard may have in flight on it.
    pub queue_depth: usize,
    /// Once in so many requests it is slow.
    pub slow_once_in: u64,
    /// Whether somebody has used it before: then it does not hold zeros at first.
    pub used: bool,
    /// Once in so many reads and writes it fails with an error that passes; 0 is never.
    pub hiccup_once_in: u64,
    /// Once in so many reads while it serves it gives back something else, or nothing, as long as no log copy was lost; 0 is never.
    pub rots_once_in: u64,
    /// Whether a power cut leaves each block old or new; else old or new by sectors.
    pub whole_blocks: bool,
    /// Whether it holds a copy of the log: then every write into a ring is watched.
    pub holds_log: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Working,
    Lost { returns: bool },
}

#[derive(Clone, Debug)]
struct Device {
    options: DeviceOptions,
    medium: Medium,
    condition: Condition,
    was_lost: bool,
    // It answers nothing until then.
    hangs_until: Time,
    // Reads take so long.
    reads_take: Option<Span>,
}

#[derive(Clone, Debug)]
struct Flight {
    shard: ShardId,
    tag: u64,
    device: DeviceId,
    op: DeviceOp,
    start: DeviceBlock,
    // Of a write: what it writes. Taken at submission; nobody may change a buffer under a device.
    data: Vec<Content>,
    buffers: Vec<BufferId>,
    flush_mark: u64,
    failed: bool,
    // It ends with an error that passes.
    hiccup: bool,
    rots: bool,
}

/// A power cut that waits for a landmark with much behind it.
#[derive(Clone, Copy, Debug)]
struct Aim {
    landmark: Landmark,
    blocks: u64,
    // The landmark's flight, and the blocks written behind it.
    flight: u64,
    behind: u64,
}

/// The end of a request, with what a read found.
#[derive(Debug)]
pub struct Finished {
    /// Who asked.
    pub shard: ShardId,
    /// The request's tag.
    pub tag: u64,
    /// What was asked.
    pub op: DeviceOp,
    /// How it ended.
    pub result: Result<(), DeviceError>,
    /// The request's buffers.
    pub buffers: Vec<BufferId>,
    /// Of a read that succeeded: the content for each buffer.
    pub read: Vec<Content>,
}

/// The devices, their power and their faults.
#[derive(Clone, Debug)]
pub struct Rack {
    /// Virtual time.
    pub clock: Clock,
    /// What happened.
    pub trace: Trace,
    devices: Vec<Device>,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    effects: u64,
    powered: bool,
    // In the order in which they strike.
    faults: Vec<PlannedFault>,
    aim: Option<Aim>,
    random: Random,
    hangs: Random,
    hiccups: Random,
    rots: Random,
    // Requests that ended so: they do not when they are tried again.
    had_hiccup: BTreeSet<(ShardId, u64)>,
}

impl Rack {
    /// Powered devices, new or used.
    pub fn new(seed: u64, devices: &[DeviceOptions], trace: Trace) -> Self {
        let device = |&options: &DeviceOptions| Device {
            options,
            medium: Medium::new(options.blocks, options.volatile_cache, options.used),
            condition: Condition::Working,
            was_lost: false,
            hangs_until: Time(0),
            reads_take: None,
        };
        Self {
            clock: Clock::default(),
            trace,
            devices: devices.iter().map(device).collect(),
            flights: BTreeMap::new(),
            next_flight: 0,
            effects: 0,
            powered: true,
            faults: Vec::new(),
            aim: None,
            random: Random::named(seed, "rack"),
            hangs: Random::named(seed, "hangs"),
            hiccups: Random::named(seed, "hiccups"),
            rots: Random::named(seed, "rots"),
            had_hiccup: BTreeSet::new(),
        }
    }

    /// How many devices there are, lost ones too.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// Blocks of a device.
    pub fn blocks(&self, device: DeviceId) -> u64 {
        self.devices[device.index()].options.blocks
    }

    /// Whether a device works, power or not.
    pub fn works(&self, device: DeviceId) -> bool {
        self.devices[device.index()].condition == Condition::Working
    }

    /// Whether a device has ever been lost: though it may be back, the array need not take it back.
    pub fn was_lost(&self, device: DeviceId) -> bool {
        self.devices[device.index()].was_lost
    }

    /// How many devices have ever been lost.
    pub fn lost(&self) -> usize {
        self.devices.iter().filter(|device| device.was_lost).count()
    }

    /// Whether the power is on.
    pub const fn powered(&self) -> bool {
        self.powered
    }

    /// Effects since the faults were planned, or since the start.
    pub const fn effects(&self) -> u64 {
        self.effects
    }

    /// What a read of a block would find: for oracles, which disturb nothing.
    pub fn peek(&self, device: DeviceId, block: DeviceBlock) -> &Block {
        bytes_of(self.devices[device.index()].medium.read(block))
    }

    /// Changes a block behind everybody's back, as only damage does. What goes into rings is watched no longer: the watch
    /// believes the anchors.
    pub fn overwrite(&mut self, device: DeviceId, block: DeviceBlock, bytes: &Block) {
        self.devices[device.index()].options.holds_log = false;
        self.devices[device.index()].medium.overwrite(block, content_of(bytes));
    }

    /// From now on reads do not find a block, until it is written.
    pub fn spoil(&mut self, device: DeviceId, block: DeviceBlock) {
        self.devices[device.index()].medium.spoil(block);
    }

    /// Whether a read of so many blocks would find them.
    pub fn is_readable(&self, device: DeviceId, start: DeviceBlock, count: u64) -> bool {
        self.devices[device.index()].medium.is_readable(start, count)
    }

    /// Every block of every device can be read again.
    pub fn restore_blocks(&mut self) {
        self.devices.iter_mut().for_each(|device| device.medium.restore());
    }

    /// Requests that have not ended.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Plans faults anew; effects are counted from here.
    pub fn plan(&mut self, mut faults: Vec<PlannedFault>) {
        faults.sort_by_key(|planned| planned.effect);
        self.effects = 0;
        self.faults = faults;
        self.aim = None;
    }

    /// A request of a shard. `content` gives the bytes of a buffer.
    ///
    /// # Panics
    /// If the request is none that a device could be given.
    pub fn submit<'a>(
        &mut self,
        shard: ShardId,
        request: &DeviceRequest<'_>,
        content: impl Fn(BufferId) -> &'a Block,
    ) -> Result<(), QueueFull> {
        let DeviceRequest { tag, device, op, start, buffers } = *request;
        let options = self.devices[device.index()].options;
        let waiting = self.flights.values().filter(|flight| flight.device == device && flight.shard == shard).count();
        if waiting >= options.queue_depth {
            return Err(QueueFull);
        }
        let blocks = match op {
            DeviceOp::Read | DeviceOp::Write | DeviceOp::WriteDurable => {
                assert!((1..=MAX_DEVICE_BLOCKS).contains(&buffers.len()), "{op:?} of {} buffers", buffers.len());
                buffers.len() as u64
            }
            DeviceOp::WriteZeroes(count) => u64::from(count),
            DeviceOp::Flush => 0,
        };
        assert!(
            start.0.checked_add(blocks).is_some_and(|end| end <= options.blocks),
            "{op:?} of {blocks} blocks at {start:?} of {device:?}, which has {}",
            options.blocks
        );
        let data: Vec<Content> = match op {
            DeviceOp::Write | DeviceOp::WriteDurable => buffers.iter().map(|&id| content_of(content(id))).collect(),
            DeviceOp::WriteZeroes(count) => vec![None; count as usize],
            DeviceOp::Read | DeviceOp::Flush => Vec::new(),
        };
        self.watch(device, start, &data);
        // Long runs of zeros are written as such: each is like the others.
        let zeros = data.iter().filter(|content| content.is_none()).count();
        let zeros = if zeros % 2 == 1 { fingerprint(&base::ZERO_BLOCK) } else { 0 };
        let mark = data.iter().flatten().fold(zeros, |mark, content| mark ^ fingerprint(content));
        self.trace.note(name_of(op), &[tag, u64::from(device.0), start.0, blocks, mark]);
        let hiccup = self.draw_hiccup(shard, tag, device, op);
        let rots = self.draw_rot(device, op);
        let number = self.take_off(Flight {
            shard,
            tag,
            device,
            op,
            start,
            data,
            buffers: buffers.to_vec(),
            flush_mark: self.devices[device.index()].medium.flush_mark(),
            failed: false,
            hiccup,
            rots,
        });
        let slow = if self.random.once_in(options.slow_once_in) { SLOWNESS } else { 1 };
        let latency = Span(self.random.between(1, LATENCY.0 * slow));
        let latency = self.devices[device.index()].reads_take.filter(|_| op == DeviceOp::Read).unwrap_or(latency);
        self.clock.after(latency, number);
        if op != DeviceOp::Read {
            self.aim(number);
            self.effect();
        }
        Ok(())
    }

    /// Ends one request whose time has come.
    pub fn finish_due(&mut self) -> Option<Finished> {
        loop {
            let number = self.clock.take_due()?;
            let Some(flight) = self.flights.get(&number) else { continue };
            let (device, now) = (flight.device, self.clock.now());
            let until = self.devices[device.index()].hangs_until;
            if until == Time::NEVER {
                // Only a power cut ends it.
                continue;
            }
            if until > now {
                let latency = self.hangs.between(1, LATENCY.0);
                self.clock.after(Span(until.since(now).0 + latency), number);
            } else if let Some(flight) = self.flights.remove(&number) {
                return Some(self.land(flight));
            }
        }
    }

    /// Reads for start-up code, at once.
    pub fn read_now(&mut self, device: DeviceId, start: DeviceBlock, into: &mut [Block]) -> Result<(), DeviceError> {
        self.answering(device)?;
        if !self.is_readable(device, start, into.len() as u64) {
            return Err(DeviceError::Unreadable);
        }
        for (offset, block) in into.iter_mut().enumerate() {
            let at = DeviceBlock(start.0 + offset as u64);
            assert!(at.0 < self.blocks(device), "a read of {at:?} of {device:?}, beyond its end");
            *block = *bytes_of(self.devices[device.index()].medium.read(at));
        }
        Ok(())
    }

    /// Writes for start-up code, at once; counts as an effect.
    pub fn write_now(&mut self, device: DeviceId, run: Run) -> Result<(), DeviceError> {
        let end = run.start.0 + run.blocks.len() as u64;
        assert!(end <= self.blocks(device), "a write up to {end} of {device:?}, beyond its end");
        self.watch(device, run.start, &run.blocks);
        self.act_now(device, DeviceOp::Write, run)
    }

    /// Flushes for start-up code, at once; counts as an effect.
    pub fn flush_now(&mut self, device: DeviceId) -> Result<(), DeviceError> {
        self.act_now(device, DeviceOp::Flush, Run { start: DeviceBlock(0), blocks: Vec::new() })
    }

    /// The power fails: what was in flight or in volatile caches suffers what the crash model allows.
    pub fn cut_power(&mut self) {
        self.trace.note("power cut", &[self.effects]);
        self.powered = false;
        for index in 0..self.devices.len() {
            self.spill(DeviceId(index as u16));
        }
        self.flights.clear();
        self.had_hiccup.clear();
        self.clock.forget();
    }

    /// The power comes back, and with it the devices that were only away.
    pub fn restore_power(&mut self) {
        self.powered = true;
        for device in &mut self.devices {
            device.hangs_until = Time(0);
            if device.condition == (Condition::Lost { returns: true }) {
                device.condition = Condition::Working;
            }
        }
    }

    /// A device fails.
    pub fn lose(&mut self, device: DeviceId, returns: bool) {
        self.trace.note("device lost", &[u64::from(device.0), u64::from(returns)]);
        if self.works(device) {
            self.spill(device);
            self.devices[device.index()].condition = Condition::Lost { returns };
            self.devices[device.index()].was_lost = true;
        }
    }

    /// Whether a device answers nothing now.
    pub fn hangs(&self, device: DeviceId) -> bool {
        self.devices[device.index()].hangs_until > self.clock.now()
    }

    /// A device answers nothing for a while. It counts as lost: the array need not wait for it.
    pub fn hang(&mut self, device: DeviceId, span: Span) {
        self.trace.note("device hangs", &[u64::from(device.0), span.0]);
        self.devices[device.index()].hangs_until = self.clock.now() + span;
        self.devices[device.index()].was_lost = true;
    }

    /// Buffers of a shard that devices still work on, each once.
    pub fn buffers_in_flight(&self, shard: ShardId) -> usize {
        let own = self.flights.values().filter(|flight| flight.shard == shard);
        let mut buffers: Vec<BufferId> = own.flat_map(|flight| flight.buffers.clone()).collect();
        buffers.sort_unstable();
        buffers.dedup();
        buffers.len()
    }

    /// The appliance has ended, and with it whatever it still asked of devices that hang: any part of it may have happened.
    pub fn forget_flights(&mut self) {
        for index in 0..self.devices.len() {
            let device = DeviceId(index as u16);
            self.devices[index].hangs_until = Time(0);
            if self.flights.values().any(|flight| flight.device == device) {
                self.spill(device);
            }
        }
        self.flights.clear();
    }

    // Ends the device's writes in flight as a power cut would: any part of them may have happened.
    fn spill(&mut self, device: DeviceId) {
        let mut runs = Vec::new();
        for flight in self.flights.values_mut().filter(|flight| flight.device == device && !flight.failed) {
            flight.failed = true;
            runs.push(Run { start: flight.start, blocks: core::mem::take(&mut flight.data) });
        }
        let whole = self.devices[device.index()].options.whole_blocks;
        self.devices[device.index()].medium.cut(runs, whole, &mut self.random);
    }

    fn watch(&self, device: DeviceId, start: DeviceBlock, data: &[Content]) {
        let place = &self.devices[device.index()];
        if place.options.holds_log && self.works(device) {
            ring_watch::check(&place.medium, device, start, data);
        }
    }

    fn take_off(&mut self, flight: Flight) -> u64 {
        self.next_flight += 1;
        let failed = flight.failed || !self.works(flight.device);
        self.flights.insert(self.next_flight, Flight { failed, ..flight });
        self.next_flight
    }

    // Plans the cut that waits for a landmark, if this write is the last that it waits for.
    fn aim(&mut self, number: u64) {
        let Some(mut aim) = self.aim.take() else { return };
        let flight = &self.flights[&number];
        let is_landmark =
            |flight: &Flight| flight.data.first().is_some_and(|first| aim.landmark.is_in(bytes_of(first)));
        match self.flights.get(&aim.flight) {
            // Of several copies of a landmark any one counts that takes long.
            None => {
                let landmark = self.flights.iter().find(|(_, flight)| is_landmark(flight));
                (aim.flight, aim.behind) = (landmark.map_or(0, |(&number, _)| number), 0);
            }
            Some(_) if is_landmark(flight) => {}
            Some(landmark) if landmark.device == flight.device || aim.landmark != Landmark::Anchor => {
                aim.behind += flight.buffers.len() as u64;
            }
            Some(_) => {}
        }
        if aim.behind < aim.blocks {
            self.aim = Some(aim);
        } else {
            self.faults.insert(0, PlannedFault { effect: self.effects + 1, fault: Fault::PowerCut });
        }
    }

    fn effect(&mut self) {
        self.effects += 1;
        let due = self.faults.partition_point(|planned| planned.effect <= self.effects);
        let due: Vec<PlannedFault> = self.faults.drain(..due).collect();
        for PlannedFault { fault, .. } in due {
            match fault {
                Fault::PowerCut => self.cut_power(),
                Fault::PowerCutBehind { landmark, blocks } => {
                    self.aim = Some(Aim { landmark, blocks, flight: 0, behind: 0 });
                }
                Fault::Lost { device, returns } => self.lose(device, returns),
                Fault::Hang { device, span } => self.hang(device, span),
                Fault::Unreadable { device, block } => {
                    self.trace.note("block unreadable", &[u64::from(device.0), block.0]);
                    self.devices[device.index()].medium.spoil(block);
                }
                Fault::Wrong { device, block, damage } => {
                    self.trace.note("block wrong", &[u64::from(device.0), block.0]);
                    self.damage(device, block, damage);
                }
            }
        }
    }

    fn damage(&mut self, device: DeviceId, block: DeviceBlock, damage: Damage) {
        let medium = &mut self.devices[device.index()].medium;
        let content = match damage {
            Damage::Flipped { bit } => {
                let mut bytes = *bytes_of(medium.read(block));
                bytes[bit as usize / 8] ^= 1 << (bit % 8);
                content_of(&bytes)
            }
            Damage::Zeroed => None,
            Damage::CopyOf(other) => medium.read(other).clone(),
        };
        medium.overwrite(block, content);
    }

    fn answering(&self, device: DeviceId) -> Result<(), DeviceError> {
        if self.powered && self.works(device) { Ok(()) } else { Err(DeviceError::Gone) }
    }

    fn act_now(&mut self, device: DeviceId, op: DeviceOp, run: Run) -> Result<(), DeviceError> {
        self.answering(device)?;
        let mark = run.blocks.iter().fold(0, |mark, content| mark ^ fingerprint(bytes_of(content)));
        self.trace.note("start-up effect", &[u64::from(device.0), run.start.0, run.blocks.len() as u64, mark]);
        let number = self.take_off(Flight {
            shard: ShardId(u16::MAX),
            tag: 0,
            device,
            op,
            start: run.start,
            data: run.blocks,
            buffers: Vec::new(),
            flush_mark: self.devices[device.index()].medium.flush_mark(),
            failed: false,
            hiccup: false,
            rots: false,
        });
        self.effect();
        match self.flights.remove(&number) {
            Some(flight) => self.land(flight).result,
            None => Err(DeviceError::Gone),
        }
    }

    fn land(&mut self, flight: Flight) -> Finished {
        let Flight { shard, tag, device, op, start, data, buffers, flush_mark, failed, hiccup, rots } = flight;
        self.trace.note("ended", &[tag, u64::from(shard.0), u64::from(failed)]);
        let mut read = Vec::new();
        let count = buffers.len() as u64;
        if failed {
            return Finished { shard, tag, op, result: Err(DeviceError::Gone), buffers, read };
        }
        if op == DeviceOp::Read && !self.is_readable(device, start, count) {
            self.trace.note("unreadable", &[tag]);
            return Finished { shard, tag, op, result: Err(DeviceError::Unreadable), buffers, read };
        }
        if rots && self.rots.once_in(2) {
            self.trace.note("unreadable for once", &[tag]);
            return Finished { shard, tag, op, result: Err(DeviceError::Unreadable), buffers, read };
        }
        if hiccup {
            self.trace.note("hiccup", &[tag]);
            self.devices[device.index()].medium.write_in_part(Run { start, blocks: data }, &mut self.hiccups);
            return Finished { shard, tag, op, result: Err(DeviceError::Other(HICCUP)), buffers, read };
        }
        {
            match op {
                DeviceOp::Read if rots => {
                    self.trace.note("rotten", &[tag]);
                    let beyond = DeviceBlock(start.0 - 1);
                    read = self.sight(device, beyond, buffers.len());
                }
                DeviceOp::Read => read = self.sight(device, start, buffers.len()),
                DeviceOp::Flush => self.devices[device.index()].medium.flush(flush_mark),
                DeviceOp::Write | DeviceOp::WriteDurable | DeviceOp::WriteZeroes(_) => {
                    let durable = op == DeviceOp::WriteDurable;
                    self.devices[device.index()].medium.write(Run { start, blocks: data }, durable);
                }
            }
        }
        Finished { shard, tag, op, result: Ok(()), buffers, read }
    }
}

const fn name_of(op: DeviceOp) -> &'static str {
    match op {
        DeviceOp::Read => "read",
        DeviceOp::Write => "write",
        DeviceOp::WriteDurable => "durable write",
        DeviceOp::Flush => "flush",
        DeviceOp::WriteZeroes(_) => "zeros",
    }
}

#[cfg(test)]
mod tests;
