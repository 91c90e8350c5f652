//! D3, L1, L3: changes of rows that are in the lake, one by one: the customer's retry, what names a row, and what an old image is.

use crate::support::lane::journal_of;
use crate::support::{
    DATABASE, Finished, RunningRun, Site, Value, assert_lake_equals_source, delta_rows, files, lake_rows, load,
};
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, ServerKind};

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";

async fn site(server: ServerKind, days: u32) -> Site {
    let site = Site::with_history(server, days).await;
    load::drop_indexes(&site.cluster, DATABASE).await;
    site.init().await;
    site
}

fn servers() -> [ServerKind; 2] {
    [ServerKind::Debian15, ServerKind::postgres_18().unwrap()]
}

async fn assert_equal(site: &Site) -> [u64; 2] {
    let rows = async |table| assert_lake_equals_source(site, table, "created_at", "day").await;
    [rows(EVENTS).await, rows(HOOKS).await]
}

/// The customer's manual retry: one column of a row of 60 days ago, whose payloads do not come along, and another row for the same event.
#[tokio::test]
async fn d3_a_retry_of_a_hook_of_sixty_days_ago_is_exact_and_rewrites_one_file() {
    for server in servers() {
        let site = site(server, 62).await;
        site.sql(&load::long_hook_results(62, 1..=12)).await;
        site.run_until_caught_up().await;
        assert_eq!(assert_equal(&site).await, [0, 62 * 12]);
        let (table, journal) =
            (site.lake().join("security_event_hook_results"), site.lake().join(journal_of(&HOOKS[7..])));
        assert!(!journal.exists(), "a table that only grows has no journal");
        let added = files::named(&table, "add");
        let columns = "tenant_id, security_event_id, security_event_type, security_event_hook, security_event_payload";
        let retried = format!(
            "SELECT id FROM {HOOKS} WHERE created_at::date = timezone('UTC', now())::date - 60 ORDER BY created_at LIMIT 1"
        );
        site.sql(&format!(
            "BEGIN;
             UPDATE {HOOKS} SET status = 'RETRIED' WHERE id = ({retried}) AND tenant_id = '00000000-0000-4000-8000-000000000001';
             INSERT INTO {HOOKS} SELECT gen_random_uuid(), {columns}, NULL, 'SUCCESS', timezone('UTC', now()), timezone('UTC', now())
             FROM {HOOKS} WHERE status = 'RETRIED';
             COMMIT;"
        ))
        .await;
        site.run_until_caught_up().await;
        assert_eq!(assert_equal(&site).await, [0, 62 * 12 + 1]);
        let day = site
            .value("SELECT to_char(timezone('UTC', now())::date - 60, '\"year=\"YYYY\"/month=\"MM\"/day=\"DD')")
            .await;
        let removed: Vec<String> = files::named(&table, "remove").into_iter().collect();
        assert!(removed.len() == 1 && removed[0].starts_with(&day), "{removed:?}");
        let added: Vec<String> = files::named(&table, "add").difference(&added).cloned().collect();
        assert_eq!(added.len(), 2, "the file of that day, and today's: {added:?}");

        let row = format!("FROM {HOOKS} WHERE status = 'RETRIED'");
        let digest = |column: &str| format!("encode(sha256(convert_to({column}::text, 'UTF8')), 'hex')");
        let [payload, answer] = ["security_event_payload", "security_event_hook_execution_payload"];
        let expected = vec![
            Some("update".to_owned()),
            Some(site.value(&format!("SELECT id {row}")).await),
            Some("FAILURE".to_owned()),
            Some(site.value(&format!("SELECT {} {row}", digest(payload))).await),
            Some(site.value(&format!("SELECT {} {row}", digest(answer))).await),
        ];
        let columns = [
            ("lakebed_operation", Value::Text),
            ("id", Value::Text),
            ("status", Value::Text),
            (payload, Value::Digest),
            (answer, Value::Digest),
        ];
        assert_eq!(delta_rows(&journal, &columns).await, [expected], "one old image, whole");
        let sql = "SELECT status FROM security_event_hook_results__changes";
        let queried = site.lakebed(&["query", "--format", "csv", "-c", sql]).await;
        assert_eq!(queried.succeeded().stdout.lines().nth(1), Some("FAILURE"), "it is a table like any other");
        site.cluster.stop().await;
    }
}

