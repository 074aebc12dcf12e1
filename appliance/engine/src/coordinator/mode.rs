//! When an array's writes are acknowledged, changed while hosts go on. The log's copies say it first, in a new epoch; then the
//! shards are told, and the command is answered when all of them go by it: whatever is asked for after that is acknowledged in
//! the new way.

use base::ids::ArrayId;

use super::Coordinator;
use super::attach::Attaching;
use super::proposal::Edit;
use crate::command::{Event, Refusal};
use crate::map::{LogMode, Service};

/// A change of the mode under way.
#[derive(Debug)]
pub(super) struct Switching {
    mode: LogMode,
    ticket: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wanted,
    Proposed,
    /// In force; so many shards have not said that they go by it.
    Told(u16),
}

impl Coordinator {
    /// Begins to change the mode.
    pub(super) fn set_mode(&mut self, id: ArrayId, mode: LogMode, ticket: u64) -> Result<(), Refusal> {
        let array = &mut self.arrays[id.index()];
        let map = &array.array.map;
        if map.is_bare() {
            return Err(Refusal::NoLog);
        }
        if map.service != Service::ReadWrite {
            return Err(Refusal::Down);
        }
        if array.switching.is_some()
            || array.parting.is_some()
            || array.attaching.as_ref().is_some_and(Attaching::begins_log)
        {
            return Err(Refusal::Busy);
        }
        if map.mode == mode {
            self.answer(ticket, Ok(()));
        } else {
            array.switching = Some(Switching { mode, ticket, step: Step::Wanted });
        }
        Ok(())
    }

    /// Proposes a mode that is wanted, as soon as nothing else is under way; whether it was so.
    pub(super) fn go_on_switching(&mut self, id: ArrayId) -> bool {
        let array = &mut self.arrays[id.index()];
        let is_at_rest = array.is_at_rest();
        let Some(switching) = array.switching.as_mut().filter(|switching| switching.step == Step::Wanted) else {
            return false;
        };
        if self.stopping {
            self.mode_refused(id, Refusal::Stopping);
            return true;
        }
        if is_at_rest {
            switching.step = Step::Proposed;
            array.pending.edit = Some(Edit::Mode(switching.mode));
        }
        is_at_rest
    }

    /// The copies say it, and the shards are about to hear of it.
    pub(super) fn mode_published(&mut self, id: ArrayId, mode: LogMode) {
        if let Some(switching) = &mut self.arrays[id.index()].switching {
            switching.step = Step::Told(self.shards);
        }
        self.tell(Event::Mode { array: id, mode });
    }

    /// A shard goes by the mode that is in force.
    pub(super) fn mode_taken(&mut self, id: ArrayId) {
        let array = &mut self.arrays[id.index()];
        let Some(Switching { step: Step::Told(shards), ticket, .. }) = &mut array.switching else { return };
        *shards -= 1;
        if *shards == 0 {
            let ticket = *ticket;
            array.switching = None;
            self.answer(ticket, Ok(()));
        }
    }

    /// It stays as it is.
    pub(super) fn mode_refused(&mut self, id: ArrayId, refusal: Refusal) {
        if let Some(switching) = self.arrays[id.index()].switching.take() {
            self.answer(switching.ticket, Err(refusal));
        }
    }
}
