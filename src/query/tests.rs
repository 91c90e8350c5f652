//! The engine over a real local Delta table of several days: names, the guide's statements, Q1, Q2, errors.

use super::output::Format;
use super::*;
use crate::base::TableName;
use deltalake::arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use deltalake::datafusion::datasource::physical_plan::FileScanConfig;
use deltalake::datafusion::datasource::source::DataSourceExec;
use deltalake::datafusion::physical_plan::ExecutionPlan;
use deltalake::kernel::{DataType, PrimitiveType};
use deltalake::protocol::SaveMode;
use deltalake::{DeltaTable, ensure_table_uri};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const DAYS: i64 = 5;
const DAY: i64 = 86_400_000_000;
/// 2024-06-01
const FIRST_DAY: i64 = 1_717_200_000_000_000;

/// The table without a row or a file, as `init` leaves it.
async fn empty_lake() -> (TempDir, DeltaTable) {
    let folder = TempDir::new().unwrap();
    let string = || DataType::Primitive(PrimitiveType::String);
    let names = ["tenant_id", "user_id", "type", "ip_address", "detail", "year", "month", "day"];
    let table = DeltaTable::try_from_url(ensure_table_uri(folder.path().to_str().unwrap()).unwrap())
        .await
        .unwrap()
        .create()
        .with_column("created_at", DataType::Primitive(PrimitiveType::Timestamp), true, None)
        .with_columns(names.map(|name| deltalake::kernel::StructField::new(name, string(), true)))
        .with_partition_columns(["year", "month", "day"])
        .with_raise_if_key_not_exists(false)
        .with_configuration([
            ("lakebed.partition_column", Some("created_at")),
            ("lakebed.partition_by", Some("day")),
            ("lakebed.time_zone", Some("UTC")),
        ])
        .await
        .unwrap();
    (folder, table)
}

/// Three events a day on 2024-06-01 to 05: the day's first microsecond, noon, and its last microsecond.
async fn lake() -> (TempDir, DeltaTable) {
    let (folder, mut table) = empty_lake().await;
    for day in 0..DAYS {
        table = table.write([events(day)]).with_save_mode(SaveMode::Append).await.unwrap();
    }
    (folder, table)
}

fn events(day: i64) -> RecordBatch {
    let midnight = FIRST_DAY + day * DAY;
    let texts = |value: &str| Arc::new(StringArray::from(vec![value; 3])) as ArrayRef;
    let times = TimestampMicrosecondArray::from(vec![midnight, midnight + DAY / 2, midnight + DAY - 1]);
    let users = StringArray::from(vec![Some("u1"), Some(""), None]);
    RecordBatch::try_from_iter_with_nullable([
        ("created_at", Arc::new(times.with_timezone("UTC")) as ArrayRef, true),
        ("tenant_id", texts("your-tenant-id"), true),
        ("user_id", Arc::new(users), true),
        ("type", texts("login_failure"), true),
        ("ip_address", texts("203.0.113.7"), true),
        ("detail", texts("{\"a\": 1, \"b\": \"x,y\"}"), true),
        ("year", texts("2024"), true),
        ("month", texts("06"), true),
        ("day", texts(&format!("{:02}", day + 1)), true),
    ])
    .unwrap()
}

fn engine(table: &DeltaTable) -> QueryEngine {
    let name = TableName::new("public", "security_event");
    let table = QueryTable::new(name, table.clone());
    let options = QueryOptions {
        database: Some("idp_archive".into()),
        memory_limit_bytes: 64 << 20,
        spill_directory: None,
        threads: 2,
    };
    QueryEngine::open(&[table], &options).unwrap()
}

/// Standard output of a test.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn answer(engine: &QueryEngine, sql: &str, format: Format) -> Result<String, QueryError> {
    let sink = Sink::default();
    run_script(engine, parse(sql)?, format, sink.clone()).await?;
    let bytes = sink.0.lock().unwrap().clone();
    Ok(String::from_utf8(bytes).unwrap())
}

