//! The active files of some partitions, as the log names them at one version (Delta protocol, "Action Reconciliation").
//!
//! Only what rewrites files asks for this. A list is read a few partitions at a time and forgotten afterwards: an append needs none.

use super::bounds::Bounds;
use super::checkpoint_reader::{CheckpointError, each_checkpoint_row};
use super::error::LakeError;
use super::log::{Log, may_be_expired};
use crate::base::{Partition, PartitionBy};
use chrono::NaiveDate;
use futures::{StreamExt, TryStreamExt};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Log entries fetched at the same time.
const CONCURRENT_READS: usize = 16;

/// Which partitions are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Of(BTreeSet<Partition>),
}

impl Wanted {
    fn contains(&self, partition: Partition) -> bool {
        match self {
            Self::All => true,
            Self::Of(partitions) => partitions.contains(&partition),
        }
    }
}

/// One active file.
#[derive(Clone, Debug)]
pub(super) struct ActiveFile {
    /// As the log writes it: relative to the table and percent-encoded.
    pub(super) path: String,
    pub(super) partition: Partition,
    pub(super) size_bytes: u64,
    /// When it was written, by whoever did: milliseconds since 1970.
    pub(super) modified_millis: i64,
    /// What its statistics say about the values in it.
    pub(super) bounds: Bounds,
}

impl ActiveFile {
    /// Below the table's root.
    pub(super) fn object_path(&self) -> String {
        percent_decode_str(&self.path).decode_utf8_lossy().into_owned()
    }

    /// The `remove` action (Delta protocol, "Add File and Remove File"). Its rows go, or go elsewhere: other writers must not overlook
    /// that, so `dataChange` is true.
    pub(super) fn remove_action(&self, now_millis: i64) -> Value {
        let values = self.partition.values().into_iter().map(|(column, value)| (column.to_owned(), value));
        json!({ "remove": {
            "path": self.path,
            "deletionTimestamp": now_millis,
            "dataChange": true,
            "extendedFileMetadata": true,
            "partitionValues": values.collect::<BTreeMap<_, _>>(),
            "size": self.size_bytes,
        } })
    }
}

impl Log {
    /// The files that are active at `version` in the partitions asked for, in the order of their paths.
    ///
    /// # Errors
    /// [`LakeError::Expired`] once only a later version can be read; a log that cannot be read; what the store says.
    pub(super) async fn active_files(
        &self,
        version: u64,
        by: PartitionBy,
        wanted: &Wanted,
    ) -> Result<Vec<ActiveFile>, LakeError> {
        let read = self.files_at(version, by, wanted).await;
        match read {
            Err(error) if may_be_expired(&error) => {
                let later = self.newest_checkpoint().await?.is_some_and(|found| found > version);
                Err(if later { self.expired(version) } else { error })
            }
            read => read,
        }
    }

    async fn files_at(&self, version: u64, by: PartitionBy, wanted: &Wanted) -> Result<Vec<ActiveFile>, LakeError> {
        let (checkpoint, entries) = self.way_to(version).await?;
        let mut files = Files { by, wanted, active: BTreeMap::new(), broken: None };
        for part in checkpoint {
            let name = part.location.filename().unwrap_or_default().to_owned();
            let read = each_checkpoint_row(self.store.clone(), part, ["add"], |line: FileLine| files.fold(line)).await;
            match read {
                Ok(()) => {}
                Err(CheckpointError::Store(error)) => {
                    return Err(LakeError::store("read the Delta log of", &self.location, &error));
                }
                Err(CheckpointError::Format(reason)) => return Err(self.broken(format!("{name}: {reason}"))),
            }
        }
        let read = |version| async move { Ok::<_, LakeError>((version, self.entry_bytes(version).await?)) };
        let mut entries = futures::stream::iter(entries).map(read).buffered(CONCURRENT_READS);
        while let Some((version, bytes)) = entries.try_next().await? {
            let bytes = bytes.ok_or_else(|| self.broken(format!("the entry of version {version} is missing")))?;
            for line in serde_json::Deserializer::from_slice(&bytes).into_iter::<FileLine>() {
                let line = line
                    .map_err(|error| self.broken(format!("version {version} is not JSON at line {}", error.line())))?;
                files.fold(line);
            }
        }
        match files.broken {
            Some(path) => Err(self.broken(format!("the file {path} has no partition of this table"))),
            None => Ok(files.active.into_values().collect()),
        }
    }
}

/// What a log line says about a file.
#[derive(Debug, Default, Deserialize)]
pub(super) struct FileLine {
    pub(super) add: Option<AddLine>,
    pub(super) remove: Option<RemoveLine>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddLine {
    path: String,
    #[serde(default)]
    partition_values: BTreeMap<String, Option<String>>,
    size: u64,
    #[serde(default)]
    modification_time: i64,
    #[serde(default)]
    stats: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RemoveLine {
    path: String,
}

struct Files<'a> {
    by: PartitionBy,
    wanted: &'a Wanted,
    active: BTreeMap<String, ActiveFile>,
    /// A file whose partition cannot be told, so that nobody can say which rows it holds.
    broken: Option<String>,
}

impl Files<'_> {
    fn fold(&mut self, line: FileLine) {
        if let Some(RemoveLine { path }) = line.remove {
            if self.broken.as_ref() == Some(&path) {
                self.broken = None;
            }
            self.active.remove(&path);
        }
        let Some(add) = line.add else { return };
        match partition_of(self.by, &add.partition_values) {
            None => self.broken = Some(add.path),
            Some(partition) if self.wanted.contains(partition) => {
                let bounds = Bounds::of_statistics(add.stats.as_deref());
                let (path, modified_millis) = (add.path.clone(), add.modification_time);
                let file = ActiveFile { path, partition, size_bytes: add.size, modified_millis, bounds };
                self.active.insert(add.path, file);
            }
            Some(_) => {}
        }
    }
}

/// The partition that a file's values name; None where they name none of this kind.
pub(super) fn partition_of(by: PartitionBy, values: &BTreeMap<String, Option<String>>) -> Option<Partition> {
    let number = |column: &str| values.get(column)?.as_deref()?.parse::<u32>().ok();
    let day = match by {
        PartitionBy::Day => number("day")?,
        PartitionBy::Month => 1,
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(number("year")?).ok()?, number("month")?, day)?;
    Some(by.partition_of(date))
}
