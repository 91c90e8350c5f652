//! The start: both ends are looked at, then the stages are wired and begin.

use super::aside::DayRules;
use super::catalog::{Catalog, Catalogued, defaults_of};
use super::copier::{Copier, PutAside};
use super::ends::{self, SourceSide};
use super::follow::{Follow, Following, Marker};
use super::governor::Governor;
use super::in_progress::InProgress;
use super::land::{Land, Witness, stands};
use super::landing::Landing;
use super::limits::{CopyShare, LAND_QUEUE_COMMANDS, Limits};
use super::lineage::{Descent, Lineage, LineageError, Recorded, TableMark, judge, same_system};
use super::routes::Routes;
use super::skips::Skips;
use super::transaction::Progress as StreamProgress;
use super::{PipelineError, Running, Totals, Until};
use crate::base::{DaySet, Lsn, MARKER_PREFIX};
use crate::buffer::TableBuffer;
use crate::config::{OnError, OnTruncate, Pipeline, TableSection};
use crate::connect::{self, Settings};
use crate::lake::{Acknowledgements, Finding, FindingKind, LakeLocation, Patience, finding_positions, record_finding};
use crate::ops::tasks::Stages;
use crate::snapshot::Meter;
use crate::source::{self, Pressure, SlotFacts};
use crate::wal::{ReplicationConnection, ReplicationStream, StreamOptions, SystemIdentity};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

/// Every change since the last status update is told within this time; the server's default patience is 60 seconds.
const FEEDBACK_INTERVAL: Duration = Duration::from_secs(1);
/// Orders of the copying stage that may wait.
const COPY_ORDERS: usize = 4;
/// Who waits for the end does not wait for ever for a store that is gone.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);

/// The words that go from stage to stage, both ends of each.
struct Words {
    stop: (watch::Sender<bool>, watch::Receiver<bool>),
    give_up: (watch::Sender<bool>, watch::Receiver<bool>),
    pressure: (watch::Sender<Pressure>, watch::Receiver<Pressure>),
    critical: (watch::Sender<bool>, watch::Receiver<bool>),
    until: Until,
}

impl Words {
    fn new(until: Until) -> Self {
        Self {
            stop: watch::channel(false),
            give_up: watch::channel(false),
            pressure: watch::channel(Pressure::Ample),
            critical: watch::channel(false),
            until,
        }
    }

    /// How long the pipeline itself waits for a store that fails.
    fn landing_patience(&self) -> Patience {
        let patience = Patience::until(self.give_up.1.clone());
        match self.until {
            Until::Signalled | Until::Copied => patience,
            Until::CaughtUp => patience.at_most(CATCH_UP_PATIENCE),
        }
    }

    /// How long a table's landing waits for a store that fails; a shorter time for one that may be parked instead.
    fn patience(&self, section: &TableSection) -> Patience {
        let patience = self.landing_patience();
        match section.on_error {
            OnError::Park => patience.unless_hurried(self.critical.1.clone()),
            OnError::Stop => patience,
        }
    }
}

