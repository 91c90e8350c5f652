//! The following stage: a table that was dropped and made again under its name. Its rows went without a message, like those of a
//! TRUNCATE, and the table's policy for that one decides.
//!
//! The lake remembers which table of the server it was fed from. It is told of another one before that one's first row lands, with
//! the transaction that brings it: should the process die in between, the same transaction comes again, and empties the table then.

use super::PipelineError;
use super::follow::{Follow, Following};
use super::land::LandCommand;
use super::refusal::{Cause, Refusal};
use crate::base::Lsn;
use crate::buffer::TableBuffer;
use crate::lake::SourceRelation;

/// What a relation's oid means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The table that is known.
    Same,
    /// Nobody has noted a table yet.
    New,
    /// Another table of the same name; its transaction empties the lake's.
    Another,
}

impl Following {
    /// What the oid means that a relation has in the transaction `xid`.
    pub(super) fn origin(&self, oid: u32, xid: u32) -> Origin {
        match self.source {
            None => Origin::New,
            Some(known) if known.oid == oid && known.since_xid == Some(xid) => Origin::Another,
            Some(known) if known.oid == oid => Origin::Same,
            // What was sent before the table that is noted comes again after a crash.
            Some(known) if known.since_xid.is_some() && self.emptied_by.is_none() => Origin::Same,
            Some(_) => Origin::Another,
        }
    }
}

impl Follow {
    /// A relation outside a transaction in progress: where it is another table, what the lake holds of the former one goes.
    pub(super) async fn look_at_origin(
        &mut self,
        table: usize,
        oid: u32,
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let Some(open) = self.progress.open.filter(|open| !open.skipped) else { return Ok(Ok(())) };
        let Some(following) = self.tables.get(table) else { return Ok(Ok(())) };
        if following.is_excluded(open.commit_lsn) || following.emptied_by == Some(open.xid) {
            return Ok(Ok(()));
        }
        match following.origin(oid, open.xid) {
            Origin::Same => return Ok(Ok(())),
            Origin::New => return self.note_origin(table, oid, None).await.map(Ok),
            Origin::Another if !following.may_be_emptied => {
                let cause = Cause::Recreated { table: following.shape.table.clone() };
                return Ok(Err(Refusal { table: Some(table), cause }));
            }
            Origin::Another => {}
        }
        self.flush().await?;
        self.columns_changed(table).await?;
        self.note_origin(table, oid, Some(open.xid)).await?;
        let Some(following) = self.tables.get_mut(table) else { return Ok(Ok(())) };
        match following.buffer.truncate(&open.origin(), None) {
            Ok(()) => self.progress.change(0),
            Err(error) => return Ok(Err(Refusal::row(table, error))),
        }
        Ok(Ok(()))
    }

    /// The same for a transaction in progress, which empties the table if it commits.
    pub(super) fn look_at_origin_in_block(&mut self, table: usize, xid: u32, oid: u32) {
        let (Some(streamed), Some(following)) = (self.in_progress.current(), self.tables.get(table)) else { return };
        if following.origin(oid, streamed.xid()) != Origin::Another || !streamed.is_first_of(table, oid) {
            return;
        }
        if following.may_be_emptied {
            streamed.change(table, xid, 0, TableBuffer::truncate);
        } else {
            let cause = Cause::Recreated { table: following.shape.table.clone() };
            streamed.refuse(xid, Refusal { table: Some(table), cause });
        }
    }

    /// A transaction that was in progress commits: what it made of a table holds.
    pub(super) async fn adopt_origin(
        &mut self,
        table: usize,
        (oid, xid): (u32, u32),
        commit_lsn: Lsn,
    ) -> Result<(), PipelineError> {
        let Some(following) = self.tables.get(table).filter(|following| !following.is_excluded(commit_lsn)) else {
            return Ok(());
        };
        match following.origin(oid, xid) {
            Origin::Same => Ok(()),
            Origin::New => self.note_origin(table, oid, None).await,
            Origin::Another => self.note_origin(table, oid, Some(xid)).await,
        }
    }

    async fn note_origin(&mut self, table: usize, oid: u32, since_xid: Option<u32>) -> Result<(), PipelineError> {
        let relation = SourceRelation { oid, since_xid };
        if let Some(following) = self.tables.get_mut(table) {
            (following.source, following.emptied_by) = (Some(relation), since_xid);
        }
        self.command(LandCommand::NoteSource { table, relation }).await
    }

    /// A commit was ordered: the transactions that emptied tables are in it, all but the one that is open.
    pub(super) async fn confirm_origins(&mut self) -> Result<(), PipelineError> {
        let open = self.progress.open.map(|open| open.xid);
        for table in 0..self.tables.len() {
            let Some(following) = self.tables.get(table) else { continue };
            if let (Some(emptied_by), Some(source)) = (following.emptied_by, following.source)
                && open != Some(emptied_by)
            {
                self.note_origin(table, source.oid, None).await?;
            }
        }
        Ok(())
    }
}
