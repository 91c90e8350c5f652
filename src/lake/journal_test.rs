//! The journal of a table: what was changed, as it was, once; and the stretches that were not followed.

use super::fixtures::{Fault, Lake, PATH, Request, column, day, events, every_type, lsn, progress, security_event};
use super::{
    Journal, JournalEntry, LakeError, LakeLocation, LakeTable, Patience, Progress, TableWriter, WriterOptions,
    journal_of, journal_path, open_for_query, record_gap, remove_orphans, table_days,
};
use crate::base::{ColumnType, Lsn, PartitionBy, TableShape};
use crate::buffer::{Operation, PartitionBatch};
use chrono::{DateTime, Utc};
use deltalake::DeltaTable;
use deltalake::arrow::array::{Array, AsArray, RecordBatch};
use deltalake::arrow::compute::cast;
use deltalake::arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use deltalake::datafusion::prelude::SessionContext;
use std::sync::Arc;
use tokio::sync::watch;

fn options() -> WriterOptions {
    WriterOptions { memory_limit_bytes: 1, ..WriterOptions::default() }
}

async fn table(lake: &Lake, shape: &TableShape, at: u64) -> LakeTable {
    LakeTable::create(&lake.location, PATH, shape, &progress(), lsn(at)).await.unwrap()
}

/// The journal of a table that is made at `at` if it is not there.
async fn open(lake: &Lake, at: u64) -> Journal {
    Journal::beside(&table(lake, &security_event(), at).await, options(), Patience::none()).await.unwrap()
}

fn entry(operation: Operation, commit_lsn: u64) -> JournalEntry {
    JournalEntry {
        operation,
        commit_lsn: lsn(commit_lsn),
        commit_time_micros: 1_767_225_600_000_001,
        xid: 4_000_000_000,
    }
}

fn batch(journal: &Journal, old: &PartitionBatch, operation: Operation, commit_lsn: u64) -> PartitionBatch {
    let entries = vec![entry(operation, commit_lsn); old.rows.num_rows()];
    let rows = journal.rows(&old.rows, &entries).unwrap();
    PartitionBatch { partition: old.partition, rows, xids: None, eras: None }
}

async fn write(journal: &mut Journal, old: &PartitionBatch, operation: Operation, commit_lsn: u64) {
    let batch = batch(journal, old, operation, commit_lsn);
    journal.write(batch).await.unwrap();
}

