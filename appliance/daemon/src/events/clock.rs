//! Times as files and people have them: RFC 3339 in UTC with milliseconds, all of one length, so that they sort as texts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_A_DAY: u64 = 86_400;

/// Days of 400 years.
const DAYS_AN_ERA: u64 = 146_097;

/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_BEFORE_1970: u64 = 719_468;

/// A time as text. One before 1970 is told as 1970: a clock that is not set.
pub fn text(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, of_day) = (since.as_secs() / SECONDS_A_DAY, since.as_secs() % SECONDS_A_DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. A year is taken to begin in March, so that the leap
/// day is its last; the lengths of its months then follow one rule: 153 days in five months.
pub(crate) const fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, of_era) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (DAYS_AN_ERA - 1)) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Whether a text is a time in UTC as RFC 3339 has it, or the beginning of one: at least the day.
pub fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"dddd-dd-ddTdd:dd:dd.ddd";
    let plain = text.strip_suffix('Z').unwrap_or(text).as_bytes();
    let whole = [10, 13, 16, 19, 21, 22, 23].contains(&plain.len()) && (plain.len() > 10 || !text.ends_with('Z'));
    whole && plain.iter().zip(FORM).all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_as_everybody_does() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_399, "2000-02-28T23:59:59.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (951_868_800, "2000-03-01T00:00:00.250Z"),
            (1_767_225_599, "2025-12-31T23:59:59.250Z"),
            (1_767_225_600, "2026-01-01T00:00:00.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
            (253_402_300_799, "9999-12-31T23:59:59.250Z"),
        ] {
            assert_eq!(text(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250)), expected);
        }
        assert_eq!(text(UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn days_follow_one_another_without_a_gap() {
        let (mut before, lengths) = (date(0), [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]);
        for day in 1..200_000 {
            let (year, month, of_month) = date(day);
            let (last_year, last_month, last_day) = before;
            let is_leap = last_year % 4 == 0 && (last_year % 100 != 0 || last_year % 400 == 0);
            let length = lengths[last_month as usize - 1] + u64::from(is_leap && last_month == 2);
            let expected = match (last_day < length, last_month < 12) {
                (true, _) => (last_year, last_month, last_day + 1),
                (false, true) => (last_year, last_month + 1, 1),
                (false, false) => (last_year + 1, 1, 1),
            };
            assert_eq!((year, month, of_month), expected);
            before = (year, month, of_month);
        }
    }

    #[test]
    fn times_and_their_beginnings_are_told_from_others() {
        for good in ["2026-01-02", "2026-01-02T03:04Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z"] {
            assert!(is_time(good), "{good}");
        }
        for bad in ["", "2026", "2026-01-02Z", "2026-01-02T", "2026-01-02 03:04", "2026-01-02T03:04:05+01:00", "5min"] {
            assert!(!is_time(bad), "{bad}");
        }
    }
}
