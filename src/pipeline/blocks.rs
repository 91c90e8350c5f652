//! The following stage, message by message: transactions in progress.

use super::PipelineError;
use super::follow::Follow;
use super::in_progress::{Described, Streamed};
use super::land::LandCommand;
use super::refusal::{Cause, Refusal};
use super::room::Load;
use super::routes::Routes;
use crate::base::{Lsn, TableName, XidSet};
use crate::buffer::{BufferError, PartitionBatch, TableBuffer, Transaction};
use crate::decode::{Message, Tuple};
use crate::ops::fail_points;

impl Follow {
    /// A block of a transaction in progress starts.
    pub(super) fn stream_start(&mut self, at: Lsn, xid: u32, first: bool) -> Result<(), PipelineError> {
        if self.progress.open.is_some() {
            return Err(PipelineError::Order { at, what: "STREAM START inside a transaction" });
        }
        let started = self.in_progress.start_block(xid, first, self.tables.len());
        started.map_err(|what| PipelineError::Order { at, what })
    }

    /// A message inside a block.
    pub(super) async fn message_in_block(
        &mut self,
        at: Lsn,
        bytes: usize,
        message: Message<'_>,
    ) -> Result<(), PipelineError> {
        let without = PipelineError::Order { at, what: "a change in a block without its transaction" };
        match message {
            Message::StreamStop => {
                fail_points::reach("follow.stream_block");
                return self.in_progress.stop_block().map_err(|what| PipelineError::Order { at, what });
            }
            Message::Insert { xid: Some(xid), relation_oid, new } => {
                return self.insert_in_block(at, bytes, xid, relation_oid, &new);
            }
            Message::Relation { xid: Some(xid), relation } => {
                return Box::pin(self.describe_in_block(at, xid, relation)).await;
            }
            Message::Update { xid: Some(xid), relation_oid, old, new } => {
                return self.change_in_block(at, bytes, xid, relation_oid, |buffer, by, subxid| {
                    buffer.update(old.as_ref(), &new, by, subxid)
                });
            }
            Message::Delete { xid: Some(xid), relation_oid, old } => {
                return self.change_in_block(at, bytes, xid, relation_oid, |buffer, by, subxid| {
                    buffer.delete(&old, by, subxid)
                });
            }
            Message::Truncate { xid: Some(xid), relation_oids, .. } => {
                self.truncate_in_block(bytes, xid, &relation_oids);
            }
            Message::LogicalMessage { .. } | Message::Type { .. } | Message::Origin { .. } => {}
            Message::StreamStart { .. } => {
                return Err(PipelineError::Order { at, what: "STREAM START inside a block" });
            }
            _ => return Err(without),
        }
        Ok(())
    }

    #[inline]
    fn insert_in_block(
        &mut self,
        at: Lsn,
        bytes: usize,
        xid: u32,
        relation_oid: u32,
        new: &Tuple<'_>,
    ) -> Result<(), PipelineError> {
        let Some(streamed) = self.in_progress.current() else { return Ok(()) };
        let Some(described) = streamed.find(relation_oid) else {
            return Err(PipelineError::Order { at, what: "a row of a relation that its transaction did not describe" });
        };
        match described.table {
            Some(table) => streamed.insert(table, xid, bytes, new),
            None => refuse_foreign(&self.routes, streamed, xid, relation_oid),
        }
        Ok(())
    }

    fn change_in_block(
        &mut self,
        at: Lsn,
        bytes: usize,
        xid: u32,
        relation_oid: u32,
        take: impl FnOnce(&mut TableBuffer, &Transaction, Option<u32>) -> Result<(), BufferError>,
    ) -> Result<(), PipelineError> {
        let Some(streamed) = self.in_progress.current() else { return Ok(()) };
        let Some(described) = streamed.find(relation_oid) else {
            return Err(PipelineError::Order { at, what: "a row of a relation that its transaction did not describe" });
        };
        match described.table {
            Some(table) => streamed.change(table, xid, bytes, take),
            None => refuse_foreign(&self.routes, streamed, xid, relation_oid),
        }
        Ok(())
    }

    fn truncate_in_block(&mut self, bytes: usize, xid: u32, relation_oids: &[u32]) {
        let Some(streamed) = self.in_progress.current() else { return };
        for oid in relation_oids {
            let Some(described) = streamed.find(*oid) else { continue };
            let Some((table, following)) = described.table.and_then(|table| Some((table, self.tables.get(table)?)))
            else {
                refuse_foreign(&self.routes, streamed, xid, *oid);
                continue;
            };
            if following.may_be_emptied {
                streamed.change(table, xid, bytes, TableBuffer::truncate);
            } else {
                let cause = Cause::Truncate { table: following.shape.table.clone() };
                streamed.refuse(xid, Refusal { table: Some(table), cause });
            }
        }
    }