/// All entries, by position and id.
async fn entries(lake: &Lake) -> RecordBatch {
    let table: DeltaTable = open_for_query(&lake.location, &journal_path(PATH)).await.unwrap();
    let context = SessionContext::new();
    table.update_datafusion_session(&context.state()).unwrap();
    context.register_table("journal", table.table_provider().await.unwrap()).unwrap();
    let sql = "SELECT lakebed_operation, lakebed_commit_lsn, lakebed_commit_time, lakebed_xid, id, created_at, detail,
                      concat(year, '-', month, '-', day) AS day FROM journal ORDER BY lakebed_commit_lsn, id";
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    deltalake::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = cast(batch.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

fn moment() -> DateTime<Utc> {
    "2026-03-04T05:06:07.000008Z".parse().unwrap()
}

async fn gap(location: &LakeLocation, from: u64, to: u64) -> bool {
    let (shape, progress) = (security_event(), progress());
    record_gap(location, PATH, (&shape, &progress), lsn(from)..lsn(to), moment(), &Patience::none()).await.unwrap()
}

#[tokio::test]
async fn an_entry_lies_in_the_old_rows_partition_and_says_what_happened() {
    let lake = Lake::new();
    let mut journal = open(&lake, 0x1_0000_0010).await;
    let (first, second) = (events(day(1), 0, 1), events(day(2), 1, 2));
    write(&mut journal, &first, Operation::Delete, 0x1_0000_0020).await;
    write(&mut journal, &second, Operation::Patch, 0x1_0000_0030).await;
    journal.land(lsn(0x1_0000_0040), &Patience::none()).await.unwrap();
    let found = entries(&lake).await;
    assert_eq!(texts(&found, "lakebed_operation"), some(&["delete", "update", "update"]));
    assert_eq!(texts(&found, "lakebed_commit_lsn"), some(&["1/20", "1/30", "1/30"]));
    assert_eq!(texts(&found, "day"), some(&["2026-01-01", "2026-01-02", "2026-01-02"]));
    let time = found.column_by_name("lakebed_commit_time").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(time.value(0), 1_767_225_600_000_001);
    assert_eq!(found.column_by_name("lakebed_xid").unwrap().as_primitive::<Int64Type>().value(0), 4_000_000_000);
    assert_eq!(texts(&found, "detail")[0], texts(&first.rows, "detail")[0]);
    assert_eq!(texts(&found, "id")[0], texts(&first.rows, "id")[0]);
}

#[tokio::test]
async fn l1_a_journal_knows_how_far_it_is_and_has_progress_of_its_own() {
    let lake = Lake::new();
    let mut journal = open(&lake, 16).await;
    assert_eq!(journal.recorded(), lsn(16));
    assert!(journal.may_hold(lsn(15)) && !journal.may_hold(lsn(16)));
    journal.land(lsn(32), &Patience::none()).await.unwrap();
    assert_eq!(journal.recorded(), lsn(16), "without entries nothing is committed");
    write(&mut journal, &events(day(1), 0, 1), Operation::Update, 40).await;
    journal.land(lsn(48), &Patience::none()).await.unwrap();
    assert!(journal.may_hold(lsn(40)) && !journal.may_hold(lsn(48)));
    let log = lake.folder.path().join(journal_path(PATH)).join("_delta_log/00000000000000000001.json");
    assert!(std::fs::read_to_string(log).unwrap().contains("lakebed/7412/lakebed/public.security_event__changes/0"));
    journal.discard().await.unwrap();
    // The table's commit did not follow; it is made again from before.
    let mut again = open(&lake, 16).await;
    assert_eq!(again.recorded(), lsn(48));
    again.land(lsn(32), &Patience::none()).await.unwrap();
    write(&mut again, &events(day(1), 0, 1), Operation::Update, 20).await;
    again.land(lsn(32), &Patience::none()).await.unwrap();
    assert_eq!((entries(&lake).await.num_rows(), again.recorded()), (2, lsn(49)), "a position of its own");
}

#[tokio::test]
async fn a_journal_is_described_as_one_and_keeps_the_tables_rules() {
    let lake = Lake::new();
    let mut shape = every_type();
    shape.partition_by = PartitionBy::Month;
    let progress = Progress { table: shape.table.clone(), ..progress() };
    let table = LakeTable::create(&lake.location, PATH, &shape, &progress, lsn(1)).await.unwrap();
    let journal = Journal::beside(&table, options(), Patience::none()).await.unwrap();
    assert_eq!(journal_of(&shape.table).to_string(), "public.every_type__changes");
    let schema = journal.schema();
    let own: Vec<&str> = schema.fields().iter().take(4).map(|field| field.name().as_str()).collect();
    assert_eq!(own, ["lakebed_operation", "lakebed_commit_lsn", "lakebed_commit_time", "lakebed_xid"]);
    assert_eq!(schema.fields().len(), 4 + shape.columns.len());
    assert!(schema.fields().iter().skip(3).all(|field| field.is_nullable()));
    let opened = open_for_query(&lake.location, &journal_path(PATH)).await.unwrap();
    let metadata = opened.snapshot().unwrap().metadata();
    assert_eq!(metadata.name(), Some("every_type__changes"));
    assert!(metadata.description().unwrap().starts_with("Changed and removed rows of public.every_type"));
    assert_eq!(metadata.partition_columns(), &["year", "month"]);
    let property = |name: &str| metadata.configuration().get(name).cloned().unwrap();
    assert_eq!(property("lakebed.source"), "public.every_type");
    assert_eq!(property("lakebed.partition_column"), "at_time");
    assert_eq!(
        property("delta.dataSkippingStatsColumns"),
        "lakebed_operation,lakebed_commit_lsn,lakebed_commit_time,lakebed_xid,\
         id,small_number,number,big_number,on_date,at_time,at_time_zone,address,label"
    );
}

#[tokio::test]
async fn old_rows_are_taken_by_name_and_only_with_the_tables_types() {
    let lake = Lake::new();
    let journal = open(&lake, 1).await;
    let old = events(day(1), 0, 2).rows;
    let view = cast(old.column_by_name("type").unwrap(), &DataType::Utf8View).unwrap();
    let year = Arc::clone(&view);
    let some = RecordBatch::try_from_iter([("year", year), ("type", view)]).unwrap();
    let rows = journal.rows(&some, &[entry(Operation::Truncate, 2); 2]).unwrap();
    assert_eq!(rows.schema(), journal.schema());
    assert_eq!(texts(&rows, "type"), texts(&old, "type"));
    assert_eq!(rows.column_by_name("created_at").unwrap().null_count(), 2);
    let wrong = RecordBatch::try_from_iter([("type", Arc::clone(old.column_by_name("created_at").unwrap()))]).unwrap();
    let error = journal.rows(&wrong, &[entry(Operation::Truncate, 2); 2]).unwrap_err();
    assert!(
        matches!(&error, LakeError::Batch { reason, .. } if reason.starts_with("column type is Timestamp")),
        "{error}"
    );
    assert!(matches!(journal.rows(&old, &[entry(Operation::Delete, 2)]), Err(LakeError::Batch { .. })));
}

#[tokio::test]
async fn a_column_with_a_name_of_the_journals_is_refused() {
    let mut shape = security_event();
    shape.columns.push(column("lakebed_xid", ColumnType::Int8, true));
    let lake = Lake::new();
    let created = LakeTable::create(&lake.location, PATH, &shape, &progress(), lsn(1)).await;
    assert!(matches!(created, Err(LakeError::ReservedColumn { .. })));
}

#[tokio::test]
async fn files_of_a_dead_process_are_removed_after_the_first_commit() {
    let lake = Lake::new();
    let mut dead = open(&lake, 1).await;
    write(&mut dead, &events(day(1), 0, 3), Operation::Delete, 2).await;
    drop(dead);
    let folder = lake.folder.path().join(journal_path(PATH));
    let staging = folder.join("_lakebed/staging");
    for intent in std::fs::read_dir(&staging).unwrap().map(|intent| intent.unwrap().path()) {
        let text = std::fs::read_to_string(&intent).unwrap();
        std::fs::write(intent, text.replace(&super::actions::PROCESS.to_string(), "another")).unwrap();
    }
    let data_files = || std::fs::read_dir(folder.join(day(1).path())).unwrap().count();
    assert_eq!(data_files(), 1);
    let mut journal = open(&lake, 1).await;
    write(&mut journal, &events(day(1), 0, 3), Operation::Delete, 2).await;
    journal.land(lsn(8), &Patience::none()).await.unwrap();
    assert_eq!((data_files(), entries(&lake).await.num_rows()), (1, 3));
    journal.discard().await.unwrap();
}

#[tokio::test]
async fn a_gap_is_recorded_once_however_often_it_is_said() {
    let lake = Lake::new();
    assert!(gap(&lake.location, 16, 32).await);
    assert!(!gap(&lake.location, 16, 32).await, "the same stretch");
    assert!(!gap(&lake.location, 32, 32).await && !gap(&lake.location, 33, 32).await, "none at all");
    assert!(gap(&lake.location, 32, 64).await, "another one");
    let found = entries(&lake).await;
    assert_eq!(texts(&found, "lakebed_operation"), some(&["gap", "gap"]));
    assert_eq!(texts(&found, "lakebed_commit_lsn"), some(&["0/20", "0/40"]));
    assert_eq!(texts(&found, "day"), some(&["2026-03-04", "2026-03-04"]));
    assert_eq!(texts(&found, "id"), [None, None]);
    assert!(found.column_by_name("lakebed_xid").unwrap().is_null(0));
    let time = found.column_by_name("lakebed_commit_time").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(time.value(0), moment().timestamp_micros());
    let days = table_days(&lake.location, &journal_path(PATH)).await.unwrap();
    assert_eq!(days.iter().map(|day| day.files).sum::<u64>(), 2, "what was said again left no file");
}

/// What is sent from within the stretch all the same is not taken for known.
#[tokio::test]
async fn a_gap_moves_no_position_and_stands_in_nobodys_way() {
    let lake = Lake::new();
    let mut journal = open(&lake, 8).await;
    write(&mut journal, &events(day(1), 0, 1), Operation::Delete, 10).await;
    journal.land(lsn(12), &Patience::none()).await.unwrap();
    write(&mut journal, &events(day(1), 1, 1), Operation::Delete, 20).await;
    assert!(gap(&lake.location, 16, 100).await);
    journal.land(lsn(24), &Patience::none()).await.unwrap();
    assert_eq!(entries(&lake).await.num_rows(), 3);
    assert_eq!(open(&lake, 1).await.recorded(), lsn(24));
}

#[tokio::test]
async fn a_gap_outlives_the_stores_failures() {
    for fault in [Fault::Reject, Fault::FailAfterWrite] {
        let lake = Lake::new();
        drop(open(&lake, 1).await);
        let (location, store) = lake.with_script(&[(Request::PutEntry, fault), (Request::PutData, Fault::Reject)]);
        let (_give_up, given_up) = watch::channel(false);
        let (shape, progress, patience) = (security_event(), progress(), Patience::until(given_up));
        let stretch = Lsn(16)..Lsn(32);
        record_gap(&location, PATH, (&shape, &progress), stretch, moment(), &patience).await.unwrap();
        assert_eq!(store.left(), 0);
        assert!(!gap(&lake.location, 16, 32).await);
        assert_eq!(entries(&lake).await.num_rows(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_table_and_its_journal_do_not_disturb_each_other() {
    let lake = Lake::new();
    let mut table = table(&lake, &security_event(), 1).await;
    let mut journal = open(&lake, 1).await;
    let mut writer = TableWriter::new(&table, WriterOptions::default(), Patience::none()).unwrap();
    for round in 0..3_u64 {
        writer.write(events(day(1), 0, 5)).await.unwrap();
        write(&mut journal, &events(day(1), 0, 2), Operation::Update, 10 + 10 * round).await;
        journal.land(lsn(15 + 10 * round), &Patience::none()).await.unwrap();
        let files = writer.finish().await.unwrap();
        table.commit(&files, lsn(15 + 10 * round)).await.unwrap();
        writer.committed(&table).await;
    }
    assert!(remove_orphans(&table).await.unwrap().is_empty());
    let rows = |days: Vec<super::DaySummary>| days.iter().map(|day| day.rows.unwrap()).sum::<u64>();
    assert_eq!(rows(table_days(&lake.location, PATH).await.unwrap()), 15);
    assert_eq!(rows(table_days(&lake.location, &journal_path(PATH)).await.unwrap()), 6);
}

#[tokio::test]
async fn entries_outlive_a_commit_that_failed() {
    let lake = Lake::new();
    drop(open(&lake, 1).await);
    let (location, store) = lake.with_script(&[]);
    let table = LakeTable::open(&location, PATH, &security_event(), &progress()).await.unwrap();
    let mut journal = Journal::beside(&table, options(), Patience::none()).await.unwrap();
    write(&mut journal, &events(day(1), 0, 3), Operation::Delete, 2).await;
    store.expect(Request::PutEntry, &[Fault::Deny]);
    assert!(journal.land(lsn(8), &Patience::none()).await.is_err());
    journal.land(lsn(8), &Patience::none()).await.unwrap();
    assert_eq!((entries(&lake).await.num_rows(), journal.recorded()), (3, lsn(8)));
}
