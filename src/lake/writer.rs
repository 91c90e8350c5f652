//! Rows in, uploaded files out, within a memory budget.

use super::encoder::Encoding;
use super::error::LakeError;
use super::open_file::{FinishedFile, OpenFile};
use super::patience::Patience;
use super::rewrite::keep_live_rows;
use super::schema::LakeSchema;
use super::staged::StagedFile;
use super::staging::Staging;
use super::table::LakeTable;
use super::target::{Target, encode_error};
use crate::base::{Partition, Runs, XidSet};
use crate::buffer::PartitionBatch;
use crate::ops::fail_points;
use deltalake::logstore::object_store::path::Path;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Rows wait unencoded up to this size: an encoder costs far more memory than a small file's rows, and a flush often holds
/// a few rows of each of many days.
const ENCODE_FROM_BYTES: usize = 2 << 20;

/// A row group is ended early to free at least this much.
const SEAL_FROM_BYTES: usize = 512 << 10;

/// A row group is ended early as long as that frees more than this part of the largest file's encoded bytes; then a file of a
/// decent size is closed.
const SEAL_ENCODED_SHARE: usize = 8;

/// Files on their way at the same time when everything is closed: a flush over many days waits for the store, not for each
/// file in turn.
const CONCURRENT_FILES: usize = 8;

/// Limits of a [`TableWriter`].
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// A file is closed and uploaded at about this size.
    pub target_file_bytes: usize,
    /// When open files hold more than this, row groups are ended and files are closed early.
    pub memory_limit_bytes: usize,
    /// zstd level, 1 to 22. On rows of 520 bytes level 1 encodes half as fast again as level 3, into smaller files.
    pub compression_level: i32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { target_file_bytes: 32 << 20, memory_limit_bytes: 64 << 20, compression_level: 1 }
    }
}

/// Open files of one table, one per partition at most, and the files that were closed since the last [`Self::finish`].
///
/// ```text
/// write ─▶ open file (rows wait, then are encoded) ─▶ upload ─▶ staged ─┬─ finish ──────────▶ StagedFiles ─▶ commit
///                                                                      └─ finish_without ─▶ (rewritten) ──┘
/// ```
///
/// Not cancel-safe: after a dropped or failed call every further one fails, and [`Self::discard`] cleans up.
pub struct TableWriter {
    target: Arc<Target>,
    options: WriterOptions,
    open: BTreeMap<Partition, OpenFile>,
    staged: Vec<StagedFile>,
    staging: Staging,
    broken: bool,
    encode_from_bytes: usize,
}

/// How memory is freed next.
enum Relief {
    Seal(Partition),
    Close(Partition),
}

impl TableWriter {
    /// A writer without open files for a table. Uploads wait out a store's transient errors for as long as `patience` lasts; the
    /// encoded files are held meanwhile.
    ///
    /// # Errors
    /// [`LakeError::Encode`] for a compression level that zstd does not have.
    pub fn new(table: &LakeTable, options: WriterOptions, patience: Patience) -> Result<Self, LakeError> {
        Self::under(table.rules.progress.app_id(), table, options, patience)
    }

    /// The same for files that another application id's commit will name.
    pub(super) fn under(
        app_id: String,
        table: &LakeTable,
        options: WriterOptions,
        patience: Patience,
    ) -> Result<Self, LakeError> {
        Self::of_columns(app_id, table, &table.schema, options, patience)
    }

    /// The same for columns that the table is about to have.
    pub(super) fn of_columns(
        app_id: String,
        table: &LakeTable,
        schema: &Arc<LakeSchema>,
        options: WriterOptions,
        patience: Patience,
    ) -> Result<Self, LakeError> {
        let (location, compression_level) = (table.location().to_owned(), options.compression_level);
        let encoding =
            Encoding::new(Arc::clone(schema), compression_level).map_err(|error| encode_error(&location, &error))?;
        let target = Target {
            store: table.log.store.clone(),
            location,
            lake: Arc::clone(schema),
            encoding: Arc::new(encoding),
            compression_level,
            patience,
            app_id,
            known_version: Arc::new(AtomicU64::new(table.version())),
        };
        Ok(Self::on(Arc::new(target), options))
    }

    /// A second writer of the same table, with nothing open: for a transaction in progress, whose files must not join those of
    /// others.
    pub fn another(&self) -> TableWriter {
        Self::on(Arc::clone(&self.target), self.options)
    }

    /// [`Self::another`] that holds no more than this.
    pub fn another_within(&self, memory_limit_bytes: usize) -> TableWriter {
        Self::on(Arc::clone(&self.target), WriterOptions { memory_limit_bytes, ..self.options })
    }

    fn on(target: Arc<Target>, options: WriterOptions) -> Self {
        let (open, staged, staging) = (BTreeMap::new(), Vec::new(), Staging::on(Arc::clone(&target)));
        Self { target, options, open, staged, staging, broken: false, encode_from_bytes: ENCODE_FROM_BYTES }
    }

