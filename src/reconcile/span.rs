//! Which days a detached table holds, by its name: partman forgets a leaf's bounds when it detaches it.

use chrono::{Datelike, Days, Months, NaiveDate};
use std::fmt;

/// The days of a partition: the first, and the one behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Inclusive.
    pub lower: NaiveDate,
    /// Exclusive.
    pub upper: NaiveDate,
}

/// How long partitions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// A day.
    Day,
    /// A month of the calendar.
    Month,
}

impl Interval {
    /// From `part_config.partition_interval` of partman 4 or 5; None for any other interval.
    pub fn of_partman(text: &str) -> Option<Self> {
        match text.trim() {
            "daily" | "1 day" | "24:00:00" => Some(Self::Day),
            "monthly" | "1 mon" | "1 month" => Some(Self::Month),
            _ => None,
        }
    }

    fn behind(self, lower: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Day => lower.checked_add_days(Days::new(1)),
            Self::Month => lower.checked_add_months(Months::new(1)),
        }
    }
}

impl Span {
    /// The days of `…_p2026_01_02` (partman 4), `…_p20260102` (partman 5), or of either with another number behind it, as a table has
    /// that gave its name up (`__2`), for partitions of this interval. Both versions name a month by its first day.
    pub fn of_name(name: &str, interval: Interval) -> Option<Self> {
        let (_, suffix) = name.rsplit_once("_p")?;
        let suffix = suffix.split_once("__").map_or(suffix, |(suffix, number)| match number.parse::<u32>() {
            Ok(_) => suffix,
            Err(_) => "",
        });
        let digits: String = match suffix.split('_').map(str::len).collect::<Vec<_>>().as_slice() {
            [6 | 8] | [4, 2] | [4, 2, 2] => suffix.replace('_', ""),
            _ => return None,
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = |range: std::ops::Range<usize>| digits.get(range).and_then(|digits| digits.parse::<u32>().ok());
        let day = number(6..8);
        if interval == Interval::Day && day.is_none() {
            return None;
        }
        let year = i32::try_from(number(0..4)?).ok()?;
        let lower = NaiveDate::from_ymd_opt(year, number(4..6)?, day.unwrap_or(1))?;
        if interval == Interval::Month && lower.day() != 1 {
            return None;
        }
        Some(Self { lower, upper: interval.behind(lower)? })
    }

    /// Whether they have a day in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.lower < other.upper && other.lower < self.upper
    }
}

/// `2026-01-02`, or `2026-01-01 to 2026-01-31`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.upper.pred_opt() {
            Some(last) if last != self.lower => write!(f, "{} to {last}", self.lower),
            _ => write!(f, "{}", self.lower),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, interval: Interval) -> Option<String> {
        Span::of_name(name, interval).map(|span| span.to_string())
    }

    #[test]
    fn both_versions_of_partman_name_a_day() {
        for name in ["security_event_p2026_01_02", "security_event_p20260102", "a_p1_p2026_01_02", "x_p20260102__2"] {
            assert_eq!(shown(name, Interval::Day).as_deref(), Some("2026-01-02"), "{name}");
        }
        for name in
            ["x", "x_p2026_02_30", "x_p2026w01", "x_p2026_01", "x_p20260102__x", "x_p２０２６０１０２", "x_p2026_1_02"]
        {
            assert_eq!(shown(name, Interval::Day), None, "{name}");
        }
    }

    #[test]
    fn a_month_is_named_by_its_first_day_or_by_itself() {
        for name in ["x_p2026_02_01", "x_p20260201", "x_p2026_02", "x_p202602"] {
            assert_eq!(shown(name, Interval::Month).as_deref(), Some("2026-02-01 to 2026-02-28"), "{name}");
        }
        assert_eq!(shown("x_p2026_02_02", Interval::Month), None);
    }

    #[test]
    fn partmans_intervals_are_a_day_or_a_month() {
        assert_eq!(Interval::of_partman("daily"), Some(Interval::Day));
        assert_eq!(Interval::of_partman("1 day"), Some(Interval::Day));
        assert_eq!(Interval::of_partman("1 mon"), Some(Interval::Month));
        assert_eq!(Interval::of_partman("01:00:00"), None);
    }

    #[test]
    fn days_overlap_or_do_not() {
        let day = |name| Span::of_name(name, Interval::Day).unwrap();
        let month = Span::of_name("x_p2026_01", Interval::Month).unwrap();
        assert!(month.overlaps(day("x_p2026_01_31")) && !month.overlaps(day("x_p2026_02_01")));
    }
}
