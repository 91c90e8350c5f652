//! Early proof: a day is balanced once when it is complete, and again only if its files in the lake have changed since, without locks and
//! without dropping anything. A fault is known then while PostgreSQL still has every row to mend it with.

use super::candidate::Candidate;
use super::cut::{self, Subject};
use super::judge::{Verdict, of_days};
use super::ledger::Ledger;
use super::narrow::{Narrowed, narrow};
use super::span::Span;
use super::{ReconcileError, Reconciler, digest};
use crate::base::{ColumnType, Partition, PartitionBy, TableShape};
use crate::lake::{PartitionReader, StoredFile};
use crate::source::{self, Proof};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// A day is complete so long after its end: rows arrive minutes late, and each proof of a day that is still growing is made in vain.
const SETTLED_AFTER: TimeDelta = TimeDelta::hours(1);
/// A day that did not balance is looked at again after this time, though nobody touched it: somebody may have mended the other side.
const AGAIN_AFTER: TimeDelta = TimeDelta::hours(24);

/// Every day that a lake can have.
pub(super) const EVER: Span = Span {
    lower: match NaiveDate::from_ymd_opt(1, 1, 1) {
        Some(day) => day,
        None => NaiveDate::MIN,
    },
    upper: match NaiveDate::from_ymd_opt(9999, 12, 31) {
        Some(day) => day,
        None => NaiveDate::MAX,
    },
};

/// A day (month) that is to be proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The days, a partition of the lake.
    pub span: Span,
    /// Tells the files of the lake from any others.
    lake_files: String,
}

/// How a proof went.
#[derive(Debug)]
pub struct ProofReport {
    /// The days.
    pub span: Span,
    /// Both sides.
    pub ledger: Option<Ledger>,
    /// Everything that is wrong; nothing if it balances.
    pub reasons: Vec<String>,
}

