//! The audit: the lake read again, years later, against what its receipts say.
//!
//! It needs no database. Rows and digest of a day are those that its receipts add up to; files that a receipt names have the hashes that it
//! gives. Files that came or went since are no fault by themselves, as long as the rows are the same: late rows, erased ones and
//! compaction change files, and each leaves a trace of its own.

use super::cut::{self, HashedFile};
use super::digest::{DigestColumn, RowSum};
use super::proof::days_of;
use super::{ReconcileError, Span};
use crate::base::{Partition, PartitionBy};
use crate::lake::{BookedReceipt, FileFault, PartitionReader};
use chrono::NaiveDate;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a receipt says to an auditor.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The receipt's place in the chain.
    pub sequence: i64,
    /// The table.
    pub table: String,
    /// Its days.
    pub span: Span,
    sum: RowSum,
    columns: Vec<DigestColumn>,
    files: Vec<HashedFile>,
}

/// A receipt's text.
#[derive(Debug, Deserialize)]
struct Said {
    table_name: String,
    lower_bound: NaiveDate,
    upper_bound: NaiveDate,
    rows: i64,
    digest: String,
    columns: Vec<DigestColumn>,
    #[serde(default)]
    files: Vec<HashedFile>,
}

/// Partitions of the lake that receipts tie together: one day mostly, a month where months are detached or where the lake has months.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Their days, from the first to the last.
    pub span: Span,
    /// The partitions of the lake.
    pub partitions: BTreeSet<Partition>,
    /// Everything that is claimed of them.
    pub claims: Vec<Claim>,
}

/// What an audit of one unit found.
#[derive(Clone, Debug)]
pub struct UnitAudit {
    /// The days.
    pub span: Span,
    /// The receipts of its days.
    pub receipts: Vec<i64>,
    /// What they add up to.
    pub expected: RowSum,
    /// What the lake has; None if it was only looked for, and not read.
    pub lake: Option<RowSum>,
    /// Files that the log names.
    pub files: usize,
    /// Of those, the ones whose hashes a receipt gives.
    pub proved_files: usize,
    /// Whether they are just those of the newest receipt; looked at only where files are not read.
    pub same_files: bool,
    /// Everything that is wrong with files.
    pub faults: Vec<String>,
    /// Why the sums say less than they should, if they do.
    pub limits: Vec<String>,
}

impl UnitAudit {
    /// Whether the lake has more rows than the receipts say, which PostgreSQL may still have, too.
    pub fn has_more(&self) -> bool {
        self.lake.is_some_and(|lake| lake.rows > self.expected.rows)
    }

    /// Whether the lake has what the receipts say; true where it was not read.
    pub fn sums_agree(&self) -> bool {
        let rows_only = !self.limits.is_empty();
        self.lake.is_none_or(|lake| if rows_only { lake.rows == self.expected.rows } else { lake == self.expected })
    }
}

impl Claim {
    /// Of one receipt, by the text that was hashed. None for a text that is no receipt's, which the chain's check says as well.
    pub fn of(receipt: &BookedReceipt) -> Option<Self> {
        let said: Said = serde_json::from_str(&receipt.content).ok()?;
        let sum = RowSum::new(said.rows, &said.digest).ok()?;
        let span = Span { lower: said.lower_bound, upper: said.upper_bound };
        let Said { table_name: table, columns, files, .. } = said;
        Some(Self { sequence: receipt.sequence, table, span, sum, columns, files })
    }
}

impl Claim {
    /// Whether it was an empty table's.
    pub fn is_of_no_row(&self) -> bool {
        self.sum == RowSum::default()
    }

    /// The columns that its digest binds.
    pub fn columns(&self) -> &[DigestColumn] {
        &self.columns
    }
}

impl UnitAudit {
    /// Of a unit of which the lake has nothing.
    pub fn of_nothing(unit: &Unit) -> Self {
        Self {
            span: unit.span,
            receipts: unit.claims.iter().map(|claim| claim.sequence).collect(),
            expected: unit.claims.iter().map(|claim| claim.sum).sum(),
            lake: None,
            files: 0,
            proved_files: 0,
            same_files: true,
            faults: Vec::new(),
            limits: Vec::new(),
        }
    }
}

impl Unit {
    /// A partition that nothing is claimed of.
    pub fn without_claims(partition: Partition) -> Option<Self> {
        Some(Self { span: days_of(partition)?, partitions: BTreeSet::from([partition]), claims: Vec::new() })
    }
}

/// The units that a table's claims make, the oldest first.
pub fn units(claims: Vec<Claim>, by: PartitionBy) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for claim in claims {
        let (span, partitions) = cut::covering(claim.span, by);
        let mut unit = Unit { span, partitions, claims: vec![claim] };
        let (joined, apart): (Vec<Unit>, Vec<Unit>) =
            units.into_iter().partition(|known| !known.partitions.is_disjoint(&unit.partitions));
        for known in joined {
            unit.span.lower = unit.span.lower.min(known.span.lower);
            unit.span.upper = unit.span.upper.max(known.span.upper);
            unit.partitions.extend(known.partitions);
            unit.claims.extend(known.claims);
        }
        unit.claims.sort_by_key(|claim| claim.sequence);
        units = apart;
        units.push(unit);
    }
    units.sort_by_key(|unit| unit.span);
    units
}

