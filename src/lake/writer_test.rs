//! Files: their names, statistics, encodings, and the memory they take while they are open.

use super::fixtures::{Lake, PATH, day, events, every_type, lsn, progress, security_event};
use super::{LakeError, LakeTable, Patience, StagedFile, TableWriter, WriterOptions};
use crate::base::{ColumnType, PartitionBy, TableShape};
use crate::buffer::PartitionBatch;
use crate::buffer::arrow_schema;
use chrono::Days;
use deltalake::arrow::array::{ArrayRef, Int32Array, StringArray, new_null_array};
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::parquet::basic::{Compression, Encoding};
use deltalake::parquet::file::reader::FileReader;
use deltalake::parquet::file::serialized_reader::SerializedFileReader;
use serde_json::Value;
use std::sync::Arc;

async fn table(lake: &Lake, shape: &TableShape) -> LakeTable {
    LakeTable::create(&lake.location, PATH, shape, &progress(), lsn(1)).await.unwrap()
}

fn statistics(file: &StagedFile) -> Value {
    serde_json::from_str(&file.statistics).unwrap()
}

#[tokio::test]
async fn a_file_is_named_by_its_partition_and_carries_statistics() {
    let lake = Lake::new();
    let mut writer =
        TableWriter::new(&table(&lake, &security_event()).await, WriterOptions::default(), Patience::none()).unwrap();
    writer.write(events(day(2), 0, 300)).await.unwrap();
    writer.write(events(day(1), 300, 0)).await.unwrap();
    let files = writer.finish().await.unwrap();
    assert_eq!(files.len(), 1);
    let file = &files[0];
    assert!(file.path().starts_with("year=2026/month=01/day=02/part-00000-"), "{}", file.path());
    assert!(file.path().ends_with(".zstd.parquet"));
    assert_eq!(std::fs::metadata(lake.folder.path().join(PATH).join(file.path())).unwrap().len(), file.size_bytes());
    let found = statistics(file);
    assert_eq!((found["numRecords"].as_u64(), file.rows()), (Some(300), 300));
    assert_eq!(found["minValues"]["created_at"], "2026-01-02T00:00:00.000Z");
    assert_eq!(found["maxValues"]["created_at"], "2026-01-03T00:00:00.000Z");
    assert_eq!(found["minValues"]["type"], "inspect_token_success");
    assert_eq!(found["maxValues"]["type"], "password_failure");
    assert_eq!(found["minValues"]["user_agent"], "Mozilla/5.0 (X11; Linux x86_64) ");
    assert_eq!(found["maxValues"]["user_agent"], "Mozilla/5.0 (X11; Linux x86_64) \u{7F}");
    assert_eq!(found["nullCount"]["external_user_id"], 300);
    assert_eq!(found["nullCount"]["user_id"], 43);
    assert!(found["minValues"].get("external_user_id").is_none());
    assert!(found["nullCount"].get("detail").is_none());
    assert!(writer.finish().await.unwrap().is_empty());
}

#[tokio::test]
async fn every_kind_of_column_is_written_and_only_safe_ones_have_statistics() {
    let lake = Lake::new();
    let shape = every_type();
    let schema = arrow_schema(&shape);
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "id" => Arc::new(StringArray::from(vec!["b", "a"])) as ArrayRef,
        "number" => Arc::new(Int32Array::from(vec![Some(-5), Some(i32::MAX)])) as ArrayRef,
        _ => new_null_array(field.data_type(), 2),
    });
    let rows = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let mut writer = TableWriter::new(&table(&lake, &shape).await, WriterOptions::default(), Patience::none()).unwrap();
    writer.write(PartitionBatch { partition: day(1), rows, xids: None, eras: None }).await.unwrap();
    let files = writer.finish().await.unwrap();
    let found = statistics(&files[0]);
    assert_eq!(found["minValues"], serde_json::json!({ "id": "a", "number": -5 }));
    assert_eq!(found["maxValues"], serde_json::json!({ "id": "b", "number": i32::MAX }));
    for absent in ["amount", "bytes", "document", "documents", "labels", "real_number", "double_number", "flag"] {
        assert!(found["nullCount"].get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn files_hold_only_what_every_parquet_reader_reads() {
    let lake = Lake::new();
    let mut writer =
        TableWriter::new(&table(&lake, &security_event()).await, WriterOptions::default(), Patience::none()).unwrap();
    writer.write(events(day(1), 0, 2_000)).await.unwrap();
    let files = writer.finish().await.unwrap();
    let bytes = std::fs::read(lake.folder.path().join(PATH).join(files[0].path())).unwrap();
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let metadata = reader.metadata();
    assert_eq!(metadata.file_metadata().version(), 1);
    assert_eq!(metadata.file_metadata().created_by(), Some(concat!("lakebed version ", env!("CARGO_PKG_VERSION"))));
    for column in metadata.row_groups()[0].columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)));
        let known = [Encoding::PLAIN, Encoding::RLE, Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY];
        assert!(column.encodings().all(|encoding| known.contains(&encoding)), "{}", column.column_path());
        let dictionary = column.dictionary_page_offset().is_some();
        let expected = !["id", "detail", "created_at"].contains(&column.column_path().string().as_str());
        assert_eq!(dictionary, expected, "{}", column.column_path());
    }
}

