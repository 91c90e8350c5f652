//! The following stage, message by message: transactions that the server sends whole, and what is common to all.

use super::PipelineError;
use super::aside::ASIDE;
use super::follow::{Follow, Following, Leave, Marker};
use super::land::LandCommand;
use super::refusal::{Cause, Refusal};
use super::transaction::OpenTransaction;
use crate::base::{COPY_MARKER, Lsn, MARKER_PREFIX, RECONCILE_MARKER};
use crate::buffer::{BufferError, TableBuffer, Transaction};
use crate::decode::{DecodeError, Message, Relation, Tuple};

/// Where a row or a change goes: to a table, or nowhere, which may be a reason to refuse it.
enum Destination<'a> {
    Table(usize, &'a mut Following, OpenTransaction),
    None(Result<(), Refusal>),
}

/// The first byte of the messages that end a transaction: without them the stream cannot be followed.
const ENDS: [u8; 3] = *b"CcA";

impl Follow {
    /// A message outside a block of a transaction in progress.
    pub(super) async fn message(
        &mut self,
        at: Lsn,
        bytes: usize,
        message: Message<'_>,
    ) -> Result<Option<Leave>, PipelineError> {
        let taken = match message {
            Message::Insert { relation_oid, new, .. } => self.insert(at, bytes, relation_oid, &new)?,
            Message::Begin { final_lsn, commit_time_micros, xid } => {
                let by = Transaction { xid, commit_lsn: final_lsn, commit_time_micros };
                return self.begin(at, by).map(|()| None);
            }
            Message::Commit { end_lsn, .. } => return self.commit(at, end_lsn).await.map(|()| None),
            Message::Relation { relation, .. } => Box::pin(self.relation(at, &relation)).await?,
            Message::Update { relation_oid, old, new, .. } => {
                if let Some((table, open)) = self.by_day(at, relation_oid)? {
                    Box::pin(self.update_by_day(table, open, bytes, (old.as_ref(), &new))).await?
                } else {
                    self.change(at, bytes, relation_oid, |buffer, by| buffer.update(old.as_ref(), &new, by, None))
                        .await?
                }
            }
            Message::Delete { relation_oid, old, .. } => {
                if let Some((table, open)) = self.by_day(at, relation_oid)? {
                    Box::pin(self.delete_by_day(table, open, bytes, &old)).await?
                } else {
                    self.change(at, bytes, relation_oid, |buffer, by| buffer.delete(&old, by, None)).await?
                }
            }
            Message::Truncate { relation_oids, .. } => {
                return self.truncate(at, bytes, &relation_oids).await.map(|()| None);
            }
            Message::LogicalMessage { prefix, content, .. } => {
                if prefix == MARKER_PREFIX && content == RECONCILE_MARKER.as_bytes() {
                    // What was committed before it is looked for in the lake (R3).
                    self.progress.hurry(at);
                    self.flush().await?;
                } else if prefix == MARKER_PREFIX && content.starts_with(COPY_MARKER.as_bytes()) {
                    return self.land_copy(at, content).await;
                }
                return Ok(self.is_marker(prefix, content));
            }
            Message::StreamStart { xid, first_segment } => {
                return self.stream_start(at, xid, first_segment).map(|()| None);
            }
            Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time_micros } => {
                let by = Transaction { xid, commit_lsn, commit_time_micros };
                return self.stream_commit(at, by, end_lsn).await.map(|()| None);
            }
            Message::StreamAbort { xid, subtransaction_xid, .. } => {
                return self.stream_abort(at, xid, subtransaction_xid).await.map(|()| None);
            }
            Message::Type { .. } | Message::Origin { .. } => Ok(()),
            _ => return Err(PipelineError::Order { at, what: "a message that was not asked for" }),
        };
        if let Err(refusal) = taken {
            let commit_lsn = self.progress.open.map_or(at, |open| open.commit_lsn);
            self.refuse(refusal, commit_lsn).await?;
        }
        Ok(None)
    }

    /// What cannot even be read belongs to its transaction like a row that cannot be taken: a transaction in progress may roll
    /// back, and one that is stepped over is not looked at.
    pub(super) fn undecodable(&mut self, at: Lsn, payload: &[u8], error: DecodeError) -> Result<(), PipelineError> {
        let is_end = payload.first().is_some_and(|tag| ENDS.contains(tag));
        if let Some(streamed) = self.in_progress.current()
            && !is_end
        {
            streamed.refuse_whole(Refusal { table: None, cause: Cause::Decode(error) });
            return Ok(());
        }
        match self.progress.open {
            Some(open) if open.skipped && !is_end => Ok(()),
            open => Err(PipelineError::Decode { at: open.map_or(at, |open| open.commit_lsn), error }),
        }
    }

    /// Whether a logical message is the one that was written at the start.
    pub(super) fn is_marker(&self, prefix: &str, content: &[u8]) -> Option<Leave> {
        let ours = |marker: &&Marker| prefix == marker.prefix && content == marker.content.as_bytes();
        self.marker.as_ref().filter(ours).map(|_| Leave::CaughtUp)
    }

    fn begin(&mut self, at: Lsn, by: Transaction) -> Result<(), PipelineError> {
        if self.progress.open.is_some() {
            return Err(PipelineError::Order { at, what: "BEGIN inside a transaction" });
        }
        let Transaction { xid, commit_lsn, commit_time_micros } = by;
        let skipped = self.skips.begins(commit_lsn);
        self.progress.open = Some(OpenTransaction { commit_lsn, commit_time_micros, xid, skipped });
        if let Some(aside) = &mut self.aside {
            aside.transaction_begins();
        }
        Ok(())
    }

    #[inline]
    fn insert(
        &mut self,
        at: Lsn,
        bytes: usize,
        relation_oid: u32,
        new: &Tuple<'_>,
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let (table, following, open) = match self.destination(at, relation_oid)? {
            Destination::Table(table, following, open) => (table, following, open),
            Destination::None(outcome) => return Ok(outcome),
        };
        if !following.days.are_none() {
            return Ok(self.insert_by_day(table, open, bytes, new));
        }
        if let Err(error) = following.buffer.append(new, None) {
            return Ok(Err(Refusal::row(table, error)));
        }
        self.progress.row(bytes);
        Ok(Ok(()))
    }

    /// Where a row or a change of the open transaction goes.
    #[inline]
    fn destination(&mut self, at: Lsn, relation_oid: u32) -> Result<Destination<'_>, PipelineError> {
        let Some(open) = self.progress.open else {
            return Err(PipelineError::Order { at, what: "a row outside a transaction" });
        };
        if open.skipped {
            return Ok(Destination::None(Ok(())));
        }
        let Some(found) = self.routes.find(relation_oid) else {
            return Err(PipelineError::Order { at, what: "a row of a relation that was not announced" });
        };
        let Some((table, following)) = found.and_then(|table| Some((table, self.tables.get_mut(table)?))) else {
            return Ok(Destination::None(self.routes.may_be_ignored(relation_oid)));
        };
        if following.is_excluded(open.commit_lsn) {
            return Ok(Destination::None(Ok(())));
        }
        Ok(Destination::Table(table, following, open))
    }

    /// The table of a change whose fate its day decides.
    fn by_day(&mut self, at: Lsn, relation_oid: u32) -> Result<Option<(usize, OpenTransaction)>, PipelineError> {
        Ok(match self.destination(at, relation_oid)? {
            Destination::Table(table, following, open) => (!following.days.are_none()).then_some((table, open)),
            Destination::None(_) => None,
        })
    }

    /// An UPDATE or DELETE of the open transaction.
    async fn change(
        &mut self,
        at: Lsn,
        bytes: usize,
        relation_oid: u32,
        take: impl FnOnce(&mut TableBuffer, &Transaction) -> Result<(), BufferError>,
    ) -> Result<Result<(), Refusal>, PipelineError> {
        if let Destination::None(outcome) = self.destination(at, relation_oid)? {
            return Ok(outcome);
        }
        self.part_from_streamed().await?;
        let (table, following, open) = match self.destination(at, relation_oid)? {
            Destination::Table(table, following, open) => (table, following, open),
            Destination::None(outcome) => return Ok(outcome),
        };
        if let Err(error) = take(&mut following.buffer, &open.origin()) {
            return Ok(Err(Refusal::row(table, error)));
        }
        self.progress.change(bytes);
        Ok(Ok(()))
    }

    /// What was streamed has an order of rows and changes of its own, so no commit takes it together with other changes.
    async fn part_from_streamed(&mut self) -> Result<(), PipelineError> {
        if self.progress.has_pending_streamed() { self.flush().await } else { Ok(()) }
    }

    /// A table that is not configured may change as it likes; so may a transaction that the lake already holds. A TRUNCATE may name
    /// several tables, and each is taken or refused for itself.
    async fn truncate(&mut self, at: Lsn, bytes: usize, relation_oids: &[u32]) -> Result<(), PipelineError> {
        let Some(open) = self.progress.open else {
            return Err(PipelineError::Order { at, what: "a TRUNCATE outside a transaction" });
        };
        if open.skipped {
            return Ok(());
        }
        let (mut emptied, mut refusals) = (Vec::new(), Vec::new());
        for oid in relation_oids {
            let Some(Some(table)) = self.routes.find(*oid) else {
                refusals.extend(self.routes.may_be_ignored(*oid).err());
                continue;
            };
            match self.tables.get(table).filter(|following| !following.is_excluded(open.commit_lsn)) {
                Some(following) if following.may_be_emptied => emptied.push(table),
                Some(following) => {
                    let cause = Cause::Truncate { table: following.shape.table.clone() };
                    refusals.push(Refusal { table: Some(table), cause });
                }
                None => {}
            }
        }
        // One that stops everything is told before any table is parked for the same statement.
        refusals.sort_by_key(|refusal| self.parks(refusal).is_some());
        for refusal in refusals {
            self.refuse(refusal, open.commit_lsn).await?;
        }
        for table in emptied {
            self.part_from_streamed().await?;
            let Some(following) = self.tables.get_mut(table) else { continue };
            let truncated = following.buffer.truncate(&open.origin(), None);
            let truncated = truncated.map_err(|error| Refusal::row(table, error)).and_then(|()| {
                self.progress.change(bytes);
                self.keep_aside(table, open, 0, |buffer, number| buffer.truncate(&open.origin(), Some(number)))
            });
            if let Err(refusal) = truncated {
                self.refuse(refusal, open.commit_lsn).await?;
            }
        }
        Ok(())
    }

    /// A relation as it is described from here on.
    async fn relation(&mut self, at: Lsn, relation: &Relation) -> Result<Result<(), Refusal>, PipelineError> {
        self.relations += 1;
        let (order, open) = (self.relations, self.progress.open);
        let skipped = open.is_some_and(|open| open.skipped);
        self.bind(relation, order, open.map_or(at, |open| open.commit_lsn), skipped).await
    }

    async fn commit(&mut self, at: Lsn, end: Lsn) -> Result<(), PipelineError> {
        let Some(open) = self.progress.open else {
            return Err(PipelineError::Order { at, what: "COMMIT without BEGIN" });
        };
        if open.skipped {
            self.skips.stepped_over(open.commit_lsn);
        }
        self.progress.transaction_ended(end);
        for following in &mut self.tables {
            following.buffer.end_transaction();
        }
        if self.aside.is_some() {
            self.in_progress.end_transaction(ASIDE);
        }
        self.after_commit(end).await
    }

    /// A transaction ended: what is due leaves, or what needs room.
    pub(super) async fn after_commit(&mut self, end: Lsn) -> Result<(), PipelineError> {
        self.progress.sent(end);
        if self.flush_is_due() { self.flush().await } else { self.make_room().await }
    }

    /// Something of a transaction that commits cannot be taken: its table stands still from there on, if it may, and everything
    /// else goes on; or the pipeline stops.
    pub(super) async fn refuse(&mut self, refusal: Refusal, commit_lsn: Lsn) -> Result<(), PipelineError> {
        let parks = self.parks(&refusal);
        let error = refusal.at(commit_lsn);
        match parks {
            Some(table) => self.park(table, commit_lsn, error.to_string()).await,
            None => Err(error),
        }
    }

    /// The table that stands still for it, if that is allowed.
    pub(super) fn parks(&self, refusal: &Refusal) -> Option<usize> {
        refusal.table.filter(|table| self.tables.get(*table).is_some_and(|following| following.may_park))
    }

    /// What precedes the transaction lands; what the table has of the transaction is dropped here and in `land`.
    async fn park(&mut self, table: usize, since: Lsn, reason: String) -> Result<(), PipelineError> {
        let rest = self.flush_ended().await?;
        for (other, load) in rest.into_iter().filter(|(other, _)| *other != table) {
            self.send(other, None, load).await?;
        }
        drop(self.cut(table)?);
        self.in_progress.forget_table(table);
        if let Some(following) = self.tables.get_mut(table) {
            following.parked = true;
        }
        self.command(LandCommand::Park { table, since, reason }).await
    }
}
