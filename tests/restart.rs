//! W1, L1, B1: what is in the lake survives any end of the process, and nothing is taken twice.

use crate::support::{Site, assert_lake_equals_source, lake_rows};
use lakebed::demo::generator::{Generator, GeneratorOptions};
use lakebed::demo::load;

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";
const ACTIVE: &str = "SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'";
const INACTIVE: &str = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'lakebed'";
/// Everything that this session has written so far is acknowledged.
const ACKNOWLEDGED: &str =
    "SELECT confirmed_flush_lsn >= '{lsn}'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'lakebed'";

async fn wait_until_acknowledged(site: &Site) {
    let lsn = site.value("SELECT pg_current_wal_lsn()").await;
    site.wait_for(&ACKNOWLEDGED.replace("{lsn}", &lsn)).await;
}

/// kill -9 at arbitrary moments of a load, several times, and a start after each.
#[tokio::test]
async fn l1_after_kill_9_nothing_is_missing_or_double() {
    let site = Site::with_history(lakebed::demo::ServerKind::Debian15, 5).await;
    site.init().await;
    let mut connection = site.cluster.connect(crate::support::DATABASE).await.unwrap();
    let mut generator = Generator::new(GeneratorOptions::with_seed(9));
    let mut written = load::Written::default();
    for _ in 0..6 {
        let run = site.start_run();
        site.wait_for(ACTIVE).await;
        let now = chrono::Utc::now().naive_utc();
        // Small transactions of both tables, so that the kill falls between, before and inside flushes.
        let history = generator.history(5, 6_000, now);
        let part = load::load_history(&mut connection, history, 37, |_| {}).await.unwrap();
        written.events += part.events;
        written.hook_results += part.hook_results;
        run.signal("KILL").await;
        assert_eq!(run.ended().await.code, None, "killed");
    }
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, written.events);
    assert_eq!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await, written.hook_results);
    site.cluster.stop().await;
}

