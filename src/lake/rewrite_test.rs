//! B2 after an abort: exactly the rows of rolled-back subtransactions are left out of files that were staged before.

use super::failing_store::Script;
use super::fixtures::{Lake, PATH, day, events, every_type, lsn, progress, security_event};
use super::{LakeTable, Patience, StagedFile, TableWriter, WriterOptions};
use crate::base::{Partition, Runs, XidSet};
use crate::buffer::{PartitionBatch, arrow_schema};
use deltalake::arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use deltalake::arrow::compute::concat_batches;
use deltalake::arrow::datatypes::{DataType, SchemaRef};
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

async fn table(lake: &Lake) -> LakeTable {
    LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

fn of_xids(mut batch: PartitionBatch, runs: &[(u32, u64)]) -> PartitionBatch {
    let mut xids = Runs::default();
    runs.iter().for_each(|(xid, rows)| xids.push(*xid, *rows));
    batch.xids = Some(xids);
    batch
}

fn set(xids: impl IntoIterator<Item = u32>) -> XidSet {
    let mut set = XidSet::default();
    xids.into_iter().for_each(|xid| set.insert(xid));
    set
}

/// A file's rows under the table's own types.
fn read(lake: &Lake, file: &StagedFile, schema: &SchemaRef) -> RecordBatch {
    let bytes = bytes::Bytes::from(std::fs::read(lake.folder.path().join(PATH).join(file.path())).unwrap());
    assert_eq!(bytes.len() as u64, file.size_bytes());
    let options = ArrowReaderOptions::new().with_schema(schema.clone());
    let metadata = ArrowReaderMetadata::load(&bytes, options).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata).build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
    let rows = concat_batches(schema, &batches).unwrap();
    assert_eq!(rows.num_rows() as u64, file.rows());
    rows
}

/// All rows of each partition, in the order of the files.
fn read_all(lake: &Lake, files: &[StagedFile], schema: &SchemaRef) -> BTreeMap<Partition, RecordBatch> {
    let mut found: BTreeMap<Partition, Vec<RecordBatch>> = BTreeMap::new();
    for file in files {
        found.entry(file.partition()).or_default().push(read(lake, file, schema));
    }
    found.into_iter().map(|(partition, rows)| (partition, concat_batches(schema, &rows).unwrap())).collect()
}

/// One step of a transaction: rows of a partition, alternating among `xids`, and whether memory runs out afterwards.
type Step = (u32, Vec<(u32, u64)>, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let runs = prop::collection::vec((700_u32..712, 0_u64..9), 1..6);
    prop::collection::vec((1_u32..4, runs, prop::bool::weighted(0.3)), 1..14)
}

