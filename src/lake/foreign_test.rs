//! A lake that is ahead or foreign: other programs' commits are passed over where that is safe, else refused with the reason.

use super::fixtures::{Lake, PATH, day, events, lsn, progress, security_event};
use super::{LakeError, LakeTable, Patience, Progress, TableWriter, WriterOptions, open_for_query, table_days};
use crate::base::{Classify, RetryClass};
use deltalake::datafusion::logical_expr::{col, lit};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing::instrument::WithSubscriber;

async fn create(lake: &Lake) -> LakeTable {
    LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(1)).await.unwrap()
}

async fn open_error(lake: &Lake) -> String {
    let error = LakeTable::open(&lake.location, PATH, &security_event(), &progress()).await.err().unwrap();
    assert_eq!(error.retry_class(), RetryClass::Definite, "{error}");
    error.to_string()
}

/// Lands `rows` rows of a day under a position that is their number.
async fn land(table: &mut LakeTable, on: u32, rows: usize, at: u64) {
    let mut writer = TableWriter::new(table, WriterOptions::default(), Patience::none()).unwrap();
    writer.write(events(day(on), usize::try_from(at).unwrap() * 1_000, rows)).await.unwrap();
    let files = writer.finish().await.unwrap();
    table.land(&files, lsn(at), &Patience::none()).await.unwrap();
}

async fn rows(lake: &Lake) -> Vec<(String, u64)> {
    let days = table_days(&lake.location, PATH).await.unwrap();
    days.iter().map(|day| (day.partition[2].1.clone(), day.rows.unwrap())).collect()
}

/// Everything logged at WARN and above while the work runs.
async fn warnings(work: impl Future<Output = ()>) -> String {
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);
    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let text = Text::default();
    let writer = text.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    work.with_subscriber(subscriber).await;
    let text = text.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_and_an_optimize_of_another_program_are_passed_over_without_a_word() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    let said = warnings(async {
        land(&mut table, 1, 10, 10).await;
        land(&mut table, 1, 20, 20).await;
        let other = open_for_query(&lake.location, PATH).await.unwrap();
        let (other, metrics) = Box::pin(other.optimize().into_future()).await.unwrap();
        assert_eq!((metrics.num_files_added, metrics.num_files_removed), (1, 2));
        land(&mut table, 1, 5, 30).await;
        let batch = events(day(2), 90_000, 3).rows;
        append(other, batch).await;
        land(&mut table, 2, 4, 40).await;
    })
    .await;
    assert_eq!(said, "");
    assert_eq!(rows(&lake).await, [("01".to_owned(), 35), ("02".to_owned(), 7)]);
    assert_eq!(table.recorded(), lsn(40));
    let table = LakeTable::open(&lake.location, PATH, &security_event(), &progress()).await.unwrap();
    assert_eq!(table.recorded(), lsn(40));
}

/// Appends the rows of day 2 through the table library.
async fn append(mut table: deltalake::DeltaTable, rows: deltalake::arrow::record_batch::RecordBatch) {
    use deltalake::arrow::array::{ArrayRef, StringArray};
    use deltalake::arrow::datatypes::{DataType, Field, Schema};
    table.load().await.unwrap();
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    for (name, value) in [("year", "2026"), ("month", "01"), ("day", "02")] {
        fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
        let column: ArrayRef = Arc::new(StringArray::from(vec![value; rows.num_rows()]));
        columns.push(column);
    }
    let batch = deltalake::arrow::record_batch::RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    Box::pin(table.write(vec![batch]).into_future()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_of_another_program_is_passed_over_and_said_once() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    let said = warnings(async {
        land(&mut table, 1, 10, 10).await;
        land(&mut table, 2, 20, 20).await;
        let other = open_for_query(&lake.location, PATH).await.unwrap();
        Box::pin(other.delete().with_predicate(col("day").eq(lit("01"))).into_future()).await.unwrap();
        land(&mut table, 3, 5, 30).await;
        land(&mut table, 3, 5, 40).await;
    })
    .await;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("WARN") && said.contains("another program removed rows; the days of this table"), "{said}");
    assert!(said.contains("version=3 operation=\"DELETE\" files=1"), "{said}");
    assert_eq!(rows(&lake).await, [("02".to_owned(), 20), ("03".to_owned(), 10)]);
}

fn with_property(lake: &Lake, property: &str) -> String {
    let created = std::fs::read_to_string(lake.log_file(0)).unwrap();
    let metadata = created.lines().find(|line| line.contains("\"metaData\"")).unwrap();
    metadata.replace("\"configuration\":{", &format!("\"configuration\":{{{property},"))
}

#[tokio::test]
async fn a_property_that_lets_progress_expire_is_refused_with_the_remedy_and_others_are_not() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    lake.foreign_entry(
        1,
        &[&with_property(&lake, r#""delta.appendOnly":"true","delta.logRetentionDuration":"interval 1 days""#)],
    );
    land(&mut table, 1, 1, 10).await;
    lake.foreign_entry(3, &[&with_property(&lake, r#""delta.setTransactionRetentionDuration":"interval 7 days""#)]);
    let error = table.commit(&[], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::ProgressExpires { .. }), "{error}");
    let remedy = "run ALTER TABLE … UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')";
    let text = open_error(&lake).await;
    assert!(text.contains(remedy), "{text}");
}

#[tokio::test]
async fn a_newer_protocol_another_schema_and_another_pipeline_are_refused_with_the_remedy() {
    let lake = Lake::new();
    let mut table = create(&lake).await;
    let other = Progress { pipeline: "second".to_owned(), ..progress() };
    let error = LakeTable::open(&lake.location, PATH, &security_event(), &other).await.err().unwrap();
    assert!(error.to_string().contains("give every pipeline its own [lake].url, or move the table away"), "{error}");

    let metadata = with_property(&lake, r#""delta.appendOnly":"true""#);
    lake.foreign_entry(1, &[&metadata.replace("user_agent", "browser")]);
    let error = table.commit(&[], lsn(20)).await.unwrap_err();
    assert!(matches!(error, LakeError::SchemaDiffers { .. }), "{error}");
    assert!(error.to_string().contains("user_agent (missing in the lake)"), "{error}");
    assert!(error.to_string().contains("move the Delta table away or choose another [lake].url"), "{error}");

    lake.foreign_entry(2, &[r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}"#]);
    let text = open_error(&lake).await;
    assert!(text.contains("move the table away or choose another [lake].url"), "{text}");
}
