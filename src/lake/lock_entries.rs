//! The lock's objects: `<table>/_lakebed/lock/<16 digits>.json`, put if absent, newest name first.
//!
//! Readers of Delta tables pass over folders that begin with an underscore, and so do vacuum and the search for orphans.

use super::error::LakeError;
use super::patience::Patience;
use super::target::remove_all;
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt, PutMode, PutOptions};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

const FOLDER: &str = "_lakebed/lock";

const DIGITS: usize = 16;

/// Objects that stay: the newest, and one before it for whoever is looking at that.
const KEPT: usize = 2;

/// What the newest object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Held,
    Released,
}

/// One object's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LockEntry {
    pub(super) process: Uuid,
    /// The operating system's number of that process, for people.
    pub(super) pid: u32,
    /// One taking of the lock by that process.
    pub(super) holder: Uuid,
    /// Whose progress that process records in the table.
    #[serde(default)]
    pub(super) feed: String,
    /// What is being done under it.
    pub(super) what: String,
    pub(super) state: State,
    pub(super) lease_seconds: u64,
    /// For people: nobody compares it with a clock.
    pub(super) recorded_at: String,
}

impl LockEntry {
    /// Who holds the lock, in a few words.
    pub(super) fn who(&self) -> String {
        format!("process {} ({})", self.pid, self.process)
    }
}

/// Whether an object became the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Newest,
    /// Somebody else was faster.
    Late,
}

/// The objects of one table's lock.
#[derive(Clone)]
pub(super) struct LockEntries {
    store: ObjectStoreRef,
    /// The table's URL, for messages.
    pub(super) location: String,
}

impl LockEntries {
    /// `store` is rooted at the table.
    pub(super) fn of(store: ObjectStoreRef, location: String) -> Self {
        Self { store, location }
    }

    /// The newest number; 0 when nobody ever took the lock.
    pub(super) async fn newest(&self, patience: &Patience) -> Result<u64, LakeError> {
        Ok(self.numbers(patience).await?.last().copied().unwrap_or(0))
    }

    /// None for an object that is not there any more, or that cannot be read.
    pub(super) async fn read(&self, number: u64, patience: &Patience) -> Result<Option<LockEntry>, LakeError> {
        let mut waiting = patience.begin();
        let bytes = loop {
            match self.get(number).await {
                Ok(found) => break found,
                Err(error) => waiting.wait_out(LakeError::store("read the lock of", &self.location, &error)).await?,
            }
        };
        waiting.worked(&self.location);
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Puts the object `number` if it is absent. An answer that was lost does no harm: the object says whose it is. One that was put
    /// so late that newer ones came and went counts for nothing, so the newest is looked for afterwards.
    pub(super) async fn put(&self, number: u64, entry: &LockEntry, patience: &Patience) -> Result<Placed, LakeError> {
        let entry = LockEntry { recorded_at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true), ..entry.clone() };
        let bytes = Bytes::from(serde_json::to_vec(&entry).map_err(|error| self.unwritable(&error))?);
        let mut waiting = patience.begin();
        loop {
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.store.put_opts(&path_of(number), bytes.clone().into(), create).await {
                Ok(_) => break,
                Err(ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::Precondition { .. }) => {
                    match self.read(number, patience).await? {
                        Some(found) if (found.holder, found.state) == (entry.holder, entry.state) => break,
                        _ => return Ok(Placed::Late),
                    }
                }
                Err(error) => waiting.wait_out(LakeError::store("lock", &self.location, &error)).await?,
            }
        }
        waiting.worked(&self.location);
        let numbers = self.numbers(patience).await?;
        if numbers.last() != Some(&number) {
            self.remove([number]).await;
            return Ok(Placed::Late);
        }
        self.remove(numbers.into_iter().rev().skip(KEPT)).await;
        Ok(Placed::Newest)
    }

    async fn numbers(&self, patience: &Patience) -> Result<BTreeSet<u64>, LakeError> {
        let mut waiting = patience.begin();
        let folder = Path::from(FOLDER);
        let numbers = loop {
            let objects = self.store.list(Some(&folder));
            let numbers = objects.try_filter_map(|object| async move { Ok(number_of(&object.location)) });
            match numbers.try_collect().await {
                Ok(numbers) => break numbers,
                Err(error) => waiting.wait_out(LakeError::store("list the lock of", &self.location, &error)).await?,
            }
        };
        waiting.worked(&self.location);
        Ok(numbers)
    }

    async fn get(&self, number: u64) -> Result<Option<Bytes>, ObjectStoreError> {
        match self.store.get(&path_of(number)).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(ObjectStoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An attempt: whoever writes the next one tries again.
    async fn remove(&self, numbers: impl IntoIterator<Item = u64>) {
        let paths: Vec<Path> = numbers.into_iter().map(path_of).collect();
        if let Err(error) = remove_all(&self.store, &self.location, paths.iter()).await {
            tracing::debug!(%error, "an older object of the lock stays for now");
        }
    }

    fn unwritable(&self, error: &serde_json::Error) -> LakeError {
        LakeError::Record { location: self.location.clone(), reason: error.to_string() }
    }
}

fn path_of(number: u64) -> Path {
    Path::from(FOLDER).join(format!("{number:016}.json"))
}

fn number_of(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}
