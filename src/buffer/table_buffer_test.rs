//! Rows, partitions and refusals of a buffer.

use super::*;
use crate::base::{ColumnType, PartitionBy, SourceColumn, TableName, TableShape};
use crate::decode::value::ValueError;
use crate::decode::{Datum, Message, Relation, RelationColumn, ReplicaIdentity, encode, parse};
use deltalake::arrow::array::{Array, AsArray};
use deltalake::arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use proptest::prelude::*;
use std::sync::Arc;

const MICROS_PER_DAY: i64 = 86_400_000_000;
const DAYS_1970_TO_2000: i64 = 10_957;

fn column(name: &str, type_oid: u32, column_type: ColumnType, nullable: bool) -> SourceColumn {
    SourceColumn { name: name.into(), lake_name: name.into(), type_oid, type_modifier: -1, column_type, nullable }
}

fn shape(dated_by: ColumnType, partition_by: PartitionBy, zone: chrono_tz::Tz) -> TableShape {
    TableShape {
        table: TableName::new("public", "event"),
        columns: vec![
            column("number", 23, ColumnType::Int4, false),
            column("note", 25, ColumnType::Text, true),
            column("created_at", 1114, dated_by, dated_by == ColumnType::Date),
        ],
        partition_column: 2,
        partition_by,
        time_zone: zone,
        key: vec![0],
        identity: vec![0],
        identity_is_ambiguous: false,
    }
}

pub(super) fn relation(shape: &TableShape) -> Relation {
    let columns = shape.columns.iter().map(|column| RelationColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        is_key: false,
    });
    Relation {
        oid: 1,
        schema: shape.table.schema.clone(),
        name: shape.table.name.clone(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns.collect(),
    }
}

pub(super) fn append(buffer: &mut TableBuffer, columns: &[Datum<'_>]) -> Result<(), BufferError> {
    let bytes = encode::insert(1, columns);
    let Ok(Message::Insert { new, .. }) = parse(&bytes, false) else { panic!("an Insert") };
    buffer.append(&new, None)
}

/// Everything, as after the end of a transaction.
pub(super) fn whole(buffer: &mut TableBuffer) -> Vec<PartitionBatch> {
    buffer.end_transaction();
    buffer.cut().unwrap().ended
}

pub(super) fn timestamps() -> TableBuffer {
    bound(shape(ColumnType::Timestamp, PartitionBy::Day, chrono_tz::UTC))
}

pub(super) fn bound(shape: TableShape) -> TableBuffer {
    let relation = relation(&shape);
    let mut buffer = TableBuffer::new(Arc::new(shape));
    buffer.bind(&relation).unwrap();
    buffer
}

pub(super) fn row(buffer: &mut TableBuffer, number: i32, note: &str, micros: i64) -> Result<(), BufferError> {
    let sent = (micros - DAYS_1970_TO_2000 * MICROS_PER_DAY).to_be_bytes();
    append(buffer, &[Datum::Binary(&number.to_be_bytes()), Datum::Text(note.as_bytes()), Datum::Binary(&sent)])
}

fn partitions(buffer: &mut TableBuffer) -> Vec<(String, usize)> {
    let batches = whole(buffer);
    batches.iter().map(|batch| (batch.partition.to_string(), batch.rows.num_rows())).collect()
}

#[test]
fn l3_a_day_ends_with_its_last_microsecond() {
    let mut buffer = timestamps();
    for day in [-719_162, -1, 0, 19_782, 2_932_896_i64] {
        row(&mut buffer, 1, "", day * MICROS_PER_DAY).unwrap();
        row(&mut buffer, 2, "", (day + 1) * MICROS_PER_DAY - 1).unwrap();
    }
    let days = ["0001-01-01", "1969-12-31", "1970-01-01", "2024-02-29", "9999-12-31"];
    assert_eq!(partitions(&mut buffer), days.map(|day| (day.to_owned(), 2)));
    assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
}

#[test]
fn l3_a_timestamptz_is_cut_in_the_tables_zone() {
    let mut buffer = bound(shape(ColumnType::TimestampTz, PartitionBy::Day, chrono_tz::Asia::Tokyo));
    let tokyo_midnight = 19_782 * MICROS_PER_DAY - 9 * 3_600_000_000;
    row(&mut buffer, 1, "", tokyo_midnight - 1).unwrap();
    row(&mut buffer, 2, "", tokyo_midnight).unwrap();
    let days = [("2024-02-28".to_owned(), 1), ("2024-02-29".to_owned(), 1)];
    assert_eq!(partitions(&mut buffer), days);
    let beyond = row(&mut buffer, 3, "", 2_932_897 * MICROS_PER_DAY - 1);
    assert!(matches!(beyond, Err(BufferError::Value { source: ValueError::AfterYear9999 { .. }, .. })));
    let mut utc = bound(shape(ColumnType::TimestampTz, PartitionBy::Day, chrono_tz::UTC));
    row(&mut utc, 1, "", tokyo_midnight).unwrap();
    assert_eq!(partitions(&mut utc), [("2024-02-28".to_owned(), 1)]);
}

#[test]
fn months_gather_their_days() {
    let mut buffer = bound(shape(ColumnType::Date, PartitionBy::Month, chrono_tz::UTC));
    for date in ["2024-03-01", "2024-02-29", "2024-02-01", "2024-02-29"] {
        append(&mut buffer, &[Datum::Text(b"1"), Datum::Null, Datum::Text(date.as_bytes())]).unwrap();
    }
    assert_eq!(partitions(&mut buffer), [("2024-02".to_owned(), 3), ("2024-03".to_owned(), 1)]);
}

#[test]
fn columns_are_matched_by_name() {
    let shape = shape(ColumnType::Timestamp, PartitionBy::Day, chrono_tz::UTC);
    let mut reversed = relation(&shape);
    reversed.columns.reverse();
    let mut buffer = TableBuffer::new(Arc::new(shape));
    buffer.bind(&reversed).unwrap();
    append(&mut buffer, &[Datum::Text(b"2026-01-02 03:04:05"), Datum::Null, Datum::Text(b"7")]).unwrap();
    append(&mut buffer, &[Datum::Text(b"2026-01-02 03:04:06"), Datum::Text(b""), Datum::Text(b"8")]).unwrap();
    let batches = whole(&mut buffer);
    let rows = &batches[0].rows;
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values(), &[7, 8]);
    let notes = rows.column(1).as_string::<i32>();
    assert!(notes.is_null(0) && notes.is_valid(1) && notes.value(1).is_empty(), "NULL and '' differ");
    assert_eq!(rows.column(2).as_primitive::<TimestampMicrosecondType>().value(0), 1_767_323_045_000_000);
}

