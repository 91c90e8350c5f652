//! The only place where stages meet: WAL → rows → lake, and the acknowledgement that flows back.
//!
//! ```text
//!            bytes                 PartitionBatch / Commit              Durable(lsn)
//!  socket ───────────▶ follow ───────────────────────────▶ land ─────────────────────▶ feedback to the server
//!  (wal)     bounded   (decode, buffer)       bounded      (encode, upload, commit)
//! ```
//!
//! `start` looks at both ends before anything moves, and refuses what cannot end well. `follow` turns transactions into
//! Arrow batches and decides when to flush, always cut at a transaction's end (B1). `land` writes files, makes one Delta commit a
//! table and flush, and only then acknowledges (W1): the position it passes on comes out of a [`crate::lake::Durable`], which
//! nothing else can make. Every queue between them is bounded, so a slow store is felt by the socket's reader, which keeps
//! answering the server meanwhile (W3).
//!
//! Beside the stream, [`keep_archive`] balances and drops what partman detached; it ends nothing, and needs only the slot's position.
//!
//! Shutdown is owned here: a signal, or being caught up, ends `follow` behind the last whole transaction; its queue closes, `land`
//! commits what it was given and ends. A stage that fails ends the whole with its reason, whatever the other was doing.

mod agenda;
mod archive;
mod archivist;
mod aside;
#[cfg(test)]
mod aside_test;
mod blocks;
mod catalog;
mod changes;
mod columns;
mod copied;
mod copier;
mod ends;
mod error;
mod follow;
mod governor;
mod in_progress;
#[cfg(test)]
mod in_progress_test;
mod inflow;
mod kept;
#[cfg(test)]
mod lake_model_test;
mod land;
mod landing;
mod limits;
mod lineage;
mod recreated;
mod refusal;
#[cfg(test)]
pub(crate) mod remedy_test;
mod repair;
mod reshape;
mod room;
mod routes;
mod skips;
mod start;
mod supervise;
mod transaction;

pub use archive::{Archive, Round, TableArchive};
pub use archivist::keep_archive;
pub use copier::archived_of;
pub use ends::table_rules;
pub use error::PipelineError;
pub use lineage::{Descent, Lineage, LineageError, Recorded, TableMark, judge};
pub use repair::{CopyAgain, Rehearsal, RepairDay};
pub use start::start;
pub use supervise::supervise;

use crate::ops::tasks::{StageFailure, Stages};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// When `run` ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Only on a signal.
    Signalled,
    /// When everything committed before the start is durable in the lake.
    CaughtUp,
    /// When no day of any table has to be copied any more.
    Copied,
}

/// What a run did, for the last line of its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows that became durable in the lake.
    pub rows: u64,
    /// Flushes, each one Delta commit for every table it touched.
    pub flushes: u64,
}

/// A pipeline whose stages are running.
#[derive(Debug)]
pub struct Running {
    stages: Stages<PipelineError>,
    stop: watch::Sender<bool>,
    /// True as soon as a stage has failed: nobody waits for a store any more.
    patience: watch::Sender<bool>,
    totals: watch::Receiver<Totals>,
    /// An orderly end was a pause: the pipeline is to start again at once.
    again: Arc<AtomicBool>,
    /// The first failure that is a reason and not its consequence; kept here so that [`Running::ended`] is cancel-safe.
    failure: Option<PipelineError>,
}

impl Running {
    /// Asks the stages to flush, acknowledge and end. [`Self::ended`] says when they have.
    pub fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether the orderly end was asked for by the pipeline itself, to start again in another way.
    pub(crate) fn is_to_start_again(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    /// Waits until every stage has ended, and returns what was done or why it failed. Cancel-safe: call it again.
    ///
    /// A stage whose neighbour is gone ends with [`PipelineError::StageGone`]; the neighbour's own error is the reason. The
    /// others are awaited even after a failure: each ends by itself once a neighbour is gone, and a flush on its way lands.
    pub async fn ended(&mut self) -> Result<Totals, PipelineError> {
        while let Some((stage, end)) = self.stages.next_end().await {
            // One that ended, however it did, needs no governor and no neighbour.
            self.stop.send_replace(true);
            let error = match end {
                Ok(()) => continue,
                Err(StageFailure::Failed(error)) => error,
                Err(StageFailure::Panicked { stage }) => PipelineError::StagePanicked { stage },
            };
            tracing::debug!(stage, %error, "a stage failed; waiting for the others");
            // Nothing that waits for a store now can be acknowledged any more: the server sends it again to the next start, and
            // until then nobody watches the slot.
            self.patience.send_replace(true);
            if self.failure.as_ref().is_none_or(|known| matches!(known, PipelineError::StageGone { .. })) {
                self.failure = Some(error);
            }
        }
        match self.failure.take() {
            Some(error) => Err(error),
            None => Ok(*self.totals.borrow()),
        }
    }
}
