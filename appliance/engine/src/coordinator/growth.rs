//! An array gets a further member while it is served. The drive is prepared like one that joins ([`super::join`]) and takes a place
//! behind the others, where nothing is kept yet; then all data moves, from the first stripe on, to where it lies with one member more
//! (`raid::reshape`).
//!
//! A *step* moves a window of stripes, or several at once of which nobody ever wrote anything:
//!
//! | stage | what happens | ends when |
//! |---|---|---|
//! | resting | nothing: as long as a member is missing, the array has no log or takes no writes, or for the rate's sake | |
//! | fencing | no request begins any more that uses the blocks | all shards say that none is under way |
//! | draining | what the log has of them goes to the members, and their new stripes come to rest | all shards say so |
//! | copying | they are read, and logged by the next geometry epoch | all are in the log |
//! | proposed | the boundary is persisted, and that epoch with it | it is on all members and log copies |
//! | arrived | the shards take it over | all of them have: requests go on, and whoever they reach knows |
//! | leaving | the step has come to nothing; what is under way ends | requests go on, and a later step tries again |
//!
//! Whoever waits for the blocks does not wait for what does not come about: a request that takes very long, a stripe that cannot be
//! destaged, a block that cannot be had. Then the step is left, and tried again after a while.
//!
//! While a step is under way no member is rebuilt and nothing is scrubbed, and no scrub is as long as the array grows. A start finds the
//! array where the last step that came into force has left it, and goes on by itself.
//!
//! There is room for one further member; the next one needs a start, since only that finds the log without a record of how blocks lay
//! before.

mod copying;

use base::BLOCK;
use base::ids::{ArrayId, DeviceId, StripeId, ZoneId};
use base::time::{Span, Time};
use ports::Ports;
use raid::reshape::{MAX_WINDOW_STRIPES, Reshape, Window};
use raid::{Geometry, Tables};

use copying::Copying;
pub(crate) use copying::TOKENS;

use super::join::{JOIN_BLOCKS, Spare, Way};
use super::proposal::Edit;
use super::round::a_second;
use super::{Coordinated, Coordinator};
use crate::array::{Purpose, SLACK_BLOCKS};
use crate::command::{Event, Refusal};
use crate::limits::moved_log_blocks;
use crate::map::{ArrayMap, Moving, MovingStage, Service};
use crate::operations::Operations;
use crate::status::GrowthStatus;

/// Windows that are passed over at once at most, if nobody ever wrote to them.
const BLANK_WINDOWS: u64 = 256;

/// How long an array rests after a step that came to nothing.
const RETRY: Span = Span::from_secs(10);

/// How long the blocks of a window are nobody's at most before they are read.
const PATIENCE: Span = Span::from_secs(2);

#[derive(Debug)]
enum Stage {
    /// Whoever asked waits for the answer.
    Asked {
        spare: Spare,
        ticket: u64,
    },
    /// The drive is being prepared or proposed.
    Preparing,
    Resting {
        until: Time,
    },
    /// So many shards have not answered.
    Fencing {
        left: u16,
        until: Time,
    },
    Draining {
        left: u16,
        until: Time,
    },
    Copying(Copying),
    /// Everything is in the log, or there was nothing to be logged.
    Copied {
        windows: u64,
        passed_over: bool,
    },
    Proposed,
    /// It is in force. So many shards have not said that they know. The next step may begin then.
    Arrived {
        left: u16,
        until: Time,
    },
    Leaving,
}

/// An array that gets a further member.
#[derive(Debug)]
pub(super) struct Growing {
    stage: Stage,
    /// Whether the last step came to nothing although the array is as it should be.
    blocked: bool,
    /// When its first step since the start of the process began, and how far it was then.
    began: Option<(Time, StripeId)>,
}

impl Growing {
    /// Of an array as start-up left it.
    pub(super) fn of(map: &ArrayMap) -> Option<Self> {
        map.arrangement.reshape()?;
        Some(Self::at(Stage::Resting { until: Time(0) }))
    }

    const fn at(stage: Stage) -> Self {
        Self { stage, blocked: false, began: None }
    }

    /// The drive that was asked for, as long as nothing is done about it.
    pub(super) const fn asked(&self) -> Option<DeviceId> {
        match &self.stage {
            Stage::Asked { spare, .. } => Some(spare.device),
            _ => None,
        }
    }
}

/// What the superblocks of an array say once it has a further member.
pub(super) fn seat(tables: &mut Tables, member: raid::MemberEntry, window_stripes: u32) {
    tables.grow(member, window_stripes).expect("it was looked at before");
}

/// Log and cache blocks that a step takes at one lane and its owner.
const fn blocks_of_step(geometry: &Geometry, window: u32) -> (u64, u64) {
    let log = moved_log_blocks(geometry.data_slots(), window as u64, geometry.parities());
    (log + SLACK_BLOCKS, geometry.data_slots() as u64 * window as u64)
}

