//! Rows of one subject go from some partitions of a table, beside whoever feeds it.
//!
//! ```text
//! rehearse ─▶ what would go
//! plan ─▶ (lock; files without those rows, staged) ─▶ commit ─▶ (Removes + Adds) ─▶ delete_files ─▶ expire_log
//!                                                        └ find: what an erasure removed, asked by its id
//! ```
//!
//! Erasing is four steps, because only after the last of them nothing of the rows is left: the commit hides them, the files that it removed
//! are deleted by name, and the log entries go whose statistics may tell their values. Each step is done again without harm, so who
//! keeps an erasure's id carries on wherever it was cut off. The table comes before its journal: as long as it has the rows, more
//! old images of them can come.
//!
//! The commit carries no position: how far a table is, is not for this process to say. Its own application id, [`ERASER`], says to
//! others who erase that somebody was faster (L2); a run of the pipeline passes it over like any removal, and finds the log shortened
//! ([`super::LakeError::Expired`]).
//!
//! Out of reach, and to be said to whoever asks: rows that arrive behind the plan; files that an earlier rewrite, or another program, had
//! removed before and that wait for VACUUM; old versions of objects, and copies that nobody may delete. And who reads an older version of
//! the table meanwhile misses its files.

mod expire;
mod found;
mod scan;

pub use found::Erased;
pub use scan::{Condition, EraseOrder, Erasure};

use super::actions;
use super::active::{ActiveFile, Wanted};
use super::commit::Entry;
use super::error::LakeError;
use super::location::LakeLocation;
use super::lock::TableLock;
use super::orphans::remove_orphans_under;
use super::patience::Patience;
use super::staged::StagedFile;
use super::table::LakeTable;
use super::target::remove_all;
use super::writer::{TableWriter, WriterOptions};
use crate::base::{Partition, PartitionBy};
use crate::ops::fail_points;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::logstore::object_store::path::Path;
use scan::Scan;
use std::collections::{BTreeMap, BTreeSet};
use tokio::runtime::Handle;
use uuid::Uuid;

/// The application id of every erasure. It does not begin with `lakebed/`, so it never counts as a feed's.
const ERASER: &str = "lakebed-erase";

/// For the encoders of the files that stand for others.
const WRITER_BYTES: usize = 32 << 20;

/// A table, or a journal, from which rows are erased.
pub struct Eraser {
    table: LakeTable,
    patience: Patience,
}

/// What an erasure will commit. The table stays locked against other rewrites until the plan is committed or abandoned.
pub struct ErasePlan {
    /// The version that it stands on.
    version: u64,
    found: BTreeMap<Partition, Erasure>,
    removed: Vec<ActiveFile>,
    added: Vec<StagedFile>,
    /// Owns `added` until the commit.
    writer: TableWriter,
    lock: TableLock,
}

impl ErasePlan {
    /// The version of the table that it stands on; an [`Eraser::find`] begins there.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What goes, by partition; every partition with a file is there.
    pub fn found(&self) -> &BTreeMap<Partition, Erasure> {
        &self.found
    }

    /// The files that go, below the table's root.
    pub fn files(&self) -> impl Iterator<Item = String> {
        self.removed.iter().map(ActiveFile::object_path)
    }

    /// The plan is not wanted any more: the files that it wrote are removed, and the lock is given back.
    pub async fn abandon(self) {
        let Self { added, writer, lock, .. } = self;
        abandon(writer, added).await;
        lock.release().await;
    }
}

async fn abandon(writer: TableWriter, added: Vec<StagedFile>) {
    if let Err(error) = writer.abandon(added).await {
        tracing::debug!(%error, "what an erasure left behind is removed later");
    }
}

impl Eraser {
    /// Opens a table, or the journal of one at [`super::journal_path`], for erasing; it need not be followed by anybody, and may be parked.
    ///
    /// # Errors
    /// [`LakeError::Missing`], as for a journal without entries; a table that is not lakebed's, or beyond its profile; what the store says.
    pub async fn open(location: &LakeLocation, path: &str, patience: Patience) -> Result<Self, LakeError> {
        let table = LakeTable::open_to_maintain(location, path).await?;
        Ok(Self { table, patience })
    }