    /// What all writers of the table share.
    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// A file that [`Self::finish`] handed out will not be committed after all.
    pub async fn give_up(&mut self, file: StagedFile) {
        self.staging.supersede(Path::from(file.path)).await;
    }

    /// The end of a writer none of whose files were or will be committed: all that it ever uploaded is removed. `handed_out` is what
    /// [`Self::finish`] has returned.
    ///
    /// # Errors
    /// What the store says; what it left is then for the next process.
    pub async fn abandon(mut self, handed_out: Vec<StagedFile>) -> Result<(), LakeError> {
        for file in handed_out {
            self.staging.take_back(Path::from(file.path));
        }
        self.staging.discard().await
    }

    /// Encodes smaller pieces than an ordinary writer does.
    #[cfg(test)]
    pub(super) fn encode_from(&mut self, bytes: usize) {
        self.encode_from_bytes = bytes;
    }

    /// Adds the rows of one partition. Encoding runs beside the reactor; a file that is full is uploaded before this returns.
    /// Transaction ids are kept in arrival order for [`Self::finish_without`]. Files have the columns that the rows have: when those
    /// change, the open files are closed first.
    pub async fn write(&mut self, mut batch: PartitionBatch) -> Result<(), LakeError> {
        self.begin()?;
        let partition = batch.partition;
        if !self.target.has_columns_of(&batch.rows.schema()) {
            self.close_all().await?;
            self.target = Arc::new(self.target.for_rows(&batch.rows.schema())?);
        }
        batch.rows = self.target.conform(batch.rows)?;
        if batch.rows.num_rows() > 0 {
            let file = self.open.entry(partition).or_default();
            file.push(batch).map_err(|reason| self.target.unfit(reason.to_owned()))?;
            if file.waiting_bytes() >= self.encode_from_bytes {
                self.encode(partition).await?;
            }
            self.keep_within_memory().await?;
        }
        self.broken = false;
        Ok(())
    }

    /// The table's columns have changed ([`LakeTable::evolve`]). Open files are closed with the columns that they have; files in which
    /// a column has a narrower type than the table's now are written again.
    pub async fn retarget(&mut self, table: &LakeTable) -> Result<(), LakeError> {
        if Arc::ptr_eq(&self.target.lake, &table.schema) {
            return Ok(());
        }
        self.begin()?;
        self.close_all().await?;
        self.target = Arc::new(self.target.of_columns(&table.schema)?);
        for file in std::mem::take(&mut self.staged) {
            if self.target.for_file(&file.encoding)?.encoding.has_types_of(&file.encoding) {
                self.staged.push(file);
            } else {
                let all = 0..file.rows;
                self.replace(file, std::slice::from_ref(&all)).await?;
            }
        }
        self.broken = false;
        Ok(())
    }

    /// Memory held by rows, their transaction ids and open files, compression contexts included. Closing files frees it.
    pub fn memory_bytes(&self) -> usize {
        self.open.values().map(OpenFile::memory_bytes).sum()
    }

    /// Memory held by the list of files that are uploaded and not yet handed over; only [`Self::finish`] frees it.
    pub fn staged_bytes(&self) -> usize {
        self.staged.iter().map(StagedFile::memory_bytes).sum()
    }

    /// Frees memory, at the least harm to the files: ends a row group early, or closes and uploads a file; false when nothing is
    /// open. For an owner of several writers that share a budget.
    pub async fn relieve(&mut self) -> Result<bool, LakeError> {
        if self.open.is_empty() {
            return Ok(false);
        }
        self.begin()?;
        self.relieve_once().await?;
        self.broken = false;
        Ok(true)
    }

    /// Closes and uploads every open file; returns all files since the last call. The files of a partition are in the order of
    /// their rows' arrival.
    pub async fn finish(&mut self) -> Result<Vec<StagedFile>, LakeError> {
        self.begin()?;
        self.close_all().await?;
        Ok(self.hand_over())
    }

    /// [`Self::finish`] for a transaction some of whose subtransactions were rolled back: their rows are left out. Only uploaded
    /// files that hold such rows are read and written again, one at a time; one without any other row vanishes.
    pub async fn finish_without(&mut self, aborted: &XidSet) -> Result<Vec<StagedFile>, LakeError> {
        if aborted.is_empty() {
            return self.finish().await;
        }
        self.begin()?;
        self.drop_waiting(aborted).await?;
        self.close_all().await?;
        for file in std::mem::take(&mut self.staged) {
            let live = file.xids.as_ref().filter(|xids| xids.touches(aborted)).map(|xids| xids.live(aborted));
            match live {
                None => self.staged.push(file),
                Some(live) => self.replace(file, &live).await?,
            }
        }
        Ok(self.hand_over())
    }

    /// Every file that [`Self::finish`] has returned so far was committed to the table, and none is in question any more. To be
    /// called after each commit.
    pub async fn committed(&mut self, table: &LakeTable) {
        self.staging.committed(table.version()).await;
    }

