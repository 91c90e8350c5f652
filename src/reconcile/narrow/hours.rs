//! The hour that a row is of, by the column that dates it: the same number on both sides.

use crate::reconcile::digest::{DigestColumn, Form, FormError, RowSum};
use crate::reconcile::span::Span;
use crate::source::{quote_identifier, quote_literal};
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Utc};
use deltalake::arrow::array::{Array, AsArray, RecordBatch};
use deltalake::arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use std::collections::{BTreeMap, BTreeSet};

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const SECONDS_PER_HOUR: i64 = 3_600;
const HOURS_PER_DAY: i64 = 24;
/// Stands for every row that is of none of the days: NULL, infinite, or of another day. Such rows have any number of hours.
pub(super) const OTHER_DAYS: i64 = i64::MAX;

/// Rows and digest of each hour.
pub(super) type Sums = BTreeMap<i64, RowSum>;

/// Cuts rows into hours since 1970, UTC; a date is its first hour.
#[derive(Clone, Debug)]
pub(super) struct Hours {
    column: DigestColumn,
    first_day: NaiveDate,
    behind: NaiveDate,
}

/// An hour whose rows are not the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Differing {
    pub(super) hour: i64,
    pub(super) source: RowSum,
    pub(super) lake: RowSum,
}

impl Differing {
    pub(super) fn fewest_rows(&self) -> i64 {
        self.source.rows.min(self.lake.rows)
    }

    pub(super) fn most_rows(&self) -> i64 {
        self.source.rows.max(self.lake.rows)
    }
}

/// The hours that differ, in their order.
pub(super) fn differing(source: &Sums, lake: &Sums) -> Vec<Differing> {
    let hours: BTreeSet<i64> = source.keys().chain(lake.keys()).copied().collect();
    let sum = |sums: &Sums, hour: i64| sums.get(&hour).copied().unwrap_or_default();
    let both = hours.into_iter().map(|hour| Differing { hour, source: sum(source, hour), lake: sum(lake, hour) });
    both.filter(|both| both.source != both.lake).collect()
}

impl Hours {
    /// Of these days. One day more on either side has the hours of any time zone's days.
    pub(super) fn new(column: DigestColumn, days: Span) -> Self {
        let first_day = days.lower.pred_opt().unwrap_or(days.lower);
        Self { column, first_day, behind: days.upper.succ_opt().unwrap_or(days.upper) }
    }

    /// The hour as an expression over a row of PostgreSQL, never NULL. date_trunc comes before the division, so that it is one of whole
    /// numbers without a remainder, before 1970 too.
    pub(super) fn sql(&self) -> String {
        let name = quote_identifier(&self.column.name);
        let (moment, kind) = match self.column.form {
            Form::Date => (format!("{name}::pg_catalog.date"), "date"),
            Form::Timestamptz => (format!("({name}::pg_catalog.timestamptz AT TIME ZONE 'UTC')"), "timestamp"),
            _ => (format!("{name}::pg_catalog.timestamp"), "timestamp"),
        };
        let edge = |day: NaiveDate| {
            let text = format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day());
            format!("{}::pg_catalog.{kind}", quote_literal(&text))
        };
        let hour = match self.column.form {
            Form::Date => format!("({moment} - '1970-01-01'::pg_catalog.date)::pg_catalog.int8 * {HOURS_PER_DAY}"),
            _ => format!("extract(epoch FROM date_trunc('hour', {moment}))::pg_catalog.int8 / {SECONDS_PER_HOUR}"),
        };
        let (first, behind) = (edge(self.first_day), edge(self.behind));
        format!("CASE WHEN {moment} >= {first} AND {moment} < {behind} THEN {hour} ELSE {OTHER_DAYS} END")
    }

    /// The hour of each row of a batch of the lake.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<Vec<i64>, FormError> {
        let Some(array) = rows.column_by_name(&self.column.lake_name) else {
            return Ok(vec![OTHER_DAYS; rows.num_rows()]);
        };
        if let Some(days) = array.as_primitive_opt::<Date32Type>() {
            return Ok(days.iter().map(|day| self.within(day.map(|day| i64::from(day) * HOURS_PER_DAY))).collect());
        }
        if let Some(moments) = array.as_primitive_opt::<TimestampMicrosecondType>() {
            let hour = |micros: Option<i64>| self.within(micros.map(|micros| micros.div_euclid(MICROS_PER_HOUR)));
            return Ok(moments.iter().map(hour).collect());
        }
        let (column, found) = (self.column.lake_name.clone(), array.data_type().to_string());
        Err(FormError { column, form: self.column.form, found })
    }

    /// Whether an hour had ended at a moment; where a date dates the rows, its day. Rows of other days have no end to wait for.
    pub(super) fn is_over(&self, hour: i64, at: DateTime<Utc>) -> bool {
        let length = if self.column.form == Form::Date { HOURS_PER_DAY } else { 1 };
        let end = hour.checked_add(length).and_then(|behind| behind.checked_mul(SECONDS_PER_HOUR));
        end.is_none_or(|end| end <= at.timestamp())
    }

    fn within(&self, hour: Option<i64>) -> i64 {
        let (first, behind) = (first_hour(self.first_day), first_hour(self.behind));
        hour.filter(|hour| (first..behind).contains(hour)).unwrap_or(OTHER_DAYS)
    }

    /// `2026-01-02T03`, `2026-01-02` where a date dates the rows, or `other days`.
    pub(super) fn text(&self, hour: i64) -> String {
        let moment = hour.checked_mul(SECONDS_PER_HOUR).and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        match moment {
            Some(moment) if self.column.form == Form::Date => moment.format("%Y-%m-%d").to_string(),
            Some(moment) => moment.format("%Y-%m-%dT%H").to_string(),
            None => "other days".to_owned(),
        }
    }
}

