//! A leaf's bounds, and whether they stand where a day (or month) of the lake begins.

use crate::base::{ColumnType, Partition, PartitionBy};
use chrono::{DateTime, Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;
use std::ops::Range;

/// `pg_class.relpartbound` of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafBound {
    /// DEFAULT: rows that no other leaf takes.
    Default,
    /// FROM (inclusive) TO (exclusive) of a range on one column, as the server prints it; `None` is MINVALUE or MAXVALUE.
    Range {
        /// Inclusive.
        from: Option<String>,
        /// Exclusive.
        to: Option<String>,
    },
    /// A list, a hash, a range on several columns.
    Other,
}

/// Where a bound stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundAlignment {
    /// Every bound begins a partition of the lake.
    Aligned,
    /// Bounds begin days, but not months, of a lake table by month.
    DayOnly,
    /// A bound lies inside a day: a day of the lake would be spread over two leaves.
    InsideADay,
    /// The bound cannot be read as a date (BC, infinity, another type).
    Unreadable,
}

impl LeafBound {
    /// From the text of `pg_get_expr(relpartbound, oid)` in a session with ISO dates and time zone UTC.
    pub fn parse(text: &str) -> Self {
        if text.trim() == "DEFAULT" {
            return Self::Default;
        }
        let range = text.strip_prefix("FOR VALUES FROM (").and_then(|rest| rest.strip_suffix(')'));
        let Some((from, to)) = range.and_then(|rest| rest.split_once(") TO (")) else {
            return Self::Other;
        };
        match (edge(from, "MINVALUE"), edge(to, "MAXVALUE")) {
            (Some(from), Some(to)) => Self::Range { from, to },
            _ => Self::Other,
        }
    }

    /// Whether the bounds begin days (months) of the lake in `zone`, which only a `timestamptz` column looks at.
    pub fn alignment(&self, column_type: ColumnType, by: PartitionBy, zone: Tz) -> BoundAlignment {
        let Self::Range { from, to } = self else { return BoundAlignment::Aligned };
        let mut result = BoundAlignment::Aligned;
        for text in [from, to].into_iter().flatten() {
            match edge_alignment(text, column_type, by, zone) {
                BoundAlignment::Aligned => {}
                BoundAlignment::DayOnly => result = BoundAlignment::DayOnly,
                other => return other,
            }
        }
        result
    }
}

impl LeafBound {
    /// The days of a range, in `zone` for a `timestamptz` column; none where a side is open, cannot be read, or lies inside a day.
    pub fn days(&self, column_type: ColumnType, zone: Tz) -> Option<Range<NaiveDate>> {
        let Self::Range { from: Some(from), to: Some(to) } = self else { return None };
        let first = |text: &str| match days_around(text, column_type, zone)? {
            (before, first) if before == Some(first) => None,
            (_, first) => Some(first),
        };
        Some(first(from)?..first(to)?)
    }
}

impl LeafBound {
    /// The days that a range takes every row of, in `zone` for a `timestamptz` column: from the first, inclusive, to the last, exclusive, where
    /// a side is bounded. None for what is no range, or cannot be read.
    pub fn covers(&self, column_type: ColumnType, zone: Tz) -> Option<(Option<NaiveDate>, Option<NaiveDate>)> {
        let Self::Range { from, to } = self else { return None };
        let around = |text: &str| days_around(text, column_type, zone);
        let from = match from.as_deref().map(around) {
            None => None,
            Some(around) => match around? {
                (before, own) if before == Some(own) => Some(own.succ_opt()?),
                (_, own) => Some(own),
            },
        };
        let to = match to.as_deref().map(around) {
            None => None,
            Some(around) => Some(around?.1),
        };
        Some((from, to))
    }
}

/// The first and the last day that rows of a leaf can be of, both inclusive; None where nothing bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Inclusive.
    pub first: Option<NaiveDate>,
    /// Inclusive.
    pub last: Option<NaiveDate>,
}

impl Reach {
    /// Of the days from `lower` to the one before `upper`.
    pub fn between(lower: NaiveDate, upper: NaiveDate) -> Self {
        Self { first: Some(lower), last: upper.pred_opt() }
    }

    /// Whether rows can be of one of the days from `first` to `last`, both inclusive.
    pub fn meets(&self, first: NaiveDate, last: NaiveDate) -> bool {
        self.first.is_none_or(|own| own <= last) && self.last.is_none_or(|own| first <= own)
    }

