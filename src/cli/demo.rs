//! `lakebed demo`: a throw-away PostgreSQL, the first customer's tables, and the whole way into a lake.

use super::Exit;
use crate::demo::tour::{self, Screen, TourOptions};
use crate::ops::shutdown::Signals;
use anyhow::Context;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Stay up, with the live stream running, until Ctrl-C, and print how to connect
    #[arg(long)]
    keep: bool,
    /// Rows of history, of both tables together
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    rows: u64,
    /// Days that the history spans
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=1000))]
    days: u32,
    /// How long rows are inserted one by one after the history
    #[arg(long, value_name = "N", default_value_t = 15)]
    live_seconds: u64,
    /// The same seed makes the same history
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Put lake, pipeline file and log here, and leave them; a folder that is new, empty or of an earlier demo
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Shows the demo. SIGINT and SIGTERM stop everything that it started.
pub(super) async fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot take over SIGTERM and SIGINT")?;
    let options = TourOptions {
        rows: args.rows,
        history_days: args.days,
        live_seconds: args.live_seconds,
        seed: args.seed,
        directory: args.directory.clone(),
        keep: args.keep,
    };
    let out = std::io::stdout();
    let is_terminal = out.is_terminal();
    let mut screen = Screen::new(Box::new(out), is_terminal);
    let interrupted = async {
        signals.next().await;
    };
    tour::run(&options, &mut screen, interrupted).await?;
    Ok(Exit::Done)
}