/// Connects both ends and starts the stages. With `text_only` the stream is never asked for binary values.
///
/// # Errors
/// Whatever stands against following: an unreachable or unsuited server, a missing or differing publication, a missing,
/// lost or held slot, a table that cannot be kept, a lake table that is missing, foreign or different, and a slot or a server
/// whose past is not the lake's.
pub async fn start(
    pipeline: &Pipeline,
    until: Until,
    text_only: bool,
    meter: &Meter,
) -> Result<Running, PipelineError> {
    let words = Words::new(until);
    let settings = Settings::from_url(&pipeline.source.url)?;
    let control = connect::control(&settings).await?;
    let client = control.client();
    let source = ends::look_at_source(client, pipeline, &settings).await?;
    let slot = ends::wait_for_slot(client, pipeline, &settings).await?;
    let mut connection = ReplicationConnection::open(&settings).await?;
    let system = connection.identify_system().await?;
    let mut limits = Limits::new(&pipeline.buffer);
    let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
    let patience = |section: &TableSection| words.patience(section);
    location.probe().await?;
    let (records, record) = Acknowledgements::open(&location, &pipeline.source.slot).await?;
    let recorded = record.map(Recorded::from);
    same_system(&system.system_identifier, recorded.as_ref())?;
    let mut landings =
        ends::open_lake(pipeline, &location, &source.tables, &system.system_identifier, limits, &patience).await?;
    refused_before(&location, &slot.name).await?;
    let descent = match is_the_lakes_own_past(&mut connection, &system, &slot, recorded.as_ref(), &landings).await {
        Err(error) => return Err(remembered(error, &location, &slot.name).await),
        Ok(descent) => descent,
    };
    let mut witness = Witness { records, system_identifier: system.system_identifier, timeline: system.timeline };
    if let Descent::Switched { from, switched_at } = descent {
        tracing::info!(from, timeline = witness.timeline, switched_at = %switched_at, "the server writes a new timeline, which goes on where the lake ends");
        let acknowledged = recorded.map_or(Lsn::ZERO, |record| record.acknowledged);
        witness.note(acknowledged, stands(&landings), &words.landing_patience()).await?;
    }
    let skips = skips(&location, &pipeline.source.slot).await?;
    let binary = !text_only && source.tables.iter().all(|(_, shape)| shape.binary_is_understood());
    let copies = landings.iter().any(|landing| !landing.marked().is_empty());
    let mut share = CopyShare::default();
    if copies {
        share = limits.share_with_a_copy(pipeline.snapshot.connections);
        landings.iter_mut().for_each(|landing| landing.keep_within(&limits));
    }
    let form = StreamForm { binary, whole_transactions: copies };
    let stream = follow_from(connection, pipeline, form, limits).await?;
    // Only now is it known that this server is the right one.
    for landing in &mut landings {
        landing.park_what_differs(&location, &pipeline.source.slot).await?;
    }
    for ((landing, (oid, _)), section) in landings.iter_mut().zip(&source.tables).zip(&pipeline.tables) {
        if section.truncate == OnTruncate::Refuse {
            landing.refuse_another_source(*oid, &location, &pipeline.source.slot).await?;
        }
    }
    for (landing, (oid, shape)) in landings.iter_mut().zip(&source.tables) {
        let added = landing.evolve(None, shape).await?;
        let defaults = defaults_of(client, *oid, shape, &added).await?;
        let at = landing.recorded();
        landing.note_defaults(&defaults, at, &location, &pipeline.source.slot).await?;
    }
    let catalog = Catalog { settings: Some(settings.clone()), tables: catalogued(pipeline, &source), binary };
    let marker = match until {
        Until::Signalled | Until::Copied => None,
        Until::CaughtUp => Some(emit_marker(client).await?),
    };
    let copying = Copying { whole_transactions: copies, share, meter: meter.clone() };
    let running = wire(
        pipeline, settings, location, source, landings, stream, marker, skips, catalog, witness, limits, words, copying,
    );
    tracing::info!(slot = pipeline.source.slot, tables = pipeline.tables.len(), "following");
    Ok(running)
}

/// W2: the slot and the server must go on where the lake stands.
async fn is_the_lakes_own_past(
    connection: &mut ReplicationConnection,
    system: &SystemIdentity,
    slot: &SlotFacts,
    recorded: Option<&Recorded>,
    landings: &[Landing],
) -> Result<Descent, PipelineError> {
    let history = connection.timeline_history(system.timeline).await?;
    let present = Lineage {
        system_identifier: system.system_identifier.clone(),
        timeline: system.timeline,
        flushed: system.flushed,
        history,
    };
    let tables: Vec<TableMark> = landings
        .iter()
        .map(|landing| TableMark { table: landing.name(), recorded: landing.recorded(), parked: landing.is_parked() })
        .collect();
    let confirmed = slot.confirmed.unwrap_or(Lsn::ZERO);
    Ok(judge(&present, (&slot.name, confirmed), recorded, &tables)?)
}