async fn csv(engine: &QueryEngine, sql: &str) -> String {
    answer(engine, sql, Format::Csv).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn refusal(engine: &QueryEngine, sql: &str) -> String {
    answer(engine, sql, Format::Csv).await.expect_err(sql).to_string()
}

/// The days whose files a statement's plan reads.
async fn days_read(engine: &QueryEngine, sql: &str) -> Vec<String> {
    let statement = parse(sql).unwrap().remove(0);
    let plan = engine.plan(statement).await.unwrap().create_physical_plan().await.unwrap();
    let mut days = Vec::new();
    collect_days(&plan, &mut days);
    days.sort();
    days.dedup();
    days
}

fn collect_days(plan: &Arc<dyn ExecutionPlan>, days: &mut Vec<String>) {
    if let Some(source) = (plan.as_ref() as &dyn std::any::Any).downcast_ref::<DataSourceExec>()
        && let Some(config) = (source.data_source().as_ref() as &dyn std::any::Any).downcast_ref::<FileScanConfig>()
    {
        for file in config.file_groups.iter().flat_map(|group| group.iter()) {
            let path = file.object_meta.location.to_string();
            let day = path.split("day=").nth(1).and_then(|rest| rest.get(..2)).unwrap();
            days.push(day.to_owned());
        }
    }
    plan.children().into_iter().for_each(|child| collect_days(child, days));
}

#[tokio::test]
async fn the_guides_three_queries_run_word_for_word() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    let failures = "-- 過去1年のログイン失敗を調査
SELECT
    tenant_id,
    user_id,
    created_at,
    detail
FROM idp_archive.security_event
WHERE year = '2024'
  AND type = 'login_failure'
  AND tenant_id = 'your-tenant-id'
ORDER BY created_at DESC
LIMIT 100;";
    let found = csv(&engine, failures).await;
    assert_eq!(found.lines().count(), 16, "{found}");
    assert_eq!(
        found.lines().nth(1).unwrap(),
        "your-tenant-id,,2024-06-05 23:59:59.999999Z,\"{\"\"a\"\": 1, \"\"b\"\": \"\"x,y\"\"}\""
    );
    let by_tenant = "-- テナント別のイベント集計
SELECT
    tenant_id,
    type,
    COUNT(*) as event_count
FROM idp_archive.security_event
WHERE year = '2024' AND month = '06'
GROUP BY tenant_id, type
ORDER BY event_count DESC;";
    assert_eq!(csv(&engine, by_tenant).await, "tenant_id,type,event_count\nyour-tenant-id,login_failure,15\n");
    let suspicious = "-- 不審なIPアドレスの検出
SELECT
    ip_address,
    COUNT(DISTINCT user_id) as affected_users,
    COUNT(*) as attempt_count
FROM idp_archive.security_event
WHERE type = 'login_failure'
  AND year >= '2024'
GROUP BY ip_address
HAVING COUNT(*) > 100
ORDER BY attempt_count DESC;";
    assert_eq!(csv(&engine, suspicious).await, "ip_address,affected_users,attempt_count\n");
    let lower = csv(&engine, &suspicious.replace("> 100", "> 10")).await;
    assert_eq!(lower, "ip_address,affected_users,attempt_count\n203.0.113.7,2,15\n");
}

#[tokio::test]
async fn a_table_has_three_names_in_any_case() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    for name in ["security_event", "public.security_event", "idp_archive.security_event", "IDP_ARCHIVE.Security_Event"]
    {
        let answer =
            csv(&engine, &format!("SELECT COUNT(*) AS n, MIN(\"year\") AS y FROM {name} WHERE Year = '2024'")).await;
        assert_eq!(answer, "n,y\n15,2024\n");
    }
    assert!(csv(&engine, "SHOW TABLES").await.contains("idp_archive,security_event"));
    assert!(csv(&engine, "DESCRIBE security_event").await.contains("year,Utf8"));
    let script = "SELECT 1 AS a; SELECT user_id FROM security_event WHERE day = '01' ORDER BY created_at";
    assert_eq!(csv(&engine, script).await, "a\n1\n\nuser_id\nu1\n\"\"\n\"\"\n");
}

#[tokio::test]
async fn q2_a_time_predicate_reads_no_other_days_files() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    for (predicate, days) in [
        ("TRUE", "01 02 03 04 05"),
        ("day = '03'", "03"),
        ("year = '2024' AND month = '06' AND day BETWEEN '02' AND '03'", "02 03"),
        ("year >= '2025'", ""),
        ("created_at >= '2024-06-03'", "03 04 05"),
        ("created_at >= '2024-06-03' AND created_at < '2024-06-04'", "03"),
        ("created_at >= TIMESTAMP '2024-06-03 00:00:00' AND created_at < TIMESTAMP '2024-06-04 00:00:00'", "03"),
        ("created_at >= TIMESTAMP '2024-06-03 00:00:00Z' AND created_at < TIMESTAMP '2024-06-04 00:00:00Z'", "03"),
        ("created_at >= DATE '2024-06-03' AND created_at < DATE '2024-06-04'", "03"),
        ("created_at BETWEEN '2024-06-02 12:00:00' AND '2024-06-03 12:00:00'", "02 03"),
        ("CAST(created_at AS DATE) = DATE '2024-06-02'", "02"),
        ("created_at::date >= '2024-06-05'", "05"),
        ("created_at > '2024-06-02T23:59:59.999999'", "03 04 05"),
        ("created_at = '2024-06-02 23:59:59.999999Z'", "02"),
        ("'2024-06-02' > created_at", "01"),
        ("(created_at < '2024-06-02' OR created_at < '2024-06-03') AND type = 'login_failure'", "01 02"),
        ("created_at > '2030-01-01'", ""),
    ] {
        let read = days_read(&engine, &format!("SELECT detail FROM security_event WHERE {predicate}")).await;
        assert_eq!(read.join(" "), days, "{predicate}");
    }
}

