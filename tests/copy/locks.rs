//! S2: a copy is in nobody's way. A leaf can be detached, rewritten, altered and emptied while it is read; whoever wants that waits for
//! a range and not for the copy, and the lake is equal to the source afterwards.

use super::{Amount, COPIED_WITHIN, Old, SMALL_BATCHES, TABLES, load, with_admin};
use crate::support::{DATABASE, Lane, RunningRun};
use lakebed::demo::ServerKind;

/// So little that a range is over before anybody could stand still in the middle of it,
const AMOUNT: Amount = Amount { days: 1, events: 40, hook_results: 2, detached_after: 0 };
/// except for yesterday's leaf, of about five megabytes.
const MANY: u32 = 12_000;
/// What an impatient administrator sets.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '5s'";
/// A leaf takes longer than that.
const SLOWLY: &str = "max_bytes_per_second = \"256KiB\"\nconnections = 1";

async fn with_a_large_leaf() -> Old {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    old.site.sql(&load::events(&[old.day(1)], MANY)).await;
    old
}

/// What is done to the leaf of yesterday's events.
fn done_to(leaf: &str) -> [(&'static str, String); 5] {
    let name = format!("public.{leaf}");
    [
        // The first three leave the rows as they are.
        ("rewritten", format!("VACUUM FULL {name}")),
        ("altered", format!("ALTER TABLE {name} SET (fillfactor = 50)")),
        ("given_a_column", "ALTER TABLE public.security_event ADD COLUMN noted text".to_owned()),
        // This is not in the stream: what was read before it has to be found by whoever balances.
        ("emptied", format!("TRUNCATE {name}")),
        (
            "detached",
            format!(
                "BEGIN; ALTER TABLE public.security_event DETACH PARTITION {name}; ALTER TABLE {name} SET SCHEMA archive; COMMIT"
            ),
        ),
    ]
}

/// The copy stands still in the middle of a range, somebody wants the leaf, and the copy goes on.
async fn changed_within_a_range(old: &Old, lane: &Lane, sql: &str) {
    let admin = old.site.cluster.admin_url(DATABASE);
    let arguments = with_admin(&["init", "--snapshot"], &admin);
    // What was rewritten or emptied under it is read again from the beginning.
    let copy = RunningRun::start_verb_stopping_at(&lane.file, &arguments, "copy.mid_range=1");
    let copy = copy.allowing(&["days could not be copied"]);
    copy.wait_until_stopped().await;
    let session = old.site.cluster.connect(DATABASE).await.unwrap();
    session.execute(LOCK_TIMEOUT).await.unwrap();
    let process = session.query("SELECT pg_backend_pid()").await.unwrap().remove(0).remove(0).unwrap();
    let at_the_lock = format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {process} AND NOT granted)
             OR EXISTS (SELECT FROM pg_stat_activity WHERE pid = {process} AND state = 'idle' AND query NOT LIKE '%pg_backend_pid%')"
    );
    let wanted = async { session.execute(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}")) };
    let goes_on = async {
        old.site.wait_for(&at_the_lock).await;
        copy.signal("CONT").await;
    };
    tokio::join!(wanted, goes_on);
    copy.finished(COPIED_WITHIN).await.succeeded();
}

#[tokio::test]
async fn s2_a_leaf_may_be_rewritten_altered_emptied_and_detached_while_it_is_copied() {
    let old = with_a_large_leaf().await;
    let yesterday = [old.day(1)];
    let leaf = format!("{}_p{}", TABLES[0], yesterday[0].format("%Y_%m_%d"));
    for (name, sql) in done_to(&leaf) {
        let lane = old.lane(name, SMALL_BATCHES);
        changed_within_a_range(&old, &lane, &sql).await;
        // Beside what was copied there is something to follow.
        old.site.sql(&load::events(&[old.day(0), old.day(1)], 5)).await;
        lane.run_until_caught_up().await.succeeded();
        if name == "emptied" {
            lane.lakebed(&["repair", "--execute"]).await.succeeded();
        }
        old.assert_equal(&lane.folder).await;
        lane.remove(&old.site).await;
        if name == "emptied" {
            old.site.sql(&load::events(&yesterday, MANY)).await;
        }
    }
}

/// partman does not wait for the end of a slow copy.
#[tokio::test]
async fn s2_a_leaf_is_detached_in_the_middle_of_a_slow_copy_within_a_few_seconds() {
    let old = with_a_large_leaf().await;
    let (lane, admin) = (old.lane("slow", SLOWLY), old.site.cluster.admin_url(DATABASE));
    let copy = RunningRun::start_verb(&lane.file, &with_admin(&["init", "--snapshot"], &admin));
    // In the middle of the large one.
    old.site.wait_for("SELECT EXISTS (SELECT FROM pg_stat_progress_copy WHERE bytes_processed > 100000)").await;
    for table in TABLES {
        for day in [old.day(0), old.day(1)] {
            let leaf = format!("public.{table}_p{}", day.format("%Y_%m_%d"));
            let detach = format!(
                "{LOCK_TIMEOUT}; BEGIN; ALTER TABLE public.{table} DETACH PARTITION {leaf};
                 ALTER TABLE {leaf} SET SCHEMA archive; COMMIT"
            );
            old.site.sql(&detach).await;
        }
    }
    // From here on it need not be slow.
    copy.signal("KILL").await;
    copy.finished(COPIED_WITHIN).await.killed();
    super::let_go(&old.site, &lane.slot).await;
    let text = std::fs::read_to_string(&lane.file).unwrap().replace(SLOWLY, SMALL_BATCHES);
    std::fs::write(&lane.file, text).unwrap();
    super::finish_copy(&old.site, &lane.file).await;
    lane.run_until_caught_up().await.succeeded();
    old.assert_equal(&lane.folder).await;
}

/// Behind a long transaction no snapshot is to be had. The server does not notice that whoever waited for one was killed.
#[tokio::test]
async fn s2_what_a_killed_wait_for_a_snapshot_leaves_behind_is_ended_by_the_next_start() {
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let (lane, admin) = (old.lane("behind", SMALL_BATCHES), old.site.cluster.admin_url(DATABASE));
    let arguments = with_admin(&["init", "--snapshot"], &admin);
    let dying = RunningRun::start_verb_dying_at(&lane.file, &arguments, "copy.before_snapshot");
    dying.finished(COPIED_WITHIN).await.killed();
    super::let_go(&old.site, &lane.slot).await;
    let long = old.site.cluster.connect(DATABASE).await.unwrap();
    long.execute("BEGIN").await.unwrap();
    long.query("SELECT pg_current_xact_id()").await.unwrap();
    let verb = with_admin(&["snapshot"], &admin);
    let waits = "SELECT count(*) = 1 FROM pg_replication_slots WHERE temporary AND cardinality(pg_blocking_pids(active_pid)) > 0";
    let waiting = RunningRun::start_verb(&lane.file, &verb);
    old.site.wait_for(waits).await;
    waiting.signal("KILL").await;
    waiting.finished(COPIED_WITHIN).await.killed();
    super::let_go(&old.site, &lane.slot).await;
    let first = old.site.value("SELECT slot_name FROM pg_replication_slots WHERE temporary").await;
    let second = RunningRun::start_verb(&lane.file, &verb);
    old.site
        .wait_for(&format!("SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{first}')"))
        .await;
    old.site.wait_for(waits).await;
    long.execute("COMMIT").await.unwrap();
    second.finished(COPIED_WITHIN).await.succeeded();
    old.assert_equal(&lane.folder).await;
}
