//! Which days of the lake are not what PostgreSQL has, so that those, and no others, are copied again.
//!
//! A day that was dropped by a receipt is the lake's alone, and so is one of which PostgreSQL has no place any more: copying it would
//! empty it. Neither is ever asked about. A day into which rows come all the time has no quiet cut; its hours that are over
//! are compared instead, and one differs if it is the same difference in three cuts, each of them behind a marker.

use super::candidate::Candidate;
use super::cut::{HashedFile, files_of};
use super::judge::of_days;
use super::narrow::{HourDifference, hours_that_differ};
use super::proof::{EVER, days_of, partitions_of};
use super::span::Span;
use super::{ReconcileError, Reconciler};
use crate::base::{DaySet, Partition, PartitionBy, TableShape};
use crate::lake::{PartitionReader, StoredFile};
use crate::source::{self, Leaf, LeafBound, Receipt, SourceError, TableFacts};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// An hour is compared so long after its end: rows arrive minutes late.
const HOUR_SETTLED_AFTER: TimeDelta = TimeDelta::minutes(10);
/// Cuts in which an hour must differ in the same way, and those that are taken at most.
const SAME_CUTS: u32 = 3;
const HOURLY_CUTS_MAX: u32 = 8;
/// Hours that are named.
const HOURS_TOLD: usize = 5;

/// A partition of the lake, and whether it may be copied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayToBalance {
    /// The partition.
    pub partition: Partition,
    /// Its days.
    pub span: Span,
    /// What is done with it.
    pub standing: Standing,
}

/// Whether a day is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is balanced.
    Asked,
    /// It, or a part of it, was dropped by these receipts: PostgreSQL does not have it any more.
    Dropped {
        /// Their places in the chain.
        receipts: Vec<i64>,
    },
    /// PostgreSQL has no partition for it, attached or waiting, and no receipt says why.
    NoPlace,
    /// It is to be copied already.
    NotCopied,
}

/// How a day stands.
#[derive(Debug)]
pub enum DayVerdict {
    /// Both sides have the same rows.
    Balances,
    /// Rows come in all the time; the same rows are in every hour that is over.
    BalancesSoFar,
    /// They differ; one line for each thing that is wrong.
    Differs {
        /// What is wrong.
        reasons: Vec<String>,
    },
    /// It could not be told.
    NotJudged(ReconcileError),
}

impl Reconciler<'_> {
    /// What is to be done about each partition of the lake, and about those of which the source has rows (`with_rows`).
    ///
    /// # Errors
    /// As any statement; what the store says.
    pub async fn days_to_balance(
        &self,
        with_rows: &BTreeSet<Partition>,
        waiting: &[Candidate],
    ) -> Result<Vec<DayToBalance>, ReconcileError> {
        let (location, path) = self.lake;
        let shape = &self.facts.shape;
        let lake = PartitionReader::open(location, path).await?.partitions().await?;
        let receipts = self.receipts_of(EVER).await?;
        let leaves = source::leaves(self.control, self.facts.oid, shape).await?;
        let uncopied = self.uncopied().await?;
        let waited = waiting.iter().flat_map(|one| partitions_of(one.span, shape.partition_by));
        let partitions = lake.keys().chain(with_rows).copied().chain(waited);
        let partitions: BTreeSet<Partition> = partitions.collect();
        let today = Utc::now().date_naive();
        // Where the lake has nothing, there is nothing to lose.
        let has_place = |partition: Partition, span: Span| {
            !lake.contains_key(&partition) || has_place(self.facts, &leaves, waiting, span, today)
        };
        let day = |partition: Partition| {
            let span = days_of(partition)?;
            let place = has_place(partition, span);
            Some(DayToBalance {
                partition,
                span,
                standing: standing(span, &receipts, &uncopied, shape.partition_by, place),
            })
        };
        Ok(partitions.into_iter().filter_map(day).collect())
    }

    /// Compares both sides of a partition's days, without locks; keeps nothing.
    pub async fn balance(&self, span: Span, waiting: &[Candidate]) -> DayVerdict {
        let compared = match self.compare(span, waiting).await {
            Err(ReconcileError::NotQuiet { .. }) => self.hourly(span, waiting).await,
            Err(error) => Err(error),
            Ok(report) if report.reasons.is_empty() => Ok(DayVerdict::Balances),
            Ok(report) => Ok(DayVerdict::Differs { reasons: report.reasons }),
        };
        compared.unwrap_or_else(DayVerdict::NotJudged)
    }

    /// Settles what was found about days that balance, as a proof does.
    ///
    /// # Errors
    /// As any statement.
    pub async fn settle(&self, span: Span) -> Result<(), ReconcileError> {
        let table = &self.facts.shape.table;
        Ok(source::resolve_findings(self.control, self.archive, table, &span.to_string()).await?)
    }

    /// By the hours that are over.
    async fn hourly(&self, span: Span, waiting: &[Candidate]) -> Result<DayVerdict, ReconcileError> {
        let judged = self.judge_hours(span, waiting, Utc::now() - HOUR_SETTLED_AFTER).await;
        self.let_go(judged.is_err()).await;
        judged
    }

    async fn judge_hours(
        &self,
        span: Span,
        waiting: &[Candidate],
        over: DateTime<Utc>,
    ) -> Result<DayVerdict, ReconcileError> {
        let (location, path) = self.lake;
        let reader = PartitionReader::open(location, path).await?;
        let (sides, subject) = (self.sides(&reader), self.subject(span, waiting));
        let partitions = partitions_of(span, self.facts.shape.partition_by);
        let mut hours = Hourly::default();
        for _ in 0..HOURLY_CUTS_MAX {
            sides.covered().await?;
            let newest = reader.newest().await?;
            let files: Vec<HashedFile> = files_of(&newest, &partitions).await?.into_iter().map(unhashed).collect();
            let sides = self.sides(&newest);
            let Some(differing) = hours_that_differ(&sides, &subject, &files, over).await? else { break };
            if let Some(verdict) = hours.cut(&differing) {
                return Ok(verdict);
            }
        }
        Err(ReconcileError::NotQuiet { table: self.facts.shape.table.clone() })
    }
}