impl Coordinated {
    /// By how many stripes at a time an array gets one more member: as many as its log and its caches bear.
    fn window_stripes(&self) -> Result<u32, Refusal> {
        let map = &self.array.map;
        let before = map.arrangement.geometry();
        let (level, chunk, stripes) = (before.level(), before.chunk_blocks(), before.stripes());
        let after = Geometry::new(level, before.members() + 1, chunk, stripes).map_err(|_| Refusal::NoGrowth)?;
        let fits = |window: &u32| {
            let (log, cache) = blocks_of_step(&after, *window);
            log <= map.log_layout.lane_blocks() * 3 / 4 && cache <= self.array.cache_blocks as u64 / 2
        };
        let least = Reshape::least_window(chunk);
        let windows = core::iter::successors(Some(MAX_WINDOW_STRIPES), |window| Some(window / 2));
        let window = windows.take_while(|window| *window >= least).find(fits);
        let window = window.ok_or_else(|| {
            let (log, cache) = blocks_of_step(&after, least);
            Refusal::GrowthTooLarge { lane: log * 4 / 3, cache: 2 * cache }
        })?;
        Reshape::new(after, before.members(), StripeId(0), window).map_err(|_| Refusal::NoGrowth)?;
        let steps = u32::try_from(stripes / u64::from(window)).map_err(|_| Refusal::NoGrowth)?;
        self.tables.geometry_epoch.checked_add(steps).ok_or(Refusal::NoGrowth)?;
        Ok(window)
    }

    /// By how many stripes at a time it gets a further member, unless it cannot get one now.
    fn may_grow(&self) -> Result<u32, Refusal> {
        let map = &self.array.map;
        if map.service != Service::ReadWrite {
            Err(Refusal::Down)
        } else if map.is_bare() {
            Err(Refusal::NoLog)
        } else if map.missing() != 0 {
            Err(Refusal::NotWhole)
        } else if self.tables.growth.is_some() || self.array.members_at_start != map.members.len() {
            Err(Refusal::GrownAlready)
        } else if self.succession.is_some() {
            Err(Refusal::SuccessionUnderWay)
        } else {
            self.window_stripes()
        }
    }

    /// Whether nobody has ever written where a window's blocks lie or come to lie, or is about to. True only of a window that is
    /// drained.
    fn is_blank(&self, window: &Window) -> bool {
        let zone_stripes = self.array.map.arrangement.zone_stripes();
        let zones = |stripes: core::ops::Range<u64>| stripes.start / zone_stripes..stripes.end.div_ceil(zone_stripes);
        let mut zones = core::iter::once(window.stripes()).chain(window.sources()).flat_map(zones).map(ZoneId);
        let pending = |zone: ZoneId| {
            let mut on_their_way = self.pending_zones.iter().chain(&self.recording_zones);
            on_their_way.any(|(_, pending)| *pending == zone)
        };
        zones.all(|zone| !self.array.initialised.is_set(zone) && !pending(zone))
    }

    /// What the next step moves.
    fn next_window(&self) -> Option<Window> {
        let reshape = self.array.map.arrangement.reshape()?;
        let next = reshape.next()?;
        if !self.is_blank(&next) {
            return Some(next);
        }
        // As many as look like it.
        let mut windows = BLANK_WINDOWS;
        loop {
            let ahead = reshape.ahead(windows)?;
            if windows <= 1 || self.is_blank(&ahead) {
                return Some(ahead);
            }
            windows /= 2;
        }
    }
}

impl Coordinator {
    /// Begins to give an array a further member.
    pub(super) fn grow(&mut self, id: ArrayId, spare: Spare, ticket: u64) -> Result<(), Refusal> {
        let array = &self.arrays[id.index()];
        if array.growth.is_some() {
            return Err(Refusal::GrowthUnderWay);
        }
        array.may_grow()?;
        self.fits(id, &spare)?;
        self.take_unused(id, spare.device)?;
        self.arrays[id.index()].growth = Some(Growing::at(Stage::Asked { spare, ticket }));
        Ok(())
    }

