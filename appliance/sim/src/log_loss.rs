//! What becomes of an array when the last copy of its log is lost, by the operator's policy, and of one without a log when a
//! crash and a loss come together. Random runs stay within what the array promises to survive, and this is beyond it; so it
//! is tried here, step by step.

use std::cell::RefCell;
use std::rc::Rc;

use base::ids::{DeviceId, Lba, VolumeId};
use base::sector::Margins;
use engine::fence::Association;
use engine::io::{IoDone, IoError, IoKind, IoRequest};
use engine::map::OnLogLoss;
use ports::{BufferList, Buffers};
use raid::Level;

use crate::machine::{Machine, Started, boot_devices};
use crate::production::Production;
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::subject::Subject;
use crate::trace::Trace;

/// Steps within which a request ends.
const SOON: u32 = 100_000;

/// An appliance with one log copy that keeps what is dirty in it.
pub(crate) struct Bench {
    pub(crate) scenario: Scenario,
    pub(crate) rack: Rc<RefCell<Rack>>,
    machine: Option<Machine<Production>>,
    random: Random,
}

impl Bench {
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

    /// Carries out one request of one block; of a read the first byte.
    pub(crate) fn ask(&mut self, kind: IoKind, lba: u64, byte: u8) -> Result<u8, IoError> {
        let machine = self.machine();
        let mut buffers = BufferList::EMPTY;
        if matches!(kind, IoKind::Read | IoKind::Write) {
            let buffer = machine.ports.pool.alloc().expect("a buffer");
            machine.ports.pool.bytes_mut(buffer.id()).fill(byte);
            buffers.push(&mut machine.ports.pool, buffer);
        }
        let blocks = u32::from(kind != IoKind::Flush);
        let (association, margins) = (Association::NONE, Margins::NONE);
        let (volume, lba) = (VolumeId(0), Lba(lba));
        let request = IoRequest { token: 1, association, volume, kind, lba, blocks, margins, buffers };
        machine.begin(request).expect("there is room");
        let IoDone { result, buffers, .. } = self.await_answer();
        let pool = &mut self.machine().ports.pool;
        let found = buffers.first().map_or(byte, |first| pool.bytes(first)[0]);
        buffers.free(pool);
        result.map(|()| found)
    }

    fn await_answer(&mut self) -> IoDone {
        for _ in 0..SOON {
            if let Some(done) = self.machine().done() {
                return done;
            }
            self.machine().step();
        }
        panic!("a request does not end");
    }
}

fn with_one_copy(policy: OnLogLoss) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(Level::Raid5));
    scenario.log_copies = 1;
    scenario.write_through = false;
    scenario.destage_age = base::time::Span::from_secs(3600);
    scenario.faults.clear();
    scenario.degraded.clear();
    scenario.on_log_loss = policy;
    let mut bench = Bench::new(scenario);
    bench.start().expect("it starts");
    bench
}

fn lose_the_log(bench: &mut Bench) {
    let copy = bench.scenario.log_devices().next().expect("there is one");
    bench.rack.borrow_mut().lose(copy, false);
}

#[test]
fn with_the_log_lost_reads_go_on_also_of_what_only_memory_holds_and_writes_are_refused() {
    let mut bench = with_one_copy(OnLogLoss::ReadOnly);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    lose_the_log(&mut bench);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x22), Err(IoError::ReadOnly), "the one that finds it out");
    assert_eq!(bench.ask(IoKind::Write, 4, 0x22), Err(IoError::ReadOnly));
    assert_eq!(bench.ask(IoKind::Read, 3, 0), Ok(0x11));
    assert_eq!(bench.ask(IoKind::Read, 4, 0), Ok(0));
}

#[test]
fn with_the_log_lost_nothing_is_served_where_the_operator_wants_it_so() {
    let mut bench = with_one_copy(OnLogLoss::Stop);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    lose_the_log(&mut bench);
    for kind in [IoKind::Write, IoKind::WriteZeroes, IoKind::Read] {
        assert_eq!(bench.ask(kind, 3, 0x22), Err(IoError::Stopped), "{kind:?}");
    }
}

fn without_log(level: Level) -> Bench {
    let mut scenario = Scenario::draw_at(2, Some(level));
    (scenario.log_copies, scenario.write_through, scenario.members_are_zero) = (0, true, true);
    scenario.faults.clear();
    scenario.degraded.clear();
    let mut bench = Bench::new(scenario);
    bench.start().expect("it starts");
    bench
}

impl Bench {
    /// The power fails and comes back; meanwhile these members are lost.
    pub(crate) fn power_cycle(&mut self, lost: &[u16]) {
        self.machine = None;
        let rack = &mut *self.rack.borrow_mut();
        rack.cut_power();
        lost.iter().for_each(|&device| rack.lose(DeviceId(device), false));
        rack.restore_power();
    }

    /// Lets it work until nothing is left to be resynced.
    fn resync(&mut self) {
        for _ in 0..SOON {
            if !self.machine().health().expect("production knows").resyncing {
                return;
            }
            self.machine().step();
        }
        panic!("the resync does not end");
    }
}

#[test]
fn without_a_log_a_loss_in_the_crash_is_refused_and_one_before_it_or_after_the_resync_is_borne() {
    for level in [Level::Raid5, Level::Raid6] {
        let mut bench = without_log(level);
        assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
        bench.power_cycle(&[1]);
        let refused = bench.start().unwrap_err();
        assert!(refused.contains("has no log") && refused.contains("[1]"), "{refused}");
    }
    let mut bench = without_log(Level::Raid5);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    bench.power_cycle(&[]);
    bench.start().expect("all are there");
    bench.resync();
    bench.rack.borrow_mut().lose(DeviceId(0), false);
    assert_eq!(bench.ask(IoKind::Write, 4, 0x22), Ok(0x22));
    assert_eq!((bench.ask(IoKind::Read, 3, 0), bench.ask(IoKind::Read, 4, 0)), (Ok(0x11), Ok(0x22)));
}

#[test]
fn mirrors_without_a_log_bear_a_crash_while_one_is_missing() {
    let mut bench = without_log(Level::Raid10);
    assert_eq!(bench.ask(IoKind::Write, 3, 0x11), Ok(0x11));
    bench.rack.borrow_mut().lose(DeviceId(1), false);
    // Whoever notices has it excluded; then a crash is no news to anybody.
    for lba in 0..64 {
        assert_eq!(bench.ask(IoKind::Write, lba, 0x22), Ok(0x22));
    }
    bench.power_cycle(&[]);
    bench.start().expect("what is left is what counts");
    assert!((0..64).all(|lba| bench.ask(IoKind::Read, lba, 0) == Ok(0x22)));
    bench.resync();
}
