//! The exhaustive sweep: a short script is run once to count its effects, then once for each effect with the power cut
//! there; and again with a second cut in the recovery that follows. All this for each case: healthy, degraded, a member or a
//! log copy lost in that very crash; one or two log copies; write-back and write-through; with and without volatile caches. On
//! levels that bear more, also with two members lost in every order.

use core::fmt;

use base::ids::{DeviceId, Lba};
use base::sector::LogicalBlock;
use base::time::Span;
use engine::array::Residency;
use engine::coordinator::{RoundSettings, ScrubSettings};
use engine::map::OnLogLoss;
use raid::Level;

use crate::failure::Failure;
use crate::fault::{Fault, PlannedFault};
use crate::log_keeper::Keeping;
use crate::random::Random;
use crate::scenario::{Exposure, SLOW_ONCE_IN, Scenario, Window, WorkloadOptions, ZONE_STRIPES};
use crate::subject::Subject;
use crate::world::World;

/// Effects after the first cut within which the second falls: longer than a recovery of a short script.
const SECOND_CUT_WITHIN: u64 = 60;

/// What else is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    Healthy,
    /// A member is missing from the beginning.
    Degraded,
    /// A member is lost in the crash and never returns.
    MemberLostInCrash,
    /// Two members are missing from the beginning.
    TwiceDegraded,
    /// A member is missing from the beginning, and another is lost in the crash.
    DegradedAndLostInCrash,
    /// Two members are lost in the crash.
    TwoLostInCrash,
    /// A log copy is lost in the crash and never returns.
    CopyLostInCrash,
    /// A member is missing from the beginning, and a drive takes its place.
    Rebuilding,
    /// A drive becomes the like of a member that is in use, and takes its place.
    Succeeding,
    /// The array gets a further member.
    Growing,
    /// The log has one copy, and a device becomes another.
    Attaching,
    /// All copies of the log are lost half way, and the array goes on without; with the next power-on they are back.
    LogLost,
    /// A device becomes the first copy of a log, of an array that has none or lost it.
    FirstCopy,
}

/// What the script runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How the array arranges redundancy.
    pub level: Level,
    /// What else is wrong.
    pub damage: Damage,
    /// Copies of the log.
    pub log_copies: u8,
    /// Whether writes are acknowledged only from the members.
    pub write_through: bool,
    /// Whether devices lose what was not flushed.
    pub volatile_cache: bool,
    /// Whether checksums of all blocks are kept.
    pub checksums: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let damage = match self.damage {
            Damage::Healthy => "healthy",
            Damage::Degraded => "degraded",
            Damage::MemberLostInCrash => "a member lost in the crash",
            Damage::TwiceDegraded => "twice degraded",
            Damage::DegradedAndLostInCrash => "degraded and a member lost in the crash",
            Damage::TwoLostInCrash => "two members lost in the crash",
            Damage::CopyLostInCrash => "a log copy lost in the crash",
            Damage::Rebuilding => "a member being rebuilt",
            Damage::Succeeding => "a member being succeeded",
            Damage::Growing => "a further member",
            Damage::Attaching => "a device becoming a log copy",
            Damage::LogLost => "the log lost",
            Damage::FirstCopy => "a log that comes",
        };
        let mode = if self.write_through { "write-through" } else { "write-back" };
        let cache = if self.volatile_cache { "volatile caches" } else { "no caches" };
        let checksums = if self.checksums { ", checksums" } else { "" };
        write!(f, "{}, {damage}, log copies: {}, {mode}, {cache}{checksums}", self.level, self.log_copies)
    }
}

