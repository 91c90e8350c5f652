//! Changes that wait for their flush: in memory, and beyond a limit as objects beside the table (B2).

use crate::base::Runs;
use crate::buffer::{ChangeBatch, change_batch};
use crate::lake::actions::PROCESS;
use crate::lake::error::LakeError;
use crate::lake::table::LakeTable;
use crate::lake::target::{Target, remove_all};
use crate::lake::writer::TableWriter;
use crate::ops::fail_points;
use bytes::Bytes;
use deltalake::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use deltalake::arrow::compute::concat_batches;
use deltalake::arrow::datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type};
use deltalake::arrow::error::ArrowError;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStore};
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::errors::Result as ParquetResult;
use deltalake::parquet::file::properties::WriterProperties;
use futures::TryStreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Below the table's root; readers and vacuum pass over it.
const FOLDER: &str = "_lakebed/changes";

/// In a spooled object: the (sub)transaction of each change.
const SUBTRANSACTION: &str = "lakebed_subtransaction";

/// The changes of one table, in order: those of whole transactions, or those of one transaction in progress.
pub struct ChangeSpool {
    target: Arc<Target>,
    memory_limit_bytes: usize,
    spooled: Vec<Spooled>,
    held: Vec<ChangeBatch>,
    held_bytes: usize,
    ends: Ends,
}

/// Where transactions end.
#[derive(Default)]
struct Ends {
    /// The last ordinal of each, in their order.
    last_ordinals: Vec<u32>,
    /// The commit record and the xid of the last one.
    last: Option<(u64, u32)>,
}

impl Ends {
    fn note(&mut self, keys: &RecordBatch) -> Result<(), ArrowError> {
        let ordinals = change_batch::column::<UInt32Type>(keys, change_batch::ORDINAL)?.values();
        let commit_lsns = change_batch::column::<UInt64Type>(keys, change_batch::COMMIT_LSN)?.values();
        let xids = change_batch::column::<UInt32Type>(keys, change_batch::XID)?.values();
        for ((ordinal, commit_lsn), xid) in ordinals.iter().zip(commit_lsns).zip(xids) {
            let known = self.last.replace((*commit_lsn, *xid)) == Some((*commit_lsn, *xid));
            match self.last_ordinals.last_mut().filter(|_| known) {
                Some(last) => *last = *ordinal,
                None => self.last_ordinals.push(*ordinal),
            }
        }
        Ok(())
    }
}

/// Changes in the store.
struct Spooled {
    keys: Path,
    patches: Option<Path>,
    with_subtransactions: bool,
}

impl ChangeSpool {
    /// An empty one for the table of a writer; what exceeds the limit goes to the store.
    pub fn new(writer: &TableWriter, memory_limit_bytes: usize) -> Self {
        let target = writer.target().clone();
        let (spooled, held, ends) = (Vec::new(), Vec::new(), Ends::default());
        Self { target, memory_limit_bytes, spooled, held, held_bytes: 0, ends }
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.spooled.is_empty() && self.held.is_empty()
    }

    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Adds changes behind all others.
    ///
    /// # Errors
    /// What the store says, once its owner has lost patience.
    pub async fn push(&mut self, batch: ChangeBatch) -> Result<(), LakeError> {
        if !batch.is_empty() {
            self.ends.note(&batch.keys).map_err(|error| self.target.unfit(error.to_string()))?;
            self.held_bytes += batch.memory_bytes();
            self.held.push(batch);
        }
        if self.held_bytes > self.memory_limit_bytes { self.relieve().await } else { Ok(()) }
    }