/// What a partition declares decides what the stream brings of an old row; what the root declares, what it is called.
#[tokio::test]
async fn d3_whatever_names_a_row_its_changes_are_exact() {
    for server in servers() {
        let site = site(server, 3).await;
        let leaf = format!("public.{}", leaf_of_today(&site).await);
        let root = HOOKS.to_owned();
        let run = site.start_run();
        for [root_is, leaf_is] in [["DEFAULT", "FULL"], ["FULL", "DEFAULT"], ["FULL", "FULL"], ["DEFAULT", "DEFAULT"]] {
            site.sql(&format!(
                "ALTER TABLE ONLY {root} REPLICA IDENTITY {root_is}; ALTER TABLE {leaf} REPLICA IDENTITY {leaf_is}"
            ))
            .await;
            site.sql(&load::long_hook_results(2, 1..=8)).await;
            wait_until_acknowledged(&site).await;
            let row = |n: u32| format!("WHERE extract(second FROM created_at) = {n}");
            site.sql(&format!("UPDATE {HOOKS} SET status = 'another {root_is} {leaf_is}' {}", row(1))).await;
            site.sql(&format!("UPDATE {HOOKS} SET id = gen_random_uuid() {}", row(2))).await;
            site.sql(&format!("UPDATE {HOOKS} SET created_at = created_at - interval '1 day' {} AND created_at::date = timezone('UTC', now())::date", row(3))).await;
            site.sql(&format!("UPDATE {HOOKS} SET security_event_payload = '{{}}' {}", row(4))).await;
            site.sql(&format!(
                "UPDATE {HOOKS} SET security_event_hook_execution_payload = NULL, id = gen_random_uuid() {}",
                row(5)
            ))
            .await;
            site.sql(&format!("UPDATE {HOOKS} SET security_event_hook_execution_payload = '{{}}' {}", row(5))).await;
            site.sql(&format!("DELETE FROM {HOOKS} {}", row(6))).await;
            wait_until_acknowledged(&site).await;
            assert_equal(&site).await;
        }
        end(run).await;
        site.cluster.stop().await;
    }
}

async fn leaf_of_today(site: &Site) -> String {
    let of_today = "SELECT c.relname FROM pg_class c
        WHERE c.relname LIKE 'security_event_hook_results_p%' AND c.relkind = 'r'
          AND pg_get_expr(c.relpartbound, c.oid) LIKE format('%%FROM (''%s%%', timezone('UTC', now())::date)";
    site.value(of_today).await
}

/// A process dies between the journal's commit and the table's, and the next one cuts its flushes elsewhere: a version that is in the lake
/// after one of those is an old image after the next, and what the journal holds already is not said twice.
#[tokio::test]
async fn l1_no_old_image_is_lost_or_doubled_when_the_flushes_after_a_crash_are_others() {
    let site = site(ServerKind::Debian15, 2).await;
    site.insert_events(3, 1).await;
    site.run_until_caught_up().await;
    write_buffer_lines(&site, "max_age = \"1h\"");
    let late = "00000000-0000-4000-8000-00000000000a";
    site.sql(&load::events(1, 1).replace("gen_random_uuid(), 'login_success'", &format!("'{late}', 'login_success'")))
        .await;
    let noise = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 60000))";
    site.sql(&format!(
        "UPDATE {EVENTS} SET user_agent = {noise}, description = 'first' WHERE id IN (SELECT id FROM {EVENTS} WHERE id <> '{late}' LIMIT 1)"
    ))
    .await;
    site.sql(&format!("UPDATE {EVENTS} SET description = 'second' WHERE id = '{late}'")).await;
    site.sql(&format!("UPDATE {EVENTS} SET description = 'another' WHERE id <> '{late}'")).await;
    RunningRun::start_catching_up_dying_at(&site.pipeline_file(), "journal.after_log_write=1").ended().await.killed();
    let journal = site.lake().join(journal_of("security_event"));
    let old = async || {
        let mut old: Vec<_> = delta_rows(&journal, &[("description", Value::Text)]).await;
        old.sort();
        old.into_iter().flatten().flatten().collect::<Vec<_>>()
    };
    assert_eq!(old().await, ["made by a test"; 3], "one flush: what came and went in it never was in the lake");
    // The row of two megabytes ends a flush.
    write_buffer_lines(&site, "max_age = \"1h\"\nmax_bytes = \"1MiB\"");
    site.run_until_caught_up().await;
    assert_lake_equals_source(&site, EVENTS, "created_at", "day").await;
    let expected = ["first", "made by a test", "made by a test", "made by a test", "made by a test"];
    assert_eq!(old().await, expected, "two flushes");
    site.cluster.stop().await;
}

