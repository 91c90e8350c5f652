//! The lake side of one table: its open files, those of transactions in progress, and its commits.

use super::PipelineError;
use crate::base::{Classify, Lsn, RetryClass, TableName, XidSet};
use crate::buffer::{ChangeBatch, PartitionBatch, Transaction};
use crate::lake::{
    Finding, FindingKind, LakeError, LakeLocation, LakeTable, Patience, StagedFile, TableWriter, record_finding,
    remove_orphans,
};
use std::collections::HashMap;
use std::time::Duration;

/// How long removing the files of a transaction may take; what is left is found at a later start.
const DISCARD_PATIENCE: Duration = Duration::from_secs(10);

/// The lake side of one table.
pub(super) struct Landing {
    name: TableName,
    table: LakeTable,
    /// Rows of whole transactions.
    writer: TableWriter,
    /// Rows of each transaction in progress.
    in_progress: HashMap<u32, TableWriter>,
    /// Files of transactions that committed since the last commit here.
    joined: Vec<StagedFile>,
    /// The writers that they came from, until the commit is known to have landed: before that, no file of theirs may be removed.
    finished: Vec<TableWriter>,
    dirty: bool,
    /// What kept a table that may be parked from writing since the last commit.
    failure: Option<LakeError>,
    /// A table whose landing keeps failing is parked before the slot is lost; its writers then wait only while that is far.
    may_park: bool,
    /// Its own: shorter than the pipeline's when it may be parked.
    patience: Patience,
    /// This process has committed to the table.
    landed: bool,
    /// What dead processes left behind was looked for.
    tidied: bool,
}

impl Landing {
    pub(super) fn new(
        name: TableName,
        table: LakeTable,
        writer: TableWriter,
        may_park: bool,
        patience: Patience,
        failure: Option<LakeError>,
    ) -> Self {
        Self {
            name,
            table,
            writer,
            in_progress: HashMap::new(),
            joined: Vec::new(),
            finished: Vec::new(),
            dirty: false,
            failure,
            may_park,
            patience,
            landed: false,
            tidied: false,
        }
    }

    /// Parks a table that was opened although it does not fit its source any more.
    pub(super) async fn park_what_differs(&mut self, location: &LakeLocation, slot: &str) -> Result<(), PipelineError> {
        let Some(error) = self.failure.take() else { return Ok(()) };
        let (since, patience) = (self.recorded(), self.patience.clone());
        self.park(since, error.to_string(), location, slot, &patience).await
    }

    pub(super) fn name(&self) -> String {
        self.name.to_string()
    }

    pub(super) fn recorded(&self) -> Lsn {
        self.table.recorded()
    }

    pub(super) fn is_parked(&self) -> bool {
        self.table.parked().is_some()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Memory of all its writers.
    pub(super) fn memory_bytes(&self) -> usize {
        self.writers().map(TableWriter::memory_bytes).sum()
    }

    pub(super) fn largest_writer_bytes(&self) -> usize {
        self.writers().map(TableWriter::memory_bytes).max().unwrap_or(0)
    }

    fn writers(&self) -> impl Iterator<Item = &TableWriter> {
        std::iter::once(&self.writer).chain(self.in_progress.values())
    }

    /// Closes the largest open file of the writer that holds most.
    pub(super) async fn close_largest(&mut self) -> Result<bool, PipelineError> {
        let writers = std::iter::once(&mut self.writer).chain(self.in_progress.values_mut());
        match writers.max_by_key(|writer| writer.memory_bytes()) {
            Some(writer) => {
                let relieved = writer.relieve().await;
                Ok(self.or_at_the_commit(relieved)?.unwrap_or(false))
            }
            None => Ok(false),
        }
    }

    /// Takes rows for the next commit, or of a transaction in progress.
    pub(super) async fn write(&mut self, xid: Option<u32>, batch: PartitionBatch) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        let writer = match xid {
            None => {
                self.dirty = true;
                &mut self.writer
            }
            Some(xid) => self.in_progress.entry(xid).or_insert_with(|| self.writer.another()),
        };
        let written = writer.write(batch).await;
        self.or_at_the_commit(written).map(|_| ())
    }

