//! What a table of the stream has become, as the server's catalog tells it: asked over a connection that lives for one question, because
//! columns change seldom.

use super::PipelineError;
use super::refusal::{Cause, Refusal};
use crate::base::{Classify, RetryClass, TableShape};
use crate::connect::{self, ControlConnection, Settings};
use crate::decode::{Relation, ReplicaIdentity};
use crate::source::{self, DescribedColumn, DescribedTable, SourceError, TableRules};
use std::sync::Arc;

/// Where to ask, and what the pipeline file says about each table.
pub(super) struct Catalog {
    /// None: nobody is asked, and only what is built into every server is known.
    pub(super) settings: Option<Settings>,
    pub(super) tables: Vec<Catalogued>,
    /// The stream's values come in their binary form.
    pub(super) binary: bool,
}

/// One configured table.
pub(super) struct Catalogued {
    pub(super) rules: TableRules,
    /// As the catalog had it at the start.
    pub(super) found: Arc<TableShape>,
    pub(super) is_partitioned: bool,
}

/// A table's new columns.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) shape: Arc<TableShape>,
    /// The lake's names of added columns that the server has filled in rows which were there before.
    pub(super) defaults: Vec<String>,
}

impl Catalog {
    /// What a relation says that `known` does not; None when it says nothing new. A type whose binary form is not decoded ends the
    /// stream, which then starts again as text.
    pub(super) async fn learn(
        &self,
        table: usize,
        relation: &Relation,
        known: &TableShape,
    ) -> Result<Result<Option<Learned>, Refusal>, PipelineError> {
        let Some(catalogued) = self.tables.get(table) else { return Ok(Ok(None)) };
        let described = described(relation);
        if described.is(known, catalogued.is_partitioned) {
            return Ok(Ok(None));
        }
        let learned = match self.ask(&described, relation.oid, known, catalogued).await {
            Ok(learned) => learned,
            Err(PipelineError::Source(error)) if error.retry_class() == RetryClass::Definite => {
                return Ok(Err(Refusal { table: Some(table), cause: Cause::Source(Box::new(error)) }));
            }
            Err(error) => return Err(error),
        };
        let unknown = learned.shape.columns.iter().find(|column| !column.column_type.binary_is_understood());
        if let Some(column) = unknown.filter(|_| self.binary) {
            let (table, column) = (known.table.clone(), column.name.clone());
            return Err(PipelineError::BinaryNotUnderstood { table, column });
        }
        Ok(Ok(Some(learned)))
    }

    /// Which of these subtransactions, as ranges, the server has rolled back.
    pub(super) async fn rolled_back(&self, ranges: &[(u32, u32)]) -> Result<Vec<u32>, PipelineError> {
        let Some(settings) = self.settings.as_ref().filter(|_| !ranges.is_empty()) else { return Ok(Vec::new()) };
        let control = connect::control(settings).await?;
        source::prepare_session(control.client()).await?;
        Ok(source::rolled_back(control.client(), ranges).await?)
    }

    async fn ask(
        &self,
        described: &DescribedTable,
        oid: u32,
        known: &TableShape,
        Catalogued { rules, found, is_partitioned }: &Catalogued,
    ) -> Result<Learned, PipelineError> {
        let control = match &self.settings {
            Some(settings) => Some(connect::control(settings).await?),
            None => None,
        };
        let client = control.as_ref().map(ControlConnection::client);
        if let Some(client) = client {
            source::prepare_session(client).await?;
        }
        let shape = described.shape((known, found), rules, *is_partitioned, client).await?;
        let is_new = |name: &String| known.columns.iter().all(|column| column.lake_name != *name);
        let added: Vec<String> = shape.columns.iter().map(|column| column.lake_name.clone()).filter(is_new).collect();
        let defaults = match client {
            Some(client) => defaults_of(client, oid, &shape, &added).await?,
            None => Vec::new(),
        };
        Ok(Learned { shape: Arc::new(shape), defaults })
    }
}

/// Those of some columns, by the lake's names, that the server has filled in rows which were there before.
pub(super) async fn defaults_of(
    client: &tokio_postgres::Client,
    oid: u32,
    shape: &TableShape,
    added: &[String],
) -> Result<Vec<String>, SourceError> {
    let columns: Vec<_> = shape.columns.iter().filter(|column| added.contains(&column.lake_name)).collect();
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let filled = source::columns_with_default(client, oid, &names).await?;
    let filled = columns.into_iter().filter(|column| filled.contains(&column.name));
    Ok(filled.map(|column| column.lake_name.clone()).collect())
}

fn described(relation: &Relation) -> DescribedTable {
    let identity = match relation.replica_identity {
        ReplicaIdentity::Default => source::ReplicaIdentity::Default,
        ReplicaIdentity::Nothing => source::ReplicaIdentity::Nothing,
        ReplicaIdentity::Full => source::ReplicaIdentity::Full,
        ReplicaIdentity::Index => source::ReplicaIdentity::Index,
    };
    let column = |column: &crate::decode::RelationColumn| DescribedColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        is_key: column.is_key,
    };
    DescribedTable { columns: relation.columns.iter().map(column).collect(), identity }
}
