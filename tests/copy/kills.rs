//! S1: the copy is killed at each of its edges and at random moments, stopped in order, and started again until it is done, under a load
//! that goes on. What had landed is not copied again, and lake and source are equal in the end.

use super::load::Load;
use super::{
    Amount, Old, SMALL_BATCHES, TABLES, assert_copied_once, copies, finish_copy, let_go, not_copied, with_admin,
};
use crate::support::dice::{Dice, seed};
use crate::support::{DATABASE, Lane, RunningRun, files, lakebed, until};
use lakebed::demo::ServerKind;
use std::collections::BTreeSet;
use std::time::Duration;

const AMOUNT: Amount = Amount { days: 5, events: 1_000, hook_results: 30, detached_after: 4 };
/// A process that is to kill itself comes there within this time.
const DIES_WITHIN: Duration = Duration::from_secs(60);
/// A few seconds for each of the first batches.
const SLOWLY: &str = "batch_bytes = \"1MiB\"\nmax_bytes_per_second = \"1MiB\"";

const EDGES_OF_A_RANGE: [&str; 4] =
    ["copy.before_snapshot", "copy.after_snapshot", "copy.mid_range", "copy.after_range"];
const EDGES_OF_THE_LANDING: [&str; 4] =
    ["copy.before_finish", "copy.after_finish", "copy.before_landing", "copy.after_landing"];

/// What is left to copy never grows.
struct Left(Option<BTreeSet<String>>);

impl Left {
    /// How much is left now. A process that died before it had made the lake has left nothing to ask for.
    async fn look(&mut self, lane: &Lane) -> usize {
        if !TABLES.iter().all(|table| lane.table_folder(table).join("_delta_log").exists()) {
            assert!(self.0.is_none(), "{}: the lake is gone", lane.slot);
            return usize::MAX;
        }
        let now = not_copied(&lane.file).await;
        if let Some(before) = &self.0 {
            let again: Vec<_> = now.difference(before).collect();
            assert!(again.is_empty(), "{}: {again:?} had landed", lane.slot);
        }
        self.0.insert(now).len()
    }
}

/// `init --snapshot` dies at the point, and the process after it, too; the third ends the copy.
async fn killed_at(old: &Old, point: &str, dice: &mut Dice) -> Lane {
    let lane = old.lane(&point.replace('.', "_"), SMALL_BATCHES);
    let admin = old.site.cluster.admin_url(DATABASE);
    let mut left = Left(None);
    // The first batch or the second.
    let visit = format!("{point}={}", 1 + dice.below(2));
    for (verb, point) in [(&["init", "--snapshot"][..], visit.as_str()), (&["snapshot"], point)] {
        let dying = RunningRun::start_verb_dying_at(&lane.file, &with_admin(verb, &admin), point);
        dying.finished(DIES_WITHIN).await.killed();
        let_go(&old.site, &lane.slot).await;
        assert!(left.look(&lane).await > 0, "{point}: the copy was over");
    }
    finish_copy(&old.site, &lane.file).await;
    left.look(&lane).await;
    lane
}

/// The load is over: every lake is equal to the source, and holds nothing that nobody will read.
async fn all_equal(old: &Old, lanes: Vec<Lane>) {
    for lane in lanes {
        lane.run_until_caught_up().await.succeeded();
        old.assert_equal(&lane.folder).await;
        assert_copied_once(&lane.folder);
        for table in TABLES {
            assert_eq!(files::left_behind(&lane.table_folder(table)), Vec::<String>::new(), "{} {table}", lane.slot);
            assert_eq!(files::missing(&lane.table_folder(table)), Vec::<String>::new(), "{} {table}", lane.slot);
        }
    }
    // Slots of dead processes go with their sessions.
    old.site.wait_for("SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE temporary)").await;
}

async fn killed_at_each(points: &[&str]) {
    let seed = seed();
    let (old, mut dice) = (Old::new(ServerKind::Debian15, AMOUNT).await, Dice::new(seed));
    let load = Load::start(&old, seed);
    let mut lanes = Vec::new();
    for point in points {
        lanes.push(killed_at(&old, point, &mut dice).await);
    }
    load.end().await;
    all_equal(&old, lanes).await;
}

