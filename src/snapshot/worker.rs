//! One session that reads ranges, and turns their rows into files.

use super::SnapshotError;
use super::meter::Meter;
use super::outlet::Outlet;
use super::pace::Pace;
use super::places::{LOCK_ATTEMPTS, LOCK_SECONDS};
use super::rows::{CopiedRows, RowFault};
use super::seat::Seat;
use super::work::{Blocks, Queue, Relation, Work};
use crate::base::{DaySet, TableShape, XidSet};
use crate::buffer::{BufferError, PartitionBatch, TableBuffer};
use crate::connect::ControlConnection;
use crate::decode::{Relation as DescribedRelation, RelationColumn, ReplicaIdentity};
use crate::ops::fail_points;
use crate::source::{self, SourceError};
use futures::StreamExt;
use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::{Client, CopyOutStream};

/// Between two looks at the limit and the meter.
const ACCOUNT_BYTES: u64 = 64 << 10;
/// A COPY that was told to end ends at its next row; what is on its way is read for so long.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// How often a relation is looked for that has another name each time.
const MOVES_MAX: u32 = 10;
/// After so many times of giving way at one range, it is read in halves.
const WHOLE_ATTEMPTS: u32 = 1;

/// One table of the batch, for every session.
pub(super) struct Table {
    pub(super) shape: Arc<TableShape>,
    pub(super) days: DaySet,
    /// Which columns come as text.
    pub(super) texts: Arc<[bool]>,
}

/// What all sessions share.
pub(super) struct Shared {
    pub(super) tables: Vec<Table>,
    pub(super) queue: Mutex<Queue>,
    pub(super) pace: Option<Pace>,
    pub(super) meter: Meter,
    /// Rows of a session before they are handed on.
    pub(super) builder_bytes: usize,
    /// Every attempt at a range has a number of its own.
    pub(super) attempts: AtomicU32,
    /// Somebody has failed.
    pub(super) stop: AtomicBool,
    /// What sessions that have ended leave behind.
    pub(super) ended: Mutex<Vec<Harvest>>,
}

/// What one session has read, by order.
#[derive(Default)]
pub(super) struct Harvest {
    pub(super) outlets: Vec<Outlet>,
    pub(super) counts: Vec<Count>,
}

/// Rows, and bytes in COPY's form.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// How an attempt at a range ended.
enum Attempt {
    /// All its rows are taken.
    Done,
    /// Somebody waited for the table.
    GaveWay,
    /// Somebody locks it.
    Locked,
    /// It has another name by now.
    Moved,
}

/// A session at work.
pub(super) struct Worker {
    shared: Arc<Shared>,
    session: ControlConnection,
    seat: Arc<Seat>,
    /// The rows that were not handed on, and whose they are.
    buffer: Option<(usize, TableBuffer)>,
    harvest: Harvest,
    /// Attempts whose rows do not count.
    aborted: XidSet,
}

impl Worker {
    /// `session` is in the snapshot; `outlets` are in the orders' order.
    pub(super) fn new(shared: Arc<Shared>, session: ControlConnection, seat: Arc<Seat>, outlets: Vec<Outlet>) -> Self {
        let counts = vec![Count::default(); outlets.len()];
        let harvest = Harvest { outlets, counts };
        Self { shared, session, seat, buffer: None, harvest, aborted: XidSet::default() }
    }

    /// Reads until nothing is left; what came of it is in [`Shared::ended`] then, also after an error.
    pub(super) async fn run(mut self) -> Result<(), SnapshotError> {
        let mut outcome = self.read_all().await;
        // The snapshot is needed no more; the last files are.
        let Self { shared, session, mut buffer, mut harvest, aborted, .. } = self;
        drop(session);
        if outcome.is_ok() {
            outcome = close(&shared, &mut buffer, &mut harvest, &aborted).await;
        }
        shared.ended.lock().unwrap_or_else(PoisonError::into_inner).push(harvest);
        outcome
    }

