//! A file that is uploaded, and that nothing refers to yet.

use super::encoder::Encoding;
use crate::base::{Partition, Runs};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// One Parquet file of one partition (L3), invisible until a commit names it.
///
/// Not Clone: a file is committed at most once.
#[derive(Debug)]
pub struct StagedFile {
    /// The table that it was written for.
    pub(super) location: String,
    pub(super) path: String,
    pub(super) partition: Partition,
    pub(super) size_bytes: u64,
    pub(super) rows: u64,
    pub(super) statistics: String,
    pub(super) modified_millis: i64,
    /// Which (sub)transaction each row belongs to, in the file's order; `None` for rows of whole transactions.
    pub(super) xids: Option<Runs>,
    /// How many changes had come before each row; `None`: none before any of them.
    pub(super) eras: Option<Runs>,
    /// Which columns it has, and in which types.
    pub(super) encoding: Arc<Encoding>,
}

impl StagedFile {
    /// Path below the table's root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The partition that every row belongs to.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Size of the object.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Which (sub)transaction each row belongs to, in the file's order; `None` for rows of whole transactions.
    pub fn xids(&self) -> Option<&Runs> {
        self.xids.as_ref()
    }

    /// Memory that the list of staged files holds for this one.
    pub fn memory_bytes(&self) -> usize {
        let texts = self.location.capacity() + self.path.capacity() + self.statistics.capacity();
        let runs = self.xids.iter().chain(&self.eras).map(Runs::memory_bytes).sum::<usize>();
        size_of::<Self>() + texts + runs
    }

    /// The `add` action (Delta protocol, "Add File and Remove File"). Path and partition values hold only characters that
    /// need no escaping.
    pub(super) fn add_action(&self) -> Value {
        let values =
            self.partition.values().into_iter().map(|(column, value)| (column.to_owned(), Value::String(value)));
        json!({ "add": {
            "path": self.path,
            "partitionValues": values.collect::<Map<_, _>>(),
            "size": self.size_bytes,
            "modificationTime": self.modified_millis,
            "dataChange": true,
            "stats": self.statistics,
        } })
    }
}
