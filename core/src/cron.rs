//! Cron: when a method that the manifest runs by the clock is due next.
//!
//! The manifest parser reads schedules; the host's timers ask for the next time. Expressions
//! are read and searched by the `croner` crate, which is given civil times in UTC: it sees
//! neither a clock nor a time zone.
//!
//! Invariant: a [`Schedule`] that parsed fires again and again. It names no year, and the
//! calendar repeats every 400 years, so one firing means that there is always another.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};

use crate::failure::cut;

/// The shortest interval of [`Cron::Every`], in milliseconds.
pub const EVERY_MIN_MS: u64 = 100;
/// The longest interval of [`Cron::Every`]: 31 days.
pub const EVERY_MAX_MS: u64 = 31 * 86_400_000;
/// The most bytes of a cron expression.
pub const EXPRESSION_MAX_BYTES: usize = 128;

/// The beginning of the year 5000, where searches end.
const END_SECONDS: u64 = 95_617_584_000;

const SECONDS_PER_DAY: i64 = 86_400;

/// When a method runs by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cron {
    /// At every multiple of an interval, counted from a start.
    Every {
        /// The interval in milliseconds, from [`EVERY_MIN_MS`] to [`EVERY_MAX_MS`] when it
        /// comes from a manifest.
        ms: u64,
    },
    /// When a cron expression says so.
    Schedule(Schedule),
}

impl Cron {
    /// The first time that is strictly after `now_ms`. All times are in milliseconds since
    /// 1970, UTC.
    ///
    /// The grid of `Every` begins one interval after `start_ms`, so an interval that was
    /// missed is never made up for. A schedule knows no start. `None` when the time cannot
    /// be told any more, beyond the year 4999 for a schedule.
    ///
    /// ```
    /// use tidegate_core::cron::Cron;
    /// let cron = Cron::Every { ms: 1_000 };
    /// assert_eq!(cron.next_after(300, 300), Some(1_300));
    /// assert_eq!(cron.next_after(300, 5_299), Some(5_300));
    /// assert_eq!(cron.next_after(300, 5_300), Some(6_300));
    /// ```
    pub fn next_after(&self, start_ms: u64, now_ms: u64) -> Option<u64> {
        match self {
            Cron::Every { ms } => {
                let gone = now_ms.saturating_sub(start_ms).checked_div(*ms)?;
                start_ms.checked_add(gone.checked_add(1)?.checked_mul(*ms)?)
            }
            Cron::Schedule(schedule) => schedule.next_after(now_ms),
        }
    }
}

/// A cron expression, in UTC.
///
/// Five fields: minute, hour, day of the month, month, day of the week (0 to 7, both ends
/// being Sunday); with six, the first is the second. Each is `*`, numbers, ranges `1-5`,
/// lists `1,3` and steps `*/5`; months and days of the week also have names (`JAN`, `MON`);
/// `L` is the last day, `15W` the weekday nearest to the 15th, `1#2` the second Monday. With
/// both a day of the month and a day of the week, either suffices, as in Vixie's cron.
///
/// ```
/// use tidegate_core::cron::Schedule;
/// let nightly = Schedule::parse("0 3 * * *").unwrap();
/// assert_eq!(nightly.next_after(0), Some(3 * 3_600_000));
/// assert_eq!(
///     Schedule::parse("0 3 * *").unwrap_err().to_string(),
///     "expected a cron expression of 5 fields (minute, hour, day of the month, month, day of \
///      the week) or of 6 with the second before them, found \"0 3 * *\" with 4"
/// );
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    expression: String,
    cron: croner::Cron,
}

/// Why a text is no cron expression that ever fires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is longer than [`EXPRESSION_MAX_BYTES`].
    #[error(
        "expected a cron expression of {EXPRESSION_MAX_BYTES} bytes at most, found {bytes} bytes"
    )]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It has too few fields, or too many.
    #[error(
        "expected a cron expression of 5 fields (minute, hour, day of the month, month, day of \
         the week) or of 6 with the second before them, found {expression:?} with {fields}"
    )]
    Fields {
        /// The text, cut if it is long.
        expression: String,
        /// How many fields it has.
        fields: usize,
    },
    /// A field is not one that cron knows.
    #[error("expected a cron expression, found {expression:?}: {detail}")]
    Malformed {
        /// The text, cut if it is long.
        expression: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No date satisfies it, such as the 30th of February.
    #[error("expected a cron expression that some date satisfies, found {expression:?}")]
    Never {
        /// The text, cut if it is long.
        expression: String,
    },
}

