//! date, time, timestamp and timestamptz.

use super::calendar_text;
use super::{Encoded, ValueError, exactly};

/// Days and microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's calendar starts.
pub(super) const DAYS_1970_TO_2000: i32 = 10_957;
pub(super) const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;
pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(super) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 0001-01-01 and 9999-12-31, the years that every reader of the lake agrees on.
const FIRST_DAY: i32 = -719_162;
const LAST_DAY: i32 = 2_932_896;
const FIRST_MICRO: i64 = FIRST_DAY as i64 * MICROS_PER_DAY;
const LAST_MICRO: i64 = (LAST_DAY as i64 + 1) * MICROS_PER_DAY - 1;

/// `date`: days since 1970-01-01.
///
/// # Errors
/// [`ValueError::Infinite`], [`ValueError::BeforeYearOne`], [`ValueError::AfterYear9999`], [`ValueError::Malformed`]
#[inline]
pub fn date(encoded: Encoded<'_>) -> Result<i32, ValueError> {
    let kind = "date";
    match encoded {
        Encoded::Text(text) => calendar_text::date(text),
        Encoded::Binary(bytes) => match i32::from_be_bytes(exactly(bytes, kind)?) {
            i32::MIN | i32::MAX => Err(ValueError::Infinite { kind }),
            since_2000 => match since_2000.saturating_add(DAYS_1970_TO_2000) {
                ..FIRST_DAY => Err(ValueError::BeforeYearOne { kind }),
                days @ FIRST_DAY..=LAST_DAY => Ok(days),
                _ => Err(ValueError::AfterYear9999 { kind }),
            },
        },
    }
}

/// `timestamp`: microseconds since 1970-01-01 00:00:00, the wall clock read as UTC.
///
/// # Errors
/// As for [`date`].
#[inline]
pub fn timestamp(encoded: Encoded<'_>) -> Result<i64, ValueError> {
    match encoded {
        Encoded::Text(text) => calendar_text::timestamp(text, "timestamp", b""),
        Encoded::Binary(bytes) => sent_micros(bytes, "timestamp"),
    }
}

/// `timestamptz`: microseconds since 1970-01-01 00:00:00 UTC.
///
/// # Errors
/// As for [`date`], and [`ValueError::NotUtc`] for text of another TimeZone than the pinned one.
#[inline]
pub fn timestamptz(encoded: Encoded<'_>) -> Result<i64, ValueError> {
    match encoded {
        Encoded::Text(text) => calendar_text::timestamp(text, "timestamptz", b"+00"),
        Encoded::Binary(bytes) => sent_micros(bytes, "timestamptz"),
    }
}

#[inline]
fn sent_micros(bytes: &[u8], kind: &'static str) -> Result<i64, ValueError> {
    match i64::from_be_bytes(exactly(bytes, kind)?) {
        i64::MIN | i64::MAX => Err(ValueError::Infinite { kind }),
        since_2000 => match since_2000.saturating_add(MICROS_1970_TO_2000) {
            ..FIRST_MICRO => Err(ValueError::BeforeYearOne { kind }),
            micros @ FIRST_MICRO..=LAST_MICRO => Ok(micros),
            _ => Err(ValueError::AfterYear9999 { kind }),
        },
    }
}

/// `time`: appended to `out` as time_out prints it, `24:00:00` included.
///
/// # Errors
/// [`ValueError::Malformed`]
pub fn time(encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    let malformed = ValueError::Malformed { kind: "time" };
    let micros = match encoded {
        Encoded::Text(text) => calendar_text::time(text).ok_or(malformed)?,
        Encoded::Binary(bytes) => i64::from_be_bytes(exactly(bytes, "time")?),
    };
    calendar_text::push_time(micros, out).ok_or(malformed)
}