    /// Moves what is held to the store.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn relieve(&mut self) -> Result<(), LakeError> {
        fail_points::reach("apply.before_spool");
        while let Some(first) = self.held.first() {
            // A changed column in between makes another schema, hence another object.
            let alike = |batch: &ChangeBatch| {
                batch.keys.schema() == first.keys.schema() && batch.patches.schema() == first.patches.schema()
            };
            let end = self.held.iter().position(|batch| !alike(batch)).unwrap_or(self.held.len());
            let batches: Vec<ChangeBatch> = self.held.iter().take(end).cloned().collect();
            let spooled = self.put(batches).await?;
            self.spooled.push(spooled);
            self.held.drain(..end);
            self.held_bytes = self.held.iter().map(ChangeBatch::memory_bytes).sum();
        }
        Ok(())
    }

    async fn put(&self, batches: Vec<ChangeBatch>) -> Result<Spooled, LakeError> {
        let version = self.target.known_version.load(Ordering::Acquire);
        let name = format!("{FOLDER}/{}/{version}-{}", *PROCESS, Uuid::new_v4());
        let with_subtransactions = batches.iter().any(|batch| batch.xids.is_some());
        let (keys, patches) = self.target.beside_the_reactor(move || encode(&batches)).await?;
        let keys_path = Path::from(format!("{name}.keys.parquet"));
        self.target.put(&keys_path, keys.into()).await?;
        let patches_path = match patches {
            None => None,
            Some(bytes) => {
                let path = Path::from(format!("{name}.patches.parquet"));
                self.target.put(&path, bytes.into()).await?;
                Some(path)
            }
        };
        Ok(Spooled { keys: keys_path, patches: patches_path, with_subtransactions })
    }

    /// The last change of the transaction that a change belongs to, by their ordinals.
    pub(super) fn last_ordinal(&self, ordinal: u32) -> u32 {
        let last_ordinals = &self.ends.last_ordinals;
        last_ordinals.get(last_ordinals.partition_point(|last| *last < ordinal)).copied().unwrap_or(u32::MAX)
    }

    /// How many parts [`Self::part`] gives, in order.
    pub(super) fn parts(&self) -> usize {
        self.spooled.len() + self.held.len()
    }

    /// One part; the spool keeps it, so that a rewrite can be planned again.
    pub(super) async fn part(&self, index: usize) -> Result<ChangeBatch, LakeError> {
        let Some(spooled) = self.spooled.get(index) else {
            let held = self.held.get(index - self.spooled.len());
            return held.cloned().ok_or_else(|| self.target.unfit("changes that are not there".to_owned()));
        };
        let keys = self.read(&spooled.keys).await?;
        let patches = match &spooled.patches {
            Some(path) => self.read(path).await?,
            None => RecordBatch::new_empty(Arc::new(Schema::empty())),
        };
        let with_subtransactions = spooled.with_subtransactions;
        let found = without_subtransactions(keys, with_subtransactions);
        let (keys, xids) = found.map_err(|error| self.target.unfit(error.to_string()))?;
        Ok(ChangeBatch { keys, patches, xids })
    }

    async fn read(&self, path: &Path) -> Result<RecordBatch, LakeError> {
        let bytes = self.target.get(path).await?;
        self.target.beside_the_reactor(move || decode(bytes)).await
    }

    /// Removes what is in the store.
    ///
    /// # Errors
    /// What the store says; what it left is removed after a later process's first commit.
    pub async fn discard(self) -> Result<(), LakeError> {
        let mut paths: Vec<Path> = Vec::with_capacity(self.spooled.len());
        for Spooled { keys, patches, .. } in self.spooled {
            paths.push(keys);
            paths.extend(patches);
        }
        remove_all(&self.target.store, &self.target.location, paths.iter()).await
    }
}

fn encode(batches: &[ChangeBatch]) -> ParquetResult<(Bytes, Option<Bytes>)> {
    let mut keys = Vec::with_capacity(batches.len());
    for batch in batches {
        keys.push(with_subtransactions(batch)?);
    }
    let patches: Vec<&RecordBatch> = batches.iter().map(|batch| &batch.patches).collect();
    let any = patches.iter().any(|patches| patches.num_rows() > 0);
    let patches = if any { Some(to_parquet(&patches)?) } else { None };
    Ok((to_parquet(&keys.iter().collect::<Vec<_>>())?, patches))
}

fn with_subtransactions(batch: &ChangeBatch) -> Result<RecordBatch, ArrowError> {
    let Some(xids) = &batch.xids else { return Ok(batch.keys.clone()) };
    let each = xids.iter().flat_map(|(xid, rows)| (0..rows).map(move |_| xid));
    let column: ArrayRef = Arc::new(UInt32Array::from_iter_values(each));
    let mut fields = batch.keys.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(SUBTRANSACTION, DataType::UInt32, false)));
    let mut columns = batch.keys.columns().to_vec();
    columns.push(column);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn without_subtransactions(mut keys: RecordBatch, present: bool) -> Result<(RecordBatch, Option<Runs>), ArrowError> {
    if !present {
        return Ok((keys, None));
    }
    let index = keys.schema().index_of(SUBTRANSACTION)?;
    let column = keys.remove_column(index);
    let mut runs = Runs::default();
    column.as_primitive::<UInt32Type>().values().iter().for_each(|xid| runs.push(*xid, 1));
    Ok((keys, Some(runs)))
}

fn to_parquet(batches: &[&RecordBatch]) -> ParquetResult<Bytes> {
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), |batch| batch.schema());
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?.into())
}

fn decode(bytes: Bytes) -> ParquetResult<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let schema = builder.schema().clone();
    let batches = builder.build()?.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// What dead processes spooled. Nobody reads it any more once this process has committed `version`; what another one spooled since then is
/// a successor's.
pub(in crate::lake) async fn leftover_changes(table: &LakeTable) -> Result<Vec<(Path, u64)>, LakeError> {
    let failed =
        |error: ObjectStoreError| LakeError::store("list the changes spooled for", &table.log.location, &error);
    let mut objects = table.log.store.list(Some(&Path::from(FOLDER)));
    let mut found = Vec::new();
    while let Some(object) = objects.try_next().await.map_err(failed)? {
        if spooled_by(&object.location)
            .is_some_and(|(process, version)| process != PROCESS.to_string() && version < table.version())
        {
            found.push((object.location, object.size));
        }
    }
    Ok(found)
}

/// The process that spooled an object, and the version of the table that it knew.
fn spooled_by(path: &Path) -> Option<(String, u64)> {
    let mut parts = path.parts().skip(Path::from(FOLDER).parts_count());
    let process = parts.next()?.as_ref().to_owned();
    let version = parts.next()?.as_ref().split_once('-')?.0.parse().ok()?;
    Some((process, version))
}
