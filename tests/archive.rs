//! The archive: what partman detaches is balanced against the lake, gets a receipt and is dropped, and nothing else is (R1 to R5).

mod chain;
mod crash;
mod erase;
pub mod lake_faults;
mod left_alone;
mod names;
mod on_s3;
mod rights;
mod schedule;
mod versions;

use crate::support::{Finished, RunningRun, Site, files, lake_rows};
use lakebed::base::{MARKER_PREFIX, RECONCILE_MARKER};
use lakebed::demo::ServerKind;
use serde_json::Value;
use std::path::{Path, PathBuf};

const EVENTS: &str = "public.security_event";
/// Beyond the retention, with a day to spare.
const OLD_DAYS: std::ops::Range<i32> = 7..10;

/// A site whose partman keeps 5 days instead of the customer's 90, so that a few partitions are enough.
async fn old_site() -> Site {
    let site = Site::with_history(ServerKind::Debian15, 11).await;
    site.sql("UPDATE partman.part_config SET retention = '5 days'").await;
    site
}

/// A site whose partitions of 7 to 9 days ago hold rows that the lake has, and are detached; and its pipeline, running.
async fn archived() -> (Site, RunningRun) {
    let site = old_site().await;
    site.init().await;
    for day in OLD_DAYS {
        insert(&site, day, 20).await;
    }
    insert(&site, 0, 5).await;
    let run = site.start_run();
    site.sql("CALL partman.run_maintenance_proc()").await;
    (site, run)
}

async fn insert(site: &Site, days_ago: i32, rows: u32) {
    site.sql(&format!(
        "INSERT INTO {EVENTS} SELECT gen_random_uuid(), 'login_success', 'made by a test', gen_random_uuid(), 'tenant', 'client', '日本語',
             NULL, CASE WHEN n % 2 = 0 THEN '' END, NULL, '2001:db8::1', E'line\\nbreak', '{{\"a\": [1, null]}}',
             date_trunc('day', timezone('UTC', now())) - {days_ago} * interval '1 day' + n * interval '1 second'
         FROM generate_series(1, {rows}) AS n"
    ))
    .await;
}

/// Waits until the lake has everything that is committed.
async fn landed(site: &Site) {
    let lsn =
        site.value(&format!("SELECT pg_logical_emit_message(false, '{MARKER_PREFIX}', '{RECONCILE_MARKER}')")).await;
    // Another commit makes an idle server send the message.
    site.sql("SELECT pg_logical_emit_message(true, 'a test', '')").await;
    site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots")).await;
}

pub async fn reconcile(site: &Site, more: &[&str]) -> (Finished, Value) {
    let finished = site.lakebed(&[&["reconcile", "--json"], more].concat()).await;
    let report = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|_| panic!("code {:?}: {}{}", finished.code, finished.stdout, finished.stderr));
    (finished, report)
}

pub async fn audit(site: &Site, more: &[&str]) -> (Finished, Value) {
    let finished = site.lakebed(&[&["audit", "--json"], more].concat()).await;
    let report = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|_| panic!("code {:?}: {}{}", finished.code, finished.stdout, finished.stderr));
    (finished, report)
}

/// What an audit says of the events of so many days ago.
async fn audited<'a>(site: &Site, report: &'a Value, days_ago: i32) -> &'a Value {
    let day = day(site, days_ago).await;
    let mut days = report["days"].as_array().unwrap().iter();
    let found = days.find(|found| found["days"] == day.as_str() && found["table"] == EVENTS);
    found.unwrap_or_else(|| panic!("no {day} in {report}"))
}

/// `2026-01-02`, so many days ago.
async fn day(site: &Site, days_ago: i32) -> String {
    site.value(&format!("SELECT (timezone('UTC', now()) - {days_ago} * interval '1 day')::date")).await
}

/// Where the lake has the events of so many days ago.
async fn folder(site: &Site, days_ago: i32) -> PathBuf {
    let day = day(site, days_ago).await;
    let [year, month, day] = day.split('-').collect::<Vec<_>>().try_into().unwrap();
    site.lake().join(format!("security_event/year={year}/month={month}/day={day}"))
}

/// The one data file there.
fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_iter().next().unwrap()
}

/// The name of the events' detached table of so many days ago.
async fn detached(site: &Site, days_ago: i32) -> String {
    site.value(&format!("SELECT 'archive.security_event_p' || to_char(timezone('UTC', now()) - {days_ago} * interval '1 day', 'YYYY_MM_DD')"))
        .await
}

pub fn outcomes<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let partitions = report["partitions"].as_array().unwrap().iter();
    let those = partitions.filter(|partition| partition["outcome"] == outcome);
    those.map(|partition| partition["partition"].as_str().unwrap()).collect()
}

pub async fn is_there(site: &Site, table: &str) -> bool {
    site.value(&format!("SELECT to_regclass('{table}') IS NOT NULL")).await == "t"
}

