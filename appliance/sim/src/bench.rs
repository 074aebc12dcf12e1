//! An appliance that is led step by step, for what lies beyond the promise of random runs or is too rare in them.

use std::cell::RefCell;
use std::rc::Rc;

use base::ids::{DeviceId, Lba, VolumeId};
use base::sector::Margins;
use engine::command::Refusal;
use engine::fence::Association;
use engine::io::{IoDone, IoError, IoKind, IoRequest};
use ports::{BufferList, Buffers};

use crate::machine::{Machine, Started, Step, boot_devices};
use crate::operator::Order;
use crate::production::Production;
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::{Subject, draw_uuid};
use crate::trace::Trace;

/// Steps within which a request ends.
pub(crate) const SOON: u32 = 100_000;

/// An appliance with one log copy that keeps what is dirty in it.
pub(crate) struct Bench {
    pub(crate) scenario: Scenario,
    pub(crate) rack: Rc<RefCell<Rack>>,
    machine: Option<Machine<Production>>,
    random: Random,
}

impl Bench {
    /// One whose drives do nothing but what a test has them do, started.
    pub(crate) fn started(mut scenario: Scenario) -> Self {
        scenario.faults.clear();
        scenario.degraded.clear();
        let mut bench = Self::new(scenario);
        bench.start().expect("it starts");
        bench
    }

    pub(crate) fn new(scenario: Scenario) -> Self {
        let rack = Rc::new(RefCell::new(Rack::new(scenario.seed, &scenario.devices(), Trace::default())));
        let mut random = Random::named(scenario.seed, "bench");
        Production::create(&scenario, &mut boot_devices(&rack), &mut random).expect("an array");
        Self { scenario, rack, machine: None, random }
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        match Machine::boot(&self.scenario, &self.rack, &mut self.random)? {
            Started::Up(machine) => self.machine = Some(machine),
            Started::Cut | Started::DeviceLost => unreachable!("nothing is planned"),
        }
        Ok(())
    }

    pub(crate) fn machine(&mut self) -> &mut Machine<Production> {
        self.machine.as_mut().expect("it was started")
    }

    /// Begins a write of one block, if there is room.
    pub(crate) fn begin_write(&mut self, lba: u64, byte: u8) -> bool {
        let machine = self.machine();
        let mut buffers = BufferList::EMPTY;
        let buffer = machine.ports.pool.alloc().expect("a buffer");
        machine.ports.pool.bytes_mut(buffer.id()).fill(byte);
        buffers.push(&mut machine.ports.pool, buffer);
        let (association, margins) = (Association::NONE, Margins::NONE);
        let (volume, kind, lba) = (VolumeId(0), IoKind::Write, Lba(lba));
        let request = IoRequest { token: 1, association, volume, kind, lba, blocks: 1, margins, buffers };
        machine.begin(request).is_ok()
    }

    /// Carries out one request of one block; of a read the first byte.
    pub(crate) fn ask(&mut self, kind: IoKind, lba: u64, byte: u8) -> Result<u8, IoError> {
        self.ask_blocks(kind, lba, u32::from(kind != IoKind::Flush), byte)
    }

    /// The same of several blocks.
    pub(crate) fn ask_blocks(&mut self, kind: IoKind, lba: u64, blocks: u32, byte: u8) -> Result<u8, IoError> {
        self.begin(kind, lba, blocks, byte);
        let answer = self.await_answer().expect("the power stays");
        self.ended(answer, byte)
    }

    /// The same of one block; none if the power fails before the answer.
    pub(crate) fn try_ask(&mut self, kind: IoKind, lba: u64, byte: u8) -> Option<Result<u8, IoError>> {
        self.begin(kind, lba, 1, byte);
        let answer = self.await_answer()?;
        Some(self.ended(answer, byte))
    }