    /// Takes changes for the next commit, or of a transaction in progress.
    // TODO: lake::ChangeSpool takes them here; until then nothing may be lost in silence.
    pub(super) async fn write_changes(&mut self, _xid: Option<u32>, _batch: ChangeBatch) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        Err(PipelineError::StageGone { stage: "land" })
    }

    /// A transaction in progress committed.
    // TODO: its changes in lake::ChangeSpool, without those of `aborted`, join as well; `by` is what they were not told yet.
    pub(super) async fn join(
        &mut self,
        by: Transaction,
        aborted: &XidSet,
        excluded: bool,
    ) -> Result<(), PipelineError> {
        let Some(mut writer) = self.in_progress.remove(&by.xid) else { return Ok(()) };
        if excluded || self.takes_no_rows() {
            discard(writer).await;
            return Ok(());
        }
        let finished = writer.finish_without(aborted).await;
        let Some(files) = self.or_at_the_commit(finished)? else { return Ok(()) };
        self.finished.push(writer);
        self.dirty |= !files.is_empty();
        self.joined.extend(files);
        Ok(())
    }

    fn takes_no_rows(&self) -> bool {
        self.is_parked() || self.failure.is_some()
    }

    /// What a table that may be parked could not write is told at the commit, where the others land; `None` then.
    fn or_at_the_commit<T>(&mut self, outcome: Result<T, LakeError>) -> Result<Option<T>, PipelineError> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(error) if self.is_reason_to_park(&error) => {
                (self.failure, self.dirty) = (Some(error), true);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Any definite error about the table itself: not that somebody else writes it, and not what the store refuses, which may be
    /// over in a minute. Any error at all while the slot is about to be lost.
    fn is_reason_to_park(&self, error: &LakeError) -> bool {
        let of_another_writer = matches!(
            error,
            LakeError::SecondWriter { .. } | LakeError::ForeignProgress { .. } | LakeError::Overtaken { .. }
        );
        let of_the_table = error.retry_class() == RetryClass::Definite && !matches!(error, LakeError::Store { .. });
        let urgent = of_the_table || self.patience.is_hurried();
        self.may_park && urgent && !of_another_writer && !self.patience.is_over()
    }

    /// A transaction in progress was rolled back.
    pub(super) async fn forget(&mut self, xid: u32) {
        if let Some(writer) = self.in_progress.remove(&xid) {
            discard(writer).await;
        }
    }

    /// Makes everything since the last commit durable at `at`; returns the rows. A table that may be parked is, instead of a
    /// definite end or when the slot is about to be lost for its sake, if its log still takes the note.
    pub(super) async fn land(&mut self, at: Lsn, location: &LakeLocation, slot: &str) -> Result<u64, PipelineError> {
        let error = match self.try_to_land(at).await {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        if !self.is_reason_to_park(&error) {
            return Err(error.into());
        }
        let reason = match error.retry_class() {
            RetryClass::Definite => error.to_string(),
            RetryClass::Transient => {
                format!("the replication slot was about to be lost for this table's sake: {error}")
            }
        };
        let since = self.table.recorded();
        match self.park(since, reason, location, slot, &Patience::none()).await {
            Ok(()) => Ok(0),
            // Another start cures this one.
            Err(overtaken @ PipelineError::Lake(LakeError::Overtaken { .. })) => Err(overtaken),
            // The store takes nothing at all: the end, or another start.
            Err(_) => Err(error.into()),
        }
    }

    async fn try_to_land(&mut self, at: Lsn) -> Result<u64, LakeError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.joined.extend(self.writer.finish().await?);
        let rows = self.joined.iter().map(StagedFile::rows).sum();
        self.table.land(&self.joined, at, &self.patience).await?;
        self.writer.committed(&self.table).await;
        for mut writer in self.finished.drain(..) {
            writer.committed(&self.table).await;
            discard(writer).await;
        }
        self.joined.clear();
        (self.dirty, self.landed) = (false, true);
        Ok(rows)
    }

    /// The table stands still: its own log says since when, and why is a finding.
    pub(super) async fn park(
        &mut self,
        since: Lsn,
        reason: String,
        location: &LakeLocation,
        slot: &str,
        patience: &Patience,
    ) -> Result<(), PipelineError> {
        if self.is_parked() {
            return Ok(());
        }
        let since = since.max(self.table.recorded());
        // First, so that no table ever stands still without a reason that can be read; the same one twice is one.
        let finding = Finding {
            kind: FindingKind::Parked,
            table: Some(self.name()),
            lsn: since,
            reason: reason.clone(),
            recorded_at: chrono::Utc::now(),
            recorded_by: format!("lakebed {}", env!("CARGO_PKG_VERSION")),
        };
        record_finding(location, slot, &finding, patience).await?;
        self.table.park(since, patience).await?;
        tracing::error!(table = %self.name, since_lsn = %since, reason, "the table stands still from here on (on_error = \"park\"); the others go on");
        // The files of these stay, with the sign that there are some, until the table is brought back.
        self.joined.clear();
        self.finished.clear();
        (self.dirty, self.failure) = (false, None);
        let another = self.writer.another();
        discard(std::mem::replace(&mut self.writer, another)).await;
        for (_, writer) in self.in_progress.drain() {
            discard(writer).await;
        }
        Ok(())
    }

    /// After this process's first commit to the table, which shuts out any writer before it: what dead processes left behind
    /// is removed. An attempt; the next start tries again.
    pub(super) async fn tidy(&mut self) {
        if self.tidied || !self.landed {
            return;
        }
        self.tidied = true;
        match remove_orphans(&self.table).await {
            Ok(report) if !report.is_empty() => {
                tracing::info!(table = %self.name, files = report.files, bytes = report.bytes, "removed files of an earlier process that no commit names");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::info!(table = %self.name, %error, "files of an earlier process are looked for at the next start")
            }
        }
    }

    /// Removes what no commit names, and waits for a checkpoint on its way.
    pub(super) async fn close(self) {
        discard(self.writer).await;
        for (_, writer) in self.in_progress {
            discard(writer).await;
        }
        self.table.close().await;
    }
}

/// An attempt: what it cannot remove is a file that no commit names, and no reason to fail.
async fn discard(writer: TableWriter) {
    match tokio::time::timeout(DISCARD_PATIENCE, writer.discard()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "files that no commit names are left to the next start"),
        Err(_) => tracing::info!("files that no commit names are left to the next start: removing them took too long"),
    }
}
