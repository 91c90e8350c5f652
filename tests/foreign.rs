//! L2 beside other programs: somebody else commits to the table just before a rewrite does.

use crate::support::lane::journal_of;
use crate::support::{RunningRun, Site, Value, assert_lake_equals_source, delta_rows, files};
use deltalake::arrow::array::{ArrayRef, RecordBatch, StringArray};
use deltalake::arrow::datatypes::{DataType, Field, Schema};
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::{DeltaTable, DeltaTableBuilder};
use std::path::Path;
use std::sync::Arc;
use url::Url;

const EVENTS: &str = "public.security_event";
const FOREIGN: &str = "f0000000-0000-4000-8000-000000000000";

/// Two commits of one day, and a change of some of its rows whose commit stands still before the log write.
async fn about_to_rewrite() -> (Site, RunningRun) {
    let site = Site::small().await;
    site.init().await;
    for _ in 0..2 {
        site.insert_events(20, 1).await;
        site.run_until_caught_up().await;
    }
    let run = RunningRun::start_stopping_at(&site.pipeline_file(), "apply.before_log_write");
    let chosen = "WHERE id IN (SELECT id FROM public.security_event ORDER BY id LIMIT";
    site.sql(&format!(
        "BEGIN; UPDATE {EVENTS} SET description = 'changed' {chosen} 10); DELETE FROM {EVENTS} {chosen} 5); COMMIT"
    ))
    .await;
    run.wait_until_stopped().await;
    (site, run)
}

async fn goes_on(site: &Site, run: RunningRun) {
    run.signal("CONT").await;
    let lsn = site.value("SELECT pg_current_wal_insert_lsn()").await;
    let slot = "FROM pg_replication_slots WHERE slot_name = 'lakebed'";
    site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}' {slot}")).await;
    assert!(
        run.log().contains("another program was faster") || run.log().contains("rewrote the files"),
        "{}",
        run.log()
    );
    run.signal("TERM").await;
    run.ended().await.succeeded();
}

async fn assert_journalled_once(site: &Site) {
    let journal = site.lake().join(journal_of("security_event"));
    let mut entries = delta_rows(&journal, &[("lakebed_operation", Value::Text), ("id", Value::Text)]).await;
    entries.sort();
    let count = entries.len();
    entries.dedup();
    let of = |operation: &str| entries.iter().filter(|entry| entry[0].as_deref() == Some(operation)).count();
    // Of the rows that were updated and then deleted only the first counts: their second versions never were in the lake.
    assert_eq!((count, entries.len(), of("update"), of("delete")), (10, 10, 10, 0));
}

async fn table(folder: &Path) -> DeltaTable {
    let url = Url::from_directory_path(folder).unwrap();
    DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_an_optimize_that_was_faster_makes_the_rewrite_plan_anew() {
    let (site, run) = about_to_rewrite().await;
    let folder = site.lake().join("security_event");
    let (_, metrics) = Box::pin(table(&folder).await.optimize().into_future()).await.unwrap();
    assert_eq!((metrics.num_files_added, metrics.num_files_removed), (1, 2), "the files that the rewrite is to remove");
    goes_on(&site, run).await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 35);
    assert_journalled_once(&site).await;
    site.run_until_caught_up().await;
    assert_eq!(files::missing(&folder), Vec::<String>::new());
    site.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_an_append_that_was_faster_keeps_its_rows() {
    let (site, run) = about_to_rewrite().await;
    let folder = site.lake().join("security_event");
    append_a_copy(&folder).await;
    goes_on(&site, run).await;
    let mut lake = delta_rows(&folder, &[("id", Value::Text), ("description", Value::Text)]).await;
    lake.sort();
    let sql = format!("SELECT id::text, description FROM {EVENTS}");
    let mut source = site.cluster.query(crate::support::DATABASE, &sql).await.unwrap();
    source.push(vec![Some(FOREIGN.to_owned()), Some("foreign".to_owned())]);
    source.sort();
    assert_eq!(lake, source);
    assert_journalled_once(&site).await;
    site.cluster.stop().await;
}

/// A row like one of the table's, under a name of its own, in the same day.
async fn append_a_copy(folder: &Path) {
    let path = files::named(folder, "add").into_iter().next().unwrap();
    let bytes = bytes::Bytes::from(std::fs::read(folder.join(&path)).unwrap());
    let mut rows = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let row = rows.next().unwrap().unwrap().slice(0, 1);
    let text = |value: &str| Arc::new(StringArray::from(vec![value.to_owned()])) as ArrayRef;
    let mut fields: Vec<_> = row.schema().fields().iter().cloned().collect();
    let mut columns = row.columns().to_vec();
    for (name, value) in [("id", FOREIGN), ("description", "foreign")] {
        columns[row.schema().index_of(name).unwrap()] = text(value);
    }
    for part in path.split('/').filter_map(|part| part.split_once('=')) {
        fields.push(Arc::new(Field::new(part.0, DataType::Utf8, true)));
        columns.push(text(part.1));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    Box::pin(table(folder).await.write(vec![batch]).into_future()).await.unwrap();
}