/// A server that was rolled back is refused for as long as nobody has said that it is the right one again: once it has written
/// more than the lake holds, nothing else tells it from the one that was followed.
async fn refused_before(location: &LakeLocation, slot: &str) -> Result<(), PipelineError> {
    match finding_positions(location, slot, FindingKind::Refused).await?.into_iter().max() {
        None => Ok(()),
        Some(held) => {
            let object = format!("{location}/_lakebed/findings/{slot}/refused-*.json");
            Err(LineageError::RefusedBefore { held, object }.into())
        }
    }
}

/// Leaves the note that [`refused_before`] looks for. An attempt: the error is the same without it.
async fn remembered(error: PipelineError, location: &LakeLocation, slot: &str) -> PipelineError {
    if let PipelineError::Lineage(LineageError::ServerBehindLake { held, .. }) = &error {
        let finding = Finding {
            kind: FindingKind::Refused,
            table: None,
            lsn: *held,
            reason: error.to_string(),
            recorded_at: chrono::Utc::now(),
            recorded_by: format!("lakebed {}", env!("CARGO_PKG_VERSION")),
        };
        if let Err(error) = record_finding(location, slot, &finding, &Patience::none()).await {
            tracing::info!(%error, "that this server was refused could not be noted in the lake");
        }
    }
    error
}

async fn skips(location: &LakeLocation, slot: &str) -> Result<Skips, PipelineError> {
    Ok(Skips::new(finding_positions(location, slot, FindingKind::Skipped).await?))
}

fn catalogued(pipeline: &Pipeline, source: &SourceSide) -> Vec<Catalogued> {
    let tables = pipeline.tables.iter().zip(&source.tables).zip(&source.partitioned);
    let catalogued = tables.map(|((section, (_, shape)), is_partitioned)| Catalogued {
        rules: ends::table_rules(section),
        found: Arc::clone(shape),
        is_partitioned: *is_partitioned,
    });
    catalogued.collect()
}

/// How the server is asked to send.
struct StreamForm {
    binary: bool,
    /// Days are copied meanwhile: of a transaction in progress nobody could tell yet which of its changes a copy has.
    whole_transactions: bool,
}

/// What the copying stage is told.
struct Copying {
    whole_transactions: bool,
    share: CopyShare,
    meter: Meter,
}

async fn follow_from(
    connection: ReplicationConnection,
    pipeline: &Pipeline,
    StreamForm { binary, whole_transactions }: StreamForm,
    limits: Limits,
) -> Result<ReplicationStream, PipelineError> {
    let receive_timeout = connection.receive_timeout();
    let streaming = pipeline.source.streaming && !whole_transactions;
    let options = StreamOptions {
        slot: pipeline.source.slot.clone(),
        start: Lsn::ZERO,
        publication: pipeline.source.publication.clone(),
        protocol_version: if streaming { 2 } else { 1 },
        streaming,
        binary,
        messages: true,
        feedback_interval: FEEDBACK_INTERVAL,
        receive_timeout,
        buffer_bytes: limits.wal_bytes,
    };
    Ok(connection.start(options).await?)
}

