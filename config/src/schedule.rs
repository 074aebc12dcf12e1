//! When something is done by itself, as people say it: `daily 02:00`, `weekly sunday 02:00`, `monthly 1 02:00`. Times are UTC:
//! nothing happens twice, or not at all, because clocks are put forward or back.

use core::fmt;

use crate::values::Meaning;

/// On which days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// On each.
    Daily,
    /// On this one of each week: 0 is Monday.
    Weekly(u8),
    /// On this one of each month, from 1 to 28.
    Monthly(u8),
}

/// Days, and a time of these days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// On which days.
    pub days: Days,
    /// Minutes after midnight, UTC.
    pub minute: u16,
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Meaning for Schedule {
    const FORMAT: &'static str = "schedule";
    const PATTERN: &'static str = concat!(
        r"^(daily|weekly (monday|tuesday|wednesday|thursday|friday|saturday|sunday)|monthly ([1-9]|1[0-9]|2[0-8])) ",
        r"([01][0-9]|2[0-3]):[0-5][0-9]$"
    );
    const EXPECTED: &'static str = "daily HH:MM, weekly WEEKDAY HH:MM or monthly DAY HH:MM (the 1st to the 28th), in UTC, such \
                                    as weekly sunday 02:00";

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (days, time) = match words[..] {
            ["daily", time] => (Days::Daily, time),
            ["weekly", day, time] => (Days::Weekly(WEEKDAYS.iter().position(|name| *name == day)? as u8), time),
            ["monthly", day, time] => (Days::Monthly((1..=28).find(|number: &u8| number.to_string() == day)?), time),
            _ => return None,
        };
        let minute = (0..24 * 60).find(|&minute| of_day(minute) == time)?;
        Some(Self { days, minute })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            Days::Daily => f.write_str("daily")?,
            Days::Weekly(day) => write!(f, "weekly {}", WEEKDAYS[usize::from(day)])?,
            Days::Monthly(day) => write!(f, "monthly {day}")?,
        }
        write!(f, " {}", of_day(self.minute))
    }
}

fn of_day(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::tests::examples;

    #[test]
    fn what_people_say_is_understood_and_said_again() {
        examples::<Schedule>(
            &["daily 00:00", "weekly sunday 02:00", "weekly monday 23:59", "monthly 1 02:30", "monthly 28 12:00"],
            &[
                "",
                "daily",
                "02:00",
                "hourly 02:00",
                "weekly 02:00",
                "weekly Sunday 02:00",
                "weekly sunday",
                "weekly sunday 2:00",
                "daily 24:00",
                "daily 12:60",
                "monthly 0 02:00",
                "monthly 29 02:00",
                "monthly 01 02:00",
                "daily  02:00",
            ],
        );
    }
}
