//! S1 to S3: a database that has run for years is taken over without stopping it, whatever interrupts the copy (S1) and in nobody's way
//! (S2), and damage is healed by the day (S3). Tables that were detached before lakebed came are part of the source, like any leaf.

mod archived;
mod kills;
mod layouts;
mod load;
mod locks;
mod lost_slot;
mod months;
mod obstacles;
mod only_here;
mod partman;
mod plain;
mod repair;
mod repair_beside;
mod run;
mod takeover;

use crate::support::{DATABASE, Finished, Lane, RunningRun, Site, compare_with_archive, lakebed};
use chrono::{Days, NaiveDate, Utc};
use lakebed::demo::customer::{self, CustomerOptions};
use lakebed::demo::{ClusterOptions, ServerKind};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const EVENTS: &str = "public.security_event";
const HOOKS: &str = "public.security_event_hook_results";
const TABLES: [&str; 2] = ["security_event", "security_event_hook_results"];
/// A copy under load, on two busy cores, needs a part of it.
const COPIED_WITHIN: Duration = Duration::from_secs(180);
/// Many batches of a few megabytes of rows.
const SMALL_BATCHES: &str = "batch_bytes = \"1MiB\"";

/// How much there is before lakebed comes.
#[derive(Clone, Copy)]
struct Amount {
    /// Days back that have leaves.
    days: u32,
    /// Rows of a day.
    events: u32,
    hook_results: u32,
    /// Leaves older than so many days are detached before lakebed comes; 0: none.
    detached_after: u32,
}

/// A day that is so old has no leaf: its rows are in the default partition.
const LATE_DAYS: std::ops::Range<u32> = 20..23;

/// A database that has run for a while: rows on every day, of days without leaves as well, and tables that are detached already.
struct Old {
    site: Site,
    /// When the test began; the clock may pass midnight meanwhile.
    today: NaiveDate,
    amount: Amount,
}

impl Old {
    /// Whatever is larger than 64 kB is streamed, where it may be.
    async fn new(server: ServerKind, amount: Amount) -> Self {
        let today = Utc::now().date_naive();
        let extra_settings = vec![("logical_decoding_work_mem".to_owned(), "64kB".to_owned())];
        let site = Site::with_options(ClusterOptions { server, extra_settings, ..ClusterOptions::default() }).await;
        let options = CustomerOptions { premake_days: 4, history_days: amount.days, today };
        customer::create(&site.cluster, &options).await.unwrap();
        crate::support::load::drop_indexes(&site.cluster, DATABASE).await;
        let old = Self { site, today, amount };
        let days: Vec<NaiveDate> = (0..=amount.days).chain(LATE_DAYS).map(|ago| old.day(ago)).collect();
        old.site.sql(&load::events(&days, amount.events)).await;
        old.site.sql(&load::hook_results(&days, amount.hook_results)).await;
        if amount.detached_after > 0 {
            old.detach_older_than(amount.detached_after).await;
        }
        let mut text = old.site.pipeline_text();
        text.snapshot = SMALL_BATCHES.to_owned();
        old.site.write_pipeline(&text);
        old
    }

    fn day(&self, days_ago: u32) -> NaiveDate {
        self.today - Days::new(days_ago.into())
    }

    /// Days that have leaves when lakebed comes, the newest first. Late rows for a detached day would keep partman from ever detaching
    /// a leaf of that name again, so the load writes to none.
    fn leaves(&self) -> Vec<NaiveDate> {
        let oldest = if self.amount.detached_after > 0 { self.amount.detached_after } else { self.amount.days };
        (0..=oldest).map(|ago| self.day(ago)).collect()
    }

    /// A pipeline of its own on this database.
    fn lane(&self, slot: &str, snapshot: &str) -> Lane {
        Lane::local(&self.site, slot, |text| text.snapshot = snapshot.to_owned())
    }

