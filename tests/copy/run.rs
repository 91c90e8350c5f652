//! S1: whoever follows copies: `run` refuses to begin with a gap, copies what is left to copy, and lets others watch it.

use super::load::Load;
use super::{Amount, EVENTS, Old, SMALL_BATCHES, assert_copied_once, init_snapshot, let_go, not_copied, with_admin};
use crate::support::dice::seed;
use crate::support::{DATABASE, RunningRun, Site, lakebed};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;
use std::time::Duration;

const AMOUNT: Amount = Amount { days: 4, events: 600, hook_results: 30, detached_after: 0 };
const REMEDY: &str = "lakebed init --snapshot";

#[tokio::test]
async fn s1_run_says_that_a_snapshot_is_needed_instead_of_starting_with_a_gap() {
    let site = Site::small().await;
    site.init().await;
    site.insert_events(3, 1).await;
    // A slot, and a lake that was taken away.
    std::fs::remove_dir_all(site.lake()).unwrap();
    site.lakebed(&["run"]).await.refused(1, &["security_event", REMEDY]);
    // Neither slot nor lake.
    site.sql("SELECT pg_drop_replication_slot('lakebed')").await;
    site.lakebed(&["run"]).await.refused(1, &["slot", "does not exist", REMEDY]);
    // And `init` begins with no gap that nobody accepted.
    site.init_with(&[]).await.refused(1, &[EVENTS, "already holds rows", "--snapshot", "--from-now"]);
    assert_eq!(site.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    init_snapshot(&site, &site.pipeline_file()).await.succeeded();
    let lake = site.lake();
    assert_eq!(super::assert_equal(&site, &lake).await, [3, 0]);
    // What is there already is left as it is, and there is nothing to copy.
    init_snapshot(&site, &site.pipeline_file()).await.succeeded();
    assert_copied_once_or_never(&site).await;
}

/// One of the tables is empty, so that it has nothing to copy.
async fn assert_copied_once_or_never(site: &Site) {
    assert_eq!(not_copied(&site.pipeline_file()).await, BTreeSet::new());
    let copies = super::copies(&site.lake().join("security_event"));
    assert!(copies.values().all(|times| *times == 1), "{copies:?}");
    assert_eq!(super::assert_equal(site, &site.lake()).await, [3, 0]);
}

/// `init --snapshot` dies before it has copied anything; `run` goes on from there, `snapshot` watches it, and after that `run` follows.
#[tokio::test]
async fn s1_run_copies_what_is_left_and_snapshot_watches_it() {
    let seed = seed();
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let (site, admin) = (&old.site, old.site.cluster.admin_url(DATABASE));
    let lane = old.lane("watched", SMALL_BATCHES);
    let load = Load::start(&old, seed);
    let arguments = with_admin(&["init", "--snapshot"], &admin);
    let dying = RunningRun::start_verb_dying_at(&lane.file, &arguments, "copy.before_snapshot");
    dying.finished(Duration::from_secs(60)).await.killed();
    let marked = not_copied(&lane.file).await;
    // Every day of both tables, and those of the default partitions.
    assert_eq!(marked.len(), 2 * (5 + 3), "{marked:?}");
    let_go(site, &lane.slot).await;

    let run = lane.start();
    lane.wait_until_active(site).await;
    lakebed(&lane.file, &["snapshot"]).await.succeeded();
    assert_eq!(not_copied(&lane.file).await, BTreeSet::new());
    // The stream goes on where it was.
    load.goes_on_for(20).await;
    load.end().await;
    lane.wait_until_acknowledged(site).await;
    run.signal("TERM").await;
    run.ended().await.succeeded();
    old.assert_equal(&lane.folder).await;
    assert_copied_once(&lane.folder);
}
