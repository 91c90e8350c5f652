//! Both ends before anything moves: what cannot end well is refused with its remedy (W2).

use super::PipelineError;
use super::inflow::Inflow;
use super::landing::Landing;
use super::limits::Limits;
use crate::base::{Classify, RetryClass, TableShape};
use crate::config::{OnError, Pipeline, TableSection};
use crate::connect::Settings;
use crate::lake::{LakeError, LakeLocation, LakeTable, Patience, Progress, TableWriter, WriterOptions};
use crate::source::{self, PublicationFacts, SlotFacts, TableFacts, TableRules};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;

/// The oldest server whose pgoutput has `binary`, `messages` and `streaming`.
const SERVER_VERSION_MIN: u32 = 140_000;
/// A consumer that was just killed holds its slot until the server notices the closed socket; a second consumer holds it
/// for good. So long is the difference awaited before the start is refused.
const SLOT_RELEASE_PATIENCE: Duration = Duration::from_secs(5);
const SLOT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Of a table that could not be found: no relation has it.
const NO_OID: u32 = 0;

/// What the source looks like.
pub(super) struct SourceSide {
    pub(super) publication: PublicationFacts,
    /// In the order of `[[table]]`: oid and shape.
    pub(super) tables: Vec<(u32, Arc<TableShape>)>,
    /// In the same order: whether rows are in leaves.
    pub(super) partitioned: Vec<bool>,
}

/// Server, publication and tables, in the order in which an operator sets them up: each table's oid and shape.
pub(super) async fn look_at_source(
    client: &Client,
    pipeline: &Pipeline,
    settings: &Settings,
) -> Result<SourceSide, PipelineError> {
    source::prepare_session(client).await?;
    let server = source::server(client).await?;
    let endpoint = settings.endpoint();
    if server.version < SERVER_VERSION_MIN {
        return Err(PipelineError::ServerVersion { endpoint, found: server.version });
    }
    if server.wal_level != "logical" {
        return Err(PipelineError::WalLevel { endpoint, found: server.wal_level });
    }
    let name = &pipeline.source.publication;
    let publication = source::publication(client, name)
        .await?
        .ok_or_else(|| PipelineError::NoPublication { publication: name.clone(), database: server.database.clone() })?;
    if !publication.via_root {
        let problem = "lacks publish_via_partition_root, so rows would arrive under leaves and be lost".to_owned();
        return Err(PipelineError::PublicationDiffers { publication: name.clone(), problem });
    }
    let (mut shapes, mut partitioned) = (Vec::with_capacity(pipeline.tables.len()), Vec::new());
    for table in &pipeline.tables {
        let (oid, shape, is_partitioned) = match look_at_table(client, table, &publication).await {
            Ok(facts) => (facts.oid, facts.shape, facts.partitioning.is_some()),
            Err(error) if stands_still(pipeline, table, &error).await => {
                tracing::info!(table = %table.name, %error, "the table stands still, so this stops nobody");
                (NO_OID, nothing_known_of(table), false)
            }
            Err(error) => return Err(error),
        };
        partitioned.push(is_partitioned);
        shapes.push((oid, Arc::new(shape)));
    }
    Ok(SourceSide { publication, tables: shapes, partitioned })
}

async fn look_at_table(
    client: &Client,
    table: &TableSection,
    publication: &PublicationFacts,
) -> Result<TableFacts, PipelineError> {
    let facts = source::table(client, &table_rules(table), publication.generated_stored).await?;
    publishes_whole_table(publication, &facts.shape)?;
    Ok(facts)
}

/// Whether a table takes no rows whatever its source says. That the lake cannot be asked is told later, by whoever needs it.
async fn stands_still(pipeline: &Pipeline, table: &TableSection, error: &PipelineError) -> bool {
    if error.retry_class() == RetryClass::Transient {
        return false;
    }
    let Ok(location) = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options) else { return false };
    let asked = LakeTable::stands_still(&location, table.lake_path(), &pipeline.source.slot, &table.name).await;
    asked.unwrap_or(false)
}

/// No row is read by it.
fn nothing_known_of(section: &TableSection) -> TableShape {
    TableShape {
        table: section.name.clone(),
        columns: Vec::new(),
        partition_column: 0,
        partition_by: section.partition_by,
        time_zone: section.time_zone,
        key: Vec::new(),
        identity: Vec::new(),
        identity_is_ambiguous: false,
    }
}