/// All cases, in an order that stays: the place of one is its number.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let all =
        [Damage::Healthy, Damage::Degraded, Damage::MemberLostInCrash, Damage::CopyLostInCrash, Damage::Rebuilding];
    for damage in all {
        for log_copies in [1, 2] {
            if damage == Damage::CopyLostInCrash && log_copies == 1 {
                continue;
            }
            for write_through in [false, true] {
                for volatile_cache in [false, true] {
                    cases.push(Case {
                        level: Level::Raid5,
                        damage,
                        log_copies,
                        write_through,
                        volatile_cache,
                        checksums: false,
                    });
                }
            }
        }
    }
    let once = [Damage::Healthy, Damage::Degraded, Damage::MemberLostInCrash, Damage::DegradedAndLostInCrash];
    let twice = [Damage::TwiceDegraded, Damage::TwoLostInCrash];
    let six = once.iter().chain(&twice).map(|&damage| (Level::Raid6, damage));
    for (level, damage) in six.chain(once.iter().map(|&damage| (Level::Raid10, damage))) {
        for write_through in [false, true] {
            cases.push(Case { level, damage, log_copies: 1, write_through, volatile_cache: true, checksums: false });
        }
    }
    for (write_through, volatile_cache) in [(false, false), (false, true), (true, false), (true, true)] {
        let damage = Damage::Attaching;
        cases.push(Case {
            level: Level::Raid5,
            damage,
            log_copies: 1,
            write_through,
            volatile_cache,
            checksums: false,
        });
    }
    // Without a log, whose promise does not go further.
    for level in [Level::Raid5, Level::Raid6, Level::Raid10] {
        for volatile_cache in [false, true] {
            let (damage, log_copies, write_through) = (Damage::Healthy, 0, true);
            cases.push(Case { level, damage, log_copies, write_through, volatile_cache, checksums: false });
        }
    }
    let kept = [
        (Level::Raid10, Damage::Degraded),
        (Level::Raid5, Damage::Healthy),
        (Level::Raid5, Damage::MemberLostInCrash),
        (Level::Raid5, Damage::Rebuilding),
        (Level::Raid6, Damage::DegradedAndLostInCrash),
    ];
    for (write_through, (level, damage)) in (0u8..).map(|at| at % 2 == 0).zip(kept) {
        cases.push(Case { level, damage, log_copies: 1, write_through, volatile_cache: true, checksums: true });
    }
    for (level, log_copies) in [(Level::Raid5, 1), (Level::Raid5, 2), (Level::Raid6, 1), (Level::Raid10, 2)] {
        for write_through in [false, true] {
            let (damage, volatile_cache) = (Damage::LogLost, true);
            cases.push(Case { level, damage, log_copies, write_through, volatile_cache, checksums: false });
        }
    }
    let succeeded =
        [(Level::Raid5, 1, false), (Level::Raid5, 2, true), (Level::Raid10, 1, true), (Level::Raid6, 0, false)];
    for (write_through, (level, log_copies, checksums)) in (0u8..).map(|at| at % 2 == 1).zip(succeeded) {
        let (damage, volatile_cache) = (Damage::Succeeding, true);
        let write_through = write_through || log_copies == 0;
        cases.push(Case { level, damage, log_copies, write_through, volatile_cache, checksums });
    }
    for (level, log_copies) in [(Level::Raid5, 0), (Level::Raid10, 0), (Level::Raid5, 1)] {
        let (damage, write_through, volatile_cache) = (Damage::FirstCopy, log_copies == 0, true);
        cases.push(Case { level, damage, log_copies, write_through, volatile_cache, checksums: false });
    }
    for (level, log_copies, checksums) in [(Level::Raid5, 1, false), (Level::Raid5, 2, true), (Level::Raid6, 1, false)]
    {
        let (damage, write_through, volatile_cache) = (Damage::Growing, checksums, true);
        cases.push(Case { level, damage, log_copies, write_through, volatile_cache, checksums });
    }
    cases
}

/// Members of a case's array: on RAID-6 as many as it takes for a read-modify-write of both parities.
const fn members(case: Case) -> u8 {
    match case.level {
        Level::Raid6 => 6,
        Level::Raid10 => 4,
        _ => 3,
    }
}

