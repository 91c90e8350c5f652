//! Copies a batch of days under one snapshot, over several sessions, into files that no commit names yet.

use super::SnapshotError;
use super::exported::Exported;
use super::meter::{Meter, Phase};
use super::outlet::Outlet;
use super::pace::Pace;
use super::places::{Place, Sizes, SourceTable, are_untouched, places};
use super::seat::{Seat, give_way};
use super::work::{Queue, Relation, columns_of};
use super::worker::{Count, Harvest, Shared, Table, Worker};
use crate::base::DaySet;
use crate::connect::{ControlConnection, Settings, control};
use crate::lake::{StagedFile, TableWriter};
use crate::ops::tasks::{StageFailure, Stages};
use crate::source;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often somebody looks for those who wait for a table that is being copied.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long sessions may take to end after one of them has failed.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// What is copied of one table.
pub struct Order {
    /// The table; what was detached from it listed after the snapshot was taken.
    pub table: SourceTable,
    /// The days, or all of them.
    pub days: DaySet,
    /// A writer of the lake's table, with nothing open: sessions get their own from it.
    pub writer: TableWriter,
}

/// An [`Order`] without its writer.
struct Wanted {
    table: SourceTable,
    days: DaySet,
}

/// What a copy may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions that read at the same time.
    pub connections: usize,
    /// Over all of them, in COPY's form; None is no limit.
    pub bytes_per_second: Option<u64>,
    /// Rows of a session that wait before they are handed to its writer. While those are written the next ones are gathered, so a session
    /// holds twice that, and what its writer may hold.
    pub builder_bytes: usize,
}

/// One table's rows, in files that wait for a commit.
pub struct Copied {
    /// Files of the order's days, none for a day without rows, with the writer of each; and the order's own. No file of theirs may be
    /// removed before it is known whether the commit came about.
    pub written: Vec<(TableWriter, Vec<StagedFile>)>,
    /// Rows in the files.
    pub rows: u64,
    /// Bytes that were read for them, in COPY's form.
    pub bytes: u64,
}

/// Copies what the orders name, as the snapshot sees it; the answer is in their order. The snapshot is let go as soon as every session has
/// it, and each session's own part of it when there is nothing left to read.
///
/// Not cancel-safe: what was uploaded then is for the next process to remove; `given_up` ends it in order. After an error nothing is left, as
/// far as the store allows.
///
/// # Errors
/// Transient ones mean that the whole batch is to be copied again, under another snapshot.
pub async fn copy(
    settings: &Settings,
    exported: Exported,
    orders: Vec<Order>,
    limits: Limits,
    meter: &Meter,
    given_up: impl Future<Output = ()> + Send,
) -> Result<Vec<Copied>, SnapshotError> {
    meter.enter(Phase::Copying);
    // A writer cannot be shared between threads, not even to be looked at.
    let (orders, writers): (Vec<Wanted>, Vec<TableWriter>) =
        orders.into_iter().map(|Order { table, days, writer }| (Wanted { table, days }, writer)).unzip();
    let watching = control(settings).await?;
    source::prepare_copying(watching.client()).await?;
    let first = session(settings, &exported).await?;
    let survey = survey(&first, &orders).await?;
    let queue = Queue::new(survey.relations);
    let count = limits.connections.clamp(1, queue.ranges().max(1));
    let mut sessions = vec![first];
    while sessions.len() < count {
        sessions.push(session(settings, &exported).await?);
    }
    // Its slot keeps WAL, and every session has the snapshot.
    drop(exported);
    let shared = Arc::new(Shared {
        tables: survey.tables,
        queue: Mutex::new(queue),
        pace: limits.bytes_per_second.map(Pace::new),
        meter: meter.clone(),
        builder_bytes: limits.builder_bytes,
        attempts: AtomicU32::new(1),
        stop: AtomicBool::new(false),
        ended: Mutex::new(Vec::new()),
    });
    let sessions = with_outlets(sessions, &writers);
    let read = read(&watching, sessions, &shared, given_up).await;
    let harvests = std::mem::take(&mut *shared.ended.lock().unwrap_or_else(PoisonError::into_inner));
    let outcome = match read {
        Ok(()) => judge(&watching, &survey.places, &orders).await,
        failed => failed,
    };
    match outcome {
        Ok(()) => Ok(gather(writers, harvests)),
        Err(error) => {
            count_back(meter, &harvests);
            let outlets = harvests.into_iter().flat_map(|harvest| harvest.outlets);
            futures::future::join_all(outlets.map(Outlet::abandon)).await;
            Err(error)
        }
    }
}

/// Each session's own writers, by order.
fn with_outlets(sessions: Vec<ControlConnection>, writers: &[TableWriter]) -> Vec<(ControlConnection, Vec<Outlet>)> {
    let outlets = || writers.iter().map(|writer| Outlet::new(writer.another())).collect();
    sessions.into_iter().map(|session| (session, outlets())).collect()
}

