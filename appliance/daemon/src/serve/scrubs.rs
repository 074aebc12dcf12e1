//! Scrubs that somebody asks for, and those that begin by schedule. The clock is read here and nowhere deeper.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base::ids::ArrayId;
use config::Config;
use config::schedule::{Days, Schedule};
use engine::command::{ScrubVerb, Verb};
use serde::Deserialize;
use serde_json::{Value, json};

use super::drives::array_of;
use super::methods::take;
use super::report::Reporter;
use crate::events::{Severity, Told, clock};

const SECONDS_A_DAY: u64 = 86_400;
const SECONDS_A_MINUTE: u64 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    array: String,
    repair: Option<config::Repair>,
    rate: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfScrub {
    array: String,
}

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    let verb = match method {
        "array.scrub.start" => return Some(start(reporter, params)),
        "array.scrub.pause" => ScrubVerb::Pause,
        "array.scrub.resume" => ScrubVerb::Resume,
        "array.scrub.stop" => ScrubVerb::Stop,
        _ => return None,
    };
    Some(take(params).and_then(|OfScrub { array }| ask(reporter, &array, verb)))
}

fn start(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let Start { array, repair, rate } = take(params)?;
    if rate == Some(0) {
        return Err("a rate of nothing never ends".to_owned());
    }
    ask(reporter, &array, ScrubVerb::Start { repair: repair.map(super::arrays::repair), rate, at: now() })
}

fn ask(reporter: &Reporter, array: &str, verb: ScrubVerb) -> Result<Value, String> {
    let at = array_of(reporter, array)?;
    let verb = Verb::Scrub { array: ArrayId(at as u16), verb };
    reporter.shards.command(verb).map_err(|error| format!("array {array}: {error}"))?;
    Ok(json!({ "array": array }))
}

/// Seconds since 1970. A clock that is not set shows 1970 at least.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The schedules of all arrays.
pub(super) struct Schedules {
    schedules: BTreeMap<String, Schedule>,
    /// What was due before that was due before this process was there.
    since: u64,
    /// The minute at which it was last looked.
    looked: u64,
}

impl Schedules {
    pub(super) fn new(config: &Config) -> Self {
        let scheduled = config.arrays.iter().filter_map(|array| Some((array.name.to_string(), array.scrub.schedule?)));
        let since = now();
        Self { schedules: scheduled.collect(), since, looked: since / SECONDS_A_MINUTE }
    }

    /// Once a minute: begins what is due.
    pub(super) fn look(&mut self, reporter: &Reporter) {
        let now = now();
        if self.schedules.is_empty() || now / SECONDS_A_MINUTE == self.looked {
            return;
        }
        self.looked = now / SECONDS_A_MINUTE;
        for array in reporter.status().arrays {
            let Some(&schedule) = self.schedules.get(&array.name) else { continue };
            let is_under_way =
                array.scrub.as_ref().is_some_and(|scrub| !["ended", "stopped"].contains(&scrub.state.as_str()));
            let last = array.scrub.as_ref().map_or(self.since, |scrub| scrub.began);
            if is_under_way || !is_due(schedule, last, now) {
                continue;
            }
            let begun = ask(reporter, &array.name, ScrubVerb::Start { repair: None, rate: None, at: now });
            if let Err(error) = begun {
                let text = format!("the scrub that is due ({schedule}) cannot begin: {error}");
                reporter
                    .events
                    .tell(Told::new("scrub.not_begun", Severity::Warning, text).of_array(&array.name).rationed());
            }
        }
    }
}

/// Whether a moment of a schedule lies behind the last time, and not behind now.
fn is_due(schedule: Schedule, last: u64, now: u64) -> bool {
    latest(schedule, now).is_some_and(|latest| latest > last)
}

/// The latest moment of a schedule up to now, in seconds since 1970.
fn latest(schedule: Schedule, now: u64) -> Option<u64> {
    let of_day = u64::from(schedule.minute) * SECONDS_A_MINUTE;
    let today = now / SECONDS_A_DAY;
    let mut days = (0..=31).filter_map(|back| today.checked_sub(back));
    days.find(|&day| {
        let is_meant = match schedule.days {
            Days::Daily => true,
            // 1 January 1970 was a Thursday.
            Days::Weekly(weekday) => (day + 3) % 7 == u64::from(weekday),
            Days::Monthly(of_month) => clock::date(day).2 == u64::from(of_month),
        };
        is_meant && day * SECONDS_A_DAY + of_day <= now
    })
    .map(|day| day * SECONDS_A_DAY + of_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Friday, 27 November 2026, 13:10:00.
    const NOW: u64 = 1_795_785_000;

    fn at(days: Days, minute: u16) -> Option<String> {
        let time = latest(Schedule { days, minute }, NOW)?;
        Some(clock::text(UNIX_EPOCH + std::time::Duration::from_secs(time))[..16].to_owned())
    }

    #[test]
    fn the_latest_moment_is_today_or_the_last_such_day() {
        for (days, minute, expected) in [
            (Days::Daily, 13 * 60 + 10, "2026-11-27T13:10"),
            (Days::Daily, 13 * 60 + 11, "2026-11-26T13:11"),
            (Days::Weekly(6), 120, "2026-11-22T02:00"),
            (Days::Weekly(4), 120, "2026-11-27T02:00"),
            (Days::Weekly(4), 1439, "2026-11-20T23:59"),
            (Days::Monthly(1), 0, "2026-11-01T00:00"),
            (Days::Monthly(28), 0, "2026-10-28T00:00"),
            (Days::Monthly(27), 800, "2026-10-27T13:20"),
        ] {
            assert_eq!(at(days, minute).as_deref(), Some(expected), "{days:?} {minute}");
        }
        assert_eq!(latest(Schedule { days: Days::Weekly(0), minute: 0 }, 5), None, "nothing was before 1970");
    }

    #[test]
    fn what_was_missed_is_made_up_for_and_what_was_begun_is_not_begun_again() {
        let weekly = Schedule { days: Days::Weekly(6), minute: 120 };
        let moment = latest(weekly, NOW).expect("there are Sundays");
        assert!(is_due(weekly, moment - 1, NOW) && is_due(weekly, moment - 1, moment));
        assert!(!is_due(weekly, moment, NOW) && !is_due(weekly, NOW, NOW));
        assert!(!is_due(weekly, moment - 1, moment - 1));
    }
}
