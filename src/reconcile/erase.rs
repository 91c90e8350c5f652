//! A subject's rows are erased from days that PostgreSQL has dropped: from the table and from its journal, with a receipt that keeps the
//! ledger balanced.
//!
//! A day is erased only if it balances just before and PostgreSQL has no row of it any more: what it still has is for the database to
//! delete, and the lake follows. Afterwards the day is read again, and must have exactly the rows that it had less those that went; the
//! receipt has their digest with the sign turned, and the hashes of the new files.

use super::audit::{Claim, Unit, units};
use super::cut::{self, HashedFile};
use super::digest::{self, LakeDigest, RowSum};
use super::{Candidate, ReconcileError, Reconciler, Span};
use crate::base::{MARKER_PREFIX, Partition, RECONCILE_MARKER};
use crate::lake::{
    BookedReceipt, Condition, EraseOrder, ErasePlan, ErasedDays, Eraser, ErasureNote, LakeError, PartitionReader,
    Patience, forget_erasure, journal_path, note_erasure, noted_erasures,
};
use crate::ops::fail_points;
use crate::source;
use chrono::Utc;
use deltalake::arrow::array::RecordBatch;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// Plans of one erasure: whoever rewrites the table meanwhile may be faster a few times.
const PLANS_MAX: u32 = 5;

/// For whoever rewrites the table just now, and for a store that fails for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(90);

/// What is asked for.
pub struct ErasureRequest {
    /// Which rows.
    pub condition: Condition,
    /// Of these days.
    pub days: Span,
    /// Why, for the receipt.
    pub reason: String,
}

/// What an erasure finds in, or takes from, some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedUnit {
    /// The days.
    pub span: Span,
    /// Rows of the table.
    pub rows: u64,
    /// Old images in the journal.
    pub old_images: u64,
    /// Why they stay, if they do.
    pub kept_because: Option<String>,
}

/// Digests of what goes, by partition.
type Sums = BTreeMap<Partition, LakeDigest>;