#[test]
fn d3_a_changed_schema_is_a_definite_error() {
    let shape = shape(ColumnType::Timestamp, PartitionBy::Day, chrono_tz::UTC);
    let original = relation(&shape);
    let mut buffer = TableBuffer::new(Arc::new(shape));
    let mut expect = |change: fn(&mut Relation), expected: &str| {
        let mut relation = original.clone();
        change(&mut relation);
        let error = buffer.bind(&relation).unwrap_err();
        assert!(matches!(error, BufferError::SchemaChanged { .. }));
        assert!(error.to_string().contains(expected), "{error}");
        let refused = append(&mut buffer, &[Datum::Text(b"1"), Datum::Null, Datum::Text(b"2026-01-02 03:04:05")]);
        assert!(matches!(refused, Err(BufferError::NotBound { .. })));
    };
    expect(|relation| relation.columns[1].name = "remark".into(), "column remark was added");
    expect(|relation| relation.columns.push(relation.columns[0].clone()), "column number was added");
    expect(|relation| relation.columns.truncate(2), "column created_at was dropped");
    expect(|relation| relation.columns[0].type_oid = 20, "column number changed its type");
    expect(|relation| relation.columns[1].type_modifier = 259, "column note changed its type");
    expect(|relation| relation.name = "occurrence".into(), "now named public.occurrence");
}

