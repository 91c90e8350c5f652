//! The lake side of one table: its open files, those of transactions in progress, and its commits.

use super::PipelineError;
use super::inflow::{Inflow, discard};
use super::limits::Limits;
use crate::base::{Classify, DaySet, Lsn, RetryClass, TableName, XidSet};
use crate::buffer::{ChangeBatch, PartitionBatch, Transaction};
use crate::lake::{
    Figures, Finding, FindingKind, LakeError, LakeLocation, LakeTable, Landed, Patience, Rewriter, Segment, StagedFile,
    StreamedCommit, TableWriter, record_finding, remove_orphans,
};
use crate::ops::fail_points;
use std::collections::HashMap;
use std::time::Instant;

/// The lake side of one table.
pub(super) struct Landing {
    name: TableName,
    pub(super) table: LakeTable,
    /// What rewriting rows may take.
    rewriter: Rewriter,
    /// Rows and changes of whole transactions.
    pub(super) whole: Inflow,
    /// Those of each transaction in progress.
    pub(super) in_progress: HashMap<u32, Inflow>,
    /// Transactions in progress that asked for columns which the lake cannot have: the subtransactions that did, and why it cannot. Nothing
    /// with such columns is taken of them, and it is told if those commit.
    pub(super) unfit: HashMap<u32, Vec<(u32, LakeError)>>,
    /// Files of transactions without changes that committed since the last commit here.
    joined: Vec<StagedFile>,
    /// A transaction with changes that committed: the next commit takes nothing else.
    changed: Option<Segment>,
    /// The writers that they came from, until the commit is known to have landed: before that, no file of theirs may be removed.
    finished: Vec<TableWriter>,
    dirty: bool,
    /// What kept a table that may be parked from writing since the last commit.
    failure: Option<LakeError>,
    /// A table whose landing keeps failing is parked before the slot is lost; its writers then wait only while that is far.
    may_park: bool,
    /// Its own: shorter than the pipeline's when it may be parked.
    pub(super) patience: Patience,
    /// This process has committed to the table.
    landed: bool,
    /// What dead processes left behind was looked for.
    tidied: bool,
}

impl Landing {
    pub(super) fn new(
        name: TableName,
        table: LakeTable,
        whole: Inflow,
        rewriter: Rewriter,
        may_park: bool,
        patience: Patience,
        failure: Option<LakeError>,
    ) -> Self {
        Self {
            name,
            table,
            whole,
            rewriter,
            in_progress: HashMap::new(),
            unfit: HashMap::new(),
            joined: Vec::new(),
            changed: None,
            finished: Vec::new(),
            dirty: false,
            failure,
            may_park,
            patience,
            landed: false,
            tidied: false,
        }
    }

