//! The calendar day that a row belongs to.

use crate::base::{ColumnType, PartitionBy, TableShape};
use crate::decode::value::{self, Encoded, ValueError};
use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 0001-01-01, which chrono counts as day 1, to 1970-01-01.
const DAYS_FROM_CE_TO_1970: i32 = 719_163;

/// How a table's partition column gives a day.
#[derive(Clone, Copy, Debug)]
pub(super) enum EventDate {
    Date,
    Timestamp,
    /// A timestamptz in UTC, whose days need no calendar.
    Utc,
    /// A timestamptz in another zone.
    Zoned(Tz),
}

impl EventDate {
    /// None for a column that cannot date a row.
    pub(super) fn of(shape: &TableShape) -> Option<Self> {
        match shape.columns.get(shape.partition_column)?.column_type {
            ColumnType::Date => Some(Self::Date),
            ColumnType::Timestamp => Some(Self::Timestamp),
            ColumnType::TimestampTz => Some(match shape.time_zone {
                Tz::UTC | Tz::UCT | Tz::Zulu | Tz::Etc__UTC | Tz::Etc__UCT | Tz::Etc__Zulu => Self::Utc,
                zone => Self::Zoned(zone),
            }),
            _ => None,
        }
    }

    /// Days since 1970-01-01.
    #[inline]
    pub(super) fn day(self, encoded: Encoded<'_>) -> Result<i32, ValueError> {
        match self {
            Self::Date => value::date(encoded),
            Self::Timestamp => day_of(value::timestamp(encoded)?, "timestamp"),
            Self::Utc => day_of(value::timestamptz(encoded)?, "timestamptz"),
            Self::Zoned(zone) => {
                let micros = value::timestamptz(encoded)?;
                let out_of_range = ValueError::AfterYear9999 { kind: "timestamptz" };
                let instant = DateTime::from_timestamp_micros(micros).ok_or(out_of_range)?;
                let offset_seconds = zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc();
                day_of(micros.saturating_add(i64::from(offset_seconds) * MICROS_PER_SECOND), "timestamptz")
            }
        }
    }
}

/// The day before 1970 has the number -1, its last microsecond included.
#[inline]
fn day_of(micros: i64, kind: &'static str) -> Result<i32, ValueError> {
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).map_err(|_| ValueError::AfterYear9999 { kind })
}

/// The day number of the first day of the partition that this day belongs to.
pub(super) fn first_day(day: i32, partition_by: PartitionBy) -> Result<i32, ValueError> {
    let first = partition_by.partition_of(calendar_date(day)?).first_day();
    Ok(first.num_days_from_ce() - DAYS_FROM_CE_TO_1970)
}

/// The date of a day number, in the years that a partition can name: the zone may have moved an instant out of them.
pub(super) fn calendar_date(day: i32) -> Result<NaiveDate, ValueError> {
    let kind = "date";
    let from_ce = day.checked_add(DAYS_FROM_CE_TO_1970);
    let date = from_ce.and_then(NaiveDate::from_num_days_from_ce_opt).ok_or(ValueError::AfterYear9999 { kind })?;
    match date.year() {
        ..1 => Err(ValueError::BeforeYearOne { kind }),
        1..=9999 => Ok(date),
        _ => Err(ValueError::AfterYear9999 { kind }),
    }
}
