//! L1, L2, W1, B2: the process is killed at every edge of its way, once and twice in a row, under a load that goes on; then the lake
//! equals the source, row by row, and no file is left that nobody will ever read.

use crate::support::s3::S3;
use crate::support::versions::Versions;
use crate::support::{DATABASE, Lane, PipelineText, RunningRun, Site, load};
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, Connection};
use std::time::{Duration, Instant};

/// A point that is not reached within this time under load is not on the way any more.
const REACHED_WITHIN: Duration = Duration::from_secs(120);

/// Their changes take more than a sixteenth of the memory that [`eager`] leaves for rows.
const MANY_EVENTS: u32 = 60_000;

/// How a process is brought to its fail point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Large transactions, streamed ones with rolled back parts among them.
    Streamed,
    /// Small transactions until there are many commits.
    ManyCommits,
    /// Transactions that change rows of earlier flushes.
    Changed,
    /// One that changes more rows than may be held in memory.
    AllChanged,
    /// A stop in order, behind rows that have not been flushed.
    Stopped,
}

impl Way {
    fn statements(self) -> String {
        match self {
            Way::Streamed | Way::Stopped => load::around_a_streamed_one(),
            Way::ManyCommits => load::small_ones(),
            Way::Changed => load::changes(),
            Way::AllChanged => load::change_of_all(),
        }
    }
}

const LAKE_POINTS: [&str; 8] = [
    "lake.before_upload",
    "lake.after_upload",
    "lake.before_log_write",
    "lake.after_log_write",
    "lake.before_record",
    "lake.after_record",
    "lake.before_rewrite",
    "lake.after_rewrite",
];
const STREAM_POINTS: [&str; 6] = [
    "land.before_acknowledgement",
    "land.after_acknowledgement",
    "land.join",
    "follow.stream_block",
    "follow.stream_commit",
    "follow.stream_abort",
];
const SHUTDOWN_POINTS: [&str; 2] = ["shutdown.before_flush", "shutdown.after_flush"];
const CHECKPOINT_POINTS: [&str; 2] = ["checkpoint.before", "checkpoint.after"];
/// The way of a commit that rewrites files.
const CHANGE_POINTS: [&str; 10] = [
    "apply.after_scan",
    "apply.before_rewrite",
    "apply.after_rewrite",
    "journal.before_log_write",
    "journal.after_log_write",
    "apply.before_log_write",
    "apply.after_log_write",
    "apply.before_cleanup",
    "lock.after_acquire",
    "lock.before_release",
];
const SPOOL_POINTS: [&str; 1] = ["apply.before_spool"];
/// On S3 an upload, a conditional PUT and an acknowledgement differ from a folder's; what happens before them does not.
const S3_POINTS: [&str; 5] = [
    "lake.after_upload",
    "lake.before_log_write",
    "lake.after_log_write",
    "lake.after_record",
    "land.before_acknowledgement",
];
/// What is in the store is the same after the journal's log write and before the table's.
const S3_CHANGE_POINTS: [&str; 5] = [
    "apply.after_rewrite",
    "journal.after_log_write",
    "apply.after_log_write",
    "apply.before_cleanup",
    "lock.after_acquire",
];

/// A server that streams every transaction of more than 64 kB, and the customer's tables without their secondary indexes.
async fn site() -> Site {
    let extra_settings = vec![("logical_decoding_work_mem".to_owned(), "64kB".to_owned())];
    let site = Site::with_options(ClusterOptions { extra_settings, ..ClusterOptions::default() }).await;
    let options = CustomerOptions { premake_days: 2, ..CustomerOptions::with_history(3) };
    customer::create(&site.cluster, &options).await.unwrap();
    load::drop_indexes(&site.cluster, DATABASE).await;
    site
}

/// Short flushes, and little memory, so that rows of open transactions become files.
fn eager(text: &mut PipelineText) {
    text.max_age = "100ms";
    text.memory_limit = Some("128MiB");
}

/// Kills once, then twice in a row; after each a clean run has to bring lake and source together.
async fn killed_at(site: &Site, point: &str, way: Way, s3: Option<&S3>) {
    site.sql("TRUNCATE public.security_event, public.security_event_hook_results").await;
    let slot = point.replace('.', "_");
    let lane = match s3 {
        None => Lane::local(site, &slot, eager),
        Some(s3) => Lane::on_s3(site, &format!("s3_{slot}"), s3.port(), eager),
    };
    lane.init(site).await;
    let writer = site.cluster.connect(DATABASE).await.unwrap();
    let mut versions = Versions::default();
    if way == Way::AllChanged {
        writer.execute(&load::events(MANY_EVENTS, 2)).await.unwrap();
    }
    for kills in [1, 2] {
        for _ in 0..kills {
            die_at(site, &lane, point, way, &writer).await;
        }
        writer.execute(&way.statements()).await.unwrap();
        lane.run_until_caught_up().await.succeeded();
        let rows = lane.assert_balanced(site, s3).await;
        assert!(way == Way::AllChanged || rows.iter().all(|rows| *rows > 0), "{point}: {rows:?}");
        lane.assert_nothing_left_behind();
        versions.assert_journalled(site, &lane).await;
        versions = Versions::of(site).await;
    }
    eprintln!("{point}: balanced after 1 and 2 kills");
    lane.remove(site).await;
}

