//! `scripts/bench huge`: one transaction of 10,000,000 rows (about 5 GB of WAL) into a local lake, by a `lakebed run` under the
//! default memory limit of 256 MiB. With `--changes delete|update` the rows are there before, landed in many commits, and the one
//! transaction deletes or updates all of them.
//!
//! While it arrives, a reader asks again and again how many rows the table has: the answer must go from none to all of them. What
//! is printed: how long PostgreSQL took to write and lakebed took from its commit to the last row's visibility, files, and the
//! most memory that was ever resident.

#![allow(
    missing_docs,
    dead_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss
)]
#![allow(clippy::cast_possible_truncation, clippy::disallowed_methods)]

#[path = "huge/changes.rs"]
mod changes;
#[path = "huge/insert.rs"]
mod insert;
#[path = "drain/site.rs"]
mod site;
#[path = "retry/table_log.rs"]
mod table_log;

use changes::Change;
use site::{DATABASE, Site};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Rows of about 520 bytes on the wire, on three days.
const INSERT: &str = "INSERT INTO public.security_event
    SELECT gen_random_uuid(), 'login_success', 'made by a benchmark', gen_random_uuid(), 'tenant', 'client', 'client name',
           gen_random_uuid(), 'user' || n % 5000, 'external-' || n % 5000, '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64)',
           jsonb_build_object('n', n, 'text', repeat(md5(n::text), 7)), current_date - (n % 3)::int + interval '1 hour'
    FROM generate_series({from}::bigint, {to}) AS n";
/// A few rows before everything else, so that the slot stands somewhere.
const FIRST_ROWS: u64 = 1_000;
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const MEMORY_LIMIT_MIB: u64 = 256;
const USAGE: &str = "usage: scripts/bench huge [--rows N] [--changes delete|update]";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut rows, mut change) = (10_000_000_u64, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().expect(USAGE);
        match (name.as_str(), value.as_str()) {
            ("--rows", value) => rows = value.parse().expect(USAGE),
            ("--changes", "delete") => change = Some(Change::Delete),
            ("--changes", "update") => change = Some(Change::Update),
            _ => panic!("{USAGE}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let huge = Huge::start().await;
        match change {
            None => insert::measure(huge, rows).await,
            Some(change) => changes::measure(huge, rows, change).await,
        }
    });
}

fn insert_rows(from: u64, to: u64) -> String {
    INSERT.replace("{from}", &from.to_string()).replace("{to}", &to.to_string())
}

/// A child that does not outlive a bench that failed.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended already where everything went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, a lake, and the process between them.
struct Huge {
    // Declared first: the process ends before its server goes.
    run: Run,
    site: Site,
    pipeline: PathBuf,
}

impl Huge {
    async fn start() -> Self {
        let site = Site::prepare(FIRST_ROWS, 1_000).await;
        let slot = site.copy_slot().await;
        let pipeline = site.lake(&slot, "127.0.0.1").await;
        let mut command = Command::new(&site.lakebed);
        command.arg("run").arg("--pipeline").arg(&pipeline).stdin(Stdio::null()).stderr(Stdio::null());
        let huge = Self { run: Run(command.spawn().unwrap()), site, pipeline };
        let active = format!("SELECT active::text FROM pg_replication_slots WHERE slot_name = '{slot}'");
        while huge.value(&active).await != "true" {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        huge
    }

    /// The folder of a table in the lake.
    fn table(&self, name: &str) -> PathBuf {
        self.pipeline.with_extension("").join(name)
    }

    fn assert_runs(&mut self) {
        assert!(self.run.0.try_wait().unwrap().is_none(), "lakebed ended");
    }

    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.run.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// The one value of a query of the source.
    async fn value(&self, sql: &str) -> String {
        self.site.cluster.query(DATABASE, sql).await.unwrap().remove(0).remove(0).unwrap()
    }

    /// The one row of a query of the lake, as a reader sees it now.
    fn seen(&self, sql: &str) -> String {
        seen(&self.site.lakebed, &self.pipeline, sql)
    }

    async fn stop(mut self) {
        Command::new("kill").arg(self.run.0.id().to_string()).status().unwrap();
        assert!(self.run.0.wait().unwrap().success(), "an orderly end");
        std::fs::remove_dir_all(self.pipeline.with_extension("")).unwrap();
        self.site.stop().await;
    }
}

fn seen(lakebed: &Path, pipeline: &Path, sql: &str) -> String {
    let mut command = Command::new(lakebed);
    let output = command.args(["query", "--format", "csv", "-c", sql, "--pipeline"]).arg(pipeline).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().nth(1).unwrap_or_default().to_owned()
}