/// A session in the snapshot.
async fn session(settings: &Settings, exported: &Exported) -> Result<ControlConnection, SnapshotError> {
    let session = control(settings).await?;
    source::prepare_copying(session.client()).await?;
    source::import_snapshot(session.client(), exported.name()).await?;
    Ok(session)
}

/// What there is to read, as the snapshot sees it.
struct Survey {
    tables: Vec<Table>,
    relations: Vec<Relation>,
    /// By order.
    places: Vec<Vec<Place>>,
}

async fn survey(session: &ControlConnection, orders: &[Wanted]) -> Result<Survey, SnapshotError> {
    let mut survey = Survey { tables: Vec::new(), relations: Vec::new(), places: Vec::new() };
    for (number, Wanted { table, days }) in orders.iter().enumerate() {
        let shape = &table.facts.shape;
        let (columns, texts) = columns_of(shape);
        let places = places(session.client(), table, days, Sizes::Exact).await?;
        let relation = |place: &Place| Relation::new(number, place, shape, days, &columns);
        survey.relations.extend(places.iter().map(relation));
        survey.tables.push(Table { shape: Arc::new(shape.clone()), days: days.clone(), texts });
        survey.places.push(places);
    }
    Ok(survey)
}

/// Runs the sessions to their end, and gives way for them.
async fn read(
    watching: &ControlConnection,
    sessions: Vec<(ControlConnection, Vec<Outlet>)>,
    shared: &Arc<Shared>,
    given_up: impl Future<Output = ()> + Send,
) -> Result<(), SnapshotError> {
    let mut seats = Vec::with_capacity(sessions.len());
    let mut stages = Stages::default();
    for (session, outlets) in sessions {
        let seat = Arc::new(Seat::new(source::backend(session.client()).await?));
        seats.push(Arc::clone(&seat));
        stages.start("copy", Box::pin(Worker::new(Arc::clone(shared), session, seat, outlets).run()));
    }
    let watched = watch(watching, &mut stages, &seats, given_up).await;
    if watched.is_err() {
        shared.stop.store(true, Ordering::Release);
        let ending = async {
            for seat in &seats {
                if let Err(error) = seat.ask(watching.client()).await {
                    tracing::debug!(%error, "a session that copies is not told to end");
                }
            }
            while stages.next_end().await.is_some() {}
        };
        if timeout(STOP_WITHIN, ending).await.is_err() {
            tracing::debug!("sessions of a copy that was given up did not end by themselves");
        }
    }
    watched
}

/// Until all have ended, or one has failed.
async fn watch(
    watching: &ControlConnection,
    stages: &mut Stages<SnapshotError>,
    seats: &[Arc<Seat>],
    given_up: impl Future<Output = ()> + Send,
) -> Result<(), SnapshotError> {
    let mut given_up = pin!(given_up);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            end = stages.next_end() => match end {
                None => return Ok(()),
                Some((_, Ok(()))) => {}
                Some((_, Err(StageFailure::Failed(error)))) => return Err(error),
                Some((_, Err(StageFailure::Panicked { .. }))) => return Err(SnapshotError::Panicked),
            },
            () = &mut given_up => return Err(SnapshotError::GivenUp),
            // Whoever cannot be seen waiting would wait for the rest of the copy.
            _ = looks.tick() => give_way(watching.client(), seats).await?,
        }
    }
}

/// Whether what was read is what the snapshot had. A table that was rewritten meanwhile shows an old snapshot nothing, or rows at other
/// places; and its file never comes back, so one look behind the last row sees them all.
async fn judge(watching: &ControlConnection, places: &[Vec<Place>], orders: &[Wanted]) -> Result<(), SnapshotError> {
    for (places, order) in places.iter().zip(orders) {
        let places: Vec<&Place> = places.iter().collect();
        if !are_untouched(watching.client(), &places).await? {
            return Err(SnapshotError::Rewritten { table: order.table.facts.shape.table.clone() });
        }
    }
    Ok(())
}

fn gather(writers: Vec<TableWriter>, harvests: Vec<Harvest>) -> Vec<Copied> {
    let new = |writer| Copied { written: vec![(writer, Vec::new())], rows: 0, bytes: 0 };
    let mut copied: Vec<Copied> = writers.into_iter().map(new).collect();
    for Harvest { outlets, counts } in harvests {
        for ((outlet, Count { rows, bytes }), copied) in outlets.into_iter().zip(counts).zip(&mut copied) {
            copied.written.extend(outlet.into_parts());
            copied.rows += rows;
            copied.bytes += bytes;
        }
    }
    copied
}

/// What was read is read again, and must not count twice.
fn count_back(meter: &Meter, harvests: &[Harvest]) {
    for count in harvests.iter().flat_map(|harvest| &harvest.counts) {
        meter.unread(count.rows, count.bytes);
    }
}
