//! A table's columns change: what the log says then, who reads it, and what a crash or another program may do in between.

use super::fixtures::{Fault, Lake, PATH, column, day, events, imaginary_file, lsn, progress, security_event};
use super::{LakeError, LakeTable, Patience, SourceRelation, TableWriter, WriterOptions, open_for_query};
use crate::base::{ColumnType, Runs, TableShape, XidSet};
use crate::buffer::{PartitionBatch, arrow_schema};
use deltalake::arrow::array::{Array, ArrayRef, Int32Array, Int64Array, StringArray};
use deltalake::arrow::compute::{cast, concat_batches};
use deltalake::arrow::datatypes::DataType;
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::arrow::util::display::array_value_to_string;
use deltalake::datafusion::prelude::SessionContext;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

async fn create(lake: &Lake, shape: &TableShape) -> LakeTable {
    LakeTable::create(&lake.location, PATH, shape, &progress(), lsn(1)).await.unwrap()
}

async fn open(lake: &Lake, shape: &TableShape) -> Result<LakeTable, LakeError> {
    LakeTable::open(&lake.location, PATH, shape, &progress()).await
}

fn writer(table: &LakeTable) -> TableWriter {
    TableWriter::new(table, WriterOptions::default(), Patience::none()).unwrap()
}

/// The first customer's table with one more column.
fn with(name: &str, kind: ColumnType) -> TableShape {
    let mut shape = security_event();
    shape.columns.push(column(name, kind, true));
    shape
}

/// Events under `shape`: columns that [`events`] lacks hold the number of their row.
fn rows(shape: &TableShape, first: usize, count: usize) -> PartitionBatch {
    let events = events(day(1), first, count);
    let schema = arrow_schema(shape);
    let numbers: ArrayRef = Arc::new((first..first + count).map(|row| Some(row as i64)).collect::<Int64Array>());
    let own = |name: &String, kind| {
        events.rows.column_by_name(name).cloned().unwrap_or_else(|| cast(&numbers, kind).unwrap())
    };
    let columns = schema.fields().iter().map(|field| own(field.name(), field.data_type())).collect();
    PartitionBatch { rows: RecordBatch::try_new(schema, columns).unwrap(), ..events }
}

async fn commit(table: &mut LakeTable, writer: &mut TableWriter, at: u64) {
    let files = writer.finish().await.unwrap();
    table.commit(&files, lsn(at)).await.unwrap();
    writer.committed(table).await;
}

/// Every row's value of a column, in the order of the values.
async fn select(lake: &Lake, expression: &str) -> Vec<String> {
    let table = open_for_query(&lake.location, PATH).await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", table.table_provider().await.unwrap()).unwrap();
    let sql = format!("SELECT {expression} AS v FROM t ORDER BY 1 NULLS FIRST");
    let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
    let rows = concat_batches(&batches[0].schema(), &batches).unwrap();
    let column = rows.column(0);
    let shown = |row| if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row).unwrap() };
    (0..rows.num_rows()).map(shown).collect()
}

fn metadata(lake: &Lake, version: u64) -> Value {
    let text = std::fs::read_to_string(lake.log_file(version)).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find_map(|line| line.get("metaData").cloned()).unwrap()
}

#[tokio::test]
async fn an_added_column_is_null_in_the_rows_before_and_all_else_of_the_metadata_stays() {
    let lake = Lake::new();
    let before = security_event();
    let mut table = create(&lake, &before).await;
    let mut writer = writer(&table);
    writer.write(rows(&before, 0, 3)).await.unwrap();
    let after = with("note", ColumnType::Text);
    assert_eq!(table.evolve(&after, &Patience::none()).await.unwrap(), ["note"]);
    assert!(table.evolve(&after, &Patience::none()).await.unwrap().is_empty());
    writer.retarget(&table).await.unwrap();
    writer.write(rows(&after, 3, 2)).await.unwrap();
    commit(&mut table, &mut writer, 2).await;
    assert_eq!((table.version(), table.recorded()), (2, lsn(2)));
    assert_eq!(select(&lake, "note").await, ["NULL", "NULL", "NULL", "3", "4"]);
    let (old, new) = (metadata(&lake, 0), metadata(&lake, 1));
    for key in ["id", "name", "description", "format", "createdTime", "partitionColumns"] {
        assert_eq!(old[key], new[key], "{key}");
    }
    let statistics =
        |metadata: &Value| metadata["configuration"]["delta.dataSkippingStatsColumns"].as_str().unwrap().to_owned();
    assert_eq!(statistics(&new), format!("{},note", statistics(&old)));
    assert_eq!(old["configuration"]["lakebed.partition_column"], new["configuration"]["lakebed.partition_column"]);
}

