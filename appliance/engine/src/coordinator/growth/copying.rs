//! What a step moves is read like any host would read it, and given to the owner of its new places to be logged there. A few requests
//! at a time.

use base::ids::{ArrayBlock, ArrayId, Lba};
use base::sector::Margins;
use base::time::{Span, Time};
use ports::{BufferList, Ports};
use raid::reshape::Window;

use super::super::Coordinator;
use super::{Growing, Stage};
use crate::io::IoDone;
use crate::limits::MAX_FRAGMENT_BLOCKS;
use crate::map::Service;
use crate::message::{FragmentKind, Message};
use crate::router::{JobRequest, Router, Target};

/// Requests of a step under way.
const REQUESTS: usize = 4;

/// How long a request waits that found no buffer or no place.
const PAUSE: Span = Span::from_millis(1);

/// What the tokens of a step's requests have in common. Jobs count from zero.
pub(crate) const TOKENS: u64 = 1 << 63;

/// A run of blocks on its way.
#[derive(Debug)]
struct Run {
    start: ArrayBlock,
    count: u32,
    kind: FragmentKind,
    begun: bool,
    buffers: BufferList,
}

/// What a step moves.
#[derive(Debug)]
pub(super) struct Copying {
    runs: Vec<(ArrayBlock, u32, bool)>,
    next: usize,
    under_way: [Option<Run>; REQUESTS],
    /// Not before.
    after: Time,
    failed: bool,
}

impl Coordinator {
    /// Takes the ends of a step's requests and begins others; whether anything was done.
    pub(in crate::coordinator) fn go_on_copying<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        router: &mut Router,
    ) -> bool {
        let mut worked = false;
        while let Some(done) = self.jobs.of_growth() {
            worked = true;
            let array = &mut self.arrays[(done.token >> 8) as u16 as usize];
            match array.growth.as_mut().map(|growing| &mut growing.stage) {
                Some(Stage::Copying(copying)) => copying.done(done),
                _ => unreachable!("a step waits for its requests"),
            }
        }
        let now = ports.now();
        for index in 0..self.arrays.len() {
            let id = ArrayId(index as u16);
            let array = &mut self.arrays[index];
            let serves = array.array.map.service == Service::ReadWrite && !self.stopping;
            let Some(Growing { stage: Stage::Copying(copying), .. }) = &mut array.growth else { continue };
            copying.failed |= !serves;
            worked |= copying.go_on(ports, router, id, now);
            if copying.has_ended() {
                worked = true;
                match copying.failed {
                    true if serves => self.step_blocked(id),
                    true => self.set_growth_stage(id, Stage::Leaving),
                    false => self.set_growth_stage(id, Stage::Copied { windows: 1, passed_over: false }),
                }
            }
        }
        worked
    }
}

impl Copying {
    pub(super) fn new(window: &Window) -> Self {
        let runs = window.runs(MAX_FRAGMENT_BLOCKS).collect();
        Self { runs, next: 0, under_way: [const { None }; REQUESTS], after: Time(0), failed: false }
    }

    /// When there is something to do, if nothing comes before.
    pub(super) const fn after(&self) -> Time {
        self.after
    }

    fn has_ended(&self) -> bool {
        let is_begun = self.failed || self.next == self.runs.len();
        is_begun && self.under_way.iter().all(Option::is_none)
    }

    fn done(&mut self, done: IoDone) {
        let place = &mut self.under_way[(done.token & 0xff) as usize];
        let run = place.as_mut().expect("a request has its place");
        run.begun = false;
        match (done.result, run.kind) {
            (Err(_), _) => {
                self.failed = true;
                *place = None;
            }
            (Ok(()), FragmentKind::Read) => (run.kind, run.buffers) = (FragmentKind::Move, done.buffers),
            (Ok(()), _) => *place = None,
        }
    }

    fn go_on<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        router: &mut Router,
        id: ArrayId,
        now: Time,
    ) -> bool {
        let mut worked = false;
        for place in 0..REQUESTS {
            if self.failed {
                if let Some(run) = self.under_way[place].take_if(|run| !run.begun) {
                    run.buffers.free(ports);
                }
                continue;
            }
            if self.under_way[place].is_none()
                && let Some(&(start, count, is_zero)) = self.runs.get(self.next)
            {
                self.next += 1;
                let kind = if is_zero { FragmentKind::Move } else { FragmentKind::Read };
                self.under_way[place] = Some(Run { start, count, kind, begun: false, buffers: BufferList::EMPTY });
            }
            let Some(run) = self.under_way[place].as_mut().filter(|run| !run.begun && now >= self.after) else {
                continue;
            };
            if run.begin(ports, router, id, place) {
                worked = true;
            } else {
                self.after = now + PAUSE;
            }
        }
        worked
    }
}

impl Run {
    /// Begins what is next for it; false if there is no buffer or no place now.
    fn begin<P: Ports<Message = Message>>(
        &mut self,
        ports: &mut P,
        router: &mut Router,
        id: ArrayId,
        place: usize,
    ) -> bool {
        if self.buffers.is_empty() {
            let Some(buffers) = BufferList::alloc(ports, self.count as usize) else { return false };
            self.buffers = buffers;
            if self.kind == FragmentKind::Move {
                let ids: Vec<_> = self.buffers.ids(ports).collect();
                ids.into_iter().for_each(|buffer| ports.bytes_mut(buffer).fill(0));
            }
        }
        let request = JobRequest {
            token: TOKENS | u64::from(id.0) << 8 | place as u64,
            target: Target::Array(id),
            lba: Lba(self.start.0),
            kind: self.kind,
            blocks: self.count,
            margins: Margins::NONE,
            buffers: core::mem::take(&mut self.buffers),
        };
        match router.begin_job(ports, request) {
            Ok(()) => self.begun = true,
            Err(request) => self.buffers = request.buffers,
        }
        self.begun
    }
}
