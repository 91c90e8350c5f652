//! R1: late rows for a day that is detached, or dropped already.

use super::{EVENTS, archived, assert_chain, audit, audited, detached, insert, is_there, outcomes, reconcile};
use crate::support::{DATABASE, Site, lake_rows};

/// What partman does with rows in the default partition, by the role that runs it: a partition of their day.
async fn out_of_the_default_partition(site: &Site) {
    let partman = site.cluster.connect(DATABASE).await.unwrap();
    partman.execute("SET ROLE idp").await.unwrap();
    partman.execute(&format!("CALL partman.partition_data_proc('{EVENTS}')")).await.unwrap();
}

#[tokio::test]
async fn r1_a_name_that_comes_back_is_given_up_and_both_tables_balance_against_one_day() {
    let (site, run) = archived().await;
    let table = detached(&site, 92).await;
    insert(&site, 92, 3).await;
    // In the default partition: what the parent still holds of the day is part of its ledger.
    let (finished, report) = reconcile(&site, &["--dry-run", "--table", &table]).await;
    finished.succeeded();
    assert_eq!(report["partitions"][0]["ledger"]["live"]["rows"], 3, "{report}");
    assert_eq!(report["partitions"][0]["ledger"]["lake"]["rows"], 23, "{report}");

    out_of_the_default_partition(&site).await;
    let stopped = site.cluster.execute(DATABASE, "CALL partman.run_maintenance_proc()").await;
    assert!(stopped.unwrap_err().to_string().contains("already exists in schema \"archive\""));
    let (finished, report) = reconcile(&site, &["--dry-run", "--table", &table]).await;
    finished.succeeded();
    assert_eq!(report["names_taken"][0]["renamed"], serde_json::Value::Null, "{report}");
    assert!(is_there(&site, &table).await, "a dry run renames nothing");

    let renamed = format!("{table}__2");
    let (finished, report) = reconcile(&site, &["--table", &renamed]).await;
    finished.succeeded();
    assert_eq!(report["names_taken"][0]["renamed"], renamed.as_str(), "{report}");
    assert_eq!(outcomes(&report, "dropped"), [renamed.as_str()], "{report}");
    assert_eq!(report["partitions"][0]["ledger"]["live"]["rows"], 3, "the leaf that is attached again: {report}");
    let finding = "SELECT resolved_at IS NOT NULL FROM archive.finding WHERE kind = 'name_taken'";
    assert_eq!(site.value(finding).await, "t", "it was one, and is settled");

    site.sql("CALL partman.run_maintenance_proc()").await;
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [table.as_str()], "{report}");
    assert_eq!(report["partitions"][0]["ledger"]["receipts"]["rows"], 20, "{report}");
    assert_eq!(site.value("SELECT string_agg(rows::text, ' ' ORDER BY sequence) FROM archive.receipt").await, "20 3");
    assert_chain(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    assert_eq!(lake_rows(&site, "security_event").await, 68);
    site.cluster.stop().await;
}

#[tokio::test]
async fn r1_a_late_row_after_the_drop_is_explained_and_gets_a_receipt_of_its_own() {
    let (site, run) = archived().await;
    let table = detached(&site, 93).await;
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [table.as_str()], "{report}");
    insert(&site, 93, 1).await;
    // A proof waits for the row to arrive, and so does this.
    let waits = "SELECT confirmed_flush_lsn >= pg_current_wal_insert_lsn() - 1024 FROM pg_replication_slots";
    site.wait_for(waits).await;
    let (finished, report) = audit(&site, &["--from", "2000-01-01"]).await;
    finished.succeeded();
    let found = audited(&site, &report, 93).await;
    assert_eq!((&found["expected"]["rows"], &found["lake"]["rows"]), (&20.into(), &21.into()), "{found}");
    assert_eq!(found["notes"][0], "it holds further rows, and PostgreSQL has them", "{found}");

    out_of_the_default_partition(&site).await;
    site.sql("CALL partman.run_maintenance_proc()").await;
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [table.as_str()], "{report}");
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(audited(&site, &report, 93).await["expected"]["rows"], 21, "{report}");
    // A row that the lake has and nobody else is a finding, also years later.
    insert(&site, 93, 1).await;
    site.wait_for(waits).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    let (finished, report) = audit(&site, &[]).await;
    assert_eq!(finished.code, Some(1), "without the stream it cannot be told: {report}");
    assert_eq!(audited(&site, &report, 93).await["outcome"], "unknown", "{report}");
    site.cluster.stop().await;
}