#[tokio::test]
async fn r1_what_balances_is_dropped_with_a_receipt_and_the_lake_answers_for_it() {
    let (site, run) = archived().await;
    let waiting = site.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'archive' AND tablename ~ '_p2'").await;
    let (finished, report) = reconcile(&site, &["--dry-run"]).await;
    finished.succeeded();
    assert!(outcomes(&report, "balanced").contains(&detached(&site, 8).await.as_str()), "{report}");
    assert_eq!(site.value("SELECT count(*) FROM archive.receipt").await, "0", "a dry run drops nothing");

    let (finished, report) = reconcile(&site, &[]).await;
    finished.succeeded();
    let dropped = outcomes(&report, "dropped");
    assert_eq!(dropped.len(), report["partitions"].as_array().unwrap().len(), "{report}");
    for day in OLD_DAYS {
        let table = detached(&site, day).await;
        assert!(dropped.contains(&table.as_str()), "{table}: {report}");
        assert!(!is_there(&site, &table).await, "{table}");
        let rows = site.value(&format!("SELECT rows FROM archive.receipt WHERE partition_name = '{table}'")).await;
        assert_eq!(rows, "20", "{table}");
    }
    // A day without rows is a day like any other.
    assert_ne!(site.value("SELECT count(*) FROM archive.receipt WHERE rows = 0").await, "0");
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["chain"]["server"], "the same", "{report}");
    for day in OLD_DAYS {
        let found = audited(&site, &report, day).await;
        assert_eq!((&found["outcome"], &found["lake"]["rows"]), (&"good".into(), &20.into()), "{found}");
        assert_eq!(found["files"], found["proved_files"], "{found}");
    }
    // The statistics' partitions are in the same schema, and belong to no table of the pipeline file.
    let left = site.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'archive' AND tablename ~ '_p2'").await;
    assert_eq!(left.parse::<usize>().unwrap() + dropped.len(), waiting.parse::<usize>().unwrap());
    assert!(is_there(&site, "archive.config").await);
    assert_chain(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    assert_eq!(lake_rows(&site, "security_event").await, 65);
    site.cluster.stop().await;
}

/// Each receipt's hash is that of its text, and the text holds the hash of the receipt before it.
pub async fn assert_chain(site: &Site) {
    let broken = "
        SELECT count(*) FROM (
            SELECT sequence, hash, content, lag(hash, 1, '') OVER (ORDER BY sequence) AS before, row_number() OVER (ORDER BY sequence) AS place
            FROM archive.receipt) r
        WHERE hash <> encode(sha256(convert_to(content, 'UTF8')), 'hex') OR content::jsonb->>'previous_hash' <> before OR sequence <> place";
    assert_eq!(site.value(broken).await, "0");
    assert_ne!(site.value("SELECT count(*) FROM archive.receipt").await, "0");
}

