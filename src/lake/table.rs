//! A table of the lake as its one writer sees it: version, schema and recorded progress, no list of files.

use super::actions::{self, CHECKPOINT_INTERVAL, Metadata};
use super::checkpoint::Checkpoints;
use super::error::LakeError;
use super::evolution::Evolution;
use super::journal::JournalSlot;
use super::location::{LakeLocation, shown};
use super::log::{LOG_FOLDER, Log, LogState};
use super::progress::{Durable, Progress};
use super::rules::{Fit, Rules, Standing};
use super::schema::LakeSchema;
use super::uncopied::marks;
use crate::base::{DaySet, Lsn, TableName, TableShape};
use chrono::Utc;
use deltalake::arrow::datatypes::Fields;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::{CommitOrBytes, LogStoreRef};
use std::sync::{Arc, PoisonError};
use uuid::Uuid;

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
    /// As the log has it.
    pub(super) metadata: Metadata,
    /// Every column that the table has, those that the source no longer has included.
    pub(super) schema: Arc<LakeSchema>,
    /// Its journal, once an entry was written.
    pub(super) journal: JournalSlot,
    /// What must become of the columns before rows of the source fit; no row is committed until then.
    pub(super) pending: Option<Evolution>,
    /// What has still to be copied from PostgreSQL.
    pub(super) uncopied: DaySet,
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
        Self::create_as(location, path, source_of(shape)?, progress, at, &DaySet::default()).await
    }

    /// [`Self::create`] for a table of which some days have rows already, which are to be copied: at `at` every other day had none.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_to_copy(
        location: &LakeLocation,
        path: &str,
        shape: &TableShape,
        progress: &Progress,
        at: Lsn,
        uncopied: &DaySet,
    ) -> Result<LakeTable, LakeError> {
        Self::create_as(location, path, source_of(shape)?, progress, at, uncopied).await
    }

    /// [`Self::create_to_copy`] with the columns and the folder rule told.
    pub(super) async fn create_as(
        location: &LakeLocation,
        path: &str,
        source: (Arc<LakeSchema>, FolderRule),
        progress: &Progress,
        at: Lsn,
        uncopied: &DaySet,
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
        let mut bytes = actions::creation(schema, folder_rule, progress, position, commit, now);
        actions::push_marks(&mut bytes, &marks(&progress.app_id(), uncopied), now);
        let written = place.log_store.write_commit_entry(0, CommitOrBytes::LogBytes(bytes.into()), commit).await;
        match (written, place.log.read().await?) {
            (_, Some(state)) => place.opened(&state),
            (Err(error), None) => Err(LakeError::transaction(&place.log.location, &error)),
            (Ok(()), None) => Err(place.log.broken("the entry just written is not there".to_owned())),
        }
    }

    /// Opens a table that [`Self::create`] made, and checks that it is this pipeline's and that the source fits it, or will once
    /// [`Self::evolve`] was called. The schema of a parked table is not compared: see [`Self::parked`].
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

    /// Opens a table as its log says it is, for work on its files beside whoever feeds it. It has no position, and takes no rows.
    ///
    /// # Errors
    /// [`LakeError::Missing`], [`LakeError::UnsupportedProtocol`], [`LakeError::NotLakebed`], columns that are not written here, and what
    /// the store says.
    pub(super) async fn open_to_maintain(location: &LakeLocation, path: &str) -> Result<LakeTable, LakeError> {
        let table = TableName::new(String::new(), path);
        let progress = Progress { system_identifier: String::new(), pipeline: String::new(), table, epoch: 0 };
        let mut place = Place::unchecked(location, path, &progress)?;
        place.rules.maintains = true;
        match place.log.read().await? {
            Some(state) => place.opened(&state),
            None => Err(LakeError::Missing { location: place.log.location }),
        }
    }

    /// Whether a pipeline's table stands still, whatever its source has become; no table stands still that is not there.
    ///
    /// # Errors
    /// What the store says, and a log that cannot be read.
    pub async fn stands_still(
        location: &LakeLocation,
        path: &str,
        pipeline: &str,
        table: &TableName,
    ) -> Result<bool, LakeError> {
        let (system_identifier, pipeline) = (String::new(), pipeline.to_owned());
        let progress = Progress { system_identifier, pipeline, table: table.clone(), epoch: 0 };
        let place = Place::unchecked(location, path, &progress)?;
        let Some(state) = place.log.read().await? else { return Ok(false) };
        Ok(state.transactions.iter().any(|(app_id, since)| *since > 0 && progress.is_parked_app_id(app_id)))
    }

    /// Its columns, in the order and with the types of its files.
    pub fn columns(&self) -> &Fields {
        self.schema.arrow.fields()
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
pub(super) struct Place {
    path: String,
    log_store: LogStoreRef,
    pub(super) log: Log,
    rules: Rules,
}

impl Place {
    /// Without a source to compare with.
    pub(super) fn unchecked(location: &LakeLocation, path: &str, progress: &Progress) -> Result<Self, LakeError> {
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
        let rules = Rules { schema, folder_rule, progress: progress.clone(), location, checked, maintains: false };
        Ok(Self { path: path.to_owned(), log_store, log, rules })
    }

    fn opened(self, state: &LogState) -> Result<LakeTable, LakeError> {
        let Standing { recorded, parked, uncopied, fit: Fit { schema, pending } } = self.rules.standing(state)?;
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
            metadata: state.metadata.clone(),
            schema,
            journal: JournalSlot::default(),
            pending,
            uncopied,
        })
    }
}

/// Delta's transaction version is a signed long.
pub(super) fn position_of(at: Lsn) -> Result<i64, LakeError> {
    i64::try_from(at.0).map_err(|_| LakeError::PositionTooLarge { at })
}
