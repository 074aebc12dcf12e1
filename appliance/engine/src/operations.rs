//! Device operations under way: what each was for, and those that found the device's queue full and wait to be given to it.
//! A place keeps its list of buffers for the next operation, so that nothing is allocated.
//!
//! Nobody waits for a device for ever. An operation of a *watched* device that is not answered in time can be *given up*, and
//! so can all that are under way at a device that has been excluded: for whoever started it, it has failed. The device may
//! still work on it, hours later perhaps; so its place stays taken and its buffers are *held* until the answer comes, and
//! whoever owns one of them must neither use it nor give it away before. What was given up still counts when it is asked
//! whether the device is overdue.
//!
//! An *urgent* operation has a limit of its own, which is shorter: a read that somebody waits for and that others may answer.
//!
//! An error that says nothing of the device or its blocks (a cable, a controller that was reset) may pass: reads and writes
//! are tried again a few times before anybody hears of it. A flush never is: the system may have dropped what it could not
//! write, and would call a second flush good. Neither is what cannot get better: a device that is gone or full, a block that
//! cannot be read.

use std::collections::VecDeque;

use base::ids::{DeviceBlock, DeviceId};
use base::time::{Span, Time};
use journal::MAX_RECORD_BLOCKS;
use ports::{BufferId, Completion, DeviceError, DeviceOp, DeviceRequest, Devices, MAX_DEVICE_BLOCKS};

const NONE: u32 = u32::MAX;

/// How often a read is tried again.
const READ_RETRIES: u8 = 2;

/// How often a write is tried again. Who misses a write is out: rather sooner than later.
const WRITE_RETRIES: u8 = 1;

#[derive(Debug)]
struct Operation<T> {
    device: DeviceId,
    op: DeviceOp,
    start: DeviceBlock,
    buffers: Vec<BufferId>,
    /// What to tell when it has ended; none while the place is free, and once it was given up.
    purpose: Option<T>,
    /// When it was started, and how often it was tried again.
    started: Time,
    retries: u8,
    /// Whether its buffers are held.
    holds: bool,
    /// When its device took it, if that is watched.
    since: Time,
    /// Whether the shorter limit holds for it.
    urgent: bool,
    /// Whether it is in a list, and its neighbours there: what a watched device has not answered, by age.
    linked: bool,
    older: u32,
    younger: u32,
}

/// Operations by age.
#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    youngest: u32,
}

/// A device whose answers are waited for only so long.
#[derive(Clone, Copy, Debug)]
struct Watch {
    limit: Option<Span>,
    urgent_limit: Option<Span>,
    /// What the device has taken and not answered: patient operations, urgent ones.
    lists: [List; 2],
    /// Operations that were given up and not answered yet, and when the device took the oldest of them.
    given_up: u32,
    given_up_since: Time,
    /// It was said that the device is overdue.
    told: bool,
}

impl Watch {
    const NONE: Self = Self {
        limit: None,
        urgent_limit: None,
        lists: [List { oldest: NONE, youngest: NONE }; 2],
        given_up: 0,
        given_up_since: Time::NEVER,
        told: false,
    };
}

/// What a completion means.
#[derive(Debug)]
pub(crate) struct Ended<T> {
    /// What the operation was for; none if it was given up before.
    pub(crate) purpose: Option<T>,
    pub(crate) device: DeviceId,
    pub(crate) op: DeviceOp,
    pub(crate) blocks: u64,
    /// From its start on, with all that it waited and was tried again.
    pub(crate) took: Span,
    pub(crate) result: Result<(), DeviceError>,
}

/// What a device has taken and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Operations.
    pub(crate) operations: u32,
    /// Those of them that nobody waits for any more.
    pub(crate) given_up: u32,
    /// How long it has had the oldest.
    pub(crate) oldest: Span,
    /// Whether it was said that this is too long.
    pub(crate) is_overdue: bool,
}

