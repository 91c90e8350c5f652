//! A definite error has a way out: the table stands still, or the transaction is stepped over; the others go on.

use crate::support::{RunningRun, Site, assert_lake_equals_source, lake_rows, load, until};
use chrono::Datelike;
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, ServerKind};

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";
const ACTIVE: &str = "SELECT active::text = 'true' FROM pg_replication_slots WHERE slot_name = 'lakebed'";
const INACTIVE: &str = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'lakebed'";
/// What the log says about a table that stands still.
const STANDS_STILL: &str = "the table stands still from here on";

/// Streams whatever it can; `on_error` is security_event's.
async fn site(on_error: &str) -> Site {
    site_with(on_error, &[("logical_decoding_work_mem", "64kB")]).await
}

async fn site_with(on_error: &str, settings: &[(&str, &str)]) -> Site {
    let extra_settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let site = Site::with_options(ClusterOptions {
        server: ServerKind::Debian15,
        extra_settings,
        ..ClusterOptions::default()
    })
    .await;
    customer::create(&site.cluster, &CustomerOptions { premake_days: 4, ..CustomerOptions::with_history(3) })
        .await
        .unwrap();
    let text = site.pipeline_text().render();
    let name = "name = \"public.security_event\"\n";
    assert!(text.contains(name));
    std::fs::write(site.pipeline_file(), text.replace(name, &format!("{name}on_error = \"{on_error}\"\n"))).unwrap();
    site.init().await;
    site
}

async fn wait_until_acknowledged(site: &Site) {
    let lsn = site.value("SELECT pg_current_wal_lsn()").await;
    let sql = "FROM pg_replication_slots WHERE slot_name = 'lakebed'";
    site.wait_for(&format!("SELECT confirmed_flush_lsn >= '{lsn}'::pg_lsn {sql}")).await;
}

async fn start(site: &Site, allowed: &[&str]) -> RunningRun {
    let run = site.start_run().allowing(allowed);
    site.wait_for(ACTIVE).await;
    run
}

async fn end(run: RunningRun) {
    run.signal("TERM").await;
    run.ended().await.succeeded();
}

/// What precedes the transaction lands, nothing of the table follows, and the other table and the slot go on, also after a
/// restart.
async fn parks(statements: &str) {
    let site = site("park").await;
    site.insert_events(7, 1).await;
    site.sql(&load::hook_results(3, 1)).await;
    let run = start(&site, &[STANDS_STILL]).await;
    site.sql(statements).await;
    site.insert_events(5, 1).await;
    site.sql(&load::hook_results(20, 1)).await;
    wait_until_acknowledged(&site).await;
    end(run).await;
    site.wait_for(INACTIVE).await;
    let run = start(&site, &[]).await;
    site.insert_events(5, 1).await;
    site.sql(&load::hook_results(20, 1)).await;
    wait_until_acknowledged(&site).await;
    end(run).await;
    assert_eq!(lake_rows(&site, "security_event").await, 7, "what precedes it, and nothing else");
    assert!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await >= 43);
    let status = site.lakebed(&["status", "--json"]).await.stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["tables"][0]["parked_since_lsn"].is_string(), "{status}");
    assert!(status["tables"][1]["parked_since_lsn"].is_null(), "{status}");
    let findings: Vec<_> = std::fs::read_dir(site.lake().join("_lakebed/findings/lakebed")).unwrap().collect();
    assert_eq!(findings.len(), 1, "{findings:?}");
    site.cluster.stop().await;
}

#[tokio::test]
async fn a_table_that_may_stand_still_parks_at_a_whole_transaction_that_it_cannot_take() {
    let truncate = format!("BEGIN;\n{}TRUNCATE public.security_event;\nCOMMIT;\n", load::hook_results(1, 1));
    parks(&truncate).await;
}

#[tokio::test]
async fn a_table_that_may_stand_still_parks_at_a_streamed_transaction_that_it_cannot_take() {
    let streamed = load::events(3_000, 2) + &load::hook_results(2_000, 2);
    parks(&format!("BEGIN;\n{streamed}TRUNCATE public.security_event;\n{streamed}COMMIT;\n")).await;
}

/// What cannot be taken is rolled back: nobody stands still.
#[tokio::test]
async fn what_is_rolled_back_parks_nobody_and_stops_nothing() {
    let site = site("stop").await;
    let run = start(&site, &[]).await;
    let truncate = "TRUNCATE public.security_event;\n";
    let rows = load::events(3_000, 2);
    site.sql(&format!("BEGIN;\n{rows}SAVEPOINT a;\n{truncate}{rows}ROLLBACK TO a;\n{rows}COMMIT;\n")).await;
    site.sql(&format!("BEGIN;\n{rows}{truncate}ROLLBACK;\n")).await;
    wait_until_acknowledged(&site).await;
    end(run).await;
    assert_eq!(assert_lake_equals_source(&site, EVENTS, "created_at", "day").await, 6_000);
    site.cluster.stop().await;
}

