//! A table of the lake as its one writer sees it: version, schema and recorded progress, no list of files.

use super::actions::{self, CHECKPOINT_INTERVAL, Metadata, Protocol};
use super::checkpoint::Checkpoints;
use super::error::LakeError;
use super::journal::JournalSlot;
use super::location::{LakeLocation, shown};
use super::log::{LOG_FOLDER, Log, LogState};
use super::progress::{APPLICATION_PREFIX, Durable, Progress};
use super::schema::{DeltaStruct, LakeSchema};
use crate::base::{Lsn, TableShape};
use chrono::Utc;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::{CommitOrBytes, LogStoreRef};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use uuid::Uuid;

/// The profile's protocol versions (L4).
const READER_VERSION: i32 = 1;
const WRITER_VERSION: i32 = 2;

/// See [`actions::folder_rule`].
pub(super) type FolderRule = Vec<(&'static str, String)>;

/// An open table. One per table and process; another process's commits are noticed, and another writer of the same
/// progress is an error.
pub struct LakeTable {
    /// Its folder below the lake's root.
    pub(super) path: String,
    pub(super) log_store: LogStoreRef,
    pub(super) log: Log,
    pub(super) rules: Rules,
    /// The newest version known.
    pub(super) version: u64,
    pub(super) recorded: Lsn,
    /// Since when the table stands still.
    pub(super) parked: Option<Lsn>,
    /// A commit began and did not end in a known state.
    pub(super) in_doubt: bool,
    /// An entry of this handle is in the log, so a former process that still tries meets it.
    pub(super) fenced: bool,
    /// The newest version of somebody else that was looked at for removed rows.
    pub(super) looked_at: u64,
    pub(super) checkpoints: Checkpoints,
    /// Fail points around the log entries of its appends.
    pub(super) points: [&'static str; 2],
    pub(super) schema: Arc<LakeSchema>,
    /// Its journal, once an entry was written.
    pub(super) journal: JournalSlot,
}

impl LakeTable {
    /// Creates the table: version 0 carries protocol, schema and the position from which the table is complete. When another
    /// process was faster, or the table is there already, it is opened instead, and [`Self::recorded`] is what it says.
    ///
    /// # Errors
    /// Column names that a reader refuses, a store that refuses, and everything of [`Self::open`].
    pub async fn create(
        location: &LakeLocation,
        path: &str,
        shape: &TableShape,
        progress: &Progress,
        at: Lsn,
    ) -> Result<LakeTable, LakeError> {
        Self::create_as(location, path, source_of(shape)?, progress, at).await
    }

    /// [`Self::create`] with the columns and the folder rule told.
    pub(super) async fn create_as(
        location: &LakeLocation,
        path: &str,
        source: (Arc<LakeSchema>, FolderRule),
        progress: &Progress,
        at: Lsn,
    ) -> Result<LakeTable, LakeError> {
        let position = position_of(at)?;
        location.create_local_folder().await?;
        let place = Place::with_rules(location, path, source, progress, true)?;
        if let Some(state) = place.log.read().await? {
            return place.opened(&state);
        }
        let commit = Uuid::new_v4();
        let now = Utc::now().timestamp_millis();
        let Rules { schema, folder_rule, .. } = &place.rules;
        let bytes = actions::creation(schema, folder_rule, progress, position, commit, now);
        let written = place.log_store.write_commit_entry(0, CommitOrBytes::LogBytes(bytes.into()), commit).await;
        match (written, place.log.read().await?) {
            (_, Some(state)) => place.opened(&state),
            (Err(error), None) => Err(LakeError::transaction(&place.log.location, &error)),
            (Ok(()), None) => Err(place.log.broken("the entry just written is not there".to_owned())),
        }
    }

    /// Opens a table that [`Self::create`] made, and checks that it is this pipeline's and that the source still fits it. The
    /// schema of a parked table is not compared: see [`Self::parked`].
    ///
    /// # Errors
    /// [`LakeError::Missing`], [`LakeError::UnsupportedProtocol`], [`LakeError::SchemaDiffers`],
    /// [`LakeError::ForeignProgress`], [`LakeError::NotLakebed`], [`LakeError::ProgressExpires`], and what the store says.
    pub async fn open(
        location: &LakeLocation,
        path: &str,
        shape: &TableShape,
        progress: &Progress,
    ) -> Result<LakeTable, LakeError> {
        let place = Place::with_rules(location, path, source_of(shape)?, progress, true)?;
        match place.log.read().await? {
            Some(state) => place.opened(&state),
            None => Err(LakeError::Missing { location: place.log.location }),
        }
    }

    /// Opens a table whose source no longer fits it, or cannot be read at all, so that it can be parked. Every commit of rows is
    /// refused.
    ///
    /// # Errors
    /// As [`Self::open`], the schema aside.
    pub async fn open_to_park(
        location: &LakeLocation,
        path: &str,
        progress: &Progress,
    ) -> Result<LakeTable, LakeError> {
        let place = Place::unchecked(location, path, progress)?;
        match place.log.read().await? {
            Some(state) => place.opened(&state),
            None => Err(LakeError::Missing { location: place.log.location }),
        }
    }

    /// The position that the log recorded last: every transaction at or below it is in the table (L1).
    pub fn recorded(&self) -> Lsn {
        self.recorded
    }

    /// [`Self::recorded`] as proof, for acknowledging at start what an earlier process made durable.
    pub fn durable(&self) -> Durable {
        Durable::new(self.recorded)
    }

    /// The position since which the table stands still, if it does: rows past it are not in the table, and every commit is
    /// refused with [`LakeError::Parked`].
    pub fn parked(&self) -> Option<Lsn> {
        self.parked
    }

    /// The newest version known here.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The table's URL, for messages.
    pub fn location(&self) -> &str {
        &self.log.location
    }

    /// Writes a checkpoint after this many commits instead of 100.
    pub fn checkpoint_every(&mut self, commits: u64) {
        self.checkpoints.set_interval(commits);
    }

    /// Waits for a checkpoint that is being written, here and in the journal.
    pub async fn close(mut self) {
        self.checkpoints.join().await;
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(journal) = journal
            && let Err(error) = journal.discard().await
        {
            tracing::debug!(%error, "what the journal left behind is removed later");
        }
    }
}

fn source_of(shape: &TableShape) -> Result<(Arc<LakeSchema>, FolderRule), LakeError> {
    Ok((Arc::new(LakeSchema::of(shape)?), Vec::from(actions::folder_rule(shape))))
}

/// A table's folder before anything is known about its log.
struct Place {
    path: String,
    log_store: LogStoreRef,
    log: Log,
    rules: Rules,
}

impl Place {
    /// Without a source to compare with.
    fn unchecked(location: &LakeLocation, path: &str, progress: &Progress) -> Result<Self, LakeError> {
        let source = (Arc::new(LakeSchema::unknown(progress.table.clone())), Vec::new());
        Self::with_rules(location, path, source, progress, false)
    }

    fn with_rules(
        location: &LakeLocation,
        path: &str,
        (schema, folder_rule): (Arc<LakeSchema>, FolderRule),
        progress: &Progress,
        checked: bool,
    ) -> Result<Self, LakeError> {
        let url = location.table_url(path)?;
        let log_store = location.log_store_at(&url)?;
        let folder = Path::from(path).join(LOG_FOLDER);
        let log = Log { store: log_store.object_store(None), location: shown(&url), lake: location.clone(), folder };
        let location = log.location.clone();
        let rules = Rules { schema, folder_rule, progress: progress.clone(), location, checked };
        Ok(Self { path: path.to_owned(), log_store, log, rules })
    }

    fn opened(self, state: &LogState) -> Result<LakeTable, LakeError> {
        let Standing { recorded, parked } = self.rules.standing(state)?;
        let schema = self.rules.schema.clone();
        let checkpoints = Checkpoints::new(state.checkpoint.unwrap_or(0), CHECKPOINT_INTERVAL);
        let Self { path, log_store, log, rules } = self;
        let (version, looked_at) = (state.version, state.version);
        let (in_doubt, fenced) = (false, false);
        Ok(LakeTable {
            path,
            log_store,
            log,
            rules,
            version,
            recorded,
            parked,
            in_doubt,
            fenced,
            looked_at,
            checkpoints,
            points: ["lake.before_log_write", "lake.after_log_write"],
            schema,
            journal: JournalSlot::default(),
        })
    }
}

/// What a log says about this pipeline.
pub(super) struct Standing {
    pub(super) recorded: Lsn,
    pub(super) parked: Option<Lsn>,
}

/// What a log must say for this pipeline to write to its table.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) schema: Arc<LakeSchema>,
    pub(super) folder_rule: FolderRule,
    pub(super) progress: Progress,
    location: String,
    /// Whether the table must fit the source: not when it is only to be parked.
    pub(super) checked: bool,
}

impl Rules {
    /// Checks a log and returns how far it is. Nothing is written to a parked table, so it may be in any state.
    pub(super) fn standing(&self, state: &LogState) -> Result<Standing, LakeError> {
        let app_id = self.progress.parked_app_id();
        let parked = state.transactions.get(&app_id).and_then(|since| self.parked_since(*since));
        if parked.is_none() {
            self.check_protocol(&state.protocol)?;
        }
        let recorded = self.recorded(&state.transactions)?;
        if parked.is_none() {
            self.check_metadata(&state.metadata)?;
        }
        Ok(Standing { recorded, parked })
    }

    /// The meaning of a parked transaction's version.
    pub(super) fn parked_since(&self, version: i64) -> Option<Lsn> {
        u64::try_from(version).ok().filter(|since| *since > 0).map(Lsn)
    }

    pub(super) fn check_protocol(&self, found: &Protocol) -> Result<(), LakeError> {
        let named = |features: &Option<Vec<String>>| features.clone().unwrap_or_default();
        let mut features = named(&found.reader_features);
        features.extend(named(&found.writer_features));
        let supported = found.min_reader_version <= READER_VERSION && found.min_writer_version <= WRITER_VERSION;
        if supported && features.is_empty() {
            return Ok(());
        }
        features.sort_unstable();
        features.dedup();
        let mut text =
            format!("reader version {}, writer version {}", found.min_reader_version, found.min_writer_version);
        if !features.is_empty() {
            text.push_str(&format!(" with {}", features.join(", ")));
        }
        Err(LakeError::UnsupportedProtocol { location: self.location.clone(), found: text })
    }

    pub(super) fn check_metadata(&self, found: &Metadata) -> Result<(), LakeError> {
        if !self.checked {
            return Ok(());
        }
        if property(found, "delta.setTransactionRetentionDuration").is_some() {
            return Err(LakeError::ProgressExpires { location: self.location.clone() });
        }
        let schema: DeltaStruct = serde_json::from_str(&found.schema_string).map_err(|_| LakeError::Log {
            location: self.location.clone(),
            reason: "metaData.schemaString is not a Delta schema".to_owned(),
        })?;
        // A mistake in the pipeline file is not a change of the source: it parks nobody.
        let rules = self.folder_differences(found);
        let (location, table) = (self.location.clone(), self.schema.table.clone());
        if !rules.is_empty() {
            return Err(LakeError::FolderRuleDiffers { location, table, rules: rules.join(", ") });
        }
        match self.schema.difference(&schema.fields, &found.partition_columns) {
            None => Ok(()),
            Some(columns) => Err(LakeError::SchemaDiffers { location, table, columns }),
        }
    }

    /// Rows put into folders by another rule than those that are there would be left out of answers.
    fn folder_differences(&self, found: &Metadata) -> Vec<String> {
        let recorded = |key: &str| property(found, key);
        let differing = self.folder_rule.iter().filter(|(key, wanted)| recorded(key) != Some(wanted.as_str()));
        let differing = differing.map(|(key, wanted)| {
            let found = recorded(key).unwrap_or("nothing");
            let name = key.trim_start_matches("lakebed.");
            format!("{name} is {found} there, {wanted} here")
        });
        differing.collect()
    }

    /// The position recorded for this pipeline, if no other pipeline has recorded one.
    fn recorded(&self, transactions: &BTreeMap<String, i64>) -> Result<Lsn, LakeError> {
        for app_id in transactions.keys() {
            self.check_application(app_id)?;
        }
        let app_id = self.progress.app_id();
        match transactions.get(&app_id) {
            Some(position) => u64::try_from(*position).map(Lsn).map_err(|_| LakeError::Log {
                location: self.location.clone(),
                reason: format!("the transaction version of {app_id} is negative"),
            }),
            // An earlier epoch's positions mean nothing in this one; what follows from that is not decided here.
            None => match transactions.keys().find(|app_id| app_id.starts_with(APPLICATION_PREFIX)) {
                Some(earlier) => Err(self.foreign(earlier)),
                None => Err(LakeError::NotLakebed { location: self.location.clone() }),
            },
        }
    }

    pub(super) fn check_application(&self, app_id: &str) -> Result<(), LakeError> {
        if self.progress.is_forbidden_by(app_id) { Err(self.foreign(app_id)) } else { Ok(()) }
    }

    fn foreign(&self, found: &str) -> LakeError {
        let (found, expected) = (found.to_owned(), self.progress.app_id());
        LakeError::ForeignProgress { location: self.location.clone(), found, expected }
    }
}

fn property<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.configuration.as_ref().and_then(|all| all.get(key)).and_then(Option::as_deref)
}

/// Delta's transaction version is a signed long.
pub(super) fn position_of(at: Lsn) -> Result<i64, LakeError> {
    i64::try_from(at.0).map_err(|_| LakeError::PositionTooLarge { at })
}
