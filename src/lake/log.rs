//! Reading a table's log without its file list: the newest checkpoint's protocol, schema and transactions, then every
//! entry after it (Delta protocol, "Delta Log Entries" and "Checkpoints").

use super::actions::{Line, Metadata, Protocol};
use super::checkpoint_reader::{CheckpointError, checkpoint_lines};
use super::error::LakeError;
use super::location::LakeLocation;
use super::store_fault::StoreFault;
use bytes::Bytes;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectMeta, ObjectStoreExt};
use deltalake::logstore::{ObjectStoreRef, commit_uri_from_version};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Log entries fetched at the same time.
const CONCURRENT_READS: usize = 16;

pub(super) const LOG_FOLDER: &str = "_delta_log";

/// What a table's log says, files aside.
#[derive(Debug)]
pub(super) struct LogState {
    /// The newest version.
    pub(super) version: u64,
    /// The newest checkpoint's version.
    pub(super) checkpoint: Option<u64>,
    pub(super) protocol: Protocol,
    pub(super) metadata: Metadata,
    /// Application id to version, of every application that ever recorded one.
    pub(super) transactions: BTreeMap<String, i64>,
}

/// A table's log as a place to read from; `location` is for messages.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) store: ObjectStoreRef,
    pub(super) location: String,
    pub(super) lake: LakeLocation,
    /// The log's own folder, below the lake's root.
    pub(super) folder: Path,
}

impl Log {
    /// The state at the newest version, or None where there is no table. On a local disk it is durable when this returns, whoever
    /// wrote it.
    pub(super) async fn read(&self) -> Result<Option<LogState>, LakeError> {
        let state = self.look().await?;
        self.settle().await?;
        Ok(state)
    }

    /// [`Self::read`] for who builds nothing on it: a power failure may take what was seen.
    pub(super) async fn look(&self) -> Result<Option<LogState>, LakeError> {
        let state = match self.fold().await {
            // Somebody may have cleaned the log up between the listing and the reading. The checkpoint that stands for what is gone was
            // there before it went, so a second look finds that.
            Err(error) if may_be_expired(&error) => self.fold().await?,
            read => read?,
        };
        Ok(state)
    }

    /// Makes durable what was found here, because another process may have died between writing and syncing it.
    pub(super) async fn settle(&self) -> Result<(), LakeError> {
        self.lake.settle(&self.folder).await
    }

    async fn fold(&self) -> Result<Option<LogState>, LakeError> {
        let listing = self.newest_listing().await?;
        let Some(latest) = listing.latest() else { return Ok(None) };
        let mut folded = Folded::default();
        let mut next = 0;
        let checkpoint = listing.checkpoint.as_ref().map(|(version, _)| *version);
        if let Some((version, parts)) = listing.checkpoint {
            for part in parts {
                self.fold_checkpoint(part, &mut folded).await?;
            }
            next = version + 1;
        }
        let expected = next..=latest;
        let missing = expected.clone().find(|version| listing.commits.binary_search(version).is_err());
        if let Some(missing) = missing {
            return Err(self.broken(format!("the entry of version {missing} is missing")));
        }
        let mut entries = futures::stream::iter(expected).map(|version| self.entry(version)).buffered(CONCURRENT_READS);
        while let Some(entry) = entries.try_next().await? {
            let lines = entry.ok_or_else(|| self.broken("an entry disappeared while it was read".to_owned()))?;
            folded.fold(lines);
        }
        let (Some(protocol), Some(metadata)) = (folded.protocol, folded.metadata) else {
            return Err(self.broken("it has no protocol or no metaData".to_owned()));
        };
        Ok(Some(LogState { version: latest, checkpoint, protocol, metadata, transactions: folded.transactions }))
    }

    /// The lines of one version's entry, or None where there is none yet.
    pub(super) async fn entry(&self, version: u64) -> Result<Option<Vec<Line>>, LakeError> {
        let Some(bytes) = self.get(&commit_uri_from_version(Some(version))).await? else { return Ok(None) };
        let lines = serde_json::Deserializer::from_slice(&bytes).into_iter::<Line>().collect::<Result<Vec<_>, _>>();
        let lines =
            lines.map_err(|error| self.broken(format!("version {version} is not JSON at line {}", error.line())))?;
        if lines.is_empty() {
            return Err(self.broken(format!("the entry of version {version} is empty")));
        }
        Ok(Some(lines))
    }

