//! `scripts/bench retry`: the customer's manual retry of hook results, whose rows are up to 60 days old and whose payloads the server does
//! not send, into a local lake.
//!
//! Three cases: single retries one after the other, thousands in one transaction, and the same thousands in a transaction each. Each must
//! rewrite a file at most once a flush and leave one old image for each update; every row is compared with the source after each case.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    unused_imports,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::large_futures, clippy::disallowed_methods)]

#[path = "drain/measure.rs"]
mod measure;
#[path = "retry/options.rs"]
mod options;
#[path = "retry/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "retry/table_log.rs"]
mod table_log;

use lakebed::base::Lsn;
use lakebed::demo::ServerKind;
use options::Options;
use report::Case;
use std::time::SystemTime;
use support::lane::journal_of;
use support::{DATABASE, RunningRun, Site, compare, load, until};
use table_log::{Entry, TableLog};

const HOOKS: &str = "public.security_event_hook_results";
const TENANT: &str = "00000000-0000-4000-8000-000000000001";
/// Of a row that is retried, what the row of the new attempt takes over.
const TAKEN_OVER: &str =
    "tenant_id, security_event_id, security_event_type, security_event_hook, security_event_payload";

fn main() {
    let options = Options::from_arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(retry(&options));
}

async fn retry(options: &Options) {
    let mut bench = Bench::start(options).await;
    bench.load(options).await;
    let mut singles = Vec::new();
    for turn in 0..options.singles {
        singles.push(bench.measure(1, &single(options.days - 1, turn)).await);
    }
    bench.assert_equal().await;
    bench.choose(options.updates).await;
    let one = bench.measure(options.updates, &in_one_transaction()).await;
    bench.assert_equal().await;
    let each = bench.measure(options.updates, &in_one_each()).await;
    let rows = bench.assert_equal().await;
    report::print(options, rows, &singles, &[("one transaction", one), ("one transaction each", each)]);
    bench.stop().await;
}

/// What a case writes: transactions of their own, and the last one, after which it is looked for in the lake.
struct Change {
    before: Option<String>,
    last: String,
}

/// A retry of the n-th row of so many days ago, as the application writes it: it knows no more than id and tenant.
fn single(days_ago: u32, n: u32) -> Change {
    let row = format!(
        "(SELECT id FROM {HOOKS} WHERE created_at >= timezone('UTC', date_trunc('day', now())) - {days_ago} * interval '1 day'
          ORDER BY created_at OFFSET {n} LIMIT 1)"
    );
    let last = format!(
        "CREATE TEMP TABLE one ON COMMIT DROP AS {row};
         UPDATE {HOOKS} SET status = 'RETRIED' WHERE id = (SELECT id FROM one) AND tenant_id = '{TENANT}';
         {}",
        attempt_of("(SELECT id FROM one)")
    );
    Change { before: None, last }
}

/// The row of today that a retry leaves.
fn attempt_of(id: &str) -> String {
    format!(
        "INSERT INTO {HOOKS} SELECT gen_random_uuid(), {TAKEN_OVER}, NULL, 'SUCCESS', timezone('UTC', now()), timezone('UTC', now())
         FROM {HOOKS} WHERE id = {id};"
    )
}

fn in_one_transaction() -> Change {
    let attempt = attempt_of("(SELECT id FROM chosen LIMIT 1)");
    let last = format!(
        "UPDATE {HOOKS} AS h SET status = 'RETRIED' FROM chosen AS c WHERE h.id = c.id AND h.created_at = c.created_at;
         {attempt}"
    );
    Change { before: None, last }
}

fn in_one_each() -> Change {
    let before = format!(
        "DO $$
         DECLARE
             one record;
         BEGIN
             FOR one IN SELECT * FROM chosen ORDER BY turn, created_at LOOP
                 UPDATE {HOOKS} SET status = 'RETRIED AGAIN' WHERE id = one.id AND created_at = one.created_at;
                 COMMIT;
             END LOOP;
         END
         $$"
    );
    Change { before: Some(before), last: attempt_of("(SELECT id FROM chosen LIMIT 1)") }
}

struct Bench {
    site: Site,
    run: RunningRun,
    table: TableLog,
    journal: TableLog,
}

impl Bench {
    async fn start(options: &Options) -> Self {
        let site = Site::with_history(ServerKind::Debian15, options.days + 1).await;
        load::drop_indexes(&site.cluster, DATABASE).await;
        let text = support::PipelineText { max_age: options.max_age, ..site.pipeline_text() };
        site.write_pipeline(&text);
        site.init().await;
        let run = site.start_run();
        let name = HOOKS.trim_start_matches("public.");
        let log = |name: &str| TableLog::of(site.lake().join(name));
        let (table, journal) = (log(name), log(&journal_of(name)));
        Self { site, run, table, journal }
    }

