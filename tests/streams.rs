//! B1, B2: transactions in progress arrive whole, in bounded memory, and without what they rolled back.

use crate::support::{
    DATABASE, RunningRun, Site, assert_changed_lake_equals_source, assert_lake_equals_source, lake_rows, load,
};
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, ServerKind};

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";
const ACTIVE: &str = "SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'";

/// A server that streams whatever it can (64kB is the least that it takes), or as it comes.
async fn site(server: ServerKind, work_mem: Option<&str>) -> Site {
    let setting = work_mem.map(|value| ("logical_decoding_work_mem".to_owned(), value.to_owned()));
    let options = ClusterOptions { server, extra_settings: Vec::from_iter(setting), ..ClusterOptions::default() };
    let site = Site::with_options(options).await;
    customer::create(&site.cluster, &CustomerOptions { premake_days: 4, ..CustomerOptions::with_history(3) })
        .await
        .unwrap();
    load::drop_indexes(&site.cluster, DATABASE).await;
    site.write_pipeline(&site.pipeline_text());
    site.init().await;
    site
}

async fn wait_until_acknowledged(site: &Site) {
    let lsn = site.value("SELECT pg_current_wal_lsn()").await;
    let sql = "FROM pg_replication_slots WHERE slot_name = 'lakebed'";
    site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}'::pg_lsn {sql}")).await;
}

/// Whether the server streamed a transaction before its end.
async fn streamed(site: &Site) -> bool {
    site.value("SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = 'lakebed'").await == "t"
}

async fn end(run: RunningRun) {
    run.signal("TERM").await;
    run.ended().await.succeeded();
}

/// A million rows in one transaction: never more than the limit in memory, and no reader ever sees a part of it.
#[tokio::test]
async fn b2_a_million_rows_in_one_transaction_land_whole_within_256_mib() {
    let site = site(ServerKind::Debian15, None).await;
    let mut text = site.pipeline_text();
    text.memory_limit = Some("256MiB");
    site.write_pipeline(&text);
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    let writer = site.cluster.connect(DATABASE).await.unwrap();
    let statements = format!("BEGIN;\n{}COMMIT;\n", load::events(1_000_000, 3));
    let written = writer.execute(&statements);
    tokio::pin!(written);
    let (mut looks, mut seen, mut committed) = (0, 0, false);
    while seen == 0 {
        tokio::select! {
            outcome = &mut written, if !committed => {
                outcome.unwrap();
                committed = true;
            }
            rows = lake_rows(&site, "security_event") => {
                looks += 1;
                seen = rows;
            }
        }
    }
    assert_eq!(seen, 1_000_000, "the first that is seen of it is all of it, after {looks} looks");
    assert!(streamed(&site).await, "it came while it was in progress");
    let peak_mib = run.peak_mib();
    assert!(peak_mib <= 256, "{peak_mib} MiB");
    end(run).await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 1_000_000);
    site.cluster.stop().await;
}

/// What our own query verb answers, a line a row.
async fn answer(site: &Site, sql: &str) -> Vec<String> {
    let printed = site.lakebed(&["query", "--format", "csv", "-c", sql]).await.succeeded().stdout;
    printed.lines().skip(1).map(str::to_owned).collect()
}

/// Half a million changes in one transaction, of rows that the lake has: put aside beyond the budget, applied in rounds, one commit.
#[tokio::test]
async fn b2_half_a_million_changes_in_one_transaction_land_whole_within_256_mib() {
    let site = site(ServerKind::Debian15, None).await;
    let mut text = site.pipeline_text();
    text.memory_limit = Some("256MiB");
    site.write_pipeline(&text);
    site.sql(&load::events(500_000, 3)).await;
    site.run_until_caught_up().await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    let writer = site.cluster.connect(DATABASE).await.unwrap();
    let half = "(detail->>'n')::int % 2";
    let statements = format!(
        "BEGIN;
         UPDATE {EVENTS} SET description = 'changed' WHERE {half} = 0;
         DELETE FROM {EVENTS} WHERE {half} = 1;
         COMMIT;"
    );
    let written = writer.execute(&statements);
    tokio::pin!(written);
    let look = "SELECT count(*), count(*) FILTER (WHERE description = 'changed') FROM security_event";
    let mut seen = vec!["500000,0".to_owned()];
    let mut committed = false;
    // Every look may meet the moment in which the journal is made, which no query may fail at.
    while seen == ["500000,0"] {
        tokio::select! {
            outcome = &mut written, if !committed => {
                outcome.unwrap();
                committed = true;
            }
            rows = answer(&site, look) => seen = rows,
        }
    }
    assert_eq!(seen, ["250000,250000"], "the first that is seen of it is all of it");
    assert!(streamed(&site).await, "it came while it was in progress");
    wait_until_acknowledged(&site).await;
    let peak_mib = run.peak_mib();
    assert!(peak_mib <= 256, "{peak_mib} MiB");
    end(run).await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 250_000);
    let old_images = "SELECT lakebed_operation, description, count(*), count(DISTINCT id) FROM security_event__changes
                      GROUP BY 1, 2 ORDER BY 1, 2";
    let once = ["delete,made by a test,250000,250000", "update,made by a test,250000,250000"];
    assert_eq!(answer(&site, old_images).await, once, "each as it was, once");
    site.cluster.stop().await;
}

