//! `lakebed run`: follow the WAL into the lake, until a signal or until caught up.

use super::Exit;
use crate::config::Pipeline;
use crate::ops::shutdown::Signals;
use crate::pipeline::{self, Until};
use anyhow::Context;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// End with code 0 as soon as everything committed before the start is durable in the lake
    #[arg(long)]
    until_caught_up: bool,
}

/// Runs the pipeline. SIGTERM and SIGINT flush, acknowledge and end with code 0; a second one ends at once with code 1.
pub(super) async fn run(args: &RunArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot take over SIGTERM and SIGINT")?;
    let until = if args.until_caught_up { Until::CaughtUp } else { Until::Signalled };
    let mut running = tokio::select! {
        started = pipeline::start(pipeline, until) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the stream began");
            return Ok(Exit::Done);
        }
    };
    let mut asked = false;
    loop {
        tokio::select! {
            ended = running.ended() => {
                let totals = ended?;
                tracing::info!(rows = totals.rows, flushes = totals.flushes, "done");
                return Ok(Exit::Done);
            }
            signal = signals.next() => {
                anyhow::ensure!(!asked, "stopped at once by a second {signal}: what was not acknowledged is sent again at the next start");
                asked = true;
                tracing::info!(signal, "flushing and acknowledging before the end");
                running.request_stop();
            }
        }
    }
}
