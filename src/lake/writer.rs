//! Rows in, uploaded files out, within a memory budget.

use super::encoder::{EncodedFile, Encoder, Encoding};
use super::error::LakeError;
use super::staged::StagedFile;
use super::table::LakeTable;
use crate::base::Partition;
use crate::buffer::PartitionBatch;
use chrono::Utc;
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt};
use deltalake::parquet::errors::ParquetError;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Rows wait unencoded up to this size: an encoder costs far more memory than a small file's rows, and a flush often holds
/// a few rows of each of many days.
const ENCODE_FROM_BYTES: usize = 2 << 20;

/// Files on their way at the same time when everything is closed: a flush over many days waits for the store, not for each
/// file in turn.
const CONCURRENT_FILES: usize = 8;
/// Columns that are being encoded at the same time by all tables together: two files of an ordinary table, one of a wide one.
/// An encoder that is opened when a file is closed stands in nobody's account, and costs by the column.
const ENCODED_COLUMNS: u32 = 32;
static ENCODERS: Semaphore = Semaphore::const_new(ENCODED_COLUMNS as usize);

/// Limits of a [`TableWriter`].
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// A file is closed and uploaded at about this size.
    pub target_file_bytes: usize,
    /// When open files hold more than this, the largest is closed early.
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
/// Not cancel-safe: after a dropped or failed call every further one fails, and [`Self::discard`] cleans up.
pub struct TableWriter {
    target: Target,
    options: WriterOptions,
    open: BTreeMap<Partition, OpenFile>,
    staged: Vec<StagedFile>,
    /// Everything whose upload began, to be removed by `discard`.
    uploads: Vec<Path>,
    broken: bool,
}

/// Where files go and how they are made.
#[derive(Clone)]
struct Target {
    store: ObjectStoreRef,
    location: String,
    encoding: Arc<Encoding>,
}

#[derive(Default)]
struct OpenFile {
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    encoder: Option<Encoder>,
}

impl TableWriter {
    /// A writer without open files for a table.
    ///
    /// # Errors
    /// [`LakeError::Encode`] for a compression level that zstd does not have.
    pub fn new(table: &LakeTable, options: WriterOptions) -> Result<Self, LakeError> {
        let location = table.location().to_owned();
        let encoding = Encoding::new(table.schema.clone(), options.compression_level)
            .map_err(|error| encode_error(&location, &error))?;
        let target = Target { store: table.log.store.clone(), location, encoding: Arc::new(encoding) };
        let (open, staged, uploads) = (BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { target, options, open, staged, uploads, broken: false })
    }

    /// Adds the rows of one partition. Encoding runs beside the reactor; a file that is full is uploaded before this returns.
    pub async fn write(&mut self, batch: PartitionBatch) -> Result<(), LakeError> {
        self.begin()?;
        let rows = self.target.conform(batch.rows)?;
        if rows.num_rows() > 0 {
            let file = self.open.entry(batch.partition).or_default();
            file.waiting_bytes += rows.get_array_memory_size();
            file.waiting.push(rows);
            if file.waiting_bytes >= ENCODE_FROM_BYTES {
                self.encode(batch.partition).await?;
            }
            self.keep_within_memory().await?;
        }
        self.broken = false;
        Ok(())
    }

    /// Memory held by rows and open files, compression contexts included.
    pub fn memory_bytes(&self) -> usize {
        self.open.values().map(OpenFile::memory_bytes).sum()
    }

    /// Closes and uploads the open file that holds most memory; false when none is open. For an owner of several writers
    /// that share a budget.
    pub async fn close_largest(&mut self) -> Result<bool, LakeError> {
        let Some(partition) = self.largest() else { return Ok(false) };
        self.begin()?;
        self.close(partition).await?;
        self.broken = false;
        Ok(true)
    }

    /// Closes and uploads every open file; returns all files since the last call, in the order in which they were closed.
    pub async fn finish(&mut self) -> Result<Vec<StagedFile>, LakeError> {
        self.begin()?;
        let open = std::mem::take(&mut self.open);
        let planned: Vec<_> =
            open.into_iter().map(|(partition, file)| (partition, file, self.next_path(partition))).collect();
        let target = self.target.clone();
        let mut uploads = futures::stream::iter(planned)
            .map(|(partition, file, path)| target.upload(partition, file, path))
            .buffered(CONCURRENT_FILES);
        while let Some(file) = uploads.try_next().await? {
            self.staged.push(file);
        }
        self.uploads.clear();
        self.broken = false;
        Ok(std::mem::take(&mut self.staged))
    }

