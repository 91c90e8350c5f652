//! UPDATE, DELETE and TRUNCATE arrive in the lake as they happened: D3 for what an UPDATE does not send, L1 and L2 for the commit that
//! rewrites files.

use crate::support::lane::journal_of;
use crate::support::{DATABASE, Site, Value, assert_lake_equals_source, delta_rows, lake_rows, load};
use lakebed::demo::ServerKind;

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";

/// Hook results whose payloads are TOASTed: 6 KB that do not compress, one row for each of `days` days ago.
fn insert_hooks(rows_a_day: u32, days: u32) -> String {
    format!(
        "INSERT INTO {HOOKS} (id, tenant_id, security_event_id, security_event_type, security_event_hook,
             security_event_payload, security_event_hook_execution_payload, status, created_at, updated_at)
         SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'login_success', 'webhook',
             jsonb_build_object('payload', (SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 170)), 'row', n),
             NULL, 'FAILURE', date_trunc('day', now()) - n % {days} * interval '1 day' + n * interval '1 second', now()
         FROM generate_series(0, {rows_a_day} * {days} - 1) AS n"
    )
}

async fn assert_equal(site: &Site) {
    site.run_until_caught_up().await;
    assert_lake_equals_source(site, EVENTS, "created_at", "day").await;
    assert_lake_equals_source(site, HOOKS, "created_at", "day").await;
}

#[tokio::test]
async fn d3_updates_and_deletes_arrive_whole_and_streamed() {
    for work_mem in ["64MB", "64kB"] {
        let site = Site::with_history(ServerKind::Debian15, 5).await;
        site.init().await;
        site.sql(&format!("ALTER SYSTEM SET logical_decoding_work_mem = '{work_mem}'")).await;
        site.sql("SELECT pg_reload_conf()").await;
        site.insert_events(300, 4).await;
        site.sql(&insert_hooks(20, 4)).await;
        assert_equal(&site).await;
        // The retry: one column, and the payload is not sent.
        site.sql(&format!("UPDATE {HOOKS} SET status = 'SUCCESS' WHERE (security_event_payload->>'row')::int % 3 = 0"))
            .await;
        site.sql(&format!("DELETE FROM {EVENTS} WHERE id::text < '4'")).await;
        site.sql(&format!(
            "UPDATE {EVENTS} SET id = gen_random_uuid(), description = 'another key' WHERE id::text < '8'"
        ))
        .await;
        site.sql(&format!("UPDATE {EVENTS} SET created_at = created_at - interval '1 day' WHERE id::text < 'a'")).await;
        assert_equal(&site).await;
        // Everything of one row in one transaction, and much of it in one flush.
        let again = insert_hooks(5, 2);
        site.sql(&format!(
            "BEGIN; {again}; UPDATE {HOOKS} SET status = 'FIRST'; UPDATE {HOOKS} SET status = 'SECOND' WHERE id::text < 'c';
             SAVEPOINT a; DELETE FROM {HOOKS}; UPDATE {EVENTS} SET description = 'rolled back'; ROLLBACK TO a;
             DELETE FROM {HOOKS} WHERE id::text < '2'; COMMIT"
        ))
        .await;
        site.sql(&format!("UPDATE {EVENTS} SET user_agent = NULL")).await;
        assert_equal(&site).await;
        site.sql(&format!("DELETE FROM {EVENTS}")).await;
        assert_equal(&site).await;
        assert_eq!(lake_rows(&site, "security_event").await, 0);
        site.cluster.stop().await;
    }
}

/// A table's old images, but those of rows that need not have been in the lake: what was done to which row.
async fn old_images(site: &Site, table: &str) -> Vec<[String; 2]> {
    let journal = site.lake().join(journal_of(table));
    let columns = [("id", Value::Text), ("lakebed_operation", Value::Text), ("description", Value::Text)];
    let entries = delta_rows(&journal, &columns).await;
    let landed = entries.into_iter().filter(|entry| entry[2].as_deref() != Some(JUST_BEFORE));
    let mut entries: Vec<[String; 2]> =
        landed.map(|mut entry| [0, 1].map(|column| entry[column].take().unwrap())).collect();
    entries.sort();
    entries
}

