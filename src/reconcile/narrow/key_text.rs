//! A key for people, from its message, which is the same on both sides and so prints the same.

use super::hexadecimal;
use crate::reconcile::digest::{DigestColumn, Form};
use chrono::{DateTime, Utc};
use uuid::Uuid;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const MICROS_1970_TO_2000: i64 = 10_957 * MICROS_PER_DAY;
/// A longer value is cut.
const CHARACTERS_MAX: usize = 200;

/// `id=0190…, created_at=2026-01-02T03:04:05.678901`
pub(super) fn key_text(key: &[DigestColumn], message: &[u8]) -> String {
    let mut rest = message.get(size_of::<i32>()..).unwrap_or_default();
    let mut parts = Vec::new();
    for column in key {
        let Some((value, behind)) = first_value(rest) else { break };
        let value = value.map_or_else(|| "NULL".to_owned(), |value| value_text(column.form, value));
        parts.push(format!("{}={value}", column.name));
        rest = behind;
    }
    parts.join(", ")
}

/// A value, None for NULL, and what stands behind it.
fn first_value(message: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (_oid, rest) = message.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) => rest.split_at_checked(length).map(|(value, behind)| (Some(value), behind)),
        Err(_) => Some((None, rest)),
    }
}

/// Bytes that are not of the form, as after tampering, are shown as they are.
fn value_text(form: Form, value: &[u8]) -> String {
    let text = match form {
        Form::Bool => value.first().map(|byte| if *byte == 0 { "false" } else { "true" }.to_owned()),
        Form::Int2 | Form::Int4 | Form::Int8 => integer(value).map(|number| number.to_string()),
        Form::Float4 => value.try_into().ok().map(|bytes| f32::from_be_bytes(bytes).to_string()),
        Form::Float8 => value.try_into().ok().map(|bytes| f64::from_be_bytes(bytes).to_string()),
        Form::Date => {
            let midnight = integer(value).and_then(|days| moment(days.checked_mul(MICROS_PER_DAY)?));
            midnight.map(|midnight| midnight.format("%Y-%m-%d").to_string())
        }
        Form::Timestamp => {
            integer(value).and_then(moment).map(|moment| moment.format("%Y-%m-%dT%H:%M:%S%.f").to_string())
        }
        Form::Timestamptz => {
            integer(value).and_then(moment).map(|moment| moment.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
        }
        Form::Uuid => Uuid::from_slice(value).ok().map(|uuid| uuid.to_string()),
        Form::Bytea => None,
        Form::Text | Form::Printed | Form::Decimal { .. } => std::str::from_utf8(value).ok().map(one_line),
    };
    shortened(text.unwrap_or_else(|| format!("\\x{}", hexadecimal(value))))
}

fn integer(value: &[u8]) -> Option<i64> {
    let two = || value.try_into().ok().map(|bytes| i64::from(i16::from_be_bytes(bytes)));
    let four = || value.try_into().ok().map(|bytes| i64::from(i32::from_be_bytes(bytes)));
    let eight = || value.try_into().ok().map(i64::from_be_bytes);
    two().or_else(four).or_else(eight)
}

fn moment(micros_since_2000: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros_since_2000.checked_add(MICROS_1970_TO_2000)?)
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
    line
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fields: &[(&str, Form, Option<&[u8]>)]) -> String {
        let (mut key, mut message) = (Vec::new(), i32::try_from(fields.len()).unwrap().to_be_bytes().to_vec());
        for (name, form, value) in fields {
            key.push(DigestColumn { name: (*name).to_owned(), lake_name: String::new(), form: *form });
            message.extend([0_u8; 4]);
            message.extend(value.map_or(-1_i32, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
            message.extend(value.unwrap_or_default());
        }
        key_text(&key, &message)
    }

    fn some(bytes: &[u8]) -> Option<&[u8]> {
        Some(bytes)
    }

    #[test]
    fn a_key_is_named_column_by_column() {
        let (uuid, at) = ([0x12; 16], (-1_i64).to_be_bytes());
        let shown = text(&[("id", Form::Uuid, some(&uuid)), ("created_at", Form::Timestamp, some(&at))]);
        assert_eq!(shown, "id=12121212-1212-1212-1212-121212121212, created_at=1999-12-31T23:59:59.999999");
    }

    #[test]
    fn every_form_has_a_text() {
        let (int2, int4, int8) = ((-7_i16).to_be_bytes(), 7_i32.to_be_bytes(), i64::MAX.to_be_bytes());
        let midnight = (86_400_000_000_i64 * 366).to_be_bytes();
        let decimal = Form::Decimal { precision: 5, scale: 2 };
        let shown = text(&[
            ("a", Form::Int2, some(&int2)),
            ("b", Form::Int4, some(&int4)),
            ("c", Form::Int8, some(&int8)),
            ("d", Form::Date, some(&int4)),
            ("e", Form::Timestamptz, some(&midnight)),
            ("f", decimal, some(b"-0.50")),
            ("g", Form::Text, some("日本\n".as_bytes())),
            ("h", Form::Bytea, some(&[0, 255])),
            ("i", Form::Bool, some(&[1])),
            ("j", Form::Text, None),
        ]);
        let expected = "a=-7, b=7, c=9223372036854775807, d=2000-01-08, e=2001-01-01T00:00:00Z, f=-0.50, g=日本\\n, h=\\x00ff, i=true, j=NULL";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_does_not_fit_its_form_is_bytes_and_what_is_long_is_cut() {
        let infinity = i64::MAX.to_be_bytes();
        assert_eq!(text(&[("a", Form::Timestamp, some(&infinity))]), "a=\\x7fffffffffffffff");
        assert_eq!(text(&[("a", Form::Uuid, some(b"no uuid"))]), "a=\\x6e6f2075756964");
        let long = "長".repeat(500);
        assert_eq!(text(&[("a", Form::Text, some(long.as_bytes()))]), format!("a={}…", "長".repeat(CHARACTERS_MAX)));
        assert_eq!(key_text(&[], &[]), "");
    }
}
