//! Waiting for a store that fails for now, without losing what is held for it.

use super::error::LakeError;
use crate::base::{Backoff, Classify, RetryClass};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The wait after the first failure; a store's own client has tried several times before it fails.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait is longer: a store that is back is noticed within this time.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Between two lines of the log about the same outage.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long to wait for a store that fails transiently: until it works again, or until the owner gives up. Clones share the owner's
/// word.
#[derive(Clone, Debug)]
pub struct Patience {
    /// `None`: no patience at all.
    given_up: Option<watch::Receiver<bool>>,
    /// Another reason to give up, which may pass.
    hurried: Option<watch::Receiver<bool>>,
    /// An outage that lasts longer is handed on.
    at_most: Option<Duration>,
}

impl Patience {
    /// Every error is handed on at once.
    pub fn none() -> Self {
        Self { given_up: None, hurried: None, at_most: None }
    }

    /// Transient errors are waited out until `given_up` becomes true, or its sender is gone.
    pub fn until(given_up: watch::Receiver<bool>) -> Self {
        Self { given_up: Some(given_up), hurried: None, at_most: None }
    }

    /// The same, but errors are also handed on while `hurried` is true.
    pub fn unless_hurried(&self, hurried: watch::Receiver<bool>) -> Self {
        Self { hurried: Some(hurried), ..self.clone() }
    }

    /// The same, but an outage is waited out for so long at most.
    pub fn at_most(self, limit: Duration) -> Self {
        Self { at_most: Some(limit), ..self }
    }

    /// Whether errors are handed on for now.
    pub fn is_hurried(&self) -> bool {
        self.hurried.as_ref().is_some_and(|hurried| *hurried.borrow())
    }

    /// Whether the owner has given up for good.
    pub fn is_over(&self) -> bool {
        self.given_up.as_ref().is_none_or(|given_up| *given_up.borrow())
    }

    /// Waits for something other than the store, since `since`; false when nobody waits any more.
    pub(super) async fn pause(&self, since: Instant, wait: Duration) -> bool {
        let overdue = self.at_most.is_some_and(|limit| since.elapsed() >= limit);
        if overdue || self.is_over() || self.is_hurried() {
            return false;
        }
        let mut words = self.clone();
        tokio::select! {
            () = comes_true(words.given_up.as_mut()) => false,
            () = comes_true_in_time(words.hurried.as_mut()) => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// A new outage, to be asked before each further attempt at one operation.
    pub(super) fn begin(&self) -> Waiting {
        Waiting { patience: self.clone(), backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT), since: None, reported: None }
    }
}

/// The attempts at one operation.
pub(super) struct Waiting {
    patience: Patience,
    backoff: Backoff,
    since: Option<Instant>,
    reported: Option<Instant>,
}

impl Waiting {
    /// Waits, and returns nothing when the operation is to be tried again; hands the error back when it is definite or nobody
    /// waits any more. Cancel-safe.
    pub(super) async fn wait_out(&mut self, error: LakeError) -> Result<(), LakeError> {
        let hopeless = error.retry_class() == RetryClass::Definite || self.patience.is_over();
        if hopeless || self.patience.is_hurried() {
            return Err(error);
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.patience.at_most.is_some_and(|limit| now - since >= limit) {
            return Err(error);
        }
        if self.reported.is_none_or(|reported| now - reported >= REPORT_INTERVAL) {
            self.reported = Some(now);
            tracing::warn!(%error, "the store fails for now; everything is kept and tried again");
        }
        let wait = self.backoff.next(rand::random());
        tokio::select! {
            () = comes_true(self.patience.given_up.as_mut()) => Err(error),
            () = comes_true_in_time(self.patience.hurried.as_mut()) => Err(error),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// The operation worked.
    pub(super) fn worked(self, location: &str) {
        if let Some(since) = self.since {
            tracing::info!(location, outage_seconds = since.elapsed().as_secs_f64(), "the store works again");
        }
    }
}

/// Completes when the word is given, or nobody is left to give it; never, where nobody was asked.
async fn comes_true(word: Option<&mut watch::Receiver<bool>>) {
    match word {
        Some(word) => drop(word.wait_for(|given| *given).await),
        None => std::future::pending().await,
    }
}

/// The same, but who is gone has nothing more to say.
async fn comes_true_in_time(word: Option<&mut watch::Receiver<bool>>) {
    if let Some(word) = word
        && word.wait_for(|given| *given).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::StoreFault;

    fn outage(fault: StoreFault) -> LakeError {
        LakeError::Store { doing: "write to", location: "s3://lake".to_owned(), fault, detail: String::new() }
    }

    #[tokio::test]
    async fn an_outage_is_waited_out_until_the_owner_gives_up() {
        let (give_up, given_up) = watch::channel(false);
        let patience = Patience::until(given_up);
        let mut waiting = patience.begin();
        waiting.wait_out(outage(StoreFault::Unreachable)).await.unwrap();
        waiting.wait_out(outage(StoreFault::Unreachable)).await.unwrap();
        let (outcome, ()) = futures::join!(waiting.wait_out(outage(StoreFault::Unreachable)), async {
            give_up.send_replace(true);
        });
        assert!(outcome.is_err(), "a wait ends when the owner gives up");
        assert!(patience.begin().wait_out(outage(StoreFault::Unreachable)).await.is_err());
    }

    #[tokio::test]
    async fn a_definite_error_is_not_waited_for() {
        let (_give_up, given_up) = watch::channel(false);
        assert!(Patience::until(given_up).begin().wait_out(outage(StoreFault::Denied)).await.is_err());
        assert!(Patience::none().begin().wait_out(outage(StoreFault::Unreachable)).await.is_err());
    }
}
