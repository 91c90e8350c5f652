//! S1: tables that were detached before lakebed came are copied like any leaf, and then balance and drop like any other.

use super::{Amount, EVENTS, HOOKS, Old, TABLES, init_snapshot, load};
use crate::archive::{assert_chain, audit, is_there, outcomes, reconcile};
use crate::support::{Site, lake_rows};
use chrono::NaiveDate;
use lakebed::demo::ServerKind;

const AMOUNT: Amount = Amount { days: 12, events: 20, hook_results: 3, detached_after: 7 };
/// Days back of leaves that are detached, each with something of its own: no key, late rows, and no rows.
const KEYLESS: u32 = 9;
const LATE: u32 = 10;
const EMPTIED: u32 = 11;

fn detached(table: &str, day: NaiveDate) -> String {
    format!("archive.{table}_p{}", day.format("%Y_%m_%d"))
}

/// As partman 5 leaves it with `retention_keep_index = false`.
async fn without_a_key(site: &Site, table: &str) {
    let key = format!("SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'p'");
    let key = site.value(&key).await;
    site.sql(&format!("ALTER TABLE {table} DROP CONSTRAINT {key}")).await;
}

#[tokio::test]
async fn s1_tables_that_were_detached_before_lakebed_came_are_copied_balance_and_drop() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let site = &old.site;
    let [keyless, late, emptied] = [KEYLESS, LATE, EMPTIED].map(|ago| detached(TABLES[0], old.day(ago)));
    for table in [&keyless, &late, &emptied] {
        assert!(is_there(site, table).await, "{table}");
    }
    without_a_key(site, &keyless).await;
    site.sql(&format!("DELETE FROM {emptied}")).await;
    // Rows that came when the leaf was gone already: one day is in the archive and in the default partition.
    site.sql(&load::events(&[old.day(LATE)], 3)).await;
    // What only looks like a partition of ours.
    site.sql(&format!("CREATE TABLE archive.security_event_notes (LIKE {EVENTS})")).await;

    init_snapshot(site, &site.pipeline_file()).await.succeeded();
    let [events, hooks] = old.assert_equal(&site.lake()).await;
    // Days with leaves, days of the default partition, three late rows, and a day without any.
    assert_eq!((events, hooks), (20 * (12 + 3) + 3, 3 * (13 + 3)));

    let run = site.start_run();
    for root in [EVENTS, HOOKS] {
        let (finished, report) = reconcile(site, &["--table", root]).await;
        finished.succeeded();
        let dropped = outcomes(&report, "dropped");
        assert_eq!(dropped.len(), report["partitions"].as_array().unwrap().len(), "{report}");
        assert!(dropped.len() >= 5, "{report}");
    }
    for (table, rows) in [(&keyless, "20"), (&late, "20"), (&emptied, "0")] {
        assert!(!is_there(site, table).await, "{table}");
        let receipt = format!("SELECT rows FROM archive.receipt WHERE partition_name = '{table}'");
        assert_eq!(site.value(&receipt).await, rows, "{table}");
    }
    assert_chain(site).await;
    let (finished, report) = audit(site, &[]).await;
    finished.succeeded();
    assert_eq!(report["chain"]["server"], "the same", "{report}");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    // PostgreSQL has them no more, and the lake has.
    assert_eq!(lake_rows(site, TABLES[0]).await, events);
    assert_eq!(lake_rows(site, TABLES[1]).await, hooks);
    assert!(is_there(site, "archive.security_event_notes").await);
}
