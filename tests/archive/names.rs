//! R1: late rows for a day that is detached, or dropped already.

use super::{EVENTS, archived, assert_chain, audit, audited, detached, insert, is_there, landed, outcomes, reconcile};
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
    let table = detached(&site, 7).await;
    insert(&site, 7, 3).await;
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
    let table = detached(&site, 8).await;
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [table.as_str()], "{report}");
    insert(&site, 8, 1).await;
    landed(&site).await;
    let (finished, report) = audit(&site, &["--from", "2000-01-01"]).await;
    finished.succeeded();
    let found = audited(&site, &report, 8).await;
    assert_eq!((&found["expected"]["rows"], &found["lake"]["rows"]), (&20.into(), &21.into()), "{found}");
    assert_eq!(found["notes"][0], "it holds further rows, and PostgreSQL has them", "{found}");

    out_of_the_default_partition(&site).await;
    site.sql("CALL partman.run_maintenance_proc()").await;
    let (finished, report) = reconcile(&site, &["--table", &table]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [table.as_str()], "{report}");
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(audited(&site, &report, 8).await["expected"]["rows"], 21, "{report}");
    // A row that the lake has and nobody else is a finding, also years later.
    insert(&site, 8, 1).await;
    landed(&site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    let (finished, report) = audit(&site, &[]).await;
    assert_eq!(finished.code, Some(1), "without the stream it cannot be told: {report}");
    assert_eq!(audited(&site, &report, 8).await["outcome"], "unknown", "{report}");
    site.cluster.stop().await;
}

#[tokio::test]
async fn r1_what_is_done_to_rows_that_came_back_leaves_the_archive_as_it_is() {
    let (site, run) = archived().await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    let text = site.pipeline_text().render().replacen(
        "partition_by = \"day\"",
        "partition_by = \"day\"\ntruncate = \"apply\"",
        1,
    );
    std::fs::write(site.pipeline_file(), text).unwrap();
    let run = site.start_run();
    let table = detached(&site, 8).await;
    site.sql(&format!("CREATE TABLE public.kept AS TABLE {table}")).await;
    reconcile(&site, &["--table", &table]).await.0.succeeded();
    // Somebody has another look at a day of long ago, and takes it out again.
    site.sql(&format!("INSERT INTO {EVENTS} TABLE public.kept")).await;
    let rows = async |expected: u64| {
        let (finished, report) = audit(&site, &["--table", EVENTS]).await;
        let found = audited(&site, &report, 8).await;
        assert_eq!((finished.code, &found["lake"]["rows"]), (Some(0), &expected.into()), "{found}");
    };
    landed(&site).await;
    rows(40).await;
    site.sql(&format!("UPDATE {EVENTS} SET description = 'seen' WHERE id IN (SELECT id FROM public.kept)")).await;
    landed(&site).await;
    rows(40).await;
    site.sql(&format!("DELETE FROM {EVENTS} WHERE id IN (SELECT id FROM public.kept)")).await;
    landed(&site).await;
    rows(20).await;
    // TRUNCATE empties what PostgreSQL has, and that is not what it has dropped.
    site.sql(&format!("TRUNCATE {EVENTS}")).await;
    landed(&site).await;
    rows(20).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    assert_eq!(lake_rows(&site, "security_event").await, 20);
    site.cluster.stop().await;
}
