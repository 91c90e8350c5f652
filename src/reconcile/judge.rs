//! The verdict over some days: cuts until one is quiet and balances, or two that are quiet do not (R1).

use super::chain::ChainFault;
use super::cut::{self, Cut, Sides, Subject};
use super::digest::{self, DigestColumn, RowSum};
use super::ledger::{Balance, Ledger};
use super::{ReconcileError, Reconciler, Span, proof};
use crate::base::{DaySet, PartitionBy};
use crate::lake::{self, LakeTable, PartitionReader};
use crate::source::{self, Receipt};
use serde_json::json;

/// Cuts that are taken until one is quiet, and of quiet ones that differ.
const CUTS_MAX: u32 = 5;
const QUIET_CUTS_THAT_DIFFER: u32 = 2;

/// What the last cut says.
pub(super) struct Verdict {
    pub(super) cut: Cut,
    /// Everything that is wrong; nothing if the days balance.
    pub(super) reasons: Vec<String>,
}

impl Reconciler<'_> {
    pub(super) fn sides<'s>(&'s self, reader: &'s PartitionReader) -> Sides<'s> {
        let (control, counting, slot) = (self.control, self.counting, self.slot);
        Sides { counting, control, slot, lake: reader, patience: self.patience }
    }

    /// A table that stands still is passed by the slot, so that its acknowledgement proves nothing of it.
    ///
    /// # Errors
    /// [`ReconcileError::StandsStill`] then; what the store says.
    pub async fn moves(&self) -> Result<(), ReconcileError> {
        let ((location, path), table) = (self.lake, &self.facts.shape.table);
        match LakeTable::stands_still(location, path, self.slot, table).await? {
            true => Err(ReconcileError::StandsStill { table: table.clone() }),
            false => Ok(()),
        }
    }

    /// The days that are still to be copied into the lake.
    ///
    /// # Errors
    /// What the store says.
    pub async fn uncopied(&self) -> Result<DaySet, ReconcileError> {
        let (location, path) = self.lake;
        Ok(lake::uncopied(location, path, self.slot, &self.facts.shape.table).await?)
    }

    /// Days that are not copied yet balance by accident at most.
    pub(super) async fn is_copied(&self, span: Span) -> Result<(), ReconcileError> {
        let uncopied = self.uncopied().await?;
        let days = of_days(&uncopied, span, self.facts.shape.partition_by);
        match days.is_empty() {
            true => Ok(()),
            false => Err(ReconcileError::NotCopied { table: self.facts.shape.table.clone(), days }),
        }
    }

    pub(super) async fn judge(
        &self,
        reader: &PartitionReader,
        subject: &Subject<'_>,
        shown: &mut Option<Ledger>,
    ) -> Result<Verdict, ReconcileError> {
        let sides = self.sides(reader);
        // Before anything is read: receipts that cannot be added up will not be in an hour either.
        self.sum_of(&self.receipts_of(subject.span).await?, &subject.columns)?;
        let mut differed = 0;
        for _ in 0..CUTS_MAX {
            let mut cut = sides.cut(subject).await?;
            cut.ledger.receipts = self.sum_of(&self.receipts_of(subject.span).await?, &subject.columns)?;
            *shown = Some(cut.ledger);
            if !cut.quiet {
                continue;
            }
            let reasons = reasons(&cut, subject);
            differed += u32::from(!reasons.is_empty());
            if reasons.is_empty() || differed == QUIET_CUTS_THAT_DIFFER {
                return Ok(Verdict { cut, reasons });
            }
        }
        Err(ReconcileError::NotQuiet { table: self.facts.shape.table.clone() })
    }

    /// The receipts of the partitions of the lake that hold these days.
    pub(super) async fn receipts_of(&self, span: Span) -> Result<Vec<Receipt>, ReconcileError> {
        let (days, _) = cut::covering(span, self.facts.shape.partition_by);
        let days = (days.lower, days.upper);
        Ok(source::receipts(self.control, self.archive, &self.facts.shape.table, days).await?)
    }

    /// What receipts add up to, if they bind the columns of today.
    fn sum_of(&self, receipts: &[Receipt], columns: &[DigestColumn]) -> Result<RowSum, ReconcileError> {
        let table = &self.facts.shape.table;
        let sum = |receipt: &Receipt| {
            let other = || ReconcileError::OtherColumns { table: table.clone(), sequence: receipt.sequence };
            if !receipt.is_intact {
                let fault = ChainFault::Changed { sequence: receipt.sequence };
                return Err(ReconcileError::ChainFault { fault });
            }
            let same = receipt.digest_rule == i32::try_from(digest::RULE).unwrap_or(i32::MAX)
                && receipt.columns == json!(columns);
            let sum = RowSum::new(receipt.rows, &receipt.digest).map_err(|_| other())?;
            if same || receipt.rows == 0 { Ok(sum) } else { Err(other()) }
        };
        receipts.iter().map(sum).sum()
    }
}

/// Those of a set that some days are of.
pub(super) fn of_days(set: &DaySet, span: Span, by: PartitionBy) -> DaySet {
    match set.is_whole() {
        true => set.clone(),
        false => set
            .days()
            .filter(|day| proof::days_of(*day).is_some_and(|days| days.overlaps(cut::covering(span, by).0)))
            .collect(),
    }
}

/// Everything that forbids a drop.
fn reasons(cut: &Cut, subject: &Subject<'_>) -> Vec<String> {
    let mut reasons: Vec<String> = cut.faults.iter().map(ToString::to_string).collect();
    if let (Some(one), true) = (subject.detached, cut.outside > 0) {
        reasons.push(format!("{} rows of {} are not of {}", cut.outside, one.table, one.span));
    }
    if cut.ledger.balance() != Balance::Balanced {
        reasons.push(cut.ledger.to_string());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;

    #[test]
    fn a_day_is_not_judged_while_it_or_its_month_is_to_be_copied() {
        let date = |month, day| NaiveDate::from_ymd_opt(2026, month, day).unwrap();
        let one = Span { lower: date(2, 3), upper: date(2, 4) };
        let set = |by: PartitionBy, day| DaySet::from_iter([by.partition_of(day)]);
        assert!(!of_days(&set(PartitionBy::Day, date(2, 3)), one, PartitionBy::Day).is_empty());
        assert!(of_days(&set(PartitionBy::Day, date(2, 4)), one, PartitionBy::Day).is_empty());
        assert!(!of_days(&set(PartitionBy::Month, date(2, 28)), one, PartitionBy::Month).is_empty());
        assert!(of_days(&set(PartitionBy::Month, date(3, 1)), one, PartitionBy::Month).is_empty());
        assert!(of_days(&DaySet::whole(), one, PartitionBy::Day).is_whole());
    }
}
