//! The cron lines of `on: schedule`: when they tick.
//!
//! Owns GitHub's rules: five fields of POSIX cron with names, ranges, lists and steps, in UTC, and no tick within five
//! minutes of another. Promises: any text has an answer; looking for a tick costs at most a look at each day of five
//! years. Leaves to discovery which tick becomes a task.

use std::collections::BTreeSet;

/// The least minutes between two ticks; GitHub runs a schedule at most once every five minutes.
pub(super) const MIN_INTERVAL: u64 = 5;
/// How far a look back for a tick goes, in days: 29 February comes at least every eight years, a look over five finds
/// whatever a person would still want to be made up.
const MAX_DAYS: u64 = 5 * 366;
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A cron line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: BTreeSet<u64>,
    hours: BTreeSet<u64>,
    /// Of the month, from 1.
    days: BTreeSet<u64>,
    months: BTreeSet<u64>,
    /// 0 is Sunday.
    weekdays: BTreeSet<u64>,
    /// Whether a day has to be in both sets, or in one of them is enough: POSIX has it so where both are given.
    both: bool,
}

impl Cron {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence saying which field cannot be read, and what it could be.
    pub fn read(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = *fields.as_slice() else {
            return Err(format!(
                "`{}` has {} fields, not five: minute, hour, day of the month, month, day of the week",
                super::tags::legible(line, 80),
                fields.len()
            ));
        };
        let any = |field: &str| field.starts_with('*');
        let mut weekdays = set(weekday, "day of the week", 0, 7, &DAYS, 0)?;
        // Sunday is 0 and 7.
        if weekdays.remove(&7) {
            weekdays.insert(0);
        }
        Ok(Self {
            minutes: set(minute, "minute", 0, 59, &[], 0)?,
            hours: set(hour, "hour", 0, 23, &[], 0)?,
            days: set(day, "day of the month", 1, 31, &[], 0)?,
            months: set(month, "month", 1, 12, &MONTHS, 1)?,
            weekdays,
            both: any(day) || any(weekday),
        })
    }

    /// The latest tick after one minute and not after another, in minutes since 1970 UTC. Of ticks closer to each other
    /// than five minutes, only the first of each hour's and those far enough behind it count.
    pub fn latest(&self, after: u64, until: u64) -> Option<u64> {
        let minutes = self.spaced_minutes();
        let (mut day, oldest) = (until / 1_440, (until / 1_440).saturating_sub(MAX_DAYS));
        loop {
            if self.has_day(day) {
                for hour in self.hours.iter().rev() {
                    for minute in minutes.iter().rev() {
                        let tick = day * 1_440 + hour * 60 + minute;
                        if tick <= until {
                            return (tick > after).then_some(tick);
                        }
                    }
                }
            }
            if day <= oldest || day * 1_440 <= after {
                return None;
            }
            day -= 1;
        }
    }

    fn spaced_minutes(&self) -> Vec<u64> {
        let mut spaced: Vec<u64> = Vec::new();
        for minute in &self.minutes {
            if spaced.last().is_none_or(|last| minute - last >= MIN_INTERVAL) {
                spaced.push(*minute);
            }
        }
        spaced
    }

    /// Whether it ticks on a day, counted from 1 January 1970, a Thursday.
    fn has_day(&self, day: u64) -> bool {
        let (month, of_month) = civil(day);
        let (in_days, in_week) = (self.days.contains(&of_month), self.weekdays.contains(&((day + 4) % 7)));
        self.months.contains(&month) && if self.both { in_days && in_week } else { in_days || in_week }
    }
}

/// Month and day of the month, by Howard Hinnant's `civil_from_days`.
fn civil(day: u64) -> (u64, u64) {
    let z = day + 719_468;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    (if mp < 10 { mp + 3 } else { mp - 9 }, doy - (153 * mp + 2) / 5 + 1)
}

