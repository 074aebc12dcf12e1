//! What the control side asks for: looked at once, refused or carried out by the same changes that failures bring about,
//! and answered when the change is in force.

use base::ids::{ArrayId, DeviceId, Slot};

use super::join::Asked;
use super::{Change, Coordinated, Coordinator, Spare};
use crate::command::{Answer, Command, Event, Refusal, Verb};
use crate::limits::{MAX_COMMANDS, MAX_NEWS, MAX_SPARES};
use crate::map::{OnLogLoss, Service};
use crate::message::Message;
use ports::Ports;
use raid::Superblock;

/// A command that waits for an exclusion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    ticket: u64,
    pub(super) members: u32,
    copies: u32,
    /// Places of the log that are to be free.
    free: u32,
}

impl Coordinated {
    /// Whether the array bears the loss of these members and log copies beside what is missing or on its way out.
    pub(super) fn can_do_without(&self, members: u32, copies: u32) -> bool {
        let map = match &self.change {
            Change::Proposing(proposed) => &proposed.map,
            Change::None
            | Change::Recording
            | Change::Noting
            | Change::Marking
            | Change::Tabling
            | Change::Joining(_)
            | Change::Flushing { .. } => &self.array.map,
        };
        let gone = map.missing() | self.pending.members | members;
        let copies_gone = self.pending.copies | self.pending.detached | copies;
        let stays = |at: usize| map.copies[at].is_some() && copies_gone & 1 << at == 0;
        map.arrangement.geometry().bears(gone) && (map.is_bare() || (0..map.copies.len()).any(stays))
    }

    /// Whether it goes on without any copy of its log, if that is lost now.
    pub(super) fn goes_on_without_log(&self) -> bool {
        let map = &self.array.map;
        let is_whole = map.missing() == 0 && self.pending.members == 0;
        map.on_log_loss == OnLogLoss::WriteThroughExposed && map.service == Service::ReadWrite && is_whole
    }
}

impl Coordinator {
    /// Takes a command.
    pub(super) fn command(&mut self, command: Command) {
        let ticket = command.ticket;
        let begun = match command.verb {
            _ if self.stopping => Err(Refusal::Stopping),
            Verb::FailMember { array, slot } => self.fail(array, ticket, 1 << slot.0, 0),
            Verb::AddSpare { array, spare } => self.add_spare(array, spare).map(|()| self.answer(ticket, Ok(()))),
            Verb::Replace { array, slot, spare } => self.replace(array, slot, spare, ticket),
            Verb::Return { array, spare, said } => self.return_drive(array, spare, said, ticket),
            Verb::Release { device } => self.release_drive(device).map(|()| self.answer(ticket, Ok(()))),
            Verb::Grow { array, spare } => self.grow(array, spare, ticket),
            Verb::Succeed { array, slot, spare } => self.succeed(array, slot, spare, ticket),
            Verb::CancelSuccession { array } => self.cancel_succession(array, ticket),
            Verb::PauseRebuild { array, paused } => {
                self.arrays[array.index()].paused = paused;
                self.answer(ticket, Ok(()));
                Ok(())
            }
            Verb::Scrub { array, verb } => self.scrub_command(array, ticket, verb),
            Verb::FailCopy { array, copy } => self.fail(array, ticket, 0, 1 << copy),
            Verb::DetachCopy { array, copy } => self.detach(array, copy, ticket),
            Verb::SetMode { array, mode } => self.set_mode(array, mode, ticket),
            Verb::RenewLog { array, devices } => self.renew_log(array, devices, ticket),
            Verb::AttachCopy { array, device, instead } => self.attach(array, device, instead, ticket),
            Verb::Volume { array, verb } => self.volume_command(array, ticket, verb),
        };
        if let Err(refusal) = begun {
            self.answer(ticket, Err(refusal));
        }
    }

    /// Excludes what the operator wants out, if the array can do without it and without what is on its way out already.
    fn fail(&mut self, id: ArrayId, ticket: u64, members: u32, copies: u32) -> Result<(), Refusal> {
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        let is_there = |at: usize| map.members.get(at).is_some_and(Option::is_some);
        let copy_is_there = |at: usize| map.copies.get(at).is_some_and(Option::is_some);
        let in_use = (0..32).all(|at| members & 1 << at == 0 || is_there(at))
            && (0..32).all(|at| copies & 1 << at == 0 || copy_is_there(at));
        if !in_use {
            return Err(Refusal::NotInUse);
        }
        if !array.can_do_without(members, copies) && (members != 0 || !array.goes_on_without_log()) {
            return Err(Refusal::Needed);
        }
        if array.waiting.len() >= MAX_COMMANDS {
            return Err(Refusal::Busy);
        }
        array.pending.members |= members;
        array.pending.copies |= copies;
        array.waiting.push(Waiting { ticket, members, copies, free: 0 });
        Ok(())
    }

    /// Takes a copy of the log away for good, or no longer misses one that is lost.
    fn detach(&mut self, id: ArrayId, copy: u8, ticket: u64) -> Result<(), Refusal> {
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        if map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        let is_there = *map.copies.get(usize::from(copy)).ok_or(Refusal::NotInUse)?;
        if is_there.is_none() && map.missing_copies().all(|missing| missing != copy) {
            return Err(Refusal::NotInUse);
        }
        if is_there.is_some() && !array.can_do_without(0, 1 << copy) {
            return self.part(id, copy, ticket);
        }
        if array.waiting.len() >= MAX_COMMANDS {
            return Err(Refusal::Busy);
        }
        array.pending.detached |= 1 << copy;
        array.waiting.push(Waiting { ticket, members: 0, copies: 0, free: 1 << copy });
        Ok(())
    }

