//! S3: damage in the lake and in the source is found by the day, and healed by the day: nothing else gets another file, and a day with a
//! receipt is never touched.

use super::{Amount, EVENTS, HOOKS, Old, TABLES, assert_equal, copies, init_snapshot};
use crate::archive::lake_faults::{add_of, commit, tamper};
use crate::archive::{assert_chain, is_there, outcomes, reconcile};
use crate::support::{DATABASE, Finished, Site, files, lake_rows};
use chrono::{Days, NaiveDate};
use lakebed::demo::ServerKind;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const AMOUNT: Amount = Amount { days: 10, events: 20, hook_results: 3, detached_after: 7 };

/// The files of every day of both tables.
pub(super) type Files = [BTreeMap<String, BTreeSet<String>>; 2];

pub(super) fn files_of(site: &Site) -> Files {
    TABLES.map(|table| files::by_day(&site.lake().join(table)))
}

/// The days of a table that have other files than before.
pub(super) fn changed(before: &Files, after: &Files, table: usize) -> Vec<String> {
    let (before, after) = (&before[table], &after[table]);
    let days: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    days.into_iter().filter(|day| before.get(*day) != after.get(*day)).cloned().collect()
}

pub(super) fn sorted(days: &[NaiveDate]) -> Vec<String> {
    days.iter().map(NaiveDate::to_string).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Some file of a day's events.
pub(super) fn a_file(site: &Site, day: NaiveDate) -> PathBuf {
    let table = site.lake().join(TABLES[0]);
    table.join(files::by_day(&table)[&day.to_string()].first().unwrap())
}

/// The day's rows are in the lake twice: another program has added a copy of a file.
pub(super) fn double(site: &Site, file: &std::path::Path) {
    let copy = file.with_file_name("part-copy.parquet");
    std::fs::copy(file, &copy).unwrap();
    let (_, mut add) = add_of(site, file);
    let name = file.file_name().unwrap().to_str().unwrap();
    add["path"] = json!(add["path"].as_str().unwrap().replace(name, "part-copy.parquet"));
    commit(site, &json!({ "add": add }));
}

/// Another program has taken the rows of a file out of the table.
pub(super) fn take_out(site: &Site, file: &std::path::Path) {
    let (_, add) = add_of(site, file);
    commit(site, &json!({ "remove": { "path": add["path"], "dataChange": true, "deletionTimestamp": 0 } }));
}

pub(super) async fn leaf_of(site: &Site, day: NaiveDate) -> String {
    let oid = format!("SELECT DISTINCT tableoid::regclass FROM {EVENTS} WHERE created_at::date = '{day}'");
    site.value(&oid).await
}

/// An update, a delete and an insert that no stream has: the leaf is no partition meanwhile.
pub(super) async fn change_unseen(site: &Site, day: NaiveDate) {
    let leaf = leaf_of(site, day).await;
    let next = day + Days::new(1);
    let one = |offset: u32| format!("(SELECT id FROM {leaf} ORDER BY id OFFSET {offset} LIMIT 1)");
    site.sql(&format!(
        "BEGIN;
         ALTER TABLE {EVENTS} DETACH PARTITION {leaf};
         COMMIT;
         UPDATE {leaf} SET description = 'nobody saw it' WHERE id = {};
         DELETE FROM {leaf} WHERE id = {};
         INSERT INTO {leaf} SELECT (json_populate_record(t, json_build_object('id', gen_random_uuid()))).* FROM {leaf} t LIMIT 1;
         ALTER TABLE {EVENTS} ATTACH PARTITION {leaf} FOR VALUES FROM ('{day}') TO ('{next}')",
        one(3),
        one(7)
    ))
    .await;
}

async fn repair(site: &Site, more: &[&str]) -> Finished {
    site.lakebed(&[&["repair"], more].concat()).await
}

#[track_caller]
fn names_all(finished: &Finished, days: &[NaiveDate]) {
    for day in days {
        assert!(finished.stdout.contains(&day.to_string()), "{day} is not in:\n{}", finished.stdout);
    }
}

#[tokio::test]
async fn s3_only_days_that_do_not_balance_are_copied_again() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let site = &old.site;
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    site.run_until_caught_up().await;
    // All is well, and there is nothing to do.
    repair(site, &["--execute"]).await.succeeded();
    for table in TABLES {
        let copies = copies(&site.lake().join(table));
        assert!(copies.values().all(|times| *times == 1), "{copies:?}");
    }

    let lost = old.day(1);
    let [doubled, taken_out, altered, unseen, emptied, archived] = [2, 3, 4, 5, 6, 9].map(|ago| old.day(ago));
    std::fs::remove_file(a_file(site, lost)).unwrap();
    double(site, &a_file(site, doubled));
    take_out(site, &a_file(site, taken_out));
    tamper(site, &a_file(site, altered));
    change_unseen(site, unseen).await;
    site.sql(&format!("TRUNCATE {}", leaf_of(site, emptied).await)).await;
    let detached = format!("archive.security_event_p{}", archived.format("%Y_%m_%d"));
    site.sql(&format!("DELETE FROM {detached} WHERE id = (SELECT min(id::text)::uuid FROM {detached})")).await;
    let unseen_retry = format!("archive.security_event_hook_results_p{}", archived.format("%Y_%m_%d"));
    site.sql(&format!("UPDATE {unseen_retry} SET status = 'nobody saw it'")).await;

    let events = [lost, doubled, taken_out, altered, unseen, emptied, archived];
    let before = files_of(site);
    let rehearsal = repair(site, &[]).await;
    assert_eq!(rehearsal.code, Some(3), "{}{}", rehearsal.stdout, rehearsal.stderr);
    names_all(&rehearsal, &events);
    let json = repair(site, &["--json"]).await;
    assert_eq!(json.code, Some(3), "{}{}", json.stdout, json.stderr);
    serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap();
    names_all(&json, &events);
    for told in [&rehearsal.stdout, &rehearsal.stderr, &json.stdout, &json.stderr] {
        assert!(!told.contains("nobody saw it") && !told.contains("made by a test"), "a value of a row: {told}");
    }
    assert!(before == files_of(site), "a rehearsal changes nothing");

    // One day of one table, as asked.
    let day = lost.to_string();
    let one = ["--execute", "--table", EVENTS, "--from", &day, "--to", &day];
    repair(site, &one).await.succeeded();
    let after_one = files_of(site);
    assert_eq!(changed(&before, &after_one, 0), sorted(&[lost]));
    assert_eq!(changed(&before, &after_one, 1), sorted(&[]));

    repair(site, &["--execute"]).await.succeeded();
    let after = files_of(site);
    assert_eq!(changed(&before, &after, 0), sorted(&events));
    assert_eq!(changed(&before, &after, 1), sorted(&[archived]));
    assert!(!after[0].contains_key(&emptied.to_string()), "it has no row");
    repair(site, &["--execute"]).await.succeeded();
    assert!(after == files_of(site), "what balances is left alone");
    old.assert_equal(&site.lake()).await;
    for table in TABLES {
        assert_eq!(files::missing(&site.lake().join(table)), Vec::<String>::new(), "{table}");
    }

    // The stream goes on, also on the days that were healed, and what was healed in the archive balances and drops.
    site.sql(&super::load::events(&events[..6], 2)).await;
    site.sql(&format!("UPDATE {EVENTS} SET description = 'seen again' WHERE created_at::date = '{altered}'")).await;
    let run = site.start_run();
    let (finished, report) = reconcile(site, &["--table", &detached]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [detached.as_str()], "{report}");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    // 20 rows a day, one of the archive is gone, and those of the emptied leaf; then two for each of six days.
    assert_eq!(lake_rows(site, TABLES[0]).await, 20 * 14 - 1 - 20 + 12);
}