    /// A transaction in progress committed: its rows join those of whole transactions, without what was rolled back.
    pub(super) async fn stream_commit(&mut self, at: Lsn, by: Transaction, end: Lsn) -> Result<(), PipelineError> {
        fail_points::reach("follow.stream_commit");
        let Transaction { xid, commit_lsn, .. } = by;
        let Some(mut streamed) = self.in_progress.take(xid) else {
            return Err(PipelineError::Order { at, what: "STREAM COMMIT of a transaction that was not sent" });
        };
        if self.skips.begins(commit_lsn) {
            self.skips.stepped_over(commit_lsn);
            return self.step_over(streamed, xid, commit_lsn, end).await;
        }
        self.look_for_rolled_back(&mut streamed).await?;
        // One that stops everything is told before any table is parked for the same transaction.
        let mut refusals: Vec<Refusal> = streamed.take_refusals().collect();
        refusals.sort_by_key(|refusal| self.parks(refusal).is_some());
        for refusal in refusals {
            let excluded =
                |table: usize| self.tables.get(table).is_none_or(|following| following.is_excluded(commit_lsn));
            if !refusal.table.is_some_and(excluded) {
                self.refuse(refusal, commit_lsn).await?;
            }
        }
        for table in 0..self.tables.len() {
            if self.tables.get(table).is_some_and(|following| following.is_excluded(commit_lsn)) {
                streamed.forget_table(table);
            }
        }
        let (rows, bytes, has_changes) = (streamed.rows, streamed.bytes, streamed.has_changes());
        let handed_on = streamed.handed_on || has_changes;
        let taken = streamed.take_all().map_err(|error| PipelineError::Row { at: commit_lsn, error })?;
        let (described, aborted) = streamed.into_parts();
        self.adopt(described, (xid, commit_lsn), false).await?;
        // Its rows and changes have an order of their own: a commit takes them with nothing else, or, where it brought new rows only,
        // with other new rows.
        if has_changes || self.progress.has_pending_changes() {
            self.flush().await?;
        }
        self.join(by, taken, aborted, handed_on).await?;
        self.progress.streamed_ended(end, rows, bytes);
        if has_changes {
            self.progress.sent(end);
            return self.flush().await;
        }
        self.after_commit(end).await
    }

    /// B2, where the server keeps quiet: it sends rows of a subtransaction that it had put on its own disk, as it does after every
    /// reconnect with those from before the acknowledged position, and does not always tell its ROLLBACK TO then (seen with PostgreSQL 15).
    async fn look_for_rolled_back(&mut self, streamed: &mut Streamed) -> Result<(), PipelineError> {
        for xid in self.catalog.rolled_back(&streamed.to_be_asked()).await? {
            streamed.abort(xid);
        }
        Ok(())
    }

    /// What it brought goes where the next commit takes it from.
    async fn join(
        &mut self,
        by: Transaction,
        taken: Vec<(usize, Load)>,
        aborted: XidSet,
        handed_on: bool,
    ) -> Result<(), PipelineError> {
        for (table, load) in taken {
            match load {
                Load::Rows(batch) if !handed_on => {
                    // Changes that were rolled back leave nothing for eras to tell.
                    let batch = PartitionBatch { xids: None, eras: None, ..batch };
                    self.send(table, None, Load::Rows(batch)).await?;
                }
                load => self.send(table, Some(by.xid), load).await?,
            }
        }
        if !handed_on {
            return Ok(());
        }
        let excluded = self.tables.iter().map(|following| following.is_excluded(by.commit_lsn)).collect();
        self.command(LandCommand::Join { by, aborted, excluded }).await
    }

    /// What the transaction described holds for everybody from its commit on, unless something later came since: the server
    /// describes a relation again whenever what it sent is no longer valid.
    async fn adopt(
        &mut self,
        described: Vec<Described>,
        (xid, commit_lsn): (u32, Lsn),
        skipped: bool,
    ) -> Result<(), PipelineError> {
        for Described { relation, table, order, .. } in described {
            if let Some(table) = table.filter(|_| !skipped) {
                self.adopt_origin(table, (relation.oid, xid), commit_lsn).await?;
            }
            let known = table.and_then(|table| self.tables.get(table)).map_or(0, |following| following.described);
            if order > known
                && let Err(refusal) = Box::pin(self.bind(&relation, order, commit_lsn, skipped)).await?
            {
                self.refuse(refusal, commit_lsn).await?;
            }
        }
        Ok(())
    }

    /// A transaction in progress, or a part of it, was rolled back.
    pub(super) async fn stream_abort(&mut self, at: Lsn, xid: u32, subtransaction: u32) -> Result<(), PipelineError> {
        fail_points::reach("follow.stream_abort");
        if xid != subtransaction {
            if let Some(streamed) = self.in_progress.get(xid) {
                streamed.abort(subtransaction);
            }
            return Ok(());
        }
        match self.in_progress.take(xid) {
            Some(streamed) => self.forget(streamed.handed_on, xid, at).await,
            // Nothing of it was sent, so nothing is held.
            None => Ok(()),
        }
    }

    /// Its rows are not wanted; what it described is, because the server does not describe it again.
    async fn step_over(
        &mut self,
        streamed: Streamed,
        xid: u32,
        commit_lsn: Lsn,
        end: Lsn,
    ) -> Result<(), PipelineError> {
        let handed_on = streamed.handed_on;
        let (described, _) = streamed.into_parts();
        self.adopt(described, (xid, commit_lsn), true).await?;
        self.forget(handed_on, xid, end).await
    }

    async fn forget(&mut self, handed_on: bool, xid: u32, end: Lsn) -> Result<(), PipelineError> {
        self.progress.sent(end);
        if handed_on { self.command(LandCommand::Forget { xid }).await } else { Ok(()) }
    }
}

/// What comes under a name that the publication does not have may not pass by.
fn refuse_foreign(routes: &Routes, streamed: &mut Streamed, xid: u32, relation_oid: u32) {
    let Some(relation) = streamed.find(relation_oid).map(|described| &described.relation) else { return };
    if routes.is_foreign(relation) {
        let name = TableName::new(&relation.schema, &relation.name);
        streamed.refuse(xid, routes.unknown_relation(name));
    }
}