#[tokio::test]
async fn s1_killed_at_every_edge_of_a_range_nothing_is_missing_or_double_or_copied_again() {
    killed_at_each(&EDGES_OF_A_RANGE).await;
}

#[tokio::test]
async fn s1_killed_at_every_edge_of_the_landing_nothing_is_missing_or_double_or_copied_again() {
    killed_at_each(&EDGES_OF_THE_LANDING).await;
}

/// Killed whenever the load has gone on for a while, until the copy is faster than the next kill.
async fn killed_at_random_moments(server: ServerKind) {
    let seed = seed();
    let (old, mut dice) = (Old::new(server, AMOUNT).await, Dice::new(seed));
    let (lane, admin) = (old.lane("random", SMALL_BATCHES), old.site.cluster.admin_url(DATABASE));
    let load = Load::start(&old, seed);
    let mut left = Left(None);
    let mut kills = 0;
    for attempt in 0..6 {
        let verb: &[&str] = if attempt == 0 { &["init", "--snapshot"] } else { &["snapshot"] };
        let mut copy = RunningRun::start_verb(&lane.file, &with_admin(verb, &admin));
        load.goes_on_for(1 + dice.below(60)).await;
        if copy.has_ended() {
            copy.finished(DIES_WITHIN).await.succeeded();
            break;
        }
        copy.signal("KILL").await;
        let ended = copy.finished(DIES_WITHIN).await;
        kills += u32::from(ended.code.is_none());
        let_go(&old.site, &lane.slot).await;
        left.look(&lane).await;
    }
    eprintln!("killed {kills} times");
    finish_copy(&old.site, &lane.file).await;
    left.look(&lane).await;
    load.end().await;
    all_equal(&old, vec![lane]).await;
}

#[tokio::test]
async fn s1_killed_at_random_moments_nothing_is_missing_or_double_on_postgresql_15() {
    killed_at_random_moments(ServerKind::Debian15).await;
}

#[tokio::test]
async fn s1_killed_at_random_moments_nothing_is_missing_or_double_on_postgresql_18() {
    killed_at_random_moments(ServerKind::postgres_18().unwrap()).await;
}

/// A signal ends the copy in order, with the code of what is not done, and the next start goes on with what is left.
#[tokio::test]
async fn s1_sigint_and_sigterm_end_the_copy_in_order_and_the_next_start_goes_on() {
    let seed = seed();
    let old = Old::new(ServerKind::Debian15, AMOUNT).await;
    let (lane, admin) = (old.lane("signalled", SLOWLY), old.site.cluster.admin_url(DATABASE));
    let load = Load::start(&old, seed);
    let mut left = Left(None);
    for (verb, signal) in [(&["init", "--snapshot"][..], "INT"), (&["snapshot"], "TERM")] {
        let landed = || TABLES.iter().map(|table| copies(&lane.table_folder(table)).len()).sum::<usize>();
        let before = landed();
        let copy = RunningRun::start_verb(&lane.file, &with_admin(verb, &admin));
        until("something more landed", || landed() > before).await;
        copy.signal(signal).await;
        let ended = copy.finished(DIES_WITHIN).await;
        assert_eq!(ended.code, Some(1), "{signal}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("lakebed snapshot or lakebed run goes on"), "{signal}: {}", ended.stdout);
        let_go(&old.site, &lane.slot).await;
        assert!(left.look(&lane).await > 0, "{signal}: the copy was over");
    }
    // What is wrong in the file is put right between two starts: from here on the rate is not limited.
    let text = std::fs::read_to_string(&lane.file).unwrap().replace(SLOWLY, SMALL_BATCHES);
    std::fs::write(&lane.file, text).unwrap();
    finish_copy(&old.site, &lane.file).await;
    // Nothing is left, and a further start says so.
    let again = lakebed(&lane.file, &["snapshot"]).await.succeeded();
    assert!(!(again.stdout + &again.stderr).trim().is_empty(), "it says that nothing is left");
    load.end().await;
    all_equal(&old, vec![lane]).await;
}
