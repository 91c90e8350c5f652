//! Which rows are of some days, in SQL, cut just as the lake cuts them.

use super::{quote_identifier, quote_literal};
use crate::base::{ColumnType, TableShape};
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use std::ops::Range;

/// The condition that a row is of these days. The edges of a `timestamptz` are moments: the lake's zone rules are the ones that count, and
/// the server may have others.
pub fn dated_between(shape: &TableShape, days: Range<NaiveDate>) -> String {
    let Some(column) = shape.columns.get(shape.partition_column) else { return "true".to_owned() };
    let edge = |day: NaiveDate| {
        let literal = quote_literal(&format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day()));
        match column.column_type {
            ColumnType::Date => format!("{literal}::date"),
            // Where a clock is set back over midnight, a day has two of them; the server would take the second.
            ColumnType::TimestampTz => match first_instant(day, shape.time_zone) {
                Some(instant) => {
                    format!("{}::timestamptz", quote_literal(&instant.format("%Y-%m-%d %H:%M:%S+00").to_string()))
                }
                None => format!("({literal}::timestamp AT TIME ZONE {})", quote_literal(shape.time_zone.name())),
            },
            _ => format!("{literal}::timestamp"),
        }
    };
    let name = quote_identifier(&column.name);
    format!("{name} >= {} AND {name} < {}", edge(days.start), edge(days.end))
}

/// The moment at which a day begins in a zone; one whose midnight is skipped by a change of the clock begins later.
pub fn first_instant(day: NaiveDate, zone: Tz) -> Option<DateTime<Utc>> {
    let midnight = day.and_time(NaiveTime::MIN);
    (0..=12).find_map(|quarters| {
        let local = zone.from_local_datetime(&(midnight + TimeDelta::minutes(15 * quarters)));
        local.earliest().map(|moment| moment.with_timezone(&Utc))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_its_first_midnight_or_behind_a_skipped_one() {
        let first = |day: &str, zone: Tz| first_instant(day.parse().unwrap(), zone).unwrap().to_rfc3339();
        assert_eq!(first("2026-11-01", Tz::America__Havana), "2026-11-01T04:00:00+00:00", "of two midnights");
        assert_eq!(first("2018-11-04", Tz::America__Sao_Paulo), "2018-11-04T03:00:00+00:00", "at one o'clock");
        assert_eq!(first("2026-01-01", Tz::Asia__Tokyo), "2025-12-31T15:00:00+00:00");
    }
}