    /// The table's URL, for messages.
    pub fn location(&self) -> &str {
        self.table.location()
    }

    /// Whether its partitions are days or months.
    pub fn partition_by(&self) -> PartitionBy {
        self.table.schema.partition_by
    }

    /// The columns under which rows are shown to a condition, as far as known; a plan takes those of its own version.
    pub fn schema(&self) -> SchemaRef {
        self.table.schema.arrow.clone()
    }

    /// What an order would erase. Nothing is written. Rows that would go are handed to `each` with what `taken` has become so far, which is
    /// returned.
    ///
    /// # Errors
    /// [`LakeError::Unjudged`] with what the condition or `each` says; a data file that cannot be read; what the store says.
    pub async fn rehearse<T, F>(
        &mut self,
        order: &EraseOrder,
        taken: T,
        each: F,
    ) -> Result<(BTreeMap<Partition, Erasure>, T), LakeError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Partition, &RecordBatch) -> Result<(), String> + Send + 'static,
    {
        let Scan { found, taken, .. } = self.scan(order, (taken, each), false).await?;
        Ok((found, taken))
    }

    /// Plans an erasure: reads every file of the order's partitions whole, and writes what stays of those that hold rows that go. Nothing
    /// of it is visible yet. Rows that go are handed to `each`, once a plan.
    ///
    /// # Errors
    /// As [`Self::rehearse`]; [`LakeError::LockHeld`] when somebody else works on the table for longer than is waited.
    pub async fn plan<T, F>(&mut self, order: &EraseOrder, taken: T, each: F) -> Result<(ErasePlan, T), LakeError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Partition, &RecordBatch) -> Result<(), String> + Send + 'static,
    {
        let lock = TableLock::acquire(&self.table, "erase", &self.patience).await?;
        match self.scan(order, (taken, each), true).await {
            Ok(Scan { found, taken, removed, added, writer, .. }) => {
                Ok((ErasePlan { version: self.table.version, found, removed, added, writer, lock }, taken))
            }
            Err(error) => {
                lock.release().await;
                Err(error)
            }
        }
    }

    /// Reads and writes on a thread beside the reactor.
    async fn scan<T, F>(
        &mut self,
        order: &EraseOrder,
        (taken, each): (T, F),
        rewrites: bool,
    ) -> Result<Scan<T, F>, LakeError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, Partition, &RecordBatch) -> Result<(), String> + Send + 'static,
    {
        let files = self.newest_files(&Wanted::Of(order.partitions.clone())).await?;
        let (location, by) = (self.table.log.location.clone(), self.partition_by());
        if let Some(other) = order.partitions.iter().find(|partition| partition.by() != by) {
            return Err(LakeError::Batch { location, reason: format!("{other} is no partition of it") });
        }
        let options = WriterOptions { memory_limit_bytes: WRITER_BYTES, ..WriterOptions::default() };
        let writer = TableWriter::under(ERASER.to_owned(), &self.table, options, self.patience.clone())?;
        let scan = Scan::new(order, (taken, each), writer, rewrites);
        let reactor = Handle::current();
        let scanned = tokio::task::spawn_blocking(move || reactor.block_on(Box::pin(scan.read(files)))).await;
        scanned.map_err(|error| LakeError::Encode { location, reason: format!("erasing rows stopped ({error})") })?
    }

    /// The files of some partitions at the newest version, which becomes this handle's.
    async fn newest_files(&mut self, wanted: &Wanted) -> Result<Vec<ActiveFile>, LakeError> {
        let mut waiting = self.patience.begin();
        let files = loop {
            let read = match self.table.reopen().await {
                Ok(()) => self.table.log.active_files(self.table.version, self.partition_by(), wanted).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(files) => break files,
                Err(error) => waiting.wait_out(error).await?,
            }
        };
        waiting.worked(self.table.location());
        Ok(files)
    }

    /// Commits a plan in one entry, by which the table has its rows no more. `id` is the owner's name for the erasure; [`Self::find`] knows
    /// it again. A plan by which nothing goes is not committed, and its outcome names no file.
    ///
    /// # Errors
    /// [`LakeError::FilesMoved`] and [`LakeError::LockLost`] when somebody else was faster: the plan is dropped, to be made again. After any
    /// other error [`Self::find`] tells whether it landed.
    pub async fn commit(&mut self, plan: ErasePlan, id: Uuid) -> Result<Erased, LakeError> {
        let ErasePlan { version, removed, added, writer, lock, .. } = plan;
        let outcome = match lock.still_held(&self.patience).await {
            Ok(()) if removed.is_empty() => {
                abandon(writer, added).await;
                Ok(Erased::nothing(version))
            }
            Ok(()) => Box::pin(self.commit_locked(version, (removed, added), writer, id)).await,
            Err(error) => {
                abandon(writer, added).await;
                Err(error)
            }
        };
        lock.release().await;
        outcome
    }

    async fn commit_locked(
        &mut self,
        version: u64,
        (removed, added): (Vec<ActiveFile>, Vec<StagedFile>),
        mut writer: TableWriter,
        id: Uuid,
    ) -> Result<Erased, LakeError> {
        let stands_on = (ERASER, i64::try_from(version).unwrap_or(i64::MAX));
        let entry = Entry::new(
            |commit, now| actions::erasure(&removed, &added, stands_on, id, commit, now),
            ["erase.before_commit", "erase.after_commit"],
        );
        let entry = entry.removing(removed.iter().map(|file| file.path.clone())).altering().sole(ERASER);
        // Whatever this handle has looked at since, what came behind the plan's version is what the entry is to be judged by.
        self.table.version = version;
        match self.table.put_entry(&entry).await {
            Ok(version) => {
                writer.committed(&self.table).await;
                self.tidy().await;
                if let Err(error) = writer.discard().await {
                    tracing::debug!(%error, "what an erasure left behind is removed later");
                }
                Ok(Erased::of(version, &removed, &added))
            }
            // Certainly not committed.
            Err(error @ LakeError::FilesMoved { .. }) => {
                abandon(writer, added).await;
                Err(error)
            }
            // Whether these files are in the log is still to be learned: they and the sign that there are some stay.
            Err(error) => writer.discard().await.and(Err(error)),
        }
    }

    /// What erasers that died left behind. An attempt; the next erasure tries again.
    async fn tidy(&self) {
        match remove_orphans_under(&self.table, ERASER).await {
            Ok(report) if report.is_empty() => {}
            Ok(report) => {
                let (location, left) = (self.location(), report.left.len());
                tracing::info!(
                    location,
                    files = report.files,
                    bytes = report.bytes,
                    left,
                    "removed files of an earlier erasure that no commit names"
                );
            }
            Err(error) => tracing::info!(%error, "files of an earlier erasure are looked for by the next one"),
        }
    }

    /// Deletes the files that an erasure's commit removed, by name, and nothing else. On a local disk they are gone for good when this
    /// returns. Files that the log names again, because somebody took the table back to an older version, stay and are returned: their rows
    /// are there again, and have to be erased again.
    ///
    /// # Errors
    /// A log that cannot be read, and what the store says; it can be called again.
    pub async fn delete_files(&mut self, erased: &Erased) -> Result<Vec<String>, LakeError> {
        let active = self.newest_files(&Wanted::Of(erased.partitions.clone())).await?;
        let active: BTreeSet<String> = active.iter().map(ActiveFile::object_path).collect();
        let (stay, go): (Vec<String>, Vec<String>) =
            erased.removed.iter().cloned().partition(|path| active.contains(path));
        let paths: Vec<Path> =
            go.iter().map(|path| Path::parse(path).unwrap_or_else(|_| Path::from(path.as_str()))).collect();
        self.remove(&paths).await?;
        fail_points::reach("erase.after_delete");
        // A power failure could bring a deleted name back.
        let folders: BTreeSet<&str> = go.iter().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
        for folder in folders {
            self.table.log.lake.settle(&Path::from(format!("{}/{folder}", self.table.path))).await?;
        }
        Ok(stay)
    }

    async fn remove(&self, paths: &[Path]) -> Result<(), LakeError> {
        let mut waiting = self.patience.begin();
        while let Err(error) = remove_all(&self.table.log.store, self.table.location(), paths.iter()).await {
            waiting.wait_out(error).await?;
        }
        waiting.worked(self.table.location());
        Ok(())
    }
}