    /// The end of this writer: removes every file uploaded since the last [`Self::finish`], and then the sign that there may be
    /// any. It stays if files were handed over without a [`Self::committed`]: whether they are in the log is for the next process
    /// to learn, see [`remove_orphans`](super::remove_orphans).
    ///
    /// # Errors
    /// What the store says; what it left is then for the next process too.
    pub async fn discard(self) -> Result<(), LakeError> {
        self.staging.discard().await
    }

    /// Ends a call that went well.
    fn hand_over(&mut self) -> Vec<StagedFile> {
        self.staging.hand_over(!self.staged.is_empty());
        self.broken = false;
        std::mem::take(&mut self.staged)
    }

    async fn close_all(&mut self) -> Result<(), LakeError> {
        let mut planned = Vec::with_capacity(self.open.len());
        for (partition, file) in std::mem::take(&mut self.open) {
            planned.push((partition, file, self.staging.next_path(partition).await?));
        }
        let target = Arc::clone(&self.target);
        let mut uploads = futures::stream::iter(planned)
            .map(|(partition, file, path)| target.upload(partition, file, path))
            .buffered(CONCURRENT_FILES);
        while let Some(file) = uploads.try_next().await? {
            self.staged.push(file);
        }
        Ok(())
    }

    /// Rows that are not encoded yet need no file of theirs to be written again.
    async fn drop_waiting(&mut self, aborted: &XidSet) -> Result<(), LakeError> {
        let (mut open, aborted) = (std::mem::take(&mut self.open), aborted.clone());
        let dropped = self.target.beside_the_reactor(move || {
            for file in open.values_mut() {
                file.drop_waiting(&aborted)?;
            }
            open.retain(|_, file| !file.is_empty());
            Ok(open)
        });
        self.open = dropped.await?;
        Ok(())
    }

    /// Stages the live rows of a file in its stead.
    async fn replace(&mut self, file: StagedFile, live: &[Range<u64>]) -> Result<(), LakeError> {
        fail_points::reach("lake.before_rewrite");
        if !live.is_empty() {
            let target = self.target.for_file(&file.encoding)?;
            let encoded = keep_live_rows(&target, &file, live).await?;
            let path = self.staging.next_path(file.partition).await?;
            let of_live = |runs: &Runs| runs.of_rows(live);
            let (xids, eras) = (file.xids.as_ref().map(of_live), file.eras.as_ref().map(of_live));
            let finished = FinishedFile { encoded, xids, eras };
            self.staged.push(target.put_file(file.partition, finished, path).await?);
        }
        fail_points::reach("lake.after_rewrite");
        self.staging.supersede(Path::from(file.path)).await;
        Ok(())
    }

    /// Marks the writer broken until the call that began here ends well.
    fn begin(&mut self) -> Result<(), LakeError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(LakeError::WriterBroken { location: self.target.location.clone() });
        }
        Ok(())
    }

    async fn encode(&mut self, partition: Partition) -> Result<(), LakeError> {
        let Some(file) = self.open.remove(&partition) else { return Ok(()) };
        let file = self.target.encode(file).await?;
        let full = file.encoded_bytes() >= self.options.target_file_bytes;
        self.open.insert(partition, file);
        if full { self.close(partition).await } else { Ok(()) }
    }

    async fn keep_within_memory(&mut self) -> Result<(), LakeError> {
        while !self.open.is_empty() && self.memory_bytes() > self.options.memory_limit_bytes {
            self.relieve_once().await?;
        }
        Ok(())
    }

    async fn relieve_once(&mut self) -> Result<(), LakeError> {
        match self.relief() {
            None => Ok(()),
            Some(Relief::Close(partition)) => self.close(partition).await,
            Some(Relief::Seal(partition)) => {
                let Some(file) = self.open.remove(&partition) else { return Ok(()) };
                let file = self.target.seal(file).await?;
                self.open.insert(partition, file);
                Ok(())
            }
        }
    }

    /// With rows of many partitions at once, nearly all memory is in rows that wait and in compression contexts, and files closed
    /// to free it would be tiny. Ended row groups are small too, but a file of many of them is one file.
    fn relief(&self) -> Option<Relief> {
        let most = |measure: fn(&OpenFile) -> usize| {
            self.open.iter().map(|(partition, file)| (measure(file), *partition)).max()
        };
        let ((loose, sealable), (encoded, closable)) = (most(OpenFile::loose_bytes)?, most(OpenFile::encoded_bytes)?);
        if loose >= SEAL_FROM_BYTES.max(encoded / SEAL_ENCODED_SHARE) {
            return Some(Relief::Seal(sealable));
        }
        Some(Relief::Close(if encoded > 0 { closable } else { sealable }))
    }

    async fn close(&mut self, partition: Partition) -> Result<(), LakeError> {
        let Some(file) = self.open.remove(&partition) else { return Ok(()) };
        let path = self.staging.next_path(partition).await?;
        let staged = self.target.upload(partition, file, path).await?;
        self.staged.push(staged);
        Ok(())
    }
}
