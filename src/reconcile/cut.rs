//! One cut through both sides: SQL over what PostgreSQL has of some days, Parquet over what the lake has, and whether the days were quiet
//! meanwhile (R1).

use super::ReconcileError;
use super::digest::{self, DigestColumn, LakeDigest, RowSum};
use super::ledger::Ledger;
use super::span::Span;
use crate::base::{ColumnType, Lsn, MARKER_PREFIX, Partition, PartitionBy, RECONCILE_MARKER, TableShape};
use crate::lake::{FetchedFile, FileFault, PartitionReader, StoredFile};
use crate::source::{self, LeafBound, qualified, quote_identifier, quote_literal};
use chrono::{Datelike, Days, Months, NaiveDate};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// How often the slot is asked how far it is.
const POLL: Duration = Duration::from_millis(100);
/// How long a slot may have no holder: `run` starts again after a lost connection.
const UNHELD_FOR: Duration = Duration::from_secs(30);

/// A file of the lake, as a receipt keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct HashedFile {
    /// Name and size.
    #[serde(flatten)]
    pub(super) file: StoredFile,
    /// Of its bytes, in hexadecimal.
    pub(super) sha256: String,
}

/// Both sides.
#[derive(Debug)]
pub(super) struct Cut {
    /// Rows and digests.
    pub(super) ledger: Ledger,
    /// Rows of the detached table that are not of its days.
    pub(super) outside: i64,
    /// The lake's files.
    pub(super) files: Vec<HashedFile>,
    /// Those that cannot be read.
    pub(super) faults: Vec<FileFault>,
    /// Of the Delta table.
    pub(super) version: u64,
    /// The marker that the lake was read behind.
    pub(super) lsn: Lsn,
    /// No file of these days came or went meanwhile.
    pub(super) quiet: bool,
}

/// What is counted.
pub(super) struct Subject<'a> {
    pub(super) shape: &'a TableShape,
    pub(super) root_oid: u32,
    pub(super) columns: Arc<[DigestColumn]>,
    /// The table that is judged.
    pub(super) detached: &'a super::Candidate,
    /// Further detached tables of these days.
    pub(super) others: Vec<&'a super::Candidate>,
}

/// Who is asked.
pub(super) struct Sides<'a> {
    /// The transaction that holds the lock.
    pub(super) counting: &'a Client,
    /// Another session: its commit is what makes a server send the marker.
    pub(super) control: &'a Client,
    pub(super) slot: &'a str,
    pub(super) lake: &'a PartitionReader,
    /// How long the lake may take to have everything.
    pub(super) patience: Duration,
}

