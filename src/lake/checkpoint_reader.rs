//! Some columns of a checkpoint, row by row.
//!
//! Mostly those that do not grow with the table: protocol, schema and transactions. The files' columns, nearly all of a checkpoint,
//! are fetched only when files are to be rewritten.

use super::actions::Line;
use bytes::Bytes;
use deltalake::arrow::json::LineDelimitedWriter;
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use deltalake::parquet::arrow::ProjectionMask;
use deltalake::parquet::arrow::arrow_reader::ArrowReaderOptions;
use deltalake::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use deltalake::parquet::errors::{ParquetError, Result as ParquetResult};
use deltalake::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt, TryStreamExt};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

/// Why a checkpoint could not be read.
pub(super) enum CheckpointError {
    /// The store failed.
    Store(ObjectStoreError),
    /// The file is not a checkpoint.
    Format(String),
}

/// The lines of one checkpoint file that are neither files nor removed files.
pub(super) async fn checkpoint_lines(store: ObjectStoreRef, file: ObjectMeta) -> Result<Vec<Line>, CheckpointError> {
    let mut lines = Vec::new();
    let columns = ["protocol", "metaData", "txn"];
    each_checkpoint_row(store, file, columns, |line: Line| lines.extend(line.if_any())).await?;
    Ok(lines)
}

/// Hands every row of one checkpoint file to `each`, reduced to some of its columns.
pub(super) async fn each_checkpoint_row<Row: DeserializeOwned>(
    store: ObjectStoreRef,
    file: ObjectMeta,
    columns: impl IntoIterator<Item = &'static str>,
    mut each: impl FnMut(Row),
) -> Result<(), CheckpointError> {
    let builder = ParquetRecordBatchStreamBuilder::new(StoredFile { store, file }).await?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut batches = builder.with_projection(mask).build()?;
    while let Some(batch) = batches.try_next().await? {
        let format = |error: &dyn std::fmt::Display| CheckpointError::Format(error.to_string());
        let mut text = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| format(&error))?;
        drop(writer);
        for row in serde_json::Deserializer::from_slice(&text).into_iter::<Row>() {
            each(row.map_err(|error| format(&error))?);
        }
    }
    Ok(())
}

impl From<ParquetError> for CheckpointError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(source) => match source.downcast::<ObjectStoreError>() {
                Ok(error) => Self::Store(*error),
                Err(other) => Self::Format(other.to_string()),
            },
            other => Self::Format(other.to_string()),
        }
    }
}

/// A file of known size, read in ranges.
struct StoredFile {
    store: ObjectStoreRef,
    file: ObjectMeta,
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.store.get_range(&self.file.location, range).map_err(external).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.file.location, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.file.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

fn external(error: ObjectStoreError) -> ParquetError {
    let source: Box<dyn Error + Send + Sync> = Box::new(error);
    ParquetError::External(source)
}
