//! The journal of a table: the rows that were changed or removed, as they were.
//!
//! `<table>__changes` is a Delta table beside the table, with the same partitions: an entry lies in the old row's, so what happened to a
//! day is found beside the day. It is made when the first entry is written; a table that only grows has none. Its progress
//! is its own (L1). It is committed before the table, so that an entry is never missing; what it holds already when the table's
//! commit has to be made again is left out by whoever asks [`Journal::may_hold`] first.

use super::actions;
use super::active::{ActiveFile, Wanted};
use super::error::LakeError;
use super::journal_rows::{JournalEntry, columns_beside, rows_of};
use super::location::LakeLocation;
use super::orphans::remove_orphans;
use super::patience::Patience;
use super::progress::Progress;
use super::schema::LakeSchema;
use super::staged::StagedFile;
use super::table::{FolderRule, LakeTable};
use super::target::Target;
use super::writer::{TableWriter, WriterOptions};
use crate::base::{DaySet, Lsn, Partition, TableName, TableShape};
use crate::buffer::PartitionBatch;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::record_batch::RecordBatch;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Behind a table's name, and its folder's.
const SUFFIX: &str = "__changes";

/// The name of a table's journal.
pub fn journal_of(table: &TableName) -> TableName {
    TableName::new(table.schema.clone(), format!("{}{SUFFIX}", table.name))
}

/// The folder of the journal of the table at `path`.
pub fn journal_path(path: &str) -> String {
    format!("{path}{SUFFIX}")
}

/// Where the journal of a table is, or will be, and what it looks like.
pub(super) struct JournalPlace {
    lake: LakeLocation,
    path: String,
    schema: Arc<LakeSchema>,
    folder_rule: FolderRule,
    progress: Progress,
    /// What the table records: in a new journal everything before it is complete, because it had no entries.
    at: Lsn,
    /// Where the table keeps it open between two uses.
    slot: JournalSlot,
}

/// A journal that nobody uses for now.
pub(super) type JournalSlot = Arc<Mutex<Option<Box<Journal>>>>;

impl JournalPlace {
    /// Beside a table as it is now.
    pub(super) fn beside(table: &LakeTable) -> Self {
        let (rules, lake) = (&table.rules, table.log.lake.clone());
        let source = (&*table.schema, rules.folder_rule.clone());
        let place = Self::of((lake, &table.path), source, &rules.progress, table.recorded());
        Self { slot: table.journal.clone(), ..place }
    }

    /// Beside the table of `shape` at `path`, which may not be there yet; `progress` is the table's.
    pub(super) fn beside_shape(
        (lake, path): (LakeLocation, &str),
        shape: &TableShape,
        progress: &Progress,
        at: Lsn,
    ) -> Result<Self, LakeError> {
        let source = (&LakeSchema::of(shape)?, Vec::from(actions::folder_rule(shape)));
        Ok(Self::of((lake, path), source, progress, at))
    }

    fn of(
        (lake, path): (LakeLocation, &str),
        (schema, folder_rule): (&LakeSchema, FolderRule),
        progress: &Progress,
        at: Lsn,
    ) -> Self {
        let progress = Progress { table: journal_of(&progress.table), ..progress.clone() };
        let (path, schema) = (journal_path(path), Arc::new(columns_beside(schema)));
        Self { lake, path, schema, folder_rule, progress, at, slot: JournalSlot::default() }
    }

    /// The journal that the table keeps open, if its columns are still the table's.
    pub(super) async fn take_or_open(
        &self,
        options: WriterOptions,
        patience: &Patience,
    ) -> Result<Box<Journal>, LakeError> {
        let kept = self.slot().take();
        match kept {
            Some(journal) if journal.schema() == self.schema.arrow => return Ok(journal),
            Some(journal) => journal.discard().await?,
            None => {}
        }
        Ok(Box::new(Journal::at(self, options, patience.clone()).await?))
    }

    /// For the next use; nothing of it is on its way.
    pub(super) fn put_back(&self, journal: Box<Journal>) {
        *self.slot() = Some(journal);
    }

    fn slot(&self) -> MutexGuard<'_, Option<Box<Journal>>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal as a table of the lake, made if need be, with the columns that the table has now.
    pub(super) async fn open(&self, patience: &Patience) -> Result<LakeTable, LakeError> {
        let source = (self.schema.clone(), self.folder_rule.clone());
        let mut table =
            LakeTable::create_as(&self.lake, &self.path, source, &self.progress, self.at, &DaySet::default()).await?;
        table.follow_source(patience).await?;
        Ok(LakeTable { points: ["journal.before_log_write", "journal.after_log_write"], ..table })
    }
}

/// A table's journal, open for writing. One per table and process.
pub struct Journal {
    table: LakeTable,
    writer: TableWriter,
    /// Files that are to be committed, for another attempt.
    finished: Vec<StagedFile>,
    /// The position of that attempt.
    landing_at: Option<Lsn>,
    /// Files of dead processes were looked for.
    tidied: bool,
}

