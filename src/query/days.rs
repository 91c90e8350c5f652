//! From bounds on the partition column to bounds on the partition folders (Q2).
//!
//! The rule: a filter `F` over the column that dates a row implies that the row lies in an interval of time, and so its
//! folder in an interval of days. The interval may be too wide (then more files are read), never too narrow. Only shapes
//! whose interval is certain are understood; everything else is "any time".

use crate::base::PartitionBy;
use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;
use deltalake::arrow::datatypes::{DataType, TimeUnit};
use deltalake::datafusion::common::ScalarValue;
use deltalake::datafusion::logical_expr::{BinaryExpr, Expr, Operator, col, lit};
use std::collections::HashMap;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// How a table's rows were put into folders.
#[derive(Clone, Debug)]
pub(super) struct Dated {
    /// The lake column that dates a row.
    pub(super) column: String,
    /// Day or month folders.
    pub(super) partition_by: PartitionBy,
    /// The zone whose calendar names the folders; UTC unless the source column is a `timestamptz` cut elsewhere.
    pub(super) time_zone: Tz,
}

/// Microseconds since 1970-01-01 UTC, both ends included; `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    first: Option<i64>,
    last: Option<i64>,
}

impl Dated {
    /// What the table's own properties say, which the writer records when it creates the table and never changes.
    pub(super) fn recorded(configuration: &HashMap<String, String>) -> Option<Self> {
        let property = |name: &str| configuration.get(name).map(String::as_str);
        Some(Self {
            column: property("lakebed.partition_column")?.to_owned(),
            partition_by: match property("lakebed.partition_by")? {
                "day" => PartitionBy::Day,
                "month" => PartitionBy::Month,
                _ => return None,
            },
            time_zone: property("lakebed.time_zone")?.parse().ok()?,
        })
    }

    /// A filter on year/month/day that every row passes which passes all of `filters`; `None` when they say nothing of time.
    pub(super) fn folder_filter(&self, filters: &[Expr]) -> Option<Expr> {
        let span = filters.iter().fold(Span::default(), |span, filter| span.and(self.span_of(filter)));
        let first = span.first.and_then(|micros| self.first_date(micros)).map(|date| self.bound(date, Operator::Gt));
        let last = span.last.and_then(|micros| self.last_date(micros)).map(|date| self.bound(date, Operator::Lt));
        match (first, last) {
            (Some(first), Some(last)) => Some(first.and(last)),
            (first, last) => first.or(last),
        }
    }

    /// The earliest date of any moment from `micros` on. Where the clock falls back over midnight a later moment has the
    /// earlier date, so the smaller offset of the day that begins counts.
    fn first_date(&self, micros: i64) -> Option<NaiveDate> {
        let offset = self.offset_seconds(micros)?;
        date_at(micros, self.offset_seconds(micros.saturating_add(MICROS_PER_DAY)).unwrap_or(offset).min(offset))
    }

    /// The latest date of any moment up to `micros`; see [`Self::first_date`].
    fn last_date(&self, micros: i64) -> Option<NaiveDate> {
        let offset = self.offset_seconds(micros)?;
        date_at(micros, self.offset_seconds(micros.saturating_sub(MICROS_PER_DAY)).unwrap_or(offset).max(offset))
    }

    fn offset_seconds(&self, micros: i64) -> Option<i32> {
        let instant = DateTime::from_timestamp_micros(micros)?.naive_utc();
        Some(self.time_zone.offset_from_utc_datetime(&instant).fix().local_minus_utc())
    }

    /// `(year, month, day) >= date` for [`Operator::Gt`], `<=` for [`Operator::Lt`], written out: values are zero-padded
    /// strings, so their order as text is the calendar's.
    fn bound(&self, date: NaiveDate, strict: Operator) -> Expr {
        let values = self.partition_by.partition_of(date).values();
        let mut values = values.into_iter().rev();
        let inclusive = if strict == Operator::Gt { Expr::gt_eq } else { Expr::lt_eq };
        let beyond = if strict == Operator::Gt { Expr::gt } else { Expr::lt };
        let innermost = values.next().map_or_else(|| lit(true), |(name, value)| inclusive(col(name), lit(value)));
        values.fold(innermost, |rest, (name, value)| {
            beyond(col(name), lit(value.clone())).or(col(name).eq(lit(value)).and(rest))
        })
    }