#[tokio::test]
async fn q2_pruning_changes_no_answer() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    for (predicate, rows) in [
        ("created_at >= '2024-06-03' AND created_at < '2024-06-04'", 3),
        ("created_at > '2024-06-02 23:59:59.999998'", 10),
        ("created_at <= '2024-06-02 00:00:00'", 4),
        ("created_at BETWEEN '2024-06-02 12:00:00' AND '2024-06-03 12:00:00'", 4),
        ("NOT (created_at >= '2024-06-03')", 6),
        ("created_at IS NULL OR created_at >= '2024-06-05'", 3),
    ] {
        let answer = csv(&engine, &format!("SELECT COUNT(detail) AS n FROM security_event WHERE {predicate}")).await;
        assert_eq!(answer, format!("n\n{rows}\n"), "{predicate}");
    }
}

#[tokio::test]
async fn q1_a_write_inside_a_query_is_refused() {
    let (folder, table) = lake().await;
    let engine = engine(&table);
    for sql in [
        "SELECT * INTO copied FROM security_event",
        "WITH x AS (SELECT * FROM security_event) INSERT INTO security_event SELECT * FROM x",
    ] {
        let message = refusal(&engine, sql).await;
        assert!(message.starts_with("read-only: ") && message.lines().count() == 1, "{message}");
    }
    let outside = folder.path().join("outside.csv");
    std::fs::write(&outside, "a\n1\n").unwrap();
    let message = refusal(&engine, &format!("SELECT * FROM '{}'", outside.display())).await;
    assert!(message.starts_with("no table "), "{message}");
}

#[tokio::test]
async fn q1_answers_come_from_the_snapshot_taken_at_start() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    table.write([events(DAYS)]).with_save_mode(SaveMode::Append).await.unwrap();
    let count = "SELECT COUNT(*) AS n FROM security_event";
    assert_eq!(csv(&engine, &format!("{count}; {count}")).await, "n\n15\n\nn\n15\n");
}

#[tokio::test]
async fn errors_are_one_line_and_help() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    for (sql, expected) in [
        (
            "SELECT * FROM securty_event",
            "no table \"securty_event\", did you mean security_event?; tables: security_event",
        ),
        ("SELECT * FROM other_db.security_event", "no table \"other_db.security_event\", did you mean security_event?"),
        (
            "SELECT tenent_id FROM security_event",
            "no column \"tenent_id\", did you mean tenant_id?; columns: created_at,",
        ),
        ("SELECT 1; SELECT\nFROM", "syntax error at line "),
        ("SELECT no_such_function(1)", "Invalid function 'no_such_function'"),
        (
            "SELECT CAST(tenant_id AS INT) FROM security_event",
            "the statement fails on a value of the lake: it cannot be cast",
        ),
    ] {
        let message = refusal(&engine, sql).await;
        assert!(message.starts_with(expected), "{sql}: {message}");
        assert!(message.lines().count() == 1 && !message.contains("your-tenant-id"), "{message}");
    }
}

#[tokio::test]
async fn an_empty_table_answers_with_no_rows() {
    let (_folder, table) = empty_lake().await;
    let engine = engine(&table);
    let sql =
        "SELECT COUNT(*) AS n FROM security_event WHERE created_at > '2024-01-01'; SELECT type FROM security_event";
    assert_eq!(csv(&engine, sql).await, "n\n0\n\ntype\n");
}

#[tokio::test]
async fn memory_is_bounded_and_a_sort_beyond_it_spills() {
    let (_folder, table) = lake().await;
    let table = QueryTable::new(TableName::new("public", "security_event"), table);
    let spill = TempDir::new().unwrap();
    let options = QueryOptions {
        database: None,
        memory_limit_bytes: 24 << 20,
        spill_directory: Some(spill.path().to_owned()),
        threads: 1,
    };
    let engine = QueryEngine::open(&[table], &options).unwrap();
    let sort = "SELECT max(n) AS n FROM (SELECT row_number() OVER (ORDER BY md5(v::text)) AS n \
        FROM generate_series(1, 400000) AS s(v))";
    assert_eq!(csv(&engine, sort).await, "n\n400000\n");
    assert_eq!(csv(&engine, "SELECT COUNT(*) AS n FROM lake.security_event").await, "n\n15\n");
    let message =
        refusal(&engine, "SELECT length(string_agg(repeat('x', 1000), '')) FROM generate_series(1, 100000)").await;
    assert!(message.starts_with("the statement needs more than 24.0 MiB of memory"), "{message}");
    assert_eq!(std::fs::read_dir(spill.path()).unwrap().count(), 1, "one session folder, emptied when it ends");
    drop(engine);
}

/// A pipe whose reader left.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_ends_the_script_quietly() {
    let (_folder, table) = lake().await;
    let engine = engine(&table);
    let endless = parse("SELECT * FROM generate_series(1, 1000000000000); SELECT 1").unwrap();
    assert_eq!(run_script(&engine, endless, Format::Csv, Closed).await.unwrap(), 0);
}
