//! `scripts/bench drain`: how fast a backlog leaves PostgreSQL, compared in one run with what cannot be faster.
//!
//! One slot is created before the rows are written. Every contestant of every round reads a copy of it: a consumer that throws
//! the bytes away (with plain reads, and with the receive low-water mark), `pg_recvlogical -f /dev/null`, and
//! `lakebed run --until-caught-up` into a committed local lake whose rows are counted afterwards. Rounds are interleaved;
//! medians are printed as a table and as one JSON line.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss
)]
#![allow(clippy::cast_possible_truncation, clippy::disallowed_methods)]

#[path = "drain/consumer.rs"]
mod consumer;
#[path = "drain/measure.rs"]
mod measure;
#[path = "drain/site.rs"]
mod site;

use measure::{Run, median};
use site::Site;
use std::process::{Command, Stdio};

/// What is compared, in the order of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    ThrowAway,
    ThrowAwayLowWater,
    RecvLogical,
    Lakebed,
    /// An earlier lakebed, when `LAKEBED_BASELINE` names its binary: whether a change made it slower.
    Baseline,
}

const CONTESTANTS: [(Contestant, &str); 5] = [
    (Contestant::ThrowAway, "throw-away consumer"),
    (Contestant::ThrowAwayLowWater, "throw-away, low-water mark"),
    (Contestant::RecvLogical, "pg_recvlogical -f /dev/null"),
    (Contestant::Lakebed, "lakebed, committed local lake"),
    (Contestant::Baseline, "lakebed, earlier binary"),
];

fn baseline() -> Option<std::ffi::OsString> {
    std::env::var_os("LAKEBED_BASELINE")
}

fn contestants() -> impl Iterator<Item = (Contestant, &'static str)> {
    CONTESTANTS.into_iter().filter(|(who, _)| *who != Contestant::Baseline || baseline().is_some())
}

struct Options {
    rows: u64,
    transaction_rows: usize,
    rounds: usize,
    sockets: Vec<&'static str>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "consume") {
        consume(&arguments[1..]);
        return;
    }
    let options = options(&arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let site = runtime.block_on(Site::prepare(options.rows, options.transaction_rows));
    for socket in &options.sockets {
        let mut runs: Vec<(Contestant, Run)> = Vec::new();
        for round in 0..options.rounds {
            for (contestant, name) in contestants() {
                let run = one(&runtime, &site, socket, contestant);
                println!("round {} {socket:4} {name:30} {:6.2} s", round + 1, run.wall_seconds);
                runs.push((contestant, run));
            }
        }
        report(&options, socket, &runs);
    }
    runtime.block_on(site.stop());
}

fn options(arguments: &[String]) -> Options {
    let mut options = Options { rows: 500_000, transaction_rows: 1_000, rounds: 5, sockets: vec!["tcp", "unix"] };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--rows" => options.rows = value.parse().expect("--rows N"),
            "--transaction-rows" => options.transaction_rows = value.parse().expect("--transaction-rows N"),
            "--rounds" => options.rounds = value.parse().expect("--rounds N"),
            "--socket" => options.sockets.retain(|socket| socket == value),
            _ => panic!("options are --rows, --transaction-rows, --rounds and --socket tcp|unix"),
        }
    }
    options
}

/// One contestant on a fresh copy of the slot; preparation and the count afterwards are not measured.
fn one(runtime: &tokio::runtime::Runtime, site: &Site, socket: &str, contestant: Contestant) -> Run {
    let slot = runtime.block_on(site.copy_slot());
    let host = site.host(socket);
    let run = match contestant {
        Contestant::Lakebed | Contestant::Baseline => {
            let pipeline = runtime.block_on(site.lake(&slot, &host));
            let earlier = baseline().filter(|_| contestant == Contestant::Baseline);
            let mut command = Command::new(earlier.unwrap_or_else(|| site.lakebed.clone().into()));
            command.args(["run", "--until-caught-up", "--pipeline"]).arg(&pipeline).env("RUST_LOG", "warn");
            let run = measure::run(command).expect("lakebed run");
            site.assert_all_rows(&pipeline);
            run
        }
        Contestant::RecvLogical => {
            let mut command = Command::new(site.cluster.bin_dir().join("pg_recvlogical"));
            command.args(["--start", "--no-loop", "-f", "/dev/null", "-o", "proto_version=1", "-o", "binary=true"]);
            command.args(["-o", "publication_names=lakebed", "-U", "postgres", "-d", site::DATABASE, "-S", &slot]);
            command.args(["-h", &host, "-p", &site.cluster.port().to_string(), "--endpos", &site.end.to_string()]);
            command.env("PGPASSWORD", site.cluster.password()).stderr(Stdio::null());
            measure::run(command).expect("pg_recvlogical")
        }
        Contestant::ThrowAway | Contestant::ThrowAwayLowWater => {
            let low_water = (contestant == Contestant::ThrowAwayLowWater).to_string();
            let mut command = Command::new(std::env::current_exe().unwrap());
            let (port, end) = (site.cluster.port().to_string(), site.end.0.to_string());
            command.args(["consume", &host, &port, &slot, &end, &low_water]);
            command.env("PGPASSWORD", site.cluster.password());
            measure::run(command).expect("throw-away consumer")
        }
    };
    runtime.block_on(site.drop_slot(&slot));
    run
}

fn consume(arguments: &[String]) {
    let [host, port, slot, end, low_water] = arguments else { panic!("consume HOST PORT SLOT END LOW_WATER") };
    let target = consumer::Target {
        host: host.clone(),
        port: port.parse().unwrap(),
        user: "postgres".to_owned(),
        password: std::env::var("PGPASSWORD").unwrap(),
        database: site::DATABASE.to_owned(),
        slot: slot.clone(),
        publication: "lakebed".to_owned(),
        end: end.parse().unwrap(),
        low_water: low_water == "true",
    };
    consumer::consume(&target).expect("the stream");
}

fn report(options: &Options, socket: &str, runs: &[(Contestant, Run)]) {
    let of = |contestant: Contestant, figure: fn(&Run) -> f64| {
        median(runs.iter().filter(|(who, _)| *who == contestant).map(|(_, run)| figure(run)))
    };
    let limit = of(Contestant::ThrowAway, |run| run.wall_seconds);
    println!(
        "\n{} rows, transactions of {}, {socket}, medians of {}",
        options.rows, options.transaction_rows, options.rounds
    );
    println!("| what | wall s | × throw-away | rows/s | user s | kernel s | peak MiB |");
    println!("|---|---|---|---|---|---|---|");
    let mut json = Vec::new();
    for (contestant, name) in contestants() {
        let wall = of(contestant, |run| run.wall_seconds);
        let (user, kernel) = (of(contestant, |run| run.user_seconds), of(contestant, |run| run.kernel_seconds));
        let peak = of(contestant, |run| run.peak_mib);
        let rate = options.rows as f64 / wall;
        println!("| {name} | {wall:.2} | {:.2} | {rate:.0} | {user:.2} | {kernel:.2} | {peak:.0} |", wall / limit);
        json.push(serde_json::json!({
            "what": name, "wall_seconds": wall, "ratio": wall / limit, "rows_per_second": rate,
            "user_seconds": user, "kernel_seconds": kernel, "peak_mib": peak,
        }));
    }
    println!("{}", serde_json::json!({"bench": "drain", "socket": socket, "rows": options.rows, "medians": json}));
}