    /// The same; none if it does not end soon.
    pub(crate) fn ask_for_a_while(&mut self, kind: IoKind, lba: u64, byte: u8) -> Option<Result<u8, IoError>> {
        self.begin(kind, lba, 1, byte);
        for _ in 0..SOON / 10 {
            if let Some(answer) = self.machine().done() {
                return Some(self.ended(answer, byte));
            }
            self.machine().step();
        }
        None
    }

    fn begin(&mut self, kind: IoKind, lba: u64, blocks: u32, byte: u8) {
        self.begin_as(1, kind, lba, blocks, byte);
    }

    /// Begins a read of one block beside what is asked; its token.
    pub(crate) fn begin_read(&mut self, lba: u64) -> u64 {
        const TOKEN: u64 = 2;
        self.begin_as(TOKEN, IoKind::Read, lba, 1, 0);
        TOKEN
    }

    fn begin_as(&mut self, token: u64, kind: IoKind, lba: u64, blocks: u32, byte: u8) {
        let machine = self.machine();
        let mut buffers = BufferList::EMPTY;
        for _ in 0..if matches!(kind, IoKind::Read | IoKind::Write) { blocks } else { 0 } {
            let buffer = machine.ports.pool.alloc().expect("a buffer");
            machine.ports.pool.bytes_mut(buffer.id()).fill(byte);
            buffers.push(&mut machine.ports.pool, buffer);
        }
        let (association, margins) = (Association::NONE, Margins::NONE);
        let (volume, lba) = (VolumeId(0), Lba(lba));
        let request = IoRequest { token, association, volume, kind, lba, blocks, margins, buffers };
        machine.begin(request).expect("there is room");
    }

    pub(crate) fn ended(&mut self, IoDone { result, buffers, .. }: IoDone, byte: u8) -> Result<u8, IoError> {
        let pool = &mut self.machine().ports.pool;
        let found = buffers.first().map_or(byte, |first| pool.bytes(first)[0]);
        buffers.free(pool);
        result.map(|()| found)
    }

    pub(crate) fn await_answer(&mut self) -> Option<IoDone> {
        for _ in 0..SOON {
            if let Some(done) = self.machine().done() {
                return Some(done);
            }
            if self.machine().step() == Step::Cut {
                return None;
            }
        }
        panic!("a request does not end");
    }

    /// The power fails and comes back; meanwhile these members are lost.
    pub(crate) fn power_cycle(&mut self, lost: &[u16]) {
        self.machine = None;
        let rack = &mut *self.rack.borrow_mut();
        rack.cut_power();
        lost.iter().for_each(|&device| rack.lose(DeviceId(device), false));
        rack.restore_power();
    }

    /// Lets it work until nothing is left to be resynced.
    pub(crate) fn resync(&mut self) {
        for _ in 0..SOON {
            if !self.machine().health().expect("production knows").resyncing {
                return;
            }
            self.machine().step();
        }
        panic!("the resync does not end");
    }

    /// Asks for something.
    pub(crate) fn command(&mut self, order: Order) {
        let uuid = draw_uuid(&mut Random::named(self.scenario.seed, &format!("{order:?}")));
        let scenario = self.scenario.clone();
        self.machine().ask(&scenario, 7, order, uuid);
    }

    /// The answer to the command, with a write of this byte to each of some blocks again and again meanwhile.
    pub(crate) fn answer_while_writing(&mut self, byte: u8) -> Result<(), Refusal> {
        for turn in 0..u64::from(SOON) {
            if let Some(answer) = self.machine().answer() {
                return answer.result;
            }
            assert_eq!(self.ask(IoKind::Write, turn % 40, byte), Ok(byte));
        }
        panic!("a command does not end");
    }

    /// The answer to a command.
    pub(crate) fn answer(&mut self) -> Result<(), Refusal> {
        for _ in 0..SOON {
            if let Some(answer) = self.machine().answer() {
                return answer.result;
            }
            self.machine().step();
        }
        panic!("a command does not end");
    }
}
