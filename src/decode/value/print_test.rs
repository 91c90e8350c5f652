//! Every type as the server prints it, from both forms.

use super::*;
use crate::base::ColumnType;
use proptest::prelude::*;

fn printed(column_type: ColumnType, encoded: Encoded<'_>) -> Result<String, ValueError> {
    let mut out = String::new();
    print(column_type, encoded, &mut out).map(|()| out)
}

fn micros_since_2000(micros: i64) -> [u8; 8] {
    micros.to_be_bytes()
}

#[test]
fn what_the_lake_cannot_hold_is_printed_all_the_same() {
    let day = |days: i32| days.to_be_bytes();
    // SELECT d, d - '2000-01-01'::date … on a server.
    let dates: [(&str, [u8; 4]); 7] = [
        ("infinity", day(i32::MAX)),
        ("-infinity", day(i32::MIN)),
        ("0001-01-01", day(-730_119)),
        ("0001-12-31 BC", day(-730_120)),
        ("4713-01-01 BC", day(-2_451_507)),
        ("10000-01-01", day(2_921_940)),
        ("5874897-12-31", day(2_145_031_948)),
    ];
    for (text, sent) in dates {
        assert_eq!(printed(ColumnType::Date, Encoded::Binary(&sent)).as_deref(), Ok(text));
        assert_eq!(printed(ColumnType::Date, Encoded::Text(text.as_bytes())).as_deref(), Ok(text));
    }
    let moments: [(&str, i64); 5] = [
        ("infinity", i64::MAX),
        ("-infinity", i64::MIN),
        ("2000-01-01 00:00:00", 0),
        ("1999-12-31 23:59:59.999999", -1),
        ("0001-12-31 23:59:59.5 BC", -730_119 * 86_400_000_000 - 500_000),
    ];
    for (text, micros) in moments {
        let sent = micros_since_2000(micros);
        assert_eq!(printed(ColumnType::Timestamp, Encoded::Binary(&sent)).as_deref(), Ok(text));
        assert_eq!(printed(ColumnType::Timestamp, Encoded::Text(text.as_bytes())).as_deref(), Ok(text));
        let zoned = match text.strip_suffix(" BC") {
            Some(moment) => format!("{moment}+00 BC"),
            None if text.ends_with("infinity") => text.to_owned(),
            None => format!("{text}+00"),
        };
        assert_eq!(printed(ColumnType::TimestampTz, Encoded::Binary(&sent)).as_deref(), Ok(zoned.as_str()));
        assert_eq!(printed(ColumnType::TimestampTz, Encoded::Text(zoned.as_bytes())).as_deref(), Ok(zoned.as_str()));
    }
    let decimal = ColumnType::Decimal { precision: 10, scale: 2 };
    assert_eq!(printed(decimal, Encoded::Binary(&[0, 0, 0, 0, 0xC0, 0, 0, 0])).as_deref(), Ok("NaN"));
}

/// SELECT v::float8, v::float4 on a server with extra_float_digits 3.
#[test]
fn floats_are_spelt_as_the_server_does() {
    let doubles = [
        (0.0, "0"),
        (-0.0, "-0"),
        (100_000_000_000_000.0, "100000000000000"),
        (1e15, "1e+15"),
        (0.0001, "0.0001"),
        (0.000_012_5, "1.25e-05"),
        (-123.456, "-123.456"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    for (value, text) in doubles {
        assert_eq!(printed(ColumnType::Float8, Encoded::Binary(&value.to_be_bytes())).as_deref(), Ok(text));
        assert_eq!(printed(ColumnType::Float8, Encoded::Text(text.as_bytes())).as_deref(), Ok(text));
    }
    let singles = [(100_000.0_f32, "100000"), (1e6, "1e+06"), (0.1, "0.1"), (1e-45, "1e-45"), (1.5, "1.5")];
    for (value, text) in singles {
        assert_eq!(printed(ColumnType::Float4, Encoded::Binary(&value.to_be_bytes())).as_deref(), Ok(text));
    }
}

#[test]
fn other_types_are_printed_from_their_send_form() {
    let cases: [(ColumnType, &[u8], &str); 6] = [
        (ColumnType::Bool, &[1], "t"),
        (ColumnType::Int8, &[0xFF; 8], "-1"),
        (ColumnType::Bytea, &[0, 0xFF], "\\x00ff"),
        (ColumnType::Jsonb, b"\x01{}", "{}"),
        (ColumnType::Uuid, &[0; 16], "00000000-0000-0000-0000-000000000000"),
        (ColumnType::MacAddr, &[8, 0, 0x2B, 1, 2, 3], "08:00:2b:01:02:03"),
    ];
    for (column_type, sent, text) in cases {
        assert_eq!(printed(column_type, Encoded::Binary(sent)).as_deref(), Ok(text));
    }
    assert!(printed(ColumnType::Int4, Encoded::Text(b"secret")).is_err());
    assert!(printed(ColumnType::Date, Encoded::Text(b"secret")).is_err());
    assert!(printed(ColumnType::TimestampTz, Encoded::Text(b"2026-01-01 00:00:00+09")).is_err());
}

proptest! {
    /// Printing and reading are each other's inverse.
    #[test]
    fn what_is_printed_reads_back(days in -719_162..=2_932_896_i32, micros in -62_135_596_800_000_000..=253_402_300_799_999_999_i64, bits: u64) {
        let sent = (days - 10_957).to_be_bytes();
        let text = printed(ColumnType::Date, Encoded::Binary(&sent)).unwrap();
        prop_assert_eq!(date(Encoded::Text(text.as_bytes())), Ok(days));
        let sent = (micros - 946_684_800_000_000).to_be_bytes();
        let text = printed(ColumnType::TimestampTz, Encoded::Binary(&sent)).unwrap();
        prop_assert_eq!(timestamptz(Encoded::Text(text.as_bytes())), Ok(micros));
        let value = f64::from_bits(bits);
        let text = printed(ColumnType::Float8, Encoded::Binary(&bits.to_be_bytes())).unwrap();
        let read = float8(Encoded::Text(text.as_bytes())).unwrap();
        prop_assert!(read.to_bits() == value.to_bits() || read.is_nan() && value.is_nan());
    }
}
