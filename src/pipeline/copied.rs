//! The landing stage: days that were copied from PostgreSQL.

use super::PipelineError;
use super::aside::{ASIDE, CopiedTable};
use super::inflow::{Inflow, abandon};
use super::landing::Landing;
use crate::base::{DaySet, Lsn, TableShape, XidSet};
use crate::lake::{FindingKind, LakeLocation, Segment, StagedFile, TableWriter};

impl Landing {
    /// The days that are still to be copied; none of a table that stands still.
    pub(super) fn marked(&self) -> DaySet {
        if self.takes_no_rows() { DaySet::default() } else { self.table.uncopied().clone() }
    }

    /// Looks for marks of other processes.
    pub(super) async fn look_for_marks(&mut self) {
        if self.takes_no_rows() {
            return;
        }
        if let Err(error) = self.table.look_for_marks().await {
            tracing::debug!(table = %self.name(), %error, "the table's log cannot be looked at for now");
        }
    }

    /// Days are to be copied (again).
    pub(super) async fn mark(&mut self, days: &DaySet) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        let patience = self.patience.clone();
        let marked = self.table.mark_uncopied(days, &patience).await;
        self.or_at_the_commit(marked).map(|_| ())
    }

    /// Days are not to be copied after all, because PostgreSQL has no partition of them any more. What passed them by meanwhile is nowhere
    /// else, so somebody has to learn of it.
    pub(super) async fn keep_days(
        &mut self,
        days: &DaySet,
        at: Lsn,
        lake: (&LakeLocation, &str),
    ) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        let patience = self.patience.clone();
        let reason = format!(
            "{days} was to be copied again, and PostgreSQL has no partition for it any more: the lake keeps what it has; changes of it \
             that were committed up to {at}, after it was marked, are not in the lake"
        );
        self.note((FindingKind::Kept, at), reason, lake, &patience).await?;
        let unmarked = self.table.unmark(days, &patience).await;
        self.or_at_the_commit(unmarked).map(|_| ())
    }

    /// A writer for the files of a copy with the columns of `shape`, where these are the table's, or `Some(None)` where they are not, which
    /// is for a start to mend; none where the table takes no rows.
    pub(super) async fn prepare_copy(
        &mut self,
        shape: &TableShape,
    ) -> Result<Option<Option<TableWriter>>, PipelineError> {
        if !self.takes_no_rows() && !self.table.has_columns_of(shape)? {
            return Ok(Some(None));
        }
        let nullable = shape.columns.iter().filter(|column| column.nullable).map(|column| column.lake_name.clone());
        self.take_null(&nullable.collect()).await?;
        Ok((!self.takes_no_rows()).then(|| Some(self.whole.writer.another())))
    }

    /// Copied days and what was kept aside meanwhile, without what is in the copy already, are what the next commit takes.
    pub(super) async fn copied(
        &mut self,
        copied: CopiedTable,
        below: &XidSet,
        lake: (&LakeLocation, &str),
    ) -> Result<(), PipelineError> {
        let mut aside = self.in_progress.remove(&ASIDE).unwrap_or_else(|| self.whole.another());
        if self.takes_no_rows() {
            aside.discard().await;
            copied.abandon().await;
            return Ok(());
        }
        let finished = aside.writer.finish_without(below).await;
        let Some(kept) = self.or_at_the_commit(finished)? else {
            aside.discard().await;
            copied.abandon().await;
            return Ok(());
        };
        let CopiedTable { days, written, gone, .. } = copied;
        self.note_gone(gone, lake).await?;
        let (writers, files): (Vec<TableWriter>, Vec<Vec<StagedFile>>) = written.into_iter().unzip();
        let files = files.into_iter().flatten().chain(kept).collect();
        let Inflow { writer, changes, .. } = aside;
        let (table, aborted) = (self.table_name().clone(), below.clone());
        self.lands_with(Segment { table, files, changes, aborted, commit: None, replaces: days });
        self.finishes(writers.into_iter().chain([writer]));
        Ok(())
    }
}

impl Landing {
    /// Somebody has dropped a partition before its turn came, and nobody has its rows any more.
    async fn note_gone(&mut self, (days, at): (DaySet, Lsn), lake: (&LakeLocation, &str)) -> Result<(), PipelineError> {
        if days.is_empty() {
            return Ok(());
        }
        tracing::error!(table = %self.name(), %days, "PostgreSQL has neither rows of these days any more nor a partition for them, and the lake never had: they are copied as empty");
        let reason = format!(
            "{days} had rows when it was marked to be copied, and at {at} PostgreSQL had neither any of them nor a partition for it: unless \
             they were deleted, they are lost; look who drops partitions that lakebed has not copied"
        );
        let patience = self.patience.clone();
        self.note((FindingKind::Gone, at), reason, lake, &patience).await
    }
}

impl CopiedTable {
    /// Nothing of it will be committed: its files are removed, as far as the store allows.
    pub(super) async fn abandon(self) {
        for (writer, files) in self.written {
            abandon(writer, files).await;
        }
    }
}
