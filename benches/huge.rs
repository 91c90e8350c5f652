//! `scripts/bench huge`: one transaction of 10,000,000 rows (about 5 GB of WAL) into a local lake, by a `lakebed run` under the
//! default memory limit of 256 MiB.
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

#[path = "drain/site.rs"]
mod site;

use site::{DATABASE, Site};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rows of about 520 bytes on the wire, on three days.
const INSERT: &str = "INSERT INTO public.security_event
    SELECT gen_random_uuid(), 'login_success', 'made by a benchmark', gen_random_uuid(), 'tenant', 'client', 'client name',
           gen_random_uuid(), 'user' || n % 5000, 'external-' || n % 5000, '192.0.2.1', 'Mozilla/5.0 (X11; Linux x86_64)',
           jsonb_build_object('n', n, 'text', repeat(md5(n::text), 7)), current_date - (n % 3)::int + interval '1 hour'
    FROM generate_series(1::bigint, {rows}) AS n";
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const MEMORY_LIMIT_MIB: u64 = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let rows: u64 = match arguments.as_slice() {
        [] => 10_000_000,
        [name, value] if name == "--rows" => value.parse().unwrap(),
        _ => panic!("usage: scripts/bench huge [--rows N]"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(huge(rows));
}

async fn huge(rows: u64) {
    // A few rows before, so that the slot stands somewhere.
    let site = Site::prepare(1_000, 1_000).await;
    let slot = site.copy_slot().await;
    let pipeline = site.lake(&slot, "127.0.0.1").await;
    let mut run = start(&site, &pipeline);
    // Its index would cost the writer more than everything else together, and logical decoding never sees it.
    let active = format!("SELECT active::text FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while value(&site, &active).await != "true" {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let drop_key = "ALTER TABLE public.security_event DROP CONSTRAINT security_event_pkey";
    site.cluster.execute(DATABASE, drop_key).await.unwrap();
    let started = Instant::now();
    let insert = INSERT.replace("{rows}", &rows.to_string());
    let (written_seconds, wal_bytes) = {
        let before = value(&site, "SELECT pg_current_wal_insert_lsn()").await;
        site.cluster.execute(DATABASE, &insert).await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let bytes = value(&site, &format!("SELECT pg_current_wal_insert_lsn() - '{before}'::pg_lsn")).await;
        (seconds, bytes.parse::<f64>().unwrap())
    };
    let committed = Instant::now();
    let mut looks = 0;
    loop {
        looks += 1;
        let seen = count(&site, &pipeline);
        if seen == rows + 1_000 {
            break;
        }
        assert_eq!(seen, 1_000, "a part of the transaction is visible");
        assert!(run.try_wait().unwrap().is_none(), "lakebed ended");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let visible_seconds = committed.elapsed().as_secs_f64();
    let peak_mib = peak_mib(run.id());
    let commits = std::fs::read_dir(pipeline.with_extension("").join("security_event/_delta_log")).unwrap().count();
    Command::new("kill").arg(run.id().to_string()).status().unwrap();
    assert!(run.wait().unwrap().success(), "an orderly end");
    println!("| one transaction | |\n|---|---|");
    println!("| rows | {rows} |");
    println!("| WAL | {:.2} GB |", wal_bytes / 1e9);
    println!("| PostgreSQL wrote it in | {written_seconds:.0} s |");
    println!("| visible after its commit | {visible_seconds:.0} s ({looks} looks saw nothing or everything) |");
    println!("| log entries | {commits} |");
    println!("| most resident memory of `run` | {peak_mib} MiB |");
    println!(
        "{{\"bench\": \"huge\", \"rows\": {rows}, \"wal_bytes\": {wal_bytes}, \"written_seconds\": {written_seconds:.1}, \
         \"visible_seconds\": {visible_seconds:.1}, \"peak_mib\": {peak_mib}}}"
    );
    assert!(peak_mib <= MEMORY_LIMIT_MIB, "{peak_mib} MiB is over the limit");
    std::fs::remove_dir_all(pipeline.with_extension("")).unwrap();
    site.stop().await;
}

fn start(site: &Site, pipeline: &Path) -> Child {
    let mut command = Command::new(&site.lakebed);
    command.arg("run").arg("--pipeline").arg(pipeline).stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Rows that a reader sees now.
fn count(site: &Site, pipeline: &Path) -> u64 {
    let mut command = Command::new(&site.lakebed);
    command.args(["query", "--format", "csv", "-c", "SELECT count(*) AS n FROM security_event", "--pipeline"]);
    let output = command.arg(pipeline).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().nth(1).map_or(0, |line| line.parse().unwrap())
}

fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

async fn value(site: &Site, sql: &str) -> String {
    site.cluster.query(DATABASE, sql).await.unwrap().remove(0).remove(0).unwrap()
}