impl Sides<'_> {
    /// Takes a cut. What the receipts say is left to the caller.
    pub(super) async fn cut(&self, subject: &Subject<'_>) -> Result<Cut, ReconcileError> {
        let lsn = self.covered().await?;
        let reader = self.lake.newest().await?;
        let (days, partitions) = covering(subject.detached.span, subject.shape.partition_by);
        let files = files_of(&reader, &partitions).await?;
        let sql = self.query(subject, days).await?;
        let (counted, read) = tokio::join!(self.count(&sql), sum_up(&reader, &files, &subject.columns));
        let (Counted { detached, live, outside }, Read { sum: lake, files: hashed, faults }) = (counted?, read?);
        self.covered().await?;
        let quiet = files_of(&reader.newest().await?, &partitions).await? == files;
        let ledger = Ledger { receipts: RowSum::default(), detached, live, lake };
        Ok(Cut { ledger, outside, files: hashed, faults, version: reader.version(), lsn, quiet })
    }

    /// Writes a marker and waits until the slot has acknowledged it: everything committed before it is in the lake then.
    async fn covered(&self) -> Result<Lsn, ReconcileError> {
        let slot = self.slot.to_owned();
        let marker = source::emit_message(self.control, MARKER_PREFIX, RECONCILE_MARKER).await?;
        let begun = Instant::now();
        let mut held_at = begun;
        loop {
            let facts = source::slot(self.control, &slot).await?;
            if facts.as_ref().and_then(|facts| facts.confirmed).is_some_and(|confirmed| confirmed >= marker) {
                return Ok(marker);
            }
            if facts.is_some_and(|facts| facts.active) {
                held_at = Instant::now();
            }
            if held_at.elapsed() > UNHELD_FOR {
                return Err(ReconcileError::NotFollowed { slot });
            }
            if begun.elapsed() > self.patience {
                return Err(ReconcileError::Behind { slot, seconds: self.patience.as_secs() });
            }
            sleep(POLL).await;
        }
    }

    /// Where PostgreSQL has rows of these days.
    pub(super) async fn relations(&self, subject: &Subject<'_>, days: Span) -> Result<Relations, ReconcileError> {
        let shape = subject.shape;
        let mut live: Vec<String> = subject.others.iter().map(|other| qualified(&other.table)).collect();
        for leaf in source::leaves(self.control, subject.root_oid).await? {
            if !may_hold(&leaf.bound, shape, days) {
                continue;
            }
            if leaf.foreign {
                return Err(ReconcileError::ForeignLeaf { table: shape.table.clone(), partition: leaf.table });
            }
            live.push(qualified(&leaf.table));
        }
        let inside = condition(shape, days);
        let live = live.into_iter().map(|name| format!("(SELECT * FROM ONLY {name} WHERE {inside}) AS live")).collect();
        Ok(Relations { detached: format!("ONLY {}", qualified(&subject.detached.table)), live })
    }

    /// One statement for everything, so that it sees one snapshot.
    async fn query(&self, subject: &Subject<'_>, days: Span) -> Result<String, ReconcileError> {
        let Relations { detached, live } = self.relations(subject, days).await?;
        let outside = format!(
            "SELECT count(*) AS rows, '0' AS lane1, '0' AS lane2 FROM {detached} WHERE ({}) IS NOT TRUE",
            condition(subject.shape, subject.detached.span)
        );
        let mut parts = vec![("detached", digest::digest_query(&subject.columns, &[detached])), ("outside", outside)];
        if !live.is_empty() {
            parts.push(("live", digest::digest_query(&subject.columns, &live)));
        }
        let parts: Vec<String> = parts
            .into_iter()
            .map(|(part, sql)| format!("SELECT '{part}' AS part, sums.* FROM ({sql}) AS sums"))
            .collect();
        Ok(parts.join(" UNION ALL "))
    }

    async fn count(&self, sql: &str) -> Result<Counted, ReconcileError> {
        self.pin().await?;
        let mut counted = Counted::default();
        for (part, rows, lanes) in source::labelled_sums(self.counting, "counting a detached table", sql).await? {
            match part.as_str() {
                "detached" => counted.detached = RowSum::from_signed(rows, lanes),
                "live" => counted.live = RowSum::from_signed(rows, lanes),
                _ => counted.outside = rows,
            }
        }
        Ok(counted)
    }

    async fn pin(&self) -> Result<(), ReconcileError> {
        Ok(source::run_pins(self.counting, digest::PINS).await?)
    }
}

/// What stands behind FROM for the rows of some days.
pub(super) struct Relations {
    /// The table that is judged, whole.
    pub(super) detached: String,
    /// What other detached tables and the parent's leaves have of these days.
    pub(super) live: Vec<String>,
}

#[derive(Default)]
struct Counted {
    detached: RowSum,
    live: RowSum,
    outside: i64,
}

struct Read {
    sum: RowSum,
    files: Vec<HashedFile>,
    faults: Vec<FileFault>,
}

async fn files_of(
    reader: &PartitionReader,
    partitions: &BTreeSet<Partition>,
) -> Result<BTreeSet<StoredFile>, ReconcileError> {
    let mut files = BTreeSet::new();
    for partition in partitions {
        files.extend(reader.files(*partition).await?);
    }
    Ok(files)
}