/// What is said of rows that are committed just before a TRUNCATE: whether they are in the lake before it is a matter of a moment.
const JUST_BEFORE: &str = "just before";

async fn ids(site: &Site, table: &str) -> Vec<String> {
    let rows = site.cluster.query(DATABASE, &format!("SELECT id::text FROM {table} ORDER BY 1")).await.unwrap();
    rows.into_iter().flatten().flatten().collect()
}

fn truncated(ids: &[String]) -> impl Iterator<Item = [String; 2]> {
    ids.iter().map(|id| [id.clone(), "truncate".to_owned()])
}

/// A site whose tables apply a TRUNCATE, with rows of three days in the lake.
async fn site_that_truncates(server: ServerKind, work_mem: &str) -> Site {
    let site = Site::with_history(server, 5).await;
    let text = site.pipeline_text().render();
    let column = "partition_column = \"created_at\"\n";
    std::fs::write(site.pipeline_file(), text.replace(column, &format!("{column}truncate = \"apply\"\n"))).unwrap();
    site.init().await;
    site.sql(&format!("ALTER SYSTEM SET logical_decoding_work_mem = '{work_mem}'")).await;
    site.sql("SELECT pg_reload_conf()").await;
    site.insert_events(300, 3).await;
    site.sql(&insert_hooks(10, 3)).await;
    assert_equal(&site).await;
    site
}

/// TRUNCATE of the root where the table applies it: everything before it goes, in its own transaction, too, and nothing behind it. Each row
/// of the lake leaves its old image, once.
async fn a_truncate_is_applied(server: ServerKind, work_mem: &str) {
    let site = site_that_truncates(server, work_mem).await;
    let (events, hooks) = (ids(&site, EVENTS).await, ids(&site, HOOKS).await);
    site.sql(&load::events(50, 3).replace("made by a test", JUST_BEFORE)).await;
    let few = format!("WHERE id IN (SELECT id FROM {EVENTS} WHERE description = 'made by a test' ORDER BY id LIMIT 5)");
    let brief = load::events(400, 3).replace("made by a test", "brief");
    site.sql(&format!(
        "BEGIN; {brief} UPDATE {EVENTS} SET user_agent = 'changed' {few}; DELETE FROM {EVENTS} {few};
         TRUNCATE {EVENTS}, {HOOKS}; {} {}; SAVEPOINT a; TRUNCATE {EVENTS}; ROLLBACK TO a; COMMIT",
        load::events(350, 3),
        insert_hooks(5, 2)
    ))
    .await;
    site.insert_events(9, 2).await;
    assert_equal(&site).await;
    let streamed = "SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = 'lakebed'";
    assert_eq!(site.value(streamed).await == "t", work_mem == "64kB");
    assert_eq!(lake_rows(&site, "security_event").await, 359);
    let (updated, rest) = events.split_at(5);
    let updated = updated.iter().map(|id| [id.clone(), "update".to_owned()]);
    let mut expected: Vec<[String; 2]> = updated.chain(truncated(rest)).collect();
    assert_eq!(old_images(&site, "security_event").await, expected, "what never was in the lake has none");
    assert_eq!(old_images(&site, "security_event_hook_results").await, truncated(&hooks).collect::<Vec<_>>());
    // And alone.
    expected.extend(truncated(&ids(&site, EVENTS).await));
    expected.sort();
    site.sql(&format!("TRUNCATE {EVENTS}")).await;
    assert_equal(&site).await;
    assert_eq!(lake_rows(&site, "security_event").await, 0);
    assert_eq!(old_images(&site, "security_event").await, expected);
    site.cluster.stop().await;
}

#[tokio::test]
async fn d3_a_truncate_that_is_applied_takes_what_was_before_it_and_nothing_behind() {
    for server in [ServerKind::Debian15, ServerKind::postgres_18().unwrap()] {
        for work_mem in ["64MB", "64kB"] {
            a_truncate_is_applied(server.clone(), work_mem).await;
        }
    }
}