/// A member that can be lost beside those that are: one of these, by number.
fn one_more(scenario: &Scenario, lost: &[DeviceId], number: u64) -> DeviceId {
    let geometry = scenario.geometry();
    let mask = lost.iter().fold(0, |mask, device| mask | 1 << device.0);
    let borne = |device: &DeviceId| !lost.contains(device) && geometry.bears(mask | 1 << device.0);
    let all: Vec<DeviceId> = scenario.member_devices().filter(borne).collect();
    all[(number % all.len() as u64) as usize]
}

/// The script of a case. Cases differ in number of shards and in whether zones are zeroed first.
pub fn script(number: usize, case: Case, requests: u64) -> Scenario {
    let seed = 0x5eed + number as u64;
    let shards = 1 + (number % 2) as u16;
    let (chunk_blocks, members) = (2, members(case));
    // All of it moves where the array grows.
    let zones = if case.damage == Damage::Growing { 1 } else { u64::from(shards) };
    let mut scenario = Scenario {
        seed,
        shards,
        level: case.level,
        members,
        log_copies: case.log_copies,
        chunk_blocks,
        zones,
        lanes: shards,
        // What moves at a time is in the log as a whole.
        lane_blocks: if case.damage == Damage::Growing { 2000 } else { 520 },
        write_through: case.write_through,
        // Half of the scripts are destaged while they run, half at their end.
        destage_age: if number.is_multiple_of(2) { Span::from_micros(100) } else { Span::from_secs(5) },
        full_stripe_delay: if number.is_multiple_of(4) { Span::from_millis(1) } else { Span::ZERO },
        high_watermark_percent: 50,
        memory_watermark_percent: 50,
        residency: match number % 4 {
            1 if case.log_copies > 1 => (Residency::Log, 0),
            _ => (Residency::Memory, 50),
        },
        log_rots: false,
        member_cache: case.volatile_cache,
        log_cache: case.volatile_cache,
        log_patience: Span::from_secs(10),
        drive_timeouts: (Span::from_secs(3), Span::from_secs(45)),
        hangs: false,
        succeeds: case.damage == Damage::Succeeding,
        grows: case.damage == Damage::Growing,
        on_log_loss: OnLogLoss::ReadOnly,
        exposure: None,
        checksums: case.checksums,
        members_are_zero: !number.is_multiple_of(3) && case.damage != Damage::Growing,
        spares: u8::from(matches!(case.damage, Damage::Rebuilding | Damage::Succeeding | Damage::Growing)),
        log_spares: u8::from(matches!(case.damage, Damage::Attaching | Damage::FirstCopy)),
        larger_log_spares: 0,
        log_keeping: match case.damage {
            Damage::Attaching => Some(Keeping::OneMore),
            Damage::FirstCopy => Some(Keeping::First),
            _ => None,
        },
        rebuild: RoundSettings { save_zones: 1, ..RoundSettings::default() },
        scrub: ScrubSettings::default(),
        scrubbed: false,
        repair_always: None,
        operated: false,
        heals: matches!(case.damage, Damage::Rebuilding | Damage::Succeeding | Damage::Growing | Damage::Attaching),
        degraded: Vec::new(),
        faults: Vec::new(),
        // On RAID-6 there are many pairs to lose: in write-back, where more is in the log, they are all tried.
        probe_losses: match case.damage {
            Damage::Growing => !case.checksums,
            _ => case.level != Level::Raid6 || !case.write_through,
        },
        cut_when_idle: false,
        workload: WorkloadOptions {
            windows: Vec::new(),
            requests,
            depth: 4,
            max_blocks: 6,
            weights: [1, 6, 1],
            atomic_blocks: chunk_blocks,
            row_blocks: 0,
            stray_once_in: 1,
            write_through: case.write_through,
            discards: None,
            compares_once_in: 0,
            aborts_once_in: 0,
            logical: LogicalBlock::Block,
        },
        carving: None,
        kills: None,
        queue_depth: 16,
        slow_members_once_in: SLOW_ONCE_IN,
        slow_log_once_in: SLOW_ONCE_IN,
        pool_blocks: 4096,
        hiccups_once_in: 0,
        max_read_errors: u32::MAX,
    };
    if case.damage == Damage::LogLost || case.damage == Damage::FirstCopy && case.log_copies > 0 {
        scenario.on_log_loss = OnLogLoss::WriteThroughExposed;
        // In one instant, and again if it comes back; in every second case one after the other.
        let lost = |answers: u64| (0..).zip(scenario.log_devices()).map(move |(at, copy)| (answers + at, copy));
        let half = requests / 2;
        let copies = lost(half).chain(lost(requests)).map(|(answers, copy)| (answers - answers % 2, copy)).collect();
        scenario.exposure = Some(Exposure { copies, member: None });
        // What the log alone had would be lost with all of it.
        scenario.residency = (Residency::Memory, 50);
    }
    if scenario.is_bare() || scenario.exposure.is_some() {
        (scenario.probe_losses, scenario.heals, scenario.workload.atomic_blocks) = (false, true, 1);
    }
    let columns = scenario.columns();
    // Across the border of the two zones, if there are two.
    let start = if zones == 1 { 0 } else { u64::from(columns) * ZONE_STRIPES - 16 };
    scenario.workload.windows = vec![Window { start: Lba(start), blocks: 32 }];
    scenario.workload.row_blocks = chunk_blocks * columns;
    let missing = match case.damage {
        Damage::Degraded | Damage::DegradedAndLostInCrash | Damage::Rebuilding => 1,
        Damage::TwiceDegraded => 2,
        Damage::Healthy
        | Damage::MemberLostInCrash
        | Damage::TwoLostInCrash
        | Damage::CopyLostInCrash
        | Damage::Succeeding
        | Damage::Growing
        | Damage::Attaching
        | Damage::LogLost
        | Damage::FirstCopy => 0,
    };
    for _ in 0..missing {
        let device = one_more(&scenario, &scenario.degraded, number as u64);
        scenario.degraded.push(device);
    }
    scenario
}

