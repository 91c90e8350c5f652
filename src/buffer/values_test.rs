//! Every column type on its way into Arrow.

use super::table_buffer_test::{append, bound, whole};
use super::*;
use crate::base::{ColumnType, PartitionBy, SourceColumn, TableName, TableShape};
use crate::decode::Datum;
use deltalake::arrow::util::display::array_value_to_string;

/// Type, output text, send bytes, and what Arrow shows.
pub(super) const VALUES: [(ColumnType, &str, &[u8], &str); 21] = [
    (ColumnType::Date, "2026-01-02", &[0, 0, 0x25, 0x1A], "2026-01-02"),
    (ColumnType::Bool, "t", &[1], "true"),
    (ColumnType::Int2, "-2", &[0xFF, 0xFE], "-2"),
    (ColumnType::Int4, "70000", &[0, 1, 0x11, 0x70], "70000"),
    (ColumnType::Int8, "-1", &[0xFF; 8], "-1"),
    (ColumnType::Float4, "1.5", &[0x3F, 0xC0, 0, 0], "1.5"),
    (ColumnType::Float8, "-Infinity", &[0xFF, 0xF0, 0, 0, 0, 0, 0, 0], "-inf"),
    (ColumnType::Decimal { precision: 5, scale: 2 }, "1.50", &[0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 0x13, 0x88], "1.50"),
    (ColumnType::Numeric, "NaN", &[0, 0, 0, 0, 0xC0, 0, 0, 0], "NaN"),
    (ColumnType::Time, "24:00:00", &[0, 0, 0, 0x14, 0x1D, 0xD7, 0x60, 0], "24:00:00"),
    (ColumnType::Timestamp, "2000-01-01 00:00:00.000001", &[0, 0, 0, 0, 0, 0, 0, 1], "2000-01-01T00:00:00.000001Z"),
    (ColumnType::TimestampTz, "2000-01-01 00:00:00+00", &[0; 8], "2000-01-01T00:00:00Z"),
    (ColumnType::Uuid, "00000000-0000-0000-0000-000000000000", &[0; 16], "00000000-0000-0000-0000-000000000000"),
    (ColumnType::Inet, "1.2.3.4", &[2, 32, 0, 4, 1, 2, 3, 4], "1.2.3.4"),
    (ColumnType::Cidr, "10.0.0.0/8", &[2, 8, 1, 4, 10, 0, 0, 0], "10.0.0.0/8"),
    (ColumnType::MacAddr, "08:00:2b:01:02:03", &[8, 0, 0x2B, 1, 2, 3], "08:00:2b:01:02:03"),
    (ColumnType::Json, "{ }", b"{ }", "{ }"),
    (ColumnType::Jsonb, "{\"a\": 1}", b"\x01{\"a\": 1}", "{\"a\": 1}"),
    (ColumnType::Bytea, "\\x00ff", &[0, 0xFF], "00ff"),
    (ColumnType::Text, "日本", "日本".as_bytes(), "日本"),
    (ColumnType::ServerText, "{1,2}", b"{1,2}", "{1,2}"),
];

pub(super) fn every_type() -> TableShape {
    let column = |(index, value): (usize, &(ColumnType, &str, &[u8], &str))| SourceColumn {
        name: format!("column_{index}"),
        lake_name: format!("column_{index}"),
        type_oid: 1,
        type_modifier: -1,
        column_type: value.0,
        nullable: index > 0,
    };
    TableShape {
        table: TableName::new("public", "every_type"),
        columns: VALUES.iter().enumerate().map(column).collect(),
        partition_column: 0,
        partition_by: PartitionBy::Day,
        time_zone: chrono_tz::UTC,
        key: vec![0],
        identity: vec![0],
        identity_is_ambiguous: false,
    }
}

#[test]
fn d3_every_type_arrives_exactly_in_both_forms() {
    let mut buffer = bound(every_type());
    let texts: Vec<Datum<'_>> = VALUES.iter().map(|value| Datum::Text(value.1.as_bytes())).collect();
    append(&mut buffer, &texts).unwrap();
    let binaries = VALUES.iter().map(|value| match value.0 {
        ColumnType::ServerText => Datum::Text(value.1.as_bytes()),
        _ => Datum::Binary(value.2),
    });
    append(&mut buffer, &binaries.collect::<Vec<_>>()).unwrap();
    let nulls: Vec<Datum<'_>> =
        texts.iter().take(1).copied().chain(texts.iter().skip(1).map(|_| Datum::Null)).collect();
    append(&mut buffer, &nulls).unwrap();
    let batches = whole(&mut buffer);
    assert_eq!(batches.len(), 1);
    let rows = &batches[0].rows;
    assert_eq!(rows.schema(), arrow_schema(&every_type()));
    for (index, (column_type, .., expected)) in VALUES.iter().enumerate() {
        let column = rows.column(index);
        for row in 0..2 {
            assert_eq!(array_value_to_string(column, row).unwrap(), *expected, "{column_type:?} in row {row}");
        }
        assert_eq!(column.is_null(2), index > 0, "{column_type:?}");
    }
}
