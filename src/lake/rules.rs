//! What a table's log must say for this pipeline to write to it.

use super::actions::{Metadata, Protocol, STATISTICS_COLUMNS};
use super::error::LakeError;
use super::evolution::{Evolution, evolution};
use super::log::LogState;
use super::progress::{APPLICATION_PREFIX, Progress};
use super::schema::{DeltaField, DeltaStruct, LakeSchema};
use super::table::FolderRule;
use super::uncopied::marked_days;
use crate::base::{DaySet, Lsn};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The profile's protocol versions (L4).
const READER_VERSION: i32 = 1;
const WRITER_VERSION: i32 = 2;

/// What a log says about this pipeline.
pub(super) struct Standing {
    pub(super) recorded: Lsn,
    pub(super) parked: Option<Lsn>,
    /// What has still to be copied from PostgreSQL.
    pub(super) uncopied: DaySet,
    pub(super) fit: Fit,
}

/// What a table's columns mean for its source.
pub(super) struct Fit {
    /// All that the table has.
    pub(super) schema: Arc<LakeSchema>,
    /// None: the source fits.
    pub(super) pending: Option<Evolution>,
}

/// What a log must say for this pipeline to write to its table.
#[derive(Debug)]
pub(super) struct Rules {
    /// The source's columns.
    pub(super) schema: Arc<LakeSchema>,
    pub(super) folder_rule: FolderRule,
    pub(super) progress: Progress,
    pub(super) location: String,
    /// Whether the table must fit the source: not when it is only to be parked.
    pub(super) checked: bool,
    /// Somebody else feeds the table, and this handle only works on its files: its columns are what the log says.
    pub(super) maintains: bool,
}

impl Rules {
    /// Checks a log and returns how far it is. Nothing is written to a parked table, so it may be in any state.
    pub(super) fn standing(&self, state: &LogState) -> Result<Standing, LakeError> {
        if self.maintains {
            return self.standing_of_anybodys(state);
        }
        let app_id = self.progress.parked_app_id();
        let parked = state.transactions.get(&app_id).and_then(|since| self.parked_since(*since));
        if parked.is_none() {
            self.check_protocol(&state.protocol)?;
        }
        let recorded = self.recorded(&state.transactions)?;
        let fit = match parked {
            None => self.fit(&state.metadata)?,
            Some(_) => Fit { schema: Arc::clone(&self.schema), pending: None },
        };
        let uncopied = marked_days(&self.progress.app_id(), &state.transactions);
        Ok(Standing { recorded, parked, uncopied, fit })
    }

    /// The meaning of a parked transaction's version.
    pub(super) fn parked_since(&self, version: i64) -> Option<Lsn> {
        u64::try_from(version).ok().filter(|since| *since > 0).map(Lsn)
    }

    /// Any pipeline's table will do, also one that stands still.
    fn standing_of_anybodys(&self, state: &LogState) -> Result<Standing, LakeError> {
        self.check_protocol(&state.protocol)?;
        if !state.transactions.keys().any(|app_id| app_id.starts_with(APPLICATION_PREFIX)) {
            return Err(LakeError::NotLakebed { location: self.location.clone() });
        }
        let fit = self.fit(&state.metadata)?;
        Ok(Standing { recorded: Lsn::ZERO, parked: None, uncopied: DaySet::default(), fit })
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

    /// Whether a table with this metadata takes rows of the source, at once or after its columns have changed.
    pub(super) fn fit(&self, found: &Metadata) -> Result<Fit, LakeError> {
        if self.maintains {
            return Ok(Fit { schema: Arc::new(self.columns_of(found)?), pending: None });
        }
        if !self.checked {
            return Ok(Fit { schema: Arc::clone(&self.schema), pending: None });
        }
        if property(found, "delta.setTransactionRetentionDuration").is_some() {
            return Err(LakeError::ProgressExpires { location: self.location.clone() });
        }
        let fields = self.fields(found)?;
        // A mistake in the pipeline file is not a change of the source: it parks nobody.
        let rules = self.folder_differences(found);
        let (location, table) = (self.location.clone(), self.schema.table.clone());
        if !rules.is_empty() {
            return Err(LakeError::FolderRuleDiffers { location, table, rules: rules.join(", ") });
        }
        let listed = property(found, STATISTICS_COLUMNS).unwrap_or_default();
        let fit = evolution(&self.schema, &fields, &found.partition_columns).and_then(|evolution| {
            let schema = self.schema.with_fields(&fields, &listed.split(',').map(str::trim).collect())?;
            Ok(Fit { schema: Arc::new(schema), pending: Some(evolution).filter(|evolution| !evolution.is_nothing()) })
        });
        fit.map_err(|columns| LakeError::SchemaDiffers { location, table, columns })
    }

    /// The columns of a table as its log has them, whatever its source has become.
    fn columns_of(&self, found: &Metadata) -> Result<LakeSchema, LakeError> {
        let source = property(found, "lakebed.source").and_then(|source| source.parse().ok());
        let table = source.unwrap_or_else(|| self.progress.table.clone());
        let fields = self.fields(found)?;
        let listed = property(found, STATISTICS_COLUMNS).unwrap_or_default().split(',').map(str::trim).collect();
        let dates = property(found, "lakebed.partition_column");
        LakeSchema::of_log(table, (&fields, &found.partition_columns), &listed, dates).map_err(|column| {
            LakeError::Log { location: self.location.clone(), reason: format!("lakebed writes no files with {column}") }
        })
    }

    fn fields(&self, found: &Metadata) -> Result<Vec<DeltaField>, LakeError> {
        let parsed = serde_json::from_str::<DeltaStruct>(&found.schema_string);
        parsed.map(|parsed| parsed.fields).map_err(|_| LakeError::Log {
            location: self.location.clone(),
            reason: "metaData.schemaString is not a Delta schema".to_owned(),
        })
    }

    pub(super) fn differs(&self, pending: &Evolution) -> LakeError {
        let (location, table) = (self.location.clone(), self.schema.table.clone());
        LakeError::SchemaDiffers { location, table, columns: pending.differences() }
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

pub(super) fn property<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.configuration.as_ref().and_then(|all| all.get(key)).and_then(Option::as_deref)
}