#[tokio::test]
async fn r1_what_does_not_balance_stays_and_is_a_finding() {
    let (site, run) = archived().await;
    let [changed, short, long] = [7, 8, 9].map(|day| detached(&site, day));
    let (changed, short, long) = (changed.await, short.await, long.await);
    let changed_row = site.value(&format!("SELECT id FROM {changed} LIMIT 1")).await;
    site.sql(&format!("UPDATE {changed} SET description = 'tampered' WHERE id = '{changed_row}'")).await;
    let lost_row = site.value(&format!("SELECT id FROM {short} LIMIT 1")).await;
    site.sql(&format!("DELETE FROM {short} WHERE id = '{lost_row}'")).await;
    site.sql(&format!("INSERT INTO {long} SELECT (json_populate_record(t, json_build_object('id', gen_random_uuid()))).* FROM {long} t LIMIT 2"))
        .await;
    let (finished, report) = reconcile(&site, &["--table", EVENTS]).await;
    assert_eq!(finished.code, Some(3), "{}{}", finished.stdout, finished.stderr);
    let mut differing = outcomes(&report, "differs");
    differing.sort_unstable();
    let mut expected = [changed.as_str(), &short, &long];
    expected.sort_unstable();
    assert_eq!(differing, expected, "{report}");
    for table in expected {
        assert!(is_there(&site, table).await, "{table}");
        let findings =
            format!("SELECT count(*) FROM archive.finding WHERE partition_name = '{table}' AND resolved_at IS NULL");
        assert_eq!(site.value(&findings).await, "1", "{table}");
    }
    assert_narrowed(&site, &report, &changed, [20, 20], &[("different", &changed_row)], &["description"]).await;
    assert_narrowed(&site, &report, &short, [19, 20], &[("extra", &lost_row)], &[]).await;
    let new_rows = format!("SELECT id FROM {long} ORDER BY ctid DESC LIMIT 1");
    let (new_row, other_new_row) =
        (site.value(&format!("{new_rows} OFFSET 0")).await, site.value(&format!("{new_rows} OFFSET 1")).await);
    let missing = [("missing", new_row.as_str()), ("missing", other_new_row.as_str())];
    assert_narrowed(&site, &report, &long, [22, 20], &missing, &[]).await;
    let shown = site.lakebed(&["reconcile", "--dry-run", "--table", &changed]).await;
    assert_eq!(shown.code, Some(3), "{}{}", shown.stdout, shown.stderr);
    assert!(
        shown.stdout.contains("T00: PostgreSQL and the lake have 20 rows each, and not the same"),
        "{}",
        shown.stdout
    );
    assert!(shown.stdout.contains(&format!("different: 1 key: id={changed_row}, created_at=")), "{}", shown.stdout);
    assert!(shown.stdout.contains(", in column description\n"), "{}", shown.stdout);
    let evidence = site.value("SELECT string_agg(evidence::text || reason, ' ') FROM archive.finding").await;
    for told in [&finished.stdout, &finished.stderr, &shown.stdout, &shown.stderr, &evidence] {
        assert!(!told.contains("tampered") && !told.contains("made by a test"), "a value that is no key: {told}");
    }
    // What is mended balances, and its finding is settled.
    site.sql(&format!("UPDATE {changed} SET description = 'made by a test'")).await;
    let (finished, report) = reconcile(&site, &["--table", &changed]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [changed.as_str()]);
    assert_eq!(site.value("SELECT count(*) FROM archive.finding WHERE resolved_at IS NULL").await, "2");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

/// The report and the finding name the only hour, the rows of both sides, the keys and the columns, and nothing else.
async fn assert_narrowed(
    site: &Site,
    report: &Value,
    table: &str,
    rows: [i64; 2],
    keys: &[(&str, &str)],
    columns: &[&str],
) {
    let mut partitions = report["partitions"].as_array().unwrap().iter();
    let narrowed = &partitions.find(|partition| partition["partition"] == table).unwrap()["narrowed"];
    let day = site.value(&format!("SELECT min(created_at)::date FROM {table}")).await;
    let hours = narrowed["hours"].as_array().unwrap();
    assert_eq!(hours.len(), 1, "{narrowed}");
    assert_eq!(hours[0]["hour"], format!("{day}T00"), "{narrowed}");
    assert_eq!(
        [&hours[0]["postgres"]["rows"], &hours[0]["lake"]["rows"]],
        rows.map(Value::from).each_ref(),
        "{narrowed}"
    );
    for kind in ["missing", "extra", "doubled", "different"] {
        let mut expected: Vec<&str> = keys.iter().filter(|(of, _)| *of == kind).map(|(_, id)| *id).collect();
        expected.sort_unstable();
        assert_eq!(narrowed[kind]["total"], expected.len(), "{kind}: {narrowed}");
        let told = narrowed[kind]["keys"].as_array().unwrap();
        assert_eq!(told.len(), expected.len(), "{kind}: {narrowed}");
        for (told, id) in told.iter().zip(expected) {
            let told = told.as_str().unwrap();
            assert!(told.starts_with(&format!("id={id}, created_at={day}T00:00:")), "{kind}: {told}");
        }
    }
    assert_eq!(narrowed["columns"], serde_json::json!(columns), "{narrowed}");
    assert_eq!(narrowed["notes"], serde_json::json!([]), "{narrowed}");
    let kept = format!(
        "SELECT evidence->'narrowed' = '{narrowed}'::jsonb FROM archive.finding WHERE partition_name = '{table}' AND resolved_at IS NULL"
    );
    assert_eq!(site.value(&kept).await, "t", "{table}");
}

#[tokio::test]
async fn r1_a_file_that_is_lost_or_doubled_in_the_lake_is_noticed() {
    let (site, run) = archived().await;
    let (finished, _) = reconcile(&site, &["--dry-run"]).await;
    finished.succeeded();
    let folder = folder(&site, 8).await;
    let file = only_file(&folder);
    let kept = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let (finished, report) = reconcile(&site, &["--table", EVENTS]).await;
    assert_eq!(finished.code, Some(3), "{}{}", finished.stdout, finished.stderr);
    let table = detached(&site, 8).await;
    assert_eq!(outcomes(&report, "differs"), [table.as_str()], "{report}");
    assert!(report.to_string().contains("is missing"), "{report}");
    assert!(report.to_string().contains("1 file of the lake cannot be read"), "{report}");
    assert!(is_there(&site, &table).await);
    // A file that nobody's log names is nothing to the lake, and one of another length is no file of it.
    std::fs::write(folder.join("part-extra.parquet"), &kept).unwrap();
    std::fs::write(&file, &kept[..kept.len() - 1]).unwrap();
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    assert_eq!(finished.code, Some(3));
    assert!(report.to_string().contains("bytes, and the log says"), "{report}");
    std::fs::write(&file, &kept).unwrap();
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [table.as_str()]);
    assert_eq!(files::missing(&site.lake().join("security_event")), Vec::<String>::new());
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