#[test]
fn d3_a_refused_row_names_its_column_and_leaves_nothing_behind() {
    let mut buffer = timestamps();
    row(&mut buffer, 1, "kept", 0).unwrap();
    let at = Datum::Text(b"1970-01-01 00:00:00");
    let refused: [(&[Datum<'_>], &str); 8] = [
        (&[Datum::Null, Datum::Null, at], "public.event.number of row number=NULL: it is NULL"),
        (
            &[Datum::Text(b"1"), Datum::Unchanged, at],
            "public.event.note of row number=1: the server left the value out",
        ),
        (&[Datum::Text(b"1"), Datum::Text(b"\xff"), at], "public.event.note of row number=1: its bytes are not UTF-8"),
        (
            &[Datum::Text(b"secret"), Datum::Null, at],
            "public.event.number of row number=?: it is not a well-formed int4",
        ),
        (
            &[Datum::Text(b"1"), Datum::Null, Datum::Null],
            "public.event.created_at of row number=1: NULL in the partition",
        ),
        (
            &[Datum::Text(b"1"), Datum::Null, Datum::Unchanged],
            "public.event.created_at of row number=1: the server left",
        ),
        (
            &[Datum::Text(b"1"), Datum::Null, Datum::Text(b"infinity")],
            "public.event.created_at of row number=1: an infinite timestamp",
        ),
        (&[Datum::Text(b"1"), Datum::Null], "public.event: the server sent a row of 2 columns"),
    ];
    for (columns, expected) in refused {
        let error = append(&mut buffer, columns).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        row(&mut buffer, 2, "after", 0).unwrap();
    }
    assert_eq!(buffer.rows(), 9);
    let batches = whole(&mut buffer);
    let numbers = batches.iter().flat_map(|batch| batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec());
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
}

#[test]
fn what_is_full_leaves_and_is_counted_out() {
    let mut buffer = timestamps();
    for number in 0..10 {
        row(&mut buffer, number, "twelve bytes", i64::from(number % 2) * MICROS_PER_DAY).unwrap();
    }
    assert!(buffer.take_full(6, usize::MAX).unwrap().is_none());
    row(&mut buffer, 10, "twelve bytes", 0).unwrap();
    let before = buffer.bytes();
    let full = buffer.take_full(6, usize::MAX).unwrap().unwrap();
    assert_eq!((full.partition.to_string().as_str(), full.rows.num_rows()), ("1970-01-01", 6));
    assert!(buffer.take_full(6, usize::MAX).unwrap().is_none());
    assert_eq!(buffer.rows(), 5);
    assert!(buffer.bytes() < before && buffer.bytes() >= 5 * (4 + 4 + 12 + 8));
    row(&mut buffer, 11, "again", 0).unwrap();
    assert!(buffer.take_full(usize::MAX, 1).unwrap().is_some());
    assert!(buffer.take_full(usize::MAX, 1).unwrap().is_some());
    assert!(buffer.take_full(usize::MAX, 1).unwrap().is_none());
    assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
}

#[test]
fn a_column_that_dates_nothing_is_refused() {
    let shape = shape(ColumnType::Text, PartitionBy::Day, chrono_tz::UTC);
    let relation = relation(&shape);
    let refused = TableBuffer::new(Arc::new(shape)).bind(&relation);
    assert!(matches!(refused, Err(BufferError::PartitionColumn { .. })));
}

proptest! {
    #[test]
    fn l3_every_row_is_in_the_day_of_its_timestamp(
        days in proptest::collection::vec((-1000..1000_i64, 0..MICROS_PER_DAY), 1..60),
        full in 1..8_usize,
    ) {
        let mut buffer = timestamps();
        let mut batches = Vec::new();
        for (number, (day, time)) in days.iter().enumerate() {
            row(&mut buffer, i32::try_from(number).unwrap(), "x", (day % 7) * MICROS_PER_DAY + time).unwrap();
            batches.extend(buffer.take_full(full, usize::MAX).unwrap());
        }
        batches.extend(whole(&mut buffer));
        let mut numbers = Vec::new();
        for batch in batches {
            let first = batch.partition.first_day().and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros();
            for micros in batch.rows.column(2).as_primitive::<TimestampMicrosecondType>().values() {
                prop_assert!((first..first + MICROS_PER_DAY).contains(micros));
            }
            numbers.extend(batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec());
        }
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..i32::try_from(days.len()).unwrap()).collect::<Vec<_>>());
    }
}

fn numbers(batches: &[PartitionBatch]) -> Vec<i32> {
    let mut numbers: Vec<i32> =
        batches.iter().flat_map(|batch| batch.rows.column(0).as_primitive::<Int32Type>().values().to_vec()).collect();
    numbers.sort_unstable();
    numbers
}

/// What a buffer is asked to do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Row { day: i64 },
    RefusedRow { day: i64 },
    EndTransaction,
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let day = 0..4_i64;
    let step = prop_oneof![
        6 => day.clone().prop_map(|day| Step::Row { day }),
        1 => day.prop_map(|day| Step::RefusedRow { day }),
        2 => Just(Step::EndTransaction),
        1 => Just(Step::Cut),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// B1: whatever came before, a cut parts the rows exactly at the end of the last whole transaction.
    #[test]
    fn b1_a_cut_parts_ended_transactions_from_the_one_that_is_arriving(steps in steps()) {
        let mut buffer = timestamps();
        let (mut ended, mut arriving, mut next) = (Vec::new(), Vec::new(), 0);
        for step in steps.into_iter().chain([Step::Cut]) {
            match step {
                Step::Row { day } => {
                    row(&mut buffer, next, "x", day * MICROS_PER_DAY).unwrap();
                    arriving.push(next);
                    next += 1;
                }
                Step::RefusedRow { day } => {
                    let micros = (day * MICROS_PER_DAY).to_be_bytes();
                    let columns = [Datum::Null, Datum::Null, Datum::Binary(&micros)];
                    prop_assert!(append(&mut buffer, &columns).is_err());
                }
                Step::EndTransaction => {
                    buffer.end_transaction();
                    ended.append(&mut arriving);
                }
                Step::Cut => {
                    let cut = buffer.cut().unwrap();
                    prop_assert_eq!(numbers(&cut.ended), std::mem::take(&mut ended));
                    prop_assert_eq!(numbers(&cut.arriving), std::mem::take(&mut arriving));
                    prop_assert_eq!((buffer.rows(), buffer.is_full(1, usize::MAX)), (0, false));
                }
            }
        }
    }
}