#[tokio::test]
async fn a_retired_column_stays_and_new_files_leave_it_out() {
    let lake = Lake::new();
    let before = with("note", ColumnType::Text);
    let mut table = create(&lake, &before).await;
    let mut writer = writer(&table);
    writer.write(rows(&before, 0, 2)).await.unwrap();
    commit(&mut table, &mut writer, 2).await;
    let mut after = security_event();
    after.columns.remove(2);
    (after.partition_column, after.key[1], after.identity[1]) = (12, 12, 12);
    assert!(table.evolve(&after, &Patience::none()).await.unwrap().is_empty());
    writer.retarget(&table).await.unwrap();
    writer.write(rows(&after, 2, 2)).await.unwrap();
    let files = writer.finish().await.unwrap();
    assert!(!files[0].encoding.schema.fields.iter().any(|field| field.name == "note" || field.name == "description"));
    table.commit(&files, lsn(3)).await.unwrap();
    assert_eq!(select(&lake, "note").await, ["NULL", "NULL", "0", "1"]);
    assert_eq!(select(&lake, "count(description)").await, ["2"], "it was NOT NULL");
    // The column comes back.
    table.evolve(&before, &Patience::none()).await.unwrap();
    writer.retarget(&table).await.unwrap();
    writer.write(rows(&before, 4, 1)).await.unwrap();
    commit(&mut table, &mut writer, 4).await;
    assert_eq!(select(&lake, "note").await, ["NULL", "NULL", "0", "1", "4"]);
    open(&lake, &before).await.unwrap();
}

#[tokio::test]
async fn a_column_that_is_no_longer_not_null_takes_null() {
    let lake = Lake::new();
    let shape = security_event();
    let mut table = create(&lake, &shape).await;
    let mut batch = rows(&shape, 0, 2);
    let mut columns = batch.rows.columns().to_vec();
    columns[2] = Arc::new(StringArray::from(vec![None, Some("there")]));
    let mut nullable = shape.clone();
    nullable.columns[2].nullable = true;
    batch.rows = RecordBatch::try_new(arrow_schema(&nullable), columns).unwrap();
    let mut writer = writer(&table);
    assert!(matches!(writer.write(batch.clone()).await, Err(LakeError::Batch { .. })));
    let missing = table.columns_with_new_null(&batch.rows, |_| 0);
    assert_eq!(missing, BTreeSet::from(["description".to_owned()]));
    assert!(table.columns_with_new_null(&batch.rows, |_| 1).is_empty(), "it stands for something else");
    table.take_null(&missing, &Patience::none()).await.unwrap();
    table.take_null(&missing, &Patience::none()).await.unwrap();
    let mut writer = self::writer(&table);
    writer.write(batch).await.unwrap();
    commit(&mut table, &mut writer, 2).await;
    assert_eq!((table.version(), select(&lake, "description").await), (2, vec!["NULL".to_owned(), "there".to_owned()]));
}

#[tokio::test]
async fn a_wider_type_rewrites_the_files_and_a_stream_that_is_behind_is_widened() {
    let lake = Lake::new();
    let (narrow, wide) = (with("n", ColumnType::Int4), with("n", ColumnType::Int8));
    let mut table = create(&lake, &security_event()).await;
    let mut writer = writer(&table);
    writer.write(rows(&security_event(), 100, 2)).await.unwrap();
    commit(&mut table, &mut writer, 2).await;
    table.evolve(&narrow, &Patience::none()).await.unwrap();
    writer.retarget(&table).await.unwrap();
    writer.write(rows(&narrow, 0, 3)).await.unwrap();
    commit(&mut table, &mut writer, 3).await;
    let files = lake.data_files();
    // One that is staged when the type changes, with its subtransactions.
    let mut streamed = writer.another();
    let mut batch = rows(&narrow, 5, 2);
    batch.xids = Some(Runs::of(7, 1));
    batch.xids.as_mut().unwrap().push(8, 1);
    streamed.write(batch).await.unwrap();

    table.evolve(&wide, &Patience::none()).await.unwrap();
    assert_eq!(lake.data_files(), files + 1, "the file without the column stays, the other has a successor");
    writer.retarget(&table).await.unwrap();
    streamed.retarget(&table).await.unwrap();
    writer.write(rows(&narrow, 3, 2)).await.unwrap();
    writer.write(rows(&wide, 7, 1)).await.unwrap();
    let mut aborted = XidSet::default();
    aborted.insert(8);
    let mut files = streamed.finish_without(&aborted).await.unwrap();
    files.extend(writer.finish().await.unwrap());
    table.commit(&files, lsn(4)).await.unwrap();
    assert_eq!(select(&lake, "n").await, ["NULL", "NULL", "0", "1", "2", "3", "4", "5", "7"]);
    assert_eq!(select(&lake, "DISTINCT arrow_typeof(n)").await, ["Int64"]);
    let recorded = std::fs::read_to_string(lake.log_file(4)).unwrap();
    assert_eq!(recorded.matches("\"remove\"").count(), 1, "{recorded}");
    let behind = open(&lake, &narrow).await.unwrap();
    assert!(behind.pending.is_none(), "the lake is ahead of the stream");
}