/// The numbers that a field names; its names count from `first`.
fn set(field: &str, what: &str, low: u64, high: u64, names: &[&str], first: u64) -> Result<BTreeSet<u64>, String> {
    let bad = || {
        format!(
            "`{}` is no {what}: {low} to {high}, such as `*`, `*/15`, `1-5` or `0,30`",
            super::tags::legible(field, 40)
        )
    };
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = named.map(|at| at as u64 + first).or_else(|| text.parse().ok());
        number.filter(|number| (low..=high).contains(number)).ok_or_else(bad)
    };
    let mut numbers = BTreeSet::new();
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0).ok_or_else(bad)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/15` goes on to the end.
            None if part.contains('/') => (number(range)?, high),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(bad());
        }
        let mut next = from;
        while next <= to {
            numbers.insert(next);
            next += step;
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Minutes of 2024-02-28 (a Wednesday), 00:00.
    const DAY: u64 = 19_781 * 1_440;

    fn latest(line: &str, after: u64, until: u64) -> Option<u64> {
        Cron::read(line).unwrap_or_else(|error| panic!("{line}: {error}")).latest(after, until)
    }

    #[test]
    fn ticks_are_where_a_calendar_has_them() {
        let week = (DAY - 7 * 1_440, DAY + 1_439);
        for (line, expected) in [
            ("0 0 * * *", Some(DAY)),
            ("30 5,17 * * *", Some(DAY + 17 * 60 + 30)),
            ("*/15 9-17 * * MON-FRI", Some(DAY + 17 * 60 + 45)),
            ("0 0 * * 0", Some(DAY - 3 * 1_440)),
            ("0 0 * * 7", Some(DAY - 3 * 1_440)),
            ("0 0 * feb sun", Some(DAY - 3 * 1_440)),
            ("0 12 29 2 *", None),
            ("0 12 27 2 *", Some(DAY - 720)),
            // A day of the month or a day of the week, where both are given.
            ("0 0 25 * THU", Some(DAY - 3 * 1_440)),
            ("0 0 1 * WED", Some(DAY)),
            ("20/20 23 * * *", Some(DAY + 23 * 60 + 40)),
        ] {
            assert_eq!(latest(line, week.0, week.1), expected, "{line}");
        }
        assert_eq!(latest("0 12 29 2 *", DAY, DAY + 2 * 1_440), Some(DAY + 1_440 + 720), "a leap day");
        assert_eq!(latest("0 0 31 4 *", 0, DAY), None, "a day that no year has");
    }

    #[test]
    fn a_tick_counts_once() {
        assert_eq!(latest("0 0 * * *", DAY, DAY), None);
        assert_eq!(latest("0 0 * * *", DAY - 1, DAY), Some(DAY));
    }

    #[test]
    fn nothing_ticks_more_often_than_every_five_minutes() {
        assert_eq!(latest("* * * * *", 0, DAY + 4), Some(DAY));
        assert_eq!(latest("* * * * *", 0, DAY + 59), Some(DAY + 55));
        assert_eq!(latest("1,3,7 * * * *", 0, DAY + 59), Some(DAY + 7));
    }

    #[test]
    fn what_is_no_cron_line_says_what_it_could_be() {
        for (line, word) in [
            ("", "0 fields"),
            ("@daily", "1 fields"),
            ("60 * * * *", "no minute"),
            ("* * 0 * *", "no day of the month"),
            ("* * * FOO *", "no month"),
            ("* * * * 8", "no day of the week"),
            ("*/0 * * * *", "no minute"),
            ("5-1 * * * *", "no minute"),
        ] {
            assert!(Cron::read(line).is_err_and(|error| error.contains(word)), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_can_be_asked(line in "[0-9*/,A-Z -]{0,24}", after in 0_u64..40_000_000, span in 0_u64..10_000) {
            if let Ok(cron) = Cron::read(&line) {
                let tick = cron.latest(after, after + span);
                prop_assert!(tick.is_none_or(|tick| tick > after && tick <= after + span));
            }
        }
    }
}
