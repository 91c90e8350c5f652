//! Where a table's files go and how they are made: encoding beside the reactor, uploads that outlast an outage.

use super::encoder::{EncodedFile, Encoding};
use super::error::LakeError;
use super::evolution::holds;
use super::open_file::{FinishedFile, OpenFile};
use super::patience::Patience;
use super::schema::LakeSchema;
use super::staged::StagedFile;
use crate::base::Partition;
use crate::ops::fail_points;
use bytes::Bytes;
use chrono::Utc;
use deltalake::arrow::compute::{CastOptions, cast_with_options};
use deltalake::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt, PutPayload};
use deltalake::parquet::errors::ParquetError;
use futures::TryStreamExt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Columns that are being encoded at the same time by all tables together: two files of an ordinary table, one of a wide one.
/// An encoder that is opened when a file is closed stands in nobody's account, and costs by the column.
const ENCODED_COLUMNS: u32 = 32;
static ENCODERS: Semaphore = Semaphore::const_new(ENCODED_COLUMNS as usize);

/// What all writers of one table share, and how the files look that are written now.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) store: ObjectStoreRef,
    pub(super) location: String,
    /// Every column that the table has.
    pub(super) lake: Arc<LakeSchema>,
    /// Of the files: those columns that the rows have.
    pub(super) encoding: Arc<Encoding>,
    pub(super) compression_level: i32,
    pub(super) patience: Patience,
    /// Whose progress the table's commits record.
    pub(super) app_id: String,
    /// The newest version of the table that the writers were told of.
    pub(super) known_version: Arc<AtomicU64>,
}

/// Objects that are removed at the same time.
const CONCURRENT_REMOVALS: usize = 8;

impl Target {
    /// The same place for a table whose columns are these; files have all of them.
    pub(super) fn of_columns(&self, lake: &Arc<LakeSchema>) -> Result<Self, LakeError> {
        let encoding = self.encode_as(Arc::clone(lake))?;
        Ok(Self { lake: Arc::clone(lake), encoding, ..self.clone() })
    }

    /// The same table for files with the columns that rows of this schema have.
    pub(super) fn for_rows(&self, rows: &Schema) -> Result<Self, LakeError> {
        let schema = self.lake.only(rows).map_or_else(|| Arc::clone(&self.lake), Arc::new);
        Ok(Self { encoding: self.encode_as(schema)?, ..self.clone() })
    }

    /// The same table for files with the columns of a file that is there, in their types of today.
    pub(super) fn for_file(&self, encoding: &Arc<Encoding>) -> Result<Self, LakeError> {
        let today = self.for_rows(&encoding.schema.arrow)?;
        let same = today.encoding.schema.arrow == encoding.schema.arrow;
        Ok(if same { Self { encoding: Arc::clone(encoding), ..today } } else { today })
    }

    fn encode_as(&self, schema: Arc<LakeSchema>) -> Result<Arc<Encoding>, LakeError> {
        let encoding = Encoding::new(schema, self.compression_level);
        encoding.map(Arc::new).map_err(|error| encode_error(&self.location, &error))
    }

    /// Whether the files have the columns of these rows, and no others.
    pub(super) fn has_columns_of(&self, rows: &Schema) -> bool {
        let own = self.encoding.schema.arrow.fields();
        own.len() == rows.fields().len() && own.iter().all(|field| rows.index_of(field.name()).is_ok())
    }

