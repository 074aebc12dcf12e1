//! Scrubs, as the coordinator sees them: a [`super::round`] over the zones of an array, begun by a command, told to wait, to go
//! on and to stop by others. What there is to know of the last one is a record in all superblocks; a change of it is in force
//! when it is durable there, and only then is a command answered. The record's position lags behind, and so does what it counts:
//! zones that are done beyond it are seen again after a restart, which goes on by itself.
//!
//! A scrub waits while a member is being rebuilt, which reads everything anyway, and while there is nothing to compare with.
//! Nobody reads a clock here: the command brings the time.

use base::ids::{ArrayId, ShardId, StripeId, ZoneId};
use base::time::{Span, Time};
use ports::Ports;
use raid::{Repair, ScrubCounts, ScrubRecord, ScrubState};

use super::proposal::Edit;
use super::round::{Round, RoundSettings, share};
use super::{Coordinated, Coordinator};
use crate::array::{Action, Found, Limits, Order};
use crate::command::{Event, Refusal, ScrubVerb};
use crate::limits::{FOUND_ZONES, MAX_COMMANDS};
use crate::map::{ArrayMap, Service};
use crate::message::Message;
use crate::status::ScrubStatus;

/// How an array is scrubbed, unless the command says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSettings {
    /// How fast, of each member, all shards together; and how often its position is made durable.
    pub round: RoundSettings,
    /// What is done about blocks that are wrong.
    pub repair: Repair,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        let round = RoundSettings { save_zones: 256, save_period: Span::from_secs(30), ..RoundSettings::default() };
        Self { round, repair: Repair::default() }
    }
}

/// What the coordinator knows of an array's scrubs.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The last one, as it is now.
    record: Option<ScrubRecord>,
    /// Its round, while it goes on.
    round: Option<Round>,
    /// The run of the last round, whose zones may still come back.
    run: u32,
    /// What was found in zones beyond the position.
    beyond: ScrubCounts,
    /// Zones with mistakes of which it was told.
    told: u32,
    /// The superblocks say something else.
    is_unsaved: bool,
    /// Who waits for that to change: commands that are in the record, and those that are in what is being written.
    asked: Vec<u64>,
    saving: Vec<u64>,
}

impl Scrub {
    pub(super) fn new(record: Option<ScrubRecord>) -> Self {
        Self { record, ..Self::default() }
    }

    fn under_way(&mut self) -> Option<&mut ScrubRecord> {
        self.record.as_mut().filter(|record| record.state.is_under_way())
    }
}

/// Whether a scrub goes on with an array like this.
fn may_go_on(map: &ArrayMap) -> bool {
    let is_rebuilding = map.written().any(|(_, member)| member.position.is_some());
    let is_growing = map.arrangement.reshape().is_some();
    map.service == Service::ReadWrite
        && !is_rebuilding
        && !is_growing
        && map.arrangement.geometry().compares(map.missing())
}

impl Coordinator {
    /// Takes a command; it is answered when the superblocks say so.
    pub(super) fn scrub_command(&mut self, id: ArrayId, ticket: u64, verb: ScrubVerb) -> Result<(), Refusal> {
        let Coordinated { array, scrub, .. } = &mut self.arrays[id.index()];
        if array.map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        if scrub.asked.len() + scrub.saving.len() >= MAX_COMMANDS {
            return Err(Refusal::Busy);
        }
        match verb {
            ScrubVerb::Start { repair, rate, at } => {
                if !array.map.arrangement.geometry().compares(0) {
                    return Err(Refusal::NothingToCompare);
                }
                if scrub.under_way().is_some() {
                    return Err(Refusal::ScrubUnderWay);
                }
                let repair = repair.unwrap_or(array.scrub.repair);
                let (state, counts) = (ScrubState::Running, ScrubCounts::default());
                scrub.record = Some(ScrubRecord { state, repair, position: 0, began: at, rate, counts });
                (scrub.told, scrub.beyond, scrub.run) = (0, ScrubCounts::default(), 0);
            }
            ScrubVerb::Pause => scrub.under_way().ok_or(Refusal::NoScrub)?.state = ScrubState::Paused,
            ScrubVerb::Resume => scrub.under_way().ok_or(Refusal::NoScrub)?.state = ScrubState::Running,
            ScrubVerb::Stop => {
                let beyond = scrub.beyond;
                let record = scrub.under_way().ok_or(Refusal::NoScrub)?;
                record.state = ScrubState::Stopped;
                record.counts.add(&beyond);
                scrub.round = None;
            }
        }
        scrub.is_unsaved = true;
        scrub.asked.push(ticket);
        Ok(())
    }

    /// Takes a zone back from its owner.
    pub(super) fn zone_scrubbed(
        &mut self,
        id: ArrayId,
        from: ShardId,
        run: u32,
        zone: ZoneId,
        found: Option<Box<Found>>,
    ) {
        let scrub = &mut self.arrays[id.index()].scrub;
        if scrub.run != run {
            return;
        }
        if let Some(round) = &mut scrub.round {
            round.walked(zone, from);
        }
        let Some(found) = found else { return };
        match (&scrub.round, &mut scrub.record) {
            // Told to stop while it was under way.
            (None, Some(record)) => {
                record.counts.add(&found.counts);
                scrub.is_unsaved = true;
            }
            _ => scrub.beyond.add(&found.counts),
        }
        scrub.told += 1;
        if scrub.told <= FOUND_ZONES {
            let last = scrub.told == FOUND_ZONES;
            self.tell(Event::ScrubFound { array: id, found, last });
        }
    }

