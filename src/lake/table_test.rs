//! Creating and opening tables: what is refused, and what a reader that is not this room sees.

use super::fixtures::{Lake, PATH, column, day, events, every_type, imaginary_file, lsn, progress, security_event};
use super::{LakeError, LakeTable, Patience, Progress, TableWriter, WriterOptions, open_for_query, table_days};
use crate::base::{Classify, ColumnType, PartitionBy, RetryClass, TableShape};
use crate::buffer::PartitionBatch;
use deltalake::arrow::array::{Array, AsArray, StringArray};
use deltalake::arrow::compute::concat_batches;
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::datafusion::prelude::SessionContext;

async fn create(lake: &Lake, at: u64) -> LakeTable {
    LakeTable::create(&lake.location, PATH, &security_event(), &progress(), lsn(at)).await.unwrap()
}

async fn open(lake: &Lake, shape: &TableShape, progress: &Progress) -> Result<LakeTable, LakeError> {
    LakeTable::open(&lake.location, PATH, shape, progress).await
}

async fn open_error(lake: &Lake, shape: &TableShape, progress: &Progress) -> String {
    let Err(error) = open(lake, shape, progress).await else { panic!("opened") };
    assert_eq!(error.retry_class(), RetryClass::Definite, "{error}");
    error.to_string()
}

