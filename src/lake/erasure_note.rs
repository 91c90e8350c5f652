//! What was about to be erased, kept until its receipts are written and its files are deleted: whoever died in between is carried on for.
//!
//! `_lakebed/erasures/<slot>/<id>.json`, put before the commit that hides the rows. It holds numbers and no condition: that would keep what
//! was erased.

use super::error::LakeError;
use super::location::LakeLocation;
use chrono::NaiveDate;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStoreExt};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One erasure of one table, or of its journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureNote {
    /// The erasure's name in the table's log.
    pub id: Uuid,
    /// `schema.table`.
    pub table: String,
    /// The folder in the lake.
    pub path: String,
    /// The version that its plan stands on.
    pub since: u64,
    /// Why, in the words of whoever asked for it.
    pub reason: String,
    /// What goes, by day; a journal's rows have no receipts, so nothing is noted of them.
    pub days: Vec<ErasedDays>,
}

/// What goes from some days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasedDays {
    /// First day.
    pub lower: NaiveDate,
    /// The day behind the last.
    pub upper: NaiveDate,
    /// Rows.
    pub rows: i64,
    /// Their digest.
    pub digest: String,
}

/// Writes a note down.
///
/// # Errors
/// What the store says.
pub async fn note_erasure(location: &LakeLocation, slot: &str, note: &ErasureNote) -> Result<(), LakeError> {
    let (store, path, shown) = place(location, slot, note.id)?;
    let bytes = serde_json::to_vec(note)
        .map_err(|error| LakeError::Record { location: shown.clone(), reason: error.to_string() })?;
    store.put(&path, bytes.into()).await.map_err(|error| LakeError::store("write to", &shown, &error))?;
    Ok(())
}

/// Erasures that were not carried to their end.
///
/// # Errors
/// [`LakeError::Record`] for a note that cannot be read, and what the store says.
pub async fn noted_erasures(location: &LakeLocation, slot: &str) -> Result<Vec<ErasureNote>, LakeError> {
    let (store, folder) = (location.store()?, location.own_folder("erasures", slot));
    let shown = format!("{location}/{folder}");
    let failed = |error: &ObjectStoreError| LakeError::store("read from", &shown, error);
    let objects: Vec<_> = store.list(Some(&folder)).try_collect().await.map_err(|error| failed(&error))?;
    let mut notes = Vec::new();
    for object in objects.iter().filter(|object| object.location.as_ref().ends_with(".json")) {
        let bytes = match store.get(&object.location).await {
            Ok(found) => found.bytes().await.map_err(|error| failed(&error))?,
            Err(ObjectStoreError::NotFound { .. }) => continue,
            Err(error) => return Err(failed(&error)),
        };
        let name = object.location.filename().unwrap_or_default();
        let reason = || format!("{name} is not an erasure");
        let note = serde_json::from_slice(&bytes)
            .map_err(|_| LakeError::Record { location: shown.clone(), reason: reason() })?;
        notes.push(note);
    }
    Ok(notes)
}

/// The erasure is done, or never was.
///
/// # Errors
/// What the store says.
pub async fn forget_erasure(location: &LakeLocation, slot: &str, id: Uuid) -> Result<(), LakeError> {
    let (store, path, shown) = place(location, slot, id)?;
    match store.delete(&path).await {
        Ok(()) | Err(ObjectStoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(LakeError::store("delete from", &shown, &error)),
    }
}

type Place = (deltalake::logstore::ObjectStoreRef, Path, String);

fn place(location: &LakeLocation, slot: &str, id: Uuid) -> Result<Place, LakeError> {
    let folder = location.own_folder("erasures", slot);
    let shown = format!("{location}/{folder}");
    Ok((location.store()?, folder.join(format!("{id}.json")), shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn a_note_stays_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_file_path(folder.path()).unwrap();
        let location = LakeLocation::new(&url, &BTreeMap::new()).unwrap();
        assert_eq!(noted_erasures(&location, "lakebed").await.unwrap(), []);
        let note = ErasureNote {
            id: Uuid::new_v4(),
            table: "public.event".to_owned(),
            path: "event".to_owned(),
            since: 7,
            reason: "asked for".to_owned(),
            days: vec![ErasedDays {
                lower: NaiveDate::from_ymd_opt(2026, 1, 1).unwrap(),
                upper: NaiveDate::from_ymd_opt(2026, 1, 2).unwrap(),
                rows: 3,
                digest: "0".repeat(32),
            }],
        };
        for _ in 0..2 {
            note_erasure(&location, "lakebed", &note).await.unwrap();
        }
        assert_eq!(noted_erasures(&location, "other").await.unwrap(), []);
        assert_eq!(noted_erasures(&location, "lakebed").await.unwrap(), std::slice::from_ref(&note));
        for _ in 0..2 {
            forget_erasure(&location, "lakebed", note.id).await.unwrap();
        }
        assert_eq!(noted_erasures(&location, "lakebed").await.unwrap(), []);
    }
}
