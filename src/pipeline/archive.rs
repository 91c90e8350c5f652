//! The archive's work as `run` does it on its schedule and `reconcile` on demand: a round over the detached partitions of every table, and
//! the proof of single days.

use super::PipelineError;
use super::ends::table_rules;
use crate::base::{Classify, RetryClass, TableName};
use crate::config::{Pipeline, TableSection};
use crate::connect::{self, ControlConnection, Settings};
use crate::lake::{LakeLocation, Patience};
use crate::reconcile::chain::{self, Kept};
use crate::reconcile::{LeftAlone, NameTaken, Outcome, PartitionReport, Reconciler};
use crate::source::{self, TableFacts};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the lake may take to have everything, beyond twice `max_age`.
const PATIENCE: Duration = Duration::from_secs(300);

/// A pipeline's archive: what it takes to work on it.
#[derive(Debug)]
pub struct Archive<'a> {
    /// The pipeline file.
    pub pipeline: &'a Pipeline,
    /// Its source.
    pub settings: Settings,
    /// Its lake.
    pub location: LakeLocation,
}

/// Two sessions and what the catalog says, for one table.
pub struct TableArchive {
    counting: ControlConnection,
    pub(super) control: ControlConnection,
    pub(super) facts: TableFacts,
    columns_signature: String,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Round {
    /// Every partition that was looked at, and the table that it was one of.
    pub partitions: Vec<(TableName, PartitionReport)>,
    /// Tables that look like partitions, and are not touched.
    pub left_alone: Vec<LeftAlone>,
    /// Tables whose names are attached again.
    pub names_taken: Vec<NameTaken>,
    /// Tables that could not be looked at, and receipts that could not be kept in both places.
    pub failures: Vec<(String, PipelineError)>,
    /// Receipts that were written down again.
    pub receipts: Kept,
    /// Erasures that were carried on.
    pub erasures_finished: u64,
}

impl Round {
    /// Whether something failed that may go well another time.
    pub fn is_worth_another(&self) -> bool {
        let partitions = self.partitions.iter().filter_map(|(_, report)| match &report.outcome {
            Outcome::Failed(error) => Some(error.retry_class()),
            _ => None,
        });
        let failures = self.failures.iter().map(|(_, error)| error.retry_class());
        partitions.chain(failures).any(|class| class == RetryClass::Transient)
    }
}

impl<'a> Archive<'a> {
    /// Of a pipeline file. No IO.
    ///
    /// # Errors
    /// Settings and lake URLs that are none.
    pub fn of(pipeline: &'a Pipeline) -> Result<Self, PipelineError> {
        let settings = Settings::from_url(&pipeline.source.url)?;
        let location = LakeLocation::new(&pipeline.lake.url, &pipeline.lake.options)?;
        Ok(Self { pipeline, settings, location })
    }

    /// Opens two sessions for a table and reads what the catalog says of it.
    ///
    /// # Errors
    /// A server that is away, a table that cannot be followed.
    pub async fn table(&self, section: &TableSection) -> Result<TableArchive, PipelineError> {
        let counting = connect::control(&self.settings).await?;
        let control = connect::control(&self.settings).await?;
        source::prepare_session(counting.client()).await?;
        source::prepare_session(control.client()).await?;
        let publication = source::publication(control.client(), &self.pipeline.source.publication).await?;
        let generated_published = publication.is_some_and(|publication| publication.generated_stored);
        let facts = source::table(control.client(), &table_rules(section), generated_published).await?;
        let columns_signature = source::columns_signature(control.client(), facts.oid).await?;
        Ok(TableArchive { counting, control, facts, columns_signature })
    }

    /// The way to balance a table; with `drop` what balances is dropped.
    pub fn reconciler<'t>(&'t self, table: &'t TableArchive, section: &'t TableSection, drop: bool) -> Reconciler<'t> {
        Reconciler {
            counting: table.counting.client(),
            control: table.control.client(),
            archive: &self.pipeline.archive.schema,
            slot: &self.pipeline.source.slot,
            facts: &table.facts,
            lake: (&self.location, section.lake_path()),
            columns_signature: &table.columns_signature,
            drop,
            patience: PATIENCE + 2 * self.pipeline.buffer.max_age,
        }
    }

    /// Balances what waits of the partitions `wanted`, by table and by the detached table's name, and drops what balances if `drop` says so.
    /// What fails for one table is told, and the others go on.
    pub async fn round(&self, wanted: &(dyn Fn(&TableName, &TableName) -> bool + Sync), drop: bool) -> Round {
        let mut round = Round::default();
        // A database that was restored must have its receipts back before anything is judged by them.
        if drop && !self.keep_receipts(&mut round).await {
            return round;
        }
        for section in &self.pipeline.tables {
            if let Err(error) = self.round_of(section, wanted, drop, &mut round).await {
                round.failures.push((section.name.to_string(), error));
            }
        }
        let is_dropped = |(_, report): &(TableName, PartitionReport)| matches!(report.outcome, Outcome::Dropped { .. });
        if round.erasures_finished > 0 || round.partitions.iter().any(is_dropped) {
            self.keep_receipts(&mut round).await;
        }
        round
    }

    /// Gives database and lake the receipts that either lacks.
    ///
    /// # Errors
    /// As [`chain::keep`]; a server that is away.
    pub async fn receipts(&self) -> Result<Kept, PipelineError> {
        let control = connect::control(&self.settings).await?;
        source::prepare_session(control.client()).await?;
        let archive = &self.pipeline.archive.schema;
        Ok(chain::keep(control.client(), archive, &self.location, &Patience::none()).await?)
    }

    /// Whether database and lake have the same receipts now.
    async fn keep_receipts(&self, round: &mut Round) -> bool {
        match self.receipts().await {
            Ok(kept) => {
                round.receipts.booked += kept.booked;
                round.receipts.restored += kept.restored;
                true
            }
            Err(error) => {
                round.failures.push(("receipts".to_owned(), error));
                false
            }
        }
    }

    async fn round_of(
        &self,
        section: &TableSection,
        wanted: &(dyn Fn(&TableName, &TableName) -> bool + Sync),
        drop: bool,
        round: &mut Round,
    ) -> Result<(), PipelineError> {
        let table = self.table(section).await?;
        let reconciler = self.reconciler(&table, section, drop);
        if drop {
            // A day whose erasure was cut off has fewer rows than its receipts say.
            round.erasures_finished += reconciler.finish_erasures().await?;
        }
        let mut found = reconciler.candidates().await?;
        let asked: BTreeSet<u32> =
            found.candidates.iter().filter(|one| wanted(&section.name, &one.table)).map(|one| one.oid).collect();
        round.names_taken.extend(reconciler.make_way(&mut found).await?);
        let mut waiting = found.candidates.clone();
        // Whoever asked may know it by the name that it had, or by the one that it has now.
        for one in found.candidates.iter().filter(|one| asked.contains(&one.oid) || wanted(&section.name, &one.table)) {
            let judged = reconciler.partition(&waiting, one).await;
            if matches!(judged.outcome, Outcome::Dropped { .. }) {
                waiting.retain(|other| other.oid != one.oid);
            }
            round.partitions.push((section.name.clone(), judged));
        }
        for left in found.left_alone.into_iter().filter(|left| wanted(&section.name, &left.table)) {
            if left.is_partition {
                reconciler.note_left_alone(&left).await?;
            }
            round.left_alone.push(left);
        }
        if drop {
            source::settle_gone(table.control.client(), &self.pipeline.archive.schema).await?;
        }
        Ok(())
    }
}