    async fn read_all(&mut self) -> Result<(), SnapshotError> {
        let mut current = None;
        while !self.shared.stop.load(Ordering::Acquire) {
            let work = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).take(current);
            let Some(work) = work else { break };
            if current != Some(work.number) {
                // The files of a relation are closed when it is left, so that memory does not grow with their number.
                close(&self.shared, &mut self.buffer, &mut self.harvest, &self.aborted).await?;
                current = Some(work.number);
            }
            self.read(work).await?;
        }
        Ok(())
    }

    /// Reads a range, in as many attempts as it takes.
    async fn read(&mut self, Work { relation, blocks, .. }: Work) -> Result<(), SnapshotError> {
        let (mut gave_way, mut locked, mut moved) = (0, 0, 0);
        let mut left = VecDeque::from([blocks]);
        while let Some(blocks) = left.pop_front() {
            match self.attempt(&relation, blocks).await? {
                Attempt::Done => {
                    locked = 0;
                    continue;
                }
                Attempt::GaveWay if self.shared.stop.load(Ordering::Acquire) => return Ok(()),
                Attempt::GaveWay if gave_way >= WHOLE_ATTEMPTS => {
                    for half in blocks.halves(relation.blocks).into_iter().rev() {
                        left.push_front(half);
                    }
                    continue;
                }
                Attempt::GaveWay => gave_way += 1,
                Attempt::Locked => locked += 1,
                Attempt::Moved => moved += 1,
            }
            left.push_front(blocks);
            if locked >= LOCK_ATTEMPTS {
                let table = relation.table.clone();
                return Err(SnapshotError::Locked { table, seconds: LOCK_SECONDS });
            }
            if moved >= MOVES_MAX {
                return Err(rewritten(&relation));
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, relation: &Relation, blocks: Blocks) -> Result<Attempt, SnapshotError> {
        let client = self.session.client();
        let name = match source::begin_range(client, relation.oid).await? {
            Some(name) => name,
            None => return Err(rewritten(relation)),
        };
        let number = self.shared.attempts.fetch_add(1, Ordering::Relaxed);
        let mut count = Count::default();
        self.seat.begin().await;
        let transferred = self.transfer(relation, &relation.copy(&name, blocks), number, &mut count).await;
        self.seat.end().await;
        let client = self.session.client();
        let attempt = match transferred {
            Ok(true) => match source::still_named(client, relation.oid, &name).await? {
                true => Attempt::Done,
                // It was another relation that has taken the name.
                false => Attempt::Moved,
            },
            Ok(false) => left(client, Attempt::GaveWay).await?,
            Err(SnapshotError::Source(error)) if error.is_cancelled() => left(client, Attempt::GaveWay).await?,
            Err(SnapshotError::Source(error)) if error.is_lock_conflict() => left(client, Attempt::Locked).await?,
            Err(SnapshotError::Source(error)) if error.is_undefined_object() => left(client, Attempt::Moved).await?,
            Err(SnapshotError::Source(error)) if error.is_undefined_column() => return Err(rewritten(relation)),
            Err(error) => return Err(error),
        };
        fail_points::reach("copy.after_range");
        match attempt {
            Attempt::Done => {
                if let Some(total) = self.harvest.counts.get_mut(relation.order) {
                    total.rows += count.rows;
                    total.bytes += count.bytes;
                }
            }
            _ => {
                self.aborted.insert(number);
                self.shared.meter.unread(count.rows, count.bytes);
            }
        }
        Ok(attempt)
    }

    /// One COPY, to its end; false where somebody waits for the table.
    async fn transfer(
        &mut self,
        relation: &Relation,
        sql: &str,
        number: u32,
        count: &mut Count,
    ) -> Result<bool, SnapshotError> {
        let Self { shared, session, seat, buffer, harvest, .. } = self;
        let (Some(table), Some(outlet)) = (shared.tables.get(relation.order), harvest.outlets.get_mut(relation.order))
        else {
            return Ok(true);
        };
        let buffer = match buffer {
            Some((order, buffer)) if *order == relation.order => buffer,
            other => &mut other.insert((relation.order, buffer_of(&table.shape)?)).1,
        };
        let mut stream = pin!(source::copy_out(session.client(), sql).await?);
        let mut filling = Filling { shared, table, outlet, buffer, seat, number, count, rows: CopiedRows::default() };
        let all = tokio::select! {
            biased;
            filled = filling.fill(stream.as_mut()) => filled?,
            () = seat.asked() => false,
        };
        if !all {
            // While the server waits for us to read, it does not hear that it should end.
            let drained = async { while let Some(Ok(_)) = stream.next().await {} };
            let in_time = timeout(DRAIN_WITHIN, drained).await;
            in_time.map_err(|_| SnapshotError::NotEnded { table: table.shape.table.clone() })?;
        }
        Ok(all)
    }
}

fn rewritten(relation: &Relation) -> SnapshotError {
    SnapshotError::Rewritten { table: relation.table.clone() }
}

/// Gives the lock back.
async fn left(client: &Client, attempt: Attempt) -> Result<Attempt, SourceError> {
    source::leave_range(client).await?;
    Ok(attempt)
}

/// What the rows of one COPY go through.
struct Filling<'a> {
    shared: &'a Shared,
    table: &'a Table,
    outlet: &'a mut Outlet,
    buffer: &'a mut TableBuffer,
    seat: &'a Seat,
    number: u32,
    count: &'a mut Count,
    rows: CopiedRows,
}

