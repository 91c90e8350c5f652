//! The archive's keeper inside `run`: rounds on the schedule and whenever the guide's functions ask for one, and the proof of complete days
//! in between.
//!
//! It works beside the stream and never ends it: what fails here is said, and tried again later. It has sessions of its own, and
//! follows the slot's position like any other process; `lakebed reconcile` may work at the same time.

use super::PipelineError;
use super::agenda::{Agenda, Duty};
use super::archive::{Archive, Round};
use crate::base::{Backoff, Classify, RetryClass, TableName};
use crate::config::{Pipeline, TableSection};
use crate::connect::{self, ControlConnection};
use crate::reconcile::chain::Kept;
use crate::reconcile::{NameTaken, Outcome, ReconcileError, Span};
use crate::source::{self, SourceError};
use chrono::Utc;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;

/// Nothing is slept through for longer: clocks are set, and a machine may have been asleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Waits before the session is opened again that hears what the guide's functions ask for.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Works until `stop` becomes true (or its sender is gone). Dropping it ends it at once; what was begun is rolled back by the server.
pub async fn keep_archive(pipeline: &Pipeline, mut stop: watch::Receiver<bool>) {
    let keeper = match Archive::of(pipeline) {
        Ok(archive) => Keeper::new(archive),
        // The stream says the same, and ends the process.
        Err(_) => return,
    };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = keeper.work() => {}
    }
}

struct Keeper<'a> {
    archive: Archive<'a>,
    agenda: Agenda,
    /// Days whose proof could not be had since the last time that all were looked at.
    passed_over: BTreeSet<(TableName, Span)>,
    backoff: Backoff,
    /// It was said that `init` has to be run.
    not_installed: bool,
}