#[tokio::test]
async fn s3_a_day_with_a_receipt_is_never_touched() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let site = &old.site;
    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    let run = site.start_run();
    let [dropped, waiting] = [8, 9].map(|ago| old.day(ago));
    let [dropped_table, waiting_table] =
        [dropped, waiting].map(|day| format!("archive.security_event_p{}", day.format("%Y_%m_%d")));
    let (finished, report) = reconcile(site, &["--table", &dropped_table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [dropped_table.as_str()], "{report}");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    // PostgreSQL has nothing any more that it could be healed from: what the lake has of it is all that there is.
    tamper(site, &a_file(site, dropped));
    site.sql(&format!("UPDATE {waiting_table} SET description = 'nobody saw it'")).await;
    let receipts = "SELECT string_agg(hash, ' ' ORDER BY sequence) FROM archive.receipt";
    let (before, receipts_before) = (files_of(site), site.value(receipts).await);
    let finished = repair(site, &["--execute"]).await;
    assert!(matches!(finished.code, Some(0 | 3)), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(changed(&before, &files_of(site), 0), sorted(&[waiting]));
    assert_eq!(site.value(receipts).await, receipts_before);
    assert!(is_there(site, &waiting_table).await);
    assert_chain(site).await;
}

/// Whole tables are healed as one where the key does not hold the date.
#[tokio::test]
async fn s3_a_table_whose_key_does_not_hold_the_date_is_healed() {
    let site = Site::bare(ServerKind::Debian15).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    site.sql(
        "CREATE TABLE public.note (id bigint PRIMARY KEY, label text NOT NULL, created_at timestamp NOT NULL);
         INSERT INTO public.note SELECT n, 'a', timestamp '2026-01-01' + n % 5 * interval '1 day' FROM generate_series(1, 500) AS n",
    )
    .await;
    let mut text = site.pipeline_text();
    text.tables = vec![("public.note".to_owned(), "created_at".to_owned(), "day")];
    site.write_pipeline(&text);
    init_snapshot(&site, &site.pipeline_file()).await.succeeded();
    // Unseen, because the table is not published meanwhile.
    for sql in [
        "ALTER PUBLICATION lakebed DROP TABLE public.note",
        "UPDATE public.note SET label = 'b' WHERE id = 7; DELETE FROM public.note WHERE id = 8",
        "UPDATE public.note SET created_at = timestamp '2026-01-03' WHERE id = 9",
        "ALTER PUBLICATION lakebed ADD TABLE public.note",
    ] {
        site.sql(sql).await;
    }
    assert_eq!(repair(&site, &[]).await.code, Some(3));
    repair(&site, &["--execute"]).await.succeeded();
    repair(&site, &[]).await.succeeded();
    site.sql("UPDATE public.note SET created_at = created_at + interval '1 day', label = 'c' WHERE id % 10 = 0").await;
    site.run_until_caught_up().await;
    let rows = crate::support::assert_lake_equals_source(&site, "public.note", "created_at", "day").await;
    assert_eq!(rows, 499);
}

#[tokio::test]
async fn s3_what_is_asked_for_must_exist() {
    let site = Site::small().await;
    site.init().await;
    repair(&site, &["--table", "public.nowhere"]).await.refused(1, &["public.nowhere"]);
    assert_eq!(repair(&site, &["--from", "yesterday"]).await.code, Some(2));
    repair(&site, &["--table", HOOKS]).await.succeeded();
    assert_equal(&site, &site.lake()).await;
}
