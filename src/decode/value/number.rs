//! bool, integers and floats.

use super::{Encoded, ValueError, exactly};
use std::str::FromStr;

/// `bool`: `t` and `f`, or one byte 1 and 0.
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn boolean(encoded: Encoded<'_>) -> Result<bool, ValueError> {
    match encoded {
        Encoded::Text(b"t") | Encoded::Binary([1]) => Ok(true),
        Encoded::Text(b"f") | Encoded::Binary([0]) => Ok(false),
        _ => Err(ValueError::Malformed { kind: "bool" }),
    }
}

/// `int2`
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn int2(encoded: Encoded<'_>) -> Result<i16, ValueError> {
    match encoded {
        Encoded::Text(text) => integer(text, "int2"),
        Encoded::Binary(bytes) => exactly(bytes, "int2").map(i16::from_be_bytes),
    }
}

/// `int4`
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn int4(encoded: Encoded<'_>) -> Result<i32, ValueError> {
    match encoded {
        Encoded::Text(text) => integer(text, "int4"),
        Encoded::Binary(bytes) => exactly(bytes, "int4").map(i32::from_be_bytes),
    }
}

/// `int8`
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn int8(encoded: Encoded<'_>) -> Result<i64, ValueError> {
    match encoded {
        Encoded::Text(text) => integer(text, "int8"),
        Encoded::Binary(bytes) => exactly(bytes, "int8").map(i64::from_be_bytes),
    }
}

/// The output functions print no plus sign, which the parser of the standard library would take.
fn integer<T: FromStr>(text: &[u8], kind: &'static str) -> Result<T, ValueError> {
    let malformed = ValueError::Malformed { kind };
    match text.first() {
        Some(b'+') | None => Err(malformed),
        Some(_) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(malformed),
    }
}

/// `float4`; every NaN becomes the one quiet NaN, as PostgreSQL tells none apart.
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn float4(encoded: Encoded<'_>) -> Result<f32, ValueError> {
    let value = match encoded {
        Encoded::Text(b"NaN") => f32::NAN,
        Encoded::Text(b"Infinity") => f32::INFINITY,
        Encoded::Text(b"-Infinity") => f32::NEG_INFINITY,
        Encoded::Text(text) => finite_float(text)
            .filter(|value: &f32| value.is_finite())
            .ok_or(ValueError::Malformed { kind: "float4" })?,
        Encoded::Binary(bytes) => f32::from_be_bytes(exactly(bytes, "float4")?),
    };
    Ok(if value.is_nan() { f32::NAN } else { value })
}

/// `float8`; every NaN becomes the one quiet NaN, as PostgreSQL tells none apart.
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn float8(encoded: Encoded<'_>) -> Result<f64, ValueError> {
    let value = match encoded {
        Encoded::Text(b"NaN") => f64::NAN,
        Encoded::Text(b"Infinity") => f64::INFINITY,
        Encoded::Text(b"-Infinity") => f64::NEG_INFINITY,
        Encoded::Text(text) => finite_float(text)
            .filter(|value: &f64| value.is_finite())
            .ok_or(ValueError::Malformed { kind: "float8" })?,
        Encoded::Binary(bytes) => f64::from_be_bytes(exactly(bytes, "float8")?),
    };
    Ok(if value.is_nan() { f64::NAN } else { value })
}

/// With extra_float_digits above 0 the server prints the shortest text that reads back as the same bits.
fn finite_float<T: FromStr>(text: &[u8]) -> Option<T> {
    let starts_as_number = matches!(text.first(), Some(b'-' | b'0'..=b'9'));
    let is_number = text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'));
    if starts_as_number && is_number { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bool_is_one_of_two() {
        assert_eq!(boolean(Encoded::Text(b"t")), Ok(true));
        assert_eq!(boolean(Encoded::Binary(&[0])), Ok(false));
        for wrong in [Encoded::Text(b"true"), Encoded::Text(b""), Encoded::Binary(&[2]), Encoded::Binary(&[])] {
            assert!(boolean(wrong).is_err());
        }
    }

    #[test]
    fn integers_refuse_what_no_output_function_prints() {
        assert_eq!(int8(Encoded::Text(b"-9223372036854775808")), Ok(i64::MIN));
        for wrong in [&b"+1"[..], b"", b" 1", b"32768", b"1.0", b"\xff"] {
            assert!(int2(Encoded::Text(wrong)).is_err());
        }
        assert!(int4(Encoded::Binary(&[0; 8])).is_err());
    }

    #[test]
    fn floats_keep_their_edges() {
        assert!(float8(Encoded::Text(b"NaN")).unwrap().is_nan());
        assert_eq!(float8(Encoded::Text(b"-Infinity")), Ok(f64::NEG_INFINITY));
        assert_eq!(float8(Encoded::Text(b"-0")).unwrap().to_bits(), (-0.0_f64).to_bits());
        assert_eq!(float8(Encoded::Text(b"5e-324")), Ok(5e-324));
        assert_eq!(float8(Encoded::Text(b"1.7976931348623157e+308")), Ok(f64::MAX));
        assert_eq!(float4(Encoded::Text(b"1e-45")), Ok(1e-45));
        let signalling = 0x7FF0_0000_0000_0001_u64.to_be_bytes();
        assert_eq!(float8(Encoded::Binary(&signalling)).unwrap().to_bits(), f64::NAN.to_bits());
        for wrong in [&b"inf"[..], b"nan", b"1e999", b"", b"+1", b"infinity", b"-", b"0x1"] {
            assert!(float8(Encoded::Text(wrong)).is_err());
            assert!(float4(Encoded::Text(wrong)).is_err());
        }
    }
}
