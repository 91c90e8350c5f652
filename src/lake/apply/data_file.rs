//! Reading data files of the table back, whoever wrote them: some columns or all, some rows or all, as the table's columns are today.

use crate::lake::error::LakeError;
use crate::lake::target::Target;
use bytes::Bytes;
use deltalake::arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use deltalake::arrow::compute::{CastOptions, cast_with_options};
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::error::ArrowError;
use deltalake::logstore::object_store::path::Path;
use deltalake::parquet::arrow::ProjectionMask;
use deltalake::parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use deltalake::parquet::arrow::async_reader::{
    AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder,
};
use deltalake::parquet::errors::{ParquetError, Result as ParquetResult};
use deltalake::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 4_096;

/// Where a data file is.
#[derive(Clone)]
pub(in crate::lake) struct DataFile {
    pub(in crate::lake) target: Arc<Target>,
    pub(in crate::lake) path: Path,
    pub(in crate::lake) size_bytes: u64,
}

/// Rows of a file.
pub(in crate::lake) struct Rows {
    file: DataFile,
    stream: ParquetRecordBatchStream<DataFile>,
}

impl DataFile {
    /// Opens the file for the columns `wanted`, those of them that it has; all when None. With `selection`, for these rows alone.
    pub(in crate::lake) async fn rows(
        &self,
        wanted: Option<&[&str]>,
        selection: Option<RowSelection>,
    ) -> Result<Rows, LakeError> {
        // A writer may have left its own Arrow schema in the file; Parquet's types say what the values are.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let opened = ParquetRecordBatchStreamBuilder::new_with_options(self.clone(), options).await;
        let mut builder = opened.map_err(|error| self.failed(error))?.with_batch_size(BATCH_ROWS);
        if let Some(wanted) = wanted {
            let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.iter().copied());
            builder = builder.with_projection(mask);
        }
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().map_err(|error| self.failed(error))?;
        Ok(Rows { file: self.clone(), stream })
    }

    /// The names of the columns that the file has.
    pub(in crate::lake) async fn columns(&self) -> Result<BTreeSet<String>, LakeError> {
        let metadata = self.clone().get_metadata(None).await.map_err(|error| self.failed(error))?;
        let fields = metadata.file_metadata().schema_descr().root_schema().get_fields().iter();
        Ok(fields.map(|field| field.name().to_owned()).collect())
    }

    /// How many rows the file has.
    pub(in crate::lake) async fn count(&self) -> Result<u64, LakeError> {
        let metadata = self.clone().get_metadata(None).await.map_err(|error| self.failed(error))?;
        Ok(u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0))
    }

    /// Whether the file has one of these columns.
    pub(in crate::lake) async fn has_any(&self, columns: &[String]) -> Result<bool, LakeError> {
        let metadata = self.clone().get_metadata(None).await.map_err(|error| self.failed(error))?;
        let schema = metadata.file_metadata().schema_descr();
        Ok(schema.columns().iter().any(|column| columns.iter().any(|name| name == column.name())))
    }

    /// The error of a file that cannot be read; that of the store, where it is the reason.
    pub(in crate::lake) fn failed(&self, error: ParquetError) -> LakeError {
        let reason = match error {
            ParquetError::External(source) => match source.downcast::<LakeError>() {
                Ok(error) => return *error,
                Err(other) => other.to_string(),
            },
            other => other.to_string(),
        };
        LakeError::DataFile { location: self.target.location.clone(), path: self.path.to_string(), reason }
    }

    /// A batch of the file under `schema`: columns by name, in their types of today; one that the file lacks is NULL.
    pub(in crate::lake) fn adapt(&self, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
        adapt(rows, schema).map_err(|error| self.failed(error.into()))
    }
}

impl Rows {
    /// The next rows, in the file's order; None behind the last.
    pub(in crate::lake) async fn next(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        self.stream.try_next().await.map_err(|error| self.file.failed(error))
    }
}

/// A batch under a schema, by name: other types are cast, which fails where a value does not fit, and missing columns are NULL.
pub(super) fn adapt(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let strictly = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<deltalake::arrow::datatypes::Field>| match rows.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
        Some(column) => cast_with_options(column, field.data_type(), &strictly),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

impl AsyncFileReader for DataFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { self.target.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size_bytes;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

fn external(error: LakeError) -> ParquetError {
    ParquetError::External(Box::new(error))
}