#[tokio::test]
async fn b2_memory_stays_bounded_with_150_open_partitions() {
    let lake = Lake::new();
    let options = WriterOptions { memory_limit_bytes: 24 << 20, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table(&lake, &security_event()).await, options, Patience::none()).unwrap();
    let mut written = 0;
    for round in 0..4 {
        for offset in 0..150 {
            let date = day(1).first_day().checked_add_days(Days::new(offset)).unwrap();
            let rows = if offset == 7 { 3_000 } else { 200 };
            writer.write(events(PartitionBy::Day.partition_of(date), written, rows)).await.unwrap();
            written += rows;
            assert!(writer.memory_bytes() <= options.memory_limit_bytes, "round {round}");
        }
    }
    let files = writer.finish().await.unwrap();
    assert_eq!(writer.memory_bytes(), 0);
    assert_eq!(files.iter().map(StagedFile::rows).sum::<u64>(), written as u64);
    assert!(files.iter().all(|file| file.path().starts_with(&file.partition().path())));
}

#[tokio::test]
async fn b2_a_long_transaction_over_many_days_makes_one_file_a_day_within_the_limit() {
    let lake = Lake::new();
    let options = WriterOptions { memory_limit_bytes: 40 << 20, ..WriterOptions::default() };
    let table = table(&lake, &security_event()).await;
    let mut writer = TableWriter::new(&table, options, Patience::none()).unwrap();
    let batches: Vec<PartitionBatch> = (1..=10).map(|number| events(day(number), 0, 2_000)).collect();
    let mut raw_bytes = 0;
    for batch in batches.iter().cycle().take(200) {
        raw_bytes += batch.rows.get_array_memory_size();
        writer.write(batch.clone()).await.unwrap();
        assert!(writer.memory_bytes() <= options.memory_limit_bytes);
    }
    let files = writer.finish().await.unwrap();
    assert!(raw_bytes > 4 * options.memory_limit_bytes, "{raw_bytes}");
    assert_eq!((files.len(), files.iter().map(StagedFile::rows).sum::<u64>()), (10, 400_000));
}

#[tokio::test]
async fn a_full_file_is_uploaded_while_rows_still_come() {
    let lake = Lake::new();
    let options = WriterOptions { target_file_bytes: 256 << 10, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table(&lake, &security_event()).await, options, Patience::none()).unwrap();
    for round in 0..8 {
        writer.write(events(day(1), round * 10_000, 10_000)).await.unwrap();
    }
    assert!(lake.data_files() > 1);
    let files = writer.finish().await.unwrap();
    assert_eq!(files.len(), lake.data_files());
    assert_eq!(files.iter().map(StagedFile::rows).sum::<u64>(), 80_000);
}

#[tokio::test]
async fn discarding_removes_what_was_uploaded() {
    let lake = Lake::new();
    let options = WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() };
    let mut writer = TableWriter::new(&table(&lake, &security_event()).await, options, Patience::none()).unwrap();
    writer.write(events(day(1), 0, 10)).await.unwrap();
    writer.write(events(day(2), 0, 10)).await.unwrap();
    assert_eq!(lake.data_files(), 2);
    writer.discard().await.unwrap();
    assert_eq!(lake.data_files(), 0);
}

#[tokio::test]
async fn rows_of_another_table_break_the_writer() {
    let lake = Lake::new();
    let mut other = security_event();
    other.columns[1].column_type = ColumnType::Int8;
    other.columns[2].lake_name = "summary".to_owned();
    let mut writer =
        TableWriter::new(&table(&lake, &security_event()).await, WriterOptions::default(), Patience::none()).unwrap();
    let schema = arrow_schema(&other);
    let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), 0)).collect();
    let rows = RecordBatch::try_new(schema, columns).unwrap();
    let error = writer.write(PartitionBatch { partition: day(1), rows, xids: None, eras: None }).await.unwrap_err();
    assert!(error.to_string().contains("column summary is not the table's"), "{error}");
    let error = writer.write(events(day(1), 0, 1)).await.unwrap_err();
    assert!(matches!(error, LakeError::WriterBroken { .. }), "{error}");
}

#[tokio::test]
async fn a_null_where_none_may_be_is_refused() {
    let lake = Lake::new();
    let shape = security_event();
    let mut nullable = shape.clone();
    nullable.columns[0].nullable = true;
    let mut batch = events(day(1), 0, 2);
    let mut columns = batch.rows.columns().to_vec();
    columns[0] = Arc::new(StringArray::from(vec![Some("a"), None]));
    batch.rows = RecordBatch::try_new(arrow_schema(&nullable), columns).unwrap();
    let mut writer = TableWriter::new(&table(&lake, &shape).await, WriterOptions::default(), Patience::none()).unwrap();
    let error = writer.write(batch).await.unwrap_err();
    assert!(error.to_string().contains("column id has NULLs"), "{error}");
}
