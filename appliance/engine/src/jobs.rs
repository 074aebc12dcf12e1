//! Long work on volumes, on shard 0 alone: the space of deleted volumes becomes zeros, and volumes are copied. A job reads and
//! writes through the router like any host, a few requests at a time, so that hosts hardly notice; what it has done is as
//! durable as what a host has written. It never changes what volumes there are: the coordinator starts jobs and hears of
//! their ends.
//!
//! A step that fails is tried again: cleaning goes on for ever, as its space is no use before; a copy gives up, since its
//! source may be gone. A stop ends all of it without a word: a deleted volume is cleaned after the next start from the
//! beginning, which does no harm, and half a copy is deleted then.

use std::collections::VecDeque;

use base::ids::{ArrayId, Lba, VolumeId};
use base::sector::Margins;
use base::time::{Span, Time};
use ports::{BufferList, Ports};

use crate::coordinator::GROWTH_TOKENS;
use crate::io::{IoDone, IoError};
use crate::map::{Extent, resolve};
use crate::message::{FragmentKind, Message};
use crate::router::{JobRequest, Router, Target};
use crate::status::JobStatus;

/// Requests of one job under way.
const WINDOWS: usize = 4;

/// Blocks of a request of a copy: they are held in memory meanwhile.
const COPY_BLOCKS: u32 = 64;

/// Blocks of a request of cleaning.
const CLEAN_BLOCKS: u32 = 256;

/// How long a step that failed waits before it is tried again.
const RETRY: Span = Span::from_secs(1);

/// How long a step that found no buffer or no place waits.
const PAUSE: Span = Span::from_millis(1);

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Make the extents of a deleted volume zeros.
    Clean { extents: Vec<Extent> },
    /// Copy so many blocks of a volume into another, which reads as zeros.
    Copy { from: VolumeId, to: VolumeId, blocks: u64 },
}

/// The end of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobEnd {
    /// Whose volume.
    pub(crate) array: ArrayId,
    /// The number of the deleted volume, or of the copy.
    pub(crate) volume: u32,
    /// How it ended.
    pub(crate) result: Result<(), IoError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Clean,
    Read,
    Write,
}

/// A request of a job.
#[derive(Debug)]
struct Window {
    offset: u64,
    blocks: u32,
    step: Step,
    /// Whether it is under way; else it waits to be begun.
    begun: bool,
    /// What was read and is to be written.
    buffers: BufferList,
}

#[derive(Debug)]
struct Job {
    number: u64,
    array: ArrayId,
    volume: u32,
    task: Task,
    total: u64,
    /// Blocks that windows were made for, from the front.
    begun: u64,
    done: u64,
    windows: [Option<Window>; WINDOWS],
    /// Not before.
    after: Time,
    /// It ends once nothing is under way.
    ending: Option<Result<(), IoError>>,
}

/// The jobs.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
    next_number: u64,
    /// Ends of requests that belong to arrays which grow.
    of_growth: VecDeque<IoDone>,
    ended: VecDeque<JobEnd>,
    stopping: bool,
}

impl Jobs {
    /// Starts one on behalf of a volume of an array.
    pub(crate) fn start(&mut self, array: ArrayId, volume: u32, task: Task) {
        let total = match &task {
            Task::Clean { extents } => extents.iter().map(|extent| extent.blocks).sum(),
            Task::Copy { blocks, .. } => *blocks,
        };
        self.next_number += 1;
        self.jobs.push(Job {
            number: self.next_number,
            array,
            volume,
            task,
            total,
            begun: 0,
            done: 0,
            windows: Default::default(),
            after: Time(0),
            ending: None,
        });
    }

    /// Ends the job of a volume as soon as nothing of it is under way; whether there is one.
    pub(crate) fn cancel(&mut self, array: ArrayId, volume: u32) -> bool {
        let job = self.jobs.iter_mut().find(|job| job.array == array && job.volume == volume);
        job.map(|job| job.ending.get_or_insert(Err(IoError::NoVolume))).is_some()
    }

    /// Whether a volume has one.
    pub(crate) fn has(&self, array: ArrayId, volume: u32) -> bool {
        self.jobs.iter().any(|job| job.array == array && job.volume == volume)
    }

    /// How many copies there are.
    pub(crate) fn copies(&self) -> usize {
        self.jobs.iter().filter(|job| matches!(job.task, Task::Copy { .. })).count()
    }

    /// Begins nothing more.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// The next job that has ended.
    pub(crate) fn ended(&mut self) -> Option<JobEnd> {
        self.ended.pop_front()
    }

    /// The next end of a request of an array that grows.
    pub(crate) fn of_growth(&mut self) -> Option<IoDone> {
        self.of_growth.pop_front()
    }

    /// When there is something to do, if nothing comes before.
    pub(crate) fn deadline(&self) -> Time {
        if self.stopping {
            return Time::NEVER;
        }
        let waits = |job: &&Job| job.windows.iter().flatten().any(|window| !window.begun);
        self.jobs.iter().filter(waits).map(|job| job.after).fold(Time::NEVER, Time::min)
    }

    /// How far they are.
    pub(crate) fn status(&self) -> Vec<JobStatus> {
        let status = |job: &Job| JobStatus {
            array: job.array,
            volume: job.volume,
            kind: match job.task {
                Task::Clean { .. } => "cleaning",
                Task::Copy { .. } => "copying",
            },
            done_blocks: job.done,
            total_blocks: job.total,
        };
        self.jobs.iter().map(status).collect()
    }

