//! A table's columns change: one commit of metadata alone, or, where values of its files become wider, one that rewrites them.
//!
//! It carries no position: columns that a source may have at a later time do no harm before that, so this commit needs no order among
//! those of rows but to come before the first row that needs it.

use super::actions::{self, Metadata, STATISTICS_COLUMNS};
use super::commit::Entry;
use super::error::LakeError;
use super::evolution::{Evolution, holds};
use super::patience::Patience;
use super::rules::{Fit, property};
use super::schema::{DeltaField, LakeSchema, schema_string};
use super::table::LakeTable;
use crate::base::TableShape;
use deltalake::arrow::datatypes::FieldRef;
use deltalake::arrow::record_batch::RecordBatch;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The source table's oid, so that one that was dropped and made again is noticed; and the transaction that brought it.
const RELATION: &str = "lakebed.relation_oid";

/// Which table of the server fed a lake table last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRelation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The transaction with its first row, where the table was another before.
    pub since_xid: Option<u32>,
}

impl SourceRelation {
    fn parse(text: &str) -> Option<Self> {
        let (oid, since_xid) = match text.split_once('@') {
            Some((oid, xid)) => (oid, Some(xid.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { oid: oid.parse().ok()?, since_xid })
    }

    fn to_text(self) -> String {
        match self.since_xid {
            Some(xid) => format!("{}@{xid}", self.oid),
            None => self.oid.to_string(),
        }
    }
}

/// What a call has to achieve.
enum Wish<'a> {
    /// Rows of the source fit.
    Fits,
    /// These columns take NULL.
    TakesNull(&'a BTreeSet<String>),
    /// The table of the server is noted.
    Knows(SourceRelation),
}

impl LakeTable {
    /// Makes the table's columns fit a source whose columns are `shape` from here on, and returns those that it did not have. What
    /// writers were made before must be [told](super::TableWriter::retarget).
    ///
    /// # Errors
    /// [`LakeError::SchemaDiffers`] for a change that no reader of the files could follow; names that cannot be columns; else as
    /// [`Self::land`].
    pub async fn evolve(&mut self, shape: &TableShape, patience: &Patience) -> Result<Vec<String>, LakeError> {
        let wanted = Arc::new(LakeSchema::of(shape)?);
        let known = std::mem::replace(&mut self.rules.schema, wanted);
        let evolved = self.evolve_to_rules(shape, patience).await;
        if evolved.is_err() {
            // The columns that the table was committed to with, so that their commits go on.
            self.rules.schema = known;
            self.pending = self.rules.fit(&self.metadata).ok().and_then(|fit| fit.pending);
        }
        evolved
    }

    async fn evolve_to_rules(&mut self, shape: &TableShape, patience: &Patience) -> Result<Vec<String>, LakeError> {
        if !self.in_doubt && self.parked.is_none() {
            let Fit { schema, pending } = self.rules.fit(&self.metadata)?;
            (self.schema, self.pending) = (schema, pending);
        }
        let added = self.pending.as_ref().map(|pending| pending.added.clone()).unwrap_or_default();
        let needed = shape.key.iter().chain(&shape.identity).chain(std::iter::once(&shape.partition_column));
        let mut needed = needed.filter_map(|index| shape.columns.get(*index)).map(|column| &column.lake_name);
        if let Some(column) = needed.find(|name| added.contains(name)) {
            let (location, table) = (self.log.location.clone(), shape.table.clone());
            return Err(LakeError::KeyColumnMissing { location, table, column: column.clone() });
        }
        self.follow_source(patience).await?;
        Ok(added)
    }

    /// Makes the table's columns fit the source that it was opened with.
    pub(super) async fn follow_source(&mut self, patience: &Patience) -> Result<(), LakeError> {
        if self.parked.is_some() { Ok(()) } else { self.achieve(&Wish::Fits, patience).await }
    }

    /// Whether the table has every column of a source as it is now, in its type or one that holds every value of it.
    ///
    /// # Errors
    /// Names that cannot be columns.
    pub fn has_columns_of(&self, shape: &TableShape) -> Result<bool, LakeError> {
        let wanted = LakeSchema::of(shape)?;
        let own = &self.schema.arrow;
        let has = |field: &FieldRef| {
            own.field_with_name(field.name()).is_ok_and(|known| {
                known.data_type() == field.data_type() || holds(known.data_type(), field.data_type())
            })
        };
        Ok(wanted.arrow.fields().iter().all(has))
    }

    /// Columns that were NOT NULL take NULL from here on.
    ///
    /// # Errors
    /// As [`Self::land`].
    pub async fn take_null(&mut self, columns: &BTreeSet<String>, patience: &Patience) -> Result<(), LakeError> {
        self.achieve(&Wish::TakesNull(columns), patience).await
    }

    /// Columns with NULL among these rows that do not take it yet; of the columns in `aside`, so many NULLs stand for something else.
    pub fn columns_with_new_null(&self, rows: &RecordBatch, aside: impl Fn(&str) -> usize) -> BTreeSet<String> {
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).filter(|(_, column)| column.null_count() > 0);
        let required = columns.filter(|(field, column)| {
            let own = self.schema.arrow.field_with_name(field.name());
            own.is_ok_and(|own| !own.is_nullable()) && column.null_count() > aside(field.name())
        });
        required.map(|(field, _)| field.name().clone()).collect()
    }

    /// Which table of the server fed this one last; None before anybody noted it.
    pub fn source_relation(&self) -> Option<SourceRelation> {
        property(&self.metadata, RELATION).and_then(SourceRelation::parse)
    }

    /// Notes which table of the server feeds this one from here on.
    ///
    /// # Errors
    /// As [`Self::land`].
    pub async fn note_source(&mut self, relation: SourceRelation, patience: &Patience) -> Result<(), LakeError> {
        self.achieve(&Wish::Knows(relation), patience).await
    }

    /// Commits what the wish asks for, until the log says that it is so (L2).
    async fn achieve(&mut self, wish: &Wish<'_>, patience: &Patience) -> Result<(), LakeError> {
        let (before, mut waiting) = (self.recorded, patience.begin());
        loop {
            let attempt = match self.in_doubt {
                true => Err(LakeError::InDoubt { location: self.log.location.clone() }),
                false => match self.asked_for(wish)? {
                    None => break,
                    Some(metadata) => self.put_metadata(metadata, patience).await,
                },
            };
            if let Err(error) = attempt {
                self.settle(&mut waiting, error).await?;
                if self.recorded != before {
                    return Err(LakeError::Overtaken { location: self.log.location.clone(), version: self.version });
                }
            }
        }
        waiting.worked(&self.log.location);
        Ok(())
    }

    /// The metadata that fulfils the wish; None when it is fulfilled.
    fn asked_for(&self, wish: &Wish<'_>) -> Result<Option<Metadata>, LakeError> {
        if let Some(since) = self.parked {
            return Err(LakeError::Parked { location: self.log.location.clone(), since });
        }
        let mut metadata = self.metadata.clone();
        match wish {
            Wish::Fits => {
                let Some(Evolution { fields, .. }) = &self.pending else { return Ok(None) };
                metadata.schema_string = schema_string(fields);
                self.list_statistics(&mut metadata);
            }
            Wish::TakesNull(columns) => {
                let takes = |field: &DeltaField| field.nullable || !columns.contains(&field.name);
                if self.schema.fields.iter().all(takes) {
                    return Ok(None);
                }
                let loosened =
                    |field: &DeltaField| DeltaField { nullable: !takes(field) || field.nullable, ..field.clone() };
                metadata.schema_string = schema_string(&self.schema.fields.iter().map(loosened).collect::<Vec<_>>());
            }
            Wish::Knows(relation) if self.source_relation() == Some(*relation) => return Ok(None),
            Wish::Knows(relation) => metadata.set(RELATION, relation.to_text()),
        }
        Ok(Some(metadata))
    }

    /// New columns join those that have statistics in the log, unless somebody decided otherwise for the whole table.
    fn list_statistics(&self, metadata: &mut Metadata) {
        let Some(listed) = property(metadata, STATISTICS_COLUMNS).map(str::to_owned) else { return };
        let mut names: Vec<&str> = listed.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let own = &self.rules.schema;
        for name in own.statistics.iter().filter_map(|index| own.column_name(*index)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        metadata.set(STATISTICS_COLUMNS, names.join(","));
    }

    async fn put_metadata(&mut self, metadata: Metadata, patience: &Patience) -> Result<(), LakeError> {
        let Fit { schema, pending } = self.rules.fit(&metadata)?;
        let widened = self.pending.as_ref().map(|pending| pending.widened.clone()).unwrap_or_default();
        if !widened.is_empty() {
            return self.widen(metadata, &widened, patience).await;
        }
        let columns_change = metadata.schema_string != self.metadata.schema_string;
        let operation = if columns_change { "CHANGE COLUMN" } else { "SET TBLPROPERTIES" };
        let entry = Entry::new(
            |commit, now| actions::alteration(operation, &metadata, commit, now),
            ["lake.before_evolve", "lake.after_evolve"],
        );
        let version = self.put_entry(&entry.altering()).await?;
        (self.metadata, self.schema, self.pending) = (metadata, schema, pending);
        self.checkpoints.after_commit(version, &self.log_store);
        Ok(())
    }
}