    fn span_of(&self, filter: &Expr) -> Span {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.span_of(left).and(self.span_of(right))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                self.span_of(left).or(self.span_of(right))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if self.is_dating(left) {
                    literal(right).map_or_else(Span::default, |moment| moment.span(*op))
                } else if self.is_dating(right) {
                    let swapped = op.swap().unwrap_or(Operator::NotEq);
                    literal(left).map_or_else(Span::default, |moment| moment.span(swapped))
                } else {
                    Span::default()
                }
            }
            Expr::Between(between) if !between.negated && self.is_dating(&between.expr) => {
                let low = literal(&between.low).map_or_else(Span::default, |moment| moment.span(Operator::GtEq));
                let high = literal(&between.high).map_or_else(Span::default, |moment| moment.span(Operator::LtEq));
                low.and(high)
            }
            Expr::InList(list) if !list.negated && self.is_dating(&list.expr) => list
                .list
                .iter()
                .map(|item| literal(item).map_or_else(Span::default, |moment| moment.span(Operator::Eq)))
                .reduce(Span::or)
                .unwrap_or_default(),
            _ => Span::default(),
        }
    }

    /// The column itself, or a cast of it that keeps the order and loses at most the time of day.
    fn is_dating(&self, expression: &Expr) -> bool {
        match expression {
            Expr::Column(column) => column.name == self.column,
            Expr::Cast(cast) => exact_enough(cast.field.data_type()) && self.is_dating(&cast.expr),
            Expr::TryCast(cast) => exact_enough(cast.field.data_type()) && self.is_dating(&cast.expr),
            _ => false,
        }
    }
}

/// The date at an offset, in the years that a folder can name.
fn date_at(micros: i64, offset_seconds: i32) -> Option<NaiveDate> {
    let local = micros.checked_add(i64::from(offset_seconds) * 1_000_000)?;
    let date = DateTime::from_timestamp_micros(local)?.date_naive();
    (1..=9999).contains(&date.year()).then_some(date)
}

/// Casts to a zone other than UTC change what a comparison with a zoneless literal means, and coarser units round.
fn exact_enough(target: &DataType) -> bool {
    match target {
        DataType::Date32 => true,
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, zone) => {
            zone.as_deref().is_none_or(|zone| zone == "UTC" || zone == "+00:00")
        }
        _ => false,
    }
}

/// A literal as the first and last microsecond that compare equal to it: a day for a date, and (first > last) an empty
/// interval for a nanosecond that is no microsecond.
#[derive(Clone, Copy)]
struct Moment {
    first: i64,
    last: i64,
}

fn literal(expression: &Expr) -> Option<Moment> {
    let Expr::Literal(value, _) = expression else { return None };
    let exact = |micros: i64| Some(Moment { first: micros, last: micros });
    match value {
        ScalarValue::Date32(Some(days)) => {
            let first = i64::from(*days).checked_mul(MICROS_PER_DAY)?;
            Some(Moment { first, last: first.checked_add(MICROS_PER_DAY - 1)? })
        }
        ScalarValue::TimestampSecond(Some(seconds), _) => exact(seconds.checked_mul(1_000_000)?),
        ScalarValue::TimestampMillisecond(Some(millis), _) => exact(millis.checked_mul(1_000)?),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => exact(*micros),
        ScalarValue::TimestampNanosecond(Some(nanos), _) => {
            let last = nanos.div_euclid(1_000);
            Some(Moment { first: last + i64::from(nanos.rem_euclid(1_000) != 0), last })
        }
        _ => None,
    }
}

impl Moment {
    fn span(self, op: Operator) -> Span {
        match op {
            Operator::Eq | Operator::IsNotDistinctFrom => Span { first: Some(self.first), last: Some(self.last) },
            Operator::Gt => Span { first: self.last.checked_add(1), last: None },
            Operator::GtEq => Span { first: Some(self.first), last: None },
            Operator::Lt => Span { first: None, last: self.first.checked_sub(1) },
            Operator::LtEq => Span { first: None, last: Some(self.last) },
            _ => Span::default(),
        }
    }
}

