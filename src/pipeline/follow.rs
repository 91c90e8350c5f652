//! The following stage: WAL frames → transactions → Arrow batches, and the decision when to flush.

use super::PipelineError;
use super::land::LandCommand;
use super::limits::{BATCH_BYTES, BATCH_ROWS, Limits};
use super::routes::Routes;
use super::transaction::{OpenTransaction, Progress};
use crate::base::Lsn;
use crate::buffer::TableBuffer;
use crate::decode::{self, Message, Tuple};
use crate::wal::{Feedback, ReplicationStream, WalBatch, WalFrame};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long an unfinished transaction may still run after a stop was asked for; then it is left to the next start.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// One table as the stream fills it.
pub(super) struct Following {
    pub(super) buffer: TableBuffer,
    /// The lake holds every transaction up to here (L1); the server may send them again.
    pub(super) recorded: Lsn,
}

/// The stage and its connections.
pub(super) struct Follow {
    pub(super) stream: ReplicationStream,
    pub(super) feedback: Feedback,
    pub(super) tables: Vec<Following>,
    pub(super) routes: Routes,
    pub(super) land: mpsc::Sender<LandCommand>,
    pub(super) durable: watch::Receiver<Lsn>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) limits: Limits,
    /// Prefix and content of the message that marks the WAL's end at start.
    pub(super) marker: Option<Marker>,
    /// Leave off before the transaction that commits here or later.
    pub(super) leave_before: Option<Lsn>,
    pub(super) progress: Progress,
}

/// A logical message of our own: when it comes back, everything committed before it has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) prefix: &'static str,
    pub(super) content: String,
}

/// Why the loop left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Stopped,
    CaughtUp,
    BeforeRefused,
}

impl Follow {
    /// Runs until stopped, caught up, or failed. Whole transactions are flushed and acknowledged before an orderly end.
    pub(super) async fn run(mut self) -> Result<(), PipelineError> {
        let leave = self.follow().await?;
        if self.progress.open.is_some() {
            tracing::warn!(
                "a transaction was still arriving: it is left to the next start, nothing of it was acknowledged"
            );
        } else {
            self.flush().await?;
            self.wait_until_durable().await?;
        }
        let Self { stream, land, .. } = self;
        drop(land);
        stream.finish().await?;
        tracing::info!(reason = ?leave, "stream ended");
        Ok(())
    }

    async fn follow(&mut self) -> Result<Leave, PipelineError> {
        let mut give_up: Option<Instant> = None;
        loop {
            let stopping = *self.stop.borrow();
            if stopping && self.progress.open.is_none() {
                return Ok(Leave::Stopped);
            }
            if stopping && give_up.is_none() {
                give_up = Some(Instant::now() + STOP_GRACE);
            }
            let flush_at = self.progress.deadline(self.limits.max_age).map(Instant::from_std);
            tokio::select! {
                batch = self.stream.next() => match batch? {
                    Some(batch) => if let Some(leave) = self.batch(&batch).await? {
                        return Ok(leave);
                    },
                    None => return Err(PipelineError::ServerStopped),
                },
                () = until(flush_at) => self.flush().await?,
                () = until(give_up) => return Ok(Leave::Stopped),
                changed = self.stop.changed(), if !stopping => {
                    changed.map_err(|_| PipelineError::StageGone { stage: "supervisor" })?;
                }
                changed = self.durable.changed() => {
                    changed.map_err(|_| LAND_GONE)?;
                    self.idle(Lsn::ZERO);
                }
                () = self.land.closed() => return Err(PipelineError::StageGone { stage: "land" }),
            }
        }
    }

