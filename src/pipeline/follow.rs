//! The following stage: WAL frames → transactions → Arrow batches, and the decision when to flush.

use super::PipelineError;
use super::aside::{Aside, CopyOrder, DayRules};
use super::catalog::Catalog;
use super::in_progress::InProgress;
use super::land::LandCommand;
use super::limits::Limits;
use super::routes::Routes;
use super::skips::Skips;
use super::transaction::Progress;
use crate::base::{Lsn, TableShape};
use crate::buffer::TableBuffer;
use crate::decode::{self, Relation};
use crate::lake::SourceRelation;
use crate::ops::fail_points;
use crate::source::Pressure;
use crate::wal::{ReplicationStream, WalBatch, WalFrame};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant as StdInstant;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// One table as the stream fills it.
pub(super) struct Following {
    pub(super) shape: Arc<TableShape>,
    pub(super) buffer: TableBuffer,
    /// The lake holds every transaction up to here (L1); the server may send them again.
    pub(super) recorded: Lsn,
    /// It stands still: its rows are passed by.
    pub(super) parked: bool,
    /// What cannot be taken parks it, and does not stop the pipeline.
    pub(super) may_park: bool,
    /// A TRUNCATE of it is applied, and not refused.
    pub(super) may_be_emptied: bool,
    /// The table of the server that the lake's was fed from.
    pub(super) source: Option<SourceRelation>,
    /// The transaction that brought another one, until the order to commit it is given.
    pub(super) emptied_by: Option<u32>,
    /// When the relation came that `buffer` is bound to, among all RELATIONs of the stream.
    pub(super) described: u64,
    /// That relation.
    pub(super) relation: Option<Relation>,
    /// Days that are copied from PostgreSQL, now or later.
    pub(super) days: DayRules,
}

impl Following {
    /// Whether it takes no part in the transaction that commits there: the lake holds it already, or the table stands still.
    #[inline]
    pub(super) fn is_excluded(&self, commit_lsn: Lsn) -> bool {
        self.parked || commit_lsn < self.recorded
    }
}

/// The stage's state; the stream itself is handed to [`Follow::run`].
pub(super) struct Follow {
    pub(super) tables: Vec<Following>,
    pub(super) routes: Routes,
    pub(super) land: mpsc::Sender<LandCommand>,
    pub(super) durable: watch::Receiver<Lsn>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) pressure: watch::Receiver<Pressure>,
    pub(super) limits: Limits,
    /// Prefix and content of the message that marks the WAL's end at start.
    pub(super) marker: Option<Marker>,
    pub(super) progress: Progress,
    pub(super) in_progress: InProgress,
    pub(super) skips: Skips,
    pub(super) catalog: Catalog,
    /// From the stage that copies days.
    pub(super) orders: mpsc::Receiver<CopyOrder>,
    /// The copy that is on its way.
    pub(super) aside: Option<Aside>,
    /// Set at an orderly end, if the pipeline is to start again at once.
    pub(super) again: Arc<AtomicBool>,
    /// Counts RELATIONs.
    pub(super) relations: u64,
}

/// A logical message of our own: when it comes back, everything committed before it has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) prefix: &'static str,
    pub(super) content: String,
}

/// Why the loop left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Stopped,
    CaughtUp,
    /// The stream is to be asked for anew: days are copied from here on, or are not any more.
    Again,
}

impl Follow {
    /// Runs until stopped, caught up, or failed. Whole transactions are flushed and acknowledged before an orderly end, and also
    /// before the end that a transaction causes which cannot be taken: each start would give them up again otherwise.
    pub(super) async fn run(mut self, mut stream: ReplicationStream) -> Result<(), PipelineError> {
        let outcome = self.follow(&mut stream).await;
        if outcome.as_ref().is_err_and(|error| !error.is_about_the_streams_content()) {
            return outcome.map(drop);
        }
        if let Err(error) = &outcome {
            tracing::info!(%error, "keeping what was committed before this");
        }
        fail_points::reach("shutdown.before_flush");
        self.flush_ended().await?;
        self.wait_until_durable().await?;
        self.acknowledge_idle();
        self.wait_until_durable().await?;
        fail_points::reach("shutdown.after_flush");
        let left = usize::from(self.progress.open.is_some()) + self.in_progress.len();
        if left > 0 {
            tracing::info!(transactions = left, "left to the next start: nothing of them was acknowledged");
        }
        drop(self.land);
        let finished = stream.finish().await;
        let leave = outcome?;
        finished?;
        self.again.store(leave == Leave::Again, Ordering::Relaxed);
        tracing::info!(reason = ?leave, "stream ended");
        Ok(())
    }

