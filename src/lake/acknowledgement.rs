//! What was acknowledged to a slot, said in the lake before the slot hears it.
//!
//! A slot alone does not tell whether it was advanced or made again by hand, and a table's log does not tell whether it was
//! restored from an older copy. One small object per slot does: `_lakebed/acknowledged/<slot>/<LSN as 16 hex digits>.json`. The
//! newest name counts, so a process that should be dead can only write names that count for nothing.

use super::error::LakeError;
use super::location::LakeLocation;
use super::patience::Patience;
use crate::base::Lsn;
use crate::ops::fail_points;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Reads of the newest record, when a newer one replaces it meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// Older records that one write removes at most; the rest is left for the next one.
const REMOVALS_MAX: usize = 8;

/// Older records that are remembered for removal.
const STALE_MAX: usize = 1_000;

/// How far a slot was acknowledged, and how far each table was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_identifier: String,
    /// The server's timeline.
    pub timeline: u32,
    /// Everything that committed at or before it is in the lake.
    pub acknowledged: Lsn,
    /// Each table's recorded position, by `schema.table`.
    pub tables: BTreeMap<String, Lsn>,
    /// When it was written.
    pub recorded_at: DateTime<Utc>,
}

/// The object's content.
#[derive(Serialize, Deserialize)]
struct Stored {
    system_identifier: String,
    timeline: u32,
    acknowledged: String,
    tables: BTreeMap<String, String>,
    recorded_at: String,
}

/// The records of one slot. One per process; it is the only writer of them while it holds the slot.
pub struct Acknowledgements {
    store: ObjectStoreRef,
    folder: Path,
    /// For messages.
    location: String,
    newest: Option<Lsn>,
    /// Records below the newest, to be removed.
    stale: BTreeSet<Lsn>,
}

impl Acknowledgements {
    /// Reads the newest record of `slot`; none when there never was one.
    ///
    /// # Errors
    /// [`LakeError::Record`] when the newest record cannot be read: an older one would hide what was acknowledged since. And
    /// what the store says.
    pub async fn open(location: &LakeLocation, slot: &str) -> Result<(Self, Option<Acknowledgement>), LakeError> {
        let folder = location.own_folder("acknowledged", slot);
        let shown = format!("{location}/{folder}");
        let mut records =
            Self { store: location.store()?, folder, location: shown, newest: None, stale: BTreeSet::new() };
        for _ in 0..ATTEMPTS_MAX {
            let mut found = records.list().await?;
            let Some(newest) = found.pop_last() else { return Ok((records, None)) };
            // Removed since it was listed: then a newer one is there.
            let Some(bytes) = records.read(newest).await? else { continue };
            let record = parse(&bytes).filter(|record| record.acknowledged == newest);
            let Some(record) = record else { return Err(records.unreadable(newest)) };
            location.settle(&records.folder).await?;
            records.newest = Some(newest);
            records.stale = found;
            return Ok((records, Some(record)));
        }
        Err(LakeError::Contended { location: records.location })
    }

    /// Records a position, before it is acknowledged. A position below the newest record's is not written and is no error: it says
    /// nothing new. The same position is written again, with what else changed. Older records are removed as far as
    /// the store lets; they count for nothing.
    ///
    /// # Errors
    /// A transient one of the store when nobody waits any more, a definite one at once.
    pub async fn write(&mut self, record: &Acknowledgement, patience: &Patience) -> Result<(), LakeError> {
        let position = record.acknowledged;
        if self.newest.is_some_and(|newest| position < newest) {
            return Ok(());
        }
        let bytes = Bytes::from(self.serialized(record)?);
        let path = self.path(position);
        let mut waiting = patience.begin();
        fail_points::reach("lake.before_record");
        while let Err(error) = self.store.put(&path, bytes.clone().into()).await {
            waiting.wait_out(LakeError::store("write to", &self.location, &error)).await?;
        }
        waiting.worked(&self.location);
        fail_points::reach("lake.after_record");
        if let Some(older) = self.newest.replace(position).filter(|older| *older < position) {
            self.stale.insert(older);
        }
        self.remove_stale().await;
        Ok(())
    }

    async fn remove_stale(&mut self) {
        while self.stale.len() > STALE_MAX {
            self.stale.pop_first();
        }
        let some: Vec<(Lsn, Path)> =
            self.stale.iter().take(REMOVALS_MAX).map(|position| (*position, self.path(*position))).collect();
        let store = &self.store;
        let removed = futures::stream::iter(some)
            .map(|(position, path)| async move { (position, store.delete(&path).await) })
            .buffer_unordered(REMOVALS_MAX)
            .collect::<Vec<_>>()
            .await;
        for (position, outcome) in removed {
            match outcome {
                Ok(()) | Err(ObjectStoreError::NotFound { .. }) => drop(self.stale.remove(&position)),
                Err(error) => tracing::debug!(%position, %error, "an older record stays for now"),
            }
        }
    }

    async fn list(&self) -> Result<BTreeSet<Lsn>, LakeError> {
        let failed = |error| LakeError::store("list the records at", &self.location, &error);
        let objects = self.store.list(Some(&self.folder));
        objects
            .map_err(failed)
            .try_filter_map(|object| async move { Ok(position_of(&object.location)) })
            .try_collect()
            .await
    }

    async fn read(&self, position: Lsn) -> Result<Option<Bytes>, LakeError> {
        let failed = |error: &ObjectStoreError| LakeError::store("read from", &self.location, error);
        match self.store.get(&self.path(position)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| failed(&error)),
            Err(ObjectStoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    fn path(&self, position: Lsn) -> Path {
        self.folder.clone().join(format!("{:016X}.json", position.0))
    }

    fn serialized(&self, record: &Acknowledgement) -> Result<Vec<u8>, LakeError> {
        let stored = Stored {
            system_identifier: record.system_identifier.clone(),
            timeline: record.timeline,
            acknowledged: record.acknowledged.to_string(),
            tables: record.tables.iter().map(|(table, recorded)| (table.clone(), recorded.to_string())).collect(),
            recorded_at: record.recorded_at.to_rfc3339(),
        };
        serde_json::to_vec(&stored)
            .map_err(|error| LakeError::Record { location: self.location.clone(), reason: error.to_string() })
    }

    fn unreadable(&self, position: Lsn) -> LakeError {
        let reason = format!("{:016X}.json is not a record of {position}", position.0);
        LakeError::Record { location: self.location.clone(), reason }
    }
}

fn parse(bytes: &[u8]) -> Option<Acknowledgement> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    let tables = stored.tables.into_iter().map(|(table, recorded)| Some((table, recorded.parse().ok()?)));
    Some(Acknowledgement {
        system_identifier: stored.system_identifier,
        timeline: stored.timeline,
        acknowledged: stored.acknowledged.parse().ok()?,
        tables: tables.collect::<Option<_>>()?,
        recorded_at: DateTime::parse_from_rfc3339(&stored.recorded_at).ok()?.to_utc(),
    })
}

fn position_of(path: &Path) -> Option<Lsn> {
    let digits = path.filename()?.strip_suffix(".json")?;
    let plain = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    if plain { u64::from_str_radix(digits, 16).ok().map(Lsn) } else { None }
}
