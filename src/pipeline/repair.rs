//! The repair of days: which of a table's days are not in the lake as PostgreSQL has them, and the marks by which whoever follows copies
//! them again. Nothing is copied here.

use super::{Archive, PipelineError, archived_of};
use crate::base::{DaySet, Partition, TableName};
use crate::config::TableSection;
use crate::connect::Settings;
use crate::lake::{self, Patience};
use crate::reconcile::{Candidate, DayToBalance, DayVerdict, Reconciler, Span, Standing};
use crate::snapshot::{self, SnapshotError, SourceTable};
use crate::source::{self, SourceError, TableFacts};
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// What was found of a table.
#[derive(Debug)]
pub struct Rehearsal {
    /// The table.
    pub table: TableName,
    /// The days that were asked for, the oldest first.
    pub days: Vec<RepairDay>,
    /// What of it is to be copied again.
    pub copy: CopyAgain,
}

/// What was found of a day.
#[derive(Debug)]
pub struct RepairDay {
    /// The day, and whether it was asked about.
    pub day: DayToBalance,
    /// Both sides; None of a day that was not asked about.
    pub verdict: Option<DayVerdict>,
}

/// What of a table is to be copied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyAgain {
    /// These days; all, where changes of the table do not name their day. None, where everything balances.
    Days(DaySet),
    /// The table could be copied as a whole only, and the lake has days that nobody else has.
    Refused {
        /// The first of those.
        kept: Partition,
    },
}

impl RepairDay {
    /// Whether both sides were seen to differ.
    pub fn differs(&self) -> bool {
        matches!(self.verdict, Some(DayVerdict::Differs { .. }))
    }
}

impl Archive<'_> {
    /// Balances the days of a table within `asked`. `told` hears how many days of how many are done.
    ///
    /// # Errors
    /// A server or store that is away, a table that cannot be followed or stands still. What cannot be told of one day is its verdict.
    pub async fn rehearse(
        &self,
        section: &TableSection,
        asked: Span,
        told: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Rehearsal, PipelineError> {
        let table = self.table(section).await?;
        let reconciler = self.reconciler(&table, section, false);
        reconciler.moves().await?;
        let waiting = reconciler.candidates().await?.candidates;
        let with_rows = days_with_rows(table.control.client(), &self.settings, &table.facts, &waiting).await?;
        let all = reconciler.days_to_balance(&with_rows, &waiting).await?;
        let kept = all.iter().find(|day| is_the_lakes_alone(&day.standing)).map(|day| day.partition);
        let wanted: Vec<DayToBalance> = all.into_iter().filter(|day| day.span.overlaps(asked)).collect();
        let number = wanted.len();
        let mut days = Vec::with_capacity(number);
        for day in wanted {
            told(days.len(), number);
            let verdict = match day.standing {
                Standing::Asked => Some(reconciler.balance(day.span, &waiting).await),
                _ => None,
            };
            days.push(RepairDay { day, verdict });
        }
        told(number, number);
        let differing = days.iter().filter(|day| day.differs()).map(|day| day.day.partition).collect();
        let copy = copy_again(differing, table.facts.shape.changes_name_their_day(), kept);
        Ok(Rehearsal { table: section.name.clone(), days, copy })
    }

    /// Marks days of a table, beside whoever feeds it. From then on they are copied again by whoever follows, and nothing of them is
    /// proved or dropped.
    ///
    /// # Errors
    /// What the store says.
    pub async fn mark(&self, section: &TableSection, days: &DaySet) -> Result<(), PipelineError> {
        let (path, slot) = (section.lake_path(), &self.pipeline.source.slot);
        Ok(lake::mark_uncopied(&self.location, path, slot, &section.name, days, &Patience::none()).await?)
    }

    /// Balances days that were copied again, and settles what was found about those that balance now.
    ///
    /// # Errors
    /// A server or store that is away.
    pub async fn balance_again(
        &self,
        section: &TableSection,
        days: &[Span],
        told: &mut (dyn FnMut(usize, usize) + Send),
    ) -> Result<Vec<(Span, DayVerdict)>, PipelineError> {
        let table = self.table(section).await?;
        let reconciler: Reconciler<'_> = self.reconciler(&table, section, false);
        let waiting = reconciler.candidates().await?.candidates;
        let mut balanced = Vec::with_capacity(days.len());
        for span in days {
            told(balanced.len(), days.len());
            let verdict = reconciler.balance(*span, &waiting).await;
            if matches!(verdict, DayVerdict::Balances) {
                reconciler.settle(*span).await?;
            }
            balanced.push((*span, verdict));
        }
        told(days.len(), days.len());
        Ok(balanced)
    }
}

/// PostgreSQL has no rows of it any more, or no place for them.
fn is_the_lakes_alone(standing: &Standing) -> bool {
    matches!(standing, Standing::Dropped { .. } | Standing::NoPlace)
}

fn copy_again(differing: DaySet, changes_name_their_day: bool, kept: Option<Partition>) -> CopyAgain {
    match (differing.is_empty() || changes_name_their_day, kept) {
        (true, _) => CopyAgain::Days(differing),
        (false, None) => CopyAgain::Days(DaySet::whole()),
        (false, Some(kept)) => CopyAgain::Refused { kept },
    }
}

/// The days of which the source has rows, attached or waiting.
async fn days_with_rows(
    client: &Client,
    settings: &Settings,
    facts: &TableFacts,
    waiting: &[Candidate],
) -> Result<BTreeSet<Partition>, PipelineError> {
    let table = SourceTable { facts: facts.clone(), archived: archived_of(waiting) };
    source::begin_now(client).await?;
    let days: Result<_, SnapshotError> = snapshot::days_with_rows(client, settings, &table).await;
    let ended: Result<(), SourceError> = source::end_reading(client).await;
    let days = days?;
    ended?;
    Ok(days.into_keys().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PartitionBy;

    #[test]
    fn a_table_that_is_copied_whole_must_have_no_day_that_the_lake_alone_has() {
        let day = |text: &str| PartitionBy::Day.partition_of(text.parse().unwrap());
        let (some, kept) = (DaySet::from_iter([day("2026-01-05")]), day("2026-01-02"));
        assert_eq!(copy_again(some.clone(), true, Some(kept)), CopyAgain::Days(some.clone()));
        assert_eq!(copy_again(some.clone(), false, None), CopyAgain::Days(DaySet::whole()));
        assert_eq!(copy_again(some, false, Some(kept)), CopyAgain::Refused { kept });
        let nothing = CopyAgain::Days(DaySet::default());
        assert_eq!(copy_again(DaySet::default(), false, Some(kept)), nothing);
    }
}