impl Reconciler<'_> {
    /// The days that are complete and not proved as they are now, the oldest first; those that are not copied yet are left out.
    ///
    /// # Errors
    /// As any statement; what the store says.
    pub async fn due(&self, now: DateTime<Utc>) -> Result<Vec<Due>, ReconcileError> {
        let (location, path) = self.lake;
        let shape = &self.facts.shape;
        let lake = PartitionReader::open(location, path).await?.partitions().await?;
        let proofs = source::proofs(self.control, self.archive, self.slot, &shape.table).await?;
        let receipts = self.receipts_of(EVER).await?;
        let receipts: Vec<Span> =
            receipts.iter().map(|receipt| Span { lower: receipt.lower, upper: receipt.upper }).collect();
        let leaves = source::leaves(self.control, self.facts.oid, shape).await?;
        let column_type = shape.columns.get(shape.partition_column).map(|column| column.column_type);
        let days = leaves.iter().filter_map(|leaf| leaf.bound.days(column_type?, shape.time_zone));
        let partitions = days.flat_map(|days| {
            let each = days.start.iter_days().take_while(move |day| *day < days.end);
            each.map(|day| shape.partition_by.partition_of(day)).collect::<BTreeSet<_>>()
        });
        let partitions: BTreeSet<Partition> = partitions.chain(lake.keys().copied()).collect();
        let uncopied = self.uncopied().await?;
        let is_copied = |due: &Due| of_days(&uncopied, due.span, shape.partition_by).is_empty();
        let due = due(&partitions, &lake, (&proofs, &receipts), shape, now);
        Ok(due.into_iter().filter(is_copied).collect())
    }

    /// Balances the days, and keeps how it went.
    ///
    /// # Errors
    /// [`ReconcileError`]; nothing is kept then.
    pub async fn prove(&self, due: &Due, waiting: &[Candidate]) -> Result<ProofReport, ReconcileError> {
        let mut ledger = None;
        let judged = self.look_at(due.span, waiting, &mut ledger, true).await;
        self.let_go(judged.is_err()).await;
        if let Err(error @ ReconcileError::OtherColumns { .. }) = judged {
            return self.cannot_be_proved(due, &error).await;
        }
        let (Verdict { cut, reasons }, narrowed) = judged?;
        let (table, days) = (&self.facts.shape.table, due.span.to_string());
        let expected = cut.ledger.expected();
        let files: Vec<StoredFile> = cut.files.iter().map(|hashed| hashed.file.clone()).collect();
        let proof = json!({
            "slot_name": self.slot,
            "table_name": table.to_string(),
            "lower_bound": due.span.lower.to_string(),
            "upper_bound": due.span.upper.to_string(),
            "balanced": reasons.is_empty(),
            "rows": expected.rows,
            "digest": expected.digest(),
            "lake_rows": cut.ledger.lake.rows,
            "lake_digest": cut.ledger.lake.digest(),
            "lake_files": if cut.faults.is_empty() { fingerprint(&files) } else { due.lake_files.clone() },
            "delta_version": cut.version,
        });
        source::keep_proof(self.control, self.archive, &proof).await?;
        if reasons.is_empty() {
            source::resolve_findings(self.control, self.archive, table, &days).await?;
        } else {
            let evidence =
                json!({ "days": days, "reasons": reasons, "ledger": cut.ledger.to_json(), "narrowed": narrowed });
            let reason = reasons.join("; ");
            source::note_finding(self.control, self.archive, "early_proof", (table, &days), &reason, &evidence).await?;
        }
        Ok(ProofReport { span: due.span, ledger, reasons })
    }

    /// What no other look would tell differently is kept like a difference, so that the days are not read again until they change.
    async fn cannot_be_proved(&self, due: &Due, error: &ReconcileError) -> Result<ProofReport, ReconcileError> {
        let (table, days, reason) = (&self.facts.shape.table, due.span.to_string(), error.to_string());
        let nothing = digest::RowSum::default();
        let proof = json!({
            "slot_name": self.slot,
            "table_name": table.to_string(),
            "lower_bound": due.span.lower.to_string(),
            "upper_bound": due.span.upper.to_string(),
            "balanced": false,
            "rows": nothing.rows,
            "digest": nothing.digest(),
            "lake_rows": nothing.rows,
            "lake_digest": nothing.digest(),
            "lake_files": due.lake_files,
            "delta_version": 0,
        });
        source::keep_proof(self.control, self.archive, &proof).await?;
        let evidence = json!({ "days": days });
        source::note_finding(self.control, self.archive, "early_proof", (table, &days), &reason, &evidence).await?;
        Ok(ProofReport { span: due.span, ledger: None, reasons: vec![reason] })
    }

    /// Balances any days as they are now; keeps nothing, and explains no difference.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub async fn compare(&self, span: Span, waiting: &[Candidate]) -> Result<ProofReport, ReconcileError> {
        let mut ledger = None;
        let judged = self.look_at(span, waiting, &mut ledger, false).await;
        self.let_go(judged.is_err()).await;
        let (Verdict { reasons, .. }, _) = judged?;
        Ok(ProofReport { span, ledger, reasons })
    }

    /// Ends a transaction that counted and failed.
    pub(super) async fn let_go(&self, failed: bool) {
        if failed && let Err(error) = source::thaw(self.counting).await {
            tracing::debug!(%error, "the session that counts is lost");
        }
    }

    /// Days that are only looked at.
    pub(super) fn subject<'s>(&'s self, span: Span, waiting: &'s [Candidate]) -> Subject<'s> {
        Subject {
            shape: &self.facts.shape,
            root_oid: self.facts.oid,
            columns: digest::columns_of(&self.facts.shape).into(),
            span,
            detached: None,
            others: waiting.iter().collect(),
        }
    }

    async fn look_at(
        &self,
        span: Span,
        waiting: &[Candidate],
        ledger: &mut Option<Ledger>,
        explain: bool,
    ) -> Result<(Verdict, Option<Value>), ReconcileError> {
        let (location, path) = self.lake;
        let reader = PartitionReader::open(location, path).await?;
        self.moves().await?;
        let subject = self.subject(span, waiting);
        let verdict = self.judge(&reader, &subject, ledger).await?;
        if verdict.reasons.is_empty() || !explain {
            return Ok((verdict, None));
        }
        let narrowed = Box::pin(narrow(&self.sides(&reader), &subject, &verdict.cut)).await;
        Ok((verdict, narrowed.as_ref().map(Narrowed::to_json)))
    }
}

