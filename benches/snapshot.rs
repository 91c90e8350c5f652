//! `scripts/bench snapshot`: how fast a database that has run for months is taken over, against the archive guide's own export of
//! the same rows.
//!
//! Rows of 90 days lie in the first customer's main table, a leaf a day. Each round exports every leaf as the guide's function
//! does, `COPY (SELECT * …) TO '<file>.csv'` in the server, one after the other, and then runs `lakebed init --snapshot` with a
//! slot and an empty local lake of its own. The lake must have as many rows of each day as the source after every round, and after the
//! last `lakebed repair` must find that every day has the same digest on both sides. Medians are printed as a table and as one JSON
//! line.

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
#[path = "snapshot/options.rs"]
mod options;
#[path = "snapshot/source.rs"]
mod source;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "snapshot/takeover.rs"]
mod takeover;

use measure::{Run, median};
use options::Options;
use source::Source;
use takeover::Takeover;

const EXPORT: &str = "the guide's export, COPY … TO CSV";
const LAKEBED: &str = "lakebed init --snapshot";
/// The second is at least as fast as the first.
const RATIO_MIN: f64 = 1.0;
const PEAK_MIB_MAX: f64 = 256.0;

fn main() {
    let options = Options::from_arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let source = runtime.block_on(Source::prepare(&options));
    let (mut exports, mut copies) = (Vec::new(), Vec::new());
    let (mut csv_bytes, mut lake_bytes) = (0, 0);
    for round in 1..=options.rounds {
        let told = |name: &str, run: &Run| println!("round {round} {name:36} {:7.2} s", run.wall_seconds);
        let (run, bytes) = source.export();
        told(EXPORT, &run);
        exports.push(run);
        csv_bytes = bytes;
        let takeover = Takeover::new(&source, &options, round);
        let run = takeover.init_snapshot();
        told(LAKEBED, &run);
        copies.push(run);
        lake_bytes = takeover.bytes();
        takeover.assert_every_day();
        if round == options.rounds {
            takeover.assert_balanced(options.days);
        }
        runtime.block_on(takeover.remove());
    }
    report(&options, &source, (csv_bytes, lake_bytes), &exports, &copies);
    runtime.block_on(source.stop());
}

/// A contestant's rows a second: the median, the slowest and the fastest round.
fn rates(options: &Options, runs: &[Run]) -> [f64; 3] {
    let rates = || runs.iter().map(|run| options.rows as f64 / run.wall_seconds);
    [median(rates()), rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max)]
}

fn report(options: &Options, source: &Source, (csv, lake): (u64, u64), exports: &[Run], copies: &[Run]) {
    println!(
        "\n{} rows of about {} bytes in {} leaves, {} in PostgreSQL, {} as CSV, {} in the lake; {} connections; medians of {}",
        options.rows,
        source.row_bytes,
        options.days,
        megabytes(source.table_bytes),
        megabytes(csv),
        megabytes(lake),
        options.connections,
        options.rounds
    );
    println!("| what | wall s | rows/s | slowest – fastest | × the export | user s | kernel s | peak MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let [limit, slowest, fastest] = rates(options, exports);
    let wall = |runs: &[Run]| median(runs.iter().map(|run| run.wall_seconds));
    // What psql takes itself says nothing: the work is the server's.
    println!("| {EXPORT} | {:.2} | {limit:.0} | {slowest:.0} – {fastest:.0} | 1.00 | – | – | – |", wall(exports));
    let mut json = vec![serde_json::json!({
        "what": EXPORT, "wall_seconds": wall(exports), "rows_per_second": limit, "slowest": slowest, "fastest": fastest,
    })];
    let [rate, slowest, fastest] = rates(options, copies);
    let of = |figure: fn(&Run) -> f64| median(copies.iter().map(figure));
    let (user, kernel) = (of(|run| run.user_seconds), of(|run| run.kernel_seconds));
    let peak = copies.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    let ratio = rate / limit;
    println!(
        "| {LAKEBED} | {:.2} | {rate:.0} | {slowest:.0} – {fastest:.0} | {ratio:.2} | {user:.2} | {kernel:.2} | {peak:.0} |",
        wall(copies)
    );
    json.push(serde_json::json!({
        "what": LAKEBED, "wall_seconds": wall(copies), "rows_per_second": rate, "slowest": slowest, "fastest": fastest,
        "user_seconds": user, "kernel_seconds": kernel, "peak_mib": peak,
    }));
    println!(
        "{}",
        serde_json::json!({
            "bench": "snapshot", "rows": options.rows, "days": options.days, "rounds": options.rounds,
            "connections": options.connections, "row_bytes": source.row_bytes, "table_bytes": source.table_bytes,
            "csv_bytes": csv, "lake_bytes": lake, "ratio": ratio, "peak_mib": peak, "medians": json,
        })
    );
    println!(
        "ratio {ratio:.2}, promised is {RATIO_MIN} at least; peak {peak:.0} MiB, promised is under {PEAK_MIB_MAX}"
    );
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