impl Filling<'_> {
    /// Whether all rows were taken; not, if somebody waits for the table. Cancel-safe, but for the place in the stream.
    async fn fill(&mut self, mut stream: Pin<&mut CopyOutStream>) -> Result<bool, SnapshotError> {
        let mut unaccounted = Count::default();
        loop {
            let piece = tokio::select! {
                biased;
                piece = stream.next() => piece,
                settled = self.outlet.settle(), if self.outlet.is_writing() => {
                    settled?;
                    continue;
                }
            };
            let Some(piece) = piece else { break };
            let piece = piece.map_err(source::copy_failed)?;
            unaccounted.rows += self.take(&piece)?;
            unaccounted.bytes += piece.len() as u64;
            if self.seat.is_asked() {
                self.account(std::mem::take(&mut unaccounted));
                return Ok(false);
            }
            if unaccounted.bytes >= ACCOUNT_BYTES {
                let read = std::mem::take(&mut unaccounted);
                self.account(read);
                fail_points::reach("copy.mid_range");
                if let Some(pace) = &self.shared.pace {
                    pace.read(read.bytes).await;
                }
                // The server sends as fast as we read, and others want to run, too.
                tokio::task::coop::consume_budget().await;
            }
            if self.buffer.bytes() >= self.shared.builder_bytes {
                self.hand_on().await?;
            }
        }
        self.account(unaccounted);
        self.rows.finish().map_err(|source| self.undecodable(source))?;
        Ok(true)
    }

    fn take(&mut self, piece: &[u8]) -> Result<u64, SnapshotError> {
        let (buffer, number) = (&mut *self.buffer, self.number);
        let taken = self.rows.take(piece, &self.table.texts, |tuple| buffer.append(tuple, Some(number)));
        taken.map_err(|fault| match fault {
            RowFault::Refused(source) => SnapshotError::Row { source },
            RowFault::Format(source) => self.undecodable(source),
        })
    }

    fn account(&mut self, read: Count) {
        self.count.rows += read.rows;
        self.count.bytes += read.bytes;
        self.shared.meter.read(read.rows, read.bytes);
    }

    async fn hand_on(&mut self) -> Result<(), SnapshotError> {
        self.outlet.settle().await?;
        let batches = cut(self.table, self.buffer)?;
        Ok(self.outlet.begin(|| batches).await?)
    }

    fn undecodable(&self, source: crate::decode::DecodeError) -> SnapshotError {
        SnapshotError::Decode { table: self.table.shape.table.clone(), source }
    }
}

/// Hands on what is held, and closes its files.
async fn close(
    shared: &Shared,
    buffer: &mut Option<(usize, TableBuffer)>,
    harvest: &mut Harvest,
    aborted: &XidSet,
) -> Result<(), SnapshotError> {
    let Some((order, mut buffer)) = buffer.take() else { return Ok(()) };
    let (Some(table), Some(outlet)) = (shared.tables.get(order), harvest.outlets.get_mut(order)) else { return Ok(()) };
    let batches = cut(table, &mut buffer)?;
    outlet.begin(|| batches).await?;
    Ok(outlet.close(aborted).await?)
}

/// Everything that a buffer holds, as long as it is of days that were asked for.
fn cut(table: &Table, buffer: &mut TableBuffer) -> Result<Vec<PartitionBatch>, SnapshotError> {
    let cut = buffer.cut().map_err(|source| SnapshotError::Row { source })?;
    let batches: Vec<PartitionBatch> = cut.ended.into_iter().chain(cut.arriving).collect();
    match batches.iter().find(|batch| !table.days.contains(batch.partition)) {
        Some(stray) => Err(SnapshotError::Stray { table: table.shape.table.clone(), partition: stray.partition }),
        None => Ok(batches),
    }
}

/// A buffer for rows whose columns come in the shape's order.
fn buffer_of(shape: &Arc<TableShape>) -> Result<TableBuffer, SnapshotError> {
    let column = |(index, column): (usize, &crate::base::SourceColumn)| RelationColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        is_key: shape.identity.contains(&index),
    };
    let described = DescribedRelation {
        oid: 0,
        schema: shape.table.schema.clone(),
        name: shape.table.name.clone(),
        replica_identity: ReplicaIdentity::Default,
        columns: shape.columns.iter().enumerate().map(column).collect(),
    };
    let mut buffer = TableBuffer::new(Arc::clone(shape));
    let bound: Result<(), BufferError> = buffer.bind(&described);
    bound.map_err(|source| SnapshotError::Row { source })?;
    Ok(buffer)
}
