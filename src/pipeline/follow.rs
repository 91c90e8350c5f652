//! The following stage: WAL frames → transactions → Arrow batches, and the decision when to flush.

use super::PipelineError;
use super::land::LandCommand;
use super::limits::{BATCH_ROWS, Limits};
use super::routes::Routes;
use super::transaction::{OpenTransaction, Progress};
use crate::base::Lsn;
use crate::buffer::{Cut, PartitionBatch, TableBuffer};
use crate::decode::{self, Message, Tuple};
use crate::wal::{Feedback, ReplicationStream, WalBatch, WalFrame};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

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
}

impl Follow {
    /// Runs until stopped, caught up, or failed. Whole transactions are flushed and acknowledged before an orderly end, and also
    /// before the end that a transaction causes which cannot be taken: each start would give them up again otherwise.
    pub(super) async fn run(mut self) -> Result<(), PipelineError> {
        let outcome = self.follow().await;
        if outcome.as_ref().is_err_and(|error| !error.is_about_the_streams_content()) {
            return outcome.map(drop);
        }
        if let Err(error) = &outcome {
            tracing::warn!(%error, "keeping what was committed before this");
        }
        self.flush_ended().await?;
        self.wait_until_durable().await?;
        if self.progress.open.is_some() {
            tracing::info!("a transaction is left to the next start: nothing of it was acknowledged");
        }
        let Self { stream, land, .. } = self;
        drop(land);
        let finished = stream.finish().await;
        let leave = outcome?;
        finished?;
        tracing::info!(reason = ?leave, "stream ended");
        Ok(())
    }

    async fn follow(&mut self) -> Result<Leave, PipelineError> {
        loop {
            if *self.stop.borrow() {
                return Ok(Leave::Stopped);
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
                changed = self.stop.changed() => {
                    changed.map_err(|_| PipelineError::StageGone { stage: "supervisor" })?;
                }
                changed = self.durable.changed() => {
                    changed.map_err(|_| LAND_GONE)?;
                    self.idle(Lsn::ZERO);
                }
                () = self.land.closed() => return Err(LAND_GONE),
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
                    if reply_requested {
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
        if self.progress.open.is_some() {
            // The open transaction's rows may go only behind the commit of those before it, which is hurried only for want of room.
            if self.progress.has_pending() && self.held_bytes() > self.limits.builder_bytes {
                self.flush().await?;
            }
            if !self.progress.has_pending() {
                self.make_room().await?;
            }
        }
        Ok(None)
    }

    async fn message(&mut self, at: Lsn, bytes: usize, message: Message<'_>) -> Result<Option<Leave>, PipelineError> {
        match message {
            Message::Insert { relation_oid, new, .. } => self.insert(at, bytes, relation_oid, &new)?,
            Message::Begin { final_lsn, .. } => self.begin(at, final_lsn)?,
            Message::Commit { end_lsn, .. } => self.commit(at, end_lsn).await?,
            Message::Relation { relation, .. } => {
                if let Some(table) = self.routes.announce(&relation)
                    && let Some(following) = self.tables.get_mut(table)
                {
                    let commit_at = self.progress.open.map_or(at, |open| open.commit_lsn);
                    match following.buffer.bind(&relation) {
                        // What the lake holds already is skipped, whatever its columns were; the server describes a changed
                        // table again before its next row.
                        Err(error) if commit_at >= following.recorded => {
                            return Err(PipelineError::Row { at: commit_at, error });
                        }
                        Ok(()) | Err(_) => {}
                    }
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

    fn begin(&mut self, at: Lsn, commit_lsn: Lsn) -> Result<(), PipelineError> {
        if self.progress.open.is_some() {
            return Err(PipelineError::Order { at, what: "BEGIN inside a transaction" });
        }
        self.progress.open = Some(OpenTransaction { commit_lsn });
        Ok(())
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
        following.buffer.append(new, None).map_err(|error| PipelineError::Row { at: open.commit_lsn, error })?;
        self.progress.row(bytes);
        Ok(())
    }

    async fn commit(&mut self, at: Lsn, end: Lsn) -> Result<(), PipelineError> {
        if self.progress.open.is_none() {
            return Err(PipelineError::Order { at, what: "COMMIT without BEGIN" });
        }
        self.progress.transaction_ended(end);
        for following in &mut self.tables {
            following.buffer.end_transaction();
        }
        if self.progress.flush_is_due(self.limits.flush_bytes, self.limits.max_age) {
            self.flush().await?;
        } else {
            self.make_room().await?;
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

    /// Hands full partitions on, and then the largest table while the builders hold more than their share. Called where every
    /// row in the builders may follow the last commit order: at a transaction's end, or behind a flush.
    async fn make_room(&mut self) -> Result<(), PipelineError> {
        for table in 0..self.tables.len() {
            while let Some(batch) = self.take_full(table)? {
                self.send(table, batch).await?;
            }
        }
        loop {
            let held = self.tables.iter().map(|table| table.buffer.bytes()).enumerate();
            let largest = held.max_by_key(|(_, bytes)| *bytes).map(|(table, _)| table);
            let Some(table) = largest.filter(|_| self.held_bytes() > self.limits.builder_bytes) else { return Ok(()) };
            let Cut { ended, arriving } = self.cut(table)?;
            for batch in ended.into_iter().chain(arriving) {
                self.send(table, batch).await?;
            }
        }
    }

    /// Sends everything pending to `land` with the order to commit it, and behind that what the open transaction has brought so
    /// far: a commit sits on a transaction's end (B1), and yet a long transaction holds nobody else up.
    async fn flush(&mut self) -> Result<(), PipelineError> {
        for (table, batch) in self.flush_ended().await? {
            self.send(table, batch).await?;
        }
        Ok(())
    }

    /// [`Self::flush`] without the open transaction's rows, which are returned.
    async fn flush_ended(&mut self) -> Result<Vec<(usize, PartitionBatch)>, PipelineError> {
        let mut rest = Vec::new();
        if !self.progress.has_pending() {
            return Ok(rest);
        }
        for table in 0..self.tables.len() {
            let Cut { ended, arriving } = self.cut(table)?;
            rest.extend(arriving.into_iter().map(|batch| (table, batch)));
            for batch in ended {
                self.send(table, batch).await?;
            }
        }
        let (at, rows) = (self.progress.pending_end, self.progress.pending.rows);
        self.land.send(LandCommand::Commit { at, rows }).await.map_err(|_| LAND_GONE)?;
        self.progress.flushed();
        Ok(rest)
    }

    fn held_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.buffer.bytes()).sum()
    }

    fn take_full(&mut self, table: usize) -> Result<Option<PartitionBatch>, PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(None) };
        following
            .buffer
            .take_full(BATCH_ROWS, self.limits.batch_bytes)
            .map_err(|error| PipelineError::Row { at, error })
    }

    fn cut(&mut self, table: usize) -> Result<Cut, PipelineError> {
        let at = self.progress.sent_to;
        let Some(following) = self.tables.get_mut(table) else { return Ok(Cut::default()) };
        following.buffer.cut().map_err(|error| PipelineError::Row { at, error })
    }

    async fn send(&mut self, table: usize, batch: PartitionBatch) -> Result<(), PipelineError> {
        self.land.send(LandCommand::Rows { table, batch }).await.map_err(|_| LAND_GONE)
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
