//! S1: the whole story, on both server versions: a load all along, partman's jobs in the middle of the copy, and lake and source equal
//! row by row when it is over.

use super::load::Load;
use super::{Amount, COPIED_WITHIN, Old, TABLES, assert_copied_once, not_copied, with_admin};
use crate::support::dice::seed;
use crate::support::{DATABASE, RunningRun, files};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;

const AMOUNT: Amount = Amount { days: 15, events: 500, hook_results: 30, detached_after: 12 };

async fn taken_over_row_by_row(server: ServerKind) {
    let seed = seed();
    let old = Old::new(server, AMOUNT).await;
    let (site, pipeline, admin) = (&old.site, old.site.pipeline_file(), old.site.cluster.admin_url(DATABASE));
    let waiting =
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'archive' AND tablename ~ '^security_event.*_p[0-9]'";
    let before: u32 = site.value(waiting).await.parse().unwrap();
    assert!(before > 0, "some tables are detached before lakebed comes");
    let load = Load::start(&old, seed);
    let arguments = with_admin(&["init", "--snapshot"], &admin);
    // It has copied a batch, and knows what it will see of the second; not a row of that is read yet.
    let copy = RunningRun::start_verb_stopping_at(&pipeline, &arguments, "copy.after_snapshot=2");
    copy.wait_until_stopped().await;
    load.goes_on_for(20).await;
    old.empty_default().await;
    old.detach_older_than(9).await;
    load.goes_on_for(20).await;
    copy.signal("CONT").await;
    copy.finished(COPIED_WITHIN).await.succeeded();
    assert_eq!(not_copied(&pipeline).await, BTreeSet::new());
    let after: u32 = site.value(waiting).await.parse().unwrap();
    assert!(after > before, "partman has detached more meanwhile");
    load.goes_on_for(20).await;
    load.end().await;
    site.run_until_caught_up().await;
    let rows = old.assert_equal(&site.lake()).await;
    assert!(rows.iter().all(|rows| *rows > 300), "{rows:?}");
    assert_copied_once(&site.lake());
    for table in TABLES {
        assert_eq!(files::left_behind(&site.lake().join(table)), Vec::<String>::new(), "{table}");
    }
}

#[tokio::test]
async fn s1_a_running_database_is_taken_over_row_by_row_on_postgresql_15() {
    taken_over_row_by_row(ServerKind::Debian15).await;
}

#[tokio::test]
async fn s1_a_running_database_is_taken_over_row_by_row_on_postgresql_18() {
    taken_over_row_by_row(ServerKind::postgres_18().unwrap()).await;
}