impl Journal {
    /// Opens the journal of a table, or creates it.
    ///
    /// # Errors
    /// As [`LakeTable::create`], and as [`TableWriter::new`].
    pub async fn beside(table: &LakeTable, options: WriterOptions, patience: Patience) -> Result<Journal, LakeError> {
        Self::at(&JournalPlace::beside(table), options, patience).await
    }

    /// The same at a place that was kept.
    pub(super) async fn at(
        place: &JournalPlace,
        options: WriterOptions,
        patience: Patience,
    ) -> Result<Journal, LakeError> {
        let table = place.open(&patience).await?;
        let writer = TableWriter::new(&table, options, patience)?;
        Ok(Self { table, writer, finished: Vec::new(), landing_at: None, tidied: false })
    }

    /// The position that the journal's log recorded last. Between two entries it stays where it is, so it may lie before the table's.
    pub fn recorded(&self) -> Lsn {
        self.table.recorded()
    }

    /// Whether entries of a transaction may be there already, by the LSN of its commit record. A flush that is made again need not be cut
    /// where it was, so that some entries can be there and others not.
    pub fn may_hold(&self, commit_lsn: Lsn) -> bool {
        // A recorded position is the end of a commit record.
        commit_lsn < self.recorded()
    }

    /// What its files are written to and read from.
    pub(super) fn target(&self) -> &Arc<Target> {
        self.writer.target()
    }

    /// The files that hold the entries of one partition.
    pub(super) async fn files_of(&self, partition: Partition) -> Result<Vec<ActiveFile>, LakeError> {
        let wanted = Wanted::Of(BTreeSet::from([partition]));
        // Somebody may have erased entries, and deleted their files, since this handle committed.
        let (log, by) = (&self.table.log, self.table.schema.partition_by);
        let version = log.read().await?.map_or(self.table.version(), |state| state.version);
        log.active_files(version, by, &wanted).await
    }

    /// The journal's URL, for messages.
    pub fn location(&self) -> &str {
        self.table.location()
    }

    /// The columns of its files.
    pub fn schema(&self) -> SchemaRef {
        self.table.schema.arrow.clone()
    }

    /// Old rows as the journal has them: `old` holds any of the table's columns, by name, one that it lacks is NULL, and what else it
    /// holds is left out. One entry a row.
    ///
    /// # Errors
    /// [`LakeError::Batch`] for a column of another type, or another number of entries than of rows.
    pub fn rows(&self, old: &RecordBatch, entries: &[JournalEntry]) -> Result<RecordBatch, LakeError> {
        rows_of(&self.table, old, entries)
    }

    /// Adds entries whose old rows lie in one partition. As [`TableWriter::write`].
    pub async fn write(&mut self, batch: PartitionBatch) -> Result<(), LakeError> {
        self.writer.write(batch).await
    }

    /// As [`TableWriter::memory_bytes`].
    pub fn memory_bytes(&self) -> usize {
        self.writer.memory_bytes()
    }

    /// As [`TableWriter::staged_bytes`].
    pub fn staged_bytes(&self) -> usize {
        self.writer.staged_bytes()
    }

    /// As [`TableWriter::relieve`].
    pub async fn relieve(&mut self) -> Result<bool, LakeError> {
        self.writer.relieve().await
    }

    /// Commits what was written since the last commit, up to `at`. Without entries nothing is committed. After an error it can be
    /// called again. A journal that is at `at` or behind it already, because its table's commit has to be made again, takes the next byte
    /// for its position: each commit has one of its own, by which it is known to have landed.
    ///
    /// # Errors
    /// As [`TableWriter::finish`] and [`LakeTable::land`].
    pub async fn land(&mut self, at: Lsn, patience: &Patience) -> Result<(), LakeError> {
        self.finished.extend(self.writer.finish().await?);
        if self.finished.is_empty() {
            return Ok(());
        }
        let next = Lsn(self.recorded().0.saturating_add(1));
        let at = *self.landing_at.get_or_insert(at.max(next));
        self.table.land(&self.finished, at, patience).await?;
        self.finished.clear();
        self.landing_at = None;
        self.writer.committed(&self.table).await;
        self.tidy().await;
        Ok(())
    }

    /// The end of this journal's writing: removes what no commit names, and waits for a checkpoint on its way.
    ///
    /// # Errors
    /// What the store says; what it left is for the next process.
    pub async fn discard(self) -> Result<(), LakeError> {
        let Self { table, writer, .. } = self;
        let discarded = writer.discard().await;
        // A journal has no journal, but its table does not know that.
        Box::pin(table.close()).await;
        discarded
    }

    /// What dead processes left behind. An attempt; the next start tries again.
    async fn tidy(&mut self) {
        if std::mem::replace(&mut self.tidied, true) {
            return;
        }
        let location = self.table.location();
        match remove_orphans(&self.table).await {
            Ok(report) if !report.is_empty() => {
                tracing::info!(
                    location,
                    files = report.files,
                    bytes = report.bytes,
                    "removed files of an earlier process that no commit names"
                );
            }
            Ok(_) => {}
            Err(error) => {
                tracing::info!(location, %error, "files of an earlier process are looked for at the next start")
            }
        }
    }
}