/// Whether PostgreSQL has a place for every one of some days, attached or waiting in the archive. A default partition is none: what it has of
/// a day may be a late row of one that is gone. Only of yesterday, `today` and the days to come, if they lie behind the newest leaf, it has
/// every row: nobody has dropped what was not made yet. A table that is not cut into ranges of its dates alone always has a place.
pub fn has_place(facts: &TableFacts, leaves: &[Leaf], waiting: &[Candidate], span: Span, today: NaiveDate) -> bool {
    let shape = &facts.shape;
    let Some(column) = shape.columns.get(shape.partition_column) else { return true };
    let is_by_date = facts
        .partitioning
        .as_ref()
        .is_some_and(|partitioning| partitioning.strategy == 'r' && partitioning.key == [Some(column.name.clone())]);
    let covered: Vec<(Option<NaiveDate>, Option<NaiveDate>)> =
        leaves.iter().filter_map(|leaf| leaf.bound.covers(column.column_type, shape.time_zone)).collect();
    let has_default = leaves.iter().any(|leaf| leaf.bound == LeafBound::Default);
    // None where the newest one is open.
    let behind_all = covered.iter().map(|(_, to)| *to).max_by_key(|to| to.unwrap_or(NaiveDate::MAX)).flatten();
    let waits = |day: NaiveDate| waiting.iter().any(|one| one.span.lower <= day && day < one.span.upper);
    let is_covered = |day: NaiveDate| {
        covered.iter().any(|(from, to)| from.is_none_or(|from| from <= day) && to.is_none_or(|to| day < to))
    };
    let yesterday = today.pred_opt().unwrap_or(today);
    let is_to_come = |day: NaiveDate| has_default && yesterday <= day && behind_all.is_some_and(|end| end <= day);
    let has = |day: NaiveDate| waits(day) || is_covered(day) || is_to_come(day);
    !is_by_date || span.lower.iter_days().take_while(|day| *day < span.upper).all(has)
}

/// Those of some days that were dropped, or had rows erased, by a receipt: the lake alone has them, and whoever copied them would empty
/// them. For whoever copies, behind its snapshot, since a day may have been dropped after it was marked.
///
/// # Errors
/// As any statement.
pub async fn dropped_of(
    client: &Client,
    archive: &str,
    shape: &TableShape,
    days: &DaySet,
) -> Result<BTreeSet<Partition>, SourceError> {
    let receipts = source::receipts(client, archive, &shape.table, (EVER.lower, EVER.upper)).await?;
    let spans = receipts.iter().map(|receipt| Span { lower: receipt.lower, upper: receipt.upper });
    let dropped = spans.flat_map(|span| partitions_of(span, shape.partition_by));
    Ok(dropped.filter(|day| days.contains(*day)).collect())
}

/// A file whose hash nobody asks for.
fn unhashed(file: StoredFile) -> HashedFile {
    HashedFile { file, sha256: String::new(), e_tag: None }
}