    async fn follow(&mut self, stream: &mut ReplicationStream) -> Result<Leave, PipelineError> {
        loop {
            if *self.stop.borrow() {
                return Ok(Leave::Stopped);
            }
            let limits = self.limits.under(*self.pressure.borrow());
            let flush_at = self.progress.flush_deadline(limits.max_age).map(Instant::from_std);
            let durable = *self.durable.borrow();
            let idle_at = self.progress.idle_deadline(durable, limits.max_age).map(Instant::from_std);
            tokio::select! {
                batch = stream.next() => match batch? {
                    Some(batch) => if let Some(leave) = self.batch(&batch).await? {
                        return Ok(leave);
                    },
                    None => return Err(PipelineError::ServerStopped),
                },
                () = until(flush_at) => self.flush().await?,
                () = until(idle_at) => self.acknowledge_idle(),
                changed = self.stop.changed() => {
                    changed.map_err(|_| PipelineError::StageGone { stage: "supervisor" })?;
                }
                // Deadlines are computed anew. A governor that was stopped has no more to say.
                Ok(()) = self.pressure.changed() => {}
                changed = self.durable.changed() => changed.map_err(|_| LAND_GONE)?,
                () = self.land.closed() => return Err(LAND_GONE),
                Some(order) = self.orders.recv() => if let Some(leave) = self.obey(order).await? {
                    return Ok(leave);
                },
            }
        }
    }

    /// Takes every frame of a batch, or those before the one that ends the run.
    async fn batch(&mut self, batch: &WalBatch) -> Result<Option<Leave>, PipelineError> {
        for frame in batch.frames() {
            match frame? {
                WalFrame::Keepalive { end, reply_requested } => {
                    self.progress.sent(end);
                    // A server that shuts down asks until everything it sent is acknowledged; a healthy one has no reason to.
                    if reply_requested {
                        self.flush().await?;
                        self.acknowledge_idle();
                    }
                }
                WalFrame::Data { start, payload, .. } => {
                    if let Some(leave) = self.data(start, payload).await? {
                        return Ok(Some(leave));
                    }
                }
            }
        }
        self.bound_what_waits_for_the_floor().await?;
        self.make_room_inside_a_transaction().await?;
        Ok(None)
    }

    /// Takes one message of pgoutput.
    #[inline]
    pub(super) async fn data(&mut self, start: Lsn, payload: &[u8]) -> Result<Option<Leave>, PipelineError> {
        let in_block = self.in_progress.in_block();
        match decode::parse(payload, in_block) {
            Ok(message) if in_block => self.message_in_block(start, payload.len(), message).await.map(|()| None),
            Ok(message) => self.message(start, payload.len(), message).await,
            Err(error) => self.undecodable(start, payload, error).map(|()| None),
        }
    }

    /// Tells the server that it may forget everything that it has sent, if nothing of that is on its way (W1): the lake notes
    /// the position first, so the order goes to `land`. A full queue means that something is.
    pub(super) fn acknowledge_idle(&mut self) {
        let Some(at) = self.progress.idle_position(*self.durable.borrow()) else { return };
        let asked = self.land.try_send(LandCommand::Idle { at }).is_ok();
        self.progress.idle_asked(asked.then_some(at));
    }

    async fn wait_until_durable(&mut self) -> Result<(), PipelineError> {
        let target = self.progress.on_its_way();
        self.durable.wait_for(|durable| *durable >= target).await.map_err(|_| LAND_GONE)?;
        Ok(())
    }

    /// Whether what waits should wait no longer.
    pub(super) fn flush_is_due(&self) -> bool {
        let limits = self.limits.under(*self.pressure.borrow());
        self.progress.flush_is_due(limits.flush_bytes, limits.max_age, StdInstant::now())
    }
}

pub(super) const LAND_GONE: PipelineError = PipelineError::StageGone { stage: "land" };

/// Completes at the instant; never, without one.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
