//! The receipts are in the database and in the lake; each gives back what the other lost, and neither can be changed unseen.

use super::{EVENTS, archived, assert_chain, audit, detached, is_there, outcomes, reconcile};
use std::time::Duration;

#[tokio::test]
async fn r2_a_database_that_was_restored_gets_its_receipts_back_and_drops_nothing_again() {
    let (site, run) = archived().await;
    let [first, last] = [8, 9].map(|day| detached(&site, day));
    let (first, last) = (first.await, last.await);
    // What a restore brings back: the table, and no receipt of it. One as a file copy has it, one as a dump has it.
    site.sql(&format!("CREATE TABLE public.kept AS TABLE {first}")).await;
    reconcile(&site, &["--table", &last]).await.0.succeeded();
    let (finished, report) = reconcile(&site, &["--table", &first]).await;
    finished.succeeded();
    assert_eq!(outcomes(&report, "dropped"), [first.as_str()], "{report}");
    let owner = site.value("SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'archive'").await;
    site.sql(&format!(
        "DELETE FROM archive.receipt WHERE partition_name = '{first}';
         CREATE TABLE {first} (LIKE {EVENTS}); INSERT INTO {first} TABLE public.kept; DROP TABLE public.kept;
         ALTER TABLE {first} OWNER TO {owner}; GRANT SELECT ON {first} TO lakebed"
    ))
    .await;
    let (finished, report) = reconcile(&site, &["--table", &first]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    assert_eq!(report["receipts_restored"], 1, "{report}");
    assert_eq!(outcomes(&report, "differs"), [first.as_str()], "{report}");
    assert!(report.to_string().contains("was dropped before, by receipt 2, and is here again"), "{report}");
    assert!(is_there(&site, &first).await);
    let finding = format!("SELECT kind FROM archive.finding WHERE partition_name = '{first}' AND resolved_at IS NULL");
    assert_eq!(site.value(&finding).await, "came_back");
    assert_chain(&site).await;

    // A lake that lost its receipts gets them back, too.
    std::fs::remove_dir_all(site.lake().join("_lakebed/receipts")).unwrap();
    reconcile(&site, &["--table", "public.security_event_hook_results"]).await.0.succeeded();
    let (finished, report) = audit(&site, &[]).await;
    finished.succeeded();
    assert_eq!(report["chain"]["server"], "the same", "{report}");

    // Nobody changes a receipt unseen, be it with the database's own rights.
    site.sql(&format!(
        "UPDATE archive.receipt SET content = replace(content, '20', '19') WHERE partition_name = '{last}'"
    ))
    .await;
    let (finished, report) = audit(&site, &[]).await;
    assert_eq!(finished.code, Some(3), "{report}");
    assert!(report.to_string().contains("in PostgreSQL: receipt 1 was changed"), "{report}");
    run.signal("TERM").await;
    run.finished(Duration::from_secs(60)).await;
    site.cluster.stop().await;
}