    /// Whether a version's entry is there; its content is not read.
    pub(super) async fn has_entry(&self, version: u64) -> Result<bool, LakeError> {
        match self.store.head(&commit_uri_from_version(Some(version))).await {
            Ok(_) => Ok(true),
            Err(ObjectStoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(LakeError::store("read the Delta log of", &self.location, &error)),
        }
    }

    /// The bytes of one version's entry, or None where there is none.
    pub(super) async fn entry_bytes(&self, version: u64) -> Result<Option<Bytes>, LakeError> {
        self.get(&commit_uri_from_version(Some(version))).await
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>, LakeError> {
        let failed = |error: &ObjectStoreError| LakeError::store("read the Delta log of", &self.location, error);
        match self.store.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| failed(&error)),
            Err(ObjectStoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    pub(super) async fn last_checkpoint(&self) -> Result<Option<u64>, LakeError> {
        #[derive(Deserialize)]
        struct Hint {
            version: u64,
        }
        let found = self.get(&Path::from(LOG_FOLDER).join("_last_checkpoint")).await?;
        Ok(found.and_then(|bytes| serde_json::from_slice::<Hint>(&bytes).ok()).map(|hint| hint.version))
    }

    /// The newest complete checkpoint that the folder lists.
    pub(super) async fn newest_checkpoint(&self) -> Result<Option<u64>, LakeError> {
        Ok(self.newest_listing().await?.checkpoint.map(|(version, _)| version))
    }

    async fn newest_listing(&self) -> Result<Listing, LakeError> {
        let hint = self.last_checkpoint().await?;
        let listing = self.list(hint).await?;
        // The hint is only a hint: it may be older or newer than what is there.
        if hint.is_some() && listing.checkpoint.is_none() { self.list(None).await } else { Ok(listing) }
    }

    async fn list(&self, from: Option<u64>) -> Result<Listing, LakeError> {
        self.list_up_to(from, u64::MAX).await
    }

    async fn list_up_to(&self, from: Option<u64>, version: u64) -> Result<Listing, LakeError> {
        let folder = Path::from(LOG_FOLDER);
        let mut objects = match from {
            // Entry and checkpoint names of a version sort after its bare number.
            Some(version) => self.store.list_with_offset(Some(&folder), &folder.clone().join(format!("{version:020}"))),
            None => self.store.list(Some(&folder)),
        };
        let mut listing = Listing::default();
        let failed = |error: ObjectStoreError| LakeError::store("list the Delta log of", &self.location, &error);
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            if object.location.parts_count() == folder.parts_count() + 1 {
                listing.note(object);
            }
        }
        listing.choose_checkpoint(version);
        Ok(listing)
    }

    /// The newest complete checkpoint at or before a version, and the versions that come after it.
    pub(super) async fn way_to(
        &self,
        version: u64,
    ) -> Result<(Vec<ObjectMeta>, std::ops::RangeInclusive<u64>), LakeError> {
        let hint = self.last_checkpoint().await?.filter(|found| *found <= version);
        let mut listing = self.list_up_to(hint, version).await?;
        if hint.is_some() && listing.checkpoint.is_none() {
            listing = self.list_up_to(None, version).await?;
        }
        Ok(match listing.checkpoint {
            Some((found, parts)) => (parts, found + 1..=version),
            None => (Vec::new(), 0..=version),
        })
    }

    async fn fold_checkpoint(&self, part: ObjectMeta, folded: &mut Folded) -> Result<(), LakeError> {
        let name = part.location.filename().unwrap_or_default().to_owned();
        match checkpoint_lines(self.store.clone(), part).await {
            Ok(lines) => folded.fold(lines),
            Err(CheckpointError::Store(error)) => {
                return Err(LakeError::store("read the Delta log of", &self.location, &error));
            }
            Err(CheckpointError::Format(reason)) => return Err(self.broken(format!("{name}: {reason}"))),
        }
        Ok(())
    }

    pub(super) fn broken(&self, reason: String) -> LakeError {
        LakeError::Log { location: self.location.clone(), reason }
    }
}

/// Whether an error is what a log looks like whose old entries are removed while it is read.
pub(super) fn may_be_expired(error: &LakeError) -> bool {
    matches!(error, LakeError::Log { .. } | LakeError::Store { fault: StoreFault::Missing, .. })
}

/// Later lines replace earlier ones (Delta protocol, "Action Reconciliation").
#[derive(Debug, Default)]
struct Folded {
    protocol: Option<Protocol>,
    metadata: Option<Metadata>,
    transactions: BTreeMap<String, i64>,
}

impl Folded {
    fn fold(&mut self, lines: Vec<Line>) {
        for line in lines {
            self.protocol = line.protocol.or(self.protocol.take());
            self.metadata = line.meta_data.or(self.metadata.take());
            if let Some(txn) = line.txn {
                self.transactions.insert(txn.app_id, txn.version);
            }
        }
    }
}

/// The names in a log folder that matter.
#[derive(Debug, Default)]
struct Listing {
    /// Versions with an entry, ascending once chosen.
    commits: Vec<u64>,
    /// Version and number of parts, to the parts that are there.
    candidates: BTreeMap<(u64, u32), Vec<ObjectMeta>>,
    /// The newest complete checkpoint.
    checkpoint: Option<(u64, Vec<ObjectMeta>)>,
}

impl Listing {
    fn note(&mut self, object: ObjectMeta) {
        let Some(name) = object.location.filename() else { return };
        let parts: Vec<&str> = name.split('.').collect();
        let number = |text: &str, digits: usize| {
            let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
            if plain { text.parse::<u64>().ok() } else { None }
        };
        let Some(version) = parts.first().and_then(|text| number(text, 20)) else { return };
        match parts.as_slice() {
            [_, "json"] => self.commits.push(version),
            [_, "checkpoint", "parquet"] => self.candidates.entry((version, 1)).or_default().push(object),
            [_, "checkpoint", part, of, "parquet"] => {
                let count = number(of, 10).and_then(|count| u32::try_from(count).ok());
                if let (Some(_), Some(count)) = (number(part, 10), count) {
                    self.candidates.entry((version, count)).or_default().push(object);
                }
            }
            _ => {}
        }
    }

    fn choose_checkpoint(&mut self, at_most: u64) {
        self.commits.sort_unstable();
        let complete = std::mem::take(&mut self.candidates)
            .into_iter()
            .rev()
            .find(|((version, count), parts)| *version <= at_most && u32::try_from(parts.len()) == Ok(*count));
        self.checkpoint = complete.map(|((version, _), parts)| (version, parts));
    }

    fn latest(&self) -> Option<u64> {
        let checkpoint = self.checkpoint.as_ref().map(|(version, _)| *version);
        self.commits.last().copied().max(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn listing(names: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for name in names {
            let location = Path::from(format!("_delta_log/{name}"));
            listing.note(ObjectMeta {
                location,
                last_modified: DateTime::UNIX_EPOCH,
                size: 0,
                e_tag: None,
                version: None,
            });
        }
        listing.choose_checkpoint(u64::MAX);
        listing
    }

    #[test]
    fn only_a_complete_checkpoint_counts() {
        let found = listing(&[
            "00000000000000000012.json",
            "00000000000000000011.json",
            "00000000000000000010.checkpoint.parquet",
            "00000000000000000011.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000009.00000000000000000011.compacted.json",
            "00000000000000000012.crc",
            "_last_checkpoint",
            "13.json",
        ]);
        assert_eq!(found.commits, [11, 12]);
        assert_eq!(found.checkpoint.as_ref().map(|(version, parts)| (*version, parts.len())), Some((10, 1)));
        assert_eq!(found.latest(), Some(12));
        assert_eq!(listing(&[]).latest(), None);
    }
}
