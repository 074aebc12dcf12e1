//! Device operations under way: what each was for, and those that found the device's queue full and wait to be given to it.
//! A place keeps its list of buffers for the next operation, so that nothing is allocated.
//!
//! Nobody waits for a log device for ever. An operation of a *watched* device that is not answered in time can be *given
//! up*, and so can all that are under way at a device that has been excluded: for whoever started it, it has failed. The
//! device may still work on it, hours later perhaps; so its place stays taken and its buffers are *held* until the answer
//! comes, and whoever owns one of them must not change it or give it away before. Only what is written can be given up: the
//! buffers of a read belong to the device until it answers.
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
    /// When its device took it.
    since: Time,
    /// Its neighbours among those that a watched device has not answered, by age.
    older: u32,
    younger: u32,
}

/// A device whose answers are waited for only so long.
#[derive(Clone, Copy, Debug)]
struct Watch {
    limit: Option<Span>,
    /// What the device has taken and not answered.
    oldest: u32,
    youngest: u32,
    /// Operations that were given up and not answered yet.
    given_up: u32,
}

impl Watch {
    const NONE: Self = Self { limit: None, oldest: NONE, youngest: NONE, given_up: 0 };
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
        if self.watches.len() <= device.index() {
            self.watches.resize(device.index() + 1, Watch::NONE);
        }
        self.watches[device.index()].limit = Some(limit);
    }

    /// Waits for answers of a device as long as it takes from now on.
    pub(crate) fn unwatch(&mut self, device: DeviceId) {
        if let Some(watch) = self.watches.get_mut(device.index()) {
            watch.limit = None;
        }
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
            place.holds || is_data && place.purpose.is_some()
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
        let index = self.free.pop().expect("the caller has seen that an operation is available");
        let place = &mut self.places[index as usize];
        place.device = device;
        place.op = op;
        place.start = start;
        place.buffers.clear();
        place.buffers.extend(buffers);
        place.purpose = Some(purpose);
        (place.started, place.retries) = (self.now, 0);
        assert!(place.buffers.len() <= MAX_DEVICE_BLOCKS, "an operation has at most {MAX_DEVICE_BLOCKS} blocks");
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

    /// Offers what waits to its devices again.
    pub(crate) fn retry(&mut self, devices: &mut impl Devices) {
        while let Some(&index) = self.waiting.front() {
            if !self.submit(devices, index) {
                break;
            }
            self.waiting.pop_front();
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
            let watch = &mut self.watches[self.places[index as usize].device.index()];
            watch.given_up = watch.given_up.checked_sub(1).expect("a completion answers an operation under way");
            self.given_up -= 1;
        }
        self.unhold(index);
        self.free.push(index);
        let place = &self.places[index as usize];
        let blocks = match place.op {
            DeviceOp::WriteZeroes(count) => u64::from(count),
            DeviceOp::Read | DeviceOp::Write | DeviceOp::WriteDurable | DeviceOp::Flush => place.buffers.len() as u64,
        };
        let took = self.now.since(place.started);
        Ok(Ended { purpose, device: place.device, op: place.op, blocks, took, result: completion.result })
    }

    /// A watched device that has not answered in time.
    pub(crate) fn overdue(&self) -> Option<DeviceId> {
        let late = |watch: &Watch| self.due(watch) <= self.now;
        self.watches.iter().position(late).map(|index| DeviceId(index as u16))
    }

    /// When the next answer of a watched device is due.
    pub(crate) fn deadline(&self) -> Time {
        self.watches.iter().map(|watch| self.due(watch)).fold(Time::NEVER, Time::min)
    }

    fn due(&self, watch: &Watch) -> Time {
        match watch.limit {
            Some(limit) if watch.oldest != NONE => self.places[watch.oldest as usize].since + limit,
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
        let index = self.watches.get(device.index())?.oldest;
        if index == NONE {
            return None;
        }
        assert_ne!(self.places[index as usize].op, DeviceOp::Read, "who reads waits for the answer");
        self.unlink(index);
        self.hold(index);
        self.watches[device.index()].given_up += 1;
        self.given_up += 1;
        self.places[index as usize].purpose.take()
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

    /// Puts an operation at the young end of its device's list, if the device is watched.
    fn link(&mut self, index: u32) {
        let device = self.places[index as usize].device;
        let Some(watch) = self.watches.get_mut(device.index()).filter(|watch| watch.limit.is_some()) else { return };
        let older = core::mem::replace(&mut watch.youngest, index);
        if older == NONE {
            watch.oldest = index;
        } else {
            self.places[older as usize].younger = index;
        }
        let place = &mut self.places[index as usize];
        (place.older, place.younger, place.since) = (older, NONE, self.now);
    }

    fn unlink(&mut self, index: u32) {
        let Operation { device, older, younger, since, .. } = self.places[index as usize];
        if since == Time::NEVER {
            return;
        }
        let watch = &mut self.watches[device.index()];
        if older == NONE {
            watch.oldest = younger;
        } else {
            self.places[older as usize].younger = younger;
        }
        if younger == NONE {
            watch.youngest = older;
        } else {
            self.places[younger as usize].older = older;
        }
        let place = &mut self.places[index as usize];
        (place.older, place.younger, place.since) = (NONE, NONE, Time::NEVER);
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
mod tests {
    use super::*;
    use ports::QueueFull;

    const LOG: DeviceId = DeviceId(3);
    const MEMBER: DeviceId = DeviceId(0);

    /// Devices that take so many requests of each kind.
    struct Taking(usize);

    impl Devices for Taking {
        fn submit(&mut self, _: DeviceRequest<'_>) -> Result<(), QueueFull> {
            self.0 = self.0.checked_sub(1).ok_or(QueueFull)?;
            Ok(())
        }

        fn completion(&mut self) -> Option<Completion> {
            None
        }
    }

    fn write(operations: &mut Operations<&'static str>, devices: &mut Taking, device: DeviceId, name: &'static str) {
        let buffer = BufferId(name.len() as u32);
        operations.start(devices, (device, DeviceBlock(1)), DeviceOp::WriteDurable, [buffer], name);
    }

    fn answer(operations: &mut Operations<&'static str>, tag: u64) -> Option<&'static str> {
        operations.complete(Completion { tag, result: Ok(()) }).expect("it was not tried again").purpose
    }

    #[test]
    fn what_a_watched_device_does_not_answer_in_time_is_given_up_and_its_buffers_held_until_it_does() {
        let (mut operations, mut devices) = (Operations::new(4), Taking(4));
        operations.watch(LOG, Span::from_secs(1));
        operations.set_time(Time(5));
        write(&mut operations, &mut devices, LOG, "1");
        write(&mut operations, &mut devices, MEMBER, "22");
        assert_eq!((operations.overdue(), operations.deadline()), (None, Time(5) + Span::from_secs(1)));
        operations.set_time(Time(6));
        write(&mut operations, &mut devices, LOG, "333");
        operations.set_time(Time(5) + Span::from_secs(1));
        assert_eq!(operations.overdue(), Some(LOG));
        assert_eq!(answer(&mut operations, 0), Some("1"), "it did in the last moment");
        assert_eq!(operations.overdue(), None);
        operations.set_time(Time(6) + Span::from_secs(1));
        assert_eq!(operations.overdue(), Some(LOG));
        assert_eq!((operations.give_up(LOG), operations.give_up(LOG)), (Some("333"), None));
        assert_eq!((operations.overdue(), operations.deadline()), (None, Time::NEVER));
        assert!(operations.is_held(BufferId(3)) && !operations.is_held(BufferId(2)));
        assert!(!operations.is_idle());
        assert_eq!(answer(&mut operations, 1), Some("22"));
        assert!(operations.is_idle(), "what was given up does not count");
        let before = operations.let_go();
        assert_eq!(answer(&mut operations, 2), None);
        assert!(operations.let_go() > before && !operations.is_held(BufferId(3)));
        assert_eq!(operations.available(), 4);
    }

    #[test]
    fn an_error_that_may_pass_is_tried_again_so_often_and_no_other_is() {
        let ends_after = |op, error| {
            let (mut operations, mut devices) = (Operations::new(1), Taking(10));
            operations.start(&mut devices, (LOG, DeviceBlock(1)), op, None, "it");
            let mut tries = 1;
            while let Err(device) = operations.complete(Completion { tag: 0, result: Err(error) }) {
                assert_eq!((device, operations.available()), (LOG, 0));
                operations.retry(&mut devices);
                tries += 1;
            }
            assert_eq!((operations.available(), devices.0), (1, 10 - tries));
            tries
        };
        for (op, tries) in
            [(DeviceOp::Read, 3), (DeviceOp::Write, 2), (DeviceOp::WriteDurable, 2), (DeviceOp::Flush, 1)]
        {
            assert_eq!(ends_after(op, DeviceError::Other(4)), tries, "{op:?}");
            for error in [DeviceError::Gone, DeviceError::Unreadable, DeviceError::NoSpace] {
                assert_eq!(ends_after(op, error), 1, "{op:?} {error:?}");
            }
        }
    }

    #[test]
    fn what_waits_for_a_full_queue_was_never_seen_by_the_device_and_holds_nothing() {
        let (mut operations, mut devices) = (Operations::new(4), Taking(1));
        operations.watch(LOG, Span::from_secs(1));
        write(&mut operations, &mut devices, LOG, "1");
        write(&mut operations, &mut devices, LOG, "22");
        write(&mut operations, &mut devices, MEMBER, "333");
        assert_eq!(operations.give_up(LOG), Some("22"));
        assert!(!operations.is_held(BufferId(2)));
        assert_eq!((operations.give_up(LOG), operations.give_up(LOG)), (Some("1"), None));
        assert_eq!(operations.available(), 2);
        devices.0 = 1;
        operations.retry(&mut devices);
        assert_eq!(answer(&mut operations, 2), Some("333"));
    }
}