fn first_hour(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp().div_euclid(SECONDS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDateTime;
    use deltalake::arrow::array::{ArrayRef, Date32Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    fn hours(form: Form, year: i32) -> Hours {
        let day = |day| NaiveDate::from_ymd_opt(year, 1, day).unwrap();
        let column = DigestColumn { name: "at".to_owned(), lake_name: "at_lake".to_owned(), form };
        Hours::new(column, Span { lower: day(2), upper: day(3) })
    }

    fn of(hours: &Hours, values: ArrayRef) -> Vec<String> {
        let rows = RecordBatch::try_from_iter_with_nullable([("at_lake", values, true)]).unwrap();
        hours.of(&rows).unwrap().into_iter().map(|hour| hours.text(hour)).collect()
    }

    fn micros(text: &str) -> Option<i64> {
        Some(text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros())
    }

    #[test]
    fn a_moment_is_of_the_hour_that_has_begun_also_before_1970() {
        for year in [1969, 2026] {
            let at = |text: &str| micros(&format!("{year}-01-{text}"));
            let moments = [at("02T03:00:00"), at("02T03:59:59.999999"), at("02T04:00:00"), at("01T23:59:59.999999")];
            let shown = of(&hours(Form::Timestamp, year), Arc::new(TimestampMicrosecondArray::from(moments.to_vec())));
            let expected = ["02T03", "02T03", "02T04", "01T23"].map(|hour| format!("{year}-01-{hour}"));
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn what_is_of_no_day_of_these_is_of_other_days() {
        let moments =
            vec![None, Some(i64::MAX), Some(i64::MIN), micros("2026-01-04T00:00:00"), micros("2025-12-31T23:59:59")];
        let shown = of(&hours(Form::Timestamptz, 2026), Arc::new(TimestampMicrosecondArray::from(moments)));
        assert_eq!(shown, ["other days"; 5]);
    }

    #[test]
    fn a_date_is_a_day() {
        let days = Date32Array::from(vec![Some(20_454), Some(20_455), Some(20_457), None]);
        assert_eq!(
            of(&hours(Form::Date, 2026), Arc::new(days)),
            ["2026-01-01", "2026-01-02", "other days", "other days"]
        );
    }

    #[test]
    fn an_hour_is_over_at_its_end_and_a_date_at_its_days() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let third = at("2026-01-02T03:00:00Z").timestamp() / SECONDS_PER_HOUR;
        let moments = hours(Form::Timestamp, 2026);
        assert!(
            !moments.is_over(third, at("2026-01-02T03:59:59Z")) && moments.is_over(third, at("2026-01-02T04:00:00Z"))
        );
        let first = at("2026-01-02T00:00:00Z").timestamp() / SECONDS_PER_HOUR;
        let dates = hours(Form::Date, 2026);
        assert!(!dates.is_over(first, at("2026-01-02T23:59:59Z")) && dates.is_over(first, at("2026-01-03T00:00:00Z")));
        assert!(moments.is_over(OTHER_DAYS, at("2026-01-02T00:00:00Z")), "nobody waits for them");
    }

    #[test]
    fn a_file_without_the_column_has_no_hours_and_one_of_another_type_is_refused() {
        let rows =
            |name| RecordBatch::try_from_iter([(name, Arc::new(StringArray::from(vec!["2026"])) as ArrayRef)]).unwrap();
        assert_eq!(hours(Form::Timestamp, 2026).of(&rows("other")).unwrap(), [OTHER_DAYS]);
        assert!(hours(Form::Timestamp, 2026).of(&rows("at_lake")).is_err());
    }

    #[test]
    fn the_hours_that_differ_are_those_of_either_side() {
        let sum = |rows| RowSum { rows, lanes: [7, 7] };
        let (source, lake) = (Sums::from([(1, sum(2)), (2, sum(1))]), Sums::from([(1, sum(2)), (3, sum(1))]));
        let differing: Vec<_> =
            differing(&source, &lake).iter().map(|one| (one.hour, one.source.rows, one.lake.rows)).collect();
        assert_eq!(differing, [(2, 1, 0), (3, 0, 1)]);
    }
}
