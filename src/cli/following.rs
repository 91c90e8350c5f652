//! Following until an end or a signal, for every verb that does: the pipeline itself, and how SIGTERM and SIGINT end it.

use crate::config::Pipeline;
use crate::ops::shutdown::Signals;
use crate::pipeline::{self, Totals, Until};
use crate::snapshot::Meter;
use anyhow::{Context, bail};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// After a signal, the last flush gets so long. What supervises a process (systemd, Kubernetes) kills it after 30 to 90 s, without a
/// word about why.
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    /// What was done.
    pub(super) totals: Totals,
    /// A signal ended it.
    pub(super) signalled: bool,
}

/// Runs the pipeline; transient failures are tried again. SIGTERM and SIGINT flush, acknowledge and end it, and so does `stop`. A second
/// signal is an error at once, and so is a flush that is not done 25 s after the first. `look` is called now and then, as `every` says,
/// and `beside` runs meanwhile.
pub(super) async fn follow(
    pipeline: &Pipeline,
    until: Until,
    (stop, meter): (&watch::Sender<bool>, &Arc<Meter>),
    (every, mut look): (Duration, impl FnMut()),
    beside: impl Future<Output = ()>,
) -> anyhow::Result<Followed> {
    let mut signals = Signals::listen().context("cannot take over SIGTERM and SIGINT")?;
    let mut supervised = Box::pin(pipeline::supervise(pipeline, until, stop.subscribe(), meter));
    let mut beside = pin!(async {
        beside.await;
        pending::<()>().await;
    });
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut give_up: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = &mut supervised => {
                look();
                return Ok(Followed { totals: ended?, signalled: give_up.is_some() });
            }
            () = &mut beside => {}
            _ = ticks.tick() => look(),
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
