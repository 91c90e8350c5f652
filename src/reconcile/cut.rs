//! One cut through both sides: SQL over what PostgreSQL has of some days, Parquet over what the lake has, and whether the days were quiet
//! meanwhile (R1).

use super::ReconcileError;
use super::digest::{self, DigestColumn, LakeDigest, RowSum};
use super::ledger::Ledger;
use super::span::Span;
use crate::base::{Lsn, MARKER_PREFIX, Partition, PartitionBy, RECONCILE_MARKER, TableShape};
use crate::lake::{FetchedFile, FileFault, PartitionReader, StoredFile};
use crate::source::{self, LeafBound, SourceError, qualified};
use chrono::{Days, Months};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// How often the slot is asked how far it is.
const POLL: Duration = Duration::from_millis(100);
/// Somebody who waits for a table that is being counted waits so long at least.
const GIVE_WAY_AFTER: Duration = Duration::from_millis(500);
/// How long a slot may have no holder: `run` starts again after a lost connection.
const UNHELD_FOR: Duration = Duration::from_secs(30);

/// A file of the lake, as a receipt keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HashedFile {
    /// Name and size.
    #[serde(flatten)]
    pub(super) file: StoredFile,
    /// Of its bytes, in hexadecimal.
    pub(super) sha256: String,
    /// The store's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) e_tag: Option<String>,
}

/// Both sides.
#[derive(Debug)]
pub(super) struct Cut {
    /// Rows and digests.
    pub(super) ledger: Ledger,
    /// Rows of the detached table that are not of its days, where there is one.
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
    /// The days that are judged.
    pub(super) span: Span,
    /// The table that is to be dropped. None: the days are only looked at.
    pub(super) detached: Option<&'a super::Candidate>,
    /// Further detached tables, of any days.
    pub(super) others: Vec<&'a super::Candidate>,
}

