//! `scripts/soak MINUTES`: a mixed load on one PostgreSQL, followed into a local lake and into one on a real S3 server, while lakebed,
//! PostgreSQL and the store are killed, stopped, paused and cut off at random; at the end an oracle compares every row.
//!
//! What counts as a failure: a lakebed that ends by anything but our signal, a panic, a line at level ERROR, a difference between
//! lake and source, a file that nobody will ever read or remove. The folder is kept then, and its path printed.
//!
//! The seed decides the load and the order and kinds of the faults; when they strike depends on the machine.

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
    clippy::large_futures,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods
)]

#[path = "soak/changes.rs"]
mod changes;
#[path = "soak/chaos.rs"]
mod chaos;
#[path = "soak/keeper.rs"]
mod keeper;
#[path = "soak/options.rs"]
mod options;
#[path = "soak/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "retry/table_log.rs"]
mod table_log;
#[path = "soak/world.rs"]
mod world;
#[path = "soak/writers.rs"]
mod writers;

use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match Options::from_arguments() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("soak: {options}");
    runtime.block_on(soak(&options))
}

async fn soak(options: &Options) -> ExitCode {
    let mut world = world::World::start(options).await;
    println!("soak: everything is in {}", world.folder().display());
    let mut outcome = world.suffer(options).await;
    if outcome.is_ok() {
        outcome = world.judge().await;
    }
    println!("{}", world.report());
    match outcome {
        Ok(()) => {
            world.remove().await;
            println!("soak: balanced");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            let folder = world.folder().to_owned();
            world.stop().await;
            println!("soak: FAILED, {reason}\nsoak: {options}, everything is left in {}", folder.display());
            ExitCode::FAILURE
        }
    }
}
