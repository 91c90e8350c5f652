//! UPDATE, DELETE and TRUNCATE arrive in the lake as they happened: D3 for what an UPDATE does not send, L1 and L2 for the commit that
//! rewrites files.

use crate::support::lane::journal_of;
use crate::support::{Site, Value, assert_lake_equals_source, delta_rows, lake_rows, load};
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

/// TRUNCATE of the root where the table applies it: everything before it goes, in its own transaction, too, and nothing behind it.
#[tokio::test]
async fn d3_a_truncate_that_is_applied_takes_what_was_before_it_and_nothing_behind() {
    let servers = [(ServerKind::Debian15, "64MB"), (ServerKind::postgres_18().unwrap(), "64kB")];
    for (server, work_mem) in servers {
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
        let few = format!("WHERE id IN (SELECT id FROM {EVENTS} WHERE description <> 'brief' ORDER BY id LIMIT 5)");
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
        assert_eq!(lake_rows(&site, "security_event").await, 359);
        let old_images = async |table: &str| {
            let journal = site.lake().join(journal_of(table));
            let mut old = delta_rows(&journal, &[("lakebed_operation", Value::Text)]).await;
            old.sort();
            let of = |name: &str| old.iter().filter(|row| row[0].as_deref() == Some(name)).count();
            (of("update"), of("delete"), of("truncate"))
        };
        assert_eq!(old_images("security_event").await, (5, 0, 295), "{work_mem}: what never was in the lake has none");
        assert_eq!(old_images("security_event_hook_results").await, (0, 0, 30), "{work_mem}");
        site.cluster.stop().await;
    }
}
