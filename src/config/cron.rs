//! The five fields of a cron schedule (crontab(5)), and when it is due next.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Timelike, Utc};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// Sunday is 0, and 7 as well.
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Smallest and largest number of a field, and the names that stand for numbers, in order from the smallest.
struct Field {
    first: u8,
    last: u8,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { first: 0, last: 59, names: &[] },
    Field { first: 0, last: 23, names: &[] },
    Field { first: 1, last: 31, names: &[] },
    Field { first: 1, last: 12, names: &MONTHS },
    Field { first: 0, last: 7, names: &WEEKDAYS },
];

/// Days that are looked at for the next due one: 29 February may be eight years away.
const DAYS_AHEAD: u64 = 8 * 366;

/// Minute, hour, day of the month, month and day of the week, each of them a list of `*`, numbers, names and ranges, with or without
/// `/step`. In UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    /// One bit for each number that is in the field's list.
    fields: [u64; 5],
    /// A day is due if both fields of days have it; if both are restricted, one of them is enough (crontab(5)).
    either_day: bool,
}

impl Schedule {
    /// None for anything but five fields.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() != FIELDS.len() {
            return None;
        }
        let mut fields = [0; FIELDS.len()];
        for ((bits, field), word) in fields.iter_mut().zip(&FIELDS).zip(&words) {
            *bits = word.split(',').try_fold(0, |bits, item| Some(bits | field.bits(item)?))?;
        }
        // Sunday has two numbers.
        fields[4] |= fields[4] >> 7 & 1;
        let is_restricted = |index: usize| words.get(index).is_some_and(|word: &&str| !word.starts_with('*'));
        Some(Self { text: words.join(" "), fields, either_day: is_restricted(2) && is_restricted(4) })
    }

    /// The first due minute after a moment; none for a day that never comes, as 30 February.
    pub fn next_after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let today = moment.date_naive();
        let days = (0..DAYS_AHEAD).map_while(|ahead| today.checked_add_days(Days::new(ahead)));
        days.filter(|day| self.is_due_on(*day)).find_map(|day| {
            let from = if day == today { moment.time().hour() * 60 + moment.time().minute() + 1 } else { 0 };
            let due = |minute: &u32| has(self.fields[1], minute / 60) && has(self.fields[0], minute % 60);
            let minute = (from..24 * 60).find(due)?;
            Some(day.and_time(NaiveTime::from_num_seconds_from_midnight_opt(minute * 60, 0)?).and_utc())
        })
    }

    fn is_due_on(&self, day: NaiveDate) -> bool {
        let of_month = has(self.fields[2], day.day());
        let of_week = has(self.fields[4], day.weekday().num_days_from_sunday());
        has(self.fields[3], day.month()) && if self.either_day { of_month || of_week } else { of_month && of_week }
    }
}

/// As it was written.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn has(bits: u64, number: u32) -> bool {
    bits >> number & 1 == 1
}

impl Field {
    /// The numbers of one item of the list; None for what is no item.
    fn bits(&self, item: &str) -> Option<u64> {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None if step.is_some() => return None,
            None => (self.value(range)?, self.value(range)?),
        };
        let step = match step {
            Some(step) => number(step).filter(|step| (1..=self.last).contains(step))?,
            None => 1,
        };
        let numbers = (first..=last).step_by(usize::from(step));
        if first > last { None } else { Some(numbers.fold(0, |bits, number| bits | 1 << number)) }
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|position| u8::try_from(position).ok()).map(|position| self.first + position);
        named.or_else(|| number(text)).filter(|value| (self.first..=self.last).contains(value))
    }
}

/// Digits alone: `u8`'s own parser takes a plus sign.
fn number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_one_by_one() {
        for text in ["0 3 * * *", "*/15 0-23/2 1,15 jan-MAR 7", "59 23 31 12 0", "0 3 * * mon-fri"] {
            assert!(Schedule::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "0 3 * *",
            "0 3 * * * *",
            "60 3 * * *",
            "0 24 * * *",
            "0 3 0 * *",
            "0 3 32 * *",
            "0 3 * 13 *",
            "0 3 * * 8",
            "x 3 * * *",
            "0 3 * * mon-",
            "0 3,, * * *",
            "5-1 3 * * *",
            "*/0 3 * * *",
            "*/ 3 * * *",
            "+1 3 * * *",
            "5/2 3 * * *",
            "0 mon * * *",
            "@daily",
            "999 3 * * *",
            "-1 3 * * *",
        ] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
    }

    fn next(schedule: &str, after: &str) -> String {
        let after = after.parse::<DateTime<Utc>>().unwrap();
        let next = Schedule::parse(schedule).unwrap().next_after(after);
        next.map_or("never".to_owned(), |next| next.format("%a %Y-%m-%d %H:%M").to_string())
    }

    #[test]
    fn the_next_due_minute_is_behind_the_moment() {
        assert_eq!(next("0 3 * * *", "2026-11-25T02:59:59Z"), "Wed 2026-11-25 03:00");
        assert_eq!(next("0 3 * * *", "2026-11-25T03:00:00Z"), "Thu 2026-11-26 03:00");
        assert_eq!(next("*/20 1-3 * * *", "2026-12-31T03:45:00Z"), "Fri 2027-01-01 01:00");
        assert_eq!(next("0 0 29 feb *", "2096-03-01T00:00:00Z"), "Fri 2104-02-29 00:00");
        assert_eq!(next("0 0 30 2 *", "2026-01-01T00:00:00Z"), "never");
        assert_eq!(next("5 4 * * 7", "2026-11-25T00:00:00Z"), "Sun 2026-11-29 04:05");
    }

    #[test]
    fn of_two_restricted_days_one_is_enough() {
        assert_eq!(next("0 0 1 * mon", "2026-11-25T00:00:00Z"), "Mon 2026-11-30 00:00");
        assert_eq!(next("0 0 1 * mon", "2026-11-30T00:00:00Z"), "Tue 2026-12-01 00:00");
        assert_eq!(next("0 0 1 * */2", "2026-11-25T00:00:00Z"), "Tue 2026-12-01 00:00");
        assert_eq!(next("0 0 */2 * mon", "2026-11-25T00:00:00Z"), "Mon 2026-12-07 00:00");
    }
}