/// Makes the stages and the queues between them, and lets them begin.
#[allow(clippy::too_many_arguments, reason = "everything that was found comes together here, once")]
fn wire(
    pipeline: &Pipeline,
    settings: Settings,
    location: LakeLocation,
    source: SourceSide,
    landings: Vec<Landing>,
    stream: ReplicationStream,
    marker: Option<Marker>,
    skips: Skips,
    catalog: Catalog,
    witness: Witness,
    limits: Limits,
    words: Words,
    copying: Copying,
) -> Running {
    let patience = words.landing_patience();
    let again = Arc::new(AtomicBool::new(false));
    let (orders_in, orders_out) = mpsc::channel(COPY_ORDERS);
    let (marked_in, marked_out) = watch::channel(landings.iter().map(Landing::marked).collect());
    let (commands_in, commands_out) = mpsc::channel(LAND_QUEUE_COMMANDS);
    let (durable_in, durable_out) = watch::channel(Lsn::ZERO);
    let (totals_in, totals_out) = watch::channel(Totals::default());
    let feedback = stream.feedback();
    let following = pipeline.tables.iter().zip(&source.tables).zip(&landings);
    let following = following.map(|((section, (_, shape)), landing)| Following {
        shape: Arc::clone(shape),
        buffer: TableBuffer::new(Arc::clone(shape)),
        recorded: landing.recorded(),
        parked: landing.is_parked(),
        may_park: section.on_error == OnError::Park,
        source: landing.source_relation(),
        emptied_by: None,
        may_be_emptied: section.truncate == OnTruncate::Apply,
        described: 0,
        relation: None,
        days: DayRules { marked: landing.marked(), copying: DaySet::default() },
    });
    let published =
        pipeline.tables.iter().map(|section| (section.name.clone(), section.lake_path().to_owned())).collect();
    let oids = source.tables.iter().map(|(oid, shape)| (*oid, shape.table.clone())).collect();
    let follow = Follow {
        tables: following.collect(),
        routes: Routes::new(oids, &source.publication),
        land: commands_in,
        durable: durable_out,
        stop: words.stop.1.clone(),
        pressure: words.pressure.1,
        limits,
        marker,
        progress: StreamProgress::default(),
        in_progress: InProgress::default(),
        skips,
        catalog,
        orders: orders_out,
        aside: None,
        again: Arc::clone(&again),
        relations: 0,
    };
    let copier = Copier {
        pipeline: pipeline.clone(),
        settings: settings.clone(),
        until: words.until,
        whole_transactions: copying.whole_transactions,
        share: copying.share,
        marked: marked_out,
        orders: orders_in,
        land: follow.land.downgrade(),
        stop: words.stop.1.clone(),
        meter: copying.meter,
        location: location.clone(),
        expected: BTreeMap::new(),
        batch: Vec::new(),
        one_group: false,
        may_pass: false,
        hindered: 0,
        put_aside: PutAside::default(),
    };
    let governor_location = location.clone();
    let land = Land {
        location,
        slot: pipeline.source.slot.clone(),
        tables: landings,
        commands: commands_out,
        feedback,
        durable: durable_in,
        totals: totals_in,
        marked: marked_in,
        witness,
        patience,
        memory_limit_bytes: limits.writer_bytes,
    };
    let governor = Governor {
        settings,
        slot: pipeline.source.slot.clone(),
        heartbeat_interval: pipeline.source.heartbeat_interval,
        publication: pipeline.source.publication.clone(),
        tables: published,
        location: governor_location,
        level: words.pressure.0,
        critical: words.critical.0,
        stop: words.stop.1,
    };
    let mut stages = Stages::default();
    stages.start("follow", follow.run(stream));
    stages.start("land", land.run());
    stages.start("governor", governor.run());
    stages.start("copier", copier.run());
    Running { stages, stop: words.stop.0, patience: words.give_up.0, totals: totals_out, again, failure: None }
}

/// Writes our own message into the WAL. It is not transactional, so it stands behind everything committed before and needs
/// no transaction of ours; when it comes back through the stream, all of that has been sent. Positions alone would not do:
/// an idle server never sends the last bytes that `pg_current_wal_insert_lsn` names.
async fn emit_marker(client: &Client) -> Result<Marker, PipelineError> {
    let content = uuid::Uuid::new_v4().to_string();
    let _position = source::emit_message(client, MARKER_PREFIX, &content).await?;
    Ok(Marker { prefix: MARKER_PREFIX, content })
}
