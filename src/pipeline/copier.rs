//! The copying stage: days that are marked in the lake's log are taken over from PostgreSQL while the stream goes on, a batch at a time.
//!
//! It asks [`super::follow`] to keep a batch's changes aside, copies the days under a snapshot whose position the server tells, and writes a
//! marker into the WAL behind it, where everything lands. It owns no state that a crash could lose: what is marked is what is left.

use super::aside::{CopiedTable, CopyOrder};
use super::follow::Leave;
use super::land::LandCommand;
use super::limits::CopyShare;
use super::{PipelineError, Until, ends};
use crate::base::{Backoff, COPY_MARKER, Classify, DaySet, Lsn, MARKER_PREFIX, RetryClass};
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::lake::TableWriter;
use crate::reconcile::{self, Candidate};
use crate::snapshot::{
    self, Archived, Copied, Exported, Limits, Meter, Order, Phase, SnapshotError, SourceTable, Waiting,
};
use crate::source::{self, TableFacts};
use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_postgres::Client;

/// The wait after the first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The stage and its connections.
pub(super) struct Copier {
    pub(super) pipeline: Pipeline,
    pub(super) settings: Settings,
    pub(super) until: Until,
    /// Transactions come whole, so that a copy can tell which of them it has.
    pub(super) whole_transactions: bool,
    pub(super) share: CopyShare,
    /// From `land`: the days of each table that are still to be copied.
    pub(super) marked: watch::Receiver<Vec<DaySet>>,
    /// To `follow`.
    pub(super) orders: mpsc::Sender<CopyOrder>,
    /// To `land`, which ends when nobody else can ask anything of it.
    pub(super) land: mpsc::WeakSender<LandCommand>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) meter: Meter,
    /// Days that the meter knows of, by table.
    pub(super) expected: BTreeMap<usize, DaySet>,
}

/// A batch of days, ready to be copied.
struct Batch {
    /// Index of the table, the table, its days.
    tables: Vec<(usize, SourceTable, DaySet)>,
}