impl Schedule {
    /// Reads a cron expression.
    pub fn parse(expression: &str) -> Result<Schedule, ScheduleError> {
        if expression.len() > EXPRESSION_MAX_BYTES {
            return Err(ScheduleError::TooLong {
                bytes: expression.len(),
            });
        }
        let found = || cut(expression).into_owned();
        let malformed = |detail: String| ScheduleError::Malformed {
            expression: found(),
            detail,
        };
        if !expression.is_ascii() {
            return Err(malformed("a character that is not ASCII".to_owned()));
        }
        let list_has_a_gap =
            |field: &str| field.contains(',') && field.split(',').any(str::is_empty);
        if expression.split_ascii_whitespace().any(list_has_a_gap) {
            return Err(malformed(
                "a list with nothing between two commas".to_owned(),
            ));
        }
        let fields = expression.split_ascii_whitespace().count();
        if !(5..=6).contains(&fields) {
            return Err(ScheduleError::Fields {
                expression: found(),
                fields,
            });
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(expression).map_err(|error| {
            malformed(match error {
                CronError::InvalidPattern(detail)
                | CronError::IllegalCharacters(detail)
                | CronError::ComponentError(detail) => detail,
                other => other.to_string(),
            })
        })?;
        let schedule = Schedule(Arc::new(Parsed {
            expression: expression.to_owned(),
            cron,
        }));
        match schedule.next_after(0) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never {
                expression: found(),
            }),
        }
    }

    /// The first time that is strictly after `now_ms`, both in milliseconds since 1970;
    /// `None` beyond the year 4999.
    pub fn next_after(&self, now_ms: u64) -> Option<u64> {
        let seconds = now_ms / 1000;
        if seconds >= END_SECONDS {
            return None;
        }
        let now = Utc(i64::try_from(seconds).ok()?);
        let next = self.0.cron.find_next_occurrence(&now, false).ok()?;
        u64::try_from(next.0).ok()?.checked_mul(1000)
    }

    /// The expression as it was given.
    pub fn as_str(&self) -> &str {
        &self.0.expression
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Utc(i64);

impl CronDateTime for Utc {
    fn to_civil(&self) -> CivilDateTime {
        let (year, month, day) = civil_from_days(self.0.div_euclid(SECONDS_PER_DAY));
        let second = self.0.rem_euclid(SECONDS_PER_DAY) as u32;
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(year, month, day),
            CivilTime::from_parts_unchecked(second / 3600, second / 60 % 60, second % 60),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        // The 1st of January 1970 was a Thursday.
        let days = (self.0.div_euclid(SECONDS_PER_DAY) + 4).rem_euclid(7);
        Weekday::from_days_from_sunday(days as u32)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let days = days_from_civil(civil.year(), civil.month(), civil.day());
        let second = i64::from((civil.hour() * 60 + civil.minute()) * 60 + civil.second());
        Ok(Resolution::Single(Utc(days * SECONDS_PER_DAY + second)))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(seconds).map(Utc)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// Days of 400 Gregorian years.
const ERA_DAYS: i64 = 146_097;
/// Days from the 1st of March of the year 0 to the 1st of January 1970.
const EPOCH_DAYS: i64 = 719_468;

/// The days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from
/// March, so that the leap day comes last.
fn days_from_civil(year: i32, month: u32, day: u32) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + year * 365 + year / 4 - year / 100 + day_of_year - EPOCH_DAYS
}

/// The opposite of [`days_from_civil`]: year, month and day.
fn civil_from_days(days: i64) -> (i32, u32, u32) {
    let days = days + EPOCH_DAYS;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    let year = era * 400 + year + i64::from(month <= 2);
    (year as i32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// `2024-02-29` or `2024-02-29 03:30:00` in milliseconds since 1970.
    fn at(text: &str) -> u64 {
        let (date, time) = text.split_once(' ').unwrap_or((text, "0:0:0"));
        let date: Vec<u32> = date.split('-').map(|part| part.parse().unwrap()).collect();
        let time: Vec<u64> = time.split(':').map(|part| part.parse().unwrap()).collect();
        let days = days_from_civil(date[0] as i32, date[1], date[2]);
        u64::try_from(days).unwrap() * DAY_MS + ((time[0] * 60 + time[1]) * 60 + time[2]) * 1000
    }

    fn schedule(expression: &str) -> Schedule {
        Schedule::parse(expression).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(expression: &str) -> String {
        Schedule::parse(expression).unwrap_err().to_string()
    }

    #[test]
    fn a_date_is_counted_in_days_since_1970() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2100, 3, 1), 47_541),
            ((5000, 1, 1), (END_SECONDS / 86_400) as i64),
        ] {
            assert_eq!(days_from_civil(date.0, date.1, date.2), days, "{date:?}");
            assert_eq!(civil_from_days(days), date);
        }
    }

    #[test]
    fn a_schedule_fires_when_its_expression_says_so() {
        for (expression, now, next) in [
            ("0 3 * * *", "2024-02-28 03:00:00", "2024-02-29 03:00:00"),
            ("0 3 * * *", "2023-02-28 03:00:00", "2023-03-01 03:00:00"),
            ("0 3 * * *", "2023-12-31 04:00:00", "2024-01-01 03:00:00"),
            ("0 0 29 2 *", "2024-02-29", "2028-02-29"),
            ("0 0 29 2 *", "2096-03-01", "2104-02-29"),
            ("0 0 31 * *", "2024-01-31", "2024-03-31"),
            ("0 0 31 4,5 *", "2024-01-01", "2024-05-31"),
            ("0 0 L * *", "2024-02-01", "2024-02-29"),
            ("0 0 L * *", "2023-02-01", "2023-02-28"),
            ("*/15 * * * *", "2024-06-01 12:44:59", "2024-06-01 12:45:00"),
            ("*/15 * * * *", "2024-06-01 12:45:00", "2024-06-01 13:00:00"),
            (
                "*/10 * * * * *",
                "2024-06-01 12:00:50",
                "2024-06-01 12:01:00",
            ),
            (
                "0 9 * * MON-FRI",
                "2024-06-07 09:00:00",
                "2024-06-10 09:00:00",
            ),
            ("0 0 * * 7", "2024-06-07", "2024-06-09"),
            ("0 0 * * 0", "2024-06-07", "2024-06-09"),
            ("0 0 13 * 5", "2024-06-07", "2024-06-13"),
            ("0 0 13 * 5", "2024-06-13", "2024-06-14"),
            ("0 0 1 jan *", "2024-06-13", "2025-01-01"),
        ] {
            assert_eq!(
                schedule(expression).next_after(at(now)),
                Some(at(next)),
                "{expression} after {now}"
            );
        }
    }

    #[test]
    fn a_schedule_fires_strictly_after_now() {
        let every_second = schedule("* * * * * *");
        assert_eq!(every_second.next_after(999), Some(1000));
        assert_eq!(every_second.next_after(1000), Some(2000));
        assert_eq!(every_second.next_after(1001), Some(2000));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        assert!(refusal("").ends_with("found \"\" with 0"));
        assert!(refusal("@daily").ends_with("found \"@daily\" with 1"));
        assert!(refusal("0 0 1 1 * 2024 7").ends_with("with 7"));
        assert_eq!(
            refusal(&"*".repeat(129)),
            "expected a cron expression of 128 bytes at most, found 129 bytes"
        );
        for bad in [
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "1,,2 * * * *",
            "* * * * * @daily",
            "* * * * ü",
        ] {
            let message = refusal(bad);
            let start = format!("expected a cron expression, found {bad:?}: ");
            assert!(message.starts_with(&start), "{message}");
            assert!(message.len() > start.len(), "{message}");
        }
    }

    #[test]
    fn a_date_that_never_comes_is_refused() {
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * * 31 2 *"] {
            assert_eq!(
                refusal(never),
                format!("expected a cron expression that some date satisfies, found {never:?}")
            );
        }
    }

    #[test]
    fn a_schedule_ends_with_the_calendar_it_knows() {
        let yearly = schedule("0 0 1 1 *");
        assert_eq!(yearly.next_after(at("4998-06-01")), Some(at("4999-01-01")));
        for now in [at("5000-01-01"), u64::MAX] {
            assert_eq!(yearly.next_after(now), None);
        }
    }

    #[test]
    fn an_interval_that_cannot_be_told_is_none() {
        assert_eq!(Cron::Every { ms: 0 }.next_after(0, 0), None);
        assert_eq!(Cron::Every { ms: 1000 }.next_after(0, u64::MAX), None);
        assert_eq!(Cron::Every { ms: u64::MAX }.next_after(1, 1), None);
    }

    #[test]
    fn before_its_start_an_interval_waits_for_its_first_multiple() {
        assert_eq!(Cron::Every { ms: 10 }.next_after(100, 3), Some(110));
    }

    fn field(range: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = String> {
        let (low, high) = (*range.start(), *range.end());
        prop_oneof![
            2 => Just("*".to_owned()),
            2 => range.clone().prop_map(|n| n.to_string()),
            1 => (1..=high).prop_map(|step| format!("*/{step}")),
            1 => (range.clone(), range).prop_map(move |(a, b)| {
                format!("{}-{}", a.min(b).max(low), a.max(b))
            }),
        ]
    }

    fn expression() -> impl Strategy<Value = String> {
        let fields = (
            field(0..=59),
            field(0..=59),
            field(0..=23),
            field(1..=31),
            field(1..=12),
            field(0..=7),
        );
        fields.prop_map(|(s, m, h, dom, month, dow)| format!("{s} {m} {h} {dom} {month} {dow}"))
    }

    proptest! {
        #[test]
        fn a_date_survives_the_way_through_days(days in -1_000_000i64..1_200_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert!(CivilDate::from_ymd_opt(year, month, day).is_some());
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn the_next_time_is_after_now_and_nothing_lies_between(
            expression in expression(),
            now in 0u64..4_000_000_000_000,
            between in any::<prop::sample::Index>(),
        ) {
            let Ok(schedule) = Schedule::parse(&expression) else {
                return Ok(());
            };
            let next = schedule.next_after(now).unwrap();
            prop_assert!(next > now);
            prop_assert_eq!(next % 1000, 0);
            let within = now + between.index((next - now) as usize) as u64;
            prop_assert_eq!(schedule.next_after(within), Some(next));
        }

        #[test]
        fn an_interval_keeps_to_its_grid(
            ms in EVERY_MIN_MS..=EVERY_MAX_MS,
            start in 0u64..4_000_000_000_000,
            gone in 0u64..100_000_000_000,
        ) {
            let cron = Cron::Every { ms };
            let now = start + gone;
            let next = cron.next_after(start, now).unwrap();
            prop_assert!(next > now && next - now <= ms);
            prop_assert_eq!((next - start) % ms, 0);
            prop_assert_eq!(cron.next_after(start, next - 1), Some(next));
            prop_assert_eq!(cron.next_after(start, next), Some(next + ms));
            prop_assert_eq!(cron.next_after(next, next), Some(next + ms));
        }

        #[test]
        fn no_text_makes_parse_panic(
            wild in "[-0-9*,/LW#?+@A-Za-z\u{e9} ]{0,30}",
            fields in prop::collection::vec("[-0-9*,/LW#?+A-Z]{1,6}", 5..=6),
        ) {
            _ = Schedule::parse(&wild);
            if let Ok(schedule) = Schedule::parse(&fields.join(" ")) {
                prop_assert!(schedule.next_after(1_700_000_000_000).is_some());
            }
        }
    }
}