/// Hashes and sums the files, the next one fetched while one is read. What is wrong with a file is told, and the others go on.
async fn sum_up(
    reader: &PartitionReader,
    files: &BTreeSet<StoredFile>,
    columns: &Arc<[DigestColumn]>,
) -> Result<Read, ReconcileError> {
    let mut read = Read { sum: RowSum::default(), files: Vec::new(), faults: Vec::new() };
    let mut fetched: Option<FetchedFile> = None;
    for next in files.iter().map(Some).chain([None]) {
        let fetching = async {
            match next {
                Some(file) => Some(reader.fetch(file).await),
                None => None,
            }
        };
        let summing = async {
            let file = fetched.take()?;
            let digest = LakeDigest::new(Arc::clone(columns));
            Some(file.read(digest, |digest, rows| digest.add(rows)).await)
        };
        let (arrived, summed) = tokio::join!(fetching, summing);
        match summed {
            Some(Ok(digest)) => read.sum = read.sum + digest.sum(),
            Some(Err(fault)) => read.faults.push(ReconcileError::of_file(fault)?),
            None => {}
        }
        match (arrived, next) {
            (Some(Ok(file)), Some(stored)) => {
                read.files.push(HashedFile { file: stored.clone(), sha256: file.sha256.clone() });
                fetched = Some(file);
            }
            (Some(Err(fault)), _) => read.faults.push(ReconcileError::of_file(fault)?),
            _ => {}
        }
    }
    Ok(read)
}

/// The partitions of the lake that hold these days, and all days of those.
pub(super) fn covering(span: Span, by: PartitionBy) -> (Span, BTreeSet<Partition>) {
    let partitions = || span.lower.iter_days().take_while(|day| *day < span.upper).map(|day| by.partition_of(day));
    let behind = |last: Partition| match by {
        PartitionBy::Day => last.first_day().checked_add_days(Days::new(1)),
        PartitionBy::Month => last.first_day().checked_add_months(Months::new(1)),
    };
    let partitions: BTreeSet<Partition> = partitions().collect();
    let lower = partitions.first().map_or(span.lower, |first| first.first_day());
    let upper = partitions.last().and_then(|last| behind(*last)).unwrap_or(span.upper);
    (Span { lower, upper }, partitions)
}

/// Whether rows of these days could be in a leaf.
fn may_hold(bound: &LeafBound, shape: &TableShape, days: Span) -> bool {
    let column_type = shape.columns.get(shape.partition_column).map(|column| column.column_type);
    let known = column_type.and_then(|column_type| bound.days(column_type, shape.time_zone));
    known.is_none_or(|range| range.start < days.upper && days.lower < range.end)
}

/// That a row is of these days.
fn condition(shape: &TableShape, days: Span) -> String {
    let Some(column) = shape.columns.get(shape.partition_column) else { return "true".to_owned() };
    let edge = |day: NaiveDate| {
        let literal = quote_literal(&format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day()));
        match column.column_type {
            ColumnType::Date => format!("{literal}::date"),
            ColumnType::TimestampTz => {
                format!("({literal}::timestamp AT TIME ZONE {})", quote_literal(shape.time_zone.name()))
            }
            _ => format!("{literal}::timestamp"),
        }
    };
    let name = quote_identifier(&column.name);
    format!("{name} >= {} AND {name} < {}", edge(days.lower), edge(days.upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(month: u32, day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, month, day).unwrap()
    }

    #[test]
    fn a_day_of_a_lake_by_month_is_balanced_with_its_month() {
        let day = Span { lower: date(2, 3), upper: date(2, 4) };
        let (days, partitions) = covering(day, PartitionBy::Month);
        assert_eq!((days.lower, days.upper, partitions.len()), (date(2, 1), date(3, 1), 1));
        assert_eq!(covering(day, PartitionBy::Day).0, day);
        let month = Span { lower: date(2, 1), upper: date(3, 1) };
        assert_eq!(covering(month, PartitionBy::Day).1.len(), 28);
    }
}
