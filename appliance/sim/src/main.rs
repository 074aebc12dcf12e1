//! The simulator at the command line: runs seeds and sweeps until one fails, and says how to repeat it.
// A run itself knows no clock; only the choice of fresh seeds and the end of a longer session need the real one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod workers;

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raid::Level;
use sim::kept::{Kept, kept};
use sim::production::Production;
use sim::random::scramble;
use sim::sweep::{Cut, SweepOptions, cases, repeat, sweep_case};
use sim::world::mangle::{Met, mangle_seed};
use sim::world::run_seed_at;
use sim::world::scrubbing::{Scrubbed, scrub_seed};
use sim::world::snapshot::snapshot;

/// Requests of the script of a sweep, unless said otherwise.
const SCRIPT_REQUESTS: u64 = 14;

const USAGE: &str = "\
usage: sim SEED                          run one seed, saying each event aloud with --aloud
       sim run [--seed N] [--count N | --seconds S] [--step N] [--level L]
                                         run N seeds, or as many as S seconds hold, from N on or from fresh ones,
                                         each or every so many-th; with --level all of them at RAID-L
       sim sweep [--case N] [--requests N] [--stride N] [--second-every N]
                                         cut a short script at each of its effects, in all cases or one
       sim sweep --case N --cut N [--then N] [--aloud]
                                         repeat one cut
       sim mangle [--seed N] [--count N | --seconds S]
                                         damage what arrays keep about themselves, then start them
       sim scrub [--seed N] [--count N | --seconds S]
                                         spoil what members hold, then scrub them
       sim image --case N [--cut N]      print an image of an array, for the golden ones
       sim seeds                         run all seeds that once failed";

thread_local! {
    // What is being run, for who has to repeat it after a panic.
    static NOW: RefCell<String> = const { RefCell::new(String::new()) };
}

fn now_running(command: String) {
    NOW.with(|now| *now.borrow_mut() = command);
}

fn say_how_to_repeat() {
    NOW.with(|now| eprintln!("to repeat: cargo run --release -p sim -- {}", now.borrow()));
}

struct Arguments(Vec<String>);

impl Arguments {
    fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else { return Ok(None) };
        self.0.remove(at);
        if at >= self.0.len() {
            return Err(format!("{name} needs a number"));
        }
        let value = self.0.remove(at);
        value.parse().map(Some).map_err(|_| format!("{name} needs a number, not {value:?}"))
    }

    fn level(&mut self) -> Result<Option<Level>, String> {
        let Some(code) = self.number("--level")? else { return Ok(None) };
        let level = u8::try_from(code).ok().and_then(Level::from_code);
        level.map(Some).ok_or_else(|| format!("there is no RAID-{code}"))
    }

    fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|argument| argument == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    fn end(self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |extra| Err(format!("{extra:?} is not understood\n{USAGE}")))
    }
}

fn main() -> ExitCode {
    let said = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        said(panic);
        say_how_to_repeat();
    }));
    match command(Arguments(std::env::args().skip(1).collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn command(mut arguments: Arguments) -> Result<(), String> {
    if arguments.0.is_empty() {
        return Err(USAGE.into());
    }
    let aloud = arguments.flag("--aloud");
    let word = arguments.0.remove(0);
    match word.as_str() {
        "run" | "mangle" | "scrub" => {
            let first = arguments.number("--seed")?;
            let (count, seconds) = (arguments.number("--count")?, arguments.number("--seconds")?);
            let step = arguments.number("--step")?.unwrap_or(1);
            let level = if word == "run" { arguments.level()? } else { None };
            arguments.end()?;
            let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
            let first = first.unwrap_or_else(|| scramble(fresh) >> 24);
            let course = Course { end: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)), aloud };
            let count = count.unwrap_or(if course.end.is_some() { u64::MAX } else { 1 });
            let seeds = (0..count).map(|number| first.wrapping_add(number.wrapping_mul(step)));
            match word.as_str() {
                "mangle" => mangle_seeds(seeds, course),
                "scrub" => scrub_seeds(seeds, course),
                _ => run_seeds(seeds.map(|seed| (seed, level)), course),
            }
        }
        "sweep" => {
            let case = arguments.number("--case")?;
            let (first, second) = (arguments.number("--cut")?, arguments.number("--then")?);
            let requests = arguments.number("--requests")?.unwrap_or(SCRIPT_REQUESTS);
            let stride = arguments.number("--stride")?.unwrap_or(1).max(1);
            let second_every = arguments.number("--second-every")?.unwrap_or(2);
            arguments.end()?;
            let all = 0..cases().len();
            let case = case.map(|case| case as usize);
            if case.is_some_and(|case| !all.contains(&case)) {
                return Err(format!("there are cases 0 to {}", all.end - 1));
            }
            if let (Some(case), Some(first)) = (case, first) {
                let cut = Cut { case, first, second: second.unwrap_or(0) };
                begin(cut, requests);
                return repeat::<Production>(cut, requests, aloud).map_err(broken);
            }
            let chosen = case.map_or(all, |case| case..case + 1);
            sweep(chosen, SweepOptions { requests, stride, second_every }, Course { end: None, aloud })
        }
        "image" => {
            let case = arguments.number("--case")?.unwrap_or(0) as usize;
            let cut = arguments.number("--cut")?;
            arguments.end()?;
            let how = cut.map_or("a clean stop".to_owned(), |cut| format!("a power cut at effect {cut}"));
            let image = snapshot::<Production>(case, cut).map_err(broken)?;
            print!("{}", image.to_text(&format!("case {case} ({}), {how}", cases()[case])));
            Ok(())
        }
        "seeds" => {
            arguments.end()?;
            let runs =
                kept().filter_map(|run| if let Kept::Run(seed, level) = run { Some((seed, level)) } else { None });
            let mangled = kept().filter_map(|run| if let Kept::Mangle(seed) = run { Some(seed) } else { None });
            let scrubbed = kept().filter_map(|run| if let Kept::Scrub(seed) = run { Some(seed) } else { None });
            let course = Course { end: None, aloud };
            run_seeds(runs, course)?;
            mangle_seeds(mangled, course)?;
            scrub_seeds(scrubbed, course)
        }
        seed => match seed.parse() {
            Ok(seed) => run_seeds(std::iter::once((seed, None)), Course { end: None, aloud }),
            Err(_) => Err(USAGE.into()),
        },
    }
}