/// Those that are over, and whose files are not the ones that were proved last.
fn due(
    partitions: &BTreeSet<Partition>,
    lake: &BTreeMap<Partition, Vec<StoredFile>>,
    (proofs, receipts): (&[Proof], &[Span]),
    shape: &TableShape,
    now: DateTime<Utc>,
) -> Vec<Due> {
    let mut due = Vec::new();
    for partition in partitions {
        let Some(span) = days_of(*partition).map(|days| widened(days, receipts)) else { continue };
        if due.last().is_some_and(|last: &Due| last.span == span) {
            continue;
        }
        if !is_complete(span, shape, now) {
            continue;
        }
        let lake_files = fingerprint_of(span, shape.partition_by, lake);
        let known = proofs.iter().find(|proof| (proof.lower, proof.upper) == (span.lower, span.upper));
        let is_old = |proof: &Proof| {
            let proved_at = proof.proved_at.parse::<DateTime<Utc>>();
            !proof.balanced && proved_at.is_ok_and(|proved_at| proved_at + AGAIN_AFTER < now)
        };
        if known.is_none_or(|proof| proof.lake_files != lake_files || is_old(proof)) {
            due.push(Due { span, lake_files });
        }
    }
    due
}

/// Days as they can be judged: with every day that a receipt of any of them is for, since a receipt of a month says nothing of its days.
pub fn widened(span: Span, receipts: &[Span]) -> Span {
    let mut wide = span;
    loop {
        let overlapping = receipts.iter().filter(|receipt| receipt.overlaps(wide));
        let next = overlapping.fold(wide, |wide, receipt| Span {
            lower: wide.lower.min(receipt.lower),
            upper: wide.upper.max(receipt.upper),
        });
        if next == wide {
            return wide;
        }
        wide = next;
    }
}

/// Tells the files of some days from any others, whatever their order.
pub fn fingerprint_of(span: Span, by: PartitionBy, lake: &BTreeMap<Partition, Vec<StoredFile>>) -> String {
    let files = partitions_of(span, by).into_iter().filter_map(|partition| lake.get(&partition)).flatten();
    fingerprint(&files.cloned().collect::<Vec<_>>())
}

/// The partitions of the lake that hold some days.
pub fn partitions_of(span: Span, by: PartitionBy) -> BTreeSet<Partition> {
    cut::covering(span, by).1
}

/// All days of a partition of the lake.
pub fn days_of(partition: Partition) -> Option<Span> {
    let first = partition.first_day();
    let one = Span { lower: first, upper: first.checked_add_days(Days::new(1))? };
    let (days, _) = cut::covering(one, partition.by());
    Some(days)
}

/// Whether days are over, and so long that late rows are in.
pub fn is_complete(span: Span, shape: &TableShape, now: DateTime<Utc>) -> bool {
    end_of(span, shape).is_some_and(|end| end + SETTLED_AFTER <= now)
}

/// The moment at which the last of the days is over where the table's rows are dated.
fn end_of(span: Span, shape: &TableShape) -> Option<DateTime<Utc>> {
    let midnight = span.upper.and_time(NaiveTime::MIN);
    match shape.columns.get(shape.partition_column)?.column_type {
        ColumnType::TimestampTz => source::first_instant(span.upper, shape.time_zone),
        _ => Some(midnight.and_utc()),
    }
}