/// Which runs of a sweep to do.
#[derive(Clone, Copy, Debug)]
pub struct SweepOptions {
    /// Requests of the script.
    pub requests: u64,
    /// Cut at every so many-th effect: 1 is all of them.
    pub stride: u64,
    /// After every so many-th cut, also cut once in the recovery; 0 is never.
    pub second_every: u64,
}

/// A run of a sweep, with all that is needed to repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of the case.
    pub case: usize,
    /// The effect at which the power fails.
    pub first: u64,
    /// Effects after the first cut at which it fails again; 0 is never.
    pub second: u64,
}

/// Runs one case: `begin` is told of each run before it begins. Returns the number of runs.
///
/// # Errors
/// The run that failed, and how.
pub fn sweep_case<S: Subject>(
    number: usize,
    options: SweepOptions,
    mut begin: impl FnMut(Cut),
) -> Result<u64, (Cut, Failure)> {
    let case = cases()[number];
    let uncut = Cut { case: number, first: 0, second: 0 };
    let failed = |failure| (uncut, failure);
    begin(uncut);
    let world = World::create::<S>(script(number, case, options.requests), false).map_err(failed)?;
    let effects = world.with_faults(Vec::new()).run::<S>().map_err(failed)?.effects;
    let mut random = Random::named(number as u64, "second cuts");
    let mut runs = 1;
    // Most effects of a log that is laid out are alike.
    let stride = if case.damage == Damage::FirstCopy { 5 * options.stride } else { options.stride };
    for first in (1..=effects).step_by(stride as usize) {
        let draw = random.between(1, SECOND_CUT_WITHIN);
        let twice = options.second_every > 0 && (first / stride).is_multiple_of(options.second_every);
        for second in [Some(0), twice.then_some(draw)].into_iter().flatten() {
            let cut = Cut { case: number, first, second };
            begin(cut);
            run_cut::<S>(&world, cut).map_err(|failure| (cut, failure))?;
            runs += 1;
        }
    }
    Ok(runs)
}