/// How a kind of runs is gone through.
#[derive(Clone, Copy)]
struct Course {
    /// No run begins after this.
    end: Option<Instant>,
    aloud: bool,
}

impl Course {
    /// What is to be run, side by side unless it speaks.
    fn each<I: Iterator + Send, T: Send>(
        self,
        items: I,
        run: impl Fn(I::Item) -> Result<T, String> + Sync,
        take: impl FnMut(T),
    ) -> Result<(), String> {
        let items = items.take_while(|_| self.end.is_none_or(|end| Instant::now() < end));
        workers::each(items, workers::count(self.aloud), run, take)
    }
}

fn run_seeds(seeds: impl Iterator<Item = (u64, Option<Level>)> + Send, course: Course) -> Result<(), String> {
    let started = Instant::now();
    let (mut runs, mut events, mut cuts) = (0u64, 0u64, 0u64);
    let (mut kills, mut aborted, mut probes, mut rebuilds) = (0u64, 0u64, 0u64, 0u64);
    let run = |(seed, level): (u64, Option<Level>)| {
        let at = level.map_or_else(String::new, |level| format!(" --level {}", level.code()));
        now_running(format!("run --seed {seed}{at}"));
        run_seed_at::<Production>(seed, level, course.aloud)
            .map_err(|failure| broken(format!("seed {seed}: {failure}")))
    };
    course.each(seeds, run, |report| {
        runs += 1;
        events += report.events;
        cuts += report.cuts;
        kills += report.kills;
        aborted += report.aborted;
        probes += report.probes;
        rebuilds += report.rebuilds;
    })?;
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!(
        "{runs} seeds passed: {events} events ({:.0} a minute), {cuts} power cuts, {kills} hosts killed, {aborted} requests aborted, {probes} losses tried, {rebuilds} rebuilds",
        events as f64 / minutes.max(1e-9)
    );
    Ok(())
}

fn mangle_seeds(seeds: impl Iterator<Item = u64> + Send, course: Course) -> Result<(), String> {
    let (mut served, mut refused) = (0u64, 0u64);
    let run = |seed| {
        now_running(format!("mangle --seed {seed}"));
        mangle_seed::<Production>(seed, course.aloud).map_err(|failure| broken(format!("seed {seed}: {failure}")))
    };
    course.each(seeds, run, |met| match met {
        Met::Served => served += 1,
        Met::Refused => refused += 1,
    })?;
    println!("{} damaged arrays: {served} served, {refused} refused", served + refused);
    Ok(())
}

fn scrub_seeds(seeds: impl Iterator<Item = u64> + Send, course: Course) -> Result<(), String> {
    let (mut runs, mut sums) = (0u64, Scrubbed::default());
    let run = |seed| {
        now_running(format!("scrub --seed {seed}"));
        scrub_seed::<Production>(seed, course.aloud).map_err(|failure| broken(format!("seed {seed}: {failure}")))
    };
    course.each(seeds, run, |scrubbed| {
        sums.add(&scrubbed);
        runs += 1;
    })?;
    let Scrubbed { located, unlocated, unreadable, repaired, cuts } = sums;
    println!(
        "{runs} spoiled arrays: {located} blocks located, {unlocated} stripes not, {unreadable} blocks unreadable, {repaired} \
         repaired, {cuts} power cuts"
    );
    Ok(())
}

fn sweep(chosen: std::ops::Range<usize>, options: SweepOptions, course: Course) -> Result<(), String> {
    let started = Instant::now();
    let mut total = 0;
    let run = |case| {
        let runs = sweep_case::<Production>(case, options, |cut| begin(cut, options.requests));
        runs.map(|runs| (case, runs)).map_err(|(cut, failure)| {
            broken(format!("case {} cut at {} and {}: {failure}", cut.case, cut.first, cut.second))
        })
    };
    // The last ones take longest.
    course.each(chosen.rev(), run, |(case, runs)| {
        println!("case {case:>2} ({}): {runs} runs", cases()[case]);
        total += runs;
    })?;
    println!("{total} runs passed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn begin(cut: Cut, requests: u64) {
    let Cut { case, first, second } = cut;
    now_running(format!("sweep --requests {requests} --case {case} --cut {first} --then {second}"));
}

fn broken(failure: impl std::fmt::Display) -> String {
    say_how_to_repeat();
    format!("FAILED: {failure}")
}