    /// Panics unless the lake in a folder is live tables and archive together, row by row; the rows of each table.
    async fn assert_equal(&self, lake: &Path) -> [u64; 2] {
        assert_equal(&self.site, lake).await
    }
}

/// As [`Old::assert_equal`], of any site with the customer's tables.
async fn assert_equal(site: &Site, lake: &Path) -> [u64; 2] {
    let mut counts = [0; 2];
    for (table, rows) in TABLES.iter().zip(&mut counts) {
        let (name, folder, by) = (format!("public.{table}"), lake.join(table), ("created_at", "day"));
        let compared = compare_with_archive(&site.cluster, site.folder(), &folder, &name, by).await;
        *rows = compared.unwrap_or_else(|difference| panic!("{table} in {}: {difference}", lake.display()));
    }
    counts
}

/// `init --snapshot`, or `snapshot`, with the administrator's URL.
fn with_admin<'a>(verb: &[&'a str], admin: &'a str) -> Vec<&'a str> {
    [verb, &["--admin-url", admin]].concat()
}

async fn init_snapshot(site: &Site, pipeline: &Path) -> Finished {
    let admin = site.cluster.admin_url(DATABASE);
    lakebed(pipeline, &with_admin(&["init", "--snapshot"], &admin)).await
}

/// `lakebed snapshot` until nothing is left to copy.
async fn finish_copy(site: &Site, pipeline: &Path) {
    let admin = site.cluster.admin_url(DATABASE);
    let verb = RunningRun::start_verb(pipeline, &with_admin(&["snapshot"], &admin));
    verb.finished(COPIED_WITHIN).await.succeeded();
    assert_eq!(not_copied(pipeline).await, BTreeSet::new());
}

/// Waits until the server has noticed that whoever followed is gone: who comes now copies, and does not watch.
async fn let_go(site: &Site, slot: &str) {
    let held = format!("SELECT FROM pg_replication_slots WHERE slot_name = '{slot}' AND active");
    site.wait_for(&format!("SELECT NOT EXISTS ({held})")).await;
}

/// What `lakebed status` says is not copied yet: table and day, or table and `all`.
async fn not_copied(pipeline: &Path) -> BTreeSet<String> {
    let finished = lakebed(pipeline, &["status", "--json"]).await;
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", finished.stdout, finished.stderr));
    let mut found = BTreeSet::new();
    for table in report["tables"].as_array().unwrap() {
        let name = table["table"].as_str().unwrap();
        let days = match &table["days_not_copied"] {
            Value::Array(days) => days.iter().map(|day| day.as_str().unwrap()).collect(),
            Value::String(all) => vec![all.as_str()],
            _ => panic!("nothing is said of {name}: {report}"),
        };
        found.extend(days.into_iter().map(|day| format!("{name} {day}")));
    }
    found
}

/// How often each day of a Delta table was copied, as its log says: `2026-01-02`, or `all` for the whole table. None where there is no
/// table yet.
fn copies(table: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(table.join("_delta_log")) else { return found };
    let entries = entries.map(|entry| entry.unwrap().path());
    for entry in entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        for line in std::fs::read_to_string(entry).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let Some(app_id) = line["txn"]["appId"].as_str().filter(|id| id.starts_with("lakebed-copy/")) else {
                continue;
            };
            // The prefix, system, slot, table and epoch come first.
            let day = app_id.split('/').nth(5).unwrap_or("all");
            if line["txn"]["version"] == 0 {
                *found.entry(day.to_owned()).or_default() += 1;
            }
        }
    }
    found
}

/// Panics if a day that had landed was copied again.
#[track_caller]
fn assert_copied_once(lake: &Path) {
    for table in TABLES {
        let copies = copies(&lake.join(table));
        assert!(!copies.is_empty(), "nothing of {table} was copied into {}", lake.display());
        let again: Vec<_> = copies.iter().filter(|(_, times)| **times > 1).collect();
        assert!(again.is_empty(), "{table} in {}: {again:?}", lake.display());
    }
}