/// What the pipeline file says about a table, as the control plane asks for it.
pub fn table_rules(section: &TableSection) -> TableRules {
    TableRules {
        table: section.name.clone(),
        partition_column: section.partition_column.clone(),
        partition_by: section.partition_by,
        time_zone: section.time_zone,
        text_columns: section.text_columns.clone(),
        lake_columns: section.lake_columns.clone(),
    }
}

/// A publication that leaves out a table, an operation, a column or a row would lose it without a word.
fn publishes_whole_table(publication: &PublicationFacts, shape: &TableShape) -> Result<(), PipelineError> {
    let table = &shape.table;
    let operations = publication.missing_operations();
    let problem = match publication.find(table) {
        None => Some(format!("does not publish {table}")),
        Some(published) if published.has_column_list => Some(format!("sends only some columns of {table}")),
        Some(published) if published.has_row_filter => Some(format!("sends only some rows of {table}")),
        Some(_) if !operations.is_empty() => Some(format!("does not publish {}", operations.join(", "))),
        Some(_) => None,
    };
    match problem {
        Some(problem) => Err(PipelineError::PublicationDiffers { publication: publication.name.clone(), problem }),
        None => Ok(()),
    }
}

/// Opens every table's lake side; the location was probed. One whose schema no longer fits, and that may stand still, carries the
/// reason with it.
pub(super) async fn open_lake(
    pipeline: &Pipeline,
    location: &LakeLocation,
    tables: &[(u32, Arc<TableShape>)],
    system_identifier: &str,
    limits: Limits,
    patience: &dyn Fn(&TableSection) -> Patience,
) -> Result<Vec<Landing>, PipelineError> {
    let mut landings = Vec::with_capacity(tables.len());
    for (section, (_, shape)) in pipeline.tables.iter().zip(tables) {
        let progress = Progress {
            system_identifier: system_identifier.to_owned(),
            pipeline: pipeline.source.slot.clone(),
            table: section.name.clone(),
            epoch: 0,
        };
        let may_park = section.on_error == OnError::Park;
        let (table, differs) = match LakeTable::open(location, section.lake_path(), shape, &progress).await {
            Ok(table) => (table, None),
            Err(error) if error.retry_class() == RetryClass::Transient => return Err(error.into()),
            Err(error) => match LakeTable::open_to_park(location, section.lake_path(), &progress).await {
                Ok(table) if table.parked().is_some() => (table, None),
                Ok(table) if may_park && matches!(error, LakeError::SchemaDiffers { .. }) => (table, Some(error)),
                _ => return Err(error.into()),
            },
        };
        let options = WriterOptions { memory_limit_bytes: limits.writer_bytes, ..WriterOptions::default() };
        let patience = patience(section);
        let writer = TableWriter::new(&table, options, patience.clone())?;
        let whole = Inflow::new(writer, limits.changes_bytes / 2);
        let name = section.name.clone();
        landings.push(Landing::new(name, table, whole, limits.rewriter(), may_park, patience, differs));
    }
    Ok(landings)
}

/// Refuses a slot that is missing, unusable, or held by another consumer for longer than a closing socket takes.
pub(super) async fn wait_for_slot(
    client: &Client,
    pipeline: &Pipeline,
    settings: &Settings,
) -> Result<SlotFacts, PipelineError> {
    let slot = &pipeline.source.slot;
    let patience = tokio::time::Instant::now() + SLOT_RELEASE_PATIENCE;
    loop {
        let facts = source::slot(client, slot)
            .await?
            .ok_or_else(|| PipelineError::NoSlot { slot: slot.clone(), endpoint: settings.endpoint() })?;
        if let Some(problem) = facts.unusable(settings.database()) {
            return Err(PipelineError::SlotUnusable { problem });
        }
        if !facts.active {
            return Ok(facts);
        }
        if tokio::time::Instant::now() >= patience {
            let holder = facts.holder.map_or_else(|| "another session".to_owned(), |holder| holder.to_string());
            return Err(PipelineError::SlotHeld { slot: slot.clone(), holder });
        }
        tokio::time::sleep(SLOT_POLL_INTERVAL).await;
    }
}