    /// Takes the next step, if it can be taken now; whether it was.
    pub(super) fn go_on_growing<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
    ) -> bool {
        let now = ports.now();
        let has_room = operations.available() > JOIN_BLOCKS && self.spare.len() >= JOIN_BLOCKS;
        let stopping = self.stopping;
        let array = &mut self.arrays[id.index()];
        let (at_rest, rests) = (array.is_at_rest(), array.may_step());
        let map = &array.array.map;
        let serves = map.service == Service::ReadWrite && !stopping;
        let Some(growing) = &mut array.growth else { return false };
        match &mut growing.stage {
            Stage::Asked { spare, ticket } => {
                let (spare, ticket) = (*spare, *ticket);
                self.prepare_to_grow(ports, operations, id, (spare, ticket), at_rest && has_room)
            }
            Stage::Resting { until } => {
                if !serves || !at_rest || !rests || now < *until {
                    return false;
                }
                self.begin_step(ports, id)
            }
            Stage::Fencing { .. } | Stage::Draining { .. } if !serves => {
                growing.stage = Stage::Leaving;
                true
            }
            Stage::Fencing { left: 0, until } if at_rest => {
                growing.stage = Stage::Draining { left: self.shards, until: *until };
                let moving = map.moving.map(|moving| Moving { stage: MovingStage::Draining, ..moving });
                let map = ArrayMap { moving, ..ArrayMap::clone(map) };
                self.tell_map(ports, id, map);
                true
            }
            Stage::Draining { left: 0, .. } => {
                self.begin_to_copy(id);
                true
            }
            Stage::Fencing { left: 1.., until } | Stage::Draining { until, .. } if now >= *until => {
                self.step_blocked(id);
                true
            }
            Stage::Copied { windows, passed_over } if at_rest => {
                let (windows, passed_over) = (*windows, *passed_over);
                growing.stage = if serves { Stage::Proposed } else { Stage::Leaving };
                if serves {
                    array.pending.edit = Some(Edit::Step { windows, passed_over });
                }
                true
            }
            Stage::Arrived { left: 0, until } if at_rest => {
                let until = *until;
                let map = ArrayMap { moving: None, ..ArrayMap::clone(map) };
                self.tell_map(ports, id, map);
                self.step_ended(id, until);
                true
            }
            Stage::Leaving if at_rest => {
                growing.stage = Stage::Resting { until: now + RETRY };
                let map = ArrayMap { moving: None, ..ArrayMap::clone(map) };
                self.tell_map(ports, id, map);
                true
            }
            _ => false,
        }
    }

    /// Begins to prepare the drive.
    fn prepare_to_grow<P: Ports>(
        &mut self,
        ports: &mut P,
        operations: &mut Operations<Purpose>,
        id: ArrayId,
        (spare, ticket): (Spare, u64),
        may_begin: bool,
    ) -> bool {
        let may_grow = if self.stopping { Err(Refusal::Stopping) } else { self.arrays[id.index()].may_grow() };
        let window_stripes = match may_grow {
            Ok(window_stripes) => window_stripes,
            Err(refusal) => {
                self.growth_refused(id);
                self.answer(ticket, Err(refusal));
                return true;
            }
        };
        // What was given up at the drive must not come behind what is written to it now.
        if !may_begin || operations.is_writing(spare.device) {
            return false;
        }
        let slot = self.arrays[id.index()].array.map.successor_slot();
        self.set_growth_stage(id, Stage::Preparing);
        let way = Way::Grow { ticket, window_stripes };
        self.begin_to_prepare(ports, operations, id, (slot, spare, way), None);
        true
    }

    /// The drive failed, or another member did: as if nothing had been asked.
    pub(super) fn growth_refused(&mut self, id: ArrayId) {
        self.arrays[id.index()].growth = None;
    }

    /// To be begun anew: another member failed on the way.
    pub(super) fn prepare_to_grow_again(&mut self, id: ArrayId, spare: Spare, ticket: u64) {
        if let Some(growing) = &mut self.arrays[id.index()].growth {
            growing.stage = Stage::Asked { spare, ticket };
        }
    }

    /// The drive is a member: data begins to move.
    pub(super) fn growth_began(&mut self, id: ArrayId, now: Time) {
        self.arrays[id.index()].growth = Some(Growing::at(Stage::Resting { until: now }));
    }

    fn begin_step<P: Ports>(&mut self, ports: &mut P, id: ArrayId) -> bool {
        let Some(window) = self.arrays[id.index()].next_window() else { return false };
        self.next_run += 1;
        let moving = Some(Moving { run: self.next_run, window, stage: MovingStage::Fencing });
        let map = ArrayMap { moving, ..ArrayMap::clone(&self.arrays[id.index()].array.map) };
        let (left, until) = (self.shards, ports.now() + PATIENCE);
        if let (Some(growing), Some(reshape)) = (&mut self.arrays[id.index()].growth, map.arrangement.reshape()) {
            growing.stage = Stage::Fencing { left, until };
            growing.began.get_or_insert((ports.now(), reshape.boundary()));
        }
        self.tell_map(ports, id, map);
        true
    }

    fn set_growth_stage(&mut self, id: ArrayId, stage: Stage) {
        let growing = self.arrays[id.index()].growth.as_mut();
        growing.expect("the array grows").stage = stage;
    }

    /// A shard has no more requests under way that use the blocks, or nothing more of them in the log, or knows that they arrived.
    pub(super) fn shard_rests(&mut self, id: ArrayId, run: u32, stage: MovingStage) {
        let array = &mut self.arrays[id.index()];
        if array.array.map.moving.is_none_or(|moving| moving.run != run) {
            return;
        }
        match (array.growth.as_mut().map(|growing| &mut growing.stage), stage) {
            (Some(Stage::Fencing { left, .. }), MovingStage::Fencing)
            | (Some(Stage::Draining { left, .. }), MovingStage::Draining)
            | (Some(Stage::Arrived { left, .. }), MovingStage::Arrived) => *left -= 1,
            // It came to nothing meanwhile.
            _ => {}
        }
    }

    fn begin_to_copy(&mut self, id: ArrayId) {
        let array = &self.arrays[id.index()];
        let window = array.array.map.moving.expect("a step is under way").window;
        let stage = if array.is_blank(&window) {
            Stage::Copied { windows: window.windows(), passed_over: true }
        } else {
            Stage::Copying(Copying::new(&window.first()))
        };
        self.set_growth_stage(id, stage);
    }

    /// A step has come to nothing although the array is as it should be.
    fn step_blocked(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let growing = array.growth.as_mut().expect("the array grows");
        growing.stage = Stage::Leaving;
        if !core::mem::replace(&mut growing.blocked, true)
            && let Some(reshape) = array.array.map.arrangement.reshape()
        {
            let stripe = reshape.boundary();
            self.tell(Event::GrowthBlocked { array: id, stripe });
        }
    }

    /// A step has come into force.
    pub(super) fn stepped(&mut self, id: ArrayId, windows: u64, passed_over: bool, now: Time) {
        let array = &mut self.arrays[id.index()];
        let window = array.tables.growth.map_or(0, |growth| growth.window_stripes);
        // What is passed over takes nobody's time.
        let windows = if passed_over { 0 } else { windows };
        let bytes = windows * u64::from(window) * BLOCK as u64;
        let rate = array.array.rebuild.limits.bytes_a_second;
        let wait = (bytes * 1_000_000_000).checked_div(rate).map_or(Span::ZERO, Span);
        if let Some(growing) = &mut array.growth {
            growing.blocked = false;
        }
        self.set_growth_stage(id, Stage::Arrived { left: self.shards, until: now + wait });
    }

    /// Every shard knows of the step.
    fn step_ended(&mut self, id: ArrayId, until: Time) {
        let array = &mut self.arrays[id.index()];
        if array.array.map.arrangement.reshape().is_some() {
            self.set_growth_stage(id, Stage::Resting { until });
        } else {
            array.growth = None;
            let blocks = array.array.map.arrangement.blocks();
            self.tell(Event::Grown { array: id, blocks });
        }
    }

    /// A step does not come into force.
    pub(super) fn not_stepped(&mut self, id: ArrayId) {
        self.set_growth_stage(id, Stage::Leaving);
    }

    /// When there is something to do, if nothing comes before.
    pub(super) fn growth_deadline(&self) -> Time {
        let due =
            self.arrays.iter().filter(|_| !self.stopping).filter_map(|array| match &array.growth.as_ref()?.stage {
                Stage::Resting { until } if array.may_step() => Some(*until),
                Stage::Fencing { until, .. } | Stage::Draining { until, .. } => Some(*until),
                Stage::Copying(copying) => Some(copying.after()),
                _ => None,
            });
        due.min().unwrap_or(Time::NEVER)
    }

    /// How far an array is that gets a further member.
    pub(crate) fn growth_status(&self, id: ArrayId, now: Time) -> Option<GrowthStatus> {
        let array = &self.arrays[id.index()];
        let growing = array.growth.as_ref()?;
        let map = &array.array.map;
        let reshape = map.arrangement.reshape()?;
        let bytes = |stripes: u64| stripes * BLOCK as u64;
        let (done, all) = (reshape.boundary().0, map.arrangement.geometry().stripes());
        let (began, began_at) = growing.began.unwrap_or((now, reshape.boundary()));
        let bytes_a_second = a_second(bytes(done - began_at.0), began, now);
        let waits = growing.blocked || matches!(growing.stage, Stage::Resting { .. }) && !array.may_step();
        Some(GrowthStatus {
            slot: map.arrangement.geometry().members() - 1,
            done_bytes: bytes(done),
            bytes: bytes(all),
            bytes_a_second,
            seconds_left: bytes(all - done).checked_div(bytes_a_second),
            paused: array.paused,
            waits,
        })
    }
}

impl Coordinated {
    /// Whether the next step of a growth may begin with the array as it is.
    fn may_step(&self) -> bool {
        let map = &self.array.map;
        let is_whole = map.service == Service::ReadWrite && !map.is_bare() && map.missing() == 0;
        is_whole && !self.paused && map.hold.is_none() && self.attaching.is_none() && self.resync.is_none()
    }
}