/// Rows that partman moves stay what they are, whoever changes them next: the journal names him and not partman.
#[tokio::test]
async fn a_row_that_was_moved_is_changed_by_who_changed_it() {
    let site = site(ServerKind::Debian15, 2).await;
    site.insert_events(4, 1).await;
    site.run_until_caught_up().await;
    let moved = format!("WITH moved AS (DELETE FROM {EVENTS} RETURNING *) INSERT INTO {EVENTS} SELECT * FROM moved");
    site.sql(&moved).await;
    site.run_until_caught_up().await;
    let journal = site.lake().join(journal_of("security_event"));
    assert!(delta_rows(&journal, &[("id", Value::Text)]).await.is_empty(), "nothing happened to them");
    site.sql(&moved).await;
    let tamper = format!(
        "WITH chosen AS (SELECT id FROM {EVENTS} LIMIT 1)
         UPDATE {EVENTS} SET description = 'tampered' WHERE id IN (SELECT id FROM chosen) RETURNING pg_current_xact_id()"
    );
    let xid = site.value(&tamper).await;
    site.run_until_caught_up().await;
    assert_eq!(assert_equal(&site).await, [4, 0]);
    let columns = [("lakebed_operation", Value::Text), ("lakebed_xid", Value::Text)];
    assert_eq!(delta_rows(&journal, &columns).await, [[Some("update".to_owned()), Some(xid)]]);
    site.cluster.stop().await;
}

fn write_buffer_lines(site: &Site, lines: &str) {
    let text = site.pipeline_text().render().replace("max_age = \"300ms\"", lines);
    assert!(text.contains(lines));
    std::fs::write(site.pipeline_file(), text).unwrap();
}

async fn wait_until_acknowledged(site: &Site) {
    let lsn = site.value("SELECT pg_current_wal_insert_lsn()").await;
    site.wait_for(&format!(
        "SELECT confirmed_flush_lsn >= '{lsn}'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'lakebed'"
    ))
    .await;
}

async fn end(run: RunningRun) -> Finished {
    run.signal("TERM").await;
    run.ended().await.succeeded()
}

/// Thousands of versions of the same row: one version is in the lake in the end.
#[tokio::test]
async fn a_row_that_changes_again_and_again_is_one_row() {
    let settings = vec![("logical_decoding_work_mem".to_owned(), "64kB".to_owned())];
    let site = Site::with_options(ClusterOptions { extra_settings: settings, ..ClusterOptions::default() }).await;
    customer::create(&site.cluster, &CustomerOptions { premake_days: 2, ..CustomerOptions::with_history(2) })
        .await
        .unwrap();
    site.write_pipeline(&site.pipeline_text());
    site.init().await;
    site.sql(&load::long_hook_results(1, 1..=2)).await;
    site.run_until_caught_up().await;
    let again = "SET status = coalesce(nullif(status, 'FAILURE'), '0')::int + 1";
    let turns = |turns: u32, what: &str| format!("DO $$ BEGIN FOR turn IN 1..{turns} LOOP {what}; END LOOP; END $$;");
    let run = site.start_run();
    // In one transaction, which is streamed, and then in one each.
    site.sql(&turns(5_000, &format!("UPDATE {HOOKS} {again}"))).await;
    site.sql(&turns(500, &format!("UPDATE {HOOKS} {again}; COMMIT"))).await;
    wait_until_acknowledged(&site).await;
    end(run).await;
    assert_eq!(assert_equal(&site).await, [0, 2]);
    assert_eq!(lake_rows(&site, "security_event_hook_results").await, 2);
    assert_eq!(site.value(&format!("SELECT min(status) || max(status) FROM {HOOKS}")).await, "55005500");
    site.cluster.stop().await;
}
