//! Why some days do not balance: in which hours, then which keys, then which columns (R1).
//!
//! ```text
//! a cut that differs ─▶ sums by hour ─▶ hashes of key and row, in the hours that differ ─▶ multisets ─┐
//!                        Narrowed ◀─ texts of a few keys, and a hash of each of their columns ◀───────┘
//! ```
//!
//! Each step asks both sides: PostgreSQL in the session that counts, the lake in the very files of the cut, which are read
//! again. Both sides hash as the digest does, so what differs here is what differed there. Of other columns than the key nothing comes
//! here but hashes. Hours, rows and keys are bounded; what is left out becomes a note. Nothing here changes the verdict: a step that
//! fails is a note too.

mod compare;
mod details;
mod hours;
mod key_text;
mod lake_side;
mod report;
mod source_side;

pub use report::{HourDifference, Keys, Narrowed};

use super::ReconcileError;
use super::cut::{Cut, HashedFile, Relations, Sides, Subject, covering};
use super::digest::{DigestColumn, RowSum};
use super::ledger::Balance;
use chrono::{DateTime, Utc};
use compare::{Compared, Found, Hash, KeyedRow, compare};
use details::{Details, columns_that_differ};
use hours::{Hours, Sums};
use lake_side::LakeSide;
use report::counted;
use source_side::SourceSide;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Hours that are told; a month has more.
const HOURS_TOLD: usize = 100;
/// Hours that are searched for keys, and the rows that each side may have in one of them: 50 MB of hashes at most.
const HOURS_SEARCHED: usize = 8;
const ROWS_SEARCHED: i64 = 100_000;
/// Keys of each kind that are told.
const KEYS_TOLD: usize = 20;
/// The lock is held as long, and nobody waits for the explanation but whoever writes into a detached table.
const TIME_MAX: Duration = Duration::from_secs(900);
/// What is in the parent is not frozen.
const MOVED: &str = "rows of these days came or went meanwhile, so some that are named here may balance by now";

/// What both sides hash.
struct Plan {
    columns: Arc<[DigestColumn]>,
    /// The primary key's; empty where there is none.
    key: Vec<DigestColumn>,
    hours: Hours,
}

impl Plan {
    /// What tells rows apart: the key, or all columns where there is none.
    fn identity(&self) -> &[DigestColumn] {
        if self.key.is_empty() { &self.columns } else { &self.key }
    }

    fn key_text(&self, key: &Hash, message: &[u8]) -> String {
        if self.key.is_empty() { format!("row {}", hexadecimal(key)) } else { key_text::key_text(&self.key, message) }
    }
}

/// Explains a cut that differs, as far as it can; None where its rows balance.
pub(super) async fn narrow(sides: &Sides<'_>, subject: &Subject<'_>, cut: &Cut) -> Option<Narrowed> {
    if cut.ledger.balance() == Balance::Balanced {
        return None;
    }
    let mut narrowed = Narrowed::default();
    if cut.ledger.receipts.rows != 0 {
        narrowed.notes.push("some of these rows were dropped before, and receipts have no hours".to_owned());
        return Some(narrowed);
    }
    if !cut.faults.is_empty() {
        let files = counted(cut.faults.len(), "file");
        narrowed.notes.push(format!("{files} of the lake cannot be read, and what they hold is missing here"));
    }
    if cut.outside > 0 {
        narrowed.note("what the lake holds of other days was not read, so rows of those count as missing here");
    }
    let failure = match timeout(TIME_MAX, narrow_down(sides, subject, cut, &mut narrowed)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("it took more than {} s", TIME_MAX.as_secs())),
    };
    if let Some(reason) = failure {
        tracing::warn!(table = %subject.shape.table, days = %subject.span, reason, "what does not balance could not be narrowed down to its end");
        narrowed.notes.push(format!("narrowed down no further: {reason}"));
    }
    Some(narrowed)
}

/// The hours of some days whose rows differ, as far as they are over: rows may still come into the others. `files` are the lake's. None
/// where no hour that is over has a row on either side, so that nothing was compared.
pub(super) async fn hours_that_differ(
    sides: &Sides<'_>,
    subject: &Subject<'_>,
    files: &[HashedFile],
    over: DateTime<Utc>,
) -> Result<Option<Vec<HourDifference>>, ReconcileError> {
    let Some(plan) = plan(subject) else { return Ok(None) };
    let (plan, days) = (Arc::new(plan), covering(subject.span, subject.shape.partition_by).0);
    let Relations { detached, live } = sides.relations(subject, days).await?;
    let relations = detached.into_iter().chain(live).collect();
    let source = SourceSide { sides, subject, relations, plan: Arc::clone(&plan) };
    let lake = LakeSide { reader: sides.lake, files, plan: Arc::clone(&plan) };
    // Not at once: what gives way to somebody is told, whatever the other side says.
    let (in_source, in_lake) = tokio::join!(source.hours(), lake.hours());
    let (in_source, in_lake) = (in_source?, in_lake?);
    if !in_source.keys().chain(in_lake.keys()).any(|hour| plan.hours.is_over(*hour, over)) {
        return Ok(None);
    }
    let differing = hours::differing(&in_source, &in_lake);
    let differing = differing.into_iter().filter(|differing| plan.hours.is_over(differing.hour, over));
    let told = differing.map(|differing| HourDifference {
        hour: plan.hours.text(differing.hour),
        postgres: differing.source,
        lake: differing.lake,
    });
    Ok(Some(told.collect()))
}