    /// Whoever waits for a copy to go is told that it stays.
    pub(super) fn refuse_detaching(&mut self, id: ArrayId) {
        let waiting = &mut self.arrays[id.index()].waiting;
        let refused: Vec<u64> = waiting.iter().filter(|one| one.free != 0).map(|one| one.ticket).collect();
        waiting.retain(|one| one.free == 0);
        for ticket in refused {
            self.answer(ticket, Err(Refusal::Down));
        }
    }

    /// Keeps a drive for later.
    fn add_spare(&mut self, id: ArrayId, spare: Spare) -> Result<(), Refusal> {
        self.is_unused(spare.device)?;
        self.fits(id, &spare)?;
        let spares = &mut self.arrays[id.index()].array.spares;
        if spares.len() >= MAX_SPARES {
            return Err(Refusal::Busy);
        }
        spares.push(spare);
        Ok(())
    }

    /// Keeps a drive as a spare no longer, and refuses if it is used otherwise.
    fn release_drive(&mut self, device: DeviceId) -> Result<(), Refusal> {
        for array in &mut self.arrays {
            array.array.spares.retain(|spare| spare.device != device);
        }
        self.is_unused(device)
    }

    /// Gives a place to a drive, as soon as nothing else is under way. A spare may be asked for by name.
    fn replace(&mut self, id: ArrayId, slot: Slot, spare: Spare, ticket: u64) -> Result<(), Refusal> {
        self.ask(id, Asked { slot, spare, ticket, said: None })
    }

    /// Gives its place back to a drive that was out, with what it holds.
    fn return_drive(&mut self, id: ArrayId, spare: Spare, said: Box<Superblock>, ticket: u64) -> Result<(), Refusal> {
        let slot = self.may_return(id, &said)?;
        self.ask(id, Asked { slot, spare, ticket, said: Some(said) })
    }

    fn ask(&mut self, id: ArrayId, asked: Asked) -> Result<(), Refusal> {
        let spare = asked.spare;
        self.may_join(id, asked.slot, &spare)?;
        let array = &mut self.arrays[id.index()];
        if array.asked.len() >= MAX_COMMANDS {
            return Err(Refusal::Busy);
        }
        self.take_unused(id, spare.device)?;
        self.arrays[id.index()].asked.push_back(asked);
        Ok(())
    }

    /// Takes a drive for an array, perhaps one of its spares, if nothing uses it otherwise.
    pub(super) fn take_unused(&mut self, id: ArrayId, device: DeviceId) -> Result<(), Refusal> {
        let spares = &mut self.arrays[id.index()].array.spares;
        let kept = spares.iter().position(|known| known.device == device).map(|at| spares.remove(at));
        let unused = self.is_unused(device);
        if unused.is_err() {
            self.arrays[id.index()].array.spares.extend(kept);
        }
        unused
    }

    /// Refuses a drive that any array uses or keeps.
    pub(super) fn is_unused(&self, device: DeviceId) -> Result<(), Refusal> {
        let uses = |array: &Coordinated| {
            let map = &array.array.map;
            map.slot_of(device).is_some()
                || array.succession.as_ref().is_some_and(|succession| succession.device() == device)
                || map.copies.contains(&Some(device))
                || array.attaching.as_ref().is_some_and(|attaching| attaching.uses(device))
                || array.array.spares.iter().any(|spare| spare.device == device)
                || array.joining().any(|joining| joining == device)
        };
        if self.arrays.iter().any(uses) { Err(Refusal::InUse) } else { Ok(()) }
    }

    /// Answers whoever waited for what is excluded now.
    pub(super) fn excluded(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        let copies_gone = (0u32..).zip(&map.copies).filter(|(_, copy)| copy.is_none());
        let copies_gone = copies_gone.fold(0, |mask, (at, _)| mask | 1 << at);
        let members_gone = (0u32..).zip(&map.members).filter(|(_, member)| member.is_none());
        let members_gone = members_gone.fold(0, |mask, (slot, _)| mask | 1 << slot);
        let is_done = |waiting: &Waiting| {
            let Waiting { members, copies, free, .. } = *waiting;
            members & !members_gone == 0 && copies & !copies_gone == 0 && free & !map.free_copies == 0
        };
        let done: Vec<u64> = array.waiting.iter().filter(|one| is_done(one)).map(|one| one.ticket).collect();
        array.waiting.retain(|one| !is_done(one));
        for ticket in done {
            self.answer(ticket, Ok(()));
        }
    }

    /// Puts an answer on its way.
    pub(super) fn answer(&mut self, ticket: u64, result: Result<(), Refusal>) {
        self.news.push_back(Message::Answer(Box::new(Answer { ticket, result })));
    }

    /// Puts news on their way, unless too many wait.
    pub(super) fn tell(&mut self, event: Event) {
        if self.news.len() < MAX_NEWS {
            self.news.push_back(Message::Event(Box::new(event)));
        } else {
            self.lost_news += 1;
        }
    }

    /// Sends what waits for the control side, as far as it takes it.
    pub(crate) fn tell_control<P: Ports<Message = Message>>(&mut self, ports: &mut P) {
        while let Some(message) = self.news.pop_front() {
            let control = ports.control();
            if let Err(message) = ports.post(control, message) {
                self.news.push_front(message);
                return;
            }
        }
        if self.lost_news > 0 {
            let count = core::mem::take(&mut self.lost_news);
            self.news.push_back(Message::Event(Box::new(Event::Lost { count })));
        }
    }
}