impl Span {
    fn and(self, other: Span) -> Span {
        let tighter = |a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            (a, b) => a.or(b),
        };
        Span { first: tighter(self.first, other.first, i64::max), last: tighter(self.last, other.last, i64::min) }
    }

    fn or(self, other: Span) -> Span {
        let wider = |a: Option<i64>, b: Option<i64>, pick: fn(i64, i64) -> i64| a.zip(b).map(|(a, b)| pick(a, b));
        Span { first: wider(self.first, other.first, i64::min), last: wider(self.last, other.last, i64::max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(time_zone: Tz) -> Dated {
        Dated { column: "created_at".into(), partition_by: PartitionBy::Day, time_zone }
    }

    fn at(text: &str) -> Expr {
        let micros = DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
    }

    fn dates(dated: &Dated, filter: Expr) -> (Option<String>, Option<String>) {
        let span = dated.span_of(&filter);
        let first = span.first.and_then(|micros| dated.first_date(micros));
        let last = span.last.and_then(|micros| dated.last_date(micros));
        (first.map(|date| date.to_string()), last.map(|date| date.to_string()))
    }

    fn pair(first: &str, last: &str) -> (Option<String>, Option<String>) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (some(first), some(last))
    }

    #[test]
    fn midnight_belongs_to_the_day_it_opens() {
        let utc = dated(Tz::UTC);
        let midnight = || at("2024-06-02T00:00:00Z");
        assert_eq!(dates(&utc, col("created_at").lt(midnight())), pair("", "2024-06-01"));
        assert_eq!(dates(&utc, col("created_at").lt_eq(midnight())), pair("", "2024-06-02"));
        assert_eq!(dates(&utc, col("created_at").gt_eq(midnight())), pair("2024-06-02", ""));
        assert_eq!(dates(&utc, midnight().gt(col("created_at"))), pair("", "2024-06-01"));
        let last = at("2024-06-01T23:59:59.999999Z");
        assert_eq!(dates(&utc, col("created_at").gt(last)), pair("2024-06-02", ""));
    }

    #[test]
    fn other_shapes_are_understood_or_mean_any_time() {
        let utc = dated(Tz::UTC);
        let column = || col("created_at");
        let (one, two) = (at("2024-06-01T05:00:00Z"), at("2024-06-03T05:00:00Z"));
        assert_eq!(dates(&utc, column().between(one.clone(), two.clone())), pair("2024-06-01", "2024-06-03"));
        assert_eq!(dates(&utc, column().not_between(one.clone(), two.clone())), pair("", ""));
        assert_eq!(
            dates(&utc, column().eq(one.clone()).or(column().eq(two.clone()))),
            pair("2024-06-01", "2024-06-03")
        );
        assert_eq!(dates(&utc, column().eq(one.clone()).or(col("type").eq(lit("x")))), pair("", ""));
        assert_eq!(dates(&utc, column().eq(one.clone()).and(col("type").eq(lit("x")))).0.unwrap(), "2024-06-01");
        assert_eq!(dates(&utc, col("updated_at").eq(one.clone())), pair("", ""));
        assert_eq!(dates(&utc, column().not_eq(one)), pair("", ""));
        let day = lit(ScalarValue::Date32(Some(19_875)));
        let cast = deltalake::datafusion::logical_expr::cast(column(), DataType::Date32);
        assert_eq!(dates(&utc, cast.clone().eq(day.clone())), pair("2024-06-01", "2024-06-01"));
        assert_eq!(dates(&utc, cast.lt(day)), pair("", "2024-05-31"));
        let coarse = deltalake::datafusion::logical_expr::cast(column(), DataType::Timestamp(TimeUnit::Second, None));
        assert_eq!(dates(&utc, coarse.eq(two)), pair("", ""));
    }

    #[test]
    fn a_table_cut_in_another_zone_has_that_zones_days() {
        let tokyo = dated(Tz::Asia__Tokyo);
        let filter = col("created_at").gt_eq(at("2024-06-01T15:00:00Z"));
        assert_eq!(dates(&tokyo, filter), pair("2024-06-02", ""));
    }

    /// In St. John's the clock fell back from 00:01 on 2010-11-07 to 23:01 on the day before, at 02:31 UTC.
    #[test]
    fn a_day_that_comes_back_is_not_left_out() {
        let newfoundland = dated(Tz::America__St_Johns);
        let before = || at("2010-11-07T02:30:30Z");
        let after = || at("2010-11-07T02:31:10Z");
        assert_eq!(dates(&newfoundland, col("created_at").gt_eq(before())), pair("2010-11-06", ""));
        assert_eq!(dates(&newfoundland, col("created_at").lt_eq(after())), pair("", "2010-11-07"));
        assert_eq!(dates(&newfoundland, col("created_at").lt_eq(before())), pair("", "2010-11-07"));
        assert_eq!(dates(&newfoundland, col("created_at").gt_eq(after())), pair("2010-11-06", ""));
    }

    #[test]
    fn the_table_says_how_its_rows_are_dated() {
        let mut properties = HashMap::from(
            [("partition_column", "seen"), ("partition_by", "month"), ("time_zone", "Asia/Tokyo")]
                .map(|(name, value)| (format!("lakebed.{name}"), value.to_owned())),
        );
        let found = Dated::recorded(&properties).unwrap();
        assert_eq!((found.column.as_str(), found.partition_by), ("seen", PartitionBy::Month));
        assert_eq!(found.time_zone, Tz::Asia__Tokyo);
        properties.insert("lakebed.time_zone".to_owned(), "Mars/Base".to_owned());
        assert!(Dated::recorded(&properties).is_none() && Dated::recorded(&HashMap::new()).is_none());
    }

    #[test]
    fn the_filter_orders_folders_as_the_calendar_does() {
        let utc = dated(Tz::UTC);
        let filter = utc.folder_filter(&[col("created_at").gt_eq(at("2024-06-02T00:00:00Z"))]).unwrap();
        let expected = col("year").gt(lit("2024")).or(col("year")
            .eq(lit("2024"))
            .and(col("month").gt(lit("06")).or(col("month").eq(lit("06")).and(col("day").gt_eq(lit("02"))))));
        assert_eq!(filter, expected);
        assert_eq!(utc.folder_filter(&[col("type").eq(lit("x"))]), None);
        let months = Dated { partition_by: PartitionBy::Month, ..utc };
        let filter = months.folder_filter(&[col("created_at").lt(at("2024-06-01T00:00:00Z"))]).unwrap();
        assert_eq!(
            filter,
            col("year").lt(lit("2024")).or(col("year").eq(lit("2024")).and(col("month").lt_eq(lit("05"))))
        );
    }
}