/// Fills in what is found step by step, so that a step that fails takes nothing with it.
async fn narrow_down(
    sides: &Sides<'_>,
    subject: &Subject<'_>,
    cut: &Cut,
    narrowed: &mut Narrowed,
) -> Result<(), ReconcileError> {
    let Some(plan) = plan(subject) else { return Ok(()) };
    let (plan, days) = (Arc::new(plan), covering(subject.span, subject.shape.partition_by).0);
    let Relations { detached, live } = sides.relations(subject, days).await?;
    let relations = detached.into_iter().chain(live).collect();
    let source = SourceSide { sides, subject, relations, plan: Arc::clone(&plan) };
    let lake = LakeSide { reader: sides.lake, files: &cut.files, plan: Arc::clone(&plan) };

    let (in_source, in_lake) = tokio::try_join!(source.hours(), lake.hours())?;
    let total = |sums: &Sums| sums.values().copied().sum::<RowSum>();
    if total(&in_source) != cut.ledger.expected() || total(&in_lake) != cut.ledger.lake {
        narrowed.note(MOVED);
    }
    let differing = hours::differing(&in_source, &in_lake);
    tell_hours(narrowed, &differing, &plan.hours);
    let searched = searched(narrowed, &differing);
    let hours: Arc<BTreeSet<i64>> = Arc::new(searched.iter().map(|differing| differing.hour).collect());
    if hours.is_empty() {
        return Ok(());
    }

    let (from_source, from_lake) = tokio::try_join!(source.rows(&hours), lake.rows(&hours))?;
    if sum(&from_source) != searched.iter().map(|differing| differing.source).sum::<RowSum>() {
        narrowed.note(MOVED);
    }
    let Ok(compared) = tokio::task::spawn_blocking(move || compare(from_source, from_lake)).await else {
        narrowed.note("the comparison of keys was cut off");
        return Ok(());
    };
    tell_totals(narrowed, &compared);
    if plan.key.is_empty() {
        narrowed.note("the table has no primary key, so rows without a key are named by their hashes");
    }

    let keys: Arc<BTreeSet<Hash>> = Arc::new(compared.keys().copied().collect());
    let (in_source, in_lake) = tokio::try_join!(source.details(&hours, &keys), lake.details(&hours, &keys))?;
    tell_keys(narrowed, &compared, (&in_source, &in_lake), &plan);
    Ok(())
}

/// None for a shape that contradicts itself.
fn plan(subject: &Subject<'_>) -> Option<Plan> {
    let (shape, columns) = (subject.shape, &subject.columns);
    let days = covering(subject.span, shape.partition_by).0;
    let key = shape.key.iter().map(|place| columns.get(*place).cloned()).collect::<Option<Vec<_>>>()?;
    let hours = Hours::new(columns.get(shape.partition_column)?.clone(), days);
    Some(Plan { columns: Arc::clone(columns), key, hours })
}

fn sum(rows: &[KeyedRow]) -> RowSum {
    rows.iter().map(|row| row.sum()).sum()
}

fn tell_hours(narrowed: &mut Narrowed, differing: &[hours::Differing], hours: &Hours) {
    let told = differing.iter().take(HOURS_TOLD).map(|differing| HourDifference {
        hour: hours.text(differing.hour),
        postgres: differing.source,
        lake: differing.lake,
    });
    narrowed.hours = told.collect();
    if differing.len() > HOURS_TOLD {
        narrowed.note(&format!("{} more differ", counted(differing.len() - HOURS_TOLD, "hour")));
    }
}

/// The hours in which keys are looked for. One that a side lacks altogether is explained by its numbers.
fn searched(narrowed: &mut Narrowed, differing: &[hours::Differing]) -> Vec<hours::Differing> {
    let few = i64::try_from(KEYS_TOLD).unwrap_or(i64::MAX);
    let (one_sided, both): (Vec<_>, Vec<_>) =
        differing.iter().copied().partition(|differing| differing.fewest_rows() == 0 && differing.most_rows() > few);
    let (long, mut searched): (Vec<_>, Vec<_>) =
        both.into_iter().partition(|differing| differing.most_rows() > ROWS_SEARCHED);
    if !one_sided.is_empty() {
        let hours = counted(one_sided.len(), "hour");
        narrowed.note(&format!("{hours} with rows on one side only: their keys are not listed"));
    }
    if !long.is_empty() {
        let hours = counted(long.len(), "hour");
        narrowed.note(&format!("{hours} with more than {ROWS_SEARCHED} rows: too many to look for keys"));
    }
    if searched.len() > HOURS_SEARCHED {
        let left = counted(searched.len() - HOURS_SEARCHED, "hour");
        narrowed.note(&format!("{left} more were not searched for keys"));
        searched.truncate(HOURS_SEARCHED);
    }
    searched
}

fn tell_totals(narrowed: &mut Narrowed, compared: &Compared) {
    narrowed.missing.total = compared.missing.total;
    narrowed.extra.total = compared.extra.total;
    narrowed.doubled.total = compared.doubled.total;
    narrowed.different.total = compared.different.total;
}

fn tell_keys(narrowed: &mut Narrowed, compared: &Compared, (source, lake): (&Details, &Details), plan: &Plan) {
    let texts = |found: &Found| {
        let detail =
            |key: &Hash| source.get(key).or_else(|| lake.get(key)).map(|detail| plan.key_text(key, &detail.message));
        let mut texts: Vec<String> = found.keys.iter().filter_map(detail).collect();
        texts.sort();
        texts
    };
    narrowed.missing.keys = texts(&compared.missing);
    narrowed.extra.keys = texts(&compared.extra);
    narrowed.doubled.keys = texts(&compared.doubled);
    narrowed.different.keys = texts(&compared.different);
    narrowed.columns = columns_that_differ(&plan.columns, &compared.different.keys, source, lake);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
