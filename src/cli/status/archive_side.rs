//! Where each day is on its way: complete, proved, waiting in the archive, dropped.

use crate::base::{Partition, TableShape};
use crate::lake::{LakeLocation, PartitionReader, StoredFile};
use crate::reconcile::{self, Candidate, ReconcileError, Span};
use crate::source::{self, Proof, Receipt, TableFacts};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Of one table, from PostgreSQL.
pub(super) struct ArchiveSide {
    proofs: Vec<Proof>,
    receipts: Vec<Receipt>,
    waiting: Vec<Candidate>,
}

/// Of one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct DayState {
    /// It is over, and late rows are in.
    pub(super) complete: bool,
    /// When its rows were proved to be those of PostgreSQL, if its files are still the same.
    pub(super) proved_at: Option<String>,
    /// The last proof says that it differs.
    pub(super) differs: bool,
    /// Its detached tables.
    pub(super) waiting: Vec<String>,
    /// The receipts by which it was dropped.
    pub(super) receipts: Vec<i64>,
}

impl DayState {
    /// `complete proved archived dropped`, as far as it is.
    pub(super) fn words(&self) -> String {
        let words = [
            (self.complete, "complete"),
            (self.proved_at.is_some(), "proved"),
            (self.differs, "DIFFERS"),
            (!self.waiting.is_empty(), "archived"),
            (!self.receipts.is_empty(), "dropped"),
        ];
        words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    }
}

impl ArchiveSide {
    pub(super) async fn look(
        client: &Client,
        (archive, slot): (&str, &str),
        facts: &TableFacts,
    ) -> Result<Self, ReconcileError> {
        let table = &facts.shape.table;
        let (first, last) = (NaiveDate::from_ymd_opt(1, 1, 1), NaiveDate::from_ymd_opt(9999, 12, 31));
        let days = (first.unwrap_or_default(), last.unwrap_or_default());
        Ok(Self {
            proofs: source::proofs(client, archive, slot, table).await?,
            receipts: source::receipts(client, archive, table, days).await?,
            waiting: reconcile::find(client, archive, facts).await?.candidates,
        })
    }

    /// The days that have files, receipts or a waiting table, by the first day of their partition.
    pub(super) async fn days(
        &self,
        (location, path): (&LakeLocation, &str),
        shape: &TableShape,
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<Partition, DayState>, ReconcileError> {
        let lake = PartitionReader::open(location, path).await?.partitions().await?;
        Ok(self.states(&lake, shape, now))
    }

    fn states(
        &self,
        lake: &BTreeMap<Partition, Vec<StoredFile>>,
        shape: &TableShape,
        now: DateTime<Utc>,
    ) -> BTreeMap<Partition, DayState> {
        let receipts =
            self.receipts.iter().map(|receipt| (receipt, Span { lower: receipt.lower, upper: receipt.upper }));
        let spans = receipts.clone().map(|(_, span)| span).chain(self.waiting.iter().map(|one| one.span));
        let partitions: BTreeSet<Partition> = spans
            .flat_map(|span| reconcile::partitions_of(span, shape.partition_by))
            .chain(lake.keys().copied())
            .collect();
        let dropped_days: Vec<Span> = receipts.clone().map(|(_, span)| span).collect();
        let state = |partition: Partition| {
            let span = reconcile::days_of(partition)?;
            // Days that a receipt ties together are proved together.
            let proved = reconcile::widened(span, &dropped_days);
            let proof = self.proofs.iter().find(|proof| (proof.lower, proof.upper) == (proved.lower, proved.upper));
            let proof =
                proof.filter(|proof| proof.lake_files == reconcile::fingerprint_of(proved, shape.partition_by, lake));
            let waiting = self.waiting.iter().filter(|one| one.span.overlaps(span)).map(|one| one.table.to_string());
            let dropped = receipts.clone().filter(|(receipt, days)| receipt.kind == "dropped" && days.overlaps(span));
            let state = DayState {
                complete: reconcile::is_complete(span, shape, now),
                proved_at: proof.filter(|proof| proof.balanced).map(|proof| proof.proved_at.clone()),
                differs: proof.is_some_and(|proof| !proof.balanced),
                waiting: waiting.collect(),
                receipts: dropped.map(|(receipt, _)| receipt.sequence).collect(),
            };
            Some((partition, state))
        };
        partitions.into_iter().filter_map(state).collect()
    }
}