#[tokio::test]
async fn a_column_that_no_file_can_follow_is_refused_and_the_table_goes_on() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let mut shape = security_event();
    shape.columns[2] = column("description", ColumnType::Bytea, true);
    let error = table.evolve(&shape, &Patience::none()).await.unwrap_err();
    assert!(error.to_string().contains("description (string instead of binary)"), "{error}");
    table.commit(&[imaginary_file(&lake, 1)], lsn(2)).await.unwrap();
    shape.columns[2].lake_name = "description__v2".to_owned();
    assert_eq!(table.evolve(&shape, &Patience::none()).await.unwrap(), ["description__v2"]);
}

#[tokio::test]
async fn a_column_that_names_the_rows_cannot_be_new() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let mut shape = security_event();
    shape.columns[0].lake_name = "number".to_owned();
    let error = table.evolve(&shape, &Patience::none()).await.unwrap_err();
    assert!(error.to_string().contains("has no column number, which names or dates the rows"), "{error}");
    table.commit(&[imaginary_file(&lake, 1)], lsn(2)).await.unwrap();
    assert_eq!(table.version(), 1, "nothing was changed");
}

#[tokio::test]
async fn l2_a_foreign_change_of_the_columns_is_kept() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    let created = std::fs::read_to_string(lake.log_file(0)).unwrap();
    let foreign = created.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    let added = r#"{\"metadata\":{},\"name\":\"remark\",\"nullable\":true,\"type\":\"string\"},{\"metadata\":{},\"name\":\"year\""#;
    let foreign = foreign.replace(r#"{\"metadata\":{},\"name\":\"year\""#, added);
    assert!(foreign.contains("remark"));
    lake.foreign_entry(1, &[&foreign]);
    let (_keep, patience) = watch::channel(false);
    let patience = Patience::until(patience);
    table.evolve(&with("note", ColumnType::Text), &patience).await.unwrap();
    assert_eq!(table.version(), 2);
    let text = metadata(&lake, 2)["schemaString"].as_str().unwrap().to_owned();
    assert!(text.contains("remark") && text.contains("note"), "{text}");
    table.commit(&[], lsn(9)).await.unwrap();
}

#[tokio::test]
async fn l2_a_lost_answer_is_not_a_second_change() {
    for fault in [Fault::FailAfterWrite, Fault::Reject] {
        let lake = Lake::new();
        create(&lake, &security_event()).await;
        let location = lake.with_faults(&[fault]);
        let after = with("note", ColumnType::Text);
        let mut table = LakeTable::open(&location, PATH, &after, &progress()).await.unwrap();
        assert!(matches!(table.commit(&[], lsn(2)).await, Err(LakeError::SchemaDiffers { .. })), "not before it fits");
        let (_keep, patience) = watch::channel(false);
        assert_eq!(table.evolve(&after, &Patience::until(patience)).await.unwrap(), ["note"]);
        assert_eq!(table.version(), 1, "{fault:?}");
        assert!(!lake.log_file(2).exists());
        table.commit(&[], lsn(2)).await.unwrap();
    }
}

#[tokio::test]
async fn a_wider_type_is_planned_anew_when_somebody_appends_meanwhile() {
    let lake = Lake::new();
    let (narrow, wide) = (with("n", ColumnType::Int4), with("n", ColumnType::Int8));
    let mut table = create(&lake, &narrow).await;
    let mut writer = writer(&table);
    writer.write(rows(&narrow, 0, 3)).await.unwrap();
    commit(&mut table, &mut writer, 2).await;
    lake.foreign_entry(2, &[r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#]);
    let (_keep, patience) = watch::channel(false);
    table.evolve(&wide, &Patience::until(patience)).await.unwrap();
    assert_eq!(table.version(), 3);
    assert_eq!(select(&lake, "n").await, ["0", "1", "2"]);
}

#[tokio::test]
async fn the_table_of_the_server_is_remembered() {
    let lake = Lake::new();
    let mut table = create(&lake, &security_event()).await;
    assert_eq!(table.source_relation(), None);
    for relation in
        [SourceRelation { oid: 16_400, since_xid: None }, SourceRelation { oid: 4_294_967_295, since_xid: Some(740) }]
    {
        table.note_source(relation, &Patience::none()).await.unwrap();
        assert_eq!(table.source_relation(), Some(relation));
        assert_eq!(open(&lake, &security_event()).await.unwrap().source_relation(), Some(relation));
    }
    let noted = table.version();
    table.note_source(table.source_relation().unwrap(), &Patience::none()).await.unwrap();
    assert_eq!(table.version(), noted);
}

#[tokio::test]
async fn a_batch_that_is_not_the_tables_is_refused_by_column() {
    let lake = Lake::new();
    let table = create(&lake, &with("n", ColumnType::Int4)).await;
    for (shape, reason) in [
        (with("n", ColumnType::Int8), "column n is Int64"),
        (with("m", ColumnType::Int4), "column m is not the table's"),
    ] {
        let error = writer(&table).write(rows(&shape, 0, 1)).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    assert_eq!(numbers.data_type(), &DataType::Int32);
}
