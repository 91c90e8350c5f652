//! What an erasure did, from its commit, or from the log where it was cut off in between.

use super::Eraser;
use crate::base::{Partition, PartitionBy};
use crate::lake::actions::CommitInfo;
use crate::lake::active::{ActiveFile, partition_of};
use crate::lake::error::LakeError;
use crate::lake::staged::StagedFile;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// An erasure that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// The version that its commit made, or on which it found nothing to do.
    pub version: u64,
    /// The partitions whose files were replaced.
    pub partitions: BTreeSet<Partition>,
    /// The files that it removed, below the table's root; they hold the rows still until they are deleted.
    pub removed: Vec<String>,
    /// The files that stand for them.
    pub added: Vec<String>,
}

impl Erased {
    pub(super) fn nothing(version: u64) -> Self {
        Self { version, partitions: BTreeSet::new(), removed: Vec::new(), added: Vec::new() }
    }

    pub(super) fn of(version: u64, removed: &[ActiveFile], added: &[StagedFile]) -> Self {
        Self {
            version,
            partitions: removed.iter().map(|file| file.partition).collect(),
            removed: removed.iter().map(ActiveFile::object_path).collect(),
            added: added.iter().map(|file| file.path().to_owned()).collect(),
        }
    }

    fn take(&mut self, line: FileLine, by: PartitionBy) {
        if let Some(removed) = line.remove {
            self.partitions.extend(partition_of(by, &removed.partition_values));
            self.removed.push(removed.object_path());
        }
        if let Some(added) = line.add {
            self.added.push(added.object_path());
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLine {
    commit_info: Option<CommitInfo>,
    remove: Option<Named>,
    add: Option<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    path: String,
    #[serde(default)]
    partition_values: BTreeMap<String, Option<String>>,
}

impl Named {
    fn object_path(&self) -> String {
        percent_decode_str(&self.path).decode_utf8_lossy().into_owned()
    }
}

impl Eraser {
    /// The erasure that was committed under an id behind the version `since`, that of its plan; None when it did not land. Its entry
    /// expires with [`Self::expire_log`], and only then.
    ///
    /// # Errors
    /// A log that cannot be read, and what the store says.
    pub async fn find(&mut self, id: Uuid, since: u64) -> Result<Option<Erased>, LakeError> {
        let mut waiting = self.patience.begin();
        while let Err(error) = self.table.reopen().await {
            waiting.wait_out(error).await?;
        }
        for version in since.saturating_add(1)..=self.table.version {
            if let Some(erased) = self.erasure_at(version, id).await? {
                return Ok(Some(erased));
            }
        }
        Ok(None)
    }

    async fn erasure_at(&self, version: u64, id: Uuid) -> Result<Option<Erased>, LakeError> {
        let (log, id) = (&self.table.log, id.to_string());
        let Some(bytes) = log.entry_bytes(version).await? else { return Ok(None) };
        let (mut erased, mut is_it) = (Erased::nothing(version), false);
        for line in serde_json::Deserializer::from_slice(&bytes).into_iter::<FileLine>() {
            let line =
                line.map_err(|error| log.broken(format!("version {version} is not JSON at line {}", error.line())))?;
            is_it |= line.commit_info.as_ref().is_some_and(|info| info.lakebed_erasure.as_ref() == Some(&id));
            erased.take(line, self.partition_by());
        }
        Ok(Some(erased).filter(|_| is_it))
    }
}