/// The table of one shard.
#[derive(Debug)]
pub(crate) struct Operations<T> {
    places: Vec<Operation<T>>,
    free: Vec<u32>,
    waiting: VecDeque<u32>,
    /// By device, as far as any was ever watched.
    watches: Vec<Watch>,
    given_up: usize,
    /// By buffer: how many operations hold it. As long as none does, nobody looks.
    holds: Vec<u16>,
    holding: usize,
    /// How often an operation has let go of what it held.
    let_go: u64,
    now: Time,
}

impl<T> Operations<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let count = u32::try_from(capacity).expect("a table has fewer than 2^32 places");
        Self {
            places: (0..capacity)
                .map(|_| Operation {
                    device: DeviceId(0),
                    op: DeviceOp::Flush,
                    start: DeviceBlock(0),
                    buffers: Vec::with_capacity(MAX_RECORD_BLOCKS),
                    purpose: None,
                    started: Time(0),
                    retries: 0,
                    holds: false,
                    since: Time::NEVER,
                    urgent: false,
                    linked: false,
                    older: NONE,
                    younger: NONE,
                })
                .collect(),
            free: (0..count).rev().collect(),
            waiting: VecDeque::with_capacity(capacity),
            watches: Vec::new(),
            given_up: 0,
            holds: Vec::new(),
            holding: 0,
            let_go: 0,
            now: Time(0),
        }
    }

    /// What time it is from here on.
    pub(crate) fn set_time(&mut self, now: Time) {
        self.now = now;
    }

    /// Waits for answers of a device at most so long from now on.
    pub(crate) fn watch(&mut self, device: DeviceId, limit: Span) {
        self.watch_closely(device, limit, None);
    }

    /// The same, and for urgent ones at most so long.
    pub(crate) fn watch_closely(&mut self, device: DeviceId, limit: Span, urgent: Option<Span>) {
        if self.watches.len() <= device.index() {
            self.watches.resize(device.index() + 1, Watch::NONE);
        }
        let watch = &mut self.watches[device.index()];
        (watch.limit, watch.urgent_limit) = (Some(limit), urgent);
    }

    /// Waits for answers of a device as long as it takes from now on.
    pub(crate) fn unwatch(&mut self, device: DeviceId) {
        if let Some(watch) = self.watches.get_mut(device.index()) {
            (watch.limit, watch.urgent_limit, watch.told) = (None, None, false);
        }
    }

    /// Whether a device has not answered what was given up.
    pub(crate) fn owes(&self, device: DeviceId) -> bool {
        self.watches.get(device.index()).is_some_and(|watch| watch.given_up > 0)
    }

    /// What each device that was ever watched owes now, if it owes anything: for `status`.
    pub(crate) fn owed(&self, now: Time) -> impl Iterator<Item = (DeviceId, Owed)> {
        let owed = move |(at, watch): (usize, &Watch)| {
            let oldest = self.oldest(watch);
            let mut operations = watch.given_up;
            for list in watch.lists {
                let mut index = list.oldest;
                while index != NONE {
                    operations += 1;
                    index = self.places[index as usize].younger;
                }
            }
            let Watch { given_up, told, .. } = *watch;
            let owed = Owed { operations, given_up, oldest: now.since(oldest.min(now)), is_overdue: told };
            (operations > 0).then_some((DeviceId(at as u16), owed))
        };
        self.watches.iter().enumerate().filter_map(owed)
    }

    /// Operations that may be started now.
    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// Whether nothing is under way but what was given up.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() + self.given_up == self.places.len()
    }

    /// Whether a buffer must stay as it is although whoever wrote it out waits no longer.
    pub(crate) fn is_held(&self, buffer: BufferId) -> bool {
        self.holding > 0 && self.holds.get(buffer.0 as usize).is_some_and(|&count| count > 0)
    }

    /// A number that changes whenever buffers may have become free of holds.
    pub(crate) fn let_go(&self) -> u64 {
        self.let_go
    }

    /// Whether something is being written to a device, be it that nobody waits for it any more.
    pub(crate) fn is_writing(&self, device: DeviceId) -> bool {
        let writes = |place: &Operation<T>| {
            let is_data = matches!(place.op, DeviceOp::Write | DeviceOp::WriteZeroes(_));
            is_data && place.purpose.is_some() || place.op != DeviceOp::Read && place.holds
        };
        self.places.iter().any(|place| place.device == device && writes(place))
    }

    /// Starts an operation. The caller has seen that one is available.
    pub(crate) fn start(
        &mut self,
        devices: &mut impl Devices,
        (device, start): (DeviceId, DeviceBlock),
        op: DeviceOp,
        buffers: impl IntoIterator<Item = BufferId>,
        purpose: T,
    ) {
        let index = self.prepare((device, start), op, buffers, purpose);
        self.submit_or_wait(devices, index);
    }

    /// Starts a read that somebody waits for and that others may answer.
    pub(crate) fn start_urgent(
        &mut self,
        devices: &mut impl Devices,
        place: (DeviceId, DeviceBlock),
        buffers: impl IntoIterator<Item = BufferId>,
        purpose: T,
    ) {
        let index = self.prepare(place, DeviceOp::Read, buffers, purpose);
        self.places[index as usize].urgent = true;
        self.submit_or_wait(devices, index);
    }

    fn prepare(
        &mut self,
        (device, start): (DeviceId, DeviceBlock),
        op: DeviceOp,
        buffers: impl IntoIterator<Item = BufferId>,
        purpose: T,
    ) -> u32 {
        let index = self.free.pop().expect("the caller has seen that an operation is available");
        let place = &mut self.places[index as usize];
        place.device = device;
        place.op = op;
        place.start = start;
        place.buffers.clear();
        place.buffers.extend(buffers);
        place.purpose = Some(purpose);
        (place.started, place.retries, place.urgent) = (self.now, 0, false);
        assert!(place.buffers.len() <= MAX_DEVICE_BLOCKS, "an operation has at most {MAX_DEVICE_BLOCKS} blocks");
        index
    }

    fn submit_or_wait(&mut self, devices: &mut impl Devices, index: u32) {
        if !self.waiting.is_empty() || !self.submit(devices, index) {
            self.waiting.push_back(index);
        }
    }

    fn submit(&mut self, devices: &mut impl Devices, index: u32) -> bool {
        let place = &self.places[index as usize];
        let taken = devices
            .submit(DeviceRequest {
                tag: u64::from(index),
                device: place.device,
                op: place.op,
                start: place.start,
                buffers: &place.buffers,
            })
            .is_ok();
        if taken {
            self.link(index);
        }
        taken
    }

    /// Offers what waits to its devices again. A device whose queue is full does not hold up the others.
    pub(crate) fn retry(&mut self, devices: &mut impl Devices) {
        let mut full = None;
        for _ in 0..self.waiting.len() {
            let index = self.waiting.pop_front().expect("as many as there were");
            let device = self.places[index as usize].device;
            if full == Some(device) || !self.submit(devices, index) {
                full = Some(device);
                self.waiting.push_back(index);
            }
        }
    }

    /// Takes a completion apart into what the operation was for and how it ended. An operation that is tried again has not
    /// ended: its device is all there is to say.
    pub(crate) fn complete(&mut self, completion: Completion) -> Result<Ended<T>, DeviceId> {
        let index = completion.tag as u32;
        let place = &mut self.places[index as usize];
        let may_pass = matches!(completion.result, Err(DeviceError::Other(_)));
        if may_pass && place.purpose.is_some() && place.retries < retries(place.op) {
            place.retries += 1;
            let device = place.device;
            self.unlink(index);
            self.waiting.push_back(index);
            return Err(device);
        }
        let purpose = place.purpose.take();
        if purpose.is_some() {
            self.unlink(index);
        } else {
            self.given_up_answered(index);
        }
        self.unhold(index);
        self.places[index as usize].since = Time::NEVER;
        self.free.push(index);
        let place = &self.places[index as usize];
        let blocks = match place.op {
            DeviceOp::WriteZeroes(count) => u64::from(count),
            DeviceOp::Read | DeviceOp::Write | DeviceOp::WriteDurable | DeviceOp::Flush => place.buffers.len() as u64,
        };
        let took = self.now.since(place.started);
        Ok(Ended { purpose, device: place.device, op: place.op, blocks, took, result: completion.result })
    }

    fn given_up_answered(&mut self, index: u32) {
        let Operation { device, since, .. } = self.places[index as usize];
        let watch = &mut self.watches[device.index()];
        watch.given_up = watch.given_up.checked_sub(1).expect("a completion answers an operation under way");
        self.given_up -= 1;
        self.places[index as usize].since = Time::NEVER;
        if self.watches[device.index()].given_up_since == since {
            // Rare: few are ever given up.
            let others = self.places.iter().filter(|place| place.device == device && place.is_given_up());
            let since = others.map(|place| place.since).fold(Time::NEVER, Time::min);
            self.watches[device.index()].given_up_since = since;
        }
    }

    /// A watched device that has not answered in time, unless that was said before.
    pub(crate) fn overdue(&self) -> Option<DeviceId> {
        let late = |watch: &Watch| self.due(watch) <= self.now;
        self.watches.iter().position(late).map(|index| DeviceId(index as u16))
    }

    /// That a device is overdue is known: it is not said again before it has answered.
    pub(crate) fn overdue_is_told(&mut self, device: DeviceId) {
        self.watches[device.index()].told = true;
    }

    /// A device of which it was said that it is overdue, and that is so no longer.
    pub(crate) fn answers_again(&mut self) -> Option<DeviceId> {
        let is_over =
            |watch: &Watch| watch.told && watch.limit.is_some_and(|limit| self.oldest(watch) + limit > self.now);
        let at = self.watches.iter().position(is_over)?;
        self.watches[at].told = false;
        Some(DeviceId(at as u16))
    }

    /// An urgent operation that was not answered in time, by which device, and what it is for.
    pub(crate) fn late(&self) -> Option<(u32, DeviceId, &T)> {
        let watch = self.watches.iter().find(|watch| self.urgent_due(watch) <= self.now)?;
        let index = watch.lists[1].oldest;
        let device = self.places[index as usize].device;
        Some((index, device, self.places[index as usize].purpose.as_ref().expect("it was not given up")))
    }

    /// When the next answer of a watched device is due.
    pub(crate) fn deadline(&self) -> Time {
        self.watches.iter().map(|watch| self.due(watch).min(self.urgent_due(watch))).fold(Time::NEVER, Time::min)
    }

    /// When a device took what it has had longest.
    fn oldest(&self, watch: &Watch) -> Time {
        let since =
            |list: &List| if list.oldest == NONE { Time::NEVER } else { self.places[list.oldest as usize].since };
        watch.lists.iter().map(since).fold(watch.given_up_since, Time::min)
    }

    fn due(&self, watch: &Watch) -> Time {
        match watch.limit {
            Some(limit) if !watch.told => self.oldest(watch) + limit,
            _ => Time::NEVER,
        }
    }

    fn urgent_due(&self, watch: &Watch) -> Time {
        match watch.urgent_limit {
            Some(limit) if watch.lists[1].oldest != NONE => self.places[watch.lists[1].oldest as usize].since + limit,
            _ => Time::NEVER,
        }
    }

    /// Gives up one of the operations of a watched device, as long as there are any: for whoever started it, it has failed.
    pub(crate) fn give_up(&mut self, device: DeviceId) -> Option<T> {
        let of_device = |&index: &u32| self.places[index as usize].device == device;
        if let Some(at) = self.waiting.iter().position(of_device) {
            // The device never saw it.
            let index = self.waiting.remove(at).expect("it was found there");
            self.free.push(index);
            return self.places[index as usize].purpose.take();
        }
        let lists = self.watches.get(device.index())?.lists;
        let index = lists.iter().map(|list| list.oldest).find(|&index| index != NONE)?;
        Some(self.give_up_one(index))
    }

    /// Gives up this operation.
    pub(crate) fn give_up_one(&mut self, index: u32) -> T {
        self.unlink(index);
        self.hold(index);
        let Operation { device, since, .. } = self.places[index as usize];
        let watch = &mut self.watches[device.index()];
        watch.given_up += 1;
        watch.given_up_since = watch.given_up_since.min(since);
        self.given_up += 1;
        self.places[index as usize].purpose.take().expect("an operation is given up once")
    }

    /// Nobody else can answer this urgent operation: it is one that waits.
    pub(crate) fn let_wait(&mut self, index: u32) {
        self.unlink(index);
        self.places[index as usize].urgent = false;
        self.insert(index);
    }

    fn hold(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        place.holds = true;
        self.holding += 1;
        for buffer in &place.buffers {
            let at = buffer.0 as usize;
            if self.holds.len() <= at {
                self.holds.resize(at + 1, 0);
            }
            self.holds[at] += 1;
        }
    }

    fn unhold(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        if !core::mem::take(&mut place.holds) {
            return;
        }
        for buffer in &place.buffers {
            self.holds[buffer.0 as usize] -= 1;
        }
        self.holding -= 1;
        self.let_go += 1;
    }

    /// A watched device has taken an operation.
    fn link(&mut self, index: u32) {
        let device = self.places[index as usize].device;
        if self.watches.get(device.index()).is_some_and(|watch| watch.limit.is_some()) {
            self.places[index as usize].since = self.now;
            self.insert(index);
        }
    }

    /// Puts an operation into its device's list, by age: mostly at the young end.
    fn insert(&mut self, index: u32) {
        let Operation { device, urgent, since, .. } = self.places[index as usize];
        let list = self.watches[device.index()].lists[usize::from(urgent)];
        let mut older = list.youngest;
        while older != NONE && self.places[older as usize].since > since {
            older = self.places[older as usize].older;
        }
        let younger = if older == NONE { list.oldest } else { self.places[older as usize].younger };
        let place = &mut self.places[index as usize];
        (place.linked, place.older, place.younger) = (true, older, younger);
        self.join(device, urgent, older, index);
        self.join(device, urgent, index, younger);
    }

    fn unlink(&mut self, index: u32) {
        let Operation { device, urgent, linked, older, younger, .. } = self.places[index as usize];
        if !linked {
            return;
        }
        self.join(device, urgent, older, younger);
        let place = &mut self.places[index as usize];
        (place.linked, place.older, place.younger) = (false, NONE, NONE);
    }

    /// Makes two operations neighbours; none is the end of the list.
    fn join(&mut self, device: DeviceId, urgent: bool, older: u32, younger: u32) {
        let list = &mut self.watches[device.index()].lists[usize::from(urgent)];
        match self.places.get_mut(older as usize) {
            Some(place) => place.younger = younger,
            None => list.oldest = younger,
        }
        match self.places.get_mut(younger as usize) {
            Some(place) => place.older = older,
            None => list.youngest = older,
        }
    }
}

impl<T> Operation<T> {
    /// Whether its device still has it, and nobody waits for it.
    fn is_given_up(&self) -> bool {
        self.holds
    }
}

/// How often an operation is tried again.
const fn retries(op: DeviceOp) -> u8 {
    match op {
        DeviceOp::Read => READ_RETRIES,
        DeviceOp::Write | DeviceOp::WriteDurable | DeviceOp::WriteZeroes(_) => WRITE_RETRIES,
        DeviceOp::Flush => 0,
    }
}

#[cfg(test)]
mod tests;