    /// The batch under the files' own schema: columns are found by name, a narrower type becomes the table's, NOT NULL must hold.
    pub(super) fn conform(&self, rows: RecordBatch) -> Result<RecordBatch, LakeError> {
        let expected = &self.encoding.schema.arrow;
        if rows.schema() == *expected {
            return Ok(rows);
        }
        let found = rows.schema();
        if let Some(other) = found.fields().iter().find(|field| expected.index_of(field.name()).is_err()) {
            return Err(self.unfit(format!("column {} is not the table's", other.name())));
        }
        for field in expected.fields() {
            let Some(column) = rows.column_by_name(field.name()) else {
                return Err(self.unfit(format!("column {} is missing", field.name())));
            };
            if column.data_type() != field.data_type() && !holds(field.data_type(), column.data_type()) {
                return Err(self.unfit(format!("column {} is {}", field.name(), column.data_type())));
            }
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(self.unfit(format!("column {} has NULLs", field.name())));
            }
        }
        widened(&rows, expected).map_err(|error| self.unfit(error.to_string()))
    }

    /// Rows that are not this table's.
    pub(super) fn unfit(&self, reason: String) -> LakeError {
        LakeError::Batch { location: self.location.clone(), reason }
    }

    pub(super) async fn encode(&self, mut file: OpenFile) -> Result<OpenFile, LakeError> {
        let encoding = self.encoding.clone();
        self.beside_the_reactor(move || {
            file.encode_waiting(&encoding)?;
            Ok(file)
        })
        .await
    }

    /// Turns all that a file holds into encoded bytes.
    pub(super) async fn seal(&self, mut file: OpenFile) -> Result<OpenFile, LakeError> {
        let encoding = self.encoding.clone();
        let _turn = self.encoder_turn().await;
        self.beside_the_reactor(move || {
            file.seal(&encoding)?;
            Ok(file)
        })
        .await
    }

    /// Finishes a file and puts it at `path`.
    pub(super) async fn upload(
        &self,
        partition: Partition,
        file: OpenFile,
        path: Path,
    ) -> Result<StagedFile, LakeError> {
        let encoding = self.encoding.clone();
        let finished = {
            let _turn = self.encoder_turn().await;
            self.beside_the_reactor(move || file.finish(&encoding)).await?
        };
        let finished = finished.ok_or_else(|| LakeError::Encode {
            location: self.location.clone(),
            reason: "a file without an encoder".to_owned(),
        })?;
        self.put_file(partition, finished, path).await
    }

    /// Puts a finished file at `path`.
    pub(super) async fn put_file(
        &self,
        partition: Partition,
        finished: FinishedFile,
        path: Path,
    ) -> Result<StagedFile, LakeError> {
        let FinishedFile { encoded, xids, eras } = finished;
        let encoding = Arc::clone(&self.encoding);
        let EncodedFile { payload, rows, statistics } = encoded;
        let size_bytes = payload.content_length() as u64;
        fail_points::reach("lake.before_upload");
        self.put(&path, payload).await?;
        fail_points::reach("lake.after_upload");
        let modified_millis = Utc::now().timestamp_millis();
        let (location, path) = (self.location.clone(), path.to_string());
        Ok(StagedFile {
            location,
            path,
            partition,
            size_bytes,
            rows,
            statistics,
            modified_millis,
            xids,
            eras,
            encoding,
        })
    }

    /// Puts an object, for as long as the owner has patience. The same bytes under the same name: an attempt that was lost and
    /// landed after all does no harm.
    pub(super) async fn put(&self, path: &Path, payload: PutPayload) -> Result<(), LakeError> {
        let mut waiting = self.patience.begin();
        loop {
            match self.store.put(path, payload.clone()).await {
                Ok(_) => break,
                Err(error) => waiting.wait_out(LakeError::store("write to", &self.location, &error)).await?,
            }
        }
        waiting.worked(&self.location);
        Ok(())
    }

    /// A whole object, for as long as the owner has patience.
    pub(super) async fn get(&self, path: &Path) -> Result<Bytes, LakeError> {
        let mut waiting = self.patience.begin();
        let bytes = loop {
            let read = match self.store.get(path).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match read {
                Ok(bytes) => break bytes,
                Err(error) => waiting.wait_out(LakeError::store("read from", &self.location, &error)).await?,
            }
        };
        waiting.worked(&self.location);
        Ok(bytes)
    }

    /// A part of an object, for as long as the owner has patience.
    pub(super) async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, LakeError> {
        let mut waiting = self.patience.begin();
        let bytes = loop {
            match self.store.get_range(path, range.clone()).await {
                Ok(bytes) => break bytes,
                Err(error) => waiting.wait_out(LakeError::store("read from", &self.location, &error)).await?,
            }
        };
        waiting.worked(&self.location);
        Ok(bytes)
    }

    /// The right to open an encoder that stands in no writer's account.
    pub(super) async fn encoder_turn(&self) -> Option<SemaphorePermit<'static>> {
        let columns = u32::try_from(self.encoding.schema.arrow.fields().len()).unwrap_or(u32::MAX);
        ENCODERS.acquire_many(columns.clamp(1, ENCODED_COLUMNS)).await.ok()
    }

    pub(super) async fn beside_the_reactor<T: Send + 'static>(
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

/// Removes objects; that one is not there is no error.
pub(super) async fn remove_all(
    store: &ObjectStoreRef,
    location: &str,
    paths: impl Iterator<Item = &Path> + Send,
) -> Result<(), LakeError> {
    futures::stream::iter(paths.map(Ok))
        .try_for_each_concurrent(CONCURRENT_REMOVALS, |path| async move {
            match store.delete(path).await {
                Ok(()) | Err(ObjectStoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(LakeError::store("delete from", location, &error)),
            }
        })
        .await
}

/// Rows under a schema whose columns they have, in types that hold theirs.
pub(super) fn widened(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let strictly = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &FieldRef| {
        let column = rows.column(rows.schema().index_of(field.name())?);
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &strictly)
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

pub(super) fn encode_error(location: &str, error: &ParquetError) -> LakeError {
    LakeError::Encode { location: location.to_owned(), reason: error.to_string() }
}