impl Copier {
    /// Runs until a stop is asked for, or until nothing is left to copy and that was waited for.
    pub(super) async fn run(mut self) -> Result<(), PipelineError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            // Whatever is half done is undone by the next start.
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            ended = self.work() => ended,
        }
    }

    async fn work(&mut self) -> Result<(), PipelineError> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let marked = self.marked.borrow_and_update().clone();
            if marked.iter().all(DaySet::is_empty) {
                match (self.until, self.whole_transactions) {
                    (Until::Copied, _) => return self.leave(Leave::CaughtUp).await,
                    (Until::Signalled, true) => return self.leave(Leave::Again).await,
                    _ => {}
                }
                if self.marked.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            if self.until == Until::CaughtUp {
                // Who waits for the end wants the stream alone.
                pending::<()>().await;
            }
            if !self.whole_transactions {
                tracing::info!("days are to be copied: the stream starts again and asks for whole transactions");
                return self.leave(Leave::Again).await;
            }
            match Box::pin(self.batch(&marked)).await {
                Ok(()) => backoff.reset(),
                Err(error) if self.until == Until::Copied && error.retry_class() == RetryClass::Definite => {
                    return Err(error);
                }
                Err(error) => {
                    self.order(CopyOrder::GiveUp).await;
                    let wait = backoff.next(rand::random());
                    tracing::warn!(%error, wait_seconds = wait.as_secs_f64(), "days could not be copied; trying again");
                    sleep(wait).await;
                }
            }
        }
    }

    /// Nothing is left to do here; the others end when `follow` has done what it is asked for.
    async fn leave(&self, leave: Leave) -> Result<(), PipelineError> {
        self.order(CopyOrder::Leave(leave)).await;
        pending().await
    }

    /// A stage that has gone says why itself.
    async fn order(&self, order: CopyOrder) {
        if self.orders.send(order).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Copies the next batch of what is marked, and waits until it has landed.
    async fn batch(&mut self, marked: &[DaySet]) -> Result<(), PipelineError> {
        let began = Instant::now();
        let control = connect::control(&self.settings).await?;
        let client = control.client();
        source::prepare_session(client).await?;
        let batch = self.next_batch(client, marked).await?;
        let mut orders = Vec::with_capacity(batch.tables.len());
        for (table, source, days) in &batch.tables {
            let Some(writer) = self.prepare(*table, source).await else { continue };
            orders.push((*table, Order { table: source.clone(), days: days.clone(), writer }));
        }
        let (landed_in, mut landed) = oneshot::channel();
        let days = orders.iter().map(|(table, order)| (*table, order.days.clone())).collect();
        self.order(CopyOrder::Begin { batch: days, landed: landed_in }).await;
        let (rows, bytes) = tokio::select! {
            copied = self.copy(client, orders) => copied?,
            _ = &mut landed => return self.gave_up().await,
        };
        self.meter.enter(Phase::Landing);
        if landed.await.is_err() {
            self.meter.unread(rows, bytes);
            return self.gave_up().await;
        }
        for (table, _, days) in &batch.tables {
            self.meter.landed(days_in(days));
            // One that is marked again later counts again.
            self.expected.entry(*table).or_default().subtract(days);
        }
        self.meter.enter(Phase::Idle);
        let (days, seconds) = (shown(&self.pipeline, &batch), began.elapsed().as_secs_f64());
        tracing::info!(days, rows, bytes, seconds, "copied from PostgreSQL");
        Ok(())
    }

    /// `follow` has dropped the copy, for a reason that the next attempt sees.
    async fn gave_up(&self) -> Result<(), PipelineError> {
        sleep(FIRST_WAIT).await;
        Ok(())
    }

    async fn next_batch(&mut self, client: &Client, marked: &[DaySet]) -> Result<Batch, PipelineError> {
        let name = &self.pipeline.source.publication;
        let publication = source::publication(client, name).await?;
        let generated = publication.is_some_and(|publication| publication.generated_stored);
        let (mut tables, mut groups) = (Vec::new(), Vec::new());
        for ((table, section), days) in self.pipeline.tables.iter().enumerate().zip(marked) {
            if days.is_empty() {
                continue;
            }
            let facts = source::table(client, &ends::table_rules(section), generated).await?;
            let dropped = self.dropped(client, &facts, days).await?;
            let mut days = days.clone();
            if !dropped.is_empty() {
                tracing::error!(table = %section.name, days = %dropped, "these days were to be copied again, and PostgreSQL has dropped them meanwhile: the lake keeps what their receipts are for");
                days.subtract(&dropped);
                self.order(CopyOrder::Keep { table, days: dropped }).await;
            }
            let archived = self.detached(client, &facts).await?;
            let source = SourceTable { facts, archived };
            groups.extend(snapshot::waiting(client, table, &source, &days).await?);
            tables.push((table, source));
        }
        self.expect(&groups);
        let next = snapshot::next_batch(groups, self.pipeline.snapshot.batch_bytes);
        let of = |Waiting { table, days, .. }: Waiting| {
            let (_, source) = tables.iter().find(|(known, _)| *known == table)?;
            Some((table, source.clone(), days))
        };
        Ok(Batch { tables: next.into_iter().filter_map(of).collect() })
    }

    /// The detached tables of one.
    async fn detached(&self, client: &Client, facts: &TableFacts) -> Result<Vec<Archived>, PipelineError> {
        let found = reconcile::find(client, &self.pipeline.archive.schema, facts).await?;
        Ok(found.candidates.iter().map(archived).collect())
    }

    /// Those of some days that a receipt says PostgreSQL has dropped: a copy would find nothing of them.
    async fn dropped(&self, client: &Client, facts: &TableFacts, days: &DaySet) -> Result<DaySet, PipelineError> {
        match reconcile::dropped_of(client, &self.pipeline.archive.schema, &facts.shape, days).await {
            Ok(dropped) => Ok(dropped.into_iter().collect()),
            // `init` has not made the archive's tables yet, so nothing was ever dropped by receipt.
            Err(error) if error.is_undefined_object() => Ok(DaySet::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the meter does not know of yet.
    fn expect(&mut self, groups: &[Waiting]) {
        for Waiting { table, days, bytes } in groups {
            let expected = self.expected.entry(*table).or_default();
            let mut news = days.clone();
            news.subtract(expected);
            if !news.is_empty() && !expected.is_whole() {
                self.meter.expect(days_in(&news), *bytes);
                expected.extend(&news);
            }
        }
    }

    /// The table's columns become those of the copy. None: it takes no rows.
    async fn prepare(&self, table: usize, source: &SourceTable) -> Option<TableWriter> {
        let (writer, prepared) = oneshot::channel();
        let shape = Arc::new(source.facts.shape.clone());
        let land = self.land.upgrade()?;
        land.send(LandCommand::Prepare { table, shape, writer }).await.ok()?;
        drop(land);
        let writer = prepared.await.ok()?;
        Some(writer.another_within(self.share.writer_bytes))
    }

    /// Takes the snapshot, copies, and marks the place in the WAL where the copy lands.
    async fn copy(&self, client: &Client, orders: Vec<(usize, Order)>) -> Result<(u64, u64), PipelineError> {
        self.meter.enter(Phase::WaitingForSnapshot);
        let exported = Exported::take(&self.settings).await?;
        let floor: Lsn = exported.floor();
        self.order(CopyOrder::Floor(floor)).await;
        let limits = Limits {
            connections: self.pipeline.snapshot.connections,
            bytes_per_second: self.pipeline.snapshot.max_bytes_per_second,
            builder_bytes: self.share.builder_bytes,
        };
        let (tables, mut orders): (Vec<usize>, Vec<Order>) = orders.into_iter().unzip();
        // What is detached from here on is attached in the snapshot.
        for Order { table, days, .. } in &mut orders {
            table.archived = self.detached(client, &table.facts).await?;
            if !self.dropped(client, &table.facts, days).await?.is_empty() {
                return Err(SnapshotError::Rewritten { table: table.facts.shape.table.clone() }.into());
            }
        }
        let days: Vec<DaySet> = orders.iter().map(|order| order.days.clone()).collect();
        let copied = snapshot::copy(&self.settings, exported, orders, limits, &self.meter).await?;
        let read = copied.iter().fold((0, 0), |(rows, bytes), copied| (rows + copied.rows, bytes + copied.bytes));
        let copied = tables.into_iter().zip(days).zip(copied).map(|((table, days), copied)| {
            let Copied { files, writers, rows, .. } = copied;
            CopiedTable { table, days, files, writers, rows }
        });
        let marker = format!("{COPY_MARKER}{}", uuid::Uuid::new_v4());
        self.order(CopyOrder::Finish { copied: copied.collect(), marker: marker.clone() }).await;
        source::emit_message(client, MARKER_PREFIX, &marker).await?;
        tracing::debug!(floor = %floor, "a copy waits for the stream");
        Ok(read)
    }
}

/// As the meter counts them.
fn days_in(days: &DaySet) -> u64 {
    if days.is_whole() { 1 } else { days.days().count() as u64 }
}

fn archived(candidate: &Candidate) -> Archived {
    Archived { oid: candidate.oid, lower: candidate.span.lower, upper: candidate.span.upper }
}

fn shown(pipeline: &Pipeline, batch: &Batch) -> String {
    let name = |table: usize| pipeline.tables.get(table).map(|section| section.name.to_string()).unwrap_or_default();
    let each = batch.tables.iter().map(|(table, _, days)| format!("{} {days}", name(*table)));
    each.collect::<Vec<_>>().join(", ")
}
