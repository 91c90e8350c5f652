//! `lakebed run`: follow the WAL into the lake, until a signal or until caught up.

use super::Exit;
use crate::config::Pipeline;
use crate::ops::shutdown::Signals;
use crate::pipeline::{self, Until};
use anyhow::{Context, bail};
use std::future::pending;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// After a signal, the last flush gets so long. What supervises a process (systemd, Kubernetes) kills it after 30 to 90 s, without a
/// word about why.
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// End with code 0 as soon as everything committed before the start is durable in the lake
    #[arg(long)]
    until_caught_up: bool,
}

/// Runs the pipeline; transient failures are tried again. SIGTERM and SIGINT flush, acknowledge and end with code 0. A second signal
/// ends at once with code 1, and so does a flush that is not done 25 s after the first.
pub(super) async fn run(args: &RunArgs, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot take over SIGTERM and SIGINT")?;
    let until = if args.until_caught_up { Until::CaughtUp } else { Until::Signalled };
    let (stop, stopped) = watch::channel(false);
    let mut archive = pin!(async {
        // Who waits for the end wants the stream alone.
        if until == Until::Signalled {
            pipeline::keep_archive(pipeline, stopped.clone()).await;
        }
        pending::<()>().await;
    });
    let meter = crate::snapshot::Meter::default();
    let mut supervised = pin!(pipeline::supervise(pipeline, until, stopped.clone(), &meter));
    let mut give_up: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = &mut supervised => {
                let totals = ended?;
                tracing::info!(rows = totals.rows, flushes = totals.flushes, "done");
                return Ok(Exit::Done);
            }
            () = &mut archive => {}
            signal = signals.next() => {
                if give_up.is_some() {
                    bail!("stopped at once by a second {signal}: what was not acknowledged is sent again at the next start");
                }
                give_up = Some(Instant::now() + STOP_WITHIN);
                tracing::info!(signal, "flushing and acknowledging before the end");
                stop.send_replace(true);
            }
            () = until_then(give_up) => bail!(
                "the last flush was not done {} s after the signal (is the store or PostgreSQL not answering?): nothing acknowledged is \
                 lost, and what was not acknowledged is sent again at the next start",
                STOP_WITHIN.as_secs()
            ),
        }
    }
}

async fn until_then(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
