//! R2, R3: a reconciler that dies at any step leaves either the table or its receipt, and never neither or both for good.

use super::{EVENTS, archived, assert_chain, audit, detached, is_there, reconcile};
use crate::support::RunningRun;
use std::time::Duration;

#[tokio::test]
async fn r2_whoever_dies_at_any_step_leaves_the_table_or_its_receipt() {
    let (site, run) = archived().await;
    let events = format!("SELECT count(*) FROM archive.receipt WHERE table_name = '{EVENTS}'");
    for (point, day, is_dropped) in [
        ("reconcile.before_receipt", 7, false),
        ("reconcile.after_receipt", 7, false),
        ("reconcile.after_drop", 7, true),
        // The first time is at the beginning: the one before died before it had written its receipt to the lake.
        ("receipts.before_lake=2", 8, true),
        ("receipts.after_lake=2", 9, true),
    ] {
        let table = detached(&site, day).await;
        let before = site.value(&events).await;
        let arguments = ["reconcile", "--table", &table];
        let dying = RunningRun::start_verb_dying_at(&site.pipeline_file(), &arguments, point);
        dying.finished(Duration::from_secs(60)).await.killed();
        // The server notices that the session is gone, and takes back what was not committed.
        site.wait_for(&format!("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE relation = to_regclass('{table}'))"))
            .await;
        assert_eq!(is_there(&site, &table).await, !is_dropped, "{point}");
        let receipt = format!("SELECT count(*) FROM archive.receipt WHERE partition_name = '{table}'");
        assert_eq!(site.value(&receipt).await, u8::from(is_dropped).to_string(), "{point}");
        assert_eq!(site.value(&events).await == before, !is_dropped, "{point}");
    }
    let (finished, _) = reconcile(&site, &[]).await;
    finished.succeeded();
    let twice = "SELECT count(*) FROM (SELECT FROM archive.receipt GROUP BY partition_name HAVING count(*) > 1) t";
    assert_eq!(site.value(twice).await, "0");
    assert_chain(&site).await;
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["chain"]["server"], "the same", "{report}");
    run.signal("TERM").await;
    run.ended().await.succeeded();
    site.cluster.stop().await;
}