#[tokio::test]
async fn w1_sigterm_and_sigint_flush_acknowledge_and_end_with_code_0() {
    let site = Site::small().await;
    // So long that only the signal can be what flushes.
    let mut text = site.pipeline_text();
    text.max_age = "1h";
    site.write_pipeline(&text);
    site.init().await;
    for (index, signal) in ["TERM", "INT"].into_iter().enumerate() {
        let run = site.start_run();
        site.wait_for(ACTIVE).await;
        site.insert_events(10, 1).await;
        let lsn = site.value("SELECT pg_current_wal_lsn()").await;
        site.wait_for(&format!("SELECT sent_lsn >= '{lsn}'::pg_lsn FROM pg_stat_replication")).await;
        run.signal(signal).await;
        run.ended().await.succeeded();
        assert_eq!(lake_rows(&site, "security_event").await, 10 * (index as u64 + 1), "{signal}");
        assert_eq!(site.value(&ACKNOWLEDGED.replace("{lsn}", &lsn)).await, "t", "{signal}");
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn w1_an_idle_slot_is_acknowledged_while_other_tables_write() {
    let site = Site::small().await;
    site.init().await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    site.sql("CREATE TABLE public.noise (n int); INSERT INTO public.noise SELECT generate_series(1, 10000)").await;
    wait_until_acknowledged(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

#[tokio::test]
async fn rows_reach_the_lake_while_the_stream_runs_on() {
    let site = Site::small().await;
    site.init().await;
    let run = site.start_run();
    for round in 1..=3_u64 {
        site.insert_events(50, 2).await;
        wait_until_acknowledged(&site).await;
        assert_eq!(lake_rows(&site, "security_event").await, round * 50, "acknowledged means durable in the lake");
    }
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

#[tokio::test]
async fn w2_a_second_run_is_refused_with_who_holds_the_slot() {
    let site = Site::small().await;
    site.init().await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    let holder = site.value("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'lakebed'").await;
    site.lakebed(&["run"]).await.refused(1, &["lakebed", "in use", &format!("process {holder}")]);
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.wait_for(INACTIVE).await;
    site.cluster.stop().await;
}

/// One more event, in the transaction that cannot be taken.
const INSERT: &str = "INSERT INTO public.security_event SELECT gen_random_uuid(), 't', 'd', gen_random_uuid(), 'n', 'c', 'n', NULL, NULL, NULL, NULL, NULL, '{}', timezone('UTC', now())";

/// What the lake cannot hold stops the pipeline. What was committed before it lands, nothing of its transaction does.
#[tokio::test]
async fn d3_a_truncate_or_a_value_that_no_column_holds_stops_with_a_definite_error() {
    for (told, sql) in [
        ("infinite timestamp", "UPDATE public.security_event SET created_at = 'infinity'"),
        ("TRUNCATE", "TRUNCATE public.security_event"),
    ] {
        let site = Site::small().await;
        // So long that nothing but the refusal can be what flushes.
        let mut text = site.pipeline_text();
        text.max_age = "1h";
        site.write_pipeline(&text);
        site.init().await;
        site.insert_events(5, 1).await;
        site.sql(&format!("BEGIN; {INSERT}; {sql}; COMMIT")).await;
        site.insert_events(5, 1).await;
        for _ in 0..2 {
            let run = site.lakebed(&["run"]).await;
            let run = run.allowing(&["keeping what was committed before this"]);
            run.refused(1, &[told, "public.security_event", "nothing was acknowledged"]);
            assert_eq!(lake_rows(&site, "security_event").await, 5, "what precedes it ({told}), and no part of it");
        }
        site.cluster.stop().await;
    }
}

/// A stage that fails ends the process with its reason: here the lake is taken away under a running pipeline.
#[tokio::test]
async fn a_failing_stage_ends_the_process_with_its_reason() {
    let site = Site::small().await;
    site.init().await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    std::fs::remove_dir_all(site.lake()).unwrap();
    std::fs::write(site.lake(), "a file where the folder was").unwrap();
    site.insert_events(5, 1).await;
    let run = run.ended().await.allowing(&["files that no commit names are left behind"]);
    run.refused(1, &["security_event"]);
    site.cluster.stop().await;
}

/// W1: a store makes folders as they are needed, so a table that was moved away could be written into thin air.
#[tokio::test]
async fn w1_nothing_is_acknowledged_into_a_table_that_was_moved_away() {
    let site = Site::small().await;
    site.init().await;
    site.insert_events(1, 1).await;
    let run = site.start_run();
    wait_until_acknowledged(&site).await;
    let (table, elsewhere) = (site.lake().join("security_event"), site.folder().join("elsewhere"));
    std::fs::rename(&table, &elsewhere).unwrap();
    site.insert_events(99, 1).await;
    run.ended().await.refused(1, &["security_event", "disappeared", "nothing was acknowledged"]);
    std::fs::remove_dir_all(&table).unwrap();
    std::fs::rename(&elsewhere, &table).unwrap();
    site.run_until_caught_up().await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 100);
    site.cluster.stop().await;
}

/// B1, and freshness: rows that were committed before a long transaction do not wait for its end, and no part of it is seen.
#[tokio::test]
async fn b1_a_large_transaction_is_seen_whole_and_holds_nobody_up() {
    let site = Site::small().await;
    site.init().await;
    // About 90 MB of WAL: far more than a batch and than what the builders may hold.
    let large = "INSERT INTO public.security_event
        SELECT gen_random_uuid(), 'large', repeat('x', 200), gen_random_uuid(), 'n', 'c', 'n', NULL, NULL, NULL, NULL, NULL,
               jsonb_build_object('n', n, 'text', repeat(md5(n::text), 4)), timezone('UTC', now()) - (n % 2) * interval '1 day'
        FROM generate_series(1, 150000) n";
    site.insert_events(7, 1).await;
    site.sql(large).await;
    site.insert_events(3, 1).await;
    let run = site.start_run();
    wait_until_acknowledged(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    let sql = "SELECT count(*) AS n FROM security_event WHERE type = 'large'";
    let printed = site.lakebed(&["query", "--format", "csv", "-c", sql]).await.succeeded().stdout;
    assert_eq!(printed.lines().nth(1), Some("150000"));
    assert_eq!(lake_rows(&site, "security_event").await, 150_010);
    // Every commit of the lake's log stands at a transaction's end: the large one's rows came in a single version.
    let versions = versions_with_more_rows_than(&site, 1_000);
    assert_eq!(versions, 1, "the large transaction is one commit");
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 150_010);
    site.cluster.stop().await;
}

/// Delta log entries that add more than so many rows.
fn versions_with_more_rows_than(site: &Site, rows: u64) -> usize {
    let log = site.lake().join("security_event/_delta_log");
    let entries = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let commits = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let added = commits.map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let actions = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let statistics = actions.filter_map(|action| action["add"]["stats"].as_str().map(str::to_owned));
        statistics
            .map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()["numRecords"].as_u64().unwrap())
            .sum::<u64>()
    });
    added.filter(|added| *added > rows).count()
}