    /// The partition of the lake that all rows are of, where it is one.
    pub fn only_partition(&self, by: PartitionBy) -> Option<Partition> {
        let (first, last) = (by.partition_of(self.first?), by.partition_of(self.last?));
        (first == last).then_some(first)
    }
}

impl LeafBound {
    /// Which days rows can be of, in `zone` for a `timestamptz` column. Nothing bounds those of a default partition; a side that cannot
    /// be read bounds nothing.
    pub fn reach(&self, column_type: ColumnType, zone: Tz) -> Reach {
        let Self::Range { from, to } = self else { return Reach::default() };
        let around = |text: &Option<String>| days_around(text.as_deref()?, column_type, zone);
        Reach { first: around(from).map(|(_, own)| own), last: around(to).and_then(|(before, _)| before) }
    }
}

/// One side: a quoted text, or the unbounded keyword; anything else has several columns.
fn edge(text: &str, unbounded: &str) -> Option<Option<String>> {
    if text == unbounded {
        return Some(None);
    }
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    if inner.contains('\'') { None } else { Some(Some(inner.to_owned())) }
}

fn edge_alignment(text: &str, column_type: ColumnType, by: PartitionBy, zone: Tz) -> BoundAlignment {
    match days_around(text, column_type, zone) {
        None => BoundAlignment::Unreadable,
        Some((before, first)) if before == Some(first) => BoundAlignment::InsideADay,
        Some((_, first)) if by == PartitionBy::Month && first.day() != 1 => BoundAlignment::DayOnly,
        Some(_) => BoundAlignment::Aligned,
    }
}

/// The day just before a bound, and its own.
fn days_around(text: &str, column_type: ColumnType, zone: Tz) -> Option<(Option<NaiveDate>, NaiveDate)> {
    match column_type {
        ColumnType::Date => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| (date.pred_opt(), date)),
        ColumnType::Timestamp => NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().map(around_local),
        ColumnType::TimestampTz => utc(text).map(|instant| around_instant(instant, zone)),
        _ => None,
    }
}

/// The day just before the moment, and the moment's own day. They differ exactly where a day begins, which is also right on the
/// days whose midnight a clock change skips.
fn around_local(moment: NaiveDateTime) -> (Option<NaiveDate>, NaiveDate) {
    let before = if moment.time() == NaiveTime::MIN { moment.date().pred_opt() } else { Some(moment.date()) };
    (before, moment.date())
}

fn around_instant(instant: DateTime<Utc>, zone: Tz) -> (Option<NaiveDate>, NaiveDate) {
    let local = |moment: DateTime<Utc>| zone.from_utc_datetime(&moment.naive_utc()).date_naive();
    (instant.checked_sub_signed(Duration::microseconds(1)).map(local), local(instant))
}