fn standing(span: Span, receipts: &[Receipt], uncopied: &DaySet, by: PartitionBy, has_place: bool) -> Standing {
    let of_it = receipts.iter().filter(|receipt| Span { lower: receipt.lower, upper: receipt.upper }.overlaps(span));
    let receipts: Vec<i64> = of_it.map(|receipt| receipt.sequence).collect();
    if !receipts.is_empty() {
        Standing::Dropped { receipts }
    } else if !of_days(uncopied, span, by).is_empty() {
        Standing::NotCopied
    } else if has_place {
        Standing::Asked
    } else {
        Standing::NoPlace
    }
}

/// The hours that differed in the cuts until now, each with how often it did in the very same way.
#[derive(Debug, Default)]
struct Hourly {
    differed: BTreeMap<String, (HourDifference, u32)>,
}

impl Hourly {
    /// Takes one more cut. What differs and moves is on its way; what differs and stands is not.
    fn cut(&mut self, differing: &[HourDifference]) -> Option<DayVerdict> {
        if differing.is_empty() {
            return Some(DayVerdict::BalancesSoFar);
        }
        let before = std::mem::take(&mut self.differed);
        let times = |hour: &HourDifference| match before.get(&hour.hour) {
            Some((known, times)) if known == hour => times + 1,
            _ => 1,
        };
        self.differed = differing.iter().map(|hour| (hour.hour.clone(), (hour.clone(), times(hour)))).collect();
        let stand: Vec<&HourDifference> =
            self.differed.values().filter(|(_, times)| *times >= SAME_CUTS).map(|(hour, _)| hour).collect();
        if stand.is_empty() {
            return None;
        }
        let mut reasons: Vec<String> = stand.iter().take(HOURS_TOLD).map(|hour| reason(hour)).collect();
        if stand.len() > HOURS_TOLD {
            reasons.push(format!("{} more hours differ", stand.len() - HOURS_TOLD));
        }
        Some(DayVerdict::Differs { reasons })
    }
}

