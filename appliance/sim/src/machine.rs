//! One appliance between power-on and power-off: its shards, its memory, its mesh. Each step turns one shard, or moves time
//! on; chance decides which shard and when, so that every interleaving of turns and completions can happen. It never decides
//! what hosts ask.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use base::ids::{DeviceId, ShardId};
use base::time::{Span, Time};
use base::uuid::Uuid;
use engine::command::{Answer, Command};
use engine::fence::Association;
use engine::io::{IoDone, IoRequest};
use engine::map::VolumeTables;
use ports::Ports;

use crate::boot_device::BootDevice;
use crate::operator::{Health, Order};
use crate::ports::{PortsOptions, SimPorts};
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::Subject;

/// Once in so many steps time moves on although a shard has work.
const TIME_ONCE_IN: u64 = 12;

/// How far time moves when a shard asks to be turned at a time that has passed: production's clock moves by itself.
const TICK: Span = Span::from_micros(1);

/// For how long a shard that has something to do may be held up.
const LONGEST_PAUSE: Span = Span::from_millis(20);

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was turned, or time moved.
    Moved,
    /// The power failed.
    Cut,
    /// Nothing is due and nobody has work: only a new request can move anything.
    Still,
    /// Every shard has ended.
    Ended,
}

/// What a start came to.
pub enum Started<M> {
    /// The appliance turns.
    Up(M),
    /// The power failed meanwhile.
    Cut,
    /// A device was lost meanwhile, and the start given up.
    DeviceLost,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    idle: bool,
    ended: bool,
    deadline: Time,
}

/// An appliance that is switched on.
pub struct Machine<S: Subject> {
    rack: Rc<RefCell<Rack>>,
    /// What the shards share.
    pub ports: SimPorts<S::Message>,
    shards: Vec<S>,
    places: Vec<Place>,
    raised: VecDeque<(ShardId, Association)>,
    random: Random,
    answers: VecDeque<Answer>,
    /// Members that were rebuilt.
    rebuilt: u64,
    left_at_devices: usize,
}

impl<S: Subject> Machine<S> {
    /// Starts from the devices of a rack.
    ///
    /// # Errors
    /// In words, when it does not start though nothing happened meanwhile.
    pub fn boot(scenario: &Scenario, rack: &Rc<RefCell<Rack>>, random: &mut Random) -> Result<Started<Self>, String> {
        let lost = || rack.borrow().lost();
        let lost_before = lost();
        let mut devices = boot_devices(rack);
        for (index, device) in devices.iter_mut().enumerate() {
            // A device that is lost may not be there at all, or be there and answer nothing.
            if !rack.borrow().works(DeviceId(index as u16)) && random.once_in(2) {
                *device = None;
            }
        }
        let booted = S::boot(scenario, &mut devices, random);
        if !rack.borrow().powered() {
            return Ok(Started::Cut);
        }
        let shards = match booted {
            // Whoever starts the appliance starts it again.
            Err(_) if lost() > lost_before => return Ok(Started::DeviceLost),
            booted => booted?,
        };
        assert_eq!(shards.len(), usize::from(scenario.shards), "as many shards as were asked for");
        let options = PortsOptions {
            shards: scenario.shards,
            pool_blocks: scenario.pool_blocks,
            mesh_capacity: S::MESH_CAPACITY,
        };
        let place = Place { idle: false, ended: false, deadline: Time::NEVER };
        let seed = random.bits();
        Ok(Started::Up(Self {
            rack: Rc::clone(rack),
            ports: SimPorts::new(Rc::clone(rack), options, Random::named(seed, "ports")),
            places: vec![place; shards.len()],
            shards,
            raised: VecDeque::new(),
            random: Random::named(seed, "machine"),
            answers: VecDeque::new(),
            rebuilt: 0,
            left_at_devices: 0,
        }))
    }

    /// Begins a request on any shard that has room, or gives it back.
    ///
    /// # Errors
    /// The request, when the shard that was drawn has no room.
    pub fn begin(&mut self, request: IoRequest) -> Result<(), IoRequest> {
        let shard = self.random.below(self.shards.len() as u64) as usize;
        self.ports.turn_to(ShardId(shard as u16));
        self.places[shard].idle = false;
        self.shards[shard].begin(&mut self.ports, request)
    }

    /// Asks for the abort of a request, wherever it began.
    pub fn abort(&mut self, token: u64) {
        for (shard, subject) in (0..).zip(&mut self.shards) {
            self.ports.turn_to(ShardId(shard));
            subject.abort(&mut self.ports, token);
        }
        self.wake();
    }

    /// Takes a request that has ended.
    pub fn done(&mut self) -> Option<IoDone> {
        self.shards.iter_mut().find_map(S::done)
    }