/// Reads partitions of the lake against the claims for them; with `cold`, their files are only looked for.
///
/// # Errors
/// What the store says. What is wrong with a file is in the report.
pub async fn audit(reader: &PartitionReader, unit: &Unit, cold: bool) -> Result<UnitAudit, ReconcileError> {
    let claims = &unit.claims;
    let files = cut::files_of(reader, &unit.partitions).await?;
    let known: BTreeMap<&str, &HashedFile> =
        claims.iter().flat_map(|claim| &claim.files).map(|file| (file.file.path.as_str(), file)).collect();
    let mut audit = UnitAudit {
        span: unit.span,
        receipts: claims.iter().map(|claim| claim.sequence).collect(),
        expected: claims.iter().map(|claim| claim.sum).sum(),
        lake: None,
        files: files.len(),
        proved_files: files.iter().filter(|file| known.contains_key(file.path.as_str())).count(),
        same_files: true,
        faults: Vec::new(),
        limits: limits(claims),
    };
    if cold {
        let newest = claims.last().map(|claim| claim.files.iter().map(|file| &file.file).collect::<BTreeSet<_>>());
        audit.same_files = newest.is_none_or(|newest| newest == files.iter().collect());
        for file in &files {
            match reader.look_for(file).await {
                Ok(e_tag) => audit.faults.extend(altered_tag(known.get(file.path.as_str()).copied(), e_tag)),
                Err(FileFault::Lake(error)) => return Err(error.into()),
                Err(fault) => audit.faults.push(fault.to_string()),
            }
        }
        return Ok(audit);
    }
    let columns: Arc<[DigestColumn]> = claims.last().map_or_else(Vec::new, |claim| claim.columns.clone()).into();
    let read = cut::sum_up(reader, &files, &columns).await?;
    audit.faults.extend(read.faults.iter().map(ToString::to_string));
    for found in &read.files {
        let named = known.get(found.file.path.as_str());
        if named.is_some_and(|named| named.sha256 != found.sha256) {
            audit.faults.push(format!(
                "the file {} was altered: it has another SHA-256 than its receipt says",
                found.file.path
            ));
        }
    }
    audit.lake = Some(read.sum);
    Ok(audit)
}

fn altered_tag(known: Option<&HashedFile>, e_tag: Option<String>) -> Option<String> {
    let known = known?;
    let (expected, found) = (known.e_tag.as_ref()?, e_tag?);
    let altered =
        || format!("the file {} was altered: the store has another checksum than its receipt says", known.file.path);
    (*expected != found).then(altered)
}

/// Digests over different columns cannot be added up.
fn limits(claims: &[Claim]) -> Vec<String> {
    let columns: BTreeSet<String> =
        claims.iter().filter(|claim| claim.sum.rows != 0).map(|claim| format!("{:?}", claim.columns)).collect();
    match columns.len() {
        0 | 1 => Vec::new(),
        _ => vec!["its receipts bind different columns, so only rows are compared".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(sequence: i64, lower: &str, upper: &str) -> Claim {
        let span = Span { lower: lower.parse().unwrap(), upper: upper.parse().unwrap() };
        Claim {
            sequence,
            table: "public.event".to_owned(),
            span,
            sum: RowSum::default(),
            columns: Vec::new(),
            files: Vec::new(),
        }
    }

    #[test]
    fn receipts_of_the_same_days_are_audited_together() {
        let claims = || {
            vec![
                claim(1, "2026-01-02", "2026-01-03"),
                claim(2, "2026-01-01", "2026-01-02"),
                claim(3, "2026-01-02", "2026-01-03"),
            ]
        };
        let shown = |by| -> Vec<(String, Vec<i64>)> {
            let claimed =
                |unit: Unit| (unit.span.to_string(), unit.claims.iter().map(|claim| claim.sequence).collect());
            units(claims(), by).into_iter().map(claimed).collect()
        };
        assert_eq!(
            shown(PartitionBy::Day),
            [("2026-01-01".to_owned(), vec![2]), ("2026-01-02".to_owned(), vec![1, 3])]
        );
        assert_eq!(shown(PartitionBy::Month), [("2026-01-01 to 2026-01-31".to_owned(), vec![1, 2, 3])]);
        let mut months = claims();
        months.push(claim(4, "2026-01-01", "2026-02-01"));
        let units = units(months, PartitionBy::Day);
        assert_eq!((units.len(), units[0].partitions.len(), units[0].claims.len()), (1, 31, 4));
    }
}