/// Who is asked.
pub(super) struct Sides<'a> {
    /// The session that counts; in a transaction that holds the lock, where there is one.
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
        let (days, partitions) = covering(subject.span, subject.shape.partition_by);
        let files = files_of(&reader, &partitions).await?;
        let sql = self.query(subject, days).await?;
        let (counted, read) = tokio::join!(self.count(subject, &sql), sum_up(&reader, &files, &subject.columns));
        let (Counted { detached, live, outside }, Read { sum: lake, files: hashed, faults }) = (counted?, read?);
        self.covered().await?;
        let quiet = files_of(&reader.newest().await?, &partitions).await? == files;
        let ledger = Ledger { receipts: RowSum::default(), detached, live, lake };
        Ok(Cut { ledger, outside, files: hashed, faults, version: reader.version(), lsn, quiet })
    }

    /// Writes a marker and waits until the slot has acknowledged it: everything committed before it is in the lake then.
    pub(super) async fn covered(&self) -> Result<Lsn, ReconcileError> {
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
        let others = subject.others.iter().filter(|other| other.span.overlaps(days));
        let mut oids: Vec<u32> = others.clone().map(|other| other.oid).collect();
        let mut live: Vec<String> = others.map(|other| qualified(&other.table)).collect();
        let leaves = source::leaves(self.control, subject.root_oid, shape).await?;
        if leaves.is_empty() {
            // A plain table is its own leaf.
            live.push(qualified(&shape.table));
            oids.push(subject.root_oid);
        }
        for leaf in leaves {
            if !may_hold(&leaf.bound, shape, days) {
                continue;
            }
            if leaf.foreign {
                return Err(ReconcileError::ForeignLeaf { table: shape.table.clone(), partition: leaf.table });
            }
            live.push(qualified(&leaf.table));
            oids.push(leaf.oid);
        }
        oids.extend(subject.detached.map(|detached| detached.oid));
        let hidden = source::hidden_by_policies(self.control, &oids).await?;
        if !hidden.is_empty() {
            return Err(ReconcileError::RowSecurity { tables: hidden.join(", ") });
        }
        let inside = condition(shape, days);
        let live = live.into_iter().map(|name| format!("(SELECT * FROM ONLY {name} WHERE {inside}) AS live")).collect();
        Ok(Relations {
            detached: subject.detached.map(|detached| format!("ONLY {}", qualified(&detached.table))),
            live,
        })
    }

    /// One statement for everything, so that it sees one snapshot.
    async fn query(&self, subject: &Subject<'_>, days: Span) -> Result<String, ReconcileError> {
        let Relations { detached, live } = self.relations(subject, days).await?;
        let mut parts = Vec::new();
        if let Some(own) = detached {
            let outside = format!(
                "SELECT count(*) AS rows, '0' AS lane1, '0' AS lane2 FROM {own} WHERE ({}) IS NOT TRUE",
                condition(subject.shape, subject.span)
            );
            parts.push(("detached", digest::digest_query(&subject.columns, &[own])));
            parts.push(("outside", outside));
        }
        if !live.is_empty() {
            parts.push(("live", digest::digest_query(&subject.columns, &live)));
        }
        let parts: Vec<String> = parts
            .into_iter()
            .map(|(part, sql)| format!("SELECT '{part}' AS part, sums.* FROM ({sql}) AS sums"))
            .collect();
        match parts.as_slice() {
            [] => Ok("SELECT 'live' AS part, 0::int8 AS rows, '0' AS lane1, '0' AS lane2".to_owned()),
            parts => Ok(parts.join(" UNION ALL ")),
        }
    }

    async fn count(&self, subject: &Subject<'_>, sql: &str) -> Result<Counted, ReconcileError> {
        let counting = source::labelled_sums(self.counting, "counting rows of the archive", sql);
        let mut sums = Counted::default();
        for (part, rows, lanes) in self.ask(subject, digest::PINS, counting).await? {
            match part.as_str() {
                "detached" => sums.detached = RowSum::from_signed(rows, lanes),
                "live" => sums.live = RowSum::from_signed(rows, lanes),
                _ => sums.outside = rows,
            }
        }
        Ok(sums)
    }

    /// Runs a statement of the session that counts, under the digest's pins (and what else they say), and gives way to whoever waits for one of its tables, the frozen
    /// one aside: partman's DETACH waits for the default partition while it holds the root, and then everybody waits. No lock but the
    /// frozen table's outlives the statement.
    pub(super) async fn ask<T>(
        &self,
        subject: &Subject<'_>,
        pins: &str,
        statement: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, ReconcileError> {
        let frozen = subject.detached.map(|detached| detached.oid);
        let process = source::backend(self.counting).await?;
        source::begin_counting(self.counting, frozen.is_some(), pins).await?;
        let mut statement = pin!(statement);
        let mut gave_way = false;
        let answer = loop {
            tokio::select! {
                answer = &mut statement => break answer,
                () = sleep(GIVE_WAY_AFTER), if !gave_way => {}
            }
            // Who cannot be asked is asked again; the statement goes on meanwhile, and must not go on unwatched.
            if source::is_waited_for(self.control, process, frozen.unwrap_or(0)).await.unwrap_or(false) {
                gave_way = source::cancel(self.control, process).await.is_ok();
            }
        };
        source::end_counting(self.counting, frozen.is_some()).await?;
        match answer {
            // The statement's own answer is that it was cancelled.
            Err(_) if gave_way => Err(ReconcileError::GaveWay { table: subject.shape.table.clone() }),
            answer => Ok(answer?),
        }
    }
}

/// What stands behind FROM for the rows of some days.
pub(super) struct Relations {
    /// The table that is to be dropped, whole.
    pub(super) detached: Option<String>,
    /// What other detached tables and the parent's leaves have of these days.
    pub(super) live: Vec<String>,
}

#[derive(Default)]
struct Counted {
    detached: RowSum,
    live: RowSum,
    outside: i64,
}

pub(super) struct Read {
    pub(super) sum: RowSum,
    pub(super) files: Vec<HashedFile>,
    pub(super) faults: Vec<FileFault>,
}

pub(super) async fn files_of(
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
pub(super) async fn sum_up(
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
                let (sha256, e_tag) = (file.sha256.clone(), file.e_tag.clone());
                read.files.push(HashedFile { file: stored.clone(), sha256, e_tag });
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
pub(super) fn may_hold(bound: &LeafBound, shape: &TableShape, days: Span) -> bool {
    let column_type = shape.columns.get(shape.partition_column).map(|column| column.column_type);
    let known = column_type.and_then(|column_type| bound.days(column_type, shape.time_zone));
    known.is_none_or(|range| range.start < days.upper && days.lower < range.end)
}

/// That a row is of these days.
fn condition(shape: &TableShape, days: Span) -> String {
    source::dated_between(shape, days.lower..days.upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;

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
