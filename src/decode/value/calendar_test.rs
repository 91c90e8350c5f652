//! Texts and send bytes that a PostgreSQL 15 gave for the same dates and times.

use super::numeric_test::unhex;
use super::*;

const BC: &str = "before";
const FAR: &str = "after";
const INFINITE: &str = "infinite";

fn outcome<T: Copy>(result: Result<T, ValueError>) -> Result<T, &'static str> {
    result.map_err(|error| match error {
        ValueError::BeforeYearOne { .. } => BC,
        ValueError::AfterYear9999 { .. } => FAR,
        ValueError::Infinite { .. } => INFINITE,
        ValueError::NotUtc => "not utc",
        _ => "malformed",
    })
}

#[test]
fn d3_a_date_is_exact_or_refused() {
    let cases = [
        ("0001-01-01", "fff4dbf9", Ok(-719_162)),
        ("9999-12-31", "002c95d3", Ok(2_932_896)),
        ("10000-01-01", "002c95d4", Err(FAR)),
        ("0001-12-31 BC", "fff4dbf8", Err(BC)),
        ("2024-02-29", "00002279", Ok(19_782)),
        ("1969-12-31", "ffffd532", Ok(-1)),
        ("infinity", "7fffffff", Err(INFINITE)),
        ("-infinity", "80000000", Err(INFINITE)),
    ];
    for (text, sent, expected) in cases {
        assert_eq!(outcome(date(Encoded::Text(text.as_bytes()))), expected, "{text}");
        assert_eq!(outcome(date(Encoded::Binary(&unhex(sent)))), expected, "{text}");
    }
    for text in
        ["2023-02-29", "1900-02-29", "0000-01-01", "2024-13-01", "2024-00-01", "2024-01-32", "2024-1-1", "", "x"]
    {
        assert_eq!(outcome(date(Encoded::Text(text.as_bytes()))), Err("malformed"), "{text}");
    }
}

#[test]
fn d3_a_timestamp_is_exact_or_refused() {
    let cases = [
        ("0001-01-01 00:00:00", "ff1fe2ffc59c6000", Ok(-719_162 * 86_400_000_000)),
        ("9999-12-31 23:59:59.999999", "0380e70b913b7fff", Ok(2_932_897 * 86_400_000_000 - 1)),
        ("10000-01-01 00:00:00", "0380e70b913b8000", Err(FAR)),
        ("0001-12-31 00:00:00 BC", "ff1fe2eba7c50000", Err(BC)),
        ("2024-02-29 12:00:00.1", "0002b582c47996a0", Ok(1_709_208_000_100_000)),
        ("1969-12-31 23:59:59.999999", "fffca2fec4c81fff", Ok(-1)),
        ("infinity", "7fffffffffffffff", Err(INFINITE)),
        ("-infinity", "8000000000000000", Err(INFINITE)),
    ];
    for (text, sent, expected) in cases {
        let with_offset = match text {
            "infinity" | "-infinity" => text.to_owned(),
            _ => text.replacen(" BC", "", 1) + "+00" + if text.ends_with(" BC") { " BC" } else { "" },
        };
        let sent = unhex(sent);
        assert_eq!(outcome(timestamp(Encoded::Text(text.as_bytes()))), expected, "{text}");
        assert_eq!(outcome(timestamptz(Encoded::Text(with_offset.as_bytes()))), expected, "{with_offset}");
        assert_eq!(outcome(timestamp(Encoded::Binary(&sent))), expected, "{text}");
        assert_eq!(outcome(timestamptz(Encoded::Binary(&sent))), expected, "{text}");
    }
    let japan = timestamptz(Encoded::Text(b"2024-02-29 12:00:00+09"));
    assert_eq!(outcome(japan), Err("not utc"));
    for text in
        ["2024-02-29", "2024-02-29T12:00:00", "2024-02-29 24:00:00", "2024-02-29 12:00:00+00", "2024-02-29 12:00"]
    {
        assert_eq!(outcome(timestamp(Encoded::Text(text.as_bytes()))), Err("malformed"), "{text}");
    }
}

#[test]
fn a_time_is_printed_as_the_server_does() {
    let cases = [
        ("00:00:00", "0000000000000000"),
        ("24:00:00", "000000141dd76000"),
        ("23:59:59.999999", "000000141dd75fff"),
        ("12:34:56.5", "0000000a8be1bd20"),
        ("01:02:03.00001", "00000000dde878ca"),
    ];
    for (text, sent) in cases {
        for encoded in [Encoded::Text(text.as_bytes()), Encoded::Binary(&unhex(sent))] {
            let mut out = String::new();
            time(encoded, &mut out).unwrap();
            assert_eq!(out, text);
        }
    }
    for wrong in ["24:00:00.000001", "12:60:00", "12:00:60", "1:00:00", "12:00:00.", "12:00:00.1234567", ""] {
        assert!(time(Encoded::Text(wrong.as_bytes()), &mut String::new()).is_err(), "{wrong}");
    }
    for wrong in ["000000141dd76001", "ffffffffffffffff", "00"] {
        assert!(time(Encoded::Binary(&unhex(wrong)), &mut String::new()).is_err(), "{wrong}");
    }
}
