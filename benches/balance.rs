//! `scripts/bench balance`: what the proof of a whole day costs before it is dropped, against what PostgreSQL alone needs
//! to count and digest its side.
//!
//! One detached day lies in schema `archive` and in a local lake, and `lakebed run` follows beside it. Each round runs the
//! very statement that `reconcile` digests a detached table with, by psql and in a transaction of its own, and then
//! `lakebed reconcile --dry-run` of that table; every answer must be the same rows and digest. The last round drops the day.
//! Medians are printed as a table and as one JSON line.

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

#[path = "balance/day.rs"]
mod day;
#[path = "drain/measure.rs"]
mod measure;
#[path = "balance/options.rs"]
mod options;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "retry/table_log.rs"]
mod table_log;

use day::Day;
use measure::{Run, median};
use options::Options;

const ALONE: &str = "PostgreSQL alone: count and digest";
const DRY_RUN: &str = "lakebed reconcile --dry-run";
const DROP: &str = "lakebed reconcile, which drops it";
/// How many times the first may the second take.
const PROMISE: f64 = 1.5;

fn main() {
    let options = Options::from_arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let day = runtime.block_on(Day::prepare(&options));
    let (mut alone, mut dry) = (Vec::new(), Vec::new());
    let mut dropped = None;
    for round in 1..=options.rounds {
        let told = |name: &str, run: &Run| println!("round {round} {name:36} {:6.2} s", run.wall_seconds);
        let (run, sum) = day.count_and_digest();
        told(ALONE, &run);
        alone.push(run);
        let run = day.reconcile(&["--dry-run"], "balanced", sum);
        told(DRY_RUN, &run);
        dry.push(run);
        if round == options.rounds {
            let run = day.reconcile(&[], "dropped", sum);
            told(DROP, &run);
            dropped = Some(run);
        }
    }
    runtime.block_on(day.assert_dropped());
    report(&options, &day, &alone, &dry, &dropped.unwrap());
    runtime.block_on(day.stop());
}

fn report(options: &Options, day: &Day, alone: &[Run], dry: &[Run], dropped: &Run) {
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure));
    let limit = of(alone, |run| run.wall_seconds);
    println!(
        "\n{} rows of about {} bytes, {} in PostgreSQL and {} files, {} in the lake; {} parallel workers; medians of {}",
        options.rows,
        day.row_bytes,
        megabytes(day.table_bytes),
        day.files,
        megabytes(day.lake_bytes),
        day.workers,
        options.rounds
    );
    println!("| what | wall s | × PostgreSQL alone | rows/s | user s | kernel s | peak MiB |");
    println!("|---|---|---|---|---|---|---|");
    let rate = |wall: f64| options.rows as f64 / wall;
    // What psql takes itself says nothing: the work is the server's.
    println!("| {ALONE} | {limit:.2} | 1.00 | {:.0} | – | – | – |", rate(limit));
    let mut json = vec![serde_json::json!({ "what": ALONE, "wall_seconds": limit, "ratio": 1.0 })];
    for (name, runs) in [(DRY_RUN, dry), (DROP, std::slice::from_ref(dropped))] {
        let wall = of(runs, |run| run.wall_seconds);
        let (user, kernel) = (of(runs, |run| run.user_seconds), of(runs, |run| run.kernel_seconds));
        let peak = of(runs, |run| run.peak_mib);
        let (ratio, rate) = (wall / limit, rate(wall));
        println!("| {name} | {wall:.2} | {ratio:.2} | {rate:.0} | {user:.2} | {kernel:.2} | {peak:.0} |");
        json.push(serde_json::json!({
            "what": name, "wall_seconds": wall, "ratio": ratio, "rows_per_second": rate, "user_seconds": user,
            "kernel_seconds": kernel, "peak_mib": peak,
        }));
    }
    let ratio = of(dry, |run| run.wall_seconds) / limit;
    println!(
        "{}",
        serde_json::json!({
            "bench": "balance", "rows": options.rows, "rounds": options.rounds, "row_bytes": day.row_bytes,
            "table_bytes": day.table_bytes, "files": day.files, "lake_bytes": day.lake_bytes, "workers": day.workers,
            "ratio": ratio, "medians": json,
        })
    );
    println!("ratio {ratio:.2}, promised is {PROMISE} at most");
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
