//! Before anything moves: both ends are looked at, and what cannot end well is refused with its remedy (W2).

use super::follow::{Follow, Following, Marker};
use super::land::{Land, Landing};
use super::limits::{LAND_QUEUE_COMMANDS, Limits};
use super::routes::Routes;
use super::transaction::Progress as StreamProgress;
use super::{PipelineError, Running, Totals, Until};
use crate::base::{Lsn, TableShape};
use crate::buffer::TableBuffer;
use crate::config::{Pipeline, TableSection};
use crate::connect::{self, Settings};
use crate::lake::{LakeLocation, LakeTable, Progress, TableWriter, WriterOptions};
use crate::ops::tasks::Stages;
use crate::source::{self, PublicationFacts, TableRules};
use crate::wal::{ReplicationConnection, StreamOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

/// The oldest server whose pgoutput has `binary` and `messages`.
const SERVER_VERSION_MIN: u32 = 140_000;
/// Every change since the last status update is told within this time; the server's default patience is 60 seconds.
const FEEDBACK_INTERVAL: Duration = Duration::from_secs(1);
/// A server that says nothing for so long, asked for a sign of life in between, is taken for dead.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// A consumer that was just killed holds its slot until the server notices the closed socket; a second consumer holds it
/// for good. So long is the difference awaited before the start is refused.
const SLOT_RELEASE_PATIENCE: Duration = Duration::from_secs(5);
const SLOT_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Prefix of the logical messages that lakebed writes into the WAL for itself.
const MARKER_PREFIX: &str = "lakebed";

/// Connects both ends and starts the stages.
///
/// # Errors
/// Whatever stands against following: an unreachable or unsuited server, a missing or differing publication, a missing,
/// lost or held slot, a table that cannot be kept, a lake table that is missing, foreign or different.
pub async fn start(pipeline: &Pipeline, until: Until) -> Result<Running, PipelineError> {
    let settings = Settings::from_url(&pipeline.source.url)?;
    let control = connect::control(&settings).await?;
    let client = control.client();
    let (publication, tables) = look_at_source(client, pipeline, &settings).await?;
    let (oids, shapes): (Vec<u32>, Vec<Arc<TableShape>>) = tables.into_iter().unzip();
    wait_for_slot(client, pipeline, &settings).await?;
    let mut connection = ReplicationConnection::open(&settings).await?;
    let system = connection.identify_system().await?;
    let limits = Limits::new(&pipeline.buffer);
    let landings = open_lake(pipeline, &shapes, &system.system_identifier, limits).await?;
    if let Some(landing) = landings.iter().find(|landing| landing.table.recorded() > system.flushed) {
        let (table, recorded) = (landing.table.location().to_owned(), landing.table.recorded());
        return Err(PipelineError::ServerBehindLake { table, recorded, flushed: system.flushed });
    }
    let stream = connection
        .start(StreamOptions {
            slot: pipeline.source.slot.clone(),
            start: Lsn::ZERO,
            publication: pipeline.source.publication.clone(),
            protocol_version: 1,
            binary: shapes.iter().all(|shape| shape.binary_is_understood()),
            messages: true,
            feedback_interval: FEEDBACK_INTERVAL,
            receive_timeout: RECEIVE_TIMEOUT,
            buffer_bytes: limits.wal_bytes,
        })
        .await?;
    let marker = match until {
        Until::Signalled => None,
        Until::CaughtUp => Some(emit_marker(client).await?),
    };

    let (commands_in, commands_out) = mpsc::channel(LAND_QUEUE_COMMANDS);
    let (durable_in, durable_out) = watch::channel(Lsn::ZERO);
    let (totals_in, totals_out) = watch::channel(Totals::default());
    let (stop_in, stop_out) = watch::channel(false);
    let feedback = stream.feedback();
    let tables = shapes
        .iter()
        .zip(&landings)
        .map(|(shape, landing)| Following {
            buffer: TableBuffer::new(Arc::clone(shape)),
            recorded: landing.table.recorded(),
        })
        .collect();
    let follow = Follow {
        stream,
        feedback: feedback.clone(),
        tables,
        routes: Routes::new(
            oids.into_iter().zip(shapes.iter().map(|shape| shape.table.clone())).collect(),
            &publication,
        ),
        land: commands_in,
        durable: durable_out,
        stop: stop_out,
        limits,
        marker,
        progress: StreamProgress::new(),
    };
    let land = Land {
        tables: landings,
        commands: commands_out,
        feedback,
        durable: durable_in,
        totals: totals_in,
        memory_limit_bytes: limits.writer_bytes,
    };
    let mut stages = Stages::default();
    stages.start("follow", follow.run());
    stages.start("land", land.run());
    tracing::info!(slot = pipeline.source.slot, tables = shapes.len(), "following");
    Ok(Running { stages, stop: stop_in, totals: totals_out, failure: None })
}

/// Server, publication and tables, in the order in which an operator sets them up: each table's oid and shape.
async fn look_at_source(
    client: &Client,
    pipeline: &Pipeline,
    settings: &Settings,
) -> Result<(PublicationFacts, Vec<(u32, Arc<TableShape>)>), PipelineError> {
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
    let mut shapes = Vec::with_capacity(pipeline.tables.len());
    for table in &pipeline.tables {
        let facts = source::table(client, &table_rules(table), publication.generated_stored).await?;
        publishes_whole_table(&publication, &facts.shape)?;
        shapes.push((facts.oid, Arc::new(facts.shape)));
    }
    Ok((publication, shapes))
}

/// What the pipeline file says about a table, as the control plane asks for it.
pub fn table_rules(section: &TableSection) -> TableRules {
    TableRules {
        table: section.name.clone(),
        partition_column: section.partition_column.clone(),
        partition_by: section.partition_by,
        time_zone: section.time_zone,
        text_columns: section.text_columns.clone(),
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

async fn open_lake(
    pipeline: &Pipeline,
    shapes: &[Arc<TableShape>],
    system_identifier: &str,
    limits: Limits,
) -> Result<Vec<Landing>, PipelineError> {
    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    location.probe().await?;
    let mut landings = Vec::with_capacity(shapes.len());
    for (section, shape) in pipeline.tables.iter().zip(shapes) {
        let progress = Progress {
            system_identifier: system_identifier.to_owned(),
            pipeline: pipeline.source.slot.clone(),
            table: section.name.clone(),
            epoch: 0,
        };
        let table = LakeTable::open(&location, section.lake_path(), shape, &progress).await?;
        let options = WriterOptions { memory_limit_bytes: limits.writer_bytes, ..WriterOptions::default() };
        let writer = TableWriter::new(&table, options)?;
        landings.push(Landing { table, writer, dirty: false });
    }
    Ok(landings)
}

/// Refuses a slot that is missing, unusable, or held by another consumer for longer than a closing socket takes.
async fn wait_for_slot(client: &Client, pipeline: &Pipeline, settings: &Settings) -> Result<(), PipelineError> {
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
            return Ok(());
        }
        if tokio::time::Instant::now() >= patience {
            let holder = facts.holder.map_or_else(|| "another session".to_owned(), |holder| holder.to_string());
            return Err(PipelineError::SlotHeld { slot: slot.clone(), holder });
        }
        tokio::time::sleep(SLOT_POLL_INTERVAL).await;
    }
}

/// Writes our own message into the WAL. It is not transactional, so it stands behind everything committed before and needs
/// no transaction of ours; when it comes back through the stream, all of that has been sent. Positions alone would not do:
/// an idle server never sends the last bytes that `pg_current_wal_insert_lsn` names.
async fn emit_marker(client: &Client) -> Result<Marker, PipelineError> {
    let content = uuid::Uuid::new_v4().to_string();
    let _position = source::emit_message(client, MARKER_PREFIX, &content).await?;
    Ok(Marker { prefix: MARKER_PREFIX, content })
}
