//! `lakebed run`: follow the WAL into the lake, until a signal or until caught up. Days that are not copied yet are copied meanwhile.

use super::Exit;
use super::following::follow;
use crate::config::Pipeline;
use crate::pipeline::{self, Until};
use crate::snapshot::{Figures, Meter};
use bytesize::ByteSize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the log says how a copy goes.
const COPY_SAID_EVERY: Duration = Duration::from_secs(10);

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
    let until = if args.until_caught_up { Until::CaughtUp } else { Until::Signalled };
    let (stop, stopped) = watch::channel(false);
    let archive = async {
        // Who waits for the end wants the stream alone.
        if until == Until::Signalled {
            pipeline::keep_archive(pipeline, stopped).await;
        }
    };
    let meter = Arc::new(Meter::default());
    let mut copy = CopyLog::default();
    let look = || copy.look(&meter.figures());
    let following = follow(pipeline, until, (&stop, &meter), (COPY_SAID_EVERY, look), archive);
    let followed = Box::pin(following).await?;
    let totals = followed.totals;
    tracing::info!(rows = totals.rows, flushes = totals.flushes, "done");
    Ok(Exit::Done)
}

/// What the log said last of a copy.
#[derive(Debug, Default)]
struct CopyLog {
    said: Option<(u64, u64, u64)>,
}

impl CopyLog {
    /// Says it if something moved.
    fn look(&mut self, figures: &Figures) {
        let now = (figures.days_done, figures.days_total, figures.rows);
        if figures.days_total == 0 || self.said == Some(now) {
            return;
        }
        self.said = Some(now);
        let (days_done, days, rows, phase) =
            (figures.days_done, figures.days_total, figures.rows, figures.phase.text());
        let size = ByteSize(figures.bytes);
        if days_done < days {
            tracing::info!(days_done, days, rows, %size, phase, "copying what exists already");
        } else {
            tracing::info!(days, rows, %size, "what existed already is copied");
        }
    }
}
