//! One value as text, exactly.
//!
//! Nested values are JSON in every format, and so have no text of their own.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Timelike, Utc};
use deltalake::arrow::array::timezone::Tz;
use deltalake::arrow::array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use deltalake::arrow::array::{Array, AsArray};
use deltalake::arrow::datatypes::{DataType, TimeUnit};
use deltalake::arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::{self, Write as _};

/// Which of two customs a timestamp follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Custom {
    /// `2024-06-01 12:00:00.000000Z`, in the column's own zone: for people and CSV.
    Plain,
    /// `2024-06-01T12:00:00.000000Z`, always UTC (ISO 8601): for JSON.
    Iso,
}

/// Whether the row has no value; a dictionary's key may point at one that is NULL.
pub(super) fn is_null(array: &dyn Array, row: usize) -> bool {
    match array.data_type() {
        DataType::Null => true,
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys().get(row).copied();
            dictionary.keys().is_null(row) || key.is_none_or(|key| is_null(dictionary.values().as_ref(), key))
        }
        _ => array.is_null(row),
    }
}

/// Whether the type is written as a number: without quotes in JSON, to the right in a table.
pub(super) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_number(values),
        other => other.is_numeric(),
    }
}

/// Appends the text of a value that is not NULL. `Err` is a value that has none, such as a year past the calendar's end.
pub(super) fn push_text(out: &mut String, array: &dyn Array, row: usize, custom: Custom) -> fmt::Result {
    macro_rules! number {
        ($type:ty) => {
            write!(out, "{}", array.as_primitive::<$type>().value(row))
        };
    }
    macro_rules! decimal {
        ($type:ty) => {
            out.write_str(&array.as_primitive::<$type>().value_as_string(row))
        };
    }
    match array.data_type() {
        DataType::Boolean => out.write_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => push_float(out, f64::from(array.as_primitive::<Float16Type>().value(row).to_f32())),
        DataType::Float32 => push_float(out, array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => push_float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(..) => decimal!(Decimal32Type),
        DataType::Decimal64(..) => decimal!(Decimal64Type),
        DataType::Decimal128(..) => decimal!(Decimal128Type),
        DataType::Decimal256(..) => decimal!(Decimal256Type),
        DataType::Utf8 => out.write_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.write_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.write_str(array.as_string_view().value(row)),
        DataType::Binary => push_hex(out, array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => push_hex(out, array.as_binary::<i64>().value(row)),
        DataType::BinaryView => push_hex(out, array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => push_hex(out, array.as_fixed_size_binary().value(row)),
        DataType::Date32 => {
            let date = array.as_primitive::<Date32Type>().value_as_date(row).ok_or(fmt::Error)?;
            write!(out, "{}", date.format("%Y-%m-%d"))
        }
        DataType::Date64 => {
            let date = array.as_primitive::<Date64Type>().value_as_date(row).ok_or(fmt::Error)?;
            write!(out, "{}", date.format("%Y-%m-%d"))
        }
        DataType::Timestamp(_, zone) => {
            let instant = instant(array, row).ok_or(fmt::Error)?;
            push_timestamp(out, instant, zone.as_deref(), custom)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys().get(row).copied().ok_or(fmt::Error)?;
            push_text(out, dictionary.values().as_ref(), key, custom)
        }
        _ => {
            let options = FormatOptions::default().with_display_error(false);
            let formatter = ArrayFormatter::try_new(array, &options).map_err(|_| fmt::Error)?;
            write!(out, "{}", formatter.value(row))
        }
    }
}

/// The shortest digits that read back as the same number, with an exponent where digits alone would be mostly zeros;
/// `NaN` and `Infinity` are PostgreSQL's words.
fn push_float<F: Into<f64> + Copy + fmt::Display + fmt::LowerExp>(out: &mut String, float: F) -> fmt::Result {
    const DIGITS_END: f64 = 1e16;
    const FRACTION_START: f64 = 1e-5;
    let wide: f64 = float.into();
    let size = wide.abs();
    if wide.is_nan() {
        out.write_str("NaN")
    } else if wide.is_infinite() {
        out.write_str(if wide > 0.0 { "Infinity" } else { "-Infinity" })
    } else if size != 0.0 && !(FRACTION_START..DIGITS_END).contains(&size) {
        write!(out, "{float:e}")
    } else {
        write!(out, "{float}")
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

fn instant(array: &dyn Array, row: usize) -> Option<DateTime<Utc>> {
    let DataType::Timestamp(unit, _) = array.data_type() else { return None };
    let (value, per_second, nanos) = match unit {
        TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 1, 1_000_000_000),
        TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 1_000, 1_000_000),
        TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000, 1_000),
        TimeUnit::Nanosecond => (array.as_primitive::<TimestampNanosecondType>().value(row), 1_000_000_000, 1),
    };
    let fraction = u32::try_from(value.rem_euclid(per_second) * nanos).ok()?;
    DateTime::from_timestamp(value.div_euclid(per_second), fraction)
}

/// Six digits of a second, or nine where six would lose something.
fn push_timestamp(out: &mut String, instant: DateTime<Utc>, zone: Option<&str>, custom: Custom) -> fmt::Result {
    let digits = if instant.nanosecond().is_multiple_of(1_000) { SecondsFormat::Micros } else { SecondsFormat::Nanos };
    let plain = |local: NaiveDateTime| match digits {
        SecondsFormat::Micros => local.format("%Y-%m-%d %H:%M:%S%.6f"),
        _ => local.format("%Y-%m-%d %H:%M:%S%.9f"),
    };
    match (zone, custom) {
        (Some(_), Custom::Iso) => out.write_str(&instant.to_rfc3339_opts(digits, true)),
        (None, Custom::Iso) => out.write_str(instant.to_rfc3339_opts(digits, true).trim_end_matches('Z')),
        (None, Custom::Plain) => write!(out, "{}", plain(instant.naive_utc())),
        (Some("UTC" | "+00:00"), Custom::Plain) => write!(out, "{}Z", plain(instant.naive_utc())),
        (Some(zone), Custom::Plain) => {
            let zone: Tz = zone.parse().map_err(|_| fmt::Error)?;
            let local = instant.with_timezone(&zone);
            write!(out, "{}{}", plain(local.naive_local()), local.format("%:z"))
        }
    }
}