    /// Each part of the rows is a flush, so that each day has so many files, as after a day's work.
    async fn load(&mut self, options: &Options) {
        for part in 0..options.files_per_day {
            let (from, to) = options.part(part);
            let rows = Change { before: None, last: load::long_hook_results(options.days, from..=to) };
            let position = self.commit(&rows).await.0;
            self.table.read_past(position, || assert!(!self.run.has_ended(), "lakebed ended")).await;
        }
        assert!(self.journal.read_on().is_empty(), "a table that only grows has no journal");
    }

    /// A position within the last transaction, and when that was committed.
    async fn commit(&self, change: &Change) -> (u64, SystemTime) {
        let connection = self.site.cluster.connect(DATABASE).await.unwrap();
        if let Some(before) = &change.before {
            connection.execute(before).await.unwrap();
        }
        let last = format!("BEGIN; {} SELECT pg_current_wal_insert_lsn(); COMMIT", change.last);
        let rows = connection.query(&last).await.unwrap();
        let position: Lsn = rows[0][0].as_deref().unwrap().parse().unwrap();
        (position.0, SystemTime::now())
    }

    /// Rows of all days, so many in all, for the cases that change thousands.
    async fn choose(&self, rows: u32) {
        let sql = format!(
            "CREATE UNLOGGED TABLE chosen AS
             SELECT id, created_at, row_number() OVER (PARTITION BY created_at::date ORDER BY id) AS turn
             FROM {HOOKS} WHERE status = 'FAILURE' ORDER BY turn, created_at LIMIT {rows}"
        );
        self.site.sql(&sql).await;
        assert_eq!(
            self.site.value("SELECT count(*) FROM chosen").await,
            rows.to_string(),
            "too few rows: see --updates"
        );
    }

    async fn measure(&mut self, updates: u32, change: &Change) -> Case {
        self.forget_peak();
        let (files, bytes) = (self.table.files.clone(), self.table.bytes());
        let log_before = self.run.log().len();
        let (position, committed_at) = self.commit(change).await;
        let entries = self.table.read_past(position, || assert!(!self.run.has_ended(), "lakebed ended")).await;
        let visible_at = entries.last().unwrap().written_at;
        let old_images = self.journal.read_on().iter().map(|entry| entry.rows).sum();
        assert_eq!(old_images, u64::from(updates), "one old image for each update");
        let flushes: Vec<&Entry> = entries.iter().filter(|entry| !entry.removed.is_empty()).collect();
        // It says so after the commit.
        let said = || rewrite_seconds(&self.run.log()[log_before..]).len() == flushes.len();
        until("the rewrites are in the log", said).await;
        let rewritten = || flushes.iter().flat_map(|entry| &entry.removed);
        let case = Case {
            updates,
            files: files.len(),
            bytes,
            flushes: flushes.len(),
            files_rewritten: rewritten().count(),
            bytes_rewritten: rewritten().filter_map(|path| files.get(path)).sum(),
            visible_seconds: visible_at.duration_since(committed_at).unwrap_or_default().as_secs_f64(),
            rewrite_seconds: rewrite_seconds(&self.run.log()[log_before..]).iter().sum(),
            old_images,
            peak_mib: self.run.peak_mib(),
        };
        if case.flushes == 1 {
            assert!(rewritten().all(|path| files.contains_key(path)), "a file of this flush was rewritten by it");
            assert!(case.files_rewritten <= case.files, "a file is rewritten once a flush");
        }
        case
    }

    /// The most memory that was resident counts from here on.
    fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.run.pid()), "5").unwrap();
    }

    async fn assert_equal(&self) -> u64 {
        let folder = self.site.lake().join(HOOKS.trim_start_matches("public."));
        compare(&self.site.cluster, self.site.folder(), &folder, HOOKS, ("created_at", "day")).await.unwrap()
    }

    async fn stop(self) {
        self.run.signal("TERM").await;
        self.run.ended().await.succeeded();
        self.site.cluster.stop().await;
    }
}

/// What `run` says that each of its rewrites took; the rest of the time until a change is visible is waiting for the flush.
fn rewrite_seconds(log: &str) -> Vec<f64> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let rewrites = lines.filter(|line| line["message"] == "rewrote the files of changed rows");
    rewrites.filter_map(|line| line["seconds"].as_f64()).collect()
}