impl<'a> Keeper<'a> {
    fn new(archive: Archive<'a>) -> Self {
        let section = &archive.pipeline.archive;
        let agenda = Agenda::new(section.schedule.clone(), section.proof_interval, Utc::now());
        Self {
            archive,
            agenda,
            passed_over: BTreeSet::new(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            not_installed: false,
        }
    }

    async fn work(mut self) {
        loop {
            // What was asked for while nobody heard is in the queue.
            let asked = match self.listener().await {
                Ok(listener) => {
                    self.backoff.reset();
                    self.serve_queue(&listener).await;
                    self.until_asked_or_lost(&listener).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = asked {
                let wait = self.backoff.next(rand::random());
                tracing::debug!(%error, wait_seconds = wait.as_secs_f64(), "the archive is not looked after for now");
                sleep(wait).await;
            }
        }
    }

    async fn listener(&self) -> Result<ControlConnection, PipelineError> {
        let listener = connect::control(&self.archive.settings).await?;
        source::prepare_session(listener.client()).await?;
        source::listen_for_requests(listener.client()).await?;
        Ok(listener)
    }

    /// Does what is due, until the guide's functions ask for something.
    async fn until_asked_or_lost(&mut self, listener: &ControlConnection) -> Result<(), PipelineError> {
        loop {
            let (due, duty) = self.agenda.next();
            let now = Utc::now();
            if due > now {
                let wait = (due - now).to_std().unwrap_or(Duration::ZERO).min(LONGEST_SLEEP);
                tokio::select! {
                    () = listener.notified() => return Ok(()),
                    () = sleep(wait) => {}
                }
                // A session that is lost hears nothing, and says so only when it is asked.
                source::still_there(listener.client()).await?;
                continue;
            }
            match duty {
                Duty::Round => {
                    let again = self.round(&|_, _| true).await;
                    self.agenda.round_ended(Utc::now(), again, rand::random());
                }
                Duty::Proof => self.prove_one().await,
            }
        }
    }

    async fn serve_queue(&mut self, listener: &ControlConnection) {
        let archive = &self.archive.pipeline.archive.schema;
        let queued = match source::queued(listener.client(), archive).await {
            Ok(queued) => queued,
            Err(error) => return self.not_installed_or(&error, "what the archive's functions ask for cannot be read"),
        };
        if queued.is_empty() {
            return;
        }
        let again = self.round(&|_, partition| queued.contains(partition)).await;
        self.agenda.asked_round_ended(Utc::now(), again, rand::random());
        for table in &queued {
            if let Err(error) = source::served(listener.client(), archive, table).await {
                tracing::warn!(%table, %error, "what was asked for stays in the archive's queue");
            }
        }
    }

    /// Said once if `init` has not been run since this version, and each time for any other reason.
    fn not_installed_or(&mut self, error: &SourceError, what: &str) {
        if !error.is_undefined_object() {
            tracing::warn!(%error, "{what}");
        } else if !std::mem::replace(&mut self.not_installed, true) {
            let schema = &self.archive.pipeline.archive.schema;
            tracing::info!(%error, schema, "no archive is looked after: run `lakebed init` to install its tables and functions");
        }
    }

    /// Whether something may go well another time.
    async fn round(&self, wanted: &(dyn Fn(&TableName, &TableName) -> bool + Sync)) -> bool {
        let round = self.archive.round(wanted, self.archive.pipeline.archive.drop).await;
        tell(&round);
        round.is_worth_another()
    }

    async fn keep_receipts(&mut self) {
        match self.archive.receipts().await {
            Ok(kept) => tell_of_restored(kept),
            Err(error) if error.retry_class() == RetryClass::Transient => {
                tracing::debug!(%error, "receipts are kept in both places later");
            }
            Err(PipelineError::Reconcile(ReconcileError::Source(error)) | PipelineError::Source(error)) => {
                self.not_installed_or(&error, "receipts cannot be kept in both places");
            }
            Err(error) => tracing::warn!(%error, "receipts cannot be kept in both places"),
        }
    }

    async fn prove_one(&mut self) {
        let began = Instant::now();
        // Soon after the start, and before any day is judged by them.
        self.keep_receipts().await;
        for section in &self.archive.pipeline.tables {
            match self.prove_one_of(section).await {
                Ok(false) => {}
                Ok(true) => return self.agenda.day_proved(Utc::now(), began.elapsed()),
                Err(error) if error.retry_class() == RetryClass::Transient => {
                    tracing::debug!(table = %section.name, %error, "no proof for now");
                }
                Err(PipelineError::Reconcile(ReconcileError::Source(error)) | PipelineError::Source(error)) => {
                    self.not_installed_or(&error, "complete days cannot be proved");
                }
                Err(error) => tracing::warn!(table = %section.name, %error, "complete days cannot be proved"),
            }
        }
        self.passed_over.clear();
        self.agenda.all_proved(Utc::now());
    }

    /// Whether a day was looked at.
    async fn prove_one_of(&mut self, section: &TableSection) -> Result<bool, PipelineError> {
        let table = self.archive.table(section).await?;
        let reconciler = self.archive.reconciler(&table, section, self.archive.pipeline.archive.drop);
        // A name that came back stops partman's retention, which no night can wait for.
        let mut found = reconciler.candidates().await?;
        tell_of(&reconciler.make_way(&mut found).await?);
        let waiting = found.candidates;
        let due = reconciler.due(Utc::now()).await?;
        let name = &section.name;
        let next = due.into_iter().find(|due| !self.passed_over.contains(&(name.clone(), due.span)));
        let Some(due) = next else { return Ok(false) };
        self.passed_over.insert((name.clone(), due.span));
        let days = due.span;
        match reconciler.prove(&due, &waiting).await {
            Ok(report) if report.reasons.is_empty() => {
                let rows = report.ledger.map_or(0, |ledger| ledger.lake.rows);
                tracing::info!(table = %name, %days, rows, "the lake has these days as PostgreSQL has them");
            }
            Ok(report) => {
                let reasons = report.reasons.join("; ");
                tracing::error!(table = %name, %days, reasons, "these days do not balance; nothing of them will be dropped");
            }
            Err(error) => tracing::info!(table = %name, %days, %error, "no proof of these days for now"),
        }
        Ok(true)
    }
}

fn tell_of(names_taken: &[NameTaken]) {
    for taken in names_taken {
        tracing::error!(partition = %taken.table, reason = taken.reason, "a waiting table's name is attached again");
    }
}

fn tell(round: &Round) {
    for (table, report) in &round.partitions {
        let (partition, days) = (&report.table, &report.span);
        let rows = report.ledger.map_or(0, |ledger| ledger.detached.rows);
        match &report.outcome {
            Outcome::Dropped { receipt } => {
                tracing::info!(%table, %partition, %days, rows, receipt, "balanced and dropped");
            }
            Outcome::Balanced => tracing::info!(%table, %partition, %days, rows, "balances; kept, since drop = false"),
            Outcome::Differs { reasons, .. } => {
                let reasons = reasons.join("; ");
                tracing::error!(%table, %partition, %days, reasons, "does not balance, so it stays; see archive.finding");
            }
            Outcome::Gone => tracing::info!(%table, %partition, "dropped by somebody else meanwhile"),
            // It is waited for, and nobody need act.
            Outcome::Failed(error @ ReconcileError::NotCopied { .. }) => {
                tracing::info!(%table, %partition, %days, %error, "not judged");
            }
            Outcome::Failed(error) => tracing::warn!(%table, %partition, %days, %error, "not judged"),
        }
    }
    tell_of(&round.names_taken);
    for (what, error) in &round.failures {
        tracing::warn!(what, %error, "the archive could not be looked after");
    }
    tell_of_restored(round.receipts);
}

fn tell_of_restored(kept: Kept) {
    if kept.restored > 0 {
        let receipts = kept.restored;
        tracing::error!(
            receipts,
            "this database had lost receipts, as one that was restored has: they are back, from the lake"
        );
    }
}
