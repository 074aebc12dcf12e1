//! The last copy of a log is taken away while hosts write, from an array that could go on without if it were lost
//! (`on_log_loss: write-through-exposed`): its members can say which zones are dirty, and its hosts were never told of larger
//! atomic writes than it can keep without a log. Writes wait until the members have everything that the log holds
//! ([`crate::array`]'s `hold`); then the log is given up as if it had been lost and drained ([`super::exposure`]), but nobody
//! misses it. Should the copy fail meanwhile, or a member, that is what happens instead.

use base::ids::ArrayId;
use ports::Ports;

use super::proposal::Edit;
use super::{Change, Coordinator};
use crate::command::Refusal;
use crate::map::Service;

/// The last copy, on its way out.
#[derive(Debug)]
pub(super) struct Parting {
    copy: u8,
    run: u32,
    ticket: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Writes are to wait.
    Hold,
    /// So many shards have something under way.
    Held(u16),
    Proposed,
}

impl Coordinator {
    /// Begins to take the last copy away.
    pub(super) fn part(&mut self, id: ArrayId, copy: u8, ticket: u64) -> Result<(), Refusal> {
        let array = &mut self.arrays[id.index()];
        if array.attaching.is_some() || array.parting.is_some() || array.switching.is_some() {
            return Err(Refusal::Busy);
        }
        if !array.goes_on_without_log() || array.array.map.is_bare() {
            return Err(Refusal::LastCopy);
        }
        self.next_run += 1;
        array.parting = Some(Parting { copy, run: self.next_run, ticket, step: Step::Hold });
        Ok(())
    }

    /// Takes the next step, if it can be taken now; whether it was.
    pub(super) fn go_on_parting<P: Ports>(&mut self, ports: &mut P, id: ArrayId) -> bool {
        let array = &mut self.arrays[id.index()];
        let is_at_rest = array.is_at_rest();
        let down = (!array.goes_on_without_log()).then_some(Refusal::Down);
        let refusal = array.refuses_hold(self.stopping, ports.now()).or(down);
        let is_proposing = matches!(array.change, Change::Proposing(_));
        let Some(parting) = array.parting.as_mut().filter(|_| !is_proposing) else { return false };
        match (parting.step, refusal) {
            (Step::Proposed, _) => return false,
            (_, Some(refusal)) => {
                self.hold(ports, id, None);
                self.not_parted(id, refusal);
            }
            (Step::Hold, None) => {
                parting.step = Step::Held(self.shards);
                let run = parting.run;
                self.hold(ports, id, Some(run));
            }
            (Step::Held(0), None) if is_at_rest => {
                parting.step = Step::Proposed;
                array.pending.detached |= 1 << parting.copy;
                array.pending.edit = Some(Edit::Expose);
            }
            (Step::Held(_), None) => return false,
        }
        true
    }

    /// Nothing of a shard's is under way any more.
    pub(super) fn still(&mut self, id: ArrayId, run: u32) {
        let parting = self.arrays[id.index()].parting.as_mut();
        if let Some(Parting { step: Step::Held(shards), .. }) = parting.filter(|parting| parting.run == run) {
            *shards -= 1;
        }
    }

    /// A map is in force: perhaps without a log, or with one that was lost meanwhile.
    pub(super) fn parting_published(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let Some(parting) = &array.parting else { return };
        if array.array.map.is_bare() {
            let ticket = parting.ticket;
            array.parting = None;
            self.answer(ticket, Ok(()));
        } else if array.array.map.service != Service::ReadWrite {
            self.not_parted(id, Refusal::Down);
        }
    }

    /// It stays, or goes otherwise.
    fn not_parted(&mut self, id: ArrayId, refusal: Refusal) {
        let parting = self.arrays[id.index()].parting.take().expect("the caller has seen it");
        self.answer(parting.ticket, Err(refusal));
    }
}
