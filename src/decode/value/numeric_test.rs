//! Texts and send bytes that a PostgreSQL 15 gave for the same numerics.

use super::*;

const PAIRS: [(&str, &str); 18] = [
    ("0", "0000000000000000"),
    ("0.000", "0000000000000003"),
    ("0.00000000000000000001", "0001fffb000000140001"),
    ("-0.00001", "0001fffe4000000503e8"),
    ("12345.6789", "0003000100000004000109291a85"),
    ("10000", "00010001000000000001"),
    ("0.0001", "0001ffff000000040001"),
    ("99999999999999999999999999999999999999", "000a0009000000000063270f270f270f270f270f270f270f270f270f"),
    ("-1234567890.0123456789", "000600024000000a000c0d801ed2007b11d722c4"),
    ("NaN", "00000000c0000000"),
    ("Infinity", "00000000d0000020"),
    ("-Infinity", "00000000f0000020"),
    ("1.50", "000200000000000200011388"),
    ("100000000", "00010002000000000001"),
    ("0.10000", "0001ffff0000000503e8"),
    ("0.0", "0000000000000001"),
    ("9999.9999", "0002000000000004270f270f"),
    ("10000.00010", "0003000100000005000100000001"),
];

pub(super) fn unhex(digits: &str) -> Vec<u8> {
    let mut scratch = Vec::new();
    bytea(Encoded::Text(format!("\\x{digits}").as_bytes()), &mut scratch).unwrap().to_vec()
}

fn text_of(encoded: Encoded<'_>) -> Result<String, ValueError> {
    let mut out = String::new();
    numeric(encoded, &mut out).map(|()| out)
}

#[test]
fn a_numeric_keeps_postgresqls_text() {
    for (text, sent) in PAIRS {
        assert_eq!(text_of(Encoded::Binary(&unhex(sent))).as_deref(), Ok(text));
        assert_eq!(text_of(Encoded::Text(text.as_bytes())).as_deref(), Ok(text));
    }
}

#[test]
fn a_decimal_is_scaled_exactly_or_refused() {
    let cases = [
        ("12345.6789", 9, 4, Some(123_456_789)),
        ("12345.6789", 10, 5, Some(1_234_567_890)),
        ("12345.6789", 8, 4, None),
        ("12345.6789", 9, 3, None),
        ("-0.00001", 5, 5, Some(-1)),
        ("0.000", 3, 3, Some(0)),
        ("0.000", 3, 2, None),
        ("1.50", 3, 2, Some(150)),
        ("0.00000000000000000001", 38, 20, Some(1)),
        ("99999999999999999999999999999999999999", 38, 0, Some(10_i128.pow(38) - 1)),
        ("99999999999999999999999999999999999999", 38, 1, None),
        ("NaN", 38, 0, None),
        ("-Infinity", 38, 0, None),
    ];
    for (text, precision, scale, expected) in cases {
        let sent = PAIRS.iter().find(|pair| pair.0 == text).map(|pair| unhex(pair.1)).unwrap();
        assert_eq!(decimal(Encoded::Binary(&sent), precision, scale).ok(), expected, "{text} binary");
        assert_eq!(decimal(Encoded::Text(text.as_bytes()), precision, scale).ok(), expected, "{text} text");
    }
}

#[test]
fn d1_a_broken_numeric_is_refused() {
    // Count against length, a group over 9999, an unknown sign, a display scale over its mask, digits behind the display scale.
    let sent = [
        "",
        "0001000000000000",
        "00010000000000002710",
        "0000000010000000",
        "000000000000ffff",
        "0001ffff000000030001",
    ];
    for digits in sent {
        assert!(text_of(Encoded::Binary(&unhex(digits))).is_err(), "{digits}");
    }
    for text in ["", "-", ".", "1.", ".5", "+1", "1e5", "nan", "1.2.3", "--1", "1 "] {
        assert!(text_of(Encoded::Text(text.as_bytes())).is_err(), "{text}");
        assert!(decimal(Encoded::Text(text.as_bytes()), 38, 10).is_err(), "{text}");
    }
}
