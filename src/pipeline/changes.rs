//! The following stage, message by message: transactions that the server sends whole, and what is common to all.

use super::PipelineError;
use super::follow::{Follow, Leave, Marker};
use super::land::LandCommand;
use super::refusal::{Cause, Refusal};
use super::transaction::OpenTransaction;
use crate::base::Lsn;
use crate::decode::{DecodeError, Message, Relation, Tuple};

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
            Message::Begin { final_lsn, .. } => return self.begin(at, final_lsn).map(|()| None),
            Message::Commit { end_lsn, .. } => return self.commit(at, end_lsn).await.map(|()| None),
            Message::Relation { relation, .. } => self.relation(at, &relation),
            Message::Update { relation_oid, .. } => return self.refuse_change("UPDATE", at, &[relation_oid]).await,
            Message::Delete { relation_oid, .. } => return self.refuse_change("DELETE", at, &[relation_oid]).await,
            Message::Truncate { relation_oids, .. } => return self.refuse_change("TRUNCATE", at, &relation_oids).await,
            Message::LogicalMessage { prefix, content, .. } => return Ok(self.is_marker(prefix, content)),
            Message::StreamStart { xid, first_segment } => {
                return self.stream_start(at, xid, first_segment).map(|()| None);
            }
            Message::StreamCommit { xid, commit_lsn, end_lsn, .. } => {
                return self.stream_commit(at, xid, commit_lsn, end_lsn).await.map(|()| None);
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

    async fn refuse_change(
        &mut self,
        operation: &'static str,
        at: Lsn,
        relation_oids: &[u32],
    ) -> Result<Option<Leave>, PipelineError> {
        let commit_lsn = self.progress.open.map_or(at, |open| open.commit_lsn);
        let mut refusals = self.not_insert(operation, at, relation_oids);
        // One that stops everything is told before any table is parked for the same statement.
        refusals.sort_by_key(|refusal| self.parks(refusal).is_some());
        for refusal in refusals {
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

    fn begin(&mut self, at: Lsn, commit_lsn: Lsn) -> Result<(), PipelineError> {
        if self.progress.open.is_some() {
            return Err(PipelineError::Order { at, what: "BEGIN inside a transaction" });
        }
        self.progress.open = Some(OpenTransaction { commit_lsn, skipped: self.skips.begins(commit_lsn) });
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
        let Some(open) = self.progress.open else {
            return Err(PipelineError::Order { at, what: "a row outside a transaction" });
        };
        if open.skipped {
            return Ok(Ok(()));
        }
        let Some(found) = self.routes.find(relation_oid) else {
            return Err(PipelineError::Order { at, what: "a row of a relation that was not announced" });
        };
        let Some((table, following)) = found.and_then(|table| Some((table, self.tables.get_mut(table)?))) else {
            return Ok(self.routes.may_be_ignored(relation_oid));
        };
        if following.is_excluded(open.commit_lsn) {
            return Ok(Ok(()));
        }
        if let Err(error) = following.buffer.append(new, None) {
            return Ok(Err(Refusal::row(table, error)));
        }
        self.progress.row(bytes);
        Ok(Ok(()))
    }

    /// A relation as it is described from here on. What the lake holds already is skipped, whatever its columns were; the server
    /// describes a changed table again before its next row.
    fn relation(&mut self, at: Lsn, relation: &Relation) -> Result<(), Refusal> {
        self.relations += 1;
        let (order, open) = (self.relations, self.progress.open);
        self.bind(relation, order, open.map_or(at, |open| open.commit_lsn), open.is_some_and(|open| open.skipped))
    }

    /// Binds a table to a relation that is valid for everything that follows.
    pub(super) fn bind(
        &mut self,
        relation: &Relation,
        order: u64,
        commit_lsn: Lsn,
        skipped: bool,
    ) -> Result<(), Refusal> {
        let Some(table) = self.routes.announce(relation) else { return Ok(()) };
        let Some(following) = self.tables.get_mut(table) else { return Ok(()) };
        following.described = order;
        match following.buffer.bind(relation) {
            Err(error) if !following.is_excluded(commit_lsn) && !skipped => Err(Refusal::row(table, error)),
            Ok(()) | Err(_) => Ok(()),
        }
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
        self.after_commit(end).await
    }

    /// A transaction ended: what is due leaves, or what needs room.
    pub(super) async fn after_commit(&mut self, end: Lsn) -> Result<(), PipelineError> {
        self.progress.sent(end);
        if self.flush_is_due() { self.flush().await } else { self.make_room().await }
    }

    /// A table that is not configured may change as it likes; so may a transaction that the lake already holds. A TRUNCATE may name
    /// several tables, and each is refused for itself.
    fn not_insert(&mut self, operation: &'static str, at: Lsn, relation_oids: &[u32]) -> Vec<Refusal> {
        let open = self.progress.open;
        if open.is_some_and(|open| open.skipped) {
            return Vec::new();
        }
        let commit_lsn = open.map_or(at, |open| open.commit_lsn);
        let mut refusals = Vec::new();
        for oid in relation_oids {
            let Some(Some(table)) = self.routes.find(*oid) else {
                refusals.extend(self.routes.may_be_ignored(*oid).err());
                continue;
            };
            let excluded = self.tables.get(table).is_none_or(|following| following.is_excluded(commit_lsn));
            if let Some(name) = self.routes.name(table)
                && !excluded
            {
                let cause = Cause::NotInsert { operation, table: name.clone() };
                refusals.push(Refusal { table: Some(table), cause });
            }
        }
        refusals
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
        for (other, batch) in rest.into_iter().filter(|(other, _)| *other != table) {
            self.send(other, None, batch).await?;
        }
        drop(self.cut(table)?);
        self.in_progress.forget_table(table);
        if let Some(following) = self.tables.get_mut(table) {
            following.parked = true;
        }
        self.command(LandCommand::Park { table, since, reason }).await
    }
}
