//! Any value as PostgreSQL's output text, for messages: nothing here is on a good row's way.

use super::calendar::{DAYS_1970_TO_2000, MICROS_1970_TO_2000, MICROS_PER_DAY};
use super::calendar_text::push_moment;
use super::text::hex_pair;
use super::{Encoded, UUID_TEXT_BYTES, ValueError, exactly};
use crate::base::ColumnType;
use std::fmt::Write;

/// Powers of ten from which float8out and float4out write an exponent (DBL_DIG and FLT_DIG).
const FLOAT8_EXPONENT_FROM: i32 = 15;
const FLOAT4_EXPONENT_FROM: i32 = 6;
const FLOAT_EXPONENT_BELOW: i32 = -4;

/// Appends the value as the server prints it under the pinned settings, also where the lake's type could not hold it
/// (`infinity`, `0044-03-15 BC`).
///
/// # Errors
/// [`ValueError`] for bytes that are not the type's form; `out` may have grown.
pub fn print(column_type: ColumnType, encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    match column_type {
        ColumnType::Bool => out.push(if super::boolean(encoded)? { 't' } else { 'f' }),
        ColumnType::Int2 => push_number(super::int2(encoded)?, out),
        ColumnType::Int4 => push_number(super::int4(encoded)?, out),
        ColumnType::Int8 => push_number(super::int8(encoded)?, out),
        ColumnType::Float4 => push_float4(super::float4(encoded)?, out),
        ColumnType::Float8 => push_float8(super::float8(encoded)?, out),
        ColumnType::Decimal { .. } | ColumnType::Numeric => super::numeric(encoded, out)?,
        ColumnType::Date => print_date(encoded, out)?,
        ColumnType::Timestamp => print_timestamp(encoded, "timestamp", "", out)?,
        ColumnType::TimestampTz => print_timestamp(encoded, "timestamptz", "+00", out)?,
        ColumnType::Time => super::time(encoded, out)?,
        ColumnType::Uuid => out.push_str(super::uuid(encoded, &mut [0; UUID_TEXT_BYTES])?),
        ColumnType::Inet => super::inet(encoded, out)?,
        ColumnType::Cidr => super::cidr(encoded, out)?,
        ColumnType::MacAddr => super::macaddr(encoded, out)?,
        ColumnType::Json | ColumnType::Text => out.push_str(super::text(encoded)?),
        ColumnType::Jsonb => out.push_str(super::jsonb(encoded)?),
        ColumnType::ServerText => out.push_str(super::server_text(encoded)?),
        ColumnType::Bytea => {
            out.push_str("\\x");
            let mut scratch = Vec::new();
            out.extend(super::bytea(encoded, &mut scratch)?.iter().flat_map(|byte| hex_pair(*byte)).map(char::from));
        }
    }
    Ok(())
}

fn push_number(number: impl std::fmt::Display, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{number}");
}

/// The text is the value, where it is the type's; one that only the lake cannot hold is.
fn push_sound<T>(text: &[u8], decoded: Result<T, ValueError>, out: &mut String) -> Result<(), ValueError> {
    match decoded {
        Err(error) if !error.is_misfit() => Err(error),
        Ok(_) | Err(_) => {
            out.push_str(super::text(Encoded::Text(text))?);
            Ok(())
        }
    }
}

fn print_date(encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    match encoded {
        Encoded::Text(text) => push_sound(text, super::date(encoded), out)?,
        Encoded::Binary(bytes) => match i32::from_be_bytes(exactly(bytes, "date")?) {
            i32::MAX => out.push_str("infinity"),
            i32::MIN => out.push_str("-infinity"),
            since_2000 => push_moment(i64::from(since_2000) + i64::from(DAYS_1970_TO_2000), None, "", out),
        },
    }
    Ok(())
}

fn print_timestamp(encoded: Encoded<'_>, kind: &'static str, offset: &str, out: &mut String) -> Result<(), ValueError> {
    match encoded {
        Encoded::Text(text) if offset.is_empty() => push_sound(text, super::timestamp(encoded), out)?,
        Encoded::Text(text) => push_sound(text, super::timestamptz(encoded), out)?,
        Encoded::Binary(bytes) => match i64::from_be_bytes(exactly(bytes, kind)?) {
            i64::MAX => out.push_str("infinity"),
            i64::MIN => out.push_str("-infinity"),
            since_2000 => {
                let micros = since_2000.saturating_add(MICROS_1970_TO_2000);
                push_moment(micros.div_euclid(MICROS_PER_DAY), Some(micros.rem_euclid(MICROS_PER_DAY)), offset, out);
            }
        },
    }
    Ok(())
}

fn push_float8(value: f64, out: &mut String) {
    let finite = value.is_finite().then(|| format!("{value:e}"));
    push_float(finite.as_deref(), value, FLOAT8_EXPONENT_FROM, out);
}

fn push_float4(value: f32, out: &mut String) {
    let finite = value.is_finite().then(|| format!("{value:e}"));
    push_float(finite.as_deref(), f64::from(value), FLOAT4_EXPONENT_FROM, out);
}

/// `scientific` is the shortest text that reads back as the same bits, as `-1.25e-7`.
fn push_float(scientific: Option<&str>, value: f64, exponent_from: i32, out: &mut String) {
    let Some((mantissa, exponent)) = scientific.and_then(|text| text.split_once('e')) else {
        out.push_str(match value {
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => "NaN",
        });
        return;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(FLOAT_EXPONENT_BELOW..exponent_from).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
        return;
    }
    let digits = mantissa.strip_prefix('-').inspect(|_| out.push('-')).unwrap_or(mantissa).replace('.', "");
    let point = usize::try_from(exponent + 1).unwrap_or(0);
    if point == 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        let _ = write!(out, "0.{}{digits}", "0".repeat(zeros));
    } else {
        let (whole, fraction) = digits.split_at_checked(point).unwrap_or((digits.as_str(), ""));
        let zeros = point.saturating_sub(digits.len());
        let _ = write!(out, "{whole}{}{}{fraction}", "0".repeat(zeros), if fraction.is_empty() { "" } else { "." });
    }
}