/// The transaction that the error names is stepped over, everything before and after it lands, and a finding says so.
#[tokio::test]
async fn a_transaction_is_stepped_over_when_the_operator_says_so() {
    for streamed in [false, true] {
        let site = site("stop").await;
        site.insert_events(7, 1).await;
        let more = if streamed { load::events(3_000, 2) } else { String::new() };
        site.sql(&format!("BEGIN;\n{more}TRUNCATE public.security_event;\nCOMMIT;\n")).await;
        site.insert_events(5, 1).await;
        let refused = site.lakebed(&["run", "--until-caught-up"]).await.refused(1, &["TRUNCATE", "lakebed skip"]);
        let (_, after) = refused.stderr.rsplit_once("commits at WAL position ").unwrap();
        let lsn = after.split([' ', ':', ';', ',']).next().unwrap().to_owned();
        site.wait_for(INACTIVE).await;
        site.lakebed(&["skip", "--lsn", &lsn, "--reason", "it was a mistake"]).await.succeeded();
        let run = site.lakebed(&["run", "--until-caught-up"]).await.allowing(&["stepped over a transaction"]);
        let run = run.succeeded();
        assert!(run.stderr.contains("stepped over a transaction"), "{}", run.stderr);
        assert_eq!(lake_rows(&site, "security_event").await, 12, "streamed: {streamed}");
        let status = site.lakebed(&["status"]).await.stdout;
        assert!(status.contains(&lsn), "{status}");
        site.cluster.stop().await;
    }
}

/// What the log says about the slot.
const NEAR_LOSS: &str = "the slot comes near its loss";
/// Percent of `max_slot_wal_keep_size` that can still be written before the slot may be lost.
const HEADROOM: &str =
    "SELECT safe_wal_size * 100 / (96 * 1048576) FROM pg_replication_slots WHERE slot_name = 'lakebed'";

/// A folder that leads to itself: every write below it fails, for root too, by an error that says nothing for good.
fn break_folders(table: &std::path::Path) {
    let year = chrono::Utc::now().year();
    for folder in [year - 1, year, year + 1].map(|year| format!("year={year}")) {
        std::os::unix::fs::symlink(&folder, table.join(&folder)).unwrap();
    }
}

/// The store takes nothing of one table but its log, for a reason that may pass. That is waited out for as long as the slot has headroom;
/// before the slot is lost for its sake the table is parked, and the other one goes on.
#[tokio::test]
async fn a_table_whose_store_keeps_failing_is_parked_before_the_slot_is_lost_for_its_sake() {
    let site = site_with("park", &[("max_slot_wal_keep_size", "96MB"), ("wal_keep_size", "0")]).await;
    break_folders(&site.lake().join("security_event"));
    let waits = "the store fails for now; everything is kept and tried again";
    let mut run = start(&site, &[STANDS_STILL, waits, NEAR_LOSS]).await;
    site.insert_events(5, 1).await;
    site.sql(&load::hook_results(3, 1)).await;
    until("the outage is felt", || run.log().contains(waits)).await;
    let noise = "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000)) FROM generate_series(1, 2)";
    while site.value(HEADROOM).await.parse::<i64>().unwrap() >= 10 {
        assert!(!run.log().contains(STANDS_STILL), "there was headroom left:\n{}", run.log());
        site.sql(noise).await;
    }
    until("the table is parked", || run.log().contains(STANDS_STILL)).await;
    assert!(!run.has_ended(), "{}", run.log());
    site.sql(&load::hook_results(20, 1)).await;
    wait_until_acknowledged(&site).await;
    end(run).await;
    assert_eq!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await, 23);
    let status = site.lakebed(&["status", "--json"]).await.stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["tables"][0]["parked_since_lsn"].is_string(), "{status}");
    assert!(status["tables"][1]["parked_since_lsn"].is_null(), "{status}");
    let (kind, reason) = (&status["findings"][0]["kind"], status["findings"][0]["reason"].as_str().unwrap());
    assert_eq!(kind, "parked");
    for words in
        ["the replication slot was about to be lost for this table's sake", "the store failed", "security_event"]
    {
        assert!(reason.contains(words), "{words}: {reason}");
    }
    // The store works again; the table stands still all the same, until it begins anew.
    for folder in std::fs::read_dir(site.lake().join("security_event")).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.is_symlink() {
            std::fs::remove_file(folder).unwrap();
        }
    }
    site.wait_for(INACTIVE).await;
    let run = start(&site, &[NEAR_LOSS]).await;
    site.insert_events(5, 1).await;
    site.sql(&load::hook_results(20, 1)).await;
    wait_until_acknowledged(&site).await;
    // What pinned the WAL has gone; a checkpoint lets the slot move on.
    site.sql("CHECKPOINT").await;
    site.wait_for(&format!("SELECT ({HEADROOM}) > 50 AND wal_status = 'reserved' FROM pg_replication_slots")).await;
    end(run).await;
    assert_eq!(lake_rows(&site, "security_event").await, 0);
    assert_eq!(assert_lake_equals_source(&site, HOOKS, "created_at", "day").await, 43);
    site.cluster.stop().await;
}