    /// Takes every frame of a batch, or those before the one that ends the run.
    async fn batch(&mut self, batch: &WalBatch) -> Result<Option<Leave>, PipelineError> {
        for frame in batch.frames() {
            match frame? {
                WalFrame::Keepalive { end, reply_requested } => {
                    self.idle(end);
                    // A server that shuts down asks until everything it sent is acknowledged; a healthy one has no reason to.
                    if reply_requested && self.progress.open.is_none() {
                        self.flush().await?;
                    }
                }
                WalFrame::Data { start, payload, .. } => {
                    let message =
                        decode::parse(payload, false).map_err(|error| PipelineError::Decode { at: start, error })?;
                    if let Some(leave) = self.message(start, payload.len(), message).await? {
                        return Ok(Some(leave));
                    }
                }
            }
        }
        self.make_room().await?;
        Ok(None)
    }

    async fn message(&mut self, at: Lsn, bytes: usize, message: Message<'_>) -> Result<Option<Leave>, PipelineError> {
        match message {
            Message::Insert { relation_oid, new, .. } => self.insert(at, bytes, relation_oid, &new)?,
            Message::Begin { final_lsn, .. } => return self.begin(at, final_lsn).await,
            Message::Commit { end_lsn, .. } => self.commit(at, end_lsn).await?,
            Message::Relation { relation, .. } => {
                if let Some(table) = self.routes.announce(&relation)
                    && let Some(following) = self.tables.get_mut(table)
                {
                    let commit_at = self.progress.open.map_or(at, |open| open.commit_lsn);
                    following.buffer.bind(&relation).map_err(|error| PipelineError::Row { at: commit_at, error })?;
                }
            }
            Message::Update { relation_oid, .. } => self.not_insert("UPDATE", at, &[relation_oid])?,
            Message::Delete { relation_oid, .. } => self.not_insert("DELETE", at, &[relation_oid])?,
            Message::Truncate { relation_oids, .. } => self.not_insert("TRUNCATE", at, &relation_oids)?,
            Message::LogicalMessage { prefix, content, .. } => {
                let ours = |marker: &&Marker| prefix == marker.prefix && content == marker.content.as_bytes();
                return Ok(self.marker.as_ref().filter(ours).map(|_| Leave::CaughtUp));
            }
            Message::Type { .. } | Message::Origin { .. } => {}
            _ => {
                return Err(PipelineError::Order {
                    at,
                    what: "a message of protocol 2 or later, which was not asked for",
                });
            }
        }
        Ok(None)
    }

    async fn begin(&mut self, at: Lsn, commit_lsn: Lsn) -> Result<Option<Leave>, PipelineError> {
        if self.progress.open.is_some() {
            return Err(PipelineError::Order { at, what: "BEGIN inside a transaction" });
        }
        if self.leave_before.is_some_and(|refused| commit_lsn >= refused) {
            return Ok(Some(Leave::BeforeRefused));
        }
        // What is pending would wait for this transaction's end, however long it is: the builders cannot be cut again once
        // rows of it are in them.
        if self.progress.flush_is_due(u64::MAX, self.limits.max_age / 2) {
            self.flush().await?;
        }
        self.progress.open = Some(OpenTransaction { commit_lsn });
        Ok(None)
    }

    #[inline]
    fn insert(&mut self, at: Lsn, bytes: usize, relation_oid: u32, new: &Tuple<'_>) -> Result<(), PipelineError> {
        let Some(open) = self.progress.open else {
            return Err(PipelineError::Order { at, what: "a row outside a transaction" });
        };
        let Some(found) = self.routes.find(relation_oid) else {
            return Err(PipelineError::Order { at, what: "a row of a relation that was not announced" });
        };
        let Some(following) = found.and_then(|table| self.tables.get_mut(table)) else {
            return self.routes.may_be_ignored(relation_oid);
        };
        if open.commit_lsn < following.recorded {
            return Ok(());
        }
        following.buffer.append(new).map_err(|error| PipelineError::Row { at: open.commit_lsn, error })?;
        self.progress.row(bytes);
        Ok(())
    }