fn utc(text: &str) -> Option<DateTime<Utc>> {
    let naive = NaiveDateTime::parse_from_str(text.strip_suffix("+00")?, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(naive.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use BoundAlignment::{Aligned, DayOnly, InsideADay, Unreadable};

    fn alignment(from: &str, to: &str, column_type: ColumnType, by: PartitionBy, zone: &str) -> BoundAlignment {
        let text = format!("FOR VALUES FROM ('{from}') TO ('{to}')");
        LeafBound::parse(&text).alignment(column_type, by, zone.parse().unwrap())
    }

    #[test]
    fn bounds_are_read_as_the_server_prints_them() {
        assert_eq!(LeafBound::parse("DEFAULT"), LeafBound::Default);
        let open = LeafBound::Range { from: None, to: Some("2026-01-01".into()) };
        assert_eq!(LeafBound::parse("FOR VALUES FROM (MINVALUE) TO ('2026-01-01')"), open);
        assert_eq!(LeafBound::parse("FOR VALUES IN ('a')"), LeafBound::Other);
        assert_eq!(LeafBound::parse("FOR VALUES FROM ('a', 1) TO ('b', 2)"), LeafBound::Other);
        assert_eq!(LeafBound::parse("FOR VALUES WITH (modulus 4, remainder 0)"), LeafBound::Other);
    }

    #[test]
    fn a_timestamp_without_zone_ignores_the_zone() {
        let by = PartitionBy::Day;
        let check = |from, to| alignment(from, to, ColumnType::Timestamp, by, "Asia/Tokyo");
        assert_eq!(check("2026-01-01 00:00:00", "2026-01-02 00:00:00"), Aligned);
        assert_eq!(check("2026-01-01 00:00:00", "2026-01-02 00:00:00.000001"), InsideADay);
        assert_eq!(check("2026-01-01 00:00:00 BC", "2026-01-02 00:00:00"), Unreadable);
    }

    #[test]
    fn a_day_is_covered_from_its_first_moment_to_its_last() {
        let covers = |text: &str| LeafBound::parse(text).covers(ColumnType::Timestamp, Tz::UTC);
        let date = |day| NaiveDate::from_ymd_opt(2026, 1, day);
        let range = |from: &str, to: &str| covers(&format!("FOR VALUES FROM ({from}) TO ({to})"));
        assert_eq!(range("'2026-01-01 00:00:00'", "'2026-01-03 00:00:00'"), Some((date(1), date(3))));
        assert_eq!(range("'2026-01-01 12:00:00'", "'2026-01-03 12:00:00'"), Some((date(2), date(3))));
        assert_eq!(range("MINVALUE", "'2026-01-03 00:00:00'"), Some((None, date(3))));
        assert_eq!(range("'2026-01-01 00:00:00'", "MAXVALUE"), Some((date(1), None)));
        assert_eq!(range("'2026-01-01 00:00:00 BC'", "'2026-01-03 00:00:00'"), None);
        assert_eq!((covers("DEFAULT"), covers("FOR VALUES IN ('a')")), (None, None));
    }

    #[test]
    fn a_range_of_whole_days_says_which() {
        let days = |from: &str, to: &str| {
            let text = format!("FOR VALUES FROM ({from}) TO ({to})");
            LeafBound::parse(&text).days(ColumnType::Timestamp, Tz::UTC).map(|days| (days.start, days.end))
        };
        let date = |day| NaiveDate::from_ymd_opt(2026, 1, day).unwrap();
        assert_eq!(days("'2026-01-01 00:00:00'", "'2026-01-03 00:00:00'"), Some((date(1), date(3))));
        assert_eq!(days("'2026-01-01 00:00:00'", "'2026-01-03 00:00:01'"), None);
        assert_eq!(days("MINVALUE", "'2026-01-03 00:00:00'"), None);
    }

    #[test]
    fn a_reach_has_the_days_that_rows_can_be_of() {
        let reach = |from: &str, to: &str| {
            let text = format!("FOR VALUES FROM ({from}) TO ({to})");
            LeafBound::parse(&text).reach(ColumnType::Timestamp, Tz::UTC)
        };
        let date = |day| NaiveDate::from_ymd_opt(2026, 1, day).unwrap();
        let one = reach("'2026-01-01 00:00:00'", "'2026-01-02 00:00:00'");
        assert_eq!(one, Reach { first: Some(date(1)), last: Some(date(1)) });
        assert_eq!(one.only_partition(PartitionBy::Day), Some(PartitionBy::Day.partition_of(date(1))));
        let two = reach("'2026-01-01 12:00:00'", "'2026-01-02 12:00:00'");
        assert_eq!(two, Reach::between(date(1), date(3)));
        assert_eq!(two.only_partition(PartitionBy::Day), None);
        assert!(two.only_partition(PartitionBy::Month).is_some());
        let open = reach("MINVALUE", "'2026-01-02 00:00:00'");
        assert_eq!(open, Reach { first: None, last: Some(date(1)) });
        assert!(open.meets(date(1), date(5)) && !open.meets(date(2), date(5)));
        assert_eq!(LeafBound::Default.reach(ColumnType::Date, Tz::UTC), Reach::default());
    }

    #[test]
    fn midnight_of_the_zone_decides_for_timestamptz() {
        let check =
            |from, zone| alignment(from, "2027-01-01 15:00:00+00", ColumnType::TimestampTz, PartitionBy::Day, zone);
        assert_eq!(check("2026-01-01 15:00:00+00", "Asia/Tokyo"), Aligned);
        assert_eq!(check("2026-01-01 00:00:00+00", "Asia/Tokyo"), InsideADay);
        assert_eq!(check("2026-01-01 00:00:00+00", "UTC"), InsideADay, "the upper bound is at 15:00");
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_begins_at_one() {
        let by = PartitionBy::Day;
        let check = |from| alignment(from, "2018-11-05 02:00:00+00", ColumnType::TimestampTz, by, "America/Sao_Paulo");
        assert_eq!(check("2018-11-04 03:00:00+00"), Aligned);
        assert_eq!(check("2018-11-04 04:00:00+00"), InsideADay);
    }

    #[test]
    fn a_month_begins_on_its_first() {
        let check = |from| alignment(from, "2026-03-01", ColumnType::Date, PartitionBy::Month, "UTC");
        assert_eq!(check("2026-02-01"), Aligned);
        assert_eq!(check("2026-02-02"), DayOnly);
    }
}