/// Of paths and sizes, whatever their order.
pub(super) fn fingerprint(files: &[StoredFile]) -> String {
    let sorted: BTreeSet<&StoredFile> = files.iter().collect();
    let mut hash = Sha256::new();
    for file in sorted {
        hash.update(format!("{} {}\n", file.size_bytes, file.path));
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{SourceColumn, TableName};

    fn shape(column_type: ColumnType, time_zone: chrono_tz::Tz, partition_by: PartitionBy) -> TableShape {
        let column = SourceColumn {
            name: "created_at".to_owned(),
            lake_name: "created_at".to_owned(),
            type_oid: 0,
            type_modifier: -1,
            column_type,
            nullable: false,
        };
        TableShape {
            table: TableName::new("public", "event"),
            columns: vec![column],
            partition_column: 0,
            partition_by,
            time_zone,
            key: vec![0],
            identity: vec![0],
            identity_is_ambiguous: false,
        }
    }

    fn day(text: &str) -> Partition {
        PartitionBy::Day.partition_of(text.parse().unwrap())
    }

    fn shown(due: &[Due]) -> Vec<String> {
        due.iter().map(|due| due.span.to_string()).collect()
    }

    fn file(path: &str) -> StoredFile {
        StoredFile { path: path.to_owned(), size_bytes: 7 }
    }

    #[test]
    fn a_day_is_proved_when_it_is_complete_and_again_when_its_files_are_others() {
        let shape = shape(ColumnType::Timestamp, chrono_tz::Asia::Tokyo, PartitionBy::Day);
        let partitions = BTreeSet::from([day("2026-01-01"), day("2026-01-02"), day("2026-01-03")]);
        let lake = BTreeMap::from([(day("2026-01-01"), vec![file("a"), file("b")])]);
        let now = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let of = |proofs: &[Proof], at: &str| shown(&due(&partitions, &lake, (proofs, &[]), &shape, now(at)));
        assert_eq!(of(&[], "2026-01-03T00:59:59Z"), ["2026-01-01"]);
        assert_eq!(of(&[], "2026-01-03T01:00:00Z"), ["2026-01-01", "2026-01-02"]);
        let proof = |files: &[StoredFile], balanced| Proof {
            lower: "2026-01-01".parse().unwrap(),
            upper: "2026-01-02".parse().unwrap(),
            balanced,
            lake_files: fingerprint(files),
            proved_at: "2026-01-02T01:00:00Z".to_owned(),
        };
        assert_eq!(of(&[proof(&[file("b"), file("a")], true)], "2026-01-03T00:00:00Z"), Vec::<String>::new());
        assert_eq!(of(&[proof(&[file("a")], true)], "2026-01-03T00:00:00Z"), ["2026-01-01"]);
        let failed = proof(&[file("a"), file("b")], false);
        assert_eq!(of(std::slice::from_ref(&failed), "2026-01-03T00:00:00Z"), Vec::<String>::new());
        assert_eq!(of(&[failed], "2026-01-03T01:00:01Z"), ["2026-01-01", "2026-01-02"], "somebody may have mended it");
    }

    #[test]
    fn a_day_ends_where_its_rows_are_dated() {
        let one = Span { lower: "2018-11-03".parse().unwrap(), upper: "2018-11-04".parse().unwrap() };
        let end =
            |column_type, zone| end_of(one, &shape(column_type, zone, PartitionBy::Day)).map(|end| end.to_rfc3339());
        let utc = Some("2018-11-04T00:00:00+00:00".to_owned());
        assert_eq!(end(ColumnType::Timestamp, chrono_tz::Asia::Tokyo), utc);
        let tokyo = end(ColumnType::TimestampTz, chrono_tz::Asia::Tokyo);
        assert_eq!(tokyo.as_deref(), Some("2018-11-03T15:00:00+00:00"));
        let without_midnight = end(ColumnType::TimestampTz, chrono_tz::America::Sao_Paulo);
        assert_eq!(without_midnight.as_deref(), Some("2018-11-04T03:00:00+00:00"));
    }

    #[test]
    fn a_month_is_proved_as_a_whole() {
        let shape = shape(ColumnType::Date, chrono_tz::UTC, PartitionBy::Month);
        let month = PartitionBy::Month.partition_of("2026-01-01".parse().unwrap());
        let found = due(
            &BTreeSet::from([month]),
            &BTreeMap::new(),
            (&[], &[]),
            &shape,
            "2026-02-01T01:00:00Z".parse().unwrap(),
        );
        assert_eq!(shown(&found), ["2026-01-01 to 2026-01-31"]);
    }

    #[test]
    fn days_that_a_receipt_ties_together_are_proved_together() {
        let shape = shape(ColumnType::Date, chrono_tz::UTC, PartitionBy::Day);
        let partitions = BTreeSet::from([day("2026-01-31"), day("2026-02-01"), day("2026-02-02"), day("2026-03-01")]);
        let february = Span { lower: "2026-02-01".parse().unwrap(), upper: "2026-03-01".parse().unwrap() };
        let now = "2026-04-01T00:00:00Z".parse().unwrap();
        let found = due(&partitions, &BTreeMap::new(), (&[], &[february]), &shape, now);
        assert_eq!(shown(&found), ["2026-01-31", "2026-02-01 to 2026-02-28", "2026-03-01"]);
    }
}
