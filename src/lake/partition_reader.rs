//! A partition read back as its log names it, file by file and byte by byte: for those who check the lake (R4), and not for writers.
//!
//! A file is fetched once, to a temporary file: what is hashed and what is read as rows are the same bytes, and memory stays flat whatever
//! a file's size.

use super::active::{ActiveFile, Wanted};
use super::error::LakeError;
use super::location::{LakeLocation, shown};
use super::log::{LOG_FOLDER, Log};
use crate::base::{Partition, PartitionBy};
use deltalake::arrow::array::RecordBatch;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt};
use deltalake::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::File;
use tokio::io::AsyncWriteExt;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 4_096;

/// A table at one version.
#[derive(Debug)]
pub struct PartitionReader {
    log: Log,
    by: PartitionBy,
    version: u64,
}

/// A data file as the log names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoredFile {
    /// Below the table's root.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
}

/// What is wrong with a data file.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// The log names it, and it is not there.
    #[error("the file {path} of {location} is missing")]
    Missing {
        /// The table's URL.
        location: String,
        /// Below the table's root.
        path: String,
    },
    /// It has another size than the log says.
    #[error("the file {path} of {location} has {found} bytes, and the log says {expected}")]
    Size {
        /// The table's URL.
        location: String,
        /// Below the table's root.
        path: String,
        /// What the log says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It is no Parquet file, or a broken one.
    #[error("the file {path} of {location} cannot be read: {reason}")]
    Unreadable {
        /// The table's URL.
        location: String,
        /// Below the table's root.
        path: String,
        /// The library's reason.
        reason: String,
    },
    /// The store's fault, not the file's; or the temporary file's.
    #[error(transparent)]
    Lake(#[from] LakeError),
}

/// A data file's bytes, here.
#[derive(Debug)]
pub struct FetchedFile {
    file: File,
    path: String,
    location: String,
    /// SHA-256 of the bytes, in hexadecimal.
    pub sha256: String,
    /// The store's own tag of them, where it has one that outlives a move to another storage class.
    pub e_tag: Option<String>,
}

impl PartitionReader {
    /// Opens a table at its newest version.
    ///
    /// # Errors
    /// [`LakeError::Missing`], a log that cannot be read, and what the store says.
    pub async fn open(location: &LakeLocation, path: &str) -> Result<Self, LakeError> {
        let url = location.table_url(path)?;
        let store = location.log_store_at(&url)?.object_store(None);
        let folder = Path::from(path).join(LOG_FOLDER);
        let log = Log { store, location: shown(&url), lake: location.clone(), folder };
        let Some(state) = log.read().await? else { return Err(LakeError::Missing { location: log.location }) };
        let has_days = state.metadata.partition_columns.iter().any(|column| column == "day");
        let by = if has_days { PartitionBy::Day } else { PartitionBy::Month };
        Ok(Self { log, by, version: state.version })
    }

    /// The version that is read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a partition is a day or a month.
    pub fn partition_by(&self) -> PartitionBy {
        self.by
    }

    /// What an application has recorded in the log last, if anything.
    pub(super) async fn recorded(&self, app_id: &str) -> Result<Option<i64>, LakeError> {
        Ok(self.log.read().await?.and_then(|state| state.transactions.get(app_id).copied()))
    }

    /// The same table at its newest version.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn newest(&self) -> Result<Self, LakeError> {
        let log = self.log.clone();
        let Some(state) = log.read().await? else { return Err(LakeError::Missing { location: log.location }) };
        Ok(Self { log, by: self.by, version: state.version })
    }

    /// The files of a partition.
    ///
    /// # Errors
    /// A log that cannot be read, and what the store says.
    pub async fn files(&self, partition: Partition) -> Result<Vec<StoredFile>, LakeError> {
        let wanted = Wanted::Of(BTreeSet::from([partition]));
        let files = self.log.active_files(self.version, self.by, &wanted).await?;
        Ok(files.iter().map(stored).collect())
    }

    /// The files of every partition.
    ///
    /// # Errors
    /// As [`Self::files`].
    pub async fn partitions(&self) -> Result<BTreeMap<Partition, Vec<StoredFile>>, LakeError> {
        let mut partitions: BTreeMap<Partition, Vec<StoredFile>> = BTreeMap::new();
        for file in self.log.active_files(self.version, self.by, &Wanted::All).await? {
            partitions.entry(file.partition).or_default().push(stored(&file));
        }
        Ok(partitions)
    }

    /// Brings a file here, whole.
    ///
    /// # Errors
    /// A file that is missing or has another size than the log says; what the store says; a full temporary folder.
    pub async fn fetch(&self, wanted: &StoredFile) -> Result<FetchedFile, FileFault> {
        let (location, path) = (self.log.location.clone(), wanted.path.clone());
        let failed = |error: &ObjectStoreError| LakeError::store("read from", &location, error);
        let here = |error: &std::io::Error| LakeError::io("write a temporary file of", &location, error);
        let place = Path::parse(&path).unwrap_or_else(|_| Path::from(path.as_str()));
        let found = match self.log.store.get(&place).await {
            Ok(found) => found,
            Err(ObjectStoreError::NotFound { .. }) => return Err(FileFault::Missing { location, path }),
            Err(error) => return Err(failed(&error).into()),
        };
        let e_tag = self.lasting_tag(found.meta.e_tag.clone());
        let made = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(std::io::Error::other);
        let mut file = tokio::fs::File::from_std(made.and_then(|file| file).map_err(|error| here(&error))?);
        let (mut chunks, mut hash, mut size) = (found.into_stream(), Sha256::new(), 0);
        while let Some(chunk) = chunks.try_next().await.map_err(|error| failed(&error))? {
            hash.update(&chunk);
            size += u64::try_from(chunk.len()).unwrap_or(0);
            file.write_all(&chunk).await.map_err(|error| here(&error))?;
        }
        file.flush().await.map_err(|error| here(&error))?;
        if size != wanted.size_bytes {
            return Err(FileFault::Size { location, path, expected: wanted.size_bytes, found: size });
        }
        let sha256 = hexadecimal(&hash.finalize());
        Ok(FetchedFile { file: file.into_std().await, path, location, sha256, e_tag })
    }

    /// Asks for a file without reading it, as one that lies in an archive of the store must be: whether it is there, with the size that
    /// the log says. Returns the store's tag.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn look_for(&self, wanted: &StoredFile) -> Result<Option<String>, FileFault> {
        let (location, path) = (self.log.location.clone(), wanted.path.clone());
        let place = Path::parse(&path).unwrap_or_else(|_| Path::from(path.as_str()));
        match self.log.store.head(&place).await {
            Ok(found) if found.size == wanted.size_bytes => Ok(self.lasting_tag(found.e_tag)),
            Ok(found) => Err(FileFault::Size { location, path, expected: wanted.size_bytes, found: found.size }),
            Err(ObjectStoreError::NotFound { .. }) => Err(FileFault::Missing { location, path }),
            Err(error) => Err(LakeError::store("read from", &location, &error).into()),
        }
    }

    /// A local disk's tag says when a file was written, which a copy of the lake does not keep.
    fn lasting_tag(&self, e_tag: Option<String>) -> Option<String> {
        e_tag.filter(|_| !self.log.location.starts_with("file:"))
    }
}

impl FetchedFile {
    /// Gives every row to `take`, beside the reactor, and returns what it made of them. Columns have Parquet's own types.
    ///
    /// # Errors
    /// [`FileFault::Unreadable`], also for what `take` refuses.
    pub async fn read<T, E>(
        self,
        mut taken: T,
        take: impl Fn(&mut T, &RecordBatch) -> Result<(), E> + Send + 'static,
    ) -> Result<T, FileFault>
    where
        T: Send + 'static,
        E: std::fmt::Display,
    {
        let Self { file, path, location, .. } = self;
        let read = tokio::task::spawn_blocking(move || {
            // A writer may have left its own Arrow schema in the file; Parquet's types say what the values are.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
            let reader = builder.and_then(|builder| builder.with_batch_size(BATCH_ROWS).build());
            for rows in reader.map_err(|error| error.to_string())? {
                take(&mut taken, &rows.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
            }
            Ok::<T, String>(taken)
        });
        let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
        read.map_err(|reason| FileFault::Unreadable { location, path, reason })
    }
}

fn stored(file: &ActiveFile) -> StoredFile {
    StoredFile { path: file.object_path(), size_bytes: file.size_bytes }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
