//! The copying stage: days that are marked in the lake's log are taken over from PostgreSQL while the stream goes on, a batch at a time.
//!
//! It asks [`super::follow`] to keep a batch's changes aside, copies the days under a snapshot whose position the server tells, and writes a
//! marker into the WAL behind it, where everything lands. It owns no state that a crash could lose: what is marked is what is left.

use super::aside::{CopiedTable, CopyOrder};
use super::follow::Leave;
use super::kept::{Sides, WithoutPlace, in_doubt};
use super::land::LandCommand;
use super::limits::CopyShare;
use super::{PipelineError, Until, ends};
use crate::base::{Backoff, COPY_MARKER, Classify, DaySet, Lsn, MARKER_PREFIX, RetryClass};
use crate::config::Pipeline;
use crate::connect::{self, Settings};
use crate::lake::{LakeError, LakeLocation, StagedFile, TableWriter};
use crate::reconcile::{self, Candidate, Candidates};
use crate::snapshot::{
    self, Archived, Copied, Exported, Limits, Meter, Order, Phase, SnapshotError, SourceTable, Waiting,
};
use crate::source::{self, TableFacts};
use futures::FutureExt;
use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

/// The wait after the first failure, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Before days are tried again that something stands against.
const PUT_ASIDE_FOR: Duration = Duration::from_secs(600);
/// So often a batch is copied again whose tables are changed under it, before the other days go on without it.
const HINDERED_MAX: u32 = 3;

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
    pub(super) location: LakeLocation,
    /// Days that the meter knows of, by table.
    pub(super) expected: BTreeMap<usize, DaySet>,
    /// What is copied now, or was tried last.
    pub(super) batch: Vec<(usize, DaySet)>,
    /// A batch has failed for good: its groups of days are tried one after the other.
    pub(super) one_group: bool,
    /// Whoever stood in the way of that batch may have gone since.
    pub(super) may_pass: bool,
    /// How often in a row somebody changed or locked a batch's tables.
    pub(super) hindered: u32,
    pub(super) put_aside: PutAside,
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
        self.meter.begin_again();
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
            let wanted = self.put_aside.without(&marked);
            if wanted.iter().all(DaySet::is_empty) {
                match self.put_aside.reason.take() {
                    Some(reason) if self.until == Until::Copied => {
                        return Err(SnapshotError::OthersCopied { reason: reason.to_string() }.into());
                    }
                    _ => self.wait_for_news(LONGEST_WAIT).await,
                }
                continue;
            }
            match Box::pin(self.batch(&wanted)).await {
                Ok(()) => {
                    self.hindered = 0;
                    self.one_group &= !self.may_pass;
                    backoff.reset();
                }
                Err(error) => self.failed(error, &mut backoff).await?,
            }
        }
    }

    /// Decides what becomes of a batch's failure, and waits where the same would only come again.
    async fn failed(&mut self, error: PipelineError, backoff: &mut Backoff) -> Result<(), PipelineError> {
        self.order(CopyOrder::GiveUp).await;
        let is_definite = error.retry_class() == RetryClass::Definite;
        self.hindered = if self.batch.is_empty() { 0 } else { hindered(&error, self.hindered) };
        if !self.batch.is_empty() && (is_definite || self.hindered >= HINDERED_MAX) {
            self.hindered = 0;
            self.narrow_down(error);
            return Ok(());
        }
        if is_definite && self.until == Until::Copied {
            return Err(error);
        }
        let wait = if is_definite { LONGEST_WAIT } else { backoff.next(rand::random()) };
        tracing::warn!(%error, wait_seconds = wait.as_secs_f64(), "days could not be copied; trying again");
        sleep(wait).await;
        Ok(())
    }

    /// What stands against one day must not keep the others from being copied: the batch is taken apart, and a group of days that fails alone
    /// is left for a while.
    fn narrow_down(&mut self, error: PipelineError) {
        if !std::mem::replace(&mut self.one_group, true) {
            self.may_pass = error.retry_class() == RetryClass::Transient;
            tracing::info!(%error, "a batch of days cannot be copied; trying them one after the other");
            return;
        }
        self.one_group = false;
        for (table, days) in std::mem::take(&mut self.batch) {
            let name = self.pipeline.tables.get(table).map(|section| section.name.to_string()).unwrap_or_default();
            tracing::error!(table = name, %days, %error, "these days cannot be copied and stay marked; the others go on");
            self.put_aside.add(table, days);
        }
        self.put_aside.because(error);
    }

    /// Until other days are marked than those that are known, or for so long.
    async fn wait_for_news(&mut self, at_most: Duration) {
        // A stage that has gone says why itself.
        let _ = timeout(at_most, self.marked.changed()).await;
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
        let started = Instant::now();
        self.batch.clear();
        let Some(orders) = self.next_orders(marked).await? else { return self.leave(Leave::Again).await };
        if orders.is_empty() {
            // What was ordered, or learned, comes back as other marks.
            self.wait_for_news(FIRST_WAIT).await;
            return Ok(());
        }
        let days: Vec<(usize, DaySet)> = orders.iter().map(|(table, order)| (*table, order.days.clone())).collect();
        self.batch.clone_from(&days);
        let ((begun_in, begun), (landed_in, mut landed)) = (oneshot::channel(), oneshot::channel());
        self.order(CopyOrder::Begin { batch: days.clone(), begun: begun_in, landed: landed_in }).await;
        if begun.await.is_err() {
            return Err(SnapshotError::GivenUp.into());
        }
        let (rows, bytes) = self.copy(orders, &mut landed).await?;
        self.meter.enter(Phase::Landing);
        if landed.await.is_err() {
            self.meter.unread(rows, bytes);
            return Err(SnapshotError::GivenUp.into());
        }
        for (table, days) in &days {
            self.meter.landed(days.count());
            // One that is marked again later counts again.
            self.expected.entry(*table).or_default().subtract(days);
        }
        self.meter.enter(Phase::Idle);
        let (days, seconds) = (shown(&self.pipeline, &days), started.elapsed().as_secs_f64());
        tracing::info!(days, rows, bytes, seconds, "copied from PostgreSQL");
        Ok(())
    }

    /// What is copied next, and writers for it; None where a table's columns have changed, which a start mends.
    async fn next_orders(&mut self, marked: &[DaySet]) -> Result<Option<Vec<(usize, Order)>>, PipelineError> {
        let control = connect::control(&self.settings).await?;
        source::prepare_session(control.client()).await?;
        let (mut tables, mut groups) = (Vec::new(), Vec::new());
        for (table, days) in marked.iter().enumerate().filter(|(_, days)| !days.is_empty()) {
            match self.groups(control.client(), table, days).await {
                Ok((source, found)) => {
                    groups.extend(found);
                    tables.push((table, source));
                }
                Err(error) if error.retry_class() == RetryClass::Definite => {
                    tracing::error!(%error, "the days of a table cannot be copied and stay marked; the others go on");
                    self.put_aside.add(table, days.clone());
                    self.put_aside.because(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.expect(&groups);
        let batch_bytes = if self.one_group { 0 } else { self.pipeline.snapshot.batch_bytes };
        let mut orders = Vec::new();
        for Waiting { table, days, .. } in snapshot::next_batch(groups, batch_bytes) {
            let Some((_, source)) = tables.iter().find(|(known, _)| *known == table) else { continue };
            match self.prepare(table, source).await {
                // It takes no rows any more.
                None => {}
                Some(None) => return Ok(None),
                Some(Some(writer)) => orders.push((table, Order { table: source.clone(), days, writer })),
            }
        }
        Ok(Some(orders))
    }

    /// A table, and its days in groups, without those that are to be kept as they are, and those that something stands against.
    async fn groups(
        &mut self,
        client: &Client,
        table: usize,
        marked: &DaySet,
    ) -> Result<(SourceTable, Vec<Waiting>), PipelineError> {
        let (facts, found) = self.look(client, table).await?;
        let mut days = if facts.shape.changes_name_their_day() { marked.clone() } else { DaySet::whole() };
        if let Some((doubtful, error)) = in_doubt(&facts, &found, &days) {
            if days.is_whole() {
                return Err(error.into());
            }
            tracing::error!(days = %doubtful, %error, "these days cannot be copied and stay marked; the others go on");
            days.subtract(&doubtful);
            self.put_aside.add(table, doubtful);
            self.put_aside.because(error.into());
        }
        let WithoutPlace { kept, .. } = self.without_place(client, table, (&facts, &found), &days).await?;
        if !kept.is_empty() {
            let name = &facts.shape.table;
            if days.is_whole() {
                return Err(LakeError::OnlyHere { table: name.clone(), days: kept.to_string() }.into());
            }
            tracing::error!(table = %name, days = %kept, "PostgreSQL has no partition for these days any more, which were to be copied again: the lake keeps what it has of them");
            days.subtract(&kept);
            // Until the marks are gone the same would be asked for again.
            self.put_aside.add(table, kept.clone());
            self.order(CopyOrder::Keep { table, days: kept }).await;
        }
        let source = SourceTable { facts, archived: archived_of(&found.candidates) };
        if days.is_whole() && !marked.is_whole() {
            // From here on a change of any day may be of a copied one: the lake has to know before it passes by.
            self.order(CopyOrder::MarkWhole { table }).await;
            return Ok((source, Vec::new()));
        }
        let groups = snapshot::waiting(client, table, &source, &days).await?;
        Ok((source, groups))
    }

    /// The table as it is now, and what the archive has of it.
    async fn look(&self, client: &Client, table: usize) -> Result<(TableFacts, Candidates), PipelineError> {
        let section = self.pipeline.tables.get(table).ok_or(PipelineError::StageGone { stage: "copier" })?;
        let publication = source::publication(client, &self.pipeline.source.publication).await?;
        let generated = publication.is_some_and(|publication| publication.generated_stored);
        let facts = source::table(client, &ends::table_rules(section), generated).await?;
        let found = reconcile::find(client, &self.pipeline.archive.schema, &facts).await?;
        Ok((facts, found))
    }

    async fn without_place(
        &self,
        client: &Client,
        table: usize,
        (facts, found): (&TableFacts, &Candidates),
        days: &DaySet,
    ) -> Result<WithoutPlace, PipelineError> {
        let path = self.pipeline.tables.get(table).map(|section| section.lake_path()).unwrap_or_default();
        let sides = Sides { client, archive: &self.pipeline.archive.schema, location: &self.location, path };
        sides.without_place(facts, found, days).await
    }

    /// What the meter does not know of yet.
    fn expect(&mut self, groups: &[Waiting]) {
        for Waiting { table, days, bytes } in groups {
            let expected = self.expected.entry(*table).or_default();
            let mut news = days.clone();
            news.subtract(expected);
            if !news.is_empty() && !expected.is_whole() {
                self.meter.expect(news.count(), *bytes);
                expected.extend(&news);
            }
        }
    }

    /// A writer for a copy's files; `Some(None)` where the table has other columns. None: it takes no rows.
    async fn prepare(&self, table: usize, source: &SourceTable) -> Option<Option<TableWriter>> {
        let (writer, prepared) = oneshot::channel();
        let shape = Arc::new(source.facts.shape.clone());
        let land = self.land.upgrade()?;
        land.send(LandCommand::Prepare { table, shape, writer }).await.ok()?;
        drop(land);
        let prepared: Option<TableWriter> = prepared.await.ok()?;
        Some(prepared.map(|writer| writer.another_within(self.share.writer_bytes)))
    }

    /// Takes the snapshot, copies, and marks the place in the WAL where the copy lands; returns the rows and bytes that were read.
    async fn copy(
        &self,
        orders: Vec<(usize, Order)>,
        landed: &mut oneshot::Receiver<()>,
    ) -> Result<(u64, u64), PipelineError> {
        self.meter.enter(Phase::WaitingForSnapshot);
        let exported = Exported::take(&self.settings, &self.pipeline.source.slot).await?;
        let floor: Lsn = exported.floor();
        self.order(CopyOrder::Floor(floor)).await;
        let limits = Limits {
            connections: self.pipeline.snapshot.connections,
            bytes_per_second: self.pipeline.snapshot.max_bytes_per_second,
            builder_bytes: self.share.builder_bytes,
        };
        let (tables, mut orders): (Vec<usize>, Vec<Order>) = orders.into_iter().unzip();
        let gone = self.look_again(&tables, &mut orders).await?;
        let days = orders.iter().map(|order| order.days.clone()).zip(gone).collect::<Vec<_>>();
        // Nobody tells that a copy has landed that has not ended.
        let given_up = landed.map(drop);
        let copied = snapshot::copy(&self.settings, exported, orders, limits, &self.meter, given_up).await?;
        let read = copied.iter().fold((0, 0), |(rows, bytes), copied| (rows + copied.rows, bytes + copied.bytes));
        let copied = tables.into_iter().zip(days).zip(copied).map(|((table, (days, mut gone)), copied)| {
            let Copied { written, rows, .. } = copied;
            // What the default partition has of them is theirs.
            gone.subtract(&written.iter().flat_map(|(_, files)| files).map(StagedFile::partition).collect());
            CopiedTable { table, days, written, rows, gone: (gone, floor) }
        });
        let marker = format!("{COPY_MARKER}{}", uuid::Uuid::new_v4());
        self.order(CopyOrder::Finish { copied: copied.collect(), marker: marker.clone() }).await;
        // A session that had stood idle for so long might be gone.
        let control = connect::control(&self.settings).await?;
        source::emit_message(control.client(), MARKER_PREFIX, &marker).await?;
        tracing::debug!(floor = %floor, "a copy waits for the stream");
        Ok(read)
    }

    /// Behind the snapshot: what is detached from here on is attached there. The tables must be what they were when their days were chosen.
    /// Returns the days of each that PostgreSQL has no partition of any more.
    async fn look_again(&self, tables: &[usize], orders: &mut [Order]) -> Result<Vec<DaySet>, PipelineError> {
        let control = connect::control(&self.settings).await?;
        source::prepare_session(control.client()).await?;
        let mut all_gone = Vec::with_capacity(tables.len());
        for (number, Order { table, days, .. }) in tables.iter().zip(orders) {
            let (facts, found) = self.look(control.client(), *number).await?;
            let WithoutPlace { kept, gone } =
                self.without_place(control.client(), *number, (&facts, &found), days).await?;
            let is_as_chosen = kept.is_empty() && in_doubt(&facts, &found, days).is_none();
            if !is_as_chosen || facts.oid != table.facts.oid || facts.shape != table.facts.shape {
                return Err(SnapshotError::Rewritten { table: facts.shape.table }.into());
            }
            table.archived = archived_of(&found.candidates);
            all_gone.push(gone);
        }
        Ok(all_gone)
    }
}

/// Days that cannot be copied for now, whatever is tried.
#[derive(Debug, Default)]
pub(super) struct PutAside {
    days: Vec<(usize, DaySet, Instant)>,
    /// What stood against the first of them.
    reason: Option<PipelineError>,
}

impl PutAside {
    fn add(&mut self, table: usize, days: DaySet) {
        self.days.push((table, days, Instant::now() + PUT_ASIDE_FOR));
    }

    /// Whoever waits for the end is told the first reason.
    fn because(&mut self, error: PipelineError) {
        self.reason.get_or_insert(error);
    }

    /// Marked days of each table without these.
    fn without(&mut self, marked: &[DaySet]) -> Vec<DaySet> {
        let now = Instant::now();
        self.days.retain(|(_, _, until)| now < *until);
        let mut wanted = marked.to_vec();
        for (table, days, _) in &self.days {
            if let Some(wanted) = wanted.get_mut(*table) {
                wanted.subtract(days);
            }
        }
        wanted
    }
}

/// How often somebody stood in the way by now. Who locks a table was waited for already.
fn hindered(error: &PipelineError, before: u32) -> u32 {
    match error {
        PipelineError::Snapshot(SnapshotError::Locked { .. }) => HINDERED_MAX,
        PipelineError::Snapshot(SnapshotError::Rewritten { .. } | SnapshotError::NotEnded { .. }) => before + 1,
        _ => 0,
    }
}

/// The detached partitions of a table, as a copy looks for rows in them.
pub fn archived_of(candidates: &[Candidate]) -> Vec<Archived> {
    let archived = |one: &Candidate| Archived { oid: one.oid, lower: one.span.lower, upper: one.span.upper };
    candidates.iter().map(archived).collect()
}

fn shown(pipeline: &Pipeline, batch: &[(usize, DaySet)]) -> String {
    let name = |table: usize| pipeline.tables.get(table).map(|section| section.name.to_string()).unwrap_or_default();
    let each = batch.iter().map(|(table, days)| format!("{} {days}", name(*table)));
    each.collect::<Vec<_>>().join(", ")
}
