//! The rows are there already, landed in many commits; the one transaction deletes or updates every one of them.

use super::table_log::TableLog;
use super::{FIRST_ROWS, Huge, LOOK_INTERVAL, MEMORY_LIMIT_MIB, insert_rows, seen};
use lakebed::base::Lsn;
use std::time::{Instant, SystemTime};

/// Rows of a transaction before the large one.
const LOAD_ROWS: u64 = 100_000;
/// The same numbers on both sides only if every row is there once with its own values. Neither side has a function for more than this
/// that prints the same text and holds no row in memory.
const DIGEST: &str = "SELECT concat(count(*), ' ', coalesce(sum(ascii(type) * (ascii(substr(CAST(id AS VARCHAR), 1, 1))
        + 31 * ascii(substr(CAST(id AS VARCHAR), 36, 1)) * ascii(substr(CAST(detail AS VARCHAR), 30, 1)))), 0)) AS digest
    FROM public.security_event";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Delete,
    Update,
}

impl Change {
    fn statement(self) -> &'static str {
        match self {
            Self::Delete => "DELETE FROM public.security_event",
            Self::Update => "UPDATE public.security_event SET type = 'retyped'",
        }
    }

    /// How many rows a reader sees that are as they were before. Statistics answer this, so that looking costs little.
    fn unchanged(self) -> &'static str {
        match self {
            Self::Delete => "SELECT count(*) AS n FROM security_event",
            Self::Update => "SELECT count(*) AS n FROM security_event WHERE type <> 'retyped'",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Update => "update",
        }
    }
}

/// What is there before the large transaction.
struct Landed {
    rows: u64,
    files: usize,
    bytes: u64,
    commits: usize,
    peak_mib: u64,
}

/// What the large transaction took.
struct Taken {
    wal_bytes: f64,
    written_seconds: f64,
    visible_seconds: f64,
    looks: u64,
    commits: usize,
    files: usize,
    bytes: u64,
    old_images: u64,
}

pub(crate) async fn measure(mut huge: Huge, rows: u64, change: Change) {
    let mut table = TableLog::of(huge.table("security_event"));
    let landed = land(&mut huge, &mut table, rows).await;
    println!("{} rows in {} files and {} commits", landed.rows, landed.files, landed.commits);
    let taken = take(&mut huge, &mut table, &landed, change).await;
    let peak_mib = huge.peak_mib();
    assert_eq!(huge.seen(DIGEST), huge.value(DIGEST).await, "lake and source differ");
    huge.stop().await;
    print(&landed, &taken, change, peak_mib);
    assert_eq!(taken.commits, 1, "it is one commit of the table");
    assert_eq!(taken.old_images, landed.rows, "one old image for each row");
    assert!(peak_mib <= MEMORY_LIMIT_MIB, "{peak_mib} MiB is over the limit");
}

async fn land(huge: &mut Huge, table: &mut TableLog, rows: u64) -> Landed {
    let mut position = 0;
    for from in (1..=rows).step_by(LOAD_ROWS as usize) {
        let insert = insert_rows(from, rows.min(from + LOAD_ROWS - 1));
        position = commit(huge, &insert).await;
    }
    let commits = table.read_past(position, || huge.assert_runs()).await.len();
    let peak_mib = huge.peak_mib();
    Landed { rows: rows + FIRST_ROWS, files: table.files.len(), bytes: table.bytes(), commits, peak_mib }
}

/// A position within the transaction.
async fn commit(huge: &Huge, statement: &str) -> u64 {
    let position = huge.value(&format!("BEGIN; {statement}; SELECT pg_current_wal_insert_lsn(); COMMIT")).await;
    position.parse::<Lsn>().unwrap().0
}