/// A subtransaction for each of 100,000 rows, every third one rolled back after it was sent.
#[tokio::test]
async fn b2_a_hundred_thousand_savepoints_keep_exactly_what_they_kept() {
    let site = site(ServerKind::Debian15, Some("1MB")).await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    site.sql(&load::many_savepoints(100_000)).await;
    wait_until_acknowledged(&site).await;
    assert!(streamed(&site).await);
    end(run).await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 66_667);
    site.cluster.stop().await;
}

/// A process that comes back in the middle of a savepoint gets its rows from the server's disk, and no word of its ROLLBACK TO.
#[tokio::test]
async fn b2_a_savepoint_that_began_before_a_crash_and_was_rolled_back_after_it_leaves_no_row() {
    for server in [ServerKind::Debian15, ServerKind::postgres_18().unwrap()] {
        for rows_before in [18_948, 19_001, 25_000] {
            let site = site(server.clone(), Some("1MB")).await;
            let run = site.start_run();
            site.wait_for(ACTIVE).await;
            let writer = site.cluster.connect(DATABASE).await.unwrap();
            let dead = |rows| load::events(rows, 2).replace("made by a test", "rolled back");
            writer
                .execute(&format!("BEGIN; {} SAVEPOINT part; {}", load::events(20_000, 2), dead(rows_before)))
                .await
                .unwrap();
            site.insert_events(1, 1).await;
            wait_until_acknowledged(&site).await;
            run.signal("KILL").await;
            run.ended().await.killed();
            let rest = format!("{} ROLLBACK TO part; {} COMMIT;", dead(1_052), load::events(10_000, 2));
            writer.execute(&rest).await.unwrap();
            site.run_until_caught_up().await;
            assert!(streamed(&site).await);
            assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 30_001);
            site.cluster.stop().await;
        }
    }
}

/// An ALTER TABLE of a transaction in progress is nobody else's before it commits; rolled back, it leaves a column that nobody fills.
#[tokio::test]
async fn b2_an_alter_table_that_is_rolled_back_inside_a_streamed_transaction_leaves_no_value() {
    for server in [ServerKind::Debian15, ServerKind::postgres_18().unwrap()] {
        let site = site(server, Some("64kB")).await;
        // PostgreSQL 18 fails inside its own decoding when the savepoint is rolled back at the moment at which its rows are streamed.
        let run = site.start_run().allowing(&["could not map filenumber"]);
        site.wait_for(ACTIVE).await;
        let alter = "ALTER TABLE public.security_event ADD COLUMN extra text DEFAULT 'x';\n";
        // The lake can never have this one.
        let another_type = "ALTER TABLE public.security_event ALTER COLUMN description TYPE integer USING 1;\n";
        let rows = || load::events(2_000, 2);
        let numbers = rows().replace("'made by a test'", "2");
        site.sql(&format!(
            "BEGIN;\n{}SAVEPOINT a;\n{alter}{}ROLLBACK TO a;\n{}SAVEPOINT b;\n{another_type}{numbers}ROLLBACK TO b;\n{}COMMIT;\n",
            rows(),
            rows(),
            rows(),
            load::hook_results(500, 2)
        ))
        .await;
        site.sql(&format!("BEGIN;\n{alter}{}ROLLBACK;\n", rows())).await;
        site.sql(&rows()).await;
        wait_until_acknowledged(&site).await;
        assert!(streamed(&site).await);
        end(run).await;
        let events = assert_changed_lake_equals_source(&site, EVENTS, "created_at", "day", &["extra"]).await;
        assert_eq!(events, 6_000);
        assert_eq!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await, 500);
        site.cluster.stop().await;
    }
}

/// The other protocol: whole transactions only, of any size.
#[tokio::test]
async fn b2_without_streaming_every_kind_of_transaction_arrives_whole() {
    let site = site(ServerKind::Debian15, Some("64kB")).await;
    let text = site.pipeline_text().render().replace("\n[lake]", "streaming = false\n\n[lake]");
    std::fs::write(site.pipeline_file(), text).unwrap();
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    site.sql(&load::around_a_streamed_one()).await;
    site.sql(&load::Kind::ManySavepoints.statements(10)).await;
    wait_until_acknowledged(&site).await;
    assert!(!streamed(&site).await, "it was told not to");
    end(run).await;
    assert!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await > 3_000);
    assert!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await > 2_000);
    site.cluster.stop().await;
}