    /// Gives up: removes every file uploaded since the last [`Self::finish`]. What cannot be removed is an unreferenced
    /// file, which vacuum takes.
    pub async fn discard(self) -> Result<(), LakeError> {
        let (store, location) = (&self.target.store, &self.target.location);
        futures::stream::iter(self.uploads.iter().map(Ok))
            .try_for_each_concurrent(CONCURRENT_FILES, |path| async move {
                match store.delete(path).await {
                    Ok(()) | Err(ObjectStoreError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(LakeError::store("delete from", location, &error)),
                }
            })
            .await
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
        let full =
            file.encoder.as_ref().is_some_and(|encoder| encoder.encoded_bytes() >= self.options.target_file_bytes);
        self.open.insert(partition, file);
        if full { self.close(partition).await } else { Ok(()) }
    }

    async fn keep_within_memory(&mut self) -> Result<(), LakeError> {
        while self.memory_bytes() > self.options.memory_limit_bytes {
            let Some(partition) = self.largest() else { break };
            self.close(partition).await?;
        }
        Ok(())
    }

    fn largest(&self) -> Option<Partition> {
        let largest = self.open.iter().max_by_key(|(_, file)| file.memory_bytes());
        largest.map(|(partition, _)| *partition)
    }

    async fn close(&mut self, partition: Partition) -> Result<(), LakeError> {
        let Some(file) = self.open.remove(&partition) else { return Ok(()) };
        let path = self.next_path(partition);
        let staged = self.target.upload(partition, file, path).await?;
        self.staged.push(staged);
        Ok(())
    }

    /// A name that no other file ever has, noted for `discard`.
    fn next_path(&mut self, partition: Partition) -> Path {
        let number = self.uploads.len();
        let path = format!("{}/part-{number:05}-{}.zstd.parquet", partition.path(), Uuid::new_v4());
        let path = Path::from(path);
        self.uploads.push(path.clone());
        path
    }
}

impl OpenFile {
    fn memory_bytes(&self) -> usize {
        self.waiting_bytes + self.encoder.as_ref().map_or(0, Encoder::memory_bytes)
    }

    fn encode_waiting(&mut self, encoding: &Encoding) -> Result<(), ParquetError> {
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new(encoding)?,
        };
        for rows in self.waiting.drain(..) {
            encoder.write(&rows)?;
        }
        self.waiting_bytes = 0;
        self.encoder = Some(encoder);
        Ok(())
    }

    fn finish(mut self, encoding: &Encoding) -> Result<Option<EncodedFile>, ParquetError> {
        self.encode_waiting(encoding)?;
        self.encoder.map(|encoder| encoder.finish(&encoding.schema)).transpose()
    }
}

impl Target {
    /// The batch under the table's own schema: names and types must be equal, NOT NULL must hold.
    fn conform(&self, rows: RecordBatch) -> Result<RecordBatch, LakeError> {
        let expected = &self.encoding.schema.arrow;
        let refuse = |reason: String| LakeError::Batch { location: self.location.clone(), reason };
        let found = rows.schema();
        let fields = expected.fields().iter().zip(found.fields());
        if let Some((expected, found)) = fields.clone().find(|(expected, found)| expected.name() != found.name()) {
            return Err(refuse(format!("column {} stands where {} should", found.name(), expected.name())));
        }
        if let Some((expected, found)) = fields.clone().find(|(left, right)| left.data_type() != right.data_type()) {
            return Err(refuse(format!("column {} is {}", expected.name(), found.data_type())));
        }
        if found.fields().len() != expected.fields().len() {
            return Err(refuse(format!("{} columns instead of {}", found.fields().len(), expected.fields().len())));
        }
        for (field, column) in expected.fields().iter().zip(rows.columns()) {
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(refuse(format!("column {} has NULLs", field.name())));
            }
        }
        let columns = rows.columns().to_vec();
        RecordBatch::try_new(expected.clone(), columns).map_err(|error| refuse(error.to_string()))
    }

    async fn encode(&self, mut file: OpenFile) -> Result<OpenFile, LakeError> {
        let encoding = self.encoding.clone();
        self.beside_the_reactor(move || {
            file.encode_waiting(&encoding)?;
            Ok(file)
        })
        .await
    }

    async fn upload(&self, partition: Partition, file: OpenFile, path: Path) -> Result<StagedFile, LakeError> {
        let encoding = self.encoding.clone();
        let encoded = {
            let columns = u32::try_from(self.encoding.schema.arrow.fields().len()).unwrap_or(u32::MAX);
            let _turn = ENCODERS.acquire_many(columns.clamp(1, ENCODED_COLUMNS)).await;
            self.beside_the_reactor(move || file.finish(&encoding)).await?
        };
        let encoded = encoded.ok_or_else(|| LakeError::Encode {
            location: self.location.clone(),
            reason: "a file without an encoder".to_owned(),
        })?;
        let size_bytes = encoded.bytes.len() as u64;
        let put = self.store.put(&path, encoded.bytes.into()).await;
        put.map_err(|error| LakeError::store("write to", &self.location, &error))?;
        let modified_millis = Utc::now().timestamp_millis();
        let (rows, statistics) = (encoded.rows, encoded.statistics);
        let location = self.location.clone();
        Ok(StagedFile { location, path: path.to_string(), partition, size_bytes, rows, statistics, modified_millis })
    }

    async fn beside_the_reactor<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ParquetError> + Send + 'static,
    ) -> Result<T, LakeError> {
        let joined = tokio::task::spawn_blocking(work).await;
        let result = joined.map_err(|error| LakeError::Encode {
            location: self.location.clone(),
            reason: format!("the encoder stopped ({error})"),
        })?;
        result.map_err(|error| encode_error(&self.location, &error))
    }
}

fn encode_error(location: &str, error: &ParquetError) -> LakeError {
    LakeError::Encode { location: location.to_owned(), reason: error.to_string() }
}
