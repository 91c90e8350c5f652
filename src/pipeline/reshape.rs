//! The following stage: RELATION messages. A table's columns change where the stream says so, between one row and the next.

use super::PipelineError;
use super::aside::ASIDE;
use super::catalog::Learned;
use super::follow::Follow;
use super::land::LandCommand;
use super::refusal::Refusal;
use crate::base::{Lsn, TableShape};
use crate::decode::Relation;
use std::sync::Arc;

impl Follow {
    /// Binds a table to a relation that is valid for everything that follows. The rows of a transaction that the lake holds already are
    /// passed by, whatever their columns were; what it says of the columns is valid for the rows behind it all the same.
    pub(super) async fn bind(
        &mut self,
        relation: &Relation,
        order: u64,
        commit_lsn: Lsn,
        skipped: bool,
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let Some(table) = self.routes.announce(relation) else { return Ok(Ok(())) };
        let Some(following) = self.tables.get_mut(table) else { return Ok(Ok(())) };
        following.described = order;
        if following.parked {
            return Ok(Ok(()));
        }
        let passed_by = following.is_excluded(commit_lsn) || skipped;
        if let Err(refusal) = self.look_at_origin(table, relation.oid).await? {
            return Ok(Err(refusal));
        }
        let bound = self.reshape_and_bind(table, relation, commit_lsn).await?;
        Ok(if passed_by { Ok(()) } else { bound })
    }

    async fn reshape_and_bind(
        &mut self,
        table: usize,
        relation: &Relation,
        at: Lsn,
    ) -> Result<Result<(), Refusal>, PipelineError> {
        let Some(following) = self.tables.get(table) else { return Ok(Ok(())) };
        let learned = if is_named_as(&following.shape, relation) {
            self.catalog.learn(table, relation, &following.shape).await?
        } else {
            Ok(None)
        };
        match learned {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(None) => {}
            Ok(Some(learned)) => self.reshape(table, learned, at).await?,
        }
        let Some(following) = self.tables.get_mut(table) else { return Ok(Ok(())) };
        let bound = following.buffer.bind(relation);
        following.relation = bound.is_ok().then(|| relation.clone());
        let bound = bound.and_then(|()| match self.in_progress.get(ASIDE) {
            Some(streamed) => streamed.bind_table(table, relation),
            None => Ok(()),
        });
        Ok(bound.map_err(|error| Refusal::row(table, error)))
    }

    /// What came before lands with the columns that it came with.
    async fn reshape(&mut self, table: usize, learned: Learned, at: Lsn) -> Result<(), PipelineError> {
        self.flush().await?;
        self.columns_changed(table).await?;
        let Learned { shape, defaults } = learned;
        if let Some(following) = self.tables.get_mut(table) {
            following.shape = Arc::clone(&shape);
            let reshaped = following.buffer.reshape(Arc::clone(&shape));
            reshaped.map_err(|error| PipelineError::Row { at, error })?;
        }
        self.command(LandCommand::Evolve { table, by: None, shape, defaults, at }).await
    }

    /// A relation as a transaction in progress sees it; it is nobody else's before the commit (B2). The lake has the new columns from
    /// here on: without a value in them, should the transaction roll back.
    pub(super) async fn describe_in_block(
        &mut self,
        at: Lsn,
        xid: u32,
        relation: Relation,
    ) -> Result<(), PipelineError> {
        self.relations += 1;
        let order = self.relations;
        let table = self.routes.resolve(&relation);
        let following = table.and_then(|table| self.tables.get(table)).filter(|following| !following.parked);
        let Some(streamed) = self.in_progress.current() else { return Ok(()) };
        let (Some(table), Some(following)) = (table, following) else {
            streamed.describe(xid, relation, table, order, None);
            return Ok(());
        };
        let known = streamed.shape(table).unwrap_or(&following.shape).clone();
        let learned =
            if is_named_as(&known, &relation) { self.catalog.learn(table, &relation, &known).await? } else { Ok(None) };
        let learned = match learned {
            Ok(learned) => learned,
            Err(refusal) => {
                streamed.refuse(xid, refusal);
                streamed.describe(xid, relation, Some(table), order, None);
                return Ok(());
            }
        };
        let oid = relation.oid;
        let Some(Learned { shape, defaults }) = learned else {
            streamed.describe(xid, relation, Some(table), order, Some(&known));
            self.look_at_origin_in_block(table, xid, oid);
            return Ok(());
        };
        streamed.reshape(table, &shape).map_err(|error| PipelineError::Row { at, error })?;
        streamed.describe(xid, relation, Some(table), order, Some(&shape));
        let by = Some([streamed.xid(), xid]);
        self.look_at_origin_in_block(table, xid, oid);
        self.command(LandCommand::Evolve { table, by, shape, defaults, at }).await
    }
}

fn is_named_as(shape: &TableShape, relation: &Relation) -> bool {
    relation.schema == shape.table.schema && relation.name == shape.table.name
}