/// One process that kills itself at the point.
async fn die_at(site: &Site, lane: &Lane, point: &str, way: Way, writer: &Connection) {
    let mut run = RunningRun::start_dying_at(&lane.file, point);
    let statements = way.statements();
    if way == Way::Stopped {
        lane.wait_until_active(site).await;
        writer.execute(&statements).await.unwrap();
        run.signal("TERM").await;
    } else {
        let deadline = Instant::now() + REACHED_WITHIN;
        // Shorter than a flush, so that commits follow one another; but whoever rewrites files needs longer, and is not drowned.
        let mut pause = Duration::from_millis(if way == Way::Changed { 250 } else { 50 });
        while !run.has_ended() {
            assert!(Instant::now() < deadline, "{point} is never reached:\n{}", run.log());
            writer.execute(&statements).await.unwrap();
            tokio::time::sleep(pause).await;
            if way == Way::Changed {
                pause = (pause * 3 / 2).min(Duration::from_secs(2));
            }
        }
    }
    run.ended().await.killed();
}

async fn killed_at_each(points: &[&str], way: Way) {
    let site = site().await;
    for point in points {
        killed_at(&site, point, way, None).await;
    }
    site.cluster.stop().await;
}

/// What the crashes, the faults and the soak run under is what it says, and arrives whole without any of them.
#[tokio::test]
async fn b1_every_kind_of_transaction_arrives_whole() {
    let site = site().await;
    let lane = Lane::local(&site, "kinds", eager);
    lane.init(&site).await;
    let count = "SELECT (SELECT count(*) FROM public.security_event) + (SELECT count(*) FROM public.security_event_hook_results)";
    for kind in load::Kind::ALL {
        let before: u64 = site.value(count).await.parse().unwrap();
        site.cluster.execute(DATABASE, &kind.statements(1)).await.unwrap();
        let after: u64 = site.value(count).await.parse().unwrap();
        assert_eq!(after > before, kind != load::Kind::RolledBack, "{kind:?}");
    }
    lane.run_until_caught_up().await.succeeded();
    lane.assert_balanced(&site, None).await;
    site.cluster.stop().await;
}

#[tokio::test]
async fn l1_killed_at_every_edge_of_the_lake_nothing_is_missing_or_double() {
    killed_at_each(&LAKE_POINTS, Way::Streamed).await;
}

#[tokio::test]
async fn l1_killed_at_every_edge_of_the_stream_nothing_is_missing_or_double() {
    killed_at_each(&STREAM_POINTS, Way::Streamed).await;
}

#[tokio::test]
async fn w1_killed_during_shutdown_nothing_is_missing_or_double() {
    killed_at_each(&SHUTDOWN_POINTS, Way::Stopped).await;
}

#[tokio::test]
async fn l1_killed_around_a_checkpoint_nothing_is_missing_or_double() {
    killed_at_each(&CHECKPOINT_POINTS, Way::ManyCommits).await;
}

#[tokio::test]
async fn l2_killed_at_every_edge_of_a_rewrite_nothing_is_missing_or_double_and_no_old_image_is_lost() {
    killed_at_each(&CHANGE_POINTS, Way::Changed).await;
}

#[tokio::test]
async fn b2_killed_when_changes_are_put_aside_nothing_is_missing_or_double() {
    killed_at_each(&SPOOL_POINTS, Way::AllChanged).await;
}

#[tokio::test]
async fn l2_killed_at_the_edges_of_a_rewrite_on_s3_nothing_is_missing_or_double_and_no_old_image_is_lost() {
    let site = site().await;
    let s3 = S3::start(&site.folder().join("s3")).await;
    for point in S3_CHANGE_POINTS {
        killed_at(&site, point, Way::Changed, Some(&s3)).await;
    }
    site.cluster.stop().await;
}

#[tokio::test]
async fn l2_killed_at_the_edges_of_a_lake_on_s3_nothing_is_missing_or_double() {
    let site = site().await;
    let s3 = S3::start(&site.folder().join("s3")).await;
    for point in S3_POINTS {
        killed_at(&site, point, Way::Streamed, Some(&s3)).await;
    }
    site.cluster.stop().await;
}