    /// Gives an operator's command; whether it found room.
    ///
    /// # Panics
    /// If the subject takes none.
    pub fn command(&mut self, command: Command) -> bool {
        let message = S::command(command).expect("only subjects with volumes have an operator");
        self.places.iter_mut().for_each(|place| place.idle = false);
        self.ports.control_post(ShardId(0), message).is_ok()
    }

    /// Takes the answer to a command.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// What volumes there are; none where they never change.
    pub fn tables(&self) -> Option<Arc<VolumeTables>> {
        S::tables(&self.shards)
    }

    /// How the array is; none where nobody looks after its drives.
    pub fn health(&self) -> Option<Health> {
        S::health(&self.shards)
    }

    /// Asks for something to be done about drives.
    pub fn ask(&mut self, scenario: &Scenario, ticket: u64, order: Order, uuid: Uuid) {
        S::ask(&mut self.ports, scenario, ticket, order, uuid);
        self.wake();
    }

    /// Buffers that devices still worked on when the shards ended that had given them.
    pub fn left_at_devices(&self) -> usize {
        self.left_at_devices
    }

    /// How many members were rebuilt since this was last asked.
    pub fn rebuilt(&mut self) -> u64 {
        core::mem::take(&mut self.rebuilt)
    }

    /// Tells every shard that a host's association has ended.
    pub fn raise(&mut self, association: Association) {
        S::raise(&mut self.ports, self.shards.len() as u16, association);
        self.wake();
    }

    /// Takes a shard's word that nothing of an ended association is under way at it.
    pub fn raised(&mut self) -> Option<(ShardId, Association)> {
        self.raised.pop_front()
    }

    /// Its shards.
    #[cfg(test)]
    pub(crate) fn shards(&self) -> &[S] {
        &self.shards
    }

    /// Asks for a clean stop.
    pub fn stop(&mut self) {
        S::stop(&mut self.shards, &mut self.ports);
        self.places.iter_mut().for_each(|place| place.idle = false);
    }

    /// Takes a step.
    pub fn step(&mut self) -> Step {
        let busy = self.places.iter().filter(|place| !place.idle && !place.ended).count() as u64;
        if self.places.iter().all(|place| place.ended) {
            return Step::Ended;
        }
        if busy == 0 || self.random.once_in(TIME_ONCE_IN) {
            if self.move_time(busy > 0) {
                return Step::Moved;
            }
            if busy == 0 {
                return Step::Still;
            }
        }
        let drawn = self.random.below(busy) as usize;
        let mut turnable = (0..self.places.len()).filter(|&at| !self.places[at].idle && !self.places[at].ended);
        let shard = turnable.nth(drawn).expect("one of those just counted");
        self.ports.turn_to(ShardId(shard as u16));
        let turn = self.shards[shard].turn(&mut self.ports);
        if !self.rack.borrow().powered() {
            return Step::Cut;
        }
        if turn.ended {
            self.left_at_devices += self.rack.borrow().buffers_in_flight(ShardId(shard as u16));
        }
        self.places[shard] = Place { idle: !turn.worked, ended: turn.ended, deadline: turn.deadline };
        if turn.worked {
            // It may have sent a message that arrives at once.
            self.wake();
        }
        while let Some((from, message)) = self.ports.control_message() {
            self.raised.extend(S::raised(&message).map(|association| (from, association)));
            self.rebuilt += u64::from(S::tells_of_rebuild(&message));
            self.answers.extend(S::answer(message));
        }
        Step::Moved
    }

    // Moves time to what is due next, if anything is, and lets every shard look. Somebody who is busy may be held up, but not
    // for as long as others wait for devices.
    fn move_time(&mut self, busy: bool) -> bool {
        let deadlines = self.places.iter().filter(|place| !place.ended).map(|place| place.deadline);
        let deadlines = deadlines.filter(|&deadline| deadline != Time::NEVER);
        let Some(next) = deadlines.chain(self.ports.next_due()).min() else { return false };
        let now = self.ports.now();
        let next = if busy { next.min(now + LONGEST_PAUSE) } else { next };
        self.ports.advance(if next > now { next } else { now + TICK });
        self.wake();
        true
    }

    fn wake(&mut self) {
        self.places.iter_mut().for_each(|place| place.idle = false);
    }
}

/// All devices of a rack for start-up code, lost ones too.
pub fn boot_devices(rack: &Rc<RefCell<Rack>>) -> Vec<Option<BootDevice>> {
    let count = rack.borrow().devices();
    (0..count).map(|index| Some(BootDevice::new(Rc::clone(rack), DeviceId(index as u16)))).collect()
}
