//! A refusal names its row by the key, and shows nothing else of it.

use super::table_buffer_test::{append, bound};
use super::{BufferError, RefusedCell};
use crate::base::{ColumnType, PartitionBy, SourceColumn, TableName, TableShape};
use crate::decode::Datum;

const CANARY: &str = "canary-5e1f";

/// id, created_at: the key. note, amount: contents.
fn shape(key_type: ColumnType, key: &[usize]) -> TableShape {
    let column = |name: &str, column_type, nullable| SourceColumn {
        name: name.into(),
        lake_name: name.into(),
        type_oid: 1,
        type_modifier: -1,
        column_type,
        nullable,
    };
    TableShape {
        table: TableName::new("public", "event"),
        columns: vec![
            column("note", ColumnType::Text, true),
            column("id", key_type, false),
            column("amount", ColumnType::Decimal { precision: 5, scale: 2 }, false),
            column("created_at", ColumnType::Timestamp, false),
        ],
        partition_column: 3,
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        key: key.to_vec(),
        identity: key.to_vec(),
        identity_is_ambiguous: false,
    }
}

/// The message of a refusal, after looking for the canary in everything that the error can be printed as.
fn refusal(shape: TableShape, columns: &[Datum<'_>]) -> String {
    let error = append(&mut bound(shape), columns).unwrap_err();
    let (message, debug) = (error.to_string(), format!("{error:?}{error:#?}"));
    assert!(!message.contains(CANARY) && !debug.contains(CANARY), "{message}\n{debug}");
    assert!(!message.chars().any(|character| character.is_control()), "one line: {message:?}");
    message
}

const NOTE: Datum<'_> = Datum::Text(CANARY.as_bytes());
const AT: Datum<'_> = Datum::Text(b"2026-01-01 00:00:00");
const NAN: Datum<'_> = Datum::Text(b"NaN");

#[test]
fn d3_a_refusal_names_the_rows_key_and_no_contents() {
    let keyed = || shape(ColumnType::Int8, &[1, 3]);
    let at = (3_600_000_000_i64).to_be_bytes();
    let cases: [(&[Datum<'_>], &str); 5] = [
        (&[NOTE, Datum::Text(b"7"), NAN, AT], "amount of row id=7, created_at=2026-01-01 00:00:00: a numeric NaN"),
        (
            &[NOTE, Datum::Binary(&[0, 0, 0, 0, 0, 0, 0, 7]), NAN, Datum::Binary(&at)],
            "amount of row id=7, created_at=2000-01-01 01:00:00: a numeric NaN",
        ),
        (&[NOTE, Datum::Text(b"7"), NOTE, AT], "amount of row id=7, created_at=2026-01-01 00:00:00: it is not a well-"),
        (&[NOTE, NOTE, NAN, AT], "id of row id=?, created_at=2026-01-01 00:00:00: it is not a well-formed int8"),
        (&[NOTE, Datum::Null, NAN, AT], "id of row id=NULL, created_at=2026-01-01 00:00:00: it is NULL"),
    ];
    for (columns, expected) in cases {
        let message = refusal(keyed(), columns);
        assert!(message.starts_with(&format!("public.event.{expected}")), "{message}");
    }
    let keyless = refusal(shape(ColumnType::Int8, &[]), &[NOTE, Datum::Text(b"7"), NAN, AT]);
    assert!(keyless.starts_with("public.event.amount of a row without a key: a numeric NaN"), "{keyless}");
}

#[test]
fn d3_an_infinite_partition_column_is_printed_in_the_key() {
    let infinity = i64::MAX.to_be_bytes();
    for infinite in [Datum::Text(b"infinity"), Datum::Binary(&infinity)] {
        let message =
            refusal(shape(ColumnType::Int8, &[1, 3]), &[NOTE, Datum::Text(b"7"), Datum::Text(b"1"), infinite]);
        let expected = "public.event.created_at of row id=7, created_at=infinity: an infinite timestamp";
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains("lakebed skip") && message.contains("on_error"), "{message}");
        assert!(!message.contains("text_columns"), "the partition column cannot be text: {message}");
    }
    let message = refusal(shape(ColumnType::Int8, &[1]), &[NOTE, Datum::Text(b"7"), Datum::Text(b"1"), Datum::Null]);
    assert!(message.starts_with("public.event.created_at of row id=7: NULL in the partition column"), "{message}");
}

#[test]
fn a_key_is_shown_on_one_line_and_in_bounds() {
    let long = "é".repeat(500);
    let cases = [
        ("a\nb\u{1b}[31m\u{202e}\u{7f}".to_owned(), r"id=a\nb\u{1b}[31m\u{202e}\u{7f}:".to_owned()),
        (long, format!("id={}…:", "é".repeat(64))),
        ("é".repeat(64), format!("id={}:", "é".repeat(64))),
        (String::new(), "id=:".to_owned()),
    ];
    for (id, expected) in cases {
        let message = refusal(shape(ColumnType::Text, &[1]), &[NOTE, Datum::Text(id.as_bytes()), NAN, AT]);
        assert!(message.contains(&expected), "{message}");
    }
    let message = refusal(shape(ColumnType::Text, &[1]), &[NOTE, Datum::Text(b"\xff"), NAN, AT]);
    assert!(message.starts_with("public.event.id of row id=?: its bytes are not UTF-8"), "{message}");
}

#[test]
fn a_value_that_does_not_fit_has_its_remedies() {
    let message = refusal(shape(ColumnType::Int8, &[1]), &[NOTE, Datum::Text(b"7"), NAN, AT]);
    for remedy in ["text_columns", "[[table]]", "anew", "`lakebed skip`", "on_error = \"park\""] {
        assert!(message.contains(remedy), "{remedy} is not in: {message}");
    }
}

/// `public.event.amount of row id=7`, out of a row with contents.
pub(super) fn refused_cell() -> RefusedCell {
    let error = append(&mut bound(shape(ColumnType::Int8, &[1])), &[NOTE, Datum::Text(b"7"), NAN, AT]).unwrap_err();
    match error {
        BufferError::Value { cell, .. } => *cell,
        error => panic!("{error}"),
    }
}
