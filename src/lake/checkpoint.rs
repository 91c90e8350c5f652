//! Checkpoints, written beside the stream: a reader of the log then starts there instead of at version 0.
//!
//! A checkpoint is a convenience, so its failure is a warning; the log stays readable, and the next interval tries again.

use super::error::{LakeError, one_line_without_queries};
use super::location::shown;
use crate::ops::fail_points;
use deltalake::DeltaTable;
use deltalake::checkpoints::create_checkpoint;
use deltalake::logstore::LogStoreRef;
use futures::FutureExt;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// When the next checkpoint is due, and the one being written.
#[derive(Debug)]
pub(super) struct Checkpoints {
    interval: u64,
    /// Version of the last checkpoint, begun or found.
    last: u64,
    running: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn new(last: u64, interval: u64) -> Self {
        Self { interval, last, running: None }
    }

    pub(super) fn set_interval(&mut self, interval: u64) {
        self.interval = interval.max(1);
    }

    /// Begins a checkpoint when one is due and none is being written.
    pub(super) fn after_commit(&mut self, version: u64, log_store: &LogStoreRef) {
        if let Some(ended) = self.running.as_mut().and_then(|running| running.now_or_never()) {
            self.running = None;
            warn_if_stopped(ended);
        }
        if self.running.is_some() || version.saturating_sub(self.last) < self.interval {
            return;
        }
        self.last = version;
        let log_store = log_store.clone();
        let reactor = Handle::current();
        // The checkpoint writer blocks on the store in places, so it gets a thread of its own.
        self.running =
            Some(tokio::task::spawn_blocking(move || reactor.block_on(Box::pin(write_checkpoint(log_store)))));
    }

    /// Waits for a checkpoint that is being written, for a while: an orderly end must not hang on a convenience.
    pub(super) async fn join(&mut self) {
        let Some(running) = self.running.take() else { return };
        match tokio::time::timeout(CLOSE_PATIENCE, running).await {
            Ok(ended) => warn_if_stopped(ended),
            Err(_) => tracing::warn!("a checkpoint was still being written at the end; a later one replaces it"),
        }
    }
}

fn warn_if_stopped(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "a checkpoint stopped half-way; the log stays readable and a later one replaces it");
    }
}

/// Writes a checkpoint of the newest version, for somebody who cannot do without.
///
/// # Errors
/// What the table library and the store say.
pub(super) async fn checkpoint_now(log_store: &LogStoreRef) -> Result<(), LakeError> {
    let location = shown(log_store.root_url());
    let (log_store, reactor) = (log_store.clone(), Handle::current());
    let written = tokio::task::spawn_blocking(move || reactor.block_on(Box::pin(try_checkpoint(log_store)))).await;
    written.unwrap_or_else(|error| {
        Err(LakeError::Log { location, reason: format!("writing its checkpoint stopped ({error})") })
    })
}

async fn write_checkpoint(log_store: LogStoreRef) {
    let location = shown(log_store.root_url());
    if let Err(error) = try_checkpoint(log_store).await {
        let error = one_line_without_queries(&error.to_string());
        tracing::warn!(%location, error, "no checkpoint; the log stays readable and a later one replaces it");
    }
}

/// On a handle of its own, which holds the list of files only while it works; one table at a time, because that list is the
/// largest thing that this process ever holds.
async fn try_checkpoint(log_store: LogStoreRef) -> Result<(), LakeError> {
    static TURN: Semaphore = Semaphore::const_new(1);
    let _turn = TURN.acquire().await;
    let location = shown(log_store.root_url());
    fail_points::reach("checkpoint.before");
    let mut table = DeltaTable::new(log_store);
    let written = match table.load().await {
        Ok(()) => create_checkpoint(&table, None).await,
        Err(error) => Err(error),
    };
    fail_points::reach("checkpoint.after");
    written.map_err(|error| LakeError::delta("write a checkpoint of", &location, error))?;
    tracing::debug!(%location, version = table.version(), "checkpoint written");
    Ok(())
}