/// Writes the steps, and returns what a plain in-memory model keeps.
async fn follow(writer: &mut TableWriter, steps: &[Step], aborted: &XidSet) -> BTreeMap<Partition, RecordBatch> {
    let mut model: BTreeMap<Partition, Vec<RecordBatch>> = BTreeMap::new();
    let mut written = 0;
    for (number, runs, out_of_memory) in steps {
        let rows = runs.iter().map(|(_, rows)| usize::try_from(*rows).unwrap()).sum();
        let batch = events(day(*number), written, rows);
        let mut row = 0;
        for (xid, rows) in runs {
            let rows = usize::try_from(*rows).unwrap();
            if rows > 0 && !aborted.contains(*xid) {
                model.entry(batch.partition).or_default().push(batch.rows.slice(row, rows));
            }
            row += rows;
        }
        written += rows;
        writer.write(of_xids(batch, runs)).await.unwrap();
        if *out_of_memory {
            writer.relieve().await.unwrap();
        }
    }
    let schema = arrow_schema(&security_event());
    model.into_iter().map(|(partition, rows)| (partition, concat_batches(&schema, &rows).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn b2_what_is_read_back_is_what_was_not_rolled_back(
        steps in steps(),
        aborted in prop::collection::btree_set(700_u32..712, 0..8),
        encode_from_bytes in prop_oneof![Just(1), Just(20_000), Just(1 << 30)],
        memory_limit_bytes in prop_oneof![Just(1), Just(12 << 20), Just(64 << 20)],
    ) {
        let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        reactor.block_on(async {
            let lake = Lake::new();
            let mut table = table(&lake).await;
            let options = WriterOptions { memory_limit_bytes, ..WriterOptions::default() };
            let mut writer = TableWriter::new(&table, options, Patience::none()).unwrap();
            writer.encode_from(encode_from_bytes);
            let aborted = set(aborted);
            let model = follow(&mut writer, &steps, &aborted).await;
            let files = writer.finish_without(&aborted).await.unwrap();
            prop_assert_eq!(lake.data_files(), files.len());
            prop_assert_eq!(read_all(&lake, &files, &arrow_schema(&security_event())), model);
            table.commit(&files, lsn(2)).await.unwrap();
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn b2_of_a_hundred_thousand_savepoints_half_are_rolled_back() {
    let lake = Lake::new();
    let table = table(&lake).await;
    let options = WriterOptions { target_file_bytes: 512 << 10, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table, options, Patience::none()).unwrap();
    let mut runs_bytes = 0;
    let mut expected = Vec::new();
    for first in (0..100_000_usize).step_by(5_000) {
        let runs: Vec<(u32, u64)> =
            (first..first + 5_000).map(|row| (u32::try_from(row).unwrap() + 1_000, 1)).collect();
        let batch = of_xids(events(day(1), first, 5_000), &runs);
        runs_bytes += batch.xids.as_ref().unwrap().memory_bytes();
        let ids = batch.rows.column(0).as_string::<i32>();
        expected.extend((0..5_000).filter(|row| row % 2 == 1).map(|row| ids.value(row).to_owned()));
        writer.write(batch).await.unwrap();
    }
    assert!(writer.staged_bytes() > 0 && writer.staged_bytes() < runs_bytes + (64 << 10), "{}", writer.staged_bytes());
    let staged = lake.data_files();
    assert!(staged > 0, "some of it is in the store before anything is rolled back");
    let aborted = set((0..100_000).filter(|row| row % 2 == 0).map(|row| row + 1_000));
    let files = writer.finish_without(&aborted).await.unwrap();
    assert_eq!((writer.staged_bytes(), writer.memory_bytes()), (0, 0));
    let found = read_all(&lake, &files, &arrow_schema(&security_event()));
    let ids = found[&day(1)].column(0).as_string::<i32>();
    assert!(ids.iter().flatten().eq(expected.iter().map(String::as_str)));
    assert_eq!(lake.data_files(), files.len());
}

#[tokio::test]
async fn only_files_that_hold_dead_rows_are_written_again() {
    let lake = Lake::new();
    let script = Arc::new(Script::default());
    drop(table(&lake).await);
    let table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let options = WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table, options, Patience::none()).unwrap();
    for (number, runs) in [(1, vec![(7, 5)]), (1, vec![(7, 2), (8, 1), (7, 2)]), (2, vec![(8, 5)]), (2, vec![(9, 5)])] {
        writer.write(of_xids(events(day(number), 0, 5), &runs)).await.unwrap();
    }
    let before = script.asked().len();
    let files = writer.finish_without(&set([8, 12])).await.unwrap();
    let rewritten = &script.asked()[before..];
    let of = |verb: &str| rewritten.iter().filter(|asked| asked.starts_with(verb)).count();
    assert_eq!((of("PUT"), of("DELETE")), (1, 2), "{rewritten:?}");
    assert_eq!(files.iter().map(StagedFile::rows).collect::<Vec<_>>(), [5, 4, 5]);
    // A bound is that of the rows that stayed: the last row of each batch stands in the day's last microsecond.
    let statistics: serde_json::Value = serde_json::from_str(&files[1].statistics).unwrap();
    assert_eq!(statistics["numRecords"], 4);
    assert_eq!(statistics["maxValues"]["created_at"], "2026-01-02T00:00:00.000Z");

    writer.write(of_xids(events(day(1), 0, 5), &[(7, 4), (8, 1)])).await.unwrap();
    let before = script.asked().len();
    let files = writer.finish_without(&set([])).await.unwrap();
    assert_eq!((files[0].rows(), script.asked().len()), (5, before), "without aborts nothing is read or written again");
    writer.write(of_xids(events(day(1), 0, 5), &[(7, 4), (8, 1)])).await.unwrap();
    let files = writer.finish_without(&set([8])).await.unwrap();
    let statistics: serde_json::Value = serde_json::from_str(&files[0].statistics).unwrap();
    assert_eq!(statistics["maxValues"]["created_at"], "2026-01-01T00:00:03.000Z");
}

#[tokio::test]
async fn a_superseded_file_that_cannot_be_removed_is_removed_later() {
    let lake = Lake::new();
    let script = Arc::new(Script::default());
    drop(table(&lake).await);
    let table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let options = WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table, options, Patience::none()).unwrap();
    writer.write(of_xids(events(day(1), 0, 9), &[(7, 8), (8, 1)])).await.unwrap();
    script.failed_deletes.store(1, Ordering::Release);
    let files = writer.finish_without(&set([8])).await.unwrap();
    assert_eq!((files[0].rows(), lake.data_files()), (8, 2));
    writer.discard().await.unwrap();
    assert_eq!(lake.data_files(), 1, "a file that was handed over is not the writer's to remove");
}

#[tokio::test]
async fn a_store_that_fails_while_a_file_is_read_back_is_waited_for() {
    let lake = Lake::new();
    let script = Arc::new(Script::default());
    drop(table(&lake).await);
    let table = LakeTable::open(&script.on(&lake), PATH, &security_event(), &progress()).await.unwrap();
    let (_give_up, given_up) = tokio::sync::watch::channel(false);
    let options = WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table, options, Patience::until(given_up)).unwrap();
    writer.write(of_xids(events(day(1), 0, 9), &[(7, 8), (8, 1)])).await.unwrap();
    script.failed_gets.store(2, Ordering::Release);
    assert_eq!(writer.finish_without(&set([8])).await.unwrap()[0].rows(), 8);
}

#[tokio::test]
async fn every_type_survives_being_written_again() {
    let lake = Lake::new();
    let shape = every_type();
    let table = LakeTable::create(&lake.location, PATH, &shape, &progress(), lsn(1)).await.unwrap();
    let schema = arrow_schema(&shape);
    let columns = schema.fields().iter().map(|field| values(field.data_type()));
    let rows = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let options = WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table, options, Patience::none()).unwrap();
    let batch = PartitionBatch { partition: day(1), rows: rows.clone(), xids: None, eras: None };
    writer.write(of_xids(batch, &[(7, 1), (8, 1), (7, 2)])).await.unwrap();
    let files = writer.finish_without(&set([8])).await.unwrap();
    let expected = concat_batches(&schema, &[rows.slice(0, 1), rows.slice(2, 2)]).unwrap();
    assert_eq!(read(&lake, &files[0], &schema), expected);
}

/// Four values of a type, its extremes among them.
fn values(data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![true, false, true, false])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![i16::MIN, 0, -1, i16::MAX])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![i32::MIN, 0, -1, i32::MAX])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![i64::MIN, 0, -1, i64::MAX])),
        DataType::Float32 => Arc::new(Float32Array::from(vec![f32::NAN, 0.0, -0.0, f32::INFINITY])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![f64::NAN, 0.0, -0.0, f64::MIN_POSITIVE])),
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            let values = Decimal128Array::from(vec![most, 0, -1, -most]);
            Arc::new(values.with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::Date32 => Arc::new(Date32Array::from(vec![-719_162, 0, 20_454, 2_932_896])),
        DataType::Timestamp(_, zone) => {
            let values = vec![-62_135_596_800_000_000, 0, 1_767_312_000_000_001, 253_402_300_799_999_999];
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone.clone()))
        }
        DataType::Binary => Arc::new(BinaryArray::from(vec![&b""[..], b"\0", b"\xff\xfe", b"x"])),
        DataType::Utf8 => Arc::new(StringArray::from(vec!["", "a", "利用者\0", "😀\n"])),
        other => panic!("a type without values: {other}"),
    }
}
