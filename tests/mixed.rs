//! D3, L1, L2: thousands of mixed transactions on both of the customer's tables and on a plain one, while lakebed is stopped and killed;
//! after every flush the lake equals the source, row by row, and the journals hold the old images of what happened.
//!
//! A seed decides what is written. `LAKEBED_MIXED_SEED` replays one, `LAKEBED_MIXED_TRANSACTIONS` makes a run longer.

mod follower;
mod generate;
mod journal;
mod model;
mod row;
mod world;

use lakebed::demo::ServerKind;
use world::World;

/// Transactions between two comparisons.
const STEP: u64 = 60;
const TRANSACTIONS: u64 = 1_020;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

async fn mixed(server: ServerKind, work_mem: &str) {
    let seed = from_environment("LAKEBED_MIXED_SEED", u64::from(rand::random::<u32>()));
    let transactions = from_environment("LAKEBED_MIXED_TRANSACTIONS", TRANSACTIONS);
    eprintln!("LAKEBED_MIXED_SEED={seed}");
    let mut world = World::start(server, seed, work_mem).await;
    for _ in 0..transactions.div_ceil(STEP) {
        world.step(STEP).await;
    }
    world.end().await;
}

/// Whatever is larger than 64 kB is streamed.
#[tokio::test]
async fn d3_mixed_transactions_leave_lake_and_source_equal_on_postgresql_15() {
    mixed(ServerKind::Debian15, "64kB").await;
}

#[tokio::test]
async fn d3_mixed_transactions_leave_lake_and_source_equal_on_postgresql_18() {
    mixed(ServerKind::postgres_18().unwrap(), "256kB").await;
}
