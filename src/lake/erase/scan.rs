//! Reading files whole for the rows that go, and writing what stays of those that hold some.
//!
//! A file is read once to learn which of its rows go, a bit for each, and a second time only if there are some: most files stay as they are,
//! and whoever sums up what goes hears of each row once.

use super::abandon;
use crate::base::Partition;
use crate::buffer::PartitionBatch;
use crate::lake::active::ActiveFile;
use crate::lake::apply::data_file::DataFile;
use crate::lake::error::LakeError;
use crate::lake::staged::StagedFile;
use crate::lake::writer::TableWriter;
use deltalake::arrow::array::{BooleanArray, RecordBatch};
use deltalake::arrow::compute::filter_record_batch;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::error::ArrowError;
use deltalake::logstore::object_store::path::Path;
use deltalake::parquet::errors::ParquetError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Says of each of these rows of one partition whether it goes; NULL is no. They have the table's columns of today, and no partition
/// columns. An error names no value of a row.
pub type Condition = Arc<dyn Fn(Partition, &RecordBatch) -> Result<BooleanArray, String> + Send + Sync>;

/// Which rows are to go.
#[derive(Clone)]
pub struct EraseOrder {
    /// Where they are looked for.
    pub partitions: BTreeSet<Partition>,
    /// Which of the rows there.
    pub condition: Condition,
}

/// What goes from one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erasure {
    /// Rows that were looked at.
    pub rows: u64,
    /// Those among them that go.
    pub erased: u64,
    /// Files that hold such rows.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// An order being carried out.
pub(super) struct Scan<T, F> {
    condition: Condition,
    each: F,
    rewrites: bool,
    pub(super) taken: T,
    pub(super) found: BTreeMap<Partition, Erasure>,
    pub(super) removed: Vec<ActiveFile>,
    pub(super) added: Vec<StagedFile>,
    pub(super) writer: TableWriter,
}

impl<T, F> Scan<T, F>
where
    F: FnMut(&mut T, Partition, &RecordBatch) -> Result<(), String>,
{
    pub(super) fn new(order: &EraseOrder, (taken, each): (T, F), writer: TableWriter, rewrites: bool) -> Self {
        let condition = Arc::clone(&order.condition);
        let (found, removed, added) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { condition, each, rewrites, taken, found, removed, added, writer }
    }

    /// Reads these files. After an error nothing of what was written stays.
    pub(super) async fn read(mut self, files: Vec<ActiveFile>) -> Result<Self, LakeError> {
        match self.read_all(files).await {
            Ok(()) => Ok(self),
            Err(error) => {
                abandon(self.writer, self.added).await;
                Err(error)
            }
        }
    }

    async fn read_all(&mut self, files: Vec<ActiveFile>) -> Result<(), LakeError> {
        let target = Arc::clone(self.writer.target());
        let schema = target.encoding.schema.arrow.clone();
        for file in files {
            let path = Path::parse(file.object_path()).unwrap_or_else(|_| Path::from(file.object_path()));
            let data = DataFile { target: Arc::clone(&target), path, size_bytes: file.size_bytes };
            let Some(stays) = self.judge(&file, &data, &schema).await? else { continue };
            if self.rewrites {
                self.write_rest(&file, &data, (&stays, &schema)).await?;
            }
            self.removed.push(file);
        }
        if self.rewrites {
            self.added = self.writer.finish().await?;
        }
        Ok(())
    }

    /// Which rows of a file stay, batch by batch; None when all of them do.
    async fn judge(
        &mut self,
        file: &ActiveFile,
        data: &DataFile,
        schema: &SchemaRef,
    ) -> Result<Option<Vec<BooleanArray>>, LakeError> {
        let (partition, mut stays, mut erased) = (file.partition, Vec::new(), 0);
        let found = self.found.entry(partition).or_default();
        let mut rows = data.rows(None, None).await?;
        while let Some(batch) = rows.next().await? {
            let batch = data.adapt(&batch, schema)?;
            let goes = (self.condition)(partition, &batch).map_err(|reason| unjudged(data, reason))?;
            if goes.len() != batch.num_rows() {
                return Err(unjudged(data, format!("it gave {} answers for {} rows", goes.len(), batch.num_rows())));
            }
            let goes: BooleanArray = goes.iter().map(|goes| Some(goes == Some(true))).collect();
            let going = filter_record_batch(&batch, &goes).map_err(|error| failed(data, error))?;
            if going.num_rows() > 0 {
                (self.each)(&mut self.taken, partition, &going).map_err(|reason| unjudged(data, reason))?;
            }
            found.rows += batch.num_rows() as u64;
            erased += going.num_rows() as u64;
            stays.push(goes.iter().map(|goes| Some(goes == Some(false))).collect());
        }
        if erased == 0 {
            return Ok(None);
        }
        found.erased += erased;
        found.files += 1;
        found.bytes += file.size_bytes;
        Ok(Some(stays))
    }

    /// The rows of a file that stay go to the writer. A file of which none stays gets no successor.
    async fn write_rest(
        &mut self,
        file: &ActiveFile,
        data: &DataFile,
        (stays, schema): (&[BooleanArray], &SchemaRef),
    ) -> Result<(), LakeError> {
        if stays.iter().all(|stays| stays.true_count() == 0) {
            return Ok(());
        }
        let changed = || data.failed(ParquetError::General("it changed while it was read".to_owned()));
        let mut rows = data.rows(None, None).await?;
        for stays in stays {
            let batch = rows.next().await?.filter(|batch| batch.num_rows() == stays.len()).ok_or_else(changed)?;
            let batch = data.adapt(&batch, schema)?;
            let rest = filter_record_batch(&batch, stays).map_err(|error| failed(data, error))?;
            if rest.num_rows() > 0 {
                let partition = file.partition;
                self.writer.write(PartitionBatch { partition, rows: rest, xids: None, eras: None }).await?;
            }
        }
        match rows.next().await? {
            None => Ok(()),
            Some(_) => Err(changed()),
        }
    }
}

fn failed(data: &DataFile, error: ArrowError) -> LakeError {
    data.failed(error.into())
}

fn unjudged(data: &DataFile, reason: String) -> LakeError {
    LakeError::Unjudged { location: data.target.location.clone(), reason }
}
