//! Days that are marked and must not be copied all the same: the lake has rows of them, and PostgreSQL has no place for them any more.
//!
//! A mark may be old when it is served. A day may have been dropped by its receipt since, or its table may be gone without one, or be
//! kept out of the archive's days because its columns are others now. A copy would find nothing, or a few late rows, and put that in
//! the place of everything that the lake has.

use super::PipelineError;
use crate::base::{DaySet, Partition};
use crate::lake::{LakeLocation, PartitionReader};
use crate::reconcile::{self, Candidates, ReconcileError};
use crate::snapshot::SnapshotError;
use crate::source::{self, TableFacts};
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// Where both sides of a table are.
pub(super) struct Sides<'a> {
    pub(super) client: &'a Client,
    pub(super) archive: &'a str,
    pub(super) location: &'a LakeLocation,
    /// The table's folder there.
    pub(super) path: &'a str,
}

/// Those of some marked days that a table of the archive may hold rows of which is not taken for their partition, with the first of those
/// tables as the reason: a copy without it might not be whole.
pub(super) fn in_doubt(facts: &TableFacts, found: &Candidates, days: &DaySet) -> Option<(DaySet, SnapshotError)> {
    let by = facts.shape.partition_by;
    let mut all: Option<(DaySet, SnapshotError)> = None;
    for left in &found.left_alone {
        let partitions = left.span.map(|span| reconcile::partitions_of(span, by)).unwrap_or_default();
        let met: DaySet = partitions.into_iter().filter(|day| days.contains(*day)).collect();
        if met.is_empty() {
            continue;
        }
        let reason = || {
            let (table, partition) = (facts.shape.table.clone(), left.table.clone());
            (DaySet::default(), SnapshotError::LeftAlone { table, partition, reason: left.reason.clone() })
        };
        all.get_or_insert_with(reason).0.extend(&met);
    }
    all
}

/// Some marked days of which PostgreSQL has no partition, or has dropped it by receipt.
#[derive(Debug, Default)]
pub(super) struct WithoutPlace {
    /// The lake has rows of them, and has to keep them as they are.
    pub(super) kept: DaySet,
    /// It has none, and PostgreSQL may have none any more, though it had some when they were marked.
    pub(super) gone: DaySet,
}

impl Sides<'_> {
    /// Those of some marked days that have no place.
    ///
    /// # Errors
    /// As any statement; what the store says.
    pub(super) async fn without_place(
        &self,
        facts: &TableFacts,
        found: &Candidates,
        days: &DaySet,
    ) -> Result<WithoutPlace, PipelineError> {
        let reader = PartitionReader::open(self.location, self.path).await?;
        let files = reader.partitions().await?;
        let held: BTreeSet<Partition> = files.into_keys().filter(|day| days.contains(*day)).collect();
        let dropped = self.dropped(facts, days).await?;
        let leaves = source::leaves(self.client, facts.oid, &facts.shape).await?;
        let today = chrono::Utc::now().date_naive();
        let has_place = |day: Partition| {
            let span = reconcile::days_of(day);
            span.is_some_and(|span| reconcile::has_place(facts, &leaves, &found.candidates, span, today))
        };
        let gone =
            days.days().filter(|day| !held.contains(day) && !dropped.contains(day) && !has_place(*day)).collect();
        let kept = held.into_iter().filter(|day| dropped.contains(day) || !has_place(*day)).collect();
        Ok(WithoutPlace { kept, gone })
    }

    /// Those that a receipt says PostgreSQL has dropped.
    async fn dropped(&self, facts: &TableFacts, days: &DaySet) -> Result<BTreeSet<Partition>, ReconcileError> {
        match reconcile::dropped_of(self.client, self.archive, &facts.shape, days).await {
            Ok(dropped) => Ok(dropped),
            // `init` has not made the archive's tables yet, so nothing was ever dropped by receipt.
            Err(error) if error.is_undefined_object() => Ok(BTreeSet::new()),
            Err(error) => Err(error.into()),
        }
    }
}
