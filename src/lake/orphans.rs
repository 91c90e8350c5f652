//! Files that a process uploaded and died over: found by the intents it left, and removed unless the log names them.
//!
//! Why this is safe: an intent of another process with this pipeline's application id belongs to a predecessor. Once this
//! process has committed, whatever that predecessor still tries to commit meets this commit and fails
//! ([`LakeError::SecondWriter`]); so what the log names now is all that it will ever name.

use super::actions::PROCESS;
use super::apply::leftover_changes;
use super::error::LakeError;
use super::intent::{self, Intent};
use super::leftovers::remove_temporary_files;
use super::table::LakeTable;
use super::target::remove_all;
use bytes::Bytes;
use deltalake::logstore::commit_uri_from_version;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectStore, ObjectStoreExt};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Objects fetched at the same time.
const CONCURRENT_READS: usize = 16;

/// What [`remove_orphans`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrphanReport {
    /// Dead processes' intents that were resolved; they are gone now.
    pub resolved: usize,
    /// Files that no commit named, removed.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Intents that cannot be resolved, each by its token and the reason. Their files were left; vacuum removes them.
    pub left: Vec<String>,
}

impl OrphanReport {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Removes what dead processes of this pipeline uploaded and did not commit. Only files with the token of such an intent are
/// ever touched.
///
/// To be called right after this process's first own commit to the table, with the handle that made it: before that a
/// predecessor that still runs may commit its files.
///
/// # Errors
/// [`LakeError::NotFenced`] when the newest version that the handle knows is no commit of this process; what the store says, and
/// a log that is not readable. Nothing is lost then: the intents that are left are resolved by the next call.
pub async fn remove_orphans(table: &LakeTable) -> Result<OrphanReport, LakeError> {
    let app_id = table.rules.progress.app_id();
    check_fence(table, &app_id).await?;
    remove_temporary_files(&table.log.location).await;
    let mut report = OrphanReport::default();
    let changes = leftover_changes(table).await?;
    report.files = changes.len();
    report.bytes = changes.iter().map(|(_, size_bytes)| size_bytes).sum();
    remove_all(&table.log.store, &table.log.location, changes.iter().map(|(path, _)| path)).await?;
    resolve_intents(table, &app_id, &mut report).await?;
    Ok(report)
}

/// The same for files alone of processes that commit under an application id that is no pipeline's: whoever feeds the table goes on
/// meanwhile, and what it is writing is none of theirs.
///
/// To be called right after such a commit, with the handle that made it. A predecessor that still runs meets that entry: each
/// of them refuses to commit behind another one's.
///
/// # Errors
/// As [`remove_orphans`].
pub(super) async fn remove_orphans_under(table: &LakeTable, app_id: &str) -> Result<OrphanReport, LakeError> {
    check_fence(table, app_id).await?;
    let mut report = OrphanReport::default();
    resolve_intents(table, app_id, &mut report).await?;
    Ok(report)
}

async fn resolve_intents(table: &LakeTable, app_id: &str, report: &mut OrphanReport) -> Result<(), LakeError> {
    let mut intents = leftover_intents(table, app_id, report).await?;
    let Some(oldest) = intents.values().copied().min() else { return Ok(()) };
    let log = read_log(table, oldest, &intents).await?;
    intents.retain(|token, version| {
        let readable = log.missing.is_none_or(|missing| *version >= missing);
        if !readable {
            report.left.push(format!("{token}: the log entries since its version {version} were cleaned up"));
        }
        readable
    });
    let orphans = orphans(table, &intents, &log.committed).await?;
    report.files += orphans.len();
    report.bytes += orphans.iter().map(|(_, size_bytes)| size_bytes).sum::<u64>();
    report.resolved = intents.len();
    let (store, location) = (&table.log.store, &table.log.location);
    remove_all(store, location, orphans.iter().map(|(path, _)| path)).await?;
    let resolved: Vec<Path> = intents.keys().map(|token| intent::path_of(*token)).collect();
    remove_all(store, location, resolved.iter()).await
}

/// The newest known version must be this process's own, under the same application id.
async fn check_fence(table: &LakeTable, app_id: &str) -> Result<(), LakeError> {
    let lines = table.log.entry(table.version()).await?.unwrap_or_default();
    let process = PROCESS.to_string();
    let ours = lines.iter().filter_map(|line| line.commit_info.as_ref());
    let ours = ours.filter_map(|info| info.lakebed_process.as_ref()).any(|found| *found == process);
    let recorded = lines.iter().filter_map(|line| line.txn.as_ref()).any(|txn| txn.app_id == app_id);
    if ours && recorded { Ok(()) } else { Err(LakeError::NotFenced { location: table.log.location.clone() }) }
}

/// Token and version of every intent that another process left under the same application id.
async fn leftover_intents(
    table: &LakeTable,
    app_id: &str,
    report: &mut OrphanReport,
) -> Result<BTreeMap<Uuid, u64>, LakeError> {
    let (store, location) = (&table.log.store, &table.log.location);
    let failed = |error: &ObjectStoreError| LakeError::store("list the intents of", location, error);
    let found = store.list(Some(&intent::folder())).map_err(|error| failed(&error));
    let tokens = found.try_filter_map(|object| async move { Ok(intent::token_of_intent(&object.location)) });
    let tokens: Vec<Uuid> = tokens.try_collect().await?;
    let mut reads = futures::stream::iter(tokens)
        .map(|token| async move { Ok((token, fetch(table, &intent::path_of(token)).await?)) })
        .buffered(CONCURRENT_READS);
    let process = PROCESS.to_string();
    let mut intents = BTreeMap::new();
    while let Some((token, bytes)) = reads.try_next().await? {
        // One that went away in between is no longer in question.
        let Some(bytes) = bytes else { continue };
        match serde_json::from_slice::<Intent>(&bytes) {
            Ok(intent) if intent.app_id != app_id || intent.process == process => {}
            // A predecessor's is older than the commit that shut it out; this one is a successor's, which has shut us out.
            Ok(intent) if intent.version >= table.version() => {}
            Ok(intent) => {
                intents.insert(token, intent.version);
            }
            Err(_) => report.left.push(format!("{token}: its intent is not readable")),
        }
    }
    Ok(intents)
}

/// What the log says about files with the tokens in question.
#[derive(Default)]
struct Named {
    /// Names of files that some entry adds.
    committed: BTreeSet<String>,
    /// The newest version whose entry is gone.
    missing: Option<u64>,
}

/// Reads every entry after `oldest`, up to this process's own commit.
async fn read_log(table: &LakeTable, oldest: u64, intents: &BTreeMap<Uuid, u64>) -> Result<Named, LakeError> {
    let mut entries = futures::stream::iter(oldest.saturating_add(1)..=table.version())
        .map(|version| async move {
            let entry = fetch(table, &commit_uri_from_version(Some(version))).await?;
            Ok::<_, LakeError>((version, entry))
        })
        .buffered(CONCURRENT_READS);
    let mut named = Named::default();
    while let Some((version, entry)) = entries.try_next().await? {
        let Some(entry) = entry else {
            named.missing = Some(version);
            continue;
        };
        for line in serde_json::Deserializer::from_slice(&entry).into_iter::<AddLine>() {
            let line = line
                .map_err(|error| table.log.broken(format!("version {version} is not JSON at line {}", error.line())))?;
            // The folder is left out of the comparison: it may be escaped, and the name is unique without it.
            let Some(name) = line.add.as_ref().and_then(|add| add.path.rsplit('/').next()) else { continue };
            if intent::token_of_file(name).is_some_and(|token| intents.contains_key(&token)) {
                named.committed.insert(name.to_owned());
            }
        }
    }
    Ok(named)
}

/// A log line's file, if it adds one.
#[derive(Deserialize)]
struct AddLine {
    add: Option<Add>,
}

#[derive(Deserialize)]
struct Add {
    path: String,
}

/// Path and size of every data file with one of the tokens that is not among `committed`.
async fn orphans(
    table: &LakeTable,
    intents: &BTreeMap<Uuid, u64>,
    committed: &BTreeSet<String>,
) -> Result<Vec<(Path, u64)>, LakeError> {
    let mut found = Vec::new();
    if intents.is_empty() {
        return Ok(found);
    }
    let failed = |error: ObjectStoreError| LakeError::store("list the files of", &table.log.location, &error);
    let store = &table.log.store;
    // Partition folders only: the log's own may hold more objects than all of them.
    let folders = store.list_with_delimiter(None).await.map_err(failed)?.common_prefixes;
    let hidden = |folder: &Path| folder.filename().is_none_or(|name| name.starts_with('_'));
    for folder in folders.iter().filter(|folder| !hidden(folder)) {
        let mut objects = store.list(Some(folder));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let Some(name) = object.location.filename() else { continue };
            let token = intent::token_of_file(name).filter(|token| intents.contains_key(token));
            if token.is_some() && !committed.contains(name) {
                found.push((object.location, object.size));
            }
        }
    }
    Ok(found)
}

async fn fetch(table: &LakeTable, path: &Path) -> Result<Option<Bytes>, LakeError> {
    let failed = |error: &ObjectStoreError| LakeError::store("read from", &table.log.location, error);
    match table.log.store.get(path).await {
        Ok(found) => found.bytes().await.map(Some).map_err(|error| failed(&error)),
        Err(ObjectStoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}