impl Reconciler<'_> {
    /// What a request would erase, and where it could not. Nothing is written. `receipts` are those of the lake.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub async fn rehearse_erasure(
        &self,
        request: &ErasureRequest,
        receipts: &[BookedReceipt],
    ) -> Result<Vec<ErasedUnit>, ReconcileError> {
        let units = self.dropped_units(request, receipts).await?;
        let partitions: BTreeSet<Partition> = units.iter().flat_map(|unit| unit.partitions.iter().copied()).collect();
        let rows = self.found(self.lake.1, request, &partitions).await?;
        let journal = journal_path(self.lake.1);
        let old_images = match self.found(&journal, request, &partitions).await {
            Err(ReconcileError::Lake(LakeError::Missing { .. })) => BTreeMap::new(),
            found => found?,
        };
        let waiting = self.candidates().await?.candidates;
        let mut erased = Vec::new();
        for unit in units {
            let sum = |found: &BTreeMap<Partition, u64>| unit.partitions.iter().filter_map(|one| found.get(one)).sum();
            let mut one =
                ErasedUnit { span: unit.span, rows: sum(&rows), old_images: sum(&old_images), kept_because: None };
            if one.rows + one.old_images > 0 {
                one.kept_because = self.why_kept(&unit, &waiting).await?;
                erased.push(one);
            }
        }
        Ok(erased)
    }

    async fn found(
        &self,
        path: &str,
        request: &ErasureRequest,
        partitions: &BTreeSet<Partition>,
    ) -> Result<BTreeMap<Partition, u64>, ReconcileError> {
        let mut eraser = Eraser::open(self.lake.0, path, Patience::none()).await?;
        let order = EraseOrder { partitions: partitions.clone(), condition: request.condition.clone() };
        let (found, ()) = Box::pin(eraser.rehearse(&order, (), |(), _, _| Ok(()))).await?;
        Ok(found.into_iter().map(|(partition, erasure)| (partition, erasure.erased)).collect())
    }

    /// The days that a receipt says are dropped.
    async fn dropped_units(
        &self,
        request: &ErasureRequest,
        receipts: &[BookedReceipt],
    ) -> Result<Vec<Unit>, ReconcileError> {
        let name = self.facts.shape.table.to_string();
        let reader = PartitionReader::open(self.lake.0, self.lake.1).await?;
        let claims = receipts.iter().filter_map(Claim::of).filter(|claim| claim.table == name).collect();
        let mut units = units(claims, reader.partition_by());
        units.retain(|unit| unit.span.overlaps(request.days));
        Ok(units)
    }

    /// PostgreSQL's own rows are its business, and a day that does not balance must not be changed any more.
    async fn why_kept(&self, unit: &Unit, waiting: &[Candidate]) -> Result<Option<String>, ReconcileError> {
        if unit.claims.iter().any(|claim| claim.columns() != digest::columns_of(&self.facts.shape)) {
            return Ok(Some("its receipts bind other columns than the table has now".to_owned()));
        }
        let found = self.compare(unit.span, waiting).await?;
        let live = found.ledger.map_or(0, |ledger| ledger.live.rows);
        Ok(if !found.reasons.is_empty() {
            Some(format!("it does not balance: {}", found.reasons.join("; ")))
        } else if live > 0 {
            Some(format!("PostgreSQL still has {live} rows of it: delete there first, and the lake follows"))
        } else {
            None
        })
    }

    /// Erases what a rehearsal found in these days, and carries every step to its end.
    ///
    /// # Errors
    /// [`ReconcileError`]; [`Self::finish_erasures`] carries on.
    pub async fn erase(&self, request: &ErasureRequest, days: &[Span]) -> Result<u64, ReconcileError> {
        let by = self.facts.shape.partition_by;
        let partitions: BTreeSet<Partition> = days.iter().flat_map(|span| cut::covering(*span, by).1).collect();
        let journal = journal_path(self.lake.1);
        let erased = self.erase_at(self.lake.1, request, &partitions, true).await?;
        match self.erase_at(&journal, request, &partitions, false).await {
            Err(ReconcileError::Lake(LakeError::Missing { .. })) => {}
            done => {
                done?;
            }
        }
        Ok(erased)
    }

    async fn erase_at(
        &self,
        path: &str,
        request: &ErasureRequest,
        partitions: &BTreeSet<Partition>,
        has_receipts: bool,
    ) -> Result<u64, ReconcileError> {
        // A lock whose owner died ends by itself.
        let (_waiting, word) = watch::channel(false);
        let patience = Patience::until(word).at_most(LOCK_PATIENCE);
        let mut eraser = Eraser::open(self.lake.0, path, patience).await?;
        let order = EraseOrder { partitions: partitions.clone(), condition: request.condition.clone() };
        for _ in 0..PLANS_MAX {
            let columns: Arc<[_]> = digest::columns_of(&self.facts.shape).into();
            let each = move |sums: &mut Sums, partition: Partition, rows: &RecordBatch| {
                let sum = sums.entry(partition).or_insert_with(|| LakeDigest::new(Arc::clone(&columns)));
                sum.add(rows).map_err(|error| error.to_string())
            };
            let (plan, sums) = Box::pin(eraser.plan(&order, Sums::new(), each)).await?;
            let rows: u64 = plan.found().values().map(|erasure| erasure.erased).sum();
            if rows == 0 {
                plan.abandon().await;
                return Ok(0);
            }
            let days = if has_receipts { erased_days(&sums) } else { Vec::new() };
            let note = self.note(path, request, &plan, days);
            note_erasure(self.lake.0, self.slot, &note).await?;
            fail_points::reach("erase.after_note");
            match Box::pin(eraser.commit(plan, note.id)).await {
                Err(LakeError::FilesMoved { .. } | LakeError::LockLost { .. }) => {
                    forget_erasure(self.lake.0, self.slot, note.id).await?;
                }
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.finish(&note).await?;
                    return Ok(rows);
                }
            }
        }
        Err(ReconcileError::NotQuiet { table: self.facts.shape.table.clone() })
    }

    fn note(&self, path: &str, request: &ErasureRequest, plan: &ErasePlan, days: Vec<ErasedDays>) -> ErasureNote {
        ErasureNote {
            id: Uuid::new_v4(),
            table: self.facts.shape.table.to_string(),
            path: path.to_owned(),
            since: plan.version(),
            reason: request.reason.clone(),
            days,
        }
    }

    /// Carries on what was cut off: receipts, files and log entries. Returns how many erasures were.
    ///
    /// # Errors
    /// [`ReconcileError`]; it can be called again.
    pub async fn finish_erasures(&self) -> Result<u64, ReconcileError> {
        let mut finished = 0;
        for note in noted_erasures(self.lake.0, self.slot).await? {
            if note.table == self.facts.shape.table.to_string() {
                finished += u64::from(self.finish(&note).await?);
            }
        }
        Ok(finished)
    }

    /// Whether the erasure had landed.
    async fn finish(&self, note: &ErasureNote) -> Result<bool, ReconcileError> {
        let mut eraser = Eraser::open(self.lake.0, &note.path, Patience::none()).await?;
        let Some(erased) = Box::pin(eraser.find(note.id, note.since)).await? else {
            forget_erasure(self.lake.0, self.slot, note.id).await?;
            return Ok(false);
        };
        for days in &note.days {
            self.adjust(note, days).await?;
        }
        fail_points::reach("erase.after_receipt");
        let stay = Box::pin(eraser.delete_files(&erased)).await?;
        if let Some(first) = stay.first() {
            tracing::warn!(
                file = first,
                files = stay.len(),
                "erased files are in the table again, as after a RESTORE: erase again"
            );
        }
        Box::pin(eraser.expire_log(erased.version)).await?;
        forget_erasure(self.lake.0, self.slot, note.id).await?;
        Ok(true)
    }

    /// The receipt that keeps the ledger of some days balanced. It has the hashes of the files as they are now.
    async fn adjust(&self, note: &ErasureNote, days: &ErasedDays) -> Result<(), ReconcileError> {
        let span = Span { lower: days.lower, upper: days.upper };
        let columns = digest::columns_of(&self.facts.shape);
        let reader = PartitionReader::open(self.lake.0, self.lake.1).await?;
        let files = cut::files_of(&reader, &cut::covering(span, self.facts.shape.partition_by).1).await?;
        let read = cut::sum_up(&reader, &files, &columns.clone().into()).await?;
        if let Some(fault) = read.faults.first() {
            return Err(ReconcileError::Erasure { reason: fault.to_string() });
        }
        let unknown = |_| ReconcileError::Erasure { reason: "its note has no digest".to_owned() };
        let gone = RowSum::default() - RowSum::new(days.rows, &days.digest).map_err(unknown)?;
        let lsn = source::emit_message(self.control, MARKER_PREFIX, RECONCILE_MARKER).await?;
        let files: &[HashedFile] = &read.files;
        let receipt = json!({
            "kind": "erased",
            "erasure": note.id.to_string(),
            "reason": note.reason,
            "table_name": note.table,
            "partition_name": span.to_string(),
            "lower_bound": span.lower.to_string(),
            "upper_bound": span.upper.to_string(),
            "rows": gone.rows,
            "digest": gone.digest(),
            "digest_rule": digest::RULE,
            "columns": columns,
            "lake_rows": read.sum.rows,
            "lake_digest": read.sum.digest(),
            "delta_version": reader.version(),
            "lsn": lsn.to_string(),
            "frozen_at": Utc::now().to_rfc3339(),
            "files": files,
            "lakebed_version": env!("CARGO_PKG_VERSION"),
        });
        Ok(source::adjust(self.control, self.archive, &receipt).await?)
    }
}

fn erased_days(sums: &Sums) -> Vec<ErasedDays> {
    let days = sums.iter().filter_map(|(partition, digest)| {
        let (span, sum) = (super::days_of(*partition)?, digest.sum());
        (sum.rows > 0).then(|| ErasedDays {
            lower: span.lower,
            upper: span.upper,
            rows: sum.rows,
            digest: sum.digest(),
        })
    });
    days.collect()
}