async fn select(lake: &Lake, sql: &str) -> RecordBatch {
    let table = open_for_query(&lake.location, PATH).await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", table.table_provider().await.unwrap()).unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

async fn write(table: &mut LakeTable, batches: Vec<PartitionBatch>, at: u64) {
    let mut writer = TableWriter::new(table, WriterOptions::default(), Patience::none()).unwrap();
    for batch in batches {
        writer.write(batch).await.unwrap();
    }
    let files = writer.finish().await.unwrap();
    assert_eq!(table.commit(&files, lsn(at)).await.unwrap().lsn(), lsn(at));
}

#[tokio::test]
async fn a_table_is_created_committed_to_and_reopened() {
    let lake = Lake::new();
    let mut table = create(&lake, 10).await;
    assert_eq!((table.recorded(), table.version()), (lsn(10), 0));
    assert_eq!(table.commit(&[imaginary_file(&lake, 1)], lsn(20)).await.unwrap().lsn(), lsn(20));
    assert_eq!(table.commit(&[], lsn(30)).await.unwrap().lsn(), lsn(30));
    table.close().await;
    let table = open(&lake, &security_event(), &progress()).await.unwrap();
    assert_eq!((table.recorded(), table.version(), table.durable().lsn()), (lsn(30), 2, lsn(30)));
    // Whoever comes second opens what is there, and learns its position.
    assert_eq!(create(&lake, 99).await.recorded(), lsn(30));
}

#[tokio::test]
async fn two_creators_make_one_table() {
    let lake = Lake::new();
    let (left, right) = tokio::join!(create(&lake, 1), create(&lake, 2));
    assert_eq!(left.recorded(), right.recorded());
    assert!(!lake.log_file(1).exists());
}

#[tokio::test]
async fn the_table_stays_in_the_profile_that_every_reader_reads() {
    let lake = Lake::new();
    LakeTable::create(&lake.location, PATH, &every_type(), &progress(), lsn(1)).await.unwrap();
    let table = open_for_query(&lake.location, PATH).await.unwrap();
    let state = table.snapshot().unwrap();
    assert_eq!((state.protocol().min_reader_version(), state.protocol().min_writer_version()), (1, 2));
    assert_eq!(state.metadata().partition_columns(), &["year", "month", "day"]);
    let configuration = state.metadata().configuration();
    assert!(!configuration.contains_key("delta.setTransactionRetentionDuration"));
    assert_eq!(configuration["lakebed.source"], "public.every_type");
    let fields: Vec<String> = state.schema().fields().map(|field| field.name().clone()).collect();
    let mut expected: Vec<String> = every_type().columns.into_iter().map(|column| column.name).collect();
    expected.extend(["year", "month", "day"].map(str::to_owned));
    assert_eq!(fields, expected);
    assert_eq!(
        table.snapshot().unwrap().transaction_version(table.log_store().as_ref(), progress().app_id()).await.unwrap(),
        Some(1)
    );
}

#[tokio::test]
async fn rows_are_equal_when_read_back() {
    let lake = Lake::new();
    let mut table = create(&lake, 1).await;
    let batches = vec![events(day(1), 0, 3_000), events(day(2), 3_000, 10), events(day(1), 4_000, 500)];
    write(&mut table, batches.clone(), 2).await;
    let columns = security_event().columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ");
    let found = select(&lake, &format!("SELECT {columns} FROM t ORDER BY id")).await;
    let rows: Vec<RecordBatch> = batches.into_iter().map(|batch| batch.rows).collect();
    let written = concat_batches(&rows[0].schema(), &rows).unwrap();
    let ids = written.column(0).as_string::<i32>().clone();
    let mut order: Vec<u32> = (0..u32::try_from(ids.len()).unwrap()).collect();
    order.sort_unstable_by_key(|row| ids.value(*row as usize).to_owned());
    let order = deltalake::arrow::array::UInt32Array::from(order);
    for (index, column) in written.columns().iter().enumerate() {
        let expected = deltalake::arrow::compute::take(column, &order, None).unwrap();
        let found = deltalake::arrow::compute::cast(found.column(index), expected.data_type()).unwrap();
        assert_eq!(&found, &expected, "column {index}");
    }
}

#[tokio::test]
async fn the_last_microsecond_is_found_and_not_folded_into_a_rounded_bound() {
    let lake = Lake::new();
    let mut table = create(&lake, 1).await;
    write(&mut table, vec![events(day(1), 0, 100), events(day(2), 100, 100)], 2).await;
    let sql = "SELECT CAST(count(*) AS VARCHAR) FROM t WHERE created_at > arrow_cast('2026-01-01T23:59:59.9999', \
               'Timestamp(Microsecond, Some(\"UTC\"))') AND day = '01'";
    assert_eq!(select(&lake, sql).await.column(0).as_string_view_or_plain(), ["1"]);
    let sql = "SELECT CAST(arrow_cast(max(created_at), 'Int64') AS VARCHAR) FROM t";
    assert_eq!(select(&lake, sql).await.column(0).as_string_view_or_plain(), ["1767398399999999"]);
}

#[tokio::test]
async fn days_are_summed_from_the_log_alone() {
    let lake = Lake::new();
    let mut table = create(&lake, 1).await;
    write(&mut table, vec![events(day(2), 0, 7), events(day(1), 7, 5)], 2).await;
    write(&mut table, vec![events(day(2), 12, 3)], 3).await;
    std::fs::remove_dir_all(lake.folder.path().join(PATH).join("year=2026")).unwrap();
    let days = table_days(&lake.location, PATH).await.unwrap();
    let found: Vec<_> = days.iter().map(|day| (day.partition[2].1.as_str(), day.rows, day.files)).collect();
    assert_eq!(found, [("01", Some(5), 1), ("02", Some(10), 2)]);
    assert!(days.iter().all(|day| day.bytes > 0));
    assert!(matches!(table_days(&lake.location, "absent").await, Err(LakeError::Missing { .. })));
}

#[tokio::test]
async fn a_table_of_months_has_no_day() {
    let lake = Lake::new();
    let mut shape = security_event();
    shape.partition_by = PartitionBy::Month;
    let mut table = LakeTable::create(&lake.location, PATH, &shape, &progress(), lsn(1)).await.unwrap();
    let mut batch = events(day(17), 0, 4);
    batch.partition = PartitionBy::Month.partition_of(day(17).first_day());
    write(&mut table, vec![batch], 2).await;
    let days = table_days(&lake.location, PATH).await.unwrap();
    let expected = [("year", "2026"), ("month", "01")].map(|(column, value)| (column.to_owned(), value.to_owned()));
    assert_eq!(days[0].partition, expected);
    let text = open_error(&lake, &security_event(), &progress()).await;
    assert!(text.contains("partition_by is month there, day here"), "{text}");
}

#[tokio::test]
async fn a_source_that_does_not_fit_is_refused_by_column() {
    let lake = Lake::new();
    create(&lake, 1).await;
    let mut shape = security_event();
    shape.columns.push(column("note", ColumnType::Text, true));
    shape.columns[1].column_type = ColumnType::Int8;
    let text = open_error(&lake, &shape, &progress()).await;
    assert!(text.contains("in type (string instead of long);"), "{text}");
    assert!(text.contains("lake_columns = { … = \"…__v2\" } in its [[table]]"), "{text}");
    shape.columns[1].lake_name = "type__v2".to_owned();
    open(&lake, &shape, &progress()).await.unwrap();
}

#[tokio::test]
async fn rows_are_put_into_folders_by_one_rule_for_ever() {
    let lake = Lake::new();
    let mut shape = security_event();
    shape.time_zone = chrono_tz::Asia::Tokyo;
    // A timestamp has no zone, so the zone asked for is not in force and not recorded.
    LakeTable::create(&lake.location, PATH, &shape, &progress(), lsn(1)).await.unwrap();
    let table = open_for_query(&lake.location, PATH).await.unwrap();
    let configuration = table.snapshot().unwrap().metadata().configuration().clone();
    assert_eq!(configuration["lakebed.time_zone"], "UTC");
    open(&lake, &security_event(), &progress()).await.unwrap();
    let zoned = shape.columns.len() - 1;
    shape.columns[zoned].column_type = ColumnType::TimestampTz;
    let text = open_error(&lake, &shape, &progress()).await;
    assert!(text.contains("time_zone is UTC there, Asia/Tokyo here; correct [[table]]"), "{text}");
    shape = security_event();
    shape.time_zone = chrono_tz::Etc::UTC;
    open(&lake, &shape, &progress()).await.unwrap();
    shape.partition_column = 0;
    let text = open_error(&lake, &shape, &progress()).await;
    assert!(text.contains("partition_column is created_at there, id here"), "{text}");
}

#[tokio::test]
async fn an_upgraded_table_is_refused() {
    let lake = Lake::new();
    create(&lake, 1).await;
    let upgrade = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#;
    lake.foreign_entry(1, &[upgrade]);
    let text = open_error(&lake, &security_event(), &progress()).await;
    assert!(text.contains("reader version 3, writer version 7 with deletionVectors"), "{text}");
}

#[tokio::test]
async fn a_table_that_somebody_else_feeds_is_refused_by_name() {
    let lake = Lake::new();
    let mut table = create(&lake, 1).await;
    table.commit(&[], lsn(2)).await.unwrap();
    for other in [
        Progress { system_identifier: "9999".to_owned(), ..progress() },
        Progress { pipeline: "second".to_owned(), ..progress() },
        Progress { epoch: 1, ..progress() },
    ] {
        let text = open_error(&lake, &security_event(), &other).await;
        assert!(text.contains("is fed by lakebed/7412/lakebed/public.security_event/0"), "{text}");
    }
    std::fs::remove_file(lake.log_file(1)).unwrap();
    let without = std::fs::read_to_string(lake.log_file(0)).unwrap();
    let without: Vec<&str> = without.lines().filter(|line| !line.contains("\"txn\":")).collect();
    std::fs::write(lake.log_file(0), without.join("\n")).unwrap();
    let text = open_error(&lake, &security_event(), &progress()).await;
    assert!(text.contains("was not written by lakebed: choose another [lake].url or move it away"), "{text}");
}

#[tokio::test]
async fn no_table_and_a_torn_log_are_told_apart() {
    let lake = Lake::new();
    assert!(matches!(open(&lake, &security_event(), &progress()).await, Err(LakeError::Missing { .. })));
    let mut table = create(&lake, 1).await;
    for position in 2..5 {
        table.commit(&[], lsn(position)).await.unwrap();
    }
    std::fs::remove_file(lake.log_file(2)).unwrap();
    let text = open_error(&lake, &security_event(), &progress()).await;
    assert!(text.contains("the entry of version 2 is missing"), "{text}");
}

trait Texts {
    fn as_string_view_or_plain(&self) -> Vec<String>;
}

impl Texts for std::sync::Arc<dyn Array> {
    fn as_string_view_or_plain(&self) -> Vec<String> {
        let plain = deltalake::arrow::compute::cast(self, &deltalake::arrow::datatypes::DataType::Utf8).unwrap();
        let plain: &StringArray = plain.as_string();
        plain.iter().map(|text| text.unwrap().to_owned()).collect()
    }
}