    /// Other limits than those that it was opened with; nothing has flowed in yet.
    pub(super) fn keep_within(&mut self, limits: &Limits) {
        let writer = self.whole.writer.another_within(limits.writer_bytes);
        self.whole = Inflow::new(writer, limits.changes_bytes / 2);
        self.rewriter = limits.rewriter();
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

    pub(super) fn table_name(&self) -> &TableName {
        &self.name
    }

    pub(super) fn may_park(&self) -> bool {
        self.may_park
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

    /// Memory of all that flows in.
    pub(super) fn memory_bytes(&self) -> usize {
        self.inflows().map(Inflow::memory_bytes).sum()
    }

    pub(super) fn largest_inflow_bytes(&self) -> usize {
        self.inflows().map(Inflow::memory_bytes).max().unwrap_or(0)
    }

    fn inflows(&self) -> impl Iterator<Item = &Inflow> {
        std::iter::once(&self.whole).chain(self.in_progress.values())
    }

    /// Moves a part of what holds most to the store.
    pub(super) async fn relieve_largest(&mut self) -> Result<bool, PipelineError> {
        let inflows = std::iter::once(&mut self.whole).chain(self.in_progress.values_mut());
        match inflows.max_by_key(|inflow| inflow.memory_bytes()) {
            Some(inflow) => {
                let relieved = inflow.relieve().await;
                Ok(self.or_at_the_commit(relieved)?.unwrap_or(false))
            }
            None => Ok(false),
        }
    }

    /// Takes rows for the next commit, or of a transaction in progress.
    pub(super) async fn write(&mut self, xid: Option<u32>, batch: PartitionBatch) -> Result<(), PipelineError> {
        if self.takes_no_rows() || self.is_unfit(xid, &batch.rows.schema()) {
            return Ok(());
        }
        self.make_room_for_null(&batch.rows).await?;
        let written = self.inflow(xid).writer.write(batch).await;
        self.or_at_the_commit(written).map(|_| ())
    }

    /// Takes changes for the next commit, or of a transaction in progress.
    pub(super) async fn write_changes(&mut self, xid: Option<u32>, batch: ChangeBatch) -> Result<(), PipelineError> {
        let parts = [&batch.keys, &batch.patches];
        if self.takes_no_rows() || parts.into_iter().any(|part| self.is_unfit(xid, &part.schema())) {
            return Ok(());
        }
        self.make_room_for_null_in(&batch).await?;
        let written = self.inflow(xid).changes.push(batch).await;
        self.or_at_the_commit(written).map(|_| ())
    }

    fn inflow(&mut self, xid: Option<u32>) -> &mut Inflow {
        match xid {
            None => {
                self.dirty = true;
                &mut self.whole
            }
            Some(xid) => self.in_progress.entry(xid).or_insert_with(|| self.whole.another()),
        }
    }

    /// A transaction in progress committed.
    pub(super) async fn join(
        &mut self,
        by: Transaction,
        aborted: &XidSet,
        excluded: bool,
    ) -> Result<(), PipelineError> {
        let unfit = self.unfit.remove(&by.xid).unwrap_or_default();
        if let Some((_, error)) = unfit.into_iter().find(|(subxid, _)| !aborted.contains(*subxid))
            && !excluded
            && !self.takes_no_rows()
        {
            self.or_at_the_commit::<()>(Err(error))?;
        }
        let Some(mut inflow) = self.in_progress.remove(&by.xid) else { return Ok(()) };
        if excluded || self.takes_no_rows() {
            inflow.discard().await;
            return Ok(());
        }
        let finished = inflow.writer.finish_without(aborted).await;
        let Some(files) = self.or_at_the_commit(finished)? else { return Ok(()) };
        let Inflow { writer, changes, .. } = inflow;
        self.finished.push(writer);
        if changes.is_empty() {
            self.dirty |= !files.is_empty();
            self.joined.extend(files);
            return Ok(());
        }
        let commit = StreamedCommit { commit_lsn: by.commit_lsn, commit_time_micros: by.commit_time_micros };
        let (table, aborted) = (self.name.clone(), aborted.clone());
        self.lands_with(Segment { table, files, changes, aborted, commit: Some(commit), replaces: DaySet::default() });
        Ok(())
    }

    /// The next commit takes this and nothing else.
    pub(super) fn lands_with(&mut self, segment: Segment) {
        (self.changed, self.dirty) = (Some(segment), true);
    }

    /// Writers whose files the next commit names.
    pub(super) fn finishes(&mut self, writers: impl Iterator<Item = TableWriter>) {
        self.finished.extend(writers);
    }

    pub(super) fn takes_no_rows(&self) -> bool {
        self.is_parked() || self.failure.is_some()
    }

    /// What a table that may be parked could not write is told at the commit, where the others land; `None` then.
    pub(super) fn or_at_the_commit<T>(&mut self, outcome: Result<T, LakeError>) -> Result<Option<T>, PipelineError> {
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
        self.unfit.remove(&xid);
        if let Some(inflow) = self.in_progress.remove(&xid) {
            inflow.discard().await;
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
        let files = self.whole.writer.finish().await?;
        let rows = match self.segment(files) {
            None => {
                self.table.land(&self.joined, at, &self.patience).await?;
                self.joined.iter().map(StagedFile::rows).sum()
            }
            Some(segment) => self.land_changes(segment, at).await?,
        };
        self.whole.writer.committed(&self.table).await;
        for mut writer in self.finished.drain(..) {
            writer.committed(&self.table).await;
            discard(writer).await;
        }
        self.joined.clear();
        (self.dirty, self.landed) = (false, true);
        Ok(rows)
    }

    /// What the next commit takes besides `joined`, if rows changed; `files` join otherwise.
    fn segment(&mut self, files: Vec<StagedFile>) -> Option<Segment> {
        if self.changed.is_none() && !self.whole.changes.is_empty() {
            let changes = self.whole.take_changes();
            let (table, aborted) = (self.name.clone(), XidSet::default());
            return Some(Segment { table, files, changes, aborted, commit: None, replaces: DaySet::default() });
        }
        self.joined.extend(files);
        self.changed.take()
    }

    async fn land_changes(&mut self, segment: Segment, at: Lsn) -> Result<u64, LakeError> {
        let started = Instant::now();
        let landed = self.table.land_changes(segment, &self.joined, &self.rewriter, at, &self.patience).await?;
        let Landed { rows, figures, superseded, changes } = landed;
        let Figures { files, bytes, rows: changed, unmatched, moved } = figures;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(table = %self.name, changed, files, bytes, moved, unmatched, seconds, "rewrote the files of changed rows");
        fail_points::reach("apply.before_cleanup");
        for file in superseded {
            self.whole.writer.give_up(file).await;
        }
        if let Err(error) = changes.discard().await {
            tracing::debug!(%error, "spooled changes are removed at a later start");
        }
        Ok(rows)
    }

    /// Records a finding about the table, in the lake of this slot. The same one twice is one.
    pub(super) async fn note(
        &mut self,
        (kind, lsn): (FindingKind, Lsn),
        reason: String,
        (location, slot): (&LakeLocation, &str),
        patience: &Patience,
    ) -> Result<(), PipelineError> {
        let (table, recorded_at) = (Some(self.name()), chrono::Utc::now());
        let recorded_by = format!("lakebed {}", env!("CARGO_PKG_VERSION"));
        let finding = Finding { kind, table, lsn, reason, recorded_at, recorded_by };
        Ok(record_finding(location, slot, &finding, patience).await?)
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
        self.note((FindingKind::Parked, since), reason.clone(), (location, slot), patience).await?;
        self.table.park(since, patience).await?;
        tracing::error!(table = %self.name, since_lsn = %since, reason, "the table stands still from here on (on_error = \"park\"); the others go on");
        // The files of these stay, with the sign that there are some, until the table is brought back.
        self.joined.clear();
        self.finished.clear();
        (self.dirty, self.failure) = (false, None);
        self.changed = None;
        let another = self.whole.another();
        std::mem::replace(&mut self.whole, another).discard().await;
        for (_, inflow) in self.in_progress.drain() {
            inflow.discard().await;
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
        self.whole.discard().await;
        for (_, inflow) in self.in_progress {
            inflow.discard().await;
        }
        self.table.close().await;
    }
}