    /// Begins, goes on with, and ends the scrub of an array; whether anything was done.
    pub(super) fn scrub<P: Ports>(&mut self, ports: &mut P, id: ArrayId) -> bool {
        let now = ports.now();
        let stopping = self.stopping;
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        if stopping || map.service != Service::ReadWrite {
            array.scrub.round = None;
            return false;
        }
        let mut worked = false;
        // What does not match after a crash is nobody's mistake.
        if may_go_on(map) && array.resync.is_none() {
            worked = self.go_on_scrubbing(id, now);
        } else if array.scrub.round.take().is_some() {
            // What it has beyond its position is seen again.
            (array.scrub.beyond, array.scrub.run) = (ScrubCounts::default(), 0);
        }
        let array = &mut self.arrays[id.index()];
        if array.scrub.is_unsaved && array.is_at_rest() {
            array.scrub.is_unsaved = false;
            let asked = core::mem::take(&mut array.scrub.asked);
            array.scrub.saving.extend(asked);
            array.pending.edit = Some(Edit::Scrub(array.scrub.record));
            worked = true;
        }
        worked
    }

    fn go_on_scrubbing(&mut self, id: ArrayId, now: Time) -> bool {
        let Coordinated { array, scrub, .. } = &mut self.arrays[id.index()];
        let geometry = array.map.arrangement.geometry();
        let Some(record) = scrub.record.as_mut().filter(|record| record.state.is_under_way()) else { return false };
        if scrub.round.is_none() {
            if record.state == ScrubState::Paused {
                return false;
            }
            self.next_run += 1;
            scrub.run = self.next_run;
            let position = StripeId(record.position);
            scrub.round = Some(Round::new(scrub.run, geometry.zone_of(position).0, self.shards, now));
            let repair = record.repair;
            self.tell(Event::ScrubBegan { array: id, repair, position });
            return true;
        }
        let round = scrub.round.as_mut().expect("looked at just now");
        let settings = &array.scrub.round;
        let limits =
            Limits { bytes_a_second: record.rate.unwrap_or(settings.limits.bytes_a_second), ..settings.limits };
        let (run, action) = (round.run, Action::Scrub(record.repair));
        let limits = share(limits, self.shards);
        let mut worked = false;
        while record.state == ScrubState::Running
            && let Some((owner, zone)) = round.give(&array.map)
        {
            self.messages.push_back((owner, Message::Walk { array: id, order: Order { run, zone, action, limits } }));
            worked = true;
        }
        if round.is_to_save(geometry.zones(), settings, now) {
            round.saves(round.done(), now);
            record.position = round.done() * geometry.zone_stripes();
            record.counts.add(&core::mem::take(&mut scrub.beyond));
            scrub.is_unsaved = true;
            if record.position == geometry.stripes() {
                record.state = ScrubState::Ended;
                scrub.round = None;
            }
            worked = true;
        }
        worked
    }

    /// The superblocks say what they were to say.
    pub(super) fn scrub_saved(&mut self, id: ArrayId, before: Option<ScrubRecord>, record: Option<ScrubRecord>) {
        let state = |record: Option<ScrubRecord>| record.map(|record| record.state);
        for ticket in core::mem::take(&mut self.arrays[id.index()].scrub.saving) {
            self.answer(ticket, Ok(()));
        }
        let was_under_way = state(before).is_some_and(ScrubState::is_under_way);
        if let Some(record) = record.filter(|record| was_under_way && !record.state.is_under_way()) {
            self.tell(Event::ScrubEnded { array: id, record });
        }
    }

    /// The superblocks could not be written, and the array is down.
    pub(super) fn scrub_not_saved(&mut self, id: ArrayId) {
        let scrub = &mut self.arrays[id.index()].scrub;
        scrub.is_unsaved = true;
        for ticket in core::mem::take(&mut scrub.saving) {
            self.answer(ticket, Err(Refusal::Down));
        }
    }

    /// When the position of a scrub is to be saved.
    pub(super) fn scrub_deadline(&self) -> Time {
        let due = self.arrays.iter().filter(|_| !self.stopping).filter_map(|array| {
            let round = array.scrub.round.as_ref()?;
            round.save_due(&array.array.scrub.round)
        });
        due.min().unwrap_or(Time::NEVER)
    }

    /// The last scrub of an array.
    pub(crate) fn scrub_status(&self, id: ArrayId, now: Time) -> Option<ScrubStatus> {
        let Coordinated { array, scrub, .. } = &self.arrays[id.index()];
        let record = scrub.record?;
        let geometry = array.map.arrangement.geometry();
        let mut counts = record.counts;
        counts.add(&scrub.beyond);
        let resting = Round::new(0, geometry.zone_of(StripeId(record.position)).0, 1, now);
        let progress = scrub.round.as_ref().unwrap_or(&resting).progress(geometry, now);
        Some(ScrubStatus {
            state: match record.state {
                ScrubState::Running if scrub.round.is_none() => "waiting",
                ScrubState::Running => "running",
                ScrubState::Paused => "paused",
                ScrubState::Ended => "ended",
                ScrubState::Stopped => "stopped",
            },
            repair: record.repair.name(),
            began: record.began,
            done_bytes: progress.done_bytes,
            bytes: progress.bytes,
            bytes_a_second: progress.bytes_a_second,
            seconds_left: progress.seconds_left.filter(|_| record.state == ScrubState::Running),
            counts,
        })
    }
}
