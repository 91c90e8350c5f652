//! Findings: what somebody must know about the lake later, kept beside the tables until it is dealt with.
//!
//! `_lakebed/findings/<slot>/<kind>-<LSN as 16 hex digits>[-<table>].json`, put if absent, never changed.

use super::error::{LakeError, one_line_without_queries};
use super::location::LakeLocation;
use super::patience::Patience;
use crate::base::Lsn;
use chrono::{DateTime, SecondsFormat, Utc};
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as ObjectStoreError, ObjectMeta, ObjectStoreExt, PutMode, PutOptions};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Digits of a position in a finding's name.
const POSITION_DIGITS: usize = 16;

/// Findings that are read at the same time.
const CONCURRENT_READS: usize = 16;

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1_000;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// A table stands still since a position.
    Parked,
    /// The transaction whose commit is at a position was stepped over.
    Skipped,
    /// The server had written only up to a position that lies before what the lake holds.
    Refused,
    /// What was committed before a position, and behind what the lake held, is missing, and that was accepted.
    Gap,
    /// Rows from before a position lack the default of a column that was added there.
    Default,
    /// Days that were to be copied again stay as they are, since PostgreSQL has no partition of them any more; changes from before a
    /// position may have passed them by.
    Kept,
    /// Days that were to be copied for the first time, and whose partition was gone at a position before that, with all rows.
    Gone,
}

impl FindingKind {
    /// One word for names and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Gap => "gap",
            Self::Default => "default",
            Self::Kept => "kept",
            Self::Gone => "gone",
        }
    }
}

/// One finding. Two of the same kind, position and table are the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub kind: FindingKind,
    /// `schema.table`, where it concerns one table.
    pub table: Option<String>,
    /// The position that it is about.
    pub lsn: Lsn,
    /// Why, in one line: an operator's words, or an error's message.
    pub reason: String,
    /// When it was recorded first.
    pub recorded_at: DateTime<Utc>,
    /// Who recorded it: a program, a user or a host.
    pub recorded_by: String,
}

/// The object's content.
#[derive(Serialize, Deserialize)]
struct Stored {
    kind: FindingKind,
    table: Option<String>,
    lsn: String,
    reason: String,
    recorded_at: String,
    recorded_by: String,
}

/// Records a finding for a slot's pipeline. One that is there already stays as it is.
///
/// # Errors
/// A transient one of the store when nobody waits any more, a definite one at once.
pub async fn record_finding(
    location: &LakeLocation,
    slot: &str,
    finding: &Finding,
    patience: &Patience,
) -> Result<(), LakeError> {
    let (store, folder) = (location.store()?, location.own_folder("findings", slot));
    let shown = format!("{location}/{folder}");
    let bytes = bytes::Bytes::from(serialized(finding, &shown)?);
    let path = folder.join(name_of(finding));
    let mut waiting = patience.begin();
    loop {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match store.put_opts(&path, bytes.clone().into(), create).await {
            Ok(_) | Err(ObjectStoreError::AlreadyExists { .. }) => break,
            Err(error) => waiting.wait_out(LakeError::store("write to", &shown, &error)).await?,
        }
    }
    waiting.worked(&shown);
    Ok(())
}

/// Every finding for a slot's pipeline, by position.
///
/// # Errors
/// [`LakeError::Record`] for a finding that cannot be read, and what the store says.
pub async fn findings(location: &LakeLocation, slot: &str) -> Result<Vec<Finding>, LakeError> {
    let (store, folder) = (location.store()?, location.own_folder("findings", slot));
    let shown = format!("{location}/{folder}");
    let failed = |error| LakeError::store("list the findings at", &shown, &error);
    let paths: Vec<Path> =
        store.list(Some(&folder)).map_ok(|object| object.location).try_collect().await.map_err(failed)?;
    let paths = paths.into_iter().filter(|path| path.as_ref().ends_with(".json"));
    let reads = futures::stream::iter(paths).map(|path| read(&store, path, &shown)).buffered(CONCURRENT_READS);
    let mut found: Vec<Finding> = reads.try_filter_map(|finding| async { Ok(finding) }).try_collect().await?;
    found.sort_by(|left, right| (left.lsn, left.kind, &left.table).cmp(&(right.lsn, right.kind, &right.table)));
    Ok(found)
}

/// The positions of every finding of a kind, by their names alone: one that cannot be read is no reason to stop.
///
/// # Errors
/// What the store says.
pub async fn finding_positions(location: &LakeLocation, slot: &str, kind: FindingKind) -> Result<Vec<Lsn>, LakeError> {
    let (store, folder) = (location.store()?, location.own_folder("findings", slot));
    let shown = format!("{location}/{folder}");
    let objects = store.list(Some(&folder)).map_err(|error| LakeError::store("list the findings at", &shown, &error));
    let position = |object: ObjectMeta| {
        let (name, rest) = object.location.filename()?.split_once('-')?;
        let digits = rest.get(..POSITION_DIGITS).filter(|_| name == kind.name() && rest.ends_with(".json"))?;
        u64::from_str_radix(digits, 16).ok().map(Lsn)
    };
    objects.try_filter_map(|object| async move { Ok(position(object)) }).try_collect().await
}

/// None when it was removed since it was listed.
async fn read(store: &ObjectStoreRef, path: Path, shown: &str) -> Result<Option<Finding>, LakeError> {
    let failed = |error: &ObjectStoreError| LakeError::store("read from", shown, error);
    let bytes = match store.get(&path).await {
        Ok(found) => found.bytes().await.map_err(|error| failed(&error))?,
        Err(ObjectStoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let reason = || format!("{} is not a finding", path.filename().unwrap_or_default());
    let finding = parse(&bytes);
    finding.map(Some).ok_or_else(|| LakeError::Record { location: shown.to_owned(), reason: reason() })
}

fn name_of(finding: &Finding) -> String {
    let table = match (&finding.table, finding.kind) {
        (Some(table), _) => format!("-{table}"),
        // Two gaps may end at the same position: each is told.
        (None, FindingKind::Gap) => {
            let digest = Sha256::digest(finding.reason.as_bytes());
            digest.iter().take(4).fold("-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
        }
        (None, _) => String::new(),
    };
    format!("{}-{:016X}{table}.json", finding.kind.name(), finding.lsn.0)
}

fn serialized(finding: &Finding, shown: &str) -> Result<Vec<u8>, LakeError> {
    let stored = Stored {
        kind: finding.kind,
        table: finding.table.clone(),
        lsn: finding.lsn.to_string(),
        reason: one_line_without_queries(&finding.reason).chars().take(REASON_CHARS_MAX).collect(),
        recorded_at: finding.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        recorded_by: finding.recorded_by.clone(),
    };
    serde_json::to_vec(&stored)
        .map_err(|error| LakeError::Record { location: shown.to_owned(), reason: error.to_string() })
}

fn parse(bytes: &[u8]) -> Option<Finding> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    Some(Finding {
        kind: stored.kind,
        table: stored.table,
        lsn: stored.lsn.parse().ok()?,
        reason: stored.reason,
        recorded_at: DateTime::parse_from_rfc3339(&stored.recorded_at).ok()?.to_utc(),
        recorded_by: stored.recorded_by,
    })
}