/// Repeats one run of a sweep of scripts of so many requests.
///
/// # Errors
/// The broken promise.
pub fn repeat<S: Subject>(cut: Cut, requests: u64, aloud: bool) -> Result<(), Failure> {
    let world = World::create::<S>(script(cut.case, cases()[cut.case], requests), aloud)?;
    run_cut::<S>(&world, cut)
}

fn run_cut<S: Subject>(world: &World, cut: Cut) -> Result<(), Failure> {
    let mut faults = Vec::new();
    let mut plan = |effect, fault| faults.push(PlannedFault { effect, fault });
    // What is lost in the crash is lost first: after the cut nothing moves.
    let lose = |device| Fault::Lost { device, returns: false };
    let members = match cases()[cut.case].damage {
        Damage::Healthy
        | Damage::Degraded
        | Damage::TwiceDegraded
        | Damage::Rebuilding
        | Damage::Succeeding
        | Damage::Growing
        | Damage::Attaching
        | Damage::LogLost
        | Damage::FirstCopy => 0,
        Damage::MemberLostInCrash | Damage::DegradedAndLostInCrash => 1,
        Damage::TwoLostInCrash => 2,
        Damage::CopyLostInCrash => {
            plan(cut.first, lose(DeviceId(3 + (cut.first % 2) as u16)));
            0
        }
    };
    let mut lost = world.scenario().degraded.clone();
    for turn in 0..members {
        // Every pair has its turn, in both orders.
        let device = one_more(world.scenario(), &lost, cut.first >> (2 * turn));
        plan(cut.first, lose(device));
        lost.push(device);
    }
    if cut.first > 0 {
        plan(cut.first, Fault::PowerCut);
    }
    if cut.second > 0 {
        plan(cut.first + cut.second, Fault::PowerCut);
    }
    world.with_faults(faults).run::<S>().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::production::Production;
    use crate::toy::{self, NO_FLUSH, NOTHING, Toy};

    #[test]
    fn the_cases_cover_every_combination_once() {
        let cases = cases();
        assert_eq!(cases.len(), 36 + 12 + 8 + 4 + 6 + 5 + 8 + 4 + 3 + 3);
        for (index, case) in cases.iter().enumerate() {
            assert!(!cases[..index].contains(case));
        }
    }

    #[test]
    fn in_the_scripts_for_it_a_member_is_rebuilt_or_succeeded_or_one_more_comes() {
        for (number, case) in (0..).zip(cases()) {
            if matches!(case.damage, Damage::Rebuilding | Damage::Succeeding | Damage::Growing) && number % 3 == 0 {
                let world = World::create::<Production>(script(number, case, 8), false).expect("an array can be made");
                let report = world.run::<Production>().expect("without a cut all is well");
                assert!(report.rebuilds > 0, "case {number}, {case}: {}", report.rebuilds);
            }
        }
    }

    #[test]
    fn a_sweep_cuts_at_every_effect_and_finds_what_one_of_them_breaks() {
        fn cuts<const MISTAKE: u8>() -> (u64, u64) {
            let mut scenario = toy::scenario(1);
            scenario.faults.clear();
            scenario.cut_when_idle = false;
            scenario.workload.requests = 15;
            let world = World::create::<Toy<MISTAKE>>(scenario, false).expect("a store can be made");
            let effects =
                world.with_faults(Vec::new()).run::<Toy<MISTAKE>>().expect("without a cut all is well").effects;
            let cut = |first| run_cut::<Toy<MISTAKE>>(&world, Cut { case: 0, first, second: 1 });
            (effects, (1..=effects).filter(|&first| cut(first).is_err()).count() as u64)
        }
        let (effects, failures) = cuts::<NOTHING>();
        assert!(effects > 40);
        assert_eq!(failures, 0);
        assert!(cuts::<NO_FLUSH>().1 > 0);
    }
}