    /// Takes the ends of requests and begins others; whether anything was done.
    pub(crate) fn turn<P: Ports<Message = Message>>(&mut self, ports: &mut P, router: &mut Router) -> bool {
        let (mut worked, now) = (false, ports.now());
        while let Some(done) = router.job_done() {
            worked = true;
            if done.token & GROWTH_TOKENS != 0 {
                self.of_growth.push_back(done);
                continue;
            }
            let job = self.jobs.iter_mut().find(|job| job.number == done.token / WINDOWS as u64);
            job.expect("a job waits for its requests").done(ports, done, now);
        }
        for job in &mut self.jobs {
            if self.stopping {
                job.ending.get_or_insert(Err(IoError::Stopping));
            }
            worked |= job.go_on(ports, router, now);
        }
        let stopping = self.stopping;
        self.jobs.retain(|job| {
            let Some(result) = job.ending.filter(|_| job.windows.iter().all(Option::is_none)) else { return true };
            worked = true;
            if !stopping {
                self.ended.push_back(JobEnd { array: job.array, volume: job.volume, result });
            }
            false
        });
        worked
    }
}

impl Job {
    fn done<P: Ports>(&mut self, ports: &mut P, done: IoDone, now: Time) {
        let place = &mut self.windows[(done.token % WINDOWS as u64) as usize];
        let window = place.as_mut().expect("a request has its window");
        window.begun = false;
        match (done.result, window.step) {
            (Err(error), step) => {
                self.after = now + RETRY;
                // Zeros are tried again; what a copy has read or written may never be had again.
                if step != Step::Clean {
                    self.ending.get_or_insert(Err(error));
                }
            }
            (Ok(()), Step::Read) => {
                // The copy reads as zeros already, and so costs nothing where its source does.
                if done.buffers.ids(ports).all(|id| ports.bytes(id).iter().all(|&byte| byte == 0)) {
                    self.done += u64::from(window.blocks);
                    *place = None;
                    done.buffers.free(ports);
                    return;
                }
                window.step = Step::Write;
                window.buffers = done.buffers;
            }
            (Ok(()), Step::Clean | Step::Write) => {
                self.done += u64::from(window.blocks);
                *place = None;
            }
        }
    }

    fn go_on<P: Ports<Message = Message>>(&mut self, ports: &mut P, router: &mut Router, now: Time) -> bool {
        let mut worked = false;
        for at in 0..WINDOWS {
            if self.windows[at].is_none() && self.ending.is_none() && self.begun < self.total {
                self.windows[at] = Some(self.next_window());
            }
            let Some(window) = &mut self.windows[at] else { continue };
            if self.ending.is_some() && !window.begun {
                core::mem::take(&mut window.buffers).free(ports);
                self.windows[at] = None;
            } else if !window.begun && now >= self.after {
                if !self.begin(ports, router, at) {
                    self.after = now + PAUSE;
                    break;
                }
                worked = true;
            }
        }
        if self.done == self.total {
            self.ending.get_or_insert(Ok(()));
        }
        worked
    }

    fn next_window(&mut self) -> Window {
        let (step, most) = match self.task {
            Task::Clean { .. } => (Step::Clean, CLEAN_BLOCKS),
            Task::Copy { .. } => (Step::Read, COPY_BLOCKS),
        };
        let offset = self.begun;
        let mut blocks = (self.total - offset).min(u64::from(most)) as u32;
        if let Task::Clean { extents } = &self.task {
            blocks = resolve(extents, Lba(offset), blocks).expect("it lies before the end").1;
        }
        self.begun += u64::from(blocks);
        Window { offset, blocks, step, begun: false, buffers: BufferList::EMPTY }
    }

    /// Begins the request of a window; false if there is no buffer or no place for it now.
    fn begin<P: Ports<Message = Message>>(&mut self, ports: &mut P, router: &mut Router, at: usize) -> bool {
        let window = self.windows[at].as_mut().expect("the caller has seen it");
        let (target, lba, kind) = match (&self.task, window.step) {
            (Task::Clean { extents }, _) => {
                let (start, _) = resolve(extents, Lba(window.offset), window.blocks).expect("it lies before the end");
                (Target::Array(self.array), Lba(start.0), FragmentKind::Zero)
            }
            (Task::Copy { from, .. }, Step::Read) => {
                let Some(buffers) = BufferList::alloc(ports, window.blocks as usize) else { return false };
                window.buffers = buffers;
                (Target::Volume(from.index()), Lba(window.offset), FragmentKind::Read)
            }
            (Task::Copy { to, .. }, _) => (Target::Volume(to.index()), Lba(window.offset), FragmentKind::Write),
        };
        let request = JobRequest {
            token: self.number * WINDOWS as u64 + at as u64,
            target,
            lba,
            kind,
            blocks: window.blocks,
            margins: Margins::NONE,
            buffers: core::mem::take(&mut window.buffers),
        };
        match router.begin_job(ports, request) {
            Ok(()) => window.begun = true,
            Err(request) if window.step == Step::Read => request.buffers.free(ports),
            Err(request) => window.buffers = request.buffers,
        }
        window.begun
    }
}
