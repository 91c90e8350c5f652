//! Keeping a pipeline up: what fails transiently is started again, what fails definitely is the end, and a stop ends either.
//!
//! A lost connection to PostgreSQL takes the whole pipeline with it, by design: what was not acknowledged is sent again, so a start
//! from nothing is the one way back that needs no thought about what was half done. The lake's own outages are not seen here: the
//! landing stage waits them out while the stream goes on answering.

use super::{PipelineError, Running, Totals, Until, start};
use crate::base::{Backoff, Classify, RetryClass};
use crate::config::Pipeline;
use crate::snapshot::Meter;
use crate::wal::WalError;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The wait after the first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A pipeline that lived so long has made progress, even if there was nothing to land.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// Until caught up, somebody waits for the end: so long without progress is an end, too.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);
/// So often the server may fail inside its own decoding before anything lands: its faults of a moment pass, the others do not.
const NOT_DECODED_MAX: u32 = 5;

/// Follows until the end that `until` names, or until `stop` becomes true (or its sender is gone), and returns what was done in all.
///
/// Transient failures, also of the first start (a sidecar boots before its database), are said with a WARN and tried again after a
/// jittered wait of 0.5 s to 30 s, which starts anew once the stream has made progress. Until caught up, 60 s of them without progress
/// are enough. A fault inside the server's decoding is tried again a few times. A slot that somebody else holds when the first start looks is no such failure: one slot serves one consumer. A stop
/// during a start or a wait ends at once; during a run, when everything whole has landed and is acknowledged.
///
/// Dropping the future ends every stage where it is; what was not acknowledged is sent again at the next start.
///
/// # Errors
/// The first definite error; the last transient one when patience ends, or when a stop was asked for already.
pub async fn supervise(
    pipeline: &Pipeline,
    until: Until,
    mut stop: watch::Receiver<bool>,
    meter: &Meter,
) -> Result<Totals, PipelineError> {
    let mut all = Totals::default();
    let mut attempts = Attempts::new(until, Instant::now());
    // Once values came that are decoded as text only, their column may be gone again before the catalog is looked at.
    let mut text_only = false;
    loop {
        let started = tokio::select! {
            started = Box::pin(start(pipeline, until, text_only, meter)) => started,
            () = asked(&mut stop) => {
                tracing::info!("stopped before the stream began");
                return Ok(all);
            }
        };
        let error = match started {
            Ok(running) => {
                let began = Instant::now();
                let (outcome, done, again) = run_to_end(running, &mut stop).await;
                all = Totals { rows: all.rows + done.rows, flushes: all.flushes + done.flushes };
                attempts.ran(began.elapsed(), done);
                match outcome {
                    Ok(()) if again && !*stop.borrow() => {
                        // Whatever asks for it again and again must not keep the server busy.
                        let wait = attempts.again(rand::random());
                        tokio::select! {
                            () = sleep(wait) => continue,
                            () = asked(&mut stop) => return Ok(all),
                        }
                    }
                    Ok(()) => return Ok(all),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        text_only |= matches!(error, PipelineError::BinaryNotUnderstood { .. });
        let Some(wait) = attempts.failed(&error, Instant::now(), rand::random()) else { return Err(error) };
        if *stop.borrow() {
            return Err(error);
        }
        tracing::warn!(%error, wait_seconds = wait.as_secs_f64(), "not following for now; starting again");
        tokio::select! {
            () = sleep(wait) => {}
            () = asked(&mut stop) => {
                tracing::info!("stopped while waiting to start again");
                return Ok(all);
            }
        }
    }
}

/// Runs until every stage has ended; whether it is to start again at once, too. What was done counts even when it ends badly.
async fn run_to_end(
    mut running: Running,
    stop: &mut watch::Receiver<bool>,
) -> (Result<(), PipelineError>, Totals, bool) {
    let totals = running.totals.clone();
    let outcome = tokio::select! {
        ended = running.ended() => Some(ended),
        () = asked(stop) => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            running.request_stop();
            running.ended().await
        }
    };
    let done = *totals.borrow();
    (outcome.map(drop), done, running.is_to_start_again())
}

/// Whoever could ask and has gone, has asked.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Decides whether a failure is tried again, and when.
#[derive(Debug)]
struct Attempts {
    until: Until,
    backoff: Backoff,
    /// The start, or the end of the last run that made progress.
    progress: Instant,
    /// Whether a pipeline has run at all: from then on, a held slot is likely still held by our own lost connection.
    has_run: bool,
    /// How often the server could not decode since something landed.
    not_decoded: u32,
    /// How often the pipeline itself asked for another start since it made progress.
    asked_again: u32,
}

impl Attempts {
    fn new(until: Until, now: Instant) -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        Self { until, backoff, progress: now, has_run: false, not_decoded: 0, asked_again: 0 }
    }

    fn ran(&mut self, lived: Duration, done: Totals) {
        self.has_run = true;
        if done.flushes > 0 {
            self.not_decoded = 0;
        }
        if done.flushes > 0 || lived >= SETTLED_AFTER {
            self.progress = Instant::now();
            self.asked_again = 0;
            self.backoff.reset();
        }
    }

    /// The wait before a start that the pipeline itself asked for; none for the first since the stream made progress.
    fn again(&mut self, jitter: f64) -> Duration {
        let wait = if self.asked_again == 0 { Duration::ZERO } else { self.backoff.next(jitter) };
        self.asked_again += 1;
        wait
    }

    /// The wait before the next attempt, or `None` when this was the last.
    fn failed(&mut self, error: &PipelineError, now: Instant, jitter: f64) -> Option<Duration> {
        let worth_it = match error {
            PipelineError::SlotHeld { .. } => self.has_run,
            PipelineError::Wal(WalError::NotDecoded { .. }) => {
                self.not_decoded += 1;
                self.not_decoded <= NOT_DECODED_MAX
            }
            // A defect of ours would only come again, unseen among the warnings.
            PipelineError::StagePanicked { .. } => false,
            error => error.retry_class() == RetryClass::Transient,
        };
        if !worth_it {
            return None;
        }
        let patience = match self.until {
            Until::Signalled | Until::Copied => Duration::MAX,
            Until::CaughtUp => CATCH_UP_PATIENCE.saturating_sub(now.duration_since(self.progress)),
        };
        // The last attempt is made when patience ends, and not before.
        (patience > Duration::ZERO).then(|| self.backoff.next(jitter).min(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::ServerError;

    fn lost() -> PipelineError {
        PipelineError::ServerStopped
    }

    fn held() -> PipelineError {
        PipelineError::SlotHeld { slot: "lakebed".to_owned(), holder: "process 7".to_owned() }
    }

    fn waits(attempts: &mut Attempts, times: usize) -> Vec<u128> {
        let now = Instant::now();
        (0..times).filter_map(|_| attempts.failed(&lost(), now, 1.0)).map(|wait| wait.as_millis()).collect()
    }

    #[tokio::test]
    async fn waits_grow_until_the_stream_made_progress() {
        let mut attempts = Attempts::new(Until::Signalled, Instant::now());
        assert_eq!(waits(&mut attempts, 8), [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        attempts.ran(Duration::from_secs(1), Totals::default());
        assert_eq!(waits(&mut attempts, 1), [30_000], "a start alone is no progress");
        attempts.ran(Duration::from_secs(1), Totals { rows: 1, flushes: 1 });
        assert_eq!(waits(&mut attempts, 1), [500]);
        attempts.ran(SETTLED_AFTER, Totals::default());
        assert_eq!(waits(&mut attempts, 1), [500]);
    }

    #[tokio::test]
    async fn whoever_asks_for_another_start_gets_the_first_at_once_and_further_ones_later() {
        let mut attempts = Attempts::new(Until::Signalled, Instant::now());
        let again = |attempts: &mut Attempts| attempts.again(1.0).as_millis();
        assert_eq!([again(&mut attempts), again(&mut attempts), again(&mut attempts)], [0, 500, 1000]);
        attempts.ran(Duration::from_secs(1), Totals { rows: 1, flushes: 1 });
        assert_eq!(again(&mut attempts), 0);
    }

    #[tokio::test]
    async fn what_is_definite_is_not_tried_again() {
        let mut attempts = Attempts::new(Until::Signalled, Instant::now());
        let now = Instant::now();
        let definite = PipelineError::SlotUnusable { problem: "lost".to_owned() };
        assert_eq!(attempts.failed(&definite, now, 1.0), None);
        assert_eq!(attempts.failed(&PipelineError::StagePanicked { stage: "land" }, now, 1.0), None);
        assert_eq!(attempts.failed(&held(), now, 1.0), None, "another consumer");
        attempts.ran(Duration::ZERO, Totals::default());
        assert!(attempts.failed(&held(), now, 1.0).is_some(), "perhaps our own lost connection");
    }

    #[tokio::test]
    async fn a_fault_of_the_servers_decoding_is_tried_again_a_few_times() {
        let mut attempts = Attempts::new(Until::Signalled, Instant::now());
        let server = ServerError { sqlstate: "XX000".to_owned(), message: "could not map filenumber".to_owned() };
        let fault = PipelineError::Wal(WalError::NotDecoded { server });
        for landed in [0, 1] {
            attempts.ran(SETTLED_AFTER, Totals { rows: landed, flushes: landed });
            let now = Instant::now();
            let tried = (0..10).filter(|_| attempts.failed(&fault, now, 1.0).is_some()).count();
            assert_eq!(tried, 5, "only what lands counts");
        }
        attempts.ran(SETTLED_AFTER, Totals::default());
        assert_eq!(attempts.failed(&fault, Instant::now(), 1.0), None);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_does_not_wait_for_ever() {
        let begun = Instant::now();
        for (until, patient) in [(Until::CaughtUp, false), (Until::Signalled, true)] {
            let mut attempts = Attempts::new(until, begun);
            assert!(attempts.failed(&lost(), begun + CATCH_UP_PATIENCE / 2, 1.0).is_some());
            let shortly_before = begun + CATCH_UP_PATIENCE - Duration::from_millis(1);
            let last = attempts.failed(&lost(), shortly_before, 1.0).unwrap();
            assert_eq!(last > Duration::from_millis(1), patient, "the last attempt is at the end of patience");
            assert_eq!(attempts.failed(&lost(), begun + CATCH_UP_PATIENCE, 1.0).is_some(), patient);
        }
    }
}
