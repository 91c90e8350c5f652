//! A pipeline that is kept up: the server may go and come, a stop ends every state, and a slot's end is seen before it comes.

use crate::support::{DATABASE, RunningRun, Site, assert_lake_equals_source, complaints};
use lakebed::demo::{ClusterOptions, ServerKind};
use std::time::Duration;

const EVENTS: &str = "public.security_event";
const ACTIVE: &str = "SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'";
const CONFIRMED: &str = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'lakebed'";

async fn wait_until_acknowledged(site: &Site) {
    let lsn = site.value("SELECT pg_current_wal_lsn()").await;
    site.wait_for(&format!("SELECT ({CONFIRMED}) >= '{lsn}'::pg_lsn")).await;
}

/// The site's pipeline file with more lines in `[source]`.
fn write_source_lines(site: &Site, max_age: &'static str, lines: &str) {
    let mut text = site.pipeline_text();
    text.max_age = max_age;
    let text = text.render().replace("\n[lake]", &format!("{lines}\n[lake]"));
    std::fs::write(site.pipeline_file(), text).unwrap();
}

/// Waits until the run has logged this; the line.
async fn logged(run: &mut RunningRun, words: &str) -> String {
    let line = async {
        loop {
            if let Some(line) = run.log().lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            assert!(!run.has_ended(), "it ended:\n{}", run.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), line).await.unwrap_or_else(|_| panic!("never logged: {words}"))
}

/// What a lost server is answered with, and nothing else.
const AGAIN: &[&str] = &["not following for now; starting again", "headroom cannot be watched for now"];

/// Retry: a server that crashes under a running pipeline, or is restarted in order, is followed again by the same process.
#[tokio::test]
async fn a_server_that_comes_back_is_followed_again() {
    for server in [ServerKind::Debian15, ServerKind::postgres_18().unwrap()] {
        let mut site = site(server).await;
        site.init().await;
        let run = site.start_run().allowing(AGAIN);
        site.wait_for(ACTIVE).await;
        site.insert_events(5, 1).await;
        wait_until_acknowledged(&site).await;
        site.cluster.kill_immediately().await;
        site.cluster.restart().await.unwrap();
        site.insert_events(5, 1).await;
        wait_until_acknowledged(&site).await;
        site.cluster.restart().await.unwrap();
        site.insert_events(5, 1).await;
        wait_until_acknowledged(&site).await;
        run.signal("TERM").await;
        let stderr = run.ended().await.succeeded().stderr;
        assert!(complaints(&stderr).filter(|line| line.contains("starting again")).count() >= 2, "{stderr}");
        assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 15);
        site.cluster.stop().await;
    }
}

/// A few leaves where the server has partman; else a table of our own under the customer's name.
async fn site(server: ServerKind) -> Site {
    if server.has_extensions() {
        return Site::with_history(server, 2).await;
    }
    let site = Site::bare(server).await;
    site.cluster.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await.unwrap();
    site.sql(
        "CREATE TABLE public.security_event (id uuid, type text, description text, tenant_id uuid, tenant_name text,
             client_id text, client_name text, user_id uuid, user_name text, external_user_id text, ip_address inet,
             user_agent text, detail jsonb, created_at timestamp NOT NULL, PRIMARY KEY (id, created_at))",
    )
    .await;
    let mut text = site.pipeline_text();
    text.tables.truncate(1);
    site.write_pipeline(&text);
    site
}

/// Retry: a sidecar boots before its database.
#[tokio::test]
async fn a_first_start_waits_for_its_server_and_says_what_is_wrong() {
    let mut site = Site::small().await;
    site.init().await;
    site.insert_events(5, 1).await;
    site.cluster.kill_immediately().await;
    let mut run = site.start_run().allowing(AGAIN);
    logged(&mut run, "starting again").await;
    site.cluster.restart().await.unwrap();
    wait_until_acknowledged(&site).await;
    run.signal("TERM").await;
    let stderr = run.ended().await.succeeded().stderr;
    let first = complaints(&stderr).next().unwrap();
    assert!(first.contains("cannot reach PostgreSQL at 127.0.0.1") && first.contains("start the server"), "{stderr}");
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 5);
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_stop_ends_a_wait_for_the_server_with_code_0() {
    let mut site = Site::small().await;
    site.init().await;
    site.cluster.kill_immediately().await;
    for signal in ["TERM", "INT"] {
        let mut run = site.start_run().allowing(AGAIN);
        logged(&mut run, "starting again").await;
        run.signal(signal).await;
        run.ended().await.succeeded();
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn whoever_waits_until_caught_up_gets_the_servers_error_in_the_end() {
    let mut site = Site::small().await;
    site.init().await;
    site.cluster.kill_immediately().await;
    let ended = site.lakebed(&["run", "--until-caught-up"]).await.allowing(AGAIN);
    let refused = ended.refused(1, &["cannot reach PostgreSQL", "start the server"]);
    assert!(complaints(&refused.stderr).count() >= 5, "{}", refused.stderr);
    site.cluster.stop().await;
}

/// The governor: what pins the WAL here is a row that waits for its hour.
#[tokio::test]
async fn the_slots_end_is_seen_before_it_comes_and_said_with_numbers() {
    let extra_settings = [("max_slot_wal_keep_size", "96MB"), ("wal_keep_size", "0")];
    let extra_settings = extra_settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let site = Site::with_options(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await;
    let customer = lakebed::demo::customer::CustomerOptions::with_history(2);
    lakebed::demo::customer::create(&site.cluster, &customer).await.unwrap();
    write_source_lines(&site, "1h", "");
    site.init().await;
    let mut run = site.start_run().allowing(&["comes near its loss"]);
    site.wait_for(ACTIVE).await;
    site.insert_events(1, 1).await;
    for (left, level) in [(35, "low"), (10, "critical")] {
        let noise = "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000)) FROM generate_series(1, 2)";
        let left_now =
            "SELECT safe_wal_size * 100 / (96 * 1048576) FROM pg_replication_slots WHERE slot_name = 'lakebed'";
        while site.value(left_now).await.parse::<i64>().unwrap() >= left {
            site.sql(noise).await;
        }
        let line = logged(&mut run, &format!("\"headroom\":\"{level}\"")).await;
        for word in
            ["WARN", "\"safe_wal_bytes\":", "\"retained_bytes\":", "\"limit_bytes\":100663296", "\"wal_status\":"]
        {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}

/// A heartbeat moves an idle slot: nothing else writes here.
#[tokio::test]
async fn w1_a_heartbeat_moves_an_idle_slot() {
    let site = Site::small().await;
    write_source_lines(&site, "300ms", "heartbeat_interval = \"1s\"\n");
    site.init().await;
    let run = site.start_run();
    site.wait_for(ACTIVE).await;
    for _ in 0..2 {
        let before = site.value(CONFIRMED).await;
        site.wait_for(&format!("SELECT ({CONFIRMED}) > '{before}'::pg_lsn")).await;
    }
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