fn reason(HourDifference { hour, postgres, lake }: &HourDifference) -> String {
    format!("{hour}: PostgreSQL has {postgres}; the lake has {lake}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ColumnType, SourceColumn, TableName};
    use crate::reconcile::digest::RowSum;
    use crate::source::{Partitioning, ReplicaIdentity};
    use serde_json::json;

    fn hour(hour: &str, postgres: i64, lake: i64) -> HourDifference {
        let sum = |rows| RowSum { rows, lanes: [7, 7] };
        HourDifference { hour: hour.to_owned(), postgres: sum(postgres), lake: sum(lake) }
    }

    #[test]
    fn an_hour_that_differs_in_the_same_way_three_times_differs() {
        let mut hours = Hourly::default();
        assert!(hours.cut(&[hour("2026-01-02T03", 5, 4), hour("2026-01-02T04", 1, 0)]).is_none());
        assert!(hours.cut(&[hour("2026-01-02T03", 5, 4), hour("2026-01-02T04", 2, 0)]).is_none());
        let Some(DayVerdict::Differs { reasons }) =
            hours.cut(&[hour("2026-01-02T03", 5, 4), hour("2026-01-02T04", 2, 0)])
        else {
            panic!("no difference");
        };
        assert_eq!(reasons.len(), 1, "the other one was seen twice: {reasons:?}");
        assert!(reasons[0].starts_with("2026-01-02T03: PostgreSQL has 5 rows"), "{reasons:?}");
    }

    #[test]
    fn what_is_on_its_way_is_no_difference() {
        let mut hours = Hourly::default();
        for rows in 0..10 {
            assert!(hours.cut(&[hour("2026-01-02T03", rows + 1, rows)]).is_none(), "the figures move");
        }
        assert!(matches!(hours.cut(&[]), Some(DayVerdict::BalancesSoFar)));
        let mut interrupted = Hourly::default();
        for cut in ["03", "03", "04", "03", "03"] {
            assert!(interrupted.cut(&[hour(cut, 5, 4)]).is_none(), "only cuts in a row count");
        }
    }

    fn day(text: &str) -> Span {
        let lower: NaiveDate = text.parse().unwrap();
        Span { lower, upper: lower.succ_opt().unwrap() }
    }

    fn receipt(days: Span) -> Receipt {
        Receipt {
            sequence: 7,
            kind: "dropped".to_owned(),
            partition: "archive.event_p20260102".to_owned(),
            relation_oid: None,
            lower: days.lower,
            upper: days.upper,
            rows: 1,
            digest: String::new(),
            digest_rule: 1,
            columns: json!([]),
            is_intact: true,
        }
    }

    #[test]
    fn a_dropped_day_is_never_touched_whatever_else_is_known_of_it() {
        let receipts = [receipt(day("2026-01-02"))];
        let marked = DaySet::from_iter([PartitionBy::Day.partition_of(day("2026-01-03").lower)]);
        let of = |text: &str, place| standing(day(text), &receipts, &marked, PartitionBy::Day, place);
        let dropped = Standing::Dropped { receipts: vec![7] };
        assert_eq!((of("2026-01-02", true), of("2026-01-02", false)), (dropped.clone(), dropped.clone()));
        assert_eq!(of("2026-01-03", true), Standing::NotCopied);
        assert_eq!(of("2026-01-04", true), Standing::Asked);
        assert_eq!(of("2026-01-04", false), Standing::NoPlace, "the lake has it alone");
        let whole = standing(day("2026-01-02"), &receipts, &DaySet::whole(), PartitionBy::Day, true);
        assert_eq!(whole, dropped);
    }

    fn facts(strategy: char, key: &str) -> TableFacts {
        let column = SourceColumn {
            name: "created_at".to_owned(),
            lake_name: "created_at".to_owned(),
            type_oid: 1114,
            type_modifier: -1,
            column_type: ColumnType::Timestamp,
            nullable: false,
        };
        let shape = TableShape {
            table: TableName::new("public", "event"),
            columns: vec![column],
            partition_column: 0,
            partition_by: PartitionBy::Day,
            time_zone: chrono_tz::UTC,
            key: vec![0],
            identity: vec![0],
            identity_is_ambiguous: false,
        };
        TableFacts {
            oid: 1,
            owner: "idp".to_owned(),
            shape,
            replica_identity: ReplicaIdentity::Default,
            partitioning: Some(Partitioning { strategy, key: vec![Some(key.to_owned())] }),
            row_security_enabled: false,
            row_security_forced: false,
        }
    }

    #[test]
    fn a_default_partition_is_no_place_for_a_day() {
        let leaf = |bound: &str| Leaf {
            oid: 2,
            table: TableName::new("public", "leaf"),
            owner: "idp".to_owned(),
            bound: LeafBound::parse(bound),
            replica_identity: ReplicaIdentity::Default,
            foreign: false,
        };
        let leaves = [leaf("DEFAULT"), leaf("FOR VALUES FROM ('2026-01-02 00:00:00') TO ('2026-01-03 00:00:00')")];
        let waits = Candidate { oid: 3, table: TableName::new("archive", "event_p20260104"), span: day("2026-01-04") };
        let waiting = [waits];
        let by_date = facts('r', "created_at");
        let today = day("2026-01-04").lower;
        let has = |leaves: &[Leaf], text: &str| has_place(&by_date, leaves, &waiting, day(text), today);
        let days = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"];
        assert_eq!(
            days.map(|text| has(&leaves, text)),
            [false, true, true, true],
            "no leaf was made for the third yet"
        );
        let later = leaf("FOR VALUES FROM ('2026-01-05 00:00:00') TO ('2026-01-06 00:00:00')");
        let [default, second] = leaves;
        let leaves = [default, second, later.clone()];
        assert_eq!(days.map(|text| has(&leaves, text)), [false, true, false, true], "the third is gone");
        assert!(!has(&leaves[1..], "2026-01-06") && has(&leaves, "2026-01-06"), "rows of it have nowhere to be");
        let days_later = day("2026-01-08").lower;
        assert!(!has_place(&by_date, &leaves, &waiting, day("2026-01-06"), days_later), "its leaf may be gone");
        let history = leaf("FOR VALUES FROM (MINVALUE) TO ('2026-01-03 00:00:00')");
        let leaves = [history, later, leaf("FOR VALUES FROM ('2026-01-06 00:00:00') TO (MAXVALUE)"), leaf("DEFAULT")];
        let found = ["1999-01-01", "2026-01-02", "2026-01-03", "2030-01-01"].map(|text| has(&leaves, text));
        assert_eq!(found, [true, true, false, true]);
        let month = days_of(PartitionBy::Month.partition_of(day("2026-01-02").lower)).unwrap();
        assert!(!has_place(&by_date, &leaves, &waiting, month, today), "every day of it has to have one");
        assert!(has_place(&facts('l', "tenant_id"), &leaves, &waiting, day("2026-01-03"), today));
    }

    #[test]
    fn a_month_is_dropped_with_any_of_its_days() {
        let month = days_of(PartitionBy::Month.partition_of(day("2026-01-20").lower)).unwrap();
        let found = standing(month, &[receipt(day("2026-01-02"))], &DaySet::default(), PartitionBy::Month, true);
        assert_eq!(found, Standing::Dropped { receipts: vec![7] });
    }
}