async fn take(huge: &mut Huge, table: &mut TableLog, landed: &Landed, change: Change) -> Taken {
    let before = huge.value("SELECT pg_current_wal_insert_lsn()").await;
    let looking = Looking::start(huge, landed.rows, change);
    let started = Instant::now();
    let position = commit(huge, change.statement()).await;
    let (written_seconds, committed_at) = (started.elapsed().as_secs_f64(), SystemTime::now());
    let wal = format!("SELECT pg_current_wal_insert_lsn() - '{before}'::pg_lsn");
    let wal_bytes = huge.value(&wal).await.parse().unwrap();
    let entries = table.read_past(position, || huge.assert_runs()).await;
    let visible = entries.last().unwrap().written_at.duration_since(committed_at).unwrap_or_default();
    let looks = looking.end().await;
    assert_eq!(huge.seen(change.unchanged()), "0", "a reader still sees rows as they were");
    let mut journal = TableLog::of(huge.table("security_event__changes"));
    journal.read_on();
    Taken {
        wal_bytes,
        written_seconds,
        visible_seconds: visible.as_secs_f64(),
        looks,
        commits: entries.len(),
        files: entries.iter().map(|entry| entry.removed.len()).sum(),
        bytes: entries.iter().flat_map(|entry| entry.added.values()).sum(),
        old_images: journal.rows_added,
    }
}

/// A reader that asks again and again while the transaction arrives, and must see all of it or nothing.
struct Looking {
    task: tokio::task::JoinHandle<u64>,
    end: tokio::sync::watch::Sender<bool>,
}

impl Looking {
    fn start(huge: &Huge, rows: u64, change: Change) -> Self {
        let (end, mut ended) = tokio::sync::watch::channel(false);
        let (lakebed, pipeline) = (huge.site.lakebed.clone(), huge.pipeline.clone());
        let look = move || {
            let unchanged: u64 = seen(&lakebed, &pipeline, change.unchanged()).parse().unwrap();
            assert!(unchanged == rows || unchanged == 0, "{unchanged} of {rows} rows are as they were");
        };
        let task = tokio::spawn(async move {
            let mut looks = 0;
            loop {
                tokio::task::block_in_place(&look);
                looks += 1;
                if tokio::time::timeout(LOOK_INTERVAL, ended.wait_for(|ended| *ended)).await.is_ok() {
                    return looks;
                }
            }
        });
        Self { task, end }
    }

    async fn end(self) -> u64 {
        self.end.send_replace(true);
        self.task.await.unwrap()
    }
}

fn print(landed: &Landed, taken: &Taken, change: Change, peak_mib: u64) {
    let name = change.name();
    println!("| one transaction, {name} of all rows | |\n|---|---|");
    println!("| rows | {} |", landed.rows);
    println!("| before it | {} files, {:.0} MB, {} commits |", landed.files, landed.bytes as f64 / 1e6, landed.commits);
    println!("| WAL | {:.2} GB |", taken.wal_bytes / 1e9);
    println!("| PostgreSQL wrote it in | {:.0} s |", taken.written_seconds);
    println!(
        "| visible after its commit | {:.1} s ({} looks saw nothing or everything) |",
        taken.visible_seconds, taken.looks
    );
    println!("| commits of the table | {} |", taken.commits);
    println!("| files rewritten, new | {}, {:.0} MB |", taken.files, taken.bytes as f64 / 1e6);
    println!("| old images in the journal | {} |", taken.old_images);
    println!("| most resident memory of `run` | {peak_mib} MiB, {} MiB before it |", landed.peak_mib);
    println!(
        "{}",
        serde_json::json!({
            "bench": "huge", "changes": name, "rows": landed.rows, "files": landed.files, "wal_bytes": taken.wal_bytes,
            "written_seconds": taken.written_seconds, "visible_seconds": taken.visible_seconds, "looks": taken.looks,
            "commits": taken.commits, "files_rewritten": taken.files, "old_images": taken.old_images,
            "peak_before_mib": landed.peak_mib, "peak_mib": peak_mib,
        })
    );
}