    async fn commit(&mut self, at: Lsn, end: Lsn) -> Result<(), PipelineError> {
        if self.progress.open.is_none() {
            return Err(PipelineError::Order { at, what: "COMMIT without BEGIN" });
        }
        self.progress.transaction_ended(end);
        if self.progress.flush_is_due(self.limits.flush_bytes, self.limits.max_age) {
            self.flush().await?;
        }
        self.idle(end);
        Ok(())
    }

    /// A table that is not configured may change as it likes; so may a transaction that the lake already holds.
    fn not_insert(&mut self, operation: &'static str, at: Lsn, relation_oids: &[u32]) -> Result<(), PipelineError> {
        let commit_lsn = self.progress.open.map_or(at, |open| open.commit_lsn);
        for oid in relation_oids {
            let Some(Some(table)) = self.routes.find(*oid) else {
                self.routes.may_be_ignored(*oid)?;
                continue;
            };
            let recorded = self.tables.get(table).map_or(Lsn::ZERO, |following| following.recorded);
            if let Some(name) = self.routes.name(table)
                && commit_lsn >= recorded
            {
                return Err(PipelineError::NotInsert { operation, table: name.clone(), at: commit_lsn });
            }
        }
        Ok(())
    }

    /// The server has sent everything up to `end`: acknowledged as soon as nothing is buffered or in flight (W1).
    fn idle(&mut self, end: Lsn) {
        self.progress.sent_to = self.progress.sent_to.max(end);
        if self.progress.nothing_in_flight(*self.durable.borrow()) {
            self.feedback.acknowledge(self.progress.sent_to);
        }
    }

    /// Hands full partitions on, and then the largest ones while the builders hold more than their share.
    async fn make_room(&mut self) -> Result<(), PipelineError> {
        for table in 0..self.tables.len() {
            self.send_full(table, BATCH_ROWS, BATCH_BYTES).await?;
        }
        loop {
            let held = self.tables.iter().map(|table| table.buffer.bytes());
            let total: usize = held.clone().sum();
            let largest = held.enumerate().max_by_key(|(_, bytes)| *bytes).map(|(table, _)| table);
            let Some(table) = largest.filter(|_| total > self.limits.builder_bytes) else { return Ok(()) };
            self.send_all(table).await?;
        }
    }

    async fn send_full(&mut self, table: usize, rows: usize, bytes: usize) -> Result<(), PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(()) };
        let in_row = |error| PipelineError::Row { at, error };
        while let Some(batch) = following.buffer.take_full(rows, bytes).map_err(in_row)? {
            self.land.send(LandCommand::Rows { table, batch }).await.map_err(|_| LAND_GONE)?;
        }
        Ok(())
    }

    async fn send_all(&mut self, table: usize) -> Result<(), PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(()) };
        for batch in following.buffer.drain().map_err(|error| PipelineError::Row { at, error })? {
            self.land.send(LandCommand::Rows { table, batch }).await.map_err(|_| LAND_GONE)?;
        }
        Ok(())
    }

    /// Sends everything pending to `land` with the order to commit it. Only ever called at a transaction's end (B1).
    async fn flush(&mut self) -> Result<(), PipelineError> {
        let Some(pending) = self.progress.pending else { return Ok(()) };
        for table in 0..self.tables.len() {
            self.send_all(table).await?;
        }
        let commit = LandCommand::Commit { at: pending.end, rows: self.progress.rows };
        self.land.send(commit).await.map_err(|_| LAND_GONE)?;
        self.progress.flushed(pending.end);
        Ok(())
    }

    async fn wait_until_durable(&mut self) -> Result<(), PipelineError> {
        let target = self.progress.flushed_to;
        self.durable.wait_for(|durable| *durable >= target).await.map_err(|_| LAND_GONE)?;
        Ok(())
    }
}

const LAND_GONE: PipelineError = PipelineError::StageGone { stage: "land" };

/// Completes at the instant; never, without one.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
