//! What the server tells `status`.

use super::archive_side::ArchiveSide;
use crate::base::TableShape;
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::pipeline::table_rules;
use crate::source::{self, Leaf, OpenFinding, ServerFacts, SlotFacts, TableFacts};
use chrono::NaiveDate;
use std::ops::Range;
use tokio_postgres::Client;

/// The server, the slot and the tables.
pub(super) struct SourceSide {
    pub(super) server: ServerFacts,
    pub(super) slot: Option<SlotFacts>,
    /// In the order of `[[table]]`; `None` where the table cannot be followed, which `check` explains.
    pub(super) tables: Vec<Option<SourceTable>>,
    /// What was found in the archive and is not settled, or why it cannot be read.
    pub(super) archive_findings: Result<Vec<OpenFinding>, String>,
}

/// One table.
pub(super) struct SourceTable {
    pub(super) shape: TableShape,
    /// The days of each partition that holds no row, or why they cannot be looked for.
    pub(super) empty: Result<Vec<Range<NaiveDate>>, String>,
    /// What is proved, what waits and what was dropped; None where that cannot be read.
    pub(super) archive: Option<ArchiveSide>,
}

impl SourceSide {
    pub(super) async fn look(pipeline: &Pipeline, settings: &Settings) -> anyhow::Result<Self> {
        let connection = connect::control(settings).await?;
        let client = connection.client();
        source::prepare_session(client).await?;
        let server = source::server(client).await?;
        let slot = source::slot(client, &pipeline.source.slot).await?;
        let publication = source::publication(client, &pipeline.source.publication).await?;
        let generated_published = publication.is_some_and(|publication| publication.generated_stored);
        let mut tables = Vec::with_capacity(pipeline.tables.len());
        for section in &pipeline.tables {
            let facts = source::table(client, &table_rules(section), generated_published).await;
            tables.push(match facts {
                Ok(facts) => {
                    Some(SourceTable::of(client, (&pipeline.archive.schema, &pipeline.source.slot), facts).await)
                }
                Err(_) => None,
            });
        }
        let archive_findings = source::open_findings(client, &pipeline.archive.schema).await;
        let archive_findings = archive_findings.map_err(|error| error.to_string());
        Ok(Self { server, slot, tables, archive_findings })
    }

    /// Of the table at this place in the pipeline file.
    pub(super) fn table(&self, index: usize) -> Option<&SourceTable> {
        self.tables.get(index)?.as_ref()
    }
}

impl SourceTable {
    async fn of(client: &Client, archive: (&str, &str), facts: TableFacts) -> Self {
        let empty = empty_days(client, &facts).await.map_err(|error| error.to_string());
        let archive = ArchiveSide::look(client, archive, &facts).await.ok();
        Self { shape: facts.shape, empty, archive }
    }
}

async fn empty_days(client: &Client, facts: &TableFacts) -> Result<Vec<Range<NaiveDate>>, source::SourceError> {
    let shape = &facts.shape;
    let Some(column) = shape.columns.get(shape.partition_column) else { return Ok(Vec::new()) };
    let leaves = source::leaves(client, facts.oid, shape).await?;
    let empty = source::empty_leaves(client, &leaves).await?;
    let is_empty = |leaf: &&Leaf| empty.iter().any(|empty| empty.oid == leaf.oid);
    let days = |leaf: &Leaf| leaf.bound.days(column.column_type, shape.time_zone);
    // A day may be cut again, by a tenant say, and only some of its parts be empty.
    let held: Vec<Range<NaiveDate>> = leaves.iter().filter(|leaf| !is_empty(leaf)).filter_map(days).collect();
    let is_held = |range: &Range<NaiveDate>| held.iter().any(|held| held.start < range.end && range.start < held.end);
    Ok(empty.iter().copied().filter_map(days).filter(|range| !is_held(range)).collect())
}
